//! Latency tables: what is measured, what is imported, and what a search makes of them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::Cpu;
use engine::Rng;
use nas::latency::{Entry, LatencyProblem, LatencyTable, Measuring, Negative, key};
use nas::search::{Constraint, Domain, MaxLatency};
use nas::{Error, Space};

fn measure(space: &Space, networks: usize) -> LatencyTable {
    let cpu = Cpu::new(1).unwrap();
    let began = Instant::now();
    let measuring = Measuring {
        space,
        cpu: &cpu,
        batch: 2,
        samples: 9,
        networks,
        clock: &|| 1e3 * began.elapsed().as_secs_f64(),
        clock_name: "wall",
        processor: "this one".into(),
    };
    measuring.run(&|_| {}).unwrap()
}

/// Writes a table into a folder of its own.
fn written(table: &LatencyTable) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency.json");
    std::fs::write(&path, table.to_json().unwrap()).unwrap();
    (folder, path)
}

/// Every block of a space at a time that its multiply-adds give.
fn made_up(space: &Space) -> LatencyTable {
    let mut table = measure(&Space::load("quickstart").unwrap(), 0);
    table.blocks.clear();
    let layers = space.stem().iter().chain(space.head()).map(|l| (key(&l.place, &l.block), 0.5));
    let slots = space
        .slots()
        .iter()
        .flat_map(|slot| slot.choices.iter().map(|c| (key(&slot.place, &c.block), c.cost.macs as f64 / 1e6)));
    for (key, ms) in layers.chain(slots) {
        if let Some(key) = key {
            table.blocks.insert(key, Entry { median_ms: Some(ms), p95_ms: None });
        }
    }
    table
}

#[test]
fn a_measured_table_serves_its_space_and_survives_its_file() {
    let space = Space::load("quickstart").unwrap();
    let table = measure(&space, 4);
    assert_eq!((table.machine.threads, table.machine.batch), (1, 2));
    assert!(!table.machine.isa.is_empty());
    for (block, entry) in &table.blocks {
        let (median, p95) = (entry.median_ms.unwrap(), entry.p95_ms.unwrap());
        assert!(median > 0.0 && p95 >= median, "{block}: {entry:?}");
    }
    let check = table.check.as_ref().unwrap();
    assert_eq!(check.networks.len(), 4);
    assert!((-1.0..=1.0).contains(&check.correlation) && check.mean_error >= 0.0);
    let (_folder, path) = written(&table);
    assert_eq!(LatencyTable::load(&path).unwrap(), table);
    // The prediction is the sum over the blocks.
    let latency = table.of(&space, &path).unwrap();
    let ms = |place, block| key(place, block).map_or(0.0, |key| table.blocks[&key].median_ms.unwrap());
    let fixed: f64 = space.stem().iter().chain(space.head()).map(|l| ms(&l.place, &l.block)).sum();
    let slots: f64 = space.slots().iter().map(|s| ms(&s.place, &s.choices[0].block)).sum();
    let predicted = latency.predict(&space.first()).unwrap();
    assert!((predicted - fixed - slots).abs() < 1e-9 && latency.least() <= predicted);
}

#[test]
fn every_network_that_is_asked_for_satisfies_the_bound() {
    let space = Space::load("quickstart").unwrap();
    let (_folder, path) = written(&made_up(&space));
    let latency = LatencyTable::load(&path).unwrap().of(&space, &path).unwrap();
    let largest = latency.predict(&space.largest()).unwrap();
    let max_ms = (latency.least() + largest) / 2.0;
    let bounded = |max_ms| Constraint {
        latency: Some(MaxLatency { table: path.clone(), max_ms }),
        ..Constraint::default()
    };
    let constraint = bounded(max_ms).bind(&space, Path::new("")).unwrap();
    let domain = Domain { space: &space, constraint, rng: Rng::new(0, "search") };
    let asked = domain.distinct(200, "test").unwrap();
    assert!(asked.len() > 50 && asked.iter().all(|arch| latency.predict(arch).unwrap() <= max_ms));
    // A bound that nothing meets is known at once, with the least.
    let error = bounded(latency.least() / 2.0).bind(&space, Path::new("")).unwrap_err();
    assert!(
        matches!(error, Error::Infeasible { tries: 0, .. }) && error.to_string().contains("the least is")
    );
}

#[test]
fn what_cannot_be_evaluated_is_refused_by_name() {
    let space = Space::load("quickstart").unwrap();
    let table = made_up(&space);
    let problem = |table: &LatencyTable| match table.of(&space, Path::new("t")).unwrap_err() {
        Error::Latency { problem, .. } => problem,
        other => panic!("{other}"),
    };
    let slot = &space.slots()[1];
    let block = key(&slot.place, &slot.choices[0].block).unwrap();
    let with = |entry: Option<f64>| {
        let mut table = table.clone();
        table.blocks.insert(block.clone(), Entry { median_ms: entry, p95_ms: None });
        table
    };
    let mut without = table.clone();
    without.blocks.remove(&block);
    assert!(matches!(problem(&without), LatencyProblem::Missing { block: b, .. } if b == block));
    let negative = problem(&with(Some(-0.5)));
    assert!(matches!(&negative, LatencyProblem::Negative { block: b, ms, .. } if *b == block && *ms == -0.5));
    // An entry that the space does not use may be what it likes.
    let mut unused = table.clone();
    unused.blocks.insert("of another space".into(), Entry { median_ms: Some(-1.0), p95_ms: None });
    assert!(unused.of(&space, Path::new("t")).is_ok());
    // A dropped entry rules its candidate out, and a slot of dropped ones is an error.
    let latency = with(None).of(&space, Path::new("t")).unwrap();
    let taking = space.first();
    assert_eq!(latency.predict(&taking), None);
    let (_folder, path) = written(&with(None));
    let constraint =
        Constraint { latency: Some(MaxLatency { table: path, max_ms: 1e9 }), ..Constraint::default() };
    assert!(!constraint.bind(&space, Path::new("")).unwrap().allows(&space, &taking));
    let mut all = table;
    all.blocks.values_mut().for_each(|entry| entry.median_ms = None);
    all.fixed_ms = Some(1.0);
    assert!(matches!(problem(&all), LatencyProblem::AllDropped { .. }));
}

#[test]
fn files_that_are_no_tables_are_refused() {
    let parse = |text: &str| match LatencyTable::parse(text.as_bytes(), Path::new("t")) {
        Err(Error::Latency { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    let text = measure(&Space::load("quickstart").unwrap(), 0).to_json().unwrap();
    assert!(matches!(parse(""), LatencyProblem::Format(_)));
    assert!(matches!(parse(&text[..text.len() / 2]), LatencyProblem::Format(_)));
    assert_eq!(parse(&text.replace("\"version\": 1", "\"version\": 2")), LatencyProblem::Version(2));
    assert!(matches!(parse(&text.replace("\"isa\"", "\"isaac\"")), LatencyProblem::Format(_)));
}

#[test]
fn mutated_tables_neither_panic_nor_pass_as_others() {
    let space = Space::load("quickstart").unwrap();
    let text = made_up(&space).to_json().unwrap().into_bytes();
    let mut draws = Rng::new(0, "mutated").at(0, 0, 0);
    for _ in 0..2_000 {
        let mut bytes = text.clone();
        for _ in 0..=draws.below(3) {
            let at = draws.below(bytes.len() as u32) as usize;
            bytes[at] = draws.below(256) as u8;
        }
        bytes.truncate(bytes.len() - draws.below(2) as usize * draws.below(bytes.len() as u32) as usize);
        if let Ok(table) = LatencyTable::parse(&bytes, Path::new("t")) {
            // Sound or refused, for this space too.
            let _used = table.of(&space, Path::new("t"));
        }
    }
}

/// Two stages of TF-NAS at 224 pixels; the widths are input times expansion, up to what the table holds.
const TF_NAS: &str = r#"
name = "tf-nas-part"
about = "the first stage of TF-NAS"
classes = 1000
input = { size = 224, channels = 3 }
norm = { eps = 1e-5, momentum = 0.1, affine = true }

[[stem]]
block = "conv"
kernel = 3
stride = 2
channels = 16

[[candidates]]
block = "inverted-residual"
kernel = 3
expansion = 4
act = "relu"

[[candidates]]
block = "inverted-residual"
kernel = 5
expansion = 4
se = { ratio = 1.0, gate = "sigmoid" }
act = "relu"

[[stages]]
slots = 1
stride = 2
channels = 24

[[head]]
block = "pool"

[[head]]
block = "linear"
bias = true
"#;

#[test]
fn tf_nas_tables_are_imported_and_only_a_used_negative_entry_is_an_error() {
    let Some(folder) = std::env::var_os("MONOPATH_DATA").map(PathBuf::from) else {
        println!("skipped: MONOPATH_DATA is not set");
        return;
    };
    let source = folder.join("latency-tables/tf-nas-cpu.json");
    let space = Space::parse_toml(TF_NAS, Path::new("tf-nas-part")).unwrap();
    // The file has negative entries, none of which this space uses.
    let text = std::fs::read_to_string(&source).unwrap();
    assert!(text.contains(": -0."));
    let table = LatencyTable::import_tf_nas(&source, &space, Negative::Error).unwrap();
    let latency = table.of(&space, &source).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (base, plain, squeezed) = (
        file["base"].as_f64().unwrap(),
        file["MBInvertedResBlock_112_16_0_24_k3_s2_relu"]["64"].as_f64().unwrap(),
        file["MBInvertedResBlock_112_16_16_24_k5_s2_relu"]["64"].as_f64().unwrap(),
    );
    assert_eq!(latency.predict(&space.parse("[0]").unwrap()), Some(base + plain));
    assert_eq!(latency.predict(&space.parse("[1]").unwrap()), Some(base + squeezed));
    // The same with a negative entry where the space looks.
    let mut hurt = file;
    hurt["MBInvertedResBlock_112_16_0_24_k3_s2_relu"]["64"] = serde_json::json!(-0.5);
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("hurt.json");
    std::fs::write(&path, hurt.to_string()).unwrap();
    let error = LatencyTable::import_tf_nas(&path, &space, Negative::Error).unwrap_err().to_string();
    for word in
        ["hurt.json", "MBInvertedResBlock_112_16_0_24_k3_s2_relu width 64", "stage1.slot1", "--negative drop"]
    {
        assert!(error.contains(word), "{word}: {error}");
    }
    let dropped = LatencyTable::import_tf_nas(&path, &space, Negative::Drop).unwrap();
    let latency = dropped.of(&space, &path).unwrap();
    assert_eq!(latency.predict(&space.parse("[0]").unwrap()), None);
    assert_eq!(latency.predict(&space.parse("[1]").unwrap()), Some(base + squeezed));
    // A block that the table lacks.
    let other = Space::load("quickstart").unwrap();
    let error = LatencyTable::import_tf_nas(&source, &other, Negative::Error).unwrap_err();
    assert!(matches!(error, Error::Latency { problem: LatencyProblem::Missing { .. }, .. }), "{error}");
}
