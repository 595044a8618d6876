//! What instructions mean on one lane: pure functions from bits to bits.

pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod int;
pub(crate) mod soft;
