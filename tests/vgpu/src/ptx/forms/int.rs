//! Integer arithmetic, bit operations, predicates, comparisons, selections.

use super::super::decode::{Cx, Res};
use super::super::inst::*;
use super::super::types::{Bool, Ty, W};
use super::{Form, Mods, form, refuse};

pub(super) const FORMS: &[Form] = &[
    form("add <int>", "", |cx, m| two(cx, I2::Add, m.ty(0))),
    form("add sat s32", "", |cx, m| two(cx, I2::AddSat, m.ty(1))),
    form("sub <int>", "", |cx, m| two(cx, I2::Sub, m.ty(0))),
    form("sub sat s32", "", |cx, m| two(cx, I2::SubSat, m.ty(1))),
    form("add cc u32|s32|u64|s64", "", |cx, m| carry(cx, m.ty(1), false, false, true)),
    form("addc cc? u32|s32|u64|s64", "", |cx, m| carry(cx, m.ty(1), false, true, m.has(0))),
    form("sub cc u32|s32|u64|s64", "", |cx, m| carry(cx, m.ty(1), true, false, true)),
    form("subc cc? u32|s32|u64|s64", "", |cx, m| carry(cx, m.ty(1), true, true, m.has(0))),
    form("mul lo <int>", "", |cx, m| two(cx, I2::Mul, m.ty(1))),
    form("mul hi <int>", "", |cx, m| {
        let ty = m.ty(1);
        two(cx, if ty.signed() { I2::MulHiS } else { I2::MulHiU }, ty)
    }),
    form("mul wide u16|s16|u32|s32", "", |cx, m| {
        let (ty, wide) = (m.ty(1), widened(m.ty(1)));
        cx.count(3)?;
        let (d, a, b) = (cx.dst(0, wide.width())?, cx.src(1, ty)?, cx.src(2, ty)?);
        cx.emit(Op::MulWide(ty.signed(), ty.width()), d, a, b, 0);
        Ok(())
    }),
    form("mul24 lo|hi u32|s32", "", |cx, m| {
        let op = match (m.str(0), m.ty(1).signed()) {
            ("lo", true) => I2::Mul24LoS,
            ("lo", false) => I2::Mul24LoU,
            (_, true) => I2::Mul24HiS,
            (_, false) => I2::Mul24HiU,
        };
        two(cx, op, m.ty(1))
    }),
    form("mad lo <int>", "", |cx, m| three(cx, I3::Mad, m.ty(1))),
    form("mad hi <int>", "", |cx, m| {
        let ty = m.ty(1);
        three(cx, if ty.signed() { I3::MadHiS } else { I3::MadHiU }, ty)
    }),
    form("mad hi sat s32", "", |cx, m| three(cx, I3::MadHiSat, m.ty(2))),
    form("mad wide u16|s16|u32|s32", "", |cx, m| {
        let (ty, wide) = (m.ty(1), widened(m.ty(1)));
        cx.count(4)?;
        let (d, a, b, c) = (cx.dst(0, wide.width())?, cx.src(1, ty)?, cx.src(2, ty)?, cx.src(3, wide)?);
        cx.emit(Op::MadWide(ty.signed(), ty.width()), d, a, b, c);
        Ok(())
    }),
    form("mad lo|hi cc u32|s32", "", |cx, m| mad_carry(cx, m.str(0), m.ty(2), false, true)),
    form("madc lo|hi cc? u32|s32", "", |cx, m| mad_carry(cx, m.str(0), m.ty(2), true, m.has(1))),
    form("mad24 lo|hi u32|s32", "", |cx, m| {
        let op = match (m.str(0), m.ty(1).signed()) {
            ("lo", true) => I3::Mad24LoS,
            ("lo", false) => I3::Mad24LoU,
            (_, true) => I3::Mad24HiS,
            (_, false) => I3::Mad24HiU,
        };
        three(cx, op, m.ty(1))
    }),
    form("sad <int>", "", |cx, m| three(cx, if m.ty(0).signed() { I3::SadS } else { I3::SadU }, m.ty(0))),
    form("div <int>", "by zero, which the ISA leaves open: all ones", |cx, m| {
        two(cx, if m.ty(0).signed() { I2::DivS } else { I2::DivU }, m.ty(0))
    }),
    form("rem <int>", "by zero, which the ISA leaves open: the dividend", |cx, m| {
        two(cx, if m.ty(0).signed() { I2::RemS } else { I2::RemU }, m.ty(0))
    }),
    form("abs s16|s32|s64", "", |cx, m| one(cx, I1::Abs, m.ty(0))),
    form("neg s16|s32|s64", "", |cx, m| one(cx, I1::Neg, m.ty(0))),
    form("min <int>", "", |cx, m| two(cx, if m.ty(0).signed() { I2::MinS } else { I2::MinU }, m.ty(0))),
    form("max <int>", "", |cx, m| two(cx, if m.ty(0).signed() { I2::MaxS } else { I2::MaxU }, m.ty(0))),
    form("popc b32|b64", "", |cx, m| counted(cx, I1::Popc, m.ty(0))),
    form("clz b32|b64", "", |cx, m| counted(cx, I1::Clz, m.ty(0))),
    form("bfind shiftamt? u32|u64|s32|s64", "", |cx, m| {
        let op = match (m.has(0), m.ty(1).signed()) {
            (false, true) => I1::BfindS,
            (false, false) => I1::BfindU,
            (true, true) => I1::BfindShiftS,
            (true, false) => I1::BfindShiftU,
        };
        counted(cx, op, m.ty(1))
    }),
    form("brev b32|b64", "", |cx, m| one(cx, I1::Brev, m.ty(0))),
    form("bfe u32|u64|s32|s64", "", |cx, m| {
        let ty = m.ty(0);
        cx.count(4)?;
        let (d, a) = (cx.dst(0, ty.width())?, cx.src(1, ty)?);
        let (b, c) = (cx.src(2, Ty::U32)?, cx.src(3, Ty::U32)?);
        cx.emit(Op::Int3(if ty.signed() { I3::BfeS } else { I3::BfeU }, ty.width()), d, a, b, c);
        Ok(())
    }),
    form("bfi b32|b64", "", |cx, m| {
        let ty = m.ty(0);
        cx.count(5)?;
        let d = cx.dst(0, ty.width())?;
        let rest = [cx.src(1, ty)?, cx.src(2, ty)?, cx.src(3, Ty::U32)?, cx.src(4, Ty::U32)?];
        let at = cx.more(&rest);
        cx.emit(Op::Bfi(ty.width()), d, at, 0, 0);
        Ok(())
    }),
    form("bmsk clamp|wrap b32", "", |cx, m| {
        two(cx, if m.str(0) == "clamp" { I2::BmskClamp } else { I2::BmskWrap }, m.ty(1))
    }),
    form("szext clamp|wrap u32|s32", "", |cx, m| {
        let op = match (m.str(0), m.ty(1).signed()) {
            ("clamp", true) => I2::SzextClampS,
            ("clamp", false) => I2::SzextClampU,
            (_, true) => I2::SzextWrapS,
            (_, false) => I2::SzextWrapU,
        };
        two(cx, op, m.ty(1))
    }),
    form("prmt b32 f4e|b4e|rc8|ecl|ecr|rc16?", "", |cx, m| {
        let mode = match m.str(1) {
            "f4e" => Prmt::F4e,
            "b4e" => Prmt::B4e,
            "rc8" => Prmt::Rc8,
            "ecl" => Prmt::Ecl,
            "ecr" => Prmt::Ecr,
            "rc16" => Prmt::Rc16,
            _ => Prmt::Index,
        };
        cx.count(4)?;
        let d = cx.dst(0, W::W32)?;
        let (a, b, c) = (cx.src(1, Ty::B32)?, cx.src(2, Ty::B32)?, cx.src(3, Ty::B32)?);
        cx.emit(Op::Prmt(mode), d, a, b, c);
        Ok(())
    }),
    form("shf l|r clamp|wrap b32", "", |cx, m| {
        let op = match (m.str(0), m.str(1)) {
            ("l", "clamp") => I3::ShfLClamp,
            ("l", _) => I3::ShfLWrap,
            (_, "clamp") => I3::ShfRClamp,
            _ => I3::ShfRWrap,
        };
        three(cx, op, m.ty(2))
    }),
    form("shl <bits>", "", |cx, m| shift(cx, I2::Shl, m.ty(0))),
    form("shr b16|b32|b64|u16|u32|u64|s16|s32|s64", "", |cx, m| {
        shift(cx, if m.ty(0).signed() { I2::ShrS } else { I2::ShrU }, m.ty(0))
    }),
    form("lop3 b32", "", |cx, _| {
        cx.count(5)?;
        let d = cx.dst(0, W::W32)?;
        let (a, b, c) = (cx.src(1, Ty::B32)?, cx.src(2, Ty::B32)?, cx.src(3, Ty::B32)?);
        let table = match cx.int(4)? {
            v @ 0..=255 => v as u8,
            _ => return cx.wrong(4, "a table of 8 bits"),
        };
        cx.emit(Op::Lop3(table), d, a, b, c);
        Ok(())
    }),
    form("and <bits>", "", |cx, m| two(cx, I2::And, m.ty(0))),
    form("or <bits>", "", |cx, m| two(cx, I2::Or, m.ty(0))),
    form("xor <bits>", "", |cx, m| two(cx, I2::Xor, m.ty(0))),
    form("not <bits>", "", |cx, m| one(cx, I1::Not, m.ty(0))),
    form("cnot <bits>", "", |cx, m| one(cx, I1::Cnot, m.ty(0))),
    form("and pred", "", |cx, _| predicates(cx, Op::PredAnd)),
    form("or pred", "", |cx, _| predicates(cx, Op::PredOr)),
    form("xor pred", "", |cx, _| predicates(cx, Op::PredXor)),
    form("not pred", "", |cx, _| predicate(cx, Op::PredNot)),
    form("mov pred", "", |cx, _| predicate(cx, Op::PredMov)),
    form("dp4a u32|s32 u32|s32", "", |cx, m| {
        let (a, b) = (m.ty(0).signed(), m.ty(1).signed());
        three(cx, I3::Dp4a { a, b }, Ty::B32)
    }),
    form("dp2a lo|hi u32|s32 u32|s32", "", |cx, m| {
        let (a, b) = (m.ty(1).signed(), m.ty(2).signed());
        let op = if m.str(0) == "lo" { I3::Dp2aLo { a, b } } else { I3::Dp2aHi { a, b } };
        three(cx, op, Ty::B32)
    }),
    form("setp <cmp> <cmpty>", "", |cx, m| setp(cx, m, None, false, m.ty(1))),
    form("setp <cmp> ftz f32", "", |cx, m| setp(cx, m, None, true, m.ty(2))),
    form("setp <cmp> and|or|xor <cmpty>", "", |cx, m| setp(cx, m, m.bool(1), false, m.ty(2))),
    form("setp <cmp> and|or|xor ftz f32", "", |cx, m| setp(cx, m, m.bool(1), true, m.ty(3))),
    form("setp <cmp> ftz? <anyhalf>", "", |cx, m| setp(cx, m, None, m.has(1), m.ty(2))),
    form("setp <cmp> and|or|xor ftz? <anyhalf>", "", |cx, m| setp(cx, m, m.bool(1), m.has(2), m.ty(3))),
    form("set <cmp> ftz? u32|s32|f32 <cmpty>", "", |cx, m| set(cx, m, None, m.has(1), m.ty(2), m.ty(3))),
    form("set <cmp> and|or|xor ftz? u32|s32|f32 <cmpty>", "", |cx, m| {
        set(cx, m, m.bool(1), m.has(2), m.ty(3), m.ty(4))
    }),
    form("set <cmp> ftz? u16|s16|u32|s32|f16|bf16 f16|bf16", "", |cx, m| {
        set(cx, m, None, m.has(1), m.ty(2), m.ty(3))
    }),
    form("set <cmp> and|or|xor ftz? u16|s16|u32|s32|f16|bf16 f16|bf16", "", |cx, m| {
        set(cx, m, m.bool(1), m.has(2), m.ty(3), m.ty(4))
    }),
    form("set <cmp> ftz? f16x2 f16x2", "", |cx, m| set(cx, m, None, m.has(1), m.ty(2), m.ty(3))),
    form("set <cmp> bf16x2 bf16x2", "", |cx, m| set(cx, m, None, false, m.ty(1), m.ty(2))),
    form("selp <regty>", "", |cx, m| {
        let ty = m.ty(0);
        cx.count(4)?;
        let (d, a, b, p) = (cx.dst(0, ty.width())?, cx.src(1, ty)?, cx.src(2, ty)?, cx.pred_src(3)?);
        let w = if ty.width() == W::W64 { W::W64 } else { W::W32 };
        cx.emit(Op::Selp(w), d, a, b, p);
        Ok(())
    }),
    form("slct <regty> s32", "", |cx, m| slct(cx, m.ty(0), Ty::S32, false)),
    form("slct ftz? <regty> f32", "", |cx, m| slct(cx, m.ty(1), Ty::F32, m.has(0))),
];

fn widened(ty: Ty) -> Ty {
    match ty {
        Ty::U16 => Ty::U32,
        Ty::S16 => Ty::S32,
        Ty::U32 => Ty::U64,
        _ => Ty::S64,
    }
}

fn one(cx: &mut Cx<'_, '_>, op: I1, ty: Ty) -> Res<()> {
    cx.count(2)?;
    let (d, a) = (cx.dst(0, ty.width())?, cx.src(1, ty)?);
    cx.emit(Op::Int1(op, ty.width()), d, a, 0, 0);
    Ok(())
}

/// The result is a 32-bit number whatever the operand.
fn counted(cx: &mut Cx<'_, '_>, op: I1, ty: Ty) -> Res<()> {
    cx.count(2)?;
    let (d, a) = (cx.dst(0, W::W32)?, cx.src(1, ty)?);
    cx.emit(Op::Int1(op, ty.width()), d, a, 0, 0);
    Ok(())
}

fn two(cx: &mut Cx<'_, '_>, op: I2, ty: Ty) -> Res<()> {
    cx.count(3)?;
    let (d, a, b) = (cx.dst(0, ty.width())?, cx.src(1, ty)?, cx.src(2, ty)?);
    cx.emit(Op::Int2(op, ty.width()), d, a, b, 0);
    Ok(())
}

fn three(cx: &mut Cx<'_, '_>, op: I3, ty: Ty) -> Res<()> {
    cx.count(4)?;
    let (d, a, b, c) = (cx.dst(0, ty.width())?, cx.src(1, ty)?, cx.src(2, ty)?, cx.src(3, ty)?);
    cx.emit(Op::Int3(op, ty.width()), d, a, b, c);
    Ok(())
}

fn shift(cx: &mut Cx<'_, '_>, op: I2, ty: Ty) -> Res<()> {
    cx.count(3)?;
    let (d, a, b) = (cx.dst(0, ty.width())?, cx.src(1, ty)?, cx.src(2, Ty::U32)?);
    cx.emit(Op::Int2(op, ty.width()), d, a, b, 0);
    Ok(())
}

fn carry(cx: &mut Cx<'_, '_>, ty: Ty, sub: bool, cin: bool, cout: bool) -> Res<()> {
    cx.count(3)?;
    let (d, a, b) = (cx.dst(0, ty.width())?, cx.src(1, ty)?, cx.src(2, ty)?);
    cx.emit(Op::Carry { sub, cin, cout, w: ty.width() }, d, a, b, 0);
    Ok(())
}

fn mad_carry(cx: &mut Cx<'_, '_>, half: &str, ty: Ty, cin: bool, cout: bool) -> Res<()> {
    cx.count(4)?;
    let (d, a, b, c) = (cx.dst(0, W::W32)?, cx.src(1, ty)?, cx.src(2, ty)?, cx.src(3, ty)?);
    cx.emit(Op::MadCarry { hi: half == "hi", signed: ty.signed(), cin, cout }, d, a, b, c);
    Ok(())
}

fn predicates(cx: &mut Cx<'_, '_>, op: Op) -> Res<()> {
    cx.count(3)?;
    let (d, a, b) = (cx.pred_dst(0)?, cx.pred_src(1)?, cx.pred_src(2)?);
    cx.emit(op, d, a, b, 0);
    Ok(())
}

fn predicate(cx: &mut Cx<'_, '_>, op: Op) -> Res<()> {
    cx.count(2)?;
    let (d, a) = (cx.pred_dst(0)?, cx.pred_src(1)?);
    cx.emit(op, d, a, 0, 0);
    Ok(())
}

fn setp(cx: &mut Cx<'_, '_>, m: &Mods<'_>, comb: Option<Bool>, ftz: bool, ty: Ty) -> Res<()> {
    let Some(cmp) = m.cmp(0, ty) else { return refuse(cx) };
    if ftz && matches!(ty, Ty::Bf16 | Ty::Bf16x2) {
        return refuse(cx);
    }
    cx.count(if comb.is_some() { 4 } else { 3 })?;
    let (d, a, b) = (cx.pred_pair(0)?, cx.src(1, bits_of(ty))?, cx.src(2, bits_of(ty))?);
    let c = if comb.is_some() { cx.pred_src(3)? } else { TRUE };
    let compare = Compare { ty, cmp, ftz };
    let packed = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
    cx.emit(if packed { Op::SetpPacked(compare, comb) } else { Op::Setp(compare, comb) }, d, a, b, c);
    Ok(())
}

fn set(cx: &mut Cx<'_, '_>, m: &Mods<'_>, comb: Option<Bool>, ftz: bool, to: Ty, ty: Ty) -> Res<()> {
    let Some(cmp) = m.cmp(0, ty) else { return refuse(cx) };
    if ftz && !matches!(ty, Ty::F32 | Ty::F16 | Ty::F16x2) {
        return refuse(cx);
    }
    cx.count(if comb.is_some() { 4 } else { 3 })?;
    let (d, a, b) = (cx.dst(0, to.width())?, cx.src(1, bits_of(ty))?, cx.src(2, bits_of(ty))?);
    let c = if comb.is_some() { cx.pred_src(3)? } else { TRUE };
    cx.emit(Op::Set { cmp: Compare { ty, cmp, ftz }, comb, to }, d, a, b, c);
    Ok(())
}

/// 16-bit floats have immediates by their bits only.
fn bits_of(ty: Ty) -> Ty {
    match ty {
        Ty::F16 | Ty::Bf16 => Ty::B16,
        Ty::F16x2 | Ty::Bf16x2 => Ty::B32,
        ty => ty,
    }
}

fn slct(cx: &mut Cx<'_, '_>, ty: Ty, by: Ty, ftz: bool) -> Res<()> {
    cx.count(4)?;
    let (d, a, b, c) = (cx.dst(0, ty.width())?, cx.src(1, ty)?, cx.src(2, ty)?, cx.src(3, by)?);
    let w = if ty.width() == W::W64 { W::W64 } else { W::W32 };
    cx.emit(Op::Slct { w, float: by == Ty::F32, ftz }, d, a, b, c);
    Ok(())
}
