//! The architecture: what one forward pass executes.

/// One candidate per slot, by its place among the slot's candidates.
///
/// Its text and its file name candidates by label, so reordering a space's file cannot change what
/// an architecture means; see [`crate::Space::text`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arch(Vec<u16>);

impl Arch {
    /// The architecture with these choices, one per slot.
    pub fn new(choices: Vec<u16>) -> Self {
        Self(choices)
    }

    /// The choice of every slot.
    pub fn choices(&self) -> &[u16] {
        &self.0
    }

    /// The choice of one slot, if there is such a slot.
    pub fn choice(&self, slot: usize) -> Option<usize> {
        self.0.get(slot).map(|&c| usize::from(c))
    }
}
