//! The mean over the plane.

use std::sync::Arc;

use kernels::channels;

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cpu::simd::{self, Loop, Simd};
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity, nhwc};
use crate::tensor::{DType, Shape, Tensor};

/// The mean over the plane: `x [n, h, w, c]` to `[n, c]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalAvgPool;

impl Op for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        arity::<1>(self.name(), inputs)?;
        let [n, _, _, c] = nhwc(self.name(), inputs, 0)?;
        Ok([n, c].into())
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let [n, h, w, c] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let x = inputs[0].f32()?;
        let mut y = Tensor::stale(cpu, [n, c], DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, c, |n, y| {
            plane_means(&x[n * h * w * c..(n + 1) * h * w * c], w, y);
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let [_, h, w, c] = kept.shape(0).nhwc().expect("shape() checked four axes");
        let (dy, even) = (dy.f32()?, 1.0 / (h * w) as f32);
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, w * c, |row, dx| {
                let dy = &dy[row / h * c..][..c];
                for pixel in dx.chunks_exact_mut(c) {
                    pixel.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += even * dy);
                }
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let op = launch(cuda, inputs[0].shape())?;
        let [n, _, _, c] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let mut y = Tensor::stale(cuda, [n, c], DType::F32)?;
        let (from, to) = (inputs[0].input()?, y.output()?);
        cuda.launch(|stream| op.forward(stream, from, to))?;
        Ok(y.into())
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        let Some(slot) = &mut dx[0] else { return Ok(()) };
        let op = launch(cuda, kept.shape(0))?;
        let (dy, (to, write)) = (dy.input()?, slot.open());
        cuda.launch(|stream| op.backward(stream, dy, to, write))
    }
}

fn launch(cuda: &Cuda, x: Shape) -> Result<Arc<channels::GlobalAvgPool>> {
    let [n, h, w, c] = x.nhwc().expect("shape() checked four axes");
    let f32 = kernels::DType::F32;
    cuda.prepare([n, h * w, c], |d| channels::GlobalAvgPool::new(d, f32, n, h * w, c))
}

/// The means over a plane `x [h, w, c]`.
pub(super) fn plane_means(x: &[f32], w: usize, mean: &mut [f32]) {
    let even = mean.len() as f32 / x.len() as f32;
    plane_sums(x, None, w, mean);
    mean.iter_mut().for_each(|mean| *mean *= even);
}

/// Per channel the sum of `a`, or of `a * b`, over a plane `[h, w, c]`; row by row, since long f32
/// sums lose digits.
pub(super) fn plane_sums(a: &[f32], b: Option<&[f32]>, w: usize, to: &mut [f32]) {
    simd::run(PlaneSums { a, b, w, to });
}

struct PlaneSums<'a, 'to> {
    a: &'a [f32],
    b: Option<&'a [f32]>,
    w: usize,
    to: &'to mut [f32],
}

impl Loop for PlaneSums<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut from = 0;
        while from < self.to.len() {
            from += match self.to.len() - from {
                32.. => self.block::<32, S>(s, from),
                8.. => self.block::<8, S>(s, from),
                _ => self.block::<1, S>(s, from),
            };
        }
    }
}

impl PlaneSums<'_, '_> {
    /// Channels `from..from + L`.
    #[inline(always)]
    fn block<const L: usize, S: Simd>(&mut self, s: S, from: usize) -> usize {
        let c = self.to.len();
        let lanes = |pixel: &[f32]| -> [f32; L] { pixel[from..from + L].try_into().expect("L elements") };
        let mut total = [0f32; L];
        for (at, row) in self.a.chunks_exact(self.w * c).enumerate() {
            let mut sums = [0f32; L];
            match self.b {
                None => row.chunks_exact(c).for_each(|pixel| {
                    let pixel = lanes(pixel);
                    (0..L).for_each(|lane| sums[lane] += pixel[lane]);
                }),
                Some(b) => {
                    let other = b[at * self.w * c..][..self.w * c].chunks_exact(c);
                    for (a, b) in row.chunks_exact(c).zip(other) {
                        let (a, b) = (lanes(a), lanes(b));
                        (0..L).for_each(|lane| sums[lane] = s.fma1(a[lane], b[lane], sums[lane]));
                    }
                }
            }
            (0..L).for_each(|lane| total[lane] += sums[lane]);
        }
        self.to[from..from + L].copy_from_slice(&total);
        L
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, x: [usize; 4]| {
        Case::new(name, GlobalAvgPool, vec![Input::normal(x)], move |x: &[Array]| {
            let [n, h, w, c] = x[0].shape.nhwc().expect("four axes");
            let mut y = Array::zeros([n, c]);
            for (at, v) in x[0].data.iter().enumerate() {
                *y.at_mut([at / (h * w * c), at % c]) += v / (h * w) as f64;
            }
            y
        })
    };
    vec![case("odd plane", [3, 5, 7, 9]), case("one pixel", [2, 1, 1, 3]), case("wide", [1, 4, 4, 130])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let error = GlobalAvgPool.shape(&[[2, 3].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "global_avg_pool", .. }));
        assert!(error.to_string().contains("[2, 3]"), "{error}");
    }
}
