//! Files that are whole or not there: written beside, synced, renamed, and the folder synced.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// The ending of files that are still being written; left over only by a crash.
const UNFINISHED: &str = "unfinished";

/// Writes `bytes` to `path` so that a crash at any moment leaves the old file or the new one.
///
/// # Errors
/// [`Error::Io`]; the file that was there stays, and what was written beside it is removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension(UNFINISHED);
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    })();
    written.map_err(|source| {
        // The first error is the one to report; a leftover is harmless.
        fs::remove_file(&beside).ok();
        Error::Io { action: "write", path: path.to_owned(), needed: Some(bytes.len() as u64), source }
    })
}

/// Creates a folder and its parents.
///
/// # Errors
/// [`Error::Io`].
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::io("create folder", path, source))
}

/// Reads a whole file.
///
/// # Errors
/// [`Error::Io`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::io("read", path, source))
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}
