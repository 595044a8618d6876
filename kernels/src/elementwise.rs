//! Functions of single elements: activations and their gradients, sums, scaled sums, fills, casts; and whether all
//! elements are finite.
//!
//! Arrays are flat: what their axes mean does not matter here.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Act, Arg, DType, Device, Image, Input, Kernel, Output, Write, image};
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("elementwise");

/// Threads of a block.
const THREADS: u32 = 256;

/// Blocks of the search for what is not finite, which loops.
const SEARCHERS: u32 = 1024;

/// The functions that stand alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// Those that also follow an affine map within other kernels.
    Act(Act),
    /// `1 / (1 + exp(-u))`.
    Sigmoid,
    /// `relu6(u + 3) / 6`.
    HardSigmoid,
}

impl Function {
    /// Every function.
    pub const ALL: [Function; 7] = [
        Function::Act(Act::None),
        Function::Act(Act::Relu),
        Function::Act(Act::Relu6),
        Function::Act(Act::HSwish),
        Function::Act(Act::Swish),
        Function::Sigmoid,
        Function::HardSigmoid,
    ];

    fn variant(self) -> (&'static str, f32, f32) {
        match self {
            Function::Act(act) => act.variant(),
            Function::Sigmoid => ("sigmoid", 0.0, 0.0),
            Function::HardSigmoid => ("hsigmoid", 0.0, 0.0),
        }
    }
}

/// `Elements` of `elementwise.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    n: u32,
    add: i32,
    a: f32,
    b: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// A kernel over `n` elements, so many of them to a thread.
#[derive(Debug)]
struct Each {
    kernel: Kernel,
    n: usize,
    blocks: u32,
}

impl Each {
    fn new(device: &Device, op: &'static str, name: String, n: usize, narrowest: DType) -> Result<Each> {
        if n == 0 || n > i32::MAX as usize {
            return Err(KernelError::Shape { op, what: "elements", value: n, expected: "1 to 2^31 - 1" });
        }
        let kernel = device.kernel(&IMAGE, name, 0)?;
        let block = THREADS as usize * 16 / narrowest.size();
        Ok(Each { kernel, n, blocks: n.div_ceil(block) as u32 })
    }

    fn launch(&self, stream: &CudaStream, args: &[Arg<'_>], write: Write, [a, b]: [f32; 2]) -> Result<()> {
        let dims = Dims { n: self.n as u32, add: write.adds(), a, b };
        // SAFETY: callers pass the kernel's parameters, each of `n` elements or a flag of one; the kernel stays within.
        unsafe { self.kernel.launch(stream, [self.blocks, 1, 1], THREADS, args, &dims) }
    }
}

/// An activation of `n` elements, and its gradient.
#[derive(Debug)]
pub struct Activation {
    forward: Each,
    backward: Each,
    dtype: DType,
    bounds: [f32; 2],
}

impl Activation {
    /// Prepares launches over `n` elements of f32 or bf16.
    ///
    /// # Errors
    /// No elements, or too many; the driver's.
    pub fn new(device: &Device, function: Function, dtype: DType, n: usize) -> Result<Activation> {
        let (variant, lo, hi) = function.variant();
        let each = |way: &str| {
            Each::new(device, "activation", format!("activation_{way}_{dtype}_{variant}"), n, dtype)
        };
        Ok(Activation { forward: each("fwd")?, backward: each("bwd")?, dtype, bounds: [lo, hi] })
    }

    /// Launches `y = f(x)`.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn forward(&self, stream: &CudaStream, x: Input<'_>, y: Output<'_>) -> Result<()> {
        let n = self.forward.n;
        let args = [Arg::In("x", x, self.dtype, n), Arg::Out("y", y, self.dtype, n)];
        self.forward.launch(stream, &args, Write::Store, self.bounds)
    }

    /// Launches `dx (+)= dy * f'(x)`; at kinks as PyTorch.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn backward(
        &self,
        stream: &CudaStream,
        x: Input<'_>,
        dy: Input<'_>,
        dx: Output<'_>,
        write: Write,
    ) -> Result<()> {
        let (n, t) = (self.backward.n, self.dtype);
        let args = [Arg::In("x", x, t, n), Arg::In("dy", dy, t, n), Arg::Out("dx", dx, t, n)];
        self.backward.launch(stream, &args, write, self.bounds)
    }
}

/// `y = a + b`.
#[derive(Debug)]
pub struct Add {
    each: Each,
    dtype: DType,
}

impl Add {
    /// Prepares launches over `n` elements of f32 or bf16.
    ///
    /// # Errors
    /// No elements, or too many; the driver's.
    pub fn new(device: &Device, dtype: DType, n: usize) -> Result<Add> {
        Ok(Add { each: Each::new(device, "add", format!("add_{dtype}"), n, dtype)?, dtype })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: Input<'_>, b: Input<'_>, y: Output<'_>) -> Result<()> {
        let (n, t) = (self.each.n, self.dtype);
        let args = [Arg::In("a", a, t, n), Arg::In("b", b, t, n), Arg::Out("y", y, t, n)];
        self.each.launch(stream, &args, Write::Store, [0.0; 2])
    }
}

/// `y (+)= factor * x`, from one type to the same or another: accumulates gradients, scales, copies, casts.
#[derive(Debug)]
pub struct Scale {
    each: Each,
    from: DType,
    to: DType,
}

impl Scale {
    /// Prepares launches over `n` elements, f32 or bf16 on either side.
    ///
    /// # Errors
    /// No elements, or too many; the driver's.
    pub fn new(device: &Device, from: DType, to: DType, n: usize) -> Result<Scale> {
        let wider = if from == to { to } else { DType::F32 };
        let each = Each::new(device, "scale", format!("scale_{from}_{to}"), n, wider)?;
        Ok(Scale { each, from, to })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(
        &self,
        stream: &CudaStream,
        factor: f32,
        x: Input<'_>,
        y: Output<'_>,
        write: Write,
    ) -> Result<()> {
        let args = [Arg::In("x", x, self.from, self.each.n), Arg::Out("y", y, self.to, self.each.n)];
        self.each.launch(stream, &args, write, [factor, 0.0])
    }
}

/// `y = value`.
#[derive(Debug)]
pub struct Fill {
    each: Each,
    dtype: DType,
}

impl Fill {
    /// Prepares launches over `n` elements of f32 or bf16.
    ///
    /// # Errors
    /// No elements, or too many; the driver's.
    pub fn new(device: &Device, dtype: DType, n: usize) -> Result<Fill> {
        Ok(Fill { each: Each::new(device, "fill", format!("fill_{dtype}"), n, dtype)?, dtype })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, value: f32, y: Output<'_>) -> Result<()> {
        self.each.launch(stream, &[Arg::Out("y", y, self.dtype, self.each.n)], Write::Store, [value, 0.0])
    }
}

/// Sets a flag if an element is infinite or no number.
#[derive(Debug)]
pub struct NonFinite {
    each: Each,
    dtype: DType,
}

impl NonFinite {
    /// Prepares launches over `n` elements of f32 or bf16.
    ///
    /// # Errors
    /// No elements, or too many; the driver's.
    pub fn new(device: &Device, dtype: DType, n: usize) -> Result<NonFinite> {
        let mut each = Each::new(device, "non_finite", format!("non_finite_{dtype}"), n, dtype)?;
        each.blocks = each.blocks.min(SEARCHERS);
        Ok(NonFinite { each, dtype })
    }

    /// Launches: `flag`, `[1]` of i32, becomes 1 or stays what it is.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, x: Input<'_>, flag: Output<'_>) -> Result<()> {
        let args = [Arg::In("x", x, self.dtype, self.each.n), Arg::Out("flag", flag, DType::I32, 1)];
        self.each.launch(stream, &args, Write::Store, [0.0; 2])
    }
}
