//! `cp.async`: checked and read where it is issued, written to shared memory where its lane waits for it.

use std::mem::take;

use crate::fault::FaultKind;
use crate::ptx::inst::*;

use super::alu::lanes;
use super::mem;
use super::shared::Who;
use super::warp::Warp;
use super::{Cx, Trouble};

struct Pending {
    mask: u32,
    /// Number of the group by lane.
    group: [u64; 32],
    to: [u32; 32],
    bytes: usize,
    data: Box<[[u8; 16]; 32]>,
    instruction: u32,
}

/// Copies of a warp that have not arrived.
#[derive(Default)]
pub(super) struct AsyncCopies {
    pending: Vec<Pending>,
    /// Groups committed so far, by lane.
    committed: [u64; 32],
}

impl AsyncCopies {
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.committed = [0; 32];
    }
}

/// Runs an asynchronous copy, a commit or a wait.
pub(super) fn run(warp: &mut Warp, cx: &mut Cx<'_>, inst: &Inst, pc: u32, m: u32) -> Result<(), Trouble> {
    match inst.op {
        Op::CpAsync { bytes, sized } => issue(warp, cx, inst, pc, m, bytes.into(), sized),
        Op::CpCommit => {
            lanes(m).for_each(|l| warp.copies.committed[l] += 1);
            Ok(())
        }
        Op::CpWait(open) => {
            wait(warp, cx, m, open.into());
            Ok(())
        }
        _ => Ok(()),
    }
}

fn issue(
    warp: &mut Warp,
    cx: &mut Cx<'_>,
    inst: &Inst,
    pc: u32,
    m: u32,
    bytes: usize,
    sized: bool,
) -> Result<(), Trouble> {
    let more = &cx.code.more[inst.d as usize..inst.d as usize + 4];
    let (to_offset, from_offset) = (more[0] as i32, more[1] as i32);
    let r = warp.view(cx.consts);
    let to = mem::addresses(&r, inst.a, to_offset, more[2] != 0);
    let from = mem::addresses(&r, inst.b, from_offset, more[3] != 0);
    let size = if sized { Some(*r.r32(inst.c)) } else { None };
    mem::aligned(&to, bytes as u64, pc, m)?;
    mem::aligned(&from, bytes as u64, pc, m)?;
    let mut reads = [0u32; 32];
    for l in lanes(m) {
        let n = size.map_or(bytes as u32, |s| s[l]);
        if n as usize > bytes {
            let text = format!("copy of {n} bytes by an instruction of {bytes}");
            return Err(Trouble::new(FaultKind::OutOfBounds, pc, l, text));
        }
        reads[l] = n;
    }
    let mut data = Box::new([[0u8; 16]; 32]);
    mem::gather(cx, &from, &reads, pc, m, &mut data)?;
    let mut offsets = [0; 32];
    for l in lanes(m) {
        let who = Who { warp: warp.id, lane: l as u32, instruction: pc };
        cx.shared.promise(to[l], bytes, who).map_err(|w| mem::shared_trouble(cx, w, to[l], bytes, pc, l))?;
        offsets[l] = to[l] as u32;
        cx.tally.async_bytes += bytes as u64;
    }
    let group = warp.copies.committed;
    warp.copies.pending.push(Pending { mask: m, group, to: offsets, bytes, data, instruction: pc });
    Ok(())
}

fn wait(warp: &mut Warp, cx: &mut Cx<'_>, m: u32, open: u64) {
    let committed = warp.copies.committed;
    for mut p in take(&mut warp.copies.pending) {
        for l in lanes(p.mask & m) {
            if p.group[l] + open < committed[l] {
                let who = Who { warp: warp.id, lane: l as u32, instruction: p.instruction };
                cx.shared.deliver(p.to[l] as usize, &p.data[l][..p.bytes], who);
                p.mask &= !(1 << l);
            }
        }
        if p.mask != 0 {
            warp.copies.pending.push(p);
        }
    }
}
