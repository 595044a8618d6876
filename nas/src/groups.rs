//! The group table of a training step: which path runs over which images of the batch.
//!
//! A group is one path over images that its batch norms see together. Groups of one call run side by
//! side, call after call into the same gradients. How many groups a call holds decides memory and no
//! bit: gradients are added in the order of the table (masked path execution; FairNAS, ICCV 2021).

use std::ops::Range;

use engine::{Moments, ParamStore, Rng, Tape, Tensor, Var, ops};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::error::Result;
use crate::model::{Context, DropoutGroup, DropoutSite, Model, NormId, Norms};

/// Which images of a batch each path of a step sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathImages {
    /// A slice of its own: the losses are averaged over the batch.
    #[default]
    Slices,
    /// All of them: the losses of the paths are added (FairNAS).
    Shared,
}

impl PathImages {
    /// Whether it is what a recipe need not say.
    pub(crate) fn is_slices(&self) -> bool {
        *self == PathImages::Slices
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number of its path among those of the step.
    pub path: usize,
    /// Its images in the batch.
    pub images: Range<usize>,
}

/// The groups of a step, in the order in which their gradients are added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    batch: usize,
    /// Each a group of every path at most.
    rounds: Vec<Vec<Row>>,
}

impl Table {
    /// `paths` paths over a batch of `batch` images, batch norms over `bn_batch` of them at most.
    pub fn new(batch: usize, paths: usize, images: PathImages, bn_batch: usize) -> Self {
        let of = |path: usize| match images {
            PathImages::Slices => batch * path / paths..batch * (path + 1) / paths,
            PathImages::Shared => 0..batch,
        };
        let bn_batch = bn_batch.max(1);
        let longest = (0..paths).map(|path| of(path).len()).max().unwrap_or(0);
        let round = |round: usize| {
            let cut = |path: usize| {
                let Range { start, end } = of(path);
                let from = start + round * bn_batch;
                Row { path, images: from..end.min(from + bn_batch) }
            };
            (0..paths).map(cut).filter(|row| !row.images.is_empty()).collect()
        };
        Self { batch, rounds: (0..longest.div_ceil(bn_batch)).map(round).collect() }
    }

    /// The calls of a step, `at_once` groups in each at most and none of them twice the same path.
    pub fn calls(&self, at_once: usize) -> impl Iterator<Item = &[Row]> {
        self.rounds.iter().flat_map(move |round| round.chunks(at_once.max(1)))
    }

    /// What the mean loss of a group counts in the sum that is differentiated: slices add up to the mean
    /// over the batch, and of shared images every path adds its mean.
    pub fn weight(&self, row: &Row) -> f32 {
        row.images.len() as f32 / self.batch as f32
    }
}

/// What all groups of a step have in common.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The model.
    pub model: &'a Model,
    /// The paths.
    pub archs: &'a [Arch],
    /// Label smoothing.
    pub smoothing: f32,
    /// Dropout's stream and the number of the step.
    pub dropout: (Rng, u64),
}

/// What the forward pass of a call gives, in the order of its groups.
#[derive(Debug)]
pub struct Passed {
    /// Mean losses `[1]`.
    pub losses: Vec<Var>,
    /// Logits `[n, classes]`.
    pub logits: Vec<Tensor>,
    /// Statistics of every batch norm, norm by norm.
    pub moments: Vec<(NormId, Moments)>,
}

impl Step<'_> {
    /// Forward of one call over the images `[n, h, w, c]` and labels `[n]` of each of its rows.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn forward(
        &self,
        tape: &mut Tape,
        store: &ParamStore,
        rows: &[Row],
        inputs: Vec<(Tensor, Tensor)>,
    ) -> Result<Passed> {
        let (images, labels): (Vec<Var>, Vec<Var>) =
            inputs.into_iter().map(|(x, y)| (tape.constant(x), tape.constant(y))).unzip();
        let archs: Vec<&Arch> = rows.iter().map(|row| &self.archs[row.path]).collect();
        let groups: Vec<DropoutGroup> = rows
            .iter()
            .map(|row| DropoutGroup { path: row.path as u32, first: row.images.start as u32 })
            .collect();
        let (rng, step) = self.dropout;
        let mut moments = Vec::new();
        let dropout = Some(DropoutSite { rng, step, groups: &groups });
        let mut cx = Context { tape, store, norms: Norms::Batch(&mut moments), dropout };
        let outputs = self.model.forward_groups(&mut cx, &archs, images)?;
        let logits = outputs.iter().map(|y| y.tensor().clone()).collect();
        let mut calls = Vec::with_capacity(rows.len());
        for (y, truth) in outputs.into_iter().zip(labels) {
            let op = ops::SoftmaxCrossEntropy { smoothing: self.smoothing };
            calls.push(engine::Group::new(op, vec![y, truth]));
        }
        let losses = tape.apply_groups(calls)?.into_iter().map(|(loss, _)| loss).collect();
        Ok(Passed { losses, logits, moments })
    }
}

impl Passed {
    /// The losses as numbers.
    ///
    /// # Errors
    /// What a device says while they are copied.
    pub fn values(&self) -> Result<Vec<f64>> {
        self.losses.iter().map(|loss| Ok(f64::from(loss.tensor().on_host::<f32>()?[0]))).collect()
    }

    /// Adds the gradients of the weighted losses into `store`.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn backward(
        self,
        tape: &mut Tape,
        store: &mut ParamStore,
        table: &Table,
        rows: &[Row],
    ) -> Result<()> {
        let seeds: Vec<(&Var, f32)> =
            self.losses.iter().zip(rows).map(|(loss, row)| (loss, table.weight(row))).collect();
        tape.backward_groups(&seeds, store)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(table: &Table, at_once: usize) -> Vec<Vec<(usize, Range<usize>)>> {
        let row = |row: &Row| (row.path, row.images.clone());
        table.calls(at_once).map(|call| call.iter().map(row).collect()).collect()
    }

    #[test]
    fn one_path_has_a_group_a_micro_batch() {
        let table = Table::new(8, 1, PathImages::Slices, 4);
        assert_eq!(table, Table::new(8, 1, PathImages::Shared, 4));
        assert_eq!(rows(&table, 9), [vec![(0, 0..4)], vec![(0, 4..8)]]);
        assert_eq!(table.weight(&Row { path: 0, images: 0..4 }), 0.5);
    }

    #[test]
    fn slices_cover_the_batch_once_and_shared_images_once_a_path() {
        for (batch, paths, bn) in [(12, 3, 4), (12, 3, 2), (12, 3, 12), (13, 4, 2), (2, 4, 1), (7, 1, 7)] {
            for images in [PathImages::Slices, PathImages::Shared] {
                let table = Table::new(batch, paths, images, bn);
                let mut seen = vec![vec![0; batch]; paths];
                let mut weight = 0.0;
                for row in table.calls(usize::MAX).flatten() {
                    assert!(row.images.len() <= bn);
                    row.images.clone().for_each(|image| seen[row.path][image] += 1);
                    weight += table.weight(row);
                }
                let times = |image: usize| seen.iter().map(|path| path[image]).sum::<usize>();
                let wanted = if images == PathImages::Shared { paths } else { 1 };
                assert!((0..batch).all(|image| times(image) == wanted), "{batch} {paths} {bn} {images:?}");
                assert!(seen.iter().flatten().all(|&times| times <= 1));
                assert!((weight - wanted as f32).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn the_order_of_groups_does_not_depend_on_how_many_run_at_once() {
        let table = Table::new(24, 3, PathImages::Slices, 4);
        let all: Vec<_> = rows(&table, usize::MAX).concat();
        assert_eq!(all, [(0, 0..4), (1, 8..12), (2, 16..20), (0, 4..8), (1, 12..16), (2, 20..24)]);
        for at_once in 0..5 {
            assert_eq!(rows(&table, at_once).concat(), all);
            assert!(table.calls(at_once).all(|call| call.len() <= at_once.max(1)));
        }
    }
}
