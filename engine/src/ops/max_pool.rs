//! The maximum over windows.

use kernels::windows::Kind;

use super::pool::{PoolWindow, windowed};
use crate::check::Case;
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output};
use crate::tensor::{DType, Shape, Tensor};

/// The maximum over windows: `x [n, h, w, c]` to `[n, oh, ow, c]` as [`AvgPool`](super::AvgPool). Of equal values
/// the first in row order gets the gradient; a NaN wins, as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool(pub PoolWindow);

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        self.0.shape(self.name(), inputs)
    }

    fn keep(&self) -> Keep {
        Keep { inputs: 1, output: true }
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let [_, h, w, c] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let shape = self.shape(&[inputs[0].shape()])?;
        let [_, oh, ow, _] = shape.nhwc().expect("four axes");
        let x = inputs[0].f32()?;
        let mut y = Tensor::stale(cpu, shape, DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, oh * ow * c, |n, y| {
            let x = &x[n * h * w * c..][..h * w * c];
            y.fill(f32::NEG_INFINITY);
            self.0.each([h, w], [oh, ow], |to, from, _| {
                let to = &mut y[to * c..(to + 1) * c];
                for (y, &x) in to.iter_mut().zip(&x[from * c..]) {
                    if x > *y || x.is_nan() {
                        *y = x;
                    }
                }
            });
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let [_, h, w, c] = kept.shape(0).nhwc().expect("shape() checked four axes");
        let [_, oh, ow, _] = dy.shape().nhwc().expect("four axes");
        let (x, y, dy) = (kept.x(0)?, kept.y()?, dy.f32()?);
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, h * w * c, |n, dx| {
                let x = &x[n * h * w * c..][..h * w * c];
                let (mut last, mut taken) = (usize::MAX, vec![false; c]);
                self.0.each([h, w], [oh, ow], |from, to, _| {
                    if from != last {
                        last = from;
                        taken.fill(false);
                    }
                    let at = (n * oh * ow + from) * c;
                    for (j, taken) in taken.iter_mut().enumerate() {
                        let (x, y) = (x[to * c + j], y[at + j]);
                        if !*taken && (x == y || x.is_nan()) {
                            *taken = true;
                            dx[to * c + j] += dy[at + j];
                        }
                    }
                });
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        self.0.forward_cuda(cuda, Kind::Maximum, inputs[0])
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        self.0.backward_cuda(
            cuda,
            Kind::Maximum,
            kept.shape(0),
            Some([kept.input(0).input()?, kept.output().input()?]),
            dy,
            &mut dx[0],
        )
    }
}

pub(super) fn cases() -> Vec<Case> {
    windowed(MaxPool, f64::NEG_INFINITY, |max, value, _| max.max(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_maxima_gets_the_gradient() {
        let cpu = Cpu::new(1).unwrap();
        let x = Tensor::from_slice(&cpu, [1, 2, 2, 1], &[1.0f32, 3.0, 3.0, 3.0]).unwrap();
        let op = MaxPool(PoolWindow { k: 2, stride: 2, padding: 0 });
        let rng = crate::Rng::new(0, "ties");
        let run =
            crate::check::run_op(&op, &cpu, &[x], &[true], &rng, crate::check::Slots::Filled(0.0)).unwrap();
        let dx = run.dx[0].as_ref().unwrap();
        assert!(dx[1] != 0.0 && dx[0] == 0.0 && dx[2] == 0.0 && dx[3] == 0.0, "{dx:?}");
    }
}
