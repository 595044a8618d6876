//! Seeded orders of independent work: blocks, warps, sides of a divergent branch, streams.
//!
//! A draw is a function of (seed, what is ordered, index), so it does not depend on how often others drew.
//! (The product's generator is not used: the device must not depend on what it tests.)

/// A seed for every choice that a real device leaves open. Seed 0 is the plain order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    seed: u64,
}

/// What is being ordered; keeps the draws of different kinds apart.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// Order of blocks in a launch.
    Blocks = 1,
    /// Order of warps in a block.
    Warps = 2,
    /// Which side of a divergent branch runs first.
    Sides = 3,
    /// Which stream runs next.
    Streams = 4,
    /// Order of lanes in an atomic.
    Lanes = 5,
}

impl Schedule {
    /// The schedule of a seed.
    pub fn new(seed: u64) -> Self {
        Schedule { seed }
    }

    /// True for the plain order: ascending blocks, warps and lanes, fall-through side first.
    pub fn is_plain(&self) -> bool {
        self.seed == 0
    }

    /// 64 well-mixed bits for (purpose, index), by the finaliser of splitmix64 applied twice.
    pub fn draw(&self, purpose: Purpose, index: u64) -> u64 {
        mix(mix(self.seed ^ (purpose as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)) ^ index)
    }

    /// A permutation of `0..n`; the identity for the plain schedule.
    pub fn order(&self, purpose: Purpose, index: u64, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        if !self.is_plain() {
            let key = self.draw(purpose, index);
            for i in (1..n).rev() {
                let j = (mix(key ^ i as u64) % (i as u64 + 1)) as usize;
                order.swap(i, j);
            }
        }
        order
    }
}

fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_and_depends_on_the_seed() {
        let a = Schedule::new(7).order(Purpose::Blocks, 0, 100);
        let b = Schedule::new(8).order(Purpose::Blocks, 0, 100);
        let mut sorted = a.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<u32>>());
        assert_ne!(a, b);
        assert_eq!(a, Schedule::new(7).order(Purpose::Blocks, 0, 100));
    }

    #[test]
    fn seed_zero_is_the_plain_order() {
        assert_eq!(Schedule::new(0).order(Purpose::Warps, 3, 5), [0, 1, 2, 3, 4]);
    }
}
