//! Two buffers for what steps read from the host, filled by a stream of their own while the other one is worked on.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream};

use super::memory::{ALIGN, Buffer};
use super::pinned::Pinned;
use super::{Cuda, count};
use crate::error::{Error, Result};
use crate::feed::Array;
use crate::tensor::{DType, Tensor};

pub(crate) struct Feed {
    cuda: Cuda,
    /// The buffer that is filled next.
    next: usize,
    buffers: [Double; 2],
    copies: Arc<CudaStream>,
}

/// A buffer of the device with its double in pinned memory.
struct Double {
    host: Option<Pinned>,
    device: Option<Buffer>,
    /// Behind all work that reads the buffer.
    read: CudaEvent,
}

impl Feed {
    pub fn new(cuda: &Cuda) -> Result<Self> {
        let failed = |e| cuda.failed("make a stream of", &e);
        let context = &cuda.0.context;
        let buffer =
            || Ok(Double { host: None, device: None, read: context.new_event(None).map_err(failed)? });
        let copies = context.new_stream().map_err(failed)?;
        Ok(Self { cuda: cuda.clone(), next: 0, buffers: [buffer()?, buffer()?], copies })
    }

    /// [`crate::Feed::send`], of arrays that are as long as they say.
    pub fn send(&mut self, arrays: &[Array<'_>]) -> Result<Vec<Tensor>> {
        let Self { cuda, next, buffers, copies } = self;
        let failed = |e| cuda.failed("copy to", &e);
        let stream = &cuda.0.stream;
        cuda.bind()?;
        let [now, last] = match (&mut *buffers, *next) {
            ([now, last], 0) | ([last, now], _) => [now, last],
        };
        // Nobody holds what was sent last, so all work that reads it was sent.
        if last.device.as_ref().is_some_and(|buffer| !buffer.is_own()) {
            return Err(Error::InUse { what: "the batch before".into() });
        }
        last.read.record(stream).map_err(failed)?;
        let mut len = 0;
        let mut places = Vec::with_capacity(arrays.len());
        for array in arrays {
            places.push(len);
            len += (array.shape().len() * array.dtype().size()).next_multiple_of(ALIGN);
        }
        let device = match now.device.take().filter(|buffer| buffer.len() >= len) {
            Some(buffer) => buffer,
            None => {
                let buffer = Buffer::new(cuda, len)?;
                // Whose memory it was may still work with it.
                now.read.record(stream).map_err(failed)?;
                buffer
            }
        };
        let mut host = match now.host.take().filter(|host| host.len() >= len) {
            Some(host) => host,
            None => Pinned::new(&cuda.0.context, len).map_err(failed)?,
        };
        if !host.done.is_complete() {
            count(&cuda.0.work.waits);
            host.done.synchronize().map_err(failed)?;
        }
        for (array, &at) in arrays.iter().zip(&places) {
            match array {
                Array::F32(_, data) => host.write(at, data),
                Array::I32(_, data) => host.write(at, data),
            }
        }
        count(&cuda.0.work.copies_in);
        copies.wait(&now.read).map_err(failed)?;
        let address = device.span(0, len, DType::U8).address;
        // SAFETY: the buffer holds as many bytes. Work that reads it is over before the copy begins, and what will
        // read it waits for the copy.
        unsafe { host.send(address, len, copies) }.map_err(failed)?;
        stream.wait(&host.done).map_err(failed)?;
        let tensor = |(array, at): (&Array<'_>, usize)| {
            let (shape, dtype) = (array.shape(), array.dtype());
            Tensor::within(device.clone(), at / dtype.size(), shape, dtype)
        };
        let tensors = arrays.iter().zip(places).map(tensor).collect();
        (now.device, now.host) = (Some(device), Some(host));
        *next = 1 - *next;
        Ok(tensors)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Feed({})", self.cuda.name())
    }
}
