//! What is done to break a run, as functions that `cargo test` calls with small counts and `soak` with
//! large ones. Each panics on the first difference and returns a line with its counts.
//!
//! The invariant that all of them hold: whatever stopped a run, going on with it gives the bits of the run
//! that was never stopped.

mod bench;
mod disk;
mod faults;
mod kills;
mod steps;

pub use bench::{Bench, built, fingerprint, losses};
pub use disk::full_disks;
pub use faults::faults;
pub use kills::{kills, kills_in_calls};
pub use steps::{
    a_planted_nan_is_named, named, newest, plant_nan, resumed_at_every_step, threads_and_workers,
};
