//! Element work on rows `[row][c]` of NHWC tensors with constants per channel.
//!
//! A vector's channels are walked down all rows before the next one's, so constants and sums stay in
//! registers; rows come in panels that fit the first caches.

use std::marker::PhantomData;

use super::curve::{Curve, with_curve};
use crate::cpu::simd::{self, Loop, Simd};
use crate::ops::Act;

/// Most inputs and constants of a kernel.
const INPUTS: usize = 3;
const CONSTANTS: usize = 5;

/// An element of the output from elements of the inputs and the channel's constants.
trait Map: Copy {
    fn map<S: Simd>(s: S, x: [S::W; INPUTS], k: [S::W; CONSTANTS]) -> S::W;
}

/// `[a, b, c]`, of which the sums of `a` and of `b c` are wanted.
trait Terms: Copy {
    fn terms<S: Simd>(s: S, x: [S::W; INPUTS], k: [S::W; CONSTANTS]) -> [S::W; 3];
}

struct Walk<'a, K> {
    c: usize,
    inputs: [&'a [f32]; INPUTS],
    constants: [&'a [f32]; CONSTANTS],
    to: &'a mut [f32],
    kernel: PhantomData<K>,
}

/// The first `width` elements at `at`, zeros beyond; zeros if there is nothing.
#[inline(always)]
fn part<S: Simd>(s: S, from: &[f32], at: usize, width: usize) -> S::W {
    if from.is_empty() {
        return s.wsplat(0.0);
    }
    let from = &from[at..at + width];
    if width == S::WIDE {
        // SAFETY: `WIDE` elements.
        return unsafe { s.wload(from.as_ptr()) };
    }
    let mut lanes = [0.0; 16];
    lanes[..width].copy_from_slice(from);
    // SAFETY: no vector has more than 16 lanes.
    unsafe { s.wload(lanes.as_ptr()) }
}

#[inline(always)]
fn put<S: Simd>(s: S, to: &mut [f32], at: usize, width: usize, value: S::W) {
    let to = &mut to[at..at + width];
    if width == S::WIDE {
        // SAFETY: `WIDE` elements.
        unsafe { s.wstore(to.as_mut_ptr(), value) };
        return;
    }
    let mut lanes = [0.0; 16];
    // SAFETY: no vector has more than 16 lanes.
    unsafe { s.wstore(lanes.as_mut_ptr(), value) };
    to.copy_from_slice(&lanes[..width]);
}

struct Mapped<'a, K>(Walk<'a, K>);

impl<K: Map> Loop for Mapped<'_, K> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Walk { c, inputs, constants, to, .. } = self.0;
        for from in (0..c).step_by(S::WIDE) {
            let width = S::WIDE.min(c - from);
            let k = constants.map(|k| part(s, k, from, width));
            let mut at = from;
            if width == S::WIDE {
                while at < to.len() {
                    put(s, to, at, S::WIDE, K::map(s, inputs.map(|x| part(s, x, at, S::WIDE)), k));
                    at += c;
                }
            } else {
                while at < to.len() {
                    put(s, to, at, width, K::map(s, inputs.map(|x| part(s, x, at, width)), k));
                    at += c;
                }
            }
        }
    }
}

struct Summed<'a, K>(Walk<'a, K>);

impl<K: Terms> Loop for Summed<'_, K> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Walk { c, inputs, constants, to, .. } = self.0;
        let len = inputs[0].len();
        for from in (0..c).step_by(S::WIDE) {
            let width = S::WIDE.min(c - from);
            let k = constants.map(|k| part(s, k, from, width));
            let mut sums = [[s.wsplat(0.0); 2]; 2];
            let mut at = from;
            let mut chain = 0;
            while at < len {
                let [a, b, d] = K::terms(s, inputs.map(|x| part(s, x, at, width)), k);
                let sum = &mut sums[chain];
                *sum = [s.wadd(sum[0], a), s.wfma(b, d, sum[1])];
                at += c;
                chain ^= 1;
            }
            put(s, to, from, width, s.wadd(sums[0][0], sums[1][0]));
            put(s, to, c + from, width, s.wadd(sums[0][1], sums[1][1]));
        }
    }
}

/// `[sum (h - h0), sum (h - h0)^2]` of every channel into `to [2, c]`, `h0` being the first row.
pub fn moments(h: &[f32], c: usize, to: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Kernel;
    impl Terms for Kernel {
        #[inline(always)]
        fn terms<S: Simd>(s: S, x: [S::W; INPUTS], k: [S::W; CONSTANTS]) -> [S::W; 3] {
            let d = s.wsub(x[0], k[0]);
            [d, d, d]
        }
    }
    let constants = [&h[..c], &[], &[], &[], &[]];
    simd::run(Summed(Walk { c, inputs: [h, &[], &[]], constants, to, kernel: PhantomData::<Kernel> }));
}

/// The third batch norm.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// `u = h scale + shift`, each `[c]`.
    pub scale: &'a [f32],
    /// `[c]`.
    pub shift: &'a [f32],
    /// `[c]`.
    pub mean: &'a [f32],
}

/// `to = act(u) (+ x)`; no `x` if it is empty.
pub fn finish(act: Act, h: &[f32], norm: Norm<'_>, x: &[f32], to: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Kernel<C>(PhantomData<C>);
    impl<C: Curve> Map for Kernel<C> {
        #[inline(always)]
        fn map<S: Simd>(s: S, x: [S::W; INPUTS], k: [S::W; CONSTANTS]) -> S::W {
            s.wadd(C::value(s, s.wfma(x[0], k[0], k[1])), x[1])
        }
    }
    let (c, constants) = (norm.scale.len(), [norm.scale, norm.shift, &[], &[], &[]]);
    let inputs = [h, x, &[]];
    with_curve!(act, C => simd::run(Mapped(Walk { c, inputs, constants, to, kernel: PhantomData::<Kernel<C>> })));
}

/// `[sum du, sum du (h - mean)]` with `du = dy act'(u)`, into `to [2, c]`.
pub fn gradient_sums(act: Act, dy: &[f32], h: &[f32], norm: Norm<'_>, to: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Kernel<C>(PhantomData<C>);
    impl<C: Curve> Terms for Kernel<C> {
        #[inline(always)]
        fn terms<S: Simd>(s: S, x: [S::W; INPUTS], k: [S::W; CONSTANTS]) -> [S::W; 3] {
            let du = s.wmul(x[0], C::both(s, s.wfma(x[1], k[0], k[1])).1);
            [du, du, s.wsub(x[1], k[2])]
        }
    }
    let (c, constants) = (norm.scale.len(), [norm.scale, norm.shift, norm.mean, &[], &[]]);
    let inputs = [dy, h, &[]];
    with_curve!(act, C => simd::run(Summed(Walk { c, inputs, constants, to, kernel: PhantomData::<Kernel<C>> })));
}

/// `to = k0 du + k1 h + k2` with `du = dy act'(u)`.
pub fn gradient(act: Act, dy: &[f32], h: &[f32], norm: Norm<'_>, k: [&[f32]; 3], to: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Kernel<C>(PhantomData<C>);
    impl<C: Curve> Map for Kernel<C> {
        #[inline(always)]
        fn map<S: Simd>(s: S, x: [S::W; INPUTS], k: [S::W; CONSTANTS]) -> S::W {
            let du = s.wmul(x[0], C::both(s, s.wfma(x[1], k[0], k[1])).1);
            s.wfma(du, k[2], s.wfma(x[1], k[3], k[4]))
        }
    }
    let (c, constants) = (norm.scale.len(), [norm.scale, norm.shift, k[0], k[1], k[2]]);
    let inputs = [dy, h, &[]];
    with_curve!(act, C => simd::run(Mapped(Walk { c, inputs, constants, to, kernel: PhantomData::<Kernel<C>> })));
}
