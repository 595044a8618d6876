//! Who touched which bytes of device memory during a launch: races between blocks, and distinct bytes.
//!
//! Two bytes share a tag. A tag knows the last block and which of the two bytes it touched; where two blocks touch
//! different bytes of a pair, the earlier one is forgotten. So nothing innocent is reported.
//!
//! Blocks may order each other: a block that passed a fence and then did an atomic or strong access has *released* what
//! it did before the fence; a block that does an atomic or strong access has *acquired* all that was released until
//! then. Where the synchronising addresses differ this is too generous, never too strict.

use std::sync::atomic::Ordering::Relaxed;

use super::footprint::{Footprint, extend_bits};
use super::{Memory, PAGE_BYTES};

/// Numbers of blocks (and of a block's phases) fit here.
const SERIALS: u32 = 1 << 29;
const NEVER: u64 = u64::MAX;
const ATOMIC: u32 = 4;

/// Words of a bitmap with one bit per byte of a page.
const WORDS: usize = PAGE_BYTES / 64;

struct Sheet {
    index: usize,
    read: Box<[u64]>,
    written: Box<[u64]>,
    writer: Box<[u32]>,
    reader: Box<[u32]>,
    /// Instruction that wrote last.
    writer_at: Box<[u32]>,
    /// Touched since the bitmaps were cleared.
    live: bool,
}

impl Sheet {
    fn new(index: usize) -> Sheet {
        let tags = PAGE_BYTES / 2;
        Sheet {
            index,
            read: vec![0; WORDS].into_boxed_slice(),
            written: vec![0; WORDS].into_boxed_slice(),
            writer: vec![0; tags].into_boxed_slice(),
            reader: vec![0; tags].into_boxed_slice(),
            writer_at: vec![0; tags].into_boxed_slice(),
            live: false,
        }
    }
}

/// What a block carries about its order among blocks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Order {
    /// The number under which it touches bytes now.
    serial: u32,
    /// Numbers that wait for a release: those before the last fence.
    fenced: Vec<u32>,
    /// When it last acquired.
    acquired: u64,
}

/// Two blocks that touched the same bytes with no order between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The other block's number in the grid.
    pub other: u64,
    /// Offset in the page of the first such byte.
    pub at: usize,
    /// The other one wrote (or else it read, and this one writes).
    pub wrote: bool,
    /// Several blocks read.
    pub many: bool,
    /// Instruction of the other's write.
    pub instruction: Option<u32>,
}

/// A worker's knowledge of a launch.
pub(crate) struct Touch {
    sheets: Vec<Option<Box<Sheet>>>,
    live: Vec<usize>,
    /// First number of this launch; it stands for "several readers".
    base: u32,
    next: u32,
    /// By number since `base`: block and time of release.
    blocks: Vec<(u64, u64)>,
    time: u64,
}

impl Touch {
    pub(crate) fn new() -> Touch {
        Touch { sheets: Vec::new(), live: Vec::new(), base: 1, next: 1, blocks: Vec::new(), time: 1 }
    }

    /// Forgets the last launch.
    pub(crate) fn begin(&mut self) {
        for index in std::mem::take(&mut self.live) {
            if let Some(sheet) = &mut self.sheets[index] {
                sheet.read.fill(0);
                sheet.written.fill(0);
                sheet.live = false;
            }
        }
        if self.next > SERIALS / 2 {
            self.sheets.clear();
            self.next = 1;
        }
        self.base = self.next;
        self.next += 1;
        self.blocks.clear();
        self.blocks.push((u64::MAX, NEVER));
        self.time = 1;
    }

    /// A number for a block; numbers run out only after half a billion blocks and fences in one launch.
    pub(crate) fn enter(&mut self, block: u64) -> Order {
        Order { serial: self.serial(block), fenced: Vec::new(), acquired: 0 }
    }

    fn serial(&mut self, block: u64) -> u32 {
        if self.next == SERIALS - 1 {
            return self.next;
        }
        let s = self.next;
        self.next += 1;
        self.blocks.push((block, NEVER));
        s
    }

    /// A fence of the block.
    pub(crate) fn fence(&mut self, order: &mut Order) {
        let block = self.block_of(order.serial);
        order.fenced.push(order.serial);
        order.serial = self.serial(block);
    }

    /// An atomic or strong access of the block.
    pub(crate) fn synchronise(&mut self, order: &mut Order) {
        self.time += 1;
        for s in order.fenced.drain(..) {
            self.blocks[(s - self.base) as usize].1 = self.time;
        }
        order.acquired = self.time;
    }

    fn block_of(&self, serial: u32) -> u64 {
        self.blocks.get((serial - self.base) as usize).map_or(u64::MAX, |b| b.0)
    }

    fn ordered(&self, serial: u32, me: &Order) -> bool {
        if serial == self.base {
            return me.acquired > 0;
        }
        let (block, released) = self.blocks[(serial - self.base) as usize];
        block == self.block_of(me.serial) || released <= me.acquired
    }

    #[inline(always)]
    fn sheet(&mut self, index: usize) -> &mut Sheet {
        if !matches!(self.sheets.get(index), Some(Some(s)) if s.live) {
            self.open(index);
        }
        self.sheets[index].as_mut().expect("opened above")
    }

    #[cold]
    fn open(&mut self, index: usize) {
        if self.sheets.len() <= index {
            self.sheets.resize_with(index + 1, || None);
        }
        let sheet = self.sheets[index].get_or_insert_with(|| Box::new(Sheet::new(index)));
        sheet.live = true;
        self.live.push(index);
    }

    /// Notes a read of bytes of one page.
    #[inline]
    pub(crate) fn read(
        &mut self,
        page: usize,
        at: usize,
        len: usize,
        me: &Order,
        races: bool,
    ) -> Option<Conflict> {
        let first = self.base << 3;
        let sheet = self.sheet(page);
        set(&mut sheet.read, at, len);
        if !races {
            return None;
        }
        let (lo, hi) = (at / 2, (at + len).div_ceil(2));
        let mine = me.serial << 3;
        let mut foreign = false;
        let mut known = true;
        for (w, r) in sheet.writer[lo..hi].iter().zip(&sheet.reader[lo..hi]) {
            foreign |= *w >= first && w & !7 != mine;
            known &= *r == mine | 3 || *r == first | 3;
        }
        if foreign || !known {
            return self.read_slow(page, at, len, me, foreign);
        }
        None
    }

    fn read_slow(
        &mut self,
        page: usize,
        at: usize,
        len: usize,
        me: &Order,
        foreign: bool,
    ) -> Option<Conflict> {
        let (base, mine) = (self.base, me.serial << 3);
        if foreign && let Some(c) = self.foreign_writer(page, at, len, me, false) {
            return Some(c);
        }
        let mut g = at / 2;
        while 2 * g < at + len {
            let mask = pair(g, at, len);
            let old = self.sheet(page).reader[g];
            let serial = old >> 3;
            let new = if serial == me.serial {
                old | mask
            } else if serial < base || old & mask == 0 || serial != base && self.ordered(serial, me) {
                mine | mask
            } else {
                // Several readers: what is surely read by more than one.
                base << 3 | old & mask
            };
            self.sheet(page).reader[g] = new;
            g += 1;
        }
        None
    }

    fn foreign_writer(
        &mut self,
        page: usize,
        at: usize,
        len: usize,
        me: &Order,
        atomic: bool,
    ) -> Option<Conflict> {
        let base = self.base;
        let mut g = at / 2;
        while 2 * g < at + len {
            let sheet = self.sheet(page);
            let (tag, instruction) = (sheet.writer[g], sheet.writer_at[g]);
            let serial = tag >> 3;
            if serial >= base
                && serial != me.serial
                && tag & pair(g, at, len) != 0
                && !(atomic && tag & ATOMIC != 0)
                && !self.ordered(serial, me)
            {
                return Some(Conflict {
                    other: self.block_of(serial),
                    at: (2 * g).max(at),
                    wrote: true,
                    many: false,
                    instruction: Some(instruction),
                });
            }
            g += 1;
        }
        None
    }

    /// Notes a write of bytes of one page by the given instruction.
    #[inline]
    #[allow(clippy::too_many_arguments, reason = "one call site per kind of access, all values distinct")]
    pub(crate) fn write(
        &mut self,
        page: usize,
        at: usize,
        len: usize,
        me: &Order,
        instruction: u32,
        atomic: bool,
        races: bool,
    ) -> Option<Conflict> {
        let first = self.base << 3;
        let sheet = self.sheet(page);
        set(&mut sheet.written, at, len);
        if atomic {
            set(&mut sheet.read, at, len);
        }
        if !races {
            return None;
        }
        let (lo, hi) = (at / 2, (at + len).div_ceil(2));
        let mine = me.serial << 3;
        let mut foreign = false;
        for (w, r) in sheet.writer[lo..hi].iter().zip(&sheet.reader[lo..hi]) {
            foreign |= *w >= first && w & !7 != mine || *r >= first && r & !7 != mine;
        }
        if foreign {
            if let Some(c) = self.foreign_writer(page, at, len, me, atomic) {
                return Some(c);
            }
            let mut g = lo;
            while g < hi {
                let tag = self.sheet(page).reader[g];
                let serial = tag >> 3;
                if serial >= self.base
                    && serial != me.serial
                    && tag & pair(g, at, len) != 0
                    && !self.ordered(serial, me)
                {
                    return Some(Conflict {
                        other: self.block_of(serial),
                        at: (2 * g).max(at),
                        wrote: false,
                        many: serial == self.base,
                        instruction: None,
                    });
                }
                g += 1;
            }
        }
        let flag = if atomic { ATOMIC } else { 0 };
        let sheet = self.sheet(page);
        sheet.writer_at[lo..hi].fill(instruction);
        if !atomic && at & 1 == 0 && len & 1 == 0 {
            sheet.writer[lo..hi].fill(mine | 3);
        } else {
            for g in lo..hi {
                let (old, mask) = (sheet.writer[g], pair(g, at, len));
                let own = old & !7 == mine;
                sheet.writer[g] = if own && atomic && old & ATOMIC == 0 && old & mask != 0 {
                    // What was written plainly stays so: an atomic of the same block does not order others.
                    old
                } else {
                    let keep = if own && old & ATOMIC == flag { old & 3 } else { 0 };
                    mine | flag | keep | mask
                };
            }
        }
        None
    }

    /// Distinct bytes read and written by any of the workers.
    pub(crate) fn distinct(workers: &[&Touch]) -> (u64, u64) {
        let mut pages: Vec<usize> = workers.iter().flat_map(|t| t.live.iter().copied()).collect();
        pages.sort_unstable();
        pages.dedup();
        let (mut read, mut written) = (0, 0);
        for page in pages {
            let sheets: Vec<&Sheet> =
                workers.iter().filter_map(|t| t.sheets.get(page)?.as_deref().filter(|s| s.live)).collect();
            for i in 0..WORDS {
                read += u64::from(sheets.iter().fold(0, |v, s| v | s.read[i]).count_ones());
                written += u64::from(sheets.iter().fold(0, |v, s| v | s.written[i]).count_ones());
            }
        }
        (read, written)
    }

    /// The bytes that any of the workers read and wrote, without those that were last touched by atomics: these order
    /// themselves. For launches that were checked.
    pub(crate) fn footprint(workers: &[&Touch]) -> Footprint {
        let mut pages: Vec<usize> = workers.iter().flat_map(|t| t.live.iter().copied()).collect();
        pages.sort_unstable();
        pages.dedup();
        let mut f = Footprint::default();
        for page in pages {
            let sheets: Vec<(&Sheet, u32)> = workers
                .iter()
                .filter_map(|t| Some((t.sheets.get(page)?.as_deref().filter(|s| s.live)?, t.base << 3)))
                .collect();
            for i in 0..WORDS {
                let read = sheets.iter().fold(0, |v, (s, _)| v | s.read[i]);
                let written = sheets.iter().fold(0, |v, (s, _)| v | s.written[i]);
                if read | written == 0 {
                    continue;
                }
                let mut plain = u64::MAX;
                for (s, first) in &sheets {
                    for (g, tag) in s.writer[32 * i..32 * i + 32].iter().enumerate() {
                        if *tag >= *first && tag & ATOMIC != 0 {
                            plain &= !(3 << (2 * g));
                        }
                    }
                }
                let base = address(page, 64 * i);
                extend_bits(&mut f.read, base, read & plain);
                extend_bits(&mut f.written, base, written & plain);
            }
        }
        f
    }

    /// The lowest byte that blocks of two workers touched, one writing: (page, conflict seen from `b`, block of `b`).
    pub(crate) fn between(a: &Touch, b: &Touch) -> Option<(usize, Conflict, u64)> {
        let mut pages = a.live.clone();
        pages.sort_unstable();
        for page in pages {
            let (Some(Some(x)), Some(Some(y))) = (a.sheets.get(page), b.sheets.get(page)) else { continue };
            if !x.live || !y.live {
                continue;
            }
            for i in 0..WORDS {
                let hit = x.written[i] & (y.written[i] | y.read[i]) | x.read[i] & y.written[i];
                if hit == 0 {
                    continue;
                }
                let at = 64 * i + hit.trailing_zeros() as usize;
                let bit = 1u64 << (at % 64);
                let block = |t: &Touch, s: &Sheet, wrote: bool| {
                    let tag = if wrote { s.writer[at / 2] } else { s.reader[at / 2] };
                    t.block_of((tag >> 3).max(t.base))
                };
                let (xw, yw) = (x.written[i] & bit != 0, y.written[i] & bit != 0);
                let instruction = if xw { x.writer_at[at / 2] } else { y.writer_at[at / 2] };
                let conflict = Conflict {
                    other: block(a, x, xw),
                    at,
                    wrote: xw,
                    many: false,
                    instruction: Some(instruction),
                };
                return Some((x.index, conflict, block(b, y, yw)));
            }
        }
        None
    }
}

/// The address of a byte of a page.
pub(crate) fn address(page: usize, at: usize) -> u64 {
    super::BASE + ((page as u64) << super::PAGE_BITS) + at as u64
}

/// Which bytes of a pair lie in a range.
#[inline(always)]
fn pair(g: usize, at: usize, len: usize) -> u32 {
    u32::from(2 * g >= at) | u32::from(2 * g + 1 < at + len) << 1
}

#[inline(always)]
fn set(bits: &mut [u64], at: usize, len: usize) {
    let (mut i, end) = (at, at + len);
    while i < end {
        let n = (64 - i % 64).min(end - i);
        let ones = if n == 64 { u64::MAX } else { (1 << n) - 1 };
        bits[i / 64] |= ones << (i % 64);
        i += n;
    }
}

impl Memory {
    /// A worker's table, reused between launches.
    pub(crate) fn take_touch(&self) -> Touch {
        self.touches.lock().unwrap_or_else(|e| e.into_inner()).pop().unwrap_or_else(Touch::new)
    }

    /// Gives a table back.
    pub(crate) fn give_touch(&self, touch: Touch) {
        self.touches.lock().unwrap_or_else(|e| e.into_inner()).push(touch);
    }

    /// Text that kernels printed since the last call.
    pub fn take_printed(&self) -> String {
        std::mem::take(&mut *self.printed.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub(crate) fn print(&self, text: &str) {
        self.printed.lock().unwrap_or_else(|e| e.into_inner()).push_str(text);
    }

    /// Number of launches so far, for `%gridid`.
    pub(crate) fn next_grid(&self) -> u64 {
        self.grids.fetch_add(1, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Touch, Order, Order) {
        let mut t = Touch::new();
        t.begin();
        let (a, b) = (t.enter(0), t.enter(1));
        (t, a, b)
    }

    #[test]
    fn two_writers_or_a_writer_and_a_reader_conflict() {
        let (mut t, a, b) = two();
        assert_eq!(t.write(0, 64, 8, &a, 5, false, true), None);
        assert_eq!(t.read(0, 64, 8, &a, true), None, "a block may read what it wrote");
        let c = t.read(0, 68, 4, &b, true).expect("block 0 wrote there");
        assert_eq!((c.other, c.at, c.wrote, c.instruction), (0, 68, true, Some(5)));
        assert!(t.write(0, 71, 1, &b, 6, false, true).is_some());
        assert_eq!(t.read(0, 72, 4, &b, true), None);
        let c = t.write(0, 72, 4, &a, 7, false, true).expect("block 1 read there");
        assert_eq!((c.other, c.wrote), (1, false));
    }

    #[test]
    fn neighbouring_bytes_of_a_pair_are_no_conflict() {
        let (mut t, a, b) = two();
        assert_eq!(t.write(0, 10, 1, &a, 0, false, true), None);
        assert_eq!(t.write(0, 11, 1, &b, 0, false, true), None);
        assert_eq!(t.read(0, 21, 1, &a, true), None);
        assert_eq!(t.read(0, 20, 1, &b, true), None);
        assert_eq!(t.write(0, 20, 1, &b, 0, false, true), None);
    }

    #[test]
    fn atomics_conflict_with_plain_accesses_only() {
        let (mut t, a, b) = two();
        assert_eq!(t.write(0, 0, 4, &a, 0, true, true), None);
        assert_eq!(t.write(0, 0, 4, &b, 0, true, true), None);
        assert!(t.read(0, 0, 4, &a, true).is_some());
        assert_eq!(t.write(0, 8, 4, &a, 0, false, true), None);
        assert!(t.write(0, 8, 4, &b, 0, true, true).is_some());
    }

    #[test]
    fn a_fence_and_an_atomic_order_blocks() {
        let (mut t, mut a, mut b) = two();
        assert_eq!(t.write(0, 0, 4, &a, 0, false, true), None);
        t.fence(&mut a);
        t.synchronise(&mut a);
        assert_eq!(t.write(0, 16, 4, &a, 0, false, true), None, "after the release");
        t.synchronise(&mut b);
        assert_eq!(t.read(0, 0, 4, &b, true), None);
        assert!(t.read(0, 16, 4, &b, true).is_some());
    }

    #[test]
    fn without_the_fence_the_atomic_orders_nothing() {
        let (mut t, mut a, mut b) = two();
        assert_eq!(t.write(0, 0, 4, &a, 0, false, true), None);
        t.synchronise(&mut a);
        t.synchronise(&mut b);
        assert!(t.read(0, 0, 4, &b, true).is_some());
    }

    #[test]
    fn a_new_launch_forgets() {
        let (mut t, a, _) = two();
        assert_eq!(t.write(0, 0, 4, &a, 0, false, true), None);
        t.begin();
        let b = t.enter(1);
        assert_eq!(t.read(0, 0, 4, &b, true), None);
        assert_eq!(Touch::distinct(&[&t]), (4, 0));
    }

    #[test]
    fn conflicts_between_workers_are_found_afterwards() {
        let (mut s, mut t) = (Touch::new(), Touch::new());
        s.begin();
        t.begin();
        let (a, b) = (s.enter(3), t.enter(4));
        assert_eq!(s.write(2, 100, 4, &a, 9, false, true), None);
        assert_eq!(t.read(2, 96, 4, &b, true), None);
        assert_eq!(Touch::between(&s, &t), None);
        assert_eq!(t.read(2, 102, 2, &b, true), None);
        let (page, c, mine) = Touch::between(&s, &t).expect("both touched byte 102");
        assert_eq!((page, c.at, c.other, mine, c.instruction), (2, 102, 3, 4, Some(9)));
        assert_eq!(Touch::distinct(&[&s, &t]), (6, 4));
    }
}
