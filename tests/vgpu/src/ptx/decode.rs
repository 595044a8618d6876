//! Statements to instructions: rows for registers, constants for immediates, functions inlined at their calls.
//!
//! Inlining keeps the machine flat (one register file, no frames); recursion and indirect calls are refused.

use std::collections::HashMap;
use std::sync::Arc;

use super::ast::{Arg, Ast, Func, Stmt, Var};
use super::error::LoadErrorKind as Kind;
use super::flow;
use super::forms;
use super::inst::*;
use super::types::{Space, Ty, W};

pub(crate) type Res<T> = Result<T, Kind>;

/// Bytes of shared memory that a module may declare for a kernel.
const MAX_SHARED: u64 = 1 << 20;
/// Bytes of local memory that a kernel may declare.
const MAX_LOCAL: u64 = 1 << 24;

/// Where a variable lives in a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
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

pub(super) struct Frame {
    pub(super) function: usize,
    pub(super) regs: Vec<Option<u32>>,
    pub(super) homes: Vec<Home>,
    /// First instruction of every statement, and the end.
    pub(super) starts: Vec<u32>,
    /// Instructions whose target is a statement: (instruction, place in `more` or none, statement).
    pub(super) fixups: Vec<(usize, Option<usize>, usize)>,
}

/// Decoder of one kernel.
pub(crate) struct Cx<'m, 'a> {
    pub(super) ast: &'m Ast<'a>,
    pub(super) frames: Vec<Frame>,
    pub(super) code: Code,
    pub(super) consts: HashMap<(W, Const), Slot>,
    pub(super) shared_homes: HashMap<(Option<usize>, usize), Home>,
    pub(super) stmt: &'m Stmt<'a>,
    /// Instructions that may still be made.
    pub(super) budget: usize,
    /// Module variables in device memory before each variable.
    pub(super) globals_before: Vec<u32>,
    pub(super) sink: Option<Slot>,
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
    files: Arc<HashMap<u32, String>>,
    budget: &mut usize,
) -> Result<Code, Refused> {
    let f = &ast.functions[index];
    let nothing = Stmt { line: f.line, loc: (0, 0), scope: 0, guard: None, opcode: "", args: Vec::new() };
    let mut cx = Cx {
        ast,
        frames: Vec::new(),
        code: Code { preds: 2, text, globals, shared_align: 16, files, ..Code::default() },
        consts: HashMap::new(),
        shared_homes: HashMap::new(),
        stmt: &nothing,
        budget: *budget,
        globals_before: globals_before(ast),
        sink: None,
    };
    let mut homes = Vec::new();
    for p in param_layout(&f.vars[..f.params]) {
        homes.push(Home::Param(p));
    }
    let done = cx.function(index, homes).map(|()| {
        cx.emit(Op::Exit, 0, 0, 0, 0);
        flow::converge(&mut cx.code);
    });
    *budget = cx.budget;
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

/// Instructions that all kernels of a module may have after inlining.
pub(crate) fn inlining_budget(ast: &Ast<'_>) -> usize {
    64 * ast.functions.iter().map(|f| f.body.len()).sum::<usize>() + (1 << 20)
}

fn globals_before(ast: &Ast<'_>) -> Vec<u32> {
    let mut n = 0;
    let count = |v: &Var<'_>| {
        let before = n;
        n += u32::from(v.space != Space::Shared);
        before
    };
    ast.vars.iter().map(count).collect()
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
    pub(super) fn func(&self) -> &'m Func<'a> {
        let frame = self.frames.last().expect("decoding happens in a frame");
        &self.ast.functions[frame.function]
    }

    pub(super) fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("decoding happens in a frame")
    }

    pub(super) fn function(&mut self, index: usize, bound: Vec<Home>) -> Res<()> {
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

    pub(super) fn local(&mut self, v: &Var<'_>) -> Res<u32> {
        let at = u64::from(self.code.local_bytes).next_multiple_of(u64::from(v.align.max(1)));
        let end = at.saturating_add(v.bytes);
        if end > MAX_LOCAL {
            return Err(Kind::TooLarge { what: "local memory", limit: MAX_LOCAL });
        }
        self.code.local_bytes = end as u32;
        Ok(at as u32)
    }

    pub(super) fn shared_home(&mut self, function: Option<usize>, index: usize, v: &Var<'_>) -> Res<Home> {
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

    /// Inlining may repeat functions, but not without bound.
    fn charge(&mut self, instructions: usize) -> Res<()> {
        self.budget = self.budget.checked_sub(instructions).ok_or(Kind::TooLarge {
            what: "the number of instructions after inlining",
            limit: inlining_budget(self.ast) as u64,
        })?;
        Ok(())
    }

    pub(super) fn statement(&mut self) -> Res<()> {
        self.charge(1)?;
        forms::decode(self, self.stmt.opcode)
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

    pub(super) fn label(&self, name: &str) -> Res<usize> {
        let f = self.func();
        self.visible(self.stmt.scope, |s| f.labels.get(&(s, name)).copied())
            .ok_or_else(|| Kind::Label { name: name.into() })
    }

    /// A branch through a table.
    pub(super) fn branch_table(&mut self, name: &str, index: Slot) -> Res<()> {
        let f = self.func();
        let table = self
            .visible(self.stmt.scope, |s| f.tables.iter().position(|t| t.0 == s && t.1 == name))
            .ok_or_else(|| Kind::Label { name: name.into() })?;
        let targets: Vec<usize> = f.tables[table].2.iter().map(|l| self.label(l)).collect::<Res<_>>()?;
        self.charge(targets.len())?;
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
        let index = self.ast.by_name.get(name).copied().filter(|i| !self.ast.functions[*i].entry);
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
        let load = |cx: &mut Self, home: Home| -> Res<Slot> {
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
