//! Capture of streams into graphs, and the graphs.
//!
//! Invariant: a node comes after exactly what its stream's front named when it was captured, so a graph launch queues
//! the same order that the streams would have had.

use std::collections::BTreeSet;
use std::thread::ThreadId;

use super::order::Clock;

/// How strictly calls are forbidden while capturing (`CUstreamCaptureMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Unsafe calls of every thread are forbidden.
    Global,
    /// Unsafe calls of the capturing thread are forbidden.
    ThreadLocal,
    /// Nothing else is forbidden.
    Relaxed,
}

impl Mode {
    /// The mode with a number.
    pub fn from_number(n: u32) -> Option<Mode> {
        [Mode::Global, Mode::ThreadLocal, Mode::Relaxed].get(n as usize).copied()
    }
}

/// A captured operation with the nodes it comes after.
#[derive(Debug, Clone)]
pub struct Node<T> {
    /// The operation.
    pub payload: T,
    /// Earlier nodes of the same list.
    pub after: Vec<usize>,
}

/// A capture in progress.
#[derive(Debug)]
pub struct Capture<T> {
    /// Context of the stream it began in.
    pub context: u64,
    /// The stream it began in.
    pub origin: u64,
    /// The thread that began it.
    pub thread: ThreadId,
    /// What it forbids.
    pub mode: Mode,
    /// Why it can no longer end well.
    pub invalid: Option<String>,
    /// What was captured, in order.
    pub nodes: Vec<Node<T>>,
}

impl<T> Capture<T> {
    /// Adds an operation; gives its index.
    pub fn push(&mut self, after: &[usize], payload: T) -> usize {
        self.nodes.push(Node { payload, after: after.to_vec() });
        self.nodes.len() - 1
    }

    /// Nodes of `front` that do not come before `origin`: work that was forked and never joined.
    pub fn unjoined(&self, origin: &[usize], front: &[usize]) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let mut open = origin.to_vec();
        while let Some(i) = open.pop() {
            if seen.insert(i) {
                open.extend(&self.nodes[i].after);
            }
        }
        front.iter().copied().filter(|i| !seen.contains(i)).collect()
    }
}

/// A graph that was captured.
#[derive(Debug)]
pub struct Graph<T> {
    /// Its context.
    pub context: u64,
    /// Its operations in order of capture.
    pub nodes: Vec<Node<T>>,
}

/// A graph ready to launch.
#[derive(Debug)]
pub struct GraphExec<T> {
    /// Its context.
    pub context: u64,
    /// Its operations in order of capture.
    pub nodes: Vec<Node<T>>,
    /// What its last launch ended with: launches of the same one do not overlap.
    pub last: Vec<u64>,
    /// The same as a clock.
    pub clock: Clock,
}

/// Nodes that no other node comes after.
pub fn leaves<T>(nodes: &[Node<T>]) -> Vec<usize> {
    let inner: BTreeSet<usize> = nodes.iter().flat_map(|n| n.after.iter().copied()).collect();
    (0..nodes.len()).filter(|i| !inner.contains(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forked_work_must_be_joined() {
        let mut c = Capture {
            context: 1,
            origin: 1,
            thread: std::thread::current().id(),
            mode: Mode::Global,
            invalid: None,
            nodes: Vec::new(),
        };
        let a = c.push(&[], 'a');
        let b = c.push(&[a], 'b');
        let x = c.push(&[a], 'x');
        assert_eq!(c.unjoined(&[b], &[x]), [x]);
        let y = c.push(&[b, x], 'y');
        assert!(c.unjoined(&[y], &[x]).is_empty());
        assert_eq!(leaves(&c.nodes), [y]);
    }
}
