//! The kernels on the virtual GPU: every case in a process of its own, under three schedules, with all checks on.
//!
//! - one module per module of the crate: results against the definition in f64.
//! - `counters`: what the kernels do to the machine, against a committed file and the targets.
//! - `shipping`: what is committed belongs together.
//! - `without_a_test`: no kernel is, and of their basic blocks those that are listed; occupancy of what the tests launch.

#[macro_use]
mod harness;
mod augment;
mod batch_norm;
mod boxes;
mod channels;
mod clip;
mod conv2d;
mod counters;
mod depthwise;
mod dropout;
mod elementwise;
mod finish;
mod loss;
mod optimizer;
mod pointwise;
mod pointwise_gradient;
mod shipping;
mod squeeze_excite;
mod windows;
mod without_a_test;
