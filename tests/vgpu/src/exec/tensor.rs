//! Matrix instructions. Fragment layouts of `ldmatrix` and `mma` are the ISA's; those of `wmma`, which the ISA leaves
//! open, are this device's own: element `(lane * n + e) mod size`, so every copy of an element agrees.

use crate::ptx::inst::*;
use crate::ptx::types::{Space, Ty};

use super::banks::wavefronts;
use super::rows::FULL;
use super::scalar::{float, soft};
use super::shared::Who;
use super::warp::Warp;
use super::{Cx, Trouble, mem};
use crate::ptx::{extent, wmma_registers};

/// Runs a matrix instruction of a full warp.
pub(super) fn run(warp: &mut Warp, cx: &mut Cx<'_>, inst: &Inst, pc: u32) -> Result<(), Trouble> {
    match inst.op {
        Op::LdMatrix { count, trans, wide } => ldmatrix(warp, cx, inst, pc, count.into(), trans, wide),
        Op::MovMatrix => {
            let mut r = warp.view(cx.consts);
            let a = *r.r32(inst.a);
            r.put32(inst.d, FULL, &transposed(&a));
            Ok(())
        }
        Op::Mma { shape, ab, d, c } => {
            mma(warp, cx, inst, shape, ab, d, c);
            Ok(())
        }
        Op::WmmaLoad { which, shape, ty, col, wide, space } => {
            let (rows, cols) = extent(which, shape);
            let n = wmma_registers(which, shape, ty);
            let own = Fragment { rows, cols, ty, col, n };
            wmma_memory(warp, cx, inst, pc, own, wide, space, false)
        }
        Op::WmmaStore { shape, ty, col, wide, space } => {
            let (rows, cols) = extent(Operand::C, shape);
            let n = wmma_registers(Operand::C, shape, ty);
            let own = Fragment { rows, cols, ty, col, n };
            wmma_memory(warp, cx, inst, pc, own, wide, space, true)
        }
        Op::WmmaMma { shape, ab, d, c, .. } => {
            wmma_mma(warp, cx, inst, shape, ab, d, c);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// An 8x8 matrix of 16-bit elements, two per lane, with rows and columns exchanged.
fn transposed(a: &[u32; 32]) -> [u32; 32] {
    let at = |row: usize, col: usize| a[4 * row + col / 2] >> (16 * (col & 1)) & 0xffff;
    std::array::from_fn(|l| {
        let (row, col) = (l / 4, 2 * (l % 4));
        at(col, row) | at(col + 1, row) << 16
    })
}

fn ldmatrix(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    pc: u32,
    count: usize,
    trans: bool,
    wide: bool,
) -> Result<(), Trouble> {
    let a = mem::addresses(&warp.view(cx.consts), inst.a, inst.b as i32, wide);
    let rows = if count == 4 { FULL } else { (1 << (8 * count)) - 1 };
    mem::aligned(&a, 16, pc, rows)?;
    for (l, at) in a.iter().enumerate().take(8 * count) {
        let who = Who { warp: warp.id, lane: l as u32, instruction: pc };
        cx.shared.read(*at, 16, who).map_err(|w| mem::shared_trouble(cx, w, *at, 16, pc, l))?;
    }
    let (passes, ideal) = wavefronts(&a, 16, rows);
    cx.tally.shared.load_requests += 1;
    cx.tally.shared.load_wavefronts += passes;
    cx.tally.shared.load_ideal += ideal;
    for j in 0..count {
        let d = cx.code.more[inst.d as usize + j];
        let bytes = cx.shared.bytes();
        let v = std::array::from_fn(|l| {
            let at = a[8 * j + l / 4] as usize + 4 * (l % 4);
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
        });
        warp.view(cx.consts).put32(d, FULL, &if trans { transposed(&v) } else { v });
    }
    Ok(())
}

/// The value of a multiplicand's bits.
fn operand(ty: Ty, bits: u32) -> f64 {
    match ty {
        Ty::F16 => float::to_f64(bits.into(), soft::F16),
        Ty::Bf16 => f64::from(f32::from_bits(bits << 16)),
        // Tensor cores read the upper 19 bits.
        _ => f64::from(f32::from_bits(bits & 0xffff_e000)),
    }
}

fn accumulator(ty: Ty, bits: u32) -> f64 {
    if ty == Ty::F16 { float::to_f64(bits.into(), soft::F16) } else { f64::from(f32::from_bits(bits)) }
}

fn rounded(ty: Ty, v: f64) -> u32 {
    if ty == Ty::F16 { float::from_f64(v, soft::F16, false) as u32 } else { float::canon32(v as f32) }
}

/// Row and column of element `e` of lane `lane` in A (16 x k), as the ISA's tables give them.
pub(super) fn a_at(shape: MmaShape, tf32: bool, lane: usize, e: usize) -> (usize, usize) {
    let (g, t) = (lane / 4, lane % 4);
    if tf32 {
        return (g + 8 * (e & 1), t + 4 * (e >> 1));
    }
    let row = g + 8 * (e >> 1 & 1);
    let col = 2 * t + (e & 1) + if shape == MmaShape::M16N8K16 { 8 * (e >> 2) } else { 0 };
    (row, col)
}

/// Row and column of an element in B (k x 8).
pub(super) fn b_at(tf32: bool, lane: usize, e: usize) -> (usize, usize) {
    let (g, t) = (lane / 4, lane % 4);
    if tf32 { (t + 4 * e, g) } else { (2 * t + (e & 1) + 8 * (e >> 1), g) }
}

/// Row and column of an element in C and D (16 x 8).
pub(super) fn c_at(lane: usize, e: usize) -> (usize, usize) {
    (lane / 4 + 8 * (e >> 1), 2 * (lane % 4) + (e & 1))
}

fn mma(warp: &mut Warp, cx: &mut Cx<'_>, inst: &Inst, shape: MmaShape, ab: Ty, d: Ty, c: Ty) {
    cx.tally.mma += 1;
    let k = match shape {
        MmaShape::M16N8K4 => 4,
        MmaShape::M16N8K8 => 8,
        MmaShape::M16N8K16 => 16,
    };
    let tf32 = ab == Ty::Tf32;
    let per = if tf32 { 1 } else { 2 };
    let (na, nb) = (16 * k / 32 / per, 8 * k / 32 / per);
    let (nd, nc) = (if d == Ty::F16 { 2 } else { 4 }, if c == Ty::F16 { 2 } else { 4 });
    let slots = &cx.code.more[inst.d as usize..inst.d as usize + nd + na + nb + nc];
    let r = warp.view(cx.consts);
    let part = |row: &[u32; 32], lane: usize, e: usize| {
        if per == 1 { row[lane] } else { row[lane] >> (16 * (e & 1)) & 0xffff }
    };
    let mut a = [[0f64; 16]; 16];
    let mut b = [[0f64; 8]; 16];
    let mut acc = [[0f64; 8]; 16];
    for lane in 0..32 {
        for e in 0..na * per {
            let (i, j) = a_at(shape, tf32, lane, e);
            a[i][j] = operand(ab, part(r.r32(slots[nd + e / per]), lane, e));
        }
        for e in 0..nb * per {
            let (i, j) = b_at(tf32, lane, e);
            b[i][j] = operand(ab, part(r.r32(slots[nd + na + e / per]), lane, e));
        }
        for e in 0..4 {
            let (i, j) = c_at(lane, e);
            let row = r.r32(slots[nd + na + nb + if c == Ty::F16 { e / 2 } else { e }]);
            let bits = if c == Ty::F16 { row[lane] >> (16 * (e & 1)) & 0xffff } else { row[lane] };
            acc[i][j] = accumulator(c, bits);
        }
    }
    for i in 0..16 {
        for x in 0..k {
            let v = a[i][x];
            for j in 0..8 {
                acc[i][j] += v * b[x][j];
            }
        }
    }
    let mut r = warp.view(cx.consts);
    for lane in 0..32 {
        for e in 0..4 {
            let (i, j) = c_at(lane, e);
            let v = rounded(d, acc[i][j]);
            if d == Ty::F16 {
                let row = r.w32(slots[e / 2]);
                row[lane] = if e & 1 == 0 { v } else { row[lane] | v << 16 };
            } else {
                r.w32(slots[e])[lane] = v;
            }
        }
    }
}

/// A matrix spread over a warp in the device's own layout.
#[derive(Clone, Copy)]
struct Fragment {
    rows: usize,
    cols: usize,
    ty: Ty,
    /// Column-major in memory.
    col: bool,
    /// Registers per lane.
    n: usize,
}

impl Fragment {
    fn per(&self) -> usize {
        if matches!(self.ty, Ty::F16 | Ty::Bf16) { 2 } else { 1 }
    }

    /// Row and column of an element.
    fn at(&self, lane: usize, e: usize) -> (usize, usize) {
        let i = (lane * self.n * self.per() + e) % (self.rows * self.cols);
        (i / self.cols, i % self.cols)
    }
}

#[allow(clippy::too_many_arguments, reason = "the instruction's own fields")]
fn wmma_memory(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    pc: u32,
    f: Fragment,
    wide: bool,
    space: Space,
    store: bool,
) -> Result<(), Trouble> {
    let r = warp.view(cx.consts);
    let base = mem::addresses(&r, inst.a, inst.b as i32, wide);
    let stride = *r.r32(inst.c);
    let size = f.ty.bytes();
    let slots: Vec<Slot> = cx.code.more[inst.d as usize..inst.d as usize + f.n].to_vec();
    for e in 0..f.n * f.per() {
        let a: [u64; 32] = std::array::from_fn(|l| {
            let (i, j) = f.at(l, e);
            let (major, minor) = if f.col { (j, i) } else { (i, j) };
            let index = (major as u64).wrapping_mul(u64::from(stride[l])).wrapping_add(minor as u64);
            base[l].wrapping_add(index.wrapping_mul(u64::from(size)))
        });
        let shift = 16 * (e % f.per());
        let mut values: [u64; 32] = [0; 32];
        if store {
            let row = *warp.view(cx.consts).r32(slots[e / f.per()]);
            for l in 0..32 {
                values[l] = u64::from(if f.per() == 2 { row[l] >> shift & 0xffff } else { row[l] });
            }
        }
        mem::scattered(warp, cx, space, &a, size, pc, &mut values, store)?;
        if !store {
            let mut r = warp.view(cx.consts);
            let row = r.w32(slots[e / f.per()]);
            for l in 0..32 {
                let v = values[l] as u32;
                row[l] = if f.per() == 1 || shift == 0 { v } else { row[l] & 0xffff | v << 16 };
            }
        }
    }
    // One request; sectors and wavefronts of a layout that is not the hardware's would mean nothing.
    let elements = (f.rows * f.cols) as u64 * u64::from(size);
    let shared = space == Space::Shared || space == Space::Generic && base[0] < crate::memory::BASE;
    match (shared, store) {
        (true, false) => cx.tally.shared.load_requests += 1,
        (true, true) => cx.tally.shared.store_requests += 1,
        (false, false) => {
            cx.tally.global.load_requests += 1;
            cx.tally.global.load_bytes += elements;
        }
        (false, true) => {
            cx.tally.global.store_requests += 1;
            cx.tally.global.store_bytes += elements;
        }
    }
    Ok(())
}

fn wmma_mma(warp: &mut Warp, cx: &mut Cx<'_>, inst: &Inst, shape: WmmaShape, ab: Ty, d: Ty, c: Ty) {
    cx.tally.mma += 1;
    let (m, n, k) = shape.mnk();
    let fragment = |which: Operand, ty: Ty| {
        let (rows, cols) = extent(which, shape);
        Fragment { rows, cols, ty, col: false, n: wmma_registers(which, shape, ty) }
    };
    let (fd, fa) = (fragment(Operand::C, d), fragment(Operand::A, ab));
    let (fb, fc) = (fragment(Operand::B, ab), fragment(Operand::C, c));
    let slots = &cx.code.more[inst.d as usize..inst.d as usize + fd.n + fa.n + fb.n + fc.n];
    let r = warp.view(cx.consts);
    let read = |f: &Fragment, first: usize, value: fn(Ty, u32) -> f64| {
        let mut out = vec![0f64; f.rows * f.cols];
        for lane in 0..32 {
            for e in 0..f.n * f.per() {
                let row = r.r32(slots[first + e / f.per()]);
                let bits = if f.per() == 2 { row[lane] >> (16 * (e & 1)) & 0xffff } else { row[lane] };
                let (i, j) = f.at(lane, e);
                out[i * f.cols + j] = value(f.ty, bits);
            }
        }
        out
    };
    let a = read(&fa, fd.n, operand);
    let b = read(&fb, fd.n + fa.n, operand);
    let mut acc = read(&fc, fd.n + fa.n + fb.n, accumulator);
    for i in 0..m {
        for x in 0..k {
            let v = a[i * k + x];
            for j in 0..n {
                acc[i * n + j] += v * b[x * n + j];
            }
        }
    }
    let mut r = warp.view(cx.consts);
    for lane in 0..32 {
        for e in 0..fd.n * fd.per() {
            let (i, j) = fd.at(lane, e);
            let v = rounded(d, acc[i * n + j]);
            let row = r.w32(slots[e / fd.per()]);
            row[lane] = if fd.per() == 1 || e & 1 == 0 { v } else { row[lane] | v << 16 };
        }
    }
}
