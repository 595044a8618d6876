//! Initial values. Every parameter draws from a stream of its own, forked by its name, so adding
//! or dropping candidates changes nobody else's weights.

use crate::error::Result;
use crate::params::{ParamId, ParamStore};
use crate::rng::Rng;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// One value everywhere.
    Constant(f32),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Uniform in `-bound..bound`.
    Uniform {
        /// The bound.
        bound: f32,
    },
}

impl Init {
    /// He's normal initialisation over the fan-out: `std = sqrt(2 / fan_out)`.
    pub fn kaiming_fan_out(fan_out: usize) -> Self {
        Init::Normal { std: (2.0 / fan_out.max(1) as f32).sqrt() }
    }

    /// Fills parameter `id` from `rng` forked by the parameter's name.
    ///
    /// # Errors
    /// [`crate::Error::InUse`] while a `Var` still holds parameters.
    pub fn fill(self, store: &mut ParamStore, id: ParamId, rng: &Rng) -> Result<()> {
        let mut draws = rng.fork(&store.param(id).name).at(0, 0, 0);
        let next = || match self {
            Init::Constant(value) => value,
            Init::Normal { std } => std * draws.normal(),
            Init::Uniform { bound } => draws.range(-bound, bound),
        };
        let values: Vec<f32> = std::iter::repeat_with(next).take(store.param(id).shape.len()).collect();
        store.set(id, &values)
    }
}
