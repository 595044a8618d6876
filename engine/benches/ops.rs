//! Speed of every op beside the roofline of this machine.
//!
//! `cargo bench -p engine --bench ops -- [--threads N] [--filter TEXT] [--json]`
//!
//! Both directions are timed through the tape, as a training step runs them. Reported are the median
//! of the runs, its spread (the middle half), and the best run, which a busy machine disturbs least
//! and which the rates are of. The floor of a run is the larger of its
//! arithmetic at the measured peak and its bytes at the measured bandwidth, every tensor counted
//! once; `floor` says how much of the time that is.

use std::hint::black_box;
mod roof;

use std::time::{Duration, Instant};

use engine::op::Op;
use engine::ops::*;
use engine::{Cpu, Rng, Shape, Tape, Tensor, Var};
use roof::Roof;

/// Runs of one measurement at least, and the time they take at least.
const RUNS: usize = 7;
const TIME: Duration = Duration::from_millis(300);

fn main() {
    let options = Options::parse();
    let cpu = Cpu::new(options.threads).unwrap_or_else(|e| fail(&e.to_string()));
    let roof = Roof::measure(&cpu);
    if !options.json {
        println!(
            "{} threads, peak {:.0} GFLOP/s, memory {:.1} GB/s\n",
            options.threads, roof.gflops, roof.gbs
        );
        println!(
            "{:<69} {:>9} {:>7} {:>9} {:>9} {:>7} {:>7}",
            "op", "ms", "spread", "best", "GFLOP/s", "GB/s", "floor"
        );
    }
    let mut lines = Vec::new();
    for bench in benches() {
        let title = &bench.title;
        if !title.contains(&*options.filter) {
            continue;
        }
        for (direction, times) in ["forward", "backward"].into_iter().zip(bench.run(&cpu)) {
            let result = bench.judge(direction, times, roof);
            if options.json {
                lines.push(result.json(title, options.threads));
            } else {
                println!("{}", result.line(title));
            }
        }
    }
    if options.json {
        let roof = format!("\"peak_gflops\": {:.1}, \"memory_gbs\": {:.1}", roof.gflops, roof.gbs);
        println!("{{{roof}, \"ops\": [\n  {}\n]}}", lines.join(",\n  "));
    }
}

struct Options {
    threads: usize,
    filter: String,
    json: bool,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self { threads: 1, filter: String::new(), json: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| fail(&format!("{word} needs a value")));
            match word.as_str() {
                "--threads" => {
                    options.threads = value().parse().unwrap_or_else(|_| fail("--threads needs a number"));
                }
                "--filter" => options.filter = value(),
                "--json" => options.json = true,
                // Cargo says this to every bench.
                "--bench" => {}
                _ => fail(&format!("unknown option {word}; known are --threads N, --filter TEXT, --json")),
            }
        }
        options
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2)
}

/// One op on one set of shapes.
struct Bench {
    title: String,
    inputs: Vec<Shape>,
    /// The bound of the labels, if the last input is labels.
    classes: Option<usize>,
    macs: u64,
    /// Elements of the output.
    output: usize,
    /// Whether the first input is images, which need no gradient.
    images: bool,
    apply: Apply,
}

type Apply = Box<dyn Fn(&mut Tape, &[&Var]) -> engine::Result<Var>>;

fn bench<O: Op + Copy + 'static>(op: O, inputs: &[&[usize]]) -> Bench {
    let inputs: Vec<Shape> = inputs.iter().map(|dims| Shape::new(dims).expect("one to four axes")).collect();
    let shown: Vec<String> = inputs.iter().take(2).map(Shape::to_string).collect();
    Bench {
        title: format!("{} {}", op.name(), shown.join(" ")),
        macs: op.macs(&inputs),
        output: op.shape(&inputs).map_or_else(|e| fail(&e.to_string()), |y| y.len()),
        images: inputs[0].rank() == 4 && inputs[0].channels() == 3,
        inputs,
        classes: None,
        apply: Box::new(move |tape, inputs| tape.apply(op, inputs)),
    }
}

fn benches() -> Vec<Bench> {
    let conv = |o: usize, k: usize, stride: usize, groups: usize, x: [usize; 4]| {
        let op = Conv2d { stride: [stride; 2], padding: [k / 2; 2], groups };
        bench(op, &[&x, &[o, k, k, x[3] / groups]])
    };
    let depthwise = |k: usize, stride: usize, x: [usize; 4]| {
        bench(DepthwiseConv2d { stride, dilation: 1 }, &[&x, &[k, k, x[3]]])
    };
    let pointwise = |o: usize, x: [usize; 4]| bench(PointwiseConv2d { bias: false }, &[&x, &[o, x[3]]]);
    let linear = |n: usize, i: usize, o: usize| bench(Linear { bias: true }, &[&[n, i], &[o, i], &[o]]);
    let norm =
        |x: [usize; 4]| bench(BatchNorm { eps: 1e-5, affine: true, frozen: false }, &[&x, &[x[3]], &[x[3]]]);
    let wide = [16, 28, 28, 240];
    let mut all = vec![
        conv(16, 3, 2, 1, [16, 224, 224, 3]),
        conv(16, 3, 1, 1, [64, 32, 32, 3]),
        conv(64, 3, 1, 1, [16, 28, 28, 64]),
        conv(256, 3, 1, 1, [16, 7, 7, 256]),
        conv(64, 3, 1, 8, [16, 28, 28, 64]),
    ];
    for k in [3, 5, 7] {
        all.push(depthwise(k, 1, wide));
        all.push(depthwise(k, 2, wide));
    }
    all.extend([
        depthwise(3, 1, [16, 112, 112, 16]),
        depthwise(7, 1, [16, 7, 7, 1152]),
        pointwise(16, [16, 112, 112, 16]),
        pointwise(240, [16, 28, 28, 40]),
        pointwise(40, wide),
        pointwise(1152, [16, 7, 7, 192]),
        pointwise(192, [16, 7, 7, 1152]),
        pointwise(320, [64, 4, 4, 192]),
        linear(16, 320, 1280),
        linear(16, 1280, 1000),
        linear(64, 320, 1280),
        linear(64, 1280, 10),
        norm([16, 112, 112, 16]),
        norm(wide),
        norm([16, 7, 7, 1152]),
        bench(BatchNorm { eps: 1e-5, affine: true, frozen: true }, &[&wide, &[240], &[240], &[240], &[240]]),
        bench(Activation(Act::Relu), &[&wide]),
        bench(Activation(Act::HSwish), &[&wide]),
        bench(Activation(Act::Swish), &[&wide]),
        bench(SqueezeExcite { gate: Act::HardSigmoid }, &[&wide, &[16, 240], &[16], &[240, 16], &[240]]),
        bench(GlobalAvgPool, &[&[16, 7, 7, 320]]),
        bench(AvgPool(PoolWindow { k: 3, stride: 1, padding: 1 }), &[&[16, 28, 28, 40]]),
        bench(MaxPool(PoolWindow { k: 3, stride: 2, padding: 1 }), &[&[16, 28, 28, 40]]),
        bench(Add, &[&[16, 28, 28, 40], &[16, 28, 28, 40]]),
        bench(Concat, &[&[16, 28, 28, 80], &[16, 28, 28, 80]]),
        bench(ChannelSlice { start: 1, step: 2, count: 80 }, &[&[16, 28, 28, 160]]),
        bench(ChannelShuffle { groups: 2 }, &[&[16, 28, 28, 160]]),
        bench(
            Dropout { rate: 0.1, rng: Rng::new(0, "bench"), epoch: 0, step: 0, first_image: 0 },
            &[&[64, 1280]],
        ),
        Bench { classes: Some(1000), ..bench(SoftmaxCrossEntropy { smoothing: 0.1 }, &[&[64, 1000], &[64]]) },
    ]);
    all
}

impl Bench {
    /// Seconds of every run, forward and backward.
    fn run(&self, cpu: &Cpu) -> [Vec<f64>; 2] {
        self.try_run(cpu).unwrap_or_else(|e| fail(&format!("{}: {e}", self.title)))
    }

    fn try_run(&self, cpu: &Cpu) -> engine::Result<[Vec<f64>; 2]> {
        let mut draws = Rng::new(0, "bench").at(0, 0, 0);
        let mut tensors = Vec::new();
        for (i, shape) in self.inputs.iter().enumerate() {
            tensors.push(match self.classes {
                Some(classes) if i + 1 == self.inputs.len() => {
                    let labels: Vec<i32> =
                        (0..shape.len()).map(|_| draws.below(classes as u32) as i32).collect();
                    Tensor::from_slice(cpu, *shape, &labels)?
                }
                // Above zero, so that they also serve as variances.
                _ => {
                    let data: Vec<f32> = (0..shape.len()).map(|_| draws.range(0.1, 1.0)).collect();
                    Tensor::from_slice(cpu, *shape, &data)?
                }
            });
        }
        let mut store = engine::check::empty_store(cpu);
        let (mut tape, mut times) = (Tape::new(cpu), [Vec::new(), Vec::new()]);
        let mut seed = None;
        let begin = Instant::now();
        while times[0].len() <= RUNS || begin.elapsed() < TIME {
            let vars: Vec<Var> = tensors
                .iter()
                .enumerate()
                .map(|(i, t)| match t.dtype() {
                    engine::DType::F32 if i > 0 || !self.images => tape.leaf(t.clone()),
                    _ => tape.constant(t.clone()),
                })
                .collect();
            let vars: Vec<&Var> = vars.iter().collect();
            let start = Instant::now();
            let y = (self.apply)(&mut tape, &vars)?;
            times[0].push(start.elapsed().as_secs_f64());
            let seed = match &seed {
                Some(seed) => Tensor::clone(seed),
                None => {
                    let data: Vec<f32> = (0..y.shape().len()).map(|_| draws.range(-1.0, 1.0)).collect();
                    seed.insert(Tensor::from_slice(cpu, y.shape(), &data)?).clone()
                }
            };
            let start = Instant::now();
            black_box(tape.backward_from(&y, seed, &mut store)?);
            times[1].push(start.elapsed().as_secs_f64());
        }
        // The first run filled the arena and the caches.
        times.iter_mut().for_each(|t| {
            t.remove(0);
        });
        Ok(times)
    }

    fn judge(&self, direction: &'static str, mut seconds: Vec<f64>, roof: Roof) -> Judged {
        seconds.sort_by(f64::total_cmp);
        let at = |part: f64| seconds[((seconds.len() - 1) as f64 * part).round() as usize];
        let median = at(0.5);
        // Backward has two products for every one of forward, reads what forward read and the
        // output's gradient, and writes a gradient for every input.
        let (flops, bytes) = match direction {
            "forward" => (2.0 * self.macs as f64, 4 * self.elements(1, 1)),
            _ if self.images => (2.0 * self.macs as f64, 4 * self.elements(1, 1)),
            _ => (4.0 * self.macs as f64, 4 * self.elements(2, 1)),
        };
        Judged {
            direction,
            ms: median * 1e3,
            best: seconds[0] * 1e3,
            spread: (at(0.75) - at(0.25)) / median,
            gflops: flops / seconds[0] / 1e9,
            gbs: bytes as f64 / seconds[0] / 1e9,
            floor: (flops / roof.gflops / 1e9).max(bytes as f64 / roof.gbs / 1e9) / seconds[0],
        }
    }

    fn elements(&self, inputs: usize, outputs: usize) -> usize {
        inputs * self.inputs.iter().map(Shape::len).sum::<usize>() + outputs * self.output
    }
}

struct Judged {
    direction: &'static str,
    ms: f64,
    best: f64,
    spread: f64,
    gflops: f64,
    gbs: f64,
    floor: f64,
}

impl Judged {
    fn line(&self, title: &str) -> String {
        format!(
            "{:<60} {:<8} {:>9.3} {:>5.0} % {:>9.3} {:>9.1} {:>7.1} {:>5.0} %",
            title,
            self.direction,
            self.ms,
            self.spread * 100.0,
            self.best,
            self.gflops,
            self.gbs,
            self.floor * 100.0
        )
    }

    fn json(&self, title: &str, threads: usize) -> String {
        format!(
            "{{\"op\": \"{title}\", \"direction\": \"{}\", \"threads\": {threads}, \"ms\": {:.4}, \"best_ms\": {:.4}, \"spread\": {:.3}, \"gflops\": {:.2}, \"gbs\": {:.2}, \"floor\": {:.3}}}",
            self.direction, self.ms, self.best, self.spread, self.gflops, self.gbs, self.floor
        )
    }
}
