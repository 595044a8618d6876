//! Number formats of matrices: bytes to f64 and back with one rounding, to nearest with ties to even.

/// Type of the elements of a matrix or of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Element {
    /// The element type of a `cudaDataType`.
    pub fn of_data_type(number: u32) -> Option<Element> {
        Some(match number {
            0 => Element::F32,
            1 => Element::F64,
            2 => Element::F16,
            14 => Element::Bf16,
            _ => return None,
        })
    }

    /// Size in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Element::F16 | Element::Bf16 => 2,
            Element::F32 => 4,
            Element::F64 => 8,
        }
    }

    /// The values in little-endian bytes.
    pub fn decode(self, bytes: &[u8]) -> Vec<f64> {
        let size = self.bytes() as usize;
        bytes.chunks_exact(size).map(|b| self.decode_one(b)).collect()
    }

    /// The value of one element.
    pub fn decode_one(self, b: &[u8]) -> f64 {
        match self {
            Element::F16 => f16_to_f64(u16::from_le_bytes([b[0], b[1]])),
            Element::Bf16 => f64::from(f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)),
            Element::F32 => f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Element::F64 => f64::from_le_bytes(b.try_into().expect("eight bytes")),
        }
    }

    /// Appends a value, rounded once.
    pub fn encode(self, value: f64, to: &mut Vec<u8>) {
        match self {
            Element::F16 => to.extend(f64_to_f16(value).to_le_bytes()),
            Element::Bf16 => to.extend(f64_to_bf16(value).to_le_bytes()),
            Element::F32 => to.extend((value as f32).to_le_bytes()),
            Element::F64 => to.extend(value.to_le_bytes()),
        }
    }
}

fn f16_to_f64(h: u16) -> f64 {
    let sign = if h & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f64::from(h & 0x3ff);
    match (h >> 10) & 0x1f {
        0 => sign * fraction * 2f64.powi(-24),
        0x1f if fraction == 0.0 => sign * f64::INFINITY,
        0x1f => f64::NAN,
        e => sign * (1024.0 + fraction) * 2f64.powi(i32::from(e) - 25),
    }
}

/// Single precision whose last bit says whether anything was cut off, so that a second rounding does no harm.
fn to_odd_f32(value: f64) -> f32 {
    let near = value as f32;
    let back = f64::from(near);
    if back == value || near.is_nan() || near.to_bits() & 1 == 1 {
        return near;
    }
    if near.is_infinite() {
        return if value.is_infinite() { near } else { f32::MAX.copysign(near) };
    }
    // Both neighbours of an even last bit are odd; take the one on the value's side.
    if back.abs() < value.abs() {
        f32::from_bits(near.to_bits() + 1)
    } else {
        f32::from_bits(near.to_bits() - 1)
    }
}

fn f64_to_bf16(value: f64) -> u16 {
    let f = to_odd_f32(value);
    let bits = f.to_bits();
    if f.is_nan() {
        return 0x7fff;
    }
    let half = 0x7fff + ((bits >> 16) & 1);
    ((bits + half) >> 16) as u16
}

fn f64_to_f16(value: f64) -> u16 {
    if value.is_nan() {
        return 0x7fff;
    }
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let a = value.abs();
    if a >= 65520.0 {
        return sign | 0x7c00;
    }
    // The unit in the last place: of the value's binade, or of the denormals.
    let exponent = if a < 2f64.powi(-14) { -14 } else { (a.to_bits() >> 52) as i32 - 1023 };
    let units = (a * 2f64.powi(10 - exponent)).round_ties_even() as u16;
    // A carry into the next binade adds up by itself.
    sign | (((exponent + 14) as u16) << 10).wrapping_add(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_values_survive_and_round_to_even() {
        for h in 0..=0xffffu16 {
            let v = f16_to_f64(h);
            if v.is_nan() {
                assert_eq!(f64_to_f16(v), 0x7fff);
            } else {
                assert_eq!(f64_to_f16(v), h, "{h:#x} {v}");
                assert_eq!(v, f64::from(half::f16::from_bits(h)));
            }
        }
        for (i, x) in
            [0.1, 1.0 / 3.0, 65519.9, 65520.0, 6e-8, 2.9e-8, 1e-9, 2049.0, 2051.0, 5.96e-8].iter().enumerate()
        {
            assert_eq!(f64_to_f16(*x), half::f16::from_f64(*x).to_bits(), "case {i}");
            assert_eq!(f64_to_f16(-x), half::f16::from_f64(-x).to_bits(), "case {i}");
        }
    }

    #[test]
    fn brain_floats_are_rounded_once() {
        for bits in 0..=0xffffu16 {
            let v = half::bf16::from_bits(bits);
            if !v.is_nan() {
                assert_eq!(f64_to_bf16(v.to_f64()), bits);
            }
        }
        // Just above a tie in f64, but a tie in f32: rounding twice would give the even neighbour.
        let tie = f64::from(f32::from_bits(0x3f80_8000));
        assert_eq!(f64_to_bf16(tie), 0x3f80);
        assert_eq!(f64_to_bf16(tie + 1e-12), 0x3f81);
        assert_eq!(f64_to_bf16(-(tie + 1e-12)), 0xbf81);
        assert_eq!(f64_to_bf16(tie - 1e-12), 0x3f80);
        assert_eq!(f64_to_bf16(1e300), 0x7f80);
        assert_eq!(f64_to_bf16(f64::NEG_INFINITY), 0xff80);
    }
}
