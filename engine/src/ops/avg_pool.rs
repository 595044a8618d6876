//! The mean over windows.

use kernels::windows::Kind;

use super::pool::{PoolWindow, windowed};
use crate::check::Case;
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output};
use crate::tensor::{DType, Shape, Tensor};

/// The mean over windows: `x [n, h, w, c]` to `[n, oh, ow, c]` with
/// `oh = (h + 2 padding - k) / stride + 1`. Padding is not counted (PyTorch's
/// `count_include_pad=False`, as in DARTS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPool(pub PoolWindow);

impl Op for AvgPool {
    fn name(&self) -> &'static str {
        "avg_pool"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        self.0.shape(self.name(), inputs)
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let [_, h, w, c] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let shape = self.shape(&[inputs[0].shape()])?;
        let [_, oh, ow, _] = shape.nhwc().expect("four axes");
        let x = inputs[0].f32()?;
        let mut y = Tensor::stale(cpu, shape, DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, oh * ow * c, |n, y| {
            let x = &x[n * h * w * c..][..h * w * c];
            y.fill(0.0);
            self.0.each([h, w], [oh, ow], |to, from, size| {
                let even = 1.0 / size as f32;
                let to = &mut y[to * c..(to + 1) * c];
                to.iter_mut().zip(&x[from * c..]).for_each(|(y, x)| *y += even * x);
            });
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let [_, h, w, c] = kept.shape(0).nhwc().expect("shape() checked four axes");
        let [_, oh, ow, _] = dy.shape().nhwc().expect("four axes");
        let dy = dy.f32()?;
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, h * w * c, |n, dx| {
                let dy = &dy[n * oh * ow * c..][..oh * ow * c];
                self.0.each([h, w], [oh, ow], |from, to, size| {
                    let even = 1.0 / size as f32;
                    let to = &mut dx[to * c..(to + 1) * c];
                    to.iter_mut().zip(&dy[from * c..]).for_each(|(dx, dy)| *dx += even * dy);
                });
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        self.0.forward_cuda(cuda, Kind::Average, inputs[0])
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        self.0.backward_cuda(cuda, Kind::Average, kept.shape(0), None, dy, &mut dx[0])
    }
}

pub(super) fn cases() -> Vec<Case> {
    windowed(AvgPool, 0.0, |sum, value, size| sum + value / size)
}
