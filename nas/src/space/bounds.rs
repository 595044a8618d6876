//! What a space's file may ask for, checked before anything is made of it: memory stays a small multiple
//! of the file's size. What its networks cost is bounded by [`crate::cost::Cost::MAX`].

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{SpaceFile, TextForm};
use crate::error::{Error, Result};

const MAX_SIZE: usize = 4096;
const MAX_CHANNELS: usize = 1 << 16;
const MAX_SLOTS: usize = 1024;
const MAX_CANDIDATES: usize = 256;
const MAX_LAYERS: usize = 64;
/// Slots times candidates.
const MAX_CHOICES: usize = 1 << 14;
/// Characters of a label.
const MAX_LABEL: usize = 64;
/// Bytes of a file.
const MAX_BYTES: u64 = 1 << 20;

/// The text of a space's file.
pub(super) fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| Error::io("read", path, source))?;
    let unreadable = |reason: String| Error::Toml { path: path.to_owned(), reason };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable(format!("a space has at most {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|e| unreadable(format!("not UTF-8: {e}")))
}

/// Refuses what is out of bounds: where, and why.
pub(super) fn check(file: &SpaceFile) -> std::result::Result<(), (String, String)> {
    let within = |at: &str, value: usize, max: usize| {
        if (1..=max).contains(&value) {
            Ok(())
        } else {
            Err((at.to_owned(), format!("{value} must be 1 to {max}")))
        }
    };
    within("input.size", file.input.size, MAX_SIZE)?;
    within("input.channels", file.input.channels, MAX_CHANNELS)?;
    within("classes", file.classes, MAX_CHANNELS)?;
    within("candidates", file.candidates.len(), MAX_CANDIDATES)?;
    within("stages", file.stages.len(), MAX_LAYERS)?;
    for (i, stage) in file.stages.iter().enumerate() {
        within(&format!("stages[{i}].channels"), stage.channels, MAX_CHANNELS)?;
        within(&format!("stages[{i}].slots"), stage.slots, MAX_SLOTS)?;
        within(&format!("stages[{i}].stride"), stage.stride, 2)?;
    }
    let slots = file.stages.iter().map(|s| s.slots).sum();
    within("stages", slots, MAX_SLOTS)?;
    within("slots times candidates", slots * file.candidates.len(), MAX_CHOICES)?;
    for (i, candidate) in file.candidates.iter().enumerate() {
        if !candidate.block.is_candidate() {
            let reason = format!(
                "a {} layer cannot be a candidate; those are skip, conv, inverted-residual, shuffle, xception",
                candidate.block.label()
            );
            return Err((format!("candidates[{i}]"), reason));
        }
        if let Some(reason) = label_problem(&candidate.label(), file.text) {
            return Err((format!("candidates[{i}].label"), reason));
        }
    }
    for (prefix, layers) in [("stem", &file.stem), ("head", &file.head)] {
        within(prefix, layers.len(), MAX_LAYERS)?;
        for (i, layer) in layers.iter().enumerate() {
            within(&format!("{prefix}[{i}].stride"), layer.stride, 2)?;
            within(&format!("{prefix}[{i}].channels"), layer.channels.unwrap_or(1), MAX_CHANNELS)?;
        }
    }
    if let Some(last) = file.head.len().checked_sub(1).filter(|&i| file.head[i].channels.is_some()) {
        return Err((
            format!("head[{last}].channels"),
            "the last layer has as many channels as there are classes; leave this out and set classes".into(),
        ));
    }
    if !(file.norm.eps > 0.0 && file.norm.eps < 1.0) {
        return Err(("norm.eps".into(), format!("{} must be above 0 and below 1", file.norm.eps)));
    }
    if !(file.norm.momentum > 0.0 && file.norm.momentum <= 1.0) {
        return Err((
            "norm.momentum".into(),
            format!("{} must be above 0 and at most 1", file.norm.momentum),
        ));
    }
    Ok(())
}

/// Labels stand in architectures and in the names of weights, so they hold no character that either
/// gives a meaning.
fn label_problem(label: &str, form: TextForm) -> Option<String> {
    let length = label.chars().count();
    let plain = label.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let start: String = label.chars().take(MAX_LABEL).collect();
    if !(1..=MAX_LABEL).contains(&length) || !plain {
        return Some(format!("{start:?} must be 1 to {MAX_LABEL} letters, digits, _ or -"));
    }
    match form {
        TextForm::Joined if length > 1 => {
            Some(format!("{start:?} must be one character where text = \"joined\""))
        }
        TextForm::Labels if label.parse::<i64>().is_ok() => Some(format!(
            "{start:?} reads as the place of a candidate; start it with a letter, or set text = \"joined\""
        )),
        TextForm::Joined | TextForm::Labels => None,
    }
}
