//! How well scores order trained networks.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use nas::Space;
use nas::rank::{Metric, Ranking, Request, rank_space};
use nas::run::{RunDir, rank, read_truth};

use crate::setup::{DeviceArgs, stop_flag, usage};

/// Tell how well a cheap score orders trained networks.
///
/// Compares a score with the accuracies of networks that were each trained by itself, and prints Kendall's
/// tau-b with a 95 % interval, Spearman's rho and the share of the best 10 and 50 that the score finds, beside
/// the tau-b of counting multiply-adds and parameters, and the ceiling that the noise of training sets (one
/// training against the mean of the others). A score below multiply-adds says less than a count.
///
/// With --from the ranking is kept in the run's rank.json, and the run's report shows it. Scores are stored as they
/// come (scores.json): what was stopped or killed goes on with them when it is called again.
#[derive(Args)]
pub struct Rank {
    /// Run directory whose supernet and images give the score
    #[arg(long, value_name = "DIR", required_unless_present = "space", conflicts_with = "space")]
    from: Option<PathBuf>,
    /// Name of a space or its TOML file, for scores that need no run: macs, params, zero-cost synflow
    #[arg(long, value_name = "NAME")]
    space: Option<String>,
    /// Trained networks: JSON as NAS-Bench-Macro's ({"02012100": {"mean_acc": 89.2, "test_acc": [...]}}), or a
    /// run directory, whose retrained random networks count
    #[arg(long, value_name = "FILE|DIR")]
    table: PathBuf,
    /// The score
    #[arg(long, value_enum, default_value = "accuracy")]
    metric: MetricArg,
    /// Which score at initialisation, for --metric zero-cost
    #[arg(long, value_enum, default_value = "synflow")]
    proxy: Proxy,
    /// How many networks of the table are drawn: a number, or all
    #[arg(long, value_name = "all|N", default_value = "300")]
    networks: Networks,
    /// Decides which networks, which held-out images, and the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Training images that calibrate batch norms, for --metric accuracy; 0: each batch normalises itself
    #[arg(long, value_name = "N", default_value_t = 512)]
    calibration_images: usize,
    /// Held-out images that accuracies are taken on; never test images
    #[arg(long, value_name = "N", default_value_t = 2000)]
    held_out_images: usize,
    /// Checkpoint whose weights are taken in place of the trained ones, for --metric accuracy and angle; the
    /// ranking is not kept
    #[arg(long, value_name = "FILE", requires = "from")]
    weights: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum MetricArg {
    /// Held-out accuracy with the supernet's weights
    Accuracy,
    /// Angle that training has turned the weights by (ABS)
    Angle,
    /// Multiply-adds
    Macs,
    /// Parameters
    Params,
    /// A score at initialisation, see --proxy
    ZeroCost,
}

#[derive(Clone, Copy, ValueEnum)]
enum Proxy {
    /// Synaptic flow
    Synflow,
    /// Norm of the loss's gradient on one batch of training images
    GradientNorm,
    /// How differently one batch of training images is answered to (jacob_cov)
    JacobianCovariance,
}

#[derive(Clone, Copy)]
struct Networks(Option<usize>);

impl FromStr for Networks {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "all" => Ok(Networks(None)),
            Ok(n) if n >= 2 => Ok(Networks(Some(n))),
            _ => Err("it must be all, or a number of at least 2".into()),
        }
    }
}

impl Rank {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode> {
        let device = self.device.open()?;
        let metric = match (self.metric, self.proxy) {
            (MetricArg::Accuracy, _) => Metric::Accuracy,
            (MetricArg::Angle, _) => Metric::Angle,
            (MetricArg::Macs, _) => Metric::Macs,
            (MetricArg::Params, _) => Metric::Params,
            (MetricArg::ZeroCost, Proxy::Synflow) => Metric::Synflow,
            (MetricArg::ZeroCost, Proxy::GradientNorm) => Metric::GradientNorm,
            (MetricArg::ZeroCost, Proxy::JacobianCovariance) => Metric::JacobianCovariance,
        };
        let request = Request {
            metric,
            networks: self.networks.0,
            seed: self.seed,
            calibration_images: self.calibration_images,
            held_out_images: self.held_out_images,
            weights: self.weights.clone(),
        };
        let ranking = match (&self.from, &self.space) {
            (Some(from), _) => {
                let dir = RunDir::new(from);
                if !dir.recipe().exists() {
                    return Err(usage(format!(
                        "{} is no run directory: it holds no recipe.toml",
                        from.display()
                    )));
                }
                match rank(&dir, &self.table, &request, &device, stop_flag()?) {
                    Err(nas::Error::Stopped) => {
                        bail!("stopped; called again it goes on with the scores it stored")
                    }
                    ranking => ranking?,
                }
            }
            (None, None) => return Err(usage("give --from DIR or --space NAME")),
            (None, Some(space)) => {
                let space = Space::load(space)?;
                rank_space(&space, &read_truth(&self.table, &space, &request)?, &request, &device)?
            }
        };
        if self.json {
            let mut value = serde_json::to_value(&ranking)?;
            // One network a line is for rank.json.
            value.as_object_mut().map(|object| object.remove("points"));
            println!("{value:#}");
        } else {
            print(&ranking);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(ranking: &Ranking) {
    let figure = |value: Option<f64>| value.map_or("not defined".to_owned(), |v| format!("{v:.3}"));
    println!("score           {} in {}", ranking.metric.name(), ranking.space);
    println!("networks        {}", ranking.n);
    let interval = ranking.interval_95.map_or(String::new(), |[a, b]| format!(" (95 %: {a:.3} to {b:.3})"));
    println!("tau-b           {}{interval}", figure(ranking.tau_b));
    println!("spearman        {}", figure(ranking.spearman));
    println!("best 10 found   {}", figure(ranking.p_at_10));
    println!("best 50 found   {}", figure(ranking.p_at_50));
    println!("tau-b of macs   {}", figure(ranking.macs_tau_b));
    println!("tau-b of params {}", figure(ranking.params_tau_b));
    println!("noise ceiling   {}", figure(ranking.ceiling));
}
