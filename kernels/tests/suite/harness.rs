//! Runs a case as a child process with the virtual GPU in place of the driver: three seeds, same bits, same counters,
//! no reports.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DeviceRepr};
use half::bf16;
use kernels::{DType, Device, Element};
use monopath_vgpu::driver::config::names;
use monopath_vgpu::driver::tally::{KernelTally, Tally};
use monopath_vgpu::launcher::{Links, library};
use monopath_vgpu::meter;

/// Tells a child which case to run.
const CASE: &str = "MONOPATH_KERNELS_CASE";

/// Seeds of the schedules.
const SEEDS: [&str; 3] = ["0", "1", "2"];

/// Declares a test whose body runs on the virtual GPU.
macro_rules! on_device {
    ($name:ident, $body:expr) => {
        #[test]
        fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            let _ = crate::harness::run(path, $body);
        }
    };
}

/// A device as a case sees it.
pub struct Gpu {
    pub stream: Arc<CudaStream>,
    pub device: Device,
    bits: Mutex<blake3::Hasher>,
}

impl Gpu {
    fn new() -> Gpu {
        let context = CudaContext::new(0).expect("the virtual GPU is there");
        Gpu {
            stream: context.default_stream(),
            device: Device::new(context),
            bits: Mutex::new(blake3::Hasher::new()),
        }
    }

    pub fn upload<T: DeviceRepr>(&self, values: &[T]) -> CudaSlice<T> {
        self.stream.clone_htod(values).expect("there is room")
    }

    /// Memory that nothing wrote.
    pub fn empty<T: DeviceRepr>(&self, len: usize) -> CudaSlice<T> {
        // SAFETY: what is read before it is written is reported.
        unsafe { self.stream.alloc(len) }.expect("there is room")
    }

    /// The values, which become part of the bits that all schedules must agree on.
    pub fn download<T: DeviceRepr + Clone + Default + Number>(&self, from: &CudaSlice<T>) -> Vec<T> {
        let values = self.stream.clone_dtoh(from).expect("it was written");
        let mut bits = self.bits.lock().expect("one thread");
        values.iter().for_each(|v| {
            bits.update(&v.f64().to_bits().to_le_bytes());
        });
        values
    }
}

/// What the kernels of a case executed, by name.
pub type Kernels = BTreeMap<String, KernelTally>;

/// What this process's tests did.
#[derive(Default)]
pub struct Done {
    /// What all kernels executed.
    pub kernels: Kernels,
    /// Tests that ended, well or not.
    pub tests: BTreeSet<String>,
}

static DONE: Mutex<Done> = Mutex::new(Done { kernels: BTreeMap::new(), tests: BTreeSet::new() });

/// See [`Done`].
pub fn done() -> MutexGuard<'static, Done> {
    DONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes the end of a test when it is dropped.
pub struct Ending(String);

impl Ending {
    /// Of the test at a path that begins with the name of the crate.
    pub fn of(path: &str) -> Ending {
        Ending(path.split_once("::").expect("a test is in a module").1.to_string())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        done().tests.insert(self.0.clone());
    }
}

/// Runs a case: in the parent under every seed, in the child itself, which learns nothing of the counters.
pub fn run(path: &str, body: fn(&Gpu)) -> Option<Kernels> {
    let _ending = Ending::of(path);
    run_case(path, "", body)
}

/// The same for one of several cases of a test.
pub fn run_case(path: &str, case: &str, body: fn(&Gpu)) -> Option<Kernels> {
    // The child knows the test without the name of the crate.
    let (_, name) = path.split_once("::").expect("a test is in a module");
    let own_case = format!("{name} {case}");
    let chosen = std::env::var(CASE).ok();
    if chosen.as_ref().is_some_and(|chosen| *chosen != own_case) {
        return None;
    }
    if chosen.is_some() {
        let gpu = Gpu::new();
        body(&gpu);
        println!("bits {}", gpu.bits.lock().expect("one thread").finalize());
        return None;
    }
    let links = Links::new(&library().expect("the virtual GPU is built")).expect("links can be made");
    let mut first: Option<(String, Kernels)> = None;
    for seed in SEEDS {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| folder.path().join(name);
        let own = std::env::current_exe().expect("a running program has a path");
        let mut child = Command::new(own);
        child
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(CASE, &own_case)
            .env(names::SEED, seed)
            .env(names::REPORTS, file("reports"))
            .env(names::COUNTERS, file("counters"))
            .env(names::BUDGET, (2 * meter::CASE_LIMIT).to_string())
            .env(names::QUIET, "on");
        links.apply(&mut child);
        let out = child.output().expect("the child starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
        let reports = std::fs::read_to_string(file("reports")).unwrap_or_default();
        assert!(out.status.success() && reports.is_empty(), "{name}, seed {seed}: {reports}{stdout}{stderr}");
        let tally: Tally = serde_json::from_slice(&std::fs::read(file("counters")).expect("counters"))
            .expect("counters are JSON");
        let lanes = meter::add_run(&tally);
        assert!(lanes <= meter::CASE_LIMIT, "{own_case}: {lanes} lane-instructions are too many for a case");
        let bits = stdout.lines().find_map(|l| l.split("bits ").nth(1)).expect("the child prints them");
        let now = (bits.to_string(), tally.kernels);
        match &first {
            None => first = Some(now),
            Some(first) => {
                assert_eq!(first.0, now.0, "{name}: results under seed {seed}");
                assert_eq!(first.1, now.1, "{name}: counters under seed {seed}");
            }
        }
    }
    let (_, kernels) = first?;
    let mut done = done();
    for (name, k) in &kernels {
        let all = done.kernels.entry(name.clone()).or_default();
        all.threads = all.threads.max(k.threads);
        all.shared = all.shared.max(k.shared);
        for (line, reached) in &k.blocks {
            *all.blocks.entry(*line).or_default() |= reached;
        }
    }
    Some(kernels)
}

/// A case whose counters are recorded, in a module beside its test.
pub struct Counted {
    pub case: &'static str,
    /// Elements of a launch, in which costs are stated.
    pub elements: usize,
    /// Kernels to record, with the most lane slots per element that each may cost.
    pub most: &'static [(&'static str, f64)],
    pub body: fn(&Gpu),
}

/// What elements are in tests.
pub trait Number: Element + Copy + Default {
    /// The nearest element.
    fn nearest(v: f32) -> Self;
    /// Its value.
    fn f64(self) -> f64;
    /// Relative error of one rounding.
    const EPSILON: f64;
}

impl Number for f32 {
    fn nearest(v: f32) -> f32 {
        v
    }
    fn f64(self) -> f64 {
        self.into()
    }
    const EPSILON: f64 = 6e-8;
}

impl Number for bf16 {
    fn nearest(v: f32) -> bf16 {
        bf16::from_f32(v)
    }
    fn f64(self) -> f64 {
        self.into()
    }
    const EPSILON: f64 = 1.0 / 256.0;
}

/// The type's tag.
pub fn dtype<T: Element>() -> DType {
    T::DTYPE
}

/// Numbers in -1 to 1 that look random and are the same everywhere.
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut x = seed;
    std::iter::repeat_with(|| {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = x;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
    .take(len)
    .collect()
}

/// Asserts that two arrays agree within `absolute[i]`; the worst element is named.
pub fn close<T: Number>(what: &str, got: &[T], want: &[f64], allowed: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let excess = |i: usize| (got[i].f64() - want[i]).abs() / allowed(i);
    let worst = (0..got.len()).max_by(|a, b| excess(*a).total_cmp(&excess(*b))).expect("not empty");
    assert!(
        excess(worst) <= 1.0,
        "{what}: element {worst} is {} for {}, {:.1} times what is allowed",
        got[worst].f64(),
        want[worst],
        excess(worst)
    );
}
