//! Binary floating point in software: any of four formats, any rounding, exact before the one rounding at the end.
//!
//! It defines every form that the host's own arithmetic does not cover (directed rounding, flushing, 16-bit formats),
//! and the tests hold the fast paths against it.

use crate::ptx::types::Rnd;

/// A format: exponent and fraction bits, and the NaN that results have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub exp: u32,
    pub man: u32,
    pub nan: u64,
}

/// IEEE half.
pub(crate) const F16: Format = Format { exp: 5, man: 10, nan: 0x7fff };
/// Truncated single.
pub(crate) const BF16: Format = Format { exp: 8, man: 7, nan: 0x7fff };
/// IEEE single with NVIDIA's canonical NaN.
pub(crate) const F32: Format = Format { exp: 8, man: 23, nan: 0x7fff_ffff };
/// IEEE double.
pub(crate) const F64: Format = Format { exp: 11, man: 52, nan: 0xfff8_0000_0000_0000 };
/// Single with the fraction that tensor cores read.
pub(crate) const TF32: Format = Format { exp: 8, man: 10, nan: 0x3ffff };

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.exp - 1)) - 1
    }

    fn sign(self, negative: bool) -> u64 {
        u64::from(negative) << (self.exp + self.man)
    }

    /// Infinity.
    pub(crate) fn infinity(self, negative: bool) -> u64 {
        self.sign(negative) | ((1 << self.exp) - 1) << self.man
    }

    fn largest(self, negative: bool) -> u64 {
        self.infinity(negative) - 1
    }
}

/// A value taken apart. A finite one is `man * 2^exp`, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    Nan,
    Infinite(bool),
    Zero(bool),
    Finite { negative: bool, exp: i32, man: u128 },
}

use Value::*;

impl Value {
    fn negated(self) -> Value {
        match self {
            Nan => Nan,
            Infinite(s) => Infinite(!s),
            Zero(s) => Zero(!s),
            Finite { negative, exp, man } => Finite { negative: !negative, exp, man },
        }
    }

    fn negative(self) -> bool {
        match self {
            Nan => false,
            Infinite(s) | Zero(s) => s,
            Finite { negative, .. } => negative,
        }
    }
}

/// Takes bits apart; with `ftz`, a subnormal is a zero of its sign.
pub(crate) fn unpack(bits: u64, f: Format, ftz: bool) -> Value {
    let negative = bits >> (f.exp + f.man) & 1 == 1;
    let exp = (bits >> f.man & ((1 << f.exp) - 1)) as i32;
    let man = bits & ((1 << f.man) - 1);
    if exp == (1 << f.exp) - 1 {
        return if man == 0 { Infinite(negative) } else { Nan };
    }
    if exp == 0 {
        if man == 0 || ftz {
            return Zero(negative);
        }
        return Finite { negative, exp: 1 - f.bias() - f.man as i32, man: u128::from(man) };
    }
    Finite { negative, exp: exp - f.bias() - f.man as i32, man: u128::from(man | 1 << f.man) }
}

/// Rounds a value into a format. With `ftz`, a result that is subnormal after rounding is a zero of its sign.
pub(crate) fn pack(v: Value, f: Format, rnd: Rnd, ftz: bool) -> u64 {
    let (negative, exp, man) = match v {
        Nan => return f.nan,
        Infinite(s) => return f.infinity(s),
        Zero(s) => return f.sign(s),
        Finite { man: 0, negative, .. } => return f.sign(negative),
        Finite { negative, exp, man } => (negative, exp, man),
    };
    let top = 127 - man.leading_zeros() as i32 + exp;
    let smallest = 1 - f.bias();
    let quantum = top.max(smallest) - f.man as i32;
    let shift = quantum - exp;
    let (mut kept, half, rest) = if shift <= 0 {
        ((man << -shift) as u64, false, false)
    } else if shift > 127 {
        (0, false, true)
    } else {
        let half = man >> (shift - 1) & 1 == 1;
        let rest = man & ((1u128 << (shift - 1)) - 1) != 0;
        ((man >> shift) as u64, half, rest)
    };
    let up = match rnd {
        Rnd::Rn => half && (rest || kept & 1 == 1),
        Rnd::Rna => half,
        Rnd::Rz => false,
        Rnd::Rm => negative && (half || rest),
        Rnd::Rp => !negative && (half || rest),
    };
    kept += u64::from(up);
    if kept >> f.man == 0 {
        // Subnormal.
        return f.sign(negative) | if ftz { 0 } else { kept };
    }
    // A carry out of the fraction moves into the exponent by itself.
    let biased = (quantum + f.man as i32 + f.bias()) as u64;
    let bits = ((biased - 1) << f.man) + kept;
    if bits >= f.infinity(false) {
        let away = match rnd {
            Rnd::Rn | Rnd::Rna => true,
            Rnd::Rz => false,
            Rnd::Rm => negative,
            Rnd::Rp => !negative,
        };
        return if away { f.infinity(negative) } else { f.largest(negative) };
    }
    f.sign(negative) | bits
}

/// Moves the leading bit to bit 124.
fn normal(exp: i32, man: u128) -> (i32, u128) {
    let shift = man.leading_zeros() as i32 - 3;
    if shift >= 0 { (exp - shift, man << shift) } else { (exp - shift, jam(man, -shift as u32)) }
}

/// Shifts right, keeping a lost bit visible in the last place.
fn jam(man: u128, by: u32) -> u128 {
    if by >= 128 {
        return u128::from(man != 0);
    }
    let kept = man >> by;
    kept | u128::from(kept << by != man)
}

/// Sum; `rnd` decides the sign of an exact zero only.
pub(crate) fn add(a: Value, b: Value, rnd: Rnd) -> Value {
    match (a, b) {
        (Nan, _) | (_, Nan) => Nan,
        (Infinite(s), Infinite(t)) if s != t => Nan,
        (Infinite(s), _) | (_, Infinite(s)) => Infinite(s),
        (Zero(s), Zero(t)) => Zero(if s == t { s } else { rnd == Rnd::Rm }),
        (Zero(_), x) | (x, Zero(_)) => x,
        (Finite { negative: s, exp: ea, man: ma }, Finite { negative: t, exp: eb, man: mb }) => {
            let ((ea, ma), (eb, mb)) = (normal(ea, ma), normal(eb, mb));
            let (s, ea, ma, t, eb, mb) =
                if (eb, mb) > (ea, ma) { (t, eb, mb, s, ea, ma) } else { (s, ea, ma, t, eb, mb) };
            let mb = jam(mb, (ea - eb) as u32);
            let man = if s == t { ma + mb } else { ma - mb };
            if man == 0 { Zero(rnd == Rnd::Rm) } else { Finite { negative: s, exp: ea, man } }
        }
    }
}

/// Product.
pub(crate) fn mul(a: Value, b: Value) -> Value {
    let negative = a.negative() != b.negative();
    match (a, b) {
        (Nan, _) | (_, Nan) | (Infinite(_), Zero(_)) | (Zero(_), Infinite(_)) => Nan,
        (Infinite(_), _) | (_, Infinite(_)) => Infinite(negative),
        (Zero(_), _) | (_, Zero(_)) => Zero(negative),
        (Finite { exp: ea, man: ma, .. }, Finite { exp: eb, man: mb, .. }) => {
            Finite { negative, exp: ea + eb, man: ma * mb }
        }
    }
}

/// a * b + c with one rounding, left to the caller.
pub(crate) fn fma(a: Value, b: Value, c: Value, rnd: Rnd) -> Value {
    add(mul(a, b), c, rnd)
}

/// a - b.
pub(crate) fn sub(a: Value, b: Value, rnd: Rnd) -> Value {
    add(a, b.negated(), rnd)
}

/// Quotient, exact or with a last bit that says it is not.
pub(crate) fn div(a: Value, b: Value) -> Value {
    let negative = a.negative() != b.negative();
    match (a, b) {
        (Nan, _) | (_, Nan) | (Infinite(_), Infinite(_)) | (Zero(_), Zero(_)) => Nan,
        (Infinite(_), _) | (_, Zero(_)) => Infinite(negative),
        (Zero(_), _) | (_, Infinite(_)) => Zero(negative),
        (Finite { exp: ea, man: ma, .. }, Finite { exp: eb, man: mb, .. }) => {
            let (ea, ma) = normal(ea, ma);
            // Divisors have at most 53 bits, so the quotient has at least 71.
            let man = ((ma / mb) << 1) | u128::from(ma % mb != 0);
            Finite { negative, exp: ea - eb - 1, man }
        }
    }
}

/// Square root, exact or with a last bit that says it is not.
pub(crate) fn sqrt(a: Value) -> Value {
    match a {
        Nan | Infinite(true) | Finite { negative: true, .. } => Nan,
        Infinite(false) | Zero(_) => a,
        Finite { exp, man, .. } => {
            let (exp, man) = normal(exp, man);
            let (exp, man) = if exp & 1 == 0 { (exp, man) } else { (exp - 1, man << 1) };
            let root = man.isqrt();
            Finite { negative: false, exp: exp / 2 - 1, man: root << 1 | u128::from(root * root != man) }
        }
    }
}

/// Rounds to an integer value.
pub(crate) fn integral(a: Value, rnd: Rnd) -> Value {
    let Finite { negative, exp, man } = a else { return a };
    if exp >= 0 {
        return a;
    }
    let shift = -exp as u32;
    let (kept, half, rest) = if shift > 127 {
        (0, false, true)
    } else {
        let half = man >> (shift - 1) & 1 == 1;
        (man >> shift, half, man & ((1 << (shift - 1)) - 1) != 0)
    };
    let up = match rnd {
        Rnd::Rn => half && (rest || kept & 1 == 1),
        Rnd::Rna => half,
        Rnd::Rz => false,
        Rnd::Rm => negative && (half || rest),
        Rnd::Rp => !negative && (half || rest),
    };
    match kept + u128::from(up) {
        0 => Zero(negative),
        man => Finite { negative, exp: 0, man },
    }
}

/// An integer as a value.
pub(crate) fn from_int(v: i128) -> Value {
    match v {
        0 => Zero(false),
        _ => Finite { negative: v < 0, exp: 0, man: v.unsigned_abs() },
    }
}

/// An f64 as a value.
pub(crate) fn from_f64(v: f64) -> Value {
    unpack(v.to_bits(), F64, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws() -> impl Iterator<Item = u64> {
        let mut x = 0x1234_5678_9abc_def1u64;
        std::iter::repeat_with(move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        })
    }

    /// Bit patterns that break arithmetic, then random ones, some close together in exponent.
    fn f32s() -> Vec<u32> {
        let mut v = vec![
            0,
            1,
            2,
            0x007f_ffff,
            0x0080_0000,
            0x0080_0001,
            0x3f80_0000,
            0x3f7f_ffff,
            0x3f80_0001,
            0x4b80_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7fc0_0000,
            0x7f80_0001,
            0x3400_0000,
            0x3380_0000,
            0x7fff_ffff,
        ];
        v.extend(v.clone().iter().map(|b| b | 1 << 31));
        v.extend(draws().take(60).map(|d| d as u32));
        v.extend(draws().skip(60).take(60).map(|d| 0x3f00_0000 | d as u32 & 0x81ff_ffff));
        v
    }

    fn same32(soft: u64, host: f32) -> bool {
        if host.is_nan() { soft == F32.nan } else { soft as u32 == host.to_bits() }
    }

    #[test]
    fn f32_agrees_with_the_host_when_rounding_to_nearest() {
        let u = |b: u32| unpack(u64::from(b), F32, false);
        let p = |v| pack(v, F32, Rnd::Rn, false);
        for &a in &f32s() {
            let x = f32::from_bits(a);
            assert!(same32(p(sqrt(u(a))), x.sqrt()), "sqrt {x:e}");
            for &b in &f32s() {
                let y = f32::from_bits(b);
                assert!(same32(p(add(u(a), u(b), Rnd::Rn)), x + y), "{x:e} + {y:e}");
                assert!(same32(p(sub(u(a), u(b), Rnd::Rn)), x - y), "{x:e} - {y:e}");
                assert!(same32(p(mul(u(a), u(b))), x * y), "{x:e} * {y:e}");
                assert!(same32(p(div(u(a), u(b))), x / y), "{x:e} / {y:e}");
                for &c in f32s().iter().step_by(7) {
                    let z = f32::from_bits(c);
                    assert!(
                        same32(p(fma(u(a), u(b), u(c), Rnd::Rn)), x.mul_add(y, z)),
                        "fma {x:e} {y:e} {z:e}"
                    );
                }
            }
        }
    }

    #[test]
    fn f64_agrees_with_the_host_when_rounding_to_nearest() {
        let mut all: Vec<u64> =
            f32s().iter().map(|b| f64::from(f32::from_bits(*b)).to_bits()).step_by(3).collect();
        all.extend([1, 0x000f_ffff_ffff_ffff, 0x0010_0000_0000_0000, 0x7fef_ffff_ffff_ffff]);
        all.extend(draws().take(60));
        let u = |b: u64| unpack(b, F64, false);
        let same = |v: Value, host: f64| {
            let soft = pack(v, F64, Rnd::Rn, false);
            if host.is_nan() { soft == F64.nan } else { soft == host.to_bits() }
        };
        for &a in &all {
            let x = f64::from_bits(a);
            assert!(same(sqrt(u(a)), x.sqrt()), "sqrt {x:e}");
            for &b in &all {
                let y = f64::from_bits(b);
                assert!(same(add(u(a), u(b), Rnd::Rn), x + y), "{x:e} + {y:e}");
                assert!(same(mul(u(a), u(b)), x * y), "{x:e} * {y:e}");
                assert!(same(div(u(a), u(b)), x / y), "{x:e} / {y:e}");
                for &c in all.iter().step_by(5) {
                    let z = f64::from_bits(c);
                    assert!(same(fma(u(a), u(b), u(c), Rnd::Rn), x.mul_add(y, z)), "fma {x:e} {y:e} {z:e}");
                }
            }
        }
    }

    /// Neighbours in the order of values.
    fn next_up(b: u32) -> u32 {
        f32::from_bits(b).next_up().to_bits()
    }

    /// Directed roundings bracket the exact result: rm <= exact <= rp, adjacent or equal, and rz is the one nearer zero.
    /// The exact sum and product of two f32 are compared through f64 pairs that hold them exactly.
    #[test]
    fn directed_roundings_bracket_the_exact_result() {
        let u = |b: u32| unpack(u64::from(b), F32, false);
        for &a in &f32s() {
            for &b in &f32s() {
                let (x, y) = (f32::from_bits(a), f32::from_bits(b));
                if !x.is_finite() || !y.is_finite() {
                    continue;
                }
                // The product of two f32 is exact in f64.
                let exact = f64::from(x) * f64::from(y);
                let at = |r| f32::from_bits(pack(mul(u(a), u(b)), F32, r, false) as u32);
                let (lo, hi, zero) = (at(Rnd::Rm), at(Rnd::Rp), at(Rnd::Rz));
                assert!(f64::from(lo) <= exact && exact <= f64::from(hi), "{x:e} * {y:e}");
                if f64::from(lo) == exact {
                    assert_eq!(lo, hi, "exact results do not move");
                } else {
                    assert_eq!(next_up(lo.to_bits()), hi.to_bits(), "{x:e} * {y:e}");
                }
                assert_eq!(zero, if exact < 0.0 { hi } else { lo });
            }
        }
    }

    #[test]
    fn every_half_product_and_sum_rounds_as_the_definition_says() {
        // All finite halves in order; the nearest is found by search, not by arithmetic on bits.
        let halves: Vec<(f64, u64)> = (0..0x7c00u64)
            .map(|b| {
                let Finite { exp, man, .. } = unpack(b, F16, false) else { return (0.0, b) };
                (man as f64 * f64::powi(2.0, exp), b)
            })
            .collect();
        let nearest = |v: f64| -> u64 {
            let m = v.abs();
            if m >= 65520.0 {
                return 0x7c00;
            }
            let i = halves.partition_point(|(h, _)| *h <= m) - 1;
            let (lo, hi) = (halves[i], halves.get(i + 1).copied().unwrap_or((65536.0, 0x7c00)));
            let (dl, dh) = (m - lo.0, hi.0 - m);
            if dl < dh || (dl == dh && lo.1 & 1 == 0) { lo.1 } else { hi.1 }
        };
        for (i, d) in draws().take(40_000).enumerate() {
            let (a, b) = (d & 0x7bff, d >> 20 & 0xffff);
            if b & 0x7c00 == 0x7c00 {
                continue;
            }
            let value = |b: u64| {
                let h = halves[(b & 0x7fff) as usize].0;
                if b >> 15 == 1 { -h } else { h }
            };
            let (x, y) = (unpack(a, F16, false), unpack(b, F16, false));
            // Sums and products of halves are exact in f64.
            let (got, exact) = if i % 2 == 0 {
                (pack(mul(x, y), F16, Rnd::Rn, false), value(a) * value(b))
            } else {
                (pack(add(x, y, Rnd::Rn), F16, Rnd::Rn, false), value(a) + value(b))
            };
            assert_eq!(got & 0x7fff, nearest(exact), "{a:04x} {b:04x}: {exact:e}");
        }
    }

    #[test]
    fn flushing_keeps_the_sign() {
        let tiny = 0x8000_0001u64;
        assert_eq!(unpack(tiny, F32, true), Zero(true));
        let v = mul(unpack(0x8080_0000, F32, true), unpack(0x3f00_0000, F32, true));
        assert_eq!(pack(v, F32, Rnd::Rn, true), 0x8000_0000);
        assert_eq!(pack(v, F32, Rnd::Rn, false), 0x8040_0000);
    }

    #[test]
    fn rounding_to_integers_knows_ties_and_directions() {
        let go = |x: f64, r| f64::from_bits(pack(integral(from_f64(x), r), F64, Rnd::Rn, false));
        assert_eq!([0.5, 1.5, 2.5, -0.5].map(|x| go(x, Rnd::Rn)), [0.0, 2.0, 2.0, 0.0]);
        assert_eq!([0.5, -0.5, 7.9].map(|x| go(x, Rnd::Rm)), [0.0, -1.0, 7.0]);
        assert_eq!([0.1, -0.9].map(|x| go(x, Rnd::Rp)), [1.0, 0.0]);
        assert_eq!([1.9, -1.9].map(|x| go(x, Rnd::Rz)), [1.0, -1.0]);
        assert!(go(-0.5, Rnd::Rn).is_sign_negative());
    }
}
