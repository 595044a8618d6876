//! Batch norms inside the block: statistics joined from partial sums, and the constants made of them.
//!
//! Sums of differences from a first row in f32 are joined by Chan's rule in f64, in order.

use super::plan::Plan;
use super::rows::Norm;
use super::strip::{Affine, BLOCK};
use crate::cpu::Cpu;
use crate::error::Result;
use crate::op::Moments;
use crate::tensor::{DType, Tensor};

/// What a batch norm is given.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Scale and shift `[c]`, unless it is not affine.
    pub affine: Option<[&'a [f32]; 2]>,
    /// Frozen mean and variance `[c]`; otherwise they are the batch's.
    pub frozen: Option<[&'a [f32]; 2]>,
    /// Added to the variance.
    pub eps: f32,
}

/// Moments of up to 16 channels.
pub(super) struct Lanes {
    count: f64,
    mean: [f64; BLOCK],
    squares: [f64; BLOCK],
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { count: 0.0, mean: [0.0; BLOCK], squares: [0.0; BLOCK] }
    }

    /// Joins `count` values with these sums about `center`: Chan et al., "Updating formulae and a
    /// pairwise algorithm", 1979.
    pub(super) fn join(&mut self, count: usize, center: &[f32], sums: &[f32], squares: &[f32]) {
        let more = count as f64;
        let (weight, share) = (self.count * more / (self.count + more), more / (self.count + more));
        for (lane, ((&center, &sum), &square)) in center.iter().zip(sums).zip(squares).enumerate() {
            let (sum, square) = (f64::from(sum), f64::from(square));
            let delta = f64::from(center) + sum / more - self.mean[lane];
            self.squares[lane] += (square - sum * sum / more).max(0.0) + delta * delta * weight;
            self.mean[lane] += delta * share;
        }
        self.count += more;
    }
}

/// The constants of a batch norm of a wide tensor: `[block][mean, 1 / deviation, scale, shift][16]`.
#[derive(Debug)]
pub struct Norms(pub Tensor);

/// Floats of a block.
const SET: usize = 4 * BLOCK;

impl Norms {
    /// From the statistics that `lanes` joins for each block, or the frozen ones.
    pub(super) fn new(
        cpu: &Cpu,
        plan: &Plan,
        given: Given<'_>,
        lanes: impl Fn(usize) -> Lanes + Sync,
    ) -> Result<(Self, Option<Moments>)> {
        let e = plan.e;
        let mut constants = Tensor::zeros(cpu, [plan.blocks(), SET])?;
        let mut moments = Tensor::stale(cpu, [plan.blocks(), 2 * BLOCK], DType::F32)?;
        let count;
        if given.frozen.is_none() {
            count = lanes(0).count as usize;
            cpu.pool().parallel_chunks(moments.f32_mut()?, 2 * BLOCK, |block, to| {
                let lanes = lanes(block);
                for lane in 0..BLOCK {
                    to[lane] = lanes.mean[lane] as f32;
                    to[BLOCK + lane] = (lanes.squares[lane] / lanes.count) as f32;
                }
            });
        } else {
            count = 0;
        }
        let found = moments.f32()?;
        for (j, at) in (0..e).map(|j| (j, j / BLOCK * 2 * BLOCK + j % BLOCK)) {
            let [mean, var] = match given.frozen {
                Some([mean, var]) => [mean[j], var[j]],
                None => [found[at], found[at + BLOCK]],
            };
            let [inverse, scale, shift] = given.constants(j, mean, var);
            let set = &mut constants.f32_mut()?[j / BLOCK * SET..];
            for (i, value) in [mean, inverse, scale, shift].into_iter().enumerate() {
                set[i * BLOCK + j % BLOCK] = value;
            }
        }
        if given.frozen.is_some() {
            return Ok((Self(constants), None));
        }
        let (mut mean, mut var) =
            (Tensor::stale(cpu, [e], DType::F32)?, Tensor::stale(cpu, [e], DType::F32)?);
        for (j, (mean, var)) in mean.f32_mut()?.iter_mut().zip(var.f32_mut()?).enumerate() {
            let at = j / BLOCK * 2 * BLOCK + j % BLOCK;
            (*mean, *var) = (found[at], found[at + BLOCK]);
        }
        Ok((Self(constants), Some(Moments { mean, var, count })))
    }

    /// Means, reciprocal deviations, scales and shifts of one block, each `[16]`.
    pub(super) fn set(constants: &[f32], block: usize) -> [&[f32]; 4] {
        let set = &constants[block * SET..(block + 1) * SET];
        std::array::from_fn(|i| &set[i * BLOCK..(i + 1) * BLOCK])
    }

    /// Scale and shift of one block.
    pub(super) fn affine(constants: &[f32], block: usize) -> Affine<'_> {
        let [_, _, scale, shift] = Self::set(constants, block);
        Affine { scale, shift }
    }

    /// The mean, reciprocal deviation and scale of channel `j`.
    pub fn channel(&self, j: usize) -> Result<[f32; 3]> {
        let [mean, inverse, scale, _] = Self::set(self.0.f32()?, j / BLOCK);
        Ok([mean[j % BLOCK], inverse[j % BLOCK], scale[j % BLOCK]])
    }
}

impl Given<'_> {
    pub(super) fn constants(&self, j: usize, mean: f32, var: f32) -> [f32; 3] {
        let inverse = 1.0 / (f64::from(var) + f64::from(self.eps)).sqrt();
        let [gamma, beta] = self.affine.map_or([1.0, 0.0], |[g, b]| [f64::from(g[j]), f64::from(b[j])]);
        let scale = gamma * inverse;
        [inverse as f32, scale as f32, (beta - f64::from(mean) * scale) as f32]
    }
}

/// The constants of the batch norm of the block's output: `[4, o]`: means, reciprocal deviations,
/// scales, shifts.
#[derive(Debug)]
pub struct TopNorm(pub Tensor);

impl TopNorm {
    pub(super) fn new(
        cpu: &Cpu,
        o: usize,
        given: Given<'_>,
        lanes: impl Fn(usize) -> Lanes,
    ) -> Result<(Self, Option<Moments>)> {
        let mut constants = Tensor::stale(cpu, [4, o], DType::F32)?;
        let (mut means, mut vars) =
            (Tensor::stale(cpu, [o], DType::F32)?, Tensor::stale(cpu, [o], DType::F32)?);
        let mut count = 0;
        if given.frozen.is_none() {
            let (means, vars) = (means.f32_mut()?, vars.f32_mut()?);
            for (block, (means, vars)) in means.chunks_mut(BLOCK).zip(vars.chunks_mut(BLOCK)).enumerate() {
                let lanes = lanes(block);
                count = lanes.count as usize;
                for (lane, (mean, var)) in means.iter_mut().zip(vars).enumerate() {
                    *mean = lanes.mean[lane] as f32;
                    *var = (lanes.squares[lane] / lanes.count) as f32;
                }
            }
        }
        let [mean, var] = match given.frozen {
            Some(frozen) => frozen,
            None => [means.f32()?, vars.f32()?],
        };
        let to = constants.f32_mut()?;
        for j in 0..o {
            let [inverse, scale, shift] = given.constants(j, mean[j], var[j]);
            (to[j], to[o + j], to[2 * o + j], to[3 * o + j]) = (mean[j], inverse, scale, shift);
        }
        let moments = given.frozen.is_none().then_some(Moments { mean: means, var: vars, count });
        Ok((Self(constants), moments))
    }

    pub(super) fn rows(constants: &[f32]) -> Norm<'_> {
        let o = constants.len() / 4;
        Norm { mean: &constants[..o], scale: &constants[2 * o..3 * o], shift: &constants[3 * o..] }
    }
}

/// The input gradient of a batch norm, `k0 du + k1 h + k2`, from the sums of `du` and `du (h - mean)`
/// over `count` values; of frozen statistics `k1` and `k2` are zero.
pub(super) fn steps(
    sums: [f64; 2],
    [mean, inverse, scale]: [f32; 3],
    count: usize,
    frozen: bool,
) -> [f32; 3] {
    if frozen {
        return [scale, 0.0, 0.0];
    }
    let per = f64::from(scale) / count as f64;
    let k1 = -per * f64::from(inverse).powi(2) * sums[1];
    [scale, k1 as f32, (-per * sums[0] - k1 * f64::from(mean)) as f32]
}

/// [`steps`] of a wide tensor: `[block][3][16]`.
#[derive(Debug)]
pub struct Steps(pub Tensor);

impl Steps {
    /// From the sums `[e]` of `du` and of `du (h - mean)`.
    pub fn new(
        cpu: &Cpu,
        plan: &Plan,
        norm: &Norms,
        sums: [&[f64]; 2],
        count: usize,
        frozen: bool,
    ) -> Result<Self> {
        let mut all = Tensor::zeros(cpu, [plan.blocks(), 3 * BLOCK])?;
        let to = all.f32_mut()?;
        for j in 0..plan.e {
            let k = steps([sums[0][j], sums[1][j]], norm.channel(j)?, count, frozen);
            for (i, k) in k.into_iter().enumerate() {
                to[(j / BLOCK * 3 + i) * BLOCK + j % BLOCK] = k;
            }
        }
        Ok(Self(all))
    }

    pub(super) fn set(all: &[f32], block: usize) -> [&[f32]; 3] {
        std::array::from_fn(|i| &all[(block * 3 + i) * BLOCK..(block * 3 + i + 1) * BLOCK])
    }
}

/// [`steps`] of the output: `[3, o]`.
#[derive(Debug)]
pub struct TopSteps(pub Tensor);

impl TopSteps {
    pub(super) fn rows(all: &[f32]) -> [&[f32]; 3] {
        let o = all.len() / 3;
        [&all[..o], &all[o..2 * o], &all[2 * o..]]
    }
}
