//! The C functions of cuBLAS.
#![allow(non_snake_case, reason = "the names of the library's interface")]
#![allow(clippy::too_many_arguments, reason = "the signatures of the library's interface")]

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::gemm::{Activation, Compute, Gemm, Grouped, Matrix, Scalar};
use super::number::Element;
use super::vector::{Asum, Gemv, Vector};
use super::{Blas, get, plain, put, with_blas, with_context};
use crate::driver::device::{Done, Driver, HandleKind, Refusal};
use crate::driver::report::{self, Kind, Report};
use crate::driver::work::{Math, Op};

/// Version that the stand-in reports: that of the lowest supported CUDA.
const VERSION: i32 = 120_001;

#[unsafe(no_mangle)]
extern "C" fn cublasCreate_v2(handle: *mut u64) -> u32 {
    with_context("cublasCreate_v2", |d, context| {
        let id = d.handle(HandleKind::Library);
        put(handle, id)?;
        let blas = Blas { context, stream: 0, device_scalars: false, math_mode: 0 };
        d.libraries.blas.insert(id, blas);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasDestroy_v2(handle: u64) -> u32 {
    plain("cublasDestroy_v2", |d| match d.libraries.blas.remove(&handle) {
        Some(_) => Ok(()),
        None => Err(Refusal::handle("cuBLAS handle", handle)),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasGetVersion_v2(_handle: u64, version: *mut i32) -> u32 {
    plain("cublasGetVersion_v2", |_| put(version, VERSION))
}

/// Changes the settings of a handle.
fn set(function: &'static str, handle: u64, change: impl FnOnce(&mut Blas) -> Done) -> u32 {
    with_blas(function, handle, |d, _| change(d.libraries.blas.get_mut(&handle).expect("just found")))
}

#[unsafe(no_mangle)]
extern "C" fn cublasSetStream_v2(handle: u64, stream: u64) -> u32 {
    with_blas("cublasSetStream_v2", handle, |d, blas| {
        d.stream(blas.context, stream)?;
        d.libraries.blas.get_mut(&handle).expect("just found").stream = stream;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasGetStream_v2(handle: u64, stream: *mut u64) -> u32 {
    with_blas("cublasGetStream_v2", handle, |_, blas| put(stream, blas.stream))
}

#[unsafe(no_mangle)]
extern "C" fn cublasSetPointerMode_v2(handle: u64, mode: u32) -> u32 {
    set("cublasSetPointerMode_v2", handle, |b| {
        if mode > 1 {
            return Err(Refusal::argument(format!("{mode} is no pointer mode")));
        }
        b.device_scalars = mode == 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasGetPointerMode_v2(handle: u64, mode: *mut u32) -> u32 {
    with_blas("cublasGetPointerMode_v2", handle, |_, blas| put(mode, u32::from(blas.device_scalars)))
}

#[unsafe(no_mangle)]
extern "C" fn cublasSetMathMode(handle: u64, mode: u32) -> u32 {
    set("cublasSetMathMode", handle, |b| {
        b.math_mode = mode;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasGetMathMode(handle: u64, mode: *mut u32) -> u32 {
    with_blas("cublasGetMathMode", handle, |_, blas| put(mode, blas.math_mode))
}

#[unsafe(no_mangle)]
extern "C" fn cublasSetWorkspace_v2(handle: u64, at: u64, bytes: usize) -> u32 {
    with_blas("cublasSetWorkspace_v2", handle, |d, _| {
        // Nothing is kept there, but a workspace that does not exist would be a defect with the real library.
        d.memory.check_exists(at, bytes as u64).map_err(|e| Refusal::argument(format!("workspace: {e}")))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasGetStatusName(status: u32) -> *const c_char {
    let name = match status {
        0 => c"CUBLAS_STATUS_SUCCESS",
        1 => c"CUBLAS_STATUS_NOT_INITIALIZED",
        3 => c"CUBLAS_STATUS_ALLOC_FAILED",
        7 => c"CUBLAS_STATUS_INVALID_VALUE",
        13 => c"CUBLAS_STATUS_EXECUTION_FAILED",
        15 => c"CUBLAS_STATUS_NOT_SUPPORTED",
        _ => c"CUBLAS_STATUS_UNKNOWN",
    };
    name.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn cublasGetStatusString(status: u32) -> *const c_char {
    cublasGetStatusName(status)
}

/// `cublasOperation_t`; conjugation changes nothing in real numbers.
fn transposed(operation: u32, which: &str) -> Done<bool> {
    match operation {
        0 => Ok(false),
        1 | 2 => Ok(true),
        other => Err(Refusal::argument(format!("{other} is no operation on {which}"))),
    }
}

fn size(value: i32, name: &str) -> Done<u64> {
    u64::try_from(value).map_err(|_| Refusal::argument(format!("{name} is {value}")))
}

/// Alpha or beta: the value now, or its place in device memory.
fn scalar(blas: &Blas, at: *const c_void, element: Element, name: &'static str) -> Done<Scalar> {
    if blas.device_scalars {
        return Ok(Scalar::Device { name, at: at as u64, element });
    }
    let value = match element {
        Element::F64 => get::<f64>(at.cast(), name)?,
        Element::F32 => f64::from(get::<f32>(at.cast(), name)?),
        Element::F16 | Element::Bf16 => element.decode_one(&get::<[u8; 2]>(at.cast(), name)?),
    };
    Ok(Scalar::Known(value))
}

/// A product as a call describes it.
struct Call {
    transpose: (u32, u32),
    m: i32,
    n: i32,
    k: i32,
    alpha: *const c_void,
    beta: *const c_void,
    /// Address, type, leading dimension, stride between matrices of a batch.
    a: (u64, Element, i32, i64),
    b: (u64, Element, i32, i64),
    c: (u64, Element, i32, i64),
    batch: i32,
    scalar: Element,
}

impl Call {
    fn gemm(&self, blas: &Blas) -> Done<Gemm> {
        let transpose_a = transposed(self.transpose.0, "A")?;
        let transpose_b = transposed(self.transpose.1, "B")?;
        let (m, n, k) = (size(self.m, "m")?, size(self.n, "n")?, size(self.k, "k")?);
        let matrix = |name, (at, element, ld, stride): (u64, Element, i32, i64), rows, columns| Matrix {
            name,
            at,
            element,
            rows,
            columns,
            ld: i64::from(ld),
            stride,
        };
        let (a_rows, a_columns) = if transpose_a { (k, m) } else { (m, k) };
        let (b_rows, b_columns) = if transpose_b { (n, k) } else { (k, n) };
        let c = matrix('C', self.c, m, n);
        let gemm = Gemm {
            transpose_a,
            transpose_b,
            k,
            a: matrix('A', self.a, a_rows, a_columns),
            b: matrix('B', self.b, b_rows, b_columns),
            c,
            d: c,
            batch: size(self.batch, "the number of products")?,
            alpha: scalar(blas, self.alpha, self.scalar, "alpha")?,
            beta: scalar(blas, self.beta, self.scalar, "beta")?,
            bias: None,
            activation: Activation::None,
        };
        gemm.check()?;
        Ok(gemm)
    }
}

fn submit(d: &mut Driver, function: &'static str, blas: &Blas, math: Arc<dyn Math>) -> Done {
    let stream = d.stream(blas.context, blas.stream)?;
    d.submit(function, stream, Op::Math(math))
}

fn product(function: &'static str, handle: u64, call: &Call) -> u32 {
    with_blas(function, handle, |d, blas| {
        let gemm = call.gemm(&blas)?;
        submit(d, function, &blas, Arc::new(gemm))
    })
}

macro_rules! typed_gemm {
    ($plain:ident, $batched:ident, $type:ty, $element:expr) => {
        #[unsafe(no_mangle)]
        extern "C" fn $plain(
            handle: u64,
            transa: u32,
            transb: u32,
            m: i32,
            n: i32,
            k: i32,
            alpha: *const $type,
            a: u64,
            lda: i32,
            b: u64,
            ldb: i32,
            beta: *const $type,
            c: u64,
            ldc: i32,
        ) -> u32 {
            let e = $element;
            let call = Call {
                transpose: (transa, transb),
                m,
                n,
                k,
                alpha: alpha.cast(),
                beta: beta.cast(),
                a: (a, e, lda, 0),
                b: (b, e, ldb, 0),
                c: (c, e, ldc, 0),
                batch: 1,
                scalar: e,
            };
            product(stringify!($plain), handle, &call)
        }

        #[unsafe(no_mangle)]
        extern "C" fn $batched(
            handle: u64,
            transa: u32,
            transb: u32,
            m: i32,
            n: i32,
            k: i32,
            alpha: *const $type,
            a: u64,
            lda: i32,
            stride_a: i64,
            b: u64,
            ldb: i32,
            stride_b: i64,
            beta: *const $type,
            c: u64,
            ldc: i32,
            stride_c: i64,
            batch: i32,
        ) -> u32 {
            let e = $element;
            let call = Call {
                transpose: (transa, transb),
                m,
                n,
                k,
                alpha: alpha.cast(),
                beta: beta.cast(),
                a: (a, e, lda, stride_a),
                b: (b, e, ldb, stride_b),
                c: (c, e, ldc, stride_c),
                batch,
                scalar: e,
            };
            product(stringify!($batched), handle, &call)
        }
    };
}

typed_gemm!(cublasSgemm_v2, cublasSgemmStridedBatched, f32, Element::F32);
typed_gemm!(cublasDgemm_v2, cublasDgemmStridedBatched, f64, Element::F64);
typed_gemm!(cublasHgemm, cublasHgemmStridedBatched, u16, Element::F16);

/// The element types of a call with free types, checked against the compute type.
fn types(a: u32, b: u32, c: u32, compute: u32) -> Done<(Element, Element, Element, Compute)> {
    let of = |n: u32| {
        Element::of_data_type(n).ok_or_else(|| Refusal::unsupported(format!("matrices of data type {n}")))
    };
    let (a, b, c, compute) = (of(a)?, of(b)?, of(c)?, Compute::of_number(compute)?);
    compute.check(a, b, c)?;
    Ok((a, b, c, compute))
}

#[unsafe(no_mangle)]
extern "C" fn cublasGemmStridedBatchedEx(
    handle: u64,
    transa: u32,
    transb: u32,
    m: i32,
    n: i32,
    k: i32,
    alpha: *const c_void,
    a: u64,
    a_type: u32,
    lda: i32,
    stride_a: i64,
    b: u64,
    b_type: u32,
    ldb: i32,
    stride_b: i64,
    beta: *const c_void,
    c: u64,
    c_type: u32,
    ldc: i32,
    stride_c: i64,
    batch: i32,
    compute: u32,
    _algorithm: i32,
) -> u32 {
    let function = "cublasGemmStridedBatchedEx";
    with_blas(function, handle, |d, blas| {
        let (ea, eb, ec, compute) = types(a_type, b_type, c_type, compute)?;
        let call = Call {
            transpose: (transa, transb),
            m,
            n,
            k,
            alpha,
            beta,
            a: (a, ea, lda, stride_a),
            b: (b, eb, ldb, stride_b),
            c: (c, ec, ldc, stride_c),
            batch,
            scalar: compute.scalar,
        };
        let gemm = call.gemm(&blas)?;
        submit(d, function, &blas, Arc::new(gemm))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasGemmEx(
    handle: u64,
    transa: u32,
    transb: u32,
    m: i32,
    n: i32,
    k: i32,
    alpha: *const c_void,
    a: u64,
    a_type: u32,
    lda: i32,
    b: u64,
    b_type: u32,
    ldb: i32,
    beta: *const c_void,
    c: u64,
    c_type: u32,
    ldc: i32,
    compute: u32,
    _algorithm: i32,
) -> u32 {
    let function = "cublasGemmEx";
    with_blas(function, handle, |d, blas| {
        let (ea, eb, ec, compute) = types(a_type, b_type, c_type, compute)?;
        let call = Call {
            transpose: (transa, transb),
            m,
            n,
            k,
            alpha,
            beta,
            a: (a, ea, lda, 0),
            b: (b, eb, ldb, 0),
            c: (c, ec, ldc, 0),
            batch: 1,
            scalar: compute.scalar,
        };
        let gemm = call.gemm(&blas)?;
        submit(d, function, &blas, Arc::new(gemm))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cublasGemmGroupedBatchedEx(
    handle: u64,
    transa: *const u32,
    transb: *const u32,
    m: *const i32,
    n: *const i32,
    k: *const i32,
    alpha: *const c_void,
    a: u64,
    a_type: u32,
    lda: *const i32,
    b: u64,
    b_type: u32,
    ldb: *const i32,
    beta: *const c_void,
    c: u64,
    c_type: u32,
    ldc: *const i32,
    groups: i32,
    group_size: *const i32,
    compute: u32,
) -> u32 {
    let function = "cublasGemmGroupedBatchedEx";
    with_blas(function, handle, |d, blas| {
        let (ea, eb, ec, compute) = types(a_type, b_type, c_type, compute)?;
        if blas.device_scalars {
            return Err(Refusal::unsupported("grouped products with scalars in device memory"));
        }
        let mut list = Vec::new();
        for i in 0..size(groups, "the number of groups")? as usize {
            let at = |p: *const i32, what| get(p.wrapping_add(i), what);
            let scalar = |p: *const c_void| p.wrapping_byte_add(i * compute.scalar.bytes() as usize);
            // Addresses come from the arrays when it runs; until then a stand-in keeps the other checks going.
            let place = 1 << 20;
            let call = Call {
                transpose: (get(transa.wrapping_add(i), "transa")?, get(transb.wrapping_add(i), "transb")?),
                m: at(m, "m")?,
                n: at(n, "n")?,
                k: at(k, "k")?,
                alpha: scalar(alpha),
                beta: scalar(beta),
                a: (place, ea, at(lda, "lda")?, 0),
                b: (place, eb, at(ldb, "ldb")?, 0),
                c: (place, ec, at(ldc, "ldc")?, 0),
                batch: 1,
                scalar: compute.scalar,
            };
            list.push((
                call.gemm(&blas)?,
                size(at(group_size, "the size of a group")?, "the size of a group")?,
            ));
        }
        submit(d, function, &blas, Arc::new(Grouped { groups: list, arrays: [a, b, c] }))
    })
}

fn gemv(
    function: &'static str,
    handle: u64,
    element: Element,
    operation: u32,
    (m, n): (i32, i32),
    (alpha, beta): (*const c_void, *const c_void),
    (a, lda): (u64, i32),
    (x, incx): (u64, i32),
    (y, incy): (u64, i32),
) -> u32 {
    with_blas(function, handle, |d, blas| {
        let transpose = transposed(operation, "A")?;
        let (rows, columns) = (size(m, "m")?, size(n, "n")?);
        let (x_len, y_len) = if transpose { (rows, columns) } else { (columns, rows) };
        let vector = |name, at, len, step: i32| Vector { name, at, element, len, step: i64::from(step) };
        let gemv = Gemv {
            transpose,
            a: Matrix { name: 'A', at: a, element, rows, columns, ld: i64::from(lda), stride: 0 },
            x: vector('x', x, x_len, incx),
            y: vector('y', y, y_len, incy),
            alpha: scalar(&blas, alpha, element, "alpha")?,
            beta: scalar(&blas, beta, element, "beta")?,
        };
        gemv.a.check(1)?;
        gemv.x.check()?;
        gemv.y.check()?;
        submit(d, function, &blas, Arc::new(gemv))
    })
}

macro_rules! typed_vector {
    ($gemv:ident, $asum:ident, $type:ty, $element:expr) => {
        #[unsafe(no_mangle)]
        extern "C" fn $gemv(
            handle: u64,
            operation: u32,
            m: i32,
            n: i32,
            alpha: *const $type,
            a: u64,
            lda: i32,
            x: u64,
            incx: i32,
            beta: *const $type,
            y: u64,
            incy: i32,
        ) -> u32 {
            let scalars = (alpha.cast(), beta.cast());
            gemv(
                stringify!($gemv),
                handle,
                $element,
                operation,
                (m, n),
                scalars,
                (a, lda),
                (x, incx),
                (y, incy),
            )
        }

        #[unsafe(no_mangle)]
        extern "C" fn $asum(handle: u64, n: i32, x: u64, incx: i32, result: *mut $type) -> u32 {
            let function = stringify!($asum);
            with_blas(function, handle, |d, blas| {
                let x =
                    Vector { name: 'x', at: x, element: $element, len: size(n, "n")?, step: i64::from(incx) };
                x.check()?;
                let asum = Asum { x, to: result as u64 };
                if blas.device_scalars {
                    return submit(d, function, &blas, Arc::new(asum));
                }
                // A result in host memory makes the call wait.
                let stream = d.stream(blas.context, blas.stream)?;
                d.forbid_on_captured(stream, "a result is returned to the host")?;
                d.tally.synchronisations.implicit += 1;
                d.wait_stream(stream)?;
                let sum = asum
                    .value(&d.memory, &mut Default::default())
                    .map_err(|e| Refusal::argument(e.to_string()))?;
                put(result, sum as $type)
            })
        }
    };
}

typed_vector!(cublasSgemv_v2, cublasSasum_v2, f32, Element::F32);
typed_vector!(cublasDgemv_v2, cublasDasum_v2, f64, Element::F64);

macro_rules! unsupported {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> u32 {
                refuse(stringify!($name))
            }
        )*
    };
}

fn refuse(name: &str) -> u32 {
    const NOT_SUPPORTED: u32 = 15;
    report::emit(&Report::error(Kind::Unsupported, name, "the virtual GPU does not provide this function"));
    NOT_SUPPORTED
}

unsupported! {
    cublasSgemmBatched cublasDgemmBatched cublasHgemmBatched cublasGemmBatchedEx cublasSgemmEx cublasSgeam cublasDgeam
    cublasSaxpy_v2 cublasDaxpy_v2 cublasSscal_v2 cublasDscal_v2 cublasSdot_v2 cublasDdot_v2 cublasSnrm2_v2
    cublasDnrm2_v2 cublasSger_v2 cublasDger_v2 cublasSdgmm cublasDdgmm cublasScopy_v2 cublasDcopy_v2 cublasIsamax_v2
    cublasIdamax_v2 cublasStrsm_v2 cublasDtrsm_v2 cublasSsyrk_v2 cublasDsyrk_v2
}
