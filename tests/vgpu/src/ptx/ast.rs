//! What the parser makes: declarations and statements with names resolved, opcodes not yet understood.

use std::collections::HashMap;

use super::types::{Space, Ty};

/// A parsed module.
#[derive(Debug, Default)]
pub(crate) struct Ast<'a> {
    pub version: (u32, u32),
    pub target: u32,
    /// File names of `.file`, by number.
    pub files: Vec<(u32, &'a str)>,
    /// Variables of the module.
    pub vars: Vec<Var<'a>>,
    pub functions: Vec<Func<'a>>,
    /// Places in `functions` by name.
    pub by_name: HashMap<&'a str, usize>,
}

/// A variable.
#[derive(Debug, Clone)]
pub(crate) struct Var<'a> {
    pub name: &'a str,
    pub space: Space,
    pub align: u32,
    pub bytes: u64,
    /// `name[]`: takes its size from the launch.
    pub unsized_array: bool,
    /// Initial bytes; the rest is zero.
    pub init: Vec<u8>,
}

/// Number of a register in its function.
pub(crate) type RegId = u32;

/// A register's name and type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reg<'a> {
    pub name: &'a str,
    pub ty: Ty,
}

/// A variable as seen from a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VarRef {
    /// Index into [`Ast::vars`].
    Module(usize),
    /// Index into [`Func::vars`].
    Function(usize),
}

/// A kernel or a device function.
#[derive(Debug)]
pub(crate) struct Func<'a> {
    pub name: &'a str,
    pub entry: bool,
    pub line: u32,
    /// False for a declaration without a body.
    pub defined: bool,
    /// Number of leading `vars` that are return values.
    pub rets: usize,
    /// Number of `vars` after those that are parameters.
    pub params: usize,
    /// Return values, parameters, then variables of the body.
    pub vars: Vec<Var<'a>>,
    pub regs: Vec<Reg<'a>>,
    /// Parent of every scope; scope 0 is the body and its own parent.
    pub scopes: Vec<u32>,
    pub body: Vec<Stmt<'a>>,
    /// Labels: scope, name, index of the statement that follows.
    pub labels: HashMap<(u32, &'a str), usize>,
    /// `.branchtargets`: scope, name, labels.
    pub tables: Vec<(u32, &'a str, Vec<&'a str>)>,
    pub max_threads: Option<[u32; 3]>,
    pub exact_threads: bool,
}

/// One instruction.
#[derive(Debug)]
pub(crate) struct Stmt<'a> {
    pub line: u32,
    /// `.loc`: file number and line; zeros if none.
    pub loc: (u32, u32),
    pub scope: u32,
    /// Predicate and whether it is negated.
    pub guard: Option<(RegId, bool)>,
    pub opcode: &'a str,
    pub args: Vec<Arg<'a>>,
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Arg<'a> {
    Reg(RegId),
    /// `!%p`.
    Not(RegId),
    /// `_`.
    Sink,
    /// A special register such as `%tid.x`.
    Special(&'a str),
    /// The address of a variable plus an offset.
    Var(VarRef, i64),
    /// A label, a function or a table: resolved by whoever knows which.
    Name(&'a str),
    /// An integer, two's complement.
    Int(u64),
    F32(u32),
    F64(u64),
    /// `{a, b}`.
    Vec(Vec<Arg<'a>>),
    /// `[base+offset]`.
    Addr(Box<Arg<'a>>, i64),
    /// `p|q`.
    Pair(Box<Arg<'a>>, Box<Arg<'a>>),
    /// `(a, b)` of a call.
    List(Vec<Arg<'a>>),
}
