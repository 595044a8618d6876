//! What this machine can compute on.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

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
        let cpu = engine::Cpu::new(cores)?;
        let isa = cpu.isa().name();
        if self.json {
            let devices = serde_json::json!([{ "name": "cpu", "cores": cores, "instruction_set": isa, "usable": true }]);
            println!("{devices:#}");
        } else {
            println!("cpu   usable: {cores} cores, {isa}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
