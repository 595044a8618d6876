//! Softmax cross-entropy with label smoothing: the mean loss, and the gradient of the logits.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, Write, image};
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("loss");

/// Rows of a block, one per warp.
const ROWS: usize = 4;

/// `Loss` of `loss.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    rows: i32,
    classes: i32,
    smoothing: f32,
    add: i32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// The loss of `logits [rows, classes]` for `labels [rows]` of i32, averaged over rows; the target is
/// `(1 - smoothing) * onehot + smoothing / classes`.
///
/// A label outside `0..classes` gives a loss that is no number.
#[derive(Debug)]
pub struct SoftmaxCrossEntropy {
    dims: Dims,
    dtype: DType,
    forward: Kernel,
    mean: Kernel,
    backward: Kernel,
}

/// Buffers of [`SoftmaxCrossEntropy::forward`].
#[derive(Debug)]
pub struct ForwardArgs<'a> {
    /// Logits `[rows, classes]`.
    pub logits: Input<'a>,
    /// Labels `[rows]`, i32.
    pub labels: Input<'a>,
    /// Losses of the rows, `[rows]`, f32: written, then read again for their mean.
    pub losses: Output<'a>,
    /// Probabilities `[rows, classes]`, f32, for the gradient.
    pub probabilities: Option<Output<'a>>,
}

impl SoftmaxCrossEntropy {
    /// Prepares launches over logits of f32 or bf16.
    ///
    /// # Errors
    /// No rows, no classes, smoothing outside 0 to 1; the driver's.
    pub fn new(
        device: &Device,
        dtype: DType,
        rows: usize,
        classes: usize,
        smoothing: f32,
    ) -> Result<SoftmaxCrossEntropy> {
        let op = "softmax_cross_entropy";
        for (what, value) in [("rows", rows), ("classes", classes)] {
            if value == 0 || value > 1 << 24 {
                return Err(KernelError::Shape { op, what, value, expected: "1 to 16777216" });
            }
        }
        if !(0.0..=1.0).contains(&smoothing) {
            return Err(KernelError::Setting { op, what: "smoothing", value: smoothing, expected: "0 to 1" });
        }
        let kernel = |name| device.kernel(&IMAGE, name, 0);
        Ok(SoftmaxCrossEntropy {
            dims: Dims { rows: rows as i32, classes: classes as i32, smoothing, add: 0 },
            dtype,
            forward: kernel(format!("{op}_fwd_{dtype}"))?,
            mean: kernel("mean_loss".into())?,
            backward: kernel(format!("{op}_bwd_{dtype}"))?,
        })
    }

    fn rows(&self) -> usize {
        self.dims.rows as usize
    }

    fn logits(&self) -> usize {
        self.rows() * self.dims.classes as usize
    }

    /// Launches the losses of the rows.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn forward(&self, stream: &CudaStream, a: ForwardArgs<'_>) -> Result<()> {
        let (rows, n, f32) = (self.rows(), self.logits(), DType::F32);
        let args = [
            Arg::In("logits", a.logits, self.dtype, n),
            Arg::In("labels", a.labels, DType::I32, rows),
            Arg::Out("losses", a.losses, f32, rows),
            Arg::perhaps_out("probabilities", a.probabilities, f32, n),
        ];
        let grid = [rows.div_ceil(ROWS) as u32, 1, 1];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.forward.launch(stream, grid, 32 * ROWS as u32, &args, &self.dims) }
    }

    /// Launches their mean: `loss [1]` of f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn mean(&self, stream: &CudaStream, losses: Input<'_>, loss: Output<'_>) -> Result<()> {
        let args =
            [Arg::In("losses", losses, DType::F32, self.rows()), Arg::Out("loss", loss, DType::F32, 1)];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.mean.launch(stream, [1, 1, 1], 256, &args, &self.dims) }
    }

    /// Launches the gradient of the logits; `seed [1]` of f32 is that of the loss, 1 if absent.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn backward(
        &self,
        stream: &CudaStream,
        probabilities: Input<'_>,
        labels: Input<'_>,
        seed: Option<Input<'_>>,
        dx: Output<'_>,
        write: Write,
    ) -> Result<()> {
        let (rows, n) = (self.rows(), self.logits());
        let args = [
            Arg::In("probabilities", probabilities, DType::F32, n),
            Arg::In("labels", labels, DType::I32, rows),
            Arg::perhaps("seed", seed, DType::F32, 1),
            Arg::Out("dx", dx, self.dtype, n),
        ];
        let grid = [rows.div_ceil(ROWS) as u32, 1, 1];
        let dims = Dims { add: write.adds(), ..self.dims };
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.backward.launch(stream, grid, 32 * ROWS as u32, &args, &dims) }
    }
}
