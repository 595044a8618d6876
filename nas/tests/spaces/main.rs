//! Search spaces: counts against published tables, text forms, and files that are not sound.

mod costs;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use engine::{Cpu, Rng};
use nas::blocks::Block;
use nas::model::{Model, NormParams};
use nas::space::{ArchFile, list};
use nas::{Arch, Error, Space};

fn path(space: &Space, text: &str) -> Arch {
    space.parse(text).unwrap()
}

#[test]
fn every_built_in_space_loads_and_counts_its_smallest_and_largest_network() {
    for (name, about) in list() {
        let space = Space::load(name).unwrap();
        assert_eq!(space.about(), about);
        let (small, large) = (space.cost(&space.smallest()), space.cost(&space.largest()));
        assert!(small.macs < large.macs, "{name}");
        assert_eq!(small.macs, space.smallest_cost().macs, "{name}");
        assert_eq!(large.macs, space.largest_cost().macs, "{name}");
        let again = Space::parse_toml(&space.to_toml().unwrap(), Path::new(name)).unwrap();
        assert_eq!(again.digest().unwrap(), space.digest().unwrap(), "{name}");
    }
}

/// The table of `docs/papers.md` (SPOS section 9), in multiply-adds of millions to three digits.
#[test]
fn spos_costs_are_those_of_its_table() {
    let space = Space::load("spos-shufflenet").unwrap();
    let rows: [(usize, [f64; 4]); 8] = [
        (0, [13.397, 15.805, 19.418, 13.146]),
        (1, [7.326, 8.931, 11.340, 12.343]),
        (4, [26.305, 28.111, 30.821, 20.296]),
        (5, [10.600, 11.603, 13.108, 16.746]),
        (8, [30.670, 31.674, 33.179, 21.199]),
        (9, [10.317, 10.819, 11.572, 15.900]),
        (16, [30.388, 30.890, 31.642, 20.635]),
        (17, [10.176, 10.427, 10.804, 15.476]),
    ];
    for (slot, want) in rows {
        for (choice, want) in space.slots()[slot].choices.iter().zip(want) {
            let macs = choice.cost.macs as f64 / 1e6;
            assert!((macs - want).abs() <= 0.0005 + 1e-9, "slot {slot} {}: {macs} for {want}", choice.label);
        }
    }
    let whole = [
        ("0".repeat(20), 295.842, 3.155),
        ("1".repeat(20), 313.655, 3.212),
        ("2".repeat(20), 340.374, 3.298),
        ("3".repeat(20), 358.826, 3.871),
        ("21012020202300003233".to_owned(), 322.919, 3.558),
    ];
    for (digits, macs, params) in whole {
        let list: Vec<String> = digits.chars().map(String::from).collect();
        let cost = space.cost(&path(&space, &list.join(",")));
        assert!((cost.macs as f64 / 1e6 - macs).abs() < 0.0006, "{digits}: {}", cost.macs);
        assert!((cost.params as f64 / 1e6 - params).abs() < 0.0006, "{digits}: {}", cost.params);
    }
    assert_eq!(space.size(), Some(1 << 40));
}

/// `torch_supernet.py --mode roofline`: `fwd_mmacs_per_image` of one seeded path; the figures below
/// are its `work(preset, FIXED_PATH, 1)` for the one mid-size child that it names.
#[test]
fn the_timed_space_costs_what_its_script_says() {
    let fixed = "[1,3,-1,0,4,1,3,-1,5,2,3,4,3,0,-1,4,5,4,3,1]";
    for (name, size, want) in FIXED_CHILD {
        let space = Space::load(name).unwrap().with_input(size, 3).unwrap();
        let macs = space.cost(&path(&space, fixed)).macs;
        assert_eq!(macs, want, "{name} at {size}");
    }
}

const FIXED_CHILD: [(&str, usize, u64); 3] = [
    ("mobilenet-se-cifar", 32, 100_495_616),
    ("mobilenet-se", 224, 324_632_960),
    ("mobilenet-se", 96, 61_398_400),
];

#[test]
fn nas_bench_macro_is_reproduced_row_by_row() {
    let Some(data) = std::env::var_os("MONOPATH_DATA") else {
        println!("skipped: MONOPATH_DATA is not set");
        return;
    };
    let file = Path::new(&data).join("nas-bench-macro/nas-bench-macro_cifar10.json");
    let table: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let table = table.as_object().unwrap();
    let space = Space::load("nas-bench-macro").unwrap();
    assert_eq!((table.len(), space.size()), (6561, Some(6561)));
    let mut canonical = HashSet::new();
    for (key, row) in table {
        let arch = path(&space, key);
        assert_eq!(space.text(&arch), *key);
        let cost = space.cost(&arch);
        assert_eq!(row["params"].as_f64(), Some(cost.params as f64), "{key}");
        assert_eq!(row["flops"].as_f64(), Some(cost.macs as f64), "{key}");
        let same = space.canonical(&arch);
        assert_eq!(space.cost(&same), cost, "{key}");
        assert_eq!(table[&space.text(&same)]["mean_acc"], row["mean_acc"], "{key}");
        canonical.insert(same);
    }
    assert_eq!(canonical.len(), 3969);
}

#[test]
fn text_and_integers_mean_the_same() {
    let space = Space::load("mobilenet-se-cifar").unwrap();
    let integers = path(&space, "[3, 5, 2, -1, 2, 3, 2, 2, 2, 2, 1, 3, 1, 3, 0, 1, 1, 5, -1, 3]");
    assert_eq!(path(&space, &space.text(&integers)), integers);
    assert!(space.text(&integers).starts_with("mb_k3_e6,mb_k7_e6,mb_k7_e4,skip,"));
}

#[test]
fn a_wrong_architecture_names_the_slot_and_what_it_knows() {
    let space = Space::load("quickstart").unwrap();
    let mut labels = space.labels(&space.largest()).iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    labels[2] = "mb_k5_e7".into();
    let error = space.parse(&labels.join(",")).unwrap_err().to_string();
    assert!(error.contains(&space.slots()[2].name) && error.contains("did you mean \"mb_k5_e"), "{error}");
    assert!(space.parse("1,2").unwrap_err().to_string().contains("2 choices for 8 slots"));
    assert!(
        matches!(Space::load("quikstart"), Err(Error::UnknownSpace { nearest: Some(n), .. }) if n == "quickstart")
    );
}

#[test]
fn reduced_spaces_keep_the_names_of_slots_and_candidates() {
    let space = Space::load("quickstart").unwrap();
    let arch = space.sample(&mut Rng::new(1, "test").at(0, 0, 0));
    let only = space.only(&arch).unwrap();
    assert_eq!(only.size(), Some(1));
    assert_eq!(only.labels(&only.first()), space.labels(&arch));
    assert_eq!(only.cost(&only.first()), space.cost(&arch));
    let without = space.without(&[(0, 0), (3, 4)]).unwrap();
    assert_eq!(without.slots()[0].choices.len() + 1, space.slots()[0].choices.len());
    assert!(without.slots()[0].choices.iter().all(|c| c.label != space.slots()[0].choices[0].label));
    let all: Vec<(usize, usize)> = (0..space.slots()[1].choices.len()).map(|c| (1, c)).collect();
    assert!(matches!(space.without(&all), Err(Error::Space { at, .. }) if at == space.slots()[1].name));
}

#[test]
fn the_quickstarts_largest_network_costs_several_times_its_smallest() {
    let space = Space::load("quickstart").unwrap();
    let (small, large) = (space.smallest_cost().macs, space.largest_cost().macs);
    assert!(large as f64 > 2.5 * small as f64, "{small} {large}");
}

#[test]
fn unsound_files_are_errors_that_name_the_place() {
    let sound = Space::load("quickstart").unwrap().to_toml().unwrap();
    let reading = |from: &str, to: &str| {
        assert!(sound.contains(from), "{from}");
        Space::parse_toml(&sound.replacen(from, to, 1), Path::new("space.toml")).unwrap_err().to_string()
    };
    let cases = [
        ("kernel = 3", "kernel = 4", "must be odd"),
        ("kernel = 3", "kernal = 3", "kernal"),
        ("stride = 2", "stride = 0", "must be 1 to 2"),
        ("channels = 16", "channels = 0", "must be 1 to"),
        ("expansion = 3", "expansion = 1000000", "must be 1 to 64"),
        ("classes = 10", "klasses = 10", "did you mean `classes`?"),
        ("block = \"inverted-residual\"", "block = \"inverted-residuel\"", "inverted-residual"),
        ("size = 28", "size = 1000000", "must be 1 to 4096"),
        ("slots = 2", "slots = 1000000", "must be 1 to 1024"),
    ];
    for (from, to, want) in cases {
        let error = reading(from, to);
        assert!(error.contains(want), "{to}: {error}");
    }
}

#[test]
fn mutated_files_are_errors_not_panics() {
    let sound = Space::load("mobilenet-se").unwrap().to_toml().unwrap();
    let mut draws = Rng::new(2, "mutations").at(0, 0, 0);
    for _ in 0..3_000 {
        let mut bytes = sound.clone().into_bytes();
        for _ in 0..=draws.below(3) {
            let at = draws.below(bytes.len() as u32) as usize;
            match draws.below(3) {
                0 => bytes[at] = draws.below(128) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b'0' + draws.below(10) as u8),
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        if let Ok(space) = Space::parse_toml(&text, Path::new("mutated.toml")) {
            space.cost(&space.largest());
        }
    }
}

/// 31x31 from 65,536 to 65,536 channels on 4,096 x 4,096 pixels takes more multiply-adds than 64 bits hold.
#[test]
fn a_network_too_large_to_count_is_an_error_that_names_the_layer() {
    let conv = |table: &str, kernel: usize| format!("[[{table}]]\nblock = \"conv\"\nkernel = {kernel}\n");
    let refused = |stem: String, kernel: usize, stages: usize, channels: usize| {
        let stage = format!("[[stages]]\nchannels = {channels}\nslots = 1\nstride = 1\n").repeat(stages);
        let text = format!(
            "name = \"huge\"\nabout = \"\"\nclasses = 10\n[input]\nsize = 4096\nchannels = 65536\n{stem}{}{stage}\
             [[head]]\nblock = \"pool\"\n[[head]]\nblock = \"linear\"\nbias = true\n",
            conv("candidates", kernel)
        );
        match Space::parse_toml(&text, Path::new("huge.toml")) {
            Err(Error::Space { at, reason, .. }) => (at, reason),
            other => panic!("{other:?}"),
        }
    };
    let (at, reason) = refused(conv("stem", 31), 1, 1, 8);
    assert!(at == "stem.0" && reason.contains("multiply-adds"), "{at}: {reason}");
    let narrow = conv("stem", 1) + "channels = 1\n";
    let (at, reason) = refused(narrow.clone(), 31, 2, 65_536);
    assert!(at == "stage2.slot1" && reason.contains("multiply-adds"), "{at}: {reason}");
    // 2^52 multiply-adds in each slot after the first: one of them counts, two together do not.
    let (at, reason) = refused(narrow, 1, 3, 1 << 14);
    assert!(at == "stage3.slot1" && reason.contains("multiply-adds"), "{at}: {reason}");
}

#[test]
fn a_small_file_cannot_ask_for_much_memory() {
    let sound = Space::load("quickstart").unwrap().to_toml().unwrap();
    let refused = |text: &str| Space::parse_toml(text, Path::new("space.toml")).unwrap_err().to_string();
    let named =
        |label: &str| sound.replacen("[[candidates]]\n", &format!("[[candidates]]\nlabel = {label:?}\n"), 1);
    assert!(Space::parse_toml(&named(&"l".repeat(64)), Path::new("space.toml")).is_ok());
    assert!(refused(&named(&"l".repeat(65))).contains("1 to 64"));
    for label in ["", "a,b", "a b", "a.b", "[a", "7"] {
        assert!(refused(&named(label)).contains("candidates[0].label"), "{label:?}");
    }
    let many: String = (0..250)
        .map(|i| format!("[[candidates]]\nlabel = \"c{i}\"\nblock = \"conv\"\nkernel = 1\n"))
        .collect();
    let slots = "[[stages]]\nchannels = 8\nslots = 100\nstride = 1\n";
    assert!(refused(&format!("{sound}{many}{slots}")).contains("must be 1 to 16384"));
}

#[test]
fn a_file_of_more_than_a_mebibyte_is_no_space() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("space.toml");
    let mut text = Space::load("quickstart").unwrap().to_toml().unwrap();
    std::fs::write(&path, &text).unwrap();
    assert!(Space::load(path.to_str().unwrap()).is_ok());
    text.push_str(&"#".repeat(1 << 20));
    std::fs::write(&path, &text).unwrap();
    let error = Space::load(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("1048576 bytes"), "{error}");
}

/// A search that drops candidates must not make the same integers mean another network.
#[test]
fn integers_count_the_candidates_that_a_slot_had_before_it_was_reduced() {
    let space = Space::load("quickstart").unwrap();
    let reduced = space.without(&[(0, 0), (0, 1)]).unwrap();
    let integers = |first: usize| {
        let rest = space.slots()[1..].iter().map(|_| "0".to_owned());
        std::iter::once(first.to_string()).chain(rest).collect::<Vec<_>>().join(",")
    };
    for first in 2..space.slots()[0].choices.len() {
        let (before, after) = (path(&space, &integers(first)), path(&reduced, &integers(first)));
        assert_eq!(space.labels(&before), reduced.labels(&after));
    }
    for dropped in 0..2 {
        let error = reduced.parse(&integers(dropped)).unwrap_err().to_string();
        assert!(error.contains(&space.slots()[0].name), "{error}");
    }
}

#[test]
fn joined_text_is_labels_alone() {
    let space = Space::load("nas-bench-macro").unwrap();
    assert_eq!(path(&space, "0,1,2,0,1,2,0,1"), path(&space, "01201201"));
    // The digits are labels, so what stands second in a reduced slot keeps its digit.
    let reduced = space.without(&[(0, 0)]).unwrap();
    assert_eq!(reduced.text(&path(&reduced, "21201201")), "21201201");
    assert!(matches!(reduced.parse("01201201"), Err(Error::Arch { .. })));
    assert!(matches!(space.parse("-1,1,2,0,1,2,0,1"), Err(Error::Arch { .. })));
    let two = space.without(&[(0, 1)]).unwrap();
    assert!(matches!(two.parse("1,1,2,0,1,2,0,1"), Err(Error::Arch { .. })), "1 is gone, and not the second");
}

#[test]
fn what_is_no_candidate_is_refused_by_name() {
    let sound = Space::load("quickstart").unwrap().to_toml().unwrap();
    for (block, name) in [
        ("block = \"pool\"", "pool"),
        ("block = \"dropout\"\nrate = 0.5", "dropout"),
        ("block = \"linear\"\nbias = true", "linear"),
    ] {
        let text = format!("{sound}[[candidates]]\nwhere = \"same-shape\"\n{block}\n");
        let error = Space::parse_toml(&text, Path::new("space.toml")).unwrap_err().to_string();
        assert!(error.contains("candidates[") && error.contains(&format!("a {name} layer")), "{error}");
        assert!(error.contains("skip, conv, inverted-residual, shuffle, xception"), "{error}");
    }
}

#[test]
fn channels_of_the_last_layer_are_refused_where_classes_say_them() {
    let mut text = Space::load("nas-bench-macro").unwrap().to_toml().unwrap();
    let at = text.rfind("block = \"linear\"").unwrap();
    text.insert_str(at, "channels = 10\n");
    let error = Space::parse_toml(&text, Path::new("space.toml")).unwrap_err().to_string();
    assert!(error.contains("head[2].channels") && error.contains("classes"), "{error}");
}

#[test]
fn dropping_what_is_not_there_is_an_error() {
    let space = Space::load("quickstart").unwrap();
    let choices = space.slots()[2].choices.len();
    assert!(
        matches!(space.without(&[(2, choices)]), Err(Error::Space { at, .. }) if at == space.slots()[2].name)
    );
    assert!(matches!(space.without(&[(space.slots().len(), 0)]), Err(Error::Space { .. })));
}

#[test]
fn a_spaces_digest_is_that_of_its_meaning() {
    let space = Space::load("quickstart").unwrap();
    let digest = space.digest().unwrap();
    assert_eq!(space.without(&[]).unwrap().digest().unwrap(), digest);
    let less = space.without(&[(1, 0)]).unwrap();
    assert_ne!(less.digest().unwrap(), digest);
    assert_eq!(less.without(&[]).unwrap().digest().unwrap(), less.digest().unwrap());
    let text = space.to_toml().unwrap().replacen(space.about(), "other words", 1);
    let reworded = Space::parse_toml(&text, Path::new("space.toml")).unwrap();
    assert_eq!((reworded.about(), reworded.digest().unwrap()), ("other words", digest));
    let one = space.only(&space.first()).unwrap();
    assert_ne!(one.digest().unwrap(), space.digest().unwrap());
}

#[test]
fn a_file_of_an_architecture_is_read_by_its_own_space_alone() {
    let space = Space::load("quickstart").unwrap();
    let arch = space.sample(&mut Rng::new(3, "test").at(0, 0, 0));
    let json = serde_json::to_string(&space.arch_file(&arch).unwrap()).unwrap();
    let file: ArchFile = serde_json::from_str(&json).unwrap();
    assert_eq!(space.read_arch_file(&file).unwrap(), arch);

    let refused = |space: &Space, file: &ArchFile| match space.read_arch_file(file) {
        Err(Error::Arch { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let other = Space::load("spos-cifar").unwrap();
    let reason = refused(&other, &file);
    let digests = [space.digest().unwrap(), other.digest().unwrap()];
    for named in ["quickstart", "spos-cifar", &digests[0], &digests[1]] {
        assert!(reason.contains(named), "{named}: {reason}");
    }
    assert!(refused(&space.with_classes(7).unwrap(), &file).contains(&digests[0]));

    let changed = |change: &dyn Fn(&mut ArchFile)| {
        let mut file = file.clone();
        change(&mut file);
        refused(&space, &file)
    };
    assert!(changed(&|f| drop(f.choices.pop())).contains("7 choices for 8 slots"));
    assert!(changed(&|f| f.choices.swap(0, 1)).contains("stage1.slot1"));
    assert!(changed(&|f| f.choices[1].1 = "mb_k3_e4".into()).contains("stage1.slot2 has no candidate"));
    assert!(changed(&|f| f.macs += 1).contains("multiply-adds"));
}

/// `docs/papers.md`: what the CIFAR space takes from its reference, and where it keeps to the paper.
#[test]
fn spos_for_cifar_halves_twice_drops_nothing_and_projects_where_channels_change() {
    let space = Space::load("spos-cifar").unwrap();
    let strides: Vec<usize> = space.slots().iter().map(|s| s.place.stride).collect();
    let halving: Vec<usize> = (0..20).filter(|&i| strides[i] == 2).collect();
    assert_eq!(halving, [4, 8]);
    assert!(!space.head().iter().any(|l| matches!(l.block, Block::Dropout { .. })));
    // 16 -> 64 at stride 1, 3x3: projection (depthwise, 16 -> 16), then 16 -> 32, depthwise, 32 -> 48.
    let macs = 32 * 32 * (9 * 16 + 16 * 16 + 16 * 32 + 9 * 32 + 32 * 48);
    assert_eq!(space.slots()[0].choices[0].cost.macs, macs);
}

/// So a reduced supernet and a single network can take over weights by name.
#[test]
fn weights_of_a_reduced_space_are_weights_of_the_whole() {
    let cpu = Cpu::new(1).unwrap();
    for name in ["quickstart", "nas-bench-macro"] {
        let space = Space::load(name).unwrap();
        let weights = |space: &Space| {
            let model = Model::new(space, NormParams::Supernet).unwrap();
            let store = model.init(&cpu, &Rng::new(0, "init")).unwrap();
            let rows = store.table().iter().map(|p| (p.name.clone(), p.shape.len()));
            rows.collect::<BTreeMap<String, usize>>()
        };
        let whole = weights(&space);
        let arch = space.largest();
        let only = weights(&space.only(&arch).unwrap());
        assert_eq!(only.values().sum::<usize>() as u64, space.cost(&arch).params, "{name}");
        let without = weights(&space.without(&[(0, 0), (3, 1)]).unwrap());
        for part in [&only, &without] {
            assert!(part.len() < whole.len(), "{name}");
            for (weight, len) in part {
                assert_eq!(whole.get(weight), Some(len), "{name}: {weight}");
            }
        }
        let lost = format!("{}.{}.", space.slots()[3].name, space.slots()[3].choices[1].label);
        let has = |weights: &BTreeMap<String, usize>| weights.keys().any(|w| w.starts_with(&lost));
        assert!(has(&whole) && !has(&without), "{name}: {lost}");
    }
}

/// Letters, a digit, an ideograph, an emoji, a combining mark, a byte-order mark, a blank, zero.
const LETTERS: [char; 9] =
    ['\u{e9}', '\u{3a9}', '\u{6f3}', '\u{4e2d}', '\u{1f980}', '\u{301}', '\u{feff}', '\u{3000}', '\0'];

#[test]
fn letters_of_any_script_are_errors_not_panics() {
    let space = Space::load("mobilenet-se").unwrap();
    let texts = [space.to_toml().unwrap(), space.text(&space.largest())];
    let mut draws = Rng::new(5, "letters").at(0, 0, 0);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..2_000 {
        for (i, text) in texts.iter().enumerate() {
            let mut letters: Vec<char> = text.chars().collect();
            for _ in 0..=draws.below(3) {
                let at = draws.below(letters.len() as u32) as usize;
                let letter = LETTERS[draws.below(LETTERS.len() as u32) as usize];
                if draws.below(2) == 0 { letters[at] = letter } else { letters.insert(at, letter) }
            }
            let mutated: String = letters.into_iter().collect();
            let outcome = match i {
                0 => {
                    Space::parse_toml(&mutated, Path::new("mutated.toml")).map(|s| drop(s.to_toml().unwrap()))
                }
                _ => space.parse(&mutated).map(|arch| drop(space.text(&arch))),
            };
            match outcome {
                Ok(()) => read += 1,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 0 && refused > 2_000, "{read} {refused}");
}

#[test]
fn weights_start_as_the_rule_of_their_space_says() {
    let cpu = Cpu::new(1).unwrap();
    let text = Space::load("nas-bench-macro").unwrap().to_toml().unwrap();
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("init")).collect();
    // Standard deviations of a kernel by its pixels, channels in and out, and groups; of the linear layer by its
    // inputs.
    type Conv = fn(f64, f64, f64, f64) -> f64;
    type Linear = fn(f64) -> f64;
    let normal: Linear = |_| 0.01;
    let rules: [(&str, Conv, Linear); 4] = [
        ("kaiming", |k, _, out, groups| (2.0 * groups / (k * out)).sqrt(), normal),
        ("mobilenet", |k, _, out, _| (2.0 / (k * out)).sqrt(), normal),
        ("pytorch", |k, input, _, groups| (groups / (3.0 * k * input)).sqrt(), |n| (1.0 / (3.0 * n)).sqrt()),
        ("spos", |_, input, _, groups| groups / input, normal),
    ];
    for (name, conv, linear) in rules {
        let text = format!("init = \"{name}\"\n{}", rest.join("\n"));
        let space = Space::parse_toml(&text, Path::new("space.toml")).unwrap();
        let model = Model::new(&space, NormParams::Supernet).unwrap();
        let store = model.init(&cpu, &Rng::new(0, "init")).unwrap();
        let mut met = 0;
        for id in store.ids() {
            let (param, values) = (store.param(id), store.value(id).unwrap());
            let dims: Vec<f64> = param.shape.dims().iter().map(|&d| d as f64).collect();
            let want = match dims[..] {
                [_, input] if param.name == "head.2.weight" => linear(input),
                [out, input] => conv(1.0, input, out, 1.0),
                [k, _, c] => conv(k * k, c, c, c),
                // Norms, biases, and kernels that are dense.
                _ => continue,
            };
            let square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
            // Of n values the deviation is known to 1 / sqrt(2 n); the smallest kernel has 864.
            assert!((square.sqrt() / want - 1.0).abs() < 0.1, "{name}: {} {}", param.name, square.sqrt());
            met += 1;
        }
        assert_eq!(met, 50, "{name}: three kernels of two candidates in eight slots, and two of the head");
    }
}
