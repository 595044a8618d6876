//! `run` and its stages.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use nas::event::{Sink, Stage};
use nas::recipe::Recipe;
use nas::run::{Options, RunDir, run, write_report};
use nas::sinks::{Progress, TensorBoard};

use crate::setup::{DeviceArgs, check_overrides, stop_flag, usage};

/// Run a recipe from images to a searched, retrained and tested network.
///
/// Stages: shrink (if the recipe says so), train-supernet, search, retrain, evaluate. Everything lands in one run directory, which
/// alone suffices to resume (after Ctrl-C, SIGTERM or a crash) or to repeat the run.
#[derive(Args)]
pub struct Run {
    /// The recipe, a TOML file
    recipe: PathBuf,
    /// Run directory; left out: runs/NAME-N after the recipe
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in --out; begins anew if there is none
    #[arg(long, requires = "out")]
    resume: bool,
    /// Change a setting of the recipe, for example --set supernet.train.epochs=3
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Run a recipe up to the shrunk space.
///
/// The recipe's section `shrink` says how (docs/formats.md). A supernet is trained and candidates are dropped
/// in turns until few enough networks are left; shrunk.toml in the run directory is what is left, a space file
/// as any other.
#[derive(Args)]
pub struct Shrink {
    #[command(flatten)]
    run: Run,
}

/// Run a recipe up to the trained supernet.
#[derive(Args)]
pub struct TrainSupernet {
    #[command(flatten)]
    run: Run,
}

/// Go on with a run directory.
#[derive(Args)]
pub struct Continue {
    /// The run directory
    run: PathBuf,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Write the report of a run directory again.
#[derive(Args)]
pub struct Report {
    /// The run directory
    run: PathBuf,
}

impl Run {
    /// Runs all stages.
    pub fn run(self) -> Result<ExitCode> {
        self.until(Stage::Evaluate)
    }

    fn until(self, until: Stage) -> Result<ExitCode> {
        check_overrides(&self.set)?;
        let recipe = Recipe::load(&self.recipe, &self.set)?;
        let base = self.recipe.parent().unwrap_or(Path::new(""));
        let dir = match self.out {
            Some(out) => out,
            None => fresh_directory(&self.recipe)?,
        };
        go(&recipe, base, RunDir::new(dir), self.resume, until, &self.device, self.json)
    }
}

impl Shrink {
    /// Runs the first stage.
    pub fn run(self) -> Result<ExitCode> {
        self.run.until(Stage::Shrink)
    }
}

impl TrainSupernet {
    /// Runs the stages up to the supernet.
    pub fn run(self) -> Result<ExitCode> {
        self.run.until(Stage::TrainSupernet)
    }
}

impl Continue {
    /// Runs every stage up to `until` that is not done.
    pub fn run(self, until: Stage) -> Result<ExitCode> {
        let dir = RunDir::new(&self.run);
        if !dir.recipe().exists() {
            return Err(usage(format!(
                "{} is no run directory: it holds no recipe.toml",
                self.run.display()
            )));
        }
        let recipe = dir.read_recipe()?;
        go(&recipe, &self.run, dir, true, until, &self.device, self.json)
    }
}

impl Report {
    /// Writes the report.
    pub fn run(self) -> Result<ExitCode> {
        let dir = RunDir::new(&self.run);
        if !dir.recipe().exists() {
            return Err(usage(format!(
                "{} is no run directory: it holds no recipe.toml",
                self.run.display()
            )));
        }
        write_report(&dir)?;
        println!("{}", dir.report().display());
        Ok(ExitCode::SUCCESS)
    }
}

fn go(
    recipe: &Recipe,
    base: &Path,
    dir: RunDir,
    resume: bool,
    until: Stage,
    device: &DeviceArgs,
    json: bool,
) -> Result<ExitCode> {
    let stop = stop_flag()?;
    let device = device.open()?;
    let listeners: Vec<Box<dyn Sink>> =
        vec![Box::new(Progress::stderr()), Box::new(TensorBoard::new(dir.path().join("tensorboard")))];
    if !json {
        eprintln!("run directory: {}", dir.path().display());
    }
    let options = Options { dir: dir.clone(), resume, until, device, stop };
    let outcome = match run(recipe, base, options, listeners) {
        Ok(outcome) => outcome,
        Err(error @ nas::Error::Interrupted { .. }) => {
            write_report(&dir)?;
            eprintln!("{error}");
            eprintln!(
                "resume with: monopath run {} --out {} --resume",
                dir.recipe().display(),
                dir.path().display()
            );
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.into()),
    };
    write_report(&dir)?;
    match (outcome, json) {
        (Some(outcome), true) => println!("{}", serde_json::to_string_pretty(&outcome)?),
        (Some(outcome), false) => {
            println!("\n{}", nas::table::outcome(&outcome, width()));
            println!("report   {}", dir.report().display());
            println!("network  {}", dir.model().display());
            println!("result   {}", dir.result().display());
        }
        (None, _) => eprintln!("{} is done; all files are in {}", until.name(), dir.path().display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The first of `runs/<recipe>-1`, `-2`, … that does not exist.
fn fresh_directory(recipe: &Path) -> Result<PathBuf> {
    let name =
        recipe.file_stem().and_then(|n| n.to_str()).context("the recipe's name is not UTF-8; give --out")?;
    (1..100_000)
        .map(|n| Path::new("runs").join(format!("{name}-{n}")))
        .find(|path| !path.exists())
        .context("100,000 runs of this recipe exist in runs/; give --out")
}

fn width() -> usize {
    terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0))
}
