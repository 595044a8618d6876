//! What a run says about itself: a closed set of events, observed by sinks that never steer.
//!
//! Events are written as JSON lines to `events.jsonl` in the run directory; the report is made from
//! that file alone, so nothing a person sees is kept elsewhere.

use serde::{Deserialize, Deserializer, Serialize};

/// The stages of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Drops candidates of the space, in turns with training.
    Shrink,
    /// Trains the shared weights, one path a step.
    TrainSupernet,
    /// Scores candidate paths on held-out images.
    Search,
    /// Trains chosen networks from scratch.
    Retrain,
    /// Scores the trained networks on the test images.
    Evaluate,
}

impl Stage {
    /// Its name in commands, events and file names.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Shrink => "shrink",
            Stage::TrainSupernet => "train-supernet",
            Stage::Search => "search",
            Stage::Retrain => "retrain",
            Stage::Evaluate => "evaluate",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Event {
    /// A stage, or one network of the retraining stage, begins or goes on.
    Started {
        /// The stage.
        stage: Stage,
        /// What it works on: `supernet`, `found`, `random-3`, `largest`, `evolution`.
        subject: String,
        /// Units of work in all (steps, candidates, images).
        total: u64,
        /// Units already done, when resumed.
        done: u64,
        /// The unit: `steps`, `candidates`, `images`.
        unit: String,
    },
    /// An optimiser step.
    Step {
        /// The stage.
        stage: Stage,
        /// What is trained.
        subject: String,
        /// Steps done, this one included.
        step: u64,
        /// Steps in all.
        total: u64,
        /// Epoch, from 0.
        epoch: u64,
        /// Mean training loss since the last event of this kind.
        #[serde(deserialize_with = "number")]
        loss: f64,
        /// Share of training images classified rightly since then.
        #[serde(deserialize_with = "number")]
        accuracy: f64,
        /// Learning rate.
        #[serde(deserialize_with = "number")]
        lr: f64,
        /// Images trained on since then.
        images: u64,
        /// Seconds since then.
        #[serde(deserialize_with = "number")]
        seconds: f64,
        /// Seconds of those in which training waited for data.
        #[serde(deserialize_with = "number")]
        waited: f64,
    },
    /// The architecture parameters after a step of theirs, once for every few events of training.
    Gates {
        /// Weight steps done.
        step: u64,
        /// Cross-entropy on the held-out images of that step.
        #[serde(deserialize_with = "number")]
        cross_entropy: f64,
        /// Expected cost, in the unit of the setting, before it.
        #[serde(deserialize_with = "number")]
        cost: f64,
        /// Their loss.
        #[serde(deserialize_with = "number")]
        loss: f64,
        /// Entropy of a slot's probabilities in nats, the mean over slots.
        #[serde(deserialize_with = "number")]
        entropy: f64,
    },
    /// Candidates of the space were dropped.
    Shrunk {
        /// The round, from 1.
        round: u64,
        /// Training steps before it.
        step: u64,
        /// Networks left, in decimal.
        networks: String,
        /// Candidates left in slots that had two or more.
        left: u64,
        /// What went.
        dropped: Vec<Dropped>,
    },
    /// A candidate was scored.
    Candidate {
        /// Its place in the order of the search, from 0.
        index: u64,
        /// Candidates wanted in all.
        total: u64,
        /// The generation that asked for it.
        generation: u64,
        /// Text form of the architecture.
        arch: String,
        /// Multiply-adds.
        macs: u64,
        /// Parameters.
        params: u64,
        /// Held-out top-1 accuracy, 0 to 1.
        #[serde(deserialize_with = "number")]
        top1: f64,
        /// Held-out top-5 accuracy, 0 to 1.
        #[serde(deserialize_with = "number")]
        top5: f64,
        /// Images scored on.
        images: u64,
    },
    /// A trained network was scored on the test images.
    Scored {
        /// `found`, `random-3`, `largest`.
        subject: String,
        /// Text form of the architecture.
        arch: String,
        /// Test top-1 accuracy, 0 to 1.
        #[serde(deserialize_with = "number")]
        top1: f64,
        /// Test top-5 accuracy, 0 to 1.
        #[serde(deserialize_with = "number")]
        top5: f64,
        /// Test images.
        images: u64,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// The stage.
        stage: Stage,
        /// What it holds.
        subject: String,
        /// Units done.
        done: u64,
        /// File name in the run directory.
        file: String,
    },
    /// Something a person should know, and the run goes on.
    Warning {
        /// What.
        message: String,
    },
    /// The loss or a gradient is not finite: the run stops.
    NonFinite {
        /// The stage.
        stage: Stage,
        /// What is trained.
        subject: String,
        /// The step, from 0.
        step: u64,
        /// The path.
        arch: String,
        /// What was not finite: `loss`, or the name of a parameter.
        what: String,
    },
    /// A stage, or one network of the retraining stage, is done.
    Finished {
        /// The stage.
        stage: Stage,
        /// What it worked on.
        subject: String,
        /// Seconds of work, over all sittings.
        #[serde(deserialize_with = "number")]
        seconds: f64,
    },
    /// A signal ended the run early, after a checkpoint.
    Interrupted {
        /// The stage.
        stage: Stage,
        /// Units done.
        done: u64,
    },
}

/// A candidate that shrinking dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dropped {
    /// Name of its slot.
    pub slot: String,
    /// Its label.
    pub label: String,
    /// Its score; none if no network with it was allowed.
    pub score: Option<f64>,
}

/// JSON has no word for what is not finite: it is written as `null` and read back as NaN.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Observes events. A sink cannot change a run; if it fails, the run stops with its error.
pub trait Sink: Send {
    /// Takes note of one event.
    ///
    /// # Errors
    /// What writing returns.
    fn event(&mut self, event: &Event) -> std::io::Result<()>;
}
