//! Loops over tensors `[image][channel / 16][pixel][16]`, sixteen channels of one pixel at a time.
//!
//! Channels beyond the last are lanes of zeros: their constants are zero, and so is all that is
//! computed from them.

use super::curve::{Curve, HSwish, Identity, Relu, Relu6, Swish};
use super::simd::{self, LANES, Loop, Simd};
use crate::ops::Act;

/// Channels of one block.
pub const BLOCK: usize = 16;
/// One pixel of one block.
pub type Row = [f32; BLOCK];

/// The pixels of a slice, which holds whole ones.
pub fn rows(data: &[f32]) -> &[Row] {
    data.as_chunks().0
}

/// The pixels of a slice, to be written.
pub fn rows_mut(data: &mut [f32]) -> &mut [Row] {
    data.as_chunks_mut().0
}

/// A batch norm of one block: `u = (h - mean) * factor + shift`.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// Subtracted first.
    pub mean: &'a Row,
    /// Scale over deviation.
    pub factor: &'a Row,
    /// Added last.
    pub shift: &'a Row,
}

/// The backward of a batch norm of one block: `dh = k[0] du + k[1] (h - mean) + k[2]`.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// As in [`Affine`].
    pub mean: &'a Row,
    /// The constants.
    pub k: [&'a Row; 3],
}

type Pair<S> = [<S as Simd>::V; 2];

#[inline(always)]
fn get<S: Simd>(s: S, row: &Row) -> Pair<S> {
    // SAFETY: a row is two vectors long.
    unsafe { [s.load(row.as_ptr()), s.load(row.as_ptr().add(LANES))] }
}

#[inline(always)]
fn put<S: Simd>(s: S, row: &mut Row, value: Pair<S>) {
    // SAFETY: a row is two vectors long, and borrowed exclusively.
    unsafe {
        s.store(row.as_mut_ptr(), value[0]);
        s.store(row.as_mut_ptr().add(LANES), value[1]);
    }
}

#[inline(always)]
fn zero<S: Simd>(s: S) -> Pair<S> {
    [s.splat(0.0); 2]
}

struct Constants<S: Simd> {
    mean: Pair<S>,
    factor: Pair<S>,
    shift: Pair<S>,
}

impl<S: Simd> Constants<S> {
    #[inline(always)]
    fn new(s: S, affine: Affine<'_>) -> Self {
        Self { mean: get(s, affine.mean), factor: get(s, affine.factor), shift: get(s, affine.shift) }
    }
}

/// Runs a loop that is generic over the activation.
macro_rules! with_curve {
    ($act:expr, $curve:ident => $work:expr) => {
        match $act {
            Act::None => {
                let $curve = Identity;
                simd::run($work)
            }
            Act::Relu => {
                let $curve = Relu;
                simd::run($work)
            }
            Act::Relu6 => {
                let $curve = Relu6;
                simd::run($work)
            }
            Act::HSwish => {
                let $curve = HSwish;
                simd::run($work)
            }
            Act::Swish => {
                let $curve = Swish;
                simd::run($work)
            }
            Act::Sigmoid | Act::HardSigmoid => unreachable!("gates are no activations of a block"),
        }
    };
}

/// Of a strip: its first pixel, the sum of the distances from it, and of their squares.
pub fn statistics(h: &[Row], to: &mut [Row; 3]) {
    struct Work<'a>(&'a [Row], &'a mut [Row; 3]);
    impl Loop for Work<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let center = get(s, &self.0[0]);
            // Two chains each, joined once.
            let (mut sum, mut square) = ([zero(s); 2], [zero(s); 2]);
            let mut step = |chain: usize, row: &Row| {
                let row = get(s, row);
                for half in 0..2 {
                    let d = s.sub(row[half], center[half]);
                    sum[chain][half] = s.add(sum[chain][half], d);
                    square[chain][half] = s.fma(d, d, square[chain][half]);
                }
            };
            let mut pairs = self.0.chunks_exact(2);
            for pair in pairs.by_ref() {
                step(0, &pair[0]);
                step(1, &pair[1]);
            }
            if let [last] = pairs.remainder() {
                step(0, last);
            }
            let join = |a: [Pair<S>; 2]| [s.add(a[0][0], a[1][0]), s.add(a[0][1], a[1][1])];
            put(s, &mut self.1[0], center);
            put(s, &mut self.1[1], join(sum));
            put(s, &mut self.1[2], join(square));
        }
    }
    simd::run(Work(h, to));
}

/// `to = act(u(h)) * gate`.
pub fn activate(h: &[Row], affine: Affine<'_>, act: Act, gate: Option<&Row>, to: &mut [Row]) {
    struct Work<'a, C>(&'a [Row], Affine<'a>, C, Option<&'a Row>, &'a mut [Row]);
    impl<C: Curve> Loop for Work<'_, C> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let k = Constants::new(s, self.1);
            let pixels = self.4.iter_mut().zip(self.0);
            match self.3 {
                Some(gate) => {
                    let gate = get(s, gate);
                    for (to, h) in pixels {
                        let h = get(s, h);
                        let one = |i: usize| {
                            let u = s.fma(s.sub(h[i], k.mean[i]), k.factor[i], k.shift[i]);
                            s.mul(self.2.value(s, u), gate[i])
                        };
                        put(s, to, [one(0), one(1)]);
                    }
                }
                None => {
                    for (to, h) in pixels {
                        let h = get(s, h);
                        let one = |i: usize| {
                            self.2.value(s, s.fma(s.sub(h[i], k.mean[i]), k.factor[i], k.shift[i]))
                        };
                        put(s, to, [one(0), one(1)]);
                    }
                }
            }
        }
    }
    with_curve!(act, curve => Work(h, affine, curve, gate, to));
}

/// The sum over pixels of `act(u(h))`.
pub fn pool(h: &[Row], affine: Affine<'_>, act: Act) -> Row {
    struct Work<'a, C>(&'a [Row], Affine<'a>, C, &'a mut Row);
    impl<C: Curve> Loop for Work<'_, C> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let k = Constants::new(s, self.1);
            let mut sums = [zero(s); 2];
            let mut step = |chain: usize, row: &Row| {
                let h = get(s, row);
                for i in 0..2 {
                    let u = s.fma(s.sub(h[i], k.mean[i]), k.factor[i], k.shift[i]);
                    sums[chain][i] = s.add(sums[chain][i], self.2.value(s, u));
                }
            };
            let mut pairs = self.0.chunks_exact(2);
            for pair in pairs.by_ref() {
                step(0, &pair[0]);
                step(1, &pair[1]);
            }
            if let [last] = pairs.remainder() {
                step(0, last);
            }
            put(s, self.3, [s.add(sums[0][0], sums[1][0]), s.add(sums[0][1], sums[1][1])]);
        }
    }
    let mut sum = [0.0; BLOCK];
    with_curve!(act, curve => Work(h, affine, curve, &mut sum));
    sum
}

/// Sums over the pixels of one image and block, with `z = act(u(h))` and `z'` its slope: of `dz z`,
/// `dz z'`, `dz z' (h - mean)`, `z'`, and `z' (h - mean)`.
pub type ProjectSums = [Row; 5];

/// Adds to `sums` from `dz`, the gradient of `z * gate`; `to = z * gate`.
pub fn project_back(
    h: &[Row],
    dz: &[Row],
    affine: Affine<'_>,
    act: Act,
    gate: Option<&Row>,
    to: &mut [Row],
    sums: &mut ProjectSums,
) {
    struct Work<'a, C> {
        h: &'a [Row],
        dz: &'a [Row],
        affine: Affine<'a>,
        curve: C,
        gate: Option<&'a Row>,
        to: &'a mut [Row],
        sums: &'a mut ProjectSums,
    }
    impl<C: Curve> Loop for Work<'_, C> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let k = Constants::new(s, self.affine);
            // One half after the other: with both, sums would leave the registers.
            for i in 0..2 {
                let at = i * LANES;
                // SAFETY: half a row is one vector long.
                let load = |row: &Row| unsafe { s.load(row.as_ptr().add(at)) };
                let (mean, factor, shift) = (k.mean[i], k.factor[i], k.shift[i]);
                let pixels = self.to.iter_mut().zip(self.h).zip(self.dz);
                match self.gate {
                    Some(gate) => {
                        let gate = load(gate);
                        let mut sums = self.sums.each_ref().map(load);
                        for ((to, h), dz) in pixels {
                            let d = s.sub(load(h), mean);
                            let (z, slope) = self.curve.both(s, s.fma(d, factor, shift));
                            let dz = load(dz);
                            sums[0] = s.fma(dz, z, sums[0]);
                            let through = s.mul(dz, slope);
                            sums[1] = s.add(sums[1], through);
                            sums[2] = s.fma(through, d, sums[2]);
                            sums[3] = s.add(sums[3], slope);
                            sums[4] = s.fma(slope, d, sums[4]);
                            // SAFETY: half a row is one vector long, and `to` is exclusive.
                            unsafe { s.store(to.as_mut_ptr().add(at), s.mul(z, gate)) };
                        }
                        for (to, sum) in self.sums.iter_mut().zip(sums) {
                            to[at..at + LANES].copy_from_slice(&s.array(sum));
                        }
                    }
                    None => {
                        let mut sums = [load(&self.sums[1]), load(&self.sums[2])];
                        for ((to, h), dz) in pixels {
                            let d = s.sub(load(h), mean);
                            let (z, slope) = self.curve.both(s, s.fma(d, factor, shift));
                            let through = s.mul(load(dz), slope);
                            sums[0] = s.add(sums[0], through);
                            sums[1] = s.fma(through, d, sums[1]);
                            // SAFETY: half a row is one vector long, and `to` is exclusive.
                            unsafe { s.store(to.as_mut_ptr().add(at), z) };
                        }
                        for (to, sum) in self.sums[1..3].iter_mut().zip(sums) {
                            to[at..at + LANES].copy_from_slice(&s.array(sum));
                        }
                    }
                }
            }
        }
    }
    with_curve!(act, curve => Work { h, dz, affine, curve, gate, to, sums });
}

/// Through activation, gate and norm: `to = k[0] (dz gate + even) z' + k[1] (h - mean) + k[2]`,
/// where `gated` is `[gate, even]`.
pub fn norm_back(
    h: &[Row],
    dz: &[Row],
    affine: Affine<'_>,
    act: Act,
    gated: Option<[&Row; 2]>,
    k: [&Row; 3],
    to: &mut [Row],
) {
    struct Work<'a, C> {
        h: &'a [Row],
        dz: &'a [Row],
        affine: Affine<'a>,
        curve: C,
        gated: Option<[&'a Row; 2]>,
        k: [&'a Row; 3],
        to: &'a mut [Row],
    }
    impl<C: Curve> Loop for Work<'_, C> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let c = Constants::new(s, self.affine);
            let k = self.k.map(|row| get(s, row));
            let pixels = self.to.iter_mut().zip(self.h).zip(self.dz);
            match self.gated {
                Some(gated) => {
                    let [gate, even] = gated.map(|row| get(s, row));
                    for ((to, h), dz) in pixels {
                        let (h, dz) = (get(s, h), get(s, dz));
                        let one = |i: usize| {
                            let d = s.sub(h[i], c.mean[i]);
                            let (_, slope) = self.curve.both(s, s.fma(d, c.factor[i], c.shift[i]));
                            let du = s.mul(s.fma(dz[i], gate[i], even[i]), slope);
                            s.fma(k[0][i], du, s.fma(k[1][i], d, k[2][i]))
                        };
                        put(s, to, [one(0), one(1)]);
                    }
                }
                None => {
                    for ((to, h), dz) in pixels {
                        let (h, dz) = (get(s, h), get(s, dz));
                        let one = |i: usize| {
                            let d = s.sub(h[i], c.mean[i]);
                            let (_, slope) = self.curve.both(s, s.fma(d, c.factor[i], c.shift[i]));
                            s.fma(k[0][i], s.mul(dz[i], slope), s.fma(k[1][i], d, k[2][i]))
                        };
                        put(s, to, [one(0), one(1)]);
                    }
                }
            }
        }
    }
    with_curve!(act, curve => Work { h, dz, affine, curve, gated, k, to });
}

/// Through an activation in place: `dz *= act'(u(h))`; the sums over pixels of the result, and of
/// the result times `h - mean`.
pub fn activation_back(h: &[Row], dz: &mut [Row], affine: Affine<'_>, act: Act, sums: &mut [Row; 2]) {
    struct Work<'a, C> {
        h: &'a [Row],
        dz: &'a mut [Row],
        affine: Affine<'a>,
        curve: C,
        sums: &'a mut [Row; 2],
    }
    impl<C: Curve> Loop for Work<'_, C> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let c = Constants::new(s, self.affine);
            let mut sums = [zero(s); 2];
            for (dz, h) in self.dz.iter_mut().zip(self.h) {
                let (h, was) = (get(s, h), get(s, dz));
                let mut now = was;
                for i in 0..2 {
                    let d = s.sub(h[i], c.mean[i]);
                    let (_, slope) = self.curve.both(s, s.fma(d, c.factor[i], c.shift[i]));
                    now[i] = s.mul(was[i], slope);
                    sums[0][i] = s.add(sums[0][i], now[i]);
                    sums[1][i] = s.fma(now[i], d, sums[1][i]);
                }
                put(s, dz, now);
            }
            put(s, &mut self.sums[0], sums[0]);
            put(s, &mut self.sums[1], sums[1]);
        }
    }
    with_curve!(act, curve => Work { h, dz, affine, curve, sums });
}

/// `to = k[0] du + k[1] (h - mean) + k[2]`.
pub fn linear(h: &[Row], du: &[Row], linear: Linear<'_>, to: &mut [Row]) {
    struct Work<'a>(&'a [Row], &'a [Row], Linear<'a>, &'a mut [Row]);
    impl Loop for Work<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let (mean, k) = (get(s, self.2.mean), self.2.k.map(|row| get(s, row)));
            for ((to, h), du) in self.3.iter_mut().zip(self.0).zip(self.1) {
                let (h, du) = (get(s, h), get(s, du));
                let one = |i: usize| s.fma(k[0][i], du[i], s.fma(k[1][i], s.sub(h[i], mean[i]), k[2][i]));
                put(s, to, [one(0), one(1)]);
            }
        }
    }
    simd::run(Work(h, du, linear, to));
}
