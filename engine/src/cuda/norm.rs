//! Batch norm on a GPU: what its statistics become, forward and back.

use kernels::batch_norm::{
    Backward, BackwardArgs, Finalise, FinaliseArgs, Fold, FoldArgs, FrozenBackward, FrozenBackwardArgs,
};
use kernels::elementwise::Scale;
use kernels::{Input, Write};

use super::{Cuda, Partials, Slot};
use crate::error::Result;
use crate::op::Moments;
use crate::tensor::{DType, Tensor};

/// What a norm learns: scale and shift.
pub(crate) type Learnt<'a> = Option<(&'a Tensor, &'a Tensor)>;

/// A norm with its statistics: `y = x * scale + shift`.
#[derive(Debug)]
pub(crate) struct Norm {
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
}

/// Where the gradients of a norm's inputs go; mean and variance only where they were given.
#[derive(Default)]
pub(crate) struct NormSlots<'a, 's> {
    pub gamma: Option<&'a mut Slot<'s>>,
    pub beta: Option<&'a mut Slot<'s>>,
    pub mean: Option<&'a mut Slot<'s>>,
    pub variance: Option<&'a mut Slot<'s>>,
}

impl Norm {
    /// With the statistics of a batch.
    pub fn of_batch(
        cuda: &Cuda,
        partials: &Partials,
        learnt: Learnt<'_>,
        eps: f32,
        count: usize,
    ) -> Result<(Norm, Moments)> {
        let [parts, c, _] = *partials.moments.shape().dims() else { unreachable!("moments have three axes") };
        let op = cuda.prepare((parts, c, eps.to_bits()), |d| Finalise::new(d, parts, c, eps))?;
        let [mut scale, mut shift, mut mean, mut variance] = four(cuda, c)?;
        let args = FinaliseArgs {
            moments: partials.moments.input()?,
            counts: partials.counts.input()?,
            gamma: learnt.map(|l| l.0.input()).transpose()?,
            beta: learnt.map(|l| l.1.input()).transpose()?,
            scale: scale.output()?,
            shift: shift.output()?,
            mean: mean.output()?,
            variance: variance.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        let moments = Moments { mean: mean.clone(), var: variance.clone(), count };
        Ok((Norm { scale, shift, mean, variance }, moments))
    }

    /// With statistics that are given.
    pub fn frozen(
        cuda: &Cuda,
        mean: &Tensor,
        variance: &Tensor,
        learnt: Learnt<'_>,
        eps: f32,
    ) -> Result<Norm> {
        let c = mean.shape().len();
        let op = cuda.prepare((c, eps.to_bits()), |d| Fold::new(d, c, eps))?;
        let mut scale = Tensor::stale(cuda, [c], DType::F32)?;
        let mut shift = Tensor::stale(cuda, [c], DType::F32)?;
        let args = FoldArgs {
            gamma: learnt.map(|l| l.0.input()).transpose()?,
            beta: learnt.map(|l| l.1.input()).transpose()?,
            mean: mean.input()?,
            variance: variance.input()?,
            scale: scale.output()?,
            shift: shift.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        Ok(Norm { scale, shift, mean: mean.clone(), variance: variance.clone() })
    }

    pub fn save(self, to: &mut Vec<Tensor>) {
        to.extend([self.scale, self.shift, self.mean, self.variance]);
    }

    /// The norm that was saved, from an iterator over what was.
    pub fn load(saved: &mut impl Iterator<Item = Tensor>) -> Norm {
        let mut next = || saved.next().expect("forward saved as many as it loads");
        Norm { scale: next(), shift: next(), mean: next(), variance: next() }
    }

    pub fn affine(&self) -> Result<(Input<'_>, Input<'_>)> {
        Ok((self.scale.input()?, self.shift.input()?))
    }

    pub fn scale(&self) -> Result<Input<'_>> {
        self.scale.input()
    }

    pub fn mean(&self) -> Result<Input<'_>> {
        self.mean.input()
    }

    pub fn variance(&self) -> Result<Input<'_>> {
        self.variance.input()
    }

    /// From `sums [partials, c, 2]` of `du` and `du * (h - mean)`: the gradients of what the norm was given, and `[3, c]`
    /// with which `dh = p * du + q * h + r`.
    pub fn backward(
        &self,
        cuda: &Cuda,
        sums: &Tensor,
        frozen: bool,
        eps: f32,
        count: usize,
        slots: NormSlots<'_, '_>,
    ) -> Result<Tensor> {
        let [parts, c, _] = *sums.shape().dims() else { unreachable!("sums have three axes") };
        let NormSlots { mut gamma, mut beta, mut mean, mut variance } = slots;
        for slot in [&mut gamma, &mut beta, &mut mean, &mut variance].into_iter().flatten() {
            cuda.added(slot)?;
        }
        let mut pqr = Tensor::stale(cuda, [3, c], DType::F32)?;
        if frozen {
            let op = cuda.prepare((parts, c, eps.to_bits()), |d| FrozenBackward::new(d, parts, c, eps))?;
            let args = FrozenBackwardArgs {
                sums: sums.input()?,
                scale: self.scale.input()?,
                variance: self.variance.input()?,
                dgamma: gamma.map(Slot::output),
                dbeta: beta.map(Slot::output),
                dmean: mean.map(Slot::output),
                dvariance: variance.map(Slot::output),
            };
            cuda.launch(|stream| op.launch(stream, args))?;
            cuda.fill(pqr.span()?, 0)?;
            let f32 = kernels::DType::F32;
            let copy = cuda.prepare(c, |d| Scale::new(d, f32, f32, c))?;
            let (from, to) = (self.scale()?, pqr.output()?);
            cuda.launch(|stream| copy.launch(stream, 1.0, from, to, Write::Store))?;
            return Ok(pqr);
        }
        let op =
            cuda.prepare((parts, c, count, eps.to_bits()), |d| Backward::new(d, parts, c, count, eps))?;
        let args = BackwardArgs {
            sums: sums.input()?,
            scale: self.scale.input()?,
            mean: self.mean.input()?,
            variance: self.variance.input()?,
            dgamma: gamma.map(Slot::output),
            dbeta: beta.map(Slot::output),
            pqr: pqr.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        Ok(pqr)
    }
}

fn four(cuda: &Cuda, c: usize) -> Result<[Tensor; 4]> {
    let one = || Tensor::stale(cuda, [c], DType::F32);
    Ok([one()?, one()?, one()?, one()?])
}
