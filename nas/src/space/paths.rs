//! Drawing, changing and costing the architectures of a space.

use engine::rng::Draws;

use super::{Choice, Slot, Space};
use crate::arch::Arch;
use crate::blocks::Block;
use crate::cost::{Cost, Work};
use crate::error::{Error, Result};

impl Space {
    /// How many architectures there are: the product of the slots' candidates, or `None` beyond 128
    /// bits.
    pub fn size(&self) -> Option<u128> {
        self.slots().iter().try_fold(1u128, |n, slot| n.checked_mul(slot.choices.len() as u128))
    }

    /// Refuses an architecture of another space.
    ///
    /// # Errors
    /// [`Error::Arch`].
    pub fn check(&self, arch: &Arch) -> Result<()> {
        let fits = arch.choices().len() == self.slots().len()
            && self.slots().iter().zip(arch.choices()).all(|(s, &c)| usize::from(c) < s.choices.len());
        if fits {
            return Ok(());
        }
        Err(Error::Arch {
            space: self.name().to_owned(),
            text: format!("{:?}", arch.choices()),
            reason: format!("it does not choose one candidate for each of {} slots", self.slots().len()),
        })
    }

    /// A uniformly random architecture.
    pub fn sample(&self, draws: &mut Draws) -> Arch {
        Arch::new(self.slots().iter().map(|slot| draw(slot, draws)).collect())
    }

    /// `arch` with each slot drawn anew with probability `rate`.
    pub fn mutate(&self, arch: &Arch, rate: f32, draws: &mut Draws) -> Arch {
        let anew = |(slot, &choice): (&Slot, &u16)| {
            if draws.uniform() < rate { draw(slot, draws) } else { choice }
        };
        Arch::new(self.slots().iter().zip(arch.choices()).map(anew).collect())
    }

    /// Each slot from `a` or `b` with probability one half.
    pub fn cross(&self, a: &Arch, b: &Arch, draws: &mut Draws) -> Arch {
        let pick = |(&a, &b): (&u16, &u16)| if draws.uniform() < 0.5 { a } else { b };
        Arch::new(a.choices().iter().zip(b.choices()).map(pick).collect())
    }

    /// The first candidate of every slot.
    pub fn first(&self) -> Arch {
        Arch::new(vec![0; self.slots().len()])
    }

    /// The candidate with the most multiply-adds in every slot; of equals the one with the most
    /// parameters, then the first.
    pub fn largest(&self) -> Arch {
        let place = |slot: &Slot| {
            let key = |c: &Choice| (c.cost.macs, c.cost.params);
            let most = slot.choices.iter().map(key).max();
            slot.choices.iter().position(|c| Some(key(c)) == most).unwrap_or(0) as u16
        };
        Arch::new(self.slots().iter().map(place).collect())
    }

    /// The candidate with the fewest multiply-adds in every slot; of equals the one with the fewest
    /// parameters, then the first.
    pub fn smallest(&self) -> Arch {
        let place = |slot: &Slot| {
            let key = |c: &Choice| (c.cost.macs, c.cost.params);
            let least = slot.choices.iter().map(key).min();
            slot.choices.iter().position(|c| Some(key(c)) == least).unwrap_or(0) as u16
        };
        Arch::new(self.slots().iter().map(place).collect())
    }

    /// The one architecture that stands for all that are the same network: where skips commute, the
    /// skips after a stage's first slot move to its end.
    pub fn canonical(&self, arch: &Arch) -> Arch {
        if !self.file.commute_skips {
            return arch.clone();
        }
        let mut choices = arch.choices().to_vec();
        let mut from = 0;
        while from < self.slots().len() {
            let stage = self.slots()[from].stage;
            let to = (from..self.slots().len()).find(|&i| self.slots()[i].stage != stage);
            let to = to.unwrap_or(self.slots().len());
            // Slots of a stage after its first have the same candidates, so a choice means the same.
            let (rest, slots) = (&mut choices[from + 1..to], &self.slots()[from + 1..to]);
            let skips = |c: u16| {
                slots.first().is_some_and(|s| matches!(s.choices[usize::from(c)].block, Block::Skip {}))
            };
            if slots.windows(2).all(|w| labels(&w[0]).eq(labels(&w[1]))) {
                rest.sort_by_key(|&c| skips(c));
            }
            from = to;
        }
        Arch::new(choices)
    }

    /// Parameters and multiply-adds of an architecture of this space.
    pub fn cost(&self, arch: &Arch) -> Cost {
        let choice = |(slot, &c): (&Slot, &u16)| slot.choices[usize::from(c)].cost;
        self.fixed + self.slots().iter().zip(arch.choices()).map(choice).sum()
    }

    /// What an architecture of this space does for one image, for [`Counter::count`](crate::cost::Counter::count).
    pub fn work(&self, arch: &Arch) -> Work {
        let fixed = self.stem().iter().chain(self.head()).map(|layer| layer.block.work(&layer.place));
        let chosen = self.slots().iter().zip(arch.choices());
        let chosen = chosen.map(|(slot, &c)| slot.choices[usize::from(c)].block.work(&slot.place));
        fixed.chain(chosen).fold(Work::default(), |sum, work| sum + work)
    }

    /// The least parameters and the fewest multiply-adds that any architecture has, each by itself.
    pub fn smallest_cost(&self) -> Cost {
        self.extreme(|costs| costs.min().unwrap_or(0))
    }

    /// The most parameters and multiply-adds that any architecture has, each by itself.
    pub fn largest_cost(&self) -> Cost {
        self.extreme(|costs| costs.max().unwrap_or(0))
    }

    fn extreme(&self, pick: impl Fn(&mut dyn Iterator<Item = u64>) -> u64) -> Cost {
        let of = |slot: &Slot| Cost {
            params: pick(&mut slot.choices.iter().map(|c| c.cost.params)),
            macs: pick(&mut slot.choices.iter().map(|c| c.cost.macs)),
        };
        self.fixed + self.slots().iter().map(of).sum()
    }
}

fn labels(slot: &Slot) -> impl Iterator<Item = &str> {
    slot.choices.iter().map(|c| c.label.as_str())
}

fn draw(slot: &Slot, draws: &mut Draws) -> u16 {
    draws.below(slot.choices.len() as u32) as u16
}
