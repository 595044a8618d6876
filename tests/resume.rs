//! Resuming: kill -9, Ctrl-C and SIGTERM at any moment change no bit of the result.
//!
//! The long soak: `MONOPATH_KILLS=200 cargo test --release --test main kills`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use engine::Rng;

use crate::support::{Bench, fingerprint};

/// The stage that the last event of a run belongs to.
fn stage(run: &Path) -> String {
    let text = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    let last = text.lines().rev().find_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    match last {
        Some(event) => event["stage"].as_str().map_or_else(
            || if event["event"] == "candidate" { "search".into() } else { "evaluate".into() },
            str::to_owned,
        ),
        None => "start".to_owned(),
    }
}

#[test]
fn kills_over_all_stages_change_no_bit() {
    let wanted: u32 = std::env::var("MONOPATH_KILLS").map_or(20, |n| n.parse().unwrap());
    let bench = Bench::new();
    bench.ok(&["run", "tiny.toml", "--out", "whole", "--threads", "2"]);
    let want = fingerprint(&bench.path("whole"));
    let mut draws = Rng::new(9, "kills").at(0, 0, 0);
    let mut kills: BTreeMap<String, u32> = BTreeMap::new();
    let (started, mut runs) = (Instant::now(), 0);
    loop {
        let dir = format!("killed-{runs}");
        runs += 1;
        loop {
            // The number of threads changes from life to life, too.
            let threads = (1 + draws.below(3)).to_string();
            let args = ["run", "tiny.toml", "--out", &dir, "--resume", "--threads", &threads];
            let mut child =
                bench.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(u64::from(20 + draws.below(350))));
            if let Some(status) = child.try_wait().unwrap() {
                let mut errors = String::new();
                std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut errors).unwrap();
                assert!(status.success(), "{errors}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            *kills.entry(stage(&bench.path(&dir))).or_default() += 1;
        }
        assert_eq!(fingerprint(&bench.path(&dir)), want, "after kills in {kills:?}");
        let covered = ["train-supernet", "search", "retrain"].iter().all(|s| kills.contains_key(*s));
        if covered && kills.values().sum::<u32>() >= wanted {
            break;
        }
        let patience = Duration::from_secs(240 + 10 * u64::from(wanted));
        assert!(started.elapsed() < patience, "too few kills landed: {kills:?}");
    }
    println!("kills by stage: {kills:?} over {runs} runs");
}

#[test]
fn signals_end_cleanly_with_a_checkpoint_and_a_hint() {
    let bench = Bench::new();
    let longer = ["--set", "supernet.train.epochs=2000", "--set", "log.checkpoint-seconds=1000"];
    for signal in ["INT", "TERM"] {
        let mut args = vec!["run", "tiny.toml", "--out", signal];
        args.extend(longer);
        let child = bench.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let events = bench.path(signal).join("events.jsonl");
        let started = Instant::now();
        while !std::fs::read_to_string(&events).unwrap_or_default().contains("\"step\"") {
            assert!(started.elapsed() < Duration::from_secs(60), "training did not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        let sent = std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        assert!(errors.contains("resume with: monopath run"), "{errors}");
        assert!(std::fs::read_to_string(&events).unwrap().contains("\"interrupted\""));
        assert_eq!(std::fs::read_dir(bench.path(signal).join("checkpoints")).unwrap().count(), 1);
    }
}

#[test]
fn a_damaged_checkpoint_costs_work_and_nothing_else() {
    let bench = Bench::new();
    bench.ok(&["run", "tiny.toml", "--out", "whole"]);
    // Killed in mid-training, with two checkpoints on disk.
    let mut child =
        bench.command(&["run", "tiny.toml", "--out", "hurt"]).stderr(Stdio::null()).spawn().unwrap();
    let folder = bench.path("hurt").join("checkpoints");
    let files = || -> Vec<std::path::PathBuf> {
        let Ok(list) = std::fs::read_dir(&folder) else { return Vec::new() };
        let mut files: Vec<_> = list
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
            .collect();
        files.sort();
        files
    };
    while files().len() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let newest = files().pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&newest, bytes).unwrap();
    bench.ok(&["run", "tiny.toml", "--out", "hurt", "--resume"]);
    assert_eq!(fingerprint(&bench.path("hurt")), fingerprint(&bench.path("whole")));
    let events = std::fs::read_to_string(bench.path("hurt").join("events.jsonl")).unwrap();
    assert!(events.contains("is damaged; went on from"), "the damage is told");
}
