//! The kernels on the virtual GPU: every case in a process of its own, under three schedules, with all checks on.
//!
//! - `depthwise`, `pointwise`, `batch_norm`, `channels`, `elementwise`, `optimizer`, `finish`, `pointwise_gradient`, `squeeze_excite`: results against the definition in f64.
//! - `counters`: what the kernels do to the machine, against a committed file and the targets.
//! - `shipping`: what is committed belongs together; every kernel has a test.

#[macro_use]
mod harness;
mod batch_norm;
mod channels;
mod counters;
mod depthwise;
mod elementwise;
mod finish;
mod optimizer;
mod pointwise;
mod pointwise_gradient;
mod shipping;
mod squeeze_excite;
