//! Runs a launch: blocks of warps of 32 lanes, with every check on unless told otherwise.
//!
//! Blocks that cannot communicate (no atomics, fences or strong accesses in the kernel) run on several threads, dealt
//! out by number; others run on one, in the order of the schedule. Either way results do not depend on timing.

mod alu;
mod atomics;
mod banks;
mod block;
mod copy;
mod global;
mod mem;
mod print;
mod rows;
mod scalar;
mod shared;
mod tensor;
mod warp;
mod warp_ops;
mod window;

use std::collections::VecDeque;

use crate::counters::{Class, Counters, Executed, GlobalTraffic, SharedTraffic};
use crate::fault::{Fault, FaultKind};
use crate::memory::touch::{self, Order, Touch};
use crate::memory::{Footprint, Memory};
use crate::props::DeviceProps;
use crate::ptx::Kernel;
use crate::ptx::inst::*;
use crate::schedule::{Purpose, Schedule};

use block::{Block, State};
use rows::Row;
use shared::Shared;

/// One kernel launch.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// Blocks per axis (x, y, z).
    pub grid: [u32; 3],
    /// Threads per axis (x, y, z).
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: u32,
    /// Parameter buffer, laid out as [`Kernel::params`] says.
    pub params: &'a [u8],
    /// Dynamic shared memory that the program opted in to for this kernel; 0 if it did not.
    pub dynamic_shared_optin: u32,
    /// Blocks may wait for each other (a cooperative launch): all of them are resident.
    pub cooperative: bool,
    /// Seed of the schedule; 0 is the plain order.
    pub seed: u64,
}

/// How to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Race checks. Bounds, alignment and initialisation are always checked.
    pub checks: bool,
    /// Worker threads; results do not depend on it.
    pub threads: usize,
    /// Lane-instructions after which a launch is stopped.
    pub budget: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { checks: true, threads: 2, budget: 20_000_000_000 }
    }
}

/// Blocks resident at once when blocks wait for each other without a cooperative launch.
const RESIDENT: usize = 64;

/// A broken rule inside a warp, before it knows its thread.
#[derive(Debug)]
struct Trouble(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: FaultKind,
    pc: u32,
    lane: usize,
    warp: Option<u32>,
    /// No thread is to blame.
    nowhere: bool,
    text: String,
}

impl Trouble {
    fn new(kind: FaultKind, pc: u32, lane: usize, text: String) -> Trouble {
        Trouble(Box::new(Inner { kind, pc, lane, warp: None, nowhere: false, text }))
    }

    fn of(mut self, warp: u32) -> Trouble {
        self.0.warp.get_or_insert(warp);
        self
    }

    fn nowhere(mut self) -> Trouble {
        self.0.nowhere = true;
        self
    }
}

/// Counters of one worker.
#[derive(Default)]
struct Tally {
    executed: [Executed; Class::COUNT],
    blocks: u64,
    warps: u64,
    threads: u64,
    global: GlobalTraffic,
    shared: SharedTraffic,
    local_requests: u64,
    branches: u64,
    divergent: u64,
    barriers: u64,
    warp_barriers: u64,
    mma: u64,
    atomics: u64,
    async_bytes: u64,
}

impl Tally {
    #[inline(always)]
    fn count(&mut self, class: Class, m: u32) {
        let e = &mut self.executed[class as usize];
        e.warp += 1;
        e.lane += u64::from(m.count_ones());
    }

    /// Lane-instructions; an instruction that no lane executed counts as one, so that every loop ends.
    fn spent(&self) -> u64 {
        self.executed.iter().map(|e| e.lane + e.warp).sum()
    }

    fn counters(&self) -> Counters {
        Counters {
            blocks: self.blocks,
            warps: self.warps,
            threads: self.threads,
            instructions: Class::ALL
                .into_iter()
                .map(|c| (c, self.executed[c as usize]))
                .filter(|(_, e)| e.warp > 0)
                .collect(),
            global: self.global,
            shared: self.shared,
            local_requests: self.local_requests,
            branches: self.branches,
            divergent_branches: self.divergent,
            barriers: self.barriers,
            warp_barriers: self.warp_barriers,
            mma: self.mma,
            atomics: self.atomics,
            async_bytes: self.async_bytes,
        }
    }
}

/// What all blocks of a launch share.
struct Job<'j> {
    kernel: &'j Kernel,
    code: &'j Code,
    memory: &'j Memory,
    params: &'j [u8],
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    schedule: Schedule,
    checks: bool,
    budget: u64,
    wide_vectors: bool,
    /// Constant rows; those of a block are filled in by the block.
    consts: Vec<Row>,
}

impl Job<'_> {
    fn line(&self, pc: u32) -> u32 {
        self.code.places.get(pc as usize).map_or(0, |p| p.line)
    }

    fn fault(&self, t: Trouble, block: &Block) -> Fault {
        let inner = *t.0;
        let place = self.code.places.get(inner.pc as usize).copied().unwrap_or_default();
        let mut fault = Fault::of_launch(inner.kind, self.kernel.name(), inner.text);
        fault.block = Some(block.index());
        if inner.nowhere {
            return fault;
        }
        fault.ptx_line = place.line;
        fault.instruction = self.code.text_of(inner.pc as usize).into();
        if place.loc.1 != 0 {
            let file = self.code.files.get(&place.loc.0).cloned().unwrap_or_default();
            fault.source = Some((file, place.loc.1));
        }
        fault.thread = inner.warp.map(|w| Block::thread(self, w, inner.lane));
        fault
    }
}

/// What a warp's instructions may touch.
struct Cx<'c> {
    code: &'c Code,
    memory: &'c Memory,
    params: &'c [u8],
    schedule: Schedule,
    checks: bool,
    wide_vectors: bool,
    grid: [u32; 3],
    block_number: u64,
    consts: &'c [Row],
    shared: &'c mut Shared,
    order: &'c mut Order,
    touch: &'c mut Touch,
    tally: &'c mut Tally,
}

impl Cx<'_> {
    fn line(&self, pc: u32) -> u32 {
        self.code.places.get(pc as usize).map_or(0, |p| p.line)
    }

    fn block_name(&self, number: u64) -> String {
        block_name(self.grid, number)
    }
}

fn block_name(grid: [u32; 3], number: u64) -> String {
    let [gx, gy, _] = grid.map(u64::from);
    format!("block ({}, {}, {})", number % gx, number / gx % gy, number / gx / gy)
}

/// Checks a launch against the limits of the kernel and the device, without running it.
///
/// # Errors
/// [`FaultKind::LaunchLimit`].
pub fn validate(kernel: &Kernel, launch: &Launch<'_>, props: &DeviceProps) -> Result<(), Box<Fault>> {
    let wrong = |text: String| Err(Box::new(Fault::of_launch(FaultKind::LaunchLimit, kernel.name(), text)));
    for axis in 0..3 {
        if launch.grid[axis] == 0 || launch.grid[axis] > props.max_grid[axis] {
            return wrong(format!("grid {:?}, limits 1..={:?}", launch.grid, props.max_grid));
        }
        if launch.block[axis] == 0 || launch.block[axis] > props.max_block[axis] {
            return wrong(format!("block {:?}, limits 1..={:?}", launch.block, props.max_block));
        }
    }
    let threads: u64 = launch.block.iter().map(|n| u64::from(*n)).product();
    if threads > u64::from(props.max_threads_per_block) {
        return wrong(format!("{threads} threads per block, the device has {}", props.max_threads_per_block));
    }
    if let Some(max) = kernel.max_block() {
        if kernel.exact_block() && launch.block != max {
            return wrong(format!("block {:?}, the kernel requires {max:?}", launch.block));
        }
        let limit: u64 = max.iter().map(|n| u64::from(*n)).product();
        if threads > limit {
            return wrong(format!("{threads} threads per block, the kernel was compiled for {limit}"));
        }
    }
    let total = u64::from(kernel.shared_bytes()) + u64::from(launch.dynamic_shared);
    let limit =
        if launch.dynamic_shared_optin > 0 { props.shared_per_block_optin } else { props.shared_per_block };
    if total > u64::from(limit) {
        return wrong(format!("{total} bytes of shared memory, limit {limit}"));
    }
    if launch.dynamic_shared_optin > 0
        && total > u64::from(props.shared_per_block)
        && launch.dynamic_shared > launch.dynamic_shared_optin
    {
        let text = format!(
            "{} bytes of dynamic shared memory, the program opted in to {}",
            launch.dynamic_shared, launch.dynamic_shared_optin
        );
        return wrong(text);
    }
    if kernel.local_bytes() > props.max_local_bytes {
        return wrong(format!(
            "{} bytes of local memory, limit {}",
            kernel.local_bytes(),
            props.max_local_bytes
        ));
    }
    if launch.params.len() != kernel.param_bytes() as usize {
        return wrong(format!(
            "{} bytes of parameters, the kernel has {}",
            launch.params.len(),
            kernel.param_bytes()
        ));
    }
    if launch.params.len() > props.max_param_bytes as usize {
        return wrong(format!(
            "{} bytes of parameters, limit {}",
            launch.params.len(),
            props.max_param_bytes
        ));
    }
    Ok(())
}

/// Runs a launch to its end. The kernel's module must have been placed in this memory.
///
/// # Errors
/// The first broken rule in schedule order.
pub fn launch(
    kernel: &Kernel,
    launch: &Launch<'_>,
    memory: &Memory,
    props: &DeviceProps,
    options: &Options,
) -> Result<Counters, Box<Fault>> {
    launch_traced(kernel, launch, memory, props, options, None)
}

/// [`launch`] that also says which bytes were touched, if the checks are on.
///
/// # Errors
/// The first broken rule in schedule order.
pub fn launch_traced(
    kernel: &Kernel,
    launch: &Launch<'_>,
    memory: &Memory,
    props: &DeviceProps,
    options: &Options,
    footprint: Option<&mut Footprint>,
) -> Result<Counters, Box<Fault>> {
    validate(kernel, launch, props)?;
    let code = kernel.code.as_ref();
    let schedule = Schedule::new(launch.seed);
    let shared_bytes = kernel.shared_with(launch.dynamic_shared);
    let job = Job {
        kernel,
        code,
        memory,
        params: launch.params,
        grid: launch.grid,
        block: launch.block,
        shared_bytes,
        schedule,
        checks: options.checks,
        budget: options.budget,
        wide_vectors: wide_vectors(),
        consts: constants(kernel, launch, memory, props, shared_bytes)?,
    };
    let blocks: u64 = launch.grid.iter().map(|n| u64::from(*n)).product();
    let serial = code.communicates || launch.cooperative;
    let workers = if serial { 1 } else { options.threads.clamp(1, 64).min(blocks as usize) };
    let mut touches: Vec<Touch> = (0..workers).map(|_| memory.take_touch()).collect();
    let results: Vec<Result<Tally, (u64, Box<Fault>)>> = if workers == 1 {
        vec![work(&job, &mut touches[0], 0, 1, blocks, launch.cooperative, serial)]
    } else {
        std::thread::scope(|scope| {
            let job = &job;
            let running: Vec<_> = touches
                .iter_mut()
                .enumerate()
                .map(|(i, touch)| scope.spawn(move || work(job, touch, i, workers, blocks, false, false)))
                .collect();
            running.into_iter().map(|h| h.join().expect("a worker does not panic")).collect()
        })
    };
    let outcome = gathered(&job, &touches, results);
    if let Some(footprint) = footprint
        && options.checks
    {
        *footprint = Touch::footprint(&touches.iter().collect::<Vec<_>>());
    }
    touches.into_iter().for_each(|t| memory.give_touch(t));
    outcome
}

fn gathered(
    job: &Job<'_>,
    touches: &[Touch],
    results: Vec<Result<Tally, (u64, Box<Fault>)>>,
) -> Result<Counters, Box<Fault>> {
    let mut counters = Counters::default();
    let mut first: Option<(u64, Box<Fault>)> = None;
    for result in results {
        match result {
            Ok(tally) => counters.merge(&tally.counters()),
            Err((at, fault)) => {
                if first.as_ref().is_none_or(|(b, _)| at < *b) {
                    first = Some((at, fault));
                }
            }
        }
    }
    if let Some((_, fault)) = first {
        return Err(fault);
    }
    if job.checks {
        for (i, a) in touches.iter().enumerate() {
            for b in &touches[i + 1..] {
                if let Some((page, c, mine)) = Touch::between(a, b) {
                    return Err(Box::new(between(job, page, c, mine)));
                }
            }
        }
    }
    let refs: Vec<&Touch> = touches.iter().collect();
    let (read, written) = Touch::distinct(&refs);
    counters.global.compulsory_load_bytes = read;
    counters.global.compulsory_store_bytes = written;
    Ok(counters)
}

/// The fault of a race that was found after the blocks had run.
fn between(job: &Job<'_>, page: usize, c: touch::Conflict, mine: u64) -> Fault {
    let pc = c.instruction.unwrap_or(0);
    let text = format!(
        "{} and {} touch {:#x}, at least one writing, with nothing between to order them",
        block_name(job.grid, c.other.min(mine)),
        block_name(job.grid, c.other.max(mine)),
        touch::address(page, c.at)
    );
    let mut fault = Fault::of_launch(FaultKind::GlobalRace, job.kernel.name(), text);
    let place = job.code.places.get(pc as usize).copied().unwrap_or_default();
    fault.ptx_line = place.line;
    fault.instruction = job.code.text_of(pc as usize).into();
    if place.loc.1 != 0 {
        fault.source = Some((job.code.files.get(&place.loc.0).cloned().unwrap_or_default(), place.loc.1));
    }
    fault
}

/// Runs every `workers`-th block of the schedule's order.
fn work(
    job: &Job<'_>,
    touch: &mut Touch,
    first: usize,
    workers: usize,
    blocks: u64,
    cooperative: bool,
    shuffled: bool,
) -> Result<Tally, (u64, Box<Fault>)> {
    touch.begin();
    let mut tally = Tally::default();
    let threads: u64 = job.block.iter().map(|n| u64::from(*n)).product();
    // Blocks that cannot communicate need no particular order, and a permutation of millions would cost memory.
    let order = (shuffled && !job.schedule.is_plain() && blocks < 1 << 24)
        .then(|| job.schedule.order(Purpose::Blocks, 0, blocks as usize));
    let mut next = first as u64;
    let mut resident: VecDeque<(u64, Block)> = VecDeque::new();
    let mut idle: Vec<Block> = Vec::new();
    let room = if cooperative { blocks as usize } else { 1 };
    let mut waiting = 0;
    loop {
        while resident.len() < (room + waiting).min(if cooperative { usize::MAX } else { RESIDENT })
            && next < blocks
        {
            let number = order.as_ref().map_or(next, |o| o[next as usize].into());
            let mut block = idle.pop().unwrap_or_else(|| Block::new(job.checks));
            block.begin(job, touch, number);
            resident.push_back((next, block));
            next += workers as u64;
        }
        let Some((at, mut block)) = resident.pop_front() else { break };
        match block.run(job, touch, &mut tally) {
            Ok(State::Done) => {
                tally.blocks += 1;
                tally.threads += threads;
                tally.warps += threads.div_ceil(32);
                waiting = waiting.saturating_sub(1);
                idle.push(block);
            }
            // It may be waiting for another block: let that one in.
            Ok(State::Running) => {
                waiting = resident.len() + 1;
                resident.push_back((at, block));
            }
            Err(trouble) => return Err((at, Box::new(job.fault(trouble, &block)))),
        }
    }
    Ok(tally)
}

fn wide_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("f16c")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// The rows that are the same for all blocks.
fn constants(
    kernel: &Kernel,
    launch: &Launch<'_>,
    memory: &Memory,
    props: &DeviceProps,
    shared_bytes: u32,
) -> Result<Vec<Row>, Box<Fault>> {
    let code = kernel.code.as_ref();
    let mut rows = vec![Row([0; 32]); code.const_rows as usize];
    let grid_id = memory.next_grid();
    let threads: u32 = launch.block.iter().product();
    for (slot, w, value) in &code.consts {
        if slot & CONST == 0 {
            continue;
        }
        let v = match value {
            Const::Bits(v) => *v,
            Const::Address(g, offset) => {
                let placed = code.globals.addresses.get().and_then(|a| a.get(*g as usize));
                let Some(address) = placed else {
                    let text = "the module's variables were not placed in device memory".to_string();
                    return Err(Box::new(Fault::of_launch(FaultKind::Unsupported, kernel.name(), text)));
                };
                address.wrapping_add(*offset as u64)
            }
            Const::DynamicShared(offset) => {
                let base = code.shared_bytes.next_multiple_of(code.shared_align);
                u64::from(base).wrapping_add(*offset as u64)
            }
            Const::Param(offset, ty) => block::param(launch.params, *offset, *ty, *w),
            Const::Special(s) => match s {
                Special::Ntid(a) => launch.block[usize::from(*a)].into(),
                Special::Nctaid(a) => launch.grid[usize::from(*a)].into(),
                Special::NumWarps => threads.div_ceil(32).into(),
                Special::SmId => 0,
                Special::NumSms => props.multiprocessors.into(),
                Special::GridId => grid_id,
                Special::DynamicSharedBytes => launch.dynamic_shared.into(),
                Special::TotalSharedBytes => shared_bytes.into(),
                Special::LaneId
                | Special::MaskEq
                | Special::MaskLt
                | Special::MaskLe
                | Special::MaskGt
                | Special::MaskGe => {
                    block::fill(&mut rows, slot ^ CONST, *w, |l| {
                        let eq = 1u32 << l;
                        u64::from(match s {
                            Special::LaneId => l,
                            Special::MaskEq => eq,
                            Special::MaskLt => eq - 1,
                            Special::MaskLe => (eq - 1) | eq,
                            Special::MaskGt => !((eq - 1) | eq),
                            _ => !(eq - 1),
                        })
                    });
                    continue;
                }
                // Filled in per block or per warp.
                Special::Ctaid(_) | Special::Tid(_) | Special::WarpId => continue,
            },
        };
        block::fill(&mut rows, slot ^ CONST, *w, |_| v);
    }
    Ok(rows)
}
