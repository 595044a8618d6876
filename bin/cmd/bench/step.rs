//! Whole networks: training steps, evaluation, calibration.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use cpu_time::ProcessTime;
use engine::optim::{Sgd, SgdConfig, WeightDecay};
use engine::{Rng, Tape, Tensor, ops};
use nas::model::{Context, Model, NormParams, Norms};
use serde_json::{Value, json};

use super::{Common, peak_rss_mib, print, summary};

/// Training steps: forward, backward and SGD of a different path each.
#[derive(Args)]
pub struct Step {
    #[command(flatten)]
    common: Common,
    /// Repeat the first path instead of going through all
    #[arg(long)]
    same_path: bool,
}

/// Forward passes with fixed statistics.
#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    common: Common,
}

/// Forward passes with batch statistics.
#[derive(Args)]
pub struct Recal {
    #[command(flatten)]
    common: Common,
}

impl Step {
    /// Measures.
    pub fn run(self) -> Result<()> {
        let c = &self.common;
        let cpu = c.device.open()?;
        let space = c.preset.space()?;
        let archs = c.archs(&space)?;
        let model = Model::new(&space, NormParams::Affine)?;
        let mut store = model.init(&cpu, &Rng::new(0, "init"))?;
        // torch.optim.SGD of the peers decays all parameters.
        let config = SgdConfig { momentum: 0.9, nesterov: false, decay: 4e-5, decays: WeightDecay::All };
        let mut sgd = Sgd::new(&store, config)?;
        let batch = c.batch.unwrap_or(c.preset.batch());
        let (images, labels) = inputs(&cpu, &space, batch)?;
        let base_rss = peak_rss_mib();
        let (mut forward, mut backward, mut update, mut used, mut macs) =
            (vec![], vec![], vec![], vec![], 0u64);
        let mut tape = Tape::new(&cpu);
        let mut reserved = 0;
        let mut ops: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for i in 0..c.warmup + c.steps {
            if i == c.warmup {
                reserved = cpu.arena().stats().reserved;
            }
            let at = if i < c.warmup { i } else { i - c.warmup };
            let arch = &archs[if self.same_path { 0 } else { at % archs.len() }];
            cpu.start_trace(|| ProcessTime::now().as_duration());
            let (wall, process) = (Instant::now(), ProcessTime::now());
            let x = tape.constant(images.clone());
            let y = tape.constant(labels.clone());
            let mut moments = Vec::new();
            let mut cx =
                Context { tape: &mut tape, store: &store, norms: Norms::Batch(&mut moments), dropout: None };
            let logits = model.forward(&mut cx, arch, &x)?;
            let loss = tape.apply(ops::SoftmaxCrossEntropy { smoothing: 0.1 }, &[&logits, &y])?;
            drop((logits, moments));
            let forward_done = wall.elapsed();
            tape.backward(&loss, 1.0, &mut store)?;
            let backward_done = wall.elapsed();
            sgd.step(&mut store, 0.05)?;
            let done = wall.elapsed();
            let spans = cpu.stop_trace();
            if i >= c.warmup {
                let mut sums: BTreeMap<String, f64> = BTreeMap::new();
                for span in spans {
                    let name = format!("{} {}", span.name, span.phase).trim_end().to_owned();
                    *sums.entry(name).or_default() += 1e3 * span.time.as_secs_f64();
                }
                sums.into_iter().for_each(|(name, ms)| ops.entry(name).or_default().push(ms));
                forward.push(1e3 * forward_done.as_secs_f64());
                backward.push(1e3 * (backward_done - forward_done).as_secs_f64());
                update.push(1e3 * (done - backward_done).as_secs_f64());
                used.push(1e3 * process.elapsed().as_secs_f64());
                macs += space.cost(arch).macs * batch as u64;
            }
        }
        let total: Vec<f64> =
            forward.iter().zip(&backward).zip(&update).map(|((f, b), u)| f + b + u).collect();
        let (sum, gflop) = (total.iter().sum::<f64>(), 6.0 * macs as f64 / 1e9);
        let arena = cpu.arena().stats();
        // Means: a path without an op counts as zero.
        let steps = total.len() as f64;
        let ops: BTreeMap<String, f64> =
            ops.into_iter().map(|(name, ms)| (name, ms.iter().sum::<f64>() / steps)).collect();
        let value = json!({
            "mode": "train", "preset": c.preset.name(), "batch": batch, "resolution": space.input().size,
            "threads": cpu.pool().threads(), "isa": cpu.isa().name(),
            "step_ms": summary(&total, "ms"), "forward_ms": summary(&forward, "ms"),
            "backward_ms": summary(&backward, "ms"), "sgd_ms": summary(&update, "ms"), "cpu_ms": summary(&used, "ms"),
            "images_per_s": (batch * total.len()) as f64 / sum * 1e3,
            "mean_train_gflop": gflop / total.len() as f64, "achieved_gflops": gflop / sum * 1e3,
            "cpu_gflops_per_core": gflop / used.iter().sum::<f64>() * 1e3,
            "peak_rss_mib": peak_rss_mib(), "rss_before_steps_mib": base_rss,
            "arena_peak_mib": arena.peak as f64 / (1 << 20) as f64,
            "arena_bytes_allocated_after_warmup": arena.reserved - reserved,
            "mean_cpu_ms_of_ops_and_passes": ops,
        });
        print(&value, c.json);
        Ok(())
    }
}

impl Eval {
    /// Measures.
    pub fn run(self) -> Result<()> {
        forwards(&self.common, "eval")
    }
}

impl Recal {
    /// Measures.
    pub fn run(self) -> Result<()> {
        forwards(&self.common, "recal")
    }
}

fn forwards(c: &Common, mode: &str) -> Result<()> {
    let cpu = c.device.open()?;
    let space = c.preset.space()?;
    let archs = c.archs(&space)?;
    let model = Model::new(&space, NormParams::Affine)?;
    let store = model.init(&cpu, &Rng::new(0, "init"))?;
    let statistics = model.fresh_statistics(&cpu)?;
    let batch = c.batch.unwrap_or(c.preset.batch());
    let (images, _) = inputs(&cpu, &space, batch)?;
    let (mut times, mut used, mut macs) = (vec![], vec![], 0u64);
    for i in 0..c.warmup + c.steps {
        let at = if i < c.warmup { i } else { i - c.warmup };
        let arch = &archs[at % archs.len()];
        let (wall, process) = (Instant::now(), ProcessTime::now());
        let mut tape = Tape::inference(&cpu);
        let x = tape.constant(images.clone());
        let mut moments = Vec::new();
        let norms = if mode == "eval" { Norms::Frozen(&statistics) } else { Norms::Batch(&mut moments) };
        let mut cx = Context { tape: &mut tape, store: &store, norms, dropout: None };
        model.forward(&mut cx, arch, &x)?;
        if i >= c.warmup {
            times.push(1e3 * wall.elapsed().as_secs_f64());
            used.push(1e3 * process.elapsed().as_secs_f64());
            macs += space.cost(arch).macs * batch as u64;
        }
    }
    let (sum, gflop) = (times.iter().sum::<f64>(), 2.0 * macs as f64 / 1e9);
    let value: Value = json!({
        "mode": mode, "preset": c.preset.name(), "batch": batch, "resolution": space.input().size,
        "threads": cpu.pool().threads(), "isa": cpu.isa().name(),
        "step_ms": summary(&times, "ms"), "cpu_ms": summary(&used, "ms"),
        "images_per_s": (batch * times.len()) as f64 / sum * 1e3, "achieved_gflops": gflop / sum * 1e3,
        "peak_rss_mib": peak_rss_mib(),
    });
    print(&value, c.json);
    Ok(())
}

/// Normal images and uniform labels.
pub(super) fn inputs(cpu: &engine::Cpu, space: &nas::Space, batch: usize) -> Result<(Tensor, Tensor)> {
    let (size, channels) = (space.input().size, space.input().channels);
    let mut draws = Rng::new(0, "bench-images").at(0, 0, 0);
    let pixels: Vec<f32> = (0..batch * size * size * channels).map(|_| draws.normal()).collect();
    let labels: Vec<i32> = (0..batch).map(|_| draws.below(space.classes() as u32) as i32).collect();
    let images = Tensor::from_slice(cpu, [batch, size, size, channels], &pixels)?;
    Ok((images, Tensor::from_slice(cpu, [batch], &labels)?))
}
