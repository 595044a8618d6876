//! Element work on strips `[row][16]` of one channel block: statistics, activations, gradients.
//!
//! Channel constants are slices of 16. A sum over rows has a fixed number of chains, so it depends
//! on the instruction set's lanes alone, never on who computes it.

use std::marker::PhantomData;

use super::curve::{Curve, with_curve};
use crate::cpu::simd::{self, Loop, Simd};
use crate::ops::Act;

/// Channels of a block.
pub const BLOCK: usize = 16;

/// `u = h * scale + shift` per channel.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// `[16]`.
    pub scale: &'a [f32],
    /// `[16]`.
    pub shift: &'a [f32],
}

impl Affine<'_> {
    #[inline(always)]
    pub(super) fn load<S: Simd>(&self, s: S, unit: usize) -> [S::W; 2] {
        [load(s, self.scale, unit), load(s, self.shift, unit)]
    }
}

/// Loads a wide vector of `from`.
#[inline(always)]
pub(super) fn load<S: Simd>(s: S, from: &[f32], at: usize) -> S::W {
    let from = &from[at..at + S::WIDE];
    // SAFETY: the slice has `WIDE` floats.
    unsafe { s.wload(from.as_ptr()) }
}

/// Stores a wide vector in `to`.
#[inline(always)]
pub(super) fn store<S: Simd>(s: S, to: &mut [f32], at: usize, value: S::W) {
    let to = &mut to[at..at + S::WIDE];
    // SAFETY: the slice has `WIDE` floats.
    unsafe { s.wstore(to.as_mut_ptr(), value) };
}

/// `[sum (h - h0), sum (h - h0)^2]` of each channel into `to [2, 16]`, `h0` being the first row.
pub fn moments(strip: &[f32], to: &mut [f32]) {
    struct Work<'a>(&'a [f32], &'a mut [f32]);
    impl Loop for Work<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            const CHAINS: usize = 4;
            let Work(strip, to) = self;
            for unit in (0..BLOCK).step_by(S::WIDE) {
                let center = load(s, strip, unit);
                let (mut first, mut second) = ([s.wsplat(0.0); CHAINS], [s.wsplat(0.0); CHAINS]);
                let mut groups = strip.chunks_exact(CHAINS * BLOCK);
                for rows in groups.by_ref() {
                    for chain in 0..CHAINS {
                        let d = s.wsub(load(s, rows, chain * BLOCK + unit), center);
                        first[chain] = s.wadd(first[chain], d);
                        second[chain] = s.wfma(d, d, second[chain]);
                    }
                }
                for row in groups.remainder().chunks_exact(BLOCK) {
                    let d = s.wsub(load(s, row, unit), center);
                    first[0] = s.wadd(first[0], d);
                    second[0] = s.wfma(d, d, second[0]);
                }
                for (at, sums) in [first, second].into_iter().enumerate() {
                    let sum = s.wadd(s.wadd(sums[0], sums[1]), s.wadd(sums[2], sums[3]));
                    store(s, to, at * BLOCK + unit, sum);
                }
            }
        }
    }
    assert!(strip.len() >= BLOCK && to.len() == 2 * BLOCK);
    simd::run(Work(strip, to));
}

/// `to = act(u) * gate`.
pub fn activate(act: Act, h: &[f32], norm: Affine<'_>, gate: Option<&[f32]>, to: &mut [f32]) {
    struct Work<'a, C>(&'a [f32], Affine<'a>, Option<&'a [f32]>, &'a mut [f32], PhantomData<C>);
    impl<C: Curve> Loop for Work<'_, C> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let Work(h, norm, gate, to, _) = self;
            for unit in (0..BLOCK).step_by(S::WIDE) {
                let [scale, shift] = norm.load(s, unit);
                let gate = gate.map_or(s.wsplat(1.0), |gate| load(s, gate, unit));
                for (h, to) in h.chunks_exact(BLOCK).zip(to.chunks_exact_mut(BLOCK)) {
                    let u = s.wfma(load(s, h, unit), scale, shift);
                    store(s, to, unit, s.wmul(C::value(s, u), gate));
                }
            }
        }
    }
    assert_eq!(h.len(), to.len());
    with_curve!(act, C => simd::run(Work::<C>(h, norm, gate, to, PhantomData)));
}

/// The sum of `act(u)` over the rows, into `to [16]`.
pub fn pool(act: Act, h: &[f32], norm: Affine<'_>, to: &mut [f32]) {
    struct Work<'a, C>(&'a [f32], Affine<'a>, &'a mut [f32], PhantomData<C>);
    impl<C: Curve> Loop for Work<'_, C> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let Work(h, norm, to, _) = self;
            for unit in (0..BLOCK).step_by(S::WIDE) {
                let [scale, shift] = norm.load(s, unit);
                let mut sums = [s.wsplat(0.0); 2];
                let mut pairs = h.chunks_exact(2 * BLOCK);
                for rows in pairs.by_ref() {
                    for (chain, sum) in sums.iter_mut().enumerate() {
                        let u = s.wfma(load(s, rows, chain * BLOCK + unit), scale, shift);
                        *sum = s.wadd(*sum, C::value(s, u));
                    }
                }
                for row in pairs.remainder().chunks_exact(BLOCK) {
                    sums[0] = s.wadd(sums[0], C::value(s, s.wfma(load(s, row, unit), scale, shift)));
                }
                store(s, to, unit, s.wadd(sums[0], sums[1]));
            }
        }
    }
    assert_eq!(to.len(), BLOCK);
    with_curve!(act, C => simd::run(Work::<C>(h, norm, to, PhantomData)));
}

/// What [`excite`] sums over the rows of one image, each `[16]`; without a gate the first and the
/// last two are not needed and stay zero. `z' = act'(u)`, `x = h - mean`.
pub const EXCITE_SUMS: usize = 5;

/// The constants of [`excite`].
#[derive(Clone, Copy)]
pub struct Excite<'a> {
    /// The second batch norm.
    pub norm: Affine<'a>,
    /// `[16]`.
    pub mean: &'a [f32],
    /// `[16]`, of this image.
    pub gate: Option<&'a [f32]>,
}

/// `to = act(u) * gate`, and the sums of `d z`, `d z'`, `d z' x`, `z'`, `z' x`.
pub fn excite(act: Act, d: &[f32], h: &[f32], constants: Excite<'_>, to: &mut [f32], sums: &mut [f32]) {
    struct Work<'a, C> {
        d: &'a [f32],
        h: &'a [f32],
        k: Excite<'a>,
        to: &'a mut [f32],
        sums: &'a mut [f32],
        curve: PhantomData<C>,
    }
    impl<C: Curve> Loop for Work<'_, C> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let Work { d, h, k, to, sums, .. } = self;
            for unit in (0..BLOCK).step_by(S::WIDE) {
                let [scale, shift] = k.norm.load(s, unit);
                let mean = load(s, k.mean, unit);
                let mut all = [s.wsplat(0.0); EXCITE_SUMS];
                let rows = d.chunks_exact(BLOCK).zip(h.chunks_exact(BLOCK)).zip(to.chunks_exact_mut(BLOCK));
                if let Some(gate) = k.gate {
                    let gate = load(s, gate, unit);
                    for ((d, h), to) in rows {
                        let (d, h) = (load(s, d, unit), load(s, h, unit));
                        let (z, slope) = C::both(s, s.wfma(h, scale, shift));
                        let x = s.wsub(h, mean);
                        let dz = s.wmul(d, slope);
                        all[0] = s.wfma(d, z, all[0]);
                        all[1] = s.wadd(all[1], dz);
                        all[2] = s.wfma(dz, x, all[2]);
                        all[3] = s.wadd(all[3], slope);
                        all[4] = s.wfma(slope, x, all[4]);
                        store(s, to, unit, s.wmul(z, gate));
                    }
                } else {
                    for ((d, h), to) in rows {
                        let (d, h) = (load(s, d, unit), load(s, h, unit));
                        let (z, slope) = C::both(s, s.wfma(h, scale, shift));
                        let dz = s.wmul(d, slope);
                        all[1] = s.wadd(all[1], dz);
                        all[2] = s.wfma(dz, s.wsub(h, mean), all[2]);
                        store(s, to, unit, z);
                    }
                }
                for (at, sum) in all.into_iter().enumerate() {
                    store(s, sums, at * BLOCK + unit, sum);
                }
            }
        }
    }
    assert!(d.len() == h.len() && d.len() == to.len() && sums.len() == EXCITE_SUMS * BLOCK);
    with_curve!(act, C => simd::run(Work::<C> { d, h, k: constants, to, sums, curve: PhantomData }));
}

/// `to = k0 d + k1 h + k2`: a batch norm's input gradient.
pub fn combine(d: &[f32], h: &[f32], k: [&[f32]; 3], to: &mut [f32]) {
    struct Work<'a>(&'a [f32], &'a [f32], [&'a [f32]; 3], &'a mut [f32]);
    impl Loop for Work<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let Work(d, h, k, to) = self;
            for unit in (0..BLOCK).step_by(S::WIDE) {
                let k = k.map(|k| load(s, k, unit));
                let rows = d.chunks_exact(BLOCK).zip(h.chunks_exact(BLOCK)).zip(to.chunks_exact_mut(BLOCK));
                for ((d, h), to) in rows {
                    let inner = s.wfma(load(s, h, unit), k[1], k[2]);
                    store(s, to, unit, s.wfma(load(s, d, unit), k[0], inner));
                }
            }
        }
    }
    assert!(d.len() == h.len() && d.len() == to.len());
    simd::run(Work(d, h, k, to));
}
