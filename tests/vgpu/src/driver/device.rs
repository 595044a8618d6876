//! The state of the driver: one device, its contexts, and everything that handles name.
//!
//! Invariant: handles are numbers that are never used twice, so a stale one is always noticed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use super::tally::{LaunchRecord, Tally};
use super::work::{self, Failure, Machine, Op, Task, Trace};
use crate::memory::{Memory, Origin};
use crate::schedule::Schedule;

/// Operations that may wait before the device runs some by itself, to bound the memory they take.
const MAX_PENDING: usize = 1 << 16;

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
    calls: BTreeMap<TaskId, (JoinHandle<()>, Option<Stamp>)>,
    /// The order of what was asked for.
    pub order: Order,
    /// Who touched which bytes of device memory.
    history: History,
    /// Who touched which bytes of host memory.
    host_history: History,
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
    launches: Option<File>,
    serial: u64,
}

static DRIVER: Mutex<Option<Box<Driver>>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Box<Driver>>> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the driver if it has not been started.
///
/// # Errors
/// A variable of the environment that does not parse, or a file that cannot be made.
pub fn start(function: &'static str) -> Code {
    let mut driver = lock();
    if driver.is_some() {
        return Code::Success;
    }
    let refuse = |text: String| {
        report::emit(&Report::error(Kind::Argument, function, text));
        Code::InvalidValue
    };
    let config = match Config::from_environment() {
        Ok(config) => config,
        Err(e) => return refuse(e.to_string()),
    };
    let open = |path: &Option<std::path::PathBuf>, append: bool| match path {
        None => Ok(None),
        Some(p) => File::options()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .open(p)
            .map(Some)
            .map_err(|e| format!("cannot write {}: {e}", p.display())),
    };
    let mut config = config;
    // Programs that start others would otherwise overwrite each other's files.
    for path in [&mut config.counters, &mut config.launches].into_iter().flatten() {
        if let Some(text) = path.to_str().filter(|t| t.contains("%p")) {
            *path = text.replace("%p", &std::process::id().to_string()).into();
        }
    }
    match open(&config.reports, true) {
        Ok(file) => report::open(file),
        Err(text) => return refuse(text),
    }
    let launches = match open(&config.launches, false) {
        Ok(file) => file,
        Err(text) => return refuse(text),
    };
    if let Err(text) = open(&config.counters, false) {
        return refuse(text);
    }
    if !config.quiet {
        let (major, minor) = config.props.capability;
        eprintln!(
            "monopath virtual GPU: no GPU is used; compute capability {major}.{minor}, {} MiB, seed {}, checks {}",
            config.props.memory_bytes >> 20,
            config.seed,
            if config.options.checks { "on" } else { "off" },
        );
    }
    *driver = Some(Box::new(Driver::new(config, launches)));
    unsafe extern "C" {
        fn atexit(f: extern "C" fn()) -> i32;
    }
    // SAFETY: the function lives as long as this library; the C library runs it before it is unloaded.
    if unsafe { atexit(at_exit) } != 0 {
        return refuse("the C library takes no function to run at exit".into());
    }
    Code::Success
}

extern "C" fn at_exit() {
    // Another thread may be inside a call for ever; then there is nothing consistent to report.
    let Ok(mut guard) = DRIVER.try_lock() else { return };
    if let Some(driver) = guard.as_mut() {
        let _ = catch_unwind(AssertUnwindSafe(|| driver.finish()));
    }
}

/// Runs a call of the program: takes the driver, keeps panics in, reports, and gives the result code.
pub fn call(function: &'static str, f: impl FnOnce(&mut Driver) -> Done) -> Code {
    if work::in_host_function() {
        let text = "a host function called the driver; CUDA forbids it";
        report::emit(&Report::error(Kind::Argument, function, text));
        return Code::NotPermitted;
    }
    let result = catch_unwind(AssertUnwindSafe(|| match lock().as_deref_mut() {
        None => Err(Refusal::Quiet(Code::NotInitialized)),
        Some(driver) => f(driver),
    }));
    match result {
        Ok(Ok(())) => Code::Success,
        Ok(Err(Refusal::Quiet(code))) => code,
        Ok(Err(Refusal::Said(code, kind, text))) => {
            report::emit(&Report::error(kind, function, text));
            code
        }
        Err(_) => {
            report::emit(&Report::error(
                Kind::Internal,
                function,
                "the virtual GPU panicked; this is its own defect",
            ));
            Code::Unknown
        }
    }
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
            if let Err(e) = m.ptx.unplace(&self.memory) {
                report::emit(&Report::error(Kind::Internal, "cuModuleUnload", e.to_string()));
            }
            self.functions.retain(|_, f| f.module != module);
        }
    }

    /// Waits for work of a context.
    ///
    /// # Errors
    /// The code of the first operation of this context that failed; it was reported.
    pub fn wait(&mut self, target: Target, context: u64) -> Done {
        let all = match &target {
            Target::Group(id) => self.contexts.get(id).map(|c| c.clock.clone()),
            Target::Tasks(_) => None,
        };
        let wait = self.queue.wait(target);
        let mut result = Ok(());
        while self.queue.is_open(&wait) {
            let Some((id, task)) = self.queue.next(&wait) else {
                // Everything that could run is a host function under way.
                let Some((id, call)) = self.calls.pop_first() else { break };
                self.end_call(id, call);
                continue;
            };
            if let Err(code) = self.execute(id, &task)
                && task.context == context
            {
                result = Err(code.into());
            }
        }
        if let Some(clock) = all {
            self.order.host_waited(&clock);
        }
        if self.queue.len() == 0 && self.order.is_settled() {
            // Whatever comes next comes after all of it.
            self.history.clear();
            self.host_history.clear();
        }
        for pool in self.pools.values_mut() {
            pool.trim(pool.release_threshold);
        }
        result
    }

    /// Runs operations until fewer wait than may.
    pub fn relieve(&mut self, context: u64) {
        if self.queue.len() > MAX_PENDING {
            let wait = self.queue.wait(Target::Group(context));
            while self.queue.len() > MAX_PENDING / 2 {
                let Some((id, task)) = self.queue.next(&wait) else { break };
                // A failure stays in the context and comes out of the next call.
                let _ = self.execute(id, &task);
            }
        }
    }

    /// Runs one operation that some of `tasks` need, if any is left.
    ///
    /// # Errors
    /// As [`Driver::wait`].
    pub fn step(&mut self, tasks: Vec<u64>, context: u64) -> Done {
        if let Some(id) = self.calls.iter().find(|(_, call)| call.0.is_finished()).map(|(id, _)| *id) {
            let call = self.calls.remove(&id).expect("just found");
            self.end_call(id, call);
        }
        let wait = self.queue.wait(Target::Tasks(tasks));
        match self.queue.next(&wait) {
            Some((id, task)) if task.context == context => self.execute(id, &task).map_err(Refusal::from),
            Some((id, task)) => {
                let _ = self.execute(id, &task);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Waits for a host function and takes it out of the queue.
    fn end_call(&mut self, id: TaskId, (call, stamp): (JoinHandle<()>, Option<Stamp>)) {
        // A panic cannot cross the C function: it would have ended the process.
        let _ = call.join();
        // It may have told the host's other threads.
        if let Some(stamp) = stamp {
            self.order.host_waited(&stamp.clock);
        }
        self.queue.finish(id);
    }

    /// Runs one operation; a host function only begins.
    fn execute(&mut self, id: TaskId, task: &Task) -> Result<(), Code> {
        if let Op::Call { function, data } = task.op {
            match work::call_host(function, data) {
                Ok(call) => {
                    self.calls.insert(id, (call, task.stamp.clone()));
                    return Ok(());
                }
                Err(e) => {
                    self.queue.finish(id);
                    let report = Report::error(Kind::Internal, task.function, format!("no thread: {e}"));
                    return Err(self.fail(task.context, &Failure { code: Code::OperatingSystem, report }));
                }
            }
        }
        self.queue.finish(id);
        self.run(id, task)
    }

    fn run(&mut self, id: TaskId, task: &Task) -> Result<(), Code> {
        let tracing = self.config.options.checks && self.order.is_parallel();
        let mut trace = Trace::default();
        if let Op::Free { at } = task.op {
            // To free is to write everything.
            let bytes = self.owners.get(&at).map_or(0, |o| o.bytes);
            if tracing {
                trace.device.writes(at, bytes);
                self.note(id, task, &trace)?;
            }
            return self.free_now(at, task.function).map_err(|f| self.fail(task.context, &f));
        }
        let machine = Machine {
            memory: &self.memory,
            props: &self.config.props,
            options: &self.config.options,
            pinned: &self.pinned,
            seed: self.config.seed,
        };
        match machine.run(task, tracing.then_some(&mut trace)) {
            Ok(None) => self.note(id, task, &trace),
            Ok(Some(counters)) => {
                let printed = self.memory.take_printed();
                if !printed.is_empty() {
                    // As with a GPU, what kernels print goes to the standard output of the program.
                    let _ = std::io::stdout().write_all(printed.as_bytes());
                }
                let Op::Kernel(kernel) = &task.op else { unreachable!("only kernels have counters") };
                self.tally.launched(kernel.kernel().name(), &counters);
                if let Some(file) = &mut self.launches {
                    let record = LaunchRecord {
                        operation: id,
                        kernel: kernel.kernel().name().into(),
                        grid: kernel.grid,
                        block: kernel.block,
                        dynamic_shared: kernel.dynamic_shared,
                        counters,
                    };
                    let written =
                        serde_json::to_vec(&record).map_err(std::io::Error::from).and_then(|mut line| {
                            line.push(b'\n');
                            file.write_all(&line)
                        });
                    if let Err(e) = written {
                        eprintln!("monopath virtual GPU: cannot write the launches file: {e}");
                        self.launches = None;
                    }
                }
                self.note(id, task, &trace)
            }
            Err(failure) => Err(self.fail(task.context, &failure)),
        }
    }

    /// Notes what an operation touched, and whether another one did so without any order.
    fn note(&mut self, id: TaskId, task: &Task, trace: &Trace) -> Result<(), Code> {
        let Some(stamp) = &task.stamp else { return Ok(()) };
        if trace.device == Default::default() && trace.host == Default::default() {
            return Ok(());
        }
        let label = task.label(id);
        let device = self.history.note(stamp, &label, &trace.device);
        let host = self.host_history.note(stamp, &label, &trace.host);
        let Some((conflict, place)) = device.map(|c| (c, "device")).or(host.map(|c| (c, "host"))) else {
            return Ok(());
        };
        let word = |writes: bool| if writes { "writes" } else { "reads" };
        let text = format!(
            "{label} {} {} bytes of {place} memory at {:#x} that {} {}, and nothing orders the two: no stream, no event, \
             no wait of the host",
            word(conflict.writes),
            conflict.bytes.end - conflict.bytes.start,
            conflict.bytes.start,
            conflict.other,
            word(conflict.other_wrote),
        );
        let report = Report::error(Kind::StreamRace, task.function, text);
        Err(self.fail(task.context, &Failure { code: Code::LaunchFailed, report }))
    }

    /// Reports a failure and ends the context's work: from now on every call gives the code.
    fn fail(&mut self, context: u64, failure: &Failure) -> Code {
        report::emit(&failure.report);
        let Some(c) = self.contexts.get_mut(&context) else { return failure.code };
        let code = *c.poison.get_or_insert(failure.code);
        for task in self.queue.discard(context) {
            if let Op::Free { at } = task.op {
                let _ = self.free_now(at, task.function);
            }
        }
        code
    }

    /// Frees an allocation and keeps the accounts.
    fn free_now(&mut self, at: u64, function: &'static str) -> Result<(), Box<Failure>> {
        if let Some(owner) = self.owners.remove(&at) {
            self.history.forget(&(at..at + owner.bytes));
            if let Some(pool) = owner.pool.and_then(|p| self.pools.get_mut(&p)) {
                pool.give(owner.bytes);
            }
        }
        self.memory.free(at).map_err(|e| {
            let report = Report::error(work::kind_of(&e), function, e.to_string());
            Box::new(Failure { code: Code::IllegalAddress, report })
        })
    }

    /// Allocates device memory for a context.
    ///
    /// # Errors
    /// No room, on the device or in the pool.
    pub fn allocate(&mut self, context: u64, bytes: u64, pool: Option<u64>) -> Done<u64> {
        if bytes == 0 && pool.is_none() {
            return Err(Refusal::argument("an allocation of 0 bytes"));
        }
        let full = |text: String| Refusal::said(Code::OutOfMemory, Kind::OutOfMemory, text);
        if let Some(p) = pool {
            let p = self.pools.get_mut(&p).ok_or_else(|| Refusal::handle("memory pool", p))?;
            if !p.has_room(bytes) {
                return Err(full(format!("{bytes} bytes wanted, the pool's limit is {}", p.max_bytes)));
            }
        }
        let origin = if pool.is_some() { Origin::Stream } else { Origin::Malloc };
        let at = self.memory.alloc(bytes, origin).map_err(|e| full(e.to_string()))?;
        if let Some(p) = pool.and_then(|p| self.pools.get_mut(&p)) {
            p.take(bytes);
        }
        self.owners.insert(at, Owner { context, bytes, pool, freeing: false });
        let volume =
            if pool.is_some() { &mut self.tally.stream_allocations } else { &mut self.tally.allocations };
        volume.add(bytes);
        Ok(at)
    }

    /// Frees an allocation at once.
    ///
    /// # Errors
    /// Not an allocation, or freed before.
    pub fn free(&mut self, at: u64, function: &'static str) -> Done {
        self.check_free(at)?;
        self.tally.frees += 1;
        self.free_now(at, function)
            .map_err(|f| Refusal::Said(Code::InvalidValue, f.report.kind, f.report.text))
    }

    /// Checks that an address may be freed.
    ///
    /// # Errors
    /// Not an allocation, or freed before.
    pub fn check_free(&self, at: u64) -> Done {
        match self.owners.get(&at) {
            Some(owner) if owner.freeing => Err(Refusal::said(
                Code::InvalidValue,
                Kind::DoubleFree,
                format!("double free of {at:#x}: a free of these {} bytes is queued already", owner.bytes),
            )),
            Some(_) => Ok(()),
            None => {
                let foreign = format!("free of {at:#x}, which the program did not allocate");
                let (kind, text) = match self.memory.find(at) {
                    Some(_) => (Kind::InvalidFree, foreign),
                    // Nothing alive is here, so this only asks the memory whether something once was.
                    None => match self.memory.free(at) {
                        Err(e) => (work::kind_of(&e), e.to_string()),
                        Ok(()) => (Kind::InvalidFree, foreign),
                    },
                };
                Err(Refusal::Said(Code::InvalidValue, kind, text))
            }
        }
    }

    /// Reports memory that was not freed and, for a context that ended, gives it back.
    fn report_leaks(&mut self, context: Option<u64>, faulted: bool, when: &str) {
        const SHOWN: usize = 8;
        let ours = |c: u64| context.is_none_or(|id| id == c);
        let leaks: Vec<(u64, Owner)> = self
            .owners
            .iter()
            .filter(|(_, o)| ours(o.context) && !o.freeing)
            .map(|(at, o)| (*at, *o))
            .collect();
        let pinned: Vec<(usize, usize)> = match context {
            Some(id) => self.pinned.of_context(id),
            None => self.contexts.keys().flat_map(|id| self.pinned.of_context(*id)).collect(),
        };
        // After a fault the program rarely gets to free anything; its leaks say nothing then.
        if !faulted {
            for (at, owner) in leaks.iter().take(SHOWN) {
                let text =
                    format!("{} bytes of device memory at {at:#x} were not freed when {when}", owner.bytes);
                let function = if owner.pool.is_some() { "cuMemAllocAsync" } else { "cuMemAlloc_v2" };
                report::emit(&Report::error(Kind::Leak, function, text));
            }
            if leaks.len() > SHOWN {
                let text = format!("{} more allocations were not freed", leaks.len() - SHOWN);
                report::emit(&Report::error(Kind::Leak, "cuMemAlloc_v2", text));
            }
            for (at, bytes) in pinned.iter().take(SHOWN) {
                let text =
                    format!("{bytes} bytes of pinned host memory at {at:#x} were not freed when {when}");
                report::emit(&Report::error(Kind::Leak, "cuMemHostAlloc", text));
            }
        }
        if context.is_some() {
            for (at, _) in leaks {
                let _ = self.free_now(at, "cuCtxDestroy_v2");
            }
            for (at, _) in pinned {
                self.pinned.release(at);
            }
        }
    }

    /// The end of the program: leaks, work that nobody waited for, counters.
    fn finish(&mut self) {
        let faulted = self.contexts.values().any(|c| c.poison.is_some());
        let lost = self.queue.waiting().filter(|(_, t)| !matches!(t.op, Op::Free { .. })).count();
        if lost > 0 && !faulted {
            let text =
                format!("{lost} queued operations were lost: the program ended without waiting for them");
            report::emit(&Report::warning(Kind::Unfinished, "exit", text));
        }
        self.report_leaks(None, faulted, "the program ended");
        let alive = [
            ("contexts", self.contexts.len()),
            (
                "streams",
                self.streams.values().filter(|s| matches!(s.kind, StreamKind::Created { .. })).count(),
            ),
            ("events", self.events.len()),
            ("modules", self.modules.len()),
            ("graphs", self.graphs.len()),
            ("graph_execs", self.execs.len()),
            ("pools", self.pools.len() - 1),
            ("device_allocations", self.owners.values().filter(|o| !o.freeing).count()),
            ("pinned_allocations", self.pinned.len()),
        ];
        self.tally.alive_at_exit =
            alive.iter().filter(|(_, n)| *n > 0).map(|(k, n)| (k.to_string(), *n as u64)).collect();
        self.tally.peak_bytes = self.memory.peak();
        let (counts, errors, warnings) = report::totals();
        self.tally.reports = counts;
        if let Some(path) = &self.config.counters {
            let written = serde_json::to_vec_pretty(&self.tally)
                .map_err(std::io::Error::from)
                .and_then(|json| std::fs::write(path, json));
            if let Err(e) = written {
                eprintln!("monopath virtual GPU: cannot write {}: {e}", path.display());
            }
        }
        if errors + warnings > 0 {
            eprintln!("monopath virtual GPU: {errors} errors, {warnings} warnings");
        }
    }
}

/// A shared pointer to a kernel launch.
pub fn kernel_op(call: work::KernelCall) -> Op {
    Op::Kernel(Arc::new(call))
}
