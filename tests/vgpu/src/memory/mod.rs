//! Device memory: allocations, bytes, and a shadow that knows for every byte whether it exists, was freed, was written.
//!
//! Invariant: an address is never handed out again while it is in quarantine, and gaps between allocations are
//! never readable, so a stale or overrunning pointer meets a byte that refuses it.

mod footprint;
mod page;
pub(crate) mod touch;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, OnceLock};

use thiserror::Error;

pub use footprint::Footprint;
pub(crate) use page::{PAGE_BITS, PAGE_BYTES, Page, State};

/// Lowest device address.
pub const BASE: u64 = 0x7000_0000_0000;
/// Allocations begin at multiples of this.
pub const ALIGNMENT: u64 = 256;
/// Bytes of freed allocations that stay unusable, so that stale pointers are noticed.
pub const QUARANTINE_BYTES: u64 = 256 << 20;

/// Who asked for an allocation; leaks are reported with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A synchronous allocation of the program.
    Malloc,
    /// A stream-ordered allocation of the program.
    Stream,
    /// A global or constant of a module.
    Module,
    /// The device's own needs (a library's workspace).
    Library,
}

/// An allocation that is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// First address.
    pub address: u64,
    /// Size in bytes as asked for.
    pub bytes: u64,
    /// Who asked.
    pub origin: Origin,
    /// Number of the allocation, counted from 0 over the life of the memory.
    pub serial: u64,
}

/// A memory operation that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The device is full.
    #[error("out of device memory: {wanted} bytes wanted, {free} of {capacity} free")]
    OutOfMemory {
        /// Bytes wanted.
        wanted: u64,
        /// Bytes not allocated.
        free: u64,
        /// Size of the device's memory.
        capacity: u64,
    },
    /// An address that no allocation begins at.
    #[error("free of {address:#x}, which is not the start of an allocation")]
    InvalidFree {
        /// The address given.
        address: u64,
    },
    /// An address that was freed before.
    #[error("double free of {address:#x}, allocation {serial} of {bytes} bytes")]
    DoubleFree {
        /// The address given.
        address: u64,
        /// Number of the allocation that once began there.
        serial: u64,
        /// Its size.
        bytes: u64,
    },
    /// An access outside every allocation.
    #[error("{access} of {len} bytes at {address:#x}: byte {at:#x} is outside every allocation{near}", near = Near(nearest))]
    OutOfBounds {
        /// What was attempted.
        access: Access,
        /// First address of the access.
        address: u64,
        /// Its length in bytes.
        len: u64,
        /// First offending address.
        at: u64,
        /// The closest allocation below it, if any.
        nearest: Option<Allocation>,
    },
    /// An access to freed memory.
    #[error("{access} of {len} bytes at {address:#x}: byte {at:#x} was freed{near}", near = Near(nearest))]
    UseAfterFree {
        /// What was attempted.
        access: Access,
        /// First address of the access.
        address: u64,
        /// Its length in bytes.
        len: u64,
        /// First offending address.
        at: u64,
        /// The freed allocation.
        nearest: Option<Allocation>,
    },
    /// A read of bytes that nothing wrote.
    #[error("{access} of {len} bytes at {address:#x}: byte {at:#x} was never written{near}", near = Near(nearest))]
    Uninitialised {
        /// What was attempted.
        access: Access,
        /// First address of the access.
        address: u64,
        /// Its length in bytes.
        len: u64,
        /// First offending address.
        at: u64,
        /// The allocation it belongs to.
        nearest: Option<Allocation>,
    },
    /// A write to constant memory.
    #[error("{access} of {len} bytes at {address:#x}: byte {at:#x} is constant")]
    ReadOnly {
        /// What was attempted.
        access: Access,
        /// First address of the access.
        address: u64,
        /// Its length in bytes.
        len: u64,
        /// First offending address.
        at: u64,
    },
}

/// Reading or writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A read.
    Read,
    /// A write.
    Write,
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
        })
    }
}

struct Near<'a>(&'a Option<Allocation>);

impl std::fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(a) => {
                write!(f, " (nearest: allocation {} of {} bytes at {:#x})", a.serial, a.bytes, a.address)
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Block {
    allocation: Allocation,
    /// Address space used, redzone included.
    span: u64,
    alive: bool,
}

#[derive(Default)]
struct Table {
    /// Living and quarantined allocations by address.
    blocks: BTreeMap<u64, Block>,
    /// Address space given back from quarantine: start -> length.
    holes: BTreeMap<u64, u64>,
    quarantine: VecDeque<u64>,
    quarantined: u64,
    /// Offset of the first address never used.
    top: u64,
    used: u64,
    peak: u64,
    serials: u64,
}

/// Device memory. All methods take `&self` and may be called from several threads.
pub struct Memory {
    capacity: u64,
    pages: Box<[OnceLock<Box<Page>>]>,
    table: Mutex<Table>,
    touches: Mutex<Vec<touch::Touch>>,
    printed: Mutex<String>,
    grids: AtomicU64,
}

impl Memory {
    /// Memory of the given size in bytes. Host memory is taken page by page as allocations need it.
    pub fn new(capacity: u64) -> Memory {
        // Redzones and quarantine take address space, not capacity.
        let space = capacity.saturating_mul(3).saturating_add(4 * QUARANTINE_BYTES).min(1 << 44);
        let pages = (space >> PAGE_BITS) as usize + 1;
        Memory {
            capacity,
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            table: Mutex::default(),
            touches: Mutex::default(),
            printed: Mutex::default(),
            grids: AtomicU64::new(1),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Size of the memory in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes allocated now.
    pub fn used(&self) -> u64 {
        self.table().used
    }

    /// Most bytes that were allocated at once.
    pub fn peak(&self) -> u64 {
        self.table().peak
    }

    /// Allocates `bytes` (at least one) at a multiple of [`ALIGNMENT`]; the bytes count as never written.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn alloc(&self, bytes: u64, origin: Origin) -> Result<u64, MemoryError> {
        let mut t = self.table();
        let full = || MemoryError::OutOfMemory {
            wanted: bytes,
            free: self.capacity - t.used,
            capacity: self.capacity,
        };
        if bytes > self.capacity - t.used {
            return Err(full());
        }
        let span = (bytes.max(1) + 256 + bytes / 16).next_multiple_of(ALIGNMENT);
        let hole = t.holes.iter().find(|(_, len)| **len >= span).map(|(a, len)| (*a, *len));
        let offset = match hole {
            Some((at, len)) => {
                t.holes.remove(&at);
                if len > span {
                    t.holes.insert(at + span, len - span);
                }
                at
            }
            None if t.top + span <= (self.pages.len() as u64) << PAGE_BITS => {
                let at = t.top;
                t.top += span;
                at
            }
            None => return Err(full()),
        };
        let address = BASE + offset;
        let allocation = Allocation { address, bytes, origin, serial: t.serials };
        t.serials += 1;
        t.used += bytes;
        t.peak = t.peak.max(t.used);
        t.blocks.insert(address, Block { allocation, span, alive: true });
        self.each_page(address, bytes, |page, at, len, _| page.set_state(at, len, State::Fresh));
        Ok(address)
    }

    /// Frees an allocation; its bytes stay in quarantine for a while.
    ///
    /// # Errors
    /// [`MemoryError::DoubleFree`] and [`MemoryError::InvalidFree`].
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut t = self.table();
        let block = match t.blocks.get_mut(&address) {
            Some(b) if b.alive => {
                b.alive = false;
                *b
            }
            Some(b) => {
                return Err(MemoryError::DoubleFree {
                    address,
                    serial: b.allocation.serial,
                    bytes: b.allocation.bytes,
                });
            }
            None => return Err(MemoryError::InvalidFree { address }),
        };
        let bytes = block.allocation.bytes;
        self.each_page(address, bytes, |page, at, len, _| page.set_state(at, len, State::Freed));
        t.used -= bytes;
        t.quarantined += bytes;
        t.quarantine.push_back(address);
        while t.quarantined > QUARANTINE_BYTES || t.quarantine.len() > 65536 {
            let Some(old) = t.quarantine.pop_front() else { break };
            let block = t.blocks.remove(&old).expect("quarantined blocks are in the table");
            t.quarantined -= block.allocation.bytes;
            self.each_page(old, block.allocation.bytes, |page, at, len, _| {
                page.set_state(at, len, State::Unmapped)
            });
            give_back(&mut t.holes, old - BASE, block.span);
        }
        Ok(())
    }

    /// Writes bytes from the host and marks them written.
    ///
    /// # Errors
    /// Out of bounds, freed, or constant memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.check_write(address, bytes.len() as u64)?;
        self.each_page(address, bytes.len() as u64, |page, at, len, done| {
            page.copy_in(at, &bytes[done..done + len]);
        });
        Ok(())
    }

    /// Repeats `pattern` over `len` bytes and marks them written.
    ///
    /// # Errors
    /// As [`Memory::write`].
    pub fn fill(&self, address: u64, pattern: &[u8], len: u64) -> Result<(), MemoryError> {
        self.check_write(address, len)?;
        let mut chunk = Vec::new();
        self.each_page(address, len, |page, at, len, done| {
            chunk.clear();
            chunk.extend((0..len).map(|i| pattern[(done + i) % pattern.len().max(1)]));
            page.copy_in(at, &chunk);
        });
        Ok(())
    }

    /// Reads bytes for the host.
    ///
    /// # Errors
    /// Out of bounds, freed, or bytes that nothing wrote.
    pub fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, MemoryError> {
        self.check_read(address, len as u64)?;
        let mut out = vec![0; len];
        self.each_page(address, len as u64, |page, at, len, done| {
            page.copy_out(at, &mut out[done..done + len]);
        });
        Ok(out)
    }

    /// Copies within the device; bytes never written stay so (copying them is no read).
    ///
    /// # Errors
    /// Either range out of bounds or freed; a constant destination.
    pub fn copy(&self, to: u64, from: u64, len: u64) -> Result<(), MemoryError> {
        self.check_exists(from, len)?;
        self.check_write_allowed(to, len)?;
        let mut bytes = vec![0; len as usize];
        let mut known = vec![false; len as usize];
        self.each_page(from, len, |page, at, len, done| {
            page.copy_out(at, &mut bytes[done..done + len]);
            for i in 0..len {
                known[done + i] = page.state(at + i) != State::Fresh;
            }
        });
        self.each_page(to, len, |page, at, len, done| {
            page.copy_in(at, &bytes[done..done + len]);
            for i in 0..len {
                let state = if known[done + i] { State::Written } else { State::Fresh };
                page.set_state(at + i, 1, state);
            }
        });
        Ok(())
    }

    /// The living allocation that holds an address.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        let t = self.table();
        let (_, b) = t.blocks.range(..=address).next_back()?;
        (b.alive && address - b.allocation.address < b.allocation.bytes.max(1)).then_some(b.allocation)
    }

    /// Allocations of the program that were not freed, oldest first.
    pub fn leaks(&self) -> Vec<Allocation> {
        let t = self.table();
        let mut leaks: Vec<Allocation> = t
            .blocks
            .values()
            .filter(|b| b.alive && matches!(b.allocation.origin, Origin::Malloc | Origin::Stream))
            .map(|b| b.allocation)
            .collect();
        leaks.sort_by_key(|a| a.serial);
        leaks
    }

    /// Makes bytes constant for kernels.
    pub(crate) fn make_read_only(&self, address: u64, len: u64) {
        self.each_page(address, len, |page, at, len, _| page.set_state(at, len, State::ReadOnly));
    }

    /// The page that holds an address, if anything was ever allocated there.
    #[inline]
    pub(crate) fn page(&self, address: u64) -> Option<(&Page, usize)> {
        let offset = address.wrapping_sub(BASE);
        let page = self.pages.get((offset >> PAGE_BITS) as usize)?.get()?;
        Some((page, offset as usize & (PAGE_BYTES - 1)))
    }

    /// Number of the page that holds an address.
    #[inline]
    pub(crate) fn page_index(address: u64) -> usize {
        (address.wrapping_sub(BASE) >> PAGE_BITS) as usize
    }

    /// Checks that every byte was written.
    ///
    /// # Errors
    /// Out of bounds, freed, never written.
    pub fn check_read(&self, address: u64, len: u64) -> Result<(), MemoryError> {
        self.first_refused(address, len, |s| matches!(s, State::Written | State::ReadOnly))
            .map_or(Ok(()), |(at, s)| Err(self.error(Access::Read, address, len, at, s)))
    }

    /// Checks that every byte belongs to a living allocation.
    ///
    /// # Errors
    /// Out of bounds, freed.
    pub fn check_exists(&self, address: u64, len: u64) -> Result<(), MemoryError> {
        self.first_refused(address, len, |s| matches!(s, State::Fresh | State::Written | State::ReadOnly))
            .map_or(Ok(()), |(at, s)| Err(self.error(Access::Read, address, len, at, s)))
    }

    fn check_write_allowed(&self, address: u64, len: u64) -> Result<(), MemoryError> {
        self.first_refused(address, len, |s| matches!(s, State::Fresh | State::Written))
            .map_or(Ok(()), |(at, s)| Err(self.error(Access::Write, address, len, at, s)))
    }

    /// Checks that every byte may be written, and marks all as written.
    ///
    /// # Errors
    /// Out of bounds, freed, constant. Nothing is marked then.
    pub fn check_write(&self, address: u64, len: u64) -> Result<(), MemoryError> {
        self.check_write_allowed(address, len)?;
        self.each_page(address, len, |page, at, len, _| page.set_state(at, len, State::Written));
        Ok(())
    }

    fn first_refused(&self, address: u64, len: u64, ok: impl Fn(State) -> bool) -> Option<(u64, State)> {
        let Some(end) = address.checked_add(len) else { return Some((address, State::Unmapped)) };
        let mut at = address;
        while at < end {
            let Some((page, offset)) = self.page(at) else { return Some((at, State::Unmapped)) };
            let here = (end - at).min((PAGE_BYTES - offset) as u64) as usize;
            if let Some((i, s)) = page.first(offset, here, |s| !ok(s)) {
                return Some((at + (i - offset) as u64, s));
            }
            at += here as u64;
        }
        None
    }

    #[cold]
    fn error(&self, access: Access, address: u64, len: u64, at: u64, state: State) -> MemoryError {
        let nearest = {
            let t = self.table();
            t.blocks.range(..=at).next_back().map(|(_, b)| b.allocation)
        };
        match state {
            State::Unmapped => MemoryError::OutOfBounds { access, address, len, at, nearest },
            State::Freed => MemoryError::UseAfterFree { access, address, len, at, nearest },
            State::Fresh => MemoryError::Uninitialised { access, address, len, at, nearest },
            State::ReadOnly | State::Written => MemoryError::ReadOnly { access, address, len, at },
        }
    }

    /// Visits a range page by page: (page, offset in page, length, bytes done before), making pages as needed.
    /// Only for ranges inside the address space.
    fn each_page(&self, address: u64, len: u64, mut f: impl FnMut(&Page, usize, usize, usize)) {
        let mut done = 0;
        while done < len {
            let offset = address + done - BASE;
            let slot = &self.pages[(offset >> PAGE_BITS) as usize];
            let at = offset as usize & (PAGE_BYTES - 1);
            let here = (len - done).min((PAGE_BYTES - at) as u64);
            f(slot.get_or_init(|| Box::new(Page::new())), at, here as usize, done as usize);
            done += here;
        }
    }
}

/// Adds a range of address space, joining it with its neighbours.
fn give_back(holes: &mut BTreeMap<u64, u64>, at: u64, len: u64) {
    let (mut at, mut len) = (at, len);
    if let Some((&before, &l)) = holes.range(..at).next_back()
        && before + l == at
    {
        holes.remove(&before);
        at = before;
        len += l;
    }
    if let Some(l) = holes.remove(&(at + len)) {
        len += l;
    }
    holes.insert(at, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_written() {
        let m = Memory::new(64 << 20);
        let a = m.alloc(3 << 20, Origin::Malloc).unwrap();
        let bytes: Vec<u8> = (0..3 << 20).map(|i: u32| (i * 7) as u8).collect();
        m.write(a, &bytes).unwrap();
        assert_eq!(m.read(a, bytes.len()).unwrap(), bytes);
        m.fill(a + 1, &[1, 2, 3], 7).unwrap();
        assert_eq!(m.read(a, 9).unwrap(), [0, 1, 2, 3, 1, 2, 3, 1, 56]);
    }

    #[test]
    fn never_written_bytes_are_not_read() {
        let m = Memory::new(1 << 20);
        let a = m.alloc(100, Origin::Malloc).unwrap();
        m.write(a, &[0; 99]).unwrap();
        assert!(
            matches!(m.read(a, 100), Err(MemoryError::Uninitialised { at, .. }) if at == a + 99),
            "the last byte was never written"
        );
    }

    #[test]
    fn one_past_the_end_is_out_of_bounds() {
        let m = Memory::new(1 << 20);
        let a = m.alloc(256, Origin::Malloc).unwrap();
        let b = m.alloc(256, Origin::Malloc).unwrap();
        assert!(b >= a + 256 + 256, "a redzone lies between");
        assert!(
            matches!(m.write(a + 255, &[0; 2]), Err(MemoryError::OutOfBounds { at, .. }) if at == a + 256)
        );
        assert!(matches!(m.read(u64::MAX - 3, 8), Err(MemoryError::OutOfBounds { .. })));
        assert!(matches!(m.read(0, 8), Err(MemoryError::OutOfBounds { .. })));
    }

    #[test]
    fn freed_memory_is_refused_until_it_is_forgotten() {
        let m = Memory::new(1 << 20);
        let a = m.alloc(64, Origin::Malloc).unwrap();
        m.write(a, &[1; 64]).unwrap();
        m.free(a).unwrap();
        assert!(matches!(m.read(a, 1), Err(MemoryError::UseAfterFree { .. })));
        assert!(matches!(m.free(a), Err(MemoryError::DoubleFree { .. })));
        assert!(matches!(m.free(a + 1), Err(MemoryError::InvalidFree { .. })));
        assert_ne!(m.alloc(64, Origin::Malloc).unwrap(), a, "quarantine");
    }

    #[test]
    fn address_space_comes_back_after_quarantine() {
        let m = Memory::new(512 << 20);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..12 {
            let a = m.alloc(100 << 20, Origin::Malloc).unwrap();
            seen.insert(a);
            m.free(a).unwrap();
        }
        assert!(seen.len() < 8, "{} addresses for one living buffer", seen.len());
        assert_eq!(m.used(), 0);
    }

    #[test]
    fn the_device_can_be_full() {
        let m = Memory::new(1000);
        m.alloc(600, Origin::Malloc).unwrap();
        assert_eq!(
            m.alloc(600, Origin::Malloc),
            Err(MemoryError::OutOfMemory { wanted: 600, free: 400, capacity: 1000 })
        );
    }

    #[test]
    fn device_copies_carry_what_is_known() {
        let m = Memory::new(1 << 20);
        let a = m.alloc(64, Origin::Malloc).unwrap();
        let b = m.alloc(64, Origin::Malloc).unwrap();
        m.write(a, &[5; 32]).unwrap();
        m.copy(b, a, 64).unwrap();
        assert_eq!(m.read(b, 32).unwrap(), [5; 32]);
        assert!(matches!(m.read(b, 33), Err(MemoryError::Uninitialised { .. })));
    }

    #[test]
    fn leaks_name_their_origin() {
        let m = Memory::new(1 << 20);
        m.alloc(8, Origin::Module).unwrap();
        let a = m.alloc(8, Origin::Malloc).unwrap();
        let b = m.alloc(16, Origin::Stream).unwrap();
        m.free(a).unwrap();
        let leaks = m.leaks();
        assert_eq!(leaks.len(), 1);
        assert_eq!((leaks[0].address, leaks[0].bytes, leaks[0].origin), (b, 16, Origin::Stream));
    }
}
