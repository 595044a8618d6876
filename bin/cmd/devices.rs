//! What this machine can compute on.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;

/// List what this machine can compute on.
#[derive(Args)]
pub struct Devices {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Devices {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode> {
        let cores = std::thread::available_parallelism()?.get();
        let isa = engine::Cpu::new(cores)?.isa().name();
        let gpu = engine::Device::parse("cuda:0", 1, usize::MAX);
        if self.json {
            let gpu = match &gpu {
                Ok(engine::Device::Cuda(gpu)) => json!({
                    "name": gpu.name(), "model": gpu.model(), "architecture": architecture(gpu),
                    "free_bytes": gpu.free(), "usable": true,
                }),
                Ok(other) => json!({ "name": other.name(), "usable": true }),
                Err(error) => json!({ "name": "cuda:0", "usable": false, "reason": reason(error) }),
            };
            let cpu = json!({ "name": "cpu", "cores": cores, "instruction_set": isa, "usable": true });
            println!("{:#}", json!([cpu, gpu]));
        } else {
            println!("cpu   usable: {cores} cores, {isa}");
            match &gpu {
                Ok(engine::Device::Cuda(gpu)) => println!(
                    "cuda:0   usable: {}, {}, {} MiB free",
                    gpu.model(),
                    architecture(gpu),
                    gpu.free() >> 20
                ),
                Ok(other) => println!("{other}   usable"),
                Err(error) => println!("cuda:0   not usable: {}", reason(error)),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn architecture(gpu: &engine::Cuda) -> String {
    let (major, minor) = gpu.capability();
    format!("sm_{major}{minor}")
}

fn reason(error: &engine::Error) -> String {
    match error {
        engine::Error::Unusable { reason, .. } => reason.to_string(),
        other => other.to_string(),
    }
}
