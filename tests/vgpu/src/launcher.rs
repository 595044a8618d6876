//! Starts a program so that it finds this library where it looks for the driver.
//!
//! A directory of symbolic links (`libcuda.so`, `libcublas.so`, …) to the one library goes on the loader's path. The
//! library itself is never called `libcuda.so`: a build puts its output folder on the path of every test, and a real
//! driver must not be shadowed. The loader reads the path when a program starts, so a test runs itself as a child.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

/// File name of the library.
pub const LIBRARY: &str = "libmonopath_vgpu.so";

/// Names under which programs look for the driver and the libraries.
pub const LINKS: [&str; 8] = [
    "libcuda.so",
    "libcuda.so.1",
    "libcublas.so",
    "libcublas.so.12",
    "libcublas.so.13",
    "libcublasLt.so",
    "libcublasLt.so.12",
    "libcublasLt.so.13",
];

/// Path on which the loader looks for libraries.
const LOADER_PATH: &str = "LD_LIBRARY_PATH";

/// What keeps a program from being started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The library is not where it is built.
    #[error("{LIBRARY} is neither beside {} nor in its `deps` folder; build it with `cargo build -p vgpu`", near.display())]
    NoLibrary {
        /// Where it was looked for.
        near: PathBuf,
    },
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A directory of links, removed when dropped.
#[derive(Debug)]
pub struct Links {
    directory: tempfile::TempDir,
}

/// Finds the library beside the running program or in the build's `deps` folder.
///
/// # Errors
/// [`LaunchError::NoLibrary`].
pub fn library() -> Result<PathBuf, LaunchError> {
    let program = std::env::current_exe().map_err(|source| LaunchError::File {
        what: "cannot find",
        path: "the running program".into(),
        source,
    })?;
    let folder = program.parent().unwrap_or(Path::new("."));
    // A build refreshes `deps` first; the copy above it may be older.
    let places = [folder.join("deps").join(LIBRARY), folder.join(LIBRARY)];
    match places.into_iter().find(|p| p.exists()) {
        Some(path) => Ok(path),
        None => Err(LaunchError::NoLibrary { near: folder.into() }),
    }
}

impl Links {
    /// Makes the links to a library in a temporary directory.
    ///
    /// # Errors
    /// The library does not exist, or a link cannot be made.
    pub fn new(library: &Path) -> Result<Links, LaunchError> {
        let failed = |what, path: &Path| {
            let path = path.to_path_buf();
            move |source| LaunchError::File { what, path, source }
        };
        let library = library.canonicalize().map_err(failed("cannot find", library))?;
        let directory = tempfile::Builder::new()
            .prefix("monopath-vgpu-")
            .tempdir()
            .map_err(failed("cannot make a directory in", &std::env::temp_dir()))?;
        for name in LINKS {
            let link = directory.path().join(name);
            std::os::unix::fs::symlink(&library, &link).map_err(failed("cannot link", &link))?;
        }
        Ok(Links { directory })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts the directory at the front of a command's loader path.
    pub fn apply(&self, command: &mut Command) {
        let mut path = OsString::from(self.path());
        if let Some(rest) = std::env::var_os(LOADER_PATH).filter(|r| !r.is_empty()) {
            path.push(":");
            path.push(rest);
        }
        command.env(LOADER_PATH, path);
    }
}
