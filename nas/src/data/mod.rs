//! Images on disk to batches in memory.
//!
//! A [`Dataset`] answers for record `i`; a [`View`] is a part of one; a [`Pipeline`] turns a record
//! into the floats that a network reads; a [`Loader`] makes batches of them ahead of time. Which
//! images a batch holds and how each is augmented depends on (seed, epoch, step, index) only, never
//! on the number of workers, so any step can be made again at any time.
//!
//! One file per format: [`Source`] lists them.

pub mod augment;
pub mod cache;
pub mod cifar;
mod colour;
pub mod config;
pub mod decode;
mod error;
pub mod folder;
pub mod idx;
pub mod inspect;
pub mod loader;
pub mod packed;
pub mod split;
pub mod tar;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use augment::Pipeline;
pub use config::{DataConfig, Source};
pub use error::{DecodeError, Error, PackedProblem, Result, TarProblem};
pub use loader::{Batch, Loader, LoaderOptions, Pass};

/// One decoded picture: `pixels` is `[height, width, channels]`, row-major, channels 1 (gray) or
/// 3 (RGB).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 or 3.
    pub channels: usize,
    /// `height * width * channels` bytes.
    pub pixels: Vec<u8>,
    /// The file had harmless junk that had to be cut out first (see [`decode`]).
    pub repaired: bool,
}

impl Image {
    /// Sets the shape and makes `pixels` that long, keeping its memory; the content is unspecified.
    pub(crate) fn reshape(&mut self, height: usize, width: usize, channels: usize) {
        (self.height, self.width, self.channels) = (height, width, channels);
        self.pixels.resize(height * width * channels, 0);
        self.repaired = false;
    }
}

/// What a run directory records about its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Name of the format, as in the recipe.
    pub format: &'static str,
    /// Files or folders it was read from.
    pub paths: Vec<PathBuf>,
    /// Number of records.
    pub records: usize,
    /// Number of classes.
    pub classes: usize,
    /// BLAKE3 in hexadecimal over what was read on opening: the whole content where a format reads
    /// it all (IDX, CIFAR, tar.gz, packed index), else names, sizes and labels (folder, tar).
    pub digest: String,
}

/// Labelled images that can be read in any order from any thread. Indices are `0..len()`.
pub trait Dataset: Send + Sync {
    /// Number of records.
    fn len(&self) -> usize;

    /// No records at all; the formats here refuse to open such a set.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the classes; a label is an index into it.
    fn classes(&self) -> &[String];

    /// Class of record `i`.
    ///
    /// # Panics
    /// If `i` is not below `len()`, like every method with an `i`.
    fn label(&self, i: usize) -> u32;

    /// A name that a person can find the record by.
    fn name(&self, i: usize) -> String;

    /// A number that stays with the record when the set around it changes: a hash of its name, or
    /// of its index where records have no name. Splits are made from it.
    fn id(&self, i: usize) -> u64;

    /// Decodes record `i` into `image`, whose memory is reused.
    ///
    /// # Errors
    /// The record cannot be read or decoded; the error names it.
    fn read(&self, i: usize, image: &mut Image) -> Result<()>;

    /// The file of record `i` as it is stored, if it is one that [`decode::decode`] reads; packing
    /// keeps it instead of the pixels.
    ///
    /// # Errors
    /// It cannot be read.
    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>> {
        let _ = i;
        Ok(None)
    }

    /// What the set is, for the run directory.
    fn describe(&self) -> Description;

    /// Whether reading is no more than a copy from memory, so that a cache would gain nothing.
    fn is_decoded(&self) -> bool {
        false
    }
}

/// Some records of a data set, in a fixed order.
#[derive(Clone)]
pub struct View {
    /// The whole set.
    pub dataset: Arc<dyn Dataset>,
    /// Records of it, by index.
    pub indices: Arc<[u32]>,
}

impl View {
    /// All records in order.
    pub fn all(dataset: Arc<dyn Dataset>) -> Self {
        let indices = (0..dataset.len() as u32).collect();
        Self { dataset, indices }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// No records.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

/// The three views that a run works on. `val` scores the search, `test` only reports.
#[derive(Clone)]
pub struct Data {
    /// Images to train on.
    pub train: View,
    /// Images held out of training, disjoint from `train`; may be empty.
    pub val: View,
    /// Images for the final figures.
    pub test: View,
}

/// The first 64 bits of BLAKE3 over the parts of a record's name.
fn name_id(name: &[u8]) -> u64 {
    let hash = blake3::hash(name);
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32 bytes"))
}

/// The id of record `i` of a set without names.
fn index_id(i: usize) -> u64 {
    name_id(&(i as u64).to_le_bytes())
}

/// Wraps an IO error with what was being done to which path.
fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { doing, path: path.to_owned(), source }
}

/// A set of `records` in `path` must be neither empty nor too large for 32-bit indices.
fn check_count(path: &Path, records: usize) -> Result<()> {
    match records {
        0 => Err(Error::NoImages { path: path.to_owned() }),
        n if n > u32::MAX as usize => Err(Error::TooManyRecords { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Turns a panic while record `i` is worked on into that record's error: a worker that dies would
/// leave its caller waiting for ever.
fn guard(dataset: &dyn Dataset, i: usize, work: impl FnOnce() -> Result<()>) -> Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Panicked { record: dataset.name(i) }))
}
