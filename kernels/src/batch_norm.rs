//! Batch norm between passes: partial moments to statistics, scale and shift; partial sums to the gradients of weight and
//! bias and to the linear map of its backward; partial gradients to gradients.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, Write, image};
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("batch_norm");

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    partials: i32,
    c: i32,
    eps: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// Merges partial moments: `scale = gamma / sqrt(variance + eps)`, `shift = beta - mean * scale`.
#[derive(Debug)]
pub struct Finalise {
    dims: Dims,
    kernel: Kernel,
}

/// Buffers of [`Finalise`]; all f32.
#[derive(Debug)]
pub struct FinaliseArgs<'a> {
    /// Partial moments `[partials, c, 2]`: mean and sum of squared deviations.
    pub moments: Input<'a>,
    /// Values behind each partial, `[partials]`.
    pub counts: Input<'a>,
    /// Weight `[c]`; 1 if absent.
    pub gamma: Option<Input<'a>>,
    /// Bias `[c]`; 0 if absent.
    pub beta: Option<Input<'a>>,
    /// Factor per channel, `[c]`.
    pub scale: Output<'a>,
    /// Summand per channel, `[c]`.
    pub shift: Output<'a>,
    /// Mean `[c]`.
    pub mean: Output<'a>,
    /// Biased variance `[c]`.
    pub variance: Output<'a>,
}

impl Finalise {
    /// Prepares launches for `partials` partial moments of `c` channels.
    ///
    /// # Errors
    /// No partials, no channels; the driver's.
    pub fn new(device: &Device, partials: usize, c: usize, eps: f32) -> Result<Finalise> {
        check("batch_norm_finalise", [("partials", partials), ("c", c)])?;
        let kernel = device.kernel(&IMAGE, "batch_norm_finalise".into(), 0)?;
        Ok(Finalise { dims: Dims { partials: partials as i32, c: c as i32, eps }, kernel })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: FinaliseArgs<'_>) -> Result<()> {
        let (p, c) = (self.dims.partials as usize, self.dims.c as usize);
        let f32 = DType::F32;
        let args = [
            Arg::In("moments", a.moments, f32, p * c * 2),
            Arg::In("counts", a.counts, f32, p),
            Arg::perhaps("gamma", a.gamma, f32, c),
            Arg::perhaps("beta", a.beta, f32, c),
            Arg::Out("scale", a.scale, f32, c),
            Arg::Out("shift", a.shift, f32, c),
            Arg::Out("mean", a.mean, f32, c),
            Arg::Out("variance", a.variance, f32, c),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, [c.div_ceil(32) as u32, 1, 1], 256, &args, &self.dims) }
    }
}

fn check<const N: usize>(op: &'static str, sizes: [(&'static str, usize); N]) -> Result<()> {
    for (what, value) in sizes {
        if value == 0 || value > 1 << 24 {
            return Err(KernelError::Shape { op, what, value, expected: "1 to 16777216" });
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct BackwardDims {
    partials: i32,
    c: i32,
    n: f32,
    eps: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for BackwardDims {}

/// Merges partial sums of `du` and `du * (h - mean)`; gradients of weight and bias are added to what is there.
#[derive(Debug)]
pub struct Backward {
    dims: BackwardDims,
    kernel: Kernel,
}

/// Buffers of [`Backward`]; all f32.
#[derive(Debug)]
pub struct BackwardArgs<'a> {
    /// Partial sums `[partials, c, 2]`.
    pub sums: Input<'a>,
    /// Scale `[c]` of [`Finalise`].
    pub scale: Input<'a>,
    /// Mean `[c]`.
    pub mean: Input<'a>,
    /// Biased variance `[c]`.
    pub variance: Input<'a>,
    /// Gradient of the weight `[c]`, added to.
    pub dgamma: Option<Output<'a>>,
    /// Gradient of the bias `[c]`, added to.
    pub dbeta: Option<Output<'a>>,
    /// `dh = p * du + q * h + r` per channel, `[3, c]`.
    pub pqr: Output<'a>,
}

impl Backward {
    /// Prepares launches for `partials` partial sums of `c` channels, each over `n` values in all.
    ///
    /// # Errors
    /// No partials, no channels; the driver's.
    pub fn new(device: &Device, partials: usize, c: usize, n: usize, eps: f32) -> Result<Backward> {
        check("batch_norm_backward", [("partials", partials), ("c", c)])?;
        let kernel = device.kernel(&IMAGE, "batch_norm_backward".into(), 0)?;
        Ok(Backward {
            dims: BackwardDims { partials: partials as i32, c: c as i32, n: n as f32, eps },
            kernel,
        })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: BackwardArgs<'_>) -> Result<()> {
        let (p, c, f32) = (self.dims.partials as usize, self.dims.c as usize, DType::F32);
        let args = [
            Arg::In("sums", a.sums, f32, p * c * 2),
            Arg::In("scale", a.scale, f32, c),
            Arg::In("mean", a.mean, f32, c),
            Arg::In("variance", a.variance, f32, c),
            Arg::perhaps_out("dgamma", a.dgamma, f32, c),
            Arg::perhaps_out("dbeta", a.dbeta, f32, c),
            Arg::Out("pqr", a.pqr, f32, 3 * c),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, [c.div_ceil(32) as u32, 1, 1], 256, &args, &self.dims) }
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct FoldDims {
    c: i32,
    eps: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for FoldDims {}

/// Statistics that are given to `scale = gamma / sqrt(variance + eps)`, `shift = beta - mean * scale`.
#[derive(Debug)]
pub struct Fold {
    dims: FoldDims,
    kernel: Kernel,
}

/// Buffers of [`Fold`]; all `[c]` of f32.
#[derive(Debug)]
pub struct FoldArgs<'a> {
    /// Weight; 1 if absent.
    pub gamma: Option<Input<'a>>,
    /// Bias; 0 if absent.
    pub beta: Option<Input<'a>>,
    /// Mean.
    pub mean: Input<'a>,
    /// Biased variance.
    pub variance: Input<'a>,
    /// Factor.
    pub scale: Output<'a>,
    /// Summand.
    pub shift: Output<'a>,
}

impl Fold {
    /// Prepares launches for `c` channels.
    ///
    /// # Errors
    /// No channels; the driver's.
    pub fn new(device: &Device, c: usize, eps: f32) -> Result<Fold> {
        check("batch_norm_fold", [("c", c)])?;
        let kernel = device.kernel(&IMAGE, "batch_norm_fold".into(), 0)?;
        Ok(Fold { dims: FoldDims { c: c as i32, eps }, kernel })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: FoldArgs<'_>) -> Result<()> {
        let (c, f32) = (self.dims.c as usize, DType::F32);
        let args = [
            Arg::perhaps("gamma", a.gamma, f32, c),
            Arg::perhaps("beta", a.beta, f32, c),
            Arg::In("mean", a.mean, f32, c),
            Arg::In("variance", a.variance, f32, c),
            Arg::Out("scale", a.scale, f32, c),
            Arg::Out("shift", a.shift, f32, c),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, [c.div_ceil(256) as u32, 1, 1], 256, &args, &self.dims) }
    }
}

/// Merges partial sums of `du` and `du * (h - mean)` where the statistics were given: gradients are added, and
/// `dh = scale * du`.
#[derive(Debug)]
pub struct FrozenBackward {
    dims: BackwardDims,
    kernel: Kernel,
}

/// Buffers of [`FrozenBackward`]; all f32, `[c]` but for the sums; gradients are added to.
#[derive(Debug)]
pub struct FrozenBackwardArgs<'a> {
    /// Partial sums `[partials, c, 2]`.
    pub sums: Input<'a>,
    /// Scale of [`Fold`].
    pub scale: Input<'a>,
    /// Biased variance.
    pub variance: Input<'a>,
    /// Gradient of the weight.
    pub dgamma: Option<Output<'a>>,
    /// Gradient of the bias.
    pub dbeta: Option<Output<'a>>,
    /// Gradient of the mean.
    pub dmean: Option<Output<'a>>,
    /// Gradient of the variance.
    pub dvariance: Option<Output<'a>>,
}

impl FrozenBackward {
    /// Prepares launches for `partials` partial sums of `c` channels.
    ///
    /// # Errors
    /// No partials, no channels; the driver's.
    pub fn new(device: &Device, partials: usize, c: usize, eps: f32) -> Result<FrozenBackward> {
        check("batch_norm_frozen_backward", [("partials", partials), ("c", c)])?;
        let kernel = device.kernel(&IMAGE, "batch_norm_frozen_backward".into(), 0)?;
        Ok(FrozenBackward {
            dims: BackwardDims { partials: partials as i32, c: c as i32, n: 1.0, eps },
            kernel,
        })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: FrozenBackwardArgs<'_>) -> Result<()> {
        let (p, c, f32) = (self.dims.partials as usize, self.dims.c as usize, DType::F32);
        let args = [
            Arg::In("sums", a.sums, f32, p * c * 2),
            Arg::In("scale", a.scale, f32, c),
            Arg::In("variance", a.variance, f32, c),
            Arg::perhaps_out("dgamma", a.dgamma, f32, c),
            Arg::perhaps_out("dbeta", a.dbeta, f32, c),
            Arg::perhaps_out("dmean", a.dmean, f32, c),
            Arg::perhaps_out("dvariance", a.dvariance, f32, c),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, [c.div_ceil(32) as u32, 1, 1], 256, &args, &self.dims) }
    }
}

/// Arrays of one launch.
const MOST: usize = 8;

/// Elements that a block of `sum_partials` adds up.
const SUMMED: usize = 32;

/// The partial gradients of an array as `batch_norm.cu` has them.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Gradient {
    parts: u64,
    out: u64,
    len: i32,
    partials: i32,
    stride: i32,
    add: i32,
    block: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Gradients([Gradient; MOST]);

// SAFETY: plain addresses and 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Gradients {}

/// Partial gradients of an array, and where their sum goes; all f32.
#[derive(Debug)]
pub struct Partial<'a> {
    /// Parts one after another, each of `stride` elements.
    pub parts: Input<'a>,
    /// How many there are.
    pub partials: usize,
    /// Elements from one part to the next.
    pub stride: usize,
    /// Where in a part the array begins.
    pub offset: usize,
    /// Elements of the array.
    pub len: usize,
    /// Their sum `[len]`.
    pub out: Output<'a>,
    /// Whether it is added.
    pub write: Write,
}

/// Sums partial gradients, such as those of filters, of up to eight arrays in one launch.
#[derive(Debug)]
pub struct SumAll(Kernel);

impl SumAll {
    /// Prepares launches.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(device: &Device) -> Result<SumAll> {
        Ok(SumAll(device.kernel(&IMAGE, "sum_partials".into(), 0)?))
    }

    /// Launches; nothing where there are no arrays.
    ///
    /// # Errors
    /// Too many arrays, an empty one; a buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, arrays: Vec<Partial<'_>>) -> Result<()> {
        if arrays.is_empty() {
            return Ok(());
        }
        if arrays.len() > MOST {
            let (op, what, value) = ("sum_partials", "arrays", arrays.len());
            return Err(KernelError::Shape { op, what, value, expected: "1 to 8" });
        }
        // Those that are missing begin past the last block.
        let mut all = Gradients([Gradient { block: u32::MAX, ..Gradient::default() }; MOST]);
        let mut block = 0;
        for (to, a) in all.0.iter_mut().zip(arrays) {
            check("sum_partials", [("partials", a.partials), ("len", a.len), ("stride", a.stride)])?;
            let needed = (a.partials - 1) * a.stride + a.offset + a.len;
            let parts = self.0.address(&Arg::In("parts", a.parts, DType::F32, needed))?;
            *to = Gradient {
                parts: parts + (a.offset * DType::F32.size()) as u64,
                out: self.0.address(&Arg::Out("out", a.out, DType::F32, a.len))?,
                len: a.len as i32,
                partials: a.partials as i32,
                stride: a.stride as i32,
                add: a.write.adds(),
                block,
            };
            block += a.len.div_ceil(SUMMED) as u32;
        }
        // SAFETY: the kernel takes these dimensions alone; it stays within the sizes that were checked.
        unsafe { self.0.launch(stream, [block, 1, 1], 256, &[], &all) }
    }
}

/// Adds the partial gradients of one array to a gradient.
#[derive(Debug)]
pub struct SumPartials {
    partials: usize,
    len: usize,
    all: SumAll,
}

impl SumPartials {
    /// Prepares launches for `partials` parts of `len` elements.
    ///
    /// # Errors
    /// No partials, no elements; the driver's.
    pub fn new(device: &Device, partials: usize, len: usize) -> Result<SumPartials> {
        check("sum_partials", [("partials", partials), ("len", len)])?;
        Ok(SumPartials { partials, len, all: SumAll::new(device)? })
    }

    /// Launches: `out[i] += sum of parts[p][i]`, all f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, parts: Input<'_>, out: Output<'_>) -> Result<()> {
        let (partials, len, stride) = (self.partials, self.len, self.len);
        self.all
            .launch(stream, vec![Partial { parts, partials, stride, offset: 0, len, out, write: Write::Add }])
    }
}
