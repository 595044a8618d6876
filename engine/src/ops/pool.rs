//! Pooling: the mean over the plane, and means and maxima over windows.

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, arity, nhwc, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// The mean over the plane: `x [n, h, w, c]` to `[n, c]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalAvgPool;

impl Op for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        arity::<1>(self.name(), inputs)?;
        let [n, _, _, c] = nhwc(self.name(), inputs, 0)?;
        Ok([n, c].into())
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let [n, h, w, c] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let x = inputs[0].f32()?;
        let mut y = Tensor::stale(cpu, [n, c], DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, c, |n, y| {
            plane_means(&x[n * h * w * c..(n + 1) * h * w * c], w, y);
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let [_, h, w, c] = kept.shape(0).nhwc().expect("shape() checked four axes");
        let (dy, even) = (dy.f32()?, 1.0 / (h * w) as f32);
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, w * c, |row, dx| {
                let dy = &dy[row / h * c..][..c];
                for pixel in dx.chunks_exact_mut(c) {
                    pixel.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += even * dy);
                }
            });
        }
        Ok(())
    }
}

/// The means over a plane `x [h, w, c]`, summed row by row: long f32 sums lose digits.
pub(super) fn plane_means(x: &[f32], w: usize, mean: &mut [f32]) {
    let c = mean.len();
    let even = c as f32 / x.len() as f32;
    mean.fill(0.0);
    const LANES: usize = 64;
    for row in x.chunks_exact(w * c) {
        for from in (0..c).step_by(LANES) {
            let width = LANES.min(c - from);
            let mut sums = [0f32; LANES];
            for pixel in row.chunks_exact(c) {
                sums[..width].iter_mut().zip(&pixel[from..from + width]).for_each(|(sum, x)| *sum += x);
            }
            mean[from..from + width].iter_mut().zip(&sums).for_each(|(mean, sum)| *mean += sum);
        }
    }
    mean.iter_mut().for_each(|mean| *mean *= even);
}

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
    fn shape(&self, op: &'static str, inputs: &[Shape]) -> Result<Shape> {
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

    /// The pixels of axis length `size` that window `at` sees.
    fn pixels(&self, at: usize, size: usize) -> std::ops::Range<usize> {
        let from = at * self.stride;
        from.saturating_sub(self.padding)..(from + self.k - self.padding).min(size)
    }

    /// Runs `body(output pixel, input pixel, window size)` over all windows of a plane.
    fn each(&self, [h, w]: [usize; 2], [oh, ow]: [usize; 2], mut body: impl FnMut(usize, usize, usize)) {
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

/// The mean over windows: `x [n, h, w, c]` to `[n, oh, ow, c]` with
/// `oh = (h + 2 padding - k) / stride + 1`. Padding is not counted (PyTorch's
/// `count_include_pad=False`, as in DARTS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPool(pub PoolWindow);

impl Op for AvgPool {
    fn name(&self) -> &'static str {
        "avg_pool"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        self.0.shape(self.name(), inputs)
    }

    fn keep(&self) -> Keep {
        Keep::NOTHING
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let [_, h, w, c] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let shape = self.shape(&[inputs[0].shape()])?;
        let [_, oh, ow, _] = shape.nhwc().expect("four axes");
        let x = inputs[0].f32()?;
        let mut y = Tensor::stale(cpu, shape, DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, oh * ow * c, |n, y| {
            let x = &x[n * h * w * c..][..h * w * c];
            y.fill(0.0);
            self.0.each([h, w], [oh, ow], |to, from, size| {
                let even = 1.0 / size as f32;
                let to = &mut y[to * c..(to + 1) * c];
                to.iter_mut().zip(&x[from * c..]).for_each(|(y, x)| *y += even * x);
            });
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let [_, h, w, c] = kept.shape(0).nhwc().expect("shape() checked four axes");
        let [_, oh, ow, _] = dy.shape().nhwc().expect("four axes");
        let dy = dy.f32()?;
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, h * w * c, |n, dx| {
                let dy = &dy[n * oh * ow * c..][..oh * ow * c];
                self.0.each([h, w], [oh, ow], |from, to, size| {
                    let even = 1.0 / size as f32;
                    let to = &mut dx[to * c..(to + 1) * c];
                    to.iter_mut().zip(&dy[from * c..]).for_each(|(dx, dy)| *dx += even * dy);
                });
            });
        }
        Ok(())
    }
}

/// The maximum over windows: `x [n, h, w, c]` to `[n, oh, ow, c]` as [`AvgPool`]. Of equal values
/// the first in row order gets the gradient; a NaN wins, as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool(pub PoolWindow);

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        self.0.shape(self.name(), inputs)
    }

    fn keep(&self) -> Keep {
        Keep { inputs: 1, output: true }
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let [_, h, w, c] = inputs[0].shape().nhwc().expect("shape() checked four axes");
        let shape = self.shape(&[inputs[0].shape()])?;
        let [_, oh, ow, _] = shape.nhwc().expect("four axes");
        let x = inputs[0].f32()?;
        let mut y = Tensor::stale(cpu, shape, DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, oh * ow * c, |n, y| {
            let x = &x[n * h * w * c..][..h * w * c];
            y.fill(f32::NEG_INFINITY);
            self.0.each([h, w], [oh, ow], |to, from, _| {
                let to = &mut y[to * c..(to + 1) * c];
                for (y, &x) in to.iter_mut().zip(&x[from * c..]) {
                    if x > *y || x.is_nan() {
                        *y = x;
                    }
                }
            });
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let [_, h, w, c] = kept.shape(0).nhwc().expect("shape() checked four axes");
        let [_, oh, ow, _] = dy.shape().nhwc().expect("four axes");
        let (x, y, dy) = (kept.x(0)?, kept.y()?, dy.f32()?);
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, h * w * c, |n, dx| {
                let x = &x[n * h * w * c..][..h * w * c];
                let (mut last, mut taken) = (usize::MAX, vec![false; c]);
                self.0.each([h, w], [oh, ow], |from, to, _| {
                    if from != last {
                        last = from;
                        taken.fill(false);
                    }
                    let at = (n * oh * ow + from) * c;
                    for (j, taken) in taken.iter_mut().enumerate() {
                        let (x, y) = (x[to * c + j], y[at + j]);
                        if !*taken && (x == y || x.is_nan()) {
                            *taken = true;
                            dx[to * c + j] += dy[at + j];
                        }
                    }
                });
            });
        }
        Ok(())
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

pub(super) fn cases() -> Vec<Case> {
    let global = |name, x: [usize; 4]| {
        Case::new(name, GlobalAvgPool, vec![Input::normal(x)], move |x: &[Array]| {
            let [n, h, w, c] = x[0].shape.nhwc().expect("four axes");
            let mut y = Array::zeros([n, c]);
            for (at, v) in x[0].data.iter().enumerate() {
                *y.at_mut([at / (h * w * c), at % c]) += v / (h * w) as f64;
            }
            y
        })
    };
    let mut cases = vec![
        global("odd plane", [3, 5, 7, 9]),
        global("one pixel", [2, 1, 1, 3]),
        global("wide", [1, 4, 4, 130]),
    ];
    let tried = [
        ("k3, padded", [2, 5, 6, 5], PoolWindow { k: 3, stride: 1, padding: 1 }),
        ("k3, stride 2, padded", [1, 7, 8, 3], PoolWindow { k: 3, stride: 2, padding: 1 }),
        ("k2, stride 2", [2, 5, 4, 4], PoolWindow { k: 2, stride: 2, padding: 0 }),
        ("stride beyond the window", [1, 7, 7, 2], PoolWindow { k: 2, stride: 3, padding: 1 }),
        ("one pixel, one channel", [1, 1, 1, 1], PoolWindow { k: 1, stride: 1, padding: 0 }),
    ];
    for (name, x, window) in tried {
        cases.push(Case::new(name, AvgPool(window), vec![Input::normal(x)], move |x: &[Array]| {
            windows(window, &x[0], 0.0, |sum, v, size| sum + v / size)
        }));
        cases.push(Case::new(name, MaxPool(window), vec![Input::normal(x)], move |x: &[Array]| {
            windows(window, &x[0], f64::NEG_INFINITY, |max, v, _| max.max(v))
        }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let error = GlobalAvgPool.shape(&[[2, 3].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "global_avg_pool", .. }));
        let tight = PoolWindow { k: 3, stride: 1, padding: 0 };
        let error = AvgPool(tight).shape(&[[1, 2, 2, 1].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "avg_pool", .. }));
        assert!(error.to_string().contains("[1, 2, 2, 1]"), "{error}");
        for bad in [
            PoolWindow { stride: 0, ..tight },
            PoolWindow { k: 0, ..tight },
            PoolWindow { padding: 2, ..tight },
        ] {
            assert!(MaxPool(bad).shape(&[[1, 9, 9, 1].into()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_first_of_equal_maxima_gets_the_gradient() {
        let cpu = Cpu::new(1).unwrap();
        let x = Tensor::from_slice(&cpu, [1, 2, 2, 1], &[1.0f32, 3.0, 3.0, 3.0]).unwrap();
        let op = MaxPool(PoolWindow { k: 2, stride: 2, padding: 0 });
        let rng = crate::Rng::new(0, "ties");
        let run = crate::check::run_op(&op, &cpu, &[x], &[true], &rng, 0.0).unwrap();
        let dx = run.dx[0].as_ref().unwrap();
        assert!(dx[1] != 0.0 && dx[0] == 0.0 && dx[2] == 0.0 && dx[3] == 0.0, "{dx:?}");
    }
}
