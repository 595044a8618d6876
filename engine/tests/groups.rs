//! A call of several groups: to the bit what one tape per group gives, walked one after another.

use engine::ops::{self, Act, Statistics};
use engine::{Cpu, Group, Layout, Moments, ParamId, ParamKind, ParamStore, Rng, Tape, Tensor, Var, Window};

const CLASSES: usize = 5;
const WIDTH: usize = 12;

/// A shared stem, a slot of three candidates (one of them nothing) and a shared classifier.
struct Net {
    store: ParamStore,
    stem: ParamId,
    norm: [ParamId; 2],
    /// Kernel, and the filters of expand, depthwise and project with their norms' scale and shift.
    candidates: Vec<(usize, Vec<ParamId>)>,
    head: [ParamId; 2],
}

/// What a group sees: its images, its candidate (beyond the last: nothing), its weight in the loss.
#[derive(Clone)]
struct Row {
    images: Tensor,
    labels: Tensor,
    candidate: usize,
    weight: f32,
}

/// All that a step leaves behind, as bits.
#[derive(Debug, PartialEq)]
struct Left {
    losses: Vec<u32>,
    moments: Vec<Vec<u32>>,
    grads: Vec<u32>,
    touched: Vec<(ParamId, Vec<std::ops::Range<usize>>)>,
}

impl Net {
    fn new(cpu: &Cpu) -> Self {
        let mut layout = Layout::new();
        let stem = layout.add("stem", [WIDTH, 3, 3, 3], ParamKind::Weight).unwrap();
        let pair = |layout: &mut Layout, name: &str, c: usize| {
            ["scale", "shift"].map(|s| layout.add(format!("{name}.{s}"), [c], ParamKind::Norm).unwrap())
        };
        let norm = pair(&mut layout, "stem", WIDTH);
        let mut candidates = Vec::new();
        for (i, (k, e)) in [(3, 40), (5, 24)].into_iter().enumerate() {
            let mut ids = Vec::new();
            for (name, shape) in [("a", vec![e, WIDTH]), ("b", vec![k, k, e]), ("c", vec![WIDTH, e])] {
                let shape = engine::Shape::new(&shape).unwrap();
                ids.push(layout.add(format!("{i}.{name}"), shape, ParamKind::Weight).unwrap());
                ids.extend(pair(&mut layout, &format!("{i}.{name}"), if name == "c" { WIDTH } else { e }));
            }
            candidates.push((k, ids));
        }
        // Rows beyond the classes are never read: the head is a window.
        let weight = layout.add("head.weight", [CLASSES + 3, WIDTH], ParamKind::Weight).unwrap();
        let bias = layout.add("head.bias", [CLASSES], ParamKind::Bias).unwrap();
        let mut store = layout.build(cpu).unwrap();
        for id in store.ids() {
            let mut draws = Rng::new(3, "init").at(0, 0, id.index() as u32);
            store.value_mut(id).unwrap().iter_mut().for_each(|v| *v = 0.4 * draws.normal() + 0.1);
        }
        Net { store, stem, norm, candidates, head: [weight, bias] }
    }

    fn read(&self, tape: &mut Tape, ids: &[ParamId]) -> Vec<Var> {
        ids.iter().map(|&id| self.store.read(tape, id, None).unwrap()).collect()
    }

    /// The loss of each group, and the moments of every norm it passed.
    fn forward(&self, tape: &mut Tape, rows: &[Row]) -> (Vec<Var>, Vec<Vec<Moments>>) {
        let mut moments = vec![Vec::new(); rows.len()];
        let mut ys: Vec<Var> = rows.iter().map(|r| tape.constant(r.images.clone())).collect();
        // Shared parameters are read once for all groups of a call.
        let stem = self.read(tape, &[self.stem, self.norm[0], self.norm[1]]);
        let mut call = |tape: &mut Tape, ys: &mut [Var], at: &[usize], groups: Vec<Group>| {
            for (&at, (y, found)) in at.iter().zip(tape.apply_groups(groups).unwrap()) {
                ys[at] = y;
                moments[at].extend(found);
            }
        };
        let all: Vec<usize> = (0..rows.len()).collect();
        let conv = ops::Conv2d { stride: [1; 2], padding: [1; 2], groups: 1 };
        let groups = ys.iter().map(|y| Group::new(conv, vec![y.clone(), stem[0].clone()])).collect();
        call(tape, &mut ys, &all, groups);
        let norm = ops::BatchNorm { eps: 1e-5, affine: true, frozen: false };
        let with = |y: &Var, rest: &[Var]| [std::slice::from_ref(y), rest].concat();
        let groups = ys.iter().map(|y| Group::new(norm, with(y, &stem[1..]))).collect();
        call(tape, &mut ys, &all, groups);

        // The slot: groups of different kernels and widths in one call, the identity moves nothing.
        let read: Vec<Vec<Var>> = self.candidates.iter().map(|(_, ids)| self.read(tape, ids)).collect();
        let active: Vec<usize> = all.iter().copied().filter(|&g| rows[g].candidate < read.len()).collect();
        let block = ops::InvertedResidual {
            stride: 1,
            expand: true,
            squeeze: None,
            acts: [Act::HSwish, Act::HSwish, Act::None],
            residual: true,
            affine: true,
            eps: 1e-5,
            statistics: Statistics::Batch,
        };
        let groups = active.iter().map(|&g| Group::new(block, with(&ys[g], &read[rows[g].candidate])));
        let groups = groups.collect();
        call(tape, &mut ys, &active, groups);

        let groups = ys.iter().map(|y| Group::new(ops::GlobalAvgPool, vec![y.clone()])).collect();
        call(tape, &mut ys, &all, groups);
        let window = Window::leading(&[CLASSES, WIDTH]);
        let weight = self.store.read(tape, self.head[0], Some(window)).unwrap();
        let bias = self.read(tape, &self.head[1..]).remove(0);
        let head = ops::Linear { bias: true };
        let groups = ys.iter().map(|y| Group::new(head, vec![y.clone(), weight.clone(), bias.clone()]));
        let groups = groups.collect();
        call(tape, &mut ys, &all, groups);
        let loss = ops::SoftmaxCrossEntropy { smoothing: 0.1 };
        let groups = ys.iter().zip(rows);
        let groups = groups
            .map(|(y, row)| Group::new(loss, vec![y.clone(), tape.constant(row.labels.clone())]))
            .collect();
        call(tape, &mut ys, &all, groups);
        (ys, moments)
    }

    /// One tape a chunk of `at_once` groups, gradients adding up in the store.
    fn step(&mut self, rows: &[Row], at_once: usize) -> Left {
        let mut left = Left { losses: vec![], moments: vec![], grads: vec![], touched: vec![] };
        let mut tape = Tape::new(self.store.device());
        for rows in rows.chunks(at_once) {
            let (losses, moments) = self.forward(&mut tape, rows);
            left.losses.extend(losses.iter().map(|l| l.tensor().f32().unwrap()[0].to_bits()));
            for m in moments.iter().flatten() {
                let values = m.mean.f32().unwrap().iter().chain(m.var.f32().unwrap());
                left.moments.push(values.map(|v| v.to_bits()).chain([m.count as u32]).collect());
            }
            let seeds: Vec<(&Var, f32)> = losses.iter().zip(rows).map(|(l, r)| (l, r.weight)).collect();
            tape.backward_groups(&seeds, &mut self.store).unwrap();
        }
        for id in self.store.ids() {
            left.grads.extend(self.store.grad(id).unwrap().iter().map(|g| g.to_bits()));
        }
        left.touched = self.store.touched();
        self.store.clear_touched().unwrap();
        left
    }
}

fn batch(cpu: &Cpu, n: usize) -> (Tensor, Vec<i32>) {
    let mut draws = Rng::new(8, "batch").at(0, 0, 0);
    let data: Vec<f32> = (0..n * 9 * 7 * 3).map(|_| draws.normal()).collect();
    let labels = (0..n).map(|_| draws.below(CLASSES as u32) as i32).collect();
    (Tensor::from_slice(cpu, [n, 9, 7, 3], &data).unwrap(), labels)
}

/// A row of the table over images `from..to` of a batch.
fn row(cpu: &Cpu, of: &(Tensor, Vec<i32>), [from, to]: [usize; 2], candidate: usize, weight: f32) -> Row {
    let labels = Tensor::from_slice(cpu, [to - from], &of.1[from..to]).unwrap();
    Row { images: of.0.rows(from, to).unwrap(), labels, candidate, weight }
}

/// Candidates of six groups: two identities, two groups that share one, one alone.
const CANDIDATES: [usize; 6] = [0, 9, 1, 0, 9, 0];

fn slices(cpu: &Cpu) -> Vec<Row> {
    let of = batch(cpu, 17);
    let cuts = [0, 3, 4, 9, 11, 15, 17];
    let row = |g: usize| {
        let weight = (cuts[g + 1] - cuts[g]) as f32 / 17.0;
        row(cpu, &of, [cuts[g], cuts[g + 1]], CANDIDATES[g], weight)
    };
    (0..6).map(row).collect()
}

fn shared(cpu: &Cpu) -> Vec<Row> {
    let of = batch(cpu, 6);
    CANDIDATES.iter().map(|&candidate| row(cpu, &of, [0, 6], candidate, 1.0)).collect()
}

#[test]
fn groups_equal_single_passes_bit_for_bit_on_any_number_of_threads() {
    for rows in [slices, shared] {
        let mut want: Option<Left> = None;
        for threads in 1..=4 {
            let cpu = Cpu::new(threads).unwrap();
            let (mut net, rows) = (Net::new(&cpu), rows(&cpu));
            for at_once in [1, 2, 4, 6] {
                let left = net.step(&rows, at_once);
                assert!(left.grads.iter().any(|&g| f32::from_bits(g) != 0.0));
                let want = want.get_or_insert_with(|| net.step(&rows, 1));
                assert_eq!(&left, want, "{threads} threads, {at_once} groups at once");
            }
        }
    }
}

#[test]
fn groups_of_one_candidate_have_statistics_of_their_own() {
    let cpu = Cpu::new(2).unwrap();
    let mut net = Net::new(&cpu);
    // Groups 0 and 3 run the same candidate: on other images they differ, on the same they agree.
    let found = |left: Left| {
        // The stem's norm and, unless it is an identity, the three of the block.
        let starts: Vec<usize> = CANDIDATES
            .iter()
            .scan(0, |at, &c| {
                let here = *at;
                *at += if c == 9 { 1 } else { 4 };
                Some(here)
            })
            .collect();
        [0, 3].map(|g| left.moments[starts[g]..starts[g] + 4].to_vec())
    };
    let [a, b] = found(net.step(&slices(&cpu), 6));
    assert!(a.iter().zip(&b).all(|(a, b)| a != b));
    let [a, b] = found(net.step(&shared(&cpu), 6));
    assert_eq!(a, b);
}

#[test]
fn a_parameter_that_several_groups_read_is_touched_once() {
    let cpu = Cpu::new(1).unwrap();
    let mut net = Net::new(&cpu);
    let left = net.step(&shared(&cpu), 6);
    let head = left.touched.iter().find(|(id, _)| *id == net.head[0]).unwrap();
    assert_eq!(head.1.iter().map(|r| r.len()).sum::<usize>(), CLASSES * WIDTH);
    assert_eq!(left.touched.len(), net.store.table().len());
}
