//! Resuming: kill -9, failing system calls, a full disk, Ctrl-C and SIGTERM change no bit of the result.
//!
//! With large counts: `cargo run --release -p soak`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use soak::{Bench, fingerprint};

#[test]
fn kills_over_all_stages_change_no_bit() {
    println!("{}", soak::kills(20));
}

#[test]
fn kills_inside_system_calls_change_no_bit() {
    println!("{}", soak::kills_in_calls(20));
}

#[test]
fn failing_system_calls_are_told_and_resumed_from() {
    println!("{}", soak::faults(13));
}

#[test]
fn a_full_disk_is_told_and_resumed_from() {
    match soak::full_disks(3) {
        Ok(line) => println!("{line}"),
        Err(reason) => println!("skipped: {reason}"),
    }
}

#[test]
fn neither_threads_nor_workers_change_a_bit() {
    println!("{}", soak::threads_and_workers());
}

#[test]
fn a_planted_nan_is_told_with_layer_candidate_and_step() {
    println!("{}", soak::a_planted_nan_is_named());
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
