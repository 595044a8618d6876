//! Latency tables: what each block of a space takes on one machine, measured or imported, and what a
//! whole network therefore takes.
//!
//! The prediction is a sum over blocks (ProxylessNAS, arXiv 1812.00332, section 3.3, and the tables of
//! TF-NAS). An entry is found by what the block computes, not by its place in a space, so a table serves
//! every space whose blocks it holds. A block that computes nothing (skip, dropout) takes no time and
//! needs no entry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use engine::{Cpu, Rng, Shape, Tape, Tensor};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::blocks::{Activation, Block, GateAct, Place};
use crate::error::{Error, Result};
use crate::evaluate::logits;
use crate::files;
use crate::model::{Context, Folds, Model, NormParams, Norms};
use crate::space::Space;

/// The version of the format that this build writes and reads.
const VERSION: u32 = 1;

/// Measured or imported times by block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LatencyTable {
    /// Version of the format.
    pub version: u32,
    /// What it was measured on.
    pub machine: Machine,
    /// Milliseconds of everything outside the slots, where the table gives them as one figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_ms: Option<f64>,
    /// By what the block computes.
    pub blocks: BTreeMap<String, Entry>,
    /// Whole networks, predicted and measured, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

/// What a table was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Machine {
    /// The processor, or where the table comes from.
    pub processor: String,
    /// Instruction set that the kernels ran with; empty if unknown.
    pub isa: String,
    /// Threads; 0 if unknown.
    pub threads: usize,
    /// Images at a time; 0 if unknown.
    pub batch: usize,
    /// `wall` or `cpu`; empty if unknown.
    pub clock: String,
}

/// What a block takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// Median in milliseconds; `None` for an entry that was dropped on import.
    pub median_ms: Option<f64>,
    /// 95th percentile in milliseconds, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<f64>,
}

/// Whole networks beside the sums over their blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Check {
    /// Pearson's correlation of predicted and measured times; 0 where it is not defined.
    pub correlation: f64,
    /// Mean of |predicted - measured| / measured.
    pub mean_error: f64,
    /// (architecture, predicted, measured), in milliseconds.
    pub networks: Vec<(String, f64, f64)>,
}

/// What is wrong with a latency table.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LatencyProblem {
    /// No such format.
    #[error("it is no latency table: {0}")]
    Format(String),
    /// Of another version.
    #[error("version {0} is not supported; measure it again")]
    Version(u32),
    /// A block of the space is not in it.
    #[error(
        "it has no entry {block:?}, which {place} of the space needs; measure the space with `monopath bench latency`"
    )]
    Missing {
        /// The entry.
        block: String,
        /// The layer or slot.
        place: String,
    },
    /// An entry that the space uses is negative.
    #[error(
        "entry {block:?}, which {place} of the space uses, is negative ({ms} ms); import it with `--negative drop` to do without such candidates"
    )]
    Negative {
        /// The entry.
        block: String,
        /// The layer or slot.
        place: String,
        /// Its value.
        ms: f64,
    },
    /// Every candidate of a slot was dropped on import.
    #[error("every candidate of {place} was dropped from it")]
    AllDropped {
        /// The slot.
        place: String,
    },
}

/// What an import does with negative entries that the space uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negative {
    /// The import ends with an error that names the entry.
    Error,
    /// The entry is dropped: no network with that block satisfies a bound on latency.
    Drop,
}

/// The times of one space's candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    fixed: f64,
    /// By slot and choice; `None` for dropped entries.
    slots: Vec<Vec<Option<f64>>>,
}

/// A name for what a block computes; `None` for one that computes nothing.
pub fn key(place: &Place, block: &Block) -> Option<String> {
    let Place { input, output, stride, size, .. } = *place;
    let head = |kind: &str| format!("{kind} {size}x{size}x{input} to {output} stride {stride}");
    Some(match block {
        Block::Skip {} | Block::Dropout { .. } => return None,
        Block::Conv { kernel, act } => format!("{} kernel {kernel} {}", head("conv"), name(*act)),
        Block::InvertedResidual { kernel, expansion, se, act } => {
            let se = se.map_or((0, None), |se| (se.hidden(input), Some(se.gate)));
            residual([size, input, output, stride], *kernel, input * expansion, se.0, se.1, *act)
        }
        Block::Shuffle { kernel } => format!("{} kernel {kernel}", head("shuffle")),
        Block::Xception {} => head("xception"),
        Block::Pool {} => head("pool"),
        Block::Linear { bias, act } => {
            format!("linear {input} to {output}{} {}", if *bias { " bias" } else { "" }, name(*act))
        }
    })
}

fn residual(
    [size, input, output, stride]: [usize; 4],
    kernel: usize,
    wide: usize,
    se: usize,
    gate: Option<GateAct>,
    act: Activation,
) -> String {
    let gate = match gate {
        None => "",
        Some(GateAct::HardSigmoid) => " hard-sigmoid",
        Some(GateAct::Sigmoid) => " sigmoid",
    };
    format!(
        "inverted-residual {size}x{size}x{input} to {output} stride {stride} kernel {kernel} wide {wide} se {se}{gate} {}",
        name(act)
    )
}

/// As in spaces.
fn name(act: Activation) -> &'static str {
    match act {
        Activation::None => "none",
        Activation::Relu => "relu",
        Activation::Relu6 => "relu6",
        Activation::HSwish => "h-swish",
        Activation::Swish => "swish",
    }
}

impl LatencyTable {
    /// Reads a table.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Latency`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&files::read(path)?, path)
    }

    /// The table in `bytes`; `path` serves messages.
    ///
    /// # Errors
    /// [`Error::Latency`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let refuse = |problem| Error::Latency { path: path.to_owned(), problem };
        let table: Self =
            serde_json::from_slice(bytes).map_err(|e| refuse(LatencyProblem::Format(e.to_string())))?;
        if table.version != VERSION {
            return Err(refuse(LatencyProblem::Version(table.version)));
        }
        Ok(table)
    }

    /// As a file.
    ///
    /// # Errors
    /// [`Error::Format`] if a figure cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Error::Format { path: PathBuf::from("latency table"), reason: e.to_string() })
    }

    /// The times of a space's layers and candidates; `path` serves messages.
    ///
    /// # Errors
    /// [`Error::Latency`] for an entry that is needed and missing or negative, and for a slot without a
    /// candidate that has one.
    pub fn of(&self, space: &Space, path: &Path) -> Result<Latency> {
        let refuse = |problem| Error::Latency { path: path.to_owned(), problem };
        let find = |place: &Place, block: &Block, at: &str| -> Result<Option<f64>> {
            let Some(block) = key(place, block) else { return Ok(Some(0.0)) };
            match self.blocks.get(&block).map(|entry| entry.median_ms) {
                None => Err(refuse(LatencyProblem::Missing { block, place: at.to_owned() })),
                Some(Some(ms)) if ms < 0.0 => {
                    Err(refuse(LatencyProblem::Negative { block, place: at.to_owned(), ms }))
                }
                Some(ms) => Ok(ms),
            }
        };
        let mut fixed = self.fixed_ms.unwrap_or(0.0);
        if self.fixed_ms.is_none() {
            for layer in space.stem().iter().chain(space.head()) {
                let dropped = || refuse(LatencyProblem::AllDropped { place: layer.name.clone() });
                fixed += find(&layer.place, &layer.block, &layer.name)?.ok_or_else(dropped)?;
            }
        }
        let mut slots = Vec::with_capacity(space.slots().len());
        for slot in space.slots() {
            let times = slot.choices.iter().map(|choice| find(&slot.place, &choice.block, &slot.name));
            let times: Vec<Option<f64>> = times.collect::<Result<_>>()?;
            if times.iter().all(Option::is_none) {
                return Err(refuse(LatencyProblem::AllDropped { place: slot.name.clone() }));
            }
            slots.push(times);
        }
        Ok(Latency { fixed, slots })
    }

    /// What of a table of TF-NAS (arXiv 2008.05314; JSON with the keys of its pickles) `space` uses:
    /// `base` is everything outside the slots, and `MBInvertedResBlock_H_in_se_out_kK_sS_act` has a time
    /// for every inner width. Its squeeze-excite has a sigmoid.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Latency`] for another format, for an entry that the space needs and that
    /// is missing, or negative unless those are dropped.
    pub fn import_tf_nas(path: &Path, space: &Space, negative: Negative) -> Result<Self> {
        let refuse = |problem| Error::Latency { path: path.to_owned(), problem };
        let format = |reason: String| refuse(LatencyProblem::Format(reason));
        let file: BTreeMap<String, TfNas> =
            serde_json::from_slice(&files::read(path)?).map_err(|e| format(e.to_string()))?;
        let Some(TfNas::Base(base)) = file.get("base") else {
            return Err(format("it has no number `base`".to_owned()));
        };
        let mut needed: BTreeMap<String, &str> = BTreeMap::new();
        for slot in space.slots() {
            let blocks = slot.choices.iter().filter_map(|choice| key(&slot.place, &choice.block));
            blocks.for_each(|block| {
                needed.entry(block).or_insert(&slot.name);
            });
        }
        let mut blocks = BTreeMap::new();
        for (block, widths) in &file {
            let TfNas::Widths(widths) = widths else { continue };
            let row = tf_nas_row(block).ok_or_else(|| format(format!("key {block:?} is not understood")))?;
            for (wide, &ms) in widths {
                let wide: usize =
                    wide.parse().map_err(|_| format(format!("{block:?} has a width {wide:?}")))?;
                let found = row.key(wide);
                let Some(place) = needed.get(&found) else { continue };
                let median_ms = match negative {
                    _ if ms >= 0.0 => Some(ms),
                    Negative::Drop => None,
                    Negative::Error => {
                        let block = format!("{block} width {wide}");
                        return Err(refuse(LatencyProblem::Negative {
                            block,
                            place: (*place).to_owned(),
                            ms,
                        }));
                    }
                };
                blocks.insert(found, Entry { median_ms, p95_ms: None });
            }
        }
        let machine = Machine {
            processor: format!("imported from {}", path.display()),
            isa: String::new(),
            threads: 0,
            batch: 0,
            clock: String::new(),
        };
        let table = Self { version: VERSION, machine, fixed_ms: Some(*base), blocks, check: None };
        table.of(space, path)?;
        Ok(table)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TfNas {
    Base(f64),
    Widths(BTreeMap<String, f64>),
}

struct TfNasRow {
    /// Side, input, output, stride.
    place: [usize; 4],
    kernel: usize,
    se: usize,
    act: Activation,
}

impl TfNasRow {
    fn key(&self, wide: usize) -> String {
        let gate = (self.se > 0).then_some(GateAct::Sigmoid);
        residual(self.place, self.kernel, wide, self.se, gate, self.act)
    }
}

fn tf_nas_row(text: &str) -> Option<TfNasRow> {
    let parts: Vec<&str> = text.strip_prefix("MBInvertedResBlock_")?.split('_').collect();
    let [size, input, se, output, kernel, stride, act] = parts[..] else { return None };
    let number = |text: &str| text.parse::<usize>().ok();
    let act = match act {
        "relu" => Activation::Relu,
        "swish" => Activation::Swish,
        _ => return None,
    };
    Some(TfNasRow {
        place: [number(size)?, number(input)?, number(output)?, number(stride.strip_prefix('s')?)?],
        kernel: number(kernel.strip_prefix('k')?)?,
        se: number(se)?,
        act,
    })
}

impl Latency {
    /// Predicted milliseconds of a network; `None` if it has a block whose entry was dropped.
    ///
    /// # Panics
    /// If `arch` is of another space.
    pub fn predict(&self, arch: &Arch) -> Option<f64> {
        let times = self.slots.iter().zip(arch.choices());
        times.map(|(slot, &choice)| slot[usize::from(choice)]).try_fold(self.fixed, |sum, ms| Some(sum + ms?))
    }

    /// Milliseconds outside the slots.
    pub fn fixed(&self) -> f64 {
        self.fixed
    }

    /// Milliseconds of one candidate; `None` if its entry was dropped or there is no such candidate.
    pub fn candidate(&self, slot: usize, choice: usize) -> Option<f64> {
        *self.slots.get(slot)?.get(choice)?
    }

    /// The least that any network of the space takes.
    pub fn least(&self) -> f64 {
        let least = |slot: &Vec<Option<f64>>| slot.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        self.fixed + self.slots.iter().map(least).sum::<f64>()
    }
}

/// How a space is measured.
pub struct Measuring<'a> {
    /// The space, for the images that count.
    pub space: &'a Space,
    /// What computes.
    pub cpu: &'a Cpu,
    /// Images at a time.
    pub batch: usize,
    /// Measurements of every block and network.
    pub samples: usize,
    /// Random networks measured whole.
    pub networks: usize,
    /// Milliseconds since some moment.
    pub clock: &'a dyn Fn() -> f64,
    /// What the clock counts, for the table.
    pub clock_name: &'a str,
    /// The processor's name, for the table.
    pub processor: String,
}

/// Rounds that are not counted: memory is taken and caches fill.
const WARM_UP: usize = 2;

impl Measuring<'_> {
    /// Measures every block of the space as it runs in inference, and whole networks beside them. One
    /// round after another goes through all of them, so that what disturbs the machine for a while
    /// disturbs all alike. `done` hears how many of the `samples` rounds are over.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn run(&self, done: &dyn Fn(usize)) -> Result<LatencyTable> {
        let Self { space, cpu, batch, samples, clock, .. } = *self;
        let model = Model::new(space, NormParams::Affine)?;
        let store = model.init(cpu, &Rng::new(0, "init"))?;
        let statistics = model.fresh_statistics(cpu)?;
        let rng = Rng::new(0, "latency");
        let probes = probes(space, cpu, batch, &rng)?;
        let archs: Vec<Arch> =
            (0..self.networks).map(|i| space.sample(&mut rng.at(1, i as u32, 0))).collect();
        let input = space.input();
        let images = normal(cpu, [batch, input.size, input.size, input.channels], &rng, 2)?;
        // Folded in the rounds that are not counted, as a network in use is.
        let folds = Folds::new(&store, &statistics);
        let mut blocks = vec![Vec::with_capacity(samples); probes.len()];
        let mut networks = vec![Vec::with_capacity(samples); archs.len()];
        for round in 0..WARM_UP + samples {
            for (probe, times) in probes.iter().zip(&mut blocks) {
                let before = clock();
                let mut tape = Tape::inference(cpu);
                let x = tape.constant(probe.input.clone());
                let norms = Norms::Folded(&folds);
                let mut cx = Context { tape: &mut tape, store: &store, norms, dropout: None };
                model.segment(&mut cx, &probe.arch, probe.segment, &x)?;
                times.push(clock() - before);
            }
            for (arch, times) in archs.iter().zip(&mut networks) {
                let before = clock();
                logits(&model, &folds, arch, &images)?;
                times.push(clock() - before);
            }
            done(round.saturating_sub(WARM_UP));
        }
        let entries = probes.into_iter().zip(blocks).map(|(probe, times)| {
            let times = sorted(&times[WARM_UP..]);
            let at = |q| Some(nanoseconds(quantile(&times, q)));
            (probe.key, Entry { median_ms: at(0.5), p95_ms: at(0.95) })
        });
        let mut table = LatencyTable {
            version: VERSION,
            machine: Machine {
                processor: self.processor.clone(),
                isa: cpu.isa().name().to_owned(),
                threads: cpu.pool().threads(),
                batch,
                clock: self.clock_name.to_owned(),
            },
            fixed_ms: None,
            blocks: entries.collect(),
            check: None,
        };
        let latency = table.of(space, Path::new("the measured table"))?;
        let networks = archs.iter().zip(networks).filter_map(|(arch, times)| {
            let measured = quantile(&sorted(&times[WARM_UP..]), 0.5);
            Some((space.text(arch), nanoseconds(latency.predict(arch)?), nanoseconds(measured)))
        });
        table.check = (!archs.is_empty()).then(|| Check::of(networks.collect()));
        Ok(table)
    }
}

impl Check {
    fn of(networks: Vec<(String, f64, f64)>) -> Self {
        let n = networks.len() as f64;
        let mean = |f: &dyn Fn(&(String, f64, f64)) -> f64| networks.iter().map(f).sum::<f64>() / n;
        let (p, m) = (mean(&|x| x.1), mean(&|x| x.2));
        let (vp, vm) = (mean(&|x| (x.1 - p).powi(2)), mean(&|x| (x.2 - m).powi(2)));
        let covariance = mean(&|x| (x.1 - p) * (x.2 - m));
        let correlation = if vp > 0.0 && vm > 0.0 { covariance / (vp * vm).sqrt() } else { 0.0 };
        let mean_error = mean(&|x| (x.1 - x.2).abs() / x.2.max(f64::MIN_POSITIVE));
        // Six digits: more are noise, and so few survive JSON.
        Self { correlation: nanoseconds(correlation), mean_error: nanoseconds(mean_error), networks }
    }
}

/// One block to be measured, in a network that has it.
struct Probe {
    key: String,
    arch: Arch,
    segment: usize,
    input: Tensor,
}

/// Every different block of the space once.
fn probes(space: &Space, cpu: &Cpu, batch: usize, rng: &Rng) -> Result<Vec<Probe>> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut add = |place: &Place, block: &Block, arch: Arch, segment: usize| -> Result<()> {
        let Some(key) = key(place, block).filter(|key| seen.insert(key.clone())) else { return Ok(()) };
        let stream = 3 + found.len() as u32;
        let input = if place.flat {
            normal(cpu, [batch, place.input], rng, stream)?
        } else {
            normal(cpu, [batch, place.size, place.size, place.input], rng, stream)?
        };
        found.push(Probe { key, arch, segment, input });
        Ok(())
    };
    let first = space.first();
    for (at, layer) in space.stem().iter().enumerate() {
        add(&layer.place, &layer.block, first.clone(), at)?;
    }
    for (at, slot) in space.slots().iter().enumerate() {
        for (choice, candidate) in slot.choices.iter().enumerate() {
            let mut choices = first.choices().to_vec();
            choices[at] = choice as u16;
            add(&slot.place, &candidate.block, Arch::new(choices), space.stem().len() + at)?;
        }
    }
    for (at, layer) in space.head().iter().enumerate() {
        let segment = space.stem().len() + space.slots().len() + at;
        add(&layer.place, &layer.block, first.clone(), segment)?;
    }
    Ok(found)
}

fn normal(cpu: &Cpu, shape: impl Into<Shape>, rng: &Rng, stream: u32) -> Result<Tensor> {
    let (shape, mut draws) = (shape.into(), rng.at(stream, 0, 0));
    let values: Vec<f32> = (0..shape.len()).map(|_| draws.normal()).collect();
    Ok(Tensor::from_slice(cpu, shape, &values)?)
}

/// Milliseconds in whole nanoseconds: what a clock tells, and what a file gives back to the bit.
fn nanoseconds(ms: f64) -> f64 {
    (ms * 1e6).round() / 1e6
}

fn sorted(times: &[f64]) -> Vec<f64> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times
}

/// Of sorted values, linear between neighbours; 0 of none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = q * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
