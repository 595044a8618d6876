//! Batch normalisation over all axes but the last:
//! `y = (x - mean) / sqrt(var + eps) * scale + shift`, with the biased variance.
//!
//! Statistics of a tile of rows are sums of `x - x0` and of its square, `x0` being the tile's first
//! row; tiles are joined by Chan's rule in f64, in order. Plain sums in f32 would lose the whole
//! variance at a mean of 1,000 standard deviations.

use kernels::Write;
use kernels::channels::{self, Constants};

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cpu::simd::{self, Loop, Simd};
use crate::cuda::norm::{Norm, NormSlots};
use crate::cuda::{Cuda, Partials, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Moments, Op, Output, exactly, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Inputs: `x [.., c]`; `scale [c]` and `shift [c]` if `affine`; `mean [c]` and biased `var [c]` if
/// `frozen`. Output: the shape of `x`.
///
/// Unless frozen it normalises with the statistics of the batch and returns them as [`Moments`];
/// the gradient then flows through them too. Frozen statistics are inputs like any other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f32,
    /// Whether scale and shift are learnt; otherwise they are 1 and 0.
    pub affine: bool,
    /// Whether mean and variance are given.
    pub frozen: bool,
}

/// Elements of a tile.
const TILE: usize = 1 << 14;

impl BatchNorm {
    /// The place of the mean among the inputs.
    fn mean_at(&self) -> usize {
        if self.affine { 3 } else { 1 }
    }
}

/// Rows of a tile.
fn tile_rows(rows: usize, c: usize) -> usize {
    (TILE / c).max(8).min(rows)
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let wanted = self.mean_at() + if self.frozen { 2 } else { 0 };
        if inputs.len() != wanted {
            let reason = format!("expected {wanted} inputs with {self:?}");
            return Err(shape_error(self.name(), inputs, reason));
        }
        if inputs[0].is_empty() || inputs[0].rank() < 2 {
            return Err(shape_error(self.name(), inputs, "x must be [.., c] with no axis zero"));
        }
        for i in 1..wanted {
            exactly(self.name(), inputs, i, "[c]", &[inputs[0].channels()])?;
        }
        Ok(inputs[0])
    }

    fn keep(&self) -> Keep {
        if self.affine { Keep::inputs(&[0, 1]) } else { Keep::inputs(&[0]) }
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], record: bool) -> Result<Output> {
        let (x, c) = (inputs[0].f32()?, inputs[0].shape().channels());
        let (mut saved, mut moments) = (Tensor::stale(cpu, [2, c], DType::F32)?, Vec::new());
        if self.frozen {
            let (mean, inverse) = saved.f32_mut()?.split_at_mut(c);
            mean.copy_from_slice(inputs[self.mean_at()].f32()?);
            let var = inputs[self.mean_at() + 1].f32()?;
            inverse.iter_mut().zip(var).for_each(|(i, &v)| *i = self.inverse(f64::from(v)));
        } else {
            let batch = statistics(cpu, x, c)?;
            let (mean, inverse) = saved.f32_mut()?.split_at_mut(c);
            mean.copy_from_slice(batch.mean.f32()?);
            let var = batch.var.f32()?;
            inverse.iter_mut().zip(var).for_each(|(i, &v)| *i = self.inverse(f64::from(v)));
            moments.push(batch);
        }
        let (scale, shift) =
            if self.affine { (Some(inputs[1].f32()?), Some(inputs[2].f32()?)) } else { (None, None) };
        let mut y = Tensor::stale(cpu, inputs[0].shape(), DType::F32)?;
        let (mean, inverse) = saved.f32()?.split_at(c);
        let mut factors = Tensor::stale(cpu, [c], DType::F32)?;
        for (j, factor) in factors.f32_mut()?.iter_mut().enumerate() {
            *factor = inverse[j] * scale.map_or(1.0, |s| s[j]);
        }
        let factors = factors.f32()?;
        let len = tile_rows(x.len() / c, c) * c;
        cpu.pool().parallel_chunks(y.f32_mut()?, len, |tile, y| {
            simd::run(Normalise { x: &x[tile * len..][..y.len()], mean, factors, shift, y });
        });
        Ok(Output { y, saved: if record { vec![saved] } else { Vec::new() }, moments })
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let (x, dy, c) = (kept.x(0)?, dy.f32()?, kept.shape(0).channels());
        let (mean, inverse) = kept.saved[0].f32()?.split_at(c);
        let scale = if self.affine { Some(kept.x(1)?) } else { None };
        let count = (x.len() / c) as f64;

        // sums[0] = sum dy, sums[1] = sum dy (x - mean).
        let sums = gradient_sums(cpu, x, dy, mean)?;
        let (sum, product) = sums.f32()?.split_at(c);
        if self.affine {
            if let Some(dscale) = &mut dx[1] {
                (0..c).for_each(|j| dscale[j] += product[j] * inverse[j]);
            }
            if let Some(dshift) = &mut dx[2] {
                (0..c).for_each(|j| dshift[j] += sum[j]);
            }
        }
        let factor = |j: usize| inverse[j] * scale.map_or(1.0, |s| s[j]);
        if self.frozen {
            if let Some(dmean) = &mut dx[self.mean_at()] {
                (0..c).for_each(|j| dmean[j] -= factor(j) * sum[j]);
            }
            if let Some(dvar) = &mut dx[self.mean_at() + 1] {
                (0..c).for_each(|j| dvar[j] -= 0.5 * factor(j) * inverse[j] * inverse[j] * product[j]);
            }
        }

        if let Some(dx) = &mut dx[0] {
            // dx = a (dy - sum / n - (x - mean) inverse^2 product / n): three constants a channel.
            let mut constants = Tensor::zeros(cpu, [3, c])?;
            let (first, rest) = constants.f32_mut()?.split_at_mut(c);
            let (second, third) = rest.split_at_mut(c);
            for j in 0..c {
                first[j] = factor(j);
                if !self.frozen {
                    let a = f64::from(factor(j)) / count;
                    second[j] = (-a * f64::from(inverse[j]).powi(2) * f64::from(product[j])) as f32;
                    third[j] = (-a * f64::from(sum[j])) as f32;
                }
            }
            let constants = constants.f32()?;
            let len = tile_rows(x.len() / c, c) * c;
            cpu.pool().parallel_chunks(dx, len, |tile, dx| {
                let range = tile * len..tile * len + dx.len();
                simd::run(InputGradient { x: &x[range.clone()], dy: &dy[range], mean, constants, dx });
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], record: bool) -> Result<Output> {
        let shape = inputs[0].shape();
        let (rows, c) = (shape.len() / shape.channels(), shape.channels());
        let learnt = self.affine.then(|| (inputs[1], inputs[2]));
        let (f32, x) = (kernels::DType::F32, inputs[0].input()?);
        let mut found = Vec::new();
        let norm = if self.frozen {
            let at = self.mean_at();
            Norm::frozen(cuda, inputs[at], inputs[at + 1], learnt, self.eps)?
        } else {
            let op = cuda.prepare((rows, c), |d| channels::Moments::new(d, f32, rows, c))?;
            let mut partials = Partials::new(cuda, op.partials(), c)?;
            let (moments, counts) = (partials.moments.output()?, partials.counts.output()?);
            cuda.launch(|stream| op.launch(stream, x, moments, counts))?;
            let (norm, moments) = Norm::of_batch(cuda, &partials, learnt, self.eps, rows)?;
            found.push(moments);
            norm
        };
        let op = cuda.prepare((rows, c), |d| channels::Affine::new(d, f32, rows, c))?;
        let mut y = Tensor::stale(cuda, shape, DType::F32)?;
        let constants = Constants {
            mean: Some(norm.mean()?),
            scale: Some(norm.scale()?),
            shift: learnt.map(|l| l.1.input()).transpose()?,
        };
        let to = y.output()?;
        cuda.launch(|stream| op.launch(stream, x, constants, to, Write::Store))?;
        let mut saved = Vec::new();
        if record {
            norm.save(&mut saved);
        }
        Ok(Output { y, saved, moments: found })
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        let shape = kept.shape(0);
        let (rows, c) = (shape.len() / shape.channels(), shape.channels());
        let norm = Norm::load(&mut kept.saved.iter().cloned());
        let (f32, x, arrived) = (kernels::DType::F32, kept.input(0).input()?, dy.input()?);
        let op = cuda.prepare((rows, c), |d| channels::Products::new(d, f32, rows, c))?;
        let mut sums = Tensor::stale(cuda, [op.partials(), c, 2], DType::F32)?;
        let (mean, to) = (norm.mean()?, sums.output()?);
        cuda.launch(|stream| op.launch(stream, arrived, x, mean, to))?;
        let (dx, others) = dx.split_first_mut().expect("there is a slot an input");
        let mut others = others.iter_mut().map(Option::as_mut);
        let mut pair = |there: bool| match there {
            true => [others.next().flatten(), others.next().flatten()],
            false => [None, None],
        };
        let ([gamma, beta], [mean, variance]) = (pair(self.affine), pair(self.frozen));
        let slots = NormSlots { gamma, beta, mean, variance };
        let pqr = norm.backward(cuda, &sums, self.frozen, self.eps, rows, slots)?;
        let Some(slot) = dx else { return Ok(()) };
        let op = cuda.prepare((rows, c), |d| channels::Linear::new(d, f32, rows, c))?;
        let (pqr, (to, write)) = (pqr.input()?, slot.open());
        let x = (!self.frozen).then_some(x);
        cuda.launch(|stream| op.launch(stream, arrived, x, pqr, to, write))
    }
}

impl BatchNorm {
    fn inverse(&self, var: f64) -> f32 {
        inverse_deviation(var, self.eps)
    }
}

/// `1 / sqrt(var + eps)`.
pub(super) fn inverse_deviation(var: f64, eps: f32) -> f32 {
    (1.0 / (var + f64::from(eps)).sqrt()) as f32
}

/// Mean and biased variance of every channel of `x [.., c]`.
pub(super) fn statistics(cpu: &Cpu, x: &[f32], c: usize) -> Result<Moments> {
    let len = tile_rows(x.len() / c, c) * c;
    let mut partial = Tensor::stale(cpu, [x.len().div_ceil(len), 2 * c], DType::F32)?;
    cpu.pool().parallel_chunks(partial.f32_mut()?, 2 * c, |tile, sums| {
        let x = &x[tile * len..x.len().min((tile + 1) * len)];
        simd::run(Sums { rows: x, other: x, center: Center::First, c, sums });
    });
    let (mut count, mut centers, mut squares) = (0.0, vec![0.0; c], vec![0.0; c]);
    for (sums, x) in partial.f32()?.chunks_exact(2 * c).zip(x.chunks(len)) {
        let rows = (x.len() / c) as f64;
        simd::run(Merge { sums, first: &x[..c], rows, count, centers: &mut centers, squares: &mut squares });
        count += rows;
    }
    let mean: Vec<f32> = centers.iter().map(|&v| v as f32).collect();
    let var: Vec<f32> = squares.iter().map(|&v| (v / count) as f32).collect();
    Ok(Moments {
        mean: Tensor::from_slice(cpu, [c], &mean)?,
        var: Tensor::from_slice(cpu, [c], &var)?,
        count: x.len() / c,
    })
}

/// Joins the sums of a tile of `rows` rows to the statistics of `count` rows before it (Chan et al.,
/// "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
struct Merge<'a, 'to> {
    /// Sums of `x - first` and of its square.
    sums: &'a [f32],
    first: &'a [f32],
    rows: f64,
    count: f64,
    centers: &'to mut [f64],
    squares: &'to mut [f64],
}

impl Loop for Merge<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        let Merge { sums, first, rows, count, centers, squares } = self;
        let c = first.len();
        let (sum, square) = (&sums[..c], &sums[c..2 * c]);
        let (centers, squares) = (&mut centers[..c], &mut squares[..c]);
        let (inverse, share, between) = (1.0 / rows, rows / (count + rows), count * rows / (count + rows));
        for j in 0..c {
            let (sum, square) = (f64::from(sum[j]), f64::from(square[j]));
            let mean = sum * inverse;
            let delta = f64::from(first[j]) + mean - centers[j];
            squares[j] += (square - sum * mean).max(0.0) + delta * delta * between;
            centers[j] += delta * share;
        }
    }
}

/// `[sum dy, sum dy (x - mean)]` of every channel, joined in f64.
pub(super) fn gradient_sums(cpu: &Cpu, x: &[f32], dy: &[f32], mean: &[f32]) -> Result<Tensor> {
    let c = mean.len();
    let len = tile_rows(x.len() / c, c) * c;
    let mut partial = Tensor::stale(cpu, [x.len().div_ceil(len), 2 * c], DType::F32)?;
    cpu.pool().parallel_chunks(partial.f32_mut()?, 2 * c, |tile, sums| {
        let range = tile * len..x.len().min((tile + 1) * len);
        let work = Sums { rows: &dy[range.clone()], other: &x[range], center: Center::Mean(mean), c, sums };
        simd::run(work);
    });
    let mut totals = vec![0.0; 2 * c];
    for tile in partial.f32()?.chunks_exact(2 * c) {
        totals.iter_mut().zip(tile).for_each(|(total, sum)| *total += f64::from(*sum));
    }
    let sums: Vec<f32> = totals.iter().map(|&total| total as f32).collect();
    Tensor::from_slice(cpu, [2, c], &sums)
}

/// What is subtracted in [`Sums`].
#[derive(Clone, Copy)]
enum Center<'a> {
    /// The tile's first row, from both factors.
    First,
    /// These means, from the second factor.
    Mean(&'a [f32]),
}

/// For a tile, per channel: the sum of the first factor, and of both factors' product.
struct Sums<'a, 'to> {
    rows: &'a [f32],
    other: &'a [f32],
    center: Center<'a>,
    c: usize,
    sums: &'to mut [f32],
}

impl Loop for Sums<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (c, (first, second)) = (self.c, self.sums.split_at_mut(self.c));
        let second = &mut second[..c];
        first.fill(0.0);
        second.fill(0.0);
        match self.center {
            Center::First => {
                let center = &self.rows[..c];
                // Four rows in step: whole rows are read in order, and sums are loaded and stored
                // once for four additions.
                let mut quads = self.rows.chunks_exact(4 * c);
                for quad in &mut quads {
                    fetch_ahead(s, quad);
                    let [a, b, d, e] = quarters(quad);
                    for j in 0..c {
                        let (a, b, d, e) =
                            (a[j] - center[j], b[j] - center[j], d[j] - center[j], e[j] - center[j]);
                        first[j] += (a + b) + (d + e);
                        second[j] += s.fma1(a, a, b * b) + s.fma1(d, d, e * e);
                    }
                }
                for row in quads.remainder().chunks_exact(c) {
                    for j in 0..c {
                        let d = row[j] - center[j];
                        first[j] += d;
                        second[j] = s.fma1(d, d, second[j]);
                    }
                }
            }
            Center::Mean(mean) => {
                let mean = &mean[..c];
                let (mut quads, mut others) = (self.rows.chunks_exact(4 * c), self.other.chunks_exact(4 * c));
                for (quad, other) in (&mut quads).zip(&mut others) {
                    fetch_ahead(s, quad);
                    fetch_ahead(s, other);
                    let ([a, b, d, e], [p, q, r, t]) = (quarters(quad), quarters(other));
                    for j in 0..c {
                        first[j] += (a[j] + b[j]) + (d[j] + e[j]);
                        let low = s.fma1(a[j], p[j] - mean[j], b[j] * (q[j] - mean[j]));
                        let high = s.fma1(d[j], r[j] - mean[j], e[j] * (t[j] - mean[j]));
                        second[j] += low + high;
                    }
                }
                let rest = quads.remainder().chunks_exact(c).zip(others.remainder().chunks_exact(c));
                for (row, other) in rest {
                    for j in 0..c {
                        first[j] += row[j];
                        second[j] = s.fma1(row[j], other[j] - mean[j], second[j]);
                    }
                }
            }
        }
    }
}

/// Asks for what lies two quads of rows ahead: four short streams at once defeat the hardware.
#[inline(always)]
fn fetch_ahead<S: Simd>(s: S, quad: &[f32]) {
    let next = quad.as_ptr().wrapping_add(2 * quad.len());
    (0..quad.len()).step_by(16).for_each(|at| s.prefetch(next.wrapping_add(at)));
}

/// Four equal parts.
#[inline(always)]
fn quarters(data: &[f32]) -> [&[f32]; 4] {
    let c = data.len() / 4;
    [&data[..c], &data[c..2 * c], &data[2 * c..3 * c], &data[3 * c..4 * c]]
}

struct Normalise<'a, 'y> {
    x: &'a [f32],
    mean: &'a [f32],
    factors: &'a [f32],
    shift: Option<&'a [f32]>,
    y: &'y mut [f32],
}

impl Loop for Normalise<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (c, mean, factors) = (self.mean.len(), self.mean, &self.factors[..self.mean.len()]);
        for (y, x) in self.y.chunks_exact_mut(c).zip(self.x.chunks_exact(c)) {
            match self.shift {
                Some(shift) => {
                    let shift = &shift[..c];
                    for j in 0..c {
                        y[j] = s.fma1(x[j] - mean[j], factors[j], shift[j]);
                    }
                }
                None => (0..c).for_each(|j| y[j] = (x[j] - mean[j]) * factors[j]),
            }
        }
    }
}

struct InputGradient<'a, 'dx> {
    x: &'a [f32],
    dy: &'a [f32],
    mean: &'a [f32],
    /// `[3, c]`: `dx += k0 dy + k1 (x - mean) + k2`.
    constants: &'a [f32],
    dx: &'dx mut [f32],
}

impl Loop for InputGradient<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (c, mean) = (self.mean.len(), self.mean);
        let (k0, rest) = self.constants.split_at(c);
        let (k1, k2) = rest.split_at(c);
        let (k1, k2) = (&k1[..c], &k2[..c]);
        let rows = self.dx.chunks_exact_mut(c).zip(self.x.chunks_exact(c)).zip(self.dy.chunks_exact(c));
        for ((dx, x), dy) in rows {
            for j in 0..c {
                let inner = s.fma1(k1[j], x[j] - mean[j], k2[j]);
                dx[j] += s.fma1(k0[j], dy[j], inner);
            }
        }
    }
}

fn reference(op: BatchNorm, x: &[Array]) -> Array {
    let (c, rows) = (x[0].shape.channels(), x[0].data.len() / x[0].shape.channels());
    let mut y = x[0].clone();
    for j in 0..c {
        let channel: Vec<f64> = (0..rows).map(|r| x[0].data[r * c + j]).collect();
        let (mean, var) = if op.frozen {
            (x[op.mean_at()].data[j], x[op.mean_at() + 1].data[j])
        } else {
            let mean = channel.iter().sum::<f64>() / rows as f64;
            (mean, channel.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / rows as f64)
        };
        let (scale, shift) = if op.affine { (x[1].data[j], x[2].data[j]) } else { (1.0, 0.0) };
        for (r, value) in channel.iter().enumerate() {
            y.data[r * c + j] = (value - mean) / (var + f64::from(op.eps)).sqrt() * scale + shift;
        }
    }
    y
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, shape: Shape, affine, frozen, eps| {
        let (op, c) = (BatchNorm { eps, affine, frozen }, shape.channels());
        let mut inputs = vec![Input::scaled(shape, 2.0, 0.7)];
        if affine {
            inputs.extend([Input::scaled([c], 0.3, 1.0), Input::normal([c])]);
        }
        if frozen {
            inputs.push(Input::normal([c]));
            let data = (0..c).map(|j| 0.5 + 0.1 * j as f32).collect();
            inputs.push(Input::Values { shape: [c].into(), data, grad: true });
        }
        Case::new(name, op, inputs, move |x: &[Array]| reference(op, x))
    };
    vec![
        case("affine", [3, 4, 5, 45].into(), true, false, 1e-5),
        case("not affine", [2, 3, 3, 8].into(), false, false, 1e-3),
        case("frozen, affine", [2, 3, 4, 7].into(), true, true, 1e-5),
        case("frozen, not affine", [2, 3, 4, 9].into(), false, true, 1e-5),
        case("rows", [17, 33].into(), true, false, 1e-5),
        case("several tiles", [9, 32, 32, 3].into(), true, false, 1e-5),
        case("more channels than a tile", [2, 2, 2, 2500].into(), true, false, 1e-5),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let op = BatchNorm { eps: 1e-5, affine: true, frozen: false };
        let error = op.shape(&[[2, 3, 3, 4].into(), [4].into(), [5].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "batch_norm", .. }));
        assert!(error.to_string().contains("[2, 3, 3, 4]") && error.to_string().contains("[5]"), "{error}");
        assert!(op.shape(&[[2, 3, 3, 4].into()]).is_err());
        assert!(op.shape(&[[0, 4].into(), [4].into(), [4].into()]).is_err());
    }

    /// The mean square of `dx` over that of `dy`, both standard normal beside `x`, over many channels of `rows` values.
    fn growth(rows: usize, eps: f32) -> f64 {
        let (cpu, c) = (Cpu::new(1).unwrap(), 1 << 17);
        let mut draws = crate::Rng::new(5, "growth").at(0, 0, 0);
        let mut normal = || {
            let values: Vec<f32> = (0..rows * c).map(|_| draws.normal()).collect();
            Tensor::from_slice(&cpu, [rows, c], &values).unwrap()
        };
        let (x, dy) = (normal(), normal());
        let op = BatchNorm { eps, affine: false, frozen: false };
        let mut tape = crate::Tape::new(&cpu);
        let input = tape.leaf(x);
        let y = tape.apply(op, &[&input]).unwrap();
        let mut store = crate::params::Layout::new().build(&cpu).unwrap();
        let gradients = tape.backward_from(&y, dy.clone(), &mut store).unwrap();
        let square = |t: &Tensor| t.f32().unwrap().iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        square(gradients.get(&input).unwrap()) / square(&dy)
    }

    /// With `d` half the difference of two values, `dx = r^3 eps` times half the difference of `dy`, where `r` is
    /// `1 / sqrt(d^2 + eps)`: the integral of its square over a normal `d` of variance 1/2 goes as `1 / sqrt(eps)`.
    #[test]
    fn gradients_through_norms_of_two_values_have_no_bound_but_eps() {
        for eps in [1e-3f32, 1e-4] {
            let density = 1.0 / std::f64::consts::PI.sqrt();
            let want = 0.5 * density * 3.0 * std::f64::consts::PI / 8.0 / f64::from(eps).sqrt();
            let got = growth(2, eps);
            assert!((got / want - 1.0).abs() < 0.25, "{got}, not {want}, with {eps}");
        }
        let (four, close) = (growth(4, 1e-3), growth(4, 1e-5));
        assert!(close < 2.5 && close < 1.3 * four, "{four} {close}");
    }

    /// A mean of 1,000 standard deviations, in many tiles: sums of f32 squares would lose it all.
    #[test]
    fn statistics_survive_a_mean_of_a_thousand_deviations() {
        let cpu = Cpu::new(2).unwrap();
        let (rows, c) = (20_000, 5);
        let mut draws = crate::Rng::new(3, "moments").at(0, 0, 0);
        let data: Vec<f32> = (0..rows * c).map(|at| draws.normal() * 0.5 + 500.0 * (at % c) as f32).collect();
        let x = Tensor::from_slice(&cpu, [rows, c], &data).unwrap();
        let op = BatchNorm { eps: 0.0, affine: false, frozen: false };
        let output = op.forward(&cpu, &[&x], true).unwrap();
        let moments = &output.moments[0];
        assert_eq!(moments.count, rows);
        for j in 0..c {
            let channel = || data.iter().skip(j).step_by(c).map(|&v| f64::from(v));
            let mean = channel().sum::<f64>() / rows as f64;
            let var = channel().map(|v| (v - mean).powi(2)).sum::<f64>() / rows as f64;
            let (got_mean, got_var) = (moments.mean.f32().unwrap()[j], moments.var.f32().unwrap()[j]);
            assert!((f64::from(got_mean) - mean).abs() <= mean.abs() * 1e-7 + 1e-6, "{got_mean} {mean}");
            assert!((f64::from(got_var) / var - 1.0).abs() < 1e-5, "{got_var} {var}");
            // The mean itself is rounded to f32, which is all that is lost.
            for (at, y) in output.y.f32().unwrap().iter().skip(j).step_by(c).enumerate() {
                let want = (f64::from(data[at * c + j]) - mean) / var.sqrt();
                assert!((f64::from(*y) - want).abs() < 5e-4, "{y} {want}");
            }
        }
    }
}
