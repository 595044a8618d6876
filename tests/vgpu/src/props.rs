//! What the device says about itself: compute capability and limits. The one place such numbers live.

/// Limits and identity of the virtual device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProps {
    /// Name reported to programs; says that this is no GPU.
    pub name: String,
    /// Compute capability (major, minor).
    pub capability: (u32, u32),
    /// Device memory in bytes.
    pub memory_bytes: u64,
    /// Multiprocessors, for occupancy questions only: nothing here runs in parallel because of it.
    pub multiprocessors: u32,
    /// Largest number of threads in a block.
    pub max_threads_per_block: u32,
    /// Largest number of threads resident on a multiprocessor.
    pub max_threads_per_multiprocessor: u32,
    /// Largest number of blocks resident on a multiprocessor.
    pub max_blocks_per_multiprocessor: u32,
    /// Largest block extent per axis (x, y, z).
    pub max_block: [u32; 3],
    /// Largest grid extent per axis (x, y, z).
    pub max_grid: [u32; 3],
    /// Shared memory of a block without opting in, in bytes (static + dynamic).
    pub shared_per_block: u32,
    /// Shared memory of a block after opting in, in bytes (static + dynamic).
    pub shared_per_block_optin: u32,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_per_multiprocessor: u32,
    /// Registers (32 bits each) of a multiprocessor, and of a block.
    pub registers: u32,
    /// Bytes of kernel parameters that a launch may pass.
    pub max_param_bytes: u32,
    /// Bytes of constant memory a module may declare.
    pub constant_bytes: u32,
    /// Bytes of local memory a thread may use.
    pub max_local_bytes: u32,
}

/// Lanes in a warp.
pub const WARP: usize = 32;

impl DeviceProps {
    /// A device of the given compute capability with that architecture's published limits.
    /// Unknown capabilities take the limits of the nearest lower known one.
    pub fn new(capability: (u32, u32), memory_bytes: u64) -> Self {
        let (optin_kib, sm_kib, threads_sm, blocks_sm, sms) = match capability {
            (..8, _) => (64, 64, 1024, 16, 40),
            (8, 0) => (163, 164, 2048, 32, 108),
            (8, 7) => (163, 164, 1536, 16, 16),
            (8, 9) => (99, 100, 1536, 24, 128),
            (8, _) => (99, 100, 1536, 16, 84),
            (9..=11, _) => (227, 228, 2048, 32, 132),
            _ => (99, 100, 1536, 32, 170),
        };
        DeviceProps {
            name: "monopath virtual GPU".into(),
            capability,
            memory_bytes,
            multiprocessors: sms,
            max_threads_per_block: 1024,
            max_threads_per_multiprocessor: threads_sm,
            max_blocks_per_multiprocessor: blocks_sm,
            max_block: [1024, 1024, 64],
            max_grid: [i32::MAX as u32, 65535, 65535],
            shared_per_block: 48 << 10,
            shared_per_block_optin: optin_kib << 10,
            shared_per_multiprocessor: sm_kib << 10,
            registers: 65536,
            max_param_bytes: 4096,
            constant_bytes: 64 << 10,
            max_local_bytes: 512 << 10,
        }
    }
}

impl Default for DeviceProps {
    /// Compute capability 8.0 with 4 GiB.
    fn default() -> Self {
        DeviceProps::new((8, 0), 4 << 30)
    }
}
