//! Depthwise convolutions against their definition.

use half::bf16;
use kernels::depthwise::{Forward, ForwardArgs, Shape};
use kernels::{Act, DType, Input, Output};

use crate::harness::{Gpu, Number, close, dtype, noise};

/// An activation in f64.
pub fn activate(act: Act, u: f64) -> f64 {
    match act {
        Act::None => u,
        Act::Relu => u.max(0.0),
        Act::Relu6 => u.clamp(0.0, 6.0),
        Act::HSwish => u * (u + 3.0).clamp(0.0, 6.0) / 6.0,
        Act::Swish => u / (1.0 + (-u).exp()),
    }
}

/// Inputs of a case.
pub struct Data<T> {
    pub x: Vec<T>,
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    pub w: Vec<f32>,
}

impl<T: Number> Data<T> {
    pub fn new(s: &Shape) -> Data<T> {
        Data {
            x: noise(s.n * s.h * s.w * s.c, 1).into_iter().map(|v| T::nearest(3.0 * v)).collect(),
            scale: noise(s.c, 2).into_iter().map(|v| 1.5 * v).collect(),
            shift: noise(s.c, 3),
            w: noise(s.k * s.k * s.c, 4),
        }
    }
}

/// Taps of an output: (index of the input, index of the tap's filter row).
pub fn taps(s: &Shape, oy: usize, ox: usize) -> impl Iterator<Item = (usize, usize)> {
    let s = *s;
    (0..s.k * s.k).filter_map(move |t| {
        let y = (oy * s.stride + t / s.k).checked_sub(s.k / 2)?;
        let x = (ox * s.stride + t % s.k).checked_sub(s.k / 2)?;
        (y < s.h && x < s.w).then_some((y * s.w + x, t))
    })
}

/// The definition: values and, per output, the sum of absolute products.
fn reference<T: Number>(s: &Shape, d: &Data<T>, affine: bool, act: Act) -> (Vec<f64>, Vec<f64>) {
    let z: Vec<f64> = d
        .x
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let c = i % s.c;
            let u = if affine { v.f64() * f64::from(d.scale[c]) + f64::from(d.shift[c]) } else { v.f64() };
            activate(act, u)
        })
        .collect();
    let (mut y, mut size) = (Vec::new(), Vec::new());
    for image in 0..s.n {
        for oy in 0..s.oh() {
            for ox in 0..s.ow() {
                for c in 0..s.c {
                    let (mut sum, mut absolute) = (0.0, 0.0);
                    for (at, t) in taps(s, oy, ox) {
                        let product = z[(image * s.h * s.w + at) * s.c + c] * f64::from(d.w[t * s.c + c]);
                        sum += product;
                        absolute += product.abs();
                    }
                    y.push(sum);
                    size.push(absolute);
                }
            }
        }
    }
    (y, size)
}

/// Mean and sum of squared deviations per channel.
fn moments<T: Number>(y: &[T], c: usize) -> Vec<(f64, f64)> {
    (0..c)
        .map(|c0| {
            let values: Vec<f64> = y.iter().skip(c0).step_by(c).map(|v| v.f64()).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (mean, values.iter().map(|v| (v - mean).powi(2)).sum())
        })
        .collect()
}

fn forward<T: Number>(g: &Gpu, s: Shape, affine: bool, act: Act, images: usize) {
    let d = Data::<T>::new(&s);
    let what = format!("{s:?} {act:?}");
    let op = Forward::new(&g.device, s, dtype::<T>(), act).expect("a kernel serves it");
    let op = if images == 1 { op } else { op.split(images, s.oh()) };
    let (x, w) = (g.upload(&d.x), g.upload(&d.w));
    let (scale, shift) = (g.upload(&d.scale), g.upload(&d.shift));
    let p = op.partials();
    let mut y = g.empty::<T>(s.n * s.oh() * s.ow() * s.c);
    let (mut m, mut counts) = (g.empty::<f32>(p * s.c * 2), g.empty::<f32>(p));
    op.launch(
        &g.stream,
        ForwardArgs {
            x: Input::new(&x, &g.stream),
            affine: affine.then(|| (Input::new(&scale, &g.stream), Input::new(&shift, &g.stream))),
            w: Input::new(&w, &g.stream),
            y: Output::new(&mut y, &g.stream),
            moments: Output::new(&mut m, &g.stream),
            counts: Output::new(&mut counts, &g.stream),
        },
    )
    .expect("it launches");
    let (y, m, counts) = (g.download(&y), g.download(&m), g.download(&counts));
    let (want, size) = reference(&s, &d, affine, act);
    close(&what, &y, &want, |i| T::EPSILON * want[i].abs() + 4e-6 * size[i] + 1e-6);
    assert_eq!(counts.iter().sum::<f32>() as usize, s.n * s.oh() * s.ow(), "{what}");
    for (c, (mean, m2)) in moments(&y, s.c).into_iter().enumerate() {
        let n: f64 = counts.iter().map(|v| f64::from(*v)).sum();
        let part = |i: usize, which: usize| f64::from(m[(i * s.c + c) * 2 + which]);
        let merged = (0..p).map(|i| f64::from(counts[i]) * part(i, 0)).sum::<f64>() / n;
        let squares: f64 =
            (0..p).map(|i| part(i, 1) + f64::from(counts[i]) * (part(i, 0) - merged).powi(2)).sum();
        let deviation = (m2 / n).sqrt();
        assert!(
            (merged - mean).abs() <= 1e-5 * (deviation + mean.abs()) + 1e-7,
            "{what}: mean {merged} for {mean}"
        );
        assert!((squares - m2).abs() <= 1e-4 * m2 + 1e-6, "{what}: deviations {squares} for {m2}");
    }
}

/// Planes, channels and activations that between them reach every path: both edges, several strips of rows and
/// columns, a part of a warp's columns, channels that are no multiple of 32 or of a vector, several images per block.
fn every<T: Number>(g: &Gpu, k: usize, stride: usize) {
    let shape = |n, h, w, c| Shape { n, h, w, c, k, stride };
    forward::<T>(g, shape(2, 9, 10, 40), true, Act::HSwish, 1);
    forward::<T>(g, shape(3, 7, 7, 33), true, Act::Swish, 2);
    forward::<T>(g, shape(1, 17, 16, 8), true, Act::Relu6, 1);
    forward::<T>(g, shape(2, 1, 1, 3), true, Act::Relu, 1);
    forward::<T>(g, shape(1, 3, 61, 16), false, Act::None, 1);
}

on_device!(forward_k3s1_f32, |g| every::<f32>(g, 3, 1));
on_device!(forward_k3s1_bf16, |g| every::<bf16>(g, 3, 1));
on_device!(forward_k3s2_f32, |g| every::<f32>(g, 3, 2));
on_device!(forward_k3s2_bf16, |g| every::<bf16>(g, 3, 2));
on_device!(forward_k5s1_f32, |g| every::<f32>(g, 5, 1));
on_device!(forward_k5s1_bf16, |g| every::<bf16>(g, 5, 1));
on_device!(forward_k5s2_f32, |g| every::<f32>(g, 5, 2));
on_device!(forward_k5s2_bf16, |g| every::<bf16>(g, 5, 2));
on_device!(forward_k7s1_f32, |g| every::<f32>(g, 7, 1));
on_device!(forward_k7s1_bf16, |g| every::<bf16>(g, 7, 1));
on_device!(forward_k7s2_f32, |g| every::<f32>(g, 7, 2));
on_device!(forward_k7s2_bf16, |g| every::<bf16>(g, 7, 2));

on_device!(wrong_shapes_and_buffers_are_refused_by_name, |g| {
    let s = Shape { n: 1, h: 4, w: 4, c: 8, k: 3, stride: 1 };
    let wrong =
        |s, dtype| Forward::new(&g.device, s, dtype, Act::None).expect_err("no kernel serves it").to_string();
    assert!(wrong(Shape { k: 4, ..s }, DType::F32).contains("k is 4, expected 3, 5 or 7"));
    assert!(wrong(Shape { stride: 3, ..s }, DType::F32).contains("stride is 3"));
    assert!(wrong(Shape { c: 0, ..s }, DType::F32).contains("c is 0"));
    assert!(wrong(Shape { h: usize::MAX, ..s }, DType::F32).contains("h is"));
    assert!(wrong(s, DType::I32).contains("i32"));
    let op = Forward::new(&g.device, s, DType::F32, Act::None).expect("a kernel serves it");
    let (x, w, brief) = (g.upload(&[1f32; 128]), g.upload(&[1f32; 72]), g.upload(&[1f32; 127]));
    let halves = g.upload(&[bf16::ONE; 128]);
    let (mut y, mut m, mut counts) = (g.empty::<f32>(128), g.empty::<f32>(16), g.empty::<f32>(1));
    let mut launch = |x| {
        let args = ForwardArgs {
            x,
            affine: None,
            w: Input::new(&w, &g.stream),
            y: Output::new(&mut y, &g.stream),
            moments: Output::new(&mut m, &g.stream),
            counts: Output::new(&mut counts, &g.stream),
        };
        op.launch(&g.stream, args).map_err(|e| e.to_string())
    };
    let why = launch(Input::new(&brief, &g.stream)).expect_err("one is missing");
    assert!(why.contains("`x` has 127 elements, 128 are needed"), "{why}");
    let why = launch(Input::new(&halves, &g.stream)).expect_err("the type differs");
    assert!(why.contains("`x` holds bf16, expected f32"), "{why}");
    launch(Input::new(&x, &g.stream)).expect("it launches");
    g.download(&y);
});
