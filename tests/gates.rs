//! Binary gates as a recipe has them: a measured latency table as their cost, and kills.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nas::checkpoint::Archive;
use serde_json::Value;
use soak::Bench;

const GATES: &str = "supernet.gates={ warmup-epochs = 1, idle-epochs = 0, every = 1, batch = 20, lr = 0.1, \
    cost = { kind = \"latency\", table = \"latency.json\", reference = 0.001 }, \
    loss = { kind = \"add-linear\", lambda = 10.0 } }";

fn args<'a>(command: &'a str, out: &'a str) -> Vec<&'a str> {
    let sets = ["supernet.paths=1", GATES, "search.algorithm={ kind = \"most-likely\" }"];
    let mut args = vec![command, "tiny.toml", "--out", out, "--threads", "1"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    args
}

fn measure(bench: &Bench, image: &str) {
    let measure = ["bench", "latency", "--space", "quickstart", "--image", image, "--classes", "2"];
    let few = ["--samples", "5", "--networks", "0", "--threads", "1", "--out", "latency.json"];
    bench.ok(&[&measure[..], &few].concat());
}

fn json(bench: &Bench, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(bench.path(file)).unwrap()).unwrap()
}

/// The events of architecture parameters.
fn told(bench: &Bench, run: &str) -> Vec<Value> {
    let events = std::fs::read_to_string(bench.path(run).join("events.jsonl")).unwrap_or_default();
    let whole = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    whole.filter(|event| event["event"] == "gates").collect()
}

fn weights(bench: &Bench, run: &str) -> Archive {
    let path = bench.path(run).join("supernet.safetensors");
    Archive { meta: String::new(), ..Archive::from_bytes(&std::fs::read(&path).unwrap(), &path).unwrap() }
}

#[test]
fn gates_by_a_latency_table_grow_fast_and_kills_change_no_bit() {
    let bench = Bench::new();
    // Known before anything is written: a table that is not there, one of other images, a loss that has no
    // logarithm for times below a millisecond.
    assert!(bench.fails(&args("train-supernet", "run"), 1).contains("latency.json"));
    measure(&bench, "28");
    let error = bench.fails(&args("train-supernet", "run"), 2);
    assert!(error.contains("no entry") && error.contains("latency.json"), "{error}");
    measure(&bench, "12");
    let log = [&args("train-supernet", "run")[..], &["--set", "supernet.gates.loss={ kind = \"mul-log\" }"]];
    let error = bench.fails(&log.concat(), 2);
    assert!(error.contains("supernet.gates.cost.reference") && error.contains("add-linear"), "{error}");
    assert!(!bench.path("run").exists());

    bench.ok(&args("run", "run"));
    let costs: Vec<f64> = told(&bench, "run").iter().map(|e| e["cost"].as_f64().unwrap()).collect();
    assert!(costs.len() > 2 && costs.windows(2).all(|w| w[1] < w[0]), "the cost outweighs all: {costs:?}");
    // What was found is the most likely candidate of every slot.
    let (gates, arch) = (json(&bench, "run/gates.json"), json(&bench, "run/arch.json"));
    for choice in arch["choices"].as_array().unwrap() {
        let of = gates[choice[0].as_str().unwrap()].as_object().unwrap();
        let chosen = of[choice[1].as_str().unwrap()].as_f64().unwrap();
        assert!(of.values().all(|p| p.as_f64().unwrap() <= chosen), "{choice} of {of:?}");
    }

    // Killed in training, again and again, the table gone after the first time: the directory has its own.
    let mut kills = 0;
    for events in 1..costs.len() {
        let command = [&args("run", "killed")[..], &["--resume"]].concat();
        let mut child = bench.command(&command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while told(&bench, "killed").len() < events && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(300), "event {events} does not come");
            std::thread::sleep(Duration::from_millis(1));
        }
        kills += usize::from(child.try_wait().unwrap().is_none());
        // What has ended cannot be killed, and need not.
        child.kill().ok();
        child.wait().unwrap();
        std::fs::remove_file(bench.path("latency.json")).ok();
    }
    assert!(kills > 0, "no kill of {} landed", costs.len() - 1);
    bench.ok(&[&args("run", "killed")[..], &["--resume"]].concat());
    assert!(weights(&bench, "run") == weights(&bench, "killed"), "weights or gates differ");
    assert_eq!(gates, json(&bench, "killed/gates.json"));
    assert_eq!(told(&bench, "run"), told(&bench, "killed"));
    assert_eq!(json(&bench, "run/gates-latency.json"), json(&bench, "killed/gates-latency.json"));
}
