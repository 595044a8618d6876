//! Products with everything around them folded in: sums begin with a shift and end in an activation
//! and a residual.
//!
//! Every element is one chain of multiply-adds in the order of the terms, whatever tile it falls
//! into and wherever the terms are cut. So its bits depend neither on what is computed beside it nor
//! on how the work is shared.

use std::marker::PhantomData;
use std::ops::Range;

use crate::cpu::Disjoint;
use crate::cpu::fused::curve::{Curve, with_curve};
use crate::cpu::fused::product::Left;
use crate::cpu::fused::tile::{self, TILE, with_height, with_width};
use crate::cpu::simd::{self, LANES, Loop, Simd};
use crate::ops::Act;

/// A column of a filter before it is folded.
pub(super) struct Column<'a> {
    /// Its terms; those that are missing are zeros.
    pub weights: &'a [f32],
    /// What they are multiplied by.
    pub scale: f32,
    /// What its sums begin with.
    pub shift: f32,
}

/// Elements of a folded filter.
pub(super) fn folded_len(terms: usize, columns: usize) -> usize {
    (1 + terms) * columns.next_multiple_of(LANES)
}

/// Columns of the tile that begins at `column`, tail included.
fn lanes(columns: usize, column: usize) -> usize {
    if columns - column > LANES { TILE } else { LANES }
}

/// Lays out a filter as `[tile][shift, terms][16]`, zeros beyond the columns; the last tile has eight
/// columns if they are enough.
pub(super) fn fold<'a>([terms, columns]: [usize; 2], column: impl Fn(usize) -> Column<'a>, to: &mut [f32]) {
    for from in (0..columns).step_by(TILE) {
        let lanes = lanes(columns, from);
        let tile = &mut to[from * (1 + terms)..][..(1 + terms) * lanes];
        if columns - from < lanes {
            tile.fill(0.0);
        }
        for lane in 0..lanes.min(columns - from) {
            let Column { weights, scale, shift } = column(from + lane);
            tile[lane] = shift;
            let mut places = tile[lanes + lane..].iter_mut().step_by(lanes);
            places.by_ref().zip(weights).for_each(|(to, w)| *to = w * scale);
            places.for_each(|to| *to = 0.0);
        }
    }
}

/// A folded filter with every term times its own factor, as a gate on what is multiplied with it.
pub(super) fn gated(filter: &[f32], [terms, columns]: [usize; 2], gate: &[f32], to: &mut [f32]) {
    fn tile<const N: usize>(filter: &[f32], gate: &[f32], to: &mut [f32]) {
        to[..N].copy_from_slice(&filter[..N]);
        let rows = to[N..].chunks_exact_mut(N).zip(filter[N..].chunks_exact(N));
        for ((to, from), gate) in rows.zip(gate) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from * gate);
        }
    }
    for from in (0..columns).step_by(TILE) {
        let lanes = lanes(columns, from);
        let place = from * (1 + terms)..from * (1 + terms) + (1 + terms) * lanes;
        let (filter, to) = (&filter[place.clone()], &mut to[place]);
        if lanes == TILE { tile::<TILE>(filter, gate, to) } else { tile::<LANES>(filter, gate, to) }
    }
}

/// Where rows of results go.
#[derive(Clone, Copy)]
pub(super) struct Place<'a, 'c> {
    /// The elements; nobody else has these rows and columns meanwhile.
    pub parts: &'a Disjoint<'c, f32>,
    /// Column 0 of row 0.
    pub first: usize,
    /// Between rows.
    pub row: usize,
    /// After so many rows, so many elements are skipped.
    pub line: [usize; 2],
}

/// A folded filter and which of its terms are summed.
#[derive(Clone, Copy)]
pub(super) struct Filter<'a> {
    /// As [`fold`] lays it out.
    pub data: &'a [f32],
    /// Terms and columns.
    pub size: [usize; 2],
    /// The first that is summed. From 0 on sums begin with the shift, otherwise with what is there.
    pub first: usize,
}

/// Computes `columns` (from a multiple of 16 on) of `rows` rows of
/// `to = act(shift + left filter) (+ residual)`. As long as terms are missing, neither activation nor
/// residual is applied; the residual lies like the result, and is empty if there is none.
pub(super) fn layer(
    rows: usize,
    columns: Range<usize>,
    left: Left<'_>,
    filter: Filter<'_>,
    act: Act,
    residual: &[f32],
    to: Place<'_, '_>,
) {
    let terms = left.outer[0] * left.inner[0];
    let [all, wide] = filter.size;
    assert!(rows > 0 && terms > 0 && columns.start < columns.end, "an empty layer");
    let last = |[count, step]: [usize; 2]| (count - 1) * step;
    assert!((rows - 1) * left.row + last(left.outer) + last(left.inner) < left.data.len(), "left matrix");
    assert!(filter.first + terms <= all && folded_len(all, wide) <= filter.data.len(), "filter");
    assert!(columns.start.is_multiple_of(TILE) && columns.end <= wide && to.line[0] > 0, "columns");
    if filter.first + terms < all {
        let curve = PhantomData::<super::super::curve::Identity>;
        simd::run(Layer { rows, columns, left, filter, residual: &[], to, curve });
    } else {
        with_curve!(act, C => simd::run(Layer {
            rows, columns, left, filter, residual, to, curve: PhantomData::<C>,
        }));
    }
}

struct Layer<'a, 'c, C> {
    rows: usize,
    columns: Range<usize>,
    left: Left<'a>,
    filter: Filter<'a>,
    residual: &'a [f32],
    to: Place<'a, 'c>,
    curve: PhantomData<C>,
}

/// Walks the rows of a [`Place`].
struct Cursor {
    at: usize,
    left: usize,
}

impl Cursor {
    #[inline(always)]
    fn next(&mut self, to: &Place<'_, '_>) -> usize {
        let at = self.at;
        self.at += to.row;
        self.left -= 1;
        if self.left == 0 {
            self.left = to.line[0];
            self.at += to.line[1];
        }
        at
    }
}

impl<C: Curve> Loop for Layer<'_, '_, C> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for column in self.columns.clone().step_by(TILE) {
            let lanes = lanes(self.filter.size[1], column);
            with_width!(lanes, S, N, V => self.column::<N, V, S>(s, column));
        }
    }
}

impl<C: Curve> Layer<'_, '_, C> {
    /// One column of tiles.
    #[inline(always)]
    fn column<const N: usize, const V: usize, S: Simd>(&self, s: S, column: usize) {
        let mut cursor = Cursor { at: self.to.first + column, left: self.to.line[0] };
        for rows in tile::cut::<S>(self.rows, V) {
            with_height!(rows.len(), S, V, R => self.tile::<R, N, V, S>(s, rows.start, column, &mut cursor));
        }
    }

    #[inline(always)]
    fn tile<const R: usize, const N: usize, const V: usize, S: Simd>(
        &self,
        s: S,
        row: usize,
        column: usize,
        cursor: &mut Cursor,
    ) {
        let Filter { data, size: [terms, wide], first } = self.filter;
        let width = (wide - column).min(N);
        let mut places = [0; R];
        for place in &mut places {
            *place = cursor.next(&self.to);
        }
        let mut sums = [[s.wsplat(0.0); V]; R];
        // SAFETY: `layer` checked the filter's length.
        let filter = unsafe { data.as_ptr().add(column * (1 + terms)) };
        if first == 0 {
            // SAFETY: the shifts of this tile.
            sums = [unsafe { tile::vectors::<N, V, S>(s, filter) }; R];
        } else {
            for (sums, &at) in sums.iter_mut().zip(&places) {
                // SAFETY: only this task has these rows and columns.
                *sums = tile::get::<N, V, S>(s, unsafe { self.to.parts.slice(at..at + width) });
            }
        }
        // SAFETY: `layer` checked the last row, the last term and the filter's length.
        unsafe {
            let terms = filter.add((1 + first) * N);
            tile::add_products::<R, N, V, S>(s, &self.left, row, terms, &mut sums);
        }
        for (mut sums, at) in sums.into_iter().zip(places) {
            for sum in &mut sums {
                *sum = C::value(s, *sum);
            }
            if !self.residual.is_empty() {
                let more = tile::get::<N, V, S>(s, &self.residual[at..at + width]);
                for (sum, more) in sums.iter_mut().zip(more) {
                    *sum = s.wadd(*sum, more);
                }
            }
            // SAFETY: only this task has these rows and columns.
            tile::put::<N, V, S>(s, sums, unsafe { self.to.parts.slice(at..at + width) });
        }
    }
}
