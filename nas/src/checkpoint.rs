//! Checkpoints: safetensors files that carry their own digest in their name.
//!
//! `<subject>-<units done>-<digest>.safetensors`. A file whose content does not match its name is
//! passed over with a warning and the one before it is used; the last two of a subject are kept.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files;

/// Checkpoints of one subject that are kept.
const KEEP: usize = 2;
/// Hexadecimal digits of the digest in a file's name.
const DIGEST: usize = 16;
/// The key of the metadata in the file's header.
const META: &str = "monopath";

/// Named arrays with their shapes, and metadata as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Archive {
    /// f32 arrays.
    pub floats: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// u64 arrays.
    pub counts: BTreeMap<String, Vec<u64>>,
    /// JSON text.
    pub meta: String,
}

impl Archive {
    /// An archive with `meta` and no arrays.
    ///
    /// # Errors
    /// [`Error::Format`] if `meta` cannot be written as JSON.
    pub fn new(meta: &impl Serialize) -> Result<Self> {
        let meta = serde_json::to_string(meta)
            .map_err(|e| Error::Format { path: PathBuf::from(META), reason: e.to_string() })?;
        Ok(Self { meta, ..Self::default() })
    }

    /// Adds an f32 array.
    pub fn put(&mut self, name: &str, shape: &[usize], data: &[f32]) {
        self.floats.insert(name.to_owned(), (shape.to_vec(), data.to_vec()));
    }

    /// An f32 array.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not there.
    pub fn get(&self, name: &str, path: &Path) -> Result<&[f32]> {
        self.floats.get(name).map(|(_, data)| data.as_slice()).ok_or_else(|| Error::Format {
            path: path.to_owned(),
            reason: format!("array {name:?} is missing"),
        })
    }

    /// An f32 array of exactly this shape.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not there or has another shape.
    pub fn get_shaped(&self, name: &str, shape: &[usize], path: &Path) -> Result<&[f32]> {
        match self.floats.get(name) {
            Some((found, data)) if found == shape => Ok(data),
            Some((found, _)) => Err(Error::Format {
                path: path.to_owned(),
                reason: format!("array {name:?} has shape {found:?} where {shape:?} is expected"),
            }),
            None => self.get(name, path),
        }
    }

    /// The metadata.
    ///
    /// # Errors
    /// [`Error::Format`] if it is something else.
    pub fn meta<T: DeserializeOwned>(&self, path: &Path) -> Result<T> {
        serde_json::from_str(&self.meta)
            .map_err(|e| Error::Format { path: path.to_owned(), reason: format!("metadata: {e}") })
    }

    /// As a safetensors file.
    ///
    /// # Errors
    /// [`Error::Format`] if a shape does not fit its data.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let floats = self.floats.iter().map(|(name, (shape, data))| {
            (name.clone(), Flat { dtype: Dtype::F32, shape: shape.clone(), bytes: f32_bytes(data) })
        });
        let counts = self.counts.iter().map(|(name, data)| {
            let bytes = data.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.clone(), Flat { dtype: Dtype::U64, shape: vec![data.len()], bytes })
        });
        let meta = HashMap::from([(META.to_owned(), self.meta.clone())]);
        safetensors::serialize(floats.chain(counts), Some(meta))
            .map_err(|e| Error::Format { path: PathBuf::from("archive"), reason: e.to_string() })
    }

    /// Reads what [`Archive::to_bytes`] made.
    ///
    /// # Errors
    /// [`Error::Format`] if it is no such file.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let format = |reason: String| Error::Format { path: path.to_owned(), reason };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| format(e.to_string()))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| format(e.to_string()))?;
        let meta = header.metadata().as_ref().and_then(|m| m.get(META)).cloned();
        let mut archive = Self { meta: meta.unwrap_or_else(|| "null".to_owned()), ..Self::default() };
        for (name, view) in file.tensors() {
            match view.dtype() {
                Dtype::F32 => {
                    let data = view.data().chunks_exact(4);
                    let data = data.map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect();
                    archive.floats.insert(name, (view.shape().to_vec(), data));
                }
                Dtype::U64 => {
                    let data = view.data().chunks_exact(8);
                    let data = data.map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes"))).collect();
                    archive.counts.insert(name, data);
                }
                other => {
                    return Err(format(format!("array {name:?} has type {other:?}; f32 and u64 are known")));
                }
            }
        }
        Ok(archive)
    }
}

struct Flat {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Flat {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn f32_bytes(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The checkpoints of a run directory.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

/// A checkpoint that was read.
#[derive(Debug)]
pub struct Loaded {
    /// Units of work it holds.
    pub done: u64,
    /// Its content.
    pub archive: Archive,
    /// Where it lies.
    pub path: PathBuf,
    /// Newer files that were passed over because their content does not match their name.
    pub damaged: Vec<PathBuf>,
}

struct Entry {
    done: u64,
    digest: String,
    path: PathBuf,
}

impl Checkpoints {
    /// The checkpoints in `folder`, which is created.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(folder: &Path) -> Result<Self> {
        files::create_folder(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes a checkpoint of `subject` and removes all but its last two.
    ///
    /// # Errors
    /// [`Error::Io`]; earlier checkpoints stay as they are.
    pub fn save(&self, subject: &str, done: u64, archive: &Archive) -> Result<PathBuf> {
        let bytes = archive.to_bytes()?;
        let name = format!("{subject}-{done:010}-{}.safetensors", digest(&bytes));
        let path = self.folder.join(name);
        files::write_atomic(&path, &bytes)?;
        for old in self.entries(subject)?.iter().filter(|e| e.path != path).skip(KEEP - 1) {
            fs::remove_file(&old.path).map_err(|e| Error::io("remove", &old.path, e))?;
        }
        Ok(path)
    }

    /// The newest sound checkpoint of `subject`, or `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] if there are checkpoints and all are damaged.
    pub fn load(&self, subject: &str) -> Result<Option<Loaded>> {
        let mut damaged = Vec::new();
        for entry in self.entries(subject)? {
            let bytes = files::read(&entry.path)?;
            if digest(&bytes) == entry.digest
                && let Ok(archive) = Archive::from_bytes(&bytes, &entry.path)
            {
                return Ok(Some(Loaded { done: entry.done, archive, path: entry.path, damaged }));
            }
            damaged.push(entry.path);
        }
        match damaged.pop() {
            None => Ok(None),
            Some(path) => Err(Error::Format {
                path,
                reason: "this checkpoint and every other one of its subject is damaged; \
                         remove them to begin the stage anew"
                    .to_owned(),
            }),
        }
    }

    /// Removes every checkpoint of `subject`: its stage is done and its result stored.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&self, subject: &str) -> Result<()> {
        for entry in self.entries(subject)? {
            fs::remove_file(&entry.path).map_err(|e| Error::io("remove", &entry.path, e))?;
        }
        Ok(())
    }

    /// Newest first.
    fn entries(&self, subject: &str) -> Result<Vec<Entry>> {
        let listing = fs::read_dir(&self.folder).map_err(|e| Error::io("list", &self.folder, e))?;
        let mut entries = Vec::new();
        for file in listing {
            let path = file.map_err(|e| Error::io("list", &self.folder, e))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            let Some(rest) = name.strip_suffix(".safetensors") else { continue };
            let mut parts = rest.rsplitn(3, '-');
            let (Some(digest), Some(done), Some(of)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if let (true, Ok(done)) = (of == subject && digest.len() == DIGEST, done.parse()) {
                entries.push(Entry { done, digest: digest.to_owned(), path });
            }
        }
        entries.sort_by(|a, b| b.done.cmp(&a.done).then_with(|| a.path.cmp(&b.path)));
        Ok(entries)
    }
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..DIGEST].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(value: f32) -> Archive {
        let mut archive = Archive::new(&("meta", 7)).unwrap();
        archive.put("w", &[2, 2], &[value, 2.0, f32::MIN_POSITIVE, -0.0]);
        archive.counts.insert("steps".into(), vec![0, u64::MAX]);
        archive
    }

    #[test]
    fn what_was_saved_is_loaded_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        assert!(checkpoints.load("supernet").unwrap().is_none());
        for done in 1..=4 {
            checkpoints.save("supernet", done, &archive(done as f32)).unwrap();
            checkpoints.save("random-1", done, &archive(0.5)).unwrap();
        }
        let loaded = checkpoints.load("supernet").unwrap().unwrap();
        assert_eq!((loaded.done, loaded.archive.clone()), (4, archive(4.0)));
        assert_eq!(loaded.archive.meta::<(String, u32)>(&loaded.path).unwrap(), ("meta".into(), 7));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "two of each subject are kept");
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        checkpoints.save("found", 1, &archive(1.0)).unwrap();
        let newest = checkpoints.save("found", 2, &archive(2.0)).unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&newest, bytes).unwrap();
        let loaded = checkpoints.load("found").unwrap().unwrap();
        assert_eq!((loaded.done, loaded.damaged), (1, vec![newest]));
    }

    #[test]
    fn mutated_files_are_errors_not_panics() {
        let bytes = archive(1.0).to_bytes().unwrap();
        for at in 0..bytes.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                let _read = Archive::from_bytes(&bytes, Path::new("mutated"));
            }
        }
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("file");
        assert!(matches!(files::write_atomic(&path, b"x"), Err(Error::Io { action: "write", .. })));
    }
}
