//! Batches on their way to a device: while a step works on one, the next is copied.

use crate::cuda;
use crate::device::{Device, Place};
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor};

/// An array of the host's memory.
#[derive(Clone, Copy, Debug)]
pub enum Array<'a> {
    /// Images.
    F32(Shape, &'a [f32]),
    /// Labels.
    I32(Shape, &'a [i32]),
}

impl Array<'_> {
    pub(crate) fn shape(&self) -> Shape {
        match *self {
            Array::F32(shape, _) | Array::I32(shape, _) => shape,
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        match self {
            Array::F32(..) => DType::F32,
            Array::I32(..) => DType::I32,
        }
    }

    /// An error unless there are as many elements as the shape says.
    fn check(&self) -> Result<()> {
        let found = match self {
            Array::F32(_, data) => data.len(),
            Array::I32(_, data) => data.len(),
        };
        match self.shape() {
            shape if shape.len() == found => Ok(()),
            shape => Err(Error::Elements { shape, expected: shape.len(), found }),
        }
    }
}

/// Carries what a step reads to a device. A GPU has two buffers for it, which a stream of their own fills.
#[derive(Debug)]
pub struct Feed(Kind);

#[derive(Debug)]
enum Kind {
    /// What is sent is copied at once.
    Copied(Device),
    Cuda(cuda::Feed),
}

impl Feed {
    /// A feed that has sent nothing, and holds no memory yet.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn new(place: &impl Place) -> Result<Self> {
        Ok(Self(match place.device() {
            Device::Cuda(cuda) => Kind::Cuda(cuda::Feed::new(&cuda)?),
            device => Kind::Copied(device),
        }))
    }

    /// Sends arrays; each becomes a tensor. Nobody waits unless the host is two calls ahead of the device.
    ///
    /// # Errors
    /// [`Error::Elements`] if an array is not as long as its shape says; [`Error::InUse`] on a GPU while somebody
    /// holds a tensor of the call before; [`Error::OutOfMemory`]; [`Error::Driver`].
    pub fn send(&mut self, arrays: &[Array<'_>]) -> Result<Vec<Tensor>> {
        arrays.iter().try_for_each(Array::check)?;
        match &mut self.0 {
            Kind::Copied(device) => arrays
                .iter()
                .map(|array| match *array {
                    Array::F32(shape, data) => Tensor::from_slice(device, shape, data),
                    Array::I32(shape, data) => Tensor::from_slice(device, shape, data),
                })
                .collect(),
            Kind::Cuda(feed) => feed.send(arrays),
        }
    }
}
