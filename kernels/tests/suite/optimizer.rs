//! The optimiser against its formula.

use half::bf16;
use kernels::optimizer::{Range, Sgd, SgdArgs, Table};
use kernels::{Input, Output};

use crate::harness::{Counted, Gpu, close, noise};

/// Whole parameters, windows with rows that fill vectors and rows that do not, a stretch longer than a piece.
pub const RANGES: [Range; 5] = [
    Range { offset: 0, rows: 1, row_len: 1500, stride: 1500, decay: 1e-2 },
    Range { offset: 1600, rows: 5, row_len: 24, stride: 40, decay: 0.0 },
    Range { offset: 1901, rows: 3, row_len: 7, stride: 11, decay: 1e-2 },
    Range { offset: 1950, rows: 9, row_len: 1, stride: 4, decay: 1e-2 },
    Range { offset: 1940, rows: 1, row_len: 3, stride: 3, decay: 0.0 },
];

/// Which of `n` elements lie in [`RANGES`].
pub fn touched(n: usize) -> Vec<bool> {
    let mut touched = vec![false; n];
    for r in RANGES {
        (0..r.rows * r.row_len)
            .for_each(|e| touched[r.offset + e / r.row_len * r.stride + e % r.row_len] = true);
    }
    touched
}

fn steps(g: &Gpu, nesterov: bool, copied: bool) {
    let (n, lr, momentum) = (2000usize, 0.1f32, 0.9f32);
    let table = Table::new(&RANGES, n).expect("the ranges lie within");
    let op = Sgd::new(&g.device, momentum, nesterov).expect("it is there");
    let (values, grads, momenta) = (noise(n, 1), noise(n, 2), noise(n, 3));
    let pieces = g.upload(table.words());
    let d_lr = g.upload(&[lr]);
    let (mut v, mut d, mut m) = (g.upload(&values), g.upload(&grads), g.upload(&momenta));
    let mut copy = g.upload(&vec![bf16::ZERO; n]);
    let mut launch = |skip: i32| {
        let skip = g.upload(&[skip]);
        let args = SgdArgs {
            pieces: Input::new(&pieces, &g.stream),
            lr: Input::new(&d_lr, &g.stream),
            skip: Some(Input::new(&skip, &g.stream)),
            values: Output::new(&mut v, &g.stream),
            grads: Output::new(&mut d, &g.stream),
            momenta: Output::new(&mut m, &g.stream),
            copy: copied.then(|| Output::new(&mut copy, &g.stream)),
        };
        // SAFETY: `pieces` holds the table's words.
        unsafe { op.launch(&g.stream, &table, args) }.expect("it launches");
    };
    // The first step moves; the second finds gradients of zero, so only decay and momentum act; the third is skipped.
    [0, 0, 1].into_iter().for_each(&mut launch);
    let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let (mut want, mut want_m, mut want_g) = (wide(&values), wide(&momenta), wide(&grads));
    let touched = touched(n);
    for r in RANGES {
        for i in (0..r.rows * r.row_len).map(|e| r.offset + e / r.row_len * r.stride + e % r.row_len) {
            for grad in [want_g[i], 0.0] {
                let grad = grad + f64::from(r.decay) * want[i];
                want_m[i] = f64::from(momentum) * want_m[i] + grad;
                let step = if nesterov { grad + f64::from(momentum) * want_m[i] } else { want_m[i] };
                want[i] -= f64::from(lr) * step;
            }
            want_g[i] = 0.0;
        }
    }
    let (got, got_m, got_g) = (g.download(&v), g.download(&m), g.download(&d));
    close("values", &got, &want, |_| 1e-6);
    close("momenta", &got_m, &want_m, |_| 1e-6);
    close("gradients", &got_g, &want_g, |_| 1e-9);
    for (i, c) in g.download(&copy).into_iter().enumerate() {
        let rounded = if touched[i] && copied { bf16::from_f32(got[i]) } else { bf16::ZERO };
        assert_eq!(c, rounded, "element {i}");
    }
    for i in (0..n).filter(|i| !touched[*i]) {
        assert_eq!((got[i], got_m[i], got_g[i]), (values[i], momenta[i], grads[i]), "nobody touched {i}");
    }
}

on_device!(touched_parameters_move_and_the_others_stand_still, |g| {
    steps(g, false, true);
    steps(g, true, false);
});

/// Windows of a path: 20 of 64 rows of 40 of 60 elements.
const WINDOWS: [usize; 4] = [20, 64, 40, 60];

fn cost(g: &Gpu) {
    let [count, rows, row_len, stride] = WINDOWS;
    let n = count * rows * stride;
    let window = |i| Range { offset: i * rows * stride, rows, row_len, stride, decay: 1e-4 };
    let table = Table::new(&(0..count).map(window).collect::<Vec<_>>(), n).expect("the ranges lie within");
    let (pieces, lr) = (g.upload(table.words()), g.upload(&[0.1f32]));
    let (mut v, mut d, mut m) = (g.upload(&noise(n, 1)), g.upload(&noise(n, 2)), g.upload(&noise(n, 3)));
    let mut copy = g.upload(&vec![bf16::ZERO; n]);
    let args = SgdArgs {
        pieces: Input::new(&pieces, &g.stream),
        lr: Input::new(&lr, &g.stream),
        skip: None,
        values: Output::new(&mut v, &g.stream),
        grads: Output::new(&mut d, &g.stream),
        momenta: Output::new(&mut m, &g.stream),
        copy: Some(Output::new(&mut copy, &g.stream)),
    };
    let op = Sgd::new(&g.device, 0.9, false).expect("it is there");
    // SAFETY: `pieces` holds the table's words.
    unsafe { op.launch(&g.stream, &table, args) }.expect("it launches");
    g.download(&v);
}

pub const COUNTED: [Counted; 1] = [Counted {
    case: "momentum and a bf16 copy, per parameter",
    elements: WINDOWS[0] * WINDOWS[1] * WINDOWS[2],
    most: &[("sgd_update", 19.0)],
    body: cost,
}];
