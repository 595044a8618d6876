//! Makes the PTX that ships, or checks it.
//!
//!     ptx make SITE12 [NAME ..]  compile every source (or those named) with NVRTC 12.0, write ptx/ and its manifest
//!     ptx check SITE12           the same, compared with what is committed
//!     ptx registers SITE13 [NAME ..]  assemble every source (or those named) for every architecture, write
//!                                ptx/registers.txt; spills are errors
//!     ptx check-registers SITE13 the same, compared with what is committed
//!     ptx warnings SITE13        compile with nvcc, warnings as errors
//!
//! SITE12, SITE13: site-packages folders with the wheels that `tests/vgpu/corpus/requirements1*.txt` pin.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts, sys::is_culib_present};
use kernels::manifest::{self, OPTIONS};

/// Architectures that must assemble without spills: Ampere, Ada, Hopper, Blackwell.
const ARCHITECTURES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];

type Done = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", site, ref names @ ..] => make(Path::new(site), names, false),
        ["check", site] => make(Path::new(site), &[], true),
        ["registers", site, ref names @ ..] => registers(Path::new(site), names, false),
        ["check-registers", site] => registers(Path::new(site), &[], true),
        ["warnings", site] => warnings(Path::new(site)),
        ["one", source] => one(Path::new(source)),
        _ => Err("usage: ptx make SITE12 [NAME ..], ptx check SITE12, ptx registers SITE13 [NAME ..], ptx \
                  check-registers|warnings SITE13"
            .into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ptx: {e}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn same_or_write(path: &Path, text: &[u8], check: bool) -> Done {
    if !check {
        return Ok(std::fs::write(path, text)?);
    }
    match std::fs::read(path) {
        Ok(have) if have == text => Ok(()),
        _ => Err(format!("{} is not what the compiler makes; run `ptx` and commit", path.display()).into()),
    }
}

/// Compiles one source and prints the PTX. A process of its own: NVRTC numbers calls through the life of a process.
fn one(source: &Path) -> Done {
    // SAFETY: looks whether the library can be loaded; cudarc panics otherwise.
    if !unsafe { is_culib_present() } {
        return Err("libnvrtc.so.12 is not on the loader's path".into());
    }
    let options = CompileOptions {
        options: OPTIONS.iter().map(|o| o.to_string()).collect(),
        include_paths: vec![root().join("src").to_string_lossy().into_owned()],
        name: source.file_name().map(|n| n.to_string_lossy().into_owned()),
        ..CompileOptions::default()
    };
    match compile_ptx_with_opts(std::fs::read_to_string(source)?, options) {
        Ok(ptx) => {
            print!("{}", ptx.to_src());
            Ok(())
        }
        Err(cudarc::nvrtc::CompileError::CompileError { log, .. }) => Err(log.to_string_lossy().into()),
        Err(e) => Err(e.into()),
    }
}

/// Compiles the sources named, or all, and writes the PTX and the manifest, or compares them.
/// All sources, among which those with these names are.
fn all(names: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    let all = manifest::sources(root())?;
    match names.iter().find(|name| !all.iter().any(|have| have == *name)) {
        Some(unknown) => Err(format!("no source is called {unknown}").into()),
        None => Ok(all),
    }
}

fn make(site: &Path, names: &[&str], check: bool) -> Done {
    let folder = site.join("nvidia/cuda_nvrtc/lib");
    if !folder.join("libnvrtc.so.12").exists() {
        return Err(format!("{} holds no libnvrtc.so.12", folder.display()).into());
    }
    let own = std::env::current_exe()?;
    for name in all(names)?.iter().filter(|name| names.is_empty() || names.contains(&name.as_str())) {
        let source = root().join("src").join(format!("{name}.cu"));
        let out = Command::new(&own).arg("one").arg(&source).env("LD_LIBRARY_PATH", &folder).output()?;
        if !out.status.success() {
            return Err(format!("{name}: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        same_or_write(&root().join("ptx").join(format!("{name}.ptx")), &out.stdout, check)?;
    }
    let text = manifest::describe(root())?;
    same_or_write(&root().join("ptx/manifest.txt"), text.as_bytes(), check)
}

fn tool(site: &Path, name: &str) -> PathBuf {
    site.join("nvidia/cu13/bin").join(name)
}

/// Registers of every kernel on every architecture; those of sources that are not named stay as they are.
fn registers(site: &Path, names: &[&str], check: bool) -> Done {
    let committed = std::fs::read_to_string(root().join("ptx/registers.txt")).unwrap_or_default();
    let before = |kernel: &str| {
        let line = committed.lines().find_map(|line| line.strip_prefix(kernel)?.strip_prefix(' '));
        line.map(|used| used.split(' ').map(String::from).collect::<Vec<_>>())
    };
    let mut table: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut spilled = String::new();
    for name in all(names)? {
        let ptx = root().join("ptx").join(format!("{name}.ptx"));
        if !names.is_empty() && !names.contains(&name.as_str()) {
            for kernel in manifest::kernels(&std::fs::read_to_string(&ptx)?) {
                let used = before(kernel).ok_or_else(|| format!("{kernel} of {name} was never assembled"))?;
                table.insert(kernel.into(), used);
            }
            continue;
        }
        for sm in ARCHITECTURES {
            let out = Command::new(tool(site, "ptxas"))
                .args(["-v", "-arch", sm, "-o", "/dev/null"])
                .arg(&ptx)
                .output()?;
            let text = String::from_utf8_lossy(&out.stderr);
            if !out.status.success() {
                return Err(format!("{name} for {sm}: {text}").into());
            }
            let mut kernel = String::new();
            for line in text.lines() {
                if let Some((_, rest)) = line.split_once("Compiling entry function '") {
                    kernel = rest.split('\'').next().unwrap_or_default().to_string();
                }
                if line.contains("bytes spill stores")
                    && !(line.contains(" 0 bytes spill stores") && line.contains(" 0 bytes spill loads"))
                {
                    let _ = writeln!(spilled, "{kernel} for {sm}: {}", line.trim());
                }
                if let Some((_, rest)) = line.split_once("Used ") {
                    let used = rest.split(' ').next().unwrap_or_default();
                    table.entry(kernel.clone()).or_default().push(used.to_string());
                }
            }
        }
    }
    if !spilled.is_empty() {
        return Err(format!("registers spill:\n{spilled}").into());
    }
    let mut text = format!("kernel {}\n", ARCHITECTURES.join(" "));
    for (kernel, used) in &table {
        let _ = writeln!(text, "{kernel} {}", used.join(" "));
    }
    same_or_write(&root().join("ptx/registers.txt"), text.as_bytes(), check)
}

fn warnings(site: &Path) -> Done {
    for name in manifest::sources(root())? {
        let out = Command::new(tool(site, "nvcc"))
            .args(["-std=c++17", "-Werror", "all-warnings", "--ptx", "-arch=compute_80", "-o", "/dev/null"])
            .arg(root().join("src").join(format!("{name}.cu")))
            .output()?;
        if !out.status.success() {
            return Err(format!("{name}: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
    }
    Ok(())
}
