//! Optimisers: one call over the touched set of a parameter store.

mod schedule;
mod sgd;

pub use schedule::{Decay, Schedule};
pub use sgd::{Sgd, SgdConfig, WeightDecay};
