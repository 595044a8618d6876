//! What the ops that move channels share: work is cut into whole pixels.

use crate::tensor::Shape;

/// Elements per task, rounded to whole pixels.
const CHUNK: usize = 1 << 14;

/// Pixels per task where a pixel has `c` channels.
pub(super) fn pixels(c: usize) -> usize {
    (CHUNK / c).max(1)
}

/// `shape` with another number of channels.
pub(super) fn with_channels(shape: Shape, c: usize) -> Shape {
    let mut dims = [0; 4];
    let rank = shape.rank();
    dims[..rank].copy_from_slice(shape.dims());
    dims[rank - 1] = c;
    Shape::new(&dims[..rank]).expect("the rank was valid")
}
