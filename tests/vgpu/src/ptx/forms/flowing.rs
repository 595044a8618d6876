//! Branches, calls, ends.

use super::super::ast::Arg;
use super::super::inst::*;
use super::super::types::Ty;
use super::{Form, form};

pub(super) const FORMS: &[Form] = &[
    form("bra uni?", "", |cx, _| {
        cx.count(1)?;
        match cx.args() {
            [Arg::Name(label)] => cx.branch(label),
            _ => cx.wrong(0, "a label"),
        }
    }),
    form("brx idx uni?", "", |cx, _| {
        cx.count(2)?;
        let index = cx.src(0, Ty::U32)?;
        match cx.args() {
            [_, Arg::Name(table)] => cx.branch_table(table, index),
            _ => cx.wrong(1, "a table of branch targets"),
        }
    }),
    form("call uni?", "inlined; no recursion, no indirect calls", |cx, _| cx.call()),
    form("ret uni?", "", |cx, _| {
        cx.count(0)?;
        cx.ret();
        Ok(())
    }),
    form("exit", "", |cx, _| {
        cx.count(0)?;
        cx.emit(Op::Exit, 0, 0, 0, 0);
        Ok(())
    }),
    form("trap", "reported", |cx, _| {
        cx.count(0)?;
        cx.emit(Op::Trap(0), 0, 0, 0, 0);
        Ok(())
    }),
    form("brkpt", "reported", |cx, _| {
        cx.count(0)?;
        cx.emit(Op::Trap(1), 0, 0, 0, 0);
        Ok(())
    }),
    form("nanosleep u32", "no effect", |cx, _| {
        cx.count(1)?;
        cx.src(0, Ty::U32)?;
        cx.emit(Op::Nop, 0, 0, 0, 0);
        Ok(())
    }),
    form("griddepcontrol launch_dependents|wait", "no effect", |cx, _| {
        cx.count(0)?;
        cx.emit(Op::Nop, 0, 0, 0, 0);
        Ok(())
    }),
];
