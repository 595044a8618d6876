//! Runs on the virtual GPU: training, calibration, search and retraining through the same commands as on the CPU.

use std::process::{Command, Output, Stdio};
use std::time::Instant;

use monopath_vgpu::driver::config::names;
use monopath_vgpu::launcher::{Links, library};
use soak::{Bench, fingerprint, losses};

/// A bench whose commands find the virtual GPU where they look for the driver.
struct Gpu {
    bench: Bench,
    links: Links,
}

impl Gpu {
    fn new() -> Self {
        let links = Links::new(&library().expect("the virtual GPU is built")).expect("links can be made");
        Self { bench: Bench::new(), links }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bench.command(args);
        command.env(names::REPORTS, self.bench.path("reports")).env(names::QUIET, "on");
        self.links.apply(&mut command);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let reports = std::fs::read_to_string(self.bench.path("reports"));
        assert!(output.status.success(), "{args:?}: {errors}");
        // Begun as soon as the virtual GPU is loaded; a run on the CPU has none of its own.
        assert!(
            reports.is_ok_and(|reports| reports.is_empty()),
            "{args:?}: defects, or no virtual GPU: {errors}"
        );
        output
    }
}

/// Small enough for an interpreter.
const SMALL: [&str; 8] = [
    "--set",
    "supernet.paths=1",
    "--set",
    "supernet.train.bn-batch=20",
    "--set",
    "search.calibration-images=20",
    "--set",
    "log.steps=1",
];

fn args<'a>(command: &'a str, out: &'a str, device: &'a str) -> Vec<&'a str> {
    let mut args = vec![command, "brief.toml", "--out", out, "--device", device];
    args.extend(SMALL);
    args
}

#[test]
fn a_run_ends_on_the_virtual_gpu_and_agrees_with_the_cpu() {
    let gpu = Gpu::new();
    let started = Instant::now();
    gpu.run(&args("run", "gpu", "cuda:0"));
    let took = started.elapsed();
    gpu.run(&args("run", "cpu", "cpu"));
    let steps = |run: &str| losses(&gpu.bench.path(run));
    let (on_gpu, on_cpu) = (steps("gpu"), steps("cpu"));
    assert_eq!(on_gpu.len(), on_cpu.len());
    let loss = |line: &str| line.split(' ').nth(3).unwrap().parse::<f64>().unwrap();
    for (a, b) in on_gpu.iter().zip(&on_cpu) {
        assert!((loss(a) - loss(b)).abs() < 2e-3 * loss(b), "{a}\n{b}");
    }
    let outcome = |run: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(gpu.bench.path(run).join("result.json")).unwrap()).unwrap()
    };
    for key in ["arch", "top1", "macs", "params"] {
        assert!(!outcome("gpu")["found"][key].is_null(), "{key}");
    }
    // The same again, to the bit, although it is killed on its way and goes on in longer and longer lives.
    let again = [&args("run", "again", "cuda:0")[..], &["--resume"]].concat();
    let mut kills = 0;
    loop {
        let mut child = gpu.command(&again).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(took * (kills + 1) / 3);
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 0, "no kill landed within {took:?}");
    gpu.run(&again);
    assert_eq!(fingerprint(&gpu.bench.path("gpu")), fingerprint(&gpu.bench.path("again")));
}

#[test]
fn devices_tells_what_is_there_and_a_missing_driver_is_explained() {
    let gpu = Gpu::new();
    let text = String::from_utf8(gpu.run(&["devices"]).stdout).unwrap();
    assert!(
        text.contains("cpu   usable") && text.contains("cuda:0   usable: monopath virtual GPU"),
        "{text}"
    );
    let alone = String::from_utf8(gpu.bench.run(&["devices"]).stdout).unwrap();
    assert!(alone.contains("cuda:0"), "{alone}");
    if alone.contains("no CUDA driver is installed") {
        let error = gpu.bench.fails(&["run", "brief.toml", "--out", "none", "--device", "cuda:0"], 2);
        assert!(error.contains("install") && error.contains("--device cpu"), "{error}");
    }
}

#[test]
fn a_bench_of_the_virtual_gpu_prints_counters_and_no_times() {
    let gpu = Gpu::new();
    let bench = ["bench", "step", "--preset", "cifar", "--batch", "2", "--warmup", "1", "--steps", "1"];
    let text = gpu.run(&[&bench[..], &["--same-path", "--device", "cuda:0", "--json"]].concat()).stdout;
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert!(value["launches_per_step"].as_f64().unwrap() > 10.0, "{value}");
    assert_eq!(value["arena_bytes_allocated_after_warmup"], 0, "{value}");
    assert!(!value.to_string().contains("_ms\"") && value["images_per_s"].is_null(), "{value}");
}
