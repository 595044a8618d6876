//! Every command end to end, and how bad input is answered.

use crate::support::Bench;

#[test]
fn a_typo_in_the_recipe_is_answered_with_the_nearest_key_and_nothing_is_written() {
    let bench = Bench::new();
    let text = std::fs::read_to_string(bench.path("tiny.toml")).unwrap();
    std::fs::write(bench.path("typo.toml"), text.replace("warmup-steps", "warmup-stesp")).unwrap();
    let error = bench.fails(&["run", "typo.toml", "--out", "run"], 2);
    assert!(error.contains("did you mean `warmup-steps`?"), "{error}");
    assert!(!bench.path("run").exists());
}
