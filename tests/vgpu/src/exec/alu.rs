//! Arithmetic on whole warps. Frequent forms have loops that the compiler turns into vector code; the rest call the
//! scalar definition lane by lane.

use crate::ptx::inst::*;
use crate::ptx::types::{Bool, Cmp, Rnd, Space, Ty, W};

use super::rows::Rows;
use super::scalar::{convert, float, int, soft};
use super::window;

#[inline(always)]
fn map1(r: &mut Rows<'_>, i: &Inst, m: u32, f: impl Fn(u32) -> u32) {
    let a = *r.r32(i.a);
    let mut v = [0; 32];
    for l in 0..32 {
        v[l] = f(a[l]);
    }
    r.put32(i.d, m, &v);
}

#[inline(always)]
fn map2(r: &mut Rows<'_>, i: &Inst, m: u32, f: impl Fn(u32, u32) -> u32) {
    let (a, b) = (*r.r32(i.a), *r.r32(i.b));
    let mut v = [0; 32];
    for l in 0..32 {
        v[l] = f(a[l], b[l]);
    }
    r.put32(i.d, m, &v);
}

#[inline(always)]
fn map3(r: &mut Rows<'_>, i: &Inst, m: u32, f: impl Fn(u32, u32, u32) -> u32) {
    let (a, b, c) = (*r.r32(i.a), *r.r32(i.b), *r.r32(i.c));
    let mut v = [0; 32];
    for l in 0..32 {
        v[l] = f(a[l], b[l], c[l]);
    }
    r.put32(i.d, m, &v);
}

#[inline(always)]
fn map1_64(r: &mut Rows<'_>, i: &Inst, m: u32, f: impl Fn(u64) -> u64) {
    let a = *r.r64(i.a);
    let mut v = [0; 32];
    for l in 0..32 {
        v[l] = f(a[l]);
    }
    r.put64(i.d, m, &v);
}

#[inline(always)]
fn map2_64(r: &mut Rows<'_>, i: &Inst, m: u32, f: impl Fn(u64, u64) -> u64) {
    let (a, b) = (*r.r64(i.a), *r.r64(i.b));
    let mut v = [0; 32];
    for l in 0..32 {
        v[l] = f(a[l], b[l]);
    }
    r.put64(i.d, m, &v);
}

#[inline(always)]
fn map3_64(r: &mut Rows<'_>, i: &Inst, m: u32, f: impl Fn(u64, u64, u64) -> u64) {
    let (a, b, c) = (*r.r64(i.a), *r.r64(i.b), *r.r64(i.c));
    let mut v = [0; 32];
    for l in 0..32 {
        v[l] = f(a[l], b[l], c[l]);
    }
    r.put64(i.d, m, &v);
}

/// Comparison of two rows as a mask.
#[inline(always)]
fn test(r: &Rows<'_>, i: &Inst, f: impl Fn(u32, u32) -> bool) -> u32 {
    let (a, b) = (r.r32(i.a), r.r32(i.b));
    let mut v = 0;
    for l in 0..32 {
        v |= u32::from(f(a[l], b[l])) << l;
    }
    v
}

#[inline(always)]
fn test64(r: &Rows<'_>, i: &Inst, f: impl Fn(u64, u64) -> bool) -> u32 {
    let (a, b) = (r.r64(i.a), r.r64(i.b));
    let mut v = 0;
    for l in 0..32 {
        v |= u32::from(f(a[l], b[l])) << l;
    }
    v
}

/// The comparison of a `setp` before it is combined.
#[inline(always)]
fn compared(r: &Rows<'_>, i: &Inst, c: Compare) -> u32 {
    macro_rules! by_cmp {
        ($test:ident, $conv:expr) => {
            match c.cmp {
                Cmp::Eq => return $test(r, i, |a, b| $conv(a) == $conv(b)),
                Cmp::Ne => return $test(r, i, |a, b| $conv(a) != $conv(b)),
                Cmp::Lt => return $test(r, i, |a, b| $conv(a) < $conv(b)),
                Cmp::Le => return $test(r, i, |a, b| $conv(a) <= $conv(b)),
                Cmp::Gt => return $test(r, i, |a, b| $conv(a) > $conv(b)),
                Cmp::Ge => return $test(r, i, |a, b| $conv(a) >= $conv(b)),
                _ => {}
            }
        };
    }
    match c.ty {
        Ty::S32 => by_cmp!(test, |v: u32| v as i32),
        Ty::U32 | Ty::B32 => by_cmp!(test, |v: u32| v),
        Ty::S64 => by_cmp!(test64, |v: u64| v as i64),
        Ty::U64 | Ty::B64 => by_cmp!(test64, |v: u64| v),
        // `ne` of f32 is false for NaN, so it takes the slow way.
        Ty::F32 if !c.ftz && c.cmp != Cmp::Ne => by_cmp!(test, f32::from_bits),
        _ => {}
    }
    if c.ty.width() == W::W64 {
        test64(r, i, |a, b| float::compare(c, a, b))
    } else {
        test(r, i, |a, b| float::compare(c, a.into(), b.into()))
    }
}

#[inline(always)]
fn combine(v: u32, comb: Option<Bool>, with: u32) -> u32 {
    match comb {
        None => v,
        Some(Bool::And) => v & with,
        Some(Bool::Or) => v | with,
        Some(Bool::Xor) => v ^ with,
    }
}

/// Runs an instruction that touches registers only. False if it is not one.
#[inline(always)]
pub(super) fn run(r: &mut Rows<'_>, i: &Inst, more: &[u32], m: u32) -> bool {
    match i.op {
        Op::Int2(op, W::W32) => match op {
            I2::Add => map2(r, i, m, u32::wrapping_add),
            I2::Sub => map2(r, i, m, u32::wrapping_sub),
            I2::Mul => map2(r, i, m, u32::wrapping_mul),
            I2::And => map2(r, i, m, |a, b| a & b),
            I2::Or => map2(r, i, m, |a, b| a | b),
            I2::Xor => map2(r, i, m, |a, b| a ^ b),
            I2::Shl => map2(r, i, m, |a, b| if b > 31 { 0 } else { a << (b & 31) }),
            I2::ShrU => map2(r, i, m, |a, b| if b > 31 { 0 } else { a >> (b & 31) }),
            I2::ShrS => map2(r, i, m, |a, b| ((a as i32) >> b.min(31)) as u32),
            I2::MinS => map2(r, i, m, |a, b| (a as i32).min(b as i32) as u32),
            I2::MaxS => map2(r, i, m, |a, b| (a as i32).max(b as i32) as u32),
            I2::MinU => map2(r, i, m, u32::min),
            I2::MaxU => map2(r, i, m, u32::max),
            I2::MulHiU => map2(r, i, m, |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
            I2::MulHiS => map2(r, i, m, |a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32),
            I2::DivU => map2(r, i, m, |a, b| a.checked_div(b).unwrap_or(u32::MAX)),
            I2::RemU => map2(r, i, m, |a, b| a.checked_rem(b).unwrap_or(a)),
            I2::DivS => {
                map2(r, i, m, |a, b| if b == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 })
            }
            I2::RemS => {
                map2(r, i, m, |a, b| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 })
            }
            _ => cold_int2(r, i, m, op, W::W32),
        },
        Op::Int2(op, W::W64) => match op {
            I2::Add => map2_64(r, i, m, u64::wrapping_add),
            I2::Sub => map2_64(r, i, m, u64::wrapping_sub),
            I2::Mul => map2_64(r, i, m, u64::wrapping_mul),
            I2::And => map2_64(r, i, m, |a, b| a & b),
            I2::Or => map2_64(r, i, m, |a, b| a | b),
            I2::Shl | I2::ShrU | I2::ShrS => shift64(r, i, m, op),
            _ => cold_int2(r, i, m, op, W::W64),
        },
        Op::Int2(op, w) => cold_int2(r, i, m, op, w),
        Op::Int3(I3::Mad, W::W32) => map3(r, i, m, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        Op::MulWide(true, W::W32) => wide(r, i, m, |a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64),
        Op::MulWide(false, W::W32) => wide(r, i, m, |a, b| u64::from(a) * u64::from(b)),
        Op::F32(op, Fm { rnd: Rnd::Rn, ftz: false, sat: false }) => match op {
            F2::Add => map2(r, i, m, |a, b| float::canon32(f32::from_bits(a) + f32::from_bits(b))),
            F2::Sub => map2(r, i, m, |a, b| float::canon32(f32::from_bits(a) - f32::from_bits(b))),
            F2::Mul => map2(r, i, m, |a, b| float::canon32(f32::from_bits(a) * f32::from_bits(b))),
            F2::Div => map2(r, i, m, |a, b| float::canon32(f32::from_bits(a) / f32::from_bits(b))),
            _ => cold_f32(r, i, m, op, Fm::PLAIN),
        },
        Op::F32(op, fm) => cold_f32(r, i, m, op, fm),
        Op::F32Fma(Fm { rnd: Rnd::Rn, ftz: false, sat: false }) => map3(r, i, m, |a, b, c| {
            float::canon32(f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c)))
        }),
        Op::Setp(c, comb) => {
            let v = compared(r, i, c);
            setp(r, i, m, v, comb);
        }
        Op::Selp(W::W64) => {
            let p = r.pred(i.c);
            let (a, b) = (*r.r64(i.a), *r.r64(i.b));
            let mut v = [0; 32];
            for l in 0..32 {
                v[l] = if p >> l & 1 != 0 { a[l] } else { b[l] };
            }
            r.put64(i.d, m, &v);
        }
        Op::Selp(_) => {
            let p = r.pred(i.c);
            let (a, b) = (*r.r32(i.a), *r.r32(i.b));
            let mut v = [0; 32];
            for l in 0..32 {
                v[l] = if p >> l & 1 != 0 { a[l] } else { b[l] };
            }
            r.put32(i.d, m, &v);
        }
        Op::PredAnd => {
            let v = r.pred(i.a) & r.pred(i.b);
            r.put_pred(i.d, m, v);
        }
        Op::PredOr => {
            let v = r.pred(i.a) | r.pred(i.b);
            r.put_pred(i.d, m, v);
        }
        Op::PredXor => {
            let v = r.pred(i.a) ^ r.pred(i.b);
            r.put_pred(i.d, m, v);
        }
        Op::PredMov => {
            let v = r.pred(i.a);
            r.put_pred(i.d, m, v);
        }
        Op::PredNot => {
            let v = !r.pred(i.a);
            r.put_pred(i.d, m, v);
        }
        Op::Mov(W::W64) => {
            let v = *r.r64(i.a);
            r.put64(i.d, m, &v);
        }
        Op::Mov(_) => {
            let v = *r.r32(i.a);
            r.put32(i.d, m, &v);
        }
        Op::Cvt(c) => cvt(r, i, m, c),
        _ => return rare(r, i, more, m),
    }
    true
}

#[inline(always)]
fn wide(r: &mut Rows<'_>, i: &Inst, m: u32, f: impl Fn(u32, u32) -> u64) {
    let (a, b) = (*r.r32(i.a), *r.r32(i.b));
    let mut v = [0; 32];
    for l in 0..32 {
        v[l] = f(a[l], b[l]);
    }
    r.put64(i.d, m, &v);
}

#[inline(always)]
fn setp(r: &mut Rows<'_>, i: &Inst, m: u32, v: u32, comb: Option<Bool>) {
    let with = if comb.is_some() { r.pred(i.c) } else { 0 };
    r.put_pred(i.d & 0xffff, m, combine(v, comb, with));
    let q = i.d >> 16;
    if q != NOWHERE {
        r.put_pred(q, m, combine(!v, comb, with));
    }
}

fn shift64(r: &mut Rows<'_>, i: &Inst, m: u32, op: I2) {
    let (a, b) = (*r.r64(i.a), *r.r32(i.b));
    let mut v = [0; 32];
    for l in 0..32 {
        v[l] = int::two(op, W::W64, a[l], b[l].into());
    }
    r.put64(i.d, m, &v);
}

fn cold_int2(r: &mut Rows<'_>, i: &Inst, m: u32, op: I2, w: W) {
    let shift = matches!(op, I2::Shl | I2::ShrS | I2::ShrU);
    for l in lanes(m) {
        let a = r.lane(i.a, w == W::W64, l);
        let b = r.lane(i.b, w == W::W64 && !shift, l);
        let v = int::two(op, w, a, b) & w.mask();
        put(r, i.d, w, l, v);
    }
}

fn cold_f32(r: &mut Rows<'_>, i: &Inst, m: u32, op: F2, fm: Fm) {
    let nearest = fm.rnd == Rnd::Rn && matches!(op, F2::Add | F2::Sub | F2::Mul);
    if nearest {
        // Flushing and saturation around the host's arithmetic.
        map2(r, i, m, |a, b| float::two32(op, fm, a, b));
        return;
    }
    for l in lanes(m) {
        let v = float::two32(op, fm, r.r32(i.a)[l], r.r32(i.b)[l]);
        r.w32(i.d)[l] = v;
    }
}

/// The active lanes in order.
#[inline(always)]
pub(super) fn lanes(m: u32) -> impl Iterator<Item = usize> {
    let mut rest = m;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let l = rest.trailing_zeros();
        rest &= rest - 1;
        Some(l as usize)
    })
}

#[inline(always)]
fn put(r: &mut Rows<'_>, d: Slot, w: W, l: usize, v: u64) {
    if w == W::W64 { r.w64(d)[l] = v } else { r.w32(d)[l] = v as u32 }
}

fn width(code: u32) -> W {
    match code {
        0 => W::W16,
        1 => W::W32,
        _ => W::W64,
    }
}

#[inline(always)]
fn cvt(r: &mut Rows<'_>, i: &Inst, m: u32, c: Cvt) {
    let (dw, aw) = (width(i.b), width(i.c));
    // Registers may be wider than the types; the fast ways are for those that are not.
    let exact = aw == c.from.width() && dw == c.to.width();
    match (c.to, c.from) {
        _ if !exact => {
            for l in lanes(m) {
                let a = r.lane(i.a, aw == W::W64, l);
                put(r, i.d, dw, l, convert::convert(c, a) & dw.mask());
            }
        }
        (Ty::U64 | Ty::S64, Ty::U32) if !c.sat => {
            let a = *r.r32(i.a);
            let mut v = [0; 32];
            for l in 0..32 {
                v[l] = u64::from(a[l]);
            }
            r.put64(i.d, m, &v);
        }
        (Ty::U64 | Ty::S64, Ty::S32) if !c.sat => {
            let a = *r.r32(i.a);
            let mut v = [0; 32];
            for l in 0..32 {
                v[l] = i64::from(a[l] as i32) as u64;
            }
            r.put64(i.d, m, &v);
        }
        (Ty::U32 | Ty::S32, Ty::U64 | Ty::S64) if !c.sat => {
            let a = *r.r64(i.a);
            let mut v = [0; 32];
            for l in 0..32 {
                v[l] = a[l] as u32;
            }
            r.put32(i.d, m, &v);
        }
        (Ty::F32, Ty::S32) if c.rnd == Rnd::Rn && !c.sat => map1(r, i, m, |a| (a as i32 as f32).to_bits()),
        (Ty::F32, Ty::U32) if c.rnd == Rnd::Rn && !c.sat => map1(r, i, m, |a| (a as f32).to_bits()),
        (Ty::F32, Ty::F16) if !c.sat => map1(r, i, m, half_to_single),
        (Ty::F32, Ty::Bf16) if !c.sat => map1(r, i, m, |a| {
            let v = a << 16;
            if v & 0x7fff_ffff > 0x7f80_0000 { float::NAN32 } else { v }
        }),
        (Ty::Bf16, Ty::F32) if c.rnd == Rnd::Rn && !c.sat && !c.relu && !c.ftz => {
            map1(r, i, m, single_to_bf16)
        }
        _ => {
            for l in lanes(m) {
                let a = r.lane(i.a, aw == W::W64, l);
                put(r, i.d, dw, l, convert::convert(c, a) & dw.mask());
            }
        }
    }
}

/// Exact: every half is a single.
#[inline(always)]
fn half_to_single(h: u32) -> u32 {
    let (sign, rest) = ((h & 0x8000) << 16, h & 0x7fff);
    let normal = (rest << 13) + (112 << 23);
    // A subnormal half is its fraction times 2^-24.
    let small = ((rest as f32) * f32::from_bits(0x3380_0000)).to_bits();
    let v = if rest < 0x400 { small } else { normal };
    if rest > 0x7c00 {
        float::NAN32
    } else if rest == 0x7c00 {
        sign | 0x7f80_0000
    } else {
        sign | v
    }
}

/// To nearest, ties to even.
#[inline(always)]
pub(super) fn single_to_bf16(v: u32) -> u32 {
    let rounded = v.wrapping_add(0x7fff + (v >> 16 & 1)) >> 16;
    if v & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded }
}

/// Instructions that are not worth a place in the hot loop.
#[inline(never)]
fn rare(r: &mut Rows<'_>, i: &Inst, more: &[u32], m: u32) -> bool {
    match i.op {
        Op::Int1(op, w) => {
            let counted = matches!(
                op,
                I1::Popc | I1::Clz | I1::BfindS | I1::BfindU | I1::BfindShiftS | I1::BfindShiftU
            );
            for l in lanes(m) {
                let v = int::one(op, w, r.lane(i.a, w == W::W64, l));
                let dw = if counted { W::W32 } else { w };
                put(r, i.d, dw, l, v & dw.mask());
            }
        }
        Op::Int3(op, w) => {
            let by32 = matches!(op, I3::BfeS | I3::BfeU);
            for l in lanes(m) {
                let a = r.lane(i.a, w == W::W64, l);
                let b = r.lane(i.b, w == W::W64 && !by32, l);
                let c = r.lane(i.c, w == W::W64 && !by32, l);
                put(r, i.d, w, l, int::three(op, w, a, b, c) & w.mask());
            }
        }
        Op::MulWide(signed, w) | Op::MadWide(signed, w) => {
            let mad = matches!(i.op, Op::MadWide(..));
            let dw = if w == W::W16 { W::W32 } else { W::W64 };
            for l in lanes(m) {
                let (a, b) = (u64::from(r.r32(i.a)[l]), u64::from(r.r32(i.b)[l]));
                let product = if signed { (int::sext(a, w) * int::sext(b, w)) as u64 } else { a * b };
                let c = if mad { r.lane(i.c, dw == W::W64, l) } else { 0 };
                put(r, i.d, dw, l, product.wrapping_add(c) & dw.mask());
            }
        }
        Op::Bfi(w) => {
            let [a, b, p, n] = operands(more, i.a);
            for l in lanes(m) {
                let (av, bv) = (r.lane(a, w == W::W64, l), r.lane(b, w == W::W64, l));
                let v = int::insert(av, bv, r.r32(p)[l], r.r32(n)[l], w);
                put(r, i.d, w, l, v);
            }
        }
        Op::Prmt(mode) => map3(r, i, m, |a, b, c| int::permute(mode, a, b, c)),
        Op::Lop3(table) => map3(r, i, m, |a, b, c| int::lop3(table, a, b, c)),
        Op::Carry { sub, cin, cout, w } => {
            for l in lanes(m) {
                let (a, b) = (r.lane(i.a, w == W::W64, l), r.lane(i.b, w == W::W64, l));
                let inn = u128::from(cin && *r.carry >> l & 1 == 1);
                // A subtraction's flag is its borrow.
                let (v, out) = if sub {
                    let v = u128::from(a).wrapping_sub(u128::from(b)).wrapping_sub(inn);
                    (v, v >> 127 == 1)
                } else {
                    let v = u128::from(a) + u128::from(b) + inn;
                    (v, v >> w.bits() != 0)
                };
                if cout {
                    *r.carry = *r.carry & !(1 << l) | u32::from(out) << l;
                }
                put(r, i.d, w, l, v as u64 & w.mask());
            }
        }
        Op::MadCarry { hi, signed, cin, cout } => {
            for l in lanes(m) {
                let (a, b, c) = (r.r32(i.a)[l], r.r32(i.b)[l], r.r32(i.c)[l]);
                let product = if signed {
                    (i64::from(a as i32) * i64::from(b as i32)) as u64
                } else {
                    u64::from(a) * u64::from(b)
                };
                let half = if hi { product >> 32 } else { product & 0xffff_ffff };
                let v = half + u64::from(c) + u64::from(cin && *r.carry >> l & 1 == 1);
                if cout {
                    *r.carry = *r.carry & !(1 << l) | u32::from(v >> 32 != 0) << l;
                }
                r.w32(i.d)[l] = v as u32;
            }
        }
        Op::F32Fma(fm) => map3(r, i, m, |a, b, c| float::fma32(fm, a, b, c)),
        Op::F32One(op, fm) => {
            for l in lanes(m) {
                let v = float::one32(op, fm, r.r32(i.a)[l]);
                r.w32(i.d)[l] = v;
            }
        }
        Op::F64(op, rnd) => map2_64(r, i, m, |a, b| float::two64(op, rnd, a, b)),
        Op::F64Fma(rnd) => map3_64(r, i, m, |a, b, c| float::fma64(rnd, a, b, c)),
        Op::F64One(op, rnd) => map1_64(r, i, m, |a| float::one64(op, rnd, a)),
        Op::Half2(op, h) => {
            for l in lanes(m) {
                let v = float::two16(op, h, r.r32(i.a)[l], r.r32(i.b)[l]);
                r.w32(i.d)[l] = v;
            }
        }
        Op::HalfFma(h) => {
            for l in lanes(m) {
                let v = float::fma16(h, r.r32(i.a)[l], r.r32(i.b)[l], r.r32(i.c)[l]);
                r.w32(i.d)[l] = v;
            }
        }
        Op::HalfOne(op, h) => {
            for l in lanes(m) {
                let v = float::one16(op, h, r.r32(i.a)[l]);
                r.w32(i.d)[l] = v;
            }
        }
        Op::Testp(t, w) => {
            let f = if w == W::W64 { soft::F64 } else { soft::F32 };
            let mut v = 0;
            for l in lanes(m) {
                v |= u32::from(float::test(t, r.lane(i.a, w == W::W64, l), f)) << l;
            }
            r.put_pred(i.d, m, v);
        }
        Op::SetpPacked(c, comb) => {
            let lo = test(r, i, |a, b| float::compare(c, a.into(), b.into()));
            let hi = test(r, i, |a, b| float::compare(c, (a >> 16).into(), (b >> 16).into()));
            let with = if comb.is_some() { r.pred(i.c) } else { 0 };
            r.put_pred(i.d & 0xffff, m, combine(lo, comb, with));
            r.put_pred(i.d >> 16, m, combine(hi, comb, with));
        }
        Op::Set { cmp, comb, to } => {
            let with = if comb.is_some() { r.pred(i.c) } else { 0 };
            let one = match to {
                Ty::F32 => 0x3f80_0000,
                Ty::F16 | Ty::F16x2 => 0x3c00,
                Ty::Bf16 | Ty::Bf16x2 => 0x3f80,
                to => to.width().mask() as u32,
            };
            let packed = matches!(to, Ty::F16x2 | Ty::Bf16x2);
            let lo = combine(compared(r, i, cmp), comb, with);
            let hi = if packed {
                let v = test(r, i, |a, b| float::compare(cmp, (a >> 16).into(), (b >> 16).into()));
                combine(v, comb, with)
            } else {
                0
            };
            for l in lanes(m) {
                let bit = |v: u32| if v >> l & 1 == 1 { one } else { 0 };
                r.w32(i.d)[l] = bit(lo) | bit(hi) << 16;
            }
        }
        Op::Slct { w, float, ftz } => {
            for l in lanes(m) {
                let c = r.r32(i.c)[l];
                let x = f32::from_bits(c);
                // NaN selects b; -0 and flushed negatives count as not negative.
                let first = if float { x >= 0.0 || ftz && x.is_subnormal() } else { c as i32 >= 0 };
                let v = r.lane(if first { i.a } else { i.b }, w == W::W64, l);
                put(r, i.d, w, l, v);
            }
        }
        Op::Pack { parts, part } => {
            let n = usize::from(parts);
            let from = &more[i.d as usize..i.d as usize + n];
            let total = width(i.b);
            for l in lanes(m) {
                let v = from.iter().enumerate().fold(0, |v, (k, s)| {
                    v | (u64::from(r.r32(*s)[l]) & part.mask()) << (k as u32 * part.bits())
                });
                put(r, i.a, total, l, v);
            }
        }
        Op::Unpack { parts, part } => {
            let n = usize::from(parts);
            let to = &more[i.d as usize..i.d as usize + n];
            let from = width(i.b) == W::W64;
            for l in lanes(m) {
                let v = r.lane(i.a, from, l);
                for (k, s) in to.iter().enumerate() {
                    put(r, *s, part, l, v >> (k as u32 * part.bits()) & part.mask());
                }
            }
        }
        Op::CvtPack { kind: HalfKind::Bf16, rnd: Rnd::Rn, relu: false } => {
            map2(r, i, m, |a, b| single_to_bf16(a) << 16 | single_to_bf16(b));
        }
        Op::CvtPack { kind, rnd, relu } => map2(r, i, m, |a, b| convert::pack_pair(kind, rnd, relu, a, b)),
        Op::ToGeneric(space) => {
            let base = window::base(space);
            map1_64(r, i, m, |a| a.wrapping_add(base));
        }
        Op::FromGeneric(space) => {
            let base = window::base(space);
            map1_64(r, i, m, |a| a.wrapping_sub(base));
        }
        Op::IsSpace(space) => {
            let mut v = 0;
            for l in lanes(m) {
                let found = window::classify(r.r64(i.a)[l]);
                let hit = found == space || space == Space::Const && found == Space::Global;
                v |= u32::from(hit) << l;
            }
            r.put_pred(i.d, m, v);
        }
        Op::ActiveMask => {
            r.put32(i.d, m, &[m; 32]);
        }
        _ => return false,
    }
    true
}

/// Four operands from the side table.
fn operands(more: &[u32], at: u32) -> [Slot; 4] {
    let at = at as usize;
    [more[at], more[at + 1], more[at + 2], more[at + 3]]
}
