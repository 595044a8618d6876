//! Dropout: each element is zeroed with probability `rate`, the others are divided by `1 - rate`.
//!
//! Which ones is a pure function of the fields and of the element's place in the *step*: counter
//! (epoch, step, image * features + feature). So micro-batches, threads and ranks agree, and
//! backward draws the same numbers again instead of keeping a mask.

use kernels::dropout::Position;

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::error::{Error, Result};
use crate::op::{Keep, Kept, Op, Output, arity, shape_error};
use crate::rng::Rng;
use crate::tensor::{DType, Shape, Tensor};

/// Elements per task, a multiple of 4: one call of the generator gives four numbers.
const CHUNK: usize = 1 << 12;

/// Input `x [n, ..]`; output: the same shape. For training; evaluation leaves it out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of a zero, `0 <= rate < 1`.
    pub rate: f32,
    /// The stream of this layer.
    pub rng: Rng,
    /// Epoch, for the counter.
    pub epoch: u32,
    /// Step, for the counter.
    pub step: u32,
    /// The step's index of the first image of `x`.
    pub first_image: u32,
}

impl Dropout {
    /// Calls `write(element of the slice, factor)` for all elements `from..from + len` of `x`.
    fn factors(&self, features: usize, from: usize, len: usize, mut write: impl FnMut(usize, f32)) {
        let kept = 1.0 / (1.0 - self.rate);
        let first = u64::from(self.first_image) * features as u64 + from as u64;
        let mut uniforms = [0.0; 4];
        for at in 0..len {
            let element = first + at as u64;
            if at == 0 || element.is_multiple_of(4) {
                let four = element / 4;
                uniforms = self.rng.uniforms([self.epoch, self.step, four as u32, (four >> 32) as u32]);
            }
            write(at, if uniforms[(element % 4) as usize] < self.rate { 0.0 } else { kept });
        }
    }
}

impl Dropout {
    /// `x` or its gradient, with the elements of this place in the step zeroed.
    fn launch(&self, cuda: &Cuda, x: &Tensor, slot: &mut Slot<'_>) -> Result<()> {
        let (shape, rate, f32) = (x.shape(), self.rate, kernels::DType::F32);
        let op = cuda.prepare((shape.len(), rate.to_bits()), |d| {
            kernels::dropout::Dropout::new(d, f32, shape.len(), rate)
        })?;
        let features = shape.len() / shape.dims()[0];
        let at = Position {
            key: self.rng.key(),
            epoch: self.epoch,
            step: self.step,
            first: u64::from(self.first_image) * features as u64,
        };
        let (from, (to, write)) = (x.input()?, slot.open());
        cuda.launch(|stream| op.launch(stream, at, from, to, write))
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let [x] = arity(self.name(), inputs)?;
        if !(0.0..1.0).contains(&self.rate) {
            let value = self.rate.to_string();
            return Err(Error::Setting { name: "dropout", value, range: "0 to 1, without 1" });
        }
        if x.is_empty() {
            return Err(shape_error(self.name(), inputs, "no axis may be zero"));
        }
        Ok(x)
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let (x, shape) = (inputs[0].f32()?, inputs[0].shape());
        let features = shape.len() / shape.dims()[0];
        let mut y = Tensor::stale(cpu, shape, DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, CHUNK, |i, y| {
            let from = i * CHUNK;
            self.factors(features, from, y.len(), |at, factor| y[at] = factor * x[from + at]);
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let (dy, shape) = (dy.f32()?, kept.shape(0));
        let features = shape.len() / shape.dims()[0];
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, CHUNK, |i, dx| {
                let from = i * CHUNK;
                self.factors(features, from, dx.len(), |at, factor| dx[at] += factor * dy[from + at]);
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let mut y = Tensor::stale(cuda, inputs[0].shape(), DType::F32)?;
        self.launch(cuda, inputs[0], &mut y.slot(true)?)?;
        Ok(y.into())
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        _kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        dx[0].iter_mut().try_for_each(|slot| self.launch(cuda, dy, slot))
    }
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, shape: Shape, rate, first_image| {
        let op = Dropout { rate, rng: Rng::new(5, "dropout"), epoch: 2, step: 9, first_image };
        Case::new(name, op, vec![Input::normal(shape)], move |x: &[Array]| {
            let features = (x[0].data.len() / x[0].shape.dims()[0]) as u64;
            let mut y = x[0].clone();
            for (at, y) in y.data.iter_mut().enumerate() {
                let element = u64::from(first_image) * features + at as u64;
                let draw = op.rng.uniforms([2, 9, (element / 4) as u32, ((element / 4) >> 32) as u32])
                    [(element % 4) as usize];
                *y *= if draw < rate { 0.0 } else { 1.0 / (1.0 - f64::from(rate)) };
            }
            y
        })
    };
    vec![
        case("half", [5, 7].into(), 0.5, 0),
        case("later images", [3, 11].into(), 0.1, 1_000),
        case("counter beyond 32 bits", [2, 3001].into(), 0.3, u32::MAX - 5),
        case("rate 0", [4, 4].into(), 0.0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op() -> Dropout {
        Dropout { rate: 0.3, rng: Rng::new(0, "dropout"), epoch: 1, step: 4, first_image: 0 }
    }

    fn mask(op: Dropout, n: usize, features: usize) -> Vec<f32> {
        let cpu = Cpu::new(1).unwrap();
        let x = Tensor::from_slice(&cpu, [n, features], &vec![1.0f32; n * features]).unwrap();
        op.forward(&cpu, &[&x], false).unwrap().y.f32().unwrap().to_vec()
    }

    #[test]
    fn micro_batches_drop_what_the_whole_batch_drops() {
        let whole = mask(op(), 6, 13);
        let parts = [mask(op(), 2, 13), mask(Dropout { first_image: 2, ..op() }, 4, 13)].concat();
        assert_eq!(whole, parts);
    }

    #[test]
    fn the_rate_is_kept_within_five_sigma_and_the_mean_with_it() {
        let mask = mask(op(), 100, 1000);
        let zeros = mask.iter().filter(|&&v| v == 0.0).count() as f64;
        assert!((zeros - 3e4).abs() < 5.0 * (1e5 * 0.3 * 0.7f64).sqrt(), "{zeros}");
        assert!(mask.iter().all(|&v| v == 0.0 || v == 1.0 / 0.7));
    }

    #[test]
    fn epochs_steps_and_images_drop_other_elements() {
        let first = mask(op(), 4, 64);
        for other in [
            Dropout { epoch: 2, ..op() },
            Dropout { step: 5, ..op() },
            Dropout { first_image: 1, ..op() },
            Dropout { rng: Rng::new(1, "other"), ..op() },
        ] {
            assert_ne!(mask(other, 4, 64), first);
        }
    }

    #[test]
    fn a_rate_outside_is_refused() {
        for rate in [-0.1, 1.0, f32::NAN] {
            let error = Dropout { rate, ..op() }.shape(&[[2, 3].into()]).unwrap_err();
            assert!(matches!(error, Error::Setting { name: "dropout", .. }), "{error}");
        }
        let error = op().shape(&[[0, 3].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "dropout", .. }) && error.to_string().contains("[0, 3]"));
    }
}
