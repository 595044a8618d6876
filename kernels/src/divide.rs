//! Division by numbers that are known at the launch alone.

use cudarc::driver::DeviceRepr;

/// `Divide` of `divide.cuh`: multiplies and shifts; exact for numerators below 2^31.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Divide {
    magic: u32,
    shift: i32,
    by: i32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Divide {}

impl Divide {
    /// By `by`, from 1 to 2^31 - 1.
    pub fn new(by: usize) -> Divide {
        debug_assert!((1..1 << 31).contains(&by), "division by {by}");
        let (d, shift) = (by as u64, (by as u64).next_power_of_two().trailing_zeros());
        let magic = ((1u64 << 32) * ((1u64 << shift) - d)) / d + 1;
        Divide { magic: magic as u32, shift: shift as i32, by: by as i32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel does it.
    fn quotient(d: Divide, n: u32) -> u32 {
        let high = (u64::from(n) * u64::from(d.magic)) >> 32;
        (high as u32 + n) >> d.shift
    }

    #[test]
    fn quotients_are_exact_up_to_the_largest_numerator() {
        let largest = i32::MAX as u32;
        for by in (1..2000).chain([4095, 4096, 4097, 65_535, 1_000_003, 1 << 30, (1 << 30) + 1, largest]) {
            let d = Divide::new(by as usize);
            let near = |q: u32| [(q * by).saturating_sub(1), q * by, q * by + 1];
            let numbers = [0, 1, 2, by - 1, by, largest, largest - 1];
            let last = near((largest / by).saturating_sub(1));
            for n in numbers.into_iter().chain(last).chain((0..50).map(|i| i * 42_949_672)) {
                assert_eq!(quotient(d, n), n / by, "{n} / {by}");
            }
        }
    }
}
