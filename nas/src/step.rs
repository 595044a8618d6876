//! One training step: sent to the device, read when its numbers are there, looked into where one is not finite.
//!
//! Sending waits for nothing. So a GPU may be a step ahead of what is known of it; there a step whose loss or gradient
//! is not finite changes no weight, nor does the one behind it ([`ParamStore::check_finite`]), and it can be run again
//! to find out why.

use engine::{Array, Device, Feed, Late, ParamStore, Rng, Tape, Tensor};

use crate::arch::Arch;
use crate::blame::first_not_finite;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::groups::{Row, Step, Table};
use crate::train::{Job, Session};

/// What steps are made with.
pub(crate) struct Maker {
    pub tape: Tape,
    pub feed: Feed,
}

/// A step that was sent.
pub(crate) struct Sent {
    /// Its number, from 0.
    pub step: u64,
    groups: Vec<Group>,
    spoilt: Late<i32>,
}

/// What comes of a group.
struct Group {
    row: Row,
    loss: Late<f32>,
    logits: Late<f32>,
}

/// Sums over images.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub loss: f64,
    pub right: u64,
    pub images: u64,
}

impl Maker {
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { tape: Tape::new(device), feed: Feed::new(device)? })
    }

    /// Forgets what was begun and gives back its memory.
    pub fn clear(&mut self) -> Result<()> {
        self.tape.clear();
        self.feed = Feed::new(self.tape.device())?;
        Ok(())
    }

    /// Sends the session's next step: the groups of its table, gradients summed in their order, one update.
    pub fn send(&mut self, job: &Job<'_>, session: &mut Session, batch: &Batch, lr: f32) -> Result<Sent> {
        let archs = archs(job, session);
        let (common, table) = (common(job, &archs, session.step), table(job, &archs, batch));
        let Session { store, sgd, statistics, .. } = session;
        let mut groups = Vec::new();
        for rows in table.calls(job.at_once) {
            let inputs = self.feed(batch, rows)?;
            let mut passed = common.forward(&mut self.tape, store, rows, inputs)?;
            let logits = std::mem::take(&mut passed.logits);
            for ((row, loss), logits) in rows.iter().zip(&passed.losses).zip(logits) {
                store.check_finite(loss.tensor())?;
                let (loss, logits) = (loss.tensor().late()?, logits.late()?);
                groups.push(Group { row: row.clone(), loss, logits });
            }
            if let Some(statistics) = statistics {
                job.model.update_running(statistics, &passed.moments)?;
            }
            passed.backward(&mut self.tape, store, &table, rows)?;
        }
        store.clip_grad_norm(job.config.clip_norm.unwrap_or(f32::INFINITY))?;
        if let Some(max) = job.config.clip_value {
            store.clip_grad_value(max)?;
        }
        sgd.step(store, lr)?;
        Ok(Sent { step: session.step, groups, spoilt: store.spoilt().late()? })
    }

    /// Runs the session's step, which was spoilt, again and looks at every number: the error that says where it began.
    pub fn examine(&mut self, job: &Job<'_>, session: &mut Session, batch: &Batch) -> Error {
        match self.culprit(job, session, batch) {
            Ok((archs, what)) => not_finite(job, session.step, &archs, &what),
            Err(error) => error,
        }
    }

    fn culprit(
        &mut self,
        job: &Job<'_>,
        session: &mut Session,
        batch: &Batch,
    ) -> Result<(Vec<Arch>, String)> {
        let archs = archs(job, session);
        let (common, table) = (common(job, &archs, session.step), table(job, &archs, batch));
        let store = &mut session.store;
        // Of a step behind it that was begun.
        self.tape.clear();
        store.clear_touched()?;
        store.forgive()?;
        for rows in table.calls(job.at_once) {
            let inputs = self.feed(batch, rows)?;
            let passed = common.forward(&mut self.tape, store, rows, inputs)?;
            if let Some(at) = passed.values()?.iter().position(|value| !value.is_finite()) {
                drop(passed);
                self.tape.clear();
                store.clear_touched()?;
                let path = vec![archs[rows[at].path].clone()];
                let (images, _) = self.feed(batch, &rows[at..=at])?.remove(0);
                let what = match first_not_finite(job.model, store, &path[0], &images)? {
                    Some(culprit) => format!("{culprit}, and so the loss,"),
                    None => "loss".to_owned(),
                };
                return Ok((path, what));
            }
            passed.backward(&mut self.tape, store, &table, rows)?;
        }
        let what = bad_gradient(store)?;
        store.clear_touched()?;
        Ok((archs, what))
    }

    /// Images and labels of the rows of a call.
    fn feed(&mut self, batch: &Batch, rows: &[Row]) -> Result<Vec<(Tensor, Tensor)>> {
        let [_, h, w, c] = batch.shape;
        // Paths over the same images share them.
        let first = |i: usize| rows.iter().position(|row| row.images == rows[i].images);
        let own: Vec<usize> = (0..rows.len()).filter(|&i| first(i) == Some(i)).collect();
        let labels: Vec<Vec<i32>> = own.iter().map(|&i| labels(batch, &rows[i])).collect();
        let mut arrays = Vec::with_capacity(2 * own.len());
        for (&i, labels) in own.iter().zip(&labels) {
            let of = &rows[i].images;
            let pixels = &batch.images[of.start * h * w * c..of.end * h * w * c];
            arrays.push(Array::F32([of.len(), h, w, c].into(), pixels));
            arrays.push(Array::I32([of.len()].into(), labels));
        }
        let sent = self.feed.send(&arrays)?;
        let of = |i: usize| {
            let at = own.iter().position(|&own| first(i) == Some(own)).expect("every row has a first");
            (sent[2 * at].clone(), sent[2 * at + 1].clone())
        };
        Ok((0..rows.len()).map(of).collect())
    }
}

impl Sent {
    /// What came of the step; `None` if something was not finite, and so nothing changed.
    pub fn wait(self, batch: &Batch) -> Result<Option<Tally>> {
        let mut tally = Tally::default();
        for Group { row, loss, logits } in self.groups {
            tally.loss += f64::from(loss.wait()?[0]) * row.images.len() as f64;
            tally.right += right(&logits.wait()?, &labels(batch, &row));
            tally.images += row.images.len() as u64;
        }
        Ok((self.spoilt.wait()? == [0]).then_some(tally))
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.right += other.right;
        self.images += other.images;
    }
}

/// The paths of the session's step.
fn archs(job: &Job<'_>, session: &Session) -> Vec<Arch> {
    match &session.gates {
        Some(gates) if job.gates.is_some_and(|job| job.draws) => {
            vec![gates.path(&Rng::new(job.seed, "path"), session.step)]
        }
        _ => (job.paths)(session.step),
    }
}

fn common<'a>(job: &'a Job<'_>, archs: &'a [Arch], step: u64) -> Step<'a> {
    let dropout = (Rng::new(job.seed, "dropout"), step);
    Step { model: job.model, archs, smoothing: job.config.label_smoothing, dropout }
}

fn table(job: &Job<'_>, archs: &[Arch], batch: &Batch) -> Table {
    Table::new(batch.shape[0], archs.len(), job.path_images, job.config.bn_batch())
}

fn labels(batch: &Batch, row: &Row) -> Vec<i32> {
    batch.labels[row.images.clone()].iter().map(|&l| l as i32).collect()
}

/// Where the gradients of a step whose losses are finite went wrong.
fn bad_gradient(store: &ParamStore) -> Result<String> {
    let (touched, values, grads) = (store.touched(), store.values()?, store.grads()?);
    let bad = |all: &[f32], id| all[store.param(id).range()].iter().any(|v| !v.is_finite());
    // A ReLU takes a NaN for 0, so a damaged parameter may show in the gradients alone. Of those the
    // last is where backward met it first.
    let damaged = touched.iter().find(|(id, _)| bad(&values, *id));
    let last = || touched.iter().rev().find(|(id, _)| bad(&grads, *id));
    Ok(match (damaged, last()) {
        (Some((id, _)), _) => format!("{}, and so a gradient,", store.param(*id).name),
        (None, Some((id, _))) => format!("the gradient of {}", store.param(*id).name),
        (None, None) => "the norm of the gradient".to_owned(),
    })
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
