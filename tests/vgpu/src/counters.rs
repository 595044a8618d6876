//! Exact integers about what a launch executed. They never depend on the schedule of a deterministic program.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Classes of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Integer arithmetic, shifts, bit operations, address arithmetic.
    Integer,
    /// f32 arithmetic.
    Float,
    /// f64 arithmetic.
    Double,
    /// f16 and bf16 arithmetic, packed or not (one packed instruction counts once).
    Half,
    /// Approximate special functions (`ex2`, `lg2`, `sin`, `cos`, `rcp`, `rsqrt`, `sqrt`, `tanh`, approximate `div`).
    Special,
    /// Conversions.
    Convert,
    /// Comparisons and predicate logic.
    Predicate,
    /// Moves, selections, packing.
    Move,
    /// Branches, calls, returns, exits.
    Control,
    /// Loads of any space.
    Load,
    /// Stores of any space.
    Store,
    /// Atomics and reductions in memory.
    Atomic,
    /// `cp.async` and its groups.
    AsyncCopy,
    /// Shuffles, votes, matches, warp reductions.
    Warp,
    /// Block and warp barriers, fences.
    Barrier,
    /// Matrix instructions: `mma`, `wmma`, `ldmatrix`.
    Tensor,
    /// Prefetches, no-ops and the rest.
    Other,
}

impl Class {
    /// Number of classes.
    pub(crate) const COUNT: usize = 17;
    /// All classes, each at its own number.
    pub(crate) const ALL: [Class; Class::COUNT] = [
        Class::Integer,
        Class::Float,
        Class::Double,
        Class::Half,
        Class::Special,
        Class::Convert,
        Class::Predicate,
        Class::Move,
        Class::Control,
        Class::Load,
        Class::Store,
        Class::Atomic,
        Class::AsyncCopy,
        Class::Warp,
        Class::Barrier,
        Class::Tensor,
        Class::Other,
    ];
}

/// How often instructions ran: per warp, and summed over the lanes that were active.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// Times a warp issued one.
    pub warp: u64,
    /// Sum of the active lanes over those.
    pub lane: u64,
}

/// Traffic of global memory (module globals and constants reached by generic addresses included).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GlobalTraffic {
    /// Load instructions per warp with at least one active lane.
    pub load_requests: u64,
    /// Distinct 32-byte sectors over the lanes of each load, summed.
    pub load_sectors: u64,
    /// Bytes asked for by the lanes of loads.
    pub load_bytes: u64,
    /// Store instructions per warp.
    pub store_requests: u64,
    /// Distinct 32-byte sectors over the lanes of each store, summed.
    pub store_sectors: u64,
    /// Bytes written by the lanes of stores.
    pub store_bytes: u64,
    /// Distinct bytes that the launch read.
    pub compulsory_load_bytes: u64,
    /// Distinct bytes that the launch wrote.
    pub compulsory_store_bytes: u64,
}

/// Traffic of shared memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharedTraffic {
    /// Load instructions per warp.
    pub load_requests: u64,
    /// Wavefronts of those: the passes that 32 banks of 4 bytes need.
    pub load_wavefronts: u64,
    /// Wavefronts that the same distinct words would need without bank conflicts.
    pub load_ideal: u64,
    /// Store instructions per warp.
    pub store_requests: u64,
    /// Wavefronts of those.
    pub store_wavefronts: u64,
    /// Wavefronts without bank conflicts.
    pub store_ideal: u64,
}

/// What a launch, or several merged, executed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Blocks run.
    pub blocks: u64,
    /// Warps run.
    pub warps: u64,
    /// Threads run.
    pub threads: u64,
    /// Instructions by class. An instruction whose guard is false in a lane does not count for that lane.
    pub instructions: BTreeMap<Class, Executed>,
    /// Global memory.
    pub global: GlobalTraffic,
    /// Shared memory.
    pub shared: SharedTraffic,
    /// Local memory requests (loads and stores per warp).
    pub local_requests: u64,
    /// Conditional branches executed per warp.
    pub branches: u64,
    /// Conditional branches where the active lanes went both ways.
    pub divergent_branches: u64,
    /// Block barriers completed.
    pub barriers: u64,
    /// `bar.warp.sync` executed per warp.
    pub warp_barriers: u64,
    /// Matrix multiply instructions executed per warp (`mma` and `wmma.mma`).
    pub mma: u64,
    /// Atomic operations executed per lane.
    pub atomics: u64,
    /// Bytes brought by `cp.async`.
    pub async_bytes: u64,
}

impl Counters {
    /// All instructions, summed over classes.
    pub fn executed(&self) -> Executed {
        self.instructions
            .values()
            .fold(Executed::default(), |a, e| Executed { warp: a.warp + e.warp, lane: a.lane + e.lane })
    }

    /// Adds another launch. Compulsory bytes add up too: they are distinct within one launch only.
    pub fn merge(&mut self, other: &Counters) {
        for (class, e) in &other.instructions {
            let mine = self.instructions.entry(*class).or_default();
            mine.warp += e.warp;
            mine.lane += e.lane;
        }
        let g = &mut self.global;
        let o = &other.global;
        for (a, b) in [
            (&mut self.blocks, other.blocks),
            (&mut self.warps, other.warps),
            (&mut self.threads, other.threads),
            (&mut self.local_requests, other.local_requests),
            (&mut self.branches, other.branches),
            (&mut self.divergent_branches, other.divergent_branches),
            (&mut self.barriers, other.barriers),
            (&mut self.warp_barriers, other.warp_barriers),
            (&mut self.mma, other.mma),
            (&mut self.atomics, other.atomics),
            (&mut self.async_bytes, other.async_bytes),
            (&mut g.load_requests, o.load_requests),
            (&mut g.load_sectors, o.load_sectors),
            (&mut g.load_bytes, o.load_bytes),
            (&mut g.store_requests, o.store_requests),
            (&mut g.store_sectors, o.store_sectors),
            (&mut g.store_bytes, o.store_bytes),
            (&mut g.compulsory_load_bytes, o.compulsory_load_bytes),
            (&mut g.compulsory_store_bytes, o.compulsory_store_bytes),
            (&mut self.shared.load_requests, other.shared.load_requests),
            (&mut self.shared.load_wavefronts, other.shared.load_wavefronts),
            (&mut self.shared.load_ideal, other.shared.load_ideal),
            (&mut self.shared.store_requests, other.shared.store_requests),
            (&mut self.shared.store_wavefronts, other.shared.store_wavefronts),
            (&mut self.shared.store_ideal, other.shared.store_ideal),
        ] {
            *a += b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_survive_json_and_merge_by_sums() {
        let mut a = Counters { blocks: 2, mma: 3, ..Counters::default() };
        a.instructions.insert(Class::Float, Executed { warp: 4, lane: 100 });
        let text = serde_json::to_string(&a).expect("counters are plain data");
        assert_eq!(serde_json::from_str::<Counters>(&text).expect("written above"), a);
        let b = a.clone();
        a.merge(&b);
        assert_eq!((a.blocks, a.mma, a.executed()), (4, 6, Executed { warp: 8, lane: 200 }));
    }
}
