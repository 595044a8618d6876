//! Events. They order work; they do not measure time.

use std::sync::Once;

use super::super::code::Code;
use super::super::device::{Done, Driver, HandleKind, Refusal};
use super::super::queue::{Target, TaskId};
use super::super::report::{self, Kind, Report};
use super::super::stream::{DISABLE_TIMING, Event, Record};
use super::{in_context, put};

#[unsafe(no_mangle)]
extern "C" fn cuEventCreate(event: *mut u64, flags: u32) -> u32 {
    in_context("cuEventCreate", |d, context| {
        if flags > 7 {
            return Err(Refusal::argument(format!("{flags:#x} are no event flags")));
        }
        if flags & 4 != 0 {
            return Err(Refusal::unsupported("events shared between processes"));
        }
        let id = d.handle(HandleKind::Event);
        put(event, id)?;
        d.events.insert(id, Event { context, flags, record: Record::Never });
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: u64) -> u32 {
    in_context("cuEventDestroy_v2", |d, _| match d.events.remove(&event) {
        Some(_) => Ok(()),
        None => Err(Refusal::handle("event", event)),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: u64, stream: u64) -> u32 {
    in_context("cuEventRecord", |d, c| {
        let id = d.stream(c, stream)?;
        match d.events.get(&event) {
            None => Err(Refusal::handle("event", event)),
            Some(e) if e.context != c => Err(Refusal::said(
                Code::InvalidHandle,
                Kind::Argument,
                "the event and the stream belong to different contexts",
            )),
            Some(_) => d.record(event, id),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecordWithFlags(event: u64, stream: u64, flags: u32) -> u32 {
    if flags == 0 {
        return cuEventRecord(event, stream);
    }
    in_context("cuEventRecordWithFlags", |_, _| Err(Refusal::unsupported("external event nodes of graphs")))
}

/// Operations that an event stands for and that have not run.
fn pending(d: &mut Driver, event: u64) -> Done<Vec<TaskId>> {
    match &d.events.get(&event).ok_or_else(|| Refusal::handle("event", event))?.record {
        Record::Never => Ok(Vec::new()),
        Record::Tasks { tasks, .. } => Ok(tasks.iter().copied().filter(|t| d.queue.is_pending(*t)).collect()),
        Record::Captured { capture, .. } => {
            let text = "the event was last recorded in a captured stream";
            let capture = *capture;
            d.invalidate(capture, text);
            Err(Refusal::said(Code::CapturedEvent, Kind::Capture, text))
        }
    }
}

/// The host has seen that an event is complete.
fn host_knows(d: &mut Driver, event: u64) {
    if let Record::Tasks { clock, .. } = &d.events[&event].record {
        d.order.host_waited(clock);
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: u64) -> u32 {
    in_context("cuEventQuery", |d, c| {
        let open = pending(d, event)?;
        d.forbid_in_capture("an event is queried")?;
        d.tally.queries += 1;
        // A query lets the device make a step, so that polling ends.
        d.step(open, c)?;
        if !pending(d, event)?.is_empty() {
            return Err(Code::NotReady.into());
        }
        host_knows(d, event);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: u64) -> u32 {
    in_context("cuEventSynchronize", |d, c| {
        let open = pending(d, event)?;
        d.forbid_in_capture("an event is synchronised")?;
        d.tally.synchronisations.event += 1;
        d.wait(Target::Tasks(open), c)?;
        host_knows(d, event);
        d.context(c).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: u64, end: u64) -> u32 {
    in_context("cuEventElapsedTime", |d, _| {
        for event in [start, end] {
            let open = pending(d, event)?;
            let e = &d.events[&event];
            if e.record == Record::Never || e.flags & DISABLE_TIMING != 0 {
                return Err(Refusal::said(
                    Code::InvalidHandle,
                    Kind::Argument,
                    "the event was never recorded, or made without timing",
                ));
            }
            if !open.is_empty() {
                return Err(Code::NotReady.into());
            }
        }
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let text = "the virtual GPU measures no time; the elapsed time is given as NaN";
            report::emit(&Report::warning(Kind::Unsupported, "cuEventElapsedTime", text));
        });
        put(milliseconds, f32::NAN)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: u64, end: u64) -> u32 {
    cuEventElapsedTime(milliseconds, start, end)
}
