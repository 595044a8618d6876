//! Costs against figures that others published and against a second count.

use engine::Rng;
use nas::Space;
use nas::cost::{Cost, Counter};

/// A network that others published, with their figures.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    space: String,
    arch: String,
    published: Figures,
    counted: Cost,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Figures {
    macs: f64,
    params: Option<f64>,
    top1: f64,
    top5: Option<f64>,
}

#[test]
fn the_network_that_spos_published_costs_what_it_says() {
    let entry: Published = toml::from_str(include_str!("../../zoo/spos.toml")).unwrap();
    let space = Space::load(&entry.space).unwrap();
    let arch = space.parse(&entry.arch).unwrap();
    assert_eq!(space.text(&arch), entry.arch);
    assert_eq!(arch.choices(), [2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3]);
    let cost = space.cost(&arch);
    assert_eq!(cost, entry.counted);
    assert_eq!((cost.macs as f64 / 1e6).round(), entry.published.macs);
    assert_eq!(Some((cost.params as f64 / 1e5).floor() / 10.0), entry.published.params);
    assert!(Some(entry.published.top1) < entry.published.top5);
}

/// Cut, not rounded, by the counter of the released code. The figure of FairNAS_ABS is not that of its list.
#[test]
fn the_networks_that_abs_published_cost_what_its_counter_says() {
    let files = [
        (include_str!("../../zoo/spos-abs.toml"), 472.0, 75.97),
        (include_str!("../../zoo/proxyless-abs.toml"), 470.0, 76.14),
        (include_str!("../../zoo/fairnas-abs.toml"), 312.0, 74.42),
    ];
    for (file, operations, top1) in files {
        let entry: Published = toml::from_str(file).unwrap();
        let space = Space::load(&entry.space).unwrap();
        let arch = space.parse(&entry.arch).unwrap();
        assert_eq!(space.cost(&arch), entry.counted);
        let counted = Counter::Abs.count(&space.work(&arch));
        assert_eq!((counted as f64 / 1e6).floor(), operations, "{}", entry.arch);
        assert_eq!(entry.published.top1, top1);
        if entry.space == "fairnas" {
            assert_eq!(entry.published.macs, 325.0);
        } else {
            assert_eq!(entry.published.macs, operations);
        }
    }
}

/// FairNAS-A, B and C, and ProxylessNAS's GPU network, against the counts of another program.
#[test]
fn fairnas_and_proxyless_count_as_published() {
    let rows = [
        ("fairnas", "4,0,4,1,5,0,0,5,5,2,1,2,2,1,1,5,1,5,3", 388_122_848, 4_651_352),
        ("fairnas", "2,0,2,0,1,2,4,0,1,2,0,1,4,0,5,3,5,1,3", 345_297_632, 4_506_272),
        ("fairnas", "2,0,4,0,0,0,0,0,0,1,0,0,0,0,5,5,1,1,3", 321_024_992, 4_397_864),
        ("proxyless-gpu", "2,-1,-1,-1,4,-1,-1,0,5,2,-1,-1,3,-1,0,2,5,5,5,3,5", 465_260_160, 7_119_848),
    ];
    for (name, text, macs, params) in rows {
        let space = Space::load(name).unwrap();
        assert_eq!(space.cost(&space.parse(text).unwrap()), Cost { params, macs }, "{name} {text}");
    }
    let size = |name| Space::load(name).unwrap().size().unwrap();
    assert_eq!(size("proxyless-gpu"), 6u128.pow(6) * 7u128.pow(15));
    assert_eq!(size("fairnas"), 6u128.pow(19));
}

/// Blocks as (kernel, expansion) of each stage; parameters, multiply-adds and the count of the profiler that
/// the authors used, in millions.
type Cream<'a> = (usize, [&'a [(usize, usize)]; 5], u64, f64, f64);

#[test]
fn the_networks_that_cream_published_cost_what_its_profiler_counts() {
    let (a, b, c, d) = ((3, 4), (3, 6), (5, 4), (5, 6));
    let rows: [Cream<'_>; 6] = [
        (64, [&[a], &[d, d], &[d, d], &[b], &[d]], 2_673_096, 13.189, 13.85),
        (96, [&[a], &[d, b], &[d, b], &[d; 3], &[d; 2]], 4_398_600, 40.655, 42.41),
        (160, [&[a], &[d; 2], &[d; 2], &[d; 3], &[d; 2]], 4_410_120, 109.624, 114.49),
        (224, [&[a], &[d; 2], &[d, b, d], &[d; 4], &[d; 3]], 6_044_368, 276.262, 287.20),
        (
            224,
            [&[d, (7, 4), d, b], &[d, c, d, a], &[d, d, d, b, b], &[d; 4], &[d; 4]],
            7_713_360,
            460.398,
            481.60,
        ),
        (
            224,
            [&[d, d, c, d, d], &[d, c, d, c, d], &[d, c, d, c, d], &[d, d, c, c, d, d], &[d, d, c, d, d, d]],
            9_695_624,
            578.698,
            604.34,
        ),
    ];
    let text = include_str!("cream.toml");
    let space = Space::parse_toml(text, std::path::Path::new("cream.toml")).unwrap();
    for (size, stages, params, macs, thop) in rows {
        let slots = [5, 5, 5, 6, 6];
        let labels: Vec<String> = stages
            .iter()
            .zip(slots)
            .flat_map(|(blocks, n)| {
                let labels = blocks.iter().map(|(k, e)| format!("mb_k{k}_e{e}"));
                labels.chain(std::iter::repeat("skip".to_owned())).take(n)
            })
            .collect();
        let space = space.with_input(size, 3).unwrap();
        let arch = space.parse(&labels.join(",")).unwrap();
        let cost = space.cost(&arch);
        assert_eq!(cost.params, params, "{size}");
        assert!((cost.macs as f64 / 1e6 - macs).abs() <= 0.0005, "{size}: {}", cost.macs);
        // The first linear layer of the head is a 1x1 convolution there, so its biases count.
        let counted = Counter::Thop.count(&space.work(&arch)) + 1280;
        assert!((counted as f64 / 1e6 - thop).abs() <= 0.005, "{size}: {counted}");
    }
}

/// The paths that a PyTorch supernet of the same space drew with seed 0, and its mean multiply-adds over
/// them.
#[test]
fn sixteen_paths_cost_what_another_program_counted() {
    for (name, mean) in [("mobilenet-se-cifar", 109_572_960), ("mobilenet-se", 354_932_316)] {
        let space = Space::load(name).unwrap();
        let macs: u64 = PATHS.iter().map(|text| space.cost(&space.parse(text).unwrap()).macs).sum();
        assert_eq!(macs, 16 * mean, "{name}");
    }
}

const PATHS: [&str; 16] = [
    "3,5,2,-1,2,3,2,2,2,2,1,3,1,3,0,1,1,5,-1,3",
    "2,3,4,5,4,0,1,-1,5,-1,5,4,2,2,3,-1,2,2,1,3",
    "5,0,3,2,3,5,3,1,0,5,3,-1,0,4,5,2,5,5,5,4",
    "5,-1,3,2,2,0,4,1,5,5,-1,0,4,0,0,5,1,5,3,2",
    "0,-1,1,3,3,-1,1,3,2,4,-1,3,2,5,3,0,4,3,3,1",
    "3,-1,3,5,3,1,3,0,2,0,0,5,1,-1,3,4,2,2,-1,-1",
    "5,5,0,0,0,5,-1,4,4,4,2,5,5,3,1,3,1,5,0,4",
    "4,5,2,3,2,2,2,4,5,4,5,1,0,1,3,-1,3,3,4,1",
    "1,0,-1,4,2,-1,4,0,2,5,0,1,3,5,-1,-1,1,5,4,0",
    "0,5,3,4,4,3,4,-1,0,-1,4,0,4,5,3,-1,3,-1,1,5",
    "0,-1,3,-1,1,0,4,-1,3,0,4,5,0,4,-1,3,3,3,-1,5",
    "2,-1,0,-1,5,1,1,2,1,-1,3,2,0,3,-1,4,3,0,1,1",
    "5,2,5,3,1,4,4,0,0,5,4,0,1,1,3,1,0,3,2,4",
    "1,-1,2,4,3,3,5,3,2,4,1,2,5,1,0,3,5,-1,2,4",
    "0,1,4,-1,4,1,0,0,3,1,3,1,5,1,3,4,4,0,4,1",
    "3,4,2,5,5,-1,-1,3,1,4,1,0,1,0,4,2,3,4,4,3",
];

/// Sums over the convolutions of a network that is written down here once more, from labels alone.
#[derive(Default)]
struct Recount {
    params: u64,
    macs: u64,
}

impl Recount {
    /// Convolution and its batch norm; `fan` is kernel area times input channels per group.
    fn conv(&mut self, side: u64, fan: u64, output: u64) {
        self.params += (fan + 2) * output;
        self.macs += fan * output * side * side;
    }

    fn linear(&mut self, input: u64, output: u64, bias: bool) {
        self.params += (input + u64::from(bias)) * output;
        self.macs += input * output;
    }

    /// Inverted residual with squeeze-excite; `hidden` channels inside it.
    fn mobile(
        &mut self,
        side: u64,
        stride: u64,
        [kernel, expansion]: [u64; 2],
        [from, hidden, to]: [u64; 3],
    ) {
        let wide = from * expansion;
        if expansion > 1 {
            self.conv(side, from, wide);
        }
        self.conv(side / stride, kernel * kernel, wide);
        self.linear(wide, hidden, true);
        self.linear(hidden, wide, true);
        self.conv(side / stride, wide, to);
    }

    fn shuffle(&mut self, side: u64, stride: u64, label: &str, [from, to]: [u64; 2]) {
        let (out, middle, whole) = (side / stride, to / 2, from != to);
        let kernel = label.strip_prefix("shuffle_k").map_or(3, |k| k.parse().unwrap());
        let entering = if whole { from } else { from / 2 };
        if whole {
            self.conv(out, kernel * kernel, from);
            self.conv(out, from, from);
        }
        if label == "xception" {
            for (input, output) in [(entering, middle), (middle, middle), (middle, to - entering)] {
                self.conv(out, 9, input);
                self.conv(out, input, output);
            }
        } else {
            self.conv(side, entering, middle);
            self.conv(out, kernel * kernel, middle);
            self.conv(out, middle, to - entering);
        }
    }
}

fn recount_mobile(labels: &[&str], side: u64, strides: [u64; 6], classes: u64) -> Recount {
    let mut sum = Recount::default();
    let (mut side, mut from) = (side / strides[0], 16);
    sum.conv(side, 27, 16);
    sum.mobile(side, 1, [3, 1], [16, 8, 16]);
    // A quarter of the input channels in eights, and what comes out.
    let mut hidden = 8;
    for (stage, to) in [24, 40, 80, 96, 192].into_iter().enumerate() {
        for slot in 0..4 {
            let stride = if slot == 0 { strides[stage + 1] } else { 1 };
            let label = labels[stage * 4 + slot];
            if label != "skip" {
                let digits: Vec<u64> = label.chars().filter_map(|c| c.to_digit(10)).map(u64::from).collect();
                sum.mobile(side, stride, [digits[0], digits[1]], [from, hidden, to]);
            }
            (side, from) = (side / stride, to);
            hidden = [8, 16, 24, 24, 48][stage];
        }
    }
    sum.conv(side, 192, 320);
    sum.linear(320, 1280, true);
    sum.linear(1280, classes, true);
    sum
}

fn recount_shuffle(labels: &[&str]) -> Recount {
    let mut sum = Recount::default();
    sum.conv(112, 27, 16);
    let (mut side, mut from, mut labels) = (112, 16, labels.iter());
    for (to, slots) in [(64, 4), (160, 4), (320, 8), (640, 4)] {
        for slot in 0..slots {
            let stride = if slot == 0 { 2 } else { 1 };
            sum.shuffle(side, stride, labels.next().unwrap(), [from, to]);
            (side, from) = (side / stride, to);
        }
    }
    sum.conv(7, 640, 1024);
    sum.linear(1024, 1000, false);
    sum
}

#[test]
fn costs_are_those_of_a_second_count() {
    type Second = fn(&[&str]) -> Recount;
    let cases: [(&str, Second); 3] = [
        ("spos-shufflenet", recount_shuffle),
        ("mobilenet-se", |labels| recount_mobile(labels, 224, [2, 2, 2, 2, 1, 2], 1000)),
        ("mobilenet-se-cifar", |labels| recount_mobile(labels, 32, [1, 1, 2, 2, 1, 2], 10)),
    ];
    for (name, second) in cases {
        let space = Space::load(name).unwrap();
        for i in 0..200 {
            let arch = space.sample(&mut Rng::new(4, name).at(0, 0, i));
            let want = second(&space.labels(&arch));
            let want = Cost { params: want.params, macs: want.macs };
            assert_eq!(space.cost(&arch), want, "{name} {}", space.text(&arch));
        }
    }
}
