//! Scores of operators: the mean over sampled children that contain them (ABS, section 3.3; what the paper
//! leaves open is from the released code).
//!
//! A child that is sampled for one operator counts for every operator in it; no child is scored twice.

use std::collections::HashSet;

use engine::Rng;
use engine::rng::Draws;

use crate::arch::Arch;
use crate::blocks::Block;
use crate::error::Result;
use crate::search::Bound;
use crate::space::Space;

/// Tries per wanted child.
const TRIES: usize = 100;

/// An operator of a slot that has two or more, with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorScore {
    /// The slot.
    pub slot: usize,
    /// Its place among the slot's choices.
    pub choice: usize,
    /// The mean over its children; none if no child with it satisfies the constraint.
    pub score: Option<f64>,
    /// Children that it is the mean over.
    pub children: usize,
}

/// What a slot offers a child.
struct Offer {
    operators: Vec<u16>,
    /// The skip, beside other operators.
    skip: Option<u16>,
}

/// Scores every operator of each slot that has two or more over `wanted` children each, or as many as are found.
///
/// # Errors
/// What `score` returns.
pub fn operator_scores(
    space: &Space,
    wanted: usize,
    constraint: &Bound,
    rng: &Rng,
    mut score: impl FnMut(&Arch) -> Result<f64>,
) -> Result<Vec<OperatorScore>> {
    let offers: Vec<Offer> = space.slots().iter().map(offer).collect();
    let mut sums: Vec<Vec<(f64, usize)>> =
        space.slots().iter().map(|slot| vec![(0.0, 0); slot.choices.len()]).collect();
    let mut visited: HashSet<Arch> = HashSet::new();
    let mut operators = Vec::new();
    for (slot, s) in space.slots().iter().enumerate().filter(|(_, slot)| slot.choices.len() > 1) {
        for choice in 0..s.choices.len() {
            let mut draws = rng.at(0, operators.len() as u32, 0);
            let missing = wanted.saturating_sub(sums[slot][choice].1);
            for _ in 0..missing.saturating_mul(TRIES) {
                if sums[slot][choice].1 >= wanted {
                    break;
                }
                let child = child(&offers, (slot, choice as u16), &mut draws);
                if !constraint.allows(space, &child) || !visited.insert(child.clone()) {
                    continue;
                }
                let value = score(&child)?;
                for (sums, &choice) in sums.iter_mut().zip(child.choices()) {
                    let (sum, count) = &mut sums[usize::from(choice)];
                    if *count < wanted {
                        (*sum, *count) = (*sum + value, *count + 1);
                    }
                }
            }
            operators.push((slot, choice));
        }
    }
    let score = |(slot, choice): (usize, usize)| {
        let (sum, children) = sums[slot][choice];
        let score = (children > 0).then(|| sum / children as f64);
        OperatorScore { slot, choice, score, children }
    };
    Ok(operators.into_iter().map(score).collect())
}

fn offer(slot: &crate::space::Slot) -> Offer {
    let is_skip = |&i: &u16| matches!(slot.choices[usize::from(i)].block, Block::Skip {});
    let (skips, operators): (Vec<u16>, Vec<u16>) = (0..slot.choices.len() as u16).partition(is_skip);
    match skips.first() {
        Some(&skip) if !operators.is_empty() => Offer { operators, skip: Some(skip) },
        Some(&skip) => Offer { operators: vec![skip], skip: None },
        None => Offer { operators, skip: None },
    }
}

/// A child with the operator `fixed`: the other slots are filled with operators that are no skips; then the
/// *number* of skips is drawn uniformly, so that every depth is as likely, and their places.
fn child(offers: &[Offer], fixed: (usize, u16), draws: &mut Draws) -> Arch {
    let pick = |offer: &Offer, draws: &mut Draws| {
        offer.operators[draws.below(offer.operators.len() as u32) as usize]
    };
    let mut choices: Vec<u16> = offers.iter().map(|offer| pick(offer, draws)).collect();
    let mut places: Vec<(usize, u16)> = offers
        .iter()
        .enumerate()
        .filter(|(slot, _)| *slot != fixed.0)
        .filter_map(|(slot, offer)| Some((slot, offer.skip?)))
        .collect();
    let skips = draws.below(places.len() as u32 + 1);
    for _ in 0..skips {
        let (slot, skip) = places.swap_remove(draws.below(places.len() as u32) as usize);
        choices[slot] = skip;
    }
    choices[fixed.0] = fixed.1;
    Arch::new(choices)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::search::Constraint;

    #[test]
    fn an_operators_score_is_the_mean_over_children_with_it() {
        let space = Space::load("nas-bench-macro").unwrap();
        // Few enough networks that all are visited: the score is the exact mean, of 1 for choice 2 in slot 0 alone.
        let space =
            space.without(&[(3, 0), (3, 1), (4, 0), (4, 1), (5, 0), (5, 1), (6, 0), (6, 1), (7, 0), (7, 1)]);
        let space = space.unwrap();
        let mut visited = HashSet::new();
        let scores = operator_scores(&space, 1000, &Bound::default(), &Rng::new(0, "t"), |child| {
            assert!(visited.insert(child.clone()), "no child is scored twice");
            Ok(f64::from(child.choices()[0] == 2) + 0.5 * f64::from(child.choices()[1]))
        })
        .unwrap();
        assert_eq!(scores.len(), 9, "slots with one operator are not scored");
        assert_eq!(visited.len(), 27);
        for score in &scores {
            let want = match score.slot {
                0 => f64::from(u8::from(score.choice == 2)) + 0.5,
                1 => 1.0 / 3.0 + 0.5 * score.choice as f64,
                _ => 1.0 / 3.0 + 0.5,
            };
            assert_eq!(score.children, 9);
            assert!((score.score.unwrap() - want).abs() < 1e-12, "{score:?}");
        }
    }

    #[test]
    fn children_are_shared_and_counted_up_to_the_wanted_number() {
        let space = Space::load("proxyless-gpu").unwrap();
        let constraint = Constraint { max_macs: Some(600_000_000), ..Constraint::default() };
        let constraint = constraint.bind(&space, Path::new("")).unwrap();
        let mut children = Vec::new();
        let scores = operator_scores(&space, 50, &constraint, &Rng::new(0, "t"), |child| {
            children.push(child.clone());
            Ok(1.0)
        })
        .unwrap();
        assert_eq!(scores.len(), 6 * 6 + 7 * 15);
        assert!(scores.iter().all(|s| s.children == 50 && s.score == Some(1.0)));
        assert!(children.len() < 50 * scores.len() / 4, "{} children", children.len());
        assert!(children.iter().all(|c| space.cost(c).macs <= 600_000_000));
    }

    #[test]
    fn depth_is_uniform() {
        let space = Space::load("proxyless-gpu").unwrap();
        let offers: Vec<Offer> = space.slots().iter().map(offer).collect();
        let skip = |slot: usize, c: u16| offers[slot].skip == Some(c);
        let mut counts = [0f64; 15];
        let mut draws = Rng::new(2, "depth").at(0, 0, 0);
        for _ in 0..15_000 {
            // Slot 1 may skip and is fixed to another operator, so 14 others may.
            let child = child(&offers, (1, 0), &mut draws);
            let skips = child.choices().iter().enumerate().filter(|&(slot, &c)| skip(slot, c)).count();
            counts[skips] += 1.0;
        }
        assert!(counts.iter().all(|c| (c - 1000.0).abs() < 5.0 * 1000f64.sqrt()), "{counts:?}");
    }

    #[test]
    fn an_operator_that_no_child_may_hold_has_no_score() {
        let space = Space::load("nas-bench-macro").unwrap();
        let least = space.cost(&space.smallest()).macs;
        let constraint = Constraint { max_macs: Some(least), ..Constraint::default() };
        let constraint = constraint.bind(&space, Path::new("")).unwrap();
        let scores = operator_scores(&space, 10, &constraint, &Rng::new(0, "t"), |_| Ok(1.0)).unwrap();
        assert!(scores.iter().all(|s| (s.choice == 0) == s.score.is_some()), "{scores:?}");
    }
}
