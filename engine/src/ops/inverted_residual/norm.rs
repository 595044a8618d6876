//! A batch norm of the block: from partial sums to constants per channel, and back.
//!
//! Constants are padded with zeros to whole blocks, so lanes past the last channel stay zero.

use super::super::batch_norm::inverse_deviation;
use crate::cpu::Cpu;
use crate::cpu::blocked::{Affine, BLOCK, Row, rows, rows_mut};
use crate::error::Result;
use crate::op::Moments;
use crate::tensor::{DType, Tensor};

/// Rows of a saved norm.
const ROWS: usize = 4;

/// The constants of a norm, `[4, width]`: mean, one over the deviation, their product with the
/// scale, shift.
#[derive(Clone, Copy)]
pub(super) struct Norm<'a> {
    data: &'a [f32],
    width: usize,
}

impl<'a> Norm<'a> {
    pub fn new(saved: &'a Tensor) -> Result<Self> {
        Ok(Self { data: saved.f32()?, width: saved.shape().dims()[1] })
    }

    fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.width..(row + 1) * self.width]
    }

    pub fn mean(&self) -> &'a [f32] {
        self.row(0)
    }

    pub fn inverse(&self) -> &'a [f32] {
        self.row(1)
    }

    pub fn factor(&self) -> &'a [f32] {
        self.row(2)
    }

    pub fn shift(&self) -> &'a [f32] {
        self.row(3)
    }

    /// The constants of one block.
    pub fn block(&self, block: usize) -> Affine<'a> {
        Affine {
            mean: &rows(self.mean())[block],
            factor: &rows(self.factor())[block],
            shift: &rows(self.shift())[block],
        }
    }
}

/// The constants of a norm with these statistics.
pub(super) fn constants(
    cpu: &Cpu,
    mean: &[f32],
    var: &[f32],
    affine: Option<[&[f32]; 2]>,
    eps: f32,
) -> Result<Tensor> {
    let width = mean.len().next_multiple_of(BLOCK);
    let mut saved = Tensor::zeros(cpu, [ROWS, width])?;
    let data = saved.f32_mut()?;
    for j in 0..mean.len() {
        let inverse = inverse_deviation(f64::from(var[j]), eps);
        let [scale, shift] = affine.map_or([1.0, 0.0], |rows| rows.map(|row| row[j]));
        data[j] = mean[j];
        data[width + j] = inverse;
        data[2 * width + j] = inverse * scale;
        data[3 * width + j] = shift;
    }
    Ok(saved)
}

/// The constants of no norm, for `c` channels.
pub(super) fn identity(cpu: &Cpu, c: usize) -> Result<Tensor> {
    let width = c.next_multiple_of(BLOCK);
    let mut saved = Tensor::zeros(cpu, [ROWS, width])?;
    saved.f32_mut()?[2 * width..2 * width + c].fill(1.0);
    Ok(saved)
}

/// Joins the [`statistics`](crate::cpu::blocked::statistics) `[image][block][panel]` of a tensor
/// with `c` channels, whose panels have `counts` pixels.
pub(super) fn join(cpu: &Cpu, partial: &[f32], c: usize, counts: &[usize]) -> Result<Moments> {
    let blocks = c.div_ceil(BLOCK);
    let partial = rows(partial);
    let images = partial.len() / (blocks * counts.len() * 3);
    let (mut mean, mut var) = (Tensor::stale(cpu, [c], DType::F32)?, Tensor::stale(cpu, [c], DType::F32)?);
    let total = images * counts.iter().sum::<usize>();
    {
        let (means, vars) = (mean.f32_mut()?.chunks_mut(BLOCK), var.f32_mut()?.chunks_mut(BLOCK));
        for (block, (mean, var)) in means.zip(vars).enumerate() {
            let (mut count, mut center, mut squares) = (0.0f64, [0f64; BLOCK], [0f64; BLOCK]);
            for image in 0..images {
                let sums = &partial[(image * blocks + block) * counts.len() * 3..][..counts.len() * 3];
                for (sums, &more) in sums.chunks_exact(3).zip(counts) {
                    let more = more as f64;
                    let (one, all) = (1.0 / more, 1.0 / (count + more));
                    for lane in 0..BLOCK {
                        let (sum, square) = (f64::from(sums[1][lane]), f64::from(sums[2][lane]));
                        let delta = f64::from(sums[0][lane]) + sum * one - center[lane];
                        // Chan et al., "Updating formulae and a pairwise algorithm", 1979.
                        squares[lane] +=
                            (square - sum * sum * one).max(0.0) + delta * delta * count * more * all;
                        center[lane] += delta * more * all;
                    }
                    count += more;
                }
            }
            for (lane, (mean, var)) in mean.iter_mut().zip(var).enumerate() {
                *mean = center[lane] as f32;
                *var = (squares[lane] / total as f64) as f32;
            }
        }
    }
    Ok(Moments { mean, var, count: total })
}

/// The sums over pixels that the backward of a norm needs: of the gradient, and of the gradient
/// times `h - mean`.
pub(super) struct Sums {
    pub sum: Tensor,
    pub product: Tensor,
}

impl Sums {
    /// Joins partial sums `[image][block][2][16]` of `c` channels.
    pub fn join(cpu: &Cpu, partial: &[f32], c: usize) -> Result<Self> {
        let blocks = c.div_ceil(BLOCK);
        let mut totals = [Tensor::zeros(cpu, [blocks * BLOCK])?, Tensor::zeros(cpu, [blocks * BLOCK])?];
        for (which, total) in totals.iter_mut().enumerate() {
            for (block, total) in rows_mut(total.f32_mut()?).iter_mut().enumerate() {
                let mut sums = [0f64; BLOCK];
                for image in rows(partial).chunks_exact(blocks * 2) {
                    let row: &Row = &image[block * 2 + which];
                    (0..BLOCK).for_each(|lane| sums[lane] += f64::from(row[lane]));
                }
                *total = sums.map(|sum| sum as f32);
            }
        }
        let [sum, product] = totals;
        Ok(Self { sum, product })
    }

    /// Adds the gradients of scale and shift, and of frozen mean and variance, and returns the
    /// three constants `[3, width]` that give the gradient of `h`, from which `count` values a
    /// channel were normalised, or `None` if the statistics were given.
    pub fn finish(
        &self,
        cpu: &Cpu,
        norm: Norm<'_>,
        c: usize,
        count: Option<usize>,
        affine: [Option<&mut [f32]>; 2],
        frozen: [Option<&mut [f32]>; 2],
    ) -> Result<Tensor> {
        let (sum, product) = (self.sum.f32()?, self.product.f32()?);
        let (inverse, factor) = (norm.inverse(), norm.factor());
        let [scale, shift] = affine;
        if let Some(scale) = scale {
            (0..c).for_each(|j| scale[j] += product[j] * inverse[j]);
        }
        if let Some(shift) = shift {
            (0..c).for_each(|j| shift[j] += sum[j]);
        }
        let [mean, var] = frozen;
        if let Some(mean) = mean {
            (0..c).for_each(|j| mean[j] -= factor[j] * sum[j]);
        }
        if let Some(var) = var {
            (0..c).for_each(|j| var[j] -= 0.5 * factor[j] * inverse[j] * inverse[j] * product[j]);
        }
        let width = c.next_multiple_of(BLOCK);
        let mut constants = Tensor::zeros(cpu, [3, width])?;
        let data = constants.f32_mut()?;
        for j in 0..c {
            data[j] = factor[j];
            if let Some(count) = count {
                let a = f64::from(factor[j]) / count as f64;
                data[width + j] = (-a * f64::from(inverse[j]).powi(2) * f64::from(product[j])) as f32;
                data[2 * width + j] = (-a * f64::from(sum[j])) as f32;
            }
        }
        Ok(constants)
    }
}

/// The three constants of one block.
pub(super) fn block(constants: &[f32], block: usize) -> [&Row; 3] {
    let all = rows(constants);
    let blocks = all.len() / 3;
    std::array::from_fn(|i| &all[i * blocks + block])
}
