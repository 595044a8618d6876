//! Whole networks: training steps, evaluation, calibration.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use cpu_time::ProcessTime;
use engine::cpu::Spent;
use engine::optim::{Sgd, SgdConfig, WeightDecay};
use engine::{Array, Cuda, Device, Feed, Late, Rng, Tape, Tensor, ops};
use nas::model::{Context, Folds, Model, NormParams, Norms};
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

/// Forward passes of one network with fixed statistics, as deployed.
#[derive(Args)]
pub struct Fixed {
    #[command(flatten)]
    common: Common,
}

/// The network that the peers export: a choice per slot, -1 skips.
const FIXED_PATH: &str = "[1, 3, -1, 0, 4, 1, 3, -1, 5, 2, 3, 4, 3, 0, -1, 4, 5, 4, 3, 1]";

impl Step {
    /// Measures.
    pub fn run(self) -> Result<()> {
        let c = &self.common;
        let cpu = match c.device.open()? {
            Device::Cpu(cpu) => cpu,
            Device::Cuda(gpu) => return self.count(&gpu),
        };
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
        let mut ops = Ops::default();
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
                ops.add(&spans);
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
            "mean_cpu_ms_of_ops_and_passes": ops.means(c.steps),
        });
        print(&value, c.json);
        Ok(())
    }

    /// On a GPU: what a step of training sends to it, from batch to update; and unless it is an interpreter, whose times
    /// mean nothing, how long steps take from an idle device to an idle device.
    fn count(&self, gpu: &Cuda) -> Result<()> {
        let c = &self.common;
        let space = c.preset.space()?;
        let archs = c.archs(&space)?;
        let model = Model::new(&space, NormParams::Affine)?;
        let mut store = model.init(gpu, &Rng::new(0, "init"))?;
        let config = SgdConfig { momentum: 0.9, nesterov: false, decay: 4e-5, decays: WeightDecay::All };
        let mut sgd = Sgd::new(&store, config)?;
        let batch = c.batch.unwrap_or(c.preset.batch());
        let (shape, images, labels) = drawn(&space, batch);
        let arrays = [Array::F32(shape.into(), &images), Array::I32([batch].into(), &labels)];
        let (mut feed, mut tape) = (Feed::new(gpu)?, Tape::new(gpu));
        let mut last: Option<(Late<f32>, Late<i32>)> = None;
        // First of the warm-up, so that no later one takes more memory.
        let largest = space.largest();
        let (mut before, mut reserved, mut started) = (gpu.work(), 0, Instant::now());
        for i in 0..c.warmup + c.steps {
            if i == c.warmup {
                gpu.synchronize()?;
                (before, reserved, started) = (gpu.work(), gpu.arena().stats().reserved, Instant::now());
            }
            let at = if i < c.warmup { i } else { i - c.warmup };
            let arch = match i {
                0 if c.warmup > 0 => &largest,
                _ if self.same_path => &archs[0],
                _ => &archs[at % archs.len()],
            };
            let sent = feed.send(&arrays)?;
            let (x, y) = (tape.constant(sent[0].clone()), tape.constant(sent[1].clone()));
            drop(sent);
            let mut moments = Vec::new();
            let mut cx =
                Context { tape: &mut tape, store: &store, norms: Norms::Batch(&mut moments), dropout: None };
            let logits = model.forward(&mut cx, arch, &x)?;
            let loss = tape.apply(ops::SoftmaxCrossEntropy { smoothing: 0.1 }, &[&logits, &y])?;
            drop((logits, moments, x, y));
            store.check_finite(loss.tensor())?;
            tape.backward(&loss, 1.0, &mut store)?;
            store.clip_grad_norm(5.0)?;
            sgd.step(&mut store, 0.05)?;
            // As training does: of a step nothing is read before the next one was sent.
            if let Some((loss, spoilt)) = last.replace((loss.tensor().late()?, store.spoilt().late()?)) {
                let loss = loss.wait()?[0];
                anyhow::ensure!(spoilt.wait()? == [0], "a loss of {loss} or its gradient is not finite");
            }
        }
        let (after, arena) = (gpu.work(), gpu.arena().stats());
        gpu.synchronize()?;
        let seconds = started.elapsed().as_secs_f64();
        let each = |after: u64, before: u64| (after - before) as f64 / c.steps.max(1) as f64;
        let mut value = json!({
            "mode": "train", "preset": c.preset.name(), "batch": batch, "resolution": space.input().size,
            "device": gpu.name(), "model": gpu.model(),
            "synchronisations_per_step": each(after.synchronisations, before.synchronisations),
            "waits_per_step": each(after.waits, before.waits),
            "launches_per_step": each(after.launches, before.launches),
            "copies_in_per_step": each(after.copies_in, before.copies_in),
            "copies_out_per_step": each(after.copies_out, before.copies_out),
            "fills_per_step": each(after.fills, before.fills),
            "launches_prepared_after_warmup": after.prepared - before.prepared,
            "arena_peak_mib": arena.peak as f64 / (1 << 20) as f64,
            "arena_bytes_allocated_after_warmup": arena.reserved - reserved,
        });
        if !gpu.is_virtual() {
            value["mean_step_ms"] = json!(1e3 * seconds / c.steps.max(1) as f64);
            value["images_per_s"] = json!((batch * c.steps) as f64 / seconds);
        }
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

impl Fixed {
    /// Measures.
    pub fn run(self) -> Result<()> {
        forwards(&self.common, "fixed")
    }
}

impl Recal {
    /// Measures.
    pub fn run(self) -> Result<()> {
        forwards(&self.common, "recal")
    }
}

fn forwards(c: &Common, mode: &str) -> Result<()> {
    let cpu = c.device.open_cpu("bench step")?;
    let space = c.preset.space()?;
    let archs = if mode == "fixed" { vec![space.parse(FIXED_PATH)?] } else { c.archs(&space)? };
    let model = Model::new(&space, NormParams::Affine)?;
    let store = model.init(&cpu, &Rng::new(0, "init"))?;
    let statistics = model.fresh_statistics(&cpu)?;
    let batch = c.batch.unwrap_or(c.preset.batch());
    let (images, _) = inputs(&cpu, &space, batch)?;
    // One network is folded once, a path of its own each pass.
    let once = Folds::new(&store, &statistics);
    let (mut times, mut used, mut macs) = (vec![], vec![], 0u64);
    let mut ops = Ops::default();
    for i in 0..c.warmup + c.steps {
        let at = if i < c.warmup { i } else { i - c.warmup };
        let arch = &archs[at % archs.len()];
        cpu.start_trace(|| ProcessTime::now().as_duration());
        let (wall, process) = (Instant::now(), ProcessTime::now());
        let mut tape = Tape::inference(&cpu);
        let x = tape.constant(images.clone());
        let (mut moments, folds) = (Vec::new(), Folds::new(&store, &statistics));
        let norms = match mode {
            "recal" => Norms::Batch(&mut moments),
            "fixed" => Norms::Folded(&once),
            _ => Norms::Folded(&folds),
        };
        let mut cx = Context { tape: &mut tape, store: &store, norms, dropout: None };
        model.forward(&mut cx, arch, &x)?;
        let spans = cpu.stop_trace();
        if i >= c.warmup {
            ops.add(&spans);
            times.push(1e3 * wall.elapsed().as_secs_f64());
            used.push(1e3 * process.elapsed().as_secs_f64());
            macs += space.cost(arch).macs * batch as u64;
        }
    }
    let (sum, gflop) = (times.iter().sum::<f64>(), 2.0 * macs as f64 / 1e9);
    let value: Value = json!({
        "mode": mode, "preset": c.preset.name(), "batch": batch, "resolution": space.input().size,
        "threads": cpu.pool().threads(), "isa": cpu.isa().name(),
        if mode == "fixed" { "forward_ms" } else { "step_ms" }: summary(&times, "ms"),
        "cpu_ms": summary(&used, "ms"),
        "images_per_s": (batch * times.len()) as f64 / sum * 1e3, "achieved_gflops": gflop / sum * 1e3,
        "peak_rss_mib": peak_rss_mib(), "mean_cpu_ms_of_ops_and_passes": ops.means(c.steps),
    });
    print(&value, c.json);
    Ok(())
}

/// CPU time by op and pass, summed over steps.
#[derive(Default)]
struct Ops(BTreeMap<String, f64>);

impl Ops {
    fn add(&mut self, spans: &[Spent]) {
        for span in spans {
            let name = format!("{} {}", span.name, span.phase).trim_end().to_owned();
            *self.0.entry(name).or_default() += 1e3 * span.time.as_secs_f64();
        }
    }

    /// Means over all steps: one without an op counts as zero.
    fn means(&self, steps: usize) -> BTreeMap<&str, f64> {
        self.0.iter().map(|(name, ms)| (name.as_str(), ms / steps.max(1) as f64)).collect()
    }
}

/// Normal images and uniform labels.
pub(super) fn inputs(
    place: &impl engine::Place,
    space: &nas::Space,
    batch: usize,
) -> Result<(Tensor, Tensor)> {
    let (shape, pixels, labels) = drawn(space, batch);
    Ok((Tensor::from_slice(place, shape, &pixels)?, Tensor::from_slice(place, [batch], &labels)?))
}

/// The same in the host's memory, with the images' shape.
fn drawn(space: &nas::Space, batch: usize) -> ([usize; 4], Vec<f32>, Vec<i32>) {
    let (size, channels) = (space.input().size, space.input().channels);
    let mut draws = Rng::new(0, "bench-images").at(0, 0, 0);
    let pixels = (0..batch * size * size * channels).map(|_| draws.normal()).collect();
    let labels = (0..batch).map(|_| draws.below(space.classes() as u32) as i32).collect();
    ([batch, size, size, channels], pixels, labels)
}
