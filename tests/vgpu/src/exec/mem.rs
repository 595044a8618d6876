//! Loads, stores and atomics of a warp.
//!
//! The lanes' addresses are cut into runs of adjacent bytes; checks, tags and copies work on runs, so that a coalesced
//! access costs little more than one access.

use crate::fault::FaultKind;
use crate::memory::touch::{self, Conflict};
use crate::memory::{Memory, MemoryError, PAGE_BYTES};
use crate::ptx::inst::*;
use crate::ptx::types::{Space, Ty, W};
use crate::schedule::Purpose;

use super::alu::lanes;
use super::rows::{FULL, Rows};
use super::scalar::float;
use super::shared::{Who, Wrong};
use super::warp::Warp;
use super::{Cx, Trouble, window};

/// Addresses of all lanes.
#[inline(always)]
pub(super) fn addresses(r: &Rows<'_>, slot: Slot, offset: i32, wide: bool) -> [u64; 32] {
    let mut out = [0; 32];
    let offset = i64::from(offset) as u64;
    if wide {
        let a = r.r64(slot);
        for l in 0..32 {
            out[l] = a[l].wrapping_add(offset);
        }
    } else {
        let a = r.r32(slot);
        for l in 0..32 {
            out[l] = u64::from(a[l]).wrapping_add(offset) & 0xffff_ffff;
        }
    }
    out
}

/// Refuses addresses that are no multiple of the access.
#[inline(always)]
pub(super) fn aligned(a: &[u64; 32], bytes: u64, pc: u32, m: u32) -> Result<(), Trouble> {
    let mut off = 0;
    for l in 0..32 {
        off |= u32::from(a[l] & (bytes - 1) != 0) << l;
    }
    match off & m {
        0 => Ok(()),
        off => {
            let l = off.trailing_zeros() as usize;
            Err(Trouble::new(FaultKind::Misaligned, pc, l, format!("{bytes} bytes at {:#x}", a[l])))
        }
    }
}

/// Runs of adjacent bytes: start and length.
struct Runs {
    n: usize,
    start: [u64; 32],
    len: [u32; 32],
}

impl Runs {
    #[inline(always)]
    fn of(a: &[u64; 32], bytes: u32, m: u32) -> Runs {
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

    fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.start[..self.n].iter().copied().zip(self.len[..self.n].iter().copied())
    }

    /// Distinct 32-byte sectors.
    #[inline(always)]
    fn sectors(&self) -> u64 {
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
    lanes(m)
        .find(|l| at.wrapping_sub(a[*l]) < u64::from(bytes))
        .unwrap_or(m.trailing_zeros() as usize)
}

#[cold]
fn memory_trouble(e: MemoryError, a: &[u64; 32], bytes: u32, pc: u32, m: u32) -> Trouble {
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
fn race_trouble(cx: &Cx<'_>, c: Conflict, page: usize, who: (&[u64; 32], u32, u32, u32), writes: bool) -> Trouble {
    let (a, bytes, m, pc) = who;
    let at = touch::address(page, c.at);
    let other = if c.many { "several blocks".to_string() } else { cx.block_name(c.other) };
    let line = c.instruction.map(|i| format!(" (ptx line {})", cx.line(i))).unwrap_or_default();
    let did = if c.wrote { "wrote" } else { "read" };
    let does = if writes { "writes" } else { "reads" };
    let text = format!("this block {does} {at:#x}, which {other} {did}{line} with nothing between to order them");
    Trouble::new(FaultKind::GlobalRace, pc, culprit(a, bytes, m, at), text)
}

/// Cuts a run at page borders.
fn by_page(start: u64, len: u32, mut f: impl FnMut(usize, usize, usize) -> Result<(), Trouble>) -> Result<(), Trouble> {
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
fn check_read(cx: &mut Cx<'_>, a: &[u64; 32], runs: &Runs, bytes: u32, pc: u32, m: u32, (constant, strong): (bool, bool)) -> Result<(), Trouble> {
    for (start, len) in runs.iter() {
        let good = match cx.memory.page(start) {
            Some((page, at)) if at + len as usize <= PAGE_BYTES => page.readable(at, len as usize),
            _ => false,
        };
        if !good {
            cx.memory
                .check_read(start, len.into())
                .map_err(|e| memory_trouble(e, a, bytes, pc, m))?;
        }
        if constant {
            continue;
        }
        by_page(start, len, |page, at, n| match cx.touch.read(page, at, n, cx.order, cx.checks && !strong) {
            None => Ok(()),
            Some(c) => Err(race_trouble(cx, c, page, (a, bytes, m, pc), false)),
        })?;
    }
    Ok(())
}

/// Checks and notes that lanes write; the bytes are then marked as written.
#[inline(always)]
fn check_write(cx: &mut Cx<'_>, a: &[u64; 32], runs: &Runs, bytes: u32, pc: u32, m: u32, atomic: bool) -> Result<(), Trouble> {
    for (start, len) in runs.iter() {
        let good = match cx.memory.page(start) {
            Some((page, at)) if at + len as usize <= PAGE_BYTES => page.mark_written(at, len as usize),
            _ => false,
        };
        if !good {
            cx.memory
                .check_write(start, len.into())
                .map_err(|e| memory_trouble(e, a, bytes, pc, m))?;
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
fn peek(memory: &Memory, address: u64, bytes: u32) -> u64 {
    let Some((page, at)) = memory.page(address) else { return 0 };
    match bytes {
        1 => page.load_u8(at).into(),
        2 => page.load_u16(at).into(),
        4 => page.load_u32(at).into(),
        _ => page.load_u64(at),
    }
}

#[inline(always)]
fn poke(memory: &Memory, address: u64, bytes: u32, v: u64) {
    let Some((page, at)) = memory.page(address) else { return };
    match bytes {
        1 => page.store_u8(at, v as u8),
        2 => page.store_u16(at, v as u16),
        4 => page.store_u32(at, v as u32),
        _ => page.store_u64(at, v),
    }
}

/// One element of a byte slice.
#[inline(always)]
fn slice_get(s: &[u8], at: usize, bytes: u32) -> u64 {
    match bytes {
        1 => s[at].into(),
        2 => u16::from_le_bytes([s[at], s[at + 1]]).into(),
        4 => u32::from_le_bytes(s[at..at + 4].try_into().expect("four bytes")).into(),
        _ => u64::from_le_bytes(s[at..at + 8].try_into().expect("eight bytes")),
    }
}

#[inline(always)]
fn slice_put(s: &mut [u8], at: usize, bytes: u32, v: u64) {
    let n = bytes as usize;
    s[at..at + n].copy_from_slice(&v.to_le_bytes()[..n]);
}

fn row_width(code: u32) -> W {
    match code {
        0 => W::W16,
        1 => W::W32,
        _ => W::W64,
    }
}

/// A loaded element as a register of a width holds it.
#[inline(always)]
fn extended(v: u64, ty: Ty, w: W) -> u64 {
    if ty.signed() {
        let n = 64 - 8 * ty.bytes();
        ((((v << n) as i64) >> n) as u64) & w.mask()
    } else {
        v
    }
}

#[inline(always)]
fn put(r: &mut Rows<'_>, d: Slot, w: W, l: usize, v: u64) {
    if w == W::W64 { r.w64(d)[l] = v } else { r.w32(d)[l] = v as u32 }
}

/// The row of an instruction's element.
#[inline(always)]
fn element(inst: &Inst, more: &[u32], vec: u8, e: usize) -> Slot {
    if vec > 1 { more[inst.d as usize + e] } else { inst.d }
}

/// Splits lanes with generic addresses by space; `f` gets addresses within the space.
fn spaces(
    a: &[u64; 32],
    pc: u32,
    m: u32,
    mut f: impl FnMut(Space, &[u64; 32], u32) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut rest = m;
    while rest != 0 {
        let first = rest.trailing_zeros() as usize;
        let space = window::classify(a[first]);
        if space == Space::Generic {
            let text = format!("generic address {:#x} lies in no space", a[first]);
            return Err(Trouble::new(FaultKind::OutOfBounds, pc, first, text));
        }
        let same = lanes(rest).fold(0, |s, l| s | u32::from(window::classify(a[l]) == space) << l);
        rest &= !same;
        let base = window::base(space);
        let mut inner = [0; 32];
        for l in 0..32 {
            inner[l] = a[l].wrapping_sub(base);
        }
        f(space, &inner, same)?;
    }
    Ok(())
}

/// `ld`.
pub(super) fn load(warp: &mut Warp, cx: &mut Cx<'_>, inst: &Inst, mem: Mem, pc: u32, m: u32) -> Result<(), Trouble> {
    let a = addresses(&warp.view(cx.consts), inst.a, inst.b as i32, mem.wide);
    aligned(&a, u64::from(mem.ty.bytes()) * u64::from(mem.vec), pc, m)?;
    if mem.strong && matches!(mem.space, Space::Global | Space::Generic) {
        cx.touch.synchronise(cx.order);
    }
    match mem.space {
        Space::Global | Space::Const => load_global(warp, cx, inst, mem, pc, m, &a),
        Space::Shared => load_shared(warp, cx, inst, mem, pc, m, &a),
        Space::Local => load_local(warp, cx, inst, mem, pc, m, &a),
        Space::Param => load_param(warp, cx, inst, mem, pc, m, &a),
        Space::Generic => spaces(&a, pc, m, |space, a, m| match space {
            Space::Shared => load_shared(warp, cx, inst, mem, pc, m, a),
            Space::Local => load_local(warp, cx, inst, mem, pc, m, a),
            Space::Param => load_param(warp, cx, inst, mem, pc, m, a),
            _ => load_global(warp, cx, inst, mem, pc, m, a),
        }),
    }
}

fn load_global(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    mem: Mem,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let size = mem.ty.bytes();
    let bytes = size * u32::from(mem.vec);
    let runs = Runs::of(a, bytes, m);
    let constant = mem.space == Space::Const;
    // A strong access takes part in synchronisation and is no race.
    check_read(cx, a, &runs, bytes, pc, m, (constant, mem.strong))?;
    if !constant {
        cx.tally.global.load_requests += 1;
        cx.tally.global.load_sectors += runs.sectors();
        cx.tally.global.load_bytes += u64::from(m.count_ones() * bytes);
    }
    let w = row_width(inst.c);
    let code = cx.code;
    let mut r = warp.view(cx.consts);
    if runs.n == 1
        && size == 4
        && w == W::W32
        && let Some((page, at)) = cx.memory.page(runs.start[0])
        && at + runs.len[0] as usize <= PAGE_BYTES
    {
        let one = if runs.len[0] == bytes && m.count_ones() > 1 { 0 } else { 1 };
        if m == FULL {
            for e in 0..usize::from(mem.vec) {
                let d = r.w32(element(inst, &code.more, mem.vec, e));
                for (l, d) in d.iter_mut().enumerate() {
                    *d = page.load_u32(at + l * one * bytes as usize + 4 * e);
                }
            }
            return Ok(());
        }
    }
    for l in lanes(m) {
        for e in 0..usize::from(mem.vec) {
            let v = peek(cx.memory, a[l] + e as u64 * u64::from(size), size);
            put(&mut r, element(inst, &code.more, mem.vec, e), w, l, extended(v, mem.ty, w));
        }
    }
    Ok(())
}

/// The trouble of an access to shared memory.
#[cold]
pub(super) fn shared_trouble(cx: &Cx<'_>, w: Wrong, at: u64, bytes: usize, pc: u32, lane: usize) -> Trouble {
    let text = match w {
        Wrong::OutOfBounds => {
            format!("{bytes} bytes at shared address {at:#x}; the block has {} bytes", cx.shared.len())
        }
        Wrong::Uninitialised => format!("{bytes} bytes at shared address {at:#x} were not all written by this block"),
        Wrong::Race(o) => {
            let who = match o.lane {
                Some(l) => format!("lane {l} of warp {}", o.warp),
                None => format!("several lanes, one of warp {},", o.warp),
            };
            let line = if o.instruction != 0 { format!(" (ptx line {})", cx.line(o.instruction)) } else { String::new() };
            let did = if o.wrote { "wrote" } else { "read" };
            format!("shared address {at:#x}: {who} {did} it{line} with no barrier between")
        }
    };
    Trouble::new(w.kind(), pc, lane, text)
}

/// Wavefronts of an access and those without conflicts. Lanes are served in groups of 32, 16 or 8 so that a group moves
/// at most 128 bytes; a group takes as many passes as its busiest bank has distinct words.
#[inline(always)]
pub(super) fn wavefronts(a: &[u64; 32], bytes: u32, m: u32) -> (u64, u64) {
    if bytes <= 4 {
        // Adjacent words, or one word for all: one pass.
        let mut adjacent = 0;
        let mut equal = 0;
        for l in 0..32 {
            let active = u64::from(m >> l & 1) * u64::MAX;
            adjacent |= (a[l].wrapping_sub(a[0]) ^ (l as u64 * u64::from(bytes))) & active;
            equal |= (a[l] ^ a[m.trailing_zeros() as usize]) & active;
        }
        if (adjacent == 0 && m & 1 == 1 && a[0] & 3 == 0) || equal == 0 {
            return (1, 1);
        }
    }
    let (size, words) = match bytes {
        16 => (8, 4),
        8 => (16, 2),
        _ => (32, 1),
    };
    let (mut passes, mut ideal) = (0, 0);
    for first in (0..32).step_by(size) {
        let group = m >> first & if size == 32 { FULL } else { (1 << size) - 1 };
        if group == 0 {
            continue;
        }
        let mut count = [0u8; 32];
        let mut seen = [[0u64; 4]; 32];
        let mut distinct = 0u64;
        let mut busiest = 0;
        let mut overflow: Vec<u64> = Vec::new();
        for l in lanes(group) {
            for k in 0..words {
                let word = (a[first + l] >> 2) + k;
                let bank = (word & 31) as usize;
                let n = usize::from(count[bank]);
                if seen[bank][..n.min(4)].contains(&word) || n > 4 && overflow.contains(&word) {
                    continue;
                }
                if n < 4 {
                    seen[bank][n] = word;
                } else {
                    overflow.push(word);
                }
                count[bank] += 1;
                distinct += 1;
                busiest = busiest.max(u64::from(count[bank]));
            }
        }
        passes += busiest;
        ideal += distinct.div_ceil(32);
    }
    (passes, ideal)
}

fn load_shared(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    mem: Mem,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let size = mem.ty.bytes();
    let bytes = size * u32::from(mem.vec);
    for l in lanes(m) {
        let who = Who { warp: warp.id, lane: l as u32, instruction: pc };
        if let Err(w) = cx.shared.read(a[l], bytes as usize, who)
            && !(mem.strong && matches!(w, Wrong::Race(_)))
        {
            return Err(shared_trouble(cx, w, a[l], bytes as usize, pc, l));
        }
    }
    let (passes, ideal) = wavefronts(a, bytes, m);
    cx.tally.shared.load_requests += 1;
    cx.tally.shared.load_wavefronts += passes;
    cx.tally.shared.load_ideal += ideal;
    let w = row_width(inst.c);
    let code = cx.code;
    let mut r = warp.view(cx.consts);
    let from = cx.shared.bytes();
    if mem.vec == 1 && size == 4 && w == W::W32 {
        let d = r.w32(inst.d);
        for l in lanes(m) {
            d[l] = slice_get(from, a[l] as usize, 4) as u32;
        }
        return Ok(());
    }
    for l in lanes(m) {
        for e in 0..usize::from(mem.vec) {
            let v = slice_get(from, a[l] as usize + e * size as usize, size);
            put(&mut r, element(inst, &code.more, mem.vec, e), w, l, extended(v, mem.ty, w));
        }
    }
    Ok(())
}

/// Where a lane's bytes lie in its warp's local memory.
fn local_at(cx: &Cx<'_>, a: u64, bytes: u32, pc: u32, l: usize) -> Result<usize, Trouble> {
    let frame = u64::from(cx.code.local_bytes);
    match a.checked_add(u64::from(bytes)) {
        Some(end) if end <= frame => Ok(l * frame as usize + a as usize),
        _ => {
            let text = format!("{bytes} bytes at local address {a:#x}; a thread has {frame} bytes");
            Err(Trouble::new(FaultKind::OutOfBounds, pc, l, text))
        }
    }
}

fn load_local(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    mem: Mem,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let size = mem.ty.bytes();
    let w = row_width(inst.c);
    cx.tally.local_requests += 1;
    for l in lanes(m) {
        let at = local_at(cx, a[l], size * u32::from(mem.vec), pc, l)?;
        for e in 0..usize::from(mem.vec) {
            let v = extended(slice_get(&warp.local, at + e * size as usize, size), mem.ty, w);
            let d = element(inst, &cx.code.more, mem.vec, e);
            put(&mut warp.view(cx.consts), d, w, l, v);
        }
    }
    Ok(())
}

fn load_param(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    mem: Mem,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let size = mem.ty.bytes();
    let bytes = size * u32::from(mem.vec);
    let w = row_width(inst.c);
    let mut r = warp.view(cx.consts);
    for l in lanes(m) {
        if a[l].checked_add(bytes.into()).is_none_or(|end| end > cx.params.len() as u64) {
            let text = format!("{bytes} bytes at parameter offset {:#x} of {}", a[l], cx.params.len());
            return Err(Trouble::new(FaultKind::OutOfBounds, pc, l, text));
        }
        for e in 0..usize::from(mem.vec) {
            let v = slice_get(cx.params, a[l] as usize + e * size as usize, size);
            put(&mut r, element(inst, &cx.code.more, mem.vec, e), w, l, extended(v, mem.ty, w));
        }
    }
    Ok(())
}

/// `st`.
pub(super) fn store(warp: &mut Warp, cx: &mut Cx<'_>, inst: &Inst, mem: Mem, pc: u32, m: u32) -> Result<(), Trouble> {
    let a = addresses(&warp.view(cx.consts), inst.a, inst.b as i32, mem.wide);
    aligned(&a, u64::from(mem.ty.bytes()) * u64::from(mem.vec), pc, m)?;
    if mem.strong && matches!(mem.space, Space::Global | Space::Generic) {
        cx.touch.synchronise(cx.order);
    }
    match mem.space {
        Space::Shared => store_shared(warp, cx, inst, mem, pc, m, &a),
        Space::Local => store_local(warp, cx, inst, mem, pc, m, &a),
        Space::Generic => spaces(&a, pc, m, |space, a, m| match space {
            Space::Shared => store_shared(warp, cx, inst, mem, pc, m, a),
            Space::Local => store_local(warp, cx, inst, mem, pc, m, a),
            Space::Param => {
                let l = m.trailing_zeros() as usize;
                Err(Trouble::new(FaultKind::ReadOnlyWrite, pc, l, "store to the kernel's parameters".into()))
            }
            _ => store_global(warp, cx, inst, mem, pc, m, a),
        }),
        _ => store_global(warp, cx, inst, mem, pc, m, &a),
    }
}

fn store_global(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    mem: Mem,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let size = mem.ty.bytes();
    let bytes = size * u32::from(mem.vec);
    let runs = Runs::of(a, bytes, m);
    check_write(cx, a, &runs, bytes, pc, m, mem.strong)?;
    cx.tally.global.store_requests += 1;
    cx.tally.global.store_sectors += runs.sectors();
    cx.tally.global.store_bytes += u64::from(m.count_ones() * bytes);
    let wide = row_width(inst.c) == W::W64;
    let code = cx.code;
    let r = warp.view(cx.consts);
    if runs.n == 1
        && m == FULL
        && size == 4
        && !wide
        && runs.len[0] == 32 * bytes
        && let Some((page, at)) = cx.memory.page(runs.start[0])
        && at + runs.len[0] as usize <= PAGE_BYTES
    {
        for e in 0..usize::from(mem.vec) {
            let v = r.r32(element(inst, &code.more, mem.vec, e));
            for (l, v) in v.iter().enumerate() {
                page.store_u32(at + l * bytes as usize + 4 * e, *v);
            }
        }
        return Ok(());
    }
    for l in lanes(m) {
        for e in 0..usize::from(mem.vec) {
            let v = r.lane(element(inst, &code.more, mem.vec, e), wide, l);
            poke(cx.memory, a[l] + e as u64 * u64::from(size), size, v);
        }
    }
    Ok(())
}

fn store_shared(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    mem: Mem,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let size = mem.ty.bytes();
    let bytes = size * u32::from(mem.vec);
    for l in lanes(m) {
        let who = Who { warp: warp.id, lane: l as u32, instruction: pc };
        let done = cx.shared.write(a[l], bytes as usize, who, mem.strong);
        done.map_err(|w| shared_trouble(cx, w, a[l], bytes as usize, pc, l))?;
    }
    let (passes, ideal) = wavefronts(a, bytes, m);
    cx.tally.shared.store_requests += 1;
    cx.tally.shared.store_wavefronts += passes;
    cx.tally.shared.store_ideal += ideal;
    let wide = row_width(inst.c) == W::W64;
    let code = cx.code;
    let r = warp.view(cx.consts);
    let to = cx.shared.bytes_mut();
    for l in lanes(m) {
        for e in 0..usize::from(mem.vec) {
            let v = r.lane(element(inst, &code.more, mem.vec, e), wide, l);
            slice_put(to, a[l] as usize + e * size as usize, size, v);
        }
    }
    Ok(())
}

fn store_local(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    mem: Mem,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let size = mem.ty.bytes();
    let wide = row_width(inst.c) == W::W64;
    cx.tally.local_requests += 1;
    for l in lanes(m) {
        let at = local_at(cx, a[l], size * u32::from(mem.vec), pc, l)?;
        for e in 0..usize::from(mem.vec) {
            let d = element(inst, &cx.code.more, mem.vec, e);
            let v = warp.view(cx.consts).lane(d, wide, l);
            slice_put(&mut warp.local, at + e * size as usize, size, v);
        }
    }
    Ok(())
}

/// The new value of an atomic.
fn combined(atom: Atom, old: u64, b: u64, c: u64) -> u64 {
    let ty = atom.ty;
    let w = ty.width();
    match atom.op {
        AtomOp::And => old & b,
        AtomOp::Or => old | b,
        AtomOp::Xor => old ^ b,
        AtomOp::Exch => b,
        AtomOp::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomOp::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        AtomOp::Min | AtomOp::Max => {
            let op = match (atom.op, ty.signed()) {
                (AtomOp::Min, true) => I2::MinS,
                (AtomOp::Min, false) => I2::MinU,
                (_, true) => I2::MaxS,
                (_, false) => I2::MaxU,
            };
            super::scalar::int::two(op, w, old, b)
        }
        AtomOp::Add => match ty {
            Ty::F32 => float::two32(F2::Add, Fm::PLAIN, old as u32, b as u32).into(),
            Ty::F64 => float::two64(F2::Add, crate::ptx::types::Rnd::Rn, old, b),
            Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 => {
                let kind = if matches!(ty, Ty::F16 | Ty::F16x2) { HalfKind::F16 } else { HalfKind::Bf16 };
                let packed = ty.bytes() == 4;
                let h = Half { kind, packed, ftz: false, sat: false, relu: false };
                float::two16(F2::Add, h, old as u32, b as u32).into()
            }
            _ => old.wrapping_add(b),
        },
    }
}

/// `atom` and `red`.
pub(super) fn atomic(warp: &mut Warp, cx: &mut Cx<'_>, inst: &Inst, atom: Atom, pc: u32, m: u32) -> Result<(), Trouble> {
    let a = addresses(&warp.view(cx.consts), inst.a, inst.b as i32, atom.wide);
    aligned(&a, atom.ty.bytes().into(), pc, m)?;
    cx.tally.atomics += u64::from(m.count_ones());
    match atom.space {
        Space::Shared => atomic_shared(warp, cx, inst, atom, pc, m, &a),
        Space::Generic => spaces(&a, pc, m, |space, a, m| match space {
            Space::Shared => atomic_shared(warp, cx, inst, atom, pc, m, a),
            Space::Global => atomic_global(warp, cx, inst, atom, pc, m, a),
            _ => {
                let l = m.trailing_zeros() as usize;
                Err(Trouble::new(FaultKind::OutOfBounds, pc, l, "atomic outside global and shared memory".into()))
            }
        }),
        _ => atomic_global(warp, cx, inst, atom, pc, m, &a),
    }
}

/// Lanes in the order of the schedule.
fn lane_order(warp: &Warp, cx: &Cx<'_>, m: u32) -> Vec<usize> {
    let all: Vec<usize> = lanes(m).collect();
    let key = cx.block_number << 28 ^ u64::from(warp.id) << 23 ^ warp.executed;
    let order = cx.schedule.order(Purpose::Lanes, key, all.len());
    order.into_iter().map(|i| all[i as usize]).collect()
}

fn apply(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    atom: Atom,
    m: u32,
    mut swap: impl FnMut(&mut Cx<'_>, usize, &mut dyn FnMut(u64) -> u64),
) {
    let [d, b, c] = {
        let at = inst.d as usize;
        [cx.code.more[at], cx.code.more[at + 1], cx.code.more[at + 2]]
    };
    let w = atom.ty.width();
    for l in lane_order(warp, cx, m) {
        let consts = cx.consts;
        let mut r = warp.view(consts);
        let (bv, cv) = (r.lane(b, w == W::W64, l), r.lane(c, w == W::W64, l));
        let mut before = 0;
        swap(cx, l, &mut |old| {
            before = old;
            combined(atom, old, bv, cv) & w.mask()
        });
        if atom.result {
            put(&mut r, d, w, l, before);
        }
    }
}

fn atomic_global(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    atom: Atom,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let bytes = atom.ty.bytes();
    let runs = Runs::of(a, bytes, m);
    cx.touch.synchronise(cx.order);
    for (start, len) in runs.iter() {
        cx.memory.check_read(start, len.into()).map_err(|e| memory_trouble(e, a, bytes, pc, m))?;
    }
    check_write(cx, a, &runs, bytes, pc, m, true)?;
    apply(warp, cx, inst, atom, m, |cx, l, f| {
        let new = f(peek(cx.memory, a[l], bytes));
        poke(cx.memory, a[l], bytes, new);
    });
    Ok(())
}

fn atomic_shared(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    atom: Atom,
    pc: u32,
    m: u32,
    a: &[u64; 32],
) -> Result<(), Trouble> {
    let bytes = atom.ty.bytes();
    for l in lanes(m) {
        let who = Who { warp: warp.id, lane: l as u32, instruction: pc };
        let done = cx.shared.known(a[l], bytes as usize).and_then(|()| cx.shared.write(a[l], bytes as usize, who, true));
        done.map_err(|w| shared_trouble(cx, w, a[l], bytes as usize, pc, l))?;
    }
    apply(warp, cx, inst, atom, m, |cx, l, f| {
        let new = f(slice_get(cx.shared.bytes(), a[l] as usize, bytes));
        slice_put(cx.shared.bytes_mut(), a[l] as usize, bytes, new);
    });
    Ok(())
}

/// Reads up to 16 bytes of device memory per lane, with all checks: the source of an asynchronous copy.
pub(super) fn gather(
    cx: &mut Cx<'_>,
    from: &[u64; 32],
    bytes: &[u32; 32],
    pc: u32,
    m: u32,
    out: &mut [[u8; 16]; 32],
) -> Result<(), Trouble> {
    // Lanes of one size together; in practice they all have the same.
    let mut rest = m;
    cx.tally.global.load_requests += 1;
    while rest != 0 {
        let n = bytes[rest.trailing_zeros() as usize];
        let same = lanes(rest).fold(0, |s, l| s | u32::from(bytes[l] == n) << l);
        rest &= !same;
        if n == 0 {
            continue;
        }
        let runs = Runs::of(from, n, same);
        check_read(cx, from, &runs, n, pc, same, (false, false))?;
        cx.tally.global.load_sectors += runs.sectors();
        cx.tally.global.load_bytes += u64::from(same.count_ones() * n);
        for l in lanes(same) {
            for i in 0..n {
                out[l][i as usize] = peek(cx.memory, from[l] + u64::from(i), 1) as u8;
            }
        }
    }
    Ok(())
}

/// Reads or writes one element per lane at arbitrary addresses of global or shared memory: the accesses of `wmma`.
pub(super) fn scattered(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    space: Space,
    a: &[u64; 32],
    bytes: u32,
    pc: u32,
    values: &mut [u64; 32],
    writes: bool,
) -> Result<(), Trouble> {
    aligned(a, bytes.into(), pc, FULL)?;
    let (space, base) = match space {
        Space::Generic => (window::classify(a[0]), window::base(window::classify(a[0]))),
        space => (space, 0),
    };
    let mut inner = [0; 32];
    for l in 0..32 {
        inner[l] = a[l].wrapping_sub(base);
    }
    match space {
        Space::Shared => {
            for l in 0..32 {
                let who = Who { warp: warp.id, lane: l as u32, instruction: pc };
                let n = bytes as usize;
                let done = if writes { cx.shared.write(inner[l], n, who, false) } else { cx.shared.read(inner[l], n, who) };
                done.map_err(|w| shared_trouble(cx, w, inner[l], n, pc, l))?;
                if writes {
                    slice_put(cx.shared.bytes_mut(), inner[l] as usize, bytes, values[l]);
                } else {
                    values[l] = slice_get(cx.shared.bytes(), inner[l] as usize, bytes);
                }
            }
        }
        Space::Global | Space::Const => {
            let runs = Runs::of(&inner, bytes, FULL);
            if writes {
                check_write(cx, &inner, &runs, bytes, pc, FULL, false)?;
                for l in 0..32 {
                    poke(cx.memory, inner[l], bytes, values[l]);
                }
            } else {
                check_read(cx, &inner, &runs, bytes, pc, FULL, (space == Space::Const, false))?;
                for l in 0..32 {
                    values[l] = peek(cx.memory, inner[l], bytes);
                }
            }
        }
        _ => {
            let text = format!("matrix at generic address {:#x}", a[0]);
            return Err(Trouble::new(FaultKind::OutOfBounds, pc, 0, text));
        }
    }
    Ok(())
}
