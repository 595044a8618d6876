//! The decoder: what it refuses, that it never panics, that the documentation lists its forms, that the committed PTX is
//! what its manifest says.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use monopath_vgpu::ptx::{LoadErrorKind, Module, forms_markdown};
use support::*;

fn load(body: &str) -> Result<Module, monopath_vgpu::ptx::LoadError> {
    Module::load(&format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n\
         .reg .b64 %rd<3>;\n.reg .b32 %r<3>;\n.reg .f32 %f<3>;\n.reg .pred %p<3>;\n{body}\nret;\n}}\n"
    ))
}

fn refused(body: &str) -> LoadErrorKind {
    let e = load(body).expect_err(body);
    assert_eq!((e.kernel.as_deref(), e.line), (Some("k"), 10), "{e}");
    assert_eq!(e.text, body, "the report shows the line");
    e.kind
}

#[test]
fn unknown_opcodes_and_modifiers_are_refused_by_name() {
    assert_eq!(refused("frobnicate.b32 %r1, %r2;"), LoadErrorKind::Opcode { name: "frobnicate".into() });
    for form in [
        "add.rn.ftz.frob.f32 %f1, %f1, %f2;",
        "add.ftz.rn.f32 %f1, %f1, %f2;",
        "ld.global.L3::evict_last.u32 %r1, [%rd1];",
        "mma.sync.aligned.m16n8k16.col.row.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r1}, {%f1};",
        "atom.global.add.s64 %rd1, [%rd1], 1;",
        "shfl.up.b32 %r1, %r1, 1, 31;",
        "setp.ltu.s32 %p1, %r1, %r2;",
        "setp.lt.b32 %p1, %r1, %r2;",
        "cvt.f32.s32 %f1, %r1;",
        "cvt.s32.f32 %r1, %f1;",
        "fma.f32 %f1, %f1, %f1, %f1;",
        "bar.sync.aligned 0;",
        "wgmma.fence.sync.aligned;",
    ] {
        let kind = refused(form);
        assert!(matches!(kind, LoadErrorKind::Form { .. } | LoadErrorKind::Opcode { .. }), "{form}: {kind}");
    }
}

#[test]
fn wrong_operands_are_refused() {
    assert!(matches!(refused("add.s32 %r1, %r2, %r9;"), LoadErrorKind::Register { name } if name == "%r9"));
    assert!(matches!(refused("add.s32 %r1, %r2, %rd1;"), LoadErrorKind::RegisterKind { .. }));
    assert!(matches!(refused("add.s32 %r1, %r2;"), LoadErrorKind::Operands { need: 3, have: 2 }));
    assert!(matches!(refused("add.s32 %r1, %r2, 5000000000;"), LoadErrorKind::Range { .. }));
    assert!(matches!(refused("add.s32 %r1, %r2, 0f3F800000;"), LoadErrorKind::Operand { index: 3, .. }));
    assert!(matches!(refused("bra NOWHERE;"), LoadErrorKind::Label { .. }));
    assert!(matches!(refused("@%r1 ret;"), LoadErrorKind::RegisterKind { .. }));
    assert!(matches!(refused("ld.shared.u32 %r1, [p];"), LoadErrorKind::Operand { .. }));
    assert!(matches!(refused("ld.param.u64 %rd1, [p+8];"), LoadErrorKind::Range { .. }));
    assert!(matches!(refused("st.param.u64 [p], %rd1;"), LoadErrorKind::Operand { .. }));
    assert!(matches!(refused("call nothing;"), LoadErrorKind::Symbol { .. }));
    assert!(matches!(refused("cp.async.cg.shared.global [%r1], [%rd1], 8;"), LoadErrorKind::Operand { .. }));
    assert!(matches!(refused("mov.u32 %r1, %globaltimer_lo;"), LoadErrorKind::Register { .. }));
    assert!(matches!(refused(".reg .b32 %huge<4000000000>;"), LoadErrorKind::TooLarge { .. }));
}

#[test]
fn recursion_and_explosive_inlining_are_refused() {
    let module = |functions: &str| {
        Module::load(&format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n{functions}\n.visible .entry k() {{ call f0; ret; }}\n"
        ))
    };
    let e =
        module(".func f1;\n.func f0 { call f1; ret; }\n.func f1 { call f0; ret; }").expect_err("a circle");
    assert!(matches!(e.kind, LoadErrorKind::Recursive { .. }), "{e}");
    // Each function calls the next twice: two to the fortieth instructions.
    let mut text = String::new();
    (1..=40).for_each(|i| text += &format!(".func f{i};\n"));
    (0..40).for_each(|i| text += &format!(".func f{i} {{ call f{0}; call f{0}; ret; }}\n", i + 1));
    text += ".func f40 { ret; }\n";
    let e = module(&text).expect_err("too many instructions");
    assert!(matches!(e.kind, LoadErrorKind::TooLarge { .. }), "{e}");
    let e = module(".extern .func f0;").expect_err("no body");
    assert!(matches!(e.kind, LoadErrorKind::External { .. }), "{e}");
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn corpus_ptx() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = std::fs::read_dir(corpus().join("ptx"))
        .expect("the corpus is committed")
        .map(|e| e.expect("readable").path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(p).unwrap()))
        .collect();
    all.sort();
    all
}

/// Damaged texts are refused or load; they never panic, and take no memory beyond their size.
#[test]
fn damaged_ptx_never_panics() {
    let snippets: [&str; 12] = [
        "%r1",
        "4294967296",
        "{",
        "}",
        "[",
        ";",
        ".reg .b32 %z<1000000>;",
        "-1",
        "_",
        ".v4",
        "bra $L",
        "0f7FC00000",
    ];
    for (name, text) in corpus_ptx() {
        let lines: Vec<&str> = text.lines().collect();
        for (i, r) in bits(40, name.len() as u64).into_iter().enumerate() {
            let mut damaged: Vec<String> = lines.iter().map(|l| l.to_string()).collect();
            let at = (r % lines.len() as u64) as usize;
            match i % 5 {
                0 => {
                    damaged.remove(at);
                }
                1 => damaged[at] = lines[(r >> 20) as usize % lines.len()].into(),
                2 => {
                    let words: Vec<&str> = lines[at].split(' ').collect();
                    let k = (r >> 30) as usize % words.len();
                    let s = snippets[(r >> 40) as usize % snippets.len()];
                    damaged[at] = words
                        .iter()
                        .enumerate()
                        .map(|(j, w)| if j == k { s } else { w })
                        .collect::<Vec<_>>()
                        .join(" ");
                }
                3 => damaged.truncate(at),
                _ => {
                    let half = damaged[at].chars().count() / 2;
                    damaged[at] = damaged[at].chars().take(half).collect();
                }
            }
            let _ = Module::load(&damaged.join("\n"));
        }
    }
    for text in [
        "",
        "\0",
        ".version",
        ".version 8.0",
        "é",
        ".version 8.0 .target sm_80 .global .b8 x[99999999999999] = {1};",
    ] {
        assert!(Module::load(text).is_err() || text.ends_with("sm_80"), "{text:?}");
    }
}

#[test]
fn the_documentation_lists_exactly_the_decoders_forms() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vgpu.md");
    let text = std::fs::read_to_string(path).expect("docs/vgpu.md exists");
    let start = text.find("### Integer and logic").expect("the table of forms");
    assert!(
        text[start..].trim_end() == forms_markdown().trim_end(),
        "docs/vgpu.md is not what `cargo run -p vgpu --example forms` prints"
    );
}

#[test]
fn the_corpus_uses_a_good_part_of_the_forms() {
    let opcodes: BTreeSet<String> = corpus_ptx()
        .iter()
        .flat_map(|(_, text)| text.lines().map(str::trim).map(String::from).collect::<Vec<_>>())
        .filter(|l| l.ends_with(';') && !l.starts_with(['.', '/', '{', '}']))
        .filter_map(|l| {
            let l = l
                .strip_prefix('@')
                .map_or(l.as_str(), |l| l.split_once([' ', '\t']).map_or("", |x| x.1))
                .to_string();
            l.split([' ', '\t', ';']).next().map(String::from)
        })
        .filter(|w| w.chars().next().is_some_and(char::is_alphabetic))
        .collect();
    assert!(opcodes.len() > 150, "{} distinct forms", opcodes.len());
}

/// SHA-256, for the manifest.
fn sha256(data: &[u8]) -> String {
    let primes: Vec<u32> = (2u32..312).filter(|n| (2..*n).all(|d| n % d != 0)).take(64).collect();
    // The constants are the first 32 bits behind the point of cube and square roots.
    let cube = |n: u32| {
        let target = u128::from(n) << 96;
        let (mut lo, mut hi) = (0u128, 1u128 << 36);
        while hi - lo > 1 {
            let mid = (lo + hi) / 2;
            if mid * mid * mid <= target { lo = mid } else { hi = mid }
        }
        lo as u32
    };
    let square = |n: u32| (u128::from(n) << 64).isqrt() as u32;
    let k: Vec<u32> = primes.iter().map(|p| cube(*p)).collect();
    let mut h: Vec<u32> = primes[..8].iter().map(|p| square(*p)).collect();
    let mut message = data.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((data.len() as u64 * 8).to_be_bytes());
    for chunk in message.chunks(64) {
        let mut w: Vec<u32> = chunk.chunks(4).map(|b| u32::from_be_bytes(b.try_into().unwrap())).collect();
        for i in 16..64 {
            let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
            let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
            w.push(w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1));
        }
        let mut v = h.clone();
        for i in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let ch = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = v[7].wrapping_add(s1).wrapping_add(ch).wrapping_add(k[i]).wrapping_add(w[i]);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let maj = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v = vec![
                t1.wrapping_add(s0.wrapping_add(maj)),
                v[0],
                v[1],
                v[2],
                v[3].wrapping_add(t1),
                v[4],
                v[5],
                v[6],
            ];
        }
        h.iter_mut().zip(v).for_each(|(h, v)| *h = h.wrapping_add(v));
    }
    h.iter().map(|v| format!("{v:08x}")).collect()
}

#[test]
fn the_committed_ptx_is_what_the_manifest_says() {
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let text = std::fs::read_to_string(corpus().join("manifest.json")).expect("the manifest is committed");
    let manifest: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
    let files = manifest["files"].as_object().expect("an object");
    let mut seen = BTreeSet::new();
    for (stem, entry) in files {
        let source = std::fs::read(corpus().join(format!("{stem}.cu"))).expect("a listed source exists");
        assert_eq!(entry["source"], sha256(&source), "{stem}.cu was edited; run corpus/make.py");
        for (label, made) in entry["ptx"].as_object().expect("an object") {
            let name = format!("{stem}.{label}.ptx");
            let ptx = std::fs::read(corpus().join("ptx").join(&name)).expect("a listed PTX exists");
            assert_eq!(made["digest"], sha256(&ptx), "{name} is not the file that was made");
            seen.insert(name);
        }
    }
    let present: BTreeSet<String> = corpus_ptx().into_iter().map(|(name, _)| name).collect();
    assert_eq!(seen, present);
    for (name, pins) in manifest["compilers"].as_object().expect("an object") {
        let text = std::fs::read_to_string(corpus().join(name)).expect("the requirements are committed");
        let pins: Vec<&str> = pins.as_array().expect("a list").iter().filter_map(|p| p.as_str()).collect();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), pins);
    }
}
