//! Accounts of memory: allocations, frees, leaks, and the balance when the program ends.

use super::code::Code;
use super::device::{Done, Driver, Owner, Refusal};
use super::report::{self, Kind, Report};
use super::stream::StreamKind;
use super::work::{self, Failure, Op};
use crate::memory::Origin;

impl Driver {
    /// Frees an allocation and keeps the accounts.
    pub(super) fn free_now(&mut self, at: u64, function: &'static str) -> Result<(), Box<Failure>> {
        if let Some(owner) = self.owners.remove(&at) {
            self.history.forget(&(at..at + owner.bytes));
            if let Some(pool) = owner.pool.and_then(|p| self.pools.get_mut(&p)) {
                pool.give(owner.bytes);
            }
        }
        self.memory.free(at).map_err(|e| {
            let report = Report::error(work::kind_of(&e), function, e.to_string());
            Box::new(Failure { code: Code::IllegalAddress, report })
        })
    }

    /// Allocates device memory for a context.
    ///
    /// # Errors
    /// No room, on the device or in the pool.
    pub fn allocate(&mut self, context: u64, bytes: u64, pool: Option<u64>) -> Done<u64> {
        if bytes == 0 && pool.is_none() {
            return Err(Refusal::argument("an allocation of 0 bytes"));
        }
        let full = |text: String| Refusal::said(Code::OutOfMemory, Kind::OutOfMemory, text);
        if let Some(p) = pool {
            let p = self.pools.get_mut(&p).ok_or_else(|| Refusal::handle("memory pool", p))?;
            if !p.has_room(bytes) {
                return Err(full(format!("{bytes} bytes wanted, the pool's limit is {}", p.max_bytes)));
            }
        }
        let origin = if pool.is_some() { Origin::Stream } else { Origin::Malloc };
        let at = self.memory.alloc(bytes, origin).map_err(|e| full(e.to_string()))?;
        if let Some(p) = pool.and_then(|p| self.pools.get_mut(&p)) {
            p.take(bytes);
        }
        self.owners.insert(at, Owner { context, bytes, pool, freeing: false });
        let volume =
            if pool.is_some() { &mut self.tally.stream_allocations } else { &mut self.tally.allocations };
        volume.add(bytes);
        Ok(at)
    }

    /// Frees an allocation at once.
    ///
    /// # Errors
    /// Not an allocation, or freed before.
    pub fn free(&mut self, at: u64, function: &'static str) -> Done {
        self.check_free(at)?;
        self.tally.frees += 1;
        self.free_now(at, function)
            .map_err(|f| Refusal::Said(Code::InvalidValue, f.report.kind, f.report.text))
    }

    /// Checks that an address may be freed.
    ///
    /// # Errors
    /// Not an allocation, or freed before.
    pub fn check_free(&self, at: u64) -> Done {
        match self.owners.get(&at) {
            Some(owner) if owner.freeing => Err(Refusal::said(
                Code::InvalidValue,
                Kind::DoubleFree,
                format!("double free of {at:#x}: a free of these {} bytes is queued already", owner.bytes),
            )),
            Some(_) => Ok(()),
            None => {
                let foreign = format!("free of {at:#x}, which the program did not allocate");
                let (kind, text) = match self.memory.find(at) {
                    Some(_) => (Kind::InvalidFree, foreign),
                    // Nothing alive is here, so this only asks the memory whether something once was.
                    None => match self.memory.free(at) {
                        Err(e) => (work::kind_of(&e), e.to_string()),
                        Ok(()) => (Kind::InvalidFree, foreign),
                    },
                };
                Err(Refusal::Said(Code::InvalidValue, kind, text))
            }
        }
    }

    /// Reports memory that was not freed and, for a context that ended, gives it back.
    pub(super) fn report_leaks(&mut self, context: Option<u64>, faulted: bool, when: &str) {
        const SHOWN: usize = 8;
        let ours = |c: u64| context.is_none_or(|id| id == c);
        let leaks: Vec<(u64, Owner)> = self
            .owners
            .iter()
            .filter(|(_, o)| ours(o.context) && !o.freeing)
            .map(|(at, o)| (*at, *o))
            .collect();
        let pinned: Vec<(usize, usize)> = match context {
            Some(id) => self.pinned.of_context(id),
            None => self.contexts.keys().flat_map(|id| self.pinned.of_context(*id)).collect(),
        };
        // After a fault the program rarely gets to free anything; its leaks say nothing then.
        if !faulted {
            for (at, owner) in leaks.iter().take(SHOWN) {
                let text =
                    format!("{} bytes of device memory at {at:#x} were not freed when {when}", owner.bytes);
                let function = if owner.pool.is_some() { "cuMemAllocAsync" } else { "cuMemAlloc_v2" };
                report::emit(&Report::error(Kind::Leak, function, text));
            }
            if leaks.len() > SHOWN {
                let text = format!("{} more allocations were not freed", leaks.len() - SHOWN);
                report::emit(&Report::error(Kind::Leak, "cuMemAlloc_v2", text));
            }
            for (at, bytes) in pinned.iter().take(SHOWN) {
                let text =
                    format!("{bytes} bytes of pinned host memory at {at:#x} were not freed when {when}");
                report::emit(&Report::error(Kind::Leak, "cuMemHostAlloc", text));
            }
        }
        if context.is_some() {
            for (at, _) in leaks {
                let _ = self.free_now(at, "cuCtxDestroy_v2");
            }
            for (at, _) in pinned {
                self.pinned.release(at);
            }
        }
    }

    /// The end of the program: leaks, work that nobody waited for, counters.
    pub(super) fn finish(&mut self) {
        let faulted = self.contexts.values().any(|c| c.poison.is_some());
        let lost = self.queue.waiting().filter(|(_, t)| !matches!(t.op, Op::Free { .. })).count();
        if lost > 0 && !faulted {
            let text =
                format!("{lost} queued operations were lost: the program ended without waiting for them");
            report::emit(&Report::warning(Kind::Unfinished, "exit", text));
        }
        self.report_leaks(None, faulted, "the program ended");
        let alive = [
            ("contexts", self.contexts.len()),
            (
                "streams",
                self.streams.values().filter(|s| matches!(s.kind, StreamKind::Created { .. })).count(),
            ),
            ("events", self.events.len()),
            ("modules", self.modules.len()),
            ("graphs", self.graphs.len()),
            ("graph_execs", self.execs.len()),
            ("pools", self.pools.len() - 1),
            ("device_allocations", self.owners.values().filter(|o| !o.freeing).count()),
            ("pinned_allocations", self.pinned.len()),
        ];
        self.tally.alive_at_exit =
            alive.iter().filter(|(_, n)| *n > 0).map(|(k, n)| (k.to_string(), *n as u64)).collect();
        self.modules.values().for_each(|m| self.tally.covered(&m.ptx));
        self.tally.peak_bytes = self.memory.peak();
        let (counts, errors, warnings) = report::totals();
        self.tally.reports = counts;
        if let Some(path) = &self.config.counters {
            let written = serde_json::to_vec_pretty(&self.tally)
                .map_err(std::io::Error::from)
                .and_then(|json| std::fs::write(path, json));
            if let Err(e) = written {
                eprintln!("monopath virtual GPU: cannot write {}: {e}", path.display());
            }
        }
        if errors + warnings > 0 {
            eprintln!("monopath virtual GPU: {errors} errors, {warnings} warnings");
        }
    }
}
