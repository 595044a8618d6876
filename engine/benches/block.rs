//! Training of the fused inverted residual block, shapes A to G; `monopath bench block` also evaluates one, folded.
//!
//! `MONOPATH_ISA=avx2 cargo bench -p engine --bench block -- [--threads N] [--filter TEXT] [--runs N]
//! [--passes]`
//!
//! With `--passes` the median CPU time of every pass follows, with its GFLOP/s, its GB/s (every tensor once),
//! and the share of its floor: the larger of its arithmetic at the measured peak and its bytes at the
//! measured bandwidth.
//!
//! Squeeze-excite, h-swish, residual, stride 1, batch statistics. Reported are medians of the wall
//! time and of the process's CPU time, and the best run, in ms; GFLOP/s counts the multiply-adds of
//! the convolutions, backward twice the forward.

mod roof;

use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use engine::cpu::Spent;
use engine::ops::{Act, InvertedResidual, Statistics};
use engine::{Cpu, Op, Rng, Shape, Tape, Tensor, Var};
use roof::Roof;

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
    let (mut threads, mut filter, mut runs, mut passes) = (1, String::new(), 15, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| fail(&format!("{word} needs a value")));
        match word.as_str() {
            "--threads" => threads = value().parse().unwrap_or_else(|_| fail("--threads needs a number")),
            "--runs" => runs = value().parse().unwrap_or_else(|_| fail("--runs needs a number")),
            "--filter" => filter = value(),
            "--passes" => passes = true,
            "--bench" => {}
            _ => fail(&format!(
                "unknown option {word}; known are --threads N, --filter TEXT, --runs N, --passes"
            )),
        }
    }
    let cpu = Cpu::new(threads).unwrap_or_else(|e| fail(&e.to_string()));
    let roof = passes.then(|| Roof::measure(&cpu));
    println!("{threads} threads, {}", cpu.isa().name());
    if let Some(roof) = roof {
        println!("peak {:.0} GFLOP/s, memory {:.1} GB/s", roof.gflops, roof.gbs);
    }
    println!(
        "{:<6}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "block", "forward", "backward", "both", "cpu", "best", "GFLOP/s"
    );
    for (name, shape) in SHAPES {
        if filter.is_empty() || filter.contains(name) {
            measure(&cpu, name, shape, runs, roof).unwrap_or_else(|e| fail(&e.to_string()));
        }
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2)
}

/// Multiply-adds of a pass, and the elements of what it reads and writes.
fn work(pass: &str, [c, side, k, t, n, _]: [usize; 6]) -> Option<[usize; 2]> {
    let pixels = n * side * side;
    let (narrow, wide) = (pixels * c, pixels * c * t);
    let (dense, window) = (wide * c, wide * k * k);
    Some(match pass {
        "expand" => [dense, narrow + wide],
        "depthwise" => [window, 2 * wide],
        "squeeze" => [0, wide],
        "project" => [dense, wide + narrow],
        "finish" => [0, 3 * narrow],
        "finish backward" => [0, 2 * narrow],
        "project backward" => [2 * dense, 2 * narrow + 2 * wide],
        "depthwise backward" => [2 * window, 4 * wide],
        "expand backward" => [2 * dense, 2 * wide + 3 * narrow],
        _ => return None,
    })
}

/// The medians of the passes over all runs.
fn print_passes(shape: [usize; 6], runs: &[Vec<Spent>], roof: Roof) {
    let mut names: Vec<&str> = Vec::new();
    for spent in runs.iter().flatten().filter(|spent| spent.phase.is_empty()) {
        if !names.contains(&spent.name) {
            names.push(spent.name);
        }
    }
    for name in names {
        let of = |run: &Vec<Spent>| -> f64 {
            let all = run.iter().filter(|spent| spent.name == name && spent.phase.is_empty());
            all.map(|spent| spent.time).sum::<Duration>().as_secs_f64()
        };
        let mut times: Vec<f64> = runs.iter().map(of).collect();
        let time = median(&mut times);
        print!("    {name:<20}{:>8.2}", 1e3 * time);
        match work(name, shape) {
            Some([macs, elements]) => {
                let (flop, bytes) = (2.0 * macs as f64 / 1e9, 4.0 * elements as f64 / 1e9);
                let floor = (flop / roof.gflops).max(bytes / roof.gbs);
                println!(
                    "{:>10.1} GFLOP/s{:>8.1} GB/s{:>7.0} % of its floor",
                    flop / time,
                    bytes / time,
                    100.0 * floor / time
                );
            }
            None => println!(),
        }
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn measure(cpu: &Cpu, name: &str, shape: [usize; 6], runs: usize, roof: Option<Roof>) -> engine::Result<()> {
    let [c, side, k, t, n, r] = shape;
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
    let (mut forward, mut both, mut used, mut spans) = (vec![], vec![], vec![], vec![]);
    for run in 0..runs + 3 {
        let vars: Vec<Var> = tensors.iter().map(|t| tape.leaf(t.clone())).collect();
        let inputs: Vec<&Var> = vars.iter().collect();
        if roof.is_some() {
            cpu.start_trace(|| ProcessTime::now().as_duration());
        }
        let (wall, process) = (Instant::now(), ProcessTime::now());
        let y = tape.apply(op, &inputs)?;
        let first = wall.elapsed();
        tape.backward_from(&y, tensors[0].clone(), &mut store)?;
        if run >= 3 {
            forward.push(1e3 * first.as_secs_f64());
            both.push(1e3 * wall.elapsed().as_secs_f64());
            used.push(1e3 * process.elapsed().as_secs_f64());
            spans.push(cpu.stop_trace());
        }
    }
    let (f, b, u) = (median(&mut forward), median(&mut both), median(&mut used));
    println!("{name:<6}{f:>10.2}{:>10.2}{b:>10.2}{u:>10.2}{:>10.2}{:>10.1}", b - f, used[0], gflop / u * 1e3);
    if let Some(roof) = roof {
        print_passes(shape, &spans, roof);
    }
    Ok(())
}
