//! CUDA kernels of a training step, written by hand: their sources (`src/*.cu`), the PTX that ships (`ptx/*.ptx`,
//! made by one pinned compiler) and typed launches over the driver's interface.
//!
//! A launch is prepared once per shape ([`depthwise::Forward::new`]): that chooses the variant, the cut into blocks and
//! the sizes of every buffer. Launching checks the buffers against those sizes, so a wrong count or kind is an error
//! before an address goes out. Invariant: how work is cut depends on shapes alone, and sums have a fixed order without
//! floating-point atomics: same inputs, same bits.
//!
//! - [`device`]: modules, functions, borrowed buffers.
//! - [`depthwise`]: depthwise convolutions with batch norm and activation on load and statistics at the end.
//! - [`pointwise`]: 1x1 convolutions with batch norm, activation and gate on load and statistics at the end.
//! - [`pointwise_gradient`]: their gradients, with batch norm's and activations' backward on load.
//! - [`batch_norm`]: partial moments to scale and shift, partial sums to gradients.
//! - [`conv2d`]: dense convolutions in groups, with both gradients.
//! - [`windows`]: depthwise convolutions of any window and dilation, average and maximum pools.
//! - [`loss`]: softmax cross-entropy. [`dropout`]: dropout.
//! - [`boxes`]: channels joined, picked, shuffled; windows of parameters.
//! - [`augment`]: from 8-bit images to the input of a network.
//! - [`channels`]: batch norm that stands alone, biases, means of planes.
//! - [`elementwise`]: activations, sums, scaled sums, fills, casts, whether all is finite.
//! - [`finish`]: the end of a block, and the sums with which its backward pass begins.
//! - [`squeeze_excite`]: means of planes, gates, and their backward pass from the project pass's sums.
//! - [`optimizer`]: SGD over the touched ranges in one launch. [`clip`]: their norm, scaled or clamped.
//! - [`manifest`]: what the committed PTX was made from.

pub mod augment;
pub mod batch_norm;
pub mod boxes;
pub mod channels;
pub mod clip;
pub mod conv2d;
pub mod depthwise;
pub mod device;
mod divide;
pub mod dropout;
pub mod elementwise;
mod error;
pub mod finish;
pub mod loss;
pub mod manifest;
pub mod optimizer;
pub mod pointwise;
pub mod pointwise_gradient;
pub mod squeeze_excite;
pub mod windows;

pub use device::{Act, DType, Device, Element, Input, Output, Write};
pub use error::{KernelError, Result};
