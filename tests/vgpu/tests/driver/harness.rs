//! Runs a scenario in a child process with the virtual GPU in place of the driver.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, LaunchConfig};
use monopath_vgpu::driver::report::{Kind, Report};
use monopath_vgpu::driver::tally::Tally;
use monopath_vgpu::meter;

/// Kernels of the scenarios, made from `corpus/host.cu` by NVRTC 12.0.
pub const PTX: &str = include_str!("../../corpus/ptx/host.nvrtc12.ptx");

/// The same, made by nvcc 13.5.
const SECOND_PTX: &str = include_str!("../../corpus/ptx/host.nvcc13.ptx");

/// Tells the child to use the second compiler's kernels.
const SECOND: &str = "MONOPATH_TEST_SECOND_COMPILER";

/// Tells the child which scenario to run.
const SCENARIO: &str = "MONOPATH_TEST_SCENARIO";

/// The scenarios of all modules by name.
fn scenarios() -> Vec<(&'static str, fn())> {
    [super::works::SCENARIOS, super::blas::SCENARIOS, super::defects::SCENARIOS, super::raw::SCENARIOS]
        .concat()
}

/// The child's side: not a test of its own.
#[test]
fn child() {
    let Ok(name) = std::env::var(SCENARIO) else { return };
    let (_, run) = *scenarios().iter().find(|(n, _)| *n == name).expect("the parent names a scenario");
    // A context outlives the scenario only if the scenario leaks it.
    run();
}

#[test]
fn scenarios_have_different_names() {
    let mut names: Vec<_> = scenarios().iter().map(|s| s.0).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

/// The launcher.
pub fn vgpu() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vgpu"))
}

/// What a child left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code of the launcher.
    pub code: Option<i32>,
    /// Standard output of the child.
    pub stdout: String,
    /// Standard error stream.
    pub stderr: String,
    /// Reports in order.
    pub reports: Vec<Report>,
    /// Counters; absent if the child died.
    pub tally: Option<Tally>,
}

impl Outcome {
    /// Kinds of the reports in order.
    pub fn kinds(&self) -> Vec<Kind> {
        self.reports.iter().map(|r| r.kind).collect()
    }

    /// The counters.
    pub fn tally(&self) -> &Tally {
        self.tally.as_ref().unwrap_or_else(|| panic!("no counters: {}", self.stderr))
    }

    /// Asserts that nothing was reported and the child succeeded.
    pub fn clean(self) -> Self {
        assert!(self.reports.is_empty() && self.code == Some(0), "{:?}\n{}", self.reports, self.stderr);
        self
    }

    /// Asserts that exactly one kind of report came, and gives the first report.
    pub fn only(&self, kind: Kind) -> &Report {
        let kinds = self.kinds();
        assert!(!kinds.is_empty() && kinds.iter().all(|k| *k == kind), "{kinds:?}\n{}", self.stderr);
        &self.reports[0]
    }
}

/// Runs a scenario with options of the launcher.
pub fn run_with(name: &str, options: &[&str]) -> Outcome {
    start(name, options, &mut vgpu())
}

/// Runs a scenario with the kernels of the second compiler.
pub fn run_second(name: &str) -> Outcome {
    start(name, &[], vgpu().env(SECOND, "1"))
}

fn start(name: &str, options: &[&str], launcher: &mut Command) -> Outcome {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| directory.path().join(name);
    let own = std::env::current_exe().expect("a running program has a path");
    let output = launcher
        .args(["run", "--reports"])
        .arg(file("reports"))
        .arg("--counters")
        .arg(file("counters"))
        .args(options)
        .arg("--")
        .arg(own)
        .args(["harness::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, name)
        .output()
        .expect("the launcher runs");
    let tally: Option<Tally> =
        std::fs::read(file("counters")).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let lanes = tally.as_ref().map_or(0, meter::add_run);
    assert!(lanes <= meter::CASE_LIMIT, "{name}: {lanes} lane-instructions are too many for a case");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        reports: read_reports(&file("reports")),
        tally,
    }
}

/// Runs a scenario with the plain seed.
pub fn run(name: &str) -> Outcome {
    run_with(name, &[])
}

/// Reports in a file; none if it does not exist.
pub fn read_reports(file: &Path) -> Vec<Report> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line is a report")).collect()
}

/// Loads the kernels of the scenarios.
pub fn module(context: &Arc<CudaContext>) -> Arc<CudaModule> {
    let ptx = if std::env::var_os(SECOND).is_some() { SECOND_PTX } else { PTX };
    context.load_module(ptx.into()).expect("the kernels load")
}

/// A kernel of the scenarios.
pub fn kernel(context: &Arc<CudaContext>, name: &str) -> CudaFunction {
    module(context).load_function(name).expect("the kernel exists")
}

/// A launch of `blocks` blocks of `threads` threads.
pub fn shape(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}
