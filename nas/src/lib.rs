//! Supernet spaces, training and search.

pub mod event;
pub mod outcome;
