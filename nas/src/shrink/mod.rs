//! Angle-based shrinking of a search space (ABS, arXiv 2004.13431): while a supernet is trained, candidates
//! whose networks' weights have turned least are dropped, until the space is small.
//!
//! What is here looks at weights and scores alone; the loop with its training is `run/shrink.rs`.

mod angle;
mod drop;
mod operators;

use serde::{Deserialize, Serialize};

pub use angle::{Angles, Products};
pub use drop::DropRule;
pub use operators::{OperatorScore, operator_scores};

use crate::error::{Error, Result};
use crate::gates::{GateCost, GateLoss, Gates, GatesConfig};
use crate::recipe::TrainConfig;
use crate::search::Constraint;
use crate::space::Space;

/// Settings of shrinking; the defaults are those of the paper's released code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ShrinkConfig {
    /// Networks that may be left.
    #[serde(default = "million")]
    pub size_limit: u64,
    /// What goes in a round.
    pub drop: DropRule,
    /// What an operator is judged by.
    #[serde(default)]
    pub metric: OperatorMetric,
    /// Different children that an operator's score is the mean over.
    #[serde(default = "thousand")]
    pub children: usize,
    /// What sampled children may cost; training has no such rule.
    #[serde(default)]
    pub constraint: Constraint,
    /// Epochs of training before the first round.
    #[serde(default = "hundred")]
    pub first_epochs: u64,
    /// Epochs of training before each later round.
    #[serde(default = "five")]
    pub later_epochs: u64,
    /// Once more candidates than these are gone, the weights of that moment become the base of the angles;
    /// this happens once.
    #[serde(default = "fifty")]
    pub reset_after: usize,
    /// Training; its `epochs` are those over which the learning rate falls, and it stays at its end afterwards.
    pub train: TrainConfig,
}

fn million() -> u64 {
    1_000_000
}
fn thousand() -> usize {
    1000
}
fn hundred() -> u64 {
    100
}
fn five() -> u64 {
    5
}
fn fifty() -> usize {
    50
}

/// What an operator is judged by: the mean of this over children that contain it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum OperatorMetric {
    /// The angle between the child's weights at the base and now: no data, no forward pass.
    #[default]
    Angle,
    /// Rival: the operator's probability under architecture parameters that are trained along with the weights, on
    /// held-out images through binary gates; paths stay uniform. No children.
    Magnitude {
        /// Learning rate of Adam.
        #[serde(default = "magnitude_lr")]
        lr: f64,
        /// How much of Adam's moments stays.
        #[serde(default = "magnitude_betas")]
        betas: [f64; 2],
        /// Weight decay.
        #[serde(default = "magnitude_decay")]
        weight_decay: f64,
        /// Weight steps from one step of theirs to the next.
        #[serde(default = "one")]
        every: u64,
        /// Held-out images of such a step.
        images: usize,
    },
    /// Rival: the child's accuracy on one batch of held-out images, batch norms taking the batch's statistics.
    Accuracy {
        /// Images, as many of each class.
        images: usize,
    },
}

fn magnitude_lr() -> f64 {
    3e-4
}
fn magnitude_betas() -> [f64; 2] {
    [0.5, 0.999]
}
fn magnitude_decay() -> f64 {
    1e-3
}
fn one() -> u64 {
    1
}

impl OperatorMetric {
    /// The architecture parameters that the metric needs, if it does.
    pub fn gates(self) -> Option<GatesConfig> {
        let OperatorMetric::Magnitude { lr, betas, weight_decay, every, images } = self else { return None };
        Some(GatesConfig {
            warmup_epochs: 0,
            warmup_lr: 1.0,
            idle_epochs: 0,
            every,
            batch: images,
            lr,
            betas,
            weight_decay,
            // The cross-entropy alone.
            cost: GateCost::Macs { reference: 1.0 },
            loss: GateLoss::AddLinear { lambda: 0.0 },
        })
    }
}

/// The probability that `gates` of the whole space give every operator of each slot of `space` that has two or
/// more; `place` tells where a slot's choice stands in the whole space.
pub fn magnitudes(space: &Space, gates: &Gates, place: impl Fn(usize, usize) -> usize) -> Vec<OperatorScore> {
    let p = gates.probabilities();
    let open = space.slots().iter().enumerate().filter(|(_, slot)| slot.choices.len() > 1);
    open.flat_map(|(slot, s)| (0..s.choices.len()).map(move |choice| (slot, choice)))
        .map(|(slot, choice)| OperatorScore {
            slot,
            choice,
            score: Some(p[slot][place(slot, choice)]),
            children: 0,
        })
        .collect()
}

impl ShrinkConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] with the key.
    pub fn check(&self) -> Result<()> {
        self.constraint.check("shrink")?;
        let bad = |key: &str, value: u64, range: &str| {
            Err(Error::Setting {
                key: format!("shrink.{key}"),
                value: value.to_string(),
                range: range.into(),
            })
        };
        if self.size_limit == 0 {
            return bad("size-limit", 0, "1 or more");
        }
        if let DropRule::Lowest { n: 0 } = self.drop {
            return bad("drop.n", 0, "1 or more");
        }
        if !(1..=1_000_000).contains(&self.children) {
            return bad("children", self.children as u64, "1 to 1,000,000");
        }
        for (key, epochs) in [("first-epochs", self.first_epochs), ("later-epochs", self.later_epochs)] {
            if !(1..=1_000_000).contains(&epochs) {
                return bad(key, epochs, "1 to 1,000,000");
            }
        }
        if let Some(gates) = self.metric.gates() {
            gates.check("shrink.metric")?;
        }
        self.train.check("shrink.train")
    }
}
