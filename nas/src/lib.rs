//! Supernet spaces, training and search.

pub mod data;
