//! Moves, packing, conversions.

use super::super::ast::Arg;
use super::super::decode::{Cx, Res};
use super::super::inst::*;
use super::super::types::{Space, Ty, W};
use super::{Form, Mods, form, refuse};

pub(super) const FORMS: &[Form] = &[
    form("mov <regty>", "", mov),
    form("cvt rni|rzi|rmi|rpi ftz? sat? u8|u16|u32|u64|s8|s16|s32|s64 f16|bf16|f32|f64", "", |cx, m| {
        cvt(cx, m, true, m.ty(3), m.ty(4))
    }),
    form("cvt rni|rzi|rmi|rpi ftz? sat? f16|bf16|f32|f64 f16|bf16|f32|f64", "", |cx, m| {
        if m.ty(3) != m.ty(4) {
            return refuse(cx);
        }
        cvt(cx, m, true, m.ty(3), m.ty(4))
    }),
    form(
        "cvt <rnd> ftz? sat? f16|bf16|f32|f64 u8|u16|u32|u64|s8|s16|s32|s64|f16|bf16|f32|f64",
        "",
        |cx, m| {
            // A rounding is given exactly where the target cannot hold every value of the source.
            let (to, from) = (m.ty(3), m.ty(4));
            if !from.is_int() && to.bytes() >= from.bytes() && !narrowing(to, from) {
                return refuse(cx);
            }
            cvt(cx, m, false, to, from)
        },
    ),
    form("cvt <rnd> relu f16|bf16 f32", "", |cx, m| {
        let c = Cvt {
            to: m.ty(2),
            from: m.ty(3),
            rnd: m.rnd(0),
            integral: false,
            ftz: false,
            sat: false,
            relu: true,
        };
        convert(cx, c)
    }),
    form(
        "cvt ftz? sat? u8|u16|u32|u64|s8|s16|s32|s64|f16|bf16|f32|f64 u8|u16|u32|u64|s8|s16|s32|s64|f16|bf16|f32|f64",
        "",
        |cx, m| {
            let (to, from) = (m.ty(2), m.ty(3));
            let widening = !to.is_int() && !from.is_int() && (to == from || to.bytes() > from.bytes());
            if !(widening || to.is_int() && from.is_int()) {
                return refuse(cx);
            }
            let c = Cvt {
                to,
                from,
                rnd: super::super::types::Rnd::Rn,
                integral: false,
                ftz: m.has(0),
                sat: m.has(1),
                relu: false,
            };
            convert(cx, c)
        },
    ),
    form("cvt rn|rz relu? f16x2|bf16x2 f32", "", |cx, m| {
        let kind = if m.ty(2) == Ty::F16x2 { HalfKind::F16 } else { HalfKind::Bf16 };
        cx.count(3)?;
        let (d, a, b) = (cx.dst(0, W::W32)?, cx.src(1, Ty::F32)?, cx.src(2, Ty::F32)?);
        cx.emit(Op::CvtPack { kind, rnd: m.rnd(0), relu: m.has(1) }, d, a, b, 0);
        Ok(())
    }),
    form("cvt rna tf32 f32", "", |cx, m| {
        let c = Cvt {
            to: Ty::Tf32,
            from: Ty::F32,
            rnd: m.rnd(0),
            integral: false,
            ftz: false,
            sat: false,
            relu: false,
        };
        convert(cx, c)
    }),
    form("cvta global|const|param u64", "", |cx, m| cvta(cx, m.space(0), true)),
    form("cvta shared|shared::cta|local u64", "", |cx, m| cvta(cx, m.space(0), true)),
    form("cvta to global|shared|shared::cta|local|const|param u64", "", |cx, m| cvta(cx, m.space(1), false)),
    form("isspacep global|shared|shared::cta|local|const|param", "", |cx, m| {
        cx.count(2)?;
        let (d, a) = (cx.pred_dst(0)?, cx.src(1, Ty::U64)?);
        cx.emit(Op::IsSpace(m.space(0)), d, a, 0, 0);
        Ok(())
    }),
];

/// Conversions between formats of one size that lose something.
fn narrowing(to: Ty, from: Ty) -> bool {
    matches!((to, from), (Ty::F16, Ty::Bf16) | (Ty::Bf16, Ty::F16))
}

fn mov(cx: &mut Cx<'_, '_>, m: &Mods<'_>) -> Res<()> {
    let ty = m.ty(0);
    cx.count(2)?;
    match cx.args() {
        [Arg::Vec(parts), _] => {
            let (n, part) = split(cx, ty, parts.len())?;
            let slots = cx.fragment_any(0, n, part)?;
            let a = cx.src(1, ty)?;
            let at = cx.more(&slots);
            cx.emit(Op::Unpack { parts: n as u8, part }, at, a, ty.width() as u32, 0);
        }
        [_, Arg::Vec(parts)] => {
            let (n, part) = split(cx, ty, parts.len())?;
            let d = cx.dst(0, ty.width())?;
            let slots = cx.fragment_any(1, n, part)?;
            let at = cx.more(&slots);
            cx.emit(Op::Pack { parts: n as u8, part }, at, d, ty.width() as u32, 0);
        }
        _ => {
            let (d, a) = (cx.dst(0, ty.width())?, cx.src(1, ty)?);
            let w = if ty.width() == W::W64 { W::W64 } else { W::W32 };
            cx.emit(Op::Mov(w), d, a, 0, 0);
        }
    }
    Ok(())
}

fn split(cx: &Cx<'_, '_>, ty: Ty, n: usize) -> Res<(usize, W)> {
    match (ty.width(), n) {
        (W::W32, 2) => Ok((2, W::W16)),
        (W::W64, 2) => Ok((2, W::W32)),
        (W::W64, 4) => Ok((4, W::W16)),
        _ => refuse(cx),
    }
}

fn cvt(cx: &mut Cx<'_, '_>, m: &Mods<'_>, integral: bool, to: Ty, from: Ty) -> Res<()> {
    let c = Cvt { to, from, rnd: m.rnd(0), integral, ftz: m.has(1), sat: m.has(2), relu: false };
    convert(cx, c)
}

fn convert(cx: &mut Cx<'_, '_>, c: Cvt) -> Res<()> {
    if c.ftz && c.to != Ty::F32 && c.from != Ty::F32 {
        return refuse(cx);
    }
    cx.count(2)?;
    let (d, dw) = cx.dst_wider(0, c.to)?;
    let from = match c.from {
        Ty::F16 | Ty::Bf16 => Ty::B16,
        ty => ty,
    };
    let (a, aw) = cx.src_wider(1, from)?;
    cx.emit(Op::Cvt(c), d, a, dw as u32, aw as u32);
    Ok(())
}

fn cvta(cx: &mut Cx<'_, '_>, space: Space, to_generic: bool) -> Res<()> {
    cx.count(2)?;
    let (d, a) = (cx.dst(0, W::W64)?, cx.src(1, Ty::U64)?);
    let op = match space {
        Space::Shared | Space::Local | Space::Param if to_generic => Op::ToGeneric(space),
        Space::Shared | Space::Local | Space::Param => Op::FromGeneric(space),
        // Global and constant addresses are generic addresses.
        _ => Op::Mov(W::W64),
    };
    cx.emit(op, d, a, 0, 0);
    Ok(())
}
