//! One file for a whole data set, mapped into memory, with a hash for every record.
//!
//! Any data set can be packed. A record holds the picture's file as it was or its pixels; reading
//! checks its hash, so no damage passes unseen (a JPEG alone would not notice a flipped bit).
//!
//! Version 1, little-endian:
//!
//! | part | content |
//! | --- | --- |
//! | header, 80 bytes | `MONOPACK`, version u32, 0 u32, records u64, offset of the entries u64, bytes of class names u64, bytes of record names u64, BLAKE3 of the first 48 bytes and everything from the entries on |
//! | records | end to end |
//! | entries, 56 bytes each | offset u64, length u32, label u32, id u64, first 16 bytes of the record's BLAKE3, height u32, width u32, channels u32 (0: the bytes are a JPEG or PNG file), end of the name among the names u32 |
//! | class names | number u32, then length u32 and UTF-8 for each |
//! | record names | UTF-8, end to end |

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::decode::{MAX_PIXELS, decode};
use super::{Dataset, Description, Error, Image, PackedProblem, Result, View, check_count, io_error};

const MAGIC: &[u8; 8] = b"MONOPACK";
const VERSION: u32 = 1;
const HEADER: usize = 80;
/// The part of the header that the index hash covers; the hash is the rest.
const HASHED: usize = 48;
const ENTRY: usize = 56;

/// A packed data set.
pub struct Packed {
    path: PathBuf,
    map: Mmap,
    classes: Vec<String>,
    records: usize,
    entries: Range<usize>,
    names: Range<usize>,
    digest: [u8; 32],
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The picture's file where there is one (small, decoded each time), else its pixels.
    Files,
    /// The pixels (large, nothing to decode).
    Pixels,
}

/// What packing did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records written.
    pub records: usize,
    /// Size of the file.
    pub bytes: u64,
    /// Name and error of each record that was left out.
    pub bad: Vec<(String, String)>,
}

/// An entry of the index.
struct Entry {
    offset: u64,
    length: u32,
    label: u32,
    id: u64,
    hash: [u8; 16],
    /// Height, width, channels.
    shape: [u32; 3],
    name_end: u32,
}

/// Whether a file begins as packed files do.
pub(super) fn is_packed(path: &Path) -> Result<bool> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut start = [0; MAGIC.len()];
    match file.read_exact(&mut start) {
        Ok(()) => Ok(start == *MAGIC),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Packs `view` into `path`, in its order. Every record is decoded on the way; one that fails ends
/// the packing, or is left out with `skip_bad`. The file appears under its name only when it is
/// whole and on disk. `done` hears how many records were looked at so far.
///
/// # Errors
/// A bad record, a file that cannot be written, nothing left to write.
pub fn pack(view: &View, path: &Path, store: Store, skip_bad: bool, done: &dyn Fn(usize)) -> Result<Report> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let report = write(view, path, &part, store, skip_bad, done);
    if report.is_err() {
        // Best effort: the error that ended the packing is the one to report.
        let _ = fs::remove_file(&part);
        return report;
    }
    fs::rename(&part, path).map_err(io_error("rename", &part))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))?;
    report
}

fn write(
    view: &View,
    path: &Path,
    part: &Path,
    store: Store,
    skip_bad: bool,
    done: &dyn Fn(usize),
) -> Result<Report> {
    let dataset = &view.dataset;
    let writing = || io_error("write", part);
    let mut out = BufWriter::new(File::create(part).map_err(io_error("create", part))?);
    out.write_all(&[0; HEADER]).map_err(writing())?;
    let (mut report, mut index, mut names) = (Report::default(), Vec::new(), Vec::new());
    let mut offset = HEADER as u64;
    let mut image = Image::default();
    for (position, &i) in view.indices.iter().enumerate() {
        done(position);
        let i = i as usize;
        let content = match content(&**dataset, i, store, &mut image) {
            Ok(content) => content,
            Err(error) if skip_bad => {
                report.bad.push((dataset.name(i), error.to_string()));
                continue;
            }
            Err(error) => return Err(error),
        };
        let (bytes, channels) = match &content {
            Some(file) => (file.as_slice(), 0),
            None => (image.pixels.as_slice(), image.channels),
        };
        names.extend_from_slice(dataset.name(i).as_bytes());
        let limits = (u32::try_from(bytes.len()), u32::try_from(names.len()));
        let (Ok(length), Ok(name_end)) = limits else {
            return Err(Error::Packed { path: path.to_owned(), problem: PackedProblem::TooLarge });
        };
        out.write_all(bytes).map_err(writing())?;
        let shape = [image.height, image.width, channels].map(|side| side as u32);
        let (label, id, hash) = (dataset.label(i), dataset.id(i), record_hash(bytes));
        Entry { offset, length, label, id, hash, shape, name_end }.write(&mut index);
        offset += u64::from(length);
        report.records += 1;
    }
    check_count(path, report.records)?;
    let mut classes = (dataset.classes().len() as u32).to_le_bytes().to_vec();
    for class in dataset.classes() {
        classes.extend((class.len() as u32).to_le_bytes());
        classes.extend(class.as_bytes());
    }
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend([0; 4]);
    for value in [report.records as u64, offset, classes.len() as u64, names.len() as u64] {
        header.extend(value.to_le_bytes());
    }
    let mut hash = blake3::Hasher::new();
    hash.update(&header);
    for part in [&index, &classes, &names] {
        hash.update(part);
        out.write_all(part).map_err(writing())?;
    }
    header.extend(hash.finalize().as_bytes());
    report.bytes = offset + (index.len() + classes.len() + names.len()) as u64;
    let mut file = out.into_inner().map_err(|error| writing()(error.into_error()))?;
    file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&header)).map_err(writing())?;
    file.sync_all().map_err(writing())?;
    Ok(report)
}

/// Decodes record `i` into `image`; its file, if that is to be stored.
fn content(dataset: &dyn Dataset, i: usize, store: Store, image: &mut Image) -> Result<Option<Vec<u8>>> {
    let file = match store {
        Store::Files => dataset.encoded(i)?,
        Store::Pixels => None,
    };
    match &file {
        Some(bytes) => {
            decode(bytes, image).map_err(|source| Error::Decode { record: dataset.name(i), source })?;
        }
        None => dataset.read(i, image)?,
    }
    Ok(file)
}

impl Packed {
    /// Maps the file and checks its index; records are checked when they are read.
    ///
    /// # Errors
    /// Not a packed file, another version, a damaged index.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io_error("open", path))?;
        // SAFETY: the map is read only. The file must not be changed while it is in use; packing
        // replaces a file by renaming and leaves the old one's bytes alone.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error("map", path))?;
        let refuse = |problem| Error::Packed { path: path.to_owned(), problem };
        let layout = Layout::read(&map).map_err(refuse)?;
        let classes = layout.class_names(&map).ok_or_else(|| refuse(PackedProblem::Index))?;
        let packed = Self {
            path: path.to_owned(),
            classes,
            records: layout.records,
            entries: layout.entries,
            names: layout.names,
            digest: layout.digest,
            map,
        };
        check_count(path, packed.records)?;
        packed.check_entries().ok_or_else(|| refuse(PackedProblem::Index))?;
        Ok(packed)
    }

    /// The records whose bytes are not those that were written. `done` hears how many were checked.
    pub fn verify(&self, done: &dyn Fn(usize)) -> Vec<usize> {
        let damaged = |&i: &usize| {
            done(i);
            self.checked(i).is_err()
        };
        (0..self.records).filter(damaged).collect()
    }

    /// The bytes of record `i`, which have their hash.
    fn checked(&self, i: usize) -> Result<(Entry, &[u8])> {
        let entry = self.entry(i);
        let bytes = self.content(&entry);
        if record_hash(bytes) != entry.hash {
            return Err(Error::Damaged { path: self.path.clone(), record: i, name: self.name(i) });
        }
        Ok((entry, bytes))
    }

    /// Every entry points into the records, has a class, and a shape that fits its length.
    fn check_entries(&self) -> Option<()> {
        let mut name_start = 0;
        for i in 0..self.records {
            let Entry { offset, length, label, shape, name_end, .. } = self.entry(i);
            let end = offset.checked_add(length.into())?;
            let [h, w, c] = shape.map(|side| side as usize);
            let pixels = h.checked_mul(w).filter(|pixels| (1..=MAX_PIXELS).contains(pixels))?;
            let fits = c == 0 || (c == 1 || c == 3) && pixels * c == length as usize;
            let inside = offset >= HEADER as u64 && end <= self.entries.start as u64;
            let named = name_start <= name_end && name_end as usize <= self.names.len();
            if !(fits && inside && named && (label as usize) < self.classes.len()) {
                return None;
            }
            name_start = name_end;
        }
        Some(())
    }

    fn entry(&self, i: usize) -> Entry {
        assert!(i < self.records, "record {i} of {}", self.records);
        let start = self.entries.start + i * ENTRY;
        Entry::read(&self.map[start..start + ENTRY])
    }

    fn content(&self, entry: &Entry) -> &[u8] {
        &self.map[entry.offset as usize..][..entry.length as usize]
    }
}

impl Dataset for Packed {
    fn len(&self) -> usize {
        self.records
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> u32 {
        self.entry(i).label
    }

    fn name(&self, i: usize) -> String {
        let start = if i == 0 { 0 } else { self.entry(i - 1).name_end as usize };
        let names = &self.map[self.names.clone()];
        String::from_utf8_lossy(&names[start..self.entry(i).name_end as usize]).into_owned()
    }

    fn id(&self, i: usize) -> u64 {
        self.entry(i).id
    }

    fn read(&self, i: usize, image: &mut Image) -> Result<()> {
        let (entry, bytes) = self.checked(i)?;
        let [h, w, c] = entry.shape.map(|side| side as usize);
        if c == 0 {
            return decode(bytes, image).map_err(|source| Error::Decode { record: self.name(i), source });
        }
        image.reshape(h, w, c);
        image.pixels.copy_from_slice(bytes);
        Ok(())
    }

    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>> {
        if self.entry(i).shape[2] != 0 {
            return Ok(None);
        }
        self.checked(i).map(|(_, bytes)| Some(bytes.to_vec()))
    }

    fn describe(&self) -> Description {
        Description {
            format: "packed",
            paths: vec![self.path.clone()],
            records: self.records,
            classes: self.classes.len(),
            digest: blake3::Hash::from_bytes(self.digest).to_hex().to_string(),
        }
    }
}

/// Where the parts of a packed file lie.
struct Layout {
    records: usize,
    entries: Range<usize>,
    classes: Range<usize>,
    names: Range<usize>,
    digest: [u8; 32],
}

impl Layout {
    /// Reads the header and checks that the parts fill the file and have their hash.
    fn read(map: &[u8]) -> std::result::Result<Self, PackedProblem> {
        if map.get(..8) != Some(MAGIC) {
            return Err(PackedProblem::Magic);
        }
        let header = map.get(..HEADER).ok_or(PackedProblem::Size)?;
        let version = u32::from_le_bytes(header[8..12].try_into().expect("4 bytes"));
        if version != VERSION {
            return Err(PackedProblem::Version(version));
        }
        let value = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let parts = || -> Option<[Range<usize>; 3]> {
            let mut start = usize::try_from(value(24)).ok().filter(|&start| start >= HEADER)?;
            let mut range = |length: Option<u64>| {
                let end = start.checked_add(usize::try_from(length?).ok()?)?;
                Some(std::mem::replace(&mut start, end)..end)
            };
            let parts = [
                range(value(16).checked_mul(ENTRY as u64))?,
                range(Some(value(32)))?,
                range(Some(value(40)))?,
            ];
            (parts[2].end == map.len()).then_some(parts)
        };
        let [entries, classes, names] = parts().ok_or(PackedProblem::Size)?;
        let mut hash = blake3::Hasher::new();
        hash.update(&header[..HASHED]).update(&map[entries.start..]);
        let digest = *hash.finalize().as_bytes();
        if digest != header[HASHED..] {
            return Err(PackedProblem::Index);
        }
        Ok(Self { records: entries.len() / ENTRY, entries, classes, names, digest })
    }

    fn class_names(&self, map: &[u8]) -> Option<Vec<String>> {
        let mut rest = &map[self.classes.clone()];
        let word = |bytes: &mut &[u8]| -> Option<usize> {
            let (word, after) = bytes.split_first_chunk::<4>()?;
            *bytes = after;
            Some(u32::from_le_bytes(*word) as usize)
        };
        let mut names = Vec::new();
        for _ in 0..word(&mut rest)? {
            let length = word(&mut rest)?;
            let (name, after) = rest.split_at_checked(length)?;
            names.push(std::str::from_utf8(name).ok()?.to_owned());
            rest = after;
        }
        rest.is_empty().then_some(names)
    }
}

impl Entry {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.offset.to_le_bytes());
        out.extend(self.length.to_le_bytes());
        out.extend(self.label.to_le_bytes());
        out.extend(self.id.to_le_bytes());
        out.extend(self.hash);
        self.shape.iter().for_each(|side| out.extend(side.to_le_bytes()));
        out.extend(self.name_end.to_le_bytes());
    }

    /// # Panics
    /// If `bytes` is not one entry long.
    fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            offset: long(0),
            length: word(8),
            label: word(12),
            id: long(16),
            hash: bytes[24..40].try_into().expect("16 bytes"),
            shape: [word(40), word(44), word(48)],
            name_end: word(52),
        }
    }
}

fn record_hash(bytes: &[u8]) -> [u8; 16] {
    blake3::hash(bytes).as_bytes()[..16].try_into().expect("16 of 32 bytes")
}
