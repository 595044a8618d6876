//! Architectures and spaces as text.

use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Choice, FixedLayer, Slot, Space, TextForm};
use crate::arch::Arch;
use crate::blocks::Block;
use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::files;
use crate::suggest;

/// What `arch.json` holds: labels, so that reordering a space's file cannot change its meaning, and
/// the digest of the space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ArchFile {
    /// Name of the space.
    pub space: String,
    /// Its digest.
    pub digest: String,
    /// The label chosen in each slot, by the slot's name.
    pub choices: Vec<(String, String)>,
    /// Parameters.
    pub params: u64,
    /// Multiply-adds.
    pub macs: u64,
}

impl Space {
    /// The text form of an architecture: labels, with commas between or joined as the space says.
    pub fn text(&self, arch: &Arch) -> String {
        let labels = self.labels(arch);
        match self.file.text {
            TextForm::Labels => labels.join(","),
            TextForm::Joined => labels.concat(),
        }
    }

    /// The label chosen in each slot.
    pub fn labels(&self, arch: &Arch) -> Vec<&str> {
        let pairs = self.slots().iter().zip(arch.choices());
        pairs.map(|(slot, &c)| slot.choices[usize::from(c)].label.as_str()).collect()
    }

    /// Reads the text form; brackets and blanks are passed over. Where labels are not joined, an integer
    /// may stand for a label: the place among the candidates that the slot has before any is dropped, or
    /// -1 for skip. So integers mean in a reduced space what they mean in the whole one.
    ///
    /// # Errors
    /// [`Error::Arch`] with the slot and what it knows.
    pub fn parse(&self, text: &str) -> Result<Arch> {
        let wrong = |reason: String| self.no_arch(text, reason);
        let inner = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
        let parts: Vec<String> = if self.file.text == TextForm::Joined && !inner.contains(',') {
            inner.chars().map(String::from).collect()
        } else {
            inner.split(',').map(|p| p.trim().to_owned()).collect()
        };
        if parts.len() != self.slots().len() {
            return Err(wrong(format!("it has {} choices for {} slots", parts.len(), self.slots().len())));
        }
        let mut choices = Vec::with_capacity(parts.len());
        for (slot, part) in self.slots().iter().zip(&parts) {
            let position = |is: &dyn Fn(&Choice) -> bool| slot.choices.iter().position(is);
            let place = position(&|c| c.label == *part).or_else(|| match (self.file.text, part.parse()) {
                (TextForm::Labels, Ok(-1i64)) => position(&|c| matches!(c.block, Block::Skip {})),
                (TextForm::Labels, Ok(n)) => position(&|c| usize::try_from(n) == Ok(c.number)),
                (TextForm::Joined, _) | (_, Err(_)) => None,
            });
            choices.push(place.ok_or_else(|| wrong(unknown(slot, part)))? as u16);
        }
        Ok(Arch::new(choices))
    }

    /// The architecture that a user names: an `arch.json` by its path (what ends in `.json`), or the text.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] if the file cannot be read; what [`Space::read_arch_file`] and
    /// [`Space::parse`] return.
    pub fn arch(&self, text_or_path: &str) -> Result<Arch> {
        let path = Path::new(text_or_path);
        if path.extension().is_none_or(|e| e != "json") {
            return self.parse(text_or_path);
        }
        let file = serde_json::from_slice(&files::read(path)?)
            .map_err(|e| Error::Format { path: path.to_owned(), reason: e.to_string() })?;
        self.read_arch_file(&file)
    }

    /// The content of `arch.json`.
    ///
    /// # Errors
    /// [`Error::Toml`] if the digest cannot be made.
    pub fn arch_file(&self, arch: &Arch) -> Result<ArchFile> {
        let names = self.slots().iter().map(|s| s.name.clone());
        let cost = self.cost(arch);
        Ok(ArchFile {
            space: self.name().to_owned(),
            digest: self.digest()?,
            choices: names.zip(self.labels(arch).into_iter().map(str::to_owned)).collect(),
            params: cost.params,
            macs: cost.macs,
        })
    }

    /// The architecture that an `arch.json` holds.
    ///
    /// # Errors
    /// [`Error::Arch`] if the file is of another space, or of this one in another version, if a slot or
    /// label is not what the space has, or if the costs are not those of the labels; [`Error::Toml`] if
    /// the digest cannot be made.
    pub fn read_arch_file(&self, file: &ArchFile) -> Result<Arch> {
        let labels: Vec<&str> = file.choices.iter().map(|(_, label)| label.as_str()).collect();
        let wrong = |reason: String| self.no_arch(&labels.join(","), reason);
        let digest = self.digest()?;
        if file.space != self.name() || file.digest != digest {
            return Err(wrong(format!(
                "it was made in space {:?} with digest {:?}, and this is {:?} with digest {digest:?}; \
                 give the space that it was made in",
                start(&file.space),
                start(&file.digest),
                self.name()
            )));
        }
        if file.choices.len() != self.slots().len() {
            return Err(wrong(format!(
                "it has {} choices for {} slots",
                file.choices.len(),
                self.slots().len()
            )));
        }
        let mut choices = Vec::with_capacity(self.slots().len());
        for (slot, (name, label)) in self.slots().iter().zip(&file.choices) {
            if *name != slot.name {
                return Err(wrong(format!("it chooses for {:?} where {} stands", start(name), slot.name)));
            }
            let place = slot.choices.iter().position(|c| c.label == *label);
            choices.push(place.ok_or_else(|| wrong(unknown(slot, label)))? as u16);
        }
        let arch = Arch::new(choices);
        let (said, cost) = (Cost { params: file.params, macs: file.macs }, self.cost(&arch));
        if said != cost {
            return Err(wrong(format!(
                "it says {} parameters and {} multiply-adds, and its labels have {} and {}",
                said.params, said.macs, cost.params, cost.macs
            )));
        }
        Ok(arch)
    }

    fn no_arch(&self, text: &str, reason: String) -> Error {
        Error::Arch { space: self.name().to_owned(), text: start(text), reason }
    }

    /// Stem, slots and head for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}: {}\ninput {}x{}x{}, {} classes, {} architectures\n\n",
            self.name(),
            self.about(),
            self.input().channels,
            self.input().size,
            self.input().size,
            self.classes(),
            self.size().map_or("more than 2^128".to_owned(), |n| n.to_string())
        );
        let mut row = |name: &str, place: &crate::blocks::Place, what: &str| {
            writeln!(
                text,
                "{name:<14} {:>4} -> {:<4} {:>4} -> {:<4} {what}",
                place.input,
                place.output,
                place.size,
                if place.flat { 1 } else { place.output_size() }
            )
            .expect("writing to a string");
        };
        let fixed = |layers: &[FixedLayer], row: &mut dyn FnMut(&str, &crate::blocks::Place, &str)| {
            layers.iter().for_each(|l| row(&l.name, &l.place, &l.block.label()));
        };
        fixed(self.stem(), &mut row);
        for slot in self.slots() {
            let labels: Vec<&str> = slot.choices.iter().map(|c| c.label.as_str()).collect();
            row(&slot.name, &slot.place, &labels.join(" "));
        }
        fixed(self.head(), &mut row);
        text
    }
}

/// Why `label` is no choice of `slot`.
fn unknown(slot: &Slot, label: &str) -> String {
    let known: Vec<&str> = slot.choices.iter().map(|c| c.label.as_str()).collect();
    let meant = suggest::nearest(label, known.iter().copied());
    let meant = meant.map_or(String::new(), |m| format!("; did you mean {m:?}?"));
    format!("{} has no candidate {:?}; it has {}{meant}", slot.name, start(label), known.join(", "))
}

/// So much of a text that a message can quote it.
fn start(text: &str) -> String {
    text.chars().take(200).collect()
}
