//! The C interface itself: what exists, what is refused, and how it says so.

use std::ffi::{CStr, CString, c_char, c_void};

use cudarc::driver::{CudaContext, DevicePtr, DriverError, result, sys};
use monopath_vgpu::driver::report::{Kind, Severity};

use super::harness::{PTX, run, shape, vgpu};

/// Scenarios of this module.
pub const SCENARIOS: &[(&str, fn())] = &[
    ("functions_exist", functions_exist),
    ("binary_images", binary_images),
    ("not_provided", not_provided),
    ("by_name", by_name),
    ("error_texts", error_texts),
    ("no_time", no_time),
    ("wide_fills", wide_fills),
    ("module_from_file", module_from_file),
    ("error_log", error_log),
    ("uninitialised_driver", uninitialised_driver),
    ("stack_of_contexts", stack_of_contexts),
];

/// Every function that the safe layer of cudarc 0.19.10 can call, of the driver and of the libraries.
const FUNCTIONS: &str = "
cuInit cuDriverGetVersion cuGetErrorName cuGetErrorString cuGetProcAddress_v2 cuProfilerStart cuProfilerStop
cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceSetMemPool
cuDeviceGetName cuDeviceGetUuid cuDeviceGetUuid_v2 cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain
cuDeviceTotalMem_v2 cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxGetCacheConfig cuCtxSetCacheConfig
cuCtxGetCurrent cuCtxSetCurrent cuCtxGetLimit cuCtxSetLimit cuCtxGetStreamPriorityRange cuCtxSetFlags
cuCtxSynchronize cuStreamAttachMemAsync cuStreamBeginCapture_v2 cuStreamCreate cuStreamCreateWithPriority
cuStreamDestroy_v2 cuStreamEndCapture cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent cuLaunchHostFunc
cuEventCreate cuEventDestroy_v2 cuEventElapsedTime cuEventElapsedTime_v2 cuEventQuery cuEventRecord
cuEventSynchronize cuGraphDestroy cuGraphExecDestroy cuGraphInstantiateWithFlags cuGraphLaunch cuGraphUpload
cuMemAdvise_v2 cuMemAllocAsync cuMemAllocFromPoolAsync cuMemAllocManaged cuMemAlloc_v2 cuMemFreeAsync
cuMemFreeHost cuMemFree_v2 cuMemGetInfo_v2 cuMemHostAlloc cuMemPoolCreate cuMemPoolDestroy
cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemPoolTrimTo cuMemPrefetchAsync_v2 cuMemcpyDtoDAsync_v2
cuMemcpyDtoD_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2 cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemcpyPeerAsync
cuMemsetD8Async cuMemsetD8_v2 cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleLoad cuModuleLoadData
cuModuleUnload cuFuncGetAttribute cuFuncSetAttribute cuFuncSetCacheConfig cuLaunchKernel
cuLaunchCooperativeKernel cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxActiveBlocksPerMultiprocessor
cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuOccupancyMaxActiveClusters
cuOccupancyMaxPotentialBlockSize cuOccupancyMaxPotentialBlockSizeWithFlags cuOccupancyMaxPotentialClusterSize
cuImportExternalMemory cuExternalMemoryGetMappedBuffer cuDestroyExternalMemory
cublasCreate_v2 cublasDestroy_v2 cublasSetStream_v2 cublasSetPointerMode_v2 cublasGetPointerMode_v2 cublasSgemm_v2
cublasDgemm_v2 cublasHgemm cublasSgemv_v2 cublasDgemv_v2 cublasSasum_v2 cublasDasum_v2 cublasSgemmStridedBatched
cublasDgemmStridedBatched cublasHgemmStridedBatched cublasGemmEx cublasGemmStridedBatchedEx
cublasGemmGroupedBatchedEx
cublasLtCreate cublasLtDestroy cublasLtMatmul cublasLtMatmulAlgoGetHeuristic cublasLtMatmulDescCreate
cublasLtMatmulDescDestroy cublasLtMatmulDescSetAttribute cublasLtMatrixLayoutCreate cublasLtMatrixLayoutDestroy
cublasLtMatrixLayoutSetAttribute cublasLtMatmulPreferenceCreate cublasLtMatmulPreferenceDestroy
cublasLtMatmulPreferenceSetAttribute cublasLtLoggerOpenFile cublasLtLoggerSetLevel";

unsafe extern "C" {
    fn dlopen(file: *const c_char, mode: i32) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

fn functions_exist() {
    // SAFETY: names with a terminating zero; the handles are used as the C library says.
    unsafe {
        let libraries =
            [c"libcuda.so", c"libcublas.so", c"libcublasLt.so"].map(|name| dlopen(name.as_ptr(), 2));
        assert!(
            !libraries[0].is_null() && libraries.iter().all(|l| *l == libraries[0]),
            "one object, all names"
        );
        for name in FUNCTIONS.split_whitespace() {
            let c = CString::new(name).unwrap();
            assert!(!dlsym(libraries[0], c.as_ptr()).is_null(), "{name}");
        }
    }
}

#[test]
fn every_function_of_the_safe_layer_exists() {
    run("functions_exist").clean();
    assert!(FUNCTIONS.split_whitespace().count() > 125);
}

fn load(image: &[u8]) -> sys::CUresult {
    let mut module = std::ptr::null_mut();
    // SAFETY: images end in a zero.
    unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) }
}

fn binary_images() {
    use sys::CUresult::{CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_NO_BINARY_FOR_GPU};
    let _context = CudaContext::new(0).unwrap();
    assert_eq!(load(b"\x7fELF\x02\x01\x01\x33\x07\0"), CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_eq!(load(b"\x50\xed\x55\xba\x01\0\x10\0\0"), CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_eq!(load(b"\xb1\x43\x62\x46\x01\0\0\0\0"), CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_eq!(load(b"\x89PNG\r\n\x1a\n\0"), CUDA_ERROR_INVALID_IMAGE);
    assert_eq!(load(b"\0"), CUDA_ERROR_INVALID_IMAGE);
}

#[test]
fn images_that_are_no_ptx_are_refused_by_name() {
    let outcome = run("binary_images");
    assert_eq!(outcome.kinds(), [Kind::Image; 5]);
    for (report, word) in
        outcome.reports.iter().zip(["cubin", "fatbin", "fatbin wrapper", "no text", "empty"])
    {
        assert!(report.text.contains(word), "{}", report.text);
    }
}

fn not_provided() {
    use sys::CUresult::CUDA_ERROR_NOT_SUPPORTED;
    let _context = CudaContext::new(0).unwrap();
    // SAFETY: functions that are not provided touch none of their arguments.
    unsafe {
        let (mut at, mut graph) = (0, std::ptr::null_mut());
        assert_eq!(sys::cuMemAllocManaged(&mut at, 64, 1), CUDA_ERROR_NOT_SUPPORTED);
        assert_eq!(sys::cuGraphCreate(&mut graph, 0), CUDA_ERROR_NOT_SUPPORTED);
        assert_eq!(sys::cuMemAddressFree(0, 0), CUDA_ERROR_NOT_SUPPORTED);
        let mut table = std::ptr::null();
        let id = sys::CUuuid { bytes: [0; 16] };
        assert_eq!(sys::cuGetExportTable(&mut table, &id), CUDA_ERROR_NOT_SUPPORTED);
    }
}

#[test]
fn functions_that_are_not_provided_fail_by_name() {
    let outcome = run("not_provided");
    assert_eq!(outcome.kinds(), [Kind::Unsupported; 4]);
    let names: Vec<&str> = outcome.reports.iter().map(|r| r.function.as_str()).collect();
    assert_eq!(names, ["cuMemAllocManaged", "cuGraphCreate", "cuMemAddressFree", "cuGetExportTable"]);
    assert!(outcome.reports[3].text.contains("runtime"), "the static runtime is refused by name");
}

fn by_name() {
    let find = |name: &CStr| {
        let (mut at, status) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: a name with a terminating zero and room for an address.
        let code = unsafe { sys::cuGetProcAddress_v2(name.as_ptr(), &mut at, 12000, 0, status) };
        (code, at)
    };
    result::init().unwrap();
    let (code, init) = find(c"cuInit");
    assert!(code == sys::CUresult::CUDA_SUCCESS && !init.is_null());
    // The newest form of a function is found under its plain name.
    assert_ne!(find(c"cuMemAlloc").1, std::ptr::null_mut());
    assert_eq!(find(c"cuMemAlloc"), find(c"cuMemAlloc_v2"));
    let (code, none) = find(c"cuNoSuchFunction");
    assert!(code == sys::CUresult::CUDA_ERROR_NOT_FOUND && none.is_null());
    assert_eq!(find(c"cuGraphCreate").0, sys::CUresult::CUDA_ERROR_NOT_FOUND);
}

#[test]
fn functions_are_found_by_name_or_reported() {
    let outcome = run("by_name");
    assert_eq!(outcome.kinds(), [Kind::Unsupported; 2]);
    assert!(outcome.reports[0].text.contains("cuNoSuchFunction"));
}

fn error_texts() {
    let e = DriverError(sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_eq!(e.error_name().unwrap(), c"CUDA_ERROR_ILLEGAL_ADDRESS");
    assert_eq!(e.error_string().unwrap(), c"an illegal memory access was encountered");
    assert!(CudaContext::new(0).is_ok());
}

#[test]
fn errors_have_names_and_texts() {
    run("error_texts").clean();
}

fn no_time() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let timing = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let (a, b) = (stream.record_event(timing).unwrap(), stream.record_event(timing).unwrap());
    assert!(a.elapsed_ms(&b).unwrap().is_nan() && a.elapsed_ms(&b).unwrap().is_nan());
}

#[test]
fn no_time_is_ever_measured() {
    let outcome = run("no_time");
    assert_eq!(outcome.reports.len(), 1, "once per program");
    assert_eq!((outcome.reports[0].severity, outcome.code), (Severity::Warning, Some(0)));
}

fn wide_fills() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let x = stream.alloc_zeros::<u32>(8).unwrap();
    let at = x.device_ptr(&stream).0;
    // SAFETY: the driver checks the ranges.
    unsafe {
        assert_eq!(sys::cuMemsetD32_v2(at, 0xdead_beef, 3), sys::CUresult::CUDA_SUCCESS);
        assert_eq!(
            sys::cuMemsetD16Async(at + 12, 0x1234, 2, stream.cu_stream()),
            sys::CUresult::CUDA_SUCCESS
        );
        assert_eq!(sys::cuMemsetD32_v2(at + 2, 0, 1), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemsetD32_v2(at, 0, 9), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
    }
    let b = 0xdead_beef;
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [b, b, b, 0x1234_1234, 0, 0, 0, 0]);
}

#[test]
fn fills_of_wider_elements_are_aligned_and_bounded() {
    assert_eq!(run("wide_fills").kinds(), [Kind::Argument, Kind::OutOfBounds]);
}

fn module_from_file() {
    let context = CudaContext::new(0).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("host.ptx");
    std::fs::write(&file, PTX).unwrap();
    let module = context.load_module(cudarc::nvrtc::Ptx::from_file(&file)).unwrap();
    let f = module.load_function("nothing").unwrap();
    // SAFETY: no arguments.
    unsafe { context.default_stream().launch_builder(&f).launch(shape(1, 1)) }.unwrap();
    context.synchronize().unwrap();
    assert!(context.load_module(cudarc::nvrtc::Ptx::from_file(directory.path().join("none.ptx"))).is_err());
}

#[test]
fn modules_load_from_files() {
    run("module_from_file").only(Kind::Image);
}

fn error_log() {
    let _context = CudaContext::new(0).unwrap();
    let broken = CString::new(PTX.replacen("st.global", "st.glubal", 1)).unwrap();
    let mut log = [1u8; 32];
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
    let mut module = std::ptr::null_mut();
    let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
    // SAFETY: an image that ends in a zero, two options with values.
    let code = unsafe { sys::cuModuleLoadDataEx(&mut module, broken.as_ptr().cast(), 2, options, values) };
    assert_eq!(code, sys::CUresult::CUDA_ERROR_INVALID_PTX);
    let text = CStr::from_bytes_until_nul(&log).unwrap().to_str().unwrap();
    assert!(text.starts_with("ptx line") && text.len() == 31, "{text}");
}

#[test]
fn the_error_log_of_a_load_is_filled() {
    run("error_log").only(Kind::Ptx);
}

fn uninitialised_driver() {
    let mut n = 0;
    // SAFETY: room for a number.
    unsafe {
        assert_eq!(sys::cuDeviceGetCount(&mut n), sys::CUresult::CUDA_ERROR_NOT_INITIALIZED);
        assert_eq!(sys::cuInit(7), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuInit(0), sys::CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuDeviceGetCount(&mut n), sys::CUresult::CUDA_SUCCESS);
        assert_eq!(n, 1);
        let mut at = 0;
        assert_eq!(sys::cuMemAlloc_v2(&mut at, 4), sys::CUresult::CUDA_ERROR_INVALID_CONTEXT);
    }
}

#[test]
fn nothing_works_before_initialisation() {
    run("uninitialised_driver").clean();
}

fn stack_of_contexts() {
    let ok = |code: sys::CUresult| assert_eq!(code, sys::CUresult::CUDA_SUCCESS);
    let (mut a, mut b, mut got) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: room for contexts; handles that are alive.
    unsafe {
        ok(sys::cuInit(0));
        ok(sys::cuCtxCreate_v2(&mut a, 0, 0));
        ok(sys::cuCtxCreate_v2(&mut b, 0, 0));
        ok(sys::cuCtxGetCurrent(&mut got));
        assert_eq!(got, b);
        ok(sys::cuCtxPopCurrent_v2(&mut got));
        ok(sys::cuCtxGetCurrent(&mut got));
        assert_eq!(got, a);
        ok(sys::cuCtxPushCurrent_v2(b));
        ok(sys::cuCtxDestroy_v2(b));
        ok(sys::cuCtxGetCurrent(&mut got));
        assert_eq!(got, a);
        ok(sys::cuCtxDestroy_v2(a));
        assert_eq!(sys::cuCtxDestroy_v2(a), sys::CUresult::CUDA_ERROR_INVALID_CONTEXT);
    }
}

#[test]
fn contexts_stack_per_thread() {
    run("stack_of_contexts").clean();
}

#[test]
fn a_variable_that_does_not_parse_is_refused_by_name() {
    let output = vgpu()
        .args(["run", "--", "true"])
        .env("MONOPATH_VGPU_THREADS", "many")
        .output()
        .expect("the launcher runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("MONOPATH_VGPU_THREADS is `many`"), "{text}");
}
