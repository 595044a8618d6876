//! From 8-bit images to the input of a network: crop with padding, mirror, colour jitter, normalise, cut-out; the bits of
//! the CPU's pipeline.
//!
//! A [`Plan`] per image says what happens to it. [`Augment::plan`] draws plans on the device as the CPU does; the host
//! may write them instead (for example where it has drawn a rectangle to erase).

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, image};
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("augment");

/// Pixels of a block: what the table costs is shared by so many.
const PIECE: usize = 2048;

/// What happens to one image, in words of 32 bits (floats as their bits).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Plan {
    /// Corner of the square in the padded image.
    pub corner: [usize; 2],
    /// Whether it is mirrored.
    pub flip: bool,
    /// Steps of jitter in their order.
    pub steps: [Option<Step>; 3],
    /// Factors of brightness, contrast and saturation.
    pub factors: [f32; 3],
    /// Top, left, height and width of the rectangle of the output that becomes zero.
    pub erase: [usize; 4],
}

/// A change of colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Of brightness.
    Brightness,
    /// Of contrast, about the image's gray mean.
    Contrast,
    /// Of saturation.
    Saturation,
}

impl Plan {
    /// Words of a plan.
    pub const WORDS: usize = 12;

    /// The plan as it goes to the device.
    pub fn words(&self) -> [i32; Plan::WORDS] {
        let code = |step: &Option<Step>| step.map_or(3, |step| step as i32);
        let steps = (0..3).map(|i| code(&self.steps[i]) << (2 * i)).sum();
        let [top, left] = self.corner.map(|v| v as i32);
        let [brightness, contrast, saturation] = self.factors.map(|v| v.to_bits() as i32);
        let [e0, e1, e2, e3] = self.erase.map(|v| v as i32);
        [top, left, i32::from(self.flip), steps, brightness, contrast, saturation, 0, e0, e1, e2, e3]
    }
}

/// Sizes and settings of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Images.
    pub images: usize,
    /// Height and width of the sources.
    pub source: [usize; 2],
    /// Channels of the sources, 1 or 3.
    pub from: usize,
    /// Side of the squares that come out.
    pub size: usize,
    /// Channels that come out, 1 or 3.
    pub channels: usize,
    /// Which source channel each output channel reads; `[2, 1, 0]` for blue, green, red.
    pub order: [usize; 3],
    /// Black pixels around the sources.
    pub padding: usize,
    /// Corner of the square in the padded image; drawn if absent.
    pub corner: Option<[usize; 2]>,
    /// Probability of a mirrored image.
    pub flip: f32,
    /// Ranges of brightness, contrast and saturation about 1, if colours are changed.
    pub jitter: Option<[f32; 3]>,
    /// Side of the square that is cut out, 0 for none.
    pub cutout: usize,
}

/// Where draws come from: the key of the stream and the epoch; the image's index completes the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Two words of Philox.
    pub key: [u32; 2],
    /// Epoch.
    pub epoch: u32,
}

/// `Augment` of `augment.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    sizes: [i32; 7],
    corners: [i32; 2],
    corner: [i32; 2],
    flip: f32,
    jitter: i32,
    low: [f32; 3],
    span: [f32; 3],
    cutout: i32,
    epoch: u32,
    // A pair of words begins at a multiple of its size.
    unused: u32,
    key: [u32; 2],
    order: [i32; 3],
    piece: i32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// Launches for batches of one kind.
#[derive(Debug)]
pub struct Augment {
    settings: Settings,
    dtype: DType,
    dims: Dims,
    plan: Kernel,
    contrast: Kernel,
    pixels: Kernel,
}

impl Augment {
    /// Prepares launches whose output is f32 or bf16.
    ///
    /// # Errors
    /// A size or a number out of range; the driver's.
    pub fn new(device: &Device, s: Settings, dtype: DType) -> Result<Augment> {
        let op = "augment";
        let wrong = |what, value, expected| Err(KernelError::Shape { op, what, value, expected });
        let sides = [("height", s.source[0]), ("width", s.source[1]), ("size", s.size)];
        for (what, value) in sides {
            if value == 0 || value > 16_384 {
                return wrong(what, value, "1 to 16384");
            }
        }
        if s.images == 0 || s.images > 65_535 {
            return wrong("images", s.images, "1 to 65535");
        }
        for (what, value) in [("channels of the sources", s.from), ("channels", s.channels)] {
            if value != 1 && value != 3 {
                return wrong(what, value, "1 or 3");
            }
        }
        if let Some(bad) = s.order.iter().find(|i| **i >= 3) {
            return wrong("source of a channel", *bad, "0 to 2");
        }
        if s.padding > 16_384 {
            return wrong("padding", s.padding, "at most 16384");
        }
        if s.cutout > 16_384 {
            return wrong("side of the cut-out", s.cutout, "at most 16384");
        }
        // Corners from which the square stays in the padded image.
        let room = s.source.map(|side| (side + 2 * s.padding).checked_sub(s.size).map(|room| room + 1));
        let [Some(rows), Some(columns)] = room else {
            return wrong("size", s.size, "at most the padded source");
        };
        let corner = s.corner.unwrap_or([0; 2]);
        if corner[0] >= rows || corner[1] >= columns {
            return wrong("corner", corner[0].max(corner[1]), "a square within the padded source");
        }
        let setting = |what, value, expected| Err(KernelError::Setting { op, what, value, expected });
        if !(0.0..=1.0).contains(&s.flip) {
            return setting("flip", s.flip, "0 to 1");
        }
        let jitter = s.jitter.unwrap_or([0.0; 3]);
        if let Some(bad) = jitter.iter().find(|x| !(0.0..=10.0).contains(*x)) {
            return setting("jitter", *bad, "0 to 10");
        }
        let low = jitter.map(|x| (1.0 - x).max(0.0));
        // Bit 3 stands for jitter whose steps are all off: it still draws.
        let on = (0..3).filter(|i| jitter[*i] > 0.0).map(|i| 1 << i).sum::<i32>();
        let int = |v: usize| v as i32;
        let dims = Dims {
            sizes: [s.images, s.source[0], s.source[1], s.from, s.size, s.channels, s.padding].map(int),
            corners: if s.corner.is_some() { [0; 2] } else { [rows, columns].map(int) },
            corner: corner.map(int),
            flip: s.flip,
            jitter: if s.jitter.is_some() { on | 8 } else { 0 },
            low,
            span: std::array::from_fn(|i| 1.0 + jitter[i] - low[i]),
            cutout: int(s.cutout),
            epoch: 0,
            unused: 0,
            key: [0; 2],
            order: s.order.map(int),
            piece: int(PIECE),
        };
        let kernel = |name: String| device.kernel(&IMAGE, name, 0);
        Ok(Augment {
            settings: s,
            dtype,
            dims,
            plan: kernel("augment_plan".into())?,
            contrast: kernel("augment_contrast".into())?,
            pixels: kernel(format!("augment_{dtype}"))?,
        })
    }

    fn sources(&self) -> usize {
        let s = &self.settings;
        s.images * s.source[0] * s.source[1] * s.from
    }

    /// Launches the draws: `plans [images, 12]` of i32 for the images with these indices, `[images]` of i32.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn plan(
        &self,
        stream: &CudaStream,
        at: Position,
        indices: Input<'_>,
        plans: Output<'_>,
    ) -> Result<()> {
        let n = self.settings.images;
        let args = [
            Arg::In("indices", indices, DType::I32, n),
            Arg::Out("plans", plans, DType::I32, n * Plan::WORDS),
        ];
        let dims = Dims { key: at.key, epoch: at.epoch, ..self.dims };
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.plan.launch(stream, [n.div_ceil(128) as u32, 1, 1], 128, &args, &dims) }
    }

    /// Launches the gray means, which go into the plans; needed before [`pixels`](Self::pixels) where contrast changes.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn contrast(&self, stream: &CudaStream, images: Input<'_>, plans: Output<'_>) -> Result<()> {
        let n = self.settings.images;
        let args = [
            Arg::In("images", images, DType::U8, self.sources()),
            Arg::Out("plans", plans, DType::I32, n * Plan::WORDS),
        ];
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked, whatever the plans
        // say: pixels outside an image are black.
        unsafe { self.contrast.launch(stream, [n as u32, 1, 1], 256, &args, &self.dims) }
    }

    /// Launches the pixels: `y [images, size, size, channels]` of `images [images, h, w, from]` of u8. `table
    /// [channels, 256]` of f32 holds what each byte becomes.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn pixels(
        &self,
        stream: &CudaStream,
        images: Input<'_>,
        plans: Input<'_>,
        table: Input<'_>,
        y: Output<'_>,
    ) -> Result<()> {
        let s = &self.settings;
        let pixels = s.size * s.size;
        let args = [
            Arg::In("images", images, DType::U8, self.sources()),
            Arg::In("plans", plans, DType::I32, s.images * Plan::WORDS),
            Arg::In("table", table, DType::F32, s.channels * 256),
            Arg::Out("y", y, self.dtype, s.images * pixels * s.channels),
        ];
        let grid = [pixels.div_ceil(PIECE) as u32, s.images as u32, 1];
        // SAFETY: as for `contrast`.
        unsafe { self.pixels.launch(stream, grid, 256, &args, &self.dims) }
    }
}
