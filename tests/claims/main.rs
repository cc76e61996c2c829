//! The claim words under every interleaving of a driver and a worker, and under two real threads.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

mod model;

use std::sync::atomic::AtomicU64;

use flowyml::claims::{Claims, Ledger, Word};
use model::{Protocol, World, explore};

const OURS: Protocol = Protocol {
    post: |ledger, word, count| word.posted(ledger.high(), count),
    first: |ledger, _| ledger.high(),
    frame_first: false,
};

/// Posts on top of `end`, whatever was taken back: slot numbers come again.
const NAIVE: Protocol = Protocol {
    post: |_, word, count| {
        Some(Word {
            end: word.end + count,
            ..word
        })
    },
    first: |_, word| u64::from(word.end),
    frame_first: false,
};

/// Never reuses a number, but the worker may hold a frame whose slots are not posted.
const FRAME_FIRST: Protocol = Protocol {
    frame_first: true,
    ..OURS
};

#[test]
fn every_item_runs_once_and_nothing_is_stuck() {
    let world = World {
        protocol: OURS,
        elsewhere: false,
        death: false,
    };
    let states = explore(world).unwrap();
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn items_taken_back_run_elsewhere_and_only_there() {
    let world = World {
        protocol: OURS,
        elsewhere: true,
        death: false,
    };
    explore(world).unwrap();
}

#[test]
fn a_death_anywhere_is_blamed_on_the_item_that_ran() {
    let world = World {
        protocol: OURS,
        elsewhere: true,
        death: true,
    };
    let states = explore(world).unwrap();
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn reused_slot_numbers_run_an_item_twice() {
    let world = World {
        protocol: NAIVE,
        elsewhere: true,
        death: false,
    };
    let fault = explore(world).unwrap_err();
    assert!(fault.contains("twice"), "{fault}");
}

#[test]
fn a_frame_before_its_post_loses_items() {
    let world = World {
        protocol: FRAME_FIRST,
        elsewhere: false,
        death: false,
    };
    let fault = explore(world).unwrap_err();
    assert!(fault.contains("no way to the end"), "{fault}");
}

/// Two real threads on real atomics: every slot is either begun by the worker or taken back, never both.
#[test]
fn threads_agree_on_every_slot() {
    const SLOTS: u64 = 200_000;
    let (word, time) = (AtomicU64::new(0), AtomicU64::new(0));
    let claims = Claims {
        word: &word,
        time: &time,
    };
    let (frames, inbox) = std::sync::mpsc::channel::<std::ops::Range<u64>>();
    let (taken, back) = std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let frames = inbox.iter().flatten();
            frames
                .filter(|&slot| claims.take(slot, 1.0))
                .collect::<Vec<_>>()
        });
        let mut ledger = Ledger::default();
        let mut back = vec![];
        while ledger.high() < SLOTS {
            if let Some(first) = claims.post(&mut ledger, 7) {
                frames.send(first..ledger.high()).unwrap();
            }
            let (first, count) = claims.take_back(&ledger, 2);
            back.extend(first..first + u64::from(count));
        }
        drop(frames);
        (worker.join().unwrap(), back)
    });
    let mut all = [taken, back].concat();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..all.len() as u64));
    assert!(all.len() as u64 >= SLOTS);
}
