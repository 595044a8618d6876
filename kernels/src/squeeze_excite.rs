//! Squeeze-excite: means of planes, gates made of them by two small layers, and the backward pass from the sums of the
//! project pass ([`Sums::PerImage`](crate::pointwise_gradient::Sums)).

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Act, Arg, DType, Device, Image, Input, Kernel, Output, image};
use crate::error::{KernelError, Result};
use crate::pointwise_gradient::SummedGradient;

const IMAGE: Image = image!("squeeze_excite");

/// Threads of a block.
const THREADS: usize = 256;

/// Most channels of a block that takes means.
const CHANNELS: usize = 64;

/// Images of a block of the small layers.
const IMAGES: usize = 8;

/// Bytes of shared memory that every device has.
const MOST_SHARED: usize = 99 << 10;

fn check(op: &'static str, sizes: [(&'static str, usize, usize, &'static str); 4]) -> Result<()> {
    for (what, value, most, expected) in sizes {
        if value == 0 || value > most {
            return Err(KernelError::Shape { op, what, value, expected });
        }
    }
    Ok(())
}

/// The dimensions as `squeeze_excite.cu` has them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct SqueezeDims {
    plane: i32,
    c: i32,
    across: i32,
    down: i32,
    lo: f32,
    hi: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for SqueezeDims {}

/// Means of planes: `mean over the plane of act(h * scale + shift)`.
#[derive(Debug)]
pub struct Squeeze {
    images: usize,
    dims: SqueezeDims,
    dtype: DType,
    vector: usize,
    kernel: Kernel,
}

/// Buffers of [`Squeeze`].
#[derive(Debug)]
pub struct SqueezeArgs<'a> {
    /// Input `[images, plane, c]`.
    pub h: Input<'a>,
    /// Scale and shift per channel, each `[c]`, f32.
    pub affine: (Input<'a>, Input<'a>),
    /// Means `[images, c]`, f32.
    pub means: Output<'a>,
}

impl Squeeze {
    /// Prepares launches for `images` planes of `plane` pixels of `c` channels.
    ///
    /// # Errors
    /// A shape or type that no kernel serves; the driver's.
    pub fn new(device: &Device, [images, plane, c]: [usize; 3], dtype: DType, act: Act) -> Result<Squeeze> {
        check(
            "squeeze",
            [
                ("images", images, 65535, "1 to 65535"),
                ("plane", plane, 1 << 24, "1 to 16777216"),
                ("c", c, 1 << 16, "1 to 65536"),
                ("plane * c", plane * c, 1 << 30, "at most 2^30"),
            ],
        )?;
        let (variant, lo, hi) = act.variant();
        let whole = c.is_multiple_of(16 / dtype.size());
        let (vector, suffix) = if whole { (16 / dtype.size(), "") } else { (1, "_scalar") };
        let name = format!("squeeze_{dtype}_{variant}{suffix}");
        if !matches!(dtype, DType::F32 | DType::Bf16) {
            return Err(KernelError::Type {
                kernel: name,
                argument: "h",
                expected: DType::F32,
                found: dtype,
            });
        }
        // Blocks as wide as each other.
        let vectors = c / vector;
        let across = vectors.div_ceil(vectors.div_ceil(CHANNELS / vector));
        let down = THREADS / across;
        // A number per channel of each thread, at the kernel's pitch.
        let shared = ((across * down).next_multiple_of(32) + 32 / vector) * vector * 4;
        let dims = SqueezeDims {
            plane: plane as i32,
            c: c as i32,
            across: across as i32,
            down: down as i32,
            lo,
            hi,
        };
        Ok(Squeeze { images, dims, dtype, vector, kernel: device.kernel(&IMAGE, name, shared as u32)? })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: SqueezeArgs<'_>) -> Result<()> {
        let (d, c) = (&self.dims, self.dims.c as usize);
        let args = [
            Arg::In("h", a.h, self.dtype, self.images * d.plane as usize * c),
            Arg::In("scale", a.affine.0, DType::F32, c),
            Arg::In("shift", a.affine.1, DType::F32, c),
            Arg::Out("means", a.means, DType::F32, self.images * c),
        ];
        let columns = (c / self.vector).div_ceil(d.across as usize);
        let threads = (d.across * d.down) as u32;
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, [columns as u32, self.images as u32, 1], threads, &args, d) }
    }
}

/// The function that makes gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sigma {
    /// `1 / (1 + exp(-u))`.
    Sigmoid,
    /// `relu6(u + 3) / 6`.
    HardSigmoid,
}

/// The two small layers: `gate = sigma(relu(mean w1^T + b1) w2^T + b2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layers {
    /// Images.
    pub images: usize,
    /// Pixels of an image.
    pub plane: usize,
    /// Channels.
    pub c: usize,
    /// Channels of the hidden layer.
    pub r: usize,
    /// What makes the gates.
    pub sigma: Sigma,
}

/// The dimensions as `squeeze_excite.cu` has them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ExciteDims {
    n: i32,
    c: i32,
    r: i32,
    plane: i32,
    hard: i32,
    tile: i32,
    sums: i32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for ExciteDims {}

impl Layers {
    /// Dimensions, if `floats` of shared memory exist.
    fn dims(&self, op: &'static str, floats: usize) -> Result<ExciteDims> {
        check(
            op,
            [
                ("images", self.images, 1 << 24, "1 to 16777216"),
                ("images * plane", self.images * self.plane, 1 << 30, "1 to 1073741824"),
                ("c", self.c, 4096, "1 to 4096"),
                ("r", self.r, 4096, "1 to 4096"),
            ],
        )?;
        if floats * 4 > MOST_SHARED {
            let expected = "so few that eight images of both layers fit 99 KiB";
            return Err(KernelError::Shape { op, what: "c", value: self.c, expected });
        }
        Ok(ExciteDims {
            n: self.images as i32,
            c: self.c as i32,
            r: self.r as i32,
            plane: self.plane as i32,
            hard: i32::from(self.sigma == Sigma::HardSigmoid),
            tile: SummedGradient::ROWS as i32,
            sums: 5,
        })
    }

    fn blocks(&self) -> usize {
        self.images.div_ceil(IMAGES)
    }

    /// Weights and biases of both layers.
    fn parameters(&self) -> usize {
        2 * self.c * self.r + self.c + self.r
    }
}

/// Forward of the small layers.
#[derive(Debug)]
pub struct Excite {
    layers: Layers,
    dims: ExciteDims,
    kernel: Kernel,
}

/// Buffers of [`Excite`]; all f32.
#[derive(Debug)]
pub struct ExciteArgs<'a> {
    /// Means of planes `[images, c]`.
    pub means: Input<'a>,
    /// Weight `[r, c]` and bias `[r]` of the first layer.
    pub first: (Input<'a>, Input<'a>),
    /// Weight `[c, r]` and bias `[c]` of the second layer.
    pub second: (Input<'a>, Input<'a>),
    /// After ReLU `[images, r]`.
    pub hidden: Output<'a>,
    /// Gates `[images, c]`.
    pub gates: Output<'a>,
}

impl Excite {
    /// Prepares launches.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, layers: Layers) -> Result<Excite> {
        let floats = (layers.c + layers.r) * IMAGES;
        let dims = layers.dims("excite_fwd", floats)?;
        let kernel = device.kernel(&IMAGE, "excite_fwd".into(), (floats * 4) as u32)?;
        Ok(Excite { layers, dims, kernel })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: ExciteArgs<'_>) -> Result<()> {
        let (l, f32) = (&self.layers, DType::F32);
        let args = [
            Arg::In("means", a.means, f32, l.images * l.c),
            Arg::In("w1", a.first.0, f32, l.r * l.c),
            Arg::In("b1", a.first.1, f32, l.r),
            Arg::In("w2", a.second.0, f32, l.c * l.r),
            Arg::In("b2", a.second.1, f32, l.c),
            Arg::Out("hidden", a.hidden, f32, l.images * l.r),
            Arg::Out("gates", a.gates, f32, l.images * l.c),
        ];
        let grid = [l.blocks() as u32, 1, 1];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, grid, THREADS as u32, &args, &self.dims) }
    }
}

/// Backward of the gate: factors for the depthwise pass, batch norm's sums, partial gradients of the small layers.
#[derive(Debug)]
pub struct ExciteBackward {
    layers: Layers,
    dims: ExciteDims,
    kernel: Kernel,
}

/// Buffers of [`ExciteBackward`]; all f32.
#[derive(Debug)]
pub struct ExciteBackwardArgs<'a> {
    /// Sums of the project pass `[tiles + images - 1, 5, c]`, as
    /// [`SummedGradient`] takes them per image; of a gate that stands alone the gradients of the gates `[images, c]`.
    pub sums: Input<'a>,
    /// Means of planes `[images, c]`.
    pub means: Input<'a>,
    /// After ReLU `[images, r]`.
    pub hidden: Input<'a>,
    /// Gates `[images, c]`.
    pub gates: Input<'a>,
    /// Weights of the layers `[r, c]` and `[c, r]`.
    pub w: (Input<'a>, Input<'a>),
    /// `(gate, extra)` `[images, c, 2]`: the gradient of the activation is `da2 * gate + extra`; of a gate that stands alone
    /// `extra` `[images, c]`.
    pub factors: Output<'a>,
    /// Partial sums of batch norm's backward, `[partials, c, 2]`; none of a gate that stands alone.
    pub norm: Option<Output<'a>>,
    /// Partial gradients of the layers, `[partials, parameters]`, for [`SumAll`](crate::batch_norm::SumAll).
    pub parts: Output<'a>,
}

impl ExciteBackward {
    /// Prepares launches.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, layers: Layers) -> Result<ExciteBackward> {
        // Gradients of logits, both sides of the hidden layer, the warps' parts of a piece of it.
        let floats = (layers.c + 2 * layers.r) * IMAGES + THREADS * IMAGES;
        let dims = layers.dims("excite_bwd", floats)?;
        let kernel = device.kernel(&IMAGE, "excite_bwd".into(), (floats * 4) as u32)?;
        Ok(ExciteBackward { layers, dims, kernel })
    }

    /// Prepares launches for a gate behind which there is no batch norm.
    ///
    /// # Errors
    /// As [`ExciteBackward::new`].
    pub fn alone(device: &Device, layers: Layers) -> Result<ExciteBackward> {
        let op = ExciteBackward::new(device, layers)?;
        // One tile holds all images, so that each has one place.
        Ok(ExciteBackward { dims: ExciteDims { sums: 1, tile: i32::MAX, ..op.dims }, ..op })
    }

    /// Blocks whose sums and gradients are kept apart.
    pub fn partials(&self) -> usize {
        self.layers.blocks()
    }

    /// Elements of a block's gradients.
    pub fn parameters(&self) -> usize {
        self.layers.parameters()
    }

    /// Where in them lie those of the first layer's weight `[r, c]` and bias `[r]`, of the second's weight `[c, r]` and bias
    /// `[c]`: offsets and lengths.
    pub fn places(&self) -> [(usize, usize); 4] {
        let Layers { c, r, .. } = self.layers;
        [(0, r * c), (r * c, r), (r * c + r, c * r), (2 * r * c + r, c)]
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: ExciteBackwardArgs<'_>) -> Result<()> {
        let (l, p, f32) = (&self.layers, self.partials(), DType::F32);
        let places = (l.images * l.plane).div_ceil(self.dims.tile as usize) + l.images - 1;
        let alone = self.dims.sums == 1;
        let norm = match a.norm {
            Some(norm) => Arg::Out("norm", norm, f32, p * l.c * 2),
            None if alone => Arg::Null,
            None => {
                let (kernel, argument, needed) = ("excite_bwd".into(), "norm", p * l.c * 2);
                return Err(KernelError::TooShort { kernel, argument, needed, found: 0 });
            }
        };
        let args = [
            Arg::In("sums", a.sums, f32, places * self.dims.sums as usize * l.c),
            Arg::In("means", a.means, f32, l.images * l.c),
            Arg::In("hidden", a.hidden, f32, l.images * l.r),
            Arg::In("gates", a.gates, f32, l.images * l.c),
            Arg::In("w1", a.w.0, f32, l.r * l.c),
            Arg::In("w2", a.w.1, f32, l.c * l.r),
            Arg::Out("factors", a.factors, f32, if alone { 1 } else { 2 } * l.images * l.c),
            norm,
            Arg::Out("parts", a.parts, f32, p * l.parameters()),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, [p as u32, 1, 1], THREADS as u32, &args, &self.dims) }
    }
}
