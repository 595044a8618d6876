//! The contract of an operation: one differentiable function with its backward.

use std::fmt;

use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// One differentiable function of tensors. Its fields are its hyper-parameters.
pub trait Op: fmt::Debug + Send + Sync {
    /// The name in errors, profiles and benches: `depthwise_conv2d`.
    fn name(&self) -> &'static str;

    /// The shape of the output; where the inputs' shapes are checked.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the op and all shapes.
    fn shape(&self, inputs: &[Shape]) -> Result<Shape>;

    /// What backward reads besides [`Output::saved`].
    fn keep(&self) -> Keep;

    /// Multiply-adds of the forward pass; 0 for element-wise ops.
    fn macs(&self, _inputs: &[Shape]) -> u64 {
        0
    }

    /// Computes the output. `inputs` have passed [`Op::shape`]; with `record`, what backward needs
    /// is returned in [`Output::saved`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DType`].
    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], record: bool) -> Result<Output>;

    /// Bit `i`: where [`Kept::is_fresh`] says so of input `i`, backward stores its gradient instead of
    /// adding it, so that the slot need not be zeroed first. Worth it for large gradients alone.
    fn stores(&self) -> u32 {
        0
    }

    /// **Adds** the gradient of every input whose slot in `dx` is `Some` into it, and skips `None`.
    /// Only a fresh slot that [`Op::stores`] names is written without being read.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DType`].
    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()>;

    /// [`Op::forward`] on a GPU, where all tensors lie.
    ///
    /// # Errors
    /// As [`Op::forward`]; [`Error::NoKernel`] where no kernel serves the shapes; what the driver says.
    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], record: bool) -> Result<Output>;

    /// [`Op::backward`] on a GPU: stores into every slot that [is fresh](Slot::is_fresh), adds into the others, and skips
    /// `None`.
    ///
    /// # Errors
    /// As [`Op::forward_cuda`].
    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()>;
}

/// Which tensors the tape holds for backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Bit `i`: input `i`.
    pub inputs: u32,
    /// The output.
    pub output: bool,
}

impl Keep {
    /// Nothing: backward needs shapes alone.
    pub const NOTHING: Keep = Keep { inputs: 0, output: false };
    /// The output alone.
    pub const OUTPUT: Keep = Keep { inputs: 0, output: true };
    /// Every input.
    pub const INPUTS: Keep = Keep { inputs: u32::MAX, output: false };

    /// These inputs alone.
    pub const fn inputs(which: &[usize]) -> Keep {
        let (mut bits, mut i) = (0, 0);
        while i < which.len() {
            bits |= 1 << which[i];
            i += 1;
        }
        Keep { inputs: bits, output: false }
    }
}

/// What a forward pass returns.
#[derive(Debug)]
pub struct Output {
    /// The result.
    pub y: Tensor,
    /// Intermediate tensors that backward reads; empty unless recording.
    pub saved: Vec<Tensor>,
    /// The batch statistics of every batch norm inside, in order.
    pub moments: Vec<Moments>,
}

impl From<Tensor> for Output {
    fn from(y: Tensor) -> Self {
        Self { y, saved: Vec::new(), moments: Vec::new() }
    }
}

/// Per-channel statistics of one batch.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Mean `[c]`.
    pub mean: Tensor,
    /// Biased variance `[c]` (divided by `count`).
    pub var: Tensor,
    /// Values per channel.
    pub count: usize,
}

/// What the tape kept, handed to backward.
pub struct Kept<'a> {
    /// The op, for messages.
    pub(crate) op: &'static str,
    pub(crate) inputs: &'a [Option<Tensor>],
    pub(crate) shapes: &'a [Shape],
    pub(crate) output: Option<&'a Tensor>,
    /// Bit `i`: the slot of input `i` holds nothing yet.
    pub(crate) fresh: u32,
    /// [`Output::saved`] of the forward pass.
    pub saved: &'a [Tensor],
}

impl Kept<'_> {
    /// Input `i` as f32.
    ///
    /// # Errors
    /// [`Error::DType`] if it holds something else.
    ///
    /// # Panics
    /// If [`Op::keep`] did not name it.
    pub fn x(&self, i: usize) -> Result<&[f32]> {
        self.input(i).f32()
    }

    /// Input `i`.
    ///
    /// # Panics
    /// If [`Op::keep`] did not name it.
    pub fn input(&self, i: usize) -> &Tensor {
        match self.inputs.get(i) {
            Some(Some(tensor)) => tensor,
            _ => panic!("{}: keep() does not name input {i}, which backward reads", self.op),
        }
    }

    /// Whether the gradient of input `i`, which [`Op::stores`] names, is to be stored and not added.
    pub fn is_fresh(&self, i: usize) -> bool {
        i < 32 && self.fresh >> i & 1 == 1
    }

    /// The shape of input `i`, kept or not.
    pub fn shape(&self, i: usize) -> Shape {
        self.shapes[i]
    }

    /// The output as f32.
    ///
    /// # Errors
    /// [`Error::DType`].
    ///
    /// # Panics
    /// If [`Op::keep`] did not name it.
    pub fn y(&self) -> Result<&[f32]> {
        self.output().f32()
    }

    /// The output.
    ///
    /// # Panics
    /// If [`Op::keep`] did not name it.
    pub fn output(&self) -> &Tensor {
        match self.output {
            Some(tensor) => tensor,
            None => panic!("{}: keep() does not name the output, which backward reads", self.op),
        }
    }
}

/// The error every [`Op::shape`] returns.
pub fn shape_error(op: &'static str, inputs: &[Shape], reason: impl Into<String>) -> Error {
    Error::Shape { op, inputs: inputs.to_vec(), reason: reason.into() }
}

/// Checks that there are `N` inputs.
///
/// # Errors
/// [`Error::Shape`] otherwise.
pub fn arity<const N: usize>(op: &'static str, inputs: &[Shape]) -> Result<[Shape; N]> {
    inputs
        .try_into()
        .map_err(|_| shape_error(op, inputs, format!("expected {N} inputs, found {}", inputs.len())))
}

/// Checks that input `i` is `[n, h, w, c]` with nothing zero.
///
/// # Errors
/// [`Error::Shape`] otherwise.
pub fn nhwc(op: &'static str, inputs: &[Shape], i: usize) -> Result<[usize; 4]> {
    match inputs[i].nhwc() {
        Some(dims) if !dims.contains(&0) => Ok(dims),
        _ => Err(shape_error(op, inputs, format!("input {i} must be [n, h, w, c] with no axis zero"))),
    }
}

/// Checks that input `i` has exactly these axes.
///
/// # Errors
/// [`Error::Shape`] otherwise.
pub fn exactly(op: &'static str, inputs: &[Shape], i: usize, what: &str, want: &[usize]) -> Result<()> {
    if inputs[i].dims() == want {
        Ok(())
    } else {
        Err(shape_error(op, inputs, format!("input {i} must be {what} = {want:?}")))
    }
}
