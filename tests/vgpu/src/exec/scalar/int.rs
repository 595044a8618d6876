//! Integer instructions on one lane. Values are zero-extended to 64 bits; results are cut to their width by the caller.

use crate::ptx::inst::{I1, I2, I3, Prmt};
use crate::ptx::types::W;

/// Sign-extends a value of the width.
#[inline(always)]
pub(crate) fn sext(v: u64, w: W) -> i64 {
    match w {
        W::W16 => i64::from(v as i16),
        W::W32 => i64::from(v as i32),
        W::W64 => v as i64,
    }
}

/// Two operands.
#[inline(always)]
pub(crate) fn two(op: I2, w: W, a: u64, b: u64) -> u64 {
    let (sa, sb) = (sext(a, w), sext(b, w));
    let bits = w.bits();
    match op {
        I2::Add => a.wrapping_add(b),
        I2::AddSat => u64::from((sa as i32).saturating_add(sb as i32) as u32),
        I2::Sub => a.wrapping_sub(b),
        I2::SubSat => u64::from((sa as i32).saturating_sub(sb as i32) as u32),
        I2::Mul => a.wrapping_mul(b),
        I2::MulHiS => ((i128::from(sa) * i128::from(sb)) >> bits) as u64,
        I2::MulHiU => ((u128::from(a) * u128::from(b)) >> bits) as u64,
        I2::Mul24LoS => mul24(a, b, true) as u64,
        I2::Mul24LoU => mul24(a, b, false) as u64,
        I2::Mul24HiS => (mul24(a, b, true) >> 16) as u64,
        I2::Mul24HiU => (mul24(a, b, false) >> 16) as u64,
        I2::DivS => {
            if sb == 0 {
                u64::MAX
            } else {
                sa.wrapping_div(sb) as u64
            }
        }
        I2::DivU => a.checked_div(b).unwrap_or(u64::MAX),
        I2::RemS => {
            if sb == 0 {
                a
            } else {
                sa.wrapping_rem(sb) as u64
            }
        }
        I2::RemU => a.checked_rem(b).unwrap_or(a),
        I2::MinS => sa.min(sb) as u64,
        I2::MinU => a.min(b),
        I2::MaxS => sa.max(sb) as u64,
        I2::MaxU => a.max(b),
        I2::And => a & b,
        I2::Or => a | b,
        I2::Xor => a ^ b,
        // Counts past the width are clamped: everything is shifted out. The count is a 32-bit register.
        I2::Shl => {
            let n = b as u32;
            if n >= bits { 0 } else { a << n }
        }
        I2::ShrU => {
            let n = b as u32;
            if n >= bits { 0 } else { a >> n }
        }
        I2::ShrS => (sa >> (b as u32).min(bits - 1)) as u64,
        I2::BmskClamp => mask_bits(a as u32, b as u32, true),
        I2::BmskWrap => mask_bits(a as u32 & 31, b as u32 & 31, false),
        I2::SzextClampS | I2::SzextClampU => extend(a as u32, b as u32, op == I2::SzextClampS),
        I2::SzextWrapS | I2::SzextWrapU => extend(a as u32, b as u32 & 31, op == I2::SzextWrapS),
    }
}

fn mul24(a: u64, b: u64, signed: bool) -> i64 {
    let cut = |v: u64| if signed { i64::from((v as u32) << 8) << 32 >> 40 } else { (v & 0xff_ffff) as i64 };
    cut(a) * cut(b)
}

fn mask_bits(start: u32, width: u32, clamp: bool) -> u64 {
    let ones = if width >= 32 { u32::MAX } else { (1 << width) - 1 };
    if clamp && start >= 32 { 0 } else { u64::from(ones.wrapping_shl(start)) }
}

fn extend(a: u32, n: u32, signed: bool) -> u64 {
    if n >= 32 {
        return u64::from(a);
    }
    if n == 0 {
        return 0;
    }
    let up = a << (32 - n);
    u64::from(if signed { (up as i32 >> (32 - n)) as u32 } else { up >> (32 - n) })
}

/// One operand.
#[inline(always)]
pub(crate) fn one(op: I1, w: W, a: u64) -> u64 {
    let bits = w.bits();
    match op {
        I1::Neg => a.wrapping_neg(),
        I1::Abs => sext(a, w).wrapping_abs() as u64,
        I1::Not => !a,
        I1::Cnot => u64::from(a == 0),
        I1::Brev => a.reverse_bits() >> (64 - bits),
        I1::Popc => u64::from(a.count_ones()),
        I1::Clz => u64::from(a.leading_zeros() - (64 - bits)),
        I1::BfindU | I1::BfindS | I1::BfindShiftU | I1::BfindShiftS => {
            let signed = matches!(op, I1::BfindS | I1::BfindShiftS);
            let v = if signed && sext(a, w) < 0 { !a & w.mask() } else { a };
            match v {
                0 => u64::from(u32::MAX),
                v => {
                    let top = 63 - v.leading_zeros();
                    let shift = matches!(op, I1::BfindShiftU | I1::BfindShiftS);
                    u64::from(if shift { bits - 1 - top } else { top })
                }
            }
        }
    }
}

/// Three operands.
#[inline(always)]
pub(crate) fn three(op: I3, w: W, a: u64, b: u64, c: u64) -> u64 {
    match op {
        I3::Mad => a.wrapping_mul(b).wrapping_add(c),
        I3::MadHiS => two(I2::MulHiS, w, a, b).wrapping_add(c),
        I3::MadHiU => two(I2::MulHiU, w, a, b).wrapping_add(c),
        I3::MadHiSat => {
            let hi = two(I2::MulHiS, w, a, b) as i32;
            u64::from(hi.saturating_add(c as i32) as u32)
        }
        I3::Mad24LoS => (mul24(a, b, true) as u64).wrapping_add(c),
        I3::Mad24LoU => (mul24(a, b, false) as u64).wrapping_add(c),
        I3::Mad24HiS => ((mul24(a, b, true) >> 16) as u64).wrapping_add(c),
        I3::Mad24HiU => ((mul24(a, b, false) >> 16) as u64).wrapping_add(c),
        I3::SadS => sext(a, w).abs_diff(sext(b, w)).wrapping_add(c),
        I3::SadU => a.abs_diff(b).wrapping_add(c),
        I3::BfeS | I3::BfeU => field(a, b as u32 & 0xff, c as u32 & 0xff, w, op == I3::BfeS),
        I3::ShfLClamp => u64::from((pair(a, b) << (c as u32).min(32) >> 32) as u32),
        I3::ShfLWrap => u64::from((pair(a, b) << (c & 31) >> 32) as u32),
        I3::ShfRClamp => u64::from((pair(a, b) >> (c as u32).min(32)) as u32),
        I3::ShfRWrap => u64::from((pair(a, b) >> (c & 31)) as u32),
        I3::Dp4a { a: sa, b: sb } => {
            let byte = |v: u64, i: u32, signed: bool| {
                let x = (v >> (8 * i)) as u8;
                if signed { i64::from(x as i8) } else { i64::from(x) }
            };
            (0..4).fold(c, |s, i| s.wrapping_add((byte(a, i, sa) * byte(b, i, sb)) as u64))
        }
        I3::Dp2aLo { a: sa, b: sb } => dp2a(a, b, c, sa, sb, 0),
        I3::Dp2aHi { a: sa, b: sb } => dp2a(a, b, c, sa, sb, 2),
    }
}

fn dp2a(a: u64, b: u64, c: u64, sa: bool, sb: bool, first: u32) -> u64 {
    (0..2).fold(c, |s, i| {
        let x = (a >> (16 * i)) as u16;
        let y = (b >> (8 * (first + i))) as u8;
        let x = if sa { i64::from(x as i16) } else { i64::from(x) };
        let y = if sb { i64::from(y as i8) } else { i64::from(y) };
        s.wrapping_add((x * y) as u64)
    })
}

/// The 64-bit value of a funnel shift: `b` above `a`.
fn pair(a: u64, b: u64) -> u64 {
    b << 32 | a & 0xffff_ffff
}

fn field(a: u64, pos: u32, len: u32, w: W, signed: bool) -> u64 {
    let top = w.bits() - 1;
    let sign = if !signed || len == 0 { 0 } else { a >> (pos + len - 1).min(top) & 1 };
    (0..w.bits()).fold(0, |d, i| {
        let bit = if i < len && pos + i <= top { a >> (pos + i) & 1 } else { sign };
        d | bit << i
    })
}

/// `bfi`: b with `len` bits of a at `pos`.
#[inline(always)]
pub(crate) fn insert(a: u64, b: u64, pos: u32, len: u32, w: W) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos >= w.bits() || len == 0 {
        return b;
    }
    let ones = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    let mask = ones << pos & w.mask();
    b & !mask | a << pos & mask
}

/// `prmt`: bytes of (b, a) by a selector or a mode.
#[inline(always)]
pub(crate) fn permute(mode: Prmt, a: u32, b: u32, c: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let at = |i: u32| (bytes >> (8 * (i & 7))) as u8;
    let from = |s: [u32; 4]| u32::from_le_bytes(s.map(at));
    let n = c & 3;
    match mode {
        Prmt::Index => {
            let one = |i: u32| {
                let s = c >> (4 * i) & 15;
                let v = at(s & 7);
                if s & 8 != 0 { (v as i8 >> 7) as u8 } else { v }
            };
            u32::from_le_bytes([one(0), one(1), one(2), one(3)])
        }
        Prmt::F4e => from([n, n + 1, n + 2, n + 3]),
        Prmt::B4e => from([n, n + 7, n + 6, n + 5]),
        Prmt::Rc8 => from([n; 4]),
        Prmt::Ecl => from([n, n.max(1), n.max(2), 3]),
        Prmt::Ecr => from([0, n.min(1), n.min(2), n]),
        Prmt::Rc16 => {
            let h = 2 * (n & 1);
            from([h, h + 1, h, h + 1])
        }
    }
}

/// `lop3`: the table's bit for every triple of bits.
#[inline(always)]
pub(crate) fn lop3(table: u8, a: u32, b: u32, c: u32) -> u32 {
    let mut d = 0;
    for i in 0..8 {
        if table >> i & 1 == 1 {
            let pick = |v: u32, bit: u32| if i >> bit & 1 == 1 { v } else { !v };
            d |= pick(a, 2) & pick(b, 1) & pick(c, 0);
        }
    }
    d
}
