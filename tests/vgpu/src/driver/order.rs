//! Order between streams: vector clocks, and who touched which bytes last.
//!
//! Two operations that touch the same bytes, one of them writing, must be ordered by a stream, an event, a graph or a wait
//! of the host. Running them in a lucky order hides that; comparing clocks does not. Invariant: `a` comes before `b`
//! exactly if `b`'s clock has reached `a`'s place in its chain. A chain is a sequence of operations each of which comes
//! after the one before.
//!
//! The host is taken for one thread, so that order made between threads of the program counts: a race may be missed,
//! nothing innocent is reported.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::memory::Footprint;

/// How far each chain has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clock(Vec<u64>);

impl Clock {
    fn at(&self, chain: usize) -> u64 {
        self.0.get(chain).copied().unwrap_or(0)
    }

    /// Reaches whatever the other has reached.
    pub fn join(&mut self, other: &Clock) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }
}

/// The place of an operation in the order.
#[derive(Debug, Clone)]
pub struct Stamp {
    chain: usize,
    place: u64,
    /// What it comes after, itself included.
    pub clock: Arc<Clock>,
}

/// The order as far as it is known.
#[derive(Debug, Default)]
pub struct Order {
    /// Length of each chain.
    chains: Vec<u64>,
    /// What the host has waited for: everything asked for later comes after it.
    host: Clock,
}

impl Order {
    /// The stamp of a new operation that comes after some clocks.
    pub fn stamp(&mut self, after: Clock) -> Stamp {
        let mut clock = after;
        clock.join(&self.host);
        let ends = |(chain, length): (usize, &u64)| (clock.at(chain) >= *length).then_some(chain);
        let chain = self.chains.iter().enumerate().find_map(ends).unwrap_or_else(|| {
            self.chains.push(0);
            self.chains.len() - 1
        });
        self.chains[chain] += 1;
        let place = self.chains[chain];
        if clock.0.len() <= chain {
            clock.0.resize(chain + 1, 0);
        }
        clock.0[chain] = place;
        Stamp { chain, place, clock: Arc::new(clock) }
    }

    /// The host has waited for what a clock stands for.
    pub fn host_waited(&mut self, clock: &Clock) {
        self.host.join(clock);
    }

    /// True if there may be operations without order between them.
    pub fn is_parallel(&self) -> bool {
        self.chains.len() > 1
    }

    /// True if everything comes before whatever the program asks for next.
    pub fn is_settled(&self) -> bool {
        self.chains.iter().enumerate().all(|(chain, length)| self.host.at(chain) >= *length)
    }
}

#[derive(Debug, Clone)]
struct Access {
    chain: usize,
    place: u64,
    label: Arc<str>,
}

impl Access {
    fn is_before(&self, stamp: &Stamp) -> bool {
        stamp.clock.at(self.chain) >= self.place
    }
}

/// Who touched a range last.
#[derive(Debug, Clone)]
struct Cell {
    end: u64,
    writer: Option<Access>,
    /// Those since the write that do not come before one another.
    readers: Vec<Access>,
}

/// Who touched which bytes last.
#[derive(Debug, Default)]
pub struct History {
    cells: BTreeMap<u64, Cell>,
}

/// Two operations on the same bytes without order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The operation that ran first.
    pub other: Arc<str>,
    /// It wrote (or else it read, and the later one writes).
    pub other_wrote: bool,
    /// The later one writes.
    pub writes: bool,
    /// The first bytes that both touched.
    pub bytes: Range<u64>,
}

impl History {
    /// Notes what an operation touched; gives the first conflict with what ran before.
    pub fn note(&mut self, stamp: &Stamp, label: &Arc<str>, footprint: &Footprint) -> Option<Conflict> {
        let mut conflict = None;
        for range in &footprint.read {
            let found = self.read(range, stamp, label);
            conflict = conflict.or(found);
        }
        for range in &footprint.written {
            let found = self.write(range, stamp, label);
            conflict = conflict.or(found);
        }
        conflict
    }

    /// Forgets a range: memory that was freed.
    pub fn forget(&mut self, range: &Range<u64>) {
        self.split(range);
        while let Some((&at, _)) = self.cells.range(range.clone()).next() {
            self.cells.remove(&at);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.cells.clear();
    }

    /// Makes cells begin and end at the ends of a range.
    fn split(&mut self, range: &Range<u64>) {
        for at in [range.start, range.end] {
            if let Some((_, cell)) = self.cells.range_mut(..at).next_back()
                && cell.end > at
            {
                let rest = cell.clone();
                cell.end = at;
                self.cells.insert(at, rest);
            }
        }
    }

    fn read(&mut self, range: &Range<u64>, stamp: &Stamp, label: &Arc<str>) -> Option<Conflict> {
        self.split(range);
        let me = Access { chain: stamp.chain, place: stamp.place, label: label.clone() };
        let (mut conflict, mut gaps, mut at) = (None, Vec::new(), range.start);
        for (&start, cell) in self.cells.range_mut(range.clone()) {
            if at < start {
                gaps.push(at..start);
            }
            at = cell.end;
            if let Some(w) = cell.writer.as_ref().filter(|w| !w.is_before(stamp)) {
                conflict.get_or_insert_with(|| Conflict {
                    other: w.label.clone(),
                    other_wrote: true,
                    writes: false,
                    bytes: start..cell.end,
                });
            }
            cell.readers.retain(|r| !r.is_before(stamp));
            cell.readers.push(me.clone());
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        for gap in gaps {
            self.cells.insert(gap.start, Cell { end: gap.end, writer: None, readers: vec![me.clone()] });
        }
        conflict
    }

    fn write(&mut self, range: &Range<u64>, stamp: &Stamp, label: &Arc<str>) -> Option<Conflict> {
        self.split(range);
        let mut conflict = None;
        for (&start, cell) in self.cells.range(range.clone()) {
            let writer = cell.writer.iter().map(|a| (a, true));
            let mut touched = writer.chain(cell.readers.iter().map(|a| (a, false)));
            if let Some((other, wrote)) = touched.find(|(a, _)| !a.is_before(stamp)) {
                conflict = Some(Conflict {
                    other: other.label.clone(),
                    other_wrote: wrote,
                    writes: true,
                    bytes: start..cell.end,
                });
                break;
            }
        }
        while let Some((&at, _)) = self.cells.range(range.clone()).next() {
            self.cells.remove(&at);
        }
        let me = Access { chain: stamp.chain, place: stamp.place, label: label.clone() };
        self.cells.insert(range.start, Cell { end: range.end, writer: Some(me), readers: Vec::new() });
        conflict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(range: Range<u64>) -> Footprint {
        Footprint { written: vec![range], read: Vec::new() }
    }

    fn reads(range: Range<u64>) -> Footprint {
        Footprint { read: vec![range], written: Vec::new() }
    }

    fn label(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn one_stream_is_one_chain() {
        let mut order = Order::default();
        let a = order.stamp(Clock::default());
        let b = order.stamp((*a.clock).clone());
        assert_eq!((a.chain, b.chain, b.place), (0, 0, 2));
        assert!(!order.is_parallel());
    }

    #[test]
    fn chains_are_used_again_after_the_host_waited() {
        let mut order = Order::default();
        for _ in 0..10 {
            let a = order.stamp(Clock::default());
            let b = order.stamp(Clock::default());
            assert_ne!(a.chain, b.chain);
            order.host_waited(&a.clock);
            assert!(!order.is_settled());
            order.host_waited(&b.clock);
            assert!(order.is_settled());
        }
        assert_eq!(order.chains.len(), 2);
    }

    #[test]
    fn unordered_writes_conflict_and_ordered_ones_do_not() {
        let mut order = Order::default();
        let mut history = History::default();
        let a = order.stamp(Clock::default());
        let b = order.stamp(Clock::default());
        let mut both = (*a.clock).clone();
        both.join(&b.clock);
        let c = order.stamp(both);
        assert_eq!(history.note(&a, &label("a"), &writes(0..100)), None);
        let conflict = history.note(&b, &label("b"), &writes(90..110)).unwrap();
        assert_eq!((&*conflict.other, conflict.bytes, conflict.other_wrote), ("a", 90..100, true));
        assert_eq!(history.note(&c, &label("c"), &writes(0..200)), None);
    }

    #[test]
    fn readers_do_not_conflict_with_each_other_but_with_a_writer() {
        let mut order = Order::default();
        let mut history = History::default();
        let first = order.stamp(Clock::default());
        let a = order.stamp((*first.clock).clone());
        let b = order.stamp((*first.clock).clone());
        let late = order.stamp((*b.clock).clone());
        assert_eq!(history.note(&first, &label("first"), &writes(0..64)), None);
        assert_eq!(history.note(&a, &label("a"), &reads(0..64)), None);
        assert_eq!(history.note(&b, &label("b"), &reads(32..96)), None);
        let conflict = history.note(&late, &label("late"), &writes(0..64)).unwrap();
        assert_eq!((&*conflict.other, conflict.other_wrote, conflict.writes), ("a", false, true));
    }

    #[test]
    fn disjoint_parts_of_one_buffer_do_not_conflict() {
        let mut order = Order::default();
        let mut history = History::default();
        let a = order.stamp(Clock::default());
        let b = order.stamp(Clock::default());
        assert_eq!(history.note(&a, &label("a"), &writes(0..50)), None);
        assert_eq!(history.note(&b, &label("b"), &writes(50..100)), None);
        history.forget(&(20..80));
        assert_eq!(history.note(&b, &label("b"), &writes(20..80)), None);
        assert!(history.note(&b, &label("b"), &writes(0..20)).is_some());
    }
}
