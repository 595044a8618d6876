//! What several paths in a step cost, and what changing the path costs.

use std::ops::Range;

use anyhow::Result;
use clap::Args;
use cpu_time::ProcessTime;
use engine::optim::{Sgd, SgdConfig, WeightDecay};
use engine::{ParamStore, Rng, Tape, Tensor};
use nas::arch::Arch;
use nas::groups::{self, PathImages, Row, Table};
use nas::model::{Model, NormParams};
use serde_json::json;

use super::step::inputs;
use super::{Common, print, summary};
use crate::setup::usage;

/// Several paths over slices of a batch, beside one path over the whole batch: pairs of steps, the
/// same paths on both sides, so equal work.
#[derive(Args)]
pub struct Groups {
    #[command(flatten)]
    common: Common,
    /// Paths of a step; the batch is made a multiple of it
    #[arg(long, default_value_t = 6)]
    groups: usize,
    /// Paths that run side by side at most [default: all]
    #[arg(long)]
    at_once: Option<usize>,
}

/// Steps on a path that the step before did not take, beside the same step again: pairs, equal work.
#[derive(Args)]
pub struct Switch {
    #[command(flatten)]
    common: Common,
}

impl Groups {
    /// Measures.
    pub fn run(self) -> Result<()> {
        let c = &self.common;
        let count = self.groups;
        if count == 0 {
            return Err(usage("--groups 0: it must be 1 or more"));
        }
        let batch = c.batch.unwrap_or(c.preset.batch()).next_multiple_of(count);
        let mut trainer = Trainer::new(c, batch)?;
        let mut archs = trainer.archs.clone();
        // Whole sets of paths, so that both sides take every path equally often.
        while archs.len() < count {
            archs.extend_from_within(..);
        }
        archs.truncate(archs.len() / count * count);
        let at_once = self.at_once.unwrap_or(usize::MAX);
        let (mut whole, mut sliced, mut ratios) = (vec![], vec![], vec![]);
        let steps = c.steps.next_multiple_of(count);
        for i in 0..c.warmup + steps {
            // A set of paths lasts `count` pairs, in which every path has every slice once.
            let at = if i < c.warmup { i } else { i - c.warmup };
            let mut turned = archs[at / count * count % archs.len()..][..count].to_vec();
            turned.rotate_left(at % count);
            let pair = [
                trainer.step(&turned[..1], PathImages::Slices, usize::MAX)?,
                trainer.step(&turned, PathImages::Slices, at_once)?,
            ];
            if i >= c.warmup {
                whole.push(pair[0]);
                sliced.push(pair[1]);
            }
        }
        for (whole, sliced) in whole.chunks_exact(count).zip(sliced.chunks_exact(count)) {
            ratios.push(sliced.iter().sum::<f64>() / whole.iter().sum::<f64>());
        }
        let value = json!({
            "mode": "groups", "preset": c.preset.name(), "batch": batch, "groups": count,
            "threads": trainer.threads(), "isa": trainer.isa(),
            "one_path_cpu_ms": summary(&whole, "ms"), "groups_cpu_ms": summary(&sliced, "ms"),
            "ratio": sliced.iter().sum::<f64>() / whole.iter().sum::<f64>(),
            "ratio_of_sets": ratios,
        });
        print(&value, c.json);
        Ok(())
    }
}

impl Switch {
    /// Measures.
    pub fn run(self) -> Result<()> {
        let c = &self.common;
        let mut trainer = Trainer::new(c, c.batch.unwrap_or(c.preset.batch()))?;
        let archs = trainer.archs.clone();
        let (mut fresh, mut again, mut ratios) = (vec![], vec![], vec![]);
        for i in 0..c.warmup + c.steps {
            let arch = &archs[i % archs.len()..][..1];
            let first = trainer.step(arch, PathImages::Slices, 1)?;
            let second = trainer.step(arch, PathImages::Slices, 1)?;
            if i >= c.warmup {
                fresh.push(first);
                again.push(second);
                ratios.push(first / second);
            }
        }
        let value = json!({
            "mode": "switch", "preset": c.preset.name(), "batch": trainer.batch,
            "threads": trainer.threads(), "isa": trainer.isa(),
            "fresh_cpu_ms": summary(&fresh, "ms"), "repeated_cpu_ms": summary(&again, "ms"),
            "ratio": fresh.iter().sum::<f64>() / again.iter().sum::<f64>(),
            "ratio_of_pairs": summary(&ratios, "of_pairs"),
        });
        print(&value, c.json);
        Ok(())
    }
}

/// A supernet with the same images step after step.
struct Trainer {
    archs: Vec<Arch>,
    model: Model,
    store: ParamStore,
    sgd: Sgd,
    tape: Tape,
    batch: usize,
    images: Tensor,
    labels: Tensor,
    steps: u64,
}

impl Trainer {
    fn new(c: &Common, batch: usize) -> Result<Self> {
        let cpu = c.device.open_cpu("bench groups")?;
        let space = c.preset.space()?;
        let model = Model::new(&space, NormParams::Affine)?;
        let store = model.init(&cpu, &Rng::new(0, "init"))?;
        let config = SgdConfig { momentum: 0.9, nesterov: false, decay: 4e-5, decays: WeightDecay::All };
        let sgd = Sgd::new(&store, config)?;
        let (images, labels) = inputs(&cpu, &space, batch)?;
        let archs = c.archs(&space)?;
        Ok(Self { archs, model, store, sgd, tape: Tape::new(&cpu), batch, images, labels, steps: 0 })
    }

    fn threads(&self) -> usize {
        self.store.device().threads()
    }

    fn isa(&self) -> String {
        self.store.device().arithmetic()
    }

    /// One update; the milliseconds of processor time that it took.
    fn step(&mut self, archs: &[Arch], images: PathImages, at_once: usize) -> Result<f64> {
        let used = ProcessTime::now();
        let table = Table::new(self.batch, archs.len(), images, self.batch);
        let dropout = (Rng::new(0, "dropout"), self.steps);
        let common = groups::Step { model: &self.model, archs, smoothing: 0.1, dropout };
        for rows in table.calls(at_once) {
            let of = |row: &Row| -> engine::Result<(Tensor, Tensor)> {
                let Range { start, end } = row.images;
                Ok((self.images.rows(start, end)?, self.labels.rows(start, end)?))
            };
            let inputs = rows.iter().map(of).collect::<engine::Result<_>>()?;
            let passed = common.forward(&mut self.tape, &self.store, rows, inputs)?;
            passed.backward(&mut self.tape, &mut self.store, &table, rows)?;
        }
        self.sgd.step(&mut self.store, 0.05)?;
        self.steps += 1;
        Ok(1e3 * used.elapsed().as_secs_f64())
    }
}
