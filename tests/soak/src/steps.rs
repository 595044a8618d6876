//! Resuming at each step of training, and other numbers of threads and workers.

use std::path::{Path, PathBuf};

use nas::checkpoint::Archive;

use crate::faults::{Fault, Order, calls};
use crate::{Bench, fingerprint, losses};

/// Kills right after the checkpoint of every step of supernet training (in the warm-up, within an epoch,
/// at its end) and of every single network's, and compares every later loss and the result.
pub fn resumed_at_every_step() -> String {
    let bench = Bench::new();
    let run = |dir: &Path| -> Vec<String> {
        let args = ["run", "tiny.toml", "--out", dir.to_str().unwrap(), "--set", "log.steps=1"];
        args.map(str::to_owned).to_vec()
    };
    let whole = bench.path("whole");
    let args = run(&whole);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let all = calls(&bench, &args, &whole);
    let (want, want_losses) = (fingerprint(&whole), losses(&whole));
    let ends = all.windows(2).filter(|w| w[0].name == "rename" && w[0].path.contains("/checkpoints/"));
    // The next call is the sync of the folder.
    let points: Vec<u64> = ends.map(|w| w[1].n).collect();
    for &at in &points {
        let dir = bench.path(&format!("resumed-{at}"));
        let args = run(&dir);
        let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (_, hit) = Order { fault: Fault::Kill, at }.give(&bench, &args, &dir);
        assert!(hit.is_some(), "call {at} was not made");
        args.push("--resume");
        bench.ok(&args);
        assert_eq!(losses(&dir), want_losses, "after a kill at call {at}");
        assert_eq!(fingerprint(&dir), want, "after a kill at call {at}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
    assert!(points.len() > 50, "{} checkpoints", points.len());
    format!("{} checkpoints resumed from, {} losses each, no bit different", points.len(), want_losses.len())
}

/// The same run with 1, 2, 3, 4 and 8 threads, and with 1, 2 and 4 data workers.
pub fn threads_and_workers() -> String {
    let bench = Bench::new();
    let mut want: Option<(String, Vec<String>)> = None;
    for (threads, workers) in [(1, 1), (2, 1), (3, 1), (4, 1), (8, 1), (2, 2), (2, 4)] {
        let dir = format!("run-{threads}-{workers}");
        let (threads, workers) = (threads.to_string(), format!("data.workers={workers}"));
        bench.ok(&[
            "run",
            "tiny.toml",
            "--out",
            &dir,
            "--threads",
            &threads,
            "--set",
            &workers,
            "--set",
            "log.steps=1",
        ]);
        let path = bench.path(&dir);
        let found = (fingerprint(&path), losses(&path));
        assert_eq!(want.get_or_insert_with(|| found.clone()), &found, "{threads} threads, {workers}");
    }
    let (_, losses) = want.expect("seven runs were made");
    assert!(losses.len() >= 20);
    format!("1, 2, 3, 4, 8 threads and 1, 2, 4 workers over {} steps: no bit different", losses.len())
}

/// Puts a NaN into one layer of every candidate of a slot, in the checkpoint after some step, and goes on:
/// the error must name the layer, the candidate that the step took, and the step.
pub fn a_planted_nan_is_named() -> String {
    let bench = Bench::new();
    let dir = bench.path("run");
    let args = ["train-supernet", "tiny.toml", "--out", dir.to_str().unwrap()];
    let renames: Vec<u64> = {
        let counted = bench.path("counted");
        let args = ["train-supernet", "tiny.toml", "--out", counted.to_str().unwrap()];
        let all = calls(&bench, &args, &counted);
        all.windows(2)
            .filter(|w| w[0].name == "rename" && w[0].path.contains("/checkpoints/"))
            .map(|w| w[1].n)
            .collect()
    };
    let steps = [1, 7, 12];
    for step in steps {
        // A directory that is not there is as good as an empty one.
        let _ = std::fs::remove_dir_all(&dir);
        let (_, hit) = Order { fault: Fault::Kill, at: renames[step - 1] }.give(&bench, &args, &dir);
        assert!(hit.is_some());
        let folder = dir.join("checkpoints");
        let prefix = format!("supernet-{step:010}-");
        let newest = newest(&folder).unwrap();
        assert!(newest.file_name().unwrap().to_str().unwrap().starts_with(&prefix), "{}", newest.display());
        plant_nan(&newest);
        let error = bench.fails(&[&args[..], &["--resume"]].concat(), 1);
        let (told, at) = named(&error);
        assert_eq!(at, step as u64, "{told}");
    }
    format!("a NaN planted in stage2.slot1 before steps {steps:?}: layer, candidate and step named each time")
}

/// The newest checkpoint in a folder.
pub fn newest(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.map(|e| e.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).max()
}

/// Puts a NaN into the depthwise layer of every candidate of a slot, in a checkpoint.
pub fn plant_nan(checkpoint: &Path) {
    let mut archive = Archive::from_bytes(&std::fs::read(checkpoint).unwrap(), checkpoint).unwrap();
    let mut hurt = 0;
    for (name, (_, values)) in &mut archive.floats {
        if name.starts_with("weights.stage2.slot1.") && name.contains(".depthwise.") {
            values[0] = f32::NAN;
            hurt += 1;
        }
    }
    assert!(hurt > 1, "the slot has several candidates");
    let bytes = archive.to_bytes().unwrap();
    let digest = &blake3::hash(&bytes).to_hex()[..16];
    let name = checkpoint.file_name().unwrap().to_str().unwrap();
    let (prefix, _) = name.rsplit_once('-').unwrap();
    std::fs::remove_file(checkpoint).unwrap();
    std::fs::write(checkpoint.with_file_name(format!("{prefix}-{digest}.safetensors")), bytes).unwrap();
}

/// What an error says of a NaN that [`plant_nan`] planted, which must name the layer and the candidate that the step
/// took, and the step.
pub fn named(error: &str) -> (&str, u64) {
    let told = error.lines().last().unwrap();
    let layer = told.split(", and so ").next().unwrap().trim_start_matches("error: ");
    let choice = layer.split('.').nth(2).unwrap_or_default();
    assert!(layer.starts_with("stage2.slot1.mb_") && layer.contains(".depthwise."), "{told}");
    let (_, rest) = told.split_once("at step ").unwrap_or_else(|| panic!("{told}"));
    let (step, path) = rest.split_once(" on path ").unwrap_or_else(|| panic!("{told}"));
    assert!(path.contains(choice), "{told}");
    (told, step.parse().unwrap_or_else(|_| panic!("{told}")))
}
