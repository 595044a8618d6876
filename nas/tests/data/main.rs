//! The data layer from outside.
//!
//! - `formats`: what each format reads and refuses
//! - `config`: the `[data]` section of a recipe
//! - `split`: held-out images and subsets
//! - `corrupt`: broken pictures and the policies for them
//! - `loader`: batches do not depend on workers, prefetch or the moment of resuming
//! - `packed`: what comes out is what went in, or an error
//! - `real`: CIFAR-10 and clothing photographs, where `MONOPATH_DATA` names them

mod config;
mod corrupt;
mod formats;
mod loader;
mod packed;
mod real;
mod split;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use nas::data::config::{Crop, Normalise, Transform};
use nas::data::{Dataset, Description, Error, Image, Pipeline, Result};

/// Small pictures that Pillow wrote; see `images/make.py`.
fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name);
    std::fs::read(path).unwrap()
}

/// The folder that `MONOPATH_DATA` names, or `None` after saying that the test is skipped.
fn data_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("MONOPATH_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: MONOPATH_DATA is not set");
    }
    folder
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn png_file(h: u32, w: u32, color: png::ColorType, depth: png::BitDepth, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, w, h);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

/// A gray PNG of one value.
fn flat_png(h: u32, w: u32, value: u8) -> Vec<u8> {
    let data = vec![value; (h * w) as usize];
    png_file(h, w, png::ColorType::Grayscale, png::BitDepth::Eight, &data)
}

/// An uncompressed tar file.
fn tar_file(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An IDX file: magic number, dimensions, content.
fn idx_file(magic: u32, dimensions: &[u32], content: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_be_bytes().to_vec();
    dimensions.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes.extend(content);
    bytes
}

/// A pipeline without randomness: gray, 0..255, `size` x `size`.
fn plain(size: usize) -> Pipeline {
    let crop = Crop::Centre { resize: size, size };
    let transform = Transform { crop, flip: 0.0, jitter: None, erase: None };
    Pipeline::new(&transform, &Normalise::MeanStd { mean: vec![0.0], std: vec![1.0 / 255.0] }).unwrap()
}

/// Gray 4 x 4 images in memory; record i has class i % classes, pixels i, and may be bad.
struct Fake {
    classes: Vec<String>,
    len: usize,
    bad: Vec<usize>,
    /// Record whose decoding panics.
    panics: Option<usize>,
}

impl Fake {
    fn new(len: usize, classes: usize) -> Self {
        let classes = (0..classes).map(|c| format!("class{c}")).collect();
        Self { classes, len, bad: Vec::new(), panics: None }
    }

    fn with_bad(self, bad: &[usize]) -> Self {
        Self { bad: bad.to_vec(), ..self }
    }

    fn share(self) -> Arc<dyn Dataset> {
        Arc::new(self)
    }
}

impl Dataset for Fake {
    fn len(&self) -> usize {
        self.len
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> u32 {
        assert!(i < self.len);
        (i % self.classes.len()) as u32
    }

    fn name(&self, i: usize) -> String {
        format!("fake{i}")
    }

    fn id(&self, i: usize) -> u64 {
        // Not in order of index, as hashes are not.
        (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn read(&self, i: usize, image: &mut Image) -> Result<()> {
        assert_ne!(self.panics, Some(i), "a decoder gives up");
        if self.bad.contains(&i) {
            let source = nas::data::DecodeError::Empty;
            return Err(Error::Decode { record: self.name(i), source });
        }
        (image.height, image.width, image.channels) = (4, 4, 1);
        image.pixels.clear();
        image.pixels.resize(16, i as u8);
        image.repaired = false;
        Ok(())
    }

    fn describe(&self) -> Description {
        Description {
            format: "fake",
            paths: vec!["fake".into()],
            records: self.len,
            classes: self.classes.len(),
            digest: String::new(),
        }
    }
}
