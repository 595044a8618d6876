//! What lanes, warps and blocks do together: shuffles, votes, matches, matrices, barriers, divergence.

mod support;

use monopath_vgpu::{Counters, Fault, FaultKind};
use support::*;

/// A kernel `k(in, out)` around a body. Row `r` of lane `l` is element `r * 32 + l` of 32 bits; the macros `in r, reg`
/// and `out r, reg` are spelled `IN(r,reg)` and `OUT(r,reg)`.
fn kernel(body: &str) -> String {
    let mut text = String::new();
    for line in body.lines() {
        let mut rest = line;
        while let Some(at) = rest.find("IN(").or_else(|| rest.find("OUT(")) {
            let (before, call) = rest.split_at(at);
            let close = call.find(')').expect("closed");
            let inner = &call[call.find('(').expect("open") + 1..close];
            let (row, reg) = inner.split_once(',').expect("two operands");
            let offset = row.parse::<u32>().expect("a row") * 128;
            text += before;
            text += &if call.starts_with("IN") {
                format!("ld.global.b32 {reg}, [%pi+{offset}]")
            } else {
                format!("st.global.b32 [%po+{offset}], {reg}")
            };
            rest = &call[close + 1..];
        }
        text += rest;
        text += "\n";
    }
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 pi, .param .u64 po)\n{{\n\
         .reg .b64 %pi, %po, %x<3>;\n.reg .b32 %r<64>;\n.reg .f32 %f<9>;\n.reg .pred %p<9>;\n.reg .b64 %rd<9>;\n\
         ld.param.u64 %pi, [pi];\nld.param.u64 %po, [po];\nmov.u32 %r63, %tid.x;\nmul.wide.u32 %x0, %r63, 4;\n\
         add.s64 %pi, %pi, %x0;\nadd.s64 %po, %po, %x0;\n{text}\nret;\n}}\n"
    )
}

fn go(body: &str, input: &[u32], rows_out: usize, seed: u64) -> Result<(Vec<u32>, Counters), Box<Fault>> {
    go_with(body, input, rows_out, seed, 32)
}

fn go_with(
    body: &str,
    input: &[u32],
    rows_out: usize,
    seed: u64,
    threads: u32,
) -> Result<(Vec<u32>, Counters), Box<Fault>> {
    let mut g = Gpu::new(&kernel(body));
    g.seed = seed;
    let (pi, po) = (g.upload(input), g.upload(&vec![0u32; rows_out * 32]));
    let c = g.run("k", [1, 1, 1], [threads, 1, 1], 0, &[Arg::Ptr(pi), Arg::Ptr(po)])?;
    Ok((g.download(po, rows_out * 32), c))
}

fn run(body: &str, input: &[u32], rows_out: usize) -> Vec<u32> {
    let (plain, counters) = go(body, input, rows_out, 0).unwrap_or_else(|e| panic!("{e}"));
    for seed in 1..4 {
        let (other, c) = go(body, input, rows_out, seed).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((&plain, &counters), (&other, &c), "seed {seed}");
    }
    plain
}

fn lanes() -> impl Iterator<Item = u32> {
    0..32
}

#[test]
fn basic_blocks_are_reached_when_a_warp_comes_to_them() {
    let body = "IN(0,%r0);\nsetp.eq.u32 %p0, %r0, 7;\n@%p0 bra SEVEN;\nadd.u32 %r0, %r0, 1;\nbra END;\nSEVEN:\n\
                mul.lo.u32 %r0, %r0, 2;\nEND:\nOUT(0,%r0);";
    let g = Gpu::new(&kernel(body));
    let reached =
        |g: &Gpu| g.module.kernel("k").expect("it is there").blocks().into_values().collect::<Vec<_>>();
    assert!(reached(&g).iter().all(|came| !came), "nothing has run");
    let step = |value: u32, left: usize| {
        let (from, to) = (g.upload(&[value; 32]), g.upload(&[0u32; 32]));
        g.run("k", [1, 1, 1], [32, 1, 1], 0, &[Arg::Ptr(from), Arg::Ptr(to)]).expect("it runs");
        assert_eq!(reached(&g).iter().filter(|came| !**came).count(), left, "{value}: {:?}", reached(&g));
    };
    // Nobody comes to what lies behind `ret`; those for whom it is not seven leave out one more.
    step(3, 2);
    step(7, 1);
}

#[test]
fn every_shuffle_mode_with_every_segment_and_distance() {
    let values: Vec<u32> = lanes().map(|l| 1000 + l).collect();
    let widths = [1u32, 2, 4, 8, 16, 32];
    let distances = [0u32, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31];
    for mode in ["up", "down", "bfly", "idx"] {
        let mut body = String::from("IN(0,%r0);\n");
        let cases: Vec<(u32, u32)> = widths.iter().flat_map(|w| distances.map(|by| (*w, by))).collect();
        for (i, (width, by)) in cases.iter().enumerate() {
            let c = (32 - width) << 8 | if mode == "up" { 0 } else { 31 };
            body += &format!(
                "shfl.sync.{mode}.b32 %r1|%p1, %r0, {by}, {c}, -1;\nselp.u32 %r2, 1, 0, %p1;\nOUT({},%r1);\nOUT({},%r2);\n",
                2 * i,
                2 * i + 1
            );
        }
        let got = run(&body, &values, 2 * cases.len());
        for (i, (width, by)) in cases.iter().enumerate() {
            for l in lanes() {
                // The definition of the CUDA functions with a width.
                let first = l / width * width;
                let source = match mode {
                    "up" => (l - first >= *by).then(|| l - by),
                    "down" => (l + by < first + width).then_some(l + by),
                    "bfly" => ((l ^ by) < first + width).then_some(l ^ by),
                    _ => Some(first + by % width),
                };
                let want = (1000 + source.unwrap_or(l), u32::from(source.is_some()));
                let at = 64 * i + l as usize;
                assert_eq!((got[at], got[at + 32]), want, "{mode} width {width} by {by} lane {l}");
            }
        }
    }
}

#[test]
fn lanes_may_shuffle_by_different_distances_and_from_lanes_outside_the_mask() {
    let by: Vec<u32> = lanes().map(|l| l * 7 + 3).collect();
    let got = run(
        "IN(0,%r0);\nmov.u32 %r1, %laneid;\nshfl.sync.idx.b32 %r2, %r1, %r0, 31, -1;\nOUT(0,%r2);",
        &by,
        1,
    );
    lanes().for_each(|l| assert_eq!(got[l as usize], (l * 7 + 3) % 32));
    // The lower half shuffles alone; what it would read from the upper half is no lane's value.
    let body = "mov.u32 %r1, %laneid;\nsetp.gt.u32 %p0, %r1, 15;\n@%p0 bra L;\n\
        shfl.sync.down.b32 %r2, %r1, 8, 31, 0xffff;\nOUT(0,%r2);\nL:";
    let got = run(body, &[0; 32], 1);
    (0..8).for_each(|l| assert_eq!(got[l], l as u32 + 8));
    (8..16).for_each(|l| assert!(got[l] > 31, "lane {l} read {}", got[l]));
}

#[test]
fn votes_ballots_and_the_active_mask() {
    let flags: Vec<u32> = lanes().map(|l| u32::from(l % 3 == 0)).collect();
    let ballot = lanes().fold(0, |v, l| v | flags[l as usize] << l);
    let body = "IN(0,%r0);\nsetp.ne.u32 %p0, %r0, 0;\nvote.sync.ballot.b32 %r1, %p0, -1;\nvote.sync.all.pred %p1, %p0, -1;\n\
        vote.sync.any.pred %p2, %p0, -1;\nvote.sync.uni.pred %p3, %p0, -1;\nvote.sync.ballot.b32 %r6, !%p0, -1;\n\
        selp.u32 %r2, 1, 0, %p1;\nselp.u32 %r3, 1, 0, %p2;\nselp.u32 %r4, 1, 0, %p3;\nactivemask.b32 %r5;\n\
        OUT(0,%r1);\nOUT(1,%r2);\nOUT(2,%r3);\nOUT(3,%r4);\nOUT(4,%r5);\nOUT(5,%r6);";
    let got = run(body, &flags, 6);
    assert_eq!([got[0], got[32], got[64], got[96], got[128], got[160]], [ballot, 0, 1, 0, u32::MAX, !ballot]);
    let got = run(body, &[1; 32], 6);
    assert_eq!([got[0], got[32], got[64], got[96]], [u32::MAX, 1, 1, 1]);
    // Within a branch only the branch's lanes are there.
    let body = "IN(0,%r0);\nsetp.eq.u32 %p0, %r0, 0;\n@%p0 bra L;\nactivemask.b32 %r1;\nvote.sync.all.pred %p1, %p0, %r1;\n\
        selp.u32 %r2, 1, 0, %p1;\nOUT(0,%r1);\nOUT(1,%r2);\nL:";
    let got = run(body, &flags, 2);
    assert_eq!((got[0], got[1], got[32]), (ballot, 0, 0));
}

#[test]
fn matches_and_reductions() {
    let keys: Vec<u32> = lanes().map(|l| l * l % 5).collect();
    let body = "IN(0,%r0);\nmatch.any.sync.b32 %r1, %r0, -1;\nmatch.all.sync.b32 %r2|%p0, %r0, -1;\n\
        selp.u32 %r3, 1, 0, %p0;\ncvt.u64.u32 %rd1, %r0;\nshl.b64 %rd1, %rd1, 33;\nmatch.any.sync.b64 %r4, %rd1, -1;\n\
        OUT(0,%r1);\nOUT(1,%r2);\nOUT(2,%r3);\nOUT(3,%r4);";
    let got = run(body, &keys, 4);
    for l in lanes() {
        let same = lanes().fold(0, |v, k| v | u32::from(keys[k as usize] == keys[l as usize]) << k);
        let l = l as usize;
        assert_eq!([got[l], got[32 + l], got[64 + l], got[96 + l]], [same, 0, 0, same]);
    }
    let got = run(body, &[9; 32], 4);
    assert_eq!([got[5], got[37], got[69]], [u32::MAX, u32::MAX, 1]);

    let x: Vec<u32> = bits(32, 3).into_iter().map(|b| b as u32).collect();
    let mut body = String::from("IN(0,%r0);\n");
    let ops =
        ["add.u32", "add.s32", "min.u32", "max.u32", "min.s32", "max.s32", "and.b32", "or.b32", "xor.b32"];
    for (i, op) in ops.iter().enumerate() {
        body += &format!("redux.sync.{op} %r1, %r0, -1;\nOUT({i},%r1);\n");
    }
    let got = run(&body, &x, ops.len());
    let sum = x.iter().fold(0u32, |s, v| s.wrapping_add(*v));
    let signed = || x.iter().map(|v| *v as i32);
    let want = [
        sum,
        sum,
        *x.iter().min().unwrap(),
        *x.iter().max().unwrap(),
        signed().min().unwrap() as u32,
        signed().max().unwrap() as u32,
        x.iter().fold(u32::MAX, |a, v| a & v),
        x.iter().fold(0, |a, v| a | v),
        x.iter().fold(0, |a, v| a ^ v),
    ];
    for (i, w) in want.iter().enumerate() {
        assert!(got[32 * i..32 * i + 32].iter().all(|v| v == w), "{}", ops[i]);
    }
}

#[test]
fn sides_of_a_branch_may_meet_at_copies_of_one_instruction() {
    // Both sides execute a warp barrier and a shuffle with the full mask, at different places in the code.
    let body = "mov.u32 %r0, %laneid;\nand.b32 %r1, %r0, 1;\nsetp.eq.u32 %p0, %r1, 0;\n@%p0 bra EVEN;\n\
        bar.warp.sync -1;\nmul.lo.u32 %r2, %r0, 10;\nshfl.sync.bfly.b32 %r3, %r2, 1, 31, -1;\nbra.uni JOIN;\n\
        EVEN:\nadd.u32 %r2, %r0, 500;\nbar.warp.sync -1;\nshfl.sync.bfly.b32 %r3, %r2, 1, 31, -1;\nJOIN:\nOUT(0,%r3);";
    let got = run(body, &[0; 32], 1);
    for l in 0..32u32 {
        let k = l ^ 1;
        assert_eq!(got[l as usize], if k % 2 == 1 { k * 10 } else { k + 500 });
    }
}

#[test]
fn disjoint_masks_are_independent_and_exited_lanes_do_not_count() {
    // Four groups of eight lanes, each with its own mask, in one instruction.
    let body = "mov.u32 %r0, %laneid;\nand.b32 %r1, %r0, 24;\nmov.u32 %r2, 255;\nshl.b32 %r2, %r2, %r1;\n\
        redux.sync.add.u32 %r3, %r0, %r2;\nOUT(0,%r3);";
    let got = run(body, &[0; 32], 1);
    lanes().for_each(|l| assert_eq!(got[l as usize], (l / 8 * 8..l / 8 * 8 + 8).sum::<u32>()));
    let body = "mov.u32 %r0, %laneid;\nsetp.gt.u32 %p0, %r0, 19;\n@%p0 ret;\nvote.sync.ballot.b32 %r1, %p0, -1;\n\
        redux.sync.add.u32 %r2, 1, -1;\nOUT(0,%r2);";
    let got = run(body, &[0; 32], 1);
    lanes().for_each(|l| assert_eq!(got[l as usize], if l < 20 { 20 } else { 0 }));
}

#[test]
fn divergent_loops_meet_at_their_exit() {
    // Lane l adds 1 + 2 + … + l; then all lanes are together again.
    let body = "mov.u32 %r0, %laneid;\nmov.u32 %r1, 0;\nmov.u32 %r2, 0;\nLOOP:\nsetp.ge.u32 %p0, %r1, %r0;\n@%p0 bra OUT;\n\
        add.u32 %r1, %r1, 1;\nand.b32 %r4, %r1, 3;\nsetp.ne.u32 %p1, %r4, 0;\n@%p1 bra SKIP;\nadd.u32 %r2, %r2, 1000;\nSKIP:\n\
        add.u32 %r2, %r2, %r1;\nbra.uni LOOP;\nOUT:\nactivemask.b32 %r3;\nOUT(0,%r2);\nOUT(1,%r3);";
    let got = run(body, &[0; 32], 2);
    for l in lanes() {
        assert_eq!((got[l as usize], got[32 + l as usize]), (l * (l + 1) / 2 + l / 4 * 1000, u32::MAX));
    }
}

#[test]
fn a_lock_between_lanes_of_a_warp_makes_progress() {
    // Each lane takes a lock in shared memory, adds without atomics, and gives it back.
    let body = ".shared .align 4 .b32 lock[2];\nmov.u32 %r0, %laneid;\nsetp.ne.u32 %p0, %r0, 0;\nmov.u32 %r9, lock;\n\
        @!%p0 st.shared.u32 [lock], 0;\n@!%p0 st.shared.u32 [lock+4], 0;\nbar.sync 0;\n\
        SPIN:\natom.shared.cas.b32 %r1, [lock], 0, 1;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra SPIN;\n\
        atom.shared.add.u32 %r2, [lock+4], 3;\natom.shared.exch.b32 %r3, [lock], 0;\nbar.warp.sync -1;\n\
        atom.shared.add.u32 %r4, [lock+4], 0;\nOUT(0,%r4);";
    for seed in 0..3 {
        let (got, _) = go(body, &[0; 32], 1, seed).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(got, [96; 32], "seed {seed}");
    }
}

#[test]
fn blocks_that_wait_for_each_other_are_resident_together() {
    // Block i waits for the flag of block i + 1, the last one for nobody.
    let ptx = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n\
        .reg .b64 %rd<5>;\n.reg .b32 %r<5>;\n.reg .pred %p<3>;\nld.param.u64 %rd1, [p];\nmov.u32 %r1, %ctaid.x;\n\
        mov.u32 %r2, %nctaid.x;\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd3, %rd1, %rd2;\nadd.u32 %r3, %r1, 1;\n\
        setp.eq.u32 %p1, %r3, %r2;\n@%p1 bra DONE;\nWAIT:\nld.acquire.gpu.global.u32 %r4, [%rd3+4];\n\
        setp.eq.u32 %p2, %r4, 0;\n@%p2 bra WAIT;\nDONE:\nfence.acq_rel.gpu;\nst.relaxed.gpu.global.u32 [%rd3], 1;\nret;\n}\n";
    for seed in 0..3 {
        let mut g = Gpu::new(ptx);
        g.seed = seed;
        let p = g.upload(&[0u32; 12]);
        g.run("k", [12, 1, 1], [1, 1, 1], 0, &[Arg::Ptr(p)]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(g.download::<u32>(p, 12), [1; 12]);
    }
}

#[test]
fn barriers_reduce_and_named_barriers_order_their_warps() {
    let body = "mov.u32 %r0, %tid.x;\nand.b32 %r1, %r0, 3;\nsetp.eq.u32 %p0, %r1, 0;\nbar.red.popc.u32 %r2, 0, %p0;\n\
        bar.red.and.pred %p1, 0, %p0;\nbar.red.or.pred %p2, 0, %p0;\nselp.u32 %r3, 1, 0, %p1;\nselp.u32 %r4, 1, 0, %p2;\n\
        mad.lo.u32 %r5, %r3, 1000, %r2;\nmad.lo.u32 %r5, %r4, 100000, %r5;\nOUT(0,%r5);";
    let (got, c) = go_with(body, &[0; 96], 3, 0, 96).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(got, [100_024; 96]);
    assert_eq!(c.barriers, 3);
    // A producer warp arrives, a consumer warp waits: barrier 1 for 64 threads.
    let body = ".shared .align 4 .b32 s[32];\nmov.u32 %r0, %tid.x;\nmov.u32 %r1, %laneid;\nshl.b32 %r2, %r1, 2;\n\
        mov.u32 %r3, s;\nadd.u32 %r3, %r3, %r2;\nsetp.gt.u32 %p0, %r0, 31;\n@%p0 bra CONSUMER;\n\
        mul.lo.u32 %r4, %r1, 9;\nst.shared.u32 [%r3], %r4;\nbar.arrive 1, 64;\nbra.uni END;\n\
        CONSUMER:\nbar.sync 1, 64;\nld.shared.u32 %r5, [%r3];\nOUT(0,%r5);\nEND:";
    for seed in 0..4 {
        let (got, _) = go_with(body, &[0; 64], 2, seed, 64).unwrap_or_else(|e| panic!("{e}"));
        lanes().for_each(|l| assert_eq!(got[32 + l as usize], 9 * l));
    }
    let broken = body.replace("bar.arrive 1, 64", "bar.arrive 2, 64");
    let e = go_with(&broken, &[0; 64], 2, 0, 64).expect_err("nobody arrives at barrier 1");
    assert_eq!(e.kind, FaultKind::DivergentBarrier);
    // Without waiting the consumer races.
    let broken = body.replace("bar.sync 1, 64", "bar.arrive 1, 64");
    for seed in 0..4 {
        let e = go_with(&broken, &[0; 64], 2, seed, 64).expect_err("the consumer does not wait");
        assert!(matches!(e.kind, FaultKind::SharedRace | FaultKind::UninitialisedRead), "{e}");
    }
}

#[test]
fn atomics_return_the_old_value() {
    let x: Vec<u32> = vec![5; 32];
    let got =
        run("IN(0,%r0);\natom.global.add.u32 %r1, [%pi], 7;\nOUT(0,%r1);\nIN(0,%r2);\nOUT(1,%r2);", &x, 2);
    assert_eq!((got[3], got[35]), (5, 12));
    let body = "atom.global.inc.u32 %r1, [%pi], 5;\natom.global.dec.u32 %r2, [%pi], 9;\natom.global.dec.u32 %r3, [%pi], 3;\n\
        atom.global.max.s32 %r4, [%pi], -1;\natom.global.min.u32 %r5, [%pi], 1;\natom.global.exch.b32 %r6, [%pi], 0xf0;\n\
        atom.global.xor.b32 %r7, [%pi], 0xff;\natom.global.cas.b32 %r8, [%pi], 15, 77;\nOUT(0,%r1);\nOUT(1,%r2);\nOUT(2,%r3);\n\
        OUT(3,%r4);\nOUT(4,%r5);\nOUT(5,%r6);\nOUT(6,%r7);\nOUT(7,%r8);\nIN(0,%r9);\nOUT(8,%r9);";
    let got = run(body, &x, 9);
    // 5 >= 5 wraps to 0; dec of 0 gives 9; dec of 9 > 3 gives 3.
    let want = [5, 0, 9, 3, 3, 1, 0xf0, 15, 77];
    (0..9).for_each(|i| assert_eq!(got[32 * i + 4], want[i], "step {i}"));
    let got = run(
        "mov.f32 %f0, 0f3F000000;\natom.global.add.f32 %f1, [%pi], %f0;\nred.global.add.f32 [%pi], %f0;\nIN(0,%r1);\nOUT(0,%r1);\nmov.b32 %r2, %f1;\nOUT(1,%r2);",
        &[1f32.to_bits(); 32],
        2,
    );
    assert_eq!((got[9], got[41]), (2f32.to_bits(), 1f32.to_bits()));
}

/// Small integers, exact in every format.
fn small(n: usize, seed: u64) -> Vec<f32> {
    bits(n, seed).into_iter().map(|b| (b % 17) as f32 - 8.0).collect()
}

/// The tables of the ISA for m16n8: row and column of element `i` of a lane, as the text gives them.
mod isa {
    pub fn a16(lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
        let col = if i < 4 { thread * 2 + (i & 1) } else { thread * 2 + (i & 1) + 8 };
        (row, col)
    }

    pub fn a8(lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
    }

    pub fn b(lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        (if i < 2 { thread * 2 + (i & 1) } else { thread * 2 + (i & 1) + 8 }, group)
    }

    pub fn a_tf32(lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        (if i == 0 || i == 2 { group } else { group + 8 }, if i < 2 { thread } else { thread + 4 })
    }

    pub fn b_tf32(lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        (if i == 0 { thread } else { thread + 4 }, group)
    }

    pub fn c(lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane >> 2, lane % 4);
        (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
    }
}

type Layout = fn(usize, usize) -> (usize, usize);

/// Registers (rows of 32 lanes) that hold a matrix: `bits` of each element, packed two by two if narrow.
fn registers(m: &[f32], cols: usize, elements: usize, at: Layout, to: Option<fn(f32) -> u16>) -> Vec<u32> {
    let per = if to.is_some() { 2 } else { 1 };
    let mut out = vec![0u32; elements / per * 32];
    for lane in 0..32 {
        for e in 0..elements {
            let (i, j) = at(lane, e);
            let v = m[i * cols + j];
            let bits = to.map_or(v.to_bits(), |f| u32::from(f(v)));
            out[e / per * 32 + lane] |= bits << (16 * (e % per));
        }
    }
    out
}

#[test]
fn matrix_fragments_lie_as_the_isas_tables_say() {
    struct Case {
        shape: &'static str,
        k: usize,
        ty: &'static str,
        a: (usize, Layout),
        b: (usize, Layout),
        to: Option<fn(f32) -> u16>,
    }
    let cases = [
        Case { shape: "m16n8k16", k: 16, ty: "f16", a: (8, isa::a16), b: (4, isa::b), to: Some(f16) },
        Case { shape: "m16n8k8", k: 8, ty: "f16", a: (4, isa::a8), b: (2, isa::b), to: Some(f16) },
        Case { shape: "m16n8k16", k: 16, ty: "bf16", a: (8, isa::a16), b: (4, isa::b), to: Some(bf16) },
        Case { shape: "m16n8k8", k: 8, ty: "bf16", a: (4, isa::a8), b: (2, isa::b), to: Some(bf16) },
        Case { shape: "m16n8k8", k: 8, ty: "tf32", a: (4, isa::a_tf32), b: (2, isa::b_tf32), to: None },
        Case { shape: "m16n8k4", k: 4, ty: "tf32", a: (2, isa::a_tf32), b: (1, isa::b_tf32), to: None },
    ];
    for case in cases {
        for half_sums in [false, true] {
            if half_sums && case.ty != "f16" {
                continue;
            }
            let k = case.k;
            let (a, b, c) = (small(16 * k, 1), small(k * 8, 2), small(16 * 8, 3));
            let mut want = c.clone();
            for i in 0..16 {
                for j in 0..8 {
                    for x in 0..k {
                        want[i * 8 + j] += a[i * k + x] * b[x * 8 + j];
                    }
                }
            }
            let sums: Option<fn(f32) -> u16> = if half_sums { Some(f16) } else { None };
            let mut input = registers(&a, k, case.a.0, case.a.1, case.to);
            let na = input.len() / 32;
            input.extend(registers(&b, 8, case.b.0, case.b.1, case.to));
            let nb = input.len() / 32 - na;
            input.extend(registers(&c, 8, 4, isa::c, sums));
            let nc = input.len() / 32 - na - nb;
            let cd = if half_sums { "f16" } else { "f32" };
            let mut body = String::new();
            (0..na + nb + nc).for_each(|i| body += &format!("IN({i},%r{i});\n"));
            let list = |from: usize, n: usize| {
                (from..from + n).map(|i| format!("%r{i}")).collect::<Vec<_>>().join(", ")
            };
            body += &format!(
                "mma.sync.aligned.{}.row.col.{cd}.{ty}.{ty}.{cd} {{{}}}, {{{}}}, {{{}}}, {{{}}};\n",
                case.shape,
                list(40, nc),
                list(0, na),
                list(na, nb),
                list(na + nb, nc),
                ty = case.ty
            );
            (0..nc).for_each(|i| body += &format!("OUT({i},%r{});\n", 40 + i));
            let got = run(&body, &input, nc);
            assert_eq!(got, registers(&want, 8, 4, isa::c, sums), "{} {} {cd}", case.shape, case.ty);
        }
    }
}

#[test]
fn matrices_are_loaded_by_rows_or_transposed() {
    // 32 rows of eight halves: row r, column c holds 100 r + c.
    let value = |r: u32, c: u32| 100 * r + c;
    let words: Vec<u32> =
        (0..4).flat_map(|w| (0..32).map(move |r| value(r, 2 * w) | value(r, 2 * w + 1) << 16)).collect();
    for (count, n) in [("x1", 1u32), ("x2", 2), ("x4", 4)] {
        for trans in [false, true] {
            let list = (0..n).map(|i| format!("%r{}", 20 + i)).collect::<Vec<_>>().join(", ");
            let mut body = String::from(
                ".shared .align 16 .b8 s[512];\nmov.u32 %r0, s;\nshl.b32 %r1, %r63, 4;\nadd.u32 %r0, %r0, %r1;\n\
                 IN(0,%r2);\nIN(1,%r3);\nIN(2,%r4);\nIN(3,%r5);\nst.shared.v4.b32 [%r0], {%r2, %r3, %r4, %r5};\nbar.warp.sync -1;\n",
            );
            let suffix = if trans { ".trans" } else { "" };
            body += &format!("ldmatrix.sync.aligned.m8n8.{count}{suffix}.shared.b16 {{{list}}}, [%r0];\n");
            (0..n).for_each(|i| body += &format!("OUT({i},%r{});\n", 20 + i));
            let got = run(&body, &words, n as usize);
            for j in 0..n {
                for l in lanes() {
                    let (row, col) = (l / 4, 2 * (l % 4));
                    let want = if trans {
                        value(8 * j + col, row) | value(8 * j + col + 1, row) << 16
                    } else {
                        value(8 * j + row, col) | value(8 * j + row, col + 1) << 16
                    };
                    assert_eq!(got[(32 * j + l) as usize], want, "{count} {trans} matrix {j} lane {l}");
                }
            }
        }
    }
    let fragment: Vec<u32> =
        lanes().map(|l| value(l / 4, 2 * (l % 4)) | value(l / 4, 2 * (l % 4) + 1) << 16).collect();
    let got = run("IN(0,%r0);\nmovmatrix.sync.aligned.m8n8.trans.b16 %r1, %r0;\nOUT(0,%r1);", &fragment, 1);
    for l in lanes() {
        let (row, col) = (l / 4, 2 * (l % 4));
        assert_eq!(got[l as usize], value(col, row) | value(col + 1, row) << 16);
    }
}

#[test]
fn asynchronous_copies_arrive_group_by_group_and_fill_with_zeros() {
    let x: Vec<u32> = lanes().map(|l| 7 * l + 1).collect();
    let body = ".shared .align 16 .b32 s[64];\nmov.u32 %r0, s;\nshl.b32 %r1, %r63, 2;\nadd.u32 %r0, %r0, %r1;\n\
        cp.async.ca.shared.global [%r0], [%pi], 4;\ncp.async.commit_group;\n\
        cp.async.ca.shared.global [%r0+128], [%pi], 4, 0;\ncp.async.commit_group;\n\
        cp.async.wait_group 1;\nld.shared.u32 %r2, [%r0];\nOUT(0,%r2);\ncp.async.wait_group 0;\nld.shared.u32 %r3, [%r0+128];\nOUT(1,%r3);";
    let got = run(body, &x, 2);
    lanes().for_each(|l| assert_eq!((got[l as usize], got[32 + l as usize]), (7 * l + 1, 0)));
    let early = body.replace("[%r0];\nOUT(0", "[%r0+128];\nOUT(0");
    assert_eq!(
        go(&early, &x, 2, 0).expect_err("the second group is open").kind,
        FaultKind::UninitialisedRead
    );
}

#[test]
fn memory_accesses_of_every_size_extend_as_their_type_says() {
    let x: Vec<u32> = lanes().map(|l| 0x80f1_72e3u32.rotate_left(l)).collect();
    let body = "ld.global.s8 %r0, [%pi+1];\nld.global.u8 %r1, [%pi+3];\nld.global.s16 %r2, [%pi+2];\nld.global.u16 %r3, [%pi];\n\
        OUT(0,%r0);\nOUT(1,%r1);\nOUT(2,%r2);\nOUT(3,%r3);\nld.global.s32 %rd1, [%pi];\nmov.b64 {%r4, %r5}, %rd1;\nOUT(4,%r5);\n\
        mov.u32 %r6, 0x12345678;\nst.global.u8 [%po+641], %r6;\nst.global.u16 [%po+642], %r6;";
    let got = run(body, &x, 6);
    for l in 0..32 {
        let b = x[l].to_le_bytes();
        assert_eq!(got[l], b[1] as i8 as i32 as u32);
        assert_eq!(got[32 + l], u32::from(b[3]));
        assert_eq!(got[64 + l], (x[l] as i32 >> 16) as u32);
        assert_eq!(got[96 + l], x[l] & 0xffff);
        assert_eq!(got[128 + l], (x[l] as i32 >> 31) as u32);
        assert_eq!(got[160 + l], 0x5678_7800, "two stores beside each other");
    }
}

#[test]
fn generic_addresses_reach_every_space() {
    // Even lanes go through shared memory, odd lanes through local memory, by one generic instruction.
    let body = ".shared .align 4 .b32 s[32];\n.local .align 4 .b32 q[4];\nmov.u64 %rd1, s;\nmul.wide.u32 %rd2, %r63, 4;\n\
        add.s64 %rd1, %rd1, %rd2;\ncvta.shared.u64 %rd3, %rd1;\nmov.u64 %rd4, q;\ncvta.local.u64 %rd5, %rd4;\n\
        and.b32 %r0, %r63, 1;\nsetp.eq.u32 %p0, %r0, 1;\nselp.b64 %rd6, %rd5, %rd3, %p0;\n\
        IN(0,%r1);\nst.u32 [%rd6], %r1;\nld.u32 %r2, [%rd6];\nOUT(0,%r2);\n\
        isspacep.shared %p1, %rd6;\nselp.u32 %r3, 1, 0, %p1;\nOUT(1,%r3);\nld.u32 %r4, [%pi];\nOUT(2,%r4);\n\
        isspacep.global %p2, %pi;\nselp.u32 %r5, 1, 0, %p2;\nOUT(3,%r5);";
    let x: Vec<u32> = lanes().map(|l| l + 40).collect();
    let got = run(body, &x, 4);
    lanes().for_each(|l| {
        let i = l as usize;
        assert_eq!([got[i], got[32 + i], got[64 + i], got[96 + i]], [l + 40, (l + 1) % 2, l + 40, 1]);
    });
}

#[test]
fn hints_and_dependencies_between_launches_have_no_effect() {
    let body = "IN(0,%r0);\nprefetch.global.L1 [%pi];\nprefetch.global.L2 [%pi+4096];\nprefetchu.L1 [%pi];\n\
        griddepcontrol.wait;\nadd.u32 %r0, %r0, 1;\ngriddepcontrol.launch_dependents;\nOUT(0,%r0);";
    let ptx = kernel(body).replace("sm_80", "sm_90");
    let g = Gpu::new(&ptx);
    let (pi, po) = (g.upload(&[41u32; 32]), g.empty::<u32>(32));
    let c = ok(g.run("k", [1, 1, 1], [32, 1, 1], 0, &[Arg::Ptr(pi), Arg::Ptr(po)]));
    assert_eq!(g.download::<u32>(po, 32), [42; 32]);
    assert_eq!((c.global.load_requests, c.global.load_bytes), (1, 128), "a prefetch is no access");
}
