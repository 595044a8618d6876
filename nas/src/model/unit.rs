//! One candidate or fixed layer of a model, ready to run.

use engine::ops::{self, Act};
use engine::{Rng, Var};

use super::Context;
use super::layers::{ConvLayer, InvertedResidual, LinearLayer, Registry, ResidualSpec};
use crate::blocks::{Block, Place};
use crate::error::Result;

/// A block with its parameters.
#[derive(Clone, Debug)]
pub(super) enum Unit {
    /// Nothing: the output is the input.
    Skip,
    /// Dense convolution, norm, activation.
    Conv(ConvLayer),
    /// Inverted residual.
    Residual(Box<InvertedResidual>),
    /// ShuffleNetV2-style: a main branch beside a projection (stride 2) or the untouched half.
    Shuffle { input: usize, projection: Option<Box<InvertedResidual>>, main: Vec<InvertedResidual> },
    /// Mean over the plane.
    Pool,
    /// Dropout at training, with a stream of its own.
    Dropout { rate: f32, purpose: String },
    /// Linear layer.
    Linear(LinearLayer),
}

impl Unit {
    pub fn register(
        r: &mut Registry<'_>,
        prefix: &str,
        place: &Place,
        block: &Block,
        stem: bool,
    ) -> Result<Self> {
        let Place { input, output, stride, .. } = *place;
        Ok(match block {
            Block::Skip {} => Unit::Skip,
            Block::Conv { kernel, act } => Unit::Conv(ConvLayer::register(
                r,
                prefix,
                [input, output],
                [*kernel, stride],
                act.act(),
                stem,
            )?),
            Block::InvertedResidual { kernel, expansion, se, act } => {
                let spec = ResidualSpec {
                    input,
                    wide: input * expansion,
                    output,
                    kernel: *kernel,
                    stride,
                    squeeze: se.map(|se| (se.hidden(input), se.gate.act())),
                    acts: [act.act(), act.act(), Act::None],
                    residual: place.keeps_shape(),
                    expands: *expansion > 1,
                };
                Unit::Residual(Box::new(InvertedResidual::register(r, prefix, spec)?))
            }
            Block::Shuffle { kernel } => shuffle(r, prefix, place, *kernel, |input| {
                let main = ResidualSpec {
                    wide: Block::middle(place),
                    kernel: *kernel,
                    acts: [Act::Relu, Act::None, Act::Relu],
                    expands: true,
                    ..branch(input, output - input, stride)
                };
                vec![main]
            })?,
            Block::Xception {} => {
                let middle = Block::middle(place);
                shuffle(r, prefix, place, 3, |input| {
                    vec![
                        branch(input, middle, stride),
                        branch(middle, middle, 1),
                        branch(middle, output - input, 1),
                    ]
                })?
            }
            Block::Pool {} => Unit::Pool,
            Block::Dropout { rate } => Unit::Dropout { rate: *rate, purpose: prefix.to_owned() },
            Block::Linear { bias, act } => {
                Unit::Linear(LinearLayer::register(r, prefix, input, output, *bias, act.act())?)
            }
        })
    }

    pub fn forward(&self, cx: &mut Context<'_, '_>, x: &Var) -> Result<Var> {
        match self {
            Unit::Skip => Ok(x.clone()),
            Unit::Conv(layer) => layer.forward(cx, x),
            Unit::Residual(layer) => layer.forward(cx, x),
            Unit::Linear(layer) => layer.forward(cx, x),
            Unit::Pool => Ok(cx.tape.apply(ops::GlobalAvgPool, &[x])?),
            Unit::Dropout { rate, purpose } => match cx.dropout {
                Some(site) if *rate > 0.0 => {
                    let rng: Rng = site.rng.fork(purpose);
                    // The step is counted over the whole run, in two halves.
                    let (epoch, step) = ((site.step >> 32) as u32, site.step as u32);
                    let op = ops::Dropout { rate: *rate, rng, epoch, step, first_image: site.first };
                    Ok(cx.tape.apply(op, &[x])?)
                }
                _ => Ok(x.clone()),
            },
            Unit::Shuffle { input, projection, main } => {
                // SPOS section 2: even channels stay, odd channels enter the main branch; the
                // shuffle thus happens at the input of each stride-1 block.
                let (side, mut y) = match projection {
                    Some(projection) => (projection.forward(cx, x)?, x.clone()),
                    None => {
                        let half = |start| ops::ChannelSlice { start, step: 2, count: input / 2 };
                        (cx.tape.apply(half(0), &[x])?, cx.tape.apply(half(1), &[x])?)
                    }
                };
                for layer in main {
                    y = layer.forward(cx, &y)?;
                }
                Ok(cx.tape.apply(ops::Concat, &[&side, &y])?)
            }
        }
    }
}

/// Depthwise 3x3 and norm, then 1x1, norm and ReLU: what Xception blocks and projections are made of.
fn branch(input: usize, output: usize, stride: usize) -> ResidualSpec {
    ResidualSpec {
        input,
        wide: input,
        output,
        kernel: 3,
        stride,
        squeeze: None,
        acts: [Act::None, Act::None, Act::Relu],
        residual: false,
        expands: false,
    }
}

fn shuffle(
    r: &mut Registry<'_>,
    prefix: &str,
    place: &Place,
    kernel: usize,
    main: impl Fn(usize) -> Vec<ResidualSpec>,
) -> Result<Unit> {
    let input = place.input;
    let (projection, entering) = if place.keeps_shape() {
        (None, input / 2)
    } else {
        let spec = ResidualSpec { kernel, ..branch(input, input, place.stride) };
        (Some(Box::new(InvertedResidual::register(r, &format!("{prefix}.projection"), spec)?)), input)
    };
    let specs = main(entering);
    let several = specs.len() > 1;
    let mut layers = Vec::with_capacity(specs.len());
    for (i, spec) in specs.into_iter().enumerate() {
        let prefix = if several { format!("{prefix}.main{i}") } else { format!("{prefix}.main") };
        layers.push(InvertedResidual::register(r, &prefix, spec)?);
    }
    Ok(Unit::Shuffle { input, projection, main: layers })
}
