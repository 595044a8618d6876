//! What the events of a run tell: curves, candidates, times, warnings.

use std::collections::BTreeMap;

use crate::event::{Dropped, Event, Stage};

/// The training of one network.
#[derive(Debug)]
pub struct Curve<'a> {
    /// The stage.
    pub stage: Stage,
    /// `supernet`, `found`, `random-3`, …
    pub subject: &'a str,
    /// (step, loss, accuracy), in order.
    pub points: Vec<[f64; 3]>,
    /// Whether training came to its end.
    pub finished: bool,
}

/// A scored candidate.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Text form of the architecture.
    pub arch: &'a str,
    /// Multiply-adds.
    pub macs: u64,
    /// Held-out top-1 accuracy, 0 to 1.
    pub top1: f64,
    /// Images scored on.
    pub images: u64,
}

/// A round of shrinking.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// From 1.
    pub number: u64,
    /// Networks left.
    pub networks: Option<f64>,
    /// The same as it was written.
    pub text: &'a str,
    /// What went.
    pub dropped: &'a [Dropped],
}

/// Where the time of a stage went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// Seconds of finished and unfinished work.
    pub seconds: f64,
    /// Seconds in which training was observed.
    pub observed: f64,
    /// Seconds of those in which it waited for data.
    pub waited: f64,
}

/// The whole of it.
#[derive(Debug, Default)]
pub struct Story<'a> {
    /// In the order in which they began.
    pub curves: Vec<Curve<'a>>,
    /// Rounds of shrinking, in order.
    pub rounds: Vec<Round<'a>>,
    /// In the order in which they were scored.
    pub candidates: Vec<Candidate<'a>>,
    /// Whether the search came to its end.
    pub searched: bool,
    /// Tested networks: subject, architecture, top-1, top-5.
    pub scored: Vec<(&'a str, &'a str, f64, f64)>,
    /// By stage.
    pub times: BTreeMap<Stage, Time>,
    /// Warnings with how often each came.
    pub warnings: Vec<(&'a str, usize)>,
    /// Why the run ended before its end, if it did.
    pub ended: Option<String>,
}

impl<'a> Story<'a> {
    /// Reads the events in order.
    pub fn of(events: &'a [Event]) -> Self {
        let mut story = Self::default();
        // Seconds of work that has not finished: its steps', until its end says the exact figure.
        let mut open: BTreeMap<(Stage, &str), f64> = BTreeMap::new();
        let mut warnings: BTreeMap<&str, usize> = BTreeMap::new();
        for event in events {
            if !matches!(event, Event::Warning { .. } | Event::Checkpoint { .. }) {
                story.ended = None;
            }
            match event {
                Event::Started { .. } | Event::Checkpoint { .. } | Event::Gates { .. } => {}
                Event::Step { stage, subject, step, loss, accuracy, seconds, waited, .. } => {
                    story.curve(*stage, subject).points.push([*step as f64, *loss, *accuracy]);
                    if seconds.is_finite() && waited.is_finite() {
                        *open.entry((*stage, subject)).or_default() += seconds;
                        let time = story.times.entry(*stage).or_default();
                        time.observed += seconds;
                        time.waited += waited;
                    }
                }
                Event::Shrunk { round, networks, dropped, .. } => {
                    let networks = (networks.parse::<f64>().ok(), networks);
                    let round = Round { number: *round, networks: networks.0, text: networks.1, dropped };
                    story.rounds.retain(|earlier| earlier.number < round.number);
                    story.rounds.push(round);
                }
                Event::Candidate { arch, macs, top1, images, .. } => {
                    story.candidates.push(Candidate { arch, macs: *macs, top1: *top1, images: *images });
                }
                Event::Scored { subject, arch, top1, top5, .. } => {
                    story.scored.push((subject, arch, *top1, *top5));
                }
                Event::Warning { message } => {
                    let count = warnings.entry(message).or_default();
                    *count += 1;
                    if *count == 1 {
                        story.warnings.push((message, 1));
                    }
                }
                Event::NonFinite { stage, subject, step, arch, what } => {
                    story.ended = Some(format!(
                        "{what} was not finite at step {step} of {} {subject}, path {arch}",
                        stage.name()
                    ));
                }
                Event::Finished { stage, subject, seconds } => {
                    open.remove(&(*stage, subject));
                    story.times.entry(*stage).or_default().seconds += seconds;
                    match stage {
                        Stage::Search => story.searched = true,
                        _ => story.curve(*stage, subject).finished = true,
                    }
                }
                Event::Interrupted { stage, done } => {
                    story.ended = Some(format!("a signal stopped {} after {done} units", stage.name()));
                }
            }
        }
        for ((stage, _), seconds) in open {
            story.times.entry(stage).or_default().seconds += seconds;
        }
        for (message, count) in &mut story.warnings {
            *count = warnings[message];
        }
        story.curves.retain(|curve| !curve.points.is_empty());
        story
    }

    fn curve(&mut self, stage: Stage, subject: &'a str) -> &mut Curve<'a> {
        // Few networks, and events of one come together: from the end it is the first looked at.
        let at = self.curves.iter().rposition(|c| c.stage == stage && c.subject == subject);
        let at = at.unwrap_or_else(|| {
            self.curves.push(Curve { stage, subject, points: Vec::new(), finished: false });
            self.curves.len() - 1
        });
        &mut self.curves[at]
    }

    /// Candidates that no other beats in both accuracy and multiply-adds, from cheap to dear.
    pub fn front(&self) -> Vec<Candidate<'a>> {
        let mut sorted: Vec<Candidate<'a>> =
            self.candidates.iter().filter(|c| c.top1.is_finite()).copied().collect();
        sorted.sort_by(|a, b| a.macs.cmp(&b.macs).then(b.top1.total_cmp(&a.top1)));
        let mut best = f64::NEG_INFINITY;
        sorted.retain(|candidate| {
            let better = candidate.top1 > best;
            best = best.max(candidate.top1);
            better
        });
        sorted
    }
}
