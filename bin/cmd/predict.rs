//! Classifying images with a found network.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use engine::{Rng, Tensor};
use nas::data::augment::Scratch;
use nas::data::{Image, Pipeline, decode};
use nas::run::{RunDir, Snapshot};

use crate::setup::DeviceArgs;

/// Classify images with the found network of a run.
#[derive(Args)]
pub struct Predict {
    /// The run directory
    run: PathBuf,
    /// JPEG or PNG files
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Predict {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode> {
        let device = self.device.open()?;
        let dir = RunDir::new(&self.run);
        let recipe = dir.read_recipe()?;
        let network = Snapshot::load(&dir.model(), &device).context("the run has no found network yet")?;
        let pipeline = Pipeline::new(&recipe.data.eval, &recipe.data.normalise)?;
        let mut all = Vec::new();
        for path in &self.images {
            let mut image = Image::default();
            let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            decode::decode(&bytes, &mut image).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
            let [h, w, c] = pipeline.shape();
            let mut pixels = vec![0f32; h * w * c];
            // Evaluation draws nothing, so any position will do.
            let mut draws = Rng::new(0, "predict").at(0, 0, 0);
            pipeline.apply(&image, &mut draws, &mut Scratch::default(), &mut pixels);
            let x = Tensor::from_slice(&device, [1, h, w, c], &pixels)?;
            let guesses = network.guesses(&x, 5)?;
            if self.json {
                let guesses: Vec<_> = guesses
                    .iter()
                    .map(|(class, p)| serde_json::json!({ "class": class, "probability": p }))
                    .collect();
                all.push(serde_json::json!({ "image": path, "guesses": guesses }));
            } else {
                println!("{}", path.display());
                for (class, probability) in guesses {
                    println!("  {:5.1} %  {class}", 100.0 * probability);
                }
            }
        }
        if self.json {
            println!("{:#}", serde_json::Value::Array(all));
        }
        Ok(ExitCode::SUCCESS)
    }
}
