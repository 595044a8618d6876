//! Tensors: contiguous, row-major, up to four axes, storage shared by `Arc` with an offset.
//!
//! There are no strides, so every kernel has one path: reshapes and leading-axis slices are free,
//! anything else is an op that copies. Activations are NHWC.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use crate::cpu::Element;
use crate::cuda;
use crate::device::{Place, Storage};
use crate::error::{Error, Result};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float: all computation on the CPU.
    F32,
    /// 32-bit integer: labels.
    I32,
    /// Byte: images as decoded.
    U8,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::U8 => 1,
        }
    }
}

/// One to four axes, outermost first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Shape {
    /// The shape with these axes.
    ///
    /// # Errors
    /// [`Error::Rank`] unless there are one to four axes.
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.is_empty() || dims.len() > 4 {
            return Err(Error::Rank { found: dims.len() });
        }
        let mut all = [1; 4];
        all[..dims.len()].copy_from_slice(dims);
        Ok(Self { dims: all, rank: dims.len() })
    }

    /// The axes.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Number of axes, 1 to 4.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether an axis is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The innermost axis: channels.
    pub fn channels(&self) -> usize {
        self.dims[self.rank - 1]
    }

    /// `[n, h, w, c]` if there are four axes.
    pub fn nhwc(&self) -> Option<[usize; 4]> {
        (self.rank == 4).then_some(self.dims)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        const { assert!(N >= 1 && N <= 4, "a shape has one to four axes") };
        let mut all = [1; 4];
        all[..N].copy_from_slice(&dims);
        Self { dims: all, rank: N }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A contiguous array. Cloning shares the storage; writing needs to be its only owner.
#[derive(Clone)]
pub struct Tensor {
    storage: Storage,
    /// In elements.
    offset: usize,
    shape: Shape,
    dtype: DType,
}

impl Tensor {
    /// A tensor with unspecified (stale, but initialised) contents: whoever asks must write all of it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] beyond the device's cap.
    pub fn stale(place: &impl Place, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        Ok(Self { storage: place.alloc(shape.len() * dtype.size())?, offset: 0, shape, dtype })
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] beyond the device's cap.
    pub fn zeros(place: &impl Place, shape: impl Into<Shape>) -> Result<Self> {
        Self::full(place, shape, 0.0)
    }

    /// A tensor of one value, which is not copied there.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] beyond the device's cap.
    pub fn full(place: &impl Place, shape: impl Into<Shape>, value: f32) -> Result<Self> {
        let mut tensor = Self::stale(place, shape, DType::F32)?;
        match &tensor.storage {
            Storage::Host(_) => tensor.f32_mut()?.fill(value),
            Storage::Cuda(buffer) => buffer.cuda().fill(tensor.span()?, value.to_bits())?,
        }
        Ok(tensor)
    }

    /// A tensor with these elements.
    ///
    /// # Errors
    /// [`Error::Elements`] if their number is not the shape's; [`Error::OutOfMemory`]; [`Error::Driver`].
    pub fn from_slice<T: Element>(place: &impl Place, shape: impl Into<Shape>, data: &[T]) -> Result<Self> {
        let shape = shape.into();
        if data.len() != shape.len() {
            return Err(Error::Elements { shape, expected: shape.len(), found: data.len() });
        }
        let mut tensor = Self::stale(place, shape, T::DTYPE)?;
        tensor.write(data)?;
        Ok(tensor)
    }

    /// Writes all elements, wherever they lie.
    ///
    /// # Errors
    /// [`Error::DType`]; [`Error::Elements`] if their number is another; [`Error::InUse`] if the storage is shared;
    /// [`Error::Driver`].
    pub fn write<T: Element>(&mut self, data: &[T]) -> Result<()> {
        self.expect(T::DTYPE)?;
        if data.len() != self.shape.len() {
            let (shape, found) = (self.shape, data.len());
            return Err(Error::Elements { shape, expected: shape.len(), found });
        }
        self.expect_own()?;
        match &self.storage {
            Storage::Host(_) => {
                self.slice_mut::<T>()?.copy_from_slice(data);
                Ok(())
            }
            Storage::Cuda(buffer) => buffer.cuda().upload(data, self.span()?),
        }
    }

    /// The elements, copied to the host; on a GPU that waits for all work sent before.
    ///
    /// # Errors
    /// [`Error::DType`] if they are of another type; [`Error::Driver`].
    pub fn to_host<T: Element + Default>(&self) -> Result<Vec<T>> {
        Ok(self.on_host()?.into_owned())
    }

    /// The elements on the host: borrowed where they lie there, copied from elsewhere.
    ///
    /// # Errors
    /// As [`Tensor::to_host`].
    pub fn on_host<T: Element + Default>(&self) -> Result<Cow<'_, [T]>> {
        self.expect(T::DTYPE)?;
        match &self.storage {
            Storage::Host(_) => Ok(Cow::Borrowed(self.slice()?)),
            Storage::Cuda(buffer) => Ok(Cow::Owned(buffer.cuda().download(self.span()?)?)),
        }
    }

    /// Moves every element by `share` of its way to `factor` times that of `to`, both f32: a running average.
    ///
    /// # Errors
    /// [`Error::DType`]; [`Error::Elements`] if `to` has another number of elements; [`Error::InUse`] if the storage
    /// is shared; [`Error::Driver`].
    pub fn approach(&mut self, to: &Tensor, factor: f32, share: f32) -> Result<()> {
        let (shape, found) = (self.shape, to.shape.len());
        if found != shape.len() {
            return Err(Error::Elements { shape, expected: shape.len(), found });
        }
        if let Some(cuda) = self.cuda().cloned() {
            self.expect_own()?;
            // Into other memory: a kernel's input and output are no aliases.
            let mut moved = Self::stale(&cuda, shape, DType::F32)?;
            cuda.scale(1.0 - share, self, &mut moved.slot(true)?)?;
            cuda.scale(share * factor, to, &mut moved.slot(false)?)?;
            *self = moved;
            return Ok(());
        }
        for (own, to) in self.f32_mut()?.iter_mut().zip(to.f32()?) {
            *own += share * (to * factor - *own);
        }
        Ok(())
    }

    /// The elements as they are now, to be had later without waiting for what is sent in between.
    ///
    /// # Errors
    /// As [`Tensor::to_host`].
    pub fn late<T: Element + Default>(&self) -> Result<Late<T>> {
        self.expect(T::DTYPE)?;
        Ok(Late(match &self.storage {
            Storage::Host(_) => Arrival::Here(self.slice()?.to_vec()),
            Storage::Cuda(buffer) => Arrival::Coming(buffer.cuda().fetch(self.span()?)?),
        }))
    }

    /// The device that holds it, unless that is the host.
    pub fn cuda(&self) -> Option<&cuda::Cuda> {
        match &self.storage {
            Storage::Host(_) => None,
            Storage::Cuda(buffer) => Some(buffer.cuda()),
        }
    }

    /// The tensor that begins so many elements into `buffer`, whose elements a GPU's work writes.
    pub(crate) fn within(buffer: cuda::Buffer, offset: usize, shape: Shape, dtype: DType) -> Self {
        Self { storage: Storage::Cuda(buffer), offset, shape, dtype }
    }

    /// Its place in a GPU's memory.
    pub(crate) fn span(&self) -> Result<cuda::Span<'_>> {
        self.part(0..self.shape.len())
    }

    /// As a kernel reads it.
    pub(crate) fn input(&self) -> Result<kernels::Input<'_>> {
        Ok(self.span()?.input())
    }

    /// As a kernel writes it.
    pub(crate) fn output(&mut self) -> Result<kernels::Output<'_>> {
        self.expect_own()?;
        Ok(cuda::exclusive(self.span()?))
    }

    /// A slot over all of it.
    pub(crate) fn slot(&mut self, fresh: bool) -> Result<cuda::Slot<'_>> {
        self.expect_own()?;
        Ok(cuda::Slot::new(self.span()?, fresh))
    }

    /// Some of the elements, in a GPU's memory.
    pub(crate) fn part(&self, range: Range<usize>) -> Result<cuda::Span<'_>> {
        match &self.storage {
            Storage::Cuda(buffer) => Ok(buffer.span(self.offset + range.start, range.len(), self.dtype)),
            Storage::Host(_) => Err(Error::NotOnGpu { shape: self.shape }),
        }
    }

    /// An error if somebody else holds the memory of a GPU, too.
    pub(crate) fn expect_own(&mut self) -> Result<()> {
        match &self.storage {
            Storage::Cuda(buffer) if !buffer.is_own() => {
                Err(Error::InUse { what: format!("a tensor of shape {}", self.shape) })
            }
            _ => Ok(()),
        }
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The elements.
    ///
    /// # Errors
    /// [`Error::DType`] if they are of another type; [`Error::NotOnHost`].
    pub fn slice<T: Element>(&self) -> Result<&[T]> {
        self.expect(T::DTYPE)?;
        match &self.storage {
            Storage::Host(buffer) => Ok(&buffer.slice::<T>()[self.offset..self.offset + self.shape.len()]),
            Storage::Cuda(buffer) => Err(not_on_host(self.shape, buffer)),
        }
    }

    /// The elements, to be written.
    ///
    /// # Errors
    /// [`Error::DType`]; [`Error::InUse`] if the storage is shared; [`Error::NotOnHost`].
    pub fn slice_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        self.expect(T::DTYPE)?;
        let (from, to) = (self.offset, self.offset + self.shape.len());
        let shape = self.shape;
        match &mut self.storage {
            Storage::Host(buffer) => match buffer.slice_mut::<T>() {
                Some(all) => Ok(&mut all[from..to]),
                None => Err(Error::InUse { what: format!("a tensor of shape {shape}") }),
            },
            Storage::Cuda(buffer) => Err(not_on_host(shape, buffer)),
        }
    }

    /// The elements as f32.
    ///
    /// # Errors
    /// [`Error::DType`] if they are of another type.
    pub fn f32(&self) -> Result<&[f32]> {
        self.slice()
    }

    /// The elements as f32, to be written.
    ///
    /// # Errors
    /// [`Error::DType`]; [`Error::InUse`] if the storage is shared.
    pub fn f32_mut(&mut self) -> Result<&mut [f32]> {
        self.slice_mut()
    }

    /// The same elements under another shape; free.
    ///
    /// # Errors
    /// [`Error::Elements`] if the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.len() != self.shape.len() {
            return Err(Error::Elements { shape, expected: shape.len(), found: self.shape.len() });
        }
        Ok(Self { shape, ..self.clone() })
    }

    /// A view of `shape` that begins `offset` elements into this tensor; free.
    ///
    /// # Errors
    /// [`Error::Elements`] if it would reach past the end.
    pub fn view(&self, offset: usize, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        match offset.checked_add(shape.len()) {
            Some(end) if end <= self.shape.len() => {
                Ok(Self { offset: self.offset + offset, shape, ..self.clone() })
            }
            _ => Err(Error::Elements {
                shape,
                expected: shape.len(),
                found: self.shape.len().saturating_sub(offset),
            }),
        }
    }

    /// Rows `from..to` of the outermost axis (images of a batch); free.
    ///
    /// # Errors
    /// [`Error::Elements`] if the rows are not there.
    pub fn rows(&self, from: usize, to: usize) -> Result<Self> {
        let row = self.shape.len() / self.shape.dims[0].max(1);
        let mut shape = self.shape;
        shape.dims[0] = to.saturating_sub(from);
        self.view(from * row, shape)
    }

    fn expect(&self, dtype: DType) -> Result<()> {
        if self.dtype == dtype {
            Ok(())
        } else {
            Err(Error::DType { expected: dtype, found: self.dtype, shape: self.shape })
        }
    }
}

/// What [`Tensor::late`] gives: elements on their way to the host.
#[derive(Debug)]
pub struct Late<T>(Arrival<T>);

#[derive(Debug)]
enum Arrival<T> {
    Here(Vec<T>),
    Coming(cuda::Coming),
}

impl<T: Element + Default> Late<T> {
    /// The elements; on a GPU that waits for what was sent before they were asked for, and for nothing else.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn wait(self) -> Result<Vec<T>> {
        match self.0 {
            Arrival::Here(elements) => Ok(elements),
            Arrival::Coming(coming) => coming.wait(),
        }
    }
}

fn not_on_host(shape: Shape, buffer: &cuda::Buffer) -> Error {
    Error::NotOnHost { shape, device: buffer.cuda().name().to_owned() }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?} {})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    #[test]
    fn writing_a_shared_tensor_is_an_error() {
        let cpu = Cpu::new(1).unwrap();
        let mut a = Tensor::zeros(&cpu, [2, 3]).unwrap();
        let b = a.clone();
        assert!(matches!(a.f32_mut(), Err(Error::InUse { .. })));
        drop(b);
        assert!(a.f32_mut().is_ok());
    }

    #[test]
    fn views_share_and_stay_inside() {
        let cpu = Cpu::new(1).unwrap();
        let a = Tensor::from_slice(&cpu, [3, 2], &[0f32, 1., 2., 3., 4., 5.]).unwrap();
        assert_eq!(a.rows(1, 3).unwrap().f32().unwrap(), [2., 3., 4., 5.]);
        assert!(a.rows(2, 4).is_err());
        assert!(a.reshape([5]).is_err());
        assert!(matches!(a.slice::<i32>(), Err(Error::DType { .. })));
    }
}
