//! Floating-point arithmetic: f32, f64, f16 and bf16, packed or not.

use super::super::decode::{Cx, Res};
use super::super::inst::*;
use super::super::types::{Rnd, Ty, W};
use super::{Form, Mods, form};

const APPROX: &str = "computed in f64 and rounded; hardware's last bits differ";

pub(super) const FORMS: &[Form] = &[
    form("add <rnd>? ftz? sat? f32", "", |cx, m| f32_two(cx, F2::Add, m)),
    form("sub <rnd>? ftz? sat? f32", "", |cx, m| f32_two(cx, F2::Sub, m)),
    form("mul <rnd>? ftz? sat? f32", "", |cx, m| f32_two(cx, F2::Mul, m)),
    form("fma <rnd> ftz? sat? f32", "", f32_fma),
    form("mad <rnd> ftz? sat? f32", "", f32_fma),
    form("div <rnd> ftz? f32", "", |cx, m| {
        f32_op(cx, F2::Div, Fm { rnd: m.rnd(0), ftz: m.has(1), sat: false })
    }),
    form("div approx ftz? f32", APPROX, |cx, m| f32_op(cx, F2::DivApprox, Fm { ftz: m.has(1), ..Fm::PLAIN })),
    form("div full ftz? f32", APPROX, |cx, m| f32_op(cx, F2::DivFull, Fm { ftz: m.has(1), ..Fm::PLAIN })),
    form("min ftz? NaN? f32", "", |cx, m| {
        let op = if m.has(1) { F2::MinNan } else { F2::Min };
        f32_op(cx, op, Fm { ftz: m.has(0), ..Fm::PLAIN })
    }),
    form("max ftz? NaN? f32", "", |cx, m| {
        let op = if m.has(1) { F2::MaxNan } else { F2::Max };
        f32_op(cx, op, Fm { ftz: m.has(0), ..Fm::PLAIN })
    }),
    form("min ftz? NaN? xorsign abs f32", "", |cx, m| {
        let op = if m.has(1) { F2::MinNanXorsign } else { F2::MinXorsign };
        f32_op(cx, op, Fm { ftz: m.has(0), ..Fm::PLAIN })
    }),
    form("max ftz? NaN? xorsign abs f32", "", |cx, m| {
        let op = if m.has(1) { F2::MaxNanXorsign } else { F2::MaxXorsign };
        f32_op(cx, op, Fm { ftz: m.has(0), ..Fm::PLAIN })
    }),
    form("copysign f32", "", |cx, _| f32_op(cx, F2::CopySign, Fm::PLAIN)),
    form("neg ftz? f32", "", |cx, m| f32_one(cx, F1::Neg, Fm { ftz: m.has(0), ..Fm::PLAIN })),
    form("abs ftz? f32", "", |cx, m| f32_one(cx, F1::Abs, Fm { ftz: m.has(0), ..Fm::PLAIN })),
    form("sqrt <rnd> ftz? f32", "", |cx, m| {
        f32_one(cx, F1::Sqrt, Fm { rnd: m.rnd(0), ftz: m.has(1), sat: false })
    }),
    form("rcp <rnd> ftz? f32", "", |cx, m| {
        f32_one(cx, F1::Rcp, Fm { rnd: m.rnd(0), ftz: m.has(1), sat: false })
    }),
    form("sqrt approx ftz? f32", APPROX, |cx, m| approx(cx, F1::SqrtApprox, m)),
    form("rcp approx ftz? f32", APPROX, |cx, m| approx(cx, F1::RcpApprox, m)),
    form("rsqrt approx ftz? f32", APPROX, |cx, m| approx(cx, F1::RsqrtApprox, m)),
    form("sin approx ftz? f32", APPROX, |cx, m| approx(cx, F1::Sin, m)),
    form("cos approx ftz? f32", APPROX, |cx, m| approx(cx, F1::Cos, m)),
    form("lg2 approx ftz? f32", APPROX, |cx, m| approx(cx, F1::Lg2, m)),
    form("ex2 approx ftz? f32", APPROX, |cx, m| approx(cx, F1::Ex2, m)),
    form("tanh approx f32", APPROX, |cx, _| f32_one(cx, F1::Tanh, Fm::PLAIN)),
    form("testp finite|infinite|number|notanumber|normal|subnormal f32|f64", "", |cx, m| {
        let test = match m.str(0) {
            "finite" => Testp::Finite,
            "infinite" => Testp::Infinite,
            "number" => Testp::Number,
            "notanumber" => Testp::NotANumber,
            "normal" => Testp::Normal,
            _ => Testp::Subnormal,
        };
        let ty = m.ty(1);
        cx.count(2)?;
        let (d, a) = (cx.pred_dst(0)?, cx.src(1, ty)?);
        cx.emit(Op::Testp(test, ty.width()), d, a, 0, 0);
        Ok(())
    }),
    form("add <rnd>? f64", "", |cx, m| f64_op(cx, F2::Add, m.rnd(0))),
    form("sub <rnd>? f64", "", |cx, m| f64_op(cx, F2::Sub, m.rnd(0))),
    form("mul <rnd>? f64", "", |cx, m| f64_op(cx, F2::Mul, m.rnd(0))),
    form("fma <rnd> f64", "", f64_fma),
    form("mad <rnd> f64", "", f64_fma),
    form("div <rnd> f64", "", |cx, m| f64_op(cx, F2::Div, m.rnd(0))),
    form("min f64", "", |cx, _| f64_op(cx, F2::Min, Rnd::Rn)),
    form("max f64", "", |cx, _| f64_op(cx, F2::Max, Rnd::Rn)),
    form("copysign f64", "", |cx, _| f64_op(cx, F2::CopySign, Rnd::Rn)),
    form("neg f64", "", |cx, _| f64_one(cx, F1::Neg, Rnd::Rn)),
    form("abs f64", "", |cx, _| f64_one(cx, F1::Abs, Rnd::Rn)),
    form("sqrt <rnd> f64", "", |cx, m| f64_one(cx, F1::Sqrt, m.rnd(0))),
    form("rcp <rnd> f64", "", |cx, m| f64_one(cx, F1::Rcp, m.rnd(0))),
    form("rcp approx ftz f64", APPROX, |cx, _| f64_one(cx, F1::RcpApprox, Rnd::Rn)),
    form("rsqrt approx ftz? f64", APPROX, |cx, _| f64_one(cx, F1::RsqrtApprox, Rnd::Rn)),
    form("add rn? ftz? sat? <half>", "", |cx, m| {
        half_two(cx, F2::Add, half(m.ty(3), m.has(1), m.has(2), false))
    }),
    form("sub rn? ftz? sat? <half>", "", |cx, m| {
        half_two(cx, F2::Sub, half(m.ty(3), m.has(1), m.has(2), false))
    }),
    form("mul rn? ftz? sat? <half>", "", |cx, m| {
        half_two(cx, F2::Mul, half(m.ty(3), m.has(1), m.has(2), false))
    }),
    form("add rn? <bhalf>", "", |cx, m| half_two(cx, F2::Add, half(m.ty(1), false, false, false))),
    form("sub rn? <bhalf>", "", |cx, m| half_two(cx, F2::Sub, half(m.ty(1), false, false, false))),
    form("mul rn? <bhalf>", "", |cx, m| half_two(cx, F2::Mul, half(m.ty(1), false, false, false))),
    form("fma rn ftz? sat? <half>", "", |cx, m| half_fma(cx, half(m.ty(3), m.has(1), m.has(2), false))),
    form("fma rn ftz? relu <half>", "", |cx, m| half_fma(cx, half(m.ty(3), m.has(1), false, true))),
    form("fma rn relu? <bhalf>", "", |cx, m| half_fma(cx, half(m.ty(2), false, false, m.has(1)))),
    form("neg ftz? <half>", "", |cx, m| half_one(cx, F1::Neg, half(m.ty(1), m.has(0), false, false))),
    form("abs ftz? <half>", "", |cx, m| half_one(cx, F1::Abs, half(m.ty(1), m.has(0), false, false))),
    form("neg <bhalf>", "", |cx, m| half_one(cx, F1::Neg, half(m.ty(0), false, false, false))),
    form("abs <bhalf>", "", |cx, m| half_one(cx, F1::Abs, half(m.ty(0), false, false, false))),
    form("min ftz? NaN? <half>", "", |cx, m| half_minmax(cx, m, F2::Min, F2::MinNan)),
    form("max ftz? NaN? <half>", "", |cx, m| half_minmax(cx, m, F2::Max, F2::MaxNan)),
    form("min ftz? NaN? xorsign abs <half>", "", |cx, m| {
        half_xorsign(cx, m, F2::MinXorsign, F2::MinNanXorsign)
    }),
    form("max ftz? NaN? xorsign abs <half>", "", |cx, m| {
        half_xorsign(cx, m, F2::MaxXorsign, F2::MaxNanXorsign)
    }),
    form("min NaN? <bhalf>", "", |cx, m| bf_minmax(cx, m, F2::Min, F2::MinNan)),
    form("max NaN? <bhalf>", "", |cx, m| bf_minmax(cx, m, F2::Max, F2::MaxNan)),
    form("ex2 approx <half>", APPROX, |cx, m| half_one(cx, F1::Ex2, half(m.ty(1), false, false, false))),
    form("ex2 approx ftz <anyhalf>", APPROX, |cx, m| {
        half_one(cx, F1::Ex2, half(m.ty(2), true, false, false))
    }),
    form("tanh approx <anyhalf>", APPROX, |cx, m| half_one(cx, F1::Tanh, half(m.ty(1), false, false, false))),
];

fn f32_op(cx: &mut Cx<'_, '_>, op: F2, fm: Fm) -> Res<()> {
    cx.count(3)?;
    let (d, a, b) = (cx.dst(0, W::W32)?, cx.src(1, Ty::F32)?, cx.src(2, Ty::F32)?);
    cx.emit(Op::F32(op, fm), d, a, b, 0);
    Ok(())
}

fn f32_two(cx: &mut Cx<'_, '_>, op: F2, m: &Mods<'_>) -> Res<()> {
    f32_op(cx, op, Fm { rnd: m.rnd(0), ftz: m.has(1), sat: m.has(2) })
}

fn f32_fma(cx: &mut Cx<'_, '_>, m: &Mods<'_>) -> Res<()> {
    cx.count(4)?;
    let d = cx.dst(0, W::W32)?;
    let (a, b, c) = (cx.src(1, Ty::F32)?, cx.src(2, Ty::F32)?, cx.src(3, Ty::F32)?);
    cx.emit(Op::F32Fma(Fm { rnd: m.rnd(0), ftz: m.has(1), sat: m.has(2) }), d, a, b, c);
    Ok(())
}

fn f32_one(cx: &mut Cx<'_, '_>, op: F1, fm: Fm) -> Res<()> {
    cx.count(2)?;
    let (d, a) = (cx.dst(0, W::W32)?, cx.src(1, Ty::F32)?);
    cx.emit(Op::F32One(op, fm), d, a, 0, 0);
    Ok(())
}

fn approx(cx: &mut Cx<'_, '_>, op: F1, m: &Mods<'_>) -> Res<()> {
    f32_one(cx, op, Fm { ftz: m.has(1), ..Fm::PLAIN })
}

fn f64_op(cx: &mut Cx<'_, '_>, op: F2, rnd: Rnd) -> Res<()> {
    cx.count(3)?;
    let (d, a, b) = (cx.dst(0, W::W64)?, cx.src(1, Ty::F64)?, cx.src(2, Ty::F64)?);
    cx.emit(Op::F64(op, rnd), d, a, b, 0);
    Ok(())
}

fn f64_fma(cx: &mut Cx<'_, '_>, m: &Mods<'_>) -> Res<()> {
    cx.count(4)?;
    let d = cx.dst(0, W::W64)?;
    let (a, b, c) = (cx.src(1, Ty::F64)?, cx.src(2, Ty::F64)?, cx.src(3, Ty::F64)?);
    cx.emit(Op::F64Fma(m.rnd(0)), d, a, b, c);
    Ok(())
}

fn f64_one(cx: &mut Cx<'_, '_>, op: F1, rnd: Rnd) -> Res<()> {
    cx.count(2)?;
    let (d, a) = (cx.dst(0, W::W64)?, cx.src(1, Ty::F64)?);
    cx.emit(Op::F64One(op, rnd), d, a, 0, 0);
    Ok(())
}

fn half(ty: Ty, ftz: bool, sat: bool, relu: bool) -> (Ty, Half) {
    let kind = if matches!(ty, Ty::F16 | Ty::F16x2) { HalfKind::F16 } else { HalfKind::Bf16 };
    (ty, Half { kind, packed: matches!(ty, Ty::F16x2 | Ty::Bf16x2), ftz, sat, relu })
}

/// The untyped operand of the same size: f16 immediates are written as bits.
fn bits(ty: Ty) -> Ty {
    if ty.bytes() == 4 { Ty::B32 } else { Ty::B16 }
}

fn half_two(cx: &mut Cx<'_, '_>, op: F2, (ty, h): (Ty, Half)) -> Res<()> {
    cx.count(3)?;
    let (d, a, b) = (cx.dst(0, ty.width())?, cx.src(1, bits(ty))?, cx.src(2, bits(ty))?);
    cx.emit(Op::Half2(op, h), d, a, b, 0);
    Ok(())
}

fn half_fma(cx: &mut Cx<'_, '_>, (ty, h): (Ty, Half)) -> Res<()> {
    cx.count(4)?;
    let d = cx.dst(0, ty.width())?;
    let (a, b, c) = (cx.src(1, bits(ty))?, cx.src(2, bits(ty))?, cx.src(3, bits(ty))?);
    cx.emit(Op::HalfFma(h), d, a, b, c);
    Ok(())
}

fn half_one(cx: &mut Cx<'_, '_>, op: F1, (ty, h): (Ty, Half)) -> Res<()> {
    cx.count(2)?;
    let (d, a) = (cx.dst(0, ty.width())?, cx.src(1, bits(ty))?);
    cx.emit(Op::HalfOne(op, h), d, a, 0, 0);
    Ok(())
}

fn half_minmax(cx: &mut Cx<'_, '_>, m: &Mods<'_>, plain: F2, nan: F2) -> Res<()> {
    half_two(cx, if m.has(1) { nan } else { plain }, half(m.ty(2), m.has(0), false, false))
}

fn half_xorsign(cx: &mut Cx<'_, '_>, m: &Mods<'_>, plain: F2, nan: F2) -> Res<()> {
    half_two(cx, if m.has(1) { nan } else { plain }, half(m.ty(4), m.has(0), false, false))
}

fn bf_minmax(cx: &mut Cx<'_, '_>, m: &Mods<'_>, plain: F2, nan: F2) -> Res<()> {
    half_two(cx, if m.has(0) { nan } else { plain }, half(m.ty(1), false, false, false))
}
