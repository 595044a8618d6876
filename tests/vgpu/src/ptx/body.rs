//! Bodies of functions: scopes, registers, labels, statements, operands.

use std::collections::HashMap;

use super::ast::{Arg, Func, Reg, RegId, Stmt, VarRef};
use super::error::LoadErrorKind as Kind;
use super::lex::Tok;
use super::parse::{Parser, Res, special};
use super::types::{Space, Ty};

/// Registers that a function may declare.
const MAX_REGISTERS: u64 = 1 << 20;
/// Scopes that may be nested.
const MAX_SCOPES: usize = 256;

#[derive(Default)]
struct Scope<'a> {
    id: u32,
    regs: HashMap<&'a str, RegId>,
    /// Declared as a range: prefix -> count and type.
    ranges: HashMap<&'a str, (u64, Ty)>,
    vars: HashMap<&'a str, usize>,
}

impl<'a> Parser<'_, 'a> {
    pub(super) fn body(&mut self, f: &mut Func<'a>) -> Res<()> {
        let mut outer = Scope::default();
        for (i, v) in f.vars.iter().enumerate() {
            if outer.vars.insert(v.name, i).is_some() {
                return Err(Kind::Redeclared { name: v.name.into() });
            }
        }
        let mut scopes = vec![outer];
        let mut loc = (0, 0);
        while let Some(scope) = scopes.last_mut() {
            if self.eat(b'{') {
                let (id, parent) = (f.scopes.len() as u32, scope.id);
                if scopes.len() >= MAX_SCOPES {
                    return Err(Kind::TooLarge { what: "the depth of scopes", limit: MAX_SCOPES as u64 });
                }
                f.scopes.push(parent);
                scopes.push(Scope { id, ..Scope::default() });
                continue;
            }
            if self.eat(b'}') {
                scopes.pop();
                continue;
            }
            if let Tok::Word(w) = self.peek()
                && self.toks.get(self.at + 1).is_some_and(|t| t.tok == Tok::Sym(b':'))
            {
                self.at += 2;
                if self.eat_word(".branchtargets") {
                    let mut targets = Vec::new();
                    loop {
                        targets.push(self.word("a label")?);
                        if !self.eat(b',') {
                            break;
                        }
                    }
                    self.expect(b';', "`;`")?;
                    f.tables.push((scope.id, w, targets));
                } else if matches!(self.peek(), Tok::Word(".callprototype")) {
                    return Err(Kind::Unsupported { what: "an indirect call" });
                } else {
                    if f.labels.insert((scope.id, w), f.body.len()).is_some() {
                        return Err(Kind::Redeclared { name: w.into() });
                    }
                }
                continue;
            }
            match self.peek() {
                Tok::Word(".reg") => {
                    self.at += 1;
                    let ty = self.word("a register type")?;
                    self.registers(scope, f, ty)?;
                }
                // The toolkit's headers write `.reg.b32` without a space.
                Tok::Word(w) if w.starts_with(".reg.") => {
                    self.at += 1;
                    self.registers(scope, f, &w[4..])?;
                }
                Tok::Word(directive @ (".local" | ".shared" | ".param")) => {
                    self.at += 1;
                    let space = match directive {
                        ".local" => Space::Local,
                        ".shared" => Space::Shared,
                        _ => Space::Param,
                    };
                    for v in self.variables(space)? {
                        if scope.vars.insert(v.name, f.vars.len()).is_some() {
                            return Err(Kind::Redeclared { name: v.name.into() });
                        }
                        f.vars.push(v);
                    }
                }
                Tok::Word(".loc") => {
                    self.at += 1;
                    loc = self.loc()?;
                }
                Tok::Word(".pragma") => {
                    self.at += 1;
                    self.pragma()?;
                }
                Tok::Word(w) if w.starts_with('.') => {
                    self.at += 1;
                    return Err(Kind::Directive { name: w.into() });
                }
                _ => {
                    let stmt = self.statement(&mut scopes, f, loc)?;
                    f.body.push(stmt);
                }
            }
        }
        Ok(())
    }

    fn registers(&mut self, scope: &mut Scope<'a>, f: &mut Func<'a>, w: &str) -> Res<()> {
        let ty = match w.strip_prefix('.').and_then(Ty::parse) {
            Some(Ty::Tf32) | None => {
                return Err(Kind::Syntax { expected: "a register type", found: w.into() });
            }
            Some(ty) => ty,
        };
        loop {
            let name = self.word("a register name")?;
            if self.eat(b'<') {
                let count = self.int("a count")?;
                self.expect(b'>', "`>`")?;
                if count > MAX_REGISTERS {
                    return Err(Kind::TooLarge { what: "a register range", limit: MAX_REGISTERS });
                }
                if scope.ranges.insert(name, (count, ty)).is_some() {
                    return Err(Kind::Redeclared { name: name.into() });
                }
            } else {
                if scope.regs.insert(name, f.regs.len() as RegId).is_some() {
                    return Err(Kind::Redeclared { name: name.into() });
                }
                f.regs.push(Reg { name, ty });
            }
            if !self.eat(b',') {
                return self.expect(b';', "`;`");
            }
        }
    }

    fn register(&self, scopes: &mut [Scope<'a>], f: &mut Func<'a>, name: &'a str) -> Option<RegId> {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (prefix, number) = name.split_at(name.len() - digits);
        for scope in scopes.iter_mut().rev() {
            if let Some(&id) = scope.regs.get(name) {
                return Some(id);
            }
            let leading_zero = number.len() > 1 && number.starts_with('0');
            if let Some(&(count, ty)) = scope.ranges.get(prefix)
                && !leading_zero
                && number.parse::<u64>().is_ok_and(|n| n < count)
            {
                let id = f.regs.len() as RegId;
                f.regs.push(Reg { name, ty });
                scope.regs.insert(name, id);
                return Some(id);
            }
        }
        None
    }

    fn statement(&mut self, scopes: &mut [Scope<'a>], f: &mut Func<'a>, loc: (u32, u32)) -> Res<Stmt<'a>> {
        let line = self.line();
        let scope = scopes.last().map_or(0, |s| s.id);
        let mut guard = None;
        if self.eat(b'@') {
            let negated = self.eat(b'!');
            let name = self.word("a predicate")?;
            let reg = self.register(scopes, f, name).ok_or_else(|| Kind::Register { name: name.into() })?;
            if f.regs[reg as usize].ty != Ty::Pred {
                return Err(Kind::RegisterKind {
                    name: name.into(),
                    have: "no predicate",
                    need: "a predicate",
                });
            }
            guard = Some((reg, negated));
        }
        let opcode = self.word("an instruction")?;
        let mut args = Vec::new();
        while !self.eat(b';') {
            if !args.is_empty() {
                self.expect(b',', "`,` or `;`")?;
            }
            args.push(self.operand(scopes, f)?);
            if args.len() > 64 {
                return Err(Kind::TooLarge { what: "the number of operands", limit: 64 });
            }
        }
        Ok(Stmt { line, loc, scope, guard, opcode, args })
    }

    fn operand(&mut self, scopes: &mut [Scope<'a>], f: &mut Func<'a>) -> Res<Arg<'a>> {
        if self.eat(b'{') {
            return self.items(scopes, f, b'}').map(Arg::Vec);
        }
        if self.eat(b'(') {
            return self.items(scopes, f, b')').map(Arg::List);
        }
        if self.eat(b'[') {
            let base = self.scalar(scopes, f)?;
            let mut offset = 0i64;
            if self.eat(b'+') {
                let negative = self.eat(b'-');
                offset = self.int("an offset")? as i64;
                if negative {
                    offset = offset.wrapping_neg();
                }
            } else if self.eat(b'-') {
                offset = (self.int("an offset")? as i64).wrapping_neg();
            }
            self.expect(b']', "`]`")?;
            return Ok(match base {
                Arg::Var(v, o) => Arg::Addr(Box::new(Arg::Var(v, o)), offset),
                base => Arg::Addr(Box::new(base), offset),
            });
        }
        let first = self.scalar(scopes, f)?;
        if self.eat(b'|') {
            let second = self.scalar(scopes, f)?;
            return Ok(Arg::Pair(Box::new(first), Box::new(second)));
        }
        if let Arg::Var(v, _) = first
            && self.eat(b'+')
        {
            return Ok(Arg::Var(v, self.int("an offset")? as i64));
        }
        Ok(first)
    }

    fn items(&mut self, scopes: &mut [Scope<'a>], f: &mut Func<'a>, close: u8) -> Res<Vec<Arg<'a>>> {
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(self.scalar(scopes, f)?);
            if self.eat(close) {
                return Ok(items);
            }
            if items.len() >= 64 {
                return Err(Kind::TooLarge { what: "the number of operands", limit: 64 });
            }
            self.expect(b',', "`,`")?;
        }
    }

    fn scalar(&mut self, scopes: &mut [Scope<'a>], f: &mut Func<'a>) -> Res<Arg<'a>> {
        match self.next() {
            Tok::Int(v) => Ok(Arg::Int(v)),
            Tok::F32(b) => Ok(Arg::F32(b)),
            Tok::F64(b) => Ok(Arg::F64(b)),
            Tok::Sym(b'-') => match self.next() {
                Tok::Int(v) => Ok(Arg::Int(v.wrapping_neg())),
                Tok::F64(b) => Ok(Arg::F64(b ^ 1 << 63)),
                t => Err(Kind::Syntax { expected: "a number", found: t.describe() }),
            },
            Tok::Sym(b'!') => {
                let name = self.word("a predicate")?;
                self.register(scopes, f, name)
                    .map(Arg::Not)
                    .ok_or_else(|| Kind::Register { name: name.into() })
            }
            Tok::Word("_") => Ok(Arg::Sink),
            Tok::Word("WARP_SZ") => Ok(Arg::Int(32)),
            Tok::Word(w) => {
                if let Some(r) = self.register(scopes, f, w) {
                    return Ok(Arg::Reg(r));
                }
                if let Some(v) = scopes.iter().rev().find_map(|s| s.vars.get(w)) {
                    return Ok(Arg::Var(VarRef::Function(*v), 0));
                }
                if let Some(v) = self.module_vars.get(w) {
                    return Ok(Arg::Var(VarRef::Module(*v), 0));
                }
                if special(w).is_some() {
                    return Ok(Arg::Special(w));
                }
                if w.starts_with('%') {
                    return Err(Kind::Register { name: w.into() });
                }
                Ok(Arg::Name(w))
            }
            t => Err(Kind::Syntax { expected: "an operand", found: t.describe() }),
        }
    }
}
