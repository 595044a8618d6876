//! Runs a test again as a child that finds the virtual GPU where it looks for the driver.

use std::process::Command;

use engine::Cuda;
use monopath_vgpu::driver::config::names;
use monopath_vgpu::launcher::{Links, library};

/// Tells a child that it is one.
const CHILD: &str = "MONOPATH_ENGINE_GPU";

/// Seeds of the orders that a GPU leaves open.
const SCHEDULES: [&str; 3] = ["0", "1", "2"];

/// Declares a test whose body runs on the virtual GPU.
macro_rules! on_gpu {
    ($name:ident, $body:expr) => {
        #[test]
        fn $name() {
            crate::harness::run(concat!(module_path!(), "::", stringify!($name)), $body);
        }
    };
}

/// In the parent: the test of this path in a child with all checks on under every schedule, which must succeed without a
/// report. In the child: the body.
pub fn run(path: &str, body: fn(&Cuda)) {
    let name = path.split_once("::").map_or(path, |(_, rest)| rest);
    if std::env::var_os(CHILD).is_some() {
        return body(&Cuda::new(0, usize::MAX).expect("the virtual GPU is there"));
    }
    let links = Links::new(&library().expect("the virtual GPU is built")).expect("links can be made");
    let folder = tempfile::tempdir().expect("a temporary directory");
    for seed in SCHEDULES {
        let reports = folder.path().join(seed);
        let mut child = Command::new(std::env::current_exe().expect("a running program has a path"));
        child
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .env(names::SEED, seed)
            .env(names::REPORTS, &reports)
            .env(names::QUIET, "on");
        links.apply(&mut child);
        let out = child.output().expect("the child starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
        let reports =
            std::fs::read_to_string(reports).expect("the virtual GPU was there and began its reports");
        assert!(out.status.success() && reports.is_empty(), "{name}, seed {seed}: {reports}{stdout}{stderr}");
        assert!(stdout.contains("1 passed"), "{name} is not the path of a test: {stdout}");
    }
}
