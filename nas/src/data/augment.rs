//! From a decoded image to the floats that a network reads.
//!
//! Everything up to the flip works on 8-bit pixels, as the pipelines of the papers do (Pillow,
//! OpenCV); normalisation is a table of 256 floats per channel. All randomness is taken from the
//! cursor that the caller passes: one position per (epoch, image), so the result does not depend
//! on who renders the image or when.

use engine::rng::Draws;
use fast_image_resize as fir;

use super::config::{Crop, Erase, Jitter, Normalise, Transform};
use super::{Error, Image, Result};

/// A [`Transform`] and a [`Normalise`], checked and ready to run.
#[derive(Clone, Debug)]
pub struct Pipeline {
    transform: Transform,
    size: usize,
    channels: usize,
    /// `table[c][pixel]`, c = output channel.
    table: [[f32; 256]; 3],
    /// Which source channel output channel c reads.
    source: [usize; 3],
}

/// Working memory of one thread, and the rendered image between [`Pipeline::render`] and
/// [`Pipeline::write`].
#[derive(Default)]
pub struct Scratch {
    resizer: fir::Resizer,
    /// The source in the wanted number of channels.
    converted: Vec<u8>,
    resized: Vec<u8>,
    /// `[size, size, channels]`, before the flip.
    square: Vec<u8>,
    flip: bool,
    erase: Option<Rect>,
}

/// Rows `top..top + height`, columns `left..left + width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rect {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Pipeline {
    /// Checks the values.
    ///
    /// # Errors
    /// The key that is out of range.
    pub fn new(transform: &Transform, normalise: &Normalise) -> Result<Self> {
        check_transform(transform)?;
        let (channels, table, source) = match normalise {
            Normalise::Bgr255 {} => (3, [std::array::from_fn(|v| v as f32); 3], [2, 1, 0]),
            Normalise::MeanStd { mean, std } => {
                check_mean_std(mean, std)?;
                let of = |c: usize, v: usize| (v as f32 / 255.0 - mean[c]) / std[c];
                let channel = |c: usize| std::array::from_fn(|v| of(c.min(mean.len() - 1), v));
                (mean.len(), std::array::from_fn(channel), [0, 1, 2])
            }
        };
        let (Crop::RandomResized { size, .. } | Crop::PadAndCrop { size, .. } | Crop::Centre { size, .. }) =
            transform.crop;
        Ok(Self { transform: transform.clone(), size, channels, table, source })
    }

    /// h, w, c of every image.
    pub fn shape(&self) -> [usize; 3] {
        [self.size, self.size, self.channels]
    }

    /// Floats of one image.
    pub(super) fn len(&self) -> usize {
        self.size * self.size * self.channels
    }

    /// `image` as floats `[h, w, c]` of [`Self::shape`]; `draws` must be at the position of this
    /// (epoch, image).
    ///
    /// # Panics
    /// If `out` has another length, or `image.pixels` another than its shape says.
    pub fn apply(&self, image: &Image, draws: &mut Draws, scratch: &mut Scratch, out: &mut [f32]) {
        self.render(image, draws, scratch);
        self.write(scratch, out);
    }

    /// Everything but the conversion to floats, which [`Self::write`] does.
    pub(super) fn render(&self, image: &Image, draws: &mut Draws, scratch: &mut Scratch) {
        let size = self.size;
        let (h, w) = (image.height, image.width);
        // Gray for a colour network stays one channel until it is written; the other way round the
        // colours must go first.
        let to_gray = image.channels == 3 && self.channels == 1;
        let c = if to_gray { 1 } else { image.channels };
        let mut converted = std::mem::take(&mut scratch.converted);
        let pixels: &[u8] = if to_gray {
            converted.clear();
            converted.extend(image.pixels.chunks_exact(3).map(gray));
            &converted
        } else {
            &image.pixels
        };
        let source = Plane { pixels, h, w, c };
        match self.transform.crop {
            Crop::RandomResized { scale, ratio, .. } => {
                let rect = random_resized_box(h, w, scale, ratio, draws);
                resize(source, rect, size, size, &mut scratch.resizer, &mut scratch.square);
            }
            Crop::PadAndCrop { padding, .. } => {
                let resized = &mut scratch.resized;
                let whole = shorter_side(source, size, &mut scratch.resizer, resized);
                let offset = |length: usize, draws: &mut Draws| {
                    let range = length + 2 * padding - size + 1;
                    draws.below(range as u32) as usize
                };
                let (top, left) = (offset(whole.h, draws), offset(whole.w, draws));
                cut_padded(whole, top, left, padding, size, &mut scratch.square);
            }
            Crop::Centre { resize, .. } => {
                let resized = &mut scratch.resized;
                let whole = shorter_side(source, resize, &mut scratch.resizer, resized);
                let offset = |length: usize| ((length - size) as f64 / 2.0).round_ties_even() as usize;
                cut_padded(whole, offset(whole.h), offset(whole.w), 0, size, &mut scratch.square);
            }
        }
        scratch.converted = converted;
        scratch.flip = draws.uniform() < self.transform.flip;
        if let Some(jitter) = &self.transform.jitter {
            colour_jitter(&mut scratch.square, c, jitter, draws);
        }
        scratch.erase = self.transform.erase.as_ref().and_then(|erase| erase_rect(erase, size, draws));
    }

    /// Normalises, flips and erases the rendered image into `out`, `[h, w, c]`.
    pub(super) fn write(&self, scratch: &Scratch, out: &mut [f32]) {
        let (size, c) = (self.size, self.channels);
        assert_eq!(out.len(), self.len(), "out holds one image");
        let from = scratch.square.len() / (size * size);
        // With one source channel every output channel reads it.
        let source = if from == 1 { [0; 3] } else { self.source };
        for (y, row) in scratch.square.chunks_exact(size * from).enumerate() {
            let out = &mut out[y * size * c..(y + 1) * size * c];
            for (x, pixel) in row.chunks_exact(from).enumerate() {
                let x = if scratch.flip { size - 1 - x } else { x };
                for (i, value) in out[x * c..(x + 1) * c].iter_mut().enumerate() {
                    *value = self.table[i][usize::from(pixel[source[i]])];
                }
            }
        }
        if let Some(rect) = scratch.erase {
            for y in rect.top..rect.top + rect.height {
                out[(y * size + rect.left) * c..(y * size + rect.left + rect.width) * c].fill(0.0);
            }
        }
    }
}

/// Pixels `[h, w, c]`.
#[derive(Clone, Copy)]
struct Plane<'a> {
    pixels: &'a [u8],
    h: usize,
    w: usize,
    c: usize,
}

/// Pillow's conversion to "L": ITU-R 601-2 in 16-bit fixed point, rounded.
fn gray(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16) as u8
}

/// torchvision's `RandomResizedCrop.get_params`.
fn random_resized_box(h: usize, w: usize, scale: [f32; 2], ratio: [f32; 2], draws: &mut Draws) -> Rect {
    let area = (h * w) as f64;
    let log_ratio = ratio.map(|r| f64::from(r).ln());
    for _ in 0..10 {
        let target = area * between(scale.map(f64::from), draws);
        let aspect = between(log_ratio, draws).exp();
        let width = (target * aspect).sqrt().round() as usize;
        let height = (target / aspect).sqrt().round() as usize;
        if (1..=w).contains(&width) && (1..=h).contains(&height) {
            let top = draws.below((h - height + 1) as u32) as usize;
            let left = draws.below((w - width + 1) as u32) as usize;
            return Rect { top, left, height, width };
        }
    }
    let actual = w as f64 / h as f64;
    let [low, high] = ratio.map(f64::from);
    let (height, width) = if actual < low {
        (((w as f64 / low).round() as usize).clamp(1, h), w)
    } else if actual > high {
        (h, ((h as f64 * high).round() as usize).clamp(1, w))
    } else {
        (h, w)
    };
    Rect { top: (h - height) / 2, left: (w - width) / 2, height, width }
}

fn between([low, high]: [f64; 2], draws: &mut Draws) -> f64 {
    low + (high - low) * f64::from(draws.uniform())
}

/// The part `rect` of `source` as `height` x `width` pixels.
fn resize(
    source: Plane,
    rect: Rect,
    height: usize,
    width: usize,
    resizer: &mut fir::Resizer,
    out: &mut Vec<u8>,
) {
    out.clear();
    out.resize(height * width * source.c, 0);
    let kind = if source.c == 1 { fir::PixelType::U8 } else { fir::PixelType::U8x3 };
    let from = fir::images::ImageRef::new(source.w as u32, source.h as u32, source.pixels, kind)
        .expect("pixels fill the shape");
    let mut to = fir::images::Image::from_slice_u8(width as u32, height as u32, out, kind)
        .expect("pixels fill the shape");
    let options = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear))
        .crop(rect.left as f64, rect.top as f64, rect.width as f64, rect.height as f64);
    resizer.resize(&from, &mut to, &options).expect("the box lies inside the image");
}

/// Longest side over shortest. More than this is cut off at both ends before resizing: a 30000 x 1
/// picture would need gigabytes to keep its proportions.
const MAX_ASPECT: usize = 16;

/// `source` with its shorter side at `side` pixels, the longer in proportion (rounded down, as
/// torchvision does); `source` itself where it has that size.
fn shorter_side<'a>(
    source: Plane<'a>,
    side: usize,
    resizer: &mut fir::Resizer,
    out: &'a mut Vec<u8>,
) -> Plane<'a> {
    if source.h.min(source.w) == side {
        return source;
    }
    let most = MAX_ASPECT * source.h.min(source.w);
    let (h, w) = (source.h.min(most), source.w.min(most));
    let rect = Rect { top: (source.h - h) / 2, left: (source.w - w) / 2, height: h, width: w };
    let long = side * h.max(w) / h.min(w);
    let (height, width) = if h < w { (side, long) } else { (long, side) };
    resize(source, rect, height, width, resizer, out);
    Plane { pixels: out, h: height, w: width, c: source.c }
}

/// The square at (`top`, `left`) of `source` with `padding` black pixels around it.
fn cut_padded(source: Plane, top: usize, left: usize, padding: usize, size: usize, out: &mut Vec<u8>) {
    let c = source.c;
    out.clear();
    out.resize(size * size * c, 0);
    // Columns of the square that lie in the picture.
    let first = padding.saturating_sub(left);
    let last = (source.w + padding).saturating_sub(left).min(size);
    for y in 0..size {
        let Some(row) = (top + y).checked_sub(padding).filter(|&row| row < source.h) else { continue };
        if first < last {
            let from = (row * source.w + left + first - padding) * c;
            out[(y * size + first) * c..(y * size + last) * c]
                .copy_from_slice(&source.pixels[from..from + (last - first) * c]);
        }
    }
}

/// torchvision's `ColorJitter` without hue.
fn colour_jitter(pixels: &mut [u8], c: usize, jitter: &Jitter, draws: &mut Draws) {
    // Factors are drawn in one order and applied in another, as torchvision does.
    let mut steps = [0, 1, 2];
    for i in [2, 1] {
        steps.swap(i, draws.below(i as u32 + 1) as usize);
    }
    let factor = |x: f32, draws: &mut Draws| draws.range((1.0 - x).max(0.0), 1.0 + x);
    let [brightness, contrast, saturation] =
        [jitter.brightness, jitter.contrast, jitter.saturation].map(|x| factor(x, draws));
    for step in steps {
        match step {
            0 if jitter.brightness > 0.0 => apply_brightness(pixels, brightness),
            1 if jitter.contrast > 0.0 => apply_contrast(pixels, c, contrast),
            2 if jitter.saturation > 0.0 => apply_saturation(pixels, c, saturation),
            _ => {}
        }
    }
}

/// Pillow's blend: `base + factor * (value - base)`, cut to 0..255, rounded towards zero.
fn blend(base: u8, value: u8, factor: f32) -> u8 {
    let base = f32::from(base);
    // A cast to u8 saturates and truncates, which is what Pillow does by hand.
    (base + factor * (f32::from(value) - base)) as u8
}

fn apply_brightness(pixels: &mut [u8], factor: f32) {
    let table: [u8; 256] = std::array::from_fn(|v| blend(0, v as u8, factor));
    pixels.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
}

fn apply_contrast(pixels: &mut [u8], c: usize, factor: f32) {
    let sum: u64 = if c == 3 {
        pixels.chunks_exact(3).map(|rgb| u64::from(gray(rgb))).sum()
    } else {
        pixels.iter().map(|&v| u64::from(v)).sum()
    };
    let mean = (sum as f64 / (pixels.len() / c) as f64 + 0.5) as u8;
    let table: [u8; 256] = std::array::from_fn(|v| blend(mean, v as u8, factor));
    pixels.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
}

fn apply_saturation(pixels: &mut [u8], c: usize, factor: f32) {
    if c == 3 {
        for rgb in pixels.chunks_exact_mut(3) {
            let base = gray(rgb);
            rgb.iter_mut().for_each(|v| *v = blend(base, *v, factor));
        }
    }
}

fn erase_rect(erase: &Erase, size: usize, draws: &mut Draws) -> Option<Rect> {
    match *erase {
        Erase::Cutout { size: side } => {
            let mut span = || {
                let centre = draws.below(size as u32) as usize;
                let start = centre.saturating_sub(side / 2);
                (start, (centre + side - side / 2).min(size) - start)
            };
            let ((top, height), (left, width)) = (span(), span());
            Some(Rect { top, left, height, width })
        }
        Erase::Random { probability, scale, ratio } => {
            if draws.uniform() >= probability {
                return None;
            }
            let log_ratio = ratio.map(|r| f64::from(r).ln());
            for _ in 0..10 {
                let target = (size * size) as f64 * between(scale.map(f64::from), draws);
                let aspect = between(log_ratio, draws).exp();
                let height = (target * aspect).sqrt().round() as usize;
                let width = (target / aspect).sqrt().round() as usize;
                if (1..size).contains(&height) && (1..size).contains(&width) {
                    let top = draws.below((size - height + 1) as u32) as usize;
                    let left = draws.below((size - width + 1) as u32) as usize;
                    return Some(Rect { top, left, height, width });
                }
            }
            None
        }
    }
}

/// Sides above this are a typing error, and offsets must fit 32 bits.
const MAX_SIDE: usize = 16_384;

fn check_transform(transform: &Transform) -> Result<()> {
    let (Crop::RandomResized { size, .. } | Crop::PadAndCrop { size, .. } | Crop::Centre { size, .. }) =
        transform.crop;
    check("size", size, (1..=MAX_SIDE).contains(&size), "from 1 to 16384")?;
    match transform.crop {
        Crop::RandomResized { scale, ratio, .. } => {
            check_range("scale", scale, 1.0)?;
            check_range("ratio", ratio, f32::MAX)?;
        }
        Crop::PadAndCrop { padding, .. } => {
            check("padding", padding, padding <= MAX_SIDE, "at most 16384")?;
        }
        Crop::Centre { resize, .. } => {
            check("resize", resize, (size..=MAX_SIDE).contains(&resize), "from `size` to 16384")?;
        }
    }
    check("flip", transform.flip, (0.0..=1.0).contains(&transform.flip), "a probability from 0 to 1")?;
    if let Some(j) = transform.jitter {
        for (key, x) in [("brightness", j.brightness), ("contrast", j.contrast), ("saturation", j.saturation)]
        {
            check(key, x, (0.0..=10.0).contains(&x), "from 0 to 10")?;
        }
    }
    match transform.erase {
        Some(Erase::Cutout { size: side }) => {
            check("erase.size", side, (1..=MAX_SIDE).contains(&side), "from 1 to 16384")
        }
        Some(Erase::Random { probability: p, scale, ratio }) => {
            check("erase.probability", p, (0.0..=1.0).contains(&p), "a probability from 0 to 1")?;
            check_range("erase.scale", scale, 1.0)?;
            check_range("erase.ratio", ratio, f32::MAX)
        }
        None => Ok(()),
    }
}

fn check_mean_std(mean: &[f32], std: &[f32]) -> Result<()> {
    let channels = |n: usize| n == 1 || n == 3;
    let list = |values: &[f32]| format!("{values:?}");
    check("mean", list(mean), channels(mean.len()), "a list of 1 (gray) or 3 (RGB) numbers")?;
    check("mean", list(mean), mean.iter().all(|m| m.is_finite()), "finite")?;
    check("std", list(std), std.len() == mean.len(), "as many numbers as `mean`")?;
    let positive = std.iter().all(|&s| s.is_finite() && s > 1e-6);
    check("std", list(std), positive, "above 1e-6")
}

fn check_range(key: &'static str, [low, high]: [f32; 2], most: f32) -> Result<()> {
    let good = 0.0 < low && low <= high && high <= most;
    check(key, format!("[{low}, {high}]"), good, "two numbers above 0 in ascending order, a share at most 1")
}

fn check(key: &'static str, value: impl ToString, good: bool, expected: &'static str) -> Result<()> {
    if good { Ok(()) } else { Err(Error::Config { key, value: value.to_string(), expected }) }
}
