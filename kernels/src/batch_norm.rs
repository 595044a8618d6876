//! Batch norm between passes: partial moments to statistics, scale and shift.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, image};
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
        for (what, value) in [("partials", partials), ("c", c)] {
            if value == 0 || value > 1 << 20 {
                return Err(KernelError::Shape {
                    op: "batch_norm_finalise",
                    what,
                    value,
                    expected: "1 to 1048576",
                });
            }
        }
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
