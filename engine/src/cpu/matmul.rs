//! Matrix products: `c[m, n] (+)= a[m, k] b[k, n]`.
//!
//! Work is cut into tiles by shape alone and a sum has one fixed order, so an element of `c` never
//! depends on the number of threads. `a` is read by broadcast with any two strides and is never
//! packed. `b` is read [`NR`] columns at a time: packed filters ([`pack`]), or rows as they lie.
//! Sums run in blocks of [`KC`], which keeps a strip of `b` in the first cache and rounding errors
//! short.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::simd::{self, LANES, Loop, Simd, store16};
use super::{Cpu, Disjoint};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Columns of one tile.
pub const NR: usize = 16;
/// Rows of one tile with and without FMA: twelve vectors of eight sums, or eight of four.
const MR_FMA: usize = 6;
const MR: usize = 2;
/// Terms summed before they are added into `c`.
const KC: usize = 256;

/// The left matrix: element `(row, k)` lies at the place of `row` plus the place of `k`.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Where rows lie.
    pub rows: Places<'a>,
    /// Where the terms of a sum lie.
    pub terms: Places<'a>,
}

/// Places along one axis.
#[derive(Clone, Copy)]
pub enum Places<'a> {
    /// Index `i` lies at `i` times this.
    Stride(usize),
    /// Index `i` lies at element `i` of this, as in the window of a convolution.
    At(&'a [usize]),
}

impl Places<'_> {
    #[inline(always)]
    fn of(&self, i: usize) -> usize {
        match self {
            Places::Stride(stride) => i * stride,
            Places::At(places) => places[i],
        }
    }

    /// The farthest of the first `count` places.
    fn end(&self, count: usize) -> usize {
        match self {
            Places::Stride(stride) => (count - 1) * stride,
            Places::At(places) => places[..count].iter().copied().max().unwrap_or(0),
        }
    }
}

/// The right matrix `[k, n]`.
#[derive(Clone, Copy)]
pub enum Right<'a> {
    /// Tiles as [`pack`] makes them.
    Packed(&'a [f32]),
    /// Rows of `stride` elements.
    Rows {
        /// The elements.
        data: &'a [f32],
        /// Distance between rows.
        stride: usize,
    },
}

/// Elements that [`pack`] writes for `[k, n]`.
pub fn packed_len(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(NR)
}

/// Packs a matrix whose element `(k, n)` lies at `k * k_stride + n * n_stride` into tiles
/// `[n / NR][k][NR]`, the last one padded with zeros.
pub fn pack(cpu: &Cpu, data: &[f32], [n, k]: [usize; 2], k_stride: usize, n_stride: usize, out: &mut [f32]) {
    cpu.pool().parallel_chunks(&mut out[..packed_len(k, n)], k * NR, |tile, out| {
        let from = tile * NR;
        pack_tile(&data[from * n_stride..], NR.min(n - from), k_stride, n_stride, out);
    });
}

fn pack_tile(data: &[f32], width: usize, k_stride: usize, n_stride: usize, out: &mut [f32]) {
    for (k, row) in out.chunks_exact_mut(NR).enumerate() {
        let base = k * k_stride;
        if n_stride == 1 {
            row[..width].copy_from_slice(&data[base..base + width]);
        } else {
            for (lane, value) in row[..width].iter_mut().enumerate() {
                *value = data[base + lane * n_stride];
            }
        }
        row[width..].fill(0.0);
    }
}

/// `c (+)= a b` on the calling thread, where row `i` of `c` is `c[i * stride..][..n]`. Overwrites
/// unless `add`.
pub fn panel([m, n, k]: [usize; 3], a: Left<'_>, b: Right<'_>, c: &mut [f32], stride: usize, add: bool) {
    if m * n > 0 {
        check([m, n, k], a, b, c.len(), stride);
        let c = Product { parts: &Disjoint::new(c), offset: 0, stride, add };
        simd::run(Panel { rows: 0..m, columns: 0..n, terms: 0..k, dims: [m, n, k], a, b, c });
    }
}

/// The same on all threads.
pub fn matmul(
    cpu: &Cpu,
    [m, n, k]: [usize; 3],
    a: Left<'_>,
    b: Right<'_>,
    c: &mut [f32],
    stride: usize,
    add: bool,
) {
    if m * n == 0 {
        return;
    }
    check([m, n, k], a, b, c.len(), stride);
    let grid = Grid::new(m, n);
    let c = Product { parts: &Disjoint::new(c), offset: 0, stride, add };
    cpu.pool().parallel_for(grid.tasks(), |task, _| {
        let (rows, columns) = grid.part(task);
        simd::run(Panel { rows, columns, terms: 0..k, dims: [m, n, k], a, b, c });
    });
}

/// `c += a b` for a dense `c [m, n]` and a sum much longer than `c` is wide, as of a filter
/// gradient: the sum is cut by its length, and the parts are added in order.
///
/// # Errors
/// [`crate::Error::OutOfMemory`].
pub fn matmul_long(cpu: &Cpu, [m, n, k]: [usize; 3], a: Left<'_>, b: Right<'_>, c: &mut [f32]) -> Result<()> {
    if m * n == 0 {
        return Ok(());
    }
    check([m, n, k], a, b, c.len(), n);
    let parts = (k / LONG_PART).clamp(1, LONG_PARTS);
    if parts == 1 {
        matmul(cpu, [m, n, k], a, b, c, n, true);
        return Ok(());
    }
    let grid = Grid::new(m, n);
    let mut partial = Tensor::stale(cpu, [parts, m * n], DType::F32)?;
    {
        let shared = Disjoint::new(partial.f32_mut()?);
        let tasks = grid.tasks();
        cpu.pool().parallel_for(parts * tasks, |task, _| {
            let (part, tile) = (task / tasks, task % tasks);
            let (rows, columns) = grid.part(tile);
            let terms = k * part / parts..k * (part + 1) / parts;
            let c = Product { parts: &shared, offset: part * m * n, stride: n, add: false };
            simd::run(Panel { rows, columns, terms, dims: [m, n, k], a, b, c });
        });
    }
    add_rows(cpu, partial.f32()?, c);
    Ok(())
}

/// Adds the rows of `partial [rows, c.len()]` to `c`, in order.
pub fn add_rows(cpu: &Cpu, partial: &[f32], c: &mut [f32]) {
    const CHUNK: usize = 1 << 12;
    let len = c.len();
    cpu.pool().parallel_chunks(c, CHUNK, |i, c| {
        for row in partial.chunks_exact(len) {
            c.iter_mut().zip(&row[i * CHUNK..]).for_each(|(sum, part)| *sum += part);
        }
    });
}

/// Terms of a long sum that one part holds at least, and parts at most.
const LONG_PART: usize = 1024;
const LONG_PARTS: usize = 16;

/// How a product is cut into tasks.
#[derive(Clone, Copy)]
struct Grid {
    size: [usize; 2],
    /// Rows and columns of a task.
    part: [usize; 2],
}

impl Grid {
    fn new(m: usize, n: usize) -> Self {
        // Whole rows where there are enough of them; narrow columns for a few rows, as in the
        // linear layers.
        let part = if m >= 8 * 96 { [96, n] } else { [48.min(m), 64.min(n)] };
        Self { size: [m, n], part }
    }

    fn tasks(&self) -> usize {
        self.size[0].div_ceil(self.part[0]) * self.size[1].div_ceil(self.part[1])
    }

    fn part(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let across = self.size[1].div_ceil(self.part[1]);
        let at = [task / across, task % across];
        let range = |axis: usize| {
            let from = at[axis] * self.part[axis];
            from..self.size[axis].min(from + self.part[axis])
        };
        (range(0), range(1))
    }
}

fn check([m, n, k]: [usize; 3], a: Left<'_>, b: Right<'_>, len: usize, stride: usize) {
    assert!(k > 0 && a.rows.end(m) + a.terms.end(k) < a.data.len(), "left matrix");
    match b {
        Right::Packed(data) => assert!(packed_len(k, n) <= data.len(), "packed matrix"),
        Right::Rows { data, stride } => assert!((k - 1) * stride + n <= data.len(), "right matrix"),
    }
    assert!(stride >= n && (m - 1) * stride + n <= len, "product");
}

/// Where a product goes.
#[derive(Clone, Copy)]
struct Product<'a, 'c> {
    parts: &'a Disjoint<'c, f32>,
    offset: usize,
    stride: usize,
    add: bool,
}

/// The part of a product that one task computes: no other task has the same rows and columns.
struct Panel<'a, 'c> {
    rows: Range<usize>,
    columns: Range<usize>,
    terms: Range<usize>,
    dims: [usize; 3],
    a: Left<'a>,
    b: Right<'a>,
    c: Product<'a, 'c>,
}

impl Loop for Panel<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Panel { rows, columns, terms, dims: [_, _, k], a, b, c } = self;
        // Zeroing it would cost more than a small product.
        let mut tail = [const { MaybeUninit::<f32>::uninit() }; KC * NR];
        let most = if S::FMA { MR_FMA } else { MR };
        // Even row tiles: a last tile of one or two rows would wait for its own sums.
        let tiles = rows.len().div_ceil(most);
        for k0 in terms.clone().step_by(KC) {
            let count = KC.min(terms.end - k0);
            let add = c.add || k0 > terms.start;
            for j in columns.clone().step_by(NR) {
                let width = NR.min(columns.end - j);
                let (strip, step): (&[f32], usize) = match b {
                    Right::Packed(data) => (&data[j * k + k0 * NR..], NR),
                    Right::Rows { data, stride } if width == NR => (&data[k0 * stride + j..], stride),
                    Right::Rows { data, stride } => {
                        let data = &data[k0 * stride + j..];
                        for (k, row) in tail.chunks_exact_mut(NR).take(count).enumerate() {
                            let from = &data[k * stride..k * stride + width];
                            row.iter_mut().zip(from).for_each(|(to, from)| _ = to.write(*from));
                            row[width..].iter_mut().for_each(|to| _ = to.write(0.0));
                        }
                        // SAFETY: the first `count` rows were written just now.
                        (unsafe { std::slice::from_raw_parts(tail.as_ptr().cast(), count * NR) }, NR)
                    }
                };
                let mut row = rows.start;
                for tile in 0..tiles {
                    let high = (rows.end - row).div_ceil(tiles - tile);
                    let tile = Tile {
                        terms: count,
                        a: a.data,
                        rows: std::array::from_fn(|i| a.rows.of(row + i.min(high - 1))),
                        b: strip,
                        b_stride: step,
                        c: Product { offset: c.offset + row * c.stride + j, add, ..c },
                        width,
                    };
                    match a.terms {
                        Places::Stride(stride) => tile.run_rows(s, high, |k| (k0 + k) * stride),
                        Places::At(places) => {
                            let places = &places[k0..k0 + count];
                            tile.run_rows(s, high, |k| places[k]);
                        }
                    }
                    row += high;
                }
            }
        }
    }
}

struct Tile<'a, 'c> {
    terms: usize,
    a: &'a [f32],
    /// Where the rows of `a` lie; the last is repeated.
    rows: [usize; MR_FMA],
    b: &'a [f32],
    b_stride: usize,
    c: Product<'a, 'c>,
    width: usize,
}

impl Tile<'_, '_> {
    #[inline(always)]
    fn run_rows<S: Simd>(self, s: S, rows: usize, place: impl Fn(usize) -> usize) {
        match rows {
            1 => self.run::<1, S>(s, place),
            2 => self.run::<2, S>(s, place),
            3 if S::FMA => self.run::<3, S>(s, place),
            4 if S::FMA => self.run::<4, S>(s, place),
            5 if S::FMA => self.run::<5, S>(s, place),
            6 if S::FMA => self.run::<6, S>(s, place),
            _ => unreachable!("a tile has at most {MR_FMA} rows"),
        }
    }

    #[inline(always)]
    fn run<const ROWS: usize, S: Simd>(self, s: S, place: impl Fn(usize) -> usize) {
        let Tile { terms, a, rows, b, b_stride, c, width } = self;
        let mut sums = [[s.splat(0.0); NR / LANES]; ROWS];
        assert!((terms - 1) * b_stride + NR <= b.len());
        // SAFETY: `check` saw the farthest row and the farthest term.
        let rows: [*const f32; ROWS] = std::array::from_fn(|row| unsafe { a.as_ptr().add(rows[row]) });
        for k in 0..terms {
            // SAFETY: the last row of `b` was checked above.
            let b = unsafe {
                let from = b.as_ptr().add(k * b_stride);
                [s.load(from), s.load(from.add(LANES))]
            };
            let at = place(k);
            for (sums, row) in sums.iter_mut().zip(rows) {
                // SAFETY: as for `rows`.
                let a = s.splat(unsafe { *row.add(at) });
                *sums = [s.fma(a, b[0], sums[0]), s.fma(a, b[1], sums[1])];
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let from = c.offset + row * c.stride;
            // SAFETY: only this task has these rows and columns.
            let out = unsafe { c.parts.slice(from..from + width) };
            store16(s, *sums, out, c.add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn values(len: usize, index: u32) -> Vec<f32> {
        let mut draws = Rng::new(1, "matmul").at(0, 0, index);
        (0..len).map(|_| draws.range(-1.0, 1.0)).collect()
    }

    #[test]
    fn every_layout_gives_the_product() {
        let cpu = Cpu::new(3).unwrap();
        let sizes = [[1, 1, 1], [7, 16, 5], [6, 40, 33], [13, 117, 600], [3, 31, 257], [925, 8, 2]];
        for [m, n, k] in sizes {
            let (a, b) = (values(m * k, 0), values(k * n, 1));
            let want = |i: usize, j: usize| {
                (0..k).map(|t| f64::from(a[i * k + t]) * f64::from(b[t * n + j])).sum::<f64>()
            };
            let mut packed = vec![f32::NAN; packed_len(k, n)];
            pack(&cpu, &b, [n, k], n, 1, &mut packed);
            let mut transposed = vec![0.0; m * k];
            for (at, value) in a.iter().enumerate() {
                transposed[at % k * m + at / k] = *value;
            }
            let places: Vec<usize> = (0..k).map(|t| t * m).collect();
            let lefts = [
                Left { data: &a, rows: Places::Stride(k), terms: Places::Stride(1) },
                Left { data: &transposed, rows: Places::Stride(1), terms: Places::Stride(m) },
                Left { data: &transposed, rows: Places::Stride(1), terms: Places::At(&places) },
            ];
            for left in lefts {
                for right in [Right::Packed(&packed), Right::Rows { data: &b, stride: n }] {
                    for add in [false, true] {
                        // The product has gaps between its rows, which must stay as they are.
                        let stride = n + 3;
                        let mut c = vec![0.5; m * stride];
                        matmul(&cpu, [m, n, k], left, right, &mut c, stride, add);
                        let mut alone = vec![0.5; m * stride];
                        panel([m, n, k], left, right, &mut alone, stride, add);
                        assert_eq!(c, alone);
                        for (at, &got) in c.iter().enumerate() {
                            let (i, j) = (at / stride, at % stride);
                            let old = if add { 0.5 } else { 0.0 };
                            let want = if j < n { want(i, j) + old } else { 0.5 };
                            assert!((f64::from(got) - want).abs() < 2e-5, "[{m}, {n}, {k}] at {i}, {j}");
                        }
                    }
                }
            }
        }
    }
    #[test]
    fn a_long_sum_is_cut_by_its_length_alone() {
        let [m, n, k] = [5, 18, 5000];
        let (a, b) = (values(m * k, 0), values(k * n, 1));
        let (left, right) = (
            Left { data: &a, rows: Places::Stride(1), terms: Places::Stride(m) },
            Right::Rows { data: &b, stride: n },
        );
        let on = |threads: usize| {
            let mut c = vec![1.0; m * n];
            matmul_long(&Cpu::new(threads).unwrap(), [m, n, k], left, right, &mut c).unwrap();
            c
        };
        let first = on(1);
        assert!((2..=4).all(|threads| on(threads) == first));
        let want = 1.0 + (0..k).map(|t| f64::from(a[t * m + 3]) * f64::from(b[t * n + 17])).sum::<f64>();
        assert!((f64::from(first[3 * n + 17]) - want).abs() < 1e-3, "{} {want}", first[3 * n + 17]);
    }
}
