//! A run: one recipe, one directory, the stages in order.
//!
//! The directory alone suffices to resume or repeat a run. Every stage ends by writing its result;
//! a stage whose result is there is passed over, one with a checkpoint goes on from it, and any
//! other begins. So resuming is the same code as running.

mod networks;
mod rank;
mod report;
mod search;
mod shrink;
mod supernet;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engine::Device;

use crate::checkpoint::Checkpoints;
use crate::data::{Data, Pipeline};
use crate::error::{Error, Result};
use crate::event::{Sink, Stage};
use crate::files;
use crate::gates::{Costs, GatesConfig};
use crate::journal::Journal;
use crate::outcome::Outcome;
use crate::recipe::Recipe;
use crate::search::{Bound, Domain};
use crate::space::Space;

pub use networks::Snapshot;
pub use rank::{rank, read_truth};
pub use report::write_report;
pub use search::{Found, Scored};
pub use shrink::{Operator, Round, Shrunk};

/// The files of a run directory.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The run directory at `path`, whether or not it exists.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The recipe with every default filled in and absolute paths.
    pub fn recipe(&self) -> PathBuf {
        self.0.join("recipe.toml")
    }

    /// The space for the run's images and classes, before shrinking.
    pub fn space(&self) -> PathBuf {
        self.0.join("space.toml")
    }

    /// What shrinking left of it: the space of supernet, search and networks, if the recipe shrinks.
    pub fn shrunk_space(&self) -> PathBuf {
        self.0.join("shrunk.toml")
    }

    /// The rounds of shrinking.
    pub fn shrink(&self) -> PathBuf {
        self.0.join("shrink.json")
    }

    /// The base weights of angles after their reset, while shrinking goes on.
    pub fn shrink_base(&self) -> PathBuf {
        self.0.join("shrink-base.safetensors")
    }

    /// What happened, as JSON lines.
    pub fn events(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// The trained shared weights.
    pub fn supernet(&self) -> PathBuf {
        self.0.join("supernet.safetensors")
    }

    /// All scored candidates and the one that was chosen.
    pub fn search(&self) -> PathBuf {
        self.0.join("search.json")
    }

    /// The folder of a retrained network.
    pub fn network(&self, subject: &str) -> PathBuf {
        self.0.join("networks").join(subject)
    }

    /// The latency table that the search is bound by, if it is.
    pub fn latency(&self) -> PathBuf {
        self.0.join("latency.json")
    }

    /// The latency table that shrinking is bound by, if it is.
    pub fn shrink_latency(&self) -> PathBuf {
        self.0.join("shrink-latency.json")
    }

    /// The latency table that gates are trained by, if they are.
    pub fn gates_latency(&self) -> PathBuf {
        self.0.join("gates-latency.json")
    }

    /// The probabilities that trained gates give every candidate.
    pub fn gates(&self) -> PathBuf {
        self.0.join("gates.json")
    }

    /// The found architecture.
    pub fn arch(&self) -> PathBuf {
        self.0.join("arch.json")
    }

    /// The found network: weights, statistics, architecture and space.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// The outcome.
    pub fn result(&self) -> PathBuf {
        self.0.join("result.json")
    }

    /// How well scores order trained networks, where that was asked.
    pub fn rank(&self) -> PathBuf {
        self.0.join("rank.json")
    }

    /// Scores of single networks that rankings are made of.
    pub fn scores(&self) -> PathBuf {
        self.0.join("scores.json")
    }

    /// The report.
    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    /// The space of supernet, search and networks.
    ///
    /// # Errors
    /// What [`Space::load`] returns.
    pub fn read_space(&self) -> Result<Space> {
        let shrunk = self.shrunk_space();
        let path = if shrunk.exists() { shrunk } else { self.space() };
        Space::load(&path.to_string_lossy())
    }

    /// The recipe that this directory was made with.
    ///
    /// # Errors
    /// [`Error::Io`] if it holds none.
    pub fn read_recipe(&self) -> Result<Recipe> {
        Recipe::load(&self.recipe(), &[])
    }
}

/// How to run.
pub struct Options<'a> {
    /// Where.
    pub dir: RunDir,
    /// Whether an existing directory is gone on with.
    pub resume: bool,
    /// The last stage.
    pub until: Stage,
    /// What computes.
    pub device: Device,
    /// Set by a signal: store a checkpoint and stop.
    pub stop: &'a AtomicBool,
}

/// The recipe with paths that hold from any folder, as the run directory keeps it.
fn absolute(recipe: &Recipe, base: &Path) -> Result<Recipe> {
    let mut recipe = recipe.clone();
    recipe.data.make_absolute(base)?;
    let space = base.join(&recipe.space);
    if space.is_file() {
        recipe.space = absolute_path(&space)?.to_string_lossy().into_owned();
    }
    let constraints = std::iter::once(&mut recipe.search.constraint);
    for constraint in constraints.chain(recipe.shrink.as_mut().map(|shrink| &mut shrink.constraint)) {
        if let Some(latency) = &mut constraint.latency {
            latency.table = absolute_path(&base.join(&latency.table))?;
        }
    }
    if let Some(table) = recipe.supernet.gates.as_mut().and_then(GatesConfig::table) {
        *table = absolute_path(&base.join(&*table))?;
    }
    Ok(recipe)
}

/// The latency tables that a recipe names, and where a run directory keeps each.
fn tables<'a>(recipe: &'a mut Recipe, dir: &RunDir) -> Vec<(&'a mut PathBuf, PathBuf)> {
    let search = recipe.search.constraint.latency.as_mut().map(|l| (&mut l.table, dir.latency()));
    let shrink = recipe.shrink.as_mut().and_then(|shrink| shrink.constraint.latency.as_mut());
    let shrink = shrink.map(|l| (&mut l.table, dir.shrink_latency()));
    let gates = recipe.supernet.gates.as_mut().and_then(GatesConfig::table);
    let gates = gates.map(|table| (table, dir.gates_latency()));
    search.into_iter().chain(shrink).chain(gates).collect()
}

fn absolute_path(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("resolve", path, e))
}

/// The space for the images and classes of the data.
fn fit(space: Space, recipe: &Recipe, data: &Data) -> Result<Space> {
    let [height, width, channels] = Pipeline::new(&recipe.data.augment, &recipe.data.normalise)?.shape();
    let [eval_height, _, _] = Pipeline::new(&recipe.data.eval, &recipe.data.normalise)?.shape();
    debug_assert_eq!(height, width, "crops are square");
    if eval_height != height {
        return Err(Error::Setting {
            key: "data.eval.crop.size".into(),
            value: eval_height.to_string(),
            range: format!("{height}, as in data.augment"),
        });
    }
    space.with_input(height, channels)?.with_classes(data.train.dataset.classes().len())
}

/// Makes the directory, or checks that it can be gone on with.
fn prepare(dir: &RunDir, recipe: &Recipe, resume: bool) -> Result<()> {
    let path = dir.path();
    let holds_something =
        path.exists() && std::fs::read_dir(path).map_err(|e| Error::io("list", path, e))?.next().is_some();
    if holds_something && !resume {
        return Err(Error::RunExists { path: path.to_owned() });
    }
    files::create_folder(path)?;
    let now = recipe.to_toml()?;
    if dir.recipe().exists() {
        let before = String::from_utf8_lossy(&files::read(&dir.recipe())?).into_owned();
        if before != now {
            let (a, b) = before
                .lines()
                .map(Some)
                .chain(std::iter::repeat(None))
                .zip(now.lines().map(Some).chain(std::iter::repeat(None)))
                .find(|(a, b)| a != b || a.is_none())
                .unwrap_or_default();
            return Err(Error::RecipeChanged {
                path: dir.recipe(),
                before: a.unwrap_or("nothing").to_owned(),
                now: b.unwrap_or("nothing").to_owned(),
            });
        }
        return Ok(());
    }
    files::write_atomic(&dir.recipe(), now.as_bytes())
}

/// What every stage works with.
pub(crate) struct Run<'a> {
    pub recipe: Recipe,
    pub space: Space,
    pub bound: Bound,
    pub data: Data,
    pub dir: RunDir,
    pub device: Device,
    pub stop: &'a AtomicBool,
    pub checkpoints: Checkpoints,
    pub journal: Journal,
}

impl Run<'_> {
    /// The paths that the search may choose from.
    pub fn domain(&self, purpose: &str) -> Domain<'_> {
        Domain {
            space: &self.space,
            constraint: self.bound.clone(),
            rng: engine::Rng::new(self.recipe.seed, purpose),
        }
    }
}

/// Runs the stages up to `options.until`; the outcome is there once all are done.
///
/// # Errors
/// [`Error::RunExists`] for a directory that holds something, without `resume`;
/// [`Error::Interrupted`] after a signal, with everything stored; whatever a stage returns.
pub fn run(
    recipe: &Recipe,
    base: &Path,
    options: Options<'_>,
    sinks: Vec<Box<dyn Sink>>,
) -> Result<Option<Outcome>> {
    let recipe = absolute(recipe, base)?;
    let space = Space::load(&recipe.space)?;
    let data = recipe.data.open(base, recipe.seed)?;
    let space = fit(space, &recipe, &data)?;
    let dir = options.dir;
    // A run directory keeps the latency tables that it was begun with, and goes on with those.
    let stored = recipe.clone();
    let mut recipe = recipe;
    if options.resume {
        for (table, kept) in tables(&mut recipe, &dir) {
            if kept.exists() {
                *table = absolute_path(&kept)?;
            }
        }
    }
    let bound = recipe.search.constraint.bind(&space, base)?;
    recipe.supernet.paths(&space)?;
    recipe.check_norms(&space)?;
    if let Some(gates) = &recipe.supernet.gates {
        Costs::new(&space, &gates.cost, gates.loss, base)?;
    }
    match &recipe.shrink {
        Some(config) => drop(config.constraint.bind(&space, base)?),
        None if options.until == Stage::Shrink => {
            return Err(Error::Setting {
                key: "shrink".into(),
                value: "nothing".into(),
                range: "given in the recipe, as this is the stage that was asked for".into(),
            });
        }
        None => {}
    }
    if data.val.is_empty() {
        return Err(Error::Setting {
            key: "data.val-per-class".into(),
            value: "0".into(),
            range: "1 or more, or data.val given: the search needs held-out images".into(),
        });
    }
    // Nothing is written before everything above has been found sound.
    prepare(&dir, &stored, options.resume)?;
    files::write_atomic(&dir.space(), space.to_toml()?.as_bytes())?;
    for (table, kept) in tables(&mut recipe, &dir) {
        files::write_atomic(&kept, &files::read(table)?)?;
        *table = absolute_path(&kept)?;
    }
    let mut run = Run {
        checkpoints: Checkpoints::open(&dir.checkpoints())?,
        journal: Journal::open(&dir.events(), sinks)?,
        recipe,
        space,
        bound,
        data,
        dir,
        device: options.device,
        stop: options.stop,
    };
    if let Some(config) = run.recipe.shrink.clone() {
        run.space = shrink::shrink(&mut run, &config)?;
        run.bound = run.recipe.search.constraint.bind(&run.space, base)?;
    }
    if options.until == Stage::Shrink {
        return Ok(None);
    }
    let supernet = supernet::train(&mut run)?;
    if options.until == Stage::TrainSupernet {
        return Ok(None);
    }
    let found = search::search(&mut run, &supernet)?;
    drop(supernet);
    if options.until == Stage::Search {
        return Ok(None);
    }
    let outcome = networks::retrain(&mut run, &found, options.until == Stage::Retrain)?;
    run.journal.flush()?;
    Ok(outcome)
}
