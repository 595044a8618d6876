//! Batch-norm statistics of a path: the mean over equal batches of the batch mean and of the
//! *unbiased* batch variance (PyTorch's `momentum=None`), from zero and kept apart from the supernet.

use engine::{Moments, Place, Tensor};

use crate::error::Result;
use crate::model::{Model, NormId, Statistics};

/// Gathers the moments of batch after batch.
pub struct Calibration {
    /// Indexed by norm; none for those that were not met.
    sums: Vec<Option<Sums>>,
}

/// What one norm has gathered.
#[derive(Clone)]
struct Sums {
    batches: usize,
    means: Vec<f64>,
    /// Of the unbiased variances.
    vars: Vec<f64>,
}

impl Calibration {
    /// Nothing gathered yet.
    pub fn new(model: &Model) -> Self {
        Self { sums: vec![None; model.norms().len()] }
    }

    /// Adds the moments of one batch; all batches must have the same number of images.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn add(&mut self, moments: &[(NormId, Moments)]) -> Result<()> {
        for (id, moments) in moments {
            let (mean, var) = (moments.mean.on_host::<f32>()?, moments.var.on_host::<f32>()?);
            let unbias = unbias(moments.count);
            let zeros = || Sums { batches: 0, means: vec![0.0; mean.len()], vars: vec![0.0; mean.len()] };
            let sums = self.sums[id.index()].get_or_insert_with(zeros);
            sums.batches += 1;
            sums.means.iter_mut().zip(&*mean).for_each(|(sum, &v)| *sum += f64::from(v));
            sums.vars.iter_mut().zip(&*var).for_each(|(sum, &v)| *sum += f64::from(v) * unbias);
        }
        Ok(())
    }

    /// Writes the averages of what was gathered into `statistics`.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn finish(self, device: &impl Place, statistics: &mut Statistics) -> Result<()> {
        for (index, sums) in self.sums.into_iter().enumerate() {
            if let Some(Sums { batches, means, vars }) = sums {
                let average = |sums: Vec<f64>| -> Result<Tensor> {
                    let values: Vec<f32> = sums.iter().map(|s| (s / batches as f64) as f32).collect();
                    Ok(Tensor::from_slice(device, [values.len()], &values)?)
                };
                statistics.set(NormId::new(index), average(means)?, average(vars)?);
            }
        }
        Ok(())
    }
}

/// The factor from the biased to the unbiased variance of `count` values.
pub(crate) fn unbias(count: usize) -> f64 {
    if count > 1 { count as f64 / (count - 1) as f64 } else { 1.0 }
}
