//! `cargo run --release -p soak`: everything that is done to break a run, with large counts, a line for
//! each item. Items that `cargo test` holds as they are, are run as that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;

/// Breaks runs in every way it knows and says what became of them.
#[derive(Parser)]
struct Soak {
    /// Items by name [default: all]
    items: Vec<String>,
    /// Kills, half of them at random times, half inside system calls
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Every which system call of a run is made to fail
    #[arg(long, default_value_t = 1)]
    stride: usize,
    /// Sizes of the full disk
    #[arg(long, default_value_t = 24)]
    disks: u32,
    /// List the items
    #[arg(long)]
    list: bool,
}

/// How an item is done.
enum Work {
    /// Here; the line to print, or why it cannot be done on this machine.
    Here(fn(&Soak) -> Result<String, String>),
    /// `cargo test --release` with these arguments.
    Tests(&'static [&'static str]),
}

/// (name, what it holds, work).
const ITEMS: [(&str, &str, Work); 12] = [
    (
        "kills",
        "kill -9 at random times, over all stages",
        Work::Here(|soak| Ok(soak::kills(soak.kills.div_ceil(2)))),
    ),
    (
        "calls",
        "kill -9 inside the system calls that write",
        Work::Here(|soak| Ok(soak::kills_in_calls(soak.kills.div_ceil(2)))),
    ),
    (
        "faults",
        "ENOSPC, EIO and short writes, call by call",
        Work::Here(|soak| Ok(soak::faults(soak.stride))),
    ),
    ("disk", "a full disk", Work::Here(|soak| soak::full_disks(soak.disks))),
    ("resume", "going on after every step", Work::Here(|_| Ok(soak::resumed_at_every_step()))),
    ("threads", "other threads and workers", Work::Here(|_| Ok(soak::threads_and_workers()))),
    ("order", "scores in any order", Work::Tests(&["-p", "nas", "--test", "evaluation"])),
    (
        "corrupt",
        "corrupt pictures and the policies",
        Work::Tests(&["-p", "nas", "--test", "data", "corrupt"]),
    ),
    ("finite", "a NaN planted in a layer", Work::Here(|_| Ok(soak::a_planted_nan_is_named()))),
    ("mutations", "mutated files of every reader", Work::Tests(&["-p", "nas", "mutated"])),
    (
        "rules",
        "unsafe code, tar members that lead elsewhere",
        Work::Tests(&["-p", "monopath", "--test", "main", "tidy"]),
    ),
    ("signals", "SIGINT and SIGTERM", Work::Tests(&["-p", "monopath", "--test", "main", "signals"])),
];

fn main() -> ExitCode {
    let soak = Soak::parse();
    if soak.list {
        ITEMS.iter().for_each(|(name, what, _)| println!("{name:<10} {what}"));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = soak.items.iter().find(|item| ITEMS.iter().all(|(name, ..)| name != item)) {
        eprintln!("error: no item is called {unknown:?}; --list names them");
        return ExitCode::from(2);
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built = Command::new(&cargo)
        .args(["build", "--release", "--quiet", "-p", "monopath", "-p", "faults"])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("error: the program could not be built");
        return ExitCode::FAILURE;
    }
    let mut sound = true;
    for (name, what, work) in &ITEMS {
        if !soak.items.is_empty() && !soak.items.iter().any(|item| item == name) {
            continue;
        }
        let began = Instant::now();
        let outcome = match work {
            Work::Here(work) => catch_unwind(AssertUnwindSafe(|| work(&soak)))
                .unwrap_or_else(|_| Err("FAILED, see above".into())),
            Work::Tests(args) => tests(&cargo, args),
        };
        sound &= outcome.is_ok();
        let line = outcome.unwrap_or_else(|reason| format!("NOT HELD ({what}): {reason}"));
        println!("{name:<10} {line} ({:.0} s)", began.elapsed().as_secs_f64());
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs tests; how many there were.
fn tests(cargo: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(cargo).args(["test", "--release", "--quiet"]).args(args).output();
    let output = output.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let passed: u64 = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("test result: ok. ")?.split_once(" passed")?.0.parse::<u64>().ok()
        })
        .sum();
    match (output.status.success(), passed) {
        (true, 1..) => Ok(format!("{passed} tests passed: cargo test --release {}", args.join(" "))),
        (true, 0) => Err(format!("no test matches {}", args.join(" "))),
        (false, _) => Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}
