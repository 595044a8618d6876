//! Squeeze-excite against its definition.

use half::bf16;
use kernels::batch_norm::{Partial, SumAll};
use kernels::pointwise_gradient::SummedGradient;
use kernels::squeeze_excite::{
    Excite, ExciteArgs, ExciteBackward, ExciteBackwardArgs, Layers, Sigma, Squeeze, SqueezeArgs,
};
use kernels::{Act, DType, Input, Output, Write};

use crate::depthwise::activate;
use crate::harness::{Counted, Gpu, Number, close, dtype, noise};

fn squeeze<T: Number>(g: &Gpu, [images, plane, c]: [usize; 3], act: Act) {
    let h: Vec<T> = noise(images * plane * c, 1).into_iter().map(|v| T::nearest(4.0 * v)).collect();
    let (scale, shift) = (noise(c, 2), noise(c, 3));
    let op = Squeeze::new(&g.device, [images, plane, c], dtype::<T>(), act).expect("a kernel serves it");
    let (dh, ds, db) = (g.upload(&h), g.upload(&scale), g.upload(&shift));
    let mut means = g.empty::<f32>(images * c);
    op.launch(
        &g.stream,
        SqueezeArgs {
            h: Input::new(&dh, &g.stream),
            affine: (Input::new(&ds, &g.stream), Input::new(&db, &g.stream)),
            means: Output::new(&mut means, &g.stream),
        },
    )
    .expect("it launches");
    let mut want = vec![0.0; images * c];
    for (i, v) in h.iter().enumerate() {
        let (image, c0) = (i / (plane * c), i % c);
        let u = v.f64() * f64::from(scale[c0]) + f64::from(shift[c0]);
        want[image * c + c0] += activate(act, u) / plane as f64;
    }
    close(&format!("{images} x {plane} x {c} {act:?}"), &g.download(&means), &want, |_| 4e-6);
}

fn every<T: Number>(g: &Gpu) {
    squeeze::<T>(g, [2, 100, 40], Act::HSwish);
    squeeze::<T>(g, [1, 49, 13], Act::Relu6);
    squeeze::<T>(g, [3, 1, 8], Act::None);
    squeeze::<T>(g, [1, 300, 72], Act::Swish);
    squeeze::<T>(g, [2, 30, 7], Act::HSwish);
    squeeze::<T>(g, [2, 30, 7], Act::Swish);
}

on_device!(squeeze_f32, every::<f32>);
on_device!(squeeze_bf16, every::<bf16>);

/// Parameters and what forward makes of them.
struct Small {
    w1: Vec<f32>,
    b1: Vec<f32>,
    w2: Vec<f32>,
    b2: Vec<f32>,
    means: Vec<f32>,
}

impl Small {
    fn new(l: &Layers) -> Small {
        Small {
            w1: noise(l.r * l.c, 1),
            b1: noise(l.r, 2),
            w2: noise(l.c * l.r, 3),
            b2: noise(l.c, 4).into_iter().map(|v| 3.0 * v).collect(),
            means: noise(l.images * l.c, 5),
        }
    }

    /// The hidden layer and the gates, by definition.
    fn forward(&self, l: &Layers) -> (Vec<f64>, Vec<f64>) {
        let f = |v: f32| f64::from(v);
        let (mut hidden, mut gates) = (Vec::new(), Vec::new());
        for mean in self.means.chunks(l.c) {
            let inner: Vec<f64> = (0..l.r)
                .map(|i| {
                    let row = &self.w1[i * l.c..(i + 1) * l.c];
                    (f(self.b1[i]) + row.iter().zip(mean).map(|(w, m)| f(*w) * f(*m)).sum::<f64>()).max(0.0)
                })
                .collect();
            for c in 0..l.c {
                let row = &self.w2[c * l.r..(c + 1) * l.r];
                let u = f(self.b2[c]) + row.iter().zip(&inner).map(|(w, v)| f(*w) * v).sum::<f64>();
                gates.push(match l.sigma {
                    Sigma::Sigmoid => 1.0 / (1.0 + (-u).exp()),
                    Sigma::HardSigmoid => (u + 3.0).clamp(0.0, 6.0) / 6.0,
                });
            }
            hidden.extend(inner);
        }
        (hidden, gates)
    }
}

fn forward(g: &Gpu, l: Layers) {
    let s = Small::new(&l);
    let op = Excite::new(&g.device, l).expect("a kernel serves it");
    let (w1, b1, w2, b2) = (g.upload(&s.w1), g.upload(&s.b1), g.upload(&s.w2), g.upload(&s.b2));
    let means = g.upload(&s.means);
    let (mut hidden, mut gates) = (g.empty::<f32>(l.images * l.r), g.empty::<f32>(l.images * l.c));
    op.launch(
        &g.stream,
        ExciteArgs {
            means: Input::new(&means, &g.stream),
            first: (Input::new(&w1, &g.stream), Input::new(&b1, &g.stream)),
            second: (Input::new(&w2, &g.stream), Input::new(&b2, &g.stream)),
            hidden: Output::new(&mut hidden, &g.stream),
            gates: Output::new(&mut gates, &g.stream),
        },
    )
    .expect("it launches");
    let (want_hidden, want_gates) = s.forward(&l);
    close(&format!("{l:?} hidden"), &g.download(&hidden), &want_hidden, |_| 2e-6 * (l.c as f64));
    close(&format!("{l:?} gates"), &g.download(&gates), &want_gates, |_| 2e-6 * (l.r as f64 + 4.0));
}

fn layers(images: usize, plane: usize, c: usize, r: usize, sigma: Sigma) -> Layers {
    Layers { images, plane, c, r, sigma }
}

on_device!(gates_are_made_of_means, |g| {
    forward(g, layers(11, 9, 40, 10, Sigma::HardSigmoid));
    forward(g, layers(3, 1, 33, 70, Sigma::Sigmoid));
    forward(g, layers(8, 4, 300, 8, Sigma::HardSigmoid));
});

/// With the five sums of the project pass, or `alone` with the gates' gradients.
fn backward(g: &Gpu, l: Layers, alone: bool) {
    let what = format!("{l:?} {alone}");
    let s = Small::new(&l);
    let (hidden, gates) = s.forward(&l);
    let narrow = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let (tile, each) = if alone { (usize::MAX, 1) } else { (SummedGradient::ROWS, 5) };
    let places = (l.images * l.plane).div_ceil(tile) + l.images - 1;
    let sums = noise(places * each * l.c, 6);
    let up = |v: &[f32]| g.upload(v);
    let (w1, w2, means) = (up(&s.w1), up(&s.w2), up(&s.means));
    let (d_hidden, d_gates, d_sums) = (up(&narrow(&hidden)), up(&narrow(&gates)), up(&sums));
    let make = if alone { ExciteBackward::alone } else { ExciteBackward::new };
    let op = make(&g.device, l).expect("a kernel serves it");
    let p = op.partials();
    let (mut factors, mut norm) = (g.empty::<f32>(each.min(2) * l.images * l.c), g.empty::<f32>(p * l.c * 2));
    let mut parts = g.empty::<f32>(p * op.parameters());
    op.launch(
        &g.stream,
        ExciteBackwardArgs {
            sums: Input::new(&d_sums, &g.stream),
            means: Input::new(&means, &g.stream),
            hidden: Input::new(&d_hidden, &g.stream),
            gates: Input::new(&d_gates, &g.stream),
            w: (Input::new(&w1, &g.stream), Input::new(&w2, &g.stream)),
            factors: Output::new(&mut factors, &g.stream),
            norm: (!alone).then(|| Output::new(&mut norm, &g.stream)),
            parts: Output::new(&mut parts, &g.stream),
        },
    )
    .expect("it launches");
    // Gradients are added to what is there; one of them nobody wants.
    let sizes = [l.r * l.c, l.r, l.c * l.r, l.c];
    let [mut dw1, mut db1, mut dw2, mut db2] = sizes.map(|len| g.upload(&vec![0.5f32; len]));
    let wanted = l.sigma == Sigma::Sigmoid;
    let outs = [&mut dw1, &mut db1, &mut dw2, &mut db2].into_iter().zip(op.places());
    let arrays = outs.enumerate().filter(|(which, _)| *which != 1 || wanted);
    let arrays = arrays.map(|(_, (out, (offset, len)))| Partial {
        parts: Input::new(&parts, &g.stream),
        partials: p,
        stride: op.parameters(),
        offset,
        len,
        out: Output::new(out, &g.stream),
        write: Write::Add,
    });
    SumAll::new(&g.device).expect("it is there").launch(&g.stream, arrays.collect()).expect("it launches");

    // The definition, image by image.
    let f = |v: f32| f64::from(v);
    let mut want = sizes.map(|len| vec![0.5; len]);
    let mut want_factors = vec![0.0; each.min(2) * l.images * l.c];
    let mut want_norm = vec![0.0; 2 * l.c];
    for image in 0..l.images {
        let tiles = || image * l.plane / tile..=((image + 1) * l.plane - 1) / tile;
        let sum = |which: usize, c: usize| {
            tiles().map(|t| f(sums[((t + image) * each + which) * l.c + c])).sum::<f64>()
        };
        let gate = &gates[image * l.c..(image + 1) * l.c];
        let inner = &hidden[image * l.r..(image + 1) * l.r];
        let mean = &s.means[image * l.c..(image + 1) * l.c];
        let du2: Vec<f64> = (0..l.c)
            .map(|c| {
                let slope = match l.sigma {
                    Sigma::Sigmoid => gate[c] * (1.0 - gate[c]),
                    Sigma::HardSigmoid => f64::from(gate[c] > 0.0 && gate[c] < 1.0) / 6.0,
                };
                sum(0, c) * slope
            })
            .collect();
        let du1: Vec<f64> = (0..l.r)
            .map(|i| {
                let d = (0..l.c).map(|c| du2[c] * f(s.w2[c * l.r + i])).sum::<f64>();
                if inner[i] > 0.0 { d } else { 0.0 }
            })
            .collect();
        for c in 0..l.c {
            for i in 0..l.r {
                want[0][i * l.c + c] += du1[i] * f(mean[c]);
                want[2][c * l.r + i] += du2[c] * inner[i];
            }
            want[3][c] += du2[c];
            let dmean: f64 = (0..l.r).map(|i| du1[i] * f(s.w1[i * l.c + c])).sum();
            let extra = dmean / l.plane as f64;
            if alone {
                want_factors[image * l.c + c] = extra;
                continue;
            }
            want_factors[(image * l.c + c) * 2] = gate[c];
            want_factors[(image * l.c + c) * 2 + 1] = extra;
            want_norm[2 * c] += gate[c] * sum(1, c) + extra * sum(3, c);
            want_norm[2 * c + 1] += gate[c] * sum(2, c) + extra * sum(4, c);
        }
        if wanted {
            (0..l.r).for_each(|i| want[1][i] += du1[i]);
        }
    }
    let allowed = |v: f64| 2e-5 * (1.0 + v.abs());
    close(&format!("{what} factors"), &g.download(&factors), &want_factors, |i| allowed(want_factors[i]));
    if !alone {
        let norm = g.download(&norm);
        let norm: Vec<f32> = (0..2 * l.c).map(|i| (0..p).map(|p| norm[p * 2 * l.c + i]).sum()).collect();
        close(&format!("{what} norm"), &norm, &want_norm, |i| 4.0 * allowed(want_norm[i]));
    }
    for (i, got) in [&dw1, &db1, &dw2, &db2].into_iter().enumerate() {
        close(&format!("{what} gradient {i}"), &g.download(got), &want[i], |j| 4.0 * allowed(want[i][j]));
    }
}

on_device!(gradients_of_the_gate_come_from_five_sums, |g| {
    backward(g, layers(11, 100, 40, 10, Sigma::HardSigmoid), false);
    backward(g, layers(3, 1, 33, 70, Sigma::Sigmoid), false);
    backward(g, layers(8, 300, 90, 32, Sigma::HardSigmoid), false);
    backward(g, layers(9, 49, 24, 6, Sigma::Sigmoid), false);
});

on_device!(gradients_of_a_gate_that_stands_alone, |g| {
    backward(g, layers(11, 100, 40, 10, Sigma::HardSigmoid), true);
    backward(g, layers(3, 1, 33, 70, Sigma::Sigmoid), true);
});

on_device!(wrong_shapes_are_refused_by_name, |g| {
    let l = layers(3, 4, 24, 6, Sigma::Sigmoid);
    for (l, part) in [
        (Layers { images: 0, ..l }, "excite_bwd: images is 0"),
        (Layers { c: 5000, ..l }, "c is 5000, expected 1 to 4096"),
        (Layers { c: 4000, r: 1000, ..l }, "fit 99 KiB"),
    ] {
        let why = ExciteBackward::new(&g.device, l).expect_err("no kernel serves it");
        assert!(why.to_string().contains(part), "{why}");
    }
    let why = Squeeze::new(&g.device, [70_000, 4, 8], DType::F32, Act::None).expect_err("too many images");
    assert!(why.to_string().contains("squeeze: images is 70000, expected 1 to 65535"), "{why}");
    g.download(&g.upload(&[0f32]));
});

/// Eight images of 14 x 14, 120 channels and 30 in the hidden layer.
fn gates_cost(g: &Gpu) {
    let l = layers(8, 196, 120, 30, Sigma::HardSigmoid);
    forward(g, l);
    backward(g, l, false);
}

pub const COUNTED: [Counted; 1] = [Counted {
    case: "gates, per image and channel",
    elements: 8 * 120,
    most: &[("excite_fwd", 1450.0), ("excite_bwd", 800.0)],
    body: gates_cost,
}];
