//! Bank conflicts of shared memory: 32 banks of 4 bytes.

use super::alu::lanes;
use super::rows::FULL;

/// Wavefronts of an access and those without conflicts. Lanes are served in groups of 32, 16 or 8 so that a group moves
/// at most 128 bytes; a group takes as many passes as its busiest bank has distinct words.
#[inline(always)]
pub(crate) fn wavefronts(a: &[u64; 32], bytes: u32, m: u32) -> (u64, u64) {
    if bytes <= 4 {
        // Adjacent words, or one word for all: one pass.
        let mut adjacent = 0;
        let mut equal = 0;
        for l in 0..32 {
            let active = u64::from(m >> l & 1) * u64::MAX;
            adjacent |= (a[l].wrapping_sub(a[0]) ^ (l as u64 * u64::from(bytes))) & active;
            equal |= (a[l] ^ a[m.trailing_zeros() as usize]) & active;
        }
        if (adjacent == 0 && m & 1 == 1 && a[0] & 3 == 0) || equal == 0 {
            return (1, 1);
        }
    }
    let (size, words) = match bytes {
        16 => (8, 4),
        8 => (16, 2),
        _ => (32, 1),
    };
    let (mut passes, mut ideal) = (0, 0);
    for first in (0..32).step_by(size) {
        let group = m >> first & if size == 32 { FULL } else { (1 << size) - 1 };
        if group == 0 {
            continue;
        }
        let mut count = [0u8; 32];
        let mut seen = [[0u64; 4]; 32];
        let mut distinct = 0u64;
        let mut busiest = 0;
        let mut overflow: Vec<u64> = Vec::new();
        for l in lanes(group) {
            for k in 0..words {
                let word = (a[first + l] >> 2) + k;
                let bank = (word & 31) as usize;
                let n = usize::from(count[bank]);
                if seen[bank][..n.min(4)].contains(&word) || n > 4 && overflow.contains(&word) {
                    continue;
                }
                if n < 4 {
                    seen[bank][n] = word;
                } else {
                    overflow.push(word);
                }
                count[bank] += 1;
                distinct += 1;
                busiest = busiest.max(u64::from(count[bank]));
            }
        }
        passes += busiest;
        ideal += distinct.div_ceil(32);
    }
    (passes, ideal)
}
