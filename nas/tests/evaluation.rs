//! Scores of candidates: equal, to the bit, however they are grouped, ordered and shared.

use std::sync::atomic::AtomicBool;

use engine::{Cpu, ParamStore, Rng, Tape, Tensor};
use nas::evaluate::{self, Evaluator, Images};
use nas::model::{Context, Folds, Model, NormParams, Norms};
use nas::search::Score;
use nas::{Arch, Space};

struct Setup {
    cpu: Cpu,
    space: Space,
    model: Model,
    store: ParamStore,
    calibration: Images,
    scored: Images,
}

fn setup(space: &str, size: usize) -> Setup {
    setup_within(space, size, usize::MAX)
}

/// With so many bytes of memory.
fn setup_within(space: &str, size: usize, cap: usize) -> Setup {
    let cpu = Cpu::with_cap(2, cap).unwrap();
    let channels = Space::load(space).unwrap().input().channels;
    let space = Space::load(space).unwrap().with_input(size, channels).unwrap();
    let model = Model::new(&space, NormParams::Supernet).unwrap();
    let store = model.init(&cpu, &Rng::new(0, "init")).unwrap();
    let images = |n: usize, batches: usize, purpose: &str| {
        let mut draws = Rng::new(0, purpose).at(0, 0, 0);
        let pixels = n * size * size * channels;
        let batches: Vec<Tensor> = (0..batches)
            .map(|_| {
                let data: Vec<f32> = (0..pixels).map(|_| draws.normal()).collect();
                Tensor::from_slice(&cpu, [n, size, size, channels], &data).unwrap()
            })
            .collect();
        let labels = batches.iter().map(|_| (0..n).map(|_| draws.below(10) as i32).collect()).collect();
        Images { batches, labels }
    };
    let (calibration, scored) = (images(4, 3, "calibration"), images(10, 4, "scored"));
    Setup { cpu, space, model, store, calibration, scored }
}

impl Setup {
    fn scores(&self, archs: &[Arch], memory: usize) -> Vec<Score> {
        self.scores_by(Some(&self.calibration), archs, memory)
    }

    fn scores_by(&self, calibration: Option<&Images>, archs: &[Arch], memory: usize) -> Vec<Score> {
        let stop = AtomicBool::new(false);
        let evaluator = Evaluator {
            model: &self.model,
            store: &self.store,
            calibration,
            scored: &self.scored,
            memory,
            stop: &stop,
        };
        let mut heard = vec![None; archs.len()];
        let scores = evaluator
            .scores(archs, |i, score| {
                assert!(heard[i].replace(score).is_none(), "candidate {i} was told twice");
                Ok(())
            })
            .unwrap();
        assert!(heard.iter().zip(&scores).all(|(a, b)| a.as_ref() == Some(b)));
        scores
    }

    fn archs(&self, n: u32) -> Vec<Arch> {
        let rng = Rng::new(5, "archs");
        let mut archs: Vec<Arch> = (0..n).map(|i| self.space.sample(&mut rng.at(0, 0, i))).collect();
        // Children of one parent share long prefixes, as in an evolutionary round.
        let parent = archs[0].clone();
        archs.extend((0..n).map(|i| self.space.mutate(&parent, 0.1, &mut rng.at(0, 1, i))));
        archs.push(parent);
        archs
    }
}

#[test]
fn sharing_prefixes_changes_no_score() {
    for (space, size) in [("quickstart", 12), ("nas-bench-macro", 8), ("spos-cifar", 8)] {
        let setup = setup(space, size);
        let archs = setup.archs(6);
        for calibration in [Some(&setup.calibration), None] {
            let alone: Vec<Score> =
                archs.iter().map(|a| setup.scores_by(calibration, std::slice::from_ref(a), 0)[0]).collect();
            assert!(alone.windows(2).any(|w| w[0] != w[1]), "{space}: all candidates score alike");
            // Nothing shared, a little, everything.
            for memory in [0, 40_000, 150_000, 600_000, usize::MAX] {
                let shared = setup.scores_by(calibration, &archs, memory);
                assert_eq!(shared, alone, "{space} with {memory} bytes");
            }
        }
    }
}

#[test]
fn sharing_takes_no_more_memory_than_it_may() {
    let setup = setup("nas-bench-macro", 8);
    let archs = setup.archs(12);
    let peak = |memory: usize| {
        setup.cpu.arena().reset_peak();
        setup.scores(&archs, memory);
        setup.cpu.arena().stats().peak
    };
    // A batch of the larger kind before the widest segment.
    let widest = (0..setup.model.depth() - 2).map(|at| setup.model.activations(at)).max().unwrap();
    let (alone, batch) = (peak(0), 10 * widest * size_of::<f32>());
    let all = peak(usize::MAX);
    assert!(all > alone + 4 * batch, "sharing holds something: {all} of {alone}");
    for memory in (0..20).map(|i| i * (all - alone) / 16) {
        let peak = peak(memory);
        assert!(peak <= alone + memory + batch, "{memory} bytes: {peak} beside {alone}");
    }
}

#[test]
fn a_model_knows_how_many_values_stand_before_a_slot() {
    for (name, _) in nas::space::list() {
        let space = Space::load(name).unwrap().with_input(32, 3).unwrap();
        let model = Model::new(&space, NormParams::Supernet).unwrap();
        let cpu = Cpu::new(2).unwrap();
        let store = model.init(&cpu, &Rng::new(0, "init")).unwrap();
        let arch = space.sample(&mut Rng::new(1, "arch").at(0, 0, 0));
        let mut tape = Tape::inference(&cpu);
        let mut x = tape.constant(Tensor::from_slice(&cpu, [4, 32, 32, 3], &[0.5; 4 * 32 * 32 * 3]).unwrap());
        let mut moments = Vec::new();
        for at in 0..=space.stem().len() + space.slots().len() {
            assert_eq!(4 * model.activations(at), x.tensor().shape().len(), "{name}, segment {at}");
            let norms = Norms::Batch(&mut moments);
            let mut cx = Context { tape: &mut tape, store: &store, norms, dropout: None };
            x = model.segment(&mut cx, &arch, at, &x).unwrap();
        }
    }
}

#[test]
fn without_calibration_every_batch_is_normalised_by_itself() {
    let setup = setup("quickstart", 12);
    for arch in setup.archs(2) {
        let mut want = Score { top1: 0, top5: 0, images: 0 };
        for (images, labels) in setup.scored.batches.iter().zip(&setup.scored.labels) {
            let mut tape = Tape::inference(&setup.cpu);
            let x = tape.constant(images.clone());
            let mut moments = Vec::new();
            let norms = Norms::Batch(&mut moments);
            let mut cx = Context { tape: &mut tape, store: &setup.store, norms, dropout: None };
            let logits = setup.model.forward(&mut cx, &arch, &x).unwrap();
            for (row, &label) in logits.tensor().f32().unwrap().chunks_exact(10).zip(labels) {
                let own = row[label as usize];
                let better = row.iter().filter(|&&v| v > own).count();
                want.top1 += u64::from(better == 0);
                want.top5 += u64::from(better < 5);
                want.images += 1;
            }
        }
        assert_eq!(setup.scores_by(None, &[arch], usize::MAX), [want]);
    }
}

#[test]
fn where_sharing_finds_no_room_candidates_go_alone_to_the_same_scores() {
    let free = setup("quickstart", 12);
    let archs = free.archs(6);
    let peak = |memory: usize| {
        free.cpu.arena().reset_peak();
        let scores: Vec<Score> = match memory {
            0 => archs.iter().map(|arch| free.scores(std::slice::from_ref(arch), 0)[0]).collect(),
            _ => free.scores(&archs, memory),
        };
        (free.cpu.arena().stats().peak, scores)
    };
    let ((alone, want), (shared, _)) = (peak(0), peak(usize::MAX));
    assert!(shared > alone, "sharing takes no memory: {shared} against {alone} bytes");
    for cap in [alone, (alone + shared) / 2] {
        assert_eq!(setup_within("quickstart", 12, cap).scores(&archs, usize::MAX), want, "{cap} bytes");
    }
}

#[test]
fn scores_do_not_depend_on_the_order_of_candidates() {
    let setup = setup("quickstart", 12);
    let archs = setup.archs(8);
    let want = setup.scores(&archs, usize::MAX);
    for seed in 0..10 {
        let order = Rng::new(seed, "order").at(0, 0, 0).permutation(archs.len());
        let shuffled: Vec<Arch> = order.iter().map(|&i| archs[i as usize].clone()).collect();
        let scores = setup.scores(&shuffled, 100_000);
        assert!(order.iter().zip(scores).all(|(&i, score)| want[i as usize] == score), "order {seed}");
    }
}

#[test]
fn evaluation_leaves_the_supernet_as_it_was() {
    let setup = setup("quickstart", 12);
    let before = setup.store.values().unwrap().to_vec();
    setup.scores(&setup.archs(3), usize::MAX);
    assert_eq!(*setup.store.values().unwrap(), before);
    assert_eq!(setup.cpu.pool().threads(), 2);
}

#[test]
fn a_set_flag_stops_between_candidates() {
    let setup = setup("quickstart", 12);
    let stop = AtomicBool::new(true);
    let evaluator = Evaluator {
        model: &setup.model,
        store: &setup.store,
        calibration: Some(&setup.calibration),
        scored: &setup.scored,
        memory: 0,
        stop: &stop,
    };
    let error = evaluator.scores(&setup.archs(2), |_, _| Ok(())).unwrap_err();
    assert!(matches!(error, nas::Error::Stopped));
}

/// Logits of a path with norms folded, beside those of the same path with norms applied.
#[test]
fn folded_layers_give_the_logits_of_frozen_norms_image_by_image() {
    for (space, size) in [("quickstart", 12), ("mobilenet-se-cifar", 17), ("spos-cifar", 9)] {
        let Setup { cpu, space: s, model, store, calibration, scored } = setup(space, size);
        let mut statistics = model.fresh_statistics(&cpu).unwrap();
        let run = |arch: &Arch, norms: Norms<'_>, x: &Tensor| -> Vec<f32> {
            let mut tape = Tape::inference(&cpu);
            let x = tape.constant(x.clone());
            let mut cx = Context { tape: &mut tape, store: &store, norms, dropout: None };
            model.forward(&mut cx, arch, &x).unwrap().tensor().f32().unwrap().to_vec()
        };
        for draw in 0..3 {
            let arch = s.sample(&mut Rng::new(8, "folded").at(0, 0, draw));
            let mut moments = Vec::new();
            run(&arch, Norms::Batch(&mut moments), &calibration.batches[0]);
            model.update_running(&mut statistics, &moments).unwrap();

            let x = &scored.batches[0];
            let folds = Folds::new(&store, &statistics);
            let folded = run(&arch, Norms::Folded(&folds), x);
            let frozen = run(&arch, Norms::Frozen(&statistics), x);
            let scale = frozen.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (a, b) in folded.iter().zip(&frozen) {
                assert!((a - b).abs() <= 1e-4 * scale, "{space}: {a}, not {b}, of up to {scale}");
            }
            // Folded once or again, in a batch or alone: the same bits.
            assert_eq!(folded, run(&arch, Norms::Folded(&folds), x));
            let (n, len) = (x.shape().dims()[0], x.f32().unwrap().len());
            for (image, want) in folded.chunks_exact(folded.len() / n).enumerate() {
                let pixels = &x.f32().unwrap()[image * len / n..(image + 1) * len / n];
                let alone = Tensor::from_slice(&cpu, [1, size, size, len / n / size / size], pixels).unwrap();
                assert_eq!(
                    evaluate::infer(&model, &store, &statistics, &arch, &alone).unwrap().f32().unwrap(),
                    want
                );
            }
        }
    }
}
