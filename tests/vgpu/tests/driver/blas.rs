//! cuBLAS and cuBLASLt through cudarc's safe layer.

use cudarc::cublas::{
    Asum, AsumConfig, CudaBlas, Gemm, GemmConfig, Gemv, GemvConfig, StridedBatchedConfig,
    result::CublasError, sys,
};
use cudarc::cublaslt::{Activation, CudaBlasLT, Matmul, MatmulConfig};
use cudarc::driver::CudaContext;
use half::{bf16, f16};
use monopath_vgpu::driver::report::Kind;

use super::harness::run;

/// Scenarios of this module.
pub const SCENARIOS: &[(&str, fn())] = &[
    ("gemm_types", gemm_types),
    ("gemm_batched", gemm_batched),
    ("gemv_asum", gemv_asum),
    ("gemm_graph", gemm_graph),
    ("matmul", matmul),
    ("wrong_lda", wrong_lda),
    ("short_operand", short_operand),
    ("matmul_wrong_sizes", matmul_wrong_sizes),
];

const N: sys::cublasOperation_t = sys::cublasOperation_t::CUBLAS_OP_N;
const T: sys::cublasOperation_t = sys::cublasOperation_t::CUBLAS_OP_T;

const ROWS: usize = 5;
const COLUMNS: usize = 7;
const INNER: usize = 11;

/// Small integers, so that every type holds products and sums exactly.
fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7 + seed * 3) % 9) as f32 - 4.0).collect()
}

/// Column-major C = A B.
fn product(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut c = vec![0.0; ROWS * COLUMNS];
    for j in 0..COLUMNS {
        for i in 0..ROWS {
            c[j * ROWS + i] = (0..INNER).map(|l| a[l * ROWS + i] * b[j * INNER + l]).sum();
        }
    }
    c
}

fn config<S: Copy>(alpha: S, beta: S) -> GemmConfig<S> {
    GemmConfig {
        transa: N,
        transb: N,
        m: ROWS as i32,
        n: COLUMNS as i32,
        k: INNER as i32,
        alpha,
        lda: ROWS as i32,
        ldb: INNER as i32,
        beta,
        ldc: ROWS as i32,
    }
}

fn gemm_types() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let blas = CudaBlas::new(stream.clone()).unwrap();
    let (a, b) = (values(ROWS * INNER, 1), values(INNER * COLUMNS, 2));
    let want = product(&a, &b);
    macro_rules! check {
        ($type:ty, $of:expr, $to:expr, $two:expr, $zero:expr, $one:expr) => {{
            let convert = |v: &[f32]| v.iter().map(|x| $of(*x)).collect::<Vec<$type>>();
            let a = stream.clone_htod(&convert(&a)).unwrap();
            let b = stream.clone_htod(&convert(&b)).unwrap();
            // SAFETY: with beta = 0 the result is not read.
            let mut c = unsafe { stream.alloc::<$type>(ROWS * COLUMNS).unwrap() };
            // SAFETY: the sizes are those of the buffers.
            unsafe {
                blas.gemm(config($two, $zero), &a, &b, &mut c).unwrap();
                blas.gemm(config($one, $one), &a, &b, &mut c).unwrap();
            }
            let got: Vec<f32> = stream.clone_dtoh(&c).unwrap().iter().map(|x| $to(*x)).collect();
            assert_eq!(got, want.iter().map(|x| 3.0 * x).collect::<Vec<f32>>(), stringify!($type));
        }};
    }
    check!(f32, |x| x, |x| x, 2f32, 0f32, 1f32);
    check!(f64, f64::from, |x: f64| x as f32, 2f64, 0f64, 1f64);
    check!(f16, f16::from_f32, f16::to_f32, f16::from_f32(2.0), f16::ZERO, f16::ONE);
    // Products of up to 3 * 11 * 16 fit the 8 bits of a brain float only by chance, so compare with the rounding.
    let a16 = stream.clone_htod(&a.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()).unwrap();
    let b16 = stream.clone_htod(&b.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()).unwrap();
    let mut c = stream.alloc_zeros::<bf16>(ROWS * COLUMNS).unwrap();
    // SAFETY: the sizes are those of the buffers.
    unsafe { blas.gemm(config(bf16::ONE, bf16::ZERO), &a16, &b16, &mut c) }.unwrap();
    let rounded: Vec<bf16> = want.iter().map(|x| bf16::from_f32(*x)).collect();
    assert_eq!(stream.clone_dtoh(&c).unwrap(), rounded);
}

#[test]
fn products_of_every_type_are_exact() {
    let outcome = run("gemm_types").clean();
    let library = outcome.tally().library;
    assert_eq!((library.calls, library.multiply_adds), (7, 7 * (ROWS * COLUMNS * INNER) as u64));
}

fn gemm_batched() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let blas = CudaBlas::new(stream.clone()).unwrap();
    let batch = 3;
    let (a, b) = (values(batch * ROWS * INNER, 3), values(INNER * COLUMNS, 4));
    let gemm = StridedBatchedConfig {
        gemm: config(1f32, 0.0),
        batch_size: batch as i32,
        stride_a: (ROWS * INNER) as i64,
        stride_b: 0,
        stride_c: (ROWS * COLUMNS) as i64,
    };
    let da = stream.clone_htod(&a).unwrap();
    let db = stream.clone_htod(&b).unwrap();
    let mut dc = stream.alloc_zeros::<f32>(batch * ROWS * COLUMNS).unwrap();
    // SAFETY: the sizes are those of the buffers.
    unsafe { blas.gemm_strided_batched(gemm, &da, &db, &mut dc) }.unwrap();
    let got = stream.clone_dtoh(&dc).unwrap();
    for (c, a) in got.chunks(ROWS * COLUMNS).zip(a.chunks(ROWS * INNER)) {
        assert_eq!(c, product(a, &b));
    }
    let half = |v: &[f32]| v.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
    let da = stream.clone_htod(&half(&a)).unwrap();
    let db = stream.clone_htod(&half(&b)).unwrap();
    let mut dc = stream.alloc_zeros::<bf16>(batch * ROWS * COLUMNS).unwrap();
    let g = gemm;
    let gemm = StridedBatchedConfig {
        gemm: config(bf16::ONE, bf16::ZERO),
        batch_size: g.batch_size,
        stride_a: g.stride_a,
        stride_b: g.stride_b,
        stride_c: g.stride_c,
    };
    // SAFETY: the sizes are those of the buffers.
    unsafe { blas.gemm_strided_batched(gemm, &da, &db, &mut dc) }.unwrap();
    let want: Vec<f32> = a.chunks(ROWS * INNER).flat_map(|a| product(a, &b)).collect();
    assert_eq!(stream.clone_dtoh(&dc).unwrap(), half(&want));
}

#[test]
fn batches_step_by_their_strides() {
    run("gemm_batched").clean();
}

fn gemv_asum() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let blas = CudaBlas::new(stream.clone()).unwrap();
    let (a, x) = (values(ROWS * INNER, 5), values(ROWS, 6));
    let da = stream.clone_htod(&a).unwrap();
    let dx = stream.clone_htod(&x).unwrap();
    let mut dy = stream.alloc_zeros::<f32>(INNER).unwrap();
    let (m, n) = (ROWS as i32, INNER as i32);
    let gemv = GemvConfig { trans: T, m, n, alpha: 1f32, lda: m, incx: 1, beta: 0.0, incy: 1 };
    // SAFETY: the sizes are those of the buffers.
    unsafe { blas.gemv(gemv, &da, &dx, &mut dy) }.unwrap();
    let want: Vec<f32> =
        a.chunks(ROWS).map(|column| column.iter().zip(&x).map(|(a, x)| a * x).sum()).collect();
    assert_eq!(stream.clone_dtoh(&dy).unwrap(), want);
    let mut sum = 0f32;
    // SAFETY: the sizes are those of the buffers; the result lies in host memory, as the handle expects.
    unsafe { blas.asum(AsumConfig { n: ROWS as i32, incx: 1 }, &dx, &mut sum) }.unwrap();
    assert_eq!(sum, x.iter().map(|v| v.abs()).sum::<f32>());
}

#[test]
fn vectors_are_multiplied_and_summed() {
    run("gemv_asum").clean();
}

fn gemm_graph() {
    let context = CudaContext::new(0).unwrap();
    // SAFETY: one stream.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let blas = CudaBlas::new(stream.clone()).unwrap();
    let (a, b) = (values(ROWS * INNER, 1), values(INNER * COLUMNS, 2));
    let da = stream.clone_htod(&a).unwrap();
    let db = stream.clone_htod(&b).unwrap();
    let mut dc = stream.alloc_zeros::<f32>(ROWS * COLUMNS).unwrap();
    stream.begin_capture(cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    // SAFETY: the sizes are those of the buffers.
    unsafe { blas.gemm(config(1f32, 1.0), &da, &db, &mut dc) }.unwrap();
    let graph = stream.end_capture(cudarc::driver::sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
    for _ in 0..3 {
        graph.launch().unwrap();
    }
    let want: Vec<f32> = product(&a, &b).iter().map(|x| 3.0 * x).collect();
    assert_eq!(stream.clone_dtoh(&dc).unwrap(), want);
}

#[test]
fn products_are_captured_into_graphs() {
    assert_eq!(run("gemm_graph").clean().tally().library.calls, 3);
}

fn matmul() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let lt = CudaBlasLT::new(stream.clone()).unwrap();
    let (a, b) = (values(ROWS * INNER, 7), values(INNER * COLUMNS, 8));
    let bias = values(ROWS, 9);
    let config = MatmulConfig {
        transa: false,
        transb: false,
        transc: false,
        m: ROWS as u64,
        n: COLUMNS as u64,
        k: INNER as u64,
        alpha: 1.0,
        lda: ROWS as i64,
        ldb: INNER as i64,
        beta: 0.0,
        ldc: ROWS as i64,
        stride_a: None,
        stride_b: None,
        stride_c: None,
        stride_bias: None,
        batch_size: None,
    };
    let plain = product(&a, &b);
    let with_bias: Vec<f32> = plain.iter().enumerate().map(|(i, x)| x + bias[i % ROWS]).collect();
    let da = stream.clone_htod(&a).unwrap();
    let db = stream.clone_htod(&b).unwrap();
    let dbias = stream.clone_htod(&bias).unwrap();
    let mut dc = stream.alloc_zeros::<f32>(ROWS * COLUMNS).unwrap();
    // SAFETY: the sizes are those of the buffers.
    unsafe { lt.matmul(config, &da, &db, &mut dc, None, None) }.unwrap();
    assert_eq!(stream.clone_dtoh(&dc).unwrap(), plain);
    // SAFETY: the sizes are those of the buffers.
    unsafe { lt.matmul(config, &da, &db, &mut dc, Some(&dbias), Some(&Activation::Relu)) }.unwrap();
    let relu: Vec<f32> = with_bias.iter().map(|x| x.max(0.0)).collect();
    assert_eq!(stream.clone_dtoh(&dc).unwrap(), relu);
    let half = |v: &[f32]| v.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
    let da = stream.clone_htod(&half(&a)).unwrap();
    let db = stream.clone_htod(&half(&b)).unwrap();
    let dbias = stream.clone_htod(&half(&bias)).unwrap();
    let mut dc = stream.alloc_zeros::<bf16>(ROWS * COLUMNS).unwrap();
    // SAFETY: the sizes are those of the buffers.
    unsafe { lt.matmul(config, &da, &db, &mut dc, Some(&dbias), None) }.unwrap();
    assert_eq!(stream.clone_dtoh(&dc).unwrap(), half(&with_bias));
}

#[test]
fn described_products_have_bias_and_activation() {
    assert_eq!(run("matmul").clean().tally().library.calls, 3);
}

fn status(result: Result<(), CublasError>) -> sys::cublasStatus_t {
    result.err().map_or(sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS, |e| e.0)
}

fn wrong_lda() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let blas = CudaBlas::new(stream.clone()).unwrap();
    let a = stream.alloc_zeros::<f32>(ROWS * INNER).unwrap();
    let b = stream.alloc_zeros::<f32>(INNER * COLUMNS).unwrap();
    let mut c = stream.alloc_zeros::<f32>(ROWS * COLUMNS).unwrap();
    let wrong = GemmConfig { lda: ROWS as i32 - 1, ..config(1f32, 0.0) };
    // SAFETY: the library checks the leading dimension.
    let result = unsafe { blas.gemm(wrong, &a, &b, &mut c) };
    assert_eq!(status(result), sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE);
    let wrong = GemmConfig { m: -1, ..config(1f32, 0.0) };
    // SAFETY: the library checks the size.
    let result = unsafe { blas.gemm(wrong, &a, &b, &mut c) };
    assert_eq!(status(result), sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE);
}

#[test]
fn a_wrong_leading_dimension_is_refused() {
    let outcome = run("wrong_lda");
    assert_eq!(outcome.kinds(), [Kind::Argument; 2]);
    assert!(outcome.reports[0].text.contains("lda is 4"), "{}", outcome.reports[0].text);
}

fn short_operand() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let blas = CudaBlas::new(stream.clone()).unwrap();
    let a = stream.alloc_zeros::<f32>(ROWS * INNER).unwrap();
    let b = stream.alloc_zeros::<f32>(INNER * COLUMNS - 1).unwrap();
    let mut c = stream.alloc_zeros::<f32>(ROWS * COLUMNS).unwrap();
    // SAFETY: the device checks the size.
    unsafe { blas.gemm(config(1f32, 0.0), &a, &b, &mut c) }.unwrap();
    let e = stream.synchronize().unwrap_err();
    assert_eq!(e.0, cudarc::driver::sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
}

#[test]
fn an_operand_that_is_too_short_is_named() {
    let outcome = run("short_operand");
    let report = outcome.only(Kind::OutOfBounds);
    assert_eq!(report.function, "cublasSgemm_v2");
    assert!(report.text.starts_with("operand B (11 x 7"), "{}", report.text);
}

fn matmul_wrong_sizes() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let lt = CudaBlasLT::new(stream.clone()).unwrap();
    let a = stream.alloc_zeros::<f32>(64).unwrap();
    let mut c = stream.alloc_zeros::<f32>(64).unwrap();
    let config = MatmulConfig {
        transa: false,
        transb: false,
        transc: false,
        m: 4,
        n: 4,
        k: 4,
        alpha: 1.0,
        lda: 3,
        ldb: 4,
        beta: 0.0,
        ldc: 4,
        stride_a: None,
        stride_b: None,
        stride_c: None,
        stride_bias: None,
        batch_size: None,
    };
    // SAFETY: the library checks the sizes.
    unsafe {
        assert!(lt.matmul(config, &a, &a, &mut c, None, None).is_err());
        let transposed = MatmulConfig { lda: 4, transc: true, ..config };
        assert!(lt.matmul(transposed, &a, &a, &mut c, None, None).is_err());
    }
}

#[test]
fn a_described_product_is_checked_before_it_runs() {
    let outcome = run("matmul_wrong_sizes");
    assert_eq!(outcome.kinds(), [Kind::Argument, Kind::Unsupported]);
    assert!(outcome.reports[0].text.contains("lda is 3"), "{}", outcome.reports[0].text);
}
