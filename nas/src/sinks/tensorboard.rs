//! TensorBoard event files, written without TensorFlow.
//!
//! A file is a sequence of TFRecords: length (u64, little endian), masked CRC-32C of those 8 bytes,
//! payload, masked CRC-32C of the payload; a payload is one protobuf message `Event` of TensorFlow's
//! `event.proto`, of which we write fields 1 (wall_time, double), 2 (step, int64), 3 (file_version,
//! string), 5 (summary) and 7 (session_log).
//!
//! Every subject (`supernet`, `candidates`, `found`, …) has its own folder, which TensorBoard shows as
//! a run of its own; every sitting writes a new file there. A resumed sitting begins with
//! `SessionLog { START }` at its first step, upon which TensorBoard forgets the points from that step on:
//! a resumed run shows no point twice.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::event::{Event, Sink};

/// Writes scalars: loss, accuracy, learning rate and images a second over steps; accuracy, MACs and
/// parameters over candidates; test accuracy of trained networks.
pub struct TensorBoard {
    folder: PathBuf,
    files: HashMap<String, (PathBuf, File)>,
}

impl TensorBoard {
    /// Writes under `folder`, which is made at the first event, not before.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), files: HashMap::new() }
    }

    /// A new file for what is done by `subject` from unit `first` on.
    fn open(&mut self, subject: &str, first: u64) -> io::Result<()> {
        let folder = self.folder.join(file_name(subject));
        fs::create_dir_all(&folder).map_err(|e| named(&folder, e))?;
        // TensorBoard reads the files of a folder in the order of their names.
        let number = fs::read_dir(&folder).map_err(|e| named(&folder, e))?.count();
        let (path, mut file) = (number..number + 1_000)
            .map(|n| folder.join(format!("events.out.tfevents.{n:06}.monopath")))
            .map(|path| (OpenOptions::new().write(true).create_new(true).open(&path), path))
            .find(|(file, _)| !matches!(file, Err(e) if e.kind() == io::ErrorKind::AlreadyExists))
            .map_or_else(
                || Err(named(&folder, io::ErrorKind::AlreadyExists.into())),
                |(file, path)| file.map_err(|e| named(&path, e)).map(|file| (path, file)),
            )?;
        // SessionLog { status (1): START (1) }
        let start = protobuf(&[(1, Field::Int(1))]);
        let mut head = frame(&message(None, &[(3, Field::Bytes(b"brain.Event:2"))]));
        head.extend(frame(&message(Some(first), &[(7, Field::Bytes(&start))])));
        file.write_all(&head).map_err(|e| named(&path, e))?;
        self.files.insert(subject.to_owned(), (path, file));
        Ok(())
    }

    fn scalars(&mut self, subject: &str, step: u64, scalars: &[(&str, f64)]) -> io::Result<()> {
        if !self.files.contains_key(subject) {
            self.open(subject, step)?;
        }
        let mut summary = Vec::new();
        for &(tag, value) in scalars {
            // Summary.Value { tag (1), simple_value (2, float) }
            let value = protobuf(&[(1, Field::Bytes(tag.as_bytes())), (2, Field::Float(value as f32))]);
            summary.extend(protobuf(&[(1, Field::Bytes(&value))]));
        }
        let record = frame(&message(Some(step), &[(5, Field::Bytes(&summary))]));
        // One write a record: a crash tears the last one at most, which TensorBoard passes over.
        let (path, file) = self.files.get_mut(subject).expect("opened above");
        file.write_all(&record).map_err(|e| named(path, e))
    }
}

impl Sink for TensorBoard {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Started { subject, done, .. } => self.open(subject, done.saturating_add(1)),
            Event::Step { subject, step, loss, accuracy, lr, images, seconds, waited, .. } => {
                let mut scalars = vec![("loss", *loss), ("accuracy", *accuracy), ("learning-rate", *lr)];
                if *seconds > 0.0 {
                    scalars.push(("images-per-second", *images as f64 / seconds));
                    scalars.push(("waiting-for-data", waited / seconds));
                }
                self.scalars(subject, *step, &scalars)
            }
            Event::Gates { step, cross_entropy, cost, loss, entropy } => {
                let scalars = [
                    ("cross-entropy", *cross_entropy),
                    ("expected-cost", *cost),
                    ("loss", *loss),
                    ("entropy", *entropy),
                ];
                self.scalars("gates", *step, &scalars)
            }
            // Counted from 1, as steps are: the first candidate is there once one is done.
            Event::Candidate { index, top1, top5, macs, params, .. } => {
                let scalars =
                    [("top-1", *top1), ("top-5", *top5), ("macs", *macs as f64), ("params", *params as f64)];
                self.scalars("candidates", index.saturating_add(1), &scalars)
            }
            // The trained network's last step is not known here; a test has no steps of its own.
            Event::Scored { subject, top1, top5, .. } => {
                self.scalars(&format!("{subject}-test"), 0, &[("top-1", *top1), ("top-5", *top5)])
            }
            Event::Shrunk { step, networks, left, .. } => {
                let networks = networks.parse::<f64>().map_or(f64::NAN, f64::log10);
                self.scalars("shrink", *step, &[("networks-log10", networks), ("candidates", *left as f64)])
            }
            Event::Finished { subject, .. } => {
                self.files.remove(subject);
                Ok(())
            }
            Event::Checkpoint { .. }
            | Event::Warning { .. }
            | Event::NonFinite { .. }
            | Event::Interrupted { .. } => Ok(()),
        }
    }
}

/// An error that says what it is about.
fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A subject as a folder's name: nothing in it leads elsewhere.
fn file_name(subject: &str) -> String {
    let name: String =
        subject.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    if name.is_empty() { "_".into() } else { name }
}

/// A field of a message, by the wire type it takes.
enum Field<'a> {
    Int(u64),
    Double(f64),
    Float(f32),
    Bytes(&'a [u8]),
}

/// An `Event` at this moment.
fn message(step: Option<u64>, fields: &[(u8, Field<'_>)]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let mut out = protobuf(&[(1, Field::Double(now))]);
    if let Some(step) = step {
        out.extend(protobuf(&[(2, Field::Int(step))]));
    }
    out.extend(protobuf(fields));
    out
}

/// Fields in protobuf's wire format; field numbers here are below 16, so a tag is one byte.
fn protobuf(fields: &[(u8, Field<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, field) in fields {
        let tag = |wire: u8| number << 3 | wire;
        match field {
            Field::Int(value) => {
                out.push(tag(0));
                varint(&mut out, *value);
            }
            Field::Double(value) => {
                out.push(tag(1));
                out.extend(value.to_le_bytes());
            }
            Field::Bytes(bytes) => {
                out.push(tag(2));
                varint(&mut out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Field::Float(value) => {
                out.push(tag(5));
                out.extend(value.to_le_bytes());
            }
        }
    }
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The payload as a TFRecord.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(payload.len() + 16);
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend(masked_crc(payload).to_le_bytes());
    out
}

/// TensorFlow's rotation of CRC-32C, so that a checksum of data that holds checksums stays strong.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), reflected, polynomial 0x1EDC6F41.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |crc, &byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::event::Stage;

    /// What a record says.
    #[derive(Debug, Default, PartialEq)]
    struct Read {
        step: u64,
        version: Option<String>,
        starts: bool,
        scalars: Vec<(String, f32)>,
    }

    /// A reader written from the formats, apart from the writer; anything unexpected panics.
    fn read(path: &Path) -> Vec<Read> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let check = |bytes: &[u8], at: usize| {
                let unmasked =
                    u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()).wrapping_sub(0xa282_ead8);
                assert_eq!(unmasked.rotate_left(15), bitwise_crc32c(bytes));
            };
            check(&rest[..8], 8);
            check(&rest[12..12 + length], 12 + length);
            records.push(event(&rest[12..12 + length]));
            rest = &rest[16 + length..];
        }
        records
    }

    fn bitwise_crc32c(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for &byte in bytes {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        !crc
    }

    /// Splits a message into (field, wire type, value or length-delimited bytes).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
        fn number(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..64).step_by(7) {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = number(&mut bytes);
            let value = match tag & 7 {
                0 => number(&mut bytes).to_le_bytes().to_vec(),
                wire => {
                    let length = match wire {
                        1 => 8,
                        2 => number(&mut bytes) as usize,
                        5 => 4,
                        other => panic!("wire type {other}"),
                    };
                    let (value, after) = bytes.split_at(length);
                    bytes = after;
                    value.to_vec()
                }
            };
            found.push((tag >> 3, tag & 7, value));
        }
        found
    }

    fn event(bytes: &[u8]) -> Read {
        let mut read = Read::default();
        for (field, wire, value) in fields(bytes) {
            match (field, wire) {
                (1, 1) => assert!(f64::from_le_bytes(value.try_into().unwrap()) > 1.6e9),
                (2, 0) => read.step = u64::from_le_bytes(value.try_into().unwrap()),
                (3, 2) => read.version = Some(String::from_utf8(value).unwrap()),
                (7, 2) => read.starts = fields(&value) == [(1, 0, 1u64.to_le_bytes().to_vec())],
                (5, 2) => {
                    for (field, wire, value) in fields(&value) {
                        assert_eq!((field, wire), (1, 2));
                        let parts = fields(&value);
                        let tag = String::from_utf8(parts[0].2.clone()).unwrap();
                        read.scalars.push((tag, f32::from_le_bytes(parts[1].2.clone().try_into().unwrap())));
                    }
                }
                other => panic!("field {other:?}"),
            }
        }
        read
    }

    fn started(done: u64) -> Event {
        Event::Started {
            stage: Stage::Retrain,
            subject: "found".into(),
            total: 400,
            done,
            unit: "steps".into(),
        }
    }

    fn step(step: u64, loss: f64) -> Event {
        Event::Step {
            stage: Stage::Retrain,
            subject: "found".into(),
            step,
            total: 400,
            epoch: 0,
            loss,
            accuracy: 0.5,
            lr: 0.25,
            images: 100,
            seconds: 2.0,
            waited: 0.5,
        }
    }

    /// 300 steps, a crash, and another sitting from step 200 on with other losses.
    fn two_sittings(folder: &Path) {
        let mut first = TensorBoard::new(folder);
        first.event(&started(0)).unwrap();
        (1..=300).for_each(|i| first.event(&step(i, 1.5)).unwrap());
        drop(first);
        let mut second = TensorBoard::new(folder);
        second.event(&started(200)).unwrap();
        (201..=400).for_each(|i| second.event(&step(i, 0.25)).unwrap());
        second
            .event(&Event::Scored {
                subject: "found".into(),
                arch: "a".into(),
                top1: 0.875,
                top5: 1.0,
                images: 10,
            })
            .unwrap();
    }

    #[test]
    fn the_published_check_values_hold() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        two_sittings(folder.path());
        let file = |n: u32| folder.path().join(format!("found/events.out.tfevents.{n:06}.monopath"));
        let (first, second) = (read(&file(0)), read(&file(1)));
        assert_eq!((first.len(), second.len()), (302, 202));
        assert_eq!(first[0].version.as_deref(), Some("brain.Event:2"));
        assert_eq!((second[1].starts, second[1].step), (true, 201));
        assert_eq!(first[301].step, 300);
        let scalars = [
            ("loss", 1.5),
            ("accuracy", 0.5),
            ("learning-rate", 0.25),
            ("images-per-second", 50.0),
            ("waiting-for-data", 0.25),
        ];
        assert_eq!(first[301].scalars, scalars.map(|(tag, value)| (tag.to_owned(), value)));
    }

    #[test]
    fn nothing_is_written_before_the_first_event() {
        let folder = tempfile::tempdir().unwrap();
        drop(TensorBoard::new(folder.path().join("tensorboard")));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_hostile_subject_stays_in_the_folder() {
        assert_eq!(file_name("../../etc/x y"), "______etc_x_y");
        assert_eq!(file_name(""), "_");
    }

    /// The `tensorboard` package of the Python named by `MONOPATH_PYTHON` (else `python3`) reads the same:
    /// all 400 steps once, those of the second sitting with its losses.
    #[test]
    fn tensorboard_itself_reads_the_files() {
        let python = std::env::var("MONOPATH_PYTHON").unwrap_or_else(|_| "python3".into());
        let ask = |code: &str, folder: &Path| {
            std::process::Command::new(&python).args(["-c", code]).arg(folder).output()
        };
        let folder = tempfile::tempdir().unwrap();
        if !ask("import tensorboard", folder.path()).is_ok_and(|out| out.status.success()) {
            println!("skipped: {python} has no package tensorboard; set MONOPATH_PYTHON to one that has");
            return;
        }
        two_sittings(folder.path());
        // As a kill leaves it: the last record of the first sitting is torn.
        let torn = folder.path().join("found/events.out.tfevents.000000.monopath");
        let torn = OpenOptions::new().write(true).open(torn).unwrap();
        torn.set_len(torn.metadata().unwrap().len() - 7).unwrap();
        let code = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
a = EventAccumulator(sys.argv[1] + '/found', size_guidance={'scalars': 0}); a.Reload()
loss = a.Scalars('loss')
assert [s.step for s in loss] == list(range(1, 401)), [s.step for s in loss]
assert [s.value for s in loss] == [1.5] * 200 + [0.25] * 200
assert sorted(a.Tags()['scalars']) == ['accuracy', 'images-per-second', 'learning-rate', 'loss', 'waiting-for-data']
b = EventAccumulator(sys.argv[1] + '/found-test'); b.Reload()
assert [s.value for s in b.Scalars('top-1')] == [0.875]
print('read')
";
        let out = ask(code, folder.path()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out.stdout).trim(),
            "read",
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}
