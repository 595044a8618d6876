//! The stage that searches the trained supernet.
//!
//! Its whole state is the list of scored candidates: the searcher's questions follow from it, so a
//! resumed search tells a new searcher what is known and goes on where the first unknown is.

use std::collections::HashMap;
use std::time::Instant;

use engine::{Device, ParamStore, Place, Rng, Tensor};
use serde::{Deserialize, Serialize};

use super::Run;
use super::supernet::Supernet;
use crate::arch::Arch;
use crate::data::config::Subset;
use crate::data::{Batch, Data, DataConfig, Loader, Pass, Pipeline, View, split};
use crate::error::{Error, Result};
use crate::evaluate::{Evaluator, Images};
use crate::event::{Event, Stage};
use crate::files;
use crate::journal::Journal;
use crate::memory::{NormsBy, Scoring};
use crate::model::Model;
use crate::recipe::Recipe;
use crate::search::{Domain, Score, SearchConfig};
use crate::space::Space;

/// A scored candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scored {
    /// Text form of the architecture.
    pub arch: String,
    /// Its score.
    pub score: Score,
}

/// What `search.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Found {
    /// Text form of the best candidate; empty while the search goes on.
    pub found: String,
    /// All candidates in the order they were scored.
    pub scored: Vec<Scored>,
    /// Seconds of work, over all sittings.
    pub seconds: f64,
    /// Length of `events.jsonl` when this was written.
    pub events: u64,
}

/// Searches, goes on searching, or reads what was found.
pub(crate) fn search(run: &mut Run<'_>, supernet: &Supernet) -> Result<(Arch, f64)> {
    let Supernet { model, store, .. } = supernet;
    find(run, supernet).map_err(|error| {
        scoring(Stage::Search.name(), model, store, &run.recipe.search, run.data.val.len()).explain(error)
    })
}

fn find(run: &mut Run<'_>, supernet: &Supernet) -> Result<(Arch, f64)> {
    let path = run.dir.search();
    let mut state = Found::default();
    if path.exists() {
        let bytes = files::read(&path)?;
        state = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Format { path: path.clone(), reason: e.to_string() })?;
        run.journal.vouch(state.events);
        if !state.found.is_empty() {
            return Ok((run.space.parse(&state.found)?, state.seconds));
        }
    }
    let config = run.recipe.search.clone();
    let calibration = calibration_images(&run.recipe, &run.data, &run.device, &config)?;
    let scored =
        scored_images(&run.device, &run.recipe.data, &run.data.val, config.eval_batch, run.recipe.seed)?;
    let Run { recipe, space, bound, dir, stop, journal, .. } = run;
    let domain = Domain { space, constraint: bound.clone(), rng: Rng::new(recipe.seed, "search") };
    let evaluator = Evaluator {
        model: &supernet.model,
        store: &supernet.store,
        calibration: Some(&calibration),
        scored: &scored,
        memory: config.memory_mib << 20,
        stop,
    };
    let mut searcher = config.algorithm.build(supernet.gates.as_ref())?;
    let total = searcher.total();
    let every = recipe.log.checkpoint_seconds;
    journal.record(Event::Started {
        stage: Stage::Search,
        subject: "candidates".into(),
        total,
        done: state.scored.len() as u64,
        unit: "candidates".into(),
    })?;
    let mut known: HashMap<Arch, Score> = HashMap::with_capacity(state.scored.len());
    for candidate in &state.scored {
        known.insert(space.parse(&candidate.arch)?, candidate.score);
    }
    let before = state.seconds;
    let started = Instant::now();
    let mut stored = Instant::now();
    // Candidates of the rounds that are over.
    let mut ordered = 0;
    let mut generation = 0;
    loop {
        let asked = searcher.ask(&domain)?;
        if asked.is_empty() {
            break;
        }
        let new: Vec<Arch> = asked.iter().filter(|a| !known.contains_key(*a)).cloned().collect();
        let outcome = evaluator.scores(&new, |i, score| {
            let text = space.text(&new[i]);
            let cost = space.cost(&new[i]);
            journal.record(Event::Candidate {
                index: state.scored.len() as u64,
                total,
                generation,
                arch: text.clone(),
                macs: cost.macs,
                params: cost.params,
                top1: share(score.top1, score.images),
                top5: share(score.top5, score.images),
                images: score.images,
            })?;
            state.scored.push(Scored { arch: text, score });
            known.insert(new[i].clone(), score);
            if stored.elapsed().as_secs_f64() >= every {
                state.seconds = before + started.elapsed().as_secs_f64();
                store(&mut state, journal, &path)?;
                stored = Instant::now();
            }
            Ok(())
        });
        if let Err(error) = outcome {
            if matches!(error, Error::Stopped) {
                state.seconds = before + started.elapsed().as_secs_f64();
                store(&mut state, journal, &path)?;
                let done = state.scored.len() as u64;
                journal.record(Event::Interrupted { stage: Stage::Search, done })?;
                return Err(Error::Interrupted { stage: Stage::Search.name(), done, total });
            }
            return Err(error);
        }
        // The walk over shared prefixes decides the order of scoring, and a kill would change it; what
        // stays is in the order of asking.
        let place = |c: &Scored| asked.iter().position(|a| space.text(a) == c.arch);
        let round = ordered..(ordered + asked.len()).min(state.scored.len());
        ordered = round.end;
        state.scored[round].sort_by_cached_key(place);
        let told: Vec<(Arch, Score)> = asked.into_iter().map(|a| (a.clone(), known[&a])).collect();
        searcher.tell(&told);
        generation += 1;
    }
    // The first of equals.
    let best = state
        .scored
        .iter()
        .min_by(|a, b| b.score.cmp(&a.score))
        .map(|best| best.arch.clone())
        .ok_or(Error::NothingFound)?;
    state.seconds = before + started.elapsed().as_secs_f64();
    journal.record(Event::Finished {
        stage: Stage::Search,
        subject: "candidates".into(),
        seconds: state.seconds,
    })?;
    state.found = best;
    store(&mut state, journal, &path)?;
    let arch = space.parse(&state.found)?;
    files::write_atomic(&dir.arch(), arch_json(space, &arch)?.as_bytes())?;
    Ok((arch, state.seconds))
}

/// How candidates are scored on so many images; without images for calibration, each batch by its own norms.
pub(super) fn scoring<'a>(
    stage: &'static str,
    model: &'a Model,
    store: &'a ParamStore,
    config: &SearchConfig,
    scored: usize,
) -> Scoring<'a> {
    let SearchConfig { calibration_images, calibration_batch, eval_batch, .. } = *config;
    let eval_batch = ("search.eval-batch", eval_batch.min(scored));
    if calibration_images == 0 {
        let batches = vec![(eval_batch.0, eval_batch.1, NormsBy::Batch)];
        return Scoring { stage, model, store, images: scored, batches };
    }
    let batches = vec![
        ("search.calibration-batch", calibration_batch, NormsBy::Batch),
        (eval_batch.0, eval_batch.1, NormsBy::Statistics),
    ];
    let images = calibration_images / calibration_batch * calibration_batch + scored;
    Scoring { stage, model, store, images, batches }
}

/// The text of `arch.json`.
pub(super) fn arch_json(space: &Space, arch: &Arch) -> Result<String> {
    serde_json::to_string_pretty(&space.arch_file(arch)?)
        .map_err(|e| Error::Format { path: "arch.json".into(), reason: e.to_string() })
}

fn store(state: &mut Found, journal: &mut Journal, path: &std::path::Path) -> Result<()> {
    state.events = journal.flush()?;
    let text = serde_json::to_string_pretty(state)
        .map_err(|e| Error::Format { path: path.to_owned(), reason: e.to_string() })?;
    files::write_atomic(path, text.as_bytes())
}

/// The first batches of a training pass with a seed of its own: augmented as in training.
pub(super) fn calibration_images(
    recipe: &Recipe,
    data: &Data,
    device: &impl Place,
    config: &SearchConfig,
) -> Result<Images> {
    let mut loader = training_loader(recipe, data, config.calibration_batch)?;
    let mut batch = Batch::default();
    let mut batches = Vec::new();
    for _ in 0..config.calibration_images / config.calibration_batch {
        loader.next(&mut batch)?;
        batches.push(Tensor::from_slice(device, batch.shape, &batch.images)?);
    }
    Ok(Images { batches, labels: Vec::new() })
}

/// Training batches that are not those of training.
pub(super) fn training_loader(recipe: &Recipe, data: &Data, batch: usize) -> Result<Loader> {
    let mut options = recipe.data.loader(batch);
    options.prefetch = options.prefetch.max(2);
    Ok(Loader::new(
        data.train.clone(),
        Pipeline::new(&recipe.data.augment, &recipe.data.normalise)?,
        Pass::Train,
        // Another stream than training's, so that calibration repeats no batch of it.
        recipe.seed ^ CALIBRATION,
        options,
    )?)
}

/// Changes the seed of calibration's images.
const CALIBRATION: u64 = 0x6361_6c69_6272_6174;

/// A whole view as an evaluation sees it, kept.
pub(super) fn scored_images(
    device: &Device,
    data: &DataConfig,
    view: &View,
    batch: usize,
    seed: u64,
) -> Result<Images> {
    let (batches, labels) =
        scored_batches(device, data, view, batch, seed)?.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    Ok(Images { batches, labels })
}

/// The same, batch after batch.
pub(super) fn scored_batches<'a>(
    device: &'a Device,
    data: &DataConfig,
    view: &View,
    batch: usize,
    seed: u64,
) -> Result<impl Iterator<Item = Result<(Tensor, Vec<i32>)>> + use<'a>> {
    let pipeline = Pipeline::new(&data.eval, &data.normalise)?;
    let mut loader = Loader::new(view.clone(), pipeline, Pass::Evaluate, seed, data.loader(batch))?;
    let mut batch = Batch::default();
    Ok(std::iter::from_fn(move || match loader.next(&mut batch) {
        Ok(false) => None,
        Ok(true) => {
            let images = Tensor::from_slice(device, batch.shape, &batch.images);
            let labels = batch.labels.iter().map(|&label| label as i32).collect();
            Some(images.map(|images| (images, labels)).map_err(Error::from))
        }
        Err(error) => Some(Err(error.into())),
    }))
}

/// `n` of the held-out images, as many of each class; `key` names the setting in messages.
pub(super) fn balanced(view: &View, n: usize, seed: u64, key: &str) -> Result<View> {
    let classes = view.dataset.classes().len();
    if n < classes || n > view.len() || !n.is_multiple_of(classes) {
        return Err(Error::Setting {
            key: key.into(),
            value: n.to_string(),
            range: format!("a multiple of the {classes} classes, at most the {} held-out images", view.len()),
        });
    }
    Ok(split::subset(view.clone(), Some(Subset::PerClass(n / classes)), seed)?)
}

pub(super) fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
