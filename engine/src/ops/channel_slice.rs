//! Picking channels at even distances.

use kernels::Write;
use kernels::boxes::Box4;

use super::channels::{pixels, with_channels};
use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Picks channels: input `[.., c]`, output `[.., count]` of channels `start`, `start + step`, ...
///
/// SPOS splits by parity: start 0 and 1, step 2 (section 2 of the released code's blocks).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSlice {
    /// The first channel.
    pub start: usize,
    /// Distance between channels.
    pub step: usize,
    /// How many.
    pub count: usize,
}

impl ChannelSlice {
    fn picked(&self, x: Shape) -> Box4 {
        let c = x.channels();
        Box4::channels(x.len() / c, self.count, [c, self.start, self.step], [self.count, 0, 1])
    }
}

impl Op for ChannelSlice {
    fn name(&self) -> &'static str {
        "channel_slice"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let [x] = arity(self.name(), inputs)?;
        let last = (self.count.checked_sub(1))
            .and_then(|n| n.checked_mul(self.step)?.checked_add(self.start))
            .filter(|&last| self.step > 0 && last < x.channels() && !x.is_empty());
        match last {
            Some(_) => Ok(with_channels(x, self.count)),
            None => {
                Err(shape_error(self.name(), inputs, format!("{self:?} must name channels of the input")))
            }
        }
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let (x, c, count) = (inputs[0].f32()?, inputs[0].shape().channels(), self.count);
        let mut y = Tensor::stale(cpu, with_channels(inputs[0].shape(), count), DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, pixels(count) * count, |i, y| {
            let x = x[i * pixels(count) * c..].chunks_exact(c);
            for (y, x) in y.chunks_exact_mut(count).zip(x) {
                y.iter_mut().zip(x[self.start..].iter().step_by(self.step)).for_each(|(y, x)| *y = *x);
            }
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let (c, dy) = (kept.shape(0).channels(), dy.f32()?);
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, pixels(c) * c, |i, dx| {
                let dy = dy[i * pixels(c) * self.count..].chunks_exact(self.count);
                for (dx, dy) in dx.chunks_exact_mut(c).zip(dy) {
                    let picked = dx[self.start..].iter_mut().step_by(self.step);
                    picked.zip(dy).for_each(|(dx, dy)| *dx += dy);
                }
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let shape = inputs[0].shape();
        let mut y = Tensor::stale(cuda, with_channels(shape, self.count), DType::F32)?;
        cuda.carry(self.picked(shape), inputs[0].input()?, y.output()?, Write::Store)?;
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
        // The channels between get nothing.
        let to = cuda.added(slot)?;
        cuda.carry(self.picked(kept.shape(0)).reversed(), dy.input()?, to, Write::Add)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, shape: Shape, start, step, count| {
        let op = ChannelSlice { start, step, count };
        Case::new(name, op, vec![Input::normal(shape)], move |x: &[Array]| {
            let c = x[0].shape.channels();
            let mut y = Array::zeros(with_channels(x[0].shape, count));
            for (at, y) in y.data.iter_mut().enumerate() {
                *y = x[0].data[at / count * c + start + at % count * step];
            }
            y
        })
    };
    vec![
        case("even half", [2, 3, 3, 8].into(), 0, 2, 4),
        case("odd half", [2, 3, 3, 8].into(), 1, 2, 4),
        case("a run", [5, 9].into(), 2, 1, 5),
        case("the last one", [5, 9].into(), 8, 3, 1),
        case("several chunks", [2, 9, 9, 130].into(), 1, 2, 64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let past = ChannelSlice { start: 1, step: 2, count: 4 };
        let error = past.shape(&[[2, 7].into()]).unwrap_err();
        assert!(
            matches!(error, Error::Shape { op: "channel_slice", .. }) && error.to_string().contains("[2, 7]")
        );
        assert!(past.shape(&[[2, 8].into()]).is_ok());
        for bad in [
            ChannelSlice { count: 0, ..past },
            ChannelSlice { step: 0, ..past },
            ChannelSlice { count: usize::MAX, ..past },
        ] {
            assert!(bad.shape(&[[2, 8].into()]).is_err(), "{bad:?}");
        }
    }
}
