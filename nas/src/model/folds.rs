//! Layers of one path with their norms folded into their filters: each is folded once and then runs
//! batch after batch.

use std::cell::RefCell;
use std::collections::HashMap;

use engine::ParamStore;
use engine::ops::{FoldedConv, FoldedResidual};

use super::{NormId, Statistics};
use crate::error::Result;

/// What evaluation runs. While it lives, neither weights nor statistics can change.
#[derive(Debug)]
pub struct Folds<'a> {
    store: &'a ParamStore,
    statistics: &'a Statistics,
    /// By the layer's last norm.
    convs: RefCell<HashMap<NormId, FoldedConv>>,
    residuals: RefCell<HashMap<NormId, FoldedResidual>>,
}

impl<'a> Folds<'a> {
    /// Nothing folded yet.
    pub fn new(store: &'a ParamStore, statistics: &'a Statistics) -> Self {
        Self { store, statistics, convs: RefCell::default(), residuals: RefCell::default() }
    }

    /// The weights.
    pub fn store(&self) -> &'a ParamStore {
        self.store
    }

    /// The statistics.
    pub fn statistics(&self) -> &'a Statistics {
        self.statistics
    }

    pub(super) fn conv(&self, id: NormId, fold: impl FnOnce() -> Result<FoldedConv>) -> Result<FoldedConv> {
        once(&self.convs, id, fold)
    }

    pub(super) fn residual(
        &self,
        id: NormId,
        fold: impl FnOnce() -> Result<FoldedResidual>,
    ) -> Result<FoldedResidual> {
        once(&self.residuals, id, fold)
    }
}

/// The layer of `id`, folded if it was not yet. A clone shares its filters.
fn once<T: Clone>(
    layers: &RefCell<HashMap<NormId, T>>,
    id: NormId,
    fold: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if let Some(layer) = layers.borrow().get(&id) {
        return Ok(layer.clone());
    }
    let layer = fold()?;
    layers.borrow_mut().insert(id, layer.clone());
    Ok(layer)
}
