//! Candidates per hour of a search.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use cpu_time::ProcessTime;
use engine::{Rng, Tensor};
use nas::evaluate::{Evaluator, Images};
use nas::model::{Model, NormParams};
use nas::search::{Bound, Domain, Evolution, EvolutionConfig, Score, Searcher};
use serde_json::json;

use super::{Preset, peak_rss_mib, print};
use crate::setup::DeviceArgs;

/// Candidates per hour: calibration and evaluation of an evolutionary population.
#[derive(Args)]
pub struct Search {
    /// Network, image size and batch
    #[arg(long, value_enum, default_value = "cifar")]
    preset: Preset,
    /// Calibration images of a candidate
    #[arg(long, default_value_t = 2048)]
    recal_images: usize,
    /// Scored images of a candidate
    #[arg(long, default_value_t = 5000)]
    val_images: usize,
    /// Candidates of a round
    #[arg(long, default_value_t = 50)]
    population: usize,
    /// Rounds after the first
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// MiB of activations that candidates may share
    #[arg(long, default_value_t = 2048)]
    memory_mib: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Search {
    /// Measures.
    pub fn run(self) -> Result<()> {
        let cpu = self.device.open_cpu("bench search")?;
        let space = self.preset.space()?;
        let model = Model::new(&space, NormParams::Affine)?;
        let store = model.init(&cpu, &Rng::new(0, "init"))?;
        let images = |n: usize, batch: usize, labelled: bool| -> Result<Images> {
            let (size, channels) = (space.input().size, space.input().channels);
            let mut draws = Rng::new(0, "bench-images").at(0, n as u32, 0);
            let (mut batches, mut labels) = (Vec::new(), Vec::new());
            for from in (0..n).step_by(batch) {
                let len = batch.min(n - from);
                let pixels: Vec<f32> = (0..len * size * size * channels).map(|_| draws.normal()).collect();
                batches.push(Tensor::from_slice(&cpu, [len, size, size, channels], &pixels)?);
                if labelled {
                    labels.push((0..len).map(|_| draws.below(space.classes() as u32) as i32).collect());
                }
            }
            Ok(Images { batches, labels })
        };
        let batch = self.preset.batch();
        // Whole batches only: a short one would weigh as much as the others.
        let calibration = images(self.recal_images / batch * batch, batch, false)?;
        let scored = images(self.val_images, batch, true)?;
        let stop = AtomicBool::new(false);
        let evaluator = Evaluator {
            model: &model,
            store: &store,
            calibration: Some(&calibration),
            scored: &scored,
            memory: self.memory_mib << 20,
            stop: &stop,
        };
        let domain = Domain { space: &space, constraint: Bound::default(), rng: Rng::new(0, "search") };
        let mut evolution = Evolution::new(EvolutionConfig {
            population: self.population,
            rounds: self.rounds,
            parents: 10,
            crossover: self.population / 2,
            mutation: self.population / 2,
            mutation_rate: 0.1,
        });
        let (wall, process, mut candidates) = (Instant::now(), ProcessTime::now(), 0usize);
        loop {
            let asked = evolution.ask(&domain)?;
            if asked.is_empty() {
                break;
            }
            let scores = evaluator.scores(&asked, |_, _| Ok(()))?;
            let told: Vec<(nas::Arch, Score)> = asked.into_iter().zip(scores).collect();
            candidates += told.len();
            evolution.tell(&told);
        }
        let (seconds, cpu_seconds) = (wall.elapsed().as_secs_f64(), process.elapsed().as_secs_f64());
        let value = json!({
            "mode": "search", "preset": self.preset.name(), "threads": cpu.pool().threads(),
            "isa": cpu.isa().name(), "recal_images": calibration.batches.len() * batch,
            "val_images": self.val_images, "candidates": candidates, "seconds": seconds,
            "candidates_per_hour": 3600.0 * candidates as f64 / seconds,
            "candidates_per_cpu_hour": 3600.0 * candidates as f64 / cpu_seconds,
            "peak_rss_mib": peak_rss_mib(),
        });
        print(&value, self.json);
        Ok(())
    }
}
