//! Speed, measured over the same work and printed under the same keys as the scripts that time
//! PyTorch (`benches/peers/`).

mod block;
mod groups;
mod latency;
mod loader;
mod search;
mod step;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use nas::Space;
use nas::arch::Arch;
use serde_json::{Value, json};

use crate::setup::{DeviceArgs, usage};

/// Measure speed.
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Training steps, a different path each
    Step(step::Step),
    /// Several paths over slices of a batch, beside one path over all of it
    Groups(groups::Groups),
    /// Steps on a fresh path, beside the same step again
    Switch(groups::Switch),
    /// One inverted residual block, forward and backward
    Block(block::Block),
    /// Forward passes with fixed statistics
    Eval(step::Eval),
    /// Forward passes of one network with fixed statistics, as deployed
    Fixed(step::Fixed),
    /// Forward passes with batch statistics, as batch-norm calibration does
    Recal(step::Recal),
    /// Images per second of the data loader
    Loader(loader::Bench),
    /// Every block of a space, as a table that a search can be bound by
    Latency(latency::Latency),
    /// Candidates per hour of an evolutionary search
    Search(search::Search),
}

impl Bench {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            BenchCommand::Step(c) => c.run(),
            BenchCommand::Groups(c) => c.run(),
            BenchCommand::Switch(c) => c.run(),
            BenchCommand::Block(c) => c.run(),
            BenchCommand::Eval(c) => c.run(),
            BenchCommand::Fixed(c) => c.run(),
            BenchCommand::Recal(c) => c.run(),
            BenchCommand::Loader(c) => c.run(),
            BenchCommand::Latency(c) => c.run(),
            BenchCommand::Search(c) => c.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A network size, image size and batch that PyTorch is timed with.
#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    Cifar,
    Imagenet224,
    Imagenet96,
}

impl Preset {
    fn name(self) -> &'static str {
        match self {
            Preset::Cifar => "cifar",
            Preset::Imagenet224 => "imagenet224",
            Preset::Imagenet96 => "imagenet96",
        }
    }

    fn space(self) -> Result<Space> {
        Ok(match self {
            Preset::Cifar => Space::load("mobilenet-se-cifar")?,
            Preset::Imagenet224 => Space::load("mobilenet-se")?,
            Preset::Imagenet96 => Space::load("mobilenet-se")?.with_input(96, 3)?,
        })
    }

    fn batch(self) -> usize {
        match self {
            Preset::Cifar => 64,
            Preset::Imagenet224 => 16,
            Preset::Imagenet96 => 32,
        }
    }
}

/// What every measurement of whole networks takes.
#[derive(Args, Clone)]
struct Common {
    /// Network, image size and batch
    #[arg(long, value_enum, default_value = "cifar")]
    preset: Preset,
    /// JSON file with `paths`, each a list of choices with -1 for skip; drawn at random if left out
    #[arg(long, value_name = "FILE")]
    paths: Option<PathBuf>,
    /// Measured steps
    #[arg(long, default_value_t = 16)]
    steps: usize,
    /// Steps before those
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Images of a step [default: the preset's]
    #[arg(long)]
    batch: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Common {
    fn archs(&self, space: &Space) -> Result<Vec<Arch>> {
        let Some(path) = &self.paths else {
            let rng = engine::Rng::new(0, "bench");
            return Ok((0..self.steps.max(1)).map(|i| space.sample(&mut rng.at(0, i as u32, 0))).collect());
        };
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let file: Value =
            serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let lists = file["paths"].as_array().filter(|l| !l.is_empty());
        let lists = lists.ok_or_else(|| usage(format!("{}: no list `paths`", path.display())))?;
        lists.iter().map(|list| Ok(space.parse(&list.to_string())?)).collect()
    }
}

/// Median, extremes and spread of a list of figures, under the peers' keys.
fn summary(values: &[f64], unit: &str) -> Value {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    let n = v.len();
    let median = if n % 2 == 1 { v[n / 2] } else { (v[n / 2 - 1] + v[n / 2]) / 2.0 };
    let high = if n > 3 { v[3 * n / 4] } else { v[n - 1] };
    let round = |x: f64| (x * 1e4).round() / 1e4;
    json!({
        format!("median_{unit}"): round(median), format!("min_{unit}"): round(v[0]), format!("max_{unit}"): round(v[n - 1]),
        "iqr_pct": round(100.0 * (high - v[n / 4]) / median), "samples": n,
    })
}

/// Peak resident memory of this process in MiB, where the system tells it.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Prints a measurement: JSON, or one `key value` a line.
fn print(value: &Value, json: bool) {
    match value.as_object().filter(|_| !json) {
        None => println!("{value}"),
        Some(object) => object.iter().for_each(|(key, value)| match value["median_ms"].as_f64() {
            Some(median) => println!("{key:<20} {median:.2} (median of {})", value["samples"]),
            None => println!("{key:<20} {value}"),
        }),
    }
}
