//! Functions of single elements against their definitions.

use half::bf16;
use kernels::elementwise::{Activation, Add, Fill, Function, NonFinite, Scale};
use kernels::{Act, Input, Output, Write};

use crate::depthwise::activate;
use crate::harness::{Counted, Gpu, Number, close, dtype, noise};

/// Less than a vector, a vector and a tail, more than a block.
const LENGTHS: [usize; 3] = [3, 4 * 8 + 5, 2 * 2048 + 8];

/// `len` elements in `-size..size`.
pub fn rounded<T: Number>(len: usize, seed: u64, size: f32) -> Vec<T> {
    noise(len, seed).into_iter().map(|v| T::nearest(size * v)).collect()
}

pub const WRITES: [Write; 2] = [Write::Store, Write::Add];

/// What lies in a destination before a launch: what is stored must not depend on it.
pub fn before<T: Number>(g: &Gpu, len: usize, write: Write) -> (Vec<T>, cudarc::driver::CudaSlice<T>) {
    let values = rounded::<T>(len, 99, 2.0);
    let there = match write {
        Write::Store => g.empty(len),
        Write::Add => g.upload(&values),
    };
    (if write == Write::Add { values } else { vec![T::default(); len] }, there)
}

fn value(f: Function, u: f64) -> f64 {
    match f {
        Function::Act(act) => activate(act, u),
        Function::Sigmoid => 1.0 / (1.0 + (-u).exp()),
        Function::HardSigmoid => (u + 3.0).clamp(0.0, 6.0) / 6.0,
    }
}

fn slope(f: Function, u: f64) -> f64 {
    let s = 1.0 / (1.0 + (-u).exp());
    let inside = |lo: f64, hi: f64, v: f64| if u > lo && u < hi { v } else { 0.0 };
    match f {
        Function::Act(Act::None) => 1.0,
        Function::Act(Act::Relu) => inside(0.0, f64::INFINITY, 1.0),
        Function::Act(Act::Relu6) => inside(0.0, 6.0, 1.0),
        Function::Act(Act::HSwish) if u >= 3.0 => 1.0,
        Function::Act(Act::HSwish) => inside(-3.0, 3.0, u / 3.0 + 0.5),
        Function::Act(Act::Swish) => s * (1.0 + u * (1.0 - s)),
        Function::Sigmoid => s * (1.0 - s),
        Function::HardSigmoid => inside(-3.0, 3.0, 1.0 / 6.0),
    }
}

fn activation<T: Number>(g: &Gpu) {
    for (f, n) in Function::ALL.into_iter().flat_map(|f| LENGTHS.map(|n| (f, n))) {
        let mut x = rounded::<T>(n, 1, 9.0);
        // Kinks, and both tails.
        for (x, at) in x.iter_mut().zip([-3.0, 3.0, 0.0, 6.0, -200.0, 200.0]) {
            *x = T::nearest(at);
        }
        let dy = rounded::<T>(n, 2, 1.0);
        let op = Activation::new(&g.device, f, dtype::<T>(), n).expect("it is there");
        let (d_x, d_dy, mut y) = (g.upload(&x), g.upload(&dy), g.empty::<T>(n));
        op.forward(&g.stream, Input::new(&d_x, &g.stream), Output::new(&mut y, &g.stream)).expect("launches");
        let want: Vec<f64> = x.iter().map(|x| value(f, x.f64())).collect();
        let allowed = |want: f64| 4.0 * T::EPSILON * want.abs() + 2e-6;
        close(&format!("{f:?} of {n}"), &g.download(&y), &want, |i| allowed(want[i]));
        for write in WRITES {
            let (old, mut dx) = before::<T>(g, n, write);
            let (x_in, dy_in) = (Input::new(&d_x, &g.stream), Input::new(&d_dy, &g.stream));
            op.backward(&g.stream, x_in, dy_in, Output::new(&mut dx, &g.stream), write).expect("launches");
            let want: Vec<f64> = (0..n).map(|i| old[i].f64() + dy[i].f64() * slope(f, x[i].f64())).collect();
            close(&format!("{f:?}' of {n}"), &g.download(&dx), &want, |i| allowed(want[i]));
        }
    }
}

on_device!(activations_and_their_slopes_f32, activation::<f32>);
on_device!(activations_and_their_slopes_bf16, activation::<bf16>);

fn sums<X: Number, Y: Number>(g: &Gpu) {
    for n in LENGTHS {
        let (a, b) = (rounded::<X>(n, 1, 3.0), rounded::<X>(n, 2, 3.0));
        let (d_a, d_b) = (g.upload(&a), g.upload(&b));
        let mut y = g.empty::<X>(n);
        let add = Add::new(&g.device, dtype::<X>(), n).expect("it is there");
        let inputs = (Input::new(&d_a, &g.stream), Input::new(&d_b, &g.stream));
        add.launch(&g.stream, inputs.0, inputs.1, Output::new(&mut y, &g.stream)).expect("it launches");
        let want: Vec<f64> = (0..n).map(|i| a[i].f64() + b[i].f64()).collect();
        close("a + b", &g.download(&y), &want, |i| X::EPSILON * want[i].abs());
        let scale = Scale::new(&g.device, dtype::<X>(), dtype::<Y>(), n).expect("it is there");
        for (write, factor) in WRITES.into_iter().flat_map(|w| [(w, 1.0f32), (w, -0.75)]) {
            let (old, mut y) = before::<Y>(g, n, write);
            let x = Input::new(&d_a, &g.stream);
            scale.launch(&g.stream, factor, x, Output::new(&mut y, &g.stream), write).expect("it launches");
            let exact = |i: usize| f64::from(factor) * a[i].f64() + old[i].f64();
            let want: Vec<f64> = (0..n).map(|i| Y::nearest(exact(i) as f32).f64()).collect();
            // One rounding, to nearest even; f32 sums round the product first.
            let allowed =
                |i: usize| if write == Write::Store { 1e-30 } else { Y::EPSILON * want[i].abs() + 3e-7 };
            close("factor * x", &g.download(&y), &want, allowed);
        }
        let mut y = g.empty::<Y>(n);
        let fill = Fill::new(&g.device, dtype::<Y>(), n).expect("it is there");
        fill.launch(&g.stream, -1.5, Output::new(&mut y, &g.stream)).expect("it launches");
        assert!(g.download(&y).iter().all(|v| v.f64() == -1.5));
    }
}

on_device!(sums_scaled_sums_fills_and_casts, |g| {
    sums::<f32, f32>(g);
    sums::<f32, bf16>(g);
    sums::<bf16, f32>(g);
    sums::<bf16, bf16>(g);
});

fn finite<T: Number>(g: &Gpu) {
    for (n, at) in [(5, 4), (3000, 0), (3000, 2999), (3000, 1234)] {
        let values = rounded::<T>(n, 1, f32::MAX / 4.0);
        let op = NonFinite::new(&g.device, dtype::<T>(), n).expect("it is there");
        let mut flag = g.upload(&[0i32]);
        for (bad, want) in [(1.0, 0), (f32::NAN, 1), (f32::INFINITY, 1), (f32::NEG_INFINITY, 1)] {
            let mut values = values.clone();
            values[at] = T::nearest(bad);
            let x = g.upload(&values);
            g.stream.memcpy_htod(&[0i32], &mut flag).expect("it fits");
            op.launch(&g.stream, Input::new(&x, &g.stream), Output::new(&mut flag, &g.stream))
                .expect("launches");
            assert_eq!(g.stream.clone_dtoh(&flag).expect("it was written"), [want], "{bad} at {at} of {n}");
        }
    }
    g.download(&g.upload(&[0f32]));
}

on_device!(what_is_not_finite_is_found_f32, finite::<f32>);
on_device!(what_is_not_finite_is_found_bf16, finite::<bf16>);

on_device!(no_elements_are_refused, |g| {
    let why = Fill::new(&g.device, dtype::<f32>(), 0).expect_err("nothing to fill");
    assert_eq!(why.to_string(), "fill: elements is 0, expected 1 to 2^31 - 1");
    g.download(&g.upload(&[0f32]));
});

const ELEMENTS: usize = 8 * 2048;

fn activation_cost<T: Number>(g: &Gpu, f: Function) {
    let op = Activation::new(&g.device, f, dtype::<T>(), ELEMENTS).expect("it is there");
    let x = g.upload(&rounded::<T>(ELEMENTS, 1, 4.0));
    let mut y = g.empty::<T>(ELEMENTS);
    op.forward(&g.stream, Input::new(&x, &g.stream), Output::new(&mut y, &g.stream)).expect("it launches");
    let (a, b) = (Input::new(&x, &g.stream), Input::new(&x, &g.stream));
    op.backward(&g.stream, a, b, Output::new(&mut y, &g.stream), Write::Add).expect("it launches");
    g.download(&y);
}

fn sums_cost<T: Number>(g: &Gpu) {
    let x = g.upload(&rounded::<T>(ELEMENTS, 1, 4.0));
    let mut y = g.empty::<T>(ELEMENTS);
    let (a, b) = (Input::new(&x, &g.stream), Input::new(&x, &g.stream));
    let add = Add::new(&g.device, dtype::<T>(), ELEMENTS).expect("it is there");
    add.launch(&g.stream, a, b, Output::new(&mut y, &g.stream)).expect("it launches");
    let scale = Scale::new(&g.device, dtype::<T>(), dtype::<T>(), ELEMENTS).expect("it is there");
    scale.launch(&g.stream, 1.0, a, Output::new(&mut y, &g.stream), Write::Add).expect("it launches");
    g.download(&y);
}

pub const COUNTED: [Counted; 6] = [
    Counted {
        case: "activation h-swish f32",
        elements: ELEMENTS,
        body: |g| activation_cost::<f32>(g, Function::Act(Act::HSwish)),
        most: &[("activation_fwd_f32_hswish", 8.0), ("activation_bwd_f32_hswish", 16.0)],
    },
    Counted {
        case: "activation h-swish bf16",
        elements: ELEMENTS,
        body: |g| activation_cost::<bf16>(g, Function::Act(Act::HSwish)),
        most: &[("activation_fwd_bf16_hswish", 8.0), ("activation_bwd_bf16_hswish", 16.0)],
    },
    Counted {
        case: "activation sigmoid f32",
        elements: ELEMENTS,
        body: |g| activation_cost::<f32>(g, Function::Sigmoid),
        most: &[("activation_fwd_f32_sigmoid", 12.0), ("activation_bwd_f32_sigmoid", 18.0)],
    },
    Counted {
        case: "sums f32",
        elements: ELEMENTS,
        body: sums_cost::<f32>,
        most: &[("add_f32", 8.0), ("scale_f32_f32", 8.0)],
    },
    Counted {
        case: "sums bf16",
        elements: ELEMENTS,
        body: sums_cost::<bf16>,
        most: &[("add_bf16", 8.0), ("scale_bf16_bf16", 8.0)],
    },
    Counted {
        case: "cast",
        elements: ELEMENTS,
        body: |g| {
            let x = g.upload(&rounded::<f32>(ELEMENTS, 1, 4.0));
            let mut y = g.empty::<bf16>(ELEMENTS);
            let scale =
                Scale::new(&g.device, dtype::<f32>(), dtype::<bf16>(), ELEMENTS).expect("it is there");
            scale
                .launch(
                    &g.stream,
                    1.0,
                    Input::new(&x, &g.stream),
                    Output::new(&mut y, &g.stream),
                    Write::Store,
                )
                .expect("it launches");
            g.download(&y);
        },
        most: &[("scale_f32_bf16", 8.0)],
    },
];
