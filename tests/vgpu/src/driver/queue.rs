//! The queue of work that was asked for and not yet run: a graph of operations and what each comes after.
//!
//! Invariant: an operation begins only after everything it was ordered after has finished. Which of the
//! permitted ones is next is the seed's choice. The plain seed runs no more than the waiting host needs, and the newest
//! permitted operation first: as far from the order of submission as the program allows, so that a missing wait shows.

use std::collections::{BTreeMap, BTreeSet};

use crate::schedule::{Purpose, Schedule};

/// Number of an operation, in order of submission.
pub type TaskId = u64;

struct Task<T> {
    group: u64,
    /// The operation; gone while it is under way.
    payload: Option<T>,
    /// What it comes after and is still in the queue.
    after: BTreeSet<TaskId>,
    /// What comes after it.
    before: Vec<TaskId>,
}

/// Work that was asked for, by group (context).
pub struct Queue<T> {
    schedule: Schedule,
    draws: u64,
    next: TaskId,
    tasks: BTreeMap<TaskId, Task<T>>,
    ready: BTreeSet<TaskId>,
}

/// What the host waits for.
pub enum Target {
    /// Everything of a group.
    Group(u64),
    /// These operations, if they are still in the queue.
    Tasks(Vec<TaskId>),
}

/// A wait in progress.
pub struct Wait {
    target: Target,
    /// With the plain seed: the operations that the target needs.
    needed: Option<BTreeSet<TaskId>>,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(schedule: Schedule) -> Self {
        Queue { schedule, draws: 0, next: 0, tasks: BTreeMap::new(), ready: BTreeSet::new() }
    }

    /// Adds an operation after others; those that already ran do not matter.
    pub fn push(&mut self, group: u64, after: &[TaskId], payload: T) -> TaskId {
        let id = self.next;
        self.next += 1;
        let after: BTreeSet<TaskId> = after.iter().copied().filter(|t| self.tasks.contains_key(t)).collect();
        for t in &after {
            self.tasks.get_mut(t).expect("filtered above").before.push(id);
        }
        if after.is_empty() {
            self.ready.insert(id);
        }
        self.tasks.insert(id, Task { group, payload: Some(payload), after, before: Vec::new() });
        id
    }

    /// True until the operation has finished.
    pub fn is_pending(&self, id: TaskId) -> bool {
        self.tasks.contains_key(&id)
    }

    /// Number of operations waiting.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Operations that have not begun, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = (TaskId, &T)> {
        self.tasks.iter().filter_map(|(id, t)| Some((*id, t.payload.as_ref()?)))
    }

    /// Begins a wait.
    pub fn wait(&self, target: Target) -> Wait {
        let needed = match &target {
            Target::Tasks(tasks) if self.schedule.is_plain() => Some(self.ancestors(tasks)),
            _ => None,
        };
        Wait { target, needed }
    }

    /// True if something that the wait is for has not finished.
    pub fn is_open(&self, wait: &Wait) -> bool {
        match &wait.target {
            Target::Group(group) => self.tasks.values().any(|t| t.group == *group),
            Target::Tasks(tasks) => tasks.iter().any(|t| self.is_pending(*t)),
        }
    }

    /// Takes the next operation to run for a wait; [`Queue::finish`] follows. `None` if the wait is over, or if all that
    /// could run is under way.
    pub fn next(&mut self, wait: &Wait) -> Option<(TaskId, T)> {
        let wanted = |q: &Self, id: TaskId| match &wait.target {
            Target::Group(group) => q.tasks[&id].group == *group,
            Target::Tasks(_) => wait.needed.as_ref().is_none_or(|n| n.contains(&id)),
        };
        if !self.is_open(wait) {
            return None;
        }
        let id = if self.schedule.is_plain() {
            self.ready.iter().rev().copied().find(|id| wanted(self, *id))?
        } else {
            let choices: Vec<TaskId> = self.ready.iter().copied().filter(|id| wanted(self, *id)).collect();
            let n = choices.len() as u64;
            if n == 0 {
                return None;
            }
            self.draws += 1;
            choices[(self.schedule.draw(Purpose::Streams, self.draws) % n) as usize]
        };
        self.ready.remove(&id);
        let payload = self.tasks.get_mut(&id).and_then(|t| t.payload.take());
        Some((id, payload.expect("ready operations have not begun")))
    }

    /// Drops everything of a group that has not begun.
    pub fn discard(&mut self, group: u64) -> Vec<T> {
        let ours = |t: &Task<T>| t.group == group && t.payload.is_some();
        let ids: Vec<TaskId> = self.tasks.iter().filter(|(_, t)| ours(t)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.finish(id)).collect()
    }

    /// Takes an operation out of the queue; what came after it may begin.
    pub fn finish(&mut self, id: TaskId) -> Option<T> {
        self.ready.remove(&id);
        let task = self.tasks.remove(&id)?;
        for t in task.before {
            if let Some(later) = self.tasks.get_mut(&t) {
                later.after.remove(&id);
                if later.after.is_empty() {
                    self.ready.insert(t);
                }
            }
        }
        task.payload
    }

    /// The given operations and everything pending that they come after.
    fn ancestors(&self, tasks: &[TaskId]) -> BTreeSet<TaskId> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<TaskId> = tasks.to_vec();
        while let Some(id) = open.pop() {
            if let Some(t) = self.tasks.get(&id)
                && seen.insert(id)
            {
                open.extend(&t.after);
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(q: &mut Queue<char>, target: Target) -> String {
        let wait = q.wait(target);
        let mut s = String::new();
        while let Some((id, c)) = q.next(&wait) {
            s.push(c);
            q.finish(id);
        }
        s
    }

    fn two_streams(seed: u64) -> (Queue<char>, Vec<TaskId>) {
        let mut q = Queue::new(Schedule::new(seed));
        let a = q.push(1, &[], 'a');
        let b = q.push(1, &[a], 'b');
        let x = q.push(1, &[], 'x');
        let y = q.push(1, &[x], 'y');
        (q, vec![a, b, x, y])
    }

    #[test]
    fn the_plain_seed_runs_the_newest_first() {
        let (mut q, _) = two_streams(0);
        assert_eq!(run(&mut q, Target::Group(1)), "xyab");
        assert_eq!(q.len(), 0);
    }

    #[test]
    fn the_plain_seed_runs_only_what_is_needed() {
        let (mut q, ids) = two_streams(0);
        assert_eq!(run(&mut q, Target::Tasks(vec![ids[1]])), "ab");
        assert!(q.is_pending(ids[2]));
    }

    #[test]
    fn every_order_respects_what_comes_after_what() {
        let mut orders = BTreeSet::new();
        for seed in 0..50 {
            let (mut q, ids) = two_streams(seed);
            let z = q.push(1, &[ids[1], ids[3]], 'z');
            let order = run(&mut q, Target::Tasks(vec![z]));
            let at = |c| order.find(c).unwrap();
            assert!(at('a') < at('b') && at('x') < at('y') && at('z') == 4, "{order}");
            orders.insert(order);
        }
        assert_eq!(orders.len(), 6, "all interleavings of two pairs are found: {orders:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_order() {
        let order = |seed| {
            let (mut q, _) = two_streams(seed);
            run(&mut q, Target::Group(1))
        };
        assert_eq!(order(9), order(9));
    }

    #[test]
    fn a_dependency_that_already_ran_does_not_hold() {
        let mut q = Queue::new(Schedule::new(0));
        let a = q.push(1, &[], 'a');
        assert_eq!(run(&mut q, Target::Tasks(vec![a])), "a");
        q.push(1, &[a, a], 'b');
        assert_eq!(run(&mut q, Target::Group(1)), "b");
    }

    #[test]
    fn what_is_under_way_holds_back_what_comes_after() {
        let mut q = Queue::new(Schedule::new(0));
        let a = q.push(1, &[], 'a');
        q.push(1, &[a], 'b');
        let wait = q.wait(Target::Group(1));
        assert_eq!(q.next(&wait), Some((a, 'a')));
        assert!(q.next(&wait).is_none() && q.is_open(&wait) && q.is_pending(a));
        q.finish(a);
        assert_eq!(q.next(&wait).map(|n| n.1), Some('b'));
    }

    #[test]
    fn groups_are_apart() {
        let mut q = Queue::new(Schedule::new(3));
        q.push(1, &[], 'a');
        q.push(2, &[], 'b');
        assert_eq!(run(&mut q, Target::Group(2)), "b");
        assert_eq!(q.discard(1), ['a']);
    }
}
