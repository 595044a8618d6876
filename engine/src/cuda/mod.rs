//! CUDA: one GPU with one stream, its memory and its kernels.
//!
//! Everything is ordered by the one stream: a launch neither waits for anything nor is waited for. Copies go through
//! pinned memory, so only [`Tensor::to_host`](crate::Tensor::to_host) and [`Cuda::synchronize`] make the caller wait for all
//! of it, and [`Late`](crate::tensor::Late) for what was sent before it was asked for.

mod feed;
mod memory;
pub(crate) mod norm;
mod optimizer;
mod pinned;
mod prepared;
mod probe;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::{CudaContext, CudaStream, DriverError, sys};
use kernels::batch_norm::SumPartials;
use kernels::boxes::{self, Box4, Move};
use kernels::elementwise::Scale;
use kernels::{Input, KernelError, Output, Write};

pub(crate) use feed::Feed;
pub use memory::{Arena, Buffer, Slot};
pub(crate) use memory::{Span, exclusive};
pub(crate) use optimizer::Flat;
pub use probe::Unusable;

use self::pinned::Pinned;
use crate::cpu::Element;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// A GPU; cloning shares it.
#[derive(Clone)]
pub struct Cuda(Arc<Inner>);

struct Inner {
    name: String,
    model: String,
    capability: (i32, i32),
    free: usize,
    kernels: kernels::Device,
    prepared: prepared::Prepared,
    // The memory goes back before the stream it was asked for on.
    arena: Arena,
    pinned: pinned::Pool,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    work: Work,
}

#[derive(Debug, Default)]
struct Work {
    launches: AtomicU64,
    copies_in: AtomicU64,
    copies_out: AtomicU64,
    fills: AtomicU64,
    synchronisations: AtomicU64,
    waits: AtomicU64,
}

/// What was sent to a GPU so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkStats {
    /// Kernels.
    pub launches: u64,
    /// Copies from the host.
    pub copies_in: u64,
    /// Copies to the host.
    pub copies_out: u64,
    /// Fills.
    pub fills: u64,
    /// How often the host waited for all of it.
    pub synchronisations: u64,
    /// How often it waited for one copy, whatever was sent after it.
    pub waits: u64,
    /// Launches that were prepared: constant once every shape has been seen.
    pub prepared: usize,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Cuda {
    /// The GPU `ordinal` with at most `cap` bytes of tensor memory.
    ///
    /// # Errors
    /// [`Error::Unusable`] says why the GPU cannot be used and what to do.
    pub fn new(ordinal: usize, cap: usize) -> Result<Self> {
        let name = format!("cuda:{ordinal}");
        let unusable = |reason| Error::Unusable { device: name.clone(), reason };
        let found = probe::probe(ordinal).map_err(unusable)?;
        let failed = |what| move |e: DriverError| unusable(Unusable::Driver { what, reason: e.to_string() });
        // SAFETY: no buffer is used on two streams, so no events are needed between them.
        unsafe { found.context.disable_event_tracking() };
        let stream = found.context.new_stream().map_err(failed("make a stream"))?;
        Ok(Self(Arc::new(Inner {
            kernels: kernels::Device::new(found.context.clone()),
            prepared: Default::default(),
            // So that running out names what there is.
            arena: Arena::new(cap.min(found.free)),
            pinned: Default::default(),
            stream,
            context: found.context,
            work: Work::default(),
            model: found.model,
            capability: found.capability,
            free: found.free,
            name,
        })))
    }

    /// `cuda:0`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the driver calls it.
    pub fn model(&self) -> &str {
        &self.0.model
    }

    /// Its compute capability, major and minor.
    pub fn capability(&self) -> (i32, i32) {
        self.0.capability
    }

    /// Bytes that were free when it was opened.
    pub fn free(&self) -> usize {
        self.0.free
    }

    /// Whether it is an interpreter, whose times mean nothing.
    pub fn is_virtual(&self) -> bool {
        self.0.model.contains("virtual")
    }

    /// The memory.
    pub fn arena(&self) -> &Arena {
        &self.0.arena
    }

    /// The stream that all work goes to.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.0.stream
    }

    /// What was sent so far.
    pub fn work(&self) -> WorkStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let work = &self.0.work;
        WorkStats {
            launches: of(&work.launches),
            copies_in: of(&work.copies_in),
            copies_out: of(&work.copies_out),
            fills: of(&work.fills),
            synchronisations: of(&work.synchronisations),
            waits: of(&work.waits),
            prepared: self.0.prepared.len(),
        }
    }

    /// Waits for all work sent so far.
    ///
    /// # Errors
    /// [`Error::Driver`], also for what an earlier launch did wrong.
    pub fn synchronize(&self) -> Result<()> {
        count(&self.0.work.synchronisations);
        self.0.stream.synchronize().map_err(|e| self.failed("wait for", &e))
    }

    /// The error of an op that has no kernels yet.
    pub(crate) fn lacks(&self, op: &'static str) -> Error {
        Error::NotOnDevice { op, device: self.name().to_owned() }
    }

    /// The launch made by `make`, which is called once per `key` and type of launch.
    pub(crate) fn prepare<K, T>(
        &self,
        key: K,
        make: impl FnOnce(&kernels::Device) -> kernels::Result<T>,
    ) -> Result<Arc<T>>
    where
        K: Hash + Eq + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        self.0.prepared.get(key, || make(&self.0.kernels)).map_err(|e| self.refused(e))
    }

    /// Sends one kernel.
    pub(crate) fn launch(&self, send: impl FnOnce(&CudaStream) -> kernels::Result<()>) -> Result<()> {
        count(&self.0.work.launches);
        send(&self.0.stream).map_err(|e| self.refused(e))
    }

    /// Has a kernel that stores (and never adds) `len` elements write a gradient; one that nobody wants is dropped.
    pub(crate) fn store_or_drop(
        &self,
        slot: Option<&mut Slot<'_>>,
        len: usize,
        send: impl FnOnce(Output<'_>) -> Result<()>,
    ) -> Result<()> {
        match slot {
            Some(slot) if slot.is_fresh() => {
                send(slot.output())?;
                slot.filled();
                Ok(())
            }
            wanted => {
                let mut own = Tensor::stale(self, [len], DType::F32)?;
                send(own.output()?)?;
                match wanted {
                    Some(slot) => self.give(&own, slot),
                    None => Ok(()),
                }
            }
        }
    }

    /// Adds the sum of `parts [partials, len]` to a gradient.
    pub(crate) fn sum(&self, partials: usize, parts: &Tensor, slot: &mut Slot<'_>) -> Result<()> {
        let len = slot.len();
        let op = self.prepare((partials, len), |d| SumPartials::new(d, partials, len))?;
        let parts = parts.input()?;
        let to = self.added(slot)?;
        self.launch(|stream| op.launch(stream, parts, to))
    }

    /// Stores `x` into a fresh slot, or adds it.
    pub(crate) fn give(&self, x: &Tensor, slot: &mut Slot<'_>) -> Result<()> {
        self.scale(1.0, x, slot)
    }

    /// Stores `factor * x` into a fresh slot, or adds it.
    pub(crate) fn scale(&self, factor: f32, x: &Tensor, slot: &mut Slot<'_>) -> Result<()> {
        let (len, f32) = (slot.len(), kernels::DType::F32);
        let op = self.prepare(len, |d| Scale::new(d, f32, f32, len))?;
        let (to, write) = slot.open();
        let from = x.input()?;
        self.launch(|stream| op.launch(stream, factor, from, to, write))
    }

    /// Carries a box from one array to another.
    pub(crate) fn carry(&self, b: Box4, from: Input<'_>, to: Output<'_>, write: Write) -> Result<()> {
        let place = |p: boxes::Place| (p.offset, p.stride);
        let op =
            self.prepare((b.len, place(b.from), place(b.to)), |d| Move::new(d, kernels::DType::F32, b))?;
        self.launch(|stream| op.launch(stream, from, to, write))
    }

    /// The slot for a kernel that adds (and never stores): zeroed first if nothing lies there.
    pub(crate) fn added<'s>(&self, slot: &'s mut Slot<'_>) -> Result<Output<'s>> {
        if slot.is_fresh() {
            self.fill(slot.span(), 0)?;
            slot.filled();
        }
        Ok(slot.output())
    }

    pub(crate) fn upload<T: Element>(&self, data: &[T], to: Span<'_>) -> Result<()> {
        count(&self.0.work.copies_in);
        assert!(size_of_val(data) <= to.bytes(), "the caller compared the lengths");
        let mut host = self.pinned(size_of_val(data))?;
        host.write(0, data);
        // SAFETY: the span holds as many bytes.
        unsafe { host.send(to.address, size_of_val(data), &self.0.stream) }
            .map_err(|e| self.failed("copy to", &e))?;
        self.0.pinned.give(host);
        Ok(())
    }

    pub(crate) fn download<T: Element + Default>(&self, from: Span<'_>) -> Result<Vec<T>> {
        let coming = self.fetch(from)?;
        self.synchronize()?;
        Ok(coming.take())
    }

    /// Sends a copy of `from` to the host.
    pub(crate) fn fetch(&self, from: Span<'_>) -> Result<Coming> {
        count(&self.0.work.copies_out);
        let mut host = self.pinned(from.bytes())?;
        // SAFETY: the span holds as many bytes, and whoever gets them next comes after the copy on the same stream.
        unsafe { host.fetch(from.address, from.bytes(), &self.0.stream) }
            .map_err(|e| self.failed("copy from", &e))?;
        Ok(Coming { cuda: self.clone(), host: Some(host), len: from.len })
    }

    fn pinned(&self, len: usize) -> Result<Pinned> {
        self.bind()?;
        let (piece, waited) = self
            .0
            .pinned
            .take(&self.0.context, len)
            .map_err(|e| self.failed("find pinned memory for", &e))?;
        if waited {
            count(&self.0.work.waits);
        }
        Ok(piece)
    }

    /// Sets every 32-bit element of `to`.
    pub(crate) fn fill(&self, to: Span<'_>, bits: u32) -> Result<()> {
        self.bind()?;
        count(&self.0.work.fills);
        // SAFETY: the span holds as many words.
        unsafe { sys::cuMemsetD32Async(to.address, bits, to.bytes() / 4, self.0.stream.cu_stream()) }
            .result()
            .map_err(|e| self.failed("fill", &e))
    }

    /// The error of an op that has kernels, but not with this.
    pub(crate) fn no_kernel(
        &self,
        op: &'static str,
        what: &'static str,
        value: usize,
        expected: &'static str,
    ) -> Error {
        Error::NoKernel { op, device: self.name().to_owned(), what, value, expected }
    }

    fn bind(&self) -> Result<()> {
        self.0.context.bind_to_thread().map_err(|e| self.failed("use", &e))
    }

    fn failed(&self, what: &'static str, error: &DriverError) -> Error {
        Error::Driver { device: self.name().to_owned(), what, reason: error.to_string() }
    }

    fn refused(&self, error: KernelError) -> Error {
        match error {
            KernelError::Shape { op, what, value, expected } => self.no_kernel(op, what, value, expected),
            other => Error::Kernel { device: self.name().to_owned(), reason: other.to_string() },
        }
    }
}

/// Elements on their way to the host.
pub(crate) struct Coming {
    cuda: Cuda,
    /// There until it is dropped.
    host: Option<Pinned>,
    len: usize,
}

impl Coming {
    /// The elements, once they are there.
    pub fn wait<T: Element + Default>(self) -> Result<Vec<T>> {
        count(&self.cuda.0.work.waits);
        self.host().done.synchronize().map_err(|e| self.cuda.failed("copy from", &e))?;
        Ok(self.take())
    }

    /// The elements, which are there.
    fn take<T: Element + Default>(self) -> Vec<T> {
        self.host().read(self.len)
    }

    fn host(&self) -> &Pinned {
        self.host.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if let Some(host) = self.host.take() {
            self.cuda.0.pinned.give(host);
        }
    }
}

impl fmt::Debug for Coming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coming({} elements from {})", self.len, self.cuda.name())
    }
}

/// What the passes of a convolution leave of its output's statistics, to be joined.
pub(crate) struct Partials {
    /// `[partials, c, 2]`: mean and sum of squared deviations.
    pub moments: Tensor,
    /// `[partials]`: values behind each.
    pub counts: Tensor,
}

impl Partials {
    pub fn new(cuda: &Cuda, partials: usize, c: usize) -> Result<Self> {
        Ok(Self {
            moments: Tensor::stale(cuda, [partials, c, 2], DType::F32)?,
            counts: Tensor::stale(cuda, [partials], DType::F32)?,
        })
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({}, {})", self.0.name, self.0.model)
    }
}
