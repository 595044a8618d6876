//! Straight-line random programs: the device against the host, bit for bit.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use support::*;

const PROGRAMS: usize = 24;

/// Results of the host, program by program; `None` if there is no C compiler.
fn host(x: &[u32]) -> Option<Vec<u32>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/random.cu");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("random_programs");
    let made = Command::new("cc")
        .args(["-x", "c", "-O1", "-ffp-contract=off", "-o"])
        .arg(&program)
        .arg(&source)
        .arg("-lm")
        .status()
        .ok()?;
    assert!(made.success(), "the C compiler refuses random.cu");
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program was just made");
    let text: String = x.chunks(3).map(|c| format!("{} {} {}\n", c[0], c[1], c[2])).collect();
    let mut stdin = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let out = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads everything");
    let flat: Vec<u32> = String::from_utf8(out.stdout)
        .expect("digits")
        .lines()
        .map(|l| l.parse().expect("a number"))
        .collect();
    let n = x.len() / 3;
    Some((0..PROGRAMS * n).map(|i| flat[i % n * PROGRAMS + i / n]).collect())
}

#[test]
fn random_programs_give_the_hosts_bits() {
    let mut x: Vec<u32> = bits(3 * 400, 2024).into_iter().map(|b| b as u32).collect();
    for (i, v) in [0, 1, u32::MAX, 1 << 31, (1 << 31) - 1, 0x8000, 0xff, 0x7f80_0000].into_iter().enumerate()
    {
        x[i * 3..i * 3 + 3].copy_from_slice(&[v, v.wrapping_add(i as u32), v ^ 0x5555]);
    }
    let n = x.len() / 3;
    let Some(want) = host(&x) else {
        println!("skipped: no C compiler");
        return;
    };
    for compiler in COMPILERS {
        let g = Gpu::corpus("random", compiler);
        let (px, py) = (g.upload(&x), g.empty::<u32>(PROGRAMS * n));
        let args = [Arg::Ptr(px), Arg::Ptr(py), Arg::I32(n as i32)];
        g.run("random_programs", [n.div_ceil(128) as u32, PROGRAMS as u32, 1], [128, 1, 1], 0, &args)
            .unwrap_or_else(|e| panic!("{e}"));
        let got = g.download::<u32>(py, PROGRAMS * n);
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            let k = i % n;
            assert_eq!(g, w, "{compiler}, program {}, inputs {:?}", i / n, &x[3 * k..3 * k + 3]);
        }
    }
}
