//! The harness that every op goes through: one list of cases serves values, gradients,
//! accumulation, storing and determinism.
//!
//! A case carries the definition of its op: a naive f64 forward pass. Gradients are checked
//! against central differences of *that*, since differences of an f32 forward are too noisy.

use std::fmt;

use crate::cpu::Cpu;
use crate::cuda::{Cuda, Slot};
use crate::device::Place;
use crate::error::Result;
use crate::op::Op;
use crate::params::{Layout, ParamStore};
use crate::rng::Rng;
use crate::tape::{Tape, Var};
use crate::tensor::{Shape, Tensor};

/// An f64 array for reference code.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Axes.
    pub shape: Shape,
    /// Elements, row-major.
    pub data: Vec<f64>,
}

impl Array {
    /// Zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Self { shape, data: vec![0.0; shape.len()] }
    }

    /// The value at `index`, which has as many axes as the shape.
    pub fn at<const N: usize>(&self, index: [usize; N]) -> f64 {
        self.data[self.place(index)]
    }

    /// The value at `index`, to be written.
    pub fn at_mut<const N: usize>(&mut self, index: [usize; N]) -> &mut f64 {
        let place = self.place(index);
        &mut self.data[place]
    }

    /// Element by element.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { shape: self.shape, data: self.data.iter().map(|&v| f(v)).collect() }
    }

    fn place<const N: usize>(&self, index: [usize; N]) -> usize {
        debug_assert_eq!(N, self.shape.rank());
        index.iter().zip(self.shape.dims()).fold(0, |at, (&i, &d)| {
            debug_assert!(i < d);
            at * d + i
        })
    }
}

/// One input of a case.
#[derive(Clone, Debug)]
pub enum Input {
    /// Reproducible normal values times `scale` plus `shift`, with a gradient.
    Normal {
        /// Axes.
        shape: Shape,
        /// Standard deviation.
        scale: f32,
        /// Mean.
        shift: f32,
    },
    /// Given values; differentiated if `grad`.
    Values {
        /// Axes.
        shape: Shape,
        /// Elements.
        data: Vec<f32>,
        /// Whether its gradient is checked.
        grad: bool,
    },
    /// Integers below `classes`, without a gradient.
    Labels {
        /// How many.
        len: usize,
        /// Their bound.
        classes: i32,
    },
}

impl Input {
    /// Standard normal values.
    pub fn normal(shape: impl Into<Shape>) -> Self {
        Self::Normal { shape: shape.into(), scale: 1.0, shift: 0.0 }
    }

    /// Normal values times `scale` plus `shift`.
    pub fn scaled(shape: impl Into<Shape>, scale: f32, shift: f32) -> Self {
        Self::Normal { shape: shape.into(), scale, shift }
    }

    fn has_grad(&self) -> bool {
        match self {
            Input::Normal { .. } => true,
            Input::Values { grad, .. } => *grad,
            Input::Labels { .. } => false,
        }
    }

    /// The tensor that input `index` of a case is.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn make(&self, place: &impl Place, rng: &Rng, index: usize) -> Result<Tensor> {
        let mut draws = rng.at(0, 0, index as u32);
        match self {
            Input::Normal { shape, scale, shift } => {
                let data: Vec<f32> = (0..shape.len()).map(|_| scale * draws.normal() + shift).collect();
                Tensor::from_slice(place, *shape, &data)
            }
            Input::Values { shape, data, .. } => Tensor::from_slice(place, *shape, data),
            Input::Labels { len, classes } => {
                let data: Vec<i32> = (0..*len).map(|_| draws.below(*classes as u32) as i32).collect();
                Tensor::from_slice(place, [*len], &data)
            }
        }
    }
}

/// The definition of an op in f64.
pub type Reference = Box<dyn Fn(&[Array]) -> Array + Send + Sync>;
/// The chain of primitive ops that a fused op stands for.
pub type Composition = Box<dyn Fn(&mut Tape, &[Var]) -> Result<Var> + Send + Sync>;
/// Makes the op afresh.
pub type Make = Box<dyn Fn() -> Box<dyn Op> + Send + Sync>;

/// One way to call an op.
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// The op.
    pub op: Make,
    /// Its inputs.
    pub inputs: Vec<Input>,
    /// Its definition.
    pub reference: Reference,
    /// For fused ops: the chain it replaces.
    pub composition: Option<Composition>,
    /// Allowed error of values and gradients, relative to the root mean square of the reference
    /// plus the element's own magnitude.
    pub tolerance: f64,
}

impl Case {
    /// A case with the usual tolerance of 1e-4.
    pub fn new<O: Op + Clone + 'static>(
        name: impl Into<String>,
        op: O,
        inputs: Vec<Input>,
        reference: impl Fn(&[Array]) -> Array + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            op: Box::new(move || Box::new(op.clone())),
            inputs,
            reference: Box::new(reference),
            composition: None,
            tolerance: 1e-4,
        }
    }

    /// The same with the chain of primitive ops that it replaces.
    pub fn composed(
        mut self,
        chain: impl Fn(&mut Tape, &[Var]) -> Result<Var> + Send + Sync + 'static,
    ) -> Self {
        self.composition = Some(Box::new(chain));
        self
    }

    /// The same with another tolerance; say why where it is called.
    pub fn within(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    fn title(&self) -> String {
        format!("{} [{}]", (self.op)().name(), self.name)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title())
    }
}

/// Value and gradients of one run of an op.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The output.
    pub y: Vec<f32>,
    /// The gradient of every input that has one.
    pub dx: Vec<Option<Vec<f32>>>,
}

/// What the gradients' slots hold before backward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slots {
    /// This value everywhere, to which gradients are added.
    Filled(f32),
    /// No number where the op stores, zero where it adds.
    Fresh,
}

/// Elements of an input whose derivative is checked; more are sampled.
const PROBES: usize = 48;

/// Puts a case through all checks: values and gradients against the f64 definition, accumulation,
/// storing, skipped gradients, the same bits on 1 to 4 threads, the pass that records nothing, and the
/// composition if there is one.
///
/// # Panics
/// With the case, the worst element and its index, if a check fails: this is test code.
pub fn check(case: &Case) {
    let title = case.title();
    let rng = Rng::new(7, &title);
    let cpu = Cpu::new(1).expect("one thread is allowed");
    let tensors: Vec<Tensor> = (0..case.inputs.len())
        .map(|i| case.inputs[i].make(&cpu, &rng, i).unwrap_or_else(|e| panic!("{title}: input {i}: {e}")))
        .collect();
    let wanted: Vec<bool> = case.inputs.iter().map(Input::has_grad).collect();
    let run = |threads: usize, wanted: &[bool], slots: Slots| {
        let cpu = Cpu::new(threads).expect("a few threads are allowed");
        run_op(&*(case.op)(), &cpu, &tensors, wanted, &rng, slots).unwrap_or_else(|e| panic!("{title}: {e}"))
    };

    let first = run(1, &wanted, Slots::Filled(0.0));
    let arrays: Vec<Array> = tensors.iter().map(to_array).collect();
    let want = (case.reference)(&arrays);
    compare(&title, "value", &first.y, &want.data, case.tolerance);

    check_unrecorded(case);

    let seed = seed_pattern(&rng, want.data.len());
    for (i, grads) in first.dx.iter().enumerate() {
        if let Some(grads) = grads {
            check_gradient(case, &title, &arrays, i, grads, &seed);
        }
    }

    for threads in 2..=4 {
        let other = run(threads, &wanted, Slots::Filled(0.0));
        assert!(same_bits(&first, &other), "{title}: {threads} threads give other bits than one");
    }

    // From zeros `=` and `+=` look alike, so the buffers start from a pattern here.
    let pattern = 0.75;
    let added = run(2, &wanted, Slots::Filled(pattern));
    for (i, (zero, added)) in first.dx.iter().zip(&added.dx).enumerate() {
        if let (Some(zero), Some(added)) = (zero, added) {
            let want: Vec<f64> = zero.iter().map(|&g| f64::from(g) + f64::from(pattern)).collect();
            compare(&title, &format!("accumulated gradient {i}"), added, &want, case.tolerance);
        }
    }

    let stored = run(2, &wanted, Slots::Fresh);
    for (i, (added, stored)) in first.dx.iter().zip(&stored.dx).enumerate() {
        if let (Some(added), Some(stored)) = (added, stored) {
            let want: Vec<f64> = added.iter().map(|&g| f64::from(g)).collect();
            compare(&title, &format!("stored gradient {i}"), stored, &want, 1e-6);
        }
    }

    for i in (0..wanted.len()).filter(|&i| wanted[i] && wanted.iter().filter(|&&w| w).count() > 1) {
        let mut alone = vec![false; wanted.len()];
        alone[i] = true;
        let only = run(2, &alone, Slots::Filled(0.0));
        let (a, b) = (only.dx[i].as_deref(), first.dx[i].as_deref());
        let (a, b) = (a.expect("was asked for"), b.expect("was asked for"));
        let want: Vec<f64> = b.iter().map(|&g| f64::from(g)).collect();
        compare(&title, &format!("gradient {i} asked for alone"), a, &want, 1e-6);
    }

    if let Some(chain) = &case.composition {
        check_composition(case, &title, chain, &tensors, &wanted, &rng, &first);
    }
}

/// Puts the forward pass that records nothing through the checks of values: against the f64
/// definition, and the same bits on 1 to 4 threads.
///
/// # Panics
/// As [`check`].
pub fn check_unrecorded(case: &Case) {
    let title = case.title();
    let rng = Rng::new(7, &title);
    let run = |threads: usize| -> Result<(Vec<Array>, Vec<f32>)> {
        let cpu = Cpu::new(threads)?;
        let inputs = case.inputs.iter().enumerate();
        let tensors = inputs.map(|(i, input)| input.make(&cpu, &rng, i)).collect::<Result<Vec<_>>>()?;
        let output = (case.op)().forward(&cpu, &tensors.iter().collect::<Vec<_>>(), false)?;
        assert!(output.saved.is_empty(), "{title}: something was saved for nobody");
        Ok((tensors.iter().map(to_array).collect(), output.y.f32()?.to_vec()))
    };
    let run = |threads: usize| run(threads).unwrap_or_else(|e| panic!("{title}: {e}"));
    let (arrays, first) = run(1);
    compare(&title, "unrecorded value", &first, &(case.reference)(&arrays).data, case.tolerance);
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for threads in 2..=4 {
        let other = run(threads).1;
        assert!(
            bits(&first) == bits(&other),
            "{title}: {threads} threads give other unrecorded bits than one"
        );
    }
}

/// Forward and backward of an op, the gradients' slots as `slots` says.
///
/// # Errors
/// What the op returns.
pub fn run_op(
    op: &dyn Op,
    cpu: &Cpu,
    inputs: &[Tensor],
    wanted: &[bool],
    rng: &Rng,
    slots: Slots,
) -> Result<Run> {
    let shapes: Vec<Shape> = inputs.iter().map(Tensor::shape).collect();
    let shape = op.shape(&shapes)?;
    let refs: Vec<&Tensor> = inputs.iter().collect();
    let output = op.forward(cpu, &refs, true)?;
    assert_eq!(output.y.shape(), shape, "{}: forward and shape() disagree", op.name());
    let keep = op.keep();
    let kept: Vec<Option<Tensor>> =
        inputs.iter().enumerate().map(|(i, t)| (keep.inputs >> i & 1 == 1).then(|| t.clone())).collect();
    let fresh = if slots == Slots::Fresh { op.stores() } else { 0 };
    let start = |i: usize| match slots {
        Slots::Filled(pattern) => pattern,
        Slots::Fresh if i < 32 && fresh >> i & 1 == 1 => f32::NAN,
        Slots::Fresh => 0.0,
    };
    let slot = |(i, (s, &w)): (usize, (&Shape, &bool))| w.then(|| vec![start(i); s.len()]);
    let mut dx: Vec<Option<Vec<f32>>> = shapes.iter().zip(wanted).enumerate().map(slot).collect();
    let dy = Tensor::from_slice(cpu, shape, &seed_pattern(rng, shape.len()))?;
    let handed = crate::op::Kept {
        op: op.name(),
        inputs: &kept,
        shapes: &shapes,
        output: keep.output.then_some(&output.y),
        fresh,
        saved: &output.saved,
    };
    let mut slots: Vec<Option<&mut [f32]>> = dx.iter_mut().map(|g| g.as_deref_mut()).collect();
    op.backward(cpu, &handed, &dy, &mut slots)?;
    Ok(Run { y: output.y.f32()?.to_vec(), dx })
}

/// Puts a case through the checks of a GPU: values, recorded and not, and gradients, stored and added, against the
/// f64 definition; skipped gradients; the same bits a second time.
///
/// # Errors
/// [`crate::Error::NoKernel`], where there is nothing to check; what the driver says.
///
/// # Panics
/// As [`check`].
pub fn check_on(case: &Case, cuda: &Cuda) -> Result<()> {
    let title = case.title();
    let rng = Rng::new(7, &title);
    let inputs = case.inputs.iter().enumerate();
    let tensors = inputs.map(|(i, input)| input.make(cuda, &rng, i)).collect::<Result<Vec<_>>>()?;
    let wanted: Vec<bool> = case.inputs.iter().map(Input::has_grad).collect();
    let op = (case.op)();
    let run = |wanted: &[bool], slots: Slots| run_op_on(&*op, cuda, &tensors, wanted, &rng, slots);

    let first = run(&wanted, Slots::Fresh)?;
    let arrays = tensors.iter().map(to_array).collect::<Vec<_>>();
    let want = (case.reference)(&arrays);
    compare(&title, "value", &first.y, &want.data, case.tolerance);
    let unrecorded = op.forward_cuda(cuda, &tensors.iter().collect::<Vec<_>>(), false)?;
    assert!(unrecorded.saved.is_empty(), "{title}: something was saved for nobody");
    compare(&title, "unrecorded value", &unrecorded.y.to_host()?, &want.data, case.tolerance);

    let seed = seed_pattern(&rng, want.data.len());
    for (i, grads) in first.dx.iter().enumerate() {
        if let Some(grads) = grads {
            check_gradient(case, &title, &arrays, i, grads, &seed);
        }
    }
    assert!(same_bits(&first, &run(&wanted, Slots::Fresh)?), "{title}: a second run gives other bits");

    let pattern = 0.75;
    let added = run(&wanted, Slots::Filled(pattern))?;
    for (i, (stored, added)) in first.dx.iter().zip(&added.dx).enumerate() {
        if let (Some(stored), Some(added)) = (stored, added) {
            let want: Vec<f64> = stored.iter().map(|&g| f64::from(g) + f64::from(pattern)).collect();
            compare(&title, &format!("accumulated gradient {i}"), added, &want, case.tolerance);
        }
    }
    for i in (0..wanted.len()).filter(|&i| wanted[i] && wanted.iter().filter(|&&w| w).count() > 1) {
        let mut alone = vec![false; wanted.len()];
        alone[i] = true;
        let only = run(&alone, Slots::Fresh)?;
        let (a, b) = (only.dx[i].as_deref(), first.dx[i].as_deref());
        let (a, b) = (a.expect("was asked for"), b.expect("was asked for"));
        let want: Vec<f64> = b.iter().map(|&g| f64::from(g)).collect();
        compare(&title, &format!("gradient {i} asked for alone"), a, &want, 1e-6);
    }
    Ok(())
}

/// [`run_op`] on a GPU, where every fresh slot holds no number.
///
/// # Errors
/// What the op returns.
pub fn run_op_on(
    op: &dyn Op,
    cuda: &Cuda,
    inputs: &[Tensor],
    wanted: &[bool],
    rng: &Rng,
    slots: Slots,
) -> Result<Run> {
    let shapes: Vec<Shape> = inputs.iter().map(Tensor::shape).collect();
    let shape = op.shape(&shapes)?;
    let output = op.forward_cuda(cuda, &inputs.iter().collect::<Vec<_>>(), true)?;
    assert_eq!(output.y.shape(), shape, "{}: forward and shape() disagree", op.name());
    let keep = op.keep();
    let kept: Vec<Option<Tensor>> =
        inputs.iter().enumerate().map(|(i, t)| (keep.inputs >> i & 1 == 1).then(|| t.clone())).collect();
    let slot = |(s, &w): (&Shape, &bool)| -> Result<Option<Tensor>> {
        match slots {
            _ if !w => Ok(None),
            Slots::Filled(pattern) => Ok(Some(Tensor::full(cuda, *s, pattern)?)),
            Slots::Fresh => Ok(Some(Tensor::full(cuda, *s, f32::NAN)?)),
        }
    };
    let mut dx = shapes.iter().zip(wanted).map(slot).collect::<Result<Vec<_>>>()?;
    let dy = Tensor::from_slice(cuda, shape, &seed_pattern(rng, shape.len()))?;
    let handed = crate::op::Kept {
        op: op.name(),
        inputs: &kept,
        shapes: &shapes,
        output: keep.output.then_some(&output.y),
        fresh: if slots == Slots::Fresh { u32::MAX } else { 0 },
        saved: &output.saved,
    };
    let fresh = slots == Slots::Fresh;
    let mut open: Vec<Option<Slot<'_>>> = Vec::with_capacity(dx.len());
    for tensor in &mut dx {
        open.push(match tensor {
            Some(tensor) => Some(tensor.slot(fresh)?),
            None => None,
        });
    }
    op.backward_cuda(cuda, &handed, &dy, &mut open)?;
    drop(open);
    let host = |tensor: Option<Tensor>| tensor.map(|t| t.to_host()).transpose();
    Ok(Run { y: output.y.to_host()?, dx: dx.into_iter().map(host).collect::<Result<_>>()? })
}

/// A fixed, non-uniform gradient of the output.
fn seed_pattern(rng: &Rng, len: usize) -> Vec<f32> {
    let mut draws = rng.fork("seed").at(0, 0, 0);
    (0..len).map(|_| draws.range(-1.0, 1.0)).collect()
}

fn check_gradient(case: &Case, title: &str, inputs: &[Array], i: usize, grads: &[f32], seed: &[f32]) {
    let mut draws = Rng::new(11, title).at(0, 0, i as u32);
    let len = grads.len();
    let probes: Vec<usize> = if len <= PROBES {
        (0..len).collect()
    } else {
        (0..PROBES).map(|_| draws.below(len as u32) as usize).collect()
    };
    let scale = (inputs[i].data.iter().map(|v| v * v).sum::<f64>() / len as f64).sqrt().max(1e-3);
    let step = 1e-6 * scale;
    let loss = |at: usize, delta: f64| {
        let mut moved = inputs.to_vec();
        moved[i].data[at] += delta;
        (case.reference)(&moved).data.iter().zip(seed).map(|(y, &s)| y * f64::from(s)).sum::<f64>()
    };
    let rms = (grads.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>() / len as f64).sqrt();
    for at in probes {
        let want = (loss(at, step) - loss(at, -step)) / (2.0 * step);
        let error = (f64::from(grads[at]) - want).abs();
        let allowed = case.tolerance * (want.abs() + rms) + 1e-7;
        assert!(
            error <= allowed,
            "{title}: gradient of input {i} at {at}: {} where differences give {want} (error {error:.3e}, allowed {allowed:.3e})",
            grads[at]
        );
    }
}

fn check_composition(
    case: &Case,
    title: &str,
    chain: &Composition,
    tensors: &[Tensor],
    wanted: &[bool],
    rng: &Rng,
    fused: &Run,
) {
    let cpu = Cpu::new(2).expect("two threads are allowed");
    let mut store = empty_store(&cpu);
    let mut tape = Tape::new(&cpu);
    let vars: Vec<Var> = tensors
        .iter()
        .zip(wanted)
        .map(|(t, &w)| if w { tape.leaf(t.clone()) } else { tape.constant(t.clone()) })
        .collect();
    let y = chain(&mut tape, &vars).unwrap_or_else(|e| panic!("{title}: composition: {e}"));
    let values: Vec<f64> = y.tensor().f32().expect("outputs are f32").iter().map(|&v| f64::from(v)).collect();
    compare(title, "value against the composition", &fused.y, &values, case.tolerance);
    let seed = Tensor::from_slice(&cpu, y.shape(), &seed_pattern(rng, y.shape().len())).expect("fits");
    let grads = tape.backward_from(&y, seed, &mut store).unwrap_or_else(|e| panic!("{title}: {e}"));
    for (i, (var, dx)) in vars.iter().zip(&fused.dx).enumerate() {
        if let Some(dx) = dx {
            let chain =
                grads.get(var).unwrap_or_else(|| panic!("{title}: the composition ignores input {i}"));
            let want: Vec<f64> = chain.f32().expect("f32").iter().map(|&v| f64::from(v)).collect();
            compare(title, &format!("gradient {i} against the composition"), dx, &want, case.tolerance);
        }
    }
}

/// A store without parameters, for tapes that have none.
///
/// # Panics
/// If one element of memory cannot be had.
pub fn empty_store(cpu: &Cpu) -> ParamStore {
    Layout::new().build(cpu).expect("an empty store fits")
}

fn to_array(tensor: &Tensor) -> Array {
    let data = match tensor.on_host::<f32>() {
        Ok(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Err(_) => {
            tensor.on_host::<i32>().expect("inputs are f32 or i32").iter().map(|&v| f64::from(v)).collect()
        }
    };
    Array { shape: tensor.shape(), data }
}

fn compare(title: &str, what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{title}: {what}: lengths differ");
    let rms = (want.iter().map(|v| v * v).sum::<f64>() / want.len().max(1) as f64).sqrt();
    let worst = got
        .iter()
        .zip(want)
        .map(|(&g, &w)| (f64::from(g) - w).abs() / (w.abs() + rms + 1e-6))
        .enumerate()
        // A NaN compares as the worst there is.
        .max_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Greater));
    if let Some((at, error)) = worst {
        assert!(
            error <= tolerance,
            "{title}: {what}: worst at {at}: {} where {} is right (relative error {error:.3e}, allowed {tolerance:.0e})",
            got[at],
            want[at]
        );
    }
    assert!(got.iter().all(|v| v.is_finite()), "{title}: {what}: not finite");
}

fn same_bits(a: &Run, b: &Run) -> bool {
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    bits(&a.y) == bits(&b.y)
        && a.dx.iter().zip(&b.dx).all(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => bits(a) == bits(b),
            (None, None) => true,
            _ => false,
        })
}
