//! Tar shards of images, in the layout of WebDataset or as packed image folders.
//!
//! A record's class is its folder's name (`cat/0001.jpg`), or the integer in a member of the same
//! key with the extension `.cls` (`0001.jpg`, `0001.cls`). The key is the path up to the first dot
//! of the file name, as in WebDataset. One set uses one of the two ways throughout; other members
//! are passed over. Nothing is ever unpacked to disk, so names like `../x` lead nowhere.
//!
//! A plain `.tar` is indexed once and its members read in place; a gzipped one cannot be read in
//! place and is kept in memory, up to a limit.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::decode::decode;
use super::folder::{escape, is_image};
use super::{Dataset, Description, Error, Image, Result, TarProblem, check_count, io_error, name_id};

/// One or more shards; records are in order of shard and member.
pub struct Tar {
    shards: Vec<Shard>,
    classes: Vec<String>,
    records: Vec<Record>,
    digest: blake3::Hash,
}

struct Shard {
    path: PathBuf,
    content: Content,
}

enum Content {
    /// Read in place.
    File(File),
    /// The images of a gzipped shard, end to end.
    Memory(Vec<u8>),
}

struct Record {
    shard: u32,
    offset: u64,
    size: usize,
    class: u32,
    name: Box<[u8]>,
}

/// A member before its class is known.
struct Member {
    shard: u32,
    offset: u64,
    size: usize,
    name: Box<[u8]>,
    /// Number in the `.cls` member of the same key.
    number: Option<u64>,
}

impl Tar {
    /// Indexes a shard, or all shards in a folder. `classes` names the numbers of `.cls` members
    /// ("0", "1", … if empty). Gzipped shards may together hold `memory_limit_mib` of images.
    ///
    /// # Errors
    /// Unreadable, cut short, without images, a member without a class, more memory than allowed.
    pub fn open(path: &Path, classes: &[String], memory_limit_mib: u64) -> Result<Self> {
        let mut index = Index { limit: memory_limit_mib, ..Index::default() };
        for shard in shard_paths(path)? {
            index.add(shard)?;
        }
        check_count(path, index.members.len())?;
        let (records, classes) = assign_classes(index.members, &index.shards, classes)?;
        let digest = index.hash.finalize();
        Ok(Self { shards: index.shards, classes, records, digest })
    }

    fn bytes(&self, i: usize) -> Result<Cow<'_, [u8]>> {
        let Record { shard, offset, size, .. } = self.records[i];
        let shard = &self.shards[shard as usize];
        match &shard.content {
            Content::Memory(bytes) => Ok(bytes[offset as usize..][..size].into()),
            Content::File(file) => {
                let mut bytes = vec![0; size];
                file.read_exact_at(&mut bytes, offset).map_err(io_error("read", &shard.path))?;
                Ok(bytes.into())
            }
        }
    }
}

impl Dataset for Tar {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> u32 {
        self.records[i].class
    }

    fn name(&self, i: usize) -> String {
        let record = &self.records[i];
        format!("{}:{}", self.shards[record.shard as usize].path.display(), escape(&record.name))
    }

    fn id(&self, i: usize) -> u64 {
        name_id(&self.records[i].name)
    }

    fn read(&self, i: usize, image: &mut Image) -> Result<()> {
        decode(&self.bytes(i)?, image).map_err(|source| Error::Decode { record: self.name(i), source })
    }

    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>> {
        Ok(Some(self.bytes(i)?.into_owned()))
    }

    fn describe(&self) -> Description {
        Description {
            format: "tar",
            paths: self.shards.iter().map(|shard| shard.path.clone()).collect(),
            records: self.len(),
            classes: self.classes.len(),
            digest: self.digest.to_hex().to_string(),
        }
    }
}

/// `path` itself, or the shards in it in order of name.
fn shard_paths(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut shards = Vec::new();
    for entry in path.read_dir().map_err(io_error("list", path))? {
        let entry = entry.map_err(io_error("list", path))?.path();
        if is_shard(&entry) {
            shards.push(entry);
        }
    }
    shards.sort_unstable();
    Ok(shards)
}

/// Whether a file's name is that of a shard.
pub(super) fn is_shard(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    [&b".tar"[..], b".tar.gz", b".tgz"].iter().any(|end| name.ends_with(end))
}

/// Whether a folder has shards in it.
pub(super) fn holds_shards(folder: &Path) -> Result<bool> {
    Ok(!shard_paths(folder)?.is_empty())
}

/// What has been read of the shards so far.
#[derive(Default)]
struct Index {
    shards: Vec<Shard>,
    members: Vec<Member>,
    hash: blake3::Hasher,
    /// Bytes of images in memory, and MiB allowed.
    held: u64,
    limit: u64,
}

impl Index {
    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = File::open(&path).map_err(io_error("open", &path))?;
        let size = file.metadata().map_err(io_error("examine", &path))?.len();
        let mut reader = BufReader::new(file);
        let start = reader.fill_buf().map_err(io_error("read", &path))?;
        let content = if start.starts_with(&[0x1F, 0x8B]) {
            let mut held = Vec::new();
            self.scan(&path, MultiGzDecoder::new(reader), u64::MAX, Some(&mut held))?;
            Content::Memory(held)
        } else {
            self.scan(&path, reader, size, None)?;
            Content::File(File::open(&path).map_err(io_error("open", &path))?)
        };
        self.shards.push(Shard { path, content });
        Ok(())
    }

    /// Lists the members of one shard; with `held`, copies their bytes there.
    fn scan(
        &mut self,
        path: &Path,
        reader: impl Read,
        end: u64,
        mut held: Option<&mut Vec<u8>>,
    ) -> Result<()> {
        let shard = self.shards.len() as u32;
        let first = self.members.len();
        let mut numbers = HashMap::new();
        let mut names = HashSet::new();
        let mut archive = Archive::new(reader);
        for entry in archive.entries().map_err(io_error("read", path))? {
            let mut entry = entry.map_err(io_error("read the index of", path))?;
            let name: Box<[u8]> = entry.path_bytes().as_ref().into();
            let refuse = |problem| Error::TarMember { path: path.to_owned(), member: escape(&name), problem };
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {}
                EntryType::GNUSparse => return Err(refuse(TarProblem::Sparse)),
                _ => continue,
            }
            let (offset, size) = (entry.raw_file_position(), entry.size());
            let beyond = offset.checked_add(size).is_none_or(|to| to > end) || usize::try_from(size).is_err();
            if beyond {
                return Err(refuse(TarProblem::BeyondEnd));
            }
            let (key, extension) = split_name(&name);
            if extension == b"cls" {
                let number = class_number(&mut entry).ok_or_else(|| refuse(TarProblem::BadClass))?;
                if numbers.insert(key.to_vec(), number).is_some() {
                    return Err(refuse(TarProblem::Duplicate));
                }
            } else if is_image(as_path(&name)) && !is_hidden(&name) {
                if !names.insert(name.clone()) {
                    return Err(refuse(TarProblem::Duplicate));
                }
                self.hash.update(&name).update(&[0]).update(&size.to_le_bytes());
                let mut place = offset;
                if let Some(held) = &mut held {
                    place = held.len() as u64;
                    self.held += copy_member(&mut entry, size, path, self.limit, self.held, held)?;
                    self.hash.update(&held[place as usize..]);
                }
                self.members.push(Member { shard, offset: place, size: size as usize, name, number: None });
            }
        }
        for member in &mut self.members[first..] {
            member.number = numbers.get(split_name(&member.name).0).copied();
        }
        Ok(())
    }
}

/// Appends one member of a gzipped shard to `held`, growing with what is really there.
fn copy_member(
    entry: &mut impl Read,
    size: u64,
    path: &Path,
    limit_mib: u64,
    held_before: u64,
    held: &mut Vec<u8>,
) -> Result<u64> {
    let needed = held_before.saturating_add(size);
    if needed > limit_mib.saturating_mul(1 << 20) {
        let advice = "gunzip the shards: plain ones are read in place";
        let needed = needed.div_ceil(1 << 20);
        return Err(Error::Memory { path: path.to_owned(), needed, limit: limit_mib, advice });
    }
    let before = held.len();
    entry.take(size).read_to_end(held).map_err(io_error("read", path))?;
    let found = (held.len() - before) as u64;
    if found < size {
        return Err(Error::Truncated { path: path.to_owned(), expected: size, found });
    }
    Ok(size)
}

/// (path up to the first dot of the file name, extension after it).
fn split_name(name: &[u8]) -> (&[u8], &[u8]) {
    let file = name.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    match name[file..].iter().position(|&b| b == b'.') {
        Some(dot) => (&name[..file + dot], &name[file + dot + 1..]),
        None => (name, b""),
    }
}

fn is_hidden(name: &[u8]) -> bool {
    name.rsplit(|&b| b == b'/').next().is_some_and(|file| file.starts_with(b"."))
}

fn as_path(name: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(name))
}

/// The integer in a `.cls` member; 64 bytes are enough for any.
fn class_number(entry: &mut impl Read) -> Option<u64> {
    let mut text = String::new();
    entry.take(64).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Turns `.cls` numbers or folder names into class indices.
fn assign_classes(
    members: Vec<Member>,
    shards: &[Shard],
    names: &[String],
) -> Result<(Vec<Record>, Vec<String>)> {
    let refuse = |member: &Member, problem| Error::TarMember {
        path: shards[member.shard as usize].path.clone(),
        member: escape(&member.name),
        problem,
    };
    let numbered = members.iter().any(|member| member.number.is_some());
    let mut labels = Vec::with_capacity(members.len());
    let classes: Vec<String> = if numbered {
        for (i, member) in members.iter().enumerate() {
            let label = member.number.ok_or_else(|| refuse(member, TarProblem::NoClassMember))?;
            // Without names the largest number decides how many there are; a wild one must not
            // make a billion of them.
            let most = if names.is_empty() { 1 << 20 } else { names.len() };
            if label >= most as u64 {
                let path = shards[member.shard as usize].path.clone();
                return Err(Error::Label { path, record: i, label, classes: most });
            }
            labels.push(label as u32);
        }
        let largest = labels.iter().max().copied().unwrap_or(0);
        if names.is_empty() { (0..=largest).map(|c| c.to_string()).collect() } else { names.to_vec() }
    } else {
        let mut folders = BTreeMap::new();
        for member in &members {
            folders.insert(folder(&member.name).ok_or_else(|| refuse(member, TarProblem::NoClass))?, 0);
        }
        for (i, label) in folders.values_mut().enumerate() {
            *label = i as u32;
        }
        labels.extend(members.iter().filter_map(|m| folders.get(folder(&m.name)?)));
        folders.keys().map(|name| escape(name)).collect()
    };
    let records = members.into_iter().zip(labels).map(|(member, class)| Record {
        shard: member.shard,
        offset: member.offset,
        size: member.size,
        class,
        name: member.name,
    });
    Ok((records.collect(), classes))
}

/// Name of the folder that a member lies in.
fn folder(name: &[u8]) -> Option<&[u8]> {
    let folders = &name[..name.iter().rposition(|&b| b == b'/')?];
    let last = folders.rsplit(|&b| b == b'/').next()?;
    (!last.is_empty() && last != b"." && last != b"..").then_some(last)
}
