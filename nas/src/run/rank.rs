//! Ranking networks with the supernet of a run directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::{Device, ParamStore, Rng, Tensor};
use serde::{Deserialize, Serialize};

use super::RunDir;
use super::report::read_json;
use super::search::{balanced, calibration_images, scored_images, scoring, share, training_loader};
use crate::arch::Arch;
use crate::checkpoint::Archive;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::files;
use crate::model::{Model, NormParams};
use crate::rank::{
    Metric, Ranking, Request, Synflow, Truth, gradient_norm, jacobian_covariance, space_scores,
};
use crate::recipe::Recipe;
use crate::search::SearchConfig;
use crate::shrink::Angles;
use crate::space::Space;

/// Training images that a gradient is taken on.
const GRADIENT_IMAGES: usize = 64;

/// Ranks the networks of `table` (what [`Truth::read`] reads) with the supernet of a run, and keeps the
/// ranking in the run's `rank.json`, where it replaces an earlier one by the same score. A ranking by other weights
/// than the run's last ones is not kept.
///
/// Scores that take a pass through each network are stored in the run's `scores.json` as they come: a ranking that
/// was stopped goes on with them, and one of more networks asks for the missing ones alone.
///
/// # Errors
/// [`Error::NoSupernet`] if the run has none yet; what [`Truth::read`], the data and the engine return;
/// [`Error::Stopped`] after a signal.
pub fn rank(
    dir: &RunDir,
    table: &Path,
    request: &Request,
    device: &Device,
    stop: &AtomicBool,
) -> Result<Ranking> {
    let recipe = dir.read_recipe()?;
    let space = dir.read_space()?;
    let truth = read_truth(table, &space, request)?;
    let (scores, seconds) =
        Scorer { dir, recipe: &recipe, space: &space, request, device, stop }.scores(&truth)?;
    let ranking = Ranking::new(request.metric, &space, &truth, &scores, request.seed)?;
    let ranking = Ranking { seconds, ..ranking };
    if request.weights.is_none() {
        store(dir, &ranking)?;
    }
    Ok(ranking)
}

/// The networks of a table that a request asks for.
///
/// # Errors
/// What [`Truth::read`] returns; [`Error::Format`] if there are fewer than two.
pub fn read_truth(table: &Path, space: &Space, request: &Request) -> Result<Truth> {
    let truth = Truth::read(table, space)?;
    let truth = truth.draw(request.networks.unwrap_or(usize::MAX), &Rng::new(request.seed, "rank"));
    if truth.networks().len() < 2 {
        let reason =
            "it must hold two trained networks or more, or, if it is a run, two retrained random ones";
        return Err(Error::Format { path: table.to_owned(), reason: reason.into() });
    }
    Ok(truth)
}

fn store(dir: &RunDir, ranking: &Ranking) -> Result<()> {
    let path = dir.rank();
    let mut all: Vec<Ranking> = read_json(&path)?.unwrap_or_default();
    match all.iter_mut().find(|r| r.metric == ranking.metric) {
        Some(old) => *old = ranking.clone(),
        None => all.push(ranking.clone()),
    }
    write_json(&path, &all)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|e| Error::Format { path: path.to_owned(), reason: e.to_string() })?;
    files::write_atomic(path, text.as_bytes())
}

/// What decides a score beside the network and the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Settings {
    metric: Metric,
    /// Weights on disk, by the digest of their file; none for scores of initial weights.
    weights: Option<String>,
    /// Of accuracies: the seed of the held-out images, how many, and how many calibrate.
    images: Option<(u64, usize, usize)>,
    /// What computes: other arithmetic has other last bits.
    isa: String,
}

/// Scores by one choice of settings, in `scores.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Known {
    settings: Settings,
    /// By the text of the architecture.
    scores: BTreeMap<String, f64>,
    /// That it took, over all sittings.
    seconds: f64,
}

struct Scorer<'a> {
    dir: &'a RunDir,
    recipe: &'a Recipe,
    space: &'a Space,
    request: &'a Request,
    device: &'a Device,
    stop: &'a AtomicBool,
}

impl Scorer<'_> {
    /// The score of every network, and the seconds that they took.
    fn scores(&self, truth: &Truth) -> Result<(Vec<f64>, f64)> {
        let archs: Vec<Arch> = truth.networks().iter().map(|network| network.arch.clone()).collect();
        let started = Instant::now();
        let scores = match self.request.metric {
            Metric::Macs | Metric::Params => space_scores(self.space, truth, self.request, self.device)?,
            Metric::Angle => {
                let model = Model::new(self.space, NormParams::Supernet)?;
                let initial = self.initial(&model)?;
                let mut trained = self.initial(&model)?;
                self.load(&model, &mut trained)?;
                let angles = Angles::new(self.space, &initial.values()?, &trained)?;
                archs.iter().map(|arch| angles.of(arch)).collect()
            }
            Metric::Synflow | Metric::GradientNorm | Metric::JacobianCovariance | Metric::Accuracy => {
                return self.known_and_new(&archs);
            }
        };
        Ok((scores, started.elapsed().as_secs_f64()))
    }

    /// Scores that are stored as they come. Those known from before are not taken again.
    fn known_and_new(&self, archs: &[Arch]) -> Result<(Vec<f64>, f64)> {
        let path = self.dir.scores();
        let mut all: Vec<Known> = read_json(&path)?.unwrap_or_default();
        let settings = self.settings()?;
        let at = all.iter().position(|known| known.settings == settings).unwrap_or_else(|| {
            all.push(Known { settings, scores: BTreeMap::new(), seconds: 0.0 });
            all.len() - 1
        });
        let texts: Vec<String> = archs.iter().map(|arch| self.space.text(arch)).collect();
        let missing: Vec<usize> =
            (0..archs.len()).filter(|&i| !all[at].scores.contains_key(&texts[i])).collect();
        if !missing.is_empty() {
            let new: Vec<Arch> = missing.iter().map(|&i| archs[i].clone()).collect();
            let (before, started, mut stored) = (all[at].seconds, Instant::now(), Instant::now());
            let outcome = self.passes(&new, &mut |i, score| {
                let arch = texts[missing[i]].clone();
                if !score.is_finite() {
                    return Err(Error::Unrankable { metric: self.request.metric.name(), arch, score });
                }
                all[at].scores.insert(arch, score);
                all[at].seconds = before + started.elapsed().as_secs_f64();
                if stored.elapsed().as_secs_f64() >= self.recipe.log.checkpoint_seconds {
                    write_json(&path, &all)?;
                    stored = Instant::now();
                }
                Ok(())
            });
            // After a failure and a signal, too.
            write_json(&path, &all)?;
            outcome?;
        }
        Ok((texts.iter().map(|text| all[at].scores[text]).collect(), all[at].seconds))
    }

    fn settings(&self) -> Result<Settings> {
        let Request { metric, seed, calibration_images, held_out_images, .. } = *self.request;
        let accuracy = metric == Metric::Accuracy;
        let digest =
            || -> Result<String> { Ok(blake3::hash(&files::read(&self.weights()?)?).to_hex().to_string()) };
        Ok(Settings {
            metric,
            weights: accuracy.then(digest).transpose()?,
            images: accuracy.then_some((seed, held_out_images, calibration_images)),
            isa: self.device.arithmetic(),
        })
    }

    /// Hands on the score of every network that a pass gives, with its place in `archs`, as soon as it is known.
    fn passes(&self, archs: &[Arch], done: &mut dyn FnMut(usize, f64) -> Result<()>) -> Result<()> {
        let model = Model::new(self.space, NormParams::Supernet)?;
        let mut store = self.initial(&model)?;
        let mut each = |score: &mut dyn FnMut(&Arch) -> Result<f64>| -> Result<()> {
            for (i, arch) in archs.iter().enumerate() {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                done(i, score(arch)?)?;
            }
            Ok(())
        };
        match self.request.metric {
            Metric::Synflow => {
                let mut synflow = Synflow::new(&model, store)?;
                each(&mut |arch| synflow.score(arch))
            }
            Metric::GradientNorm => {
                let (images, labels) = self.training_batch()?;
                each(&mut |arch| gradient_norm(&model, &mut store, arch, &images, &labels))
            }
            Metric::JacobianCovariance => {
                let (images, _) = self.training_batch()?;
                each(&mut |arch| jacobian_covariance(&model, &mut store, arch, &images))
            }
            // The other metrics take no pass.
            Metric::Accuracy | Metric::Angle | Metric::Macs | Metric::Params => {
                self.load(&model, &mut store)?;
                self.accuracies(&model, &store, archs, done)
            }
        }
    }

    fn initial(&self, model: &Model) -> Result<ParamStore> {
        model.init(self.device, &Rng::new(self.recipe.seed, "init"))
    }

    /// The file of the trained weights, or of those that were asked for.
    fn weights(&self) -> Result<PathBuf> {
        match &self.request.weights {
            Some(path) => Ok(path.clone()),
            None if self.dir.supernet().exists() => Ok(self.dir.supernet()),
            None => Err(Error::NoSupernet { path: self.dir.path().to_owned() }),
        }
    }

    fn load(&self, model: &Model, store: &mut ParamStore) -> Result<()> {
        let path = self.weights()?;
        let archive = Archive::from_bytes(&files::read(&path)?, &path)?;
        model.load_weights(store, &archive, &path)
    }

    fn accuracies(
        &self,
        model: &Model,
        store: &ParamStore,
        archs: &[Arch],
        done: &mut dyn FnMut(usize, f64) -> Result<()>,
    ) -> Result<()> {
        let (recipe, request) = (self.recipe, self.request);
        let data = recipe.data.open(self.dir.path(), recipe.seed)?;
        let view = balanced(&data.val, request.held_out_images, request.seed, "held-out-images")?;
        let config = SearchConfig {
            calibration_images: request.calibration_images,
            calibration_batch: recipe.search.calibration_batch.min(request.calibration_images),
            ..recipe.search.clone()
        };
        let calibrates = config.calibration_images > 0;
        if calibrates {
            config.check()?;
        }
        let mut scores = || {
            let scored = &scored_images(self.device, &recipe.data, &view, config.eval_batch, recipe.seed)?;
            let calibration = calibrates.then(|| calibration_images(recipe, &data, self.device, &config));
            let calibration = calibration.transpose()?;
            let (calibration, memory, stop) = (calibration.as_ref(), config.memory_mib << 20, self.stop);
            let evaluator = Evaluator { model, store, calibration, scored, memory, stop };
            evaluator.scores(archs, |i, score| done(i, share(score.top1, score.images))).map(drop)
        };
        scores().map_err(|error| scoring("rank", model, store, &config, view.len()).explain(error))
    }

    /// Images `[n, h, w, c]` of a training pass, with their labels.
    fn training_batch(&self) -> Result<(Tensor, Vec<i32>)> {
        let data = self.recipe.data.open(self.dir.path(), self.recipe.seed)?;
        let n = GRADIENT_IMAGES.min(data.train.len());
        let mut loader = training_loader(self.recipe, &data, n)?;
        let mut batch = Batch::default();
        loader.next(&mut batch)?;
        let labels = batch.labels.iter().map(|&label| label as i32).collect();
        Ok((Tensor::from_slice(self.device, batch.shape, &batch.images)?, labels))
    }
}
