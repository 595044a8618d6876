//! Element-wise activations.

use std::sync::Arc;

use kernels::elementwise;

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cpu::simd::{self, Loop, Simd};
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity};
use crate::tensor::{DType, Shape, Tensor};

/// Elements per task.
const CHUNK: usize = 1 << 14;

/// The functions themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// The identity.
    None,
    /// `max(u, 0)`.
    Relu,
    /// `min(max(u, 0), 6)`.
    Relu6,
    /// `u * relu6(u + 3) / 6` (MobileNetV3).
    HSwish,
    /// `u * sigmoid(u)`.
    Swish,
    /// `1 / (1 + exp(-u))`.
    Sigmoid,
    /// `relu6(u + 3) / 6`.
    HardSigmoid,
}

impl Act {
    /// Every activation.
    pub const ALL: [Act; 7] =
        [Act::None, Act::Relu, Act::Relu6, Act::HSwish, Act::Swish, Act::Sigmoid, Act::HardSigmoid];

    /// As kernels know it that do more than activate; the gates are not among them.
    pub(crate) fn fused(self) -> Option<kernels::Act> {
        match self {
            Act::None => Some(kernels::Act::None),
            Act::Relu => Some(kernels::Act::Relu),
            Act::Relu6 => Some(kernels::Act::Relu6),
            Act::HSwish => Some(kernels::Act::HSwish),
            Act::Swish => Some(kernels::Act::Swish),
            Act::Sigmoid | Act::HardSigmoid => None,
        }
    }

    /// The value at `u`.
    #[inline(always)]
    pub fn value(self, u: f32) -> f32 {
        match self {
            Act::None => u,
            // Not `max`, which takes what is no number for 0.
            Act::Relu if u < 0.0 => 0.0,
            Act::Relu => u,
            Act::Relu6 => u.clamp(0.0, 6.0),
            Act::HSwish => u * (u + 3.0).clamp(0.0, 6.0) * (1.0 / 6.0),
            Act::Swish => u * sigmoid(u),
            Act::Sigmoid => sigmoid(u),
            Act::HardSigmoid => (u + 3.0).clamp(0.0, 6.0) * (1.0 / 6.0),
        }
    }

    /// The derivative at `u`; at kinks as PyTorch.
    #[inline(always)]
    pub fn slope(self, u: f32) -> f32 {
        let inside = |yes: bool, value: f32| if yes { value } else { 0.0 };
        match self {
            Act::None => 1.0,
            Act::Relu => inside(u > 0.0, 1.0),
            Act::Relu6 => inside(u > 0.0 && u < 6.0, 1.0),
            Act::HSwish if u <= -3.0 => 0.0,
            Act::HSwish if u >= 3.0 => 1.0,
            Act::HSwish => u * (1.0 / 3.0) + 0.5,
            Act::Swish => {
                let s = sigmoid(u);
                s * (1.0 + u * (1.0 - s))
            }
            Act::Sigmoid => {
                let s = sigmoid(u);
                s * (1.0 - s)
            }
            Act::HardSigmoid => inside(u > -3.0 && u < 3.0, 1.0 / 6.0),
        }
    }

    /// The value at `u` in f64: the definition.
    pub fn value_f64(self, u: f64) -> f64 {
        let sigmoid = |u: f64| 1.0 / (1.0 + (-u).exp());
        match self {
            Act::None => u,
            Act::Relu => u.max(0.0),
            Act::Relu6 => u.clamp(0.0, 6.0),
            Act::HSwish => u * (u + 3.0).clamp(0.0, 6.0) / 6.0,
            Act::Swish => u * sigmoid(u),
            Act::Sigmoid => sigmoid(u),
            Act::HardSigmoid => (u + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }
}

/// Within 2e-7 of the definition, relatively down to 1e-38. Without a branch or a call, so that
/// loops over it become vectors; no fused multiply-adds, so that every build gives the same bits.
#[inline(always)]
fn sigmoid(u: f32) -> f32 {
    1.0 / (1.0 + exp((-u).clamp(-87.0, 87.0)))
}

/// `e^x` for `-87 <= x <= 87`: `2^n e^f` with `n` the nearest integer to `x / ln 2` and the
/// polynomial of Cephes' `expf` for `e^f`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer, which then lies in the low bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts, of which the first times `n` is exact.
    let f = x - n * (355.0 / 512.0) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p * f + c;
    }
    let power = shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23;
    (p * f * f + f + 1.0) * f32::from_bits(power)
}

/// Runs `body` with `act` known to the compiler, so that no loop asks which one it is.
#[inline(always)]
fn known(act: Act, mut body: impl FnMut(Act)) {
    match act {
        Act::None => body(Act::None),
        Act::Relu => body(Act::Relu),
        Act::Relu6 => body(Act::Relu6),
        Act::HSwish => body(Act::HSwish),
        Act::Swish => body(Act::Swish),
        Act::Sigmoid => body(Act::Sigmoid),
        Act::HardSigmoid => body(Act::HardSigmoid),
    }
}

struct Values<'a, 'y>(Act, &'a [f32], &'y mut [f32]);

impl Loop for Values<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        let Values(act, x, y) = self;
        known(act, |act| y.iter_mut().zip(x).for_each(|(y, &x)| *y = act.value(x)));
    }
}

struct Gradients<'a, 'dx>(Act, &'a [f32], &'a [f32], &'dx mut [f32]);

impl Loop for Gradients<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        let Gradients(act, x, dy, dx) = self;
        known(act, |act| {
            for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                *dx += dy * act.slope(x);
            }
        });
    }
}

/// `y = act(x)` for a tensor of any shape.
#[derive(Clone, Copy, Debug)]
pub struct Activation(pub Act);

impl Activation {
    fn launch(&self, cuda: &Cuda, len: usize) -> Result<Arc<elementwise::Activation>> {
        let function = match self.0 {
            Act::Sigmoid => elementwise::Function::Sigmoid,
            Act::HardSigmoid => elementwise::Function::HardSigmoid,
            other => elementwise::Function::Act(other.fused().expect("the gates are taken care of")),
        };
        let f32 = kernels::DType::F32;
        cuda.prepare((function, len), |d| elementwise::Activation::new(d, function, f32, len))
    }
}

impl Op for Activation {
    fn name(&self) -> &'static str {
        match self.0 {
            Act::None => "identity",
            Act::Relu => "relu",
            Act::Relu6 => "relu6",
            Act::HSwish => "h_swish",
            Act::Swish => "swish",
            Act::Sigmoid => "sigmoid",
            Act::HardSigmoid => "hard_sigmoid",
        }
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let [x] = arity(self.name(), inputs)?;
        Ok(x)
    }

    fn keep(&self) -> Keep {
        Keep::INPUTS
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let x = inputs[0].f32()?;
        let mut y = Tensor::stale(cpu, inputs[0].shape(), DType::F32)?;
        let act = self.0;
        cpu.pool().parallel_chunks(y.f32_mut()?, CHUNK, |i, y| {
            simd::run(Values(act, &x[i * CHUNK..][..y.len()], y));
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let (x, dy) = (kept.x(0)?, dy.f32()?);
        let act = self.0;
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, CHUNK, |i, dx| {
                let range = i * CHUNK..i * CHUNK + dx.len();
                simd::run(Gradients(act, &x[range.clone()], &dy[range], dx));
            });
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let op = self.launch(cuda, inputs[0].shape().len())?;
        let mut y = Tensor::stale(cuda, inputs[0].shape(), DType::F32)?;
        let (from, to) = (inputs[0].input()?, y.output()?);
        cuda.launch(|stream| op.forward(stream, from, to))?;
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
        let op = self.launch(cuda, dy.shape().len())?;
        let (x, dy) = (kept.input(0).input()?, dy.input()?);
        let (to, write) = slot.open();
        cuda.launch(|stream| op.backward(stream, x, dy, to, write))
    }
}

pub(super) fn cases() -> Vec<Case> {
    Act::ALL
        .into_iter()
        .map(|act| {
            // Values near every kink, none on it, and far into both tails.
            let data: Vec<f32> = (0..97).map(|i| (i as f32 - 48.0) * 0.171 + 0.013).collect();
            let input = Input::Values { shape: [97].into(), data, grad: true };
            Case::new("both tails", Activation(act), vec![input], move |x: &[Array]| {
                x[0].map(|u| act.value_f64(u))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.nn.functional` 2.15 at the kinks. Releases before the fix of PyTorch's issue 147801
    /// had -0.5 and 1.5 for hardswish.
    #[test]
    fn slopes_at_kinks_are_pytorchs() {
        assert_eq!(Act::Relu.slope(0.0), 0.0);
        assert_eq!(Act::Relu6.slope(6.0), 0.0);
        assert_eq!(Act::HSwish.slope(-3.0), 0.0);
        assert_eq!(Act::HSwish.slope(3.0), 1.0);
        assert_eq!(Act::HardSigmoid.slope(3.0), 0.0);
    }

    /// A loss shows at once that a layer's output is no number.
    #[test]
    fn what_is_no_number_stays_so() {
        let cpu = Cpu::new(1).unwrap();
        let x = Tensor::from_slice(&cpu, [40], &[f32::NAN; 40]).unwrap();
        for act in Act::ALL {
            assert!(act.value(f32::NAN).is_nan(), "{act:?}");
            let y = Activation(act).forward(&cpu, &[&x], false).unwrap().y;
            assert!(y.f32().unwrap().iter().all(|v| v.is_nan()), "{act:?}");
        }
    }

    #[test]
    fn the_sigmoid_follows_its_definition_into_both_tails() {
        for i in -8_000..8_000 {
            let u = i as f32 * 0.01 + 0.0037;
            let (got, want) = (f64::from(sigmoid(u)), Act::Sigmoid.value_f64(f64::from(u)));
            assert!((got / want - 1.0).abs() < 2.5e-7, "{u}: {got} {want}");
        }
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37 && sigmoid(f32::NAN).is_nan());
        assert_eq!(sigmoid(0.0), 0.5);
    }
}
