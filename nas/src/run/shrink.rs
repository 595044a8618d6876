//! The stage that shrinks the space: a supernet over the whole space is trained and shrunk in turns, and what
//! is left is the space of every later stage, whose supernet begins anew (ABS, algorithm 2).
//!
//! The supernet keeps all its weights; what is dropped is no longer sampled, so it stands still. Weights,
//! momenta and the learning rate go on from round to round. `shrink.json` holds the rounds that are over: which
//! space a step trains follows from them, so a checkpoint from before a round resumes to the same bits.

use std::path::Path;
use std::time::Instant;

use engine::{ParamStore, Rng};
use serde::{Deserialize, Serialize};

use super::report::read_json;
use super::search::{balanced, scored_images, share};
use super::{Run, RunDir};
use crate::arch::Arch;
use crate::checkpoint::Archive;
use crate::data::{Loader, Pass, Pipeline};
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::event::{Dropped, Event, Stage};
use crate::files;
use crate::gates::GateJob;
use crate::groups::PathImages;
use crate::journal::Journal;
use crate::model::{Model, NormParams};
use crate::shrink::{Angles, OperatorMetric, OperatorScore, ShrinkConfig, magnitudes, operator_scores};
use crate::space::Space;
use crate::train::{self, Job, Session};

/// What `shrink.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Shrunk {
    /// Whether the space is small enough and `shrunk.toml` written.
    pub done: bool,
    /// The rounds that are over.
    pub rounds: Vec<Round>,
    /// Seconds of work, over all sittings.
    pub seconds: f64,
    /// Length of `events.jsonl` when this was written.
    pub events: u64,
}

/// One round: training, scores, and what was dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Round {
    /// Training steps done before it.
    pub step: u64,
    /// Networks left after it; decimal, as they may exceed what JSON's numbers hold.
    pub networks: String,
    /// Whether the weights of this moment are the base of all later angles.
    pub reset: bool,
    /// Every operator of each slot that had two or more.
    pub operators: Vec<Operator>,
}

/// An operator's score in a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Operator {
    /// Name of its slot.
    pub slot: String,
    /// Its label.
    pub label: String,
    /// The mean over its children: radians for angles, a share for accuracies. None if no child may hold it.
    pub score: Option<f64>,
    /// Children that it is the mean over.
    pub children: usize,
    /// Whether it went.
    pub dropped: bool,
}

impl Round {
    /// `space` without what this round dropped.
    fn apply(&self, space: &Space, path: &Path) -> Result<Space> {
        let mut dropped = Vec::new();
        for operator in self.operators.iter().filter(|o| o.dropped) {
            let slot = space.slots().iter().position(|s| s.name == operator.slot);
            let choice =
                slot.and_then(|s| space.slots()[s].choices.iter().position(|c| c.label == operator.label));
            let (Some(slot), Some(choice)) = (slot, choice) else {
                let reason = format!("{} has no candidate {} to drop", operator.slot, operator.label);
                return Err(Error::Format { path: path.to_owned(), reason });
            };
            dropped.push((slot, choice));
        }
        space.without(&dropped)
    }

    fn event(&self, number: usize) -> Event {
        let name = |o: &Operator| Dropped { slot: o.slot.clone(), label: o.label.clone(), score: o.score };
        let left = self.operators.iter().filter(|o| !o.dropped).count() as u64;
        Event::Shrunk {
            round: number as u64 + 1,
            step: self.step,
            networks: self.networks.clone(),
            left,
            dropped: self.operators.iter().filter(|o| o.dropped).map(name).collect(),
        }
    }
}

/// Shrinks, goes on shrinking, or reads what is left.
pub(crate) fn shrink(run: &mut Run<'_>, config: &ShrinkConfig) -> Result<Space> {
    let path = run.dir.shrink();
    let mut state: Shrunk = read_json(&path)?.unwrap_or_default();
    if state.done {
        run.journal.vouch(state.events);
        return Space::load(&run.dir.shrunk_space().to_string_lossy());
    }
    let left = state.rounds.iter().try_fold(run.space.clone(), |space, round| round.apply(&space, &path))?;
    let left = if fits(&left, config) {
        run.journal.vouch(state.events);
        left
    } else {
        rounds(run, config, &mut state, &path)?
    };
    files::write_atomic(&run.dir.shrunk_space(), left.to_toml()?.as_bytes())?;
    let seconds = state.seconds;
    run.journal.record(Event::Finished { stage: Stage::Shrink, subject: SUBJECT.into(), seconds })?;
    state.done = true;
    store(&mut state, &mut run.journal, &path)?;
    run.checkpoints.clear(SUBJECT)?;
    let base = run.dir.shrink_base();
    if base.exists() {
        std::fs::remove_file(&base).map_err(|e| Error::io("remove", &base, e))?;
    }
    Ok(left)
}

/// What is trained, in events and checkpoints.
const SUBJECT: &str = "shrink";

fn fits(space: &Space, config: &ShrinkConfig) -> bool {
    space.size().is_some_and(|size| size <= u128::from(config.size_limit))
}

/// Trains and drops until the space is small enough.
fn rounds(run: &mut Run<'_>, config: &ShrinkConfig, state: &mut Shrunk, path: &Path) -> Result<Space> {
    let whole = run.space.clone();
    let model = Model::new(&whole, NormParams::Supernet)?;
    let judged = match config.metric {
        OperatorMetric::Angle | OperatorMetric::Magnitude { .. } => None,
        OperatorMetric::Accuracy { images } => {
            let view = balanced(&run.data.val, images, run.recipe.seed, "shrink.metric.images")?;
            Some(scored_images(&run.device, &run.recipe.data, &view, images, run.recipe.seed)?)
        }
    };
    let Run { recipe, data, dir, device, stop, checkpoints, journal, .. } = run;
    let pipeline = Pipeline::new(&recipe.data.eval, &recipe.data.normalise)?;
    let config_of_gates = config.metric.gates();
    let held = config_of_gates.as_ref().map(|gates| GateJob {
        config: gates,
        images: &data.val,
        pipeline: &pipeline,
        loader: recipe.data.loader(gates.batch),
        seed: recipe.seed,
        draws: false,
    });
    let seed = recipe.seed;
    let mut base = model.init(device, &Rng::new(seed, "init"))?.values()?.into_owned();
    let paths = Rng::new(seed, "shrink-path");
    let first = |_| vec![whole.first()];
    let any = Job {
        stage: Stage::Shrink,
        subject: SUBJECT,
        model: &model,
        paths: &first,
        path_images: PathImages::Slices,
        at_once: 1,
        config: &config.train,
        log: &recipe.log,
        images: &data.train,
        seed,
        running_statistics: false,
        gates: held.as_ref(),
        stop,
    };
    let mut session = Session::resume(&any, device, checkpoints, journal)?;
    let mut loader = Loader::new(
        data.train.clone(),
        Pipeline::new(&recipe.data.augment, &recipe.data.normalise)?,
        Pass::Train,
        seed,
        recipe.data.loader(config.train.batch),
    )?;
    let mut space = whole.clone();
    let mut gone = 0;
    for number in 0.. {
        if fits(&space, config) {
            break;
        }
        let epochs = config.first_epochs.saturating_add(config.later_epochs.saturating_mul(number as u64));
        let lift = Lift::new(&space, &whole);
        let sampled =
            |step: u64| vec![lift.arch(&space.sample(&mut paths.at((step >> 32) as u32, step as u32, 0)))];
        let job = Job { paths: &sampled, ..any };
        let end = train::steps_per_epoch(&job)?.saturating_mul(epochs);
        let fresh = session.step < end;
        if fresh {
            train::steps(&job, &mut session, &mut loader, checkpoints, journal, end)?;
        }
        let known = number < state.rounds.len();
        if !known {
            let started = Instant::now();
            let rng = Rng::new(seed, "shrink-children").fork(&number.to_string());
            let angles = Angles::new(&space, &base, &session.store)?;
            // The recipe's paths are absolute by now.
            let bound = config.constraint.bind(&space, Path::new(""))?;
            let scored = if let Some(gates) = &session.gates {
                Ok(magnitudes(&space, gates, |slot, choice| lift.place(slot, choice)))
            } else {
                operator_scores(&space, config.children, &bound, &rng, |child| match &judged {
                    None => Ok(angles.of(child)),
                    Some(scored) => {
                        let (model, store) = (&model, &session.store);
                        let by_batch = Evaluator { model, store, calibration: None, scored, memory: 0, stop };
                        let score = by_batch.scores(&[lift.arch(child)], |_, _| Ok(()))?[0];
                        Ok(share(score.top1, score.images))
                    }
                })
            };
            let scores = match scored {
                Err(Error::Stopped) => {
                    // The round is scored again from its training on.
                    journal.record(Event::Interrupted { stage: Stage::Shrink, done: session.step })?;
                    return Err(Error::Interrupted {
                        stage: Stage::Shrink.name(),
                        done: session.step,
                        total: end,
                    });
                }
                scored => scored?,
            };
            let mut round = round(&space, &scores, config, session.step);
            let dropped = round.operators.iter().filter(|o| o.dropped).count();
            round.reset = gone + dropped > config.reset_after && state.rounds.iter().all(|r| !r.reset);
            round.networks =
                round.apply(&space, path)?.size().map_or("more than 2^128".into(), |n| n.to_string());
            if round.reset {
                save_base(dir, &model, &session.store)?;
            }
            state.seconds = session.seconds + started.elapsed().as_secs_f64();
            state.rounds.push(round);
        }
        let round = &state.rounds[number];
        if fresh || !known {
            journal.record(round.event(number))?;
        }
        if round.reset {
            base = load_base(dir, &model, device)?;
        }
        gone += round.operators.iter().filter(|o| o.dropped).count();
        let left = round.apply(&space, path)?;
        if let Some(gates) = &mut session.gates {
            lift.dropped(&left, &whole).for_each(|(slot, choice)| gates.close(slot, choice));
        }
        space = left;
        if !known {
            store(state, journal, path)?;
        }
    }
    Ok(space)
}

/// The scores with what goes; `networks` and `reset` are filled in by the caller.
fn round(space: &Space, scores: &[OperatorScore], config: &ShrinkConfig, step: u64) -> Round {
    let gone = config.drop.choose(scores);
    let operator = |(i, score): (usize, &OperatorScore)| {
        let slot = &space.slots()[score.slot];
        Operator {
            slot: slot.name.clone(),
            label: slot.choices[score.choice].label.clone(),
            score: score.score,
            children: score.children,
            dropped: gone.contains(&i),
        }
    };
    let operators = scores.iter().enumerate().map(operator).collect();
    Round { step, networks: String::new(), reset: false, operators }
}

/// Architectures of a part of a space as the whole space counts.
struct Lift(Vec<Vec<u16>>);

impl Lift {
    fn new(part: &Space, whole: &Space) -> Self {
        let place = |(part, whole): (&crate::space::Slot, &crate::space::Slot)| {
            let of = |label: &str| whole.choices.iter().position(|c| c.label == label);
            part.choices.iter().map(|c| of(&c.label).expect("a part has no other labels") as u16).collect()
        };
        Self(part.slots().iter().zip(whole.slots()).map(place).collect())
    }

    /// Where a slot's choice stands in the whole space.
    fn place(&self, slot: usize, choice: usize) -> usize {
        usize::from(self.0[slot][choice])
    }

    /// What of this part is not in `left`, as the whole space counts.
    fn dropped(&self, left: &Space, whole: &Space) -> impl Iterator<Item = (usize, usize)> {
        let left = Self::new(left, whole);
        let of = |(slot, places): (usize, &Vec<u16>)| {
            let gone = places.iter().filter(|place| !left.0[slot].contains(place));
            gone.map(|&place| (slot, usize::from(place))).collect::<Vec<_>>()
        };
        self.0.iter().enumerate().flat_map(of).collect::<Vec<_>>().into_iter()
    }

    fn arch(&self, arch: &Arch) -> Arch {
        Arch::new(self.0.iter().zip(arch.choices()).map(|(slot, &c)| slot[usize::from(c)]).collect())
    }
}

fn save_base(dir: &RunDir, model: &Model, store: &ParamStore) -> Result<()> {
    let mut archive = Archive::new(&())?;
    model.save_weights(store, &mut archive)?;
    files::write_atomic(&dir.shrink_base(), &archive.to_bytes()?)
}

fn load_base(dir: &RunDir, model: &Model, device: &impl engine::Place) -> Result<Vec<f32>> {
    let path = dir.shrink_base();
    let archive = Archive::from_bytes(&files::read(&path)?, &path)?;
    let mut store = model.init(device, &Rng::new(0, "init"))?;
    model.load_weights(&mut store, &archive, &path)?;
    Ok(store.values()?.into_owned())
}

fn store(state: &mut Shrunk, journal: &mut Journal, path: &Path) -> Result<()> {
    state.events = journal.flush()?;
    let text = serde_json::to_string_pretty(state)
        .map_err(|e| Error::Format { path: path.to_owned(), reason: e.to_string() })?;
    files::write_atomic(path, text.as_bytes())
}
