//! Every command end to end, and how bad input is answered.

use soak::Bench;

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_run_ends_with_its_files_its_table_and_its_outcome() {
    let bench = Bench::new();
    let table = bench.ok(&["run", "tiny.toml", "--out", "run", "--threads", "2"]);
    for word in ["found", "random, mean of 2", "largest", "report.html", "model.safetensors"] {
        assert!(table.contains(word), "{word}\n{table}");
    }
    let run = bench.path("run");
    for file in ["recipe.toml", "space.toml", "events.jsonl", "arch.json", "search.json", "report.html"] {
        assert!(run.join(file).exists(), "{file}");
    }
    let result = json(&std::fs::read_to_string(run.join("result.json")).unwrap());
    assert_eq!((result["seed"].as_u64(), result["random"]["n"].as_u64()), (Some(0), Some(2)));
    for key in ["arch", "top1", "top5", "macs", "params", "seconds"] {
        assert!(!result["found"][key].is_null() && !result["largest"][key].is_null(), "{key}");
    }
    assert!(result["found"]["macs"].as_u64().unwrap() <= 600_000, "the constraint binds");
    // The two classes are told apart by which half is bright: anything that learns does it.
    assert!(result["found"]["top1"].as_f64().unwrap() > 0.8, "{result}");
    assert!(std::fs::read_dir(run.join("checkpoints")).unwrap().next().is_none(), "nothing is left over");

    // The stages one by one, over the same directory layout, give the same network.
    bench.ok(&["train-supernet", "tiny.toml", "--out", "steps"]);
    bench.ok(&["search", "steps"]);
    bench.ok(&["retrain", "steps"]);
    let again = json(&bench.ok(&["evaluate", "steps", "--json"]));
    assert_eq!(
        (&again["found"]["arch"], &again["found"]["top1"]),
        (&result["found"]["arch"], &result["found"]["top1"])
    );

    // The count agrees with the outcome, the report can be written again, a finished run stays.
    let arch = result["found"]["arch"].as_str().unwrap();
    let space = run.join("space.toml");
    let count = json(&bench.ok(&["count", "--space", space.to_str().unwrap(), "--arch", arch, "--json"]));
    assert_eq!((&count["macs"], &count["params"]), (&result["found"]["macs"], &result["found"]["params"]));
    let file = run.join("arch.json");
    let same = ["count", "--space", space.to_str().unwrap(), "--arch", file.to_str().unwrap(), "--json"];
    assert_eq!(json(&bench.ok(&same)), count);
    bench.ok(&["report", "run"]);
    let before = std::fs::read(run.join("model.safetensors")).unwrap();
    bench.ok(&["run", "tiny.toml", "--out", "run", "--resume"]);
    assert_eq!(std::fs::read(run.join("model.safetensors")).unwrap(), before);

    // A picture of each class.
    for (class, left) in [("left", true), ("right", false)] {
        let pixels: Vec<u8> = (0..144).map(|p| if (p % 12 < 6) == left { 200 } else { 60 }).collect();
        let file = std::fs::File::create(bench.path("picture.png")).unwrap();
        let mut encoder = png::Encoder::new(file, 12, 12);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        let guess = json(&bench.ok(&["predict", "run", "picture.png", "--json"]));
        assert_eq!(guess[0]["guesses"][0]["class"], class, "{guess}");
    }
}

#[test]
fn a_typo_in_the_recipe_is_answered_with_the_nearest_key_and_nothing_is_written() {
    let bench = Bench::new();
    let text = std::fs::read_to_string(bench.path("tiny.toml")).unwrap();
    std::fs::write(bench.path("typo.toml"), text.replace("warmup-steps", "warmup-stesp")).unwrap();
    let error = bench.fails(&["run", "typo.toml", "--out", "run"], 2);
    assert!(error.contains("did you mean `warmup-steps`?") && error.contains("line"), "{error}");
    assert!(!bench.path("run").exists());
}

#[test]
fn bad_calls_and_bad_settings_end_with_code_2_and_say_what_to_do() {
    let bench = Bench::new();
    let cases: &[(&[&str], &str)] = &[
        (&["run", "tiny.toml", "--out", "r", "--set", "supernet.train.batch=7"], "a divisor of batch"),
        (&["run", "tiny.toml", "--out", "r", "--set", "supernet.train.lr=-1"], "supernet.train.lr"),
        (&["run", "tiny.toml", "--out", "r", "--set", "supernet.paths=3"], "supernet.train.batch = 20"),
        (&["run", "tiny.toml", "--out", "r", "--set", "supernet.paths=4"], "a divisor of 5, the images"),
        (&["run", "tiny.toml", "--out", "r", "--set", "supernet.paths-at-once=0"], "1 or more"),
        (&["run", "tiny.toml", "--out", "r", "--set", "supernet.sampler.kind=fair"], "stage1.slot1 has 5"),
        (&["run", "tiny.toml", "--out", "r", "--set", "nonsense"], "key=value"),
        (&["run", "tiny.toml", "--out", "r", "--set", "space=quikstart"], "did you mean \"quickstart\"?"),
        (&["run", "tiny.toml", "--out", "r", "--device", "gpu0"], "cpu, or cuda:N"),
        (&["run", "tiny.toml", "--resume"], "--out"),
        (&["count", "--space", "quickstart", "--arch", "1,2,3"], "3 choices for 8 slots"),
        (&["search", "nowhere"], "no run directory"),
        (&["space", "show", "nosuch"], "known: "),
        (&["frobnicate"], "unrecognized subcommand"),
    ];
    for (args, want) in cases {
        let error = bench.fails(args, 2);
        assert!(error.contains(*want), "{args:?}: {error}");
    }
    assert!(!bench.path("r").exists(), "nothing is written before everything is found sound");
}

#[test]
fn failed_work_ends_with_code_1_and_names_the_file_or_the_bound() {
    let bench = Bench::new();
    let error = bench.fails(&["run", "missing.toml", "--out", "r"], 1);
    assert!(error.contains("missing.toml"), "{error}");
    assert_eq!(error.matches("os error").count(), 1, "a cause is told once: {error}");
    let error = bench.fails(&["count", "--space", "quickstart", "--arch", "gone.json"], 1);
    assert!(error.contains("gone.json"), "{error}");
    let error = bench.fails(&["run", "tiny.toml", "--out", "r", "--set", "search.constraint.max-macs=10"], 1);
    assert!(error.contains("no network satisfies") && error.contains("the least"), "{error}");
    let error = bench.fails(&["run", "tiny.toml", "--out", "r", "--set", "data.train.images=gone"], 1);
    assert!(error.contains("gone"), "{error}");
    assert!(!bench.path("r").exists());
}

#[test]
fn a_run_directory_is_neither_overwritten_nor_gone_on_with_under_another_recipe() {
    let bench = Bench::new();
    // Resuming what is not there begins anew: a crash may come before the first checkpoint.
    bench.ok(&["train-supernet", "tiny.toml", "--out", "run", "--resume"]);
    let error = bench.fails(&["run", "tiny.toml", "--out", "run"], 2);
    assert!(error.contains("--resume"), "{error}");
    let error = bench.fails(&["run", "tiny.toml", "--out", "run", "--resume", "--set", "seed=1"], 2);
    assert!(error.contains("another recipe") && error.contains("seed"), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_names_step_and_path() {
    let bench = Bench::new();
    let error = bench.fails(&["run", "tiny.toml", "--out", "run", "--set", "supernet.train.lr=1e30"], 1);
    assert!(error.contains("not finite at step") && error.contains("on path mb_"), "{error}");
    assert!(
        ["stem.", "stage", "head."].iter().any(|place| error.contains(place)),
        "no layer is named: {error}"
    );
    let events = std::fs::read_to_string(bench.path("run").join("events.jsonl")).unwrap();
    assert!(events.contains("\"non-finite\""), "{events}");
}

#[test]
fn spaces_devices_and_data_can_be_looked_at() {
    let bench = Bench::new();
    let list = bench.ok(&["space", "list"]);
    assert!(list.contains("spos-shufflenet") && list.contains("nas-bench-macro"), "{list}");
    assert!(bench.ok(&["space", "show", "quickstart"]).contains("stage1.slot1"));
    let count = json(&bench.ok(&["space", "count", "nas-bench-macro", "--json"]));
    assert_eq!(count["networks"], "6561");
    let count = json(&bench.ok(&["count", "--space", "nas-bench-macro", "--arch", "02012100", "--json"]));
    assert_eq!((count["params"].as_u64(), count["macs"].as_u64()), (Some(890_666), Some(47_327_744)));
    assert!(count["compat"]["thop"].as_u64() > count["macs"].as_u64(), "{count}");
    assert_eq!(count["compat"]["abs"].as_u64(), Some(47_327_744 + 1279 * 10));
    assert!(bench.ok(&["devices"]).contains("cpu"));
    let data = json(&bench.ok(&["data", "inspect", "tiny.toml", "--json"]));
    assert_eq!((data["train"]["records"].as_u64(), data["test"]["records"].as_u64()), (Some(100), Some(40)));
}

#[test]
fn benches_print_the_keys_of_the_scripts_beside_them() {
    let bench = Bench::new();
    std::fs::write(
        bench.path("paths.json"),
        r#"{"paths": [[0,-1,-1,-1,0,-1,-1,-1,0,-1,-1,-1,0,-1,-1,-1,0,-1,-1,-1]]}"#,
    )
    .unwrap();
    let few = ["--steps", "2", "--warmup", "1", "--json", "--threads", "2"];
    let with = |args: &[&str]| {
        let all: Vec<&str> = args.iter().chain(&few).copied().collect();
        json(&bench.ok(&all))
    };
    let step = with(&["bench", "step", "--preset", "cifar", "--batch", "4", "--paths", "paths.json"]);
    for key in ["step_ms", "forward_ms", "backward_ms", "sgd_ms", "cpu_ms"] {
        assert!(step[key]["median_ms"].as_f64().unwrap() > 0.0, "{key}: {step}");
    }
    assert!(step["images_per_s"].as_f64().unwrap() > 0.0 && step["achieved_gflops"].as_f64().unwrap() > 0.0);
    let block =
        with(&["bench", "block", "--ch", "8", "--hw", "6", "--kernel", "3", "--expand", "2", "--batch", "2"]);
    assert!(block["train_fwd_bwd_ms"]["median_ms"].as_f64().unwrap() > 0.0);
    for mode in ["eval", "recal"] {
        let value = with(&["bench", mode, "--preset", "cifar", "--batch", "4", "--paths", "paths.json"]);
        assert_eq!(value["mode"], mode);
    }
    let search = "bench search --recal-images 64 --val-images 10 --population 2 --rounds 2 --every 2";
    let search = json(&bench.ok(&search.split(' ').chain(["--json", "--threads", "2"]).collect::<Vec<_>>()));
    assert_eq!(search["candidates"], 4, "those of rounds 0 and 2");
    assert!(search["candidates_per_hour"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_measured_latency_table_bounds_a_search_and_stays_in_the_run_directory() {
    let bench = Bench::new();
    let measure =
        ["bench", "latency", "--space", "quickstart", "--image", "12", "--classes", "2", "--samples", "5"];
    let told =
        json(&bench.ok(&[&measure[..], &["--threads", "1", "--out", "latency.json", "--json"]].concat()));
    assert_eq!((told["threads"].as_u64(), told["networks"].as_u64()), (Some(1), Some(20)));
    assert!(told["correlation"].is_number() && told["mean_error"].as_f64().unwrap() >= 0.0, "{told}");
    let bound = |ms: &str| {
        let max_ms = format!("search.constraint.latency.max-ms={ms}");
        [
            "run",
            "brief.toml",
            "--out",
            "run",
            "--set",
            "search.constraint.latency.table=latency.json",
            "--set",
            &max_ms,
        ]
        .map(str::to_owned)
    };
    let call = |ms: &str, code: i32| {
        let args = bound(ms);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        bench.fails(&args, code)
    };
    // Known before training: nothing is so fast, a bound that is none, a table that is not there or of
    // another space.
    let error = call("1e-9", 1);
    assert!(error.contains("latency.max-ms") && error.contains("the least is"), "{error}");
    assert!(call("-1", 2).contains("search.constraint.latency.max-ms"));
    std::fs::rename(bench.path("latency.json"), bench.path("kept.json")).unwrap();
    assert!(call("1000", 1).contains("latency.json"));
    bench.ok(&[
        "bench",
        "latency",
        "--space",
        "quickstart",
        "--samples",
        "1",
        "--networks",
        "0",
        "--out",
        "latency.json",
    ]);
    let error = call("1000", 2);
    assert!(error.contains("no entry") && error.contains("latency.json"), "{error}");
    assert!(!bench.path("run").exists());
    // A bound that everything meets; the directory goes on without the file it was given.
    std::fs::rename(bench.path("kept.json"), bench.path("latency.json")).unwrap();
    let args = bound("1000");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    bench.ok(&[&["train-supernet"], &args[1..]].concat());
    std::fs::remove_file(bench.path("latency.json")).unwrap();
    let result = json(&bench.ok(&["evaluate", "run", "--json"]));
    assert!(result["found"]["predicted_ms"].as_f64().unwrap() > 0.0, "{result}");
}

#[test]
fn a_search_within_a_memory_cap_says_which_memory_and_which_batches_would_do() {
    let bench = Bench::new();
    let train = |out: &str, calibration: &str, eval: &str| {
        let batches = [
            &format!("search.calibration-batch={calibration}"),
            "--set",
            &format!("search.eval-batch={eval}"),
        ];
        bench.ok(&[&["train-supernet", "brief.toml", "--out", out, "--set"], &batches[..]].concat());
    };
    train("run", "20", "20");
    // The least memory, beyond the 4,465 KiB of the weights, in which networks are scored by a few images at a time.
    let (cap, error) = (0..70)
        .find_map(|i| {
            let cap = format!("{}KiB", 16 * (280 + i));
            let error = bench.fails(&["search", "run", "--memory", &cap], 1);
            (error.contains("out of memory in search") && error.contains("would about do"))
                .then_some((cap, error))
        })
        .unwrap();
    let number = |key: &str| -> Option<String> {
        Some(error.split(key).nth(1)?.chars().take_while(char::is_ascii_digit).collect())
    };
    // What is not named may stay as it is.
    let batch = |key: &str| number(key).unwrap_or("20".into());
    train("fits", &batch("search.calibration-batch = "), &batch("search.eval-batch = "));
    bench.ok(&["search", "fits", "--memory", &cap]);
    let enough: u64 = number("--memory ").unwrap().parse().unwrap();
    bench.ok(&["search", "run", "--memory", &format!("{}KiB", enough * 51 / 50)]);
}

#[test]
fn a_memory_cap_is_kept_and_told_with_the_batch_that_fits() {
    let bench = Bench::new();
    let one = ["--set", "supernet.paths=1", "--set"];
    let run = [&["train-supernet", "tiny.toml", "--out", "run"], &one[..], &["supernet.train.bn-batch=20"]]
        .concat();
    // The least memory in which a batch of a few images fits, but not the recipe's.
    let (cap, fits, error) = (0..40)
        .find_map(|i| {
            let cap = format!("{}KiB", 256 * 5u64.pow(i) / 4u64.pow(i));
            let error = bench.fails(&[&run[..], &["--memory", &cap, "--resume"]].concat(), 1);
            let fits: usize = error.split("bn-batch = ").nth(1)?.split(' ').next()?.parse().ok()?;
            (fits >= 2).then_some((cap, fits, error))
        })
        .unwrap();
    for word in ["out of memory in train-supernet", "bytes asked for", "in use", "by weights", "activations"]
    {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(fits < 20, "{error}");
    // Every path fits with that many, in the same memory.
    let (batch, bn) = (format!("supernet.train.batch={fits}"), format!("supernet.train.bn-batch={fits}"));
    let smaller = ["train-supernet", "tiny.toml", "--out", "fits", "--memory", &cap];
    bench.ok(&[&smaller[..], &one[..], &[&batch, "--set", &bn]].concat());
    // The first run goes on with more memory.
    bench.ok(&[&run[..], &["--resume", "--memory", "1GiB"]].concat());
    let error = bench.fails(&[&run[..], &["--memory", "lots"]].concat(), 2);
    assert!(error.contains("MiB"), "{error}");
}
