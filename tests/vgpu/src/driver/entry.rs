//! The way in and out: starting the driver, running a call of the program, the end of the program.
//!
//! Invariant: no panic crosses a C function.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::code::Code;
use super::config::Config;
use super::device::{Done, Driver, Refusal};
use super::report::{self, Kind, Report};
use super::work;

static DRIVER: Mutex<Option<Box<Driver>>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Box<Driver>>> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the driver if it has not been started.
///
/// # Errors
/// A variable of the environment that does not parse, or a file that cannot be made.
pub fn start(function: &'static str) -> Code {
    let mut driver = lock();
    if driver.is_some() {
        return Code::Success;
    }
    let refuse = |text: String| {
        report::emit(&Report::error(Kind::Argument, function, text));
        Code::InvalidValue
    };
    let config = match Config::from_environment() {
        Ok(config) => config,
        Err(e) => return refuse(e.to_string()),
    };
    let open = |path: &Option<std::path::PathBuf>, append: bool| match path {
        None => Ok(None),
        Some(p) => File::options()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .open(p)
            .map(Some)
            .map_err(|e| format!("cannot write {}: {e}", p.display())),
    };
    let mut config = config;
    // Programs that start others would otherwise overwrite each other's files.
    for path in [&mut config.counters, &mut config.launches].into_iter().flatten() {
        if let Some(text) = path.to_str().filter(|t| t.contains("%p")) {
            *path = text.replace("%p", &std::process::id().to_string()).into();
        }
    }
    match open(&config.reports, true) {
        Ok(file) => report::open(file),
        Err(text) => return refuse(text),
    }
    let launches = match open(&config.launches, false) {
        Ok(file) => file,
        Err(text) => return refuse(text),
    };
    if let Err(text) = open(&config.counters, false) {
        return refuse(text);
    }
    if !config.quiet {
        let (major, minor) = config.props.capability;
        eprintln!(
            "monopath virtual GPU: no GPU is used; compute capability {major}.{minor}, {} MiB, seed {}, checks {}",
            config.props.memory_bytes >> 20,
            config.seed,
            if config.options.checks { "on" } else { "off" },
        );
    }
    *driver = Some(Box::new(Driver::new(config, launches)));
    unsafe extern "C" {
        fn atexit(f: extern "C" fn()) -> i32;
    }
    // SAFETY: the function lives as long as this library; the C library runs it before it is unloaded.
    if unsafe { atexit(at_exit) } != 0 {
        return refuse("the C library takes no function to run at exit".into());
    }
    Code::Success
}

extern "C" fn at_exit() {
    // Another thread may be inside a call for ever; then there is nothing consistent to report.
    let Ok(mut guard) = DRIVER.try_lock() else { return };
    if let Some(driver) = guard.as_mut() {
        let _ = catch_unwind(AssertUnwindSafe(|| driver.finish()));
    }
}

/// Runs a call of the program: takes the driver, keeps panics in, reports, and gives the result code.
pub fn call(function: &'static str, f: impl FnOnce(&mut Driver) -> Done) -> Code {
    if work::in_host_function() {
        let text = "a host function called the driver; CUDA forbids it";
        report::emit(&Report::error(Kind::Argument, function, text));
        return Code::NotPermitted;
    }
    let result = catch_unwind(AssertUnwindSafe(|| match lock().as_deref_mut() {
        None => Err(Refusal::Quiet(Code::NotInitialized)),
        Some(driver) => f(driver),
    }));
    match result {
        Ok(Ok(())) => Code::Success,
        Ok(Err(Refusal::Quiet(code))) => code,
        Ok(Err(Refusal::Said(code, kind, text))) => {
            report::emit(&Report::error(kind, function, text));
            code
        }
        Err(_) => {
            report::emit(&Report::error(
                Kind::Internal,
                function,
                "the virtual GPU panicked; this is its own defect",
            ));
            Code::Unknown
        }
    }
}
