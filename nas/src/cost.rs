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
