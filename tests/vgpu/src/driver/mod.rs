//! The driver interface: what a program that loads `libcuda` meets.
//!
//! Work is queued when the program asks for it and run when the program waits for it, in an order that the
//! streams, events and graphs allow and the seed chooses. Invariant: an operation never runs before everything it
//! was ordered after, and nothing else about its time is promised, as on a GPU.
//!
//! - [`config`]: the environment variables.
//! - [`code`]: result codes with names and texts.
//! - [`report`]: what a check found, on the standard error stream and in a file.
//! - [`tally`]: the counters of a run.
//! - `queue`, `stream`, `submit`, `capture`: order of work, streams and events, capture into graphs.
//! - `order`: vector clocks that find operations without an order between them, whatever order they ran in.
//! - `entry`, `device`, `run`, `work`, `accounts`: calls, the device's state, running work, what an operation does, memory.
//! - `module`, `pool`, `host`, `occupancy`: modules, memory pools, host memory, resident blocks.
//! - `abi`: the C functions, grouped as in the driver's manual.

pub(crate) mod abi;
mod accounts;
mod capture;
pub mod code;
pub mod config;
pub(crate) mod device;
mod entry;
mod host;
mod module;
pub mod occupancy;
mod order;
mod pool;
mod queue;
pub mod report;
mod run;
mod stream;
mod submit;
pub mod tally;
pub(crate) mod work;
