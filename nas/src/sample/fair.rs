//! Strict fairness (FairNAS, ICCV 2021, section 3.2 and algorithm 1).
//!
//! A step trains as many paths as a slot has candidates. Every slot draws a permutation of its candidates,
//! and path `j` takes entry `j` of each: so after every step all candidates of a slot have been trained
//! equally often. That the paths see the same images and that one update follows their summed gradients
//! is the trainer's part ([`crate::groups`]).

use engine::Rng;

use super::Sampler;
use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::space::Space;

/// Each candidate of each slot in exactly one path of every step.
#[derive(Clone, Copy, Debug)]
pub struct Fair;

impl Fair {
    /// How many paths a step has: the candidates of a slot. Slots with one candidate do not count.
    ///
    /// # Errors
    /// [`Error::Setting`] naming two slots with other numbers of candidates.
    pub fn paths(space: &Space) -> Result<usize> {
        let mut open = space.slots().iter().filter(|slot| slot.choices.len() > 1);
        let Some(first) = open.next() else { return Ok(1) };
        match open.find(|slot| slot.choices.len() != first.choices.len()) {
            None => Ok(first.choices.len()),
            Some(other) => Err(Error::Setting {
                key: "supernet.sampler".into(),
                value: "fair".into(),
                range: format!(
                    "for spaces whose slots have equally many candidates: {} has {}, {} has {}",
                    first.name,
                    first.choices.len(),
                    other.name,
                    other.choices.len()
                ),
            }),
        }
    }
}

impl Sampler for Fair {
    fn path(&self, space: &Space, rng: &Rng, step: u64, number: u32) -> Arch {
        let choice = |(slot, choices): (usize, usize)| {
            // All paths of a step read the same permutation, which is the slot's own.
            let order = super::draws(rng, step, slot as u32).permutation(choices);
            order[number as usize % choices] as u16
        };
        Arch::new(space.slots().iter().map(|slot| slot.choices.len()).enumerate().map(choice).collect())
    }
}
