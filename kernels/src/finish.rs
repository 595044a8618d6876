//! The end of an inverted residual block, `y = act(h * scale + shift) + x`, and the beginning of its backward pass, the
//! sums that batch norm's backward needs.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Act, Arg, DType, Device, Image, Input, Kernel, Output, image};
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("finish");

/// Most threads of a block.
const THREADS: usize = 256;

/// Blocks below which a block gets no more rows.
const ENOUGH_BLOCKS: usize = 512;

/// Least and most rows of a thread.
const PASSES: [usize; 2] = [4, 32];

/// The dimensions as `finish.cu` has them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    m: i32,
    c: i32,
    across: i32,
    down: i32,
    rows: i32,
    lo: f32,
    hi: f32,
    eps: f32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// How `[m, c]` is cut, and the kernel's name.
fn prepare(pass: &str, m: usize, c: usize, dtype: DType, act: Act) -> Result<(String, Dims, usize)> {
    for (what, value, most, expected) in
        [("m", m, 1 << 30, "1 to 1073741824"), ("c", c, 1 << 16, "1 to 65536")]
    {
        if value == 0 || value > most {
            return Err(KernelError::Shape { op: "finish", what, value, expected });
        }
    }
    let (variant, lo, hi) = act.variant();
    let whole = c.is_multiple_of(16 / dtype.size());
    let (vector, suffix) = if whole { (16 / dtype.size(), "") } else { (1, "_scalar") };
    let name = format!("finish_{pass}_{dtype}_{variant}{suffix}");
    if !matches!(dtype, DType::F32 | DType::Bf16) {
        return Err(KernelError::Type { kernel: name, argument: "h", expected: DType::F32, found: dtype });
    }
    let across = (c / vector).min(THREADS);
    let columns = (c / vector).div_ceil(across);
    // An even number of vectors: whole sectors.
    let down = (THREADS / across).max(1);
    let down = if down > 1 { down & !1 } else { 1 };
    let passes = (m.div_ceil(down) * columns / ENOUGH_BLOCKS).clamp(PASSES[0], PASSES[1]);
    let dims = Dims {
        m: m as i32,
        c: c as i32,
        across: across as i32,
        down: down as i32,
        rows: (down * passes) as i32,
        lo,
        hi,
        eps: 0.0,
    };
    Ok((name, dims, vector))
}

impl Dims {
    fn passes(&mut self, passes: usize) {
        let most = (self.m as usize).div_ceil(self.down as usize);
        self.rows = self.down * passes.clamp(1, most) as i32;
    }

    fn threads(&self) -> u32 {
        (self.across * self.down) as u32
    }

    fn grid(&self, vector: usize) -> [u32; 3] {
        [
            (self.m as usize).div_ceil(self.rows as usize) as u32,
            (self.c as usize / vector).div_ceil(self.across as usize) as u32,
            1,
        ]
    }
}

/// `y = act(h * scale + shift) (+ x)`.
#[derive(Debug)]
pub struct Finish {
    dims: Dims,
    dtype: DType,
    vector: usize,
    kernel: Kernel,
}

/// Buffers of [`Finish`].
#[derive(Debug)]
pub struct FinishArgs<'a> {
    /// Input `[m, c]`.
    pub h: Input<'a>,
    /// Scale and shift per channel, each `[c]`, f32.
    pub affine: (Input<'a>, Input<'a>),
    /// What is added, `[m, c]`.
    pub x: Option<Input<'a>>,
    /// Output `[m, c]`.
    pub y: Output<'a>,
}

impl Finish {
    /// Prepares launches for `m` rows of `c` channels.
    ///
    /// # Errors
    /// A shape or type that no kernel serves; the driver's.
    pub fn new(device: &Device, m: usize, c: usize, dtype: DType, act: Act) -> Result<Finish> {
        let (name, dims, vector) = prepare("fwd", m, c, dtype, act)?;
        Ok(Finish { dims, dtype, vector, kernel: device.kernel(&IMAGE, name, 0)? })
    }

    /// Gives a thread so many rows.
    pub fn rows_per_thread(mut self, rows: usize) -> Finish {
        self.dims.passes(rows);
        self
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: FinishArgs<'_>) -> Result<()> {
        let (d, c) = (&self.dims, self.dims.c as usize);
        let len = d.m as usize * c;
        let args = [
            Arg::In("h", a.h, self.dtype, len),
            Arg::In("scale", a.affine.0, DType::F32, c),
            Arg::In("shift", a.affine.1, DType::F32, c),
            Arg::perhaps("x", a.x, self.dtype, len),
            Arg::Out("y", a.y, self.dtype, len),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, d.grid(self.vector), d.threads(), &args, d) }
    }
}

/// Sums of `du = dy * act'(h * scale + shift)` and of `du * (h - mean)` per channel: in parts, or joined by the last block
/// to what [`Backward`](crate::batch_norm::Backward) makes of them.
#[derive(Debug)]
pub struct Sums {
    dims: Dims,
    dtype: DType,
    vector: usize,
    kernel: Kernel,
}

/// Buffers of [`Sums`].
#[derive(Debug)]
pub struct SumsArgs<'a> {
    /// Gradient of the activation `[m, c]`.
    pub dy: Input<'a>,
    /// Input of batch norm `[m, c]`.
    pub h: Input<'a>,
    /// Scale and shift per channel, each `[c]`, f32.
    pub affine: (Input<'a>, Input<'a>),
    /// Mean of `h`, `[c]`, f32.
    pub mean: Input<'a>,
    /// Partial sums `[partials, c, 2]`, f32.
    pub sums: Output<'a>,
    /// What becomes of the sums in the same launch.
    pub norm: Option<NormArgs<'a>>,
}

/// Batch norm's backward pass over the rows of a launch; all f32, `[c]`.
#[derive(Debug)]
pub struct NormArgs<'a> {
    /// Biased variance.
    pub variance: Input<'a>,
    /// What was added to it.
    pub eps: f32,
    /// Gradient of the weight, added to.
    pub dgamma: Option<Output<'a>>,
    /// Gradient of the bias, added to.
    pub dbeta: Option<Output<'a>>,
    /// `dh = p * du + q * h + r` per channel, `[3, c]`.
    pub pqr: Output<'a>,
}

impl Sums {
    /// Prepares launches for `m` rows of `c` channels.
    ///
    /// # Errors
    /// A shape or type that no kernel serves; the driver's.
    pub fn new(device: &Device, m: usize, c: usize, dtype: DType, act: Act) -> Result<Sums> {
        let (name, dims, vector) = prepare("bwd_sums", m, c, dtype, act)?;
        // Two sums of each channel of each thread, at the kernel's pitch.
        let shared = ((dims.threads() as usize).next_multiple_of(16) + 16 / vector) * vector * 2 * 4;
        let kernel = device.kernel(&IMAGE, name, shared as u32)?.counting(device)?;
        Ok(Sums { dims, dtype, vector, kernel })
    }

    /// Gives a thread so many rows: fewer partials.
    pub fn rows_per_thread(mut self, rows: usize) -> Sums {
        self.dims.passes(rows);
        self
    }

    /// Blocks whose sums are kept apart.
    pub fn partials(&self) -> usize {
        self.dims.grid(self.vector)[0] as usize
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, a: SumsArgs<'_>) -> Result<()> {
        let (c, f32) = (self.dims.c as usize, DType::F32);
        let d = Dims { eps: a.norm.as_ref().map_or(0.0, |norm| norm.eps), ..self.dims };
        let len = d.m as usize * c;
        let [variance, dgamma, dbeta, pqr] = match a.norm {
            Some(norm) => [
                Arg::In("variance", norm.variance, f32, c),
                Arg::perhaps_out("dgamma", norm.dgamma, f32, c),
                Arg::perhaps_out("dbeta", norm.dbeta, f32, c),
                Arg::Out("pqr", norm.pqr, f32, 3 * c),
            ],
            None => [Arg::Null, Arg::Null, Arg::Null, Arg::Null],
        };
        let args = [
            Arg::In("dy", a.dy, self.dtype, len),
            Arg::In("h", a.h, self.dtype, len),
            Arg::In("scale", a.affine.0, f32, c),
            Arg::In("shift", a.affine.1, f32, c),
            Arg::In("mean", a.mean, f32, c),
            Arg::Out("sums", a.sums, f32, self.partials() * c * 2),
            Arg::Counters,
            variance,
            dgamma,
            dbeta,
            pqr,
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, d.grid(self.vector), d.threads(), &args, &d) }
    }
}
