//! Batch-norm statistics of one path: values beside the weights, never inside the supernet.

use std::path::Path;

use engine::{Moments, Place, Tensor};

use super::{Model, NormId};
use crate::calibrate::unbias;
use crate::checkpoint::Archive;
use crate::error::{Error, Result};

/// Mean and variance of every batch norm that has them.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Indexed by norm.
    values: Vec<Option<(Tensor, Tensor)>>,
    names: std::sync::Arc<[String]>,
}

impl Statistics {
    /// Mean `[c]` and variance `[c]` of a norm.
    ///
    /// # Errors
    /// [`Error::NoStatistics`] if it was never calibrated.
    pub fn get(&self, id: NormId) -> Result<(&Tensor, &Tensor)> {
        match &self.values[id.index()] {
            Some((mean, var)) => Ok((mean, var)),
            None => Err(Error::NoStatistics { norm: self.names[id.index()].clone() }),
        }
    }

    /// Replaces the statistics of a norm.
    pub fn set(&mut self, id: NormId, mean: Tensor, var: Tensor) {
        self.values[id.index()] = Some((mean, var));
    }
}

impl Model {
    /// No statistics at all: what calibration begins with.
    pub fn no_statistics(&self) -> Statistics {
        let names = self.norms.iter().map(|n| n.name.clone()).collect();
        Statistics { values: vec![None; self.norms.len()], names }
    }

    /// Mean 0 and variance 1 everywhere: what running statistics begin with.
    ///
    /// # Errors
    /// [`engine::Error::OutOfMemory`].
    pub fn fresh_statistics(&self, device: &impl Place) -> Result<Statistics> {
        let mut statistics = self.no_statistics();
        for (i, norm) in self.norms.iter().enumerate() {
            let ones = Tensor::from_slice(device, [norm.channels], &vec![1f32; norm.channels])?;
            statistics.set(NormId(i), Tensor::zeros(device, [norm.channels])?, ones);
        }
        Ok(statistics)
    }

    /// Moves running statistics towards one batch's by the space's momentum; variances unbiased, as
    /// PyTorch does.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn update_running(&self, statistics: &mut Statistics, moments: &[(NormId, Moments)]) -> Result<()> {
        let momentum = self.space.norm().momentum;
        for (id, batch) in moments {
            let unbias = unbias(batch.count) as f32;
            if let Some((mean, var)) = &mut statistics.values[id.index()] {
                mean.approach(&batch.mean, 1.0, momentum)?;
                var.approach(&batch.var, unbias, momentum)?;
            }
        }
        Ok(())
    }

    /// Puts every statistic into `archive` under its norm's name.
    ///
    /// # Errors
    /// [`Error::NoStatistics`] if one is missing.
    pub fn save_statistics(&self, statistics: &Statistics, archive: &mut Archive) -> Result<()> {
        for (i, norm) in self.norms.iter().enumerate() {
            let (mean, var) = statistics.get(NormId(i))?;
            archive.put(&format!("statistics.{}.mean", norm.name), &[norm.channels], &mean.on_host()?);
            archive.put(&format!("statistics.{}.var", norm.name), &[norm.channels], &var.on_host()?);
        }
        Ok(())
    }

    /// Takes every statistic from `archive`.
    ///
    /// # Errors
    /// [`Error::Format`] if one is missing or has another shape.
    pub fn load_statistics(
        &self,
        statistics: &mut Statistics,
        device: &impl Place,
        archive: &Archive,
        path: &Path,
    ) -> Result<()> {
        for (i, norm) in self.norms.iter().enumerate() {
            let read = |what: &str| -> Result<Tensor> {
                let name = format!("statistics.{}.{what}", norm.name);
                let values = archive.get_shaped(&name, &[norm.channels], path)?;
                Ok(Tensor::from_slice(device, [norm.channels], values)?)
            };
            statistics.set(NormId(i), read("mean")?, read("var")?);
        }
        Ok(())
    }
}
