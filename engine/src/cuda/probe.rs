//! Whether a GPU can be used: the one place that decides it, before anything else touches the driver.
//!
//! cudarc looks its functions up at their first call and panics where the library or a function is missing. So the
//! library is looked for first, and its version read: from 12.0 on every function that is used is there.

use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, result, sys};

/// The oldest driver interface: the committed PTX is of version 8.0.
const OLDEST: i32 = 12_000;

/// The oldest architecture: the committed PTX is for `compute_80`.
const OLDEST_CAPABILITY: (i32, i32) = (8, 0);

/// Memory below which no step fits beside the modules.
const LEAST_MEMORY: usize = 64 << 20;

/// Why a GPU cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// There is no driver.
    #[error(
        "no CUDA driver is installed (libcuda is not on the loader's path); install NVIDIA's driver 525 or later"
    )]
    NoDriver,
    /// The driver is too old for the kernels.
    #[error("the driver speaks CUDA {}.{}, 12.0 is needed; install NVIDIA's driver 525 or later", version / 1000, version % 1000 / 10)]
    OldDriver {
        /// Its version as it says it: 1000 times the major plus 10 times the minor.
        version: i32,
    },
    /// No device has this number.
    #[error("the driver finds {count} devices, numbered from 0")]
    NoSuchDevice {
        /// The devices there are.
        count: usize,
    },
    /// The device is too old for the kernels.
    #[error("its compute capability is {major}.{minor}, 8.0 (Ampere) is needed")]
    OldDevice {
        /// Major capability.
        major: i32,
        /// Minor capability.
        minor: i32,
    },
    /// Others have taken the memory.
    #[error("{free} of its {total} bytes are free, {LEAST_MEMORY} are needed; end what else runs on it")]
    NoMemory {
        /// Free bytes.
        free: usize,
        /// All bytes.
        total: usize,
    },
    /// The driver refused something.
    #[error("the driver cannot {what}: {reason}")]
    Driver {
        /// What was attempted.
        what: &'static str,
        /// The driver's reason.
        reason: String,
    },
}

/// A device that can be used.
pub(super) struct Found {
    pub context: Arc<CudaContext>,
    pub model: String,
    pub capability: (i32, i32),
    /// Free bytes.
    pub free: usize,
}

/// The device `ordinal`, if it can be used.
pub(super) fn probe(ordinal: usize) -> Result<Found, Unusable> {
    let failed = |what| move |e: DriverError| Unusable::Driver { what, reason: e.to_string() };
    // SAFETY: opens the library and closes it again.
    if !unsafe { sys::is_culib_present() } {
        return Err(Unusable::NoDriver);
    }
    let mut version = 0;
    // SAFETY: the library is there; the function has been there since CUDA 2 and writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("tell its version"))?;
    if version < OLDEST {
        return Err(Unusable::OldDriver { version });
    }
    let count = match result::init().and_then(|()| result::device::get_count()) {
        Ok(count) => count as usize,
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
        Err(error) => return Err(failed("start")(error)),
    };
    if ordinal >= count {
        return Err(Unusable::NoSuchDevice { count });
    }
    let context = CudaContext::new(ordinal).map_err(failed("open the device"))?;
    let model = context.name().map_err(failed("tell the device's name"))?;
    let ask = |which| context.attribute(which).map_err(failed("tell the device's capability"));
    let (major, minor) = (
        ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    if (major, minor) < OLDEST_CAPABILITY {
        return Err(Unusable::OldDevice { major, minor });
    }
    let (free, total) = context.mem_get_info().map_err(failed("tell the device's memory"))?;
    if free < LEAST_MEMORY {
        return Err(Unusable::NoMemory { free, total });
    }
    Ok(Found { context, model, capability: (major, minor), free })
}
