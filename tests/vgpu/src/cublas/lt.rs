//! cuBLASLt: products described by objects.
#![allow(non_snake_case, reason = "the names of the library's interface")]
#![allow(clippy::too_many_arguments, reason = "the signatures of the library's interface")]

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::gemm::{Activation, Compute, Gemm, Matrix, Scalar};
use super::number::Element;
use super::{get, plain, put, with_context};
use crate::driver::device::{Done, Driver, HandleKind, Refusal};
use crate::driver::work::Op;

/// Objects of the library.
#[derive(Debug, Default)]
pub struct Objects {
    handles: BTreeMap<u64, ()>,
    products: BTreeMap<u64, Description>,
    layouts: BTreeMap<u64, Layout>,
    preferences: BTreeMap<u64, u64>,
}

/// `cublasLtMatmulDesc_t`.
#[derive(Debug, Clone, Copy)]
struct Description {
    compute: Compute,
    scalar: Element,
    device_scalars: bool,
    transpose_a: bool,
    transpose_b: bool,
    epilogue: u32,
    bias: u64,
    bias_stride: i64,
}

/// `cublasLtMatrixLayout_t`: column order.
#[derive(Debug, Clone, Copy)]
struct Layout {
    element: Element,
    rows: u64,
    columns: u64,
    ld: i64,
    batch: u64,
    stride: i64,
}

/// `cublasLtMatmulAlgo_t`.
type Algorithm = [u64; 8];

/// Marks an algorithm that the stand-in chose.
const ALGORITHM: Algorithm = [u64::from_le_bytes(*b"monopath"), 0, 0, 0, 0, 0, 0, 0];

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
struct Heuristic {
    algorithm: Algorithm,
    workspace: usize,
    status: u32,
    waves: f32,
    reserved: [i32; 4],
}

fn element(number: u32) -> Done<Element> {
    Element::of_data_type(number)
        .ok_or_else(|| Refusal::unsupported(format!("matrices of data type {number}")))
}

fn find<T: Copy>(map: &BTreeMap<u64, T>, handle: u64, what: &str) -> Done<T> {
    map.get(&handle).copied().ok_or_else(|| Refusal::argument(format!("{handle:#x} is no living {what}")))
}

/// Reads an attribute whose size the program gives.
fn attribute<T: Copy>(from: *const c_void, bytes: usize) -> Done<T> {
    if bytes < size_of::<T>() {
        return Err(Refusal::argument(format!("{bytes} bytes for an attribute of {}", size_of::<T>())));
    }
    get(from.cast(), "the attribute")
}

/// Makes an object.
fn create<T>(
    function: &'static str,
    to: *mut u64,
    object: impl FnOnce() -> Done<T>,
    table: impl FnOnce(&mut Objects) -> &mut BTreeMap<u64, T>,
) -> u32 {
    plain(function, |d| {
        let object = object()?;
        let id = d.handle(HandleKind::Library);
        put(to, id)?;
        table(&mut d.libraries.lt).insert(id, object);
        Ok(())
    })
}

/// Forgets an object.
fn destroy<T>(
    function: &'static str,
    handle: u64,
    table: impl FnOnce(&mut Objects) -> &mut BTreeMap<u64, T>,
) -> u32 {
    plain(function, |d| match table(&mut d.libraries.lt).remove(&handle) {
        Some(_) => Ok(()),
        None => Err(Refusal::argument(format!("{handle:#x} is no living object of cuBLASLt"))),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtCreate(handle: *mut u64) -> u32 {
    with_context("cublasLtCreate", |d, _| {
        let id = d.handle(HandleKind::Library);
        put(handle, id)?;
        d.libraries.lt.handles.insert(id, ());
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtDestroy(handle: u64) -> u32 {
    destroy("cublasLtDestroy", handle, |o| &mut o.handles)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtGetVersion() -> usize {
    120_001
}

/// The stand-in writes no log; its reports are better.
#[unsafe(no_mangle)]
extern "C" fn cublasLtLoggerSetLevel(_level: i32) -> u32 {
    0
}

/// As [`cublasLtLoggerSetLevel`].
#[unsafe(no_mangle)]
extern "C" fn cublasLtLoggerOpenFile(_file: *const c_char) -> u32 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescCreate(to: *mut u64, compute: u32, scalar: u32) -> u32 {
    let make = || {
        Ok(Description {
            compute: Compute::of_number(compute)?,
            scalar: element(scalar)?,
            device_scalars: false,
            transpose_a: false,
            transpose_b: false,
            epilogue: EPILOGUE_DEFAULT,
            bias: 0,
            bias_stride: 0,
        })
    };
    create("cublasLtMatmulDescCreate", to, make, |o| &mut o.products)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescDestroy(handle: u64) -> u32 {
    destroy("cublasLtMatmulDescDestroy", handle, |o| &mut o.products)
}

fn transposed(operation: u32) -> Done<bool> {
    match operation {
        0 => Ok(false),
        1 | 2 => Ok(true),
        other => Err(Refusal::argument(format!("{other} is no operation on a matrix"))),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescSetAttribute(
    handle: u64,
    which: u32,
    from: *const c_void,
    bytes: usize,
) -> u32 {
    plain("cublasLtMatmulDescSetAttribute", |d| {
        let mut p = find(&d.libraries.lt.products, handle, "description of a product")?;
        match which {
            0 => p.compute = Compute::of_number(attribute(from, bytes)?)?,
            1 => p.scalar = element(attribute(from, bytes)?)?,
            2 => match attribute::<u32>(from, bytes)? {
                mode @ 0..=1 => p.device_scalars = mode == 1,
                mode => return Err(Refusal::unsupported(format!("pointer mode {mode}"))),
            },
            3 => p.transpose_a = transposed(attribute(from, bytes)?)?,
            4 => p.transpose_b = transposed(attribute(from, bytes)?)?,
            5 => {
                if transposed(attribute(from, bytes)?)? {
                    return Err(Refusal::unsupported("a transposed C (cuBLASLt itself has none)"));
                }
            }
            7 => p.epilogue = attribute(from, bytes)?,
            8 => p.bias = attribute(from, bytes)?,
            10 => p.bias_stride = attribute(from, bytes)?,
            other => return Err(Refusal::unsupported(format!("attribute {other} of a product"))),
        }
        d.libraries.lt.products.insert(handle, p);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutCreate(
    to: *mut u64,
    data_type: u32,
    rows: u64,
    columns: u64,
    ld: i64,
) -> u32 {
    let make = || Ok(Layout { element: element(data_type)?, rows, columns, ld, batch: 1, stride: 0 });
    create("cublasLtMatrixLayoutCreate", to, make, |o| &mut o.layouts)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutDestroy(handle: u64) -> u32 {
    destroy("cublasLtMatrixLayoutDestroy", handle, |o| &mut o.layouts)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutSetAttribute(
    handle: u64,
    which: u32,
    from: *const c_void,
    bytes: usize,
) -> u32 {
    plain("cublasLtMatrixLayoutSetAttribute", |d| {
        let mut l = find(&d.libraries.lt.layouts, handle, "matrix layout")?;
        match which {
            0 => l.element = element(attribute(from, bytes)?)?,
            1 => match attribute::<u32>(from, bytes)? {
                0 => {}
                order => {
                    return Err(Refusal::unsupported(format!("matrix order {order} (column order is 0)")));
                }
            },
            2 => l.rows = attribute(from, bytes)?,
            3 => l.columns = attribute(from, bytes)?,
            4 => l.ld = attribute(from, bytes)?,
            5 => {
                let count: i32 = attribute(from, bytes)?;
                l.batch =
                    u64::try_from(count).map_err(|_| Refusal::argument(format!("a batch of {count}")))?;
            }
            6 => l.stride = attribute(from, bytes)?,
            other => return Err(Refusal::unsupported(format!("attribute {other} of a matrix layout"))),
        }
        d.libraries.lt.layouts.insert(handle, l);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceCreate(to: *mut u64) -> u32 {
    create("cublasLtMatmulPreferenceCreate", to, || Ok(0), |o| &mut o.preferences)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceDestroy(handle: u64) -> u32 {
    destroy("cublasLtMatmulPreferenceDestroy", handle, |o| &mut o.preferences)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    handle: u64,
    which: u32,
    from: *const c_void,
    bytes: usize,
) -> u32 {
    plain("cublasLtMatmulPreferenceSetAttribute", |d| {
        find(&d.libraries.lt.preferences, handle, "preference")?;
        // Most preferences choose among algorithms; there is one.
        if which == 1 {
            let most: u64 = attribute(from, bytes)?;
            d.libraries.lt.preferences.insert(handle, most);
        }
        Ok(())
    })
}

const EPILOGUE_DEFAULT: u32 = 1;
const EPILOGUE_RELU: u32 = 2;
const EPILOGUE_BIAS: u32 = 4;
const EPILOGUE_GELU: u32 = 32;

/// What follows a product: with a bias or not, and the activation.
fn epilogue(number: u32) -> Done<(bool, Activation)> {
    let bias = number & EPILOGUE_BIAS != 0;
    let activation = match number & !EPILOGUE_BIAS {
        0 | EPILOGUE_DEFAULT => Activation::None,
        EPILOGUE_RELU => Activation::Relu,
        EPILOGUE_GELU => Activation::Gelu,
        _ => return Err(Refusal::unsupported(format!("epilogue {number}"))),
    };
    if number == 0 || number == (EPILOGUE_DEFAULT | EPILOGUE_BIAS) {
        return Err(Refusal::argument(format!("{number} is no epilogue")));
    }
    Ok((bias, activation))
}

/// Addresses of A, B, C, D.
type Places = [u64; 4];

/// The product that objects describe, with its sizes checked.
fn product(
    d: &Driver,
    description: u64,
    layouts: [u64; 4],
    at: Places,
    scalars: (Scalar, Scalar),
) -> Done<Gemm> {
    let p = find(&d.libraries.lt.products, description, "description of a product")?;
    let [a, b, c, out] = layouts.map(|l| find(&d.libraries.lt.layouts, l, "matrix layout"));
    let (a, b, c, out) = (a?, b?, c?, out?);
    if p.scalar != p.compute.scalar {
        return Err(Refusal::unsupported(format!(
            "scalars of {:?} with {:?} products",
            p.scalar, p.compute.scalar
        )));
    }
    p.compute.check(a.element, b.element, out.element)?;
    if c.element != out.element {
        return Err(Refusal::unsupported("C and D of different types"));
    }
    let (m, k) = if p.transpose_a { (a.columns, a.rows) } else { (a.rows, a.columns) };
    let (k2, n) = if p.transpose_b { (b.columns, b.rows) } else { (b.rows, b.columns) };
    if k != k2 || (c.rows, c.columns) != (m, n) || (out.rows, out.columns) != (m, n) {
        return Err(Refusal::argument(format!(
            "op(A) is {m} x {k}, op(B) is {k2} x {n}, C is {} x {}, D is {} x {}",
            c.rows, c.columns, out.rows, out.columns
        )));
    }
    let batch = out.batch;
    if [a.batch, b.batch, c.batch].iter().any(|n| *n != batch && *n != 1) {
        return Err(Refusal::argument(format!(
            "batches of {}, {}, {} and {batch} matrices",
            a.batch, b.batch, c.batch
        )));
    }
    let matrix = |name, l: Layout, at| Matrix {
        name,
        at,
        element: l.element,
        rows: l.rows,
        columns: l.columns,
        ld: l.ld,
        stride: if l.batch == 1 { 0 } else { l.stride },
    };
    let (has_bias, activation) = epilogue(p.epilogue)?;
    if has_bias && p.bias == 0 {
        return Err(Refusal::argument("an epilogue with a bias, but no bias was given"));
    }
    let gemm = Gemm {
        transpose_a: p.transpose_a,
        transpose_b: p.transpose_b,
        k,
        a: matrix('A', a, at[0]),
        b: matrix('B', b, at[1]),
        c: matrix('C', c, at[2]),
        d: matrix('D', out, at[3]),
        batch,
        alpha: scalars.0,
        beta: scalars.1,
        bias: has_bias.then_some((p.bias, out.element, p.bias_stride)),
        activation,
    };
    gemm.check()?;
    Ok(gemm)
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    handle: u64,
    description: u64,
    a: u64,
    b: u64,
    c: u64,
    out: u64,
    preference: u64,
    wanted: i32,
    results: *mut Heuristic,
    found: *mut i32,
) -> u32 {
    plain("cublasLtMatmulAlgoGetHeuristic", |d| {
        find(&d.libraries.lt.handles, handle, "cuBLASLt handle")?;
        find(&d.libraries.lt.preferences, preference, "preference")?;
        if wanted < 1 {
            return Err(Refusal::argument(format!("{wanted} algorithms wanted")));
        }
        // Addresses are not known yet; a stand-in keeps the other checks going.
        let one = Scalar::Known(1.0);
        product(d, description, [a, b, c, out], [1 << 20; 4], (one, one))?;
        put(
            results,
            Heuristic { algorithm: ALGORITHM, workspace: 0, status: 0, waves: 1.0, reserved: [0; 4] },
        )?;
        put(found, 1)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmul(
    handle: u64,
    description: u64,
    alpha: *const c_void,
    a: u64,
    a_layout: u64,
    b: u64,
    b_layout: u64,
    beta: *const c_void,
    c: u64,
    c_layout: u64,
    out: u64,
    out_layout: u64,
    algorithm: *const Algorithm,
    workspace: u64,
    workspace_bytes: usize,
    stream: u64,
) -> u32 {
    let function = "cublasLtMatmul";
    with_context(function, |d, context| {
        find(&d.libraries.lt.handles, handle, "cuBLASLt handle")?;
        let p = find(&d.libraries.lt.products, description, "description of a product")?;
        if !algorithm.is_null() && get(algorithm, "the algorithm")? != ALGORITHM {
            return Err(Refusal::argument("the algorithm was not chosen by cublasLtMatmulAlgoGetHeuristic"));
        }
        if workspace_bytes > 0 {
            let checked = d.memory.check_exists(workspace, workspace_bytes as u64);
            checked.map_err(|e| Refusal::argument(format!("workspace: {e}")))?;
        }
        let scalar = |at: *const c_void, name: &'static str| -> Done<Scalar> {
            if p.device_scalars {
                return Ok(Scalar::Device { name, at: at as u64, element: p.scalar });
            }
            let mut bytes = [0; 8];
            let n = p.scalar.bytes() as usize;
            for (i, byte) in bytes[..n].iter_mut().enumerate() {
                *byte = get(at.cast::<u8>().wrapping_add(i), name)?;
            }
            Ok(Scalar::Known(p.scalar.decode_one(&bytes[..n])))
        };
        let scalars = (scalar(alpha, "alpha")?, scalar(beta, "beta")?);
        let layouts = [a_layout, b_layout, c_layout, out_layout];
        let gemm = product(d, description, layouts, [a, b, c, out], scalars)?;
        let stream = d.stream(context, stream)?;
        d.submit(function, stream, Op::Math(Arc::new(gemm)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epilogues_are_known_or_refused() {
        assert_eq!(epilogue(1).unwrap(), (false, Activation::None));
        assert_eq!(epilogue(6).unwrap(), (true, Activation::Relu));
        assert_eq!(epilogue(36).unwrap(), (true, Activation::Gelu));
        assert_eq!(epilogue(4).unwrap(), (true, Activation::None));
        assert!(epilogue(0).is_err() && epilogue(5).is_err() && epilogue(130).is_err());
    }
}
