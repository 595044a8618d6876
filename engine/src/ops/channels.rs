//! Moving channels: join, pick and shuffle. All of them copy; none computes.

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Elements per task, rounded to whole pixels.
const CHUNK: usize = 1 << 14;

/// Pixels per task where a pixel has `c` channels.
fn pixels(c: usize) -> usize {
    (CHUNK / c).max(1)
}

/// `shape` with another number of channels.
fn with_channels(shape: Shape, c: usize) -> Shape {
    let mut dims = [0; 4];
    let rank = shape.rank();
    dims[..rank].copy_from_slice(shape.dims());
    dims[rank - 1] = c;
    Shape::new(&dims[..rank]).expect("the rank was valid")
}

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
}

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
}

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
                for (at, y) in y.iter_mut().enumerate() {
                    *y = x[at % self.groups * each + at / self.groups];
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
                    for (at, dy) in dy.iter().enumerate() {
                        dx[at % self.groups * each + at / self.groups] += dy;
                    }
                }
            });
        }
        Ok(())
    }
}

pub(super) fn cases() -> Vec<Case> {
    let concat = |name, widths: &[usize], [a, b, c]: [usize; 3]| {
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
    let slice = |name, shape: Shape, start, step, count| {
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
    let shuffle = |name, shape: Shape, groups| {
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
        concat("two", &[3, 5], [2, 3, 3]),
        concat("four", &[1, 2, 7, 4], [1, 2, 5]),
        concat("one", &[4], [2, 1, 1]),
        concat("several chunks", &[70, 60], [2, 9, 9]),
        slice("even half", [2, 3, 3, 8].into(), 0, 2, 4),
        slice("odd half", [2, 3, 3, 8].into(), 1, 2, 4),
        slice("a run", [5, 9].into(), 2, 1, 5),
        slice("the last one", [5, 9].into(), 8, 3, 1),
        slice("several chunks", [2, 9, 9, 130].into(), 1, 2, 64),
        shuffle("two groups", [2, 3, 3, 8].into(), 2),
        shuffle("three groups", [4, 9].into(), 3),
        shuffle("one channel", [4, 1].into(), 1),
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
