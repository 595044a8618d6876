//! Depthwise convolutions with batch norm and activation on load and statistics at the end: the second pass of the
//! inverted residual block.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Act, Arg, DType, Device, Image, Input, Kernel, Output, image};
use crate::error::{KernelError, Result};

const FORWARD: [Image; 3] =
    [image!("depthwise_forward_k3"), image!("depthwise_forward_k5"), image!("depthwise_forward_k7")];

const BACKWARD: [Image; 3] =
    [image!("depthwise_backward_k3"), image!("depthwise_backward_k5"), image!("depthwise_backward_k7")];

/// Rows that a block makes per turn.
const ROWS: usize = 2;

/// Blocks below which images are not put into one block: a few per multiprocessor of the largest devices.
const ENOUGH_BLOCKS: usize = 1024;

/// Blocks below which planes are cut into strips of rows, whose edges are then read twice: about two waves.
const FEW_BLOCKS: usize = 256;

/// Fewest rows of such a strip, but for the last.
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

/// The dimensions as both `.cuh` files have them.
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

impl Dims {
    fn new(s: &Shape, dtype: DType, act: Act, cut: &Cut, columns: usize) -> Dims {
        let (_, lo, hi) = act.variant();
        Dims {
            n: s.n as i32,
            h: s.h as i32,
            w: s.w as i32,
            c: s.c as i32,
            oh: s.oh() as i32,
            ow: s.ow() as i32,
            cols: cut.cols as i32,
            rows: cut.rows as i32,
            images: cut.images as i32,
            col_strips: cut.col_strips as i32,
            row_strips: cut.row_strips as i32,
            magic: (1u64 << 32).div_ceil(columns as u64) as u32,
            aligned: i32::from((s.c * dtype.size()).is_multiple_of(16)),
            lo,
            hi,
        }
    }

    fn split(&mut self, cut: &Cut) {
        self.images = cut.images as i32;
        self.rows = cut.rows as i32;
        self.row_strips = cut.row_strips as i32;
    }
}

/// How the plane that a pass makes (forward: outputs, backward: inputs) is cut into blocks: by shape alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    n: usize,
    /// Rows of the plane.
    height: usize,
    /// Columns of a warp.
    warp_cols: usize,
    /// Columns of a strip, a multiple of `warp_cols`.
    cols: usize,
    col_strips: usize,
    /// Rows of a strip, a multiple of [`ROWS`].
    rows: usize,
    row_strips: usize,
    /// Images of a block.
    images: usize,
    /// Groups of 32 channels.
    groups: usize,
}

impl Cut {
    /// A plane of `height` x `width`, `warp_cols` columns per warp, at most `widest` per strip.
    fn new(s: &Shape, [height, width]: [usize; 2], warp_cols: usize, widest: usize) -> Cut {
        let col_strips = width.div_ceil(widest);
        let cols = width.div_ceil(col_strips).next_multiple_of(warp_cols);
        // Strips may have become fewer by rounding up.
        let col_strips = width.div_ceil(cols);
        let groups = s.c.div_ceil(32);
        let blocks = s.n * groups * col_strips;
        let images = (blocks / ENOUGH_BLOCKS).clamp(1, IMAGES);
        let row_strips = (FEW_BLOCKS / blocks).clamp(1, height.div_ceil(STRIP_ROWS));
        Cut { n: s.n, height, warp_cols, cols, col_strips, rows: 0, row_strips, images, groups }
            .split(images, height.div_ceil(row_strips))
    }

    /// Eight and seven warps at stride 1 and 2, six for 7 x 7, whose lanes hold more registers; the kernels' launch
    /// bounds say the same.
    fn forward(s: &Shape) -> Cut {
        let (warp_cols, widest) = match (s.k, s.stride) {
            (7, 1) => (7, 42),
            (_, 1) => (7, 56),
            (7, _) => (4, 24),
            _ => (4, 28),
        };
        Cut::new(s, [s.oh(), s.ow()], warp_cols, widest)
    }

    /// At most six warps.
    fn backward(s: &Shape) -> Cut {
        let (warp_cols, widest) = if s.stride == 1 { (7, 42) } else { (8, 48) };
        Cut::new(s, [s.h, s.w], warp_cols, widest)
    }

    fn split(self, images: usize, rows: usize) -> Cut {
        let rows = rows.clamp(1, self.height).next_multiple_of(ROWS);
        Cut { images: images.clamp(1, self.n), rows, row_strips: self.height.div_ceil(rows), ..self }
    }

    fn partials(&self) -> usize {
        self.n.div_ceil(self.images) * self.col_strips * self.row_strips
    }

    fn grid(&self) -> [u32; 3] {
        let strips = self.col_strips * self.row_strips;
        [self.groups as u32, strips as u32, self.n.div_ceil(self.images) as u32]
    }

    fn warps(&self) -> usize {
        self.cols / self.warp_cols
    }

    fn threads(&self) -> u32 {
        (self.warps() * 32) as u32
    }

    /// Bytes in which a block's lanes exchange channels before they store.
    fn exchange(&self, dtype: DType) -> usize {
        self.warps() * ROWS * self.warp_cols * 32 * dtype.size()
    }

    /// Staged columns of a strip, forward.
    fn forward_columns(&self, s: &Shape) -> usize {
        (self.cols - 1) * s.stride + s.k
    }

    /// Bytes of shared memory, forward: the ring and the exchange, later the warps' moments.
    fn forward_shared(&self, s: &Shape, dtype: DType) -> usize {
        let group = ROWS * s.stride;
        let groups = ((ROWS - 1) * s.stride + s.k).div_ceil(group);
        let ring = groups * group * self.forward_columns(s) * 32 * 4;
        (ring + self.exchange(dtype)).max(self.warps() * 96 * 4)
    }

    /// Staged columns of a strip, backward.
    fn backward_columns(&self, s: &Shape) -> usize {
        self.cols / s.stride + if s.stride == 1 { s.k - 1 } else { s.k / 2 }
    }

    /// Bytes of shared memory, backward: the ring, the filter and the constants that lanes cannot hold, the exchange; later the warps'
    /// gradients of the filter and their sums.
    fn backward_shared(&self, s: &Shape, dtype: DType) -> usize {
        let group = ROWS / s.stride;
        let rows = if s.stride == 1 { ROWS + s.k - 1 } else { s.k / 2 + 1 };
        let ring = rows.div_ceil(group) * group * self.backward_columns(s) * 32 * 4;
        let filter = if s.k == 7 { 49 * 32 * 4 } else { 0 };
        let constants = if (s.k, s.stride) == (3, 1) { 0 } else { 7 * 32 * 4 };
        let reduction = self.warps() * (s.k * s.k + 2) * 32 * 4;
        (ring + filter + constants + self.exchange(dtype)).max(reduction)
    }
}

/// The kernel's name, if the type is one of activations.
fn name(pass: &str, s: &Shape, dtype: DType, act: Act) -> Result<String> {
    let name = format!("depthwise_conv2d_{pass}_k{}s{}_{dtype}_{}", s.k, s.stride, act.variant().0);
    match dtype {
        DType::F32 | DType::Bf16 => Ok(name),
        DType::I32 | DType::U8 | DType::F64 => {
            Err(KernelError::Type { kernel: name, argument: "x", expected: DType::F32, found: dtype })
        }
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
        let cut = Cut::forward(&shape);
        let name = name("fwd", &shape, dtype, act)?;
        let kernel = device.kernel(&FORWARD[at], name, cut.forward_shared(&shape, dtype) as u32)?;
        let dims = Dims::new(&shape, dtype, act, &cut, cut.forward_columns(&shape));
        Ok(Forward { shape, dtype, cut, dims, kernel })
    }

    /// Cuts by hand: images per block and output rows per strip (rounded up to a whole turn). More of either reads
    /// filters and edges less often, fewer give more blocks.
    pub fn split(mut self, images: usize, rows: usize) -> Forward {
        self.cut = self.cut.split(images, rows);
        self.dims.split(&self.cut);
        self
    }

    /// Blocks whose moments are kept apart.
    pub fn partials(&self) -> usize {
        self.cut.partials()
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
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, self.cut.grid(), self.cut.threads(), &args, &self.dims) }
    }
}

/// Backward of [`Forward`] with batch norm and activation on both sides: `du1`, partial gradients of the filter, and
/// what batch norm of the input needs.
///
/// With `u2 = h2 * scale2 + shift2`, `u1 = h1 * scale1 + shift1` and per channel `p, q, r`:
/// `dh2 = p * (da2 * gate + extra) * act'(u2) + q * h2 + r`, `da1 = conv^T(dh2)`, `du1 = da1 * act'(u1)`.
#[derive(Debug)]
pub struct Backward {
    shape: Shape,
    dtype: DType,
    cut: Cut,
    dims: Dims,
    kernel: Kernel,
}

/// Buffers of [`Backward`].
#[derive(Debug)]
pub struct BackwardArgs<'a> {
    /// Gradient of `act(u2)` `[n, oh, ow, c]`.
    pub da2: Input<'a>,
    /// What the forward pass made, `[n, oh, ow, c]`.
    pub h2: Input<'a>,
    /// Scale and shift of `h2`, each `[c]`, f32.
    pub affine2: (Input<'a>, Input<'a>),
    /// `p`, `q`, `r` of batch norm's backward, `[3, c]`, f32.
    pub pqr: Input<'a>,
    /// `(gate, extra)` per image and channel, `[n, c, 2]`, f32; without it 1 and 0.
    pub gate: Option<Input<'a>>,
    /// Input of the forward pass, `[n, h, w, c]`.
    pub h1: Input<'a>,
    /// Scale and shift of `h1`, each `[c]`, f32; without them there is neither batch norm nor activation in front.
    pub affine1: Option<(Input<'a>, Input<'a>)>,
    /// Mean of `h1`, `[c]`, f32, about which `sums` are taken; 0 if absent.
    pub mean1: Option<Input<'a>>,
    /// Filter `[k, k, c]`, f32.
    pub w: Input<'a>,
    /// Gradient of `u1` `[n, h, w, c]`.
    pub du1: Output<'a>,
    /// Partial gradients of the filter `[partials, k, k, c]`, f32.
    pub dw: Output<'a>,
    /// Partial sums of `du1` and of `du1 * (h1 - mean1)`, `[partials, c, 2]`, f32.
    pub sums: Output<'a>,
}

impl Backward {
    /// Prepares launches for a shape, type and activation (of both sides).
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, shape: Shape, dtype: DType, act: Act) -> Result<Backward> {
        let at = shape.check()?;
        let cut = Cut::backward(&shape);
        let name = name("bwd", &shape, dtype, act)?;
        let kernel = device.kernel(&BACKWARD[at], name, cut.backward_shared(&shape, dtype) as u32)?;
        let dims = Dims::new(&shape, dtype, act, &cut, cut.backward_columns(&shape));
        Ok(Backward { shape, dtype, cut, dims, kernel })
    }

    /// Cuts by hand: images per block and input rows per strip, as [`Forward::split`].
    pub fn split(mut self, images: usize, rows: usize) -> Backward {
        self.cut = self.cut.split(images, rows);
        self.dims.split(&self.cut);
        self
    }

    /// Blocks whose sums are kept apart.
    pub fn partials(&self) -> usize {
        self.cut.partials()
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: BackwardArgs<'_>) -> Result<()> {
        let (s, p, f32) = (&self.shape, self.partials(), DType::F32);
        let (input, output) = (s.n * s.h * s.w * s.c, s.n * s.oh() * s.ow() * s.c);
        let (scale1, shift1) = a.affine1.unzip();
        let args = [
            Arg::In("da2", a.da2, self.dtype, output),
            Arg::In("h2", a.h2, self.dtype, output),
            Arg::In("scale2", a.affine2.0, f32, s.c),
            Arg::In("shift2", a.affine2.1, f32, s.c),
            Arg::In("pqr", a.pqr, f32, 3 * s.c),
            Arg::perhaps("gate", a.gate, f32, 2 * s.n * s.c),
            Arg::In("h1", a.h1, self.dtype, input),
            Arg::perhaps("scale1", scale1, f32, s.c),
            Arg::perhaps("shift1", shift1, f32, s.c),
            Arg::perhaps("mean1", a.mean1, f32, s.c),
            Arg::In("w", a.w, f32, s.k * s.k * s.c),
            Arg::Out("du1", a.du1, self.dtype, input),
            Arg::Out("dw", a.dw, f32, p * s.k * s.k * s.c),
            Arg::Out("sums", a.sums, f32, p * s.c * 2),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, self.cut.grid(), self.cut.threads(), &args, &self.dims) }
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
                    let most = [256, 224, 192][if k == 7 { 2 } else { stride - 1 }];
                    let f = Cut::forward(&s);
                    let b = Cut::backward(&s);
                    for (cut, width, most, shared) in [
                        (f, s.ow(), most, f.forward_shared(&s, DType::F32)),
                        (b, s.w, 192, b.backward_shared(&s, DType::F32)),
                    ] {
                        assert!(
                            cut.col_strips * cut.cols >= width && (cut.col_strips - 1) * cut.cols < width
                        );
                        assert!(cut.threads() <= most, "{s:?}");
                        assert!(shared <= 99 << 10, "{s:?} {cut:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn images_share_a_block_only_where_blocks_are_many() {
        let s = Shape { n: 2, h: 28, w: 28, c: 96, k: 3, stride: 1 };
        assert_eq!(Cut::forward(&s).images, 1);
        assert_eq!(Cut::forward(&Shape { n: 256, c: 576, ..s }).images, 4);
        assert_eq!(Cut::forward(&Shape { n: 4096, c: 576, ..s }).images, IMAGES);
    }
}
