//! Evaluation: the block with its batch norms folded into its filters, one pass an image.
//!
//! A channel block is expanded into a padded scratch plane, convolved from there and pooled on the
//! way; what the depthwise wrote stays in a cache until the project has read it. Small planes share
//! a pass over the filters with the next images. A result's bits depend on its image alone: neither
//! on the other images of the batch nor on the number of threads.

mod conv;
mod layer;
mod windows;

use std::ops::Range;

pub use self::conv::FoldedConv;
use self::layer::{Column, Filter, Place, fold, folded_len, gated, layer};
use self::windows::{Windows, scale, windows};
use super::forward::{CHUNK, Source};
use super::norm::Given;
use super::plan::Plan;
use super::product::Left;
use super::strip::BLOCK;
use super::window::Plane;
use super::with_scratch;
use crate::cpu::simd::LANES;
use crate::cpu::{Cpu, Disjoint};
use crate::error::Result;
use crate::ops::Act;
use crate::tensor::{DType, Tensor};

/// Rows of a panel of the project, about.
const PANEL: usize = 112;
/// Tasks that a small batch is cut into, about.
const TASKS: usize = 8;
/// Columns of a task of a small batch.
const COLUMNS: usize = 32;

/// The layers of a block with frozen statistics, as the op's inputs have them.
pub struct Layers<'a> {
    /// Filter `[e, c]` and norm, unless the depthwise reads the input.
    pub expand: Option<(&'a [f32], Given<'a>)>,
    /// Filter `[k, k, e]` and norm.
    pub depthwise: (&'a [f32], Given<'a>),
    /// `w1 [r, e]`, `b1 [r]`, `w2 [e, r]`, `b2 [e]` and the gate's activation.
    pub squeeze: Option<([&'a [f32]; 4], Act)>,
    /// Filter `[o, e]` and norm.
    pub project: (&'a [f32], Given<'a>),
}

/// A block whose norms are folded into its filters.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The sizes; those of the planes and of the batch are not used.
    plan: Plan,
    acts: [Act; 3],
    residual: bool,
    /// `[block][shift, terms][16]`.
    expand: Option<Tensor>,
    /// `[block][shift, taps][16]`.
    depthwise: Tensor,
    squeeze: Option<Squeeze>,
    project: Tensor,
}

#[derive(Clone, Debug)]
struct Squeeze {
    /// Hidden channels.
    r: usize,
    reduce: Tensor,
    expand: Tensor,
    gate: Act,
}

impl Given<'_> {
    /// Scale and shift of channel `j`, of frozen statistics.
    fn folded(&self, j: usize) -> [f32; 2] {
        let [mean, var] = self.frozen.expect("only frozen statistics are folded");
        let [_, scale, shift] = self.constants(j, mean[j], var[j]);
        [scale, shift]
    }
}

impl Folded {
    /// Folds `layers`; of `plan` only channels, kernel and stride count.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn new(cpu: &Cpu, plan: &Plan, layers: &Layers<'_>, acts: [Act; 3], residual: bool) -> Result<Self> {
        let (c, e, o, wide, blocks) = (plan.c, plan.e, plan.o, plan.wide(), plan.blocks());
        let expand = match layers.expand {
            Some((w, given)) => {
                let mut to = Tensor::stale(cpu, [blocks, (1 + c) * BLOCK], DType::F32)?;
                cpu.pool().parallel_chunks(to.f32_mut()?, (1 + c) * BLOCK, |block, to| {
                    let column = |lane: usize| match block * BLOCK + lane {
                        j if j < e => {
                            let [scale, shift] = given.folded(j);
                            Column { weights: &w[j * c..(j + 1) * c], scale, shift }
                        }
                        _ => Column { weights: &[], scale: 0.0, shift: 0.0 },
                    };
                    fold([c, BLOCK], column, to);
                });
                Some(to)
            }
            None => None,
        };

        let (w, given) = layers.depthwise;
        let rows = 1 + plan.k * plan.k;
        let mut depthwise = Tensor::zeros(cpu, [blocks, rows * BLOCK])?;
        for (block, to) in depthwise.f32_mut()?.chunks_exact_mut(rows * BLOCK).enumerate() {
            for j in block * BLOCK..e.min((block + 1) * BLOCK) {
                let [scale, shift] = given.folded(j);
                to[j % BLOCK] = shift;
                let taps = to[BLOCK + j % BLOCK..].iter_mut().step_by(BLOCK);
                taps.zip(w[j..].iter().step_by(e)).for_each(|(to, w)| *to = w * scale);
            }
        }

        let squeeze = match layers.squeeze {
            Some(([w1, b1, w2, b2], gate)) => {
                let r = b1.len();
                let column = |j: usize| Column { weights: &w1[j * e..(j + 1) * e], scale: 1.0, shift: b1[j] };
                let reduce = folded(cpu, [wide, r], column)?;
                let column = |j: usize| Column { weights: &w2[j * r..(j + 1) * r], scale: 1.0, shift: b2[j] };
                Some(Squeeze { r, reduce, expand: folded(cpu, [r, e], column)?, gate })
            }
            None => None,
        };

        let (w, given) = layers.project;
        let project = folded(cpu, [wide, o], |j| {
            let [scale, shift] = given.folded(j);
            Column { weights: &w[j * e..(j + 1) * e], scale, shift }
        })?;
        Ok(Self { plan: *plan, acts, residual, expand, depthwise, squeeze, project })
    }

    /// Input channels.
    pub fn input(&self) -> usize {
        self.plan.c
    }

    /// Whether the input is added to the output.
    pub fn residual(&self) -> bool {
        self.residual
    }

    /// The output's axes.
    pub fn to(&self, [n, h, w]: [usize; 3]) -> [usize; 4] {
        let [h, w] = [h, w].map(|size| (size - 1) / self.plan.stride + 1);
        [n, h, w, self.plan.o]
    }

    /// `y [n, h', w', o]` of `x [n, h, w, c]`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn forward(&self, cpu: &Cpu, x: &[f32], [n, h, w]: [usize; 3], y: &mut [f32]) -> Result<()> {
        let [_, oh, ow, _] = self.to([n, h, w]);
        let block = Block { folded: self, plan: Plan { n, from: [h, w], to: [oh, ow], ..self.plan }, x };
        let (threads, groups) = (cpu.pool().threads(), block.plan.groups());
        let y = Disjoint::new(y);
        if threads == 1 || groups >= 2 * threads { block.by_group(cpu, &y) } else { block.by_part(cpu, &y) }
    }
}

fn folded<'a>(
    cpu: &Cpu,
    [terms, columns]: [usize; 2],
    column: impl Fn(usize) -> Column<'a>,
) -> Result<Tensor> {
    let mut to = Tensor::stale(cpu, [folded_len(terms, columns)], DType::F32)?;
    fold([terms, columns], column, to.f32_mut()?);
    Ok(to)
}

/// A folded block and what it is applied to.
struct Block<'a> {
    folded: &'a Folded,
    plan: Plan,
    x: &'a [f32],
}

impl Block<'_> {
    /// Elements of a scratch plane.
    fn plane_len(&self) -> usize {
        self.plan.rows() * self.plan.columns() * BLOCK
    }

    /// Whether the gate goes into a copy of the project's filter, and not into the activations: what
    /// is fewer elements, by shape alone.
    fn gates_filter(&self) -> bool {
        let pixels = self.plan.pixels_to();
        self.folded.squeeze.is_some() && pixels > self.plan.o.max(128)
    }

    fn filter_len(&self) -> usize {
        if self.gates_filter() { folded_len(self.plan.wide(), self.plan.o) } else { 0 }
    }

    /// Elements that the gates of a group take: sums of planes, hidden channels, gates.
    fn room_len(&self) -> usize {
        let (images, wide) = (self.plan.group(), self.plan.wide());
        images * (2 * wide + self.folded.squeeze.as_ref().map_or(0, |s| s.r.next_multiple_of(LANES)))
    }

    /// A task takes a group of images from beginning to end; nothing wide leaves its caches.
    fn by_group(&self, cpu: &Cpu, y: &Disjoint<'_, f32>) -> Result<()> {
        let plan = &self.plan;
        let (wide, pixels) = (plan.wide(), plan.pixels_to());
        let lens = [self.plane_len(), self.room_len(), self.filter_len()];
        let all = lens.iter().sum::<usize>() + plan.group() * pixels * wide;
        with_scratch(cpu, plan.groups(), all, |group, scratch| {
            let (plane, rest) = scratch.split_at_mut(lens[0]);
            let (room, rest) = rest.split_at_mut(lens[1]);
            let (filter, h2) = rest.split_at_mut(lens[2]);
            let images = plan.images(group);
            let h2 = &mut h2[..images * pixels * wide];
            plane.fill(0.0);
            for (at, plane2) in h2.chunks_exact_mut(pixels * BLOCK).enumerate() {
                let (block, image) = (at / images, at % images);
                let sums = &mut room[image * wide + block * BLOCK..][..BLOCK];
                self.wide(group * plan.group() + image, block, plane, plane2, sums);
            }
            self.gate(images, h2, room, filter);
            let panels = self.panels();
            for panel in 0..panels {
                let rows = images * pixels * panel / panels..images * pixels * (panel + 1) / panels;
                self.project(group, h2, filter, rows, 0..plan.o, y);
            }
        })
    }

    /// The tasks of a small batch: channel blocks, groups, then panels and some columns.
    fn by_part(&self, cpu: &Cpu, y: &Disjoint<'_, f32>) -> Result<()> {
        let plan = &self.plan;
        let (wide, blocks, pixels, groups) = (plan.wide(), plan.blocks(), plan.pixels_to(), plan.groups());
        let (room_len, filter_len) = (self.room_len(), self.filter_len());
        let mut h2 = Tensor::stale(cpu, [plan.n, pixels * wide], DType::F32)?;
        let mut rooms = Tensor::stale(cpu, [groups, room_len], DType::F32)?;
        let mut filters = Tensor::stale(cpu, [groups, filter_len], DType::F32)?;
        let (strips, sums) = (Disjoint::new(h2.f32_mut()?), Disjoint::new(rooms.f32_mut()?));
        with_scratch(cpu, groups * blocks, self.plane_len(), |task, plane| {
            let (group, block) = (task / blocks, task % blocks);
            plane.fill(0.0);
            for image in 0..plan.images(group) {
                let at = group * room_len + image * wide + block * BLOCK;
                let first = group * plan.group() + image;
                // SAFETY: this image and block belong to this task.
                let (to, sums) =
                    unsafe { (strips.slice(plan.plane(first, block, pixels)), sums.slice(at..at + BLOCK)) };
                self.wide(first, block, plane, to, sums);
            }
        })?;
        let copies = Disjoint::new(filters.f32_mut()?);
        let part = |group: usize, len: usize| group * len..(group + 1) * len;
        let strip = |group: usize| {
            let first = group * plan.group() * pixels * wide;
            first..first + plan.images(group) * pixels * wide
        };
        cpu.pool().parallel_for(groups, |group, _| {
            // SAFETY: all of a group belongs to one task.
            let (h2, room, filter) = unsafe {
                (
                    strips.slice(strip(group)),
                    sums.slice(part(group, room_len)),
                    copies.slice(part(group, filter_len)),
                )
            };
            self.gate(plan.images(group), h2, room, filter);
        });
        let (h2, filters, panels) = (h2.f32()?, filters.f32()?, self.panels());
        let parts = if groups * panels < TASKS { plan.o.div_ceil(COLUMNS) } else { 1 };
        cpu.pool().parallel_for(groups * panels * parts, |task, _| {
            let (group, panel, part_of) = (task / parts / panels, task / parts % panels, task % parts);
            let rows = plan.images(group) * pixels;
            let rows = rows * panel / panels..rows * (panel + 1) / panels;
            let columns = match parts {
                1 => 0..plan.o,
                _ => part_of * COLUMNS..plan.o.min((part_of + 1) * COLUMNS),
            };
            self.project(group, &h2[strip(group)], &filters[part(group, filter_len)], rows, columns, y);
        });
        Ok(())
    }

    /// Panels of a group.
    fn panels(&self) -> usize {
        let pixels = self.plan.pixels_to();
        if self.plan.group() > 1 { 1 } else { ((pixels + PANEL / 2) / PANEL).max(1) }
    }

    /// Expand and depthwise of one channel block of an image into `to [pixel][16]`, the sums of the
    /// result into `sums [16]`. A plane that is not cut into bands has zeros around its inside, and
    /// keeps them.
    fn wide(&self, image: usize, block: usize, plane: &mut [f32], to: &mut [f32], sums: &mut [f32]) {
        let plan = &self.plan;
        let (k, w, pad, columns) = (plan.k, plan.to[1], plan.pad() as isize, plan.columns());
        let row = columns * BLOCK;
        let filter = self.folded.depthwise.f32().expect("filters are f32");
        let filter = &filter[block * (1 + k * k) * BLOCK..][..(1 + k * k) * BLOCK];
        sums.fill(0.0);
        // The rows of the source that the plane holds.
        let mut held = -pad..-pad;
        for band in 0..plan.bands() {
            let rows = plan.band(band);
            let first = (rows.start * plan.stride) as isize - pad;
            let end = first + ((rows.len() - 1) * plan.stride + k) as isize;
            if self.folded.expand.is_some() {
                // What windows of two bands read is not computed twice.
                let kept = (held.end - first).max(0) as usize;
                let from = (first - held.start) as usize;
                if from > 0 && kept > 0 {
                    plane.copy_within(from * row..(from + kept) * row, 0);
                }
                let fresh = first + kept as isize..end;
                let part = &mut plane[kept * row..(end - first) as usize * row];
                self.expand(image, block, fresh, plan.bands() > 1, part);
                held = first..end;
            } else {
                let part = &mut plane[..(end - first) as usize * row];
                Source::Input(self.x).fill(plan, image, block, first, part);
            }
            let data = &plane[..(end - first) as usize * row];
            let work = Windows {
                plane: Plane { data, columns },
                filter,
                k,
                stride: plan.stride,
                w,
                to: &mut to[rows.start * w * BLOCK..rows.end * w * BLOCK],
                sums,
            };
            windows(self.folded.acts[1], work);
        }
    }

    /// The expand layer on rows `rows` of an image, zeros beyond its edges, into `plane`; unless
    /// `margins`, the zeros are there already.
    fn expand(&self, image: usize, block: usize, rows: Range<isize>, margins: bool, plane: &mut [f32]) {
        let (plan, folded) = (&self.plan, self.folded);
        let ([h, w], c, pad, columns) = (plan.from, plan.c, plan.pad(), plan.columns());
        if margins {
            let inside = 0..h as isize;
            for (y, to) in rows.clone().zip(plane.chunks_exact_mut(columns * BLOCK)) {
                if inside.contains(&y) {
                    to[..pad * BLOCK].fill(0.0);
                    to[(pad + w) * BLOCK..].fill(0.0);
                } else {
                    to.fill(0.0);
                }
            }
        }
        let (from, end) = (rows.start.max(0), rows.end.min(h as isize));
        if from >= end {
            return;
        }
        let filters = folded.expand.as_ref().expect("only called with one").f32().expect("filters are f32");
        let left = Left {
            data: &self.x[(image * h + from as usize) * w * c..(image * h + end as usize) * w * c],
            row: c,
            outer: [1, 0],
            inner: [c, 1],
        };
        let data = &filters[block * (1 + c) * BLOCK..][..(1 + c) * BLOCK];
        let filter = Filter { data, size: [c, BLOCK], first: 0 };
        let first = ((from - rows.start) as usize * columns + pad) * BLOCK;
        let to = Place { parts: &Disjoint::new(plane), first, row: BLOCK, line: [w, (columns - w) * BLOCK] };
        layer((end - from) as usize * w, 0..BLOCK, left, filter, folded.acts[0], &[], to);
    }

    /// Makes the gates of a group from the sums of its planes, and puts them into `filter` or `h2`.
    fn gate(&self, images: usize, h2: &mut [f32], room: &mut [f32], filter: &mut [f32]) {
        let Some(squeeze) = &self.folded.squeeze else { return };
        let (wide, e, pixels) = (self.plan.wide(), self.plan.e, self.plan.pixels_to());
        let (r, row) = (squeeze.r, squeeze.r.next_multiple_of(LANES));
        let (means, rest) = room.split_at_mut(images * wide);
        let (hidden, gates) = rest.split_at_mut(images * row);
        let gates = &mut gates[..images * wide];
        means.iter_mut().for_each(|sum| *sum /= pixels as f32);
        let left = Left { data: means, row: wide, outer: [1, 0], inner: [wide, 1] };
        let data = squeeze.reduce.f32().expect("filters are f32");
        let to = Place { parts: &Disjoint::new(hidden), first: 0, row, line: [images, 0] };
        layer(images, 0..r, left, Filter { data, size: [wide, r], first: 0 }, Act::Relu, &[], to);
        let left = Left { data: hidden, row, outer: [1, 0], inner: [r, 1] };
        let data = squeeze.expand.f32().expect("filters are f32");
        let to = Place { parts: &Disjoint::new(gates), first: 0, row: wide, line: [images, 0] };
        layer(images, 0..e, left, Filter { data, size: [r, e], first: 0 }, Act::None, &[], to);
        for gates in gates.chunks_exact_mut(wide) {
            gates[..e].iter_mut().for_each(|g| *g = squeeze.gate.value(*g));
            gates[e..].fill(1.0);
        }
        if self.gates_filter() {
            let project = self.folded.project.f32().expect("filters are f32");
            gated(project, [wide, self.plan.o], gates, filter);
        } else {
            for (at, plane) in h2.chunks_exact_mut(pixels * BLOCK).enumerate() {
                let (block, image) = (at / images, at % images);
                scale(plane, &gates[image * wide + block * BLOCK..][..BLOCK]);
            }
        }
    }

    /// The project layer on some rows and columns of a group.
    fn project(
        &self,
        group: usize,
        h2: &[f32],
        gated: &[f32],
        rows: Range<usize>,
        columns: Range<usize>,
        y: &Disjoint<'_, f32>,
    ) {
        let (plan, folded) = (&self.plan, self.folded);
        let (blocks, wide, o) = (plan.blocks(), plan.wide(), plan.o);
        let strip = h2.len() / blocks;
        let data = if gated.is_empty() { folded.project.f32().expect("filters are f32") } else { gated };
        let first = (group * plan.group() * plan.pixels_to() + rows.start) * o;
        let to = Place { parts: y, first, row: o, line: [rows.len(), 0] };
        let residual = if folded.residual { self.x } else { &[] };
        for first in (0..blocks).step_by(CHUNK) {
            let left = Left {
                data: &h2[first * strip + rows.start * BLOCK..],
                row: BLOCK,
                outer: [CHUNK.min(blocks - first), strip],
                inner: [BLOCK, 1],
            };
            let filter = Filter { data, size: [wide, o], first: first * BLOCK };
            layer(rows.len(), columns.clone(), left, filter, folded.acts[2], residual, to);
        }
    }
}
