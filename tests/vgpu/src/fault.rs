//! What a check reports. A fault names the rule that was broken and where: kernel, line, block, thread.

use std::fmt;

use crate::memory::MemoryError;

/// The rule that a kernel or a launch broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An access outside every allocation, or outside shared, local or parameter memory.
    OutOfBounds,
    /// An address that is no multiple of the access size.
    Misaligned,
    /// An access to memory that was freed.
    UseAfterFree,
    /// A read of global or shared memory that nothing wrote.
    UninitialisedRead,
    /// A store to constant memory.
    ReadOnlyWrite,
    /// Two threads of a block touch the same shared bytes, one writing, with no barrier between.
    SharedRace,
    /// Two blocks of a launch touch the same global bytes, one writing, without atomics.
    GlobalRace,
    /// Threads of a block or lanes of a warp that wait for each other at different barriers.
    DivergentBarrier,
    /// A `.sync` instruction whose mask names lanes that cannot take part, or lacks the executing lane.
    SyncMask,
    /// Grid, block, shared memory or parameters outside the device's or the kernel's limits.
    LaunchLimit,
    /// No thread can make progress.
    Deadlock,
    /// The launch ran longer than its budget of instructions.
    Timeout,
    /// `trap`.
    Trap,
    /// A failed assertion of the kernel.
    Assert,
    /// Something the interpreter does not model for the given operands.
    Unsupported,
}

impl FaultKind {
    /// The rule in words.
    pub fn text(self) -> &'static str {
        match self {
            FaultKind::OutOfBounds => "out-of-bounds access",
            FaultKind::Misaligned => "misaligned access",
            FaultKind::UseAfterFree => "use after free",
            FaultKind::UninitialisedRead => "read of uninitialised memory",
            FaultKind::ReadOnlyWrite => "write to read-only memory",
            FaultKind::SharedRace => "race in shared memory",
            FaultKind::GlobalRace => "race between blocks in global memory",
            FaultKind::DivergentBarrier => "divergent barrier",
            FaultKind::SyncMask => "wrong mask of a warp-synchronous instruction",
            FaultKind::LaunchLimit => "launch outside the limits",
            FaultKind::Deadlock => "deadlock",
            FaultKind::Timeout => "instruction budget spent",
            FaultKind::Trap => "trap",
            FaultKind::Assert => "failed assertion",
            FaultKind::Unsupported => "not modelled",
        }
    }
}

/// A broken rule with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The rule.
    pub kind: FaultKind,
    /// Kernel name.
    pub kernel: String,
    /// Line of the PTX text, counted from 1; 0 where no instruction is to blame.
    pub ptx_line: u32,
    /// Source file and line from the PTX's `.loc`, if it has them.
    pub source: Option<(String, u32)>,
    /// Block index (x, y, z), if a thread is to blame.
    pub block: Option<[u32; 3]>,
    /// Thread index (x, y, z), if a thread is to blame.
    pub thread: Option<[u32; 3]>,
    /// The instruction as written in the PTX; empty where none is to blame.
    pub instruction: String,
    /// What happened: addresses, sizes, the other party of a race.
    pub text: String,
}

impl Fault {
    /// A fault of a launch as a whole.
    pub fn of_launch(kind: FaultKind, kernel: &str, text: String) -> Self {
        Fault {
            kind,
            kernel: kernel.into(),
            ptx_line: 0,
            source: None,
            block: None,
            thread: None,
            instruction: String::new(),
            text,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (kernel `{}`", self.kind.text(), self.text, self.kernel)?;
        if let Some((file, line)) = &self.source {
            write!(f, ", {file}:{line}")?;
        }
        if self.ptx_line > 0 {
            write!(f, ", ptx line {}: `{}`", self.ptx_line, self.instruction)?;
        }
        if let Some([x, y, z]) = self.block {
            write!(f, ", block ({x}, {y}, {z})")?;
        }
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        write!(f, ")")
    }
}

impl std::error::Error for Fault {}

impl From<&MemoryError> for FaultKind {
    fn from(e: &MemoryError) -> FaultKind {
        match e {
            MemoryError::OutOfMemory { .. }
            | MemoryError::InvalidFree { .. }
            | MemoryError::OutOfBounds { .. } => FaultKind::OutOfBounds,
            MemoryError::DoubleFree { .. } | MemoryError::UseAfterFree { .. } => FaultKind::UseAfterFree,
            MemoryError::Uninitialised { .. } => FaultKind::UninitialisedRead,
            MemoryError::ReadOnly { .. } => FaultKind::ReadOnlyWrite,
        }
    }
}
