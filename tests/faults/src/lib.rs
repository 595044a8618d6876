//! System calls that fail on order, for Linux: a library to preload (`LD_PRELOAD`) into a program.
//!
//! Every call that changes something below `MONOPATH_FAULT_UNDER` (an absolute path) is counted from 1:
//! making or emptying a file, `write`, `ftruncate`, `fsync`, `fdatasync`, `rename`, `unlink`, `rmdir` and
//! `mkdir`. `MONOPATH_FAULT=KIND@N` makes the N-th of them go wrong (`enospc`, `eio`, `short` or `kill`); `MONOPATH_FAULT_LOG` names
//! a file in which each of them leaves a line `N CALL PATH`, with `!` in front of the one that was hit.
//!
//! The invariant: without those variables, and outside that folder, every call is the system's own.

#![cfg(target_os = "linux")]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{mode_t, off64_t, size_t, ssize_t};

/// How a call goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// `enospc`: the disk is full from here on. A write takes half of its bytes; every later write, new
    /// file and new folder is refused. Other calls are refused once.
    Full,
    /// `eio`: the device fails once; a write has taken half of its bytes by then.
    Broken,
    /// `short`: a write takes half of its bytes and says so, which is no error.
    Short,
    /// `kill`: the process is killed before the call, or in the middle of a write.
    Kill,
}

impl Fault {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "enospc" => Fault::Full,
            "eio" => Fault::Broken,
            "short" => Fault::Short,
            "kill" => Fault::Kill,
            _ => return None,
        })
    }
}

/// What a counted call does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Create,
    Write,
    Truncate,
    Sync,
    Rename,
    Remove,
    Folder,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Call::Create => "create",
            Call::Write => "write",
            Call::Truncate => "truncate",
            Call::Sync => "sync",
            Call::Rename => "rename",
            Call::Remove => "remove",
            Call::Folder => "mkdir",
        }
    }
}

/// What a call is to do instead of its work.
enum Verdict {
    /// Its work.
    Go,
    /// Half of a write.
    Half,
    /// Half of a write, then this error; no work for other calls.
    Fail(c_int),
    /// Half of a write, then death.
    Die,
}

struct Orders {
    under: Vec<u8>,
    fault: Option<(Fault, u64)>,
    log: Option<Vec<u8>>,
}

static COUNT: AtomicU64 = AtomicU64::new(0);

fn orders() -> Option<&'static Orders> {
    static ORDERS: OnceLock<Option<Orders>> = OnceLock::new();
    let read = || {
        let under = std::env::var_os("MONOPATH_FAULT_UNDER")?.as_bytes().to_vec();
        let terminated = |v: std::ffi::OsString| [v.as_bytes(), &[0]].concat();
        let fault = std::env::var("MONOPATH_FAULT").ok().and_then(|text| {
            let (kind, n) = text.split_once('@')?;
            Some((Fault::named(kind)?, n.parse().ok()?))
        });
        Some(Orders { under, fault, log: std::env::var_os("MONOPATH_FAULT_LOG").map(terminated) })
    };
    ORDERS.get_or_init(read).as_ref()
}

/// The path of an open file, as far as it fits.
fn path_of(fd: c_int, buffer: &mut [u8; 512]) -> &[u8] {
    let link = format!("/proc/self/fd/{fd}\0");
    // SAFETY: a terminated path, and a buffer of the length that is given.
    let n = unsafe {
        libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, link.as_ptr(), buffer.as_mut_ptr(), buffer.len())
    };
    &buffer[..usize::try_from(n).unwrap_or(0)]
}

fn judge_file(call: Call, fd: c_int) -> Verdict {
    if fd <= 2 || orders().is_none() {
        return Verdict::Go;
    }
    judge(call, path_of(fd, &mut [0; 512]))
}

/// # Safety
/// `path` is a terminated string.
unsafe fn judge_path(call: Call, path: *const c_char) -> Verdict {
    // SAFETY: the caller's promise.
    judge(call, unsafe { CStr::from_ptr(path) }.to_bytes())
}

fn judge(call: Call, path: &[u8]) -> Verdict {
    let Some(orders) = orders().filter(|orders| path.starts_with(&orders.under)) else {
        return Verdict::Go;
    };
    let n = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let hit = orders.fault.is_some_and(|(_, at)| at == n);
    if let Some(log) = &orders.log {
        note(log, hit, n, call, path);
    }
    let grows = matches!(call, Call::Create | Call::Write | Call::Folder);
    match orders.fault {
        Some((Fault::Full, at)) if n > at && grows => Verdict::Fail(libc::ENOSPC),
        Some((Fault::Full, _)) if hit => Verdict::Fail(libc::ENOSPC),
        Some((Fault::Broken, _)) if hit => Verdict::Fail(libc::EIO),
        Some((Fault::Short, _)) if hit => Verdict::Half,
        Some((Fault::Kill, _)) if hit => Verdict::Die,
        _ => Verdict::Go,
    }
}

fn note(log: &[u8], hit: bool, n: u64, call: Call, path: &[u8]) {
    let mut line = format!("{}{n} {} ", if hit { "!" } else { "" }, call.name()).into_bytes();
    line.extend(path);
    line.push(b'\n');
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: a terminated path; `line` is as long as is said. A log that cannot be written leaves a test
    // without the line it looks for.
    unsafe {
        let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, log.as_ptr(), flags, 0o644);
        libc::syscall(libc::SYS_write, fd, line.as_ptr(), line.len());
        libc::syscall(libc::SYS_close, fd);
    }
}

fn die() -> ! {
    // SAFETY: no memory is touched.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort()
}

fn fail(code: c_int) -> c_int {
    // SAFETY: the calling thread's own error number.
    unsafe { *libc::__errno_location() = code };
    -1
}

/// What becomes of a call that is all or nothing.
fn whole(verdict: Verdict, work: impl FnOnce() -> c_long) -> c_int {
    match verdict {
        Verdict::Go | Verdict::Half => work() as c_int,
        Verdict::Fail(code) => fail(code),
        Verdict::Die => die(),
    }
}

/// # Safety
/// As the system's `write`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's promise for `len` bytes, of which no more are used.
    let put = |len: size_t| unsafe { libc::syscall(libc::SYS_write, fd, bytes, len) as ssize_t };
    match judge_file(Call::Write, fd) {
        Verdict::Go => put(len),
        // A write of nothing would be taken for a file that takes no more.
        Verdict::Half => put((len / 2).max(1)),
        Verdict::Fail(code) => {
            put(len / 2);
            fail(code) as ssize_t
        }
        Verdict::Die => {
            put(len / 2);
            die()
        }
    }
}

/// # Safety
/// As the system's `open`; without a flag that makes a file, `mode` is not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let changes = flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
    // SAFETY: the caller's promise.
    let verdict = if changes { unsafe { judge_path(Call::Create, path) } } else { Verdict::Go };
    // SAFETY: the caller's promise.
    whole(verdict, || unsafe {
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, c_uint::from(mode))
    })
}

/// # Safety
/// As the system's `open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open64(path, flags, mode) }
}

/// # Safety
/// None: a number that names no file is refused by the system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: no memory is touched.
    whole(judge_file(Call::Sync, fd), || unsafe { libc::syscall(libc::SYS_fsync, fd) })
}

/// # Safety
/// None: a number that names no file is refused by the system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: no memory is touched.
    whole(judge_file(Call::Sync, fd), || unsafe { libc::syscall(libc::SYS_fdatasync, fd) })
}

/// # Safety
/// None: a number that names no file is refused by the system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, len: off64_t) -> c_int {
    // SAFETY: no memory is touched.
    whole(judge_file(Call::Truncate, fd), || unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) })
}

/// # Safety
/// As the system's `rename`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let here = libc::AT_FDCWD;
    // SAFETY: the caller's promise.
    whole(unsafe { judge_path(Call::Rename, to) }, || unsafe {
        libc::syscall(libc::SYS_renameat2, here, from, here, to, 0)
    })
}

/// # Safety
/// As the system's `unlink`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    whole(unsafe { judge_path(Call::Remove, path) }, || unsafe {
        libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0)
    })
}

/// # Safety
/// As the system's `rmdir`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    whole(unsafe { judge_path(Call::Remove, path) }, || unsafe {
        libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, libc::AT_REMOVEDIR)
    })
}

/// # Safety
/// As the system's `mkdir`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    whole(unsafe { judge_path(Call::Folder, path) }, || unsafe {
        libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, c_uint::from(mode))
    })
}
