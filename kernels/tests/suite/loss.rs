//! Softmax cross-entropy against its definition.

use half::bf16;
use kernels::loss::{ForwardArgs, SoftmaxCrossEntropy};
use kernels::{Input, Output};

use crate::elementwise::{WRITES, before, rounded};
use crate::harness::{Counted, Gpu, Number, close, dtype};

fn every<T: Number>(g: &Gpu, [rows, classes]: [usize; 2], smoothing: f32, seed: Option<f32>) {
    let what = format!("{rows} rows of {classes}, {smoothing}, {seed:?}");
    let x = rounded::<T>(rows * classes, 1, 9.0);
    let labels: Vec<i32> = (0..rows).map(|r| (r * 7 % classes) as i32).collect();
    let (s, d_x, d_labels) = (&g.stream, g.upload(&x), g.upload(&labels));
    let op =
        SoftmaxCrossEntropy::new(&g.device, dtype::<T>(), rows, classes, smoothing).expect("it is there");
    let (mut losses, mut p) = (g.empty::<f32>(rows), g.empty::<f32>(rows * classes));
    let args = ForwardArgs {
        logits: Input::new(&d_x, s),
        labels: Input::new(&d_labels, s),
        losses: Output::new(&mut losses, s),
        probabilities: Some(Output::new(&mut p, s)),
    };
    op.forward(s, args).expect("it launches");
    let mut loss = g.empty::<f32>(1);
    op.mean(s, Input::new(&losses, s), Output::new(&mut loss, s)).expect("it launches");
    let (even, own) = (f64::from(smoothing) / classes as f64, 1.0 - f64::from(smoothing));
    let (mut want, mut want_p, mut targets) = (0.0, Vec::new(), Vec::new());
    for (row, label) in x.chunks(classes).zip(&labels) {
        let most = row.iter().map(|v| v.f64()).fold(f64::NEG_INFINITY, f64::max);
        let log_sum = most + row.iter().map(|v| (v.f64() - most).exp()).sum::<f64>().ln();
        for (i, v) in row.iter().enumerate() {
            let target = even + if i == *label as usize { own } else { 0.0 };
            want -= target * (v.f64() - log_sum) / rows as f64;
            want_p.push((v.f64() - log_sum).exp());
            targets.push(target);
        }
    }
    close(&format!("{what}, loss"), &g.download(&loss), &[want], |_| 4e-6 * want.abs() + 1e-6);
    close(&format!("{what}, p"), &g.download(&p), &want_p, |i| 5e-6 * want_p[i] + 1e-9);
    let d_seed = g.upload(&[seed.unwrap_or(1.0)]);
    for write in WRITES {
        let (old, mut dx) = before::<T>(g, rows * classes, write);
        let seed_in = seed.map(|_| Input::new(&d_seed, s));
        let (p, labels) = (Input::new(&p, s), Input::new(&d_labels, s));
        op.backward(s, p, labels, seed_in, Output::new(&mut dx, s), write).expect("it launches");
        let scale = f64::from(seed.unwrap_or(1.0)) / rows as f64;
        let want: Vec<f64> =
            (0..rows * classes).map(|i| old[i].f64() + scale * (want_p[i] - targets[i])).collect();
        close(&format!("{what}, dx"), &g.download(&dx), &want, |i| T::EPSILON * want[i].abs() + 5e-6);
    }
}

on_device!(losses_and_their_gradients, |g| {
    every::<f32>(g, [5, 10], 0.0, None);
    every::<f32>(g, [3, 1000], 0.1, Some(-2.5));
    every::<f32>(g, [300, 2], 1.0, None);
    every::<f32>(g, [1, 1], 0.1, None);
    every::<bf16>(g, [5, 100], 0.1, None);
});

on_device!(a_label_outside_gives_no_number, |g| {
    for label in [-1, 4, i32::MIN] {
        let s = &g.stream;
        let (x, labels) = (g.upload(&[0.5f32; 8]), g.upload(&[1, label]));
        let (mut losses, mut loss) = (g.empty::<f32>(2), g.empty::<f32>(1));
        let op = SoftmaxCrossEntropy::new(&g.device, dtype::<f32>(), 2, 4, 0.1).expect("it is there");
        let args = ForwardArgs {
            logits: Input::new(&x, s),
            labels: Input::new(&labels, s),
            losses: Output::new(&mut losses, s),
            probabilities: None,
        };
        op.forward(s, args).expect("it launches");
        op.mean(s, Input::new(&losses, s), Output::new(&mut loss, s)).expect("it launches");
        assert!(g.download(&loss)[0].is_nan(), "{label}");
        assert!((g.download(&losses)[0] - 4f32.ln()).abs() < 1e-6);
    }
});

on_device!(smoothing_outside_is_refused, |g| {
    for smoothing in [-0.1, 1.5, f32::NAN] {
        let why = SoftmaxCrossEntropy::new(&g.device, dtype::<f32>(), 2, 4, smoothing).expect_err("outside");
        assert!(why.to_string().contains("smoothing is"), "{why}");
    }
    g.download(&g.upload(&[0f32]));
});

pub const COUNTED: [Counted; 2] = [
    Counted {
        case: "1000 classes f32",
        elements: 16 * 1000,
        most: &[("softmax_cross_entropy_fwd_f32", 32.0), ("softmax_cross_entropy_bwd_f32", 20.0)],
        body: |g| every::<f32>(g, [16, 1000], 0.1, None),
    },
    Counted {
        case: "1000 classes bf16",
        elements: 16 * 1000,
        most: &[("softmax_cross_entropy_fwd_bf16", 36.0), ("softmax_cross_entropy_bwd_bf16", 24.0)],
        body: |g| every::<bf16>(g, [16, 1000], 0.1, None),
    },
];
