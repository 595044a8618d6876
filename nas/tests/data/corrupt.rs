//! Broken and unusual pictures: what decodes, what is refused, and that nothing in between happens.

use std::fs;
use std::sync::Arc;

use nas::data::cache::Memory;
use nas::data::config::OnBad;
use nas::data::decode::decode;
use nas::data::folder::Folder;
use nas::data::inspect::inspect;
use nas::data::{Batch, Dataset, DecodeError, Error, Image, Loader, LoaderOptions, Pass, View};
use tempfile::TempDir;

use super::loader::options;
use super::{fixture, flat_png, plain, png_file};

fn decoded(bytes: &[u8]) -> Result<Image, DecodeError> {
    let mut image = Image::default();
    decode(bytes, &mut image).map(|()| image)
}

/// (mean, largest) difference between two pictures of one shape.
fn difference(a: &Image, b: &Image) -> (f64, u8) {
    assert_eq!((a.height, a.width, a.channels), (b.height, b.width, b.channels));
    let each: Vec<u8> = a.pixels.iter().zip(&b.pixels).map(|(x, y)| x.abs_diff(*y)).collect();
    let mean = each.iter().map(|&d| f64::from(d)).sum::<f64>() / each.len() as f64;
    (mean, each.into_iter().max().unwrap())
}

#[test]
fn jpegs_decode_as_in_pillow() {
    // Decoders differ in the inverse DCT and in how they enlarge the chroma planes.
    for name in ["baseline", "full-chroma", "progressive", "gray", "cmyk", "one-pixel"] {
        let image = decoded(&fixture(&format!("{name}.jpg"))).unwrap();
        let expected = decoded(&fixture(&format!("{name}.expected.png"))).unwrap();
        let (mean, worst) = difference(&image, &expected);
        assert!(mean <= 0.5 && worst <= 6, "{name}: {mean} {worst}");
        assert!(!image.repaired);
    }
}

#[test]
fn exif_orientation_is_ignored() {
    let rotated = decoded(&fixture("rotated.jpg")).unwrap();
    assert_eq!((rotated.height, rotated.width), (40, 56));
    assert_eq!(rotated.pixels, decoded(&fixture("baseline.jpg")).unwrap().pixels);
}

#[test]
fn pngs_of_every_kind_become_gray_or_rgb() {
    use png::BitDepth::{Eight, Sixteen};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Rgb, Rgba};
    type Case<'a> = (png::ColorType, png::BitDepth, &'a [u8], usize, &'a [u8]);
    let cases: [Case; 6] = [
        (Grayscale, Sixteen, &[200, 7, 100, 250], 1, &[200, 100]),
        (GrayscaleAlpha, Eight, &[200, 0, 100, 255], 1, &[200, 100]),
        (Rgb, Eight, &[1, 2, 3, 4, 5, 6], 3, &[1, 2, 3, 4, 5, 6]),
        (Rgb, Sixteen, &[1, 0, 2, 0, 3, 0, 4, 9, 5, 9, 6, 9], 3, &[1, 2, 3, 4, 5, 6]),
        (Rgba, Eight, &[1, 2, 3, 0, 4, 5, 6, 255], 3, &[1, 2, 3, 4, 5, 6]),
        (Rgba, Sixteen, &[1, 0, 2, 0, 3, 0, 0, 0, 4, 0, 5, 0, 6, 0, 9, 9], 3, &[1, 2, 3, 4, 5, 6]),
    ];
    for (color, depth, data, channels, expected) in cases {
        let image = decoded(&png_file(1, 2, color, depth, data)).unwrap();
        assert_eq!((image.height, image.width, image.channels), (1, 2, channels));
        assert_eq!(image.pixels, expected, "{color:?} {depth:?}");
    }
    for name in ["palette", "bilevel"] {
        let image = decoded(&fixture(&format!("{name}.png"))).unwrap();
        assert_eq!(image, decoded(&fixture(&format!("{name}.expected.png"))).unwrap(), "{name}");
    }
}

#[test]
fn long_strips_decode() {
    let strip = decoded(&fixture("strip.jpg")).unwrap();
    assert_eq!((strip.height, strip.width, strip.channels), (1, 30_000, 3));
    let worst = strip.pixels.chunks(3).map(|p| p[0].abs_diff(90).max(p[2].abs_diff(200))).max();
    assert!(worst <= Some(3), "{worst:?}");
    assert_eq!(decoded(&flat_png(30_000, 1, 9)).unwrap().pixels, vec![9; 30_000]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for name in ["baseline.jpg", "progressive.jpg", "gray.jpg", "source.png", "palette.png"] {
        let whole = fixture(name);
        for length in 0..whole.len() {
            assert!(decoded(&whole[..length]).is_err(), "{name} cut to {length} of {}", whole.len());
        }
    }
    assert!(matches!(decoded(&[]), Err(DecodeError::Empty)));
    assert!(matches!(decoded(b"GIF89a.."), Err(DecodeError::UnknownFormat(first)) if first == b"GIF89a.."));
    assert!(matches!(decoded(&[0; 100]), Err(DecodeError::UnknownFormat(_))));
}

#[test]
fn junk_between_headers_is_cut_out_and_counted() {
    let whole = fixture("baseline.jpg");
    // After the first segment (JFIF): its length is in bytes 4 and 5.
    let at = 4 + usize::from(u16::from_be_bytes([whole[4], whole[5]]));
    let mut dirty = whole[..at].to_vec();
    dirty.extend([0; 37]);
    dirty.extend(&whole[at..]);
    let image = decoded(&dirty).unwrap();
    assert!(image.repaired);
    assert_eq!(image.pixels, decoded(&whole).unwrap().pixels);
    // The repair does not make a truncated file good.
    assert!(decoded(&dirty[..dirty.len() / 2 + 200]).is_err());
}

#[test]
fn bombs_are_refused_before_memory_is_taken() {
    // A PNG header that promises 60,000 x 1,000 and 400,000 x 400,000 pixels.
    for (w, h) in [(60_000u32, 1_000u32), (400_000, 400_000)] {
        let mut bytes = flat_png(1, 1, 0);
        bytes[16..20].copy_from_slice(&w.to_be_bytes());
        bytes[20..24].copy_from_slice(&h.to_be_bytes());
        let checksum = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
        let refused = decoded(&bytes);
        assert!(
            matches!(refused, Err(DecodeError::Bomb { .. } | DecodeError::TooLarge { .. })),
            "{refused:?}"
        );
    }
    // The size in a JPEG's frame header: 0xFFC0, length, precision, height, width.
    let mut bytes = fixture("baseline.jpg");
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    for (side, expected_bomb) in [(2000u16, true), (65_000, false)] {
        bytes[frame + 5..frame + 7].copy_from_slice(&side.to_be_bytes());
        bytes[frame + 7..frame + 9].copy_from_slice(&side.to_be_bytes());
        match decoded(&bytes) {
            Err(DecodeError::Bomb { .. }) => assert!(expected_bomb),
            Err(DecodeError::TooLarge { .. }) => assert!(!expected_bomb),
            other => panic!("{other:?}"),
        }
    }
}

/// The checksum of a PNG chunk.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0xEDB8_8320 & (c & 1).wrapping_neg()))
    })
}

#[test]
fn a_palette_that_ends_within_an_entry_is_refused() {
    let mut bytes = fixture("palette.png");
    let at = bytes.windows(4).position(|kind| kind == b"PLTE").unwrap();
    let length = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap());
    bytes[at - 4..at].copy_from_slice(&(length - 2).to_be_bytes());
    let end = at + 4 + length as usize;
    bytes.drain(end - 2..end);
    let checksum = crc32(&bytes[at..end - 2]);
    bytes[end - 2..end + 2].copy_from_slice(&checksum.to_be_bytes());
    assert!(matches!(decoded(&bytes), Err(DecodeError::Palette(_))), "{:?}", decoded(&bytes).err());
}

#[test]
fn a_damaged_png_is_noticed() {
    let whole = fixture("source.png");
    for at in [40, whole.len() / 2, whole.len() - 30] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        assert!(decoded(&bytes).is_err(), "bit flipped at {at}");
    }
}

/// A folder of 20 good images and the corpus; (folder, number of bad files in it).
fn corpus() -> (TempDir, usize) {
    let folder = TempDir::new().unwrap();
    for class in ["a", "b"] {
        fs::create_dir(folder.path().join(class)).unwrap();
        for i in 0..10 {
            fs::write(folder.path().join(format!("{class}/{i}.png")), flat_png(4, 4, i)).unwrap();
        }
    }
    let jpeg = fixture("baseline.jpg");
    let good: [(&str, Vec<u8>); 5] = [
        ("a/cmyk.jpg", fixture("cmyk.jpg")),
        ("a/gray.jpg", fixture("gray.jpg")),
        ("a/png-inside.jpg", flat_png(4, 4, 1)),
        ("b/progressive.png", fixture("progressive.jpg")),
        ("b/strip.jpg", fixture("strip.jpg")),
    ];
    let bad: [(&str, Vec<u8>); 4] = [
        ("a/empty.jpg", Vec::new()),
        ("a/half.jpg", jpeg[..jpeg.len() / 2].to_vec()),
        ("b/text.png", b"<html>not found</html>".to_vec()),
        ("b/half.png", fixture("source.png")[..900].to_vec()),
    ];
    for (name, bytes) in good.iter().chain(&bad) {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    (folder, bad.len())
}

#[test]
fn policies_meet_the_corpus() {
    let (folder, num_bad) = corpus();
    let dataset: Arc<dyn Dataset> = Arc::new(Folder::open(folder.path()).unwrap());
    let cached: Arc<dyn Dataset> = Arc::new(Memory::new(&View::all(dataset.clone()), 2, 64).unwrap());
    let run = |dataset: &Arc<dyn Dataset>, on_bad, max_bad, workers| {
        let options = LoaderOptions { on_bad, max_bad, ..options(29, workers) };
        let mut loader = Loader::new(View::all(dataset.clone()), plain(4), Pass::Train, 0, options)?;
        let mut batch = Batch::default();
        loader.next(&mut batch)?;
        Ok((batch, loader.stats().bad.len()))
    };
    for dataset in [&dataset, &cached] {
        let error: Result<_, Error> = run(dataset, OnBad::Error, 1.0, 2);
        assert!(matches!(error, Err(Error::Decode { .. })), "{:?}", error.err());
        let (skipped, bad) = run(dataset, OnBad::Skip, 0.2, 2).unwrap();
        assert_eq!((skipped.shape[0], bad), (29 - num_bad, num_bad));
        let (substituted, bad) = run(dataset, OnBad::Substitute, 0.2, 2).unwrap();
        assert_eq!((substituted.shape[0], bad), (29, num_bad));
        assert_eq!(substituted, run(dataset, OnBad::Substitute, 0.2, 4).unwrap().0);
        let default = run(dataset, OnBad::Skip, 0.001, 2);
        assert!(matches!(default, Err(Error::TooManyBad { bad: 1, limit: 0, .. })));
    }
}

#[test]
fn a_summary_counts_everything() {
    let (folder, num_bad) = corpus();
    let view = View::all(Arc::new(Folder::open(folder.path()).unwrap()));
    let summary = inspect(&view, 2, &|_| {});
    assert_eq!(summary, inspect(&view, 1, &|_| {}));
    assert_eq!((summary.records, summary.bad, summary.named_bad.len()), (29, num_bad, num_bad));
    assert_eq!(summary.named_bad[0].0, "a/empty.jpg");
    assert_eq!(summary.classes, [("a".to_string(), 15), ("b".into(), 14)]);
    assert_eq!(summary.sizes[&(4, 4, 1)], 21);
    assert_eq!(summary.sizes[&(1, 30_000, 3)], 1);
    // Ten flat images are in both classes, and one more is the PNG that is called .jpg.
    assert_eq!(summary.duplicates, 11);
    assert_eq!(summary.mean.len(), 3);
    let json = summary.to_json();
    assert_eq!(json["bad"], num_bad);
    assert_eq!(json["classes"][1]["records"], 14);
}

#[test]
fn mean_and_deviation_are_those_of_the_pixels() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    fs::write(folder.path().join("a/0.png"), flat_png(1, 1, 0)).unwrap();
    fs::write(folder.path().join("a/1.png"), flat_png(1, 3, 200)).unwrap();
    let summary = inspect(&View::all(Arc::new(Folder::open(folder.path()).unwrap())), 2, &|_| {});
    // 0, 200, 200, 200: mean 150, variance 7,500.
    assert!((summary.mean[0] - 150.0 / 255.0).abs() < 1e-12);
    assert!((summary.std[0] - 7500f64.sqrt() / 255.0).abs() < 1e-12);
}

#[test]
fn a_cache_reads_as_its_source_and_keeps_to_its_limit() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    fs::write(folder.path().join("a/0.jpg"), fixture("baseline.jpg")).unwrap();
    fs::write(folder.path().join("a/1.png"), flat_png(1024, 1024, 3)).unwrap();
    let source: Arc<dyn Dataset> = Arc::new(Folder::open(folder.path()).unwrap());
    let view = View::all(source.clone());
    let cached = Memory::new(&view, 2, 2).unwrap();
    let (mut a, mut b) = (Image::default(), Image::default());
    for i in 0..2 {
        source.read(i, &mut a).unwrap();
        cached.read(i, &mut b).unwrap();
        assert_eq!(a, b);
        assert_eq!(
            (source.id(i), source.name(i), source.label(i)),
            (cached.id(i), cached.name(i), cached.label(i))
        );
    }
    assert!(cached.is_decoded() && !source.is_decoded());
    assert!(matches!(Memory::new(&view, 2, 1), Err(Error::Memory { limit: 1, .. })));
    let part = View { indices: [0].into(), ..view };
    Memory::new(&part, 2, 1).unwrap().read(1, &mut b).unwrap();
    assert_eq!(a, b, "what is not held is read from the source");
}
