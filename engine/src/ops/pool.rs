//! The window that [`AvgPool`](super::AvgPool) and [`MaxPool`](super::MaxPool) slide over a plane.

use std::sync::Arc;

use kernels::windows::{self, Kind, Pool};

use crate::check::{Array, Case, Input};
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Op, Output, arity, nhwc, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// A window that slides over the plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolWindow {
    /// Height and width of the window.
    pub k: usize,
    /// Distance between windows.
    pub stride: usize,
    /// Pixels added on every side, which no window counts; at most `k / 2`.
    pub padding: usize,
}

impl PoolWindow {
    pub(super) fn shape(&self, op: &'static str, inputs: &[Shape]) -> Result<Shape> {
        arity::<1>(op, inputs)?;
        let [n, h, w, c] = nhwc(op, inputs, 0)?;
        let reach = |size: usize| {
            // With more padding a window could lie outside altogether.
            let padding = Some(self.padding).filter(|&p| p <= self.k / 2)?;
            Some((size + 2 * padding).checked_sub(self.k)?.checked_div(self.stride)? + 1)
        };
        match (reach(h), reach(w)) {
            (Some(oh), Some(ow)) if self.k > 0 => Ok([n, oh, ow, c].into()),
            _ => Err(shape_error(
                op,
                inputs,
                format!("{self:?} must fit the padded plane, with padding at most k / 2"),
            )),
        }
    }

    fn launch(&self, cuda: &Cuda, kind: Kind, x: Shape) -> Result<Arc<Pool>> {
        let [n, h, w, c] = x.nhwc().expect("shape() checked four axes");
        let PoolWindow { k, stride, padding } = *self;
        let shape = windows::Shape { n, h, w, c, k, stride, padding, dilation: 1 };
        cuda.prepare((kind, shape), |d| Pool::new(d, kind, shape, kernels::DType::F32))
    }

    pub(super) fn forward_cuda(&self, cuda: &Cuda, kind: Kind, x: &Tensor) -> Result<Output> {
        let op = self.launch(cuda, kind, x.shape())?;
        let mut y = Tensor::stale(cuda, self.shape("pool", &[x.shape()])?, DType::F32)?;
        let (from, to) = (x.input()?, y.output()?);
        cuda.launch(|stream| op.forward(stream, from, to))?;
        Ok(y.into())
    }

    /// `kept`: the input and the output, which only a maximum reads.
    pub(super) fn backward_cuda(
        &self,
        cuda: &Cuda,
        kind: Kind,
        x: Shape,
        kept: Option<[kernels::Input<'_>; 2]>,
        dy: &Tensor,
        dx: &mut Option<Slot<'_>>,
    ) -> Result<()> {
        let Some(slot) = dx else { return Ok(()) };
        let op = self.launch(cuda, kind, x)?;
        let (dy, (to, write)) = (dy.input()?, slot.open());
        cuda.launch(|stream| op.backward(stream, kept, dy, to, write))
    }

    /// The pixels of axis length `size` that window `at` sees.
    fn pixels(&self, at: usize, size: usize) -> std::ops::Range<usize> {
        let from = at * self.stride;
        from.saturating_sub(self.padding)..(from + self.k - self.padding).min(size)
    }

    /// Runs `body(output pixel, input pixel, window size)` over all windows of a plane.
    pub(super) fn each(
        &self,
        [h, w]: [usize; 2],
        [oh, ow]: [usize; 2],
        mut body: impl FnMut(usize, usize, usize),
    ) {
        for oy in 0..oh {
            let rows = self.pixels(oy, h);
            for ox in 0..ow {
                let columns = self.pixels(ox, w);
                for y in rows.clone() {
                    for x in columns.clone() {
                        body(oy * ow + ox, y * w + x, rows.len() * columns.len());
                    }
                }
            }
        }
    }
}

fn windows(window: PoolWindow, x: &Array, start: f64, mut join: impl FnMut(f64, f64, f64) -> f64) -> Array {
    let [n, h, w, c] = x.shape.nhwc().expect("four axes");
    let mut y = Array::zeros(window.shape("pool", &[x.shape]).expect("the case fits"));
    let [_, oh, ow, _] = y.shape.nhwc().expect("four axes");
    for (at, value) in y.data.iter_mut().enumerate() {
        let (b, oy, ox, j) = (at / c / ow / oh, at / c / ow % oh, at / c % ow, at % c);
        let mut seen = Vec::new();
        for ky in 0..window.k {
            for kx in 0..window.k {
                let (iy, ix) = (oy * window.stride + ky, ox * window.stride + kx);
                let p = window.padding;
                if (p..h + p).contains(&iy) && (p..w + p).contains(&ix) {
                    seen.push(x.at([b, iy - p, ix - p, j]));
                }
            }
        }
        *value = seen.iter().fold(start, |sum, &v| join(sum, v, seen.len() as f64));
    }
    assert!(n > 0);
    y
}

/// The cases of a pooling op: every window, joined from `start` by `join(so far, value, window size)`.
pub(super) fn windowed<O: Op + Clone + 'static>(
    op: impl Fn(PoolWindow) -> O,
    start: f64,
    join: fn(f64, f64, f64) -> f64,
) -> Vec<Case> {
    let case = |name, x: [usize; 4], [k, stride, padding]: [usize; 3]| {
        let window = PoolWindow { k, stride, padding };
        Case::new(name, op(window), vec![Input::normal(x)], move |x: &[Array]| {
            windows(window, &x[0], start, join)
        })
    };
    vec![
        case("k3, padded", [2, 5, 6, 5], [3, 1, 1]),
        case("k3, stride 2, padded", [1, 7, 8, 3], [3, 2, 1]),
        case("k2, stride 2", [2, 5, 4, 4], [2, 2, 0]),
        case("stride beyond the window", [1, 7, 7, 2], [2, 3, 1]),
        case("one pixel, one channel", [1, 1, 1, 1], [1, 1, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::ops::{AvgPool, MaxPool};

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let tight = PoolWindow { k: 3, stride: 1, padding: 0 };
        let error = AvgPool(tight).shape(&[[1, 2, 2, 1].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "avg_pool", .. }));
        assert!(error.to_string().contains("[1, 2, 2, 1]"), "{error}");
        for bad in [
            PoolWindow { stride: 0, ..tight },
            PoolWindow { k: 0, ..tight },
            PoolWindow { padding: 2, ..tight },
        ] {
            let error = MaxPool(bad).shape(&[[1, 9, 9, 1].into()]).unwrap_err();
            assert!(matches!(error, Error::Shape { op: "max_pool", .. }), "{bad:?}");
        }
    }
}
