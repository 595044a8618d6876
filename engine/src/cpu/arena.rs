//! Memory for tensors: large chunks cut by best fit, so that a training loop asks the system for
//! nothing once its largest path has been seen.
//!
//! Every byte of a chunk is zeroed when the chunk is made, so stale contents are always initialised.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::{Error, Result};
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

/// Counters of an arena, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Taken from the system so far: constant after warm-up.
    pub reserved: usize,
    /// In tensors now.
    pub used: usize,
    /// The most that was ever in tensors.
    pub peak: usize,
    /// How often the system was asked.
    pub system_calls: usize,
}

/// The allocator behind a device's tensors.
pub struct Arena {
    state: Arc<Mutex<State>>,
    cap: usize,
}

struct State {
    chunks: Vec<Chunk>,
    /// Free pieces in address order; neighbours are merged.
    free: Vec<Piece>,
    stats: ArenaStats,
}

#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    len: usize,
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
        let state = State { chunks: Vec::new(), free: Vec::with_capacity(256), stats: ArenaStats::default() };
        Self { state: Arc::new(Mutex::new(state)), cap }
    }

    /// The counters.
    pub fn stats(&self) -> ArenaStats {
        lock(&self.state).stats
    }

    /// Forgets the past peak: from now on it is counted from what is in use.
    pub fn reset_peak(&self) {
        let mut state = lock(&self.state);
        state.stats.peak = state.stats.used;
    }

    /// A buffer of at least `len` bytes with unspecified contents.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] beyond the cap, or if the system has no more.
    pub fn alloc(&self, len: usize) -> Result<Buffer> {
        let len = len.max(1).checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX);
        let mut state = lock(&self.state);
        let used = state.stats.used;
        let refusal = Error::OutOfMemory { requested: len, used, cap: self.cap };
        if used.checked_add(len).is_none_or(|total| total > self.cap) {
            return Err(refusal);
        }
        let start = match state.take(len) {
            Some(start) => start,
            None => {
                state.grow(len).ok_or(refusal)?;
                state.take(len).expect("a new chunk holds the request")
            }
        };
        state.stats.used += len;
        state.stats.peak = state.stats.peak.max(state.stats.used);
        drop(state);
        Ok(Buffer(Arc::new(Owned { start, len, state: self.state.clone() })))
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({:?})", self.stats())
    }
}

impl State {
    /// Best fit: the smallest free piece that holds `len`, the lowest among equals.
    fn take(&mut self, len: usize) -> Option<usize> {
        let (index, _) = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, p)| p.len >= len)
            .min_by_key(|(_, p)| (p.len, p.start))?;
        let piece = self.free[index];
        if piece.len == len {
            self.free.remove(index);
        } else {
            self.free[index] = Piece { start: piece.start + len, len: piece.len - len };
        }
        Some(piece.start)
    }

    fn give(&mut self, start: usize, len: usize) {
        self.stats.used -= len;
        let at = self.free.partition_point(|p| p.start < start);
        let joins = |a: Piece, b: Piece| a.start + a.len == b.start;
        let piece = Piece { start, len };
        let before = at > 0 && joins(self.free[at - 1], piece);
        let after = at < self.free.len() && joins(piece, self.free[at]);
        match (before, after) {
            (true, true) => self.free[at - 1].len += len + self.free.remove(at).len,
            (true, false) => self.free[at - 1].len += len,
            (false, true) => self.free[at] = Piece { start, len: len + self.free[at].len },
            (false, false) => self.free.insert(at, piece),
        }
    }

    fn grow(&mut self, len: usize) -> Option<()> {
        let size = len.max(MIN_CHUNK).max(self.stats.reserved / 4).next_multiple_of(ALIGN);
        // Over-allocated and aligned by hand: `alloc_zeroed` with a large alignment would touch
        // every page, while a plain one leaves untouched pages unbacked.
        let layout = Layout::from_size_align(size + ALIGN, 16).ok()?;
        // SAFETY: the size is not zero.
        let raw = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let start = (raw.as_ptr().expose_provenance()).next_multiple_of(ALIGN);
        self.chunks.push(Chunk { raw, layout });
        self.stats.reserved += size;
        self.stats.system_calls += 1;
        let at = self.free.partition_point(|p| p.start < start);
        // Chunks are never merged: between them lies at least the alignment slack.
        self.free.insert(at, Piece { start, len: size });
        Some(())
    }
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
        lock(&self.state).give(self.start, self.len);
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
    use crate::rng::Rng;

    impl Arena {
        fn pieces(&self) -> usize {
            lock(&self.state).free.len()
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
