//! The CUDA backend on the virtual GPU: the unmodified host code and the PTX that ships.
//!
//! - `cases`: every op's cases against their definition in f64.
//! - `device`: memory, copies, the optimiser, what is refused.
//! - `launches`: how many kernels a fused block is.

#[macro_use]
mod harness;
mod cases;
mod device;
mod launches;
