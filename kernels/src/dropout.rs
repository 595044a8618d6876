//! Dropout: which elements are zeroed is a function of key, epoch, step and the element's place in the step; the same
//! ones as the CPU zeroes.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, Write, image};
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("dropout");

/// Elements of a block: four per thread.
const BLOCK: usize = 1024;

/// `Dropout` of `dropout.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    n: u32,
    add: i32,
    first: [u32; 2],
    key: [u32; 2],
    epoch: u32,
    step: u32,
    rate: f32,
    kept: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// Where the draws of a launch begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Key of the layer's stream: two words of Philox.
    pub key: [u32; 2],
    /// Epoch.
    pub epoch: u32,
    /// Step.
    pub step: u32,
    /// The step's number of the first element: image times features.
    pub first: u64,
}

/// `y (+)= x * (zero with probability rate, else 1 / (1 - rate))`; forward of `x`, backward of `dy`.
#[derive(Debug)]
pub struct Dropout {
    kernel: Kernel,
    dtype: DType,
    n: usize,
    rate: f32,
}

impl Dropout {
    /// Prepares launches over `n` elements of f32 or bf16.
    ///
    /// # Errors
    /// No elements, or too many, a rate outside 0 to 1 without 1; the driver's.
    pub fn new(device: &Device, dtype: DType, n: usize, rate: f32) -> Result<Dropout> {
        let op = "dropout";
        if n == 0 || n > 1 << 31 {
            return Err(KernelError::Shape { op, what: "elements", value: n, expected: "1 to 2^31" });
        }
        if !(0.0..1.0).contains(&rate) {
            let expected = "0 to 1, without 1";
            return Err(KernelError::Setting { op, what: "rate", value: rate, expected });
        }
        Ok(Dropout { kernel: device.kernel(&IMAGE, format!("dropout_{dtype}"), 0)?, dtype, n, rate })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(
        &self,
        stream: &CudaStream,
        at: Position,
        x: Input<'_>,
        y: Output<'_>,
        write: Write,
    ) -> Result<()> {
        let args = [Arg::In("x", x, self.dtype, self.n), Arg::Out("y", y, self.dtype, self.n)];
        let dims = Dims {
            n: self.n as u32,
            add: write.adds(),
            first: [at.first as u32, (at.first >> 32) as u32],
            key: at.key,
            epoch: at.epoch,
            step: at.step,
            rate: self.rate,
            kept: 1.0 / (1.0 - self.rate),
        };
        // The first draw may begin up to three elements before.
        let blocks = (self.n + 3).div_ceil(BLOCK) as u32;
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, [blocks, 1, 1], 256, &args, &dims) }
    }
}
