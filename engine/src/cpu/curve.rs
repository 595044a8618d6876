//! Activations of eight values at a time.

use super::simd::Simd;

/// An activation with its derivative; at kinks as [`crate::ops::Act`].
pub trait Curve: Copy + Send + Sync {
    /// The value at `u`.
    fn value<S: Simd>(self, s: S, u: S::V) -> S::V;
    /// Value and derivative at `u`.
    fn both<S: Simd>(self, s: S, u: S::V) -> (S::V, S::V);
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
/// `u * relu6(u + 3) / 6`.
#[derive(Clone, Copy)]
pub struct HSwish;
/// `u * sigmoid(u)`.
#[derive(Clone, Copy)]
pub struct Swish;

impl Curve for Identity {
    #[inline(always)]
    fn value<S: Simd>(self, _: S, u: S::V) -> S::V {
        u
    }

    #[inline(always)]
    fn both<S: Simd>(self, s: S, u: S::V) -> (S::V, S::V) {
        (u, s.splat(1.0))
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, u: S::V) -> S::V {
        s.max(s.splat(0.0), u)
    }

    #[inline(always)]
    fn both<S: Simd>(self, s: S, u: S::V) -> (S::V, S::V) {
        let zero = s.splat(0.0);
        (s.max(zero, u), s.if_less(zero, u, s.splat(1.0), zero))
    }
}

impl Curve for Relu6 {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, u: S::V) -> S::V {
        s.min(s.splat(6.0), s.max(s.splat(0.0), u))
    }

    #[inline(always)]
    fn both<S: Simd>(self, s: S, u: S::V) -> (S::V, S::V) {
        let (zero, six) = (s.splat(0.0), s.splat(6.0));
        let above = s.if_less(zero, u, s.splat(1.0), zero);
        (self.value(s, u), s.if_less(u, six, above, zero))
    }
}

impl Curve for HSwish {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, u: S::V) -> S::V {
        let inner = s.min(s.splat(6.0), s.max(s.splat(0.0), s.add(u, s.splat(3.0))));
        s.mul(s.mul(u, s.splat(1.0 / 6.0)), inner)
    }

    #[inline(always)]
    fn both<S: Simd>(self, s: S, u: S::V) -> (S::V, S::V) {
        let between = s.fma(u, s.splat(1.0 / 3.0), s.splat(0.5));
        let high = s.if_less(s.splat(3.0), u, s.splat(1.0), between);
        (self.value(s, u), s.if_less(u, s.splat(-3.0), s.splat(0.0), high))
    }
}

impl Curve for Swish {
    #[inline(always)]
    fn value<S: Simd>(self, s: S, u: S::V) -> S::V {
        s.mul(u, sigmoid(s, u))
    }

    #[inline(always)]
    fn both<S: Simd>(self, s: S, u: S::V) -> (S::V, S::V) {
        let (one, sigmoid) = (s.splat(1.0), sigmoid(s, u));
        let inner = s.fma(u, s.sub(one, sigmoid), one);
        (s.mul(u, sigmoid), s.mul(sigmoid, inner))
    }
}

/// `1 / (1 + 2^t)` with `t = -u log2(e)`: the power is an exponent times a polynomial of degree 6.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, u: S::V) -> S::V {
    let t = s.mul(u, s.splat(-std::f32::consts::LOG2_E));
    let t = s.min(s.splat(126.0), s.max(s.splat(-126.0), t));
    let whole = s.round(t);
    let f = s.sub(t, whole);
    // The Taylor series of 2^f on [-1/2, 1/2]: powers of ln 2 over factorials.
    let mut power = s.splat(1.540_353e-4);
    for factor in [1.333_355_8e-3, 9.618_129e-3, 5.550_410_9e-2, 2.402_265e-1, 6.931_472e-1, 1.0] {
        power = s.fma(power, f, s.splat(factor));
    }
    let one = s.splat(1.0);
    s.div(one, s.fma(power, s.power_of_two(whole), one))
}
