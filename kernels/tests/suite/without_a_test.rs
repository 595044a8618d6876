//! What ships is run: every kernel, and every basic block but for those listed with a reason.
//!
//! The test here waits for all others and looks at what they did. It relies on the order in which tests are started,
//! which is that of their names.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kernels::manifest;
use monopath_vgpu::driver::occupancy::{Needs, blocks, blocks_by_registers};
use monopath_vgpu::props::DeviceProps;

use crate::harness::{Kernels, done};

/// Tests that run no kernel.
const HOST: [&str; 3] = ["dropout::known_answers_of_random123", "shipping::", "without_a_test::"];

/// Why blocks of kernels whose names begin so may stay unreached; the first that fits counts.
const REASONS: [(&str, &str); 5] = [
    (
        "pointwise_conv2d_bwd",
        "single elements past edges that no case cuts there; activations above that another case has",
    ),
    (
        "pointwise_conv2d_fwd",
        "single elements past edges that no case cuts there; loops unrolled for other lengths",
    ),
    ("conv2d_", "borders that no case cuts so, in tiles of other widths"),
    (
        "depthwise_conv2d",
        "loops unrolled for other numbers of warps; places past edges that no case cuts there",
    ),
    ("", "copies of loops that the compiler unrolled for other lengths"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Tests of this program that run kernels, of those that were asked for with these arguments.
fn tests(args: impl Iterator<Item = String>) -> BTreeSet<String> {
    let own = std::env::current_exe().expect("a running program has a path");
    let out = Command::new(own).args(args).args(["--list", "--format=terse"]).output().expect("it starts");
    let text = String::from_utf8(out.stdout).expect("names are text");
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    names.filter(|name| !HOST.iter().any(|host| name.starts_with(host))).map(String::from).collect()
}

/// What all tests of this process executed, once they have ended; nothing where some of them were not asked for.
fn executed() -> Option<Kernels> {
    let all = tests(std::iter::empty());
    if tests(std::env::args().skip(1)) != all {
        println!("skipped: only a run of all tests shows what none of them runs");
        return None;
    }
    let (mut before, mut quiet) = (0, 0);
    loop {
        let done = done();
        if done.tests == all {
            return Some(done.kernels.clone());
        }
        quiet = if done.tests.len() == before { quiet + 1 } else { 0 };
        before = done.tests.len();
        assert!(quiet < 6000, "no test ended for ten minutes; missing: {:?}", all.difference(&done.tests));
        drop(done);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Compares with a committed file; `MONOPATH_BLESS=1` writes it.
fn same(path: &str, now: &str) {
    let path = root().join(path);
    if std::env::var_os("MONOPATH_BLESS").is_some() {
        std::fs::write(&path, now).expect("the folder is writable");
    }
    let committed = std::fs::read_to_string(&path).expect("it is committed");
    for (have, want) in now.lines().zip(committed.lines()) {
        assert_eq!(have, want, "{}", path.display());
    }
    assert_eq!(now, committed);
}

/// A line per kernel: threads and shared memory of the largest block that a test launches, and how many warps of such
/// blocks a multiprocessor of every architecture holds.
fn occupancy(ran: &Kernels) -> String {
    let registers = std::fs::read_to_string(root().join("ptx/registers.txt")).expect("it is committed");
    let mut lines = registers.lines();
    let head = lines.next().and_then(|l| l.strip_prefix("kernel ")).expect("a head");
    let devices: Vec<DeviceProps> = head
        .split(' ')
        .map(|sm| sm.strip_prefix("sm_").and_then(|n| n.parse::<u32>().ok()).expect("an architecture"))
        .map(|n| DeviceProps::new((n / 10, n % 10), 1 << 30))
        .collect();
    let mut text = format!("kernel threads shared {head}\n");
    for line in lines {
        let (name, used) = line.split_once(' ').expect("a name and numbers");
        let (threads, shared) = ran.get(name).map_or((0, 0), |k| (k.threads as u32, k.shared as u32));
        let needs = Needs { static_shared: 0, max_threads: threads, optin: shared };
        let _ = write!(text, "{name} {threads} {shared}");
        for (device, used) in devices.iter().zip(used.split(' ')) {
            let used = used.parse().expect("a number");
            let fit = blocks(device, &needs, threads, shared.into());
            let fit = fit.min(blocks_by_registers(device, used, threads));
            let _ = write!(text, " {}", fit * threads.div_ceil(32));
        }
        text.push('\n');
    }
    text
}

#[test]
fn is_no_kernel_and_no_basic_block_that_is_not_listed() {
    let Some(ran) = executed() else { return };
    let (mut never, mut listed) = (Vec::new(), String::new());
    for source in manifest::sources(root()).expect("the folder is there") {
        let ptx = std::fs::read_to_string(root().join(format!("ptx/{source}.ptx"))).expect("it is committed");
        let text: Vec<&str> = ptx.lines().collect();
        for name in manifest::kernels(&ptx) {
            let Some(k) = ran.get(name) else {
                never.push(name.to_string());
                continue;
            };
            let missing: Vec<u32> =
                k.blocks.iter().filter(|(_, reached)| !**reached).map(|(l, _)| *l).collect();
            for line in &missing {
                println!("unreached {name} {line} {}", text[*line as usize - 1].trim());
            }
            if !missing.is_empty() {
                let why = REASONS.iter().find(|(start, _)| name.starts_with(start)).expect("the last fits");
                let _ = writeln!(listed, "{name} {} of {}: {}", missing.len(), k.blocks.len(), why.1);
            }
        }
    }
    assert!(never.is_empty(), "kernels that no test runs: {never:?}");
    same("tests/suite/unreached.txt", &listed);
    same("ptx/occupancy.txt", &occupancy(&ran));
}
