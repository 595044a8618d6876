//! Dense convolutions against their definition.

use half::bf16;
use kernels::batch_norm::SumPartials;
use kernels::conv2d::{DataGradient, FilterGradient, Forward, Shape};
use kernels::{Input, Output};

use crate::elementwise::{WRITES, before, rounded};
use crate::harness::{Counted, Gpu, Number, close, dtype, noise};

const PLAIN: Shape = Shape {
    n: 2,
    h: 7,
    w: 6,
    c: 5,
    o: 4,
    k: [3, 3],
    stride: [1, 1],
    padding: [1, 1],
    dilation: [1, 1],
    groups: 1,
};

/// Calls `see(y, x, w)` with the flat places of every product.
fn products(s: &Shape, mut see: impl FnMut(usize, usize, usize)) {
    let (oh, ow, cg, og) = (s.oh(), s.ow(), s.c / s.groups, s.o / s.groups);
    for (n, oy, ox, o) in
        (0..s.n * oh * ow * s.o).map(|i| (i / s.o / ow / oh, i / s.o / ow % oh, i / s.o % ow, i % s.o))
    {
        for (ky, kx) in (0..s.k[0] * s.k[1]).map(|tap| (tap / s.k[1], tap % s.k[1])) {
            let iy = (oy * s.stride[0] + ky * s.dilation[0]).wrapping_sub(s.padding[0]);
            let ix = (ox * s.stride[1] + kx * s.dilation[1]).wrapping_sub(s.padding[1]);
            if iy >= s.h || ix >= s.w {
                continue;
            }
            for i in 0..cg {
                let x = ((n * s.h + iy) * s.w + ix) * s.c + o / og * cg + i;
                see(((n * oh + oy) * ow + ox) * s.o + o, x, ((o * s.k[0] + ky) * s.k[1] + kx) * cg + i);
            }
        }
    }
}

fn every<T: Number>(g: &Gpu, s: Shape) {
    let (inputs, outputs) = (s.n * s.h * s.w * s.c, s.n * s.oh() * s.ow() * s.o);
    let (x, dy, w) = (rounded::<T>(inputs, 1, 1.0), rounded::<T>(outputs, 2, 1.0), noise(s.filters(), 3));
    let stream = &g.stream;
    let (d_x, d_dy, d_w) = (g.upload(&x), g.upload(&dy), g.upload(&w));
    let (mut want_y, mut want_dx, mut want_dw) =
        (vec![0.0; outputs], vec![0.0; inputs], vec![0.5; s.filters()]);
    let mut terms = vec![0.0; s.filters()];
    products(&s, |at, from, tap| {
        want_y[at] += x[from].f64() * f64::from(w[tap]);
        want_dx[from] += dy[at].f64() * f64::from(w[tap]);
        want_dw[tap] += dy[at].f64() * x[from].f64();
        terms[tap] += 1.0;
    });
    let forward = Forward::new(&g.device, s, dtype::<T>()).expect("a kernel serves it");
    let mut y = g.empty::<T>(outputs);
    forward
        .launch(stream, Input::new(&d_x, stream), Input::new(&d_w, stream), Output::new(&mut y, stream))
        .expect("it launches");
    let near = |want: f64, terms: f64| T::EPSILON * want.abs() + 2e-7 * (terms + 4.0);
    let all = (s.k[0] * s.k[1] * s.c.max(s.o) / s.groups) as f64;
    close(&format!("{s:?}, y"), &g.download(&y), &want_y, |i| near(want_y[i], all));
    let data = DataGradient::new(&g.device, s, dtype::<T>()).expect("a kernel serves it");
    for write in WRITES {
        let (old, mut dx) = before::<T>(g, inputs, write);
        let (dy, w) = (Input::new(&d_dy, stream), Input::new(&d_w, stream));
        data.launch(stream, dy, w, Output::new(&mut dx, stream), write).expect("it launches");
        let want: Vec<f64> = want_dx.iter().zip(&old).map(|(dx, old)| dx + old.f64()).collect();
        close(&format!("{s:?}, dx"), &g.download(&dx), &want, |i| near(want[i], all));
    }
    let filter = FilterGradient::new(&g.device, s, dtype::<T>()).expect("a kernel serves it");
    let p = filter.partials();
    let mut parts = g.empty::<f32>(p * s.filters());
    filter
        .launch(stream, Input::new(&d_x, stream), Input::new(&d_dy, stream), Output::new(&mut parts, stream))
        .expect("it launches");
    let mut dw = g.upload(&vec![0.5f32; s.filters()]);
    let add = SumPartials::new(&g.device, p, s.filters()).expect("it is there");
    add.launch(stream, Input::new(&parts, stream), Output::new(&mut dw, stream)).expect("it launches");
    close(&format!("{s:?}, dw"), &g.download(&dw), &want_dw, |i| 2e-7 * (terms[i] + 4.0));
}

macro_rules! convolves {
    ($name:ident, $shape:expr) => {
        mod $name {
            use super::*;

            on_device!(f32, |g| every::<std::primitive::f32>(g, $shape));
            on_device!(bf16, |g| every::<half::bf16>(g, $shape));
        }
    };
}

convolves!(an_odd_plane, PLAIN);
convolves!(stride_2, Shape { stride: [2, 2], ..PLAIN });
convolves!(axes_that_differ, Shape { k: [5, 2], stride: [2, 1], padding: [2, 0], ..PLAIN });
convolves!(dilation, Shape { dilation: [2, 3], padding: [2, 3], ..PLAIN });
convolves!(three_groups, Shape { c: 6, o: 9, groups: 3, ..PLAIN });
convolves!(a_group_per_channel, Shape { n: 1, c: 4, o: 4, groups: 4, stride: [2, 2], ..PLAIN });
convolves!(one_of_everything, Shape { n: 1, h: 1, w: 1, c: 1, o: 1, k: [1, 1], padding: [0, 0], ..PLAIN });
convolves!(a_window_beyond_the_plane, Shape { n: 1, h: 2, w: 3, k: [5, 5], padding: [4, 4], ..PLAIN });
convolves!(
    strides_beyond_the_window,
    Shape { n: 1, h: 9, w: 9, stride: [3, 4], padding: [0, 0], k: [2, 2], ..PLAIN }
);
convolves!(a_stem, Shape { h: 15, w: 13, c: 3, o: 16, stride: [2, 2], ..PLAIN });
convolves!(splits_of_the_filters_sum, Shape { n: 3, h: 9, w: 10, c: 3, o: 17, ..PLAIN });
convolves!(
    columns_of_two_tiles,
    Shape { n: 1, h: 4, w: 5, c: 20, o: 70, k: [1, 3], padding: [0, 1], ..PLAIN }
);
convolves!(one_pixel_windows, Shape { n: 1, h: 5, w: 4, c: 40, o: 36, k: [1, 1], padding: [0, 0], ..PLAIN });

on_device!(shapes_that_make_no_sense_are_refused, |g| {
    for (s, part) in [
        (Shape { groups: 2, ..PLAIN }, "groups is 2"),
        (Shape { stride: [0, 1], ..PLAIN }, "vertical stride is 0"),
        (Shape { padding: [1, 3], ..PLAIN }, "horizontal padding is 3, expected less than the window"),
        (Shape { k: [10, 3], ..PLAIN }, "window is 10"),
        (Shape { n: 1 << 16, h: 1 << 16, ..PLAIN }, "pixels of all images"),
    ] {
        let why = Forward::new(&g.device, s, dtype::<f32>()).expect_err("no kernel serves it").to_string();
        assert!(why.contains(part), "{why}");
    }
    g.download(&g.upload(&[0f32]));
});

/// A stem of 3 channels on 24 x 24, stride 2.
const STEM: Shape = Shape { n: 1, h: 24, w: 24, c: 3, o: 16, stride: [2, 2], ..PLAIN };

/// Wide enough for whole tiles.
const WIDE: Shape = Shape { n: 1, h: 8, w: 8, c: 32, o: 64, k: [1, 3], padding: [0, 1], ..PLAIN };

/// Products of a pass.
const fn macs(s: Shape) -> usize {
    let pixels = (s.h / s.stride[0]) * (s.w / s.stride[1]);
    pixels * s.o * s.c * s.k[0] * s.k[1]
}

fn cost<T: Number>(g: &Gpu, s: Shape) {
    let (inputs, outputs) = (s.n * s.h * s.w * s.c, s.n * s.oh() * s.ow() * s.o);
    let (x, dy) = (g.upload(&rounded::<T>(inputs, 1, 1.0)), g.upload(&rounded::<T>(outputs, 2, 1.0)));
    let (w, stream) = (g.upload(&noise(s.filters(), 3)), &g.stream);
    let (mut y, mut dx) = (g.empty::<T>(outputs), g.empty::<T>(inputs));
    let (x, dy, w) = (Input::new(&x, stream), Input::new(&dy, stream), Input::new(&w, stream));
    let forward = Forward::new(&g.device, s, dtype::<T>()).expect("a kernel serves it");
    forward.launch(stream, x, w, Output::new(&mut y, stream)).expect("it launches");
    let data = DataGradient::new(&g.device, s, dtype::<T>()).expect("a kernel serves it");
    data.launch(stream, dy, w, Output::new(&mut dx, stream), WRITES[0]).expect("it launches");
    let filter = FilterGradient::new(&g.device, s, dtype::<T>()).expect("a kernel serves it");
    let mut parts = g.empty::<f32>(filter.partials() * s.filters());
    filter.launch(stream, x, dy, Output::new(&mut parts, stream)).expect("it launches");
    g.download(&y);
}

/// Lane slots per product; 1 is the multiplication itself.
pub const COUNTED: [Counted; 3] = [
    Counted {
        case: "stem f32, per product",
        elements: macs(STEM),
        most: &[
            ("conv2d_fwd_f32_n16", 8.5),
            ("conv2d_bwd_data_f32_n16", 105.0),
            ("conv2d_bwd_filter_f32_n32", 8.5),
        ],
        body: |g| cost::<f32>(g, STEM),
    },
    Counted {
        case: "stem bf16, per product",
        elements: macs(STEM),
        most: &[
            ("conv2d_fwd_bf16_n16", 8.5),
            ("conv2d_bwd_data_bf16_n16", 105.0),
            ("conv2d_bwd_filter_bf16_n32", 8.8),
        ],
        body: |g| cost::<bf16>(g, STEM),
    },
    Counted {
        case: "1x3 of 32 to 64 channels f32, per product",
        elements: macs(WIDE),
        most: &[
            ("conv2d_fwd_f32_n64", 2.2),
            ("conv2d_bwd_data_f32_n32", 5.5),
            ("conv2d_bwd_filter_f32_n64", 3.2),
        ],
        body: |g| cost::<f32>(g, WIDE),
    },
];
