//! What a training step asks memory for once the largest path was seen: nothing of the arena, and the
//! same small number of heap calls for the same path.
//!
//! A test binary of its own, since it counts what its allocator is asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use engine::optim::{Sgd, SgdConfig, WeightDecay};
use engine::{Cpu, Rng, Tape, Tensor, ops};
use nas::model::{Context, Model, NormParams, Norms};
use nas::{Arch, Space};

/// Counts calls.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BATCH: usize = 4;

#[test]
fn a_step_on_a_fresh_path_takes_no_memory_once_the_largest_was_seen() {
    let cpu = Cpu::new(1).unwrap();
    let space = Space::load("mobilenet-se-cifar").unwrap();
    let model = Model::new(&space, NormParams::Affine).unwrap();
    let mut store = model.init(&cpu, &Rng::new(0, "init")).unwrap();
    let config = SgdConfig { momentum: 0.9, nesterov: false, decay: 4e-5, decays: WeightDecay::All };
    let mut sgd = Sgd::new(&store, config).unwrap();
    let (size, channels) = (space.input().size, space.input().channels);
    let mut draws = Rng::new(0, "images").at(0, 0, 0);
    let pixels: Vec<f32> = (0..BATCH * size * size * channels).map(|_| draws.normal()).collect();
    let labels: Vec<i32> = (0..BATCH).map(|_| draws.below(space.classes() as u32) as i32).collect();
    let images = Tensor::from_slice(&cpu, [BATCH, size, size, channels], &pixels).unwrap();
    let labels = Tensor::from_slice(&cpu, [BATCH], &labels).unwrap();
    let mut tape = Tape::new(&cpu);

    // Heap calls of a step.
    let mut step = |arch: &Arch| {
        let before = CALLS.load(Ordering::Relaxed);
        let (x, y) = (tape.constant(images.clone()), tape.constant(labels.clone()));
        let mut moments = Vec::new();
        let norms = Norms::Batch(&mut moments);
        let mut cx = Context { tape: &mut tape, store: &store, norms, dropout: None };
        let logits = model.forward(&mut cx, arch, &x).unwrap();
        let loss = tape.apply(ops::SoftmaxCrossEntropy { smoothing: 0.1 }, &[&logits, &y]).unwrap();
        drop((logits, moments));
        tape.backward(&loss, 1.0, &mut store).unwrap();
        drop(loss);
        sgd.step(&mut store, 0.05).unwrap();
        CALLS.load(Ordering::Relaxed) - before
    };

    for arch in [space.largest(), space.smallest(), space.largest()] {
        step(&arch);
    }
    let reserved = cpu.arena().stats().reserved;
    let mut draws = Rng::new(1, "paths").at(0, 0, 0);
    for _ in 0..3 {
        let arch = space.sample(&mut draws);
        let calls = [step(&arch), step(&arch)];
        println!("{} heap calls a step", calls[0]);
        assert_eq!(calls[0], calls[1], "the same path, other heap calls");
        assert_eq!(cpu.arena().stats().reserved, reserved, "a step took memory");
    }
}
