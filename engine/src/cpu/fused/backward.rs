//! The backward passes. A gradient is added to what is there, or stored in a fresh slot.
//!
//! Data and filter gradient of a 1x1 convolution are one loop. What lies between the two depthwise
//! passes is `dU1 = dA1 act'(u1)`, so the expand pass needs a linear map only.

use std::marker::PhantomData;

use super::curve::with_curve;
use super::forward::{CHUNK, Source};
use super::norm::{Norms, Steps, TopNorm, TopSteps, steps};
use super::plan::Plan;
use super::product::{Ahead, Left, Right, Target, pack, packed_len, product};
use super::strip::{self, BLOCK, EXCITE_SUMS, Excite};
use super::window::{Backward, Downward, Fill, FilterGradient, Plane, Slope, Taps};
use super::{Slot, rows, window, with_scratch};
use crate::cpu::simd;
use crate::cpu::{Cpu, Disjoint};
use crate::error::Result;
use crate::ops::Act;
use crate::tensor::{DType, Tensor};

/// What backward knows of the block's last layers.
#[derive(Clone, Copy)]
pub struct Top<'a> {
    /// Gradient of the output `[n, h', w', o]`.
    pub dy: &'a [f32],
    /// The raw output of the project pass.
    pub h3: &'a [f32],
    /// Its batch norm.
    pub norm: &'a TopNorm,
    /// The activation after it.
    pub act: Act,
}

/// The constants of the gradient before the third batch norm, and the gradients of its shift and
/// scale.
pub fn top_gradient(
    cpu: &Cpu,
    plan: &Plan,
    top: Top<'_>,
    frozen: bool,
    mut affine: [Option<&mut [f32]>; 2],
) -> Result<(TopSteps, Tensor)> {
    let _span = cpu.pass("finish backward");
    let (o, panels) = (plan.o, plan.panels_to());
    let constants = top.norm.0.f32()?;
    let norm = TopNorm::rows(constants);
    let mut parts = Tensor::stale(cpu, [panels.count(), 2 * o], DType::F32)?;
    cpu.pool().parallel_chunks(parts.f32_mut()?, 2 * o, |index, to| {
        let range = panels.nhwc(&panels.at(index), o);
        rows::gradient_sums(top.act, &top.dy[range.clone()], &top.h3[range], norm, to);
    });
    let parts = parts.f32()?;
    let mut all = Tensor::stale(cpu, [3, o], DType::F32)?;
    let mut sums = Tensor::stale(cpu, [2, o], DType::F32)?;
    for j in 0..o {
        let sum = |at: usize| parts.chunks_exact(2 * o).map(|part| f64::from(part[at])).sum::<f64>();
        let both = [sum(j), sum(o + j)];
        let k =
            steps(both, [norm.mean[j], constants[o + j], norm.scale[j]], plan.n * plan.pixels_to(), frozen);
        let to = all.f32_mut()?;
        (to[j], to[o + j], to[2 * o + j]) = (k[0], k[1], k[2]);
        if let Some(gamma) = &mut affine[0] {
            gamma[j] += (both[1] * f64::from(constants[o + j])) as f32;
        }
        if let Some(beta) = &mut affine[1] {
            beta[j] += both[0] as f32;
        }
        let to = sums.f32_mut()?;
        (to[j], to[o + j]) = (both[0] as f32, both[1] as f32);
    }
    Ok((TopSteps(all), sums))
}

/// The middle of the block as the project pass read it.
#[derive(Clone, Copy)]
pub struct Middle<'a> {
    /// Raw output of the depthwise convolution, a wide tensor.
    pub h2: &'a [f32],
    /// Its batch norm.
    pub norm: &'a Norms,
    /// The activation after it.
    pub act: Act,
}

/// `da2 = dh3 w3`, a wide tensor; `dw3 [o, e]`; and returns the sums of [`strip::excite`] for
/// each image, `[n][block][5][16]`.
#[allow(clippy::too_many_arguments, reason = "one pass reads and writes all of these")]
pub fn project_backward(
    cpu: &Cpu,
    plan: &Plan,
    top: Top<'_>,
    steps: &TopSteps,
    middle: Middle<'_>,
    gates: Option<&[f32]>,
    w3: &[f32],
    (da2, dw3): (&mut [f32], Option<Slot<'_>>),
) -> Result<Tensor> {
    let _span = cpu.pass("project backward");
    let (e, o, blocks, wide, panels) = (plan.e, plan.o, plan.blocks(), plan.wide(), plan.panels_to());
    let (constants, k) = (middle.norm.0.f32()?, TopSteps::rows(steps.0.f32()?));
    let norm = TopNorm::rows(top.norm.0.f32()?);
    let mut packed = Tensor::stale(cpu, [blocks, o * BLOCK], DType::F32)?;
    cpu.pool().parallel_chunks(packed.f32_mut()?, o * BLOCK, |block, to| {
        let lanes = BLOCK.min(e - block * BLOCK);
        pack(&w3[block * BLOCK..], [o, lanes], [e, 1], BLOCK, to);
    });
    let packed = packed.f32()?;

    let parts = plan.parts(panels, o * e);
    let set = EXCITE_SUMS * BLOCK;
    // Sums of a panel and each of its images.
    let mut sums = Tensor::stale(cpu, [panels.count() * plan.group(), blocks * set], DType::F32)?;
    let mut filters = Tensor::stale(cpu, [parts, blocks * o * BLOCK], DType::F32)?;
    {
        let (to, sums) = (Disjoint::new(da2), Disjoint::new(sums.f32_mut()?));
        let (filters, wants_filter) = (Disjoint::new(filters.f32_mut()?), dw3.is_some());
        with_scratch(cpu, parts, panels.longest() * (o + BLOCK), |part, scratch| {
            let len = blocks * o * BLOCK;
            // SAFETY: a part belongs to its task.
            let filter = unsafe { filters.slice(part * len..(part + 1) * len) };
            let share = panels.count() * part / parts..panels.count() * (part + 1) / parts;
            for index in share.clone() {
                let panel = panels.at(index);
                let add = index > share.start;
                let rows = panel.rows.len();
                let (dh3, rest) = scratch.split_at_mut(rows * o);
                let gated = &mut rest[..rows * BLOCK];
                let range = panels.nhwc(&panel, o);
                rows::gradient(top.act, &top.dy[range.clone()], &top.h3[range], norm, k, dh3);
                for block in 0..blocks {
                    let range = panels.strip(&panel, block);
                    let h = &middle.h2[range.clone()];
                    let next = panels.after(index, block, 1);
                    let ahead = Ahead::run([to.place(next), middle.h2.as_ptr().wrapping_add(next)], rows);
                    // SAFETY: the panels of a part belong to its task.
                    let d = unsafe { to.slice(range) };
                    let left = Left { data: dh3, row: o, outer: [1, 0], inner: [o, 1] };
                    let filter_here = &packed[block * o * BLOCK..(block + 1) * o * BLOCK];
                    let right = Right { data: filter_here, terms: [o, 0] };
                    product(
                        [rows, BLOCK],
                        left,
                        right,
                        Target { data: &mut *d, row: BLOCK, add: false },
                        ahead,
                    );
                    for (at, (image, rows)) in panels.images(&panel).enumerate() {
                        let rows = rows.start * BLOCK..rows.end * BLOCK;
                        let place = ((index * plan.group() + at) * blocks + block) * set;
                        // SAFETY: as above.
                        let sums = unsafe { sums.slice(place..place + set) };
                        let constants = Excite {
                            norm: Norms::affine(constants, block),
                            mean: Norms::set(constants, block)[0],
                            gate: gates.map(|g| &g[image * wide + block * BLOCK..][..BLOCK]),
                        };
                        strip::excite(
                            middle.act,
                            &d[rows.clone()],
                            &h[rows.clone()],
                            constants,
                            &mut gated[rows],
                            sums,
                        );
                    }
                    if wants_filter {
                        let left = Left { data: dh3, row: 1, outer: [1, 0], inner: [rows, o] };
                        let right = Right { data: gated, terms: [rows, 0] };
                        let filter = &mut filter[block * o * BLOCK..(block + 1) * o * BLOCK];
                        let (next, lines) = panels.share_after(&panel, o, block, blocks);
                        let ahead =
                            Ahead::run([top.dy, top.h3].map(|t| t.as_ptr().wrapping_add(next)), lines);
                        product([o, BLOCK], left, right, Target { data: filter, row: BLOCK, add }, ahead);
                    }
                }
            }
        })?;
    }

    if let Some(dw3) = dw3 {
        let filters = filters.f32()?;
        cpu.pool().parallel_chunks(dw3.to, e, |row, to| {
            if !dw3.add {
                to.fill(0.0);
            }
            for (block, to) in to.chunks_mut(BLOCK).enumerate() {
                let sums = join(filters, parts, (block * o + row) * BLOCK);
                to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
            }
        });
    }

    let sums = sums.f32()?;
    let mut images = Tensor::stale(cpu, [plan.n, blocks * set], DType::F32)?;
    cpu.pool().parallel_chunks(images.f32_mut()?, blocks * set, |image, to| {
        let (group, at, share) = (image / plan.group(), image % plan.group(), panels.per_group());
        let first = (group * share * plan.group() + at) * blocks * set;
        let of = |panel: usize| &sums[first + panel * plan.group() * blocks * set..][..blocks * set];
        to.copy_from_slice(of(0));
        for panel in 1..share {
            to.iter_mut().zip(of(panel)).for_each(|(to, more)| *to += more);
        }
    });
    Ok(images)
}

/// Sixteen elements, from `at` in every part, summed over the parts in order.
#[inline]
fn join(all: &[f32], parts: usize, at: usize) -> [f32; BLOCK] {
    let len = all.len() / parts;
    let mut sums = [0.0; BLOCK];
    for part in all.chunks_exact(len) {
        sums.iter_mut().zip(&part[at..at + BLOCK]).for_each(|(sum, more)| *sum += more);
    }
    sums
}

/// What the depthwise pass knows of the gradient above it.
#[derive(Clone, Copy)]
pub struct Above<'a> {
    /// Gradient of the gated activation, a wide tensor.
    pub da2: &'a [f32],
    /// The layer it went through.
    pub middle: Middle<'a>,
    /// `[n][block][2][16]`: what the gradient is multiplied with, and what is added to it.
    pub gates: &'a [f32],
    /// The second batch norm's gradient.
    pub steps: &'a Steps,
}

/// Where the gradient of the depthwise convolution's input goes.
pub enum Below<'a> {
    /// `dU1`, a wide tensor; and its sums `[n][block][2][16]`.
    Wide(&'a mut [f32], &'a mut [f32]),
    /// Into `dx [n, h, w, c]`, with `dy` if that is not empty.
    Input(Slot<'a>, &'a [f32]),
    /// Nobody asks for it.
    Nowhere,
}

/// Both gradients of the depthwise convolution: adds to `dw [k, k, e]`.
pub fn depthwise_backward(
    cpu: &Cpu,
    plan: &Plan,
    above: Above<'_>,
    source: Source<'_>,
    w: &[f32],
    below: Below<'_>,
    dw: Option<&mut [f32]>,
) -> Result<()> {
    let _span = cpu.pass("depthwise backward");
    let (n, e, k, blocks, bands, stride) = (plan.n, plan.e, plan.k, plan.blocks(), plan.bands(), plan.stride);
    let (halo, count) = (plan.halo(), k * k);
    let classes = Classes::new(cpu, plan, w)?;
    let (constants, steps) = (above.middle.norm.0.f32()?, above.steps.0.f32()?);
    let columns = [plan.columns(), plan.columns_to()];
    let most = plan.to[0].div_ceil(bands);
    let scratch =
        [plan.rows() * columns[0], (most + 2 * halo) * columns[1], (most * stride + stride) * plan.from[1]];

    let parts = n.min(32usize.div_ceil(blocks));
    let mut filters = Tensor::stale(cpu, [parts, blocks * count * BLOCK], DType::F32)?;
    {
        enum To<'a> {
            Wide(Disjoint<'a, f32>, Disjoint<'a, f32>),
            Input(Disjoint<'a, f32>, bool, &'a [f32]),
            Nowhere,
        }
        let below = match below {
            Below::Wide(to, sums) => To::Wide(Disjoint::new(to), Disjoint::new(sums)),
            Below::Input(slot, dy) => To::Input(Disjoint::new(slot.to), slot.add, dy),
            Below::Nowhere => To::Nowhere,
        };
        let filters = Disjoint::new(filters.f32_mut()?);
        let wants_filter = dw.is_some();
        with_scratch(cpu, parts * blocks, scratch.iter().sum::<usize>() * BLOCK, |task, scratch_all| {
            let (part, block) = (task / blocks, task % blocks);
            let place = (part * blocks + block) * count * BLOCK;
            // SAFETY: the part of a block belongs to its task.
            let filter = unsafe { filters.slice(place..place + count * BLOCK) };
            filter.fill(0.0);
            let (input, rest) = scratch_all.split_at_mut(scratch[0] * BLOCK);
            let (gradient, own) = rest.split_at_mut(scratch[1] * BLOCK);
            let images = n * part / parts..n * (part + 1) / parts;
            for image in images.clone() {
                for band in 0..bands {
                    // The next band, the next image's first, or the next block's.
                    let next = match (band + 1 < bands, image + 1 < images.end) {
                        (true, _) => (image, block, plan.band(band + 1).start),
                        (false, true) => (image + 1, block, 0),
                        (false, false) => (images.start, (block + 1).min(blocks - 1), 0),
                    };
                    let rows = plan.band(band);
                    let gradient = &mut gradient[..(rows.len() + 2 * halo) * columns[1] * BLOCK];
                    let first = rows.start as isize - halo as isize;
                    above.fill(plan, [constants, steps], image, block, first, gradient);
                    let gradient = Plane { data: gradient, columns: columns[1] };
                    if wants_filter {
                        let high = (rows.len() - 1) * stride + k;
                        let input = &mut input[..high * columns[0] * BLOCK];
                        let first = (rows.start * stride) as isize - plan.pad() as isize;
                        source.fill(plan, image, block, first, input);
                        simd::run(FilterGradient {
                            plane: Plane { data: input, columns: columns[0] },
                            gradient,
                            origin: (halo * columns[1] + halo) * BLOCK,
                            size: [rows.len(), plan.to[1]],
                            k,
                            stride,
                            to: filter,
                            ahead: window::Ahead { from: above.places(plan, next), lines: [1, 1] },
                        });
                    }
                    let last = band + 1 == bands;
                    let lines = rows.start * stride..if last { plan.from[0] } else { rows.end * stride };
                    let [h, w] = plan.from;
                    let input = source.place(plan, next.0, next.1, next.2);
                    let output = match &below {
                        To::Wide(to, _) => {
                            let at = plan.plane(next.0, next.1, h * w).start;
                            to.place(at + next.2 * stride * w * BLOCK)
                        }
                        _ => std::ptr::null(),
                    };
                    let run = |to: &mut [f32], slope: Option<Slope<'_>>, act: Act| {
                        with_curve!(act, C => simd::run(Backward {
                            plane: gradient,
                            origin: [halo as isize, first],
                            taps: classes.of(block),
                            stride,
                            pad: plan.pad(),
                            w,
                            first: lines.start,
                            to,
                            slope,
                            ahead: window::Ahead { from: [input, output], lines: [1, 1] },
                            curve: PhantomData::<C>,
                        }));
                    };
                    match (&below, source) {
                        (To::Wide(to, sums), Source::Wide(h1, norm1, act)) => {
                            let plane = plan.plane(image, block, h * w);
                            let range =
                                plane.start + lines.start * w * BLOCK..plane.start + lines.end * w * BLOCK;
                            let place = (image * blocks + block) * 2 * BLOCK;
                            // SAFETY: an image and block belong to one task.
                            let (to, sums) =
                                unsafe { (to.slice(range.clone()), sums.slice(place..place + 2 * BLOCK)) };
                            if band == 0 {
                                sums.fill(0.0);
                            }
                            let norm = Norms::affine(norm1, block);
                            let mean = Norms::set(norm1, block)[0];
                            run(to, Some(Slope { h: &h1[range], norm, mean, sums }), act);
                        }
                        (To::Input(dx, add, dy), _) => {
                            let own = &mut own[..lines.len() * w * BLOCK];
                            run(own, None, Act::None);
                            let channels = block * BLOCK..plan.c.min((block + 1) * BLOCK);
                            for (pixel, own) in own.chunks_exact(BLOCK).enumerate() {
                                let at = ((image * h + lines.start) * w + pixel) * plan.c;
                                let range = at + channels.start..at + channels.end;
                                // SAFETY: these channels of an image belong to one task.
                                let dx = unsafe { dx.slice(range.clone()) };
                                if !add {
                                    dx.fill(0.0);
                                }
                                dx.iter_mut().zip(own).for_each(|(dx, own)| *dx += own);
                                if !dy.is_empty() {
                                    dx.iter_mut().zip(&dy[range]).for_each(|(dx, dy)| *dx += dy);
                                }
                            }
                        }
                        (To::Nowhere, _) => {}
                        (To::Wide(..), Source::Input(_)) => unreachable!("the input has no wide gradient"),
                    }
                }
            }
        })?;
    }
    if let Some(dw) = dw {
        let filters = filters.f32()?;
        for (tap, dw) in dw.chunks_exact_mut(e).enumerate() {
            for (block, dw) in dw.chunks_mut(BLOCK).enumerate() {
                for part in 0..parts {
                    let from = ((part * blocks + block) * count + tap) * BLOCK;
                    dw.iter_mut().zip(&filters[from..from + BLOCK]).for_each(|(sum, part)| *sum += part);
                }
            }
        }
    }
    Ok(())
}

impl Above<'_> {
    /// Where what [`Above::fill`] reads for the output's row `y` begins.
    fn places(&self, plan: &Plan, (image, block, y): (usize, usize, usize)) -> [*const f32; 2] {
        let at = plan.plane(image, block, plan.pixels_to()).start + y * plan.to[1] * BLOCK;
        [self.da2, self.middle.h2].map(|tensor| tensor.as_ptr().wrapping_add(at))
    }

    fn fill(
        &self,
        plan: &Plan,
        [constants, steps]: [&[f32]; 2],
        image: usize,
        block: usize,
        first: isize,
        plane: &mut [f32],
    ) {
        let range = plan.plane(image, block, plan.pixels_to());
        let gate = (image * plan.blocks() + block) * 2 * BLOCK;
        let gates = &self.gates[gate..gate + 2 * BLOCK];
        let [k0, k1, k2] = Steps::set(steps, block);
        // The batch norm's first constant goes into the gate.
        let (mut factor, mut summand) = ([0.0; BLOCK], [0.0; BLOCK]);
        for lane in 0..BLOCK {
            factor[lane] = gates[lane] * k0[lane];
            summand[lane] = gates[BLOCK + lane] * k0[lane];
        }
        let halo = plan.halo();
        with_curve!(self.middle.act, C => simd::run(Fill {
            source: Downward {
                d: &self.da2[range.clone()],
                h: &self.middle.h2[range],
                norm: Norms::affine(constants, block),
                k: [&factor, &summand, k1, k2],
                curve: PhantomData::<C>,
            },
            size: plan.to,
            first,
            margin: halo,
            columns: plan.columns_to(),
            plane,
        }));
    }
}

/// The filter, reversed, cut into classes by the parity of an input pixel.
struct Classes {
    /// `[block][class][rows][columns][16]`.
    packed: Tensor,
    /// Rows and columns of a class's filter, and where it begins in a block.
    sizes: [[([usize; 2], usize); 2]; 2],
    len: usize,
}

impl Classes {
    fn new(cpu: &Cpu, plan: &Plan, w: &[f32]) -> Result<Self> {
        let (k, e, stride) = (plan.k, plan.e, plan.stride);
        let len = k * k * BLOCK;
        let mut packed = Tensor::zeros(cpu, [plan.blocks(), len])?;
        let mut sizes = [[([0, 0], 0); 2]; 2];
        let mut start = 0;
        for (y, sizes) in sizes.iter_mut().enumerate().take(stride) {
            for (x, of_class) in sizes.iter_mut().enumerate().take(stride) {
                let size = [(k - y).div_ceil(stride), (k - x).div_ceil(stride)];
                *of_class = (size, start);
                for (block, to) in packed.f32_mut()?.chunks_exact_mut(len).enumerate() {
                    for row in 0..size[0] {
                        for column in 0..size[1] {
                            let tap =
                                (y + stride * (size[0] - 1 - row)) * k + x + stride * (size[1] - 1 - column);
                            let w = &w[tap * e..(tap + 1) * e][block * BLOCK..e.min((block + 1) * BLOCK)];
                            to[start + (row * size[1] + column) * BLOCK..][..w.len()].copy_from_slice(w);
                        }
                    }
                }
                start += size[0] * size[1] * BLOCK;
            }
        }
        Ok(Self { packed, sizes, len })
    }

    fn of(&self, block: usize) -> [[Taps<'_>; 2]; 2] {
        let packed = self.packed.f32().expect("filters are f32");
        let filter = &packed[block * self.len..(block + 1) * self.len];
        self.sizes.map(|row| row.map(|(size, start)| Taps { data: &filter[start..], size }))
    }
}

/// `dx += dh1 w1 (+ dy)` and `dw1 += dh1^T x`, with `dh1 = k0 du1 + k1 h1 + k2`: x and dx
/// `[n, h, w, c]`, w1 and dw1 `[e, c]`, du1 and h1 wide tensors; no `dy` if it is empty.
#[allow(clippy::too_many_arguments, reason = "one pass reads and writes all of these")]
pub fn expand_backward(
    cpu: &Cpu,
    plan: &Plan,
    [du1, h1]: [&[f32]; 2],
    steps: &Steps,
    [x_all, w1, dy]: [&[f32]; 3],
    dx: Option<Slot<'_>>,
    dw1: Option<Slot<'_>>,
) -> Result<()> {
    let _span = cpu.pass("expand backward");
    let (c, e, blocks, wide, panels) = (plan.c, plan.e, plan.blocks(), plan.wide(), plan.panels_from());
    let steps = steps.0.f32()?;
    let mut packed = Tensor::stale(cpu, [packed_len(wide, c)], DType::F32)?;
    pack(w1, [e, c], [c, 1], c, packed.f32_mut()?);
    let packed = packed.f32()?;
    let parts = plan.parts(panels, c * e);
    let len = blocks * c * BLOCK;
    let mut filters = Tensor::stale(cpu, [parts, len], DType::F32)?;
    {
        let (filters, wants_filter) = (Disjoint::new(filters.f32_mut()?), dw1.is_some());
        let dx = dx.map(|slot| (Disjoint::new(slot.to), slot.add));
        with_scratch(cpu, parts, CHUNK * panels.longest() * BLOCK, |part, scratch| {
            // SAFETY: a part belongs to its task.
            let filter = unsafe { filters.slice(part * len..(part + 1) * len) };
            let share = panels.count() * part / parts..panels.count() * (part + 1) / parts;
            for index in share.clone() {
                let panel = panels.at(index);
                let add = index > share.start;
                let rows = panel.rows.len();
                let range = panels.nhwc(&panel, c);
                // SAFETY: the panels of a part belong to its task.
                let mut dx = dx.as_ref().map(|(dx, add)| (unsafe { dx.slice(range.clone()) }, *add));
                let x = &x_all[range.clone()];
                if let (Some((dx, add)), false) = (&mut dx, dy.is_empty()) {
                    if *add {
                        dx.iter_mut().zip(&dy[range]).for_each(|(dx, dy)| *dx += dy);
                    } else {
                        dx.copy_from_slice(&dy[range]);
                        *add = true;
                    }
                }
                for first in (0..blocks).step_by(CHUNK) {
                    let count = CHUNK.min(blocks - first);
                    for (block, strip) in scratch.chunks_exact_mut(rows * BLOCK).take(count).enumerate() {
                        let block = first + block;
                        let range = panels.strip(&panel, block);
                        strip::combine(&du1[range.clone()], &h1[range], Steps::set(steps, block), strip);
                        if wants_filter {
                            let next = panels.after(index, block, 1);
                            let ahead = Ahead::run([du1, h1].map(|t| t.as_ptr().wrapping_add(next)), rows);
                            let left = Left { data: x, row: 1, outer: [1, 0], inner: [rows, c] };
                            let right = Right { data: strip, terms: [rows, 0] };
                            let filter = &mut filter[block * c * BLOCK..(block + 1) * c * BLOCK];
                            let target = Target { data: filter, row: BLOCK, add };
                            product([c, BLOCK], left, right, target, ahead);
                        }
                    }
                    if let Some((dx, add)) = &mut dx {
                        let left = Left {
                            data: scratch,
                            row: BLOCK,
                            outer: [count, rows * BLOCK],
                            inner: [BLOCK, 1],
                        };
                        let right = Right { data: packed, terms: [wide, first * BLOCK] };
                        let chunks = blocks.div_ceil(CHUNK);
                        let (next, lines) = panels.share_after(&panel, c, first / CHUNK, chunks);
                        let ahead = Ahead::run([x_all, dy].map(|t| t.as_ptr().wrapping_add(next)), lines);
                        let target = Target { data: dx, row: c, add: *add || first > 0 };
                        product([rows, c], left, right, target, ahead);
                    }
                }
            }
        })?;
    }
    if let Some(dw1) = dw1 {
        let filters = filters.f32()?;
        cpu.pool().parallel_chunks(dw1.to, c * BLOCK, |block, to| {
            if !dw1.add {
                to.fill(0.0);
            }
            // Eight rows of sums, and then their columns: each goes to a row of its own.
            const ROWS: usize = 8;
            let mut all = [[0.0; BLOCK]; ROWS];
            for first in (0..c).step_by(ROWS) {
                let count = ROWS.min(c - first);
                for (i, sums) in all.iter_mut().enumerate().take(count) {
                    *sums = join(filters, parts, (block * c + first + i) * BLOCK);
                }
                for (lane, to) in to.chunks_exact_mut(c).enumerate() {
                    let to = to[first..first + count].iter_mut();
                    to.zip(&all).for_each(|(to, sums)| *to += sums[lane]);
                }
            }
        });
    }
    Ok(())
}
