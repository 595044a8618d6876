//! Memory, copies, the optimiser, and what is refused.

use engine::cuda::Unusable;
use engine::optim::{Sgd, SgdConfig, WeightDecay};
use engine::{
    Array, Cpu, Cuda, DType, Device, Error, Feed, Late, Layout, ParamKind, ParamStore, Place, Tape, Tensor,
    ops,
};

fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut draws = engine::Rng::new(seed, "device tests").at(0, 0, 0);
    (0..len).map(|_| draws.normal()).collect()
}

#[test]
fn without_a_driver_the_error_says_what_to_do() {
    // The parent of this suite runs without the virtual GPU; a machine with a driver has nothing to show here.
    match Device::parse("cuda:0", 1, usize::MAX) {
        Err(error @ Error::Unusable { reason: Unusable::NoDriver, .. }) => {
            let text = error.to_string();
            assert!(
                text.contains("cuda:0") && text.contains("install") && text.contains("--device cpu"),
                "{text}"
            );
        }
        other => println!("skipped: this machine has a driver: {other:?}"),
    }
}

#[test]
fn names_of_devices_are_strict() {
    assert!(matches!(Device::parse("cpu", 1, usize::MAX), Ok(Device::Cpu(_))));
    for name in ["gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:01", "CPU", ""] {
        let error = Device::parse(name, 1, usize::MAX).unwrap_err();
        assert!(matches!(error, Error::Setting { name: "device", .. }), "{name}: {error}");
    }
}

on_gpu!(a_device_that_is_not_there_is_refused, |_| {
    let error = Device::parse("cuda:7", 1, usize::MAX).unwrap_err();
    assert!(matches!(error, Error::Unusable { reason: Unusable::NoSuchDevice { count: 1 }, .. }), "{error}");
});

on_gpu!(tensors_go_there_and_come_back, |cuda| {
    let (values, labels) = (noise(1000, 1), [3, -1, i32::MAX]);
    let x = Tensor::from_slice(cuda, [10, 100], &values).unwrap();
    assert_eq!(x.to_host::<f32>().unwrap(), values);
    assert_eq!(x.rows(2, 3).unwrap().to_host::<f32>().unwrap(), values[200..300]);
    assert_eq!(Tensor::from_slice(cuda, [3], &labels).unwrap().to_host::<i32>().unwrap(), labels);
    assert_eq!(Tensor::zeros(cuda, [7]).unwrap().to_host::<f32>().unwrap(), [0.0; 7]);
    assert!(matches!(x.f32(), Err(Error::NotOnHost { .. })));
    assert!(matches!(x.to_host::<i32>(), Err(Error::DType { .. })));
    let mut x = x;
    let view = x.clone();
    assert!(matches!(x.write(&values), Err(Error::InUse { .. })));
    drop(view);
    x.write(&noise(1000, 2)).unwrap();
    assert_eq!(x.to_host::<f32>().unwrap(), noise(1000, 2));
});

on_gpu!(memory_is_used_again_and_the_cap_is_kept, |_| {
    let cuda = Cuda::new(0, 1 << 20).unwrap();
    let shape = [1 << 16];
    let first = Tensor::stale(&cuda, shape, DType::F32).unwrap();
    drop(first);
    let reserved = cuda.arena().stats().reserved;
    for _ in 0..10 {
        let _pair = [(); 2].map(|()| Tensor::stale(&cuda, shape, DType::F32).unwrap());
    }
    let stats = cuda.arena().stats();
    assert_eq!((stats.reserved, stats.used, stats.system_calls), (reserved, 0, 1));
    let _held = Tensor::stale(&cuda, shape, DType::F32).unwrap();
    let error = Tensor::stale(&cuda, [1 << 18], DType::F32).unwrap_err();
    assert_eq!(error, Error::OutOfMemory { requested: 1 << 20, used: 1 << 18, cap: 1 << 20 });
});

/// Two parameters, of which the path reads one: three steps, and what they leave.
fn steps(place: &impl Place, nesterov: bool) -> [Vec<f32>; 2] {
    let mut layout = Layout::new();
    let w = layout.add("w", [3, 3, 20], ParamKind::Weight).unwrap();
    let idle = layout.add("idle", [33], ParamKind::Weight).unwrap();
    let mut store = layout.build(place).unwrap();
    store.set(w, &noise(180, 1)).unwrap();
    store.set(idle, &noise(33, 2)).unwrap();
    let config = SgdConfig { momentum: 0.9, nesterov, decay: 0.01, decays: WeightDecay::Weights };
    let mut sgd = Sgd::new(&store, config).unwrap();
    let x = Tensor::from_slice(place, [2, 6, 5, 20], &noise(1200, 3)).unwrap();
    let seed = Tensor::from_slice(place, [2, 6, 5, 20], &noise(1200, 4)).unwrap();
    let mut tape = Tape::new(place);
    for lr in [0.1, 0.05, 0.02] {
        let (input, weight) = (tape.constant(x.clone()), store.read(&mut tape, w, None).unwrap());
        let op = ops::DepthwiseConv2d { stride: 1, dilation: 1 };
        let y = tape.apply(op, &[&input, &weight]).unwrap();
        drop(weight);
        tape.backward_from(&y, seed.clone(), &mut store).unwrap();
        let norm = store.grad_norm().unwrap();
        store.clip_grad_norm(3.0).unwrap();
        assert!(norm > 3.0 && (store.grad_norm().unwrap() - 3.0).abs() < 1e-4);
        store.clip_grad_value(0.2).unwrap();
        assert_eq!(store.grads().unwrap().iter().fold(0f32, |most, g| most.max(g.abs())), 0.2);
        sgd.step(&mut store, lr).unwrap();
        assert!(store.grads().unwrap().iter().all(|&g| g == 0.0));
    }
    assert_eq!(*store.value(idle).unwrap(), noise(33, 2));
    [store.values().unwrap().into_owned(), sgd.momenta().unwrap().into_owned()]
}

on_gpu!(the_optimiser_steps_as_on_the_cpu, |cuda| {
    for nesterov in [false, true] {
        let (want, got) = (steps(&Cpu::new(1).unwrap(), nesterov), steps(cuda, nesterov));
        for (want, got) in want.iter().flatten().zip(got.iter().flatten()) {
            assert!((want - got).abs() < 1e-4 * (1.0 + want.abs()), "{got} for {want}");
        }
    }
});

on_gpu!(a_step_that_comes_again_allocates_and_prepares_nothing, |cuda| {
    steps(cuda, false);
    let (memory, work) = (cuda.arena().stats(), cuda.work());
    steps(cuda, false);
    let (later, more) = (cuda.arena().stats(), cuda.work());
    assert_eq!((later.reserved, later.system_calls), (memory.reserved, memory.system_calls));
    assert_eq!(more.prepared, work.prepared);
    // A step: the convolution forward and backward, the filter's sum, two launches for a norm that is
    // asked for, three for clipping by norm, two for the norm, one for clipping by value, the update.
    assert_eq!(more.launches - work.launches, 3 * 12);
});

/// A window of a parameter, read and its gradient added twice.
fn windowed(place: &impl Place) -> [Vec<f32>; 2] {
    let mut layout = Layout::new();
    let w = layout.add("w", [5, 5, 12], ParamKind::Weight).unwrap();
    let mut store = layout.build(place).unwrap();
    store.set(w, &noise(300, 1)).unwrap();
    let window = engine::Window { start: [1, 1, 0, 0], len: [3, 3, 7, 1] };
    let mut tape = Tape::new(place);
    let x = Tensor::from_slice(place, [1, 4, 4, 7], &noise(112, 2)).unwrap();
    let input = tape.constant(x.clone());
    let weight = store.read(&mut tape, w, Some(window)).unwrap();
    let gathered = weight.tensor().to_host().unwrap();
    for _ in 0..2 {
        let weight = store.read(&mut tape, w, Some(window)).unwrap();
        let op = ops::DepthwiseConv2d { stride: 1, dilation: 1 };
        let y = tape.apply(op, &[&input, &weight]).unwrap();
        tape.backward_from(&y, x.clone(), &mut store).unwrap();
    }
    [gathered, store.grads().unwrap().into_owned()]
}

on_gpu!(windows_of_parameters_are_gathered_and_their_gradients_land_in_the_parent, |cuda| {
    let (want, got) = (windowed(&Cpu::new(1).unwrap()), windowed(cuda));
    assert_eq!(got[0], want[0]);
    for (want, got) in want[1].iter().zip(&got[1]) {
        assert!((want - got).abs() < 1e-4 * (1.0 + want.abs()), "{got} for {want}");
    }
});

/// A step with a gradient or another value that is not finite, one behind it, and one after it was forgiven.
fn spoilt(place: &impl Place, bad: [f32; 2]) -> Vec<Vec<f32>> {
    let mut layout = Layout::new();
    let w = layout.add("w", [3, 3, 20], ParamKind::Weight).unwrap();
    let mut store = layout.build(place).unwrap();
    store.set(w, &noise(180, 1)).unwrap();
    let config = SgdConfig { momentum: 0.9, nesterov: false, decay: 0.01, decays: WeightDecay::Weights };
    let mut sgd = Sgd::new(&store, config).unwrap();
    let x = Tensor::from_slice(place, [2, 6, 5, 20], &noise(1200, 3)).unwrap();
    let mut tape = Tape::new(place);
    let mut step = |store: &mut ParamStore, seed: f32, other: f32| {
        let (input, weight) = (tape.constant(x.clone()), store.read(&mut tape, w, None).unwrap());
        let op = ops::DepthwiseConv2d { stride: 1, dilation: 1 };
        let y = tape.apply(op, &[&input, &weight]).unwrap();
        drop(weight);
        tape.backward_from(&y, Tensor::full(place, y.shape(), seed).unwrap(), store).unwrap();
        store.check_finite(&Tensor::full(place, [3], other).unwrap()).unwrap();
        store.clip_grad_norm(f32::INFINITY).unwrap();
        sgd.step(store, 0.1).unwrap();
        let late = store.spoilt().late::<i32>().unwrap();
        let values = [store.values().unwrap().into_owned(), sgd.momenta().unwrap().into_owned()].concat();
        assert!(store.grads().unwrap().iter().all(|&g| g == 0.0));
        (late.wait().unwrap(), values)
    };
    let mut seen = Vec::new();
    for (seed, other) in [(1.0, 1.0), (bad[0], bad[1]), (1.0, 1.0)] {
        let (flag, values) = step(&mut store, seed, other);
        assert_eq!(flag, [i32::from(!seen.is_empty())]);
        seen.push(values);
    }
    assert_eq!(seen[1], seen[0]);
    assert_eq!(seen[2], seen[0]);
    store.forgive().unwrap();
    seen.push(step(&mut store, 1.0, 1.0).1);
    assert_ne!(seen[3], seen[0]);
    seen
}

on_gpu!(what_is_not_finite_moves_nothing_until_it_is_forgiven, |cuda| {
    for bad in [[f32::NAN, 1.0], [f32::INFINITY, 1.0], [1.0, f32::NAN], [1.0, f32::NEG_INFINITY]] {
        let (want, got) = (spoilt(&Cpu::new(1).unwrap(), bad), spoilt(cuda, bad));
        for (want, got) in want.iter().flatten().zip(got.iter().flatten()) {
            assert!((want - got).abs() < 1e-4 * (1.0 + want.abs()), "{got} for {want}");
        }
    }
});

on_gpu!(a_late_copy_is_of_the_moment_it_was_asked_for, |cuda| {
    let mut x = Tensor::from_slice(cuda, [1000], &noise(1000, 1)).unwrap();
    let before = cuda.work();
    let late: Vec<_> = (1..20)
        .map(|seed| {
            let late = x.late::<f32>().unwrap();
            x.write(&noise(1000, seed + 1)).unwrap();
            late
        })
        .collect();
    assert_eq!(cuda.work().synchronisations, before.synchronisations);
    for (seed, late) in (1..).zip(late) {
        assert_eq!(late.wait().unwrap(), noise(1000, seed));
    }
    assert_eq!(cuda.work().synchronisations, before.synchronisations);
});

/// A batch of `n` images and labels, fed and read by a convolution: what it gives, with the labels that came back.
fn fed(feed: &mut Feed, place: &impl Place, n: usize, seed: u64) -> (Late<f32>, Late<i32>) {
    let (pixels, filter) = (noise(n * 75, seed), noise(27, 1));
    let labels: Vec<i32> = (0..n as i32).map(|i| i * seed as i32).collect();
    let sent =
        feed.send(&[Array::F32([n, 5, 5, 3].into(), &pixels), Array::I32([n].into(), &labels)]).unwrap();
    let mut tape = Tape::inference(place);
    let x = tape.constant(sent[0].clone());
    let w = tape.constant(Tensor::from_slice(place, [3, 3, 3], &filter).unwrap());
    let y = tape.apply(ops::DepthwiseConv2d { stride: 1, dilation: 1 }, &[&x, &w]).unwrap();
    (y.tensor().late().unwrap(), sent[1].late().unwrap())
}

on_gpu!(batches_arrive_whole_while_others_are_worked_on, |cuda| {
    let cpu = Cpu::new(1).unwrap();
    let mut feeds = (Feed::new(cuda).unwrap(), Feed::new(&cpu).unwrap());
    // The third is larger than what there is, the others are not.
    let sizes = [3, 3, 7, 5, 7, 1, 7, 7];
    let mut sent = Vec::new();
    let mut reserved = 0;
    for (n, seed) in sizes.into_iter().zip(1..) {
        if seed == 6 {
            reserved = cuda.arena().stats().reserved;
        }
        sent.push((fed(&mut feeds.0, cuda, n, seed), fed(&mut feeds.1, &cpu, n, seed)));
    }
    assert_eq!(cuda.arena().stats().reserved, reserved);
    assert_eq!(cuda.work().synchronisations, 0);
    for ((y, labels), (want, right)) in sent {
        assert_eq!(labels.wait().unwrap(), right.wait().unwrap());
        for (y, want) in y.wait().unwrap().iter().zip(want.wait().unwrap()) {
            assert!((y - want).abs() < 1e-4 * (1.0 + want.abs()), "{y} for {want}");
        }
    }
});

on_gpu!(a_batch_that_somebody_holds_is_not_written_over, |cuda| {
    let mut feed = Feed::new(cuda).unwrap();
    let array = [Array::F32([3].into(), &[1.0, 2.0, 3.0])];
    let held = feed.send(&array).unwrap();
    assert!(matches!(feed.send(&array), Err(Error::InUse { .. })));
    drop(held);
    assert_eq!(feed.send(&array).unwrap()[0].to_host::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    let short = feed.send(&[Array::I32([3].into(), &[1, 2])]);
    assert!(matches!(short, Err(Error::Elements { expected: 3, found: 2, .. })));
});

on_gpu!(a_running_average_moves_as_on_the_cpu, |cuda| {
    let places: [&Device; 2] = [&Cpu::new(1).unwrap().device(), &cuda.device()];
    let [want, got] = places.map(|place| {
        let mut x = Tensor::from_slice(place, [1000], &noise(1000, 1)).unwrap();
        let to = Tensor::from_slice(place, [1000], &noise(1000, 2)).unwrap();
        x.approach(&to, 1.5, 0.1).unwrap();
        assert!(matches!(x.approach(&to.view(0, [2]).unwrap(), 1.0, 0.1), Err(Error::Elements { .. })));
        x.to_host::<f32>().unwrap()
    });
    for (want, got) in want.iter().zip(&got) {
        assert!((want - got).abs() < 1e-6 * (1.0 + want.abs()), "{got} for {want}");
    }
});
