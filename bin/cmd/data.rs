//! Looking at data sets, packing them, and verifying what was packed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use nas::data::config::Source;
use nas::data::inspect::{Summary, inspect};
use nas::data::packed::{Packed, Store, pack};
use nas::data::{DataConfig, Dataset, Error, View};
use nas::recipe::Recipe;
use serde_json::{Map, Value, json};

use crate::meter::Meter;
use crate::setup::{check_overrides, usage};

/// Look at data sets, pack them into one file, verify such files.
#[derive(Args)]
pub struct Data {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Decode every image of a recipe's data or of a data set and say what is there
    Inspect(Inspect),
    /// Write a data set into one mapped file with a hash for every image
    Pack(Pack),
    /// Check every image of packed files against its hash
    Verify(Verify),
}

/// Which data a command works on.
#[derive(Args)]
struct What {
    /// A recipe (.toml), or a packed file, tar shard, folder of shards or folder of class folders
    source: PathBuf,
    /// Change a setting of the recipe
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Args)]
struct Inspect {
    #[command(flatten)]
    what: What,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Pack {
    #[command(flatten)]
    what: What,
    /// Which source of the recipe, whole: subsets and splits of the recipe apply when it is read
    #[arg(long, value_enum, default_value = "train")]
    part: Part,
    /// The packed file; a file of that name is replaced once the new one is whole
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What a record holds
    #[arg(long, value_enum, default_value = "files")]
    store: Stored,
    /// Leave images out that cannot be decoded, and name them, instead of ending at the first
    #[arg(long)]
    skip_bad: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Verify {
    /// Packed files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Train,
    Val,
    Test,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stored {
    /// JPEG and PNG files as they are, decoded each time; the pixels of formats without files
    Files,
    /// Pixels: larger, and nothing to decode
    Pixels,
}

/// A recipe with the folder that its paths start at, or a data set.
enum Found {
    Recipe(Box<Recipe>, PathBuf),
    Set(Source),
}

impl What {
    fn find(&self) -> Result<Found> {
        check_overrides(&self.set)?;
        if self.source.extension().is_some_and(|e| e == "toml") {
            let recipe = Recipe::load(&self.source, &self.set)?;
            let base = self.source.parent().unwrap_or(Path::new("")).to_owned();
            return Ok(Found::Recipe(Box::new(recipe), base));
        }
        if !self.set.is_empty() {
            return Err(usage("--set changes a recipe, and this is none"));
        }
        Ok(Found::Set(Source::detect(&self.source)?))
    }
}

impl Data {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            DataCommand::Inspect(c) => c.run(),
            DataCommand::Pack(c) => c.run(),
            DataCommand::Verify(c) => c.run(),
        }
    }
}

impl Inspect {
    fn run(self) -> Result<ExitCode> {
        let (views, workers) = match self.what.find()? {
            Found::Recipe(recipe, base) => {
                let data = recipe.data.open(&base, recipe.seed)?;
                (vec![("train", data.train), ("val", data.val), ("test", data.test)], recipe.data.workers)
            }
            Found::Set(source) => (
                vec![("all", View::all(source.open(Path::new(""), DataConfig::MEMORY_LIMIT_MIB)?))],
                DataConfig::WORKERS,
            ),
        };
        let mut summaries = Vec::new();
        for (name, view) in views.iter().filter(|(_, view)| !view.is_empty()) {
            let meter = Meter::new(format!("inspecting {name}"), view.len());
            summaries.push((*name, inspect(view, workers, &|done| meter.at(done))));
        }
        if self.json {
            let value: Map<String, Value> =
                summaries.iter().map(|(name, summary)| ((*name).to_owned(), summary.to_json())).collect();
            println!("{:#}", Value::Object(value));
        } else {
            for (name, summary) in summaries {
                println!("{name}");
                show(&summary);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Pack {
    fn run(self) -> Result<ExitCode> {
        let dataset = match self.what.find()? {
            Found::Recipe(recipe, base) => {
                let data = &recipe.data;
                let source = match self.part {
                    Part::Train => Some(&data.train),
                    Part::Val => data.val.as_ref(),
                    Part::Test => Some(&data.test),
                };
                let source = source.ok_or_else(|| {
                    usage("the recipe has no source `val`: it is split from `train`; pack that")
                })?;
                source.open(&base, data.memory_limit_mib)?
            }
            Found::Set(source) => source.open(Path::new(""), DataConfig::MEMORY_LIMIT_MIB)?,
        };
        let from = dataset.describe();
        let view = View::all(dataset);
        let store = match self.store {
            Stored::Files => Store::Files,
            Stored::Pixels => Store::Pixels,
        };
        let meter = Meter::new("packing", view.len());
        let report = pack(&view, &self.out, store, self.skip_bad, &|done| meter.at(done));
        drop(meter);
        let hint = if self.skip_bad { "" } else { " (--skip-bad leaves images out that cannot be decoded)" };
        let report = report.with_context(|| {
            let paths: Vec<String> = from.paths.iter().take(3).map(|p| p.display().to_string()).collect();
            format!("packing {} into {}{hint}", paths.join(", "), self.out.display())
        })?;
        if self.json {
            let bad: Vec<Value> =
                report.bad.iter().map(|(record, e)| json!({"record": record, "error": e})).collect();
            println!(
                "{:#}",
                json!({
                    "file": self.out, "records": report.records, "bytes": report.bytes,
                    "digest": Packed::open(&self.out)?.describe().digest, "bad": bad,
                })
            );
        } else {
            println!("{}: {} records, {} bytes", self.out.display(), report.records, report.bytes);
            for (record, error) in &report.bad {
                println!("  left out {record}: {error}");
            }
            println!("use it with: {{ format = \"packed\", path = {:?} }}", self.out.display().to_string());
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Verify {
    /// Every file is looked at, whatever the others are; one that is damaged makes the exit code 1.
    fn run(self) -> Result<ExitCode> {
        let mut sound = true;
        let mut values = Vec::new();
        for path in &self.files {
            let checked = check(path);
            let value = match &checked {
                Ok((records, damaged)) => {
                    let damaged: Vec<Value> = damaged
                        .iter()
                        .map(|(record, name)| json!({"record": record, "name": name}))
                        .collect();
                    json!({"file": path, "records": records, "damaged": damaged})
                }
                Err(error) => json!({"file": path, "error": error.to_string()}),
            };
            values.push(value);
            sound &= checked.as_ref().is_ok_and(|(_, damaged)| damaged.is_empty());
            if self.json {
                continue;
            }
            match checked {
                Ok((records, damaged)) if damaged.is_empty() => {
                    println!("{}: {records} records, all as they were written", path.display());
                }
                Ok((records, damaged)) => {
                    println!("{}: {} of {records} records damaged", path.display(), damaged.len());
                    for (record, name) in damaged {
                        println!("  record {record} ({name})");
                    }
                }
                Err(error) => println!("{error}"),
            }
        }
        if self.json {
            println!("{:#}", Value::Array(values));
        }
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A packed file's number of records, with index and name of those that are damaged.
fn check(path: &Path) -> Result<(usize, Vec<(usize, String)>), Error> {
    let set = Packed::open(path)?;
    let meter = Meter::new(format!("verifying {}", path.display()), set.len());
    let damaged = set.verify(&|done| meter.at(done));
    Ok((set.len(), damaged.into_iter().map(|i| (i, set.name(i))).collect()))
}

/// Prints a summary for people.
fn show(summary: &Summary) {
    let triple = |v: &[f64]| v.iter().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join(" ");
    println!("  records     {}", summary.records);
    for (class, n) in &summary.classes {
        println!("    {n:>8}  {class}");
    }
    // The commonest sizes; a folder of photographs may have thousands.
    let mut sizes: Vec<_> = summary.sizes.iter().collect();
    sizes.sort_by(|a, b| b.1.cmp(a.1));
    for ((h, w, c), n) in sizes.iter().take(5) {
        println!("  {w}x{h}x{c}   {n}");
    }
    if sizes.len() > 5 {
        println!("  and {} more sizes", sizes.len() - 5);
    }
    println!("  mean        {}", triple(&summary.mean));
    println!("  std         {}", triple(&summary.std));
    println!("  bad         {}", summary.bad);
    for (name, error) in &summary.named_bad {
        println!("    {name}: {error}");
    }
    println!("  repaired    {}", summary.repaired);
    println!("  duplicates  {}", summary.duplicates);
}
