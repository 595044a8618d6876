//! Search spaces: data, read from TOML, resolved into layers and slots.
//!
//! A space is a value. [`Space::only`] and [`Space::without`] give new ones; slots, candidates and so
//! the names of weights stay the same, so weights survive.

mod bounds;
mod builtin;
mod file;
mod paths;
mod text;

use std::path::Path;

use crate::arch::Arch;
use crate::blocks::{Block, Place};
use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::suggest;

pub use builtin::list;
pub use file::{Candidate, InitRule, Input, Layer, Norm, SpaceFile, Stage, TextForm, Where};
pub use text::ArchFile;

/// A search space.
#[derive(Clone, Debug)]
pub struct Space {
    file: SpaceFile,
    stem: Vec<FixedLayer>,
    slots: Vec<Slot>,
    head: Vec<FixedLayer>,
    fixed: Cost,
}

/// A layer that every network of the space has.
#[derive(Clone, Debug)]
pub struct FixedLayer {
    /// Name: `stem.0`, `head.2`.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub block: Block,
}

/// A place where one of several candidates runs.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Name: `stage2.slot1`, both counted from 1.
    pub name: String,
    /// Its stage, from 0.
    pub stage: usize,
    /// Where it stands.
    pub place: Place,
    /// The candidates.
    pub choices: Vec<Choice>,
}

/// One candidate of a slot.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Label.
    pub label: String,
    /// Its place among the candidates that the slot has before any is dropped.
    pub number: usize,
    /// What it is.
    pub block: Block,
    /// What it costs here.
    pub cost: Cost,
}

impl Space {
    /// A built-in space by name, or the one in the file at that path.
    ///
    /// # Errors
    /// [`Error::UnknownSpace`] with the nearest name; [`Error::Io`]; what [`Space::parse_toml`] returns.
    pub fn load(name_or_path: &str) -> Result<Self> {
        if let Some(text) = builtin::text(name_or_path) {
            return Self::parse_toml(text, Path::new(name_or_path));
        }
        let path = Path::new(name_or_path);
        if path.extension().is_none() && !path.exists() {
            let known: Vec<&str> = builtin::names().collect();
            return Err(Error::UnknownSpace {
                name: name_or_path.to_owned(),
                nearest: suggest::nearest(name_or_path, known.iter().copied()).map(str::to_owned),
                known: known.join(", "),
            });
        }
        Self::parse_toml(&bounds::read(path)?, path)
    }

    /// Reads a space from TOML; `path` serves messages.
    ///
    /// # Errors
    /// [`Error::Toml`] for syntax, unknown keys and wrong types; [`Error::Space`] for what does not
    /// fit together.
    pub fn parse_toml(text: &str, path: &Path) -> Result<Self> {
        let file: SpaceFile = toml::from_str(text)
            .map_err(|e| Error::Toml { path: path.to_owned(), reason: suggest::explain(&e.to_string()) })?;
        Self::resolve(file)
    }

    /// As TOML that [`Space::parse_toml`] reads.
    ///
    /// # Errors
    /// [`Error::Toml`] if a value cannot be written.
    pub fn to_toml(&self) -> Result<String> {
        written(&self.file)
    }

    /// The space for other images.
    ///
    /// # Errors
    /// [`Error::Space`] if a layer does not fit them.
    pub fn with_input(&self, size: usize, channels: usize) -> Result<Self> {
        Self::resolve(SpaceFile { input: Input { size, channels }, ..self.file.clone() })
    }

    /// The space for another number of classes.
    ///
    /// # Errors
    /// [`Error::Space`] for none or too many.
    pub fn with_classes(&self, classes: usize) -> Result<Self> {
        Self::resolve(SpaceFile { classes, ..self.file.clone() })
    }

    /// The space whose only network is `arch`.
    ///
    /// # Errors
    /// [`Error::Space`] if `arch` is not of this space.
    pub fn only(&self, arch: &Arch) -> Result<Self> {
        self.check(arch)?;
        let mut file = self.file.clone();
        let open = |(slot, _): &(&Slot, &u16)| slot.choices.len() > 1;
        for (slot, &choice) in self.slots.iter().zip(arch.choices()).filter(open) {
            file.keep.insert(slot.name.clone(), vec![slot.choices[usize::from(choice)].label.clone()]);
        }
        Self::resolve(file)
    }

    /// The space without some candidates, each given as (slot, place among its choices).
    ///
    /// # Errors
    /// [`Error::Space`] if a slot would have none left, or has no such candidate.
    pub fn without(&self, dropped: &[(usize, usize)]) -> Result<Self> {
        let problem = |at: String, reason: String| Error::Space { space: self.file.name.clone(), at, reason };
        let mut file = self.file.clone();
        for &(s, c) in dropped {
            let Some(slot) = self.slots.get(s) else {
                let reason = format!("there are {} slots, counted from 0", self.slots.len());
                return Err(problem(format!("slot {s}"), reason));
            };
            if c >= slot.choices.len() {
                let reason = format!("no candidate {c} among {}, counted from 0", slot.choices.len());
                return Err(problem(slot.name.clone(), reason));
            }
            let kept = slot.choices.iter().enumerate().filter(|(c, _)| !dropped.contains(&(s, *c)));
            file.keep.insert(slot.name.clone(), kept.map(|(_, choice)| choice.label.clone()).collect());
        }
        Self::resolve(file)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// What it is, in a line.
    pub fn about(&self) -> &str {
        &self.file.about
    }

    /// The images it is made for.
    pub fn input(&self) -> Input {
        self.file.input
    }

    /// Classes.
    pub fn classes(&self) -> usize {
        self.file.classes
    }

    /// Settings of all batch norms.
    pub fn norm(&self) -> Norm {
        self.file.norm
    }

    /// How weights start.
    pub fn init(&self) -> InitRule {
        self.file.init
    }

    /// Fixed layers before the slots.
    pub fn stem(&self) -> &[FixedLayer] {
        &self.stem
    }

    /// The slots.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Fixed layers after the slots.
    pub fn head(&self) -> &[FixedLayer] {
        &self.head
    }

    /// BLAKE3 in hexadecimal over the space's file in its canonical form, less the line about it.
    ///
    /// # Errors
    /// [`Error::Toml`] if a value cannot be written.
    pub fn digest(&self) -> Result<String> {
        let meaning = SpaceFile { about: String::new(), ..self.file.clone() };
        Ok(blake3::hash(written(&meaning)?.as_bytes()).to_hex().to_string())
    }

    fn resolve(file: SpaceFile) -> Result<Self> {
        if let Err((at, reason)) = bounds::check(&file) {
            return Err(Error::Space { space: file.name, at, reason });
        }
        let mut walk = Walk::new(&file);
        let stem = walk.fixed("stem", &file.stem, None)?;
        let mut slots = Vec::new();
        for (s, stage) in file.stages.iter().enumerate() {
            for i in 0..stage.slots {
                let stride = if i == 0 { stage.stride } else { 1 };
                slots.push(walk.slot(format!("stage{}.slot{}", s + 1, i + 1), s, stage.channels, stride)?);
            }
        }
        let head = walk.fixed("head", &file.head, Some(file.classes))?;
        if !matches!(head.last(), Some(FixedLayer { block: Block::Linear { .. }, .. })) {
            return Err(walk.problem("head", "the last layer must be linear".into()));
        }
        if let Some(unknown) = file.keep.keys().find(|k| slots.iter().all(|s| s.name != **k)) {
            return Err(walk.problem(&format!("keep.{unknown:?}"), "there is no such slot".into()));
        }
        let fixed = walk.fixed_cost;
        Ok(Self { file, stem, slots, head, fixed })
    }
}

fn written(file: &SpaceFile) -> Result<String> {
    toml::to_string(file).map_err(|e| Error::Toml { path: file.name.clone().into(), reason: e.to_string() })
}

/// Walks through a network from the image on and knows what comes in where and what it has cost so far.
struct Walk<'a> {
    file: &'a SpaceFile,
    channels: usize,
    size: usize,
    flat: bool,
    /// Of the fixed layers.
    fixed_cost: Cost,
    /// Multiply-adds of the largest network.
    macs: u64,
    /// Parameters of the supernet.
    params: u64,
}

impl<'a> Walk<'a> {
    fn new(file: &'a SpaceFile) -> Self {
        let Input { size, channels } = file.input;
        Self { file, channels, size, flat: false, fixed_cost: Cost::default(), macs: 0, params: 0 }
    }

    fn problem(&self, at: &str, reason: String) -> Error {
        Error::Space { space: self.file.name.clone(), at: at.to_owned(), reason }
    }

    /// Passes a layer in which any of `blocks` may run; returns where it stands and what each costs.
    fn pass(
        &mut self,
        name: &str,
        output: usize,
        stride: usize,
        blocks: &[&Block],
    ) -> Result<(Place, Vec<Cost>)> {
        let place = Place { input: self.channels, output, stride, size: self.size, flat: self.flat };
        if let Some(reason) = blocks.iter().find_map(|block| block.problem(&place)) {
            return Err(self.problem(name, reason));
        }
        let costs: Option<Vec<Cost>> = blocks.iter().map(|block| block.work(&place).cost()).collect();
        let Some(costs) = costs.filter(|costs| self.count(costs)) else {
            return Err(self.problem(
                name,
                "with this layer the largest network has more than 2^53 multiply-adds, or the supernet more \
                 than 2^53 parameters; lower channels, kernels, slots or the size of the input"
                    .into(),
            ));
        };
        let pooled = blocks.iter().any(|b| matches!(b, Block::Pool {}));
        self.channels = output;
        self.size = if pooled { 1 } else { place.output_size() };
        self.flat |= pooled;
        Ok((place, costs))
    }

    /// Adds a layer's candidates; false if the sums exceed [`Cost::MAX`]. They cannot wrap: one layer has
    /// at most 2^8 candidates of at most 2^53 each.
    fn count(&mut self, candidates: &[Cost]) -> bool {
        self.macs += candidates.iter().map(|c| c.macs).max().unwrap_or(0);
        self.params += candidates.iter().map(|c| c.params).sum::<u64>();
        self.macs.max(self.params) <= Cost::MAX
    }

    /// Fixed layers; `classes` is what the last of them gives.
    fn fixed(&mut self, prefix: &str, layers: &[Layer], classes: Option<usize>) -> Result<Vec<FixedLayer>> {
        let mut resolved = Vec::with_capacity(layers.len());
        for (i, layer) in layers.iter().enumerate() {
            let name = format!("{prefix}.{i}");
            let last = classes.filter(|_| i + 1 == layers.len());
            let output = last.or(layer.channels).unwrap_or(self.channels);
            let (place, costs) = self.pass(&name, output, layer.stride, &[&layer.block])?;
            self.fixed_cost = self.fixed_cost + costs.into_iter().sum();
            resolved.push(FixedLayer { name, place, block: layer.block.clone() });
        }
        Ok(resolved)
    }

    fn slot(&mut self, name: String, stage: usize, output: usize, stride: usize) -> Result<Slot> {
        let same = stride == 1 && self.channels == output;
        let kept = self.file.keep.get(&name);
        let all: Vec<(String, &Block)> = self
            .file
            .candidates
            .iter()
            .filter(|c| match c.place {
                Where::Everywhere => true,
                Where::SameShape => same,
                Where::NewShape => !same,
            })
            .map(|c| (c.label(), &c.block))
            .collect();
        if let Some(twice) = (1..all.len()).find(|&i| all[..i].iter().any(|c| c.0 == all[i].0)) {
            return Err(self.problem(&name, format!("two candidates are called {:?}", all[twice].0)));
        }
        if let Some(lost) = kept.and_then(|k| k.iter().find(|l| all.iter().all(|(c, _)| c != *l))) {
            return Err(self.problem(&name, format!("keep names {lost:?}, which is no candidate here")));
        }
        let is_kept = |label: &String| kept.is_none_or(|kept| kept.contains(label));
        let chosen: Vec<(usize, (String, &Block))> =
            all.into_iter().enumerate().filter(|(_, (label, _))| is_kept(label)).collect();
        if chosen.is_empty() {
            return Err(self.problem(&name, "no candidate is left".into()));
        }
        let blocks: Vec<&Block> = chosen.iter().map(|(_, (_, block))| *block).collect();
        let (place, costs) = self.pass(&name, output, stride, &blocks)?;
        let choices = chosen
            .into_iter()
            .zip(costs)
            .map(|((number, (label, block)), cost)| Choice { label, number, block: block.clone(), cost })
            .collect();
        Ok(Slot { name, stage, place, choices })
    }
}
