//! Streams and events: which operations the next one comes after.
//!
//! A front is a set of operations such that everything older in the stream comes before one of them. An event is a
//! copy of a stream's front at the time of its record; waiting for it adds that front to another stream's.

use std::thread::ThreadId;

use super::order::Clock;
use super::queue::TaskId;

/// `CU_STREAM_NON_BLOCKING`.
pub const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`.
pub const DISABLE_TIMING: u32 = 2;

/// What a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The stream that waits for every blocking stream, and they for it.
    Legacy,
    /// The default stream of a thread; blocking.
    PerThread(ThreadId),
    /// Made by the program.
    Created {
        /// Not ordered with the legacy stream.
        non_blocking: bool,
    },
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// Its context.
    pub context: u64,
    /// What it is.
    pub kind: StreamKind,
    /// Priority asked for; lower is more urgent. It changes nothing here.
    pub priority: i32,
    /// What the next operation comes after.
    pub front: Vec<TaskId>,
    /// The same as a clock, which also knows operations that have run.
    pub clock: Clock,
    /// The capture it takes part in, with its front of captured nodes.
    pub capture: Option<(u64, Vec<usize>)>,
}

impl Stream {
    /// A stream with nothing in it.
    pub fn new(context: u64, kind: StreamKind, priority: i32) -> Self {
        Stream { context, kind, priority, front: Vec::new(), clock: Clock::default(), capture: None }
    }

    /// True if it is ordered with the legacy stream.
    pub fn is_blocking(&self) -> bool {
        !matches!(self.kind, StreamKind::Created { non_blocking: true })
    }
}

/// What an event was last recorded as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Nothing yet.
    Never,
    /// The front of a stream.
    Tasks {
        /// The operations.
        tasks: Vec<TaskId>,
        /// The same as a clock.
        clock: Clock,
    },
    /// Nodes of a capture.
    Captured {
        /// The capture.
        capture: u64,
        /// Its front in the recording stream.
        nodes: Vec<usize>,
    },
}

/// An event.
#[derive(Debug)]
pub struct Event {
    /// Its context.
    pub context: u64,
    /// Flags of its creation.
    pub flags: u32,
    /// Its last record.
    pub record: Record,
}

/// Adds to a front without repeating.
pub fn join<T: PartialEq + Copy>(front: &mut Vec<T>, more: &[T]) {
    for t in more {
        if !front.contains(t) {
            front.push(*t);
        }
    }
}
