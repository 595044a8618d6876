//! Contexts: the primary one, those that programs make, and which is current in a thread.

use std::ffi::c_void;

use super::super::code::Code;
use super::super::device::{Done, Driver, Refusal};
use super::super::queue::Target;
use super::{CURRENT, call, check_device, current, in_context, put, set_current};

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: *mut u64, device: i32) -> u32 {
    call("cuDevicePrimaryCtxRetain", |d| {
        check_device(device)?;
        let id = match d.primary {
            Some(id) => id,
            None => {
                let flags = d.primary_flags;
                let id = d.make_context(true, flags);
                d.primary = Some(id);
                id
            }
        };
        d.contexts.get_mut(&id).expect("the primary context is in the table").users += 1;
        put(context, id)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: i32) -> u32 {
    call("cuDevicePrimaryCtxRelease_v2", |d| {
        check_device(device)?;
        let id = d.primary.ok_or(Code::InvalidContext)?;
        let context = d.contexts.get_mut(&id).expect("the primary context is in the table");
        context.users -= 1;
        if context.users == 0 { d.end_context(id) } else { Ok(()) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxReset_v2(device: i32) -> u32 {
    call("cuDevicePrimaryCtxReset_v2", |d| {
        check_device(device)?;
        match d.primary {
            Some(id) => d.end_context(id),
            None => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxGetState(device: i32, flags: *mut u32, active: *mut i32) -> u32 {
    call("cuDevicePrimaryCtxGetState", |d| {
        check_device(device)?;
        put(flags, d.primary_flags)?;
        put(active, i32::from(d.primary.is_some()))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) -> u32 {
    call("cuDevicePrimaryCtxSetFlags_v2", |d| {
        check_device(device)?;
        d.primary_flags = flags;
        Ok(())
    })
}

fn create(d: &mut Driver, context: *mut u64, flags: u32, device: i32) -> Done {
    check_device(device)?;
    let id = d.make_context(false, flags);
    CURRENT.with_borrow_mut(|stack| stack.push(id));
    put(context, id)
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v2(context: *mut u64, flags: u32, device: i32) -> u32 {
    call("cuCtxCreate_v2", |d| create(d, context, flags, device))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v3(
    context: *mut u64,
    _affinity: *mut c_void,
    count: i32,
    flags: u32,
    device: i32,
) -> u32 {
    call("cuCtxCreate_v3", |d| {
        if count != 0 {
            return Err(Refusal::unsupported("execution affinity"));
        }
        create(d, context, flags, device)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v4(context: *mut u64, parameters: *mut c_void, flags: u32, device: i32) -> u32 {
    call("cuCtxCreate_v4", |d| {
        if !parameters.is_null() {
            return Err(Refusal::unsupported(
                "context parameters (execution affinity, graphics interoperation)",
            ));
        }
        create(d, context, flags, device)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxDestroy_v2(context: u64) -> u32 {
    call("cuCtxDestroy_v2", |d| {
        let c = d.contexts.get(&context).ok_or(Code::InvalidContext)?;
        if c.primary {
            return Err(Refusal::argument("the primary context is released, not destroyed"));
        }
        CURRENT.with_borrow_mut(|stack| {
            if stack.last() == Some(&context) {
                stack.pop();
            }
        });
        d.end_context(context)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: *mut u64) -> u32 {
    call("cuCtxGetCurrent", |_| put(context, current()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: u64) -> u32 {
    call("cuCtxSetCurrent", |d| {
        if context != 0 && !d.contexts.contains_key(&context) {
            return Err(Code::InvalidContext.into());
        }
        set_current(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPushCurrent_v2(context: u64) -> u32 {
    call("cuCtxPushCurrent_v2", |d| {
        if !d.contexts.contains_key(&context) {
            return Err(Code::InvalidContext.into());
        }
        CURRENT.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxPopCurrent_v2(context: *mut u64) -> u32 {
    call("cuCtxPopCurrent_v2", |_| {
        let popped = CURRENT.with_borrow_mut(Vec::pop).ok_or(Code::InvalidContext)?;
        if context.is_null() { Ok(()) } else { put(context, popped) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(device: *mut i32) -> u32 {
    in_context("cuCtxGetDevice", |_, _| put(device, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetId(context: u64, id: *mut u64) -> u32 {
    call("cuCtxGetId", |d| {
        let context = if context == 0 { current() } else { context };
        d.context(context)?;
        put(id, context)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetApiVersion(_context: u64, version: *mut u32) -> u32 {
    call("cuCtxGetApiVersion", |_| put(version, 3020))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetFlags(flags: *mut u32) -> u32 {
    in_context("cuCtxGetFlags", |d, c| put(flags, d.context(c)?.flags))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(flags: u32) -> u32 {
    in_context("cuCtxSetFlags", |d, c| {
        d.context(c)?.flags = flags;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> u32 {
    in_context("cuCtxSynchronize", |d, c| {
        d.forbid_in_capture("the context is synchronised")?;
        d.tally.synchronisations.context += 1;
        d.wait(Target::Group(c), c)?;
        d.context(c).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) -> u32 {
    in_context("cuCtxGetStreamPriorityRange", |_, _| {
        if !least.is_null() {
            put(least, super::stream::LEAST_PRIORITY)?;
        }
        if greatest.is_null() { Ok(()) } else { put(greatest, super::stream::GREATEST_PRIORITY) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCacheConfig(config: *mut u32) -> u32 {
    in_context("cuCtxGetCacheConfig", |d, c| put(config, d.context(c)?.cache_config))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCacheConfig(config: u32) -> u32 {
    in_context("cuCtxSetCacheConfig", |d, c| {
        if config > 3 {
            return Err(Refusal::argument(format!("{config} is no cache configuration")));
        }
        d.context(c)?.cache_config = config;
        Ok(())
    })
}

/// Default of a limit: stack, printf buffer, heap, depth and launches of device-side launches, fetch granularity,
/// persisting cache. Only the printf buffer and the stack exist here; the others are kept for the program.
fn default_limit(limit: u32) -> Option<usize> {
    [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0].get(limit as usize).copied()
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetLimit(value: *mut usize, limit: u32) -> u32 {
    in_context("cuCtxGetLimit", |d, c| {
        let default = default_limit(limit).ok_or(Code::UnsupportedLimit)?;
        put(value, d.context(c)?.limits.get(&limit).copied().unwrap_or(default))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetLimit(limit: u32, value: usize) -> u32 {
    in_context("cuCtxSetLimit", |d, c| {
        default_limit(limit).ok_or(Code::UnsupportedLimit)?;
        d.context(c)?.limits.insert(limit, value);
        Ok(())
    })
}
