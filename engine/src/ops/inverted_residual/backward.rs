//! Backward: the passes in order, with the small layers of the gate between them.

use super::InvertedResidual;
use super::forward::{Gate, Saved};
use crate::cpu::Cpu;
use crate::cpu::fused::{
    self, Above, BLOCK, Below, EXCITE_SUMS, Middle, Norms, Plan, Slot, Source, Steps, Top,
};
use crate::error::Result;
use crate::op::Kept;
use crate::ops::{Act, dense};
use crate::tensor::{DType, Tensor};

/// Sums of an image and block.
const SET: usize = EXCITE_SUMS * BLOCK;

/// Slots of the gradients of the inputs.
type Slots<'a, 'b> = &'a mut [Option<&'b mut [f32]>];

impl InvertedResidual {
    pub(super) fn run_backward(
        &self,
        cpu: &Cpu,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: Slots<'_, '_>,
    ) -> Result<()> {
        let (plan, places) = (self.plan(kept.shapes), self.places());
        let saved = Saved::unpack(self, kept.saved);
        let (dy, x) = (dy.f32()?, kept.x(0)?);
        let [q, p] = [plan.pixels_to(), plan.pixels_from()];

        let top = Top { dy, h3: saved.project.0.f32()?, norm: &saved.project.1, act: self.acts[2] };
        let (top_steps, sums) = {
            let at = places.filters[2];
            let affine = if self.affine { pair(dx, at + 1) } else { [None, None] };
            fused::top_gradient(cpu, &plan, top, self.frozen(), affine)?
        };
        if self.frozen() {
            let (sum, product) = sums.f32()?.split_at(plan.o);
            let norm = saved.project.1.0.f32()?;
            let (inverse, scale) = (&norm[plan.o..2 * plan.o], &norm[2 * plan.o..3 * plan.o]);
            let [mean, var] = pair(dx, places.frozen[2]);
            frozen_gradients(
                plan.o,
                |j| ([f64::from(sum[j]), f64::from(product[j])], [inverse[j], scale[j]]),
                mean,
                var,
            );
        }

        let middle = Middle { h2: saved.depthwise.0.f32()?, norm: &saved.depthwise.1, act: self.acts[1] };
        let gates = match &saved.gate {
            Some(gate) => Some(gate.gates.f32()?),
            None => None,
        };
        let mut da2 = Tensor::stale(cpu, [plan.n, q * plan.wide()], DType::F32)?;
        let to = (da2.f32_mut()?, slot(kept, places.filters[2], &mut dx[places.filters[2]]));
        let sums = fused::project_backward(
            cpu,
            &plan,
            top,
            &top_steps,
            middle,
            gates,
            kept.x(places.filters[2])?,
            to,
        )?;

        let (factors, sums) = self.gate_backward(cpu, &plan, kept, saved.gate.as_ref(), &sums, dx)?;
        let steps = self.norm_backward(cpu, &plan, 1, &saved.depthwise.1, &sums, plan.n * q, dx)?;

        let above = Above { da2: da2.f32()?, middle, gates: factors.f32()?, steps: &steps };
        let filter = kept.x(places.filters[1])?;
        let added = if self.residual { dy } else { &[] };
        let Some((h1, norm1)) = &saved.expand else {
            let [dx, dw] = dx.get_disjoint_mut([0, places.filters[1]]).expect("two inputs");
            let below = match slot(kept, 0, dx) {
                Some(dx) => Below::Input(dx, added),
                None => Below::Nowhere,
            };
            return fused::depthwise_backward(
                cpu,
                &plan,
                above,
                Source::Input(x),
                filter,
                below,
                dw.as_deref_mut(),
            );
        };
        let (h1, constants) = (h1.f32()?, norm1.0.f32()?);
        let mut du1 = Tensor::stale(cpu, [plan.n, p * plan.wide()], DType::F32)?;
        let mut sums = Tensor::stale(cpu, [plan.n, plan.blocks() * 2 * BLOCK], DType::F32)?;
        fused::depthwise_backward(
            cpu,
            &plan,
            above,
            Source::Wide(h1, constants, self.acts[0]),
            filter,
            Below::Wide(du1.f32_mut()?, sums.f32_mut()?),
            dx[places.filters[1]].as_deref_mut(),
        )?;
        drop(da2);

        let mut both = [vec![0.0; plan.e], vec![0.0; plan.e]];
        for image in sums.f32()?.chunks_exact(plan.blocks() * 2 * BLOCK) {
            for (i, sums) in both.iter_mut().enumerate() {
                for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
                    let image = &image[(block * 2 + i) * BLOCK..];
                    sums.iter_mut().zip(image).for_each(|(sum, &v)| *sum += f64::from(v));
                }
            }
        }
        let steps = self.norm_backward(cpu, &plan, 0, norm1, &both, plan.n * p, dx)?;
        let at = places.filters[0];
        let [dx, dw] = dx.get_disjoint_mut([0, at]).expect("two inputs");
        fused::expand_backward(
            cpu,
            &plan,
            [du1.f32()?, h1],
            &steps,
            [x, kept.x(at)?, added],
            slot(kept, 0, dx),
            slot(kept, at, dw),
        )
    }

    /// The gate's small layers. Returns what `dA2` is multiplied with and what is then added,
    /// `[n][block][2][16]`, and the second batch norm's sums, which are linear in both.
    fn gate_backward(
        &self,
        cpu: &Cpu,
        plan: &Plan,
        kept: &Kept<'_>,
        gate: Option<&Gate>,
        sums: &Tensor,
        dx: Slots<'_, '_>,
    ) -> Result<(Tensor, [Vec<f64>; 2])> {
        let _span = cpu.pass("gate backward");
        let (n, e, blocks) = (plan.n, plan.e, plan.blocks());
        let (sums, wide) = (sums.f32()?, plan.wide());
        // The sums of an image and block, and the channels they are of.
        let sets = |image: usize| {
            let sets = sums[image * blocks * SET..(image + 1) * blocks * SET].chunks_exact(SET);
            sets.enumerate().map(move |(block, set)| (block * BLOCK..e.min((block + 1) * BLOCK), set))
        };
        let mut factors = Tensor::zeros(cpu, [n, blocks * 2 * BLOCK])?;
        let mut both = [vec![0.0; e], vec![0.0; e]];
        let Some(gate) = gate else {
            for factors in factors.f32_mut()?.chunks_exact_mut(2 * BLOCK) {
                factors[..BLOCK].fill(1.0);
            }
            for (channels, set) in (0..n).flat_map(sets) {
                for (i, both) in both.iter_mut().enumerate() {
                    let from = &set[(1 + i) * BLOCK..];
                    both[channels.clone()].iter_mut().zip(from).for_each(|(to, &sum)| *to += f64::from(sum));
                }
            }
            return Ok((factors, both));
        };
        let at = self.places().squeeze;
        let act = self.squeeze.unwrap_or(Act::Sigmoid);
        let mut du2 = Tensor::stale(cpu, [n, e], DType::F32)?;
        let logits = gate.logits.f32()?;
        for (image, du2) in du2.f32_mut()?.chunks_exact_mut(e).enumerate() {
            let logits = &logits[image * e..(image + 1) * e];
            for (channels, set) in sets(image) {
                let logits = &logits[channels.clone()];
                let to = du2[channels].iter_mut();
                to.zip(set).zip(logits).for_each(|((to, sum), &logit)| *to = sum * act.slope(logit));
            }
        }
        let mut du1 = Tensor::zeros(cpu, gate.hidden.shape())?;
        let hidden = gate.hidden.f32()?;
        {
            let [dw, db] = pair(dx, at + 2);
            dense::gradients(cpu, hidden, kept.input(at + 2), &du2, [Some(du1.f32_mut()?), dw, db])?;
        }
        du1.f32_mut()?.iter_mut().zip(hidden).for_each(|(d, &v)| *d = if v > 0.0 { *d } else { 0.0 });
        let mut dmeans = Tensor::zeros(cpu, [n, e])?;
        {
            let [dw, db] = pair(dx, at);
            dense::gradients(
                cpu,
                gate.means.f32()?,
                kept.input(at),
                &du1,
                [Some(dmeans.f32_mut()?), dw, db],
            )?;
        }
        let (gates, dmeans) = (gate.gates.f32()?, dmeans.f32()?);
        let per = 1.0 / plan.pixels_to() as f32;
        for (image, to) in factors.f32_mut()?.chunks_exact_mut(2 * wide).enumerate() {
            for ((channels, set), to) in sets(image).zip(to.chunks_exact_mut(2 * BLOCK)) {
                let count = channels.len();
                let (factor, summand) = to.split_at_mut(BLOCK);
                factor[..count].copy_from_slice(&gates[image * wide + channels.start..][..count]);
                let from = &dmeans[image * e + channels.start..][..count];
                summand.iter_mut().zip(from).for_each(|(to, mean)| *to = mean * per);
                for (i, both) in both.iter_mut().enumerate() {
                    let (own, means) = (&set[(1 + i) * BLOCK..], &set[(3 + i) * BLOCK..]);
                    for (lane, to) in both[channels.clone()].iter_mut().enumerate() {
                        *to += f64::from(factor[lane]) * f64::from(own[lane])
                            + f64::from(summand[lane]) * f64::from(means[lane]);
                    }
                }
            }
        }
        Ok((factors, both))
    }

    /// Gradients of a wide batch norm's parameters, and the constants of its input's gradient.
    #[allow(clippy::too_many_arguments, reason = "a batch norm and where its gradients go")]
    fn norm_backward(
        &self,
        cpu: &Cpu,
        plan: &Plan,
        which: usize,
        norm: &Norms,
        sums: &[Vec<f64>; 2],
        count: usize,
        dx: Slots<'_, '_>,
    ) -> Result<Steps> {
        let _span = cpu.pass("norm backward");
        if self.affine {
            let [dscale, dshift] = pair(dx, self.places().filters[which] + 1);
            if let Some(dscale) = dscale {
                for (j, d) in dscale.iter_mut().enumerate() {
                    *d += (sums[1][j] * f64::from(norm.channel(j)?[1])) as f32;
                }
            }
            if let Some(dshift) = dshift {
                dshift.iter_mut().zip(&sums[0]).for_each(|(d, &sum)| *d += sum as f32);
            }
        }
        if self.frozen() {
            let [mean, var] = pair(dx, self.places().frozen[which]);
            let constants = (0..plan.e).map(|j| norm.channel(j)).collect::<Result<Vec<_>>>()?;
            let of = |j: usize| ([sums[0][j], sums[1][j]], [constants[j][1], constants[j][2]]);
            frozen_gradients(plan.e, of, mean, var);
        }
        Steps::new(cpu, plan, norm, [&sums[0], &sums[1]], count, self.frozen())
    }
}

/// The slot of input `at`.
fn slot<'a>(kept: &Kept<'_>, at: usize, dx: &'a mut Option<&mut [f32]>) -> Option<Slot<'a>> {
    dx.as_deref_mut().map(|to| Slot { to, add: !kept.is_fresh(at) })
}

/// The slots `at` and `at + 1`.
fn pair<'a>(dx: &'a mut [Option<&mut [f32]>], at: usize) -> [Option<&'a mut [f32]>; 2] {
    let (first, second) = dx[at..at + 2].split_at_mut(1);
    [first[0].as_deref_mut(), second[0].as_deref_mut()]
}

/// Adds the gradients of given means and variances, from a channel's sums and its reciprocal
/// deviation and scale.
fn frozen_gradients(
    channels: usize,
    of: impl Fn(usize) -> ([f64; 2], [f32; 2]),
    mut mean: Option<&mut [f32]>,
    mut var: Option<&mut [f32]>,
) {
    for j in 0..channels {
        let ([sum, product], [inverse, scale]) = of(j);
        if let Some(mean) = &mut mean {
            mean[j] -= (f64::from(scale) * sum) as f32;
        }
        if let Some(var) = &mut var {
            var[j] -= (0.5 * f64::from(scale) * f64::from(inverse).powi(2) * product) as f32;
        }
    }
}
