//! A small host side for tests: buffers, arguments, launches.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use monopath_vgpu::exec::{self, Launch, Options};
use monopath_vgpu::memory::Origin;
use monopath_vgpu::ptx::Module;
use monopath_vgpu::{Counters, DeviceProps, Fault, Memory, meter};

/// Plain numbers that go to the device as bytes.
pub trait Plain: Copy {
    const SIZE: usize;
    fn put(self, out: &mut Vec<u8>);
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! plain {
    ($($t:ty),*) => {$(impl Plain for $t {
        const SIZE: usize = size_of::<$t>();
        fn put(self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.to_le_bytes());
        }
        fn get(bytes: &[u8]) -> Self {
            <$t>::from_le_bytes(bytes.try_into().expect("one element"))
        }
    })*};
}
plain!(u8, u16, i16, u32, i32, f32, u64, i64, f64);

/// A kernel argument.
pub enum Arg {
    Ptr(u64),
    U32(u32),
    I32(i32),
    F32(f32),
    U64(u64),
}

/// A device with a loaded module.
pub struct Gpu {
    pub memory: Memory,
    pub props: DeviceProps,
    pub options: Options,
    pub module: Module,
    pub seed: u64,
    /// Bytes of dynamic shared memory that launches opt in to; 0 is none.
    pub optin: u32,
    lanes: AtomicU64,
}

/// A device is one case: what it executed is added to the binary's sum and bounded.
impl Drop for Gpu {
    fn drop(&mut self) {
        let lanes = self.lanes.load(Relaxed);
        meter::add(lanes);
        assert!(
            lanes <= meter::CASE_LIMIT || std::thread::panicking(),
            "{lanes} lane-instructions are too many for a case"
        );
    }
}

impl Gpu {
    pub fn new(ptx: &str) -> Gpu {
        let memory = Memory::new(256 << 20);
        let module = Module::load(ptx).unwrap_or_else(|e| panic!("{e}"));
        module.place(&memory).expect("room for globals");
        Gpu {
            memory,
            props: DeviceProps::default(),
            options: Options { budget: 2 * meter::CASE_LIMIT, ..Options::default() },
            module,
            seed: 0,
            optin: 0,
            lanes: AtomicU64::new(0),
        }
    }

    pub fn counted(&self, r: Result<Counters, Box<Fault>>) -> Result<Counters, Box<Fault>> {
        self.lanes.fetch_add(r.as_ref().map_or(0, |c| c.executed().lane), Relaxed);
        r
    }

    pub fn empty<T: Plain>(&self, n: usize) -> u64 {
        self.memory.alloc((n * T::SIZE) as u64, Origin::Malloc).expect("room")
    }

    pub fn upload<T: Plain>(&self, values: &[T]) -> u64 {
        let p = self.empty::<T>(values.len());
        let mut bytes = Vec::new();
        values.iter().for_each(|v| v.put(&mut bytes));
        self.memory.write(p, &bytes).expect("in bounds");
        p
    }

    pub fn download<T: Plain>(&self, p: u64, n: usize) -> Vec<T> {
        let bytes = self.memory.read(p, n * T::SIZE).unwrap_or_else(|e| panic!("{e}"));
        bytes.chunks(T::SIZE).map(T::get).collect()
    }

    pub fn params(&self, kernel: &str, args: &[Arg]) -> Vec<u8> {
        let kernel = self.module.kernel(kernel).unwrap_or_else(|| panic!("no kernel `{kernel}`"));
        let mut out = Vec::new();
        assert_eq!(kernel.params().len(), args.len(), "arguments of {}", kernel.name());
        for (p, arg) in kernel.params().iter().zip(args) {
            out.resize(p.offset as usize, 0);
            match arg {
                Arg::Ptr(v) | Arg::U64(v) => v.put(&mut out),
                Arg::U32(v) => v.put(&mut out),
                Arg::I32(v) => v.put(&mut out),
                Arg::F32(v) => v.put(&mut out),
            }
        }
        out
    }

    /// A device with the corpus file `name` as compiled by `compiler`.
    pub fn corpus(name: &str, compiler: &str) -> Gpu {
        let path = format!("{}/corpus/ptx/{name}.{compiler}.ptx", env!("CARGO_MANIFEST_DIR"));
        Gpu::new(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")))
    }

    pub fn cooperative(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        args: &[Arg],
    ) -> Result<Counters, Box<Fault>> {
        let params = self.params(kernel, args);
        let kernel = self.module.kernel(kernel).expect("checked above");
        let launch = Launch {
            grid,
            block,
            dynamic_shared: 0,
            params: &params,
            dynamic_shared_optin: 0,
            cooperative: true,
            seed: self.seed,
        };
        self.counted(exec::launch(kernel, &launch, &self.memory, &self.props, &self.options))
    }

    pub fn run(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
    ) -> Result<Counters, Box<Fault>> {
        let params = self.params(kernel, args);
        let kernel = self.module.kernel(kernel).expect("checked above");
        let launch = Launch {
            grid,
            block,
            dynamic_shared: shared,
            params: &params,
            dynamic_shared_optin: self.optin,
            cooperative: false,
            seed: self.seed,
        };
        self.counted(exec::launch(kernel, &launch, &self.memory, &self.props, &self.options))
    }
}

/// The compilers whose PTX is committed.
pub const COMPILERS: [&str; 2] = ["nvrtc12", "nvcc13"];

/// Runs a case for every compiler, seed and number of threads. The case returns counters, which must all agree.
pub fn everywhere(file: &str, case: impl Fn(&mut Gpu) -> Counters) {
    for compiler in COMPILERS {
        let mut first: Option<Counters> = None;
        for (seed, threads) in [(0, 1), (0, 2), (1, 1), (2, 2), (3, 3)] {
            let mut gpu = Gpu::corpus(file, compiler);
            gpu.seed = seed;
            gpu.options.threads = threads;
            let counters = case(&mut gpu);
            if let Some(first) = &first {
                assert_eq!(
                    *first, counters,
                    "{file} by {compiler}: counters under seed {seed}, {threads} threads"
                );
            }
            first = Some(counters);
        }
    }
}

pub fn ok(r: Result<Counters, Box<Fault>>) -> Counters {
    r.unwrap_or_else(|e| panic!("{e}"))
}

pub fn close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*g) - w).abs();
        assert!(error <= tolerance * w.abs().max(1.0), "element {i}: {g} for {w}, error {error:e}");
    }
}

/// Numbers that look random and are the same everywhere.
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    bits(n, seed).into_iter().map(|b| (b >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// Random words by splitmix64.
pub fn bits(n: usize, seed: u64) -> Vec<u64> {
    let mut x = seed;
    std::iter::repeat_with(move || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = x;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
    .take(n)
    .collect()
}

pub fn bf16(v: f32) -> u16 {
    let b = v.to_bits();
    ((b + 0x7fff + (b >> 16 & 1)) >> 16) as u16
}

pub fn from_bf16(b: u16) -> f32 {
    f32::from_bits(u32::from(b) << 16)
}

/// Nearest half, ties to even, by search over the definition.
pub fn f16(v: f32) -> u16 {
    let m = f64::from(v.abs());
    let (mut lo, mut hi) = (0u16, 0x7c00u16);
    while hi - lo > 1 {
        let mid = lo + (hi - lo) / 2;
        if from_f16_wide(mid) <= m { lo = mid } else { hi = mid }
    }
    let (a, b) = (m - from_f16_wide(lo), from_f16_wide(hi) - m);
    let h = if a < b || (a == b && lo & 1 == 0) { lo } else { hi };
    h | if v.is_sign_negative() { 0x8000 } else { 0 }
}

fn from_f16_wide(h: u16) -> f64 {
    let (e, f) = (i32::from(h >> 10 & 31), f64::from(h & 1023));
    if e == 0 { f * 2f64.powi(-24) } else { (1024.0 + f) * 2f64.powi(e - 25) }
}

pub fn from_f16(h: u16) -> f32 {
    let v = from_f16_wide(h & 0x7fff) as f32;
    if h >> 15 == 1 { -v } else { v }
}
