//! The outcome of a run: `result.json`.

use serde::{Deserialize, Serialize};

/// A trained and tested network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Network {
    /// `found`, `random-0`, …, `largest`.
    pub subject: String,
    /// Text form of the architecture.
    pub arch: String,
    /// Test top-1 accuracy, 0 to 1.
    pub top1: f64,
    /// Test top-5 accuracy, 0 to 1.
    pub top5: f64,
    /// Standard error of `top1` over the test images: `sqrt(p (1 - p) / n)`.
    pub top1_error: f64,
    /// Multiply-adds of one image.
    pub macs: u64,
    /// Parameters.
    pub params: u64,
    /// Milliseconds by the latency table that bounds the search, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_ms: Option<f64>,
    /// Seconds spent on finding and retraining it.
    pub seconds: f64,
}

/// Random networks of equal budget, retrained alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct RandomNetworks {
    /// Mean of their test top-1 accuracies.
    pub mean_top1: f64,
    /// Standard deviation of those.
    pub std_top1: f64,
    /// The best of those.
    pub best_top1: f64,
    /// How many.
    pub n: usize,
    /// Each of them.
    pub networks: Vec<Network>,
}

/// What a run found, beside what it would have found by chance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Outcome {
    /// The run's seed.
    pub seed: u64,
    /// Name of the space.
    pub space: String,
    /// Test images each network was scored on.
    pub test_images: u64,
    /// The network that the search chose.
    pub found: Network,
    /// Random networks under the same constraint.
    pub random: RandomNetworks,
    /// The largest network of the space.
    pub largest: Option<Network>,
    /// Seconds of each stage: name, seconds.
    pub stages: Vec<(String, f64)>,
}

impl Outcome {
    /// Whether the found network cannot be told from the random ones: its accuracy lies within two
    /// standard errors of the difference from their mean.
    pub fn overlaps(&self) -> bool {
        let spread = if self.random.n > 1 { self.random.std_top1 } else { 0.0 };
        let error = (self.found.top1_error.powi(2) + spread.powi(2)).sqrt();
        (self.found.top1 - self.random.mean_top1).abs() <= 2.0 * error
    }
}
