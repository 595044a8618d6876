//! Loads, stores, atomics, asynchronous copies, prefetches, fences.

use super::super::ast::Arg;
use super::super::decode::{Cx, Res};
use super::super::inst::*;
use super::super::types::{Space, Ty, W};
use super::{Form, Mods, form, refuse};

pub(super) const FORMS: &[Form] = &[
    form(
        "ld weak|volatile? global|shared|shared::cta|local|const|param|param::entry|param::func? ca|cg|cs|lu|cv? <l1>? <l2>? v2|v4? <memty>",
        "cache hints have no effect",
        |cx, m| load(cx, m.space(1), m.str(5), m.ty(6), strong(m)),
    ),
    form("ld relaxed|acquire <scope> global|shared|shared::cta? <l1>? <l2>? v2|v4? <memty>", "", |cx, m| {
        load(cx, m.space(2), m.str(5), m.ty(6), true)
    }),
    form("ld global ca|cg|cs? nc <l1>? <l2>? v2|v4? <memty>", "cache hints have no effect", |cx, m| {
        load(cx, Space::Global, m.str(5), m.ty(6), false)
    }),
    form("ldu global? v2|v4? <memty>", "", |cx, m| load(cx, m.space(0), m.str(1), m.ty(2), false)),
    form(
        "st weak|volatile? global|shared|shared::cta|local|param|param::func? wb|cg|cs|wt? <l1>? v2|v4? <memty>",
        "cache hints have no effect",
        |cx, m| store(cx, m.space(1), m.str(4), m.ty(5), strong(m)),
    ),
    form("st relaxed|release <scope> global|shared|shared::cta? <l1>? v2|v4? <memty>", "", |cx, m| {
        store(cx, m.space(2), m.str(4), m.ty(5), true)
    }),
    form(
        "atom relaxed|acquire|release|acq_rel? <scope>? global|shared|shared::cta? and|or|xor b32|b64",
        "",
        |cx, m| atom(cx, m, true),
    ),
    form(
        "atom relaxed|acquire|release|acq_rel? <scope>? global|shared|shared::cta? cas b16|b32|b64",
        "",
        |cx, m| atom(cx, m, true),
    ),
    form(
        "atom relaxed|acquire|release|acq_rel? <scope>? global|shared|shared::cta? exch b32|b64",
        "",
        |cx, m| atom(cx, m, true),
    ),
    form(
        "atom relaxed|acquire|release|acq_rel? <scope>? global|shared|shared::cta? add u32|s32|u64|f32|f64",
        "lanes in the order of the schedule",
        |cx, m| atom(cx, m, true),
    ),
    form(
        "atom relaxed|acquire|release|acq_rel? <scope>? global|shared|shared::cta? add noftz f16|f16x2|bf16|bf16x2",
        "lanes in the order of the schedule",
        |cx, m| atom(cx, m, true),
    ),
    form(
        "atom relaxed|acquire|release|acq_rel? <scope>? global|shared|shared::cta? inc|dec u32",
        "",
        |cx, m| atom(cx, m, true),
    ),
    form(
        "atom relaxed|acquire|release|acq_rel? <scope>? global|shared|shared::cta? min|max u32|s32|u64|s64",
        "",
        |cx, m| atom(cx, m, true),
    ),
    form("red relaxed|release? <scope>? global|shared|shared::cta? and|or|xor b32|b64", "", |cx, m| {
        atom(cx, m, false)
    }),
    form(
        "red relaxed|release? <scope>? global|shared|shared::cta? add u32|s32|u64|f32|f64",
        "lanes in the order of the schedule",
        |cx, m| atom(cx, m, false),
    ),
    form(
        "red relaxed|release? <scope>? global|shared|shared::cta? add noftz f16|f16x2|bf16|bf16x2",
        "lanes in the order of the schedule",
        |cx, m| atom(cx, m, false),
    ),
    form("red relaxed|release? <scope>? global|shared|shared::cta? inc|dec u32", "", |cx, m| {
        atom(cx, m, false)
    }),
    form("red relaxed|release? <scope>? global|shared|shared::cta? min|max u32|s32|u64|s64", "", |cx, m| {
        atom(cx, m, false)
    }),
    form("cp async ca|cg shared|shared::cta global <l2>?", "copied at the wait", |cx, m| {
        if cx.args().len() != 4 {
            cx.count(3)?;
        }
        let bytes = match (m.str(1), cx.int(2)?) {
            ("ca", n @ (4 | 8 | 16)) => n as u8,
            ("cg", 16) => 16,
            _ => return cx.wrong(2, "4, 8 or 16 bytes (16 for `cg`)"),
        };
        let (to, to_offset, to_wide, _) = cx.addr(0, Space::Shared)?;
        let (from, from_offset, from_wide, _) = cx.addr(1, Space::Global)?;
        let sized = cx.args().len() == 4;
        let c = if sized { cx.src(3, Ty::U32)? } else { 0 };
        let more = cx.more(&[to_offset as u32, from_offset as u32, u32::from(to_wide), u32::from(from_wide)]);
        cx.emit(Op::CpAsync { bytes, sized }, more, to, from, c);
        Ok(())
    }),
    form("cp async commit_group", "", |cx, _| {
        cx.count(0)?;
        cx.emit(Op::CpCommit, 0, 0, 0, 0);
        Ok(())
    }),
    form("cp async wait_group", "", |cx, _| {
        cx.count(1)?;
        let n = cx.int(0)?.min(u64::from(u32::MAX)) as u32;
        cx.emit(Op::CpWait(n), 0, 0, 0, 0);
        Ok(())
    }),
    form("cp async wait_all", "", |cx, _| {
        cx.count(0)?;
        cx.emit(Op::CpCommit, 0, 0, 0, 0);
        cx.emit(Op::CpWait(0), 0, 0, 0, 0);
        Ok(())
    }),
    form("membar cta|gl|sys", "", |cx, m| fence(cx, m.str(0) != "cta")),
    form("fence sc|acq_rel <scope>", "", |cx, m| fence(cx, matches!(m.str(1), "gpu" | "sys" | "cluster"))),
    form("prefetch global|local? L1|L2", "no effect", |cx, m| {
        cx.count(1)?;
        cx.addr(0, m.space(0))?;
        cx.emit(Op::Nop, 0, 0, 0, 0);
        Ok(())
    }),
    form("prefetch global L2::evict_last|L2::evict_normal", "no effect", |cx, m| {
        cx.count(1)?;
        cx.addr(0, m.space(0))?;
        cx.emit(Op::Nop, 0, 0, 0, 0);
        Ok(())
    }),
    form("prefetchu L1", "no effect", |cx, _| {
        cx.count(1)?;
        cx.addr(0, Space::Generic)?;
        cx.emit(Op::Nop, 0, 0, 0, 0);
        Ok(())
    }),
];

/// `volatile` orders blocks, but is no synchronisation between threads that share memory.
fn strong(m: &Mods<'_>) -> bool {
    m.str(0) == "volatile" && m.space(1) != Space::Shared
}

fn lanes(vec: &str) -> u8 {
    match vec {
        "v2" => 2,
        "v4" => 4,
        _ => 1,
    }
}

/// The spaces in which accesses of several blocks may meet.
fn is_device(space: Space) -> bool {
    matches!(space, Space::Global | Space::Generic)
}

fn load(cx: &mut Cx<'_, '_>, space: Space, vec: &str, ty: Ty, strong: bool) -> Res<()> {
    let vec = lanes(vec);
    if ty.bytes() * u32::from(vec) > 16 {
        return refuse(cx);
    }
    cx.count(2)?;
    let (slots, w) = if vec > 1 {
        let (slots, w) = cx.vec_dst(0, ty)?;
        if slots.len() != usize::from(vec) {
            return cx.wrong(0, "a vector of as many registers as the instruction loads");
        }
        (slots, w)
    } else {
        let (slot, w) = cx.dst_wider(0, ty)?;
        (vec![slot], w)
    };
    if space == Space::Param {
        let fixed: Res<Vec<_>> = (0..u32::from(vec)).map(|e| cx.kernel_param(1, ty, e, w)).collect();
        let fixed: Option<Vec<Slot>> = fixed?.into_iter().collect();
        if let Some(values) = fixed {
            for (d, a) in slots.iter().zip(values) {
                cx.emit(Op::Mov(if w == W::W64 { W::W64 } else { W::W32 }), *d, a, 0, 0);
            }
            return Ok(());
        }
    }
    let (a, offset, wide, space) = cx.addr(1, space)?;
    if strong && is_device(space) {
        cx.communicates();
    }
    let d = if vec > 1 { cx.more(&slots) } else { slots[0] };
    cx.emit(Op::Ld(Mem { space, ty, vec, strong, wide }), d, a, offset as u32, w as u32);
    Ok(())
}

fn store(cx: &mut Cx<'_, '_>, space: Space, vec: &str, ty: Ty, strong: bool) -> Res<()> {
    let vec = lanes(vec);
    if ty.bytes() * u32::from(vec) > 16 {
        return refuse(cx);
    }
    cx.count(2)?;
    let (a, offset, wide, space) = cx.addr(0, space)?;
    if matches!(space, Space::Param | Space::Const) {
        return cx.wrong(0, "writable memory");
    }
    let (slots, w) = if vec > 1 {
        let (slots, w) = cx.vec_src(1, ty)?;
        if slots.len() != usize::from(vec) {
            return cx.wrong(1, "a vector of as many registers as the instruction stores");
        }
        (slots, w)
    } else {
        let (slot, w) = cx.src_wider(1, ty)?;
        (vec![slot], w)
    };
    if strong && is_device(space) {
        cx.communicates();
    }
    let d = if vec > 1 { cx.more(&slots) } else { slots[0] };
    cx.emit(Op::St(Mem { space, ty, vec, strong, wide }), d, a, offset as u32, w as u32);
    Ok(())
}

fn atom(cx: &mut Cx<'_, '_>, m: &Mods<'_>, result: bool) -> Res<()> {
    let op = match m.str(3) {
        "and" => AtomOp::And,
        "or" => AtomOp::Or,
        "xor" => AtomOp::Xor,
        "cas" => AtomOp::Cas,
        "exch" => AtomOp::Exch,
        "add" => AtomOp::Add,
        "inc" => AtomOp::Inc,
        "dec" => AtomOp::Dec,
        "min" => AtomOp::Min,
        _ => AtomOp::Max,
    };
    let ty = m.ty(if m.str(4) == "noftz" { 5 } else { 4 });
    let first = usize::from(result);
    let operands = if op == AtomOp::Cas { 2 } else { 1 };
    cx.count(first + 1 + operands)?;
    let bits = match ty {
        Ty::F16 | Ty::Bf16 => Ty::B16,
        Ty::F16x2 | Ty::Bf16x2 => Ty::B32,
        ty => ty,
    };
    // `_` as the result is a reduction.
    let wanted = result && !matches!(cx.args()[0], Arg::Sink);
    let d = if wanted { cx.dst(0, ty.width())? } else { 0 };
    let (a, offset, wide, space) = cx.addr(first, m.space(2))?;
    if matches!(space, Space::Const | Space::Param | Space::Local) {
        return cx.wrong(first, "global or shared memory");
    }
    let b = cx.src(first + 1, bits)?;
    let c = if operands == 2 { cx.src(first + 2, bits)? } else { b };
    if is_device(space) {
        cx.communicates();
    }
    let more = cx.more(&[d, b, c]);
    cx.emit(Op::Atom(Atom { space, ty, op, wide, result: wanted }), more, a, offset as u32, 0);
    Ok(())
}

fn fence(cx: &mut Cx<'_, '_>, device: bool) -> Res<()> {
    cx.count(0)?;
    cx.emit(Op::Fence { device }, 0, 0, 0, 0);
    Ok(())
}
