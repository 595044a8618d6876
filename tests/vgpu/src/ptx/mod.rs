//! PTX text to typed instructions. Strict: an opcode, modifier, register or directive that it does not know is an
//! error with kernel, line and text, never ignored.

use thiserror::Error;

use crate::memory::{Memory, MemoryError};

/// Why a module was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("ptx line {line}{in_kernel}: {kind}: `{text}`", in_kernel = InKernel(kernel))]
pub struct LoadError {
    /// Kernel or function, if inside one.
    pub kernel: Option<String>,
    /// Line of the text, counted from 1.
    pub line: u32,
    /// The text in question (a statement or a token).
    pub text: String,
    /// What is wrong with it.
    pub kind: LoadErrorKind,
}

struct InKernel<'a>(&'a Option<String>);

impl std::fmt::Display for InKernel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(k) => write!(f, " in `{k}`"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a piece of PTX.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoadErrorKind {
    /// Not PTX at this place.
    #[error("expected {expected}")]
    Syntax {
        /// What the grammar wants here.
        expected: &'static str,
    },
}

/// A parameter of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Name in the PTX.
    pub name: String,
    /// Offset in the parameter buffer, in bytes.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
    /// Alignment in bytes.
    pub align: u32,
}

/// An entry of a module, ready to launch.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    pub(crate) shared_bytes: u32,
    pub(crate) local_bytes: u32,
    pub(crate) max_threads: Option<u32>,
}

impl Kernel {
    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Size of the parameter buffer in bytes.
    pub fn param_bytes(&self) -> u32 {
        self.params.last().map_or(0, |p| p.offset + p.size)
    }

    /// Static shared memory in bytes.
    pub fn shared_bytes(&self) -> u32 {
        self.shared_bytes
    }

    /// Local memory of a thread in bytes.
    pub fn local_bytes(&self) -> u32 {
        self.local_bytes
    }

    /// Largest block from `.maxntid` or `.reqntid`, in threads.
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }
}

/// A loaded PTX text.
#[derive(Debug, Default)]
pub struct Module {
    kernels: Vec<Kernel>,
    version: (u32, u32),
    target: u32,
}

impl Module {
    /// Decodes a PTX text.
    ///
    /// # Errors
    /// The first thing that is unknown or wrong, by kernel, line and text.
    pub fn load(text: &str) -> Result<Module, LoadError> {
        let _ = text;
        Ok(Module::default())
    }

    /// Puts the module's globals and constants into device memory. To be called once, before a launch.
    ///
    /// # Errors
    /// No room.
    pub fn place(&self, memory: &Memory) -> Result<(), MemoryError> {
        let _ = memory;
        Ok(())
    }

    /// Takes the module's globals and constants out of device memory again.
    ///
    /// # Errors
    /// As [`Memory::free`].
    pub fn unplace(&self, memory: &Memory) -> Result<(), MemoryError> {
        let _ = memory;
        Ok(())
    }

    /// An entry by name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }

    /// All entries.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Address and size in bytes of a global or constant; `None` if unknown or not placed.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        let _ = name;
        None
    }

    /// `.version` (major, minor).
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// `.target sm_NN` as major * 10 + minor.
    pub fn target(&self) -> u32 {
        self.target
    }
}
