//! Evaluation of the inverted residual block: norms folded, shapes A to G.
//!
//! `MONOPATH_ISA=avx2 cargo bench -p engine --bench folded -- [--threads N] [--filter TEXT] [--runs N]
//! [--batch N]`
//!
//! Squeeze-excite, h-swish, residual, stride 1. Reported are the CPU time of folding, medians of the
//! wall and of the CPU time of a forward pass and the best run, in ms; GFLOP/s counts the
//! multiply-adds of the convolutions in the median CPU time.

use std::time::Instant;

use cpu_time::ProcessTime;
use engine::ops::{Act, InvertedResidual, Statistics};
use engine::{Cpu, Op, Rng, Shape, Tensor};

/// Name, channels, side, kernel, expansion, batch, hidden width of the squeeze-excite.
const SHAPES: [(&str, [usize; 6]); 7] = [
    ("A", [40, 28, 5, 6, 16, 16]),
    ("B", [24, 56, 3, 6, 16, 8]),
    ("C", [96, 14, 7, 6, 16, 24]),
    ("D", [40, 16, 7, 4, 64, 16]),
    ("E", [192, 7, 5, 6, 16, 48]),
    ("F", [24, 32, 5, 4, 64, 8]),
    ("G", [80, 8, 3, 6, 64, 24]),
];

fn main() {
    let (mut threads, mut filter, mut runs, mut batch) = (1, String::new(), 15, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| fail(&format!("{word} needs a value")));
        let mut number = || value().parse().unwrap_or_else(|_| fail(&format!("{word} needs a number")));
        match word.as_str() {
            "--threads" => threads = number(),
            "--runs" => runs = number(),
            "--batch" => batch = Some(number()),
            "--filter" => filter = value(),
            "--bench" => {}
            _ => fail(&format!(
                "unknown option {word}; known are --threads N, --filter TEXT, --runs N, --batch N"
            )),
        }
    }
    let cpu = Cpu::new(threads).unwrap_or_else(|e| fail(&e.to_string()));
    println!("{threads} threads, {}", cpu.isa().name());
    println!("{:<6}{:>10}{:>10}{:>10}{:>10}{:>10}", "block", "fold", "wall", "cpu", "best", "GFLOP/s");
    for (name, mut shape) in SHAPES {
        shape[4] = batch.unwrap_or(shape[4]);
        if filter.is_empty() || filter.contains(name) {
            measure(&cpu, name, shape, runs).unwrap_or_else(|e| fail(&e.to_string()));
        }
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2)
}

fn measure(cpu: &Cpu, name: &str, [c, side, k, t, n, r]: [usize; 6], runs: usize) -> engine::Result<()> {
    let e = c * t;
    let op = InvertedResidual {
        stride: 1,
        expand: true,
        squeeze: Some(Act::HardSigmoid),
        acts: [Act::HSwish, Act::HSwish, Act::None],
        residual: true,
        affine: false,
        eps: 1e-5,
        statistics: Statistics::Frozen,
    };
    let shapes: Vec<Shape> = vec![
        [n, side, side, c].into(),
        [e, c].into(),
        [k, k, e].into(),
        [r, e].into(),
        [r].into(),
        [e, r].into(),
        [e].into(),
        [c, e].into(),
        [e].into(),
        [e].into(),
        [e].into(),
        [e].into(),
        [c].into(),
        [c].into(),
    ];
    let rng = Rng::new(0, "bench");
    let tensors = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let mut draws = rng.at(0, 0, i as u32);
            // Variances are positive.
            let data: Vec<f32> = (0..shape.len()).map(|_| draws.range(0.1, 0.4)).collect();
            let sign = if i < 8 { 0.25 } else { 0.0 };
            Tensor::from_slice(cpu, *shape, &data.iter().map(|v| v - sign).collect::<Vec<f32>>())
        })
        .collect::<engine::Result<Vec<_>>>()?;
    let inputs: Vec<&Tensor> = tensors.iter().collect();
    let gflop = 2.0 * op.macs(&shapes) as f64 / 1e9;
    let (mut fold, mut wall_ms, mut used) = (vec![], vec![], vec![]);
    for run in 0..runs + 3 {
        let process = ProcessTime::now();
        let folded = op.fold(cpu, &inputs)?;
        let first = process.elapsed();
        drop(folded.forward(cpu, &tensors[0])?);
        let (wall, process) = (Instant::now(), ProcessTime::now());
        let y = folded.forward(cpu, &tensors[0])?;
        if run >= 3 {
            fold.push(1e3 * first.as_secs_f64());
            wall_ms.push(1e3 * wall.elapsed().as_secs_f64());
            used.push(1e3 * process.elapsed().as_secs_f64());
        }
        assert!(y.f32()?.iter().all(|v| v.is_finite()));
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (f, w, u) = (median(&mut fold), median(&mut wall_ms), median(&mut used));
    println!("{name:<6}{f:>10.3}{w:>10.2}{u:>10.2}{:>10.2}{:>10.1}", used[0], gflop / u * 1e3);
    Ok(())
}
