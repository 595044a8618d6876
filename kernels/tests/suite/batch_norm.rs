//! Batch norm between passes.

use kernels::batch_norm::{Finalise, FinaliseArgs};
use kernels::{Input, Output};

use crate::harness::{Gpu, close, noise};

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
