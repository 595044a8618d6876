//! Values and gradients against PyTorch: `tests/data/reference.safetensors`, which
//! `tests/data/make_fixtures.py` made in f64.

use std::collections::BTreeSet;

use engine::ops::*;
use engine::optim::{Sgd, SgdConfig, WeightDecay};
use engine::{Cpu, DType, Layout, Moments, ParamKind, Result, Shape, Tape, Tensor, Var};
use safetensors::SafeTensors;

/// A chain of ops on the inputs of a case; statistics of its batch norms go into the last argument.
type Chain = Box<dyn Fn(&mut Tape, &[Var], &mut Vec<Moments>) -> Result<Var>>;

/// Every case of the file, by name.
fn cases() -> Vec<(&'static str, Chain)> {
    let conv = |stride, padding, groups| Conv2d { stride, padding, groups };
    let depthwise = |stride, dilation| DepthwiseConv2d { stride, dilation };
    let window = |stride| PoolWindow { k: 3, stride, padding: 1 };
    let norm = |affine, frozen, eps| BatchNorm { eps, affine, frozen };
    let excite = |gate| SqueezeExcite { gate };
    vec![
        ("conv2d_3x3_s1", one(conv([1, 1], [1, 1], 1))),
        ("conv2d_3x3_s2", one(conv([2, 2], [1, 1], 1))),
        ("conv2d_1x7", one(conv([1, 1], [0, 2], 1))),
        ("conv2d_groups", one(conv([2, 1], [1, 1], 2))),
        ("depthwise_k3_s1", one(depthwise(1, 1))),
        ("depthwise_k5_s2", one(depthwise(2, 1))),
        ("depthwise_k7_s1", one(depthwise(1, 1))),
        ("depthwise_k3_d2", one(depthwise(1, 2))),
        ("pointwise", one(PointwiseConv2d { bias: false })),
        ("pointwise_bias", one(PointwiseConv2d { bias: true })),
        ("linear", one(Linear { bias: false })),
        ("linear_bias", one(Linear { bias: true })),
        ("batch_norm", one(norm(false, false, 1e-3))),
        ("batch_norm_affine", one(norm(true, false, 1e-5))),
        ("batch_norm_frozen", one(norm(true, true, 1e-5))),
        ("relu", one(Activation(Act::Relu))),
        ("relu_kinks", one(Activation(Act::Relu))),
        ("relu6", one(Activation(Act::Relu6))),
        ("relu6_kinks", one(Activation(Act::Relu6))),
        ("h_swish", one(Activation(Act::HSwish))),
        ("h_swish_kinks", one(Activation(Act::HSwish))),
        ("swish", one(Activation(Act::Swish))),
        ("swish_kinks", one(Activation(Act::Swish))),
        ("sigmoid", one(Activation(Act::Sigmoid))),
        ("sigmoid_kinks", one(Activation(Act::Sigmoid))),
        ("hard_sigmoid", one(Activation(Act::HardSigmoid))),
        ("hard_sigmoid_kinks", one(Activation(Act::HardSigmoid))),
        ("global_avg_pool", one(GlobalAvgPool)),
        ("avg_pool", one(AvgPool(window(1)))),
        ("avg_pool_s2", one(AvgPool(window(2)))),
        ("max_pool", one(MaxPool(window(2)))),
        ("add", one(Add)),
        ("concat", one(Concat)),
        ("channel_slice", one(ChannelSlice { start: 1, step: 2, count: 3 })),
        ("channel_shuffle", one(ChannelShuffle { groups: 3 })),
        ("flatten", one(Flatten)),
        ("squeeze_excite_hard_sigmoid", one(excite(Act::HardSigmoid))),
        ("squeeze_excite_sigmoid", one(excite(Act::Sigmoid))),
        ("cross_entropy_0.0", one(SoftmaxCrossEntropy { smoothing: 0.0 })),
        ("cross_entropy_0.1", one(SoftmaxCrossEntropy { smoothing: 0.1 })),
        ("inverted_residual_s1", Box::new(|t, x, m| inverted_residual(t, x, m, 1))),
        ("inverted_residual_s2", Box::new(|t, x, m| inverted_residual(t, x, m, 2))),
        ("spos_shuffle_k3_s1", Box::new(|t, x, m| spos(t, x, m, 1, shuffle_branch))),
        ("spos_shuffle_k5_s2", Box::new(|t, x, m| spos(t, x, m, 2, shuffle_branch))),
        ("spos_xception_s1", Box::new(|t, x, m| spos(t, x, m, 1, xception_branch))),
        ("spos_xception_s2", Box::new(|t, x, m| spos(t, x, m, 2, xception_branch))),
    ]
}

/// Three steps each.
const STEPS: [(&str, SgdConfig); 3] = {
    let plain = SgdConfig { momentum: 0.0, nesterov: false, decay: 0.0, decays: WeightDecay::Weights };
    [
        ("sgd", plain),
        ("sgd_momentum", SgdConfig { momentum: 0.9, decay: 4e-5, ..plain }),
        ("sgd_nesterov", SgdConfig { momentum: 0.9, nesterov: true, decay: 1e-2, ..plain }),
    ]
};

/// A case of one op.
fn one<O: engine::Op + Copy + 'static>(op: O) -> Chain {
    Box::new(move |tape, inputs, moments| {
        let inputs: Vec<&Var> = inputs.iter().collect();
        let (y, more) = tape.apply_normed(op, &inputs)?;
        moments.extend(more);
        Ok(y)
    })
}

fn norm(tape: &mut Tape, inputs: &[&Var], moments: &mut Vec<Moments>) -> Result<Var> {
    let op = BatchNorm { eps: 1e-5, affine: inputs.len() == 3, frozen: false };
    let (y, more) = tape.apply_normed(op, inputs)?;
    moments.extend(more);
    Ok(y)
}

/// MobileNetV3's block; see the script for the order of the inputs.
fn inverted_residual(tape: &mut Tape, x: &[Var], moments: &mut Vec<Moments>, stride: usize) -> Result<Var> {
    let act = Activation(Act::HSwish);
    let y = tape.apply(PointwiseConv2d { bias: false }, &[&x[0], &x[1]])?;
    let y = norm(tape, &[&y, &x[2], &x[3]], moments)?;
    let y = tape.apply(act, &[&y])?;
    let y = tape.apply(DepthwiseConv2d { stride, dilation: 1 }, &[&y, &x[4]])?;
    let y = norm(tape, &[&y, &x[5], &x[6]], moments)?;
    let y = tape.apply(act, &[&y])?;
    let y = tape.apply(SqueezeExcite { gate: Act::HardSigmoid }, &[&y, &x[7], &x[8], &x[9], &x[10]])?;
    let y = tape.apply(PointwiseConv2d { bias: false }, &[&y, &x[11]])?;
    let y = norm(tape, &[&y, &x[12], &x[13]], moments)?;
    if stride == 1 { tape.apply(Add, &[&x[0], &y]) } else { Ok(y) }
}

/// Pointwise convolution, norm and ReLU.
fn pointwise(tape: &mut Tape, x: &Var, w: &Var, moments: &mut Vec<Moments>) -> Result<Var> {
    let y = tape.apply(PointwiseConv2d { bias: false }, &[x, w])?;
    let y = norm(tape, &[&y], moments)?;
    tape.apply(Activation(Act::Relu), &[&y])
}

/// Depthwise convolution and norm.
fn depthwise(tape: &mut Tape, x: &Var, w: &Var, stride: usize, moments: &mut Vec<Moments>) -> Result<Var> {
    let y = tape.apply(DepthwiseConv2d { stride, dilation: 1 }, &[x, w])?;
    norm(tape, &[&y], moments)
}

/// A branch of SPOS, from its input, the weights (its own come first) and the stride.
type Branch = fn(&mut Tape, &Var, &[Var], usize, &mut Vec<Moments>) -> Result<Var>;

fn shuffle_branch(
    tape: &mut Tape,
    x: &Var,
    w: &[Var],
    stride: usize,
    moments: &mut Vec<Moments>,
) -> Result<Var> {
    let y = pointwise(tape, x, &w[0], moments)?;
    let y = depthwise(tape, &y, &w[1], stride, moments)?;
    pointwise(tape, &y, &w[2], moments)
}

fn xception_branch(
    tape: &mut Tape,
    x: &Var,
    w: &[Var],
    stride: usize,
    moments: &mut Vec<Moments>,
) -> Result<Var> {
    let mut y = x.clone();
    for (at, pair) in w[..6].chunks_exact(2).enumerate() {
        y = depthwise(tape, &y, &pair[0], if at == 0 { stride } else { 1 }, moments)?;
        y = pointwise(tape, &y, &pair[1], moments)?;
    }
    Ok(y)
}

/// SPOS's block: the even channels pass, the odd ones go through the branch; with stride 2 all
/// channels go through both the branch and a projection, whose weights come last.
fn spos(
    tape: &mut Tape,
    inputs: &[Var],
    moments: &mut Vec<Moments>,
    stride: usize,
    branch: Branch,
) -> Result<Var> {
    let (x, w) = (&inputs[0], &inputs[1..]);
    let (rest, y) = if stride == 1 {
        let count = x.shape().channels() / 2;
        let rest = tape.apply(ChannelSlice { start: 0, step: 2, count }, &[x])?;
        let odd = tape.apply(ChannelSlice { start: 1, step: 2, count }, &[x])?;
        (rest, branch(tape, &odd, w, 1, moments)?)
    } else {
        let rest = depthwise(tape, x, &w[w.len() - 2], 2, moments)?;
        let rest = pointwise(tape, &rest, &w[w.len() - 1], moments)?;
        (rest, branch(tape, x, w, 2, moments)?)
    };
    tape.apply(Concat, &[&rest, &y])
}

/// The file, and which of its tensors were read.
struct Fixtures {
    bytes: Vec<u8>,
    read: BTreeSet<String>,
}

impl Fixtures {
    fn open() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/reference.safetensors");
        Self { bytes: std::fs::read(path).expect("the fixtures are committed"), read: BTreeSet::new() }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("the fixtures are a safetensors file")
    }

    fn get(&mut self, cpu: &Cpu, name: &str) -> Option<Tensor> {
        let file = self.file();
        let view = file.tensor(name).ok()?;
        let shape = Shape::new(view.shape()).expect("one to four axes");
        let words = view.data().chunks_exact(4).map(|b| <[u8; 4]>::try_from(b).expect("four bytes"));
        let tensor = match view.dtype() {
            safetensors::Dtype::F32 => {
                Tensor::from_slice(cpu, shape, &words.map(f32::from_le_bytes).collect::<Vec<_>>())
            }
            safetensors::Dtype::I32 => {
                Tensor::from_slice(cpu, shape, &words.map(i32::from_le_bytes).collect::<Vec<_>>())
            }
            other => panic!("{name}: {other:?}"),
        };
        self.read.insert(name.to_owned());
        Some(tensor.expect("a fixture fits"))
    }

    fn must(&mut self, cpu: &Cpu, name: &str) -> Tensor {
        self.get(cpu, name).unwrap_or_else(|| panic!("{name} is not in the fixtures"))
    }
}

/// Relative to the element and to the root mean square of all: the file is exact but for its last
/// rounding, and a chain of f32 ops with three batch norms is good for about this.
const TOLERANCE: f64 = 2e-5;

fn close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let (got, want) = (got.f32().expect("f32"), want.f32().expect("f32"));
    let rms = (want.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / want.len() as f64).sqrt();
    let (at, error) = got
        .iter()
        .zip(want)
        .map(|(&g, &w)| (f64::from(g) - f64::from(w)).abs() / (f64::from(w).abs() + rms + 1e-6))
        .enumerate()
        // A NaN compares as the worst there is.
        .max_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Greater))
        .expect("not empty");
    assert!(
        error <= TOLERANCE,
        "{what}: worst at {at}: {} where PyTorch has {} (relative error {error:.2e})",
        got[at],
        want[at]
    );
}

fn run_case(cpu: &Cpu, fixtures: &mut Fixtures, name: &str, chain: &Chain) {
    let mut tape = Tape::new(cpu);
    let mut vars = Vec::new();
    while let Some(x) = fixtures.get(cpu, &format!("{name}/x{}", vars.len())) {
        vars.push(if x.dtype() == DType::F32 { tape.leaf(x) } else { tape.constant(x) });
    }
    let mut moments = Vec::new();
    let y = chain(&mut tape, &vars, &mut moments).unwrap_or_else(|e| panic!("{name}: {e}"));
    close(&format!("{name}: value"), y.tensor(), &fixtures.must(cpu, &format!("{name}/y")));
    let dy = fixtures.must(cpu, &format!("{name}/dy"));
    let mut store = engine::check::empty_store(cpu);
    let grads = tape.backward_from(&y, dy, &mut store).unwrap_or_else(|e| panic!("{name}: {e}"));
    for (i, var) in vars.iter().enumerate() {
        if var.tensor().dtype() == DType::F32 {
            let want = fixtures.must(cpu, &format!("{name}/g{i}"));
            let got = grads.get(var).unwrap_or_else(|| panic!("{name}: input {i} has no gradient"));
            close(&format!("{name}: gradient {i}"), got, &want);
        }
    }
    for (i, batch) in moments.iter().enumerate() {
        let mean = fixtures.must(cpu, &format!("{name}/mean{i}"));
        let var = fixtures.must(cpu, &format!("{name}/var{i}"));
        // A mean may be zero by construction, so its error counts in standard deviations.
        let (got, want) = (batch.mean.f32().expect("f32"), mean.f32().expect("f32"));
        for (c, ((got, want), var)) in got.iter().zip(want).zip(var.f32().expect("f32")).enumerate() {
            let error = f64::from(got - want).abs() / (f64::from(var.sqrt()) + f64::from(want.abs()));
            assert!(error <= TOLERANCE, "{name}: mean {i} of channel {c}: {got} where PyTorch has {want}");
        }
        close(&format!("{name}: variance {i}"), &batch.var, &var);
    }
}

fn run_steps(cpu: &Cpu, fixtures: &mut Fixtures, name: &str, config: SgdConfig) -> Result<()> {
    let start = fixtures.must(cpu, &format!("{name}/start"));
    let mut layout = Layout::new();
    let id = layout.add("p", start.shape(), ParamKind::Weight)?;
    let mut store = layout.build(cpu)?;
    store.value_mut(id)?.copy_from_slice(start.f32()?);
    let mut sgd = Sgd::new(&store, config)?;
    for step in 0..3 {
        let mut tape = Tape::new(cpu);
        let p = store.read(&mut tape, id, None)?;
        let gradient = fixtures.must(cpu, &format!("{name}/grad{step}"));
        tape.backward_from(&p, gradient, &mut store)?;
        drop(p);
        sgd.step(&mut store, 0.1)?;
        let after = Tensor::from_slice(cpu, start.shape(), &store.value(id)?)?;
        close(&format!("{name}: step {step}"), &after, &fixtures.must(cpu, &format!("{name}/after{step}")));
    }
    Ok(())
}

#[test]
fn values_gradients_statistics_and_steps_are_pytorchs() {
    let cpu = Cpu::new(2).unwrap();
    let mut fixtures = Fixtures::open();
    for (name, chain) in &cases() {
        run_case(&cpu, &mut fixtures, name, chain);
    }
    for (name, config) in STEPS {
        run_steps(&cpu, &mut fixtures, name, config).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    // A tensor that only the script knows would be a check that nobody runs.
    let all: BTreeSet<String> = fixtures.file().names().into_iter().map(|n| n.to_string()).collect();
    assert_eq!(all.difference(&fixtures.read).collect::<Vec<_>>(), Vec::<&String>::new());
}
