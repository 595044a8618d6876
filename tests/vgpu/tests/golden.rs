//! Counters of the corpus, compared exactly with a committed file. A change needs a reviewed new file: run with
//! `MONOPATH_BLESS=1` to write it.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use monopath_vgpu::Counters;
use support::*;

fn measured() -> BTreeMap<String, Counters> {
    let mut all = BTreeMap::new();
    for compiler in COMPILERS {
        let mut keep = |kernel: &str, c: Result<Counters, Box<monopath_vgpu::Fault>>| {
            all.insert(format!("{kernel}.{compiler}"), c.unwrap_or_else(|e| panic!("{e}")));
        };
        let g = Gpu::corpus("depthwise", compiler);
        let (c, h, w) = (4, 56, 56);
        let n = c * h * w;
        let (x, k, y) = (g.upload(&noise(n, 1)), g.upload(&noise(9 * c, 2)), g.empty::<f32>(n));
        let dims = [Arg::Ptr(x), Arg::Ptr(k), Arg::Ptr(y), Arg::I32(h as i32), Arg::I32(w as i32)];
        keep("depthwise_f32", g.run("depthwise_f32", [4, 4, 4], [16, 16, 1], 0, &dims));
        let dims = [
            Arg::Ptr(x),
            Arg::Ptr(k),
            Arg::Ptr(y),
            Arg::I32(h as i32),
            Arg::I32(w as i32),
            Arg::I32(c as i32),
        ];
        keep("depthwise_direct", g.run("depthwise_direct", [13, 1, 4], [256, 1, 1], 0, &dims));
        let g = Gpu::corpus("gemm", compiler);
        let (m, n, k) = (128usize, 128usize, 64usize);
        let (a, b) = (g.upload(&vec![0x3f80u16; m * k]), g.upload(&vec![0x4000u16; n * k]));
        let y = g.empty::<f32>(m * n);
        let args = [
            Arg::Ptr(a),
            Arg::Ptr(b),
            Arg::Ptr(y),
            Arg::I32(m as i32),
            Arg::I32(n as i32),
            Arg::I32(k as i32),
        ];
        keep("gemm_mma", g.run("gemm_mma", [2, 2, 1], [128, 1, 1], 0, &args));
        let g = Gpu::corpus("rows", compiler);
        let (x, y) = (g.upload(&noise(4 * 256, 3)), g.empty::<f32>(4 * 256));
        let args = [Arg::Ptr(x), Arg::Ptr(y), Arg::I32(256)];
        keep("softmax", g.run("softmax", [4, 1, 1], [128, 1, 1], 0, &args));
        let args = [Arg::Ptr(x), Arg::Ptr(y), Arg::I32(32), Arg::I32(32)];
        keep("transpose", g.run("transpose", [1, 1, 1], [32, 8, 1], 0, &args));
        keep("transpose_conflicts", g.run("transpose_conflicts", [1, 1, 1], [32, 8, 1], 0, &args));
        let g = Gpu::corpus("scan", compiler);
        let (x, b) = (g.upload(&[7u8; 1024]), g.upload(&[0u32; 256]));
        let args = [Arg::Ptr(x), Arg::Ptr(b), Arg::I32(1024)];
        keep("histogram", g.run("histogram", [2, 1, 1], [128, 1, 1], 0, &args));
    }
    all
}

#[test]
fn counters_are_those_of_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/counters.json");
    let now = measured();
    if std::env::var_os("MONOPATH_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&now).expect("counters are plain data");
        std::fs::write(&path, text + "\n").expect("the folder is writable");
    }
    let text = std::fs::read_to_string(&path).expect("the golden file is committed");
    let golden: BTreeMap<String, Counters> = serde_json::from_str(&text).expect("valid JSON");
    assert_eq!(golden.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>());
    for (name, want) in &golden {
        let (want, got) = (serde_json::to_value(want).unwrap(), serde_json::to_value(&now[name]).unwrap());
        for (key, value) in want.as_object().expect("an object") {
            assert_eq!(value, &got[key], "{name}: {key}");
        }
    }
}

/// Some of the numbers follow from the sizes alone.
#[test]
fn counters_agree_with_arithmetic() {
    let all = measured();
    for compiler in COMPILERS {
        let of = |name: &str| &all[&format!("{name}.{compiler}")];
        let c = of("depthwise_f32");
        let n = 4 * 56 * 56 * 4;
        assert_eq!((c.blocks, c.warps, c.threads), (64, 512, 16384));
        assert_eq!(c.global.compulsory_store_bytes, n);
        assert_eq!(c.global.compulsory_load_bytes, n + 9 * 4 * 4);
        assert_eq!(c.global.store_bytes, n);
        assert_eq!(c.barriers, 64);
        let c = of("gemm_mma");
        assert_eq!(c.mma, 128 * 128 * 64 / (16 * 8 * 16));
        assert_eq!(c.async_bytes, 2 * 2 * (64 + 64) * 64 * 2);
        assert_eq!(c.global.store_bytes, 128 * 128 * 4);
        let c = of("transpose");
        assert_eq!((c.shared.load_wavefronts, c.shared.load_ideal), (32, 32));
        let c = of("transpose_conflicts");
        assert_eq!((c.shared.load_wavefronts, c.shared.load_ideal), (1024, 32));
        assert_eq!(c.shared.store_wavefronts, 32);
        let c = of("histogram");
        assert_eq!(c.atomics, 1024 + 2);
    }
}
