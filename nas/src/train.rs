//! The training loop, for a supernet and for a single network alike.
//!
//! A step takes one path or several, over slices of its batch or over all of it; which group of images
//! runs which path is its table ([`crate::groups`]). On a GPU what came of a step is read when the next one was sent. A session is everything that a step changes; it is what a checkpoint holds, to the bit. Batches,
//! paths, augmentation and dropout follow from (seed, epoch, step), so nothing else is stored.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::optim::{Decay, Schedule, Sgd};
use engine::{Device, ParamStore, Place, Rng};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::checkpoint::{Archive, Checkpoints};
use crate::data::{Batch, Loader, View};
use crate::error::{Error, Result};
use crate::event::{Event, Stage};
use crate::gates::{Architect, GateJob, Gates, Seen};
use crate::groups::PathImages;
use crate::journal::Journal;
use crate::memory;
use crate::model::{Model, Statistics};
use crate::recipe::{LogConfig, TrainConfig};
use crate::step::{Maker, Sent, Tally};

/// What a training loop works on and how.
pub struct Job<'a> {
    /// The stage, for events.
    pub stage: Stage,
    /// What is trained: `supernet`, `found`, `random-2`.
    pub subject: &'a str,
    /// The model.
    pub model: &'a Model,
    /// The paths of each step.
    pub paths: &'a dyn Fn(u64) -> Vec<Arch>,
    /// Which images of the batch each of them sees.
    pub path_images: PathImages,
    /// How many groups run side by side at most: a matter of memory alone.
    pub at_once: usize,
    /// Settings.
    pub config: &'a TrainConfig,
    /// When to log and store.
    pub log: &'a LogConfig,
    /// Training images.
    pub images: &'a View,
    /// Decides initial weights, order, augmentation and dropout.
    pub seed: u64,
    /// Whether the running statistics of the batch norms are kept: single networks only.
    pub running_statistics: bool,
    /// Architecture parameters that are trained in turns with the weights and may decide the paths in place of
    /// `paths`.
    pub gates: Option<&'a GateJob<'a>>,
    /// Set by a signal: store a checkpoint and stop.
    pub stop: &'a AtomicBool,
}

/// Everything that a step changes.
#[derive(Debug)]
pub struct Session {
    /// Weights.
    pub store: ParamStore,
    /// Momenta.
    pub sgd: Sgd,
    /// Running statistics, for a single network.
    pub statistics: Option<Statistics>,
    /// Architecture parameters, where the job has them.
    pub gates: Option<Gates>,
    /// Steps done.
    pub step: u64,
    /// Seconds of work, over all sittings.
    pub seconds: f64,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Meta {
    subject: String,
    step: u64,
    seconds: f64,
    events: u64,
    isa: String,
}

impl Job<'_> {
    /// Epochs before those of `config`.
    fn warmup_epochs(&self) -> u64 {
        self.gates.map_or(0, |gates| gates.config.warmup_epochs)
    }
}

impl Session {
    /// Fresh weights.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn new(job: &Job<'_>, device: &impl Place) -> Result<Self> {
        let store = job.model.init(device, &Rng::new(job.seed, "init"))?;
        let sgd = Sgd::new(&store, job.config.sgd())?;
        let statistics = match job.running_statistics {
            true => Some(job.model.fresh_statistics(device)?),
            false => None,
        };
        let gates = job.gates.map(|gates| Gates::new(job.model.space(), gates.seed));
        Ok(Self { store, sgd, statistics, gates, step: 0, seconds: 0.0 })
    }

    /// Goes on from a checkpoint if there is one; the journal is cut back to that moment.
    ///
    /// # Errors
    /// [`Error::Format`] if the checkpoint belongs to another model.
    pub fn resume(
        job: &Job<'_>,
        device: &impl Place,
        checkpoints: &Checkpoints,
        journal: &mut Journal,
    ) -> Result<Self> {
        let mut session = Self::new(job, device)?;
        let Some(loaded) = checkpoints.load(job.subject)? else { return Ok(session) };
        session.restore(job, &loaded.archive, &loaded.path)?;
        let meta: Meta = loaded.archive.meta(&loaded.path)?;
        journal.vouch(meta.events);
        for path in &loaded.damaged {
            let message = format!("{} is damaged; went on from {}", path.display(), loaded.path.display());
            journal.record(Event::Warning { message })?;
        }
        let isa = session.store.device().arithmetic();
        if meta.isa != isa {
            let message = format!(
                "{} was written with {} and goes on with {isa}: the last bits may differ",
                job.subject, meta.isa
            );
            journal.record(Event::Warning { message })?;
        }
        Ok(session)
    }

    fn restore(&mut self, job: &Job<'_>, archive: &Archive, path: &Path) -> Result<()> {
        let meta: Meta = archive.meta(path)?;
        job.model.load_weights(&mut self.store, archive, path)?;
        let steps = archive.counts.get("optimiser.steps").ok_or_else(|| Error::Format {
            path: path.to_owned(),
            reason: "array \"optimiser.steps\" is missing".into(),
        })?;
        self.sgd.restore(archive.get("optimiser.momenta", path)?, steps)?;
        if let Some(statistics) = &mut self.statistics {
            job.model.load_statistics(statistics, self.store.device(), archive, path)?;
        }
        if let Some(gates) = &mut self.gates {
            gates.load(archive, path)?;
        }
        self.step = meta.step;
        self.seconds = meta.seconds;
        Ok(())
    }

    fn save(&self, job: &Job<'_>, checkpoints: &Checkpoints, journal: &mut Journal) -> Result<()> {
        let meta = Meta {
            subject: job.subject.to_owned(),
            step: self.step,
            seconds: self.seconds,
            events: journal.flush()?,
            isa: self.store.device().arithmetic(),
        };
        let mut archive = Archive::new(&meta)?;
        job.model.save_weights(&self.store, &mut archive)?;
        let momenta = self.sgd.momenta()?;
        archive.put("optimiser.momenta", &[momenta.len()], &momenta);
        archive.counts.insert("optimiser.steps".into(), self.sgd.all_steps().to_vec());
        if let Some(statistics) = &self.statistics {
            job.model.save_statistics(statistics, &mut archive)?;
        }
        if let Some(gates) = &self.gates {
            gates.save(&mut archive);
        }
        let path = checkpoints.save(job.subject, self.step, &archive)?;
        let file = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        journal.record(Event::Checkpoint {
            stage: job.stage,
            subject: job.subject.to_owned(),
            done: self.step,
            file,
        })
    }
}

/// Trains to the end, or to a checkpoint if `stop` is set.
///
/// # Errors
/// [`Error::Interrupted`] after a signal, with everything stored; [`Error::NonFinite`] naming the
/// step and the path; what data, files and the engine return.
pub fn train(
    job: &Job<'_>,
    session: &mut Session,
    loader: &mut Loader,
    checkpoints: &Checkpoints,
    journal: &mut Journal,
) -> Result<()> {
    let total = steps_per_epoch(job)? * (job.warmup_epochs() + job.config.epochs);
    steps(job, session, loader, checkpoints, journal, total)?;
    journal.record(Event::Finished {
        stage: job.stage,
        subject: job.subject.to_owned(),
        seconds: session.seconds,
    })
}

/// Trains up to step `total`; the learning rate falls over the epochs of the job's settings all the same.
///
/// # Errors
/// As [`train`].
pub(crate) fn steps(
    job: &Job<'_>,
    session: &mut Session,
    loader: &mut Loader,
    checkpoints: &Checkpoints,
    journal: &mut Journal,
    total: u64,
) -> Result<()> {
    let per_epoch = steps_per_epoch(job)?;
    let warmup = per_epoch * job.warmup_epochs();
    let warm = Schedule {
        lr: job.gates.map_or(0.0, |gates| gates.config.warmup_lr),
        warmup: 0,
        total: warmup,
        decay: Decay::Cosine,
    };
    let rate = Rate { warm, warmup, schedule: job.config.schedule(per_epoch * job.config.epochs, per_epoch) };
    let architect = match (job.gates, &session.gates) {
        (Some(gates), Some(state)) => Some(Architect::new(gates, job.model, job.config.bn_batch(), state)?),
        _ => None,
    };
    journal.record(Event::Started {
        stage: job.stage,
        subject: job.subject.to_owned(),
        total,
        done: session.step,
        unit: "steps".into(),
    })?;
    loader.seek((session.step / per_epoch) as u32, (session.step % per_epoch) as u32);
    let mut training = Training {
        lags: matches!(session.store.device(), Device::Cuda(_)),
        maker: Maker::new(session.store.device())?,
        per_epoch,
        total,
        rate,
        sent: None,
        spare: Batch::default(),
        untold: None,
        tally: Tally::default(),
        gated: None,
        since: Instant::now(),
        waited: loader.stats().wait,
        job,
        session,
        loader,
        journal,
    };
    let outcome = training.run(architect, checkpoints);
    // A step may be on its way: the last one, or one before what ended the loop.
    training.settle()?;
    training.tell()?;
    outcome
}

/// The learning rate: that of the epochs before those of the job's settings, then theirs.
struct Rate {
    warm: Schedule,
    warmup: u64,
    schedule: Schedule,
}

impl Rate {
    fn at(&self, step: u64) -> f32 {
        step.checked_sub(self.warmup).map_or_else(|| self.warm.at(step), |step| self.schedule.at(step))
    }
}

/// A loop on its way.
struct Training<'a, 'b> {
    job: &'a Job<'b>,
    session: &'a mut Session,
    loader: &'a mut Loader,
    journal: &'a mut Journal,
    maker: Maker,
    per_epoch: u64,
    total: u64,
    rate: Rate,
    /// Whether a step is settled when the next one was sent, and not at once.
    lags: bool,
    /// The step that was sent last, until it is settled.
    sent: Option<(Sent, Batch)>,
    /// The memory of a batch.
    spare: Batch,
    /// How many steps are done, until that is told.
    untold: Option<u64>,
    /// Since the last step event, over all images that a path has seen.
    tally: Tally,
    gated: Option<Seen>,
    since: Instant,
    waited: Duration,
}

impl Training<'_, '_> {
    fn run(&mut self, mut architect: Option<Architect<'_>>, checkpoints: &Checkpoints) -> Result<()> {
        let idle = self.job.gates.map_or(0, |gates| self.per_epoch * gates.config.idle_epochs);
        let mut stored = Instant::now();
        while self.session.step < self.total {
            let started = Instant::now();
            self.send()?;
            let done = self.session.step;
            let stop = self.job.stop.load(Ordering::Relaxed);
            let due = stored.elapsed().as_secs_f64() >= self.job.log.checkpoint_seconds;
            let save = done < self.total && (stop || due);
            let architect = architect.as_mut().filter(|a| a.due(done, self.rate.warmup + idle));
            if !self.lags || save || architect.is_some() {
                self.settle()?;
            }
            if let (Some(architect), Some(gates)) = (architect, &mut self.session.gates) {
                let seen = architect.step(gates, &mut self.session.store);
                self.gated = Some(seen.inspect_err(|e| note_failure(self.job, done, e, self.journal))?);
            }
            self.tell()?;
            self.session.seconds += started.elapsed().as_secs_f64();
            if save {
                self.session.save(self.job, checkpoints, self.journal)?;
                stored = Instant::now();
                if stop {
                    let (stage, total) = (self.job.stage, self.total);
                    self.journal.record(Event::Interrupted { stage, done })?;
                    return Err(Error::Interrupted { stage: stage.name(), done, total });
                }
            }
        }
        Ok(())
    }

    /// Sends the next step, and tells what came of the one before.
    fn send(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.spare);
        let rate = self.rate.at(self.session.step);
        let sent = match self.loader.next(&mut batch) {
            Ok(_) => self.maker.send(self.job, self.session, &batch, rate),
            Err(error) => Err(error.into()),
        };
        self.settle()?;
        self.tell()?;
        match sent {
            Ok(sent) => {
                self.session.step += 1;
                self.sent = Some((sent, batch));
                Ok(())
            }
            Err(error) => {
                self.maker.clear()?;
                Err(memory::explain_step(self.job, &mut self.session.store, &batch, error))
            }
        }
    }

    /// Waits for what came of the step that was sent last.
    fn settle(&mut self) -> Result<()> {
        let Some((sent, batch)) = self.sent.take() else { return Ok(()) };
        let step = sent.step;
        let Some(tally) = sent.wait(&batch)? else {
            // Nor did the step behind it change anything.
            self.session.step = step;
            let error = self.maker.examine(self.job, self.session, &batch);
            note_failure(self.job, step, &error, self.journal);
            return Err(error);
        };
        self.tally += tally;
        (self.untold, self.spare) = (Some(step + 1), batch);
        Ok(())
    }

    /// Records the steps that were settled, where an event is due.
    fn tell(&mut self) -> Result<()> {
        let Some(step) = self.untold.take() else { return Ok(()) };
        if !step.is_multiple_of(self.job.log.steps) && step != self.total {
            return Ok(());
        }
        let (tally, wait) = (std::mem::take(&mut self.tally), self.loader.stats().wait);
        self.journal.record(Event::Step {
            stage: self.job.stage,
            subject: self.job.subject.to_owned(),
            step,
            total: self.total,
            epoch: (step - 1) / self.per_epoch,
            loss: tally.loss / tally.images.max(1) as f64,
            accuracy: tally.right as f64 / tally.images.max(1) as f64,
            lr: f64::from(self.rate.at(step - 1)),
            images: tally.images,
            seconds: self.since.elapsed().as_secs_f64(),
            waited: (wait - self.waited).as_secs_f64(),
        })?;
        (self.since, self.waited) = (Instant::now(), wait);
        if let (Some(seen), Some(gates)) = (self.gated.take(), &self.session.gates) {
            self.journal.record(Event::Gates {
                step,
                cross_entropy: seen.cross_entropy,
                cost: seen.expected,
                loss: seen.loss,
                entropy: gates.entropy(),
            })?;
        }
        Ok(())
    }
}

/// Whole batches of the training images.
///
/// # Errors
/// [`Error::Setting`] if there is none.
pub(crate) fn steps_per_epoch(job: &Job<'_>) -> Result<u64> {
    let steps = job.images.len() / job.config.batch;
    if steps == 0 {
        return Err(Error::Setting {
            key: format!("{}: batch", job.stage.name()),
            value: job.config.batch.to_string(),
            range: format!("at most the {} training images", job.images.len()),
        });
    }
    Ok(steps as u64)
}

/// The failure itself is what the caller reports, so one while noting it is passed over.
fn note_failure(job: &Job<'_>, step: u64, error: &Error, journal: &mut Journal) {
    if let Error::NonFinite { text, what, .. } = error {
        let event = Event::NonFinite {
            stage: job.stage,
            subject: job.subject.to_owned(),
            step,
            arch: text.clone(),
            what: what.clone(),
        };
        journal.record(event).ok();
    }
}
