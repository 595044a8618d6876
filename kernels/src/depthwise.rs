//! Depthwise convolutions with batch norm and activation on load and statistics at the end: the second pass of the
//! inverted residual block.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Act, Arg, DType, Device, Image, Input, Kernel, Output, image};
use crate::error::{KernelError, Result};

const FORWARD: [Image; 3] =
    [image!("depthwise_forward_k3"), image!("depthwise_forward_k5"), image!("depthwise_forward_k7")];

/// Output rows that a block makes per turn.
const ROWS: usize = 2;

/// Most output columns of a strip: eight and seven warps at stride 1 and 2, six for 7 x 7, whose lanes hold more
/// registers. The kernels' launch bounds say the same.
fn widest_strip(s: &Shape) -> usize {
    match (s.k, s.stride) {
        (7, 1) => 42,
        (7, _) => 24,
        (_, 1) => 56,
        _ => 28,
    }
}

/// Blocks below which images are not put into one block: a few per multiprocessor of the largest devices.
const ENOUGH_BLOCKS: usize = 1024;

/// Blocks below which planes are cut into strips of rows, whose edges are then read twice: about two waves.
const FEW_BLOCKS: usize = 256;

/// Fewest output rows of such a strip, but for the last.
const STRIP_ROWS: usize = 8;

/// Most images of a block.
const IMAGES: usize = 8;

/// Shape of a depthwise convolution: NHWC in and out, filter `[k, k, c]`, zero padding `k / 2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images.
    pub n: usize,
    /// Rows of the input.
    pub h: usize,
    /// Columns of the input.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Extent of the filter: 3, 5 or 7.
    pub k: usize,
    /// Stride: 1 or 2.
    pub stride: usize,
}

impl Shape {
    /// Rows of the output.
    pub fn oh(&self) -> usize {
        self.h.div_ceil(self.stride)
    }

    /// Columns of the output.
    pub fn ow(&self) -> usize {
        self.w.div_ceil(self.stride)
    }

    fn check(&self) -> Result<usize> {
        let wrong =
            |what, value, expected| Err(KernelError::Shape { op: "depthwise_conv2d", what, value, expected });
        let Some(at) = [3, 5, 7].iter().position(|k| *k == self.k) else {
            return wrong("k", self.k, "3, 5 or 7");
        };
        if !(1..=2).contains(&self.stride) {
            return wrong("stride", self.stride, "1 or 2");
        }
        for (what, value) in [("n", self.n), ("h", self.h), ("w", self.w), ("c", self.c)] {
            if value == 0 || value > 1 << 20 {
                return wrong(what, value, "1 to 1048576");
            }
        }
        // Offsets within an image are 32 bits wide.
        let image = self.h * self.w;
        if image > 1 << 24 || image * self.c > 1 << 30 {
            return wrong("h * w * c", image.saturating_mul(self.c), "at most 2^30");
        }
        Ok(at)
    }
}

/// The dimensions as `depthwise_forward.cuh` has them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    n: i32,
    h: i32,
    w: i32,
    c: i32,
    oh: i32,
    ow: i32,
    cols: i32,
    rows: i32,
    images: i32,
    col_strips: i32,
    row_strips: i32,
    magic: u32,
    aligned: i32,
    lo: f32,
    hi: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// How work is cut into blocks: by shape alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// Output columns of a warp.
    warp_cols: usize,
    /// Output columns of a strip, a multiple of `warp_cols`.
    cols: usize,
    col_strips: usize,
    /// Output rows of a strip, a multiple of [`ROWS`] if there are several.
    rows: usize,
    row_strips: usize,
    /// Images of a block.
    images: usize,
    groups: usize,
}

impl Cut {
    fn new(s: &Shape) -> Cut {
        let warp_cols = if s.stride == 1 { 7 } else { 4 };
        let col_strips = s.ow().div_ceil(widest_strip(s));
        let cols = s.ow().div_ceil(col_strips).next_multiple_of(warp_cols);
        // Strips may have become fewer by rounding up.
        let col_strips = s.ow().div_ceil(cols);
        let groups = s.c.div_ceil(32);
        let blocks = s.n * groups * col_strips;
        let images = (blocks / ENOUGH_BLOCKS).clamp(1, IMAGES);
        let row_strips = (FEW_BLOCKS / blocks).clamp(1, s.oh().div_ceil(STRIP_ROWS));
        let cut = Cut { warp_cols, cols, col_strips, rows: 0, row_strips, images, groups };
        cut.split(s, images, s.oh().div_ceil(row_strips))
    }

    fn split(self, s: &Shape, images: usize, rows: usize) -> Cut {
        let rows = rows.clamp(1, s.oh()).next_multiple_of(ROWS);
        Cut { images: images.clamp(1, s.n), rows, row_strips: s.oh().div_ceil(rows), ..self }
    }

    fn partials(&self, s: &Shape) -> usize {
        s.n.div_ceil(self.images) * self.col_strips * self.row_strips
    }

    fn threads(&self) -> u32 {
        (self.cols / self.warp_cols * 32) as u32
    }

    /// Staged columns of a strip.
    fn columns(&self, s: &Shape) -> usize {
        (self.cols - 1) * s.stride + s.k
    }

    /// Bytes of shared memory of the forward pass: the ring and a place per warp where channels are exchanged.
    fn forward_shared(&self, s: &Shape, dtype: DType) -> usize {
        let group_rows = ROWS * s.stride;
        let groups = ((ROWS - 1) * s.stride + s.k).div_ceil(group_rows);
        let ring = groups * group_rows * self.columns(s) * 32 * 4;
        let warps = self.cols / self.warp_cols;
        let exchange = warps * ROWS * self.warp_cols * 32 * dtype.size();
        (ring + exchange).max(warps * 96 * 4)
    }
}

/// Forward: `y = conv(act(x * scale + shift), w)`, with partial moments of `y` as stored.
#[derive(Debug)]
pub struct Forward {
    shape: Shape,
    dtype: DType,
    cut: Cut,
    dims: Dims,
    kernel: Kernel,
}

/// Buffers of [`Forward`].
#[derive(Debug)]
pub struct ForwardArgs<'a> {
    /// Input `[n, h, w, c]`.
    pub x: Input<'a>,
    /// Scale and shift per channel, each `[c]`, f32; without them `x` itself is activated.
    pub affine: Option<(Input<'a>, Input<'a>)>,
    /// Filter `[k, k, c]`, f32.
    pub w: Input<'a>,
    /// Output `[n, oh, ow, c]`.
    pub y: Output<'a>,
    /// Partial moments `[partials, c, 2]`, f32: mean and sum of squared deviations.
    pub moments: Output<'a>,
    /// Values behind each partial, `[partials]`, f32.
    pub counts: Output<'a>,
}

impl Forward {
    /// Prepares launches for a shape, type and activation.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, shape: Shape, dtype: DType, act: Act) -> Result<Forward> {
        let at = shape.check()?;
        if dtype == DType::I32 {
            return Err(KernelError::Type {
                kernel: "depthwise_conv2d_fwd".into(),
                argument: "x",
                expected: DType::F32,
                found: dtype,
            });
        }
        let cut = Cut::new(&shape);
        let (variant, lo, hi) = act.variant();
        let name = format!("depthwise_conv2d_fwd_k{}s{}_{}_{variant}", shape.k, shape.stride, dtype.name());
        let kernel = device.kernel(&FORWARD[at], name, cut.forward_shared(&shape, dtype) as u32)?;
        let columns = cut.columns(&shape) as u64;
        let dims = Dims {
            n: shape.n as i32,
            h: shape.h as i32,
            w: shape.w as i32,
            c: shape.c as i32,
            oh: shape.oh() as i32,
            ow: shape.ow() as i32,
            cols: cut.cols as i32,
            rows: cut.rows as i32,
            images: cut.images as i32,
            col_strips: cut.col_strips as i32,
            row_strips: cut.row_strips as i32,
            magic: (1u64 << 32).div_ceil(columns) as u32,
            aligned: i32::from((shape.c * dtype.size()).is_multiple_of(16)),
            lo,
            hi,
        };
        Ok(Forward { shape, dtype, cut, dims, kernel })
    }

    /// Cuts by hand: images per block and output rows per strip (rounded up to a whole turn). More of either reads
    /// filters and edges less often, fewer give more blocks.
    pub fn split(mut self, images: usize, rows: usize) -> Forward {
        self.cut = self.cut.split(&self.shape, images, rows);
        self.dims.images = self.cut.images as i32;
        self.dims.rows = self.cut.rows as i32;
        self.dims.row_strips = self.cut.row_strips as i32;
        self
    }

    /// Blocks whose moments are kept apart.
    pub fn partials(&self) -> usize {
        self.cut.partials(&self.shape)
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: ForwardArgs<'_>) -> Result<()> {
        let s = &self.shape;
        let p = self.partials();
        let (scale, shift) = a.affine.unzip();
        let args = [
            Arg::In("x", a.x, self.dtype, s.n * s.h * s.w * s.c),
            Arg::perhaps("scale", scale, DType::F32, s.c),
            Arg::perhaps("shift", shift, DType::F32, s.c),
            Arg::In("w", a.w, DType::F32, s.k * s.k * s.c),
            Arg::Out("y", a.y, self.dtype, s.n * s.oh() * s.ow() * s.c),
            Arg::Out("moments", a.moments, DType::F32, p * s.c * 2),
            Arg::Out("counts", a.counts, DType::F32, p),
        ];
        let strips = self.cut.col_strips * self.cut.row_strips;
        let grid = [self.cut.groups as u32, strips as u32, s.n.div_ceil(self.cut.images) as u32];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, grid, self.cut.threads(), &args, &self.dims) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_cover_the_plane_and_fit_the_smallest_device() {
        for k in [3, 5, 7] {
            for stride in [1, 2] {
                for w in 1..260 {
                    let s = Shape { n: 3, h: 5, w, c: 40, k, stride };
                    let cut = Cut::new(&s);
                    assert!(cut.col_strips * cut.cols >= s.ow() && (cut.col_strips - 1) * cut.cols < s.ow());
                    assert!(cut.threads() <= [256, 224, 192][if k == 7 { 2 } else { stride - 1 }], "{s:?}");
                    assert!(cut.forward_shared(&s, DType::F32) <= 99 << 10, "{s:?} {cut:?}");
                }
            }
        }
    }

    #[test]
    fn images_share_a_block_only_where_blocks_are_many() {
        let s = Shape { n: 2, h: 28, w: 28, c: 96, k: 3, stride: 1 };
        assert_eq!(Cut::new(&s).images, 1);
        assert_eq!(Cut::new(&Shape { n: 256, c: 576, ..s }).images, 4);
        assert_eq!(Cut::new(&Shape { n: 4096, c: 576, ..s }).images, IMAGES);
    }
}
