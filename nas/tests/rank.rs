//! Ranking: figures of the table whose networks were all trained, tables that are not sound, and scores at
//! initialisation.

use std::path::{Path, PathBuf};

use engine::{Cpu, Rng, Tensor};
use nas::model::{Model, NormParams};
use nas::rank::{
    Metric, Ranking, Request, Synflow, Truth, gradient_norm, jacobian_covariance, rank_space, space_scores,
};
use nas::{Space, evaluate};

fn request(metric: Metric) -> Request {
    Request { metric, networks: None, seed: 0, calibration_images: 512, held_out_images: 2000, weights: None }
}

fn bench_macro() -> Option<(Space, Truth)> {
    let Some(data) = std::env::var_os("MONOPATH_DATA") else {
        println!("skipped: MONOPATH_DATA is not set");
        return None;
    };
    let table = PathBuf::from(data).join("nas-bench-macro/nas-bench-macro_cifar10.json");
    let space = Space::load("nas-bench-macro").unwrap();
    let truth = Truth::read(&table, &space).unwrap();
    Some((space, truth))
}

fn near(value: Option<f64>, want: f64) {
    assert!((value.unwrap() - want).abs() < 5e-4, "{value:?} for {want}");
}

#[test]
fn counting_ranks_the_trained_networks_as_published() {
    let Some((space, truth)) = bench_macro() else { return };
    assert_eq!(truth.networks().len(), 3969);
    let cpu = Cpu::new(1).unwrap();
    let macs = rank_space(&space, &truth, &request(Metric::Macs), &cpu).unwrap();
    near(macs.tau_b, 0.546);
    near(macs.macs_tau_b, 0.546);
    near(macs.params_tau_b, 0.215);
    near(macs.ceiling, 0.895);
    let [low, high] = macs.interval_95.unwrap();
    assert!(low < 0.546 && 0.546 < high && high - low < 0.04, "{low} {high}");
    let params = rank_space(&space, &truth, &request(Metric::Params), &cpu).unwrap();
    near(params.tau_b, 0.215);
    assert_eq!(params.points.len(), 3969);
    let best = params.points.iter().max_by(|a, b| a.truth.total_cmp(&b.truth)).unwrap();
    assert_eq!(best.arch, "22212220");

    // A sample is of that size, the same for a seed, and another for another.
    let drawn = |seed| truth.clone().draw(300, &Rng::new(seed, "rank"));
    assert_eq!((drawn(0).networks().len(), drawn(0)), (300, drawn(0)));
    assert_ne!(drawn(0), drawn(1));
}

#[test]
fn only_the_canonical_one_of_equal_networks_counts() {
    let space = Space::load("nas-bench-macro").unwrap();
    let table = br#"{"22202000": {"mean_acc": 1, "std": 0.1}, "22220000": {"mean_acc": 2, "test_acc": [1, 3], "flops": 7}}"#;
    let truth = Truth::parse(table, Path::new("t"), &space).unwrap();
    let [only] = truth.networks() else { panic!("{truth:?}") };
    assert_eq!((space.text(&only.arch).as_str(), only.accuracy), ("22220000", 2.0));
}

#[test]
fn tables_that_are_not_sound_are_errors_that_name_the_row() {
    let space = Space::load("nas-bench-macro").unwrap();
    let cases = [
        ("", "EOF"),
        ("[]", "an object whose keys are architectures"),
        (r#"{"22220000": 3}"#, "line 1"),
        (r#"{"22220000": {}}"#, "mean_acc"),
        (r#"{"2222000": {"mean_acc": 3}}"#, "7 choices for 8 slots"),
        (r#"{"22220003": {"mean_acc": 3}}"#, "has no candidate \"3\""),
        (r#"{"22220000": {"mean_acc": 101}}"#, "22220000: accuracy 101"),
        (r#"{"22220000": {"mean_acc": 1, "test_acc": [1, -1]}}"#, "accuracy -1"),
        (r#"{"22220000": {"mean_acc": 1e999}}"#, "out of range"),
        (r#"{"22220000": {"mean_acc": 1}, "22220000": {"mean_acc": 1}}"#, "22220000 stands twice"),
    ];
    for (table, want) in cases {
        let error = Truth::parse(table.as_bytes(), Path::new("table.json"), &space).unwrap_err().to_string();
        assert!(error.starts_with("table.json: ") && error.contains(want), "{table}: {error}");
    }
}

#[test]
fn damaged_tables_do_not_panic() {
    let space = Space::load("nas-bench-macro").unwrap();
    let table =
        br#"{"22220000": {"mean_acc": 92.5, "test_acc": [92.1, 92.9]}, "00000000": {"mean_acc": 45}}"#;
    for at in 0..table.len() {
        for flip in [1, 4, 0x20, 0x80, 0xff] {
            let mut table = *table;
            table[at] ^= flip;
            let _read = Truth::parse(&table, Path::new("t"), &space);
        }
        assert!(Truth::parse(&table[..at], Path::new("t"), &space).is_err());
    }
    let deep = "[".repeat(100_000);
    let _read = Truth::parse(deep.as_bytes(), Path::new("t"), &space).unwrap_err();
}

#[test]
fn a_score_that_is_no_number_is_refused() {
    let space = Space::load("nas-bench-macro").unwrap();
    let table = br#"{"22220000": {"mean_acc": 2}, "22222222": {"mean_acc": 3}}"#;
    let truth = Truth::parse(table, Path::new("t"), &space).unwrap();
    let error = Ranking::new(Metric::Angle, &space, &truth, &[1.0, f64::NAN], 0).unwrap_err().to_string();
    assert!(error.contains("angle score of 22222222 is NaN"), "{error}");
    let few = Ranking::new(Metric::Angle, &space, &truth, &[1.0, 2.0], 0).unwrap();
    assert_eq!((few.tau_b, few.p_at_10, few.ceiling), (Some(1.0), None, None));
    let error = space_scores(&space, &truth, &request(Metric::Accuracy), &Cpu::new(1).unwrap()).unwrap_err();
    assert!(error.to_string().contains("where there is no run"), "{error}");
}

/// A network without residuals is linear in the weights of every layer, so each layer's sum of `|w dR/dw|` is R
/// (Euler): the score is the number of layers times R.
#[test]
fn synflow_of_a_plain_chain_is_its_flow_once_a_layer() {
    let cpu = Cpu::new(2).unwrap();
    let space = Space::load("nas-bench-macro").unwrap();
    let model = Model::new(&space, NormParams::Supernet).unwrap();
    let init = || model.init(&cpu, &Rng::new(3, "init")).unwrap();
    let arch = space.parse("00000000").unwrap();
    let score = Synflow::new(&model, init()).unwrap().score(&arch).unwrap();

    let mut store = init();
    for id in store.ids() {
        store.value_mut(id).unwrap().iter_mut().for_each(|v| *v = v.abs());
    }
    let ones = Tensor::from_slice(&cpu, [1, 32, 32, 3], &vec![1f32; 32 * 32 * 3]).unwrap();
    let statistics = model.fresh_statistics(&cpu).unwrap();
    let logits = evaluate::infer(&model, &store, &statistics, &arch, &ones).unwrap();
    let flow: f64 = logits.f32().unwrap().iter().map(|&v| f64::from(v)).sum();
    // Stem, a 1x1 in the first slot of each of three stages, the head's 1x1, the linear layer.
    assert!((score - (6.0 * flow).ln()).abs() < 1e-4, "{score} {}", (6.0 * flow).ln());
}

#[test]
fn scores_at_initialisation_do_not_depend_on_what_was_scored_before() {
    let cpu = Cpu::new(2).unwrap();
    let space = Space::load("quickstart").unwrap();
    let model = Model::new(&space, NormParams::Supernet).unwrap();
    let mut store = model.init(&cpu, &Rng::new(3, "init")).unwrap();
    let (small, large) = (space.smallest(), space.largest());
    let mut draws = Rng::new(5, "images").at(0, 0, 0);
    let pixels: Vec<f32> = (0..8 * 28 * 28).map(|_| draws.normal()).collect();
    let images = Tensor::from_slice(&cpu, [8, 28, 28, 1], &pixels).unwrap();
    let labels: Vec<i32> = (0..8).collect();
    let mut norm = |arch| gradient_norm(&model, &mut store, arch, &images, &labels).unwrap();
    let first = norm(&large);
    assert!(first > norm(&small));
    assert_eq!(norm(&large), first);
    let mut spread = |arch| jacobian_covariance(&model, &mut store, arch, &images).unwrap();
    let first = spread(&large);
    // Eight images that had nothing in common would give about -8.
    assert!(first < -7.9 && first != spread(&small), "{first}");
    assert_eq!(spread(&large), first);
    let mut synflow = Synflow::new(&model, store).unwrap();
    let first = synflow.score(&large).unwrap();
    assert!(first > synflow.score(&small).unwrap());
    assert_eq!(synflow.score(&large).unwrap(), first);
}
