//! The dense 2-d convolution, in groups:
//! `y[n, oy, ox, o] = sum_{ky, kx, i} x[n, oy*s + ky - p, ox*s + kx - p, i] w[o, ky, kx, i]`.
//!
//! No patches are gathered: some lines of output pixels are a matrix product whose left operand is
//! read from the (padded) input rows through two tables of places, one of the pixels and one of the
//! elements of the window.

use kernels::conv2d;

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cpu::matmul::{Left, Places, Right, pack, packed_len, panel};
use crate::cuda::{Cuda, Slot};
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, nhwc, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Inputs: `x [n, h, w, c]` and `w [o, kh, kw, c / groups]`. Output `[n, oh, ow, o]` with
/// `oh = (h + 2 padding - kh) / stride + 1`.
///
/// Output channel `j` belongs to group `j / (o / groups)` and sees that group's input channels only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Vertical and horizontal stride, in pixels.
    pub stride: [usize; 2],
    /// Zeros added above and below, and left and right.
    pub padding: [usize; 2],
    /// Number of groups; divides both channel counts.
    pub groups: usize,
}

/// All sizes of one call; channels are those of one group.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    h: usize,
    w: usize,
    /// All input channels, and those of a group.
    c: usize,
    cg: usize,
    oh: usize,
    ow: usize,
    /// All output channels, and those of a group.
    o: usize,
    og: usize,
    kh: usize,
    kw: usize,
}

impl Sizes {
    /// Weights of one output channel.
    fn window(&self) -> usize {
        self.kh * self.kw * self.cg
    }

    /// Output lines of one product: some hundred pixels share a pass over the filters. Divides the
    /// lines of an image.
    fn lines(&self) -> usize {
        let most = PIXELS.div_ceil(self.ow).min(self.oh);
        (1..=most).rev().find(|lines| self.oh.is_multiple_of(*lines)).unwrap_or(1)
    }
}

/// Output pixels of one product, about.
const PIXELS: usize = 96;
/// Parts of the sum behind a filter gradient at most.
const PARTS: usize = 32;

impl Conv2d {
    fn sizes(&self, x: Shape, weight: Shape) -> Option<Sizes> {
        let ([n, h, w, c], [o, kh, kw, cg]) = (x.nhwc()?, weight.nhwc()?);
        let reach = |size: usize, k: usize, axis: usize| {
            // A window that sees padding alone would be a mistake, and would have no bound.
            let padding = Some(self.padding[axis]).filter(|&p| p < k)?;
            Some((size + 2 * padding).checked_sub(k)?.checked_div(self.stride[axis])? + 1)
        };
        let (oh, ow) = (reach(h, kh, 0)?, reach(w, kw, 1)?);
        let og = o.checked_div(self.groups)?;
        let fits = cg.checked_mul(self.groups) == Some(c) && og * self.groups == o;
        (fits && !x.is_empty() && !weight.is_empty()).then_some(Sizes {
            n,
            h,
            w,
            c,
            cg,
            oh,
            ow,
            o,
            og,
            kh,
            kw,
        })
    }

    /// Copies the input rows under output lines `oy..` of image `n` into `out`, zeros around them.
    fn load_rows(&self, s: &Sizes, x: &[f32], n: usize, oy: usize, out: &mut [f32]) {
        let len = self.padded(s);
        let left = self.padding[1] * s.c;
        // Columns on the far side that no window reaches are left out.
        let inside = (s.w * s.c).min(len.saturating_sub(left));
        for (at, row) in out.chunks_exact_mut(len).enumerate() {
            match (oy * self.stride[0] + at).checked_sub(self.padding[0]) {
                Some(y) if y < s.h && inside > 0 => {
                    let from = (n * s.h + y) * s.w * s.c;
                    row[..left].fill(0.0);
                    row[left..left + inside].copy_from_slice(&x[from..from + inside]);
                    row[left + inside..].fill(0.0);
                }
                _ => row.fill(0.0),
            }
        }
    }

    /// Input rows under `lines` output lines.
    fn rows(&self, s: &Sizes, lines: usize) -> usize {
        (lines - 1) * self.stride[0] + s.kh
    }

    /// Where the elements of a window lie in the loaded rows, for one group.
    fn window(&self, s: &Sizes) -> Vec<usize> {
        let row = self.padded(s);
        (0..s.window()).map(|k| k / (s.kw * s.cg) * row + k / s.cg % s.kw * s.c + k % s.cg).collect()
    }

    /// Where the windows of `lines` output lines begin in the loaded rows.
    fn pixels(&self, s: &Sizes, lines: usize) -> Vec<usize> {
        let row = self.stride[0] * self.padded(s);
        (0..lines * s.ow).map(|p| p / s.ow * row + p % s.ow * self.stride[1] * s.c).collect()
    }

    /// Elements of an input row from the first window's start to the last window's end.
    fn padded(&self, s: &Sizes) -> usize {
        ((s.ow - 1) * self.stride[1] + s.kw) * s.c
    }
}

impl Conv2d {
    /// The sizes as kernels have them.
    fn launch_shape(&self, x: Shape, w: Shape) -> conv2d::Shape {
        let s = self.sizes(x, w).expect("shape() accepted these");
        conv2d::Shape {
            n: s.n,
            h: s.h,
            w: s.w,
            c: s.c,
            o: s.o,
            k: [s.kh, s.kw],
            stride: self.stride,
            padding: self.padding,
            dilation: [1, 1],
            groups: self.groups,
        }
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let [x, w] = crate::op::arity(self.name(), inputs)?;
        nhwc(self.name(), inputs, 0)?;
        match self.sizes(x, w) {
            Some(s) => Ok([s.n, s.oh, s.ow, s.o].into()),
            None => Err(shape_error(
                self.name(),
                inputs,
                format!(
                    "with {self:?}, w must be [o, kh, kw, c / groups], groups must divide o, padding be less than the window, and the window fit the padded plane"
                ),
            )),
        }
    }

    fn keep(&self) -> Keep {
        Keep::INPUTS
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        self.sizes(inputs[0], inputs[1]).map_or(0, |s| (s.n * s.oh * s.ow * s.o * s.window()) as u64)
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let s = self.sizes(inputs[0].shape(), inputs[1].shape()).expect("shape() accepted these");
        let (x, w) = (inputs[0].f32()?, inputs[1].f32()?);
        let filters = filters(cpu, &s, w, self.groups)?;
        let filters = filters.f32()?;
        let (row, lines) = (self.padded(&s), s.lines());
        let window: Vec<usize> =
            (0..s.window()).map(|k| k / (s.kw * s.cg) * row + k / s.cg % s.kw * s.c + k % s.cg).collect();
        let pixels = self.pixels(&s, lines);
        let share = self.rows(&s, lines) * row;
        let mut scratch = Tensor::stale(cpu, [cpu.pool().threads(), share], DType::F32)?;
        let mut y = Tensor::stale(cpu, [s.n, s.oh, s.ow, s.o], DType::F32)?;
        let len = lines * s.ow * s.o;
        cpu.pool().parallel_chunks_with(y.f32_mut()?, len, scratch.f32_mut()?, |at, y, rows| {
            self.load_rows(&s, x, at * lines / s.oh, at * lines % s.oh, rows);
            for (g, filter) in filters.chunks_exact(packed_len(s.window(), s.og)).enumerate() {
                let left =
                    Left { data: &rows[g * s.cg..], rows: Places::At(&pixels), terms: Places::At(&window) };
                let dims = [pixels.len(), s.og, s.window()];
                panel(dims, left, Right::Packed(filter), &mut y[g * s.og..], s.o, false);
            }
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let s = self.sizes(kept.shape(0), kept.shape(1)).expect("shape() accepted these");
        let (x, w, dy) = (kept.x(0)?, kept.x(1)?, dy.f32()?);
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, s.w * s.c, |at, dx| {
                self.input_row_gradient(&s, w, dy, at / s.h, at % s.h, dx);
            });
        }
        if let Some(dw) = &mut dx[1] {
            self.filter_gradient(cpu, &s, x, dy, dw)?;
        }
        Ok(())
    }

    fn forward_cuda(&self, cuda: &Cuda, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let shape = self.launch_shape(inputs[0].shape(), inputs[1].shape());
        let op = cuda.prepare(shape, |d| conv2d::Forward::new(d, shape, kernels::DType::F32))?;
        let mut y = Tensor::stale(cuda, [shape.n, shape.oh(), shape.ow(), shape.o], DType::F32)?;
        let (x, w, to) = (inputs[0].input()?, inputs[1].input()?, y.output()?);
        cuda.launch(|stream| op.launch(stream, x, w, to))?;
        Ok(y.into())
    }

    fn backward_cuda(
        &self,
        cuda: &Cuda,
        kept: &Kept<'_>,
        dy: &Tensor,
        dx: &mut [Option<Slot<'_>>],
    ) -> Result<()> {
        let shape = self.launch_shape(kept.shape(0), kept.shape(1));
        let (f32, dy) = (kernels::DType::F32, dy.input()?);
        if let Some(slot) = &mut dx[0] {
            let op = cuda.prepare(shape, |d| conv2d::DataGradient::new(d, shape, f32))?;
            let (w, (to, write)) = (kept.input(1).input()?, slot.open());
            cuda.launch(|stream| op.launch(stream, dy, w, to, write))?;
        }
        if let Some(slot) = &mut dx[1] {
            let op = cuda.prepare(shape, |d| conv2d::FilterGradient::new(d, shape, f32))?;
            let mut parts = Tensor::stale(cuda, [op.partials(), shape.filters()], DType::F32)?;
            let (x, to) = (kept.input(0).input()?, parts.output()?);
            cuda.launch(|stream| op.launch(stream, x, dy, to))?;
            cuda.sum(op.partials(), &parts, slot)?;
        }
        Ok(())
    }
}

impl Conv2d {
    /// Row `y` of `dx` of image `n`: for each tap one product, added where the tap reads.
    fn input_row_gradient(&self, s: &Sizes, w: &[f32], dy: &[f32], n: usize, y: usize, dx: &mut [f32]) {
        let [sy, sx] = self.stride;
        for ky in 0..s.kh {
            let Some(top) = (y + self.padding[0]).checked_sub(ky) else { continue };
            if top % sy != 0 || top / sy >= s.oh {
                continue;
            }
            let dy = &dy[(n * s.oh + top / sy) * s.ow * s.o..][..s.ow * s.o];
            for kx in 0..s.kw {
                // The outputs whose tap `kx` lies on a pixel: 0 <= ox * sx + kx - p < w.
                let first = self.padding[1].saturating_sub(kx).div_ceil(sx);
                let end = (s.w + self.padding[1]).saturating_sub(kx).div_ceil(sx).min(s.ow);
                if first >= end {
                    continue;
                }
                let column = first * sx + kx - self.padding[1];
                for g in 0..self.groups {
                    let left = Left {
                        data: &dy[first * s.o + g * s.og..],
                        rows: Places::Stride(s.o),
                        terms: Places::Stride(1),
                    };
                    let right = Right::Rows {
                        data: &w[g * s.og * s.window() + (ky * s.kw + kx) * s.cg..],
                        stride: s.window(),
                    };
                    let dims = [end - first, s.cg, s.og];
                    panel(dims, left, right, &mut dx[column * s.c + g * s.cg..], sx * s.c, true);
                }
            }
        }
    }

    /// For each group one product summed over pixels, into a transposed `[groups][kh, kw, cg][og]`:
    /// then the few channels of an image are rows, and no lane is idle.
    fn filter_gradient(&self, cpu: &Cpu, s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
        let lines = s.lines();
        let (window, pixels) = (self.window(s), self.pixels(s, lines));
        let blocks = s.n * s.oh / lines;
        let parts = blocks.div_ceil(4).min(PARTS);
        let len = dw.len();
        let share = self.rows(s, lines) * self.padded(s);
        let mut partial = Tensor::stale(cpu, [parts, len], DType::F32)?;
        let mut scratch = Tensor::stale(cpu, [cpu.pool().threads(), share], DType::F32)?;
        cpu.pool().parallel_chunks_with(partial.f32_mut()?, len, scratch.f32_mut()?, |part, sums, rows| {
            sums.fill(0.0);
            for block in blocks * part / parts..blocks * (part + 1) / parts {
                self.load_rows(s, x, block * lines / s.oh, block * lines % s.oh, rows);
                let dy = &dy[block * lines * s.ow * s.o..];
                for (g, sums) in sums.chunks_exact_mut(s.window() * s.og).enumerate() {
                    let data = &rows[g * s.cg..];
                    let left = Left { data, rows: Places::At(&window), terms: Places::At(&pixels) };
                    let right = Right::Rows { data: &dy[g * s.og..], stride: s.o };
                    panel([s.window(), s.og, pixels.len()], left, right, sums, s.og, true);
                }
            }
        });
        let partial = partial.f32()?;
        cpu.pool().parallel_chunks(dw, s.window(), |o, dw| {
            let from = o / s.og * s.window() * s.og + o % s.og;
            for partial in partial.chunks_exact(len) {
                dw.iter_mut().zip(partial[from..].iter().step_by(s.og)).for_each(|(dw, part)| *dw += part);
            }
        });
        Ok(())
    }
}

/// The filters of every group, packed one after another.
fn filters(cpu: &Cpu, s: &Sizes, w: &[f32], groups: usize) -> Result<Tensor> {
    let len = packed_len(s.window(), s.og);
    let mut all = Tensor::stale(cpu, [groups, len], DType::F32)?;
    for (g, out) in all.f32_mut()?.chunks_exact_mut(len).enumerate() {
        pack(cpu, &w[g * s.og * s.window()..], [s.og, s.window()], 1, s.window(), out);
    }
    Ok(all)
}

fn reference(op: Conv2d, x: &[Array]) -> Array {
    let [n, h, w, c] = x[0].shape.nhwc().expect("four axes");
    let [o, kh, kw, cg] = x[1].shape.nhwc().expect("four axes");
    let shape = op.shape(&[x[0].shape, x[1].shape]).expect("the case fits");
    let [_, oh, ow, _] = shape.nhwc().expect("four axes");
    assert_eq!(c, cg * op.groups);
    let mut y = Array::zeros(shape);
    for b in 0..n {
        for oy in 0..oh {
            for ox in 0..ow {
                for j in 0..o {
                    let first = j / (o / op.groups) * cg;
                    let mut sum = 0.0;
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let (iy, ix) = (oy * op.stride[0] + ky, ox * op.stride[1] + kx);
                            if (op.padding[0]..h + op.padding[0]).contains(&iy)
                                && (op.padding[1]..w + op.padding[1]).contains(&ix)
                            {
                                for i in 0..cg {
                                    sum += x[0].at([b, iy - op.padding[0], ix - op.padding[1], first + i])
                                        * x[1].at([j, ky, kx, i]);
                                }
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
    let case = |name, x: [usize; 4], [o, kh, kw]: [usize; 3], stride, padding, groups| {
        let op = Conv2d { stride, padding, groups };
        let inputs = vec![Input::normal(x), Input::normal([o, kh, kw, x[3] / groups])];
        Case::new(name, op, inputs, move |x: &[Array]| reference(op, x))
    };
    vec![
        case("stem", [2, 9, 11, 3], [16, 3, 3], [2, 2], [1, 1], 1),
        case("odd channels", [1, 7, 6, 5], [19, 3, 3], [1, 1], [1, 1], 1),
        case("1 x 7", [2, 4, 9, 4], [6, 1, 7], [1, 1], [0, 3], 1),
        case("7 x 1, strides 2 and 1", [1, 9, 4, 4], [6, 7, 1], [2, 1], [3, 0], 1),
        case("groups", [1, 6, 6, 12], [8, 3, 3], [1, 1], [1, 1], 4),
        case("as many groups as channels, stride 2", [2, 5, 5, 6], [6, 3, 3], [2, 2], [1, 1], 6),
        case("no padding", [1, 5, 6, 3], [4, 2, 3], [1, 1], [0, 0], 1),
        case("stride beyond the window", [1, 8, 8, 2], [3, 1, 1], [3, 3], [0, 0], 1),
        case("padding beyond the plane", [1, 2, 2, 2], [3, 5, 5], [1, 1], [4, 3], 1),
        case("one pixel, one channel", [1, 1, 1, 1], [1, 1, 1], [1, 1], [0, 0], 1),
        // More than one block of the sum, several parts of the filter gradient.
        case("wide window, many rows", [3, 20, 5, 40], [7, 3, 3], [1, 1], [1, 1], 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let op = Conv2d { stride: [1, 1], padding: [0, 0], groups: 1 };
        let error = op.shape(&[[2, 3, 3, 4].into(), [8, 5, 5, 4].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "conv2d", .. }));
        assert!(
            error.to_string().contains("[2, 3, 3, 4]") && error.to_string().contains("[8, 5, 5, 4]"),
            "{error}"
        );
        assert!(op.shape(&[[2, 3, 3, 4].into(), [8, 3, 3, 2].into()]).is_err());
        for bad in [
            Conv2d { stride: [0, 1], ..op },
            Conv2d { groups: 0, ..op },
            Conv2d { groups: 3, ..op },
            Conv2d { padding: [usize::MAX, 0], ..op },
        ] {
            assert!(bad.shape(&[[2, 3, 3, 4].into(), [8, 3, 3, 4].into()]).is_err(), "{bad:?}");
        }
    }
    fn random(cpu: &Cpu, shape: impl Into<Shape>, index: u32) -> Tensor {
        let shape = shape.into();
        let mut draws = crate::Rng::new(4, "conv2d").at(0, 0, index);
        let data: Vec<f32> = (0..shape.len()).map(|_| draws.normal()).collect();
        Tensor::from_slice(cpu, shape, &data).unwrap()
    }

    fn close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (at, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "at {at}: {a} {b}");
        }
    }

    #[test]
    fn special_windows_are_the_pointwise_and_the_depthwise_convolution() {
        let cpu = Cpu::new(2).unwrap();
        let x = random(&cpu, [2, 6, 5, 12], 0);
        let run =
            |op: &dyn Op, w: &Tensor| op.forward(&cpu, &[&x, w], false).unwrap().y.f32().unwrap().to_vec();
        let one = Conv2d { stride: [1, 1], padding: [0, 0], groups: 1 };
        let w = random(&cpu, [20, 12], 1);
        let pointwise = run(&crate::ops::PointwiseConv2d { bias: false }, &w);
        close(&run(&one, &w.reshape([20, 1, 1, 12]).unwrap()), &pointwise);

        let each = Conv2d { stride: [2, 2], padding: [1, 1], groups: 12 };
        let w = random(&cpu, [3, 3, 12], 2);
        let mut turned = vec![0.0; 3 * 3 * 12];
        w.f32().unwrap().iter().enumerate().for_each(|(at, v)| turned[at % 12 * 9 + at / 12] = *v);
        let turned = Tensor::from_slice(&cpu, [12, 3, 3, 1], &turned).unwrap();
        let depthwise = run(&crate::ops::DepthwiseConv2d { stride: 2, dilation: 1 }, &w);
        close(&run(&each, &turned), &depthwise);
    }

    #[test]
    fn a_sum_of_images_gives_the_sum_of_the_results() {
        let cpu = Cpu::new(2).unwrap();
        let (a, b) = (random(&cpu, [1, 7, 8, 5], 0), random(&cpu, [1, 7, 8, 5], 1));
        let sum: Vec<f32> = a.f32().unwrap().iter().zip(b.f32().unwrap()).map(|(a, b)| a + 2.0 * b).collect();
        let sum = Tensor::from_slice(&cpu, [1, 7, 8, 5], &sum).unwrap();
        let w = random(&cpu, [9, 3, 5, 5], 2);
        let op = Conv2d { stride: [1, 2], padding: [1, 2], groups: 1 };
        let run = |x: &Tensor| op.forward(&cpu, &[x, &w], false).unwrap().y.f32().unwrap().to_vec();
        let parts: Vec<f32> = run(&a).iter().zip(run(&b)).map(|(a, b)| a + 2.0 * b).collect();
        close(&run(&sum), &parts);
    }
}
