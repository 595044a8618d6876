//! Forward: the passes in order, and what backward needs of them.

use super::InvertedResidual;
use crate::cpu::Cpu;
use crate::cpu::fused::{self, BLOCK, Norms, Plan, Source, TopNorm};
use crate::error::Result;
use crate::op::Output;
use crate::ops::{Act, dense};
use crate::tensor::{DType, Shape, Tensor};

/// What the gate was made of.
pub(super) struct Gate {
    /// `[n, wide]`: the gates, ones in the tail.
    pub gates: Tensor,
    /// `[n, e]`: means of the planes.
    pub means: Tensor,
    /// `[n, r]`: after ReLU.
    pub hidden: Tensor,
    /// `[n, e]`: before the gate's activation.
    pub logits: Tensor,
}

/// What forward leaves for backward.
pub(super) struct Saved {
    /// Raw output of expand and its norm.
    pub expand: Option<(Tensor, Norms)>,
    /// Raw output of the depthwise convolution and its norm.
    pub depthwise: (Tensor, Norms),
    /// Raw output of project and its norm.
    pub project: (Tensor, TopNorm),
    pub gate: Option<Gate>,
}

impl Saved {
    fn pack(self) -> Vec<Tensor> {
        let mut all = Vec::with_capacity(10);
        if let Some((h, norm)) = self.expand {
            all.extend([h, norm.0]);
        }
        all.extend([self.depthwise.0, self.depthwise.1.0, self.project.0, self.project.1.0]);
        if let Some(gate) = self.gate {
            all.extend([gate.gates, gate.means, gate.hidden, gate.logits]);
        }
        all
    }

    pub(super) fn unpack(op: &InvertedResidual, saved: &[Tensor]) -> Self {
        let mut saved = saved.iter().cloned();
        let mut next = || saved.next().expect("forward saved as many as it unpacks");
        Saved {
            expand: op.expand.then(|| (next(), Norms(next()))),
            depthwise: (next(), Norms(next())),
            project: (next(), TopNorm(next())),
            gate: op.squeeze.map(|_| Gate { gates: next(), means: next(), hidden: next(), logits: next() }),
        }
    }
}

impl InvertedResidual {
    pub(super) fn run_forward(&self, cpu: &Cpu, inputs: &[&Tensor], record: bool) -> Result<Output> {
        let shapes: Vec<Shape> = inputs.iter().map(|t| t.shape()).collect();
        let (plan, places) = (self.plan(&shapes), self.places());
        let get = |at: usize| inputs[at].f32();
        let x = get(0)?;
        let mut moments = Vec::with_capacity(3);

        let expand = if self.expand {
            let mut h1 = Tensor::stale(cpu, [plan.n, plan.pixels_from() * plan.wide()], DType::F32)?;
            let given = self.given(0, get)?;
            let (norm, found) = fused::expand(cpu, &plan, x, get(places.filters[0])?, h1.f32_mut()?, given)?;
            moments.extend(found);
            Some((h1, norm))
        } else {
            None
        };

        let source = match &expand {
            Some((h1, norm)) => Source::Wide(h1.f32()?, norm.0.f32()?, self.acts[0]),
            None => Source::Input(x),
        };
        let mut h2 = Tensor::stale(cpu, [plan.n, plan.pixels_to() * plan.wide()], DType::F32)?;
        let given = self.given(1, get)?;
        let (norm2, found) =
            fused::depthwise(cpu, &plan, source, get(places.filters[1])?, h2.f32_mut()?, given)?;
        moments.extend(found);
        // Nobody reads it again.
        let expand = expand.filter(|_| record);

        let gate = match self.squeeze {
            Some(act) => Some(self.gate(cpu, &plan, &inputs[places.squeeze..], &h2, &norm2, act)?),
            None => None,
        };
        let gates = match &gate {
            Some(gate) => Some(gate.gates.f32()?),
            None => None,
        };

        let to: Shape = [plan.n, plan.to[0], plan.to[1], plan.o].into();
        let mut h3 = Tensor::stale(cpu, to, DType::F32)?;
        let (w3, given) = (get(places.filters[2])?, self.given(2, get)?);
        let (norm3, found) =
            fused::project(cpu, &plan, h2.f32()?, &norm2, self.acts[1], gates, w3, h3.f32_mut()?, given)?;
        moments.extend(found);

        let mut y = Tensor::stale(cpu, to, DType::F32)?;
        let added = if self.residual { x } else { &[] };
        fused::finish(cpu, &plan, h3.f32()?, &norm3, self.acts[2], added, y.f32_mut()?)?;
        let saved = if record {
            Saved { expand, depthwise: (h2, norm2), project: (h3, norm3), gate }.pack()
        } else {
            Vec::new()
        };
        Ok(Output { y, saved, moments })
    }

    fn gate(
        &self,
        cpu: &Cpu,
        plan: &Plan,
        inputs: &[&Tensor],
        h2: &Tensor,
        norm: &Norms,
        act: Act,
    ) -> Result<Gate> {
        let (n, e, wide, r) = (plan.n, plan.e, plan.wide(), inputs[0].shape().dims()[0]);
        let mut means = Tensor::stale(cpu, [n, e], DType::F32)?;
        fused::squeeze(cpu, plan, h2.f32()?, norm, self.acts[1], means.f32_mut()?)?;
        let _span = cpu.pass("gate");
        let mut hidden = dense::forward(cpu, &means, inputs[0], Some(inputs[1]), [n, r].into())?;
        hidden.f32_mut()?.iter_mut().for_each(|v| *v = Act::Relu.value(*v));
        let logits = dense::forward(cpu, &hidden, inputs[2], Some(inputs[3]), [n, e].into())?;
        let mut gates = Tensor::stale(cpu, [n, wide], DType::F32)?;
        debug_assert_eq!(wide % BLOCK, 0);
        for (gates, logits) in gates.f32_mut()?.chunks_exact_mut(wide).zip(logits.f32()?.chunks_exact(e)) {
            gates.iter_mut().zip(logits).for_each(|(g, &u)| *g = act.value(u));
            gates[e..].fill(1.0);
        }
        Ok(Gate { gates, means, hidden, logits })
    }
}
