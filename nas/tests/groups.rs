//! Several paths in a step: to the bit what single passes give, one path after another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::optim::Sgd;
use engine::{Cpu, Moments, ParamStore, Rng, Tape, Tensor, ops};
use nas::checkpoint::Checkpoints;
use nas::data::config::{Crop, Normalise, OnBad, Transform};
use nas::data::{Batch, Dataset, Image, Loader, LoaderOptions, Pass, Pipeline, View};
use nas::event::Stage;
use nas::groups::{PathImages, Row, Step, Table};
use nas::journal::Journal;
use nas::model::{Context, DropoutGroup, DropoutSite, Model, NormId, NormParams, Norms};
use nas::recipe::{LogConfig, Recipe, TrainConfig};
use nas::sample::{Fair, Sampler, Uniform};
use nas::train::{self, Job, Session};
use nas::{Arch, Space};

/// A space for small images. Between them: identities, dense candidates, squeeze-excite, two-branch
/// blocks without learnt scales, and dropout.
const SPACES: [(&str, usize); 4] =
    [("quickstart", 12), ("nas-bench-macro", 8), ("mobilenet-se-cifar", 8), ("spos-shufflenet", 32)];

const SMOOTHING: f32 = 0.1;
const STEP: u64 = 7;

fn small(name: &str, size: usize) -> Space {
    let space = Space::load(name).unwrap();
    let channels = space.input().channels;
    space.with_input(size, channels).unwrap().with_classes(10).unwrap()
}

/// Four paths, of which the first and the last are one.
fn archs(space: &Space) -> Vec<Arch> {
    let rng = Rng::new(4, "archs");
    let mut archs: Vec<Arch> = (0..3).map(|i| space.sample(&mut rng.at(0, 0, i))).collect();
    archs.push(archs[0].clone());
    archs
}

/// Losses by (path, images), statistics by norm, all gradients: bits.
#[derive(Debug, Default, PartialEq)]
struct Left {
    losses: Vec<(usize, Range<usize>, u64)>,
    moments: BTreeMap<NormId, Vec<Vec<u32>>>,
    grads: Vec<u32>,
}

impl Left {
    fn add(&mut self, moments: &[(NormId, Moments)]) {
        for (id, m) in moments {
            let values = m.mean.f32().unwrap().iter().chain(m.var.f32().unwrap());
            let bits = values.map(|v| v.to_bits()).chain([m.count as u32]).collect();
            self.moments.entry(*id).or_default().push(bits);
        }
    }

    fn finish(mut self, store: &mut ParamStore) -> Self {
        self.grads =
            store.ids().flat_map(|id| store.grad(id).unwrap().into_owned()).map(f32::to_bits).collect();
        assert!(self.grads.iter().any(|&bits| f32::from_bits(bits) != 0.0));
        store.clear_touched().unwrap();
        self
    }
}

struct Setup {
    model: Model,
    store: ParamStore,
    archs: Vec<Arch>,
    images: Tensor,
    labels: Vec<i32>,
}

impl Setup {
    fn new(cpu: &Cpu, space: &Space, n: usize) -> Self {
        let model = Model::new(space, NormParams::Supernet).unwrap();
        let store = model.init(cpu, &Rng::new(0, "init")).unwrap();
        let (size, channels) = (space.input().size, space.input().channels);
        let mut draws = Rng::new(0, "images").at(0, 0, 0);
        let data: Vec<f32> = (0..n * size * size * channels).map(|_| draws.normal()).collect();
        let images = Tensor::from_slice(cpu, [n, size, size, channels], &data).unwrap();
        let labels = (0..n).map(|_| draws.below(10) as i32).collect();
        Self { archs: archs(space), model, store, images, labels }
    }

    fn labels(&self, of: Range<usize>) -> Tensor {
        Tensor::from_slice(self.store.device(), [of.len()], &self.labels[of]).unwrap()
    }

    /// One tape a pass, with nothing of the group table but its order.
    fn passes(&mut self, passes: &[(usize, Range<usize>)]) -> Left {
        let mut left = Left::default();
        for (path, of) in passes.iter().cloned() {
            let mut tape = Tape::new(self.store.device());
            let x = tape.constant(self.images.rows(of.start, of.end).unwrap());
            let truth = tape.constant(self.labels(of.clone()));
            let mut moments = Vec::new();
            let groups = [DropoutGroup { path: path as u32, first: of.start as u32 }];
            let mut cx = Context {
                tape: &mut tape,
                store: &self.store,
                norms: Norms::Batch(&mut moments),
                dropout: Some(DropoutSite { rng: Rng::new(0, "dropout"), step: STEP, groups: &groups }),
            };
            let logits = self.model.forward(&mut cx, &self.archs[path], &x).unwrap();
            let op = ops::SoftmaxCrossEntropy { smoothing: SMOOTHING };
            let loss = tape.apply(op, &[&logits, &truth]).unwrap();
            left.losses.push((path, of.clone(), f64::from(loss.tensor().f32().unwrap()[0]).to_bits()));
            left.add(&moments);
            let weight = of.len() as f32 / self.labels.len() as f32;
            drop(logits);
            tape.backward(&loss, weight, &mut self.store).unwrap();
        }
        left.finish(&mut self.store)
    }

    fn groups(&mut self, table: &Table, at_once: usize) -> Left {
        let mut left = Left::default();
        let mut tape = Tape::new(self.store.device());
        let dropout = (Rng::new(0, "dropout"), STEP);
        let common = Step { model: &self.model, archs: &self.archs, smoothing: SMOOTHING, dropout };
        for rows in table.calls(at_once) {
            let of = |row: &Row| {
                let images = self.images.rows(row.images.start, row.images.end).unwrap();
                (images, self.labels(row.images.clone()))
            };
            let inputs = rows.iter().map(of).collect();
            let passed = common.forward(&mut tape, &self.store, rows, inputs).unwrap();
            for (row, value) in rows.iter().zip(passed.values().unwrap()) {
                left.losses.push((row.path, row.images.clone(), value.to_bits()));
            }
            left.add(&passed.moments);
            passed.backward(&mut tape, &mut self.store, table, rows).unwrap();
        }
        left.finish(&mut self.store)
    }
}

#[test]
fn groups_equal_single_passes_in_every_space_and_on_any_number_of_threads() {
    for (name, size) in SPACES {
        let space = small(name, size);
        // Four slices of three images; four paths over the same four; micro-batches of both.
        let sliced: Vec<_> = (0..4).map(|path| (path, 3 * path..3 * path + 3)).collect();
        let shared: Vec<_> = (0..4).map(|path| (path, 0..4)).collect();
        let halves = |of: &[(usize, Range<usize>)], cut: usize| {
            let half = |first: bool| {
                of.iter().map(move |(path, of)| {
                    let at = of.start + cut;
                    (*path, if first { of.start..at } else { at..of.end })
                })
            };
            half(true).chain(half(false)).collect::<Vec<_>>()
        };
        let cases = [
            (12, PathImages::Slices, 12, sliced.clone()),
            (4, PathImages::Shared, 4, shared.clone()),
            (12, PathImages::Slices, 2, halves(&sliced, 2)),
            (4, PathImages::Shared, 2, halves(&shared, 2)),
        ];
        for (batch, images, bn, passes) in cases {
            let table = Table::new(batch, 4, images, bn);
            let mut want: Option<Left> = None;
            // The smallest space goes through all numbers of threads.
            for threads in if name == "quickstart" { vec![1, 2, 3, 4] } else { vec![1, 3] } {
                let mut setup = Setup::new(&Cpu::new(threads).unwrap(), &space, batch);
                let want = want.get_or_insert_with(|| setup.passes(&passes));
                for at_once in if threads == 1 { vec![1, 3] } else { vec![4] } {
                    let left = setup.groups(&table, at_once);
                    assert!(
                        &left == want,
                        "{name}, {images:?} of {batch}, norms over {bn}, {threads} threads, {at_once} at once"
                    );
                }
            }
        }
    }
}

#[test]
fn paths_over_the_same_images_drop_other_features() {
    let space = small("spos-shufflenet", 32);
    let mut setup = Setup::new(&Cpu::new(1).unwrap(), &space, 4);
    let left = setup.groups(&Table::new(4, 4, PathImages::Shared, 4), 4);
    // Paths 0 and 3 are one architecture: up to dropout they compute the same.
    let statistics_agree = left.moments.values().filter(|found| found.len() == 4).all(|m| m[0] == m[3]);
    assert!(statistics_agree && left.losses[0].2 != left.losses[3].2);
}

#[test]
fn identity_groups_take_no_memory() {
    let space = small("quickstart", 12);
    let cpu = Cpu::new(1).unwrap();
    let setup = Setup::new(&cpu, &space, 4);
    let slot = space.slots().iter().position(|s| s.choices.iter().any(|c| c.label == "skip")).unwrap();
    let skip = space.slots()[slot].choices.iter().position(|c| c.label == "skip").unwrap();
    let with = |choice: usize| {
        let mut choices = space.first().choices().to_vec();
        choices[slot] = choice as u16;
        Arch::new(choices)
    };
    let (identity, block) = (with(skip), with(0));
    let at = space.stem().len() + slot;
    let place = space.slots()[slot].place;
    let shape = [4, place.size, place.size, place.input];
    let mut tape = Tape::new(&cpu);
    let data = vec![0.5f32; shape.iter().product()];
    let x = tape.leaf(Tensor::from_slice(&cpu, shape, &data).unwrap());
    let xs = vec![x; 3];
    let mut used = |archs: [&Arch; 3]| {
        let mut moments = Vec::new();
        let norms = Norms::Batch(&mut moments);
        let mut cx = Context { tape: &mut tape, store: &setup.store, norms, dropout: None };
        let before = cpu.arena().stats().used;
        let ys = setup.model.segment_groups(&mut cx, &archs, at, &xs).unwrap();
        let same =
            |i: usize| ys[i].tensor().f32().unwrap().as_ptr() == xs[i].tensor().f32().unwrap().as_ptr();
        let unmoved: Vec<bool> = (0..3).map(same).collect();
        (unmoved, cpu.arena().stats().used - before)
    };
    assert_eq!(used([&identity; 3]), (vec![true; 3], 0));
    let (unmoved, three) = used([&block; 3]);
    assert_eq!(unmoved, [false; 3]);
    let (unmoved, one) = used([&identity, &block, &identity]);
    assert_eq!(unmoved, [true, false, true]);
    assert_eq!(3 * one, three);
}

/// Images of noise, made from their number.
struct Noise {
    classes: Vec<String>,
}

impl Dataset for Noise {
    fn len(&self) -> usize {
        96
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn label(&self, i: usize) -> u32 {
        (i % 10) as u32
    }
    fn name(&self, i: usize) -> String {
        i.to_string()
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
            records: 96,
            classes: 10,
            digest: String::new(),
        }
    }
}

const TRAIN: &str =
    "epochs = 2\nbatch = 24\nlr = 0.1\nweight-decay = 1e-3\nclip-norm = 2.0\nlabel-smoothing = 0.1";

fn loader(view: &View) -> Loader {
    let transform =
        Transform { crop: Crop::Centre { resize: 12, size: 12 }, flip: 0.5, jitter: None, erase: None };
    let normalise = Normalise::MeanStd { mean: vec![0.5], std: vec![0.3] };
    let pipeline = Pipeline::new(&transform, &normalise).unwrap();
    let options = LoaderOptions { batch: 24, workers: 1, prefetch: 2, on_bad: OnBad::Error, max_bad: 0.0 };
    Loader::new(view.clone(), pipeline, Pass::Train, 3, options).unwrap()
}

/// Four paths a step of a sampler, over the same images or slices of them.
struct Method<'a> {
    space: &'a Space,
    view: &'a View,
    sampler: &'a dyn Sampler,
    images: PathImages,
}

/// What eight steps of the trainer leave.
fn trained(method: &Method<'_>, at_once: usize, threads: usize) -> (Model, Session) {
    let Method { space, view, sampler, images } = *method;
    let folder = tempfile::tempdir().unwrap();
    let (cpu, config): (_, TrainConfig) = (Cpu::new(threads).unwrap(), toml::from_str(TRAIN).unwrap());
    let model = Model::new(space, NormParams::Supernet).unwrap();
    let rng = Rng::new(3, "path");
    let job = Job {
        stage: Stage::TrainSupernet,
        subject: "supernet",
        model: &model,
        paths: &|step| (0..4).map(|number| sampler.path(space, &rng, step, number)).collect(),
        path_images: images,
        at_once,
        config: &config,
        log: &LogConfig::default(),
        images: view,
        seed: 3,
        running_statistics: false,
        gates: None,
        stop: &AtomicBool::new(false),
    };
    let checkpoints = Checkpoints::open(&folder.path().join("checkpoints")).unwrap();
    let mut journal = Journal::open(&folder.path().join("events.jsonl"), Vec::new()).unwrap();
    let mut session = Session::new(&job, &cpu).unwrap();
    train::train(&job, &mut session, &mut loader(view), &checkpoints, &mut journal).unwrap();
    (model, session)
}

/// Weights and momenta.
fn bits(store: &ParamStore, sgd: &Sgd) -> [Vec<u32>; 2] {
    [store.values().unwrap(), sgd.momenta().unwrap()].map(|v| v.iter().map(|v| v.to_bits()).collect())
}

/// The same by hand: single passes of one path after another, then one update.
fn by_hand(method: &Method<'_>) -> [Vec<u32>; 2] {
    let Method { space, view, sampler, images } = *method;
    let (cpu, config): (_, TrainConfig) = (Cpu::new(1).unwrap(), toml::from_str(TRAIN).unwrap());
    let model = Model::new(space, NormParams::Supernet).unwrap();
    let mut store = model.init(&cpu, &Rng::new(3, "init")).unwrap();
    let mut sgd = Sgd::new(&store, config.sgd()).unwrap();
    let schedule = config.schedule(8, 4);
    let (rng, mut loader, mut batch) = (Rng::new(3, "path"), loader(view), Batch::default());
    loader.seek(0, 0);
    for step in 0..8 {
        assert!(loader.next(&mut batch).unwrap());
        for number in 0..4 {
            let of = match images {
                PathImages::Slices => 6 * number..6 * number + 6,
                PathImages::Shared => 0..24,
            };
            let mut tape = Tape::new(&cpu);
            let pixels = &batch.images[of.start * 144..of.end * 144];
            let x = tape.constant(Tensor::from_slice(&cpu, [of.len(), 12, 12, 1], pixels).unwrap());
            let labels: Vec<i32> = batch.labels[of.clone()].iter().map(|&l| l as i32).collect();
            let truth = tape.constant(Tensor::from_slice(&cpu, [of.len()], &labels).unwrap());
            let norms = Norms::Batch(&mut Vec::new());
            let arch = sampler.path(space, &rng, step, number as u32);
            let mut cx = Context { tape: &mut tape, store: &store, norms, dropout: None };
            let logits = model.forward(&mut cx, &arch, &x).unwrap();
            let op = ops::SoftmaxCrossEntropy { smoothing: config.label_smoothing };
            let loss = tape.apply(op, &[&logits, &truth]).unwrap();
            drop(logits);
            tape.backward(&loss, of.len() as f32 / 24.0, &mut store).unwrap();
        }
        store.clip_grad_norm(2.0).unwrap();
        sgd.step(&mut store, schedule.at(step)).unwrap();
    }
    bits(&store, &sgd)
}

fn noise() -> View {
    View::all(Arc::new(Noise { classes: (0..10).map(|c| c.to_string()).collect() }))
}

/// `quickstart` without its skips: four candidates in every slot.
fn even() -> Space {
    let space = small("quickstart", 12);
    let slots = space.slots().iter().enumerate();
    let skips: Vec<(usize, usize)> = slots
        .filter_map(|(s, slot)| Some((s, slot.choices.iter().position(|c| c.label == "skip")?)))
        .collect();
    space.without(&skips).unwrap()
}

#[test]
fn the_trainer_adds_the_gradients_of_all_paths_and_updates_once() {
    let (space, view) = (small("quickstart", 12), noise());
    for images in [PathImages::Slices, PathImages::Shared] {
        let method = Method { space: &space, view: &view, sampler: &Uniform, images };
        let want = by_hand(&method);
        for (at_once, threads) in [(1, 1), (usize::MAX, 2), (3, 3), (4, 4)] {
            let (_, session) = trained(&method, at_once, threads);
            let got = bits(&session.store, &session.sgd);
            assert!(got == want, "{images:?}, {at_once} at once, {threads} threads");
        }
    }
}

#[test]
fn fairnas_trains_every_candidate_in_every_step_and_equals_single_passes() {
    let (space, view) = (even(), noise());
    let method = Method { space: &space, view: &view, sampler: &Fair, images: PathImages::Shared };
    let (model, session) = trained(&method, usize::MAX, 2);
    assert_eq!(bits(&session.store, &session.sgd), by_hand(&method));
    assert_eq!(model.space().slots().len(), 8);
    assert!(session.store.ids().all(|id| session.sgd.steps(id) == 8), "8 steps, 8 updates of everything");
}

#[test]
fn strict_fairness_takes_every_candidate_of_a_slot_once_a_step() {
    for name in ["nas-bench-macro", "spos-shufflenet"] {
        let space = Space::load(name).unwrap();
        let (rng, paths) = (Rng::new(0, "path"), Fair::paths(&space).unwrap());
        assert_eq!(paths, space.slots()[0].choices.len());
        let mut firsts = vec![vec![0u32; paths]; space.slots().len()];
        for step in 0..600 {
            let archs: Vec<Arch> = (0..paths as u32).map(|n| Fair.path(&space, &rng, step, n)).collect();
            for (slot, firsts) in firsts.iter_mut().enumerate() {
                let mut taken: Vec<usize> = archs.iter().map(|arch| arch.choice(slot).unwrap()).collect();
                firsts[taken[0]] += 1;
                taken.sort_unstable();
                assert_eq!(taken, (0..paths).collect::<Vec<_>>(), "{name}, step {step}, slot {slot}");
            }
        }
        // Permutations are uniform, and those of two slots independent.
        let even = |count: u32, of: f64| (f64::from(count) - of).abs() < 5.0 * of.sqrt();
        assert!(firsts.iter().flatten().all(|&n| even(n, 600.0 / paths as f64)), "{firsts:?}");
        let agree = (0..600).filter(|&step| {
            let arch = Fair.path(&space, &rng, step, 0);
            arch.choice(0) == arch.choice(1)
        });
        assert!(even(agree.count() as u32, 600.0 / paths as f64));
    }
}

#[test]
fn strict_fairness_needs_equally_many_candidates_everywhere() {
    let error = Fair::paths(&Space::load("quickstart").unwrap()).unwrap_err().to_string();
    assert!(error.contains("stage1.slot1 has 5, stage2.slot1 has 4"), "{error}");
    // A slot with one candidate left has it in every path.
    let even = even();
    let single = even.without(&[(3, 0), (3, 1), (3, 2)]).unwrap();
    assert_eq!((Fair::paths(&even).unwrap(), Fair::paths(&single).unwrap()), (4, 4));
    let rng = Rng::new(0, "path");
    assert!((0..4).all(|n| Fair.path(&single, &rng, 0, n).choice(3) == Some(0)));
    assert_eq!(Fair::paths(&single.only(&single.first()).unwrap()).unwrap(), 1);
}

#[test]
fn the_recipe_of_fairnas_has_a_path_for_every_candidate() {
    let text = include_str!("../../recipes/imagenet/fairnas.toml");
    let read = |text: &str| Recipe::parse(text, Path::new("fairnas.toml"), &[]);
    let recipe = read(text).unwrap();
    let space = Space::load(&recipe.space).unwrap();
    assert_eq!(recipe.supernet.paths(&space).unwrap(), 6);
    assert_eq!((recipe.supernet.images, recipe.supernet.paths_at_once()), (PathImages::Shared, 1));
    // What does not fit is said before anything runs.
    let other = read(&text.replace("paths-at-once = 1", "paths = 4")).unwrap();
    let error = other.supernet.paths(&space).unwrap_err().to_string();
    assert!(error.contains("supernet.paths") && error.contains("6, the candidates of a slot"), "{error}");
    let sliced = read(&text.replace("images = \"shared\"", "")).unwrap();
    let error = sliced.supernet.paths(&space).unwrap_err().to_string();
    assert!(error.contains("a divisor of supernet.train.batch = 256"), "{error}");
    // Written out and read again it is the same recipe.
    assert_eq!(read(&recipe.to_toml().unwrap()).unwrap(), recipe);
}
