//! Streams and capture.

use std::ffi::c_void;

use super::super::capture::Mode;
use super::super::code::Code;
use super::super::device::{Done, Driver, HandleKind, Refusal};
use super::super::stream::{NON_BLOCKING, Stream, StreamKind, join};
use super::super::work::Op;
use super::{in_context, put};

/// Priorities are kept for the program; they change nothing.
pub(super) const LEAST_PRIORITY: i32 = 0;
/// The most urgent one.
pub(super) const GREATEST_PRIORITY: i32 = -5;

fn create(d: &mut Driver, context: u64, stream: *mut u64, flags: u32, priority: i32) -> Done {
    if flags > NON_BLOCKING {
        return Err(Refusal::argument(format!("{flags:#x} are no stream flags")));
    }
    let kind = StreamKind::Created { non_blocking: flags == NON_BLOCKING };
    let priority = priority.clamp(GREATEST_PRIORITY, LEAST_PRIORITY);
    let id = d.handle(HandleKind::Stream);
    put(stream, id)?;
    d.streams.insert(id, Stream::new(context, kind, priority));
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(stream: *mut u64, flags: u32) -> u32 {
    in_context("cuStreamCreate", |d, c| create(d, c, stream, flags, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(stream: *mut u64, flags: u32, priority: i32) -> u32 {
    in_context("cuStreamCreateWithPriority", |d, c| create(d, c, stream, flags, priority))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: u64) -> u32 {
    in_context("cuStreamDestroy_v2", |d, c| {
        let id = d.stream(c, stream)?;
        if !matches!(d.streams[&id].kind, StreamKind::Created { .. }) {
            return Err(Refusal::argument("default streams cannot be destroyed"));
        }
        d.forbid_on_captured(id, "the stream is destroyed")?;
        // Its work goes on; a blocking stream's keeps its order with the legacy stream.
        let gone = d.streams.remove(&id).expect("just found");
        if gone.is_blocking() {
            let legacy = d.context(c)?.legacy;
            let legacy = d.streams.get_mut(&legacy).expect("contexts have a legacy stream");
            join(&mut legacy.front, &gone.front);
            legacy.clock.join(&gone.clock);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: u64) -> u32 {
    in_context("cuStreamSynchronize", |d, c| {
        let id = d.stream(c, stream)?;
        d.forbid_on_captured(id, "the stream is synchronised")?;
        d.forbid_in_capture("a stream is synchronised")?;
        d.tally.synchronisations.stream += 1;
        d.wait_stream(id)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: u64) -> u32 {
    in_context("cuStreamQuery", |d, c| {
        let id = d.stream(c, stream)?;
        d.forbid_on_captured(id, "the stream is queried")?;
        d.forbid_in_capture("a stream is queried")?;
        d.tally.queries += 1;
        // A query lets the device make a step, so that polling ends.
        d.step(d.front(id).0, c)?;
        let (open, clock) = d.front(id);
        if !open.is_empty() {
            return Err(Code::NotReady.into());
        }
        d.order.host_waited(&clock);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: u64, event: u64, flags: u32) -> u32 {
    in_context("cuStreamWaitEvent", |d, c| {
        if flags > 1 {
            return Err(Refusal::argument(format!("{flags:#x} are no wait flags")));
        }
        let id = d.stream(c, stream)?;
        if !d.events.contains_key(&event) {
            return Err(Refusal::handle("event", event));
        }
        d.wait_event(id, event)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetFlags(stream: u64, flags: *mut u32) -> u32 {
    in_context("cuStreamGetFlags", |d, c| {
        let id = d.stream(c, stream)?;
        put(flags, u32::from(!d.streams[&id].is_blocking()))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetPriority(stream: u64, priority: *mut i32) -> u32 {
    in_context("cuStreamGetPriority", |d, c| {
        let id = d.stream(c, stream)?;
        put(priority, d.streams[&id].priority)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCtx(stream: u64, context: *mut u64) -> u32 {
    in_context("cuStreamGetCtx", |d, c| {
        d.stream(c, stream)?;
        put(context, c)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: u64, mode: u32) -> u32 {
    in_context("cuStreamBeginCapture_v2", |d, c| {
        let mode =
            Mode::from_number(mode).ok_or_else(|| Refusal::argument(format!("{mode} is no capture mode")))?;
        let id = d.stream(c, stream)?;
        d.begin_capture(id, mode)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamEndCapture(stream: u64, graph: *mut u64) -> u32 {
    in_context("cuStreamEndCapture", |d, c| {
        put(graph, 0)?;
        let id = d.stream(c, stream)?;
        let made = d.end_capture(id)?;
        put(graph, made)
    })
}

/// Status of a capture: none, active, invalidated.
fn status(d: &Driver, stream: u64) -> u32 {
    match &d.streams[&stream].capture {
        None => 0,
        Some((capture, _)) if d.captures[capture].invalid.is_none() => 1,
        Some(_) => 2,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamIsCapturing(stream: u64, to: *mut u32) -> u32 {
    in_context("cuStreamIsCapturing", |d, c| {
        let id = d.stream(c, stream)?;
        put(to, status(d, id))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: u64,
    to: *mut u32,
    id_to: *mut u64,
    graph: *mut u64,
    _dependencies: *mut *const u64,
    _count: *mut usize,
) -> u32 {
    in_context("cuStreamGetCaptureInfo_v2", |d, c| {
        let id = d.stream(c, stream)?;
        if !graph.is_null() {
            return Err(Refusal::unsupported("the graph of a capture in progress"));
        }
        put(to, status(d, id))?;
        match &d.streams[&id].capture {
            Some((capture, _)) if !id_to.is_null() => put(id_to, *capture),
            _ => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(stream: u64, function: *mut c_void, data: *mut c_void) -> u32 {
    in_context("cuLaunchHostFunc", |d, c| {
        let id = d.stream(c, stream)?;
        if function.is_null() {
            return Err(Refusal::argument("a null host function"));
        }
        d.submit("cuLaunchHostFunc", id, Op::Call { function: function as usize, data: data as usize })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamAttachMemAsync(_stream: u64, _at: u64, _bytes: usize, _flags: u32) -> u32 {
    in_context("cuStreamAttachMemAsync", |_, _| Err(Refusal::unsupported("managed memory")))
}
