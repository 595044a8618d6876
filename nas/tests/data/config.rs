//! The `[data]` section of a recipe.

use std::fs;
use std::path::Path;

use nas::data::config::{Cache, Crop, DataConfig, Erase, Jitter, Normalise, OnBad, Source, Subset};
use nas::data::{Error, Image};
use tempfile::TempDir;

use super::idx_file;

const MINIMAL: &str = r#"
    train = { format = "folder", path = "train" }
    test = { format = "folder", path = "test" }
    normalise = { kind = "bgr-255" }
    [augment]
    crop = { kind = "random-resized", size = 224 }
    [eval]
    crop = { kind = "centre", resize = 256, size = 224 }
"#;

const FULL: &str = r#"
    train = { format = "idx", images = "ti.gz", labels = "tl.gz", classes = ["a", "b"] }
    test = { format = "tar", path = "test.tar", classes = ["a", "b"] }
    val-per-class = 80
    subset = { per-class = 500 }
    test-subset = { first = 1000 }
    cache = "memory"
    memory-limit-mib = 100
    on-bad = "substitute"
    max-bad = 0.01
    workers = 4
    prefetch = 2
    normalise = { kind = "mean-std", mean = [0.5], std = [0.25] }
    [augment]
    crop = { kind = "pad-and-crop", size = 28, padding = 2 }
    flip = 0.5
    jitter = { brightness = 0.4, contrast = 0.3, saturation = 0.2 }
    erase = { kind = "random", probability = 0.25 }
    [eval]
    crop = { kind = "centre", resize = 28, size = 28 }
"#;

#[test]
fn what_is_left_out_has_its_documented_default() {
    let config: DataConfig = toml::from_str(MINIMAL).unwrap();
    assert_eq!(config.train, Source::Folder { path: "train".into() });
    assert_eq!((config.val_per_class, config.val, config.subset), (0, None, None));
    assert_eq!((config.cache, config.on_bad, config.max_bad), (Cache::None, OnBad::Error, 0.001));
    assert_eq!((config.workers, config.prefetch, config.memory_limit_mib), (2, 3, 4096));
    let crop = Crop::RandomResized { size: 224, scale: [0.08, 1.0], ratio: [0.75, 4.0 / 3.0] };
    assert_eq!(config.augment.crop, crop);
    assert_eq!((config.augment.flip, config.augment.jitter, config.augment.erase), (0.0, None, None));
}

#[test]
fn every_key_is_read_and_written_back() {
    let config: DataConfig = toml::from_str(FULL).unwrap();
    assert_eq!(config.subset, Some(Subset::PerClass(500)));
    assert_eq!(config.test_subset, Some(Subset::First(1000)));
    assert_eq!(config.normalise, Normalise::MeanStd { mean: vec![0.5], std: vec![0.25] });
    assert_eq!(config.augment.jitter, Some(Jitter { brightness: 0.4, contrast: 0.3, saturation: 0.2 }));
    let erase = Erase::Random { probability: 0.25, scale: [0.02, 0.33], ratio: [0.3, 3.3] };
    assert_eq!(config.augment.erase, Some(erase));
    for text in [MINIMAL, FULL] {
        let config: DataConfig = toml::from_str(text).unwrap();
        let written = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<DataConfig>(&written).unwrap(), config, "{written}");
        config.check().unwrap();
    }
}

#[test]
fn unknown_keys_and_names_are_refused() {
    let cases = [
        ("on-bad = \"substitute\"", "on-bad = \"replace\"", "replace"),
        ("workers = 4", "worker = 4", "worker"),
        ("flip = 0.5", "flipp = 0.5", "flipp"),
        ("brightness = 0.4", "hue = 0.4", "hue"),
        ("padding = 2", "pad = 2", "pad"),
        ("kind = \"random\", prob", "kind = \"random\", seed = 1, prob", "seed"),
        ("format = \"tar\"", "format = \"zip\"", "zip"),
        ("format = \"tar\", path", "format = \"tar\", shards = 1, path", "shards"),
        ("mean = [0.5], std", "mean = [0.5], var = 1, std", "var"),
        ("subset = { per-class = 500 }", "subset = { per-klass = 500 }", "per-klass"),
        ("val-per-class = 80", "val-per-class = -1", "-1"),
    ];
    for (from, to, named) in cases {
        assert!(FULL.contains(from), "{from}");
        let error = toml::from_str::<DataConfig>(&FULL.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(named), "{to}: {error}");
    }
    let extra = MINIMAL.replace("kind = \"bgr-255\"", "kind = \"bgr-255\", mean = [0.5]");
    assert!(toml::from_str::<DataConfig>(&extra).is_err());
}

#[test]
fn values_out_of_range_are_named_before_a_file_is_touched() {
    let cases = [
        ("workers = 4", "workers = 0", "workers"),
        ("max-bad = 0.01", "max-bad = 2.0", "max-bad"),
        ("flip = 0.5", "flip = 1.01", "flip"),
        ("std = [0.25]", "std = [0.0]", "std"),
        ("resize = 28", "resize = 27", "resize"),
        (
            "val-per-class = 80",
            "val-per-class = 80\nval = { format = \"folder\", path = \"v\" }",
            "val-per-class",
        ),
    ];
    for (from, to, named) in cases {
        let config: DataConfig = toml::from_str(&FULL.replace(from, to)).unwrap();
        match config.open(Path::new("/nonexistent"), 0).map(|_| ()) {
            Err(Error::Config { key, .. }) => assert_eq!(key, named),
            other => panic!("{to}: {other:?}"),
        }
    }
}

/// 20 training and 4 test images of 2 classes, and the recipe for them.
fn small() -> (TempDir, DataConfig) {
    let folder = TempDir::new().unwrap();
    for (name, n) in [("t", 20u8), ("v", 4)] {
        let pixels: Vec<u8> = (0..n).flat_map(|i| [i; 4]).collect();
        let labels: Vec<u8> = (0..n).map(|i| i % 2).collect();
        let path = |kind: &str| folder.path().join(format!("{name}{kind}"));
        fs::write(path("i"), idx_file(0x803, &[n.into(), 2, 2], &pixels)).unwrap();
        fs::write(path("l"), idx_file(0x801, &[n.into()], &labels)).unwrap();
    }
    let text = r#"
        train = { format = "idx", images = "ti", labels = "tl" }
        test = { format = "idx", images = "vi", labels = "vl" }
        val-per-class = 2
        subset = { first = 16 }
        normalise = { kind = "mean-std", mean = [0.5], std = [0.25] }
        augment = { crop = { kind = "pad-and-crop", size = 2, padding = 1 } }
        eval = { crop = { kind = "centre", resize = 2, size = 2 } }
    "#;
    (folder, toml::from_str(text).unwrap())
}

#[test]
fn a_recipe_opens_into_three_disjoint_views() {
    let (folder, config) = small();
    let data = config.open(folder.path(), 0).unwrap();
    assert_eq!((data.train.len(), data.val.len(), data.test.len()), (12, 4, 4));
    assert!(data.val.indices.iter().all(|i| *i < 16 && !data.train.indices.contains(i)));
    let mut image = Image::default();
    data.test.dataset.read(3, &mut image).unwrap();
    assert_eq!(image.pixels, [3; 4]);
    assert_ne!(config.open(folder.path(), 1).unwrap().val.indices, data.val.indices);
}

#[test]
fn validation_may_have_a_source_of_its_own() {
    let (folder, mut config) = small();
    config.val_per_class = 0;
    config.val = Some(config.test.clone());
    let data = config.open(folder.path(), 0).unwrap();
    assert_eq!((data.train.len(), data.val.len()), (16, 4));
}

#[test]
fn sources_must_have_the_same_classes() {
    let (folder, mut config) = small();
    if let Source::Idx { classes, .. } = &mut config.test {
        *classes = vec!["cat".into(), "dog".into(), "cow".into()];
    }
    match config.open(folder.path(), 0).map(|_| ()) {
        Err(Error::Classes { first_classes: 2, second_classes: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_absolute_recipe_opens_from_anywhere() {
    let (folder, mut config) = small();
    config.make_absolute(folder.path()).unwrap();
    let data = config.open(Path::new("/nonexistent"), 0).unwrap();
    assert_eq!(data.train.len(), 12);
    for (format, more) in [("folder", ""), ("tar", ""), ("cifar", "part = \"test\""), ("packed", "")] {
        let text = format!("format = \"{format}\"\npath = \"p\"\n{more}");
        config.test = toml::from_str(&text).unwrap();
        config.make_absolute(Path::new("/base")).unwrap();
        assert!(toml::to_string(&config.test).unwrap().contains("\"/base/p\""));
    }
}
