//! Programs with known answers, as two compilers translate them, in the plain order and in seeded ones.
//!
//! Every case runs under several seeds; results and counters must not depend on them, nor on the number of threads.

mod support;

use monopath_vgpu::Counters;
use support::*;

#[test]
fn rows_are_summed_by_shuffles() {
    let (rows, n) = (5, 1000);
    let x = noise(rows * n, 1);
    let want: Vec<f64> = x.chunks(n).map(|r| r.iter().map(|v| f64::from(*v)).sum()).collect();
    everywhere("reduce", |g| {
        let (px, py) = (g.upload(&x), g.empty::<f32>(rows));
        let c = ok(g.run(
            "row_sum",
            [5, 1, 1],
            [128, 1, 1],
            0,
            &[Arg::Ptr(px), Arg::Ptr(py), Arg::I32(n as i32)],
        ));
        close(&g.download::<f32>(py, rows), &want, 1e-5);
        c
    });
}

#[test]
fn a_tree_in_shared_memory_adds_integers() {
    let x: Vec<i32> = (0..1000).map(|i| i * i % 97 - 40).collect();
    let want: i32 = x.iter().sum();
    everywhere("reduce", |g| {
        let (px, py) = (g.upload(&x), g.upload(&[0i32]));
        let c =
            ok(g.run("tree_sum", [8, 1, 1], [128, 1, 1], 512, &[Arg::Ptr(px), Arg::Ptr(py), Arg::I32(1000)]));
        assert_eq!(g.download::<i32>(py, 1), [want]);
        assert_eq!(c.atomics, 8);
        c
    });
}

#[test]
fn the_last_block_sees_what_the_others_fenced() {
    let x = noise(4000, 2);
    let want: f64 = x.iter().map(|v| f64::from(*v)).sum();
    for compiler in COMPILERS {
        for seed in 0..4 {
            let mut g = Gpu::corpus("reduce", compiler);
            g.seed = seed;
            let (px, pp, py) = (g.upload(&x), g.empty::<f32>(6), g.empty::<f32>(1));
            let args = [Arg::Ptr(px), Arg::Ptr(pp), Arg::Ptr(py), Arg::I32(4000)];
            ok(g.run("last_block_sum", [6, 1, 1], [128, 1, 1], 0, &args));
            // The ticket wraps, so a second launch works as the first.
            ok(g.run("last_block_sum", [6, 1, 1], [128, 1, 1], 0, &args));
            close(&g.download::<f32>(py, 1), &[want], 1e-5);
        }
    }
}

#[test]
fn blocks_of_a_cooperative_launch_wait_for_each_other() {
    let x: Vec<i32> = (0..300).map(|i| i - 100).collect();
    let want: i32 = x.iter().sum();
    for compiler in COMPILERS {
        for seed in 0..3 {
            let mut g = Gpu::corpus("reduce", compiler);
            g.seed = seed;
            let (px, pp, py) = (g.upload(&x), g.empty::<i32>(5), g.empty::<i32>(5));
            let args = [Arg::Ptr(px), Arg::Ptr(pp), Arg::Ptr(py), Arg::I32(300)];
            ok(g.cooperative("grid_barrier_sum", [5, 1, 1], [32, 1, 1], &args));
            assert_eq!(g.download::<i32>(py, 5), [want; 5]);
        }
    }
}

#[test]
fn doubles_are_fused_and_added() {
    let x: Vec<f64> = noise(500, 3).iter().map(|v| f64::from(*v) * 1.1).collect();
    let y: Vec<f64> = noise(500, 4).iter().map(|v| f64::from(*v) / 3.0).collect();
    let mut part: Vec<f64> =
        (0..64).map(|t| (t..500).step_by(64).fold(0.0, |s, i| x[i].mul_add(y[i], s))).collect();
    let mut k = 32;
    while k > 0 {
        (0..k).for_each(|t| part[t] += part[t + k]);
        k /= 2;
    }
    everywhere("reduce", |g| {
        let (px, py, pz) = (g.upload(&x), g.upload(&y), g.empty::<f64>(1));
        let args = [Arg::Ptr(px), Arg::Ptr(py), Arg::Ptr(pz), Arg::I32(500)];
        let c = ok(g.run("dot_f64", [1, 1, 1], [64, 1, 1], 0, &args));
        assert_eq!(g.download::<f64>(pz, 1), [part[0]], "bit for bit");
        c
    });
}

#[test]
fn prefix_sums_cross_warps() {
    let x: Vec<i32> = (0..200).map(|i| i * 7 % 31 - 9).collect();
    let want: Vec<i32> = x
        .iter()
        .scan(0, |s, v| {
            *s += v;
            Some(*s)
        })
        .collect();
    everywhere("scan", |g| {
        let (px, py) = (g.upload(&x), g.empty::<i32>(200));
        let c = ok(g.run("scan", [1, 1, 1], [256, 1, 1], 0, &[Arg::Ptr(px), Arg::Ptr(py), Arg::I32(200)]));
        assert_eq!(g.download::<i32>(py, 200), want);
        c
    });
}

#[test]
fn histograms_merge_by_atomics() {
    let x: Vec<u8> = bits(3000, 5).into_iter().map(|b| (b >> 50) as u8 & 0x7f).collect();
    let mut want = vec![0u32; 256];
    x.iter().for_each(|v| want[usize::from(*v)] += 1);
    everywhere("scan", |g| {
        let (px, pb) = (g.upload(&x), g.upload(&[0u32; 256]));
        let c =
            ok(g.run("histogram", [3, 1, 1], [128, 1, 1], 0, &[Arg::Ptr(px), Arg::Ptr(pb), Arg::I32(3000)]));
        assert_eq!(g.download::<u32>(pb, 256), want);
        c
    });
}

#[test]
fn ballots_compact_a_warp() {
    let x: Vec<i32> = (0..32).map(|i| i * 5 % 7 - 3).collect();
    let want: Vec<i32> = x.iter().copied().filter(|v| *v > 0).collect();
    everywhere("scan", |g| {
        let (px, py, pc) = (g.upload(&x), g.empty::<i32>(32), g.empty::<i32>(1));
        let c = ok(g.run("compact", [1, 1, 1], [32, 1, 1], 0, &[Arg::Ptr(px), Arg::Ptr(py), Arg::Ptr(pc)]));
        assert_eq!(g.download::<i32>(pc, 1), [want.len() as i32]);
        assert_eq!(g.download::<i32>(py, want.len()), want);
        assert!(g.memory.read(py + 4 * want.len() as u64, 1).is_err(), "nothing was written behind");
        c
    });
}

#[test]
fn lanes_with_one_key_elect_a_leader() {
    let key: Vec<i32> = bits(96, 6).into_iter().map(|b| (b % 5) as i32).collect();
    let mut want = vec![0i32; 5];
    key.iter().for_each(|k| want[*k as usize] += 1);
    everywhere("scan", |g| {
        let (pk, pb) = (g.upload(&key), g.upload(&[0i32; 5]));
        let c = ok(g.run("aggregate", [3, 1, 1], [32, 1, 1], 0, &[Arg::Ptr(pk), Arg::Ptr(pb)]));
        assert_eq!(g.download::<i32>(pb, 5), want);
        c
    });
}

#[test]
fn warp_barriers_make_shared_memory_safe_within_a_warp() {
    let x = noise(256, 7);
    let want: Vec<f64> =
        x.chunks(32).map(|w| f64::from(w.iter().copied().fold(f32::MIN, f32::max))).collect();
    everywhere("scan", |g| {
        let (px, py) = (g.upload(&x), g.empty::<f32>(8));
        let c = ok(g.run("shared_warp_max", [2, 1, 1], [128, 1, 1], 0, &[Arg::Ptr(px), Arg::Ptr(py)]));
        close(&g.download::<f32>(py, 8), &want, 0.0);
        assert!(c.warp_barriers > 0);
        c
    });
}

#[test]
fn extremes_by_redux_and_atomics() {
    let x: Vec<i32> = bits(500, 8).into_iter().map(|b| (b >> 33) as i32 - (1 << 30)).collect();
    let sum: u64 = x.iter().map(|v| u64::from((*v & 0xffff) as u32)).sum();
    let (lo, hi) = (*x.iter().min().unwrap().min(&0), *x.iter().max().unwrap().max(&0));
    everywhere("scan", |g| {
        let px = g.upload(&x);
        let (pl, ph, ps) = (g.upload(&[i32::MAX]), g.upload(&[i32::MIN]), g.upload(&[0u64]));
        let args = [Arg::Ptr(px), Arg::Ptr(pl), Arg::Ptr(ph), Arg::Ptr(ps), Arg::I32(500)];
        let c = ok(g.run("extremes", [4, 1, 1], [128, 1, 1], 0, &args));
        assert_eq!((g.download::<i32>(pl, 1)[0], g.download::<i32>(ph, 1)[0]), (lo, hi));
        assert_eq!(g.download::<u64>(ps, 1), [sum]);
        c
    });
}

#[test]
fn softmax_and_layer_norm_of_rows() {
    let (rows, n) = (3, 200);
    let x = noise(rows * n, 9);
    let gain = noise(n, 10);
    let bias = noise(n, 11);
    let mut soft = Vec::new();
    let mut norm = Vec::new();
    for r in x.chunks(n) {
        let r: Vec<f64> = r.iter().map(|v| f64::from(*v)).collect();
        let s: f64 = r.iter().map(|v| v.exp()).sum();
        soft.extend(r.iter().map(|v| v.exp() / s));
        let mean = r.iter().sum::<f64>() / n as f64;
        let var = r.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
        let scale = 1.0 / (var + 1e-5).sqrt();
        norm.extend(
            r.iter().enumerate().map(|(i, v)| (v - mean) * scale * f64::from(gain[i]) + f64::from(bias[i])),
        );
    }
    everywhere("rows", |g| {
        let (px, py) = (g.upload(&x), g.empty::<f32>(rows * n));
        let mut c =
            ok(g.run("softmax", [3, 1, 1], [96, 1, 1], 0, &[Arg::Ptr(px), Arg::Ptr(py), Arg::I32(n as i32)]));
        close(&g.download::<f32>(py, rows * n), &soft, 1e-6);
        let (pg, pb) = (g.upload(&gain), g.upload(&bias));
        let args =
            [Arg::Ptr(px), Arg::Ptr(pg), Arg::Ptr(pb), Arg::Ptr(py), Arg::I32(n as i32), Arg::F32(1e-5)];
        c.merge(&ok(g.run("layer_norm", [3, 1, 1], [64, 1, 1], 0, &args)));
        close(&g.download::<f32>(py, rows * n), &norm, 1e-5);
        c
    });
}

#[test]
fn padding_keeps_the_banks_of_a_transpose_apart() {
    let (rows, cols) = (70, 45);
    let x = noise(rows * cols, 12);
    let want: Vec<f64> = (0..cols * rows).map(|i| f64::from(x[i % rows * cols + i / rows])).collect();
    everywhere("rows", |g| {
        let (px, py) = (g.upload(&x), g.empty::<f32>(rows * cols));
        let args = [Arg::Ptr(px), Arg::Ptr(py), Arg::I32(rows as i32), Arg::I32(cols as i32)];
        let c = ok(g.run("transpose", [2, 3, 1], [32, 8, 1], 0, &args));
        close(&g.download::<f32>(py, rows * cols), &want, 0.0);
        assert_eq!(c.shared.load_wavefronts, c.shared.load_ideal);
        let slow = ok(g.run("transpose_conflicts", [2, 3, 1], [32, 8, 1], 0, &args));
        close(&g.download::<f32>(py, rows * cols), &want, 0.0);
        assert!(slow.shared.load_wavefronts > 20 * slow.shared.load_ideal, "{:?}", slow.shared);
        c
    });
}

#[test]
fn blocked_vectors_touch_twice_the_sectors() {
    let x = noise(4 * 512, 13);
    everywhere("rows", |g| {
        let (px, py) = (g.upload(&x), g.empty::<f32>(x.len()));
        let args = [Arg::Ptr(px), Arg::Ptr(py), Arg::I32(512)];
        let good = ok(g.run("copy_strided", [1, 1, 1], [64, 1, 1], 0, &args));
        assert_eq!(g.download::<f32>(py, x.len()), x);
        let bad = ok(g.run("copy_blocked", [1, 1, 1], [64, 1, 1], 0, &args));
        let per = |c: &Counters| c.global.load_sectors / c.global.load_requests;
        assert_eq!((per(&good), per(&bad)), (16, 32));
        for c in [&good, &bad] {
            let traffic = c.global;
            assert_eq!((traffic.load_bytes, traffic.store_bytes), (8192, 8192));
            assert_eq!((traffic.compulsory_load_bytes, traffic.compulsory_store_bytes), (8192, 8192));
        }
        good
    });
}

fn product(a: &[f32], b: &[f32], m: usize, n: usize, k: usize, b_by_rows: bool) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            for x in 0..k {
                let b = if b_by_rows { b[j * k + x] } else { b[x * n + j] };
                y[i * n + j] += f64::from(a[i * k + x]) * f64::from(b);
            }
        }
    }
    y
}

#[test]
fn tiles_multiply_matrices_of_any_extent() {
    let (m, n, k) = (33, 20, 45);
    let (a, b) = (noise(m * k, 14), noise(k * n, 15));
    let want = product(&a, &b, m, n, k, false);
    everywhere("gemm", |g| {
        let (pa, pb, py) = (g.upload(&a), g.upload(&b), g.empty::<f32>(m * n));
        let args = [
            Arg::Ptr(pa),
            Arg::Ptr(pb),
            Arg::Ptr(py),
            Arg::I32(m as i32),
            Arg::I32(n as i32),
            Arg::I32(k as i32),
        ];
        let c = ok(g.run("gemm_tiled", [2, 3, 1], [16, 16, 1], 0, &args));
        close(&g.download::<f32>(py, m * n), &want, 1e-5);
        c
    });
}

#[test]
fn tensor_cores_multiply_with_copies_in_flight() {
    let (m, n, k) = (128, 64, 96);
    let round = |v: Vec<f32>| v.into_iter().map(|x| from_bf16(bf16(x))).collect::<Vec<f32>>();
    let (a, b) = (round(noise(m * k, 16)), round(noise(n * k, 17)));
    let want = product(&a, &b, m, n, k, true);
    let halves = |v: &[f32]| v.iter().map(|x| bf16(*x)).collect::<Vec<u16>>();
    everywhere("gemm", |g| {
        let (pa, pb, py) = (g.upload(&halves(&a)), g.upload(&halves(&b)), g.empty::<f32>(m * n));
        let args = [
            Arg::Ptr(pa),
            Arg::Ptr(pb),
            Arg::Ptr(py),
            Arg::I32(m as i32),
            Arg::I32(n as i32),
            Arg::I32(k as i32),
        ];
        let c = ok(g.run("gemm_mma", [1, 2, 1], [128, 1, 1], 0, &args));
        close(&g.download::<f32>(py, m * n), &want, 1e-6);
        assert_eq!(c.mma, (m * n * k / (16 * 8 * 16)) as u64);
        assert_eq!(
            c.shared.load_wavefronts, c.shared.load_ideal,
            "the pitch keeps ldmatrix free of conflicts"
        );
        c
    });
}

#[test]
fn warp_matrices_multiply_and_scale() {
    let (m, n, k) = (32, 32, 48);
    let round = |v: Vec<f32>| v.into_iter().map(|x| from_f16(f16(x))).collect::<Vec<f32>>();
    let (a, b) = (round(noise(m * k, 18)), round(noise(k * n, 19)));
    let want: Vec<f64> = product(&a, &b, m, n, k, false).iter().map(|v| v * 0.5).collect();
    let halves = |v: &[f32]| v.iter().map(|x| f16(*x)).collect::<Vec<u16>>();
    everywhere("gemm", |g| {
        let (pa, pb, py) = (g.upload(&halves(&a)), g.upload(&halves(&b)), g.empty::<f32>(m * n));
        let args =
            [Arg::Ptr(pa), Arg::Ptr(pb), Arg::Ptr(py), Arg::I32(n as i32), Arg::I32(k as i32), Arg::F32(0.5)];
        let c = ok(g.run("gemm_wmma", [2, 2, 1], [32, 1, 1], 0, &args));
        close(&g.download::<f32>(py, m * n), &want, 1e-6);
        c
    });
}

fn depthwise(x: &[f32], w: &[f32], c: usize, h: usize, wd: usize) -> Vec<f64> {
    let mut y = vec![0.0; c * h * wd];
    for ch in 0..c {
        for i in 0..h {
            for j in 0..wd {
                for k in 0..9 {
                    let (r, q) = ((i + k / 3).wrapping_sub(1), (j + k % 3).wrapping_sub(1));
                    if r < h && q < wd {
                        y[(ch * h + i) * wd + j] +=
                            f64::from(x[(ch * h + r) * wd + q]) * f64::from(w[ch * 9 + k]);
                    }
                }
            }
        }
    }
    y
}

#[test]
fn depthwise_convolutions_in_three_formats() {
    let (c, h, w) = (3, 19, 21);
    let (x, k) = (noise(c * h * w, 20), noise(c * 9, 21));
    let grid = [2, 2, 3];
    let dims =
        |px, pk, py| [Arg::Ptr(px), Arg::Ptr(pk), Arg::Ptr(py), Arg::I32(h as i32), Arg::I32(w as i32)];
    everywhere("depthwise", |g| {
        let (px, pk, py) = (g.upload(&x), g.upload(&k), g.empty::<f32>(x.len()));
        let mut all = ok(g.run("depthwise_f32", grid, [16, 16, 1], 0, &dims(px, pk, py)));
        close(&g.download::<f32>(py, x.len()), &depthwise(&x, &k, c, h, w), 1e-6);
        type Format = (&'static str, fn(f32) -> u16, fn(u16) -> f32, f64);
        let formats: [Format; 2] =
            [("depthwise_f16", f16, from_f16, 1e-3), ("depthwise_bf16", bf16, from_bf16, 8e-3)];
        for (kernel, to, from, tolerance) in formats {
            let low = |v: &[f32]| v.iter().map(|v| to(*v)).collect::<Vec<u16>>();
            let (x, k) = (low(&x), low(&k));
            let (px, pk, py) = (g.upload(&x), g.upload(&k), g.empty::<u16>(x.len()));
            all.merge(&ok(g.run(kernel, grid, [16, 16, 1], 0, &dims(px, pk, py))));
            let wide = |v: &[u16]| v.iter().map(|v| from(*v)).collect::<Vec<f32>>();
            let got = wide(&g.download::<u16>(py, x.len()));
            close(&got, &depthwise(&wide(&x), &wide(&k), c, h, w), tolerance);
        }
        let args = [
            Arg::Ptr(px),
            Arg::Ptr(pk),
            Arg::Ptr(py),
            Arg::I32(h as i32),
            Arg::I32(w as i32),
            Arg::I32(c as i32),
        ];
        all.merge(&ok(g.run("depthwise_direct", [2, 1, 3], [256, 1, 1], 0, &args)));
        close(&g.download::<f32>(py, x.len()), &depthwise(&x, &k, c, h, w), 1e-6);
        all
    });
}

#[test]
fn tables_of_branches_reach_every_case() {
    let k = 1234i32;
    let want: Vec<i32> = (0..64)
        .map(|v: i32| {
            100 + match v % 9 {
                0 => k + 1,
                1 => k * 3,
                2 => k / 7,
                3 => k ^ 9,
                4 => k % 5,
                5 => !k,
                6 => k.count_ones() as i32,
                7 => k.leading_zeros() as i32,
                _ => -1,
            }
        })
        .collect();
    everywhere("misc", |g| {
        let p = g.upload(&(0..64).collect::<Vec<i32>>());
        let c = ok(g.run("dispatch", [1, 1, 1], [64, 1, 1], 0, &[Arg::Ptr(p), Arg::I32(k)]));
        assert_eq!(g.download::<i32>(p, 64), want);
        c
    });
}

#[test]
fn local_arrays_and_long_divergent_loops() {
    let n = 11;
    let x: Vec<i32> = bits(32 * n, 22).into_iter().map(|b| (b % 1000) as i32).collect();
    let mut sorted = x.clone();
    sorted.chunks_mut(n).for_each(<[i32]>::sort_unstable);
    let starts: Vec<u64> = (1..=32).map(|i| i * i * 7 + 1).collect();
    let steps: Vec<i32> = starts
        .iter()
        .map(|s| {
            let (mut v, mut n) = (*s, 0);
            while v != 1 {
                v = if v & 1 == 1 { 3 * v + 1 } else { v / 2 };
                n += 1;
            }
            n
        })
        .collect();
    everywhere("misc", |g| {
        let (px, py) = (g.upload(&x), g.empty::<i32>(32 * n));
        let args = [Arg::Ptr(px), Arg::Ptr(py), Arg::I32(n as i32)];
        let mut c = ok(g.run("insertion_sort", [1, 1, 1], [32, 1, 1], 0, &args));
        assert_eq!(g.download::<i32>(py, 32 * n), sorted);
        assert!(c.local_requests > 0 && c.divergent_branches > 0);
        let (ps, pn) = (g.upload(&starts), g.empty::<i32>(32));
        c.merge(&ok(g.run("collatz", [1, 1, 1], [32, 1, 1], 0, &[Arg::Ptr(ps), Arg::Ptr(pn)])));
        assert_eq!(g.download::<i32>(pn, 32), steps);
        c
    });
}

#[test]
fn functions_are_called_and_constants_read() {
    let x = noise(64, 23);
    let horner = |x: f64, n: usize| (0..n).rev().fold(0.0, |s, i| s * x + (i + 1) as f64);
    let want: Vec<f64> = x.iter().map(|v| horner((*v).into(), 8) + horner(-f64::from(*v), 3)).collect();
    everywhere("misc", |g| {
        let (px, py) = (g.upload(&x), g.empty::<f32>(64));
        let c = ok(g.run("polynomial", [1, 1, 1], [64, 1, 1], 0, &[Arg::Ptr(px), Arg::Ptr(py)]));
        close(&g.download::<f32>(py, 64), &want, 1e-5);
        c
    });
}

#[test]
fn bytes_in_vectors() {
    let n = 50;
    let a: Vec<u8> = bits(4 * n, 24).into_iter().map(|b| b as u8).collect();
    let b: Vec<u8> = bits(4 * n, 25).into_iter().map(|b| b as u8).collect();
    let dot: Vec<i32> = (0..n)
        .map(|i| (0..4).map(|k| i32::from(a[4 * i + k]) * i32::from(b[4 * i + k] as i8)).sum())
        .collect();
    let mixed: Vec<u8> = (0..n)
        .flat_map(|i| {
            let u = &a[4 * i..4 * i + 4];
            [u[3], u[0].wrapping_add(b[4 * i + 1]), u[1].min(100), u[2] >> 3]
        })
        .collect();
    everywhere("misc", |g| {
        let (pa, pb, pd, pm) = (g.upload(&a), g.upload(&b), g.empty::<i32>(n), g.empty::<u8>(4 * n));
        let args = [Arg::Ptr(pa), Arg::Ptr(pb), Arg::Ptr(pd), Arg::Ptr(pm), Arg::I32(n as i32)];
        let c = ok(g.run("bytes", [2, 1, 1], [32, 1, 1], 0, &args));
        assert_eq!(g.download::<i32>(pd, n), dot);
        assert_eq!(g.download::<u8>(pm, 4 * n), mixed);
        c
    });
}

#[test]
fn packed_halves_round_each_step() {
    let n = 40;
    let h = |v: f64| f64::from(from_f16(f16(v as f32)));
    let (a, b): (Vec<u16>, Vec<u16>) = (
        noise(2 * n, 26).iter().map(|v| f16(*v)).collect(),
        noise(2 * n, 27).iter().map(|v| f16(*v)).collect(),
    );
    // Sums and products of two halves, and a product plus 0.5, are exact in f64 and in f32 once rounded to odd is not
    // needed: their bits fit.
    let want: Vec<f64> = a
        .iter()
        .zip(&b)
        .map(|(a, b)| {
            let (a, b) = (f64::from(from_f16(*a)), f64::from(from_f16(*b)));
            let v = h(a * b + 0.5);
            h(v * v).max(h(a + b))
        })
        .collect();
    let bf = |v: f64| f64::from(from_bf16(bf16(v as f32)));
    let (p, q): (Vec<u16>, Vec<u16>) = (
        noise(2 * n, 28).iter().map(|v| bf16(*v)).collect(),
        noise(2 * n, 29).iter().map(|v| bf16(*v)).collect(),
    );
    let want_bf: Vec<f64> = p
        .iter()
        .zip(&q)
        .map(|(a, b)| {
            let (a, b) = (f64::from(from_bf16(*a)), f64::from(from_bf16(*b)));
            bf(a * b + bf(a * a))
        })
        .collect();
    everywhere("misc", |g| {
        let (pa, pb, py) = (g.upload(&a), g.upload(&b), g.empty::<u16>(2 * n));
        let args = |a, b, y| [Arg::Ptr(a), Arg::Ptr(b), Arg::Ptr(y), Arg::I32(n as i32)];
        let mut c = ok(g.run("packed_half", [1, 1, 1], [64, 1, 1], 0, &args(pa, pb, py)));
        let got: Vec<f32> = g.download::<u16>(py, 2 * n).into_iter().map(from_f16).collect();
        close(&got, &want, 1e-3);
        let (pp, pq) = (g.upload(&p), g.upload(&q));
        c.merge(&ok(g.run("packed_bf16", [1, 1, 1], [64, 1, 1], 0, &args(pp, pq, py))));
        let got: Vec<f32> = g.download::<u16>(py, 2 * n).into_iter().map(from_bf16).collect();
        close(&got, &want_bf, 8e-3);
        c
    });
}

#[test]
fn library_functions_are_near_the_truth() {
    let n = 32;
    let x: Vec<f32> = noise(n, 30).iter().map(|v| 3.0 * v).collect();
    let want: Vec<f64> = x
        .iter()
        .flat_map(|v| {
            let v = f64::from(*v);
            let big = f64::from((v as f32) * 1000.0);
            // erf by its series, good to 1e-9 for |v| <= 3.
            let mut term = v;
            let mut erf = v;
            for k in 1..60 {
                term *= -v * v / f64::from(k);
                erf += term / f64::from(2 * k + 1);
            }
            erf *= 2.0 / std::f64::consts::PI.sqrt();
            [
                v.exp(),
                (v.abs() + 1.0).ln(),
                big.sin(),
                v.tanh(),
                v.abs().sqrt(),
                v.abs().powf(1.7),
                erf,
                v / 3.0,
            ]
        })
        .collect();
    everywhere("misc", |g| {
        let (px, py) = (g.upload(&x), g.empty::<f32>(8 * n));
        let c =
            ok(g.run("special", [1, 1, 1], [32, 1, 1], 0, &[Arg::Ptr(px), Arg::Ptr(py), Arg::I32(n as i32)]));
        close(&g.download::<f32>(py, 8 * n), &want, 2e-6);
        c
    });
}

#[test]
fn printf_prints() {
    everywhere("misc", |g| {
        let c = ok(g.run("say", [1, 1, 1], [32, 1, 1], 0, &[Arg::I32(7)]));
        let line = |t| format!("thread {t} of 7: 1.75 ok|    7|ff  |-5000000000\n");
        assert_eq!(g.memory.take_printed(), line(0) + &line(1));
        c
    });
}

#[test]
fn structs_by_value_and_three_axes() {
    everywhere("misc", |g| {
        let py = g.empty::<f32>(32);
        let mut params = Vec::new();
        [5u32, 10, 20, 30, 40, 50, 60].iter().for_each(|v| params.extend(v.to_le_bytes()));
        params.extend(0.5f32.to_le_bytes());
        params.extend(py.to_le_bytes());
        let kernel = g.module.kernel("by_value").expect("in the corpus");
        let launch = monopath_vgpu::exec::Launch {
            grid: [1, 1, 1],
            block: [32, 1, 1],
            dynamic_shared: 0,
            params: &params,
            dynamic_shared_optin: 0,
            cooperative: false,
            seed: g.seed,
        };
        let mut c =
            ok(g.counted(monopath_vgpu::exec::launch(kernel, &launch, &g.memory, &g.props, &g.options)));
        let want: Vec<f64> = (0..32).map(|t| 5.0 * f64::from(t % 5 + 1)).collect();
        close(&g.download::<f32>(py, 32), &want, 0.0);
        let n = 2 * 3 * 2 * 4 * 3 * 5;
        let py = g.empty::<i32>(n);
        c.merge(&ok(g.run("axes", [2, 3, 2], [4, 3, 5], 0, &[Arg::Ptr(py)])));
        let want: Vec<i32> =
            (0..n as i32).map(|i| i / 60 * 10000 + i % 60 * 10 + ((i % 60) & 31) / 16).collect();
        assert_eq!(g.download::<i32>(py, n), want);
        c
    });
}
