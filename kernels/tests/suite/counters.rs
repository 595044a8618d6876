//! What the kernels do to the machine, in exact integers: equal to the committed file, within the targets.
//!
//! A change needs a reviewed new file: run with `MONOPATH_BLESS=1` to write it.

use std::fmt::Write;
use std::path::Path;

use half::bf16;
use kernels::depthwise::{Backward, BackwardArgs, Forward, ForwardArgs, Shape};
use kernels::pointwise::{self, Arithmetic};
use kernels::pointwise_gradient::{
    FilterGradient, FilterGradientArgs, Formed, InputGradient, InputGradientArgs, SummedGradient,
    SummedGradientArgs, Sums,
};
use kernels::squeeze_excite::{Squeeze, SqueezeArgs};
use kernels::{Act, Input, Output, finish};
use monopath_vgpu::Counters;
use monopath_vgpu::counters::Class;

use crate::depthwise::Data;
use crate::harness::{Counted, Ending, Gpu, Kernels, Number, dtype, noise, run_case};
use crate::{
    augment, batch_norm, boxes, channels, clip, conv2d, dropout, elementwise, loss, optimizer,
    squeeze_excite, windows,
};

/// Cases that stand beside their tests.
fn counted() -> impl Iterator<Item = &'static Counted> {
    let lists: [&[Counted]; 12] = [
        &augment::COUNTED,
        &batch_norm::COUNTED,
        &boxes::COUNTED,
        &channels::COUNTED,
        &clip::COUNTED,
        &conv2d::COUNTED,
        &dropout::COUNTED,
        &elementwise::COUNTED,
        &loss::COUNTED,
        &optimizer::COUNTED,
        &squeeze_excite::COUNTED,
        &windows::COUNTED,
    ];
    lists.into_iter().flatten()
}

/// Two images of 28 x 28, one group of channels: the same per output as any number of groups.
fn plane(k: usize, stride: usize) -> Shape {
    Shape { n: 2, h: 28, w: 28, c: 32, k, stride }
}

fn forward<T: Number>(g: &Gpu, k: usize) {
    for stride in [1, 2] {
        let s = plane(k, stride);
        let d = Data::<T>::new(&s);
        let op = Forward::new(&g.device, s, dtype::<T>(), Act::HSwish).expect("it is there").split(2, 28);
        let (x, w) = (g.upload(&d.x), g.upload(&d.w));
        let (scale, shift) = (g.upload(&d.scale), g.upload(&d.shift));
        let p = op.partials();
        let mut y = g.empty::<T>(s.n * s.oh() * s.ow() * s.c);
        let (mut m, mut counts) = (g.empty::<f32>(p * s.c * 2), g.empty::<f32>(p));
        op.launch(
            &g.stream,
            ForwardArgs {
                x: Input::new(&x, &g.stream),
                affine: Some((Input::new(&scale, &g.stream), Input::new(&shift, &g.stream))),
                w: Input::new(&w, &g.stream),
                y: Output::new(&mut y, &g.stream),
                moments: Output::new(&mut m, &g.stream),
                counts: Output::new(&mut counts, &g.stream),
            },
        )
        .expect("it launches");
        g.download(&y);
    }
}

fn backward<T: Number>(g: &Gpu, k: usize, stride: usize) {
    let s = plane(k, stride);
    let d = Data::<T>::new(&s);
    let (input, output) = (s.n * s.h * s.w * s.c, s.n * s.oh() * s.ow() * s.c);
    let op = Backward::new(&g.device, s, dtype::<T>(), Act::HSwish).expect("it is there").split(2, 28);
    let up = |len, seed| g.upload(&noise(len, seed).into_iter().map(T::nearest).collect::<Vec<T>>());
    let (da2, h2, h1) = (up(output, 5), up(output, 6), g.upload(&d.x));
    let (scale, shift, pqr, w) =
        (g.upload(&d.scale), g.upload(&d.shift), g.upload(&noise(3 * s.c, 7)), g.upload(&d.w));
    let p = op.partials();
    let mut du1 = g.empty::<T>(input);
    let (mut dw, mut sums) = (g.empty::<f32>(p * k * k * s.c), g.empty::<f32>(p * s.c * 2));
    let affine = || (Input::new(&scale, &g.stream), Input::new(&shift, &g.stream));
    op.launch(
        &g.stream,
        BackwardArgs {
            da2: Input::new(&da2, &g.stream),
            h2: Input::new(&h2, &g.stream),
            affine2: affine(),
            pqr: Input::new(&pqr, &g.stream),
            gate: None,
            h1: Input::new(&h1, &g.stream),
            affine1: Some(affine()),
            mean1: Some(Input::new(&shift, &g.stream)),
            w: Input::new(&w, &g.stream),
            du1: Output::new(&mut du1, &g.stream),
            dw: Output::new(&mut dw, &g.stream),
            sums: Output::new(&mut sums, &g.stream),
        },
    )
    .expect("it launches");
    g.download(&du1);
}

/// Rows of the products whose counters are recorded.
const ROWS: usize = 256;

fn product<T: Number>(g: &Gpu, arithmetic: Arithmetic, k: usize, n: usize) {
    let s = pointwise::Shape { images: 1, plane: ROWS, k, n };
    let up = |len, seed| g.upload(&noise(len, seed).into_iter().map(T::nearest).collect::<Vec<T>>());
    let (x, w, affine) = (up(ROWS * k, 1), up(n * k, 2), g.upload(&noise(k, 3)));
    let op = pointwise::Forward::new(&g.device, s, arithmetic, Act::HSwish)
        .expect("it is there")
        .tiles_per_block(2);
    let p = op.partials();
    let mut y = g.empty::<T>(ROWS * n);
    let (mut m, mut counts) = (g.empty::<f32>(p * n * 2), g.empty::<f32>(p));
    op.launch(
        &g.stream,
        pointwise::ForwardArgs {
            x: Input::new(&x, &g.stream),
            affine: Some((Input::new(&affine, &g.stream), Input::new(&affine, &g.stream))),
            gate: None,
            w: Input::new(&w, &g.stream),
            y: Output::new(&mut y, &g.stream),
            moments: Output::new(&mut m, &g.stream),
            counts: Output::new(&mut counts, &g.stream),
        },
    )
    .expect("it launches");
    g.download(&y);
}

/// A gradient of a product: of the input with its sums, of the input, of the filter.
#[derive(Clone, Copy)]
enum Gradient {
    Summed,
    Input,
    Filter,
}

fn gradient<T: Number>(g: &Gpu, arithmetic: Arithmetic, which: Gradient, k: usize, n: usize) {
    let s = pointwise::Shape { images: 1, plane: ROWS, k, n };
    let up = |len, seed| g.upload(&noise(len, seed).into_iter().map(T::nearest).collect::<Vec<T>>());
    let (d, h, x, w) = (up(ROWS * n, 1), up(ROWS * n, 2), up(ROWS * k, 3), up(n * k, 4));
    let (narrow, wide) = (g.upload(&noise(3 * n, 5)), g.upload(&noise(k, 6)));
    let (above, below) = (|| Input::new(&narrow, &g.stream), || Input::new(&wide, &g.stream));
    let formed =
        Formed { h: Input::new(&h, &g.stream), affine: (above(), above()), pqr: above(), act: Act::None };
    let (d, x, w) = (Input::new(&d, &g.stream), Input::new(&x, &g.stream), Input::new(&w, &g.stream));
    let mut dx = g.empty::<T>(ROWS * k);
    let out = Output::new(&mut dx, &g.stream);
    match which {
        Gradient::Summed => {
            let op = SummedGradient::new(&g.device, s, arithmetic, Act::HSwish, Sums::PerImage);
            let op = op.expect("it is there").tiles_per_block(2).columns_per_block(4);
            let mut sums = g.empty::<f32>(op.partials() * k * 5);
            let sums = Output::new(&mut sums, &g.stream);
            let (affine, mean) = ((below(), below()), below());
            let args = SummedGradientArgs { d, formed: Some(formed), w, h: x, affine, mean, dx: out, sums };
            op.launch(&g.stream, args).expect("it launches");
            g.download(&dx);
        }
        Gradient::Input => {
            let op = InputGradient::new(&g.device, s, arithmetic).expect("it is there").tiles_per_block(2);
            let (formed, more) = (Some(formed), Some(x));
            let args = InputGradientArgs { d, formed, w, more, accumulate: false, dx: out };
            op.launch(&g.stream, args).expect("it launches");
            g.download(&dx);
        }
        Gradient::Filter => {
            let (act, affine) =
                if k > n { (Act::HSwish, Some((below(), below()))) } else { (Act::None, None) };
            let op = FilterGradient::new(&g.device, s, arithmetic, act).expect("it is there");
            let op = op.rows_per_share(ROWS);
            let mut dw = g.empty::<f32>(op.partials() * n * k);
            let dw_out = Output::new(&mut dw, &g.stream);
            let args = FilterGradientArgs { d, formed: Some(formed), x, affine, gate: None, dw: dw_out };
            op.launch(&g.stream, args).expect("it launches");
            g.download(&dw);
        }
    }
}

/// The end of a block of 40 channels, and the sums with which its backward pass begins.
fn end<T: Number>(g: &Gpu) {
    let (m, c) = (ROWS_OF_END, 40);
    let up = |len, seed| g.upload(&noise(len, seed).into_iter().map(T::nearest).collect::<Vec<T>>());
    let (h, x, affine) = (up(m * c, 1), up(m * c, 2), g.upload(&noise(c, 3)));
    let affine = || Input::new(&affine, &g.stream);
    let mut y = g.empty::<T>(m * c);
    let op = finish::Finish::new(&g.device, m, c, dtype::<T>(), Act::HSwish).expect("it is there");
    let op = op.rows_per_thread(16);
    let (h, x) = (Input::new(&h, &g.stream), Input::new(&x, &g.stream));
    let args =
        finish::FinishArgs { h, affine: (affine(), affine()), x: Some(x), y: Output::new(&mut y, &g.stream) };
    op.launch(&g.stream, args).expect("it launches");
    let op = finish::Sums::new(&g.device, m, c, dtype::<T>(), Act::HSwish).expect("it is there");
    let op = op.rows_per_thread(16);
    let mut sums = g.empty::<f32>(op.partials() * c * 2);
    let out = Output::new(&mut sums, &g.stream);
    let args =
        finish::SumsArgs { dy: x, h, affine: (affine(), affine()), mean: affine(), sums: out, norm: None };
    op.launch(&g.stream, args).expect("it launches");
    g.download(&y);
}

/// Means of two planes of 28 x 28 and 40 channels.
fn means<T: Number>(g: &Gpu) {
    let up = |len, seed| g.upload(&noise(len, seed).into_iter().map(T::nearest).collect::<Vec<T>>());
    let (h, affine) = (up(ROWS_OF_END * 40, 1), g.upload(&noise(40, 3)));
    let affine = || Input::new(&affine, &g.stream);
    let shape = [2, ROWS_OF_END / 2, 40];
    let op = Squeeze::new(&g.device, shape, dtype::<T>(), Act::HSwish).expect("it is there");
    let mut means = g.empty::<f32>(2 * 40);
    let (h, out) = (Input::new(&h, &g.stream), Output::new(&mut means, &g.stream));
    op.launch(&g.stream, SqueezeArgs { h, affine: (affine(), affine()), means: out }).expect("it launches");
    g.download(&means);
}

/// Two images of 28 x 28.
const ROWS_OF_END: usize = 2 * 28 * 28;

type Case = (&'static str, fn(&Gpu));

/// Small enough each.
const CASES: [Case; 40] = [
    ("forward k3 f32", |g| forward::<f32>(g, 3)),
    ("forward k3 bf16", |g| forward::<bf16>(g, 3)),
    ("forward k5 f32", |g| forward::<f32>(g, 5)),
    ("forward k5 bf16", |g| forward::<bf16>(g, 5)),
    ("forward k7 f32", |g| forward::<f32>(g, 7)),
    ("forward k7 bf16", |g| forward::<bf16>(g, 7)),
    ("backward k3s1 f32", |g| backward::<f32>(g, 3, 1)),
    ("backward k3s1 bf16", |g| backward::<bf16>(g, 3, 1)),
    ("backward k3s2 f32", |g| backward::<f32>(g, 3, 2)),
    ("backward k3s2 bf16", |g| backward::<bf16>(g, 3, 2)),
    ("backward k5s1 f32", |g| backward::<f32>(g, 5, 1)),
    ("backward k5s1 bf16", |g| backward::<bf16>(g, 5, 1)),
    ("backward k5s2 f32", |g| backward::<f32>(g, 5, 2)),
    ("backward k5s2 bf16", |g| backward::<bf16>(g, 5, 2)),
    ("backward k7s1 f32", |g| backward::<f32>(g, 7, 1)),
    ("backward k7s1 bf16", |g| backward::<bf16>(g, 7, 1)),
    ("backward k7s2 f32", |g| backward::<f32>(g, 7, 2)),
    ("backward k7s2 bf16", |g| backward::<bf16>(g, 7, 2)),
    ("expand 40 to 240 f32", |g| product::<f32>(g, Arithmetic::F32, 40, 240)),
    ("project 240 to 40 f32", |g| product::<f32>(g, Arithmetic::F32, 240, 40)),
    ("expand 40 to 240 tf32", |g| product::<f32>(g, Arithmetic::Tf32, 40, 240)),
    ("project 240 to 40 tf32", |g| product::<f32>(g, Arithmetic::Tf32, 240, 40)),
    ("expand 40 to 240 bf16", |g| product::<bf16>(g, Arithmetic::Bf16, 40, 240)),
    ("project 240 to 40 bf16", |g| product::<bf16>(g, Arithmetic::Bf16, 240, 40)),
    ("project data f32", |g| gradient::<f32>(g, Arithmetic::F32, Gradient::Summed, 240, 40)),
    ("expand data f32", |g| gradient::<f32>(g, Arithmetic::F32, Gradient::Input, 40, 240)),
    ("project filter f32", |g| gradient::<f32>(g, Arithmetic::F32, Gradient::Filter, 240, 40)),
    ("expand filter f32", |g| gradient::<f32>(g, Arithmetic::F32, Gradient::Filter, 40, 240)),
    ("project data tf32", |g| gradient::<f32>(g, Arithmetic::Tf32, Gradient::Summed, 240, 40)),
    ("expand data tf32", |g| gradient::<f32>(g, Arithmetic::Tf32, Gradient::Input, 40, 240)),
    ("project filter tf32", |g| gradient::<f32>(g, Arithmetic::Tf32, Gradient::Filter, 240, 40)),
    ("expand filter tf32", |g| gradient::<f32>(g, Arithmetic::Tf32, Gradient::Filter, 40, 240)),
    ("project data bf16", |g| gradient::<bf16>(g, Arithmetic::Bf16, Gradient::Summed, 240, 40)),
    ("expand data bf16", |g| gradient::<bf16>(g, Arithmetic::Bf16, Gradient::Input, 40, 240)),
    ("project filter bf16", |g| gradient::<bf16>(g, Arithmetic::Bf16, Gradient::Filter, 240, 40)),
    ("expand filter bf16", |g| gradient::<bf16>(g, Arithmetic::Bf16, Gradient::Filter, 40, 240)),
    ("means f32", means::<f32>),
    ("means bf16", means::<bf16>),
    ("end f32", end::<f32>),
    ("end bf16", end::<bf16>),
];

/// Lane slots (issued warp instructions times 32) without moves, which the assembler folds.
fn slots(c: &Counters) -> u64 {
    let moves = c.instructions.get(&Class::Move).map_or(0, |e| e.warp);
    32 * (c.executed().warp - moves)
}

/// The case behind a line of the table and the most slots that its kernel may cost.
fn recorded(line: &str) -> Option<(&'static Counted, f64)> {
    counted().find_map(|c| {
        let of = |(name, most): &(&str, f64)| (format!("{name} {}", c.case) == line).then_some(*most);
        c.most.iter().find_map(of).map(|most| (c, most))
    })
}

/// Elements that a kernel's cost is stated in: what it writes, but for products the wider side.
fn elements(name: &str) -> f64 {
    if let Some((case, _)) = recorded(name) {
        return case.elements as f64;
    }
    if name.starts_with("pointwise") {
        return (ROWS * 240) as f64;
    }
    if name.starts_with("finish") || name.starts_with("squeeze") {
        return (ROWS_OF_END * 40) as f64;
    }
    let s = plane(3, if name.contains("s1") || name.contains("_bwd_") { 1 } else { 2 });
    (s.n * s.oh() * s.ow() * s.c) as f64
}

/// Two lines per kernel: exact integers, and what they mean per element and against the least possible.
fn table(kernels: &Kernels) -> String {
    let mut text = String::new();
    for (name, k) in kernels {
        let (c, n) = (&k.counters, elements(name) * k.launches as f64);
        let (g, s, all) = (&c.global, &c.shared, c.executed());
        let _ = writeln!(
            text,
            "{name}\n  instructions {} of warps {} of lanes, slots {}, load {} requests {} sectors {} bytes {} distinct, store {} {} {} {}, \
             shared {} wavefronts {} ideal, local {}, branches {} diverged {}, barriers {}, mma {}, atomics {}",
            all.warp,
            all.lane,
            slots(c),
            g.load_requests,
            g.load_sectors,
            g.load_bytes,
            g.compulsory_load_bytes,
            g.store_requests,
            g.store_sectors,
            g.store_bytes,
            g.compulsory_store_bytes,
            s.load_wavefronts + s.store_wavefronts,
            s.load_ideal + s.store_ideal,
            c.local_requests,
            c.branches,
            c.divergent_branches,
            c.barriers,
            c.mma,
            c.atomics,
        );
        let least = (g.compulsory_load_bytes + g.compulsory_store_bytes) as f64;
        let _ = writeln!(
            text,
            "  per element {:.1} slots ({:.1} with moves); requested / least {:.3}, sectors / ideal {:.2} {:.2}, wavefronts / ideal {:.2}",
            slots(c) as f64 / n,
            32.0 * all.warp as f64 / n,
            (g.load_bytes + g.store_bytes) as f64 / least,
            32.0 * g.load_sectors as f64 / g.load_bytes as f64,
            32.0 * g.store_sectors as f64 / g.store_bytes as f64,
            (s.load_wavefronts + s.store_wavefronts).max(1) as f64
                / (s.load_ideal + s.store_ideal).max(1) as f64,
        );
    }
    text
}

/// Lane slots per element that a kernel may cost.
const SLOTS: [(&str, f64); 48] = [
    ("squeeze_f32", 6.0),
    ("squeeze_bf16", 6.0),
    ("pointwise_conv2d_bwd_x_f32_sums_hswish project", 106.0),
    ("pointwise_conv2d_bwd_x_f32 expand", 95.0),
    ("pointwise_conv2d_bwd_w_f32_hswish project", 118.0),
    ("pointwise_conv2d_bwd_w_f32_clamp expand", 117.0),
    ("pointwise_conv2d_bwd_x_tf32_sums_hswish project", 42.0),
    ("pointwise_conv2d_bwd_x_tf32 expand", 25.0),
    ("pointwise_conv2d_bwd_w_tf32_hswish project", 43.0),
    ("pointwise_conv2d_bwd_w_tf32_clamp expand", 43.0),
    ("pointwise_conv2d_bwd_x_bf16_sums_hswish project", 37.0),
    ("pointwise_conv2d_bwd_x_bf16 expand", 20.0),
    ("pointwise_conv2d_bwd_w_bf16_hswish project", 29.0),
    ("pointwise_conv2d_bwd_w_bf16_clamp expand", 30.0),
    ("finish_fwd_f32", 9.0),
    ("finish_fwd_bf16", 9.0),
    ("finish_bwd_sums_f32", 13.5),
    ("finish_bwd_sums_bf16", 13.0),
    ("pointwise_conv2d_fwd_f32_hswish expand", 80.0),
    ("pointwise_conv2d_fwd_f32_hswish project", 92.0),
    ("pointwise_conv2d_fwd_tf32_hswish expand", 34.0),
    ("pointwise_conv2d_fwd_tf32_hswish project", 27.0),
    ("pointwise_conv2d_fwd_bf16_hswish expand", 27.0),
    ("pointwise_conv2d_fwd_bf16_hswish project", 17.0),
    ("depthwise_conv2d_fwd_k3s1_bf16", 34.0),
    ("depthwise_conv2d_fwd_k5s1_bf16", 52.0),
    ("depthwise_conv2d_fwd_k7s1_bf16", 82.0),
    ("depthwise_conv2d_fwd_k3s1_f32", 32.0),
    ("depthwise_conv2d_fwd_k5s1_f32", 51.0),
    ("depthwise_conv2d_fwd_k7s1_f32", 80.0),
    ("depthwise_conv2d_fwd_k3s2_bf16", 66.0),
    ("depthwise_conv2d_fwd_k5s2_bf16", 104.0),
    ("depthwise_conv2d_fwd_k7s2_bf16", 140.0),
    ("depthwise_conv2d_fwd_k3s2_f32", 66.0),
    ("depthwise_conv2d_fwd_k5s2_f32", 104.0),
    ("depthwise_conv2d_fwd_k7s2_f32", 140.0),
    ("depthwise_conv2d_bwd_k3s1_bf16", 76.0),
    ("depthwise_conv2d_bwd_k5s1_bf16", 115.0),
    ("depthwise_conv2d_bwd_k7s1_bf16", 180.0),
    ("depthwise_conv2d_bwd_k3s1_f32", 76.0),
    ("depthwise_conv2d_bwd_k5s1_f32", 112.0),
    ("depthwise_conv2d_bwd_k7s1_f32", 180.0),
    ("depthwise_conv2d_bwd_k3s2_bf16", 56.0),
    ("depthwise_conv2d_bwd_k5s2_bf16", 62.0),
    ("depthwise_conv2d_bwd_k7s2_bf16", 81.0),
    ("depthwise_conv2d_bwd_k3s2_f32", 53.0),
    ("depthwise_conv2d_bwd_k5s2_f32", 58.0),
    ("depthwise_conv2d_bwd_k7s2_f32", 78.0),
];

#[test]
fn counters_are_those_of_the_golden_file() {
    let own = concat!(module_path!(), "::counters_are_those_of_the_golden_file");
    let _ending = Ending::of(own);
    let mut all = Kernels::new();
    for (case, body) in CASES {
        for (name, k) in run_case(own, case, body).unwrap_or_default() {
            // One kernel serves products of several shapes.
            all.insert(if name.starts_with("pointwise") { format!("{name} {case}") } else { name }, k);
        }
    }
    for c in counted() {
        for (name, k) in run_case(own, c.case, c.body).unwrap_or_default() {
            if c.most.iter().any(|(wanted, _)| *wanted == name) {
                all.insert(format!("{name} {}", c.case), k);
            }
        }
    }
    if all.is_empty() {
        // The child has done its case.
        return;
    }
    println!("{}", table(&all));
    for (name, k) in &all {
        let limit = recorded(name)
            .map(|(_, most)| most)
            .or_else(|| SLOTS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, most)| *most));
        let limit = limit.expect("every kernel here has a limit");
        let (c, n) = (&k.counters, elements(name) * k.launches as f64);
        let cost = slots(c) as f64 / n;
        assert!(cost <= limit, "{name}: {cost:.2} slots per element");
        assert_eq!((c.local_requests, c.atomics), (0, 0), "{name}");
        if recorded(name).is_some() {
            // Constants and partial sums are a visible part of so small a case; the file holds exact numbers.
            continue;
        }
        let (g, s) = (&c.global, &c.shared);
        // Rows of 80 bytes begin and end within sectors.
        let most = if name.contains("expand") || name.contains("_bwd_x") || name.contains("_bwd_w") {
            145
        } else {
            105
        };
        assert!(32 * g.load_sectors * 100 <= most * g.load_bytes, "{name}: sectors of loads");
        assert!(32 * g.store_sectors * 100 <= 105 * g.store_bytes, "{name}: sectors of stores");
        let (wavefronts, ideal) = (s.load_wavefronts + s.store_wavefronts, s.load_ideal + s.store_ideal);
        assert!(wavefronts * 10 <= 12 * ideal, "{name}: {wavefronts} wavefronts for {ideal}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/golden.txt");
    let now = table(&all);
    if std::env::var_os("MONOPATH_BLESS").is_some() {
        std::fs::write(&path, &now).expect("the folder is writable");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is committed");
    for (have, want) in now.lines().zip(golden.lines()) {
        assert_eq!(have, want);
    }
    assert_eq!(now, golden);
}
