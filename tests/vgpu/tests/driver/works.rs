//! Programs without mistakes: results are right, nothing is reported, and the counters are exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::{
    CudaContext, CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg, result, sys,
};

use super::harness::{kernel, module, run, run_second, run_with, shape};

/// Scenarios of this module.
pub const SCENARIOS: &[(&str, fn())] = &[
    ("identity", identity),
    ("launches", launches),
    ("streams", streams),
    ("tracking", tracking),
    ("legacy", legacy),
    ("graph", graph),
    ("forked_graph", forked_graph),
    ("pinned", pinned),
    ("pools", pools),
    ("constants", constants),
    ("mixed", mixed),
    ("attributes", attributes),
    ("host_function", host_function),
    ("threads", threads),
    ("contexts", contexts),
    ("polling", polling),
    ("peer", peer),
    ("prints", prints),
];

const N: usize = 1000;

fn input() -> Vec<f32> {
    (0..N).map(|i| i as f32 * 0.5 - 100.0).collect()
}

/// y = 2 x + y, three times.
fn launches() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let axpy = kernel(&context, "axpy");
    let x = stream.clone_htod(&input()).unwrap();
    let mut y = stream.alloc_zeros::<f32>(N).unwrap();
    for _ in 0..3 {
        let mut launch = stream.launch_builder(&axpy);
        launch.arg(&2f32).arg(&x).arg(&mut y).arg(&(N as i32));
        // SAFETY: the arguments are those of `axpy`.
        unsafe { launch.launch(LaunchConfig::for_num_elems(N as u32)) }.unwrap();
    }
    let y = stream.clone_dtoh(&y).unwrap();
    for (y, x) in y.iter().zip(input()) {
        assert_eq!(*y, 6.0 * x);
    }
    assert!(module(&context).load_function("no_such_kernel").is_err());
}

#[test]
fn launches_and_copies_are_counted_exactly() {
    let tally = run("launches").clean().tally().clone();
    assert_eq!(tally.launches, 3);
    assert_eq!((tally.host_to_device.count, tally.host_to_device.bytes), (1, 4 * N as u64));
    assert_eq!((tally.device_to_host.count, tally.device_to_host.bytes), (1, 4 * N as u64));
    assert_eq!((tally.fills.count, tally.fills.bytes), (1, 4 * N as u64));
    assert_eq!(tally.stream_allocations.count, 2);
    assert_eq!(tally.frees, 2);
    assert_eq!(tally.modules, 2);
    assert_eq!(tally.synchronisations.implicit, 1, "the copy to pageable memory");
    let k = &tally.kernels["axpy"];
    assert_eq!((k.launches, k.counters.blocks, k.counters.threads), (3, 3, 3 * 1024));
    assert_eq!(k.counters.global.load_bytes, 3 * 2 * 4 * N as u64);
    assert_eq!(k.counters.global.store_bytes, 3 * 4 * N as u64);
    assert!(tally.alive_at_exit.is_empty(), "{:?}", tally.alive_at_exit);
}

#[test]
fn counters_do_not_depend_on_the_seed_or_on_repetition() {
    let strip = |mut t: monopath_vgpu::driver::tally::Tally| {
        t.seed = 0;
        t
    };
    let first = strip(run("launches").clean().tally().clone());
    assert_eq!(strip(run("launches").clean().tally().clone()), first);
    for seed in ["1", "2", "3"] {
        assert_eq!(strip(run_with("launches", &["--seed", seed]).clean().tally().clone()), first);
    }
}

#[test]
fn kernels_of_the_second_compiler_do_the_same() {
    for name in ["launches", "streams", "tracking", "graph", "constants", "mixed"] {
        run_second(name).clean();
    }
}

fn identity() {
    let context = CudaContext::new(0).unwrap();
    assert_eq!(context.name().unwrap(), "monopath virtual GPU");
    assert_eq!(context.compute_capability().unwrap(), (8, 6));
    assert_eq!(context.total_mem().unwrap(), 64 << 20);
    assert_eq!(&context.uuid().unwrap().bytes.map(|b| b as u8), b"monopath-vgpu-00");
    assert_eq!(CudaContext::device_count().unwrap(), 1);
    assert!(CudaContext::new(1).is_err());
    let (free, total) = context.mem_get_info().unwrap();
    assert_eq!((free, total), (64 << 20, 64 << 20));
    assert!(context.has_async_alloc());
}

#[test]
fn the_device_is_the_chosen_one() {
    let outcome = run_with("identity", &["--capability", "8.6", "--memory", "64MiB"]).clean();
    assert!(outcome.stderr.contains("no GPU is used"), "{}", outcome.stderr);
    assert_eq!(outcome.tally().capability, (8, 6));
}

/// A chain over two streams, ordered by events.
fn streams() {
    let context = CudaContext::new(0).unwrap();
    // SAFETY: this scenario orders its streams itself.
    unsafe { context.disable_event_tracking() };
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let copy = kernel(&context, "copy_some");
    let x = a.clone_htod(&input()).unwrap();
    // SAFETY: written before they are read.
    let (mut y, mut z) = unsafe { (a.alloc::<f32>(N).unwrap(), b.alloc::<f32>(N).unwrap()) };
    let n = N as i32;
    // SAFETY: the arguments are those of `copy_some`.
    unsafe {
        a.launch_builder(&copy).arg(&x).arg(&mut y).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap();
        b.join(&a).unwrap();
        b.launch_builder(&copy).arg(&y).arg(&mut z).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap();
    }
    assert_eq!(b.clone_dtoh(&z).unwrap(), input());
    a.join(&b).unwrap();
    drop((x, y));
    context.synchronize().unwrap();
}

#[test]
fn events_order_streams_under_every_seed() {
    for seed in 0..8 {
        let outcome = run_with("streams", &["--seed", &seed.to_string()]).clean();
        assert_eq!(outcome.tally().event_waits, 2);
        assert_eq!(outcome.tally().event_records, 2);
    }
}

/// The same chain, ordered by cudarc itself.
fn tracking() {
    let context = CudaContext::new(0).unwrap();
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let copy = kernel(&context, "copy_some");
    let x = a.clone_htod(&input()).unwrap();
    // SAFETY: written before it is read.
    let mut y = unsafe { a.alloc::<f32>(N).unwrap() };
    let n = N as i32;
    // SAFETY: the arguments are those of `copy_some`.
    unsafe { b.launch_builder(&copy).arg(&x).arg(&mut y).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap() };
    assert_eq!(a.clone_dtoh(&y).unwrap(), input());
    let z = y.try_clone().unwrap();
    assert_eq!(b.clone_dtoh(&z).unwrap(), input());
}

#[test]
fn event_tracking_orders_streams_under_every_seed() {
    for seed in 0..8 {
        assert!(run_with("tracking", &["--seed", &seed.to_string()]).clean().tally().event_records > 4);
    }
}

fn prints() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let f = kernel(&context, "hello");
    // SAFETY: the arguments are those of `hello`.
    unsafe { stream.launch_builder(&f).arg(&42i32).launch(shape(2, 1)) }.unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn what_kernels_print_goes_to_the_programs_output() {
    let outcome = run("prints").clean();
    for line in ["block 0 says 42", "block 1 says 42"] {
        assert!(outcome.stdout.lines().any(|l| l.ends_with(line)), "{}", outcome.stdout);
    }
}

/// A blocking stream and the legacy stream wait for each other without events.
fn legacy() {
    let context = CudaContext::new(0).unwrap();
    let copy = kernel(&context, "copy_some");
    let stream = result::stream::create(result::stream::StreamKind::Default).unwrap();
    // SAFETY: the stream was just made and is destroyed below.
    let blocking = unsafe { context.wrap_borrowed_stream(stream) };
    let default = context.default_stream();
    let x = default.clone_htod(&input()).unwrap();
    // SAFETY: written before it is read.
    let mut y = unsafe { default.alloc::<f32>(N).unwrap() };
    let n = N as i32;
    // SAFETY: the arguments are those of `copy_some`.
    unsafe {
        blocking.launch_builder(&copy).arg(&x).arg(&mut y).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap()
    };
    assert_eq!(default.clone_dtoh(&y).unwrap(), input());
    // SAFETY: made above, not used any more.
    unsafe { result::stream::destroy(stream) }.unwrap();
}

#[test]
fn blocking_streams_are_ordered_with_the_legacy_stream() {
    for seed in 0..8 {
        run_with("legacy", &["--seed", &seed.to_string()]).clean();
    }
}

/// y = 2 x + y as a graph, launched four times.
fn graph() {
    let context = CudaContext::new(0).unwrap();
    // SAFETY: one stream.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let axpy = kernel(&context, "axpy");
    let x = stream.clone_htod(&input()).unwrap();
    let mut y = stream.alloc_zeros::<f32>(N).unwrap();
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
    stream.begin_capture(mode).unwrap();
    assert_eq!(stream.capture_status().unwrap(), sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    for _ in 0..2 {
        let mut launch = stream.launch_builder(&axpy);
        launch.arg(&2f32).arg(&x).arg(&mut y).arg(&(N as i32));
        // SAFETY: the arguments are those of `axpy`.
        unsafe { launch.launch(shape(4, 256)) }.unwrap();
    }
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().expect("a graph");
    assert!(stream.clone_dtoh(&y).unwrap().iter().all(|v| *v == 0.0), "capturing runs nothing");
    graph.upload().unwrap();
    for _ in 0..4 {
        graph.launch().unwrap();
    }
    let y = stream.clone_dtoh(&y).unwrap();
    assert!(y.iter().zip(input()).all(|(y, x)| *y == 16.0 * x));
}

#[test]
fn a_captured_graph_runs_when_launched() {
    let outcome = run("graph").clean();
    let t = outcome.tally();
    assert_eq!((t.graph_launches, t.graph_nodes, t.launches), (4, 8, 8));
}

/// Two streams captured into one graph by an event each way.
fn forked_graph() {
    let context = CudaContext::new(0).unwrap();
    // SAFETY: this scenario orders its streams itself.
    unsafe { context.disable_event_tracking() };
    let (a, b) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let copy = kernel(&context, "copy_some");
    let x = a.clone_htod(&input()).unwrap();
    // SAFETY: written before they are read.
    let (mut y, mut z) = unsafe { (a.alloc::<f32>(N).unwrap(), a.alloc::<f32>(N).unwrap()) };
    let n = N as i32;
    a.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    // SAFETY: the arguments are those of `copy_some`.
    unsafe {
        a.launch_builder(&copy).arg(&x).arg(&mut y).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap();
        b.join(&a).unwrap();
        b.launch_builder(&copy).arg(&y).arg(&mut z).arg(&n).arg(&0i32).launch(shape(4, 256)).unwrap();
        a.join(&b).unwrap();
    }
    let graph = a.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().expect("a graph");
    graph.launch().unwrap();
    assert_eq!(a.clone_dtoh(&z).unwrap(), input());
}

#[test]
fn a_capture_follows_events_into_other_streams() {
    for seed in 0..8 {
        run_with("forked_graph", &["--seed", &seed.to_string()]).clean();
    }
}

fn pinned() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    // SAFETY: written before it is read.
    let (mut from, mut to) =
        unsafe { (context.alloc_pinned::<f32>(N).unwrap(), context.alloc_pinned::<f32>(N).unwrap()) };
    from.as_mut_slice().unwrap().copy_from_slice(&input());
    let x = stream.clone_htod(&from).unwrap();
    stream.memcpy_dtoh(&x, &mut to).unwrap();
    assert_eq!(to.as_slice().unwrap(), input());
}

#[test]
fn pinned_copies_do_not_wait() {
    let outcome = run("pinned").clean();
    let t = outcome.tally();
    assert_eq!((t.pageable.count, t.synchronisations.implicit), (0, 0));
    assert_eq!((t.host_allocations.count, t.host_allocations.bytes), (2, 8 * N as u64));
}

fn pools() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    // SAFETY: device 0 exists; the pool is destroyed below and its allocation freed.
    unsafe {
        let default = result::device::get_default_mem_pool(context.cu_device()).unwrap();
        assert_eq!(result::device::get_mem_pool(context.cu_device()).unwrap(), default);
        let mut props: sys::CUmemPoolProps = std::mem::zeroed();
        props.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        props.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        let pool = result::mem_pool::create(&props).unwrap();
        let at = result::mem_pool::alloc_async(pool, 4096, stream.cu_stream()).unwrap();
        let used = |pool| {
            let mut bytes = 0u64;
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
            result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()).unwrap();
            bytes
        };
        assert_eq!((used(pool), used(default)), (4096, 0));
        result::free_async(at, stream.cu_stream()).unwrap();
        assert_eq!(used(pool), 4096, "a free happens in stream order");
        stream.synchronize().unwrap();
        assert_eq!(used(pool), 0);
        let mut keep = 1u64 << 20;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, attribute, (&raw mut keep).cast()).unwrap();
        result::device::set_mem_pool(context.cu_device(), pool).unwrap();
        let slice = stream.alloc_zeros::<u8>(100).unwrap();
        assert_eq!(used(pool), 100);
        drop(slice);
        result::mem_pool::trim_to(pool, 0).unwrap();
        result::device::set_mem_pool(context.cu_device(), default).unwrap();
        result::mem_pool::destroy(pool).unwrap();
    }
}

#[test]
fn memory_pools_keep_exact_accounts() {
    run("pools").clean();
}

fn constants() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let module = module(&context);
    let mut symbol = module.get_global("coefficients", &stream).unwrap();
    assert_eq!(symbol.len(), 16);
    // SAFETY: four floats.
    let mut floats = unsafe { symbol.transmute_mut::<f32>(4).unwrap() };
    stream.memcpy_htod(&[1f32, 2.0, 3.0, 4.0], &mut floats).unwrap();
    let x = stream.clone_htod(&[0f32, 1.0, 2.0]).unwrap();
    let mut y = stream.alloc_zeros::<f32>(3).unwrap();
    let polynomial = module.load_function("polynomial").unwrap();
    // SAFETY: the arguments are those of `polynomial`.
    unsafe { stream.launch_builder(&polynomial).arg(&x).arg(&mut y).arg(&3i32).launch(shape(1, 32)) }
        .unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [1.0, 10.0, 49.0]);
    let calls = module.get_global("calls", &stream).unwrap();
    assert_eq!(stream.clone_dtoh(&calls.as_view()).unwrap(), 3u32.to_le_bytes());
    assert!(module.get_global("no_such_symbol", &stream).is_err());
}

#[test]
fn globals_and_constants_are_reached_by_name() {
    run("constants").clean();
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Mixed {
    a: f32,
    b: f64,
    c: u8,
    d: u64,
}

// SAFETY: plain data with C layout, as the kernel declares it.
unsafe impl DeviceRepr for Mixed {}

fn mixed() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let f = kernel(&context, "mixed");
    let mut out = stream.alloc_zeros::<f64>(4).unwrap();
    let m = Mixed { a: 1.5, b: -2.25, c: 200, d: 1 << 40 };
    // SAFETY: the arguments are those of `mixed`.
    unsafe { stream.launch_builder(&f).arg(&m).arg(&mut out).launch(shape(1, 1)) }.unwrap();
    assert_eq!(stream.clone_dtoh(&out).unwrap(), [1.5, -2.25, 200.0, (1u64 << 40) as f64]);
}

#[test]
fn structs_are_passed_by_value() {
    run("mixed").clean();
}

fn attributes() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.default_stream();
    let f = kernel(&context, "bounded");
    assert_eq!(f.max_threads_per_block().unwrap(), 64);
    assert_eq!(f.shared_size_bytes().unwrap(), 0);
    assert_eq!(f.ptx_version().unwrap(), 80);
    // Nothing is assembled here, so registers are not known; 0 says so.
    assert_eq!(f.num_regs().unwrap(), 0);
    let f = kernel(&context, "reverse");
    assert_eq!(f.occupancy_max_active_blocks_per_multiprocessor(1024, 0, None).unwrap(), 2);
    extern "C" fn no_shared(_: std::ffi::c_int) -> usize {
        0
    }
    assert_eq!(f.occupancy_max_potential_block_size(no_shared, 0, 0, None).unwrap(), (216, 1024));
    // Dynamic shared memory: 48 KiB as it is, more after opting in.
    let (threads, bytes) = (1024u32, 100 << 10);
    let x: Vec<i32> = (0..threads as i32).collect();
    let from = stream.clone_htod(&x).unwrap();
    let mut to = stream.alloc_zeros::<i32>(threads as usize).unwrap();
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    f.set_attribute(attribute, bytes as i32).unwrap();
    let config = LaunchConfig { shared_mem_bytes: bytes, ..shape(1, threads) };
    // SAFETY: the arguments are those of `reverse`, with room for a value per thread.
    unsafe { stream.launch_builder(&f).arg(&from).arg(&mut to).launch(config) }.unwrap();
    let reversed: Vec<i32> = x.iter().rev().copied().collect();
    assert_eq!(stream.clone_dtoh(&to).unwrap(), reversed);
    let stack = context.get_limit(sys::CUlimit::CU_LIMIT_STACK_SIZE).unwrap();
    context.set_limit(sys::CUlimit::CU_LIMIT_STACK_SIZE, stack * 2).unwrap();
    assert_eq!(context.get_limit(sys::CUlimit::CU_LIMIT_STACK_SIZE).unwrap(), stack * 2);
}

#[test]
fn attributes_and_occupancy_follow_the_kernel() {
    run("attributes").clean();
}

static CALLED: AtomicU32 = AtomicU32::new(0);

fn host_function() {
    unsafe extern "C" fn called(data: *mut std::ffi::c_void) {
        CALLED.store(data as usize as u32, Ordering::SeqCst);
    }
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    // SAFETY: the function takes any argument.
    unsafe { result::stream::launch_host_function(stream.cu_stream(), called, 7 as *mut _) }.unwrap();
    assert_eq!(CALLED.load(Ordering::SeqCst), 0, "not before the stream runs");
    stream.synchronize().unwrap();
    assert_eq!(CALLED.load(Ordering::SeqCst), 7);
}

#[test]
fn host_functions_run_in_stream_order() {
    assert_eq!(run("host_function").clean().tally().host_functions, 1);
}

fn threads() {
    let context = CudaContext::new(0).unwrap();
    let fill = kernel(&context, "fill");
    let sums: Vec<i64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|t| {
                let (context, fill) = (context.clone(), fill.clone());
                scope.spawn(move || {
                    let stream = context.new_stream().unwrap();
                    let mut out = stream.alloc_zeros::<i32>(N).unwrap();
                    let mut launch = stream.launch_builder(&fill);
                    launch.arg(&mut out).arg(&t).arg(&(N as i32));
                    // SAFETY: the arguments are those of `fill`.
                    unsafe { launch.launch(shape(4, 256)) }.unwrap();
                    stream.clone_dtoh(&out).unwrap().iter().map(|v| i64::from(*v)).sum()
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    for (t, sum) in sums.iter().enumerate() {
        assert_eq!(*sum, (N * (N - 1) / 2 + t * N) as i64);
    }
}

#[test]
fn threads_share_a_context() {
    assert_eq!(run("threads").clean().tally().launches, 4);
}

fn contexts() {
    let primary = CudaContext::new(0).unwrap();
    let again = CudaContext::new(0).unwrap();
    assert_eq!(primary.cu_ctx(), again.cu_ctx());
    let own = CudaContext::new_non_primary(0, 0).unwrap();
    assert_ne!(primary.cu_ctx(), own.cu_ctx());
    let a = own.default_stream().clone_htod(&[1, 2, 3]).unwrap();
    assert_eq!(own.default_stream().clone_dtoh(&a).unwrap(), [1, 2, 3]);
    let b = primary.default_stream().clone_htod(&[4]).unwrap();
    assert_eq!(primary.default_stream().clone_dtoh(&b).unwrap(), [4]);
    drop((a, b, own, primary, again));
    let fresh = CudaContext::new(0).unwrap();
    let c = fresh.default_stream().clone_htod(&[5]).unwrap();
    assert_eq!(fresh.default_stream().clone_dtoh(&c).unwrap(), [5]);
}

#[test]
fn contexts_come_and_go() {
    run("contexts").clean();
}

fn polling() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let fill = kernel(&context, "fill");
    let mut out = stream.alloc_zeros::<i32>(N).unwrap();
    for _ in 0..5 {
        // SAFETY: the arguments are those of `fill`.
        unsafe {
            stream.launch_builder(&fill).arg(&mut out).arg(&1i32).arg(&(N as i32)).launch(shape(4, 256))
        }
        .unwrap();
    }
    let event = stream.record_event(None).unwrap();
    let mut polls = 0;
    while !event.is_complete() {
        polls += 1;
    }
    assert_eq!(polls, 5, "a fill and five launches, one per question");
}

#[test]
fn a_question_lets_the_device_make_one_step() {
    assert_eq!(run("polling").clean().tally().queries, 6);
}

fn peer() {
    // Two contexts on the one device: cudarc copies between them as between peers.
    let a = CudaContext::new(0).unwrap();
    let b = CudaContext::new_non_primary(0, 0).unwrap();
    let x: CudaSlice<f32> = a.default_stream().clone_htod(&input()).unwrap();
    a.synchronize().unwrap();
    let stream: Arc<_> = b.default_stream();
    let mut y = stream.alloc_zeros::<f32>(N).unwrap();
    stream.synchronize().unwrap();
    {
        let (from, _from) = x.device_ptr(x.stream());
        let (to, _to) = y.device_ptr_mut(&stream);
        b.bind_to_thread().unwrap();
        // SAFETY: both hold N floats.
        unsafe { result::memcpy_peer_async(b.cu_ctx(), to, a.cu_ctx(), from, 4 * N, stream.cu_stream()) }
            .unwrap();
    }
    assert_eq!(stream.clone_dtoh(&y).unwrap(), input());
}

#[test]
fn contexts_of_one_device_copy_to_each_other() {
    assert_eq!(run("peer").clean().tally().device_to_device.bytes, 4 * N as u64);
}
