//! How many blocks of a kernel fit on a multiprocessor: the smallest of what threads, block slots, shared memory and
//! registers allow. A program that asks the driver gets an upper bound, since registers are known to the assembler alone.

use crate::props::{DeviceProps, WARP};

/// Shared memory that the system takes from every block, in bytes (from compute capability 8.0 on).
const RESERVED_SHARED: u32 = 1024;

/// What a kernel needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Static shared memory in bytes.
    pub static_shared: u32,
    /// Most threads of a block that the kernel allows.
    pub max_threads: u32,
    /// Dynamic shared memory that the program opted in to, in bytes.
    pub optin: u32,
}

fn reserved(props: &DeviceProps) -> u32 {
    if props.capability.0 >= 8 { RESERVED_SHARED } else { 0 }
}

/// Dynamic shared memory that a launch of the kernel may use, in bytes.
pub fn max_dynamic_shared(props: &DeviceProps, needs: &Needs) -> u32 {
    let plain = props.shared_per_block.saturating_sub(needs.static_shared);
    plain.max(needs.optin.min(props.shared_per_block_optin.saturating_sub(needs.static_shared)))
}

/// Blocks of `threads` threads and `dynamic` bytes of shared memory that fit on a multiprocessor.
pub fn blocks(props: &DeviceProps, needs: &Needs, threads: u32, dynamic: u64) -> u32 {
    if threads == 0
        || threads > needs.max_threads.min(props.max_threads_per_block)
        || dynamic > u64::from(max_dynamic_shared(props, needs))
    {
        return 0;
    }
    let by_threads = props.max_threads_per_multiprocessor / threads.next_multiple_of(WARP as u32);
    let shared = needs.static_shared + dynamic as u32 + reserved(props);
    let by_shared =
        if shared == 0 { u32::MAX } else { props.shared_per_multiprocessor.checked_div(shared).unwrap_or(0) };
    by_threads.min(by_shared).min(props.max_blocks_per_multiprocessor)
}

/// Blocks of `threads` threads of so many registers whose registers fit on a multiprocessor. A warp takes its registers in
/// units of 256, and each of four schedulers has a quarter of them.
pub fn blocks_by_registers(props: &DeviceProps, registers: u32, threads: u32) -> u32 {
    let each = (registers * WARP as u32).next_multiple_of(256).max(256);
    props.registers / 4 / each * 4 / threads.div_ceil(WARP as u32).max(1)
}

/// Dynamic shared memory per block, in bytes, if `count` blocks of `threads` threads are to fit on a multiprocessor.
pub fn dynamic_for(props: &DeviceProps, needs: &Needs, count: u32, threads: u32) -> Option<u32> {
    if count == 0 || blocks(props, needs, threads, 0) < count {
        return None;
    }
    let each = props.shared_per_multiprocessor / count;
    let free = each.checked_sub(needs.static_shared + reserved(props))?;
    Some(free.min(max_dynamic_shared(props, needs)))
}

/// The block size (threads) with the most resident threads, the larger one if equal, and the blocks that fill the device.
pub fn best_block(
    props: &DeviceProps,
    needs: &Needs,
    limit: u32,
    dynamic: impl Fn(u32) -> u64,
) -> (u32, u32) {
    let cap = needs.max_threads.min(props.max_threads_per_block);
    let cap = if limit == 0 { cap } else { cap.min(limit) };
    let warp = WARP as u32;
    let sizes = std::iter::once(cap).chain((1..=cap / warp).rev().map(|w| w * warp)).filter(|s| *s > 0);
    let mut best = (0, 0, 0);
    for size in sizes {
        let n = blocks(props, needs, size, dynamic(size));
        if n * size > best.0 {
            best = (n * size, n, size);
        }
    }
    (best.1 * props.multiprocessors, best.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { static_shared: 0, max_threads: 1024, optin: 0 };

    #[test]
    fn each_limit_can_be_the_smallest() {
        let p = DeviceProps::new((8, 0), 1 << 30);
        assert_eq!(blocks(&p, &NEEDS, 1024, 0), 2, "threads");
        assert_eq!(blocks(&p, &NEEDS, 33, 0), 32, "block slots: 2048 / 64");
        assert_eq!(
            blocks(&p, &Needs { static_shared: 20480, ..NEEDS }, 128, 0),
            7,
            "164 KiB / (20 KiB + 1 KiB)"
        );
        assert_eq!(blocks(&p, &NEEDS, 1025, 0), 0);
        assert_eq!(blocks(&p, &NEEDS, 32, 48 << 10), 3);
        assert_eq!(blocks(&p, &NEEDS, 32, (48 << 10) + 1), 0, "no opt-in");
        assert_eq!(blocks(&p, &Needs { optin: 100 << 10, ..NEEDS }, 32, 100 << 10), 1);
    }

    /// As `cuda_occupancy.h` of the runtime says of 80 registers and 20 KiB: "blocks/SM 6 (regs 6 smem 7 warps 16)".
    #[test]
    fn registers_are_taken_by_the_warp() {
        let p = DeviceProps::new((8, 0), 1 << 30);
        assert_eq!(blocks_by_registers(&p, 80, 128), 6);
        assert_eq!(blocks_by_registers(&p, 168, 128), 3);
        assert_eq!(blocks_by_registers(&p, 255, 256), 1);
        assert_eq!(blocks_by_registers(&p, 32, 1024), 2);
        assert_eq!(blocks_by_registers(&p, 168, 192), 2);
    }

    #[test]
    fn dynamic_memory_inverts_the_count() {
        let p = DeviceProps::new((8, 6), 1 << 30);
        for count in 1..=4 {
            let dynamic = dynamic_for(&p, &NEEDS, count, 128).unwrap();
            assert!(blocks(&p, &NEEDS, 128, u64::from(dynamic)) >= count);
        }
        assert_eq!(dynamic_for(&p, &NEEDS, 17, 128), None);
        assert_eq!(dynamic_for(&p, &NEEDS, 0, 128), None);
    }

    #[test]
    fn the_best_block_fills_the_multiprocessor() {
        let p = DeviceProps::new((8, 0), 1 << 30);
        assert_eq!(best_block(&p, &NEEDS, 0, |_| 0), (2 * 108, 1024));
        assert_eq!(best_block(&p, &NEEDS, 100, |_| 0), (32 * 108, 64), "2048 threads; 96 would give 2016");
        assert_eq!(best_block(&p, &NEEDS, 0, |_| 1 << 20), (0, 0));
    }
}
