//! Drawings from spaces.

use super::network::{Drawing, Kind, Layer};
use crate::arch::Arch;
use crate::blocks::{Block, Place};
use crate::error::Result;
use crate::space::Space;

impl Drawing {
    /// The network `arch` of `space`.
    ///
    /// # Errors
    /// [`crate::Error::Space`] if `arch` is not of this space.
    pub fn of(space: &Space, arch: &Arch) -> Result<Self> {
        space.check(arch)?;
        let layer = |name: &str, label: &str, kind, block: &Block, place: &Place| Layer {
            name: name.to_owned(),
            label: label.to_owned(),
            kind,
            channels: place.output,
            size: if place.flat || matches!(block, Block::Pool {}) { 0 } else { place.output_size() },
        };
        let fixed =
            |l: &crate::space::FixedLayer| layer(&l.name, &l.block.label(), Kind::Fixed, &l.block, &l.place);
        let mut layers: Vec<Layer> = space.stem().iter().map(fixed).collect();
        for (slot, &choice) in space.slots().iter().zip(arch.choices()) {
            let choice = &slot.choices[usize::from(choice)];
            let kind = if matches!(choice.block, Block::Skip {}) { Kind::Skip } else { Kind::Chosen };
            layers.push(layer(&slot.name, &choice.label, kind, &choice.block, &slot.place));
        }
        layers.extend(space.head().iter().map(fixed));
        Ok(Self { channels: space.input().channels, size: space.input().size, layers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_follows_the_space() {
        let space = Space::load("quickstart").unwrap();
        let drawing = Drawing::of(&space, &space.smallest()).unwrap();
        assert_eq!((drawing.size, drawing.channels), (28, 1));
        assert_eq!(drawing.layers.len(), space.stem().len() + space.slots().len() + space.head().len());
        assert_eq!((drawing.layers[0].size, drawing.layers[0].channels), (14, 16));
        let last = drawing.layers.last().unwrap();
        assert_eq!((last.size, last.channels, last.label.as_str()), (0, 10, "linear"));
        // The smallest network skips wherever it may.
        assert!(drawing.layers.iter().any(|l| l.kind == Kind::Skip));
        assert!(Drawing::of(&space, &Arch::new(vec![0])).is_err());
    }
}
