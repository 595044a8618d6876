//! One page of device memory: bytes and, beside each byte, what is known about it.
//!
//! All bytes are atomics read and written with relaxed order: two worker threads may run blocks that race,
//! which is a fault to report and must not be undefined behaviour here.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// log2 of the bytes in a page.
pub(crate) const PAGE_BITS: u32 = 20;
/// Bytes in a page.
pub(crate) const PAGE_BYTES: usize = 1 << PAGE_BITS;

/// What is known about one byte of device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Belongs to no allocation.
    Unmapped = 0,
    /// Belonged to an allocation that was freed and is in quarantine.
    Freed = 1,
    /// Allocated, never written.
    Fresh = 2,
    /// Allocated and written.
    Written = 3,
    /// Constant memory: written by the loader, not to be written by kernels.
    ReadOnly = 4,
}

impl State {
    fn of(byte: u8) -> State {
        match byte {
            1 => State::Freed,
            2 => State::Fresh,
            3 => State::Written,
            4 => State::ReadOnly,
            _ => State::Unmapped,
        }
    }
}

const ALL_FRESH: u64 = 0x0202_0202_0202_0202;
const ALL_WRITTEN: u64 = 0x0303_0303_0303_0303;

/// Zeroed memory of whole 64-bit words, committed by the operating system when first touched.
pub(crate) fn zeroed_words(words: usize) -> Box<[AtomicU64]> {
    if words == 0 {
        return Box::default();
    }
    let layout = Layout::array::<AtomicU64>(words).expect("sizes are bounded by the device's memory");
    // SAFETY: the layout is not empty; zero bytes are a valid AtomicU64; the box frees with the same layout.
    unsafe {
        let p = alloc_zeroed(layout) as *mut AtomicU64;
        if p.is_null() {
            handle_alloc_error(layout);
        }
        Box::from_raw(std::ptr::slice_from_raw_parts_mut(p, words))
    }
}

/// Bytes of device memory with their states.
pub(crate) struct Page {
    data: Box<[AtomicU64]>,
    state: Box<[AtomicU64]>,
}

impl Page {
    pub(crate) fn new() -> Page {
        Page { data: zeroed_words(PAGE_BYTES / 8), state: zeroed_words(PAGE_BYTES / 8) }
    }

    fn byte_of(words: &[AtomicU64], at: usize) -> &AtomicU8 {
        assert!(at < words.len() * 8);
        // SAFETY: in bounds by the assertion; a byte of an AtomicU64 is valid as an AtomicU8, and all access is atomic.
        unsafe { &*(words.as_ptr() as *const AtomicU8).add(at) }
    }

    /// The state of one byte.
    pub(crate) fn state(&self, at: usize) -> State {
        State::of(Self::byte_of(&self.state, at).load(Relaxed))
    }

    /// Sets the state of a range.
    pub(crate) fn set_state(&self, at: usize, len: usize, state: State) {
        let word = u64::from_ne_bytes([state as u8; 8]);
        let (mut i, end) = (at, at + len);
        while i < end {
            if i.is_multiple_of(8) && i + 8 <= end {
                self.state[i / 8].store(word, Relaxed);
                i += 8;
            } else {
                Self::byte_of(&self.state, i).store(state as u8, Relaxed);
                i += 1;
            }
        }
    }

    /// True if every byte of the range may be read and was written.
    #[inline]
    pub(crate) fn readable(&self, at: usize, len: usize) -> bool {
        let (mut i, end) = (at, at + len);
        while i < end {
            if i & 7 == 0 && i + 8 <= end {
                if self.state[i / 8].load(Relaxed) != ALL_WRITTEN {
                    return self.readable_slow(i, end);
                }
                i += 8;
            } else {
                if Self::byte_of(&self.state, i).load(Relaxed) < State::Written as u8 {
                    return false;
                }
                i += 1;
            }
        }
        true
    }

    #[cold]
    fn readable_slow(&self, from: usize, end: usize) -> bool {
        (from..end).all(|i| Self::byte_of(&self.state, i).load(Relaxed) >= State::Written as u8)
    }

    /// Marks the range written; false, with nothing promised about the marks, if a byte may not be written.
    #[inline]
    pub(crate) fn mark_written(&self, at: usize, len: usize) -> bool {
        let (mut i, end) = (at, at + len);
        while i < end {
            if i & 7 == 0 && i + 8 <= end {
                let word = &self.state[i / 8];
                match word.load(Relaxed) {
                    ALL_WRITTEN => {}
                    ALL_FRESH => word.store(ALL_WRITTEN, Relaxed),
                    _ if self.mark_bytes(i, i + 8) => {}
                    _ => return false,
                }
                i += 8;
            } else {
                if !self.mark_bytes(i, i + 1) {
                    return false;
                }
                i += 1;
            }
        }
        true
    }

    fn mark_bytes(&self, from: usize, end: usize) -> bool {
        (from..end).all(|i| {
            let byte = Self::byte_of(&self.state, i);
            match byte.load(Relaxed) {
                2 => {
                    byte.store(State::Written as u8, Relaxed);
                    true
                }
                3 => true,
                _ => false,
            }
        })
    }

    /// First byte of the range whose state is not accepted.
    pub(crate) fn first(
        &self,
        at: usize,
        len: usize,
        refused: impl Fn(State) -> bool,
    ) -> Option<(usize, State)> {
        (at..at + len).map(|i| (i, self.state(i))).find(|(_, s)| refused(*s))
    }

    #[inline]
    pub(crate) fn load_u8(&self, at: usize) -> u8 {
        Self::byte_of(&self.data, at).load(Relaxed)
    }

    #[inline]
    pub(crate) fn store_u8(&self, at: usize, v: u8) {
        Self::byte_of(&self.data, at).store(v, Relaxed)
    }

    /// `at` must be even.
    #[inline]
    pub(crate) fn load_u16(&self, at: usize) -> u16 {
        assert!(at & 1 == 0 && at < PAGE_BYTES);
        // SAFETY: aligned and in bounds by the assertion; all access is atomic.
        unsafe { (*(self.data.as_ptr() as *const AtomicU16).add(at / 2)).load(Relaxed) }
    }

    /// `at` must be even.
    #[inline]
    pub(crate) fn store_u16(&self, at: usize, v: u16) {
        assert!(at & 1 == 0 && at < PAGE_BYTES);
        // SAFETY: aligned and in bounds by the assertion; all access is atomic.
        unsafe { (*(self.data.as_ptr() as *const AtomicU16).add(at / 2)).store(v, Relaxed) }
    }

    /// `at` must be a multiple of 4.
    #[inline]
    pub(crate) fn load_u32(&self, at: usize) -> u32 {
        assert!(at & 3 == 0 && at < PAGE_BYTES);
        // SAFETY: aligned and in bounds by the assertion; all access is atomic.
        unsafe { (*(self.data.as_ptr() as *const AtomicU32).add(at / 4)).load(Relaxed) }
    }

    /// `at` must be a multiple of 4.
    #[inline]
    pub(crate) fn store_u32(&self, at: usize, v: u32) {
        assert!(at & 3 == 0 && at < PAGE_BYTES);
        // SAFETY: aligned and in bounds by the assertion; all access is atomic.
        unsafe { (*(self.data.as_ptr() as *const AtomicU32).add(at / 4)).store(v, Relaxed) }
    }

    /// `at` must be a multiple of 8.
    #[inline]
    pub(crate) fn load_u64(&self, at: usize) -> u64 {
        self.data[at / 8].load(Relaxed)
    }

    /// `at` must be a multiple of 8.
    #[inline]
    pub(crate) fn store_u64(&self, at: usize, v: u64) {
        self.data[at / 8].store(v, Relaxed)
    }

    /// Copies bytes out; the caller checks states.
    pub(crate) fn copy_out(&self, at: usize, out: &mut [u8]) {
        let mut i = 0;
        while i < out.len() {
            if (at + i).is_multiple_of(8) && i + 8 <= out.len() {
                out[i..i + 8].copy_from_slice(&self.load_u64(at + i).to_le_bytes());
                i += 8;
            } else {
                out[i] = self.load_u8(at + i);
                i += 1;
            }
        }
    }

    /// Copies bytes in; the caller checks states.
    pub(crate) fn copy_in(&self, at: usize, bytes: &[u8]) {
        let mut i = 0;
        while i < bytes.len() {
            if (at + i).is_multiple_of(8) && i + 8 <= bytes.len() {
                let word: [u8; 8] = bytes[i..i + 8].try_into().expect("eight bytes");
                self.store_u64(at + i, u64::from_le_bytes(word));
                i += 8;
            } else {
                self.store_u8(at + i, bytes[i]);
                i += 1;
            }
        }
    }
}
