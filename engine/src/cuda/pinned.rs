//! Pinned memory of the host, which a GPU reads and writes by itself: a copy through it makes nobody wait.
//!
//! A piece goes back with an event behind its last copy and is used again once that is over.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};

use crate::cpu::Element;

/// Pieces of one size that may be on their way at once: who needs another waits for the oldest.
const MOST: usize = 8;

/// The smallest piece in bytes.
const SMALLEST: usize = 4 << 10;

/// From here on sizes are multiples of this and no powers of two.
const LARGE: usize = 1 << 20;

/// A piece of pinned memory.
#[derive(Debug)]
pub(super) struct Pinned {
    start: NonNull<u8>,
    len: usize,
    /// Behind the last copy.
    pub done: CudaEvent,
}

// SAFETY: plain memory that this value alone owns; the driver may be told of it from any thread.
unsafe impl Send for Pinned {}
// SAFETY: as above; through a shared reference it is only read.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// A piece of at least `len` bytes.
    pub fn new(context: &Arc<CudaContext>, len: usize) -> Result<Self, DriverError> {
        let len = size(len);
        let done = context.new_event(None)?;
        // SAFETY: the context is bound since the event was made; the memory is freed once, in `drop`.
        let start = unsafe { result::malloc_host(len, 0) }?;
        let start = NonNull::new(start.cast()).expect("the driver gives memory or an error");
        Ok(Self { start, len, done })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Writes elements from byte `at` on; no copy may be on its way.
    pub fn write<T: Element>(&mut self, at: usize, data: &[T]) {
        assert!(at + size_of_val(data) <= self.len, "whoever asked for the piece knew what goes there");
        // SAFETY: so many bytes lie there, and they are this value's own.
        unsafe { self.start.add(at).copy_from_nonoverlapping(NonNull::from(data).cast(), size_of_val(data)) };
    }

    /// Reads so many elements, which a copy that is over has written.
    pub fn read<T: Element + Default>(&self, len: usize) -> Vec<T> {
        let mut data = vec![T::default(); len];
        assert!(size_of_val(&data[..]) <= self.len, "whoever asked for the piece knew what comes");
        // SAFETY: so many bytes lie there, and any bits are an element.
        unsafe {
            self.start.copy_to_nonoverlapping(NonNull::from(&mut data[..]).cast(), size_of_val(&data[..]));
        }
        data
    }

    /// Sends the first `len` bytes to `address`.
    ///
    /// # Safety
    /// So many bytes lie there, for whatever goes to `stream` alone, until the copy is over.
    pub unsafe fn send(&self, address: u64, len: usize, stream: &CudaStream) -> Result<(), DriverError> {
        assert!(len <= self.len, "whoever asked for the piece knew what goes there");
        // SAFETY: the bytes are this value's own and stay until the event behind the copy has happened.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) };
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_htod_async(address, bytes, stream.cu_stream()) }?;
        self.done.record(stream)
    }

    /// Fetches `len` bytes from `address`.
    ///
    /// # Safety
    /// So many bytes lie there until the copy is over.
    pub unsafe fn fetch(&mut self, address: u64, len: usize, stream: &CudaStream) -> Result<(), DriverError> {
        assert!(len <= self.len, "whoever asked for the piece knew what comes");
        // SAFETY: the bytes are this value's own and stay until the event behind the copy has happened.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), len) };
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtoh_async(bytes, address, stream.cu_stream()) }?;
        self.done.record(stream)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A driver that fails here has said so elsewhere.
        let _ = self.done.synchronize();
        // SAFETY: allocated by `malloc_host`, and no copy is on its way.
        let _ = unsafe { result::free_host(self.start.as_ptr().cast()) };
    }
}

/// Bytes of a piece for `len`: few sizes, so that pieces fit again.
fn size(len: usize) -> usize {
    match len {
        0..=LARGE => len.next_power_of_two().max(SMALLEST),
        _ => len.next_multiple_of(LARGE),
    }
}

/// Pieces that wait to be used again, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Pinned>>);

impl Pool {
    /// A piece of at least `len` bytes without a copy on its way, and whether that had to be waited for.
    pub fn take(&self, context: &Arc<CudaContext>, len: usize) -> Result<(Pinned, bool), DriverError> {
        let mut pieces = self.lock();
        let fits = |piece: &Pinned| piece.len == size(len);
        if let Some(free) = pieces.iter().position(|piece| fits(piece) && piece.done.is_complete()) {
            return Ok((pieces.remove(free), false));
        }
        if pieces.iter().filter(|piece| fits(piece)).count() < MOST {
            return Ok((Pinned::new(context, len)?, false));
        }
        let oldest = pieces.iter().position(fits).expect("there are some");
        let oldest = pieces.remove(oldest);
        oldest.done.synchronize()?;
        Ok((oldest, true))
    }

    /// Takes a piece back, whose copy may be on its way.
    pub fn give(&self, piece: Pinned) {
        self.lock().push(piece);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pinned>> {
        self.0.lock().expect("no code panics while it holds the pool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_few_sizes() {
        assert_eq!([0, 1, 4096, 4097, LARGE].map(size), [4096, 4096, 4096, 8192, LARGE]);
        assert_eq!([LARGE + 1, 3 * LARGE].map(size), [2 * LARGE, 3 * LARGE]);
    }
}
