//! Looking at data sets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use nas::data::inspect::Summary;
use nas::recipe::Recipe;

/// Look at a data set.
#[derive(Args)]
pub struct Data {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Decode every image of a recipe's data and say what is there
    Inspect {
        /// The recipe whose data section is looked at
        recipe: PathBuf,
        /// Change a setting of the recipe
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
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

impl Data {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode> {
        let DataCommand::Inspect { recipe: path, set, json } = self.command;
        crate::setup::check_overrides(&set)?;
        let recipe = Recipe::load(&path, &set)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let data = recipe.data.open(base, recipe.seed)?;
        let mut summaries = Vec::new();
        for (name, view) in [("train", &data.train), ("val", &data.val), ("test", &data.test)] {
            if !view.is_empty() {
                summaries.push((name, nas::data::inspect::inspect(view, recipe.data.workers)));
            }
        }
        if json {
            let value: serde_json::Map<String, serde_json::Value> =
                summaries.iter().map(|(name, summary)| ((*name).to_owned(), summary.to_json())).collect();
            println!("{:#}", serde_json::Value::Object(value));
        } else {
            for (name, summary) in summaries {
                println!("{name}");
                show(&summary);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
