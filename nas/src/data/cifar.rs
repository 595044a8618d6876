//! The binary version of CIFAR-10 and CIFAR-100 (Krizhevsky 2009), as it unpacks.
//!
//! A record is one label (CIFAR-100: coarse, then fine) and 3 x 32 x 32 bytes, red, green and blue
//! plane one after another. CIFAR-100 is read with its fine labels. All of it is held in memory.

use std::fs;
use std::path::{Path, PathBuf};

use super::config::CifarPart;
use super::{Dataset, Description, Error, Image, Result, check_count, index_id, io_error};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// CIFAR-10 or CIFAR-100 in memory.
pub struct Cifar {
    paths: Vec<PathBuf>,
    classes: Vec<String>,
    /// Bytes before the pixels of a record; the last of them is the label.
    labels: usize,
    bytes: Vec<u8>,
    digest: blake3::Hash,
}

/// How one of the two is laid out.
struct Layout {
    train: &'static [&'static str],
    test: &'static [&'static str],
    /// File with the names of the classes, one a line.
    names: &'static str,
    num_classes: usize,
    labels: usize,
}

const CIFAR10: Layout = Layout {
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: &["test_batch.bin"],
    names: "batches.meta.txt",
    num_classes: 10,
    labels: 1,
};

const CIFAR100: Layout = Layout {
    train: &["train.bin"],
    test: &["test.bin"],
    names: "fine_label_names.txt",
    num_classes: 100,
    labels: 2,
};

impl Cifar {
    /// Reads `part` of the folder: CIFAR-10 if it has a `test_batch.bin`, else CIFAR-100. Without
    /// the file of names the classes are called "0", "1", …
    ///
    /// # Errors
    /// A missing file, one that ends within a record, a label without a class.
    pub fn open(folder: &Path, part: CifarPart) -> Result<Self> {
        let layout = if folder.join(CIFAR10.test[0]).exists() { CIFAR10 } else { CIFAR100 };
        let files = match part {
            CifarPart::Train => layout.train,
            CifarPart::Test => layout.test,
        };
        let size = layout.labels + 3 * PLANE;
        let (mut paths, mut bytes) = (Vec::new(), Vec::new());
        for file in files {
            let path = folder.join(file);
            let content = fs::read(&path).map_err(io_error("read", &path))?;
            if content.len() % size != 0 {
                let expected = content.len().next_multiple_of(size) as u64;
                return Err(Error::Truncated { path, expected, found: content.len() as u64 });
            }
            for (record, content) in content.chunks_exact(size).enumerate() {
                let label = content[layout.labels - 1];
                if usize::from(label) >= layout.num_classes {
                    return Err(Error::Label {
                        path,
                        record,
                        label: label.into(),
                        classes: layout.num_classes,
                    });
                }
            }
            bytes.extend_from_slice(&content);
            paths.push(path);
        }
        check_count(folder, bytes.len() / size)?;
        let classes = class_names(&folder.join(layout.names), layout.num_classes)?;
        let digest = blake3::hash(&bytes);
        Ok(Self { paths, classes, labels: layout.labels, bytes, digest })
    }

    fn record(&self, i: usize) -> (u8, &[u8]) {
        let size = self.labels + 3 * PLANE;
        let (labels, pixels) = self.bytes[i * size..(i + 1) * size].split_at(self.labels);
        (labels[self.labels - 1], pixels)
    }
}

/// The lines of the file of names, if there is one with a name for each class.
fn class_names(path: &Path, num_classes: usize) -> Result<Vec<String>> {
    if path.exists() {
        let text = fs::read(path).map_err(io_error("read", path))?;
        let text = String::from_utf8_lossy(&text);
        let names: Vec<String> =
            text.lines().map(str::trim).filter(|l| !l.is_empty()).map(Into::into).collect();
        if names.len() == num_classes {
            return Ok(names);
        }
    }
    Ok((0..num_classes).map(|c| c.to_string()).collect())
}

impl Dataset for Cifar {
    fn len(&self) -> usize {
        self.bytes.len() / (self.labels + 3 * PLANE)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> u32 {
        self.record(i).0.into()
    }

    fn name(&self, i: usize) -> String {
        format!("{}#{i}", self.paths[0].display())
    }

    fn id(&self, i: usize) -> u64 {
        index_id(i)
    }

    fn read(&self, i: usize, image: &mut Image) -> Result<()> {
        let (_, planes) = self.record(i);
        image.reshape(SIDE, SIDE, 3);
        for (at, pixel) in image.pixels.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&[planes[at], planes[PLANE + at], planes[2 * PLANE + at]]);
        }
        Ok(())
    }

    fn describe(&self) -> Description {
        Description {
            format: "cifar",
            paths: self.paths.clone(),
            records: self.len(),
            classes: self.classes.len(),
            digest: self.digest.to_hex().to_string(),
        }
    }

    fn is_decoded(&self) -> bool {
        true
    }
}
