//! Devices: there is one.

use std::ffi::c_char;

use super::super::device::Refusal;
use super::{call, check_device, put};
use crate::props::{DeviceProps, WARP};

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: *mut i32) -> u32 {
    call("cuDeviceGetCount", |_| put(count, 1))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: *mut i32, ordinal: i32) -> u32 {
    call("cuDeviceGet", |_| {
        check_device(ordinal)?;
        put(device, 0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(name: *mut c_char, len: i32, device: i32) -> u32 {
    call("cuDeviceGetName", |d| {
        check_device(device)?;
        if name.is_null() || len <= 0 {
            return Err(Refusal::argument("no room for the name"));
        }
        let text = d.config.props.name.as_bytes();
        let n = text.len().min(len as usize - 1);
        // SAFETY: the program gives `len` bytes of room; n < len.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), name.cast(), n);
            *name.add(n) = 0;
        }
        Ok(())
    })
}

/// Says in ASCII what the device is.
const UUID: [u8; 16] = *b"monopath-vgpu-00";

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: i32) -> u32 {
    cuDeviceGetUuid_v2(uuid, device)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: i32) -> u32 {
    call("cuDeviceGetUuid_v2", |_| {
        check_device(device)?;
        put(uuid, UUID)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: i32) -> u32 {
    call("cuDeviceTotalMem_v2", |d| {
        check_device(device)?;
        put(bytes, d.config.props.memory_bytes as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceComputeCapability(major: *mut i32, minor: *mut i32, device: i32) -> u32 {
    call("cuDeviceComputeCapability", |d| {
        check_device(device)?;
        let (a, b) = d.config.props.capability;
        put(major, a as i32)?;
        put(minor, b as i32)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceCanAccessPeer(can: *mut i32, device: i32, peer: i32) -> u32 {
    call("cuDeviceCanAccessPeer", |_| {
        check_device(device)?;
        check_device(peer)?;
        put(can, 0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(value: *mut i32, attribute: u32, device: i32) -> u32 {
    call("cuDeviceGetAttribute", |d| {
        check_device(device)?;
        match attribute_of(&d.config.props, attribute) {
            Some(v) => put(value, v.min(i32::MAX as u32) as i32),
            None => Err(Refusal::argument(format!("{attribute} is no known device attribute"))),
        }
    })
}

/// Device attributes by number. Those of textures, surfaces and clocks are 0: there are none.
fn attribute_of(p: &DeviceProps, attribute: u32) -> Option<u32> {
    const KNOWN: u32 = 162;
    Some(match attribute {
        1 => p.max_threads_per_block,
        2..=4 => p.max_block[attribute as usize - 2],
        5..=7 => p.max_grid[attribute as usize - 5],
        8 => p.shared_per_block,
        9 => p.constant_bytes,
        10 => WARP as u32,
        11 => i32::MAX as u32,
        12 | 82 => p.registers,
        14 | 30 => 512,
        // Copies overlap with kernels, kernels with kernels.
        15 | 31 => 1,
        16 => p.multiprocessors,
        // Bus width in bits and size of the second-level cache: not modelled, but programs divide by them.
        37 => 256,
        38 => 4 << 20,
        39 => p.max_threads_per_multiprocessor,
        40 => 2,
        // One address space with the host's numbers; stream priorities; both first-level caches.
        41 | 78..=80 => 1,
        51 => 32,
        75 => p.capability.0,
        76 => p.capability.1,
        81 => p.shared_per_multiprocessor,
        87 => 32,
        // Host functions of a stream, cooperative launches, registered host memory.
        90 | 95 | 99 => 1,
        97 => p.shared_per_block_optin,
        106 => p.max_blocks_per_multiprocessor,
        111 if p.capability.0 >= 8 => 1024,
        // Memory pools.
        115 => 1,
        a if (1..=KNOWN).contains(&a) => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_follow_the_properties() {
        let p = DeviceProps::new((8, 6), 1 << 30);
        assert_eq!(attribute_of(&p, 75), Some(8));
        assert_eq!(attribute_of(&p, 76), Some(6));
        assert_eq!(attribute_of(&p, 97), Some(99 << 10));
        assert_eq!(attribute_of(&p, 115), Some(1));
        assert_eq!(attribute_of(&p, 83), Some(0), "no managed memory");
        assert_eq!(attribute_of(&p, 0), None);
        assert_eq!(attribute_of(&p, 163), None);
    }
}
