//! How many kernels a fused block is.

use engine::ops::{Act, InvertedResidual, Statistics};
use engine::{Cuda, Layout, Op, ParamKind, Tape, Tensor};

const C: usize = 8;
const E: usize = 24;
const R: usize = 4;

/// The inputs of a block, in their order.
fn shapes(op: InvertedResidual) -> Vec<Vec<usize>> {
    let e = if op.expand { E } else { C };
    let mut shapes = vec![vec![2, 6, 6, C]];
    let mut widths = Vec::new();
    let mut filter = |shapes: &mut Vec<Vec<usize>>, shape: Vec<usize>, c: usize| {
        shapes.push(shape);
        if op.affine {
            shapes.extend([vec![c], vec![c]]);
        }
        widths.extend([vec![c], vec![c]]);
    };
    if op.expand {
        filter(&mut shapes, vec![E, C], E);
    }
    filter(&mut shapes, vec![3, 3, e], e);
    if op.squeeze.is_some() {
        shapes.extend([vec![R, e], vec![R], vec![e, R], vec![e]]);
    }
    filter(&mut shapes, vec![C, e], C);
    if op.statistics == Statistics::Frozen {
        shapes.extend(widths);
    }
    shapes
}

/// Launches of the forward and of the backward pass, every input having a gradient.
fn launches(cuda: &Cuda, op: InvertedResidual) -> [u64; 2] {
    let mut layout = Layout::new();
    let mut add = |(i, shape): (usize, &Vec<usize>)| {
        let shape = engine::Shape::new(shape).unwrap();
        layout.add(format!("input {i}"), shape, ParamKind::Weight).unwrap()
    };
    let ids: Vec<_> = shapes(op).iter().enumerate().map(&mut add).collect();
    let mut store = layout.build(cuda).unwrap();
    for id in &ids {
        let len = store.value(*id).unwrap().len();
        store.set(*id, &vec![0.5; len]).unwrap();
    }
    let mut tape = Tape::new(cuda);
    let inputs: Vec<_> = ids.iter().map(|id| store.read(&mut tape, *id, None).unwrap()).collect();
    let before = cuda.work().launches;
    let y = tape.apply(op, &inputs.iter().collect::<Vec<_>>()).unwrap();
    let forward = cuda.work().launches - before;
    drop(inputs);
    let dy = Tensor::from_slice(cuda, y.shape(), &vec![1.0; y.shape().len()]).unwrap();
    let before = cuda.work().launches;
    tape.backward_from(&y, dy, &mut store).unwrap();
    [forward, cuda.work().launches - before]
}

/// Launches of an evaluation.
fn evaluated(cuda: &Cuda, op: InvertedResidual) -> u64 {
    let make = |shape: &Vec<usize>| {
        let shape = engine::Shape::new(shape).unwrap();
        Tensor::from_slice(cuda, shape, &vec![0.5; shape.len()]).unwrap()
    };
    let tensors: Vec<Tensor> = shapes(op).iter().map(make).collect();
    let before = cuda.work().launches;
    op.forward_cuda(cuda, &tensors.iter().collect::<Vec<_>>(), false).unwrap();
    cuda.work().launches - before
}

on_gpu!(a_fused_block_is_a_few_launches, |cuda| {
    let plain = InvertedResidual {
        stride: 1,
        expand: true,
        squeeze: None,
        acts: [Act::HSwish, Act::HSwish, Act::None],
        residual: true,
        affine: true,
        eps: 1e-5,
        statistics: Statistics::Batch,
    };
    let squeezed = InvertedResidual { squeeze: Some(Act::HardSigmoid), ..plain };
    // Forward: expand, depthwise, project, each with its norm, and finish; squeeze and its layers. Backward: sums with their
    // norm, project's two, the gate's layers, depthwise and expand's two, each with a norm before it, the sum of parts.
    assert_eq!(launches(cuda, plain), [7, 9]);
    assert_eq!(launches(cuda, squeezed), [9, 10]);
    assert_eq!(launches(cuda, InvertedResidual { affine: false, ..plain }), [7, 9]);
    // Without expand the depthwise pass makes the gradient of the input, which it stores; that of a parameter, as here, is
    // added to in a launch more. So is what comes past the block.
    assert_eq!(launches(cuda, InvertedResidual { expand: false, ..squeezed }), [7, 9]);
    let narrow = InvertedResidual { expand: false, residual: false, stride: 2, ..plain };
    assert_eq!(launches(cuda, narrow), [5, 7]);

    let frozen = |op| InvertedResidual { statistics: Statistics::Frozen, ..op };
    // Norms folded; expand, depthwise, squeeze and its layers, project, finish.
    assert_eq!(evaluated(cuda, frozen(plain)), 7);
    assert_eq!(evaluated(cuda, frozen(narrow)), 5);
    assert_eq!(evaluated(cuda, frozen(squeezed)), 9);
});
