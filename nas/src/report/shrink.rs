//! The section about shrinking: how the space became smaller, and what went.

use super::chart::{Along, Chart, Mark};
use super::markup::escape;
use super::story::{Curve, Story};
use super::{figure, learning};
use crate::event::Stage;
use crate::figures::count;

/// More rows nobody reads.
const MAX_ROWS: usize = 500;

/// The section, or nothing if the run did not shrink.
pub fn section(story: &Story<'_>) -> String {
    let curves: Vec<&Curve<'_>> = story.curves.iter().filter(|c| c.stage == Stage::Shrink).collect();
    if curves.is_empty() && story.rounds.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        r#"<section><h2>Shrinking</h2><p class="note">Every step trains another path of what is left; the candidates whose networks score lowest go. A score is the mean over networks that contain the candidate. Scores of different rounds do not compare.</p>"#,
    );
    let sizes: Vec<[f64; 2]> = story
        .rounds
        .iter()
        .map(|round| [round.number as f64, round.networks.map_or(f64::NAN, f64::log10)])
        .collect();
    let last = story.rounds.last();
    let about = match last {
        Some(round) => {
            format!("Networks left after each round; after round {}: {}", round.number, round.text)
        }
        None => String::new(),
    };
    let marks = vec![Mark::Steps { class: "best", title: about.clone(), points: sizes }];
    out += &figure(
        "Networks left",
        &Chart { about: &about, x: Along::From0("round"), y: "networks, power of ten", marks },
    );
    out += &learning(&curves, |_| "supernet", "");
    let mut rows = String::new();
    let all = story.rounds.iter().flat_map(|round| round.dropped.iter().map(move |d| (round.number, d)));
    for (round, dropped) in all.clone().take(MAX_ROWS) {
        rows += &format!(
            r#"<tr><th scope="row">{round}</th><td class="text">{}</td><td class="text"><code>{}</code></td><td>{}</td></tr>"#,
            escape(&dropped.slot),
            escape(&dropped.label),
            dropped.score.map_or("none".into(), |score| format!("{score:.4}"))
        );
    }
    let more = all.count().saturating_sub(MAX_ROWS);
    let more = if more > 0 {
        format!(" The last {} are in shrink.json.", count(more as u64))
    } else {
        String::new()
    };
    if !rows.is_empty() {
        out += &format!(
            r#"<div class="scroll"><table><caption>What was dropped.{more}</caption><thead><tr><th scope="col">round</th><th scope="col" class="text">slot</th><th scope="col" class="text">candidate</th><th scope="col">score</th></tr></thead><tbody>{rows}</tbody></table></div>"#
        );
    }
    out + "</section>\n"
}
