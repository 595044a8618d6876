//! A tiny data set, tiny recipes over it, and the program: what every test of whole runs shares.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use engine::Rng;

/// A folder with images, a recipe and room for runs.
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// 120 training and 40 test images of two easily told classes, and a recipe over them.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { folder };
        for (name, n) in [("train", 120), ("test", 40)] {
            let (images, labels) = idx(n, name);
            std::fs::write(bench.path(&format!("{name}-images")), images).unwrap();
            std::fs::write(bench.path(&format!("{name}-labels")), labels).unwrap();
        }
        std::fs::write(bench.path("tiny.toml"), RECIPE).unwrap();
        std::fs::write(bench.path("brief.toml"), brief()).unwrap();
        bench
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program with these arguments, in this folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(built("monopath"));
        command.current_dir(self.folder.path()).args(args).env_remove("MONOPATH_ISA");
        command
    }

    /// Runs to the end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs and requires success; returns standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {:?}\n{errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs and requires this exit code; returns standard error.
    pub fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{errors}");
        errors
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

/// A file that cargo built beside this program or test.
pub fn built(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let folder = exe.parent().unwrap();
    let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: build it with cargo build --release --workspace", path.display());
    path
}

/// Images whose left or right half is bright, in the IDX format.
fn idx(n: usize, purpose: &str) -> (Vec<u8>, Vec<u8>) {
    let mut draws = Rng::new(1, purpose).at(0, 0, 0);
    let header = |magic: u32, dims: &[usize]| {
        let mut bytes = magic.to_be_bytes().to_vec();
        dims.iter().for_each(|&d| bytes.extend((d as u32).to_be_bytes()));
        bytes
    };
    let (mut images, mut labels) = (header(0x0803, &[n, 12, 12]), header(0x0801, &[n]));
    for i in 0..n {
        let label = (i % 2) as u8;
        labels.push(label);
        for p in 0..144 {
            let bright = (p % 12 < 6) == (label == 0);
            images.push(draws.below(if bright { 256 } else { 120 }) as u8);
        }
    }
    (images, labels)
}

const RECIPE: &str = r#"
about = "tiny"
space = "quickstart"
data.val-per-class = 10
data.workers = 1
data.train = { format = "idx", images = "train-images", labels = "train-labels", classes = ["left", "right"] }
data.test = { format = "idx", images = "test-images", labels = "test-labels", classes = ["left", "right"] }
data.normalise = { kind = "mean-std", mean = [0.4], std = [0.3] }
data.augment = { crop = { kind = "pad-and-crop", size = 12, padding = 1 } }
data.eval = { crop = { kind = "centre", resize = 12, size = 12 } }

[supernet]
paths = 2

[supernet.train]
epochs = 6
batch = 20
bn-batch = 10
lr = 0.05
weight-decay = 1e-4
warmup-steps = 3

[search]
calibration-images = 40
calibration-batch = 20
eval-batch = 20
algorithm = { kind = "evolution", population = 8, rounds = 3, parents = 3, crossover = 4, mutation = 4 }
constraint = { max-macs = 600_000 }

[retrain]
random-networks = 2
[retrain.train]
epochs = 4
batch = 20
lr = 0.05
decay = { kind = "cosine" }
clip-norm = 5.0

[log]
steps = 5
checkpoint-seconds = 0.0
"#;

/// The tiny recipe with the fewest steps that still pass every stage.
fn brief() -> String {
    [
        ("epochs = 6", "epochs = 1"),
        ("epochs = 4", "epochs = 1"),
        (
            "population = 8, rounds = 3, parents = 3, crossover = 4, mutation = 4",
            "population = 4, rounds = 1, parents = 2, crossover = 1, mutation = 1",
        ),
        ("random-networks = 2", "random-networks = 1"),
        ("constraint = { max-macs = 600_000 }", "constraint = { max-macs = 1_000_000 }"),
    ]
    .iter()
    .fold(RECIPE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

/// Every float of every network and of the supernet, the outcome's figures, and what the journal tells:
/// what must not change.
pub fn fingerprint(run: &Path) -> String {
    let mut text = String::new();
    let archive =
        |path: &Path| nas::checkpoint::Archive::from_bytes(&std::fs::read(path).unwrap(), path).unwrap();
    for file in ["supernet.safetensors", "model.safetensors"] {
        write!(text, "{}", digest(&archive(&run.join(file)))).unwrap();
    }
    let mut networks: Vec<PathBuf> =
        std::fs::read_dir(run.join("networks")).unwrap().map(|e| e.unwrap().path()).collect();
    networks.sort();
    for network in networks {
        write!(text, "{}", digest(&archive(&network.join("model.safetensors")))).unwrap();
    }
    let result: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("result.json")).unwrap()).unwrap();
    write!(text, "{}{}", result["found"]["arch"], result["random"]["mean_top1"]).unwrap();
    let search: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("search.json")).unwrap()).unwrap();
    write!(text, " search {}", blake3::hash(search["scored"].to_string().as_bytes()).to_hex()).unwrap();
    write!(text, " journal {}", journal(run)).unwrap();
    text
}

/// A digest of what was done according to the journal: every step, candidate and test once, none missing.
/// Candidates are sorted: the order in which a generation is scored may change, and no score with it.
fn journal(run: &Path) -> String {
    let mut done: Vec<String> = events(run)
        .iter()
        .filter_map(|e| {
            Some(match e["event"].as_str()? {
                "step" => format!("{} {} {}", e["stage"], e["subject"], e["step"]),
                "candidate" => format!("{} {} {}", e["arch"], e["top1"], e["top5"]),
                "scored" => format!("{} {} {}", e["subject"], e["top1"], e["top5"]),
                "finished" => format!("{} {}", e["stage"], e["subject"]),
                _ => return None,
            })
        })
        .collect();
    done.sort();
    format!("{} {}", done.len(), blake3::hash(done.join("\n").as_bytes()).to_hex())
}

fn events(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Step, loss and accuracy of every logged training step, as text: what the journal of a resumed run has
/// in common with that of an uninterrupted one.
pub fn losses(run: &Path) -> Vec<String> {
    events(run)
        .iter()
        .filter(|event| event["event"] == "step")
        .map(|e| format!("{} {} {} {} {}", e["stage"], e["subject"], e["step"], e["loss"], e["accuracy"]))
        .collect()
}

fn digest(archive: &nas::checkpoint::Archive) -> String {
    let mut hash = blake3::Hasher::new();
    for (name, (shape, values)) in &archive.floats {
        hash.update(name.as_bytes()).update(format!("{shape:?}").as_bytes());
        for value in values {
            hash.update(&value.to_le_bytes());
        }
    }
    hash.finalize().to_hex().to_string()
}
