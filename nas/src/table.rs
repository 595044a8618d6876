//! The short table that ends a run: the found network beside what chance finds.
//!
//! It fits 80 columns with all figures; narrower terminals lose columns from the right, never lines.

use crate::figures::{count, duration, percent, percent_digits, short};
use crate::outcome::{Network, Outcome};

/// What the comparison of found and random networks allows to say, in one sentence.
pub fn verdict(outcome: &Outcome) -> String {
    let random = &outcome.random;
    let digits = percent_digits(outcome.test_images);
    let difference = percent((outcome.found.top1 - random.mean_top1).abs(), digits);
    match random.n {
        0 => "No random networks were trained beside it: there is nothing to compare with.".into(),
        n if outcome.overlaps() => format!(
            "No difference shown: the found network and the mean of {n} random {} overlap.",
            networks(n)
        ),
        n if outcome.found.top1 > random.mean_top1 => format!(
            "The found network is {difference} points better than the mean of {n} random {}.",
            networks(n)
        ),
        n => format!(
            "The found network is {difference} points worse than the mean of {n} random {}.",
            networks(n)
        ),
    }
}

fn networks(n: usize) -> &'static str {
    if n == 1 { "network" } else { "networks" }
}

/// One line of the comparison. Cells that make no sense for it are empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is: `found`, `random, mean of 5`.
    pub name: String,
    /// Top-1 accuracy in per cent with its error: `87.4 ± 1.0`.
    pub top1: String,
    /// Top-5 accuracy in per cent.
    pub top5: String,
    /// Multiply-adds.
    pub macs: String,
    /// Parameters.
    pub params: String,
    /// Time to find and train it.
    pub time: String,
}

/// The rows of the comparison: found, random mean, random best, largest; absent ones are left out.
pub fn rows(outcome: &Outcome) -> Vec<Row> {
    let digits = percent_digits(outcome.test_images);
    let accuracy = |top1, error| format!("{} ± {}", percent(top1, digits), percent(error, digits));
    let network = |name: String, network: &Network| Row {
        name,
        top1: accuracy(network.top1, network.top1_error),
        top5: percent(network.top5, digits),
        macs: short(network.macs),
        params: short(network.params),
        time: duration(network.seconds),
    };
    let mut rows = vec![network("found".into(), &outcome.found)];
    let random = &outcome.random;
    if random.n > 0 {
        let mean = |f: fn(&Network) -> f64| {
            random.networks.iter().map(f).sum::<f64>() / random.networks.len().max(1) as f64
        };
        let error = random.std_top1 / (random.n as f64).sqrt();
        let listed = !random.networks.is_empty();
        let cell = |text: String| if listed { text } else { String::new() };
        rows.push(Row {
            name: format!("random, mean of {}", count(random.n as u64)),
            top1: if random.n > 1 {
                accuracy(random.mean_top1, error)
            } else {
                percent(random.mean_top1, digits)
            },
            top5: cell(percent(mean(|n| n.top5), digits)),
            macs: cell(short(mean(|n| n.macs as f64).round() as u64)),
            params: cell(short(mean(|n| n.params as f64).round() as u64)),
            time: cell(duration(mean(|n| n.seconds))),
        });
        if let Some(best) = random.networks.iter().max_by(|a, b| a.top1.total_cmp(&b.top1)) {
            rows.push(network("random, best".into(), best));
        }
    }
    rows.extend(outcome.largest.as_ref().map(|largest| network("largest".into(), largest)));
    rows
}

/// The table and its verdict for a terminal of `width` columns; ends without a line break.
pub fn outcome(outcome: &Outcome, width: usize) -> String {
    let rows = rows(outcome);
    let heads = ["network", "top-1 %", "top-5 %", "MACs", "params", "time"];
    let cells: Vec<[&str; 6]> = std::iter::once(heads)
        .chain(rows.iter().map(|r| [&*r.name, &*r.top1, &*r.top5, &*r.macs, &*r.params, &*r.time]))
        .collect();
    let widths: Vec<usize> =
        (0..6).map(|c| cells.iter().map(|row| row[c].chars().count()).max().unwrap_or(0)).collect();
    // Name and accuracy always stay.
    let shown =
        (2..=6).rev().find(|&n| widths[..n].iter().sum::<usize>() + 2 * (n - 1) <= width).unwrap_or(2);
    let mut out = String::new();
    for row in &cells {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for c in 1..shown {
            line += &format!("  {:>1$}", row[c], widths[c]);
        }
        out += line.trim_end();
        out.push('\n');
    }
    let about = format!(
        "{} ± is one standard error: of {} test images, for the mean of its networks.",
        verdict(outcome),
        count(outcome.test_images)
    );
    out.push('\n');
    out += &wrap(&about, width);
    out
}

/// Breaks between words so that lines have at most `width` columns where words allow it.
fn wrap(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::RandomNetworks;

    fn network(subject: &str, top1: f64) -> Network {
        Network {
            subject: subject.into(),
            arch: "mb_k3_e3 skip".into(),
            top1,
            top5: 0.991,
            top1_error: (top1 * (1.0 - top1) / 1000.0).sqrt(),
            macs: 12_345_678,
            params: 204_800,
            predicted_ms: None,
            seconds: 83.0,
        }
    }

    fn sample(found: f64) -> Outcome {
        Outcome {
            seed: 0,
            space: "quickstart".into(),
            test_images: 1000,
            found: network("found", found),
            random: RandomNetworks {
                mean_top1: 0.861,
                std_top1: 0.004,
                best_top1: 0.867,
                n: 5,
                networks: (0..5)
                    .map(|i| network(&format!("random-{i}"), 0.855 + 0.003 * f64::from(i)))
                    .collect(),
            },
            largest: Some(network("largest", 0.88)),
            stages: vec![("search".into(), 12.0)],
        }
    }

    #[test]
    fn the_table_fits_its_terminal_and_keeps_its_rows() {
        for width in [200, 80, 60, 40] {
            let text = outcome(&sample(0.874), width);
            assert!(text.lines().all(|l| l.chars().count() <= width), "{width}:\n{text}");
            for row in ["found", "random, mean of 5", "random, best", "largest"] {
                assert!(text.lines().any(|l| l.starts_with(row)), "{width}: {row}\n{text}");
            }
            assert!(text.contains("87.4 ± 1.0"), "{text}");
        }
        assert!(outcome(&sample(0.874), 80).contains("time"));
        assert!(!outcome(&sample(0.874), 40).contains("params"));
    }

    #[test]
    fn an_overlap_is_said() {
        assert!(outcome(&sample(0.866), 200).contains("No difference shown"));
        assert!(outcome(&sample(0.95), 200).contains("8.9 points better"));
        assert!(outcome(&sample(0.70), 200).contains("16.1 points worse"));
    }

    #[test]
    fn a_run_without_random_networks_compares_nothing() {
        let mut sample = sample(0.9);
        sample.random =
            RandomNetworks { mean_top1: 0.0, std_top1: 0.0, best_top1: 0.0, n: 0, networks: vec![] };
        sample.largest = None;
        assert!(verdict(&sample).contains("nothing to compare"));
        assert_eq!(rows(&sample).len(), 1);
    }
}
