//! Depthwise convolutions against their definition.

use half::bf16;
use kernels::depthwise::{Backward, BackwardArgs, Forward, ForwardArgs, Shape};
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
    check_moments(&what, &y, s.c, &m, &counts);
}

/// Asserts that partial moments are those of the values as stored.
pub fn check_moments<T: Number>(what: &str, y: &[T], channels: usize, m: &[f32], counts: &[f32]) {
    assert_eq!(counts.iter().sum::<f32>() as usize, y.len() / channels, "{what}");
    for (c, (mean, m2)) in moments(y, channels).into_iter().enumerate() {
        let n: f64 = counts.iter().map(|v| f64::from(*v)).sum();
        let part = |i: usize, which: usize| f64::from(m[(i * channels + c) * 2 + which]);
        let each = || 0..counts.len();
        let merged = each().map(|i| f64::from(counts[i]) * part(i, 0)).sum::<f64>() / n;
        let squares: f64 =
            each().map(|i| part(i, 1) + f64::from(counts[i]) * (part(i, 0) - merged).powi(2)).sum();
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

/// Every activation where channels fill vectors and where they do not, and with nothing in front.
fn each_act<T: Number>(g: &Gpu, k: usize, stride: usize) {
    let shape = |n, h, w, c| Shape { n, h, w, c, k, stride };
    for act in [Act::Relu6, Act::HSwish, Act::Swish] {
        forward::<T>(g, shape(1, 5, 10, 40), true, act, 1);
        forward::<T>(g, shape(2, 3, 7, 33), true, act, 2);
        forward::<T>(g, shape(1, 2, 9, 3), false, act, 1);
    }
}

on_device!(each_forward_k3s1_f32, |g| each_act::<f32>(g, 3, 1));
on_device!(each_forward_k3s1_bf16, |g| each_act::<bf16>(g, 3, 1));
on_device!(each_forward_k3s2_f32, |g| each_act::<f32>(g, 3, 2));
on_device!(each_forward_k3s2_bf16, |g| each_act::<bf16>(g, 3, 2));
on_device!(each_forward_k5s1_f32, |g| each_act::<f32>(g, 5, 1));
on_device!(each_forward_k5s1_bf16, |g| each_act::<bf16>(g, 5, 1));
on_device!(each_forward_k5s2_f32, |g| each_act::<f32>(g, 5, 2));
on_device!(each_forward_k5s2_bf16, |g| each_act::<bf16>(g, 5, 2));
on_device!(each_forward_k7s1_f32, |g| each_act::<f32>(g, 7, 1));
on_device!(each_forward_k7s1_bf16, |g| each_act::<bf16>(g, 7, 1));
on_device!(each_forward_k7s2_f32, |g| each_act::<f32>(g, 7, 2));
on_device!(each_forward_k7s2_bf16, |g| each_act::<bf16>(g, 7, 2));

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

/// The derivative of an activation in f64.
pub fn slope(act: Act, u: f64) -> f64 {
    match act {
        Act::None => 1.0,
        Act::Relu => f64::from(u > 0.0),
        Act::Relu6 => f64::from(u > 0.0 && u < 6.0),
        Act::HSwish if u.abs() >= 3.0 => f64::from(u > 0.0),
        Act::HSwish => u / 3.0 + 0.5,
        Act::Swish => {
            let s = 1.0 / (1.0 + (-u).exp());
            s * (1.0 + u * (1.0 - s))
        }
    }
}

/// Which parts of a block surround the convolution.
#[derive(Clone, Copy, Debug)]
struct Around {
    /// Batch norm and activation in front.
    front: bool,
    /// Squeeze-excite behind.
    gate: bool,
}

fn backward<T: Number>(g: &Gpu, s: Shape, around: Around, act: Act, images: usize) {
    let what = format!("{s:?} {act:?} {around:?}");
    let (input, output) = (s.n * s.h * s.w * s.c, s.n * s.oh() * s.ow() * s.c);
    let d = Data::<T>::new(&s);
    let rounded =
        |len, seed, size| -> Vec<T> { noise(len, seed).into_iter().map(|v| T::nearest(size * v)).collect() };
    let (da2, h2) = (rounded(output, 5, 1.0), rounded(output, 6, 3.0));
    let (scale2, shift2, pqr) = (noise(s.c, 7), noise(s.c, 8), noise(3 * s.c, 9));
    let (gate, mean1) = (noise(2 * s.n * s.c, 10), noise(s.c, 11));
    // The definition.
    let f = |v: f32| f64::from(v);
    let dh2: Vec<f64> = (0..output)
        .map(|i| {
            let (c, image) = (i % s.c, i / (s.oh() * s.ow() * s.c));
            let at = (image * s.c + c) * 2;
            let (gate, extra) = if around.gate { (f(gate[at]), f(gate[at + 1])) } else { (1.0, 0.0) };
            let h = h2[i].f64();
            let du2 = (da2[i].f64() * gate + extra) * slope(act, h * f(scale2[c]) + f(shift2[c]));
            f(pqr[c]) * du2 + f(pqr[s.c + c]) * h + f(pqr[2 * s.c + c])
        })
        .collect();
    let u1 = |i: usize| d.x[i].f64() * f(d.scale[i % s.c]) + f(d.shift[i % s.c]);
    let a1: Vec<f64> =
        (0..input).map(|i| if around.front { activate(act, u1(i)) } else { d.x[i].f64() }).collect();
    let (mut da1, mut size) = (vec![0.0; input], vec![0.0; input]);
    let (mut dw, mut dw_size) = (vec![0.0; s.k * s.k * s.c], vec![0.0; s.k * s.k * s.c]);
    for image in 0..s.n {
        for o in 0..s.oh() * s.ow() {
            for (at, t) in taps(&s, o / s.ow(), o % s.ow()) {
                for c in 0..s.c {
                    let i = (image * s.h * s.w + at) * s.c + c;
                    let dy = dh2[(image * s.oh() * s.ow() + o) * s.c + c];
                    let wt = f(d.w[t * s.c + c]);
                    da1[i] += wt * dy;
                    size[i] += (wt * dy).abs();
                    dw[t * s.c + c] += a1[i] * dy;
                    dw_size[t * s.c + c] += (a1[i] * dy).abs();
                }
            }
        }
    }
    let factor = |i: usize| if around.front { slope(act, u1(i)) } else { 1.0 };
    let du1: Vec<f64> = (0..input).map(|i| da1[i] * factor(i)).collect();

    let op = Backward::new(&g.device, s, dtype::<T>(), act).expect("a kernel serves it");
    let op = if images == 1 { op } else { op.split(images, s.h) };
    let p = op.partials();
    let up = |v: &[f32]| g.upload(v);
    let (d_da2, d_h2, d_h1) = (g.upload(&da2), g.upload(&h2), g.upload(&d.x));
    let (d_scale2, d_shift2, d_pqr, d_gate) = (up(&scale2), up(&shift2), up(&pqr), up(&gate));
    let (d_scale1, d_shift1, d_mean1, d_w) = (up(&d.scale), up(&d.shift), up(&mean1), up(&d.w));
    let mut out = g.empty::<T>(input);
    let (mut parts, mut sums) = (g.empty::<f32>(p * s.k * s.k * s.c), g.empty::<f32>(p * s.c * 2));
    op.launch(
        &g.stream,
        BackwardArgs {
            da2: Input::new(&d_da2, &g.stream),
            h2: Input::new(&d_h2, &g.stream),
            affine2: (Input::new(&d_scale2, &g.stream), Input::new(&d_shift2, &g.stream)),
            pqr: Input::new(&d_pqr, &g.stream),
            gate: around.gate.then(|| Input::new(&d_gate, &g.stream)),
            h1: Input::new(&d_h1, &g.stream),
            affine1: around
                .front
                .then(|| (Input::new(&d_scale1, &g.stream), Input::new(&d_shift1, &g.stream))),
            mean1: around.front.then(|| Input::new(&d_mean1, &g.stream)),
            w: Input::new(&d_w, &g.stream),
            du1: Output::new(&mut out, &g.stream),
            dw: Output::new(&mut parts, &g.stream),
            sums: Output::new(&mut sums, &g.stream),
        },
    )
    .expect("it launches");
    let (out, parts, sums) = (g.download(&out), g.download(&parts), g.download(&sums));
    close(&format!("du1 of {what}"), &out, &du1, |i| {
        T::EPSILON * du1[i].abs() + 1e-5 * size[i] * factor(i).abs().max(0.1) + 1e-6
    });
    let filter = s.k * s.k * s.c;
    let merged: Vec<f32> = (0..filter).map(|i| (0..p).map(|j| parts[j * filter + i]).sum()).collect();
    close(&format!("dw of {what}"), &merged, &dw, |i| 1e-5 * dw_size[i] + 1e-6);
    for c in 0..s.c {
        let mean = if around.front { f(mean1[c]) } else { 0.0 };
        let each = || (c..input).step_by(s.c).map(|i| (out[i].f64(), d.x[i].f64() - mean));
        for (which, want, size) in [
            (0, each().map(|v| v.0).sum::<f64>(), each().map(|v| v.0.abs()).sum::<f64>()),
            (1, each().map(|v| v.0 * v.1).sum(), each().map(|v| (v.0 * v.1).abs()).sum()),
        ] {
            let got: f64 = (0..p).map(|j| f(sums[(j * s.c + c) * 2 + which])).sum();
            assert!(
                (got - want).abs() <= 1e-5 * size + 1e-6,
                "{what}: sum {which} of {c} is {got} for {want}"
            );
        }
    }
}

/// As [`every`], with and without the parts around the convolution.
fn every_backward<T: Number>(g: &Gpu, k: usize, stride: usize) {
    let shape = |n, h, w, c| Shape { n, h, w, c, k, stride };
    let around = |front, gate| Around { front, gate };
    backward::<T>(g, shape(2, 5, 9, 40), around(true, true), Act::HSwish, 1);
    backward::<T>(g, shape(3, 7, 7, 33), around(true, false), Act::Swish, 2);
    backward::<T>(g, shape(1, 18, 9, 8), around(true, true), Act::Relu6, 1);
    backward::<T>(g, shape(2, 1, 1, 3), around(true, true), Act::Relu, 1);
    backward::<T>(g, shape(1, 3, 61, 16), around(false, false), Act::Relu6, 1);
}

/// As [`each_act`].
fn each_backward<T: Number>(g: &Gpu, k: usize, stride: usize) {
    let shape = |n, h, w, c| Shape { n, h, w, c, k, stride };
    for act in [Act::Relu6, Act::HSwish, Act::Swish] {
        backward::<T>(g, shape(1, 4, 9, 40), Around { front: true, gate: true }, act, 1);
        backward::<T>(g, shape(2, 3, 5, 33), Around { front: true, gate: true }, act, 2);
        backward::<T>(g, shape(1, 2, 9, 3), Around { front: false, gate: false }, act, 1);
    }
}

on_device!(each_backward_k3s1_f32, |g| each_backward::<f32>(g, 3, 1));
on_device!(each_backward_k3s1_bf16, |g| each_backward::<bf16>(g, 3, 1));
on_device!(each_backward_k3s2_f32, |g| each_backward::<f32>(g, 3, 2));
on_device!(each_backward_k3s2_bf16, |g| each_backward::<bf16>(g, 3, 2));
on_device!(each_backward_k5s1_f32, |g| each_backward::<f32>(g, 5, 1));
on_device!(each_backward_k5s1_bf16, |g| each_backward::<bf16>(g, 5, 1));
on_device!(each_backward_k5s2_f32, |g| each_backward::<f32>(g, 5, 2));
on_device!(each_backward_k5s2_bf16, |g| each_backward::<bf16>(g, 5, 2));
on_device!(each_backward_k7s1_f32, |g| each_backward::<f32>(g, 7, 1));
on_device!(each_backward_k7s1_bf16, |g| each_backward::<bf16>(g, 7, 1));
on_device!(each_backward_k7s2_f32, |g| each_backward::<f32>(g, 7, 2));
on_device!(each_backward_k7s2_bf16, |g| each_backward::<bf16>(g, 7, 2));

on_device!(backward_k3s1_f32, |g| every_backward::<f32>(g, 3, 1));
on_device!(backward_k3s1_bf16, |g| every_backward::<bf16>(g, 3, 1));
on_device!(backward_k3s2_f32, |g| every_backward::<f32>(g, 3, 2));
on_device!(backward_k3s2_bf16, |g| every_backward::<bf16>(g, 3, 2));
on_device!(backward_k5s1_f32, |g| every_backward::<f32>(g, 5, 1));
on_device!(backward_k5s1_bf16, |g| every_backward::<bf16>(g, 5, 1));
on_device!(backward_k5s2_f32, |g| every_backward::<f32>(g, 5, 2));
on_device!(backward_k5s2_bf16, |g| every_backward::<bf16>(g, 5, 2));
on_device!(backward_k7s1_f32, |g| every_backward::<f32>(g, 7, 1));
on_device!(backward_k7s1_bf16, |g| every_backward::<bf16>(g, 7, 1));
on_device!(backward_k7s2_f32, |g| every_backward::<f32>(g, 7, 2));
on_device!(backward_k7s2_bf16, |g| every_backward::<bf16>(g, 7, 2));

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
