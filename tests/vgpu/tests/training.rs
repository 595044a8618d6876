//! What kernels of a training step are made of: packed bf16, tensor cores, zero-filling copies, block-wide sums.

mod support;

use support::*;

fn halves(v: &[f32]) -> Vec<u16> {
    v.iter().map(|x| bf16(*x)).collect()
}

fn wide(v: &[u16]) -> Vec<f32> {
    v.iter().map(|x| from_bf16(*x)).collect()
}

#[test]
fn eight_halves_per_thread_pass_through_an_affine_map() {
    let x = halves(&noise(1000, 31));
    let (scale, shift) = (1.7f32, -0.3f32);
    let want: Vec<u16> = wide(&x).iter().map(|v| bf16(v.mul_add(scale, shift).max(0.0))).collect();
    everywhere("training", |g| {
        let (px, py) = (g.upload(&x), g.empty::<u16>(1000));
        let (ps, pb) = (g.upload(&[scale]), g.upload(&[shift]));
        let args = [Arg::Ptr(px), Arg::Ptr(ps), Arg::Ptr(pb), Arg::Ptr(py), Arg::I32(125)];
        let c = ok(g.run("affine_relu_bf16", [2, 1, 1], [96, 1, 1], 0, &args));
        assert_eq!(g.download::<u16>(py, 1000), want, "rounded once");
        assert_eq!(c.global.load_requests, 4 + 2 * 4, "one 16-byte load and two scalars per warp");
        c
    });
}

#[test]
fn packed_products_round_once_and_clamp() {
    let (a, b, c) = (halves(&noise(64, 32)), halves(&noise(64, 33)), halves(&noise(64, 34)));
    let fused: Vec<f32> = (0..64)
        .map(|i| {
            let [a, b, c] = [a[i], b[i], c[i]].map(|v| f64::from(from_bf16(v)));
            // The product has 16 bits; the sum is exact in f64, so two roundings happen at f32 and bf16 alone.
            let exact = a * b + c;
            let rounded = exact as f32;
            // A sum that f32 had to round onto a tie of bf16 would need more care.
            assert!(f64::from(rounded) == exact || rounded.to_bits() & 0xffff != 0x8000);
            from_bf16(bf16(rounded))
        })
        .collect();
    everywhere("training", |g| {
        let (pa, pb, pc) = (g.upload(&a), g.upload(&b), g.upload(&c));
        let py = g.empty::<u16>(128);
        let args = [Arg::Ptr(pa), Arg::Ptr(pb), Arg::Ptr(pc), Arg::Ptr(py)];
        let counters = ok(g.run("packed_fma_bf16", [1, 1, 1], [32, 1, 1], 0, &args));
        let got = wide(&g.download::<u16>(py, 128));
        for (pair, (got, want)) in got.chunks(4).zip(fused.chunks(2)).enumerate() {
            assert_eq!(got[..2], *want, "pair {pair}");
            assert_eq!(got[2..], [want[0].max(0.0), want[1].max(0.0)], "pair {pair}");
        }
        counters
    });
}

#[test]
fn a_product_takes_its_second_factor_transposed_and_zeros_past_the_end() {
    let (m, n, k) = (37usize, 32usize, 48usize);
    let (a, b) = (halves(&noise(m * k, 35)), halves(&noise(k * n, 36)));
    let (fa, fb) = (wide(&a), wide(&b));
    let want: Vec<f64> = (0..m * n)
        .map(|i| (0..k).map(|x| f64::from(fa[i / n * k + x]) * f64::from(fb[x * n + i % n])).sum())
        .collect();
    everywhere("training", |g| {
        let (pa, pb, py) = (g.upload(&a), g.upload(&b), g.empty::<f32>(m * n));
        let size = [m, n, k].map(|v| Arg::I32(v as i32));
        let [m_, n_, k_] = size;
        let args = [Arg::Ptr(pa), Arg::Ptr(pb), Arg::Ptr(py), m_, n_, k_];
        let c = ok(g.run("gemm_transposed", [2, 3, 1], [32, 1, 1], 0, &args));
        close(&g.download::<f32>(py, m * n), &want, 1e-6);
        assert_eq!(c.mma, 2 * 3 * 3 * 2);
        c
    });
}

#[test]
fn tf32_products_drop_thirteen_bits_of_each_factor() {
    let k = 24;
    let (a, b) = (noise(16 * k, 37), noise(8 * k, 38));
    // Nearest, ties away from zero, to 10 bits of fraction.
    let tf32 = |v: f32| f64::from(f32::from_bits((v.to_bits() + 0x1000) & !0x1fff));
    let want: Vec<f64> =
        (0..16 * 8).map(|i| (0..k).map(|x| tf32(a[i / 8 * k + x]) * tf32(b[i % 8 * k + x])).sum()).collect();
    everywhere("training", |g| {
        let (pa, pb, py) = (g.upload(&a), g.upload(&b), g.empty::<f32>(128));
        let args = [Arg::Ptr(pa), Arg::Ptr(pb), Arg::Ptr(py), Arg::I32(k as i32)];
        let c = ok(g.run("gemm_tf32", [1, 1, 1], [32, 1, 1], 0, &args));
        close(&g.download::<f32>(py, 128), &want, 1e-6);
        c
    });
}

#[test]
fn moments_of_columns_use_more_shared_memory_than_a_launch_gets_by_default() {
    let (rows, width) = (500usize, 64usize);
    let x: Vec<f32> = noise(rows * width, 39).iter().map(|v| v + 3.0).collect();
    let column = |c: usize| (0..rows).map(move |r| r * width + c);
    let mean: Vec<f64> =
        (0..width).map(|c| column(c).map(|i| f64::from(x[i])).sum::<f64>() / rows as f64).collect();
    let variance: Vec<f64> = (0..width)
        .map(|c| column(c).map(|i| (f64::from(x[i]) - mean[c]).powi(2)).sum::<f64>() / rows as f64)
        .collect();
    everywhere("training", |g| {
        let bytes = (rows * 32 * 4) as u32;
        assert!(bytes > 48 << 10);
        let (px, pm, pv) = (g.upload(&x), g.empty::<f32>(width), g.empty::<f32>(width));
        let (pt, pb) = (g.upload(&[0u32]), g.empty::<i32>(1));
        let args =
            [Arg::Ptr(px), Arg::Ptr(pm), Arg::Ptr(pv), Arg::Ptr(pt), Arg::Ptr(pb), Arg::I32(rows as i32)];
        g.run("column_moments", [2, 1, 1], [256, 1, 1], bytes, &args).expect_err("nobody opted in");
        g.optin = bytes;
        let c = ok(g.run("column_moments", [2, 1, 1], [256, 1, 1], bytes, &args));
        close(&g.download::<f32>(pm, width), &mean, 1e-6);
        close(&g.download::<f32>(pv, width), &variance, 1e-5);
        assert_eq!((g.download::<i32>(pb, 1), g.download::<u32>(pt, 1)), (vec![2], vec![0]));
        c
    });
}

#[test]
fn activations_are_near_the_truth() {
    let x: Vec<f32> = noise(64, 40).iter().map(|v| v * 5.0).collect();
    let want: Vec<f64> = x
        .iter()
        .flat_map(|v| {
            let v = f64::from(*v);
            let hard = (v / 6.0 + 0.5).clamp(0.0, 1.0);
            [v / (1.0 + (-v).exp()), v * hard, 1.0 / (v * v + 1e-3).sqrt(), v.exp2()]
        })
        .collect();
    let positive = x.iter().filter(|v| **v > 0.0).count() as i32;
    everywhere("training", |g| {
        let (px, py, pn) = (g.upload(&x), g.empty::<f32>(256), g.upload(&[0i32]));
        let c =
            ok(g.run("activations", [1, 1, 1], [64, 1, 1], 0, &[Arg::Ptr(px), Arg::Ptr(py), Arg::Ptr(pn)]));
        close(&g.download::<f32>(py, 256), &want, 1e-6);
        assert_eq!(g.download::<i32>(pn, 1), [positive]);
        c
    });
}
