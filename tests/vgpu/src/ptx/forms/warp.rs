//! Shuffles, votes, matches, warp reductions, barriers.

use super::super::decode::{Cx, Res};
use super::super::inst::*;
use super::super::types::{Ty, W};
use super::{Form, form};

pub(super) const FORMS: &[Form] = &[
    form("shfl sync up|down|bfly|idx b32", "", |cx, m| {
        let mode = match m.str(1) {
            "up" => Shfl::Up,
            "down" => Shfl::Down,
            "bfly" => Shfl::Bfly,
            _ => Shfl::Idx,
        };
        cx.count(5)?;
        let (d, p) = cx.dst_and_pred(0, W::W32)?;
        let rest = [cx.src(1, Ty::B32)?, cx.src(2, Ty::B32)?, cx.src(3, Ty::B32)?, p];
        let mask = cx.src(4, Ty::B32)?;
        let at = cx.more(&rest);
        cx.emit(Op::Warp(WarpOp::Shfl(mode)), d, mask, at, 0);
        Ok(())
    }),
    form("vote sync all|any|uni pred", "", |cx, m| {
        let mode = match m.str(1) {
            "all" => Vote::All,
            "any" => Vote::Any,
            _ => Vote::Uni,
        };
        cx.count(3)?;
        let (d, p, mask) = (cx.pred_dst(0)?, cx.pred_src(1)?, cx.src(2, Ty::B32)?);
        let at = cx.more(&[p]);
        cx.emit(Op::Warp(WarpOp::Vote(mode)), d, mask, at, 0);
        Ok(())
    }),
    form("vote sync ballot b32", "", |cx, _| {
        cx.count(3)?;
        let (d, p, mask) = (cx.dst(0, W::W32)?, cx.pred_src(1)?, cx.src(2, Ty::B32)?);
        let at = cx.more(&[p]);
        cx.emit(Op::Warp(WarpOp::Vote(Vote::Ballot)), d, mask, at, 0);
        Ok(())
    }),
    form("match any sync b32|b64", "", |cx, m| {
        let ty = m.ty(2);
        cx.count(3)?;
        let (d, a, mask) = (cx.dst(0, W::W32)?, cx.src(1, ty)?, cx.src(2, Ty::B32)?);
        let at = cx.more(&[a]);
        cx.emit(Op::Warp(WarpOp::MatchAny(ty.width())), d, mask, at, 0);
        Ok(())
    }),
    form("match all sync b32|b64", "", |cx, m| {
        let ty = m.ty(2);
        cx.count(3)?;
        let (d, p) = cx.dst_and_pred(0, W::W32)?;
        let (a, mask) = (cx.src(1, ty)?, cx.src(2, Ty::B32)?);
        let at = cx.more(&[a, p]);
        cx.emit(Op::Warp(WarpOp::MatchAll(ty.width())), d, mask, at, 0);
        Ok(())
    }),
    form("redux sync add|min|max u32|s32", "", |cx, m| {
        let op = match (m.str(1), m.ty(2).signed()) {
            ("add", _) => Redux::Add,
            ("min", true) => Redux::MinS,
            ("min", false) => Redux::MinU,
            (_, true) => Redux::MaxS,
            (_, false) => Redux::MaxU,
        };
        redux(cx, op)
    }),
    form("redux sync and|or|xor b32", "", |cx, m| {
        let op = match m.str(1) {
            "and" => Redux::And,
            "or" => Redux::Or,
            _ => Redux::Xor,
        };
        redux(cx, op)
    }),
    form("activemask b32", "", |cx, _| {
        cx.count(1)?;
        let d = cx.dst(0, W::W32)?;
        cx.emit(Op::ActiveMask, d, 0, 0, 0);
        Ok(())
    }),
    form("bar warp sync", "", |cx, _| {
        cx.count(1)?;
        let mask = cx.src(0, Ty::B32)?;
        let at = cx.more(&[]);
        cx.emit(Op::Warp(WarpOp::Barrier), 0, mask, at, 0);
        Ok(())
    }),
    form("bar cta? sync", "", |cx, _| bar(cx, false, true)),
    form("bar cta? arrive", "", |cx, _| bar(cx, true, true)),
    form("bar cta? red popc u32", "", |cx, _| bar_red(cx, BarRed::Popc, true)),
    form("bar cta? red and|or pred", "", |cx, m| {
        bar_red(cx, if m.str(2) == "and" { BarRed::And } else { BarRed::Or }, true)
    }),
    form("barrier cta? sync aligned?", "", |cx, m| bar(cx, false, m.has(2))),
    form("barrier cta? arrive aligned?", "", |cx, m| bar(cx, true, m.has(2))),
    form("barrier cta? red popc aligned? u32", "", |cx, m| bar_red(cx, BarRed::Popc, m.has(3))),
    form("barrier cta? red and|or aligned? pred", "", |cx, m| {
        bar_red(cx, if m.str(2) == "and" { BarRed::And } else { BarRed::Or }, m.has(3))
    }),
];

fn redux(cx: &mut Cx<'_, '_>, op: Redux) -> Res<()> {
    cx.count(3)?;
    let (d, a, mask) = (cx.dst(0, W::W32)?, cx.src(1, Ty::B32)?, cx.src(2, Ty::B32)?);
    let at = cx.more(&[a]);
    cx.emit(Op::Warp(WarpOp::Redux(op)), d, mask, at, 0);
    Ok(())
}

fn bar(cx: &mut Cx<'_, '_>, arrive: bool, aligned: bool) -> Res<()> {
    let counted = cx.args().len() == 2;
    if !counted {
        cx.count(1)?;
    }
    if arrive && !counted {
        cx.count(2)?;
    }
    let a = cx.src(0, Ty::U32)?;
    let b = if counted { cx.src(1, Ty::U32)? } else { 0 };
    cx.emit(Op::Bar(Bar { arrive, aligned, counted, red: None }), 0, a, b, TRUE);
    Ok(())
}

fn bar_red(cx: &mut Cx<'_, '_>, red: BarRed, aligned: bool) -> Res<()> {
    let counted = cx.args().len() == 4;
    if !counted {
        cx.count(3)?;
    }
    let d = if red == BarRed::Popc { cx.dst(0, W::W32)? } else { cx.pred_dst(0)? };
    let a = cx.src(1, Ty::U32)?;
    let b = if counted { cx.src(2, Ty::U32)? } else { 0 };
    let c = cx.pred_src(if counted { 3 } else { 2 })?;
    cx.emit(Op::Bar(Bar { arrive: false, aligned, counted, red: Some(red) }), d, a, b, c);
    Ok(())
}
