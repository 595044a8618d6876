//! Shrinking and ranking as commands.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use engine::Rng;
use nas::Space;
use serde_json::Value;
use soak::Bench;

/// The tiny recipe with a stage that shrinks: 250,000 networks to at most 5,000, five candidates a round.
fn bench() -> Bench {
    let bench = Bench::new();
    let tiny = std::fs::read_to_string(bench.path("tiny.toml")).unwrap();
    let tiny = tiny.replace("constraint = { max-macs = 600_000 }", "");
    std::fs::write(bench.path("shrink.toml"), format!("{tiny}{SHRINK}")).unwrap();
    bench
}

const SHRINK: &str = r#"
[shrink]
size-limit = 5_000
drop = { kind = "lowest", n = 4 }
children = 40
first-epochs = 3
later-epochs = 1
reset-after = 6

[shrink.train]
epochs = 5
batch = 20
lr = 0.05
decay = { kind = "linear", end = 0.01 }
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The rounds without times.
fn rounds(run: &Path) -> String {
    json(&read(&run.join("shrink.json")))["rounds"].to_string()
}

#[test]
fn what_shrinking_leaves_is_the_space_of_all_that_follows() {
    let bench = bench();
    bench.ok(&["run", "shrink.toml", "--out", "run", "--threads", "2"]);
    let run = bench.path("run");
    let shrunk = run.join("shrunk.toml");
    let count = json(&bench.ok(&["space", "count", shrunk.to_str().unwrap(), "--json"]));
    let networks: u64 = count["networks"].as_str().unwrap().parse().unwrap();
    assert!((1..=5_000).contains(&networks), "{networks}");

    // The found network is of that space, and the supernet holds no weight of what was dropped.
    let arch = run.join("arch.json");
    let count = ["count", "--space", shrunk.to_str().unwrap(), "--arch", arch.to_str().unwrap()];
    bench.ok(&count);
    let state = json(&read(&run.join("shrink.json")));
    let rounds = state["rounds"].as_array().unwrap();
    assert_eq!(rounds.last().unwrap()["networks"].as_str().unwrap().parse::<u64>().unwrap(), networks);
    assert!(rounds.iter().filter(|r| r["reset"] == true).count() == 1, "the base moves once");
    let steps: Vec<u64> = rounds.iter().map(|r| r["step"].as_u64().unwrap()).collect();
    let want: Vec<u64> = (0..steps.len() as u64).map(|i| 5 * (3 + i)).collect();
    assert_eq!(steps, want, "three epochs of five steps, then one each");
    let supernet = run.join("supernet.safetensors");
    let supernet =
        nas::checkpoint::Archive::from_bytes(&std::fs::read(&supernet).unwrap(), &supernet).unwrap();
    for round in rounds {
        let dropped: Vec<&Value> =
            round["operators"].as_array().unwrap().iter().filter(|o| o["dropped"] == true).collect();
        assert_eq!(dropped.len(), 4);
        for operator in dropped {
            let prefix = format!(
                "weights.{}.{}.",
                operator["slot"].as_str().unwrap(),
                operator["label"].as_str().unwrap()
            );
            assert!(supernet.floats.keys().all(|name| !name.starts_with(&prefix)), "{prefix}");
            assert!(operator["score"].as_f64().unwrap() >= 0.0);
        }
    }
    let report = read(&run.join("report.html"));
    assert!(report.contains("<h2>Shrinking</h2>") && report.contains("What was dropped"), "{report}");
    assert!(!run.join("shrink-base.safetensors").exists());

    // Alone it leaves the same.
    bench.ok(&["shrink", "shrink.toml", "--out", "alone", "--threads", "1"]);
    assert_eq!(read(&bench.path("alone").join("shrunk.toml")), read(&shrunk));
    assert!(!bench.path("alone").join("supernet.safetensors").exists());
    bench.ok(&["shrink", "shrink.toml", "--out", "alone", "--resume"]);
    assert_eq!(self::rounds(&bench.path("alone")), self::rounds(&run));
}

/// Kills shrinking in every round; the rounds and the space that is left are those of a run that was not killed.
fn kills_change_no_bit(sets: &[&str]) {
    let bench = bench();
    let shrink = |out| {
        let mut args = vec!["shrink", "shrink.toml", "--out", out, "--resume"];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        args
    };
    bench.ok(&shrink("whole"));
    let want = (rounds(&bench.path("whole")), read(&bench.path("whole").join("shrunk.toml")));
    let count = json(&want.0).as_array().unwrap().len();
    let run = bench.path("killed");
    let told = || {
        let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
        events.lines().filter(|l| l.contains("\"shrunk\"")).count()
    };
    let mut draws = Rng::new(3, "kills").at(0, 0, 0);
    let mut kills = 0;
    // Every life sees one round more to its end, and then some moments.
    for rounds in 1..count {
        let args = [&shrink("killed")[..], &["--threads", "1"]].concat();
        let mut child = bench.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while told() < rounds && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(300), "round {rounds} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(u64::from(draws.below(60))));
        kills += usize::from(child.try_wait().unwrap().is_none());
        // What has ended cannot be killed, and need not.
        child.kill().ok();
        child.wait().unwrap();
    }
    assert!(kills >= count / 2, "{kills} kills in {count} rounds");
    bench.ok(&shrink("killed"));
    assert_eq!((rounds(&run), read(&run.join("shrunk.toml"))), want, "after {kills} kills");
    assert_eq!(told(), count, "every round is told once");
}

#[test]
fn kills_while_shrinking_by_angles_change_no_bit() {
    kills_change_no_bit(&[]);
}

#[test]
fn kills_while_shrinking_by_magnitudes_change_no_bit() {
    // Architecture parameters and their moments are part of what a checkpoint holds.
    kills_change_no_bit(&["shrink.metric={ kind = \"magnitude\", images = 20, lr = 0.1 }"]);
}

/// A table of `n` networks of the quickstart space with made-up accuracies.
fn table(bench: &Bench, n: u32) {
    let space = Space::load("quickstart").unwrap();
    let mut rows = serde_json::Map::new();
    for i in 0..n {
        let mut draws = Rng::new(7, "table").at(0, 0, i);
        let arch = space.canonical(&space.sample(&mut draws));
        let accuracy = f64::from(draws.below(1000)) / 10.0;
        rows.insert(space.text(&arch), serde_json::json!({ "mean_acc": accuracy }));
    }
    std::fs::write(bench.path("table.json"), Value::Object(rows).to_string()).unwrap();
}

#[test]
fn a_killed_ranking_goes_on_with_the_scores_it_had() {
    let bench = Bench::new();
    table(&bench, 60);
    bench.ok(&["train-supernet", "tiny.toml", "--out", "run"]);
    let run = bench.path("run");
    let images = ["--calibration-images", "40", "--held-out-images", "20", "--threads", "1"];
    let rank =
        [&["rank", "--from", "run", "--table", "table.json", "--networks", "all"][..], &images].concat();
    let points = || {
        let rankings = json(&read(&run.join("rank.json")));
        rankings.as_array().unwrap().iter().map(|r| r["points"].clone()).collect::<Vec<_>>()
    };
    bench.ok(&rank);
    let want = points();
    assert_eq!(want[0].as_array().unwrap().len(), 60);
    for file in ["rank.json", "scores.json"] {
        std::fs::remove_file(run.join(file)).unwrap();
    }
    // The recipe stores after every score.
    let scores = || -> Value {
        std::fs::read(run.join("scores.json")).map_or(Value::Null, |b| serde_json::from_slice(&b).unwrap())
    };
    let known = || scores()[0]["scores"].as_object().map_or(0, serde_json::Map::len);
    let mut kills = 0;
    for stop in [10, 25, 40] {
        let mut child = bench.command(&rank).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while known() < stop && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        kills += usize::from(child.try_wait().unwrap().is_none());
        // What has ended cannot be killed, and need not.
        child.kill().ok();
        child.wait().unwrap();
        assert!(known() >= stop);
    }
    assert!(kills > 0 && !run.join("rank.json").exists(), "{kills} kills");
    bench.ok(&rank);
    assert_eq!(points(), want);

    // What is known is not taken again, and what other settings gave is another matter.
    let arch = want[0][0]["arch"].as_str().unwrap();
    let mut marked = scores();
    marked[0]["scores"][arch] = 0.123.into();
    std::fs::write(run.join("scores.json"), marked.to_string()).unwrap();
    bench.ok(&rank);
    assert_eq!(points()[0][0]["score"], 0.123);
    bench.ok(&[&rank[..], &["--seed", "1"]].concat());
    assert_ne!(points()[0][0]["score"], 0.123);
    bench.ok(&[&rank[..], &["--metric", "zero-cost"]].concat());
    assert_eq!(scores().as_array().unwrap().len(), 3, "two of accuracies, one of synflow");
}

#[test]
fn rules_metrics_and_settings_are_a_recipes() {
    let bench = bench();
    let with = |out: &str, sets: &[&str]| {
        let mut args = vec!["shrink", "shrink.toml", "--out", out];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        bench.ok(&args);
        json(&read(&bench.path(out).join("shrink.json")))["rounds"].clone()
    };
    // One of each slot: 5^6 4^2, 4^6 3^2, 3^6 2^2.
    let each = with("each", &["shrink.drop={ kind = \"one-per-slot\" }"]);
    let networks: Vec<&str> =
        each.as_array().unwrap().iter().map(|r| r["networks"].as_str().unwrap()).collect();
    assert_eq!(networks, ["36864", "2916"]);
    // The rival that scores by accuracy: shares of 20 images.
    let rival = with("rival", &["shrink.metric={ kind = \"accuracy\", images = 20 }", "shrink.children=4"]);
    let scores = rival[0]["operators"].as_array().unwrap().iter().map(|o| o["score"].as_f64().unwrap());
    assert!(scores.clone().all(|s| (0.0..=1.0).contains(&s)) && scores.clone().any(|s| s > 0.5));
    // The rival that trains architecture parameters along: probabilities of a slot's candidates, no children.
    let set = "shrink.metric={ kind = \"magnitude\", images = 20, lr = 0.1 }";
    let rival = with("magnitude", &[set]);
    for round in rival.as_array().unwrap() {
        let mut sums = std::collections::BTreeMap::<&str, f64>::new();
        for operator in round["operators"].as_array().unwrap() {
            *sums.entry(operator["slot"].as_str().unwrap()).or_default() +=
                operator["score"].as_f64().unwrap();
        }
        assert!(sums.values().all(|sum| (sum - 1.0).abs() < 1e-9), "what was dropped has no share: {sums:?}");
    }
    // A space that is small enough stays as it is, untrained.
    assert_eq!(with("small", &["shrink.size-limit=250000"]), Value::Array(vec![]));
    let space = Space::load(bench.path("small").join("shrunk.toml").to_str().unwrap()).unwrap();
    assert_eq!(space.size(), Some(250_000));

    let cases: [(&[&str], &str); 5] = [
        (&["shrink", "tiny.toml"], "shrink = nothing"),
        (&["shrink", "shrink.toml", "--set", "shrink.size-limit=0"], "shrink.size-limit"),
        (&["shrink", "shrink.toml", "--set", "shrink.drop.n=0"], "shrink.drop.n"),
        (&["shrink", "shrink.toml", "--set", "shrink.train.decay.end=1"], "shrink.train.decay.end"),
        (&["shrink", "shrink.toml", "--set", "shrink.drop.kind=some"], "one-per-slot"),
    ];
    for (args, want) in cases {
        let error = bench.fails(&[args, &["--out", "bad"]].concat(), 2);
        assert!(error.contains(want), "{args:?}: {error}");
    }
    assert!(!bench.path("bad").exists());
    let args = [
        "shrink",
        "shrink.toml",
        "--out",
        "bad",
        "--set",
        "shrink.metric={ kind = \"accuracy\", images = 7 }",
    ];
    assert!(bench.fails(&args, 2).contains("a multiple of the 2 classes"));
}

#[test]
fn scores_are_ranked_against_a_table_or_a_runs_own_networks() {
    let bench = bench();
    let table = r#"{"22222222": {"mean_acc": 93, "test_acc": [92, 94]}, "11111111": {"mean_acc": 92, "test_acc": [91, 93]},
        "00000000": {"mean_acc": 45, "test_acc": [46, 44]}, "01000000": {"mean_acc": 50, "test_acc": [50, 50]}}"#;
    std::fs::write(bench.path("table.json"), table).unwrap();
    let table = ["--table", "table.json", "--networks", "all", "--json"];
    let space = ["rank", "--space", "nas-bench-macro"];
    for metric in ["macs", "params", "zero-cost"] {
        let value = json(&bench.ok(&[&space[..], &table[..], &["--metric", metric]].concat()));
        assert_eq!((value["n"].as_u64(), value["ceiling"].as_f64()), (Some(4), Some(1.0)), "{value}");
        assert!(value["tau_b"].as_f64().unwrap() > 0.0 && value["spearman"].is_f64(), "{value}");
        assert!(value["p_at_10"].is_null() && value["points"].is_null(), "fewer than ten networks");
        assert_eq!(value["interval_95"].as_array().unwrap().len(), 2);
    }

    let few = ["--set", "retrain.random-networks=4", "--set", "retrain.largest=false"];
    bench.ok(&[&["run", "tiny.toml", "--out", "run"], &few[..]].concat());
    let images = ["--calibration-images", "40", "--held-out-images", "20", "--json"];
    let from = ["rank", "--from", "run", "--table", "run"];
    let cases: [&[&str]; 7] = [
        &[],
        &["--metric", "accuracy", "--calibration-images", "0"],
        &["--metric", "angle"],
        &["--metric", "macs"],
        &["--metric", "zero-cost"],
        &["--metric", "zero-cost", "--proxy", "gradient-norm"],
        &["--metric", "zero-cost", "--proxy", "jacobian-covariance"],
    ];
    for case in cases {
        let images = if case.contains(&"0") { &images[2..] } else { &images[..] };
        let args = [&from[..], case, images].concat();
        let value = json(&bench.ok(&args));
        assert_eq!(value["n"].as_u64(), Some(4), "{value}");
        let again = json(&bench.ok(&args));
        assert_eq!((&value["tau_b"], &value["spearman"]), (&again["tau_b"], &again["spearman"]));
    }
    let kept = read(&bench.path("run").join("rank.json"));
    let angle = json(&bench.ok(&[&from[..], &["--metric", "angle", "--json"]].concat()));
    let weights = ["--metric", "angle", "--weights", "run/supernet.safetensors", "--seed", "1", "--json"];
    let same = json(&bench.ok(&[&from[..], &weights[..]].concat()));
    assert_eq!(angle["tau_b"], same["tau_b"], "the file holds the run's own weights");
    let again = read(&bench.path("run").join("rank.json"));
    let seeds =
        |text: &str| json(text).as_array().unwrap().iter().map(|r| r["seed"].clone()).collect::<Vec<_>>();
    assert_eq!(seeds(&kept), seeds(&again), "what was ranked by other weights is not kept");
    let kept = json(&kept);
    let names: Vec<&str> = kept.as_array().unwrap().iter().map(|r| r["metric"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["accuracy", "angle", "macs", "synflow", "gradient-norm", "jacobian-covariance"],
        "one of each metric"
    );
    assert_eq!(kept[0]["points"].as_array().unwrap().len(), 4);
    bench.ok(&["report", "run"]);
    let report = read(&bench.path("run").join("report.html"));
    assert!(report.contains("<h2>Ranking</h2>") && report.contains("Tau-b"), "{report}");

    let bad: [(&[&str], i32, &str); 8] = [
        (&["rank", "--table", "table.json"], 2, "--from"),
        (&["rank", "--space", "nas-bench-macro", "--table", "table.json"], 2, "where there is no run"),
        (&["rank", "--space", "nas-bench-macro", "--table", "gone.json", "--metric", "macs"], 1, "gone.json"),
        (&["rank", "--space", "quickstart", "--table", "table.json", "--metric", "macs"], 1, "table.json"),
        (&["rank", "--from", "run", "--table", "run", "--networks", "1"], 2, "at least 2"),
        (&["rank", "--from", "run", "--table", "run", "--held-out-images", "7"], 2, "held-out-images"),
        (
            &["rank", "--from", "run", "--table", "run", "--metric", "angle", "--weights", "table.json"],
            1,
            "table.json",
        ),
        (&["rank", "--from", "nowhere", "--table", "run"], 2, "no run directory"),
    ];
    for (args, code, want) in bad {
        let error = bench.fails(args, code);
        assert!(error.contains(want), "{args:?}: {error}");
    }
}
