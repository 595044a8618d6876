//! Runs on the virtual GPU: training, calibration, search and retraining through the same commands as on the CPU.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use monopath_vgpu::driver::config::names;
use monopath_vgpu::launcher::{Links, library};
use soak::{Bench, fingerprint, losses, named, newest, plant_nan};

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

/// What a step gave is read when the next was sent, unless a checkpoint comes between them.
const LAGGING: [&str; 2] = ["--set", "log.checkpoint-seconds=1000"];

fn args<'a>(command: &'a str, out: &'a str, device: &'a str) -> Vec<&'a str> {
    let mut args = vec![command, "brief.toml", "--out", out, "--device", device];
    args.extend(SMALL);
    args
}

#[test]
fn a_run_ends_on_the_virtual_gpu_and_agrees_with_the_cpu() {
    let gpu = Gpu::new();
    let started = Instant::now();
    gpu.run(&[&args("run", "gpu", "cuda:0")[..], &LAGGING].concat());
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
    // The same again, to the bit, although every step is stored, and it is killed on its way and goes on in longer and longer lives.
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
    assert_eq!(on_gpu, steps("again"));
}

#[test]
fn a_planted_nan_is_told_with_layer_candidate_and_step_although_the_next_step_was_sent() {
    let gpu = Gpu::new();
    let args = args("train-supernet", "hurt", "cuda:0");
    let folder = gpu.bench.path("hurt").join("checkpoints");
    let mut child = gpu.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while newest(&folder).is_none() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let checkpoint = newest(&folder).unwrap();
    plant_nan(&checkpoint);
    let hurt = newest(&folder).unwrap();
    // From now on nothing is stored between two steps.
    let recipe = gpu.bench.path("hurt").join("recipe.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let lagging = text.replace("checkpoint-seconds = 0.0", "checkpoint-seconds = 1000.0");
    assert_ne!(lagging, text);
    std::fs::write(&recipe, lagging).unwrap();
    let output = gpu.command(&[&args[..], &LAGGING, &["--resume"]].concat()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let (told, step) = named(&error);
    // Steps before it are in the journal, the step itself is not, and nothing was stored after it.
    let done = losses(&gpu.bench.path("hurt"));
    assert!(
        done.last().unwrap().starts_with(&format!("\"train-supernet\" \"supernet\" {step} ")),
        "{done:?}\n{told}"
    );
    assert_eq!(newest(&folder).unwrap(), hurt);
    let events = std::fs::read_to_string(gpu.bench.path("hurt").join("events.jsonl")).unwrap();
    assert!(events.lines().last().unwrap().contains("non-finite"), "{events}");
    assert_eq!(std::fs::read_to_string(gpu.bench.path("reports")).unwrap(), "", "{error}");
}

/// Numbers of two runs that may differ by what f32 sums do.
fn close(a: &serde_json::Value, b: &serde_json::Value, tolerance: f64) {
    let (x, y) = (a.as_f64().unwrap(), b.as_f64().unwrap());
    assert!((x - y).abs() <= tolerance * y.abs().max(1e-3), "{x}, on the CPU {y}");
}

fn read(gpu: &Gpu, file: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(gpu.bench.path(file)).unwrap()).unwrap()
}

#[test]
fn shrinking_on_the_virtual_gpu_scores_as_on_the_cpu() {
    let gpu = Gpu::new();
    let brief = std::fs::read_to_string(gpu.bench.path("brief.toml")).unwrap();
    let shrink =
        "size-limit = 100_000\ndrop = { kind = \"lowest\", n = 4 }\nfirst-epochs = 1\nlater-epochs = 1";
    let train = "epochs = 2\nbatch = 20\nlr = 0.02";
    let text = format!("{brief}\n[shrink]\n{shrink}\n[shrink.train]\n{train}\n");
    std::fs::write(gpu.bench.path("shrink.toml"), text).unwrap();
    for (metric, tolerance) in [("{ kind = \"angle\" }", 1e-2), ("{ kind = \"accuracy\", images = 20 }", 0.2)]
    {
        let metric = format!("shrink.metric={metric}");
        let call = |out, device| {
            let sets = ["--set", &metric, "--set", "shrink.children=2"];
            let args = ["shrink", "shrink.toml", "--out", out, "--device", device];
            gpu.run(&[&args[..], &sets].concat());
            read(&gpu, &format!("{out}/shrink.json"))["rounds"].clone()
        };
        let (on_gpu, on_cpu) = (call("gpu", "cuda:0"), call("cpu", "cpu"));
        // The first round, in which both have the same candidates.
        let operators = |rounds: &serde_json::Value| rounds[0]["operators"].as_array().unwrap().clone();
        let (a, b) = (operators(&on_gpu), operators(&on_cpu));
        assert!(a.len() == b.len() && a.len() > 20);
        a.iter().zip(&b).for_each(|(a, b)| close(&a["score"], &b["score"], tolerance));
        for run in ["gpu", "cpu"] {
            std::fs::remove_dir_all(gpu.bench.path(run)).unwrap();
        }
    }
}

#[test]
fn scores_on_the_virtual_gpu_rank_as_on_the_cpu() {
    let gpu = Gpu::new();
    let few = ["--set", "supernet.train.epochs=3", "--set", "supernet.paths=1"];
    gpu.bench.ok(&[&["train-supernet", "brief.toml", "--out", "run"][..], &few].concat());
    let space = nas::Space::load("quickstart").unwrap();
    let archs = [space.smallest(), space.largest(), space.first()];
    let rows =
        archs.iter().enumerate().map(|(i, arch)| format!("\"{}\": {{\"mean_acc\": {i}}}", space.text(arch)));
    let table = format!("{{{}}}", rows.collect::<Vec<_>>().join(","));
    std::fs::write(gpu.bench.path("table.json"), table).unwrap();
    let cases: [(&[&str], f64); 6] = [
        (&["--calibration-images", "20"], 0.11),
        (&["--calibration-images", "0"], 0.11),
        (&["--metric", "angle"], 1e-6),
        (&["--metric", "zero-cost"], 1e-3),
        (&["--metric", "zero-cost", "--proxy", "gradient-norm"], 1e-2),
        (&["--metric", "zero-cost", "--proxy", "jacobian-covariance"], 1e-2),
    ];
    for (case, tolerance) in cases {
        let points = |device| {
            let args = ["rank", "--from", "run", "--table", "table.json", "--held-out-images", "20"];
            gpu.run(&[&args[..], &["--networks", "all", "--device", device], case].concat());
            let rankings = read(&gpu, "run/rank.json");
            let last = rankings.as_array().unwrap().last().unwrap().clone();
            std::fs::remove_file(gpu.bench.path("run/rank.json")).unwrap();
            last["points"].as_array().unwrap().clone()
        };
        let (on_gpu, on_cpu) = (points("cuda:0"), points("cpu"));
        assert_eq!(on_gpu.len(), 3);
        on_gpu.iter().zip(&on_cpu).for_each(|(a, b)| close(&a["score"], &b["score"], tolerance));
    }
}

#[test]
fn gates_on_the_virtual_gpu_go_where_they_go_on_the_cpu() {
    let gpu = Gpu::new();
    let gates = "supernet.gates={ warmup-epochs = 0, idle-epochs = 0, every = 2, batch = 20, lr = 0.01, \
        cost = { kind = \"macs\", reference = 5e5 }, loss = { kind = \"add-linear\" } }";
    for device in ["cuda:0", "cpu"] {
        let args = args("train-supernet", device, device);
        gpu.run(&[&args[..], &["--set", gates]].concat());
    }
    let (on_gpu, on_cpu) = (read(&gpu, "cuda:0/gates.json"), read(&gpu, "cpu/gates.json"));
    let mut moved = 0;
    for (slot, of) in on_cpu.as_object().unwrap() {
        for (label, p) in of.as_object().unwrap() {
            close(&on_gpu[slot][label], p, 1e-2);
            moved +=
                usize::from((p.as_f64().unwrap() * of.as_object().unwrap().len() as f64 - 1.0).abs() > 5e-3);
        }
    }
    assert!(moved > 5, "{moved} probabilities are not as at the begin");
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
    let bench = |args: &[&str]| -> serde_json::Value {
        let all = ["bench", "step", "--preset", "cifar", "--batch", "2", "--device", "cuda:0", "--json"];
        serde_json::from_slice(&gpu.run(&[&all[..], args].concat()).stdout).unwrap()
    };
    let same = bench(&["--warmup", "2", "--steps", "1", "--same-path"]);
    // Fresh paths after the largest one.
    let fresh = bench(&["--warmup", "1", "--steps", "2"]);
    for value in [&same, &fresh] {
        assert!(!value.to_string().contains("_ms\"") && value["images_per_s"].is_null(), "{value}");
        assert_eq!(value["arena_bytes_allocated_after_warmup"], 0, "{value}");
        assert_eq!(value["synchronisations_per_step"], 0.0, "{value}");
        // The batch; the touched ranges for clipping and for the update. The loss and whether something was not finite.
        assert_eq!(value["copies_in_per_step"], 3.0, "{value}");
        assert_eq!(value["copies_out_per_step"], 2.0, "{value}");
        assert_eq!(value["waits_per_step"], 2.0, "{value}");
    }
    assert_eq!(same["launches_prepared_after_warmup"], 0, "{same}");
    assert_eq!(same["launches_per_step"], 349.0, "{same}");
    // The gradient of the loss.
    assert_eq!(same["fills_per_step"], 1.0, "{same}");
}

#[test]
fn a_memory_cap_is_told_with_the_batch_that_fits_on_a_gpu_too() {
    let gpu = Gpu::new();
    let args = args("train-supernet", "capped", "cuda:0");
    // The least memory in which a batch of a few images fits, but not the recipe's.
    let (cap, fits, error) = (0..40)
        .find_map(|i| {
            let cap = format!("{}KiB", 512 * 5u64.pow(i) / 4u64.pow(i));
            let output =
                gpu.command(&[&args[..], &["--memory", &cap, "--resume"]].concat()).output().unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            let fits: usize = error.split("bn-batch = ").nth(1)?.split(' ').next()?.parse().ok()?;
            (fits >= 2).then_some((cap, fits, error))
        })
        .unwrap();
    for word in ["out of memory in train-supernet", "bytes asked for", "in use", "by weights", "activations"]
    {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(fits < 20, "{error}");
    let (batch, bn) = (format!("supernet.train.batch={fits}"), format!("supernet.train.bn-batch={fits}"));
    let smaller = [&args[..2], &["--out", "fits", "--device", "cuda:0", "--memory", &cap], &SMALL].concat();
    gpu.run(&[&smaller[..], &["--set", &batch, "--set", &bn]].concat());
}
