//! Augmentation against the steps of the CPU's pipeline, byte for byte.

use half::bf16;
use kernels::augment::{Augment, Plan, Position, Settings, Step};
use kernels::{Input, Output};

use crate::dropout::{philox, uniform};
use crate::harness::{Counted, Gpu, Number, dtype};

/// Successive draws at a position.
struct Draws {
    key: [u32; 2],
    counter: [u32; 4],
    used: usize,
}

impl Draws {
    fn word(&mut self) -> u32 {
        let words = philox(self.counter, self.key);
        let word = words[self.used];
        self.used += 1;
        if self.used == 4 {
            self.used = 0;
            self.counter[3] += 1;
        }
        word
    }

    fn uniform(&mut self) -> f32 {
        uniform(self.word())
    }

    fn below(&mut self, n: u32) -> usize {
        let floor = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.word()) * u64::from(n);
            if product as u32 >= floor {
                return (product >> 32) as usize;
            }
        }
    }
}

fn plan(s: &Settings, at: Position, index: u32) -> Plan {
    let mut draws = Draws { key: at.key, counter: [at.epoch, 0, index, 0], used: 0 };
    let drawn = || s.source.map(|side| draws.below((side + 2 * s.padding - s.size + 1) as u32));
    let mut p = Plan { corner: s.corner.unwrap_or_else(drawn), ..Plan::default() };
    p.flip = draws.uniform() < s.flip;
    if let Some(jitter) = s.jitter {
        let mut order = [Step::Brightness, Step::Contrast, Step::Saturation];
        for i in [2, 1] {
            order.swap(i, draws.below(i as u32 + 1));
        }
        for (factor, x) in p.factors.iter_mut().zip(jitter) {
            let (low, high) = ((1.0 - x).max(0.0), 1.0 + x);
            *factor = low + (high - low) * draws.uniform();
        }
        p.steps = order.map(|step| Some(step).filter(|step| jitter[*step as usize] > 0.0));
    }
    if s.cutout > 0 {
        for axis in 0..2 {
            let centre = draws.below(s.size as u32);
            let start = centre.saturating_sub(s.cutout / 2);
            p.erase[axis] = start;
            p.erase[2 + axis] = (centre + s.cutout - s.cutout / 2).min(s.size) - start;
        }
    }
    p
}

fn gray(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16) as u8
}

fn blend(base: u8, value: u8, factor: f32) -> u8 {
    (f32::from(base) + factor * (f32::from(value) - f32::from(base))) as u8
}

/// One image `[h, w, from]` to floats `[size, size, channels]`.
fn image(s: &Settings, p: &Plan, source: &[u8], table: &[f32]) -> Vec<f32> {
    let to_gray = s.from == 3 && s.channels == 1;
    let c = if to_gray { 1 } else { s.from };
    let mut square = vec![0u8; s.size * s.size * c];
    for (i, pixel) in square.chunks_mut(c).enumerate() {
        let row = (p.corner[0] + i / s.size).wrapping_sub(s.padding);
        let column = (p.corner[1] + i % s.size).wrapping_sub(s.padding);
        if row < s.source[0] && column < s.source[1] {
            let from = &source[(row * s.source[1] + column) * s.from..][..s.from];
            if to_gray { pixel[0] = gray(from) } else { pixel.copy_from_slice(from) }
        }
    }
    for step in p.steps.into_iter().flatten() {
        let factor = p.factors[step as usize];
        let level = |pixel: &[u8]| if c == 3 { gray(pixel) } else { pixel[0] };
        let sum: u64 = square.chunks(c).map(|pixel| u64::from(level(pixel))).sum();
        let mean = (sum as f64 / (s.size * s.size) as f64 + 0.5) as u8;
        for pixel in square.chunks_mut(c) {
            let base = match step {
                Step::Brightness => 0,
                Step::Contrast => mean,
                Step::Saturation if c == 3 => gray(pixel),
                Step::Saturation => continue,
            };
            pixel.iter_mut().for_each(|v| *v = blend(base, *v, factor));
        }
    }
    let mut out = vec![0.0; s.size * s.size * s.channels];
    let [top, left, height, width] = p.erase;
    for (i, out) in out.chunks_mut(s.channels).enumerate() {
        let (y, x) = (i / s.size, i % s.size);
        if (top..top + height).contains(&y) && (left..left + width).contains(&x) {
            continue;
        }
        let from = y * s.size + if p.flip { s.size - 1 - x } else { x };
        for (k, out) in out.iter_mut().enumerate() {
            let source = if c == 1 { 0 } else { s.order[k] };
            *out = table[k * 256 + usize::from(square[from * c + source])];
        }
    }
    out
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn table(s: &Settings, bgr: bool) -> Vec<f32> {
    let (mean, std) = ([0.485f32, 0.456, 0.406], [0.229f32, 0.224, 0.225]);
    let of = |k: usize, v: usize| if bgr { v as f32 } else { (v as f32 / 255.0 - mean[k]) / std[k] };
    (0..s.channels * 256).map(|i| of(i / 256, i % 256)).collect()
}

/// Plans drawn on the device and plans of the host.
fn every<T: Number>(g: &Gpu, s: Settings, bgr: bool, drawn: bool) {
    let at = Position { key: [3, 5], epoch: 4 };
    let (each, stream) = (s.source[0] * s.source[1] * s.from, &g.stream);
    let (sources, table) = (bytes(s.images * each), table(&s, bgr));
    let indices: Vec<i32> = (0..s.images as i32).map(|i| 17 * i + 3).collect();
    let mut plans: Vec<Plan> = indices.iter().map(|i| plan(&s, at, *i as u32)).collect();
    if !drawn {
        plans.iter_mut().for_each(|p| p.erase = [1, 2, 2, 1]);
    }
    let (d_sources, d_table, d_indices) = (g.upload(&sources), g.upload(&table), g.upload(&indices));
    let op = Augment::new(&g.device, s, dtype::<T>()).expect("it is there");
    let words: Vec<i32> = plans.iter().flat_map(|p| p.words()).collect();
    let mut d_plans = if drawn { g.empty::<i32>(words.len()) } else { g.upload(&words) };
    if drawn {
        let out = Output::new(&mut d_plans, stream);
        op.plan(stream, at, Input::new(&d_indices, stream), out).expect("it launches");
        assert_eq!(stream.clone_dtoh(&d_plans).expect("they were written"), words, "{s:?}");
    }
    if s.jitter.is_some() {
        let out = Output::new(&mut d_plans, stream);
        op.contrast(stream, Input::new(&d_sources, stream), out).expect("it launches");
    }
    let mut y = g.empty::<T>(s.images * s.size * s.size * s.channels);
    let (images, plan_in) = (Input::new(&d_sources, stream), Input::new(&d_plans, stream));
    op.pixels(stream, images, plan_in, Input::new(&d_table, stream), Output::new(&mut y, stream))
        .expect("it launches");
    let want: Vec<f32> = plans
        .iter()
        .enumerate()
        .flat_map(|(i, p)| image(&s, p, &sources[i * each..][..each], &table))
        .collect();
    for (i, (got, want)) in g.download(&y).into_iter().zip(want).enumerate() {
        assert_eq!(got.f64(), T::nearest(want).f64(), "{s:?}, element {i}");
    }
}

const CIFAR: Settings = Settings {
    images: 7,
    source: [12, 12],
    from: 3,
    size: 12,
    channels: 3,
    order: [0, 1, 2],
    padding: 4,
    corner: None,
    flip: 0.5,
    jitter: None,
    cutout: 0,
};

const JITTER: Option<[f32; 3]> = Some([0.4, 0.4, 0.4]);

on_device!(crops_and_mirrors_as_the_cpu, |g| {
    every::<f32>(g, CIFAR, false, true);
    every::<bf16>(g, Settings { cutout: 5, ..CIFAR }, false, true);
    every::<f32>(g, Settings { from: 1, channels: 1, ..CIFAR }, false, true);
    every::<f32>(g, Settings { from: 1, ..CIFAR }, true, true);
    every::<f32>(g, Settings { channels: 1, ..CIFAR }, false, true);
});

on_device!(centres_are_not_drawn, |g| {
    let centre = Settings { padding: 0, size: 9, source: [10, 13], corner: Some([1, 2]), flip: 0.0, ..CIFAR };
    every::<f32>(g, Settings { order: [2, 1, 0], ..centre }, true, true);
    every::<f32>(g, centre, false, true);
});

on_device!(colours_change_as_the_cpus, |g| {
    every::<f32>(g, Settings { images: 12, jitter: JITTER, ..CIFAR }, true, true);
    every::<f32>(g, Settings { jitter: Some([0.0, 2.0, 0.0]), cutout: 4, ..CIFAR }, true, true);
    every::<f32>(g, Settings { jitter: Some([0.0; 3]), ..CIFAR }, false, true);
    every::<f32>(g, Settings { channels: 1, jitter: JITTER, ..CIFAR }, true, true);
    every::<f32>(g, Settings { from: 1, jitter: JITTER, ..CIFAR }, true, true);
});

on_device!(plans_of_the_host_are_followed, |g| {
    every::<f32>(g, Settings { jitter: JITTER, ..CIFAR }, false, false);
});

on_device!(settings_out_of_range_are_refused, |g| {
    for (s, part) in [
        (Settings { size: 40, ..CIFAR }, "size is 40, expected at most the padded source"),
        (Settings { channels: 2, ..CIFAR }, "channels is 2"),
        (Settings { flip: 1.5, ..CIFAR }, "flip is 1.5"),
        (Settings { corner: Some([0, 9]), ..CIFAR }, "corner is 9"),
        (Settings { order: [0, 1, 3], ..CIFAR }, "source of a channel is 3"),
        (Settings { jitter: Some([f32::NAN, 0.0, 0.0]), ..CIFAR }, "jitter is NaN"),
    ] {
        let why = Augment::new(&g.device, s, dtype::<f32>()).expect_err("out of range").to_string();
        assert!(why.contains(part), "{why}");
    }
    g.download(&g.upload(&[0f32]));
});

/// As many pixels as a block takes.
const COST: Settings = Settings { images: 2, source: [45, 45], size: 45, ..CIFAR };

pub const COUNTED: [Counted; 1] = [Counted {
    case: "crop, mirror, jitter, normalise, per pixel",
    elements: 2 * 45 * 45,
    most: &[("augment_f32", 260.0), ("augment_contrast", 60.0)],
    body: |g| every::<f32>(g, Settings { jitter: JITTER, ..COST }, false, true),
}];
