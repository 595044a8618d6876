//! Device memory and pinned host memory.

use std::ffi::c_void;

use super::super::code::Code;
use super::super::device::{Driver, Refusal};
use super::super::host::PinnedOrigin;
use super::super::queue::{Target, TaskId};
use super::super::report::{self, Kind, Report};
use super::super::work::{HostBytes, Op};
use super::{in_context, put};

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32 {
    in_context("cuMemGetInfo_v2", |d, _| {
        let capacity = d.memory.capacity();
        put(free, (capacity - d.memory.used()) as usize)?;
        put(total, capacity as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(at: *mut u64, bytes: usize) -> u32 {
    in_context("cuMemAlloc_v2", |d, c| {
        d.forbid_in_capture("device memory is allocated")?;
        let address = d.allocate(c, bytes as u64, None)?;
        put(at, address)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(at: u64) -> u32 {
    in_context("cuMemFree_v2", |d, c| {
        if at == 0 {
            return Ok(());
        }
        d.forbid_in_capture("device memory is freed")?;
        d.check_free(at)?;
        // Memory of `cuMemAlloc` is freed after everything that may use it; that of a pool is not waited for.
        if d.owners[&at].pool.is_none() {
            d.tally.synchronisations.implicit += 1;
            d.wait(Target::Group(c), c)?;
        }
        d.free(at, "cuMemFree_v2")
    })
}

/// Stream-ordered allocation from a pool.
pub(super) fn alloc_async(
    d: &mut Driver,
    c: u64,
    at: *mut u64,
    bytes: usize,
    pool: u64,
    stream: u64,
) -> super::Done {
    let id = d.stream(c, stream)?;
    d.forbid_on_captured(
        id,
        "memory is allocated in stream order (memory nodes of graphs are not provided)",
    )?;
    let address = d.allocate(c, bytes as u64, Some(pool))?;
    put(at, address)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(at: *mut u64, bytes: usize, stream: u64) -> u32 {
    in_context("cuMemAllocAsync", |d, c| {
        let pool = d.current_pool;
        alloc_async(d, c, at, bytes, pool, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(at: u64, stream: u64) -> u32 {
    in_context("cuMemFreeAsync", |d, c| {
        let id = d.stream(c, stream)?;
        if at == 0 {
            return Ok(());
        }
        d.forbid_on_captured(
            id,
            "memory is freed in stream order (memory nodes of graphs are not provided)",
        )?;
        d.check_free(at)?;
        d.owners.get_mut(&at).expect("checked").freeing = true;
        d.submit("cuMemFreeAsync", id, Op::Free { at })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocManaged(_at: *mut u64, _bytes: usize, _flags: u32) -> u32 {
    in_context("cuMemAllocManaged", |_, _| {
        Err(Refusal::unsupported("managed memory (device attribute MANAGED_MEMORY is 0)"))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAdvise_v2(_at: u64, _bytes: usize, _advice: u32, _kind: u32, _id: i32) -> u32 {
    in_context("cuMemAdvise_v2", |_, _| Err(Refusal::unsupported("advice on managed memory")))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPrefetchAsync_v2(
    _at: u64,
    _bytes: usize,
    _location: u64,
    _flags: u32,
    _stream: u64,
) -> u32 {
    in_context("cuMemPrefetchAsync_v2", |_, _| Err(Refusal::unsupported("prefetch of managed memory")))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, at: u64) -> u32 {
    in_context("cuMemGetAddressRange_v2", |d, _| {
        let a = d.memory.find(at).ok_or(Code::NotFound)?;
        if !base.is_null() {
            put(base, a.address)?;
        }
        if bytes.is_null() { Ok(()) } else { put(bytes, a.bytes as usize) }
    })
}

fn host_alloc(d: &mut Driver, c: u64, at: *mut *mut c_void, bytes: usize) -> super::Done {
    d.forbid_in_capture("pinned host memory is allocated")?;
    if bytes == 0 {
        return Err(Refusal::argument("a host allocation of 0 bytes"));
    }
    let Some(address) = d.pinned.allocate(bytes, c) else {
        return Err(Refusal::said(
            Code::OutOfMemory,
            Kind::OutOfMemory,
            format!("the host has no {bytes} bytes"),
        ));
    };
    d.tally.host_allocations.add(bytes as u64);
    put(at, address as *mut c_void)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(at: *mut *mut c_void, bytes: usize, flags: u32) -> u32 {
    in_context("cuMemHostAlloc", |d, c| {
        if flags > 7 {
            return Err(Refusal::argument(format!("{flags:#x} are no flags of a host allocation")));
        }
        host_alloc(d, c, at, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(at: *mut *mut c_void, bytes: usize) -> u32 {
    in_context("cuMemAllocHost_v2", |d, c| host_alloc(d, c, at, bytes))
}

/// Queued copies that use a range of host memory.
fn users(d: &Driver, address: usize, bytes: usize) -> Vec<TaskId> {
    let overlaps = |at: usize, n: usize| at < address + bytes && address < at.saturating_add(n);
    d.queue
        .waiting()
        .filter(|(_, task)| match &task.op {
            Op::In { from: HostBytes::Later { address, bytes }, .. } => overlaps(*address, *bytes),
            Op::Out { to, bytes, .. } => overlaps(*to, *bytes),
            _ => false,
        })
        .map(|(id, _)| id)
        .collect()
}

/// Gives pinned memory back; copies that still want it are a defect of the program, and are run first.
fn unpin(d: &mut Driver, c: u64, function: &'static str, address: usize, registered: bool) -> super::Done {
    d.forbid_in_capture("pinned host memory is given back")?;
    let bytes = match d.pinned.at(address) {
        Some(p) if (p.origin == PinnedOrigin::Registered) == registered => p.bytes,
        _ => {
            let text = format!("{address:#x} is not the start of such pinned memory");
            let code = if registered { Code::HostMemoryNotRegistered } else { Code::InvalidValue };
            return Err(Refusal::said(code, Kind::InvalidFree, text));
        }
    };
    let open = users(d, address, bytes);
    let mut result = Ok(());
    if !open.is_empty() {
        let text = format!(
            "{} queued copies still use the {bytes} bytes of pinned memory at {address:#x}",
            open.len()
        );
        report::emit(&Report::error(Kind::HostMemory, function, text));
        result = d.wait(Target::Tasks(open), c);
    }
    d.pinned.release(address);
    result
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(at: *mut c_void) -> u32 {
    in_context("cuMemFreeHost", |d, c| unpin(d, c, "cuMemFreeHost", at as usize, false))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostRegister_v2(at: *mut c_void, bytes: usize, _flags: u32) -> u32 {
    in_context("cuMemHostRegister_v2", |d, c| {
        if at.is_null() || bytes == 0 || (at as usize).checked_add(bytes).is_none() {
            return Err(Refusal::argument("no host memory to register"));
        }
        if d.pinned.register(at as usize, bytes, c) {
            Ok(())
        } else {
            Err(Code::HostMemoryAlreadyRegistered.into())
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostUnregister(at: *mut c_void) -> u32 {
    in_context("cuMemHostUnregister", |d, c| unpin(d, c, "cuMemHostUnregister", at as usize, true))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostGetDevicePointer_v2(_to: *mut u64, _at: *mut c_void, _flags: u32) -> u32 {
    in_context("cuMemHostGetDevicePointer_v2", |_, _| {
        Err(Refusal::unsupported("host memory used by kernels without a copy"))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuPointerGetAttribute(to: *mut c_void, attribute: u32, at: u64) -> u32 {
    const CONTEXT: u32 = 1;
    const MEMORY_TYPE: u32 = 2;
    const DEVICE_POINTER: u32 = 3;
    const DEVICE_ORDINAL: u32 = 9;
    in_context("cuPointerGetAttribute", |d, _| {
        let found = d.memory.find(at);
        let owner = found.and_then(|a| d.owners.get(&a.address));
        let pinned = d.pinned.covers(at as usize, 1);
        if found.is_none() && !pinned {
            return Err(Code::InvalidValue.into());
        }
        match attribute {
            CONTEXT => put(to.cast(), owner.map_or(0, |o| o.context)),
            MEMORY_TYPE => put(to.cast(), if pinned { 1u32 } else { 2 }),
            DEVICE_POINTER if found.is_some() => put(to.cast(), at),
            DEVICE_ORDINAL => put(to.cast(), 0i32),
            other => Err(Refusal::unsupported(format!("pointer attribute {other}"))),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuImportExternalMemory(_to: *mut u64, _description: *const c_void) -> u32 {
    in_context("cuImportExternalMemory", |_, _| Err(Refusal::unsupported("memory of other interfaces")))
}

#[unsafe(no_mangle)]
extern "C" fn cuExternalMemoryGetMappedBuffer(
    _at: *mut u64,
    _memory: u64,
    _description: *const c_void,
) -> u32 {
    in_context("cuExternalMemoryGetMappedBuffer", |_, _| {
        Err(Refusal::unsupported("memory of other interfaces"))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDestroyExternalMemory(_memory: u64) -> u32 {
    in_context("cuDestroyExternalMemory", |_, _| Err(Refusal::unsupported("memory of other interfaces")))
}
