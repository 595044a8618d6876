//! The tape: what one step computed, so that it can be walked back.
//!
//! A tape is passed by hand and remembers nothing between steps. `backward` empties it and keeps
//! its memory. First derivatives only.
//!
//! One *call* may hold several *groups*: independent ops, each with inputs of its own
//! ([`Tape::apply_groups`]). Backward walks the calls from the last to the first, but the groups of a
//! call from the first to the last, and a parameter's gradient is added into the store by the very op
//! that read it. So the gradients of several groups are, to the bit, those of one tape per group, walked
//! one after another.

use crate::cuda::Slot;
use crate::device::{Device, Place};
use crate::error::{Error, Result};
use crate::op::{Kept, Moments, Op, Output};
use crate::params::{ParamId, ParamStore, Window};
use crate::tensor::{DType, Shape, Tensor};

/// A value on a tape: a tensor, and where it came from if gradients can flow back.
#[derive(Clone, Debug)]
pub struct Var {
    tensor: Tensor,
    node: Option<usize>,
}

impl Var {
    /// The value.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.tensor.shape()
    }
}

/// The record of one step.
#[derive(Debug)]
pub struct Tape {
    device: Device,
    nodes: Vec<Node>,
    recording: bool,
}

#[derive(Debug)]
enum Node {
    /// A tensor whose gradient the caller wants.
    Leaf,
    /// A parameter, or a window of one.
    Param { id: ParamId, window: Option<Window> },
    /// The output of an op.
    Op(Box<Applied>),
}

/// Where the gradient of an input goes.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// Nowhere.
    Constant,
    /// To the node that made it.
    Node(usize),
    /// Into the store.
    Param(ParamId, Option<Window>),
}

#[derive(Debug)]
struct Applied {
    op: Box<dyn Op>,
    sources: Vec<Source>,
    shapes: Vec<Shape>,
    inputs: Vec<Option<Tensor>>,
    output: Option<Tensor>,
    saved: Vec<Tensor>,
    shape: Shape,
}

/// One group of a call: an op and what it is applied to.
#[derive(Debug)]
pub struct Group {
    /// The op.
    pub op: Box<dyn Op>,
    /// Its inputs.
    pub inputs: Vec<Var>,
}

impl Group {
    /// `op` applied to `inputs`.
    pub fn new(op: impl Op + 'static, inputs: Vec<Var>) -> Self {
        Self { op: Box::new(op), inputs }
    }
}

/// Gradients of the leaves of a tape.
#[derive(Debug)]
pub struct Grads(Vec<Option<Tensor>>);

impl Grads {
    /// The gradient of a leaf, or `None` if the loss does not depend on it.
    pub fn get(&self, leaf: &Var) -> Option<&Tensor> {
        self.0.get(leaf.node?)?.as_ref()
    }
}

impl Tape {
    /// A tape that records.
    pub fn new(place: &impl Place) -> Self {
        Self { device: place.device(), nodes: Vec::new(), recording: true }
    }

    /// A tape that records nothing: intermediate values are freed as soon as they are read.
    pub fn inference(place: &impl Place) -> Self {
        Self { recording: false, ..Self::new(place) }
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether `backward` will be possible.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// A value without a gradient: images, labels, statistics.
    pub fn constant(&self, tensor: Tensor) -> Var {
        Var { tensor, node: None }
    }

    /// A value whose gradient [`Tape::backward`] returns.
    pub fn leaf(&mut self, tensor: Tensor) -> Var {
        self.push(tensor, Node::Leaf)
    }

    pub(crate) fn param(&mut self, tensor: Tensor, id: ParamId, window: Option<Window>) -> Var {
        self.push(tensor, Node::Param { id, window })
    }

    /// Applies `op` to `inputs`.
    ///
    /// # Errors
    /// What [`Op::shape`] and [`Op::forward`] return.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[&Var]) -> Result<Var> {
        Ok(self.apply_normed(op, inputs)?.0)
    }

    /// Applies `op` and also returns the statistics of the batch norms inside it.
    ///
    /// # Errors
    /// What [`Op::shape`] and [`Op::forward`] return.
    pub fn apply_normed(&mut self, op: impl Op + 'static, inputs: &[&Var]) -> Result<(Var, Vec<Moments>)> {
        let (y, moments, applied) = self.run(Box::new(op), inputs)?;
        Ok((self.place(y, applied), moments))
    }

    /// One call of several groups, none of which reads what another one makes: the value of each, with
    /// the statistics of the batch norms inside it.
    ///
    /// # Errors
    /// What [`Op::shape`] and [`Op::forward`] return.
    pub fn apply_groups(&mut self, groups: Vec<Group>) -> Result<Vec<(Var, Vec<Moments>)>> {
        let mut done = Vec::with_capacity(groups.len());
        for Group { op, inputs } in groups {
            let inputs: Vec<&Var> = inputs.iter().collect();
            done.push(self.run(op, &inputs)?);
        }
        // Placed from the last to the first, so that walking back meets them in their order.
        let mut placed: Vec<(Var, Vec<Moments>)> =
            done.into_iter().rev().map(|(y, moments, applied)| (self.place(y, applied), moments)).collect();
        placed.reverse();
        Ok(placed)
    }

    /// Forward of one group, and what backward will need.
    #[allow(clippy::type_complexity, reason = "the value, its statistics, its node")]
    fn run(&self, op: Box<dyn Op>, inputs: &[&Var]) -> Result<(Tensor, Vec<Moments>, Option<Box<Applied>>)> {
        let shapes: Vec<Shape> = inputs.iter().map(|v| v.shape()).collect();
        let shape = op.shape(&shapes)?;
        let tensors: Vec<&Tensor> = inputs.iter().map(|v| &v.tensor).collect();
        let record = self.recording && inputs.iter().any(|v| v.node.is_some());
        let Output { y, saved, moments } = match &self.device {
            Device::Cpu(cpu) => {
                let _span = cpu.span(op.name(), "forward");
                op.forward(cpu, &tensors, record)?
            }
            Device::Cuda(cuda) => op.forward_cuda(cuda, &tensors, record)?,
        };
        debug_assert_eq!(y.shape(), shape, "{} broke its own shape()", op.name());
        if !record {
            return Ok((y, moments, None));
        }
        let keep = op.keep();
        let source = |var: &&Var| match var.node {
            None => Source::Constant,
            Some(node) => match self.nodes[node] {
                Node::Param { id, window } => Source::Param(id, window),
                _ => Source::Node(node),
            },
        };
        let applied = Applied {
            sources: inputs.iter().map(source).collect(),
            inputs: tensors
                .iter()
                .enumerate()
                .map(|(i, &t)| (i < 32 && keep.inputs >> i & 1 == 1).then(|| t.clone()))
                .collect(),
            output: keep.output.then(|| y.clone()),
            op,
            shapes,
            saved,
            shape,
        };
        Ok((y, moments, Some(Box::new(applied))))
    }

    fn place(&mut self, y: Tensor, applied: Option<Box<Applied>>) -> Var {
        match applied {
            Some(applied) => self.push(y, Node::Op(applied)),
            None => Var { tensor: y, node: None },
        }
    }

    /// Walks back from the scalar `loss`, adds `scale` times the parameters' gradients into
    /// `store`, marks what was read as touched, returns the leaves' gradients and empties the tape.
    ///
    /// # Errors
    /// [`Error::NotDifferentiable`] if `loss` is not a scalar on this tape; what the ops return.
    pub fn backward(&mut self, loss: &Var, scale: f32, store: &mut ParamStore) -> Result<Grads> {
        self.backward_groups(&[(loss, scale)], store)
    }

    /// Like [`Tape::backward`] from the sum of `scale * loss` over all groups.
    ///
    /// # Errors
    /// As [`Tape::backward`].
    pub fn backward_groups(&mut self, losses: &[(&Var, f32)], store: &mut ParamStore) -> Result<Grads> {
        let mut seeds = Vec::with_capacity(losses.len());
        for &(loss, scale) in losses {
            if loss.shape().len() != 1 {
                return Err(Error::NotDifferentiable { reason: "the loss must have one element" });
            }
            seeds.push((loss, Tensor::full(&self.device, loss.shape(), scale)?));
        }
        self.walk(seeds, store)
    }

    /// Like [`Tape::backward`] from a value of any shape with its gradient `seed`.
    ///
    /// # Errors
    /// [`Error::NotDifferentiable`] if `output` is not on this tape or `seed` has another shape.
    pub fn backward_from(&mut self, output: &Var, seed: Tensor, store: &mut ParamStore) -> Result<Grads> {
        self.walk(vec![(output, seed)], store)
    }

    fn walk(&mut self, seeds: Vec<(&Var, Tensor)>, store: &mut ParamStore) -> Result<Grads> {
        let mut grads: Vec<Option<Tensor>> = Vec::new();
        grads.resize_with(self.nodes.len(), || None);
        for (output, seed) in seeds {
            let node = match output.node {
                Some(node) if self.recording && node < self.nodes.len() => node,
                _ => return Err(Error::NotDifferentiable { reason: "the value is not on this tape" }),
            };
            if seed.shape() != output.shape() {
                return Err(Error::NotDifferentiable { reason: "the seed must have the value's shape" });
            }
            if let Node::Param { id, window } = self.nodes[node] {
                store.scatter_add(id, window, &seed)?;
            } else {
                give(&mut grads, node, seed)?;
            }
        }
        let nodes = std::mem::take(&mut self.nodes);
        for node in &nodes {
            if let Node::Param { id, window } = node {
                store.touch(*id, *window);
            }
        }
        // Consumed from the back, so what a node kept is freed as soon as it was used.
        for (index, node) in nodes.into_iter().enumerate().rev() {
            if let Node::Op(applied) = node
                && let Some(dy) = grads[index].take()
            {
                self.step_back(&applied, &dy, &mut grads, store)?;
            }
        }
        Ok(Grads(grads))
    }

    /// Forgets what was recorded.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    fn step_back(
        &self,
        applied: &Applied,
        dy: &Tensor,
        grads: &mut [Option<Tensor>],
        store: &mut ParamStore,
    ) -> Result<()> {
        debug_assert_eq!(dy.shape(), applied.shape);
        // Gradients are taken out for the call, so an input that appears twice gets a second,
        // empty tensor the second time; the two are added when they are put back.
        let mut taken = Vec::with_capacity(applied.sources.len());
        let mut whole = Vec::with_capacity(applied.sources.len());
        let (stores, mut fresh) = match self.device {
            Device::Cpu(_) => (applied.op.stores(), 0),
            // Every slot says there whether something lies in it.
            Device::Cuda(_) => (u32::MAX, 0),
        };
        for (i, (source, shape)) in applied.sources.iter().zip(&applied.shapes).enumerate() {
            let direct = |id| !whole.iter().any(|&(_, other)| other == id);
            taken.push(match *source {
                Source::Constant => None,
                Source::Param(id, None) if direct(id) => {
                    whole.push((i, id));
                    None
                }
                Source::Param(..) => Some(Tensor::zeros(&self.device, *shape)?),
                Source::Node(node) => Some(match grads[node].take() {
                    Some(grad) => grad,
                    None if i < 32 && stores >> i & 1 == 1 => {
                        fresh |= 1 << i;
                        Tensor::stale(&self.device, *shape, DType::F32)?
                    }
                    None => Tensor::zeros(&self.device, *shape)?,
                }),
            });
        }
        let kept = Kept {
            op: applied.op.name(),
            inputs: &applied.inputs,
            shapes: &applied.shapes,
            output: applied.output.as_ref(),
            fresh,
            saved: &applied.saved,
        };
        match &self.device {
            Device::Cpu(cpu) => {
                let mut dx: Vec<Option<&mut [f32]>> = Vec::with_capacity(taken.len());
                for grad in &mut taken {
                    dx.push(match grad {
                        Some(tensor) => Some(tensor.f32_mut()?),
                        None => None,
                    });
                }
                for (i, grad) in store.grads_of(whole)? {
                    dx[i] = Some(grad);
                }
                let _span = cpu.span(applied.op.name(), "backward");
                applied.op.backward(cpu, &kept, dy, &mut dx)?;
            }
            Device::Cuda(cuda) => {
                let mut dx: Vec<Option<Slot<'_>>> = Vec::with_capacity(taken.len());
                for (i, grad) in taken.iter_mut().enumerate() {
                    dx.push(match grad {
                        Some(tensor) => Some(tensor.slot(kept.is_fresh(i))?),
                        None => None,
                    });
                }
                for (i, grad) in store.slots_of(whole)? {
                    dx[i] = Some(grad);
                }
                applied.op.backward_cuda(cuda, &kept, dy, &mut dx)?;
            }
        }
        for (source, grad) in applied.sources.iter().zip(taken) {
            match (source, grad) {
                (Source::Node(node), Some(grad)) => give(grads, *node, grad)?,
                (Source::Param(id, window), Some(grad)) => store.scatter_add(*id, *window, &grad)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn push(&mut self, tensor: Tensor, node: Node) -> Var {
        if !self.recording {
            return Var { tensor, node: None };
        }
        self.nodes.push(node);
        Var { tensor, node: Some(self.nodes.len() - 1) }
    }
}

/// Puts back, or adds, a gradient of `node`.
fn give(grads: &mut [Option<Tensor>], node: usize, mut grad: Tensor) -> Result<()> {
    if let Some(first) = grads[node].take() {
        match grad.cuda().cloned() {
            None => grad.f32_mut()?.iter_mut().zip(first.f32()?).for_each(|(sum, value)| *sum += value),
            Some(cuda) => cuda.give(&first, &mut grad.slot(false)?)?,
        }
    }
    grads[node] = Some(grad);
    Ok(())
}
