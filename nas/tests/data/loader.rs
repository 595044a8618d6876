//! Batches do not depend on workers, prefetch or the moment of resuming.

use std::time::{Duration, Instant};

use engine::Rng;
use nas::data::config::{Crop, Erase, Jitter, Normalise, OnBad, Transform};
use nas::data::{Batch, Error, Loader, LoaderOptions, Pass, Pipeline, Result, View};

use super::{Fake, plain};

pub fn options(batch: usize, workers: usize) -> LoaderOptions {
    LoaderOptions { batch, workers, prefetch: 3, on_bad: OnBad::Error, max_bad: 0.001 }
}

/// Every kind of randomness at once.
pub fn wild(size: usize) -> Pipeline {
    let transform = Transform {
        crop: Crop::RandomResized { size, scale: [0.2, 1.0], ratio: [0.75, 1.33] },
        flip: 0.5,
        jitter: Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4 }),
        erase: Some(Erase::Cutout { size: 1 }),
    };
    Pipeline::new(&transform, &Normalise::MeanStd { mean: vec![0.3; 3], std: vec![0.2; 3] }).unwrap()
}

fn view(len: usize) -> View {
    View::all(Fake::new(len, 5).share())
}

/// The next `n` batches.
pub fn take(loader: &mut Loader, n: usize) -> Result<Vec<Batch>> {
    let mut batches = Vec::new();
    for _ in 0..n {
        let mut batch = Batch::default();
        if !loader.next(&mut batch)? {
            break;
        }
        batches.push(batch);
    }
    Ok(batches)
}

fn train(workers: usize, prefetch: usize, seed: u64) -> Loader {
    let options = LoaderOptions { prefetch, ..options(8, workers) };
    Loader::new(view(50), wild(5), Pass::Train, seed, options).unwrap()
}

#[test]
fn workers_and_prefetch_change_no_bit() {
    let reference = take(&mut train(1, 1, 3), 20).unwrap();
    assert_eq!(reference[0].shape, [8, 5, 5, 3]);
    for (workers, prefetch) in [(1, 4), (2, 1), (2, 3), (4, 2), (7, 5)] {
        assert_eq!(take(&mut train(workers, prefetch, 3), 20).unwrap(), reference, "{workers} {prefetch}");
    }
    assert_ne!(take(&mut train(1, 1, 4), 20).unwrap(), reference);
}

#[test]
fn an_epoch_holds_every_image_once_in_an_order_of_its_own() {
    let view = view(50);
    let mut loader = Loader::new(view, plain(4), Pass::Train, 1, options(10, 2)).unwrap();
    assert_eq!(loader.steps(), 5);
    let batches = take(&mut loader, 10).unwrap();
    let epoch = |e: usize| -> Vec<u32> {
        batches[5 * e..5 * e + 5].iter().flat_map(|b| b.indices.iter().copied()).collect()
    };
    // The order is the one that the generator defines, so a kernel or another tool can make it too.
    assert_eq!(epoch(0), Rng::new(1, "order").at(0, 0, 0).permutation(50));
    assert_eq!(epoch(1), Rng::new(1, "order").at(1, 0, 0).permutation(50));
    for batch in &batches {
        for (i, &index) in batch.indices.iter().enumerate() {
            assert_eq!(batch.labels[i], index % 5);
            assert_eq!(
                batch.images[16 * i..16 * i + 16],
                [index as f32; 16].map(|v| v / 255.0 / (1.0 / 255.0))
            );
        }
    }
    assert_eq!(batches.iter().map(|b| (b.epoch, b.step)).collect::<Vec<_>>()[4..6], [(0, 4), (1, 0)]);
}

#[test]
fn a_short_last_training_batch_is_dropped() {
    let mut loader = train(2, 2, 0);
    assert_eq!(loader.steps(), 6);
    let batches = take(&mut loader, 13).unwrap();
    assert!(batches.iter().all(|b| b.labels.len() == 8));
    assert_eq!((batches[12].epoch, batches[12].step), (2, 0));
}

#[test]
fn resuming_gives_the_same_batches() {
    let reference = take(&mut train(2, 3, 9), 20).unwrap();
    for start in [0, 1, 4, 5, 6, 11, 17] {
        let mut resumed = train(3, 2, 9);
        resumed.seek(start as u32 / 6, start as u32 % 6);
        assert_eq!(take(&mut resumed, 20 - start).unwrap(), reference[start..], "{start}");
    }
    // A step at the end of an epoch is the start of the next, and going back is going anywhere.
    let mut loader = train(2, 3, 9);
    take(&mut loader, 8).unwrap();
    loader.seek(0, 6);
    assert_eq!(take(&mut loader, 3).unwrap(), reference[6..9]);
    loader.seek(0, 2);
    assert_eq!(take(&mut loader, 3).unwrap(), reference[2..5]);
}

#[test]
fn an_image_is_augmented_anew_each_epoch_and_alike_in_each_run() {
    let mut loader = train(1, 1, 0);
    let batches = take(&mut loader, 12).unwrap();
    let of = |epoch: usize, index: u32| -> Option<&[f32]> {
        batches[6 * epoch..6 * epoch + 6].iter().find_map(|b| {
            let i = b.indices.iter().position(|&other| other == index)?;
            Some(&b.images[75 * i..75 * i + 75])
        })
    };
    let both: Vec<_> = (0..50).filter_map(|i| of(0, i).zip(of(1, i))).collect();
    assert!(both.len() > 40);
    assert!(both.iter().filter(|(a, b)| a == b).count() < 8, "jitter and cutout coincide rarely");
}

#[test]
fn evaluation_goes_once_through_the_view_in_order() {
    let mut loader = Loader::new(view(23), plain(4), Pass::Evaluate, 0, options(10, 3)).unwrap();
    for _ in 0..2 {
        let batches = take(&mut loader, 9).unwrap();
        assert_eq!(batches.iter().map(|b| b.shape[0]).collect::<Vec<_>>(), [10, 10, 3]);
        let indices: Vec<u32> = batches.iter().flat_map(|b| b.indices.iter().copied()).collect();
        assert_eq!(indices, (0..23).collect::<Vec<u32>>());
        assert_eq!(batches[2].images.len(), 3 * 16);
        assert!(!loader.next(&mut Batch::default()).unwrap(), "the end stays the end");
        loader.seek(0, 0);
    }
    assert_eq!((loader.stats().batches, loader.stats().images), (6, 46));
    let empty = View { indices: [].into(), ..view(3) };
    let mut nothing = Loader::new(empty, plain(4), Pass::Evaluate, 0, options(10, 1)).unwrap();
    assert!(!nothing.next(&mut Batch::default()).unwrap());
}

#[test]
fn memory_that_is_handed_back_is_used_again() {
    let mut loader = train(2, 2, 0);
    let mut batch = Batch::default();
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..200 {
        loader.next(&mut batch).unwrap();
        places.insert(batch.images.as_ptr());
    }
    // Two in the making, one with the caller, one on its way.
    assert!(places.len() <= 4, "{}", places.len());
}

/// Evaluates 40 images of which some are bad.
fn with_bad(
    bad: &[usize],
    on_bad: OnBad,
    max_bad: f64,
    workers: usize,
) -> (Vec<Batch>, Option<Error>, Loader) {
    let dataset = Fake::new(40, 5).with_bad(bad).share();
    let options = LoaderOptions { on_bad, max_bad, ..options(10, workers) };
    let mut loader = Loader::new(View::all(dataset), plain(4), Pass::Evaluate, 0, options).unwrap();
    let mut batches = Vec::new();
    loop {
        match take(&mut loader, 1) {
            Ok(mut more) if !more.is_empty() => batches.append(&mut more),
            Ok(_) => return (batches, None, loader),
            Err(error) => return (batches, Some(error), loader),
        }
    }
}

#[test]
fn a_bad_image_ends_the_run_at_its_batch() {
    for workers in [1, 4] {
        let (batches, error, _) = with_bad(&[27, 23], OnBad::Error, 1.0, workers);
        assert_eq!(batches.len(), 2);
        match error {
            Some(Error::Decode { record, .. }) => assert_eq!(record, "fake23", "the first one"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn skipped_images_leave_a_shorter_batch() {
    let bad = [0, 5, 9, 10, 11, 39];
    for workers in [1, 4] {
        let (batches, error, loader) = with_bad(&bad, OnBad::Skip, 0.15, workers);
        assert!(error.is_none(), "6 of 40 are 15 %");
        assert_eq!(batches.iter().map(|b| b.shape[0]).collect::<Vec<_>>(), [7, 8, 10, 9]);
        for batch in &batches {
            assert_eq!(batch.images.len(), 16 * batch.shape[0]);
            for (i, &index) in batch.indices.iter().enumerate() {
                assert!(!bad.contains(&(index as usize)));
                assert_eq!(batch.labels[i], index % 5);
                assert!((batch.images[16 * i + 15] - index as f32).abs() < 1e-3);
            }
        }
        assert_eq!(loader.stats().bad, bad.iter().map(|&i| i as u32).collect());
        assert_eq!(loader.stats().images, 34);
    }
}

#[test]
fn a_batch_of_bad_images_only_is_passed_over() {
    let bad: Vec<usize> = (10..20).collect();
    let (batches, error, _) = with_bad(&bad, OnBad::Skip, 0.5, 2);
    assert!(error.is_none());
    assert_eq!(batches.iter().map(|b| b.step).collect::<Vec<_>>(), [0, 2, 3]);
}

#[test]
fn too_many_bad_images_end_the_run() {
    for workers in [1, 3] {
        let (batches, error, _) = with_bad(&[3, 14, 15, 30], OnBad::Skip, 0.05, workers);
        assert_eq!(batches.len(), 1, "the third bad one is in the second batch");
        match error {
            Some(Error::TooManyBad { bad: 3, records: 40, limit: 2, last }) => {
                assert_eq!(last.to_string(), "image fake15: the file is empty");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_substitute_has_the_same_class_and_is_the_same_in_each_run() {
    let run = |workers| {
        let dataset = Fake::new(40, 5).with_bad(&[7, 12, 38]).share();
        let options = LoaderOptions { on_bad: OnBad::Substitute, max_bad: 0.1, ..options(10, workers) };
        let mut loader = Loader::new(View::all(dataset), wild(5), Pass::Train, 0, options).unwrap();
        let batches = take(&mut loader, 8).unwrap();
        (batches, loader.stats().bad.clone())
    };
    let (batches, bad) = run(1);
    assert_eq!(bad, [7, 12, 38].into());
    assert!(batches.iter().all(|b| b.shape[0] == 10));
    let mut counts = [0; 40];
    for batch in &batches[..4] {
        batch.indices.iter().for_each(|&i| counts[i as usize] += 1);
        assert!(batch.labels.iter().zip(&batch.indices).all(|(&label, &i)| label == i % 5));
    }
    // 7 and 12 are both replaced by 17, the next good one of their class; 38 by 3, from the start.
    assert_eq!((counts[7], counts[12], counts[38]), (0, 0, 0));
    assert_eq!((counts[17], counts[3]), (3, 2));
    assert_eq!(run(4), (batches, bad));
}

#[test]
fn evaluation_never_counts_an_image_twice() {
    let (batches, _, _) = with_bad(&[7], OnBad::Substitute, 0.1, 2);
    assert_eq!(batches.iter().map(|b| b.shape[0]).sum::<usize>(), 39);
}

#[test]
fn a_class_without_a_good_image_ends_the_run() {
    let bad: Vec<usize> = (0..8).map(|i| 5 * i + 2).collect();
    let dataset = Fake::new(40, 5).with_bad(&bad).share();
    let options = LoaderOptions { on_bad: OnBad::Substitute, max_bad: 1.0, ..options(10, 2) };
    let mut loader = Loader::new(View::all(dataset), plain(4), Pass::Train, 0, options).unwrap();
    match take(&mut loader, 4) {
        Err(Error::NoSubstitute { class }) => assert_eq!(class, "class2"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panicking_decoder_is_an_error_of_its_record() {
    let fake = Fake { panics: Some(13), ..Fake::new(40, 5) };
    let mut loader =
        Loader::new(View::all(fake.share()), plain(4), Pass::Evaluate, 0, options(10, 2)).unwrap();
    assert_eq!(take(&mut loader, 1).unwrap().len(), 1);
    match take(&mut loader, 1) {
        Err(Error::Panicked { record }) => assert_eq!(record, "fake13"),
        other => panic!("{other:?}"),
    }
    assert_eq!(take(&mut loader, 9).unwrap().len(), 2, "the workers live on");
}

#[test]
fn dropping_a_loader_stops_its_threads() {
    let start = Instant::now();
    for i in 0..50 {
        let mut loader = train(4, 4, i);
        if i % 2 == 0 {
            take(&mut loader, 3).unwrap();
        }
    }
    // Joining is part of the drop: a thread that did not stop would hang the test here.
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn waiting_is_measured() {
    let mut loader = train(1, 1, 0);
    let start = Instant::now();
    take(&mut loader, 50).unwrap();
    let wait = loader.stats().wait;
    assert!(wait > Duration::ZERO && wait <= start.elapsed());
}

#[test]
fn options_out_of_range_are_named() {
    let new = |options| Loader::new(view(10), plain(4), Pass::Train, 0, options).err();
    let good = options(10, 1);
    for (key, wrong) in [
        ("batch", LoaderOptions { batch: 0, ..good }),
        ("workers", LoaderOptions { workers: 0, ..good }),
        ("prefetch", LoaderOptions { prefetch: 0, ..good }),
        ("max-bad", LoaderOptions { max_bad: 1.5, ..good }),
        ("max-bad", LoaderOptions { max_bad: f64::NAN, ..good }),
    ] {
        match new(wrong) {
            Some(Error::Config { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{key}: {other:?}"),
        }
    }
    let large = new(LoaderOptions { batch: 11, ..good });
    assert!(matches!(large, Some(Error::BatchTooLarge { batch: 11, images: 10 })));
}
