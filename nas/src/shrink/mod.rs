//! Which candidates to drop before a search.

mod angle;

pub use angle::{Angles, Products};
