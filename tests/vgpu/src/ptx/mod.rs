//! PTX text to typed instructions. Strict: an opcode, modifier, register or directive that it does not know is an
//! error with kernel, line and text, never ignored.

mod ast;
mod body;
mod decode;
mod error;
mod flow;
pub(crate) mod forms;
pub(crate) mod inst;
mod lex;
mod operands;
mod parse;
pub(crate) mod types;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::memory::{Memory, MemoryError, Origin};

pub use error::{LoadError, LoadErrorKind};
pub use forms::markdown as forms_markdown;
pub(crate) use forms::{extent, wmma_registers};

use inst::{Code, Global, Globals};
use types::Space;

/// A parameter of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Name in the PTX.
    pub name: String,
    /// Offset in the parameter buffer, in bytes.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
    /// Alignment in bytes.
    pub align: u32,
}

/// An entry of a module, ready to launch.
#[derive(Debug, Clone)]
pub struct Kernel {
    name: String,
    params: Vec<Param>,
    max_threads: Option<[u32; 3]>,
    exact_threads: bool,
    pub(crate) code: Arc<Code>,
}

impl Kernel {
    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Size of the parameter buffer in bytes.
    pub fn param_bytes(&self) -> u32 {
        self.params.last().map_or(0, |p| p.offset + p.size)
    }

    /// Static shared memory in bytes.
    pub fn shared_bytes(&self) -> u32 {
        self.code.shared_bytes
    }

    /// Shared memory of a block with so much of it dynamic, in bytes.
    pub fn shared_with(&self, dynamic: u32) -> u32 {
        match dynamic {
            0 => self.code.shared_bytes,
            _ => self.code.shared_bytes.next_multiple_of(self.code.shared_align) + dynamic,
        }
    }

    /// Local memory of a thread in bytes.
    pub fn local_bytes(&self) -> u32 {
        self.code.local_bytes
    }

    /// `.maxntid` or `.reqntid`: threads per axis (x, y, z).
    pub fn max_block(&self) -> Option<[u32; 3]> {
        self.max_threads
    }

    /// True if the block must be exactly [`Kernel::max_block`] (`.reqntid`).
    pub fn exact_block(&self) -> bool {
        self.exact_threads
    }

    /// Largest block from `.maxntid` or `.reqntid`, in threads.
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads.map(|n| n.iter().fold(1, |a, b| u32::saturating_mul(a, *b)))
    }

    /// The basic blocks by the PTX line that each begins in, and whether a warp of any launch so far came to it. A
    /// function that is called twice has its blocks twice: they are reached if one of them is.
    pub fn blocks(&self) -> BTreeMap<u32, bool> {
        let mut blocks = BTreeMap::new();
        for start in self.code.starts.iter().map(|start| *start as usize) {
            *blocks.entry(self.code.places[start].line).or_default() |=
                self.code.reached[start].load(Ordering::Relaxed);
        }
        blocks
    }

    /// Virtual registers of the PTX after inlining, in 32-bit units: no statement about a real device.
    pub fn virtual_registers(&self) -> u32 {
        self.code.rows
    }
}

/// A loaded PTX text.
#[derive(Debug)]
pub struct Module {
    kernels: Vec<Kernel>,
    version: (u32, u32),
    target: u32,
    globals: Arc<Globals>,
}

impl Module {
    /// Decodes a PTX text. A NUL ends it.
    ///
    /// # Errors
    /// The first thing that is unknown or wrong, by kernel, line and text.
    pub fn load(text: &str) -> Result<Module, LoadError> {
        let refuse = |kernel: Option<String>, line: u32, kind| LoadError {
            kernel,
            line,
            text: text
                .lines()
                .nth(line.saturating_sub(1) as usize)
                .unwrap_or("")
                .trim()
                .chars()
                .take(200)
                .collect(),
            kind,
        };
        let toks = lex::lex(text).map_err(|(line, kind)| refuse(None, line, kind))?;
        let ast = parse::parse(&toks).map_err(|s| refuse(s.kernel, s.line, s.kind))?;
        let list: Vec<Global> = ast
            .vars
            .iter()
            .filter(|v| v.space != Space::Shared)
            .map(|v| Global {
                name: v.name.into(),
                align: v.align,
                bytes: v.bytes,
                init: v.init.clone(),
                constant: v.space == Space::Const,
            })
            .collect();
        let globals = Arc::new(Globals { list, ..Globals::default() });
        let shared_text: Arc<str> = text.into();
        let files: Arc<HashMap<u32, String>> =
            Arc::new(ast.files.iter().map(|(n, s)| (*n, s.to_string())).collect());
        let mut budget = decode::inlining_budget(&ast);
        let mut kernels = Vec::new();
        for (index, f) in ast.functions.iter().enumerate() {
            if !f.entry {
                continue;
            }
            let code =
                decode::kernel(&ast, index, shared_text.clone(), globals.clone(), files.clone(), &mut budget)
                    .map_err(|r| refuse(Some(r.function), r.line, r.kind))?;
            let params = &f.vars[..f.params];
            kernels.push(Kernel {
                name: f.name.into(),
                params: decode::param_layout(params)
                    .into_iter()
                    .zip(params)
                    .map(|(offset, p)| Param {
                        name: p.name.into(),
                        offset,
                        size: p.bytes.min(1 << 20) as u32,
                        align: p.align,
                    })
                    .collect(),
                max_threads: f.max_threads,
                exact_threads: f.exact_threads,
                code: Arc::new(code),
            });
        }
        Ok(Module { kernels, version: ast.version, target: ast.target, globals })
    }

    /// Puts the module's globals and constants into device memory; a second call does nothing.
    ///
    /// # Errors
    /// No room.
    pub fn place(&self, memory: &Memory) -> Result<(), MemoryError> {
        if self.globals.addresses.get().is_some() {
            return Ok(());
        }
        let mut addresses = Vec::new();
        for g in &self.globals.list {
            let address = memory.alloc(g.bytes, Origin::Module)?;
            let address = address.next_multiple_of(u64::from(g.align.min(256)));
            memory.fill(address, &[0], g.bytes)?;
            memory.write(address, &g.init)?;
            if g.constant {
                memory.make_read_only(address, g.bytes);
            }
            addresses.push(address);
        }
        let _ = self.globals.addresses.set(addresses);
        Ok(())
    }

    /// Takes the module's globals and constants out of device memory. The module cannot be launched afterwards.
    ///
    /// # Errors
    /// As [`Memory::free`].
    pub fn unplace(&self, memory: &Memory) -> Result<(), MemoryError> {
        match self.globals.addresses.get() {
            Some(addresses) => addresses.iter().try_for_each(|a| memory.free(*a)),
            None => Ok(()),
        }
    }

    /// An entry by name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }

    /// All entries.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Address and size in bytes of a global or constant; `None` if unknown or not placed.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        let i = self.globals.list.iter().position(|g| g.name == name)?;
        Some((*self.globals.addresses.get()?.get(i)?, self.globals.list[i].bytes))
    }

    /// Names, sizes in bytes and constness of the module's variables.
    pub fn globals(&self) -> HashMap<&str, (u64, bool)> {
        self.globals.list.iter().map(|g| (g.name.as_str(), (g.bytes, g.constant))).collect()
    }

    /// `.version` (major, minor).
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// `.target sm_NN` as major * 10 + minor.
    pub fn target(&self) -> u32 {
        self.target
    }
}
