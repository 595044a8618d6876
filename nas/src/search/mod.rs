//! Which path is best: searchers that ask for candidates and are told their scores.
//!
//! A searcher holds no model and reads no file. Its questions follow from its settings, the run's
//! seed and the scores it was told, so a search resumes by telling a new searcher the scores that
//! are already known: there is no other state.

mod constraint;
mod evolution;
mod most_likely;
mod random;

use engine::Rng;
use serde::{Deserialize, Serialize};

pub use constraint::{Bound, Constraint, MaxLatency};
pub use evolution::{Evolution, EvolutionConfig};
pub use most_likely::MostLikely;
pub use random::{RandomConfig, RandomSearch};

use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::gates::Gates;
use crate::space::Space;

/// How good a candidate is: held-out images classified rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Score {
    /// Best guess right.
    pub top1: u64,
    /// Among the best five guesses.
    pub top5: u64,
    /// Images scored on.
    pub images: u64,
}

/// Asks for candidates in rounds and learns from their scores.
pub trait Searcher: Send + std::fmt::Debug {
    /// The candidates of the next round; none when the search is over.
    ///
    /// # Errors
    /// [`Error::Infeasible`] if no candidate satisfies the constraint.
    fn ask(&mut self, domain: &Domain<'_>) -> Result<Vec<Arch>>;

    /// The scores of the candidates asked for last, in that order.
    fn tell(&mut self, scored: &[(Arch, Score)]);

    /// Candidates asked for in all, if the space has that many.
    fn total(&self) -> u64;
}

/// What is searched: the paths of a space that satisfy a constraint.
#[derive(Debug)]
pub struct Domain<'a> {
    /// The space.
    pub space: &'a Space,
    /// The constraint.
    pub constraint: Bound,
    /// The stream of this search.
    pub rng: Rng,
}

impl Domain<'_> {
    /// A uniform path that satisfies the constraint and `accept`, or `None` after `tries`.
    fn draw(
        &self,
        draws: &mut engine::rng::Draws,
        tries: u32,
        accept: impl Fn(&Arch) -> bool,
    ) -> Option<Arch> {
        (0..tries)
            .map(|_| self.space.canonical(&self.space.sample(draws)))
            .find(|arch| self.constraint.allows(self.space, arch) && accept(arch))
    }

    /// `n` different uniform paths that satisfy the constraint; fewer if so many are not found.
    ///
    /// # Errors
    /// [`Error::Infeasible`] if not one is found.
    pub fn distinct(&self, n: usize, purpose: &str) -> Result<Vec<Arch>> {
        let mut draws = self.rng.fork(purpose).at(0, 0, 0);
        let mut found: Vec<Arch> = Vec::with_capacity(n.min(1 << 16));
        while found.len() < n {
            match self.draw(&mut draws, TRIES, |arch| !found.contains(arch)) {
                Some(arch) => found.push(arch),
                None => break,
            }
        }
        if found.is_empty() && n > 0 { Err(self.infeasible()) } else { Ok(found) }
    }

    fn infeasible(&self) -> Error {
        Error::Infeasible {
            constraint: self.constraint.to_string(),
            tries: u64::from(TRIES),
            smallest: self.space.smallest_cost(),
        }
    }
}

/// Paths drawn before a constraint counts as infeasible, or a space as exhausted.
const TRIES: u32 = 20_000;

/// Search over a trained supernet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SearchConfig {
    /// What the found network may cost.
    #[serde(default)]
    pub constraint: Constraint,
    /// Training images whose statistics calibrate the batch norms of each candidate.
    pub calibration_images: usize,
    /// Images of one calibration batch.
    pub calibration_batch: usize,
    /// Images of one evaluation batch.
    #[serde(default = "eval_batch")]
    pub eval_batch: usize,
    /// MiB of activations that candidates with a common prefix may share.
    #[serde(default = "memory")]
    pub memory_mib: usize,
    /// How candidates are chosen.
    pub algorithm: Algorithm,
}

fn eval_batch() -> usize {
    100
}

fn memory() -> usize {
    1024
}

/// The searchers by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Algorithm {
    /// SPOS section 6.
    Evolution(EvolutionConfig),
    /// Uniform paths.
    Random(RandomConfig),
    /// The most likely path of binary gates, alone; the constraint is left to their loss (ProxylessNAS).
    MostLikely {},
}

impl Algorithm {
    /// The searcher; `gates` are the supernet's, where it has some.
    ///
    /// # Errors
    /// [`Error::NothingFound`] where the most likely path of no gates is asked for.
    pub fn build(&self, gates: Option<&Gates>) -> Result<Box<dyn Searcher>> {
        Ok(match self {
            Algorithm::Evolution(config) => Box::new(Evolution::new(config.clone())),
            Algorithm::Random(config) => Box::new(RandomSearch::new(config.clone())),
            Algorithm::MostLikely {} => {
                Box::new(MostLikely::new(gates.ok_or(Error::NothingFound)?.most_likely()))
            }
        })
    }
}

impl SearchConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        let bad = |key: &str, value: usize, range: &str| {
            Err(Error::Setting {
                key: format!("search.{key}"),
                value: value.to_string(),
                range: range.to_owned(),
            })
        };
        if self.calibration_batch < 2 {
            return bad("calibration-batch", self.calibration_batch, "2 or more");
        }
        if self.calibration_images < self.calibration_batch {
            return bad("calibration-images", self.calibration_images, "at least one calibration-batch");
        }
        if self.eval_batch == 0 {
            return bad("eval-batch", 0, "1 or more");
        }
        self.constraint.check("search")?;
        match &self.algorithm {
            Algorithm::Evolution(config) => config.check(),
            Algorithm::Random(config) => config.check(),
            Algorithm::MostLikely {} => Ok(()),
        }
    }
}
