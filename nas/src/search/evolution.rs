//! Evolutionary search (SPOS, section 3.4 and algorithm 1; released code for what the paper leaves
//! open, see `docs/papers.md`).
//!
//! A random population; then in each round the best `parents` of everything seen so far give
//! children by mutation and by crossover, topped up with random paths. Nothing is scored twice.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Domain, Score, Searcher, TRIES};
use crate::arch::Arch;
use crate::error::{Error, Result};

/// Settings of [`Evolution`]; the defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EvolutionConfig {
    /// Candidates of a round, P.
    #[serde(default = "fifty")]
    pub population: usize,
    /// Rounds after the first, T.
    #[serde(default = "twenty")]
    pub rounds: usize,
    /// The best of everything seen that may be parents, k.
    #[serde(default = "ten")]
    pub parents: usize,
    /// Children by crossover wanted in a round.
    #[serde(default = "twenty_five")]
    pub crossover: usize,
    /// Children by mutation wanted in a round.
    #[serde(default = "twenty_five")]
    pub mutation: usize,
    /// Probability that mutation draws a slot anew.
    #[serde(default = "tenth")]
    pub mutation_rate: f32,
}

fn fifty() -> usize {
    50
}
fn twenty() -> usize {
    20
}
fn ten() -> usize {
    10
}
fn twenty_five() -> usize {
    25
}
fn tenth() -> f32 {
    0.1
}

/// Tries per wanted child before the shortfall is left to random paths.
const TRIES_PER_CHILD: usize = 10;

impl EvolutionConfig {
    pub(super) fn check(&self) -> Result<()> {
        let bad = |key: &str, value: String, range: &str| {
            let key = format!("search.algorithm.{key}");
            Err(Error::Setting { key, value, range: range.to_owned() })
        };
        if !(1..=1_000_000).contains(&self.population) {
            return bad("population", self.population.to_string(), "1 to 1,000,000");
        }
        if self.rounds > 1_000_000 {
            return bad("rounds", self.rounds.to_string(), "0 to 1,000,000");
        }
        if self.parents == 0 {
            return bad("parents", "0".into(), "1 or more");
        }
        if self.crossover.saturating_add(self.mutation) > self.population {
            let value = format!("{} + {}", self.crossover, self.mutation);
            return bad("crossover + mutation", value, "at most the population");
        }
        if !(0.0..=1.0).contains(&self.mutation_rate) {
            return bad("mutation-rate", self.mutation_rate.to_string(), "0 to 1");
        }
        Ok(())
    }
}

/// The search.
#[derive(Debug)]
pub struct Evolution {
    config: EvolutionConfig,
    round: usize,
    visited: HashSet<Arch>,
    /// Best first.
    parents: Vec<(Arch, Score)>,
}

impl Evolution {
    /// A search that has seen nothing yet.
    pub fn new(config: EvolutionConfig) -> Self {
        Self { config, round: 0, visited: HashSet::new(), parents: Vec::new() }
    }

    fn breed(
        &mut self,
        domain: &Domain<'_>,
        wanted: usize,
        children: &mut Vec<Arch>,
        mut child: impl FnMut(&[(Arch, Score)]) -> Arch,
    ) {
        let goal = children.len() + wanted;
        for _ in 0..wanted.saturating_mul(TRIES_PER_CHILD) {
            if children.len() == goal || self.parents.is_empty() {
                return;
            }
            let arch = domain.space.canonical(&child(&self.parents));
            if domain.constraint.allows(domain.space, &arch) && self.visited.insert(arch.clone()) {
                children.push(arch);
            }
        }
    }
}

impl Searcher for Evolution {
    fn ask(&mut self, domain: &Domain<'_>) -> Result<Vec<Arch>> {
        if self.round > self.config.rounds {
            return Ok(Vec::new());
        }
        let mut draws = domain.rng.at(self.round as u32, 0, 0);
        let EvolutionConfig { population, crossover, mutation, mutation_rate, .. } = self.config;
        let mut children: Vec<Arch> = Vec::new();
        if self.round > 0 {
            self.breed(domain, mutation, &mut children, |parents| {
                let parent = &parents[draws.below(parents.len() as u32) as usize].0;
                domain.space.mutate(parent, mutation_rate, &mut draws)
            });
            self.breed(domain, crossover, &mut children, |parents| {
                // The two may coincide, as in the released code.
                let mut pick = || &parents[draws.below(parents.len() as u32) as usize].0;
                let (a, b) = (pick(), pick());
                domain.space.cross(a, b, &mut draws)
            });
        }
        while children.len() < population {
            match domain.draw(&mut draws, TRIES, |arch| !self.visited.contains(arch)) {
                Some(arch) => {
                    self.visited.insert(arch.clone());
                    children.push(arch);
                }
                None if self.visited.is_empty() => return Err(domain.infeasible()),
                // The space is exhausted: what is left is all there is.
                None => break,
            }
        }
        self.round += 1;
        Ok(children)
    }

    fn tell(&mut self, scored: &[(Arch, Score)]) {
        self.parents.extend_from_slice(scored);
        // Stable, so that among equals the one seen first stays first.
        self.parents.sort_by_key(|(_, score)| std::cmp::Reverse(*score));
        self.parents.truncate(self.config.parents);
    }

    fn total(&self) -> u64 {
        (self.config.population as u64).saturating_mul(self.config.rounds as u64 + 1)
    }
}
