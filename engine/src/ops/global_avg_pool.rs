//! The mean over the plane.

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
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
}

/// The means over a plane `x [h, w, c]`, summed row by row: long f32 sums lose digits.
pub(super) fn plane_means(x: &[f32], w: usize, mean: &mut [f32]) {
    let c = mean.len();
    let even = c as f32 / x.len() as f32;
    mean.fill(0.0);
    const LANES: usize = 64;
    for row in x.chunks_exact(w * c) {
        for from in (0..c).step_by(LANES) {
            let width = LANES.min(c - from);
            let mut sums = [0f32; LANES];
            for pixel in row.chunks_exact(c) {
                sums[..width].iter_mut().zip(&pixel[from..from + width]).for_each(|(sum, x)| *sum += x);
            }
            mean[from..from + width].iter_mut().zip(&sums).for_each(|(mean, sum)| *mean += sum);
        }
    }
    mean.iter_mut().for_each(|mean| *mean *= even);
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
