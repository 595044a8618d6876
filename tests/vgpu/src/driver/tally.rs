//! Counters of a run: how often the program asked the driver for what. Exact integers, never times.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counters::Counters;
use crate::ptx;

/// A count with its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// How often.
    pub count: u64,
    /// Bytes in all.
    pub bytes: u64,
}

impl Volume {
    /// Adds one of `bytes`.
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Times that the host waited for the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Synchronisations {
    /// `cuCtxSynchronize`.
    pub context: u64,
    /// `cuStreamSynchronize`.
    pub stream: u64,
    /// `cuEventSynchronize`.
    pub event: u64,
    /// Waits inside other calls: blocking copies, copies to pageable memory, frees.
    pub implicit: u64,
}

/// Matrix products of the library stand-ins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Library {
    /// Calls that queued a product (batches count once).
    pub calls: u64,
    /// Multiply-adds in all.
    pub multiply_adds: u64,
}

/// Launches of one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelTally {
    /// How often it ran.
    pub launches: u64,
    /// What those launches executed, merged.
    pub counters: Counters,
    /// Most threads of a block.
    pub threads: u64,
    /// Most shared memory of a block, in bytes.
    pub shared: u64,
    /// Basic blocks by the PTX line that each begins in, and whether a warp came to it.
    pub blocks: BTreeMap<u32, bool>,
}

/// The counters of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Name of the device; says that this is no GPU.
    pub device: String,
    /// Compute capability (major, minor).
    pub capability: (u32, u32),
    /// Seed of the orders.
    pub seed: u64,
    /// Whether the checks beyond bounds were on.
    pub checks: bool,
    /// Kernel launches that the program asked for.
    pub launches: u64,
    /// Graphs launched.
    pub graph_launches: u64,
    /// Operations that graph launches queued.
    pub graph_nodes: u64,
    /// Copies from host to device.
    pub host_to_device: Volume,
    /// Copies from device to host.
    pub device_to_host: Volume,
    /// Copies within the device.
    pub device_to_device: Volume,
    /// Those of the copies above whose host memory is not pinned.
    pub pageable: Volume,
    /// Fills (`cuMemset*`).
    pub fills: Volume,
    /// `cuMemAlloc`.
    pub allocations: Volume,
    /// Stream-ordered allocations.
    pub stream_allocations: Volume,
    /// Pinned host allocations.
    pub host_allocations: Volume,
    /// Frees of device memory.
    pub frees: u64,
    /// Most bytes of device memory allocated at once.
    pub peak_bytes: u64,
    /// Waits of the host.
    pub synchronisations: Synchronisations,
    /// Non-blocking questions (`cuStreamQuery`, `cuEventQuery`).
    pub queries: u64,
    /// Events recorded.
    pub event_records: u64,
    /// Waits of a stream for an event.
    pub event_waits: u64,
    /// Host functions called in stream order.
    pub host_functions: u64,
    /// Modules loaded.
    pub modules: u64,
    /// cuBLAS and cuBLASLt.
    pub library: Library,
    /// Kernels by name.
    pub kernels: BTreeMap<String, KernelTally>,
    /// Objects that were alive when the program ended, by kind.
    pub alive_at_exit: BTreeMap<String, u64>,
    /// Reports by kind.
    pub reports: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds a finished launch of blocks of so many threads and bytes of shared memory.
    pub fn launched(&mut self, kernel: &str, [threads, shared]: [u64; 2], counters: &Counters) {
        let entry = match self.kernels.get_mut(kernel) {
            Some(entry) => entry,
            None => self.kernels.entry(kernel.to_string()).or_default(),
        };
        entry.launches += 1;
        entry.threads = entry.threads.max(threads);
        entry.shared = entry.shared.max(shared);
        entry.counters.merge(counters);
    }

    /// Adds which basic blocks of a module's kernels were reached, of those that ran.
    pub fn covered(&mut self, module: &ptx::Module) {
        for kernel in module.kernels() {
            if let Some(entry) = self.kernels.get_mut(kernel.name()) {
                for (line, reached) in kernel.blocks() {
                    *entry.blocks.entry(line).or_default() |= reached;
                }
            }
        }
    }
}

/// One launch, as a line of the launches file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// Number of the operation, in the order in which the program asked.
    pub operation: u64,
    /// Kernel name.
    pub kernel: String,
    /// Blocks per axis (x, y, z).
    pub grid: [u32; 3],
    /// Threads per axis (x, y, z).
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: u32,
    /// What it executed.
    pub counters: Counters,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_survives_json() {
        let mut t = Tally { seed: 3, ..Tally::default() };
        t.host_to_device.add(12);
        t.launched("k", [64, 0], &Counters { blocks: 2, ..Counters::default() });
        t.launched("k", [32, 48], &Counters { blocks: 3, ..Counters::default() });
        let k = &t.kernels["k"];
        assert_eq!((k.launches, k.counters.blocks, k.threads, k.shared), (2, 5, 64, 48));
        let text = serde_json::to_string(&t).expect("plain data");
        assert_eq!(serde_json::from_str::<Tally>(&text).expect("written above"), t);
    }
}
