//! Loads, stores and atomics of a warp.
//!
//! The lanes' addresses are cut into runs of adjacent bytes; checks, tags and copies work on runs, so that a coalesced
//! access costs little more than one access.

use crate::fault::FaultKind;
use crate::memory::PAGE_BYTES;
use crate::ptx::inst::*;
use crate::ptx::types::{Space, Ty, W};

use super::alu::lanes;
use super::banks::wavefronts;
use super::global::{Runs, check_read, check_write, peek, poke};
use super::rows::{FULL, Rows};
use super::shared::{Who, Wrong};
use super::warp::Warp;
use super::{Cx, Trouble, window};

/// Addresses of all lanes.
#[inline(always)]
pub(super) fn addresses(r: &Rows<'_>, slot: Slot, offset: i32, wide: bool) -> [u64; 32] {
    let mut out = [0; 32];
    let offset = i64::from(offset) as u64;
    if wide {
        for (out, a) in out.iter_mut().zip(r.r64(slot)) {
            *out = a.wrapping_add(offset);
        }
    } else {
        for (out, a) in out.iter_mut().zip(r.r32(slot)) {
            *out = u64::from(*a).wrapping_add(offset) & 0xffff_ffff;
        }
    }
    out
}

/// Refuses addresses that are no multiple of the access.
#[inline(always)]
pub(super) fn aligned(a: &[u64; 32], bytes: u64, pc: u32, m: u32) -> Result<(), Trouble> {
    let mut off = 0;
    for (l, a) in a.iter().enumerate() {
        off |= u32::from(a & (bytes - 1) != 0) << l;
    }
    match off & m {
        0 => Ok(()),
        off => {
            let l = off.trailing_zeros() as usize;
            Err(Trouble::new(FaultKind::Misaligned, pc, l, format!("{bytes} bytes at {:#x}", a[l])))
        }
    }
}

/// One element of a byte slice.
#[inline(always)]
pub(super) fn slice_get(s: &[u8], at: usize, bytes: u32) -> u64 {
    match bytes {
        1 => s[at].into(),
        2 => u16::from_le_bytes([s[at], s[at + 1]]).into(),
        4 => u32::from_le_bytes(s[at..at + 4].try_into().expect("four bytes")).into(),
        _ => u64::from_le_bytes(s[at..at + 8].try_into().expect("eight bytes")),
    }
}

#[inline(always)]
pub(super) fn slice_put(s: &mut [u8], at: usize, bytes: u32, v: u64) {
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
pub(super) fn put(r: &mut Rows<'_>, d: Slot, w: W, l: usize, v: u64) {
    if w == W::W64 { r.w64(d)[l] = v } else { r.w32(d)[l] = v as u32 }
}

/// The row of an instruction's element.
#[inline(always)]
fn element(inst: &Inst, more: &[u32], vec: u8, e: usize) -> Slot {
    if vec > 1 { more[inst.d as usize + e] } else { inst.d }
}

/// Splits lanes with generic addresses by space; `f` gets addresses within the space.
pub(super) fn spaces(
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
#[inline(always)]
pub(super) fn load(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    mem: Mem,
    pc: u32,
    m: u32,
) -> Result<(), Trouble> {
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

#[inline(always)]
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
        Wrong::Uninitialised => {
            format!("{bytes} bytes at shared address {at:#x} were not all written by this block")
        }
        Wrong::Race(o) => {
            let who = match o.lane {
                Some(l) => format!("lane {l} of warp {}", o.warp),
                None => format!("several lanes, one of warp {},", o.warp),
            };
            let line = if o.instruction != 0 {
                format!(" (ptx line {})", cx.line(o.instruction))
            } else {
                String::new()
            };
            let did = if o.wrote { "wrote" } else { "read" };
            format!("shared address {at:#x}: {who} {did} it{line} with no barrier between")
        }
    };
    Trouble::new(w.kind(), pc, lane, text)
}

#[inline(always)]
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
    if mem.strong {
        // Strong accesses are no race; what they read must exist.
        for l in lanes(m) {
            cx.shared
                .known(a[l], bytes as usize)
                .map_err(|w| shared_trouble(cx, w, a[l], bytes as usize, pc, l))?;
        }
    } else {
        let done = cx.shared.read_lanes(a, bytes as usize, m, warp.id, pc);
        done.map_err(|(l, w)| shared_trouble(cx, w, a[l], bytes as usize, pc, l))?;
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
#[inline(always)]
pub(super) fn store(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    mem: Mem,
    pc: u32,
    m: u32,
) -> Result<(), Trouble> {
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

#[inline(always)]
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

#[inline(always)]
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
#[allow(clippy::too_many_arguments, reason = "the fields of an access, all distinct")]
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
                let done = if writes {
                    cx.shared.write(inner[l], n, who, false)
                } else {
                    cx.shared.read(inner[l], n, who)
                };
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
