//! What can go wrong before and at a launch.

use cudarc::driver::DriverError;
use thiserror::Error;

use crate::device::DType;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, KernelError>;

/// What went wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The driver refused something.
    #[error("{what} {name}: {source}")]
    Driver {
        /// What was attempted, such as `cannot launch`.
        what: &'static str,
        /// The kernel or module.
        name: String,
        /// The driver's reason.
        source: DriverError,
    },
    /// A buffer is too short.
    #[error("{kernel}: `{argument}` has {found} elements, {needed} are needed")]
    TooShort {
        /// The kernel.
        kernel: String,
        /// Its argument.
        argument: &'static str,
        /// Elements that it needs.
        needed: usize,
        /// Elements that there are.
        found: usize,
    },
    /// A buffer holds elements of another type.
    #[error("{kernel}: `{argument}` holds {found}, expected {expected}")]
    Type {
        /// The kernel.
        kernel: String,
        /// Its argument.
        argument: &'static str,
        /// The type that the kernel takes.
        expected: DType,
        /// The type that there is.
        found: DType,
    },
    /// A buffer does not begin at a multiple of 16 bytes.
    #[error("{kernel}: `{argument}` begins at {address:#x}, which is no multiple of 16")]
    Alignment {
        /// The kernel.
        kernel: String,
        /// Its argument.
        argument: &'static str,
        /// Where it begins.
        address: u64,
    },
    /// A number that is out of range.
    #[error("{op}: {what} is {value}, expected {expected}")]
    Setting {
        /// The operation.
        op: &'static str,
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f32,
        /// What is possible.
        expected: &'static str,
    },
    /// A shape that no kernel serves.
    #[error("{op}: {what} is {value}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which size.
        what: &'static str,
        /// Its value.
        value: usize,
        /// What is possible.
        expected: &'static str,
    },
}
