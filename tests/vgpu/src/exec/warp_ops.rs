//! Shuffles, votes, matches, reductions and barriers among lanes of a warp.
//!
//! Lanes may come from several places in the code (copies of one instruction on two sides of a branch), so operands are
//! gathered per place, the operation runs once, and results are scattered per place.

use crate::ptx::inst::*;
use crate::ptx::types::W;

use super::alu::lanes;
use super::rows::FULL;
use super::warp::Warp;
use super::{Cx, Trouble};

/// What a lane reads from a lane that takes no part: a value that is NaN as an f32 and large as an integer.
pub(super) const POISON: u32 = 0x7fee_dead;

/// Runs one operation; `places` are instructions with their lanes.
#[inline]
pub(super) fn run(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    op: WarpOp,
    places: &[(u32, u32)],
) -> Result<(), Trouble> {
    let code = cx.code;
    let all = places.iter().fold(0, |v, p| v | p.1);
    if op == WarpOp::Barrier {
        cx.tally.warp_barriers += 1;
        cx.shared.warp_barrier(warp.id);
        return Ok(());
    }
    let operand = |pc: u32, n: usize| {
        let inst = &code.insts[pc as usize];
        code.more[inst.b as usize + n]
    };
    let mut value = [0u64; 32];
    let mut b = [0u32; 32];
    let mut c = [0u32; 32];
    let mut pred = 0;
    for (pc, m) in places {
        let r = warp.view(cx.consts);
        match op {
            WarpOp::Shfl(_) => {
                let (sv, sb, sc) = (r.r32(operand(*pc, 0)), r.r32(operand(*pc, 1)), r.r32(operand(*pc, 2)));
                if *m == FULL {
                    b = *sb;
                    c = *sc;
                    for l in 0..32 {
                        value[l] = sv[l].into();
                    }
                } else {
                    for l in lanes(*m) {
                        (value[l], b[l], c[l]) = (sv[l].into(), sb[l], sc[l]);
                    }
                }
            }
            WarpOp::Vote(_) => pred |= r.pred(operand(*pc, 0)) & m,
            WarpOp::MatchAny(W::W64) | WarpOp::MatchAll(W::W64) => {
                let v = r.r64(operand(*pc, 0));
                lanes(*m).for_each(|l| value[l] = v[l]);
            }
            _ => {
                let v = r.r32(operand(*pc, 0));
                lanes(*m).for_each(|l| value[l] = v[l].into());
            }
        }
    }
    let mut out = [0u32; 32];
    let mut flag = 0;
    match op {
        WarpOp::Shfl(mode) => {
            for l in lanes(all) {
                let (source, inside) = shuffle(mode, l as u32, b[l], c[l]);
                flag |= u32::from(inside) << l;
                out[l] = if all >> source & 1 == 1 { value[source as usize] as u32 } else { POISON };
            }
        }
        WarpOp::Vote(Vote::Ballot) => out = [pred; 32],
        WarpOp::Vote(mode) => {
            let yes = match mode {
                Vote::All => pred == all,
                Vote::Any => pred != 0,
                _ => pred == all || pred == 0,
            };
            flag = if yes { FULL } else { 0 };
        }
        WarpOp::MatchAny(_) => {
            for l in lanes(all) {
                out[l] = lanes(all).fold(0, |v, k| v | u32::from(value[k] == value[l]) << k);
            }
        }
        WarpOp::MatchAll(_) => {
            let first = value[all.trailing_zeros() as usize];
            if lanes(all).all(|l| value[l] == first) {
                out = [all; 32];
                flag = FULL;
            }
        }
        WarpOp::Redux(op) => {
            let values = lanes(all).map(|l| value[l] as u32);
            let v = match op {
                Redux::Add => values.fold(0, u32::wrapping_add),
                Redux::MinS => values.map(|v| v as i32).min().unwrap_or(0) as u32,
                Redux::MaxS => values.map(|v| v as i32).max().unwrap_or(0) as u32,
                Redux::MinU => values.min().unwrap_or(0),
                Redux::MaxU => values.max().unwrap_or(0),
                Redux::And => values.fold(FULL, |a, v| a & v),
                Redux::Or => values.fold(0, |a, v| a | v),
                Redux::Xor => values.fold(0, |a, v| a ^ v),
            };
            out = [v; 32];
        }
        WarpOp::Barrier => {}
    }
    for (pc, m) in places {
        let inst = &code.insts[*pc as usize];
        let mut r = warp.view(cx.consts);
        match op {
            WarpOp::Vote(Vote::Ballot) | WarpOp::MatchAny(_) | WarpOp::Redux(_) => r.put32(inst.d, *m, &out),
            WarpOp::Vote(_) => r.put_pred(inst.d, *m, flag),
            WarpOp::Shfl(_) => {
                r.put32(inst.d, *m, &out);
                let p = code.more[inst.b as usize + 3];
                if p != NOWHERE {
                    r.put_pred(p, *m, flag);
                }
            }
            WarpOp::MatchAll(_) => {
                r.put32(inst.d, *m, &out);
                r.put_pred(code.more[inst.b as usize + 1], *m, flag);
            }
            WarpOp::Barrier => {}
        }
    }
    Ok(())
}

/// The lane that a shuffle reads, and whether it is inside the segment (or else the lane reads itself).
/// `c` holds the clamp in bits 0-4 and the segment mask in bits 8-12.
pub(super) fn shuffle(mode: Shfl, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (clamp, segment, by) = (c & 31, c >> 8 & 31, b & 31);
    let highest = lane & segment | clamp & !segment;
    let lowest = lane & segment;
    let (source, inside) = match mode {
        Shfl::Up => (lane as i32 - by as i32, lane as i32 - by as i32 >= highest as i32),
        Shfl::Down => ((lane + by) as i32, lane + by <= highest),
        Shfl::Bfly => ((lane ^ by) as i32, (lane ^ by) <= highest),
        Shfl::Idx => {
            let j = lowest | by & !segment;
            (j as i32, j <= highest)
        }
    };
    if inside { (source as u32 & 31, true) } else { (lane, false) }
}
