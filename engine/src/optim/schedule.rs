//! Learning rates as a pure function of the step, so resuming needs no state.

/// How the rate falls after warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// Constant.
    None,
    /// Linear to the rate `end`: `1 - t (1 - end / lr)`.
    Linear {
        /// The rate at the end.
        end: f32,
    },
    /// Half a cosine to zero: `(1 + cos(pi t)) / 2`.
    Cosine,
    /// Multiplied by `factor` after every `every` steps.
    Step {
        /// Steps between falls, at least 1.
        every: u64,
        /// What the rate is multiplied by.
        factor: f32,
    },
}

/// A learning-rate schedule over `total` steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The rate at the end of warm-up.
    pub lr: f32,
    /// Steps of linear warm-up: step `i` of it has `lr * (i + 1) / warmup`.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
    /// What follows warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f32 {
        if step < self.warmup {
            return self.lr * (step + 1) as f32 / self.warmup as f32;
        }
        let (done, length) = (step - self.warmup, self.total.saturating_sub(self.warmup).max(1));
        let t = (done as f64 / length as f64).min(1.0);
        let factor = match self.decay {
            Decay::None => 1.0,
            Decay::Linear { end } => 1.0 - t * (1.0 - f64::from(end) / f64::from(self.lr)),
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
            Decay::Step { every, factor } => f64::from(factor).powi((done / every.max(1)).min(10_000) as i32),
        };
        (f64::from(self.lr) * factor) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Schedule = Schedule { lr: 0.5, warmup: 0, total: 100, decay: Decay::Linear { end: 0.0 } };

    #[test]
    fn linear_falls_to_zero_per_step() {
        assert_eq!(BASE.at(0), 0.5);
        assert_eq!(BASE.at(50), 0.25);
        assert!((BASE.at(99) - 0.005).abs() < 1e-7);
        assert_eq!(BASE.at(100), 0.0);
    }

    #[test]
    fn linear_falls_to_its_end_and_stays_there() {
        let schedule = Schedule { lr: 0.25, decay: Decay::Linear { end: 5e-4 }, ..BASE };
        assert_eq!((schedule.at(0), schedule.at(100), schedule.at(500)), (0.25, 5e-4, 5e-4));
        assert!((schedule.at(50) - (0.25 + 5e-4) / 2.0).abs() < 1e-7);
    }

    #[test]
    fn warm_up_is_linear_and_ends_at_the_rate() {
        let schedule = Schedule { warmup: 4, decay: Decay::Cosine, ..BASE };
        assert_eq!(schedule.at(0), 0.125);
        assert_eq!(schedule.at(3), 0.5);
        assert_eq!(schedule.at(4), 0.5);
        assert!((schedule.at(52) - 0.25).abs() < 1e-6);
    }

    #[test]
    fn steps_multiply() {
        let schedule = Schedule { decay: Decay::Step { every: 30, factor: 0.1 }, ..BASE };
        assert_eq!(schedule.at(29), 0.5);
        assert!((schedule.at(30) - 0.05).abs() < 1e-7);
        assert!((schedule.at(60) - 0.005).abs() < 1e-8);
    }
}
