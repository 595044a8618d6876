//! Vectors of eight floats, and loops that are compiled once per instruction set.
//!
//! A [`Loop`] is written once over [`Simd`] and inlined into functions with and without AVX2 and
//! FMA; [`run`] picks one at run time. The order of every sum is written out, so only the rounding
//! of fused multiply-adds tells the two apart. `MONOPATH_ISA=portable` forbids AVX2.

use std::sync::OnceLock;

/// Floats in a vector.
pub const LANES: usize = 8;

/// Work that [`run`] executes with the best instructions of this machine.
pub trait Loop {
    /// The work; mark it and all it calls `#[inline(always)]`.
    fn run<S: Simd>(self, s: S);
}

/// Executes `work`.
pub fn run(work: impl Loop) {
    #[cfg(target_arch = "x86_64")]
    if let Some(token) = x86::Avx2::detect() {
        return token.run(work);
    }
    work.run(Portable(()));
}

/// Whether [`run`] uses AVX2 and FMA.
pub fn has_fma() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::Avx2::detect().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// An instruction set; whoever holds a value has proof that the machine has it.
pub trait Simd: Copy {
    /// Eight floats.
    type V: Copy;
    /// Whether multiply-adds round once, and a tile of a product holds twelve vectors and not four.
    const FMA: bool;

    /// `a * b + c` of single floats, rounded as [`Simd::fma`] does.
    fn fma1(self, a: f32, b: f32, c: f32) -> f32;
    /// Eight times `a`.
    fn splat(self, a: f32) -> Self::V;
    /// From memory.
    ///
    /// # Safety
    /// Eight floats lie at `from`.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// As an array.
    fn array(self, a: Self::V) -> [f32; LANES];
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// To memory.
    ///
    /// # Safety
    /// Eight floats lie at `to`, and nobody else reads or writes them.
    unsafe fn store(self, a: Self::V, to: *mut f32);
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`: a NaN in `b` stays.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`: a NaN in `b` stays.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { yes } else { no }`.
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// The nearest integer.
    fn round(self, a: Self::V) -> Self::V;
    /// Two to the power of `a`, an integer from -126 to 127.
    fn power_of_two(self, a: Self::V) -> Self::V;
    /// Asks for the cache line at `at`, which need not be valid.
    fn prefetch(self, at: *const f32);
}

/// No instructions beyond what the build assumes.
#[derive(Clone, Copy)]
pub struct Portable(());

impl Simd for Portable {
    // Two halves, so that each fits a vector of the smallest x86-64 and of 64-bit ARM.
    type V = [[f32; 4]; 2];
    const FMA: bool = false;

    #[inline(always)]
    fn fma1(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    fn splat(self, a: f32) -> Self::V {
        [[a; 4]; 2]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's promise; an array of floats has no padding and a float's alignment.
        unsafe { *from.cast() }
    }

    #[inline(always)]
    fn array(self, a: Self::V) -> [f32; LANES] {
        let mut all = [0.0; LANES];
        all[..4].copy_from_slice(&a[0]);
        all[4..].copy_from_slice(&a[1]);
        all
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        let half = |i: usize| [a[i][0] + b[i][0], a[i][1] + b[i][1], a[i][2] + b[i][2], a[i][3] + b[i][3]];
        [half(0), half(1)]
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let one = |i: usize, j: usize| a[i][j] * b[i][j] + c[i][j];
        let half = |i: usize| [one(i, 0), one(i, 1), one(i, 2), one(i, 3)];
        [half(0), half(1)]
    }

    #[inline(always)]
    unsafe fn store(self, a: Self::V, to: *mut f32) {
        // SAFETY: the caller's promise, as for `load`.
        unsafe { *to.cast() = a }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        pairs(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        pairs(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        pairs(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        pairs(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        pairs(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        let one = |i: usize, j: usize| if a[i][j] < b[i][j] { yes[i][j] } else { no[i][j] };
        let half = |i: usize| [one(i, 0), one(i, 1), one(i, 2), one(i, 3)];
        [half(0), half(1)]
    }

    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        pairs(a, a, |a, _| a.round_ties_even())
    }

    #[inline(always)]
    fn power_of_two(self, a: Self::V) -> Self::V {
        pairs(a, a, |a, _| f32::from_bits(((a as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn prefetch(self, _at: *const f32) {}
}

#[inline(always)]
fn pairs(a: [[f32; 4]; 2], b: [[f32; 4]; 2], f: impl Fn(f32, f32) -> f32) -> [[f32; 4]; 2] {
    let half =
        |i: usize| [f(a[i][0], b[i][0]), f(a[i][1], b[i][1]), f(a[i][2], b[i][2]), f(a[i][3], b[i][3])];
    [half(0), half(1)]
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Loop, OnceLock, Simd};

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub struct Avx2(());

    impl Avx2 {
        pub fn detect() -> Option<Self> {
            static FOUND: OnceLock<bool> = OnceLock::new();
            let found = *FOUND.get_or_init(|| {
                std::env::var_os("MONOPATH_ISA").is_none_or(|isa| isa != "portable")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
            });
            found.then_some(Self(()))
        }

        pub fn run(self, work: impl Loop) {
            // SAFETY: the features were detected, or there were no `self`.
            unsafe { inside(self, work) }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn inside(token: Avx2, work: impl Loop) {
        work.run(token);
    }

    impl Simd for Avx2 {
        type V = __m256;
        const FMA: bool = true;

        #[inline(always)]
        fn fma1(self, a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }

        #[inline(always)]
        fn splat(self, a: f32) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_set1_ps(a) }
        }

        #[inline(always)]
        unsafe fn load(self, from: *const f32) -> __m256 {
            // SAFETY: `self` is proof of the instructions; the memory is the caller's promise.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        fn array(self, a: __m256) -> [f32; LANES] {
            let mut all = [0.0; LANES];
            // SAFETY: `self` is proof of the instructions; the array has eight floats.
            unsafe { _mm256_storeu_ps(all.as_mut_ptr(), a) };
            all
        }

        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn store(self, a: __m256, to: *mut f32) {
            // SAFETY: `self` is proof of the instructions; the memory is the caller's promise.
            unsafe { _mm256_storeu_ps(to, a) }
        }

        #[inline(always)]
        fn sub(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_sub_ps(a, b) }
        }

        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_mul_ps(a, b) }
        }

        #[inline(always)]
        fn div(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_div_ps(a, b) }
        }

        #[inline(always)]
        fn max(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_max_ps(a, b) }
        }

        #[inline(always)]
        fn min(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_min_ps(a, b) }
        }

        #[inline(always)]
        fn if_less(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
        }

        #[inline(always)]
        fn round(self, a: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }

        #[inline(always)]
        fn power_of_two(self, a: __m256) -> __m256 {
            // SAFETY: `self` is proof of the instructions.
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            }
        }

        #[inline(always)]
        fn prefetch(self, at: *const f32) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sums<'a>(&'a [f32], &'a mut [f32]);

    impl Loop for Sums<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            assert!(self.0.len() >= 2 * LANES);
            // SAFETY: two vectors lie there.
            let (a, b) = unsafe { (s.load(self.0.as_ptr()), s.load(self.0[LANES..].as_ptr())) };
            let sum = s.array(s.add(s.fma(a, b, s.splat(0.5)), a));
            self.1.copy_from_slice(&sum);
            assert_eq!(sum[3], s.fma1(self.0[3], self.0[3 + LANES], 0.5) + self.0[3]);
        }
    }

    /// Every intermediate value is exact, so both instruction sets must agree to the bit.
    #[test]
    fn both_instruction_sets_compute_the_same() {
        let data: Vec<f32> = (0..16).map(|i| i as f32 - 5.0).collect();
        let want: Vec<f32> = (0..8).map(|i| data[i] * data[i + 8] + 0.5 + data[i]).collect();
        let (mut best, mut portable) = ([0.0; 8], [0.0; 8]);
        run(Sums(&data, &mut best));
        Sums(&data, &mut portable).run(Portable(()));
        assert_eq!(best.to_vec(), want);
        assert_eq!(portable.to_vec(), want);
    }
}
