//! The dense 2-d convolution in groups, any window, stride, padding and dilation, with both gradients.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, Write, image};
use crate::divide::Divide;
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("conv2d");

/// Blocks that the split of a filter gradient aims at.
const ENOUGH_BLOCKS: usize = 512;

/// Output pixels of a split at least.
const LEAST_PIECE: usize = 256;

/// Most splits: what adds them reads as many.
const MAX_SPLITS: usize = 256;

/// Shape of a convolution: `x [n, h, w, c]` and `w [o, kh, kw, c / groups]` to `y [n, oh, ow, o]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images.
    pub n: usize,
    /// Height of the input.
    pub h: usize,
    /// Width of the input.
    pub w: usize,
    /// Channels in.
    pub c: usize,
    /// Channels out.
    pub o: usize,
    /// Height and width of the window.
    pub k: [usize; 2],
    /// Vertical and horizontal distance between windows.
    pub stride: [usize; 2],
    /// Zeros above and below, and left and right.
    pub padding: [usize; 2],
    /// Vertical and horizontal distance between taps.
    pub dilation: [usize; 2],
    /// Groups; divide both channel counts.
    pub groups: usize,
}

impl Shape {
    fn reach(&self, axis: usize, size: usize) -> usize {
        let window = (self.k[axis] - 1) * self.dilation[axis] + 1;
        (size + 2 * self.padding[axis] - window) / self.stride[axis] + 1
    }

    /// Height of the output.
    pub fn oh(&self) -> usize {
        self.reach(0, self.h)
    }

    /// Width of the output.
    pub fn ow(&self) -> usize {
        self.reach(1, self.w)
    }

    /// Elements of the filters.
    pub fn filters(&self) -> usize {
        self.o * self.window()
    }

    /// Weights of an output channel.
    fn window(&self) -> usize {
        self.k[0] * self.k[1] * (self.c / self.groups)
    }

    fn x(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    fn y(&self) -> usize {
        self.n * self.oh() * self.ow() * self.o
    }

    fn check(&self) -> Result<()> {
        let wrong = |what, value, expected| Err(KernelError::Shape { op: "conv2d", what, value, expected });
        let sizes = [
            ("n", self.n),
            ("h", self.h),
            ("w", self.w),
            ("c", self.c),
            ("o", self.o),
            ("kh", self.k[0]),
            ("kw", self.k[1]),
            ("vertical stride", self.stride[0]),
            ("horizontal stride", self.stride[1]),
            ("vertical dilation", self.dilation[0]),
            ("horizontal dilation", self.dilation[1]),
        ];
        for (what, value) in sizes {
            if value == 0 || value > 1 << 16 {
                return wrong(what, value, "1 to 65536");
            }
        }
        if self.groups == 0
            || !self.c.is_multiple_of(self.groups)
            || !self.o.is_multiple_of(self.groups)
            || self.groups > 65_535
        {
            return wrong("groups", self.groups, "a divisor of both channel counts, at most 65535");
        }
        for axis in 0..2 {
            let (what, padding) = (["vertical padding", "horizontal padding"][axis], self.padding[axis]);
            let window = (self.k[axis] - 1) * self.dilation[axis] + 1;
            if window > 1 << 20 {
                return wrong("window", window, "at most 2^20 with its dilation");
            }
            if padding >= window {
                return wrong(what, padding, "less than the window");
            }
            if [self.h, self.w][axis] + 2 * padding < window {
                return wrong("window", window, "at most the padded plane");
            }
        }
        let pixels = self.n * (self.h * self.w).max(self.oh() * self.ow());
        if pixels > 1 << 30 {
            return wrong("pixels of all images", pixels, "at most 2^30");
        }
        if self.filters() > 1 << 28 || self.window() * (self.o / self.groups) > 1 << 28 {
            return wrong("elements of the filters", self.filters(), "at most 2^28");
        }
        Ok(())
    }
}

/// `Conv` of `conv2d.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    plane: [i32; 6],
    stride: [i32; 2],
    padding: [i32; 2],
    dilation: [i32; 2],
    taps: i32,
    cg: i32,
    og: i32,
    m: i32,
    terms: i32,
    piece: i32,
    add: i32,
    by: [Divide; 6],
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

impl Dims {
    /// A pass over the pixels of a plane, whose terms or columns count `channels`.
    fn new(s: &Shape, [height, width]: [usize; 2], channels: usize, m: usize, terms: usize) -> Dims {
        let two = |v: [usize; 2]| v.map(|v| v as i32);
        Dims {
            plane: [s.h, s.w, s.c, s.oh(), s.ow(), s.o].map(|v| v as i32),
            stride: two(s.stride),
            padding: two(s.padding),
            dilation: two(s.dilation),
            taps: (s.k[0] * s.k[1]) as i32,
            cg: (s.c / s.groups) as i32,
            og: (s.o / s.groups) as i32,
            m: m as i32,
            terms: terms as i32,
            piece: terms as i32,
            add: 0,
            by: [width, height, channels, s.k[1], s.stride[0], s.stride[1]].map(Divide::new),
        }
    }
}

/// Rows and columns of a tile and the suffix of its kernel, for so many columns.
fn tile(columns: usize) -> ([usize; 2], &'static str) {
    match columns {
        ..=16 => ([128, 16], "n16"),
        17..=32 => ([128, 32], "n32"),
        _ => ([64, 64], "n64"),
    }
}

/// One of the three products.
#[derive(Debug)]
struct Pass {
    kernel: Kernel,
    dims: Dims,
    grid: [u32; 3],
    threads: u32,
}

impl Pass {
    /// A product whose rows are pixels.
    fn rows(
        device: &Device,
        s: &Shape,
        dtype: DType,
        name: &str,
        dims: Dims,
        columns: usize,
    ) -> Result<Pass> {
        let ([tall, wide], suffix) = tile(columns);
        let kernel = device.kernel(&IMAGE, format!("conv2d_{name}_{dtype}_{suffix}"), 0)?;
        let grid = [(dims.m as usize).div_ceil(tall) as u32, columns.div_ceil(wide) as u32, s.groups as u32];
        Ok(Pass { kernel, dims, grid, threads: 128 })
    }

    fn launch(&self, stream: &CudaStream, args: [Arg<'_>; 3], write: Write) -> Result<()> {
        let dims = Dims { add: write.adds(), ..self.dims };
        // SAFETY: callers pass the kernel's parameters with the sizes of the shape; it stays within them.
        unsafe { self.kernel.launch(stream, self.grid, self.threads, &args, &dims) }
    }
}

/// Forward: `y` of `x` and the filters.
#[derive(Debug)]
pub struct Forward {
    shape: Shape,
    dtype: DType,
    pass: Pass,
}

impl Forward {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, shape: Shape, dtype: DType) -> Result<Forward> {
        shape.check()?;
        let (s, cg) = (&shape, shape.c / shape.groups);
        let dims = Dims::new(s, [s.oh(), s.ow()], cg, s.n * s.oh() * s.ow(), s.window());
        let pass = Pass::rows(device, s, dtype, "fwd", dims, s.o / s.groups)?;
        Ok(Forward { shape, dtype, pass })
    }

    /// Launches; the filters are f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, x: Input<'_>, w: Input<'_>, y: Output<'_>) -> Result<()> {
        let (s, t) = (&self.shape, self.dtype);
        let args =
            [Arg::In("x", x, t, s.x()), Arg::In("w", w, DType::F32, s.filters()), Arg::Out("y", y, t, s.y())];
        self.pass.launch(stream, args, Write::Store)
    }
}

/// The gradient of the input.
#[derive(Debug)]
pub struct DataGradient {
    shape: Shape,
    dtype: DType,
    pass: Pass,
}

impl DataGradient {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, shape: Shape, dtype: DType) -> Result<DataGradient> {
        shape.check()?;
        let (s, og) = (&shape, shape.o / shape.groups);
        let dims = Dims::new(s, [s.h, s.w], og, s.n * s.h * s.w, s.k[0] * s.k[1] * og);
        let pass = Pass::rows(device, s, dtype, "bwd_data", dims, s.c / s.groups)?;
        Ok(DataGradient { shape, dtype, pass })
    }

    /// Launches; the filters are f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(
        &self,
        stream: &CudaStream,
        dy: Input<'_>,
        w: Input<'_>,
        dx: Output<'_>,
        write: Write,
    ) -> Result<()> {
        let (s, t) = (&self.shape, self.dtype);
        let args = [
            Arg::In("dy", dy, t, s.y()),
            Arg::In("w", w, DType::F32, s.filters()),
            Arg::Out("dx", dx, t, s.x()),
        ];
        self.pass.launch(stream, args, write)
    }
}

/// Partial gradients of the filters, which [`SumPartials`](crate::batch_norm::SumPartials) adds to the gradient.
#[derive(Debug)]
pub struct FilterGradient {
    shape: Shape,
    dtype: DType,
    pass: Pass,
}

impl FilterGradient {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, shape: Shape, dtype: DType) -> Result<FilterGradient> {
        shape.check()?;
        let (s, og, pixels) = (&shape, shape.o / shape.groups, shape.n * shape.oh() * shape.ow());
        let (side, threads) = if og <= 32 { (32, 64) } else { (64, 128) };
        let tiles = og.div_ceil(side) * s.window().div_ceil(side);
        if tiles > 65_535 {
            return Err(KernelError::Shape {
                op: "conv2d",
                what: "elements of a group's filters",
                value: og * s.window(),
                expected: "fewer",
            });
        }
        let wanted = (ENOUGH_BLOCKS / (tiles * s.groups)).clamp(1, MAX_SPLITS);
        // Whole steps of 16 pixels.
        let piece = pixels.div_ceil(wanted).max(LEAST_PIECE).next_multiple_of(16);
        let cg = s.c / s.groups;
        let dims = Dims { piece: piece as i32, ..Dims::new(s, [s.oh(), s.ow()], cg, pixels, pixels) };
        let kernel = device.kernel(&IMAGE, format!("conv2d_bwd_filter_{dtype}_n{side}"), 0)?;
        let grid = [pixels.div_ceil(piece) as u32, tiles as u32, s.groups as u32];
        Ok(FilterGradient { shape, dtype, pass: Pass { kernel, dims, grid, threads } })
    }

    /// Splits whose sums are kept apart.
    pub fn partials(&self) -> usize {
        self.pass.grid[0] as usize
    }

    /// Launches: `parts [partials, o, kh, kw, c / groups]` of f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, x: Input<'_>, dy: Input<'_>, parts: Output<'_>) -> Result<()> {
        let (s, t) = (&self.shape, self.dtype);
        let args = [
            Arg::In("x", x, t, s.x()),
            Arg::In("dy", dy, t, s.y()),
            Arg::Out("parts", parts, DType::F32, self.partials() * s.filters()),
        ];
        self.pass.launch(stream, args, Write::Store)
    }
}
