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
    /// To memory.
    ///
    /// # Safety
    /// Eight floats that may be written lie at `to`.
    unsafe fn store(self, to: *mut f32, a: Self::V);
    /// As an array.
    #[inline(always)]
    fn array(self, a: Self::V) -> [f32; LANES] {
        let mut all = [0.0; LANES];
        // SAFETY: the array has eight floats.
        unsafe { self.store(all.as_mut_ptr(), a) };
        all
    }
    /// Asks for the cache line at `at`, which need not be valid.
    fn prefetch(self, at: *const f32);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// Writes (or adds) the first `to.len()` of sixteen values.
#[inline(always)]
pub(super) fn store16<S: Simd>(s: S, values: [S::V; 2], to: &mut [f32], add: bool) {
    if to.len() == 2 * LANES {
        let to = to.as_mut_ptr();
        // SAFETY: sixteen floats lie at `to`.
        unsafe {
            let high = to.add(LANES);
            if add {
                s.store(to, s.add(s.load(to), values[0]));
                s.store(high, s.add(s.load(high), values[1]));
            } else {
                s.store(to, values[0]);
                s.store(high, values[1]);
            }
        }
        return;
    }
    for (to, values) in to.chunks_mut(LANES).zip(values) {
        let values = s.array(values);
        for (to, value) in to.iter_mut().zip(values) {
            *to = if add { *to + value } else { value };
        }
    }
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
    unsafe fn store(self, to: *mut f32, a: Self::V) {
        // SAFETY: as in `load`.
        unsafe { *to.cast() = a };
    }

    #[inline(always)]
    fn prefetch(self, _at: *const f32) {}

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
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Loop, OnceLock, Simd};

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
        unsafe fn store(self, to: *mut f32, a: __m256) {
            // SAFETY: `self` is proof of the instructions; the memory is the caller's promise.
            unsafe { _mm256_storeu_ps(to, a) }
        }

        #[inline(always)]
        fn prefetch(self, at: *const f32) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
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
