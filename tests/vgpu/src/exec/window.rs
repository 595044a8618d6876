//! Generic addresses: one window per space, far from device memory.

use crate::memory;
use crate::ptx::types::Space;

/// Bytes of a window.
const SIZE: u64 = 1 << 32;
const SHARED: u64 = 0x0100_0000_0000;
const LOCAL: u64 = 0x0200_0000_0000;
const PARAM: u64 = 0x0300_0000_0000;

/// Where a space's window begins; global and constant addresses are generic addresses already.
pub(crate) fn base(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED,
        Space::Local => LOCAL,
        Space::Param => PARAM,
        _ => 0,
    }
}

/// The space that a generic address lies in; `Generic` if in none.
#[inline(always)]
pub(crate) fn classify(address: u64) -> Space {
    if address >= memory::BASE {
        return Space::Global;
    }
    match address & !(SIZE - 1) {
        SHARED => Space::Shared,
        LOCAL => Space::Local,
        PARAM => Space::Param,
        _ => Space::Generic,
    }
}
