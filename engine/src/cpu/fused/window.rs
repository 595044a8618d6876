//! The depthwise convolution and both its gradients on padded scratch planes `[y][x][16]`.
//!
//! A plane holds one channel block of one image, or a band of its rows with what windows reach
//! beyond; borders are zeros, so there is no edge code. With stride 2 the input's gradient falls
//! into four classes of pixels by parity, each a dense convolution with a part of the filter.

use std::marker::PhantomData;

use super::curve::Curve;
use super::strip::{Affine, BLOCK, load, store};
use crate::cpu::simd::{Loop, Simd};

/// Where one row of a plane comes from.
pub trait RowSource {
    /// Writes row `y` into `to [w][16]`.
    fn row<S: Simd>(&self, s: S, y: usize, to: &mut [f32]);
}

/// Fills a scratch plane from rows `first..` of a plane of `size`; zeros outside.
pub struct Fill<'a, R> {
    /// The rows.
    pub source: R,
    /// Height and width of what the source has.
    pub size: [usize; 2],
    /// Row of the source that is the scratch plane's first; above the source if negative.
    pub first: isize,
    /// Zeros on the left; on the right they fill the row.
    pub margin: usize,
    /// Pixels of a row of the scratch plane.
    pub columns: usize,
    /// `[rows][columns][16]`.
    pub plane: &'a mut [f32],
}

impl<R: RowSource> Loop for Fill<'_, R> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [h, w] = self.size;
        let (left, row) = (self.margin, self.columns * BLOCK);
        for (y, to) in self.plane.chunks_exact_mut(row).enumerate() {
            let from = self.first + y as isize;
            if from < 0 || from as usize >= h {
                to.fill(0.0);
                continue;
            }
            let from = from as usize;
            to[..left * BLOCK].fill(0.0);
            to[(left + w) * BLOCK..].fill(0.0);
            self.source.row(s, from, &mut to[left * BLOCK..(left + w) * BLOCK]);
        }
    }
}

/// `act(norm(h))`.
pub struct Activated<'a, C> {
    /// `[h, w, 16]`.
    pub h: &'a [f32],
    /// The batch norm.
    pub norm: Affine<'a>,
    /// The activation.
    pub curve: PhantomData<C>,
}

impl<C: Curve> RowSource for Activated<'_, C> {
    #[inline(always)]
    fn row<S: Simd>(&self, s: S, y: usize, to: &mut [f32]) {
        let h = &self.h[y * to.len()..(y + 1) * to.len()];
        for unit in (0..BLOCK).step_by(S::WIDE) {
            let [scale, shift] = self.norm.load(s, unit);
            for (h, to) in h.chunks_exact(BLOCK).zip(to.chunks_exact_mut(BLOCK)) {
                store(s, to, unit, C::value(s, s.wfma(load(s, h, unit), scale, shift)));
            }
        }
    }
}

/// Up to 16 channels of an NHWC image as they are.
pub struct Channels<'a> {
    /// `[h, w, c]`.
    pub x: &'a [f32],
    /// Channels of the image.
    pub c: usize,
    /// The first that is read.
    pub first: usize,
}

impl RowSource for Channels<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _s: S, y: usize, to: &mut [f32]) {
        let width = BLOCK.min(self.c - self.first);
        let row = to.len() / BLOCK * self.c;
        let pixels = self.x[y * row..(y + 1) * row].chunks_exact(self.c);
        for (to, x) in to.chunks_exact_mut(BLOCK).zip(pixels) {
            to[..width].copy_from_slice(&x[self.first..self.first + width]);
            to[width..].fill(0.0);
        }
    }
}

/// The gradient before the second batch norm: `(d k[0] + k[1]) act'(u) + h k[2] + k[3]`.
pub struct Downward<'a, C> {
    /// Gradient of the gated activation `[h, w, 16]`.
    pub d: &'a [f32],
    /// The raw tensor `[h, w, 16]`.
    pub h: &'a [f32],
    /// The batch norm.
    pub norm: Affine<'a>,
    /// Four times `[16]`.
    pub k: [&'a [f32]; 4],
    /// The activation.
    pub curve: PhantomData<C>,
}

impl<C: Curve> RowSource for Downward<'_, C> {
    #[inline(always)]
    fn row<S: Simd>(&self, s: S, y: usize, to: &mut [f32]) {
        let range = y * to.len()..(y + 1) * to.len();
        let (d, h) = (&self.d[range.clone()], &self.h[range]);
        for unit in (0..BLOCK).step_by(S::WIDE) {
            let [scale, shift] = self.norm.load(s, unit);
            let k = self.k.map(|k| load(s, k, unit));
            let rows = d.chunks_exact(BLOCK).zip(h.chunks_exact(BLOCK)).zip(to.chunks_exact_mut(BLOCK));
            for ((d, h), to) in rows {
                let h = load(s, h, unit);
                let slope = C::both(s, s.wfma(h, scale, shift)).1;
                let gated = s.wfma(load(s, d, unit), k[0], k[1]);
                store(s, to, unit, s.wfma(gated, slope, s.wfma(h, k[2], k[3])));
            }
        }
    }
}

/// A scratch plane that windows read.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    /// `[rows][columns][16]`.
    pub data: &'a [f32],
    /// Pixels of a row.
    pub columns: usize,
}

/// A filter `[height][width][16]`.
#[derive(Clone, Copy)]
pub struct Taps<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Rows and columns.
    pub size: [usize; 2],
}

/// Planes to ask for while windows are computed: what the next ones read and write. Nothing if null.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// Where they begin.
    pub from: [*const f32; 2],
    /// Cache lines for each pixel of the output.
    pub lines: [usize; 2],
}

impl Ahead {
    /// Asks for the lines of `count` pixels from pixel `at`: of the plane that this half of the
    /// channels is to ask for.
    #[inline(always)]
    fn ask<S: Simd>(self, s: S, unit: usize, at: usize, count: usize) {
        let planes = if S::WIDE == BLOCK { 0..2 } else { unit / S::WIDE % 2..unit / S::WIDE % 2 + 1 };
        for plane in planes {
            let (from, lines) = (self.from[plane], self.lines[plane]);
            for line in at * lines..(at + count) * lines {
                s.prefetch_far(from.wrapping_add(line * BLOCK));
            }
        }
    }
}

/// `to[x * step_to] = sum over taps of plane[y, from + x * STEP + ...]` for one row of `count`
/// windows whose first begins at element `from`.
#[inline(always)]
fn convolve<const STEP: usize, S: Simd>(
    s: S,
    plane: Plane<'_>,
    from: usize,
    taps: Taps<'_>,
    count: usize,
    (to, step_to): (&mut [f32], usize),
    ahead: (Ahead, usize),
) {
    /// Most windows of a tile: with the filter's tap and an operand in memory it fits 16 registers.
    const MOST: usize = 8;
    let [high, wide] = taps.size;
    let end = from + ((high - 1) * plane.columns + (count - 1) * STEP + wide) * BLOCK;
    assert!(high * wide > 0 && end <= plane.data.len() && high * wide * BLOCK <= taps.data.len());
    assert!(((count - 1) * step_to + 1) * BLOCK <= to.len());
    for unit in (0..BLOCK).step_by(S::WIDE) {
        let mut x = 0;
        while x < count {
            let pixels = match count - x {
                left @ ..=MOST => left,
                // Two even tiles: a last tile of one pixel would wait for its own sums.
                left @ ..16 => left.div_ceil(2),
                _ => MOST,
            };
            ahead.0.ask(s, unit, ahead.1 + x, pixels);
            // SAFETY: the last window's last tap, the filter and the last pixel were checked above.
            unsafe {
                let from = plane.data.as_ptr().add(from + x * STEP * BLOCK + unit);
                let taps_at = taps.data.as_ptr().add(unit);
                let to = to.as_mut_ptr().add(x * step_to * BLOCK + unit);
                let row = plane.columns * BLOCK;
                macro_rules! tile {
                    ($n:literal) => {
                        tile::<$n, STEP, S>(s, from, row, taps_at, taps.size, to, step_to * BLOCK)
                    };
                }
                match pixels {
                    1 => tile!(1),
                    2 => tile!(2),
                    3 => tile!(3),
                    4 => tile!(4),
                    5 => tile!(5),
                    6 => tile!(6),
                    7 => tile!(7),
                    _ => tile!(8),
                }
            }
            x += pixels;
        }
    }
}

/// `N` windows, one wide vector each.
///
/// # Safety
/// All taps of all windows, the filter and the `N` results are inside their slices.
#[inline(always)]
unsafe fn tile<const N: usize, const STEP: usize, S: Simd>(
    s: S,
    from: *const f32,
    row: usize,
    taps: *const f32,
    [high, wide]: [usize; 2],
    to: *mut f32,
    step_to: usize,
) {
    let mut sums = [s.wsplat(0.0); N];
    // SAFETY: the caller's promise.
    unsafe {
        let mut tap = taps;
        for y in 0..high {
            let mut at = from.add(y * row);
            for _ in 0..wide {
                let w = s.wload(tap);
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = s.wfma(s.wload(at.add(n * STEP * BLOCK)), w, *sum);
                }
                tap = tap.add(BLOCK);
                at = at.add(BLOCK);
            }
        }
        for (n, sum) in sums.into_iter().enumerate() {
            s.wstore(to.add(n * step_to), sum);
        }
    }
}

/// Rows of the convolution into `to [rows][w][16]`, and their moments about the first pixel
/// into `sums [2, 16]`.
pub struct Forward<'a> {
    /// The padded input; its first row is what the first output's window begins with.
    pub plane: Plane<'a>,
    /// The filter.
    pub taps: Taps<'a>,
    /// 1 or 2.
    pub stride: usize,
    /// Output pixels of a row.
    pub w: usize,
    /// The output.
    pub to: &'a mut [f32],
    /// Its moments.
    pub sums: &'a mut [f32],
    /// What follows.
    pub ahead: Ahead,
}

impl Loop for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { plane, taps, stride, w, to, sums, ahead } = self;
        sums.fill(0.0);
        let mut center = [0.0; BLOCK];
        for (y, to) in to.chunks_exact_mut(w * BLOCK).enumerate() {
            let from = y * stride * plane.columns * BLOCK;
            if stride == 1 {
                convolve::<1, S>(s, plane, from, taps, w, (to, 1), (ahead, y * w));
            } else {
                convolve::<2, S>(s, plane, from, taps, w, (to, 1), (ahead, y * w));
            }
            if y == 0 {
                center.copy_from_slice(&to[..BLOCK]);
            }
            for unit in (0..BLOCK).step_by(S::WIDE) {
                let center = load(s, &center, unit);
                let (mut first, mut second) = ([s.wsplat(0.0); 2], [s.wsplat(0.0); 2]);
                let mut pairs = to.chunks_exact(2 * BLOCK);
                for pair in pairs.by_ref() {
                    for chain in 0..2 {
                        let d = s.wsub(load(s, pair, chain * BLOCK + unit), center);
                        first[chain] = s.wadd(first[chain], d);
                        second[chain] = s.wfma(d, d, second[chain]);
                    }
                }
                if let Some(last) = pairs.remainder().chunks_exact(BLOCK).next() {
                    let d = s.wsub(load(s, last, unit), center);
                    first[0] = s.wadd(first[0], d);
                    second[0] = s.wfma(d, d, second[0]);
                }
                for (at, part) in [first, second].into_iter().enumerate() {
                    let old = load(s, sums, at * BLOCK + unit);
                    store(s, sums, at * BLOCK + unit, s.wadd(old, s.wadd(part[0], part[1])));
                }
            }
        }
    }
}

/// What turns the activation's gradient into `dU1`, and its sums `[du, du (h - mean)]`.
pub struct Slope<'a> {
    /// The raw tensor before the convolution, rows as in the output.
    pub h: &'a [f32],
    /// The first batch norm.
    pub norm: Affine<'a>,
    /// `[16]`.
    pub mean: &'a [f32],
    /// `[2, 16]`, added to.
    pub sums: &'a mut [f32],
}

/// Rows `first..` of the input's gradient, times the activation's slope.
pub struct Backward<'a, C> {
    /// The padded gradient of the output.
    pub plane: Plane<'a>,
    /// Its margin on the left, and the row of the gradient that is its first row.
    pub origin: [isize; 2],
    /// Reversed filters by the parity of `y + pad` and `x + pad`; with stride 1 the first alone.
    pub taps: [[Taps<'a>; 2]; 2],
    /// 1 or 2.
    pub stride: usize,
    /// Zeros around the input.
    pub pad: usize,
    /// Pixels of an input row.
    pub w: usize,
    /// The first input row.
    pub first: usize,
    /// `[rows][w][16]`.
    pub to: &'a mut [f32],
    /// Without it the gradient is left as it is.
    pub slope: Option<Slope<'a>>,
    /// What follows.
    pub ahead: Ahead,
    /// The activation.
    pub curve: PhantomData<C>,
}

impl<C: Curve> Loop for Backward<'_, C> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (w, pad) = (self.w, self.pad);
        for (at, to) in self.to.chunks_exact_mut(w * BLOCK).enumerate() {
            let y = self.first + at;
            if self.stride == 1 {
                let row = y as isize - pad as isize - self.origin[1];
                let column = self.origin[0] - pad as isize;
                let from = (row as usize * self.plane.columns + column as usize) * BLOCK;
                convolve::<1, S>(s, self.plane, from, self.taps[0][0], w, (to, 1), (self.ahead, at * w));
            } else {
                let taps = self.taps[(y + pad) % 2];
                for (parity, taps) in taps.into_iter().enumerate() {
                    // The first pixel whose x + pad has this parity.
                    let x = (parity + pad) % 2;
                    if x >= w {
                        continue;
                    }
                    let count = (w - x).div_ceil(2);
                    if taps.size[0] * taps.size[1] == 0 {
                        // A window of one tap never touches these pixels.
                        to[x * BLOCK..].chunks_mut(2 * BLOCK).for_each(|pixel| pixel[..BLOCK].fill(0.0));
                        continue;
                    }
                    let row = ((y + pad) / 2) as isize - (taps.size[0] as isize - 1) - self.origin[1];
                    let column = ((x + pad) / 2) as isize - (taps.size[1] as isize - 1) + self.origin[0];
                    let from = (row as usize * self.plane.columns + column as usize) * BLOCK;
                    convolve::<1, S>(
                        s,
                        self.plane,
                        from,
                        taps,
                        count,
                        (&mut to[x * BLOCK..], 2),
                        (self.ahead, at * w + parity * count),
                    );
                }
            }
            let Some(slope) = &mut self.slope else { continue };
            let h = &slope.h[at * w * BLOCK..(at + 1) * w * BLOCK];
            for unit in (0..BLOCK).step_by(S::WIDE) {
                let [scale, shift] = slope.norm.load(s, unit);
                let mean = load(s, slope.mean, unit);
                let mut sums = [s.wsplat(0.0); 2];
                for (h, to) in h.chunks_exact(BLOCK).zip(to.chunks_exact_mut(BLOCK)) {
                    let h = load(s, h, unit);
                    let factor = C::both(s, s.wfma(h, scale, shift)).1;
                    let du = s.wmul(load(s, to, unit), factor);
                    store(s, to, unit, du);
                    sums[0] = s.wadd(sums[0], du);
                    sums[1] = s.wfma(du, s.wsub(h, mean), sums[1]);
                }
                for (at, sum) in sums.into_iter().enumerate() {
                    let old = load(s, slope.sums, at * BLOCK + unit);
                    store(s, slope.sums, at * BLOCK + unit, s.wadd(old, sum));
                }
            }
        }
    }
}

/// Adds the filter's gradient of some output rows to `to [k * k][16]`.
pub struct FilterGradient<'a> {
    /// The padded input; its first row is what the first output's window begins with.
    pub plane: Plane<'a>,
    /// The padded gradient of the output, and the element where the first row begins.
    pub gradient: Plane<'a>,
    /// Its first element that counts.
    pub origin: usize,
    /// Output rows and columns.
    pub size: [usize; 2],
    /// Side of the filter.
    pub k: usize,
    /// 1 or 2.
    pub stride: usize,
    /// The sums.
    pub to: &'a mut [f32],
    /// What follows.
    pub ahead: Ahead,
}

impl Loop for FilterGradient<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let [rows, w] = self.size;
        assert!(rows > 0 && w > 0 && self.k > 0);
        let reach = |i: usize| (i - 1) * self.stride + self.k;
        assert!(((reach(rows) - 1) * self.plane.columns + reach(w)) * BLOCK <= self.plane.data.len());
        let last = self.origin + ((rows - 1) * self.gradient.columns + w) * BLOCK;
        assert!(last <= self.gradient.data.len() && self.to.len() == self.k * self.k * BLOCK);
        if self.stride == 1 { self.taps::<1, S>(s) } else { self.taps::<2, S>(s) }
    }
}

impl FilterGradient<'_> {
    #[inline(always)]
    fn taps<const STEP: usize, S: Simd>(&mut self, s: S) {
        for unit in (0..BLOCK).step_by(S::WIDE) {
            match (self.k, S::FMA, S::WIDE) {
                (3, true, _) => self.group::<3, 9, STEP, S>(s, unit, 0),
                (5, true, 16) => self.group::<5, 25, STEP, S>(s, unit, 0),
                (7, true, 16) => {
                    self.group::<7, 25, STEP, S>(s, unit, 0);
                    self.group::<7, 24, STEP, S>(s, unit, 25);
                }
                (5, true, _) => {
                    self.group::<5, 13, STEP, S>(s, unit, 0);
                    self.group::<5, 12, STEP, S>(s, unit, 13);
                }
                (7, true, _) => {
                    self.group::<7, 13, STEP, S>(s, unit, 0);
                    self.group::<7, 12, STEP, S>(s, unit, 13);
                    self.group::<7, 12, STEP, S>(s, unit, 25);
                    self.group::<7, 12, STEP, S>(s, unit, 37);
                }
                (k, ..) => {
                    const MOST: usize = 5;
                    let (count, groups) = (k * k, (k * k).div_ceil(MOST));
                    let mut tap = 0;
                    for group in 0..groups {
                        let some = (count - tap).div_ceil(groups - group);
                        match some {
                            1 => self.group::<0, 1, STEP, S>(s, unit, tap),
                            2 => self.group::<0, 2, STEP, S>(s, unit, tap),
                            3 => self.group::<0, 3, STEP, S>(s, unit, tap),
                            4 => self.group::<0, 4, STEP, S>(s, unit, tap),
                            _ => self.group::<0, 5, STEP, S>(s, unit, tap),
                        }
                        tap += some;
                    }
                }
            }
        }
    }

    /// Taps `first..first + N`; `K` is the filter's side, or 0 if it is not known beforehand.
    #[inline(always)]
    fn group<const K: usize, const N: usize, const STEP: usize, S: Simd>(
        &mut self,
        s: S,
        unit: usize,
        first: usize,
    ) {
        let k = if K == 0 { self.k } else { K };
        let [rows, w] = self.size;
        let columns = self.plane.columns;
        let mut sums = [s.wsplat(0.0); N];
        // SAFETY: `run` checked the last window's last tap and the gradient's last pixel.
        unsafe {
            let places: [usize; N] =
                std::array::from_fn(|n| ((first + n) / k * columns + (first + n) % k) * BLOCK);
            for y in 0..rows {
                let d =
                    self.gradient.data.as_ptr().add(self.origin + y * self.gradient.columns * BLOCK + unit);
                let x = self.plane.data.as_ptr().add(y * STEP * columns * BLOCK + unit);
                for column in 0..w {
                    if first == 0 {
                        self.ahead.ask(s, unit, y * w + column, 1);
                    }
                    let d = s.wload(d.add(column * BLOCK));
                    let x = x.add(column * STEP * BLOCK);
                    for (sum, place) in sums.iter_mut().zip(places) {
                        *sum = s.wfma(s.wload(x.add(place)), d, *sum);
                    }
                }
            }
        }
        for (n, sum) in sums.into_iter().enumerate() {
            let at = (first + n) * BLOCK + unit;
            let old = load(s, self.to, at);
            store(s, self.to, at, s.wadd(old, sum));
        }
    }
}
