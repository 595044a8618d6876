//! Runs a launch: blocks of warps of 32 lanes, with every check on unless told otherwise.

mod scalar;

use crate::counters::Counters;
use crate::fault::{Fault, FaultKind};
use crate::memory::Memory;
use crate::props::DeviceProps;
use crate::ptx::Kernel;

/// One kernel launch.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// Blocks per axis (x, y, z).
    pub grid: [u32; 3],
    /// Threads per axis (x, y, z).
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: u32,
    /// Parameter buffer, laid out as [`Kernel::params`] says.
    pub params: &'a [u8],
    /// Dynamic shared memory that the program opted in to for this kernel; 0 if it did not.
    pub dynamic_shared_optin: u32,
    /// Blocks may wait for each other (a cooperative launch).
    pub cooperative: bool,
    /// Seed of the schedule; 0 is the plain order.
    pub seed: u64,
}

/// How to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Initialisation, race and alignment checks. Bounds are always checked.
    pub checks: bool,
    /// Worker threads; results do not depend on it.
    pub threads: usize,
    /// Lane-instructions after which a launch is stopped.
    pub budget: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { checks: true, threads: 2, budget: 20_000_000_000 }
    }
}

/// Checks a launch against the limits of the kernel and the device, without running it.
///
/// # Errors
/// [`FaultKind::LaunchLimit`].
pub fn validate(kernel: &Kernel, launch: &Launch, props: &DeviceProps) -> Result<(), Box<Fault>> {
    let wrong = |text: String| Err(Box::new(Fault::of_launch(FaultKind::LaunchLimit, kernel.name(), text)));
    for axis in 0..3 {
        if launch.grid[axis] == 0 || launch.grid[axis] > props.max_grid[axis] {
            return wrong(format!("grid {:?}, limits 1..={:?}", launch.grid, props.max_grid));
        }
        if launch.block[axis] == 0 || launch.block[axis] > props.max_block[axis] {
            return wrong(format!("block {:?}, limits 1..={:?}", launch.block, props.max_block));
        }
    }
    Ok(())
}

/// Runs a launch to its end.
///
/// # Errors
/// The first broken rule in schedule order.
pub fn launch(
    kernel: &Kernel,
    launch: &Launch,
    memory: &Memory,
    props: &DeviceProps,
    options: &Options,
) -> Result<Counters, Box<Fault>> {
    validate(kernel, launch, props)?;
    let _ = (memory, options);
    Err(Box::new(Fault::of_launch(
        FaultKind::Unsupported,
        kernel.name(),
        "the interpreter is not built yet".into(),
    )))
}
