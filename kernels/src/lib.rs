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
//! - [`channels`]: batch norm that stands alone, biases, means of planes.
//! - [`elementwise`]: activations, sums, scaled sums, fills, casts, whether all is finite.
//! - [`finish`]: the end of a block, and the sums with which its backward pass begins.
//! - [`squeeze_excite`]: means of planes, gates, and their backward pass from the project pass's sums.
//! - [`optimizer`]: SGD over the touched ranges in one launch.
//! - [`manifest`]: what the committed PTX was made from.

pub mod batch_norm;
pub mod channels;
pub mod depthwise;
pub mod device;
pub mod elementwise;
mod error;
pub mod finish;
pub mod manifest;
pub mod optimizer;
pub mod pointwise;
pub mod pointwise_gradient;
pub mod squeeze_excite;

pub use device::{Act, DType, Device, Element, Input, Output, Write};
pub use error::{KernelError, Result};
