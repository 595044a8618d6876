//! The depthwise 2-d convolution:
//! `y[n, oy, ox, c] = sum_{ky, kx} x[n, oy*s + ky*d - p, ox*s + kx*d - p, c] w[ky, kx, c]`.
//!
//! Forward and data gradient are one loop, [`Correlate`]: the data gradient of a stride runs it once
//! for every residue of the column, so that neighbouring pixels share their taps.

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::cpu::matmul::add_rows;
use crate::cpu::simd::{self, Loop, fma};
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

#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    oh: usize,
    ow: usize,
    k: usize,
    pad: usize,
}

/// Channels that one pass of the inner loops holds in registers, and narrower ones for the rest.
const LANES: usize = 16;
/// Output pixels that share a load of the filter.
const PIXELS: usize = 4;
/// Parts of the sum behind a filter gradient at most.
const PARTS: usize = 16;

impl DepthwiseConv2d {
    fn sizes(&self, x: Shape, weight: Shape) -> Option<Sizes> {
        let [n, h, w, c] = x.nhwc()?;
        let &[k, kw, wc] = weight.dims() else { return None };
        let pad = (k.checked_sub(1)? / 2).checked_mul(self.dilation).filter(|&p| p < 1 << 24)?;
        let fits = k == kw && k % 2 == 1 && wc == c && self.stride > 0 && self.dilation > 0 && !x.is_empty();
        fits.then(|| Sizes {
            n,
            h,
            w,
            c,
            oh: (h - 1) / self.stride + 1,
            ow: (w - 1) / self.stride + 1,
            k,
            pad,
        })
    }

    /// The taps `ky` of output row `oy` that lie inside, with their input rows.
    fn rows(&self, s: &Sizes, oy: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (s, stride, dilation) = (*s, self.stride, self.dilation);
        (0..s.k).filter_map(move |ky| {
            let y = (oy * stride + ky * dilation).checked_sub(s.pad)?;
            (y < s.h).then_some((ky, y))
        })
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
            Some(s) => Ok([s.n, s.oh, s.ow, s.c].into()),
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
        self.sizes(inputs[0], inputs[1]).map_or(0, |s| (s.n * s.oh * s.ow * s.c * s.k * s.k) as u64)
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let s = self.sizes(inputs[0].shape(), inputs[1].shape()).expect("shape() accepted these");
        let (x, w) = (inputs[0].f32()?, inputs[1].f32()?);
        let mut y = Tensor::stale(cpu, [s.n, s.oh, s.ow, s.c], DType::F32)?;
        let taps: Vec<Tap> = (0..s.k).map(|kx| Tap { kx, shift: place(kx * self.dilation, s.pad) }).collect();
        cpu.pool().parallel_chunks(y.f32_mut()?, s.ow * s.c, |at, y| {
            let (n, oy) = (at / s.oh, at % s.oh);
            let rows: Rows = self
                .rows(&s, oy)
                .map(|(ky, y)| {
                    (&w[ky * s.k * s.c..][..s.k * s.c], &x[(n * s.h + y) * s.w * s.c..][..s.w * s.c])
                })
                .collect();
            let pixels = Pixels { first: 0, step: 1, count: s.ow };
            simd::run(Correlate {
                c: s.c,
                rows: &rows,
                taps: &taps,
                step: self.stride,
                to: y,
                pixels,
                add: false,
            });
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let s = self.sizes(kept.shape(0), kept.shape(1)).expect("shape() accepted these");
        let (x, w, dy) = (kept.x(0)?, kept.x(1)?, dy.f32()?);
        if let Some(dx) = &mut dx[0] {
            self.input_gradient(cpu, &s, w, dy, dx);
        }
        if let Some(dw) = &mut dx[1] {
            self.filter_gradient(cpu, &s, x, dy, dw)?;
        }
        Ok(())
    }
}

impl DepthwiseConv2d {
    fn input_gradient(&self, cpu: &Cpu, s: &Sizes, w: &[f32], dy: &[f32], dx: &mut [f32]) {
        // Columns `ix` with one residue of `ix + pad` see the same taps: those with
        // `kx * dilation` of that residue, at output column `(ix + pad - kx * dilation) / stride`.
        let phases: Vec<(Pixels, Vec<Tap>)> = (0..self.stride.min(s.w))
            .map(|first| {
                let taps = (0..s.k)
                    .filter(|kx| (first + s.pad) % self.stride == kx * self.dilation % self.stride)
                    .map(|kx| Tap {
                        kx,
                        shift: place(first + s.pad, kx * self.dilation) / self.stride as isize,
                    })
                    .collect();
                let count = (s.w - first).div_ceil(self.stride);
                (Pixels { first, step: self.stride, count }, taps)
            })
            .collect();
        cpu.pool().parallel_chunks(dx, s.w * s.c, |at, dx| {
            let (n, y) = (at / s.h, at % s.h);
            let rows: Rows = (0..s.k)
                .filter_map(|ky| {
                    let top = (y + s.pad).checked_sub(ky * self.dilation)?;
                    let oy = Some(top / self.stride).filter(|&oy| top % self.stride == 0 && oy < s.oh)?;
                    let dy = &dy[(n * s.oh + oy) * s.ow * s.c..][..s.ow * s.c];
                    Some((&w[ky * s.k * s.c..][..s.k * s.c], dy))
                })
                .collect();
            for (pixels, taps) in &phases {
                let pixels = *pixels;
                simd::run(Correlate { c: s.c, rows: &rows, taps, step: 1, to: dx, pixels, add: true });
            }
        });
    }

    fn filter_gradient(&self, cpu: &Cpu, s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
        let lines = s.n * s.oh;
        let parts = lines.div_ceil(8).min(PARTS);
        let mut partial = Tensor::stale(cpu, [parts, dw.len()], DType::F32)?;
        let len = dw.len();
        cpu.pool().parallel_chunks(partial.f32_mut()?, len, |part, dw| {
            dw.fill(0.0);
            for line in lines * part / parts..lines * (part + 1) / parts {
                let dy = &dy[line * s.ow * s.c..][..s.ow * s.c];
                for (ky, y) in self.rows(s, line % s.oh) {
                    let x = &x[(line / s.oh * s.h + y) * s.w * s.c..][..s.w * s.c];
                    let dw = &mut dw[ky * s.k * s.c..][..s.k * s.c];
                    simd::run(FilterRow { op: *self, s, x, dy, dw });
                }
            }
        });
        add_rows(cpu, partial.f32()?, dw);
        Ok(())
    }
}

/// For every tap row that lies inside: its filters `[k, c]`, and the row `[w, c]` it reads.
type Rows<'a> = Vec<(&'a [f32], &'a [f32])>;

/// A tap of a window row reads column `j * step + shift` for output `j`.
struct Tap {
    kx: usize,
    shift: isize,
}

fn place(forward: usize, back: usize) -> isize {
    forward as isize - back as isize
}

/// The pixels `first + j * step` of a row, for `j < count`.
#[derive(Clone, Copy)]
struct Pixels {
    first: usize,
    step: usize,
    count: usize,
}

/// `to[pixel j] (+)= sum over rows and taps of row[j * step + shift] * filter`.
struct Correlate<'a, 'to> {
    c: usize,
    rows: &'a [(&'a [f32], &'a [f32])],
    taps: &'a [Tap],
    step: usize,
    to: &'to mut [f32],
    pixels: Pixels,
    add: bool,
}

impl Loop for Correlate<'_, '_> {
    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        // Outputs `inside` have every tap on the row.
        let width = self.rows.first().map_or(0, |(_, row)| row.len() / self.c) as isize;
        let low = self.taps.iter().map(|t| t.shift).min().unwrap_or(0);
        let high = self.taps.iter().map(|t| t.shift).max().unwrap_or(0);
        let step = self.step as isize;
        let count = self.pixels.count as isize;
        let first = ((step - 1 - low) / step).clamp(0, count);
        let end = if width > high { ((width - 1 - high) / step + 1).clamp(first, count) } else { first };
        let inside = [first as usize, end as usize];
        let mut from = 0;
        while from < self.c {
            from += match self.c - from {
                LANES.. => self.block::<LANES, FMA>(from, inside),
                8.. => self.block::<8, FMA>(from, inside),
                4.. => self.block::<4, FMA>(from, inside),
                _ => self.block::<1, FMA>(from, inside),
            };
        }
    }
}

impl Correlate<'_, '_> {
    #[inline(always)]
    fn block<const L: usize, const FMA: bool>(&mut self, from: usize, [first, end]: [usize; 2]) -> usize {
        for j in (0..first).chain(end..self.pixels.count) {
            self.edge::<L, FMA>(from, j);
        }
        let mut j = first;
        while j + PIXELS <= end {
            self.inside::<L, PIXELS, FMA>(from, j);
            j += PIXELS;
        }
        while j < end {
            self.inside::<L, 1, FMA>(from, j);
            j += 1;
        }
        L
    }

    #[inline(always)]
    fn inside<const L: usize, const P: usize, const FMA: bool>(&mut self, from: usize, j: usize) {
        let mut sums = [[0f32; L]; P];
        for (filter, row) in self.rows {
            for tap in self.taps {
                let w = lanes::<L>(filter, tap.kx * self.c + from);
                let at = (j * self.step).wrapping_add_signed(tap.shift) * self.c + from;
                for (p, sums) in sums.iter_mut().enumerate() {
                    let x = lanes::<L>(row, at + p * self.step * self.c);
                    for lane in 0..L {
                        sums[lane] = fma::<FMA>(x[lane], w[lane], sums[lane]);
                    }
                }
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            self.store(from, j + p, sums);
        }
    }

    #[inline(always)]
    fn edge<const L: usize, const FMA: bool>(&mut self, from: usize, j: usize) {
        let mut sums = [0f32; L];
        for (filter, row) in self.rows {
            for tap in self.taps {
                let column = (j * self.step).wrapping_add_signed(tap.shift);
                if column < row.len() / self.c {
                    let (w, x) =
                        (lanes::<L>(filter, tap.kx * self.c + from), lanes::<L>(row, column * self.c + from));
                    for lane in 0..L {
                        sums[lane] = fma::<FMA>(x[lane], w[lane], sums[lane]);
                    }
                }
            }
        }
        self.store(from, j, &sums);
    }

    #[inline(always)]
    fn store<const L: usize>(&mut self, from: usize, j: usize, sums: &[f32; L]) {
        let at = (self.pixels.first + j * self.pixels.step) * self.c + from;
        let to = &mut self.to[at..at + L];
        if self.add {
            (0..L).for_each(|lane| to[lane] += sums[lane]);
        } else {
            to.copy_from_slice(sums);
        }
    }
}

#[inline(always)]
fn lanes<const L: usize>(data: &[f32], at: usize) -> &[f32; L] {
    data[at..at + L].try_into().expect("the slice has L elements")
}

/// `dw[kx, c] += sum over ox of dy[ox, c] x[ox * s + kx * d - p, c]` for one row of each.
struct FilterRow<'a, 'dw> {
    op: DepthwiseConv2d,
    s: &'a Sizes,
    x: &'a [f32],
    dy: &'a [f32],
    dw: &'dw mut [f32],
}

impl Loop for FilterRow<'_, '_> {
    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let mut from = 0;
        while from < self.s.c {
            from += match self.s.c - from {
                LANES.. => self.block::<LANES, FMA>(from),
                8.. => self.block::<8, FMA>(from),
                4.. => self.block::<4, FMA>(from),
                _ => self.block::<1, FMA>(from),
            };
        }
    }
}

impl FilterRow<'_, '_> {
    #[inline(always)]
    fn block<const L: usize, const FMA: bool>(&mut self, from: usize) -> usize {
        let mut kx = 0;
        while kx < self.s.k {
            kx += match self.s.k - kx {
                // Seven taps as four and three: one or two alone would wait for their own sums.
                4 | 7.. => self.taps::<L, 4, FMA>(from, kx),
                5 | 6 => self.taps::<L, 5, FMA>(from, kx),
                3 => self.taps::<L, 3, FMA>(from, kx),
                2 => self.taps::<L, 2, FMA>(from, kx),
                _ => self.taps::<L, 1, FMA>(from, kx),
            };
        }
        L
    }

    /// Taps `kx..kx + T`.
    #[inline(always)]
    fn taps<const L: usize, const T: usize, const FMA: bool>(&mut self, from: usize, kx: usize) -> usize {
        let (s, DepthwiseConv2d { stride, dilation }) = (self.s, self.op);
        let mut sums = [[0f32; L]; T];
        // Outputs `first..end` have all of these taps on the row.
        let end = (s.w + s.pad).saturating_sub((kx + T - 1) * dilation).div_ceil(stride).min(s.ow);
        let first = s.pad.saturating_sub(kx * dilation).div_ceil(stride).min(end);
        for ox in (0..first).chain(end..s.ow) {
            let dy = lanes::<L>(self.dy, ox * s.c + from);
            for (t, sums) in sums.iter_mut().enumerate() {
                let column = (ox * stride + (kx + t) * dilation).wrapping_sub(s.pad);
                if column < s.w {
                    let x = lanes::<L>(self.x, column * s.c + from);
                    (0..L).for_each(|lane| sums[lane] = fma::<FMA>(x[lane], dy[lane], sums[lane]));
                }
            }
        }
        for ox in first..end {
            let dy = lanes::<L>(self.dy, ox * s.c + from);
            let at = (ox * stride + kx * dilation - s.pad) * s.c + from;
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = lanes::<L>(self.x, at + t * dilation * s.c);
                for lane in 0..L {
                    sums[lane] = fma::<FMA>(x[lane], dy[lane], sums[lane]);
                }
            }
        }
        for (t, sums) in sums.iter().enumerate() {
            let to = &mut self.dw[(kx + t) * s.c + from..][..L];
            (0..L).for_each(|lane| to[lane] += sums[lane]);
        }
        T
    }
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
