//! Operands of statements to rows, predicates, constants and addresses: what the forms build instructions from.

use super::ast::{Arg, RegId, VarRef};
use super::decode::{Cx, Home, Res};
use super::error::LoadErrorKind as Kind;
use super::inst::*;
use super::parse;
use super::types::{Space, Ty, W};

impl<'m, 'a> Cx<'m, 'a> {
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

    pub(super) fn arg(&self, i: usize) -> Res<&'m Arg<'a>> {
        self.args().get(i).ok_or(Kind::Operands { need: i + 1, have: self.args().len() })
    }

    pub(super) fn wrong<T>(&self, i: usize, need: &'static str) -> Res<T> {
        Err(Kind::Operand { index: i + 1, need })
    }

    /// Appends an instruction under the statement's guard.
    pub(super) fn emit(&mut self, op: Op, d: u32, a: u32, b: u32, c: u32) -> usize {
        let guard = match self.stmt.guard {
            Some((reg, negated)) if !self.frames.is_empty() => self.pred(reg) | if negated { NEG } else { 0 },
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

    pub(super) fn rows(&mut self, w: W) -> Slot {
        let at = self.code.rows;
        self.code.rows += if w == W::W64 { 2 } else { 1 };
        at
    }

    /// A fresh register for the decoder's own use.
    pub(super) fn temp(&mut self, w: W) -> Slot {
        self.rows(w)
    }

    pub(super) fn reg_ty(&self, reg: RegId) -> (Ty, &'a str) {
        let r = self.func().regs[reg as usize];
        (r.ty, r.name)
    }

    pub(super) fn pred(&mut self, reg: RegId) -> u32 {
        if let Some(p) = self.frame().regs[reg as usize] {
            return p;
        }
        let p = self.code.preds;
        self.code.preds += 1;
        self.frame().regs[reg as usize] = Some(p);
        p
    }

    /// The row of a register of exactly this width.
    pub(super) fn reg(&mut self, reg: RegId, w: W) -> Res<Slot> {
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

    pub(super) fn reg_any(&mut self, reg: RegId) -> Res<(Slot, W)> {
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
                let bits = immediate(arg, ty)
                    .ok_or(Kind::Operand { index: i + 1, need: "a value of the type" })??;
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

    pub(super) fn home(&mut self, v: VarRef) -> Res<Home> {
        match v {
            VarRef::Function(i) => Ok(self.frame().homes[i]),
            VarRef::Module(i) => {
                let var = &self.ast.vars[i];
                if var.space == Space::Shared {
                    return self.shared_home(None, i, var);
                }
                Ok(Home::Module(self.globals_before[i]))
            }
        }
    }

    /// The row that holds a variable's address in its own space.
    pub(super) fn address_of(&mut self, arg: &Arg<'a>, w: W, i: usize) -> Res<Slot> {
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
