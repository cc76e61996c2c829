//! Whatever bytes a worker leaves in its memory: the reader panics at none, and reads nothing outside a record.

use std::sync::atomic::{AtomicU64, Ordering};

use flowyml::result_ring::{CorruptRing, HEADER, LONGEST, Record, ResultRing};
use proptest::prelude::*;

/// A word as a worker may have written it: small numbers, heads of records that nearly fit, anything.
fn word() -> impl Strategy<Value = u64> {
    let head = (0..4_u64, any::<u8>(), 0..200_u64)
        .prop_map(|(slot, kind, length)| u64::from(kind) << 56 | length << 32 | slot);
    prop_oneof![0..100_u64, head, any::<u64>(), Just(u64::MAX)]
}

fn memory() -> impl Strategy<Value = Vec<AtomicU64>> {
    let data = (0..7_u32).prop_flat_map(|bits| prop::collection::vec(word(), 1 << bits));
    (word(), word(), data).prop_map(|(written, read, data)| {
        let words: Vec<_> = (0..HEADER + data.len())
            .map(|_| AtomicU64::new(0))
            .collect();
        words[0].store(written, Ordering::Relaxed);
        words[HEADER / 3].store(read, Ordering::Relaxed);
        for (word, bits) in words[HEADER..].iter().zip(data) {
            word.store(bits, Ordering::Relaxed);
        }
        words
    })
}

/// Read as the driver does, from `at` on; return how many records there were.
fn read(ring: ResultRing<'_>, capacity: u64, mut at: u64) -> Result<usize, CorruptRing> {
    let (committed, mut count) = (ring.committed(), 0);
    while let Some(record) = ring.peek(at, committed)? {
        let taken = record.next().wrapping_sub(at);
        assert!(taken <= committed.wrapping_sub(at) && taken <= capacity);
        assert!(taken >= 3 && u64::from(record.length) <= (taken - 3) * 8);
        let mut bytes = vec![0; record.length as usize];
        ring.copy(&record, &mut bytes);
        let _ = ring.number(&record);
        if let Some((numbers, rest)) = ring.behind::<3>(&record) {
            check_behind(ring, &bytes, numbers, &rest);
        } else {
            assert!(bytes.len() < 24);
        }
        (at, count) = (record.next(), count + 1);
        ring.release(at);
    }
    Ok(count)
}

fn check_behind(ring: ResultRing<'_>, bytes: &[u8], numbers: [u64; 3], rest: &Record) {
    let mut behind = vec![0; rest.length as usize];
    ring.copy(rest, &mut behind);
    let mut all: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
    all.extend(behind);
    assert_eq!(all, bytes);
}

proptest! {
    #[test]
    fn any_memory_is_records_or_broken(words in memory(), at in word()) {
        let ring = ResultRing::new(&words).unwrap();
        let capacity = (words.len() - HEADER) as u64;
        let _ = read(ring, capacity, at);
        let _ = ring.must_wake(true);
    }

    #[test]
    fn a_writer_whose_positions_were_overwritten_does_not_panic(
        words in memory(), length in 0..LONGEST + 9, slot: u64
    ) {
        let ring = ResultRing::new(&words).unwrap();
        let before = ring.committed();
        let written = ring.put(slot, 1, (0.0, 1.0), &vec![7; length]);
        let grown = ring.committed().wrapping_sub(before);
        prop_assert_eq!(grown > 0, written);
        prop_assert!(grown <= (words.len() - HEADER) as u64);
    }

    /// One word of a ring that is in order, overwritten: what is before it arrives, and the rest as some records or as an error.
    #[test]
    fn a_stray_write_costs_nothing_before_it(
        lengths in prop::collection::vec(0..40_usize, 1..12), place in 0..256_usize, bits in word()
    ) {
        let words: Vec<_> = (0..HEADER + 256).map(|_| AtomicU64::new(0)).collect();
        let ring = ResultRing::new(&words).unwrap();
        let mut ends = vec![];
        for (slot, length) in lengths.iter().enumerate() {
            prop_assert!(ring.put(slot as u64, 1, (0.0, 1.0), &vec![slot as u8; *length]));
            ends.push(ring.committed() as usize);
        }
        words[HEADER + place].store(bits, Ordering::Relaxed);
        let (mut at, committed) = (0, ring.committed());
        for (slot, end) in ends.iter().enumerate().take_while(|(_, end)| **end <= place) {
            let record = ring.peek(at, committed).unwrap().unwrap();
            let mut bytes = vec![0; record.length as usize];
            ring.copy(&record, &mut bytes);
            prop_assert_eq!(bytes, vec![slot as u8; lengths[slot]]);
            at = record.next();
            prop_assert_eq!(at as usize, *end);
        }
        let _ = read(ring, 256, at);
    }
}
