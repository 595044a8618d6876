//! Where tensors live and ops compute: the CPU or a GPU.

use std::fmt;

use crate::cpu::Cpu;
use crate::cuda::{Buffer, Cuda};
use crate::error::{Error, Result};
use crate::pieces::ArenaStats;

/// A device; cloning shares it.
#[derive(Clone, Debug)]
pub enum Device {
    /// The CPU.
    Cpu(Cpu),
    /// A GPU of NVIDIA's.
    Cuda(Cuda),
}

impl Device {
    /// The device called `cpu`, with so many threads, or `cuda:N`; with at most `cap` bytes of tensor memory.
    ///
    /// # Errors
    /// [`Error::Setting`] for another name or a number of threads that is not possible; [`Error::Unusable`].
    pub fn parse(name: &str, threads: usize, cap: usize) -> Result<Self> {
        let number = |text: &str| text.parse().ok().filter(|n: &usize| n.to_string() == text);
        match (name, name.strip_prefix("cuda:").and_then(number)) {
            ("cpu", _) => Ok(Device::Cpu(Cpu::with_cap(threads, cap)?)),
            (_, Some(ordinal)) => Ok(Device::Cuda(Cuda::new(ordinal, cap)?)),
            _ => Err(Error::Setting {
                name: "device",
                value: format!("{name:?}"),
                range: "cpu, or cuda:N with N the number of a GPU from 0",
            }),
        }
    }

    /// `cpu` or `cuda:0`.
    pub fn name(&self) -> &str {
        match self {
            Device::Cpu(_) => "cpu",
            Device::Cuda(cuda) => cuda.name(),
        }
    }

    /// The CPU, for `what` that runs nowhere else.
    ///
    /// # Errors
    /// [`Error::NotOnDevice`] on any other device.
    pub fn cpu(&self, what: &'static str) -> Result<&Cpu> {
        match self {
            Device::Cpu(cpu) => Ok(cpu),
            Device::Cuda(cuda) => Err(cuda.lacks(what)),
        }
    }

    /// The counters of its memory.
    pub fn memory(&self) -> ArenaStats {
        match self {
            Device::Cpu(cpu) => cpu.arena().stats(),
            Device::Cuda(cuda) => cuda.arena().stats(),
        }
    }

    /// Forgets the past peak of its memory.
    pub fn reset_peak(&self) {
        match self {
            Device::Cpu(cpu) => cpu.arena().reset_peak(),
            Device::Cuda(cuda) => cuda.arena().reset_peak(),
        }
    }

    /// What decides the last bits of a result beside the build: the CPU's instruction set, the GPU's architecture.
    pub fn arithmetic(&self) -> String {
        match self {
            Device::Cpu(cpu) => cpu.isa().name().to_owned(),
            Device::Cuda(cuda) => {
                let (major, minor) = cuda.capability();
                format!("sm_{major}{minor}")
            }
        }
    }

    /// Threads of the host that compute.
    pub fn threads(&self) -> usize {
        match self {
            Device::Cpu(cpu) => cpu.pool().threads(),
            Device::Cuda(_) => 1,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    use crate::error::Result;
    use crate::{cpu, cuda};

    /// The memory behind a tensor.
    #[derive(Clone)]
    pub enum Storage {
        /// The host's.
        Host(cpu::Buffer),
        /// A GPU's.
        Cuda(cuda::Buffer),
    }

    pub trait Alloc {
        /// So many bytes with unspecified contents.
        fn alloc(&self, bytes: usize) -> Result<Storage>;
    }
}
pub(crate) use sealed::{Alloc, Storage};

/// What tensors, tapes and stores can be made on: a [`Device`], or a [`Cpu`] or [`Cuda`] by itself.
pub trait Place: Alloc {
    /// The device.
    fn device(&self) -> Device;
}

impl Alloc for Cpu {
    fn alloc(&self, bytes: usize) -> Result<Storage> {
        Ok(Storage::Host(self.arena().alloc(bytes)?))
    }
}

impl Place for Cpu {
    fn device(&self) -> Device {
        Device::Cpu(self.clone())
    }
}

impl Alloc for Cuda {
    fn alloc(&self, bytes: usize) -> Result<Storage> {
        Ok(Storage::Cuda(Buffer::new(self, bytes)?))
    }
}

impl Place for Cuda {
    fn device(&self) -> Device {
        Device::Cuda(self.clone())
    }
}

impl Alloc for Device {
    fn alloc(&self, bytes: usize) -> Result<Storage> {
        match self {
            Device::Cpu(cpu) => cpu.alloc(bytes),
            Device::Cuda(cuda) => cuda.alloc(bytes),
        }
    }
}

impl Place for Device {
    fn device(&self) -> Device {
        self.clone()
    }
}
