//! Cases of the block: its definition in f64, and every variant.

use super::super::Act;
use super::{InvertedResidual, Statistics};
use crate::check::{Array, Case, Input};
use crate::tensor::Shape;

/// `y = x w^T` over the last axis.
fn dense(x: &Array, w: &Array) -> Array {
    let [n, h, wide, _] = x.shape.nhwc().expect("four axes");
    let (o, i) = (w.shape.dims()[0], w.shape.dims()[1]);
    let mut y = Array::zeros([n, h, wide, o]);
    for (y, x) in y.data.chunks_exact_mut(o).zip(x.data.chunks_exact(i)) {
        for (y, w) in y.iter_mut().zip(w.data.chunks_exact(i)) {
            *y = x.iter().zip(w).map(|(x, w)| x * w).sum();
        }
    }
    y
}

fn depthwise(x: &Array, w: &Array, stride: usize) -> Array {
    let [n, h, wide, c] = x.shape.nhwc().expect("four axes");
    let k = w.shape.dims()[0];
    let (oh, ow, pad) = ((h - 1) / stride + 1, (wide - 1) / stride + 1, k / 2);
    let mut y = Array::zeros([n, oh, ow, c]);
    for at in 0..n * oh * ow * k * k {
        let (tap, pixel) = (at % (k * k), at / (k * k));
        let (b, oy, ox) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
        let (iy, ix) = (oy * stride + tap / k, ox * stride + tap % k);
        if (pad..h + pad).contains(&iy) && (pad..wide + pad).contains(&ix) {
            for j in 0..c {
                *y.at_mut([b, oy, ox, j]) += x.at([b, iy - pad, ix - pad, j]) * w.data[tap * c + j];
            }
        }
    }
    y
}

fn reference(op: InvertedResidual, x: &[Array]) -> Array {
    let places = op.places();
    let norm = |y: Array, which: usize| {
        let (c, rows) = (y.shape.channels(), y.data.len() / y.shape.channels());
        let mut z = y.clone();
        for j in 0..c {
            let channel = || (0..rows).map(|r| y.data[r * c + j]);
            let (mean, var) = if op.frozen() {
                (x[places.frozen[which]].data[j], x[places.frozen[which] + 1].data[j])
            } else {
                let mean = channel().sum::<f64>() / rows as f64;
                (mean, channel().map(|v| (v - mean).powi(2)).sum::<f64>() / rows as f64)
            };
            let at = places.filters[which];
            let (scale, shift) = if op.affine { (x[at + 1].data[j], x[at + 2].data[j]) } else { (1.0, 0.0) };
            for (r, v) in channel().enumerate() {
                let u = (v - mean) / (var + f64::from(op.eps)).sqrt() * scale + shift;
                z.data[r * c + j] = op.acts[which].value_f64(u);
            }
        }
        z
    };
    let mut y = x[0].clone();
    if op.expand {
        y = norm(dense(&y, &x[places.filters[0]]), 0);
    }
    y = norm(depthwise(&y, &x[places.filters[1]], op.stride), 1);
    if let Some(gate) = op.squeeze {
        let [w1, b1, w2, b2] = std::array::from_fn(|i| &x[places.squeeze + i]);
        let [_, h, w, c] = y.shape.nhwc().expect("four axes");
        let r = w1.shape.dims()[0];
        for image in y.data.chunks_exact_mut(h * w * c) {
            let mean: Vec<f64> =
                (0..c).map(|j| image.iter().skip(j).step_by(c).sum::<f64>() / (h * w) as f64).collect();
            let hidden: Vec<f64> = (0..r)
                .map(|i| (b1.at([i]) + (0..c).map(|j| w1.at([i, j]) * mean[j]).sum::<f64>()).max(0.0))
                .collect();
            for (at, v) in image.iter_mut().enumerate() {
                let j = at % c;
                let logit = b2.at([j]) + (0..r).map(|i| w2.at([j, i]) * hidden[i]).sum::<f64>();
                *v *= gate.value_f64(logit);
            }
        }
    }
    y = norm(dense(&y, &x[places.filters[2]]), 2);
    if op.residual {
        y.data.iter_mut().zip(&x[0].data).for_each(|(y, x)| *y += x);
    }
    y
}

/// Sizes of a case: `x`, then expanded width, kernel, hidden channels, output channels.
#[derive(Clone, Copy)]
struct Dims {
    x: [usize; 4],
    e: usize,
    k: usize,
    r: usize,
    o: usize,
}

fn case(name: &str, op: InvertedResidual, d: Dims) -> Case {
    let filter = |shape: Shape, fan: usize| Input::scaled(shape, (fan as f32).sqrt().recip(), 0.0);
    let norm = |inputs: &mut Vec<Input>, c: usize| {
        if op.affine {
            inputs.extend([Input::scaled([c], 0.3, 1.0), Input::scaled([c], 0.5, 0.4)]);
        }
    };
    let mut inputs = vec![Input::scaled(d.x, 1.0, 0.3)];
    let mut widths = Vec::new();
    if op.expand {
        inputs.push(filter([d.e, d.x[3]].into(), d.x[3]));
        norm(&mut inputs, d.e);
        widths.push(d.e);
    }
    inputs.push(filter([d.k, d.k, d.e].into(), d.k));
    norm(&mut inputs, d.e);
    if op.squeeze.is_some() {
        inputs.extend([
            filter([d.r, d.e].into(), d.e),
            Input::scaled([d.r], 1.0, 0.3),
            filter([d.e, d.r].into(), d.r),
            Input::normal([d.e]),
        ]);
    }
    inputs.push(filter([d.o, d.e].into(), d.e));
    norm(&mut inputs, d.o);
    if op.frozen() {
        widths.extend([d.e, d.o]);
        for c in widths {
            inputs.push(Input::scaled([c], 0.3, 0.1));
            let data = (0..c).map(|j| 0.6 + 0.9 * (j % 7) as f32 / 7.0).collect();
            inputs.push(Input::Values { shape: [c].into(), data, grad: true });
        }
    }
    Case::new(name, op, inputs, move |x: &[Array]| reference(op, x))
        .composed(move |tape, vars| op.composition(tape, vars))
}

pub(in super::super) fn cases() -> Vec<Case> {
    variants().into_iter().map(|(name, op, d)| case(name, op, d)).collect()
}

/// Every case with statistics that are given.
#[cfg(test)]
fn frozen_cases() -> Vec<Case> {
    let frozen = |op| InvertedResidual { statistics: Statistics::Frozen, ..op };
    variants().into_iter().map(|(name, op, d)| case(name, frozen(op), d)).collect()
}

fn variants() -> Vec<(&'static str, InvertedResidual, Dims)> {
    use Act::{HSwish, HardSigmoid, None as Plain, Relu, Relu6, Sigmoid, Swish};
    let base = InvertedResidual {
        stride: 1,
        expand: true,
        squeeze: Some(HardSigmoid),
        acts: [HSwish, HSwish, Plain],
        residual: true,
        affine: true,
        eps: 1e-3,
        statistics: Statistics::Batch,
    };
    let bare = InvertedResidual { squeeze: None, residual: false, ..base };
    let narrow = InvertedResidual { expand: false, residual: false, ..base };
    let frozen = InvertedResidual { statistics: Statistics::Frozen, ..base };
    let d = Dims { x: [2, 5, 7, 10], e: 37, k: 3, r: 5, o: 10 };
    // Without an activation after the depthwise the next norm takes its shift away again: a gradient
    // of zero, of which only rounding is left to compare. So those cases learn none.
    vec![
        ("k3, squeeze, residual", base, d),
        (
            "k5, swish, sigmoid gate",
            InvertedResidual { squeeze: Some(Sigmoid), acts: [Swish, Swish, Plain], ..base },
            Dims { k: 5, ..d },
        ),
        (
            "k7, relu6, not affine",
            InvertedResidual { acts: [Relu6, Relu6, Plain], affine: false, ..base },
            Dims { k: 7, e: 20, ..d },
        ),
        ("k9, relu", InvertedResidual { acts: [Relu, Relu, Plain], ..bare }, Dims { k: 9, e: 9, ..d }),
        ("stride 2, odd plane", InvertedResidual { stride: 2, residual: false, ..base }, Dims { o: 21, ..d }),
        (
            "stride 2, k5, even plane",
            InvertedResidual { stride: 2, ..bare },
            Dims { x: [2, 6, 8, 4], k: 5, ..d },
        ),
        (
            "stride 2, k7, no squeeze",
            InvertedResidual { stride: 2, ..bare },
            Dims { x: [2, 7, 6, 4], k: 7, e: 18, ..d },
        ),
        ("stride 2, k1", InvertedResidual { stride: 2, ..bare }, Dims { k: 1, e: 18, ..d }),
        (
            "relu, none, relu",
            InvertedResidual { acts: [Relu, Plain, Relu], affine: false, ..bare },
            Dims { e: 24, o: 17, ..d },
        ),
        ("every place relu6, stride 2", InvertedResidual { stride: 2, acts: [Relu6; 3], ..bare }, d),
        ("every place hard swish", InvertedResidual { acts: [HSwish; 3], ..base }, Dims { e: 16, ..d }),
        ("every place swish", InvertedResidual { acts: [Swish; 3], ..base }, Dims { e: 19, ..d }),
        ("none, relu6, none", InvertedResidual { acts: [Plain, Relu6, Plain], ..bare }, d),
        (
            "every place none",
            InvertedResidual { acts: [Plain; 3], affine: false, ..bare },
            Dims { e: 12, ..d },
        ),
        ("no expand", narrow, Dims { e: 10, o: 6, ..d }),
        (
            "no expand, residual, k5",
            InvertedResidual { residual: true, squeeze: None, ..narrow },
            Dims { e: 10, k: 5, ..d },
        ),
        (
            "no expand, stride 2, relu6",
            InvertedResidual { stride: 2, acts: [Plain, Relu6, Plain], ..narrow },
            Dims { x: [3, 7, 5, 19], e: 19, o: 8, ..d },
        ),
        // Padded rows of 2 KiB get a column more.
        ("rows of 2 KiB", base, Dims { x: [1, 4, 30, 3], e: 5, o: 3, ..d }),
        ("one image", base, Dims { x: [1, 6, 6, 8], e: 48, o: 8, ..d }),
        ("several panels, groups of images", base, Dims { x: [9, 13, 14, 4], e: 20, k: 5, r: 3, o: 4 }),
        // Planes beyond 96 KiB a block of channels are walked in bands of rows.
        (
            "large plane",
            InvertedResidual { squeeze: None, ..base },
            Dims { x: [1, 40, 42, 3], e: 5, k: 5, o: 3, ..d },
        ),
        (
            "large plane, stride 2",
            InvertedResidual { stride: 2, residual: false, ..base },
            Dims { x: [1, 57, 62, 3], e: 5, o: 4, ..d },
        ),
        (
            "large plane, k7, every place swish",
            InvertedResidual { acts: [Swish; 3], ..base },
            Dims { x: [2, 44, 37, 3], e: 5, k: 7, r: 2, o: 3 },
        ),
        // Sums of more than 256 terms are cut.
        (
            "many channels",
            InvertedResidual { residual: false, ..base },
            Dims { x: [2, 2, 3, 20], e: 290, r: 4, o: 40, ..d },
        ),
        ("one pixel of several images", base, Dims { x: [5, 1, 1, 8], e: 24, k: 5, o: 8, ..d }),
        ("frozen", frozen, d),
        (
            "frozen, no expand, stride 2",
            InvertedResidual { statistics: Statistics::Frozen, stride: 2, ..narrow },
            Dims { e: 10, o: 7, ..d },
        ),
        (
            "frozen, one pixel of one image",
            InvertedResidual { affine: false, ..frozen },
            Dims { x: [1, 1, 1, 5], e: 13, o: 5, ..d },
        ),
        (
            "frozen, one of everything",
            InvertedResidual { squeeze: None, ..frozen },
            Dims { x: [1, 1, 1, 1], e: 1, k: 3, r: 1, o: 1 },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;
    use crate::error::Error;
    use crate::op::Op;

    #[test]
    fn shape_errors_name_op_and_shapes() {
        let op = InvertedResidual {
            stride: 1,
            expand: true,
            squeeze: None,
            acts: [Act::Relu; 3],
            residual: false,
            affine: false,
            eps: 1e-5,
            statistics: Statistics::Batch,
        };
        let good: [Shape; 4] = [[2, 5, 5, 4].into(), [12, 4].into(), [3, 3, 12].into(), [6, 12].into()];
        assert_eq!(op.shape(&good).unwrap(), [2, 5, 5, 6].into());
        let wrong = [[2, 5, 5, 4].into(), [12, 5].into(), [3, 3, 12].into(), [6, 12].into()];
        let error = op.shape(&wrong).unwrap_err();
        assert!(matches!(error, Error::Shape { op: "inverted_residual", .. }));
        assert!(
            error.to_string().contains("[2, 5, 5, 4]") && error.to_string().contains("[12, 5]"),
            "{error}"
        );
        let refused = [
            InvertedResidual { residual: true, ..op },
            InvertedResidual { stride: 3, ..op },
            InvertedResidual { acts: [Act::Relu, Act::Sigmoid, Act::None], ..op },
            InvertedResidual { affine: true, ..op },
            InvertedResidual { statistics: Statistics::Frozen, ..op },
        ];
        assert!(refused.iter().all(|op| op.shape(&good).is_err()));
    }

    fn an_image_alone_has_the_bits_it_has_in_a_batch(case: &Case) {
        let rng = crate::rng::Rng::new(3, &case.name);
        for threads in [1, 3] {
            let cpu = crate::cpu::Cpu::new(threads).unwrap();
            let inputs = case.inputs.iter().enumerate();
            let mut tensors: Vec<_> = inputs.map(|(i, t)| t.make(&cpu, &rng, i).unwrap()).collect();
            let run = |tensors: &[crate::tensor::Tensor]| {
                let output = (case.op)().forward(&cpu, &tensors.iter().collect::<Vec<_>>(), false).unwrap();
                output.y.f32().unwrap().to_vec()
            };
            let all = run(&tensors);
            let x = tensors[0].clone();
            let [n, h, w, c] = x.shape().nhwc().unwrap();
            for (image, want) in all.chunks_exact(all.len() / n).enumerate() {
                let pixels = &x.f32().unwrap()[image * h * w * c..(image + 1) * h * w * c];
                tensors[0] = crate::tensor::Tensor::from_slice(&cpu, [1, h, w, c], pixels).unwrap();
                let same = run(&tensors).iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{}: image {image} of {n}, {threads} threads", case.name);
            }
        }
    }

    /// Each instruction set in a process of its own, since one process uses one.
    #[test]
    fn every_instruction_set_passes_every_case() {
        const CHILD: &str = "MONOPATH_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            cases().iter().for_each(crate::check::check);
            for case in frozen_cases() {
                crate::check::check_unrecorded(&case);
                an_image_alone_has_the_bits_it_has_in_a_batch(&case);
            }
            return;
        }
        let name = std::thread::current().name().expect("tests have names").to_owned();
        for isa in Isa::ALL {
            if !isa.is_available() {
                println!("skipped: {} is not on this machine", isa.name());
                continue;
            }
            let output = std::process::Command::new(std::env::current_exe().expect("a test has a file"))
                .args([&name, "--exact", "--nocapture"])
                .env(CHILD, "1")
                .env("MONOPATH_ISA", isa.name())
                .output()
                .expect("the test can run itself");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{}: {text}{}",
                isa.name(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}
