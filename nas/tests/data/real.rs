//! CIFAR-10 and clothing photographs, where `MONOPATH_DATA` names them; and the quickstart's images.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;
use nas::data::config::{Crop, DataConfig, Jitter, Normalise, Source, Transform};
use nas::data::folder::Folder;
use nas::data::inspect::inspect;
use nas::data::tar::Tar;
use nas::data::{Dataset, Image, Loader, Pass, Pipeline, View};
use tempfile::TempDir;

use super::loader::{options, take};
use super::{data_folder, tar_file};

#[test]
fn the_quickstart_images_are_the_first_of_fashion_mnist() {
    let text = r#"
        train = { format = "idx", images = "train-images-idx3-ubyte.gz", labels = "train-labels-idx1-ubyte.gz" }
        test = { format = "idx", images = "t10k-images-idx3-ubyte.gz", labels = "t10k-labels-idx1-ubyte.gz" }
        val-per-class = 80
        normalise = { kind = "mean-std", mean = [0.2860], std = [0.3530] }
        augment = { crop = { kind = "pad-and-crop", size = 28, padding = 2 }, flip = 0.5 }
        eval = { crop = { kind = "centre", resize = 28, size = 28 } }
    "#;
    let config: DataConfig = toml::from_str(text).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/data/fashion-mnist");
    let data = config.open(&folder, 0).unwrap();
    assert_eq!((data.train.len(), data.val.len(), data.test.len()), (3200, 800, 1000));
    // The first labels of the original files: ankle boot, T-shirt, ...
    let labels = |view: &View| (0..10).map(|i| view.dataset.label(i)).collect::<Vec<_>>();
    assert_eq!(labels(&data.train), [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]);
    assert_eq!(labels(&data.test), [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]);
    // Mean and deviation of the whole training set are 0.2860 and 0.3530.
    let summary = inspect(&View::all(data.train.dataset.clone()), 2, &|_| {});
    assert_eq!(summary.sizes, [((28, 28, 1), 4000)].into());
    assert!((summary.mean[0] - 0.286).abs() < 0.004 && (summary.std[0] - 0.353).abs() < 0.003, "{summary:?}");
}

#[test]
fn cifar10_shards_hold_ten_balanced_classes() {
    let Some(data) = data_folder() else { return };
    let set = Tar::open(&data.join("cifar10/test.tar.gz"), &[], 512).unwrap();
    assert_eq!(set.len(), 10_000);
    assert_eq!(set.classes()[..3], ["airplane", "automobile", "bird"]);
    let summary = inspect(&View::all(Arc::new(set)), 2, &|_| {});
    assert!(summary.classes.iter().all(|(_, n)| *n == 1000));
    assert_eq!((summary.bad, summary.repaired), (0, 0), "{:?}", summary.named_bad);
    assert_eq!(summary.sizes, [((32, 32, 3), 10_000)].into());
    // Published: 0.4942, 0.4851, 0.4504 and 0.2467, 0.2429, 0.2616 for the test images.
    for (value, expected) in
        summary.mean.iter().chain(&summary.std).zip([0.4942, 0.4851, 0.4504, 0.2467, 0.2429, 0.2616])
    {
        assert!((value - expected).abs() < 2e-3, "{value} {expected}");
    }
}

/// The photographs of one part, by class.
fn photographs(data: &Path, part: &str) -> Folder {
    Folder::open(&data.join("clothing-small-128").join(part)).unwrap()
}

#[test]
fn photographs_are_read_and_batched_alike_by_any_number_of_workers() {
    let Some(data) = data_folder() else { return };
    let folder: Arc<dyn Dataset> = Arc::new(photographs(&data, "validation"));
    assert_eq!(folder.classes().len(), 10);
    let summary = inspect(&View::all(folder.clone()), 2, &|_| {});
    assert_eq!(summary.bad, 0, "{:?}", summary.named_bad);
    assert!(summary.sizes.keys().all(|&(h, w, c)| h.min(w) == 128 && c == 3));
    let transform = Transform {
        crop: Crop::RandomResized { size: 112, scale: [0.08, 1.0], ratio: [0.75, 1.333] },
        flip: 0.5,
        jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4 }),
        erase: None,
    };
    let batches = |workers| {
        let pipeline = Pipeline::new(&transform, &Normalise::Bgr255 {}).unwrap();
        let view = View::all(folder.clone());
        let mut loader = Loader::new(view, pipeline, Pass::Train, 0, options(64, workers)).unwrap();
        take(&mut loader, 7).unwrap()
    };
    let reference = batches(1);
    assert_eq!(batches(2), reference);
    assert_eq!(batches(4), reference);
    assert!(reference.iter().all(|b| b.images.iter().all(|v| (0.0..=255.0).contains(v) && v.fract() == 0.0)));
}

#[test]
fn a_shard_and_a_folder_of_the_same_photographs_agree() {
    let Some(data) = data_folder() else { return };
    let folder = photographs(&data, "test");
    let root = data.join("clothing-small-128/test");
    let names: Vec<String> = (0..folder.len()).map(|i| folder.name(i)).collect();
    let files: Vec<Vec<u8>> = names.iter().map(|name| fs::read(root.join(name)).unwrap()).collect();
    let members: Vec<(&str, &[u8])> =
        names.iter().zip(&files).map(|(n, f)| (n.as_str(), f.as_slice())).collect();
    let out = TempDir::new().unwrap();
    let path = out.path().join("test.tar");
    fs::write(&path, tar_file(&members)).unwrap();
    let shard = Source::Tar { path, classes: Vec::new() }.open(Path::new(""), 64).unwrap();
    assert_eq!(shard.classes(), folder.classes());
    let (mut a, mut b) = (Image::default(), Image::default());
    for i in 0..folder.len() {
        folder.read(i, &mut a).unwrap();
        shard.read(i, &mut b).unwrap();
        assert_eq!(a, b, "{}", folder.name(i));
        assert_eq!((folder.label(i), folder.id(i)), (shard.label(i), shard.id(i)));
    }
}

#[test]
fn a_zipped_and_a_plain_cifar10_shard_agree() {
    let Some(data) = data_folder() else { return };
    let zipped = data.join("cifar10/test.tar.gz");
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(&zipped).unwrap()).read_to_end(&mut bytes).unwrap();
    let out = TempDir::new().unwrap();
    let plain = out.path().join("test.tar");
    fs::write(&plain, bytes).unwrap();
    let (zipped, plain) = (Tar::open(&zipped, &[], 512).unwrap(), Tar::open(&plain, &[], 1).unwrap());
    let (mut a, mut b) = (Image::default(), Image::default());
    for i in (0..10_000).step_by(97) {
        zipped.read(i, &mut a).unwrap();
        plain.read(i, &mut b).unwrap();
        assert_eq!((&a, zipped.label(i), zipped.id(i)), (&b, plain.label(i), plain.id(i)));
    }
}
