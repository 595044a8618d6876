//! The depthwise convolution, sixteen channels at a time, straight from the NHWC planes.
//!
//! Neighbouring outputs of an axis that use the same taps form a [`Run`]: the middle of a row is one
//! run of many pixels, every border pixel one of its own, and with a stride the data gradient has
//! runs for every residue. So forward and data gradient are one loop over rows and runs, without
//! padding, without edge code, and without multiplying by zeros. The last block of channels begins
//! early enough to be full; what it shares with its neighbour is computed and not stored.

use std::ops::Range;

use super::simd::{self, LANES, Loop, Simd, store16};
use super::{Cpu, Disjoint};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Channels of one block.
const BLOCK: usize = 16;
/// Pixels (or taps) of one tile, with and without FMA.
const TILE_FMA: usize = 6;
const TILE: usize = 2;
/// Blocks that share a tile of one pixel.
const ACROSS: usize = 3;
/// Blocks of one task: enough neighbours for memory to be read in streams.
const BLOCKS: usize = 9;
/// Output rows of one task.
const ROWS: usize = 8;
/// Parts of the sum behind a filter gradient at most.
const PARTS: usize = 8;

/// All sizes of a depthwise convolution.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise {
    /// Images.
    pub n: usize,
    /// Input rows and columns.
    pub size: [usize; 2],
    /// Channels.
    pub c: usize,
    /// Taps of the window on each axis.
    pub k: usize,
    /// Pixels between windows.
    pub stride: usize,
    /// Pixels between taps.
    pub dilation: usize,
    /// Output rows and columns.
    pub to: [usize; 2],
    /// Zeros on every side.
    pub pad: usize,
}

/// A tap of an axis and the input it reads.
type AxisTap = (usize, usize);

/// The outputs `first + j * step`, `j < count`, of an axis: tap `t` reads input `i + j * pace` for
/// every `(t, i)` in `taps`.
#[derive(Debug)]
struct Run {
    first: usize,
    step: usize,
    count: usize,
    pace: usize,
    taps: Vec<AxisTap>,
}

impl Depthwise {
    /// `y [n, oh, ow, c]` from `x [n, h, w, c]` and `w [k, k, c]`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn forward(&self, cpu: &Cpu, x: &[f32], w: &[f32], y: &mut [f32]) -> Result<()> {
        if self.c < BLOCK {
            let (x, w) = (widen(cpu, x, self.c)?, widen(cpu, w, self.c)?);
            let mut wide = Tensor::stale(cpu, [y.len() / self.c, BLOCK], DType::F32)?;
            self.wide().forward(cpu, x.f32()?, w.f32()?, wide.f32_mut()?)?;
            narrow(wide.f32()?, y, self.c, false);
            return Ok(());
        }
        let rows = (0..self.to[0]).map(|o| self.reads(o, self.size[0])).collect();
        let runs = runs(self.to[1], 1, self.stride, |o| self.reads(o, self.size[1]));
        let sum = WindowSum { of: *self, from: self.size, to: self.to, rows, runs, add: false };
        sum.run(cpu, x, w, y)
    }

    /// Adds to `dx [n, h, w, c]`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn input_gradient(&self, cpu: &Cpu, dy: &[f32], w: &[f32], dx: &mut [f32]) -> Result<()> {
        if self.c < BLOCK {
            let (dy, w) = (widen(cpu, dy, self.c)?, widen(cpu, w, self.c)?);
            let mut wide = Tensor::zeros(cpu, [dx.len() / self.c, BLOCK])?;
            self.wide().input_gradient(cpu, dy.f32()?, w.f32()?, wide.f32_mut()?)?;
            narrow(wide.f32()?, dx, self.c, true);
            return Ok(());
        }
        let rows = (0..self.size[0]).map(|i| self.read_by(i, self.to[0])).collect();
        let runs = runs(self.size[1], self.stride, 1, |i| self.read_by(i, self.to[1]));
        let sum = WindowSum { of: *self, from: self.to, to: self.size, rows, runs, add: true };
        sum.run(cpu, dy, w, dx)
    }

    /// Adds to `dw [k, k, c]`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn filter_gradient(&self, cpu: &Cpu, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
        if self.c < BLOCK {
            let (x, dy) = (widen(cpu, x, self.c)?, widen(cpu, dy, self.c)?);
            let mut wide = Tensor::zeros(cpu, [self.k * self.k, BLOCK])?;
            self.wide().filter_gradient(cpu, x.f32()?, dy.f32()?, wide.f32_mut()?)?;
            narrow(wide.f32()?, dw, self.c, true);
            return Ok(());
        }
        let (taps, blocks) = (self.k * self.k, self.c.div_ceil(BLOCK));
        let (groups, parts) = (blocks.div_ceil(BLOCKS), self.n.min(PARTS));
        let rows: Vec<Vec<AxisTap>> = (0..self.to[0]).map(|o| self.reads(o, self.size[0])).collect();
        let runs = runs(self.to[1], 1, self.stride, |o| self.reads(o, self.size[1]));
        let len = BLOCKS * taps * BLOCK;
        let mut partial = Tensor::stale(cpu, [parts, groups, len], DType::F32)?;
        cpu.pool().parallel_chunks(partial.f32_mut()?, len, |task, sums| {
            let (part, group) = (task / groups, task % groups);
            sums.fill(0.0);
            let images = self.n * part / parts..self.n * (part + 1) / parts;
            let blocks = group * BLOCKS..blocks.min((group + 1) * BLOCKS);
            simd::run(FilterSums { of: *self, x, dy, images, blocks, rows: &rows, runs: &runs, sums });
        });
        let partial = partial.f32()?;
        for (tap, dw) in dw.chunks_exact_mut(self.c).enumerate() {
            for block in 0..blocks {
                let (start, skip) = self.start(block);
                for part in 0..parts {
                    let from = part * groups * len + (block * taps + tap) * BLOCK;
                    let own = &partial[from + skip..from + BLOCK];
                    dw[start + skip..].iter_mut().zip(own).for_each(|(sum, part)| *sum += part);
                }
            }
        }
        Ok(())
    }

    /// The same with the channels of one block.
    fn wide(&self) -> Self {
        Self { c: BLOCK, ..*self }
    }

    /// The first channel of a block, and how many of its channels belong to the block before.
    fn start(&self, block: usize) -> (usize, usize) {
        let start = (block * BLOCK).min(self.c - BLOCK);
        (start, block * BLOCK - start)
    }

    /// Taps of output `o` with the inputs they read, of `size`.
    fn reads(&self, o: usize, size: usize) -> Vec<AxisTap> {
        let input = |t: usize| (o * self.stride + t * self.dilation).checked_sub(self.pad);
        (0..self.k).filter_map(|t| Some((t, input(t).filter(|&i| i < size)?))).collect()
    }

    /// Taps with which outputs, of `size`, read input `i`.
    fn read_by(&self, i: usize, size: usize) -> Vec<AxisTap> {
        let output = |t: usize| {
            let place = (i + self.pad).checked_sub(t * self.dilation)?;
            Some(place / self.stride).filter(|&o| place.is_multiple_of(self.stride) && o < size)
        };
        (0..self.k).filter_map(|t| Some((t, output(t)?))).collect()
    }
}

/// Cuts an axis of `outputs` into runs; outputs `period` apart read inputs `pace` apart.
fn runs(outputs: usize, period: usize, pace: usize, taps: impl Fn(usize) -> Vec<AxisTap>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for phase in 0..period.min(outputs) {
        let begin = runs.len();
        for output in (phase..outputs).step_by(period) {
            let taps = taps(output);
            match runs[begin..].last_mut() {
                Some(run)
                    if taps.len() == run.taps.len()
                        && taps
                            .iter()
                            .zip(&run.taps)
                            .all(|(new, old)| new.0 == old.0 && new.1 == old.1 + run.count * pace) =>
                {
                    run.count += 1;
                }
                _ => runs.push(Run { first: output, step: period, count: 1, pace, taps }),
            }
        }
    }
    runs
}

/// `[.., c]` with zeros up to a block.
fn widen(cpu: &Cpu, from: &[f32], c: usize) -> Result<Tensor> {
    let mut wide = Tensor::zeros(cpu, [from.len() / c, BLOCK])?;
    for (to, from) in wide.f32_mut()?.chunks_exact_mut(BLOCK).zip(from.chunks_exact(c)) {
        to[..c].copy_from_slice(from);
    }
    Ok(wide)
}

fn narrow(wide: &[f32], to: &mut [f32], c: usize, add: bool) {
    for (to, from) in to.chunks_exact_mut(c).zip(wide.chunks_exact(BLOCK)) {
        if add {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        } else {
            to.copy_from_slice(&from[..c]);
        }
    }
}

/// Where a tap reads in an image, for the first output of a run, and where its filter lies in a block's.
#[derive(Clone, Copy)]
struct Tap {
    at: usize,
    filter: usize,
}

/// The taps of a row and a run.
fn cross(of: &Depthwise, columns: usize, row: &[AxisTap], run: &Run, taps: &mut Vec<Tap>) {
    taps.clear();
    for &(ky, y) in row {
        for &(kx, x) in &run.taps {
            taps.push(Tap { at: (y * columns + x) * of.c, filter: (ky * of.k + kx) * BLOCK });
        }
    }
}

/// The farthest place. Taps come in order, forwards or (in the data gradient) backwards.
fn farthest(taps: &[Tap]) -> Option<usize> {
    Some(taps.first()?.at.max(taps.last()?.at))
}

/// One past the last element of an image that the taps read for a whole run.
fn end(of: &Depthwise, taps: &[Tap], run: &Run) -> usize {
    farthest(taps).map_or(0, |at| at + ((run.count - 1) * run.pace + 1) * of.c)
}

/// Where the row lies that comes after those the taps read, for the first output of a run.
fn next(columns: usize, of: &Depthwise, taps: &[Tap]) -> usize {
    farthest(taps).unwrap_or(0) + columns * of.c
}

/// A sum over windows: every output pixel from the pixels that its row's and its run's taps read.
struct WindowSum {
    of: Depthwise,
    from: [usize; 2],
    to: [usize; 2],
    /// The taps of every output row.
    rows: Vec<Vec<AxisTap>>,
    runs: Vec<Run>,
    add: bool,
}

impl WindowSum {
    fn run(&self, cpu: &Cpu, from: &[f32], w: &[f32], to: &mut [f32]) -> Result<()> {
        let Depthwise { n, c, k, .. } = self.of;
        let blocks = c.div_ceil(BLOCK);
        let len = k * k * BLOCK;
        let mut filters = Tensor::stale(cpu, [blocks, len], DType::F32)?;
        for (block, filter) in filters.f32_mut()?.chunks_exact_mut(len).enumerate() {
            let (start, _) = self.of.start(block);
            for (to, from) in filter.chunks_exact_mut(BLOCK).zip(w.chunks_exact(c)) {
                to.copy_from_slice(&from[start..start + BLOCK]);
            }
        }
        let filters = filters.f32()?;
        let (groups, bands) = (blocks.div_ceil(BLOCKS), self.to[0].div_ceil(ROWS));
        let plane = self.from[0] * self.from[1] * c;
        let to = Disjoint::new(to);
        cpu.pool().parallel_for(n * bands * groups, |task, _| {
            let (n, band, group) = (task / groups / bands, task / groups % bands, task % groups);
            simd::run(Band {
                sum: self,
                image: &from[n * plane..(n + 1) * plane],
                filters,
                to: &to,
                n,
                rows: band * ROWS..self.to[0].min((band + 1) * ROWS),
                blocks: group * BLOCKS..blocks.min((group + 1) * BLOCKS),
            });
        });
        Ok(())
    }
}

/// One task of a [`WindowSum`].
struct Band<'a, 'to> {
    sum: &'a WindowSum,
    image: &'a [f32],
    filters: &'a [f32],
    to: &'a Disjoint<'to, f32>,
    n: usize,
    rows: Range<usize>,
    blocks: Range<usize>,
}

impl Loop for Band<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (sum, most) = (self.sum, if S::FMA { TILE_FMA } else { TILE });
        let (blocks, mut taps) = (self.blocks.clone(), Vec::with_capacity(sum.of.k * sum.of.k));
        for y in self.rows.clone() {
            for run in &sum.runs {
                cross(&sum.of, sum.from[1], &sum.rows[y], run, &mut taps);
                let taps = &taps[..];
                assert!(end(&sum.of, taps, run) <= self.image.len());
                let line = (self.n * sum.to[0] + y) * sum.to[1];
                if run.count == 1 {
                    let mut block = blocks.start;
                    while block < blocks.end {
                        block += match blocks.end - block {
                            ACROSS.. if S::FMA => self.across::<ACROSS, S>(s, taps, line + run.first, block),
                            2.. if S::FMA => self.across::<2, S>(s, taps, line + run.first, block),
                            _ => self.across::<1, S>(s, taps, line + run.first, block),
                        };
                    }
                    continue;
                }
                // Even tiles: a last tile of one pixel would wait for its own sums.
                let tiles = run.count.div_ceil(most);
                let next = next(sum.from[1], &sum.of, taps);
                for block in blocks.clone() {
                    let mut x = 0;
                    for tile in 0..tiles {
                        let tile =
                            Tile { taps, run, line, x, count: (run.count - x).div_ceil(tiles - tile), next };
                        match tile.count {
                            1 => self.tile::<1, S>(s, &tile, block),
                            2 => self.tile::<2, S>(s, &tile, block),
                            3 if S::FMA => self.tile::<3, S>(s, &tile, block),
                            4 if S::FMA => self.tile::<4, S>(s, &tile, block),
                            5 if S::FMA => self.tile::<5, S>(s, &tile, block),
                            6 if S::FMA => self.tile::<6, S>(s, &tile, block),
                            _ => unreachable!("a tile has at most {TILE_FMA} pixels"),
                        }
                        x += tile.count;
                    }
                }
            }
        }
    }
}

/// Neighbouring outputs of a run.
struct Tile<'a> {
    taps: &'a [Tap],
    run: &'a Run,
    /// The first pixel of the output row.
    line: usize,
    /// The first output, within the run.
    x: usize,
    count: usize,
    /// Where the row lies that comes after those the taps read, for the first output of the run.
    next: usize,
}

impl Band<'_, '_> {
    /// `P` pixels of one block.
    #[inline(always)]
    fn tile<const P: usize, S: Simd>(&self, s: S, tile: &Tile<'_>, block: usize) {
        let of = &self.sum.of;
        let (start, _) = of.start(block);
        let pitch = tile.run.pace * of.c;
        let mut sums = [[s.splat(0.0); BLOCK / LANES]; P];
        // SAFETY: `run` checked where the taps of the whole run end, a pixel's block lies within its
        // channels, and every block has a filter for every tap.
        unsafe {
            let image = self.image.as_ptr().add(start + tile.x * pitch);
            let filter = self.filters.as_ptr().add(block * of.k * of.k * BLOCK);
            for tap in tile.taps {
                let w = filter.add(tap.filter);
                let w = [s.load(w), s.load(w.add(LANES))];
                let x = image.add(tap.at);
                for (p, sums) in sums.iter_mut().enumerate() {
                    let x = x.add(p * pitch);
                    *sums = [s.fma(s.load(x), w[0], sums[0]), s.fma(s.load(x.add(LANES)), w[1], sums[1])];
                }
            }
        }
        // The pixels that the next row reads and this one did not: a row of this block spans many
        // pages, which no hardware fetches ahead.
        let next = self.image.as_ptr().wrapping_add(start + tile.x * pitch + tile.next);
        for row in 0..tile.run.pace {
            for p in 0..P * tile.run.pace {
                s.prefetch(next.wrapping_add((row * self.sum.from[1] + p) * of.c));
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            let pixel = tile.line + tile.run.first + (tile.x + p) * tile.run.step;
            s.prefetch(self.to.place((pixel + self.sum.to[1]) * of.c + start));
            self.store(s, pixel, block, *sums);
        }
    }

    /// One pixel of `B` blocks.
    #[inline(always)]
    fn across<const B: usize, S: Simd>(&self, s: S, taps: &[Tap], pixel: usize, block: usize) -> usize {
        let of = &self.sum.of;
        let len = of.k * of.k * BLOCK;
        let mut sums = [[s.splat(0.0); BLOCK / LANES]; B];
        let starts: [usize; B] = std::array::from_fn(|b| of.start(block + b).0);
        for tap in taps {
            for (b, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as in `tile`.
                unsafe {
                    let x = self.image.as_ptr().add(tap.at + starts[b]);
                    let w = self.filters.as_ptr().add((block + b) * len + tap.filter);
                    *sums = [
                        s.fma(s.load(x), s.load(w), sums[0]),
                        s.fma(s.load(x.add(LANES)), s.load(w.add(LANES)), sums[1]),
                    ];
                }
            }
        }
        let next = self.image.as_ptr().wrapping_add(next(self.sum.from[1], of, taps));
        for (b, sums) in sums.iter().enumerate() {
            s.prefetch(next.wrapping_add(starts[b]));
            s.prefetch(self.to.place((pixel + self.sum.to[1]) * of.c + starts[b]));
            self.store(s, pixel, block + b, *sums);
        }
        B
    }

    #[inline(always)]
    fn store<S: Simd>(&self, s: S, pixel: usize, block: usize, sums: [S::V; 2]) {
        let (start, skip) = self.sum.of.start(block);
        let from = pixel * self.sum.of.c + start;
        // SAFETY: the rows and the own channels of these blocks belong to this task.
        let to = unsafe { self.to.slice(from + skip..from + BLOCK) };
        if skip == 0 {
            return store16(s, sums, to, self.sum.add);
        }
        let values = sums.map(|half| s.array(half));
        for (to, value) in to.iter_mut().zip(values.as_flattened()[skip..].iter()) {
            *to = if self.sum.add { *to + value } else { *value };
        }
    }
}

/// `sums[block][tap] += sum over outputs of x[what the tap reads] * dy[output]`.
struct FilterSums<'a, 'sums> {
    of: Depthwise,
    x: &'a [f32],
    dy: &'a [f32],
    images: Range<usize>,
    blocks: Range<usize>,
    rows: &'a [Vec<AxisTap>],
    runs: &'a [Run],
    sums: &'sums mut [f32],
}

impl Loop for FilterSums<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut taps = Vec::with_capacity(self.of.k * self.of.k);
        for n in self.images.clone() {
            self.image(s, n, &mut taps);
        }
    }
}

impl FilterSums<'_, '_> {
    #[inline(always)]
    fn image<S: Simd>(&mut self, s: S, n: usize, taps: &mut Vec<Tap>) {
        let (of, most) = (self.of, if S::FMA { TILE_FMA } else { TILE });
        let (plane, result) = (of.size[0] * of.size[1] * of.c, of.to[0] * of.to[1] * of.c);
        let len = of.k * of.k * BLOCK;
        let image = &self.x[n * plane..(n + 1) * plane];
        let dy = &self.dy[n * result..(n + 1) * result];
        for y in 0..of.to[0] {
            for run in self.runs {
                cross(&of, of.size[1], &self.rows[y], run, taps);
                assert!(end(&of, taps, run) <= image.len());
                let next = next(of.size[1], &of, taps);
                let line = (y * of.to[1] + run.first) * of.c;
                assert!(line + ((run.count - 1) * run.step + 1) * of.c <= dy.len());
                for (block, sums) in self.blocks.clone().zip(self.sums.chunks_exact_mut(len)) {
                    let (start, _) = of.start(block);
                    let (image, dy) = (&image[start..], &dy[line + start..]);
                    let groups = taps.len().div_ceil(most);
                    let mut rest = &taps[..];
                    for group in 0..groups {
                        let (now, later) = rest.split_at(rest.len().div_ceil(groups - group));
                        // Once a row: what the next one reads.
                        let ahead = group == 0;
                        let row = FilterRow { of: &of, image, dy, run, taps: now, next, ahead };
                        match now.len() {
                            1 => row.add::<1, S>(s, sums),
                            2 => row.add::<2, S>(s, sums),
                            3 if S::FMA => row.add::<3, S>(s, sums),
                            4 if S::FMA => row.add::<4, S>(s, sums),
                            5 if S::FMA => row.add::<5, S>(s, sums),
                            6 if S::FMA => row.add::<6, S>(s, sums),
                            _ => unreachable!("a group has at most {TILE_FMA} taps"),
                        }
                        rest = later;
                    }
                }
            }
        }
    }
}

/// Some taps of a run, in one block.
struct FilterRow<'a> {
    of: &'a Depthwise,
    image: &'a [f32],
    dy: &'a [f32],
    run: &'a Run,
    taps: &'a [Tap],
    /// Where the row lies that comes after those the run's taps read, and whether to fetch it.
    next: usize,
    ahead: bool,
}

impl FilterRow<'_> {
    #[inline(always)]
    fn add<const T: usize, S: Simd>(&self, s: S, sums: &mut [f32]) {
        let (c, run) = (self.of.c, self.run);
        let mut totals = [[s.splat(0.0); BLOCK / LANES]; T];
        let taps: [Tap; T] = std::array::from_fn(|t| self.taps[t]);
        for j in 0..run.count {
            // SAFETY: `FilterSums::run` checked where the run's taps and its outputs end, and a
            // pixel's block lies within its channels.
            unsafe {
                let dy = self.dy.as_ptr().add(j * run.step * c);
                let dy = [s.load(dy), s.load(dy.add(LANES))];
                let image = self.image.as_ptr().add(j * run.pace * c);
                for (totals, tap) in totals.iter_mut().zip(taps) {
                    let x = image.add(tap.at);
                    *totals =
                        [s.fma(s.load(x), dy[0], totals[0]), s.fma(s.load(x.add(LANES)), dy[1], totals[1])];
                }
            }
        }
        if self.ahead {
            for j in 0..run.count {
                s.prefetch(self.dy.as_ptr().wrapping_add((j + self.of.to[1]) * c));
            }
            for row in 0..run.pace {
                let row = self.image.as_ptr().wrapping_add(self.next + row * self.of.size[1] * c);
                (0..run.count * run.pace).for_each(|j| s.prefetch(row.wrapping_add(j * c)));
            }
        }
        for (totals, tap) in totals.iter().zip(taps) {
            store16(s, *totals, &mut sums[tap.filter..tap.filter + BLOCK], true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(size: usize, k: usize, stride: usize, dilation: usize) -> Depthwise {
        let to = (size - 1) / stride + 1;
        let pad = dilation * (k - 1) / 2;
        Depthwise { n: 1, size: [size; 2], c: BLOCK, k, stride, dilation, to: [to; 2], pad }
    }

    /// Every output is in one run, and a run's taps read what each of its outputs reads alone.
    #[test]
    fn runs_hold_every_output_once_with_its_taps() {
        for (size, k, stride, dilation) in
            [(9, 3, 1, 1), (10, 5, 2, 1), (7, 7, 3, 1), (8, 3, 2, 3), (1, 3, 2, 1)]
        {
            let of = sizes(size, k, stride, dilation);
            type Taps<'a> = Box<dyn Fn(usize) -> Vec<AxisTap> + 'a>;
            let axes: [(usize, usize, usize, Taps<'_>); 2] = [
                (of.to[0], 1, stride, Box::new(|o| of.reads(o, size))),
                (size, stride, 1, Box::new(|i| of.read_by(i, of.to[0]))),
            ];
            for (outputs, period, pace, taps) in axes {
                let mut seen = vec![0; outputs];
                for run in runs(outputs, period, pace, &taps) {
                    for j in 0..run.count {
                        let output = run.first + j * run.step;
                        seen[output] += 1;
                        let moved: Vec<AxisTap> =
                            run.taps.iter().map(|&(t, i)| (t, i + j * run.pace)).collect();
                        assert_eq!(moved, taps(output), "output {output} of {of:?}");
                    }
                }
                assert!(seen.iter().all(|&times| times == 1), "{seen:?} of {of:?}");
            }
        }
    }

    /// What the unchecked loads rely on.
    #[test]
    fn the_end_of_a_run_is_past_all_its_taps() {
        for (size, k, stride, dilation) in [(9, 3, 1, 1), (10, 5, 2, 1), (7, 7, 1, 1), (12, 5, 2, 2)] {
            let of = sizes(size, k, stride, dilation);
            let mut taps = Vec::new();
            for y in 0..size {
                for run in runs(size, stride, 1, |i| of.read_by(i, of.to[1])) {
                    cross(&of, of.to[1], &of.read_by(y, of.to[0]), &run, &mut taps);
                    let last = ((run.count - 1) * run.pace + 1) * of.c;
                    assert!(taps.iter().all(|tap| tap.at + last <= end(&of, &taps, &run)));
                    assert!(end(&of, &taps, &run) <= of.to[0] * of.to[1] * of.c);
                }
            }
        }
    }
}
