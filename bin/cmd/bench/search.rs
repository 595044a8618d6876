//! Candidates per hour of a search.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

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
    /// Score and time the first round and every N-th after it; the others are given drawn scores, which say as
    /// much as the weights here, drawn too
    #[arg(long, value_name = "N", default_value = "1")]
    every: NonZeroUsize,
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
        let (mut wall, mut process, mut candidates) = (Duration::ZERO, Duration::ZERO, 0usize);
        for round in 0.. {
            let asked = evolution.ask(&domain)?;
            if asked.is_empty() {
                break;
            }
            let scores = if round % self.every == 0 {
                let (from, from_process) = (Instant::now(), ProcessTime::now());
                let scores = evaluator.scores(&asked, |_, _| Ok(()))?;
                wall += from.elapsed();
                process += from_process.elapsed();
                candidates += scores.len();
                scores
            } else {
                let mut draws = Rng::new(0, "bench-scores").at(round as u32, 0, 0);
                let mut drawn = |_| {
                    let right = (0..self.val_images).map(|_| draws.below(space.classes() as u32) == 0);
                    let top1 = right.map(u64::from).sum();
                    Score { top1, top5: top1, images: self.val_images as u64 }
                };
                asked.iter().map(&mut drawn).collect()
            };
            let told: Vec<(nas::Arch, Score)> = asked.into_iter().zip(scores).collect();
            evolution.tell(&told);
        }
        let (seconds, cpu_seconds) = (wall.as_secs_f64(), process.as_secs_f64());
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
