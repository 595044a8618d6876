//! A small host side for tests: buffers, arguments, launches.
#![allow(dead_code, reason = "every test binary uses its own part")]

use monopath_vgpu::exec::{self, Launch, Options};
use monopath_vgpu::memory::Origin;
use monopath_vgpu::ptx::Module;
use monopath_vgpu::{Counters, DeviceProps, Fault, Memory};

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
}

impl Gpu {
    pub fn new(ptx: &str) -> Gpu {
        let memory = Memory::new(256 << 20);
        let module = Module::load(ptx).unwrap_or_else(|e| panic!("{e}"));
        module.place(&memory).expect("room for globals");
        Gpu { memory, props: DeviceProps::default(), options: Options::default(), module, seed: 0 }
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

    pub fn run(&self, kernel: &str, grid: [u32; 3], block: [u32; 3], shared: u32, args: &[Arg]) -> Result<Counters, Box<Fault>> {
        let params = self.params(kernel, args);
        let kernel = self.module.kernel(kernel).expect("checked above");
        let launch = Launch {
            grid,
            block,
            dynamic_shared: shared,
            params: &params,
            dynamic_shared_optin: 0,
            cooperative: false,
            seed: self.seed,
        };
        exec::launch(kernel, &launch, &self.memory, &self.props, &self.options)
    }
}
