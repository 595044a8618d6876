//! The formulas of binary gates, in f64 and free of any network (ProxylessNAS, sections 3.2 and 3.3; what the
//! paper leaves open is from its released code).

/// `softmax(alpha)`.
pub fn softmax(alpha: &[f64]) -> Vec<f64> {
    // Divided by the sum of what is summed, so that the shares add up to 1 whatever the size of alpha.
    let max = alpha.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts: Vec<f64> = alpha.iter().map(|a| (a - max).exp()).collect();
    let sum: f64 = parts.iter().sum();
    parts.into_iter().map(|part| part / sum).collect()
}

/// `ln Σ exp(alpha)`, of any size of `alpha`.
pub fn log_sum_exp(alpha: &[f64]) -> f64 {
    let max = alpha.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + alpha.iter().map(|a| (a - max).exp()).sum::<f64>().ln()
}

/// The gradient of a loss by the alphas of the candidates that take part, from its gradient by their gates:
/// `dL/dα_i = Σ_j dL/dg_j p_j (δ_ij - p_i)`, with p over those candidates alone (section 3.2.1).
pub fn gate_gradient(by_gate: &[f64], p: &[f64]) -> Vec<f64> {
    // Σ_j d_j p_j δ_ij - p_i Σ_j d_j p_j.
    let mean: f64 = by_gate.iter().zip(p).map(|(d, p)| d * p).sum();
    by_gate.iter().zip(p).map(|(d, p)| p * (d - mean)).collect()
}

/// The expected cost of a slot whose candidates cost `costs`: `Σ p_i c_i` (equation 4).
pub fn expected(costs: &[f64], p: &[f64]) -> f64 {
    costs.iter().zip(p).map(|(c, p)| c * p).sum()
}

/// The gradient of [`expected`] by the alphas: `p_i (c_i - Σ p_j c_j)`.
pub fn expected_gradient(costs: &[f64], p: &[f64]) -> Vec<f64> {
    gate_gradient(costs, p)
}

/// Moves the two alphas at `pair` by a common amount, so that their share of probability against the other
/// candidates is what it was before the step; `before` is [`log_sum_exp`] of the two then (section 3.2.1).
pub fn keep_share(alpha: &mut [f64], pair: [usize; 2], before: f64) {
    let offset = log_sum_exp(&pair.map(|i| alpha[i])) - before;
    pair.iter().for_each(|&i| alpha[i] -= offset);
}

/// Adam (Kingma and Ba, 2015, algorithm 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// How much of the first and of the second moment stays.
    pub betas: [f64; 2],
    /// How much of a parameter its user adds to its gradient.
    pub decay: f64,
}

impl Adam {
    const EPS: f64 = 1e-8;

    /// Update number `t`, from 1: changes both moments, returns what is taken off the parameter.
    pub fn update(&self, t: u64, gradient: f64, first: &mut f64, second: &mut f64) -> f64 {
        let [a, b] = self.betas;
        *first = a * *first + (1.0 - a) * gradient;
        *second = b * *second + (1.0 - b) * gradient * gradient;
        let bias = |beta: f64| 1.0 - beta.powf(t as f64);
        self.lr * (*first / bias(a)) / ((*second / bias(b)).sqrt() + Self::EPS)
    }
}

#[cfg(test)]
mod tests {
    use engine::Rng;

    use super::*;

    /// Central differences of `f` at `at`.
    fn differences(at: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let h = 1e-6;
        let moved = |i: usize, by: f64| {
            let mut at = at.to_vec();
            at[i] += by;
            f(&at)
        };
        (0..at.len()).map(|i| (moved(i, h) - moved(i, -h)) / (2.0 * h)).collect()
    }

    fn numbers(n: usize, seed: u64) -> Vec<f64> {
        let mut draws = Rng::new(seed, "gates").at(0, 0, 0);
        (0..n).map(|_| f64::from(draws.normal())).collect()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-8) && a.len() == b.len(), "{a:?} {b:?}");
    }

    #[test]
    fn the_gradient_through_a_gate_is_that_of_the_loss_over_mixed_gates() {
        for n in 2..8 {
            let (alpha, by_gate) = (numbers(n, 1), numbers(n, 2));
            // A loss whose gradient by gate j is by_gate[j], with the gates at their probabilities.
            let loss = |alpha: &[f64]| expected(&by_gate, &softmax(alpha));
            close(&gate_gradient(&by_gate, &softmax(&alpha)), &differences(&alpha, loss));
        }
    }

    #[test]
    fn what_all_candidates_have_in_common_does_not_matter() {
        // So a shortcut may be counted to every candidate or to none.
        let (by_gate, p) = (numbers(4, 3), softmax(&numbers(4, 4)));
        let shifted: Vec<f64> = by_gate.iter().map(|d| d + 7.5).collect();
        close(&gate_gradient(&by_gate, &p), &gate_gradient(&shifted, &p));
        assert!(gate_gradient(&by_gate, &p).iter().sum::<f64>().abs() < 1e-12);
    }

    #[test]
    fn the_gradient_of_the_expected_cost_is_its_difference_quotient() {
        let (alpha, costs) = (numbers(5, 5), numbers(5, 6));
        let cost = |alpha: &[f64]| expected(&costs, &softmax(alpha));
        close(&expected_gradient(&costs, &softmax(&alpha)), &differences(&alpha, cost));
    }

    #[test]
    fn candidates_that_took_no_part_keep_their_probability() {
        let mut alpha = numbers(6, 7);
        let p = softmax(&alpha);
        let before = log_sum_exp(&[alpha[1], alpha[4]]);
        alpha[1] += 3.0;
        alpha[4] -= 1.0;
        let ratio = (alpha[1] - alpha[4]).exp();
        keep_share(&mut alpha, [1, 4], before);
        let q = softmax(&alpha);
        for i in [0, 2, 3, 5] {
            assert!((p[i] - q[i]).abs() < 1e-15);
        }
        assert!((q[1] / q[4] - ratio).abs() < 1e-9 * ratio, "the step between the two stays");
    }

    #[test]
    fn softmax_holds_for_any_size() {
        let p = softmax(&[-1e300, 0.0, 1e4, 1e4]);
        assert_eq!(p, [0.0, 0.0, 0.5, 0.5]);
    }

    #[test]
    fn adam_takes_the_steps_that_its_paper_writes_down() {
        let adam = Adam { lr: 0.1, betas: [0.5, 0.9], decay: 0.0 };
        let (mut m, mut v) = (0.0, 0.0);
        // m = 1, v = 0.4; m/(1-0.5) = 2, v/(1-0.9) = 4: a step of lr.
        assert!((adam.update(1, 2.0, &mut m, &mut v) - 0.1).abs() < 1e-9);
        // m = -0.5, v = 0.76; m/0.75 = -2/3, v/0.19 = 4.
        assert!((adam.update(2, -2.0, &mut m, &mut v) + 0.1 / 3.0).abs() < 1e-9);
        assert!((m + 0.5).abs() < 1e-15 && (v - 0.76).abs() < 1e-15);
    }
}
