//! Windows that slide over a plane, channel by channel: depthwise convolutions of any odd window, stride and dilation,
//! average and maximum pools, each with its gradients.
//!
//! [`depthwise`](crate::depthwise) has faster kernels for windows of 3, 5 and 7 without dilation.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::channels::{Columns, RowDims};
use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, Write, image};
use crate::divide::Divide;
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("windows");

const THREADS: u32 = 256;

/// Shape: `x [n, h, w, c]` to `y [n, oh, ow, c]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images.
    pub n: usize,
    /// Height of the input.
    pub h: usize,
    /// Width of the input.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Side of the window.
    pub k: usize,
    /// Distance between windows.
    pub stride: usize,
    /// Pixels added on every side, which are zero or do not count; less than the window.
    pub padding: usize,
    /// Distance between taps; 1 for pools.
    pub dilation: usize,
}

impl Shape {
    fn reach(&self, size: usize) -> usize {
        (size + 2 * self.padding - (self.k - 1) * self.dilation - 1) / self.stride + 1
    }

    /// Height of the output.
    pub fn oh(&self) -> usize {
        self.reach(self.h)
    }

    /// Width of the output.
    pub fn ow(&self) -> usize {
        self.reach(self.w)
    }

    fn x(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    fn y(&self) -> usize {
        self.n * self.oh() * self.ow() * self.c
    }

    fn check(&self, op: &'static str, widest: usize) -> Result<()> {
        let wrong = |what, value, expected| Err(KernelError::Shape { op, what, value, expected });
        let sizes = [
            ("n", self.n),
            ("h", self.h),
            ("w", self.w),
            ("c", self.c),
            ("k", self.k),
            ("stride", self.stride),
            ("dilation", self.dilation),
        ];
        for (what, value) in sizes {
            if value == 0 || value > 1 << 16 {
                return wrong(what, value, "1 to 65536");
            }
        }
        let window = (self.k - 1) * self.dilation + 1;
        if window > 1 << 20 {
            return wrong("window", window, "at most 2^20 with its dilation");
        }
        if self.padding > widest {
            return wrong("padding", self.padding, "no window that sees padding alone");
        }
        if self.h.min(self.w) + 2 * self.padding < window {
            return wrong("window", window, "at most the padded plane");
        }
        if self.x().max(self.y()) > 1 << 30 {
            return wrong("elements of the larger side", self.x().max(self.y()), "at most 2^30");
        }
        Ok(())
    }

    /// `k` is odd; any padding that no window sees alone.
    fn check_depthwise(&self) -> Result<()> {
        let op = "depthwise_any";
        if self.k.is_multiple_of(2) {
            return Err(KernelError::Shape { op, what: "k", value: self.k, expected: "an odd number" });
        }
        self.check(op, (self.k - 1) * self.dilation)
    }

    fn check_pool(&self, op: &'static str) -> Result<()> {
        if self.dilation != 1 {
            return Err(KernelError::Shape { op, what: "dilation", value: self.dilation, expected: "1" });
        }
        self.check(op, self.k / 2)
    }

    /// Elements of a vector and the suffix of kernels that take single ones.
    fn vector(&self, dtype: DType) -> (usize, &'static str) {
        let vector = 16 / dtype.size();
        if self.c.is_multiple_of(vector) { (vector, "") } else { (1, "_scalar") }
    }

    /// A pass that makes all pixels of a plane.
    fn dims(&self, vector: usize, [height, width]: [usize; 2], write: Write) -> Dims {
        let vectors = self.c / vector;
        Dims {
            plane: [self.h, self.w, self.oh(), self.ow()].map(|v| v as i32),
            window: [self.k, self.stride, self.padding, self.dilation].map(|v| v as i32),
            total: (self.n * height * width * vectors) as u32,
            vectors: vectors as i32,
            add: write.adds(),
            by: [vectors, width, height, self.stride].map(Divide::new),
        }
    }
}

/// `Window` of `windows.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    plane: [i32; 4],
    window: [i32; 4],
    total: u32,
    vectors: i32,
    add: i32,
    by: [Divide; 4],
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// `Filter` of `windows.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct FilterDims {
    rows: RowDims,
    window: Dims,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for FilterDims {}

/// A pass with one thread per vector of an output (forward) or of an input (its gradient).
#[derive(Debug)]
struct Pass {
    kernel: Kernel,
    vector: usize,
}

impl Pass {
    fn new(device: &Device, s: &Shape, dtype: DType, name: &str) -> Result<Pass> {
        let (vector, suffix) = s.vector(dtype);
        Ok(Pass { kernel: device.kernel(&IMAGE, format!("{name}_{dtype}{suffix}"), 0)?, vector })
    }

    fn launch(
        &self,
        stream: &CudaStream,
        s: &Shape,
        plane: [usize; 2],
        args: &[Arg<'_>],
        write: Write,
    ) -> Result<()> {
        let dims = s.dims(self.vector, plane, write);
        let grid = [dims.total.div_ceil(THREADS), 1, 1];
        // SAFETY: callers pass the kernel's parameters with the sizes of the shape; it stays within them.
        unsafe { self.kernel.launch(stream, grid, THREADS, args, &dims) }
    }
}

/// A depthwise convolution: `w [k, k, c]` of f32.
#[derive(Debug)]
pub struct Depthwise {
    shape: Shape,
    dtype: DType,
    forward: Pass,
    data: Pass,
    filter: Columns,
}

impl Depthwise {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves; the driver's.
    pub fn new(device: &Device, shape: Shape, dtype: DType) -> Result<Depthwise> {
        shape.check_depthwise()?;
        let s = &shape;
        let pass = |name| Pass::new(device, s, dtype, name);
        let rows = [s.k * s.k, s.n * s.oh() * s.ow(), s.c];
        Ok(Depthwise {
            forward: pass("depthwise_any_fwd")?,
            data: pass("depthwise_any_bwd_data")?,
            filter: Columns::new(device, &IMAGE, "depthwise_any_bwd_filter", dtype, rows, false)?,
            shape,
            dtype,
        })
    }

    /// Launches `y` of `x` and the filters.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn forward(&self, stream: &CudaStream, x: Input<'_>, w: Input<'_>, y: Output<'_>) -> Result<()> {
        let (s, t) = (&self.shape, self.dtype);
        let args = [
            Arg::In("x", x, t, s.x()),
            Arg::In("w", w, DType::F32, s.k * s.k * s.c),
            Arg::Out("y", y, t, s.y()),
        ];
        self.forward.launch(stream, s, [s.oh(), s.ow()], &args, Write::Store)
    }

    /// Launches the gradient of the input.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn data_gradient(
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
            Arg::In("w", w, DType::F32, s.k * s.k * s.c),
            Arg::Out("dx", dx, t, s.x()),
        ];
        self.data.launch(stream, s, [s.h, s.w], &args, write)
    }

    /// Partial gradients of the filters, which [`SumPartials`](crate::batch_norm::SumPartials) adds to the gradient.
    pub fn partials(&self) -> usize {
        self.filter.partials()
    }

    /// Launches the gradient of the filters: `parts [partials, k, k, c]` of f32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn filter_gradient(
        &self,
        stream: &CudaStream,
        x: Input<'_>,
        dy: Input<'_>,
        parts: Output<'_>,
    ) -> Result<()> {
        let (s, t) = (&self.shape, self.dtype);
        let args = [
            Arg::In("x", x, t, s.x()),
            Arg::In("dy", dy, t, s.y()),
            Arg::Out("parts", parts, DType::F32, self.partials() * s.k * s.k * s.c),
        ];
        let window = s.dims(s.vector(t).0, [s.oh(), s.ow()], Write::Store);
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.filter.launch(stream, &args, |rows| FilterDims { rows, window }) }
    }
}

/// Which pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The mean; padding is not counted.
    Average,
    /// The maximum; of equal ones the first in row order gets the gradient, and what is no number wins.
    Maximum,
}

/// A pool over windows.
#[derive(Debug)]
pub struct Pool {
    kind: Kind,
    shape: Shape,
    dtype: DType,
    forward: Pass,
    backward: Pass,
}

impl Pool {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// A shape that no kernel serves, padding beyond half a window; the driver's.
    pub fn new(device: &Device, kind: Kind, shape: Shape, dtype: DType) -> Result<Pool> {
        let name = match kind {
            Kind::Average => "avg_pool",
            Kind::Maximum => "max_pool",
        };
        shape.check_pool(name)?;
        let pass = |way| Pass::new(device, &shape, dtype, &format!("{name}_{way}"));
        Ok(Pool { kind, forward: pass("fwd")?, backward: pass("bwd")?, shape, dtype })
    }

    /// Launches `y` of `x`.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn forward(&self, stream: &CudaStream, x: Input<'_>, y: Output<'_>) -> Result<()> {
        let (s, t) = (&self.shape, self.dtype);
        let args = [Arg::In("x", x, t, s.x()), Arg::Out("y", y, t, s.y())];
        self.forward.launch(stream, s, [s.oh(), s.ow()], &args, Write::Store)
    }

    /// Launches the gradient of the input; `kept` is `x` and `y`, which only a maximum reads.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn backward(
        &self,
        stream: &CudaStream,
        kept: Option<[Input<'_>; 2]>,
        dy: Input<'_>,
        dx: Output<'_>,
        write: Write,
    ) -> Result<()> {
        let (s, t) = (&self.shape, self.dtype);
        let (dy, dx) = (Arg::In("dy", dy, t, s.y()), Arg::Out("dx", dx, t, s.x()));
        match (self.kind, kept) {
            (Kind::Average, _) => self.backward.launch(stream, s, [s.h, s.w], &[dy, dx], write),
            (Kind::Maximum, Some([x, y])) => {
                let args = [Arg::In("x", x, t, s.x()), Arg::In("y", y, t, s.y()), dy, dx];
                self.backward.launch(stream, s, [s.h, s.w], &args, write)
            }
            (Kind::Maximum, None) => Err(KernelError::TooShort {
                kernel: self.backward.kernel.name.clone(),
                argument: "x",
                needed: s.x(),
                found: 0,
            }),
        }
    }
}
