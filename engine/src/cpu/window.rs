//! Depthwise windows over planes of sixteen channels, `[pixel][16]`, whose borders are part of the
//! plane: no loop knows an edge.

use super::blocked::Row;
use super::simd::{self, LANES, Loop, Simd};

/// Output pixels that share a load of the filter, with and without FMA.
const PIXELS_FMA: usize = 6;
const PIXELS: usize = 2;
/// Widths of a filter for which the loop over its columns is unrolled.
const WIDEST: usize = 7;

/// `to[y, x] = sum over taps of plane[y * step + ky, x * step + kx] * filter[ky, kx]`.
pub struct Correlation<'a> {
    /// From the first pixel of the first window on.
    pub plane: &'a [Row],
    /// Pixels between rows of the plane.
    pub pitch: usize,
    /// Pixels between windows: 1 or 2.
    pub step: usize,
    /// `[ky * kx]`.
    pub filter: &'a [Row],
    /// Rows and columns of the filter.
    pub taps: [usize; 2],
    /// From the first output on.
    pub to: &'a mut [Row],
    /// Pixels between rows and columns of the output.
    pub to_pitch: [usize; 2],
    /// Rows and columns of the output.
    pub size: [usize; 2],
}

impl Correlation<'_> {
    /// Computes it.
    ///
    /// # Panics
    /// If a slice is too short for the sizes.
    pub fn run(self) {
        if self.size.contains(&0) {
            return;
        }
        assert!(self.step == 1 || self.step == 2);
        let far = |pitch: usize, step: usize, [h, w]: [usize; 2]| (h - 1) * pitch + (w - 1) * step;
        let window = far(self.pitch, 1, self.taps);
        assert!(far(self.pitch * self.step, self.step, self.size) + window < self.plane.len(), "plane");
        assert!(far(self.to_pitch[0], self.to_pitch[1], self.size) < self.to.len(), "output");
        assert!(self.taps[0] * self.taps[1] <= self.filter.len(), "filter");
        if self.step == 1 { simd::run(Steps::<1>(self)) } else { simd::run(Steps::<2>(self)) }
    }
}

struct Steps<'a, const STEP: usize>(Correlation<'a>);

impl<const STEP: usize> Loop for Steps<'_, STEP> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        match self.0.taps[1] {
            1 => self.rows::<1, S>(s),
            2 => self.rows::<2, S>(s),
            3 => self.rows::<3, S>(s),
            4 => self.rows::<4, S>(s),
            5 => self.rows::<5, S>(s),
            7 => self.rows::<7, S>(s),
            _ => self.rows::<0, S>(s),
        }
    }
}

impl<const STEP: usize> Steps<'_, STEP> {
    #[inline(always)]
    fn rows<const KX: usize, S: Simd>(&mut self, s: S) {
        let most = if S::FMA { PIXELS_FMA } else { PIXELS };
        let [h, w] = self.0.size;
        let tiles = w.div_ceil(most);
        for y in 0..h {
            let mut x = 0;
            // Even tiles: a last tile of one pixel would wait for its own sums.
            for tile in 0..tiles {
                let pixels = (w - x).div_ceil(tiles - tile);
                match pixels {
                    1 => self.tile::<KX, 1, S>(s, y, x),
                    2 => self.tile::<KX, 2, S>(s, y, x),
                    3 if S::FMA => self.tile::<KX, 3, S>(s, y, x),
                    4 if S::FMA => self.tile::<KX, 4, S>(s, y, x),
                    5 if S::FMA => self.tile::<KX, 5, S>(s, y, x),
                    6 if S::FMA => self.tile::<KX, 6, S>(s, y, x),
                    _ => unreachable!("a tile has at most {PIXELS_FMA} pixels"),
                }
                x += pixels;
            }
        }
    }

    #[inline(always)]
    fn tile<const KX: usize, const P: usize, S: Simd>(&mut self, s: S, y: usize, x: usize) {
        let work = &mut self.0;
        let columns = if KX == 0 { work.taps[1] } else { KX };
        let mut sums = [[s.splat(0.0); 2]; P];
        // SAFETY: `Correlation::run` checked the last window's last tap, the filter's length, and
        // the last output; a row is two vectors.
        unsafe {
            let mut filter = work.filter.as_ptr().cast::<f32>();
            let mut row = work.plane.as_ptr().add((y * work.pitch + x) * STEP).cast::<f32>();
            for _ in 0..work.taps[0] {
                for kx in 0..columns {
                    let w = [s.load(filter), s.load(filter.add(LANES))];
                    filter = filter.add(2 * LANES);
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let x = row.add((p * STEP + kx) * 2 * LANES);
                        *sums = [s.fma(s.load(x), w[0], sums[0]), s.fma(s.load(x.add(LANES)), w[1], sums[1])];
                    }
                }
                row = row.add(work.pitch * 2 * LANES);
            }
            let to = work.to.as_mut_ptr().add(y * work.to_pitch[0] + x * work.to_pitch[1]);
            for (p, sums) in sums.iter().enumerate() {
                let to = to.add(p * work.to_pitch[1]).cast::<f32>();
                s.store(to, sums[0]);
                s.store(to.add(LANES), sums[1]);
            }
        }
    }
}

/// `sums[ky, kx] = sum over outputs of plane[y * step + ky, x * step + kx] * gradient[y, x]`.
pub struct FilterGradient<'a> {
    /// From the first pixel of the first window on.
    pub plane: &'a [Row],
    /// Pixels between rows of the plane.
    pub pitch: usize,
    /// Pixels between windows.
    pub step: usize,
    /// From the first output on.
    pub gradient: &'a [Row],
    /// Pixels between rows of the gradient.
    pub gradient_pitch: usize,
    /// Rows and columns of the gradient.
    pub size: [usize; 2],
    /// Rows and columns of the filter.
    pub k: usize,
    /// `[k * k]`.
    pub sums: &'a mut [Row],
}

impl FilterGradient<'_> {
    /// Computes it.
    ///
    /// # Panics
    /// If a slice is too short for the sizes.
    pub fn run(self) {
        let [h, w] = self.size;
        assert!(h > 0 && w > 0 && self.k > 0);
        let last = ((h - 1) * self.pitch + w - 1) * self.step + (self.k - 1) * (self.pitch + 1);
        assert!(last < self.plane.len() && (h - 1) * self.gradient_pitch + w <= self.gradient.len());
        assert!(self.k * self.k <= self.sums.len());
        simd::run(self);
    }
}

impl Loop for FilterGradient<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let k = self.k;
        if k == 3 && S::FMA {
            self.group::<3, 2, S>(s, 0, 0);
            self.group::<3, 1, S>(s, 2, 0);
            return;
        }
        let most = if S::FMA { WIDEST } else { 1 };
        let groups = k.div_ceil(most);
        for ky in 0..k {
            let mut kx = 0;
            for group in 0..groups {
                let count = (k - kx).div_ceil(groups - group);
                match count {
                    1 => self.group::<1, 1, S>(s, ky, kx),
                    2 if S::FMA => self.group::<2, 1, S>(s, ky, kx),
                    3 if S::FMA => self.group::<3, 1, S>(s, ky, kx),
                    4 if S::FMA => self.group::<4, 1, S>(s, ky, kx),
                    5 if S::FMA => self.group::<5, 1, S>(s, ky, kx),
                    6 if S::FMA => self.group::<6, 1, S>(s, ky, kx),
                    7 if S::FMA => self.group::<7, 1, S>(s, ky, kx),
                    _ => unreachable!("a group has at most {WIDEST} taps"),
                }
                kx += count;
            }
        }
    }
}

impl FilterGradient<'_> {
    /// `T` neighbouring taps of `R` rows of the filter, with all sums in registers.
    #[inline(always)]
    fn group<const T: usize, const R: usize, S: Simd>(&mut self, s: S, ky: usize, kx: usize) {
        let [h, w] = self.size;
        let mut sums = [[[s.splat(0.0); 2]; T]; R];
        for y in 0..h {
            // SAFETY: `FilterGradient::run` checked the last window's last tap and the gradient.
            unsafe {
                let mut dy = self.gradient.as_ptr().add(y * self.gradient_pitch).cast::<f32>();
                let start = (y * self.step + ky) * self.pitch + kx;
                let mut x = self.plane.as_ptr().add(start).cast::<f32>();
                for _ in 0..w {
                    let d = [s.load(dy), s.load(dy.add(LANES))];
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (t, sums) in sums.iter_mut().enumerate() {
                            let x = x.wrapping_add((r * self.pitch + t) * 2 * LANES);
                            *sums =
                                [s.fma(s.load(x), d[0], sums[0]), s.fma(s.load(x.add(LANES)), d[1], sums[1])];
                        }
                    }
                    dy = dy.wrapping_add(2 * LANES);
                    x = x.wrapping_add(self.step * 2 * LANES);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let first = (ky + r) * self.k + kx;
            for (to, sums) in self.sums[first..first + T].iter_mut().zip(sums) {
                to[..LANES].copy_from_slice(&s.array(sums[0]));
                to[LANES..].copy_from_slice(&s.array(sums[1]));
            }
        }
    }
}
