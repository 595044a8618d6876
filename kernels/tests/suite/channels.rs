//! Work per channel against its definition: batch norm that stands alone, biases, means of planes.

use half::bf16;
use kernels::batch_norm::{
    Backward, BackwardArgs, Finalise, FinaliseArgs, Fold, FoldArgs, FrozenBackward, FrozenBackwardArgs,
    SumPartials,
};
use kernels::channels::{
    Affine, BiasGradient, Constants, GlobalAvgPool, Linear, Moments, PlaneProducts, Products,
};
use kernels::{Input, Output, Write};

use crate::depthwise::check_moments;
use crate::elementwise::{WRITES, before, rounded};
use crate::harness::{Counted, Gpu, Number, close, dtype, noise};

const EPS: f32 = 1e-3;

/// Rows and channels: less than a block, several blocks, channels that fill no vector, one of each, more vectors than
/// a block is wide, more rows than a block is deep.
const SHAPES: [[usize; 2]; 6] = [[50, 40], [1200, 16], [75, 7], [1, 1], [9, 2064], [5000, 3]];

struct Norm<T> {
    rows: usize,
    c: usize,
    x: Vec<T>,
    dy: Vec<T>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    mean: Vec<f64>,
    variance: Vec<f64>,
}

impl<T: Number> Norm<T> {
    /// Means of `far` deviations.
    fn new([rows, c]: [usize; 2], far: f32) -> Norm<T> {
        let x: Vec<T> = noise(rows * c, 1).into_iter().map(|v| T::nearest(v + far)).collect();
        let over = |i: usize, f: &dyn Fn(f64) -> f64| (0..rows).map(|r| f(x[r * c + i].f64())).sum::<f64>();
        let mean: Vec<f64> = (0..c).map(|i| over(i, &|v| v) / rows as f64).collect();
        let variance =
            (0..c).map(|i| over(i, &|v| (v - mean[i]).powi(2)) / rows as f64).collect::<Vec<f64>>();
        let (dy, gamma, beta) = (rounded(rows * c, 2, 1.0), noise(c, 3), noise(c, 4));
        Norm { rows, c, x, dy, gamma, beta, mean, variance }
    }

    fn inverse(&self, i: usize) -> f64 {
        1.0 / (self.variance[i] + f64::from(EPS)).sqrt()
    }

    fn hat(&self, at: usize) -> f64 {
        (self.x[at].f64() - self.mean[at % self.c]) * self.inverse(at % self.c)
    }

    fn y(&self) -> Vec<f64> {
        let f = |v: f32| f64::from(v);
        let at = |j: usize| self.hat(j) * f(self.gamma[j % self.c]) + f(self.beta[j % self.c]);
        (0..self.rows * self.c).map(at).collect()
    }

    /// Sums over rows of dy and dy * hat.
    fn sums(&self, i: usize) -> [f64; 2] {
        let rows = || (0..self.rows).map(|r| r * self.c + i);
        [rows().map(|j| self.dy[j].f64()).sum(), rows().map(|j| self.dy[j].f64() * self.hat(j)).sum()]
    }
}

fn norm<T: Number>(g: &Gpu, shape: [usize; 2], far: f32) {
    let n = Norm::<T>::new(shape, far);
    let [rows, c] = shape;
    let what = format!("{shape:?} at {far}");
    let (s, input) = (&g.stream, |b| Input::new(b, &g.stream));
    let (x, dy, gamma, beta) = (g.upload(&n.x), g.upload(&n.dy), g.upload(&n.gamma), g.upload(&n.beta));
    let op = Moments::new(&g.device, dtype::<T>(), rows, c).expect("a kernel serves it");
    let p = op.partials();
    let (mut m, mut counts) = (g.empty::<f32>(p * c * 2), g.empty::<f32>(p));
    op.launch(s, Input::new(&x, s), Output::new(&mut m, s), Output::new(&mut counts, s))
        .expect("it launches");
    check_moments(&what, &n.x, c, &g.download(&m), &g.download(&counts));
    let mut out: [_; 4] = std::array::from_fn(|_| g.empty::<f32>(c));
    let [scale, shift, mean, variance] = out.each_mut().map(|o| Output::new(o, s));
    Finalise::new(&g.device, p, c, EPS)
        .expect("it is there")
        .launch(
            s,
            FinaliseArgs {
                moments: input(&m),
                counts: input(&counts),
                gamma: Some(input(&gamma)),
                beta: Some(input(&beta)),
                scale,
                shift,
                mean,
                variance,
            },
        )
        .expect("it launches");
    let [scale, _, mean, variance] = &out;
    let affine = Affine::new(&g.device, dtype::<T>(), rows, c).expect("a kernel serves it");
    let constants =
        Constants { mean: Some(input(mean)), scale: Some(input(scale)), shift: Some(input(&beta)) };
    let want = n.y();
    for write in WRITES {
        let (old, mut y) = before::<T>(g, rows * c, write);
        affine.launch(s, Input::new(&x, s), constants, Output::new(&mut y, s), write).expect("it launches");
        let want: Vec<f64> = want.iter().zip(&old).map(|(y, old)| y + old.f64()).collect();
        let allowed = |i: usize| T::EPSILON * want[i].abs() + 2e-5 + 2e-6 * f64::from(far);
        close(&format!("{what}, y"), &g.download(&y), &want, allowed);
    }
    // Backward.
    let products = Products::new(&g.device, dtype::<T>(), rows, c).expect("a kernel serves it");
    let p = products.partials();
    let mut sums = g.empty::<f32>(p * c * 2);
    products
        .launch(s, Input::new(&dy, s), Input::new(&x, s), input(mean), Output::new(&mut sums, s))
        .expect("it launches");
    let (mut dgamma, mut dbeta) = (g.upload(&vec![2.0f32; c]), g.upload(&vec![-1.0f32; c]));
    let mut pqr = g.empty::<f32>(3 * c);
    Backward::new(&g.device, p, c, rows, EPS)
        .expect("it is there")
        .launch(
            s,
            BackwardArgs {
                sums: input(&sums),
                scale: input(scale),
                mean: input(mean),
                variance: input(variance),
                dgamma: Some(Output::new(&mut dgamma, s)),
                dbeta: Some(Output::new(&mut dbeta, s)),
                pqr: Output::new(&mut pqr, s),
            },
        )
        .expect("it launches");
    // Rounding of x - mean, over all rows.
    let slack = 1e-5 * rows as f64 * (1.0 + 0.1 * f64::from(far)).min(2.0) + 1e-5;
    let of = |k: usize, from: f64| (0..c).map(|i| from + n.sums(i)[k]).collect::<Vec<f64>>();
    close(&format!("{what}, dgamma"), &g.download(&dgamma), &of(1, 2.0), |_| slack);
    close(&format!("{what}, dbeta"), &g.download(&dbeta), &of(0, -1.0), |_| slack);
    let linear = Linear::new(&g.device, dtype::<T>(), rows, c).expect("a kernel serves it");
    for write in WRITES {
        let (old, mut dx) = before::<T>(g, rows * c, write);
        let (dy, x) = (Input::new(&dy, s), Input::new(&x, s));
        linear.launch(s, dy, Some(x), input(&pqr), Output::new(&mut dx, s), write).expect("it launches");
        let totals: Vec<_> = (0..c).map(|i| n.sums(i)).collect();
        let want: Vec<f64> = (0..rows * c)
            .map(|j| {
                let (i, rows) = (j % c, rows as f64);
                let inner = n.dy[j].f64() - totals[i][0] / rows - n.hat(j) * totals[i][1] / rows;
                old[j].f64() + f64::from(n.gamma[i]) * n.inverse(i) * inner
            })
            .collect();
        let allowed =
            |j: usize| T::EPSILON * want[j].abs() + n.inverse(j % c) * (1e-5 + 1e-6 * f64::from(far));
        close(&format!("{what}, dx"), &g.download(&dx), &want, allowed);
    }
}

fn norms<T: Number>(g: &Gpu) {
    for shape in SHAPES {
        norm::<T>(g, shape, 0.0);
    }
}

on_device!(batch_norm_alone_f32, norms::<f32>);
on_device!(batch_norm_alone_bf16, norms::<bf16>);
on_device!(batch_norm_alone_at_a_mean_of_a_thousand_deviations, |g| norm::<f32>(g, [700, 12], 577.0));

fn frozen<T: Number>(g: &Gpu, shape: [usize; 2]) {
    let mut n = Norm::<T>::new(shape, 0.5);
    let [rows, c] = shape;
    // Statistics of something else.
    let (mean, variance) = (noise(c, 7), noise(c, 8).iter().map(|v| v.abs() + 0.2).collect::<Vec<f32>>());
    n.mean = mean.iter().map(|v| f64::from(*v)).collect();
    n.variance = variance.iter().map(|v| f64::from(*v)).collect();
    let (s, input) = (&g.stream, |b| Input::new(b, &g.stream));
    let (x, dy, gamma, beta) = (g.upload(&n.x), g.upload(&n.dy), g.upload(&n.gamma), g.upload(&n.beta));
    let (mean, variance) = (g.upload(&mean), g.upload(&variance));
    let (mut scale, mut shift) = (g.empty::<f32>(c), g.empty::<f32>(c));
    let fold = FoldArgs {
        gamma: Some(input(&gamma)),
        beta: Some(input(&beta)),
        mean: input(&mean),
        variance: input(&variance),
        scale: Output::new(&mut scale, s),
        shift: Output::new(&mut shift, s),
    };
    Fold::new(&g.device, c, EPS).expect("it is there").launch(s, fold).expect("it launches");
    let mut y = g.empty::<T>(rows * c);
    let constants = Constants { mean: None, scale: Some(input(&scale)), shift: Some(input(&shift)) };
    let affine = Affine::new(&g.device, dtype::<T>(), rows, c).expect("a kernel serves it");
    affine
        .launch(s, Input::new(&x, s), constants, Output::new(&mut y, s), Write::Store)
        .expect("it launches");
    let want = n.y();
    close(&format!("{shape:?}, y"), &g.download(&y), &want, |i| T::EPSILON * want[i].abs() + 1e-5);
    let products = Products::new(&g.device, dtype::<T>(), rows, c).expect("a kernel serves it");
    let p = products.partials();
    let mut sums = g.empty::<f32>(p * c * 2);
    products
        .launch(s, Input::new(&dy, s), Input::new(&x, s), input(&mean), Output::new(&mut sums, s))
        .expect("it launches");
    let mut grads: [_; 4] = std::array::from_fn(|_| g.upload(&vec![1.0f32; c]));
    let [dgamma, dbeta, dmean, dvariance] = grads.each_mut().map(|b| Some(Output::new(b, s)));
    let args = FrozenBackwardArgs {
        sums: input(&sums),
        scale: input(&scale),
        variance: input(&variance),
        dgamma,
        dbeta,
        dmean,
        dvariance,
    };
    FrozenBackward::new(&g.device, p, c, EPS).expect("it is there").launch(s, args).expect("it launches");
    let gradient = |k: usize, i: usize| {
        let ([sum, product], inverse) = (n.sums(i), n.inverse(i));
        let factor = f64::from(n.gamma[i]) * inverse;
        1.0 + [product, sum, -factor * sum, -0.5 * factor * inverse * product][k]
    };
    for (k, got) in grads.iter().enumerate() {
        let want: Vec<f64> = (0..c).map(|i| gradient(k, i)).collect();
        close(&format!("{shape:?}, gradient {k}"), &g.download(got), &want, |_| 2e-5 * rows as f64 + 1e-5);
    }
    let linear = Linear::new(&g.device, dtype::<T>(), rows, c).expect("a kernel serves it");
    for write in WRITES {
        let (old, mut dx) = before::<T>(g, rows * c, write);
        // Without x only the first row of the map is read.
        let mut pqr = g.empty::<f32>(3 * c);
        s.memcpy_dtod(&scale, &mut pqr.slice_mut(..c)).expect("it fits");
        linear
            .launch(s, Input::new(&dy, s), None, Input::new(&pqr, s), Output::new(&mut dx, s), write)
            .expect("it launches");
        let want: Vec<f64> = (0..rows * c)
            .map(|j| old[j].f64() + f64::from(n.gamma[j % c]) * n.inverse(j % c) * n.dy[j].f64())
            .collect();
        close(&format!("{shape:?}, dx"), &g.download(&dx), &want, |j| T::EPSILON * want[j].abs() + 1e-5);
    }
}

on_device!(batch_norm_with_given_statistics, |g| {
    frozen::<f32>(g, [50, 40]);
    frozen::<f32>(g, [75, 7]);
    frozen::<bf16>(g, [600, 40]);
});

fn bias<T: Number>(g: &Gpu, [rows, c]: [usize; 2]) {
    let (x, bias) = (rounded::<T>(rows * c, 1, 2.0), noise(c, 2));
    let (s, d_x, d_bias) = (&g.stream, g.upload(&x), g.upload(&bias));
    let mut y = g.empty::<T>(rows * c);
    let constants = Constants { shift: Some(Input::new(&d_bias, s)), ..Constants::default() };
    let op = Affine::new(&g.device, dtype::<T>(), rows, c).expect("a kernel serves it");
    op.launch(s, Input::new(&d_x, s), constants, Output::new(&mut y, s), Write::Store).expect("it launches");
    let want: Vec<f64> = (0..rows * c).map(|i| x[i].f64() + f64::from(bias[i % c])).collect();
    close("x + bias", &g.download(&y), &want, |i| T::EPSILON * want[i].abs() + 1e-6);
    let op = BiasGradient::new(&g.device, dtype::<T>(), rows, c).expect("a kernel serves it");
    let p = op.partials();
    let (mut sums, mut db) = (g.empty::<f32>(p * c), g.upload(&vec![0.5f32; c]));
    op.launch(s, Input::new(&d_x, s), Output::new(&mut sums, s)).expect("it launches");
    let add = SumPartials::new(&g.device, p, c).expect("it is there");
    add.launch(s, Input::new(&sums, s), Output::new(&mut db, s)).expect("it launches");
    let want: Vec<f64> = (0..c).map(|i| 0.5 + (0..rows).map(|r| x[r * c + i].f64()).sum::<f64>()).collect();
    close("bias gradient", &g.download(&db), &want, |_| 1e-6 * rows as f64 + 1e-6);
}

on_device!(biases_are_added_and_have_gradients, |g| {
    for shape in SHAPES {
        bias::<f32>(g, shape);
        bias::<bf16>(g, shape);
    }
});

fn mean<T: Number>(g: &Gpu, [n, plane, c]: [usize; 3]) {
    let (x, dy) = (rounded::<T>(n * plane * c, 1, 2.0), rounded::<T>(n * c, 2, 2.0));
    let op = GlobalAvgPool::new(&g.device, dtype::<T>(), n, plane, c).expect("a kernel serves it");
    let (s, d_x, d_dy) = (&g.stream, g.upload(&x), g.upload(&dy));
    let mut y = g.empty::<T>(n * c);
    op.forward(s, Input::new(&d_x, s), Output::new(&mut y, s)).expect("it launches");
    let at = |i: usize, p: usize| x[(i / c * plane + p) * c + i % c].f64();
    let want: Vec<f64> =
        (0..n * c).map(|i| (0..plane).map(|p| at(i, p)).sum::<f64>() / plane as f64).collect();
    close("mean", &g.download(&y), &want, |i| T::EPSILON * want[i].abs() + 1e-6);
    for write in WRITES {
        let (old, mut dx) = before::<T>(g, n * plane * c, write);
        op.backward(s, Input::new(&d_dy, s), Output::new(&mut dx, s), write).expect("it launches");
        let want: Vec<f64> = (0..n * plane * c)
            .map(|i| old[i].f64() + dy[i / (plane * c) * c + i % c].f64() / plane as f64)
            .collect();
        close("its gradient", &g.download(&dx), &want, |i| T::EPSILON * want[i].abs() + 1e-6);
    }
}

on_device!(means_of_planes_and_their_gradients, |g| {
    for shape in [[3, 49, 40], [2, 200, 7], [1, 1, 1], [2, 600, 16]] {
        mean::<f32>(g, shape);
        mean::<bf16>(g, shape);
    }
});

/// What a gate does, and what reaches it.
fn gated<T: Number>(g: &Gpu, [n, plane, c]: [usize; 3]) {
    let (x, dy) = (rounded::<T>(n * plane * c, 1, 2.0), rounded::<T>(n * plane * c, 2, 2.0));
    let (gate, extra) = (noise(n * c, 3), noise(n * c, 4));
    let (s, d_x, d_dy) = (&g.stream, g.upload(&x), g.upload(&dy));
    let (d_gate, d_extra) = (g.upload(&gate), g.upload(&extra));
    let of = |i: usize| i / (plane * c) * c + i % c;
    let op = Affine::of_images(&g.device, dtype::<T>(), [n, plane, c]).expect("a kernel serves it");
    for write in WRITES {
        let (old, mut y) = before::<T>(g, n * plane * c, write);
        let (scale, shift) = (Some(Input::new(&d_gate, s)), Some(Input::new(&d_extra, s)));
        let constants = Constants { scale, shift, ..Constants::default() };
        op.launch(s, Input::new(&d_x, s), constants, Output::new(&mut y, s), write).expect("it launches");
        let exact = |i: usize| old[i].f64() + x[i].f64() * f64::from(gate[of(i)]) + f64::from(extra[of(i)]);
        let want: Vec<f64> = (0..x.len()).map(exact).collect();
        close("x * gate + extra", &g.download(&y), &want, |i| T::EPSILON * want[i].abs() + 1e-6);
    }
    let op = PlaneProducts::new(&g.device, dtype::<T>(), [n, plane, c]).expect("a kernel serves it");
    let mut sums = g.empty::<f32>(n * c);
    op.launch(s, Input::new(&d_dy, s), Input::new(&d_x, s), Output::new(&mut sums, s)).expect("it launches");
    let mut want = vec![0.0; n * c];
    (0..x.len()).for_each(|i| want[of(i)] += x[i].f64() * dy[i].f64());
    close("sums of products", &g.download(&sums), &want, |_| 2e-6 * plane as f64 + 1e-6);
}

on_device!(images_have_their_own_factors, |g| {
    for shape in [[3, 49, 40], [2, 200, 7], [1, 1, 1], [2, 600, 16]] {
        gated::<f32>(g, shape);
        gated::<bf16>(g, shape);
    }
});

on_device!(shapes_that_no_kernel_serves_are_refused, |g| {
    let why = Moments::new(&g.device, dtype::<f32>(), 0, 4).expect_err("no rows");
    assert_eq!(why.to_string(), "batch_norm_moments: rows is 0, expected 1 to 2^30");
    let why = GlobalAvgPool::new(&g.device, dtype::<f32>(), 70_000, 4, 4).expect_err("too many images");
    assert_eq!(why.to_string(), "global_avg_pool_fwd: images is 70000, expected 1 to 65535");
    g.download(&g.upload(&[0f32]));
});

const COUNTED_SHAPE: [usize; 2] = [392, 240];
const ELEMENTS: usize = COUNTED_SHAPE[0] * COUNTED_SHAPE[1];

fn cost<T: Number>(g: &Gpu) {
    norm::<T>(g, COUNTED_SHAPE, 0.0);
    bias::<T>(g, COUNTED_SHAPE);
    mean::<T>(g, [2, COUNTED_SHAPE[0] / 2, COUNTED_SHAPE[1]]);
}

pub const COUNTED: [Counted; 2] = [
    Counted {
        case: "channels f32",
        elements: ELEMENTS,
        most: &[
            ("batch_norm_moments_f32", 9.0),
            ("batch_norm_sums_f32", 9.0),
            ("channel_affine_f32", 7.0),
            ("channel_linear_f32", 9.0),
            ("bias_bwd_f32", 6.0),
            ("global_avg_pool_fwd_f32", 5.0),
            ("global_avg_pool_bwd_f32", 5.0),
        ],
        body: cost::<f32>,
    },
    Counted {
        case: "channels bf16",
        elements: ELEMENTS,
        most: &[
            ("batch_norm_moments_bf16", 9.0),
            ("batch_norm_sums_bf16", 9.0),
            ("channel_affine_bf16", 7.0),
            ("channel_linear_bf16", 9.0),
            ("bias_bwd_bf16", 6.0),
            ("global_avg_pool_fwd_bf16", 5.0),
            ("global_avg_pool_bwd_bf16", 5.0),
        ],
        body: cost::<bf16>,
    },
];
