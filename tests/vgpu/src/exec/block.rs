//! A block: warps that take turns, barriers, shared memory.

use crate::fault::FaultKind;
use crate::memory::touch::{Order, Touch};
use crate::ptx::inst::*;
use crate::ptx::types::{Ty, W};
use crate::schedule::Purpose;

use super::alu::lanes;
use super::rows::{FULL, Row};
use super::shared::Shared;
use super::warp::{AtBarrier, Stop, Warp};
use super::{Cx, Job, Tally, Trouble};

/// Warp-instructions that a warp may run before the next one has its turn.
const TURN: u64 = 1 << 14;
/// Turns of all warps after which another block has its turn.
const ROUNDS: u32 = 8;

/// The state of one of a block's 16 barriers.
#[derive(Clone, Default)]
struct Barrier {
    /// Threads that it waits for; 0 while nobody waits.
    expected: u32,
    arrived: u32,
    waiting: Vec<u32>,
    /// Someone arrived without waiting.
    passers: bool,
    gathered: [u64; 32],
    count: u32,
    all: bool,
    any: bool,
}

/// What a block carries while it is resident.
pub(super) struct Block {
    pub number: u64,
    index: [u32; 3],
    warps: Vec<Warp>,
    shared: Shared,
    barriers: Vec<Barrier>,
    consts: Vec<Row>,
    order: Order,
    turns: Vec<u32>,
}

/// Whether a block has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Done,
    Running,
}

impl Block {
    pub(super) fn new(races: bool) -> Block {
        Block {
            number: 0,
            index: [0; 3],
            warps: Vec::new(),
            shared: Shared::new(races),
            barriers: Vec::new(),
            consts: Vec::new(),
            order: Order::default(),
            turns: Vec::new(),
        }
    }

    /// A fresh block.
    pub(super) fn begin(&mut self, job: &Job<'_>, touch: &mut Touch, number: u64) {
        let [gx, gy, _] = job.grid.map(u64::from);
        self.number = number;
        self.index = [(number % gx) as u32, (number / gx % gy) as u32, (number / gx / gy) as u32];
        let threads: u32 = job.block.iter().product();
        let n = threads.div_ceil(32) as usize;
        self.shared.begin(job.shared_bytes as usize, n);
        self.barriers.clear();
        self.barriers.resize(16, Barrier::default());
        self.order = touch.enter(number);
        self.turns = job.schedule.order(Purpose::Warps, number, n);
        self.consts.clear();
        self.consts.extend_from_slice(&job.consts);
        self.warps.resize_with(n, Warp::new);
        for (i, warp) in self.warps.iter_mut().enumerate() {
            let here = threads - 32 * i as u32;
            warp.begin(i as u32, if here >= 32 { FULL } else { (1 << here) - 1 }, job.code);
        }
        for (slot, w, value) in &job.code.consts {
            let Const::Special(s) = value else { continue };
            if let Special::Ctaid(axis) = s {
                fill(&mut self.consts, slot ^ CONST, *w, |_| self.index[usize::from(*axis)].into());
            }
            if slot & CONST == 0 {
                for (i, warp) in self.warps.iter_mut().enumerate() {
                    let [bx, by, _] = job.block;
                    fill(&mut warp.rows, *slot, *w, |l| {
                        let t = 32 * i as u32 + l;
                        u64::from(match s {
                            Special::Tid(0) => t % bx,
                            Special::Tid(1) => t / bx % by,
                            Special::Tid(_) => t / bx / by,
                            _ => i as u32,
                        })
                    });
                }
            }
        }
    }

    /// Runs the block for its share of time.
    pub(super) fn run(
        &mut self,
        job: &Job<'_>,
        touch: &mut Touch,
        tally: &mut Tally,
    ) -> Result<State, Trouble> {
        for _ in 0..ROUNDS {
            let mut ran = false;
            for t in 0..self.turns.len() {
                let i = self.turns[t] as usize;
                while self.warps[i].can_run() {
                    ran = true;
                    let mut cx = Cx {
                        code: job.code,
                        memory: job.memory,
                        params: job.params,
                        schedule: job.schedule,
                        checks: job.checks,
                        wide_vectors: job.wide_vectors,
                        grid: job.grid,
                        block_number: self.number,
                        consts: &self.consts,
                        shared: &mut self.shared,
                        order: &mut self.order,
                        touch: &mut *touch,
                        tally: &mut *tally,
                    };
                    let stop = self.warps[i].run(&mut cx, TURN).map_err(|t| t.of(i as u32))?;
                    match stop {
                        Stop::Barrier => self.arrive(job, tally, i).map_err(|t| t.of(i as u32))?,
                        Stop::Slice => break,
                        Stop::Blocked | Stop::Done => {}
                    }
                }
            }
            if tally.spent() > job.budget {
                let text = format!("more than {} lane-instructions", job.budget);
                return Err(Trouble::new(FaultKind::Timeout, 0, 0, text).nowhere());
            }
            if self.warps.iter().all(Warp::done) {
                return Ok(State::Done);
            }
            if !ran {
                return Err(self.stuck(job));
            }
        }
        Ok(State::Running)
    }

    /// Counts the lanes of a warp that have come to a block barrier.
    fn arrive(&mut self, job: &Job<'_>, tally: &mut Tally, w: usize) -> Result<(), Trouble> {
        let code = job.code;
        let fresh: Vec<AtBarrier> = self.warps[w].at_barrier.iter().copied().filter(|b| !b.counted).collect();
        let first = fresh[0].group;
        let Op::Bar(bar) = code.insts[first.pc as usize].op else {
            unreachable!("lanes wait at barriers only")
        };
        if let Some(other) = fresh.iter().find(|b| b.group.pc != first.pc) {
            let text = format!(
                "lanes {:#010x} wait at ptx line {}, lanes {:#010x} at line {}",
                first.mask,
                job.line(first.pc),
                other.group.mask,
                job.line(other.group.pc)
            );
            return Err(Trouble::new(
                FaultKind::DivergentBarrier,
                first.pc,
                first.mask.trailing_zeros() as usize,
                text,
            ));
        }
        let here = fresh.iter().fold(0, |v, b| v | b.group.mask);
        let inst = &code.insts[first.pc as usize];
        let warp = &mut self.warps[w];
        let lane = here.trailing_zeros() as usize;
        let trouble = |text: String| Err(Trouble::new(FaultKind::DivergentBarrier, first.pc, lane, text));
        let r = warp.view(&self.consts);
        let ids = r.r32(inst.a);
        let id = ids[lane];
        if lanes(here).any(|l| ids[l] != id) || id > 15 {
            return trouble(format!(
                "barrier {id}: lanes disagree about the barrier, or it is none of 0 to 15"
            ));
        }
        let threads: u32 = job.block.iter().product();
        let whole = !bar.counted;
        let expected = if whole { threads } else { r.r32(inst.b)[lane] };
        if !whole
            && (expected == 0 || !expected.is_multiple_of(32) || expected > threads.next_multiple_of(32))
        {
            return trouble(format!("barrier {id} for {expected} threads in a block of {threads}"));
        }
        let yes = if bar.red.is_some() { r.pred(inst.c) & here } else { 0 };
        let barrier = &mut self.barriers[id as usize];
        if barrier.expected == 0 {
            *barrier = Barrier { expected, all: true, ..Barrier::default() };
        } else if barrier.expected != expected {
            return trouble(format!(
                "barrier {id} is for {} threads elsewhere, for {expected} here",
                barrier.expected
            ));
        }
        // A counted aligned barrier counts warps; the others count lanes.
        barrier.arrived += if !whole && bar.aligned { 32 } else { here.count_ones() };
        barrier.count += yes.count_ones();
        barrier.all &= yes == here;
        barrier.any |= yes != 0;
        self.shared.arrive(w as u32, &mut barrier.gathered);
        if bar.arrive {
            barrier.passers = true;
            let (go, stay): (Vec<_>, Vec<_>) = warp.at_barrier.iter().copied().partition(|b| !b.counted);
            warp.at_barrier = stay;
            go.iter().for_each(|b| warp.resume(b.group, b.group.pc + 1));
        } else {
            warp.at_barrier.iter_mut().for_each(|b| b.counted = true);
            if !barrier.waiting.contains(&(w as u32)) {
                barrier.waiting.push(w as u32);
            }
        }
        match barrier.arrived.cmp(&barrier.expected) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Greater => {
                let text =
                    format!("barrier {id}: {} threads came, {expected} were expected", barrier.arrived);
                Err(Trouble::new(FaultKind::DivergentBarrier, first.pc, lane, text))
            }
            std::cmp::Ordering::Equal => {
                self.release(job, tally, id);
                Ok(())
            }
        }
    }

    fn release(&mut self, job: &Job<'_>, tally: &mut Tally, id: u32) {
        tally.barriers += 1;
        let barrier = std::mem::take(&mut self.barriers[id as usize]);
        let everyone = barrier.waiting.len() == self.warps.iter().filter(|w| !w.done()).count();
        if everyone && !barrier.passers {
            self.shared.everyone();
        }
        for w in &barrier.waiting {
            if !everyone || barrier.passers {
                self.shared.pass(*w, &barrier.gathered);
            }
            let warp = &mut self.warps[*w as usize];
            let (go, stay): (Vec<_>, Vec<_>) = warp.at_barrier.iter().copied().partition(|b| {
                let inst = &job.code.insts[b.group.pc as usize];
                b.counted && warp_barrier_id(&self.consts, inst, &warp.rows, b.group.mask) == id
            });
            warp.at_barrier = stay;
            for b in go {
                let inst = &job.code.insts[b.group.pc as usize];
                let Op::Bar(bar) = inst.op else { continue };
                let mut r = warp.view(&self.consts);
                match bar.red {
                    None => {}
                    Some(BarRed::Popc) => r.put32(inst.d, b.group.mask, &[barrier.count; 32]),
                    Some(BarRed::And) => r.put_pred(inst.d, b.group.mask, if barrier.all { FULL } else { 0 }),
                    Some(BarRed::Or) => r.put_pred(inst.d, b.group.mask, if barrier.any { FULL } else { 0 }),
                }
                warp.resume(b.group, b.group.pc + 1);
            }
        }
    }

    /// Nobody can go on: why.
    fn stuck(&self, job: &Job<'_>) -> Trouble {
        for (i, warp) in self.warps.iter().enumerate() {
            if let Some(p) = warp.parked.first() {
                let lane = p.group.mask.trailing_zeros() as usize;
                let missing = p.named & warp.live & !p.group.mask;
                let text = format!(
                    "lanes {:#010x} wait for lanes {missing:#010x}, which do not come to this instruction",
                    p.group.mask
                );
                return Trouble::new(FaultKind::SyncMask, p.group.pc, lane, text).of(i as u32);
            }
        }
        let threads: u32 = job.block.iter().product();
        let returned: u32 = self.warps.iter().map(|w| (w.threads & !w.live).count_ones()).sum();
        let mut places: Vec<(u32, u32)> = Vec::new();
        let mut first = None;
        for (i, warp) in self.warps.iter().enumerate() {
            for b in &warp.at_barrier {
                first.get_or_insert((i, b.group));
                let n = b.group.mask.count_ones();
                match places.iter_mut().find(|p| p.0 == job.line(b.group.pc)) {
                    Some(p) => p.1 += n,
                    None => places.push((job.line(b.group.pc), n)),
                }
            }
        }
        let Some((warp, group)) = first else {
            return Trouble::new(FaultKind::Deadlock, 0, 0, "no lane can go on".into()).nowhere();
        };
        let list: Vec<String> = places.iter().map(|(line, n)| format!("{n} at ptx line {line}")).collect();
        let text = format!(
            "threads wait at a barrier that the others do not reach: {} of {threads}, {returned} have returned",
            list.join(", ")
        );
        Trouble::new(FaultKind::DivergentBarrier, group.pc, group.mask.trailing_zeros() as usize, text)
            .of(warp as u32)
    }

    /// Index of a thread of the block.
    pub(super) fn thread(job: &Job<'_>, warp: u32, lane: usize) -> [u32; 3] {
        let t = 32 * warp + lane as u32;
        let [bx, by, _] = job.block;
        [t % bx, t / bx % by, t / bx / by]
    }

    pub(super) fn index(&self) -> [u32; 3] {
        self.index
    }
}

/// The barrier that waiting lanes named.
fn warp_barrier_id(consts: &[Row], inst: &Inst, rows: &[Row], mask: u32) -> u32 {
    let lane = mask.trailing_zeros() as usize;
    if inst.a & CONST != 0 {
        consts[(inst.a ^ CONST) as usize].0[lane]
    } else {
        rows[inst.a as usize].0[lane]
    }
}

/// Fills a row (or two) lane by lane.
pub(super) fn fill(rows: &mut [Row], slot: u32, w: W, f: impl Fn(u32) -> u64) {
    let slot = slot as usize;
    for l in 0..32usize {
        let v = f(l as u32);
        if w == W::W64 {
            // Lane l of a 64-bit row is words 2l and 2l + 1 of the pair of rows.
            rows[slot + l / 16].0[2 * (l % 16)] = v as u32;
            rows[slot + l / 16].0[2 * (l % 16) + 1] = (v >> 32) as u32;
        } else {
            rows[slot].0[l] = v as u32;
        }
    }
}

/// The value of a parameter as a register holds it.
pub(super) fn param(params: &[u8], offset: u32, ty: Ty, w: W) -> u64 {
    let mut bytes = [0; 8];
    let n = ty.bytes() as usize;
    let at = offset as usize;
    bytes[..n].copy_from_slice(&params[at..at + n]);
    let v = u64::from_le_bytes(bytes);
    if ty.signed() {
        let shift = 64 - 8 * n as u32;
        ((((v << shift) as i64) >> shift) as u64) & w.mask()
    } else {
        v
    }
}
