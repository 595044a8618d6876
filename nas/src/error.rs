//! What can go wrong in the library.

use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::cost::Cost;
pub use crate::memory::Remedy;

/// A result whose error is the library's.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the library. Messages say what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// Images could not be read or batched.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// A file could not be read or written.
    #[error("cannot {action} {}{}: {source}", path.display(), needs(*needed))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Bytes that were to be written.
        needed: Option<u64>,
        /// Why not.
        source: std::io::Error,
    },
    /// A listener could not take note of an event.
    #[error("cannot record progress: {source}")]
    Sink {
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A TOML file could not be understood.
    #[error("{}: {}", path.display(), reason.trim_end())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// A setting has a value outside its range.
    #[error("{key} = {value} is not allowed: it must be {range}")]
    Setting {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is allowed.
        range: String,
    },
    /// `--set` was given something else than `key=value`.
    #[error(
        "cannot apply --set {item:?}: it must be key=value with an existing section, for example supernet.train.epochs=3"
    )]
    Override {
        /// What was given.
        item: String,
    },
    /// There is no such space.
    #[error("no space is called {name:?}{}; known: {known}, or the path of a TOML file", meant(nearest))]
    UnknownSpace {
        /// The name.
        name: String,
        /// The nearest known one.
        nearest: Option<String>,
        /// All known ones.
        known: String,
    },
    /// Parts of a space do not fit together.
    #[error("space {space:?}: {at}: {reason}")]
    Space {
        /// The space.
        space: String,
        /// Which part.
        at: String,
        /// What does not fit.
        reason: String,
    },
    /// A text or list is no architecture of a space.
    #[error("{text:?} is no architecture of {space}: {reason}")]
    Arch {
        /// The space.
        space: String,
        /// What was given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// No network satisfies the constraint.
    #[error(
        "no network satisfies {constraint} ({}); the least any network has are {} multiply-adds and {} parameters",
        if *tries == 0 { "known before training".to_owned() } else { format!("{tries} random ones tried") },
        smallest.macs, smallest.params
    )]
    Infeasible {
        /// The constraint.
        constraint: String,
        /// Random networks tried.
        tries: u64,
        /// The least parameters and multiply-adds, each by itself.
        smallest: Cost,
    },
    /// A latency table cannot be used.
    #[error("latency table {}: {problem}", path.display())]
    Latency {
        /// The table.
        path: PathBuf,
        /// What is wrong with it.
        problem: crate::latency::LatencyProblem,
    },
    /// A search ended without a candidate.
    #[error("the search scored no candidate")]
    NothingFound,
    /// A run has no trained supernet.
    #[error("{} has no trained supernet yet; run monopath train-supernet on it first", path.display())]
    NoSupernet {
        /// The run directory.
        path: PathBuf,
    },
    /// A score is no number that could be ranked.
    #[error("the {metric} score of {arch} is {score}: networks cannot be ranked by it")]
    Unrankable {
        /// The score's name.
        metric: &'static str,
        /// The network as text.
        arch: String,
        /// Its score.
        score: f64,
    },
    /// A batch norm has no statistics for this path.
    #[error("batch norm {norm} has no statistics; calibrate the path first")]
    NoStatistics {
        /// The norm.
        norm: String,
    },
    /// The loss or a gradient is not finite.
    #[error("{what} is not finite at step {step} on path {arch}; lower the learning rate or clip the gradients", arch = text)]
    NonFinite {
        /// The step, from 0.
        step: u64,
        /// The path, or all paths of the step where no single one is to blame.
        archs: Vec<Arch>,
        /// The same as text.
        text: String,
        /// `loss`, or the name of a parameter.
        what: String,
    },
    /// Work needs more memory than it may take.
    #[error(
        "out of memory in {stage}: {requested} bytes asked for, {used} of {cap} in use ({parameters} by weights \
         and their gradients, {} by images, activations and what else is kept); {remedy}",
        used.saturating_sub(*parameters)
    )]
    Memory {
        /// The stage, or the command.
        stage: &'static str,
        /// Bytes asked for.
        requested: usize,
        /// Bytes in use.
        used: usize,
        /// Bytes that may be in use.
        cap: usize,
        /// Bytes of those in use that weights and gradients take.
        parameters: usize,
        /// What would fit.
        remedy: Remedy,
    },
    /// A directory exists already.
    #[error("{} exists; add --resume to go on with it, or choose another --out", path.display())]
    RunExists {
        /// The directory.
        path: PathBuf,
    },
    /// A run directory was made with another recipe.
    #[error("{} was made with another recipe: it has `{before}` where there is now `{now}`; undo the change or choose another --out", path.display())]
    RecipeChanged {
        /// The stored recipe.
        path: PathBuf,
        /// The first line that differs, as stored.
        before: String,
        /// The same line now.
        now: String,
    },
    /// A signal ended the stage after a checkpoint.
    #[error("stopped {stage} at {done} of {total}; everything is stored")]
    Interrupted {
        /// The stage.
        stage: &'static str,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
    },
    /// A signal ended an evaluation.
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// A failure to do `action` to `path`.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Error::Io { action, path: path.to_owned(), needed: None, source }
    }

    /// Whether the caller can mend the call or a file that he wrote.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Error::Toml { .. }
                | Error::Setting { .. }
                | Error::Override { .. }
                | Error::UnknownSpace { .. }
                | Error::Space { .. }
                | Error::Arch { .. }
                | Error::Latency { .. }
                | Error::RunExists { .. }
                | Error::RecipeChanged { .. }
        ) || matches!(self, Error::Data(error) if error.is_usage())
    }
}

fn needs(bytes: Option<u64>) -> String {
    bytes.map_or(String::new(), |n| format!(" ({n} bytes)"))
}

fn meant(name: &Option<String>) -> String {
    name.as_ref().map_or(String::new(), |n| format!("; did you mean {n:?}?"))
}
