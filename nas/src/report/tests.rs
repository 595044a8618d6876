//! Reports from runs that never were: whole, partial, hostile, huge.

use super::*;
use crate::event::Dropped;
use crate::outcome::{Network, RandomNetworks};
use crate::rank::{Metric, Point};

const HOSTILE: &str = r#"<script>alert("x")</script> & 'y' ]]> \u{0} é"#;

/// Smooth noise without a generator: only its look matters.
fn wobble(i: u64) -> f64 {
    ((i as f64) * 12.9898).sin() * 43758.5453 % 1.0
}

fn train(events: &mut Vec<Event>, stage: Stage, subject: &str, steps: u64, end: f64) {
    let (subject, unit) = (subject.to_owned(), "steps".to_owned());
    events.push(Event::Started { stage, subject: subject.clone(), total: steps, done: 0, unit });
    for step in (10..=steps).step_by(10) {
        let t = step as f64 / steps as f64;
        events.push(Event::Step {
            stage,
            subject: subject.clone(),
            step,
            total: steps,
            epoch: step / 40,
            loss: 2.3 * (-3.0 * t).exp() + 2.0 * (1.0 - end) + 0.05 * wobble(step),
            accuracy: end * (1.0 - (-5.0 * t).exp()) + 0.015 * wobble(step + 7),
            lr: 0.1 * (1.0 - t),
            images: 640,
            seconds: 0.8,
            waited: 0.003,
        });
    }
    events.push(Event::Finished { stage, subject, seconds: steps as f64 * 0.08 });
}

fn candidates(events: &mut Vec<Event>, n: u64) {
    let (subject, unit) = ("candidates".to_owned(), "candidates".to_owned());
    events.push(Event::Started { stage: Stage::Search, subject, total: n, done: 0, unit });
    for index in 0..n {
        let macs = 3_000_000 + (4.0e6 * (1.0 + wobble(index))) as u64;
        let rise = 0.03 * (1.0 - (-(index as f64) / n as f64 * 4.0).exp());
        events.push(Event::Candidate {
            index,
            total: n,
            generation: index / 20,
            arch: format!("mb_k3_e3 mb_k5_e6 #{index}"),
            macs,
            params: macs / 40,
            top1: ((0.70 + rise + 0.05 * (macs as f64 / 1e7) + 0.03 * wobble(index + 3)) * 800.0).round()
                / 800.0,
            top5: 0.98,
            images: 800,
        });
    }
    let subject = "candidates".to_owned();
    events.push(Event::Finished { stage: Stage::Search, subject, seconds: 31.0 });
}

fn drawing(label: &str) -> Drawing {
    let layer = |name: &str, label: &str, kind, channels, size| Layer {
        name: name.into(),
        label: label.into(),
        kind,
        channels,
        size,
    };
    Drawing {
        channels: 1,
        size: 28,
        layers: vec![
            layer("stem.0", "conv_k3", Kind::Fixed, 16, 14),
            layer("stage1.slot1", label, Kind::Chosen, 16, 14),
            layer("stage1.slot2", "skip", Kind::Skip, 16, 14),
            layer("stage2.slot1", "mb_k5_e6", Kind::Chosen, 32, 7),
            layer("stage2.slot2", "mb_k3_e6", Kind::Chosen, 32, 7),
            layer("stage2.slot3", "skip", Kind::Skip, 32, 7),
            layer("stage3.slot1", "mb_k5_e3", Kind::Chosen, 64, 4),
            layer("stage3.slot2", "mb_k3_e3", Kind::Chosen, 64, 4),
            layer("stage3.slot3", "mb_k5_e6", Kind::Chosen, 64, 4),
            layer("head.0", "conv_k1", Kind::Fixed, 128, 4),
            layer("head.1", "pool", Kind::Fixed, 128, 0),
            layer("head.2", "linear", Kind::Fixed, 10, 0),
        ],
    }
}

fn network(subject: &str, arch: &str, top1: f64) -> Network {
    Network {
        subject: subject.into(),
        arch: arch.into(),
        top1,
        top5: 0.991,
        top1_error: (top1 * (1.0 - top1) / 1000.0).sqrt(),
        macs: 9_432_100,
        params: 204_800,
        predicted_ms: None,
        seconds: 83.0,
    }
}

struct Run {
    events: Vec<Event>,
    outcome: Outcome,
    drawing: Drawing,
}

impl Run {
    fn new(n: u64) -> Self {
        let mut events = Vec::new();
        train(&mut events, Stage::TrainSupernet, "supernet", 1200, 0.78);
        candidates(&mut events, n);
        for (subject, end) in [
            ("found", 0.93),
            ("random-0", 0.91),
            ("random-1", 0.92),
            ("random-2", 0.9),
            ("random-3", 0.915),
            ("random-4", 0.89),
            ("largest", 0.95),
        ] {
            train(&mut events, Stage::Retrain, subject, 600, end);
        }
        let message = "3 images could not be read and were skipped".to_owned();
        events.extend([Event::Warning { message: message.clone() }, Event::Warning { message }]);
        let best = events
            .iter()
            .filter_map(|e| match e {
                Event::Candidate { top1, arch, .. } => Some((*top1, arch.clone())),
                _ => None,
            })
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(String::new(), |(_, arch)| arch);
        let outcome = Outcome {
            seed: 0,
            space: "quickstart".into(),
            test_images: 1000,
            found: network("found", &best, 0.874),
            random: RandomNetworks {
                mean_top1: 0.866,
                std_top1: 0.006,
                best_top1: 0.873,
                n: 5,
                networks: (0..5)
                    .map(|i| network(&format!("random-{i}"), "r", 0.86 + 0.003 * f64::from(i)))
                    .collect(),
            },
            largest: Some(network("largest", "l", 0.881)),
            stages: vec![("train-supernet".into(), 96.0), ("search".into(), 31.0), ("retrain".into(), 336.0)],
        };
        Self { events, outcome, drawing: drawing("mb_k3_e3") }
    }

    fn input(&self) -> Input<'_> {
        Input {
            rankings: &[],
            recipe: "quickstart",
            seed: 0,
            space: "quickstart",
            about: "A small space for 28x28 gray images that trains in minutes on two cores",
            events: &self.events,
            outcome: Some(&self.outcome),
            network: Some(&self.drawing),
            files: &[
                ("report", "report.html"),
                ("found network", "model.safetensors"),
                ("events", "events.jsonl"),
            ],
        }
    }
}

/// The page parses as XML, loads nothing, and every picture has a title and a name.
fn check(page: &str) {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let tree =
        roxmltree::Document::parse_with_options(page, options).unwrap_or_else(|e| panic!("{e}\n{page}"));
    let classes = tree.descendants().filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "svg")));
    for svg in classes {
        let titled = svg.children().any(|c| c.tag_name().name() == "title" && c.text().is_some());
        let named = svg.attribute("role") == Some("img") && svg.attribute("aria-label").is_some();
        assert!((titled && named) || svg.attribute("aria-hidden") == Some("true"));
    }
    for node in tree.descendants().filter(|n| n.is_element()) {
        assert!(!["script", "link", "iframe", "img", "object"].contains(&node.tag_name().name()), "{node:?}");
        assert!(node.attributes().all(|a| !a.name().starts_with("on")), "{node:?}");
        if node.tag_name().name() == "table" {
            assert!(node.children().any(|c| c.tag_name().name() == "caption"));
        }
        if node.tag_name().name() == "a" {
            assert!(node.attribute("href").is_some_and(|h| h.starts_with("./")));
        }
        for number in ["d", "x", "y", "cx", "cy"].iter().filter_map(|a| node.attribute(*a)) {
            assert!(!number.contains("NaN") && !number.contains("inf"), "{number}");
        }
    }
    assert!(!page.contains("url(") && !page.contains("@import"));
}

#[test]
fn a_whole_run_gives_a_whole_report() {
    let run = Run::new(400);
    let page = html(&run.input());
    check(&page);
    assert!(page.contains("No difference shown"));
    assert!(!page.contains("This report is partial"));
    for heading in
        ["Networks trained from scratch", "Search", "The found network", "Supernet", "Where the time went"]
    {
        assert!(page.contains(&format!("<h2>{heading}</h2>")), "{heading}");
    }
    assert!(page.contains("skipped (2 times)") && page.contains("87.4 ± 1.0") && page.contains("0.4 %"));
    if let Some(path) = std::env::var_os("MONOPATH_SAMPLE_REPORT") {
        std::fs::write(path, page).unwrap();
    }
}

#[test]
fn a_run_cut_off_anywhere_gives_a_partial_report() {
    let run = Run::new(40);
    let mut seen = std::collections::HashSet::new();
    for length in (0..run.events.len()).step_by(7) {
        let page =
            html(&Input { events: &run.events[..length], outcome: None, network: None, ..run.input() });
        check(&page);
        assert!(page.contains("This report is partial"));
        for text in
            ["Nothing has been recorded", "search has not begun", "candidates so far", "retrained so far"]
        {
            if page.contains(text) {
                seen.insert(text);
            }
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn an_end_before_the_end_is_told_until_the_run_goes_on() {
    let mut run = Run::new(3);
    run.events.push(Event::Interrupted { stage: Stage::Search, done: 3 });
    let told =
        |run: &Run| html(&Input { outcome: None, ..run.input() }).contains("a signal stopped search after 3");
    assert!(told(&run));
    candidates(&mut run.events, 2);
    assert!(!told(&run));
}

#[test]
fn hostile_text_stays_text() {
    let mut run = Run::new(5);
    let hostile = HOSTILE.replace("\\u{0}", "\u{0}");
    run.events.push(Event::Warning { message: hostile.clone() });
    run.events.push(Event::Candidate {
        index: 5,
        total: 6,
        generation: 0,
        arch: hostile.clone(),
        macs: 1,
        params: 1,
        top1: 0.99,
        top5: 1.0,
        images: 800,
    });
    train(&mut run.events, Stage::Retrain, &hostile, 100, 0.5);
    run.outcome.found.arch = hostile.clone();
    run.drawing = drawing(&hostile);
    run.drawing.layers[0].name = hostile.clone();
    let files = [(hostile.as_str(), "javascript:alert(1)"), ("b", hostile.as_str())];
    let page =
        html(&Input { recipe: &hostile, space: &hostile, about: &hostile, files: &files, ..run.input() });
    check(&page);
    assert!(!page.contains("<script"));
    let escaped = "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &#39;y&#39; ]]&gt; \u{fffd} é";
    assert!(page.matches(escaped).count() > 8);
}

#[test]
fn values_that_are_no_numbers_do_no_harm() {
    let mut run = Run::new(5);
    for event in &mut run.events {
        match event {
            Event::Step { loss, accuracy, seconds, .. } => {
                (*loss, *accuracy, *seconds) = (f64::NAN, f64::INFINITY, f64::NAN);
            }
            Event::Candidate { top1, .. } => *top1 = f64::NAN,
            _ => {}
        }
    }
    run.outcome.found.top1 = f64::NAN;
    check(&html(&run.input()));
    check(&html(&Input { outcome: None, ..run.input() }));
}

#[test]
fn thousands_of_candidates_and_steps_stay_below_a_megabyte() {
    let mut run = Run::new(100_000);
    train(&mut run.events, Stage::TrainSupernet, "supernet", 1_000_000, 0.8);
    for i in 0..5000 {
        run.events.push(Event::Warning { message: format!("image {i} is damaged") });
    }
    let page = html(&run.input());
    check(&page);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}

#[test]
fn shrinking_and_ranking_are_told() {
    let mut run = Run::new(5);
    let hostile = HOSTILE.replace("\\u{0}", "\u{0}");
    train(&mut run.events, Stage::Shrink, "shrink", 100, 0.5);
    let round = |round: u64, networks: &str, score| Event::Shrunk {
        round,
        step: 10 * round,
        networks: networks.into(),
        left: 20,
        dropped: vec![Dropped { slot: "stage1.slot1".into(), label: hostile.clone(), score }],
    };
    // A round that a resumed run tells again counts once.
    run.events.extend([
        round(1, "221464", Some(0.5)),
        round(2, "7", None),
        round(2, "4242", Some(0.75)),
        round(3, &hostile, Some(f64::NAN)),
    ]);
    let point =
        |i: u32| Point { arch: hostile.clone(), score: 0.1 * f64::from(i), truth: 90.0 + f64::from(i) };
    let mut ranking = Ranking {
        metric: Metric::Accuracy,
        space: hostile.clone(),
        n: 12,
        tau_b: Some(0.61234),
        spearman: Some(0.7),
        p_at_10: Some(0.9),
        p_at_50: None,
        interval_95: Some([0.55, 0.66]),
        macs_tau_b: Some(0.546),
        params_tau_b: None,
        ceiling: None,
        seed: 0,
        seconds: 1.0,
        points: (0..12).map(point).collect(),
    };
    let first = ranking.clone();
    ranking.metric = Metric::Angle;
    ranking.points.clear();
    let page = html(&Input { rankings: &[first, ranking], ..run.input() });
    check(&page);
    for text in [
        "<h2>Shrinking</h2>",
        "<h2>Ranking</h2>",
        "0.612",
        "0.550 to 0.660",
        "0.7500",
        "held-out accuracy with",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("<td class=\"text\">stage1.slot1</td>").count(), 3, "three rounds");
    let without = html(&Run::new(5).input());
    assert!(!without.contains("<h2>Shrinking</h2>") && !without.contains("<h2>Ranking</h2>"));
}
