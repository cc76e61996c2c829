//! The results ring under every order of a driver's and a worker's steps, under two real threads, and with any bytes.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

mod bytes;
mod model;

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use flowyml::result_ring::{HEADER, ResultRing, WakeMode};
use model::{Protocol, explore};

const OURS: Protocol = Protocol {
    fences: true,
    commit_last: true,
    look_after_saying: true,
};

#[test]
fn every_result_arrives_whole_and_nobody_sleeps_beside_one() {
    for wanted in [WakeMode::Each, WakeMode::TheEnd] {
        let states = explore(OURS, wanted, false).unwrap();
        assert!(states > 500, "only {states} states");
    }
}

#[test]
fn a_worker_killed_anywhere_has_delivered_all_but_the_step_it_claimed_last() {
    for wanted in [WakeMode::Each, WakeMode::TheEnd] {
        let states = explore(OURS, wanted, true).unwrap();
        assert!(states > 500, "only {states} states");
    }
}

#[test]
fn without_fences_the_driver_sleeps_for_ever() {
    let protocol = Protocol {
        fences: false,
        ..OURS
    };
    let fault = explore(protocol, WakeMode::Each, false).unwrap_err();
    assert!(fault.contains("sleeps"), "{fault}");
}

#[test]
fn a_driver_that_looks_before_it_says_so_sleeps_for_ever() {
    let protocol = Protocol {
        look_after_saying: false,
        ..OURS
    };
    let fault = explore(protocol, WakeMode::Each, false).unwrap_err();
    assert!(fault.contains("sleeps"), "{fault}");
}

#[test]
fn a_commit_before_the_record_is_seen_torn() {
    let protocol = Protocol {
        commit_last: false,
        ..OURS
    };
    let fault = explore(protocol, WakeMode::Each, false).unwrap_err();
    assert!(fault.contains("torn"), "{fault}");
}

/// Two real threads on real atomics, in a ring that is full most of the time: every result arrives once, in order, and
/// the driver sleeps only where it is woken.
#[test]
fn threads_agree_on_every_result() {
    const RESULTS: u64 = 2_000;
    let words: Vec<_> = (0..HEADER + 64).map(|_| AtomicU64::new(0)).collect();
    let ring = ResultRing::new(&words).unwrap();
    let (wakes, inbox) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for slot in 0..RESULTS {
                let payload = vec![slot as u8; slot as usize % 20];
                while !ring.put(slot, 1, (0.0, 0.0), &payload) {
                    std::thread::yield_now();
                }
                if ring.must_wake(false) {
                    wakes.send(()).unwrap();
                }
            }
            if ring.must_wake(true) {
                wakes.send(()).unwrap();
            }
        });
        let (mut slot, mut at) = (0, 0);
        while slot < RESULTS {
            let wanted = [WakeMode::Each, WakeMode::TheEnd][slot as usize % 2];
            ring.want(wanted);
            if ring.committed() == at {
                match inbox.recv_timeout(Duration::from_secs(20)) {
                    Err(RecvTimeoutError::Timeout) => panic!("asleep beside {slot} of {RESULTS}"),
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
                }
            }
            ring.want(WakeMode::Nothing);
            let committed = ring.committed();
            while let Some(record) = ring.peek(at, committed).unwrap() {
                let mut payload = vec![0; record.length as usize];
                ring.copy(&record, &mut payload);
                assert_eq!(u64::from(record.slot), slot);
                assert_eq!(payload, vec![slot as u8; slot as usize % 20]);
                (slot, at) = (slot + 1, record.next());
                ring.release(at);
            }
        }
    });
}
