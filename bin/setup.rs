//! What commands share: devices, signals, and which errors are the user's.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Args;
use engine::{Cpu, Device};

/// Where and how wide to compute.
#[derive(Args, Clone)]
pub struct DeviceArgs {
    /// Device: `cpu` or `cuda:0`
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Threads; results do not depend on them [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Most memory that tensors may take, for example 512MiB or 2GiB; without it, what the system gives
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<usize>,
}

/// Bytes, or a number with KiB, MiB or GiB.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes =
        text[..digits].parse().ok().zip(unit).and_then(|(n, unit): (usize, usize)| n.checked_mul(unit));
    bytes
        .filter(|&n| n > 0)
        .ok_or_else(|| "a size is a number of bytes, or one with KiB, MiB or GiB".to_owned())
}

impl DeviceArgs {
    /// The device.
    pub fn open(&self) -> Result<Device> {
        let threads = match self.threads {
            Some(n) => n,
            None => std::thread::available_parallelism().context("counting cores; give --threads")?.get(),
        };
        Device::parse(&self.device, threads, self.memory.unwrap_or(usize::MAX))
            .map_err(|e| usage(e.to_string()))
    }

    /// The device where `what` runs on the CPU alone.
    pub fn open_cpu(&self, what: &'static str) -> Result<Cpu> {
        self.open()?.cpu(what).cloned().map_err(|e| usage(e.to_string()))
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

/// A flag that Ctrl-C and SIGTERM set; a second signal ends the program at once.
pub fn stop_flag() -> Result<&'static AtomicBool> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; press Ctrl-C again to stop at once");
    })
    .context("installing the signal handler")?;
    Ok(&STOP)
}

#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error in how the program was called: exit code 2.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Whether the user can mend the call or the recipe: exit code 2 instead of 1.
pub fn is_usage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Usage>().is_some()
        || error.downcast_ref::<nas::Error>().is_some_and(nas::Error::is_usage)
        || error.downcast_ref::<nas::data::Error>().is_some_and(nas::data::Error::is_usage)
}

/// Parses `--set key=value` early, so that a slip is found before work begins.
pub fn check_overrides(overrides: &[String]) -> Result<()> {
    for item in overrides {
        if !item.contains('=') {
            return Err(usage(format!(
                "--set {item:?} must be key=value, for example --set supernet.train.epochs=3"
            )));
        }
    }
    Ok(())
}
