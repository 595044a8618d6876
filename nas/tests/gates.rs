//! Binary gates: gradients against difference quotients, draws against probabilities, and resuming to the bit.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::{Cpu, Rng, Tape, Tensor, ops};
use nas::checkpoint::{Archive, Checkpoints};
use nas::data::config::{Crop, Normalise, OnBad, Transform};
use nas::data::{Dataset, Image, Loader, LoaderOptions, Pass, Pipeline, View};
use nas::event::Stage;
use nas::gates::{
    Adam, Costs, GateCost, GateJob, GateLoss, Gates, GatesConfig, LossParts, Pair, gate_gradients,
};
use nas::groups::PathImages;
use nas::journal::Journal;
use nas::model::{Context, Model, NormParams, Norms};
use nas::recipe::{LogConfig, TrainConfig};
use nas::train::{self, Job, Session};
use nas::{Arch, Error, Space};

fn small() -> Space {
    Space::load("quickstart").unwrap().with_input(12, 1).unwrap()
}

fn images(cpu: &Cpu, n: usize) -> (Tensor, Vec<i32>) {
    let mut draws = Rng::new(5, "images").at(0, 0, 0);
    let values: Vec<f32> = (0..n * 144).map(|_| draws.normal()).collect();
    let labels = (0..n).map(|_| draws.below(10) as i32).collect();
    (Tensor::from_slice(cpu, [n, 12, 12, 1], &values).unwrap(), labels)
}

/// The loss where the output of `slot` is `by` times the output of `candidate` more than it is along `arch`.
fn loss(
    (model, store): (&Model, &engine::ParamStore),
    arch: &Arch,
    (slot, candidate, by): (usize, usize, f32),
    (images, labels): (&Tensor, &[i32]),
) -> f64 {
    let mut tape = Tape::inference(store.device());
    let mut moments = Vec::new();
    let mut cx = Context { tape: &mut tape, store, norms: Norms::Batch(&mut moments), dropout: None };
    let mut x = cx.tape.constant(images.clone());
    let at_slot = model.space().stem().len() + slot;
    for at in 0..model.depth() {
        let mut y = model.segment(&mut cx, arch, at, &x).unwrap();
        if at == at_slot {
            let mut choices = arch.choices().to_vec();
            choices[slot] = candidate as u16;
            let o = model.segment(&mut cx, &Arch::new(choices), at, &x).unwrap();
            let (m, o) = (y.tensor(), o.tensor().f32().unwrap());
            let sum: Vec<f32> = m.f32().unwrap().iter().zip(o).map(|(m, o)| m + by * o).collect();
            y = cx.tape.constant(Tensor::from_slice(store.device(), m.shape(), &sum).unwrap());
        }
        x = y;
    }
    let truth = cx.tape.constant(Tensor::from_slice(store.device(), [labels.len()], labels).unwrap());
    let loss = cx.tape.apply(ops::SoftmaxCrossEntropy { smoothing: 0.0 }, &[&x, &truth]).unwrap();
    f64::from(loss.tensor().f32().unwrap()[0])
}

#[test]
fn the_gradient_by_a_gate_is_its_difference_quotient_and_weights_stay() {
    let (space, cpu) = (small(), Cpu::new(1).unwrap());
    let model = Model::new(&space, NormParams::Supernet).unwrap();
    let mut store = model.init(&cpu, &Rng::new(0, "init")).unwrap();
    let (x, labels) = images(&cpu, 16);
    let gates = Gates::new(&space, 2);
    let before = store.values().unwrap().to_vec();
    for step in 0..3 {
        let pairs = gates.pairs(&Rng::new(1, "pairs"), step);
        let found = gate_gradients(&model, &mut store, &pairs, x.clone(), &labels).unwrap();
        let arch = Arch::new(pairs.iter().map(|pair| pair.active as u16).collect());
        let at = |slot, candidate, by| loss((&model, &store), &arch, (slot, candidate, by), (&x, &labels));
        assert!((found.cross_entropy - at(0, 0, 0.0)).abs() < 1e-6);
        for (slot, pair) in pairs.iter().enumerate() {
            let Pair { active, other } = *pair;
            for (candidate, by_gate) in [active, other].into_iter().zip(found.by_gate[slot]) {
                // So small that few ReLUs switch, so large that f32 tells the two losses apart.
                let quotient =
                    |h: f32| (at(slot, candidate, h) - at(slot, candidate, -h)) / (2.0 * f64::from(h));
                let near = quotient(1e-3);
                assert!(
                    (by_gate - near).abs() < 3e-3 + 0.02 * near.abs(),
                    "slot {slot}: {by_gate} is {near}, {} from farther off",
                    quotient(4e-3)
                );
            }
        }
        assert!(found.by_gate.iter().flatten().any(|g| g.abs() > 0.01), "{found:?}");
    }
    assert_eq!(store.values().unwrap().into_owned(), before);
    assert!(store.touched().is_empty());
    assert!(store.ids().all(|id| store.grad(id).unwrap().iter().all(|&g| g == 0.0)));
}

#[test]
fn a_slot_of_one_candidate_has_no_gate() {
    let space = small();
    let dropped: Vec<(usize, usize)> = (1..space.slots()[0].choices.len()).map(|c| (0, c)).collect();
    let single = space.without(&dropped).unwrap();
    let pairs = Gates::new(&single, 0).pairs(&Rng::new(0, "pairs"), 0);
    for (slot, pair) in single.slots().iter().zip(pairs) {
        assert_eq!(pair.is_single(), slot.choices.len() == 1, "{}", slot.name);
    }
    assert_eq!(single.slots()[0].choices.len(), 1);
}

/// Gates whose α of slot 0 are as given; all others are 0.
fn with_alpha(space: &Space, alpha: &[f64]) -> Gates {
    let mut gates = Gates::new(space, 0);
    let mut archive = Archive::default();
    gates.save(&mut archive);
    let bits = archive.counts.get_mut("gates.alpha").unwrap();
    bits.iter_mut().for_each(|bits| *bits = 0f64.to_bits());
    bits.iter_mut().zip(alpha).for_each(|(bits, alpha)| *bits = alpha.to_bits());
    gates.load(&archive, Path::new("archive")).unwrap();
    gates
}

#[test]
fn what_was_taken_out_is_never_drawn_and_leaves_the_rest_in_proportion() {
    let space = small();
    let mut gates = with_alpha(&space, &[0.5, 0.0, 1.0, -0.5]);
    let before = gates.probabilities()[0].clone();
    gates.close(0, 2);
    let adam = Adam { lr: 0.05, betas: [0.5, 0.999], decay: 1e-3 };
    let cost = GateCost::Macs { reference: 5e5 };
    let costs = Costs::new(&space, &cost, GateLoss::default(), Path::new("")).unwrap();
    let after = gates.probabilities()[0].clone();
    assert_eq!(after[2], 0.0);
    assert!((after[0] / after[3] - before[0] / before[3]).abs() < 1e-12);
    for step in 0..500 {
        let pairs = gates.pairs(&Rng::new(0, "pairs"), step);
        assert!(pairs[0].active != 2 && pairs[0].other != 2);
        assert_ne!(gates.path(&Rng::new(0, "path"), step).choices()[0], 2);
        let by_gate = vec![[0.1, -0.1]; pairs.len()];
        let parts = LossParts { value: 0.0, by_cross_entropy: 1.0, by_cost: 1e-7 };
        gates.update(&space, &costs, &adam, &pairs, &by_gate, &parts);
    }
    let p = gates.probabilities();
    assert!(p.iter().flatten().all(|p| p.is_finite()) && p[0][2] == 0.0, "{p:?}");
    let mut archive = Archive::default();
    gates.save(&mut archive);
    let mut same = Gates::new(&space, 1);
    same.load(&archive, Path::new("file")).unwrap();
    assert_eq!(same, gates);
    (0..4).for_each(|choice| gates.close(0, choice));
    assert_eq!(gates.pairs(&Rng::new(0, "pairs"), 0)[0], Pair { active: 4, other: 4 }, "the last one");
}

#[test]
fn paths_and_pairs_come_as_often_as_the_probabilities_say() {
    let space = small();
    let p: Vec<f64> = [0.5, 0.25, 0.125, 0.0625, 0.0625][..space.slots()[0].choices.len()].to_vec();
    let gates = with_alpha(&space, &p.iter().map(|p: &f64| p.ln()).collect::<Vec<_>>());
    let total: f64 = p.iter().sum();
    let n = 20_000;
    let mut paths = vec![0.0; p.len()];
    let mut actives = vec![vec![0.0; p.len()]; p.len()];
    for step in 0..n {
        paths[usize::from(gates.path(&Rng::new(0, "path"), step).choices()[0])] += 1.0;
        let Pair { active, other } = gates.pairs(&Rng::new(0, "pairs"), step)[0];
        assert_ne!(active, other);
        actives[active][other] += 1.0;
    }
    let near = |count: f64, p: f64, what: &str| {
        let (mean, deviation) = (p * n as f64, (n as f64 * p * (1.0 - p)).sqrt());
        assert!((count - mean).abs() < 5.0 * deviation, "{what}: {count} where {mean} are expected");
    };
    for a in 0..p.len() {
        near(paths[a], p[a] / total, "path");
        for b in (0..p.len()).filter(|&b| b != a) {
            // Either is drawn first, the other of what is left; then a by its share of the two.
            let (pa, pb) = (p[a] / total, p[b] / total);
            let both = pa * pb / (1.0 - pa) + pb * pa / (1.0 - pb);
            near(actives[a][b], both * pa / (pa + pb), "pair");
        }
    }
}

#[test]
fn the_cost_alone_drives_gates_to_the_cheapest_and_a_running_skip_moves_nothing() {
    let space = small();
    let cost = GateCost::Macs { reference: 500_000.0 };
    let loss = GateLoss::AddLinear { lambda: 1.0 };
    let costs = Costs::new(&space, &cost, loss, Path::new("")).unwrap();
    let mut gates = Gates::new(&space, 0);
    let adam = Adam { lr: 0.05, betas: [0.0, 0.999], decay: 0.0 };
    let (rng, none) = (Rng::new(0, "pairs"), vec![[0.0; 2]; space.slots().len()]);
    let first = costs.expected(&gates.probabilities());
    for step in 0..400 {
        let pairs = gates.pairs(&rng, step);
        let before = gates.probabilities();
        let parts = loss.parts(1.0, costs.expected(&before), cost.reference());
        gates.update(&space, &costs, &adam, &pairs, &none, &parts);
        for (slot, (old, new)) in before.iter().zip(gates.probabilities()).enumerate() {
            let runs = pairs[slot].active;
            if space.slots()[slot].choices[runs].label == "skip" {
                assert_eq!(*old, new);
            }
        }
    }
    assert!(costs.expected(&gates.probabilities()) < 0.5 * first);
    assert_eq!(gates.steps(), 400);
    assert!(space.cost(&gates.most_likely()).macs < space.cost(&space.largest()).macs / 2);
}

#[test]
fn the_candidate_that_lowers_the_loss_gains() {
    let space = small();
    let costs =
        Costs::new(&space, &GateCost::Macs { reference: 5e5 }, GateLoss::default(), Path::new("")).unwrap();
    let mut gates = with_alpha(&space, &[0.0; 4]);
    let before = gates.probabilities();
    let pairs = vec![Pair { active: 0, other: 2 }; space.slots().len()];
    let parts = LossParts { value: 0.0, by_cross_entropy: 1.0, by_cost: 0.0 };
    let by_gate = vec![[0.3, -0.2]; pairs.len()];
    gates.update(&space, &costs, &Adam { lr: 0.1, betas: [0.0, 0.9], decay: 0.0 }, &pairs, &by_gate, &parts);
    for (old, new) in before.iter().zip(gates.probabilities()) {
        assert!(new[2] > old[2] && new[0] < old[0]);
        assert!((new[0] + new[2] - old[0] - old[2]).abs() < 1e-12, "the two keep their share");
        assert!((new[1] - old[1]).abs() < 1e-12);
    }
}

#[test]
fn damaged_gates_are_refused() {
    let space = small();
    let mut archive = Archive::default();
    Gates::new(&space, 0).save(&mut archive);
    let refuse = |change: &dyn Fn(&mut Archive), want: &str| {
        let mut archive = archive.clone();
        change(&mut archive);
        let error = Gates::new(&space, 1).load(&archive, Path::new("file")).unwrap_err().to_string();
        assert!(error.contains(want) && error.starts_with("file"), "{error}");
    };
    refuse(&|a| drop(a.counts.remove("gates.first")), "gates.first");
    refuse(&|a| a.counts.get_mut("gates.updates").unwrap().push(1), "9 are expected");
    refuse(&|a| a.counts.get_mut("gates.alpha").unwrap()[3] = f64::NAN.to_bits(), "NaN");
    let mut same = Gates::new(&space, 1);
    same.load(&archive, Path::new("file")).unwrap();
    assert_eq!(same, Gates::new(&space, 0));
}

#[derive(Debug)]
struct Noise(Vec<String>);

impl Dataset for Noise {
    fn len(&self) -> usize {
        48
    }
    fn classes(&self) -> &[String] {
        &self.0
    }
    fn name(&self, i: usize) -> String {
        i.to_string()
    }
    fn label(&self, i: usize) -> u32 {
        i as u32 % 10
    }
    fn id(&self, i: usize) -> u64 {
        i as u64
    }
    fn read(&self, i: usize, image: &mut Image) -> nas::data::Result<()> {
        let mut draws = Rng::new(1, "noise").at(0, 0, i as u32);
        (image.height, image.width, image.channels) = (12, 12, 1);
        image.pixels = (0..144).map(|_| draws.below(256) as u8).collect();
        Ok(())
    }
    fn describe(&self) -> nas::data::Description {
        nas::data::Description {
            format: "noise",
            paths: vec![],
            records: 48,
            classes: 10,
            digest: String::new(),
        }
    }
}

/// Three epochs of four steps, of which the first warms up; an architecture step after every second one. `stops`
/// ends the sitting after each step.
fn trained(stops: bool) -> (Vec<u32>, Gates, u64) {
    let space = small();
    let view = View::all(Arc::new(Noise((0..10).map(|c| c.to_string()).collect())));
    let transform =
        Transform { crop: Crop::Centre { resize: 12, size: 12 }, flip: 0.5, jitter: None, erase: None };
    let normalise = Normalise::MeanStd { mean: vec![0.5], std: vec![0.3] };
    let pipeline = Pipeline::new(&transform, &normalise).unwrap();
    let options = LoaderOptions { batch: 12, workers: 1, prefetch: 2, on_bad: OnBad::Error, max_bad: 0.0 };
    let gates: GatesConfig = toml::from_str(
        "warmup-epochs = 1\nidle-epochs = 0\nevery = 2\nbatch = 12\nlr = 0.1\ncost = { kind = \"macs\", reference = 5e5 }",
    )
    .unwrap();
    gates.check("supernet.gates").unwrap();
    let config: TrainConfig = toml::from_str("epochs = 2\nbatch = 12\nbn-batch = 6\nlr = 0.02").unwrap();
    let (folder, cpu) = (tempfile::tempdir().unwrap(), Cpu::new(1).unwrap());
    let model = Model::new(&space, NormParams::Supernet).unwrap();
    let held =
        GateJob { config: &gates, images: &view, pipeline: &pipeline, loader: options, seed: 3, draws: true };
    let stop = AtomicBool::new(stops);
    let job = Job {
        stage: Stage::TrainSupernet,
        subject: "supernet",
        model: &model,
        paths: &|_| unreachable!("gates draw the paths"),
        path_images: PathImages::Slices,
        at_once: 1,
        config: &config,
        log: &LogConfig::default(),
        images: &view,
        seed: 3,
        running_statistics: false,
        gates: Some(&held),
        stop: &stop,
    };
    let checkpoints = Checkpoints::open(&folder.path().join("checkpoints")).unwrap();
    let mut journal = Journal::open(&folder.path().join("events.jsonl"), Vec::new()).unwrap();
    let mut sittings = 0;
    loop {
        sittings += 1;
        let mut session = Session::resume(&job, &cpu, &checkpoints, &mut journal).unwrap();
        let mut loader = Loader::new(view.clone(), pipeline.clone(), Pass::Train, 3, options).unwrap();
        match train::train(&job, &mut session, &mut loader, &checkpoints, &mut journal) {
            Err(Error::Interrupted { .. }) if stops => continue,
            other => other.unwrap(),
        }
        let weights = session.store.values().unwrap().iter().map(|w| w.to_bits()).collect();
        return (weights, session.gates.unwrap(), sittings);
    }
}

#[test]
fn stopping_after_every_step_changes_no_bit_of_weights_or_gates() {
    let (weights, gates, _) = trained(false);
    assert_eq!(gates.steps(), 4, "every second of eight steps after the warm-up");
    assert_ne!(gates.probabilities(), Gates::new(&small(), 3).probabilities());
    let (again, same, sittings) = trained(true);
    assert_eq!(sittings, 12);
    assert!(weights == again, "weights differ");
    assert_eq!(gates, same);
}
