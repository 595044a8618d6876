//! Counter-based randomness: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011).
//!
//! A value is a pure function of (run seed, purpose, counter), so order, threads and resuming
//! cannot change it, and there is no state to save. The key is the first 64 bits of
//! BLAKE3(seed, purpose); the counter is (epoch, step, image or element, draw).

/// Position of a draw: (epoch, step, image or element, draw).
pub type Counter = [u32; 4];

/// A stream of random numbers for one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rng {
    key: [u32; 2],
}

impl Rng {
    /// The stream that belongs to `purpose` (for example `"augment"`) in the run with `seed`.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(&seed.to_le_bytes()).update(purpose.as_bytes());
        let bytes = hash.finalize();
        let word =
            |i: usize| u32::from_le_bytes(bytes.as_bytes()[4 * i..4 * i + 4].try_into().expect("4 bytes"));
        Self { key: [word(0), word(1)] }
    }

    /// The two words that key the generator, for kernels that draw the same numbers.
    pub(crate) fn key(&self) -> [u32; 2] {
        self.key
    }

    /// A stream of its own below this one, for example one per layer.
    pub fn fork(&self, purpose: &str) -> Self {
        Self::new(u64::from(self.key[0]) | u64::from(self.key[1]) << 32, purpose)
    }

    /// Four independent 32-bit words at `counter`.
    pub fn words(&self, counter: Counter) -> [u32; 4] {
        philox(counter, self.key)
    }

    /// Uniform in `[0, 1)` with 24 bits: `(word >> 8) * 2^-24`.
    pub fn uniform(&self, counter: Counter) -> f32 {
        unit(self.words(counter)[0])
    }

    /// Four uniforms in `[0, 1)`.
    pub fn uniforms(&self, counter: Counter) -> [f32; 4] {
        self.words(counter).map(unit)
    }

    /// A cursor that hands out draws one after another from `(epoch, step, element, 0..)`.
    pub fn at(&self, epoch: u32, step: u32, element: u32) -> Draws {
        Draws { rng: *self, counter: [epoch, step, element, 0], words: [0; 4], used: 4 }
    }
}

/// Successive draws at one position; see [`Rng::at`].
#[derive(Clone, Debug)]
pub struct Draws {
    rng: Rng,
    counter: Counter,
    words: [u32; 4],
    used: usize,
}

impl Draws {
    /// The next 32-bit word.
    pub fn word(&mut self) -> u32 {
        if self.used == 4 {
            self.words = self.rng.words(self.counter);
            self.counter[3] += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f32 {
        unit(self.word())
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Uniform integer in `0..n`, without modulo bias (Lemire's rejection). `n` must not be 0.
    pub fn below(&mut self, n: u32) -> u32 {
        debug_assert!(n > 0, "below(0) has no answer");
        let floor = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.word()) * u64::from(n);
            if product as u32 >= floor {
                return (product >> 32) as u32;
            }
        }
    }

    /// Standard normal by Box-Muller in f64 (host only: libm decides the last bits).
    pub fn normal(&mut self) -> f32 {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - f64::from(self.uniform())).ln()).sqrt();
        let angle = 2.0 * std::f64::consts::PI * f64::from(self.uniform());
        (radius * angle.cos()) as f32
    }

    /// A uniformly random order of `0..n` (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u32 + 1) as usize);
        }
        order
    }
}

fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

fn philox(mut counter: Counter, mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random123's `kat_vectors` for philox4x32-10.
    #[test]
    fn known_answers_of_random123() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn purposes_and_seeds_separate_streams() {
        let a = Rng::new(0, "init").words([0; 4]);
        assert_ne!(a, Rng::new(0, "augment").words([0; 4]));
        assert_ne!(a, Rng::new(1, "init").words([0; 4]));
        assert_eq!(a, Rng::new(0, "init").words([0; 4]));
    }

    #[test]
    fn integers_are_unbiased_within_five_sigma() {
        let (n, draws) = (7u32, 70_000);
        let mut counts = [0f64; 7];
        let mut cursor = Rng::new(3, "test").at(0, 0, 0);
        (0..draws).for_each(|_| counts[cursor.below(n) as usize] += 1.0);
        let mean = f64::from(draws) / f64::from(n);
        assert!(counts.iter().all(|c| (c - mean).abs() < 5.0 * mean.sqrt()), "{counts:?}");
    }

    #[test]
    fn normals_have_unit_variance() {
        let mut cursor = Rng::new(4, "test").at(0, 0, 0);
        let values: Vec<f64> = (0..100_000).map(|_| f64::from(cursor.normal())).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Rng::new(5, "test").at(1, 0, 0).permutation(257);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &v)| i == v as usize));
    }
}
