//! What to do when a memory cap is reached: who holds what, and the batch that would fit.
//!
//! The batch is measured, not guessed: what a step needs is a constant and a part per image, so the peaks
//! of two small steps over the largest path tell both.

use engine::{Array, Feed, ParamStore, Tape};

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::groups::{PathImages, Step, Table};
use crate::train::Job;

/// Images of the two steps that are measured.
const PROBES: [usize; 2] = [2, 4];

/// If a training step ran out of memory, the error that says more; else the error itself. Gradients in
/// `store` are lost; values stay.
pub(crate) fn explain(job: &Job<'_>, store: &mut ParamStore, batch: &Batch, error: Error) -> Error {
    let Error::Engine(engine::Error::OutOfMemory { requested, used, cap }) = error else { return error };
    let fits = fits(job, store, batch, cap).unwrap_or(None);
    let parameters = 2 * store.elements() * size_of::<f32>();
    let paths = (job.paths)(0).len().min(job.at_once);
    Error::Memory { stage: job.stage.name(), requested, used, cap, parameters, fits, paths }
}

/// The most images of one batch-norm batch for which a step of the largest path, with no other beside it,
/// stays below `cap`.
fn fits(job: &Job<'_>, store: &mut ParamStore, batch: &Batch, cap: usize) -> Result<Option<usize>> {
    store.clear_touched()?;
    let mut peaks = [0; 2];
    for (peak, n) in peaks.iter_mut().zip(PROBES) {
        match probe(job, store, batch, n) {
            Ok(bytes) => *peak = bytes,
            Err(Error::Engine(engine::Error::OutOfMemory { .. })) if n == PROBES[1] => {
                // Two images fit and four do not.
                store.clear_touched()?;
                return Ok(Some(PROBES[0]));
            }
            Err(error) => {
                store.clear_touched()?;
                return Err(error);
            }
        }
    }
    let per_image = ((peaks[1] - peaks[0]) / (PROBES[1] - PROBES[0])).max(1);
    let constant = peaks[0].saturating_sub(PROBES[0] * per_image);
    Ok(Some(cap.saturating_sub(constant) / per_image))
}

/// The peak of a step over `n` images, as many of them as the batch has.
fn probe(job: &Job<'_>, store: &mut ParamStore, batch: &Batch, n: usize) -> Result<usize> {
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
    store.clear_touched()?;
    Ok(device.memory().peak)
}
