//! Image folders: one sub-folder per class, named after it, in order of name; images at any depth
//! below it, in order of path.
//!
//! What counts as an image is told by the extension (`.jpg`, `.jpeg`, `.png`, any case), what it is
//! by its content. Names beginning with a dot are passed over. Links are followed, and one that
//! leads back to a folder above it is an error. Names need not be UTF-8: ids are made from the
//! bytes, and messages show the others as `\xNN`.

use std::fs;
use std::path::{Path, PathBuf};

use super::decode::decode;
use super::{Dataset, Description, Error, Image, Result, check_count, io_error, name_id};

/// An image folder; files are opened when they are read.
pub struct Folder {
    root: PathBuf,
    classes: Vec<String>,
    files: Vec<File>,
    digest: blake3::Hash,
}

struct File {
    /// Below the root.
    path: PathBuf,
    class: u32,
    id: u64,
}

impl Folder {
    /// Lists the folder. The digest covers names and sizes, not contents.
    ///
    /// # Errors
    /// Unreadable, without images, or with links in a circle.
    pub fn open(root: &Path) -> Result<Self> {
        let mut classes = Vec::new();
        let mut files = Vec::new();
        let mut hash = blake3::Hasher::new();
        for (path, kind) in entries(root)? {
            if !kind.is_dir() {
                continue;
            }
            let class = classes.len() as u32;
            classes.push(escape(path.file_name().unwrap_or_default().as_encoded_bytes()));
            let mut found = Vec::new();
            let mut parents = vec![identity(root)?];
            list(&path, &mut parents, &mut found)?;
            for (path, size) in found {
                let path = path.strip_prefix(root).expect("listed below the root").to_owned();
                let bytes = path.as_os_str().as_encoded_bytes();
                hash.update(bytes).update(&[0]).update(&size.to_le_bytes());
                files.push(File { class, id: name_id(bytes), path });
            }
        }
        check_count(root, files.len())?;
        Ok(Self { root: root.to_owned(), classes, files, digest: hash.finalize() })
    }

    fn bytes(&self, i: usize) -> Result<Vec<u8>> {
        let path = self.root.join(&self.files[i].path);
        fs::read(&path).map_err(io_error("read", &path))
    }
}

impl Dataset for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> u32 {
        self.files[i].class
    }

    fn name(&self, i: usize) -> String {
        escape(self.files[i].path.as_os_str().as_encoded_bytes())
    }

    fn id(&self, i: usize) -> u64 {
        self.files[i].id
    }

    fn read(&self, i: usize, image: &mut Image) -> Result<()> {
        decode(&self.bytes(i)?, image).map_err(|source| Error::Decode { record: self.name(i), source })
    }

    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>> {
        self.bytes(i).map(Some)
    }

    fn describe(&self) -> Description {
        Description {
            format: "folder",
            paths: vec![self.root.clone()],
            records: self.len(),
            classes: self.classes.len(),
            digest: self.digest.to_hex().to_string(),
        }
    }
}

/// What a folder holds besides hidden names, in order of name. A link is what it points to; one
/// that points nowhere is listed as itself, so that it becomes a bad record and not a silent gap.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, fs::FileType)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let entry = entry.map_err(io_error("list", folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let kind = match fs::metadata(&path) {
            Ok(target) => target.file_type(),
            Err(_) => entry.file_type().map_err(io_error("examine", &path))?,
        };
        found.push((path, kind));
    }
    found.sort_unstable_by(|a, b| a.0.as_os_str().as_encoded_bytes().cmp(b.0.as_os_str().as_encoded_bytes()));
    Ok(found)
}

/// All images below `folder` with their sizes. `parents` are the folders on the way down.
fn list(folder: &Path, parents: &mut Vec<PathBuf>, found: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    let real = identity(folder)?;
    if parents.contains(&real) {
        return Err(Error::SymlinkLoop { path: folder.to_owned() });
    }
    parents.push(real);
    for (path, kind) in entries(folder)? {
        if kind.is_dir() {
            list(&path, parents, found)?;
        } else if is_image(&path) {
            let size = fs::metadata(&path).map_or(0, |target| target.len());
            found.push((path, size));
        }
    }
    parents.pop();
    Ok(())
}

fn identity(folder: &Path) -> Result<PathBuf> {
    fs::canonicalize(folder).map_err(io_error("examine", folder))
}

/// Whether the name has the extension of a supported picture.
pub(super) fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.as_encoded_bytes().to_ascii_lowercase());
    matches!(extension.as_deref(), Some(b"jpg" | b"jpeg" | b"png"))
}

/// A name as text, each byte outside UTF-8 as `\xNN`.
pub(super) fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
