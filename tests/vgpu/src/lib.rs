//! A virtual CUDA device: the driver interface over a strict PTX interpreter.
//!
//! It runs the PTX that a real driver would be given, checks every access, and counts what was executed.
//! It never measures time. Invariant: the same program, seed and device description give the same
//! results, counters and faults, whatever the number of threads.
//!
//! - [`ptx`]: text to typed instructions; what it does not know it refuses by kernel, line and text.
//! - [`memory`]: device memory with a shadow that knows which bytes exist, were freed, were written.
//! - [`exec`]: warps of 32 lanes, blocks, launches, checks.
//! - [`counters`]: exact integers about what ran.
//! - [`schedule`]: the seeded order in which independent work is run.
//! - [`driver`]: the C interface of the driver, streams, events, graphs, memory pools, reports; stand-ins for
//!   cuBLAS and cuBLASLt beside it.
//! - [`stat`]: counters as a table.
//! - [`launcher`]: starts a program so that it finds this library in place of the driver.
//! - [`meter`]: what the cases of a test binary executed in all.

pub mod counters;
mod cublas;
pub mod driver;
pub mod exec;
pub mod fault;
pub mod launcher;
pub mod memory;
pub mod meter;
pub mod props;
pub mod ptx;
pub mod schedule;
pub mod stat;

pub use counters::Counters;
pub use fault::{Fault, FaultKind};
pub use memory::Memory;
pub use props::DeviceProps;
