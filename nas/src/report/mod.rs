//! `report.html`: a run as one self-contained page, for a phone as for a desktop, without scripts.
//!
//! The page is made from what is there: a run that stopped early gives a page that says what is missing.
//! It is well-formed XML too, and all text from outside is escaped.

mod chart;
mod from_space;
mod markup;
mod network;
mod ranking;
mod shrink;
mod story;

use std::fmt::Write;

use chart::{Along, Chart, Mark};
use markup::escape;
use story::{Curve, Story};

use crate::event::{Event, Stage};
use crate::figures::{count, duration, percent, percent_digits, short};
use crate::outcome::Outcome;
use crate::rank::Ranking;
use crate::table;

pub use network::{Drawing, Kind, Layer};

/// What a report is made from.
pub struct Input<'a> {
    /// Name of the recipe.
    pub recipe: &'a str,
    /// The run's seed.
    pub seed: u64,
    /// Name of the space.
    pub space: &'a str,
    /// What the space is, in a line.
    pub about: &'a str,
    /// What happened, in order.
    pub events: &'a [Event],
    /// The outcome, once all stages are done.
    pub outcome: Option<&'a Outcome>,
    /// The found network, once there is one.
    pub network: Option<&'a Drawing>,
    /// How well scores order trained networks, where that was asked.
    pub rankings: &'a [Ranking],
    /// Files that exist: what they are, path from the run directory.
    pub files: &'a [(&'a str, &'a str)],
}

/// The page.
pub fn html(input: &Input<'_>) -> String {
    let story = Story::of(input.events);
    let mut page = String::from("<!DOCTYPE html>\n");
    let title = format!("{}, seed {}", escape(input.recipe), input.seed);
    page += r#"<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>"#;
    page += r#"<meta name="viewport" content="width=device-width, initial-scale=1"/>"#;
    page += &format!(
        "<title>{title} · monopath</title>\n<style>\n{}</style></head>\n<body>",
        include_str!("style.css")
    );
    page += &header(input, &story);
    page += "<main>\n";
    if let Some(outcome) = input.outcome {
        page += &comparison(outcome);
    }
    page += &retraining(&story);
    page += &search(input, &story);
    if let Some(network) = input.network {
        page += &found(input, &story, network);
    }
    page += &ranking::section(input.rankings);
    page += &supernet(&story);
    page += &shrink::section(&story);
    page += &times(input, &story);
    page += &warnings(&story);
    page += &files(input);
    page += "</main></body></html>\n";
    page
}

fn header(input: &Input<'_>, story: &Story<'_>) -> String {
    let mut out = format!(
        r#"<header><h1>{}</h1><p class="about">seed {} · space <strong>{}</strong>{}</p>"#,
        escape(input.recipe),
        input.seed,
        escape(input.space),
        if input.about.is_empty() { String::new() } else { format!(": {}", escape(input.about)) }
    );
    if let Some(outcome) = input.outcome {
        out += &format!(r#"<p class="verdict">{}</p>"#, escape(&table::verdict(outcome)));
    }
    let missing = missing(input, story);
    if !missing.is_empty() {
        out += r#"<div class="alert" role="note"><strong>This report is partial.</strong><ul>"#;
        missing.iter().for_each(|item| out += &format!("<li>{}</li>", escape(item)));
        out += "</ul></div>";
    }
    out + "</header>\n"
}

/// What a whole report would have beside this one.
fn missing(input: &Input<'_>, story: &Story<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    if let Some(reason) = &story.ended {
        missing.push(format!("The run ended early: {reason}."));
    }
    if input.outcome.is_some() {
        return missing;
    }
    if input.events.is_empty() {
        missing.push("Nothing has been recorded yet.".into());
        return missing;
    }
    let of = |stage| story.curves.iter().filter(move |c| c.stage == stage);
    if of(Stage::Shrink).any(|c| !c.finished) {
        missing.push("The space is not shrunk to its end.".into());
    }
    if !of(Stage::TrainSupernet).any(|c| c.finished) {
        missing.push("The supernet is not trained to its end.".into());
    }
    if !story.searched {
        missing.push(match story.candidates.len() {
            0 => "The search has not begun.".into(),
            n => format!("The search is not done: {} candidates so far.", count(n as u64)),
        });
    }
    match of(Stage::Retrain).filter(|c| c.finished).count() {
        0 => missing.push("No network is retrained.".into()),
        n => missing.push(format!("{n} retrained so far, {} tested.", story.scored.len())),
    }
    missing.push("There is no result: found and random networks are not compared yet.".into());
    missing
}

fn comparison(outcome: &Outcome) -> String {
    let mut out = format!(
        r#"<div class="scroll" role="region" aria-label="Found network beside random ones" tabindex="0"><table><caption>Test accuracy on {} images. ± is one standard error: of the test images for one network, of the networks for the mean. MACs are multiply-adds of one image; time is that of finding and training the network.</caption><thead><tr><th scope="col">network</th><th scope="col">top-1, %</th><th scope="col">top-5, %</th><th scope="col">MACs</th><th scope="col">params</th><th scope="col">time</th></tr></thead><tbody>"#,
        count(outcome.test_images)
    );
    for row in table::rows(outcome) {
        let class = if row.name == "found" { r#" class="best""# } else { "" };
        out += &format!(r#"<tr{class}><th scope="row">{}</th>"#, escape(&row.name));
        for cell in [&row.top1, &row.top5, &row.macs, &row.params, &row.time] {
            out += &format!("<td>{}</td>", escape(cell));
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>\n"
}

/// A chart with its caption, or nothing if there is nothing to draw.
fn figure(caption: &str, chart: &Chart<'_>) -> String {
    match chart.svg() {
        Some(svg) => format!("<figure><figcaption>{}</figcaption>{svg}</figure>\n", escape(caption)),
        None => String::new(),
    }
}

fn key(entries: &[(&str, String)]) -> String {
    let mut out = String::from(r#"<ul class="key">"#);
    for (class, text) in entries {
        let sample = match *class {
            "found-point" => r#"<circle class="found" cx="14" cy="6" r="5"/>"#.to_owned(),
            "cloud" => r#"<path class="cloud" d="M6 6h0M14 4h0M22 7h0"/>"#.to_owned(),
            class => format!(r#"<path class="{class}" d="M1 6H27"/>"#),
        };
        write!(
            out,
            r#"<li><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 28 12" aria-hidden="true">{sample}</svg>{}</li>"#,
            escape(text)
        )
        .expect("writing to a string cannot fail");
    }
    out + "</ul>"
}

/// Loss and accuracy of some curves, side by side.
fn learning(curves: &[&Curve<'_>], class: impl Fn(&Curve<'_>) -> &'static str, about: &str) -> String {
    let marks = |value: usize, scale: f64| -> Vec<Mark> {
        let line = |curve: &&Curve<'_>| Mark::Line {
            class: class(curve),
            title: curve.subject.to_owned(),
            points: curve.points.iter().map(|p| [p[0], scale * p[value]]).collect(),
        };
        curves.iter().map(line).collect()
    };
    let last = |value: usize, scale: f64| -> String {
        let ends = curves
            .iter()
            .filter_map(|c| Some(format!("{} {:.2}", c.subject, scale * c.points.last()?[value])));
        ends.collect::<Vec<_>>().join(", ")
    };
    let loss = format!("Training loss over steps. At the end: {}", last(1, 1.0));
    let accuracy = format!("Training accuracy over steps, per cent. At the end: {}", last(2, 100.0));
    format!(
        r#"<div class="pair">{}{}</div>"#,
        figure(
            &format!("Training loss{about}"),
            &Chart { about: &loss, x: Along::From0("step"), y: "loss", marks: marks(1, 1.0) }
        ),
        figure(
            &format!("Training accuracy{about}"),
            &Chart { about: &accuracy, x: Along::From0("step"), y: "accuracy, %", marks: marks(2, 100.0) }
        )
    )
}

fn class_of(subject: &str) -> &'static str {
    match subject {
        "found" => "found",
        "largest" => "largest",
        _ => "random",
    }
}

fn retraining(story: &Story<'_>) -> String {
    let mut curves: Vec<&Curve<'_>> = story.curves.iter().filter(|c| c.stage == Stage::Retrain).collect();
    if curves.is_empty() {
        return String::new();
    }
    // The found network is drawn last, over the others.
    curves.sort_by_key(|c| {
        ["random", "largest", "found"].iter().position(|class| *class == class_of(c.subject))
    });
    let random = curves.iter().filter(|c| class_of(c.subject) == "random").count();
    let mut entries = Vec::new();
    for (class, text) in [
        ("found", "found".to_owned()),
        ("random", format!("random ({random})")),
        ("largest", "largest".to_owned()),
    ] {
        if curves.iter().any(|c| class_of(c.subject) == class) {
            entries.push((class, text));
        }
    }
    format!(
        "<section><h2>Networks trained from scratch</h2>{}{}</section>\n",
        key(&entries),
        learning(&curves, |c| class_of(c.subject), "")
    )
}

fn supernet(story: &Story<'_>) -> String {
    let curves: Vec<&Curve<'_>> = story.curves.iter().filter(|c| c.stage == Stage::TrainSupernet).collect();
    if curves.is_empty() {
        return String::new();
    }
    format!(
        "<section><h2>Supernet</h2><p class=\"note\">Every step trains another path, so these are means over paths.</p>{}</section>\n",
        learning(&curves, |_| "supernet", "")
    )
}

/// Titles are left out beyond so many points: nobody could hit them.
const MAX_TITLED: usize = 100;

fn search(input: &Input<'_>, story: &Story<'_>) -> String {
    let candidates = &story.candidates;
    if candidates.is_empty() {
        return String::new();
    }
    let images = candidates.iter().map(|c| c.images).max().unwrap_or(0);
    let digits = percent_digits(images);
    // Without an outcome the best so far is marked: the first of equals, as the search chooses by text.
    let chosen = match input.outcome {
        Some(outcome) => candidates.iter().find(|c| c.arch == outcome.found.arch),
        None => candidates
            .iter()
            .filter(|c| c.top1.is_finite())
            .max_by(|a, b| a.top1.total_cmp(&b.top1).then_with(|| b.arch.cmp(a.arch))),
    };
    let most = candidates.iter().map(|c| c.macs).max().unwrap_or(0);
    let (unit, name) = match most {
        0..100_000 => (1e3, "thousands"),
        100_000..1_000_000_000 => (1e6, "millions"),
        _ => (1e9, "billions"),
    };
    let place = |macs: u64, top1: f64| [macs as f64 / unit, 100.0 * top1];
    let describe = |arch: &str, macs, top1| {
        format!("{} % at {} multiply-adds: {}", percent(top1, digits), short(macs), arch)
    };
    let front = story.front();
    let mut marks = vec![
        Mark::Dots {
            class: "cloud",
            title: format!("{} candidates", count(candidates.len() as u64)),
            points: candidates.iter().map(|c| place(c.macs, c.top1)).collect(),
        },
        Mark::Steps {
            class: "front",
            title: format!("Pareto front, {} candidates", front.len()),
            points: front.iter().map(|c| place(c.macs, c.top1)).collect(),
        },
    ];
    marks.extend(front.iter().take(MAX_TITLED).map(|c| Mark::Point {
        class: "front",
        title: describe(c.arch, c.macs, c.top1),
        at: place(c.macs, c.top1),
    }));
    let mark = if input.outcome.is_some() { "found" } else { "best so far" };
    marks.extend(chosen.map(|c| Mark::Point {
        class: "found",
        title: format!("{mark}: {}", describe(c.arch, c.macs, c.top1)),
        at: place(c.macs, c.top1),
    }));
    let mut best = f64::NEG_INFINITY;
    let mut rising = Vec::new();
    for (i, candidate) in candidates.iter().enumerate() {
        // Rises alone, and the end: a level holds in between.
        if candidate.top1 > best || i + 1 == candidates.len() {
            best = best.max(candidate.top1);
            rising.push([i as f64 + 1.0, 100.0 * best]);
        }
    }
    let points = candidates.iter().enumerate().map(|(i, c)| [i as f64 + 1.0, 100.0 * c.top1]).collect();
    let progress = vec![
        Mark::Dots { class: "cloud", title: "candidates in the order of the search".into(), points },
        Mark::Steps { class: "best", title: "best so far".into(), points: rising },
    ];
    let summary =
        chosen.map_or(String::new(), |c| format!(" The {mark}: {}", describe(c.arch, c.macs, c.top1)));
    let scatter = Chart {
        about: &format!("Held-out accuracy against multiply-adds of all candidates.{summary}"),
        x: Along::Range(&format!("multiply-adds, {name}")),
        y: "held-out top-1, %",
        marks,
    };
    let curve = Chart {
        about: &format!("Best held-out accuracy over the search: {} % at its end", percent(best, digits)),
        x: Along::From0("candidate"),
        y: "held-out top-1, %",
        marks: progress,
    };
    format!(
        r#"<section><h2>Search</h2><p class="note">{} candidates scored with shared weights on {} held-out images. These scores rank networks; they are not test accuracies.</p>{}<div class="pair">{}{}</div></section>
"#,
        count(candidates.len() as u64),
        count(images),
        key(&[
            ("cloud", "candidate".into()),
            ("front", "Pareto front".into()),
            ("found-point", mark.into()),
            ("best", "best so far".into())
        ]),
        figure("Accuracy against cost", &scatter),
        figure("Best so far", &curve)
    )
}

fn found(input: &Input<'_>, story: &Story<'_>, network: &Drawing) -> String {
    let arch = match input.outcome {
        Some(outcome) => Some(outcome.found.arch.as_str()),
        None => story.scored.iter().find(|s| s.0 == "found").map(|s| s.1),
    };
    let text =
        arch.map_or(String::new(), |arch| format!("<p>As text:<br/><code>{}</code></p>", escape(arch)));
    let mut rows = String::new();
    for layer in network.layers.iter().filter(|l| l.kind != Kind::Fixed) {
        rows += &format!(
            r#"<tr><th scope="row">{}</th><td class="text"><code>{}</code></td></tr>"#,
            escape(&layer.name),
            escape(&layer.label)
        );
    }
    format!(
        r#"<section><h2>The found network</h2><div class="pair"><figure><figcaption>Boxes are as wide as the root of their channels; a funnel makes the plane smaller; a dashed box passes its input on; output shapes (height × width × channels) at the right.</figcaption>{}</figure><div>{text}<table><caption>What was chosen for each slot.</caption><thead><tr><th scope="col">slot</th><th scope="col" class="text">choice</th></tr></thead><tbody>{rows}</tbody></table></div></div></section>
"#,
        network.svg()
    )
}

fn times(input: &Input<'_>, story: &Story<'_>) -> String {
    let stages = [Stage::Shrink, Stage::TrainSupernet, Stage::Search, Stage::Retrain, Stage::Evaluate];
    let recorded = |name: &str| -> Option<f64> {
        input.outcome?.stages.iter().find(|(stage, _)| stage == name).map(|(_, seconds)| *seconds)
    };
    let (mut rows, mut total) = (String::new(), 0.0);
    for stage in stages {
        let time = story.times.get(&stage).copied();
        let Some(seconds) = recorded(stage.name()).or(time.map(|t| t.seconds)) else { continue };
        total += seconds;
        let waited = match time {
            Some(t) if t.observed > 0.0 => format!("{:.1} %", 100.0 * t.waited / t.observed),
            _ => "–".into(),
        };
        rows += &format!(
            r#"<tr><th scope="row">{}</th><td>{}</td><td>{waited}</td></tr>"#,
            stage.name(),
            duration(seconds)
        );
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        r#"<section><h2>Where the time went</h2><div class="scroll"><table><caption>Seconds of work over all sittings, and the share of training time in which it waited for images.</caption><thead><tr><th scope="col">stage</th><th scope="col">time</th><th scope="col">waiting for data</th></tr></thead><tbody>{rows}<tr class="best"><th scope="row">together</th><td>{}</td><td></td></tr></tbody></table></div></section>
"#,
        duration(total)
    )
}

/// A run that warns at every step still gives a page that can be read.
const MAX_WARNINGS: usize = 200;

fn warnings(story: &Story<'_>) -> String {
    if story.warnings.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section><h2>Warnings</h2><ul>");
    for (message, times) in story.warnings.iter().take(MAX_WARNINGS) {
        let often = if *times > 1 { format!(" ({} times)", count(*times as u64)) } else { String::new() };
        out += &format!("<li>{}{often}</li>", escape(message));
    }
    if story.warnings.len() > MAX_WARNINGS {
        let more = count((story.warnings.len() - MAX_WARNINGS) as u64);
        out += &format!("<li>and {more} more in events.jsonl</li>");
    }
    out + "</ul></section>\n"
}

fn files(input: &Input<'_>) -> String {
    if input.files.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section><h2>Files</h2><dl>");
    for (what, path) in input.files {
        // `./` keeps a name with a colon from being read as a scheme.
        out += &format!(
            r#"<dt>{}</dt><dd><a href="./{}"><code>{}</code></a></dd>"#,
            escape(what),
            escape(&path.replace('%', "%25").replace('?', "%3F").replace('#', "%23")),
            escape(path)
        );
    }
    out + "</dl></section>\n"
}

#[cfg(test)]
mod tests;
