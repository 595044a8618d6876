//! Which paths each training step takes.

mod fair;
mod macs_bins;
mod uniform;

use engine::Rng;
use serde::{Deserialize, Serialize};

pub use fair::Fair;
pub use macs_bins::MacsBins;
pub use uniform::Uniform;

use crate::arch::Arch;
use crate::error::Result;
use crate::space::Space;

/// Answers which paths a step trains. A pure function of the step, so resuming needs no state.
pub trait Sampler: Send + std::fmt::Debug {
    /// Path `number`, from 0, of step `step`.
    fn path(&self, space: &Space, rng: &Rng, step: u64, number: u32) -> Arch;
}

/// The samplers by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SamplerConfig {
    /// Every candidate of every slot alike (SPOS section 3.2).
    #[default]
    Uniform,
    /// A bin of multiply-adds first, then a uniform path within it (SPOS, released code).
    MacsBins(MacsBins),
    /// Every candidate once a step: as many paths as a slot has candidates (FairNAS, strict fairness).
    Fair,
}

impl SamplerConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`crate::Error::Setting`].
    pub fn check(&self) -> Result<()> {
        match self {
            SamplerConfig::Uniform | SamplerConfig::Fair => Ok(()),
            SamplerConfig::MacsBins(bins) => bins.check(),
        }
    }

    /// The sampler.
    pub fn build(&self) -> Box<dyn Sampler> {
        match self {
            SamplerConfig::Uniform => Box::new(Uniform),
            SamplerConfig::MacsBins(bins) => Box::new(bins.clone()),
            SamplerConfig::Fair => Box::new(Fair),
        }
    }

    /// How many paths a step must have, if the sampler leaves no choice.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a space that the sampler does not serve.
    pub fn paths(&self, space: &Space) -> Result<Option<usize>> {
        match self {
            SamplerConfig::Uniform | SamplerConfig::MacsBins(_) => Ok(None),
            SamplerConfig::Fair => Fair::paths(space).map(Some),
        }
    }
}

/// The draws of path (or slot) `number` of step `step`.
fn draws(rng: &Rng, step: u64, number: u32) -> engine::rng::Draws {
    rng.at((step >> 32) as u32, step as u32, number)
}
