//! What a data set holds: `monopath data inspect`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{Description, Image, View, guard};

/// Bad records that are named one by one; all are counted.
const MAX_NAMED: usize = 20;

/// Figures over all records of a view. Sums are of integers, so they do not depend on the order.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Where it comes from.
    pub description: Description,
    /// Records looked at.
    pub records: usize,
    /// (name, number of records) of each class.
    pub classes: Vec<(String, usize)>,
    /// (height, width, channels) -> number of records.
    pub sizes: BTreeMap<(usize, usize, usize), usize>,
    /// Records that cannot be decoded.
    pub bad: usize,
    /// (name, error) of the first of them.
    pub named_bad: Vec<(String, String)>,
    /// Records that decode once junk is cut out of the file.
    pub repaired: usize,
    /// Records whose pixels equal those of an earlier one.
    pub duplicates: usize,
    /// Mean per channel over all pixels, in 0..1; one entry if every image is gray, else red,
    /// green, blue (gray images count in all three).
    pub mean: Vec<f64>,
    /// Standard deviation per channel over all pixels, in 0..1.
    pub std: Vec<f64>,
}

/// Decodes every record of `view` with `workers` threads. `done` hears how many were begun.
pub fn inspect(view: &View, workers: usize, done: &(dyn Fn(usize) + Sync)) -> Summary {
    let next = AtomicUsize::new(0);
    let parts: Vec<Part> = std::thread::scope(|scope| {
        let spawn = |_| scope.spawn(|| Part::collect(view, &next, done));
        let threads: Vec<_> = (0..workers.max(1)).map(spawn).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    let dataset = &view.dataset;
    let mut counts = vec![0; dataset.classes().len()];
    view.indices.iter().for_each(|&i| counts[dataset.label(i as usize) as usize] += 1);
    let whole = parts.into_iter().fold(Part::default(), Part::merge);
    let gray = whole.sizes.keys().all(|size| size.2 == 1);
    let moments = &whole.moments[..if gray { 1 } else { 3 }];
    let pixels = whole.pixels.max(1) as f64;
    let mean = |m: &Moments| m.sum as f64 / pixels;
    let variance = |m: &Moments| (m.squares as f64 / pixels - mean(m).powi(2)).max(0.0);
    let mut bad = whole.bad;
    bad.sort_unstable();
    let mut hashes = whole.hashes;
    hashes.sort_unstable();
    Summary {
        description: dataset.describe(),
        records: view.len(),
        classes: dataset.classes().iter().cloned().zip(counts).collect(),
        sizes: whole.sizes,
        bad: bad.len(),
        named_bad: bad
            .into_iter()
            .take(MAX_NAMED)
            .map(|(position, error)| (dataset.name(view.indices[position] as usize), error))
            .collect(),
        repaired: whole.repaired,
        duplicates: hashes.windows(2).filter(|pair| pair[0] == pair[1]).count(),
        mean: moments.iter().map(|m| mean(m) / 255.0).collect(),
        std: moments.iter().map(|m| variance(m).sqrt() / 255.0).collect(),
    }
}

impl Summary {
    /// For machines: the fields by name, sizes as `[height, width, channels, count]`.
    pub fn to_json(&self) -> serde_json::Value {
        let sizes: Vec<_> = self.sizes.iter().map(|(&(h, w, c), n)| json!([h, w, c, n])).collect();
        let bad: Vec<_> = self.named_bad.iter().map(|(n, e)| json!({"record": n, "error": e})).collect();
        json!({
            "format": self.description.format,
            "paths": self.description.paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>(),
            "digest": self.description.digest,
            "records": self.records,
            "classes": self.classes.iter().map(|(c, n)| json!({"name": c, "records": n})).collect::<Vec<_>>(),
            "sizes": sizes,
            "bad": self.bad,
            "named_bad": bad,
            "repaired": self.repaired,
            "duplicates": self.duplicates,
            "mean": self.mean,
            "std": self.std,
        })
    }
}

/// Sum and sum of squares of one channel's bytes.
#[derive(Clone, Copy, Default)]
struct Moments {
    sum: u64,
    squares: u64,
}

/// What one thread has seen.
#[derive(Default)]
struct Part {
    sizes: BTreeMap<(usize, usize, usize), usize>,
    bad: Vec<(usize, String)>,
    repaired: usize,
    hashes: Vec<[u8; 16]>,
    pixels: u64,
    moments: [Moments; 3],
}

impl Part {
    fn collect(view: &View, next: &AtomicUsize, done: &(dyn Fn(usize) + Sync)) -> Self {
        let mut part = Self::default();
        let mut image = Image::default();
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(&index) = view.indices.get(position) else { return part };
            done(position);
            let read =
                guard(&*view.dataset, index as usize, || view.dataset.read(index as usize, &mut image));
            match read {
                Ok(()) => part.add(&image),
                Err(error) => part.bad.push((position, error.to_string())),
            }
        }
    }

    fn add(&mut self, image: &Image) {
        let c = image.channels;
        *self.sizes.entry((image.height, image.width, c)).or_default() += 1;
        self.repaired += usize::from(image.repaired);
        let mut hash = blake3::Hasher::new();
        for side in [image.height, image.width, c] {
            hash.update(&(side as u64).to_le_bytes());
        }
        let hash = hash.update(&image.pixels).finalize();
        self.hashes.push(hash.as_bytes()[..16].try_into().expect("16 of 32 bytes"));
        self.pixels += (image.height * image.width) as u64;
        for (channel, moments) in self.moments.iter_mut().enumerate() {
            for pixel in image.pixels.chunks_exact(c) {
                let value = u64::from(pixel[channel.min(c - 1)]);
                moments.sum += value;
                moments.squares += value * value;
            }
        }
    }

    fn merge(mut self, other: Self) -> Self {
        for (size, n) in other.sizes {
            *self.sizes.entry(size).or_default() += n;
        }
        self.bad.extend(other.bad);
        self.repaired += other.repaired;
        self.hashes.extend(other.hashes);
        self.pixels += other.pixels;
        for (mine, theirs) in self.moments.iter_mut().zip(other.moments) {
            mine.sum += theirs.sum;
            mine.squares += theirs.squares;
        }
        self
    }
}
