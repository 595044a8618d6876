//! The depthwise convolution, a few planes of sixteen channels at a time.
//!
//! A task copies its planes into padded scratch planes `[y][x][16]`, so that no loop knows borders,
//! and every tap is one offset from a window's first pixel: kernel size, stride and dilation live
//! in a table. The data gradient is the same sum over the output's gradient, spread by the stride
//! and padded with zeros, with the window turned around.

use super::simd::{self, LANES, Loop, Simd, store16};
use super::{Cpu, Disjoint};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Channels of one plane.
const BLOCK: usize = 16;
/// Output pixels that share a load of the filter, with and without FMA.
const PIXELS_FMA: usize = 6;
const PIXELS: usize = 2;
/// Bytes of scratch planes that a task should not exceed: they are to stay in the second cache.
const CACHE: usize = 400 << 10;
/// Blocks of one task at most: enough neighbours for memory to be read in streams.
const MOST_BLOCKS: usize = 8;
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

impl Depthwise {
    /// `y [n, oh, ow, c]` from `x [n, h, w, c]` and `w [k, k, c]`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn forward(&self, cpu: &Cpu, x: &[f32], w: &[f32], y: &mut [f32]) -> Result<()> {
        let grid = Grid { size: self.reach() };
        let sum = WindowSum {
            k: self.k,
            c: self.c,
            taps: grid.taps(self.k, self.dilation),
            step: self.stride,
            grid,
            turned: false,
            add: false,
        };
        let inside = Inside { size: self.size, step: 1, pad: self.pad };
        sum.run(cpu, self.n, x, inside, w, y, self.to)
    }

    /// Adds to `dx [n, h, w, c]`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn input_gradient(&self, cpu: &Cpu, dy: &[f32], w: &[f32], dx: &mut [f32]) -> Result<()> {
        let reach = self.dilation * (self.k - 1);
        let grid = Grid { size: self.size.map(|size| size + reach) };
        let sum = WindowSum {
            k: self.k,
            c: self.c,
            taps: grid.taps(self.k, self.dilation),
            step: 1,
            grid,
            turned: true,
            add: true,
        };
        let inside = Inside { size: self.to, step: self.stride, pad: reach - self.pad };
        sum.run(cpu, self.n, dy, inside, w, dx, self.size)
    }

    /// Adds to `dw [k, k, c]`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn filter_gradient(&self, cpu: &Cpu, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
        let (grid, dense) = (Grid { size: self.reach() }, Grid { size: self.to });
        let taps = grid.taps(self.k, self.dilation);
        let (cut, parts) = (Cut::new(self.c, grid.len() + dense.len()), self.n.min(PARTS));
        let len = cut.blocks * taps.len() * BLOCK;
        let mut partial = Tensor::stale(cpu, [parts, cut.groups(), len], DType::F32)?;
        let share = cut.blocks * (grid.len() + dense.len());
        let mut scratch = Tensor::stale(cpu, [cpu.pool().threads(), share], DType::F32)?;
        cpu.pool().parallel_chunks_with(
            partial.f32_mut()?,
            len,
            scratch.f32_mut()?,
            |task, sums, scratch| {
                let (part, group) = (task / cut.groups(), task % cut.groups());
                let (planes, gradients) = scratch.split_at_mut(cut.blocks * grid.len());
                let from = Inside { size: self.size, step: 1, pad: self.pad };
                let to = Inside { size: self.to, step: 1, pad: 0 };
                sums.fill(0.0);
                for n in self.n * part / parts..self.n * (part + 1) / parts {
                    grid.load(x, n, from, cut, group, planes);
                    dense.load(dy, n, to, cut, group, gradients);
                    let planes = planes.chunks_exact(grid.len()).zip(gradients.chunks_exact(dense.len()));
                    let sums = sums.chunks_exact_mut(taps.len() * BLOCK);
                    for ((plane, gradient), sums) in planes.zip(sums).take(cut.count(group)) {
                        let step = self.stride;
                        simd::run(FilterSums { plane, gradient, grid, to: self.to, step, taps: &taps, sums });
                    }
                }
            },
        );
        let partial = partial.f32()?;
        for (tap, dw) in dw.chunks_exact_mut(self.c).enumerate() {
            for (block, dw) in dw.chunks_mut(BLOCK).enumerate() {
                for part in 0..parts {
                    let from = part * cut.groups() * len + (block * taps.len() + tap) * BLOCK;
                    dw.iter_mut().zip(&partial[from..from + BLOCK]).for_each(|(sum, part)| *sum += part);
                }
            }
        }
        Ok(())
    }

    /// Rows and columns that the windows of all outputs cover.
    fn reach(&self) -> [usize; 2] {
        self.to.map(|to| (to - 1) * self.stride + self.dilation * (self.k - 1) + 1)
    }
}

/// How channels are cut into tasks: groups of neighbouring blocks.
#[derive(Clone, Copy)]
struct Cut {
    c: usize,
    /// Blocks of a group; the last may have fewer.
    blocks: usize,
}

impl Cut {
    /// For scratch planes of `len` elements a block.
    fn new(c: usize, len: usize) -> Self {
        Self { c, blocks: (CACHE / (len * size_of::<f32>())).clamp(1, MOST_BLOCKS.min(c.div_ceil(BLOCK))) }
    }

    fn groups(&self) -> usize {
        self.c.div_ceil(self.blocks * BLOCK)
    }

    /// Blocks of group `group`.
    fn count(&self, group: usize) -> usize {
        self.blocks.min(self.c.div_ceil(BLOCK) - group * self.blocks)
    }
}

/// A scratch plane `[rows][columns][BLOCK]`.
#[derive(Clone, Copy)]
struct Grid {
    size: [usize; 2],
}

/// Where the pixels of a plane lie in a scratch plane: `pad + i * step` on each axis.
#[derive(Clone, Copy)]
struct Inside {
    size: [usize; 2],
    step: usize,
    pad: usize,
}

impl Grid {
    fn len(&self) -> usize {
        self.size[0] * self.size[1] * BLOCK
    }

    /// Offsets of a window's taps from its first pixel.
    fn taps(&self, k: usize, dilation: usize) -> Vec<usize> {
        (0..k * k).map(|t| (t / k * self.size[1] + t % k) * dilation * BLOCK).collect()
    }

    /// Copies the blocks of `group` of image `n` of `from [n, h, w, c]` into one plane each; zeros
    /// elsewhere. Pixels beyond the grid, which no window reaches, are left out.
    fn load(&self, from: &[f32], n: usize, inside: Inside, cut: Cut, group: usize, planes: &mut [f32]) {
        let ([h, w], c) = (inside.size, cut.c);
        let first = group * cut.blocks * BLOCK;
        let end = c.min(first + cut.blocks * BLOCK);
        planes.fill(0.0);
        for y in 0..h {
            let row = inside.pad + y * inside.step;
            if row >= self.size[0] {
                break;
            }
            let source = from[(n * h + y) * w * c..][..w * c].chunks_exact(c);
            let columns = (inside.pad..self.size[1]).step_by(inside.step);
            for (column, pixel) in columns.zip(source) {
                let at = (row * self.size[1] + column) * BLOCK;
                let mut blocks = pixel[first..end].chunks_exact(BLOCK);
                for (block, values) in blocks.by_ref().enumerate() {
                    planes[block * self.len() + at..][..BLOCK].copy_from_slice(values);
                }
                let rest = blocks.remainder();
                if !rest.is_empty() {
                    let block = (end - first) / BLOCK;
                    planes[block * self.len() + at..][..rest.len()].copy_from_slice(rest);
                }
            }
        }
    }
}

/// `to[pixel] (+)= sum over taps of plane[pixel * step + tap] * w[tap]`.
struct WindowSum {
    k: usize,
    c: usize,
    taps: Vec<usize>,
    step: usize,
    grid: Grid,
    /// Whether the filter is read backwards.
    turned: bool,
    add: bool,
}

impl WindowSum {
    #[allow(clippy::too_many_arguments, reason = "two planes, their sizes, and a filter")]
    fn run(
        &self,
        cpu: &Cpu,
        n: usize,
        from: &[f32],
        inside: Inside,
        w: &[f32],
        to: &mut [f32],
        size: [usize; 2],
    ) -> Result<()> {
        let blocks = self.c.div_ceil(BLOCK);
        let count = self.k * self.k;
        let mut filters = Tensor::zeros(cpu, [blocks, count * BLOCK])?;
        for (block, filter) in filters.f32_mut()?.chunks_exact_mut(count * BLOCK).enumerate() {
            for (tap, filter) in filter.chunks_exact_mut(BLOCK).enumerate() {
                let tap = if self.turned { count - 1 - tap } else { tap };
                let w = &w[tap * self.c..(tap + 1) * self.c];
                let w = &w[block * BLOCK..self.c.min((block + 1) * BLOCK)];
                filter[..w.len()].copy_from_slice(w);
            }
        }
        let filters = filters.f32()?;
        let cut = Cut::new(self.c, self.grid.len());
        let share = cut.blocks * self.grid.len();
        let mut scratch = Tensor::stale(cpu, [cpu.pool().threads(), share], DType::F32)?;
        let (to, scratch) = (Disjoint::new(to), Disjoint::new(scratch.f32_mut()?));
        cpu.pool().parallel_for(n * cut.groups(), |task, lane| {
            let (n, group) = (task / cut.groups(), task % cut.groups());
            // SAFETY: share `lane` belongs to the running thread.
            let planes = unsafe { scratch.slice(lane * share..(lane + 1) * share) };
            self.grid.load(from, n, inside, cut, group, planes);
            let first = group * cut.blocks;
            let filters = &filters[first * count * BLOCK..];
            simd::run(Planes {
                sum: self,
                planes,
                filters,
                to: &to,
                size,
                n,
                first,
                blocks: cut.count(group),
            });
        });
        Ok(())
    }
}

/// One task of a [`WindowSum`].
struct Planes<'a, 'to> {
    sum: &'a WindowSum,
    planes: &'a [f32],
    filters: &'a [f32],
    to: &'a Disjoint<'to, f32>,
    size: [usize; 2],
    n: usize,
    /// The first block, and how many follow.
    first: usize,
    blocks: usize,
}

impl Loop for Planes<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let most = if S::FMA { PIXELS_FMA } else { PIXELS };
        let (grid, count) = (self.sum.grid, self.sum.taps.len());
        let [h, w] = self.size;
        let last = ((h - 1) * grid.size[1] + w - 1) * self.sum.step * BLOCK;
        let far = self.sum.taps.iter().copied().max().unwrap_or(0);
        assert!(last + far + BLOCK <= grid.len() && self.blocks * grid.len() <= self.planes.len());
        assert!(self.blocks * count * BLOCK <= self.filters.len());
        let tiles = w.div_ceil(most);
        // Blocks inside rows: neighbouring lines of the output are written one after another.
        for y in 0..h {
            for block in 0..self.blocks {
                let mut x = 0;
                // Even tiles: a last tile of one pixel would wait for its own sums.
                for tile in 0..tiles {
                    let pixels = (w - x).div_ceil(tiles - tile);
                    match pixels {
                        1 => self.tile::<1, S>(s, block, y, x),
                        2 => self.tile::<2, S>(s, block, y, x),
                        3 if S::FMA => self.tile::<3, S>(s, block, y, x),
                        4 if S::FMA => self.tile::<4, S>(s, block, y, x),
                        5 if S::FMA => self.tile::<5, S>(s, block, y, x),
                        6 if S::FMA => self.tile::<6, S>(s, block, y, x),
                        _ => unreachable!("a tile has at most {PIXELS_FMA} pixels"),
                    }
                    x += pixels;
                }
            }
        }
    }
}

impl Planes<'_, '_> {
    #[inline(always)]
    fn tile<const P: usize, S: Simd>(&self, s: S, block: usize, y: usize, x: usize) {
        let (sum, grid) = (self.sum, self.sum.grid);
        let from = block * grid.len() + (y * grid.size[1] + x) * sum.step * BLOCK;
        let mut sums = [[s.splat(0.0); BLOCK / LANES]; P];
        for (tap, place) in sum.taps.iter().enumerate() {
            // SAFETY: `run` checked the last window's farthest tap, and the filters' length.
            unsafe {
                let w = self.filters.as_ptr().add((block * sum.taps.len() + tap) * BLOCK);
                let w = [s.load(w), s.load(w.add(LANES))];
                let x = self.planes.as_ptr().add(from + place);
                for (p, sums) in sums.iter_mut().enumerate() {
                    let x = x.add(p * sum.step * BLOCK);
                    *sums = [s.fma(s.load(x), w[0], sums[0]), s.fma(s.load(x.add(LANES)), w[1], sums[1])];
                }
            }
        }
        let first = (self.first + block) * BLOCK;
        let width = BLOCK.min(sum.c - first);
        for (p, sums) in sums.iter().enumerate() {
            let at = ((self.n * self.size[0] + y) * self.size[1] + x + p) * sum.c + first;
            // SAFETY: the pixels of this image and channel block belong to this task.
            let to = unsafe { self.to.slice(at..at + width) };
            store16(s, *sums, to, sum.add);
        }
    }
}

/// `sums[tap] += sum over outputs of plane[output * step + tap] * gradient[output]`.
struct FilterSums<'a, 'sums> {
    plane: &'a [f32],
    gradient: &'a [f32],
    grid: Grid,
    to: [usize; 2],
    step: usize,
    taps: &'a [usize],
    sums: &'sums mut [f32],
}

impl Loop for FilterSums<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let most = if S::FMA { PIXELS_FMA } else { PIXELS };
        let [h, w] = self.to;
        let last = ((h - 1) * self.grid.size[1] + w - 1) * self.step * BLOCK;
        let far = self.taps.iter().copied().max().unwrap_or(0);
        assert!(last + far + BLOCK <= self.plane.len() && h * w * BLOCK <= self.gradient.len());
        assert!(self.taps.len() * BLOCK == self.sums.len());
        let (groups, mut tap) = (self.taps.len().div_ceil(most), 0);
        for group in 0..groups {
            let count = (self.taps.len() - tap).div_ceil(groups - group);
            match count {
                1 => self.group::<1, S>(s, tap),
                2 => self.group::<2, S>(s, tap),
                3 if S::FMA => self.group::<3, S>(s, tap),
                4 if S::FMA => self.group::<4, S>(s, tap),
                5 if S::FMA => self.group::<5, S>(s, tap),
                6 if S::FMA => self.group::<6, S>(s, tap),
                _ => unreachable!("a group has at most {PIXELS_FMA} taps"),
            }
            tap += count;
        }
    }
}

impl FilterSums<'_, '_> {
    #[inline(always)]
    fn group<const T: usize, S: Simd>(&mut self, s: S, first: usize) {
        let [h, w] = self.to;
        let taps: [usize; T] = std::array::from_fn(|t| self.taps[first + t]);
        let mut sums = [[s.splat(0.0); BLOCK / LANES]; T];
        for y in 0..h {
            for x in 0..w {
                // SAFETY: `run` checked the last window's farthest tap and the gradient's length.
                unsafe {
                    let dy = self.gradient.as_ptr().add((y * w + x) * BLOCK);
                    let dy = [s.load(dy), s.load(dy.add(LANES))];
                    let plane = self.plane.as_ptr().add((y * self.grid.size[1] + x) * self.step * BLOCK);
                    for (sums, tap) in sums.iter_mut().zip(taps) {
                        let x = plane.add(tap);
                        *sums =
                            [s.fma(s.load(x), dy[0], sums[0]), s.fma(s.load(x.add(LANES)), dy[1], sums[1])];
                    }
                }
            }
        }
        for (sums, to) in sums.iter().zip(self.sums[first * BLOCK..].chunks_exact_mut(BLOCK)) {
            store16(s, *sums, to, true);
        }
    }
}
