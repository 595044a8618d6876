//! Latency tables: measured on this machine, or imported.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use cpu_time::ProcessTime;
use nas::Space;
use nas::latency::{LatencyTable, Measuring, Negative};
use serde_json::json;

use super::print;
use crate::meter::Meter;
use crate::setup::{DeviceArgs, usage};

/// Measure every block of a space as inference runs it, for a search bounded by latency.
///
/// A recipe takes the file as search.constraint.latency = { table = "FILE", max-ms = MS }. Random whole
/// networks are measured too, and compared with the sums over their blocks.
#[derive(Args)]
pub struct Latency {
    /// A built-in space by name, or the file of one
    #[arg(long)]
    space: String,
    /// Side of the images, where they are not the space's own
    #[arg(long, value_name = "PIXELS")]
    image: Option<usize>,
    /// Channels of the images, where they are not the space's own
    #[arg(long)]
    channels: Option<usize>,
    /// Number of classes, where it is not the space's own
    #[arg(long)]
    classes: Option<usize>,
    /// The table, written whole
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Images at a time
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Measurements of every block
    #[arg(long, default_value_t = 30)]
    samples: usize,
    /// Random networks that are measured whole and compared with the sums over their blocks
    #[arg(long, default_value_t = 20)]
    networks: usize,
    /// What is counted: wall time, or CPU time of this process, for a machine that is shared
    #[arg(long, value_enum, default_value = "wall")]
    clock: Clock,
    /// Take the times from a table of TF-NAS (JSON) instead of measuring
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// What an import does with negative entries that the space uses: end with an error, or drop them, so
    /// that no network with such a block satisfies a bound
    #[arg(long, value_enum, default_value = "error", requires = "import")]
    negative: OnNegative,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Clock {
    Wall,
    Cpu,
}

#[derive(Clone, Copy, ValueEnum)]
enum OnNegative {
    Error,
    Drop,
}

impl Latency {
    /// Measures, or imports.
    pub fn run(self) -> Result<()> {
        if self.batch == 0 || self.samples == 0 {
            return Err(usage("--batch and --samples must be 1 or more"));
        }
        let mut space = Space::load(&self.space)?;
        let input = space.input();
        space = space
            .with_input(self.image.unwrap_or(input.size), self.channels.unwrap_or(input.channels))?
            .with_classes(self.classes.unwrap_or(space.classes()))?;
        let table = match &self.import {
            Some(path) => {
                let negative = match self.negative {
                    OnNegative::Error => Negative::Error,
                    OnNegative::Drop => Negative::Drop,
                };
                LatencyTable::import_tf_nas(path, &space, negative)?
            }
            None => self.measure(&space)?,
        };
        nas::files::write_atomic(&self.out, table.to_json()?.as_bytes())?;
        let dropped = table.blocks.values().filter(|entry| entry.median_ms.is_none()).count();
        let mut value = json!({
            "mode": "latency", "space": space.name(), "file": self.out, "blocks": table.blocks.len(),
            "dropped": dropped, "processor": table.machine.processor,
        });
        if let Some(check) = &table.check {
            value["threads"] = json!(table.machine.threads);
            value["isa"] = json!(table.machine.isa);
            value["networks"] = json!(check.networks.len());
            value["correlation"] = json!(check.correlation);
            value["mean_error"] = json!(check.mean_error);
        }
        print(&value, self.json);
        Ok(())
    }

    fn measure(&self, space: &Space) -> Result<LatencyTable> {
        let cpu = self.device.open_cpu("bench latency")?;
        let (wall, process) = (Instant::now(), ProcessTime::now());
        let seconds = || match self.clock {
            Clock::Wall => wall.elapsed().as_secs_f64(),
            Clock::Cpu => process.elapsed().as_secs_f64(),
        };
        let meter = Meter::new("measuring, rounds", self.samples);
        let measuring = Measuring {
            space,
            cpu: &cpu,
            batch: self.batch,
            samples: self.samples,
            networks: self.networks,
            clock: &|| 1e3 * seconds(),
            clock_name: match self.clock {
                Clock::Wall => "wall",
                Clock::Cpu => "cpu",
            },
            processor: processor(),
        };
        let table = measuring.run(&|done| meter.at(done))?;
        if table.blocks.values().any(|entry| entry.median_ms == Some(0.0)) {
            bail!("a block took no time that --clock {} can see; use the other clock", measuring.clock_name);
        }
        Ok(table)
    }
}

/// What the system calls the processor, where it tells.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
