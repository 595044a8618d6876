//! Kernel launches. Everything that can be known is checked at the call, as the driver does.

use std::ffi::c_void;
use std::sync::Arc;

use super::super::code::Code;
use super::super::device::{Done, Driver, Refusal};
use super::super::host::read_carefully;
use super::super::module::Function;
use super::super::occupancy;
use super::super::report::Kind;
use super::super::work::{KernelCall, Op};
use super::in_context;
use super::module::needs;
use crate::exec;

/// `CU_LAUNCH_PARAM_*`: how the `extra` list of a launch is read.
const PARAM_END: usize = 0;
const PARAM_POINTER: usize = 1;
const PARAM_SIZE: usize = 2;

struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    cooperative: bool,
}

/// Gathers the parameter buffer through the list of pointers. The list has no length, so all that can be noticed is a
/// pointer that cannot be read.
fn gather(f: &Function, list: *const *const c_void) -> Done<Vec<u8>> {
    let kernel = f.kernel();
    let mut buffer = vec![0; kernel.param_bytes() as usize];
    let wrong = |text: String| Refusal::said(Code::InvalidValue, Kind::Parameters, text);
    let total = kernel.params().len();
    for (i, p) in kernel.params().iter().enumerate() {
        let few = format!("kernel `{}` takes {total} parameters; were fewer given?", kernel.name());
        // SAFETY: the program gives one pointer per parameter.
        let at = unsafe { list.add(i).read_unaligned() } as usize;
        if at == 0 {
            return Err(wrong(format!("the pointer to parameter {i} (`{}`) is null; {few}", p.name)));
        }
        let bytes = read_carefully(at, p.size as usize)
            .map_err(|e| wrong(format!("parameter {i} (`{}`): {e}; {few}", p.name)))?;
        buffer[p.offset as usize..(p.offset + p.size) as usize].copy_from_slice(&bytes);
    }
    Ok(buffer)
}

/// Takes the parameter buffer from the `extra` list, which says its size.
fn unpack(f: &Function, extra: *const *const c_void) -> Done<Vec<u8>> {
    let (mut buffer, mut size) = (0, None);
    let mut i = 0;
    loop {
        // SAFETY: the program gives key and value pairs up to an end mark.
        let key = unsafe { extra.add(i).read_unaligned() } as usize;
        match key {
            PARAM_END => break,
            // SAFETY: a value follows every key.
            PARAM_POINTER => buffer = unsafe { extra.add(i + 1).read_unaligned() } as usize,
            PARAM_SIZE => {
                // SAFETY: a value follows every key; this one points to the size.
                size = Some(unsafe { extra.add(i + 1).read_unaligned().cast::<usize>().read_unaligned() })
            }
            other => return Err(Refusal::argument(format!("{other:#x} is no key of a launch's extra list"))),
        }
        i += 2;
    }
    let wanted = f.kernel().param_bytes() as usize;
    if size != Some(wanted) {
        return Err(Refusal::said(
            Code::InvalidValue,
            Kind::Parameters,
            format!(
                "{} bytes of parameters for kernel `{}`, which takes {wanted}",
                size.unwrap_or(0),
                f.kernel().name()
            ),
        ));
    }
    read_carefully(buffer, wanted).map_err(|e| {
        Refusal::said(Code::InvalidValue, Kind::Parameters, format!("the parameter buffer: {e}"))
    })
}

fn launch(
    d: &mut Driver,
    context: u64,
    name: &'static str,
    function: u64,
    shape: &Shape,
    stream: u64,
    (params, extra): (*const *const c_void, *const *const c_void),
) -> Done {
    let stream = d.stream(context, stream)?;
    let f = d.functions.get(&function);
    let f = f.ok_or_else(|| Refusal::handle("function (or its module was unloaded)", function))?;
    let buffer = match (f.kernel().params().is_empty(), params.is_null(), extra.is_null()) {
        (_, false, false) => return Err(Refusal::argument("both a list and a buffer of parameters")),
        (_, true, false) => unpack(f, extra)?,
        (true, _, true) => Vec::new(),
        (false, false, true) => gather(f, params)?,
        (false, true, true) => {
            return Err(Refusal::said(
                Code::InvalidValue,
                Kind::Parameters,
                format!(
                    "kernel `{}` takes {} parameters, none were given",
                    f.kernel().name(),
                    f.kernel().params().len()
                ),
            ));
        }
    };
    let call = KernelCall {
        ptx: f.ptx.clone(),
        index: f.index,
        module: f.module,
        grid: shape.grid,
        block: shape.block,
        dynamic_shared: shape.shared,
        optin: f.optin,
        cooperative: shape.cooperative,
        params: buffer,
    };
    exec::validate(call.kernel(), &call.launch(d.config.seed), &d.config.props)
        .map_err(|fault| Refusal::said(Code::InvalidValue, fault.kind.into(), fault.to_string()))?;
    if shape.cooperative {
        let threads: u32 = shape.block.iter().product();
        let each = occupancy::blocks(&d.config.props, &needs(d, f), threads, u64::from(shape.shared));
        let room = u64::from(each) * u64::from(d.config.props.multiprocessors);
        let wanted: u64 = shape.grid.iter().map(|g| u64::from(*g)).product();
        if wanted > room {
            return Err(Refusal::said(
                Code::CooperativeLaunchTooLarge,
                Kind::LaunchLimit,
                format!(
                    "{wanted} blocks of `{}` wait for each other, {room} fit on the device",
                    call.kernel().name()
                ),
            ));
        }
    }
    d.submit(name, stream, Op::Kernel(Arc::new(call)))
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: u64,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: u64,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> u32 {
    let name = "cuLaunchKernel";
    let grid = [grid_x, grid_y, grid_z];
    let shape = Shape { grid, block: [block_x, block_y, block_z], shared, cooperative: false };
    in_context(name, |d, c| launch(d, c, name, function, &shape, stream, (params, extra)))
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchCooperativeKernel(
    function: u64,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: u64,
    params: *const *const c_void,
) -> u32 {
    let name = "cuLaunchCooperativeKernel";
    let grid = [grid_x, grid_y, grid_z];
    let shape = Shape { grid, block: [block_x, block_y, block_z], shared, cooperative: true };
    in_context(name, |d, c| launch(d, c, name, function, &shape, stream, (params, std::ptr::null())))
}

/// `CUlaunchAttribute`: a number, four bytes of padding, 64 bytes of value.
#[repr(C)]
struct LaunchAttribute {
    id: u32,
    padding: u32,
    value: [u64; 8],
}

/// `CUlaunchConfig`.
#[repr(C)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: u64,
    attributes: *const LaunchAttribute,
    count: u32,
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernelEx(
    config: *const LaunchConfig,
    function: u64,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> u32 {
    const IGNORE: u32 = 0;
    const COOPERATIVE: u32 = 2;
    const PRIORITY: u32 = 8;
    let name = "cuLaunchKernelEx";
    in_context(name, |d, c| {
        if config.is_null() {
            return Err(Refusal::argument("a null launch configuration"));
        }
        // SAFETY: not null, and the program gives a configuration.
        let config = unsafe { config.read_unaligned() };
        let mut shape =
            Shape { grid: config.grid, block: config.block, shared: config.shared, cooperative: false };
        for i in 0..if config.attributes.is_null() { 0 } else { config.count as usize } {
            // SAFETY: the program gives `count` attributes.
            let a = unsafe { config.attributes.add(i).read_unaligned() };
            match a.id {
                IGNORE | PRIORITY => {}
                COOPERATIVE => shape.cooperative = a.value[0] as u32 != 0,
                other => return Err(Refusal::unsupported(format!("launch attribute {other}"))),
            }
        }
        launch(d, c, name, function, &shape, config.stream, (params, extra))
    })
}
