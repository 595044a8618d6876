//! Ranking networks with the supernet of a run directory.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use engine::{Device, ParamStore, Rng, Tensor};

use super::RunDir;
use super::report::read_json;
use super::search::{balanced, by_batch, calibration_images, scored_images, share, training_loader};
use super::supernet;
use crate::arch::Arch;
use crate::checkpoint::Archive;
use crate::data::{Batch, Data};
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::files;
use crate::model::{Model, NormParams};
use crate::rank::{Metric, Ranking, Request, Truth, gradient_norm, jacobian_covariance, space_scores};
use crate::recipe::Recipe;
use crate::search::{Score, SearchConfig};
use crate::shrink::Angles;
use crate::space::Space;

/// Training images that a gradient is taken on.
const GRADIENT_IMAGES: usize = 64;

/// Ranks the networks of `table` (what [`Truth::read`] reads) with the supernet of a run, and keeps the
/// ranking in the run's `rank.json`, where it replaces an earlier one by the same score. A ranking by other weights
/// than the run's last ones is not kept.
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
    let started = Instant::now();
    let scores = Scorer { dir, recipe: &recipe, space: &space, request, device, stop }.scores(&truth)?;
    let ranking = Ranking::new(request.metric, &space, &truth, &scores, request.seed)?;
    let ranking = Ranking { seconds: started.elapsed().as_secs_f64(), ..ranking };
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
    let text = serde_json::to_string(&all)
        .map_err(|e| Error::Format { path: path.clone(), reason: e.to_string() })?;
    files::write_atomic(&path, text.as_bytes())
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
    fn scores(&self, truth: &Truth) -> Result<Vec<f64>> {
        let archs: Vec<Arch> = truth.networks().iter().map(|network| network.arch.clone()).collect();
        let model = Model::new(self.space, NormParams::Supernet)?;
        let mut initial = model.init(self.device, &Rng::new(self.recipe.seed, "init"))?;
        match self.request.metric {
            Metric::Angle => {
                let mut trained = model.init(self.device, &Rng::new(self.recipe.seed, "init"))?;
                self.load(&model, &mut trained)?;
                let angles = Angles::new(self.space, &initial.values()?, &trained)?;
                Ok(archs.iter().map(|arch| angles.of(arch)).collect())
            }
            Metric::GradientNorm | Metric::JacobianCovariance => {
                let data = self.recipe.data.open(self.dir.path(), self.recipe.seed)?;
                let (images, labels) = self.training_batch(&data)?;
                let mut score = |arch| match self.request.metric {
                    Metric::GradientNorm => gradient_norm(&model, &mut initial, arch, &images, &labels),
                    _ => jacobian_covariance(&model, &mut initial, arch, &images),
                };
                archs.iter().map(|arch| self.unless_stopped(|| score(arch))).collect()
            }
            Metric::Macs | Metric::Params | Metric::Synflow => {
                space_scores(self.space, truth, self.request, self.device)
            }
            Metric::Accuracy => {
                self.load(&model, &mut initial)?;
                let scores = self.accuracies(&model, &initial, &archs)?;
                Ok(scores.iter().map(|score| share(score.top1, score.images)).collect())
            }
        }
    }

    /// The trained weights, or those of the checkpoint that was asked for.
    fn load(&self, model: &Model, store: &mut ParamStore) -> Result<()> {
        match &self.request.weights {
            None => supernet::load(self.dir, model, store).map(drop),
            Some(path) => {
                let archive = Archive::from_bytes(&files::read(path)?, path)?;
                model.load_weights(store, &archive, path)
            }
        }
    }

    fn unless_stopped<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.stop.load(std::sync::atomic::Ordering::Relaxed) { Err(Error::Stopped) } else { work() }
    }

    fn accuracies(&self, model: &Model, store: &ParamStore, archs: &[Arch]) -> Result<Vec<Score>> {
        let (recipe, request) = (self.recipe, self.request);
        let data = recipe.data.open(self.dir.path(), recipe.seed)?;
        let view = balanced(&data.val, request.held_out_images, request.seed, "held-out-images")?;
        let scored = scored_images(self.device, &recipe.data, &view, recipe.search.eval_batch, recipe.seed)?;
        if request.calibration_images == 0 {
            return archs
                .iter()
                .map(|arch| self.unless_stopped(|| by_batch(model, store, arch, &scored)))
                .collect();
        }
        let config = SearchConfig {
            calibration_images: request.calibration_images,
            calibration_batch: recipe.search.calibration_batch.min(request.calibration_images),
            ..recipe.search.clone()
        };
        config.check()?;
        let evaluator = Evaluator {
            model,
            store,
            calibration: &calibration_images(recipe, &data, self.device, &config)?,
            scored: &scored,
            memory: config.memory_mib << 20,
            stop: self.stop,
        };
        evaluator.scores(archs, |_, _| Ok(()))
    }

    /// Images `[n, h, w, c]` of a training pass, with their labels.
    fn training_batch(&self, data: &Data) -> Result<(Tensor, Vec<i32>)> {
        let n = GRADIENT_IMAGES.min(data.train.len());
        let mut loader = training_loader(self.recipe, data, n)?;
        let mut batch = Batch::default();
        loader.next(&mut batch)?;
        let labels = batch.labels.iter().map(|&label| label as i32).collect();
        Ok((Tensor::from_slice(self.device, batch.shape, &batch.images)?, labels))
    }
}
