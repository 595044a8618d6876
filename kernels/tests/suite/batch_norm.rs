//! Batch norm between passes.

use kernels::batch_norm::{Backward, BackwardArgs, Finalise, FinaliseArgs, Partial, SumAll, SumPartials};
use kernels::{Input, Output, Write};

use crate::harness::{Counted, Gpu, close, noise};

fn finalise(g: &Gpu, partials: usize, c: usize, affine: bool, far: f64) {
    let eps = 1e-3f32;
    let counts: Vec<f32> = (0..partials).map(|p| (p % 5 * 40 + 9) as f32).collect();
    // Means far from zero, in units of their spread.
    let mut moments: Vec<f32> = noise(partials * c * 2, 1);
    for pair in moments.chunks_mut(2) {
        pair[0] = (f64::from(pair[0]) + far) as f32;
        pair[1] = 30.0 * pair[1].abs();
    }
    let (gamma, beta) = (noise(c, 2), noise(c, 3));
    let op = Finalise::new(&g.device, partials, c, eps).expect("it is there");
    let (m, n) = (g.upload(&moments), g.upload(&counts));
    let (dg, db) = (g.upload(&gamma), g.upload(&beta));
    let mut out: [_; 4] = std::array::from_fn(|_| g.empty::<f32>(c));
    let [scale, shift, mean, variance] = out.each_mut().map(|o| Output::new(o, &g.stream));
    op.launch(
        &g.stream,
        FinaliseArgs {
            moments: Input::new(&m, &g.stream),
            counts: Input::new(&n, &g.stream),
            gamma: affine.then(|| Input::new(&dg, &g.stream)),
            beta: affine.then(|| Input::new(&db, &g.stream)),
            scale,
            shift,
            mean,
            variance,
        },
    )
    .expect("it launches");
    let [scale, shift, mean, variance] = out.each_ref().map(|o| g.download(o));
    let all: f64 = counts.iter().map(|v| f64::from(*v)).sum();
    let part = |p: usize, i: usize, which: usize| f64::from(moments[(p * c + i) * 2 + which]);
    let each = || 0..c;
    let want_mean: Vec<f64> = each()
        .map(|i| (0..partials).map(|p| f64::from(counts[p]) * part(p, i, 0)).sum::<f64>() / all)
        .collect();
    let want_variance: Vec<f64> = each()
        .map(|i| {
            let of = |p| part(p, i, 1) + f64::from(counts[p]) * (part(p, i, 0) - want_mean[i]).powi(2);
            (0..partials).map(of).sum::<f64>() / all
        })
        .collect();
    let (gamma, beta) = if affine { (gamma, beta) } else { (vec![1.0; c], vec![0.0; c]) };
    let want_scale: Vec<f64> =
        each().map(|i| f64::from(gamma[i]) / (want_variance[i] + f64::from(eps)).sqrt()).collect();
    let want_shift: Vec<f64> = each().map(|i| f64::from(beta[i]) - want_mean[i] * want_scale[i]).collect();
    close("mean", &mean, &want_mean, |_| 1e-6 * (1.0 + far));
    close("variance", &variance, &want_variance, |i| 1e-5 * want_variance[i]);
    close("scale", &scale, &want_scale, |i| 1e-5 * want_scale[i].abs());
    close("shift", &shift, &want_shift, |i| 1e-5 * (1.0 + want_mean[i].abs() * want_scale[i].abs()));
}

on_device!(moments_become_scale_and_shift, |g| {
    finalise(g, 37, 40, true, 0.0);
    finalise(g, 1, 7, true, 0.0);
    finalise(g, 8, 96, false, 0.0);
});

on_device!(a_mean_of_a_thousand_deviations_loses_nothing, |g| finalise(g, 37, 33, true, 1000.0));

/// The linear map against batch norm's backward by its own definition, on values that are there.
fn backward(g: &Gpu, partials: usize, c: usize, gradients: bool) {
    let (each, eps) = (6, 1e-5f32);
    let n = partials * each;
    let f = |v: f32| f64::from(v);
    let h: Vec<f64> = noise(n * c, 4).into_iter().map(|v| f(v) * 2.0 + 0.5).collect();
    let du: Vec<f64> = noise(n * c, 5).into_iter().map(f).collect();
    let gamma = noise(c, 6);
    let over = |i: usize, value: &dyn Fn(usize) -> f64| (0..n).map(|r| value(r * c + i)).sum::<f64>();
    let mean: Vec<f64> = (0..c).map(|i| over(i, &|j| h[j]) / n as f64).collect();
    let variance: Vec<f64> = (0..c).map(|i| over(i, &|j| (h[j] - mean[i]).powi(2)) / n as f64).collect();
    let deviation: Vec<f64> = variance.iter().map(|v| (v + f(eps)).sqrt()).collect();
    let narrow = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let scale: Vec<f64> = (0..c).map(|i| f(gamma[i]) / deviation[i]).collect();
    let mut sums = vec![0f32; partials * c * 2];
    for p in 0..partials {
        for i in 0..c {
            let rows = || (p * each..(p + 1) * each).map(|r| r * c + i);
            sums[(p * c + i) * 2] = rows().map(|j| du[j]).sum::<f64>() as f32;
            sums[(p * c + i) * 2 + 1] = rows().map(|j| du[j] * (h[j] - mean[i])).sum::<f64>() as f32;
        }
    }
    let op = Backward::new(&g.device, partials, c, n, eps).expect("it is there");
    let up = |v: &[f32]| g.upload(v);
    let (s, k, m, v) = (up(&sums), up(&narrow(&scale)), up(&narrow(&mean)), up(&narrow(&variance)));
    // Gradients are added to what is there.
    let (mut dgamma, mut dbeta, mut pqr) = (up(&vec![3.0; c]), up(&vec![-2.0; c]), g.empty::<f32>(3 * c));
    op.launch(
        &g.stream,
        BackwardArgs {
            sums: Input::new(&s, &g.stream),
            scale: Input::new(&k, &g.stream),
            mean: Input::new(&m, &g.stream),
            variance: Input::new(&v, &g.stream),
            dgamma: gradients.then(|| Output::new(&mut dgamma, &g.stream)),
            dbeta: gradients.then(|| Output::new(&mut dbeta, &g.stream)),
            pqr: Output::new(&mut pqr, &g.stream),
        },
    )
    .expect("it launches");
    let (dgamma, dbeta, pqr) = (g.download(&dgamma), g.download(&dbeta), g.download(&pqr));
    let hat = |j: usize| (h[j] - mean[j % c]) / deviation[j % c];
    let by = |i: usize| (over(i, &|j| du[j]), over(i, &|j| du[j] * hat(j)));
    let added = if gradients { 1.0 } else { 0.0 };
    close("dgamma", &dgamma, &(0..c).map(|i| 3.0 + added * by(i).1).collect::<Vec<_>>(), |_| 1e-4);
    close("dbeta", &dbeta, &(0..c).map(|i| -2.0 + added * by(i).0).collect::<Vec<_>>(), |_| 1e-4);
    let dh: Vec<f32> = (0..n * c)
        .map(|j| {
            let i = j % c;
            (f(pqr[i]) * du[j] + f(pqr[c + i]) * h[j] + f(pqr[2 * c + i])) as f32
        })
        .collect();
    let want: Vec<f64> = (0..n * c)
        .map(|j| {
            let (sum, product) = by(j % c);
            scale[j % c] * (du[j] - sum / n as f64 - hat(j) * product / n as f64)
        })
        .collect();
    close("dh", &dh, &want, |j| 1e-5 * (1.0 + scale[j % c].abs()));
}

on_device!(sums_become_gradients_and_a_linear_map, |g| {
    backward(g, 21, 40, true);
    backward(g, 1, 5, true);
    backward(g, 9, 33, false);
});

on_device!(partial_gradients_are_added_to_the_gradient, |g| {
    for (partials, len) in [(1, 1), (19, 100), (8, 64)] {
        let parts = noise(partials * len, 1);
        let d_parts = g.upload(&parts);
        let mut out = g.upload(&vec![0.5f32; len]);
        let op = SumPartials::new(&g.device, partials, len).expect("it is there");
        op.launch(&g.stream, Input::new(&d_parts, &g.stream), Output::new(&mut out, &g.stream))
            .expect("it launches");
        let want: Vec<f64> = (0..len)
            .map(|i| 0.5 + (0..partials).map(|p| f64::from(parts[p * len + i])).sum::<f64>())
            .collect();
        close("gradient", &g.download(&out), &want, |_| 1e-5);
    }
});

on_device!(partial_gradients_of_several_arrays_are_summed_at_once, |g| {
    // Three parts of arrays of 10, 3 and 33 elements, the second of which nobody wants, and five of one of 70.
    let (stride, each, other) = (46, [(0, 10), (13, 33)], 70);
    let (parts, others) = (noise(3 * stride, 1), noise(5 * other, 2));
    let (d_parts, d_others) = (g.upload(&parts), g.upload(&others));
    let (mut first, mut second) = (g.empty::<f32>(10), g.upload(&[0.5f32; 33]));
    let mut third = g.upload(&vec![-1f32; other]);
    let arrays = |first, second, third| {
        let mut list = Vec::new();
        for ((offset, len), (out, write)) in
            each.into_iter().zip([(first, Write::Store), (second, Write::Add)])
        {
            let parts = Input::new(&d_parts, &g.stream);
            list.push(Partial { parts, partials: 3, stride, offset, len, out, write });
        }
        let parts = Input::new(&d_others, &g.stream);
        let (stride, len) = (other, other);
        list.push(Partial { parts, partials: 5, stride, offset: 0, len, out: third, write: Write::Add });
        list
    };
    let op = SumAll::new(&g.device).expect("it is there");
    let list = arrays(
        Output::new(&mut first, &g.stream),
        Output::new(&mut second, &g.stream),
        Output::new(&mut third, &g.stream),
    );
    op.launch(&g.stream, list).expect("it launches");
    let sum = |values: &[f32], stride: usize, at: usize| {
        values.iter().skip(at).step_by(stride).map(|v| f64::from(*v)).sum::<f64>()
    };
    let want = |before: f64, values: &[f32], stride: usize, (offset, len): (usize, usize)| {
        (0..len).map(|i| before + sum(values, stride, offset + i)).collect::<Vec<f64>>()
    };
    close("stored", &g.download(&first), &want(0.0, &parts, stride, each[0]), |_| 1e-6);
    close("added", &g.download(&second), &want(0.5, &parts, stride, each[1]), |_| 1e-6);
    close("added", &g.download(&third), &want(-1.0, &others, other, (0, other)), |_| 1e-6);

    op.launch(&g.stream, Vec::new()).expect("nothing is to be done");
    let short = vec![Partial {
        parts: Input::new(&d_parts, &g.stream),
        partials: 4,
        stride,
        offset: 0,
        len: 10,
        out: Output::new(&mut first, &g.stream),
        write: Write::Add,
    }];
    let why = op.launch(&g.stream, short).expect_err("three parts are there").to_string();
    assert_eq!(why, "sum_partials: `parts` has 138 elements, 148 are needed");
});

/// Parts and channels of what joins them.
const JOINED: [usize; 2] = [64, 96];

pub const COUNTED: [Counted; 1] = [Counted {
    case: "per part and channel",
    elements: JOINED[0] * JOINED[1],
    most: &[("batch_norm_finalise", 31.0), ("batch_norm_backward", 12.0)],
    body: |g| {
        finalise(g, JOINED[0], JOINED[1], true, 0.0);
        backward(g, JOINED[0], JOINED[1], true);
    },
}];
