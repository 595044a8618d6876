//! Adds up what the launches of a test binary executed; when the binary ends it prints one line with the sum.
//!
//! Tests share one processor budget counted in lane-instructions, so each case is bounded by [`CASE_LIMIT`] and the
//! suite's sum is printed: `vgpu: 123 lane-instructions`, one line per binary, which `.ci/run` adds up.

use std::io::Write;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::driver::tally::Tally;

/// Lane-instructions that one case of a test may execute.
pub const CASE_LIMIT: u64 = 10_000_000;

static SUM: AtomicU64 = AtomicU64::new(0);
static AT_EXIT: Once = Once::new();

unsafe extern "C" {
    /// Of the C library, to which every program is linked.
    fn atexit(f: extern "C" fn()) -> i32;
}

extern "C" fn print() {
    // Past the point where tests can fail: a closed stream is nobody's concern.
    let _ = writeln!(std::io::stdout(), "vgpu: {} lane-instructions", SUM.load(Relaxed));
}

/// Adds what one case executed.
pub fn add(lane_instructions: u64) {
    // SAFETY: `print` has the signature that `atexit` asks for and unwinds never.
    AT_EXIT.call_once(|| unsafe {
        atexit(print);
    });
    SUM.fetch_add(lane_instructions, Relaxed);
}

/// Adds what a program executed on the device, as its counters file says, and gives that number.
pub fn add_run(tally: &Tally) -> u64 {
    let lanes = lanes_of(tally);
    add(lanes);
    lanes
}

fn lanes_of(tally: &Tally) -> u64 {
    tally.kernels.values().map(|k| k.counters.executed().lane).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::{Class, Counters, Executed};

    #[test]
    fn a_run_counts_the_lanes_of_all_its_kernels() {
        let mut t = Tally::default();
        let mut c = Counters::default();
        c.instructions.insert(Class::Float, Executed { warp: 1, lane: 20 });
        c.instructions.insert(Class::Load, Executed { warp: 1, lane: 3 });
        t.launched("a", [32, 0], &c);
        t.launched("b", [32, 0], &c);
        assert_eq!(lanes_of(&t), 46);
    }
}
