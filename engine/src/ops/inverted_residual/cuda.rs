//! The block on a GPU: a few passes over the wide tensors, each of which recomputes norm and activation where it reads.
//!
//! Forward: expand, depthwise, project, each with the statistics of what it stores, then `finish`. Backward: the sums of
//! the last norm, project's two gradients, depthwise's in one, expand's two; one launch adds up what they left of the
//! filters' gradients in parts.

use kernels::batch_norm::{Partial, SumAll};
use kernels::pointwise::{self, Arithmetic};
use kernels::pointwise_gradient::{
    FilterGradient, FilterGradientArgs, Formed, InputGradient, InputGradientArgs, SummedGradient,
    SummedGradientArgs, Sums,
};
use kernels::squeeze_excite::{
    Excite, ExciteArgs, ExciteBackward, ExciteBackwardArgs, Layers, Squeeze, SqueezeArgs,
};
use kernels::{Write, depthwise, finish};

use super::{DEPTHWISE, EXPAND, InvertedResidual, PROJECT};
use crate::cpu::fused::Plan;
use crate::cuda::norm::{Norm, NormSlots};
use crate::cuda::{Cuda, Partials, Slot};
use crate::error::Result;
use crate::op::{Kept, Moments, Output};
use crate::ops::squeeze_excite::sigma;
use crate::tensor::{DType, Shape, Tensor};

const F32: kernels::DType = kernels::DType::F32;

/// What forward leaves for backward.
struct Saved {
    /// Raw output of expand and its norm.
    expand: Option<(Tensor, Norm)>,
    depthwise: (Tensor, Norm),
    project: (Tensor, Norm),
    gate: Option<Gate>,
}

/// What the gate was made of.
struct Gate {
    /// `[n, e]`: means of the planes.
    means: Tensor,
    /// `[n, r]`: after ReLU.
    hidden: Tensor,
    /// `[n, e]`.
    gates: Tensor,
}

/// Gradients of parameters in parts, to be summed.
#[derive(Default)]
struct Parts(Vec<InParts>);

/// That of one input.
struct InParts {
    input: usize,
    /// `[partials, stride]`.
    parts: Tensor,
    offset: usize,
    len: usize,
}

impl Parts {
    /// Parts that hold nothing else.
    fn add(&mut self, input: usize, parts: &Tensor) {
        let len = parts.shape().len() / parts.shape().dims()[0];
        self.0.push(InParts { input, parts: parts.clone(), offset: 0, len });
    }

    /// Adds them up, in one launch, where somebody wants them.
    fn sum(self, cuda: &Cuda, dx: &mut [Option<Slot<'_>>]) -> Result<()> {
        let mut arrays = Vec::with_capacity(self.0.len());
        for (input, slot) in dx.iter_mut().enumerate() {
            let (Some(slot), Some(p)) = (slot, self.0.iter().find(|p| p.input == input)) else { continue };
            let partials = p.parts.shape().dims()[0];
            let (out, write) = slot.open();
            arrays.push(Partial {
                parts: p.parts.input()?,
                partials,
                stride: p.parts.shape().len() / partials,
                offset: p.offset,
                len: p.len,
                out,
                write,
            });
        }
        if arrays.is_empty() {
            return Ok(());
        }
        let op = cuda.prepare((), SumAll::new)?;
        cuda.launch(|stream| op.launch(stream, arrays))
    }
}

impl Saved {
    fn pack(self) -> Vec<Tensor> {
        let mut all = Vec::with_capacity(18);
        for (raw, norm) in self.expand.into_iter().chain([self.depthwise, self.project]) {
            all.push(raw);
            norm.save(&mut all);
        }
        if let Some(gate) = self.gate {
            all.extend([gate.means, gate.hidden, gate.gates]);
        }
        all
    }

    fn unpack(op: &InvertedResidual, saved: &[Tensor]) -> Self {
        let mut saved = saved.iter().cloned();
        let mut layer = || {
            let raw = saved.next().expect("forward saved as many as it unpacks");
            (raw, Norm::load(&mut saved))
        };
        let (expand, depthwise, project) = (op.expand.then(&mut layer), layer(), layer());
        let mut next = || saved.next().expect("forward saved as many as it unpacks");
        let gate = op.squeeze.map(|_| Gate { means: next(), hidden: next(), gates: next() });
        Self { expand, depthwise, project, gate }
    }
}

/// The sizes as kernels have them.
struct Shapes {
    expand: pointwise::Shape,
    depthwise: depthwise::Shape,
    project: pointwise::Shape,
}

impl Shapes {
    fn new(p: &Plan) -> Self {
        let (images, [h, w]) = (p.n, p.from);
        Self {
            expand: pointwise::Shape { images, plane: p.pixels_from(), k: p.c, n: p.e },
            depthwise: depthwise::Shape { n: images, h, w, c: p.e, k: p.k, stride: p.stride },
            project: pointwise::Shape { images, plane: p.pixels_to(), k: p.e, n: p.o },
        }
    }
}

impl InvertedResidual {
    /// The activations as kernels have them.
    fn fused_acts(&self, cuda: &Cuda) -> Result<[kernels::Act; 3]> {
        if self.expand && self.acts[EXPAND] != self.acts[DEPTHWISE] {
            let (what, expected) = ("activations of expand and depthwise that differ", "one for both");
            return Err(cuda.no_kernel("inverted_residual", what, 2, expected));
        }
        Ok(self.acts.map(|act| act.fused().expect("shape() refused the gates")))
    }

    /// The small layers behind the gate.
    fn layers(&self, cuda: &Cuda, plan: &Plan, r: usize) -> Result<Layers> {
        let sigma = sigma(cuda, "inverted_residual", self.squeeze.expect("there is a gate"))?;
        Ok(Layers { images: plan.n, plane: plan.pixels_to(), c: plan.e, r, sigma })
    }

    /// The gate; `inputs` begin with the first layer's weight.
    fn gate_cuda(
        &self,
        cuda: &Cuda,
        plan: &Plan,
        act: kernels::Act,
        inputs: &[&Tensor],
        h2: &Tensor,
        norm: &Norm,
    ) -> Result<Gate> {
        let r = inputs[1].shape().len();
        let layers = self.layers(cuda, plan, r)?;
        let (n, e) = (plan.n, plan.e);
        let shape = [n, plan.pixels_to(), e];
        let op = cuda.prepare((shape, act), |d| Squeeze::new(d, shape, F32, act))?;
        let mut means = Tensor::stale(cuda, [n, e], DType::F32)?;
        let args = SqueezeArgs { h: h2.input()?, affine: norm.affine()?, means: means.output()? };
        cuda.launch(|stream| op.launch(stream, args))?;
        let op = cuda.prepare(layers, |d| Excite::new(d, layers))?;
        let mut hidden = Tensor::stale(cuda, [n, r], DType::F32)?;
        let mut gates = Tensor::stale(cuda, [n, e], DType::F32)?;
        let args = ExciteArgs {
            means: means.input()?,
            first: (inputs[0].input()?, inputs[1].input()?),
            second: (inputs[2].input()?, inputs[3].input()?),
            hidden: hidden.output()?,
            gates: gates.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        Ok(Gate { means, hidden, gates })
    }

    fn norm(
        &self,
        cuda: &Cuda,
        which: usize,
        inputs: &[&Tensor],
        partials: &Partials,
        count: usize,
        found: &mut Vec<Moments>,
    ) -> Result<Norm> {
        let (at, frozen) = (self.places().filters[which], self.places().frozen[which]);
        let learnt = self.affine.then(|| (inputs[at + 1], inputs[at + 2]));
        if self.frozen() {
            return Norm::frozen(cuda, inputs[frozen], inputs[frozen + 1], learnt, self.eps);
        }
        let (norm, moments) = Norm::of_batch(cuda, partials, learnt, self.eps, count)?;
        found.push(moments);
        Ok(norm)
    }

    pub(super) fn run_forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], record: bool) -> Result<Output> {
        let acts = self.fused_acts(cuda)?;
        let (plan, places) =
            (self.plan(&inputs.iter().map(|t| t.shape()).collect::<Vec<_>>()), self.places());
        let shapes = Shapes::new(&plan);
        let (rows_from, rows_to) = (shapes.expand.m(), shapes.project.m());
        let mut moments = Vec::with_capacity(3);

        let expand = if self.expand {
            let shape = shapes.expand;
            let op = cuda.prepare((shape, kernels::Act::None), |d| {
                pointwise::Forward::new(d, shape, Arithmetic::F32, kernels::Act::None)
            })?;
            let mut h1 = Tensor::stale(cuda, [rows_from, plan.e], DType::F32)?;
            let mut partials = Partials::new(cuda, op.partials(), plan.e)?;
            let args = pointwise::ForwardArgs {
                x: inputs[0].input()?,
                affine: None,
                gate: None,
                w: inputs[places.filters[EXPAND]].input()?,
                y: h1.output()?,
                moments: partials.moments.output()?,
                counts: partials.counts.output()?,
            };
            cuda.launch(|stream| op.launch(stream, args))?;
            let norm = self.norm(cuda, EXPAND, inputs, &partials, rows_from, &mut moments)?;
            Some((h1, norm))
        } else {
            None
        };

        let shape = shapes.depthwise;
        let before = if self.expand { acts[EXPAND] } else { kernels::Act::None };
        let op = cuda.prepare((shape, before), |d| depthwise::Forward::new(d, shape, F32, before))?;
        let mut h2 = Tensor::stale(cuda, [rows_to, plan.e], DType::F32)?;
        let mut partials = Partials::new(cuda, op.partials(), plan.e)?;
        let args = depthwise::ForwardArgs {
            x: expand.as_ref().map_or(inputs[0], |(h1, _)| h1).input()?,
            affine: expand.as_ref().map(|(_, norm)| norm.affine()).transpose()?,
            w: inputs[places.filters[DEPTHWISE]].input()?,
            y: h2.output()?,
            moments: partials.moments.output()?,
            counts: partials.counts.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        let norm2 = self.norm(cuda, DEPTHWISE, inputs, &partials, rows_to, &mut moments)?;
        // Nobody reads it again.
        let expand = expand.filter(|_| record);

        let gate = match self.squeeze {
            Some(_) => {
                let inputs = &inputs[places.squeeze..];
                Some(self.gate_cuda(cuda, &plan, acts[DEPTHWISE], inputs, &h2, &norm2)?)
            }
            None => None,
        };

        let (shape, act) = (shapes.project, acts[DEPTHWISE]);
        let op = cuda.prepare((shape, act), |d| pointwise::Forward::new(d, shape, Arithmetic::F32, act))?;
        let to: Shape = [plan.n, plan.to[0], plan.to[1], plan.o].into();
        let mut h3 = Tensor::stale(cuda, to, DType::F32)?;
        let mut partials = Partials::new(cuda, op.partials(), plan.o)?;
        let args = pointwise::ForwardArgs {
            x: h2.input()?,
            affine: Some(norm2.affine()?),
            gate: gate.as_ref().map(|gate| gate.gates.input()).transpose()?,
            w: inputs[places.filters[PROJECT]].input()?,
            y: h3.output()?,
            moments: partials.moments.output()?,
            counts: partials.counts.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        let norm3 = self.norm(cuda, PROJECT, inputs, &partials, rows_to, &mut moments)?;

        let (c, act) = (plan.o, acts[PROJECT]);
        let op = cuda.prepare((rows_to, c, act), |d| finish::Finish::new(d, rows_to, c, F32, act))?;
        let mut y = Tensor::stale(cuda, to, DType::F32)?;
        let args = finish::FinishArgs {
            h: h3.input()?,
            affine: norm3.affine()?,
            x: self.residual.then(|| inputs[0].input()).transpose()?,
            y: y.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        let saved = match record {
            true => Saved { expand, depthwise: (h2, norm2), project: (h3, norm3), gate }.pack(),
            false => Vec::new(),
        };
        Ok(Output { y, saved, moments })
    }

    pub(super) fn run_backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        let acts = self.fused_acts(cuda)?;
        let (plan, places) = (self.plan(kept.shapes), self.places());
        let shapes = Shapes::new(&plan);
        let (rows_from, rows_to) = (shapes.expand.m(), shapes.project.m());
        let Saved { expand, depthwise: (h2, norm2), project: (h3, norm3), gate } =
            Saved::unpack(self, kept.saved);
        let (e, o) = (plan.e, plan.o);
        let filter = |which: usize| kept.input(places.filters[which]).input();

        // The last norm.
        let op = cuda
            .prepare((rows_to, o, acts[PROJECT]), |d| finish::Sums::new(d, rows_to, o, F32, acts[PROJECT]))?;
        let mut sums = Tensor::stale(cuda, [op.partials(), o, 2], DType::F32)?;
        // Where its statistics are the batch's, the launch that takes the sums makes use of them too.
        let mut pqr3 = match self.frozen() {
            true => None,
            false => Some(Tensor::stale(cuda, [3, o], DType::F32)?),
        };
        let learnt = if self.affine { places.filters[PROJECT] + 1 } else { dx.len() };
        let mut slots = dx.iter_mut().skip(learnt).map(Option::as_mut);
        let mut next = || slots.next().flatten().map(|slot| cuda.added(slot)).transpose();
        let norm = match &mut pqr3 {
            Some(pqr) => Some(finish::NormArgs {
                variance: norm3.variance()?,
                eps: self.eps,
                dgamma: next()?,
                dbeta: next()?,
                pqr: pqr.output()?,
            }),
            None => None,
        };
        let args = finish::SumsArgs {
            dy: dy.input()?,
            h: h3.input()?,
            affine: norm3.affine()?,
            mean: norm3.mean()?,
            sums: sums.output()?,
            norm,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        let pqr3 = match pqr3 {
            Some(pqr) => pqr,
            None => self.norm_back(cuda, PROJECT, &norm3, &sums, rows_to, dx)?,
        };
        let mut parts = Parts::default();
        let formed =
            Formed { h: h3.input()?, affine: norm3.affine()?, pqr: pqr3.input()?, act: acts[PROJECT] };

        // Project.
        let shape = shapes.project;
        let taken = if gate.is_some() { Sums::PerImage } else { Sums::Pair };
        let op = cuda.prepare((shape, acts[DEPTHWISE], taken), |d| {
            SummedGradient::new(d, shape, Arithmetic::F32, acts[DEPTHWISE], taken)
        })?;
        let mut da2 = Tensor::stale(cuda, [rows_to, e], DType::F32)?;
        let mut sums =
            Tensor::stale(cuda, [op.partials(), if gate.is_some() { 5 } else { 2 } * e], DType::F32)?;
        let args = SummedGradientArgs {
            d: dy.input()?,
            formed: Some(formed),
            w: filter(PROJECT)?,
            h: h2.input()?,
            affine: norm2.affine()?,
            mean: norm2.mean()?,
            dx: da2.output()?,
            sums: sums.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        if dx[places.filters[PROJECT]].is_some() {
            let op = cuda.prepare((shape, acts[DEPTHWISE]), |d| {
                FilterGradient::new(d, shape, Arithmetic::F32, acts[DEPTHWISE])
            })?;
            let mut dw = Tensor::stale(cuda, [op.partials(), o, e], DType::F32)?;
            let args = FilterGradientArgs {
                d: dy.input()?,
                formed: Some(formed),
                x: h2.input()?,
                affine: Some(norm2.affine()?),
                gate: gate.as_ref().map(|gate| gate.gates.input()).transpose()?,
                dw: dw.output()?,
            };
            cuda.launch(|stream| op.launch(stream, args))?;
            parts.add(places.filters[PROJECT], &dw);
        }
        let (sums, factors) = match &gate {
            Some(gate) => {
                let (sums, factors) = self.gate_back(cuda, &plan, gate, &sums, kept, &mut parts)?;
                (sums, Some(factors))
            }
            None => (sums.reshape([sums.shape().len() / 2 / e, e, 2])?, None),
        };
        let pqr2 = self.norm_back(cuda, DEPTHWISE, &norm2, &sums, rows_to, dx)?;

        // Depthwise, both gradients; without expand that of the input is the block's.
        let shape = shapes.depthwise;
        let op = cuda.prepare((shape, acts[DEPTHWISE]), |d| {
            depthwise::Backward::new(d, shape, F32, acts[DEPTHWISE])
        })?;
        let k = plan.k;
        let mut dw = Tensor::stale(cuda, [op.partials(), k * k * e], DType::F32)?;
        let mut sums = Tensor::stale(cuda, [op.partials(), e, 2], DType::F32)?;
        let h1 = expand.as_ref().map_or(kept.input(0), |(h1, _)| h1);
        let norm1 = expand.as_ref().map(|(_, norm)| norm);
        let send = |du1: kernels::Output<'_>| -> Result<()> {
            let args = depthwise::BackwardArgs {
                da2: da2.input()?,
                h2: h2.input()?,
                affine2: norm2.affine()?,
                pqr: pqr2.input()?,
                gate: factors.as_ref().map(Tensor::input).transpose()?,
                h1: h1.input()?,
                affine1: norm1.map(Norm::affine).transpose()?,
                mean1: norm1.map(Norm::mean).transpose()?,
                w: filter(DEPTHWISE)?,
                du1,
                dw: dw.output()?,
                sums: sums.output()?,
            };
            cuda.launch(|stream| op.launch(stream, args))
        };
        let len = rows_from * e;
        let Some((h1, norm1)) = &expand else {
            cuda.store_or_drop(dx[0].as_mut(), len, send)?;
            if let (true, Some(slot)) = (self.residual, &mut dx[0]) {
                cuda.give(dy, slot)?;
            }
            parts.add(places.filters[DEPTHWISE], &dw);
            return parts.sum(cuda, dx);
        };
        let mut du1 = Tensor::stale(cuda, [rows_from, e], DType::F32)?;
        cuda.store_or_drop(Some(&mut du1.slot(true)?), len, send)?;
        parts.add(places.filters[DEPTHWISE], &dw);
        let pqr1 = self.norm_back(cuda, EXPAND, norm1, &sums, rows_from, dx)?;
        let formed =
            Formed { h: h1.input()?, affine: norm1.affine()?, pqr: pqr1.input()?, act: kernels::Act::None };

        // Expand.
        let shape = shapes.expand;
        if let Some(slot) = &mut dx[0] {
            let op = cuda.prepare(shape, |d| InputGradient::new(d, shape, Arithmetic::F32))?;
            let (to, write) = slot.open();
            let args = InputGradientArgs {
                d: du1.input()?,
                formed: Some(formed),
                w: filter(EXPAND)?,
                more: self.residual.then(|| dy.input()).transpose()?,
                accumulate: write == Write::Add,
                dx: to,
            };
            cuda.launch(|stream| op.launch(stream, args))?;
        }
        if dx[places.filters[EXPAND]].is_some() {
            let op = cuda.prepare((shape, kernels::Act::None), |d| {
                FilterGradient::new(d, shape, Arithmetic::F32, kernels::Act::None)
            })?;
            let mut dw = Tensor::stale(cuda, [op.partials(), e, plan.c], DType::F32)?;
            let args = FilterGradientArgs {
                d: du1.input()?,
                formed: Some(formed),
                x: kept.input(0).input()?,
                affine: None,
                gate: None,
                dw: dw.output()?,
            };
            cuda.launch(|stream| op.launch(stream, args))?;
            parts.add(places.filters[EXPAND], &dw);
        }
        parts.sum(cuda, dx)
    }

    /// The gate's gradients: the sums of the norm before it, and `(gate, extra)` per image and channel. Those of its layers
    /// go to `to` in parts.
    fn gate_back(
        &self,
        cuda: &Cuda,
        plan: &Plan,
        gate: &Gate,
        sums: &Tensor,
        kept: &Kept<'_>,
        to: &mut Parts,
    ) -> Result<(Tensor, Tensor)> {
        let (n, e, at) = (plan.n, plan.e, self.places().squeeze);
        let layers = self.layers(cuda, plan, gate.hidden.shape().channels())?;
        let op = cuda.prepare(layers, |d| ExciteBackward::new(d, layers))?;
        let mut factors = Tensor::stale(cuda, [n, e, 2], DType::F32)?;
        let mut norm = Tensor::stale(cuda, [op.partials(), e, 2], DType::F32)?;
        let mut parts = Tensor::stale(cuda, [op.partials(), op.parameters()], DType::F32)?;
        let args = ExciteBackwardArgs {
            sums: sums.input()?,
            means: gate.means.input()?,
            hidden: gate.hidden.input()?,
            gates: gate.gates.input()?,
            w: (kept.input(at).input()?, kept.input(at + 2).input()?),
            factors: factors.output()?,
            norm: Some(norm.output()?),
            parts: parts.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        for (i, (offset, len)) in op.places().into_iter().enumerate() {
            to.0.push(InParts { input: at + i, parts: parts.clone(), offset, len });
        }
        Ok((norm, factors))
    }

    /// The gradients of what norm `which` was given, and its linear map.
    fn norm_back(
        &self,
        cuda: &Cuda,
        which: usize,
        norm: &Norm,
        sums: &Tensor,
        count: usize,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<Tensor> {
        let (at, frozen) = (self.places().filters[which] + 1, self.places().frozen[which]);
        let mut slots = NormSlots::default();
        // What was given stands behind all filters.
        let (front, behind) = dx.split_at_mut(if self.frozen() { frozen } else { dx.len() });
        if self.affine {
            let (gamma, beta) = front[at..at + 2].split_at_mut(1);
            (slots.gamma, slots.beta) = (gamma[0].as_mut(), beta[0].as_mut());
        }
        if self.frozen() {
            let (mean, variance) = behind[..2].split_at_mut(1);
            (slots.mean, slots.variance) = (mean[0].as_mut(), variance[0].as_mut());
        }
        norm.backward(cuda, sums, self.frozen(), self.eps, count, slots)
    }
}
