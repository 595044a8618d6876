//! The CPU: threads, memory and kernels.

mod arena;
pub(crate) mod depthwise;
pub(crate) mod fused;
mod isa;
pub(crate) mod matmul;
mod pool;
pub mod simd;
mod trace;

use std::sync::Arc;

pub use arena::{Arena, Buffer, Element};
pub use isa::Isa;
pub use pool::{Disjoint, Pool};
pub use trace::Spent;

use crate::error::{Error, Result};

/// A CPU with its threads and its memory; cloning shares both.
#[derive(Clone, Debug)]
pub struct Cpu(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    arena: Arena,
    trace: trace::Trace,
}

impl Cpu {
    /// A CPU that computes on `threads` threads, the caller's among them.
    ///
    /// # Errors
    /// [`Error::Setting`] unless `1 <= threads <= 1024`, or if `MONOPATH_ISA` names no instruction
    /// set of this machine.
    pub fn new(threads: usize) -> Result<Self> {
        Self::with_cap(threads, usize::MAX)
    }

    /// The same with at most `cap` bytes of tensor memory.
    ///
    /// # Errors
    /// [`Error::Setting`] unless `1 <= threads <= 1024`, or if `MONOPATH_ISA` names no instruction
    /// set of this machine.
    pub fn with_cap(threads: usize, cap: usize) -> Result<Self> {
        Isa::chosen()?;
        if !(1..=1024).contains(&threads) {
            return Err(Error::Setting { name: "threads", value: threads.to_string(), range: "1 to 1024" });
        }
        Ok(Self(Arc::new(Inner {
            pool: Pool::new(threads),
            arena: Arena::new(cap),
            trace: Default::default(),
        })))
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// The instructions that kernels run with: part of what decides the last bits of a result.
    pub fn isa(&self) -> Isa {
        Isa::current()
    }

    /// The memory.
    pub fn arena(&self) -> &Arena {
        &self.0.arena
    }

    fn trace(&self) -> &trace::Trace {
        &self.0.trace
    }
}
