//! Forward with frozen statistics when nothing is recorded: norms are folded into the filters.

use super::{DEPTHWISE, EXPAND, InvertedResidual, PROJECT};
use crate::cpu::Cpu;
use crate::cpu::fused::{Folded, Layers};
use crate::error::Result;
use crate::op::Output;
use crate::tensor::{DType, Shape, Tensor};

impl InvertedResidual {
    /// Folds inputs that shape() accepted.
    pub(in super::super) fn folded(&self, cpu: &Cpu, inputs: &[&Tensor]) -> Result<Folded> {
        let shapes: Vec<Shape> = inputs.iter().map(|t| t.shape()).collect();
        let (plan, places) = (self.plan(&shapes), self.places());
        let get = |at: usize| inputs[at].f32();
        let layer = |which: usize| Ok((get(places.filters[which])?, self.given(which, get)?));
        let squeeze = match self.squeeze {
            Some(gate) => {
                let at = places.squeeze;
                Some(([get(at)?, get(at + 1)?, get(at + 2)?, get(at + 3)?], gate))
            }
            None => None,
        };
        let layers = Layers {
            expand: if self.expand { Some(layer(EXPAND)?) } else { None },
            depthwise: layer(DEPTHWISE)?,
            squeeze,
            project: layer(PROJECT)?,
        };
        Folded::new(cpu, &plan, &layers, self.acts, self.residual)
    }

    pub(super) fn run_folded(&self, cpu: &Cpu, inputs: &[&Tensor]) -> Result<Output> {
        let folded = self.folded(cpu, inputs)?;
        let [n, h, w, _] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let mut y = Tensor::stale(cpu, folded.to([n, h, w]), DType::F32)?;
        folded.forward(cpu, inputs[0].f32()?, [n, h, w], y.f32_mut()?)?;
        Ok(y.into())
    }
}
