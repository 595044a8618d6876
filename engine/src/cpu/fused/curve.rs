//! Activations on whole vectors: the value, and value and slope together.

use crate::cpu::simd::Simd;

/// An activation that is zero at zero.
pub trait Curve: Copy {
    /// The value at `u`.
    fn value<S: Simd>(s: S, u: S::W) -> S::W;
    /// Value and derivative at `u`; at kinks as PyTorch.
    fn both<S: Simd>(s: S, u: S::W) -> (S::W, S::W);
}

/// The identity.
#[derive(Clone, Copy)]
pub struct Identity;
/// `max(u, 0)`.
#[derive(Clone, Copy)]
pub struct Relu;
/// `min(max(u, 0), 6)`.
#[derive(Clone, Copy)]
pub struct Relu6;
/// `u relu6(u + 3) / 6`.
#[derive(Clone, Copy)]
pub struct HSwish;
/// `u sigmoid(u)`.
#[derive(Clone, Copy)]
pub struct Swish;

/// Evaluates an expression with a type parameter that stands for an [`crate::ops::Act`].
macro_rules! with_curve {
    ($act:expr, $curve:ident => $body:expr) => {
        match $act {
            $crate::ops::Act::None => {
                type $curve = $crate::cpu::fused::curve::Identity;
                $body
            }
            $crate::ops::Act::Relu => {
                type $curve = $crate::cpu::fused::curve::Relu;
                $body
            }
            $crate::ops::Act::Relu6 => {
                type $curve = $crate::cpu::fused::curve::Relu6;
                $body
            }
            $crate::ops::Act::HSwish => {
                type $curve = $crate::cpu::fused::curve::HSwish;
                $body
            }
            $crate::ops::Act::Swish => {
                type $curve = $crate::cpu::fused::curve::Swish;
                $body
            }
            other => unreachable!("the block's shape() refuses {other:?}"),
        }
    };
}
pub(super) use with_curve;

impl Curve for Identity {
    #[inline(always)]
    fn value<S: Simd>(_s: S, u: S::W) -> S::W {
        u
    }

    #[inline(always)]
    fn both<S: Simd>(s: S, u: S::W) -> (S::W, S::W) {
        (u, s.wsplat(1.0))
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn value<S: Simd>(s: S, u: S::W) -> S::W {
        // In this order what is no number stays so.
        s.wmax(s.wsplat(0.0), u)
    }

    #[inline(always)]
    fn both<S: Simd>(s: S, u: S::W) -> (S::W, S::W) {
        let zero = s.wsplat(0.0);
        (s.wmax(zero, u), s.wgreater(u, zero, s.wsplat(1.0), zero))
    }
}

impl Curve for Relu6 {
    #[inline(always)]
    fn value<S: Simd>(s: S, u: S::W) -> S::W {
        s.wmin(s.wsplat(6.0), s.wmax(s.wsplat(0.0), u))
    }

    #[inline(always)]
    fn both<S: Simd>(s: S, u: S::W) -> (S::W, S::W) {
        let (zero, six) = (s.wsplat(0.0), s.wsplat(6.0));
        let slope = s.wgreater(u, zero, s.wgreater(six, u, s.wsplat(1.0), zero), zero);
        (s.wmin(six, s.wmax(zero, u)), slope)
    }
}

impl Curve for HSwish {
    #[inline(always)]
    fn value<S: Simd>(s: S, u: S::W) -> S::W {
        let inner = s.wmin(s.wsplat(6.0), s.wmax(s.wsplat(0.0), s.wadd(u, s.wsplat(3.0))));
        s.wmul(s.wmul(u, s.wsplat(1.0 / 6.0)), inner)
    }

    #[inline(always)]
    fn both<S: Simd>(s: S, u: S::W) -> (S::W, S::W) {
        let three = s.wsplat(3.0);
        let between = s.wfma(u, s.wsplat(1.0 / 3.0), s.wsplat(0.5));
        // At 3 the line has 1.5 and the derivative is 1, so the upper end is shut too.
        let right = s.wgreater(three, u, between, s.wsplat(1.0));
        (Self::value(s, u), s.wgreater(u, s.wsplat(-3.0), right, s.wsplat(0.0)))
    }
}

/// `1 / (1 + exp(-u))`, to about 1e-7.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, u: S::W) -> S::W {
    let one = s.wsplat(1.0);
    let t = s.wmul(u, s.wsplat(-std::f32::consts::LOG2_E));
    let t = s.wmin(s.wsplat(126.0), s.wmax(s.wsplat(-126.0), t));
    let n = s.wround(t);
    let f = s.wsub(t, n);
    // 2^f by Taylor's series, |f| <= 1/2: ln(2)^i / i!.
    let mut power = s.wsplat(1.540_353e-4);
    for factor in [1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1, std::f32::consts::LN_2, 1.0] {
        power = s.wfma(power, f, s.wsplat(factor));
    }
    s.wdiv(one, s.wfma(power, s.wpower(n), one))
}

impl Curve for Swish {
    #[inline(always)]
    fn value<S: Simd>(s: S, u: S::W) -> S::W {
        s.wmul(u, sigmoid(s, u))
    }

    #[inline(always)]
    fn both<S: Simd>(s: S, u: S::W) -> (S::W, S::W) {
        let g = sigmoid(s, u);
        let value = s.wmul(u, g);
        (value, s.wfma(value, s.wsub(s.wsplat(1.0), g), g))
    }
}
