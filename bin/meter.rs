//! How far a command is that has no run and so no events: one line on standard error.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Counts up: rewritten in place on a terminal, a new line every ten seconds elsewhere, and nothing
/// for what is done sooner.
pub struct Meter {
    what: String,
    total: usize,
    terminal: bool,
    began: Instant,
    shown: Mutex<Shown>,
}

struct Shown {
    at: Instant,
    any: bool,
}

impl Meter {
    /// Of `total` records.
    pub fn new(what: impl Into<String>, total: usize) -> Self {
        let now = Instant::now();
        Self {
            what: what.into(),
            total,
            terminal: std::io::stderr().is_terminal(),
            began: now,
            shown: Mutex::new(Shown { at: now, any: false }),
        }
    }

    /// `done` of them are done. From any thread; a thread that finds another one printing goes on.
    pub fn at(&self, done: usize) {
        let Ok(mut shown) = self.shown.try_lock() else { return };
        let every = Duration::from_millis(if self.terminal { 200 } else { 10_000 });
        if shown.at.elapsed() < every || done == 0 {
            return;
        }
        let left = self.began.elapsed().as_secs_f64() * self.total.saturating_sub(done) as f64 / done as f64;
        let line = format!("{}: {done} of {}, {left:.0} s left", self.what, self.total);
        // A progress line that cannot be written is no reason to stop the work.
        let mut stderr = std::io::stderr();
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
        *shown = Shown { at: Instant::now(), any: true };
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.terminal && self.shown.get_mut().is_ok_and(|shown| shown.any) {
            eprint!("\r\x1b[K");
        }
    }
}
