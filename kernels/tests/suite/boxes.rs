//! Boxes that move, against loops.

use half::bf16;
use kernels::boxes::{Box4, Move, Place};
use kernels::{Input, Output};

use crate::elementwise::{WRITES, rounded};
use crate::harness::{Counted, Gpu, Number, close, dtype};

/// Moves a box between arrays of these lengths; what lies outside it stays as it is.
fn every<T: Number>(g: &Gpu, b: Box4, [from, to]: [usize; 2]) {
    let x = rounded::<T>(from, 1, 2.0);
    let (s, d_x) = (&g.stream, g.upload(&x));
    let op = Move::new(&g.device, dtype::<T>(), b).expect("a kernel serves it");
    for write in WRITES {
        let there = rounded::<T>(to, 99, 2.0);
        let mut y = g.upload(&there);
        op.launch(s, Input::new(&d_x, s), Output::new(&mut y, s), write).expect("it launches");
        let mut want: Vec<f64> = there.iter().map(|v| v.f64()).collect();
        let [l0, l1, l2, l3] = b.len;
        for i in 0..l0 * l1 * l2 * l3 {
            let at = [i / l3 / l2 / l1, i / l3 / l2 % l1, i / l3 % l2, i % l3];
            let place = |p: Place| p.offset + (0..4).map(|k| at[k] * p.stride[k]).sum::<usize>();
            let (value, to) = (x[place(b.from)].f64(), place(b.to));
            want[to] = if write == WRITES[0] { value } else { want[to] + value };
        }
        close(&format!("{b:?}"), &g.download(&y), &want, |i| T::EPSILON * want[i].abs() + 1e-30);
    }
}

fn all<T: Number>(g: &Gpu) {
    // Joined, picked, shuffled, and each back again; with channels that fill vectors and that do not.
    for (b, sides) in [
        (Box4::channels(50, 16, [16, 0, 1], [40, 24, 1]), [800, 2000]),
        (Box4::channels(50, 3, [3, 0, 1], [8, 5, 1]), [150, 400]),
        (Box4::channels(30, 4, [8, 1, 2], [4, 0, 1]), [240, 120]),
        (Box4::shuffle(30, 24, 3), [720, 720]),
        (Box4::shuffle(30, 9, 3), [270, 270]),
        (Box4::shuffle(4, 1, 1), [4, 4]),
        // The middle of a larger window, fewer channels, a leading part of a filter.
        (Box4::window(32, [1, 7, 7, 48], [0, 1, 1, 0], [1, 5, 5, 24]), [32 + 7 * 7 * 48, 600]),
        (Box4::window(16, [6, 3, 3, 5], [0, 0, 0, 0], [4, 3, 3, 3]), [16 + 270, 108]),
        (Box4::window(0, [1, 1, 1, 40], [0, 0, 0, 3], [1, 1, 1, 20]), [40, 20]),
    ] {
        every::<T>(g, b, sides);
        every::<T>(g, b.reversed(), [sides[1], sides[0]]);
    }
}

on_device!(boxes_move_and_come_back_f32, all::<f32>);
on_device!(boxes_move_and_come_back_bf16, all::<bf16>);

on_device!(boxes_whose_elements_meet_are_refused, |g| {
    let b = Box4::channels(3, 4, [4, 0, 1], [4, 0, 1]);
    let meeting = Box4 { to: Place { offset: 0, stride: [2, 0, 0, 1] }, ..b };
    let refused =
        |b: Box4| Move::new(&g.device, dtype::<f32>(), b).expect_err("no kernel serves it").to_string();
    assert!(refused(meeting).contains("no two elements at one place"));
    assert!(refused(Box4 { len: [3, 1, 0, 4], ..b }).contains("length of an axis is 0"));
    let far = Place { offset: usize::MAX, ..b.to };
    assert!(refused(Box4 { to: far, ..b }).contains("a box within an array"));
    // A buffer that ends within the box.
    let (x, mut y) = (g.upload(&[0f32; 12]), g.upload(&[0f32; 11]));
    let op = Move::new(&g.device, dtype::<f32>(), b).expect("a kernel serves it");
    let (x, to) = (Input::new(&x, &g.stream), Output::new(&mut y, &g.stream));
    let why = op.launch(&g.stream, x, to, WRITES[0]).expect_err("too short").to_string();
    assert!(why.contains("`to` has 11 elements, 12 are needed"), "{why}");
    g.download(&y);
});

fn cost<T: Number>(g: &Gpu) {
    every::<T>(g, Box4::channels(400, 40, [40, 0, 1], [80, 40, 1]), [16_000, 32_000]);
}

pub const COUNTED: [Counted; 3] = [
    Counted { case: "join f32", elements: 16_000, most: &[("boxes_f32_vector", 14.0)], body: cost::<f32> },
    Counted { case: "join bf16", elements: 16_000, most: &[("boxes_bf16_vector", 10.0)], body: cost::<bf16> },
    Counted {
        case: "shuffle f32",
        elements: 16_000,
        most: &[("boxes_f32", 54.0)],
        body: |g| every::<f32>(g, Box4::shuffle(400, 40, 2), [16_000, 16_000]),
    },
];
