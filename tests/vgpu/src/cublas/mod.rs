//! Stand-ins for cuBLAS and cuBLASLt: the matrix products that cudarc's safe layer can ask for.
//!
//! Sizes, leading dimensions and types are checked at the call, every byte that is touched when it runs. Invariant: a
//! product is accumulated in f64 in ascending order and rounded once to the type of the result; this is not the rounding
//! of the real libraries, which is not documented.

mod abi;
mod gemm;
mod lt;
mod number;
mod vector;

use std::collections::BTreeMap;

use crate::driver::abi::{call, in_context};
use crate::driver::code::Code;
use crate::driver::device::{Done, Driver, Refusal};

/// A handle of cuBLAS.
#[derive(Debug, Clone, Copy)]
pub struct Blas {
    /// Its context.
    context: u64,
    /// Handle of the stream that its work goes to.
    stream: u64,
    /// Scalars lie in device memory.
    device_scalars: bool,
    /// `cublasMath_t`, kept for the program; the results do not depend on it.
    math_mode: u32,
}

/// Everything that handles of the libraries name.
#[derive(Debug, Default)]
pub struct Libraries {
    blas: BTreeMap<u64, Blas>,
    lt: lt::Objects,
}

impl Libraries {
    /// Forgets what belonged to a context.
    pub fn end_context(&mut self, context: u64) {
        self.blas.retain(|_, b| b.context != context);
    }
}

/// A status of the libraries.
fn status(code: u32) -> u32 {
    const SUCCESS: u32 = 0;
    const NOT_INITIALIZED: u32 = 1;
    const ALLOC_FAILED: u32 = 3;
    const INVALID_VALUE: u32 = 7;
    const EXECUTION_FAILED: u32 = 13;
    const NOT_SUPPORTED: u32 = 15;
    match Code::from_number(code) {
        Some(Code::Success) => SUCCESS,
        Some(Code::NotInitialized | Code::InvalidContext | Code::InvalidHandle) => NOT_INITIALIZED,
        Some(Code::OutOfMemory) => ALLOC_FAILED,
        Some(Code::InvalidValue) => INVALID_VALUE,
        Some(Code::NotSupported) => NOT_SUPPORTED,
        _ => EXECUTION_FAILED,
    }
}

/// Runs a call of a library that needs no context.
fn plain(function: &'static str, f: impl FnOnce(&mut Driver) -> Done) -> u32 {
    status(call(function, f))
}

/// Runs a call of a library in the current context.
fn with_context(function: &'static str, f: impl FnOnce(&mut Driver, u64) -> Done) -> u32 {
    status(in_context(function, f))
}

/// Runs a call on a handle of cuBLAS.
fn with_blas(function: &'static str, handle: u64, f: impl FnOnce(&mut Driver, Blas) -> Done) -> u32 {
    status(call(function, |d| {
        let blas =
            d.libraries.blas.get(&handle).copied().ok_or_else(|| Refusal::handle("cuBLAS handle", handle))?;
        d.context(blas.context)?;
        f(d, blas)
    }))
}

/// Stores a result through a pointer of the program.
fn put<T>(to: *mut T, value: T) -> Done {
    if to.is_null() {
        return Err(Refusal::argument("a null pointer where a result should go"));
    }
    // SAFETY: not null, and the program gives room for a result of this type.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Reads a value through a pointer of the program.
fn get<T: Copy>(from: *const T, what: &str) -> Done<T> {
    if from.is_null() {
        return Err(Refusal::argument(format!("{what} is a null pointer")));
    }
    // SAFETY: not null, and the program gives a value of this type.
    Ok(unsafe { from.read_unaligned() })
}
