//! Coverage-guided fuzzing of every reader: `tests/fuzz/run TARGET SECONDS`.
//!
//! One program for all targets; `MONOPATH_FUZZ` chooses. A reader may refuse what it is given; it may not
//! panic, overflow, touch memory that is not its own, or ask for more than libFuzzer's limits, which `run`
//! sets. With `MONOPATH_SEEDS` the program writes the target's seeds there and ends.

#![no_main]

mod seeds;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use nas::Space;
use nas::checkpoint::Archive;
use nas::data::cifar::Cifar;
use nas::data::config::CifarPart;
use nas::data::idx::Idx;
use nas::data::packed::Packed;
use nas::data::tar::Tar;
use nas::data::{Dataset, Image, decode::decode};
use nas::latency::{LatencyTable, Negative};
use nas::recipe::Recipe;

/// A reader.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    read: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
}

/// Every reader of files that come from elsewhere.
const TARGETS: [Target; 14] = [
    Target { name: "recipe", read: recipe, seeds: seeds::recipes },
    Target { name: "space", read: space, seeds: seeds::spaces },
    Target { name: "arch", read: arch, seeds: seeds::archs },
    Target { name: "arch-file", read: arch_file, seeds: seeds::arch_files },
    Target { name: "events", read: events, seeds: seeds::events },
    Target { name: "latency", read: latency, seeds: seeds::latency },
    Target { name: "tf-nas", read: tf_nas, seeds: seeds::tf_nas },
    Target { name: "checkpoint", read: checkpoint, seeds: seeds::checkpoints },
    Target { name: "picture", read: picture, seeds: seeds::pictures },
    Target { name: "idx", read: idx, seeds: seeds::idx },
    Target { name: "cifar", read: cifar, seeds: seeds::cifar },
    Target { name: "tar", read: tar, seeds: seeds::tar },
    Target { name: "tar-gz", read: tar_gz, seeds: seeds::tar_gz },
    Target { name: "packed", read: packed, seeds: seeds::packed },
];

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(
    init: {
        let wanted = std::env::var("MONOPATH_FUZZ").unwrap_or_default();
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        let Some(target) = TARGETS.iter().find(|t| t.name == wanted) else {
            eprintln!("MONOPATH_FUZZ must be one of: {}", names.join(", "));
            std::process::exit(2);
        };
        if let Some(folder) = std::env::var_os("MONOPATH_SEEDS").map(PathBuf::from) {
            std::fs::create_dir_all(&folder).expect("the folder of seeds can be made");
            for (i, seed) in (target.seeds)().into_iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{i}")), seed).expect("a seed can be written");
            }
            std::process::exit(0);
        }
        TARGET.get_or_init(|| target);
    },
    |data: &[u8]| {
        (TARGET.get().expect("chosen at the start").read)(data);
    }
);

thread_local! {
    /// A folder in memory, where there is one, for readers that take paths.
    static FOLDER: tempfile::TempDir = {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        made.expect("a temporary folder can be made")
    };
    static IMAGE: RefCell<Image> = RefCell::default();
}

/// Writes `data` anew (a mapped file must not change) and hands its path on.
fn with_file(name: &str, data: &[u8], read: impl FnOnce(&Path)) {
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        let _absent = std::fs::remove_file(&path);
        std::fs::write(&path, data).expect("the temporary folder takes a file");
        read(&path);
    });
}

/// Reads the first records of a set that opened, and the last.
fn look(set: &dyn Dataset) {
    IMAGE.with_borrow_mut(|image| {
        for i in (0..set.len().min(3)).chain(set.len().checked_sub(1)) {
            assert!((set.label(i) as usize) < set.classes().len());
            let (_name, _id) = (set.name(i), set.id(i));
            if set.read(i, image).is_ok() {
                assert_eq!(image.pixels.len(), image.height * image.width * image.channels);
            }
        }
    });
}

fn text(data: &[u8], read: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
}

fn recipe(data: &[u8]) {
    text(data, |text| {
        if let Ok(recipe) = Recipe::parse(text, Path::new("fuzzed"), &[]) {
            // What is accepted can be written and read again.
            let again = recipe.to_toml().expect("a recipe that was read can be written");
            assert_eq!(Recipe::parse(&again, Path::new("again"), &[]).expect("its own TOML"), recipe);
        }
    });
}

fn space(data: &[u8]) {
    text(data, |text| {
        if let Ok(space) = Space::parse_toml(text, Path::new("fuzzed")) {
            let first = space.first();
            assert!(space.check(&first).is_ok());
            let (_cost, _size, _largest) = (space.cost(&first), space.size(), space.largest());
            let again = space.to_toml().expect("a space that was read can be written");
            assert_eq!(
                Space::parse_toml(&again, Path::new("again")).expect("its own TOML").size(),
                space.size()
            );
        }
    });
}

fn known_space() -> &'static Space {
    static SPACE: OnceLock<Space> = OnceLock::new();
    SPACE.get_or_init(|| Space::load("mobilenet-se").expect("it is built in"))
}

fn arch(data: &[u8]) {
    text(data, |text| {
        if let Ok(arch) = known_space().parse(text) {
            assert_eq!(known_space().parse(&known_space().text(&arch)).expect("its own text"), arch);
        }
    });
}

fn arch_file(data: &[u8]) {
    let _file: Result<nas::space::ArchFile, _> = serde_json::from_slice(data);
    let _found: Result<nas::run::Found, _> = serde_json::from_slice(data);
    let _outcome: Result<nas::outcome::Outcome, _> = serde_json::from_slice(data);
}

fn events(data: &[u8]) {
    with_file("events.jsonl", data, |path| {
        let _events = nas::journal::read_events(path);
    });
}

fn latency(data: &[u8]) {
    if let Ok(table) = LatencyTable::parse(data, Path::new("fuzzed")) {
        let _used = table.of(seeds::quickstart(), Path::new("fuzzed"));
    }
}

fn tf_nas(data: &[u8]) {
    with_file("tf-nas.json", data, |path| {
        for negative in [Negative::Error, Negative::Drop] {
            let _table = LatencyTable::import_tf_nas(path, seeds::quickstart(), negative);
        }
    });
}

fn checkpoint(data: &[u8]) {
    if let Ok(archive) = Archive::from_bytes(data, Path::new("fuzzed")) {
        for (shape, values) in archive.floats.values() {
            assert_eq!(shape.iter().product::<usize>(), values.len());
        }
        let _meta: nas::Result<serde_json::Value> = archive.meta(Path::new("fuzzed"));
    }
}

fn picture(data: &[u8]) {
    IMAGE.with_borrow_mut(|image| {
        if decode(data, image).is_ok() {
            assert_eq!(image.pixels.len(), image.height * image.width * image.channels);
        }
    });
}

/// The first byte says where images end and labels begin.
fn idx(data: &[u8]) {
    let Some((&cut, rest)) = data.split_first() else { return };
    let (images, labels) = rest.split_at(rest.len() * usize::from(cut) / 255);
    with_file("images", images, |images| {
        with_file("labels", labels, |labels| {
            if let Ok(set) = Idx::open(images, labels, &[]) {
                look(&set);
            }
        });
    });
}

fn cifar(data: &[u8]) {
    FOLDER.with(|folder| {
        for name in ["test_batch.bin", "batches.meta.txt", "test.bin", "fine_label_names.txt"] {
            let part = if name.ends_with("txt") { &data[data.len() / 2..] } else { data };
            std::fs::write(folder.path().join(name), part).expect("the temporary folder takes a file");
        }
        if let Ok(set) = Cifar::open(folder.path(), CifarPart::Test) {
            look(&set);
        }
    });
}

fn tar(data: &[u8]) {
    with_file("shard.tar", data, |path| {
        if let Ok(set) = Tar::open(path, &[], 64) {
            look(&set);
        }
    });
}

fn tar_gz(data: &[u8]) {
    with_file("shard.tar.gz", data, |path| {
        if let Ok(set) = Tar::open(path, &[], 64) {
            look(&set);
        }
    });
}

fn packed(data: &[u8]) {
    with_file("set.pack", data, |path| {
        if let Ok(set) = Packed::open(path) {
            look(&set);
            let _damaged = set.verify(&|_| {});
        }
    });
}
