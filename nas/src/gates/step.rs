//! The architecture step: two candidates a slot, one of which runs, on held-out images.
//!
//! The network is cut at its slots, a tape for each. So the gradient at every slot's output is at hand when it is
//! walked back, and the candidate that takes part without running is computed there, without a record: one path's
//! activations in memory. Batch norms take the statistics of the images, as in training; weights stay as they are.

use std::path::Path;

use engine::{ParamStore, Rng, Tape, Tensor, Var, ops};

use super::{Costs, Gates, GatesConfig, LossParts, Pair};
use crate::arch::Arch;
use crate::data::{Batch, Loader, LoaderOptions, Pass, Pipeline, View};
use crate::error::{Error, Result};
use crate::model::{Context, Model, Norms};

/// What a training job says of its gates.
pub struct GateJob<'a> {
    /// Settings.
    pub config: &'a GatesConfig,
    /// Held-out images.
    pub images: &'a View,
    /// What is done to them.
    pub pipeline: &'a Pipeline,
    /// How they are read; `batch` of them a step.
    pub loader: LoaderOptions,
    /// Decides order and draws.
    pub seed: u64,
    /// Whether their probabilities draw the paths of weight steps too.
    pub draws: bool,
}

/// Makes architecture steps.
pub(crate) struct Architect<'a> {
    job: &'a GateJob<'a>,
    model: &'a Model,
    costs: Costs,
    /// Images over which batch norms take their statistics.
    bn_batch: usize,
    loader: Loader,
    batch: Batch,
    rng: Rng,
}

/// What an architecture step has seen.
pub(crate) struct Seen {
    pub cross_entropy: f64,
    pub expected: f64,
    pub loss: f64,
}

impl<'a> Architect<'a> {
    /// Goes on after the steps that `gates` has done.
    pub fn new(job: &'a GateJob<'a>, model: &'a Model, bn_batch: usize, gates: &Gates) -> Result<Self> {
        // The recipe's paths are absolute by now.
        let costs = Costs::new(model.space(), &job.config.cost, job.config.loss, Path::new(""))?;
        let batches = (job.images.len() / job.loader.batch) as u64;
        if batches == 0 {
            return Err(Error::Setting {
                key: "supernet.gates.batch".into(),
                value: job.loader.batch.to_string(),
                range: format!("at most the {} held-out images", job.images.len()),
            });
        }
        let rng = Rng::new(job.seed, "gate-pairs");
        // Training's order of other images is no order of these.
        let mut loader =
            Loader::new(job.images.clone(), job.pipeline.clone(), Pass::Train, job.seed, job.loader)?;
        loader.seek((gates.steps() / batches) as u32, (gates.steps() % batches) as u32);
        Ok(Self { job, model, costs, bn_batch, loader, batch: Batch::default(), rng })
    }

    /// Whether a step follows `step` weight steps, `joint` of which were over before the first may.
    pub fn due(&self, step: u64, joint: u64) -> bool {
        step > joint && (step - joint).is_multiple_of(self.job.config.every)
    }

    /// One step.
    pub fn step(&mut self, gates: &mut Gates, store: &mut ParamStore) -> Result<Seen> {
        self.loader.next(&mut self.batch)?;
        let space = self.model.space();
        let pairs = gates.pairs(&self.rng, gates.steps());
        let [n, h, w, c] = self.batch.shape;
        let (mut cross_entropy, mut by_gate) = (0.0, vec![[0.0; 2]; pairs.len()]);
        for from in (0..n).step_by(self.bn_batch) {
            let to = n.min(from + self.bn_batch);
            let pixels = &self.batch.images[from * h * w * c..to * h * w * c];
            let images = Tensor::from_slice(store.device(), [to - from, h, w, c], pixels)?;
            let labels: Vec<i32> = self.batch.labels[from..to].iter().map(|&l| l as i32).collect();
            let found = gate_gradients(self.model, store, &pairs, images, &labels)?;
            let share = (to - from) as f64 / n as f64;
            cross_entropy += share * found.cross_entropy;
            for (sum, one) in by_gate.iter_mut().zip(found.by_gate) {
                sum.iter_mut().zip(one).for_each(|(sum, one)| *sum += share * one);
            }
        }
        if !(cross_entropy.is_finite() && by_gate.iter().flatten().all(|g| g.is_finite())) {
            let arch = path(&pairs, |pair| pair.active);
            return Err(Error::NonFinite {
                step: gates.steps(),
                text: space.text(&arch),
                archs: vec![arch],
                what: "the loss of an architecture step".into(),
            });
        }
        let expected = self.costs.expected(&gates.probabilities());
        let config = self.job.config;
        let parts: LossParts = config.loss.parts(cross_entropy, expected, config.cost.reference());
        gates.update(space, &self.costs, &config.adam(), &pairs, &by_gate, &parts);
        Ok(Seen { cross_entropy, expected, loss: parts.value })
    }
}

/// What goes back through the gates of one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct GateGradients {
    /// Mean over the images, without label smoothing.
    pub cross_entropy: f64,
    /// Its gradient by the gates of every slot's pair, active candidate first: `<dL/dm, o_j(x)>` with m the slot's
    /// output (section 3.2.1); zeros for slots of one candidate.
    pub by_gate: Vec<[f64; 2]>,
}

/// The path through the active (or the other) candidates.
fn path(pairs: &[Pair], of: impl Fn(&Pair) -> usize) -> Arch {
    Arch::new(pairs.iter().map(|pair| of(pair) as u16).collect())
}

/// Runs the active candidates over images `[n, h, w, c]` and takes the gradient of the cross-entropy by the gates.
/// The weights' gradients, which come along, are cleared.
///
/// # Errors
/// What the engine returns.
pub fn gate_gradients(
    model: &Model,
    store: &mut ParamStore,
    pairs: &[Pair],
    images: Tensor,
    labels: &[i32],
) -> Result<GateGradients> {
    let (active, other) = (path(pairs, |pair| pair.active), path(pairs, |pair| pair.other));
    let stem = model.space().stem().len();
    let slot_at = |at: usize| at.checked_sub(stem).filter(|&s| pairs.get(s).is_some_and(|p| !p.is_single()));
    let mut by_gate = vec![[0.0; 2]; pairs.len()];
    // Nothing is asked of what lies before the first pair.
    let first = (0..model.depth()).find(|&at| slot_at(at).is_some()).unwrap_or(model.depth());
    let device = store.device().clone();
    let mut x = images;
    let mut cuts: Vec<(Tape, Var, Var)> = Vec::with_capacity(model.depth());
    for at in 0..model.depth() {
        let mut tape = if at < first { Tape::inference(&device) } else { Tape::new(&device) };
        let input = tape.leaf(x);
        let y = segment(model, &mut tape, store, &active, at, &input)?;
        x = y.tensor().clone();
        if at >= first {
            cuts.push((tape, input, y));
        }
    }
    let mut tape = Tape::new(&device);
    let logits = tape.leaf(x);
    let truth = tape.constant(Tensor::from_slice(&device, [labels.len()], labels)?);
    let loss = tape.apply(ops::SoftmaxCrossEntropy { smoothing: 0.0 }, &[&logits, &truth])?;
    let cross_entropy = f64::from(loss.tensor().on_host::<f32>()?[0]);
    let grads = tape.backward(&loss, 1.0, store)?;
    let mut dy = grads.get(&logits).cloned();
    for (at, (mut tape, input, y)) in (first..model.depth()).zip(cuts).rev() {
        let Some(d) = dy else { break };
        if let Some(slot) = slot_at(at) {
            let mut silent = Tape::inference(&device);
            let again = silent.constant(input.tensor().clone());
            let o = segment(model, &mut silent, store, &other, at, &again)?;
            by_gate[slot] = [dot(&d, y.tensor())?, dot(&d, o.tensor())?];
        }
        if at == first {
            break;
        }
        let grads = tape.backward_from(&y, d, store)?;
        dy = grads.get(&input).cloned();
    }
    store.clear_touched()?;
    Ok(GateGradients { cross_entropy, by_gate })
}

/// One segment with the statistics of its own images.
fn segment(
    model: &Model,
    tape: &mut Tape,
    store: &ParamStore,
    arch: &Arch,
    at: usize,
    x: &Var,
) -> Result<Var> {
    let mut moments = Vec::new();
    let norms = Norms::Batch(&mut moments);
    model.segment(&mut Context { tape, store, norms, dropout: None }, arch, at, x)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.on_host::<f32>()?
        .iter()
        .zip(b.on_host::<f32>()?.iter())
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum())
}
