//! The launches over the touched ranges: the optimiser's and those that clip gradients.

use std::sync::Arc;

use cudarc::driver::CudaStream;
use kernels::clip::{Clip, NormArgs};
use kernels::elementwise::NonFinite;
use kernels::optimizer::{Range, Sgd, SgdArgs, Table};

use super::{Cuda, exclusive};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The flat buffers of a store and its optimiser.
pub(crate) struct Flat<'a> {
    pub values: &'a mut Tensor,
    pub grads: &'a mut Tensor,
    pub momenta: &'a mut Tensor,
    /// `[1]`, i32: not 0 where nothing may move.
    pub spoilt: &'a Tensor,
}

impl Cuda {
    /// One step of stochastic gradient descent over `ranges`: `[momentum, lr]`. Gradients become zero. The table of ranges
    /// and the learning rate go over in one copy.
    pub(crate) fn sgd(
        &self,
        ranges: &[Range],
        [momentum, lr]: [f32; 2],
        nesterov: bool,
        flat: Flat<'_>,
    ) -> Result<()> {
        let table = Table::new(ranges, flat.values.shape().len()).map_err(|e| self.refused(e))?;
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
            skip: Some(flat.spoilt.input()?),
            values: flat.values.output()?,
            grads: flat.grads.output()?,
            momenta: flat.momenta.output()?,
            copy: None,
        };
        // SAFETY: `words` begins with the table's words: the copy was sent to the same stream before.
        self.launch(|stream: &CudaStream| unsafe { op.launch(stream, &table, args) })
    }

    /// The Euclidean norm of the gradients of `ranges`; waits for all work sent before.
    pub(crate) fn grad_norm(&self, ranges: &[Range], grads: &Tensor) -> Result<f64> {
        let Some(touched) = self.touched(ranges, grads)? else { return Ok(0.0) };
        let [norm, _] = self.norm(&touched, grads, f32::INFINITY, None)?;
        Ok(f64::from(norm.to_host::<f32>()?[0]))
    }

    /// Scales the gradients of `ranges` so that their norm is at most `most`; one that is not finite sets `spoilt`.
    pub(crate) fn clip_grad_norm(
        &self,
        ranges: &[Range],
        grads: &mut Tensor,
        most: f32,
        spoilt: &mut Tensor,
    ) -> Result<()> {
        let Some(touched) = self.touched(ranges, grads)? else { return Ok(()) };
        let [_, factor] = self.norm(&touched, grads, most, Some(spoilt))?;
        if most == f32::INFINITY {
            return Ok(());
        }
        let Touched { op, table, words } = &touched;
        let (words, factor, grads) = (words.input()?, factor.input()?, grads.output()?);
        // SAFETY: `words` holds the table's words: the copy was sent to the same stream before.
        self.launch(|stream| unsafe { op.apply(stream, table, words, Some(factor), f32::INFINITY, grads) })
    }

    /// Clamps the gradients of `ranges` to `most` on both sides.
    pub(crate) fn clip_grad_value(&self, ranges: &[Range], grads: &mut Tensor, most: f32) -> Result<()> {
        let Some(touched) = self.touched(ranges, grads)? else { return Ok(()) };
        let Touched { op, table, words } = &touched;
        let (words, grads) = (words.input()?, grads.output()?);
        // SAFETY: as above.
        self.launch(|stream| unsafe { op.apply(stream, table, words, None, most, grads) })
    }

    /// Sets `flag`, `[1]` of i32, unless all elements of `x` are finite.
    pub(crate) fn check_finite(&self, x: &Tensor, flag: &mut Tensor) -> Result<()> {
        let len = x.shape().len();
        let op = self.prepare(len, |d| NonFinite::new(d, kernels::DType::F32, len))?;
        let (x, flag) = (x.input()?, flag.output()?);
        self.launch(|stream| op.launch(stream, x, flag))
    }

    /// What launches over `ranges` need; nothing where there are none.
    fn touched(&self, ranges: &[Range], grads: &Tensor) -> Result<Option<Touched>> {
        let table = Table::new(ranges, grads.shape().len()).map_err(|e| self.refused(e))?;
        if table.pieces() == 0 {
            return Ok(None);
        }
        let words = Tensor::from_slice(self, [table.words().len()], table.words())?;
        Ok(Some(Touched { op: self.prepare((), Clip::new)?, table, words }))
    }

    /// The norm `[1]`, and the factor `[1]` that takes it down to `most`; one that is not finite sets `spoilt`.
    fn norm(
        &self,
        touched: &Touched,
        grads: &Tensor,
        most: f32,
        spoilt: Option<&mut Tensor>,
    ) -> Result<[Tensor; 2]> {
        let Touched { op, table, words } = touched;
        // As many f64.
        let squares = Tensor::stale(self, [2 * table.pieces()], DType::F32)?;
        let [mut norm, mut factor] =
            [Tensor::stale(self, [1], DType::F32)?, Tensor::stale(self, [1], DType::F32)?];
        let squared = squares.span()?.doubled();
        let args = NormArgs { pieces: words.input()?, grads: grads.input()?, squares: exclusive(squared) };
        // SAFETY: as above.
        self.launch(|stream| unsafe { op.squares(stream, table, args) })?;
        let (to, flag) = ([norm.output()?, factor.output()?], spoilt.map(Tensor::output).transpose()?);
        self.launch(|stream| op.norm(stream, table, most, squared.input(), to, flag))?;
        Ok([norm, factor])
    }
}

/// The touched ranges, here and on the device.
struct Touched {
    op: Arc<Clip>,
    table: Table,
    words: Tensor,
}
