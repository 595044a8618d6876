//! What is queued, and what happens when it runs.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::code::Code;
use super::host::{PinnedTable, read_carefully};
use super::order::Stamp;
use super::report::{Kind, Report};
use crate::exec::{self, Options};
use crate::fault::FaultKind;
use crate::memory::{Footprint, Memory, MemoryError, PAGE_BYTES};
use crate::props::DeviceProps;
use crate::{Counters, ptx};

/// A kernel launch with its arguments.
#[derive(Debug, Clone)]
pub struct KernelCall {
    /// The module's PTX.
    pub ptx: Arc<ptx::Module>,
    /// Index of the kernel in it.
    pub index: usize,
    /// Handle of the module; a graph must not outlive it.
    pub module: u64,
    /// Blocks per axis (x, y, z).
    pub grid: [u32; 3],
    /// Threads per axis (x, y, z).
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: u32,
    /// Dynamic shared memory that the program opted in to, in bytes.
    pub optin: u32,
    /// Blocks may wait for each other.
    pub cooperative: bool,
    /// The parameter buffer.
    pub params: Vec<u8>,
}

impl KernelCall {
    /// The kernel.
    pub fn kernel(&self) -> &ptx::Kernel {
        &self.ptx.kernels()[self.index]
    }

    /// The launch as the interpreter takes it.
    pub fn launch(&self, seed: u64) -> exec::Launch<'_> {
        exec::Launch {
            grid: self.grid,
            block: self.block,
            dynamic_shared: self.dynamic_shared,
            params: &self.params,
            dynamic_shared_optin: self.optin,
            cooperative: self.cooperative,
            seed,
        }
    }
}

/// Where a copy to the device takes its bytes.
#[derive(Debug, Clone)]
pub enum HostBytes {
    /// Taken when the program asked: pageable memory.
    Taken(Arc<[u8]>),
    /// Read when the copy runs: pinned memory, and any memory in a graph.
    Later {
        /// Host address.
        address: usize,
        /// Length in bytes.
        bytes: usize,
    },
}

/// A matrix operation of a library stand-in.
pub trait Math: fmt::Debug + Send + Sync {
    /// Computes, and notes what it touched.
    ///
    /// # Errors
    /// What was wrong with which operand.
    fn run(&self, memory: &Memory, touched: &mut Footprint) -> Result<(), MathError>;

    /// Multiply-adds that it takes.
    fn multiply_adds(&self) -> u64;
}

/// An operand of a matrix operation that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("operand {operand}: {error}")]
pub struct MathError {
    /// Name of the operand and what was touched.
    pub operand: String,
    /// What is wrong with it.
    pub error: MemoryError,
}

/// An operation of a stream.
#[derive(Debug, Clone)]
pub enum Op {
    /// A kernel.
    Kernel(Arc<KernelCall>),
    /// Host to device.
    In {
        /// Device address.
        to: u64,
        /// The bytes.
        from: HostBytes,
    },
    /// Device to host.
    Out {
        /// Host address.
        to: usize,
        /// Device address.
        from: u64,
        /// Length in bytes.
        bytes: usize,
    },
    /// Within the device.
    Copy {
        /// Destination.
        to: u64,
        /// Source.
        from: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// Fill with a pattern.
    Fill {
        /// Device address.
        at: u64,
        /// One element.
        pattern: Vec<u8>,
        /// Length in bytes.
        bytes: u64,
    },
    /// Free of a stream-ordered allocation.
    Free {
        /// Device address.
        at: u64,
    },
    /// A function of the host.
    Call {
        /// Address of a `void (*)(void *)`.
        function: usize,
        /// Its argument.
        data: usize,
    },
    /// A matrix operation.
    Math(Arc<dyn Math>),
}

/// An operation in the queue.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its context.
    pub context: u64,
    /// The driver or library function that asked for it.
    pub function: &'static str,
    /// What to do.
    pub op: Op,
    /// Its place in the order; none while it is part of a graph.
    pub stamp: Option<Stamp>,
}

impl Task {
    /// What it is, for messages.
    pub fn label(&self, number: u64) -> Arc<str> {
        match &self.op {
            Op::Kernel(k) => format!("kernel `{}` (operation {number})", k.kernel().name()).into(),
            _ => format!("{} (operation {number})", self.function).into(),
        }
    }
}

/// Bytes that an operation touched.
#[derive(Debug, Default)]
pub struct Trace {
    /// In device memory.
    pub device: Footprint,
    /// In host memory.
    pub host: Footprint,
}

/// A failed operation: the code that its context has from now on, and the report.
pub struct Failure {
    /// Result code.
    pub code: Code,
    /// What happened.
    pub report: Report,
}

/// What an operation runs on.
pub struct Machine<'a> {
    /// Device memory.
    pub memory: &'a Memory,
    /// Device limits.
    pub props: &'a DeviceProps,
    /// How kernels run.
    pub options: &'a Options,
    /// Pinned host memory.
    pub pinned: &'a PinnedTable,
    /// Seed of the orders.
    pub seed: u64,
}

thread_local! {
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

/// True while this thread runs a host function for the device, which must not call the driver.
pub fn in_host_function() -> bool {
    IN_HOST_FUNCTION.get()
}

/// Calls a host function in a thread of its own, as the driver does.
///
/// # Errors
/// The system gives no thread.
pub fn call_host(function: usize, data: usize) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("vgpu-host-function".into()).spawn(move || {
        IN_HOST_FUNCTION.set(true);
        // SAFETY: the program gave the address as a host function of this signature, with its argument.
        let f: extern "C" fn(*mut c_void) = unsafe { std::mem::transmute(function) };
        f(data as *mut c_void);
    })
}

/// The result code of a broken rule.
pub fn code_of(kind: FaultKind) -> Code {
    match kind {
        FaultKind::OutOfBounds | FaultKind::UseAfterFree | FaultKind::ReadOnlyWrite => Code::IllegalAddress,
        FaultKind::Misaligned => Code::MisalignedAddress,
        FaultKind::UninitialisedRead
        | FaultKind::SharedRace
        | FaultKind::GlobalRace
        | FaultKind::DivergentBarrier
        | FaultKind::SyncMask
        | FaultKind::Trap => Code::LaunchFailed,
        FaultKind::Assert => Code::Assert,
        FaultKind::LaunchLimit => Code::InvalidValue,
        FaultKind::Deadlock | FaultKind::Timeout => Code::LaunchTimeout,
        FaultKind::Unsupported => Code::NotSupported,
    }
}

/// The kind of report for a memory error.
pub fn kind_of(error: &MemoryError) -> Kind {
    match error {
        MemoryError::OutOfMemory { .. } => Kind::OutOfMemory,
        MemoryError::InvalidFree { .. } => Kind::InvalidFree,
        MemoryError::DoubleFree { .. } => Kind::DoubleFree,
        other => Kind::from(FaultKind::from(other)),
    }
}

fn memory_failure(function: &str, error: &MemoryError, text: String) -> Box<Failure> {
    Box::new(Failure { code: code_of(error.into()), report: Report::error(kind_of(error), function, text) })
}

impl Machine<'_> {
    /// Runs an operation other than a free or a host function. A kernel gives its counters.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn run(&self, task: &Task, trace: Option<&mut Trace>) -> Result<Option<Counters>, Box<Failure>> {
        let trace_kernel = trace.is_some();
        let mut nowhere = Trace::default();
        let trace = trace.unwrap_or(&mut nowhere);
        let function = task.function;
        let failed = |e: MemoryError| memory_failure(function, &e, e.to_string());
        match &task.op {
            Op::Kernel(call) => {
                let launch = call.launch(self.seed);
                let touched = trace_kernel.then_some(&mut trace.device);
                let (kernel, memory) = (call.kernel(), self.memory);
                let done = exec::launch_traced(kernel, &launch, memory, self.props, self.options, touched);
                return done.map(Some).map_err(|fault| {
                    Box::new(Failure {
                        code: code_of(fault.kind),
                        report: Report::of_fault(function, &fault),
                    })
                });
            }
            Op::In { to, from: HostBytes::Taken(bytes) } => {
                self.copy_in(*to, bytes).map_err(failed)?;
                trace.device.writes(*to, bytes.len() as u64);
            }
            Op::In { to, from: HostBytes::Later { address, bytes } } => {
                let bytes = self.read_host(*address, *bytes).map_err(|text| {
                    let report = Report::error(Kind::HostMemory, function, text);
                    Box::new(Failure { code: Code::IllegalAddress, report })
                })?;
                self.copy_in(*to, &bytes).map_err(failed)?;
                trace.device.writes(*to, bytes.len() as u64);
                trace.host.reads(*address as u64, bytes.len() as u64);
            }
            Op::Out { to, from, bytes } => {
                self.copy_out(function, *to, *from, *bytes)?;
                trace.device.reads(*from, *bytes as u64);
                trace.host.writes(*to as u64, *bytes as u64);
            }
            Op::Copy { to, from, bytes } => {
                self.memory.copy(*to, *from, *bytes).map_err(failed)?;
                trace.device.reads(*from, *bytes);
                trace.device.writes(*to, *bytes);
            }
            Op::Fill { at, pattern, bytes } => {
                self.memory.fill(*at, pattern, *bytes).map_err(failed)?;
                trace.device.writes(*at, *bytes);
            }
            Op::Free { .. } => unreachable!("frees keep accounts and run in the device"),
            Op::Call { .. } => unreachable!("host functions run in a thread of their own"),
            Op::Math(math) => {
                let done = math.run(self.memory, &mut trace.device);
                done.map_err(|e| memory_failure(function, &e.error, e.to_string()))?;
            }
        }
        Ok(None)
    }

    /// Writes from the host, which may write constants too.
    fn copy_in(&self, to: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        match self.memory.write(to, bytes) {
            Err(MemoryError::ReadOnly { .. }) => {
                self.memory.check_exists(to, bytes.len() as u64)?;
                let mut done = 0;
                while let Some((page, at)) = self.memory.page(to + done as u64).filter(|_| done < bytes.len())
                {
                    let here = (bytes.len() - done).min(PAGE_BYTES - at);
                    page.copy_in(at, &bytes[done..done + here]);
                    done += here;
                }
                self.memory.make_read_only(to, bytes.len() as u64);
                Ok(())
            }
            other => other,
        }
    }

    fn read_host(&self, address: usize, bytes: usize) -> Result<Vec<u8>, String> {
        if self.pinned.covers(address, bytes) {
            // SAFETY: the table of pinned memory covers the range.
            return Ok(unsafe { std::slice::from_raw_parts(address as *const u8, bytes) }.to_vec());
        }
        read_carefully(address, bytes).map_err(|e| e.to_string())
    }

    fn copy_out(&self, function: &str, to: usize, from: u64, bytes: usize) -> Result<(), Box<Failure>> {
        let got = match self.memory.read(from, bytes) {
            Err(MemoryError::Uninitialised { .. }) if !self.options.checks => self.read_anyway(from, bytes),
            other => other.map_err(|e| match e {
                MemoryError::Uninitialised { .. } => {
                    let text = format!("bytes copied to the host were never written: {e}");
                    let report = Report::error(Kind::UnwrittenOutput, function, text);
                    Box::new(Failure { code: Code::LaunchFailed, report })
                }
                e => memory_failure(function, &e, e.to_string()),
            })?,
        };
        // SAFETY: the program gave `to` as room for `bytes` bytes, to stay so until it waited for the copy.
        unsafe { std::ptr::copy_nonoverlapping(got.as_ptr(), to as *mut u8, bytes) };
        Ok(())
    }

    /// Bytes of existing memory, written or not.
    fn read_anyway(&self, from: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        let mut done = 0;
        while done < bytes {
            let Some((page, at)) = self.memory.page(from + done as u64) else { break };
            let here = (bytes - done).min(PAGE_BYTES - at);
            page.copy_out(at, &mut out[done..done + here]);
            done += here;
        }
        out
    }
}
