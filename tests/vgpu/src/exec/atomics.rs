//! Atomics and reductions in memory, lane by lane in the order of the schedule.

use crate::fault::FaultKind;
use crate::ptx::inst::*;
use crate::ptx::types::{Rnd, Space, Ty, W};
use crate::schedule::Purpose;

use super::alu::lanes;
use super::global::{Runs, check_write, memory_trouble, peek, poke};
use super::mem::{addresses, aligned, put, shared_trouble, slice_get, slice_put, spaces};
use super::scalar::{float, int};
use super::shared::Who;
use super::warp::Warp;
use super::{Cx, Trouble};

/// The new value of an atomic.
fn combined(atom: Atom, old: u64, b: u64, c: u64) -> u64 {
    let ty = atom.ty;
    let w = ty.width();
    match atom.op {
        AtomOp::And => old & b,
        AtomOp::Or => old | b,
        AtomOp::Xor => old ^ b,
        AtomOp::Exch => b,
        AtomOp::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomOp::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        AtomOp::Min | AtomOp::Max => {
            let op = match (atom.op, ty.signed()) {
                (AtomOp::Min, true) => I2::MinS,
                (AtomOp::Min, false) => I2::MinU,
                (_, true) => I2::MaxS,
                (_, false) => I2::MaxU,
            };
            int::two(op, w, old, b)
        }
        AtomOp::Add => match ty {
            Ty::F32 => float::two32(F2::Add, Fm::PLAIN, old as u32, b as u32).into(),
            Ty::F64 => float::two64(F2::Add, Rnd::Rn, old, b),
            Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 => {
                let kind = if matches!(ty, Ty::F16 | Ty::F16x2) { HalfKind::F16 } else { HalfKind::Bf16 };
                let packed = ty.bytes() == 4;
                let h = Half { kind, packed, ftz: false, sat: false, relu: false };
                float::two16(F2::Add, h, old as u32, b as u32).into()
            }
            _ => old.wrapping_add(b),
        },
    }
}

/// `atom` and `red`.
pub(super) fn atomic(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    atom: Atom,
    pc: u32,
    m: u32,
) -> Result<(), Trouble> {
    let a = addresses(&warp.view(cx.consts), inst.a, inst.b as i32, atom.wide);
    aligned(&a, atom.ty.bytes().into(), pc, m)?;
    cx.tally.atomics += u64::from(m.count_ones());
    match atom.space {
        Space::Shared => atomic_shared(warp, cx, inst, atom, pc, m, &a),
        Space::Generic => spaces(&a, pc, m, |space, a, m| match space {
            Space::Shared => atomic_shared(warp, cx, inst, atom, pc, m, a),
            Space::Global => atomic_global(warp, cx, inst, atom, pc, m, a),
            _ => {
                let l = m.trailing_zeros() as usize;
                Err(Trouble::new(
                    FaultKind::OutOfBounds,
                    pc,
                    l,
                    "atomic outside global and shared memory".into(),
                ))
            }
        }),
        _ => atomic_global(warp, cx, inst, atom, pc, m, &a),
    }
}

/// Lanes in the order of the schedule.
fn lane_order(warp: &Warp, cx: &Cx<'_>, m: u32) -> Vec<usize> {
    let all: Vec<usize> = lanes(m).collect();
    let key = cx.block_number << 28 ^ u64::from(warp.id) << 23 ^ warp.executed;
    let order = cx.schedule.order(Purpose::Lanes, key, all.len());
    order.into_iter().map(|i| all[i as usize]).collect()
}

fn apply(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    atom: Atom,
    m: u32,
    mut swap: impl FnMut(&mut Cx<'_>, usize, &mut dyn FnMut(u64) -> u64),
) {
    let [d, b, c] = {
        let at = inst.d as usize;
        [cx.code.more[at], cx.code.more[at + 1], cx.code.more[at + 2]]
    };
    let w = atom.ty.width();
    for l in lane_order(warp, cx, m) {
        let consts = cx.consts;
        let mut r = warp.view(consts);
        let (bv, cv) = (r.lane(b, w == W::W64, l), r.lane(c, w == W::W64, l));
        let mut before = 0;
        swap(cx, l, &mut |old| {
            before = old;
            combined(atom, old, bv, cv) & w.mask()
        });
        if atom.result {
            put(&mut r, d, w, l, before);
        }
    }
}

fn atomic_global(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    atom: Atom,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let bytes = atom.ty.bytes();
    let runs = Runs::of(a, bytes, m);
    cx.touch.synchronise(cx.order);
    for (start, len) in runs.iter() {
        cx.memory.check_read(start, len.into()).map_err(|e| memory_trouble(e, a, bytes, pc, m))?;
    }
    check_write(cx, a, &runs, bytes, pc, m, true)?;
    apply(warp, cx, inst, atom, m, |cx, l, f| {
        let new = f(peek(cx.memory, a[l], bytes));
        poke(cx.memory, a[l], bytes, new);
    });
    Ok(())
}

fn atomic_shared(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    atom: Atom,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let bytes = atom.ty.bytes();
    for l in lanes(m) {
        let who = Who { warp: warp.id, lane: l as u32, instruction: pc };
        let done = cx
            .shared
            .known(a[l], bytes as usize)
            .and_then(|()| cx.shared.write(a[l], bytes as usize, who, true));
        done.map_err(|w| shared_trouble(cx, w, a[l], bytes as usize, pc, l))?;
    }
    apply(warp, cx, inst, atom, m, |cx, l, f| {
        let new = f(slice_get(cx.shared.bytes(), a[l] as usize, bytes));
        slice_put(cx.shared.bytes_mut(), a[l] as usize, bytes, new);
    });
    Ok(())
}
