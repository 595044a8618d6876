//! `cvt` on one lane.

use crate::ptx::inst::{Cvt, HalfKind};
use crate::ptx::types::{Rnd, Ty};

use super::float::format;
use super::soft::{self, BF16, F16, F32, F64, Format, TF32, Value, pack, unpack};

fn float_format(ty: Ty) -> Option<Format> {
    match ty {
        Ty::F16 => Some(F16),
        Ty::Bf16 => Some(BF16),
        Ty::F32 => Some(F32),
        Ty::F64 => Some(F64),
        Ty::Tf32 => Some(TF32),
        _ => None,
    }
}

/// The value of an integer type in the low bits of a register.
fn integer(ty: Ty, bits: u64) -> i128 {
    let n = 8 * ty.bytes();
    let cut = bits << (64 - n);
    if ty.signed() { i128::from((cut as i64) >> (64 - n)) } else { i128::from(cut >> (64 - n)) }
}

fn limits(ty: Ty) -> (i128, i128) {
    let n = 8 * ty.bytes();
    if ty.signed() { (-(1i128 << (n - 1)), (1i128 << (n - 1)) - 1) } else { (0, (1i128 << n) - 1) }
}

/// Converts; an integer result is extended to 64 bits by its sign.
pub(crate) fn convert(c: Cvt, bits: u64) -> u64 {
    match (float_format(c.from), float_format(c.to)) {
        (None, None) => {
            let v = integer(c.from, bits);
            let (lo, hi) = limits(c.to);
            let v = if c.sat { v.clamp(lo, hi) } else { v };
            integer(c.to, v as u64) as u64
        }
        (None, Some(to)) => {
            let v = soft::from_int(integer(c.from, bits));
            saturate(pack(v, to, c.rnd, false), to, c.sat)
        }
        (Some(from), None) => {
            let ftz = c.ftz && c.from == Ty::F32;
            let v = soft::integral(unpack(bits & from_mask(from), from, ftz), c.rnd);
            let (lo, hi) = limits(c.to);
            let v = match v {
                // The ISA's rule for NaN.
                Value::Nan if c.from != Ty::F64 && c.to.bytes() < 8 => 0,
                Value::Nan => 1i128 << (8 * c.to.bytes() - 1),
                Value::Infinite(negative) => {
                    if negative {
                        lo
                    } else {
                        hi
                    }
                }
                Value::Zero(_) => 0,
                Value::Finite { negative, exp, man } => {
                    let big = exp > 0 && (exp > 100 || man.leading_zeros() as i32 <= exp);
                    let m = if big { i128::MAX } else { (man << exp.max(0)).min(i128::MAX as u128) as i128 };
                    (if negative { -m } else { m }).clamp(lo, hi)
                }
            };
            integer(c.to, v as u64) as u64
        }
        (Some(from), Some(to)) => {
            let v = unpack(bits & from_mask(from), from, c.ftz && c.from == Ty::F32);
            let v = if c.integral { soft::integral(v, c.rnd) } else { v };
            let out = pack(v, to, c.rnd, c.ftz && c.to == Ty::F32);
            let out = if c.relu { rectify(out, to) } else { saturate(out, to, c.sat) };
            // tf32 lives in the upper bits of an f32.
            if c.to == Ty::Tf32 { out << 13 } else { out }
        }
    }
}

fn from_mask(f: Format) -> u64 {
    u64::MAX >> (63 - f.exp - f.man)
}

fn is_nan(bits: u64, f: Format) -> bool {
    bits & (from_mask(f) >> 1) > f.infinity(false)
}

fn negative(bits: u64, f: Format) -> bool {
    bits >> (f.exp + f.man) & 1 == 1
}

fn saturate(bits: u64, f: Format, sat: bool) -> u64 {
    let one = ((1u64 << (f.exp - 1)) - 1) << f.man;
    match sat {
        false => bits,
        true if is_nan(bits, f) || negative(bits, f) => 0,
        true => bits.min(one),
    }
}

fn rectify(bits: u64, f: Format) -> u64 {
    if is_nan(bits, f) {
        f.nan
    } else if negative(bits, f) {
        0
    } else {
        bits
    }
}

/// Two f32 into one register: `a` above `b`.
pub(crate) fn pack_pair(kind: HalfKind, rnd: Rnd, relu: bool, a: u32, b: u32) -> u32 {
    let f = format(kind);
    let one = |v: u32| {
        let out = pack(unpack(v.into(), F32, false), f, rnd, false);
        (if relu { rectify(out, f) } else { out }) as u32
    };
    one(a) << 16 | one(b)
}
