//! The kinds of block that spaces are made of: their form in a file, shapes and cost.
//!
//! How a block runs is in `model/unit.rs`.

use engine::ops::Act;
use serde::{Deserialize, Serialize};

use crate::cost::Work;

/// Largest kernel that a space may name.
const MAX_KERNEL: usize = 31;
/// Largest expansion that a space may name.
const MAX_EXPANSION: usize = 64;

/// An activation by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The identity.
    None,
    /// `max(u, 0)`.
    #[default]
    Relu,
    /// `min(max(u, 0), 6)`.
    Relu6,
    /// `u * relu6(u + 3) / 6`.
    HSwish,
    /// `u * sigmoid(u)`.
    Swish,
}

impl Activation {
    /// The engine's.
    pub fn act(self) -> Act {
        match self {
            Activation::None => Act::None,
            Activation::Relu => Act::Relu,
            Activation::Relu6 => Act::Relu6,
            Activation::HSwish => Act::HSwish,
            Activation::Swish => Act::Swish,
        }
    }
}

/// The gate of squeeze-excite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateAct {
    /// `relu6(u + 3) / 6` (MobileNetV3).
    #[default]
    HardSigmoid,
    /// `1 / (1 + exp(-u))`.
    Sigmoid,
}

impl GateAct {
    /// The engine's.
    pub fn act(self) -> Act {
        match self {
            GateAct::HardSigmoid => Act::HardSigmoid,
            GateAct::Sigmoid => Act::Sigmoid,
        }
    }
}

/// Squeeze-excite between the depthwise and the projection; ReLU inside, biases.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SqueezeExcite {
    /// Hidden channels as a share of the block's *input* channels, rounded to a multiple of 8.
    pub ratio: f64,
    /// The gate.
    #[serde(default)]
    pub gate: GateAct,
}

impl SqueezeExcite {
    /// Hidden channels of a block with `input` channels.
    pub fn hidden(&self, input: usize) -> usize {
        make_divisible(input as f64 * self.ratio)
    }
}

/// MobileNet's rounding to a multiple of 8: to the nearest, at least 8, never below 90 %.
fn make_divisible(value: f64) -> usize {
    let rounded = (((value + 4.0) / 8.0).floor() as usize * 8).max(8);
    if (rounded as f64) < 0.9 * value { rounded + 8 } else { rounded }
}

/// A kind of block with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "block", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Block {
    /// The output is the input.
    Skip {},
    /// Convolution kxk without bias, batch norm, activation.
    Conv {
        /// Odd kernel size.
        kernel: usize,
        /// Activation.
        #[serde(default)]
        act: Activation,
    },
    /// 1x1 to `expansion` times the input channels, depthwise kxk, (squeeze-excite,) 1x1; batch norm
    /// after each convolution, activation after the first two; residual where input and output agree.
    InvertedResidual {
        /// Odd kernel size.
        kernel: usize,
        /// 1: no first convolution.
        expansion: usize,
        /// Squeeze-excite, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        se: Option<SqueezeExcite>,
        /// Activation.
        #[serde(default)]
        act: Activation,
    },
    /// SPOS section 2: ShuffleNetV2-style with a 1x1, depthwise kxk, 1x1 main branch.
    Shuffle {
        /// Odd kernel size.
        kernel: usize,
    },
    /// SPOS section 2: three depthwise 3x3 and 1x1 pairs as the main branch.
    Xception {},
    /// Mean over the plane: `[n, h, w, c]` to `[n, c]`.
    Pool {},
    /// Dropout at training.
    Dropout {
        /// Share of the values that are dropped.
        rate: f32,
    },
    /// Linear layer.
    Linear {
        /// Whether it has a bias.
        bias: bool,
        /// Activation.
        #[serde(default = "no_act")]
        act: Activation,
    },
}

fn no_act() -> Activation {
    Activation::None
}

/// Where a block stands: `input` channels on a plane of `size` to `output` channels at `stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Stride.
    pub stride: usize,
    /// Side of the input plane; 1 after pooling.
    pub size: usize,
    /// Whether the plane is gone.
    pub flat: bool,
}

impl Place {
    /// Side of the output plane: `ceil(size / stride)`.
    pub fn output_size(&self) -> usize {
        self.size.div_ceil(self.stride.max(1))
    }

    /// Whether input and output have one shape.
    pub fn keeps_shape(&self) -> bool {
        self.stride == 1 && self.input == self.output
    }
}

impl Block {
    /// The label of a candidate that names none.
    pub fn label(&self) -> String {
        match self {
            Block::Skip {} => "skip".into(),
            Block::Conv { kernel, .. } => format!("conv_k{kernel}"),
            Block::InvertedResidual { kernel, expansion, .. } => format!("mb_k{kernel}_e{expansion}"),
            Block::Shuffle { kernel } => format!("shuffle_k{kernel}"),
            Block::Xception {} => "xception".into(),
            Block::Pool {} => "pool".into(),
            Block::Dropout { .. } => "dropout".into(),
            Block::Linear { .. } => "linear".into(),
        }
    }

    /// Whether it may be a candidate of a slot: it keeps the plane and does something of its own.
    pub fn is_candidate(&self) -> bool {
        match self {
            Block::Skip {}
            | Block::Conv { .. }
            | Block::InvertedResidual { .. }
            | Block::Shuffle { .. }
            | Block::Xception {} => true,
            Block::Pool {} | Block::Dropout { .. } | Block::Linear { .. } => false,
        }
    }

    /// Why the block cannot stand at `place`, if it cannot.
    pub fn problem(&self, place: &Place) -> Option<String> {
        let odd = |kernel: usize| {
            (kernel.is_multiple_of(2) || kernel > MAX_KERNEL)
                .then(|| format!("kernel = {kernel} must be odd and at most {MAX_KERNEL}"))
        };
        let flat = |wanted: bool| {
            (place.flat != wanted).then(|| {
                let state = if place.flat { "after pooling" } else { "before pooling" };
                format!("a {} layer cannot stand {state}", self.label())
            })
        };
        match self {
            Block::Skip {} => {
                (!place.keeps_shape()).then(|| "skip needs stride 1 and equal channels".to_owned())
            }
            Block::Conv { kernel, .. } => flat(false).or(odd(*kernel)),
            Block::InvertedResidual { kernel, expansion, se, .. } => flat(false)
                .or(odd(*kernel))
                .or((*expansion == 0 || *expansion > MAX_EXPANSION)
                    .then(|| format!("expansion = {expansion} must be 1 to {MAX_EXPANSION}")))
                .or(se
                    .filter(|s| !(s.ratio > 0.0 && s.ratio <= 8.0))
                    .map(|s| format!("se.ratio = {} must be above 0 and at most 8", s.ratio))),
            Block::Shuffle { kernel } => flat(false).or(odd(*kernel)).or(shuffle_problem(place)),
            Block::Xception {} => flat(false).or(shuffle_problem(place)),
            Block::Pool {} => {
                flat(false).or((!place.keeps_shape()).then(|| "pool keeps its channels".into()))
            }
            Block::Dropout { rate } => (!(0.0..1.0).contains(rate))
                .then(|| format!("rate = {rate} must be 0 to below 1"))
                .or((!place.keeps_shape()).then(|| "dropout keeps its channels".into())),
            Block::Linear { .. } => flat(true),
        }
    }

    /// Width between the 1x1 convolutions of a shuffle or Xception block.
    pub fn middle(place: &Place) -> usize {
        place.output / 2
    }

    /// What the block does there for one image.
    pub fn work(&self, place: &Place) -> Work {
        let Place { input, output, size, .. } = *place;
        let out = place.output_size();
        let mut count = Work::default();
        match self {
            Block::Skip {} | Block::Dropout { .. } => {}
            Block::Pool {} => count.pool(size, input),
            Block::Conv { kernel, .. } => count.conv(out, *kernel, input, output),
            Block::InvertedResidual { kernel, expansion, se, .. } => {
                let wide = input * expansion;
                if *expansion > 1 {
                    count.conv(size, 1, input, wide);
                }
                count.depthwise(out, *kernel, wide);
                if let Some(se) = se {
                    count.squeeze(out, wide, se.hidden(input));
                }
                count.conv(out, 1, wide, output);
            }
            Block::Shuffle { kernel } => {
                let middle = Block::middle(place);
                let entering = shuffle_side(&mut count, place, *kernel);
                count.conv(size, 1, entering, middle);
                count.depthwise(out, *kernel, middle);
                count.conv(out, 1, middle, output - entering);
            }
            Block::Xception {} => {
                let middle = Block::middle(place);
                let entering = shuffle_side(&mut count, place, 3);
                count.depthwise(out, 3, entering);
                count.conv(out, 1, entering, middle);
                count.depthwise(out, 3, middle);
                count.conv(out, 1, middle, middle);
                count.depthwise(out, 3, middle);
                count.conv(out, 1, middle, output - entering);
            }
            Block::Linear { bias, .. } => count.linear(input, output, *bias),
        }
        count
    }
}

/// Counts the projection of a block that changes the shape; returns the channels that enter the main
/// branch.
fn shuffle_side(count: &mut Work, place: &Place, kernel: usize) -> usize {
    if place.keeps_shape() {
        return place.input / 2;
    }
    count.depthwise(place.output_size(), kernel, place.input);
    count.conv(place.output_size(), 1, place.input, place.input);
    place.input
}

fn shuffle_problem(place: &Place) -> Option<String> {
    if place.keeps_shape() {
        return (!place.input.is_multiple_of(4))
            .then(|| format!("a shuffle block needs a multiple of 4 channels, found {}", place.input));
    }
    if place.output <= place.input {
        let (input, output) = (place.input, place.output);
        return Some(format!(
            "a shuffle block that changes the shape needs more than its {input} input channels, found {output}"
        ));
    }
    (!place.output.is_multiple_of(2)).then(|| "a shuffle block needs an even number of channels".into())
}
