//! Matrix instructions: `ldmatrix`, `mma.sync`, `wmma`.

use super::super::decode::{Cx, Res};
use super::super::inst::*;
use super::super::types::{Space, Ty, W};
use super::{Form, Mods, form, refuse};

const SUMS: &str = "products exact, summed in f64, rounded once; hardware's sums differ in the last bits";
const LAYOUT: &str = "fragments have this device's own layout";

pub(super) const FORMS: &[Form] = &[
    form("ldmatrix sync aligned m8n8 x1|x2|x4 trans? shared|shared::cta b16", "", |cx, m| {
        let count = match m.str(3) {
            "x1" => 1,
            "x2" => 2,
            _ => 4,
        };
        cx.count(2)?;
        let slots = cx.fragment(0, count, W::W32)?;
        let (a, offset, wide, _) = cx.addr(1, Space::Shared)?;
        let at = cx.more(&slots);
        cx.emit(Op::LdMatrix { count: count as u8, trans: m.has(4), wide }, at, a, offset as u32, 0);
        Ok(())
    }),
    form("movmatrix sync aligned m8n8 trans b16", "", |cx, _| {
        cx.count(2)?;
        let (d, a) = (cx.dst(0, W::W32)?, cx.src(1, Ty::B32)?);
        cx.emit(Op::MovMatrix, d, a, 0, 0);
        Ok(())
    }),
    form("mma sync aligned m16n8k8 row col f16|f32 f16 f16 f16|f32", SUMS, |cx, m| {
        mma(cx, m, MmaShape::M16N8K8)
    }),
    form("mma sync aligned m16n8k16 row col f16|f32 f16 f16 f16|f32", SUMS, |cx, m| {
        mma(cx, m, MmaShape::M16N8K16)
    }),
    form("mma sync aligned m16n8k8 row col f32 bf16 bf16 f32", SUMS, |cx, m| mma(cx, m, MmaShape::M16N8K8)),
    form("mma sync aligned m16n8k16 row col f32 bf16 bf16 f32", SUMS, |cx, m| mma(cx, m, MmaShape::M16N8K16)),
    form("mma sync aligned m16n8k4 row col f32 tf32 tf32 f32", SUMS, |cx, m| mma(cx, m, MmaShape::M16N8K4)),
    form("mma sync aligned m16n8k8 row col f32 tf32 tf32 f32", SUMS, |cx, m| mma(cx, m, MmaShape::M16N8K8)),
    form(
        "wmma load a|b sync aligned row|col m16n16k16|m32n8k16|m8n32k16 global|shared|shared::cta? f16|bf16",
        LAYOUT,
        wmma_load,
    ),
    form("wmma load a|b sync aligned row|col m16n16k8 global|shared|shared::cta? tf32", LAYOUT, wmma_load),
    form(
        "wmma load c sync aligned row|col m16n16k16|m32n8k16|m8n32k16 global|shared|shared::cta? f16|f32",
        LAYOUT,
        wmma_load,
    ),
    form("wmma load c sync aligned row|col m16n16k8 global|shared|shared::cta? f32", LAYOUT, wmma_load),
    form(
        "wmma store d sync aligned row|col m16n16k16|m32n8k16|m8n32k16 global|shared|shared::cta? f16|f32",
        LAYOUT,
        wmma_store,
    ),
    form("wmma store d sync aligned row|col m16n16k8 global|shared|shared::cta? f32", LAYOUT, wmma_store),
    form(
        "wmma mma sync aligned row|col row|col m16n16k16|m32n8k16|m8n32k16 f16|f32 f16|f32",
        SUMS,
        |cx, m| wmma_mma(cx, m, Ty::F16, m.ty(6), m.ty(7)),
    ),
    form(
        "wmma mma sync aligned row|col row|col m16n16k16|m32n8k16|m8n32k16 f32 bf16 bf16 f32",
        SUMS,
        |cx, m| wmma_mma(cx, m, Ty::Bf16, Ty::F32, Ty::F32),
    ),
    form("wmma mma sync aligned row|col row|col m16n16k8 f32 tf32 tf32 f32", SUMS, |cx, m| {
        wmma_mma(cx, m, Ty::Tf32, Ty::F32, Ty::F32)
    }),
];

/// 32-bit registers per lane for A, B, and C or D of these types (m16n8).
pub(crate) fn mma_registers(shape: MmaShape, ab: Ty, cd: Ty) -> (usize, usize, usize) {
    let k = match shape {
        MmaShape::M16N8K4 => 4,
        MmaShape::M16N8K8 => 8,
        MmaShape::M16N8K16 => 16,
    };
    let per = if ab == Ty::Tf32 { 1 } else { 2 };
    (16 * k / 32 / per, 8 * k / 32 / per, if cd == Ty::F16 { 2 } else { 4 })
}

fn mma(cx: &mut Cx<'_, '_>, m: &Mods<'_>, shape: MmaShape) -> Res<()> {
    let (d, a, c) = (m.ty(5), m.ty(6), m.ty(8));
    cx.count(4)?;
    let (na, nb, nc) = mma_registers(shape, a, c);
    let (_, _, nd) = mma_registers(shape, a, d);
    let mut slots = cx.fragment(0, nd, W::W32)?;
    slots.extend(cx.fragment(1, na, W::W32)?);
    slots.extend(cx.fragment(2, nb, W::W32)?);
    slots.extend(cx.fragment(3, nc, W::W32)?);
    let at = cx.more(&slots);
    cx.emit(Op::Mma { shape, ab: a, d, c }, at, 0, 0, 0);
    Ok(())
}

fn shape(text: &str) -> WmmaShape {
    match text {
        "m16n16k16" => WmmaShape::M16N16K16,
        "m32n8k16" => WmmaShape::M32N8K16,
        "m8n32k16" => WmmaShape::M8N32K16,
        _ => WmmaShape::M16N16K8,
    }
}

/// 32-bit registers per lane of a fragment, as the ISA fixes them.
pub(crate) fn wmma_registers(which: Operand, shape: WmmaShape, ty: Ty) -> usize {
    match (ty, which) {
        (Ty::F16, Operand::C) => 4,
        (Ty::F16, _) => 8,
        (Ty::F32, _) => 8,
        (Ty::Tf32, _) => 4,
        (_, Operand::A) => match shape {
            WmmaShape::M32N8K16 => 8,
            WmmaShape::M8N32K16 => 2,
            _ => 4,
        },
        (_, _) => match shape {
            WmmaShape::M32N8K16 => 2,
            WmmaShape::M8N32K16 => 8,
            _ => 4,
        },
    }
}

fn wmma_load(cx: &mut Cx<'_, '_>, m: &Mods<'_>) -> Res<()> {
    let which = match m.str(1) {
        "a" => Operand::A,
        "b" => Operand::B,
        _ => Operand::C,
    };
    let (shape, ty, space) = (shape(m.str(5)), m.ty(7), m.space(6));
    if cx.args().len() != 3 {
        cx.count(2)?;
    }
    let slots = cx.fragment(0, wmma_registers(which, shape, ty), W::W32)?;
    let (a, offset, wide, space) = cx.addr(1, space)?;
    let (rows, cols) = extent(which, shape);
    let col = m.str(4) == "col";
    let c = match cx.args().len() {
        3 => cx.src(2, Ty::U32)?,
        _ => cx.bits(W::W32, if col { rows } else { cols } as u64),
    };
    if !matches!(space, Space::Global | Space::Shared | Space::Generic | Space::Const) {
        return refuse(cx);
    }
    let at = cx.more(&slots);
    cx.emit(Op::WmmaLoad { which, shape, ty, col, wide, space }, at, a, offset as u32, c);
    Ok(())
}

fn wmma_store(cx: &mut Cx<'_, '_>, m: &Mods<'_>) -> Res<()> {
    let (shape, ty, space) = (shape(m.str(5)), m.ty(7), m.space(6));
    if cx.args().len() != 3 {
        cx.count(2)?;
    }
    let (a, offset, wide, space) = cx.addr(0, space)?;
    let slots = cx.fragment(1, wmma_registers(Operand::C, shape, ty), W::W32)?;
    let (rows, cols) = extent(Operand::C, shape);
    let col = m.str(4) == "col";
    let c = match cx.args().len() {
        3 => cx.src(2, Ty::U32)?,
        _ => cx.bits(W::W32, if col { rows } else { cols } as u64),
    };
    if !matches!(space, Space::Global | Space::Shared | Space::Generic) {
        return refuse(cx);
    }
    let at = cx.more(&slots);
    cx.emit(Op::WmmaStore { shape, ty, col, wide, space }, at, a, offset as u32, c);
    Ok(())
}

/// Rows and columns of a matrix.
pub(crate) fn extent(which: Operand, shape: WmmaShape) -> (usize, usize) {
    let (m, n, k) = shape.mnk();
    match which {
        Operand::A => (m, k),
        Operand::B => (k, n),
        Operand::C => (m, n),
    }
}

fn wmma_mma(cx: &mut Cx<'_, '_>, m: &Mods<'_>, ab: Ty, d: Ty, c: Ty) -> Res<()> {
    let shape = shape(m.str(5));
    cx.count(4)?;
    let mut slots = cx.fragment(0, wmma_registers(Operand::C, shape, d), W::W32)?;
    slots.extend(cx.fragment(1, wmma_registers(Operand::A, shape, ab), W::W32)?);
    slots.extend(cx.fragment(2, wmma_registers(Operand::B, shape, ab), W::W32)?);
    slots.extend(cx.fragment(3, wmma_registers(Operand::C, shape, c), W::W32)?);
    let at = cx.more(&slots);
    let (acol, bcol) = (m.str(3) == "col", m.str(4) == "col");
    cx.emit(Op::WmmaMma { shape, ab, d, c, acol, bcol }, at, 0, 0, 0);
    Ok(())
}
