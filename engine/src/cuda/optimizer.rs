//! The launches over the touched ranges: the optimiser's and those that clip gradients.

use cudarc::driver::CudaStream;
use kernels::clip::{Clip, NormArgs};
use kernels::optimizer::{Range, Sgd, SgdArgs, Table};

use super::{Cuda, exclusive};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// What to do to gradients whose norm is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Clipping {
    /// Nothing.
    Not,
    /// Scale them so that their norm is at most this.
    Norm(f32),
    /// Clamp them to this on both sides; the norm is not taken.
    Value(f32),
}

impl Cuda {
    /// One step of stochastic gradient descent over `ranges`: `[momentum, lr]`, then the flat buffers of values, gradients
    /// (which become zero) and momenta. The table of ranges and the learning rate go over in one copy.
    pub(crate) fn sgd(
        &self,
        ranges: &[Range],
        [momentum, lr]: [f32; 2],
        nesterov: bool,
        values: &mut Tensor,
        grads: &mut Tensor,
        momenta: &mut Tensor,
    ) -> Result<()> {
        let table = Table::new(ranges, values.shape().len()).map_err(|e| self.refused(e))?;
        if table.pieces() == 0 {
            return Ok(());
        }
        let op = self.prepare((momentum.to_bits(), nesterov), |d| Sgd::new(d, momentum, nesterov))?;
        let pieces = table.words().len();
        // A piece is a multiple of 16 bytes, so what follows the pieces is aligned.
        let mut words = table.words().to_vec();
        words.push(lr.to_bits() as i32);
        let words = Tensor::from_slice(self, [words.len()], &words)?;
        let args = SgdArgs {
            pieces: words.input()?,
            lr: words.part(pieces..pieces + 1)?.floats().input(),
            skip: None,
            values: values.output()?,
            grads: grads.output()?,
            momenta: momenta.output()?,
            copy: None,
        };
        // SAFETY: `words` begins with the table's words: the copy was sent to the same stream before.
        self.launch(|stream: &CudaStream| unsafe { op.launch(stream, &table, args) })
    }

    /// The Euclidean norm of the gradients of `ranges` (0 for [`Clipping::Value`]), which are clipped then.
    pub(crate) fn clip(&self, ranges: &[Range], grads: &mut Tensor, clipping: Clipping) -> Result<f64> {
        let table = Table::new(ranges, grads.shape().len()).map_err(|e| self.refused(e))?;
        if table.pieces() == 0 {
            return Ok(0.0);
        }
        let op = self.prepare((), Clip::new)?;
        let words = Tensor::from_slice(self, [table.words().len()], table.words())?;
        let pieces = words.input()?;
        if let Clipping::Value(most) = clipping {
            let grads = grads.output()?;
            // SAFETY: `words` holds the table's words: the copy was sent to the same stream before.
            self.launch(|stream| unsafe { op.apply(stream, &table, pieces, None, most, grads) })?;
            return Ok(0.0);
        }
        // As many f64.
        let squares = Tensor::stale(self, [2 * table.pieces()], DType::F32)?;
        let [mut norm, mut factor] =
            [Tensor::stale(self, [1], DType::F32)?, Tensor::stale(self, [1], DType::F32)?];
        let args = NormArgs { pieces, grads: grads.input()?, squares: exclusive(squares.span()?.doubled()) };
        // SAFETY: as above.
        self.launch(|stream| unsafe { op.squares(stream, &table, args) })?;
        let most = if let Clipping::Norm(most) = clipping { most } else { f32::INFINITY };
        let (from, to) = (squares.span()?.doubled().input(), [norm.output()?, factor.output()?]);
        self.launch(|stream| op.norm(stream, &table, most, from, to, None))?;
        if let Clipping::Norm(_) = clipping {
            let (factor, grads) = (factor.input()?, grads.output()?);
            // SAFETY: as above.
            self.launch(|stream| unsafe {
                op.apply(stream, &table, pieces, Some(factor), f32::INFINITY, grads)
            })?;
        }
        Ok(f64::from(norm.to_host::<f32>()?[0]))
    }
}
