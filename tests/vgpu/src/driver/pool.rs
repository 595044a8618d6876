//! Memory pools: attributes and exact accounts. The memory itself always comes from the device.

/// Default size that a pool keeps when the host waits: nothing.
const RELEASE_THRESHOLD: u64 = 0;

/// A stream-ordered memory pool.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Bytes in use.
    pub used: u64,
    /// Most bytes in use since the mark was reset.
    pub used_high: u64,
    /// Bytes held: in use, or freed and kept.
    pub reserved: u64,
    /// Most bytes held since the mark was reset.
    pub reserved_high: u64,
    /// Bytes that may stay held when the host waits.
    pub release_threshold: u64,
    /// Largest size, 0 for none.
    pub max_bytes: u64,
    /// Reuse policies (follow event dependencies, opportunistic, internal dependencies).
    pub reuse: [i32; 3],
}

impl Pool {
    /// An empty pool.
    pub fn new(max_bytes: u64) -> Self {
        Pool { release_threshold: RELEASE_THRESHOLD, max_bytes, reuse: [1; 3], ..Pool::default() }
    }

    /// True if `bytes` more fit under the pool's own limit.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.max_bytes == 0 || self.used.saturating_add(bytes) <= self.max_bytes
    }

    /// Accounts for an allocation.
    pub fn take(&mut self, bytes: u64) {
        self.used += bytes;
        self.used_high = self.used_high.max(self.used);
        self.reserved = self.reserved.max(self.used);
        self.reserved_high = self.reserved_high.max(self.reserved);
    }

    /// Accounts for a free.
    pub fn give(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Gives back what is held beyond `keep` bytes and not in use.
    pub fn trim(&mut self, keep: u64) {
        self.reserved = self.used.max(self.reserved.min(keep));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_keeps_what_its_threshold_allows() {
        let mut p = Pool::new(0);
        p.take(100);
        p.take(50);
        p.give(100);
        assert_eq!((p.used, p.used_high, p.reserved), (50, 150, 150));
        p.release_threshold = 80;
        p.trim(p.release_threshold);
        assert_eq!(p.reserved, 80);
        p.trim(0);
        assert_eq!((p.reserved, p.reserved_high), (50, 150));
    }

    #[test]
    fn a_pool_may_have_a_limit() {
        let mut p = Pool::new(100);
        assert!(p.has_room(100) && !p.has_room(101));
        p.take(60);
        assert!(!p.has_room(u64::MAX));
    }
}
