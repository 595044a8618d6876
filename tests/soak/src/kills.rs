//! `kill -9` at random moments, and inside the system calls that write.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use engine::Rng;

use crate::faults::{Fault, Order};
use crate::{Bench, fingerprint};

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

/// At least `wanted` kills at random times, over all stages, the number of threads changing from life to
/// life.
pub fn kills(wanted: u32) -> String {
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
    let total: u32 = kills.values().sum();
    format!("{total} kills at random times over {runs} runs {kills:?}, no bit different")
}

/// At least `wanted` kills inside calls that change the run's folder: before a create, sync, rename or
/// remove, in the middle of a write.
pub fn kills_in_calls(wanted: u32) -> String {
    let bench = Bench::new();
    bench.ok(&["run", "tiny.toml", "--out", "whole"]);
    let want = fingerprint(&bench.path("whole"));
    let mut draws = Rng::new(9, "kills-in-calls").at(0, 0, 0);
    let mut kills: BTreeMap<String, u32> = BTreeMap::new();
    let mut runs = 0;
    while kills.values().sum::<u32>() < wanted {
        let dir = bench.path(&format!("killed-{runs}"));
        runs += 1;
        loop {
            let order = Order { fault: Fault::Kill, at: 1 + u64::from(draws.below(400)) };
            let args = ["run", "tiny.toml", "--out", dir.to_str().unwrap(), "--resume"];
            let (output, hit) = order.give(&bench, &args, &dir);
            match hit {
                Some(call) => *kills.entry(call.name).or_default() += 1,
                None => {
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                    break;
                }
            }
        }
        assert_eq!(fingerprint(&dir), want, "after kills in {kills:?}");
    }
    let total: u32 = kills.values().sum();
    format!("{total} kills inside system calls over {runs} runs {kills:?}, no bit different")
}
