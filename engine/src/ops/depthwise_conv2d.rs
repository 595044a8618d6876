//! The depthwise 2-d convolution:
//! `y[n, oy, ox, c] = sum_{ky, kx} x[n, oy*s + ky*d - p, ox*s + kx*d - p, c] w[ky, kx, c]`.

use std::sync::Arc;

use kernels::depthwise::{self, Backward, BackwardArgs, Forward, ForwardArgs};
use kernels::windows;

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cpu::depthwise::Depthwise;
use crate::cuda::{Cuda, Partials, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity, nhwc, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Inputs: `x [n, h, w, c]` and `w [k, k, c]`, `k` odd. Output `[n, oh, ow, c]` with
/// `oh = (h - 1) / stride + 1`: the padding is `dilation * (k - 1) / 2` on every side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthwiseConv2d {
    /// Distance between windows, in pixels.
    pub stride: usize,
    /// Distance between taps, in pixels.
    pub dilation: usize,
}

impl DepthwiseConv2d {
    fn sizes(&self, x: Shape, weight: Shape) -> Option<Depthwise> {
        let [n, h, w, c] = x.nhwc()?;
        let &[k, kw, wc] = weight.dims() else { return None };
        // The bound keeps a plane with its padding far from overflow.
        let pad = (k.checked_sub(1)? / 2).checked_mul(self.dilation).filter(|&p| p < 1 << 24)?;
        let fits = k == kw && k % 2 == 1 && wc == c && self.dilation > 0 && !x.is_empty();
        let to = [h, w].map(|size| size.saturating_sub(1).checked_div(self.stride).map(|last| last + 1));
        fits.then_some(Depthwise {
            n,
            size: [h, w],
            c,
            k,
            stride: self.stride,
            dilation: self.dilation,
            to: [to[0]?, to[1]?],
            pad,
        })
    }
}

/// The kernels of a shape: fast ones for the windows that mobile networks have, others for the rest.
enum Kernels {
    Fast(depthwise::Shape),
    Any(Arc<windows::Depthwise>),
}

impl DepthwiseConv2d {
    fn kernels(&self, cuda: &Cuda, x: Shape, w: Shape) -> Result<Kernels> {
        let s = self.sizes(x, w).expect("shape() accepted these");
        let (n, [h, w], Depthwise { c, k, stride, dilation, pad, .. }) = (s.n, s.size, s);
        if matches!(k, 3 | 5 | 7) && matches!(stride, 1 | 2) && dilation == 1 {
            return Ok(Kernels::Fast(depthwise::Shape { n, h, w, c, k, stride }));
        }
        let shape = windows::Shape { n, h, w, c, k, stride, padding: pad, dilation };
        let make = |d: &_| windows::Depthwise::new(d, shape, kernels::DType::F32);
        Ok(Kernels::Any(cuda.prepare(shape, make)?))
    }
}

impl Op for DepthwiseConv2d {
    fn name(&self) -> &'static str {
        "depthwise_conv2d"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let [x, w] = arity(self.name(), inputs)?;
        nhwc(self.name(), inputs, 0)?;
        match self.sizes(x, w) {
            Some(s) => Ok([s.n, s.to[0], s.to[1], s.c].into()),
            None => Err(shape_error(
                self.name(),
                inputs,
                format!("with {self:?}, w must be [k, k, c] with k odd, stride and dilation above zero"),
            )),
        }
    }

    fn keep(&self) -> Keep {
        Keep::INPUTS
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        self.sizes(inputs[0], inputs[1]).map_or(0, |s| (s.n * s.to[0] * s.to[1] * s.c * s.k * s.k) as u64)
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let s = self.sizes(inputs[0].shape(), inputs[1].shape()).expect("shape() accepted these");
        let mut y = Tensor::stale(cpu, [s.n, s.to[0], s.to[1], s.c], DType::F32)?;
        s.forward(cpu, inputs[0].f32()?, inputs[1].f32()?, y.f32_mut()?)?;
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let s = self.sizes(kept.shape(0), kept.shape(1)).expect("shape() accepted these");
        let dy = dy.f32()?;
        if let Some(dx) = &mut dx[0] {
            s.input_gradient(cpu, dy, kept.x(1)?, dx)?;
        }
        if let Some(dw) = &mut dx[1] {
            s.filter_gradient(cpu, kept.x(0)?, dy, dw)?;
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let shapes = [inputs[0].shape(), inputs[1].shape()];
        let mut y = Tensor::stale(cuda, self.shape(&shapes)?, DType::F32)?;
        let shape = match self.kernels(cuda, shapes[0], shapes[1])? {
            Kernels::Fast(shape) => shape,
            Kernels::Any(op) => {
                let (x, w, to) = (inputs[0].input()?, inputs[1].input()?, y.output()?);
                cuda.launch(|stream| op.forward(stream, x, w, to))?;
                return Ok(y.into());
            }
        };
        let op = cuda.prepare((shape, kernels::Act::None), |d| {
            Forward::new(d, shape, kernels::DType::F32, kernels::Act::None)
        })?;
        let mut partials = Partials::new(cuda, op.partials(), shape.c)?;
        let args = ForwardArgs {
            x: inputs[0].input()?,
            affine: None,
            w: inputs[1].input()?,
            y: y.output()?,
            moments: partials.moments.output()?,
            counts: partials.counts.output()?,
        };
        cuda.launch(|stream| op.launch(stream, args))?;
        Ok(y.into())
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        let shape = match self.kernels(cuda, kept.shape(0), kept.shape(1))? {
            Kernels::Fast(shape) => shape,
            Kernels::Any(op) => return any_backward(cuda, &op, kept, dy, dx),
        };
        let op = cuda.prepare((shape, kernels::Act::None), |d| {
            Backward::new(d, shape, kernels::DType::F32, kernels::Act::None)
        })?;
        let (c, partials) = (shape.c, op.partials());
        // No batch norm on either side: `dh2 = 1 * dy + 0 * h2 + 0`.
        let pqr = Tensor::stale(cuda, [3, c], DType::F32)?;
        cuda.fill(pqr.part(0..c)?, 1f32.to_bits())?;
        cuda.fill(pqr.part(c..3 * c)?, 0)?;
        let zeros = Tensor::zeros(cuda, [c])?;
        let mut dw = Tensor::stale(cuda, [partials, shape.k * shape.k * c], DType::F32)?;
        let mut sums = Tensor::stale(cuda, [partials, c, 2], DType::F32)?;
        let [to_x, to_w] = dx else { unreachable!("two inputs have two slots") };
        cuda.store_or_drop(to_x.as_mut(), kept.shape(0).len(), |du1| {
            let args = BackwardArgs {
                da2: dy.input()?,
                h2: dy.input()?,
                affine2: (pqr.part(0..c)?.input(), zeros.input()?),
                pqr: pqr.input()?,
                gate: None,
                h1: kept.input(0).input()?,
                affine1: None,
                mean1: None,
                w: kept.input(1).input()?,
                du1,
                dw: dw.output()?,
                sums: sums.output()?,
            };
            cuda.launch(|stream| op.launch(stream, args))
        })?;
        match to_w {
            Some(slot) => cuda.sum(partials, &dw, slot),
            None => Ok(()),
        }
    }
}

fn any_backward(
    cuda: &Cuda,
    op: &windows::Depthwise,
    kept: &Kept<'_>,
    dy: &Tensor,
    dx: &mut [Option<Slot<'_>>],
) -> Result<()> {
    let dy = dy.input()?;
    if let Some(slot) = &mut dx[0] {
        let (w, (to, write)) = (kept.input(1).input()?, slot.open());
        cuda.launch(|stream| op.data_gradient(stream, dy, w, to, write))?;
    }
    if let Some(slot) = &mut dx[1] {
        let mut parts = Tensor::stale(cuda, [op.partials(), kept.shape(1).len()], DType::F32)?;
        let (x, to) = (kept.input(0).input()?, parts.output()?);
        cuda.launch(|stream| op.filter_gradient(stream, x, dy, to))?;
        cuda.sum(op.partials(), &parts, slot)?;
    }
    Ok(())
}

fn reference(op: DepthwiseConv2d, x: &[Array]) -> Array {
    let [_, h, w, _] = x[0].shape.nhwc().expect("four axes");
    let k = x[1].shape.dims()[0];
    let pad = op.dilation * (k - 1) / 2;
    let mut y = Array::zeros(op.shape(&[x[0].shape, x[1].shape]).expect("the case fits"));
    let [n, oh, ow, c] = y.shape.nhwc().expect("four axes");
    for b in 0..n {
        for oy in 0..oh {
            for ox in 0..ow {
                for j in 0..c {
                    let mut sum = 0.0;
                    for ky in 0..k {
                        for kx in 0..k {
                            let (iy, ix) =
                                (oy * op.stride + ky * op.dilation, ox * op.stride + kx * op.dilation);
                            if (pad..h + pad).contains(&iy) && (pad..w + pad).contains(&ix) {
                                sum += x[0].at([b, iy - pad, ix - pad, j]) * x[1].at([ky, kx, j]);
                            }
                        }
                    }
                    *y.at_mut([b, oy, ox, j]) = sum;
                }
            }
        }
    }
    y
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, x: [usize; 4], k, stride, dilation| {
        let op = DepthwiseConv2d { stride, dilation };
        let inputs = vec![Input::normal(x), Input::normal([k, k, x[3]])];
        Case::new(name, op, inputs, move |x: &[Array]| reference(op, x))
    };
    vec![
        case("k3", [2, 7, 9, 19], 3, 1, 1),
        case("k5, stride 2, even plane", [1, 8, 10, 24], 5, 2, 1),
        case("k5, stride 2, odd plane", [2, 7, 9, 5], 5, 2, 1),
        case("k7", [1, 9, 12, 17], 7, 1, 1),
        case("k7, stride 2", [1, 15, 13, 8], 7, 2, 1),
        case("k9, stride 3", [1, 11, 10, 3], 9, 3, 1),
        case("dilation 2", [1, 9, 11, 6], 3, 1, 2),
        case("dilation 2, stride 2", [1, 9, 10, 6], 5, 2, 2),
        case("dilation 3, stride 2", [1, 9, 10, 2], 3, 2, 3),
        case("window beyond the plane", [2, 2, 3, 4], 7, 1, 1),
        case("stride beyond the plane", [1, 2, 2, 3], 3, 4, 1),
        case("one pixel, one channel", [1, 1, 1, 1], 3, 1, 1),
        case("k1", [1, 4, 4, 3], 1, 2, 1),
        // Several parts of the filter gradient's sum.
        case("many rows", [9, 20, 6, 4], 3, 1, 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let op = DepthwiseConv2d { stride: 1, dilation: 1 };
        let error = op.shape(&[[2, 3, 3, 4].into(), [3, 3, 5].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "depthwise_conv2d", .. }));
        assert!(
            error.to_string().contains("[2, 3, 3, 4]") && error.to_string().contains("[3, 3, 5]"),
            "{error}"
        );
        let even = op.shape(&[[2, 4, 4, 4].into(), [2, 2, 4].into()]);
        let still = DepthwiseConv2d { stride: 0, ..op }.shape(&[[2, 4, 4, 4].into(), [3, 3, 4].into()]);
        let huge =
            DepthwiseConv2d { dilation: usize::MAX, ..op }.shape(&[[2, 4, 4, 4].into(), [3, 3, 4].into()]);
        assert!(even.is_err() && still.is_err() && huge.is_err());
    }

    /// Moving the image moves the result, away from the border.
    #[test]
    fn a_shifted_image_gives_a_shifted_result() {
        let cpu = Cpu::new(1).unwrap();
        let (h, w, c, k) = (9, 9, 3, 3);
        let mut draws = crate::Rng::new(2, "shift").at(0, 0, 0);
        let x: Vec<f32> = (0..h * w * c).map(|_| draws.normal()).collect();
        let filter: Vec<f32> = (0..k * k * c).map(|_| draws.normal()).collect();
        let filter = Tensor::from_slice(&cpu, [k, k, c], &filter).unwrap();
        let op = DepthwiseConv2d { stride: 1, dilation: 1 };
        let run = |x: &[f32]| {
            let x = Tensor::from_slice(&cpu, [1, h, w, c], x).unwrap();
            op.forward(&cpu, &[&x, &filter], false).unwrap().y.f32().unwrap().to_vec()
        };
        let (still, mut moved) = (run(&x), vec![0.0; x.len()]);
        moved[w * c..].copy_from_slice(&x[..(h - 1) * w * c]);
        let moved = run(&moved);
        for y in 2..h - 1 {
            assert_eq!(moved[y * w * c..][..w * c], still[(y - 1) * w * c..][..w * c], "row {y}");
        }
    }
}
