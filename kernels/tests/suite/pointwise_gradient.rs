//! Gradients of 1x1 convolutions against their definition.

use half::bf16;
use kernels::pointwise::{Arithmetic, Shape};
use kernels::pointwise_gradient::{
    FilterGradient, FilterGradientArgs, Formed, InputGradient, InputGradientArgs, SummedGradient,
    SummedGradientArgs, Sums,
};
use kernels::{Act, Input, Output};

use crate::depthwise::{activate, slope};
use crate::harness::{Gpu, Number, close, noise};

/// Values of a type that look random.
fn some<T: Number>(len: usize, seed: u64, size: f32) -> Vec<T> {
    noise(len, seed).into_iter().map(|v| T::nearest(size * v)).collect()
}

/// Relative error of one product, both of whose factors are rounded to 24, 11 or 8 bits.
fn factor(arithmetic: Arithmetic) -> f64 {
    match arithmetic {
        Arithmetic::F32 => 2e-6,
        Arithmetic::Tf32 => 1.0 / 1024.0,
        Arithmetic::Bf16 => 1.0 / 128.0,
    }
}

/// The gradient that arrives and what stands in front of it.
struct Front<T> {
    d: Vec<T>,
    h: Vec<T>,
    scale: Vec<f32>,
    shift: Vec<f32>,
    pqr: Vec<f32>,
    act: Option<Act>,
}

impl<T: Number> Front<T> {
    fn new(m: usize, n: usize, act: Option<Act>) -> Front<T> {
        Front {
            d: some(m * n, 1, 1.0),
            h: some(m * n, 2, 4.0),
            scale: noise(n, 3),
            shift: noise(n, 4),
            pqr: noise(3 * n, 5),
            act,
        }
    }

    /// The gradient of the convolution's output.
    fn formed(&self) -> Vec<f64> {
        let (n, f) = (self.scale.len(), |v: f32| f64::from(v));
        let each = self.d.iter().zip(&self.h).enumerate();
        each.map(|(i, (d, h))| {
            let (c, d, h) = (i % n, d.f64(), h.f64());
            let Some(act) = self.act else { return d };
            let du = d * slope(act, h * f(self.scale[c]) + f(self.shift[c]));
            f(self.pqr[c]) * du + f(self.pqr[n + c]) * h + f(self.pqr[2 * n + c])
        })
        .collect()
    }
}

/// `g w` and the sums of its absolute products, with `g [m, n]` and `w [n, k]`.
fn product<T: Number>(g: &[f64], w: &[T], n: usize, k: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut size) = (Vec::new(), Vec::new());
    for row in g.chunks(n) {
        for column in 0..k {
            let products = || row.iter().enumerate().map(|(i, g)| g * w[i * k + column].f64());
            y.push(products().sum());
            size.push(products().map(f64::abs).sum());
        }
    }
    (y, size)
}

/// What is added to the gradient.
#[derive(Clone, Copy, Debug)]
struct Added {
    more: bool,
    accumulate: bool,
}

fn input<T: Number>(g: &Gpu, s: Shape, a: Arithmetic, act: Option<Act>, added: Added, tiles: usize) {
    let what = format!("{s:?} {a:?} {act:?} {added:?}");
    let front = Front::<T>::new(s.m(), s.n, act);
    let (w, more, before) =
        (some::<T>(s.n * s.k, 6, 1.0), some(s.m() * s.k, 7, 3.0), some(s.m() * s.k, 8, 3.0));
    let op = InputGradient::new(&g.device, s, a).expect("a kernel serves it");
    let op = op.tiles_per_block(tiles).columns_per_block(tiles);
    let (d, h) = (g.upload(&front.d), g.upload(&front.h));
    let (scale, shift, pqr) = (g.upload(&front.scale), g.upload(&front.shift), g.upload(&front.pqr));
    let (d_w, d_more) = (g.upload(&w), g.upload::<T>(&more));
    let mut dx = if added.accumulate { g.upload::<T>(&before) } else { g.empty(s.m() * s.k) };
    op.launch(
        &g.stream,
        InputGradientArgs {
            d: Input::new(&d, &g.stream),
            formed: act.map(|act| Formed {
                h: Input::new(&h, &g.stream),
                affine: (Input::new(&scale, &g.stream), Input::new(&shift, &g.stream)),
                pqr: Input::new(&pqr, &g.stream),
                act,
            }),
            w: Input::new(&d_w, &g.stream),
            more: added.more.then(|| Input::new(&d_more, &g.stream)),
            accumulate: added.accumulate,
            dx: Output::new(&mut dx, &g.stream),
        },
    )
    .expect("it launches");
    let (mut want, size) = product(&front.formed(), &w, s.n, s.k);
    for (i, want) in want.iter_mut().enumerate() {
        *want += if added.more { more[i].f64() } else { 0.0 };
        *want += if added.accumulate { before[i].f64() } else { 0.0 };
    }
    close(&what, &g.download(&dx), &want, |i| T::EPSILON * want[i].abs() + factor(a) * size[i] + 1e-6);
}

fn summed<T: Number>(g: &Gpu, s: Shape, a: Arithmetic, acts: [Option<Act>; 2], sums: Sums, tiles: usize) {
    let what = format!("{s:?} {a:?} {acts:?} {sums:?}");
    let front = Front::<T>::new(s.m(), s.n, acts[1]);
    let act = acts[0].expect("the one in front");
    let (w, h2) = (some::<T>(s.n * s.k, 6, 1.0), some::<T>(s.m() * s.k, 7, 4.0));
    let (scale2, shift2, mean2) = (noise(s.k, 8), noise(s.k, 9), noise(s.k, 10));
    let op = SummedGradient::new(&g.device, s, a, act, sums).expect("a kernel serves it");
    let op = op.tiles_per_block(tiles).columns_per_block(tiles);
    let (d, h) = (g.upload(&front.d), g.upload(&front.h));
    let (scale, shift, pqr) = (g.upload(&front.scale), g.upload(&front.shift), g.upload(&front.pqr));
    let (d_w, d_h2) = (g.upload(&w), g.upload(&h2));
    let (d_scale2, d_shift2, d_mean2) = (g.upload(&scale2), g.upload(&shift2), g.upload(&mean2));
    let each = if sums == Sums::Pair { 2 } else { 5 };
    let p = op.partials();
    // Places between images and tiles that begin together are not written.
    let mut out = g.upload(&vec![0f32; p * s.k * each]);
    let mut dx = g.empty::<T>(s.m() * s.k);
    op.launch(
        &g.stream,
        SummedGradientArgs {
            d: Input::new(&d, &g.stream),
            formed: front.act.map(|act| Formed {
                h: Input::new(&h, &g.stream),
                affine: (Input::new(&scale, &g.stream), Input::new(&shift, &g.stream)),
                pqr: Input::new(&pqr, &g.stream),
                act,
            }),
            w: Input::new(&d_w, &g.stream),
            h: Input::new(&d_h2, &g.stream),
            affine: (Input::new(&d_scale2, &g.stream), Input::new(&d_shift2, &g.stream)),
            mean: Input::new(&d_mean2, &g.stream),
            dx: Output::new(&mut dx, &g.stream),
            sums: Output::new(&mut out, &g.stream),
        },
    )
    .expect("it launches");
    let (want, size) = product(&front.formed(), &w, s.n, s.k);
    let (dx, out) = (g.download(&dx), g.download(&out));
    close(&what, &dx, &want, |i| T::EPSILON * want[i].abs() + factor(a) * size[i] + 1e-6);
    // The sums are those of what is stored.
    let images = if sums == Sums::Pair { 1 } else { s.images };
    let plane = s.m() / images;
    let (mut got, mut want) = (vec![0f32; images * s.k * each], vec![0f64; images * s.k * each]);
    let mut size = want.clone();
    for i in 0..s.m() * s.k {
        let (row, c) = (i / s.k, i % s.k);
        let (v, h) = (dx[i].f64(), h2[i].f64());
        let u = h * f64::from(scale2[c]) + f64::from(shift2[c]);
        let (z, x) = (slope(act, u), h - f64::from(mean2[c]));
        let all = [v * activate(act, u), v * z, v * z * x, z, z * x];
        let all = if sums == Sums::Pair { &all[1..3] } else { &all[..] };
        for (j, v) in all.iter().enumerate() {
            want[(row / plane * s.k + c) * each + j] += v;
            size[(row / plane * s.k + c) * each + j] += v.abs();
        }
    }
    for image in 0..images {
        let tiles = image * plane / SummedGradient::ROWS..=((image + 1) * plane - 1) / SummedGradient::ROWS;
        for at in tiles.map(|tile| tile + image) {
            for c in 0..s.k {
                for j in 0..each {
                    let from =
                        if sums == Sums::Pair { (at * s.k + c) * 2 + j } else { (at * 5 + j) * s.k + c };
                    got[(image * s.k + c) * each + j] += out[from];
                }
            }
        }
    }
    close(&format!("{what} sums"), &got, &want, |i| 4e-6 * size[i] + 1e-5);
}

/// What stands in front of the convolution.
#[derive(Clone, Copy, Debug)]
struct Read {
    affine: bool,
    gate: bool,
    act: Act,
}

fn filter<T: Number>(g: &Gpu, s: Shape, a: Arithmetic, act: Option<Act>, read: Read, rows: usize) {
    let what = format!("{s:?} {a:?} {act:?} {read:?}");
    let front = Front::<T>::new(s.m(), s.n, act);
    let x = some::<T>(s.m() * s.k, 6, 3.0);
    let (scale_x, shift_x, gate) = (noise(s.k, 7), noise(s.k, 8), noise(s.images * s.k, 9));
    let op = FilterGradient::new(&g.device, s, a, read.act).expect("a kernel serves it").rows_per_share(rows);
    let (d, h, d_x) = (g.upload(&front.d), g.upload(&front.h), g.upload(&x));
    let (scale, shift, pqr) = (g.upload(&front.scale), g.upload(&front.shift), g.upload(&front.pqr));
    let (d_scale, d_shift, d_gate) = (g.upload(&scale_x), g.upload(&shift_x), g.upload(&gate));
    let p = op.partials();
    let mut dw = g.empty::<f32>(p * s.n * s.k);
    op.launch(
        &g.stream,
        FilterGradientArgs {
            d: Input::new(&d, &g.stream),
            formed: act.map(|act| Formed {
                h: Input::new(&h, &g.stream),
                affine: (Input::new(&scale, &g.stream), Input::new(&shift, &g.stream)),
                pqr: Input::new(&pqr, &g.stream),
                act,
            }),
            x: Input::new(&d_x, &g.stream),
            affine: read.affine.then(|| (Input::new(&d_scale, &g.stream), Input::new(&d_shift, &g.stream))),
            gate: read.gate.then(|| Input::new(&d_gate, &g.stream)),
            dw: Output::new(&mut dw, &g.stream),
        },
    )
    .expect("it launches");
    let parts = g.download(&dw);
    let got: Vec<f32> =
        (0..s.n * s.k).map(|i| (0..p).map(|p| parts[p * s.n * s.k + i]).sum::<f32>()).collect();
    let (mut want, mut size) = (vec![0.0; s.n * s.k], vec![0.0; s.n * s.k]);
    let formed = front.formed();
    for row in 0..s.m() {
        for c in 0..s.k {
            let v = x[row * s.k + c].f64();
            let u = if read.affine { v * f64::from(scale_x[c]) + f64::from(shift_x[c]) } else { v };
            let gate = if read.gate { f64::from(gate[row / s.plane * s.k + c]) } else { 1.0 };
            let z = activate(read.act, u) * gate;
            for o in 0..s.n {
                let product = formed[row * s.n + o] * z;
                want[o * s.k + c] += product;
                size[o * s.k + c] += product.abs();
            }
        }
    }
    close(&what, &got, &want, |i| factor(a) * size[i] + 1e-5);
}

fn every_filter<T: Number>(g: &Gpu, a: Arithmetic) {
    let shape = |images, plane, k, n| Shape { images, plane, k, n };
    let read = |affine, gate, act| Read { affine, gate, act };
    filter::<T>(g, shape(2, 50, 40, 72), a, Some(Act::None), read(false, false, Act::None), 64);
    filter::<T>(g, shape(4, 36, 72, 24), a, Some(Act::Swish), read(true, true, Act::HSwish), 96);
    filter::<T>(g, shape(1, 70, 13, 7), a, Some(Act::Relu6), read(true, true, Act::Swish), 64);
    filter::<T>(g, shape(9, 1, 8, 8), a, Some(Act::HSwish), read(true, true, Act::Relu), 32);
    filter::<T>(g, shape(1, 40, 24, 144), a, None, read(false, false, Act::None), 32);
    filter::<T>(g, shape(2, 24, 16, 24), a, Some(Act::None), read(true, false, Act::Swish), 32);
    filter::<T>(g, shape(2, 21, 9, 16), a, Some(Act::None), read(true, true, Act::HSwish), 32);
    filter::<T>(g, shape(1, 33, 16, 7), a, None, read(true, false, Act::Relu6), 32);
}

/// Edges of every kind: rows that fill no tile, columns that fill no tile, sums that fill no piece, several tiles per
/// block, several images per tile and several tiles per image, channels that fill no vector.
fn every<T: Number>(g: &Gpu, a: Arithmetic) {
    let shape = |images, plane, k, n| Shape { images, plane, k, n };
    let added = |more, accumulate| Added { more, accumulate };
    input::<T>(g, shape(2, 100, 40, 96), a, Some(Act::None), added(true, false), 1);
    input::<T>(g, shape(3, 49, 136, 24), a, Some(Act::Swish), added(false, true), 3);
    input::<T>(g, shape(1, 130, 13, 7), a, Some(Act::Relu6), added(true, true), 1);
    input::<T>(g, shape(3, 1, 8, 8), a, Some(Act::HSwish), added(false, false), 1);
    input::<T>(g, shape(1, 64, 24, 144), a, None, added(false, false), 1);
}

fn every_summed<T: Number>(g: &Gpu, a: Arithmetic) {
    let shape = |images, plane, k, n| Shape { images, plane, k, n };
    summed::<T>(g, shape(2, 100, 96, 40), a, [Some(Act::HSwish), Some(Act::None)], Sums::PerImage, 1);
    summed::<T>(g, shape(5, 49, 72, 24), a, [Some(Act::Swish), Some(Act::Relu)], Sums::PerImage, 2);
    summed::<T>(g, shape(1, 130, 13, 7), a, [Some(Act::Relu6), Some(Act::HSwish)], Sums::PerImage, 1);
    summed::<T>(g, shape(3, 64, 8, 8), a, [Some(Act::Relu), Some(Act::None)], Sums::Pair, 2);
    summed::<T>(g, shape(9, 1, 72, 24), a, [Some(Act::None), None], Sums::PerImage, 1);
    summed::<T>(g, shape(2, 50, 9, 16), a, [Some(Act::Swish), None], Sums::Pair, 1);
    summed::<T>(g, shape(3, 20, 16, 11), a, [Some(Act::HSwish), Some(Act::Relu)], Sums::PerImage, 1);
}

/// Every activation in front of vectors and single channels, in several tiles of columns and images.
fn each_summed<T: Number>(g: &Gpu, a: Arithmetic) {
    let shape = |images, plane, k, n| Shape { images, plane, k, n };
    let added = Added { more: true, accumulate: true };
    input::<T>(g, shape(1, 40, 71, 39), a, Some(Act::Swish), added, 1);
    for act in [Act::Relu6, Act::HSwish, Act::Swish] {
        summed::<T>(g, shape(2, 27, 72, 24), a, [Some(act), Some(act)], Sums::PerImage, 2);
        summed::<T>(g, shape(2, 13, 71, 23), a, [Some(act), Some(act)], Sums::PerImage, 1);
    }
}

/// As [`each_summed`].
fn each_filter<T: Number>(g: &Gpu, a: Arithmetic) {
    let shape = |images, plane, k, n| Shape { images, plane, k, n };
    for act in [Act::Relu6, Act::HSwish, Act::Swish] {
        let read = Read { affine: true, gate: true, act };
        filter::<T>(g, shape(2, 27, 72, 24), a, Some(act), read, 64);
        filter::<T>(g, shape(3, 9, 71, 23), a, Some(act), read, 32);
    }
}

on_device!(each_summed_f32, |g| each_summed::<f32>(g, Arithmetic::F32));
on_device!(each_summed_tf32, |g| each_summed::<f32>(g, Arithmetic::Tf32));
on_device!(each_summed_bf16, |g| each_summed::<bf16>(g, Arithmetic::Bf16));
on_device!(each_filter_f32, |g| each_filter::<f32>(g, Arithmetic::F32));
on_device!(each_filter_tf32, |g| each_filter::<f32>(g, Arithmetic::Tf32));
on_device!(each_filter_bf16, |g| each_filter::<bf16>(g, Arithmetic::Bf16));

on_device!(input_f32, |g| every::<f32>(g, Arithmetic::F32));
on_device!(input_tf32, |g| every::<f32>(g, Arithmetic::Tf32));
on_device!(input_bf16, |g| every::<bf16>(g, Arithmetic::Bf16));
on_device!(summed_f32, |g| every_summed::<f32>(g, Arithmetic::F32));
on_device!(summed_tf32, |g| every_summed::<f32>(g, Arithmetic::Tf32));
on_device!(summed_bf16, |g| every_summed::<bf16>(g, Arithmetic::Bf16));

on_device!(filter_f32, |g| every_filter::<f32>(g, Arithmetic::F32));
on_device!(filter_tf32, |g| every_filter::<f32>(g, Arithmetic::Tf32));
on_device!(filter_bf16, |g| every_filter::<bf16>(g, Arithmetic::Bf16));

on_device!(wrong_shapes_are_refused_by_name, |g| {
    let s = Shape { images: 1, plane: 4, k: 8, n: 8 };
    for (s, part) in [
        (Shape { k: 0, ..s }, "k is 0"),
        (Shape { n: 2056, ..s }, "n is 2056, expected 1 to 2048"),
        (Shape { images: 1 << 20, plane: 1 << 20, ..s }, "images * plane"),
    ] {
        let why = InputGradient::new(&g.device, s, Arithmetic::F32).expect_err("no kernel serves it");
        assert!(why.to_string().contains(part), "{why}");
    }
    g.download(&g.upload(&[0f32]));
});
