//! Bank conflicts of shared memory: 32 banks of 4 bytes.

use super::alu::lanes;
use super::rows::FULL;

/// The end of a chain.
const NONE: u8 = 255;

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
        // Distinct words of each bank, as chains through the words seen so far.
        let mut head = [NONE; 32];
        let mut link = [NONE; 32];
        let mut word = [0u64; 32];
        let mut count = [0u8; 32];
        let (mut seen, mut busiest) = (0, 0);
        for l in lanes(group) {
            for k in 0..words {
                let w = (a[first + l] >> 2) + k;
                let bank = (w & 31) as usize;
                let mut at = head[bank];
                while at != NONE && word[usize::from(at)] != w {
                    at = link[usize::from(at)];
                }
                if at != NONE {
                    continue;
                }
                // A group has at most 32 words.
                word[seen] = w;
                link[seen] = head[bank];
                head[bank] = seen as u8;
                seen += 1;
                count[bank] += 1;
                busiest = busiest.max(u64::from(count[bank]));
            }
        }
        let distinct = seen as u64;
        passes += busiest;
        ideal += distinct.div_ceil(32);
    }
    (passes, ideal)
}
