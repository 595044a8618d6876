//! The device at work: running what is queued when the host waits, and what follows a failure.

use std::io::Write;
use std::thread::JoinHandle;

use super::code::Code;
use super::device::{Done, Driver, Refusal};
use super::order::Stamp;
use super::queue::{Target, TaskId};
use super::report::{self, Kind, Report};
use super::tally::LaunchRecord;
use super::work::{self, Failure, Machine, Op, Task, Trace};

/// Operations that may wait before the device runs some by itself, to bound the memory they take.
const MAX_PENDING: usize = 1 << 16;

impl Driver {
    /// Waits for work of a context.
    ///
    /// # Errors
    /// The code of the first operation of this context that failed; it was reported.
    pub fn wait(&mut self, target: Target, context: u64) -> Done {
        let all = match &target {
            Target::Group(id) => self.contexts.get(id).map(|c| c.clock.clone()),
            Target::Tasks(_) => None,
        };
        let wait = self.queue.wait(target);
        let mut result = Ok(());
        while self.queue.is_open(&wait) {
            let Some((id, task)) = self.queue.next(&wait) else {
                // Everything that could run is a host function under way.
                let Some((id, call)) = self.calls.pop_first() else { break };
                self.end_call(id, call);
                continue;
            };
            if let Err(code) = self.execute(id, &task)
                && task.context == context
            {
                result = Err(code.into());
            }
        }
        if let Some(clock) = all {
            self.order.host_waited(&clock);
        }
        if self.queue.len() == 0 && self.order.is_settled() {
            // Whatever comes next comes after all of it.
            self.history.clear();
            self.host_history.clear();
        }
        for pool in self.pools.values_mut() {
            pool.trim(pool.release_threshold);
        }
        result
    }

    /// Runs operations until fewer wait than may.
    pub fn relieve(&mut self, context: u64) {
        if self.queue.len() > MAX_PENDING {
            let wait = self.queue.wait(Target::Group(context));
            while self.queue.len() > MAX_PENDING / 2 {
                let Some((id, task)) = self.queue.next(&wait) else { break };
                // A failure stays in the context and comes out of the next call.
                let _ = self.execute(id, &task);
            }
        }
    }

    /// Runs one operation that some of `tasks` need, if any is left.
    ///
    /// # Errors
    /// As [`Driver::wait`].
    pub fn step(&mut self, tasks: Vec<u64>, context: u64) -> Done {
        if let Some(id) = self.calls.iter().find(|(_, call)| call.0.is_finished()).map(|(id, _)| *id) {
            let call = self.calls.remove(&id).expect("just found");
            self.end_call(id, call);
        }
        let wait = self.queue.wait(Target::Tasks(tasks));
        match self.queue.next(&wait) {
            Some((id, task)) if task.context == context => self.execute(id, &task).map_err(Refusal::from),
            Some((id, task)) => {
                let _ = self.execute(id, &task);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Waits for a host function and takes it out of the queue.
    fn end_call(&mut self, id: TaskId, (call, stamp): (JoinHandle<()>, Option<Stamp>)) {
        // A panic cannot cross the C function: it would have ended the process.
        let _ = call.join();
        // It may have told the host's other threads.
        if let Some(stamp) = stamp {
            self.order.host_waited(&stamp.clock);
        }
        self.queue.finish(id);
    }

    /// Runs one operation; a host function only begins.
    fn execute(&mut self, id: TaskId, task: &Task) -> Result<(), Code> {
        if let Op::Call { function, data } = task.op {
            match work::call_host(function, data) {
                Ok(call) => {
                    self.calls.insert(id, (call, task.stamp.clone()));
                    return Ok(());
                }
                Err(e) => {
                    self.queue.finish(id);
                    let report = Report::error(Kind::Internal, task.function, format!("no thread: {e}"));
                    return Err(self.fail(task.context, &Failure { code: Code::OperatingSystem, report }));
                }
            }
        }
        self.queue.finish(id);
        self.run(id, task)
    }

    fn run(&mut self, id: TaskId, task: &Task) -> Result<(), Code> {
        let tracing = self.config.options.checks && self.order.is_parallel();
        let mut trace = Trace::default();
        if let Op::Free { at } = task.op {
            // To free is to write everything.
            let bytes = self.owners.get(&at).map_or(0, |o| o.bytes);
            if tracing {
                trace.device.writes(at, bytes);
                self.note(id, task, &trace)?;
            }
            return self.free_now(at, task.function).map_err(|f| self.fail(task.context, &f));
        }
        let machine = Machine {
            memory: &self.memory,
            props: &self.config.props,
            options: &self.config.options,
            pinned: &self.pinned,
            seed: self.config.seed,
        };
        match machine.run(task, tracing.then_some(&mut trace)) {
            Ok(None) => self.note(id, task, &trace),
            Ok(Some(counters)) => {
                let printed = self.memory.take_printed();
                if !printed.is_empty() {
                    // As with a GPU, what kernels print goes to the standard output of the program.
                    let _ = std::io::stdout().write_all(printed.as_bytes());
                }
                let Op::Kernel(kernel) = &task.op else { unreachable!("only kernels have counters") };
                let threads = kernel.block.iter().map(|n| u64::from(*n)).product();
                let shared = kernel.kernel().shared_with(kernel.dynamic_shared).into();
                self.tally.launched(kernel.kernel().name(), [threads, shared], &counters);
                if let Some(file) = &mut self.launches {
                    let record = LaunchRecord {
                        operation: id,
                        kernel: kernel.kernel().name().into(),
                        grid: kernel.grid,
                        block: kernel.block,
                        dynamic_shared: kernel.dynamic_shared,
                        counters,
                    };
                    let written =
                        serde_json::to_vec(&record).map_err(std::io::Error::from).and_then(|mut line| {
                            line.push(b'\n');
                            file.write_all(&line)
                        });
                    if let Err(e) = written {
                        eprintln!("monopath virtual GPU: cannot write the launches file: {e}");
                        self.launches = None;
                    }
                }
                self.note(id, task, &trace)
            }
            Err(failure) => Err(self.fail(task.context, &failure)),
        }
    }

    /// Notes what an operation touched, and whether another one did so without any order.
    fn note(&mut self, id: TaskId, task: &Task, trace: &Trace) -> Result<(), Code> {
        let Some(stamp) = &task.stamp else { return Ok(()) };
        if trace.device == Default::default() && trace.host == Default::default() {
            return Ok(());
        }
        let label = task.label(id);
        let device = self.history.note(stamp, &label, &trace.device);
        let host = self.host_history.note(stamp, &label, &trace.host);
        let Some((conflict, place)) = device.map(|c| (c, "device")).or(host.map(|c| (c, "host"))) else {
            return Ok(());
        };
        let word = |writes: bool| if writes { "writes" } else { "reads" };
        let text = format!(
            "{label} {} {} bytes of {place} memory at {:#x} that {} {}, and nothing orders the two: no stream, no event, \
             no wait of the host",
            word(conflict.writes),
            conflict.bytes.end - conflict.bytes.start,
            conflict.bytes.start,
            conflict.other,
            word(conflict.other_wrote),
        );
        let report = Report::error(Kind::StreamRace, task.function, text);
        Err(self.fail(task.context, &Failure { code: Code::LaunchFailed, report }))
    }

    /// Reports a failure and ends the context's work: from now on every call gives the code.
    pub(super) fn fail(&mut self, context: u64, failure: &Failure) -> Code {
        report::emit(&failure.report);
        let Some(c) = self.contexts.get_mut(&context) else { return failure.code };
        let code = *c.poison.get_or_insert(failure.code);
        for task in self.queue.discard(context) {
            if let Op::Free { at } = task.op {
                let _ = self.free_now(at, task.function);
            }
        }
        code
    }
}
