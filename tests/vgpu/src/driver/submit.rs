//! Streams at work: where an operation goes, what it comes after, and what a capture makes of it.

use std::sync::Arc;
use std::thread::ThreadId;

use super::capture::{Capture, Mode, leaves};
use super::code::Code;
use super::device::{Done, Driver, HandleKind, Refusal};
use super::order::Clock;
use super::queue::{Target, TaskId};
use super::report::Kind;
use super::stream::{Record, Stream, StreamKind, join};
use super::work::{HostBytes, Op, Task};

/// Handle of the legacy stream, beside null.
const LEGACY: u64 = 1;
/// Handle of the calling thread's default stream.
const PER_THREAD: u64 = 2;

impl Driver {
    /// The stream that a handle names in a context.
    ///
    /// # Errors
    /// Not a living stream of that context.
    pub fn stream(&mut self, context: u64, handle: u64) -> Done<u64> {
        match handle {
            0 | LEGACY => Ok(self.context(context)?.legacy),
            PER_THREAD => {
                let kind = StreamKind::PerThread(std::thread::current().id());
                let mut own = self.streams.iter().filter(|(_, s)| s.context == context && s.kind == kind);
                if let Some((id, _)) = own.next() {
                    return Ok(*id);
                }
                let id = self.handle(HandleKind::Stream);
                self.streams.insert(id, Stream::new(context, kind, 0));
                Ok(id)
            }
            _ => match self.streams.get(&handle) {
                Some(s) if s.context == context => Ok(handle),
                Some(_) => Err(Refusal::said(
                    Code::InvalidContext,
                    Kind::Argument,
                    format!("stream {handle:#x} belongs to another context"),
                )),
                None => Err(Refusal::handle("stream", handle)),
            },
        }
    }

    /// The front of a stream with what the legacy stream adds to it: operations that have not run, and a clock.
    pub fn front(&self, stream: u64) -> (Vec<TaskId>, Clock) {
        let s = &self.streams[&stream];
        let (mut front, mut clock) = (s.front.clone(), s.clock.clone());
        let blocking = |other: &&Stream| other.context == s.context && other.is_blocking();
        match s.kind {
            StreamKind::Legacy => {
                for other in self.streams.values().filter(blocking) {
                    join(&mut front, &other.front);
                    clock.join(&other.clock);
                }
            }
            _ if s.is_blocking() => {
                let legacy = &self.streams[&self.contexts[&s.context].legacy];
                join(&mut front, &legacy.front);
                clock.join(&legacy.clock);
            }
            _ => {}
        }
        front.retain(|t| self.queue.is_pending(*t));
        (front, clock)
    }

    /// Queues an operation; gives its number and its clock.
    fn push(&mut self, mut task: Task, after: &[TaskId], clock: Clock) -> (TaskId, Arc<Clock>) {
        self.account(&task.op);
        let stamp = self.order.stamp(clock);
        let clock = stamp.clock.clone();
        let context = task.context;
        if let Some(c) = self.contexts.get_mut(&context) {
            c.clock.join(&clock);
        }
        task.stamp = Some(stamp);
        (self.queue.push(context, after, task), clock)
    }

    /// The legacy stream cannot be used while a blocking stream of its context is being captured.
    fn check_implicit(&mut self, stream: u64) -> Done {
        let s = &self.streams[&stream];
        if s.kind != StreamKind::Legacy {
            return Ok(());
        }
        let context = s.context;
        let capturing = |o: &Stream| (o.context == context && o.is_blocking()).then(|| o.capture.clone())?;
        let Some((capture, _)) = self.streams.values().find_map(capturing) else { return Ok(()) };
        let text = "work in the legacy stream would depend on a blocking stream that is being captured";
        self.invalidate(capture, text);
        Err(Refusal::said(Code::CaptureImplicit, Kind::Capture, text))
    }

    /// Marks a capture as failed.
    pub fn invalidate(&mut self, capture: u64, why: &str) {
        if let Some(c) = self.captures.get_mut(&capture) {
            c.invalid.get_or_insert_with(|| why.into());
        }
    }

    /// Refuses a call that a capture in progress forbids, and ends that capture badly.
    ///
    /// # Errors
    /// The capture that forbids it.
    pub fn forbid_in_capture(&mut self, what: &str) -> Done {
        let me = std::thread::current().id();
        let forbids = |c: &Capture<Task>| match c.mode {
            Mode::Global => true,
            Mode::ThreadLocal => c.thread == me,
            Mode::Relaxed => false,
        };
        let Some(capture) = self.captures.iter().find(|(_, c)| forbids(c)).map(|(id, _)| *id) else {
            return Ok(());
        };
        self.refuse_in_capture(capture, what)
    }

    fn refuse_in_capture(&mut self, capture: u64, what: &str) -> Done {
        let text = format!("{what} while a stream is being captured; the capture is now invalid");
        self.invalidate(capture, &text);
        Err(Refusal::said(Code::CaptureUnsupported, Kind::Capture, text))
    }

    /// Refuses a call on a stream that is itself being captured.
    ///
    /// # Errors
    /// The stream is being captured.
    pub fn forbid_on_captured(&mut self, stream: u64, what: &str) -> Done {
        match self.streams[&stream].capture {
            Some((capture, _)) => self.refuse_in_capture(capture, what),
            None => Ok(()),
        }
    }

    /// True if operations given to the stream are captured instead of run.
    pub fn is_captured(&self, stream: u64) -> bool {
        self.streams[&stream].capture.is_some()
    }

    /// Puts an operation into a stream.
    ///
    /// # Errors
    /// What a capture forbids.
    pub fn submit(&mut self, function: &'static str, stream: u64, op: Op) -> Done {
        self.check_implicit(stream)?;
        let context = self.streams[&stream].context;
        let task = Task { context, function, op, stamp: None };
        if let Some((capture, front)) = self.streams[&stream].capture.clone() {
            let c = self.captures.get_mut(&capture).expect("streams name living captures");
            if c.invalid.is_some() {
                return Err(Code::CaptureInvalidated.into());
            }
            let node = c.push(&front, task);
            self.streams.get_mut(&stream).expect("just seen").capture = Some((capture, vec![node]));
            return Ok(());
        }
        let (after, clock) = self.front(stream);
        let (id, clock) = self.push(task, &after, clock);
        let s = self.streams.get_mut(&stream).expect("just seen");
        s.front = vec![id];
        s.clock = (*clock).clone();
        self.relieve(context);
        Ok(())
    }

    /// Waits until everything in a stream has run.
    ///
    /// # Errors
    /// What the work did wrong.
    pub fn wait_stream(&mut self, stream: u64) -> Done {
        let context = self.streams[&stream].context;
        let (front, clock) = self.front(stream);
        self.wait(Target::Tasks(front), context)?;
        self.order.host_waited(&clock);
        self.context(context).map(|_| ())
    }

    /// Records an event in a stream.
    ///
    /// # Errors
    /// What a capture forbids.
    pub fn record(&mut self, event: u64, stream: u64) -> Done {
        self.check_implicit(stream)?;
        let record = match &self.streams[&stream].capture {
            Some((capture, nodes)) => Record::Captured { capture: *capture, nodes: nodes.clone() },
            None => {
                let (tasks, clock) = self.front(stream);
                Record::Tasks { tasks, clock }
            }
        };
        self.events.get_mut(&event).expect("checked by the caller").record = record;
        self.tally.event_records += 1;
        Ok(())
    }

    /// Makes what follows in a stream wait for an event.
    ///
    /// # Errors
    /// An event and a stream on different sides of a capture.
    pub fn wait_event(&mut self, stream: u64, event: u64) -> Done {
        self.check_implicit(stream)?;
        self.tally.event_waits += 1;
        let record = self.events[&event].record.clone();
        let mine = self.streams[&stream].capture.clone();
        let isolation = |text: &str| Refusal::said(Code::CaptureIsolation, Kind::Capture, text);
        match (record, mine) {
            (Record::Never, _) => Ok(()),
            (Record::Tasks { tasks, clock }, None) => {
                let s = self.streams.get_mut(&stream).expect("checked by the caller");
                s.front.retain(|t| self.queue.is_pending(*t));
                let pending: Vec<TaskId> = tasks.into_iter().filter(|t| self.queue.is_pending(*t)).collect();
                join(&mut s.front, &pending);
                s.clock.join(&clock);
                Ok(())
            }
            (Record::Tasks { .. }, Some((capture, _))) => {
                let text = "a captured stream waits for an event recorded outside the capture";
                self.invalidate(capture, text);
                Err(isolation(text))
            }
            (Record::Captured { capture, .. }, _) if !self.captures.contains_key(&capture) => {
                Err(Refusal::said(
                    Code::CapturedEvent,
                    Kind::Capture,
                    "the event was last recorded in a capture that has ended",
                ))
            }
            (Record::Captured { capture, nodes }, None) => {
                if self.streams[&stream].kind == StreamKind::Legacy {
                    self.invalidate(capture, "the legacy stream cannot join a capture");
                    return Err(isolation("the legacy stream cannot join a capture"));
                }
                self.streams.get_mut(&stream).expect("checked by the caller").capture =
                    Some((capture, nodes));
                Ok(())
            }
            (Record::Captured { capture, nodes }, Some((own, mut front))) => {
                if capture != own {
                    let text = "a wait would merge two captures";
                    self.invalidate(capture, text);
                    self.invalidate(own, text);
                    return Err(Refusal::said(Code::CaptureMerge, Kind::Capture, text));
                }
                join(&mut front, &nodes);
                self.streams.get_mut(&stream).expect("checked by the caller").capture = Some((own, front));
                Ok(())
            }
        }
    }

    /// Begins a capture.
    ///
    /// # Errors
    /// The legacy stream; a stream that is being captured already.
    pub fn begin_capture(&mut self, stream: u64, mode: Mode) -> Done {
        let s = &self.streams[&stream];
        let context = s.context;
        if s.kind == StreamKind::Legacy {
            let text = "the legacy stream cannot be captured; use a stream made by the program";
            return Err(Refusal::said(Code::CaptureUnsupported, Kind::Capture, text));
        }
        if s.capture.is_some() {
            return Err(Refusal::said(
                Code::IllegalState,
                Kind::Capture,
                "the stream is being captured already",
            ));
        }
        let id = self.handle(HandleKind::Capture);
        let thread: ThreadId = std::thread::current().id();
        let capture = Capture { context, origin: stream, thread, mode, invalid: None, nodes: Vec::new() };
        self.captures.insert(id, capture);
        self.streams.get_mut(&stream).expect("just seen").capture = Some((id, Vec::new()));
        Ok(())
    }

    /// Ends a capture; gives the graph.
    ///
    /// # Errors
    /// Nothing to end, the wrong stream or thread, a capture that failed, work that was forked and not joined.
    pub fn end_capture(&mut self, stream: u64) -> Done<u64> {
        let said = |code, text: String| Refusal::said(code, Kind::Capture, text);
        let Some((id, origin_front)) = self.streams[&stream].capture.clone() else {
            return Err(said(Code::IllegalState, "the stream is not being captured".into()));
        };
        let capture = &self.captures[&id];
        if capture.origin != stream {
            self.invalidate(id, "ended in a stream that joined it");
            return Err(said(
                Code::CaptureUnmatched,
                "the capture must end in the stream in which it began".into(),
            ));
        }
        if capture.mode != Mode::Relaxed && capture.thread != std::thread::current().id() {
            return Err(said(
                Code::CaptureWrongThread,
                "the capture must end in the thread that began it".into(),
            ));
        }
        let joined = self.streams.values().filter(|s| matches!(&s.capture, Some((c, _)) if *c == id));
        let fronts: Vec<usize> =
            joined.flat_map(|s| s.capture.as_ref().expect("filtered").1.clone()).collect();
        let unjoined = capture.unjoined(&origin_front, &fronts);
        for s in self.streams.values_mut() {
            if matches!(&s.capture, Some((c, _)) if *c == id) {
                s.capture = None;
            }
        }
        let capture = self.captures.remove(&id).expect("just seen");
        if let Some(why) = capture.invalid {
            return Err(said(Code::CaptureInvalidated, format!("the capture had failed: {why}")));
        }
        if !unjoined.is_empty() {
            let text = format!(
                "{} captured operations of other streams were not joined before the end",
                unjoined.len()
            );
            return Err(said(Code::CaptureUnjoined, text));
        }
        let graph = self.handle(HandleKind::Graph);
        let nodes = capture.nodes;
        self.graphs.insert(graph, super::capture::Graph { context: capture.context, nodes });
        Ok(graph)
    }

    /// Queues the operations of a graph in a stream, or captures them there.
    ///
    /// # Errors
    /// A kernel of a module that is gone; what a capture forbids.
    pub fn launch_graph(&mut self, exec: u64, stream: u64) -> Done {
        self.check_implicit(stream)?;
        let nodes = self.execs[&exec].nodes.clone();
        for node in &nodes {
            if let Op::Kernel(k) = &node.payload.op
                && !self.modules.contains_key(&k.module)
            {
                let text = format!("the graph launches `{}`, whose module was unloaded", k.kernel().name());
                return Err(Refusal::said(Code::InvalidHandle, Kind::Argument, text));
            }
        }
        self.tally.graph_launches += 1;
        self.tally.graph_nodes += nodes.len() as u64;
        let ends = leaves(&nodes);
        if let Some((capture, front)) = self.streams[&stream].capture.clone() {
            let c = self.captures.get_mut(&capture).expect("streams name living captures");
            let base = c.nodes.len();
            for node in &nodes {
                let mut after: Vec<usize> = node.after.iter().map(|i| base + i).collect();
                if after.is_empty() {
                    after.clone_from(&front);
                }
                c.push(&after, node.payload.clone());
            }
            if !ends.is_empty() {
                let front = ends.iter().map(|i| base + i).collect();
                self.streams.get_mut(&stream).expect("just seen").capture = Some((capture, front));
            }
            return Ok(());
        }
        let context = self.streams[&stream].context;
        let (mut roots, mut start) = self.front(stream);
        join(&mut roots, &self.execs[&exec].last);
        start.join(&self.execs[&exec].clock);
        let mut ids: Vec<(TaskId, Arc<Clock>)> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let mut clock = start.clone();
            node.after.iter().for_each(|i| clock.join(&ids[*i].1));
            let mut after: Vec<TaskId> = node.after.iter().map(|i| ids[*i].0).collect();
            if after.is_empty() {
                after.clone_from(&roots);
            }
            ids.push(self.push(node.payload, &after, clock));
        }
        if !ends.is_empty() {
            let front: Vec<TaskId> = ends.iter().map(|i| ids[*i].0).collect();
            ends.iter().for_each(|i| start.join(&ids[*i].1));
            let graph = self.execs.get_mut(&exec).expect("just seen");
            graph.last.clone_from(&front);
            graph.clock.clone_from(&start);
            let s = self.streams.get_mut(&stream).expect("just seen");
            s.front = front;
            s.clock = start;
        }
        self.relieve(context);
        Ok(())
    }

    /// Counts an operation that will run.
    pub fn account(&mut self, op: &Op) {
        let t = &mut self.tally;
        match op {
            Op::Kernel(_) => t.launches += 1,
            Op::In { from, .. } => {
                let (bytes, pinned) = match from {
                    HostBytes::Taken(b) => (b.len(), false),
                    HostBytes::Later { address, bytes } => (*bytes, self.pinned.covers(*address, *bytes)),
                };
                t.host_to_device.add(bytes as u64);
                if !pinned {
                    t.pageable.add(bytes as u64);
                }
            }
            Op::Out { to, bytes, .. } => {
                t.device_to_host.add(*bytes as u64);
                if !self.pinned.covers(*to, *bytes) {
                    t.pageable.add(*bytes as u64);
                }
            }
            Op::Copy { bytes, .. } => t.device_to_device.add(*bytes),
            Op::Fill { bytes, .. } => t.fills.add(*bytes),
            Op::Free { .. } => t.frees += 1,
            Op::Call { .. } => t.host_functions += 1,
            Op::Math(math) => {
                t.library.calls += 1;
                t.library.multiply_adds += math.multiply_adds();
            }
        }
    }
}
