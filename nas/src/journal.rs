//! The journal of a run: `events.jsonl`, and whoever else listens.
//!
//! A checkpoint keeps the length of the file at its moment. Going on from a checkpoint cuts the file
//! back to that length, so a resumed run leaves no line twice and no torn line.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
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
