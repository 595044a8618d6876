//! One file per family of commands.

pub mod bench;
pub mod data;
pub mod devices;
pub mod predict;
pub mod rank;
pub mod run;
pub mod space;
