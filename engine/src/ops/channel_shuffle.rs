//! Mixing the channels of groups.

use kernels::Write;
use kernels::boxes::Box4;

use super::channels::pixels;
use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Shuffles channels: `[.., c]` seen as `[.., groups, c / groups]` becomes
/// `[.., c / groups, groups]` (ShuffleNet, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelShuffle {
    /// Number of groups; divides the channels.
    pub groups: usize,
}

impl Op for ChannelShuffle {
    fn name(&self) -> &'static str {
        "channel_shuffle"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let [x] = arity(self.name(), inputs)?;
        if self.groups == 0 || x.is_empty() || x.channels() % self.groups != 0 {
            let reason = format!("{} groups must divide the channels", self.groups);
            return Err(shape_error(self.name(), inputs, reason));
        }
        Ok(x)
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let (x, c) = (inputs[0].f32()?, inputs[0].shape().channels());
        let each = c / self.groups;
        let mut y = Tensor::stale(cpu, inputs[0].shape(), DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, pixels(c) * c, |i, y| {
            let x = x[i * pixels(c) * c..].chunks_exact(c);
            for (y, x) in y.chunks_exact_mut(c).zip(x) {
                for (g, x) in x.chunks_exact(each).enumerate() {
                    y[g..].iter_mut().step_by(self.groups).zip(x).for_each(|(y, x)| *y = *x);
                }
            }
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let (c, dy) = (kept.shape(0).channels(), dy.f32()?);
        let each = c / self.groups;
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, pixels(c) * c, |i, dx| {
                let dy = dy[i * pixels(c) * c..].chunks_exact(c);
                for (dx, dy) in dx.chunks_exact_mut(c).zip(dy) {
                    for (g, dx) in dx.chunks_exact_mut(each).enumerate() {
                        let picked = dy[g..].iter().step_by(self.groups);
                        dx.iter_mut().zip(picked).for_each(|(dx, dy)| *dx += dy);
                    }
                }
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let (shape, c) = (inputs[0].shape(), inputs[0].shape().channels());
        let mut y = Tensor::stale(cuda, shape, DType::F32)?;
        let b = Box4::shuffle(shape.len() / c, c, self.groups);
        cuda.carry(b, inputs[0].input()?, y.output()?, Write::Store)?;
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
        let c = kept.shape(0).channels();
        let b = Box4::shuffle(kept.shape(0).len() / c, c, self.groups);
        let (to, write) = slot.open();
        cuda.carry(b.reversed(), dy.input()?, to, write)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, shape: Shape, groups| {
        Case::new(name, ChannelShuffle { groups }, vec![Input::normal(shape)], move |x: &[Array]| {
            let (mut y, c) = (x[0].clone(), x[0].shape.channels());
            for pixel in 0..x[0].data.len() / c {
                for g in 0..groups {
                    for j in 0..c / groups {
                        y.data[pixel * c + j * groups + g] = x[0].data[pixel * c + g * (c / groups) + j];
                    }
                }
            }
            y
        })
    };
    vec![
        case("two groups", [2, 3, 3, 8].into(), 2),
        case("three groups", [4, 9].into(), 3),
        case("one channel", [4, 1].into(), 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::ops::{ChannelSlice, Concat};

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let error = ChannelShuffle { groups: 3 }.shape(&[[2, 8].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "channel_shuffle", .. }));
        assert!(ChannelShuffle { groups: 0 }.shape(&[[2, 8].into()]).is_err());
    }

    /// The two halves of a parity split, joined and shuffled in two groups, are the input again.
    #[test]
    fn shuffling_undoes_the_parity_split() {
        let cpu = Cpu::new(1).unwrap();
        let data: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let x = Tensor::from_slice(&cpu, [2, 12], &data).unwrap();
        let half = |start| ChannelSlice { start, step: 2, count: 6 }.forward(&cpu, &[&x], false).unwrap().y;
        let joined = Concat.forward(&cpu, &[&half(0), &half(1)], false).unwrap().y;
        let back = ChannelShuffle { groups: 2 }.forward(&cpu, &[&joined], false).unwrap().y;
        assert_eq!(back.f32().unwrap(), data);
    }
}
