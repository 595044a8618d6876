//! Statements to instructions: rows for registers, constants for immediates, functions inlined at their calls.
//!
//! Inlining keeps the machine flat (one register file, no frames); recursion and indirect calls are refused.

use std::collections::HashMap;
use std::sync::Arc;

use super::ast::{Arg, Ast, Func, RegId, Stmt, Var, VarRef};
use super::error::LoadErrorKind as Kind;
use super::flow;
use super::forms;
use super::inst::*;
use super::parse;
use super::types::{Space, Ty, W};

pub(crate) type Res<T> = Result<T, Kind>;

/// Bytes of shared memory that a module may declare for a kernel.
const MAX_SHARED: u64 = 1 << 20;
/// Bytes of local memory that a kernel may declare.
const MAX_LOCAL: u64 = 1 << 24;

/// Where a variable lives in a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    /// Offset in the kernel's parameters.
    Param(u32),
    /// Offset in a lane's local memory.
    Local(u32),
    /// Offset in static shared memory.
    Shared(u32),
    DynamicShared,
    /// A module variable.
    Module(u32),
    /// A kernel parameter area of a function that was not bound: never reached.
    Unbound,
}

struct Frame {
    function: usize,
    regs: Vec<Option<u32>>,
    homes: Vec<Home>,
    /// First instruction of every statement, and the end.
    starts: Vec<u32>,
    /// Instructions whose target is a statement: (instruction, place in `more` or none, statement).
    fixups: Vec<(usize, Option<usize>, usize)>,
}

/// Decoder of one kernel.
pub(crate) struct Cx<'m, 'a> {
    ast: &'m Ast<'a>,
    frames: Vec<Frame>,
    code: Code,
    consts: HashMap<(W, Const), Slot>,
    shared_homes: HashMap<(Option<usize>, usize), Home>,
    stmt: &'m Stmt<'a>,
    budget: usize,
    sink: Option<Slot>,
}

/// A refusal with its function and line.
pub(crate) struct Refused {
    pub function: String,
    pub line: u32,
    pub kind: Kind,
}

/// Decodes a kernel.
pub(crate) fn kernel(
    ast: &Ast<'_>,
    index: usize,
    text: Arc<str>,
    globals: Arc<Globals>,
) -> Result<Code, Refused> {
    let f = &ast.functions[index];
    let nothing = Stmt { line: f.line, loc: (0, 0), scope: 0, guard: None, opcode: "", args: Vec::new() };
    // Inlining may repeat functions, but not without bound.
    let total: usize = ast.functions.iter().map(|f| f.body.len()).sum();
    let mut cx = Cx {
        ast,
        frames: Vec::new(),
        code: Code {
            preds: 2,
            text,
            globals,
            shared_align: 16,
            files: ast.files.iter().map(|(n, s)| (*n, s.to_string())).collect(),
            ..Code::default()
        },
        consts: HashMap::new(),
        shared_homes: HashMap::new(),
        stmt: &nothing,
        budget: 16 * total + 65536,
        sink: None,
    };
    let mut homes = Vec::new();
    for p in param_layout(&f.vars[..f.params]) {
        homes.push(Home::Param(p));
    }
    let done = cx.function(index, homes).and_then(|()| {
        cx.emit(Op::Exit, 0, 0, 0, 0);
        flow::converge(&mut cx.code);
        Ok(())
    });
    match done {
        Ok(()) => {
            cx.code.shared_bytes = cx.code.shared_bytes.next_multiple_of(cx.code.shared_align.min(16));
            Ok(cx.code)
        }
        Err(kind) => {
            let function = cx.frames.last().map_or(f.name, |fr| ast.functions[fr.function].name).into();
            Err(Refused { function, line: cx.stmt.line, kind })
        }
    }
}

/// Offsets of parameters in the buffer.
pub(crate) fn param_layout(params: &[Var<'_>]) -> Vec<u32> {
    let mut at = 0u32;
    params
        .iter()
        .map(|p| {
            let offset = at.next_multiple_of(p.align.max(1));
            at = offset.saturating_add(p.bytes.min(1 << 20) as u32);
            offset
        })
        .collect()
}

impl<'m, 'a> Cx<'m, 'a> {
    fn func(&self) -> &'m Func<'a> {
        let frame = self.frames.last().expect("decoding happens in a frame");
        &self.ast.functions[frame.function]
    }

    fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("decoding happens in a frame")
    }

    fn function(&mut self, index: usize, bound: Vec<Home>) -> Res<()> {
        let f = &self.ast.functions[index];
        if self.frames.iter().any(|fr| fr.function == index) {
            return Err(Kind::Recursive { name: f.name.into() });
        }
        let mut homes = bound;
        for (i, v) in f.vars.iter().enumerate().skip(homes.len()) {
            homes.push(match v.space {
                Space::Shared => self.shared_home(Some(index), i, v)?,
                Space::Local | Space::Param => Home::Local(self.local(v)?),
                _ => Home::Unbound,
            });
        }
        let regs = vec![None; f.regs.len()];
        self.frames.push(Frame { function: index, regs, homes, starts: Vec::new(), fixups: Vec::new() });
        for stmt in &f.body {
            self.stmt = stmt;
            let here = self.code.insts.len() as u32;
            self.frame().starts.push(here);
            self.statement()?;
        }
        let end = self.code.insts.len() as u32;
        self.frame().starts.push(end);
        let frame = self.frames.pop().expect("pushed above");
        for (inst, more, stmt) in frame.fixups {
            let target = frame.starts[stmt];
            match more {
                Some(at) => self.code.more[at] = target,
                None => self.code.insts[inst].a = target,
            }
        }
        Ok(())
    }

    fn local(&mut self, v: &Var<'_>) -> Res<u32> {
        let at = u64::from(self.code.local_bytes).next_multiple_of(u64::from(v.align.max(1)));
        let end = at.saturating_add(v.bytes);
        if end > MAX_LOCAL {
            return Err(Kind::TooLarge { what: "local memory", limit: MAX_LOCAL });
        }
        self.code.local_bytes = end as u32;
        Ok(at as u32)
    }

    fn shared_home(&mut self, function: Option<usize>, index: usize, v: &Var<'_>) -> Res<Home> {
        if let Some(home) = self.shared_homes.get(&(function, index)) {
            return Ok(*home);
        }
        self.code.shared_align = self.code.shared_align.max(v.align);
        let home = if v.unsized_array {
            self.code.uses_dynamic_shared = true;
            Home::DynamicShared
        } else {
            let at = u64::from(self.code.shared_bytes).next_multiple_of(u64::from(v.align.max(1)));
            let end = at.saturating_add(v.bytes);
            if end > MAX_SHARED {
                return Err(Kind::TooLarge { what: "static shared memory", limit: MAX_SHARED });
            }
            self.code.shared_bytes = end as u32;
            Home::Shared(at as u32)
        };
        self.shared_homes.insert((function, index), home);
        Ok(home)
    }

    fn statement(&mut self) -> Res<()> {
        self.budget = self.budget.checked_sub(1).ok_or(Kind::TooLarge {
            what: "the number of instructions after inlining",
            limit: 16 * self.ast.functions.iter().map(|f| f.body.len() as u64).sum::<u64>() + 65536,
        })?;
        forms::decode(self, self.stmt.opcode)
    }

    // What the forms use.

    /// Operands of the statement.
    pub(super) fn args(&self) -> &'m [Arg<'a>] {
        &self.stmt.args
    }

    /// Checks the number of operands.
    pub(super) fn count(&self, need: usize) -> Res<()> {
        match self.args().len() {
            have if have == need => Ok(()),
            have => Err(Kind::Operands { need, have }),
        }
    }

    fn arg(&self, i: usize) -> Res<&'m Arg<'a>> {
        self.args().get(i).ok_or(Kind::Operands { need: i + 1, have: self.args().len() })
    }

    pub(super) fn wrong<T>(&self, i: usize, need: &'static str) -> Res<T> {
        Err(Kind::Operand { index: i + 1, need })
    }

    /// Appends an instruction under the statement's guard.
    pub(super) fn emit(&mut self, op: Op, d: u32, a: u32, b: u32, c: u32) -> usize {
        let guard = match self.stmt.guard {
            Some((reg, negated)) if !self.frames.is_empty() => {
                self.pred(reg) | if negated { NEG } else { 0 }
            }
            _ => TRUE,
        };
        self.code.insts.push(Inst { op, class: class(op), guard, d, a, b, c });
        self.code.places.push(Place { line: self.stmt.line, loc: self.stmt.loc });
        self.code.insts.len() - 1
    }

    /// Appends numbers to `more` and returns where they begin.
    pub(super) fn more(&mut self, items: &[u32]) -> u32 {
        let at = self.code.more.len() as u32;
        self.code.more.extend_from_slice(items);
        at
    }

    fn rows(&mut self, w: W) -> Slot {
        let at = self.code.rows;
        self.code.rows += if w == W::W64 { 2 } else { 1 };
        at
    }

    /// A fresh register for the decoder's own use.
    pub(super) fn temp(&mut self, w: W) -> Slot {
        self.rows(w)
    }

    fn reg_ty(&self, reg: RegId) -> (Ty, &'a str) {
        let r = self.func().regs[reg as usize];
        (r.ty, r.name)
    }

    fn pred(&mut self, reg: RegId) -> u32 {
        if let Some(p) = self.frame().regs[reg as usize] {
            return p;
        }
        let p = self.code.preds;
        self.code.preds += 1;
        self.frame().regs[reg as usize] = Some(p);
        p
    }

    /// The row of a register of exactly this width.
    fn reg(&mut self, reg: RegId, w: W) -> Res<Slot> {
        let (ty, name) = self.reg_ty(reg);
        if ty == Ty::Pred || ty.width() != w || ty.bytes() == 1 {
            return Err(Kind::RegisterKind { name: name.into(), have: kind_name(ty), need: width_name(w) });
        }
        if let Some(slot) = self.frame().regs[reg as usize] {
            return Ok(slot);
        }
        let slot = self.rows(w);
        self.frame().regs[reg as usize] = Some(slot);
        Ok(slot)
    }

    fn reg_any(&mut self, reg: RegId) -> Res<(Slot, W)> {
        let w = self.reg_ty(reg).0.width();
        Ok((self.reg(reg, w)?, w))
    }

    fn sink(&mut self) -> Slot {
        match self.sink {
            Some(s) => s,
            None => {
                let s = self.rows(W::W64);
                self.sink = Some(s);
                s
            }
        }
    }

    /// A destination register of exactly this width, or `_`.
    pub(super) fn dst(&mut self, i: usize, w: W) -> Res<Slot> {
        match self.arg(i)? {
            Arg::Reg(r) => self.reg(*r, w),
            Arg::Sink => Ok(self.sink()),
            _ => self.wrong(i, "a register"),
        }
    }

    /// A destination register at least as wide as the type, with its width.
    pub(super) fn dst_wider(&mut self, i: usize, ty: Ty) -> Res<(Slot, W)> {
        let arg = self.arg(i)?;
        self.wider(arg, ty, i)
    }

    fn wider(&mut self, arg: &Arg<'a>, ty: Ty, i: usize) -> Res<(Slot, W)> {
        match arg {
            Arg::Reg(r) => {
                let (slot, w) = self.reg_any(*r)?;
                if w.bits() < 8 * ty.bytes() {
                    let (have, name) = self.reg_ty(*r);
                    return Err(Kind::RegisterKind {
                        name: name.into(),
                        have: kind_name(have),
                        need: width_name(ty.width()),
                    });
                }
                Ok((slot, w))
            }
            Arg::Sink => Ok((self.sink(), ty.width())),
            _ => self.wrong(i, "a register"),
        }
    }

    /// A constant row.
    pub(super) fn constant(&mut self, w: W, value: Const) -> Slot {
        let w = if w == W::W16 { W::W32 } else { w };
        if let Some(s) = self.consts.get(&(w, value)) {
            return *s;
        }
        let own = matches!(value, Const::Special(Special::Tid(_) | Special::WarpId));
        let slot = if own {
            self.rows(w)
        } else {
            let at = self.code.const_rows;
            self.code.const_rows += if w == W::W64 { 2 } else { 1 };
            at | CONST
        };
        self.code.consts.push((slot, w, value));
        self.consts.insert((w, value), slot);
        slot
    }

    /// A constant row of an integer.
    pub(super) fn bits(&mut self, w: W, value: u64) -> Slot {
        self.constant(w, Const::Bits(value & w.mask()))
    }

    /// A source operand of this type: a register of its width, an immediate, a special register.
    pub(super) fn src(&mut self, i: usize, ty: Ty) -> Res<Slot> {
        let arg = self.arg(i)?;
        self.value(arg, ty, i)
    }

    fn value(&mut self, arg: &Arg<'a>, ty: Ty, i: usize) -> Res<Slot> {
        match arg {
            Arg::Reg(r) => self.reg(*r, ty.width()),
            Arg::Int(_) | Arg::F32(_) | Arg::F64(_) => {
                let bits = immediate(arg, ty).ok_or(Kind::Operand { index: i + 1, need: "a value of the type" })??;
                Ok(self.bits(ty.width(), bits))
            }
            Arg::Special(name) => {
                let have = parse::special(name).expect("the parser checked the name");
                if have.width() != ty.width() && !(have.width() == W::W32 && ty.width() == W::W64) {
                    return Err(Kind::RegisterKind {
                        name: (*name).into(),
                        have: kind_name(have),
                        need: width_name(ty.width()),
                    });
                }
                match special(name) {
                    Some(s) => Ok(self.constant(ty.width(), Const::Special(s))),
                    None => {
                        // A clock has no row; it is read by an instruction of its own.
                        let d = self.temp(ty.width());
                        self.emit(Op::Clock(ty.width()), d, 0, 0, u32::from(*name == "%clock_hi"));
                        Ok(d)
                    }
                }
            }
            Arg::Var(..) => self.address_of(arg, ty.width(), i),
            _ => self.wrong(i, "a register or an immediate"),
        }
    }

    /// A source that may be wider than the type (stores, conversions), with its width.
    pub(super) fn src_wider(&mut self, i: usize, ty: Ty) -> Res<(Slot, W)> {
        let arg = self.arg(i)?;
        match arg {
            Arg::Reg(_) => self.wider(arg, ty, i),
            _ => Ok((self.value(arg, ty, i)?, ty.width())),
        }
    }

    /// An immediate integer.
    pub(super) fn int(&self, i: usize) -> Res<u64> {
        match self.arg(i)? {
            Arg::Int(v) => Ok(*v),
            _ => self.wrong(i, "an immediate integer"),
        }
    }

    /// A predicate to read; may be negated.
    pub(super) fn pred_src(&mut self, i: usize) -> Res<u32> {
        match self.arg(i)? {
            Arg::Reg(r) => self.checked_pred(*r),
            Arg::Not(r) => Ok(self.checked_pred(*r)? | NEG),
            Arg::Int(v) => Ok(if *v != 0 { TRUE } else { TRUE | NEG }),
            _ => self.wrong(i, "a predicate"),
        }
    }

    fn checked_pred(&mut self, r: RegId) -> Res<u32> {
        let (ty, name) = self.reg_ty(r);
        if ty != Ty::Pred {
            return Err(Kind::RegisterKind { name: name.into(), have: kind_name(ty), need: "a predicate" });
        }
        Ok(self.pred(r))
    }

    /// A predicate to write.
    pub(super) fn pred_dst(&mut self, i: usize) -> Res<u32> {
        let arg = self.arg(i)?;
        self.pred_target(arg, i)
    }

    fn pred_target(&mut self, arg: &Arg<'a>, i: usize) -> Res<u32> {
        match arg {
            Arg::Reg(r) => self.checked_pred(*r),
            Arg::Sink => Ok(NOWHERE),
            _ => self.wrong(i, "a predicate"),
        }
    }

    /// One or two predicates to write, packed into a word; `p|q`.
    pub(super) fn pred_pair(&mut self, i: usize) -> Res<u32> {
        let (p, q) = match self.arg(i)? {
            Arg::Pair(p, q) => (self.pred_target(p, i)?, self.pred_target(q, i)?),
            arg => (self.pred_target(arg, i)?, NOWHERE),
        };
        if p.max(q) > 0xffff {
            return Err(Kind::TooLarge { what: "the number of predicates", limit: 0xffff });
        }
        Ok(p | q << 16)
    }

    /// A 32-bit destination and an optional predicate; `d|p`.
    pub(super) fn dst_and_pred(&mut self, i: usize, w: W) -> Res<(Slot, u32)> {
        match self.arg(i)? {
            Arg::Pair(d, p) => {
                let slot = match d.as_ref() {
                    Arg::Reg(r) => self.reg(*r, w)?,
                    Arg::Sink => self.sink(),
                    _ => return self.wrong(i, "a register"),
                };
                Ok((slot, self.pred_target(p, i)?))
            }
            _ => Ok((self.dst(i, w)?, NOWHERE)),
        }
    }

    /// The rows of `{a, b, …}` to write, each at least as wide as the type; all of one width.
    pub(super) fn vec_dst(&mut self, i: usize, ty: Ty) -> Res<(Vec<Slot>, W)> {
        let Arg::Vec(items) = self.arg(i)? else { return self.wrong(i, "a vector of registers") };
        let mut slots = Vec::new();
        let mut width = None;
        for item in items {
            let (slot, w) = self.wider(item, ty, i)?;
            if !matches!(item, Arg::Sink) && *width.get_or_insert(w) != w {
                return self.wrong(i, "a vector of registers of one width");
            }
            slots.push(slot);
        }
        Ok((slots, width.unwrap_or(ty.width())))
    }

    /// The rows of `{a, b, …}` to read.
    pub(super) fn vec_src(&mut self, i: usize, ty: Ty) -> Res<(Vec<Slot>, W)> {
        let Arg::Vec(items) = self.arg(i)? else { return self.wrong(i, "a vector of registers") };
        let mut slots = Vec::new();
        let mut width = None;
        for item in items {
            let (slot, w) = match item {
                Arg::Reg(_) => self.wider(item, ty, i)?,
                _ => (self.value(item, ty, i)?, ty.width()),
            };
            if matches!(item, Arg::Reg(_)) && *width.get_or_insert(w) != w {
                return self.wrong(i, "a vector of registers of one width");
            }
            slots.push(slot);
        }
        Ok((slots, width.unwrap_or(ty.width())))
    }

    /// The rows of exactly `n` registers of one type.
    pub(super) fn fragment(&mut self, i: usize, n: usize, w: W) -> Res<Vec<Slot>> {
        let single;
        let items = match self.arg(i)? {
            Arg::Vec(items) => items.as_slice(),
            arg if n == 1 => {
                single = [arg.clone()];
                &single
            }
            _ => return self.wrong(i, "a vector of registers"),
        };
        if items.len() != n {
            return Err(Kind::Operands { need: n, have: items.len() });
        }
        items
            .iter()
            .map(|item| match item {
                Arg::Reg(r) => self.reg(*r, w),
                Arg::Sink => Ok(self.sink()),
                _ => self.value(item, if w == W::W64 { Ty::B64 } else { Ty::B32 }, i),
            })
            .collect()
    }

    /// As [`Cx::fragment`], for 16-bit parts too.
    pub(super) fn fragment_any(&mut self, i: usize, n: usize, w: W) -> Res<Vec<Slot>> {
        let Arg::Vec(items) = self.arg(i)? else { return self.wrong(i, "a vector of registers") };
        if items.len() != n {
            return Err(Kind::Operands { need: n, have: items.len() });
        }
        let ty = match w {
            W::W16 => Ty::B16,
            W::W32 => Ty::B32,
            W::W64 => Ty::B64,
        };
        items
            .iter()
            .map(|item| match item {
                Arg::Sink => Ok(self.sink()),
                _ => self.value(item, ty, i),
            })
            .collect()
    }

    /// The statement's opcode, for messages.
    pub(super) fn opcode(&self) -> &'a str {
        self.stmt.opcode
    }

    fn home(&mut self, v: VarRef) -> Res<Home> {
        match v {
            VarRef::Function(i) => Ok(self.frame().homes[i]),
            VarRef::Module(i) => {
                let var = &self.ast.vars[i];
                if var.space == Space::Shared {
                    return self.shared_home(None, i, var);
                }
                let globals = self.ast.vars[..i].iter().filter(|v| v.space != Space::Shared).count();
                Ok(Home::Module(globals as u32))
            }
        }
    }

    /// The row that holds a variable's address in its own space.
    fn address_of(&mut self, arg: &Arg<'a>, w: W, i: usize) -> Res<Slot> {
        let Arg::Var(v, offset) = arg else { return self.wrong(i, "a variable") };
        if w == W::W16 {
            return self.wrong(i, "a 32-bit or 64-bit register");
        }
        let value = match self.home(*v)? {
            Home::Module(g) => Const::Address(g, *offset),
            Home::Shared(at) | Home::Local(at) | Home::Param(at) => {
                Const::Bits((u64::from(at)).wrapping_add(*offset as u64) & w.mask())
            }
            Home::DynamicShared => Const::DynamicShared(*offset),
            Home::Unbound => return self.wrong(i, "a variable with an address"),
        };
        let in_function = matches!(v, VarRef::Function(_)) && !self.func().entry;
        if in_function
            && let VarRef::Function(n) = v
            && self.func().vars[*n].space == Space::Param
        {
            return Err(Kind::Unsupported { what: "the address of a function's parameter" });
        }
        Ok(self.constant(w, value))
    }

    /// An address operand: row, offset, whether the row has 64 bits, and the space after resolving parameters.
    pub(super) fn addr(&mut self, i: usize, space: Space) -> Res<(Slot, i32, bool, Space)> {
        let Arg::Addr(base, offset) = self.arg(i)? else { return self.wrong(i, "an address in brackets") };
        let offset = i32::try_from(*offset).map_err(|_| Kind::Range { limit: "32-bit offsets" })?;
        match base.as_ref() {
            Arg::Reg(r) => {
                let (slot, w) = self.reg_any(*r)?;
                match w {
                    W::W64 => Ok((slot, offset, true, space)),
                    W::W32 => Ok((slot, offset, false, space)),
                    W::W16 => self.wrong(i, "a 32-bit or 64-bit address"),
                }
            }
            Arg::Int(v) => Ok((self.bits(W::W64, *v), offset, true, space)),
            Arg::Var(v, inner) => {
                let home = self.home(*v)?;
                let at = |base: u32| Const::Bits(u64::from(base).wrapping_add(*inner as u64));
                let (value, found) = match home {
                    Home::Module(g) => {
                        let constant = self.code.globals.list[g as usize].constant;
                        (Const::Address(g, *inner), if constant { Space::Const } else { Space::Global })
                    }
                    Home::Shared(o) => (at(o), Space::Shared),
                    Home::DynamicShared => (Const::DynamicShared(*inner), Space::Shared),
                    Home::Param(o) => (at(o), Space::Param),
                    Home::Local(o) => (at(o), Space::Local),
                    Home::Unbound => return self.wrong(i, "a variable with an address"),
                };
                // A function's parameters live in local memory.
                let fits = found == space
                    || (space == Space::Param && found == Space::Local)
                    || (space == Space::Generic && matches!(found, Space::Global | Space::Const));
                if !fits {
                    return self.wrong(i, "a variable of the instruction's space");
                }
                Ok((self.constant(W::W64, value), offset, true, found))
            }
            _ => self.wrong(i, "an address"),
        }
    }

    /// `ld.param` of a kernel parameter at a fixed offset: the constant row that holds it.
    pub(super) fn kernel_param(&mut self, i: usize, ty: Ty, element: u32, w: W) -> Res<Option<Slot>> {
        let Arg::Addr(base, offset) = self.arg(i)? else { return Ok(None) };
        let Arg::Var(v, inner) = base.as_ref() else { return Ok(None) };
        let Home::Param(at) = self.home(*v)? else { return Ok(None) };
        let VarRef::Function(n) = *v else { return Ok(None) };
        let start = inner.wrapping_add(*offset).wrapping_add(i64::from(element * ty.bytes()));
        let size = self.func().vars[n].bytes;
        if start < 0 || start as u64 + u64::from(ty.bytes()) > size {
            return Err(Kind::Range { limit: "offsets inside the parameter" });
        }
        if (i64::from(at) + start) % i64::from(ty.bytes()) != 0 {
            return Err(Kind::Range { limit: "aligned parameters" });
        }
        Ok(Some(self.constant(w, Const::Param(at + start as u32, ty))))
    }

    /// Notes that blocks may communicate through global memory.
    pub(super) fn communicates(&mut self) {
        self.code.communicates = true;
    }

    /// A branch to a label under the statement's guard.
    pub(super) fn branch(&mut self, name: &str) -> Res<()> {
        let stmt = self.label(name)?;
        let inst = self.emit(Op::Bra, 0, 0, 0, NEVER);
        self.frame().fixups.push((inst, None, stmt));
        Ok(())
    }

    fn visible(&self, mut scope: u32, hit: impl Fn(u32) -> Option<usize>) -> Option<usize> {
        let scopes = &self.func().scopes;
        loop {
            if let Some(found) = hit(scope) {
                return Some(found);
            }
            if scope == 0 {
                return None;
            }
            scope = scopes[scope as usize];
        }
    }

    fn label(&self, name: &str) -> Res<usize> {
        let f = self.func();
        self.visible(self.stmt.scope, |s| {
            f.labels.iter().find(|(scope, n, _)| *scope == s && *n == name).map(|l| l.2)
        })
        .ok_or_else(|| Kind::Label { name: name.into() })
    }

    /// A branch through a table.
    pub(super) fn branch_table(&mut self, name: &str, index: Slot) -> Res<()> {
        let f = self.func();
        let table = self
            .visible(self.stmt.scope, |s| f.tables.iter().position(|t| t.0 == s && t.1 == name))
            .ok_or_else(|| Kind::Label { name: name.into() })?;
        let targets: Vec<usize> = f.tables[table].2.iter().map(|l| self.label(l)).collect::<Res<_>>()?;
        let at = self.more(&vec![0; targets.len()]);
        let inst = self.emit(Op::BraTable(targets.len() as u32), at, index, 0, NEVER);
        for (n, stmt) in targets.into_iter().enumerate() {
            self.frame().fixups.push((inst, Some(at as usize + n), stmt));
        }
        Ok(())
    }

    /// `ret`: the end of the thread in a kernel, of the inlined body in a function.
    pub(super) fn ret(&mut self) {
        if self.func().entry {
            self.emit(Op::Exit, 0, 0, 0, 0);
        } else {
            let end = self.func().body.len();
            let inst = self.emit(Op::Bra, 0, 0, 0, NEVER);
            self.frame().fixups.push((inst, None, end));
        }
    }

    /// `call (rets), name, (args)`.
    pub(super) fn call(&mut self) -> Res<()> {
        let (mut rets, mut name, mut args) = (None, None, None);
        for (i, arg) in self.args().iter().enumerate() {
            match arg {
                Arg::List(items) if i == 0 => rets = Some(items.as_slice()),
                Arg::Name(n) if name.is_none() => name = Some(*n),
                Arg::List(items) if name.is_some() && args.is_none() => args = Some(items.as_slice()),
                Arg::Reg(_) if name.is_none() => {
                    return Err(Kind::Unsupported { what: "an indirect call" });
                }
                _ => return self.wrong(i, "a function and its arguments"),
            }
        }
        let Some(name) = name else { return self.wrong(0, "a function") };
        let mut homes = Vec::new();
        for arg in rets.unwrap_or_default().iter().chain(args.unwrap_or_default()) {
            match arg {
                Arg::Var(v, 0) => homes.push(self.home(*v)?),
                _ => return Err(Kind::Unsupported { what: "an argument that is no `.param` variable" }),
            }
        }
        let index = self.ast.functions.iter().position(|f| f.name == name && !f.entry);
        let Some(index) = index else { return Err(Kind::Symbol { name: name.into() }) };
        let f = &self.ast.functions[index];
        if f.rets + f.params != homes.len() || f.rets != rets.map_or(0, <[_]>::len) {
            return Err(Kind::Operands { need: f.rets + f.params, have: homes.len() });
        }
        if !f.defined {
            return self.external(name, &homes);
        }
        let stmt = self.stmt;
        let skip = match stmt.guard {
            None => None,
            Some(_) => {
                let inst = self.emit(Op::Bra, 0, 0, 0, NEVER);
                self.code.insts[inst].guard ^= NEG;
                Some(inst)
            }
        };
        self.function(index, homes)?;
        self.stmt = stmt;
        if let Some(inst) = skip {
            self.code.insts[inst].a = self.code.insts.len() as u32;
        }
        Ok(())
    }

    /// The two functions that the device itself provides.
    fn external(&mut self, name: &str, homes: &[Home]) -> Res<()> {
        let mut load = |cx: &mut Self, home: Home| -> Res<Slot> {
            let Home::Local(at) = home else {
                return Err(Kind::Unsupported { what: "an argument that is no `.param` variable" });
            };
            let d = cx.temp(W::W64);
            let a = cx.bits(W::W64, u64::from(at));
            let mem = Mem { space: Space::Local, ty: Ty::B64, vec: 1, strong: false, wide: true };
            cx.emit(Op::Ld(mem), d, a, 0, W::W64 as u32);
            Ok(d)
        };
        match (name, homes) {
            ("vprintf", [ret, text, values]) => {
                let (a, b) = (load(self, *text)?, load(self, *values)?);
                self.communicates();
                self.emit(Op::Print, 0, a, b, 0);
                if let Home::Local(at) = ret {
                    let (zero, addr) = (self.bits(W::W32, 0), self.bits(W::W64, u64::from(*at)));
                    let mem = Mem { space: Space::Local, ty: Ty::B32, vec: 1, strong: false, wide: true };
                    self.emit(Op::St(mem), zero, addr, 0, W::W32 as u32);
                }
                Ok(())
            }
            ("__assertfail", [message, ..]) => {
                let a = load(self, *message)?;
                self.emit(Op::Trap(2), 0, a, 0, 0);
                Ok(())
            }
            _ => Err(Kind::External { name: name.into() }),
        }
    }
}

fn kind_name(ty: Ty) -> &'static str {
    match ty {
        Ty::Pred => "a predicate",
        Ty::B8 | Ty::U8 | Ty::S8 => "8 bits wide",
        _ => width_name(ty.width()),
    }
}

fn width_name(w: W) -> &'static str {
    match w {
        W::W16 => "16 bits wide",
        W::W32 => "32 bits wide",
        W::W64 => "64 bits wide",
    }
}

/// The bits of an immediate of a type; `None` if the kind of literal does not fit it.
fn immediate(arg: &Arg<'_>, ty: Ty) -> Option<Res<u64>> {
    let bits = 8 * ty.bytes();
    match (arg, ty) {
        (Arg::Int(v), _) if ty.is_int() => {
            let signed = *v as i64;
            let fits = bits == 64
                || (signed >= 0 && signed < 1 << bits)
                || (signed < 0 && signed >= -(1i64 << (bits - 1)));
            Some(if fits {
                Ok(*v & ty.width().mask())
            } else {
                Err(Kind::Range { limit: "values of the type" })
            })
        }
        (Arg::F32(b), Ty::F32 | Ty::B32) => Some(Ok(u64::from(*b))),
        (Arg::F64(b), Ty::F64 | Ty::B64) => Some(Ok(*b)),
        (Arg::F64(b), Ty::F32) => Some(Ok(u64::from((f64::from_bits(*b) as f32).to_bits()))),
        (Arg::F32(b), Ty::F64) => Some(Ok(f64::from(f32::from_bits(*b)).to_bits())),
        _ => None,
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| match rest {
        ".x" => 0,
        ".y" => 1,
        _ => 2,
    };
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NumWarps,
        "%smid" => Special::SmId,
        "%nsmid" => Special::NumSms,
        "%gridid" => Special::GridId,
        "%lanemask_eq" => Special::MaskEq,
        "%lanemask_lt" => Special::MaskLt,
        "%lanemask_le" => Special::MaskLe,
        "%lanemask_gt" => Special::MaskGt,
        "%lanemask_ge" => Special::MaskGe,
        "%dynamic_smem_size" => Special::DynamicSharedBytes,
        "%total_smem_size" => Special::TotalSharedBytes,
        _ => {
            if let Some(r) = name.strip_prefix("%tid") {
                Special::Tid(axis(r))
            } else if let Some(r) = name.strip_prefix("%ntid") {
                Special::Ntid(axis(r))
            } else if let Some(r) = name.strip_prefix("%ctaid") {
                Special::Ctaid(axis(r))
            } else if let Some(r) = name.strip_prefix("%nctaid") {
                Special::Nctaid(axis(r))
            } else {
                return None;
            }
        }
    })
}
