//! The model: a space with its parameters. A supernet and a final network are the same code; what a
//! forward pass executes is an argument.
//!
//! A model is a row of *segments*: the layers of the stem, one slot after another, the layers of the
//! head. A segment's output depends on the choices up to it alone, which is what prefix-shared
//! evaluation rests on.
//!
//! A forward pass may run several *groups*: a path each, over images of its own or over the same ones
//! (masked path execution). Every segment is then one call for all of them, and since a group's norms,
//! sums and random numbers are its own, it computes to the bit what it would compute alone.

mod folds;
mod layers;
mod statistics;
mod unit;

use std::path::Path;

use engine::init::Init;
use engine::ops::{self, Act};
use engine::{Cpu, Device, Group, Layout, Moments, ParamId, ParamStore, Place, Rng, Tape, Var};

pub use folds::Folds;
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
    /// The images of each group; what was found is appended, norm by norm, in the order of groups.
    Batch(&'a mut Vec<(NormId, Moments)>),
    /// Fixed statistics.
    Frozen(&'a Statistics),
    /// Fixed statistics, folded into the filters on a tape that records nothing. The weights are
    /// those of the folds.
    Folded(&'a Folds<'a>),
}

impl Norms<'_> {
    /// The statistics, if they are fixed.
    fn frozen(&self) -> Option<&Statistics> {
        match self {
            Norms::Batch(_) => None,
            Norms::Frozen(statistics) => Some(statistics),
            Norms::Folded(folds) => Some(folds.statistics()),
        }
    }
}

/// Where dropout's random numbers come from: counters of step, image and number of the path.
#[derive(Clone, Copy, Debug)]
pub struct DropoutSite<'a> {
    /// The stream.
    pub rng: Rng,
    /// The training step.
    pub step: u64,
    /// Each group's path.
    pub groups: &'a [DropoutGroup],
}

/// Which random numbers a group draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutGroup {
    /// Number of the path among those of the step, below [`DropoutGroup::PATHS`].
    pub path: u32,
    /// Place of the group's first image in the whole batch, so that micro-batches draw as one batch does.
    pub first: u32,
}

impl DropoutGroup {
    /// Paths that have numbers of their own.
    pub const PATHS: u32 = 1 << 16;
}

impl DropoutSite<'_> {
    fn op(&self, group: usize, rate: f32, purpose: &str) -> ops::Dropout {
        let DropoutGroup { path, first } = self.groups[group];
        // The step is counted over the whole run, in two words; the path stands above the few bits that
        // the second one needs.
        let epoch = (self.step >> 32) as u32 | path << 16;
        let rng = self.rng.fork(purpose);
        ops::Dropout { rate, rng, epoch, step: self.step as u32, first_image: first }
    }
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
    pub dropout: Option<DropoutSite<'a>>,
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
    pub fn init(&self, device: &impl Place, rng: &Rng) -> Result<ParamStore> {
        let mut store = self.layout.clone().build(device)?;
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
        Ok(one(self.forward_groups(cx, &[arch], vec![x.clone()])?))
    }

    /// Logits `[n, classes]` of every group: path `archs[g]` over images `xs[g]` `[n, h, w, c]`.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_groups(
        &self,
        cx: &mut Context<'_, '_>,
        archs: &[&Arch],
        xs: Vec<Var>,
    ) -> Result<Vec<Var>> {
        let mut ys = xs;
        for at in 0..self.depth() {
            ys = self.segment_groups(cx, archs, at, &ys)?;
        }
        Ok(ys)
    }

    /// One segment.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn segment(&self, cx: &mut Context<'_, '_>, arch: &Arch, at: usize, x: &Var) -> Result<Var> {
        Ok(one(self.segment_groups(cx, &[arch], at, std::slice::from_ref(x))?))
    }

    /// One segment of every group: several candidates of a slot in one call.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn segment_groups(
        &self,
        cx: &mut Context<'_, '_>,
        archs: &[&Arch],
        at: usize,
        xs: &[Var],
    ) -> Result<Vec<Var>> {
        let (stem, slots) = (self.stem.len(), self.slots.len());
        let mut units = Vec::with_capacity(archs.len());
        for arch in archs {
            units.push(if at < stem {
                &self.stem[at]
            } else if at >= stem + slots {
                &self.head[at - stem - slots]
            } else {
                self.space.check(arch)?;
                &self.slots[at - stem][usize::from(arch.choices()[at - stem])]
            });
        }
        Unit::forward(cx, &units, xs)
    }

    /// The name that a segment's parameters begin with: `stem.0`, `stage2.slot1.mb_k5_e6`.
    ///
    /// # Panics
    /// If there is no such segment, or `arch` is of another space.
    pub fn segment_name(&self, at: usize, arch: &Arch) -> String {
        let (stem, slots) = (self.space.stem(), self.space.slots());
        if at < stem.len() {
            return stem[at].name.clone();
        }
        match slots.get(at - stem.len()) {
            Some(slot) => {
                let choice = usize::from(arch.choices()[at - stem.len()]);
                format!("{}.{}", slot.name, slot.choices[choice].label)
            }
            None => self.space.head()[at - stem.len() - slots.len()].name.clone(),
        }
    }

    /// Values that an image has before segment `at`, whatever the path.
    ///
    /// # Panics
    /// Behind the first segment of the head.
    pub fn activations(&self, at: usize) -> usize {
        let (input, stem, slots) = (self.space.input(), self.space.stem(), self.space.slots());
        let places: Vec<_> = stem.iter().map(|s| s.place).chain(slots.iter().map(|s| s.place)).collect();
        match at.checked_sub(1) {
            None => input.channels * input.size.pow(2),
            Some(last) => places[last].output * places[last].output_size().pow(2),
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
    ///
    /// # Errors
    /// What the engine returns.
    pub fn save_weights(&self, store: &ParamStore, archive: &mut Archive) -> Result<()> {
        let values = store.values()?;
        for param in store.table() {
            archive.put(&format!("weights.{}", param.name), param.shape.dims(), &values[param.range()]);
        }
        Ok(())
    }

    /// Takes every weight from `archive`.
    ///
    /// # Errors
    /// [`crate::Error::Format`] if one is missing or has another shape.
    pub fn load_weights(&self, store: &mut ParamStore, archive: &Archive, path: &Path) -> Result<()> {
        for id in store.ids() {
            let name = format!("weights.{}", store.param(id).name);
            let values = archive.get_shaped(&name, store.param(id).shape.dims(), path)?;
            store.set(id, values)?;
        }
        Ok(())
    }
}

impl<'a, 't> Context<'a, 't> {
    /// What folding reads with.
    fn silent(tape: &'t mut Tape, folds: &'a Folds<'a>) -> Self {
        Self { tape, store: folds.store(), norms: Norms::Frozen(folds.statistics()), dropout: None }
    }
}

impl Context<'_, '_> {
    /// What layers are folded in and on which CPU, if they are; on a GPU norms are given their statistics.
    fn folds(&self) -> Option<(&'_ Cpu, &'_ Folds<'_>)> {
        match (&self.norms, self.tape.device()) {
            (Norms::Folded(folds), Device::Cpu(cpu)) if !self.tape.is_recording() => Some((cpu, folds)),
            _ => None,
        }
    }

    /// One call.
    fn call(&mut self, groups: Vec<Group>) -> Result<Vec<Var>> {
        Ok(self.tape.apply_groups(groups)?.into_iter().map(|(y, _)| y).collect())
    }

    fn norm(&mut self, sites: &[NormSite], xs: Vec<Var>) -> Result<Vec<Var>> {
        let frozen = self.norms.frozen().is_some();
        let mut groups = Vec::with_capacity(xs.len());
        for (site, x) in sites.iter().zip(xs) {
            let mut inputs = vec![x];
            if let Some((scale, shift)) = site.affine {
                inputs.push(self.store.read(self.tape, scale, None)?);
                inputs.push(self.store.read(self.tape, shift, None)?);
            }
            if let Some(statistics) = self.norms.frozen() {
                let (mean, var) = statistics.get(site.id)?;
                inputs.extend([self.tape.constant(mean.clone()), self.tape.constant(var.clone())]);
            }
            let op = ops::BatchNorm { eps: site.eps, affine: site.affine.is_some(), frozen };
            groups.push(Group::new(op, inputs));
        }
        let mut ys = Vec::with_capacity(groups.len());
        for (site, (y, moments)) in sites.iter().zip(self.tape.apply_groups(groups)?) {
            if let Norms::Batch(found) = &mut self.norms {
                found.extend(moments.into_iter().map(|m| (site.id, m)));
            }
            ys.push(y);
        }
        Ok(ys)
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

    fn act(&mut self, acts: impl Iterator<Item = Act>, xs: Vec<Var>) -> Result<Vec<Var>> {
        let (mut ys, mut places, mut groups) = (xs, Vec::new(), Vec::new());
        for (place, act) in acts.enumerate().filter(|&(_, act)| act != Act::None) {
            groups.push(Group::new(ops::Activation(act), vec![ys[place].clone()]));
            places.push(place);
        }
        places.into_iter().zip(self.call(groups)?).for_each(|(place, y)| ys[place] = y);
        Ok(ys)
    }
}

/// The value of a call's only group.
fn one(values: Vec<Var>) -> Var {
    values.into_iter().next().expect("a call gives one value a group")
}

/// A norm as a layer holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormSite {
    pub id: NormId,
    pub eps: f32,
    pub affine: Option<(ParamId, ParamId)>,
}
