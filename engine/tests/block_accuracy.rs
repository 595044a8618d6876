//! The fused block at the shapes of its bench against the same block in f64, value and all gradients.
//!
//! The f64 block is a chain of plain loops with its backward written by hand.

use engine::ops::{Act, InvertedResidual, Statistics};
use engine::{Cpu, Rng, Shape, Tape, Tensor, Var};

/// Largest error allowed, in root mean squares of the reference.
const ALLOWED: f64 = 3e-5;
const EPS: f64 = 1e-5;

/// Sizes: channels, side, kernel, expansion, images, hidden width.
#[derive(Clone, Copy)]
struct Dims {
    c: usize,
    side: usize,
    k: usize,
    t: usize,
    n: usize,
    r: usize,
}

/// `y [rows, o] = x [rows, i] w [o, i]^T`.
fn dense(x: &[f64], w: &[f64], i: usize) -> Vec<f64> {
    x.chunks_exact(i)
        .flat_map(|x| w.chunks_exact(i).map(|w| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>()))
        .collect()
}

/// `[dx, dw]` of [`dense`].
fn dense_back(dy: &[f64], x: &[f64], w: &[f64], i: usize) -> [Vec<f64>; 2] {
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    let o = w.len() / i;
    for ((dy, x), dx) in dy.chunks_exact(o).zip(x.chunks_exact(i)).zip(dx.chunks_exact_mut(i)) {
        for ((&d, w), dw) in dy.iter().zip(w.chunks_exact(i)).zip(dw.chunks_exact_mut(i)) {
            dx.iter_mut().zip(w).for_each(|(dx, w)| *dx += d * w);
            dw.iter_mut().zip(x).for_each(|(dw, x)| *dw += d * x);
        }
    }
    [dx, dw]
}

fn column_sums(a: &[f64], c: usize) -> Vec<f64> {
    let mut sums = vec![0.0; c];
    a.chunks_exact(c).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v));
    sums
}

/// A batch norm: `u`, and what its backward needs.
struct Norm {
    u: Vec<f64>,
    /// `(h - mean) / deviation`.
    unit: Vec<f64>,
    scale: Vec<f64>,
}

fn norm(h: &[f64], gamma: &[f64], beta: &[f64]) -> Norm {
    let c = gamma.len();
    let rows = (h.len() / c) as f64;
    let mean: Vec<f64> = column_sums(h, c).iter().map(|sum| sum / rows).collect();
    let off: Vec<f64> = h.iter().enumerate().map(|(at, h)| h - mean[at % c]).collect();
    let squares: Vec<f64> = off.iter().map(|v| v * v).collect();
    let inverse: Vec<f64> = column_sums(&squares, c).iter().map(|s| 1.0 / (s / rows + EPS).sqrt()).collect();
    let unit: Vec<f64> = off.iter().enumerate().map(|(at, v)| v * inverse[at % c]).collect();
    let u = unit.iter().enumerate().map(|(at, v)| v * gamma[at % c] + beta[at % c]).collect();
    Norm { u, unit, scale: gamma.iter().zip(inverse).map(|(g, i)| g * i).collect() }
}

/// `[dh, dgamma, dbeta]`.
fn norm_back(du: &[f64], norm: &Norm) -> [Vec<f64>; 3] {
    let c = norm.scale.len();
    let rows = (du.len() / c) as f64;
    let products: Vec<f64> = du.iter().zip(&norm.unit).map(|(d, x)| d * x).collect();
    let (dgamma, dbeta) = (column_sums(&products, c), column_sums(du, c));
    let dh = du.iter().zip(&norm.unit).enumerate().map(|(at, (d, x))| {
        let j = at % c;
        norm.scale[j] * (d - dbeta[j] / rows - x * dgamma[j] / rows)
    });
    [dh.collect(), dgamma, dbeta]
}

fn hswish(u: f64) -> f64 {
    u * (u + 3.0).clamp(0.0, 6.0) / 6.0
}

fn hswish_slope(u: f64) -> f64 {
    if u <= -3.0 {
        0.0
    } else if u < 3.0 {
        u / 3.0 + 0.5
    } else {
        1.0
    }
}

/// Calls `f(output element, input element, filter element)` for every term of the depthwise.
fn windows(d: Dims, mut f: impl FnMut(usize, usize, usize)) {
    let (e, pad) = (d.c * d.t, d.k / 2);
    for at in 0..d.n * d.side * d.side * d.k * d.k {
        let (tap, pixel) = (at % (d.k * d.k), at / (d.k * d.k));
        let (b, y, x) = (pixel / (d.side * d.side), pixel / d.side % d.side, pixel % d.side);
        let (iy, ix) = (y + tap / d.k, x + tap % d.k);
        if (pad..d.side + pad).contains(&iy) && (pad..d.side + pad).contains(&ix) {
            let from = (b * d.side + iy - pad) * d.side + ix - pad;
            (0..e).for_each(|j| f(pixel * e + j, from * e + j, tap * e + j));
        }
    }
}

/// The output, and the gradients of the fourteen inputs for the output's gradient `dy`.
fn reference(d: Dims, inputs: &[Vec<f64>], dy: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let [x, w1, g1, b1, w2, g2, b2, sw1, sb1, sw2, sb2, w3, g3, b3] = inputs else { panic!("14 inputs") };
    let (c, e, pixels) = (d.c, d.c * d.t, d.side * d.side);

    let n1 = norm(&dense(x, w1, c), g1, b1);
    let z1: Vec<f64> = n1.u.iter().map(|&u| hswish(u)).collect();
    let mut h2 = vec![0.0; z1.len()];
    windows(d, |to, from, tap| h2[to] += z1[from] * w2[tap]);
    let n2 = norm(&h2, g2, b2);
    let z2: Vec<f64> = n2.u.iter().map(|&u| hswish(u)).collect();
    let mean = |image: &[f64]| column_sums(image, e).iter().map(|s| s / pixels as f64).collect::<Vec<_>>();
    let means: Vec<f64> = z2.chunks_exact(pixels * e).flat_map(mean).collect();
    let hidden: Vec<f64> =
        dense(&means, sw1, e).iter().enumerate().map(|(at, v)| (v + sb1[at % d.r]).max(0.0)).collect();
    let logits: Vec<f64> =
        dense(&hidden, sw2, d.r).iter().enumerate().map(|(at, v)| v + sb2[at % e]).collect();
    let gate = |at: usize| (logits[at / (pixels * e) * e + at % e] / 6.0 + 0.5).clamp(0.0, 1.0);
    let a2: Vec<f64> = z2.iter().enumerate().map(|(at, z)| z * gate(at)).collect();
    let n3 = norm(&dense(&a2, w3, e), g3, b3);
    let y = n3.u.iter().zip(x).map(|(u, x)| u + x).collect();

    let [dh3, dg3, db3] = norm_back(dy, &n3);
    let [da2, dw3] = dense_back(&dh3, &a2, w3, e);
    let mut dlogits = vec![0.0; d.n * e];
    for (at, (da, z)) in da2.iter().zip(&z2).enumerate() {
        let place = at / (pixels * e) * e + at % e;
        dlogits[place] += da * z * if logits[place].abs() < 3.0 { 1.0 / 6.0 } else { 0.0 };
    }
    let [mut dhidden, dsw2] = dense_back(&dlogits, &hidden, sw2, d.r);
    dhidden.iter_mut().zip(&hidden).for_each(|(d, &v)| *d = if v > 0.0 { *d } else { 0.0 });
    let [dmeans, dsw1] = dense_back(&dhidden, &means, sw1, e);
    let du2: Vec<f64> = (da2.iter().enumerate())
        .map(|(at, da)| {
            let dz = da * gate(at) + dmeans[at / (pixels * e) * e + at % e] / pixels as f64;
            dz * hswish_slope(n2.u[at])
        })
        .collect();
    let [dh2, dg2, db2] = norm_back(&du2, &n2);
    let (mut dz1, mut dw2) = (vec![0.0; z1.len()], vec![0.0; w2.len()]);
    windows(d, |to, from, tap| {
        dz1[from] += dh2[to] * w2[tap];
        dw2[tap] += dh2[to] * z1[from];
    });
    let du1: Vec<f64> = dz1.iter().zip(&n1.u).map(|(d, &u)| d * hswish_slope(u)).collect();
    let [dh1, dg1, db1] = norm_back(&du1, &n1);
    let [mut dx, dw1] = dense_back(&dh1, x, w1, c);
    dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
    let (dsb1, dsb2) = (column_sums(&dhidden, d.r), column_sums(&dlogits, e));
    (y, vec![dx, dw1, dg1, db1, dw2, dg2, db2, dsw1, dsb1, dsw2, dsb2, dw3, dg3, db3])
}

fn error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let rms = (want.iter().map(|v| v * v).sum::<f64>() / want.len() as f64).sqrt();
    got.iter()
        .zip(want)
        .map(|(&g, w)| (f64::from(g) - w).abs() / rms)
        .fold(0.0, |worst, e| if e.is_nan() { f64::INFINITY } else { e.max(worst) })
}

fn check(name: &str, d: Dims) {
    let cpu = Cpu::new(2).unwrap();
    let op = InvertedResidual {
        stride: 1,
        expand: true,
        squeeze: Some(Act::HardSigmoid),
        acts: [Act::HSwish, Act::HSwish, Act::None],
        residual: true,
        affine: true,
        eps: EPS as f32,
        statistics: Statistics::Batch,
    };
    let (c, e) = (d.c, d.c * d.t);
    // Each with the scale of a fresh network, and the mean.
    let weight = |shape: Shape, fan: usize| (shape, (fan as f32).sqrt().recip(), 0.0);
    let vector = |len: usize, scale: f32, mean: f32| (Shape::from([len]), scale, mean);
    let specs = [
        (Shape::from([d.n, d.side, d.side, c]), 1.0, 0.2),
        weight([e, c].into(), c),
        vector(e, 0.2, 1.0),
        vector(e, 0.3, 0.1),
        weight([d.k, d.k, e].into(), d.k * d.k),
        vector(e, 0.2, 1.0),
        vector(e, 0.3, 0.1),
        weight([d.r, e].into(), e),
        vector(d.r, 0.3, 0.2),
        weight([e, d.r].into(), d.r),
        vector(e, 0.3, 0.2),
        weight([c, e].into(), e),
        vector(c, 0.2, 1.0),
        vector(c, 0.3, 0.1),
    ];
    let rng = Rng::new(3, name);
    let draw = |index: usize, len: usize, scale: f32, mean: f32| -> Vec<f32> {
        let mut draws = rng.at(0, 0, index as u32);
        (0..len).map(|_| scale * draws.normal() + mean).collect()
    };
    let data: Vec<Vec<f32>> = specs
        .iter()
        .enumerate()
        .map(|(i, (shape, scale, mean))| draw(i, shape.len(), *scale, *mean))
        .collect();
    let dy = draw(specs.len(), specs[0].0.len(), 1.0, 0.0);
    let wide = |v: &Vec<f32>| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let (y, grads) = reference(d, &data.iter().map(wide).collect::<Vec<_>>(), &wide(&dy));

    let mut tape = Tape::new(&cpu);
    let vars: Vec<Var> = (data.iter().zip(&specs))
        .map(|(data, (shape, ..))| tape.leaf(Tensor::from_slice(&cpu, *shape, data).unwrap()))
        .collect();
    let out = tape.apply(op, &vars.iter().collect::<Vec<_>>()).unwrap();
    let seed = Tensor::from_slice(&cpu, out.shape(), &dy).unwrap();
    let found = tape.backward_from(&out, seed, &mut engine::check::empty_store(&cpu)).unwrap();
    let mut errors = vec![error(out.tensor().f32().unwrap(), &y)];
    errors.extend(vars.iter().zip(&grads).map(|(v, want)| error(found.get(v).unwrap().f32().unwrap(), want)));
    let worst = errors.iter().copied().fold(0.0, f64::max);
    assert!(worst <= ALLOWED, "{name}: errors of the value and of the gradients in rms: {errors:.9?}");
}

#[test]
fn the_fused_block_is_as_exact_as_single_precision_allows() {
    for (name, [c, side, k, t, n, r]) in [
        ("A", [40, 28, 5, 6, 2, 16]),
        ("B", [24, 56, 3, 6, 2, 8]),
        ("C", [96, 14, 7, 6, 2, 24]),
        ("D", [40, 16, 7, 4, 4, 16]),
        ("E", [192, 7, 5, 6, 5, 48]),
        ("F", [24, 32, 5, 4, 2, 8]),
        ("G", [80, 8, 3, 6, 5, 24]),
    ] {
        check(name, Dims { c, side, k, t, n, r });
    }
}
