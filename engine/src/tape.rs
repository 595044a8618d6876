//! The tape: what one step computed, so that it can be walked back.
//!
//! A tape is passed by hand and remembers nothing between steps. `backward` empties it and keeps
//! its memory. First derivatives only.

use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::op::{Kept, Moments, Op, Output};
use crate::params::{ParamId, ParamStore, Window};
use crate::tensor::{Shape, Tensor};

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
    cpu: Cpu,
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

#[derive(Debug)]
struct Applied {
    op: Box<dyn Op>,
    sources: Vec<Option<usize>>,
    shapes: Vec<Shape>,
    inputs: Vec<Option<Tensor>>,
    output: Option<Tensor>,
    saved: Vec<Tensor>,
    shape: Shape,
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
    pub fn new(cpu: &Cpu) -> Self {
        Self { cpu: cpu.clone(), nodes: Vec::new(), recording: true }
    }

    /// A tape that records nothing: intermediate values are freed as soon as they are read.
    pub fn inference(cpu: &Cpu) -> Self {
        Self { recording: false, ..Self::new(cpu) }
    }

    /// Where it computes.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
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
        let shapes: Vec<Shape> = inputs.iter().map(|v| v.shape()).collect();
        let shape = op.shape(&shapes)?;
        let tensors: Vec<&Tensor> = inputs.iter().map(|v| &v.tensor).collect();
        let record = self.recording && inputs.iter().any(|v| v.node.is_some());
        let Output { y, saved, moments } = op.forward(&self.cpu, &tensors, record)?;
        debug_assert_eq!(y.shape(), shape, "{} broke its own shape()", op.name());
        if !record {
            return Ok((Var { tensor: y, node: None }, moments));
        }
        let keep = op.keep();
        let applied = Applied {
            sources: inputs.iter().map(|v| v.node).collect(),
            inputs: tensors
                .iter()
                .enumerate()
                .map(|(i, &t)| (i < 32 && keep.inputs >> i & 1 == 1).then(|| t.clone()))
                .collect(),
            output: keep.output.then(|| y.clone()),
            op: Box::new(op),
            shapes,
            saved,
            shape,
        };
        Ok((self.push(y, Node::Op(Box::new(applied))), moments))
    }

    /// Walks back from the scalar `loss`, adds `scale` times the parameters' gradients into
    /// `store`, marks what was read as touched, returns the leaves' gradients and empties the tape.
    ///
    /// # Errors
    /// [`Error::NotDifferentiable`] if `loss` is not a scalar on this tape; what the ops return.
    pub fn backward(&mut self, loss: &Var, scale: f32, store: &mut ParamStore) -> Result<Grads> {
        if loss.shape().len() != 1 {
            return Err(Error::NotDifferentiable { reason: "the loss must have one element" });
        }
        let seed = Tensor::from_slice(&self.cpu, loss.shape(), &[scale])?;
        self.backward_from(loss, seed, store)
    }

    /// Like [`Tape::backward`] from a value of any shape with its gradient `seed`.
    ///
    /// # Errors
    /// [`Error::NotDifferentiable`] if `output` is not on this tape or `seed` has another shape.
    pub fn backward_from(&mut self, output: &Var, seed: Tensor, store: &mut ParamStore) -> Result<Grads> {
        let last = match output.node {
            Some(node) if self.recording && node < self.nodes.len() => node,
            _ => return Err(Error::NotDifferentiable { reason: "the value is not on this tape" }),
        };
        if seed.shape() != output.shape() {
            return Err(Error::NotDifferentiable { reason: "the seed must have the value's shape" });
        }
        let mut grads: Vec<Option<Tensor>> = Vec::new();
        grads.resize_with(self.nodes.len(), || None);
        grads[last] = Some(seed);
        let nodes = std::mem::take(&mut self.nodes);
        for node in &nodes {
            if let Node::Param { id, window } = node {
                store.touch(*id, *window);
            }
        }
        // Consumed from the back, so what a node kept is freed as soon as it was used.
        for (index, node) in nodes.into_iter().enumerate().rev() {
            match node {
                Node::Leaf => {}
                Node::Param { id, window } => {
                    if let Some(grad) = grads[index].take() {
                        store.scatter_add(id, window, grad.f32()?)?;
                    }
                }
                Node::Op(applied) => {
                    if let Some(dy) = grads[index].take() {
                        self.step_back(&applied, &dy, &mut grads)?;
                    }
                }
            }
        }
        Ok(Grads(grads))
    }

    /// Forgets what was recorded.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    fn step_back(&self, applied: &Applied, dy: &Tensor, grads: &mut [Option<Tensor>]) -> Result<()> {
        debug_assert_eq!(dy.shape(), applied.shape);
        // Gradients are taken out for the call, so an input that appears twice gets a second,
        // zeroed tensor the second time; the two are added when they are put back.
        let mut taken = Vec::with_capacity(applied.sources.len());
        for (source, shape) in applied.sources.iter().zip(&applied.shapes) {
            taken.push(match source {
                None => None,
                Some(node) => Some(match grads[*node].take() {
                    Some(grad) => grad,
                    None => Tensor::zeros(&self.cpu, *shape)?,
                }),
            });
        }
        {
            let mut dx: Vec<Option<&mut [f32]>> = Vec::with_capacity(taken.len());
            for grad in &mut taken {
                dx.push(match grad {
                    Some(tensor) => Some(tensor.f32_mut()?),
                    None => None,
                });
            }
            let kept = Kept {
                op: applied.op.name(),
                inputs: &applied.inputs,
                shapes: &applied.shapes,
                output: applied.output.as_ref(),
                saved: &applied.saved,
            };
            applied.op.backward(&self.cpu, &kept, dy, &mut dx)?;
        }
        for (source, grad) in applied.sources.iter().zip(taken) {
            if let (Some(node), Some(mut grad)) = (source, grad) {
                if let Some(first) = grads[*node].take() {
                    for (sum, value) in grad.f32_mut()?.iter_mut().zip(first.f32()?) {
                        *sum += value;
                    }
                }
                grads[*node] = Some(grad);
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
