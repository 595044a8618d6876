//! Loops that are compiled once per instruction set and chosen at run time.
//!
//! A [`Loop`] is written once, in safe code over fixed-size arrays, and inlined into functions with
//! and without AVX2 and FMA, where the compiler turns the arrays into vectors. The order of every
//! sum is written out, so only the rounding of fused multiply-adds tells the two apart.

use std::sync::OnceLock;

/// Work that [`run`] executes with the best instructions of this machine.
pub trait Loop {
    /// The work; mark it `#[inline(always)]`. With `FMA`, [`fma`] is one instruction.
    fn run<const FMA: bool>(self);
}

/// `a * b + c`, rounded once with `FMA` and twice without.
#[inline(always)]
pub fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Executes `work`.
pub fn run(work: impl Loop) {
    #[cfg(target_arch = "x86_64")]
    if has_fma() {
        // SAFETY: the features were detected.
        return unsafe { run_avx2(work) };
    }
    work.run::<false>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(work: impl Loop) {
    work.run::<true>();
}

/// Whether AVX2 and FMA exist here and `MONOPATH_ISA` does not forbid them.
pub(super) fn has_fma() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            std::env::var_os("MONOPATH_ISA").is_none_or(|isa| isa != "portable")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    })
}
