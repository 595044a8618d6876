//! The forward passes: expand, depthwise, squeeze, project, finish.

use super::norm::{Norm, constants, identity, join};
use super::{DEPTHWISE, EXPAND, InvertedResidual, PROJECT, Panels, Sizes};
use crate::cpu::Cpu;
use crate::cpu::blocked::{self, BLOCK, rows, rows_mut};
use crate::cpu::matmul::{Left, Places, Right, pack, packed_len, panel};
use crate::cpu::simd::{self, Loop, Simd};
use crate::cpu::window::Correlation;
use crate::error::Result;
use crate::op::{Moments, Output};
use crate::ops::batch_norm::statistics;
use crate::ops::{Act, dense};
use crate::tensor::{DType, Shape, Tensor};

/// Where the saved tensors lie; the squeeze's mean, hidden values and logits follow.
pub(super) mod saved {
    pub const H1: usize = 0;
    pub const H2: usize = 1;
    pub const H3: usize = 2;
    /// The constants of three norms.
    pub const NORMS: usize = 3;
    pub const SQUEEZE: usize = 6;
}

pub(super) fn run(op: &InvertedResidual, cpu: &Cpu, inputs: &[&Tensor], record: bool) -> Result<Output> {
    let shapes: Vec<Shape> = inputs.iter().map(|t| t.shape()).collect();
    let (s, places) = (op.sizes(&shapes), op.places());
    let mut moments = Vec::new();
    let mut norm = |which: usize, batch: Option<Moments>| -> Result<Tensor> {
        let at = places.filters[which];
        let affine = if op.affine { Some([inputs[at + 1].f32()?, inputs[at + 2].f32()?]) } else { None };
        match batch {
            Some(batch) => {
                let saved = constants(cpu, batch.mean.f32()?, batch.var.f32()?, affine, op.eps)?;
                moments.push(batch);
                Ok(saved)
            }
            None => {
                let at = places.frozen[which];
                constants(cpu, inputs[at].f32()?, inputs[at + 1].f32()?, affine, op.eps)
            }
        }
    };
    let measure = !op.frozen();

    let x = inputs[0].f32()?;
    let (h1, norm1) = if op.expand {
        let (h1, batch) = expand(cpu, s, x, inputs[places.filters[EXPAND]].f32()?, measure)?;
        (h1, norm(EXPAND, batch)?)
    } else {
        (to_blocks(cpu, s, x)?, identity(cpu, s.c)?)
    };
    let act1 = if op.expand { op.acts[EXPAND] } else { Act::None };
    let filter = inputs[places.filters[DEPTHWISE]].f32()?;
    let (h2, batch) = depthwise(cpu, s, h1.f32()?, Norm::new(&norm1)?, act1, filter, measure)?;
    let norm2 = norm(DEPTHWISE, batch)?;
    let mut squeezed = Vec::new();
    let mut gates = None;
    if let Some(gate) = op.squeeze {
        let mean = means(cpu, s, h2.f32()?, Norm::new(&norm2)?, op.acts[DEPTHWISE])?;
        let [w1, b1, w2, b2] = std::array::from_fn(|i| inputs[places.squeeze + i]);
        let mut hidden = dense::forward(cpu, &mean, w1, Some(b1), [s.n, s.r].into())?;
        hidden.f32_mut()?.iter_mut().for_each(|v| *v = v.max(0.0));
        let logits = dense::forward(cpu, &hidden, w2, Some(b2), [s.n, s.e].into())?;
        gates = Some(padded(cpu, s, logits.f32()?, |u| gate.value(u))?);
        squeezed = vec![mean, hidden, logits];
    }
    let filter = inputs[places.filters[PROJECT]].f32()?;
    let h3 = project(cpu, s, h2.f32()?, Norm::new(&norm2)?, op.acts[DEPTHWISE], gates.as_ref(), filter)?;
    let batch = if measure { Some(statistics(cpu, h3.f32()?, s.o)?) } else { None };
    let norm3 = norm(PROJECT, batch)?;
    let y = finish(cpu, s, h3.f32()?, Norm::new(&norm3)?, op.acts[PROJECT], op.residual.then_some(x))?;
    let saved = if record {
        let mut saved = vec![h1, h2, h3, norm1, norm2, norm3];
        saved.extend(squeezed);
        saved
    } else {
        Vec::new()
    };
    Ok(Output { y, saved, moments })
}

/// `[n, e]` under `f` to `[n, blocks, 16]`, zeros beyond the last channel.
pub(super) fn padded(cpu: &Cpu, s: Sizes, from: &[f32], f: impl Fn(f32) -> f32) -> Result<Tensor> {
    let mut to = Tensor::zeros(cpu, [s.n, s.blocks() * BLOCK])?;
    for (to, from) in to.f32_mut()?.chunks_exact_mut(s.blocks() * BLOCK).zip(from.chunks_exact(s.e)) {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = f(from));
    }
    Ok(to)
}

/// The three numbers of a panel's statistics of every channel.
const STATISTICS: usize = 3 * BLOCK;

fn statistics_of(plane: &[f32], panels: Panels, to: &mut [f32]) {
    for (range, to) in panels.all().zip(to.as_chunks_mut::<STATISTICS>().0) {
        let to = rows_mut(to).as_mut_array().expect("three rows");
        blocked::statistics(&rows(plane)[range], to);
    }
}

fn counts(panels: Panels) -> Vec<usize> {
    panels.all().map(|range| range.len()).collect()
}

/// `h1 = x w^T` with its statistics.
fn expand(cpu: &Cpu, s: Sizes, x: &[f32], w: &[f32], measure: bool) -> Result<(Tensor, Option<Moments>)> {
    let (pixels, c, blocks) = (s.pixels(), s.c, s.blocks());
    let mut filter = Tensor::stale(cpu, [packed_len(c, s.e)], DType::F32)?;
    pack(cpu, w, [s.e, c], 1, c, filter.f32_mut()?);
    let filter = filter.f32()?;
    let panels = Panels::new(pixels);
    let mut h = Tensor::stale(cpu, [s.n, blocks, pixels, BLOCK], DType::F32)?;
    let of_block = panels.count * STATISTICS;
    let mut partial = Tensor::stale(cpu, [s.n * blocks * of_block], DType::F32)?;
    let slices = [
        (h.f32_mut()?, [blocks * pixels * BLOCK, pixels * BLOCK]),
        (partial.f32_mut()?, [blocks * of_block, of_block]),
    ];
    cpu.pool().parallel_zip([s.n, blocks], slices, &mut [], |[n, block], [h, partial], _| {
        let x = &x[n * pixels * c..(n + 1) * pixels * c];
        let filter = &filter[block * c * BLOCK..(block + 1) * c * BLOCK];
        for (range, partial) in panels.all().zip(partial.as_chunks_mut::<STATISTICS>().0) {
            let left = Left { data: &x[range.start * c..], rows: Places::Stride(c), terms: Places::Stride(1) };
            let h = &mut h[range.start * BLOCK..range.end * BLOCK];
            panel([range.len(), BLOCK, c], left, Right::Packed(filter), h, BLOCK, false);
            if measure {
                let to = rows_mut(partial).as_mut_array().expect("three rows");
                blocked::statistics(rows(h), to);
            }
        }
    });
    let batch = if measure { Some(join(cpu, partial.f32()?, s.e, &counts(panels))?) } else { None };
    Ok((h, batch))
}

/// `x` as it is, in blocks.
fn to_blocks(cpu: &Cpu, s: Sizes, x: &[f32]) -> Result<Tensor> {
    let (pixels, c, blocks) = (s.pixels(), s.c, s.blocks());
    let mut h = Tensor::stale(cpu, [s.n, blocks, pixels, BLOCK], DType::F32)?;
    cpu.pool().parallel_chunks(h.f32_mut()?, pixels * BLOCK, |task, h| {
        let (n, from) = (task / blocks, task % blocks * BLOCK);
        let width = BLOCK.min(c - from);
        for (to, x) in rows_mut(h).iter_mut().zip(x[n * pixels * c..].chunks_exact(c)) {
            to[..width].copy_from_slice(&x[from..from + width]);
            to[width..].fill(0.0);
        }
    });
    Ok(h)
}

/// Copies a plane under `act(norm(.))` into the middle of a plane with borders of `pad` pixels.
pub(super) fn fill_plane(
    h: &[f32],
    [height, w]: [usize; 2],
    pad: usize,
    affine: blocked::Affine<'_>,
    act: Act,
    plane: &mut [f32],
) {
    let pitch = w + 2 * pad;
    let (h, plane) = (rows(h), rows_mut(plane));
    for y in 0..height {
        let to = &mut plane[(y + pad) * pitch + pad..][..w];
        blocked::activate(&h[y * w..(y + 1) * w], affine, act, None, to);
    }
}

/// Convolves `act1(norm1(h1))`, with the statistics of the result.
fn depthwise(
    cpu: &Cpu,
    s: Sizes,
    h1: &[f32],
    norm1: Norm<'_>,
    act: Act,
    w: &[f32],
    measure: bool,
) -> Result<(Tensor, Option<Moments>)> {
    let (blocks, pixels, outputs, k) = (s.blocks(), s.pixels(), s.outputs(), s.k);
    let mut filters = Tensor::zeros(cpu, [blocks, k * k, BLOCK])?;
    for (block, filter) in filters.f32_mut()?.chunks_exact_mut(k * k * BLOCK).enumerate() {
        for (filter, w) in rows_mut(filter).iter_mut().zip(w.chunks_exact(s.e)) {
            let w = &w[block * BLOCK..s.e.min((block + 1) * BLOCK)];
            filter[..w.len()].copy_from_slice(w);
        }
    }
    let filters = filters.f32()?;
    let panels = Panels::new(outputs);
    let of_block = panels.count * STATISTICS;
    let mut h2 = Tensor::stale(cpu, [s.n, blocks, outputs, BLOCK], DType::F32)?;
    let mut partial = Tensor::stale(cpu, [s.n * blocks * of_block], DType::F32)?;
    let [height, pitch] = s.padded_from();
    // The borders are zeroed here once; tasks write the middle only.
    let mut scratch = Tensor::zeros(cpu, [cpu.pool().threads(), height * pitch * BLOCK])?;
    let slices = [
        (h2.f32_mut()?, [blocks * outputs * BLOCK, outputs * BLOCK]),
        (partial.f32_mut()?, [blocks * of_block, of_block]),
    ];
    cpu.pool().parallel_zip([s.n, blocks], slices, scratch.f32_mut()?, |[n, block], [h2, partial], plane| {
        let h1 = &h1[(n * blocks + block) * pixels * BLOCK..][..pixels * BLOCK];
        fill_plane(h1, s.from, s.pad(), norm1.block(block), act, plane);
        Correlation {
            plane: rows(plane),
            pitch,
            step: s.stride,
            filter: &rows(filters)[block * k * k..],
            taps: [k, k],
            to: rows_mut(h2),
            to_pitch: [s.to[1], 1],
            size: s.to,
        }
        .run();
        if measure {
            statistics_of(h2, panels, partial);
        }
    });
    let batch = if measure { Some(join(cpu, partial.f32()?, s.e, &counts(panels))?) } else { None };
    Ok((h2, batch))
}

/// The mean `[n, e]` of `act2(norm2(h2))` over every plane.
fn means(cpu: &Cpu, s: Sizes, h2: &[f32], norm2: Norm<'_>, act: Act) -> Result<Tensor> {
    let (blocks, outputs) = (s.blocks(), s.outputs());
    let mut sums = Tensor::stale(cpu, [s.n, blocks * BLOCK], DType::F32)?;
    cpu.pool().parallel_chunks(sums.f32_mut()?, BLOCK, |task, sums| {
        let h2 = &h2[task * outputs * BLOCK..(task + 1) * outputs * BLOCK];
        sums.copy_from_slice(&blocked::pool(rows(h2), norm2.block(task % blocks), act));
    });
    let mut mean = Tensor::stale(cpu, [s.n, s.e], DType::F32)?;
    let even = 1.0 / outputs as f32;
    for (mean, sums) in mean.f32_mut()?.chunks_exact_mut(s.e).zip(sums.f32()?.chunks_exact(blocks * BLOCK)) {
        mean.iter_mut().zip(sums).for_each(|(mean, sum)| *mean = sum * even);
    }
    Ok(mean)
}

/// Places of the channels of one pixel in strips `[block][row][16]` of `rows` rows.
pub(super) fn strip_places(channels: usize, rows: usize) -> Vec<usize> {
    (0..channels).map(|j| (j / BLOCK * rows * BLOCK) + j % BLOCK).collect()
}

/// `h3 = (act2(norm2(h2)) * gate) w^T`.
fn project(
    cpu: &Cpu,
    s: Sizes,
    h2: &[f32],
    norm2: Norm<'_>,
    act: Act,
    gates: Option<&Tensor>,
    w: &[f32],
) -> Result<Tensor> {
    let (blocks, outputs, e, o) = (s.blocks(), s.outputs(), s.e, s.o);
    let mut filter = Tensor::stale(cpu, [packed_len(e, o)], DType::F32)?;
    pack(cpu, w, [o, e], 1, e, filter.f32_mut()?);
    let filter = filter.f32()?;
    let gates = gates.map(|gates| gates.f32()).transpose()?;
    let panels = Panels::new(outputs);
    let places = strip_places(e, panels.rows);
    let mut h3 = Tensor::stale(cpu, [s.n, outputs, o], DType::F32)?;
    let mut scratch = Tensor::stale(cpu, [cpu.pool().threads(), blocks * panels.rows * BLOCK], DType::F32)?;
    let slices = [(h3.f32_mut()?, [outputs * o, panels.rows * o])];
    let tasks = [s.n, panels.count];
    cpu.pool().parallel_zip(tasks, slices, scratch.f32_mut()?, |[n, part], [h3], strips| {
        let range = panels.range(part);
        for (block, strip) in strips.chunks_exact_mut(panels.rows * BLOCK).enumerate() {
            let h2 = &rows(h2)[(n * blocks + block) * outputs..][range.clone()];
            let gate = gates.map(|gates| &rows(gates)[n * blocks + block]);
            let strip = &mut rows_mut(strip)[..range.len()];
            blocked::activate(h2, norm2.block(block), act, gate, strip);
        }
        let left = Left { data: strips, rows: Places::Stride(BLOCK), terms: Places::At(&places) };
        panel([range.len(), o, e], left, Right::Packed(filter), h3, o, false);
    });
    Ok(h3)
}

/// Elements of one task of the narrow passes, rounded to whole pixels.
const CHUNK: usize = 1 << 14;

/// `y = act3(norm3(h3)) (+ x)`.
fn finish(cpu: &Cpu, s: Sizes, h3: &[f32], norm: Norm<'_>, act: Act, x: Option<&[f32]>) -> Result<Tensor> {
    let mut y = Tensor::stale(cpu, [s.n, s.to[0], s.to[1], s.o], DType::F32)?;
    let len = (CHUNK / s.o).max(1) * s.o;
    cpu.pool().parallel_chunks(y.f32_mut()?, len, |part, y| {
        let range = part * len..part * len + y.len();
        simd::run(Narrow { h: &h3[range.clone()], norm, c: s.o, to: y });
        if act != Act::None {
            y.iter_mut().for_each(|y| *y = act.value(*y));
        }
        if let Some(x) = x {
            y.iter_mut().zip(&x[range]).for_each(|(y, x)| *y += x);
        }
    });
    Ok(y)
}

/// A norm of pixels of `c` channels: `to = (h - mean) * factor + shift`.
pub(super) struct Narrow<'a, 'to> {
    pub h: &'a [f32],
    pub norm: Norm<'a>,
    pub c: usize,
    pub to: &'to mut [f32],
}

impl Loop for Narrow<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.c;
        let constants = [self.norm.mean(), self.norm.factor(), self.norm.shift()];
        let [mean, factor, shift] = constants.map(|row| &row[..c]);
        for (to, h) in self.to.chunks_exact_mut(c).zip(self.h.chunks_exact(c)) {
            (0..c).for_each(|j| to[j] = s.fma1(h[j] - mean[j], factor[j], shift[j]));
        }
    }
}
