//! Where the time of a step goes: named spans, kept while a bench asks for them.
//!
//! A span costs one relaxed load while tracing is off. Spans nest: an op's contains its passes'.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::Cpu;

/// Time that passed inside one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The op or the pass.
    pub name: &'static str,
    /// `forward`, `backward`, or empty for a pass.
    pub phase: &'static str,
    /// By the clock of [`Cpu::start_trace`].
    pub time: Duration,
}

/// The spans of one CPU.
#[derive(Debug, Default)]
pub(super) struct Trace {
    on: AtomicBool,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    clock: Option<Clock>,
    spent: Vec<Spent>,
}

/// The time since some moment: wall time, or what a busy machine disturbs least, the process's.
pub type Clock = fn() -> Duration;

/// Runs until it is dropped.
#[must_use]
pub(crate) struct Span<'a> {
    trace: &'a Trace,
    name: &'static str,
    phase: &'static str,
    start: Option<(Clock, Duration)>,
}

impl Trace {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("no code panics while it holds the spans")
    }
}

impl Cpu {
    /// Forgets the spans so far and begins to keep them, timed by `clock`.
    pub fn start_trace(&self, clock: Clock) {
        *self.trace().log() = Log { clock: Some(clock), spent: Vec::new() };
        self.trace().on.store(true, Ordering::Relaxed);
    }

    /// Stops keeping spans and returns those since [`Cpu::start_trace`], in the order they ended.
    pub fn stop_trace(&self) -> Vec<Spent> {
        self.trace().on.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.trace().log()).spent
    }

    /// Begins the span of a pass.
    pub(crate) fn pass(&self, name: &'static str) -> Span<'_> {
        self.span(name, "")
    }

    /// Begins a span.
    pub(crate) fn span(&self, name: &'static str, phase: &'static str) -> Span<'_> {
        let trace = self.trace();
        let clock = if trace.on.load(Ordering::Relaxed) { trace.log().clock } else { None };
        Span { trace, name, phase, start: clock.map(|clock| (clock, clock())) }
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        if let Some((clock, start)) = self.start {
            let time = clock().saturating_sub(start);
            self.trace.log().spent.push(Spent { name: self.name, phase: self.phase, time });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_kept_only_while_traced() {
        let cpu = Cpu::new(1).unwrap();
        drop(cpu.pass("early"));
        cpu.start_trace(|| Duration::ZERO);
        {
            let _op = cpu.span("op", "forward");
            drop(cpu.pass("pass"));
        }
        let names: Vec<_> = cpu.stop_trace().iter().map(|s| (s.name, s.phase)).collect();
        assert_eq!(names, [("pass", ""), ("op", "forward")]);
        drop(cpu.pass("late"));
        cpu.start_trace(|| Duration::ZERO);
        assert!(cpu.stop_trace().is_empty());
    }
}
