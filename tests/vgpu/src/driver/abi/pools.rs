//! Memory pools.

use std::ffi::c_void;

use super::super::code::Code;
use super::super::device::{Done, Driver, HandleKind, Refusal};
use super::super::pool::Pool;
use super::memory::alloc_async;
use super::{call, check_device, in_context, put};

/// `CUmemPoolProps`, as far as it is the same in all versions; `max_bytes` was reserved (zero) before CUDA 12.2.
#[repr(C)]
struct PoolProps {
    alloc_type: u32,
    handle_types: u32,
    location_type: u32,
    location_id: i32,
    security: *const c_void,
    max_bytes: usize,
    reserved: [u8; 56],
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetDefaultMemPool(to: *mut u64, device: i32) -> u32 {
    call("cuDeviceGetDefaultMemPool", |d| {
        check_device(device)?;
        put(to, d.default_pool)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetMemPool(to: *mut u64, device: i32) -> u32 {
    call("cuDeviceGetMemPool", |d| {
        check_device(device)?;
        put(to, d.current_pool)
    })
}

fn pool(d: &mut Driver, handle: u64) -> Done<&mut Pool> {
    d.pools.get_mut(&handle).ok_or_else(|| Refusal::handle("memory pool", handle))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceSetMemPool(device: i32, handle: u64) -> u32 {
    call("cuDeviceSetMemPool", |d| {
        check_device(device)?;
        pool(d, handle)?;
        d.current_pool = handle;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolCreate(to: *mut u64, props: *const PoolProps) -> u32 {
    const PINNED: u32 = 1;
    const DEVICE: u32 = 1;
    in_context("cuMemPoolCreate", |d, _| {
        if props.is_null() {
            return Err(Refusal::argument("null properties of a memory pool"));
        }
        // SAFETY: not null, and the program gives the properties.
        let props = unsafe { props.read_unaligned() };
        if props.alloc_type != PINNED || props.location_type != DEVICE || props.location_id != 0 {
            return Err(Refusal::argument("a pool must hold pinned memory of device 0"));
        }
        if props.handle_types != 0 {
            return Err(Refusal::unsupported("memory pools shared between processes"));
        }
        let id = d.handle(HandleKind::Pool);
        d.pools.insert(id, Pool::new(props.max_bytes as u64));
        put(to, id)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolDestroy(handle: u64) -> u32 {
    in_context("cuMemPoolDestroy", |d, _| {
        pool(d, handle)?;
        if handle == d.default_pool {
            return Err(Refusal::argument("the device's own pool cannot be destroyed"));
        }
        if d.current_pool == handle {
            d.current_pool = d.default_pool;
        }
        // Its allocations live on until they are freed.
        d.pools.remove(&handle);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(handle: u64, keep: usize) -> u32 {
    in_context("cuMemPoolTrimTo", |d, _| {
        pool(d, handle)?.trim(keep as u64);
        Ok(())
    })
}

/// Attributes 1 to 3 are reuse policies.
fn reuse(attribute: u32) -> Option<usize> {
    (1..=3).contains(&attribute).then(|| attribute as usize - 1)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolGetAttribute(handle: u64, attribute: u32, to: *mut c_void) -> u32 {
    in_context("cuMemPoolGetAttribute", |d, _| {
        let p = pool(d, handle)?;
        if let Some(i) = reuse(attribute) {
            return put(to.cast(), p.reuse[i]);
        }
        put(
            to.cast(),
            match attribute {
                4 => p.release_threshold,
                5 => p.reserved,
                6 => p.reserved_high,
                7 => p.used,
                8 => p.used_high,
                other => {
                    return Err(Refusal::argument(format!("{other} is no known attribute of a memory pool")));
                }
            },
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(handle: u64, attribute: u32, value: *const c_void) -> u32 {
    in_context("cuMemPoolSetAttribute", |d, _| {
        let p = pool(d, handle)?;
        if value.is_null() {
            return Err(Refusal::argument("a null pointer to the value"));
        }
        if let Some(i) = reuse(attribute) {
            // SAFETY: not null; these attributes are of type int.
            p.reuse[i] = unsafe { value.cast::<i32>().read_unaligned() };
            return Ok(());
        }
        // SAFETY: not null; the other attributes are 64 bits wide.
        let value = unsafe { value.cast::<u64>().read_unaligned() };
        match attribute {
            4 => p.release_threshold = value,
            // The high marks can only be reset.
            6 if value == 0 => p.reserved_high = p.reserved,
            8 if value == 0 => p.used_high = p.used,
            other => return Err(Refusal::argument(format!("attribute {other} cannot be set to {value}"))),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAccess(handle: u64, _map: *const c_void, _count: usize) -> u32 {
    in_context("cuMemPoolSetAccess", |d, _| pool(d, handle).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocFromPoolAsync(at: *mut u64, bytes: usize, handle: u64, stream: u64) -> u32 {
    in_context("cuMemAllocFromPoolAsync", |d, c| {
        if !d.pools.contains_key(&handle) {
            return Err(Code::InvalidHandle.into());
        }
        alloc_async(d, c, at, bytes, handle, stream)
    })
}
