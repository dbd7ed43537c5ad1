//! The engine alone, in a simulated world: a virtual clock, seeded scheduling, a store and sinks whose answers get lost,
//! and processes that die, freeze and wake at any moment. What the sinks show in the end is what they show without any of it.
//!
//! `MILLRACE_SEEDS=20000 cargo test -p engine --test simulation` runs more seeds; `MILLRACE_SEED=17` runs one.

mod clock;
mod outside;
mod plan;
mod process;
mod store;
mod story;
mod topic;

use story::{Faults, Story};

/// Seeds in the normal run of the tests.
const SEEDS: u64 = 100;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("MILLRACE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLRACE_SEEDS").unwrap_or(SEEDS),
    }
}

fn tell(faults: Faults) {
    for seed in seeds() {
        if let Err(what) = Story::new(seed, faults).run() {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn without_faults_every_row_is_shown_once() {
    tell(Faults::None);
}

#[test]
fn a_store_and_sinks_that_lose_answers_change_nothing() {
    tell(Faults::Answers);
}

#[test]
fn a_crash_at_any_moment_any_number_of_times_loses_nothing_and_repeats_nothing() {
    tell(Faults::Crashes);
}

#[test]
fn a_process_that_wakes_after_another_took_over_changes_nothing() {
    tell(Faults::Freezes);
}
