//! Initialisation, version, errors, profiler, entry points by name.

use std::ffi::{c_char, c_void};

use super::super::code::Code;
use super::super::device::Refusal;
use super::super::entry;
use super::super::report::{self, Kind, Report};
use super::{call, put, text};

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: u32) -> u32 {
    if flags != 0 {
        return Code::InvalidValue as u32;
    }
    entry::start("cuInit") as u32
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: *mut i32) -> u32 {
    let code = entry::start("cuDriverGetVersion");
    if code != Code::Success {
        return code as u32;
    }
    call("cuDriverGetVersion", |d| {
        let (major, minor) = d.config.driver;
        put(version, (major * 1000 + minor * 10) as i32)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(error: u32, name: *mut *const c_char) -> u32 {
    error_text(error, name, |code| code.name().as_ptr())
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(error: u32, name: *mut *const c_char) -> u32 {
    error_text(error, name, |code| code.text().as_ptr())
}

fn error_text(error: u32, to: *mut *const c_char, of: impl Fn(Code) -> *const c_char) -> u32 {
    let code = Code::from_number(error);
    match (put(to, code.map_or(std::ptr::null(), of)), code) {
        (Ok(()), Some(_)) => Code::Success as u32,
        _ => Code::InvalidValue as u32,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStart() -> u32 {
    call("cuProfilerStart", |_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStop() -> u32 {
    call("cuProfilerStop", |_| Ok(()))
}

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> i32;
    fn dlopen(file: *const c_char, mode: i32) -> *mut c_void;
}

#[repr(C)]
struct DlInfo {
    file: *const c_char,
    base: *mut c_void,
    symbol: *const c_char,
    address: *mut c_void,
}

/// `RTLD_NOW | RTLD_NOLOAD`.
const ALREADY_LOADED: i32 = 2 | 4;

/// Looks a function up in this very library.
fn own_symbol(name: &str) -> *mut c_void {
    let Ok(name) = std::ffi::CString::new(name) else { return std::ptr::null_mut() };
    let mut info = DlInfo {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        symbol: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
    let here = cuInit as extern "C" fn(u32) -> u32 as *const c_void;
    // SAFETY: an address of this library and room for the answer; the file name it gives is zero-terminated.
    unsafe {
        if dladdr(here, &mut info) == 0 {
            return std::ptr::null_mut();
        }
        let library = dlopen(info.file, ALREADY_LOADED);
        if library.is_null() { std::ptr::null_mut() } else { dlsym(library, name.as_ptr()) }
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress(symbol: *const c_char, to: *mut *mut c_void, version: i32, flags: u64) -> u32 {
    cuGetProcAddress_v2(symbol, to, version, flags, std::ptr::null_mut())
}

#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    to: *mut *mut c_void,
    _version: i32,
    _flags: u64,
    status: *mut u32,
) -> u32 {
    const FOUND: u32 = 0;
    const NOT_FOUND: u32 = 1;
    let found = (|| {
        let name = text(symbol, "the name of the function")?;
        // The newest form of a function is the one with the highest suffix.
        let provided = |n: &String| !super::unsupported::NAMES.contains(&n.as_str());
        let names = ["_v4", "_v3", "_v2", ""].iter().map(|v| format!("{name}{v}"));
        let address = names.filter(provided).map(|n| own_symbol(&n)).find(|p| !p.is_null());
        put(to, address.unwrap_or(std::ptr::null_mut()))?;
        if !status.is_null() {
            put(status, if address.is_some() { FOUND } else { NOT_FOUND })?;
        }
        match address {
            Some(_) => Ok(()),
            None => {
                Err(Refusal::said(Code::NotFound, Kind::Unsupported, format!("`{name}` is not provided")))
            }
        }
    })();
    match found {
        Ok(()) => Code::Success as u32,
        Err(Refusal::Quiet(code)) => code as u32,
        Err(Refusal::Said(code, kind, text)) => {
            report::emit(&Report::error(kind, "cuGetProcAddress", text));
            code as u32
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuGetExportTable(_table: *mut *const c_void, _id: *const c_void) -> u32 {
    let text = "the CUDA runtime asks for private tables of the driver, which are not provided: programs that use \
                the runtime (cudart, linked statically or not) do not run here, only those of the driver interface";
    report::emit(&Report::error(Kind::Unsupported, "cuGetExportTable", text));
    Code::NotSupported as u32
}
