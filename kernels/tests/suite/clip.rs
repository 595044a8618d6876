//! Clipping of the touched gradients against its definition.

use kernels::clip::{Clip, NormArgs};
use kernels::optimizer::{Range, Table};
use kernels::{Input, Output};

use crate::harness::{Counted, Gpu, close, noise};
use crate::optimizer::{RANGES, touched};

fn norm(g: &Gpu, size: f32, most: f32) {
    let n = 2000usize;
    let table = Table::new(&RANGES, n).expect("the ranges lie within");
    let grads: Vec<f32> = noise(n, 2).into_iter().map(|v| v * size).collect();
    let (s, pieces) = (&g.stream, g.upload(table.words()));
    let mut d_grads = g.upload(&grads);
    let op = Clip::new(&g.device).expect("it is there");
    let mut squares = g.empty::<f64>(table.pieces());
    let args = NormArgs {
        pieces: Input::new(&pieces, s),
        grads: Input::new(&d_grads, s),
        squares: Output::new(&mut squares, s),
    };
    // SAFETY: `pieces` holds the table's words.
    unsafe { op.squares(s, &table, args) }.expect("it launches");
    let (mut norm, mut factor, mut flag) = (g.empty::<f32>(1), g.empty::<f32>(1), g.upload(&[0i32]));
    let out = [Output::new(&mut norm, s), Output::new(&mut factor, s)];
    let flag_out = Some(Output::new(&mut flag, s));
    op.norm(s, &table, most, Input::new(&squares, s), out, flag_out).expect("it launches");
    let seen = touched(n);
    let inside = |i: &usize| seen[*i];
    let want = (0..n).filter(inside).map(|i| f64::from(grads[i]).powi(2)).sum::<f64>().sqrt();
    let scale = if want > f64::from(most) { f64::from(most) / (want + 1e-6) } else { 1.0 };
    close("norm", &g.download(&norm), &[want], |_| 1e-7 * want);
    close("factor", &g.download(&factor), &[scale], |_| 1e-7 * scale);
    assert_eq!(s.clone_dtoh(&flag).expect("it was written"), [0]);
    let factor_in = Some(Input::new(&factor, s));
    let (pieces, out) = (Input::new(&pieces, s), Output::new(&mut d_grads, s));
    // SAFETY: `pieces` holds the table's words.
    unsafe { op.apply(s, &table, pieces, factor_in, f32::INFINITY, out) }.expect("it launches");
    let want: Vec<f64> = (0..n).map(|i| f64::from(grads[i]) * if seen[i] { scale } else { 1.0 }).collect();
    close("scaled", &g.download(&d_grads), &want, |i| 1e-6 * want[i].abs() + 1e-30);
}

on_device!(gradients_are_scaled_to_a_norm, |g| {
    norm(g, 1.0, 0.5);
    norm(g, 1.0, 1e6);
    // Squares beyond f32.
    norm(g, 1e25, 1.0);
});

on_device!(gradients_are_clamped_by_value, |g| {
    let n = 2000usize;
    let table = Table::new(&RANGES, n).expect("the ranges lie within");
    let mut grads = noise(n, 2);
    grads[0] = f32::NAN;
    let (s, pieces, mut d_grads) = (&g.stream, g.upload(table.words()), g.upload(&grads));
    let op = Clip::new(&g.device).expect("it is there");
    let (pieces, out) = (Input::new(&pieces, s), Output::new(&mut d_grads, s));
    // SAFETY: `pieces` holds the table's words.
    unsafe { op.apply(s, &table, pieces, None, 0.25, out) }.expect("it launches");
    let seen = touched(n);
    for (i, got) in g.download(&d_grads).into_iter().enumerate() {
        let want = if seen[i] { grads[i].clamp(-0.25, 0.25) } else { grads[i] };
        assert!(got == want || got.is_nan() && want.is_nan(), "element {i} is {got} for {want}");
    }
    let out = Output::new(&mut d_grads, s);
    // SAFETY: it does not launch.
    let why = unsafe { op.apply(s, &table, pieces, None, 0.0, out) }.expect_err("no bound");
    assert_eq!(why.to_string(), "clip: bound is 0, expected a number above 0");
});

on_device!(a_norm_that_is_not_finite_sets_the_flag, |g| {
    let range = Range { offset: 0, rows: 1, row_len: 40, stride: 40, decay: 0.0 };
    let table = Table::new(&[range], 40).expect("the range lies within");
    let op = Clip::new(&g.device).expect("it is there");
    let (s, pieces) = (&g.stream, g.upload(table.words()));
    for (bad, want) in [(f32::NAN, 1.0), (f32::INFINITY, 0.0)] {
        let mut grads = noise(40, 1);
        grads[17] = bad;
        let (grads, mut squares) = (g.upload(&grads), g.empty::<f64>(1));
        let args = NormArgs {
            pieces: Input::new(&pieces, s),
            grads: Input::new(&grads, s),
            squares: Output::new(&mut squares, s),
        };
        // SAFETY: `pieces` holds the table's words.
        unsafe { op.squares(s, &table, args) }.expect("it launches");
        let (mut norm, mut factor, mut flag) = (g.empty::<f32>(1), g.empty::<f32>(1), g.upload(&[0i32]));
        let out = [Output::new(&mut norm, s), Output::new(&mut factor, s)];
        let flag_out = Some(Output::new(&mut flag, s));
        op.norm(s, &table, 1.0, Input::new(&squares, s), out, flag_out).expect("it launches");
        assert_eq!(g.download(&factor), [want], "{bad}");
        assert_eq!(s.clone_dtoh(&flag).expect("it was written"), [1], "{bad}");
        g.download(&norm);
    }
});

fn cost(g: &Gpu) {
    let range = Range { offset: 0, rows: 1, row_len: 16_384, stride: 16_384, decay: 0.0 };
    let table = Table::new(&[range], 16_384).expect("the range lies within");
    let op = Clip::new(&g.device).expect("it is there");
    let (s, pieces, mut grads) = (&g.stream, g.upload(table.words()), g.upload(&noise(16_384, 1)));
    let mut squares = g.empty::<f64>(table.pieces());
    let args = NormArgs {
        pieces: Input::new(&pieces, s),
        grads: Input::new(&grads, s),
        squares: Output::new(&mut squares, s),
    };
    // SAFETY: `pieces` holds the table's words.
    unsafe { op.squares(s, &table, args) }.expect("it launches");
    let out = Output::new(&mut grads, s);
    // SAFETY: the same.
    unsafe { op.apply(s, &table, Input::new(&pieces, s), None, 0.5, out) }.expect("it launches");
    g.download(&grads);
}

pub const COUNTED: [Counted; 1] = [Counted {
    case: "clip",
    elements: 16_384,
    most: &[("gradient_squares", 15.0), ("gradient_clip", 10.0)],
    body: cost,
}];
