//! IDX, the format of MNIST and Fashion-MNIST: big-endian `0, 0, type, number of dimensions`, the
//! dimensions, then the data. Read whole, plain or gzipped (told by content).
//!
//! Images are unsigned bytes `[n, h, w]` or `[n, h, w, c]` with c 1 or 3; labels unsigned bytes
//! `[n]`. A file whose length is not exactly what its header says is refused, and no memory is
//! taken on the word of a header alone.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{Dataset, Description, Error, Image, Result, check_count, index_id, io_error};

/// Deflate expands at most this much.
const MAX_EXPANSION: u64 = 1032;

/// Images and labels of two IDX files, in memory.
pub struct Idx {
    paths: [PathBuf; 2],
    shape: [usize; 3],
    pixels: Vec<u8>,
    labels: Vec<u8>,
    classes: Vec<String>,
    digest: blake3::Hash,
}

impl Idx {
    /// Reads both files. Without `classes` they are named "0", "1", … up to the largest label.
    ///
    /// # Errors
    /// Not an IDX file, cut short, too long, numbers of images and labels that differ, a label
    /// without a class.
    pub fn open(images: &Path, labels: &Path, classes: &[String]) -> Result<Self> {
        let (dimensions, pixels) = read_idx(images, &[0x803, 0x804], "images (0x803 or 0x804)")?;
        let (_, label_bytes) = read_idx(labels, &[0x801], "labels (0x801)")?;
        let count = dimensions[0];
        if count != label_bytes.len() {
            return Err(Error::Counts {
                images_path: images.to_owned(),
                images: count,
                labels_path: labels.to_owned(),
                labels: label_bytes.len(),
            });
        }
        check_count(images, count)?;
        let channels = dimensions.get(3).copied().unwrap_or(1);
        let shape = [dimensions[1], dimensions[2], channels];
        let size = shape.iter().product::<usize>();
        let drawable = size > 0 && (channels == 1 || channels == 3);
        if !drawable || shape[0] * shape[1] > super::decode::MAX_PIXELS {
            return Err(Error::Shape { path: images.to_owned(), shape });
        }
        let largest = usize::from(label_bytes.iter().copied().max().unwrap_or(0));
        let classes: Vec<String> = if classes.is_empty() {
            (0..=largest).map(|c| c.to_string()).collect()
        } else {
            classes.to_vec()
        };
        if let Some(record) = label_bytes.iter().position(|&l| usize::from(l) >= classes.len()) {
            return Err(Error::Label {
                path: labels.to_owned(),
                record,
                label: label_bytes[record].into(),
                classes: classes.len(),
            });
        }
        let mut hash = blake3::Hasher::new();
        for dimension in &dimensions {
            hash.update(&(*dimension as u64).to_le_bytes());
        }
        let digest = hash.update(&pixels).update(&label_bytes).finalize();
        let paths = [images.to_owned(), labels.to_owned()];
        Ok(Self { paths, shape, pixels, labels: label_bytes, classes, digest })
    }
}

impl Dataset for Idx {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> u32 {
        self.labels[i].into()
    }

    fn name(&self, i: usize) -> String {
        format!("{}#{i}", self.paths[0].display())
    }

    fn id(&self, i: usize) -> u64 {
        index_id(i)
    }

    fn read(&self, i: usize, image: &mut Image) -> Result<()> {
        let [h, w, c] = self.shape;
        image.reshape(h, w, c);
        image.pixels.copy_from_slice(&self.pixels[i * h * w * c..(i + 1) * h * w * c]);
        Ok(())
    }

    fn describe(&self) -> Description {
        Description {
            format: "idx",
            paths: self.paths.to_vec(),
            records: self.len(),
            classes: self.classes.len(),
            digest: self.digest.to_hex().to_string(),
        }
    }

    fn is_decoded(&self) -> bool {
        true
    }
}

/// Dimensions and content of one file whose magic number is one of `magics`.
fn read_idx(path: &Path, magics: &[u32], expected: &'static str) -> Result<(Vec<usize>, Vec<u8>)> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let size = file.metadata().map_err(io_error("examine", path))?.len();
    let mut file = BufReader::new(file);
    let gzipped =
        std::io::BufRead::fill_buf(&mut file).map_err(io_error("read", path))?.starts_with(&[0x1F, 0x8B]);
    if gzipped {
        parse(path, MultiGzDecoder::new(file), size.saturating_mul(MAX_EXPANSION), magics, expected)
    } else {
        parse(path, file, size, magics, expected)
    }
}

/// `most` is the largest size that the content of such a file can have.
fn parse(
    path: &Path,
    mut reader: impl Read,
    most: u64,
    magics: &[u32],
    expected: &'static str,
) -> Result<(Vec<usize>, Vec<u8>)> {
    let magic = word(path, &mut reader, 0)?;
    if !magics.contains(&magic) {
        return Err(Error::IdxMagic { path: path.to_owned(), found: magic, expected });
    }
    let dimensions = (0..u64::from(magic & 0xFF))
        .map(|i| Ok(word(path, &mut reader, 4 + 4 * i)? as usize))
        .collect::<Result<Vec<usize>>>()?;
    let length = dimensions.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64)).unwrap_or(u64::MAX);
    if length > most {
        return Err(Error::ClaimedSize { path: path.to_owned(), claimed: length, limit: most });
    }
    // Grows with what is really there; one byte more tells a file that goes on.
    let mut content = Vec::new();
    reader.take(length + 1).read_to_end(&mut content).map_err(io_error("read", path))?;
    let found = content.len() as u64;
    match found.cmp(&length) {
        std::cmp::Ordering::Less => Err(Error::Truncated { path: path.to_owned(), expected: length, found }),
        std::cmp::Ordering::Greater => Err(Error::Overlong { path: path.to_owned(), expected: length }),
        std::cmp::Ordering::Equal => Ok((dimensions, content)),
    }
}

/// The next big-endian word; `at` is its offset, for the message.
fn word(path: &Path, reader: &mut impl Read, at: u64) -> Result<u32> {
    let mut bytes = [0; 4];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(u32::from_be_bytes(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(Error::Truncated { path: path.to_owned(), expected: at + 4, found: at })
        }
        Err(e) => Err(io_error("read", path)(e)),
    }
}
