//! A space as its TOML file says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::blocks::Block;

/// A space's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SpaceFile {
    /// Name.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// Classes of the last layer.
    pub classes: usize,
    /// How weights start.
    #[serde(default)]
    pub init: InitRule,
    /// How an architecture is written.
    #[serde(default)]
    pub text: TextForm,
    /// Whether a skip commutes with its neighbours inside a stage after the first layer, so that
    /// several architectures are one network.
    #[serde(default)]
    pub commute_skips: bool,
    /// The images.
    pub input: Input,
    /// Batch norms.
    #[serde(default)]
    pub norm: Norm,
    /// Fixed layers before the slots.
    pub stem: Vec<Layer>,
    /// Candidates of every slot, where they fit.
    pub candidates: Vec<Candidate>,
    /// Groups of slots.
    pub stages: Vec<Stage>,
    /// Fixed layers after the slots. The last one gives the classes and names no `channels`.
    pub head: Vec<Layer>,
    /// Labels that a slot is reduced to, by the slot's name; other slots keep all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keep: BTreeMap<String, Vec<String>>,
}

/// The images a space is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Input {
    /// Side in pixels.
    pub size: usize,
    /// Channels.
    pub channels: usize,
}

/// Settings of all batch norms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Norm {
    /// Added to the variance.
    pub eps: f32,
    /// Share of a new batch in running statistics.
    pub momentum: f32,
    /// Whether the supernet's norms have scale and shift; a single network's always have.
    pub affine: bool,
}

impl Default for Norm {
    fn default() -> Self {
        Self { eps: 1e-5, momentum: 0.1, affine: true }
    }
}

/// How weights start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitRule {
    /// Convolutions normal with `std = sqrt(2 / fan-out)` (He et al. 2015), linear layers N(0, 0.01).
    #[default]
    Kaiming,
    /// The same with a fan-out that does not count groups, as in the released code of MobileNetV2, ProxylessNAS,
    /// FairNAS and ABS: a depthwise kernel of c channels has `std = sqrt(2 / (k^2 c))`.
    #[serde(rename = "mobilenet")]
    MobileNet,
    /// Weights and biases uniform in `±1 / sqrt(fan-in)`: PyTorch's layers as they come.
    #[serde(rename = "pytorch")]
    PyTorch,
    /// SPOS section 2: stem N(0, 0.01), other convolutions N(0, 1 / input channels per group), norms
    /// with shift 1e-4.
    Spos,
}

/// How an architecture is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextForm {
    /// Labels with commas between.
    #[default]
    Labels,
    /// Labels of one character with nothing between.
    Joined,
}

/// A fixed layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Output channels; left out: as many as come in. The last layer of the head has none: it gives the
    /// classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Stride; 1 if left out.
    #[serde(default = "one")]
    pub stride: usize,
    /// What it is.
    #[serde(flatten)]
    pub block: Block,
}

fn one() -> usize {
    1
}

/// A candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name in architectures and parameters: 1 to 64 letters, digits, `_` or `-`; made from the block
    /// if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// In which slots.
    #[serde(default, rename = "where")]
    pub place: Where,
    /// What it is.
    #[serde(flatten)]
    pub block: Block,
}

impl Candidate {
    /// Its label, made from the block if the file gives none.
    pub fn label(&self) -> String {
        self.label.clone().unwrap_or_else(|| self.block.label())
    }
}

/// In which slots a candidate stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Where {
    /// In all.
    #[default]
    Everywhere,
    /// Where stride is 1 and channels agree.
    SameShape,
    /// Everywhere else.
    NewShape,
}

/// A group of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stage {
    /// Output channels.
    pub channels: usize,
    /// Number of slots.
    pub slots: usize,
    /// Stride of the first slot.
    pub stride: usize,
}
