//! Progress for a person: one bar for what runs now, or plain lines where no terminal is.
//!
//! A bar never takes more than one line, however narrow the terminal is at that moment; every finished
//! piece of work and every warning becomes a line above it. Without a terminal there is at most one
//! line per interval beside those, so a log stays short.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::event::{Event, Sink, Stage};
use crate::figures::{count, duration, rate, value};

/// Shows progress on a terminal, or as lines.
pub struct Progress {
    output: Output,
    now: Option<Work>,
}

enum Output {
    Bars { screen: MultiProgress, bar: ProgressBar, width: Box<dyn Fn() -> usize + Send> },
    Lines { writer: Box<dyn Write + Send>, every: Duration, written: Instant },
}

/// What runs now.
struct Work {
    stage: Stage,
    subject: String,
    unit: String,
    total: u64,
    /// Units that were done when this sitting began: they tell nothing about its pace.
    before: u64,
    done: u64,
    began: Instant,
    /// Images a second, where they are counted.
    images: Option<f64>,
    loss: Option<f64>,
}

impl Work {
    fn name(&self) -> String {
        match self.stage {
            Stage::Shrink => "shrink".into(),
            Stage::TrainSupernet => "supernet".into(),
            Stage::Search => "search".into(),
            stage => format!("{} {}", stage.name(), self.subject),
        }
    }

    /// Units a second in this sitting.
    fn pace(&self) -> Option<f64> {
        let units = self.done.saturating_sub(self.before);
        let seconds = self.began.elapsed().as_secs_f64();
        (units > 0 && seconds > 0.0).then(|| units as f64 / seconds)
    }

    fn left(&self) -> String {
        match self.pace() {
            Some(pace) => duration(self.total.saturating_sub(self.done) as f64 / pace),
            None => "–".into(),
        }
    }

    fn speed(&self) -> String {
        match (self.images, self.pace()) {
            (Some(images), _) => format!("{} images/s", rate(images)),
            (None, Some(pace)) => format!("{} {}/s", rate(pace), self.unit),
            (None, None) => format!("– {}/s", self.unit),
        }
    }

    fn percent(&self) -> u64 {
        (100 * u128::from(self.done.min(self.total)) / u128::from(self.total.max(1))) as u64
    }

    fn loss(&self) -> String {
        self.loss.map_or(String::new(), |loss| format!("  loss {}", value(loss)))
    }

    /// A whole line, for a log.
    fn line(&self) -> String {
        format!(
            "{}: {} of {} {} ({} %)  {}{}  {} left",
            self.name(),
            count(self.done),
            count(self.total),
            self.unit,
            self.percent(),
            self.speed(),
            self.loss(),
            self.left()
        )
    }

    /// What stands beside the bar in a terminal of `width` columns, and whether there is room for a bar.
    fn beside_bar(&self, width: usize) -> (bool, String) {
        match width {
            100.. => (
                true,
                format!(
                    "{:>3} %  {}/{}  {}{}  ETA {}",
                    self.percent(),
                    count(self.done),
                    count(self.total),
                    self.speed(),
                    self.loss(),
                    self.left()
                ),
            ),
            64..100 => (true, format!("{:>3} %  {}  ETA {}", self.percent(), self.speed(), self.left())),
            _ => {
                // Short names of units: the figure matters most here.
                let speed = self.images.or(self.pace()).map_or("–".into(), rate);
                (false, format!("{} % {speed}/s ETA {}", self.percent(), self.left()))
            }
        }
    }
}

impl Progress {
    /// Bars on standard error if a person watches it, lines every five seconds otherwise.
    pub fn stderr() -> Self {
        let target = ProgressDrawTarget::stderr();
        if target.is_hidden() || !io::stderr().is_terminal() {
            return Self::lines(Box::new(io::stderr()), Duration::from_secs(5));
        }
        // Asked each time: a terminal can be resized at any moment.
        let width =
            || terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0));
        Self::bars(target, Box::new(width))
    }

    /// Bars on any terminal; `width` tells its columns at the moment.
    pub fn terminal(terminal: Box<dyn TermLike>, width: Box<dyn Fn() -> usize + Send>) -> Self {
        Self::bars(ProgressDrawTarget::term_like(terminal), width)
    }

    fn bars(target: ProgressDrawTarget, width: Box<dyn Fn() -> usize + Send>) -> Self {
        let output = Output::Bars {
            screen: MultiProgress::with_draw_target(target),
            bar: ProgressBar::hidden(),
            width,
        };
        Self { output, now: None }
    }

    /// Plain lines to `writer`, at most one per `every` beside those that begin and end a piece of work.
    pub fn lines(writer: Box<dyn Write + Send>, every: Duration) -> Self {
        Self { output: Output::Lines { writer, every, written: Instant::now() }, now: None }
    }

    /// A line that stays.
    fn say(&mut self, line: &str) -> io::Result<()> {
        match &mut self.output {
            Output::Bars { screen, .. } => screen.println(line),
            Output::Lines { writer, written, .. } => {
                *written = Instant::now();
                writeln!(writer, "{line}")?;
                writer.flush()
            }
        }
    }

    fn start(&mut self, work: Work) -> io::Result<()> {
        if let Output::Bars { screen, bar, .. } = &mut self.output {
            bar.finish_and_clear();
            *bar = screen.add(ProgressBar::new(work.total));
        } else {
            let again = match work.before {
                0 => String::new(),
                before => format!(", going on from {}", count(before)),
            };
            self.say(&format!("{}: {} {}{again}", work.name(), count(work.total), work.unit))?;
        }
        self.now = Some(work);
        self.show()
    }

    /// Shows how far the work is.
    fn show(&mut self) -> io::Result<()> {
        let Some(work) = &self.now else { return Ok(()) };
        let line = match &mut self.output {
            Output::Bars { bar, width, .. } => {
                let (has_bar, text) = work.beside_bar(width());
                let template = match has_bar {
                    true => "{prefix} {wide_bar} {msg}",
                    // Cut off at the edge, not wrapped.
                    false => "{wide_msg}",
                };
                let style = ProgressStyle::with_template(template).expect("the template is a constant");
                bar.set_style(style.progress_chars("━╸─"));
                bar.set_prefix(work.name());
                bar.set_message(if has_bar { text } else { format!("{} {text}", work.name()) });
                bar.set_position(work.done);
                return Ok(());
            }
            // The last one is left to the line that ends the work.
            Output::Lines { every, written, .. } => {
                let due = written.elapsed() >= *every && work.before < work.done && work.done < work.total;
                due.then(|| work.line())
            }
        };
        line.map_or(Ok(()), |line| self.say(&line))
    }

    /// Ends the bar with a line.
    fn end(&mut self, line: &str) -> io::Result<()> {
        if let Output::Bars { bar, .. } = &mut self.output {
            bar.finish_and_clear();
        }
        self.now = None;
        self.say(line)
    }
}

impl Sink for Progress {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Started { stage, subject, total, done, unit } => self.start(Work {
                stage: *stage,
                subject: subject.clone(),
                unit: unit.clone(),
                total: *total,
                before: *done,
                done: *done,
                began: Instant::now(),
                images: None,
                loss: None,
            }),
            Event::Step { step, loss, images, seconds, .. } => {
                if let Some(work) = &mut self.now {
                    work.done = *step;
                    work.loss = Some(*loss);
                    work.images = (*seconds > 0.0).then(|| *images as f64 / seconds);
                }
                self.show()
            }
            Event::Candidate { index, .. } => {
                if let Some(work) = &mut self.now {
                    work.done = index.saturating_add(1);
                }
                self.show()
            }
            Event::Scored { subject, top1, top5, images, .. } => self.say(&format!(
                "{subject}: top-1 {:.1} %, top-5 {:.1} % of {} test images",
                100.0 * top1,
                100.0 * top5,
                count(*images)
            )),
            Event::Shrunk { round, networks, dropped, .. } => self.say(&format!(
                "round {}: {} candidates dropped, {networks} networks left",
                count(*round),
                count(dropped.len() as u64)
            )),
            Event::Warning { message } => self.say(&format!("warning: {message}")),
            Event::NonFinite { subject, step, what, .. } => {
                self.end(&format!("{subject}: {what} is not finite at step {}", count(*step)))
            }
            Event::Finished { subject, seconds, .. } => {
                let line = match &self.now {
                    Some(work) => {
                        let done = count(work.done.max(work.before));
                        format!("{}: {done} {} in {}", work.name(), work.unit, duration(*seconds))
                    }
                    None => format!("{subject}: done in {}", duration(*seconds)),
                };
                self.end(&line)
            }
            Event::Interrupted { stage, done } => {
                let unit = self.now.as_ref().map_or(String::new(), |work| format!(" {}", work.unit));
                self.end(&format!("{} stopped after {}{unit}", stage.name(), count(*done)))
            }
            Event::Checkpoint { .. } | Event::Gates { .. } => Ok(()),
        }
    }
}

impl Drop for Progress {
    /// An error message that follows should not share a line with half a bar.
    fn drop(&mut self) {
        if let Output::Bars { bar, .. } = &self.output {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::InMemoryTerm;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started(done: u64, total: u64) -> Event {
        Event::Started {
            stage: Stage::Retrain,
            subject: "random-3".into(),
            total,
            done,
            unit: "steps".into(),
        }
    }

    fn step(step: u64, total: u64) -> Event {
        Event::Step {
            stage: Stage::Retrain,
            subject: "random-3".into(),
            step,
            total,
            epoch: 0,
            loss: 1.25,
            accuracy: 0.5,
            lr: 0.1,
            images: 640,
            seconds: 0.5,
            waited: 0.0,
        }
    }

    fn finished() -> Event {
        Event::Finished { stage: Stage::Retrain, subject: "random-3".into(), seconds: 83.0 }
    }

    fn lines(every: Duration, events: &[Event]) -> Vec<String> {
        let buffer = Buffer::default();
        let mut progress = Progress::lines(Box::new(buffer.clone()), every);
        events.iter().for_each(|event| progress.event(event).unwrap());
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_log_gets_the_first_and_last_line_and_few_between() {
        let mut events = vec![started(0, 100)];
        events.extend((1..=100).map(|i| step(i, 100)));
        events.push(finished());
        assert_eq!(
            lines(Duration::from_secs(3600), &events),
            ["retrain random-3: 100 steps", "retrain random-3: 100 steps in 1 m 23 s"]
        );
        let all = lines(Duration::ZERO, &events);
        assert_eq!(all.len(), 101, "every step but the last, and two");
        assert!(all[50].starts_with("retrain random-3: 50 of 100 steps (50 %)  1,280 images/s  loss 1.250"));
        assert!(all.iter().all(|line| !line.contains('\r') && !line.contains('\u{1b}')));
    }

    #[test]
    fn a_resumed_stage_says_where_it_goes_on() {
        let all = lines(Duration::ZERO, &[started(40, 100), step(41, 100)]);
        assert_eq!(all[0], "retrain random-3: 100 steps, going on from 40");
    }

    #[test]
    fn a_failing_writer_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut progress = Progress::lines(Box::new(Full), Duration::ZERO);
        assert_eq!(progress.event(&started(0, 1)).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_bar_takes_one_line_at_any_width() {
        for width in [20u16, 40, 63, 64, 80, 99, 100, 200] {
            let terminal = InMemoryTerm::new(12, width);
            let mut progress =
                Progress::terminal(Box::new(terminal.clone()), Box::new(move || usize::from(width)));
            progress.event(&started(0, 12_345)).unwrap();
            for i in 1..=300 {
                progress.event(&step(i, 12_345)).unwrap();
            }
            let Output::Bars { bar, .. } = &progress.output else { panic!("bars were asked for") };
            bar.force_draw();
            let text = terminal.contents();
            assert_eq!(text.lines().count(), 1, "{width}: {text:?}");
            if width >= 40 {
                assert!(text.contains("random-3") && text.contains("2 %"), "{width}: {text:?}");
                assert!(text.contains("1,280") && text.contains("ETA"), "{width}: {text:?}");
            }
            progress.event(&Event::Warning { message: "odd".into() }).unwrap();
            progress.event(&finished()).unwrap();
            let text = terminal.contents();
            assert!(text.starts_with("warning: odd"), "{width}: {text:?}");
            let joined = text.replace('\n', "");
            assert!(
                joined.ends_with("12,345 steps in 1 m 23 s") || joined.ends_with("300 steps in 1 m 23 s")
            );
            assert!(!joined.contains("ETA"), "the bar is gone: {text:?}");
        }
    }

    #[test]
    fn no_event_order_panics() {
        let every = [
            finished(),
            step(3, 2),
            Event::Interrupted { stage: Stage::Search, done: 3 },
            started(5, 0),
            step(u64::MAX, 0),
            Event::Candidate {
                index: u64::MAX,
                total: 0,
                generation: 0,
                arch: "x".into(),
                macs: 0,
                params: 0,
                top1: f64::NAN,
                top5: 0.0,
                images: 0,
            },
            finished(),
        ];
        assert!(!lines(Duration::ZERO, &every).is_empty());
    }
}
