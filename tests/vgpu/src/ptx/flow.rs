//! Control flow of a kernel: where the ways of every branch meet again (its immediate post-dominator).

use std::sync::atomic::AtomicBool;

use super::inst::{Code, NEVER, Op, TRUE};

/// Finds the basic blocks and sets the convergence point of every conditional branch.
///
/// Post-dominators by the iteration of Cooper, Harvey and Kennedy ("A simple, fast dominance algorithm") on the
/// reversed graph of basic blocks.
pub(crate) fn converge(code: &mut Code) {
    let n = code.insts.len();
    let mut leader = vec![false; n + 1];
    leader[0] = true;
    for (i, inst) in code.insts.iter().enumerate() {
        match inst.op {
            Op::Bra => {
                leader[inst.a as usize] = true;
                leader[i + 1] = true;
            }
            Op::BraTable(count) => {
                for t in &code.more[inst.d as usize..(inst.d + count) as usize] {
                    leader[*t as usize] = true;
                }
                leader[i + 1] = true;
            }
            Op::Exit | Op::Trap(_) => leader[i + 1] = true,
            _ => {}
        }
    }
    let starts: Vec<usize> = (0..n).filter(|i| leader[*i]).collect();
    code.starts = starts.iter().map(|start| *start as u32).collect();
    code.reached = std::iter::repeat_with(AtomicBool::default).take(n).collect();
    let exit = starts.len();
    let mut block_of = vec![exit; n + 1];
    for (b, start) in starts.iter().enumerate() {
        let end = starts.get(b + 1).copied().unwrap_or(n);
        block_of[*start..end].fill(b);
    }
    // Successors; a branch to one past the last instruction leaves.
    let mut next: Vec<Vec<usize>> = Vec::with_capacity(exit);
    for b in 0..exit {
        let last = starts.get(b + 1).copied().unwrap_or(n) - 1;
        let inst = &code.insts[last];
        let fall = block_of[last + 1];
        next.push(match inst.op {
            Op::Bra if inst.guard == TRUE => vec![block_of[inst.a as usize]],
            Op::Bra => vec![fall, block_of[inst.a as usize]],
            Op::BraTable(count) => {
                let targets = &code.more[inst.d as usize..(inst.d + count) as usize];
                let mut out: Vec<usize> = targets.iter().map(|t| block_of[*t as usize]).collect();
                if inst.guard != TRUE {
                    out.push(fall);
                }
                out
            }
            Op::Exit | Op::Trap(_) if inst.guard == TRUE => vec![exit],
            Op::Exit | Op::Trap(_) => vec![fall, exit],
            _ => vec![fall],
        });
    }
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); exit + 1];
    for (b, out) in next.iter().enumerate() {
        for s in out {
            before[*s].push(b);
        }
    }
    // Order of the reversed graph, from the exit.
    let mut order = Vec::with_capacity(exit + 1);
    let mut seen = vec![false; exit + 1];
    let mut stack = vec![(exit, 0)];
    seen[exit] = true;
    while let Some((b, i)) = stack.pop() {
        if let Some(p) = before[b].get(i) {
            stack.push((b, i + 1));
            if !seen[*p] {
                seen[*p] = true;
                stack.push((*p, 0));
            }
        } else {
            order.push(b);
        }
    }
    let mut rank = vec![usize::MAX; exit + 1];
    for (i, b) in order.iter().enumerate() {
        rank[*b] = i;
    }
    const NONE: usize = usize::MAX;
    let mut post = vec![NONE; exit + 1];
    post[exit] = exit;
    let mut changed = true;
    while changed {
        changed = false;
        for b in order.iter().rev().skip(1) {
            let mut meet = NONE;
            for s in &next[*b] {
                if post[*s] == NONE && *s != exit {
                    continue;
                }
                meet = if meet == NONE { *s } else { intersect(&post, &rank, meet, *s) };
            }
            if meet != post[*b] {
                post[*b] = meet;
                changed = true;
            }
        }
    }
    for (b, meet) in post[..exit].iter().enumerate() {
        let last = starts.get(b + 1).copied().unwrap_or(n) - 1;
        let inst = &mut code.insts[last];
        if matches!(inst.op, Op::Bra | Op::BraTable(_)) {
            inst.c = match *meet {
                NONE => NEVER,
                p if p == exit => NEVER,
                p => starts[p] as u32,
            };
        }
    }
}

fn intersect(post: &[usize], rank: &[usize], a: usize, b: usize) -> usize {
    let (mut a, mut b) = (a, b);
    while a != b {
        while rank[a] < rank[b] {
            a = post[a];
        }
        while rank[b] < rank[a] {
            b = post[b];
        }
    }
    a
}
