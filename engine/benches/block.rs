//! The fused inverted residual block: shapes A to G.
//!
//! `MONOPATH_ISA=avx2 cargo bench -p engine --bench block -- [--threads N] [--filter TEXT] [--runs N]`
//!
//! Squeeze-excite, h-swish, residual, stride 1, batch statistics. Reported are medians of the wall
//! time and of the process's CPU time, and the best run, in ms; GFLOP/s counts the multiply-adds of
//! the convolutions, backward twice the forward.

use std::time::Instant;

use cpu_time::ProcessTime;
use engine::ops::{Act, InvertedResidual, Statistics};
use engine::{Cpu, Op, Rng, Shape, Tape, Tensor, Var};

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
    let (mut threads, mut filter, mut runs) = (1, String::new(), 15);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| fail(&format!("{word} needs a value")));
        match word.as_str() {
            "--threads" => threads = value().parse().unwrap_or_else(|_| fail("--threads needs a number")),
            "--runs" => runs = value().parse().unwrap_or_else(|_| fail("--runs needs a number")),
            "--filter" => filter = value(),
            "--bench" => {}
            _ => fail(&format!("unknown option {word}; known are --threads N, --filter TEXT, --runs N")),
        }
    }
    let cpu = Cpu::new(threads).unwrap_or_else(|e| fail(&e.to_string()));
    println!("{threads} threads, {}", cpu.isa().name());
    println!(
        "{:<6}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "block", "forward", "backward", "both", "cpu", "best", "GFLOP/s"
    );
    for (name, shape) in SHAPES {
        if name.contains(&*filter) {
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
        affine: true,
        eps: 1e-5,
        statistics: Statistics::Batch,
    };
    let shapes: Vec<Shape> = vec![
        [n, side, side, c].into(),
        [e, c].into(),
        [e].into(),
        [e].into(),
        [k, k, e].into(),
        [e].into(),
        [e].into(),
        [r, e].into(),
        [r].into(),
        [e, r].into(),
        [e].into(),
        [c, e].into(),
        [c].into(),
        [c].into(),
    ];
    let rng = Rng::new(0, "bench");
    let tensors = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let mut draws = rng.at(0, 0, i as u32);
            let data: Vec<f32> = (0..shape.len()).map(|_| 0.3 * draws.normal() + 0.05).collect();
            Tensor::from_slice(cpu, *shape, &data)
        })
        .collect::<engine::Result<Vec<_>>>()?;
    let gflop = 6.0 * op.macs(&shapes) as f64 / 1e9;
    let mut store = engine::check::empty_store(cpu);
    let mut tape = Tape::new(cpu);
    let (mut forward, mut both, mut used) = (vec![], vec![], vec![]);
    for run in 0..runs + 3 {
        let vars: Vec<Var> = tensors.iter().map(|t| tape.leaf(t.clone())).collect();
        let inputs: Vec<&Var> = vars.iter().collect();
        let (wall, process) = (Instant::now(), ProcessTime::now());
        let y = tape.apply(op, &inputs)?;
        let first = wall.elapsed();
        tape.backward_from(&y, tensors[0].clone(), &mut store)?;
        if run >= 3 {
            forward.push(1e3 * first.as_secs_f64());
            both.push(1e3 * wall.elapsed().as_secs_f64());
            used.push(1e3 * process.elapsed().as_secs_f64());
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (f, b, u) = (median(&mut forward), median(&mut both), median(&mut used));
    println!("{name:<6}{f:>10.2}{:>10.2}{b:>10.2}{u:>10.2}{:>10.2}{:>10.1}", b - f, used[0], gflop / u * 1e3);
    Ok(())
}
