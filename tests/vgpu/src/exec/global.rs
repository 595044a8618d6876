//! Accesses of a warp to device memory: runs of adjacent bytes, checks, tags of who touched what, elements.

use crate::fault::FaultKind;
use crate::memory::touch::{self, Conflict};
use crate::memory::{Memory, MemoryError, PAGE_BYTES};

use super::alu::lanes;
use super::rows::FULL;
use super::{Cx, Trouble};

/// Runs of adjacent bytes: start and length.
pub(super) struct Runs {
    pub n: usize,
    pub start: [u64; 32],
    pub len: [u32; 32],
}

impl Runs {
    #[inline(always)]
    pub(super) fn of(a: &[u64; 32], bytes: u32, m: u32) -> Runs {
        let mut runs = Runs { n: 1, start: [0; 32], len: [0; 32] };
        if m == FULL {
            let mut apart = 0;
            for l in 0..32 {
                apart |= a[l].wrapping_sub(a[0]) ^ (l as u64 * u64::from(bytes));
            }
            if apart == 0 {
                runs.start[0] = a[0];
                runs.len[0] = 32 * bytes;
                return runs;
            }
        }
        runs.n = 0;
        let mut end = 0;
        let mut last = u64::MAX;
        for l in lanes(m) {
            let x = a[l];
            if x == last && runs.n > 0 {
                continue;
            }
            last = x;
            if runs.n > 0 && x == end {
                runs.len[runs.n - 1] += bytes;
            } else {
                runs.start[runs.n] = x;
                runs.len[runs.n] = bytes;
                runs.n += 1;
            }
            end = x.wrapping_add(bytes.into());
        }
        runs
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.start[..self.n].iter().copied().zip(self.len[..self.n].iter().copied())
    }

    /// Distinct 32-byte sectors.
    #[inline(always)]
    pub(super) fn sectors(&self) -> u64 {
        let span = |s: u64, n: u32| (s >> 5, (s.wrapping_add(u64::from(n)).wrapping_sub(1)) >> 5);
        if self.n == 1 {
            let (a, b) = span(self.start[0], self.len[0]);
            return b.wrapping_sub(a) + 1;
        }
        let mut spans = [(0u64, 0u64); 32];
        let mut sorted = true;
        for (i, (s, n)) in self.iter().enumerate() {
            spans[i] = span(s, n);
            sorted &= i == 0 || spans[i - 1].0 <= spans[i].0;
        }
        if !sorted {
            spans[..self.n].sort_unstable();
        }
        let mut count = 0;
        let mut next = 0;
        for (a, b) in &spans[..self.n] {
            let from = (*a).max(next);
            if *b >= from {
                count += b - from + 1;
                next = b + 1;
            }
        }
        count
    }
}

fn culprit(a: &[u64; 32], bytes: u32, m: u32, at: u64) -> usize {
    lanes(m).find(|l| at.wrapping_sub(a[*l]) < u64::from(bytes)).unwrap_or(m.trailing_zeros() as usize)
}

#[cold]
pub(super) fn memory_trouble(e: MemoryError, a: &[u64; 32], bytes: u32, pc: u32, m: u32) -> Trouble {
    let at = match &e {
        MemoryError::OutOfBounds { at, .. }
        | MemoryError::UseAfterFree { at, .. }
        | MemoryError::Uninitialised { at, .. }
        | MemoryError::ReadOnly { at, .. } => *at,
        _ => 0,
    };
    Trouble::new(FaultKind::from(&e), pc, culprit(a, bytes, m, at), e.to_string())
}

#[cold]
fn race_trouble(
    cx: &Cx<'_>,
    c: Conflict,
    page: usize,
    who: (&[u64; 32], u32, u32, u32),
    writes: bool,
) -> Trouble {
    let (a, bytes, m, pc) = who;
    let at = touch::address(page, c.at);
    let other = if c.many { "several blocks".to_string() } else { cx.block_name(c.other) };
    let line = c.instruction.map(|i| format!(" (ptx line {})", cx.line(i))).unwrap_or_default();
    let did = if c.wrote { "wrote" } else { "read" };
    let does = if writes { "writes" } else { "reads" };
    let text =
        format!("this block {does} {at:#x}, which {other} {did}{line} with nothing between to order them");
    Trouble::new(FaultKind::GlobalRace, pc, culprit(a, bytes, m, at), text)
}

/// Cuts a run at page borders.
fn by_page(
    start: u64,
    len: u32,
    mut f: impl FnMut(usize, usize, usize) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let (mut at, end) = (start, start + u64::from(len));
    while at < end {
        let page = Memory::page_index(at);
        let offset = (at.wrapping_sub(crate::memory::BASE)) as usize & (PAGE_BYTES - 1);
        let n = ((end - at) as usize).min(PAGE_BYTES - offset);
        f(page, offset, n)?;
        at += n as u64;
    }
    Ok(())
}

/// Checks and notes that lanes read; the bytes may then be copied.
#[inline(always)]
pub(super) fn check_read(
    cx: &mut Cx<'_>,
    a: &[u64; 32],
    runs: &Runs,
    bytes: u32,
    pc: u32,
    m: u32,
    (constant, strong): (bool, bool),
) -> Result<(), Trouble> {
    for (start, len) in runs.iter() {
        let good = match cx.memory.page(start) {
            Some((page, at)) if at + len as usize <= PAGE_BYTES => page.readable(at, len as usize),
            _ => false,
        };
        if !good {
            cx.memory.check_read(start, len.into()).map_err(|e| memory_trouble(e, a, bytes, pc, m))?;
        }
        if constant {
            continue;
        }
        by_page(start, len, |page, at, n| {
            match cx.touch.read(page, at, n, cx.order, cx.checks && !strong) {
                None => Ok(()),
                Some(c) => Err(race_trouble(cx, c, page, (a, bytes, m, pc), false)),
            }
        })?;
    }
    Ok(())
}

/// Checks and notes that lanes write; the bytes are then marked as written.
#[inline(always)]
pub(super) fn check_write(
    cx: &mut Cx<'_>,
    a: &[u64; 32],
    runs: &Runs,
    bytes: u32,
    pc: u32,
    m: u32,
    atomic: bool,
) -> Result<(), Trouble> {
    for (start, len) in runs.iter() {
        let good = match cx.memory.page(start) {
            Some((page, at)) if at + len as usize <= PAGE_BYTES => page.mark_written(at, len as usize),
            _ => false,
        };
        if !good {
            cx.memory.check_write(start, len.into()).map_err(|e| memory_trouble(e, a, bytes, pc, m))?;
        }
        by_page(start, len, |page, at, n| {
            match cx.touch.write(page, at, n, cx.order, pc, atomic, cx.checks) {
                None => Ok(()),
                Some(c) => Err(race_trouble(cx, c, page, (a, bytes, m, pc), true)),
            }
        })?;
    }
    Ok(())
}

/// One element of device memory; checked before.
#[inline(always)]
pub(super) fn peek(memory: &Memory, address: u64, bytes: u32) -> u64 {
    let Some((page, at)) = memory.page(address) else { return 0 };
    match bytes {
        1 => page.load_u8(at).into(),
        2 => page.load_u16(at).into(),
        4 => page.load_u32(at).into(),
        _ => page.load_u64(at),
    }
}

#[inline(always)]
pub(super) fn poke(memory: &Memory, address: u64, bytes: u32, v: u64) {
    let Some((page, at)) = memory.page(address) else { return };
    match bytes {
        1 => page.store_u8(at, v as u8),
        2 => page.store_u16(at, v as u16),
        4 => page.store_u32(at, v as u32),
        _ => page.store_u64(at, v),
    }
}
