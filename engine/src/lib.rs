//! Tensors, gradients and kernels for training one path of a supernet at a time.

pub mod rng;

pub use rng::Rng;
