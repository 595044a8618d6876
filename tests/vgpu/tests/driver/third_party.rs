//! Programs that other people wrote: the examples of cudarc, compiled from its sources as the registry gave them and run
//! unchanged. Those that compile CUDA at run time need NVIDIA's NVRTC on the loader's path.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::{cudarc_sources, read_reports, vgpu};

/// Examples that load committed PTX, or none.
const PLAIN: [&str; 6] = [
    "01-allocate",
    "02-copy",
    "03-launch-kernel",
    "04-streams",
    "10-function-attributes",
    "12-context-config",
];

/// Examples that call NVRTC.
const COMPILING: [&str; 4] = ["05-device-repr", "06-threading", "09-constant-memory", "matmul-kernel"];

/// Compiles an example against the cudarc that this test was built with.
fn compile(source: &Path, into: &Path) -> PathBuf {
    let deps = std::env::current_exe().expect("a running program has a path");
    let deps = deps.parent().expect("tests lie in `deps`");
    let program = into.join(source.file_stem().expect("a file"));
    // Several builds of cudarc may lie there; the one with the right features compiles.
    let mut errors = String::new();
    for entry in std::fs::read_dir(deps).expect("the folder of this test").flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if !name.starts_with("libcudarc-") || !name.ends_with(".rlib") {
            continue;
        }
        let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition=2021", "--crate-type=bin", "--crate-name=example", "--cap-lints=allow"])
            .arg(source)
            .arg("--extern")
            .arg(format!("cudarc={}", entry.path().display()))
            .arg("-L")
            .arg(format!("dependency={}", deps.display()))
            .arg("-o")
            .arg(&program)
            .output()
            .expect("the compiler that built this test");
        if output.status.success() {
            return program;
        }
        errors.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    panic!("{} does not compile: {errors}", source.display());
}

/// Runs an example under a seed; gives its output.
fn run(sources: &Path, program: &Path, seed: &str) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let reports = directory.path().join("reports");
    let output = vgpu()
        .args(["run", "--seed", seed, "--reports"])
        .arg(&reports)
        .arg("--")
        .arg(program)
        .current_dir(sources)
        .output()
        .expect("the launcher runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let found = read_reports(&reports);
    assert!(output.status.success() && found.is_empty(), "{}: {found:?}\n{out}{err}", program.display());
    out
}

#[test]
fn the_examples_of_cudarc_run_unchanged() {
    let Some(sources) = cudarc_sources() else {
        println!("skipped: the sources of cudarc are not to be found");
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in PLAIN {
        let program = compile(&sources.join("examples").join(name).with_extension("rs"), directory.path());
        for seed in ["0", "1"] {
            let out = run(&sources, &program, seed);
            if name == "03-launch-kernel" || name == "04-streams" {
                let line = |start: &str| {
                    let line = out.lines().find(|l| l.starts_with(start)).expect("a line of the example");
                    let list = line.trim_start_matches(start).trim_matches([' ', '[', ']']).to_string();
                    list.split(", ").map(|v| v.parse::<f32>().expect("a number")).collect::<Vec<_>>()
                };
                for (found, expected) in line("Found").iter().zip(line("Expected")) {
                    assert!((found - expected).abs() < 1e-6, "{out}");
                }
            }
        }
    }
}

#[test]
fn the_compiling_examples_of_cudarc_run_unchanged() {
    let nvrtc = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let there = std::env::split_paths(&nvrtc)
        .any(|p| p.join("libnvrtc.so").exists() || p.join("libnvrtc.so.12").exists());
    if !there {
        println!("skipped: NVRTC is not on LD_LIBRARY_PATH");
        return;
    }
    let Some(sources) = cudarc_sources() else {
        println!("skipped: the sources of cudarc are not to be found");
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in COMPILING {
        let program = compile(&sources.join("examples").join(name).with_extension("rs"), directory.path());
        let out = run(&sources, &program, "0");
        match name {
            "matmul-kernel" => assert!(out.contains("Found [7.0, 10.0, 15.0, 22.0]"), "{out}"),
            "09-constant-memory" => assert!(out.contains("All results match expected values!"), "{out}"),
            _ => {}
        }
    }
}
