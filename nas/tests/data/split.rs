//! Held-out images and subsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use nas::data::config::Subset;
use nas::data::split::{hold_out, subset};
use nas::data::{Error, View};

use super::Fake;

fn set(view: &View) -> BTreeSet<u32> {
    view.indices.iter().copied().collect()
}

#[test]
fn every_class_gives_the_same_number() {
    let view = View::all(Fake::new(300, 3).share());
    let (train, val) = hold_out(&view, 7, 0).unwrap();
    assert_eq!((train.len(), val.len()), (279, 21));
    for class in 0..3 {
        assert_eq!(val.indices.iter().filter(|&&i| i % 3 == class).count(), 7);
    }
    assert!(set(&train).is_disjoint(&set(&val)));
    assert!(train.indices.is_sorted() && val.indices.is_sorted());
}

#[test]
fn a_split_depends_on_the_seed_and_on_nothing_else() {
    let view = View::all(Fake::new(300, 3).share());
    let held = |seed| set(&hold_out(&view, 20, seed).unwrap().1);
    assert_eq!(held(1), held(1));
    // Of 20 out of 100 per class, chance leaves about 12 in common.
    assert!(held(1).intersection(&held(2)).count() < 40);
    let order: Arc<[u32]> = view.indices.iter().rev().copied().collect();
    let reversed = View { indices: order, ..view.clone() };
    assert_eq!(set(&hold_out(&reversed, 20, 1).unwrap().1), held(1));
}

#[test]
fn new_images_hardly_move_a_split() {
    let before = hold_out(&View::all(Fake::new(300, 3).share()), 20, 0).unwrap().1;
    let after = hold_out(&View::all(Fake::new(303, 3).share()), 20, 0).unwrap().1;
    // One image more in each class can push out at most one each.
    assert!(set(&before).difference(&set(&after)).count() <= 3);
}

#[test]
fn nothing_is_held_out_when_nothing_is_asked() {
    let (train, val) = hold_out(&View::all(Fake::new(10, 2).share()), 0, 0).unwrap();
    assert_eq!((train.len(), val.len()), (10, 0));
}

#[test]
fn a_class_must_keep_an_image_to_train_on() {
    let view = View::all(Fake::new(10, 2).share());
    assert!(hold_out(&view, 4, 0).is_ok());
    match hold_out(&view, 5, 0) {
        Err(Error::ClassTooSmall { class, images: 5, wanted: 5, .. }) => assert_eq!(class, "class0"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn subsets_are_the_first_or_balanced() {
    let view = View::all(Fake::new(100, 4).share());
    let first = subset(view.clone(), Some(Subset::First(10)), 0).unwrap();
    assert_eq!(first.indices.to_vec(), (0..10).collect::<Vec<u32>>());
    let balanced = subset(view.clone(), Some(Subset::PerClass(5)), 0).unwrap();
    assert_eq!(balanced.len(), 20);
    for class in 0..4 {
        assert_eq!(balanced.indices.iter().filter(|&&i| i % 4 == class).count(), 5);
    }
    for wrong in [Subset::First(0), Subset::First(101), Subset::PerClass(0), Subset::PerClass(26)] {
        assert!(subset(view.clone(), Some(wrong), 0).is_err(), "{wrong:?}");
    }
}
