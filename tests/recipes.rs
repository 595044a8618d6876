//! The recipes for ImageNet and of ProxylessNAS on Fashion-MNIST, each to a tested network in a few steps on few
//! images.

use std::path::Path;

use engine::Rng;
use soak::Bench;

/// Folders of PNG images: two classes, which differ in colour.
fn images(folder: &Path, per_class: usize) {
    for (class, name) in ["n01", "n02"].iter().enumerate() {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..per_class {
            let mut draws = Rng::new(class as u64, "pixels").at(0, 0, i as u32);
            let pixels: Vec<u8> = (0..36 * 36 * 3)
                .map(|p| (draws.below(120) + if p % 3 == class { 120 } else { 0 }) as u8)
                .collect();
            let file = std::fs::File::create(folder.join(format!("{i}.png"))).unwrap();
            let mut encoder = png::Encoder::new(file, 36, 36);
            encoder.set_color(png::ColorType::Rgb);
            encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        }
    }
}

/// What makes a recipe for 1.2 million images one for twelve.
const SMALL: [&str; 22] = [
    "data.train.path=train",
    "data.test.path=test",
    "data.val-per-class=2",
    "data.workers=1",
    "data.augment.crop.size=32",
    "data.eval.crop.size=32",
    "data.eval.crop.resize=32",
    "supernet.train.epochs=1",
    "supernet.train.batch=4",
    "supernet.train.bn-batch=4",
    "supernet.train.lr=0.001",
    "search.calibration-images=4",
    "search.calibration-batch=2",
    "search.eval-batch=2",
    "search.algorithm={ kind = \"evolution\", population = 2, rounds = 1, parents = 1, crossover = 1, mutation = 1 }",
    "retrain.random-networks=1",
    "retrain.largest=false",
    "retrain.train.epochs=1",
    "retrain.train.batch=4",
    "retrain.train.bn-batch=4",
    "retrain.train.lr=0.001",
    "log.steps=1",
];

const SHRINK: [&str; 7] = [
    "shrink.train.epochs=1",
    "shrink.train.batch=4",
    "shrink.train.bn-batch=4",
    "shrink.train.lr=0.001",
    "shrink.first-epochs=1",
    "shrink.later-epochs=1",
    "shrink.children=5",
];

/// A bench with a recipe and images for it.
fn bench(name: &str) -> Bench {
    let bench = Bench::new();
    images(&bench.path("train"), 6);
    images(&bench.path("test"), 2);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/imagenet").join(name);
    // Paths in a recipe start at its folder.
    std::fs::copy(recipe, bench.path(name)).unwrap();
    bench
}

/// The call that runs a recipe as it is but for sizes and times.
fn args<'a>(name: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run", name, "--out", "run", "--json"];
    SMALL.iter().chain(sets).for_each(|set| args.extend(["--set", set]));
    args
}

/// Runs it.
fn goes(name: &str, sets: &[&str]) -> serde_json::Value {
    let bench = bench(name);
    let outcome = serde_json::from_str(&bench.ok(&args(name, sets))).unwrap();
    if !sets.is_empty() {
        let space = nas::Space::load(bench.path("run").join("shrunk.toml").to_str().unwrap()).unwrap();
        assert!(space.size().unwrap() <= 1_000_000, "{}", space.table());
        if sets.contains(&"supernet.gates.every=1") {
            let text = std::fs::read_to_string(bench.path("run").join("gates.json")).unwrap();
            let gates: serde_json::Value = serde_json::from_str(&text).unwrap();
            for slot in space.slots() {
                let of = gates[&slot.name].as_object().unwrap();
                let sum: f64 = of.values().map(|p| p.as_f64().unwrap()).sum();
                assert!(of.len() == slot.choices.len() && (sum - 1.0).abs() < 1e-9, "{of:?}");
            }
        }
    }
    outcome
}

#[test]
fn spos_goes() {
    // 32 instead of 224 pixels a side: a 49th of the multiply-adds.
    let outcome = goes("spos.toml", &[]);
    assert!(outcome["found"]["macs"].as_u64().unwrap() > 0);
}

#[test]
fn spos_after_shrinking_goes() {
    let outcome = goes("spos-abs.toml", &SHRINK);
    assert!(outcome["found"]["macs"].as_u64().unwrap() > 0);
}

#[test]
fn fairnas_goes_and_norms_of_two_values_are_refused() {
    // Strides make planes of one pixel: two images are two values a channel, through which gradients have no bound.
    let error = bench("fairnas.toml").fails(&args("fairnas.toml", &["supernet.train.bn-batch=2"]), 2);
    assert!(error.contains("supernet.train.bn-batch = 2") && error.contains("4 or more"), "{error}");
    let outcome = goes("fairnas.toml", &[]);
    assert!(outcome["found"]["macs"].as_u64().unwrap() > 0);
}

#[test]
fn fairnas_after_shrinking_goes() {
    let outcome = goes("fairnas-abs.toml", &SHRINK);
    assert!(outcome["found"]["macs"].as_u64().unwrap() > 0);
}

#[test]
fn proxyless_after_shrinking_goes() {
    let search = "search.algorithm={ kind = \"most-likely\" }";
    let gates = [
        "supernet.gates.warmup-epochs=1",
        "supernet.gates.warmup-lr=0.001",
        "supernet.gates.idle-epochs=0",
        "supernet.gates.every=1",
        "supernet.gates.batch=4",
        search,
    ];
    let sets: Vec<&str> = SHRINK.into_iter().chain(gates).collect();
    let outcome = goes("proxyless-abs.toml", &sets);
    assert!(outcome["found"]["macs"].as_u64().unwrap() > 0);
}

#[test]
fn proxyless_on_fashion_mnist_goes_on_the_images_of_the_repository() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let recipe = recipes.join("fashion-mnist-proxyless.toml");
    let file = |part: &str, file: &str, kind: &str| {
        let path = recipes.join("data/fashion-mnist").join(format!("{file}-{kind}-ubyte.gz"));
        format!("data.{part}.{}={}", if kind.starts_with('i') { "images" } else { "labels" }, path.display())
    };
    let mut sets: Vec<String> = [("train", "train"), ("test", "t10k")]
        .iter()
        .flat_map(|(part, name)| [file(part, name, "images-idx3"), file(part, name, "labels-idx1")])
        .collect();
    let small = [
        "data.subset={ per-class = 30 }",
        "data.val-per-class=10",
        "supernet.gates.warmup-epochs=1",
        "supernet.gates.idle-epochs=0",
        "supernet.gates.batch=50",
        "supernet.train.epochs=1",
        "supernet.train.batch=50",
        "search.calibration-images=50",
        "search.calibration-batch=50",
        "retrain.random-networks=1",
        "retrain.largest=false",
        "retrain.train.epochs=1",
        "retrain.train.batch=50",
        "log.steps=1",
    ];
    sets.extend(small.map(str::to_owned));
    let bench = Bench::new();
    let mut args = vec!["run", recipe.to_str().unwrap(), "--out", "run", "--json"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    let outcome: serde_json::Value = serde_json::from_str(&bench.ok(&args)).unwrap();
    assert!(outcome["found"]["macs"].as_u64().unwrap() > 0);
    let events = std::fs::read_to_string(bench.path("run").join("events.jsonl")).unwrap();
    let gates = events.lines().filter(|line| line.contains("\"gates\"")).count();
    assert_eq!(gates, 2, "after every second of four steps");
}
