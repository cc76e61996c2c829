//! The claim words and the results ring under loom: the files of the crate themselves, compiled with loom's atomics.
//!
//! loom runs each model once for every order in which its threads can take their steps, and for every value that a load
//! may return in the memory model of Rust. `tests/claims/` and `tests/results/` search larger worlds, with deaths, but
//! restate the protocol in doing so; here `put`, `take`, `post` and `begun` are the functions that run in production.
//!
//! loom does not let a load see what is written after it, so it cannot show why `release` is a release; and what is true
//! only of one moment (the second look of `begun`) is for the searches.
//!
//! Not the harness of the standard library: it would compile the unit tests of both files, whose atomics are used outside
//! a model.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

#[path = "../../rust/claims.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of the crate")]
mod claims;
#[path = "../../rust/result_ring.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of the crate")]
mod result_ring;

mod ring;
mod words;

/// How often a thread is interrupted in one run of a model, at most; more find no more and take minutes.
const PREEMPTIONS: usize = 3;

fn main() {
    let models: [(&str, fn()); 8] = [
        (
            "slots are begun or taken back, never both",
            words::slots_are_begun_or_taken_back,
        ),
        (
            "a post after a take-back reuses no slot",
            words::a_post_after_a_take_back_reuses_no_slot,
        ),
        (
            "a claim is never seen without its time",
            words::a_claim_is_never_seen_without_its_time,
        ),
        (
            "a time that is set again is that of its slot",
            words::a_time_that_is_set_again_is_that_of_its_slot,
        ),
        (
            "results arrive whole and in order",
            ring::results_arrive_whole_and_in_order,
        ),
        (
            "a full ring overwrites nothing",
            ring::a_full_ring_overwrites_nothing,
        ),
        (
            "a driver that wants each result does not sleep past one",
            ring::a_driver_that_wants_each_result_sleeps_beside_none,
        ),
        (
            "a driver that wants the end is woken by it",
            ring::a_driver_that_wants_the_end_is_woken_by_it,
        ),
    ];
    for (name, model) in models {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS);
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            model();
        });
        let runs = runs.load(Ordering::Relaxed);
        assert!(runs > 20, "{name}: only {runs} orders were tried");
        println!("loom: {name} ... ok in {runs} orders");
    }
}
