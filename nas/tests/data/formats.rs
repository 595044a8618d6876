//! What each format reads and refuses.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nas::data::cifar::Cifar;
use nas::data::config::CifarPart;
use nas::data::folder::Folder;
use nas::data::idx::Idx;
use nas::data::tar::Tar;
use nas::data::{Dataset, Error, Image, Result, TarProblem};
use tempfile::TempDir;

use super::{fixture, flat_png, gzip, idx_file, tar_file};

fn read(dataset: &dyn Dataset, i: usize) -> Result<Image> {
    let mut image = Image::default();
    dataset.read(i, &mut image).map(|()| image)
}

/// Two 2 x 3 images and their labels, the files changed by `change` before they are written.
fn idx(change: impl Fn(&mut Vec<u8>, &mut Vec<u8>)) -> Result<Idx> {
    let folder = TempDir::new().unwrap();
    let mut images = idx_file(0x803, &[2, 2, 3], &(0..12).collect::<Vec<u8>>());
    let mut labels = idx_file(0x801, &[2], &[1, 0]);
    change(&mut images, &mut labels);
    let (a, b) = (folder.path().join("images"), folder.path().join("labels"));
    fs::write(&a, images).unwrap();
    fs::write(&b, labels).unwrap();
    Idx::open(&a, &b, &[])
}

#[test]
fn idx_files_are_read_plain_and_gzipped() {
    let plain = idx(|_, _| {}).unwrap();
    let zipped = idx(|images, labels| (*images, *labels) = (gzip(images), gzip(labels))).unwrap();
    for set in [&plain, &zipped] {
        assert_eq!((set.len(), set.classes()), (2, &["0".to_string(), "1".into()][..]));
        assert_eq!([set.label(0), set.label(1)], [1, 0]);
        let image = read(set, 1).unwrap();
        assert_eq!((image.height, image.width, image.channels), (2, 3, 1));
        assert_eq!(image.pixels, [6, 7, 8, 9, 10, 11]);
    }
    assert_eq!(plain.describe().digest, zipped.describe().digest);
    assert_ne!(plain.describe().digest, idx(|_, labels| labels[8] = 0).unwrap().describe().digest);
}

#[test]
fn idx_files_may_hold_colour() {
    let set =
        idx(|images, _| *images = idx_file(0x804, &[2, 1, 2, 3], &(0..12).collect::<Vec<u8>>())).unwrap();
    let image = read(&set, 1).unwrap();
    assert_eq!((image.height, image.width, image.channels), (1, 2, 3));
    assert_eq!(image.pixels, [6, 7, 8, 9, 10, 11]);
}

#[test]
fn idx_headers_and_lengths_must_agree() {
    type Change = fn(&mut Vec<u8>, &mut Vec<u8>);
    type Check = fn(&Error) -> bool;
    let cases: [(Change, Check); 12] = [
        (|i, _| i[3] = 1, |e| matches!(e, Error::IdxMagic { found: 0x801, .. })),
        (|_, l| l[2] = 9, |e| matches!(e, Error::IdxMagic { found: 0x901, .. })),
        (
            |i, _| i.truncate(20),
            |e| matches!(e, Error::ClaimedSize { claimed: 12, .. } | Error::Truncated { .. }),
        ),
        (|i, _| i.truncate(9), |e| matches!(e, Error::Truncated { expected: 12, found: 8, .. })),
        (|i, _| i.clear(), |e| matches!(e, Error::Truncated { expected: 4, .. })),
        (|i, _| i.push(0), |e| matches!(e, Error::Overlong { expected: 12, .. })),
        (|i, _| *i = gzip(&i[..20]), |e| matches!(e, Error::Truncated { expected: 12, found: 4, .. })),
        (
            |i, _| {
                i.push(0);
                *i = gzip(i)
            },
            |e| matches!(e, Error::Overlong { .. }),
        ),
        (
            |i, _| {
                *i = gzip(i);
                i.truncate(25)
            },
            |e| matches!(e, Error::Io { .. }),
        ),
        (|i, _| i[4..8].fill(0xFF), |e| matches!(e, Error::ClaimedSize { .. })),
        (
            |i, _| {
                i[4..16].fill(0xFF);
                *i = gzip(i)
            },
            |e| matches!(e, Error::ClaimedSize { .. }),
        ),
        (
            |_, l| *l = idx_file(0x801, &[3], &[0; 3]),
            |e| matches!(e, Error::Counts { images: 2, labels: 3, .. }),
        ),
    ];
    for (case, (change, expected)) in cases.iter().enumerate() {
        match idx(change) {
            Err(error) => assert!(expected(&error), "case {case}: {error:?}"),
            Ok(_) => panic!("case {case} was accepted"),
        }
    }
    let empty = idx(|i, l| (*i, *l) = (idx_file(0x803, &[0, 2, 3], &[]), idx_file(0x801, &[0], &[])));
    assert!(matches!(empty, Err(Error::NoImages { .. })));
    let flat = idx(|i, _| *i = idx_file(0x803, &[2, 0, 3], &[]));
    assert!(matches!(flat, Err(Error::Shape { shape: [0, 3, 1], .. })));
}

#[test]
fn a_label_without_a_class_is_named() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("i"), idx_file(0x803, &[2, 1, 1], &[0, 0])).unwrap();
    fs::write(path("l"), idx_file(0x801, &[2], &[0, 7])).unwrap();
    let names = ["cat".to_string(), "dog".into()];
    match Idx::open(&path("i"), &path("l"), &names) {
        Err(Error::Label { record: 1, label: 7, classes: 2, .. }) => {}
        other => panic!("{:?}", other.map(|_| ())),
    }
}

/// `dog/a.png` (1), `cat/b.png` (2), `cat/deep/c.JPEG`, and things that are no images.
fn pets() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    for below in ["dog", "cat/deep", ".hidden"] {
        fs::create_dir_all(root.join(below)).unwrap();
    }
    fs::write(root.join("dog/a.png"), flat_png(2, 2, 1)).unwrap();
    fs::write(root.join("cat/b.png"), flat_png(2, 2, 2)).unwrap();
    fs::write(root.join("cat/deep/c.JPEG"), fixture("baseline.jpg")).unwrap();
    fs::write(root.join("cat/.d.png"), flat_png(2, 2, 3)).unwrap();
    fs::write(root.join("cat/notes.txt"), "text").unwrap();
    fs::write(root.join("stray.png"), flat_png(2, 2, 4)).unwrap();
    folder
}

#[test]
fn folders_are_classes_in_order_of_name() {
    let pets = pets();
    let set = Folder::open(pets.path()).unwrap();
    assert_eq!(set.classes(), ["cat", "dog"]);
    let names: Vec<String> = (0..set.len()).map(|i| set.name(i)).collect();
    assert_eq!(names, ["cat/b.png", "cat/deep/c.JPEG", "dog/a.png"]);
    assert_eq!([set.label(0), set.label(1), set.label(2)], [0, 0, 1]);
    assert_eq!(read(&set, 2).unwrap().pixels, [1; 4]);
    let before = (set.id(0), set.describe().digest);
    fs::write(pets.path().join("cat/a.png"), flat_png(2, 2, 9)).unwrap();
    let grown = Folder::open(pets.path()).unwrap();
    assert_eq!(grown.id(1), before.0, "an id belongs to the name");
    assert_ne!(grown.describe().digest, before.1);
}

#[test]
fn links_in_a_circle_are_refused_and_others_followed() {
    let pets = pets();
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("x.png"), flat_png(1, 1, 5)).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), pets.path().join("cat/more")).unwrap();
    assert_eq!(Folder::open(pets.path()).unwrap().len(), 4);
    std::os::unix::fs::symlink(pets.path(), pets.path().join("cat/deep/up")).unwrap();
    match Folder::open(pets.path()) {
        Err(Error::SymlinkLoop { path }) => assert!(path.ends_with("cat/deep/up"), "{path:?}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn a_link_to_nowhere_is_a_bad_record() {
    let pets = pets();
    std::os::unix::fs::symlink("/nonexistent/z.png", pets.path().join("dog/z.png")).unwrap();
    let set = Folder::open(pets.path()).unwrap();
    assert_eq!(set.len(), 4);
    assert!(matches!(read(&set, 3), Err(Error::Io { doing: "read", .. })));
}

#[test]
fn names_need_not_be_utf8() {
    let pets = pets();
    for (class, file) in [(&b"caf\xe9"[..], &b"\xff\xfe.png"[..]), (b"caf\xea", b"\xff\xfe.png")] {
        let folder = pets.path().join(std::ffi::OsStr::from_bytes(class));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(std::ffi::OsStr::from_bytes(file)), flat_png(1, 1, class[3])).unwrap();
    }
    let set = Folder::open(pets.path()).unwrap();
    assert_eq!(set.classes(), ["caf\\xe9", "caf\\xea", "cat", "dog"]);
    assert_eq!(set.name(1), "caf\\xea/\\xff\\xfe.png");
    assert_eq!(read(&set, 1).unwrap().pixels, [0xea]);
    assert_ne!(set.id(0), set.id(1));
}

#[test]
fn a_folder_without_images_is_refused() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(Folder::open(folder.path()), Err(Error::NoImages { .. })));
    assert!(matches!(Folder::open(&folder.path().join("none")), Err(Error::Io { .. })));
}

fn open_tar(name: &str, bytes: &[u8]) -> Result<Tar> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    Tar::open(&path, &[], 64)
}

#[test]
fn tar_members_are_classed_by_folder() {
    let (one, two) = (flat_png(2, 2, 1), flat_png(2, 2, 2));
    let bytes = tar_file(&[
        ("train/dog/1.png", &one),
        ("train/cat/2.jpg", &two),
        ("train/cat/.hidden.png", &two),
        ("train/readme.txt", b"no image"),
    ]);
    for set in [open_tar("a.tar", &bytes).unwrap(), open_tar("a.tar.gz", &gzip(&bytes)).unwrap()] {
        assert_eq!(set.classes(), ["cat", "dog"]);
        assert_eq!([set.label(0), set.label(1)], [1, 0]);
        assert_eq!(read(&set, 0).unwrap().pixels, [1; 4]);
        assert_eq!(read(&set, 1).unwrap().pixels, [2; 4], "a PNG by content, whatever its name");
        assert!(set.name(1).ends_with(":train/cat/2.jpg"), "{}", set.name(1));
    }
}

#[test]
fn tar_members_are_classed_by_cls_files() {
    let image = flat_png(1, 1, 1);
    let long = format!("{}/x", "deep/".repeat(40));
    let long_names = [format!("{long}.seg.png"), format!("{long}.cls")];
    let bytes = tar_file(&[
        ("000.cls", b"2\n"),
        ("000.json", b"{}"),
        ("000.png", &image),
        ("sub.v1/001.jpg", &image),
        ("sub.v1/001.cls", b" 0 "),
        (&long_names[0], &image),
        (&long_names[1], b"1"),
    ]);
    let set = open_tar("a.tar", &bytes).unwrap();
    assert_eq!(set.classes(), ["0", "1", "2"]);
    assert_eq!([set.label(0), set.label(1), set.label(2)], [2, 0, 1]);
}

#[test]
fn shards_of_a_folder_are_read_in_order_of_name() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("s-1.tar", &tar_file(&[("b/1.png", &flat_png(1, 1, 11))]));
    write("s-0.tgz", &gzip(&tar_file(&[("a/0.png", &flat_png(1, 1, 10))])));
    write("notes.txt", b"text");
    let set = Tar::open(folder.path(), &[], 64).unwrap();
    assert_eq!(set.len(), 2);
    assert_eq!((read(&set, 0).unwrap().pixels[0], read(&set, 1).unwrap().pixels[0]), (10, 11));
    assert_eq!((set.label(0), set.label(1)), (0, 1));
}

#[test]
fn unusable_tar_members_are_named() {
    let image = flat_png(1, 1, 1);
    let problem = |bytes: &[u8]| match open_tar("a.tar", bytes) {
        Err(Error::TarMember { problem, .. }) => Some(problem),
        _ => None,
    };
    type Members<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(Members, TarProblem); 5] = [
        (&[("a/1.png", &image), ("a/1.png", &image)], TarProblem::Duplicate),
        (&[("1.cls", b"1"), ("1.png", &image), ("2.png", &image)], TarProblem::NoClassMember),
        (&[("1.cls", b"cat"), ("1.png", &image)], TarProblem::BadClass),
        (&[("1.png", &image)], TarProblem::NoClass),
        (&[("1.cls", b"1"), ("1.cls", b"1"), ("1.png", &image)], TarProblem::Duplicate),
    ];
    for (members, expected) in cases {
        assert_eq!(problem(&tar_file(members)), Some(expected));
    }
    let wild = open_tar("a.tar", &tar_file(&[("1.cls", b"99999999999"), ("1.png", &image)]));
    assert!(matches!(wild, Err(Error::Label { label: 99_999_999_999, .. })));
    // The last member's data is cut off, then everything after its header.
    let whole = tar_file(&[("a/1.png", &image), ("a/2.png", &[7; 2000])]);
    assert_eq!(problem(&whole[..512 * 5]), Some(TarProblem::BeyondEnd));
    let cut_zip = open_tar("a.tar.gz", &gzip(&whole[..512 * 5]));
    assert!(matches!(cut_zip, Err(Error::Truncated { .. } | Error::Io { .. })), "{:?}", cut_zip.err());
    let zip = gzip(&whole);
    assert!(matches!(open_tar("a.tar.gz", &zip[..zip.len() / 2]), Err(Error::Io { .. })));
}

#[test]
fn a_zipped_shard_keeps_to_the_memory_limit() {
    let bytes = gzip(&tar_file(&[("a/1.png", &vec![0; 3 << 20])]));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.tar.gz");
    fs::write(&path, bytes).unwrap();
    match Tar::open(&path, &[], 2) {
        Err(Error::Memory { needed: 3, limit: 2, .. }) => {}
        other => panic!("{:?}", other.map(|_| ())),
    }
    assert!(Tar::open(&path, &[], 3).is_ok());
}

#[test]
fn a_shard_cannot_reach_outside() {
    // The builder refuses such names, so they are written into the header by hand.
    let mut bytes = tar_file(&[("aaaaaaa/aaa/1.png", &flat_png(1, 1, 3))]);
    bytes[..17].copy_from_slice(b"../../../etc1.png");
    let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    match open_tar("a.tar", &bytes) {
        Err(Error::TarMember { problem: TarProblem::NoClass, .. }) => {}
        other => panic!("{:?}", other.map(|_| ())),
    }
    assert!(!Path::new("../../../etc1.png").exists());
}

/// A CIFAR record whose pixels are (at, at + 1, at + 2) mod 251 in red, green and blue.
fn cifar_record(labels: &[u8]) -> Vec<u8> {
    let mut record = labels.to_vec();
    for plane in 0..3 {
        record.extend((0..1024).map(|at| ((at + plane) % 251) as u8));
    }
    record
}

#[test]
fn cifar_planes_become_pixels() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    for batch in 1..=5u8 {
        write(&format!("data_batch_{batch}.bin"), &[cifar_record(&[batch]), cifar_record(&[0])].concat());
    }
    write("test_batch.bin", &cifar_record(&[9]));
    let names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    write("batches.meta.txt", format!("{}\n\n", names.join("\n")).as_bytes());
    let train = Cifar::open(folder.path(), CifarPart::Train).unwrap();
    assert_eq!(train.classes(), names);
    assert_eq!((0..10).map(|i| train.label(i)).collect::<Vec<_>>(), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    let image = read(&train, 7).unwrap();
    assert_eq!((image.height, image.width, image.channels), (32, 32, 3));
    assert_eq!((&image.pixels[..3], &image.pixels[3 * 300..3 * 301]), (&[0, 1, 2][..], &[49, 50, 51][..]));
    assert_eq!(Cifar::open(folder.path(), CifarPart::Test).unwrap().label(0), 9);

    write("test_batch.bin", &cifar_record(&[9])[1..]);
    let cut = Cifar::open(folder.path(), CifarPart::Test).map(|_| ());
    assert!(matches!(cut, Err(Error::Truncated { expected: 3073, found: 3072, .. })), "{cut:?}");
    write("test_batch.bin", &[cifar_record(&[9]), cifar_record(&[10])].concat());
    let wild = Cifar::open(folder.path(), CifarPart::Test).map(|_| ());
    assert!(matches!(wild, Err(Error::Label { record: 1, label: 10, classes: 10, .. })), "{wild:?}");
    write("test_batch.bin", &[]);
    assert!(matches!(Cifar::open(folder.path(), CifarPart::Test), Err(Error::NoImages { .. })));
}

#[test]
fn cifar100_is_read_with_its_fine_labels() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("train.bin"), cifar_record(&[3, 77])).unwrap();
    let set = Cifar::open(folder.path(), CifarPart::Train).unwrap();
    assert_eq!((set.len(), set.label(0), set.classes().len()), (1, 77, 100));
    assert_eq!(read(&set, 0).unwrap().pixels[..3], [0, 1, 2]);
    let missing = Cifar::open(folder.path(), CifarPart::Test);
    assert!(matches!(missing, Err(Error::Io { doing: "read", .. })));
}
