//! The sum of tensors of one shape, as of a residual connection.

use kernels::elementwise;

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Elements per task.
const CHUNK: usize = 1 << 14;

/// Inputs: one to 32 tensors of one shape. Output: their sum, added in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        match inputs {
            [first, rest @ ..] if rest.len() < 32 && rest.iter().all(|s| s == first) => Ok(*first),
            _ => Err(shape_error(self.name(), inputs, "expected 1 to 32 inputs of one shape")),
        }
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let terms: Vec<&[f32]> = inputs.iter().map(|t| t.f32()).collect::<Result<_>>()?;
        let mut y = Tensor::stale(cpu, inputs[0].shape(), DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, CHUNK, |i, y| {
            let range = i * CHUNK..i * CHUNK + y.len();
            match &terms[..] {
                // The residual connection, in one pass.
                [a, b] => {
                    for ((y, a), b) in y.iter_mut().zip(&a[range.clone()]).zip(&b[range]) {
                        *y = a + b;
                    }
                }
                _ => {
                    y.copy_from_slice(&terms[0][range.clone()]);
                    for term in &terms[1..] {
                        y.iter_mut().zip(&term[range.clone()]).for_each(|(y, x)| *y += x);
                    }
                }
            }
        });
        Ok(y.into())
    }

    fn backward(
        &self,
        cpu: &Cpu,
        _kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<&mut [f32]>],
    ) -> Result<()> {
        let dy = dy.f32()?;
        for dx in dx.iter_mut().flatten() {
            cpu.pool().parallel_chunks(dx, CHUNK, |i, dx| {
                dx.iter_mut().zip(&dy[i * CHUNK..]).for_each(|(dx, dy)| *dx += dy);
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let (shape, f32) = (inputs[0].shape(), kernels::DType::F32);
        let mut y = Tensor::stale(cuda, shape, DType::F32)?;
        let rest = match inputs {
            [a, b, rest @ ..] => {
                let op = cuda.prepare(shape.len(), |d| elementwise::Add::new(d, f32, shape.len()))?;
                let (a, b, to) = (a.input()?, b.input()?, y.output()?);
                cuda.launch(|stream| op.launch(stream, a, b, to))?;
                rest
            }
            one => {
                cuda.give(one[0], &mut y.slot(true)?)?;
                &[]
            }
        };
        let mut sum = y.slot(false)?;
        rest.iter().try_for_each(|term| cuda.give(term, &mut sum))?;
        Ok(y.into())
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        _kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        dx.iter_mut().flatten().try_for_each(|slot| cuda.give(dy, slot))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, count: usize, shape: Shape| {
        Case::new(name, Add, vec![Input::normal(shape); count], |x: &[Array]| {
            let mut y = Array::zeros(x[0].shape);
            for (at, y) in y.data.iter_mut().enumerate() {
                *y = x.iter().map(|x| x.data[at]).sum();
            }
            y
        })
    };
    vec![
        case("residual", 2, [2, 3, 4, 5].into()),
        case("five branches", 5, [7, 3].into()),
        case("one", 1, [1].into()),
        case("several chunks", 2, [5, 4000].into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let error = Add.shape(&[[2, 3].into(), [3, 2].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "add", .. }));
        assert!(error.to_string().contains("[2, 3]") && error.to_string().contains("[3, 2]"), "{error}");
        assert!(Add.shape(&[]).is_err());
    }
}
