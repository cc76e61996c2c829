//! Models of the claim words: the driver is the thread of the model, the worker another one.

use std::sync::Arc;

use loom::sync::mpsc::{Sender, channel};
use loom::thread::{JoinHandle, spawn};

use crate::atomic::AtomicU64;
use crate::claims::{Begun, Claims, Ledger};

struct Words {
    word: AtomicU64,
    time: AtomicU64,
}

impl Words {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: AtomicU64::new(0),
            time: AtomicU64::new(0),
        })
    }

    fn claims(&self) -> Claims<'_> {
        Claims {
            word: &self.word,
            time: &self.time,
        }
    }
}

/// When the worker claims a slot; no two slots have the same time.
fn time_of(slot: u64) -> f64 {
    1024.0 * f64::from(u32::try_from(slot + 1).unwrap())
}

/// Start a worker that takes `count` slots as they are sent, and returns those that it has begun.
fn worker(words: &Arc<Words>, count: usize) -> (Sender<u64>, JoinHandle<Vec<u64>>) {
    let (frames, inbox) = channel();
    let words = Arc::clone(words);
    let worker = spawn(move || {
        let slots = (0..count).map(|_| inbox.recv().unwrap());
        slots
            .filter(|&slot| words.claims().take(slot, time_of(slot)))
            .collect()
    });
    (frames, worker)
}

fn post(words: &Words, ledger: &mut Ledger, count: u32, frames: &Sender<u64>) -> Option<u64> {
    let first = words.claims().post(ledger, count)?;
    (first..first + u64::from(count)).for_each(|slot| frames.send(slot).unwrap());
    Some(first)
}

/// Check what the driver sees against the only claims that there can be: in order, each with its time or with none.
fn check(seen: Begun) {
    assert!(seen.next <= seen.end);
    if let Some(time) = seen.time {
        assert_eq!(time.to_bits(), time_of(seen.last.unwrap()).to_bits());
    }
}

pub(crate) fn slots_are_begun_or_taken_back() {
    let (words, mut ledger) = (Words::new(), Ledger::default());
    let (frames, worker) = worker(&words, 2);
    assert_eq!(post(&words, &mut ledger, 2, &frames), Some(0));
    let (first, count) = words.claims().take_back(&ledger, 0);
    let mut all = worker.join().unwrap();
    let last = words.claims().begun(&ledger).last;
    assert_eq!(last, all.last().copied());
    all.extend(first..first + u64::from(count));
    assert_eq!(all, [0, 1]);
}

pub(crate) fn a_post_after_a_take_back_reuses_no_slot() {
    let (words, mut ledger) = (Words::new(), Ledger::default());
    let (frames, worker) = worker(&words, 3);
    assert_eq!(post(&words, &mut ledger, 2, &frames), Some(0));
    let (first, count) = words.claims().take_back(&ledger, 1);
    let again = post(&words, &mut ledger, 1, &frames);
    if again.is_none() {
        frames.send(9).unwrap(); // a slot that was never posted is not begun
    }
    let mut all = worker.join().unwrap();
    all.extend(first..first + u64::from(count));
    all.sort_unstable();
    let posted = if again.is_some() { 3 } else { 2 };
    assert!(all.iter().copied().eq(0..posted), "{all:?}");
    assert!(again.is_none_or(|slot| slot == 2));
}

pub(crate) fn a_claim_is_never_seen_without_its_time() {
    let (words, mut ledger) = (Words::new(), Ledger::default());
    let (frames, worker) = worker(&words, 2);
    assert_eq!(post(&words, &mut ledger, 2, &frames), Some(0));
    check(words.claims().begun(&ledger));
    check(words.claims().begun(&ledger));
    assert_eq!(worker.join().unwrap(), [0, 1]);
    let seen = words.claims().begun(&ledger);
    check(seen);
    assert_eq!((seen.last, seen.time), (Some(1), Some(time_of(1))));
}

pub(crate) fn a_time_that_is_set_again_is_that_of_its_slot() {
    let (words, mut ledger) = (Words::new(), Ledger::default());
    assert_eq!(words.claims().post(&mut ledger, 2), Some(0));
    let workers = Arc::clone(&words);
    let worker = spawn(move || {
        let claims = workers.claims();
        assert!(claims.take(0, time_of(7)));
        claims.set_time(0, time_of(0));
        assert!(claims.take(1, time_of(1)));
    });
    let seen = words.claims().begun(&ledger);
    if let Some(time) = seen.time.filter(|_| seen.last == Some(0)) {
        assert!([time_of(7), time_of(0)].contains(&time));
    }
    worker.join().unwrap();
    check(words.claims().begun(&ledger));
}
