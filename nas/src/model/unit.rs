//! One candidate or fixed layer of a model, ready to run.

use engine::ops::{self, Act};
use engine::{Group, Var};

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
    /// Two branches.
    Shuffle(Box<Shuffle>),
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

    /// One call for several groups: the unit and the input of each, one output each. Groups of one kind
    /// run together; a group that runs nothing gets its input back, unmoved.
    pub fn forward(cx: &mut Context<'_, '_>, units: &[&Self], xs: &[Var]) -> Result<Vec<Var>> {
        let mut ys = xs.to_vec();
        let conv = Members::of(units, |u| if let Unit::Conv(layer) = u { Some(layer) } else { None });
        conv.run(&mut ys, |layers, xs| ConvLayer::forward(cx, layers, xs))?;
        let residual =
            Members::of(units, |u| if let Unit::Residual(layer) = u { Some(&**layer) } else { None });
        residual.run(&mut ys, |layers, xs| InvertedResidual::forward(cx, layers, xs))?;
        let linear = Members::of(units, |u| if let Unit::Linear(layer) = u { Some(layer) } else { None });
        linear.run(&mut ys, |layers, xs| LinearLayer::forward(cx, layers, xs))?;
        let shuffles = Members::of(units, |u| if let Unit::Shuffle(unit) = u { Some(&**unit) } else { None });
        shuffles.run(&mut ys, |units, xs| Shuffle::forward(cx, units, xs))?;
        let (mut places, mut plain) = (Vec::new(), Vec::new());
        for (place, unit) in units.iter().enumerate() {
            let x = || vec![xs[place].clone()];
            plain.push(match (unit, cx.dropout) {
                (Unit::Pool, _) => Group::new(ops::GlobalAvgPool, x()),
                (Unit::Dropout { rate, purpose }, Some(site)) if *rate > 0.0 => {
                    Group::new(site.op(place, *rate, purpose), x())
                }
                _ => continue,
            });
            places.push(place);
        }
        places.into_iter().zip(cx.call(plain)?).for_each(|(place, y)| ys[place] = y);
        Ok(ys)
    }
}

/// The groups of a call that run one kind of layer.
struct Members<'u, T> {
    places: Vec<usize>,
    layers: Vec<&'u T>,
}

impl<'u, T> Members<'u, T> {
    /// Those whose unit `pick` knows.
    fn of<U: Copy>(units: &[U], pick: impl Fn(U) -> Option<&'u T>) -> Self {
        let (places, layers) =
            units.iter().enumerate().filter_map(|(place, &unit)| Some((place, pick(unit)?))).unzip();
        Self { places, layers }
    }

    /// Replaces their values by what `forward` makes of them.
    fn run(
        self,
        values: &mut [Var],
        forward: impl FnOnce(&[&'u T], &[Var]) -> Result<Vec<Var>>,
    ) -> Result<()> {
        if self.places.is_empty() {
            return Ok(());
        }
        let xs: Vec<Var> = self.places.iter().map(|&place| values[place].clone()).collect();
        let ys = forward(&self.layers, &xs)?;
        self.places.into_iter().zip(ys).for_each(|(place, y)| values[place] = y);
        Ok(())
    }
}

/// ShuffleNetV2-style: a main branch beside a projection (stride 2) or the untouched half.
#[derive(Clone, Debug)]
pub(super) struct Shuffle {
    input: usize,
    projection: Option<InvertedResidual>,
    main: Vec<InvertedResidual>,
}

impl Shuffle {
    fn forward(cx: &mut Context<'_, '_>, units: &[&Self], xs: &[Var]) -> Result<Vec<Var>> {
        // SPOS section 2: even channels stay, odd channels enter the main branch; the shuffle thus
        // happens at the input of each stride-1 block.
        let half = |start: usize| {
            let op = |unit: &Self| ops::ChannelSlice { start, step: 2, count: unit.input / 2 };
            let groups = units.iter().zip(xs).filter(|(unit, _)| unit.projection.is_none());
            groups.map(|(unit, x)| Group::new(op(unit), vec![x.clone()])).collect::<Vec<_>>()
        };
        let whole: Vec<usize> = (0..units.len()).filter(|&g| units[g].projection.is_none()).collect();
        let (mut sides, mut ys) = (xs.to_vec(), xs.to_vec());
        for (values, start) in [(&mut sides, 0), (&mut ys, 1)] {
            whole.iter().zip(cx.call(half(start))?).for_each(|(&g, y)| values[g] = y);
        }
        Members::of(units, |unit: &Self| unit.projection.as_ref())
            .run(&mut sides, |layers, xs| InvertedResidual::forward(cx, layers, xs))?;
        for depth in 0..units.iter().map(|unit| unit.main.len()).max().unwrap_or(0) {
            Members::of(units, |unit: &Self| unit.main.get(depth))
                .run(&mut ys, |layers, xs| InvertedResidual::forward(cx, layers, xs))?;
        }
        cx.call(sides.into_iter().zip(ys).map(|(a, b)| Group::new(ops::Concat, vec![a, b])).collect())
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
        (Some(InvertedResidual::register(r, &format!("{prefix}.projection"), spec)?), input)
    };
    let specs = main(entering);
    let several = specs.len() > 1;
    let mut layers = Vec::with_capacity(specs.len());
    for (i, spec) in specs.into_iter().enumerate() {
        let prefix = if several { format!("{prefix}.main{i}") } else { format!("{prefix}.main") };
        layers.push(InvertedResidual::register(r, &prefix, spec)?);
    }
    Ok(Unit::Shuffle(Box::new(Shuffle { input, projection, main: layers })))
}
