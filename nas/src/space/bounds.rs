//! What a space's file may ask for, checked before anything is made of it: memory stays a small multiple
//! of the file's size. What its networks cost is bounded by [`crate::cost::Cost::MAX`].

use super::SpaceFile;

const MAX_SIZE: usize = 4096;
const MAX_CHANNELS: usize = 1 << 16;
const MAX_SLOTS: usize = 1024;
const MAX_CANDIDATES: usize = 256;
const MAX_LAYERS: usize = 64;

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
    within("stages", file.stages.iter().map(|s| s.slots).sum(), MAX_SLOTS)?;
    for (prefix, layers) in [("stem", &file.stem), ("head", &file.head)] {
        within(prefix, layers.len(), MAX_LAYERS)?;
        for (i, layer) in layers.iter().enumerate() {
            within(&format!("{prefix}[{i}].stride"), layer.stride, 2)?;
            within(&format!("{prefix}[{i}].channels"), layer.channels.unwrap_or(1), MAX_CHANNELS)?;
        }
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
