//! The optimiser's launch.

use cudarc::driver::CudaStream;
use kernels::optimizer::{Range, Sgd, SgdArgs, Table};

use super::Cuda;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

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
            lr: words.part(pieces..pieces + 1)?.retyped(DType::F32).input(),
            skip: None,
            values: values.output()?,
            grads: grads.output()?,
            momenta: momenta.output()?,
            copy: None,
        };
        // SAFETY: `words` begins with the table's words: the copy was sent to the same stream before.
        self.launch(|stream: &CudaStream| unsafe { op.launch(stream, &table, args) })
    }
}
