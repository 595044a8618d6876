//! The command `vgpu`.

use std::process::Output;

use super::harness::{run, vgpu};

fn call(arguments: &[&str]) -> (Output, String, String) {
    let output = vgpu().args(arguments).output().expect("the launcher runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

#[test]
fn the_exit_code_is_that_of_the_program() {
    assert_eq!(call(&["run", "--", "true"]).0.status.code(), Some(0));
    assert_eq!(call(&["run", "--", "sh", "-c", "exit 7"]).0.status.code(), Some(7));
    assert_eq!(call(&["run", "--", "sh", "-c", "kill -9 $$"]).0.status.code(), Some(128 + 9));
    let (output, _, err) = call(&["run", "--", "/no/such/program"]);
    assert!(output.status.code() == Some(1) && err.contains("/no/such/program"), "{err}");
}

#[test]
fn wrong_usage_is_code_two() {
    assert_eq!(call(&["run"]).0.status.code(), Some(2));
    assert_eq!(call(&["run", "--seed", "x", "--", "true"]).0.status.code(), Some(2));
}

#[test]
fn the_program_finds_the_library_under_every_name() {
    let (_, out, _) = call(&["run", "--", "sh", "-c", "ls -l ${LD_LIBRARY_PATH%%:*}"]);
    for name in monopath_vgpu::launcher::LINKS {
        assert!(out.contains(&format!("{name} -> ")), "{out}");
    }
    assert!(out.contains("libmonopath_vgpu.so"));
    let target = std::path::Path::new(env!("CARGO_BIN_EXE_vgpu")).parent().unwrap();
    for folder in [target.to_path_buf(), target.join("deps")] {
        assert!(!folder.join("libcuda.so").exists() && !folder.join("libcuda.so.1").exists());
    }
}

#[test]
fn counters_print_as_a_table() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("counters.json");
    let outcome = run("launches").clean();
    std::fs::write(&file, serde_json::to_vec(outcome.tally()).unwrap()).unwrap();
    let (output, out, _) = call(&["stat", file.to_str().unwrap()]);
    assert!(output.status.success());
    assert!(out.lines().any(|l| l.starts_with("axpy")) && out.contains("lanes/instr"), "{out}");
    std::fs::write(&file, "{").unwrap();
    let (output, _, err) = call(&["stat", file.to_str().unwrap()]);
    assert!(!output.status.success() && err.contains("no counters"), "{err}");
}
