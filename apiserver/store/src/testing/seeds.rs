//! Which seeds are simulated: `CORACLE_SEED=n` is that seed alone, `CORACLE_SEEDS=n` so many, and `CORACLE_SEEDS_FROM=n`
//! those from there on.

use std::ops::Range;

/// Runs a simulation from so many seeds, or from those that are asked for.
pub(super) fn for_each_seed(count: u64, simulate: impl Fn(u64) -> String) {
    if let Some(seed) = number("CORACLE_SEED") {
        println!("{}", simulate(seed));
        return;
    }
    for seed in seeds(count) {
        simulate(seed);
    }
}

/// So many seeds, unless others are asked for.
fn seeds(count: u64) -> Range<u64> {
    let first = number("CORACLE_SEEDS_FROM").unwrap_or(0);
    first..first + number("CORACLE_SEEDS").unwrap_or(count)
}

/// A number that is asked for.
pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
