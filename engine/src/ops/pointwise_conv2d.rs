//! The 1x1 convolution: `y[n, h, w, o] = sum_i x[n, h, w, i] w[o, i] (+ b[o])`.

use super::dense;
use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, exactly, nhwc, shape_error};
use crate::tensor::{Shape, Tensor};

/// Inputs: `x [n, h, w, i]`, `w [o, i]`, and `b [o]` if `bias`. Output `[n, h, w, o]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointwiseConv2d {
    /// Whether there is a bias.
    pub bias: bool,
}

impl Op for PointwiseConv2d {
    fn name(&self) -> &'static str {
        "pointwise_conv2d"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let wanted = if self.bias { 3 } else { 2 };
        if inputs.len() != wanted {
            return Err(shape_error(self.name(), inputs, format!("expected {wanted} inputs")));
        }
        let [n, h, w, i] = nhwc(self.name(), inputs, 0)?;
        let o = match *inputs[1].dims() {
            [o, wi] if wi == i && o > 0 => o,
            _ => return Err(shape_error(self.name(), inputs, format!("w must be [o, {i}] with o > 0"))),
        };
        if self.bias {
            exactly(self.name(), inputs, 2, "[o]", &[o])?;
        }
        Ok([n, h, w, o].into())
    }

    fn keep(&self) -> Keep {
        Keep::inputs(&[0, 1])
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        inputs[0].len() as u64 * inputs[1].dims()[0] as u64
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let [n, h, w, _] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let to = [n, h, w, inputs[1].shape().dims()[0]].into();
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
    let [n, h, w, i] = x[0].shape.nhwc().expect("four axes");
    let o = x[1].shape.dims()[0];
    let mut y = Array::zeros([n, h, w, o]);
    for (at, y) in y.data.iter_mut().enumerate() {
        let (pixel, o) = (at / o, at % o);
        let sum: f64 = (0..i).map(|i_| x[0].data[pixel * i + i_] * x[1].at([o, i_])).sum();
        *y = sum + x.get(2).map_or(0.0, |bias| bias.at([o]));
    }
    y
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, x: [usize; 4], o, bias| {
        let mut inputs = vec![Input::normal(x), Input::normal([o, x[3]])];
        if bias {
            inputs.push(Input::normal([o]));
        }
        Case::new(name, PointwiseConv2d { bias }, inputs, reference)
    };
    vec![
        case("no multiple of a tile", [2, 5, 7, 19], 37, false),
        case("bias", [1, 3, 3, 8], 16, true),
        case("one pixel, one channel", [1, 1, 1, 1], 1, false),
        // Several parts of the filter gradient's sum, and several row panels.
        case("many pixels", [2, 33, 32, 5], 6, true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let error = PointwiseConv2d { bias: false }.shape(&[[2, 3, 3, 4].into(), [4, 5].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "pointwise_conv2d", .. }));
        assert!(
            error.to_string().contains("[2, 3, 3, 4]") && error.to_string().contains("[4, 5]"),
            "{error}"
        );
        assert!(PointwiseConv2d { bias: true }.shape(&[[2, 3, 3, 4].into(), [5, 4].into()]).is_err());
    }
}
