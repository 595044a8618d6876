//! Shared memory of a block: bytes, which of them were written, and who touched them since which synchronisation.
//!
//! Races are found by vector clocks: the block's time advances at every synchronisation; warp `w` knows, for every warp
//! `v`, the time before which all accesses of `v` happened before its own next one. Lanes of one warp are ordered by
//! warp barriers only. As in device memory two bytes share a tag, and nothing innocent is reported.

use crate::fault::FaultKind;

/// The ways in which an access can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    OutOfBounds,
    Uninitialised,
    Race(Other),
}

/// The other party of a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Other {
    pub warp: u32,
    /// `None` if several lanes read.
    pub lane: Option<u32>,
    pub instruction: u32,
    pub wrote: bool,
}

impl Wrong {
    pub(crate) fn kind(self) -> FaultKind {
        match self {
            Wrong::OutOfBounds => FaultKind::OutOfBounds,
            Wrong::Uninitialised => FaultKind::UninitialisedRead,
            Wrong::Race(_) => FaultKind::SharedRace,
        }
    }
}

// A tag: clock 30 | instruction 19 | warp 5 | lane 5 | several lanes 1 | several warps 1 | atomic 1 | bytes 2.
const CLOCK: u32 = 34;
const ATOMIC: u64 = 4;
const WARPS: u64 = 8;
const LANES: u64 = 16;
const MAX_TIME: u64 = 1 << 29;

/// Who accesses, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    pub warp: u32,
    pub lane: u32,
    pub instruction: u32,
}

/// Shared memory with its shadow.
pub(crate) struct Shared {
    bytes: Vec<u8>,
    written: Vec<u8>,
    writer: Vec<u64>,
    reader: Vec<u64>,
    /// Clocks of readers of several warps; the tag holds the index.
    many: Vec<[u64; 32]>,
    time: u64,
    /// All accesses before this time happened before everything that follows.
    floor: u64,
    /// What each warp knows of each.
    known: Vec<[u64; 32]>,
    races: bool,
}

impl Shared {
    pub(crate) fn new(races: bool) -> Shared {
        Shared {
            bytes: Vec::new(),
            written: Vec::new(),
            writer: Vec::new(),
            reader: Vec::new(),
            many: Vec::new(),
            time: 1,
            floor: 1,
            known: Vec::new(),
            races,
        }
    }

    /// Fresh memory for a block.
    pub(crate) fn begin(&mut self, len: usize, warps: usize) {
        self.bytes.clear();
        self.bytes.resize(len, 0);
        self.written.clear();
        self.written.resize(len, 0);
        let tags = if self.races { len.div_ceil(2) } else { 0 };
        if self.time > MAX_TIME {
            self.time = 1;
            self.writer.clear();
            self.reader.clear();
        }
        self.writer.resize(tags, 0);
        self.reader.resize(tags, 0);
        self.time += 1;
        self.floor = self.time;
        self.many.clear();
        self.known.clear();
        self.known.resize(warps, [self.time; 32]);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes; the caller has checked.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes; the caller has checked.
    #[inline(always)]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// True if every byte of a range was written. The range exists.
    #[inline(always)]
    fn all_written(&self, at: usize, len: usize) -> bool {
        let marks = &self.written[at..at + len];
        match marks {
            [a, b, c, d] => a & b & c & d != 0,
            [a, b] => a & b != 0,
            _ => marks.iter().fold(1, |v, m| v & m) != 0,
        }
    }

    #[inline(always)]
    fn ordered(&self, tag: u64, who: Who) -> bool {
        let clock = tag >> CLOCK;
        if clock < self.floor {
            return true;
        }
        let warp = (tag >> 10 & 31) as u32;
        if warp == who.warp && tag & LANES == 0 && (tag >> 5 & 31) as u32 == who.lane {
            return true;
        }
        clock < self.known[who.warp as usize][warp as usize]
    }

    fn tag(&self, who: Who, mask: u64) -> u64 {
        self.time << CLOCK
            | u64::from(who.instruction & 0x7ffff) << 15
            | u64::from(who.warp) << 10
            | u64::from(who.lane) << 5
            | mask
    }

    fn other(&self, tag: u64, wrote: bool) -> Wrong {
        let lane = (tag & (LANES | WARPS) == 0).then_some((tag >> 5 & 31) as u32);
        Wrong::Race(Other {
            warp: (tag >> 10 & 31) as u32,
            lane,
            instruction: (tag >> 15 & 0x7ffff) as u32,
            wrote,
        })
    }

    /// Checks and notes a read.
    #[inline]
    pub(crate) fn read(&mut self, at: u64, len: usize, who: Who) -> Result<(), Wrong> {
        let at = self.range(at, len)?;
        if !self.all_written(at, len) {
            return Err(Wrong::Uninitialised);
        }
        if !self.races {
            return Ok(());
        }
        let floor = self.floor << CLOCK;
        for g in at / 2..(at + len).div_ceil(2) {
            let mask = pair(g, at, len);
            let w = self.writer[g];
            if w >= floor && w & mask != 0 && !self.ordered(w, who) {
                return Err(self.other(w, true));
            }
            let r = self.reader[g];
            self.reader[g] = if r < floor { self.tag(who, mask) } else { self.join(r, mask, who) };
        }
        Ok(())
    }

    /// Checks and notes a read of `len` bytes by every active lane. An error names its lane.
    #[inline(always)]
    pub(crate) fn read_lanes(
        &mut self,
        a: &[u64; 32],
        len: usize,
        m: u32,
        warp: u32,
        instruction: u32,
    ) -> Result<(), (usize, Wrong)> {
        let first = m.trailing_zeros() as usize;
        let mut apart = 0;
        for (l, x) in a.iter().enumerate() {
            apart |= if m >> l & 1 == 1 { x ^ a[first] } else { 0 };
        }
        let who = |lane: usize| Who { warp, lane: lane as u32, instruction };
        if apart == 0 && m & (m - 1) != 0 && self.read_together(a[first], len, who(first)) {
            return Ok(());
        }
        let (floor, base) = (self.floor << CLOCK, self.tag(who(0), 3));
        // Reads of this warp before its last warp barrier need no memory.
        let synced = self.known[warp as usize][warp as usize];
        let mut rest = m;
        while rest != 0 {
            let l = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let at = a[l] as usize;
            let fits = a[l].checked_add(len as u64).is_some_and(|end| end <= self.bytes.len() as u64);
            if !fits || (at | len) & 1 != 0 {
                self.read(a[l], len, who(l)).map_err(|w| (l, w))?;
                continue;
            }
            if !self.all_written(at, len) {
                return Err((l, Wrong::Uninitialised));
            }
            if !self.races {
                continue;
            }
            let tag = base | (l as u64) << 5;
            for g in at / 2..(at + len) / 2 {
                let (w, r) = (self.writer[g], self.reader[g]);
                let new = if w >= floor {
                    None
                } else if r < floor {
                    Some(tag)
                } else if r & 3 != 3 {
                    None
                } else if r & WARPS != 0 {
                    self.many[(r >> 5 & 0x1fff_ffff) as usize][warp as usize] = self.time;
                    Some(r)
                } else if (r >> 10 & 31) as u32 != warp {
                    None
                } else if r >> CLOCK < synced || r & (31 << 5 | LANES) == tag & (31 << 5) {
                    Some(tag)
                } else {
                    Some(tag | LANES)
                };
                match new {
                    Some(tag) => self.reader[g] = tag,
                    None => {
                        self.read(a[l], len, who(l)).map_err(|w| (l, w))?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// A read of the same bytes by several lanes, if nothing about it needs to know the lane.
    fn read_together(&mut self, at: u64, len: usize, who: Who) -> bool {
        let Ok(at) = self.range(at, len) else { return false };
        if !self.all_written(at, len) {
            return false;
        }
        if !self.races {
            return true;
        }
        let (floor, several) = (self.floor << CLOCK, self.tag(who, 3) | LANES);
        // The tag of several lanes of this warp, whatever the instruction and lane.
        let whose = |tag: u64| (tag >> 10 & 31, tag & (LANES | WARPS));
        if (at | len) & 1 != 0 {
            return false;
        }
        let (lo, hi) = (at / 2, (at + len) / 2);
        let simple = self.writer[lo..hi].iter().zip(&self.reader[lo..hi]).all(|(w, r)| {
            *w < floor && (*r < floor || whose(*r) == whose(several) || *r & WARPS != 0 && *r & 3 == 3)
        });
        if !simple {
            return false;
        }
        for g in lo..hi {
            let r = self.reader[g];
            if r >= floor && r & WARPS != 0 {
                self.many[(r >> 5 & 0x1fff_ffff) as usize][who.warp as usize] = self.time;
            } else {
                self.reader[g] = several;
            }
        }
        true
    }

    /// The reader's tag after one more reader.
    fn join(&mut self, old: u64, mask: u64, who: Who) -> u64 {
        if old & WARPS != 0 {
            if old & mask == 0 {
                return self.tag(who, mask);
            }
            let index = (old >> 5 & 0x1fff_ffff) as usize;
            self.many[index][who.warp as usize] = self.time;
            return old & !3 | old & mask;
        }
        let warp = (old >> 10 & 31) as u32;
        if old & mask == 0 || self.ordered(old, who) {
            // The old reader needs no memory: what orders a writer after this one orders it after that one too.
            let same = old & !3 & ((1 << CLOCK) - 1) == self.tag(who, 0) & ((1 << CLOCK) - 1);
            return self.tag(who, if same { mask | old & 3 } else { mask });
        }
        if warp == who.warp {
            return self.tag(who, old & mask) | LANES;
        }
        if self.many.len() >= 1 << 28 {
            return self.tag(who, mask);
        }
        let mut clocks = [0; 32];
        clocks[warp as usize] = old >> CLOCK;
        clocks[who.warp as usize] = self.time;
        self.many.push(clocks);
        self.time << CLOCK | (self.many.len() as u64 - 1) << 5 | WARPS | old & mask
    }

    /// Checks that bytes exist and were written.
    pub(crate) fn known(&self, at: u64, len: usize) -> Result<(), Wrong> {
        let at = self.range(at, len)?;
        if !self.all_written(at, len) { Err(Wrong::Uninitialised) } else { Ok(()) }
    }

    /// Checks and notes a write; marks the bytes written.
    #[inline]
    pub(crate) fn write(&mut self, at: u64, len: usize, who: Who, atomic: bool) -> Result<(), Wrong> {
        let at = self.claim(at, len, who, atomic)?;
        self.written[at..at + len].fill(1);
        Ok(())
    }

    /// As `write` for bytes that arrive later: they count as unwritten until [`Shared::deliver`].
    pub(crate) fn promise(&mut self, at: u64, len: usize, who: Who) -> Result<(), Wrong> {
        let at = self.claim(at, len, who, false)?;
        self.written[at..at + len].fill(0);
        Ok(())
    }

    /// The promised bytes arrive; from now on they are this lane's latest write.
    pub(crate) fn deliver(&mut self, at: usize, bytes: &[u8], who: Who) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.written[at..at + bytes.len()].fill(1);
        if self.races {
            for g in at / 2..(at + bytes.len()).div_ceil(2) {
                self.writer[g] = self.tag(who, pair(g, at, bytes.len()));
            }
        }
    }

    fn claim(&mut self, at: u64, len: usize, who: Who, atomic: bool) -> Result<usize, Wrong> {
        let at = self.range(at, len)?;
        if !self.races {
            return Ok(at);
        }
        let floor = self.floor << CLOCK;
        let flag = if atomic { ATOMIC } else { 0 };
        for g in at / 2..(at + len).div_ceil(2) {
            let mask = pair(g, at, len);
            let w = self.writer[g];
            if w >= floor && w & mask != 0 && !(atomic && w & ATOMIC != 0) && !self.ordered(w, who) {
                return Err(self.other(w, true));
            }
            let r = self.reader[g];
            if r >= floor && r & mask != 0 {
                if r & WARPS != 0 {
                    let clocks = &self.many[(r >> 5 & 0x1fff_ffff) as usize];
                    let known = &self.known[who.warp as usize];
                    if let Some(v) = (0..32).find(|v| clocks[*v] >= known[*v] && *v != who.warp as usize) {
                        return Err(Wrong::Race(Other {
                            warp: v as u32,
                            lane: None,
                            instruction: 0,
                            wrote: false,
                        }));
                    }
                } else if !self.ordered(r, who) {
                    return Err(self.other(r, false));
                }
            }
            let keep = if w & !3 == self.tag(who, 0) | flag { w & 3 } else { 0 };
            self.writer[g] = self.tag(who, mask | keep) | flag;
        }
        Ok(at)
    }

    #[inline(always)]
    fn range(&self, at: u64, len: usize) -> Result<usize, Wrong> {
        match at.checked_add(len as u64) {
            Some(end) if end <= self.bytes.len() as u64 => Ok(at as usize),
            _ => Err(Wrong::OutOfBounds),
        }
    }

    /// A warp barrier: its lanes know each other's accesses.
    pub(crate) fn warp_barrier(&mut self, warp: u32) {
        self.time += 1;
        self.known[warp as usize][warp as usize] = self.time;
    }

    /// A warp arrives at a block barrier: what those who pass it will know.
    pub(crate) fn arrive(&mut self, warp: u32, gathered: &mut [u64; 32]) {
        self.time += 1;
        for (g, k) in gathered.iter_mut().zip(&self.known[warp as usize]) {
            *g = (*g).max(*k);
        }
        gathered[warp as usize] = self.time;
    }

    /// A warp passes a block barrier.
    pub(crate) fn pass(&mut self, warp: u32, gathered: &[u64; 32]) {
        for (k, g) in self.known[warp as usize].iter_mut().zip(gathered) {
            *k = (*k).max(*g);
        }
    }

    /// All warps of the block have passed one barrier together.
    pub(crate) fn everyone(&mut self) {
        self.time += 1;
        self.floor = self.time;
        for k in &mut self.known {
            *k = [self.time; 32];
        }
        self.many.clear();
    }
}

#[inline(always)]
fn pair(g: usize, at: usize, len: usize) -> u64 {
    u64::from(2 * g >= at) | u64::from(2 * g + 1 < at + len) << 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(warp: u32, lane: u32) -> Who {
        Who { warp, lane, instruction: 1 }
    }

    fn fresh() -> Shared {
        let mut s = Shared::new(true);
        s.begin(256, 4);
        s
    }

    #[test]
    fn reads_before_writes_and_outside_are_wrong() {
        let mut s = fresh();
        assert_eq!(s.read(0, 4, who(0, 0)), Err(Wrong::Uninitialised));
        assert_eq!(s.read(254, 4, who(0, 0)), Err(Wrong::OutOfBounds));
        assert_eq!(s.write(u64::MAX, 4, who(0, 0), false), Err(Wrong::OutOfBounds));
        s.write(0, 4, who(0, 0), false).unwrap();
        s.read(0, 4, who(0, 0)).unwrap();
    }

    #[test]
    fn warps_need_a_block_barrier_between_them() {
        let mut s = fresh();
        s.write(0, 4, who(0, 0), false).unwrap();
        assert!(matches!(s.read(0, 4, who(1, 0)), Err(Wrong::Race(o)) if o.warp == 0 && o.wrote));
        s.everyone();
        s.read(0, 4, who(1, 0)).unwrap();
        assert!(matches!(s.write(0, 4, who(2, 0), false), Err(Wrong::Race(o)) if o.warp == 1 && !o.wrote));
        s.read(0, 4, who(3, 7)).unwrap();
        assert!(matches!(s.write(0, 4, who(1, 0), false), Err(Wrong::Race(o)) if o.warp == 3));
        s.everyone();
        s.write(0, 4, who(2, 0), false).unwrap();
    }

    #[test]
    fn lanes_of_a_warp_need_a_warp_barrier() {
        let mut s = fresh();
        s.write(8, 4, who(1, 3), false).unwrap();
        assert!(matches!(s.read(8, 4, who(1, 4)), Err(Wrong::Race(_))));
        s.warp_barrier(1);
        s.read(8, 4, who(1, 4)).unwrap();
        s.read(8, 4, who(1, 5)).unwrap();
        assert!(s.write(8, 4, who(1, 4), false).is_err(), "lane 5 read it");
        s.warp_barrier(1);
        s.write(8, 4, who(1, 4), false).unwrap();
    }

    #[test]
    fn a_partial_barrier_orders_its_participants_only() {
        let mut s = fresh();
        s.write(0, 4, who(0, 0), false).unwrap();
        let mut gathered = [0; 32];
        s.arrive(0, &mut gathered);
        s.arrive(1, &mut gathered);
        s.pass(0, &gathered);
        s.pass(1, &gathered);
        s.read(0, 4, who(1, 0)).unwrap();
        assert!(s.read(0, 4, who(2, 0)).is_err());
    }

    #[test]
    fn atomics_conflict_with_plain_accesses_only() {
        let mut s = fresh();
        s.write(0, 4, who(0, 0), false).unwrap();
        s.everyone();
        s.write(0, 4, who(0, 0), true).unwrap();
        s.write(0, 4, who(1, 0), true).unwrap();
        assert!(s.read(0, 4, who(2, 0)).is_err());
    }

    #[test]
    fn promised_bytes_are_unwritten_until_delivered() {
        let mut s = fresh();
        s.promise(0, 16, who(0, 0)).unwrap();
        s.everyone();
        assert_eq!(s.read(0, 4, who(1, 0)), Err(Wrong::Uninitialised));
        s.deliver(0, &[7; 16], who(0, 0));
        assert!(matches!(s.read(0, 4, who(1, 0)), Err(Wrong::Race(_))), "no barrier since the wait");
        s.everyone();
        s.read(0, 4, who(1, 0)).unwrap();
        assert_eq!(s.bytes()[..16], [7; 16]);
    }

    #[test]
    fn neighbouring_halves_belong_to_their_lanes() {
        let mut s = fresh();
        for lane in 0..32 {
            s.write(2 * u64::from(lane), 2, who(0, lane), false).unwrap();
            s.read(2 * u64::from(lane), 2, who(0, lane)).unwrap();
        }
        for byte in 0..2 {
            s.write(100 + byte, 1, who(0, byte as u32), false).unwrap();
        }
    }
}
