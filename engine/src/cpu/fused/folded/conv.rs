//! A dense convolution with its batch norm and activation folded in.

use super::layer::{Column, Filter, Place, layer};
use super::{PANEL, folded};
use crate::cpu::fused::norm::Given;
use crate::cpu::fused::product::Left;
use crate::cpu::fused::with_scratch;
use crate::cpu::{Cpu, Disjoint};
use crate::error::Result;
use crate::ops::Act;
use crate::tensor::Tensor;

/// A convolution whose norm is folded into its filter; zeros of half a window around the input.
#[derive(Clone, Debug)]
pub struct FoldedConv {
    c: usize,
    o: usize,
    k: usize,
    stride: usize,
    act: Act,
    filter: Tensor,
}

impl FoldedConv {
    /// Folds `given` into `w [o, k, k, c]`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn new(
        cpu: &Cpu,
        w: &[f32],
        [o, k, c]: [usize; 3],
        stride: usize,
        given: Given<'_>,
        act: Act,
    ) -> Result<Self> {
        let terms = k * k * c;
        let filter = folded(cpu, [terms, o], |j| {
            let [scale, shift] = given.folded(j);
            Column { weights: &w[j * terms..(j + 1) * terms], scale, shift }
        })?;
        Ok(Self { c, o, k, stride, act, filter })
    }

    /// Input channels.
    pub fn input(&self) -> usize {
        self.c
    }

    /// Output channels.
    pub fn output(&self) -> usize {
        self.o
    }

    /// Rows and columns of the output.
    pub fn to(&self, from: [usize; 2]) -> [usize; 2] {
        from.map(|size| (size - 1) / self.stride + 1)
    }

    /// `y [n, h', w', o]` of `x [n, h, w, c]`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    pub fn forward(&self, cpu: &Cpu, x: &[f32], [n, h, w]: [usize; 3], y: &mut [f32]) -> Result<()> {
        let (c, o, k, pad, [oh, ow]) = (self.c, self.o, self.k, self.k / 2, self.to([h, w]));
        let filter = Filter { data: self.filter.f32()?, size: [k * k * c, o], first: 0 };
        let parts = Disjoint::new(y);
        if k == 1 && self.stride == 1 {
            let rows = n * h * w;
            cpu.pool().parallel_for(rows.div_ceil(PANEL), |panel, _| {
                let rows = panel * PANEL..rows.min((panel + 1) * PANEL);
                let left = Left { data: &x[rows.start * c..], row: c, outer: [1, 0], inner: [c, 1] };
                let to = Place { parts: &parts, first: rows.start * o, row: o, line: [rows.len(), 0] };
                layer(rows.len(), 0..o, left, filter, self.act, &[], to);
            });
            return Ok(());
        }
        // A task loads the rows under some output lines, with zeros around them.
        let lines = (PANEL / ow).clamp(1, oh);
        let (bands, row) = (oh.div_ceil(lines), ((ow - 1) * self.stride + k).max(w + pad) * c);
        let high = (lines - 1) * self.stride + k;
        with_scratch(cpu, n * bands, high * row, |task, rows| {
            let (image, band) = (task / bands, task % bands);
            let lines = band * lines..oh.min((band + 1) * lines);
            for (at, to) in rows[..high * row].chunks_exact_mut(row).enumerate() {
                match (lines.start * self.stride + at).checked_sub(pad) {
                    Some(from) if from < h => {
                        to[..pad * c].fill(0.0);
                        let x = &x[(image * h + from) * w * c..][..w * c];
                        to[pad * c..(pad + w) * c].copy_from_slice(x);
                        to[(pad + w) * c..].fill(0.0);
                    }
                    _ => to.fill(0.0),
                }
            }
            for line in lines.clone() {
                let data = &rows[(line - lines.start) * self.stride * row..];
                let left = Left { data, row: self.stride * c, outer: [k, row], inner: [k * c, 1] };
                let first = (image * oh + line) * ow * o;
                let to = Place { parts: &parts, first, row: o, line: [ow, 0] };
                layer(ow, 0..o, left, filter, self.act, &[], to);
            }
        })
    }
}
