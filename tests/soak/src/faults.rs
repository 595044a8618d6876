//! System calls that fail one by one: `tests/faults` preloaded into the program as it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use crate::{Bench, built, fingerprint};

/// How a call goes wrong; `tests/faults` says what each does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Full,
    Broken,
    Short,
    Kill,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Full => "enospc",
            Fault::Broken => "eio",
            Fault::Short => "short",
            Fault::Kill => "kill",
        }
    }

    /// What the user must be told; nothing where there is no error.
    fn cause(self) -> Option<&'static str> {
        match self {
            Fault::Full => Some("No space left on device"),
            Fault::Broken => Some("Input/output error"),
            Fault::Short | Fault::Kill => None,
        }
    }
}

/// A counted call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its place, from 1.
    pub n: u64,
    /// `create`, `write`, `truncate`, `sync`, `rename`, `remove` or `mkdir`.
    pub name: String,
    /// On what.
    pub path: String,
    hit: bool,
}

impl Call {
    fn read(line: &str) -> Self {
        let mut parts = line.trim_start_matches('!').splitn(3, ' ');
        let mut next = || parts.next().unwrap().to_owned();
        Self { n: next().parse().unwrap(), name: next(), path: next(), hit: line.starts_with('!') }
    }
}

/// Which call is to go wrong, and how.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub fault: Fault,
    pub at: u64,
}

impl Order {
    /// Runs the program under this order; what it did, and the call that was hit, if so many were made.
    pub fn give(self, bench: &Bench, args: &[&str], under: &Path) -> (Output, Option<Call>) {
        let (output, calls) = preloaded(bench, args, under, Some(self));
        (output, calls.into_iter().find(|call| call.hit))
    }
}

/// Every call that a run makes below `under`.
pub fn calls(bench: &Bench, args: &[&str], under: &Path) -> Vec<Call> {
    let (output, calls) = preloaded(bench, args, under, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!calls.is_empty(), "the preloaded library counted nothing");
    calls
}

fn preloaded(bench: &Bench, args: &[&str], under: &Path, order: Option<Order>) -> (Output, Vec<Call>) {
    let log = bench.path("calls.log");
    // A log of the run before; there is none at first.
    let _ = std::fs::remove_file(&log);
    let mut command = bench.command(args);
    command
        .env("LD_PRELOAD", built("deps/libmonopath_faults.so"))
        .env("MONOPATH_FAULT_UNDER", under)
        .env("MONOPATH_FAULT_LOG", &log);
    if let Some(order) = order {
        command.env("MONOPATH_FAULT", format!("{}@{}", order.fault.name(), order.at));
    }
    let output = command.output().unwrap();
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    (output, text.lines().map(Call::read).collect())
}

/// Every `stride`-th call of a whole run fails in each way it can: the disk is full from there on, the
/// device fails, a write takes half. The program must say which file and why, and end with code 1; going
/// on must give the bits of the run that met no fault. A failure that stops nothing is one that cleans up.
pub fn faults(stride: usize) -> String {
    let bench = Bench::new();
    bench.ok(&["run", "brief.toml", "--out", "whole"]);
    let want = fingerprint(&bench.path("whole"));
    let counted = bench.path("counted");
    let all = calls(&bench, &["run", "brief.toml", "--out", counted.to_str().unwrap()], &counted);
    assert_eq!(fingerprint(&counted), want);
    let (mut told, mut survived) = (BTreeMap::<String, u32>::new(), 0);
    for (i, call) in all.iter().enumerate().step_by(stride) {
        // Neighbouring calls do different things, so a stride meets each kind with each fault.
        for fault in [Fault::Full, Fault::Broken, Fault::Short] {
            if fault == Fault::Short && call.name != "write" {
                continue;
            }
            let dir = bench.path(&format!("fault-{i}-{}", fault.name()));
            let args = ["run", "brief.toml", "--out", dir.to_str().unwrap()];
            let (output, hit) = Order { fault, at: call.n }.give(&bench, &args, &dir);
            let errors = String::from_utf8_lossy(&output.stderr);
            let Some(hit) = hit else { panic!("call {} of {} was not made: {errors}", call.n, all.len()) };
            let what = format!("{} at call {} ({} {})\n{errors}", fault.name(), hit.n, hit.name, hit.path);
            match fault.cause() {
                Some(cause) if !output.status.success() => {
                    assert_eq!(output.status.code(), Some(1), "{what}");
                    let last = errors.lines().last().unwrap_or_default();
                    assert!(last.starts_with("error: ") && last.contains(cause), "{what}");
                    assert!(last.contains(dir.to_str().unwrap()), "no file is named: {what}");
                    *told.entry(format!("{} {}", fault.name(), hit.name)).or_default() += 1;
                    let again = [&args[..], &["--resume"]].concat();
                    bench.ok(&again);
                }
                Some(_) => panic!("the fault was passed over: {what}"),
                None => {
                    assert!(output.status.success(), "{what}");
                    survived += 1;
                }
            }
            assert_eq!(fingerprint(&dir), want, "{what}");
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
    let failed: u32 = told.values().sum();
    format!(
        "{failed} failing calls of the {} of a run, each told by file and cause and resumed {told:?}; {survived} short \
         writes passed; no bit different",
        all.len()
    )
}
