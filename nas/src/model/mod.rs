//! The model: a space with its parameters. A supernet and a final network are the same code; what a
//! forward pass executes is an argument.
//!
//! A model is a row of *segments*: the layers of the stem, one slot after another, the layers of the
//! head. A segment's output depends on the choices up to it alone, which is what prefix-shared
//! evaluation rests on.

mod layers;
mod statistics;
mod unit;

use std::path::Path;

use engine::init::Init;
use engine::ops::{self, Act};
use engine::{Cpu, Layout, Moments, ParamId, ParamStore, Rng, Tape, Var};

pub use statistics::Statistics;

use crate::arch::Arch;
use crate::checkpoint::Archive;
use crate::error::Result;
use crate::space::Space;
use layers::Registry;
use unit::Unit;

/// Whether batch norms have scale and shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormParams {
    /// As the space says for its supernet.
    Supernet,
    /// Always: single networks.
    Affine,
}

/// Names one batch norm of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NormId(usize);

impl NormId {
    pub(crate) fn new(index: usize) -> Self {
        Self(index)
    }

    /// Its place in [`Model::norms`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// One batch norm.
#[derive(Clone, Debug)]
pub struct NormInfo {
    /// Readable name: `stage2.slot1.mb_k5_e6.expand.norm`.
    pub name: String,
    /// Channels.
    pub channels: usize,
}

/// Where batch norms take their statistics from.
pub enum Norms<'a> {
    /// The batch itself; what was found is appended.
    Batch(&'a mut Vec<(NormId, Moments)>),
    /// Fixed statistics.
    Frozen(&'a Statistics),
}

/// Where dropout's random numbers come from.
#[derive(Clone, Copy, Debug)]
pub struct DropoutSite {
    /// The stream.
    pub rng: Rng,
    /// The training step.
    pub step: u64,
    /// Place of the first image in the whole batch, so that micro-batches draw as one batch does.
    pub first: u32,
}

/// What a forward pass works with.
pub struct Context<'a, 't> {
    /// Records, or not.
    pub tape: &'t mut Tape,
    /// The weights.
    pub store: &'a ParamStore,
    /// The statistics.
    pub norms: Norms<'a>,
    /// Training only; without it dropout does nothing.
    pub dropout: Option<DropoutSite>,
}

/// A space with its parameters.
#[derive(Debug)]
pub struct Model {
    space: Space,
    stem: Vec<Unit>,
    slots: Vec<Vec<Unit>>,
    head: Vec<Unit>,
    norms: Vec<NormInfo>,
    layout: Layout,
    inits: Vec<(ParamId, Init)>,
}

impl Model {
    /// A model over `space`.
    ///
    /// # Errors
    /// What the engine says of a shape or a name.
    pub fn new(space: &Space, params: NormParams) -> Result<Self> {
        let affine = params == NormParams::Affine || space.norm().affine;
        let (mut layout, mut norms, mut inits) = (Layout::new(), Vec::new(), Vec::new());
        let eps = space.norm().eps;
        let rule = space.init();
        let mut r = Registry { layout: &mut layout, norms: &mut norms, inits: &mut inits, rule, affine, eps };
        let mut stem = Vec::new();
        for (i, layer) in space.stem().iter().enumerate() {
            stem.push(Unit::register(&mut r, &layer.name, &layer.place, &layer.block, i == 0)?);
        }
        let mut slots = Vec::new();
        for slot in space.slots() {
            let mut units = Vec::with_capacity(slot.choices.len());
            for choice in &slot.choices {
                let prefix = format!("{}.{}", slot.name, choice.label);
                units.push(Unit::register(&mut r, &prefix, &slot.place, &choice.block, false)?);
            }
            slots.push(units);
        }
        let mut head = Vec::new();
        for layer in space.head() {
            head.push(Unit::register(&mut r, &layer.name, &layer.place, &layer.block, false)?);
        }
        Ok(Self { space: space.clone(), stem, slots, head, norms, layout, inits })
    }

    /// The space.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// All batch norms, in order of registration.
    pub fn norms(&self) -> &[NormInfo] {
        &self.norms
    }

    /// Number of segments.
    pub fn depth(&self) -> usize {
        self.stem.len() + self.slots.len() + self.head.len()
    }

    /// A store with initial weights; every parameter draws from a stream of its own.
    ///
    /// # Errors
    /// [`engine::Error::OutOfMemory`].
    pub fn init(&self, cpu: &Cpu, rng: &Rng) -> Result<ParamStore> {
        let mut store = self.layout.clone().build(cpu)?;
        for &(id, init) in &self.inits {
            init.fill(&mut store, id, rng)?;
        }
        Ok(store)
    }

    /// Logits `[n, classes]` of images `[n, h, w, c]` along `arch`.
    ///
    /// # Errors
    /// [`crate::Error::Arch`] for an architecture of another space; what the engine returns.
    pub fn forward(&self, cx: &mut Context<'_, '_>, arch: &Arch, x: &Var) -> Result<Var> {
        let mut y = x.clone();
        for at in 0..self.depth() {
            y = self.segment(cx, arch, at, &y)?;
        }
        Ok(y)
    }

    /// One segment.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn segment(&self, cx: &mut Context<'_, '_>, arch: &Arch, at: usize, x: &Var) -> Result<Var> {
        let (stem, slots) = (self.stem.len(), self.slots.len());
        if at < stem {
            return self.stem[at].forward(cx, x);
        }
        if at >= stem + slots {
            return self.head[at - stem - slots].forward(cx, x);
        }
        let slot = at - stem;
        match arch.choice(slot).and_then(|choice| self.slots[slot].get(choice)) {
            Some(unit) => unit.forward(cx, x),
            None => self.space.check(arch).map(|()| x.clone()),
        }
    }

    /// Whether two paths run the same thing in a segment.
    pub fn same_choice(&self, at: usize, a: &Arch, b: &Arch) -> bool {
        match at.checked_sub(self.stem.len()) {
            Some(slot) if slot < self.slots.len() => a.choice(slot) == b.choice(slot),
            _ => true,
        }
    }

    /// Puts every weight into `archive` under its name.
    pub fn save_weights(&self, store: &ParamStore, archive: &mut Archive) {
        for (id, param) in store.ids().zip(store.table()) {
            archive.put(&format!("weights.{}", param.name), param.shape.dims(), store.value(id));
        }
    }

    /// Takes every weight from `archive`.
    ///
    /// # Errors
    /// [`crate::Error::Format`] if one is missing or has another shape.
    pub fn load_weights(&self, store: &mut ParamStore, archive: &Archive, path: &Path) -> Result<()> {
        for id in store.ids() {
            let name = format!("weights.{}", store.param(id).name);
            let values = archive.get_shaped(&name, store.param(id).shape.dims(), path)?;
            store.value_mut(id)?.copy_from_slice(values);
        }
        Ok(())
    }
}

impl Context<'_, '_> {
    fn norm(&mut self, site: NormSite, x: &Var) -> Result<Var> {
        let eps = site.eps;
        let affine = match site.affine {
            Some((scale, shift)) => {
                Some((self.store.read(self.tape, scale, None)?, self.store.read(self.tape, shift, None)?))
            }
            None => None,
        };
        let mut inputs = vec![x];
        if let Some((scale, shift)) = &affine {
            inputs.extend([scale, shift]);
        }
        match &mut self.norms {
            Norms::Batch(found) => {
                let op = ops::BatchNorm { eps, affine: affine.is_some(), frozen: false };
                let (y, mut moments) = self.tape.apply_normed(op, &inputs)?;
                found.extend(moments.pop().map(|m| (site.id, m)));
                Ok(y)
            }
            Norms::Frozen(statistics) => {
                let (mean, var) = statistics.get(site.id)?;
                let (mean, var) = (self.tape.constant(mean.clone()), self.tape.constant(var.clone()));
                inputs.extend([&mean, &var]);
                Ok(self
                    .tape
                    .apply(ops::BatchNorm { eps, affine: affine.is_some(), frozen: true }, &inputs)?)
            }
        }
    }

    /// Pushes a filter and what its norm learns.
    fn read_layer(&mut self, (weight, norm): (ParamId, NormSite), inputs: &mut Vec<Var>) -> Result<()> {
        inputs.push(self.store.read(self.tape, weight, None)?);
        if let Some((scale, shift)) = norm.affine {
            inputs.push(self.store.read(self.tape, scale, None)?);
            inputs.push(self.store.read(self.tape, shift, None)?);
        }
        Ok(())
    }

    fn act(&mut self, act: Act, x: Var) -> Result<Var> {
        if act == Act::None { Ok(x) } else { Ok(self.tape.apply(ops::Activation(act), &[&x])?) }
    }
}

/// A norm as a layer holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormSite {
    pub id: NormId,
    pub eps: f32,
    pub affine: Option<(ParamId, ParamId)>,
}
