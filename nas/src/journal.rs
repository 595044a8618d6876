//! The journal of a run: `events.jsonl`, and whoever else listens.
//!
//! Whatever is stored (a checkpoint, a finished stage) keeps the length of the file at its moment. A run
//! that goes on tells the journal those lengths while it reads what is stored; the first event after
//! them cuts the file back to the longest, so a resumed run leaves no line twice, none out and none torn.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::event::{Event, Sink};

/// Hands every event to the file and to the other sinks, in order.
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes that what is stored vouches for, until the first event is recorded.
    vouched: Option<u64>,
    sinks: Vec<Box<dyn Sink>>,
}

impl Journal {
    /// The journal at `path`, which is created, or gone on with.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path, sinks: Vec<Box<dyn Sink>>) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| Error::io("open", path, e))?;
        Ok(Self { path: path.to_owned(), file, vouched: Some(0), sinks })
    }

    /// Records an event.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Sink`] if it cannot be written.
    pub fn record(&mut self, event: Event) -> Result<()> {
        self.cut()?;
        let mut line = serde_json::to_string(&event)
            .map_err(|e| Error::Format { path: self.path.clone(), reason: e.to_string() })?;
        line.push('\n');
        // One write a line: a crash tears the last line at most.
        self.file.write_all(line.as_bytes()).map_err(|e| Error::io("write", &self.path, e))?;
        self.sinks.iter_mut().try_for_each(|sink| sink.event(&event)).map_err(|source| Error::Sink { source })
    }

    /// Makes everything durable; returns the length of the file, which a checkpoint keeps.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<u64> {
        self.cut()?;
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, e))?;
        self.file.stream_position().map_err(|e| Error::io("read", &self.path, e))
    }

    /// What is stored was written when the file had `len` bytes: they stay. Once an event has been
    /// recorded the file holds this sitting's events, and nothing more is cut.
    pub fn vouch(&mut self, len: u64) {
        self.vouched = self.vouched.map(|before| before.max(len));
    }

    /// Forgets what came after the last thing that was stored. A file that is shorter already, since a
    /// crash lost its end, stays as it is.
    fn cut(&mut self) -> Result<()> {
        let Some(len) = self.vouched else { return Ok(()) };
        let now = self.file.metadata().map_err(|e| Error::io("read", &self.path, e))?.len();
        if len < now {
            self.file.set_len(len).map_err(|e| Error::io("write", &self.path, e))?;
        }
        self.file.seek(SeekFrom::End(0)).map_err(|e| Error::io("read", &self.path, e))?;
        self.vouched = None;
        Ok(())
    }
}

/// The events of a journal, in order. A last line that a crash tore is passed over: its event is
/// recorded again when the run goes on.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] with the number of a line that is no event.
pub fn read_events(path: &Path) -> Result<Vec<Event>> {
    let mut file = BufReader::new(File::open(path).map_err(|e| Error::io("open", path, e))?);
    let (mut events, mut line) = (Vec::new(), Vec::new());
    for number in 1u64.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(|e| Error::io("read", path, e))? == 0 {
            break;
        }
        match serde_json::from_slice(&line) {
            Ok(event) => events.push(event),
            // Only the last line has no end.
            Err(_) if line.last() != Some(&b'\n') => break,
            Err(e) => {
                return Err(Error::Format { path: path.to_owned(), reason: format!("line {number}: {e}") });
            }
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stage;

    fn event(step: u64, loss: f64) -> Event {
        Event::Step {
            stage: Stage::Retrain,
            subject: "a \"b\"\n".into(),
            step,
            total: 9,
            epoch: 0,
            loss,
            accuracy: 0.1,
            lr: 1e-9,
            images: 64,
            seconds: 0.25,
            waited: 0.0,
        }
    }

    #[test]
    fn a_journal_cut_back_holds_every_event_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut journal = Journal::open(&path, vec![]).unwrap();
        journal.record(event(1, 0.1)).unwrap();
        let length = journal.flush().unwrap();
        journal.record(event(2, 0.2)).unwrap();
        drop(journal);
        // A crash tears the last line.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 3).unwrap();
        assert_eq!(read_events(&path).unwrap(), [event(1, 0.1)]);

        let mut journal = Journal::open(&path, vec![]).unwrap();
        journal.vouch(length);
        journal.record(event(2, 0.2)).unwrap();
        assert_eq!(read_events(&path).unwrap(), [event(1, 0.1), event(2, 0.2)]);
    }

    #[test]
    fn what_later_stages_stored_outlives_what_earlier_ones_did() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut journal = Journal::open(&path, vec![]).unwrap();
        let lengths: Vec<u64> = (0..3)
            .map(|i| {
                journal.record(event(i, 0.5)).unwrap();
                journal.flush().unwrap()
            })
            .collect();
        journal.record(event(3, 0.5)).unwrap();
        let mut journal = Journal::open(&path, vec![]).unwrap();
        lengths.iter().for_each(|&length| journal.vouch(length));
        assert_eq!(read_events(&path).unwrap().len(), 4, "nothing is cut before there is more to say");
        journal.record(event(9, 0.5)).unwrap();
        journal.vouch(lengths[0]);
        journal.record(event(10, 0.5)).unwrap();
        assert_eq!(read_events(&path).unwrap(), [0, 1, 2, 9, 10].map(|i| event(i, 0.5)));
    }

    #[test]
    fn a_torn_line_without_anything_stored_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, "{\"event\":\"st").unwrap();
        Journal::open(&path, vec![]).unwrap().record(event(1, 0.5)).unwrap();
        assert_eq!(read_events(&path).unwrap(), [event(1, 0.5)]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut journal = Journal::open(&path, vec![]).unwrap();
        (0..3).for_each(|i| journal.record(event(i, 0.5)).unwrap());
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"step\":1", "\"step\":x", 1)).unwrap();
        assert!(read_events(&path).unwrap_err().to_string().contains("line 2"));
        // Bytes that are no text, and an event that is none of ours.
        std::fs::write(&path, b"\xff\xfe\n").unwrap();
        assert!(read_events(&path).unwrap_err().to_string().contains("line 1"));
        std::fs::write(&path, "{\"event\":\"party\"}\n").unwrap();
        assert!(read_events(&path).unwrap_err().to_string().contains("party"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(read_events(&path).unwrap(), []);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read_events(&path), Err(Error::Io { .. })));
    }

    #[test]
    fn what_is_not_finite_survives_as_not_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut journal = Journal::open(&path, vec![]).unwrap();
        for loss in [f64::NAN, f64::INFINITY, 0.1] {
            journal.record(event(1, loss)).unwrap();
        }
        let losses: Vec<f64> = read_events(&path)
            .unwrap()
            .iter()
            .map(|e| if let Event::Step { loss, .. } = e { *loss } else { panic!("only steps were written") })
            .collect();
        assert!(losses[0].is_nan() && losses[1].is_nan() && losses[2] == 0.1);
    }
}
