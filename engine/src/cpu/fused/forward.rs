//! The forward passes: expand, depthwise, squeeze, project, finish.

use std::marker::PhantomData;

use super::curve::with_curve;
use super::norm::{Given, Lanes, Norms, TopNorm};
use super::plan::Plan;
use super::product::{Ahead, Left, Right, Target, pack, packed_len, product};
use super::strip::{self, BLOCK};
use super::window::{Activated, Channels, Fill, Forward, Plane, Taps};
use super::{rows, window, with_scratch};
use crate::cpu::simd;
use crate::cpu::{Cpu, Disjoint};
use crate::error::Result;
use crate::op::Moments;
use crate::ops::Act;
use crate::tensor::{DType, Tensor};

/// Channel blocks whose activations are made before the product reads them.
pub(super) const CHUNK: usize = 8;

/// `h1 = x w1^T` with its statistics: x `[n, h, w, c]`, w1 `[e, c]`, h1 a wide tensor.
pub fn expand(
    cpu: &Cpu,
    plan: &Plan,
    x: &[f32],
    w1: &[f32],
    h1: &mut [f32],
    given: Given<'_>,
) -> Result<(Norms, Option<Moments>)> {
    let _span = cpu.pass("expand");
    let (c, e, blocks, panels) = (plan.c, plan.e, plan.blocks(), plan.panels_from());
    let mut packed = Tensor::stale(cpu, [blocks, c * BLOCK], DType::F32)?;
    cpu.pool().parallel_chunks(packed.f32_mut()?, c * BLOCK, |block, to| {
        let lanes = BLOCK.min(e - block * BLOCK);
        pack(&w1[block * BLOCK * c..], [c, lanes], [1, c], BLOCK, to);
    });
    let packed = packed.f32()?;
    let set = 2 * BLOCK;
    let mut sums = Tensor::stale(cpu, [panels.count(), blocks * set], DType::F32)?;
    let (to, parts) = (Disjoint::new(&mut *h1), Disjoint::new(sums.f32_mut()?));
    cpu.pool().parallel_for(panels.count(), |index, _| {
        let panel = panels.at(index);
        let rows = panel.rows.len();
        let left = Left { data: &x[panels.nhwc(&panel, c)], row: c, outer: [1, 0], inner: [c, 1] };
        for block in 0..blocks {
            let range = panels.strip(&panel, block);
            let ahead = Ahead::run([to.place(panels.after(index, block, 1)); 2], rows);
            // SAFETY: rows and sums of this panel and block belong to this task.
            let (strip, part) = unsafe {
                (
                    to.slice(range),
                    parts.slice((index * blocks + block) * set..(index * blocks + block + 1) * set),
                )
            };
            let right = Right { data: &packed[block * c * BLOCK..(block + 1) * c * BLOCK], terms: [c, 0] };
            let target = Target { data: &mut *strip, row: BLOCK, add: false };
            product([rows, BLOCK], left, right, target, ahead);
            if given.frozen.is_none() {
                strip::moments(strip, part);
            }
        }
    });
    let sums = sums.f32()?;
    Norms::new(cpu, plan, given, |block| {
        let mut lanes = Lanes::new();
        for index in 0..panels.count() {
            let panel = panels.at(index);
            let center = &h1[panels.strip(&panel, block)][..BLOCK];
            let (first, second) = sums[(index * blocks + block) * set..][..set].split_at(BLOCK);
            lanes.join(panel.rows.len(), center, first, second);
        }
        lanes
    })
}

/// What the depthwise convolution reads.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A raw wide tensor, its norm's constants and the activation.
    Wide(&'a [f32], &'a [f32], Act),
    /// The input `[n, h, w, c]` itself.
    Input(&'a [f32]),
}

impl Source<'_> {
    /// Where what the output's row `y` reads begins, or null where that is no plane.
    pub(super) fn place(&self, plan: &Plan, image: usize, block: usize, y: usize) -> *const f32 {
        match *self {
            Source::Wide(h, ..) => {
                let at = plan.plane(image, block, plan.pixels_from()).start;
                h.as_ptr().wrapping_add(at + y * plan.stride * plan.from[1] * BLOCK)
            }
            Source::Input(_) => std::ptr::null(),
        }
    }

    /// Fills a padded plane of image `image` and block `block` from row `first`.
    pub(super) fn fill(&self, plan: &Plan, image: usize, block: usize, first: isize, plane: &mut [f32]) {
        let (margin, pixels) = (plan.pad(), plan.pixels_from());
        match *self {
            Source::Wide(h, constants, act) => {
                let norm = Norms::affine(constants, block);
                let h = &h[plan.plane(image, block, pixels)];
                with_curve!(act, C => simd::run(Fill {
                    source: Activated { h, norm, curve: PhantomData::<C> },
                    size: plan.from, first, margin, columns: plan.columns(), plane,
                }));
            }
            Source::Input(x) => {
                let x = &x[image * pixels * plan.c..(image + 1) * pixels * plan.c];
                let source = Channels { x, c: plan.c, first: block * BLOCK };
                simd::run(Fill { source, size: plan.from, first, margin, columns: plan.columns(), plane });
            }
        }
    }
}

/// Packs a depthwise filter `[k, k, e]` as `[block][k][k][16]`.
fn taps(cpu: &Cpu, plan: &Plan, w: &[f32]) -> Result<Tensor> {
    let (e, count) = (plan.e, plan.k * plan.k);
    let mut packed = Tensor::zeros(cpu, [plan.blocks(), count * BLOCK])?;
    for (block, to) in packed.f32_mut()?.chunks_exact_mut(count * BLOCK).enumerate() {
        for (to, w) in to.chunks_exact_mut(BLOCK).zip(w.chunks_exact(e)) {
            let w = &w[block * BLOCK..e.min((block + 1) * BLOCK)];
            to[..w.len()].copy_from_slice(w);
        }
    }
    Ok(packed)
}

/// `h2 = depthwise(source, w)` with its statistics: w `[k, k, e]`, h2 a wide tensor.
pub fn depthwise(
    cpu: &Cpu,
    plan: &Plan,
    source: Source<'_>,
    w: &[f32],
    h2: &mut [f32],
    given: Given<'_>,
) -> Result<(Norms, Option<Moments>)> {
    let _span = cpu.pass("depthwise");
    let (blocks, bands, set, pixels) = (plan.blocks(), plan.bands(), 2 * BLOCK, plan.pixels_to());
    let filters = taps(cpu, plan, w)?;
    let filters = filters.f32()?;
    let mut sums = Tensor::stale(cpu, [plan.n * bands, blocks * set], DType::F32)?;
    {
        let (to, parts) = (Disjoint::new(&mut *h2), Disjoint::new(sums.f32_mut()?));
        let (columns, count) = (plan.columns(), plan.k * plan.k * BLOCK);
        with_scratch(cpu, plan.n * blocks, plan.rows() * columns * BLOCK, |task, scratch| {
            let (image, block) = plan.nth_plane(task);
            let start = plan.plane(image, block, pixels).start;
            for band in 0..bands {
                let rows = plan.band(band);
                let high = (rows.len() - 1) * plan.stride + plan.k;
                let plane = &mut scratch[..high * columns * BLOCK];
                let first = (rows.start * plan.stride) as isize - plan.pad() as isize;
                source.fill(plan, image, block, first, plane);
                let row = plan.to[1] * BLOCK;
                let part = ((image * bands + band) * blocks + block) * set;
                // SAFETY: this image and block belong to this task.
                let (to, sums) = unsafe {
                    (
                        to.slice(start + rows.start * row..start + rows.end * row),
                        parts.slice(part..part + set),
                    )
                };
                let taps = Taps { data: &filters[block * count..(block + 1) * count], size: [plan.k; 2] };
                let plane = Plane { data: plane, columns };
                // The next band, or the next plane's first.
                let ahead = window::Ahead {
                    from: [source.place(plan, image, block, rows.end), to.as_ptr().wrapping_add(to.len())],
                    lines: [plan.stride * plan.stride, 1],
                };
                simd::run(Forward { plane, taps, stride: plan.stride, w: plan.to[1], to, sums, ahead });
            }
        })?;
    }
    let sums = sums.f32()?;
    Norms::new(cpu, plan, given, |block| {
        let mut lanes = Lanes::new();
        for index in 0..plan.n * bands {
            let rows = plan.band(index % bands);
            let start = plan.plane(index / bands, block, pixels).start + rows.start * plan.to[1] * BLOCK;
            let (first, second) = sums[(index * blocks + block) * set..][..set].split_at(BLOCK);
            lanes.join(rows.len() * plan.to[1], &h2[start..start + BLOCK], first, second);
        }
        lanes
    })
}

/// The mean of `act(norm(h2))` over each plane, into `means [n, e]`.
pub fn squeeze(cpu: &Cpu, plan: &Plan, h2: &[f32], norm: &Norms, act: Act, means: &mut [f32]) -> Result<()> {
    let _span = cpu.pass("squeeze");
    let (e, blocks, pixels, constants) = (plan.e, plan.blocks(), plan.pixels_to(), norm.0.f32()?);
    let to = Disjoint::new(means);
    cpu.pool().parallel_for(plan.n * blocks, |task, _| {
        let (image, block) = (task / blocks, task % blocks);
        let mut sums = [0.0; BLOCK];
        strip::pool(act, &h2[plan.plane(image, block, pixels)], Norms::affine(constants, block), &mut sums);
        let range = image * e + block * BLOCK..image * e + e.min((block + 1) * BLOCK);
        // SAFETY: these channels of this image belong to this task.
        let to = unsafe { to.slice(range) };
        to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum / pixels as f32);
    });
    Ok(())
}

/// `h3 = (act(norm(h2)) gate) w3^T` with its statistics: gates `[n, wide]` if there are any, w3
/// `[o, e]`, h3 `[n, h', w', o]`.
#[allow(clippy::too_many_arguments, reason = "one pass reads all of these")]
pub fn project(
    cpu: &Cpu,
    plan: &Plan,
    h2: &[f32],
    norm: &Norms,
    act: Act,
    gates: Option<&[f32]>,
    w3: &[f32],
    h3: &mut [f32],
    given: Given<'_>,
) -> Result<(TopNorm, Option<Moments>)> {
    let _span = cpu.pass("project");
    let (e, o, blocks, wide, panels) = (plan.e, plan.o, plan.blocks(), plan.wide(), plan.panels_to());
    let constants = norm.0.f32()?;
    let mut packed = Tensor::stale(cpu, [packed_len(wide, o)], DType::F32)?;
    pack(w3, [e, o], [1, e], o, packed.f32_mut()?);
    let packed = packed.f32()?;
    let mut sums = Tensor::stale(cpu, [panels.count(), 2 * o], DType::F32)?;
    {
        let (to, parts) = (Disjoint::new(&mut *h3), Disjoint::new(sums.f32_mut()?));
        with_scratch(cpu, panels.count(), CHUNK * panels.longest() * BLOCK, |index, scratch| {
            let panel = panels.at(index);
            let rows = panel.rows.len();
            // SAFETY: rows and sums of this panel belong to this task.
            let (to, part) = unsafe {
                (to.slice(panels.nhwc(&panel, o)), parts.slice(index * 2 * o..(index + 1) * 2 * o))
            };
            for first in (0..blocks).step_by(CHUNK) {
                let count = CHUNK.min(blocks - first);
                for (block, strip) in scratch.chunks_exact_mut(rows * BLOCK).take(count).enumerate() {
                    let block = first + block;
                    let h = &h2[panels.strip(&panel, block)];
                    for (image, rows) in panels.images(&panel) {
                        let rows = rows.start * BLOCK..rows.end * BLOCK;
                        let gate = gates.map(|g| &g[image * wide + block * BLOCK..][..BLOCK]);
                        let norm = Norms::affine(constants, block);
                        strip::activate(act, &h[rows.clone()], norm, gate, &mut strip[rows]);
                    }
                }
                // What the next chunk, or the next panel, reads.
                let next = h2.as_ptr().wrapping_add(panels.after(index, first, count));
                let runs = [CHUNK.min(blocks - first), plan.images(panel.group) * plan.pixels_to() * BLOCK];
                let ahead = Ahead { from: [next; 2], lines: rows, runs };
                let left =
                    Left { data: scratch, row: BLOCK, outer: [count, rows * BLOCK], inner: [BLOCK, 1] };
                let right = Right { data: packed, terms: [wide, first * BLOCK] };
                let target = Target { data: &mut *to, row: o, add: first > 0 };
                product([rows, o], left, right, target, ahead);
            }
            if given.frozen.is_none() {
                rows::moments(to, o, part);
            }
        })?;
    }
    let sums = sums.f32()?;
    TopNorm::new(cpu, o, given, |block| {
        let mut lanes = Lanes::new();
        let channels = block * BLOCK..o.min((block + 1) * BLOCK);
        for index in 0..panels.count() {
            let panel = panels.at(index);
            let center = &h3[panels.nhwc(&panel, o)][channels.clone()];
            let (first, second) = sums[index * 2 * o..][..2 * o].split_at(o);
            lanes.join(panel.rows.len(), center, &first[channels.clone()], &second[channels.clone()]);
        }
        lanes
    })
}

/// `y = act(norm(h3)) (+ x)`; no `x` if it is empty.
pub fn finish(
    cpu: &Cpu,
    plan: &Plan,
    h3: &[f32],
    norm: &TopNorm,
    act: Act,
    x: &[f32],
    y: &mut [f32],
) -> Result<()> {
    let _span = cpu.pass("finish");
    let (panels, norm) = (plan.panels_to(), TopNorm::rows(norm.0.f32()?));
    let to = Disjoint::new(y);
    cpu.pool().parallel_for(panels.count(), |index, _| {
        let range = panels.nhwc(&panels.at(index), plan.o);
        // SAFETY: the rows of this panel belong to this task.
        let to = unsafe { to.slice(range.clone()) };
        let x = if x.is_empty() { x } else { &x[range.clone()] };
        rows::finish(act, &h3[range], norm, x, to);
    });
    Ok(())
}
