//! Memory for tensors of a GPU, cut from large chunks.
//!
//! A freed piece is used again at once, while kernels may still read it: all work goes to one stream, so whoever gets
//! the piece comes after them.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::driver::{CudaSlice, CudaStream};
use kernels::{Input, Output, Write};

use super::Cuda;
use crate::error::Result;
use crate::pieces::{ArenaStats, Pieces, Rules};
use crate::tensor::DType;

/// As allocations of the driver are.
pub(super) const ALIGN: usize = 256;

/// The smallest chunk.
const MIN_CHUNK: usize = 32 << 20;

/// The allocator behind a GPU's tensors.
pub struct Arena(Mutex<State>);

struct State {
    chunks: Vec<CudaSlice<u8>>,
    pieces: Pieces,
}

impl Arena {
    pub(super) fn new(cap: usize) -> Self {
        let pieces = Pieces::new(Rules { align: ALIGN, chunk: MIN_CHUNK, cap });
        Self(Mutex::new(State { chunks: Vec::new(), pieces }))
    }

    /// The counters.
    pub fn stats(&self) -> ArenaStats {
        self.lock().pieces.stats
    }

    /// Forgets the past peak: from now on it is counted from what is in use.
    pub fn reset_peak(&self) {
        self.lock().pieces.reset_peak();
    }

    /// Start and length in bytes of a piece with unspecified contents.
    fn take(&self, stream: &Arc<CudaStream>, len: usize) -> Result<(u64, usize)> {
        let State { chunks, pieces } = &mut *self.lock();
        let (start, len) = pieces.take(len, |size| {
            // Between chunks lies slack, so that none is merged with its neighbour.
            // SAFETY: nobody reads what nobody wrote: whoever asks for a tensor writes all of it.
            let chunk = unsafe { stream.alloc::<u8>(size.checked_add(ALIGN)?) }.ok()?;
            let start = address(&chunk, stream);
            chunks.push(chunk);
            Some(start as usize)
        })?;
        Ok((start as u64, len))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds the arena")
    }
}

fn address(chunk: &CudaSlice<u8>, stream: &CudaStream) -> u64 {
    use cudarc::driver::DevicePtr;
    chunk.device_ptr(stream).0
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({:?})", self.stats())
    }
}

/// Memory of a GPU; goes back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    cuda: Cuda,
    start: u64,
    len: usize,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.cuda.arena().lock().pieces.give(self.start as usize, self.len);
    }
}

impl Buffer {
    pub(crate) fn new(cuda: &Cuda, len: usize) -> Result<Self> {
        let (start, len) = cuda.arena().take(cuda.stream(), len)?;
        Ok(Self(Arc::new(Owned { cuda: cuda.clone(), start, len })))
    }

    /// Where it lies.
    pub fn cuda(&self) -> &Cuda {
        &self.0.cuda
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len
    }

    /// Whether nobody else holds it.
    pub(crate) fn is_own(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// `len` elements from element `offset` on.
    pub(crate) fn span(&self, offset: usize, len: usize, dtype: DType) -> Span<'_> {
        let size = dtype.size();
        assert!((offset + len) * size <= self.0.len, "views lie within their buffer");
        Span {
            address: self.0.start + (offset * size) as u64,
            len,
            dtype: kernel_dtype(dtype),
            life: PhantomData,
        }
    }
}

/// Elements in a GPU's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    pub(super) address: u64,
    pub(super) len: usize,
    dtype: kernels::DType,
    life: PhantomData<&'a ()>,
}

impl<'a> Span<'a> {
    pub(super) fn bytes(&self) -> usize {
        self.len * self.dtype.size()
    }

    /// The same bits as f32.
    pub(super) fn floats(self) -> Self {
        debug_assert_eq!(self.dtype.size(), 4);
        Self { dtype: kernels::DType::F32, ..self }
    }

    /// The same bytes as half as many f64.
    pub(super) fn doubled(self) -> Self {
        debug_assert_eq!((self.dtype.size(), self.len % 2), (4, 0));
        Self { dtype: kernels::DType::F64, len: self.len / 2, ..self }
    }

    /// As a kernel reads them.
    pub(crate) fn input(&self) -> Input<'a> {
        // SAFETY: the elements lie within a buffer that lives as long as `'a`; all launches go to one stream.
        unsafe { Input::at(self.address, self.len, self.dtype) }
    }

    /// As a kernel writes them: for a caller who knows that nobody else does.
    fn output(&self) -> Output<'a> {
        // SAFETY: as above, and the types that hand out outputs are exclusive: an own buffer or a slot.
        unsafe { Output::at(self.address, self.len, self.dtype) }
    }
}

fn kernel_dtype(dtype: DType) -> kernels::DType {
    match dtype {
        DType::F32 => kernels::DType::F32,
        DType::I32 => kernels::DType::I32,
        DType::U8 => kernels::DType::U8,
    }
}

/// Where a gradient goes: exclusive memory of a GPU, f32.
#[derive(Debug)]
pub struct Slot<'a> {
    span: Span<'a>,
    /// Nothing lies there yet: the gradient is stored and not added.
    fresh: bool,
}

impl<'a> Slot<'a> {
    /// The slot over `span`, which nobody else reads or writes as long as it lives.
    pub(crate) fn new(span: Span<'a>, fresh: bool) -> Self {
        Self { span, fresh }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.span.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing lies there yet: the gradient is then stored, not added.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(super) fn span(&self) -> Span<'_> {
        self.span
    }

    /// As a kernel writes it that stores where [`Slot::is_fresh`] says so and adds otherwise.
    pub fn output(&mut self) -> Output<'_> {
        self.span.output()
    }

    /// As a kernel writes it that can do both, and which of them it is to do; something lies there then.
    pub fn open(&mut self) -> (Output<'_>, Write) {
        let write = if self.fresh { Write::Store } else { Write::Add };
        self.fresh = false;
        (self.span.output(), write)
    }

    /// Something lies there now.
    pub(super) fn filled(&mut self) {
        self.fresh = false;
    }
}

/// As a kernel writes `span`, which the caller alone holds.
pub(crate) fn exclusive<'a>(span: Span<'a>) -> Output<'a> {
    span.output()
}
