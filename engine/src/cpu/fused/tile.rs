//! Register tiles of a product: how rows are cut into them, and the sums of one.
//!
//! A tile is 16 columns wide, or eight in the tail, whatever vectors a machine has: filters are packed alike for
//! all of them, and every sum has the same order.

use std::ops::Range;

use super::product::Left;
use crate::cpu::simd::{LANES, Simd};

/// Columns of a tile, at most.
pub const TILE: usize = 2 * LANES;

/// Rows of a tile of two vectors.
pub const ROWS: usize = 6;

/// The rows of a product cut into tiles of `vectors` vectors. Even ones: a last tile of one or two rows
/// would wait for its sums.
#[inline(always)]
pub fn cut<S: Simd>(rows: usize, vectors: usize) -> impl Iterator<Item = Range<usize>> {
    let most = match (S::FMA, vectors) {
        (true, 1) => 2 * ROWS,
        (true, _) => ROWS,
        (false, 1) => 4,
        (false, _) => 2,
    };
    let tiles = rows.div_ceil(most);
    let (high, longer) = (rows / tiles, rows % tiles);
    let mut from = 0;
    (0..tiles).map(move |tile| {
        let next = from + high + usize::from(tile < longer);
        std::mem::replace(&mut from, next)..next
    })
}

/// Evaluates `$body` with the constants `$n`, the columns of a tile, and `$v`, its vectors.
macro_rules! with_width {
    ($columns:expr, $s:ident, $n:ident, $v:ident => $body:expr) => {
        match ($columns, $s::WIDE) {
            (crate::cpu::simd::LANES, _) => {
                const $n: usize = crate::cpu::simd::LANES;
                const $v: usize = 1;
                $body
            }
            (_, crate::cpu::simd::LANES) => {
                const $n: usize = crate::cpu::fused::tile::TILE;
                const $v: usize = 2;
                $body
            }
            _ => {
                const $n: usize = crate::cpu::fused::tile::TILE;
                const $v: usize = 1;
                $body
            }
        }
    };
}
pub(super) use with_width;

/// Evaluates `$body` with the constant `$n` as the height of a tile of `$vectors` vectors that [`cut`] made.
macro_rules! with_height {
    ($height:expr, $s:ident, $vectors:ident, $n:ident => $body:expr) => {
        with_height!(@match $height, $n, $body,
            1 (true) 2 (true)
            3 ($s::FMA || $vectors == 1) 4 ($s::FMA || $vectors == 1)
            5 ($s::FMA) 6 ($s::FMA)
            7 ($s::FMA && $vectors == 1) 8 ($s::FMA && $vectors == 1) 9 ($s::FMA && $vectors == 1)
            10 ($s::FMA && $vectors == 1) 11 ($s::FMA && $vectors == 1) 12 ($s::FMA && $vectors == 1))
    };
    (@match $height:expr, $n:ident, $body:expr, $($rows:literal ($when:expr))*) => {
        match $height {
            $($rows if $when => {
                const $n: usize = $rows;
                $body
            })*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
pub(super) use with_height;

/// Vector `v` of `N` columns.
///
/// # Safety
/// They lie at `from`.
#[inline(always)]
unsafe fn load<const N: usize, S: Simd>(s: S, from: *const f32, v: usize) -> S::W {
    // SAFETY: the caller's promise.
    unsafe { if N < S::WIDE { s.wload_low(from) } else { s.wload(from.add(v * S::WIDE)) } }
}

/// The same to memory.
///
/// # Safety
/// They lie at `to` and may be written.
#[inline(always)]
unsafe fn store<const N: usize, S: Simd>(s: S, to: *mut f32, v: usize, value: S::W) {
    // SAFETY: the caller's promise.
    unsafe { if N < S::WIDE { s.wstore_low(to, value) } else { s.wstore(to.add(v * S::WIDE), value) } }
}

/// Adds to each sum, in the order of the terms, the products of `R` rows of `left` from `row` on with a
/// right matrix `[term][N columns]`, which are `V` vectors.
///
/// # Safety
/// The left matrix has these rows, and `right` as many columns as its terms need.
#[inline(always)]
pub unsafe fn add_products<const R: usize, const N: usize, const V: usize, S: Simd>(
    s: S,
    left: &Left<'_>,
    row: usize,
    mut right: *const f32,
    sums: &mut [[S::W; V]; R],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let rows: [*const f32; R] = std::array::from_fn(|r| left.data.as_ptr().add((row + r) * left.row));
        for outer in 0..left.outer[0] {
            let mut at = outer * left.outer[1];
            for _ in 0..left.inner[0] {
                let columns: [S::W; V] = vectors::<N, V, S>(s, right);
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let a = s.wsplat(*row.add(at));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = s.wfma(a, column, *sum);
                    }
                }
                at += left.inner[1];
                right = right.add(N);
            }
        }
    }
}

/// `N` columns as vectors.
///
/// # Safety
/// They lie at `from`.
#[inline(always)]
pub unsafe fn vectors<const N: usize, const V: usize, S: Simd>(s: S, from: *const f32) -> [S::W; V] {
    let mut values = [s.wsplat(0.0); V];
    for (v, value) in values.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *value = unsafe { load::<N, S>(s, from, v) };
    }
    values
}

/// The elements of `from`, at most `N`, zeros beyond.
#[inline(always)]
pub fn get<const N: usize, const V: usize, S: Simd>(s: S, from: &[f32]) -> [S::W; V] {
    if from.len() == N {
        // SAFETY: all columns are there.
        return unsafe { vectors::<N, V, S>(s, from.as_ptr()) };
    }
    let mut all = [0.0; N];
    all[..from.len()].copy_from_slice(from);
    // SAFETY: the array has `N` elements.
    unsafe { vectors::<N, V, S>(s, all.as_ptr()) }
}

/// As many elements as `to` has, at most `N`.
#[inline(always)]
pub fn put<const N: usize, const V: usize, S: Simd>(s: S, values: [S::W; V], to: &mut [f32]) {
    if to.len() == N {
        for (v, value) in values.into_iter().enumerate() {
            // SAFETY: all columns are there.
            unsafe { store::<N, S>(s, to.as_mut_ptr(), v, value) };
        }
        return;
    }
    let mut all = [0.0; N];
    for (v, value) in values.into_iter().enumerate() {
        // SAFETY: the array has `N` elements.
        unsafe { store::<N, S>(s, all.as_mut_ptr(), v, value) };
    }
    to.copy_from_slice(&all[..to.len()]);
}
