//! Copies and fills.
//!
//! A copy from pageable host memory takes its bytes at the call; one from pinned memory reads them when it runs, so a
//! buffer changed too early shows. A copy to pageable memory is over when the call returns.

use std::ffi::c_void;

use super::super::device::{Done, Driver, Refusal};
use super::super::report::{self, Kind, Report};
use super::super::work::{HostBytes, Op};
use super::{check_range, in_context, too_long};

/// Largest length of a copy or fill that is believed.
const LONGEST: usize = 1 << 40;

fn check_length(what: &str, bytes: usize) -> Done {
    if bytes > LONGEST { Err(too_long(what, bytes)) } else { Ok(()) }
}

fn host_argument(at: usize, bytes: usize) -> Done {
    if at == 0 && bytes > 0 { Err(Refusal::argument("a null pointer to host memory")) } else { Ok(()) }
}

fn warn_pageable(function: &'static str) {
    let text = "pageable host memory in a graph: every launch uses it, so it must live as long as the graph";
    report::emit(&Report::warning(Kind::HostMemory, function, text));
}

fn copy_in(d: &mut Driver, function: &'static str, stream: u64, to: u64, from: usize, bytes: usize) -> Done {
    if bytes == 0 {
        return Ok(());
    }
    check_length("a copy", bytes)?;
    host_argument(from, bytes)?;
    check_range(d, to, bytes as u64, "destination")?;
    let later = HostBytes::Later { address: from, bytes };
    let from = if d.pinned.covers(from, bytes) {
        later
    } else if d.is_captured(stream) {
        warn_pageable(function);
        later
    } else if d.pinned.covers(from, 1) {
        return Err(Refusal::argument(format!(
            "source: {bytes} bytes at {from:#x} go past the end of pinned memory"
        )));
    } else {
        // SAFETY: the program gives `bytes` readable bytes at `from`, which need not outlive the call.
        HostBytes::Taken(unsafe { std::slice::from_raw_parts(from as *const u8, bytes) }.into())
    };
    d.submit(function, stream, Op::In { to, from })
}

fn copy_out(d: &mut Driver, function: &'static str, stream: u64, to: usize, from: u64, bytes: usize) -> Done {
    if bytes == 0 {
        return Ok(());
    }
    check_length("a copy", bytes)?;
    host_argument(to, bytes)?;
    check_range(d, from, bytes as u64, "source")?;
    let pinned = d.pinned.covers(to, bytes);
    if !pinned && d.pinned.covers(to, 1) {
        return Err(Refusal::argument(format!(
            "destination: {bytes} bytes at {to:#x} go past the end of pinned memory"
        )));
    }
    let captured = d.is_captured(stream);
    if captured && !pinned {
        warn_pageable(function);
    }
    d.submit(function, stream, Op::Out { to, from, bytes })?;
    if !pinned && !captured {
        d.tally.synchronisations.implicit += 1;
        d.wait_stream(stream)?;
    }
    Ok(())
}

fn copy_within(
    d: &mut Driver,
    function: &'static str,
    stream: u64,
    to: u64,
    from: u64,
    bytes: usize,
) -> Done {
    if bytes == 0 {
        return Ok(());
    }
    check_length("a copy", bytes)?;
    check_range(d, from, bytes as u64, "source")?;
    check_range(d, to, bytes as u64, "destination")?;
    if to < from + bytes as u64 && from < to + bytes as u64 {
        return Err(Refusal::argument("source and destination of a copy overlap"));
    }
    d.submit(function, stream, Op::Copy { to, from, bytes: bytes as u64 })
}

/// Runs a blocking copy in the legacy stream.
fn blocking(d: &mut Driver, c: u64, what: impl FnOnce(&mut Driver, u64) -> Done) -> Done {
    d.forbid_in_capture("a blocking copy runs")?;
    let stream = d.stream(c, 0)?;
    what(d, stream)?;
    d.tally.synchronisations.implicit += 1;
    d.wait_stream(stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> u32 {
    let name = "cuMemcpyHtoD_v2";
    in_context(name, |d, c| blocking(d, c, |d, s| copy_in(d, name, s, to, from as usize, bytes)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: u64) -> u32 {
    let name = "cuMemcpyHtoDAsync_v2";
    in_context(name, |d, c| {
        let s = d.stream(c, stream)?;
        copy_in(d, name, s, to, from as usize, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> u32 {
    let name = "cuMemcpyDtoH_v2";
    in_context(name, |d, c| blocking(d, c, |d, s| copy_out(d, name, s, to as usize, from, bytes)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: u64) -> u32 {
    let name = "cuMemcpyDtoHAsync_v2";
    in_context(name, |d, c| {
        let s = d.stream(c, stream)?;
        copy_out(d, name, s, to as usize, from, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> u32 {
    let name = "cuMemcpyDtoD_v2";
    in_context(name, |d, c| {
        // Not blocking for the host: only ordered in the legacy stream.
        d.forbid_in_capture("a copy runs in the legacy stream")?;
        let s = d.stream(c, 0)?;
        copy_within(d, name, s, to, from, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) -> u32 {
    let name = "cuMemcpyDtoDAsync_v2";
    in_context(name, |d, c| {
        let s = d.stream(c, stream)?;
        copy_within(d, name, s, to, from, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyPeerAsync(
    to: u64,
    to_context: u64,
    from: u64,
    from_context: u64,
    bytes: usize,
    stream: u64,
) -> u32 {
    let name = "cuMemcpyPeerAsync";
    in_context(name, |d, c| {
        d.context(to_context)?;
        d.context(from_context)?;
        let s = d.stream(c, stream)?;
        copy_within(d, name, s, to, from, bytes)
    })
}

/// A side of a copy whose direction follows from the addresses.
fn is_device(d: &Driver, at: u64) -> bool {
    d.memory.find(at).is_some()
}

fn copy_any(d: &mut Driver, name: &'static str, s: u64, to: u64, from: u64, bytes: usize) -> Done {
    match (is_device(d, to), is_device(d, from)) {
        (true, true) => copy_within(d, name, s, to, from, bytes),
        (true, false) => copy_in(d, name, s, to, from as usize, bytes),
        (false, true) => copy_out(d, name, s, to as usize, from, bytes),
        (false, false) => Err(Refusal::unsupported("a copy between two places of host memory")),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpy(to: u64, from: u64, bytes: usize) -> u32 {
    let name = "cuMemcpy";
    in_context(name, |d, c| blocking(d, c, |d, s| copy_any(d, name, s, to, from, bytes)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: u64) -> u32 {
    let name = "cuMemcpyAsync";
    in_context(name, |d, c| {
        let s = d.stream(c, stream)?;
        copy_any(d, name, s, to, from, bytes)
    })
}

fn fill(d: &mut Driver, name: &'static str, s: u64, at: u64, pattern: &[u8], count: usize) -> Done {
    if count == 0 {
        return Ok(());
    }
    check_length("a fill", count)?;
    if !at.is_multiple_of(pattern.len() as u64) {
        return Err(Refusal::argument(format!(
            "{at:#x} is no multiple of the {} bytes of an element",
            pattern.len()
        )));
    }
    let bytes = count as u64 * pattern.len() as u64;
    check_range(d, at, bytes, "destination")?;
    d.submit(name, s, Op::Fill { at, pattern: pattern.to_vec(), bytes })
}

/// A fill in the legacy stream; it does not block the host.
fn fill_legacy(name: &'static str, at: u64, pattern: &[u8], count: usize) -> u32 {
    in_context(name, |d, c| {
        d.forbid_in_capture("a fill runs in the legacy stream")?;
        let s = d.stream(c, 0)?;
        fill(d, name, s, at, pattern, count)
    })
}

fn fill_async(name: &'static str, at: u64, pattern: &[u8], count: usize, stream: u64) -> u32 {
    in_context(name, |d, c| {
        let s = d.stream(c, stream)?;
        fill(d, name, s, at, pattern, count)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(at: u64, value: u8, count: usize) -> u32 {
    fill_legacy("cuMemsetD8_v2", at, &[value], count)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16_v2(at: u64, value: u16, count: usize) -> u32 {
    fill_legacy("cuMemsetD16_v2", at, &value.to_le_bytes(), count)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32_v2(at: u64, value: u32, count: usize) -> u32 {
    fill_legacy("cuMemsetD32_v2", at, &value.to_le_bytes(), count)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(at: u64, value: u8, count: usize, stream: u64) -> u32 {
    fill_async("cuMemsetD8Async", at, &[value], count, stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16Async(at: u64, value: u16, count: usize, stream: u64) -> u32 {
    fill_async("cuMemsetD16Async", at, &value.to_le_bytes(), count, stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(at: u64, value: u32, count: usize, stream: u64) -> u32 {
    fill_async("cuMemsetD32Async", at, &value.to_le_bytes(), count, stream)
}
