//! Large chunks of an address space cut into pieces by best fit: what the arenas of all devices share.
//!
//! Once the largest step has been seen, no chunk is asked for again.

use crate::error::{Error, Result};

/// Counters of an arena, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Taken from the system so far: constant after warm-up.
    pub reserved: usize,
    /// In tensors now.
    pub used: usize,
    /// The most that was ever in tensors.
    pub peak: usize,
    /// How often the system was asked.
    pub system_calls: usize,
}

/// How an arena cuts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Pieces start at multiples of this many bytes and are as many long.
    pub align: usize,
    /// The smallest chunk.
    pub chunk: usize,
    /// The most bytes in pieces.
    pub cap: usize,
}

/// The free pieces of some chunks.
#[derive(Debug)]
pub(crate) struct Pieces {
    rules: Rules,
    /// In address order; neighbours are merged.
    free: Vec<Piece>,
    pub stats: ArenaStats,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: usize,
    len: usize,
}

impl Pieces {
    pub fn new(rules: Rules) -> Self {
        Self { rules, free: Vec::with_capacity(256), stats: ArenaStats::default() }
    }

    /// The number of free pieces.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.free.len()
    }

    /// Start and length of a piece of at least `len` bytes. `system` makes a chunk of as many bytes as it is
    /// asked for, which touches no other chunk, and returns where it starts.
    pub fn take(
        &mut self,
        len: usize,
        mut system: impl FnMut(usize) -> Option<usize>,
    ) -> Result<(usize, usize)> {
        let Rules { align, chunk, cap } = self.rules;
        let len = len.max(1).checked_next_multiple_of(align).unwrap_or(usize::MAX);
        let used = self.stats.used;
        let refusal = Error::OutOfMemory { requested: len, used, cap };
        if used.checked_add(len).is_none_or(|total| total > cap) {
            return Err(refusal);
        }
        let start = match self.fit(len) {
            Some(start) => start,
            None => {
                let roomy = len.max(chunk).max(self.stats.reserved / 4).next_multiple_of(align);
                let (start, size) = [roomy, len]
                    .into_iter()
                    .find_map(|size| system(size).map(|start| (start, size)))
                    .ok_or(refusal)?;
                self.stats.reserved += size;
                self.stats.system_calls += 1;
                let at = self.free.partition_point(|p| p.start < start);
                self.free.insert(at, Piece { start, len: size });
                self.fit(len).expect("a new chunk holds the request")
            }
        };
        self.stats.used += len;
        self.stats.peak = self.stats.peak.max(self.stats.used);
        Ok((start, len))
    }

    /// Best fit: the smallest free piece that holds `len`, the lowest among equals.
    fn fit(&mut self, len: usize) -> Option<usize> {
        let (index, _) = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, p)| p.len >= len)
            .min_by_key(|(_, p)| (p.len, p.start))?;
        let piece = self.free[index];
        if piece.len == len {
            self.free.remove(index);
        } else {
            self.free[index] = Piece { start: piece.start + len, len: piece.len - len };
        }
        Some(piece.start)
    }

    /// Takes a piece back.
    pub fn give(&mut self, start: usize, len: usize) {
        self.stats.used -= len;
        let at = self.free.partition_point(|p| p.start < start);
        let joins = |a: Piece, b: Piece| a.start + a.len == b.start;
        let piece = Piece { start, len };
        let before = at > 0 && joins(self.free[at - 1], piece);
        let after = at < self.free.len() && joins(piece, self.free[at]);
        match (before, after) {
            (true, true) => self.free[at - 1].len += len + self.free.remove(at).len,
            (true, false) => self.free[at - 1].len += len,
            (false, true) => self.free[at] = Piece { start, len: len + self.free[at].len },
            (false, false) => self.free.insert(at, piece),
        }
    }

    /// Forgets the past peak: from now on it is counted from what is in use.
    pub fn reset_peak(&mut self) {
        self.stats.peak = self.stats.used;
    }
}
