//! The backward passes: sums 3, project, squeeze, depthwise, expand.

use super::forward::{Narrow, fill_plane, padded, saved, strip_places};
use super::norm::{Norm, Sums, block as constants_of};
use super::{DEPTHWISE, EXPAND, InvertedResidual, PROJECT, Panels, Sizes};
use crate::cpu::Cpu;
use crate::cpu::blocked::{self, BLOCK, Linear, rows, rows_mut};
use crate::cpu::matmul::{Left, Places, Right, pack, packed_len, panel};
use crate::cpu::simd::{self, Loop, Simd};
use crate::cpu::window::{Correlation, FilterGradient};
use crate::error::Result;
use crate::op::Kept;
use crate::ops::batch_norm::gradient_sums;
use crate::ops::{Act, dense};
use crate::tensor::{DType, Tensor};

pub(super) fn run(
    op: &InvertedResidual,
    cpu: &Cpu,
    kept: &Kept<'_>,
    dy: &Tensor,
    dx: &mut [Option<&mut [f32]>],
) -> Result<()> {
    let shapes: Vec<_> = (0..op.places().count).map(|i| kept.shape(i)).collect();
    let (s, places) = (op.sizes(&shapes), op.places());
    let (h1, h2, h3) = (&kept.saved[saved::H1], &kept.saved[saved::H2], &kept.saved[saved::H3]);
    let norms: [Norm<'_>; 3] = [
        Norm::new(&kept.saved[saved::NORMS])?,
        Norm::new(&kept.saved[saved::NORMS + 1])?,
        Norm::new(&kept.saved[saved::NORMS + 2])?,
    ];
    let (x, dy) = (kept.x(0)?, dy.f32()?);

    // Norm 3.
    let through = match op.acts[PROJECT] {
        Act::None => None,
        act => Some(narrow_back(cpu, s, h3.f32()?, norms[PROJECT], act, dy)?),
    };
    let du3 = match &through {
        Some(du3) => du3.f32()?,
        None => dy,
    };
    let width = s.o.next_multiple_of(BLOCK);
    let both = gradient_sums(cpu, h3.f32()?, du3, &norms[PROJECT].mean()[..s.o])?;
    let mut sums = Sums { sum: Tensor::zeros(cpu, [width])?, product: Tensor::zeros(cpu, [width])? };
    sums.sum.f32_mut()?[..s.o].copy_from_slice(&both.f32()?[..s.o]);
    sums.product.f32_mut()?[..s.o].copy_from_slice(&both.f32()?[s.o..]);
    let constants3 = norm_back(op, cpu, PROJECT, s.o, s.n * s.outputs(), norms[PROJECT], &sums, dx)?;

    // Project and squeeze.
    let gates = match op.squeeze {
        Some(gate) => {
            let logits = kept.saved[saved::SQUEEZE + 2].f32()?;
            Some(padded(cpu, s, logits, |u| gate.value(u))?)
        }
        None => None,
    };
    let gates = gates.as_ref().map(|gates| gates.f32()).transpose()?;
    let job = Project {
        s,
        h2: h2.f32()?,
        norm: norms[DEPTHWISE],
        act: op.acts[DEPTHWISE],
        gates,
        h3: h3.f32()?,
        norm3: norms[PROJECT],
        du3,
        constants3: constants3.f32()?,
    };
    let (dz, partial) =
        job.run(cpu, kept.x(places.filters[PROJECT])?, dx[places.filters[PROJECT]].as_deref_mut())?;
    let evens = match op.squeeze {
        Some(gate) => Some(squeeze_back(op, cpu, s, gate, kept, partial.f32()?, dx)?),
        None => None,
    };
    let evens = evens.as_ref().map(|evens| evens.f32()).transpose()?;
    let sums = gated_sums(cpu, s, partial.f32()?, gates, evens)?;
    let constants2 = norm_back(op, cpu, DEPTHWISE, s.e, s.n * s.outputs(), norms[DEPTHWISE], &sums, dx)?;

    // Depthwise.
    let job = Depthwise {
        s,
        h1: h1.f32()?,
        norm1: norms[EXPAND],
        act1: if op.expand { op.acts[EXPAND] } else { Act::None },
        h2: h2.f32()?,
        norm2: norms[DEPTHWISE],
        act2: op.acts[DEPTHWISE],
        dz: dz.f32()?,
        gated: gates.zip(evens),
        constants2: constants2.f32()?,
    };
    let at = places.filters[DEPTHWISE];
    let (du1, partial) = job.run(cpu, kept.x(at)?, dx[at].as_deref_mut())?;
    drop(dz);

    // Expand.
    let residual = op.residual.then_some(dy);
    if op.expand {
        let sums = Sums::join(cpu, partial.f32()?, s.e)?;
        let constants1 = norm_back(op, cpu, EXPAND, s.e, s.n * s.pixels(), norms[EXPAND], &sums, dx)?;
        let at = places.filters[EXPAND];
        let (dx, rest) = dx.split_at_mut(1);
        let job = Expand {
            s,
            x,
            h1: h1.f32()?,
            norm1: norms[EXPAND],
            du1: du1.f32()?,
            constants1: constants1.f32()?,
            residual,
        };
        job.run(cpu, kept.x(at)?, dx[0].as_deref_mut(), rest[at - 1].as_deref_mut())
    } else {
        if let Some(dx) = &mut dx[0] {
            from_blocks(cpu, s, du1.f32()?, residual, dx);
        }
        Ok(())
    }
}

/// Adds the gradients of the inputs of norm `which` and returns its constants.
#[allow(clippy::too_many_arguments, reason = "a norm, its sums, and where its gradients go")]
fn norm_back(
    op: &InvertedResidual,
    cpu: &Cpu,
    which: usize,
    c: usize,
    count: usize,
    norm: Norm<'_>,
    sums: &Sums,
    dx: &mut [Option<&mut [f32]>],
) -> Result<Tensor> {
    let places = op.places();
    let (at, frozen_at) = (places.filters[which] + 1, places.frozen[which]);
    // The frozen statistics come after all filters.
    let split = if op.frozen() { frozen_at } else { dx.len() };
    let (before, after) = dx.split_at_mut(split);
    let affine = if op.affine { two(&mut before[at..]) } else { [None, None] };
    let frozen = if op.frozen() { two(after) } else { [None, None] };
    sums.finish(cpu, norm, c, (!op.frozen()).then_some(count), affine, frozen)
}

fn two<'a>(slots: &'a mut [Option<&mut [f32]>]) -> [Option<&'a mut [f32]>; 2] {
    let mut slots = slots.iter_mut().map(|slot| slot.as_deref_mut());
    [0; 2].map(|_| slots.next().flatten())
}

/// `du3 = dy * act3'(norm3(h3))`.
fn narrow_back(cpu: &Cpu, s: Sizes, h3: &[f32], norm: Norm<'_>, act: Act, dy: &[f32]) -> Result<Tensor> {
    let mut du = Tensor::stale(cpu, [dy.len()], DType::F32)?;
    let len = (CHUNK / s.o).max(1) * s.o;
    cpu.pool().parallel_chunks(du.f32_mut()?, len, |part, du| {
        let range = part * len..part * len + du.len();
        simd::run(Narrow { h: &h3[range.clone()], norm, c: s.o, to: du });
        du.iter_mut().zip(&dy[range]).for_each(|(u, dy)| *u = dy * act.slope(*u));
    });
    Ok(du)
}

/// Elements of one task of the narrow passes, rounded to whole pixels.
const CHUNK: usize = 1 << 14;

/// Images whose share of a filter gradient one task sums; from the shape alone.
fn group_of(s: Sizes, filter: usize) -> usize {
    s.n.div_ceil(if filter > 100_000 { 4 } else { 8 })
}

/// `to = k0 du + k1 (h - mean) + k2` for pixels of `c` channels.
struct NarrowLinear<'a, 'to> {
    h: &'a [f32],
    du: &'a [f32],
    mean: &'a [f32],
    constants: &'a [f32],
    c: usize,
    to: &'to mut [f32],
}

impl Loop for NarrowLinear<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.c;
        let width = self.constants.len() / 3;
        let mean = &self.mean[..c];
        let [k0, k1, k2] = [0, 1, 2].map(|i| &self.constants[i * width..i * width + c]);
        let pixels = self.to.chunks_exact_mut(c).zip(self.h.chunks_exact(c)).zip(self.du.chunks_exact(c));
        for ((to, h), du) in pixels {
            (0..c).for_each(|j| to[j] = s.fma1(k0[j], du[j], s.fma1(k1[j], h[j] - mean[j], k2[j])));
        }
    }
}

/// The backward of the project layer, data and filter in one loop.
struct Project<'a> {
    s: Sizes,
    h2: &'a [f32],
    norm: Norm<'a>,
    act: Act,
    gates: Option<&'a [f32]>,
    h3: &'a [f32],
    norm3: Norm<'a>,
    du3: &'a [f32],
    constants3: &'a [f32],
}

/// Numbers of a [`blocked::ProjectSums`].
const PROJECT_SUMS: usize = 5 * BLOCK;

impl Project<'_> {
    /// The gradient of the gated planes, and `[image][block]` of [`blocked::ProjectSums`].
    fn run(&self, cpu: &Cpu, w: &[f32], dw: Option<&mut [f32]>) -> Result<(Tensor, Tensor)> {
        let s = self.s;
        let (blocks, outputs, e, o) = (s.blocks(), s.outputs(), s.e, s.o);
        let mut filter = Tensor::stale(cpu, [packed_len(o, e)], DType::F32)?;
        pack(cpu, w, [e, o], e, 1, filter.f32_mut()?);
        let filter = filter.f32()?;
        let panels = Panels::new(outputs);
        let group = group_of(s, o * e);
        let groups = s.n.div_ceil(group);
        let mut dz = Tensor::stale(cpu, [s.n, blocks, outputs, BLOCK], DType::F32)?;
        let mut sums = Tensor::stale(cpu, [s.n, blocks, PROJECT_SUMS], DType::F32)?;
        let mut partial = Tensor::stale(cpu, [groups, blocks, o, BLOCK], DType::F32)?;
        let share = panels.rows * (o + BLOCK);
        let mut scratch = Tensor::stale(cpu, [cpu.pool().threads(), share], DType::F32)?;
        let (image, of_sums) = (blocks * outputs * BLOCK, blocks * PROJECT_SUMS);
        let slices = [
            (dz.f32_mut()?, [group * image; 2]),
            (sums.f32_mut()?, [group * of_sums; 2]),
            (partial.f32_mut()?, [blocks * o * BLOCK; 2]),
        ];
        cpu.pool().parallel_zip(
            [groups, 1],
            slices,
            scratch.f32_mut()?,
            |[task, _], [dz, sums, partial], scratch| {
                let (dh3, strip) = scratch.split_at_mut(panels.rows * o);
                partial.fill(0.0);
                sums.fill(0.0);
                let images = dz.chunks_exact_mut(image).zip(sums.chunks_exact_mut(of_sums));
                for (n, (dz, sums)) in images.enumerate().map(|(i, parts)| (task * group + i, parts)) {
                    for range in panels.all() {
                        let narrow = (n * outputs + range.start) * o..(n * outputs + range.end) * o;
                        let dh3 = &mut dh3[..narrow.len()];
                        simd::run(NarrowLinear {
                            h: &self.h3[narrow.clone()],
                            du: &self.du3[narrow],
                            mean: self.norm3.mean(),
                            constants: self.constants3,
                            c: o,
                            to: dh3,
                        });
                        let rows_of = range.len();
                        for block in 0..blocks {
                            let dz = &mut dz[(block * outputs + range.start) * BLOCK..][..rows_of * BLOCK];
                            let left = Left { data: dh3, rows: Places::Stride(o), terms: Places::Stride(1) };
                            let right = Right::Packed(&filter[block * o * BLOCK..(block + 1) * o * BLOCK]);
                            panel([rows_of, BLOCK, o], left, right, dz, BLOCK, false);
                            let h2 = &rows(self.h2)[(n * blocks + block) * outputs..][range.clone()];
                            let gate = self.gates.map(|gates| &rows(gates)[n * blocks + block]);
                            let to = &mut strip[..rows_of * BLOCK];
                            let sums = &mut rows_mut(sums).as_chunks_mut().0[block];
                            blocked::project_back(
                                h2,
                                rows(dz),
                                self.norm.block(block),
                                self.act,
                                gate,
                                rows_mut(to),
                                sums,
                            );
                            let left = Left { data: dh3, rows: Places::Stride(1), terms: Places::Stride(o) };
                            let right = Right::Rows { data: to, stride: BLOCK };
                            let dw = &mut partial[block * o * BLOCK..(block + 1) * o * BLOCK];
                            panel([o, BLOCK, rows_of], left, right, dw, BLOCK, true);
                        }
                    }
                }
            },
        );
        if let Some(dw) = dw {
            let partial = partial.f32()?;
            cpu.pool().parallel_chunks(dw, e, |row, dw| {
                for group in partial.chunks_exact(blocks * o * BLOCK) {
                    for (block, dw) in dw.chunks_mut(BLOCK).enumerate() {
                        let part = &rows(group)[block * o + row];
                        dw.iter_mut().zip(part).for_each(|(dw, part)| *dw += part);
                    }
                }
            });
        }
        Ok((dz, sums))
    }
}

/// Through the squeeze's two layers; returns what every pixel of a plane gets from the mean,
/// `[n, blocks, 16]`.
fn squeeze_back(
    op: &InvertedResidual,
    cpu: &Cpu,
    s: Sizes,
    gate: Act,
    kept: &Kept<'_>,
    partial: &[f32],
    dx: &mut [Option<&mut [f32]>],
) -> Result<Tensor> {
    let at = op.places().squeeze;
    let [mean, hidden, logits] = std::array::from_fn(|i| &kept.saved[saved::SQUEEZE + i]);
    let logits = logits.f32()?;
    let mut du2 = Tensor::stale(cpu, [s.n, s.e], DType::F32)?;
    for (n, du2) in du2.f32_mut()?.chunks_exact_mut(s.e).enumerate() {
        for (block, du2) in du2.chunks_mut(BLOCK).enumerate() {
            let products = &partial[(n * s.blocks() + block) * PROJECT_SUMS..][..BLOCK];
            let logits = &logits[n * s.e + block * BLOCK..];
            for ((du2, product), &logit) in du2.iter_mut().zip(products).zip(logits) {
                *du2 = product * gate.slope(logit);
            }
        }
    }
    let [dw1, db1, dw2, db2] = &mut dx[at..at + 4] else { unreachable!("shape() checked the inputs") };
    let mut du1 = Tensor::zeros(cpu, hidden.shape())?;
    let to = [Some(du1.f32_mut()?), dw2.as_deref_mut(), db2.as_deref_mut()];
    dense::gradients(cpu, hidden.f32()?, kept.input(at + 2), &du2, to)?;
    du1.f32_mut()?.iter_mut().zip(hidden.f32()?).for_each(|(d, &v)| *d = if v > 0.0 { *d } else { 0.0 });
    let mut dmean = Tensor::zeros(cpu, [s.n, s.e])?;
    let to = [Some(dmean.f32_mut()?), dw1.as_deref_mut(), db1.as_deref_mut()];
    dense::gradients(cpu, mean.f32()?, kept.input(at), &du1, to)?;
    let even = 1.0 / s.outputs() as f32;
    padded(cpu, s, dmean.f32()?, |d| d * even)
}

/// The sums of norm 2, linear in the partial sums once gates and means have their gradients.
fn gated_sums(
    cpu: &Cpu,
    s: Sizes,
    partial: &[f32],
    gates: Option<&[f32]>,
    evens: Option<&[f32]>,
) -> Result<Sums> {
    let mut totals = [Tensor::zeros(cpu, [s.blocks() * BLOCK])?, Tensor::zeros(cpu, [s.blocks() * BLOCK])?];
    for (which, total) in totals.iter_mut().enumerate() {
        for (block, total) in rows_mut(total.f32_mut()?).iter_mut().enumerate() {
            let mut sums = [0f64; BLOCK];
            for n in 0..s.n {
                let at = n * s.blocks() + block;
                let part = &rows(partial)[at * 5..(at + 1) * 5];
                let (gated, slopes) = (&part[1 + which], &part[3 + which]);
                match gates.zip(evens) {
                    Some((gates, evens)) => {
                        let (gate, even) = (&rows(gates)[at], &rows(evens)[at]);
                        for lane in 0..BLOCK {
                            sums[lane] += f64::from(gate[lane]) * f64::from(gated[lane])
                                + f64::from(even[lane]) * f64::from(slopes[lane]);
                        }
                    }
                    None => (0..BLOCK).for_each(|lane| sums[lane] += f64::from(gated[lane])),
                }
            }
            *total = sums.map(|sum| sum as f32);
        }
    }
    let [sum, product] = totals;
    Ok(Sums { sum, product })
}

/// The backward of the depthwise layer, data and filter in one pass.
struct Depthwise<'a> {
    s: Sizes,
    h1: &'a [f32],
    norm1: Norm<'a>,
    act1: Act,
    h2: &'a [f32],
    norm2: Norm<'a>,
    act2: Act,
    dz: &'a [f32],
    gated: Option<(&'a [f32], &'a [f32])>,
    constants2: &'a [f32],
}

/// The outputs of one residue of rows or columns by the stride: the data gradient is a dense sum
/// over the taps of the same residue.
#[derive(Clone, Copy)]
struct Residue {
    /// The first tap; every `stride`-th follows, `taps` in all.
    tap: usize,
    taps: usize,
    /// The first input pixel; every `stride`-th follows, `count` in all.
    pixel: usize,
    count: usize,
    /// The first pixel of the bordered output plane that it reads.
    start: usize,
}

impl Residue {
    fn all(s: Sizes, axis: usize) -> Vec<Residue> {
        let (k, stride, pad, size) = (s.k, s.stride, s.pad(), s.from[axis]);
        let one = |tap: usize| {
            let pixel = (tap + stride - pad % stride) % stride;
            let taps = (k - tap).div_ceil(stride);
            let count = size.saturating_sub(pixel).div_ceil(stride);
            // Output `(pixel + pad - tap) / stride` meets the first tap; later taps lie before it.
            let start = (pixel + pad - tap) / stride + pad + 1 - taps;
            Residue { tap, taps, pixel, count, start }
        };
        (0..stride.min(k)).map(one).collect()
    }
}

impl Depthwise<'_> {
    /// The gradient of `u1`, and `[image][block]` of its two sums.
    fn run(&self, cpu: &Cpu, w: &[f32], dw: Option<&mut [f32]>) -> Result<(Tensor, Tensor)> {
        let s = self.s;
        let (blocks, pixels, k, pad) = (s.blocks(), s.pixels(), s.k, s.pad());
        let residues = [Residue::all(s, 0), Residue::all(s, 1)];
        let filters = self.turned(cpu, w, &residues)?;
        let filters = filters.f32()?;
        let (from, to) = (s.padded_from(), s.padded_to());
        let mut du1 = Tensor::stale(cpu, [s.n, blocks, pixels, BLOCK], DType::F32)?;
        let mut sums = Tensor::stale(cpu, [s.n, blocks, 2, BLOCK], DType::F32)?;
        let mut partial = Tensor::stale(cpu, [s.n * blocks, k * k, BLOCK], DType::F32)?;
        let lens = [from, to].map(|size| size[0] * size[1] * BLOCK);
        // The borders are zeroed here once; tasks write the middle only.
        let mut scratch = Tensor::zeros(cpu, [cpu.pool().threads(), lens[0] + lens[1]])?;
        let slices = [
            (du1.f32_mut()?, [blocks * pixels * BLOCK, pixels * BLOCK]),
            (sums.f32_mut()?, [blocks * 2 * BLOCK, 2 * BLOCK]),
            (partial.f32_mut()?, [blocks * k * k * BLOCK, k * k * BLOCK]),
        ];
        cpu.pool().parallel_zip(
            [s.n, blocks],
            slices,
            scratch.f32_mut()?,
            |[n, block], [du1, sums, dw], scratch| {
                let (plane, gradient) = scratch.split_at_mut(lens[0]);
                let at = n * blocks + block;
                let h1 = &self.h1[at * pixels * BLOCK..(at + 1) * pixels * BLOCK];
                fill_plane(h1, s.from, pad, self.norm1.block(block), self.act1, plane);
                self.fill_gradient(at, block, gradient);
                FilterGradient {
                    plane: rows(plane),
                    pitch: from[1],
                    step: s.stride,
                    gradient: &rows(gradient)[pad * to[1] + pad..],
                    gradient_pitch: to[1],
                    size: s.to,
                    k,
                    sums: rows_mut(dw),
                }
                .run();
                if s.stride > k {
                    du1.fill(0.0);
                }
                let mut filter = &rows(filters)[block * k * k..(block + 1) * k * k];
                for y in &residues[0] {
                    for x in &residues[1] {
                        let (own, rest) = filter.split_at(y.taps * x.taps);
                        filter = rest;
                        if y.count == 0 || x.count == 0 {
                            continue;
                        }
                        Correlation {
                            plane: &rows(gradient)[y.start * to[1] + x.start..],
                            pitch: to[1],
                            step: 1,
                            filter: own,
                            taps: [y.taps, x.taps],
                            to: &mut rows_mut(du1)[y.pixel * s.from[1] + x.pixel..],
                            to_pitch: [s.stride * s.from[1], s.stride],
                            size: [y.count, x.count],
                        }
                        .run();
                    }
                }
                let sums = rows_mut(sums).as_mut_array().expect("two rows");
                blocked::activation_back(rows(h1), rows_mut(du1), self.norm1.block(block), self.act1, sums);
            },
        );
        if let Some(dw) = dw {
            let partial = rows(partial.f32()?);
            cpu.pool().parallel_chunks(dw, s.e, |tap, dw| {
                for image in partial.chunks_exact(blocks * k * k) {
                    for (block, dw) in dw.chunks_mut(BLOCK).enumerate() {
                        dw.iter_mut().zip(&image[block * k * k + tap]).for_each(|(dw, part)| *dw += part);
                    }
                }
            });
        }
        Ok((du1, sums))
    }

    /// The gradient of `h2` into the middle of a plane with borders.
    fn fill_gradient(&self, at: usize, block: usize, gradient: &mut [f32]) {
        let ([h, w], pad, outputs) = (self.s.to, self.s.pad(), self.s.outputs());
        let pitch = w + 2 * pad;
        let planes = [self.h2, self.dz].map(|all| &rows(all)[at * outputs..(at + 1) * outputs]);
        let gated = self.gated.map(|(gates, evens)| [&rows(gates)[at], &rows(evens)[at]]);
        let gradient = rows_mut(gradient);
        for y in 0..h {
            let [h2, dz] = planes.map(|plane| &plane[y * w..(y + 1) * w]);
            let to = &mut gradient[(y + pad) * pitch + pad..][..w];
            let k = constants_of(self.constants2, block);
            blocked::norm_back(h2, dz, self.norm2.block(block), self.act2, gated, k, to);
        }
    }

    /// For every block the taps of every pair of residues, last first.
    fn turned(&self, cpu: &Cpu, w: &[f32], residues: &[Vec<Residue>; 2]) -> Result<Tensor> {
        let (k, e, stride) = (self.s.k, self.s.e, self.s.stride);
        let mut filters = Tensor::zeros(cpu, [self.s.blocks(), k * k, BLOCK])?;
        for (block, filter) in filters.f32_mut()?.chunks_exact_mut(k * k * BLOCK).enumerate() {
            let mut to = rows_mut(filter).iter_mut();
            for y in &residues[0] {
                for x in &residues[1] {
                    for ky in (0..y.taps).rev().map(|j| y.tap + j * stride) {
                        for kx in (0..x.taps).rev().map(|i| x.tap + i * stride) {
                            let w = &w[(ky * k + kx) * e..(ky * k + kx + 1) * e];
                            let w = &w[block * BLOCK..e.min((block + 1) * BLOCK)];
                            let to = to.next().expect("residues share out all taps");
                            to[..w.len()].copy_from_slice(w);
                        }
                    }
                }
            }
        }
        Ok(filters)
    }
}

/// The backward of the expand layer, data and filter in one loop.
struct Expand<'a> {
    s: Sizes,
    x: &'a [f32],
    h1: &'a [f32],
    norm1: Norm<'a>,
    du1: &'a [f32],
    constants1: &'a [f32],
    /// The gradient of the result, where `x` was added to it.
    residual: Option<&'a [f32]>,
}

impl Expand<'_> {
    fn run(&self, cpu: &Cpu, w: &[f32], dx: Option<&mut [f32]>, dw: Option<&mut [f32]>) -> Result<()> {
        let s = self.s;
        let (blocks, pixels, e, c) = (s.blocks(), s.pixels(), s.e, s.c);
        let mut filter = Tensor::stale(cpu, [packed_len(e, c)], DType::F32)?;
        pack(cpu, w, [c, e], c, 1, filter.f32_mut()?);
        let filter = filter.f32()?;
        let panels = Panels::new(pixels);
        let places = strip_places(e, panels.rows);
        let group = group_of(s, c * e);
        let groups = s.n.div_ceil(group);
        let mut partial = Tensor::stale(cpu, [groups, blocks, c, BLOCK], DType::F32)?;
        let share = blocks * panels.rows * BLOCK;
        let mut scratch = Tensor::stale(cpu, [cpu.pool().threads(), share], DType::F32)?;
        let slices = [
            (dx.unwrap_or_default(), [group * pixels * c; 2]),
            (partial.f32_mut()?, [blocks * c * BLOCK; 2]),
        ];
        cpu.pool().parallel_zip(
            [groups, 1],
            slices,
            scratch.f32_mut()?,
            |[task, _], [dx, partial], strips| {
                partial.fill(0.0);
                for n in task * group..s.n.min((task + 1) * group) {
                    for range in panels.all() {
                        let narrow = (n * pixels + range.start) * c..(n * pixels + range.end) * c;
                        let x = &self.x[narrow.clone()];
                        for (block, strip) in strips.chunks_exact_mut(panels.rows * BLOCK).enumerate() {
                            let strip = &mut strip[..range.len() * BLOCK];
                            let wide = (n * blocks + block) * pixels;
                            let planes = [self.h1, self.du1].map(|all| &rows(all)[wide..][range.clone()]);
                            let k = constants_of(self.constants1, block);
                            let linear = Linear { mean: self.norm1.block(block).mean, k };
                            blocked::linear(planes[0], planes[1], linear, rows_mut(strip));
                            let left = Left { data: x, rows: Places::Stride(1), terms: Places::Stride(c) };
                            let right = Right::Rows { data: strip, stride: BLOCK };
                            let dw = &mut partial[block * c * BLOCK..(block + 1) * c * BLOCK];
                            panel([c, BLOCK, range.len()], left, right, dw, BLOCK, true);
                        }
                        if dx.is_empty() {
                            continue;
                        }
                        let start = narrow.start - task * group * pixels * c;
                        let dx = &mut dx[start..start + narrow.len()];
                        if let Some(dy) = self.residual {
                            dx.iter_mut().zip(&dy[narrow]).for_each(|(dx, dy)| *dx += dy);
                        }
                        let left = Left { data: strips, rows: Places::Stride(BLOCK), terms: Places::At(&places) };
                        panel([range.len(), c, e], left, Right::Packed(filter), dx, c, true);
                    }
                }
            },
        );
        if let Some(dw) = dw {
            let partial = partial.f32()?;
            cpu.pool().parallel_chunks(dw, c * BLOCK, |block, dw| {
                for group in partial.chunks_exact(blocks * c * BLOCK) {
                    let part = &rows(group)[block * c..(block + 1) * c];
                    for (lane, dw) in dw.chunks_exact_mut(c).enumerate() {
                        dw.iter_mut().zip(part).for_each(|(dw, part)| *dw += part[lane]);
                    }
                }
            });
        }
        Ok(())
    }
}

/// Adds a wide tensor, and `more`, to `dx [n, h, w, c]`.
fn from_blocks(cpu: &Cpu, s: Sizes, du: &[f32], more: Option<&[f32]>, dx: &mut [f32]) {
    let (blocks, pixels, c) = (s.blocks(), s.pixels(), s.c);
    cpu.pool().parallel_chunks(dx, pixels * c, |n, dx| {
        for block in 0..blocks {
            let du = &rows(du)[(n * blocks + block) * pixels..][..pixels];
            let (from, width) = (block * BLOCK, BLOCK.min(c - block * BLOCK));
            for (dx, du) in dx.chunks_exact_mut(c).zip(du) {
                dx[from..from + width].iter_mut().zip(du).for_each(|(dx, du)| *dx += du);
            }
        }
        if let Some(more) = more {
            dx.iter_mut().zip(&more[n * pixels * c..]).for_each(|(dx, dy)| *dx += dy);
        }
    });
}
