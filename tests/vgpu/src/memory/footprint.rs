//! Which bytes of device memory an operation read and wrote, as ranges of addresses.

use std::ops::Range;

/// Bytes that an operation touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Ranges read; in a launch they ascend and do not touch.
    pub read: Vec<Range<u64>>,
    /// Ranges written.
    pub written: Vec<Range<u64>>,
}

impl Footprint {
    /// Notes a read.
    pub fn reads(&mut self, at: u64, bytes: u64) {
        extend(&mut self.read, at, bytes);
    }

    /// Notes a write.
    pub fn writes(&mut self, at: u64, bytes: u64) {
        extend(&mut self.written, at, bytes);
    }
}

fn extend(list: &mut Vec<Range<u64>>, at: u64, bytes: u64) {
    match list.last_mut() {
        _ if bytes == 0 => {}
        Some(last) if last.end == at => last.end += bytes,
        _ => list.push(at..at + bytes),
    }
}

/// Notes the bytes whose bits are set in a word that stands for 64 bytes from `base` on.
pub(super) fn extend_bits(list: &mut Vec<Range<u64>>, base: u64, mut bits: u64) {
    let mut at = 0;
    while bits != 0 {
        let gap = bits.trailing_zeros();
        bits >>= gap;
        let run = bits.trailing_ones();
        extend(list, base + u64::from(at + gap), u64::from(run));
        at += gap + run;
        bits = if run == 64 { 0 } else { bits >> run };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjoining_ranges_become_one() {
        let mut f = Footprint::default();
        f.reads(10, 4);
        f.reads(14, 2);
        f.reads(20, 0);
        f.reads(30, 1);
        assert_eq!(f.read, [10..16, 30..31]);
    }

    #[test]
    fn bits_become_ranges() {
        let mut list = Vec::new();
        extend_bits(&mut list, 0, u64::MAX);
        extend_bits(&mut list, 64, 0b1_0000_1111);
        extend_bits(&mut list, 128, 1 << 63);
        assert_eq!(list, [0..68, 72..73, 191..192]);
    }
}
