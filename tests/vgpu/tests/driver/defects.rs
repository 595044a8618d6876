//! Planted mistakes of the host. Each scenario makes one and asserts the result code that a program would see; the
//! test asserts what was reported.

use cudarc::driver::{
    CudaContext, DevicePtr, DevicePtrMut, DriverError, LaunchConfig, PushKernelArg, result, sys,
};
use monopath_vgpu::driver::report::{Kind, Severity};

use super::harness::{PTX, kernel, module, run, run_with, shape};

/// Scenarios of this module.
pub const SCENARIOS: &[(&str, fn())] = &[
    ("missing_wait", missing_wait),
    ("lucky_order", lucky_order),
    ("pinned_race", pinned_race),
    ("gemm_race", gemm_race),
    ("freed_in_another_stream", freed_in_another_stream),
    ("swapped_arguments", swapped_arguments),
    ("wrong_length", wrong_length),
    ("block_too_large", block_too_large),
    ("block_above_bound", block_above_bound),
    ("grid_too_large", grid_too_large),
    ("shared_too_large", shared_too_large),
    ("missing_parameters", missing_parameters),
    ("parameter_buffer_size", parameter_buffer_size),
    ("use_after_free", use_after_free),
    ("copy_after_free", copy_after_free),
    ("double_free", double_free),
    ("double_free_async", double_free_async),
    ("free_inside", free_inside),
    ("leak", leak),
    ("leak_of_context", leak_of_context),
    ("leak_of_pinned", leak_of_pinned),
    ("alloc_in_capture", alloc_in_capture),
    ("malloc_in_capture", malloc_in_capture),
    ("sync_in_capture", sync_in_capture),
    ("outside_event_in_capture", outside_event_in_capture),
    ("unjoined_capture", unjoined_capture),
    ("capture_of_default_stream", capture_of_default_stream),
    ("unwritten_output", unwritten_output),
    ("partly_written_output", partly_written_output),
    ("copy_too_long", copy_too_long),
    ("pinned_freed_early", pinned_freed_early),
    ("stale_stream", stale_stream),
    ("driver_in_host_function", driver_in_host_function),
    ("unloaded_module_in_graph", unloaded_module_in_graph),
    ("out_of_memory", out_of_memory),
    ("trap", trap),
    ("assertion", assertion),
    ("nobody_waits", nobody_waits),
    ("bad_ptx", bad_ptx),
    ("new_ptx", new_ptx),
];

const N: usize = 1000;

/// A code of the driver.
fn code<T>(r: Result<T, DriverError>) -> sys::CUresult {
    match r {
        Ok(_) => sys::CUresult::CUDA_SUCCESS,
        Err(e) => e.0,
    }
}

use sys::CUresult::{
    CUDA_ERROR_CAPTURED_EVENT, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_PTX,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_NOT_PERMITTED, CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
};

fn context() -> std::sync::Arc<CudaContext> {
    let context = CudaContext::new(0).unwrap();
    // SAFETY: the scenarios order their streams themselves, or fail to on purpose.
    unsafe { context.disable_event_tracking() };
    context
}

const GLOBAL: sys::CUstreamCaptureMode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
const NO_FLAGS: sys::CUgraphInstantiate_flags = sys::CUgraphInstantiate_flags(0);

/// The consumer's stream does not wait for the producer's.
fn missing_wait() {
    let context = context();
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let copy = kernel(&context, "copy_some");
    let x = a.clone_htod(&[1f32; N]).unwrap();
    // SAFETY: what is read before it is written is the point.
    let (mut y, mut z) = unsafe { (a.alloc::<f32>(N).unwrap(), b.alloc::<f32>(N).unwrap()) };
    let n = N as i32;
    // SAFETY: the arguments are those of `copy_some`.
    unsafe {
        a.launch_builder(&copy).arg(&x).arg(&mut y).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap();
        b.launch_builder(&copy).arg(&y).arg(&mut z).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap();
    }
    assert_eq!(code(b.synchronize()), CUDA_ERROR_LAUNCH_FAILED);
    // Every later call gives the same.
    assert_eq!(code(a.clone_dtoh(&x)), CUDA_ERROR_LAUNCH_FAILED);
    assert_eq!(code(context.synchronize()), CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn a_missing_event_wait_is_an_uninitialised_read() {
    let outcome = run("missing_wait");
    let report = outcome.only(Kind::UninitialisedRead);
    assert_eq!(report.function, "cuLaunchKernel");
    assert_eq!(report.place.as_ref().map(|p| p.kernel.as_str()), Some("copy_some"));
    assert_eq!(outcome.code, Some(99), "the program succeeded, the launcher does not");
}

/// No wait, but everything was written before, so only the order of the two kernels is undefined.
fn lucky_order() {
    let context = context();
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let copy = kernel(&context, "copy_some");
    let x = a.clone_htod(&[1f32; N]).unwrap();
    let mut y = a.alloc_zeros::<f32>(N).unwrap();
    let mut z = a.alloc_zeros::<f32>(N).unwrap();
    a.synchronize().unwrap();
    let n = N as i32;
    // SAFETY: the arguments are those of `copy_some`.
    unsafe {
        a.launch_builder(&copy).arg(&x).arg(&mut y).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap();
        b.launch_builder(&copy).arg(&y).arg(&mut z).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap();
    }
    assert_eq!(code(context.synchronize()), CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn a_missing_wait_is_found_under_every_seed() {
    for seed in ["0", "1", "2", "3", "4", "5"] {
        let outcome = run_with("lucky_order", &["--seed", seed]);
        let report = outcome.only(Kind::StreamRace);
        assert!(
            report.text.contains("copy_some") && report.text.contains("nothing orders"),
            "{}",
            report.text
        );
    }
}

/// Pinned memory is filled by one stream while another sends it.
fn pinned_race() {
    let context = context();
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    // SAFETY: written before it is read.
    let mut host = unsafe { context.alloc_pinned::<f32>(N).unwrap() };
    host.as_mut_slice().unwrap().fill(1.0);
    let x = a.clone_htod(&[2f32; N]).unwrap();
    let mut y = a.alloc_zeros::<f32>(N).unwrap();
    a.synchronize().unwrap();
    let at = host.as_mut_ptr().unwrap();
    // SAFETY: the pinned buffer holds N floats and outlives both copies.
    unsafe {
        let to = std::slice::from_raw_parts_mut(at, N);
        result::memcpy_dtoh_async(to, x.device_ptr(&a).0, a.cu_stream()).unwrap();
        let from = std::slice::from_raw_parts(at.cast_const(), N);
        result::memcpy_htod_async(y.device_ptr_mut(&b).0, from, b.cu_stream()).unwrap();
    }
    assert_eq!(code(context.synchronize()), CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn a_race_in_pinned_memory_is_found() {
    assert!(run("pinned_race").only(Kind::StreamRace).text.contains("host memory"));
}

/// A library product in one stream, a fill of its operand in another.
fn gemm_race() {
    use cudarc::cublas::{CudaBlas, Gemm, GemmConfig, sys::cublasOperation_t::CUBLAS_OP_N};
    let context = context();
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let blas = CudaBlas::new(a.clone()).unwrap();
    let mut x = a.alloc_zeros::<f32>(16).unwrap();
    let mut y = a.alloc_zeros::<f32>(16).unwrap();
    a.synchronize().unwrap();
    let (transa, transb) = (CUBLAS_OP_N, CUBLAS_OP_N);
    let config =
        GemmConfig { transa, transb, m: 4, n: 4, k: 4, alpha: 1f32, lda: 4, ldb: 4, beta: 0.0, ldc: 4 };
    // SAFETY: the sizes are those of the buffers.
    unsafe { blas.gemm(config, &x, &x, &mut y) }.unwrap();
    b.memset_zeros(&mut x).unwrap();
    assert_eq!(code(context.synchronize()), CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn a_race_with_a_library_call_is_found() {
    assert!(run("gemm_race").only(Kind::StreamRace).text.contains("cublasSgemm_v2"));
}

/// One stream frees what another still uses.
fn freed_in_another_stream() {
    let context = context();
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let copy = kernel(&context, "copy_some");
    let x = a.clone_htod(&[1f32; N]).unwrap();
    let mut y = b.alloc_zeros::<f32>(N).unwrap();
    a.synchronize().unwrap();
    let n = N as i32;
    // SAFETY: the arguments are those of `copy_some`.
    unsafe { b.launch_builder(&copy).arg(&x).arg(&mut y).arg(&n).arg(&0i32).launch(shape(4, 256)) }.unwrap();
    drop(x);
    assert_eq!(code(a.synchronize()), sys::CUresult::CUDA_SUCCESS);
    assert_eq!(code(b.synchronize()), CUDA_ERROR_ILLEGAL_ADDRESS);
}

#[test]
fn a_free_that_does_not_wait_is_a_use_after_free() {
    run("freed_in_another_stream").only(Kind::UseAfterFree);
    // In the lucky order the free comes last, but nothing says so.
    let lucky =
        (1..20).map(|seed| run_with("freed_in_another_stream", &["--seed", &seed.to_string()]).kinds());
    assert!(lucky.into_iter().any(|kinds| kinds == [Kind::StreamRace]));
}

fn swapped_arguments() {
    let context = context();
    let stream = context.default_stream();
    let copy = kernel(&context, "copy_some");
    let x = stream.clone_htod(&[1f32; N]).unwrap();
    // SAFETY: what is read before it is written is the point.
    let y = unsafe { stream.alloc::<f32>(N).unwrap() };
    // SAFETY: source and destination are exchanged; both hold N floats.
    unsafe { stream.launch_builder(&copy).arg(&y).arg(&x).arg(&(N as i32)).arg(&0i32).launch(shape(4, 256)) }
        .unwrap();
    assert_eq!(code(stream.synchronize()), CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn exchanged_pointers_are_an_uninitialised_read() {
    run("swapped_arguments").only(Kind::UninitialisedRead);
}

fn wrong_length() {
    let context = context();
    let stream = context.default_stream();
    let fill = kernel(&context, "fill");
    let mut out = stream.alloc_zeros::<i32>(N).unwrap();
    // SAFETY: the length is wrong on purpose; the device checks it.
    unsafe {
        stream.launch_builder(&fill).arg(&mut out).arg(&0i32).arg(&(N as i32 + 1)).launch(shape(4, 256))
    }
    .unwrap();
    assert_eq!(code(stream.synchronize()), CUDA_ERROR_ILLEGAL_ADDRESS);
}

#[test]
fn one_element_too_many_is_out_of_bounds() {
    let outcome = run("wrong_length");
    let place = outcome.only(Kind::OutOfBounds).place.clone().unwrap();
    assert_eq!((place.block, place.thread), (Some([3, 0, 0]), Some([N as u32 - 768, 0, 0])));
    assert!(place.instruction.contains("st.global"), "{place:?}");
}

fn block_too_large() {
    let context = context();
    let stream = context.default_stream();
    let f = kernel(&context, "nothing");
    // SAFETY: no arguments.
    assert_eq!(code(unsafe { stream.launch_builder(&f).launch(shape(1, 1025)) }), CUDA_ERROR_INVALID_VALUE);
    // The context lives on.
    // SAFETY: no arguments.
    unsafe { stream.launch_builder(&f).launch(shape(1, 1024)) }.unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn a_block_above_the_devices_limit_is_refused() {
    assert!(run("block_too_large").only(Kind::LaunchLimit).text.contains("1025"));
}

fn block_above_bound() {
    let context = context();
    let stream = context.default_stream();
    let f = kernel(&context, "bounded");
    let mut out = stream.alloc_zeros::<i32>(128).unwrap();
    // SAFETY: the arguments are those of `bounded`.
    let launched = unsafe { stream.launch_builder(&f).arg(&mut out).launch(shape(1, 65)) };
    assert_eq!(code(launched), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn a_block_above_the_kernels_bound_is_refused() {
    run("block_above_bound").only(Kind::LaunchLimit);
}

fn grid_too_large() {
    let context = context();
    let f = kernel(&context, "nothing");
    let stream = context.default_stream();
    let config = LaunchConfig { grid_dim: (1, 65536, 1), ..shape(1, 1) };
    // SAFETY: no arguments.
    assert_eq!(code(unsafe { stream.launch_builder(&f).launch(config) }), CUDA_ERROR_INVALID_VALUE);
    let config = LaunchConfig { grid_dim: (0, 1, 1), ..shape(1, 1) };
    // SAFETY: no arguments.
    assert_eq!(code(unsafe { stream.launch_builder(&f).launch(config) }), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn a_grid_above_the_limits_or_empty_is_refused() {
    assert_eq!(run("grid_too_large").kinds(), [Kind::LaunchLimit; 2]);
}

fn shared_too_large() {
    let context = context();
    let stream = context.default_stream();
    let f = kernel(&context, "reverse");
    let x = stream.alloc_zeros::<i32>(32).unwrap();
    let mut y = stream.alloc_zeros::<i32>(32).unwrap();
    let config = LaunchConfig { shared_mem_bytes: (48 << 10) + 4, ..shape(1, 32) };
    // SAFETY: the arguments are those of `reverse`.
    let launched = unsafe { stream.launch_builder(&f).arg(&x).arg(&mut y).launch(config) };
    assert_eq!(code(launched), CUDA_ERROR_INVALID_VALUE);
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    assert_eq!(code(f.set_attribute(attribute, 200 << 10)), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn shared_memory_without_opting_in_is_refused() {
    assert_eq!(run("shared_too_large").kinds(), [Kind::LaunchLimit; 2]);
}

fn missing_parameters() {
    let context = context();
    let stream = context.default_stream();
    let f = kernel(&context, "fill");
    // What cudarc's builder cannot do: no list at all, and a list whose end is null.
    let launch = |list: *mut *mut std::ffi::c_void| {
        // SAFETY: the list is null or ends in a null pointer, where the driver stops.
        unsafe {
            let none = std::ptr::null_mut();
            sys::cuLaunchKernel(f.cu_function(), 1, 1, 1, 1, 1, 1, 0, stream.cu_stream(), list, none).result()
        }
    };
    assert_eq!(code(launch(std::ptr::null_mut())), CUDA_ERROR_INVALID_VALUE);
    let mut at = 0u64;
    let mut list = [(&raw mut at).cast(), std::ptr::null_mut(), std::ptr::null_mut()];
    assert_eq!(code(launch(list.as_mut_ptr())), CUDA_ERROR_INVALID_VALUE);
    list[1] = 16 as *mut _;
    assert_eq!(code(launch(list.as_mut_ptr())), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn too_few_parameters_are_refused_where_it_can_be_seen() {
    let outcome = run("missing_parameters");
    assert_eq!(outcome.kinds(), [Kind::Parameters; 3]);
    assert!(outcome.reports[2].text.contains("parameter 1"), "{}", outcome.reports[2].text);
}

/// `CU_LAUNCH_PARAM_BUFFER_POINTER` and `CU_LAUNCH_PARAM_BUFFER_SIZE`.
const PARAM_POINTER: usize = 1;
const PARAM_SIZE: usize = 2;

fn parameter_buffer_size() {
    let context = context();
    let stream = context.default_stream();
    let f = kernel(&context, "fill");
    let mut out = stream.alloc_zeros::<i32>(4).unwrap();
    let launch = |buffer: &mut [u8], mut size: usize| {
        let mut extra: [*mut std::ffi::c_void; 5] = [
            std::ptr::without_provenance_mut(PARAM_POINTER),
            buffer.as_mut_ptr().cast(),
            std::ptr::without_provenance_mut(PARAM_SIZE),
            (&raw mut size).cast(),
            std::ptr::null_mut(),
        ];
        // SAFETY: key and value pairs with an end mark.
        unsafe {
            let list = std::ptr::null_mut();
            sys::cuLaunchKernel(
                f.cu_function(),
                1,
                1,
                1,
                4,
                1,
                1,
                0,
                stream.cu_stream(),
                list,
                extra.as_mut_ptr(),
            )
            .result()
        }
    };
    let mut buffer = {
        let (at, _sync) = out.device_ptr(&stream);
        [&at.to_le_bytes()[..], &5i32.to_le_bytes(), &4i32.to_le_bytes()].concat()
    };
    assert_eq!(code(launch(&mut buffer, 12)), CUDA_ERROR_INVALID_VALUE);
    launch(&mut buffer, 16).unwrap();
    assert_eq!(stream.clone_dtoh(&out).unwrap(), [5, 6, 7, 8]);
    stream.memset_zeros(&mut out).unwrap();
}

#[test]
fn a_parameter_buffer_of_the_wrong_size_is_refused() {
    assert!(run("parameter_buffer_size").only(Kind::Parameters).text.contains("12 bytes"));
}

fn use_after_free() {
    let context = context();
    let stream = context.default_stream();
    let copy = kernel(&context, "copy_some");
    let x = stream.clone_htod(&[1f32; N]).unwrap();
    let mut y = stream.alloc_zeros::<f32>(N).unwrap();
    let stale = x.device_ptr(&stream).0;
    drop(x);
    // SAFETY: the source was freed on purpose; the device checks it.
    unsafe {
        stream.launch_builder(&copy).arg(&stale).arg(&mut y).arg(&(N as i32)).arg(&0i32).launch(shape(4, 256))
    }
    .unwrap();
    assert_eq!(code(stream.synchronize()), CUDA_ERROR_ILLEGAL_ADDRESS);
}

#[test]
fn a_kernel_that_reads_freed_memory_is_reported() {
    run("use_after_free").only(Kind::UseAfterFree);
}

fn copy_after_free() {
    let context = context();
    let stream = context.default_stream();
    let x = stream.clone_htod(&[1u8; 16]).unwrap();
    let at = x.device_ptr(&stream).0;
    drop(x);
    stream.synchronize().unwrap();
    let mut host = [0u8; 16];
    // SAFETY: the driver checks the address.
    let copied = unsafe { result::memcpy_dtoh_sync(&mut host, at) };
    assert_eq!(code(copied), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(host, [0; 16]);
}

#[test]
fn a_copy_of_freed_memory_is_refused() {
    run("copy_after_free").only(Kind::UseAfterFree);
}

fn double_free() {
    let _context = context();
    // SAFETY: the second free is the point.
    unsafe {
        let at = result::malloc_sync(64).unwrap();
        result::free_sync(at).unwrap();
        assert_eq!(code(result::free_sync(at)), CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn a_second_free_is_reported() {
    run("double_free").only(Kind::DoubleFree);
}

fn double_free_async() {
    let context = context();
    let stream = context.default_stream();
    // SAFETY: the second free is the point.
    unsafe {
        let at = result::malloc_async(stream.cu_stream(), 64).unwrap();
        result::free_async(at, stream.cu_stream()).unwrap();
        assert_eq!(code(result::free_async(at, stream.cu_stream())), CUDA_ERROR_INVALID_VALUE);
        stream.synchronize().unwrap();
        assert_eq!(code(result::free_async(at, stream.cu_stream())), CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn a_second_free_in_stream_order_is_reported_at_once() {
    assert_eq!(run("double_free_async").kinds(), [Kind::DoubleFree; 2]);
}

fn free_inside() {
    let context = context();
    // SAFETY: wrong addresses are the point.
    unsafe {
        let at = result::malloc_sync(64).unwrap();
        assert_eq!(code(result::free_sync(at + 4)), CUDA_ERROR_INVALID_VALUE);
        result::free_sync(at).unwrap();
        let stream = context.default_stream();
        let module = module(&context);
        let global = module.get_global("calls", &stream).unwrap();
        let at = global.device_ptr(&stream).0;
        assert_eq!(code(result::free_sync(at)), CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn a_free_of_no_allocation_is_reported() {
    assert_eq!(run("free_inside").kinds(), [Kind::InvalidFree; 2]);
}

fn leak() {
    let context = context();
    let slice = context.default_stream().alloc_zeros::<u8>(100).unwrap();
    context.synchronize().unwrap();
    std::mem::forget(slice);
}

#[test]
fn memory_that_is_never_freed_is_reported_at_exit() {
    let outcome = run("leak");
    let report = outcome.only(Kind::Leak);
    assert!(report.text.contains("100 bytes") && report.text.contains("program ended"), "{}", report.text);
    assert_eq!(outcome.tally().alive_at_exit["device_allocations"], 1);
}

fn leak_of_context() {
    let context = context();
    // SAFETY: not freeing it is the point.
    unsafe { result::malloc_sync(64).unwrap() };
    drop(context);
}

#[test]
fn memory_that_outlives_its_context_is_reported() {
    assert!(run("leak_of_context").only(Kind::Leak).text.contains("context ended"));
}

fn leak_of_pinned() {
    let context = context();
    // SAFETY: not freeing it is the point.
    unsafe { result::malloc_host(64, 0).unwrap() };
    drop(context);
}

#[test]
fn pinned_memory_that_is_never_freed_is_reported() {
    assert!(run("leak_of_pinned").only(Kind::Leak).text.contains("pinned"));
}

fn alloc_in_capture() {
    let context = context();
    let stream = context.new_stream().unwrap();
    stream.begin_capture(GLOBAL).unwrap();
    // SAFETY: never used.
    assert_eq!(code(unsafe { stream.alloc::<u8>(16) }), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_eq!(code(stream.end_capture(NO_FLAGS)), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    stream.synchronize().unwrap();
}

#[test]
fn an_allocation_in_the_captured_stream_is_reported() {
    assert_eq!(run("alloc_in_capture").kinds(), [Kind::Capture; 2]);
}

fn malloc_in_capture() {
    let context = context();
    let stream = context.new_stream().unwrap();
    stream.begin_capture(GLOBAL).unwrap();
    // SAFETY: never used.
    assert_eq!(code(unsafe { result::malloc_sync(16) }), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_eq!(code(stream.end_capture(NO_FLAGS)), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    // A relaxed capture allows it.
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
    // SAFETY: allocated and freed.
    unsafe { result::free_sync(result::malloc_sync(16).unwrap()).unwrap() };
    assert!(stream.end_capture(NO_FLAGS).unwrap().is_some());
}

#[test]
fn an_allocation_during_a_capture_is_reported() {
    assert_eq!(run("malloc_in_capture").kinds(), [Kind::Capture; 2]);
}

fn sync_in_capture() {
    let context = context();
    let stream = context.new_stream().unwrap();
    stream.begin_capture(GLOBAL).unwrap();
    assert_eq!(code(stream.synchronize()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_eq!(code(stream.end_capture(NO_FLAGS)), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    stream.begin_capture(GLOBAL).unwrap();
    assert_eq!(code(context.synchronize()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_eq!(code(stream.end_capture(NO_FLAGS)), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    stream.begin_capture(GLOBAL).unwrap();
    let event = stream.record_event(None).unwrap();
    assert!(!event.is_complete());
    assert_eq!(code(stream.end_capture(NO_FLAGS)), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_eq!(code(event.synchronize()), CUDA_ERROR_CAPTURED_EVENT);
}

#[test]
fn a_synchronisation_during_a_capture_is_reported() {
    assert_eq!(run("sync_in_capture").kinds(), [Kind::Capture; 7]);
}

fn outside_event_in_capture() {
    let context = context();
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let outside = b.record_event(None).unwrap();
    a.begin_capture(GLOBAL).unwrap();
    assert_eq!(code(a.wait(&outside)), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    assert_eq!(code(a.end_capture(NO_FLAGS)), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

#[test]
fn a_wait_for_an_event_outside_the_capture_is_reported() {
    assert_eq!(run("outside_event_in_capture").kinds(), [Kind::Capture; 2]);
}

fn unjoined_capture() {
    let context = context();
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let f = kernel(&context, "nothing");
    a.begin_capture(GLOBAL).unwrap();
    b.join(&a).unwrap();
    // SAFETY: no arguments.
    unsafe { b.launch_builder(&f).launch(shape(1, 1)) }.unwrap();
    assert_eq!(code(a.end_capture(NO_FLAGS)), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
}

#[test]
fn work_that_is_forked_and_not_joined_is_reported() {
    run("unjoined_capture").only(Kind::Capture);
}

fn capture_of_default_stream() {
    let context = context();
    assert_eq!(code(context.default_stream().begin_capture(GLOBAL)), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert!(context.default_stream().end_capture(NO_FLAGS).is_err());
}

#[test]
fn the_default_stream_cannot_be_captured() {
    assert_eq!(run("capture_of_default_stream").kinds(), [Kind::Capture; 2]);
}

fn unwritten_output() {
    let context = context();
    let stream = context.default_stream();
    // SAFETY: reading it unwritten is the point.
    let out = unsafe { stream.alloc::<f32>(N).unwrap() };
    assert_eq!(code(stream.clone_dtoh(&out)), CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn output_that_nothing_wrote_is_reported() {
    let outcome = run("unwritten_output");
    assert_eq!(outcome.only(Kind::UnwrittenOutput).function, "cuMemcpyDtoHAsync_v2");
}

#[test]
fn without_checks_unwritten_output_is_zero() {
    let outcome = run_with("unwritten_output", &["--fast"]);
    assert!(outcome.reports.is_empty());
    assert_eq!(outcome.code, Some(101), "the scenario expected a failure and did not get one");
}

fn partly_written_output() {
    let context = context();
    let stream = context.default_stream();
    let copy = kernel(&context, "copy_some");
    let x = stream.clone_htod(&[1f32; N]).unwrap();
    // SAFETY: reading a part of it unwritten is the point.
    let mut y = unsafe { stream.alloc::<f32>(N).unwrap() };
    // SAFETY: the arguments are those of `copy_some`, which leaves the last element alone.
    unsafe {
        stream.launch_builder(&copy).arg(&x).arg(&mut y).arg(&(N as i32)).arg(&1i32).launch(shape(4, 256))
    }
    .unwrap();
    assert_eq!(code(stream.clone_dtoh(&y)), CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn one_unwritten_element_is_reported() {
    run("partly_written_output").only(Kind::UnwrittenOutput);
}

fn copy_too_long() {
    let context = context();
    let stream = context.default_stream();
    let x = stream.alloc_zeros::<u8>(16).unwrap();
    let at = x.device_ptr(&stream).0;
    // SAFETY: the driver checks the length.
    let copied = unsafe { result::memcpy_htod_sync(at, &[0u8; 17]) };
    assert_eq!(code(copied), CUDA_ERROR_INVALID_VALUE);
    let mut host = [0u8; 17];
    // SAFETY: the driver checks the length.
    assert_eq!(code(unsafe { result::memcpy_dtoh_sync(&mut host, at) }), CUDA_ERROR_INVALID_VALUE);
    // SAFETY: the driver checks the ranges.
    assert_eq!(code(unsafe { result::memcpy_dtod_sync(at, at + 8, 9) }), CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn copies_past_the_end_are_refused() {
    assert_eq!(run("copy_too_long").kinds(), [Kind::OutOfBounds; 3]);
}

fn pinned_freed_early() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let mut x = stream.alloc_zeros::<u8>(64).unwrap();
    // SAFETY: freeing it while a copy is queued is the point; the driver runs the copy first.
    unsafe {
        let host = result::malloc_host(64, 0).unwrap();
        let bytes = std::slice::from_raw_parts(host.cast::<u8>(), 64);
        stream.memcpy_htod(bytes, &mut x).unwrap();
        result::free_host(host).unwrap();
    }
    stream.synchronize().unwrap();
}

#[test]
fn pinned_memory_freed_while_a_copy_wants_it_is_reported() {
    run("pinned_freed_early").only(Kind::HostMemory);
}

fn stale_stream() {
    let context = context();
    let stream = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
    // SAFETY: the driver knows which streams are alive.
    unsafe {
        result::stream::destroy(stream).unwrap();
        assert_eq!(code(result::stream::synchronize(stream)), CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(code(result::stream::destroy(stream)), CUDA_ERROR_INVALID_HANDLE);
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).unwrap();
        result::event::destroy(event).unwrap();
        assert_eq!(code(result::event::destroy(event)), CUDA_ERROR_INVALID_HANDLE);
    }
    drop(context);
}

#[test]
fn handles_that_were_destroyed_are_refused() {
    assert_eq!(run("stale_stream").kinds(), [Kind::Argument; 3]);
}

fn driver_in_host_function() {
    unsafe extern "C" fn called(_: *mut std::ffi::c_void) {
        assert_eq!(code(result::ctx::synchronize()), CUDA_ERROR_NOT_PERMITTED);
    }
    let context = context();
    let stream = context.new_stream().unwrap();
    // SAFETY: the function takes any argument.
    unsafe { result::stream::launch_host_function(stream.cu_stream(), called, std::ptr::null_mut()) }
        .unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn a_host_function_that_calls_the_driver_is_reported() {
    run("driver_in_host_function").only(Kind::Argument);
}

fn unloaded_module_in_graph() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let f = kernel(&context, "nothing");
    stream.begin_capture(GLOBAL).unwrap();
    // SAFETY: no arguments.
    unsafe { stream.launch_builder(&f).launch(shape(1, 1)) }.unwrap();
    let graph = stream.end_capture(NO_FLAGS).unwrap().unwrap();
    drop(f);
    assert_eq!(code(graph.launch()), CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn a_graph_that_outlives_its_module_is_refused() {
    assert!(run("unloaded_module_in_graph").only(Kind::Argument).text.contains("unloaded"));
}

fn out_of_memory() {
    let context = context();
    let stream = context.default_stream();
    // SAFETY: never read.
    let first = unsafe { stream.alloc::<u8>(48 << 20) }.unwrap();
    // SAFETY: never read.
    assert_eq!(code(unsafe { stream.alloc::<u8>(48 << 20) }), CUDA_ERROR_OUT_OF_MEMORY);
    drop(first);
    stream.synchronize().unwrap();
    // SAFETY: never read.
    drop(unsafe { stream.alloc::<u8>(48 << 20) }.unwrap());
}

#[test]
fn a_full_device_is_reported_and_recovers() {
    run_with("out_of_memory", &["--memory", "64MiB"]).only(Kind::OutOfMemory);
}

fn trap() {
    let context = context();
    let stream = context.default_stream();
    let f = kernel(&context, "stop");
    // SAFETY: no arguments.
    unsafe { stream.launch_builder(&f).launch(shape(1, 1)) }.unwrap();
    assert_eq!(code(stream.synchronize()), CUDA_ERROR_LAUNCH_FAILED);
}

#[test]
fn a_trap_is_reported() {
    run("trap").only(Kind::Trap);
}

fn assertion() {
    let context = context();
    let stream = context.default_stream();
    let f = kernel(&context, "insist");
    let x = stream.clone_htod(&[0, 3, 6, 8]).unwrap();
    // SAFETY: the arguments are those of `insist`.
    unsafe { stream.launch_builder(&f).arg(&x).launch(shape(1, 3)) }.unwrap();
    stream.synchronize().unwrap();
    // SAFETY: the arguments are those of `insist`.
    unsafe { stream.launch_builder(&f).arg(&x).launch(shape(1, 4)) }.unwrap();
    assert_eq!(code(stream.synchronize()), sys::CUresult::CUDA_ERROR_ASSERT);
}

#[test]
fn a_failed_assertion_of_a_kernel_is_reported() {
    let outcome = run("assertion");
    let report = outcome.only(Kind::Assert);
    assert!(report.text.contains("value % 3 == 0"), "{}", report.text);
    assert_eq!(report.place.as_ref().and_then(|p| p.thread), Some([3, 0, 0]));
}

fn nobody_waits() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let f = kernel(&context, "nothing");
    // SAFETY: no arguments.
    unsafe { stream.launch_builder(&f).launch(shape(1, 1)) }.unwrap();
    std::mem::forget((context, stream, f));
}

#[test]
fn work_that_nobody_waits_for_is_a_warning() {
    let outcome = run("nobody_waits");
    assert_eq!(outcome.only(Kind::Unfinished).severity, Severity::Warning);
    assert_eq!(outcome.code, Some(0), "a warning is no defect");
    assert_eq!(outcome.tally().alive_at_exit["modules"], 1);
}

fn bad_ptx() {
    let context = context();
    let broken = PTX.replacen("st.global", "st.glubal", 1);
    assert_ne!(broken, PTX);
    assert_eq!(code(context.load_module(broken.into())), CUDA_ERROR_INVALID_PTX);
    assert_eq!(code(context.load_module("int main() {}".into())), CUDA_ERROR_INVALID_PTX);
}

#[test]
fn wrong_ptx_is_refused_by_line_and_text() {
    let outcome = run("bad_ptx");
    assert_eq!(outcome.kinds(), [Kind::Ptx; 2]);
    let text = &outcome.reports[0].text;
    assert!(text.contains("line") && text.contains("glubal"), "{text}");
}

fn new_ptx() {
    let context = context();
    let newer = PTX.replacen(".version 8.0", ".version 8.8", 1);
    assert_eq!(code(context.load_module(newer.into())), CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    assert!(context.load_module(PTX.into()).is_ok());
    let target = PTX.replacen("sm_80", "sm_90", 1);
    assert_eq!(code(context.load_module(target.into())), sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
}

#[test]
fn ptx_newer_than_the_driver_or_the_device_is_refused() {
    let outcome = run_with("new_ptx", &["--driver", "12.0"]);
    assert_eq!(outcome.kinds(), [Kind::Ptx; 2]);
    assert!(outcome.reports[0].text.contains("PTX 8.8"), "{}", outcome.reports[0].text);
}
