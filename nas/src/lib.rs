//! Supernet spaces, training and search: from images to a searched, retrained network.
//!
//! | room | what lies there |
//! | --- | --- |
//! | [`space`], [`arch`], [`blocks`], [`cost`], [`latency`] | what can be built and what it costs |
//! | [`model`] | a space with its parameters; forward |
//! | [`data`] | images on disk to batches |
//! | [`train`], [`sample`], [`gates`] | the training loop; which path each step takes, drawn or learned |
//! | [`calibrate`], [`evaluate`], [`search`] | scores of paths; which path is best |
//! | [`shrink`], [`rank`] | which candidates to drop; how well scores order trained networks |
//! | [`run`], [`recipe`], [`outcome`] | a whole run: one recipe, one directory |
//! | [`event`], [`journal`], [`sinks`] | what a run says about itself, and to whom |
//! | [`report`], [`table`], [`figures`] | what a person reads in the end |
//! | [`checkpoint`], [`files`] | what survives a crash |

pub mod arch;
pub mod blame;
pub mod blocks;
pub mod calibrate;
pub mod checkpoint;
pub mod cost;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod event;
pub mod figures;
pub mod files;
pub mod gates;
pub mod groups;
pub mod journal;
pub mod latency;
mod memory;
pub mod model;
pub mod outcome;
pub mod rank;
pub mod recipe;
pub mod report;
pub mod run;
pub mod sample;
pub mod search;
pub mod shrink;
pub mod sinks;
pub mod space;
mod step;
pub mod suggest;
pub mod table;
pub mod train;

pub use arch::Arch;
pub use error::{Error, Result};
pub use space::Space;
