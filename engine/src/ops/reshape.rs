//! The same elements under another shape.

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity, shape_error};
use crate::tensor::{Shape, Tensor};

/// Input: any shape; output: `to`, with as many elements. Shares storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reshape {
    /// The new shape.
    pub to: Shape,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        reshaped(self.name(), inputs, self.to)
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, _cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        Ok(inputs[0].reshape(self.to)?.into())
    }

    fn forward_cuda(&self, _cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        Ok(inputs[0].reshape(self.to)?.into())
    }

    fn backward(
        &self,
        cpu: &Cpu,
        _kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<&mut [f32]>],
    ) -> Result<()> {
        pass_through(cpu, dy, dx)
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        _kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        dx[0].iter_mut().try_for_each(|slot| cuda.give(dy, slot))
    }
}

/// Input `[n, ..]`; output `[n, rest]`. Shares storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flatten;

impl Flatten {
    fn to(x: Shape) -> Shape {
        let n = x.dims()[0];
        [n, x.len() / n.max(1)].into()
    }
}

impl Op for Flatten {
    fn name(&self) -> &'static str {
        "flatten"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let [x] = arity(self.name(), inputs)?;
        reshaped(self.name(), inputs, Self::to(x))
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, _cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        Ok(inputs[0].reshape(Self::to(inputs[0].shape()))?.into())
    }

    fn forward_cuda(&self, _cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        Ok(inputs[0].reshape(Self::to(inputs[0].shape()))?.into())
    }

    fn backward(
        &self,
        cpu: &Cpu,
        _kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<&mut [f32]>],
    ) -> Result<()> {
        pass_through(cpu, dy, dx)
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        _kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        dx[0].iter_mut().try_for_each(|slot| cuda.give(dy, slot))
    }
}

fn reshaped(op: &'static str, inputs: &[Shape], to: Shape) -> Result<Shape> {
    let [x] = arity(op, inputs)?;
    if x.len() == to.len() && !x.is_empty() {
        Ok(to)
    } else {
        Err(shape_error(op, inputs, format!("{to} must have as many elements as the input, not zero")))
    }
}

fn pass_through(cpu: &Cpu, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
    const CHUNK: usize = 1 << 14;
    let dy = dy.f32()?;
    if let Some(dx) = &mut dx[0] {
        cpu.pool().parallel_chunks(dx, CHUNK, |i, dx| {
            dx.iter_mut().zip(&dy[i * CHUNK..]).for_each(|(dx, dy)| *dx += dy);
        });
    }
    Ok(())
}

pub(super) fn cases() -> Vec<Case> {
    let to = |to: Shape| move |x: &[Array]| Array { shape: to, data: x[0].data.clone() };
    let (square, flat): (Shape, Shape) = ([3, 2, 2, 5].into(), [3, 20].into());
    vec![
        Case::new("to a plane", Reshape { to: square }, vec![Input::normal(flat)], to(square)),
        Case::new("plane", Flatten, vec![Input::normal(square)], to(flat)),
        Case::new("vector", Flatten, vec![Input::normal([4])], to([4, 1].into())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let error = Reshape { to: [7].into() }.shape(&[[2, 3].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "reshape", .. }));
        assert!(error.to_string().contains("[2, 3]") && error.to_string().contains("[7]"), "{error}");
        assert!(Flatten.shape(&[[0, 3].into()]).is_err());
    }
}
