//! Softmax cross-entropy with label smoothing, averaged over the batch.
//!
//! The target is `(1 - s) * onehot + s / classes` (SPOS section 5; also PyTorch's definition).

use std::sync::Arc;

use kernels::loss;

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity, exactly, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Inputs: logits `[n, classes]` and labels `[n]` (i32). Output: the mean loss `[1]`.
///
/// A label outside `0..classes` gives a NaN loss: the data layer checks labels, and a NaN is caught
/// by whoever guards the loss.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxCrossEntropy {
    /// Label smoothing, 0 to 1.
    pub smoothing: f32,
}

impl SoftmaxCrossEntropy {
    fn launch(&self, cuda: &Cuda, logits: Shape) -> Result<Arc<loss::SoftmaxCrossEntropy>> {
        let (classes, smoothing, f32) = (logits.channels(), self.smoothing, kernels::DType::F32);
        let rows = logits.len() / classes;
        let make = |d: &_| loss::SoftmaxCrossEntropy::new(d, f32, rows, classes, smoothing);
        cuda.prepare((rows, classes, smoothing.to_bits()), make)
    }
}

impl Op for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "softmax_cross_entropy"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let [logits, _] = arity(self.name(), inputs)?;
        let &[n, classes] = logits.dims() else {
            return Err(shape_error(self.name(), inputs, "logits must be [n, classes]"));
        };
        if n * classes == 0 {
            return Err(shape_error(self.name(), inputs, "no axis may be zero"));
        }
        exactly(self.name(), inputs, 1, "[n]", &[n])?;
        Ok([1].into())
    }

    fn keep(&self) -> Keep {
        Keep::inputs(&[1])
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], record: bool) -> Result<Output> {
        let (logits, labels) = (inputs[0].f32()?, inputs[1].slice::<i32>()?);
        let classes = inputs[0].shape().channels();
        // The probabilities are what backward needs.
        let mut probabilities = Tensor::from_slice(cpu, inputs[0].shape(), logits)?;
        let smoothing = f64::from(self.smoothing);
        let mut total = 0.0;
        for (row, &label) in probabilities.f32_mut()?.chunks_exact_mut(classes).zip(labels) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
            let log_sum = sum.ln();
            let mut mean_log = 0.0;
            let mut own = f64::NAN;
            for (i, value) in row.iter_mut().enumerate() {
                let log = f64::from(*value - max) - log_sum;
                mean_log += log / classes as f64;
                if i as i64 == i64::from(label) {
                    own = log;
                }
                *value = log.exp() as f32;
            }
            total -= (1.0 - smoothing) * own + smoothing * mean_log;
        }
        let loss = (total / labels.len() as f64) as f32;
        let saved = if record { vec![probabilities] } else { Vec::new() };
        Ok(Output { y: Tensor::from_slice(cpu, [1], &[loss])?, saved, moments: Vec::new() })
    }

    fn backward(
        &self,
        _cpu: &Cpu,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<&mut [f32]>],
    ) -> Result<()> {
        let Some(dx) = &mut dx[0] else { return Ok(()) };
        let (p, labels) = (kept.saved[0].f32()?, kept.input(1).slice::<i32>()?);
        let classes = kept.shape(0).channels();
        let scale = dy.f32()?[0] / labels.len() as f32;
        let even = self.smoothing / classes as f32;
        for ((dx, p), &label) in dx.chunks_exact_mut(classes).zip(p.chunks_exact(classes)).zip(labels) {
            for (i, (dx, p)) in dx.iter_mut().zip(p).enumerate() {
                let target = even + if i as i64 == i64::from(label) { 1.0 - self.smoothing } else { 0.0 };
                *dx += scale * (p - target);
            }
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], record: bool) -> Result<Output> {
        let (shape, rows) = (inputs[0].shape(), inputs[1].shape().len());
        let op = self.launch(cuda, shape)?;
        let mut losses = Tensor::stale(cuda, [rows], DType::F32)?;
        let mut probabilities = record.then(|| Tensor::stale(cuda, shape, DType::F32)).transpose()?;
        let args = loss::ForwardArgs {
            logits: inputs[0].input()?,
            labels: inputs[1].input()?,
            losses: losses.output()?,
            probabilities: probabilities.as_mut().map(Tensor::output).transpose()?,
        };
        cuda.launch(|stream| op.forward(stream, args))?;
        let mut y = Tensor::stale(cuda, [1], DType::F32)?;
        let (from, to) = (losses.input()?, y.output()?);
        cuda.launch(|stream| op.mean(stream, from, to))?;
        Ok(Output { y, saved: probabilities.into_iter().collect(), moments: Vec::new() })
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        let Some(slot) = &mut dx[0] else { return Ok(()) };
        let op = self.launch(cuda, kept.shape(0))?;
        let (p, labels, seed) = (kept.saved[0].input()?, kept.input(1).input()?, dy.input()?);
        let (to, write) = slot.open();
        cuda.launch(|stream| op.backward(stream, p, labels, Some(seed), to, write))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, n: usize, classes: usize, smoothing: f32| {
        let inputs =
            vec![Input::scaled([n, classes], 3.0, 0.0), Input::Labels { len: n, classes: classes as i32 }];
        Case::new(name, SoftmaxCrossEntropy { smoothing }, inputs, move |x: &[Array]| {
            let mut loss = 0.0;
            for i in 0..n {
                let row: Vec<f64> = (0..classes).map(|c| x[0].at([i, c])).collect();
                let log_sum = row.iter().map(|v| v.exp()).sum::<f64>().ln();
                for (c, v) in row.iter().enumerate() {
                    let s = f64::from(smoothing);
                    let target = s / classes as f64 + if c as f64 == x[1].at([i]) { 1.0 - s } else { 0.0 };
                    loss -= target * (v - log_sum) / n as f64;
                }
            }
            Array { shape: [1].into(), data: vec![loss] }
        })
    };
    vec![case("plain", 6, 10, 0.0), case("smoothed", 5, 7, 0.1), case("one class", 2, 1, 0.1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_logits_do_not_overflow_and_a_bad_label_is_nan() {
        let cpu = Cpu::new(1).unwrap();
        let op = SoftmaxCrossEntropy { smoothing: 0.0 };
        let logits = Tensor::from_slice(&cpu, [1, 2], &[1e30f32, -1e30]).unwrap();
        let loss = |label: i32| {
            let labels = Tensor::from_slice(&cpu, [1], &[label]).unwrap();
            op.forward(&cpu, &[&logits, &labels], false).unwrap().y.f32().unwrap()[0]
        };
        assert_eq!(loss(0), 0.0);
        assert!(loss(1) > 1e30);
        assert!(loss(2).is_nan() && loss(-1).is_nan());
    }
}
