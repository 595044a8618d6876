//! Planted defects: each must be reported by the rule that it breaks, as two compilers translate it and under every seed.

mod support;

use monopath_vgpu::memory::MemoryError;
use monopath_vgpu::{Counters, Fault, FaultKind};
use support::*;

type Run = fn(&mut Gpu) -> Result<Counters, Box<Fault>>;

struct Defect {
    kernel: &'static str,
    kind: FaultKind,
    run: Run,
}

const fn defect(kernel: &'static str, kind: FaultKind, run: Run) -> Defect {
    Defect { kernel, kind, run }
}

fn one(n: u32) -> [u32; 3] {
    [n, 1, 1]
}

/// Input and output of the given lengths in elements.
fn in_out(g: &Gpu, x: usize, y: usize) -> (u64, u64) {
    (g.upload(&vec![1f32; x]), g.empty::<f32>(y))
}

const DEFECTS: &[Defect] = &[
    defect("missing_barrier", FaultKind::SharedRace, |g| {
        let (x, y) = in_out(g, 128, 128);
        // Which warp finds it depends on the order: one finds nothing written yet.
        g.run("missing_barrier", one(1), one(128), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("missing_syncwarp", FaultKind::SharedRace, |g| {
        let (x, y) = in_out(g, 32, 32);
        g.run("missing_syncwarp", one(1), one(32), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("missing_trailing_barrier", FaultKind::SharedRace, |g| {
        let (x, y) = in_out(g, 256, 64);
        g.run("missing_trailing_barrier", one(1), one(64), 0, &[Arg::Ptr(x), Arg::Ptr(y), Arg::I32(4)])
    }),
    defect("read_past_end", FaultKind::OutOfBounds, |g| {
        let (x, y) = in_out(g, 64, 64);
        g.run("read_past_end", one(1), one(64), 0, &[Arg::Ptr(x), Arg::Ptr(y), Arg::I32(64)])
    }),
    defect("write_past_end", FaultKind::OutOfBounds, |g| {
        let y = g.empty::<f32>(64);
        g.run("write_past_end", one(2), one(64), 0, &[Arg::Ptr(y), Arg::I32(64)])
    }),
    defect("missing_guard", FaultKind::OutOfBounds, |g| {
        let (x, y) = in_out(g, 100, 100);
        g.run("missing_guard", one(2), one(64), 0, &[Arg::Ptr(x), Arg::Ptr(y), Arg::I32(100)])
    }),
    defect("before_begin", FaultKind::OutOfBounds, |g| {
        let (x, y) = in_out(g, 32, 32);
        g.run("before_begin", one(1), one(32), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("shared_overflow", FaultKind::OutOfBounds, |g| {
        let y = g.empty::<f32>(64);
        g.run("shared_overflow", one(1), one(64), 0, &[Arg::Ptr(y), Arg::I32(1)])
    }),
    defect("dynamic_shared_too_small", FaultKind::OutOfBounds, |g| {
        let y = g.empty::<f32>(64);
        g.run("dynamic_shared_too_small", one(1), one(64), 64 * 4 - 4, &[Arg::Ptr(y)])
    }),
    defect("local_overflow", FaultKind::OutOfBounds, |g| {
        let (x, y) = (g.upload(&[1i32; 8]), g.empty::<i32>(8));
        g.run("local_overflow", one(1), one(8), 0, &[Arg::Ptr(x), Arg::Ptr(y), Arg::I32(1)])
    }),
    defect("uninitialised_global", FaultKind::UninitialisedRead, |g| {
        let (x, y) = (g.empty::<f32>(32), g.empty::<f32>(32));
        g.run("uninitialised_global", one(1), one(32), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("uninitialised_shared", FaultKind::UninitialisedRead, |g| {
        let (x, y) = in_out(g, 128, 1);
        g.run("uninitialised_shared", one(1), one(128), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("full_mask_in_branch", FaultKind::SyncMask, |g| {
        let y = g.empty::<f32>(32);
        g.run("full_mask_in_branch", one(1), one(32), 0, &[Arg::Ptr(y)])
    }),
    defect("mask_without_self", FaultKind::SyncMask, |g| {
        let y = g.empty::<f32>(32);
        g.run("mask_without_self", one(1), one(32), 0, &[Arg::Ptr(y)])
    }),
    defect("ballot_in_loop", FaultKind::SyncMask, |g| {
        let y = g.empty::<i32>(32);
        g.run("ballot_in_loop", one(1), one(32), 0, &[Arg::Ptr(y)])
    }),
    defect("barrier_in_branch", FaultKind::DivergentBarrier, |g| {
        let y = g.empty::<f32>(64);
        g.run("barrier_in_branch", one(1), one(64), 0, &[Arg::Ptr(y)])
    }),
    defect("barrier_on_both_sides", FaultKind::DivergentBarrier, |g| {
        let y = g.empty::<f32>(64);
        g.run("barrier_on_both_sides", one(1), one(64), 0, &[Arg::Ptr(y), Arg::I32(2)])
    }),
    defect("early_return", FaultKind::DivergentBarrier, |g| {
        let (x, y) = in_out(g, 64, 64);
        g.run("early_return", one(1), one(64), 0, &[Arg::Ptr(x), Arg::Ptr(y), Arg::I32(50)])
    }),
    defect("uneven_barriers", FaultKind::DivergentBarrier, |g| {
        let y = g.empty::<f32>(96);
        g.run("uneven_barriers", one(1), one(96), 0, &[Arg::Ptr(y)])
    }),
    defect("sum_without_atomics", FaultKind::GlobalRace, |g| {
        let (x, y) = (g.upload(&[1f32; 4]), g.upload(&[0f32]));
        g.run("sum_without_atomics", one(4), one(32), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("overlapping_blocks", FaultKind::GlobalRace, |g| {
        let y = g.empty::<f32>(256);
        g.run("overlapping_blocks", one(4), one(64), 0, &[Arg::Ptr(y), Arg::I32(256)])
    }),
    defect("stencil_in_place", FaultKind::GlobalRace, |g| {
        let x = g.upload(&[1f32; 256]);
        g.run("stencil_in_place", one(4), one(64), 0, &[Arg::Ptr(x), Arg::I32(256)])
    }),
    defect("missing_fence", FaultKind::GlobalRace, |g| {
        let (x, p, y) = (g.upload(&[1f32; 4]), g.empty::<f32>(4), g.empty::<f32>(1));
        g.run("missing_fence", one(4), one(32), 0, &[Arg::Ptr(x), Arg::Ptr(p), Arg::Ptr(y)])
    }),
    defect("plain_beside_atomic", FaultKind::GlobalRace, |g| {
        let c = g.upload(&[0i32]);
        g.run("plain_beside_atomic", one(3), one(32), 0, &[Arg::Ptr(c)])
    }),
    defect("shared_counter", FaultKind::SharedRace, |g| {
        let y = g.empty::<i32>(64);
        g.run("shared_counter", one(1), one(64), 0, &[Arg::Ptr(y)])
    }),
    defect("misaligned_vector", FaultKind::Misaligned, |g| {
        let (x, y) = in_out(g, 133, 32);
        g.run("misaligned_vector", one(1), one(32), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("misaligned_shared", FaultKind::Misaligned, |g| {
        let y = g.empty::<f32>(32);
        g.run("misaligned_shared", one(1), one(32), 0, &[Arg::Ptr(y)])
    }),
    defect("use_pointer", FaultKind::UseAfterFree, |g| {
        let (x, y) = in_out(g, 32, 32);
        g.memory.free(x).expect("it is alive");
        g.run("use_pointer", one(1), one(32), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("null_pointer", FaultKind::OutOfBounds, |g| {
        let y = g.empty::<f32>(32);
        g.run("null_pointer", one(1), one(32), 0, &[Arg::Ptr(0), Arg::Ptr(y)])
    }),
    defect("missing_wait", FaultKind::UninitialisedRead, |g| {
        let (x, y) = in_out(g, 64, 64);
        g.run("missing_wait", one(1), one(64), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("wait_for_too_few", FaultKind::UninitialisedRead, |g| {
        let (x, y) = in_out(g, 128, 64);
        g.run("wait_for_too_few", one(1), one(64), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("wait_without_barrier", FaultKind::SharedRace, |g| {
        let (x, y) = in_out(g, 64, 64);
        g.run("wait_without_barrier", one(1), one(64), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("stage_reused_too_early", FaultKind::SharedRace, |g| {
        let (x, y) = in_out(g, 256, 64);
        g.run("stage_reused_too_early", one(1), one(64), 0, &[Arg::Ptr(x), Arg::Ptr(y), Arg::I32(4)])
    }),
    defect("write_constant", FaultKind::ReadOnlyWrite, |g| {
        let y = g.upload(&[1f32]);
        g.run("write_constant", one(1), one(1), 0, &[Arg::Ptr(y)])
    }),
    defect("swapped_arguments", FaultKind::OutOfBounds, |g| {
        // The output is longer than the input; swapped, the input's end is overwritten.
        let (x, y) = (g.upload(&[1f32; 16]), g.upload(&[0f32; 64]));
        g.run("swapped_arguments", one(1), one(64), 0, &[Arg::Ptr(y), Arg::Ptr(x), Arg::I32(64)])
    }),
    defect("bounded", FaultKind::LaunchLimit, |g| {
        let y = g.empty::<f32>(256);
        g.run("bounded", one(1), one(256), 0, &[Arg::Ptr(y)])
    }),
    defect("use_pointer", FaultKind::LaunchLimit, |g| {
        let (x, y) = in_out(g, 2048, 2048);
        g.run("use_pointer", one(1), one(2048), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("use_pointer", FaultKind::LaunchLimit, |g| {
        let (x, y) = in_out(g, 32, 32);
        g.run("use_pointer", one(0), one(32), 0, &[Arg::Ptr(x), Arg::Ptr(y)])
    }),
    defect("dynamic_shared_too_small", FaultKind::LaunchLimit, |g| {
        let y = g.empty::<f32>(64);
        g.run("dynamic_shared_too_small", one(1), one(64), 49 << 10, &[Arg::Ptr(y)])
    }),
    defect("spin", FaultKind::Timeout, |g| {
        g.options.budget = 1_000_000;
        let flag = g.upload(&[0i32]);
        g.run("spin", one(1), one(32), 0, &[Arg::Ptr(flag)])
    }),
    defect("trap_if", FaultKind::Trap, |g| {
        let x = g.upload(&[1i32, -1, 3]);
        g.run("trap_if", one(1), one(3), 0, &[Arg::Ptr(x)])
    }),
    defect("half_a_warp_multiplies", FaultKind::SyncMask, |g| {
        let y = g.empty::<f32>(32);
        g.run("half_a_warp_multiplies", one(1), one(32), 0, &[Arg::Ptr(y)])
    }),
];

#[test]
fn every_planted_defect_is_reported_by_its_rule() {
    for d in DEFECTS {
        for compiler in COMPILERS {
            for (seed, threads) in [(0, 1), (1, 2), (2, 1), (3, 2), (0, 2)] {
                let mut g = Gpu::corpus("defects", compiler);
                (g.seed, g.options.threads) = (seed, threads);
                let fault = match (d.run)(&mut g) {
                    Ok(_) => panic!("{} ({compiler}, seed {seed}) was not noticed", d.kernel),
                    Err(fault) => fault,
                };
                // A missing barrier shows as a race or as bytes not yet written, as the order has it.
                let either = d.kernel == "missing_barrier"
                    || d.kernel == "wait_without_barrier"
                    || d.kernel == "missing_fence";
                let alike = either && fault.kind == FaultKind::UninitialisedRead;
                assert!(fault.kind == d.kind || alike, "{} ({compiler}, seed {seed}): {fault}", d.kernel);
                assert_eq!(fault.kernel, d.kernel);
                let whole = matches!(d.kind, FaultKind::LaunchLimit | FaultKind::Timeout);
                assert!(whole || fault.ptx_line > 0 && !fault.instruction.is_empty(), "{fault:?}");
            }
        }
    }
}

#[test]
fn the_list_holds_every_kernel_of_the_file_but_those_found_by_the_host() {
    let g = Gpu::corpus("defects", "nvrtc12");
    let missing: Vec<&str> = g
        .module
        .kernels()
        .iter()
        .map(|k| k.name())
        .filter(|name| !DEFECTS.iter().any(|d| d.kernel == *name))
        .collect();
    assert_eq!(missing, ["unwritten_output"]);
    assert!(DEFECTS.len() >= 20);
}

#[test]
fn outputs_never_written_are_noticed_when_copied_back() {
    for compiler in COMPILERS {
        let g = Gpu::corpus("defects", compiler);
        let y = g.empty::<f32>(64);
        g.run("unwritten_output", one(1), one(64), 0, &[Arg::Ptr(y), Arg::I32(64)])
            .expect("the kernel is legal");
        assert!(matches!(g.memory.read(y, 256), Err(MemoryError::Uninitialised { at, .. }) if at == y + 4));
    }
}

#[test]
fn reports_say_where() {
    let mut g = Gpu::corpus("defects", "nvrtc12");
    g.options.threads = 1;
    let (x, y) = in_out(&g, 100, 128);
    let fault = g
        .run("missing_guard", one(2), one(64), 0, &[Arg::Ptr(x), Arg::Ptr(y), Arg::I32(100)])
        .expect_err("element 100 does not exist");
    assert_eq!((fault.block, fault.thread), (Some([1, 0, 0]), Some([36, 0, 0])));
    assert!(fault.instruction.starts_with("ld.global"), "{}", fault.instruction);
    let text = fault.to_string();
    for part in
        ["out-of-bounds", "missing_guard", "ptx line", "block (1, 0, 0)", "thread (36, 0, 0)", "400 bytes"]
    {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

#[test]
fn source_lines_come_from_the_line_table() {
    let ptx = ".version 8.0\n.target sm_80\n.address_size 64\n.file 1 \"k.cu\"\n\
        .visible .entry k(.param .u64 p)\n{\n.reg .b64 %rd<2>;\n.reg .b32 %r<2>;\n\
        ld.param.u64 %rd1, [p];\n.loc 1 42 7\nld.global.u32 %r1, [%rd1];\nret;\n}\n";
    let g = Gpu::new(ptx);
    let fault = g.run("k", one(1), one(1), 0, &[Arg::Ptr(16)]).expect_err("no allocation is there");
    assert_eq!((fault.source.as_ref(), fault.ptx_line), (Some(&("k.cu".to_string(), 42)), 11));
}
