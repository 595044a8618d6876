//! One inverted residual block.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use cpu_time::ProcessTime;
use engine::{Rng, Tape, Tensor};
use nas::Space;
use nas::model::{Context, Model, NormParams, Norms};
use serde_json::json;

use super::{print, summary};
use crate::setup::DeviceArgs;

/// One inverted residual block with squeeze-excite, h-swish and residual, stride 1: forward and
/// backward with batch statistics, and forward with fixed ones.
#[derive(Args)]
pub struct Block {
    /// Input and output channels
    #[arg(long, default_value_t = 40)]
    ch: usize,
    /// Side of the plane
    #[arg(long, default_value_t = 28)]
    hw: usize,
    /// Depthwise kernel
    #[arg(long, default_value_t = 5)]
    kernel: usize,
    /// Expansion
    #[arg(long, default_value_t = 6)]
    expand: usize,
    /// Images
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Measured steps
    #[arg(long, default_value_t = 16)]
    steps: usize,
    /// Steps before those
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Block {
    /// Measures.
    pub fn run(self) -> Result<()> {
        let cpu = self.device.open_cpu("bench block")?;
        let Block { ch, hw, kernel, expand, batch, .. } = self;
        let space = Space::parse_toml(&toml(ch, hw, kernel, expand), "block".as_ref())?;
        let model = Model::new(&space, NormParams::Affine)?;
        let mut store = model.init(&cpu, &Rng::new(0, "init"))?;
        let statistics = model.fresh_statistics(&cpu)?;
        let arch = space.first();
        // The block is the segment after the stem's single layer.
        let at = space.stem().len();
        let macs = space.slots()[0].choices[0].cost.macs * batch as u64;
        let mut draws = Rng::new(0, "bench").at(0, 0, 0);
        let mut normal = || -> Result<Tensor> {
            let data: Vec<f32> = (0..batch * hw * hw * ch).map(|_| draws.normal()).collect();
            Ok(Tensor::from_slice(&cpu, [batch, hw, hw, ch], &data)?)
        };
        let (x, dy) = (normal()?, normal()?);
        let (mut eval, mut eval_used) = (vec![], vec![]);
        let (mut forward, mut total, mut used) = (vec![], vec![], vec![]);
        let mut tape = Tape::new(&cpu);
        for i in 0..self.warmup + self.steps {
            let (wall, process) = (Instant::now(), ProcessTime::now());
            let mut silent = Tape::inference(&cpu);
            let input = silent.constant(x.clone());
            let norms = Norms::Frozen(&statistics);
            let mut cx = Context { tape: &mut silent, store: &store, norms, dropout: None };
            drop(model.segment(&mut cx, &arch, at, &input)?);
            let eval_ms = 1e3 * wall.elapsed().as_secs_f64();
            let eval_used_ms = 1e3 * process.elapsed().as_secs_f64();

            let (wall, process) = (Instant::now(), ProcessTime::now());
            let input = tape.leaf(x.clone());
            let mut moments = Vec::new();
            let norms = Norms::Batch(&mut moments);
            let mut cx = Context { tape: &mut tape, store: &store, norms, dropout: None };
            let y = model.segment(&mut cx, &arch, at, &input)?;
            drop(moments);
            let forward_ms = 1e3 * wall.elapsed().as_secs_f64();
            tape.backward_from(&y, dy.clone(), &mut store)?;
            let total_ms = 1e3 * wall.elapsed().as_secs_f64();
            let used_ms = 1e3 * process.elapsed().as_secs_f64();
            drop((y, input));
            store.clear_touched()?;
            if i >= self.warmup {
                eval.push(eval_ms);
                eval_used.push(eval_used_ms);
                forward.push(forward_ms);
                total.push(total_ms);
                used.push(used_ms);
            }
        }
        let gflop = 6.0 * macs as f64 / 1e9;
        let mut sorted = total.clone();
        sorted.sort_by(f64::total_cmp);
        let value = json!({
            "mode": "block", "ch": ch, "hw": hw, "kernel": kernel, "expand": expand, "batch": batch,
            "threads": cpu.pool().threads(), "isa": cpu.isa().name(),
            "eval_forward_ms": summary(&eval, "ms"), "eval_cpu_ms": summary(&eval_used, "ms"), "train_forward_ms": summary(&forward, "ms"),
            "train_fwd_bwd_ms": summary(&total, "ms"), "train_cpu_ms": summary(&used, "ms"),
            "train_gflop": gflop, "train_gflops": gflop / sorted[sorted.len() / 2] * 1e3,
        });
        print(&value, self.json);
        Ok(())
    }
}

fn toml(ch: usize, hw: usize, kernel: usize, expand: usize) -> String {
    format!(
        r#"
name = "block"
about = "one block"
classes = 1
input = {{ size = {hw}, channels = {ch} }}
stem = [{{ block = "conv", kernel = 1, channels = {ch} }}]
candidates = [{{ block = "inverted-residual", kernel = {kernel}, expansion = {expand}, se = {{ ratio = 0.25 }}, act = "h-swish" }}]
stages = [{{ channels = {ch}, slots = 1, stride = 1 }}]
head = [{{ block = "pool" }}, {{ block = "linear", bias = true }}]
"#
    )
}
