//! Squeeze-and-excitation (Hu et al., arXiv 1709.01507, section 3):
//! `y = x * gate(w2 relu(w1 mean(x) + b1) + b2)`, the mean being over the plane.

use kernels::Write;
use kernels::batch_norm::{Partial, SumAll};
use kernels::channels::{Affine, Constants, GlobalAvgPool, PlaneProducts};
use kernels::squeeze_excite::{Excite, ExciteArgs, ExciteBackward, ExciteBackwardArgs, Layers, Sigma};

use super::global_avg_pool::{plane_means, plane_sums};
use super::{Act, dense};
use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cpu::simd::{self, Loop, Simd};
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity, exactly, nhwc, shape_error};
use crate::tensor::{DType, Shape, Tensor};

const F32: kernels::DType = kernels::DType::F32;

/// Inputs: `x [n, h, w, c]`, `w1 [r, c]`, `b1 [r]`, `w2 [c, r]`, `b2 [c]`. Output: the shape of `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqueezeExcite {
    /// What turns the second layer into a gate: [`Act::HardSigmoid`] or [`Act::Sigmoid`].
    pub gate: Act,
}

impl Op for SqueezeExcite {
    fn name(&self) -> &'static str {
        "squeeze_excite"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        arity::<5>(self.name(), inputs)?;
        let [_, _, _, c] = nhwc(self.name(), inputs, 0)?;
        let r = match *inputs[1].dims() {
            [r, wc] if wc == c && r > 0 => r,
            _ => return Err(shape_error(self.name(), inputs, format!("w1 must be [r, {c}] with r > 0"))),
        };
        exactly(self.name(), inputs, 2, "[r]", &[r])?;
        exactly(self.name(), inputs, 3, "[c, r]", &[c, r])?;
        exactly(self.name(), inputs, 4, "[c]", &[c])?;
        Ok(inputs[0])
    }

    fn keep(&self) -> Keep {
        Keep::inputs(&[0, 1, 3])
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        // As papers count them: the two layers, not the product with the gate.
        2 * inputs[0].dims()[0] as u64 * inputs[1].len() as u64
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], record: bool) -> Result<Output> {
        let [n, h, w, c] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let r = inputs[1].shape().dims()[0];
        let x = inputs[0].f32()?;
        let mut mean = Tensor::stale(cpu, [n, c], DType::F32)?;
        cpu.pool().parallel_chunks(mean.f32_mut()?, c, |n, mean| {
            plane_means(&x[n * h * w * c..(n + 1) * h * w * c], w, mean);
        });
        let mut hidden = dense::forward(cpu, &mean, inputs[1], Some(inputs[2]), [n, r].into())?;
        hidden.f32_mut()?.iter_mut().for_each(|v| *v = Act::Relu.value(*v));
        let logits = dense::forward(cpu, &hidden, inputs[3], Some(inputs[4]), [n, c].into())?;
        let mut gates = Tensor::stale(cpu, [n, c], DType::F32)?;
        gates.f32_mut()?.iter_mut().zip(logits.f32()?).for_each(|(g, &u)| *g = self.gate.value(u));

        let mut y = Tensor::stale(cpu, inputs[0].shape(), DType::F32)?;
        let gate = gates.f32()?;
        cpu.pool().parallel_chunks(y.f32_mut()?, w * c, |row, y| {
            let gate = &gate[row / h * c..][..c];
            for (y, x) in y.chunks_exact_mut(c).zip(x[row * w * c..].chunks_exact(c)) {
                y.iter_mut().zip(x).zip(gate).for_each(|((y, x), g)| *y = x * g);
            }
        });
        let saved = if record { vec![mean, hidden, logits] } else { Vec::new() };
        Ok(Output { y, saved, moments: Vec::new() })
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let [n, h, w, c] = kept.shape(0).nhwc().expect("shape() checked four axes");
        let (x, dy) = (kept.x(0)?, dy.f32()?);
        let (mean, hidden, logits) = (&kept.saved[0], &kept.saved[1], &kept.saved[2]);

        // The gate's gradient, through its activation: du2 [n, c].
        let mut du2 = Tensor::stale(cpu, [n, c], DType::F32)?;
        let logit = logits.f32()?;
        cpu.pool().parallel_chunks(du2.f32_mut()?, c, |n, du2| {
            let plane = n * h * w * c..(n + 1) * h * w * c;
            plane_sums(&dy[plane.clone()], Some(&x[plane]), w, du2);
            du2.iter_mut().zip(&logit[n * c..]).for_each(|(d, &u)| *d *= self.gate.slope(u));
        });
        let mut du1 = Tensor::zeros(cpu, hidden.shape())?;
        let [dx, dw1, db1, dw2, db2] = dx else { unreachable!("shape() checked five inputs") };
        let to = [Some(du1.f32_mut()?), dw2.as_deref_mut(), db2.as_deref_mut()];
        dense::gradients(cpu, hidden.f32()?, kept.input(3), &du2, to)?;
        du1.f32_mut()?.iter_mut().zip(hidden.f32()?).for_each(|(d, &v)| *d = if v > 0.0 { *d } else { 0.0 });
        let mut dmean = Tensor::zeros(cpu, [n, c])?;
        let to = [Some(dmean.f32_mut()?), dw1.as_deref_mut(), db1.as_deref_mut()];
        dense::gradients(cpu, mean.f32()?, kept.input(1), &du1, to)?;

        if let Some(dx) = dx {
            let (dmean, even) = (dmean.f32()?, 1.0 / (h * w) as f32);
            let mut gates = Tensor::stale(cpu, [n, c], DType::F32)?;
            gates.f32_mut()?.iter_mut().zip(logit).for_each(|(g, &u)| *g = self.gate.value(u));
            let gates = gates.f32()?;
            cpu.pool().parallel_chunks(dx, w * c, |row, dx| {
                let image = row / h * c..(row / h + 1) * c;
                let (gate, dmean) = (&gates[image.clone()], &dmean[image]);
                let dy = &dy[row * w * c..][..w * c];
                simd::run(InputGradient { dy, gate, dmean, even, dx });
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], record: bool) -> Result<Output> {
        let (shape, layers) = self.sizes(cuda, inputs[0].shape(), inputs[1].shape())?;
        let [n, plane, c] = shape;
        let mut means = Tensor::stale(cuda, [n, c], DType::F32)?;
        let op = cuda.prepare(shape, |d| GlobalAvgPool::new(d, F32, n, plane, c))?;
        let (x, to) = (inputs[0].input()?, means.output()?);
        cuda.launch(|stream| op.forward(stream, x, to))?;
        let op = cuda.prepare(layers, |d| Excite::new(d, layers))?;
        let mut hidden = Tensor::stale(cuda, [n, layers.r], DType::F32)?;
        let mut gates = Tensor::stale(cuda, [n, c], DType::F32)?;
        let args = ExciteArgs {
            means: means.input()?,
            first: (inputs[1].input()?, inputs[2].input()?),
            second: (inputs[3].input()?, inputs[4].input()?),
            hidden: hidden.output()?,
            gates: gates.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        let op = cuda.prepare(shape, |d| Affine::of_images(d, F32, shape))?;
        let mut y = Tensor::stale(cuda, inputs[0].shape(), DType::F32)?;
        let (constants, to) =
            (Constants { scale: Some(gates.input()?), ..Constants::default() }, y.output()?);
        cuda.launch(|stream| op.launch(stream, x, constants, to, Write::Store))?;
        let saved = if record { vec![means, hidden, gates] } else { Vec::new() };
        Ok(Output { y, saved, moments: Vec::new() })
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        let (shape, layers) = self.sizes(cuda, kept.shape(0), kept.shape(1))?;
        let [n, _, c] = shape;
        let [means, hidden, gates] = kept.saved else { unreachable!("forward saved as many") };
        let mut dgates = Tensor::stale(cuda, [n, c], DType::F32)?;
        let op = cuda.prepare(shape, |d| PlaneProducts::new(d, F32, shape))?;
        let (x, dy, to) = (kept.input(0).input()?, dy.input()?, dgates.output()?);
        cuda.launch(|stream| op.launch(stream, dy, x, to))?;
        let op = cuda.prepare((layers, "alone"), |d| ExciteBackward::alone(d, layers))?;
        let (partials, stride) = (op.partials(), op.parameters());
        let mut extra = Tensor::stale(cuda, [n, c], DType::F32)?;
        let mut parts = Tensor::stale(cuda, [partials, stride], DType::F32)?;
        let args = ExciteBackwardArgs {
            sums: dgates.input()?,
            means: means.input()?,
            hidden: hidden.input()?,
            gates: gates.input()?,
            w: (kept.input(1).input()?, kept.input(3).input()?),
            factors: extra.output()?,
            norm: None,
            parts: parts.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        let (first, learnt) = dx.split_at_mut(1);
        let mut arrays = Vec::with_capacity(learnt.len());
        for (slot, (offset, len)) in learnt.iter_mut().zip(op.places()) {
            if let Some(slot) = slot {
                let (out, write) = slot.open();
                arrays.push(Partial { parts: parts.input()?, partials, stride, offset, len, out, write });
            }
        }
        if !arrays.is_empty() {
            let op = cuda.prepare((), SumAll::new)?;
            cuda.launch(|stream| op.launch(stream, arrays))?;
        }
        let Some(slot) = &mut first[0] else { return Ok(()) };
        let op = cuda.prepare(shape, |d| Affine::of_images(d, F32, shape))?;
        let constants =
            Constants { scale: Some(gates.input()?), shift: Some(extra.input()?), ..Constants::default() };
        let (to, write) = slot.open();
        cuda.launch(|stream| op.launch(stream, dy, constants, to, write))
    }
}

impl SqueezeExcite {
    /// `[n, plane, c]` and the layers as kernels have them.
    fn sizes(&self, cuda: &Cuda, x: Shape, w1: Shape) -> Result<([usize; 3], Layers)> {
        let [images, h, w, c] = x.nhwc().expect("shape() checked four axes");
        let sigma = sigma(cuda, self.name(), self.gate)?;
        Ok(([images, h * w, c], Layers { images, plane: h * w, c, r: w1.dims()[0], sigma }))
    }
}

/// What makes gates of the second layer's output, as kernels have it.
pub(super) fn sigma(cuda: &Cuda, op: &'static str, gate: Act) -> Result<Sigma> {
    match gate {
        Act::Sigmoid => Ok(Sigma::Sigmoid),
        Act::HardSigmoid => Ok(Sigma::HardSigmoid),
        _ => Err(cuda.no_kernel(op, "gates of another kind", 1, "a sigmoid, hard or not")),
    }
}

/// `dx += dy * gate + even * dmean` for some pixels of one image.
struct InputGradient<'a, 'dx> {
    dy: &'a [f32],
    gate: &'a [f32],
    dmean: &'a [f32],
    even: f32,
    dx: &'dx mut [f32],
}

impl Loop for InputGradient<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let InputGradient { dy, gate, dmean, even, dx } = self;
        let c = gate.len();
        let dmean = &dmean[..c];
        for (dx, dy) in dx.chunks_exact_mut(c).zip(dy.chunks_exact(c)) {
            for j in 0..c {
                dx[j] += s.fma1(dy[j], gate[j], even * dmean[j]);
            }
        }
    }
}

fn reference(gate: Act, x: &[Array]) -> Array {
    let [n, h, w, c] = x[0].shape.nhwc().expect("four axes");
    let r = x[1].shape.dims()[0];
    let mut y = x[0].clone();
    for b in 0..n {
        let plane = b * h * w * c..(b + 1) * h * w * c;
        let mut mean = vec![0.0; c];
        x[0].data[plane.clone()].iter().enumerate().for_each(|(at, v)| mean[at % c] += v / (h * w) as f64);
        let hidden: Vec<f64> = (0..r)
            .map(|i| (x[2].at([i]) + (0..c).map(|j| x[1].at([i, j]) * mean[j]).sum::<f64>()).max(0.0))
            .collect();
        let gates: Vec<f64> = (0..c)
            .map(|j| gate.value_f64(x[4].at([j]) + (0..r).map(|i| x[3].at([j, i]) * hidden[i]).sum::<f64>()))
            .collect();
        y.data[plane].iter_mut().enumerate().for_each(|(at, v)| *v *= gates[at % c]);
    }
    y
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, x: [usize; 4], r, gate| {
        let c = x[3];
        let inputs = vec![
            Input::scaled(x, 1.0, 0.5),
            Input::normal([r, c]),
            Input::scaled([r], 1.0, 0.3),
            Input::normal([c, r]),
            Input::normal([c]),
        ];
        Case::new(name, SqueezeExcite { gate }, inputs, move |x: &[Array]| reference(gate, x))
    };
    vec![
        case("hard sigmoid", [3, 4, 5, 24], 6, Act::HardSigmoid),
        case("sigmoid", [2, 3, 3, 10], 3, Act::Sigmoid),
        case("one of everything", [1, 1, 1, 1], 1, Act::Sigmoid),
        case("wide", [2, 2, 3, 150], 9, Act::HardSigmoid),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let op = SqueezeExcite { gate: Act::Sigmoid };
        let shapes: Vec<Shape> =
            vec![[2, 3, 3, 8].into(), [2, 8].into(), [2].into(), [8, 3].into(), [8].into()];
        let error = op.shape(&shapes).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "squeeze_excite", .. }));
        assert!(
            error.to_string().contains("[2, 3, 3, 8]") && error.to_string().contains("[8, 3]"),
            "{error}"
        );
    }
}
