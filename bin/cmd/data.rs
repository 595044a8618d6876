//! Looking at data sets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
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
        /// The recipe whose [data] section is looked at
        recipe: PathBuf,
        /// Change a setting of the recipe
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
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
                summaries.push((name, nas::data::inspect::inspect(view, recipe.data.workers)?));
            }
        }
        if json {
            let value: serde_json::Map<String, serde_json::Value> = summaries
                .iter()
                .map(|(name, summary)| Ok(((*name).to_owned(), serde_json::to_value(summary)?)))
                .collect::<Result<_>>()?;
            println!("{:#}", serde_json::Value::Object(value));
        } else {
            for (name, summary) in summaries {
                println!("{name}\n{summary}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
