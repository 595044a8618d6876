//! Depthwise convolutions of any window, and pools, against their definitions.

use half::bf16;
use kernels::batch_norm::SumPartials;
use kernels::windows::{Depthwise, Kind, Pool, Shape};
use kernels::{Input, Output};

use crate::elementwise::{WRITES, before, rounded};
use crate::harness::{Counted, Gpu, Number, close, dtype, noise};

const PLAIN: Shape = Shape { n: 2, h: 7, w: 9, c: 19, k: 3, stride: 1, padding: 1, dilation: 1 };

/// Calls `see(y, x, tap, place in window)` for channel 0 of every output and every pixel within its window; with the
/// number of pixels of each output's window.
fn windows(s: &Shape, mut see: impl FnMut(usize, usize, usize)) -> Vec<f64> {
    let (oh, ow) = (s.oh(), s.ow());
    let mut sizes = vec![0.0; s.n * oh * ow];
    for (i, size) in sizes.iter_mut().enumerate() {
        let (n, oy, ox) = (i / ow / oh, i / ow % oh, i % ow);
        for tap in 0..s.k * s.k {
            let iy = (oy * s.stride + tap / s.k * s.dilation).wrapping_sub(s.padding);
            let ix = (ox * s.stride + tap % s.k * s.dilation).wrapping_sub(s.padding);
            if iy < s.h && ix < s.w {
                *size += 1.0;
                see(i * s.c, ((n * s.h + iy) * s.w + ix) * s.c, tap);
            }
        }
    }
    sizes
}

fn sides(s: &Shape) -> [usize; 2] {
    [s.n * s.h * s.w * s.c, s.n * s.oh() * s.ow() * s.c]
}

fn depthwise<T: Number>(g: &Gpu, s: Shape) {
    let [inputs, outputs] = sides(&s);
    let filters = s.k * s.k * s.c;
    let (x, dy, w) = (rounded::<T>(inputs, 1, 1.0), rounded::<T>(outputs, 2, 1.0), noise(filters, 3));
    let (stream, d_x, d_dy, d_w) = (&g.stream, g.upload(&x), g.upload(&dy), g.upload(&w));
    let (mut want_y, mut want_dx, mut want_dw) = (vec![0.0; outputs], vec![0.0; inputs], vec![0.5; filters]);
    windows(&s, |at, from, tap| {
        for c in 0..s.c {
            let weight = tap * s.c + c;
            want_y[at + c] += x[from + c].f64() * f64::from(w[weight]);
            want_dx[from + c] += dy[at + c].f64() * f64::from(w[weight]);
            want_dw[weight] += dy[at + c].f64() * x[from + c].f64();
        }
    });
    let op = Depthwise::new(&g.device, s, dtype::<T>()).expect("a kernel serves it");
    let mut y = g.empty::<T>(outputs);
    op.forward(stream, Input::new(&d_x, stream), Input::new(&d_w, stream), Output::new(&mut y, stream))
        .expect("it launches");
    let near = |want: f64| T::EPSILON * want.abs() + 1e-5;
    close(&format!("{s:?}, y"), &g.download(&y), &want_y, |i| near(want_y[i]));
    for write in WRITES {
        let (old, mut dx) = before::<T>(g, inputs, write);
        let (dy, w) = (Input::new(&d_dy, stream), Input::new(&d_w, stream));
        op.data_gradient(stream, dy, w, Output::new(&mut dx, stream), write).expect("it launches");
        let want: Vec<f64> = want_dx.iter().zip(&old).map(|(dx, old)| dx + old.f64()).collect();
        close(&format!("{s:?}, dx"), &g.download(&dx), &want, |i| near(want[i]));
    }
    let p = op.partials();
    let mut parts = g.empty::<f32>(p * filters);
    op.filter_gradient(
        stream,
        Input::new(&d_x, stream),
        Input::new(&d_dy, stream),
        Output::new(&mut parts, stream),
    )
    .expect("it launches");
    let mut dw = g.upload(&vec![0.5f32; filters]);
    let add = SumPartials::new(&g.device, p, filters).expect("it is there");
    add.launch(stream, Input::new(&parts, stream), Output::new(&mut dw, stream)).expect("it launches");
    close(&format!("{s:?}, dw"), &g.download(&dw), &want_dw, |_| 2e-5);
}

/// The cases of the CPU's operation: windows of 1 to 9, strides, dilation, odd planes, one pixel, windows and strides
/// beyond the plane; channels that fill vectors and that do not. A third of them: cases are bounded.
fn convolutions<T: Number>(g: &Gpu, part: usize) {
    let shape = |[n, h, w, c]: [usize; 4], k: usize, stride, dilation| Shape {
        n,
        h,
        w,
        c,
        k,
        stride,
        padding: dilation * (k - 1) / 2,
        dilation,
    };
    for s in [
        shape([2, 7, 9, 19], 3, 1, 1),
        shape([1, 8, 10, 24], 5, 2, 1),
        shape([1, 15, 13, 8], 7, 2, 1),
        shape([1, 11, 10, 3], 9, 3, 1),
        shape([1, 9, 11, 16], 3, 1, 2),
        shape([1, 9, 10, 6], 5, 2, 2),
        shape([1, 9, 10, 2], 3, 2, 3),
        shape([2, 2, 3, 4], 7, 1, 1),
        shape([1, 2, 2, 3], 3, 4, 1),
        shape([1, 1, 1, 1], 3, 1, 1),
        shape([1, 4, 4, 3], 1, 2, 1),
        shape([9, 20, 6, 8], 3, 1, 1),
    ]
    .into_iter()
    .skip(part)
    .step_by(3)
    {
        depthwise::<T>(g, s);
    }
}

on_device!(depthwise_of_any_window_f32, |g| convolutions::<f32>(g, 0));
on_device!(depthwise_of_any_window_f32_2, |g| convolutions::<f32>(g, 1));
on_device!(depthwise_of_any_window_f32_3, |g| convolutions::<f32>(g, 2));
on_device!(depthwise_of_any_window_bf16, |g| convolutions::<bf16>(g, 0));
on_device!(depthwise_of_any_window_bf16_2, |g| convolutions::<bf16>(g, 1));
on_device!(depthwise_of_any_window_bf16_3, |g| convolutions::<bf16>(g, 2));

fn pool<T: Number>(g: &Gpu, kind: Kind, s: Shape, levels: f32) {
    let [inputs, outputs] = sides(&s);
    // Few levels give equal maxima.
    let x: Vec<T> = noise(inputs, 1).into_iter().map(|v| T::nearest((v * levels).round() / levels)).collect();
    let dy = rounded::<T>(outputs, 2, 1.0);
    let (stream, d_x, d_dy) = (&g.stream, g.upload(&x), g.upload(&dy));
    let mut seen = vec![Vec::new(); outputs / s.c];
    let sizes = windows(&s, |at, from, _| seen[at / s.c].push(from));
    let (mut want_y, mut want_dx) = (vec![0.0; outputs], vec![0.0; inputs]);
    for at in 0..outputs {
        let (i, c) = (at / s.c, at % s.c);
        match kind {
            Kind::Average => {
                for from in &seen[i] {
                    want_y[at] += x[from + c].f64() / sizes[i];
                    want_dx[from + c] += dy[at].f64() / sizes[i];
                }
            }
            Kind::Maximum => {
                want_y[at] = seen[i].iter().map(|from| x[from + c].f64()).fold(f64::NEG_INFINITY, f64::max);
                let first = seen[i].iter().find(|from| x[**from + c].f64() == want_y[at]).expect("one is it");
                want_dx[first + c] += dy[at].f64();
            }
        }
    }
    let op = Pool::new(&g.device, kind, s, dtype::<T>()).expect("a kernel serves it");
    let mut y = g.empty::<T>(outputs);
    op.forward(stream, Input::new(&d_x, stream), Output::new(&mut y, stream)).expect("it launches");
    let near = |want: f64| T::EPSILON * want.abs() + 1e-5;
    close(&format!("{kind:?} {s:?}, y"), &g.download(&y), &want_y, |i| near(want_y[i]));
    for write in WRITES {
        let (old, mut dx) = before::<T>(g, inputs, write);
        let kept = [Input::new(&d_x, stream), Input::new(&y, stream)];
        op.backward(stream, Some(kept), Input::new(&d_dy, stream), Output::new(&mut dx, stream), write)
            .expect("it launches");
        let want: Vec<f64> = want_dx.iter().zip(&old).map(|(dx, old)| dx + old.f64()).collect();
        close(&format!("{kind:?} {s:?}, dx"), &g.download(&dx), &want, |i| near(want[i]));
    }
}

fn pools<T: Number>(g: &Gpu) {
    for (kind, levels) in [(Kind::Average, 100.0), (Kind::Maximum, 100.0), (Kind::Maximum, 1.0)] {
        for ([n, h, w, c], [k, stride, padding]) in [
            ([2, 5, 6, 5], [3, 1, 1]),
            ([1, 7, 8, 16], [3, 2, 1]),
            ([2, 5, 4, 8], [2, 2, 0]),
            ([1, 7, 7, 2], [2, 3, 1]),
            ([1, 1, 1, 1], [1, 1, 0]),
        ] {
            pool::<T>(g, kind, Shape { n, h, w, c, k, stride, padding, dilation: 1 }, levels);
        }
    }
}

on_device!(pools_f32, pools::<f32>);
on_device!(pools_bf16, pools::<bf16>);

on_device!(what_is_no_number_wins_a_maximum, |g| {
    let s = Shape { n: 1, h: 2, w: 2, c: 1, k: 2, stride: 2, padding: 0, dilation: 1 };
    let (x, dy) = (g.upload(&[1.0f32, f32::NAN, 3.0, 2.0]), g.upload(&[5.0f32]));
    let (mut y, mut dx) = (g.empty::<f32>(1), g.empty::<f32>(4));
    let op = Pool::new(&g.device, Kind::Maximum, s, dtype::<f32>()).expect("a kernel serves it");
    let input = Input::new(&x, &g.stream);
    op.forward(&g.stream, input, Output::new(&mut y, &g.stream)).expect("it launches");
    assert!(g.download(&y)[0].is_nan());
    let kept = Some([input, Input::new(&y, &g.stream)]);
    op.backward(&g.stream, kept, Input::new(&dy, &g.stream), Output::new(&mut dx, &g.stream), WRITES[0])
        .expect("it launches");
    assert_eq!(g.download(&dx), [0.0, 5.0, 0.0, 0.0]);
});

on_device!(windows_that_make_no_sense_are_refused, |g| {
    let refused =
        |s: Shape| Pool::new(&g.device, Kind::Average, s, dtype::<f32>()).expect_err("none").to_string();
    assert!(refused(Shape { padding: 2, ..PLAIN }).contains("padding is 2"));
    assert!(refused(Shape { dilation: 2, ..PLAIN }).contains("dilation is 2, expected 1"));
    assert!(refused(Shape { h: 2, padding: 0, ..PLAIN }).contains("window is 3"));
    let why = Depthwise::new(&g.device, Shape { k: 4, ..PLAIN }, dtype::<f32>()).expect_err("even");
    assert_eq!(why.to_string(), "depthwise_any: k is 4, expected an odd number");
    g.download(&g.upload(&[0f32]));
});

const COST: Shape = Shape { n: 1, h: 14, w: 14, c: 16, k: 3, stride: 1, padding: 1, dilation: 1 };

fn cost<T: Number>(g: &Gpu) {
    depthwise::<T>(g, COST);
    pool::<T>(g, Kind::Average, COST, 100.0);
    pool::<T>(g, Kind::Maximum, COST, 100.0);
}

pub const COUNTED: [Counted; 2] = [
    Counted {
        case: "windows of 3 f32",
        elements: 14 * 14 * 16,
        most: &[
            ("depthwise_any_fwd_f32", 90.0),
            ("depthwise_any_bwd_data_f32", 125.0),
            ("depthwise_any_bwd_filter_f32", 165.0),
            ("avg_pool_fwd_f32", 80.0),
            ("avg_pool_bwd_f32", 125.0),
            ("max_pool_fwd_f32", 90.0),
            ("max_pool_bwd_f32", 950.0),
        ],
        body: cost::<f32>,
    },
    Counted {
        case: "windows of 3 bf16",
        elements: 14 * 14 * 16,
        most: &[
            ("depthwise_any_fwd_bf16", 70.0),
            ("depthwise_any_bwd_data_bf16", 85.0),
            ("depthwise_any_bwd_filter_bf16", 180.0),
            ("avg_pool_fwd_bf16", 60.0),
            ("avg_pool_bwd_bf16", 85.0),
            ("max_pool_fwd_bf16", 75.0),
            ("max_pool_bwd_bf16", 620.0),
        ],
        body: cost::<bf16>,
    },
];
