//! The linear layer: `y[n, o] = sum_i x[n, i] w[o, i] (+ b[o])`.

use super::dense;
use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, exactly, shape_error};
use crate::tensor::{Shape, Tensor};

/// Inputs: `x [n, i]`, `w [o, i]`, and `b [o]` if `bias`. Output `[n, o]`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Whether there is a bias.
    pub bias: bool,
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let wanted = if self.bias { 3 } else { 2 };
        if inputs.len() != wanted {
            return Err(shape_error(self.name(), inputs, format!("expected {wanted} inputs")));
        }
        let (&[n, i], &[o, wi]) = (inputs[0].dims(), inputs[1].dims()) else {
            return Err(shape_error(self.name(), inputs, "x must be [n, i] and w [o, i]"));
        };
        if i != wi || n * i * o == 0 {
            return Err(shape_error(
                self.name(),
                inputs,
                "x must be [n, i] and w [o, i] with one i, none zero",
            ));
        }
        if self.bias {
            exactly(self.name(), inputs, 2, "[o]", &[o])?;
        }
        Ok([n, o].into())
    }

    fn keep(&self) -> Keep {
        Keep::inputs(&[0, 1])
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        inputs[0].len() as u64 * inputs[1].dims()[0] as u64
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let to = [inputs[0].shape().dims()[0], inputs[1].shape().dims()[0]].into();
        Ok(dense::forward(cpu, inputs[0], inputs[1], inputs.get(2).copied(), to)?.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        dense::backward(cpu, kept, dy, dx)
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let to = self.shape(&inputs.iter().map(|t| t.shape()).collect::<Vec<_>>())?;
        Ok(dense::forward_cuda(cuda, inputs[0], inputs[1], inputs.get(2).copied(), to)?.into())
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        dense::backward_cuda(cuda, kept, dy, dx)
    }
}

fn reference(x: &[Array]) -> Array {
    let (n, i, o) = (x[0].shape.dims()[0], x[0].shape.dims()[1], x[1].shape.dims()[0]);
    let mut y = Array::zeros([n, o]);
    for a in 0..n {
        for b in 0..o {
            let sum: f64 = (0..i).map(|c| x[0].at([a, c]) * x[1].at([b, c])).sum();
            *y.at_mut([a, b]) = sum + x.get(2).map_or(0.0, |bias| bias.at([b]));
        }
    }
    y
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, n, i, o, bias| {
        let mut inputs = vec![Input::normal([n, i]), Input::normal([o, i])];
        if bias {
            inputs.push(Input::normal([o]));
        }
        Case::new(name, Linear { bias }, inputs, reference)
    };
    vec![
        case("bias", 5, 19, 7, true),
        case("no bias", 3, 40, 10, false),
        case("several column blocks", 50, 70, 130, true),
        case("many rows", 70, 33, 21, true),
        case("one of everything", 1, 1, 1, true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let error = Linear { bias: false }.shape(&[[2, 3].into(), [4, 5].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "linear", .. }));
        assert!(error.to_string().contains("[2, 3]") && error.to_string().contains("[4, 5]"), "{error}");
    }
}
