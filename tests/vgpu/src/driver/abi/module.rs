//! Modules, functions and their attributes, occupancy.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::super::code::Code;
use super::super::device::{Done, Driver, HandleKind, Refusal};
use super::super::module::{self, Function, Module};
use super::super::occupancy::{self, Needs};
use super::super::queue::Target;
use super::super::report::Kind;
use super::{in_context, put, text};

fn load(d: &mut Driver, context: u64, to: *mut u64, ptx: &str) -> Done {
    let ptx = module::load(ptx, &d.config)?;
    ptx.place(&d.memory).map_err(|e| Refusal::said(Code::OutOfMemory, Kind::OutOfMemory, e.to_string()))?;
    let id = d.handle(HandleKind::Module);
    d.modules.insert(id, Module { context, ptx: Arc::new(ptx) });
    d.tally.modules += 1;
    put(to, id)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(to: *mut u64, image: *const c_void) -> u32 {
    in_context("cuModuleLoadData", |d, c| {
        // SAFETY: the program gives an image as the driver takes it.
        let ptx = unsafe { module::text_at(image.cast()) }?;
        load(d, c, to, ptx)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    to: *mut u64,
    image: *const c_void,
    count: u32,
    options: *const u32,
    values: *const *mut c_void,
) -> u32 {
    const ERROR_LOG: u32 = 5;
    const ERROR_LOG_BYTES: u32 = 6;
    in_context("cuModuleLoadDataEx", |d, c| {
        // SAFETY: the program gives an image as the driver takes it.
        let result = unsafe { module::text_at(image.cast()) }.and_then(|ptx| load(d, c, to, ptx));
        if let Err(Refusal::Said(_, _, why)) = &result
            && !options.is_null()
            && !values.is_null()
        {
            // SAFETY: the program gives `count` options and values.
            let (options, values) = unsafe {
                (
                    std::slice::from_raw_parts(options, count as usize),
                    std::slice::from_raw_parts(values, count as usize),
                )
            };
            let value_of = |option| options.iter().position(|o| *o == option).map(|i| values[i]);
            if let (Some(log), Some(room)) = (value_of(ERROR_LOG), value_of(ERROR_LOG_BYTES))
                && !log.is_null()
                && room as usize > 0
            {
                let n = why.len().min(room as usize - 1);
                // SAFETY: the program gives a log of `room` bytes; n + 1 of them are written.
                unsafe {
                    std::ptr::copy_nonoverlapping(why.as_ptr(), log.cast(), n);
                    *log.cast::<u8>().add(n) = 0;
                }
            }
        }
        result
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoad(to: *mut u64, file: *const c_char) -> u32 {
    in_context("cuModuleLoad", |d, c| {
        let file = text(file, "the name of the file")?;
        let image = std::fs::read(file)
            .map_err(|e| Refusal::said(Code::FileNotFound, Kind::Image, format!("{file}: {e}")))?;
        load(d, c, to, module::text_of(image.strip_suffix(b"\0").unwrap_or(&image))?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadFatBinary(_to: *mut u64, _image: *const c_void) -> u32 {
    in_context("cuModuleLoadFatBinary", |_, _| {
        Err(Refusal::said(
            Code::NoBinaryForGpu,
            Kind::Image,
            "the image is a fatbin; the virtual GPU runs PTX only",
        ))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: u64) -> u32 {
    in_context("cuModuleUnload", |d, c| {
        if !d.modules.contains_key(&module) {
            return Err(Refusal::handle("module", module));
        }
        // Launches that are queued still need its code and its globals.
        d.wait(Target::Group(c), c)?;
        d.unload(module);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(to: *mut u64, module: u64, name: *const c_char) -> u32 {
    in_context("cuModuleGetFunction", |d, _| {
        let name = text(name, "the name of the kernel")?;
        let m = d.modules.get(&module).ok_or_else(|| Refusal::handle("module", module))?;
        // An unknown name is an answer that programs ask for: no report.
        let index = m.ptx.kernels().iter().position(|k| k.name() == name).ok_or(Code::NotFound)?;
        if let Some((id, _)) = d.functions.iter().find(|(_, f)| f.module == module && f.index == index) {
            return put(to, *id);
        }
        let function = Function { module, ptx: m.ptx.clone(), index, optin: 0, carveout: -1 };
        let id = d.handle(HandleKind::Function);
        d.functions.insert(id, function);
        put(to, id)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetGlobal_v2(at: *mut u64, bytes: *mut usize, module: u64, name: *const c_char) -> u32 {
    in_context("cuModuleGetGlobal_v2", |d, _| {
        let name = text(name, "the name of the global")?;
        let m = d.modules.get(&module).ok_or_else(|| Refusal::handle("module", module))?;
        let (address, size) = m.ptx.global(name).ok_or(Code::NotFound)?;
        if !at.is_null() {
            put(at, address)?;
        }
        if bytes.is_null() { Ok(()) } else { put(bytes, size as usize) }
    })
}

fn function(d: &Driver, handle: u64) -> Done<&Function> {
    d.functions.get(&handle).ok_or_else(|| Refusal::handle("function (or its module was unloaded)", handle))
}

/// What a kernel needs, for questions of occupancy.
pub(super) fn needs(d: &Driver, f: &Function) -> Needs {
    let k = f.kernel();
    let most = d.config.props.max_threads_per_block;
    Needs {
        static_shared: k.shared_bytes(),
        max_threads: k.max_threads().map_or(most, |t| t.min(most)),
        optin: f.optin,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetModule(to: *mut u64, f: u64) -> u32 {
    in_context("cuFuncGetModule", |d, _| put(to, function(d, f)?.module))
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(to: *mut i32, attribute: u32, f: u64) -> u32 {
    in_context("cuFuncGetAttribute", |d, _| {
        let f = function(d, f)?;
        let needs = needs(d, f);
        let (major, minor) = f.ptx.version();
        let capability = d.config.props.capability;
        let value = match attribute {
            0 => needs.max_threads,
            1 => needs.static_shared,
            // Constant memory of the kernel and registers: nothing is assembled here, so neither is known.
            2 | 4 => 0,
            3 => f.kernel().local_bytes(),
            5 => major * 10 + minor,
            6 => capability.0 * 10 + capability.1,
            // Caching of globals in the first level; clusters.
            7 | 10..=15 => 0,
            8 => occupancy::max_dynamic_shared(&d.config.props, &needs),
            9 => return put(to, f.carveout),
            other => return Err(Refusal::argument(format!("{other} is no known function attribute"))),
        };
        put(to, value as i32)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(f: u64, attribute: u32, value: i32) -> u32 {
    in_context("cuFuncSetAttribute", |d, _| {
        let needs = needs(d, function(d, f)?);
        let most = d.config.props.shared_per_block_optin.saturating_sub(needs.static_shared);
        let f = d.functions.get_mut(&f).expect("just found");
        match attribute {
            8 if value >= 0 && value as u32 <= most => f.optin = value as u32,
            8 => {
                return Err(Refusal::said(
                    Code::InvalidValue,
                    Kind::LaunchLimit,
                    format!(
                        "{value} bytes of dynamic shared memory for `{}`, at most {most}",
                        f.kernel().name()
                    ),
                ));
            }
            9 if (-1..=100).contains(&value) => f.carveout = value,
            other => {
                return Err(Refusal::argument(format!(
                    "function attribute {other} cannot be set to {value}"
                )));
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetCacheConfig(f: u64, config: u32) -> u32 {
    in_context("cuFuncSetCacheConfig", |d, _| {
        function(d, f)?;
        if config > 3 {
            Err(Refusal::argument(format!("{config} is no cache configuration")))
        } else {
            Ok(())
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    to: *mut i32,
    f: u64,
    threads: i32,
    dynamic: usize,
) -> u32 {
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(to, f, threads, dynamic, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    to: *mut i32,
    f: u64,
    threads: i32,
    dynamic: usize,
    _flags: u32,
) -> u32 {
    in_context("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", |d, _| {
        let needs = needs(d, function(d, f)?);
        let threads = u32::try_from(threads).ok().filter(|t| *t > 0);
        let threads = threads.ok_or_else(|| Refusal::argument("a block without threads"))?;
        put(to, occupancy::blocks(&d.config.props, &needs, threads, dynamic as u64) as i32)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    to: *mut usize,
    f: u64,
    blocks: i32,
    threads: i32,
) -> u32 {
    in_context("cuOccupancyAvailableDynamicSMemPerBlock", |d, _| {
        let needs = needs(d, function(d, f)?);
        let (Ok(blocks), Ok(threads)) = (u32::try_from(blocks), u32::try_from(threads)) else {
            return Err(Refusal::argument("a negative number of blocks or threads"));
        };
        let bytes = occupancy::dynamic_for(&d.config.props, &needs, blocks, threads)
            .ok_or_else(|| Refusal::argument(format!("{blocks} blocks of {threads} threads do not fit")))?;
        put(to, bytes as usize)
    })
}

type BlockToShared = Option<extern "C" fn(i32) -> usize>;

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: *mut i32,
    block: *mut i32,
    f: u64,
    dynamic_of: BlockToShared,
    dynamic: usize,
    limit: i32,
) -> u32 {
    cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, f, dynamic_of, dynamic, limit, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: *mut i32,
    block: *mut i32,
    f: u64,
    dynamic_of: BlockToShared,
    dynamic: usize,
    limit: i32,
    _flags: u32,
) -> u32 {
    in_context("cuOccupancyMaxPotentialBlockSizeWithFlags", |d, _| {
        let needs = needs(d, function(d, f)?);
        let shared = |threads: u32| dynamic_of.map_or(dynamic, |of| of(threads as i32)) as u64;
        let (blocks, threads) = occupancy::best_block(&d.config.props, &needs, limit.max(0) as u32, shared);
        put(grid, blocks as i32)?;
        put(block, threads as i32)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveClusters(_to: *mut i32, _f: u64, _config: *const c_void) -> u32 {
    in_context("cuOccupancyMaxActiveClusters", |_, _| Err(Refusal::unsupported("clusters of blocks")))
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialClusterSize(_to: *mut i32, _f: u64, _config: *const c_void) -> u32 {
    in_context("cuOccupancyMaxPotentialClusterSize", |_, _| Err(Refusal::unsupported("clusters of blocks")))
}
