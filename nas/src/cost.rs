//! What a network costs: exact parameters and multiply-adds.

use serde::{Deserialize, Serialize};

/// Parameters and multiply-adds of one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Everything that is learned, two for every batch-norm channel.
    pub params: u64,
    /// Multiply-adds of convolutions and linear layers; no norm, activation, pooling or bias.
    pub macs: u64,
}

impl Cost {
    /// The most parameters or multiply-adds that a space may have: whole numbers up to here are exact in
    /// JSON too, and so far below 64 bits that no sum over layers wraps.
    pub const MAX: u64 = 1 << 53;
}

/// A counting rule that figures in papers are given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// SPOS, released `flops.py`: multiply-adds of convolutions and linear layers; parameters with
    /// affine batch norms.
    Spos,
    /// NAS-Bench-Macro's table: the same for its space.
    NasBenchMacro,
}

impl Counter {
    /// Every rule.
    pub const ALL: [Counter; 2] = [Counter::Spos, Counter::NasBenchMacro];

    /// Its name in `monopath count --json`.
    pub fn name(self) -> &'static str {
        match self {
            Counter::Spos => "spos",
            Counter::NasBenchMacro => "nas-bench-macro",
        }
    }
}

impl Counter {
    /// A cost under this rule. Both rules known so far count as [`Cost`] does: no bias, no norm and no
    /// activation among the multiply-adds.
    pub fn count(self, cost: Cost) -> Cost {
        match self {
            Counter::Spos | Counter::NasBenchMacro => cost,
        }
    }
}

impl std::ops::Add for Cost {
    type Output = Cost;
    fn add(self, other: Cost) -> Cost {
        Cost { params: self.params + other.params, macs: self.macs + other.macs }
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), |a, b| a + b)
    }
}
