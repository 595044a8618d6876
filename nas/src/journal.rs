//! The journal of a run: `events.jsonl`, and whoever else listens.
//!
//! A checkpoint keeps the length of the file at its moment. Going on from a checkpoint cuts the file
//! back to that length, so a resumed run leaves no line twice and no torn line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::event::{Event, Sink};

/// Hands every event to the file and to the other sinks, in order.
pub struct Journal {
    path: PathBuf,
    file: File,
    sinks: Vec<Box<dyn Sink>>,
}

impl Journal {
    /// The journal at `path`, which is created, or gone on with.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path, sinks: Vec<Box<dyn Sink>>) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| Error::io("open", path, e))?;
        file.seek(SeekFrom::End(0)).map_err(|e| Error::io("read", path, e))?;
        Ok(Self { path: path.to_owned(), file, sinks })
    }

    /// Records an event.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Sink`] if it cannot be written.
    pub fn record(&mut self, event: Event) -> Result<()> {
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
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, e))?;
        self.file.stream_position().map_err(|e| Error::io("read", &self.path, e))
    }

    /// Forgets what was recorded after the file had `len` bytes: the state that goes on is older. A
    /// file that is shorter already, since a crash lost its end, stays as it is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn cut(&mut self, len: u64) -> Result<()> {
        let now = self.file.metadata().map_err(|e| Error::io("read", &self.path, e))?.len();
        self.file.set_len(len.min(now)).map_err(|e| Error::io("write", &self.path, e))?;
        self.file.seek(SeekFrom::End(0)).map_err(|e| Error::io("read", &self.path, e))?;
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
        journal.cut(length).unwrap();
        journal.record(event(2, 0.2)).unwrap();
        assert_eq!(read_events(&path).unwrap(), [event(1, 0.1), event(2, 0.2)]);
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
