//! The training loop, for a supernet and for a single network alike.
//!
//! A step takes one path or several, over slices of its batch or over all of it; which group of images
//! runs which path is its table ([`crate::groups`]). A session is everything that a step changes; it is what a checkpoint holds, to the bit. Batches,
//! paths, augmentation and dropout follow from (seed, epoch, step), so nothing else is stored.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::optim::{Decay, Schedule, Sgd};
use engine::{ParamStore, Place, Rng, Tape, Tensor};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::blame::first_not_finite;
use crate::checkpoint::{Archive, Checkpoints};
use crate::data::{Batch, Loader, View};
use crate::error::{Error, Result};
use crate::event::{Event, Stage};
use crate::gates::{Architect, GateJob, Gates};
use crate::groups::{PathImages, Step, Table};
use crate::journal::Journal;
use crate::memory;
use crate::model::{Model, Statistics};
use crate::recipe::{LogConfig, TrainConfig};

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

/// Running sums since the last step event, over all images that a path has seen.
#[derive(Default)]
struct Tally {
    loss: f64,
    right: u64,
    images: u64,
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
    let schedule = job.config.schedule(per_epoch * job.config.epochs, per_epoch);
    let warmup = per_epoch * job.warmup_epochs();
    let warm = Schedule {
        lr: job.gates.map_or(0.0, |gates| gates.config.warmup_lr),
        warmup: 0,
        total: warmup,
        decay: Decay::Cosine,
    };
    let rate = |step: u64| step.checked_sub(warmup).map_or_else(|| warm.at(step), |step| schedule.at(step));
    let mut architect = match (job.gates, &session.gates) {
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
    let device = session.store.device().clone();
    let mut tape = Tape::new(&device);
    let mut batch = Batch::default();
    let mut tally = Tally::default();
    let mut gated = None;
    let (mut since, mut stored, mut waited) = (Instant::now(), Instant::now(), loader.stats().wait);
    while session.step < total {
        let started = Instant::now();
        loader.next(&mut batch)?;
        if let Err(error) = step(job, session, &mut tape, &batch, rate(session.step), &mut tally) {
            note_failure(job, session.step, &error, journal);
            tape.clear();
            return Err(memory::explain(job, &mut session.store, &batch, error));
        }
        session.step += 1;
        if let (Some(architect), Some(gates), Some(GateJob { config, .. })) =
            (&mut architect, &mut session.gates, job.gates)
            && architect.due(session.step, warmup + per_epoch * config.idle_epochs)
        {
            match architect.step(gates, &mut session.store) {
                Ok(found) => gated = Some(found),
                Err(error) => {
                    note_failure(job, session.step, &error, journal);
                    return Err(error);
                }
            }
        }
        session.seconds += started.elapsed().as_secs_f64();
        if session.step.is_multiple_of(job.log.steps) || session.step == total {
            let wait = loader.stats().wait;
            journal.record(Event::Step {
                stage: job.stage,
                subject: job.subject.to_owned(),
                step: session.step,
                total,
                epoch: (session.step - 1) / per_epoch,
                loss: tally.loss / tally.images.max(1) as f64,
                accuracy: tally.right as f64 / tally.images.max(1) as f64,
                lr: f64::from(rate(session.step - 1)),
                images: tally.images,
                seconds: since.elapsed().as_secs_f64(),
                waited: (wait - waited).as_secs_f64(),
            })?;
            (tally, since, waited) = (Tally::default(), Instant::now(), wait);
            if let (Some(seen), Some(gates)) = (gated.take(), &session.gates) {
                journal.record(Event::Gates {
                    step: session.step,
                    cross_entropy: seen.cross_entropy,
                    cost: seen.expected,
                    loss: seen.loss,
                    entropy: gates.entropy(),
                })?;
            }
        }
        let stop = job.stop.load(Ordering::Relaxed);
        let due = stored.elapsed().as_secs_f64() >= job.log.checkpoint_seconds;
        if session.step < total && (stop || due) {
            session.save(job, checkpoints, journal)?;
            stored = Instant::now();
            if stop {
                journal.record(Event::Interrupted { stage: job.stage, done: session.step })?;
                return Err(Error::Interrupted { stage: job.stage.name(), done: session.step, total });
            }
        }
    }
    Ok(())
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

/// One update: the groups of the step's table, gradients summed in their order.
fn step(
    job: &Job<'_>,
    session: &mut Session,
    tape: &mut Tape,
    batch: &Batch,
    lr: f32,
    tally: &mut Tally,
) -> Result<()> {
    let device = session.store.device().clone();
    let archs = match &session.gates {
        Some(gates) if job.gates.is_some_and(|job| job.draws) => {
            vec![gates.path(&Rng::new(job.seed, "path"), session.step)]
        }
        _ => (job.paths)(session.step),
    };
    let [n, h, w, c] = batch.shape;
    let pixels = h * w * c;
    let images = |of: Range<usize>| -> Result<Tensor> {
        let data = &batch.images[of.start * pixels..of.end * pixels];
        Ok(Tensor::from_slice(&device, [of.len(), h, w, c], data)?)
    };
    let labels = |of: Range<usize>| batch.labels[of].iter().map(|&l| l as i32).collect::<Vec<i32>>();
    let table = Table::new(n, archs.len(), job.path_images, job.config.bn_batch());
    let dropout = (Rng::new(job.seed, "dropout"), session.step);
    let smoothing = job.config.label_smoothing;
    let common = Step { model: job.model, archs: &archs, smoothing, dropout };
    let (mut loss_sum, mut seen) = (0.0, 0);
    for rows in table.calls(job.at_once) {
        let truth = |of: Range<usize>| Ok(Tensor::from_slice(&device, [of.len()], &labels(of))?);
        let mut passed = common.forward(tape, &session.store, rows, images, truth)?;
        let values = passed.values()?;
        for (logits, row) in std::mem::take(&mut passed.logits).iter().zip(rows) {
            tally.right += right(&logits.on_host()?, &labels(row.images.clone()));
            seen += row.images.len();
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            drop(passed);
            tape.clear();
            session.store.clear_touched()?;
            let path = &archs[rows[at].path..][..1];
            let seen = images(rows[at].images.clone())?;
            let what = match first_not_finite(job.model, &session.store, &path[0], &seen)? {
                Some(culprit) => format!("{culprit}, and so the loss,"),
                None => "loss".to_owned(),
            };
            return Err(not_finite(job, session.step, path, &what));
        }
        loss_sum += values.iter().zip(rows).map(|(v, row)| v * row.images.len() as f64).sum::<f64>();
        if let Some(statistics) = &mut session.statistics {
            job.model.update_running(statistics, &passed.moments)?;
        }
        passed.backward(tape, &mut session.store, &table, rows)?;
    }
    let norm = match job.config.clip_norm {
        Some(max) => session.store.clip_grad_norm(max)?,
        None => session.store.grad_norm()?,
    };
    if !norm.is_finite() {
        let (store, touched) = (&session.store, session.store.touched());
        let (values, grads) = (store.values()?, store.grads()?);
        let bad = |all: &[f32], id| all[store.param(id).range()].iter().any(|v| !v.is_finite());
        // A ReLU takes a NaN for 0, so a damaged parameter may show in the gradients alone. Of those the
        // last is where backward met it first.
        let damaged = touched.iter().find(|(id, _)| bad(&values, *id));
        let last = || touched.iter().rev().find(|(id, _)| bad(&grads, *id));
        let culprit = match (damaged, last()) {
            (Some((id, _)), _) => format!("{}, and so a gradient,", store.param(*id).name),
            (None, Some((id, _))) => format!("the gradient of {}", store.param(*id).name),
            (None, None) => "the norm of the gradient".to_owned(),
        };
        session.store.clear_touched()?;
        return Err(not_finite(job, session.step, &archs, &culprit));
    }
    if let Some(max) = job.config.clip_value {
        session.store.clip_grad_value(max)?;
    }
    session.sgd.step(&mut session.store, lr)?;
    tally.loss += loss_sum;
    tally.images += seen as u64;
    Ok(())
}

/// How many rows have their largest logit at the label; the first of equals counts.
pub(crate) fn right(logits: &[f32], labels: &[i32]) -> u64 {
    let classes = logits.len() / labels.len().max(1);
    let best = |row: &[f32]| {
        row.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, &v)| if v > b.1 { (i, v) } else { b }).0
    };
    logits.chunks_exact(classes).zip(labels).filter(|(row, l)| best(row) as i32 == **l).count() as u64
}

fn not_finite(job: &Job<'_>, step: u64, archs: &[Arch], what: &str) -> Error {
    let texts: Vec<String> = archs.iter().map(|arch| job.model.space().text(arch)).collect();
    Error::NonFinite { step, archs: archs.to_vec(), text: texts.join(" and "), what: what.to_owned() }
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
