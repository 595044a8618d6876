//! What a network may cost.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::space::Space;

/// Upper bounds; a bound that is left out does not bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Constraint {
    /// Most multiply-adds of one image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_macs: Option<u64>,
    /// Most parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_params: Option<u64>,
}

impl Constraint {
    /// Whether a network of this cost is allowed.
    pub fn allows(&self, cost: &Cost) -> bool {
        self.max_macs.is_none_or(|max| cost.macs <= max)
            && self.max_params.is_none_or(|max| cost.params <= max)
    }

    /// Refuses a bound below what any network of the space costs: known before training.
    ///
    /// # Errors
    /// [`Error::Infeasible`] with the least cost.
    pub fn check(&self, space: &Space) -> Result<()> {
        let smallest = space.smallest_cost();
        if self.allows(&smallest) {
            Ok(())
        } else {
            Err(Error::Infeasible { constraint: self.to_string(), tries: 0, smallest })
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.max_macs, self.max_params) {
            (None, None) => write!(f, "no constraint"),
            (Some(macs), None) => write!(f, "max-macs = {macs}"),
            (None, Some(params)) => write!(f, "max-params = {params}"),
            (Some(macs), Some(params)) => write!(f, "max-macs = {macs} and max-params = {params}"),
        }
    }
}
