//! Memory for tensors of the CPU, cut from large chunks.
//!
//! Every byte of a chunk is zeroed when the chunk is made, so stale contents are always initialised.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::Result;
use crate::pieces::{ArenaStats, Pieces, Rules};
use crate::tensor::DType;

/// Buffers start at multiples of this many bytes: a cache line, and the widest vector.
const ALIGN: usize = 64;
/// The smallest chunk.
const MIN_CHUNK: usize = 8 << 20;

/// What may be an element of a tensor: any bit pattern is a value.
pub trait Element: Copy + Send + Sync + sealed::Sealed + 'static {
    /// Its run-time type.
    const DTYPE: DType;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for i32 {}
    impl Sealed for u8 {}
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for u8 {
    const DTYPE: DType = DType::U8;
}

/// The allocator behind a device's tensors.
pub struct Arena(Arc<Mutex<State>>);

struct State {
    chunks: Vec<Chunk>,
    pieces: Pieces,
}

struct Chunk {
    raw: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a chunk is plain memory; access to its parts is handed out as exclusive buffers.
unsafe impl Send for Chunk {}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and every buffer holds the state that owns the chunk.
        unsafe { dealloc(self.raw.as_ptr(), self.layout) }
    }
}

impl Arena {
    pub(super) fn new(cap: usize) -> Self {
        let pieces = Pieces::new(Rules { align: ALIGN, chunk: MIN_CHUNK, cap });
        Self(Arc::new(Mutex::new(State { chunks: Vec::new(), pieces })))
    }

    /// The counters.
    pub fn stats(&self) -> ArenaStats {
        lock(&self.0).pieces.stats
    }

    /// Forgets the past peak: from now on it is counted from what is in use.
    pub fn reset_peak(&self) {
        lock(&self.0).pieces.reset_peak();
    }

    /// A buffer of at least `len` bytes with unspecified contents.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] beyond the cap, or if the system has no more.
    pub fn alloc(&self, len: usize) -> Result<Buffer> {
        let State { chunks, pieces } = &mut *lock(&self.0);
        let (start, len) = pieces.take(len, |size| chunk(chunks, size))?;
        Ok(Buffer(Arc::new(Owned { start, len, state: self.0.clone() })))
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({:?})", self.stats())
    }
}

/// A new chunk of `size` bytes: where it starts.
fn chunk(chunks: &mut Vec<Chunk>, size: usize) -> Option<usize> {
    // Over-allocated and aligned by hand: `alloc_zeroed` with a large alignment would touch
    // every page, while a plain one leaves untouched pages unbacked. Chunks are never merged:
    // between them lies at least the slack.
    let layout = Layout::from_size_align(size.checked_add(ALIGN)?, 16).ok()?;
    // SAFETY: the size is not zero.
    let raw = NonNull::new(unsafe { alloc_zeroed(layout) })?;
    chunks.push(Chunk { raw, layout });
    Some((raw.as_ptr().expose_provenance()).next_multiple_of(ALIGN))
}

/// Exclusive memory of an arena; goes back when the last clone is dropped.
#[derive(Clone)]
pub struct Buffer(Arc<Owned>);

struct Owned {
    start: usize,
    len: usize,
    state: Arc<Mutex<State>>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        lock(&self.state).pieces.give(self.start, self.len);
    }
}

impl Buffer {
    /// All elements.
    pub fn slice<T: Element>(&self) -> &[T] {
        let pointer = std::ptr::with_exposed_provenance::<T>(self.0.start);
        // SAFETY: the piece is initialised, aligned to 64 bytes, alive while `self` is, and every
        // bit pattern is a `T`. Nobody writes while it is shared: `slice_mut` needs the only owner.
        unsafe { std::slice::from_raw_parts(pointer, self.0.len / size_of::<T>()) }
    }

    /// All elements to be written, or `None` while the buffer is shared.
    pub fn slice_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        let owned = Arc::get_mut(&mut self.0)?;
        let pointer = std::ptr::with_exposed_provenance_mut::<T>(owned.start);
        // SAFETY: as in `slice`, and `get_mut` proved that nobody else holds the buffer.
        Some(unsafe { std::slice::from_raw_parts_mut(pointer, owned.len / size_of::<T>()) })
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no code panics while it holds the arena")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::rng::Rng;

    impl Arena {
        fn pieces(&self) -> usize {
            lock(&self.0).pieces.count()
        }
    }

    #[test]
    fn freed_memory_is_used_again() {
        let arena = Arena::new(usize::MAX);
        drop((arena.alloc(1 << 20).unwrap(), arena.alloc(3 << 20).unwrap()));
        let before = arena.stats();
        for _ in 0..10 {
            let _pair = (arena.alloc(3 << 20).unwrap(), arena.alloc(1 << 20).unwrap());
        }
        assert_eq!(arena.stats().reserved, before.reserved);
        assert_eq!(arena.stats().used, 0);
    }

    #[test]
    fn buffers_never_overlap() {
        let arena = Arena::new(usize::MAX);
        let mut draws = Rng::new(1, "arena").at(0, 0, 0);
        let mut held: Vec<(Buffer, f32)> = Vec::new();
        for i in 0..2_000 {
            if draws.below(3) == 0 && !held.is_empty() {
                held.swap_remove(draws.below(held.len() as u32) as usize);
            } else {
                let mut buffer = arena.alloc(4 * (1 + draws.below(5_000) as usize)).unwrap();
                buffer.slice_mut::<f32>().unwrap().fill(i as f32);
                held.push((buffer, i as f32));
            }
            if i % 100 == 0 {
                assert!(held.iter().all(|(b, v)| b.slice::<f32>().iter().all(|x| x == v)));
            }
        }
        drop(held);
        assert_eq!(arena.stats().used, 0);
        assert_eq!(arena.pieces(), arena.stats().system_calls);
    }

    #[test]
    fn the_cap_is_kept_and_named() {
        let arena = Arena::new(1_000);
        let held = arena.alloc(512).unwrap();
        let error = arena.alloc(512).err().unwrap();
        assert_eq!(error, Error::OutOfMemory { requested: 512, used: 512, cap: 1_000 });
        drop(held);
        assert!(arena.alloc(900).is_ok());
    }
}
