//! Host memory: pinned allocations, and reading arguments through pointers that may be wrong.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsRawFd;

use thiserror::Error;

/// Alignment of pinned memory: a page.
const PAGE: usize = 4096;

/// Pinned host memory.
#[derive(Debug)]
pub struct Pinned {
    /// Size in bytes.
    pub bytes: usize,
    /// How it came to be pinned.
    pub origin: PinnedOrigin,
    /// Context it belongs to.
    pub context: u64,
}

/// How host memory came to be pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinnedOrigin {
    /// Allocated here, with this layout.
    Allocated(Layout),
    /// The program's own memory, registered.
    Registered,
}

/// All pinned memory by address.
#[derive(Debug, Default)]
pub struct PinnedTable {
    ranges: BTreeMap<usize, Pinned>,
}

impl PinnedTable {
    /// Allocates zeroed pinned memory; `None` if the host has none.
    pub fn allocate(&mut self, bytes: usize, context: u64) -> Option<usize> {
        let layout = Layout::from_size_align(bytes.max(1), PAGE).ok()?;
        // SAFETY: the layout has a size above zero.
        let p = unsafe { std::alloc::alloc_zeroed(layout) };
        if p.is_null() {
            return None;
        }
        let origin = PinnedOrigin::Allocated(layout);
        self.ranges.insert(p as usize, Pinned { bytes, origin, context });
        Some(p as usize)
    }

    /// Registers memory of the program; false if part of it is pinned already.
    pub fn register(&mut self, address: usize, bytes: usize, context: u64) -> bool {
        let overlaps = |(a, p): (&usize, &Pinned)| a + p.bytes > address;
        if self.ranges.range(..address + bytes).next_back().is_some_and(overlaps) {
            return false;
        }
        self.ranges.insert(address, Pinned { bytes, origin: PinnedOrigin::Registered, context });
        true
    }

    /// The pinned range that begins at an address.
    pub fn at(&self, address: usize) -> Option<&Pinned> {
        self.ranges.get(&address)
    }

    /// Forgets a range that begins at an address and gives back what was allocated.
    pub fn release(&mut self, address: usize) {
        if let Some(Pinned { origin: PinnedOrigin::Allocated(layout), .. }) = self.ranges.remove(&address) {
            // SAFETY: the table only holds addresses that `allocate` got with this layout, each once.
            unsafe { std::alloc::dealloc(address as *mut u8, layout) };
        }
    }

    /// True if every byte of a range is pinned.
    pub fn covers(&self, address: usize, bytes: usize) -> bool {
        let Some((a, p)) = self.ranges.range(..=address).next_back() else { return false };
        address.checked_add(bytes).is_some_and(|end| end <= a + p.bytes)
    }

    /// Allocated ranges of a context, with their sizes.
    pub fn of_context(&self, context: u64) -> Vec<(usize, usize)> {
        let own = |p: &Pinned| p.context == context && matches!(p.origin, PinnedOrigin::Allocated(_));
        self.ranges.iter().filter(|(_, p)| own(p)).map(|(a, p)| (*a, p.bytes)).collect()
    }

    /// Number of pinned ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }
}

/// Host memory that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("host memory at {address:#x} cannot be read ({bytes} bytes wanted)")]
pub struct Unreadable {
    /// Address given.
    pub address: usize,
    /// Bytes wanted.
    pub bytes: usize,
}

unsafe extern "C" {
    fn write(fd: i32, from: *const u8, bytes: usize) -> isize;
}

/// Reads bytes through a pointer that may be wrong: the kernel copies them into a pipe and says if it could not.
///
/// # Errors
/// [`Unreadable`].
pub fn read_carefully(address: usize, bytes: usize) -> Result<Vec<u8>, Unreadable> {
    let wrong = Unreadable { address, bytes };
    let (mut out, into) = std::io::pipe().map_err(|_| wrong)?;
    let mut got = vec![0; bytes];
    // A pipe holds at least a page without blocking.
    for (i, part) in got.chunks_mut(PAGE).enumerate() {
        let from = address.checked_add(i * PAGE).ok_or(wrong)?;
        // SAFETY: the system call checks the pointer itself and fails with EFAULT where it cannot be read.
        let n = unsafe { write(into.as_raw_fd(), from as *const u8, part.len()) };
        if n != part.len() as isize {
            return Err(wrong);
        }
        out.read_exact(part).map_err(|_| wrong)?;
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn careful_reads_give_the_bytes_or_an_error() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        assert_eq!(read_carefully(bytes.as_ptr() as usize, bytes.len()).unwrap(), bytes);
        assert_eq!(read_carefully(8, 4), Err(Unreadable { address: 8, bytes: 4 }));
        assert!(read_carefully(usize::MAX - 2, 4).is_err());
        assert!(read_carefully(0, 0).unwrap().is_empty());
    }

    #[test]
    fn pinned_ranges_are_found_by_what_they_cover() {
        let mut t = PinnedTable::default();
        let a = t.allocate(100, 1).unwrap();
        assert!(t.covers(a, 100) && t.covers(a + 99, 1) && !t.covers(a + 99, 2) && !t.covers(a - 1, 1));
        assert!(!t.register(a + 10, 5, 1), "already pinned");
        assert_eq!(t.of_context(1), [(a, 100)]);
        t.release(a);
        assert_eq!(t.len(), 0);
        let own = [0u8; 64];
        assert!(t.register(own.as_ptr() as usize, 64, 1));
        t.release(own.as_ptr() as usize);
        assert_eq!(t.len(), 0);
    }
}
