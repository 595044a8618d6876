//! The driver interface from outside: unmodified cudarc, run as a child process on the virtual GPU.
//!
//! - `works`: modules, launches, streams, events, graphs, pools, pinned memory; results and exact counters.
//! - `blas`: cuBLAS and cuBLASLt.
//! - `defects`: planted mistakes of the host, each of which must be reported.
//! - `raw`: the C interface below cudarc, and everything that is refused by name.
//! - `tool`: the command `vgpu`.
//! - `third_party`: cudarc's own examples, unchanged.

mod blas;
mod defects;
mod harness;
mod raw;
mod third_party;
mod tool;
mod works;
