//! 1x1 convolutions with batch norm, activation and gate on load and statistics at the end: the first and the last product
//! of the inverted residual block.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Act, Arg, DType, Device, Image, Input, Kernel, Output, image};
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("pointwise_forward");

/// Rows and columns of a tile, threads of a block.
const TILE: [usize; 2] = [128, 64];
const THREADS: u32 = 128;

/// Blocks below which a block makes one tile only.
const ENOUGH_BLOCKS: usize = 512;

/// Most tiles of a block, one after another: moments of more rows share a partial.
const TILES: usize = 8;

/// Most channels in: their scale and shift lie in shared memory.
const MAX_K: usize = 4096;

/// How products are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Activations and filters f32, every step an f32 fused multiply-add.
    F32,
    /// Activations and filters f32, factors rounded to tf32 for the tensor cores, f32 sums.
    Tf32,
    /// Activations and filters bf16, f32 sums on the tensor cores.
    Bf16,
}

impl Arithmetic {
    /// Type of activations and filters.
    pub fn dtype(self) -> DType {
        match self {
            Arithmetic::F32 | Arithmetic::Tf32 => DType::F32,
            Arithmetic::Bf16 => DType::Bf16,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
            Arithmetic::Tf32 => "tf32",
            Arithmetic::Bf16 => "bf16",
        }
    }
}

/// Shape of a 1x1 convolution: `[images, plane, k]` to `[images, plane, n]`, filter `[n, k]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images.
    pub images: usize,
    /// Pixels of an image.
    pub plane: usize,
    /// Channels in.
    pub k: usize,
    /// Channels out.
    pub n: usize,
}

impl Shape {
    /// Rows of the product.
    pub fn m(&self) -> usize {
        self.images * self.plane
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong =
            |what, value, expected| Err(KernelError::Shape { op: "pointwise_conv2d", what, value, expected });
        for (what, value) in [("images", self.images), ("plane", self.plane), ("n", self.n)] {
            if value == 0 || value > 1 << 24 {
                return wrong(what, value, "1 to 16777216");
            }
        }
        if self.k == 0 || self.k > MAX_K {
            return wrong("k", self.k, "1 to 4096");
        }
        if self.m() > 1 << 30 {
            return wrong("images * plane", self.m(), "at most 2^30");
        }
        // Offsets within the filter and within a tile are 32 bits wide.
        if self.n * self.k > 1 << 28 {
            return wrong("n * k", self.n * self.k, "at most 2^28");
        }
        Ok(())
    }
}

/// The dimensions as `pointwise_forward.cu` has them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    m: i32,
    k: i32,
    n: i32,
    plane: i32,
    tiles: i32,
    lo: f32,
    hi: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// Forward: `y = (act(x * scale + shift) * gate) w^T`, with partial moments of `y` as stored.
#[derive(Debug)]
pub struct Forward {
    shape: Shape,
    arithmetic: Arithmetic,
    dims: Dims,
    kernel: Kernel,
}

/// Buffers of [`Forward`].
#[derive(Debug)]
pub struct ForwardArgs<'a> {
    /// Input `[m, k]`.
    pub x: Input<'a>,
    /// Scale and shift per channel, each `[k]`, f32; without them `x` itself is activated.
    pub affine: Option<(Input<'a>, Input<'a>)>,
    /// Factors per image and channel `[images, k]`, f32; without them 1.
    pub gate: Option<Input<'a>>,
    /// Filter `[n, k]`, of the type of `x`.
    pub w: Input<'a>,
    /// Output `[m, n]`.
    pub y: Output<'a>,
    /// Partial moments `[partials, n, 2]`, f32: mean and sum of squared deviations.
    pub moments: Output<'a>,
    /// Values behind each partial, `[partials]`, f32.
    pub counts: Output<'a>,
}

impl Forward {
    /// Prepares launches for a shape, arithmetic and activation.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, shape: Shape, arithmetic: Arithmetic, act: Act) -> Result<Forward> {
        shape.check()?;
        let (variant, lo, hi) = act.variant();
        let size = arithmetic.dtype().size();
        let vector = 16 / size;
        let whole = shape.k.is_multiple_of(vector) && shape.n.is_multiple_of(vector);
        let suffix = if whole { "" } else { "_scalar" };
        let name = format!("pointwise_conv2d_fwd_{}_{variant}{suffix}", arithmetic.name());
        let shared = match arithmetic {
            // Both factors of 16 k, padded; later the moments of 16 row groups.
            Arithmetic::F32 => 16 * (TILE[0] + 4 + TILE[1] + 4) * 4,
            // Two pieces of the filter, the exchange, scale and shift, six numbers per thread.
            _ => {
                let affine = 2 * shape.k.next_multiple_of(4 * vector) * 4;
                2 * TILE[1] * 64 + TILE[0] * TILE[1] * size + affine + 6 * THREADS as usize * 4
            }
        };
        let kernel = device.kernel(&IMAGE, name, shared as u32)?;
        let blocks = shape.m().div_ceil(TILE[0]) * shape.n.div_ceil(TILE[1]);
        let dims = Dims {
            m: shape.m() as i32,
            k: shape.k as i32,
            n: shape.n as i32,
            plane: shape.plane as i32,
            tiles: (blocks / ENOUGH_BLOCKS).clamp(1, TILES) as i32,
            lo,
            hi,
        };
        Ok(Forward { shape, arithmetic, dims, kernel })
    }

    /// Puts so many tiles of 128 rows into one block.
    pub fn tiles_per_block(mut self, tiles: usize) -> Forward {
        self.dims.tiles = tiles.clamp(1, self.shape.m().div_ceil(TILE[0])) as i32;
        self
    }

    /// Blocks whose moments are kept apart.
    pub fn partials(&self) -> usize {
        self.shape.m().div_ceil(TILE[0] * self.dims.tiles as usize)
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: ForwardArgs<'_>) -> Result<()> {
        let (s, p, f32) = (&self.shape, self.partials(), DType::F32);
        let dtype = self.arithmetic.dtype();
        let (scale, shift) = a.affine.unzip();
        let args = [
            Arg::In("x", a.x, dtype, s.m() * s.k),
            Arg::perhaps("scale", scale, f32, s.k),
            Arg::perhaps("shift", shift, f32, s.k),
            Arg::perhaps("gate", a.gate, f32, s.images * s.k),
            Arg::In("w", a.w, dtype, s.n * s.k),
            Arg::Out("y", a.y, dtype, s.m() * s.n),
            Arg::Out("moments", a.moments, f32, p * s.n * 2),
            Arg::Out("counts", a.counts, f32, p),
        ];
        let grid = [p as u32, s.n.div_ceil(TILE[1]) as u32, 1];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, grid, THREADS, &args, &self.dims) }
    }
}
