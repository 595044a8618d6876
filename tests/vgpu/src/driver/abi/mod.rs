//! The C functions, grouped as in the driver's manual. Each one checks its arguments, says what it does to the
//! [`Driver`], and gives a result code; nothing is decided here.
//!
//! Names and signatures are those of NVIDIA's header, so that a program needs no change.
#![allow(non_snake_case, reason = "the names of the driver's interface")]

mod context;
mod copy;
mod device;
mod event;
mod graph;
mod launch;
mod memory;
mod misc;
mod module;
mod pools;
mod stream;
mod unsupported;

use std::cell::RefCell;

use super::code::Code;
use super::device::{Done, Driver, Refusal};
use super::report::Kind;

thread_local! {
    /// Contexts of this thread, the current one last; 0 is none.
    static CURRENT: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Makes a context the current one of this thread.
fn set_current(context: u64) {
    CURRENT.with_borrow_mut(|stack| {
        stack.pop();
        stack.push(context);
    });
}

/// The current context of this thread; 0 if none.
fn current() -> u64 {
    CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(0))
}

/// Runs a call of the program.
pub(crate) fn call(function: &'static str, f: impl FnOnce(&mut Driver) -> Done) -> u32 {
    super::entry::call(function, f) as u32
}

/// Runs a call that needs a current context without a fault.
pub(crate) fn in_context(function: &'static str, f: impl FnOnce(&mut Driver, u64) -> Done) -> u32 {
    call(function, |d| {
        let context = current();
        d.context(context)?;
        f(d, context)
    })
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

/// The text at a pointer of the program.
fn text<'a>(at: *const std::ffi::c_char, what: &str) -> Done<&'a str> {
    if at.is_null() {
        return Err(Refusal::argument(format!("{what} is a null pointer")));
    }
    // SAFETY: not null, and the program gives a zero-terminated text.
    unsafe { std::ffi::CStr::from_ptr(at) }
        .to_str()
        .map_err(|_| Refusal::argument(format!("{what} is no UTF-8 text")))
}

/// Checks the only device's number.
fn check_device(device: i32) -> Done {
    if device == 0 { Ok(()) } else { Err(Code::InvalidDevice.into()) }
}

/// Checks, when the program asks for it, that a range of device memory exists.
fn check_range(d: &Driver, at: u64, bytes: u64, what: &str) -> Done {
    d.memory
        .check_exists(at, bytes)
        .map_err(|e| Refusal::Said(Code::InvalidValue, super::work::kind_of(&e), format!("{what}: {e}")))
}

/// A refusal because of the length of a range.
fn too_long(what: &str, bytes: usize) -> Refusal {
    Refusal::said(
        Code::InvalidValue,
        Kind::Argument,
        format!("{what} of {bytes} bytes is longer than memory"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Functions defined in this folder, without those that only refuse.
    fn defined() -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for entry in Path::new(env!("CARGO_MANIFEST_DIR")).join("src/driver/abi").read_dir().unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let mut rest = text.as_str();
            while let Some(at) = rest.find("extern \"C\" fn cu") {
                rest = &rest[at + "extern \"C\" fn ".len()..];
                names.insert(
                    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_string(),
                );
            }
        }
        names
    }

    #[test]
    fn the_table_in_the_manual_names_every_function() {
        let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vgpu.md");
        let manual = std::fs::read_to_string(manual).unwrap();
        let section = manual.split("\n## Driver functions\n").nth(1).unwrap();
        let table = section.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|'));
        let cells: Vec<&str> = table.collect();
        let named: BTreeSet<String> = cells
            .iter()
            .flat_map(|row| row.split('`').skip(1).step_by(2))
            .filter(|n| n.starts_with("cu") && !n.starts_with("cublas"))
            .map(String::from)
            .collect();
        let defined = defined();
        assert!(defined.len() > 130, "{}", defined.len());
        assert_eq!(named, defined);
        for name in super::unsupported::NAMES {
            assert!(!defined.contains(*name), "{name} is both provided and refused");
        }
    }
}
