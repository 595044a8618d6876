//! Uniform sampling under a complexity constraint by rejection (SPOS, released training code;
//! `docs/papers.md`): a bin of multiply-adds is drawn uniformly, then uniform paths until one lies in
//! it; after `tries` the last word is one unconstrained path.

use engine::Rng;
use serde::{Deserialize, Serialize};

use super::Sampler;
use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::space::Space;

/// Bins `[low, low + width], …, [high - width, high]` of multiply-adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MacsBins {
    /// Lower end of the first bin.
    pub low: u64,
    /// Upper end of the last bin.
    pub high: u64,
    /// Width of a bin.
    pub width: u64,
    /// Paths drawn before giving up on the bin.
    #[serde(default = "tries")]
    pub tries: u32,
}

fn tries() -> u32 {
    500
}

impl MacsBins {
    pub(super) fn check(&self) -> Result<()> {
        if self.width == 0 || self.high <= self.low || !(self.high - self.low).is_multiple_of(self.width) {
            return Err(Error::Setting {
                key: "supernet.sampler".into(),
                value: format!("low {}, high {}, width {}", self.low, self.high, self.width),
                range: "low below high with a whole number of widths between them".into(),
            });
        }
        Ok(())
    }
}

impl Sampler for MacsBins {
    fn path(&self, space: &Space, rng: &Rng, step: u64, number: u32) -> Arch {
        let mut draws = super::draws(rng, step, number);
        let bins = ((self.high - self.low) / self.width) as u32;
        let from = self.low + u64::from(draws.below(bins)) * self.width;
        for _ in 0..self.tries {
            let arch = space.sample(&mut draws);
            if (from..=from + self.width).contains(&space.cost(&arch).macs) {
                return arch;
            }
        }
        space.sample(&mut draws)
    }
}
