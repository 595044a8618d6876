//! The state of the driver: one device, its contexts, and everything that handles name.
//!
//! Invariant: handles are numbers that are never used twice, so a stale one is always noticed.

use std::collections::BTreeMap;
use std::fs::File;
use std::thread::JoinHandle;

use super::capture::{Capture, Graph, GraphExec};
use super::code::Code;
use super::config::Config;
use super::host::PinnedTable;
use super::module::{Function, Module};
use super::order::{Clock, History, Order, Stamp};
use super::pool::Pool;
use super::queue::{Queue, Target, TaskId};
use super::report::{self, Kind, Report};
use super::stream::{Event, Stream, StreamKind};
use super::tally::Tally;
use super::work::Task;
use crate::memory::Memory;
use crate::schedule::Schedule;

/// Why a call fails.
#[derive(Debug)]
pub enum Refusal {
    /// With a code; either the code says it all, or it was reported before.
    Quiet(Code),
    /// With a code and a report of what the program did wrong.
    Said(Code, Kind, String),
}

impl Refusal {
    /// A refusal with a report.
    pub fn said(code: Code, kind: Kind, text: impl Into<String>) -> Refusal {
        Refusal::Said(code, kind, text.into())
    }

    /// A wrong argument.
    pub fn argument(text: impl Into<String>) -> Refusal {
        Refusal::said(Code::InvalidValue, Kind::Argument, text)
    }

    /// Something that is not provided.
    pub fn unsupported(text: impl Into<String>) -> Refusal {
        Refusal::said(Code::NotSupported, Kind::Unsupported, text)
    }

    /// A handle that names nothing.
    pub fn handle(what: &str, handle: u64) -> Refusal {
        let text =
            if handle == 0 { format!("a null {what}") } else { format!("{handle:#x} is no living {what}") };
        Refusal::said(Code::InvalidHandle, Kind::Argument, text)
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Refusal {
        Refusal::Quiet(code)
    }
}

/// Result of a call.
pub type Done<T = ()> = Result<T, Refusal>;

/// A context.
#[derive(Debug)]
pub struct Context {
    /// Its legacy stream.
    pub legacy: u64,
    /// True for the primary context, which is counted instead of owned.
    pub primary: bool,
    /// Users of the primary context.
    pub users: u32,
    /// Flags it was made with.
    pub flags: u32,
    /// What every call gives after a fault.
    pub poison: Option<Code>,
    /// Limits that the program set.
    pub limits: BTreeMap<u32, usize>,
    /// Preferred cache configuration, a hint.
    pub cache_config: u32,
    /// All operations that it was given.
    pub clock: Clock,
}

/// A living allocation of device memory.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// Its context.
    pub context: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Its pool, if stream-ordered.
    pub pool: Option<u64>,
    /// A free is queued.
    pub freeing: bool,
}

/// Kinds of handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleKind {
    /// Contexts.
    Context = 1,
    /// Streams.
    Stream = 2,
    /// Events.
    Event = 3,
    /// Modules.
    Module = 4,
    /// Functions.
    Function = 5,
    /// Graphs.
    Graph = 6,
    /// Graphs ready to launch.
    GraphExec = 7,
    /// Memory pools.
    Pool = 8,
    /// Captures; not seen by the program.
    Capture = 9,
    /// Handles of library stand-ins.
    Library = 10,
}

/// The driver.
pub struct Driver {
    /// What the environment chose.
    pub config: Config,
    /// Device memory.
    pub memory: Memory,
    /// Counters of the run.
    pub tally: Tally,
    /// Work not yet run.
    pub queue: Queue<Task>,
    /// Host functions under way, with what they come after.
    pub(super) calls: BTreeMap<TaskId, (JoinHandle<()>, Option<Stamp>)>,
    /// The order of what was asked for.
    pub order: Order,
    /// Who touched which bytes of device memory.
    pub(super) history: History,
    /// Who touched which bytes of host memory.
    pub(super) host_history: History,
    /// Contexts.
    pub contexts: BTreeMap<u64, Context>,
    /// Streams.
    pub streams: BTreeMap<u64, Stream>,
    /// Events.
    pub events: BTreeMap<u64, Event>,
    /// Modules.
    pub modules: BTreeMap<u64, Module>,
    /// Functions.
    pub functions: BTreeMap<u64, Function>,
    /// Captures in progress.
    pub captures: BTreeMap<u64, Capture<Task>>,
    /// Graphs.
    pub graphs: BTreeMap<u64, Graph<Task>>,
    /// Graphs ready to launch.
    pub execs: BTreeMap<u64, GraphExec<Task>>,
    /// Memory pools.
    pub pools: BTreeMap<u64, Pool>,
    /// The pool that the device came with.
    pub default_pool: u64,
    /// The pool that stream-ordered allocations use.
    pub current_pool: u64,
    /// Living allocations by address.
    pub owners: BTreeMap<u64, Owner>,
    /// Pinned host memory.
    pub pinned: PinnedTable,
    /// Objects of the library stand-ins.
    pub libraries: crate::cublas::Libraries,
    /// The primary context, if in use.
    pub primary: Option<u64>,
    /// Flags for the next primary context.
    pub primary_flags: u32,
    pub(super) launches: Option<File>,
    serial: u64,
}

impl Driver {
    /// A driver with nothing in it.
    pub fn new(config: Config, launches: Option<File>) -> Self {
        let mut driver = Driver {
            memory: Memory::new(config.props.memory_bytes),
            tally: Tally {
                device: config.props.name.clone(),
                capability: config.props.capability,
                seed: config.seed,
                checks: config.options.checks,
                ..Tally::default()
            },
            queue: Queue::new(Schedule::new(config.seed)),
            calls: BTreeMap::new(),
            order: Order::default(),
            history: History::default(),
            host_history: History::default(),
            contexts: BTreeMap::new(),
            streams: BTreeMap::new(),
            events: BTreeMap::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            captures: BTreeMap::new(),
            graphs: BTreeMap::new(),
            execs: BTreeMap::new(),
            pools: BTreeMap::new(),
            default_pool: 0,
            current_pool: 0,
            owners: BTreeMap::new(),
            pinned: PinnedTable::default(),
            libraries: crate::cublas::Libraries::default(),
            primary: None,
            primary_flags: 0,
            launches,
            serial: 0,
            config,
        };
        driver.default_pool = driver.handle(HandleKind::Pool);
        driver.current_pool = driver.default_pool;
        driver.pools.insert(driver.default_pool, Pool::new(0));
        driver
    }

    /// A handle that was never used.
    pub fn handle(&mut self, kind: HandleKind) -> u64 {
        self.serial += 1;
        (kind as u64) << 40 | self.serial << 4
    }

    /// Makes a context.
    pub fn make_context(&mut self, primary: bool, flags: u32) -> u64 {
        let id = self.handle(HandleKind::Context);
        let legacy = self.handle(HandleKind::Stream);
        self.streams.insert(legacy, Stream::new(id, StreamKind::Legacy, 0));
        self.contexts.insert(
            id,
            Context {
                legacy,
                primary,
                users: 0,
                flags,
                poison: None,
                limits: BTreeMap::new(),
                cache_config: 0,
                clock: Clock::default(),
            },
        );
        id
    }

    /// The context of a handle.
    ///
    /// # Errors
    /// Not a living context, or one that a fault ended.
    pub fn context(&mut self, id: u64) -> Done<&mut Context> {
        let context = self.contexts.get_mut(&id).ok_or(Code::InvalidContext)?;
        match context.poison {
            Some(code) => Err(code.into()),
            None => Ok(context),
        }
    }

    /// Ends a context: runs what is queued, reports what was not freed, forgets what it owned.
    ///
    /// # Errors
    /// What the queued work did wrong.
    pub fn end_context(&mut self, id: u64) -> Done {
        let result = self.wait(Target::Group(id), id);
        let faulted = self.contexts.get(&id).is_some_and(|c| c.poison.is_some());
        self.report_leaks(Some(id), faulted, "the context ended");
        let of = |c: u64| c == id;
        self.streams.retain(|_, s| !of(s.context));
        self.events.retain(|_, e| !of(e.context));
        self.captures.retain(|_, c| !of(c.context));
        self.graphs.retain(|_, g| !of(g.context));
        self.execs.retain(|_, g| !of(g.context));
        let modules: Vec<u64> = self.modules.iter().filter(|(_, m)| of(m.context)).map(|(h, _)| *h).collect();
        for module in modules {
            self.unload(module);
        }
        self.libraries.end_context(id);
        self.contexts.remove(&id);
        if self.primary == Some(id) {
            self.primary = None;
        }
        result
    }

    /// Takes a module out of device memory and forgets it.
    pub fn unload(&mut self, module: u64) {
        if let Some(m) = self.modules.remove(&module) {
            self.tally.covered(&m.ptx);
            if let Err(e) = m.ptx.unplace(&self.memory) {
                report::emit(&Report::error(Kind::Internal, "cuModuleUnload", e.to_string()));
            }
            self.functions.retain(|_, f| f.module != module);
        }
    }
}
