//! Modules and functions of a device, and borrowed ranges of its memory.
//!
//! Streams are ordered by the caller: a launch neither waits for events nor records any.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, DriverError,
    LaunchConfig, result, sys,
};

use crate::error::{KernelError, Result};

/// Shared memory that a launch gets without asking, in bytes.
const PLAIN_SHARED: u32 = 48 << 10;

/// Type of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// Brain float: the upper half of an f32.
    Bf16,
    /// 32-bit integer.
    I32,
    /// Byte without a sign, such as a pixel.
    U8,
    /// 64-bit float.
    F64,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::Bf16 => 2,
            DType::U8 => 1,
            DType::F64 => 8,
        }
    }

    /// The part of a kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::F64 => "f64",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The function after an affine map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// The identity.
    None,
    /// `max(u, 0)`.
    Relu,
    /// `min(max(u, 0), 6)`.
    Relu6,
    /// `u * relu6(u + 3) / 6`.
    HSwish,
    /// `u * sigmoid(u)`.
    Swish,
}

impl Act {
    /// Every activation.
    pub const ALL: [Act; 5] = [Act::None, Act::Relu, Act::Relu6, Act::HSwish, Act::Swish];

    /// The kernel's variant, with the bounds of its clamp.
    pub(crate) fn variant(self) -> (&'static str, f32, f32) {
        match self {
            Act::None => ("clamp", f32::NEG_INFINITY, f32::INFINITY),
            Act::Relu => ("clamp", 0.0, f32::INFINITY),
            Act::Relu6 => ("clamp", 0.0, 6.0),
            Act::HSwish => ("hswish", 0.0, 0.0),
            Act::Swish => ("swish", 0.0, 0.0),
        }
    }
}

/// What happens to the memory that a result goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Write {
    /// It is overwritten, whatever was there.
    Store,
    /// The result is added to what is there.
    Add,
}

impl Write {
    /// The kernels' flag.
    pub(crate) fn adds(self) -> i32 {
        i32::from(self == Write::Add)
    }
}

/// Element types of buffers.
pub trait Element: DeviceRepr {
    /// Its tag.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}

impl Element for half::bf16 {
    const DTYPE: DType = DType::Bf16;
}

impl Element for u8 {
    const DTYPE: DType = DType::U8;
}

impl Element for f64 {
    const DTYPE: DType = DType::F64;
}

impl Element for i32 {
    const DTYPE: DType = DType::I32;
}

/// Device memory that a kernel reads.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    address: u64,
    len: usize,
    dtype: DType,
    life: PhantomData<&'a ()>,
}

impl<'a> Input<'a> {
    /// Borrows a buffer for launches in a stream.
    pub fn new<T: Element>(buffer: &'a impl DevicePtr<T>, stream: &'a CudaStream) -> Input<'a> {
        let (address, _tracked) = buffer.device_ptr(stream);
        Input { address, len: buffer.len(), dtype: T::DTYPE, life: PhantomData }
    }

    /// Borrows `len` elements at an address, for whoever keeps memory without cudarc's types.
    ///
    /// # Safety
    /// As long as `'a`, so many elements of that type lie there, and nobody writes them but launches of one stream.
    pub unsafe fn at(address: u64, len: usize, dtype: DType) -> Input<'a> {
        Input { address, len, dtype, life: PhantomData }
    }
}

/// Device memory that a kernel writes.
#[derive(Debug)]
pub struct Output<'a>(Input<'a>);

impl<'a> Output<'a> {
    /// Borrows a buffer for launches in a stream.
    pub fn new<T: Element>(buffer: &'a mut impl DevicePtrMut<T>, stream: &'a CudaStream) -> Output<'a> {
        let len = buffer.len();
        let (address, _tracked) = buffer.device_ptr_mut(stream);
        Output(Input { address, len, dtype: T::DTYPE, life: PhantomData })
    }

    /// Borrows `len` elements at an address, for whoever keeps memory without cudarc's types.
    ///
    /// # Safety
    /// As long as `'a`, so many elements of that type lie there, and nobody else reads or writes them but launches of
    /// one stream.
    pub unsafe fn at(address: u64, len: usize, dtype: DType) -> Output<'a> {
        Output(Input { address, len, dtype, life: PhantomData })
    }
}

/// The modules of one context, loaded when a kernel of theirs is first asked for.
#[derive(Debug)]
pub struct Device {
    context: Arc<CudaContext>,
    modules: Mutex<HashMap<&'static str, Arc<CudaModule>>>,
    counters: Mutex<Option<Arc<Counters>>>,
}

/// Numbers by which the blocks of a launch learn who of them is the last: zero before and after every launch. The stream
/// orders launches, so all kernels of a device share them.
#[derive(Debug)]
struct Counters {
    context: Arc<CudaContext>,
    address: u64,
}

impl Counters {
    /// As many as a launch has groups of blocks, in bytes.
    const BYTES: usize = 4 << 10;

    fn new(context: &Arc<CudaContext>) -> std::result::Result<Counters, DriverError> {
        context.bind_to_thread()?;
        // SAFETY: memory that nobody else knows, filled as far as it reaches before anybody reads it.
        let address = unsafe {
            let address = result::malloc_sync(Counters::BYTES)?;
            result::memset_d8_sync(address, 0, Counters::BYTES)?;
            address
        };
        // Streams that wait for no other one must find them filled.
        context.synchronize()?;
        Ok(Counters { context: context.clone(), address })
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // A context that ended took the memory with it, and nobody is left to tell.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the address came from the driver; kernels that know it are gone, and the call waits for launches.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

impl Device {
    /// Kernels of a context.
    pub fn new(context: Arc<CudaContext>) -> Device {
        Device { context, modules: Mutex::default(), counters: Mutex::default() }
    }

    /// The kernel `name` of the image `file`, allowed to use `shared` bytes of dynamic shared memory.
    pub(crate) fn kernel(&self, file: &Image, name: String, shared: u32) -> Result<Kernel> {
        let failed = |what, name: &str| {
            let name = name.to_string();
            move |source| KernelError::Driver { what, name, source }
        };
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(file.name) {
            Some(module) => module.clone(),
            None => {
                let loaded =
                    self.context.load_module(file.ptx.into()).map_err(failed("cannot load", file.name))?;
                modules.insert(file.name, loaded.clone());
                loaded
            }
        };
        let function = module.load_function(&name).map_err(failed("cannot find", &name))?;
        if shared > PLAIN_SHARED {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function
                .set_attribute(attribute, shared as i32)
                .map_err(failed("not enough shared memory for", &name))?;
        }
        Ok(Kernel { function, name, shared, counters: None })
    }
}

/// PTX that ships.
#[derive(Debug)]
pub(crate) struct Image {
    pub name: &'static str,
    pub ptx: &'static str,
}

/// The image made from `src/NAME.cu`.
macro_rules! image {
    ($name:literal) => {
        $crate::device::Image { name: $name, ptx: include_str!(concat!("../ptx/", $name, ".ptx")) }
    };
}
pub(crate) use image;

/// A loaded kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    function: CudaFunction,
    pub name: String,
    shared: u32,
    counters: Option<Arc<Counters>>,
}

/// One argument of a launch.
pub(crate) enum Arg<'a> {
    /// Name, buffer, elements that the kernel reads.
    In(&'static str, Input<'a>, DType, usize),
    /// Name, buffer, elements that the kernel writes, or reads and writes.
    Out(&'static str, Output<'a>, DType, usize),
    /// A null address.
    Null,
    /// Where blocks count themselves, for a kernel that was made [`counting`](Kernel::counting).
    Counters,
}

impl<'a> Arg<'a> {
    /// A buffer that may be absent.
    pub fn perhaps(name: &'static str, buffer: Option<Input<'a>>, dtype: DType, len: usize) -> Arg<'a> {
        buffer.map_or(Arg::Null, |b| Arg::In(name, b, dtype, len))
    }

    /// A buffer to write that may be absent.
    pub fn perhaps_out(name: &'static str, buffer: Option<Output<'a>>, dtype: DType, len: usize) -> Arg<'a> {
        buffer.map_or(Arg::Null, |b| Arg::Out(name, b, dtype, len))
    }
}

impl Kernel {
    /// The kernel with counters, zero between launches, of which it uses at most 1,024.
    pub fn counting(self, device: &Device) -> Result<Kernel> {
        let mut counters = device.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = match &*counters {
            Some(counters) => counters.clone(),
            None => {
                let failed = |source| KernelError::Driver {
                    what: "no memory for the counters of",
                    name: self.name.clone(),
                    source,
                };
                counters.insert(Arc::new(Counters::new(&device.context).map_err(failed)?)).clone()
            }
        };
        Ok(Kernel { counters: Some(counters), ..self })
    }

    /// Checks the buffers and launches, with the dimensions as the last argument.
    ///
    /// # Safety
    /// The kernel takes exactly these arguments and touches no more of them than is said.
    pub unsafe fn launch<D: DeviceRepr>(
        &self,
        stream: &CudaStream,
        grid: [u32; 3],
        threads: u32,
        args: &[Arg<'_>],
        dims: &D,
    ) -> Result<()> {
        let mut addresses = [0u64; 16];
        for (to, arg) in addresses.iter_mut().zip(args) {
            *to = self.address(arg)?;
        }
        let mut launch = stream.launch_builder(&self.function);
        use cudarc::driver::PushKernelArg;
        addresses[..args.len()].iter().for_each(|a| {
            launch.arg(a);
        });
        launch.arg(dims);
        let config =
            LaunchConfig { grid_dim: grid.into(), block_dim: (threads, 1, 1), shared_mem_bytes: self.shared };
        // SAFETY: the caller's promise; the sizes were checked above.
        unsafe { launch.launch(config) }.map_err(|source| KernelError::Driver {
            what: "cannot launch",
            name: self.name.clone(),
            source,
        })?;
        Ok(())
    }

    /// The address of an argument whose buffer has been checked.
    pub fn address(&self, arg: &Arg<'_>) -> Result<u64> {
        Ok(match arg {
            Arg::In(name, buffer, dtype, len) | Arg::Out(name, Output(buffer), dtype, len) => {
                self.check(name, buffer, *dtype, *len)?;
                buffer.address
            }
            Arg::Null => 0,
            Arg::Counters => self.counters.as_ref().expect("the kernel was made counting").address,
        })
    }

    fn check(&self, argument: &'static str, b: &Input<'_>, dtype: DType, needed: usize) -> Result<()> {
        let kernel = || self.name.clone();
        if b.dtype != dtype {
            return Err(KernelError::Type { kernel: kernel(), argument, expected: dtype, found: b.dtype });
        }
        if b.len < needed {
            return Err(KernelError::TooShort { kernel: kernel(), argument, needed, found: b.len });
        }
        // Vectors of 16 bytes; allocations of the driver begin at multiples of 256.
        if !b.address.is_multiple_of(16) {
            return Err(KernelError::Alignment { kernel: kernel(), argument, address: b.address });
        }
        Ok(())
    }
}
