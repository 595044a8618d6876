//! Scores of paths: batch norms calibrated for each path, or normalising batch by batch, and held-out images
//! classified.
//!
//! Statistics and activations of a segment depend on the choices up to it alone. So candidates with
//! a common prefix share its calibration and its activations exactly: a population is walked as a
//! trie, and a score is the same, to the bit, whatever else is scored beside it and in whatever order.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{ParamStore, Tape, Tensor, Var};

use crate::arch::Arch;
use crate::calibrate::Calibration;
use crate::error::{Error, Result};
use crate::model::{Context, Folds, Model, Norms, Statistics};
use crate::search::Score;

/// Images as they enter a network, with their labels if they are scored.
#[derive(Debug)]
pub struct Images {
    /// Batches `[n, h, w, c]`.
    pub batches: Vec<Tensor>,
    /// Labels of each batch; empty for calibration.
    pub labels: Vec<Vec<i32>>,
}

/// Scores paths of one trained model.
pub struct Evaluator<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its weights.
    pub store: &'a ParamStore,
    /// Training images in equal batches, for statistics. Without them every batch of held-out images is
    /// normalised by its own.
    pub calibration: Option<&'a Images>,
    /// Held-out images.
    pub scored: &'a Images,
    /// Bytes of activations that may be held for sharing.
    pub memory: usize,
    /// Set by a signal: stop between candidates.
    pub stop: &'a AtomicBool,
}

/// Where a group of candidates stands: everything up to `depth` segments is done.
#[derive(Clone)]
struct Front {
    depth: usize,
    statistics: Statistics,
    calibration: Vec<Tensor>,
    scored: Vec<Tensor>,
}

/// Bytes of the activations held for sharing.
#[derive(Clone, Copy)]
struct Held {
    /// By fronts that are needed again after the group is scored.
    above: usize,
    /// By the group's own front; none if it is one of those above.
    own: usize,
}

impl Evaluator<'_> {
    /// The score of every candidate; `done` hears of each as soon as it is known.
    ///
    /// # Errors
    /// What the engine returns; [`Error::Interrupted`] after a signal.
    pub fn scores(
        &self,
        archs: &[Arch],
        mut done: impl FnMut(usize, Score) -> Result<()>,
    ) -> Result<Vec<Score>> {
        if archs.is_empty() {
            return Ok(Vec::new());
        }
        let scores: Vec<Cell<Option<Score>>> = vec![Cell::new(None); archs.len()];
        let mut hear = |i: usize, score| {
            scores[i].set(Some(score));
            done(i, score)
        };
        let images = Front {
            depth: 0,
            statistics: self.model.no_statistics(),
            calibration: self.calibration.map_or_else(Vec::new, |images| images.batches.clone()),
            scored: self.scored.batches.clone(),
        };
        let all: Vec<usize> = (0..archs.len()).collect();
        // The images themselves are held anyway and count for nothing.
        match self.walk(archs, &all, 0, images.clone(), Held { above: 0, own: 0 }, &mut hear) {
            // The device has no room for sharing: who has no score yet goes alone.
            Err(Error::Engine(engine::Error::OutOfMemory { .. })) => {
                let mut left = all.iter().filter(|&&i| scores[i].get().is_none());
                left.try_for_each(|&i| self.finish(archs, &[i], &images, &mut hear))?;
            }
            outcome => outcome?,
        }
        Ok(scores.into_iter().map(|s| s.get().expect("the walk reaches every candidate")).collect())
    }

    /// Scores a group that is of one mind about the segments before `at`; the front stands there or before.
    ///
    /// A front is held while two or more branches leave it: the last of them takes it along. One that
    /// would not fit is passed over, and each branch goes on from the front before, to its own next fork.
    fn walk(
        &self,
        archs: &[Arch],
        group: &[usize],
        at: usize,
        mut front: Front,
        mut held: Held,
        done: &mut dyn FnMut(usize, Score) -> Result<()>,
    ) -> Result<()> {
        let lead = &archs[group[0]];
        let forks = |at: usize| group.iter().any(|&i| !self.model.same_choice(at, lead, &archs[i]));
        let Some(fork) = (at..self.model.depth()).find(|&at| forks(at)) else {
            return self.finish(archs, group, &front, done);
        };
        let bytes = self.bytes(fork);
        if fork > front.depth && held.above + bytes <= self.memory {
            front = self.advance(front, lead, fork)?;
            held.own = bytes;
        }
        let mut branches: Vec<Vec<usize>> = Vec::new();
        for &i in group {
            match branches.iter_mut().find(|b| self.model.same_choice(fork, &archs[b[0]], &archs[i])) {
                Some(branch) => branch.push(i),
                None => branches.push(vec![i]),
            }
        }
        // The largest branch has the most forks to come: it goes last and has the room of this front too.
        branches.sort_by_key(Vec::len);
        let last = branches.pop().expect("a group has a branch");
        for branch in &branches {
            let held = Held { above: held.above + held.own, own: 0 };
            self.walk(archs, branch, fork + 1, front.clone(), held, done)?;
        }
        self.walk(archs, &last, fork + 1, front, held, done)
    }

    /// Bytes of a front before segment `at`.
    fn bytes(&self, at: usize) -> usize {
        let batches = self.calibration.into_iter().chain([self.scored]).flat_map(|images| &images.batches);
        let images: usize = batches.map(|batch| batch.shape().dims()[0]).sum();
        images * self.model.activations(at) * size_of::<f32>()
    }

    /// Runs every batch from the front to `depth` along `arch`. A batch that nobody else holds is given back
    /// as soon as the next is there.
    fn advance(&self, mut front: Front, arch: &Arch, depth: usize) -> Result<Front> {
        let from = std::mem::replace(&mut front.depth, depth);
        let mut calibration = Calibration::new(self.model);
        for batch in &mut front.calibration {
            *batch = self.calibrate(from..depth, arch, batch, &mut calibration)?;
        }
        calibration.finish(self.store.device(), &mut front.statistics)?;
        let folds = Folds::new(self.store, &front.statistics);
        for batch in &mut front.scored {
            *batch = self.judge(&folds, from..depth, arch, batch)?;
        }
        Ok(front)
    }

    /// Takes one path from the front to its score; the group holds candidates that are all alike.
    fn finish(
        &self,
        archs: &[Arch],
        group: &[usize],
        front: &Front,
        done: &mut dyn FnMut(usize, Score) -> Result<()>,
    ) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let arch = &archs[group[0]];
        let depth = self.model.depth();
        let mut calibration = Calibration::new(self.model);
        for batch in &front.calibration {
            // The head's own norms need its statistics too, so a batch runs to the end.
            self.calibrate(front.depth..depth, arch, batch, &mut calibration)?;
        }
        let mut statistics = front.statistics.clone();
        calibration.finish(self.store.device(), &mut statistics)?;
        let folds = Folds::new(self.store, &statistics);
        let mut score = Score { top1: 0, top5: 0, images: 0 };
        for (batch, labels) in front.scored.iter().zip(&self.scored.labels) {
            let logits = self.judge(&folds, front.depth..depth, arch, batch)?;
            add_score(&mut score, &logits.on_host()?, labels);
        }
        group.iter().try_for_each(|&i| done(i, score))
    }

    /// Runs a batch of held-out images.
    fn judge<'f>(
        &self,
        folds: &'f Folds<'f>,
        segments: Range<usize>,
        arch: &Arch,
        batch: &Tensor,
    ) -> Result<Tensor> {
        match self.calibration {
            Some(_) => self.run(Norms::Folded(folds), segments, arch, batch),
            None => self.run(Norms::Batch(&mut Vec::new()), segments, arch, batch),
        }
    }

    fn calibrate(
        &self,
        segments: Range<usize>,
        arch: &Arch,
        batch: &Tensor,
        calibration: &mut Calibration,
    ) -> Result<Tensor> {
        let mut moments = Vec::new();
        let y = self.run(Norms::Batch(&mut moments), segments, arch, batch)?;
        calibration.add(&moments)?;
        Ok(y)
    }

    fn run(&self, norms: Norms<'_>, segments: Range<usize>, arch: &Arch, batch: &Tensor) -> Result<Tensor> {
        let mut tape = Tape::inference(self.store.device());
        let mut x: Var = tape.constant(batch.clone());
        let mut cx = Context { tape: &mut tape, store: self.store, norms, dropout: None };
        for at in segments {
            x = self.model.segment(&mut cx, arch, at, &x)?;
        }
        Ok(x.tensor().clone())
    }
}

/// The score of one network with fixed statistics.
///
/// # Errors
/// What the engine returns.
pub fn score(
    model: &Model,
    store: &ParamStore,
    statistics: &Statistics,
    arch: &Arch,
    images: impl IntoIterator<Item = Result<(Tensor, Vec<i32>)>>,
) -> Result<Score> {
    let folds = Folds::new(store, statistics);
    let mut score = Score { top1: 0, top5: 0, images: 0 };
    for batch in images {
        let (x, labels) = batch?;
        let logits = logits(model, &folds, arch, &x)?;
        add_score(&mut score, &logits.on_host()?, &labels);
    }
    Ok(score)
}

/// Logits `[n, classes]` of a batch `[n, h, w, c]`.
///
/// # Errors
/// What the engine returns.
pub fn infer(
    model: &Model,
    store: &ParamStore,
    statistics: &Statistics,
    arch: &Arch,
    x: &Tensor,
) -> Result<Tensor> {
    logits(model, &Folds::new(store, statistics), arch, x)
}

/// The same with layers that may be folded already.
///
/// # Errors
/// What the engine returns.
pub fn logits(model: &Model, folds: &Folds<'_>, arch: &Arch, x: &Tensor) -> Result<Tensor> {
    let mut tape = Tape::inference(folds.store().device());
    let x = tape.constant(x.clone());
    let mut cx =
        Context { tape: &mut tape, store: folds.store(), norms: Norms::Folded(folds), dropout: None };
    Ok(model.forward(&mut cx, arch, &x)?.tensor().clone())
}

/// Counts the labels among the best guess and the best five; of equal logits the lower class counts
/// as the better guess. A NaN never counts.
pub(crate) fn add_score(score: &mut Score, logits: &[f32], labels: &[i32]) {
    let classes = logits.len() / labels.len().max(1);
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let own = row[label as usize];
        let better = row
            .iter()
            .enumerate()
            .filter(|&(i, &v)| v > own || v.is_nan() || (v == own && i < label as usize))
            .count();
        score.top1 += u64::from(better == 0 && !own.is_nan());
        score.top5 += u64::from(better < 5 && !own.is_nan());
        score.images += 1;
    }
}
