//! The report of a run directory, whole or not.

use super::{Found, RunDir};
use crate::error::{Error, Result};
use crate::files;
use crate::journal::read_events;
use crate::outcome::Outcome;
use crate::rank::Ranking;
use crate::report::{Drawing, Input, html};

/// Writes `report.html` from what the directory holds; of a run that stopped early the page says what
/// is missing.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] if a file of the directory is not what it should be.
pub fn write_report(dir: &RunDir) -> Result<()> {
    let recipe = dir.read_recipe()?;
    let space = dir.read_space()?;
    let events = if dir.events().exists() { read_events(&dir.events())? } else { Vec::new() };
    let outcome: Option<Outcome> = read_json(&dir.result())?;
    let found: Option<Found> = read_json(&dir.search())?;
    let rankings: Vec<Ranking> = read_json(&dir.rank())?.unwrap_or_default();
    let network = match found {
        Some(found) if !found.found.is_empty() => {
            let arch = space.parse(&found.found)?;
            // Drawn over the whole space, so that the labels are the ones of the search.
            Some(Drawing::of(&space, &arch)?)
        }
        _ => None,
    };
    let listed: Vec<(&str, &str)> = [
        ("recipe with every default", "recipe.toml"),
        ("space", "space.toml"),
        ("space after shrinking", "shrunk.toml"),
        ("rounds of shrinking", "shrink.json"),
        ("events", "events.jsonl"),
        ("supernet", "supernet.safetensors"),
        ("scored candidates", "search.json"),
        ("found architecture", "arch.json"),
        ("found network", "model.safetensors"),
        ("all networks", "networks"),
        ("outcome", "result.json"),
        ("rankings", "rank.json"),
        ("TensorBoard", "tensorboard"),
    ]
    .into_iter()
    .filter(|(_, file)| dir.path().join(file).exists())
    .collect();
    let name = dir.path().file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy());
    let page = html(&Input {
        recipe: if recipe.about.is_empty() { &name } else { &recipe.about },
        seed: recipe.seed,
        space: space.name(),
        about: space.about(),
        events: &events,
        outcome: outcome.as_ref(),
        network: network.as_ref(),
        rankings: &rankings,
        files: &listed,
    });
    files::write_atomic(&dir.report(), page.as_bytes())
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    serde_json::from_slice(&files::read(path)?)
        .map(Some)
        .map_err(|e| Error::Format { path: path.to_owned(), reason: e.to_string() })
}
