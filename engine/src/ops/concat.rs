//! Joining tensors along the channels.

use kernels::Write;
use kernels::boxes::Box4;

use super::channels::{pixels, with_channels};
use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Joins channels: inputs `[.., c_i]` that agree in all other axes, one to 32 of them; output
/// `[.., sum of c_i]` in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat;

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let total = inputs.iter().map(|s| s.channels()).sum();
        match inputs {
            [first, rest @ ..]
                if rest.len() < 32
                    && rest.iter().all(|&s| with_channels(s, total) == with_channels(*first, total))
                    && inputs.iter().all(|s| !s.is_empty()) =>
            {
                Ok(with_channels(*first, total))
            }
            _ => Err(shape_error(
                self.name(),
                inputs,
                "expected 1 to 32 inputs, none empty, that differ in channels alone",
            )),
        }
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let shapes: Vec<Shape> = inputs.iter().map(|t| t.shape()).collect();
        let parts: Vec<&[f32]> = inputs.iter().map(|t| t.f32()).collect::<Result<_>>()?;
        let shape = self.shape(&shapes)?;
        let total = shape.channels();
        let mut y = Tensor::stale(cpu, shape, DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, pixels(total) * total, |i, y| {
            let mut from = 0;
            for (part, shape) in parts.iter().zip(&shapes) {
                let c = shape.channels();
                let part = part[i * pixels(total) * c..].chunks_exact(c);
                for (y, x) in y.chunks_exact_mut(total).zip(part) {
                    y[from..from + c].copy_from_slice(x);
                }
                from += c;
            }
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let (total, dy) = (dy.shape().channels(), dy.f32()?);
        let mut from = 0;
        for (i, dx) in dx.iter_mut().enumerate() {
            let c = kept.shape(i).channels();
            if let Some(dx) = dx {
                cpu.pool().parallel_chunks(dx, pixels(c) * c, |chunk, dx| {
                    let dy = dy[chunk * pixels(c) * total..].chunks_exact(total);
                    for (dx, dy) in dx.chunks_exact_mut(c).zip(dy) {
                        dx.iter_mut().zip(&dy[from..]).for_each(|(dx, dy)| *dx += dy);
                    }
                });
            }
            from += c;
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let shapes: Vec<Shape> = inputs.iter().map(|t| t.shape()).collect();
        let mut y = Tensor::stale(cuda, self.shape(&shapes)?, DType::F32)?;
        for (x, b) in inputs.iter().zip(boxes(&shapes)) {
            cuda.carry(b, x.input()?, y.output()?, Write::Store)?;
        }
        Ok(y.into())
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        let shapes: Vec<Shape> = (0..dx.len()).map(|i| kept.shape(i)).collect();
        for (slot, b) in dx.iter_mut().zip(boxes(&shapes)) {
            if let Some(slot) = slot {
                let (to, write) = slot.open();
                cuda.carry(b.reversed(), dy.input()?, to, write)?;
            }
        }
        Ok(())
    }
}

/// Where each input goes.
fn boxes(inputs: &[Shape]) -> impl Iterator<Item = Box4> {
    let total = inputs.iter().map(|s| s.channels()).sum();
    inputs.iter().scan(0, move |from, s| {
        let c = s.channels();
        let b = Box4::channels(s.len() / c, c, [c, 0, 1], [total, *from, 1]);
        *from += c;
        Some(b)
    })
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, widths: &[usize], [a, b, c]: [usize; 3]| {
        let inputs = widths.iter().map(|&w| Input::normal([a, b, c, w])).collect();
        Case::new(name, Concat, inputs, |x: &[Array]| {
            let total: usize = x.iter().map(|x| x.shape.channels()).sum();
            let mut y = Array::zeros(with_channels(x[0].shape, total));
            let mut from = 0;
            for x in x {
                let c = x.shape.channels();
                for (at, v) in x.data.iter().enumerate() {
                    y.data[at / c * total + from + at % c] = *v;
                }
                from += c;
            }
            y
        })
    };
    vec![
        case("two", &[3, 5], [2, 3, 3]),
        case("four", &[1, 2, 7, 4], [1, 2, 5]),
        case("one", &[4], [2, 1, 1]),
        case("several chunks", &[70, 60], [2, 9, 9]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let error = Concat.shape(&[[2, 3, 3, 4].into(), [2, 3, 4, 4].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "concat", .. }));
        assert!(
            error.to_string().contains("[2, 3, 3, 4]") && error.to_string().contains("[2, 3, 4, 4]"),
            "{error}"
        );
        assert!(Concat.shape(&[]).is_err() && Concat.shape(&[[2, 3].into(), [2, 3, 1].into()]).is_err());
    }
}
