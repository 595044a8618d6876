//! Tensors: contiguous, row-major, up to four axes, storage shared by `Arc` with an offset.
//!
//! There are no strides, so every kernel has one path: reshapes and leading-axis slices are free,
//! anything else is an op that copies. Activations are NHWC.

use std::fmt;

use crate::cpu::{Buffer, Cpu, Element};
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
    buffer: Buffer,
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
    pub fn stale(cpu: &Cpu, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        Ok(Self { buffer: cpu.arena().alloc(shape.len() * dtype.size())?, offset: 0, shape, dtype })
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] beyond the device's cap.
    pub fn zeros(cpu: &Cpu, shape: impl Into<Shape>) -> Result<Self> {
        let mut tensor = Self::stale(cpu, shape, DType::F32)?;
        tensor.f32_mut()?.fill(0.0);
        Ok(tensor)
    }

    /// A tensor with these elements.
    ///
    /// # Errors
    /// [`Error::Elements`] if their number is not the shape's; [`Error::OutOfMemory`].
    pub fn from_slice<T: Element>(cpu: &Cpu, shape: impl Into<Shape>, data: &[T]) -> Result<Self> {
        let shape = shape.into();
        if data.len() != shape.len() {
            return Err(Error::Elements { shape, expected: shape.len(), found: data.len() });
        }
        let mut tensor = Self::stale(cpu, shape, T::DTYPE)?;
        tensor.slice_mut::<T>()?.copy_from_slice(data);
        Ok(tensor)
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
    /// [`Error::DType`] if they are of another type.
    pub fn slice<T: Element>(&self) -> Result<&[T]> {
        self.expect(T::DTYPE)?;
        Ok(&self.buffer.slice::<T>()[self.offset..self.offset + self.shape.len()])
    }

    /// The elements, to be written.
    ///
    /// # Errors
    /// [`Error::DType`]; [`Error::InUse`] if the storage is shared.
    pub fn slice_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        self.expect(T::DTYPE)?;
        let (from, to) = (self.offset, self.offset + self.shape.len());
        let shape = self.shape;
        match self.buffer.slice_mut::<T>() {
            Some(all) => Ok(&mut all[from..to]),
            None => Err(Error::InUse { what: format!("a tensor of shape {shape}") }),
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

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?} {})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
