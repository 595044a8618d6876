//! `monopath data`: a packed set gives the bits of its source, and damage is found and named.

use std::path::Path;

use serde_json::Value;

use soak::{Bench, fingerprint};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Writes a gray PNG of one value.
fn png(path: &Path, value: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, 4, 3);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[value; 12]).unwrap();
}

#[test]
fn a_run_over_packed_files_has_the_bits_of_a_run_over_their_source() {
    let bench = Bench::new();
    for part in ["train", "test"] {
        let file = format!("{part}.pack");
        let told = json(&bench.ok(&["data", "pack", "tiny.toml", "--part", part, "--out", &file, "--json"]));
        assert_eq!(told["records"], if part == "train" { 120 } else { 40 });
        assert_eq!(told["bytes"].as_u64(), Some(std::fs::metadata(bench.path(&file)).unwrap().len()));
    }
    let recipe = std::fs::read_to_string(bench.path("tiny.toml")).unwrap();
    let lines = recipe.lines().map(|line| match line.split_once(" = { format = \"idx\"") {
        Some((key, _)) => format!("{key} = {{ format = \"packed\", path = \"{}.pack\" }}", &key[5..]),
        None => line.to_owned(),
    });
    std::fs::write(bench.path("packed.toml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    bench.ok(&["run", "tiny.toml", "--out", "plain"]);
    bench.ok(&["run", "packed.toml", "--out", "packed"]);
    assert_eq!(fingerprint(&bench.path("packed")), fingerprint(&bench.path("plain")));

    // A source that the recipe does not have, and one that is not there.
    let error = bench.fails(&["data", "pack", "tiny.toml", "--part", "val", "--out", "v"], 2);
    assert!(error.contains("split from `train`"), "{error}");
    let error = bench.fails(&["data", "pack", "nowhere", "--out", "v"], 1);
    assert!(error.contains("nowhere"), "{error}");
    let error = bench.fails(&["data", "pack", "train-images", "--out", "v"], 2);
    assert!(error.contains("train-images") && error.contains("recipe"), "{error}");
    let error = bench.fails(&["data", "pack", "tiny.toml", "--out", "no/such/v"], 1);
    assert!(error.contains("no/such/v") && error.contains("No such file"), "{error}");
}

#[test]
fn a_folder_is_packed_inspected_and_packed_again_without_a_recipe() {
    let bench = Bench::new();
    for (name, value) in [("photos/cat/1.png", 3), ("photos/cat/2.png", 200), ("photos/dog/1.png", 3)] {
        png(&bench.path(name), value);
    }
    let told = bench.ok(&["data", "pack", "photos", "--out", "photos.pack"]);
    assert!(told.contains("3 records") && told.contains("format = \"packed\""), "{told}");
    let [of_folder, of_file] = ["photos", "photos.pack"]
        .map(|source| json(&bench.ok(&["data", "inspect", source, "--json"]))["all"].clone());
    for key in ["records", "classes", "sizes", "bad", "duplicates", "mean", "std"] {
        assert_eq!(of_folder[key], of_file[key], "{key}");
    }
    assert_eq!((of_file["duplicates"].as_u64(), of_file["format"].as_str()), (Some(1), Some("packed")));
    // Pixels instead of files; then from one packed file to another.
    bench.ok(&["data", "pack", "photos.pack", "--out", "pixels.pack", "--store", "pixels"]);
    let pixels = json(&bench.ok(&["data", "inspect", "pixels.pack", "--json"]));
    assert_eq!(pixels["all"]["mean"], of_folder["mean"]);
    let sound = bench.ok(&["data", "verify", "photos.pack", "pixels.pack"]);
    assert_eq!(sound.matches("3 records, all as they were written").count(), 2, "{sound}");
}

#[test]
fn a_bad_image_ends_the_packing_by_name_or_is_left_out_by_name() {
    let bench = Bench::new();
    png(&bench.path("photos/cat/1.png"), 9);
    std::fs::write(bench.path("photos/cat/broken.jpg"), b"no picture").unwrap();
    let error = bench.fails(&["data", "pack", "photos", "--out", "p.pack"], 1);
    for word in ["cat/broken.jpg", "photos into p.pack", "neither JPEG nor PNG", "--skip-bad"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(!bench.path("p.pack").exists());
    let told = json(&bench.ok(&["data", "pack", "photos", "--out", "p.pack", "--skip-bad", "--json"]));
    assert_eq!(
        (told["records"].as_u64(), told["bad"][0]["record"].as_str()),
        (Some(1), Some("cat/broken.jpg"))
    );
}

#[test]
fn verify_names_every_damaged_record_of_every_file() {
    let bench = Bench::new();
    for i in 0..4 {
        png(&bench.path(&format!("photos/cat/{i}.png")), i);
    }
    bench.ok(&["data", "pack", "photos", "--out", "sound.pack", "--store", "pixels"]);
    let mut bytes = std::fs::read(bench.path("sound.pack")).unwrap();
    // Records of 12 bytes after a header of 80.
    bytes[80 + 12] ^= 1;
    bytes[80 + 3 * 12 + 11] ^= 1;
    std::fs::write(bench.path("hurt.pack"), &bytes).unwrap();
    std::fs::write(bench.path("short.pack"), &bytes[..100]).unwrap();
    let files = ["data", "verify", "hurt.pack", "short.pack", "sound.pack"];
    let output = bench.run(&files);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for word in [
        "2 of 4 records damaged",
        "record 1 (cat/1.png)",
        "record 3 (cat/3.png)",
        "short.pack",
        "sound.pack: 4",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let told = json(&String::from_utf8(bench.run(&[&files[..], &["--json"]].concat()).stdout).unwrap());
    assert_eq!(told[0]["damaged"][1]["name"], "cat/3.png");
    assert!(told[1]["error"].as_str().unwrap().contains("short.pack"));
    assert_eq!(told[2]["damaged"], Value::Array(vec![]));
    // Training over it ends with the file and the record; packing it again does, too.
    let error = bench.fails(&["data", "pack", "hurt.pack", "--out", "again.pack"], 1);
    assert!(error.contains("hurt.pack: record 1 (cat/1.png) is damaged"), "{error}");
}
