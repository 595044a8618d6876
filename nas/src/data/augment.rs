//! From a decoded image to the floats that a network reads.
//!
//! Everything up to the flip works on 8-bit pixels, as the pipelines of the papers do (Pillow,
//! OpenCV); normalisation is a table of 256 floats per channel. All randomness is taken from the
//! cursor that the caller passes: one position per (epoch, image), so the result does not depend
//! on who renders the image or when.

use engine::rng::Draws;
use fast_image_resize as fir;

use super::colour::{gray, jitter_colours};
use super::config::{Crop, Erase, Normalise, Transform};
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

/// Working memory of one thread, and the image between being rendered and being written.
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
            jitter_colours(&mut scratch.square, c, jitter, draws);
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
    // A view of the box, not the resizer's own crop: that one lets pixels outside the box shine in
    // at its border, which Pillow does not.
    let Rect { top, left, height: h, width: w } = rect;
    let part = fir::images::CroppedImage::new(&from, left as u32, top as u32, w as u32, h as u32)
        .expect("the box lies inside the image");
    let mut to = fir::images::Image::from_slice_u8(width as u32, height as u32, out, kind)
        .expect("pixels fill the shape");
    let options =
        fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear));
    resizer.resize(&part, &mut to, &options).expect("both images have the same kind of pixels");
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

#[cfg(test)]
mod tests {
    use engine::Rng;

    use super::*;
    use crate::data::config::Jitter;
    use crate::data::decode::decode;

    fn fixture(name: &str) -> Image {
        let path = format!("{}/tests/data/images/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut image = Image::default();
        decode(&std::fs::read(&path).unwrap(), &mut image).unwrap();
        image
    }

    fn image(h: usize, w: usize, c: usize, pixel: impl Fn(usize, usize, usize) -> u8) -> Image {
        let mut image = Image::default();
        image.reshape(h, w, c);
        for (i, v) in image.pixels.iter_mut().enumerate() {
            *v = pixel(i / (w * c), i / c % w, i % c);
        }
        image
    }

    fn transform(crop: Crop) -> Transform {
        Transform { crop, flip: 0.0, jitter: None, erase: None }
    }

    /// Pixels in 0..255 as they are, with as many channels as `channels`.
    fn plain(channels: usize) -> Normalise {
        Normalise::MeanStd { mean: vec![0.0; channels], std: vec![1.0 / 255.0; channels] }
    }

    fn run(transform: &Transform, normalise: &Normalise, image: &Image, index: u32) -> Vec<f32> {
        let pipeline = Pipeline::new(transform, normalise).unwrap();
        let mut out = vec![f32::NAN; pipeline.len()];
        let mut draws = Rng::new(0, "augment").at(0, 0, index);
        pipeline.apply(image, &mut draws, &mut Scratch::default(), &mut out);
        out
    }

    fn worst(a: &[u8], b: &[u8]) -> u8 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(x, y)| x.abs_diff(*y)).max().unwrap()
    }

    #[test]
    fn resizing_agrees_with_pillow() {
        let source = fixture("source.png");
        let plane = Plane { pixels: &source.pixels, h: source.height, w: source.width, c: 3 };
        let (mut resizer, mut out) = (fir::Resizer::default(), Vec::new());
        let rect = Rect { top: 3, left: 5, height: 30, width: 40 };
        resize(plane, rect, 24, 24, &mut resizer, &mut out);
        assert!(worst(&out, &fixture("crop-5-3-40-30-to-24.png").pixels) <= 1);
        let whole = shorter_side(plane, 32, &mut resizer, &mut out);
        assert_eq!((whole.h, whole.w), (32, 44));
        assert!(worst(whole.pixels, &fixture("whole-to-44x32.png").pixels) <= 1);
    }

    #[test]
    fn resizing_is_linear_interpolation() {
        // Twice as wide: samples at -0.25, 0.25, 0.75, 1.25, ... of the source's pixel centres.
        let source = [0, 100, 200, 40];
        let plane = Plane { pixels: &source, h: 1, w: 4, c: 1 };
        let rect = Rect { top: 0, left: 0, height: 1, width: 4 };
        let mut out = Vec::new();
        resize(plane, rect, 1, 8, &mut fir::Resizer::default(), &mut out);
        assert_eq!(out, [0, 25, 75, 125, 175, 160, 80, 40]);
    }

    #[test]
    fn random_boxes_stay_inside_their_bounds() {
        let (scale, ratio) = ([0.08, 1.0], [0.75, 4.0 / 3.0]);
        let rng = Rng::new(1, "test");
        let (h, w) = (300, 400);
        let mut share = 0.0;
        for i in 0..4000 {
            let r = random_resized_box(h, w, scale, ratio, &mut rng.at(0, 0, i));
            assert!(r.top + r.height <= h && r.left + r.width <= w && r.height > 0 && r.width > 0);
            let (area, aspect) = ((r.height * r.width) as f64, r.width as f64 / r.height as f64);
            // One pixel of rounding on a side of at least 80.
            assert!((0.078..=1.0).contains(&(area / 120_000.0)), "{r:?}");
            assert!((0.74..=1.35).contains(&aspect), "{r:?}");
            share += area / 120_000.0;
        }
        // 0.4334 by an independent simulation (boxes that do not fit are drawn again, which favours
        // small ones); the standard error over 4,000 is 0.0034.
        let mean = share / 4000.0;
        assert!((mean - 0.4334).abs() < 0.017, "{mean}");
    }

    #[test]
    fn a_box_that_never_fits_falls_back_to_the_centre() {
        let mut draws = Rng::new(0, "test").at(0, 0, 0);
        let r = random_resized_box(1, 30_000, [0.5, 1.0], [0.75, 4.0 / 3.0], &mut draws);
        assert_eq!(r, Rect { top: 0, left: 14_999, height: 1, width: 1 });
        let r = random_resized_box(400, 100, [0.9, 1.0], [0.75, 4.0 / 3.0], &mut draws);
        assert_eq!(r, Rect { top: 133, left: 0, height: 133, width: 100 });
    }

    #[test]
    fn pad_and_crop_reaches_every_offset_and_pads_with_black() {
        let source = image(6, 6, 1, |y, x, _| (10 + y * 6 + x) as u8);
        let crop = transform(Crop::PadAndCrop { size: 6, padding: 2 });
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..400 {
            let out = run(&crop, &plain(1), &source, index);
            let matches = |dy: i32, dx: i32| {
                out.iter().enumerate().all(|(i, &v)| {
                    let (y, x) = (i as i32 / 6 + dy, i as i32 % 6 + dx);
                    let inside = (0..6).contains(&y) && (0..6).contains(&x);
                    let expected = if inside { (10 + y * 6 + x) as f32 } else { 0.0 };
                    (v - expected).abs() < 1e-3
                })
            };
            let offsets = (-2..=2).flat_map(|dy| (-2..=2).map(move |dx| (dy, dx)));
            let found: Vec<_> = offsets.filter(|&(dy, dx)| matches(dy, dx)).collect();
            assert_eq!(found.len(), 1);
            seen.insert(found[0]);
        }
        assert_eq!(seen.len(), 25);
    }

    #[test]
    fn the_centre_is_cut_as_in_torchvision() {
        // 9 - 4 = 5 -> 2.5 -> 2 (half to even), 7 - 4 = 3 -> 1.5 -> 2
        let source = image(7, 9, 1, |y, x, _| (y * 9 + x) as u8);
        let cut = run(&transform(Crop::Centre { resize: 7, size: 4 }), &plain(1), &source, 0);
        assert!((cut[0] - (2 * 9 + 2) as f32).abs() < 1e-3);
        assert!((cut[15] - (5 * 9 + 5) as f32).abs() < 1e-3);
    }

    #[test]
    fn long_strips_take_little_memory() {
        let strip = image(1, 30_000, 3, |_, x, _| (x % 251) as u8);
        let crop = transform(Crop::Centre { resize: 256, size: 224 });
        let pipeline = Pipeline::new(&crop, &plain(3)).unwrap();
        let mut scratch = Scratch::default();
        let mut out = vec![0.0; pipeline.len()];
        pipeline.apply(&strip, &mut Rng::new(0, "augment").at(0, 0, 0), &mut scratch, &mut out);
        assert!(scratch.resized.capacity() <= 256 * 256 * 16 * 3);
    }

    #[test]
    fn half_of_the_images_are_mirrored() {
        let source = image(4, 4, 3, |y, x, c| (y * 50 + x * 10 + c) as u8);
        let centre = Crop::Centre { resize: 4, size: 4 };
        let straight = run(&transform(centre), &plain(3), &source, 0);
        let flip = Transform { flip: 0.5, ..transform(centre) };
        let mut mirrored = 0;
        for index in 0..1000 {
            let out = run(&flip, &plain(3), &source, index);
            if out != straight {
                for (row, reference) in out.chunks(12).zip(straight.chunks(12)) {
                    assert!(row.chunks(3).eq(reference.chunks(3).rev()));
                }
                mirrored += 1;
            }
        }
        // Five standard deviations of a fair coin.
        assert!((421..=579).contains(&mirrored), "{mirrored}");
    }

    #[test]
    fn jitter_factors_vary_within_their_range() {
        let source = image(2, 2, 1, |_, _, _| 100);
        let jitter = Jitter { brightness: 0.4, contrast: 0.0, saturation: 0.4 };
        let t = Transform { jitter: Some(jitter), ..transform(Crop::Centre { resize: 2, size: 2 }) };
        let values: Vec<f32> = (0..2000).map(|i| run(&t, &plain(1), &source, i)[0]).collect();
        assert!(values.iter().all(|v| (59.9..=140.1).contains(v)));
        let mean = values.iter().sum::<f32>() / 2000.0;
        // Truncation takes 0.5; five standard errors are 2.6.
        assert!((mean - 99.5).abs() < 2.6, "{mean}");
    }

    #[test]
    fn cutout_removes_a_clipped_square() {
        let rng = Rng::new(0, "test");
        let mut full = 0;
        for i in 0..2000 {
            let r = erase_rect(&Erase::Cutout { size: 16 }, 32, &mut rng.at(0, 0, i)).unwrap();
            assert!(r.top + r.height <= 32 && r.left + r.width <= 32);
            assert!((8..=16).contains(&r.height) && (8..=16).contains(&r.width), "{r:?}");
            full += usize::from(r.height == 16 && r.width == 16);
        }
        // 17 of 32 centres leave a side whole: (17 / 32)^2 = 0.282, five standard deviations 0.05.
        assert!((464..=665).contains(&full), "{full}");
    }

    #[test]
    fn erased_pixels_are_zero_and_others_untouched() {
        let source = image(8, 8, 3, |_, _, _| 200);
        let erase = Erase::Random { probability: 1.0, scale: [0.1, 0.3], ratio: [0.3, 3.3] };
        let t = Transform { erase: Some(erase), ..transform(Crop::Centre { resize: 8, size: 8 }) };
        for index in 0..200 {
            let out = run(&t, &Normalise::Bgr255 {}, &source, index);
            let zeros = out.iter().filter(|&&v| v == 0.0).count();
            assert_eq!(out.iter().filter(|&&v| v == 200.0).count() + zeros, out.len());
            // 0.1 to 0.3 of 64 pixels, with sides rounded.
            assert!((3 * 4..=3 * 26).contains(&zeros), "{zeros}");
        }
        let never = Erase::Random { probability: 0.0, scale: [0.1, 0.3], ratio: [0.3, 3.3] };
        assert_eq!(erase_rect(&never, 8, &mut Rng::new(0, "t").at(0, 0, 0)), None);
    }

    #[test]
    fn pixels_are_normalised_per_channel() {
        let source = image(1, 1, 3, |_, _, c| [255, 51, 0][c]);
        let centre = transform(Crop::Centre { resize: 1, size: 1 });
        let imagenet = Normalise::MeanStd { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
        let out = run(&centre, &imagenet, &source, 0);
        for (v, expected) in out.iter().zip([2.2489, -1.1429, -1.8044]) {
            assert!((v - expected).abs() < 1e-3, "{v} {expected}");
        }
        assert_eq!(run(&centre, &Normalise::Bgr255 {}, &source, 0), [0.0, 51.0, 255.0]);
    }

    #[test]
    fn gray_and_colour_are_converted() {
        let centre = transform(Crop::Centre { resize: 1, size: 1 });
        let dot = image(1, 1, 1, |_, _, _| 77);
        assert_eq!(run(&centre, &Normalise::Bgr255 {}, &dot, 0), [77.0; 3]);
        let colour = image(1, 1, 3, |_, _, c| [100, 150, 200][c]);
        assert!((run(&centre, &plain(1), &colour, 0)[0] - 141.0).abs() < 1e-3);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let good = transform(Crop::RandomResized { size: 4, scale: [0.08, 1.0], ratio: [0.75, 1.33] });
        let jitter = |b| Some(Jitter { brightness: b, contrast: 0.0, saturation: 0.0 });
        let crop = |crop| Transform { crop, ..good.clone() };
        let cases = [
            ("flip", Transform { flip: 1.5, ..good.clone() }, plain(1)),
            ("flip", Transform { flip: f32::NAN, ..good.clone() }, plain(1)),
            ("brightness", Transform { jitter: jitter(-0.1), ..good.clone() }, plain(1)),
            ("size", crop(Crop::Centre { resize: 4, size: 0 }), plain(1)),
            ("resize", crop(Crop::Centre { resize: 3, size: 4 }), plain(1)),
            ("padding", crop(Crop::PadAndCrop { size: 3, padding: usize::MAX }), plain(1)),
            ("scale", crop(Crop::RandomResized { size: 3, scale: [0.5, 0.4], ratio: [1.0; 2] }), plain(1)),
            ("ratio", crop(Crop::RandomResized { size: 3, scale: [0.5; 2], ratio: [0.0, 1.0] }), plain(1)),
            ("erase.size", Transform { erase: Some(Erase::Cutout { size: 0 }), ..good.clone() }, plain(1)),
            ("mean", good.clone(), plain(2)),
            ("std", good.clone(), Normalise::MeanStd { mean: vec![0.5], std: vec![0.0] }),
            ("std", good.clone(), Normalise::MeanStd { mean: vec![0.5], std: vec![0.1; 3] }),
        ];
        for (expected, transform, normalise) in cases {
            match Pipeline::new(&transform, &normalise) {
                Err(Error::Config { key, .. }) => assert_eq!(key, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert!(Pipeline::new(&good, &plain(3)).is_ok());
    }
}
