//! `vgpu`: runs programs of the CUDA driver interface on the virtual GPU and prints what they did.

use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};
use monopath_vgpu::driver::config::{Config, names};
use monopath_vgpu::driver::report::{Report, Severity};
use monopath_vgpu::driver::tally::Tally;
use monopath_vgpu::{launcher, stat};

/// Exit code of `run` when the program succeeded but defects were reported.
const DEFECTS: u8 = 99;

#[derive(Parser)]
#[command(version, about = "Runs programs of the CUDA driver interface on a virtual GPU")]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Run a program with the virtual GPU in place of the driver
    ///
    /// The exit code is that of the program, or 99 if it succeeded but defects were reported.
    Run(Run),
    /// Print the counters of a run as a table
    Stat {
        /// File that `run --counters` wrote
        file: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    /// Seed of every order that a GPU leaves open; 0 is the plain order
    #[arg(long)]
    seed: Option<u64>,
    /// Compute capability, such as 8.0
    #[arg(long)]
    capability: Option<String>,
    /// Size of the device memory, such as 512MiB
    #[arg(long)]
    memory: Option<String>,
    /// CUDA version of the driver, such as 12.0; newer PTX is refused
    #[arg(long)]
    driver: Option<String>,
    /// Only check bounds, not initialisation, races and alignment
    #[arg(long)]
    fast: bool,
    /// Worker threads of a launch; results do not depend on it
    #[arg(long)]
    threads: Option<usize>,
    /// Lane-instructions after which a launch is stopped
    #[arg(long)]
    budget: Option<u64>,
    /// Write the counters of the run to this file as JSON (%p is the process id)
    #[arg(long)]
    counters: Option<PathBuf>,
    /// Append every report to this file as a line of JSON
    #[arg(long)]
    reports: Option<PathBuf>,
    /// Write every launch with its counters to this file as a line of JSON (%p is the process id)
    #[arg(long)]
    launches: Option<PathBuf>,
    /// Do not greet (reports are still printed)
    #[arg(long)]
    quiet: bool,
    /// Exit with the program's own code even if defects were reported
    #[arg(long)]
    allow_defects: bool,
    /// The program
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        What::Run(run) => start(&run).unwrap_or_else(|e| fail(&e)),
        What::Stat { file } => match read_tally(&file) {
            Ok(tally) => {
                print!("{}", stat::table(&tally));
                ExitCode::SUCCESS
            }
            Err(e) => fail(&e),
        },
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("vgpu: {text}");
    ExitCode::FAILURE
}

fn read_tally(file: &Path) -> Result<Tally, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{} holds no counters: {e}", file.display()))
}

impl Run {
    /// The environment variables that the options stand for.
    fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut list: Vec<(&'static str, OsString)> = Vec::new();
        let mut set = |name, value: Option<OsString>| list.extend(value.map(|v| (name, v)));
        let text = |v: &Option<String>| v.as_ref().map(OsString::from);
        let number = |v: Option<u64>| v.map(|n| n.to_string().into());
        let path = |v: &Option<PathBuf>| v.as_ref().map(|p| p.clone().into_os_string());
        set(names::SEED, number(self.seed));
        set(names::CAPABILITY, text(&self.capability));
        set(names::MEMORY, text(&self.memory));
        set(names::DRIVER, text(&self.driver));
        set(names::CHECKS, self.fast.then(|| "off".into()));
        set(names::THREADS, number(self.threads.map(|n| n as u64)));
        set(names::BUDGET, number(self.budget));
        set(names::COUNTERS, path(&self.counters));
        set(names::LAUNCHES, path(&self.launches));
        set(names::QUIET, self.quiet.then(|| "on".into()));
        list
    }
}

fn start(run: &Run) -> Result<ExitCode, String> {
    let variables = run.variables();
    // A wrong option should be this program's error, not the child's.
    Config::from_lookup(|name| {
        let own = variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string_lossy().into_owned());
        own.or_else(|| std::env::var(name).ok())
    })
    .map_err(|e| e.to_string())?;
    let library = launcher::library().map_err(|e| e.to_string())?;
    let links = launcher::Links::new(&library).map_err(|e| e.to_string())?;
    let named = run.reports.clone().or_else(|| std::env::var_os(names::REPORTS).map(PathBuf::from));
    let reports = named.unwrap_or_else(|| links.path().join("reports.jsonl"));
    let before = std::fs::metadata(&reports).map_or(0, |m| m.len());

    let mut command = Command::new(&run.program[0]);
    command.args(&run.program[1..]).envs(variables).env(names::REPORTS, &reports);
    links.apply(&mut command);
    let status = command.status().map_err(|e| format!("{}: {e}", Path::new(&run.program[0]).display()))?;
    if !status.success() {
        // As a shell does: 128 and the signal that ended it.
        let code = status.code().unwrap_or(128 + status.signal().unwrap_or(0));
        return Ok(ExitCode::from(code as u8));
    }
    let errors = count_errors(&reports, before)?;
    if errors > 0 && !run.allow_defects {
        eprintln!("vgpu: the program succeeded, but {errors} defects were reported");
        return Ok(ExitCode::from(DEFECTS));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reports of defects in a file, from a position on.
fn count_errors(file: &Path, from: u64) -> Result<usize, String> {
    use std::io::{Seek, SeekFrom};
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let mut f = match std::fs::File::open(file) {
        Ok(f) => f,
        // The program never touched the driver.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(failed(e)),
    };
    f.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut errors = 0;
    for line in std::io::BufReader::new(f).lines() {
        let report: Report = serde_json::from_str(&line.map_err(failed)?)
            .map_err(|e| format!("{} holds something that is no report: {e}", file.display()))?;
        errors += usize::from(report.severity == Severity::Error);
    }
    Ok(errors)
}
