//! The inverted residual block (Sandler et al., arXiv 1801.04381, section 3.3; with
//! squeeze-and-excitation, Howard et al., arXiv 1905.02244, section 5.1) as one op: expand 1x1,
//! depthwise k x k, squeeze-and-excitation, project 1x1, each convolution with its batch norm.
//!
//! Only the three convolutions' results and per-channel statistics are stored: norm and activation
//! are computed again wherever a result is read. The two wide tensors are laid out in blocks of 16
//! channels (see [`crate::cpu::fused`]), so that every pass streams.

mod backward;
mod cases;
mod cuda;
mod folded;
mod forward;

use super::{Act, Activation, Add, BatchNorm, DepthwiseConv2d, PointwiseConv2d, SqueezeExcite};
use crate::cpu::Cpu;
use crate::cpu::fused::{Given, Plan};
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, exactly, nhwc, shape_error};
use crate::tape::{Tape, Var};
use crate::tensor::{Shape, Tensor};

pub(super) use cases::cases;

/// Inputs, in order:
///
/// 1. `x [n, h, w, c]`;
/// 2. if `expand`: its filter `[e, c]`; if `affine`, scale `[e]` and shift `[e]` of its norm;
/// 3. the depthwise filter `[k, k, e]`, `k` odd; if `affine`, scale `[e]` and shift `[e]`;
/// 4. if `squeeze`: `w1 [r, e]`, `b1 [r]`, `w2 [e, r]`, `b2 [e]`;
/// 5. the project filter `[o, e]`; if `affine`, scale `[o]` and shift `[o]`;
/// 6. if the statistics are frozen: mean and biased variance of every norm, in order.
///
/// Output `[n, oh, ow, o]` with `oh = (h - 1) / stride + 1`. Without `expand`, `e = c`. In batch
/// mode one [`crate::Moments`] a norm is returned, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InvertedResidual {
    /// Distance between windows of the depthwise convolution: 1 or 2.
    pub stride: usize,
    /// Whether there is an expand layer; without it the depthwise reads `x`.
    pub expand: bool,
    /// The gate of the squeeze-and-excitation after the depthwise.
    pub squeeze: Option<Act>,
    /// After the norms of expand (not read without `expand`), depthwise and project: any but the
    /// gates [`Act::Sigmoid`] and [`Act::HardSigmoid`].
    pub acts: [Act; 3],
    /// Whether `x` is added to the result, whose shape must then be that of `x`.
    pub residual: bool,
    /// Whether norms learn scale and shift; otherwise they are 1 and 0.
    pub affine: bool,
    /// Added to every variance.
    pub eps: f32,
    /// What the norms normalise with.
    pub statistics: Statistics,
}

/// Where the mean and the variance of a batch norm come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// The batch.
    Batch,
    /// The inputs.
    Frozen,
}

/// Which of the three norms.
const EXPAND: usize = 0;
const DEPTHWISE: usize = 1;
const PROJECT: usize = 2;

/// Where the inputs lie.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// The filters of expand (0 without one), depthwise and project; scale and shift follow.
    filters: [usize; 3],
    /// `w1`, which the other three follow.
    squeeze: usize,
    /// The means (variances follow) of the three norms.
    frozen: [usize; 3],
    count: usize,
}

impl InvertedResidual {
    fn places(&self) -> Places {
        let layer = if self.affine { 3 } else { 1 };
        let (expand, mut at) = if self.expand { (1, 1 + layer) } else { (0, 1) };
        let depthwise = at;
        at += layer;
        let squeeze = at;
        at += if self.squeeze.is_some() { 4 } else { 0 };
        let project = at;
        at += layer;
        let mut frozen = [0; 3];
        if self.statistics == Statistics::Frozen {
            for place in &mut frozen[if self.expand { 0 } else { 1 }..] {
                *place = at;
                at += 2;
            }
        }
        Places { filters: [expand, depthwise, project], squeeze, frozen, count: at }
    }

    fn frozen(&self) -> bool {
        self.statistics == Statistics::Frozen
    }

    /// The sizes, of shapes that shape() accepted.
    fn plan(&self, inputs: &[Shape]) -> Plan {
        let places = self.places();
        let [n, h, w, c] = inputs[0].nhwc().expect("shape() checked four axes");
        let depthwise = inputs[places.filters[DEPTHWISE]];
        Plan {
            n,
            from: [h, w],
            to: [h, w].map(|size| (size - 1) / self.stride + 1),
            c,
            e: depthwise.channels(),
            o: inputs[places.filters[PROJECT]].dims()[0],
            k: depthwise.dims()[0],
            stride: self.stride,
        }
    }

    /// What norm `which` is given, from the inputs as `get` hands them out.
    fn given<'a>(&self, which: usize, get: impl Fn(usize) -> Result<&'a [f32]>) -> Result<Given<'a>> {
        let (at, frozen) = (self.places().filters[which], self.places().frozen[which]);
        let affine = if self.affine { Some([get(at + 1)?, get(at + 2)?]) } else { None };
        let frozen = if self.frozen() { Some([get(frozen)?, get(frozen + 1)?]) } else { None };
        Ok(Given { affine, frozen, eps: self.eps })
    }

    /// The chain of primitive ops that this op stands for, applied to its inputs.
    ///
    /// # Errors
    /// What the ops return.
    pub fn composition(&self, tape: &mut Tape, inputs: &[Var]) -> Result<Var> {
        let places = self.places();
        let norm = |tape: &mut Tape, y: Var, which: usize| -> Result<Var> {
            let mut all = vec![&y];
            if self.affine {
                all.extend(&inputs[places.filters[which] + 1..places.filters[which] + 3]);
            }
            if self.frozen() {
                all.extend(&inputs[places.frozen[which]..places.frozen[which] + 2]);
            }
            let op = BatchNorm { eps: self.eps, affine: self.affine, frozen: self.frozen() };
            let y = tape.apply(op, &all)?;
            tape.apply(Activation(self.acts[which]), &[&y])
        };
        let mut y = inputs[0].clone();
        if self.expand {
            y = tape.apply(PointwiseConv2d { bias: false }, &[&y, &inputs[places.filters[EXPAND]]])?;
            y = norm(tape, y, EXPAND)?;
        }
        let op = DepthwiseConv2d { stride: self.stride, dilation: 1 };
        y = tape.apply(op, &[&y, &inputs[places.filters[DEPTHWISE]]])?;
        y = norm(tape, y, DEPTHWISE)?;
        if let Some(gate) = self.squeeze {
            let [w1, b1, w2, b2] = std::array::from_fn(|i| &inputs[places.squeeze + i]);
            y = tape.apply(SqueezeExcite { gate }, &[&y, w1, b1, w2, b2])?;
        }
        y = tape.apply(PointwiseConv2d { bias: false }, &[&y, &inputs[places.filters[PROJECT]]])?;
        y = norm(tape, y, PROJECT)?;
        if self.residual { tape.apply(Add, &[&inputs[0], &y]) } else { Ok(y) }
    }
}

impl Op for InvertedResidual {
    fn name(&self) -> &'static str {
        "inverted_residual"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let (places, name) = (self.places(), self.name());
        if inputs.len() != places.count {
            return Err(shape_error(name, inputs, format!("expected {} inputs with {self:?}", places.count)));
        }
        let gate = |act: Act| matches!(act, Act::Sigmoid | Act::HardSigmoid);
        if !matches!(self.stride, 1 | 2) || self.acts.into_iter().any(gate) {
            let reason = format!("with {self:?}, the stride must be 1 or 2 and no activation a gate");
            return Err(shape_error(name, inputs, reason));
        }
        let [n, h, w, c] = nhwc(name, inputs, 0)?;
        let [expand, depthwise, project] = places.filters;
        let e = match *inputs[depthwise].dims() {
            // The bound keeps a plane with its padding far from overflow.
            [k, kw, e] if k == kw && k % 2 == 1 && k < 1 << 12 && e > 0 && (self.expand || e == c) => e,
            _ => {
                let reason = format!("input {depthwise} must be [k, k, e] with k odd, e = c without expand");
                return Err(shape_error(name, inputs, reason));
            }
        };
        if self.expand {
            exactly(name, inputs, expand, "[e, c]", &[e, c])?;
        }
        let o = match *inputs[project].dims() {
            [o, we] if we == e && o > 0 => o,
            _ => {
                return Err(shape_error(
                    name,
                    inputs,
                    format!("input {project} must be [o, {e}] with o > 0"),
                ));
            }
        };
        for (which, width) in [e, e, o].into_iter().enumerate().skip(if self.expand { 0 } else { 1 }) {
            for i in 1..if self.affine { 3 } else { 1 } {
                exactly(name, inputs, places.filters[which] + i, "the norm's channels", &[width])?;
            }
            for i in 0..if self.frozen() { 2 } else { 0 } {
                exactly(name, inputs, places.frozen[which] + i, "the norm's channels", &[width])?;
            }
        }
        if self.squeeze.is_some() {
            let at = places.squeeze;
            let r = match *inputs[at].dims() {
                [r, we] if we == e && r > 0 => r,
                _ => {
                    return Err(shape_error(name, inputs, format!("input {at} must be [r, {e}] with r > 0")));
                }
            };
            exactly(name, inputs, at + 1, "[r]", &[r])?;
            exactly(name, inputs, at + 2, "[e, r]", &[e, r])?;
            exactly(name, inputs, at + 3, "[e]", &[e])?;
        }
        let to: Shape = [n, (h - 1) / self.stride + 1, (w - 1) / self.stride + 1, o].into();
        if self.residual && to != inputs[0] {
            return Err(shape_error(
                name,
                inputs,
                format!("a residual must have the shape of the result, {to}"),
            ));
        }
        Ok(to)
    }

    fn keep(&self) -> Keep {
        let places = self.places();
        let mut keep = Keep::inputs(&[0, places.filters[DEPTHWISE], places.filters[PROJECT]]);
        if self.expand {
            keep.inputs |= Keep::inputs(&[places.filters[EXPAND]]).inputs;
        }
        if self.squeeze.is_some() {
            keep.inputs |= Keep::inputs(&[places.squeeze, places.squeeze + 2]).inputs;
        }
        keep
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        let p = self.plan(inputs);
        let expand = if self.expand { p.pixels_from() * p.c } else { 0 };
        let squeeze = if self.squeeze.is_some() { 2 * inputs[self.places().squeeze].dims()[0] } else { 0 };
        (p.n * p.e) as u64 * (expand + squeeze + p.pixels_to() * (p.k * p.k + p.o)) as u64
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], record: bool) -> Result<Output> {
        if self.frozen() && !record {
            return self.run_folded(cpu, inputs);
        }
        self.run_forward(cpu, inputs, record)
    }

    fn stores(&self) -> u32 {
        let [expand, _, project] = self.places().filters;
        // Without an expand layer this names `x` twice.
        1 | 1 << expand | 1 << project
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        self.run_backward(cpu, kept, dy, dx)
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], record: bool) -> Result<Output> {
        self.run_forward_cuda(cuda, inputs, record)
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        self.run_backward_cuda(cuda, kept, dy, dx)
    }
}
