//! What [`Linear`](super::Linear) and [`PointwiseConv2d`](super::PointwiseConv2d) share: rows times
//! a filter `[o, i]`.

use kernels::channels::{Affine, BiasGradient, Constants};
use kernels::pointwise::{self, Arithmetic, Forward, ForwardArgs};
use kernels::pointwise_gradient::{FilterGradient, FilterGradientArgs, InputGradient, InputGradientArgs};
use kernels::{Act, Write};

use crate::cpu::Cpu;
use crate::cpu::matmul::{Left, Places, Right, add_rows, matmul, matmul_long, pack, packed_len};
use crate::cuda::{Cuda, Partials, Slot};
use crate::error::Result;
use crate::op::Kept;
use crate::tensor::{DType, Shape, Tensor};

/// With so few rows as a classifier sees, packing the filter would cost more than the product.
const FEW_ROWS: usize = 64;

/// `y[.., o] = sum_i x[.., i] w[o, i] (+ b[o])`.
pub(super) fn forward(cpu: &Cpu, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, to: Shape) -> Result<Tensor> {
    let (o, i) = (w.shape().dims()[0], w.shape().dims()[1]);
    let rows = x.shape().len() / i;
    let bias = bias.map(Tensor::f32).transpose()?;
    let mut y = Tensor::stale(cpu, to, DType::F32)?;
    if rows <= FEW_ROWS {
        // The transposed product reads the filter as it lies.
        let mut turned = Tensor::stale(cpu, [o, rows], DType::F32)?;
        let mut right = Tensor::stale(cpu, [packed_len(i, rows)], DType::F32)?;
        pack(cpu, x.f32()?, [rows, i], 1, i, right.f32_mut()?);
        let left = Left { data: w.f32()?, rows: Places::Stride(i), terms: Places::Stride(1) };
        matmul(cpu, [o, rows, i], left, Right::Packed(right.f32()?), turned.f32_mut()?, rows, false);
        let turned = turned.f32()?;
        cpu.pool().parallel_chunks(y.f32_mut()?, o, |row, y| {
            let column = turned[row..].iter().step_by(rows);
            match bias {
                Some(bias) => y.iter_mut().zip(column.zip(bias)).for_each(|(y, (v, b))| *y = v + b),
                None => y.iter_mut().zip(column).for_each(|(y, v)| *y = *v),
            }
        });
        return Ok(y);
    }
    let mut filter = Tensor::stale(cpu, [packed_len(i, o)], DType::F32)?;
    pack(cpu, w.f32()?, [o, i], 1, i, filter.f32_mut()?);
    if let Some(bias) = bias {
        cpu.pool().parallel_chunks(y.f32_mut()?, ROWS * o, |_, y| {
            y.chunks_exact_mut(o).for_each(|row| row.copy_from_slice(bias));
        });
    }
    let left = Left { data: x.f32()?, rows: Places::Stride(i), terms: Places::Stride(1) };
    matmul(cpu, [rows, o, i], left, Right::Packed(filter.f32()?), y.f32_mut()?, o, bias.is_some());
    Ok(y)
}

/// Adds the gradients of `x`, `w` and the bias, which are inputs 0, 1 and 2.
pub(super) fn backward(cpu: &Cpu, kept: &Kept<'_>, dy: &Tensor, dx: &mut [Option<&mut [f32]>]) -> Result<()> {
    let mut slots = dx.iter_mut().map(|slot| slot.as_deref_mut());
    let to = [0; 3].map(|_| slots.next().flatten());
    gradients(cpu, kept.x(0)?, kept.input(1), dy, to)
}

/// Adds the gradients `[dx, dw, db]` that are asked for.
pub(super) fn gradients(
    cpu: &Cpu,
    x: &[f32],
    w: &Tensor,
    dy: &Tensor,
    [dx, dw, db]: [Option<&mut [f32]>; 3],
) -> Result<()> {
    let dy = dy.f32()?;
    let (o, i) = (w.shape().dims()[0], w.shape().dims()[1]);
    let rows = x.len() / i;
    if let Some(dx) = dx {
        let left = Left { data: dy, rows: Places::Stride(o), terms: Places::Stride(1) };
        if rows <= FEW_ROWS {
            matmul(cpu, [rows, i, o], left, Right::Rows { data: w.f32()?, stride: i }, dx, i, true);
        } else {
            let mut filter = Tensor::stale(cpu, [packed_len(o, i)], DType::F32)?;
            pack(cpu, w.f32()?, [i, o], i, 1, filter.f32_mut()?);
            matmul(cpu, [rows, i, o], left, Right::Packed(filter.f32()?), dx, i, true);
        }
    }
    if let Some(dw) = dw {
        let left = Left { data: dy, rows: Places::Stride(1), terms: Places::Stride(o) };
        matmul_long(cpu, [o, i, rows], left, Right::Rows { data: x, stride: i }, dw)?;
    }
    if let Some(db) = db {
        bias_gradient(cpu, dy, db)?;
    }
    Ok(())
}

/// The product as kernels see it: all rows are pixels of one image.
fn launch_shape(x: Shape, w: Shape) -> pointwise::Shape {
    let (n, k) = (w.dims()[0], w.dims()[1]);
    pointwise::Shape { images: 1, plane: x.len() / k, k, n }
}

/// [`forward`] on a GPU.
pub(super) fn forward_cuda(
    cuda: &Cuda,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    to: Shape,
) -> Result<Tensor> {
    let shape = launch_shape(x.shape(), w.shape());
    let op = cuda.prepare(shape, |d| Forward::new(d, shape, Arithmetic::F32, Act::None))?;
    let mut y = Tensor::stale(cuda, to, DType::F32)?;
    let mut partials = Partials::new(cuda, op.partials(), shape.n)?;
    let args = ForwardArgs {
        x: x.input()?,
        affine: None,
        gate: None,
        w: w.input()?,
        y: y.output()?,
        moments: partials.moments.output()?,
        counts: partials.counts.output()?,
    };
    cuda.launch(|stream| op.launch(stream, args))?;
    let Some(bias) = bias else { return Ok(y) };
    let (rows, c, f32) = (shape.m(), shape.n, kernels::DType::F32);
    let op = cuda.prepare((rows, c), |d| Affine::new(d, f32, rows, c))?;
    let mut moved = Tensor::stale(cuda, to, DType::F32)?;
    let constants = Constants { shift: Some(bias.input()?), ..Constants::default() };
    let (from, into) = (y.input()?, moved.output()?);
    cuda.launch(|stream| op.launch(stream, from, constants, into, Write::Store))?;
    Ok(moved)
}

/// [`backward`] on a GPU.
pub(super) fn backward_cuda(
    cuda: &Cuda,
    kept: &Kept<'_>,
    dy: &Tensor,
    dx: &mut [Option<Slot<'_>>],
) -> Result<()> {
    let shape = launch_shape(kept.shape(0), kept.shape(1));
    let (d, x, w) = (dy.input()?, kept.input(0).input()?, kept.input(1).input()?);
    let mut slots = dx.iter_mut().map(Option::as_mut);
    let [dx, dw, db] = [0; 3].map(|_| slots.next().flatten());
    if let Some(slot) = dx {
        let op = cuda.prepare(shape, |d| InputGradient::new(d, shape, Arithmetic::F32))?;
        let (dx, write) = slot.open();
        let accumulate = write == Write::Add;
        let args = InputGradientArgs { d, formed: None, w, more: None, accumulate, dx };
        cuda.launch(|stream| op.launch(stream, args))?;
    }
    if let Some(slot) = dw {
        let op = cuda.prepare(shape, |d| FilterGradient::new(d, shape, Arithmetic::F32, Act::None))?;
        let mut parts = Tensor::stale(cuda, [op.partials(), shape.n, shape.k], DType::F32)?;
        let args = FilterGradientArgs { d, formed: None, x, affine: None, gate: None, dw: parts.output()? };
        cuda.launch(|stream| op.launch(stream, args))?;
        cuda.sum(op.partials(), &parts, slot)?;
    }
    if let Some(slot) = db {
        let (rows, c, f32) = (shape.m(), shape.n, kernels::DType::F32);
        let op = cuda.prepare((rows, c), |d| BiasGradient::new(d, f32, rows, c))?;
        let mut parts = Tensor::stale(cuda, [op.partials(), c], DType::F32)?;
        let to = parts.output()?;
        cuda.launch(|stream| op.launch(stream, d, to))?;
        cuda.sum(op.partials(), &parts, slot)?;
    }
    Ok(())
}

/// Rows summed by one task of [`bias_gradient`].
const ROWS: usize = 256;

/// `db[c] += sum over rows of dy[.., c]`.
pub(super) fn bias_gradient(cpu: &Cpu, dy: &[f32], db: &mut [f32]) -> Result<()> {
    let c = db.len();
    let mut partial = Tensor::zeros(cpu, [dy.len().div_ceil(ROWS * c), c])?;
    cpu.pool().parallel_chunks(partial.f32_mut()?, c, |at, sums| {
        for row in dy[at * ROWS * c..].chunks_exact(c).take(ROWS) {
            sums.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
        }
    });
    add_rows(cpu, partial.f32()?, db);
    Ok(())
}
