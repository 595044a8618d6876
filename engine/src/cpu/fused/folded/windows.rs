//! The depthwise convolution with shift, activation and the sums of its plane folded in.

use std::marker::PhantomData;

use crate::cpu::fused::curve::{Curve, with_curve};
use crate::cpu::fused::strip::{BLOCK, load, store};
use crate::cpu::fused::window::Plane;
use crate::cpu::simd::{self, Loop, Simd};
use crate::ops::Act;

/// What [`windows`] is made of.
pub(super) struct Windows<'a> {
    /// The padded input; its first row is what the first window begins with.
    pub plane: Plane<'a>,
    /// `[shift, taps][16]`.
    pub filter: &'a [f32],
    /// Side of the filter.
    pub k: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Windows of a row.
    pub w: usize,
    /// `[rows][w][16]`.
    pub to: &'a mut [f32],
    /// `[16]`: the sums of the results are added.
    pub sums: &'a mut [f32],
}

/// `to = act(shift + depthwise(plane))` and its sums.
pub(super) fn windows(act: Act, work: Windows<'_>) {
    let rows = work.to.len() / (work.w * BLOCK);
    assert!(rows > 0 && work.w > 0 && work.k > 0 && work.to.len() == rows * work.w * BLOCK);
    let reach = |i: usize| (i - 1) * work.stride + work.k;
    assert!(((reach(rows) - 1) * work.plane.columns + reach(work.w)) * BLOCK <= work.plane.data.len());
    assert!((1 + work.k * work.k) * BLOCK <= work.filter.len() && work.sums.len() == BLOCK);
    with_curve!(act, C => simd::run(Folded(work, PhantomData::<C>)));
}

struct Folded<'a, C>(Windows<'a>, PhantomData<C>);

impl<C: Curve> Loop for Folded<'_, C> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.0.stride == 1 { self.rows::<1, S>(s) } else { self.rows::<2, S>(s) }
    }
}

impl<C: Curve> Folded<'_, C> {
    #[inline(always)]
    fn rows<const STEP: usize, S: Simd>(self, s: S) {
        let Windows { plane, filter, k, w, to, sums, .. } = self.0;
        // With a tap (and, of narrow vectors, an operand in memory) a tile fits the registers.
        let most = if S::WIDE == BLOCK { 14 } else { 8 };
        let tiles = w.div_ceil(most);
        let (pixels, more) = (w / tiles, w % tiles);
        for (y, to) in to.chunks_exact_mut(w * BLOCK).enumerate() {
            for unit in (0..BLOCK).step_by(S::WIDE) {
                let mut sum = load(s, sums, unit);
                let mut x = 0;
                for at in 0..tiles {
                    let pixels = pixels + usize::from(at < more);
                    // SAFETY: `windows` checked the last window's last tap and the filter; `to` is
                    // a row.
                    let part = unsafe {
                        let from = (y * STEP * plane.columns + x * STEP) * BLOCK + unit;
                        let from = plane.data.as_ptr().add(from);
                        let to = to.as_mut_ptr().add(x * BLOCK + unit);
                        let (row, filter) = (plane.columns * BLOCK, filter.as_ptr().add(unit));
                        macro_rules! tile {
                            ($n:literal) => {
                                tile::<$n, STEP, C, S>(s, from, row, filter, k, to)
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
                            8 => tile!(8),
                            9 if S::WIDE == BLOCK => tile!(9),
                            10 if S::WIDE == BLOCK => tile!(10),
                            11 if S::WIDE == BLOCK => tile!(11),
                            12 if S::WIDE == BLOCK => tile!(12),
                            13 if S::WIDE == BLOCK => tile!(13),
                            14 if S::WIDE == BLOCK => tile!(14),
                            _ => unreachable!("a tile has at most {most} windows"),
                        }
                    };
                    sum = s.wadd(sum, part);
                    x += pixels;
                }
                store(s, sums, unit, sum);
            }
        }
    }
}

/// `N` windows, one wide vector each; returns the sum of the results.
///
/// # Safety
/// All taps of all windows, the filter and the `N` results are inside their slices.
#[inline(always)]
unsafe fn tile<const N: usize, const STEP: usize, C: Curve, S: Simd>(
    s: S,
    from: *const f32,
    row: usize,
    filter: *const f32,
    k: usize,
    to: *mut f32,
) -> S::W {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [s.wload(filter); N];
        let mut tap = filter.add(BLOCK);
        for y in 0..k {
            let mut at = from.add(y * row);
            for _ in 0..k {
                let w = s.wload(tap);
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = s.wfma(s.wload(at.add(n * STEP * BLOCK)), w, *sum);
                }
                tap = tap.add(BLOCK);
                at = at.add(BLOCK);
            }
        }
        let mut total = s.wsplat(0.0);
        for (n, sum) in sums.into_iter().enumerate() {
            let value = C::value(s, sum);
            s.wstore(to.add(n * BLOCK), value);
            total = s.wadd(total, value);
        }
        total
    }
}

/// Multiplies every pixel of `strip [rows][16]` with `gate [16]`.
pub(super) fn scale(strip: &mut [f32], gate: &[f32]) {
    struct Work<'a>(&'a mut [f32], &'a [f32]);
    impl Loop for Work<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for unit in (0..BLOCK).step_by(S::WIDE) {
                let gate = load(s, self.1, unit);
                for pixel in self.0.chunks_exact_mut(BLOCK) {
                    let value = s.wmul(load(s, pixel, unit), gate);
                    store(s, pixel, unit, value);
                }
            }
        }
    }
    simd::run(Work(strip, gate));
}
