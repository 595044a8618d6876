//! Memory and panics under hostile files, and none taken by a loader that is warm.
//!
//! A test binary of its own, since it counts what its allocator is asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::Rng;
use nas::data::config::{Crop, Normalise, OnBad, Transform};
use nas::data::decode::decode;
use nas::data::folder::Folder;
use nas::data::idx::Idx;
use nas::data::packed::{Packed, Store, pack};
use nas::data::tar::Tar;
use nas::data::{Batch, Dataset, DecodeError, Image, Loader, LoaderOptions, Pass, Pipeline, View};
use tempfile::TempDir;

/// Counts calls of all threads, and live and peak bytes of each.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(change: i64) {
    // A thread that is going away has no counters any more; nobody asks for them.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        count(layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Held by every test: they take turns, or each would count the others' calls.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Largest number of bytes that `work` held at once, on this thread.
fn peak(work: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    work();
    (PEAK.get() - before) as usize
}

/// Calls `read` with `original` changed in `rounds` random ways.
fn mutate(original: &[u8], rounds: u32, mut read: impl FnMut(&[u8])) {
    let rng = Rng::new(0, "mutate");
    for round in 0..rounds {
        let mut draws = rng.at(round, 0, 0);
        let mut bytes = original.to_vec();
        for _ in 0..1 + draws.below(4) {
            let at = draws.below(bytes.len().max(1) as u32) as usize;
            match draws.below(6) {
                _ if bytes.is_empty() => {}
                0 => bytes[at] = draws.word() as u8,
                1 => bytes[at] ^= 1 << draws.below(8),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, draws.word() as u8),
                4 => {
                    // Sizes and offsets are where readers trip.
                    let extreme = [0, 0xFF, 0x7F, 0x80][draws.below(4) as usize];
                    let end = (at + 1 + draws.below(8) as usize).min(bytes.len());
                    bytes[at..end].fill(extreme);
                }
                _ => {
                    let end = (at + draws.below(32) as usize).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    let to = draws.below(bytes.len() as u32) as usize;
                    bytes.splice(to..to, copy);
                }
            }
        }
        read(&bytes);
    }
}

/// Writes a new file of that name: some file systems flush one that is cut to nothing and written
/// again, and a mapped one must not change.
fn rewrite(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name);
    fs::read(path).unwrap()
}

/// A picture may have as many pixels as its bytes can describe: 512 for a byte of JPEG (one bit for
/// a block of 64), 8 x 1032 for a byte of PNG (the most that deflate expands, one bit for a pixel).
/// A pixel takes up to 3 bytes as a result and, in a progressive JPEG, 6 for its coefficients.
fn picture_limit(bytes: &[u8]) -> usize {
    let per_byte = if bytes.starts_with(&[0xFF, 0xD8]) { 512 * 16 } else { 8 * 1032 * 4 };
    (1 << 20) + per_byte * bytes.len()
}

/// Makes the checksums of a PNG's chunks right again, so that damage reaches what is behind them.
fn mend_png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(chunk) = bytes.get(at + 4..).and_then(|rest| rest.get(..4 + length)) else { return };
        let crc = !chunk.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0xEDB8_8320 & (c & 1).wrapping_neg()))
        });
        at += 8 + length;
        let Some(place) = bytes.get_mut(at..at + 4) else { return };
        place.copy_from_slice(&crc.to_be_bytes());
        at += 4;
    }
}

#[test]
fn mutated_pictures_neither_panic_nor_take_much_memory() {
    let _turn = turn();
    let names = [
        "baseline.jpg",
        "progressive.jpg",
        "gray.jpg",
        "cmyk.jpg",
        "rotated.jpg",
        "source.png",
        "palette.png",
    ];
    for name in names {
        let original = fixture(name);
        let (mut good, mut bad) = (0, 0);
        mutate(&original, 4000, |bytes| {
            let mut bytes = bytes.to_vec();
            if name.ends_with("png") {
                mend_png(&mut bytes);
            }
            let mut image = Image::default();
            let held = peak(|| match decode(&bytes, &mut image) {
                Ok(()) => good += 1,
                Err(DecodeError::Panicked) => panic!("{name}: a decoder panicked at {bytes:02x?}"),
                Err(_) => bad += 1,
            });
            assert!(held <= picture_limit(&bytes), "{name}: {held} bytes for {} bytes", bytes.len());
        });
        // Neither outcome is the only one, or the mutations would be too weak or too strong.
        assert!(good > 10 && bad > 1000, "{name}: {good} decoded, {bad} refused");
    }
}

#[test]
fn mutated_idx_files_neither_panic_nor_take_much_memory() {
    let _turn = turn();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 20, 0, 0, 0, 4, 0, 0, 0, 5];
    images.extend((0..400).map(|i| i as u8));
    let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 20];
    labels.extend([1; 20]);
    let folder = TempDir::new().unwrap();
    let (a, b) = (folder.path().join("images"), folder.path().join("labels"));
    for zip in [false, true] {
        let pack = |bytes: &[u8]| if zip { gzip(bytes) } else { bytes.to_vec() };
        for mutate_labels in [false, true] {
            fs::write(&a, pack(&images)).unwrap();
            fs::write(&b, pack(&labels)).unwrap();
            let (path, original) = if mutate_labels { (&b, &labels) } else { (&a, &images) };
            let mut refused = 0;
            mutate(original, 1500, |bytes| {
                rewrite(path, &pack(bytes));
                let held = peak(|| match Idx::open(&a, &b, &[]) {
                    Ok(set) => (0..set.len()).for_each(|i| set.read(i, &mut Image::default()).unwrap()),
                    Err(_) => refused += 1,
                });
                // A gzip decoder takes some 50 kB whatever it reads.
                assert!(held <= (1 << 18) + 8 * bytes.len(), "{held} bytes for {}", bytes.len());
            });
            assert!(refused > 100);
        }
    }
    // Damage to the compressed bytes themselves.
    rewrite(&b, &gzip(&labels));
    mutate(&gzip(&images), 1500, |bytes| {
        rewrite(&a, bytes);
        let held = peak(|| drop(Idx::open(&a, &b, &[])));
        assert!(held <= (1 << 18) + 2 * 1032 * bytes.len(), "{held} bytes for {}", bytes.len());
    });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn mutated_tar_files_neither_panic_nor_take_much_memory() {
    let _turn = turn();
    let mut builder = tar::Builder::new(Vec::new());
    let long = format!("{}7.png", "long/".repeat(30));
    for (name, bytes) in
        [("a/1.png", fixture("palette.png")), ("b/2.jpg", fixture("gray.jpg")), (&long, vec![1; 700])]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    let original = builder.into_inner().unwrap();
    let folder = TempDir::new().unwrap();
    for zip in [false, true] {
        let path = folder.path().join("a.tar");
        let (mut good, mut bad) = (0, 0);
        mutate(&original, 3000, |bytes| {
            // Half of the time the checksums are made right again, or they would stop most damage.
            let mut bytes = bytes.to_vec();
            if bytes.len() % 2 == 0 {
                for start in (0..bytes.len().saturating_sub(511)).step_by(512) {
                    if bytes[start + 257..].starts_with(b"ustar") {
                        let mut header = tar::Header::from_byte_slice(&bytes[start..start + 512]).clone();
                        header.set_cksum();
                        bytes[start..start + 512].copy_from_slice(header.as_bytes());
                    }
                }
            }
            rewrite(&path, &if zip { gzip(&bytes) } else { bytes.clone() });
            let held = peak(|| match Tar::open(&path, &[], 16) {
                Ok(set) => {
                    good += 1;
                    let mut image = Image::default();
                    (0..set.len()).for_each(|i| drop(set.read(i, &mut image)));
                }
                Err(_) => bad += 1,
            });
            // The pictures inside may take what pictures take.
            assert!(held <= (1 << 20) + 8 * 1032 * 4 * bytes.len(), "{held} bytes for {}", bytes.len());
        });
        assert!(good > 100 && bad > 100, "{good} opened, {bad} refused");
    }
}

#[test]
fn a_warm_loader_allocates_nothing() {
    let _turn = turn();
    let folder = TempDir::new().unwrap();
    let (a, b) = (folder.path().join("images"), folder.path().join("labels"));
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 200, 0, 0, 0, 28, 0, 0, 0, 28];
    images.extend((0..200 * 784).map(|i| i as u8));
    let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 200];
    labels.extend([1; 200]);
    fs::write(&a, images).unwrap();
    fs::write(&b, labels).unwrap();
    let view = View::all(Arc::new(Idx::open(&a, &b, &[]).unwrap()));
    let crop = Crop::PadAndCrop { size: 28, padding: 2 };
    let transform = Transform { crop, flip: 0.5, jitter: None, erase: None };
    let normalise = Normalise::MeanStd { mean: vec![0.3], std: vec![0.3] };
    let pipeline = Pipeline::new(&transform, &normalise).unwrap();
    let options = LoaderOptions { batch: 16, workers: 2, prefetch: 3, on_bad: OnBad::Error, max_bad: 0.0 };
    let mut loader = Loader::new(view, pipeline, Pass::Train, 0, options).unwrap();
    let mut batch = Batch::default();
    let mut run = |steps: usize| {
        let before = CALLS.load(Ordering::Relaxed);
        for _ in 0..steps {
            assert!(loader.next(&mut batch).unwrap());
        }
        CALLS.load(Ordering::Relaxed) - before
    };
    run(100);
    // The test harness allocates now and then, so a quiet stretch is looked for.
    assert!((0..200).any(|_| run(24) == 0), "every two epochs of 12 steps allocated");
}

#[test]
fn mutated_packed_files_neither_panic_nor_take_much_memory() {
    let _turn = turn();
    let folder = TempDir::new().unwrap();
    let images = folder.path().join("images/a");
    fs::create_dir_all(&images).unwrap();
    for name in ["gray.jpg", "palette.png"] {
        fs::write(images.join(name), fixture(name)).unwrap();
    }
    let view = View::all(Arc::new(Folder::open(&folder.path().join("images")).unwrap()));
    let path = folder.path().join("set.pack");
    for store in [Store::Files, Store::Pixels] {
        pack(&view, &path, store, false, &|_| {}).unwrap();
        let original = fs::read(&path).unwrap();
        let (mut good, mut bad) = (0, 0);
        mutate(&original, 4000, |bytes| {
            // With the index's hash made right again, or it would stop everything.
            let mut bytes = bytes.to_vec();
            if bytes.len() >= 80 {
                let start = u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize;
                let mut hash = blake3::Hasher::new();
                hash.update(&bytes[..48]).update(bytes.get(start..).unwrap_or_default());
                bytes[48..80].copy_from_slice(hash.finalize().as_bytes());
            }
            rewrite(&path, &bytes);
            let held = peak(|| match Packed::open(&path) {
                Ok(set) => {
                    good += 1;
                    let mut image = Image::default();
                    for i in 0..set.len() {
                        drop((set.name(i), set.read(i, &mut image)));
                    }
                    set.verify(&|_| {});
                }
                Err(_) => bad += 1,
            });
            assert!(held <= picture_limit(&bytes), "{held} bytes for {}", bytes.len());
        });
        assert!(good > 100 && bad > 100, "{good} opened, {bad} refused");
    }
}
