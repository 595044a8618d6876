//! Register tiles of a product: how rows are cut into them, and the sums of one.
//!
//! For loops under [`simd::run_narrow`](crate::cpu::simd::run_narrow), where the widest vectors have eight lanes.

use std::ops::Range;

use super::product::Left;
use crate::cpu::simd::{LANES, Simd};

/// Columns of a tile, at most: two vectors.
pub const TILE: usize = 2 * LANES;

/// Rows of a tile of two vectors.
pub const ROWS: usize = 6;

/// The rows of a product cut into tiles of `vectors` vectors. Even ones: a last tile of one or two rows
/// would wait for its sums.
#[inline(always)]
pub fn cut<S: Simd>(rows: usize, vectors: usize) -> impl Iterator<Item = Range<usize>> {
    assert!(S::WIDE == LANES, "run_narrow has vectors of eight");
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

/// Adds to each sum, in the order of the terms, the products of `R` rows of `left` from `row` on with a
/// right matrix `[term][V vectors]`.
///
/// # Safety
/// The left matrix has these rows, and `right` as many vectors as its terms need.
#[inline(always)]
pub unsafe fn add_products<const R: usize, const V: usize, S: Simd>(
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
                let mut columns = [s.wsplat(0.0); V];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = s.wload(right.add(v * LANES));
                }
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let a = s.wsplat(*row.add(at));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = s.wfma(a, column, *sum);
                    }
                }
                at += left.inner[1];
                right = right.add(V * LANES);
            }
        }
    }
}

/// The elements of `from`, zeros beyond.
#[inline(always)]
pub fn get<const V: usize, S: Simd>(s: S, from: &[f32]) -> [S::W; V] {
    let mut values = [s.wsplat(0.0); V];
    if from.len() == V * LANES {
        for (v, value) in values.iter_mut().enumerate() {
            // SAFETY: `V` vectors of eight.
            *value = unsafe { s.wload(from.as_ptr().add(v * LANES)) };
        }
        return values;
    }
    let mut all = [0.0; TILE];
    all[..from.len()].copy_from_slice(from);
    for (v, value) in values.iter_mut().enumerate() {
        // SAFETY: at most `TILE` elements.
        *value = unsafe { s.wload(all.as_ptr().add(v * LANES)) };
    }
    values
}

/// As many elements as `to` has.
#[inline(always)]
pub fn put<const V: usize, S: Simd>(s: S, values: [S::W; V], to: &mut [f32]) {
    if to.len() == V * LANES {
        for (v, value) in values.into_iter().enumerate() {
            // SAFETY: `V` vectors of eight.
            unsafe { s.wstore(to.as_mut_ptr().add(v * LANES), value) };
        }
        return;
    }
    let mut all = [0.0; TILE];
    for (v, value) in values.into_iter().enumerate() {
        // SAFETY: at most `TILE` elements.
        unsafe { s.wstore(all.as_mut_ptr().add(v * LANES), value) };
    }
    to.copy_from_slice(&all[..to.len()]);
}
