//! Dropout against its definition, with random numbers of its own.

use half::bf16;
use kernels::dropout::{Dropout, Position};
use kernels::{Input, Output};

use crate::elementwise::{WRITES, before, rounded};
use crate::harness::{Counted, Gpu, Number, close, dtype};

/// Philox4x32-10 as its paper has it.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let wide = |a: u32, b: u32| u64::from(a) * u64::from(b);
    for _ in 0..10 {
        let (a, b) = (wide(0xd251_1f53, counter[0]), wide(0xcd9e_8d57, counter[2]));
        let high = |v: u64| (v >> 32) as u32;
        counter = [high(b) ^ counter[1] ^ key[0], b as u32, high(a) ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

/// Uniform in [0, 1) with 24 bits.
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 / 16_777_216.0
}

#[test]
fn known_answers_of_random123() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(
        philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

fn every<T: Number>(g: &Gpu, n: usize, rate: f32, at: Position) {
    let x = rounded::<T>(n, 1, 2.0);
    let (s, d_x) = (&g.stream, g.upload(&x));
    let op = Dropout::new(&g.device, dtype::<T>(), n, rate).expect("it is there");
    for write in WRITES {
        let (old, mut y) = before::<T>(g, n, write);
        op.launch(s, at, Input::new(&d_x, s), Output::new(&mut y, s), write).expect("it launches");
        let want: Vec<f64> = (0..n)
            .map(|i| {
                let element = at.first + i as u64;
                let four = element / 4;
                let words = philox([at.epoch, at.step, four as u32, (four >> 32) as u32], at.key);
                let kept = f64::from(1.0 / (1.0 - rate));
                let dropped = uniform(words[(element % 4) as usize]) < rate;
                old[i].f64() + if dropped { 0.0 } else { kept * x[i].f64() }
            })
            .collect();
        close(&format!("{n} at {at:?}"), &g.download(&y), &want, |i| T::EPSILON * want[i].abs() + 1e-6);
    }
}

on_device!(elements_are_dropped_by_their_place_in_the_step, |g| {
    let at = Position { key: [7, 11], epoch: 2, step: 9, first: 0 };
    for first in [0, 4, 1, 1_002, u64::from(u32::MAX - 5) * 3_001] {
        for n in [1, 2, 4, 1_023, 2_500] {
            every::<f32>(g, n, 0.3, Position { first, ..at });
        }
    }
    every::<f32>(g, 100, 0.0, at);
    every::<bf16>(g, 2_500, 0.5, at);
    every::<bf16>(g, 77, 0.5, Position { first: 3, ..at });
});

on_device!(a_rate_outside_is_refused, |g| {
    for rate in [-0.1, 1.0, f32::NAN] {
        let why = Dropout::new(&g.device, dtype::<f32>(), 4, rate).expect_err("outside");
        assert!(why.to_string().contains("expected 0 to 1, without 1"), "{why}");
    }
    g.download(&g.upload(&[0f32]));
});

const AT: Position = Position { key: [7, 11], epoch: 2, step: 9, first: 0 };

pub const COUNTED: [Counted; 2] = [
    Counted {
        case: "dropout f32",
        elements: 16_384,
        most: &[("dropout_f32", 40.0)],
        body: |g| every::<f32>(g, 16_384, 0.2, AT),
    },
    Counted {
        case: "dropout bf16",
        elements: 16_384,
        most: &[("dropout_bf16", 42.0)],
        body: |g| every::<bf16>(g, 16_384, 0.2, AT),
    },
];
