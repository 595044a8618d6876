//! Uniform path sampling (SPOS, section 3.2 of the paper).

use engine::Rng;

use super::Sampler;
use crate::arch::Arch;
use crate::space::Space;

/// Every candidate of every slot with the same probability, whatever the other paths of the step.
#[derive(Clone, Copy, Debug)]
pub struct Uniform;

impl Sampler for Uniform {
    fn path(&self, space: &Space, rng: &Rng, step: u64, number: u32) -> Arch {
        space.sample(&mut super::draws(rng, step, number))
    }
}
