//! The recipe: one TOML file that says everything about a run.

use std::path::{Path, PathBuf};

use engine::optim::{Decay, Schedule, SgdConfig, WeightDecay};
use serde::{Deserialize, Serialize};

use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::gates::GatesConfig;
use crate::groups::PathImages;
use crate::sample::SamplerConfig;
use crate::search::{Algorithm, SearchConfig};
use crate::shrink::{DropRule, ShrinkConfig};
use crate::space::Space;
use crate::suggest;

/// Values of a channel that a batch norm takes its statistics over at least.
const LEAST_VALUES: usize = 4;

/// Everything about a run. Relative paths start at the recipe's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// What the run is for, in a line.
    #[serde(default)]
    pub about: String,
    /// Decides all randomness.
    #[serde(default)]
    pub seed: u64,
    /// A space's name, or the path of its file.
    pub space: String,
    /// Images.
    pub data: DataConfig,
    /// Dropping of candidates before all that follows; left out: none are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrink: Option<ShrinkConfig>,
    /// Training of the shared weights.
    pub supernet: SupernetConfig,
    /// Search over the trained supernet.
    pub search: SearchConfig,
    /// Training of the networks that were found.
    pub retrain: RetrainConfig,
    /// How often progress is stored and told.
    #[serde(default)]
    pub log: LogConfig,
}

/// Training of the shared weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SupernetConfig {
    /// Which paths each step trains.
    #[serde(default)]
    pub sampler: SamplerConfig,
    /// How many paths a step trains. Left out: as many as the sampler wants, which is 1 where it does
    /// not care.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<usize>,
    /// Which images of the batch each of them sees. Left out: a slice of its own.
    #[serde(default, skip_serializing_if = "PathImages::is_slices")]
    pub images: PathImages,
    /// Paths that run side by side at most: fewer take less memory and change no bit. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths_at_once: Option<usize>,
    /// Binary gates that are trained along and decide the path of each step (ProxylessNAS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<GatesConfig>,
    /// How.
    pub train: TrainConfig,
}

/// Training of the networks that were found, from scratch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RetrainConfig {
    /// Random networks under the same constraint that are retrained alike (0: none, and no claim).
    #[serde(default = "five")]
    pub random_networks: usize,
    /// Whether the largest network of the space is retrained alike.
    #[serde(default = "yes")]
    pub largest: bool,
    /// How.
    pub train: TrainConfig,
}

fn five() -> usize {
    5
}

fn yes() -> bool {
    true
}

/// A training loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training images.
    pub epochs: u64,
    /// Images of one update.
    pub batch: usize,
    /// Images over which batch norm takes its statistics; a divisor of `batch`. Left out: `batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bn_batch: Option<usize>,
    /// Learning rate at the end of warm-up.
    pub lr: f32,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup_steps: u64,
    /// How the rate falls afterwards.
    #[serde(default)]
    pub decay: DecayConfig,
    /// Momentum, 0 to below 1.
    #[serde(default = "momentum")]
    pub momentum: f32,
    /// Nesterov's momentum.
    #[serde(default)]
    pub nesterov: bool,
    /// Weight decay.
    #[serde(default)]
    pub weight_decay: f32,
    /// What decays.
    #[serde(default)]
    pub decays: DecaysConfig,
    /// Label smoothing, 0 to below 1.
    #[serde(default)]
    pub label_smoothing: f32,
    /// Largest norm of the gradients of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f32>,
    /// Largest absolute value of a gradient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_value: Option<f32>,
}

fn momentum() -> f32 {
    0.9
}

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DecayConfig {
    /// Not at all.
    Constant,
    /// Linearly to `end`, a little every step.
    Linear {
        /// The rate at the end.
        #[serde(default)]
        end: f32,
    },
    /// As half a cosine to zero.
    Cosine,
    /// By `factor` after every `epochs`.
    Step {
        /// Epochs between falls.
        epochs: u64,
        /// What the rate is multiplied by.
        factor: f32,
    },
}

impl Default for DecayConfig {
    fn default() -> Self {
        DecayConfig::Linear { end: 0.0 }
    }
}

/// What weight decay applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecaysConfig {
    /// Convolution and linear weights.
    #[default]
    Weights,
    /// All parameters.
    All,
}

/// How often progress is stored and told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogConfig {
    /// Steps between two lines of `events.jsonl`.
    #[serde(default = "every_steps")]
    pub steps: u64,
    /// Seconds between two checkpoints.
    #[serde(default = "every_seconds")]
    pub checkpoint_seconds: f64,
}

fn every_steps() -> u64 {
    20
}

fn every_seconds() -> f64 {
    30.0
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { steps: every_steps(), checkpoint_seconds: every_seconds() }
    }
}

impl SupernetConfig {
    /// Paths that run side by side at most.
    pub fn paths_at_once(&self) -> usize {
        self.paths_at_once.unwrap_or(usize::MAX)
    }

    /// How many paths a step trains in `space`.
    ///
    /// # Errors
    /// [`Error::Setting`] if the sampler does not serve the space or wants another number, or if the
    /// batch cannot be divided by it.
    pub fn paths(&self, space: &Space) -> Result<usize> {
        let paths = match (self.paths, self.sampler.paths(space)?) {
            (Some(given), Some(wanted)) if given != wanted => {
                let range = format!(
                    "{wanted}, the candidates of a slot of {}: the sampler takes each once a step",
                    space.name()
                );
                return Err(setting("paths", given, range));
            }
            (given, wanted) => wanted.or(given).unwrap_or(1),
        };
        self.divide(paths)?;
        Ok(paths)
    }

    fn check(&self) -> Result<()> {
        self.train.check("supernet.train")?;
        self.sampler.check()?;
        if self.paths_at_once == Some(0) {
            return Err(setting("paths-at-once", 0, "1 or more".into()));
        }
        if let Some(gates) = &self.gates {
            gates.check("supernet.gates")?;
            if self.sampler != SamplerConfig::Uniform {
                return Err(Error::Setting {
                    key: "supernet.sampler".into(),
                    value: format!("{:?}", self.sampler),
                    range: "left out beside supernet.gates, which draw the paths".into(),
                });
            }
            if let Some(paths) = self.paths.filter(|&paths| paths != 1) {
                return Err(setting("paths", paths, "1 beside supernet.gates".into()));
            }
        }
        self.paths.map_or(Ok(()), |paths| self.divide(paths))
    }

    /// Checks what can be known of the space that shrinking leaves.
    fn check_after(&self, shrink: &ShrinkConfig) -> Result<()> {
        if self.sampler != SamplerConfig::Fair {
            return Ok(());
        }
        if shrink.drop != DropRule::OnePerSlot {
            return Err(Error::Setting {
                key: "shrink.drop".into(),
                value: format!("{:?}", shrink.drop),
                range: "{ kind = \"one-per-slot\" }: the sampler \"fair\" needs slots with equally many \
                        candidates"
                    .into(),
            });
        }
        match self.paths {
            Some(paths) => {
                Err(setting("paths", paths, "left out: shrinking changes how many there are".into()))
            }
            None => Ok(()),
        }
    }

    /// Checks that `paths` paths can share a batch.
    fn divide(&self, paths: usize) -> Result<()> {
        let batch = self.train.batch;
        if !(1..=1024).contains(&paths) {
            return Err(setting("paths", paths, "1 to 1,024".into()));
        }
        if self.images == PathImages::Shared {
            return Ok(());
        }
        if !batch.is_multiple_of(paths) {
            let range = format!(
                "a divisor of supernet.train.batch = {batch}, of which every path has a slice; or set \
                 supernet.images = \"shared\" to show all images to every path"
            );
            return Err(setting("paths", paths, range));
        }
        let slice = batch / paths;
        match self.train.bn_batch {
            Some(images) if !slice.is_multiple_of(images) => {
                let range = format!(
                    "a divisor of {slice}, the images that each of {paths} paths has of a batch of {batch}"
                );
                Err(setting("train.bn-batch", images, range))
            }
            _ => Ok(()),
        }
    }
}

/// A number under `supernet` that is out of its range.
fn setting(key: &str, value: usize, range: String) -> Error {
    Error::Setting { key: format!("supernet.{key}"), value: value.to_string(), range }
}

impl TrainConfig {
    /// Images over which batch norm takes its statistics.
    pub fn bn_batch(&self) -> usize {
        self.bn_batch.unwrap_or(self.batch)
    }

    /// The schedule for `steps` steps of `per_epoch` an epoch.
    pub fn schedule(&self, steps: u64, per_epoch: u64) -> Schedule {
        let decay = match self.decay {
            DecayConfig::Constant => Decay::None,
            DecayConfig::Linear { end } => Decay::Linear { end },
            DecayConfig::Cosine => Decay::Cosine,
            DecayConfig::Step { epochs, factor } => {
                Decay::Step { every: epochs.saturating_mul(per_epoch), factor }
            }
        };
        Schedule { lr: self.lr, warmup: self.warmup_steps, total: steps, decay }
    }

    /// The optimiser's settings.
    pub fn sgd(&self) -> SgdConfig {
        SgdConfig {
            momentum: self.momentum,
            nesterov: self.nesterov,
            decay: self.weight_decay,
            decays: match self.decays {
                DecaysConfig::Weights => WeightDecay::Weights,
                DecaysConfig::All => WeightDecay::All,
            },
        }
    }

    pub(crate) fn check(&self, section: &str) -> Result<()> {
        let bad = |key: &str, value: String, range: &str| {
            Err(Error::Setting { key: format!("{section}.{key}"), value, range: range.to_owned() })
        };
        let positive = |v: f32| v.is_finite() && v > 0.0;
        if self.epochs == 0 || self.epochs > 1_000_000 {
            return bad("epochs", self.epochs.to_string(), "1 to 1,000,000");
        }
        if self.batch == 0 || self.batch > 1 << 20 {
            return bad("batch", self.batch.to_string(), "1 to 1,048,576");
        }
        if self.bn_batch() == 0 || !self.batch.is_multiple_of(self.bn_batch()) {
            return bad("bn-batch", self.bn_batch().to_string(), "a divisor of batch");
        }
        if !positive(self.lr) {
            return bad("lr", self.lr.to_string(), "above 0");
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return bad("momentum", self.momentum.to_string(), "0 to below 1");
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return bad("weight-decay", self.weight_decay.to_string(), "0 or more");
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return bad("label-smoothing", self.label_smoothing.to_string(), "0 to below 1");
        }
        for (key, value) in [("clip-norm", self.clip_norm), ("clip-value", self.clip_value)] {
            if let Some(value) = value.filter(|&v| !positive(v)) {
                return bad(key, value.to_string(), "above 0");
            }
        }
        if let DecayConfig::Linear { end } = self.decay
            && !(0.0..=self.lr).contains(&end)
        {
            return bad("decay.end", end.to_string(), "0 to lr");
        }
        if let DecayConfig::Step { epochs, factor } = self.decay
            && (epochs == 0 || !positive(factor))
        {
            return bad("decay", format!("{:?}", self.decay), "epochs of at least 1 and a factor above 0");
        }
        Ok(())
    }
}

impl Recipe {
    /// Reads a recipe, with `overrides` of the form `key.sub=value` laid over it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Toml`] for a syntax error, an unknown key (with the nearest known
    /// one) or a wrong type; [`Error::Setting`] for a value outside its range.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let bytes = crate::files::read(path)?;
        let text = String::from_utf8(bytes)
            .map_err(|e| Error::Toml { path: path.to_owned(), reason: format!("not UTF-8: {e}") })?;
        Self::parse(&text, path, overrides)
    }

    /// Like [`Recipe::load`] from text; `path` serves messages and relative paths.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        let toml_error =
            |reason: String| Error::Toml { path: path.to_owned(), reason: suggest::explain(&reason) };
        let recipe: Recipe = if overrides.is_empty() {
            // Straight from the text, so that errors show the line.
            toml::from_str(text).map_err(|e| toml_error(e.to_string()))?
        } else {
            let mut table: toml::Table =
                text.parse().map_err(|e: toml::de::Error| toml_error(e.to_string()))?;
            for item in overrides {
                set(&mut table, item)?;
            }
            table.try_into().map_err(|e: toml::de::Error| toml_error(e.to_string()))?
        };
        recipe.check()?;
        Ok(recipe)
    }

    /// Checks that every batch norm of `space` sees enough values a channel to train on.
    ///
    /// Through a norm of two values the mean square of a gradient grows by about `1 / sqrt(eps)`: where the two lie
    /// closer than `sqrt(eps)`, their difference is blown up. Some blocks in a row leave what f32 holds. Of four
    /// values the growth has a bound without eps, the mean of `1 / var` (a test in `engine/src/ops/batch_norm.rs`).
    ///
    /// # Errors
    /// [`Error::Setting`] with the key.
    pub fn check_norms(&self, space: &Space) -> Result<()> {
        let head = space.head().iter().filter(|layer| !layer.place.flat).map(|layer| layer.place);
        let places = space.slots().iter().map(|slot| slot.place).chain(head);
        let side = places.map(|place| place.output_size()).min().unwrap_or(1);
        let supernet = &self.supernet;
        let slice = match supernet.images {
            PathImages::Slices => supernet.train.batch / supernet.paths(space)?,
            PathImages::Shared => supernet.train.batch,
        };
        let shrink = self.shrink.iter().map(|shrink| ("shrink", shrink.train.bn_batch()));
        let others =
            [("supernet", supernet.train.bn_batch().min(slice)), ("retrain", self.retrain.train.bn_batch())];
        match shrink.chain(others).find(|(_, images)| images * side * side < LEAST_VALUES) {
            None => Ok(()),
            Some((section, images)) => Err(Error::Setting {
                key: format!("{section}.train.bn-batch"),
                value: images.to_string(),
                range: format!(
                    "{} or more: planes shrink to {side}x{side} pixels, and gradients through a batch norm of \
                     fewer than {LEAST_VALUES} values a channel have no bound",
                    LEAST_VALUES.div_ceil(side * side)
                ),
            }),
        }
    }

    /// As TOML with every default filled in.
    ///
    /// # Errors
    /// [`Error::Toml`] if a value cannot be written.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self)
            .map_err(|e| Error::Toml { path: PathBuf::from("recipe.toml"), reason: e.to_string() })
    }

    /// Checks every value that no file is needed for.
    ///
    /// # Errors
    /// [`Error::Setting`] with the key.
    pub fn check(&self) -> Result<()> {
        if let Some(shrink) = &self.shrink {
            shrink.check()?;
            self.supernet.check_after(shrink)?;
        }
        self.supernet.check()?;
        self.retrain.train.check("retrain.train")?;
        self.search.check()?;
        if self.search.algorithm == (Algorithm::MostLikely {}) && self.supernet.gates.is_none() {
            return Err(Error::Setting {
                key: "search.algorithm.kind".into(),
                value: "most-likely".into(),
                range: "another one without supernet.gates, whose most likely network it takes".into(),
            });
        }
        self.data.check()?;
        if self.log.steps == 0 {
            return Err(Error::Setting {
                key: "log.steps".into(),
                value: "0".into(),
                range: "1 or more".into(),
            });
        }
        if self.log.checkpoint_seconds.is_nan() || self.log.checkpoint_seconds < 0.0 {
            let value = self.log.checkpoint_seconds.to_string();
            return Err(Error::Setting {
                key: "log.checkpoint-seconds".into(),
                value,
                range: "0 or more".into(),
            });
        }
        Ok(())
    }
}

/// Lays `a.b=value` over `table`. The value is TOML; what is no TOML is a string.
fn set(table: &mut toml::Table, item: &str) -> Result<()> {
    let usage = || Error::Override { item: item.to_owned() };
    let (key, value) = item.split_once('=').ok_or_else(usage)?;
    let value = format!("v = {}", value.trim())
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.trim().to_owned()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|k| !k.is_empty()).ok_or_else(usage)?;
    let mut at = table;
    for part in parts {
        let next = at.entry(part.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next.as_table_mut().ok_or_else(usage)?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}
