//! Binary gates (ProxylessNAS, Cai et al., ICLR 2019, arXiv 1812.00332): architecture parameters, trained in turns
//! with the weights.
//!
//! Every candidate of a slot has a parameter α; p = softmax(α) of a slot. A weight step trains one path drawn from
//! p on training images. An architecture step draws two candidates a slot without replacement, of these one that
//! runs, and moves α by the gradient of its loss on held-out images through the gates. What is kept of the two kinds
//! of step follows from (seed, step), so a checkpoint holds α and its moments and nothing else.

mod cost;
mod formulas;
mod step;

use std::path::{Path, PathBuf};

use engine::Rng;
use engine::rng::Draws;
use serde::{Deserialize, Serialize};

pub use cost::{Costs, GateCost, GateLoss, LossParts};
pub use formulas::{Adam, expected, expected_gradient, gate_gradient, keep_share, log_sum_exp, softmax};
pub(crate) use step::{Architect, Seen};
pub use step::{GateGradients, GateJob, gate_gradients};

use crate::arch::Arch;
use crate::blocks::Block;
use crate::checkpoint::Archive;
use crate::error::{Error, Result};
use crate::space::Space;

/// Settings of binary gates; the defaults are those of the released code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GatesConfig {
    /// Epochs that train weights alone, before those of `supernet.train`, at a rate of their own that falls as a
    /// cosine to zero.
    #[serde(default = "forty")]
    pub warmup_epochs: u64,
    /// Learning rate at their begin.
    #[serde(default = "warmup_lr")]
    pub warmup_lr: f32,
    /// Epochs of `supernet.train` before the first architecture step.
    #[serde(default = "one")]
    pub idle_epochs: u64,
    /// Weight steps from one architecture step to the next.
    #[serde(default = "five")]
    pub every: u64,
    /// Held-out images of an architecture step.
    #[serde(default = "images")]
    pub batch: usize,
    /// Learning rate of the architecture parameters (Adam).
    #[serde(default = "lr")]
    pub lr: f64,
    /// How much of Adam's two moments stays from step to step.
    #[serde(default = "betas")]
    pub betas: [f64; 2],
    /// Weight decay, as a part of the gradient.
    #[serde(default)]
    pub weight_decay: f64,
    /// What a network costs.
    pub cost: GateCost,
    /// How cost and accuracy are weighed.
    #[serde(default)]
    pub loss: GateLoss,
}

fn forty() -> u64 {
    40
}
fn warmup_lr() -> f32 {
    0.05
}
fn one() -> u64 {
    1
}
fn five() -> u64 {
    5
}
fn images() -> usize {
    256
}
fn lr() -> f64 {
    1e-3
}
fn betas() -> [f64; 2] {
    [0.0, 0.999]
}

impl GatesConfig {
    /// Checks what can be known without the space; `section` is where it stands in the recipe.
    ///
    /// # Errors
    /// [`Error::Setting`] with the key.
    pub fn check(&self, section: &str) -> Result<()> {
        let bad = |key: &str, value: String, range: &str| {
            let key = format!("{section}.{key}");
            Err(Error::Setting { key, value, range: range.to_owned() })
        };
        for (key, epochs) in [("warmup-epochs", self.warmup_epochs), ("idle-epochs", self.idle_epochs)] {
            if epochs > 1_000_000 {
                return bad(key, epochs.to_string(), "0 to 1,000,000");
            }
        }
        if !(1..=1_000_000).contains(&self.every) {
            return bad("every", self.every.to_string(), "1 to 1,000,000");
        }
        if !(2..=1 << 20).contains(&self.batch) {
            return bad("batch", self.batch.to_string(), "2 to 1,048,576");
        }
        for (key, rate) in [("warmup-lr", f64::from(self.warmup_lr)), ("lr", self.lr)] {
            if !(rate.is_finite() && rate > 0.0) {
                return bad(key, rate.to_string(), "above 0");
            }
        }
        if !self.betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
            return bad("betas", format!("{:?}", self.betas), "two numbers from 0 to below 1");
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return bad("weight-decay", self.weight_decay.to_string(), "0 or more");
        }
        self.cost.check()?;
        self.loss.check()
    }

    /// The latency table, if the cost is a latency.
    pub(crate) fn table(&mut self) -> Option<&mut PathBuf> {
        match &mut self.cost {
            GateCost::Latency { table, .. } => Some(table),
            GateCost::Macs { .. } => None,
        }
    }

    /// Adam of the architecture parameters.
    pub(crate) fn adam(&self) -> Adam {
        Adam { lr: self.lr, betas: self.betas, decay: self.weight_decay }
    }
}

/// The architecture parameters of one slot with the moments of Adam, an entry a candidate.
#[derive(Clone, Debug, PartialEq)]
struct Slot {
    alpha: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    /// Updates of this slot.
    updates: u64,
}

/// The architecture parameters of a space.
#[derive(Clone, Debug, PartialEq)]
pub struct Gates {
    slots: Vec<Slot>,
    /// Architecture steps done.
    steps: u64,
}

/// What an architecture step runs in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The candidate whose value goes on.
    pub active: usize,
    /// The other one that takes part; `active` again where the slot has only one.
    pub other: usize,
}

impl Pair {
    /// Whether there is nothing to choose.
    pub fn is_single(self) -> bool {
        self.active == self.other
    }
}

impl Gates {
    /// Standard deviation of the first α.
    const INIT: f64 = 1e-3;

    /// Nearly equal probabilities: α from a normal distribution of deviation 0.001.
    pub fn new(space: &Space, seed: u64) -> Self {
        let rng = Rng::new(seed, "gates");
        let slot = |(number, slot): (usize, &crate::space::Slot)| {
            let mut draws = rng.at(number as u32, 0, 0);
            let n = slot.choices.len();
            let alpha = (0..n).map(|_| Self::INIT * f64::from(draws.normal())).collect();
            Slot { alpha, first: vec![0.0; n], second: vec![0.0; n], updates: 0 }
        };
        Self { slots: space.slots().iter().enumerate().map(slot).collect(), steps: 0 }
    }

    /// Architecture steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The probabilities of every slot's candidates.
    pub fn probabilities(&self) -> Vec<Vec<f64>> {
        self.slots.iter().map(|slot| softmax(&slot.alpha)).collect()
    }

    /// The entropy of a slot's probabilities in nats, the mean over all slots.
    pub fn entropy(&self) -> f64 {
        let of = |p: &f64| if *p > 0.0 { -p * p.ln() } else { 0.0 };
        let sum: f64 = self.probabilities().iter().flatten().map(of).sum();
        sum / self.slots.len().max(1) as f64
    }

    /// The most likely candidate of every slot, the first of equals: what the search ends with.
    pub fn most_likely(&self) -> Arch {
        let best = |slot: &Slot| {
            let better = |best: usize, i: usize| if slot.alpha[i] > slot.alpha[best] { i } else { best };
            (1..slot.alpha.len()).fold(0, better) as u16
        };
        Arch::new(self.slots.iter().map(best).collect())
    }

    /// The path of a weight step.
    pub fn path(&self, rng: &Rng, step: u64) -> Arch {
        let mut draws = at(rng, step);
        Arch::new(self.slots.iter().map(|slot| pick(&softmax(&slot.alpha), &mut draws) as u16).collect())
    }

    /// Takes a candidate out: its probability is 0 from now on, and its place stays.
    pub fn close(&mut self, slot: usize, candidate: usize) {
        self.slots[slot].alpha[candidate] = f64::NEG_INFINITY;
    }

    /// What architecture step `step` runs: in every slot with two candidates or more two of them, drawn from p
    /// without replacement, and of these one by the softmax over the two.
    pub fn pairs(&self, rng: &Rng, step: u64) -> Vec<Pair> {
        let mut draws = at(rng, step);
        let mut pair = |slot: &Slot| {
            let a = pick(&softmax(&slot.alpha), &mut draws);
            let is_rest = |&i: &usize| i != a && slot.alpha[i] > f64::NEG_INFINITY;
            let rest: Vec<usize> = (0..slot.alpha.len()).filter(is_rest).collect();
            if rest.is_empty() {
                return Pair { active: a, other: a };
            }
            let left: Vec<f64> = rest.iter().map(|&i| slot.alpha[i]).collect();
            let b = rest[pick(&softmax(&left), &mut draws)];
            let share = softmax(&[slot.alpha[a], slot.alpha[b]]);
            let first = pick(&share, &mut draws) == 0;
            if first { Pair { active: a, other: b } } else { Pair { active: b, other: a } }
        };
        self.slots.iter().map(&mut pair).collect()
    }

    /// One step of the architecture parameters. `by_gate` is the gradient of the cross-entropy by the gates of each
    /// pair, active candidate first; `parts` says how it and the expected cost weigh.
    ///
    /// As in the released code a slot whose active candidate is the skip is left as it is, moments included, and
    /// the two that took part keep their common share of probability.
    pub fn update(
        &mut self,
        space: &Space,
        costs: &Costs,
        adam: &Adam,
        pairs: &[Pair],
        by_gate: &[[f64; 2]],
        parts: &LossParts,
    ) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Pair { active, other } = pairs[number];
            let skips = matches!(space.slots()[number].choices[active].block, Block::Skip {});
            if pairs[number].is_single() || skips {
                continue;
            }
            let p = softmax(&slot.alpha);
            let mut gradient = expected_gradient(costs.of(number), &p);
            gradient.iter_mut().for_each(|g| *g *= parts.by_cost);
            let both = [slot.alpha[active], slot.alpha[other]];
            let through = gate_gradient(&by_gate[number], &softmax(&both));
            gradient[active] += parts.by_cross_entropy * through[0];
            gradient[other] += parts.by_cross_entropy * through[1];
            slot.updates += 1;
            let moments = slot.first.iter_mut().zip(&mut slot.second);
            for ((alpha, (first, second)), g) in slot.alpha.iter_mut().zip(moments).zip(gradient) {
                if alpha.is_finite() {
                    *alpha -= adam.update(slot.updates, g + adam.decay * *alpha, first, second);
                }
            }
            keep_share(&mut slot.alpha, [active, other], log_sum_exp(&both));
        }
        self.steps += 1;
    }

    /// Puts all into `archive`, to the bit.
    pub fn save(&self, archive: &mut Archive) {
        let bits = |of: &dyn Fn(&Slot) -> &[f64]| -> Vec<u64> {
            self.slots.iter().flat_map(|slot| of(slot).iter().map(|v| v.to_bits())).collect()
        };
        archive.counts.insert("gates.alpha".into(), bits(&|slot| &slot.alpha));
        archive.counts.insert("gates.first".into(), bits(&|slot| &slot.first));
        archive.counts.insert("gates.second".into(), bits(&|slot| &slot.second));
        let updates = self.slots.iter().map(|slot| slot.updates).chain([self.steps]);
        archive.counts.insert("gates.updates".into(), updates.collect());
    }

    /// Takes all from `archive`.
    ///
    /// # Errors
    /// [`Error::Format`] if something is missing, is of another space or no number.
    pub fn load(&mut self, archive: &Archive, path: &Path) -> Result<()> {
        let candidates: usize = self.slots.iter().map(|slot| slot.alpha.len()).sum();
        let array = |name: &str, n: usize| match archive.counts.get(name) {
            Some(values) if values.len() == n => Ok(values),
            found => Err(Error::Format {
                path: path.to_owned(),
                reason: match found {
                    Some(values) => {
                        format!("array {name:?} has {} entries where {n} are expected", values.len())
                    }
                    None => format!("array {name:?} is missing"),
                },
            }),
        };
        // A candidate that was taken out has an alpha of minus infinity.
        let numbers = |name: &str, least: f64| -> Result<Vec<f64>> {
            let values: Vec<f64> =
                array(name, candidates)?.iter().map(|&bits| f64::from_bits(bits)).collect();
            match values.iter().find(|v| !(**v >= least && **v < f64::INFINITY)) {
                None => Ok(values),
                Some(bad) => Err(Error::Format {
                    path: path.to_owned(),
                    reason: format!("array {name:?} holds {bad}"),
                }),
            }
        };
        let (alpha, first, second) = (
            numbers("gates.alpha", f64::NEG_INFINITY)?,
            numbers("gates.first", f64::MIN)?,
            numbers("gates.second", 0.0)?,
        );
        let updates = array("gates.updates", self.slots.len() + 1)?;
        let mut at = 0;
        for (slot, &updates) in self.slots.iter_mut().zip(updates) {
            let of = at..at + slot.alpha.len();
            at = of.end;
            slot.alpha.copy_from_slice(&alpha[of.clone()]);
            slot.first.copy_from_slice(&first[of.clone()]);
            slot.second.copy_from_slice(&second[of]);
            slot.updates = updates;
        }
        self.steps = updates[self.slots.len()];
        Ok(())
    }
}

/// The draws of a step.
fn at(rng: &Rng, step: u64) -> Draws {
    rng.at((step >> 32) as u32, step as u32, 0)
}

/// A place drawn with these probabilities.
fn pick(p: &[f64], draws: &mut Draws) -> usize {
    let mut left = f64::from(draws.uniform());
    for (i, p) in p.iter().enumerate() {
        left -= p;
        if left < 0.0 {
            return i;
        }
    }
    // The sum may fall short of 1 by rounding.
    p.iter().rposition(|&p| p > 0.0).unwrap_or(0)
}
