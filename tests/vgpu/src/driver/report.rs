//! Reports: what a check found, printed to the standard error stream at once and kept as lines of JSON.
//!
//! The library has no caller to hand an error to when it finds a defect (a leak at exit, say), so it is the one place
//! of the workspace that prints by itself. Invariant: a report is out before the call that found it returns.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind};

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An access outside every allocation, by a kernel, a copy or a library.
    OutOfBounds,
    /// An address that is no multiple of the access size.
    Misaligned,
    /// An access to freed memory.
    UseAfterFree,
    /// Memory freed twice.
    DoubleFree,
    /// A free of something that is no allocation.
    InvalidFree,
    /// A read of device or shared memory that nothing wrote.
    UninitialisedRead,
    /// A copy to the host of bytes that nothing wrote.
    UnwrittenOutput,
    /// A write to constant memory.
    ReadOnlyWrite,
    /// A race in shared memory.
    SharedRace,
    /// A race between blocks in global memory.
    GlobalRace,
    /// Threads waiting at different barriers.
    DivergentBarrier,
    /// A wrong mask of a warp-synchronous instruction.
    SyncMask,
    /// Two operations of different streams touch the same bytes, one writing, in no order.
    StreamRace,
    /// A launch outside the limits.
    LaunchLimit,
    /// Kernel parameters of the wrong number or size.
    Parameters,
    /// No thread can make progress.
    Deadlock,
    /// A launch that spent its budget of instructions.
    Timeout,
    /// `trap`.
    Trap,
    /// A failed assertion of the kernel.
    Assert,
    /// A call that a capture in progress forbids.
    Capture,
    /// A module image that is no PTX.
    Image,
    /// PTX that was refused.
    Ptx,
    /// Memory not freed.
    Leak,
    /// Pinned host memory given back while the device may still use it.
    HostMemory,
    /// Work that nobody waited for.
    Unfinished,
    /// A wrong argument or handle.
    Argument,
    /// Device memory is full.
    OutOfMemory,
    /// A function or a use of it that is not provided.
    Unsupported,
    /// A defect of the virtual GPU itself.
    Internal,
}

impl Kind {
    /// Its name as it stands in JSON.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => unreachable!("a kind is a string in JSON"),
        }
    }
}

impl From<FaultKind> for Kind {
    fn from(kind: FaultKind) -> Kind {
        match kind {
            FaultKind::OutOfBounds => Kind::OutOfBounds,
            FaultKind::Misaligned => Kind::Misaligned,
            FaultKind::UseAfterFree => Kind::UseAfterFree,
            FaultKind::UninitialisedRead => Kind::UninitialisedRead,
            FaultKind::ReadOnlyWrite => Kind::ReadOnlyWrite,
            FaultKind::SharedRace => Kind::SharedRace,
            FaultKind::GlobalRace => Kind::GlobalRace,
            FaultKind::DivergentBarrier => Kind::DivergentBarrier,
            FaultKind::SyncMask => Kind::SyncMask,
            FaultKind::LaunchLimit => Kind::LaunchLimit,
            FaultKind::Deadlock => Kind::Deadlock,
            FaultKind::Timeout => Kind::Timeout,
            FaultKind::Trap => Kind::Trap,
            FaultKind::Assert => Kind::Assert,
            FaultKind::Unsupported => Kind::Unsupported,
        }
    }
}

/// How much a report weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; the program may be right.
    Warning,
    /// A defect, or something that is not provided.
    Error,
}

/// Where in a kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// Kernel name.
    pub kernel: String,
    /// Line of the PTX, counted from 1; 0 if no instruction is to blame.
    pub ptx_line: u32,
    /// Source file and line, if the PTX has them.
    pub source: Option<(String, u32)>,
    /// Block index (x, y, z).
    pub block: Option<[u32; 3]>,
    /// Thread index (x, y, z).
    pub thread: Option<[u32; 3]>,
    /// The instruction as written.
    pub instruction: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What it is about.
    pub kind: Kind,
    /// How much it weighs.
    pub severity: Severity,
    /// The driver or library function that asked for the work.
    pub function: String,
    /// What happened.
    pub text: String,
    /// Where in a kernel, if a kernel did it.
    pub place: Option<Place>,
}

impl Report {
    /// A defect.
    pub fn error(kind: Kind, function: &str, text: impl Into<String>) -> Report {
        let text = text.into();
        Report { kind, severity: Severity::Error, function: function.into(), text, place: None }
    }

    /// A hint.
    pub fn warning(kind: Kind, function: &str, text: impl Into<String>) -> Report {
        Report { severity: Severity::Warning, ..Report::error(kind, function, text) }
    }

    /// A fault of a kernel.
    pub fn of_fault(function: &str, fault: &Fault) -> Report {
        let place = Place {
            kernel: fault.kernel.clone(),
            ptx_line: fault.ptx_line,
            source: fault.source.clone(),
            block: fault.block,
            thread: fault.thread,
            instruction: fault.instruction.clone(),
        };
        Report { place: Some(place), ..Report::error(fault.kind.into(), function, fault.to_string()) }
    }
}

#[derive(Default)]
struct Sink {
    file: Option<File>,
    counts: BTreeMap<String, u64>,
    errors: u64,
    warnings: u64,
}

static SINK: Mutex<Option<Sink>> = Mutex::new(None);

fn sink() -> MutexGuard<'static, Option<Sink>> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends reports to a file too, from now on.
pub(crate) fn open(file: Option<File>) {
    sink().get_or_insert_default().file = file;
}

/// Prints a report and keeps it.
pub(crate) fn emit(report: &Report) {
    let mut guard = sink();
    let s = guard.get_or_insert_default();
    *s.counts.entry(report.kind.name()).or_default() += 1;
    let word = match report.severity {
        Severity::Warning => {
            s.warnings += 1;
            "warning"
        }
        Severity::Error => {
            s.errors += 1;
            "error"
        }
    };
    eprintln!("monopath virtual GPU: {word} [{}] {}: {}", report.kind.name(), report.function, report.text);
    if let Some(file) = &mut s.file
        && let Ok(mut line) = serde_json::to_vec(report)
    {
        line.push(b'\n');
        if let Err(e) = file.write_all(&line) {
            eprintln!("monopath virtual GPU: cannot write the reports file: {e}");
            s.file = None;
        }
    }
}

/// Reports so far: by kind, errors, warnings.
pub(crate) fn totals() -> (BTreeMap<String, u64>, u64, u64) {
    let guard = sink();
    guard.as_ref().map_or_else(Default::default, |s| (s.counts.clone(), s.errors, s.warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_snake_case_names() {
        assert_eq!(Kind::UnwrittenOutput.name(), "unwritten_output");
        assert_eq!(Kind::from(FaultKind::GlobalRace).name(), "global_race");
    }

    #[test]
    fn a_report_survives_json() {
        let fault = Fault::of_launch(FaultKind::OutOfBounds, "k", "far away".into());
        let r = Report::of_fault("cuLaunchKernel", &fault);
        let text = serde_json::to_string(&r).expect("plain data");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("written above"), r);
        assert_eq!(r.place.as_ref().map(|p| p.kernel.as_str()), Some("k"));
    }
}
