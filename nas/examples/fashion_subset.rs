//! Makes `recipes/data/fashion-mnist` from the full Fashion-MNIST files: the first 4,000 training
//! and 1,000 test images with their labels, gzipped anew.
//!
//! ```text
//! cargo run --release -p nas --example fashion_subset -- FULL recipes/data/fashion-mnist
//! ```
//! FULL is a folder with the four original files, for example `/usr/share/datasets/fashion-mnist`
//! after `apt-get install dataset-fashion-mnist`.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};

/// (file, size of its header, size of a record, records to keep)
const FILES: [(&str, usize, usize, u32); 4] = [
    ("train-images-idx3-ubyte.gz", 16, 28 * 28, 4000),
    ("train-labels-idx1-ubyte.gz", 8, 1, 4000),
    ("t10k-images-idx3-ubyte.gz", 16, 28 * 28, 1000),
    ("t10k-labels-idx1-ubyte.gz", 8, 1, 1000),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [full, out] = arguments.as_slice() else { return Err("usage: fashion_subset FULL OUT".into()) };
    for (name, header, record, keep) in FILES {
        let mut bytes = Vec::new();
        GzDecoder::new(File::open(Path::new(full).join(name))?).read_to_end(&mut bytes)?;
        let end = header + record * keep as usize;
        let subset = bytes.get_mut(..end).ok_or("the file is too short")?;
        subset[4..8].copy_from_slice(&keep.to_be_bytes());
        // Neither name nor time in the header, so that the same input gives the same file.
        let path = Path::new(out).join(name);
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        gzip.write_all(subset)?;
        fs::write(path, gzip.finish()?)?;
    }
    Ok(())
}
