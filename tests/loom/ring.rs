//! Models of the results ring: the driver is the thread of the model, the worker another one.

use std::sync::Arc;

use loom::sync::Notify;
use loom::thread::spawn;

use crate::atomic::{AtomicU64, Ordering};
use crate::result_ring::{HEADER, ResultRing, WakeMode};

/// Words of the smallest ring that holds two records of one word each.
const DATA: usize = 8;

/// A ring, and what wakes its driver.
struct Shared {
    words: Vec<AtomicU64>,
    wakes: Notify,
    /// Counted up by both sides before each call, without an effect on memory order: loom takes the order of a store and
    /// an earlier load of another thread for settled if the storing thread has loaded in between, as `put` does.
    turns: AtomicU64,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            words: (0..HEADER + DATA).map(|_| AtomicU64::new(0)).collect(),
            wakes: Notify::new(),
            turns: AtomicU64::new(0),
        })
    }

    fn ring(&self) -> ResultRing<'_> {
        ResultRing::new(&self.words).unwrap()
    }

    fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Write the result of a slot.
    fn put(&self, slot: u64) -> bool {
        self.turn();
        self.ring().put(slot, 3, times(slot), &payload(slot))
    }

    fn wake(&self, at_end: bool) {
        self.turn();
        if self.ring().must_wake(at_end) {
            self.wakes.notify();
        }
    }

    /// Take what is committed, from `at` on, and check that it is whole; return how many there were.
    fn take(&self, at: &mut u64, from: u64) -> u64 {
        self.turn();
        let (ring, committed) = (self.ring(), self.ring().committed());
        let mut slot = from;
        while let Some(record) = ring.peek(*at, committed).unwrap() {
            let mut bytes = [0; 8];
            ring.copy(&record, &mut bytes);
            assert_eq!((u64::from(record.slot), record.kind), (slot, 3));
            assert_eq!((record.length, bytes), (8, payload(slot)));
            assert_eq!((record.start, record.end), times(slot));
            (slot, *at) = (slot + 1, record.next());
            ring.release(*at);
        }
        slot - from
    }
}

fn times(slot: u64) -> (f64, f64) {
    let start = f64::from(u32::try_from(slot).unwrap());
    (start, start + 0.5)
}

fn payload(slot: u64) -> [u8; 8] {
    [slot as u8 + 1; 8]
}

pub(crate) fn results_arrive_whole_and_in_order() {
    let shared = Shared::new();
    let workers = Arc::clone(&shared);
    let worker = spawn(move || assert!(workers.put(0) && workers.put(1)));
    let mut at = 0;
    let mut taken = shared.take(&mut at, 0);
    taken += shared.take(&mut at, taken);
    worker.join().unwrap();
    taken += shared.take(&mut at, taken);
    assert_eq!(taken, 2);
}

pub(crate) fn a_full_ring_overwrites_nothing() {
    let shared = Shared::new();
    assert!(shared.put(0) && shared.put(1));
    let workers = Arc::clone(&shared);
    let worker = spawn(move || workers.put(2));
    let mut at = 0;
    let taken = shared.take(&mut at, 0);
    let written = 2 + u64::from(worker.join().unwrap());
    assert_eq!(taken + shared.take(&mut at, taken), written);
}

/// Sleep until `count` results are there; a wake-up that does not come is a deadlock, which loom reports.
fn sleep_for(shared: &Shared, wanted: WakeMode, count: u64) {
    let (mut at, mut taken) = (0, 0);
    while taken < count {
        shared.turn();
        shared.ring().want(wanted);
        shared.turn();
        if shared.ring().committed() == at {
            shared.wakes.wait();
        }
        shared.ring().want(WakeMode::Nothing);
        taken += shared.take(&mut at, taken);
    }
}

pub(crate) fn a_driver_that_wants_each_result_sleeps_beside_none() {
    let shared = Shared::new();
    let workers = Arc::clone(&shared);
    let worker = spawn(move || {
        for slot in 0..2 {
            assert!(workers.put(slot));
            workers.wake(false);
        }
    });
    sleep_for(&shared, WakeMode::Each, 2);
    worker.join().unwrap();
}

pub(crate) fn a_driver_that_wants_the_end_is_woken_by_it() {
    let shared = Shared::new();
    let workers = Arc::clone(&shared);
    let worker = spawn(move || {
        assert!(workers.put(0));
        workers.wake(false);
        workers.wake(true);
    });
    sleep_for(&shared, WakeMode::TheEnd, 1);
    worker.join().unwrap();
}
