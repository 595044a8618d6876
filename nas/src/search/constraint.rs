//! What a network may cost.
//!
//! A [`Constraint`] is what a recipe says; bound to a space it becomes a [`Bound`], which is known to be
//! evaluable for every network and satisfiable by some.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::latency::{Latency, LatencyTable};
use crate::space::Space;

/// Upper bounds; a bound that is left out does not bind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Constraint {
    /// Most multiply-adds of one image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_macs: Option<u64>,
    /// Most parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_params: Option<u64>,
    /// Most time on a machine that a table was measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<MaxLatency>,
}

/// A bound on predicted latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MaxLatency {
    /// File that `monopath bench latency` wrote.
    pub table: PathBuf,
    /// Most milliseconds.
    pub max_ms: f64,
}

/// A constraint over one space.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bound {
    constraint: Constraint,
    latency: Option<Latency>,
}

impl Constraint {
    /// Reads the latency table (its path starts at `base`) and refuses what cannot be evaluated, and a
    /// bound below what any network of the space costs: known before training.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Latency`] for the table; [`Error::Infeasible`] with the least cost.
    pub fn bind(&self, space: &Space, base: &Path) -> Result<Bound> {
        let table = |bound: &MaxLatency| {
            let path = base.join(&bound.table);
            LatencyTable::load(&path)?.of(space, &path)
        };
        let latency = self.latency.as_ref().map(table).transpose()?;
        let bound = Bound { constraint: self.clone(), latency };
        let smallest = space.smallest_cost();
        let possible = bound.fits(smallest.macs, smallest.params, bound.latency.as_ref().map(Latency::least));
        if possible {
            Ok(bound)
        } else {
            Err(Error::Infeasible { constraint: bound.to_string(), tries: 0, smallest })
        }
    }

    /// `section` is where it stands in the recipe.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub(crate) fn check(&self, section: &str) -> Result<()> {
        match &self.latency {
            Some(bound) if !(bound.max_ms > 0.0 && bound.max_ms.is_finite()) => Err(Error::Setting {
                key: format!("{section}.constraint.latency.max-ms"),
                value: bound.max_ms.to_string(),
                range: "above 0".into(),
            }),
            _ => Ok(()),
        }
    }
}

impl Bound {
    /// Whether a network of the space is allowed.
    ///
    /// # Panics
    /// If `arch` is of another space than the one this was bound to.
    pub fn allows(&self, space: &Space, arch: &Arch) -> bool {
        let cost = space.cost(arch);
        let ms = match &self.latency {
            None => None,
            Some(latency) => match latency.predict(arch) {
                // It has a block whose entry was dropped.
                None => return false,
                known => known,
            },
        };
        self.fits(cost.macs, cost.params, ms)
    }

    /// Predicted milliseconds of a network, where latency is bounded and known.
    ///
    /// # Panics
    /// If `arch` is of another space than the one this was bound to.
    pub fn predict(&self, arch: &Arch) -> Option<f64> {
        self.latency.as_ref()?.predict(arch)
    }

    fn fits(&self, macs: u64, params: u64, ms: Option<f64>) -> bool {
        let Constraint { max_macs, max_params, latency } = &self.constraint;
        max_macs.is_none_or(|max| macs <= max)
            && max_params.is_none_or(|max| params <= max)
            && latency.as_ref().zip(ms).is_none_or(|(bound, ms)| ms <= bound.max_ms)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Constraint { max_macs, max_params, latency } = &self.constraint;
        let mut parts = Vec::new();
        parts.extend(max_macs.map(|macs| format!("max-macs = {macs}")));
        parts.extend(max_params.map(|params| format!("max-params = {params}")));
        if let (Some(bound), Some(latency)) = (latency, &self.latency) {
            parts.push(format!("latency.max-ms = {} (the least is {:.4})", bound.max_ms, latency.least()));
        }
        if parts.is_empty() { write!(f, "no constraint") } else { write!(f, "{}", parts.join(" and ")) }
    }
}
