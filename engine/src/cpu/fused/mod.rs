//! The passes of the fused inverted residual block, forward and backward.
//!
//! Only raw tensors and statistics are stored; batch norm and activation are computed wherever a
//! raw tensor is read. Work is cut by [`Plan`] alone, and partial sums are joined in order, so the
//! bits of a result do not depend on the number of threads.

mod backward;
mod curve;
mod folded;
mod forward;
mod norm;
mod plan;
mod product;
mod rows;
mod strip;
mod tile;
mod window;

pub use backward::{
    Above, Below, Middle, Top, depthwise_backward, expand_backward, project_backward, top_gradient,
};
pub use folded::{Folded, FoldedConv, Layers};
pub use forward::{Source, depthwise, expand, finish, project, squeeze};
pub use norm::{Given, Norms, Steps, TopNorm};
pub use plan::Plan;
pub use strip::{BLOCK, EXCITE_SUMS};

use crate::cpu::Cpu;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Where a gradient goes.
#[derive(Debug)]
pub struct Slot<'a> {
    /// Its elements.
    pub to: &'a mut [f32],
    /// Whether it is added to what is there.
    pub add: bool,
}

/// Runs `tasks` tasks, each with `len` floats of its own with unspecified contents.
fn with_scratch(cpu: &Cpu, tasks: usize, len: usize, body: impl Fn(usize, &mut [f32]) + Sync) -> Result<()> {
    let len = len.next_multiple_of(BLOCK).max(BLOCK);
    let mut scratch = Tensor::stale(cpu, [cpu.pool().threads(), len], DType::F32)?;
    let shares = super::Disjoint::new(scratch.f32_mut()?);
    cpu.pool().parallel_for(tasks, |task, lane| {
        // SAFETY: a lane runs one task at a time.
        body(task, unsafe { shares.slice(lane * len..(lane + 1) * len) });
    });
    Ok(())
}
