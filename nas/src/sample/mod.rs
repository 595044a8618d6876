//! Which paths each training step takes.

mod macs_bins;
mod uniform;

use engine::Rng;
use serde::{Deserialize, Serialize};

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
}

impl SamplerConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`crate::Error::Setting`].
    pub fn check(&self) -> Result<()> {
        match self {
            SamplerConfig::Uniform => Ok(()),
            SamplerConfig::MacsBins(bins) => bins.check(),
        }
    }

    /// The sampler.
    pub fn build(&self) -> Box<dyn Sampler> {
        match self {
            SamplerConfig::Uniform => Box::new(Uniform),
            SamplerConfig::MacsBins(bins) => Box::new(bins.clone()),
        }
    }
}

/// The draws of path `number` of step `step`.
fn draws(rng: &Rng, step: u64, number: u32) -> engine::rng::Draws {
    rng.at((step >> 32) as u32, step as u32, number)
}
