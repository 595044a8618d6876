//! What the committed PTX was made from: digests of sources and results, options, compiler.
//!
//! `ptx/manifest.txt` is compared with the files in every test run, with no compiler; the bytes are made again where the
//! compiler can be installed.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

/// The compiler that makes what ships: PTX 8.0, which every driver from 525 on accepts.
pub const COMPILER: &str = "nvrtc 12.0.140";

/// Its options.
pub const OPTIONS: [&str; 2] = ["--gpu-architecture=compute_80", "--std=c++17"];

/// Names of the compiled sources (`src/NAME.cu`), in order.
///
/// # Errors
/// The folder cannot be read.
pub fn sources(root: &Path) -> io::Result<Vec<String>> {
    files(&root.join("src"), "cu")
}

/// Names of the kernels of a PTX text.
pub fn kernels(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.lines().filter_map(|line| line.strip_prefix(".visible .entry ")?.strip_suffix('('))
}

/// The manifest of the sources and the PTX that lie under a crate's folder.
///
/// # Errors
/// A file cannot be read.
pub fn describe(root: &Path) -> io::Result<String> {
    let mut text =
        format!("compiler {COMPILER}\noptions {}\nheaders of a toolkit: none\n", OPTIONS.join(" "));
    let mut digests = |folder: &str, ending: &str| -> io::Result<()> {
        for name in files(&root.join(folder), ending)? {
            let path: PathBuf = root.join(folder).join(format!("{name}.{ending}"));
            let digest = blake3::hash(&std::fs::read(path)?);
            let _ = writeln!(text, "{folder}/{name}.{ending} {digest}");
        }
        Ok(())
    };
    digests("src", "cu")?;
    digests("src", "cuh")?;
    digests("ptx", "ptx")?;
    Ok(text)
}

fn files(folder: &Path, ending: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == ending)
            && let Some(stem) = path.file_stem()
        {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
