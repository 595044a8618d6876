//! The counters of a run as a table for people.

use std::fmt::Write;

use crate::counters::Counters;
use crate::driver::tally::Tally;

const HEADS: [&str; 12] = [
    "launches",
    "warp instr",
    "lane instr",
    "lanes/instr",
    "ld sect/req",
    "st sect/req",
    "moved/needed",
    "shared/ideal",
    "diverged",
    "barriers",
    "mma",
    "atomics",
];

fn ratio(a: u64, b: u64) -> String {
    if b == 0 { "-".into() } else { format!("{:.2}", a as f64 / b as f64) }
}

fn row(launches: u64, c: &Counters) -> [String; 12] {
    let all = c.executed();
    let (g, s) = (&c.global, &c.shared);
    [
        launches.to_string(),
        all.warp.to_string(),
        all.lane.to_string(),
        ratio(all.lane, all.warp),
        ratio(g.load_sectors, g.load_requests),
        ratio(g.store_sectors, g.store_requests),
        ratio(32 * (g.load_sectors + g.store_sectors), g.compulsory_load_bytes + g.compulsory_store_bytes),
        ratio(s.load_wavefronts + s.store_wavefronts, s.load_ideal + s.store_ideal),
        c.divergent_branches.to_string(),
        c.barriers.to_string(),
        c.mma.to_string(),
        c.atomics.to_string(),
    ]
}

/// The table: kernels first, then what the program asked of the driver.
pub fn table(t: &Tally) -> String {
    let mut out = format!(
        "{}, compute capability {}.{}, seed {}, checks {}\n",
        t.device,
        t.capability.0,
        t.capability.1,
        t.seed,
        if t.checks { "on" } else { "off" }
    );
    if !t.kernels.is_empty() {
        let mut rows = vec![("kernel".to_string(), HEADS.map(String::from))];
        let mut sum = Counters::default();
        for (name, k) in &t.kernels {
            rows.push((name.clone(), row(k.launches, &k.counters)));
            sum.merge(&k.counters);
        }
        let launches = t.kernels.values().map(|k| k.launches).sum();
        rows.push(("all".into(), row(launches, &sum)));
        let first = rows.iter().map(|r| r.0.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> =
            (0..HEADS.len()).map(|i| rows.iter().map(|r| r.1[i].len()).max().unwrap_or(0)).collect();
        out.push('\n');
        for (name, cells) in &rows {
            let _ = write!(out, "{name:first$}");
            for (cell, width) in cells.iter().zip(&widths) {
                let _ = write!(out, "  {cell:>width$}");
            }
            out.push('\n');
        }
    }
    let s = &t.synchronisations;
    let lines = [
        (
            "launches",
            format!("{} ({} graphs with {} operations)", t.launches, t.graph_launches, t.graph_nodes),
        ),
        ("copies to the device", format!("{}, {} bytes", t.host_to_device.count, t.host_to_device.bytes)),
        ("copies to the host", format!("{}, {} bytes", t.device_to_host.count, t.device_to_host.bytes)),
        ("copies within", format!("{}, {} bytes", t.device_to_device.count, t.device_to_device.bytes)),
        ("of those pageable", format!("{}, {} bytes", t.pageable.count, t.pageable.bytes)),
        ("fills", format!("{}, {} bytes", t.fills.count, t.fills.bytes)),
        (
            "allocations",
            format!(
                "{} + {} in stream order, {} bytes, {} frees, peak {} bytes",
                t.allocations.count,
                t.stream_allocations.count,
                t.allocations.bytes + t.stream_allocations.bytes,
                t.frees,
                t.peak_bytes
            ),
        ),
        ("pinned", format!("{}, {} bytes", t.host_allocations.count, t.host_allocations.bytes)),
        (
            "synchronisations",
            format!("{} context, {} stream, {} event, {} implicit", s.context, s.stream, s.event, s.implicit),
        ),
        (
            "events",
            format!("{} recorded, {} waited for, {} queries", t.event_records, t.event_waits, t.queries),
        ),
        ("libraries", format!("{} calls, {} multiply-adds", t.library.calls, t.library.multiply_adds)),
        ("reports", t.reports.iter().map(|(k, n)| format!("{k} {n}")).collect::<Vec<_>>().join(", ")),
    ];
    out.push('\n');
    for (name, text) in lines {
        let text = if text.is_empty() { "none" } else { &text };
        let _ = writeln!(out, "{name:22}{text}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_per_kernel_and_a_sum() {
        let mut t = Tally { device: "monopath virtual GPU".into(), ..Tally::default() };
        let mut c = Counters::default();
        c.global.load_requests = 2;
        c.global.load_sectors = 32;
        t.launched("second", [32, 0], &c);
        t.launched("first", [32, 0], &c);
        let text = table(&t);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[3].starts_with("first ") && lines[4].starts_with("second ") && lines[5].starts_with("all ")
        );
        assert!(lines[3].contains("16.00"), "{text}");
        assert!(text.contains("reports               none"), "{text}");
    }

    #[test]
    fn a_run_without_kernels_has_no_kernel_table() {
        assert!(!table(&Tally::default()).contains("kernel"));
    }
}
