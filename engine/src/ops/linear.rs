//! The linear layer: `y[n, o] = sum_i x[n, i] w[o, i] (+ b[o])`.

use crate::check::{Array, Case, Input};
use crate::cpu::Cpu;
use crate::error::Result;
use crate::op::{Keep, Kept, Op, Output, exactly, shape_error};
use crate::tensor::{DType, Shape, Tensor};

/// Inputs: `x [n, i]`, `w [o, i]`, and `b [o]` if `bias`. Output `[n, o]`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Whether there is a bias.
    pub bias: bool,
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn shape(&self, inputs: &[Shape]) -> Result<Shape> {
        let wanted = if self.bias { 3 } else { 2 };
        if inputs.len() != wanted {
            return Err(shape_error(self.name(), inputs, format!("expected {wanted} inputs")));
        }
        let (&[n, i], &[o, wi]) = (inputs[0].dims(), inputs[1].dims()) else {
            return Err(shape_error(self.name(), inputs, "x must be [n, i] and w [o, i]"));
        };
        if i != wi || n * i * o == 0 {
            return Err(shape_error(
                self.name(),
                inputs,
                "x must be [n, i] and w [o, i] with one i, none zero",
            ));
        }
        if self.bias {
            exactly(self.name(), inputs, 2, "[o]", &[o])?;
        }
        Ok([n, o].into())
    }

    fn keep(&self) -> Keep {
        Keep::inputs(&[0, 1])
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        inputs[0].len() as u64 * inputs[1].dims()[0] as u64
    }

    fn forward(&self, cpu: &Cpu, inputs: &[&Tensor], _record: bool) -> Result<Output> {
        let (x, w) = (inputs[0].f32()?, inputs[1].f32()?);
        let (i, o) = (inputs[1].shape().dims()[1], inputs[1].shape().dims()[0]);
        let bias = if self.bias { Some(inputs[2].f32()?) } else { None };
        let mut y = Tensor::stale(cpu, [inputs[0].shape().dims()[0], o], DType::F32)?;
        cpu.pool().parallel_chunks(y.f32_mut()?, o, |n, y| {
            let x = &x[n * i..(n + 1) * i];
            for (at, (y, w)) in y.iter_mut().zip(w.chunks_exact(i)).enumerate() {
                *y = dot(x, w) + bias.map_or(0.0, |b| b[at]);
            }
        });
        Ok(y.into())
    }

    fn backward(&self, cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
        let (x, w, dy) = (kept.x(0)?, kept.x(1)?, dy.f32()?);
        let (n, i, o) = (kept.shape(0).dims()[0], kept.shape(1).dims()[1], kept.shape(1).dims()[0]);
        if let Some(dx) = &mut dx[0] {
            cpu.pool().parallel_chunks(dx, i, |n, dx| {
                for (dy, w) in dy[n * o..(n + 1) * o].iter().zip(w.chunks_exact(i)) {
                    axpy(dx, *dy, w);
                }
            });
        }
        if let Some(dw) = &mut dx[1] {
            cpu.pool().parallel_chunks(dw, i, |at, dw| {
                for n in 0..n {
                    axpy(dw, dy[n * o + at], &x[n * i..(n + 1) * i]);
                }
            });
        }
        if let Some(Some(db)) = dx.get_mut(2) {
            for row in dy.chunks_exact(o) {
                db.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
            }
        }
        Ok(())
    }
}

/// Eight running sums, so that the compiler may use vectors without changing the order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (mut sums, blocks) = ([0f32; 8], a.len() / 8 * 8);
    for (a, b) in a[..blocks].chunks_exact(8).zip(b[..blocks].chunks_exact(8)) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let tail: f32 = a[blocks..].iter().zip(&b[blocks..]).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + tail
}

fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

fn reference(x: &[Array]) -> Array {
    let (n, i, o) = (x[0].shape.dims()[0], x[0].shape.dims()[1], x[1].shape.dims()[0]);
    let mut y = Array::zeros([n, o]);
    for a in 0..n {
        for b in 0..o {
            let sum: f64 = (0..i).map(|c| x[0].at([a, c]) * x[1].at([b, c])).sum();
            *y.at_mut([a, b]) = sum + x.get(2).map_or(0.0, |bias| bias.at([b]));
        }
    }
    y
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name, n, i, o, bias| {
        let mut inputs = vec![Input::normal([n, i]), Input::normal([o, i])];
        if bias {
            inputs.push(Input::normal([o]));
        }
        Case::new(name, Linear { bias }, inputs, reference)
    };
    vec![
        case("bias", 5, 19, 7, true),
        case("no bias", 3, 40, 10, false),
        case("one of everything", 1, 1, 1, true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let error = Linear { bias: false }.shape(&[[2, 3].into(), [4, 5].into()]).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "linear", .. }));
        assert!(error.to_string().contains("[2, 3]") && error.to_string().contains("[4, 5]"), "{error}");
    }
}
