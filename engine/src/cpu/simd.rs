//! Vectors of floats, and loops that are compiled once per instruction set.
//!
//! A [`Loop`] is written once over [`Simd`] and inlined into functions for every [`Isa`]; [`run`]
//! picks one at run time. Products, windows and element work of the fused block use the widest vectors
//! ([`Simd::W`]), the ops that stand alone eight lanes ([`Simd::V`]). `MONOPATH_ISA` forces an
//! instruction set.

pub use super::isa::Isa;

/// Floats in a vector.
pub const LANES: usize = 8;

/// Work that [`run`] executes with the best instructions of this machine.
pub trait Loop {
    /// The work; mark it and all it calls `#[inline(always)]`.
    fn run<S: Simd>(self, s: S);
}

/// Executes `work`.
#[inline]
pub fn run(work: impl Loop) {
    #[cfg(target_arch = "x86_64")]
    match Isa::current() {
        // SAFETY: an instruction set is current only if the machine has it.
        Isa::Avx512 => return unsafe { x86::inside_avx512(x86::Avx512(()), work) },
        // SAFETY: likewise.
        Isa::Avx2 => return unsafe { x86::inside_avx2(x86::Avx2(()), work) },
        Isa::Portable => {}
    }
    work.run(Portable(()));
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
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Asks for the cache line at `at`, which need not be valid.
    fn prefetch(self, at: *const f32);
    /// Asks for it in the second cache.
    fn prefetch_far(self, at: *const f32);

    /// The widest vector.
    type W: Copy;
    /// Lanes of [`Simd::W`], a divisor of 16.
    const WIDE: usize;
    /// `WIDE` times `a`.
    fn wsplat(self, a: f32) -> Self::W;
    /// From memory.
    ///
    /// # Safety
    /// `WIDE` floats lie at `from`.
    unsafe fn wload(self, from: *const f32) -> Self::W;
    /// To memory.
    ///
    /// # Safety
    /// `WIDE` floats that may be written lie at `to`.
    unsafe fn wstore(self, to: *mut f32, a: Self::W);
    /// The first eight lanes from memory, zeros above them.
    ///
    /// # Safety
    /// Eight floats lie at `from`.
    unsafe fn wload_low(self, from: *const f32) -> Self::W;
    /// The first eight lanes to memory.
    ///
    /// # Safety
    /// Eight floats that may be written lie at `to`.
    unsafe fn wstore_low(self, to: *mut f32, a: Self::W);
    /// `a + b`.
    fn wadd(self, a: Self::W, b: Self::W) -> Self::W;
    /// `a - b`.
    fn wsub(self, a: Self::W, b: Self::W) -> Self::W;
    /// `a * b`.
    fn wmul(self, a: Self::W, b: Self::W) -> Self::W;
    /// `a / b`.
    fn wdiv(self, a: Self::W, b: Self::W) -> Self::W;
    /// `a * b + c`.
    fn wfma(self, a: Self::W, b: Self::W, c: Self::W) -> Self::W;
    /// The larger; `b` if one is no number.
    fn wmax(self, a: Self::W, b: Self::W) -> Self::W;
    /// The smaller; `b` if one is no number.
    fn wmin(self, a: Self::W, b: Self::W) -> Self::W;
    /// Lane by lane `yes` where `a > b`, else `no`.
    fn wgreater(self, a: Self::W, b: Self::W, yes: Self::W, no: Self::W) -> Self::W;
    /// The nearest whole number, of halves the even one.
    fn wround(self, a: Self::W) -> Self::W;
    /// `2^a` of whole numbers from -126 to 127.
    fn wpower(self, a: Self::W) -> Self::W;
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
    fn prefetch(self, _at: *const f32) {}

    #[inline(always)]
    fn prefetch_far(self, _at: *const f32) {}

    type W = Self::V;
    const WIDE: usize = LANES;

    #[inline(always)]
    fn wsplat(self, a: f32) -> Self::W {
        self.splat(a)
    }

    #[inline(always)]
    unsafe fn wload(self, from: *const f32) -> Self::W {
        // SAFETY: the caller's promise.
        unsafe { self.load(from) }
    }

    #[inline(always)]
    unsafe fn wstore(self, to: *mut f32, a: Self::W) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to, a) };
    }

    #[inline(always)]
    unsafe fn wload_low(self, from: *const f32) -> Self::W {
        // SAFETY: the caller's promise.
        unsafe { self.load(from) }
    }

    #[inline(always)]
    unsafe fn wstore_low(self, to: *mut f32, a: Self::W) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to, a) };
    }

    #[inline(always)]
    fn wadd(self, a: Self::W, b: Self::W) -> Self::W {
        self.add(a, b)
    }

    #[inline(always)]
    fn wsub(self, a: Self::W, b: Self::W) -> Self::W {
        lanewise(|i, j| a[i][j] - b[i][j])
    }

    #[inline(always)]
    fn wmul(self, a: Self::W, b: Self::W) -> Self::W {
        lanewise(|i, j| a[i][j] * b[i][j])
    }

    #[inline(always)]
    fn wdiv(self, a: Self::W, b: Self::W) -> Self::W {
        lanewise(|i, j| a[i][j] / b[i][j])
    }

    #[inline(always)]
    fn wfma(self, a: Self::W, b: Self::W, c: Self::W) -> Self::W {
        self.fma(a, b, c)
    }

    #[inline(always)]
    fn wmax(self, a: Self::W, b: Self::W) -> Self::W {
        lanewise(|i, j| if a[i][j] > b[i][j] { a[i][j] } else { b[i][j] })
    }

    #[inline(always)]
    fn wmin(self, a: Self::W, b: Self::W) -> Self::W {
        lanewise(|i, j| if a[i][j] < b[i][j] { a[i][j] } else { b[i][j] })
    }

    #[inline(always)]
    fn wgreater(self, a: Self::W, b: Self::W, yes: Self::W, no: Self::W) -> Self::W {
        lanewise(|i, j| if a[i][j] > b[i][j] { yes[i][j] } else { no[i][j] })
    }

    #[inline(always)]
    fn wround(self, a: Self::W) -> Self::W {
        // 1.5 * 2^23: adding it leaves no bits for a fraction; exact below 2^22.
        const MAGIC: f32 = 12_582_912.0;
        lanewise(|i, j| (a[i][j] + MAGIC) - MAGIC)
    }

    #[inline(always)]
    fn wpower(self, a: Self::W) -> Self::W {
        lanewise(|i, j| f32::from_bits(((a[i][j] as i32 + 127) as u32) << 23))
    }
}

#[inline(always)]
fn lanewise(one: impl Fn(usize, usize) -> f32) -> [[f32; 4]; 2] {
    let half = |i: usize| [one(i, 0), one(i, 1), one(i, 2), one(i, 3)];
    [half(0), half(1)]
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Loop, Simd};

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub struct Avx2(pub(super) ());

    /// AVX-512 F, VL, DQ and BW.
    #[derive(Clone, Copy)]
    pub struct Avx512(pub(super) ());

    #[target_feature(enable = "avx2,fma")]
    pub fn inside_avx2(token: Avx2, work: impl Loop) {
        work.run(token);
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")]
    pub fn inside_avx512(token: Avx512, work: impl Loop) {
        work.run(token);
    }

    /// Methods that are a few instructions each.
    macro_rules! instructions {
        ($($name:ident($($arg:ident: $of:ty),*) -> $to:ty = $with:expr;)*) => {$(
            #[inline(always)]
            fn $name(self, $($arg: $of),*) -> $to {
                // SAFETY: `self` is proof of the instructions, and a prefetch never faults.
                unsafe { $with }
            }
        )*};
    }

    /// The half of [`Simd`] that is the same for both: vectors of eight lanes.
    macro_rules! eight_lanes {
        () => {
            type V = __m256;
            const FMA: bool = true;

            #[inline(always)]
            fn fma1(self, a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }

            #[inline(always)]
            unsafe fn load(self, from: *const f32) -> __m256 {
                // SAFETY: `self` is proof of the instructions; the memory is the caller's promise.
                unsafe { _mm256_loadu_ps(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32, a: __m256) {
                // SAFETY: `self` is proof of the instructions; the memory is the caller's promise.
                unsafe { _mm256_storeu_ps(to, a) };
            }

            instructions! {
                splat(a: f32) -> __m256 = _mm256_set1_ps(a);
                add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
                fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
                prefetch(at: *const f32) -> () = _mm_prefetch::<_MM_HINT_T0>(at.cast());
                prefetch_far(at: *const f32) -> () = _mm_prefetch::<_MM_HINT_T1>(at.cast());
            }
        };
    }

    /// The half for the widest vectors: their type, their lanes, loads, stores, from and to eight lanes, and
    /// the rest.
    macro_rules! widest {
        ($W:ty, $lanes:literal, $load:ident, $store:ident, $widen:expr, $narrow:expr, $($rest:tt)*) => {
            type W = $W;
            const WIDE: usize = $lanes;

            #[inline(always)]
            unsafe fn wload(self, from: *const f32) -> $W {
                // SAFETY: `self` is proof of the instructions; the memory is the caller's promise.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn wstore(self, to: *mut f32, a: $W) {
                // SAFETY: `self` is proof of the instructions; the memory is the caller's promise.
                unsafe { $store(to, a) };
            }

            #[inline(always)]
            unsafe fn wload_low(self, from: *const f32) -> $W {
                // SAFETY: `self` is proof of the instructions; the memory is the caller's promise.
                unsafe { $widen(_mm256_loadu_ps(from)) }
            }

            #[inline(always)]
            unsafe fn wstore_low(self, to: *mut f32, a: $W) {
                // SAFETY: `self` is proof of the instructions; the memory is the caller's promise.
                unsafe { _mm256_storeu_ps(to, $narrow(a)) };
            }

            instructions! { $($rest)* }
        };
    }

    impl Simd for Avx2 {
        eight_lanes!();
        widest! {
            __m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, std::convert::identity, std::convert::identity,
            wsplat(a: f32) -> __m256 = _mm256_set1_ps(a);
            wadd(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
            wsub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
            wmul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
            wdiv(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
            wmax(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
            wmin(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
            wfma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
            wgreater(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 =
                _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b));
            wround(a: __m256) -> __m256 =
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
            wpower(a: __m256) -> __m256 = {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            };
        }
    }

    impl Simd for Avx512 {
        eight_lanes!();
        widest! {
            __m512, 16, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_zextps256_ps512, _mm512_castps512_ps256,
            wsplat(a: f32) -> __m512 = _mm512_set1_ps(a);
            wadd(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
            wsub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
            wmul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
            wdiv(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
            wmax(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
            wmin(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
            wfma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
            wgreater(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 =
                _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), no, yes);
            wround(a: __m512) -> __m512 = _mm512_roundscale_ps::<8>(a);
            wpower(a: __m512) -> __m512 = {
                let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
            };
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
