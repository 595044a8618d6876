//! Searchers: against random search at equal budget on landscapes whose best is known, under
//! constraints, and from their own history.

use std::collections::HashSet;
use std::path::Path;

use engine::Rng;
use nas::search::{
    Constraint, Domain, Evolution, EvolutionConfig, RandomConfig, RandomSearch, Score, Searcher,
};
use nas::{Arch, Error, Space};

/// How many slots take the candidate that a hidden architecture takes.
fn score(arch: &Arch) -> Score {
    let hits = arch.choices().iter().enumerate().filter(|&(i, &c)| usize::from(c) == (i * 7 + 3) % 4).count();
    Score { top1: hits as u64, top5: hits as u64, images: 20 }
}

fn domain(space: &Space, constraint: Constraint, seed: u64) -> Domain<'_> {
    let constraint = constraint.bind(space, Path::new("")).unwrap();
    Domain { space, constraint, rng: Rng::new(seed, "search") }
}

fn evolution(population: usize, rounds: usize) -> Evolution {
    Evolution::new(EvolutionConfig {
        population,
        rounds,
        parents: 10,
        crossover: population / 2,
        mutation: population / 2,
        mutation_rate: 0.1,
    })
}

fn run(searcher: &mut dyn Searcher, domain: &Domain<'_>) -> Vec<(Arch, Score)> {
    let mut all = Vec::new();
    loop {
        let asked = searcher.ask(domain).unwrap();
        if asked.is_empty() {
            return all;
        }
        let told: Vec<(Arch, Score)> = asked.into_iter().map(|a| (a.clone(), score(&a))).collect();
        searcher.tell(&told);
        all.extend(told);
    }
}

fn best(all: &[(Arch, Score)]) -> u64 {
    all.iter().map(|(_, s)| s.top1).max().unwrap()
}

#[test]
fn evolution_beats_random_search_at_equal_budget_on_every_seed() {
    let space = Space::load("spos-shufflenet").unwrap();
    for seed in 0..10 {
        let domain = domain(&space, Constraint::default(), seed);
        let evolved = run(&mut evolution(50, 19), &domain);
        let random = run(&mut RandomSearch::new(RandomConfig { candidates: 1000 }), &domain);
        assert_eq!((evolved.len(), random.len()), (1000, 1000));
        assert!(best(&evolved) > best(&random), "seed {seed}: {} {}", best(&evolved), best(&random));
    }
}

#[test]
fn nothing_is_asked_for_twice_and_everything_satisfies_the_constraint() {
    let space = Space::load("spos-shufflenet").unwrap();
    let constraint = Constraint { max_macs: Some(320_000_000), max_params: Some(3_500_000), latency: None };
    let domain = domain(&space, constraint, 0);
    for searcher in
        [&mut evolution(50, 5) as &mut dyn Searcher, &mut RandomSearch::new(RandomConfig { candidates: 300 })]
    {
        let total = searcher.total();
        let all = run(searcher, &domain);
        assert_eq!(all.len() as u64, total);
        assert_eq!(all.iter().map(|(a, _)| a).collect::<HashSet<_>>().len(), all.len());
        assert!(all.iter().all(|(a, _)| domain.constraint.allows(&space, a)));
    }
}

#[test]
fn a_small_space_is_searched_to_its_end() {
    let space = Space::load("nas-bench-macro").unwrap();
    let domain = domain(&space, Constraint { max_macs: Some(11_000_000), ..Constraint::default() }, 0);
    let all = run(&mut evolution(50, 20), &domain);
    assert!(!all.is_empty() && all.len() < 500, "{}", all.len());
    assert!(all.iter().all(|(a, _)| space.canonical(a) == *a), "only canonical keys are scored");
}

#[test]
fn an_infeasible_constraint_ends_with_a_message() {
    let space = Space::load("spos-shufflenet").unwrap();
    let constraint = Constraint { max_macs: Some(1_000), ..Constraint::default() };
    assert!(matches!(constraint.bind(&space, Path::new("")), Err(Error::Infeasible { tries: 0, .. })));
    // Each bound can be met alone, both together cannot: found out by bounded tries.
    let least = space.smallest_cost();
    let both =
        Constraint { max_macs: Some(least.macs + 100_000), max_params: Some(least.params), latency: None };
    let domain = domain(&space, both, 0);
    let error = evolution(50, 5).ask(&domain).unwrap_err();
    assert!(error.to_string().contains("random ones tried"), "{error}");
}

#[test]
fn a_new_searcher_told_the_same_scores_asks_the_same_questions() {
    let space = Space::load("quickstart").unwrap();
    let domain = domain(&space, Constraint::default(), 3);
    let (mut a, mut b) = (evolution(20, 4), evolution(20, 4));
    for _ in 0..5 {
        let (x, y) = (a.ask(&domain).unwrap(), b.ask(&domain).unwrap());
        assert_eq!(x, y);
        let told: Vec<(Arch, Score)> = x.into_iter().map(|arch| (arch.clone(), score(&arch))).collect();
        a.tell(&told);
        b.tell(&told);
    }
}

#[test]
fn uniform_paths_are_uniform_and_bins_are_kept() {
    use nas::sample::{MacsBins, Sampler, Uniform};
    let space = Space::load("spos-shufflenet").unwrap();
    let rng = Rng::new(0, "path");
    let mut counts = [0u32; 4];
    for step in 0..4_000 {
        Uniform.path(&space, &rng, step, 0).choices().iter().for_each(|&c| counts[usize::from(c)] += 1);
    }
    assert!(counts.iter().all(|&c| (f64::from(c) - 20_000.0).abs() < 5.0 * 20_000f64.sqrt()), "{counts:?}");
    let bins = MacsBins { low: 290_000_000, high: 360_000_000, width: 10_000_000, tries: 500 };
    let mut filled = [0u32; 7];
    for step in 0..700 {
        let macs = space.cost(&bins.path(&space, &rng, step, 0)).macs;
        // Of unconstrained paths 0.3 % lie outside; here only those that gave up after 500 tries.
        filled[((macs - 290_000_000) / 10_000_000).min(6) as usize] += 1;
    }
    assert!(filled.iter().all(|&n| (60..=140).contains(&n)), "bins are drawn alike: {filled:?}");
}
