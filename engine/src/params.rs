//! The parameter store: all weights in one flat buffer, their gradients in another, and a table
//! from readable names to ranges.
//!
//! [`ParamStore::read`] is the only way into a tape. What a step read is its *touched set*: the
//! optimiser, the clipping norms and the zeroing of gradients visit that set and nothing else, so
//! a path that was not sampled keeps its weights, momenta and step counts to the bit.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use kernels::Write;
use kernels::boxes::Box4;
use kernels::optimizer;

use crate::cuda::{Flat, Slot};
use crate::device::{Device, Place};
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

/// Parameters start at multiples of this many elements: 64 bytes.
const ALIGN: usize = 16;

/// Elements that one task sums the squares of.
const CHUNK: usize = 1 << 14;

/// Names one parameter of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(usize);

impl ParamId {
    /// Its place in the store's table.
    pub fn index(self) -> usize {
        self.0
    }
}

/// What a parameter is, which decides whether weight decay applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Convolution and linear weights (two axes or more).
    Weight,
    /// Scale or shift of a normalisation.
    Norm,
    /// Bias of a convolution or linear layer.
    Bias,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Param {
    /// Readable name: `stage2.slot1.mb_k5_e6.depthwise.weight`.
    pub name: String,
    /// Shape.
    pub shape: Shape,
    /// Kind.
    pub kind: ParamKind,
    /// First element in the flat buffers.
    pub offset: usize,
}

impl Param {
    /// Its elements in the flat buffers.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.shape.len()
    }
}

/// A box inside a parameter: fewer channels, or the middle of a larger kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// First index on each axis; 0 beyond the parameter's rank.
    pub start: [usize; 4],
    /// Length on each axis; 1 beyond the parameter's rank.
    pub len: [usize; 4],
}

impl Window {
    /// The first `len` of every axis.
    pub fn leading(len: &[usize]) -> Self {
        let mut all = [1; 4];
        all[..len.len()].copy_from_slice(len);
        Self { start: [0; 4], len: all }
    }

    fn shape(&self, rank: usize) -> Shape {
        Shape::new(&self.len[..rank]).expect("a parameter has one to four axes")
    }
}

/// All parameters of a model.
pub struct ParamStore {
    device: Device,
    table: Vec<Param>,
    names: HashMap<String, ParamId>,
    values: Tensor,
    grads: Tensor,
    touched: BTreeMap<ParamId, Touch>,
    /// `[1]`, i32: not 0 if something of the step was not finite.
    spoilt: Tensor,
}

/// Which part of a parameter was read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Touch {
    All,
    Windows(Vec<Window>),
}

/// Collects parameters before the store is made.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    table: Vec<Param>,
    names: HashMap<String, ParamId>,
    len: usize,
}

impl Layout {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter.
    ///
    /// # Errors
    /// [`Error::DuplicateParameter`].
    pub fn add(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Shape>,
        kind: ParamKind,
    ) -> Result<ParamId> {
        let (name, shape) = (name.into(), shape.into());
        let id = ParamId(self.table.len());
        if self.names.insert(name.clone(), id).is_some() {
            return Err(Error::DuplicateParameter { name });
        }
        self.table.push(Param { name, shape, kind, offset: self.len });
        self.len = (self.len + shape.len()).next_multiple_of(ALIGN);
        Ok(id)
    }

    /// The store with every value and gradient zero.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn build(self, place: &impl Place) -> Result<ParamStore> {
        let len = self.len.max(ALIGN);
        Ok(ParamStore {
            values: Tensor::zeros(place, [len])?,
            grads: Tensor::zeros(place, [len])?,
            device: place.device(),
            table: self.table,
            names: self.names,
            touched: BTreeMap::new(),
            spoilt: Tensor::from_slice(place, [1], &[0i32])?,
        })
    }
}

impl ParamStore {
    /// The table, in order of registration.
    pub fn table(&self) -> &[Param] {
        &self.table
    }

    /// Where the parameters live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The parameter called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownParameter`].
    pub fn id(&self, name: &str) -> Result<ParamId> {
        self.names.get(name).copied().ok_or_else(|| Error::UnknownParameter { name: name.to_owned() })
    }

    /// All ids, in order of registration.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.table.len()).map(ParamId)
    }

    /// The row of `id`.
    pub fn param(&self, id: ParamId) -> &Param {
        &self.table[id.0]
    }

    /// Puts a parameter, or a window of it, on the tape. A whole parameter is shared, not copied;
    /// a window is gathered, and its gradient lands in the parent.
    ///
    /// # Errors
    /// [`Error::Window`] if the window reaches outside; [`Error::OutOfMemory`].
    pub fn read(&self, tape: &mut Tape, id: ParamId, window: Option<Window>) -> Result<Var> {
        let param = &self.table[id.0];
        let Some(window) = window else {
            return Ok(tape.param(self.values.view(param.offset, param.shape)?, id, None));
        };
        self.check(param, &window)?;
        let mut gathered = Tensor::stale(&self.device, window.shape(param.shape.rank()), DType::F32)?;
        if let Device::Cuda(cuda) = &self.device {
            cuda.carry(place(param, &window), self.values.input()?, gathered.output()?, Write::Store)?;
            return Ok(tape.param(gathered, id, Some(window)));
        }
        let (values, out) = (self.values.f32()?, gathered.f32_mut()?);
        let mut at = 0;
        for run in runs(param, &window) {
            out[at..at + run.len()].copy_from_slice(&values[run.clone()]);
            at += run.len();
        }
        Ok(tape.param(gathered, id, Some(window)))
    }

    /// The values of one parameter: borrowed from the host's memory, copied from a GPU's.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn value(&self, id: ParamId) -> Result<Cow<'_, [f32]>> {
        self.part(&self.values, id)
    }

    /// The gradient of one parameter: borrowed or copied.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn grad(&self, id: ParamId) -> Result<Cow<'_, [f32]>> {
        self.part(&self.grads, id)
    }

    fn part<'a>(&self, of: &'a Tensor, id: ParamId) -> Result<Cow<'a, [f32]>> {
        let param = &self.table[id.0];
        match self.device {
            Device::Cpu(_) => Ok(Cow::Borrowed(&of.f32()?[param.range()])),
            Device::Cuda(_) => Ok(Cow::Owned(of.view(param.offset, param.shape)?.to_host()?)),
        }
    }

    /// Writes the values of one parameter, wherever they lie.
    ///
    /// # Errors
    /// [`Error::InUse`] while a [`Var`] still holds parameters; [`Error::Elements`] if their number is another;
    /// [`Error::Driver`].
    pub fn set(&mut self, id: ParamId, values: &[f32]) -> Result<()> {
        let param = &self.table[id.0];
        if values.len() != param.shape.len() {
            let (shape, found) = (param.shape, values.len());
            return Err(Error::Elements { shape, expected: shape.len(), found });
        }
        match &self.device {
            Device::Cpu(_) => values_mut(&mut self.values)?[param.range()].copy_from_slice(values),
            Device::Cuda(cuda) => {
                own(&mut self.values)?;
                cuda.upload(values, self.values.view(param.offset, param.shape)?.span()?)?;
            }
        }
        Ok(())
    }

    /// The values of one parameter in the host's memory, to be written.
    ///
    /// # Errors
    /// [`Error::InUse`] while a [`Var`] still holds parameters; [`Error::NotOnHost`].
    pub fn value_mut(&mut self, id: ParamId) -> Result<&mut [f32]> {
        let range = self.table[id.0].range();
        Ok(&mut values_mut(&mut self.values)?[range])
    }

    /// All values in table order with the padding between them, to save or average in one pass: borrowed or copied.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn values(&self) -> Result<Cow<'_, [f32]>> {
        self.values.on_host()
    }

    /// All gradients, likewise.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn grads(&self) -> Result<Cow<'_, [f32]>> {
        self.grads.on_host()
    }

    /// Elements of the flat buffers, padding included.
    pub fn elements(&self) -> usize {
        self.values.shape().len()
    }

    /// Values and gradients of the whole store at once, to be written by an optimiser on the host.
    ///
    /// # Errors
    /// [`Error::InUse`] while a [`Var`] still holds parameters; [`Error::NotOnHost`].
    pub fn values_and_grads_mut(&mut self) -> Result<(&mut [f32], &mut [f32])> {
        Ok((values_mut(&mut self.values)?, self.grads.f32_mut()?))
    }

    /// The same on a GPU, with the optimiser's `momenta`.
    pub(crate) fn flat<'a>(&'a mut self, momenta: &'a mut Tensor) -> Result<Flat<'a>> {
        own(&mut self.values)?;
        let Self { values, grads, spoilt, .. } = self;
        Ok(Flat { values, grads, momenta, spoilt })
    }

    /// Marks (a window of) a parameter as read by the current step.
    pub fn touch(&mut self, id: ParamId, window: Option<Window>) {
        let whole = window.is_none_or(|w| w == Window::leading(self.table[id.0].shape.dims()));
        match (self.touched.get_mut(&id), window) {
            (Some(Touch::All), _) => {}
            (Some(Touch::Windows(seen)), Some(window)) if !whole => {
                if !seen.contains(&window) {
                    seen.push(window);
                }
            }
            (None, Some(window)) if !whole => {
                self.touched.insert(id, Touch::Windows(vec![window]));
            }
            _ => {
                self.touched.insert(id, Touch::All);
            }
        }
    }

    /// The touched set: every touched parameter with the element ranges that were read, in order
    /// and without overlap.
    pub fn touched(&self) -> Vec<(ParamId, Vec<Range<usize>>)> {
        self.touched
            .iter()
            .map(|(&id, touch)| {
                let param = &self.table[id.0];
                let ranges = match touch {
                    Touch::All => vec![param.range()],
                    Touch::Windows(windows) => merge(windows.iter().flat_map(|w| runs(param, w)).collect()),
                };
                (id, ranges)
            })
            .collect()
    }

    /// Zeroes the touched gradients and forgets the touched set: after an optimiser's step, or to
    /// drop a step that must not count.
    ///
    /// # Errors
    /// [`Error::InUse`] if the gradients are shared.
    pub fn clear_touched(&mut self) -> Result<()> {
        for range in self.touched().into_iter().flat_map(|(_, ranges)| ranges) {
            match &self.device {
                Device::Cpu(_) => self.grads.f32_mut()?[range].fill(0.0),
                Device::Cuda(cuda) => cuda.fill(self.grads.view(range.start, [range.len()])?.span()?, 0)?,
            }
        }
        self.touched.clear();
        Ok(())
    }

    /// Forgets the touched set, whose gradients somebody has zeroed.
    pub(crate) fn forget_touched(&mut self) {
        self.touched.clear();
    }

    /// Spoils the step unless all elements of `x`, f32, are finite: an optimiser then changes nothing, in this step and
    /// in those after it, until [`ParamStore::forgive`]. Nobody waits for the answer.
    ///
    /// # Errors
    /// [`Error::DType`]; [`Error::Driver`].
    pub fn check_finite(&mut self, x: &Tensor) -> Result<()> {
        match &self.device {
            Device::Cpu(_) if x.f32()?.iter().all(|v| v.is_finite()) => Ok(()),
            Device::Cpu(_) => self.spoilt.write(&[1i32]),
            Device::Cuda(cuda) => cuda.check_finite(x, &mut self.spoilt),
        }
    }

    /// `[1]`, i32: not 0 if a step was spoilt.
    pub fn spoilt(&self) -> &Tensor {
        &self.spoilt
    }

    /// Lets optimisers change parameters again.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn forgive(&mut self) -> Result<()> {
        self.spoilt.write(&[0i32])
    }

    /// The Euclidean norm of the touched gradients; fixed order, f64. On a GPU that waits for all work sent before.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn grad_norm(&self) -> Result<f64> {
        let cpu = match &self.device {
            Device::Cpu(cpu) => cpu,
            Device::Cuda(cuda) => return cuda.grad_norm(&self.touched_rows(), &self.grads),
        };
        let grads = self.grads.f32()?;
        let ranges = self.touched().into_iter().flat_map(|(_, ranges)| ranges);
        let pieces: Vec<&[f32]> = ranges.flat_map(|range| grads[range].chunks(CHUNK)).collect();
        let mut sums = vec![0.0; pieces.len()];
        cpu.pool().parallel_chunks(&mut sums, 1, |i, sum| sum[0] = squares(pieces[i]));
        Ok(sums.iter().sum::<f64>().sqrt())
    }

    /// Scales the touched gradients down so that their norm is at most `max`, which may be infinite. A norm that is
    /// not finite spoils the step, as [`ParamStore::check_finite`] does.
    ///
    /// # Errors
    /// [`Error::InUse`] if the gradients are shared; [`Error::Driver`].
    pub fn clip_grad_norm(&mut self, max: f32) -> Result<()> {
        if let Device::Cuda(cuda) = &self.device {
            return cuda.clip_grad_norm(&self.touched_rows(), &mut self.grads, max, &mut self.spoilt);
        }
        let norm = self.grad_norm()?;
        if !norm.is_finite() {
            return self.spoilt.write(&[1i32]);
        }
        if norm > f64::from(max) {
            // As PyTorch: the small constant keeps the quotient finite.
            let factor = (f64::from(max) / (norm + 1e-6)) as f32;
            self.each_touched_grad(|g| g * factor)?;
        }
        Ok(())
    }

    /// Clamps the touched gradients to `-max..=max`.
    ///
    /// # Errors
    /// As [`ParamStore::clip_grad_norm`].
    pub fn clip_grad_value(&mut self, max: f32) -> Result<()> {
        if let Device::Cuda(cuda) = &self.device {
            return cuda.clip_grad_value(&self.touched_rows(), &mut self.grads, max);
        }
        self.each_touched_grad(|g| g.clamp(-max, max))
    }

    /// The touched set as a kernel's table wants it.
    fn touched_rows(&self) -> Vec<optimizer::Range> {
        let ranges = self.touched().into_iter().flat_map(|(_, ranges)| ranges);
        ranges.map(|range| row(&range, 0.0)).collect()
    }

    fn each_touched_grad(&mut self, f: impl Fn(f32) -> f32) -> Result<()> {
        let touched = self.touched();
        let grads = self.grads.f32_mut()?;
        for range in touched.into_iter().flat_map(|(_, ranges)| ranges) {
            grads[range].iter_mut().for_each(|g| *g = f(*g));
        }
        Ok(())
    }

    pub(crate) fn scatter_add(&mut self, id: ParamId, window: Option<Window>, grad: &Tensor) -> Result<()> {
        let param = &self.table[id.0];
        if let Device::Cuda(cuda) = &self.device {
            let Some(window) = window else {
                return cuda.give(grad, &mut Slot::new(self.grads.part(param.range())?, false));
            };
            return cuda.carry(
                place(param, &window).reversed(),
                grad.input()?,
                self.grads.output()?,
                Write::Add,
            );
        }
        let (grads, grad) = (self.grads.f32_mut()?, grad.f32()?);
        let mut add = |range: Range<usize>, from: &[f32]| {
            grads[range].iter_mut().zip(from).for_each(|(sum, g)| *sum += g);
        };
        match window {
            None => add(param.range(), grad),
            Some(window) => {
                let mut at = 0;
                for run in runs(param, &window) {
                    let len = run.len();
                    add(run, &grad[at..at + len]);
                    at += len;
                }
            }
        }
        Ok(())
    }

    /// [`ParamStore::grads_of`] on a GPU.
    pub(crate) fn slots_of<T>(&mut self, wanted: Vec<(T, ParamId)>) -> Result<Vec<(T, Slot<'_>)>> {
        let grads = &self.grads;
        let slot = |(label, id): (T, ParamId)| {
            let param = &self.table[id.0];
            // Parameters do not overlap, and none is asked for twice.
            Ok((label, Slot::new(grads.part(param.range())?, false)))
        };
        wanted.into_iter().map(slot).collect()
    }

    /// The gradients of several parameters, none twice, to be added into; each with its caller's label.
    pub(crate) fn grads_of<T>(&mut self, mut wanted: Vec<(T, ParamId)>) -> Result<Vec<(T, &mut [f32])>> {
        // Parameters lie in the order of their ids.
        wanted.sort_by_key(|&(_, id)| id);
        let (mut rest, mut at) = (self.grads.f32_mut()?, 0);
        let mut found = Vec::with_capacity(wanted.len());
        for (label, id) in wanted {
            let range = self.table[id.0].range();
            let (grad, behind) = rest[range.start - at..].split_at_mut(range.len());
            (rest, at) = (behind, range.end);
            found.push((label, grad));
        }
        Ok(found)
    }

    fn check(&self, param: &Param, window: &Window) -> Result<()> {
        let mut dims = [1; 4];
        dims[..param.shape.rank()].copy_from_slice(param.shape.dims());
        let inside = (0..4).all(|a| {
            window.len[a] > 0 && window.start[a].checked_add(window.len[a]).is_some_and(|end| end <= dims[a])
        });
        if inside {
            return Ok(());
        }
        Err(Error::Window { name: param.name.clone(), shape: param.shape, window: format!("{window:?}") })
    }
}

impl fmt::Debug for ParamStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParamStore({} parameters, {} elements)", self.table.len(), self.elements())
    }
}

/// The sum of squares. A single running sum would wait for every addition before the next.
fn squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0; 8];
    let mut eights = values.chunks_exact(8);
    let square = |(lane, &v): (&mut f64, &f32)| *lane += f64::from(v) * f64::from(v);
    (&mut eights).for_each(|eight| lanes.iter_mut().zip(eight).for_each(square));
    lanes.iter_mut().zip(eights.remainder()).for_each(square);
    lanes.iter().sum()
}

fn values_mut(values: &mut Tensor) -> Result<&mut [f32]> {
    values.f32_mut().map_err(named)
}

/// An error unless nobody else holds the values.
fn own(values: &mut Tensor) -> Result<()> {
    values.expect_own().map_err(named)
}

fn named(error: Error) -> Error {
    match error {
        Error::InUse { .. } => Error::InUse { what: "the parameter store".into() },
        other => other,
    }
}

/// A stretch of the flat buffers as a kernel's table wants it.
pub(crate) fn row(range: &Range<usize>, decay: f32) -> optimizer::Range {
    optimizer::Range { offset: range.start, rows: 1, row_len: range.len(), stride: range.len(), decay }
}

/// Where a window lies in the flat buffers, and itself as an array of its own.
fn place(param: &Param, window: &Window) -> Box4 {
    let mut dims = [1; 4];
    dims[..param.shape.rank()].copy_from_slice(param.shape.dims());
    let shift = 4 - param.shape.rank();
    let (mut start, mut len) = (window.start, window.len);
    dims.rotate_right(shift);
    start.rotate_right(shift);
    len.rotate_right(shift);
    Box4::window(param.offset, dims, start, len)
}

/// The contiguous runs of `window` inside `param`, in the flat buffers, in order.
fn runs(param: &Param, window: &Window) -> impl Iterator<Item = Range<usize>> + use<> {
    let mut dims = [1; 4];
    dims[..param.shape.rank()].copy_from_slice(param.shape.dims());
    // Moving the axes to the right makes the last one the contiguous one.
    let shift = 4 - param.shape.rank();
    let (mut start, mut len) = (window.start, window.len);
    dims.rotate_right(shift);
    start.rotate_right(shift);
    len.rotate_right(shift);
    let base = param.offset;
    (0..len[0] * len[1] * len[2]).map(move |row| {
        let (a, b, c) = (row / (len[1] * len[2]), row / len[2] % len[1], row % len[2]);
        let at = ((start[0] + a) * dims[1] + start[1] + b) * dims[2] + start[2] + c;
        let from = base + at * dims[3] + start[3];
        from..from + len[3]
    })
}

fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|r| (r.start, r.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    fn ones(store: &ParamStore, len: usize, value: f32) -> Tensor {
        Tensor::from_slice(store.device(), [len], &vec![value; len]).unwrap()
    }

    fn store() -> (ParamStore, ParamId, ParamId) {
        let cpu = Cpu::new(1).unwrap();
        let mut layout = Layout::new();
        let a = layout.add("a", [3, 4], ParamKind::Weight).unwrap();
        let b = layout.add("b", [3, 3, 2], ParamKind::Weight).unwrap();
        let mut store = layout.build(&cpu).unwrap();
        store.value_mut(a).unwrap().iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
        store.value_mut(b).unwrap().iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
        (store, a, b)
    }

    #[test]
    fn a_window_gathers_and_its_gradient_lands_in_the_parent() {
        let (mut store, a, b) = store();
        let mut tape = Tape::new(store.device());
        let x = store.read(&mut tape, a, Some(Window::leading(&[2, 3]))).unwrap();
        assert_eq!(x.tensor().f32().unwrap(), [0., 1., 2., 4., 5., 6.]);
        let middle = Window { start: [1, 1, 0, 0], len: [1, 1, 2, 1] };
        assert_eq!(store.read(&mut tape, b, Some(middle)).unwrap().tensor().f32().unwrap(), [8., 9.]);
        store.scatter_add(a, Some(Window::leading(&[2, 3])), &ones(&store, 6, 1.)).unwrap();
        assert_eq!(*store.grad(a).unwrap(), [1., 1., 1., 0., 1., 1., 1., 0., 0., 0., 0., 0.]);
    }

    #[test]
    fn overlapping_windows_are_touched_once() {
        let (mut store, a, _) = store();
        store.touch(a, Some(Window::leading(&[2, 3])));
        store.touch(a, Some(Window::leading(&[3, 2])));
        assert_eq!(store.touched(), [(a, vec![0..3, 4..7, 8..10])]);
        store.touch(a, None);
        assert_eq!(store.touched(), [(a, std::iter::once(0..12).collect())]);
    }

    #[test]
    fn a_window_outside_is_refused_by_name() {
        let (store, a, _) = store();
        let error =
            store.read(&mut Tape::new(store.device()), a, Some(Window::leading(&[4, 1]))).unwrap_err();
        assert!(matches!(error, Error::Window { ref name, .. } if name == "a"), "{error}");
    }

    #[test]
    fn writing_while_a_var_is_alive_is_an_error() {
        let (mut store, a, _) = store();
        let mut tape = Tape::new(store.device());
        let x = store.read(&mut tape, a, None).unwrap();
        assert!(matches!(store.value_mut(a), Err(Error::InUse { .. })));
        drop((x, tape));
        assert!(store.value_mut(a).is_ok());
    }

    #[test]
    fn clipping_sees_the_touched_set_alone() {
        let (mut store, a, b) = store();
        store.scatter_add(a, None, &ones(&store, 12, 3.)).unwrap();
        store.scatter_add(b, None, &ones(&store, 18, 100.)).unwrap();
        store.touch(a, None);
        assert!((store.grad_norm().unwrap() - 108f64.sqrt()).abs() < 1e-9);
        store.clip_grad_norm(1.0).unwrap();
        assert!((store.grad_norm().unwrap() - 1.0).abs() < 1e-5);
        store.clip_grad_value(0.1).unwrap();
        assert!(store.grad(a).unwrap().iter().all(|&g| g == 0.1));
        assert!(store.grad(b).unwrap().iter().all(|&g| g == 100.0));
    }
}
