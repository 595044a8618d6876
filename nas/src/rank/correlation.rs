//! How well one list of figures orders another: Kendall's tau-b, Spearman's rho, precision at k.
//!
//! Ties count as ties. A figure that is not defined (all values alike, fewer values than k) is `None`,
//! never 0.

use std::cmp::Ordering;

use engine::Rng;

/// Resamples of the bootstrap.
const RESAMPLES: u32 = 1000;

/// Kendall's tau-b of two lists of equal length, in `n log n` (Knight 1966); `None` where one of them has no
/// two different values.
pub fn tau_b(x: &[f64], y: &[f64]) -> Option<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]).then(y[a].total_cmp(&y[b])));
    let pairs = |n: usize| n as f64 * (n as f64 - 1.0) / 2.0;
    let runs = |same: &dyn Fn(usize, usize) -> bool, order: &[usize]| -> f64 {
        order.chunk_by(|&a, &b| same(a, b)).map(|run| pairs(run.len())).sum()
    };
    let tied_x = runs(&|a, b| x[a] == x[b], &order);
    let tied_both = runs(&|a, b| x[a] == x[b] && y[a] == y[b], &order);
    let mut column: Vec<f64> = order.iter().map(|&i| y[i]).collect();
    let swaps = sort_counting(&mut column) as f64;
    let tied_y: f64 = column.chunk_by(|a, b| a == b).map(|run| pairs(run.len())).sum();
    let all = pairs(x.len());
    let whole = ((all - tied_x) * (all - tied_y)).sqrt();
    (whole > 0.0).then(|| (all - tied_x - tied_y + tied_both - 2.0 * swaps) / whole)
}

/// Sorts by merging; returns how many pairs stood the wrong way round.
fn sort_counting(values: &mut [f64]) -> u64 {
    if values.len() < 2 {
        return 0;
    }
    let (left, right) = values.split_at_mut(values.len() / 2);
    let mut swaps = sort_counting(left) + sort_counting(right);
    let (mut i, mut j) = (0, 0);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while i < left.len() && j < right.len() {
        if right[j].total_cmp(&left[i]) == Ordering::Less {
            swaps += (left.len() - i) as u64;
            merged.push(right[j]);
            j += 1;
        } else {
            merged.push(left[i]);
            i += 1;
        }
    }
    merged.extend_from_slice(&left[i..]);
    merged.extend_from_slice(&right[j..]);
    values.copy_from_slice(&merged);
    swaps
}

/// Spearman's rho: Pearson's correlation of the ranks, equals sharing the mean of theirs.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    let (x, y) = (ranks(x), ranks(y));
    // Ranks always have this mean.
    let mean = (x.len() as f64 + 1.0) / 2.0;
    let product =
        |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum() };
    let whole = (product(&x, &x) * product(&y, &y)).sqrt();
    (whole > 0.0).then(|| product(&x, &y) / whole)
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for run in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (run.len() as f64 + 1.0) / 2.0;
        run.iter().for_each(|&i| ranks[i] = rank);
        before += run.len();
    }
    ranks
}

/// The share of the `k` highest of `truth` among the `k` highest of `score`. Where a tie straddles the border,
/// its members belong to the highest with equal probability, and this is the mean over them.
pub fn precision_at(k: usize, score: &[f64], truth: &[f64]) -> Option<f64> {
    if k == 0 || score.len() < k {
        return None;
    }
    let (a, b) = (highest(k, score), highest(k, truth));
    Some(a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>() / k as f64)
}

/// The probability of each to be among the `k` highest, ties broken at random.
fn highest(k: usize, values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let mut chances = vec![0.0; values.len()];
    let mut left = k;
    for run in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let taken = left.min(run.len());
        run.iter().for_each(|&i| chances[i] = taken as f64 / run.len() as f64);
        left -= taken;
    }
    chances
}

/// The middle 95 % of tau-b over resamples of the pairs with replacement (percentile bootstrap). A pair drawn
/// twice is a tie with itself and counts for nothing.
pub fn interval_95(x: &[f64], y: &[f64], rng: &Rng) -> Option<[f64; 2]> {
    let n = u32::try_from(x.len()).ok().filter(|&n| n > 1)?;
    let mut taus: Vec<f64> = (0..RESAMPLES)
        .filter_map(|resample| {
            let mut draws = rng.at(0, 0, resample);
            let (a, b): (Vec<f64>, Vec<f64>) =
                (0..n).map(|_| draws.below(n) as usize).map(|i| (x[i], y[i])).unzip();
            tau_b(&a, &b)
        })
        .collect();
    taus.sort_by(f64::total_cmp);
    let at = |share: f64| taus[((taus.len() - 1) as f64 * share).round() as usize];
    (!taus.is_empty()).then(|| [at(0.025), at(0.975)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: every pair looked at.
    fn slow_tau(x: &[f64], y: &[f64]) -> f64 {
        let (mut sum, mut a, mut b) = (0.0, 0.0, 0.0);
        for i in 0..x.len() {
            for j in 0..i {
                let sign = |v: &[f64]| f64::from(v[i].total_cmp(&v[j]) as i8);
                sum += sign(x) * sign(y);
                a += sign(x).abs();
                b += sign(y).abs();
            }
        }
        sum / (a * b).sqrt()
    }

    #[test]
    fn tau_b_with_ties_is_what_a_hand_counts() {
        // Ten pairs. Tied in x: the 2nd and 3rd; in y: the 1st and 2nd, the 3rd and 5th. Of the rest the 4th and
        // 5th disagree and six agree.
        let (x, y) = ([1.0, 2.0, 2.0, 3.0, 4.0], [1.0, 1.0, 3.0, 4.0, 3.0]);
        let want = (6.0 - 1.0) / (9.0f64 * 8.0).sqrt();
        assert!((tau_b(&x, &y).unwrap() - want).abs() < 1e-15);
        assert!((slow_tau(&x, &y) - want).abs() < 1e-15);
        assert_eq!(tau_b(&[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0]), Some(1.0));
        assert_eq!(tau_b(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        assert_eq!(tau_b(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(tau_b(&[], &[]), None);
    }

    #[test]
    fn tau_b_in_n_log_n_is_tau_b_over_all_pairs() {
        for case in 0..50 {
            let mut draws = Rng::new(1, "tau").at(0, 0, case);
            let mut list = |n, of| -> Vec<f64> { (0..n).map(|_| f64::from(draws.below(of))).collect() };
            let n = 2 + case as usize;
            let (x, y) = (list(n, 5 + case), list(n, 3 + case));
            if let Some(tau) = tau_b(&x, &y) {
                assert!((tau - slow_tau(&x, &y)).abs() < 1e-12, "{x:?} {y:?}");
            }
        }
    }

    #[test]
    fn spearman_shares_the_ranks_of_ties() {
        // Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: deviations -1.5, 0, 0, 1.5 and -1.5, 0.5, -0.5, 1.5.
        let rho = spearman(&[1.0, 5.0, 5.0, 9.0], &[0.1, 0.3, 0.2, 0.4]).unwrap();
        assert!((rho - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-15);
        assert_eq!(spearman(&[1.0, 2.0], &[4.0, 3.0]), Some(-1.0));
        assert_eq!(spearman(&[2.0, 2.0], &[4.0, 3.0]), None);
    }

    #[test]
    fn precision_gives_ties_at_the_border_their_share() {
        let truth = [5.0, 4.0, 3.0, 2.0, 1.0];
        assert_eq!(precision_at(2, &[9.0, 8.0, 1.0, 1.0, 1.0], &truth), Some(1.0));
        assert_eq!(precision_at(2, &[1.0, 9.0, 8.0, 1.0, 1.0], &truth), Some(0.5));
        // The second place is shared by three, one of which belongs there.
        let got = precision_at(2, &[9.0, 7.0, 7.0, 7.0, 1.0], &truth).unwrap();
        assert!((got - (1.0 + 1.0 / 3.0) / 2.0).abs() < 1e-15);
        assert_eq!(precision_at(6, &truth, &truth), None);
    }

    #[test]
    fn the_interval_holds_tau_and_narrows_with_n() {
        let width = |n: u32| {
            let mut draws = Rng::new(3, "pairs").at(0, 0, 0);
            let (x, y): (Vec<f64>, Vec<f64>) = (0..n)
                .map(|_| {
                    let x = f64::from(draws.normal());
                    (x, x + f64::from(draws.normal()))
                })
                .unzip();
            let [low, high] = interval_95(&x, &y, &Rng::new(0, "bootstrap")).unwrap();
            let tau = tau_b(&x, &y).unwrap();
            assert!(low < tau && tau < high, "{low} {tau} {high}");
            high - low
        };
        assert!(width(400) < 0.7 * width(100));
        assert_eq!(interval_95(&[1.0], &[1.0], &Rng::new(0, "bootstrap")), None);
    }
}
