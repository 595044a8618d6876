//! How fast images are read, decoded, augmented and batched.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use cpu_time::ProcessTime;
use nas::data::config::{Crop, Normalise, OnBad, Source, Transform};
use nas::data::{Batch, DataConfig, Loader, LoaderOptions, Pass, Pipeline, View};
use serde_json::{Value, json};

use super::{peak_rss_mib, print, summary};
use crate::setup::usage;

/// Images per second of the data loader: read, decode, random resized crop, flip, normalise, batch.
///
/// `benches/peers/torch_loader.py` does the same with torchvision over the same folder.
#[derive(Args)]
pub struct Bench {
    /// Folders of class folders, tar shards or packed files; each is measured in every round
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// Side of the images that come out
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Images of a batch
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Threads that read, decode and augment
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Batches of a round
    #[arg(long, default_value_t = 40)]
    batches: usize,
    /// Rounds; the sources take turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Bench {
    /// Measures.
    pub fn run(self) -> Result<()> {
        if self.batches == 0 || self.rounds == 0 {
            return Err(usage("--batches and --rounds must be 1 or more"));
        }
        let crop = Crop::RandomResized { size: self.size, scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] };
        let transform = Transform { crop, flip: 0.5, jitter: None, erase: None };
        let normalise =
            Normalise::MeanStd { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
        let options = LoaderOptions {
            batch: self.batch,
            workers: self.workers,
            prefetch: 3,
            on_bad: OnBad::Error,
            max_bad: 0.0,
        };
        let mut loaders = Vec::new();
        for path in &self.sources {
            let dataset = Source::detect(path)?.open(Path::new(""), DataConfig::MEMORY_LIMIT_MIB)?;
            let format = dataset.describe().format;
            let pipeline = Pipeline::new(&transform, &normalise)?;
            let view = View::all(dataset);
            loaders.push((path, format, view, pipeline));
        }
        let mut rates = vec![(Vec::new(), Vec::new()); loaders.len()];
        // The round before the first reads the files into the system's cache.
        for round in 0..=self.rounds {
            for ((_, _, view, pipeline), (rate, cpu)) in loaders.iter().zip(&mut rates) {
                let mut loader = Loader::new(view.clone(), pipeline.clone(), Pass::Train, 0, options)?;
                let mut batch = Batch::default();
                // Its threads and buffers are there before the clock starts.
                loader.next(&mut batch)?;
                let (wall, process) = (Instant::now(), ProcessTime::now());
                for _ in 0..self.batches {
                    loader.next(&mut batch)?;
                }
                let images = (self.batches * self.batch) as f64;
                if round > 0 {
                    rate.push(images / wall.elapsed().as_secs_f64());
                    cpu.push(1e6 * process.elapsed().as_secs_f64() / images);
                }
            }
        }
        let sources: Vec<Value> = loaders
            .iter()
            .zip(&rates)
            .map(|((path, format, view, _), (rate, cpu))| {
                json!({
                    "source": path, "format": format, "records": view.len(),
                    "images_per_s": summary(rate, "per_s"), "cpu_us_per_image": summary(cpu, "us"),
                })
            })
            .collect();
        let value = json!({
            "mode": "loader", "size": self.size, "batch": self.batch, "workers": self.workers,
            "sources": sources, "peak_rss_mib": peak_rss_mib(),
        });
        if self.json {
            print(&value, true);
        } else {
            for source in &sources {
                println!(
                    "{:<8} {:>8.0} images/s {:>8.0} us of CPU an image   {}",
                    source["format"].as_str().unwrap_or_default(),
                    source["images_per_s"]["median_per_s"].as_f64().unwrap_or(0.0),
                    source["cpu_us_per_image"]["median_us"].as_f64().unwrap_or(0.0),
                    source["source"].as_str().unwrap_or_default()
                );
            }
        }
        Ok(())
    }
}
