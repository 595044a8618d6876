//! Programs that other people wrote: the examples of cudarc, compiled from its sources as the registry gave them and run
//! unchanged. Those that compile CUDA at run time need NVIDIA's NVRTC on the loader's path.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::{read_reports, vgpu};

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

/// A build of cudarc that this test could have been linked with.
struct Build {
    /// The compiled crate.
    rlib: PathBuf,
    /// Its sources as the registry gave them.
    sources: PathBuf,
}

/// The folder in which this test and the crates that it uses lie.
fn deps() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.parent().expect("a program lies in a folder").to_path_buf()
}

/// Builds of cudarc; the compiler left a list of the sources beside each.
fn builds() -> Vec<Build> {
    let mut builds = Vec::new();
    for entry in std::fs::read_dir(deps()).expect("the folder of this test").flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let Some(name) = name.strip_prefix("lib").and_then(|n| n.strip_suffix(".rlib")) else { continue };
        if !name.starts_with("cudarc-") {
            continue;
        }
        let list = std::fs::read_to_string(deps().join(name).with_extension("d")).unwrap_or_default();
        let lib =
            list.split_whitespace().map(|w| w.trim_end_matches(':')).find(|w| w.ends_with("/src/lib.rs"));
        if let Some(sources) = lib.and_then(|lib| Path::new(lib).parent()?.parent()) {
            builds.push(Build { rlib: entry.path(), sources: sources.to_path_buf() });
        }
    }
    assert!(!builds.is_empty(), "no build of cudarc in {}", deps().display());
    builds
}

/// Compiles an example with its own sources' cudarc; gives the program and the sources.
fn compile(example: &str, into: &Path) -> (PathBuf, PathBuf) {
    let program = into.join(example);
    // Several builds may lie there; one with the right features compiles.
    let mut errors = String::new();
    for Build { rlib, sources } in builds() {
        let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition=2021", "--crate-type=bin", "--crate-name=example", "--cap-lints=allow"])
            .arg(sources.join("examples").join(example).with_extension("rs"))
            .arg("--extern")
            .arg(format!("cudarc={}", rlib.display()))
            .arg("-L")
            .arg(format!("dependency={}", deps().display()))
            .arg("-o")
            .arg(&program)
            .output()
            .expect("the compiler that built this test");
        if output.status.success() {
            return (program, sources);
        }
        errors.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    panic!("{example} does not compile: {errors}");
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
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in PLAIN {
        let (program, sources) = compile(name, directory.path());
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
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in COMPILING {
        let (program, sources) = compile(name, directory.path());
        let out = run(&sources, &program, "0");
        match name {
            "matmul-kernel" => assert!(out.contains("Found [7.0, 10.0, 15.0, 22.0]"), "{out}"),
            "09-constant-memory" => assert!(out.contains("All results match expected values!"), "{out}"),
            _ => {}
        }
    }
}
