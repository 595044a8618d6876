//! What the environment chooses: the one place that reads `MONOPATH_VGPU_*`.
//!
//! Invariant: a variable that does not parse stops the device at `cuInit`; it is never ignored.

use std::path::PathBuf;

use thiserror::Error;

use crate::exec::Options;
use crate::props::DeviceProps;

/// Names of the environment variables.
pub mod names {
    /// Seed of every order that a GPU leaves open; 0 is the plain order.
    pub const SEED: &str = "MONOPATH_VGPU_SEED";
    /// Compute capability, such as `8.0`.
    pub const CAPABILITY: &str = "MONOPATH_VGPU_CAPABILITY";
    /// Size of the device memory, such as `512MiB` or `4GiB`.
    pub const MEMORY: &str = "MONOPATH_VGPU_MEMORY";
    /// CUDA version of the driver, such as `12.0`; newer PTX is refused.
    pub const DRIVER: &str = "MONOPATH_VGPU_DRIVER";
    /// `on` or `off`: the checks beyond bounds.
    pub const CHECKS: &str = "MONOPATH_VGPU_CHECKS";
    /// Worker threads of a launch.
    pub const THREADS: &str = "MONOPATH_VGPU_THREADS";
    /// Lane-instructions after which a launch is stopped.
    pub const BUDGET: &str = "MONOPATH_VGPU_BUDGET";
    /// File that gets every report as a line of JSON.
    pub const REPORTS: &str = "MONOPATH_VGPU_REPORTS";
    /// File that gets the counters of the run as JSON when the program ends.
    pub const COUNTERS: &str = "MONOPATH_VGPU_COUNTERS";
    /// File that gets every launch with its counters as a line of JSON.
    pub const LAUNCHES: &str = "MONOPATH_VGPU_LAUNCHES";
    /// `on` keeps the greeting away (reports are still printed).
    pub const QUIET: &str = "MONOPATH_VGPU_QUIET";
}

/// The chosen device and how it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Limits and identity.
    pub props: DeviceProps,
    /// Seed of every order.
    pub seed: u64,
    /// How kernels run.
    pub options: Options,
    /// CUDA version that the driver claims (major, minor).
    pub driver: (u32, u32),
    /// Reports as lines of JSON.
    pub reports: Option<PathBuf>,
    /// Counters of the run as JSON.
    pub counters: Option<PathBuf>,
    /// Launches as lines of JSON.
    pub launches: Option<PathBuf>,
    /// No greeting.
    pub quiet: bool,
}

/// A variable that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{variable} is `{value}`, expected {expected}")]
pub struct ConfigError {
    /// Name of the variable.
    pub variable: &'static str,
    /// Its value.
    pub value: String,
    /// What it should be.
    pub expected: &'static str,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            props: DeviceProps::default(),
            seed: 0,
            options: Options::default(),
            driver: (13, 5),
            reports: None,
            counters: None,
            launches: None,
            quiet: false,
        }
    }
}

impl Config {
    /// Reads the environment of the process.
    ///
    /// # Errors
    /// The first variable that does not parse.
    pub fn from_environment() -> Result<Config, ConfigError> {
        Config::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads variables from a function.
    ///
    /// # Errors
    /// The first variable that does not parse.
    pub fn from_lookup(get: impl Fn(&'static str) -> Option<String>) -> Result<Config, ConfigError> {
        let get = |name| get(name).filter(|v| !v.is_empty());
        let mut config = Config::default();
        let capability = parse(&get, names::CAPABILITY, "two numbers such as 8.0", pair)?.unwrap_or((8, 0));
        let bytes =
            parse(&get, names::MEMORY, "a size such as 512MiB, at most 64GiB", size)?.unwrap_or(4 << 30);
        config.props = DeviceProps::new(capability, bytes);
        let whole = "a whole number";
        config.seed = parse(&get, names::SEED, whole, number)?.unwrap_or(config.seed);
        config.options.budget = parse(&get, names::BUDGET, whole, number)?.unwrap_or(config.options.budget);
        config.options.threads = parse(&get, names::THREADS, "1 to 256", |v| {
            number(v).map(|n| n as usize).filter(|n| (1..=256).contains(n))
        })?
        .unwrap_or(config.options.threads);
        config.options.checks = parse(&get, names::CHECKS, "on or off", switch)?.unwrap_or(true);
        config.quiet = parse(&get, names::QUIET, "on or off", switch)?.unwrap_or(false);
        config.driver =
            parse(&get, names::DRIVER, "12.0 to 13.9", |v| pair(v).filter(|v| (12..=13).contains(&v.0)))?
                .unwrap_or(config.driver);
        config.reports = get(names::REPORTS).map(PathBuf::from);
        config.counters = get(names::COUNTERS).map(PathBuf::from);
        config.launches = get(names::LAUNCHES).map(PathBuf::from);
        Ok(config)
    }

    /// Newest PTX version that a driver of this CUDA version accepts.
    pub fn newest_ptx(&self) -> (u32, u32) {
        match self.driver {
            (12, minor @ 0..=5) => (8, minor),
            (12, 6) => (8, 5),
            (12, minor) => (8, (minor - 1).min(8)),
            (_, minor) => (9, minor),
        }
    }
}

fn parse<T>(
    get: &impl Fn(&'static str) -> Option<String>,
    variable: &'static str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ConfigError> {
    match get(variable) {
        None => Ok(None),
        Some(value) => match read(&value) {
            Some(v) => Ok(Some(v)),
            None => Err(ConfigError { variable, value, expected }),
        },
    }
}

fn number(v: &str) -> Option<u64> {
    v.parse().ok()
}

fn switch(v: &str) -> Option<bool> {
    match v {
        "on" | "1" => Some(true),
        "off" | "0" => Some(false),
        _ => None,
    }
}

fn pair(v: &str) -> Option<(u32, u32)> {
    let (major, minor) = v.split_once('.')?;
    let minor: u32 = minor.parse().ok().filter(|m| *m < 10)?;
    Some((major.parse().ok().filter(|m| *m < 100)?, minor))
}

fn size(v: &str) -> Option<u64> {
    let digits = v.find(|c: char| !c.is_ascii_digit()).unwrap_or(v.len());
    let shift = match &v[digits..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    let n: u64 = v[..digits].parse().ok()?;
    n.checked_mul(1 << shift).filter(|bytes| (1..=64 << 30).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variable: &'static str, value: &str) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| (name == variable).then(|| value.to_string()))
    }

    #[test]
    fn an_empty_environment_is_the_default() {
        assert_eq!(Config::from_lookup(|_| None).unwrap(), Config::default());
    }

    #[test]
    fn sizes_and_pairs_parse() {
        assert_eq!(with(names::MEMORY, "512MiB").unwrap().props.memory_bytes, 512 << 20);
        assert_eq!(with(names::CAPABILITY, "9.0").unwrap().props.capability, (9, 0));
        assert_eq!(with(names::SEED, "17").unwrap().seed, 17);
        assert!(!with(names::CHECKS, "off").unwrap().options.checks);
        assert_eq!(with(names::DRIVER, "12.0").unwrap().newest_ptx(), (8, 0));
        assert_eq!(with(names::DRIVER, "12.9").unwrap().newest_ptx(), (8, 8));
        assert_eq!(with(names::DRIVER, "13.5").unwrap().newest_ptx(), (9, 5));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (variable, value) in [
            (names::MEMORY, "4 gigs"),
            (names::MEMORY, "18446744073709551615GiB"),
            (names::MEMORY, "0"),
            (names::CAPABILITY, "8"),
            (names::SEED, "-1"),
            (names::THREADS, "0"),
            (names::CHECKS, "maybe"),
            (names::DRIVER, "11.8"),
        ] {
            let e = with(variable, value).unwrap_err();
            assert_eq!((e.variable, e.value.as_str()), (variable, value));
        }
    }
}
