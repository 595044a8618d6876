//! The end of a block and the beginning of its backward pass, against their definition.

use half::bf16;
use kernels::finish::{Finish, FinishArgs, NormArgs, Sums, SumsArgs};
use kernels::{Act, DType, Input, Output};

use crate::depthwise::{activate, slope};
use crate::harness::{Gpu, Number, close, dtype, noise};

/// Values of a type that look random.
fn some<T: Number>(len: usize, seed: u64, size: f32) -> Vec<T> {
    noise(len, seed).into_iter().map(|v| T::nearest(size * v)).collect()
}

fn finish<T: Number>(g: &Gpu, m: usize, c: usize, act: Act, residual: bool) {
    let (h, x) = (some::<T>(m * c, 1, 4.0), some::<T>(m * c, 2, 1.0));
    let (scale, shift) = (noise(c, 3), noise(c, 4));
    let op = Finish::new(&g.device, m, c, dtype::<T>(), act).expect("a kernel serves it");
    let (dh, dx, ds, db) = (g.upload(&h), g.upload(&x), g.upload(&scale), g.upload(&shift));
    let mut y = g.empty::<T>(m * c);
    op.launch(
        &g.stream,
        FinishArgs {
            h: Input::new(&dh, &g.stream),
            affine: (Input::new(&ds, &g.stream), Input::new(&db, &g.stream)),
            x: residual.then(|| Input::new(&dx, &g.stream)),
            y: Output::new(&mut y, &g.stream),
        },
    )
    .expect("it launches");
    let want: Vec<f64> = (0..m * c)
        .map(|i| {
            let u = h[i].f64() * f64::from(scale[i % c]) + f64::from(shift[i % c]);
            activate(act, u) + if residual { x[i].f64() } else { 0.0 }
        })
        .collect();
    close(&format!("{m} x {c} {act:?}"), &g.download(&y), &want, |i| T::EPSILON * want[i].abs() + 2e-6);
}

fn sums<T: Number>(g: &Gpu, m: usize, c: usize, act: Act) {
    let (dy, h) = (some::<T>(m * c, 1, 1.0), some::<T>(m * c, 2, 4.0));
    let (scale, shift, mean) = (noise(c, 3), noise(c, 4), noise(c, 5));
    let op = Sums::new(&g.device, m, c, dtype::<T>(), act).expect("a kernel serves it");
    let (ddy, dh) = (g.upload(&dy), g.upload(&h));
    let (ds, db, dm) = (g.upload(&scale), g.upload(&shift), g.upload(&mean));
    let p = op.partials();
    let mut out = g.empty::<f32>(p * c * 2);
    let launch = |sums: Output<'_>, norm: Option<NormArgs<'_>>| {
        let args = SumsArgs {
            dy: Input::new(&ddy, &g.stream),
            h: Input::new(&dh, &g.stream),
            affine: (Input::new(&ds, &g.stream), Input::new(&db, &g.stream)),
            mean: Input::new(&dm, &g.stream),
            sums,
            norm,
        };
        op.launch(&g.stream, args).expect("it launches");
    };
    launch(Output::new(&mut out, &g.stream), None);
    let parts = g.download(&out);
    let got: Vec<f32> = (0..c * 2).map(|i| (0..p).map(|p| parts[p * c * 2 + i]).sum()).collect();
    let (mut want, mut size) = (vec![0.0; c * 2], vec![0.0; c * 2]);
    for i in 0..m * c {
        let j = i % c;
        let u = h[i].f64() * f64::from(scale[j]) + f64::from(shift[j]);
        let du = dy[i].f64() * slope(act, u);
        let product = du * (h[i].f64() - f64::from(mean[j]));
        for (at, v) in [(2 * j, du), (2 * j + 1, product)] {
            want[at] += v;
            size[at] += v.abs();
        }
    }
    close(&format!("sums {m} x {c} {act:?}"), &got, &want, |i| 2e-6 * size[i] + 1e-6);

    // The same, joined by the last block; gradients are added to what is there.
    let (variance, eps): (Vec<f32>, f32) = (noise(c, 6).into_iter().map(|v| v + 1.5).collect(), 1e-3);
    let (dv, mut again) = (g.upload(&variance), g.empty::<f32>(p * c * 2));
    let (mut dgamma, mut dbeta) = (g.upload(&vec![3f32; c]), g.upload(&vec![-2f32; c]));
    let mut pqr = g.empty::<f32>(3 * c);
    let norm = NormArgs {
        variance: Input::new(&dv, &g.stream),
        eps,
        dgamma: Some(Output::new(&mut dgamma, &g.stream)),
        dbeta: (c != 8).then(|| Output::new(&mut dbeta, &g.stream)),
        pqr: Output::new(&mut pqr, &g.stream),
    };
    launch(Output::new(&mut again, &g.stream), Some(norm));
    let (mut maps, mut allowed) = ([(); 3].map(|()| vec![0.0; c]), vec![0.0; 3 * c]);
    for j in 0..c {
        let (s, n) = (f64::from(scale[j]), m as f64);
        let precision = 1.0 / (f64::from(variance[j]) + f64::from(eps));
        let q = -s * precision * want[2 * j + 1] / n;
        maps[0][j] = s;
        maps[1][j] = q;
        maps[2][j] = -s * want[2 * j] / n - q * f64::from(mean[j]);
        allowed[c + j] = 3e-6 * size[2 * j + 1] / n;
        allowed[2 * c + j] = 3e-6 * (size[2 * j] + size[2 * j + 1]) / n;
        want[2 * j + 1] = 3.0 + want[2 * j + 1] * precision.sqrt();
        want[2 * j] = -2.0 + if c == 8 { 0.0 } else { want[2 * j] };
    }
    let gradient = |which: usize| want.iter().skip(which).step_by(2).copied().collect::<Vec<_>>();
    close("dgamma", &g.download(&dgamma), &gradient(1), |j| 3e-6 * (4.0 + size[2 * j + 1]));
    close("dbeta", &g.download(&dbeta), &gradient(0), |j| 3e-6 * (4.0 + size[2 * j]));
    close("the linear map", &g.download(&pqr), &maps.concat(), |i| allowed[i] + 1e-6);
}

/// Channels that fill vectors and such that do not, one row, more rows than one block takes, more channels than one
/// block takes.
fn every<T: Number>(g: &Gpu) {
    finish::<T>(g, 430, 40, Act::None, true);
    finish::<T>(g, 77, 13, Act::Relu6, true);
    finish::<T>(g, 1, 8, Act::Relu, false);
    finish::<T>(g, 50, 96, Act::HSwish, false);
    finish::<T>(g, 9, 2064, Act::Swish, true);
    finish::<T>(g, 30, 7, Act::HSwish, false);
    finish::<T>(g, 30, 7, Act::Swish, true);
    sums::<T>(g, 430, 40, Act::None);
    sums::<T>(g, 77, 13, Act::Relu6);
    sums::<T>(g, 1, 8, Act::Relu);
    sums::<T>(g, 50, 96, Act::HSwish);
    sums::<T>(g, 9, 2064, Act::Swish);
    sums::<T>(g, 30, 7, Act::HSwish);
    sums::<T>(g, 30, 7, Act::Swish);
}

on_device!(finish_f32, every::<f32>);
on_device!(finish_bf16, every::<bf16>);

on_device!(wrong_shapes_and_types_are_refused_by_name, |g| {
    let why = Finish::new(&g.device, 0, 8, DType::F32, Act::None).expect_err("no rows");
    assert!(why.to_string().contains("m is 0, expected 1 to 1073741824"), "{why}");
    let why = Sums::new(&g.device, 8, 1 << 20, DType::F32, Act::None).expect_err("too many channels");
    assert!(why.to_string().contains("c is 1048576"), "{why}");
    let why = Finish::new(&g.device, 8, 8, DType::I32, Act::None).expect_err("integers");
    assert!(why.to_string().contains("holds i32, expected f32"), "{why}");
    g.download(&g.upload(&[0f32]));
});
