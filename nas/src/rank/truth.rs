//! What networks reach when each is trained by itself: a table from outside, or the retrained random networks
//! of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::files;
use crate::run::RunDir;
use crate::search::Score;
use crate::space::Space;

/// A trained network.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The network, in its canonical form.
    pub arch: Arch,
    /// Its accuracy in per cent, the mean over its trainings.
    pub accuracy: f64,
    /// The accuracy of each training; may be empty.
    pub runs: Vec<f64>,
}

/// Trained networks in the order of their choices, each network once.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth(Vec<Trained>);

/// A row of the table; what else it holds (deviations, costs) is passed over.
#[derive(Deserialize)]
struct Row {
    mean_acc: f64,
    #[serde(default)]
    test_acc: Vec<f64>,
}

/// The rows with their keys in the order of the file: a map would hide a key that stands twice.
struct Rows(Vec<(String, Row)>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Rows;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose keys are architectures")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Rows, A::Error> {
                let mut rows = Vec::new();
                while let Some(row) = map.next_entry()? {
                    rows.push(row);
                }
                Ok(Rows(rows))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// What `networks/<subject>/score.json` of a run holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Tested {
    pub score: Score,
    /// Length of `events.jsonl` when this was written.
    pub events: u64,
}

impl Truth {
    /// Reads `path`: a run directory, or a table as NAS-Bench-Macro's (JSON: architecture in the space's text
    /// form to `mean_acc` in per cent and perhaps `test_acc` of each training). Of a table's rows only those
    /// whose architecture is the canonical form count: where several texts name one network, the others say
    /// the same again.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] naming the row for what is no architecture of the space, stands twice
    /// or has an accuracy that is no percentage.
    pub fn read(path: &Path, space: &Space) -> Result<Self> {
        if path.is_dir() { Self::of_run(path, space) } else { Self::parse(&files::read(path)?, path, space) }
    }

    /// As [`Truth::read`] from the bytes of a table; `path` serves messages.
    ///
    /// # Errors
    /// As [`Truth::read`].
    pub fn parse(bytes: &[u8], path: &Path, space: &Space) -> Result<Self> {
        let wrong = |reason: String| Error::Format { path: path.to_owned(), reason };
        let Rows(rows) = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        let mut networks = BTreeMap::new();
        for (key, row) in rows {
            let arch = space.parse(&key).map_err(|e| wrong(e.to_string()))?;
            if space.canonical(&arch) != arch {
                continue;
            }
            let key = space.text(&arch);
            if let Some(bad) =
                std::iter::once(&row.mean_acc).chain(&row.test_acc).find(|a| !(0.0..=100.0).contains(*a))
            {
                return Err(wrong(format!("{key}: accuracy {bad} is not within 0 to 100 per cent")));
            }
            let trained = Trained { arch: arch.clone(), accuracy: row.mean_acc, runs: row.test_acc };
            if networks.insert(arch, trained).is_some() {
                return Err(wrong(format!("{key} stands twice")));
            }
        }
        Ok(Self(networks.into_values().collect()))
    }

    /// The random networks that a run has retrained and tested. The found and the largest one are left out:
    /// they were not drawn as the others, and would tell of the search what is asked of the supernet.
    fn of_run(path: &Path, space: &Space) -> Result<Self> {
        let dir = RunDir::new(path);
        let mut networks = BTreeMap::new();
        for n in 0.. {
            let folder = dir.network(&format!("random-{n}"));
            let file = folder.join("score.json");
            if !file.exists() {
                break;
            }
            let json = |path: &Path, e: serde_json::Error| Error::Format {
                path: path.to_owned(),
                reason: e.to_string(),
            };
            let tested: Tested = serde_json::from_slice(&files::read(&file)?).map_err(|e| json(&file, e))?;
            let file = folder.join("arch.json");
            let named = serde_json::from_slice(&files::read(&file)?).map_err(|e| json(&file, e))?;
            let arch = space.canonical(&space.read_arch_file(&named)?);
            let accuracy = 100.0 * tested.score.top1 as f64 / tested.score.images.max(1) as f64;
            networks.insert(arch.clone(), Trained { arch, accuracy, runs: vec![accuracy] });
        }
        Ok(Self(networks.into_values().collect()))
    }

    /// The networks.
    pub fn networks(&self) -> &[Trained] {
        &self.0
    }

    /// `n` of them drawn without replacement, in their order; all if there are no more.
    pub fn draw(self, n: usize, rng: &engine::Rng) -> Self {
        if n >= self.0.len() {
            return self;
        }
        let mut chosen = rng.at(0, 0, 0).permutation(self.0.len());
        chosen.truncate(n);
        chosen.sort_unstable();
        Self(chosen.into_iter().map(|i| self.0[i as usize].clone()).collect())
    }

    /// The most that any score can be expected to reach: tau-b between the first training of each network and
    /// the mean of its others. `None` if one has fewer than two trainings.
    pub fn ceiling(&self) -> Option<f64> {
        let (first, others): (Vec<f64>, Vec<f64>) = self
            .0
            .iter()
            .map(|network| {
                let (first, others) = network.runs.split_first().filter(|(_, others)| !others.is_empty())?;
                Some((*first, others.iter().sum::<f64>() / others.len() as f64))
            })
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .unzip();
        super::correlation::tau_b(&first, &others)
    }
}
