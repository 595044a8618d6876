//! Supernet spaces, training and search.

pub mod data;
pub mod event;
pub mod outcome;
