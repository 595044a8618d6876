//! Layers with frozen statistics whose batch norms are folded into their filters: what evaluation
//! runs, batch after batch. They are no ops, since nothing is recorded.
//!
//! A result's bits depend on its image alone, neither on the batch around it nor on the threads.

use super::{Act, InvertedResidual, Statistics};
use crate::cpu::Cpu;
use crate::cpu::fused::{self, Given};
use crate::error::Result;
use crate::op::{exactly, nhwc, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// A convolution with its batch norm and activation.
#[derive(Clone, Debug)]
pub struct FoldedConv(fused::FoldedConv);

/// An [`InvertedResidual`] block.
#[derive(Clone, Debug)]
pub struct FoldedResidual(fused::Folded);

/// Hyper-parameters of a [`FoldedConv`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvNorm {
    /// Distance between windows.
    pub stride: usize,
    /// After the norm: any but the gates [`Act::Sigmoid`] and [`Act::HardSigmoid`].
    pub act: Act,
    /// Whether the norm has scale and shift.
    pub affine: bool,
    /// Added to every variance.
    pub eps: f32,
}

impl ConvNorm {
    /// Folds `inputs`: the filter `[o, k, k, c]` (or `[o, c]`), `k` odd; if `affine`, scale `[o]` and
    /// shift `[o]`; mean `[o]` and biased variance `[o]`. Zeros of `k / 2` pixels surround the input.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] for other shapes; [`crate::Error::OutOfMemory`].
    pub fn fold(&self, cpu: &Cpu, inputs: &[&Tensor]) -> Result<FoldedConv> {
        let (name, shapes) = ("conv_norm", inputs.iter().map(|t| t.shape()).collect::<Vec<Shape>>());
        let count = if self.affine { 5 } else { 3 };
        let fits =
            shapes.len() == count && self.stride > 0 && !matches!(self.act, Act::Sigmoid | Act::HardSigmoid);
        let (o, k, c) = match shapes.first().map(|s| s.dims()) {
            Some(&[o, k, kw, c]) if fits && k == kw && k % 2 == 1 && k < 1 << 12 && o * c > 0 => (o, k, c),
            Some(&[o, c]) if fits && o * c > 0 => (o, 1, c),
            _ => {
                let reason = format!("with {self:?}, {count} inputs, the first [o, k, k, c] with k odd");
                return Err(shape_error(name, &shapes, reason));
            }
        };
        for i in 1..count {
            exactly(name, &shapes, i, "[o]", &[o])?;
        }
        let get = |at: usize| inputs[at].f32();
        let given = Given {
            affine: if self.affine { Some([get(1)?, get(2)?]) } else { None },
            frozen: Some([get(count - 2)?, get(count - 1)?]),
            eps: self.eps,
        };
        Ok(FoldedConv(fused::FoldedConv::new(cpu, get(0)?, [o, k, c], self.stride, given, self.act)?))
    }
}

impl FoldedConv {
    /// `[n, (h - 1) / stride + 1, (w - 1) / stride + 1, o]` of `x [n, h, w, c]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] for an input that does not fit the filter; [`crate::Error::OutOfMemory`].
    pub fn forward(&self, cpu: &Cpu, x: &Tensor) -> Result<Tensor> {
        let [n, h, w, c] = nhwc("conv_norm", &[x.shape()], 0)?;
        if c != self.0.input() {
            let reason = format!("the filter reads {} channels", self.0.input());
            return Err(shape_error("conv_norm", &[x.shape()], reason));
        }
        let _span = cpu.span("conv_norm", "forward");
        let [oh, ow] = self.0.to([h, w]);
        let mut y = Tensor::stale(cpu, [n, oh, ow, self.0.output()], DType::F32)?;
        self.0.forward(cpu, x.f32()?, [n, h, w], y.f32_mut()?)?;
        Ok(y)
    }
}

impl InvertedResidual {
    /// Folds the op's `inputs`; of the first, the block's input, the channels alone count.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] unless statistics are frozen and the inputs fit;
    /// [`crate::Error::OutOfMemory`].
    pub fn fold(&self, cpu: &Cpu, inputs: &[&Tensor]) -> Result<FoldedResidual> {
        let shapes: Vec<Shape> = inputs.iter().map(|t| t.shape()).collect();
        crate::op::Op::shape(self, &shapes)?;
        if self.statistics != Statistics::Frozen {
            let reason = "only frozen statistics can be folded into filters";
            return Err(shape_error("inverted_residual", &shapes, reason));
        }
        Ok(FoldedResidual(self.folded(cpu, inputs)?))
    }
}

impl FoldedResidual {
    /// The block's output `[n, h', w', o]` for `x [n, h, w, c]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] for an input that does not fit; [`crate::Error::OutOfMemory`].
    pub fn forward(&self, cpu: &Cpu, x: &Tensor) -> Result<Tensor> {
        let shape = x.shape();
        let [n, h, w, c] = nhwc("inverted_residual", &[shape], 0)?;
        let to: Shape = self.0.to([n, h, w]).into();
        if c != self.0.input() || (self.0.residual() && to != shape) {
            let reason = format!("the block makes {to} of {} channels", self.0.input());
            return Err(shape_error("inverted_residual", &[shape], reason));
        }
        let _span = cpu.span("inverted_residual", "forward");
        let mut y = Tensor::stale(cpu, to, DType::F32)?;
        self.0.forward(cpu, x.f32()?, [n, h, w], y.f32_mut()?)?;
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Activation, BatchNorm, Conv2d};
    use crate::rng::Rng;
    use crate::tape::Tape;

    fn tensor(cpu: &Cpu, shape: impl Into<Shape>, index: u32) -> Tensor {
        let shape = shape.into();
        let mut draws = Rng::new(2, "folded").at(0, 0, index);
        let data: Vec<f32> = (0..shape.len()).map(|_| draws.range(0.2, 1.2) - 0.5).collect();
        Tensor::from_slice(cpu, shape, &data).unwrap()
    }

    #[test]
    fn a_folded_convolution_is_convolution_norm_and_activation() {
        for (at, (x, [o, k], stride, affine)) in [
            ([2, 9, 11, 3], [16, 3], 2, true),
            ([1, 13, 7, 5], [19, 5], 1, false),
            ([3, 5, 5, 24], [40, 1], 1, true),
            ([2, 6, 6, 4], [7, 1], 2, true),
            ([1, 1, 1, 1], [1, 3], 2, false),
            ([1, 40, 64, 3], [8, 3], 2, true),
        ]
        .into_iter()
        .enumerate()
        {
            let act = [Act::HSwish, Act::Relu, Act::Swish, Act::None, Act::Relu6][at % 5];
            let run = |threads: usize| {
                let cpu = Cpu::new(threads).unwrap();
                let (x, w) = (tensor(&cpu, x, 0), tensor(&cpu, [o, k, k, x[3]], 1));
                let mut norm = vec![];
                if affine {
                    norm.extend([tensor(&cpu, [o], 2), tensor(&cpu, [o], 3)]);
                }
                let var = tensor(&cpu, [o], 5).f32().unwrap().iter().map(|v| v + 0.8).collect::<Vec<_>>();
                norm.extend([tensor(&cpu, [o], 4), Tensor::from_slice(&cpu, [o], &var).unwrap()]);
                let mut inputs = vec![&w];
                inputs.extend(&norm);
                let folded = ConvNorm { stride, act, affine, eps: 1e-3 }.fold(&cpu, &inputs).unwrap();
                let y = folded.forward(&cpu, &x).unwrap();

                let mut tape = Tape::inference(&cpu);
                let (x, w) = (tape.constant(x), tape.constant(w.clone()));
                let conv = Conv2d { stride: [stride; 2], padding: [k / 2; 2], groups: 1 };
                let h = tape.apply(conv, &[&x, &w]).unwrap();
                let norm: Vec<_> = norm.into_iter().map(|t| tape.constant(t)).collect();
                let mut all = vec![&h];
                all.extend(&norm);
                let h = tape.apply(BatchNorm { eps: 1e-3, affine, frozen: true }, &all).unwrap();
                let want = tape.apply(Activation(act), &[&h]).unwrap();
                assert_eq!(y.shape(), want.shape());
                for (i, (a, b)) in y.f32().unwrap().iter().zip(want.tensor().f32().unwrap()).enumerate() {
                    assert!((a - b).abs() < 2e-5 * (1.0 + b.abs()), "case {at}, element {i}: {a}, not {b}");
                }
                y.f32().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let first = run(1);
            assert!((2..=3).all(|threads| run(threads) == first), "case {at}: threads change bits");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let cpu = Cpu::new(1).unwrap();
        let (w, norm) = (tensor(&cpu, [6, 3, 3, 4], 0), tensor(&cpu, [6], 1));
        let op = ConvNorm { stride: 1, act: Act::Relu, affine: false, eps: 1e-5 };
        let folded = op.fold(&cpu, &[&w, &norm, &norm]).unwrap();
        assert!(folded.forward(&cpu, &tensor(&cpu, [1, 5, 5, 3], 2)).is_err());
        assert!(op.fold(&cpu, &[&w, &norm]).is_err());
        assert!(ConvNorm { act: Act::Sigmoid, ..op }.fold(&cpu, &[&w, &norm, &norm]).is_err());
        assert!(op.fold(&cpu, &[&w, &norm, &w]).is_err());

        let batch = InvertedResidual {
            stride: 2,
            expand: false,
            squeeze: None,
            acts: [Act::Relu; 3],
            residual: true,
            affine: false,
            eps: 1e-5,
            statistics: Statistics::Batch,
        };
        let x = tensor(&cpu, [1, 1, 1, 4], 3);
        let (depthwise, project) = (tensor(&cpu, [3, 3, 4], 4), tensor(&cpu, [4, 4], 5));
        assert!(batch.fold(&cpu, &[&x, &depthwise, &project]).is_err());
        let frozen = InvertedResidual { statistics: Statistics::Frozen, ..batch };
        let c = Tensor::from_slice(&cpu, [4], &[1f32; 4]).unwrap();
        let folded = frozen.fold(&cpu, &[&x, &depthwise, &project, &c, &c, &c, &c]).unwrap();
        assert!(folded.forward(&cpu, &x).is_ok());
        // The residual fits a plane of one pixel alone.
        assert!(folded.forward(&cpu, &tensor(&cpu, [1, 3, 3, 4], 3)).is_err());
        assert!(folded.forward(&cpu, &tensor(&cpu, [1, 1, 1, 5], 3)).is_err());
    }
}
