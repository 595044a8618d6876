//! Work per channel of arrays `[rows, c]`: batch norm that stands alone, biases, means of planes.
//!
//! Stand-alone batch norm: [`Moments`], [`Finalise`](crate::batch_norm::Finalise), [`Affine`]; backward: [`Products`],
//! [`Backward`](crate::batch_norm::Backward), [`Linear`].

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, Write, image};
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("channels");

/// Most threads of a block.
const THREADS: usize = 256;

/// Rows of a thread, in arrays that give enough blocks.
const DEPTH: usize = 16;

/// Most blocks over the rows: what merges partial sums reads as many.
const MAX_PIECES: usize = 1024;

/// `Rows` of `columns.cuh`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct RowDims {
    rows: i32,
    c: i32,
    piece: i32,
    across: i32,
    add: i32,
    even: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for RowDims {}

/// A kernel over `[images, rows, c]`, cut into blocks.
#[derive(Debug)]
pub(crate) struct Columns {
    kernel: Kernel,
    dtype: DType,
    dims: RowDims,
    grid: [u32; 3],
    threads: u32,
}

impl Columns {
    /// `whole`: the rows of an image stay in one block.
    pub(crate) fn new(
        device: &Device,
        file: &Image,
        op: &'static str,
        dtype: DType,
        [images, rows, c]: [usize; 3],
        whole: bool,
    ) -> Result<Columns> {
        let wrong = |what, value, expected| Err(KernelError::Shape { op, what, value, expected });
        for (what, value) in [("rows", rows), ("channels", c)] {
            if value == 0 || value > 1 << 30 {
                return wrong(what, value, "1 to 2^30");
            }
        }
        if images == 0 || images > 65_535 {
            return wrong("images", images, "1 to 65535");
        }
        let vector = 16 / dtype.size();
        let (vector, suffix) = if c.is_multiple_of(vector) { (vector, "") } else { (1, "_scalar") };
        let vectors = c / vector;
        let across = vectors.min(THREADS);
        let down = (THREADS / across).min(rows);
        let piece = if whole { rows } else { (down * DEPTH).max(rows.div_ceil(MAX_PIECES)).min(rows) };
        let tiles = vectors.div_ceil(across);
        if tiles > 65_535 {
            return wrong("channels", c, "fewer");
        }
        Ok(Columns {
            kernel: device.kernel(file, format!("{op}_{dtype}{suffix}"), 0)?,
            dtype,
            dims: RowDims {
                rows: rows as i32,
                c: c as i32,
                piece: piece as i32,
                across: across as i32,
                add: 0,
                even: 1.0 / rows as f32,
            },
            grid: [rows.div_ceil(piece) as u32, tiles as u32, images as u32],
            // Whole warps: lanes beyond the last row of threads idle.
            threads: (across * down).next_multiple_of(32).min(THREADS) as u32,
        })
    }

    fn len(&self) -> usize {
        self.grid[2] as usize * self.dims.rows as usize * self.c()
    }

    fn c(&self) -> usize {
        self.dims.c as usize
    }

    fn images(&self) -> usize {
        self.grid[2] as usize
    }

    pub(crate) fn partials(&self) -> usize {
        self.grid[0] as usize
    }

    /// Launches with the dimensions that `dims` makes.
    ///
    /// # Safety
    /// As [`Kernel::launch`].
    pub(crate) unsafe fn launch<D: DeviceRepr>(
        &self,
        stream: &CudaStream,
        args: &[Arg<'_>],
        dims: impl FnOnce(RowDims) -> D,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.kernel.launch(stream, self.grid, self.threads, args, &dims(self.dims)) }
    }
}

impl Write {
    /// The dimensions with this flag.
    fn with(self, dims: RowDims) -> RowDims {
        RowDims { add: self.adds(), ..dims }
    }
}

/// Partial moments of `x [rows, c]`.
#[derive(Debug)]
pub struct Moments(Columns);

impl Moments {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, dtype: DType, rows: usize, c: usize) -> Result<Moments> {
        Ok(Moments(Columns::new(device, &IMAGE, "batch_norm_moments", dtype, [1, rows, c], false)?))
    }

    /// Blocks whose moments are kept apart.
    pub fn partials(&self) -> usize {
        self.0.partials()
    }

    /// Launches: `moments [partials, c, 2]`, mean and sum of squared deviations, and `counts [partials]`, both f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(
        &self,
        stream: &CudaStream,
        x: Input<'_>,
        moments: Output<'_>,
        counts: Output<'_>,
    ) -> Result<()> {
        let (o, p) = (&self.0, self.partials());
        let args = [
            Arg::In("x", x, o.dtype, o.len()),
            Arg::Out("moments", moments, DType::F32, p * o.c() * 2),
            Arg::Out("counts", counts, DType::F32, p),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { o.launch(stream, &args, |dims| dims) }
    }
}

/// Partial sums of `dy` and of `dy * (x - mean)` over `[rows, c]`.
#[derive(Debug)]
pub struct Products(Columns);

impl Products {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, dtype: DType, rows: usize, c: usize) -> Result<Products> {
        Ok(Products(Columns::new(device, &IMAGE, "batch_norm_sums", dtype, [1, rows, c], false)?))
    }

    /// Blocks whose sums are kept apart.
    pub fn partials(&self) -> usize {
        self.0.partials()
    }

    /// Launches: `sums [partials, c, 2]` of f32; `mean [c]` is f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(
        &self,
        stream: &CudaStream,
        dy: Input<'_>,
        x: Input<'_>,
        mean: Input<'_>,
        sums: Output<'_>,
    ) -> Result<()> {
        let o = &self.0;
        let args = [
            Arg::In("dy", dy, o.dtype, o.len()),
            Arg::In("x", x, o.dtype, o.len()),
            Arg::In("mean", mean, DType::F32, o.c()),
            Arg::Out("sums", sums, DType::F32, self.partials() * o.c() * 2),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { o.launch(stream, &args, |dims| dims) }
    }
}

/// `y (+)= (x - mean) * scale + shift` per channel: batch norm's last pass, or a bias.
#[derive(Debug)]
pub struct Affine(Columns);

/// Constants of [`Affine`], each `[c]` of f32; 0, 1 and 0 where absent. Of several images, `scale` and `shift` are
/// `[images, c]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Constants<'a> {
    /// Subtracted first.
    pub mean: Option<Input<'a>>,
    /// Factor of the difference.
    pub scale: Option<Input<'a>>,
    /// Added at last; batch norm's bias.
    pub shift: Option<Input<'a>>,
}

impl Affine {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, dtype: DType, rows: usize, c: usize) -> Result<Affine> {
        Affine::of_images(device, dtype, [1, rows, c])
    }

    /// Prepares launches over `[images, rows, c]`, each image with its own constants.
    ///
    /// # Errors
    /// As [`Affine::new`].
    pub fn of_images(device: &Device, dtype: DType, shape: [usize; 3]) -> Result<Affine> {
        Ok(Affine(Columns::new(device, &IMAGE, "channel_affine", dtype, shape, false)?))
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(
        &self,
        stream: &CudaStream,
        x: Input<'_>,
        constants: Constants<'_>,
        y: Output<'_>,
        write: Write,
    ) -> Result<()> {
        let (o, f32) = (&self.0, DType::F32);
        let args = [
            Arg::In("x", x, o.dtype, o.len()),
            Arg::perhaps("mean", constants.mean, f32, o.c()),
            Arg::perhaps("scale", constants.scale, f32, o.images() * o.c()),
            Arg::perhaps("shift", constants.shift, f32, o.images() * o.c()),
            Arg::Out("y", y, o.dtype, o.len()),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { o.launch(stream, &args, |dims| write.with(dims)) }
    }
}

/// `dx (+)= p * dy + q * x + r` per channel: batch norm's gradient.
#[derive(Debug)]
pub struct Linear(Columns);

impl Linear {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, dtype: DType, rows: usize, c: usize) -> Result<Linear> {
        Ok(Linear(Columns::new(device, &IMAGE, "channel_linear", dtype, [1, rows, c], false)?))
    }

    /// Launches with `pqr [3, c]` of f32; without `x` (statistics that were given) `dx (+)= p * dy`.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(
        &self,
        stream: &CudaStream,
        dy: Input<'_>,
        x: Option<Input<'_>>,
        pqr: Input<'_>,
        dx: Output<'_>,
        write: Write,
    ) -> Result<()> {
        let o = &self.0;
        let args = [
            Arg::In("dy", dy, o.dtype, o.len()),
            Arg::perhaps("x", x, o.dtype, o.len()),
            Arg::In("pqr", pqr, DType::F32, 3 * o.c()),
            Arg::Out("dx", dx, o.dtype, o.len()),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { o.launch(stream, &args, |dims| write.with(dims)) }
    }
}

/// Partial sums of `dy [rows, c]` over rows: the gradient of a bias, once [`SumPartials`](crate::batch_norm::SumPartials)
/// has added them.
#[derive(Debug)]
pub struct BiasGradient(Columns);

impl BiasGradient {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, dtype: DType, rows: usize, c: usize) -> Result<BiasGradient> {
        Ok(BiasGradient(Columns::new(device, &IMAGE, "bias_bwd", dtype, [1, rows, c], false)?))
    }

    /// Blocks whose sums are kept apart.
    pub fn partials(&self) -> usize {
        self.0.partials()
    }

    /// Launches: `sums [partials, c]` of f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, dy: Input<'_>, sums: Output<'_>) -> Result<()> {
        let o = &self.0;
        let args = [
            Arg::In("dy", dy, o.dtype, o.len()),
            Arg::Out("sums", sums, DType::F32, self.partials() * o.c()),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { o.launch(stream, &args, |dims| dims) }
    }
}

/// Sums over planes of the product of two arrays `[images, plane, c]`: what reaches a gate.
#[derive(Debug)]
pub struct PlaneProducts(Columns);

impl PlaneProducts {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, dtype: DType, shape: [usize; 3]) -> Result<PlaneProducts> {
        Ok(PlaneProducts(Columns::new(device, &IMAGE, "plane_products", dtype, shape, true)?))
    }

    /// Launches: `sums [images, c]` of f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, dy: Input<'_>, x: Input<'_>, sums: Output<'_>) -> Result<()> {
        let o = &self.0;
        let args = [
            Arg::In("dy", dy, o.dtype, o.len()),
            Arg::In("x", x, o.dtype, o.len()),
            Arg::Out("sums", sums, DType::F32, o.images() * o.c()),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { o.launch(stream, &args, |dims| dims) }
    }
}

/// The mean over the plane, `x [images, plane, c]` to `y [images, c]`, and its gradient.
#[derive(Debug)]
pub struct GlobalAvgPool {
    forward: Columns,
    backward: Columns,
}

impl GlobalAvgPool {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(
        device: &Device,
        dtype: DType,
        images: usize,
        plane: usize,
        c: usize,
    ) -> Result<GlobalAvgPool> {
        let columns = |op, whole| Columns::new(device, &IMAGE, op, dtype, [images, plane, c], whole);
        Ok(GlobalAvgPool {
            forward: columns("global_avg_pool_fwd", true)?,
            backward: columns("global_avg_pool_bwd", false)?,
        })
    }

    /// Launches `y = mean of x`.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn forward(&self, stream: &CudaStream, x: Input<'_>, y: Output<'_>) -> Result<()> {
        let o = &self.forward;
        let args = [Arg::In("x", x, o.dtype, o.len()), Arg::Out("y", y, o.dtype, o.images() * o.c())];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { o.launch(stream, &args, |dims| dims) }
    }

    /// Launches `dx (+)= dy / plane`.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn backward(&self, stream: &CudaStream, dy: Input<'_>, dx: Output<'_>, write: Write) -> Result<()> {
        let o = &self.backward;
        let args = [Arg::In("dy", dy, o.dtype, o.images() * o.c()), Arg::Out("dx", dx, o.dtype, o.len())];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { o.launch(stream, &args, |dims| write.with(dims)) }
    }
}
