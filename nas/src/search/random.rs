//! Random search: the baseline of every other search.

use serde::{Deserialize, Serialize};

use super::{Domain, Score, Searcher};
use crate::arch::Arch;
use crate::error::{Error, Result};

/// Settings of [`RandomSearch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RandomConfig {
    /// Candidates.
    pub candidates: usize,
}

impl RandomConfig {
    pub(super) fn check(&self) -> Result<()> {
        if (1..=10_000_000).contains(&self.candidates) {
            return Ok(());
        }
        let (key, range) = ("search.algorithm.candidates".to_owned(), "1 to 10,000,000".to_owned());
        Err(Error::Setting { key, value: self.candidates.to_string(), range })
    }
}

/// Different uniform paths under the constraint, all in one round.
#[derive(Debug)]
pub struct RandomSearch {
    config: RandomConfig,
    asked: bool,
}

impl RandomSearch {
    /// A search that has asked for nothing yet.
    pub fn new(config: RandomConfig) -> Self {
        Self { config, asked: false }
    }
}

impl Searcher for RandomSearch {
    fn ask(&mut self, domain: &Domain<'_>) -> Result<Vec<Arch>> {
        if std::mem::replace(&mut self.asked, true) {
            return Ok(Vec::new());
        }
        domain.distinct(self.config.candidates, "random-search")
    }

    fn tell(&mut self, _scored: &[(Arch, Score)]) {}

    fn total(&self) -> u64 {
        self.config.candidates as u64
    }
}
