//! Gradients of 1x1 convolutions: of the input, with the gradient that arrives formed on load and the sums that
//! squeeze-excite and batch norm need at the end; of the filter, with both factors formed on load.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Act, Arg, DType, Device, Image, Input, Kernel, Output, image};
use crate::error::{KernelError, Result};
use crate::pointwise::{Arithmetic, Shape};

const INPUT: Image = image!("pointwise_backward_x");
const FILTER: Image = image!("pointwise_backward_w");

/// Rows and columns of a tile of the input's gradient, threads of a block.
const TILE: [usize; 2] = [128, 64];
const THREADS: u32 = 128;

/// Blocks below which a block makes one tile only.
const ENOUGH_BLOCKS: usize = 512;

/// Most tiles of a block, one after another.
const TILES: usize = 8;

/// Blocks below which a block makes one tile of columns only.
const FEW_BLOCKS: usize = 128;

/// Most pieces of 64 bytes of the gradient's rows that are kept in shared memory for further columns.
const KEPT_PIECES: usize = 3;

/// Most channels that are summed over: their constants lie in shared memory.
const MAX_SUMMED: usize = 2048;

/// How the gradient of a convolution's output comes about:
/// `p * (d * act'(h * scale + shift)) + q * h + r`, the backward pass of batch norm and activation.
#[derive(Debug, Clone, Copy)]
pub struct Formed<'a> {
    /// What the convolution made, `[m, n]`.
    pub h: Input<'a>,
    /// Scale and shift of batch norm per channel, each `[n]`, f32.
    pub affine: (Input<'a>, Input<'a>),
    /// `p`, `q`, `r` per channel, `[3, n]`, f32.
    pub pqr: Input<'a>,
    /// The activation behind batch norm; [`Act::None`] where `d` is behind it already.
    pub act: Act,
}

/// The kernels' number of an activation above, with its bounds.
fn above(formed: Option<&Formed<'_>>) -> (i32, f32, f32) {
    let Some(f) = formed else { return (0, 0.0, 0.0) };
    let (variant, lo, hi) = f.act.variant();
    let number = match (f.act, variant) {
        (Act::None, _) => 0,
        (_, "clamp") => 1,
        (_, "hswish") => 2,
        _ => 3,
    };
    (number, lo, hi)
}

/// The dimensions as `pointwise_backward_x.cu` has them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct InputDims {
    m: i32,
    k: i32,
    n: i32,
    plane: i32,
    tiles: i32,
    columns: i32,
    above: i32,
    five: i32,
    accumulate: i32,
    lo_above: f32,
    hi_above: f32,
    lo: f32,
    hi: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for InputDims {}

/// A prepared launch of `pointwise_backward_x.cu`.
#[derive(Debug)]
struct Product {
    shape: Shape,
    arithmetic: Arithmetic,
    dims: InputDims,
    /// Whether there is room for the formed gradient.
    keeps: bool,
    kernel: Kernel,
}

impl Product {
    fn new(device: &Device, shape: Shape, arithmetic: Arithmetic, sums: Option<Act>) -> Result<Product> {
        shape.check()?;
        if shape.n > MAX_SUMMED {
            let (op, what, value) = ("pointwise_conv2d_bwd_x", "n", shape.n);
            return Err(KernelError::Shape { op, what, value, expected: "1 to 2048" });
        }
        let size = arithmetic.dtype().size();
        let vector = 16 / size;
        let whole = shape.k.is_multiple_of(vector) && shape.n.is_multiple_of(vector);
        let (variant, lo, hi) = sums.map_or(("", 0.0, 0.0), Act::variant);
        let mut name = format!("pointwise_conv2d_bwd_x_{}", arithmetic.name());
        if sums.is_some() {
            name = format!("{name}_sums_{variant}");
        }
        if !whole {
            name.push_str("_scalar");
        }
        let tile = TILE[0] * TILE[1] * size;
        // The formed gradient is kept for further tiles of columns, where it is narrow.
        let pieces = shape.n.div_ceil(4 * vector);
        let keeps = arithmetic != Arithmetic::F32 && pieces <= KEPT_PIECES && shape.k > TILE[1];
        let kept = if keeps { pieces * TILE[0] * 64 } else { 0 };
        let shared = match arithmetic {
            // Both factors of 16 k, padded, and the tile.
            Arithmetic::F32 => 16 * (TILE[0] + 4 + TILE[1] + 4) * 4 + tile,
            // Two pieces of the filter, the tile, five constants per channel.
            _ => 2 * 16 * (TILE[1] + 8) * 4 + tile + 5 * pieces * 4 * vector * 4 + kept,
        };
        let dims = InputDims {
            m: shape.m() as i32,
            k: shape.n as i32,
            n: shape.k as i32,
            plane: shape.plane as i32,
            tiles: 1,
            columns: 1,
            above: 0,
            five: 0,
            accumulate: 0,
            lo_above: 0.0,
            hi_above: 0.0,
            lo,
            hi,
        };
        let kernel = device.kernel(&INPUT, name, shared as u32)?;
        let mut product = Product { shape, arithmetic, dims, keeps, kernel };
        let blocks = product.row_tiles() * product.column_tiles();
        product.columns_per_block(blocks / FEW_BLOCKS);
        product.tiles_per_block((blocks / product.dims.columns as usize / ENOUGH_BLOCKS).min(TILES));
        Ok(product)
    }

    fn column_tiles(&self) -> usize {
        self.shape.k.div_ceil(TILE[1])
    }

    /// At most so many tiles of columns in a block, all blocks alike.
    fn columns_per_block(&mut self, columns: usize) {
        let all = self.column_tiles();
        let most = if self.keeps { columns.clamp(1, all) } else { 1 };
        self.dims.columns = all.div_ceil(all.div_ceil(most)) as i32;
    }

    fn row_tiles(&self) -> usize {
        self.shape.m().div_ceil(TILE[0])
    }

    fn tiles_per_block(&mut self, tiles: usize) {
        self.dims.tiles = tiles.clamp(1, self.row_tiles()) as i32;
    }

    /// Arguments that all launches have: the gradient that arrives.
    fn front<'a>(&self, d: Input<'a>, formed: Option<&Formed<'a>>) -> [Arg<'a>; 5] {
        let (s, dtype, f32) = (&self.shape, self.arithmetic.dtype(), DType::F32);
        [
            Arg::In("d", d, dtype, s.m() * s.n),
            Arg::perhaps("h", formed.map(|f| f.h), dtype, s.m() * s.n),
            Arg::perhaps("scale", formed.map(|f| f.affine.0), f32, s.n),
            Arg::perhaps("shift", formed.map(|f| f.affine.1), f32, s.n),
            Arg::perhaps("pqr", formed.map(|f| f.pqr), f32, 3 * s.n),
        ]
    }

    fn launch(&self, stream: &CudaStream, args: &[Arg<'_>], dims: &InputDims) -> Result<()> {
        let blocks = self.row_tiles().div_ceil(self.dims.tiles as usize);
        let columns = self.column_tiles().div_ceil(self.dims.columns as usize);
        let grid = [blocks as u32, columns as u32, 1];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, grid, THREADS, args, dims) }
    }
}

/// Gradient of the input, `dx = g w (+ more) (+ dx)`, with `g` as given or [`Formed`] on load.
#[derive(Debug)]
pub struct InputGradient(Product);

/// Buffers of [`InputGradient`]; the shape is the forward pass's.
#[derive(Debug)]
pub struct InputGradientArgs<'a> {
    /// Gradient that arrives `[m, n]`.
    pub d: Input<'a>,
    /// How the gradient of the convolution's output is formed from it; without it `d` is that gradient.
    pub formed: Option<Formed<'a>>,
    /// Filter `[n, k]`, of the type of `d`.
    pub w: Input<'a>,
    /// What is added, such as the gradient of a residual, `[m, k]`.
    pub more: Option<Input<'a>>,
    /// Whether `dx` is added to what is there.
    pub accumulate: bool,
    /// Gradient of the input `[m, k]`.
    pub dx: Output<'a>,
}

impl InputGradient {
    /// Prepares launches for a shape and arithmetic.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, shape: Shape, arithmetic: Arithmetic) -> Result<InputGradient> {
        Ok(InputGradient(Product::new(device, shape, arithmetic, None)?))
    }

    /// Puts up to so many tiles of 64 columns into one block, if the gradient that arrives is narrow enough to be kept.
    pub fn columns_per_block(mut self, columns: usize) -> InputGradient {
        self.0.columns_per_block(columns);
        self
    }

    /// Puts so many tiles of 128 rows into one block.
    pub fn tiles_per_block(mut self, tiles: usize) -> InputGradient {
        self.0.tiles_per_block(tiles);
        self
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: InputGradientArgs<'_>) -> Result<()> {
        let (s, dtype) = (&self.0.shape, self.0.arithmetic.dtype());
        let (above, lo_above, hi_above) = above(a.formed.as_ref());
        let dims =
            InputDims { above, lo_above, hi_above, accumulate: i32::from(a.accumulate), ..self.0.dims };
        let [d, h, scale, shift, pqr] = self.0.front(a.d, a.formed.as_ref());
        let args = [
            d,
            h,
            scale,
            shift,
            pqr,
            Arg::In("w", a.w, dtype, s.n * s.k),
            Arg::perhaps("more", a.more, dtype, s.m() * s.k),
            Arg::Null,
            Arg::Null,
            Arg::Null,
            Arg::Null,
            Arg::Out("dx", a.dx, dtype, s.m() * s.k),
            Arg::Null,
        ];
        self.0.launch(stream, &args, &dims)
    }
}

/// Which sums of a convolution's input gradient `v` are taken. With `u = h * scale + shift` of the batch norm in front
/// of the convolution and `x = h - mean`:
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sums {
    /// `v * act'(u)` and `v * act'(u) * x` of every tile, for [`Backward`](crate::batch_norm::Backward).
    Pair,
    /// `v * act(u)`, `v * act'(u)`, `v * act'(u) * x`, `act'(u)`, `act'(u) * x` of every tile and image, for
    /// squeeze-excite.
    PerImage,
}

/// Gradient of the (gated) activation in front of a convolution, as [`InputGradient`], with its sums.
#[derive(Debug)]
pub struct SummedGradient {
    product: Product,
    sums: Sums,
}

/// Buffers of [`SummedGradient`]; the shape is the forward pass's.
#[derive(Debug)]
pub struct SummedGradientArgs<'a> {
    /// Gradient that arrives `[m, n]`.
    pub d: Input<'a>,
    /// How the gradient of the convolution's output is formed from it; without it `d` is that gradient.
    pub formed: Option<Formed<'a>>,
    /// Filter `[n, k]`, of the type of `d`.
    pub w: Input<'a>,
    /// Input of the batch norm in front of the convolution, `[m, k]`.
    pub h: Input<'a>,
    /// Its scale and shift, each `[k]`, f32.
    pub affine: (Input<'a>, Input<'a>),
    /// Its mean `[k]`, f32.
    pub mean: Input<'a>,
    /// Gradient of what the convolution read, `[m, k]`.
    pub dx: Output<'a>,
    /// `[partials, k, 2]` or `[partials, 5, k]`, f32.
    pub sums: Output<'a>,
}

impl SummedGradient {
    /// Prepares launches for a shape, arithmetic and the activation in front of the convolution.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(
        device: &Device,
        shape: Shape,
        arithmetic: Arithmetic,
        act: Act,
        sums: Sums,
    ) -> Result<SummedGradient> {
        let mut product = Product::new(device, shape, arithmetic, Some(act))?;
        if sums == Sums::Pair {
            // To the kernel all rows are one image.
            product.dims.plane = product.dims.m;
        }
        product.dims.five = i32::from(sums == Sums::PerImage);
        Ok(SummedGradient { product, sums })
    }

    /// Puts up to so many tiles of 64 columns into one block, if the gradient that arrives is narrow enough to be kept.
    pub fn columns_per_block(mut self, columns: usize) -> SummedGradient {
        self.product.columns_per_block(columns);
        self
    }

    /// Puts so many tiles of 128 rows into one block.
    pub fn tiles_per_block(mut self, tiles: usize) -> SummedGradient {
        self.product.tiles_per_block(tiles);
        self
    }

    /// Sums that are kept apart: one per tile of [`SummedGradient::ROWS`] rows, and with [`Sums::PerImage`] one more
    /// for every image but the first. The sums of the part of image `i` in tile `j` stand at `i + j`; where an image
    /// begins with a tile, one place in between is not written.
    pub fn partials(&self) -> usize {
        self.product.row_tiles() + if self.sums == Sums::PerImage { self.product.shape.images - 1 } else { 0 }
    }

    /// Rows of a tile.
    pub const ROWS: usize = TILE[0];

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: SummedGradientArgs<'_>) -> Result<()> {
        let (s, dtype, f32) = (&self.product.shape, self.product.arithmetic.dtype(), DType::F32);
        let (above, lo_above, hi_above) = above(a.formed.as_ref());
        let dims = InputDims { above, lo_above, hi_above, ..self.product.dims };
        let [d, h, scale, shift, pqr] = self.product.front(a.d, a.formed.as_ref());
        let each = if self.sums == Sums::PerImage { 5 } else { 2 };
        let args = [
            d,
            h,
            scale,
            shift,
            pqr,
            Arg::In("w", a.w, dtype, s.n * s.k),
            Arg::Null,
            Arg::In("h2", a.h, dtype, s.m() * s.k),
            Arg::In("scale2", a.affine.0, f32, s.k),
            Arg::In("shift2", a.affine.1, f32, s.k),
            Arg::In("mean2", a.mean, f32, s.k),
            Arg::Out("dx", a.dx, dtype, s.m() * s.k),
            Arg::Out("sums", a.sums, f32, self.partials() * s.k * each),
        ];
        self.product.launch(stream, &args, &dims)
    }
}

/// Rows and columns of a block's part of the filter.
const FILTER_TILE: usize = 64;

/// Rows of a share are a multiple of this.
const STEP: usize = 32;

/// Blocks that fill a device twice, and most elements of all shares together: 8 MiB stay in its cache.
const FILTER_BLOCKS: usize = 256;
const MOST_PARTIAL: usize = 2 << 20;

/// The dimensions as `pointwise_backward_w.cu` has them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct FilterDims {
    m: i32,
    o: i32,
    c: i32,
    plane: i32,
    rows: i32,
    above: i32,
    lo_above: f32,
    hi_above: f32,
    lo: f32,
    hi: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for FilterDims {}

/// Partial gradients of the filter, `dw = g^T (act(x * scale + shift) * gate)`, with `g` as given or [`Formed`] on load;
/// [`SumPartials`](crate::batch_norm::SumPartials) adds them to the gradient.
#[derive(Debug)]
pub struct FilterGradient {
    shape: Shape,
    arithmetic: Arithmetic,
    dims: FilterDims,
    kernel: Kernel,
}

/// Buffers of [`FilterGradient`]; the shape is the forward pass's.
#[derive(Debug)]
pub struct FilterGradientArgs<'a> {
    /// Gradient that arrives `[m, n]`.
    pub d: Input<'a>,
    /// How the gradient of the convolution's output is formed from it; without it `d` is that gradient.
    pub formed: Option<Formed<'a>>,
    /// Input of the forward pass `[m, k]`.
    pub x: Input<'a>,
    /// Scale and shift per channel, each `[k]`, f32; without them `x` itself is activated.
    pub affine: Option<(Input<'a>, Input<'a>)>,
    /// Factors per image and channel `[images, k]`, f32; without them 1.
    pub gate: Option<Input<'a>>,
    /// Partial gradients `[partials, n, k]`, f32.
    pub dw: Output<'a>,
}

impl FilterGradient {
    /// Prepares launches for a shape, arithmetic and the activation of the input.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, shape: Shape, arithmetic: Arithmetic, act: Act) -> Result<FilterGradient> {
        shape.check()?;
        let tiles = shape.n.div_ceil(FILTER_TILE) * shape.k.div_ceil(FILTER_TILE);
        let most = (MOST_PARTIAL / (shape.n * shape.k)).max(1);
        let shares = FILTER_BLOCKS.div_ceil(tiles).min(most).min(shape.m().div_ceil(4 * STEP));
        let (variant, lo, hi) = act.variant();
        let vector = 16 / arithmetic.dtype().size();
        let whole = shape.k.is_multiple_of(vector) && shape.n.is_multiple_of(vector);
        let suffix = if whole { "" } else { "_scalar" };
        let name = format!("pointwise_conv2d_bwd_w_{}_{variant}{suffix}", arithmetic.name());
        // Two pieces of both factors, padded; seven constants per column.
        let shared = (2 * 2 * 16 * (FILTER_TILE + 8) + 7 * FILTER_TILE) * 4;
        let dims = FilterDims {
            m: shape.m() as i32,
            o: shape.n as i32,
            c: shape.k as i32,
            plane: shape.plane as i32,
            rows: shape.m().div_ceil(shares).next_multiple_of(STEP) as i32,
            above: 0,
            lo_above: 0.0,
            hi_above: 0.0,
            lo,
            hi,
        };
        Ok(FilterGradient { shape, arithmetic, dims, kernel: device.kernel(&FILTER, name, shared as u32)? })
    }

    /// Cuts the rows into shares of about so many.
    pub fn rows_per_share(mut self, rows: usize) -> FilterGradient {
        self.dims.rows = rows.clamp(1, self.shape.m()).next_multiple_of(STEP) as i32;
        self
    }

    /// Shares of rows whose gradients are kept apart.
    pub fn partials(&self) -> usize {
        self.shape.m().div_ceil(self.dims.rows as usize)
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: FilterGradientArgs<'_>) -> Result<()> {
        let (s, p, dtype, f32) = (&self.shape, self.partials(), self.arithmetic.dtype(), DType::F32);
        let (above, lo_above, hi_above) = above(a.formed.as_ref());
        let dims = FilterDims { above, lo_above, hi_above, ..self.dims };
        let formed = a.formed.as_ref();
        let (scale, shift) = a.affine.unzip();
        let args = [
            Arg::In("d", a.d, dtype, s.m() * s.n),
            Arg::perhaps("h", formed.map(|f| f.h), dtype, s.m() * s.n),
            Arg::perhaps("scale", formed.map(|f| f.affine.0), f32, s.n),
            Arg::perhaps("shift", formed.map(|f| f.affine.1), f32, s.n),
            Arg::perhaps("pqr", formed.map(|f| f.pqr), f32, 3 * s.n),
            Arg::In("x", a.x, dtype, s.m() * s.k),
            Arg::perhaps("scale_x", scale, f32, s.k),
            Arg::perhaps("shift_x", shift, f32, s.k),
            Arg::perhaps("gate", a.gate, f32, s.images * s.k),
            Arg::Out("dw", a.dw, f32, p * s.n * s.k),
        ];
        let grid = [s.n.div_ceil(FILTER_TILE) as u32, s.k.div_ceil(FILTER_TILE) as u32, p as u32];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, grid, THREADS, &args, &dims) }
    }
}
