//! 1x1 convolutions against their definition.

use half::bf16;
use kernels::pointwise::{Arithmetic, Forward, ForwardArgs, Shape};
use kernels::{Act, Input, Output};

use crate::depthwise::{activate, check_moments};
use crate::harness::{Gpu, Number, close, noise};

/// What stands in front of the product.
#[derive(Clone, Copy, Debug)]
struct Front {
    affine: bool,
    gate: bool,
}

fn forward<T: Number>(g: &Gpu, s: Shape, arithmetic: Arithmetic, front: Front, act: Act, tiles: usize) {
    let what = format!("{s:?} {arithmetic:?} {front:?} {act:?}");
    let rounded = |len, seed, size: f32| -> Vec<T> {
        noise(len, seed).into_iter().map(|v| T::nearest(size * v)).collect()
    };
    let (x, w) = (rounded(s.m() * s.k, 1, 3.0), rounded(s.n * s.k, 2, 1.0));
    let (scale, shift, gate) = (noise(s.k, 3), noise(s.k, 4), noise(s.images * s.k, 5));
    let op = Forward::new(&g.device, s, arithmetic, act).expect("a kernel serves it").tiles_per_block(tiles);
    let (dx, dw) = (g.upload(&x), g.upload(&w));
    let (d_scale, d_shift, d_gate) = (g.upload(&scale), g.upload(&shift), g.upload(&gate));
    let p = op.partials();
    let mut y = g.empty::<T>(s.m() * s.n);
    let (mut m, mut counts) = (g.empty::<f32>(p * s.n * 2), g.empty::<f32>(p));
    op.launch(
        &g.stream,
        ForwardArgs {
            x: Input::new(&dx, &g.stream),
            affine: front.affine.then(|| (Input::new(&d_scale, &g.stream), Input::new(&d_shift, &g.stream))),
            gate: front.gate.then(|| Input::new(&d_gate, &g.stream)),
            w: Input::new(&dw, &g.stream),
            y: Output::new(&mut y, &g.stream),
            moments: Output::new(&mut m, &g.stream),
            counts: Output::new(&mut counts, &g.stream),
        },
    )
    .expect("it launches");
    let (y, m, counts) = (g.download(&y), g.download(&m), g.download(&counts));
    let f = |v: f32| f64::from(v);
    let z: Vec<f64> = (0..s.m() * s.k)
        .map(|i| {
            let (k, image) = (i % s.k, i / (s.plane * s.k));
            let u = if front.affine { x[i].f64() * f(scale[k]) + f(shift[k]) } else { x[i].f64() };
            activate(act, u) * if front.gate { f(gate[image * s.k + k]) } else { 1.0 }
        })
        .collect();
    let (mut want, mut size) = (Vec::new(), Vec::new());
    for row in z.chunks(s.k) {
        for column in w.chunks(s.k) {
            let products = || row.iter().zip(column).map(|(z, w)| z * w.f64());
            want.push(products().sum::<f64>());
            size.push(products().map(f64::abs).sum::<f64>());
        }
    }
    // Relative error of one product: factors are rounded to 24, 11 or 8 bits.
    let factor = match arithmetic {
        Arithmetic::F32 => 2e-6,
        Arithmetic::Tf32 => 1.0 / 1024.0,
        Arithmetic::Bf16 => 1.0 / 256.0,
    };
    close(&what, &y, &want, |i| T::EPSILON * want[i].abs() + factor * size[i] + 1e-6);
    check_moments(&what, &y, s.n, &m, &counts);
}

/// Edges of every kind: rows that fill no tile, columns that fill no tile, k that fills no piece, several tiles per
/// block, several images per tile, channels that fill no vector.
fn every<T: Number>(g: &Gpu, a: Arithmetic) {
    let shape = |images, plane, k, n| Shape { images, plane, k, n };
    let front = |affine, gate| Front { affine, gate };
    forward::<T>(g, shape(2, 100, 40, 96), a, front(true, false), Act::HSwish, 1);
    forward::<T>(g, shape(5, 49, 72, 24), a, front(true, true), Act::Swish, 2);
    forward::<T>(g, shape(1, 130, 13, 7), a, front(true, true), Act::Relu6, 1);
    forward::<T>(g, shape(3, 1, 8, 8), a, front(true, false), Act::Relu, 1);
    forward::<T>(g, shape(1, 64, 24, 144), a, front(false, false), Act::None, 1);
    forward::<T>(g, shape(2, 33, 9, 20), a, front(true, true), Act::HSwish, 1);
    forward::<T>(g, shape(1, 20, 27, 5), a, front(true, false), Act::Swish, 1);
}

/// Every activation before vectors and single channels, in several tiles of columns and images.
fn each_act<T: Number>(g: &Gpu, a: Arithmetic) {
    let shape = |images, plane, k, n| Shape { images, plane, k, n };
    for act in [Act::Relu6, Act::HSwish, Act::Swish] {
        let front = Front { affine: true, gate: true };
        forward::<T>(g, shape(3, 27, 24, 72), a, front, act, 2);
        forward::<T>(g, shape(2, 25, 39, 71), a, front, act, 1);
    }
}

on_device!(each_activation_f32, |g| each_act::<f32>(g, Arithmetic::F32));
on_device!(each_activation_tf32, |g| each_act::<f32>(g, Arithmetic::Tf32));
on_device!(each_activation_bf16, |g| each_act::<bf16>(g, Arithmetic::Bf16));

on_device!(forward_f32, |g| every::<f32>(g, Arithmetic::F32));
on_device!(forward_tf32, |g| every::<f32>(g, Arithmetic::Tf32));
on_device!(forward_bf16, |g| every::<bf16>(g, Arithmetic::Bf16));

on_device!(wrong_shapes_are_refused_by_name, |g| {
    let s = Shape { images: 1, plane: 4, k: 8, n: 8 };
    for (s, part) in [
        (Shape { k: 0, ..s }, "k is 0"),
        (Shape { k: 5000, ..s }, "k is 5000, expected 1 to 4096"),
        (Shape { n: 0, ..s }, "n is 0"),
        (Shape { images: 1 << 20, plane: 1 << 20, ..s }, "images * plane"),
    ] {
        let why = Forward::new(&g.device, s, Arithmetic::F32, Act::None).expect_err("no kernel serves it");
        assert!(why.to_string().contains(part), "{why}");
    }
    g.download(&g.upload(&[0f32]));
});
