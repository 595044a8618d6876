//! A warp: 32 lanes in groups that run apart after a divergent branch and meet again where the branch's ways meet.
//!
//! Which side runs first is the schedule's choice; where sides meet is not, so counters do not depend on the seed.
//! Lanes at a `.sync` instruction wait until every lane named by the mask has come, from whatever group.

use crate::fault::FaultKind;
use crate::ptx::inst::*;
use crate::schedule::Purpose;

use super::alu::{self, lanes};
use super::copy::AsyncCopies;
use super::rows::{FULL, Row, Rows};
use super::{Cx, Trouble, atomics, mem, tensor, warp_ops};

/// Lanes that run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub pc: u32,
    pub mask: u32,
    /// The innermost meeting that these lanes will come to.
    meeting: u32,
}

const NONE: u32 = u32::MAX;

/// Lanes that went apart and will meet.
#[derive(Debug, Clone, Copy)]
struct Meeting {
    /// Instruction where they meet.
    at: u32,
    outer: u32,
    expected: u32,
    arrived: u32,
}

/// Lanes that wait at a warp-synchronous instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parked {
    pub group: Group,
    /// The mask that they named.
    pub named: u32,
}

/// Lanes that wait at a block barrier.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtBarrier {
    pub group: Group,
    /// Their arrival has been counted.
    pub counted: bool,
}

/// Why a warp stopped running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// All lanes have returned.
    Done,
    /// All lanes wait.
    Blocked,
    /// Some lanes have come to a block barrier and must be counted.
    Barrier,
    /// It has run for its share.
    Slice,
}

/// Warp-instructions after which lanes that wait at a meeting go on alone, in case the others wait for them.
const PATIENCE: u64 = 1 << 16;

/// The same once the warp has lost its patience: whoever spins on a lock will do so again.
const SECOND_PATIENCE: u64 = 1 << 10;

pub(super) struct Warp {
    pub id: u32,
    pub rows: Vec<Row>,
    pub preds: Vec<u32>,
    pub carry: u32,
    /// Local memory, lane after lane.
    pub local: Vec<u8>,
    /// Lanes that exist.
    pub threads: u32,
    /// Lanes that have not returned.
    pub live: u32,
    ready: Vec<Group>,
    meetings: Vec<Meeting>,
    free: Vec<u32>,
    pub parked: Vec<Parked>,
    pub at_barrier: Vec<AtBarrier>,
    pub copies: AsyncCopies,
    /// Warp-instructions executed.
    pub executed: u64,
    /// `executed` when lanes last met, waited or returned.
    progress: u64,
    patience: u64,
    draws: u64,
}

impl Warp {
    pub(super) fn new() -> Warp {
        Warp {
            id: 0,
            rows: Vec::new(),
            preds: Vec::new(),
            carry: 0,
            local: Vec::new(),
            threads: 0,
            live: 0,
            ready: Vec::new(),
            meetings: Vec::new(),
            free: Vec::new(),
            parked: Vec::new(),
            at_barrier: Vec::new(),
            copies: AsyncCopies::default(),
            executed: 0,
            progress: 0,
            patience: PATIENCE,
            draws: 0,
        }
    }

    /// A fresh warp at the kernel's first instruction.
    pub(super) fn begin(&mut self, id: u32, threads: u32, code: &Code) {
        self.id = id;
        self.rows.clear();
        self.rows.resize(code.rows as usize, Row([0; 32]));
        self.preds.clear();
        self.preds.resize(code.preds as usize, 0);
        self.preds[TRUE as usize] = FULL;
        self.carry = 0;
        self.local.clear();
        self.local.resize(32 * code.local_bytes as usize, 0);
        self.threads = threads;
        self.live = threads;
        self.ready.clear();
        self.ready.push(Group { pc: 0, mask: threads, meeting: NONE });
        self.meetings.clear();
        self.free.clear();
        self.parked.clear();
        self.at_barrier.clear();
        self.copies.clear();
        self.executed = 0;
        self.progress = 0;
        self.patience = PATIENCE;
        self.draws = 0;
    }

    pub(super) fn done(&self) -> bool {
        self.live == 0
    }

    pub(super) fn can_run(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn view<'r>(&'r mut self, consts: &'r [Row]) -> Rows<'r> {
        Rows { own: &mut self.rows, consts, preds: &mut self.preds, carry: &mut self.carry }
    }

    /// Lets lanes go on at an instruction.
    pub(super) fn resume(&mut self, group: Group, pc: u32) {
        self.ready.push(Group { pc, ..group });
        self.progress = self.executed;
    }

    fn draw(&mut self, cx: &Cx<'_>) -> u64 {
        self.draws += 1;
        cx.schedule.draw(Purpose::Sides, cx.block_number << 22 ^ u64::from(self.id) << 17 ^ self.draws)
    }

    fn next(&mut self, cx: &Cx<'_>) -> Option<Group> {
        if self.ready.len() > 1 && !cx.schedule.is_plain() {
            let i = self.draw(cx) as usize % self.ready.len();
            return Some(self.ready.swap_remove(i));
        }
        self.ready.pop()
    }

    fn meeting(&mut self, m: Meeting) -> u32 {
        match self.free.pop() {
            Some(i) => {
                self.meetings[i as usize] = m;
                i
            }
            None => {
                self.meetings.push(m);
                self.meetings.len() as u32 - 1
            }
        }
    }

    /// Lanes come to their meeting. Returns all of them once the last has come.
    fn meet(&mut self, g: Group) -> Option<Group> {
        let m = &mut self.meetings[g.meeting as usize];
        m.arrived |= g.mask;
        if m.arrived != m.expected {
            return None;
        }
        let all = Group { pc: g.pc, mask: m.arrived, meeting: m.outer };
        m.expected = 0;
        self.free.push(g.meeting);
        self.progress = self.executed;
        Some(all)
    }

    /// Lanes return: nobody waits for them any more.
    fn leave(&mut self, m: u32) {
        self.live &= !m;
        self.progress = self.executed;
        for i in 0..self.meetings.len() {
            let t = &mut self.meetings[i];
            if t.expected & m == 0 {
                continue;
            }
            t.expected &= !m;
            if t.expected == 0 {
                self.free.push(i as u32);
            } else if t.arrived == t.expected {
                let g = Group { pc: t.at, mask: t.arrived, meeting: t.outer };
                t.expected = 0;
                self.free.push(i as u32);
                self.ready.push(g);
            }
        }
    }

    /// Lanes that wait at meetings go on alone: the others may be waiting for what they do next.
    fn lose_patience(&mut self) -> bool {
        for i in 0..self.meetings.len() {
            let t = &mut self.meetings[i];
            if t.expected != 0 && t.arrived != 0 {
                let g = Group { pc: t.at, mask: t.arrived, meeting: t.outer };
                t.expected &= !t.arrived;
                t.arrived = 0;
                self.ready.push(g);
                return true;
            }
        }
        false
    }

    /// Runs until all lanes wait or have returned, or for `limit` instructions.
    pub(super) fn run(&mut self, cx: &mut Cx<'_>, limit: u64) -> Result<Stop, Trouble> {
        #[cfg(target_arch = "x86_64")]
        {
            if cx.wide_vectors {
                // SAFETY: `wide_vectors` is set only where AVX2, FMA and BMI were detected.
                return unsafe { self.run_wide(cx, limit) };
            }
        }
        self.steps(cx, limit, Warp::other)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,f16c")]
    fn run_wide(&mut self, cx: &mut Cx<'_>, limit: u64) -> Result<Stop, Trouble> {
        self.steps(cx, limit, |warp, cx, op, g, m| warp.other_wide(cx, op, g, m))
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,f16c")]
    #[inline(never)]
    fn other_wide(&mut self, cx: &mut Cx<'_>, op: Op, g: Group, m: u32) -> Result<(), Trouble> {
        self.beyond_registers(cx, op, g, m)
    }

    #[inline(never)]
    fn other(&mut self, cx: &mut Cx<'_>, op: Op, g: Group, m: u32) -> Result<(), Trouble> {
        self.beyond_registers(cx, op, g, m)
    }

    #[inline(always)]
    fn steps(
        &mut self,
        cx: &mut Cx<'_>,
        limit: u64,
        other: impl Fn(&mut Warp, &mut Cx<'_>, Op, Group, u32) -> Result<(), Trouble>,
    ) -> Result<Stop, Trouble> {
        let code = cx.code;
        // Patience is judged at the end of a share, so shares become short where it is.
        let stop_at = self.executed + limit.min(self.patience);
        'group: loop {
            let Some(mut g) = self.next(cx) else {
                return Ok(if self.done() { Stop::Done } else { Stop::Blocked });
            };
            'meet: loop {
                let mut meet_at = NEVER;
                if g.meeting != NONE {
                    meet_at = self.meetings[g.meeting as usize].at;
                    if meet_at == g.pc {
                        match self.meet(g) {
                            Some(all) => {
                                g = all;
                                continue 'meet;
                            }
                            None => continue 'group,
                        }
                    }
                }
                loop {
                    if self.executed >= stop_at {
                        if self.executed - self.progress > self.patience && self.lose_patience() {
                            self.progress = self.executed;
                            self.patience = SECOND_PATIENCE;
                        }
                        // The others first, next time.
                        self.ready.insert(0, g);
                        return Ok(Stop::Slice);
                    }
                    let inst = &code.insts[g.pc as usize];
                    let p = self.preds[(inst.guard & !NEG) as usize];
                    let m = g.mask & if inst.guard & NEG != 0 { !p } else { p };
                    self.executed += 1;
                    code.reach(g.pc);
                    cx.tally.count(inst.class, m);
                    match inst.op {
                        Op::Bra => {
                            if inst.guard == TRUE {
                                g.pc = inst.a;
                            } else {
                                cx.tally.branches += 1;
                                if m == g.mask {
                                    g.pc = inst.a;
                                } else if m == 0 {
                                    g.pc += 1;
                                } else {
                                    cx.tally.divergent += 1;
                                    g = self.diverge(cx, g, inst.c, (inst.a, m), g.pc + 1);
                                    continue 'meet;
                                }
                            }
                        }
                        Op::BraTable(n) => {
                            let r = self.view(cx.consts);
                            let index = *r.r32(inst.a);
                            let targets = &code.more[inst.d as usize..(inst.d + n) as usize];
                            match self.table(cx, g, m, &index, targets, inst.c) {
                                Ok(next) => g = next,
                                Err(lane) => {
                                    let text =
                                        format!("branch through entry {} of a table of {n}", index[lane]);
                                    return Err(Trouble::new(FaultKind::OutOfBounds, g.pc, lane, text));
                                }
                            }
                            continue 'meet;
                        }
                        Op::Exit => {
                            if m != 0 {
                                self.leave(m);
                                self.complete_parked(cx)?;
                                g.mask &= !m;
                                if g.mask == 0 {
                                    continue 'group;
                                }
                            }
                            g.pc += 1;
                        }
                        Op::Warp(op) => {
                            if m != 0 {
                                let stay = self.warp_op(cx, op, g, m)?;
                                g.mask = stay;
                                if stay == 0 {
                                    continue 'group;
                                }
                            }
                            g.pc += 1;
                        }
                        Op::Bar(bar) => {
                            if m != 0 {
                                self.at_barrier
                                    .push(AtBarrier { group: Group { mask: m, ..g }, counted: false });
                                g.mask &= !m;
                                if g.mask != 0 {
                                    g.pc += 1;
                                    self.ready.push(g);
                                }
                                let here = self.at_barrier.iter().fold(0, |v, b| v | b.group.mask);
                                if !bar.aligned || here == self.live {
                                    return Ok(Stop::Barrier);
                                }
                                continue 'group;
                            }
                            g.pc += 1;
                        }
                        op => {
                            if m != 0 {
                                let mut r = Rows {
                                    own: &mut self.rows,
                                    consts: cx.consts,
                                    preds: &mut self.preds,
                                    carry: &mut self.carry,
                                };
                                if !alu::run(&mut r, inst, &code.more, m) {
                                    other(self, cx, op, g, m)?;
                                }
                            }
                            g.pc += 1;
                        }
                    }
                    if g.pc == meet_at {
                        continue 'meet;
                    }
                }
            }
        }
    }

    /// Everything that needs more than registers.
    #[inline(always)]
    fn beyond_registers(&mut self, cx: &mut Cx<'_>, op: Op, g: Group, m: u32) -> Result<(), Trouble> {
        let code = cx.code;
        let inst = &code.insts[g.pc as usize];
        match op {
            Op::Ld(mem) => mem::load(self, cx, inst, mem, g.pc, m),
            Op::St(mem) => mem::store(self, cx, inst, mem, g.pc, m),
            Op::Atom(atom) => atomics::atomic(self, cx, inst, atom, g.pc, m),
            Op::Fence { device } => {
                if device {
                    cx.touch.fence(cx.order);
                }
                Ok(())
            }
            Op::CpAsync { .. } | Op::CpCommit | Op::CpWait(_) => super::copy::run(self, cx, inst, g.pc, m),
            Op::LdMatrix { .. }
            | Op::MovMatrix
            | Op::Mma { .. }
            | Op::WmmaMma { .. }
            | Op::WmmaLoad { .. }
            | Op::WmmaStore { .. } => {
                if m != FULL {
                    let text = format!("a matrix instruction needs all 32 lanes, lanes {m:#010x} execute it");
                    return Err(Trouble::new(FaultKind::SyncMask, g.pc, m.trailing_zeros() as usize, text));
                }
                tensor::run(self, cx, inst, g.pc)
            }
            Op::Clock(_) => {
                let now = self.executed;
                let wide = matches!(op, Op::Clock(crate::ptx::types::W::W64));
                let high = inst.c == 1;
                let mut r = self.view(cx.consts);
                for l in lanes(m) {
                    if wide {
                        r.w64(inst.d)[l] = now;
                    } else {
                        r.w32(inst.d)[l] = if high { (now >> 32) as u32 } else { now as u32 };
                    }
                }
                Ok(())
            }
            Op::Nop => Ok(()),
            Op::Print => super::print::run(self, cx, inst, g.pc, m),
            Op::Trap(why) => {
                let lane = m.trailing_zeros() as usize;
                let (kind, text) = match why {
                    0 => (FaultKind::Trap, "the kernel executed `trap`".to_string()),
                    1 => (FaultKind::Trap, "the kernel executed `brkpt`".to_string()),
                    _ => {
                        let address = self.view(cx.consts).r64(inst.a)[lane];
                        (FaultKind::Assert, super::print::text(cx, address).unwrap_or_default())
                    }
                };
                Err(Trouble::new(kind, g.pc, lane, text))
            }
            _ => Err(Trouble::new(FaultKind::Unsupported, g.pc, 0, "instruction without a meaning".into())),
        }
    }

    /// Splits a group: (target, lanes) against the rest at `fall`. Returns the side that runs first.
    fn diverge(&mut self, cx: &Cx<'_>, g: Group, at: u32, (target, taken): (u32, u32), fall: u32) -> Group {
        let meeting = self.meeting_for(g, at);
        let a = Group { pc: target, mask: taken, meeting };
        let b = Group { pc: fall, mask: g.mask & !taken, meeting };
        let swap = !cx.schedule.is_plain() && self.draw(cx) & 1 == 1;
        let (first, second) = if swap { (a, b) } else { (b, a) };
        self.ready.push(second);
        first
    }

    fn meeting_for(&mut self, g: Group, at: u32) -> u32 {
        let current = (g.meeting != NONE).then(|| self.meetings[g.meeting as usize].at);
        if at == NEVER || current == Some(at) {
            return g.meeting;
        }
        self.meeting(Meeting { at, outer: g.meeting, expected: g.mask, arrived: 0 })
    }

    /// A branch through a table; `Err` is a lane whose index is outside.
    fn table(
        &mut self,
        cx: &mut Cx<'_>,
        g: Group,
        m: u32,
        index: &[u32; 32],
        targets: &[u32],
        at: u32,
    ) -> Result<Group, usize> {
        let mut ways: Vec<(u32, u32)> = Vec::new();
        for l in lanes(m) {
            let target = *targets.get(index[l] as usize).ok_or(l)?;
            match ways.iter_mut().find(|(t, _)| *t == target) {
                Some((_, lanes)) => *lanes |= 1 << l,
                None => ways.push((target, 1 << l)),
            }
        }
        if m != g.mask {
            ways.push((g.pc + 1, g.mask & !m));
        }
        cx.tally.branches += 1;
        if ways.len() == 1 {
            return Ok(Group { pc: ways[0].0, ..g });
        }
        cx.tally.divergent += 1;
        let meeting = self.meeting_for(g, at);
        for (pc, mask) in ways {
            self.ready.push(Group { pc, mask, meeting });
        }
        Ok(self.next(cx).expect("two ways were pushed"))
    }

    /// A warp-synchronous instruction. Returns the lanes that go on now; the others wait.
    fn warp_op(&mut self, cx: &mut Cx<'_>, op: WarpOp, g: Group, m: u32) -> Result<u32, Trouble> {
        let inst = &cx.code.insts[g.pc as usize];
        let named = *self.view(cx.consts).r32(inst.a);
        let mut rest = m;
        let mut stay = g.mask;
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            let v = named[first];
            let same = lanes(rest).fold(0, |s, l| s | u32::from(named[l] == v) << l);
            rest &= !same;
            if same & !v != 0 {
                let lane = (same & !v).trailing_zeros() as usize;
                let text =
                    format!("mask {v:#010x} does not name lane {lane}, which executes the instruction");
                return Err(Trouble::new(FaultKind::SyncMask, g.pc, lane, text));
            }
            if v & self.live == same {
                warp_ops::run(self, cx, op, &[(g.pc, same)])?;
            } else {
                stay &= !same;
                self.parked.push(Parked { group: Group { mask: same, ..g }, named: v });
                self.progress = self.executed;
            }
        }
        if stay != g.mask {
            if stay != 0 {
                // Lanes that skip the instruction go on by themselves.
                self.ready.push(Group { pc: g.pc + 1, mask: stay, ..g });
            }
            self.complete_parked(cx)?;
            return Ok(0);
        }
        Ok(stay)
    }

    /// Runs the waiting instructions whose lanes are now complete.
    fn complete_parked(&mut self, cx: &mut Cx<'_>) -> Result<(), Trouble> {
        let mut i = 0;
        while i < self.parked.len() {
            let (named, pc) = (self.parked[i].named, self.parked[i].group.pc);
            let Op::Warp(op) = cx.code.insts[pc as usize].op else {
                unreachable!("only warp operations park")
            };
            let matching =
                |p: &Parked| p.named == named && cx.code.insts[p.group.pc as usize].op == Op::Warp(op);
            let here = self.parked.iter().filter(|p| matching(p)).fold(0, |v, p| v | p.group.mask);
            if here != named & self.live {
                i += 1;
                continue;
            }
            let parts: Vec<Parked> = self.parked.iter().copied().filter(|p| matching(p)).collect();
            self.parked.retain(|p| !matching(p));
            let places: Vec<(u32, u32)> = parts.iter().map(|p| (p.group.pc, p.group.mask)).collect();
            warp_ops::run(self, cx, op, &places)?;
            for p in parts {
                self.resume(p.group, p.group.pc + 1);
            }
            i = 0;
        }
        Ok(())
    }
}
