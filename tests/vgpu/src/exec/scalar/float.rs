//! Floating-point instructions on one lane, as bits in and bits out.

use crate::ptx::inst::{Compare, F1, F2, Fm, Half, HalfKind, Testp};
use crate::ptx::types::{Cmp, Rnd, Ty};

use super::soft::{self, BF16, F16, F32, F64, Format, pack, unpack};

/// NVIDIA's canonical f32 NaN.
pub(crate) const NAN32: u32 = 0x7fff_ffff;

/// The result of the host's arithmetic with the canonical NaN.
#[inline(always)]
pub(crate) fn canon32(v: f32) -> u32 {
    if v.is_nan() { NAN32 } else { v.to_bits() }
}

#[inline(always)]
fn canon64(v: f64) -> u64 {
    if v.is_nan() { F64.nan } else { v.to_bits() }
}

#[inline(always)]
fn flush32(v: u32, ftz: bool) -> u32 {
    if ftz && v & 0x7f80_0000 == 0 { v & 0x8000_0000 } else { v }
}

/// Clamp to [0, 1]; NaN is 0.
#[inline(always)]
fn saturate32(v: u32) -> u32 {
    let x = f32::from_bits(v);
    if x.is_nan() || x <= 0.0 {
        0
    } else if x >= 1.0 {
        0x3f80_0000
    } else {
        v
    }
}

/// The host rounds to nearest and keeps subnormals: with flushing, only results at or above the smallest normal
/// number are the same, so those below go through the software.
#[inline(always)]
pub(crate) fn finish32(v: u32, fm: Fm) -> u32 {
    let v = flush32(v, fm.ftz);
    if fm.sat { saturate32(v) } else { v }
}

/// Two f32 operands.
pub(crate) fn two32(op: F2, fm: Fm, a: u32, b: u32) -> u32 {
    let (a, b) = (flush32(a, fm.ftz), flush32(b, fm.ftz));
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    if fm.rnd != Rnd::Rn {
        let (u, v) = (unpack(a.into(), F32, false), unpack(b.into(), F32, false));
        let exact = match op {
            F2::Add => soft::add(u, v, fm.rnd),
            F2::Sub => soft::sub(u, v, fm.rnd),
            F2::Mul => soft::mul(u, v),
            F2::Div => soft::div(u, v),
            _ => unreachable!("no other operation has a rounding"),
        };
        return finish32(pack(exact, F32, fm.rnd, fm.ftz) as u32, fm);
    }
    let v = match op {
        F2::Add => canon32(x + y),
        F2::Sub => canon32(x - y),
        F2::Mul => canon32(x * y),
        F2::Div => canon32(x / y),
        F2::DivFull => canon32(x / y),
        F2::DivApprox => {
            // For divisors of magnitude in (2^126, 2^128) the quotient is 0 (of infinity: NaN).
            if y.abs() > f32::from_bits(0x7e80_0000) && y.is_finite() {
                if x.is_infinite() || x.is_nan() { NAN32 } else { (a ^ b) & 0x8000_0000 }
            } else {
                canon32(x / y)
            }
        }
        F2::CopySign => b & 0x7fff_ffff | a & 0x8000_0000,
        _ => minmax(op, a.into(), b.into(), F32) as u32,
    };
    finish32(v, fm)
}

/// Minimum and maximum of any format: -0 < +0, NaN loses or wins, the sign may be the product's.
fn minmax(op: F2, a: u64, b: u64, f: Format) -> u64 {
    let sign = 1u64 << (f.exp + f.man);
    let magnitude = sign - 1;
    let infinity = f.infinity(false);
    let is_nan = |v: u64| v & magnitude > infinity;
    let (nan_wins, xorsign, max) = match op {
        F2::Min => (false, false, false),
        F2::Max => (false, false, true),
        F2::MinNan => (true, false, false),
        F2::MaxNan => (true, false, true),
        F2::MinXorsign => (false, true, false),
        F2::MaxXorsign => (false, true, true),
        F2::MinNanXorsign => (true, true, false),
        _ => (true, true, true),
    };
    match (is_nan(a), is_nan(b)) {
        (true, true) => return f.nan,
        (true, false) if nan_wins => return f.nan,
        (false, true) if nan_wins => return f.nan,
        (true, false) => return if xorsign { b & magnitude | (a ^ b) & sign } else { b },
        (false, true) => return if xorsign { a & magnitude | (a ^ b) & sign } else { a },
        _ => {}
    }
    let (x, y) = if xorsign { (a & magnitude, b & magnitude) } else { (a, b) };
    // Sign and magnitude to an order.
    let key = |v: u64| if v & sign != 0 { -((v & magnitude) as i128) - 1 } else { v as i128 };
    let pick = if (key(x) < key(y)) != max { x } else { y };
    if xorsign { pick & magnitude | (a ^ b) & sign } else { pick }
}

/// f32 fused multiply-add.
pub(crate) fn fma32(fm: Fm, a: u32, b: u32, c: u32) -> u32 {
    let (a, b, c) = (flush32(a, fm.ftz), flush32(b, fm.ftz), flush32(c, fm.ftz));
    if fm.rnd == Rnd::Rn {
        return finish32(canon32(f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c))), fm);
    }
    let u = |v: u32| unpack(v.into(), F32, false);
    finish32(pack(soft::fma(u(a), u(b), u(c), fm.rnd), F32, fm.rnd, fm.ftz) as u32, fm)
}

/// One f32 operand.
pub(crate) fn one32(op: F1, fm: Fm, a: u32) -> u32 {
    let a = flush32(a, fm.ftz);
    let x = f32::from_bits(a);
    let wide = f64::from(x);
    let v = match op {
        F1::Neg => a ^ 0x8000_0000,
        F1::Abs => a & 0x7fff_ffff,
        F1::Sqrt if fm.rnd == Rnd::Rn => canon32(x.sqrt()),
        F1::Sqrt => pack(soft::sqrt(unpack(a.into(), F32, false)), F32, fm.rnd, fm.ftz) as u32,
        F1::Rcp if fm.rnd == Rnd::Rn => canon32(1.0 / x),
        F1::Rcp => {
            let one = soft::from_int(1);
            pack(soft::div(one, unpack(a.into(), F32, false)), F32, fm.rnd, fm.ftz) as u32
        }
        F1::SqrtApprox => canon32(x.sqrt()),
        F1::RcpApprox => canon32(1.0 / x),
        F1::RsqrtApprox => canon32((1.0 / wide.sqrt()) as f32),
        F1::Sin => canon32(wide.sin() as f32),
        F1::Cos => canon32(wide.cos() as f32),
        F1::Lg2 => canon32(wide.log2() as f32),
        F1::Ex2 => canon32(wide.exp2() as f32),
        F1::Tanh => canon32(wide.tanh() as f32),
    };
    finish32(v, fm)
}

/// Two f64 operands.
pub(crate) fn two64(op: F2, rnd: Rnd, a: u64, b: u64) -> u64 {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
    if rnd != Rnd::Rn {
        let (u, v) = (unpack(a, F64, false), unpack(b, F64, false));
        let exact = match op {
            F2::Add => soft::add(u, v, rnd),
            F2::Sub => soft::sub(u, v, rnd),
            F2::Mul => soft::mul(u, v),
            _ => soft::div(u, v),
        };
        return pack(exact, F64, rnd, false);
    }
    match op {
        F2::Add => canon64(x + y),
        F2::Sub => canon64(x - y),
        F2::Mul => canon64(x * y),
        F2::Div | F2::DivApprox | F2::DivFull => canon64(x / y),
        F2::CopySign => b & !(1 << 63) | a & 1 << 63,
        _ => minmax(op, a, b, F64),
    }
}

/// f64 fused multiply-add.
pub(crate) fn fma64(rnd: Rnd, a: u64, b: u64, c: u64) -> u64 {
    if rnd == Rnd::Rn {
        return canon64(f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)));
    }
    let u = |v| unpack(v, F64, false);
    pack(soft::fma(u(a), u(b), u(c), rnd), F64, rnd, false)
}

/// One f64 operand.
pub(crate) fn one64(op: F1, rnd: Rnd, a: u64) -> u64 {
    let x = f64::from_bits(a);
    match op {
        F1::Neg => a ^ 1 << 63,
        F1::Abs => a & !(1 << 63),
        F1::Sqrt => pack(soft::sqrt(unpack(a, F64, false)), F64, rnd, false),
        F1::Rcp => pack(soft::div(soft::from_int(1), unpack(a, F64, false)), F64, rnd, false),
        // The approximate forms read and make the upper word only, without subnormals.
        F1::RcpApprox | F1::RsqrtApprox => {
            let cut = |v: u64| if v & 0x7ff0_0000_0000_0000 == 0 { v & 1 << 63 } else { v & !0xffff_ffff };
            let y = f64::from_bits(if op == F1::RcpApprox { cut(a) } else { x.to_bits() });
            let v = if op == F1::RcpApprox { 1.0 / y } else { 1.0 / y.sqrt() };
            if v.is_nan() { F64.nan } else { cut(v.to_bits()) }
        }
        _ => unreachable!("no other f64 function exists"),
    }
}

/// The format of a 16-bit kind.
pub(crate) fn format(kind: HalfKind) -> Format {
    match kind {
        HalfKind::F16 => F16,
        HalfKind::Bf16 => BF16,
    }
}

fn flush16(v: u64, f: Format, ftz: bool) -> u64 {
    if ftz && v & f.infinity(false) == 0 { v & 0x8000 } else { v }
}

fn finish16(v: u64, h: Half) -> u64 {
    let f = format(h.kind);
    let v = flush16(v, f, h.ftz);
    let nan = v & 0x7fff > f.infinity(false);
    let one = (f.infinity(false) >> f.man >> 1) << f.man;
    if h.sat {
        if nan || v & 0x8000 != 0 { 0 } else { v.min(one) }
    } else if h.relu {
        // Negative results become +0, NaN stays.
        if nan {
            f.nan
        } else if v & 0x8000 != 0 {
            0
        } else {
            v
        }
    } else {
        v
    }
}

fn both(packed: bool, a: u32, b: u32, c: u32, f: impl Fn(u64, u64, u64) -> u64) -> u32 {
    let lo = f(u64::from(a & 0xffff), u64::from(b & 0xffff), u64::from(c & 0xffff)) as u32;
    if packed {
        lo | (f(u64::from(a >> 16), u64::from(b >> 16), u64::from(c >> 16)) as u32) << 16
    } else {
        lo
    }
}

/// Two 16-bit operands, or two packed pairs.
pub(crate) fn two16(op: F2, h: Half, a: u32, b: u32) -> u32 {
    let f = format(h.kind);
    both(h.packed, a, b, 0, |a, b, _| {
        let (a, b) = (flush16(a, f, h.ftz), flush16(b, f, h.ftz));
        let (u, v) = (unpack(a, f, false), unpack(b, f, false));
        let exact = match op {
            F2::Add => soft::add(u, v, Rnd::Rn),
            F2::Sub => soft::sub(u, v, Rnd::Rn),
            F2::Mul => soft::mul(u, v),
            _ => return finish16(minmax(op, a, b, f), h),
        };
        finish16(pack(exact, f, Rnd::Rn, h.ftz), h)
    })
}

/// 16-bit fused multiply-add.
pub(crate) fn fma16(h: Half, a: u32, b: u32, c: u32) -> u32 {
    let f = format(h.kind);
    both(h.packed, a, b, c, |a, b, c| {
        let u = |v| unpack(v, f, h.ftz);
        finish16(pack(soft::fma(u(a), u(b), u(c), Rnd::Rn), f, Rnd::Rn, h.ftz), h)
    })
}

/// One 16-bit operand.
pub(crate) fn one16(op: F1, h: Half, a: u32) -> u32 {
    let f = format(h.kind);
    both(h.packed, a, 0, 0, |a, _, _| {
        let a = flush16(a, f, h.ftz);
        let x = to_f64(a, f);
        let v = match op {
            F1::Neg => a ^ 0x8000,
            F1::Abs => a & 0x7fff,
            F1::Ex2 => from_f64(x.exp2(), f, h.ftz),
            _ => from_f64(x.tanh(), f, h.ftz),
        };
        finish16(v, h)
    })
}

/// A 16-bit number as f64, exactly.
pub(crate) fn to_f64(bits: u64, f: Format) -> f64 {
    f64::from_bits(pack(unpack(bits, f, false), F64, Rnd::Rn, false))
}

/// An f64 rounded to a format.
pub(crate) fn from_f64(v: f64, f: Format, ftz: bool) -> u64 {
    pack(soft::from_f64(v), f, Rnd::Rn, ftz)
}

/// `testp` on f32 bits (as f64 bits with the f64 format).
pub(crate) fn test(t: Testp, bits: u64, f: Format) -> bool {
    let magnitude = bits & ((1u64 << (f.exp + f.man)) - 1);
    let infinity = f.infinity(false);
    let exp_zero = magnitude >> f.man == 0;
    match t {
        Testp::Finite => magnitude < infinity,
        Testp::Infinite => magnitude == infinity,
        Testp::Number => magnitude <= infinity,
        Testp::NotANumber => magnitude > infinity,
        Testp::Normal => magnitude < infinity && !exp_zero,
        Testp::Subnormal => exp_zero && magnitude != 0,
    }
}

fn ordered<T: PartialOrd>(cmp: Cmp, x: T, y: T) -> bool {
    let order = x.partial_cmp(&y);
    match cmp {
        Cmp::Eq => x == y,
        Cmp::Ne => order.is_some() && x != y,
        Cmp::Lt => x < y,
        Cmp::Le => x <= y,
        Cmp::Gt => x > y,
        Cmp::Ge => x >= y,
        Cmp::Num => order.is_some(),
        Cmp::Nan => order.is_none(),
        Cmp::Equ => order.is_none() || x == y,
        Cmp::Neu => order.is_none() || x != y,
        Cmp::Ltu => order.is_none() || x < y,
        Cmp::Leu => order.is_none() || x <= y,
        Cmp::Gtu => order.is_none() || x > y,
        Cmp::Geu => order.is_none() || x >= y,
    }
}

/// A comparison of two values of its type.
pub(crate) fn compare(c: Compare, a: u64, b: u64) -> bool {
    match c.ty {
        Ty::F32 => {
            let f = |v: u64| f32::from_bits(flush32(v as u32, c.ftz));
            ordered(c.cmp, f(a), f(b))
        }
        Ty::F64 => ordered(c.cmp, f64::from_bits(a), f64::from_bits(b)),
        Ty::F16 | Ty::F16x2 => {
            let f = |v: u64| to_f64(flush16(v & 0xffff, F16, c.ftz), F16);
            ordered(c.cmp, f(a), f(b))
        }
        Ty::Bf16 | Ty::Bf16x2 => {
            let f = |v: u64| to_f64(v & 0xffff, BF16);
            ordered(c.cmp, f(a), f(b))
        }
        ty if ty.signed() => {
            let w = ty.width();
            ordered(c.cmp, super::int::sext(a, w), super::int::sext(b, w))
        }
        ty => {
            let m = ty.width().mask();
            ordered(c.cmp, a & m, b & m)
        }
    }
}
