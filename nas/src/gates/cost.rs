//! What the architecture parameters are trained on: cross-entropy and expected cost (ProxylessNAS, section 3.3; the
//! product of the two is the released code's).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::formulas;
use crate::error::{Error, Result};
use crate::latency::LatencyTable;
use crate::space::Space;

/// What a network costs, and the cost that is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum GateCost {
    /// Multiply-adds.
    Macs {
        /// The multiply-adds that are wanted.
        reference: f64,
    },
    /// Milliseconds on the machine that a table was measured on.
    Latency {
        /// File that `monopath bench latency` wrote.
        table: PathBuf,
        /// The milliseconds that are wanted.
        reference: f64,
    },
}

/// How cross-entropy and expected cost E make one loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum GateLoss {
    /// `alpha CE (ln E / ln reference)^beta` (released code).
    MulLog {
        /// Factor.
        #[serde(default = "fifth")]
        alpha: f64,
        /// Exponent.
        #[serde(default = "beta")]
        beta: f64,
    },
    /// `CE + lambda (E - reference) / reference` (the paper's, in units of the reference).
    AddLinear {
        /// Weight of the cost.
        #[serde(default = "tenth")]
        lambda: f64,
    },
}

fn fifth() -> f64 {
    0.2
}
fn beta() -> f64 {
    0.3
}
fn tenth() -> f64 {
    0.1
}

impl Default for GateLoss {
    fn default() -> Self {
        GateLoss::MulLog { alpha: fifth(), beta: beta() }
    }
}

/// A loss with its derivatives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossParts {
    /// The loss.
    pub value: f64,
    /// By the cross-entropy.
    pub by_cross_entropy: f64,
    /// By the expected cost.
    pub by_cost: f64,
}

impl GateLoss {
    /// The loss for a cross-entropy and an expected cost.
    pub fn parts(self, cross_entropy: f64, expected: f64, reference: f64) -> LossParts {
        match self {
            GateLoss::MulLog { alpha, beta } => {
                let ratio = expected.ln() / reference.ln();
                let factor = alpha * ratio.powf(beta);
                let by_ratio = alpha * cross_entropy * beta * ratio.powf(beta - 1.0);
                LossParts {
                    value: factor * cross_entropy,
                    by_cross_entropy: factor,
                    by_cost: by_ratio / (expected * reference.ln()),
                }
            }
            GateLoss::AddLinear { lambda } => LossParts {
                value: cross_entropy + lambda * (expected - reference) / reference,
                by_cross_entropy: 1.0,
                by_cost: lambda / reference,
            },
        }
    }

    pub(super) fn check(self) -> Result<()> {
        let values = match self {
            GateLoss::MulLog { alpha, beta } => [("alpha", alpha), ("beta", beta)],
            GateLoss::AddLinear { lambda } => [("lambda", lambda), ("lambda", lambda)],
        };
        match values.iter().find(|(_, v)| !(v.is_finite() && *v >= 0.0)) {
            None => Ok(()),
            Some((key, value)) => Err(Error::Setting {
                key: format!("supernet.gates.loss.{key}"),
                value: value.to_string(),
                range: "0 or more".into(),
            }),
        }
    }
}

impl GateCost {
    /// The cost that is wanted.
    pub fn reference(&self) -> f64 {
        match *self {
            GateCost::Macs { reference } | GateCost::Latency { reference, .. } => reference,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let reference = self.reference();
        if reference.is_finite() && reference > 0.0 { Ok(()) } else { Err(self.bad(reference, "above 0")) }
    }

    fn bad(&self, value: f64, range: &str) -> Error {
        Error::Setting {
            key: "supernet.gates.cost.reference".into(),
            value: value.to_string(),
            range: range.into(),
        }
    }
}

/// What the candidates of a space cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    fixed: f64,
    slots: Vec<Vec<f64>>,
}

impl Costs {
    /// Of `space`; a table's path starts at `base`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Latency`] for the table; [`Error::Setting`] if it lacks a candidate, or if costs
    /// are so low that `loss` has no logarithm for them.
    pub fn new(space: &Space, cost: &GateCost, loss: GateLoss, base: &Path) -> Result<Self> {
        let costs = match cost {
            GateCost::Macs { .. } => {
                let first = space.first();
                let chosen = |(slot, &choice): (&crate::space::Slot, &u16)| {
                    slot.choices[usize::from(choice)].cost.macs
                };
                let chosen: u64 = space.slots().iter().zip(first.choices()).map(chosen).sum();
                let slot =
                    |slot: &crate::space::Slot| slot.choices.iter().map(|c| c.cost.macs as f64).collect();
                Self {
                    fixed: (space.cost(&first).macs - chosen) as f64,
                    slots: space.slots().iter().map(slot).collect(),
                }
            }
            GateCost::Latency { table, .. } => {
                let path = base.join(table);
                let latency = LatencyTable::load(&path)?.of(space, &path)?;
                let time = |slot: usize, choice: usize| {
                    latency.candidate(slot, choice).ok_or_else(|| Error::Setting {
                        key: "supernet.gates.cost.table".into(),
                        value: path.display().to_string(),
                        range: format!(
                            "a table with a time for every candidate; {} of {} was dropped from it",
                            space.slots()[slot].choices[choice].label,
                            space.slots()[slot].name
                        ),
                    })
                };
                let slot = |(number, slot): (usize, &crate::space::Slot)| {
                    (0..slot.choices.len()).map(|choice| time(number, choice)).collect::<Result<Vec<f64>>>()
                };
                Self {
                    fixed: latency.fixed(),
                    slots: space.slots().iter().enumerate().map(slot).collect::<Result<_>>()?,
                }
            }
        };
        let least = |slot: &Vec<f64>| slot.iter().copied().fold(f64::INFINITY, f64::min);
        let smallest = costs.fixed + costs.slots.iter().map(least).sum::<f64>();
        // ln E / ln reference must be positive whatever the probabilities become.
        if matches!(loss, GateLoss::MulLog { .. }) && (smallest <= 1.0 || cost.reference() <= 1.0) {
            let range = format!(
                "above 1, as must be the least cost, {smallest}, where the loss is \"mul-log\"; take \"add-linear\""
            );
            return Err(cost.bad(cost.reference(), &range));
        }
        Ok(costs)
    }

    /// The costs of a slot's candidates.
    pub fn of(&self, slot: usize) -> &[f64] {
        &self.slots[slot]
    }

    /// The expected cost under the probabilities of every slot's candidates.
    pub fn expected(&self, p: &[Vec<f64>]) -> f64 {
        self.fixed + self.slots.iter().zip(p).map(|(costs, p)| formulas::expected(costs, p)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivatives_of_both_losses_are_their_difference_quotients() {
        let (ce, cost, reference) = (1.7, 350e6, 300e6);
        for loss in [GateLoss::default(), GateLoss::AddLinear { lambda: 0.1 }] {
            let value = |ce: f64, cost: f64| loss.parts(ce, cost, reference).value;
            let parts = loss.parts(ce, cost, reference);
            let by_ce = (value(ce + 1e-5, cost) - value(ce - 1e-5, cost)) / 2e-5;
            let by_cost = (value(ce, cost + 1e3) - value(ce, cost - 1e3)) / 2e3;
            assert!((parts.by_cross_entropy - by_ce).abs() < 1e-9, "{loss:?}");
            assert!((parts.by_cost / by_cost - 1.0).abs() < 1e-6, "{loss:?}");
        }
        let parts = GateLoss::default().parts(2.0, reference, reference);
        assert_eq!((parts.value, parts.by_cross_entropy), (0.4, 0.2), "at the reference the ratio is 1");
    }

    #[test]
    fn the_expected_cost_of_sure_gates_is_that_of_their_network() {
        let space = Space::load("proxyless-gpu").unwrap();
        let cost = GateCost::Macs { reference: 475e6 };
        let costs = Costs::new(&space, &cost, GateLoss::default(), Path::new("")).unwrap();
        for n in 0..10 {
            let arch = space.sample(&mut engine::Rng::new(n, "sure").at(0, 0, 0));
            let sure = |(slot, &chosen): (&crate::space::Slot, &u16)| {
                (0..slot.choices.len()).map(|c| f64::from(u8::from(c == usize::from(chosen)))).collect()
            };
            let p: Vec<Vec<f64>> = space.slots().iter().zip(arch.choices()).map(sure).collect();
            assert_eq!(costs.expected(&p), space.cost(&arch).macs as f64);
        }
    }

    #[test]
    fn costs_without_a_logarithm_are_refused() {
        let space = Space::load("quickstart").unwrap();
        let low = GateCost::Macs { reference: 1.0 };
        let error = Costs::new(&space, &low, GateLoss::default(), Path::new("")).unwrap_err().to_string();
        assert!(error.contains("add-linear") && error.contains("supernet.gates.cost.reference"), "{error}");
        Costs::new(&space, &low, GateLoss::AddLinear { lambda: 0.1 }, Path::new("")).unwrap();
    }
}
