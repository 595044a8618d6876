//! The ranking truth: how well a score that is cheap to have orders networks that were each trained.
//!
//! Every figure stands beside what counting multiply-adds and parameters gives on the same networks, and beside
//! the ceiling that the noise of training sets.

pub mod correlation;
mod jacobian;
mod truth;
mod zero_cost;

use std::path::PathBuf;
use std::time::Instant;

use engine::Rng;
use serde::{Deserialize, Serialize};

pub use jacobian::jacobian_covariance;
pub(crate) use truth::Tested;
pub use truth::{Trained, Truth};
pub use zero_cost::{Synflow, gradient_norm};

use crate::error::{Error, Result};
use crate::model::{Model, NormParams};
use crate::space::Space;

/// A score of a network that is not trained by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Held-out accuracy with the supernet's weights, after calibration of the batch norms.
    Accuracy,
    /// The angle that training has turned the weights by (ABS).
    Angle,
    /// Multiply-adds.
    Macs,
    /// Parameters.
    Params,
    /// Synaptic flow at initialisation.
    Synflow,
    /// Norm of the gradient at initialisation.
    GradientNorm,
    /// How differently images are answered to at initialisation.
    JacobianCovariance,
}

impl Metric {
    /// Its name in `rank.json`.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::Angle => "angle",
            Metric::Macs => "macs",
            Metric::Params => "params",
            Metric::Synflow => "synflow",
            Metric::GradientNorm => "gradient-norm",
            Metric::JacobianCovariance => "jacobian-covariance",
        }
    }
}

/// What is ranked and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The score.
    pub metric: Metric,
    /// Networks drawn from the truth; all without it.
    pub networks: Option<usize>,
    /// Decides which networks, which held-out images, and the bootstrap.
    pub seed: u64,
    /// Training images that calibrate the batch norms of each network; 0: every batch of held-out images is
    /// normalised by itself.
    pub calibration_images: usize,
    /// Held-out images that an accuracy is taken on, as many of each class.
    pub held_out_images: usize,
    /// Weights of the supernet in another file than the run's `supernet.safetensors`: a checkpoint on the way.
    pub weights: Option<PathBuf>,
}

/// One network: how it scored and what it reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct Point {
    /// Text form of the architecture.
    pub arch: String,
    /// The score.
    pub score: f64,
    /// Accuracy in per cent when trained by itself.
    pub truth: f64,
}

/// How well a score orders the networks. What is not defined for them is left out (`null`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct Ranking {
    /// The score.
    pub metric: Metric,
    /// Name of the space.
    pub space: String,
    /// Networks compared.
    pub n: usize,
    /// Kendall's tau-b.
    pub tau_b: Option<f64>,
    /// Spearman's rho.
    pub spearman: Option<f64>,
    /// The share of the 10 truly best networks among the 10 with the highest score.
    pub p_at_10: Option<f64>,
    /// The same of 50.
    pub p_at_50: Option<f64>,
    /// 95 % of tau-b over resamples of the networks.
    pub interval_95: Option<[f64; 2]>,
    /// Tau-b of multiply-adds on the same networks.
    pub macs_tau_b: Option<f64>,
    /// Tau-b of parameters on the same networks.
    pub params_tau_b: Option<f64>,
    /// Tau-b of one training against the mean of the others, where the truth holds several.
    pub ceiling: Option<f64>,
    /// The seed.
    pub seed: u64,
    /// Seconds that scoring took, over all sittings.
    pub seconds: f64,
    /// Every network.
    pub points: Vec<Point>,
}

impl Ranking {
    /// Compares `scores` of the networks of `truth`, in its order.
    ///
    /// # Errors
    /// [`Error::Unrankable`] if a score is no number.
    pub fn new(metric: Metric, space: &Space, truth: &Truth, scores: &[f64], seed: u64) -> Result<Self> {
        let networks = truth.networks();
        if let Some((network, score)) = networks.iter().zip(scores).find(|(_, score)| !score.is_finite()) {
            let arch = space.text(&network.arch);
            return Err(Error::Unrankable { metric: metric.name(), arch, score: *score });
        }
        let truths: Vec<f64> = networks.iter().map(|n| n.accuracy).collect();
        let costs: Vec<_> = networks.iter().map(|n| space.cost(&n.arch)).collect();
        let tau = |of: &dyn Fn(usize) -> u64| {
            let values: Vec<f64> = (0..costs.len()).map(|i| of(i) as f64).collect();
            correlation::tau_b(&values, &truths)
        };
        let point = |(network, &score): (&Trained, &f64)| Point {
            arch: space.text(&network.arch),
            score,
            truth: network.accuracy,
        };
        Ok(Self {
            metric,
            space: space.name().to_owned(),
            n: networks.len(),
            tau_b: correlation::tau_b(scores, &truths),
            spearman: correlation::spearman(scores, &truths),
            p_at_10: correlation::precision_at(10, scores, &truths),
            p_at_50: correlation::precision_at(50, scores, &truths),
            interval_95: correlation::interval_95(scores, &truths, &Rng::new(seed, "bootstrap")),
            macs_tau_b: tau(&|i| costs[i].macs),
            params_tau_b: tau(&|i| costs[i].params),
            ceiling: truth.ceiling(),
            seed,
            seconds: 0.0,
            points: networks.iter().zip(scores).map(point).collect(),
        })
    }
}

/// Scores the networks by what needs neither trained weights nor images: [`Metric::Macs`],
/// [`Metric::Params`], [`Metric::Synflow`].
///
/// # Errors
/// [`Error::Setting`] for any other; what the engine returns.
pub fn space_scores(
    space: &Space,
    truth: &Truth,
    request: &Request,
    device: &impl engine::Place,
) -> Result<Vec<f64>> {
    let mut archs = truth.networks().iter().map(|network| &network.arch);
    match request.metric {
        Metric::Macs => Ok(archs.map(|arch| space.cost(arch).macs as f64).collect()),
        Metric::Params => Ok(archs.map(|arch| space.cost(arch).params as f64).collect()),
        Metric::Synflow => {
            let model = Model::new(space, NormParams::Supernet)?;
            let store = model.init(device, &Rng::new(request.seed, "init"))?;
            let mut synflow = Synflow::new(&model, store)?;
            archs.try_fold(Vec::new(), |mut scores, arch| {
                scores.push(synflow.score(arch)?);
                Ok(scores)
            })
        }
        Metric::Accuracy | Metric::Angle | Metric::GradientNorm | Metric::JacobianCovariance => {
            Err(Error::Setting {
                key: "metric".into(),
                value: request.metric.name().into(),
                range: "macs, params or synflow where there is no run".into(),
            })
        }
    }
}

/// Ranks the networks of `truth` by a score that needs no run.
///
/// # Errors
/// As [`space_scores`] and [`Ranking::new`].
pub fn rank_space(
    space: &Space,
    truth: &Truth,
    request: &Request,
    device: &impl engine::Place,
) -> Result<Ranking> {
    let started = Instant::now();
    let scores = space_scores(space, truth, request, device)?;
    let ranking = Ranking::new(request.metric, space, truth, &scores, request.seed)?;
    Ok(Ranking { seconds: started.elapsed().as_secs_f64(), ..ranking })
}
