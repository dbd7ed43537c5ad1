//! The engine alone, in a simulated world: a virtual clock, seeded scheduling, a store and sinks whose answers get lost,
//! and processes that die, freeze and wake at any moment. What the sinks show in the end is what they show without any of it.
//!
//! `MILLRACE_SEEDS=20000 cargo test -p engine --test simulation` runs more seeds; `MILLRACE_SEED=17` runs one.

mod clock;
mod expected;
mod lookup;
mod outside;
mod plan;
mod process;
mod protocol;
mod store;
mod story;
mod topic;
mod warnings;
mod world;

use story::{Faults, Nature, Story};

/// Seeds in the normal run of the tests.
const SEEDS: u64 = 100;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("MILLRACE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLRACE_SEEDS").unwrap_or(SEEDS),
    }
}

fn tell(faults: Faults, nature: Nature) {
    for seed in seeds() {
        if let Err(what) = Story::new(seed, faults, nature).run() {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn without_faults_every_row_is_shown_once() {
    tell(Faults::None, Nature::default());
}

#[test]
fn a_store_and_sinks_that_lose_answers_change_nothing() {
    tell(Faults::Answers, Nature::default());
}

#[test]
fn a_crash_at_any_moment_any_number_of_times_loses_nothing_and_repeats_nothing() {
    tell(Faults::Crashes, Nature::default());
}

#[test]
fn a_process_that_wakes_after_another_took_over_changes_nothing() {
    tell(Faults::Freezes, Nature::default());
}

#[test]
fn a_stop_at_any_moment_ends_in_time_and_the_next_start_goes_on() {
    tell(Faults::Stops, Nature::default());
}

#[test]
fn partitions_that_appear_while_the_job_runs_are_read_from_their_first_record() {
    tell(Faults::Any, Nature { appearing: true, moving: false });
}

#[test]
fn a_window_that_moves_on_forgets_no_copy_within_it_and_late_rows_follow_their_policy() {
    tell(Faults::Any, Nature { appearing: false, moving: true });
}

#[test]
fn a_window_moves_on_while_partitions_appear() {
    tell(Faults::Any, Nature { appearing: true, moving: true });
}
