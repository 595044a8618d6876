//! Which operators go in a round (ABS, algorithm 2). Every host has its own rule.

use serde::{Deserialize, Serialize};

use super::OperatorScore;

/// What goes in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DropRule {
    /// The `n` lowest of all slots, of which each goes only if one that scores higher stays in its slot (the
    /// paper's with SPOS and ProxylessNAS: 7).
    Lowest {
        /// How many.
        n: usize,
    },
    /// The lowest of each slot: slots that had equally many keep equally many (the paper's with FairNAS).
    OnePerSlot,
}

impl DropRule {
    /// The places in `scores` of those that go, lowest first. `scores` holds every operator of each slot that
    /// has two or more. Of equals the first goes; an operator without a score is lower than any with one.
    pub fn choose(self, scores: &[OperatorScore]) -> Vec<usize> {
        let key = |i: usize| scores[i].score.unwrap_or(f64::NEG_INFINITY);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| key(a).total_cmp(&key(b)));
        let mut gone: Vec<usize> = Vec::new();
        for i in order {
            let slot = scores[i].slot;
            let of_slot = gone.iter().filter(|&&g| scores[g].slot == slot).count();
            let goes = match self {
                // Whatever of the slot is not gone yet scores higher, as the order rises.
                DropRule::Lowest { n } => {
                    gone.len() < n && of_slot + 1 < scores.iter().filter(|s| s.slot == slot).count()
                }
                DropRule::OnePerSlot => of_slot == 0,
            };
            if goes {
                gone.push(i);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Space;
    use engine::Rng;

    fn scores(list: &[(usize, f64)]) -> Vec<OperatorScore> {
        list.iter()
            .enumerate()
            .map(|(choice, &(slot, score))| OperatorScore { slot, choice, score: Some(score), children: 1 })
            .collect()
    }

    #[test]
    fn the_lowest_go_and_each_slot_keeps_its_best() {
        let scores = scores(&[(0, 0.1), (0, 0.2), (1, 0.3), (1, 0.15), (1, 0.9), (2, 5.0), (2, 6.0)]);
        // 0.2 is the best of its slot, so 0.3 goes in its stead.
        assert_eq!(DropRule::Lowest { n: 3 }.choose(&scores), [0, 3, 2]);
        assert_eq!(DropRule::Lowest { n: 100 }.choose(&scores), [0, 3, 2, 5]);
        assert_eq!(DropRule::OnePerSlot.choose(&scores), [0, 3, 5]);
    }

    #[test]
    fn what_no_child_may_hold_goes_first_and_of_equals_the_first() {
        let mut equal = scores(&[(0, 0.5), (0, 0.5), (0, 0.5)]);
        assert_eq!(DropRule::Lowest { n: 1 }.choose(&equal), [0]);
        equal[2].score = None;
        assert_eq!(DropRule::Lowest { n: 1 }.choose(&equal), [2]);
    }

    /// Every slot's operators with random scores, as the space is.
    fn random(space: &Space, draws: &mut engine::rng::Draws) -> Vec<OperatorScore> {
        let open = space.slots().iter().enumerate().filter(|(_, slot)| slot.choices.len() > 1);
        open.flat_map(|(slot, s)| (0..s.choices.len()).map(move |choice| (slot, choice)))
            .map(|(slot, choice)| {
                let score = Some(f64::from(draws.uniform()));
                OperatorScore { slot, choice, score, children: 1 }
            })
            .collect()
    }

    /// The sizes after each round until one is at most a million.
    fn sizes(name: &str, rule: DropRule, seed: u64) -> Vec<u128> {
        let mut space = Space::load(name).unwrap();
        let mut draws = Rng::new(seed, "scores").at(0, 0, 0);
        let mut sizes = vec![space.size().unwrap()];
        while sizes[sizes.len() - 1] > 1_000_000 {
            let scores = random(&space, &mut draws);
            let gone: Vec<(usize, usize)> =
                rule.choose(&scores).into_iter().map(|i| (scores[i].slot, scores[i].choice)).collect();
            space = space.without(&gone).unwrap();
            sizes.push(space.size().unwrap());
        }
        sizes
    }

    #[test]
    fn fairnas_goes_from_six_to_two_a_slot() {
        let want: Vec<u128> = [6u128, 5, 4, 3, 2].map(|n| n.pow(19)).into();
        assert_eq!(sizes("fairnas", DropRule::OnePerSlot, 0), want);
        assert_eq!(want[4], 524_288);
    }

    #[test]
    fn spos_ends_at_a_million_after_thirteen_or_fourteen_rounds() {
        for seed in 0..20 {
            let sizes = sizes("proxyless-gpu", DropRule::Lowest { n: 7 }, seed);
            assert_eq!(sizes[0], 6u128.pow(6) * 7u128.pow(15));
            let rounds = sizes.len() - 1;
            assert!((13..=14).contains(&rounds), "seed {seed}: {rounds} rounds");
        }
    }
}
