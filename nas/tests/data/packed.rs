//! Packed files: what comes out is what went in, or an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nas::data::folder::Folder;
use nas::data::packed::{Packed, Report, Store, pack};
use nas::data::{Dataset, Error, Image, PackedProblem, View};
use tempfile::TempDir;

use super::{Fake, fixture, flat_png};

/// Three pictures of two classes.
fn source() -> (TempDir, View) {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("images/cat/1.jpg", &fixture("baseline.jpg"));
    write("images/cat/2.png", &flat_png(3, 5, 7));
    write("images/d\u{f6}g/3.jpg", &fixture("gray.jpg"));
    let view = View::all(Arc::new(Folder::open(&folder.path().join("images")).unwrap()));
    (folder, view)
}

fn packed(view: &View, folder: &TempDir, store: Store) -> (PathBuf, Report) {
    let path = folder.path().join("set.pack");
    let report = pack(view, &path, store, false, &|_| {}).unwrap();
    (path, report)
}

fn assert_same(a: &dyn Dataset, b: &dyn Dataset) {
    assert_eq!((a.len(), a.classes()), (b.len(), b.classes()));
    let (mut x, mut y) = (Image::default(), Image::default());
    for i in 0..a.len() {
        assert_eq!((a.name(i), a.id(i), a.label(i)), (b.name(i), b.id(i), b.label(i)));
        a.read(i, &mut x).unwrap();
        b.read(i, &mut y).unwrap();
        assert_eq!(x, y);
    }
}

#[test]
fn a_packed_set_reads_as_its_source() {
    let (folder, view) = source();
    let mut digests = Vec::new();
    for store in [Store::Files, Store::Pixels] {
        let (path, report) = packed(&view, &folder, store);
        assert_eq!((report.records, report.bad.len()), (3, 0));
        assert_eq!(report.bytes, fs::metadata(&path).unwrap().len());
        let set = Packed::open(&path).unwrap();
        assert_same(&*view.dataset, &set);
        assert!(set.verify(&|_| {}).is_empty());
        digests.push(set.describe().digest);
        let leftovers = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(leftovers, 2, "only the images and the packed file are left");
    }
    assert_ne!(digests[0], digests[1]);
    // A packed set can be packed again, into the same file.
    let set: Arc<dyn Dataset> = Arc::new(Packed::open(&packed(&view, &folder, Store::Files).0).unwrap());
    let (again, _) = packed(&View::all(set.clone()), &folder, Store::Files);
    assert_same(&*set, &Packed::open(&again).unwrap());
}

#[test]
fn the_same_source_gives_the_same_bytes() {
    let (folder, view) = source();
    let once = fs::read(packed(&view, &folder, Store::Files).0).unwrap();
    assert_eq!(fs::read(packed(&view, &folder, Store::Files).0).unwrap(), once);
}

#[test]
fn a_part_of_a_set_keeps_its_classes() {
    let (folder, view) = source();
    let part = View { indices: [2].into(), ..view };
    let set = Packed::open(&packed(&part, &folder, Store::Pixels).0).unwrap();
    assert_eq!((set.len(), set.classes().len(), set.label(0)), (1, 2, 1));
}

#[test]
fn bad_records_end_the_packing_or_are_left_out() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("set.pack");
    let view = View::all(Fake::new(10, 2).with_bad(&[4]).share());
    assert!(matches!(pack(&view, &path, Store::Pixels, false, &|_| {}), Err(Error::Decode { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    let report = pack(&view, &path, Store::Pixels, true, &|_| {}).unwrap();
    assert_eq!((report.records, report.bad[0].0.as_str()), (9, "fake4"));
    assert_eq!(Packed::open(&path).unwrap().name(4), "fake5");
    let none = View::all(Fake::new(1, 1).with_bad(&[0]).share());
    let empty = folder.path().join("empty.pack");
    assert!(matches!(pack(&none, &empty, Store::Pixels, true, &|_| {}), Err(Error::NoImages { .. })));
    assert!(!empty.exists());
}

fn problem(path: &Path, bytes: &[u8]) -> Option<PackedProblem> {
    // A new file each time: one that is mapped must not change.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    match Packed::open(path) {
        Err(Error::Packed { problem, .. }) => Some(problem),
        Err(error) => panic!("{error:?}"),
        Ok(_) => None,
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (folder, view) = source();
    for store in [Store::Files, Store::Pixels] {
        let (path, _) = packed(&view, &folder, store);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(if store == Store::Pixels { 7 } else { 1 }) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            if problem(&path, &bytes).is_some() {
                continue;
            }
            let set = Packed::open(&path).unwrap();
            let damaged = set.verify(&|_| {});
            assert_eq!(damaged.len(), 1, "byte {at} of {}", whole.len());
            let read = set.read(damaged[0], &mut Image::default());
            assert!(matches!(read, Err(Error::Damaged { record, .. }) if record == damaged[0]));
        }
    }
}

#[test]
fn files_that_are_no_packed_sets_are_refused() {
    let (folder, view) = source();
    let (path, _) = packed(&view, &folder, Store::Files);
    let whole = fs::read(&path).unwrap();
    for length in (8..whole.len()).step_by(13) {
        assert_eq!(problem(&path, &whole[..length]), Some(PackedProblem::Size), "{length}");
    }
    let changed = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        bytes
    };
    assert_eq!(problem(&path, &changed(0, b'X')), Some(PackedProblem::Magic));
    assert_eq!(problem(&path, &changed(8, 2)), Some(PackedProblem::Version(2)));
    assert_eq!(problem(&path, &[&whole[..], &[0]].concat()), Some(PackedProblem::Size));
    assert_eq!(problem(&path, &changed(whole.len() - 1, b'x')), Some(PackedProblem::Index));
    assert_eq!(problem(&path, b""), Some(PackedProblem::Magic));
    assert!(matches!(Packed::open(&folder.path().join("none")), Err(Error::Io { .. })));
}
