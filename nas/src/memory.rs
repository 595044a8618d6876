//! What to do when a memory cap is reached: who holds what, and what would fit.
//!
//! Both are measured, not guessed: larger and larger batches run over the largest path until one does not fit.

use std::fmt;

use engine::{Array, Feed, ParamStore, Tape, Tensor};

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::evaluate;
use crate::groups::{PathImages, Step, Table};
use crate::model::{Context, Folds, Model, Norms};
use crate::train::Job;

/// What would fit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// For a training step.
    Training {
        /// Images over which batch norm may take its statistics so that every path fits; unknown if not even
        /// two do.
        fits: Option<usize>,
        /// Paths that ran side by side.
        paths: usize,
    },
    /// For scoring networks.
    Scoring {
        /// Bytes of the images that are kept while networks are scored.
        images: usize,
        /// Bytes that about suffice for every path as things are set; unknown if not even two images fit.
        needed: Option<usize>,
        /// Settings of batch sizes with which every path fits, where that is less than what is set.
        fits: Vec<(&'static str, usize)>,
    },
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remedy::Training { fits: Some(n), paths: 2.. } => write!(
                f,
                "with paths-at-once = 1 and bn-batch = {n} it would fit (it must divide a path's images)"
            ),
            Remedy::Training { fits: Some(n), .. } => {
                write!(f, "bn-batch = {n} would fit (it must divide batch)")
            }
            Remedy::Training { fits: None, .. } | Remedy::Scoring { images: 0, needed: None, .. } => {
                f.write_str("not even 2 images fit; raise --memory or take a smaller space")
            }
            Remedy::Scoring { images, needed: None, .. } => write!(
                f,
                "not even 2 images at a time fit beside the {images} bytes of those that are kept; raise \
                 --memory or keep fewer"
            ),
            Remedy::Scoring { images, needed: Some(needed), fits } => {
                if *images > 0 {
                    write!(f, "images that are kept take {images} bytes in all; ")?;
                }
                write!(f, "--memory {}KiB would about do", needed.div_ceil(1 << 10))?;
                for (number, (key, n)) in fits.iter().enumerate() {
                    let joint = if number == 0 { ", and so would a run with" } else { " and" };
                    write!(f, "{joint} {key} = {n}")?;
                }
                Ok(())
            }
        }
    }
}

/// If a training step ran out of memory, the error that says more; else the error itself. Gradients in
/// `store` are lost; values stay.
pub(crate) fn explain_step(job: &Job<'_>, store: &mut ParamStore, batch: &Batch, error: Error) -> Error {
    let Error::Engine(engine::Error::OutOfMemory { requested, used, cap }) = error else { return error };
    let fits = store.clear_touched().map_err(Error::from).and_then(|()| {
        Fit::measure(job.config.bn_batch(), cap, |n| {
            let peak = step(job, store, batch, n);
            store.clear_touched()?;
            peak
        })
    });
    let fits = fits.unwrap_or(None).map(|fit| fit.most);
    let remedy = Remedy::Training { fits, paths: (job.paths)(0).len().min(job.at_once) };
    Error::Memory { stage: job.stage.name(), requested, used, cap, parameters: parameters(store), remedy }
}

/// How networks are scored.
pub(crate) struct Scoring<'a> {
    /// The stage, or the command.
    pub stage: &'static str,
    pub model: &'a Model,
    pub store: &'a ParamStore,
    /// Images that are kept while networks are scored.
    pub images: usize,
    /// The settings of batch sizes, what they are, and what batch norms go by in such a batch.
    pub batches: Vec<(&'static str, usize, NormsBy)>,
}

/// What the batch norms of a pass go by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NormsBy {
    /// The moments of the batch.
    Batch,
    /// Statistics that are known.
    Statistics,
}

impl Scoring<'_> {
    /// If scoring ran out of memory, the error that says more; else the error itself. Whatever was kept for it
    /// must have been given back.
    pub fn explain(&self, error: Error) -> Error {
        let Error::Engine(engine::Error::OutOfMemory { requested, used, cap }) = error else { return error };
        let remedy = self.remedy(cap).unwrap_or(Remedy::Scoring {
            images: self.images * self.pixels() * size_of::<f32>(),
            needed: None,
            fits: Vec::new(),
        });
        Error::Memory { stage: self.stage, requested, used, cap, parameters: parameters(self.store), remedy }
    }

    /// Numbers of an image.
    fn pixels(&self) -> usize {
        let input = self.model.space().input();
        input.size * input.size * input.channels
    }

    /// `None` if not even two images fit beside those that are kept.
    fn remedy(&self, cap: usize) -> Option<Remedy> {
        let kept = Tensor::zeros(self.store.device(), [self.images * self.pixels()]).ok()?;
        let (mut needed, mut fits) = (0, Vec::new());
        for &(key, batch, norms) in &self.batches {
            let fit = Fit::measure(batch, cap, |n| self.pass(n, norms)).ok().flatten()?;
            needed = needed.max(fit.needed);
            if fit.most < batch {
                fits.push((key, fit.most));
            }
        }
        Some(Remedy::Scoring { images: kept.shape().len() * size_of::<f32>(), needed: Some(needed), fits })
    }

    /// The peak of a pass over `n` images.
    fn pass(&self, n: usize, norms: NormsBy) -> Result<usize> {
        let (model, store, device) = (self.model, self.store, self.store.device());
        device.reset_peak();
        let input = model.space().input();
        let x = Tensor::zeros(device, [n, input.size, input.size, input.channels])?;
        let arch = model.space().largest();
        match norms {
            NormsBy::Batch => {
                let (mut tape, mut moments) = (Tape::inference(device), Vec::new());
                let x = tape.constant(x);
                let norms = Norms::Batch(&mut moments);
                model.forward(&mut Context { tape: &mut tape, store, norms, dropout: None }, &arch, &x)?;
            }
            NormsBy::Statistics => {
                let statistics = model.fresh_statistics(device)?;
                evaluate::logits(model, &Folds::new(store, &statistics), &arch, &x)?;
            }
        }
        Ok(device.memory().peak)
    }
}

/// Bytes of weights and their gradients.
fn parameters(store: &ParamStore) -> usize {
    2 * store.elements() * size_of::<f32>()
}

/// Which batch fits, and what another would need.
struct Fit {
    /// The most images that were seen to fit.
    most: usize,
    /// Bytes for the batch that is wanted.
    needed: usize,
}

impl Fit {
    /// For batches of up to `wanted` images, from the peaks of batches; `None` if not even two images fit.
    fn measure(
        wanted: usize,
        cap: usize,
        mut peak: impl FnMut(usize) -> Result<usize>,
    ) -> Result<Option<Self>> {
        let mut peak = |n: usize| match peak(n) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Engine(engine::Error::OutOfMemory { .. })) => Ok(None),
            Err(error) => Err(error),
        };
        let mut n = wanted.min(2);
        let Some(mut bytes) = peak(n)? else { return Ok(None) };
        // With one batch alone it is as if all of its bytes grew with the images.
        let mut per_image = bytes.div_ceil(n);
        while n < wanted {
            let larger = (2 * n).min(wanted);
            let Some(more) = peak(larger)? else { break };
            per_image = (more.saturating_sub(bytes) / (larger - n)).max(1);
            (n, bytes) = (larger, more);
        }
        let needed = bytes.saturating_add(per_image.saturating_mul(wanted - n));
        let between = (n + cap.saturating_sub(bytes) / per_image).min(wanted);
        let most = if between > n && peak(between)?.is_some() { between } else { n };
        Ok(Some(Self { most, needed }))
    }
}

/// The peak of a training step of the largest path, with no other beside it, over one batch-norm batch of `n`
/// images; as many of them as the batch has.
fn step(job: &Job<'_>, store: &mut ParamStore, batch: &Batch, n: usize) -> Result<usize> {
    let device = store.device().clone();
    device.reset_peak();
    let archs = [job.model.space().largest()];
    let [_, h, w, c] = batch.shape;
    let table = Table::new(n, 1, PathImages::Slices, n);
    let dropout = (engine::Rng::new(job.seed, "dropout"), 0);
    let step = Step { model: job.model, archs: &archs, smoothing: job.config.label_smoothing, dropout };
    let mut tape = Tape::new(&device);
    let pixels: Vec<f32> = batch.images.iter().copied().cycle().take(n * h * w * c).collect();
    let arrays = [Array::F32([n, h, w, c].into(), &pixels), Array::I32([n].into(), &vec![0; n])];
    let mut feed = Feed::new(&device)?;
    // A GPU holds the next batch, too.
    feed.send(&arrays)?;
    for rows in table.calls(1) {
        let inputs = feed.send(&arrays)?;
        let inputs = vec![(inputs[0].clone(), inputs[1].clone())];
        let passed = step.forward(&mut tape, store, rows, inputs)?;
        passed.backward(&mut tape, store, &table, rows)?;
    }
    Ok(device.memory().peak)
}

#[cfg(test)]
mod tests {
    use engine::{Cpu, Rng};

    use super::*;
    use crate::model::NormParams;
    use crate::space::Space;

    fn scoring<'a>(model: &'a Model, store: &'a ParamStore, images: usize, norms: NormsBy) -> Scoring<'a> {
        Scoring { stage: "test", model, store, images, batches: vec![("batch", 37, norms)] }
    }

    #[test]
    fn the_memory_and_the_batches_that_are_named_suffice() {
        let space = Space::load("quickstart").unwrap().with_input(20, 1).unwrap();
        let model = Model::new(&space, NormParams::Supernet).unwrap();
        let on = |cap: usize| model.init(&Cpu::with_cap(2, cap).unwrap(), &Rng::new(0, "init")).unwrap();
        for norms in [NormsBy::Batch, NormsBy::Statistics] {
            let free = on(usize::MAX);
            let all = scoring(&model, &free, 0, norms).pass(37, norms).unwrap();
            let (cap, store) = (all - 1_000, on(all - 1_000));
            let alone = scoring(&model, &store, 0, norms);
            let error = alone.explain(alone.pass(37, norms).unwrap_err());
            let Error::Memory { remedy: Remedy::Scoring { needed: Some(needed), fits, .. }, .. } = &error
            else {
                panic!("{error}")
            };
            let most = fits[0].1;
            assert!((2..37).contains(&most), "{norms:?}: {error}");
            alone.pass(most, norms).unwrap();
            // Hardly too little, and at most a tenth too much: scratch does not grow with the images.
            let about = all - all / 50..all + all / 10;
            assert!(about.contains(needed), "{norms:?}: {needed}, not {all}");
            assert!(error.to_string().contains(&format!("a run with batch = {most}")), "{error}");

            // Images that are kept leave less: half of what lies between two and all; too many leave no room.
            let two = scoring(&model, &free, 0, norms).pass(2, norms).unwrap();
            let kept = (all - two) / 2 / (400 * 4);
            let Some(Remedy::Scoring { images, fits, .. }) = scoring(&model, &store, kept, norms).remedy(cap)
            else {
                panic!("{norms:?}")
            };
            assert_eq!(images, kept * 400 * 4);
            assert!(fits[0].1 < most, "{norms:?}: {fits:?} beside them, {most} alone");
            assert_eq!(scoring(&model, &store, cap, norms).remedy(cap), None);
        }
    }
}
