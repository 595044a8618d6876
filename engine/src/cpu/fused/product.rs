//! The products of the fused block: tiles of 6 x 16 sums in registers, or 12 x 8 in the tail; with vectors
//! of sixteen lanes 12 x 16.
//!
//! Tiles of 4 x 24 would read less, but with 16 registers the compiler stores a sum to memory and
//! loads it again in every step: half the speed.
//!
//! The left matrix is read by broadcast, wherever it lies: rows of an NHWC tensor, its columns, or
//! the strips `[block][row][16]` of a wide one. The right one is read in whole vectors: filters
//! packed by [`pack`], or a strip as it lies. So nothing is transposed at run time.

use super::tile::{self, ROWS, TILE, with_height, with_width};
use crate::cpu::simd::{self, LANES, Loop, Simd};

/// The left matrix: term `(outer, inner)` of row `r` lies at
/// `r * row + outer * outer_step + inner * inner_step`.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Between rows.
    pub row: usize,
    /// How many runs of terms, and what lies between them.
    pub outer: [usize; 2],
    /// Terms of a run, and what lies between them.
    pub inner: [usize; 2],
}

/// The right matrix as [`pack`] lays it out, or a strip of 16 columns.
#[derive(Clone, Copy)]
pub struct Right<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Terms that were packed, and the first that is used.
    pub terms: [usize; 2],
}

/// Where the product goes.
pub struct Target<'a> {
    /// The elements.
    pub data: &'a mut [f32],
    /// Between rows.
    pub row: usize,
    /// Whether it is added to what is there.
    pub add: bool,
}

/// What to ask for while a product is computed: runs of cache lines, spread over its tiles.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// Where the first run begins, in two tensors or twice in one.
    pub from: [*const f32; 2],
    /// Lines of a run.
    pub lines: usize,
    /// How many runs, and the elements between their starts.
    pub runs: [usize; 2],
}

impl Ahead {
    /// One run.
    pub fn run(from: [*const f32; 2], lines: usize) -> Self {
        Self { from, lines, runs: [1, 0] }
    }
}

/// Lines of an [`Ahead`] as they are asked for.
struct Asking {
    ahead: Ahead,
    line: usize,
    /// Lines with each tile.
    share: usize,
    left: usize,
}

impl Asking {
    fn new(ahead: Ahead, tiles: usize) -> Self {
        let left = ahead.lines * ahead.runs[0];
        Self { ahead, line: 0, share: left.div_ceil(tiles), left }
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self, s: S) {
        let count = self.share.min(self.left);
        self.left -= count;
        for _ in 0..count {
            if self.line == self.ahead.lines {
                self.line = 0;
                self.ahead.from = self.ahead.from.map(|from| from.wrapping_add(self.ahead.runs[1]));
            }
            self.ahead.from.into_iter().for_each(|from| s.prefetch(from.wrapping_add(self.line * 2 * LANES)));
            self.line += 1;
        }
    }
}

/// Elements of a packed matrix of `terms` rows.
pub fn packed_len(terms: usize, columns: usize) -> usize {
    terms * columns.next_multiple_of(LANES)
}

/// Vectors of the next tile where `left` vectors are left.
#[inline(always)]
fn tile_width(left: usize) -> usize {
    left.min(TILE / LANES)
}

/// Packs a matrix for [`product`]: element `(term, column)` lies at `term * steps[0] + column *
/// steps[1]` of `from`, one of the steps being 1. `to` holds as many terms as fit it for `columns`
/// columns; what lies beyond `size` becomes zero.
pub fn pack(from: &[f32], size: [usize; 2], steps: [usize; 2], columns: usize, to: &mut [f32]) {
    let terms = to.len() / columns.next_multiple_of(LANES);
    let (mut first, mut rest) = (0, to);
    while first < columns {
        let lanes = tile_width((columns - first).div_ceil(LANES)) * LANES;
        let (tile, more) = rest.split_at_mut(terms * lanes);
        let wide = lanes.min(size[1].saturating_sub(first));
        let (used, tail) = tile.split_at_mut(size[0].min(terms) * lanes);
        tail.fill(0.0);
        if steps[1] == 1 {
            for (to, from) in used.chunks_exact_mut(lanes).zip(from.chunks(steps[0])) {
                to[..wide].copy_from_slice(&from[first..first + wide]);
                to[wide..].fill(0.0);
            }
        } else {
            for lane in 0..lanes {
                let to = used[lane..].iter_mut().step_by(lanes);
                if lane < wide {
                    let from = &from[(first + lane) * steps[1]..];
                    to.zip(from).for_each(|(to, from)| *to = *from);
                } else {
                    to.for_each(|to| *to = 0.0);
                }
            }
        }
        (rest, first) = (more, first + lanes);
    }
}

/// `to (+)= left right` for `[rows, columns]`.
pub fn product([rows, columns]: [usize; 2], left: Left<'_>, right: Right<'_>, to: Target<'_>, ahead: Ahead) {
    let terms = left.outer[0] * left.inner[0];
    assert!(rows > 0 && columns > 0 && terms > 0, "an empty product");
    let last = |[count, step]: [usize; 2]| (count - 1) * step;
    let far = (rows - 1) * left.row + last(left.outer) + last(left.inner);
    assert!(far < left.data.len(), "left matrix");
    assert!(right.terms[1] + terms <= right.terms[0], "terms of the right matrix");
    assert!(packed_len(right.terms[0], columns) <= right.data.len(), "right matrix");
    assert!((rows - 1) * to.row + columns <= to.data.len(), "product");
    // By the tallest tiles, so that the lines are spread over nearly all of them.
    let asking = Asking::new(ahead, rows.div_ceil(ROWS) * columns.div_ceil(TILE));
    simd::run(Product { rows, columns, left, right, to, asking });
}

struct Product<'a> {
    rows: usize,
    columns: usize,
    left: Left<'a>,
    right: Right<'a>,
    to: Target<'a>,
    asking: Asking,
}

impl Loop for Product<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (mut column, mut place) = (0, 0);
        while column < self.columns {
            let width = tile_width((self.columns - column).div_ceil(LANES));
            let from = place + self.right.terms[1] * width * LANES;
            with_width!(width * LANES, S, N, V => self.column::<N, V, S>(s, column, from));
            place += self.right.terms[0] * width * LANES;
            column += width * LANES;
        }
    }
}

impl Product<'_> {
    /// One column of tiles.
    #[inline(always)]
    fn column<const N: usize, const V: usize, S: Simd>(&mut self, s: S, column: usize, right: usize) {
        for rows in tile::cut::<S>(self.rows, V) {
            self.asking.ask(s);
            with_height!(rows.len(), S, V, R => self.tile::<R, N, V, S>(s, rows.start, column, right));
        }
    }

    #[inline(always)]
    fn tile<const R: usize, const N: usize, const V: usize, S: Simd>(
        &mut self,
        s: S,
        row: usize,
        column: usize,
        right: usize,
    ) {
        let mut sums = [[s.wsplat(0.0); V]; R];
        // SAFETY: `product` checked the last row, the last term and the packed length.
        unsafe {
            let right = self.right.data.as_ptr().add(right);
            tile::add_products::<R, N, V, S>(s, &self.left, row, right, &mut sums);
        }
        let width = (self.columns - column).min(N);
        for (r, mut sums) in sums.into_iter().enumerate() {
            let to = &mut self.to.data[(row + r) * self.to.row + column..][..width];
            if self.to.add {
                let old = tile::get::<N, V, S>(s, to);
                for (sum, old) in sums.iter_mut().zip(old) {
                    *sum = s.wadd(old, *sum);
                }
            }
            tile::put::<N, V, S>(s, sums, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn every_tile_gives_the_product() {
        let mut draws = Rng::new(1, "product").at(0, 0, 0);
        for (rows, columns, blocks) in
            [(1, 1, 1), (7, 16, 2), (49, 24, 3), (13, 37, 2), (28, 40, 1), (9, 8, 1), (5, 53, 2), (8, 56, 1)]
        {
            let terms = blocks * 16;
            let left: Vec<f32> = (0..rows * terms).map(|_| draws.range(-1.0, 1.0)).collect();
            let right: Vec<f32> = (0..(terms + 3) * columns).map(|_| draws.range(-1.0, 1.0)).collect();
            let mut packed = vec![f32::NAN; packed_len(terms + 3, columns)];
            pack(&right, [terms + 3, columns], [columns, 1], columns, &mut packed);
            let mut turned_right = right.clone();
            for (at, value) in right.iter().enumerate() {
                turned_right[at % columns * (terms + 3) + at / columns] = *value;
            }
            let mut again = vec![f32::NAN; packed.len()];
            pack(&turned_right, [terms + 3, columns], [1, terms + 3], columns, &mut again);
            assert_eq!(packed, again);
            // Rows, columns and strips of the same matrix.
            let mut turned = left.clone();
            let mut strips = left.clone();
            for r in 0..rows {
                for t in 0..terms {
                    turned[t * rows + r] = left[r * terms + t];
                    strips[(t / 16 * rows + r) * 16 + t % 16] = left[r * terms + t];
                }
            }
            let lefts = [
                Left { data: &left, row: terms, outer: [1, 0], inner: [terms, 1] },
                Left { data: &turned, row: 1, outer: [1, 0], inner: [terms, rows] },
                Left { data: &strips, row: 16, outer: [blocks, rows * 16], inner: [16, 1] },
            ];
            for left_matrix in lefts {
                for add in [false, true] {
                    let row = columns + 2;
                    let mut to = vec![0.5; rows * row];
                    let right_matrix = Right { data: &packed, terms: [terms + 3, 2] };
                    let target = Target { data: &mut to, row, add };
                    product(
                        [rows, columns],
                        left_matrix,
                        right_matrix,
                        target,
                        Ahead::run([std::ptr::null(); 2], 0),
                    );
                    for (at, &got) in to.iter().enumerate() {
                        let (r, c) = (at / row, at % row);
                        let sum: f64 = (0..terms)
                            .map(|t| {
                                f64::from(left[r * terms + t])
                                    * f64::from(right[(t + 2) * columns + c % columns])
                            })
                            .sum();
                        let want = match (c < columns, add) {
                            (true, true) => sum + 0.5,
                            (true, false) => sum,
                            (false, _) => 0.5,
                        };
                        assert!((f64::from(got) - want).abs() < 1e-5, "[{rows}, {columns}] at {r}, {c}");
                    }
                }
            }
        }
    }
}
