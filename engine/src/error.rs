//! What can go wrong in the engine.

use crate::cuda::Unusable;
use crate::tensor::{DType, Shape};

/// A result whose error is the engine's.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the engine. Messages name the op, the shapes and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An op was given shapes it cannot take.
    #[error("{op}: cannot take inputs {inputs:?}: {reason}")]
    Shape {
        /// The op.
        op: &'static str,
        /// The shapes of its inputs, in order.
        inputs: Vec<Shape>,
        /// What does not fit.
        reason: String,
    },
    /// A tensor has another element type than the one asked for.
    #[error("expected a tensor of {expected:?}, found {found:?} of shape {shape}")]
    DType {
        /// The type asked for.
        expected: DType,
        /// The type it has.
        found: DType,
        /// Its shape.
        shape: Shape,
    },
    /// Data and shape disagree in their number of elements.
    #[error("{found} elements cannot fill shape {shape} ({expected} elements)")]
    Elements {
        /// The shape.
        shape: Shape,
        /// Elements the shape has.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// Shapes have one to four axes.
    #[error("a shape has one to four axes, found {found}")]
    Rank {
        /// Axes given.
        found: usize,
    },
    /// A value is written while something else still reads it.
    #[error("{what} is still in use and cannot be written; drop what was read from it first")]
    InUse {
        /// What was to be written.
        what: String,
    },
    /// Memory would exceed the cap.
    #[error(
        "out of memory: {requested} bytes asked for, {used} of {cap} in use; use a smaller batch or micro-batch, or raise the cap"
    )]
    OutOfMemory {
        /// Bytes asked for.
        requested: usize,
        /// Bytes in use.
        used: usize,
        /// The cap in bytes.
        cap: usize,
    },
    /// A parameter name is not in the store.
    #[error("no parameter is called {name:?}")]
    UnknownParameter {
        /// The name.
        name: String,
    },
    /// Two parameters have one name.
    #[error("two parameters are called {name:?}")]
    DuplicateParameter {
        /// The name.
        name: String,
    },
    /// A window reaches outside its parameter.
    #[error("window {window} reaches outside parameter {name:?} of shape {shape}")]
    Window {
        /// The parameter.
        name: String,
        /// Its shape.
        shape: Shape,
        /// The window, as text.
        window: String,
    },
    /// `backward` was called on something that cannot be differentiated.
    #[error("cannot differentiate: {reason}")]
    NotDifferentiable {
        /// Why.
        reason: &'static str,
    },
    /// A setting has a value outside its range.
    #[error("{name} = {value} is outside {range}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
    /// A GPU cannot be used.
    #[error("cannot use {device}: {reason}; or compute on --device cpu")]
    Unusable {
        /// The device.
        device: String,
        /// Why, and what to do.
        reason: Unusable,
    },
    /// Host code asks for elements that lie on a device.
    #[error("a tensor of shape {shape} lies on {device}; copy it to the host first")]
    NotOnHost {
        /// Its shape.
        shape: Shape,
        /// Where it lies.
        device: String,
    },
    /// A kernel asks for elements that lie on the host.
    #[error("a tensor of shape {shape} lies on the host; copy it to the device first")]
    NotOnGpu {
        /// Its shape.
        shape: Shape,
    },
    /// An op has no kernels for the device yet.
    #[error("{op} does not run on {device} yet; compute on --device cpu")]
    NotOnDevice {
        /// The op.
        op: &'static str,
        /// The device.
        device: String,
    },
    /// An op has kernels, but not for this shape.
    #[error(
        "{op}: no kernel of {device} serves {what} = {value}, expected {expected}; compute on --device cpu"
    )]
    NoKernel {
        /// The op.
        op: &'static str,
        /// The device.
        device: String,
        /// Which size or setting.
        what: &'static str,
        /// Its value.
        value: usize,
        /// What there are kernels for.
        expected: &'static str,
    },
    /// A kernel's launch was refused.
    #[error("{device}: {reason}")]
    Kernel {
        /// The device.
        device: String,
        /// The kernel and what was wrong.
        reason: String,
    },
    /// The driver of a GPU refused something.
    #[error("cannot {what} {device}: {reason}")]
    Driver {
        /// The device.
        device: String,
        /// What was attempted.
        what: &'static str,
        /// The driver's reason.
        reason: String,
    },
}
