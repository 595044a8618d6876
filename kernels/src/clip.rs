//! Clipping of the touched gradients: by their norm, or each by its value.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, image};
use crate::error::{KernelError, Result};
use crate::optimizer::Table;

const IMAGE: Image = image!("clip");

/// `Clip` of `clip.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    pieces: i32,
    most: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// The norm of the gradients of a [`Table`]'s ranges, what scales it down to a bound, and the pass that does.
#[derive(Debug)]
pub struct Clip {
    squares: Kernel,
    norm: Kernel,
    clip: Kernel,
}

/// Buffers of [`Clip::norm`].
#[derive(Debug)]
pub struct NormArgs<'a> {
    /// The words of the table, on the device.
    pub pieces: Input<'a>,
    /// Gradients, f32.
    pub grads: Input<'a>,
    /// Sums of squares `[pieces]`, f64: written by the first launch.
    pub squares: Output<'a>,
}

impl Clip {
    /// Prepares launches.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(device: &Device) -> Result<Clip> {
        let kernel = |name: &str| device.kernel(&IMAGE, name.into(), 0);
        Ok(Clip {
            squares: kernel("gradient_squares")?,
            norm: kernel("gradient_norm")?,
            clip: kernel("gradient_clip")?,
        })
    }

    /// Launches the sums of squares, one per piece; no pieces, no launch.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    ///
    /// # Safety
    /// When the launch runs, `a.pieces` holds the table's words: they say where the kernel reads.
    pub unsafe fn squares(&self, stream: &CudaStream, table: &Table, a: NormArgs<'_>) -> Result<()> {
        if table.pieces() == 0 {
            return Ok(());
        }
        let args = [
            Arg::In("pieces", a.pieces, DType::I32, table.words().len()),
            Arg::In("grads", a.grads, DType::F32, table.buffers()),
            Arg::Out("squares", a.squares, DType::F64, table.pieces()),
        ];
        let (grid, dims) = ([table.pieces() as u32, 1, 1], Dims { pieces: table.pieces() as i32, most: 0.0 });
        // SAFETY: these are the kernel's parameters; the table's pieces lie within the buffers, and the caller
        // promises that they are the ones on the device.
        unsafe { self.squares.launch(stream, grid, 256, &args, &dims) }
    }

    /// Launches `norm [1]`, the root of the sums of `pieces` squares, and `factor [1]`, which takes the norm down to
    /// `most` and is 1 if it is not above or no number; both f32. `flag [1]` of i32 becomes 1 if the norm is not finite.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; a bound that is not above 0; the driver's.
    pub fn norm(
        &self,
        stream: &CudaStream,
        table: &Table,
        most: f32,
        squares: Input<'_>,
        [norm, factor]: [Output<'_>; 2],
        flag: Option<Output<'_>>,
    ) -> Result<()> {
        check(most)?;
        let args = [
            Arg::In("squares", squares, DType::F64, table.pieces()),
            Arg::Out("norm", norm, DType::F32, 1),
            Arg::Out("factor", factor, DType::F32, 1),
            Arg::perhaps_out("flag", flag, DType::I32, 1),
        ];
        let dims = Dims { pieces: table.pieces() as i32, most };
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.norm.launch(stream, [1, 1, 1], 256, &args, &dims) }
    }

    /// Launches `g = clamp(g * factor, -most, most)` over the table's ranges; `factor [1]` of f32 is 1 if absent, and
    /// an infinite bound only scales. No pieces, no launch.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; a bound that is not above 0; the driver's.
    ///
    /// # Safety
    /// When the launch runs, `pieces` holds the table's words: they say where the kernel writes.
    pub unsafe fn apply(
        &self,
        stream: &CudaStream,
        table: &Table,
        pieces: Input<'_>,
        factor: Option<Input<'_>>,
        most: f32,
        grads: Output<'_>,
    ) -> Result<()> {
        check(most)?;
        if table.pieces() == 0 {
            return Ok(());
        }
        let args = [
            Arg::In("pieces", pieces, DType::I32, table.words().len()),
            Arg::perhaps("factor", factor, DType::F32, 1),
            Arg::Out("grads", grads, DType::F32, table.buffers()),
        ];
        let (grid, dims) = ([table.pieces() as u32, 1, 1], Dims { pieces: table.pieces() as i32, most });
        // SAFETY: as in `squares`.
        unsafe { self.clip.launch(stream, grid, 256, &args, &dims) }
    }
}

fn check(most: f32) -> Result<()> {
    if most > 0.0 {
        return Ok(());
    }
    Err(KernelError::Setting { op: "clip", what: "bound", value: most, expected: "a number above 0" })
}
