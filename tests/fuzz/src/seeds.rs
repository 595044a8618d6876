//! Files to begin from: small ones that the readers accept.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use flate2::Compression;
use flate2::write::GzEncoder;
use nas::Space;
use nas::checkpoint::Archive;
use nas::data::View;
use nas::data::packed::{Store, pack};
use nas::data::tar::Tar;
use nas::event::{Event, Stage};
use nas::latency::key;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files of a folder with this extension.
fn files(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(repository().join(folder)).expect("the repository has this folder");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

pub fn quickstart() -> &'static Space {
    static SPACE: OnceLock<Space> = OnceLock::new();
    SPACE.get_or_init(|| Space::load("quickstart").expect("it is built in"))
}

pub fn recipes() -> Vec<Vec<u8>> {
    [files("recipes", "toml"), files("recipes/imagenet", "toml")].concat()
}

pub fn spaces() -> Vec<Vec<u8>> {
    files("nas/spaces", "toml")
}

pub fn archs() -> Vec<Vec<u8>> {
    let space = Space::load("mobilenet-se").expect("it is built in");
    [space.first(), space.largest(), space.smallest()].iter().map(|a| space.text(a).into_bytes()).collect()
}

pub fn arch_files() -> Vec<Vec<u8>> {
    let file = quickstart().arch_file(&quickstart().first()).expect("of this space");
    vec![
        serde_json::to_vec(&file).expect("plain data"),
        br#"{"found":"a","scored":[{"arch":"a","score":{"top1":1,"top5":2,"images":3}}],"seconds":1.5,"events":9}"#
            .to_vec(),
    ]
}

pub fn events() -> Vec<Vec<u8>> {
    let (subject, stage) = ("found".to_owned(), Stage::Retrain);
    let events = [
        Event::Started { stage, subject: subject.clone(), total: 9, done: 1, unit: "steps".into() },
        Event::Warning { message: "a \"warning\"".into() },
        Event::Finished { stage, subject, seconds: 1.5 },
    ];
    let lines = events.iter().map(|e| serde_json::to_string(e).expect("plain data") + "\n");
    vec![lines.collect::<String>().into_bytes()]
}

pub fn latency() -> Vec<Vec<u8>> {
    let space = quickstart();
    let slots = space.slots().iter().flat_map(|s| s.choices.iter().map(|c| (s.place, c.block.clone())));
    let layers = space.stem().iter().chain(space.head()).map(|l| (l.place, l.block.clone()));
    let blocks: serde_json::Map<String, serde_json::Value> = slots
        .chain(layers)
        .filter_map(|(place, block)| Some((key(&place, &block)?, serde_json::json!({"median-ms": 0.5}))))
        .collect();
    let machine =
        serde_json::json!({"processor": "p", "isa": "avx2", "threads": 1, "batch": 1, "clock": "wall"});
    vec![serde_json::json!({"version": 1, "machine": machine, "blocks": blocks}).to_string().into_bytes()]
}

pub fn tf_nas() -> Vec<Vec<u8>> {
    vec![
        br#"{"base": 9.5, "MBInvertedResBlock_14_16_0_24_k3_s2_relu": {"48": 1.5, "96": -0.25},
            "MBInvertedResBlock_7_24_24_24_k5_s1_swish": {"72": 2.0}}"#
            .to_vec(),
    ]
}

pub fn checkpoints() -> Vec<Vec<u8>> {
    let mut archive = Archive::new(&("meta", 7)).expect("plain data");
    archive.put("weights.stem.0.conv.weight", &[2, 2], &[0.5, -1.0, f32::NAN, 3.0]);
    archive.counts.insert("optimiser.steps".into(), vec![0, u64::MAX]);
    vec![archive.to_bytes().expect("plain data")]
}

pub fn pictures() -> Vec<Vec<u8>> {
    let images = "nas/tests/data/images";
    let mut all = [files(images, "jpg"), files(images, "png")].concat();
    all.retain(|file| file.len() < 1 << 16);
    all
}

pub fn idx() -> Vec<Vec<u8>> {
    let head = |magic: u32, dims: &[u32]| {
        let mut bytes = magic.to_be_bytes().to_vec();
        dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes
    };
    let images = [head(0x0803, &[3, 2, 2]), (0..12).collect()].concat();
    let labels = [head(0x0801, &[3]), vec![0, 1, 0]].concat();
    let zip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    };
    [(images.clone(), labels.clone()), (zip(&images), zip(&labels))]
        .map(|(images, labels)| {
            // The cut that the target makes of this byte is where the labels begin.
            let total = images.len() + labels.len();
            let cut = (0..=255u8)
                .min_by_key(|&cut| (total * usize::from(cut) / 255).abs_diff(images.len()))
                .expect("256 candidates");
            [vec![cut], images, labels].concat()
        })
        .to_vec()
}

pub fn cifar() -> Vec<Vec<u8>> {
    [3073usize, 3074].map(|record| vec![1; record]).to_vec()
}

fn shard() -> Vec<u8> {
    let pictures = pictures();
    let small = pictures.iter().min_by_key(|file| file.len()).expect("there are pictures");
    let mut builder = ::tar::Builder::new(Vec::new());
    for name in ["cat/1.jpg", "dog/2.png", "../out/3.jpg"] {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(small.len() as u64);
        header.set_mode(0o644);
        // The builder refuses `..`; the readers must not.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, small.as_slice()).expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it")
}

pub fn tar() -> Vec<Vec<u8>> {
    vec![shard()]
}

pub fn tar_gz() -> Vec<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&shard()).expect("memory takes it");
    vec![encoder.finish().expect("memory takes it")]
}

pub fn packed() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (source, out) = (folder.path().join("a.tar"), folder.path().join("a.pack"));
    std::fs::write(&source, shard()).expect("the folder takes a file");
    let view = View::all(Arc::new(Tar::open(&source, &[], 64).expect("its own shard")));
    [Store::Files, Store::Pixels]
        .map(|store| {
            pack(&view, &out, store, true, &|_| {}).expect("its own shard");
            std::fs::read(&out).expect("written above")
        })
        .to_vec()
}
