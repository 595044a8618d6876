//! Layers as a model holds them: parameter ids, norm ids and hyper-parameters; forward on a tape.
//!
//! A forward is one call for several groups: the layer and the input of each, one output each.

use engine::init::Init;
use engine::ops::{self, Act, FoldedConv, FoldedResidual};
use engine::{Cpu, Group, Layout, ParamId, ParamKind, Tape, Tensor, Var};

use super::{Context, Folds, NormId, NormInfo, NormSite, Norms};
use crate::error::Result;
use crate::space::InitRule;

/// Registers parameters and norms under readable names.
pub(super) struct Registry<'a> {
    pub layout: &'a mut Layout,
    pub norms: &'a mut Vec<NormInfo>,
    pub inits: &'a mut Vec<(ParamId, Init)>,
    pub rule: InitRule,
    pub affine: bool,
    pub eps: f32,
}

impl Registry<'_> {
    fn add(&mut self, name: String, shape: &[usize], kind: ParamKind, init: Init) -> Result<ParamId> {
        let id = self.layout.add(name, engine::Shape::new(shape)?, kind)?;
        self.inits.push((id, init));
        Ok(id)
    }

    /// A convolution weight of `kernel` pixels from `input` to `output` channels.
    fn conv(
        &mut self,
        name: String,
        shape: &[usize],
        stem: bool,
        kernel: usize,
        [input, output]: [usize; 2],
        groups: usize,
    ) -> Result<ParamId> {
        let (fan_in, fan_out) = (input / groups, output / groups);
        let init = match self.rule {
            InitRule::Kaiming => Init::kaiming_fan_out(kernel * fan_out),
            InitRule::MobileNet => Init::kaiming_fan_out(kernel * output),
            InitRule::PyTorch => uniform(kernel * fan_in),
            // SPOS, released code: the stem N(0, 0.01), every other conv N(0, 1 / fan-in channels).
            InitRule::Spos if stem => Init::Normal { std: 0.01 },
            InitRule::Spos => Init::Normal { std: 1.0 / fan_in as f32 },
        };
        self.add(name, shape, ParamKind::Weight, init)
    }

    /// The bias of a layer with `fan_in` inputs.
    fn bias(&mut self, name: String, len: usize, fan_in: usize) -> Result<ParamId> {
        let init = match self.rule {
            InitRule::PyTorch => uniform(fan_in),
            InitRule::Kaiming | InitRule::MobileNet | InitRule::Spos => Init::Constant(0.0),
        };
        self.add(name, &[len], ParamKind::Bias, init)
    }

    fn norm(&mut self, prefix: &str, channels: usize) -> Result<NormSite> {
        let name = format!("{prefix}.norm");
        let affine = if self.affine {
            let shift = match self.rule {
                InitRule::Spos => 1e-4,
                InitRule::Kaiming | InitRule::MobileNet | InitRule::PyTorch => 0.0,
            };
            let scale =
                self.add(format!("{name}.weight"), &[channels], ParamKind::Norm, Init::Constant(1.0))?;
            let shift =
                self.add(format!("{name}.bias"), &[channels], ParamKind::Norm, Init::Constant(shift))?;
            Some((scale, shift))
        } else {
            None
        };
        self.norms.push(NormInfo { name, channels });
        Ok(NormSite { id: NormId::new(self.norms.len() - 1), eps: self.eps, affine })
    }
}

/// Uniform with the bound `1 / sqrt(fan-in)`.
fn uniform(fan_in: usize) -> Init {
    Init::Uniform { bound: 1.0 / (fan_in.max(1) as f32).sqrt() }
}

/// Dense convolution, batch norm, activation.
#[derive(Clone, Debug)]
pub(super) struct ConvLayer {
    weight: ParamId,
    norm: NormSite,
    kernel: usize,
    stride: usize,
    act: Act,
}

impl ConvLayer {
    pub fn register(
        r: &mut Registry<'_>,
        prefix: &str,
        [input, output]: [usize; 2],
        [kernel, stride]: [usize; 2],
        act: Act,
        stem: bool,
    ) -> Result<Self> {
        let name = format!("{prefix}.weight");
        let weight = if kernel == 1 && stride == 1 {
            r.conv(name, &[output, input], stem, 1, [input, output], 1)?
        } else {
            r.conv(name, &[output, kernel, kernel, input], stem, kernel * kernel, [input, output], 1)?
        };
        Ok(Self { weight, norm: r.norm(prefix, output)?, kernel, stride, act })
    }

    pub fn forward(cx: &mut Context<'_, '_>, layers: &[&Self], xs: &[Var]) -> Result<Vec<Var>> {
        if let Some((cpu, folds)) = cx.folds() {
            let run = |(layer, x): (&&Self, &Var)| {
                let folded = folds.conv(layer.norm.id, || layer.fold(cpu, folds))?;
                Ok(cx.tape.constant(folded.forward(cpu, x.tensor())?))
            };
            return layers.iter().zip(xs).map(run).collect();
        }
        let mut groups = Vec::with_capacity(xs.len());
        for (layer, x) in layers.iter().zip(xs) {
            let inputs = vec![x.clone(), cx.store.read(cx.tape, layer.weight, None)?];
            groups.push(if layer.kernel == 1 && layer.stride == 1 {
                Group::new(ops::PointwiseConv2d { bias: false }, inputs)
            } else {
                let pad = layer.kernel / 2;
                let op = ops::Conv2d { stride: [layer.stride; 2], padding: [pad; 2], groups: 1 };
                Group::new(op, inputs)
            });
        }
        let ys = cx.call(groups)?;
        let norms: Vec<NormSite> = layers.iter().map(|layer| layer.norm).collect();
        let ys = cx.norm(&norms, ys)?;
        cx.act(layers.iter().map(|layer| layer.act), ys)
    }
}

impl ConvLayer {
    fn fold(&self, cpu: &Cpu, folds: &Folds<'_>) -> Result<FoldedConv> {
        let (mut tape, mut inputs) = (Tape::inference(cpu), Vec::with_capacity(5));
        let mut cx = Context::silent(&mut tape, folds);
        cx.read_layer((self.weight, self.norm), &mut inputs)?;
        let (mean, var) = folds.statistics().get(self.norm.id)?;
        let op = ops::ConvNorm {
            stride: self.stride,
            act: self.act,
            affine: self.norm.affine.is_some(),
            eps: self.norm.eps,
        };
        let inputs: Vec<&Tensor> = inputs.iter().map(Var::tensor).chain([mean, var]).collect();
        Ok(op.fold(cpu, &inputs)?)
    }
}

/// What an [`InvertedResidual`] layer is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResidualSpec {
    pub input: usize,
    /// Width between the 1x1 convolutions.
    pub wide: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Hidden channels of the squeeze-excite layers, and their gate.
    pub squeeze: Option<(usize, Act)>,
    /// After expand, after depthwise, after project.
    pub acts: [Act; 3],
    pub residual: bool,
    /// Without it the depthwise reads the input (`wide == input`).
    pub expands: bool,
}

/// Expand, depthwise, squeeze-excite, project: the block that the engine runs fused.
#[derive(Clone, Debug)]
pub(super) struct InvertedResidual {
    spec: ResidualSpec,
    expand: Option<(ParamId, NormSite)>,
    depthwise: (ParamId, NormSite),
    squeeze: Option<[ParamId; 4]>,
    project: (ParamId, NormSite),
}

impl InvertedResidual {
    pub fn register(r: &mut Registry<'_>, prefix: &str, spec: ResidualSpec) -> Result<Self> {
        let ResidualSpec { input, wide, output, kernel, .. } = spec;
        let expand = if spec.expands {
            let prefix = format!("{prefix}.expand");
            let weight = r.conv(format!("{prefix}.weight"), &[wide, input], false, 1, [input, wide], 1)?;
            Some((weight, r.norm(&prefix, wide)?))
        } else {
            None
        };
        let of = format!("{prefix}.depthwise");
        let weight = r.conv(
            format!("{of}.weight"),
            &[kernel, kernel, wide],
            false,
            kernel * kernel,
            [wide, wide],
            wide,
        )?;
        let depthwise = (weight, r.norm(&of, wide)?);
        let squeeze = match spec.squeeze {
            Some((hidden, _)) => {
                let of = format!("{prefix}.squeeze");
                Some([
                    r.conv(format!("{of}.reduce.weight"), &[hidden, wide], false, 1, [wide, hidden], 1)?,
                    r.bias(format!("{of}.reduce.bias"), hidden, wide)?,
                    r.conv(format!("{of}.expand.weight"), &[wide, hidden], false, 1, [hidden, wide], 1)?,
                    r.bias(format!("{of}.expand.bias"), wide, hidden)?,
                ])
            }
            None => None,
        };
        let of = format!("{prefix}.project");
        let weight = r.conv(format!("{of}.weight"), &[output, wide], false, 1, [wide, output], 1)?;
        let project = (weight, r.norm(&of, output)?);
        Ok(Self { spec, expand, depthwise, squeeze, project })
    }

    pub fn forward(cx: &mut Context<'_, '_>, layers: &[&Self], xs: &[Var]) -> Result<Vec<Var>> {
        if let Some((cpu, folds)) = cx.folds() {
            let run = |(layer, x): (&&Self, &Var)| {
                let folded = folds.residual(layer.project.1.id, || layer.fold(cpu, folds, x))?;
                Ok(cx.tape.constant(folded.forward(cpu, x.tensor())?))
            };
            return layers.iter().zip(xs).map(run).collect();
        }
        let mut groups = Vec::with_capacity(xs.len());
        for (layer, x) in layers.iter().zip(xs) {
            let (op, inputs) = layer.call(cx, x)?;
            groups.push(Group::new(op, inputs));
        }
        let found = cx.tape.apply_groups(groups)?;
        let mut ys = Vec::with_capacity(xs.len());
        for (layer, (y, moments)) in layers.iter().zip(found) {
            if let Norms::Batch(found) = &mut cx.norms {
                found.extend(layer.norms().map(|norm| norm.id).zip(moments));
            }
            ys.push(y);
        }
        Ok(ys)
    }

    fn norms(&self) -> impl Iterator<Item = NormSite> {
        self.expand.iter().chain([&self.depthwise, &self.project]).map(|layer| layer.1)
    }

    fn fold(&self, cpu: &Cpu, folds: &Folds<'_>, x: &Var) -> Result<FoldedResidual> {
        let mut tape = Tape::inference(cpu);
        let (op, inputs) = self.call(&mut Context::silent(&mut tape, folds), x)?;
        Ok(op.fold(cpu, &inputs.iter().map(Var::tensor).collect::<Vec<_>>())?)
    }

    /// The op and its inputs.
    fn call(&self, cx: &mut Context<'_, '_>, x: &Var) -> Result<(ops::InvertedResidual, Vec<Var>)> {
        let mut inputs = Vec::with_capacity(20);
        inputs.push(x.clone());
        if let Some(layer) = self.expand {
            cx.read_layer(layer, &mut inputs)?;
        }
        cx.read_layer(self.depthwise, &mut inputs)?;
        for &id in self.squeeze.iter().flatten() {
            inputs.push(cx.store.read(cx.tape, id, None)?);
        }
        cx.read_layer(self.project, &mut inputs)?;
        let statistics = match cx.norms.frozen() {
            None => ops::Statistics::Batch,
            Some(statistics) => {
                for norm in self.norms() {
                    let (mean, var) = statistics.get(norm.id)?;
                    inputs.extend([cx.tape.constant(mean.clone()), cx.tape.constant(var.clone())]);
                }
                ops::Statistics::Frozen
            }
        };
        let op = ops::InvertedResidual {
            stride: self.spec.stride,
            expand: self.spec.expands,
            squeeze: self.spec.squeeze.map(|(_, gate)| gate),
            acts: self.spec.acts,
            residual: self.spec.residual,
            affine: self.project.1.affine.is_some(),
            eps: self.project.1.eps,
            statistics,
        };
        Ok((op, inputs))
    }
}

/// A linear layer with its activation.
#[derive(Clone, Debug)]
pub(super) struct LinearLayer {
    weight: ParamId,
    bias: Option<ParamId>,
    act: Act,
}

impl LinearLayer {
    pub fn register(
        r: &mut Registry<'_>,
        prefix: &str,
        input: usize,
        output: usize,
        bias: bool,
        act: Act,
    ) -> Result<Self> {
        let init = match r.rule {
            InitRule::PyTorch => uniform(input),
            InitRule::Kaiming | InitRule::MobileNet | InitRule::Spos => Init::Normal { std: 0.01 },
        };
        let weight = r.add(format!("{prefix}.weight"), &[output, input], ParamKind::Weight, init)?;
        let bias = match bias {
            true => Some(r.bias(format!("{prefix}.bias"), output, input)?),
            false => None,
        };
        Ok(Self { weight, bias, act })
    }

    pub fn forward(cx: &mut Context<'_, '_>, layers: &[&Self], xs: &[Var]) -> Result<Vec<Var>> {
        let mut groups = Vec::with_capacity(xs.len());
        for (layer, x) in layers.iter().zip(xs) {
            let mut inputs = vec![x.clone(), cx.store.read(cx.tape, layer.weight, None)?];
            if let Some(bias) = layer.bias {
                inputs.push(cx.store.read(cx.tape, bias, None)?);
            }
            groups.push(Group::new(ops::Linear { bias: layer.bias.is_some() }, inputs));
        }
        let ys = cx.call(groups)?;
        cx.act(layers.iter().map(|layer| layer.act), ys)
    }
}
