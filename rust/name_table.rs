//! Ids of names, found by hashes alone: an open-addressing table of hashes and ids.
//!
//! ```text
//! hash of a name ──upper bits──▶ line of 8 slots ──▶ the same hash there? a candidate : room? new : next line ...
//! ```
//!
//! A million names are looked up at random, so the cost is the number of cache misses. A dict keeps its hashes in the
//! keys, and reads a key for each slot that it passes, and for each that it moves when it grows. Here a slot of eight
//! bytes holds both hash and id: a name is compared only if 32 bits of its hash are equal. Slots are read by cache
//! line, and the slots of a line are counted without a branch: a processor that is still waiting for the line continues
//! with the code after the new name, whereas a mispredicted branch would stall it. Lines are in the order of hashes, or
//! nearly, so growing reads old and new lines sequentially.
//!
//! A name costs 0.08 us among the first ten thousand and 0.26 in a million, in a dict 0.09 and 0.52 (`add` and
//! `setdefault` in a loop over existing names). Pages of 2 MB for the lines make no difference. Define, build, run and
//! read a million steps, added one by one: 1.96 us a step on the local executor, with a dict 2.34; ten thousand: 1.73,
//! with a dict 1.83 (the best of several on a busy machine; `benches/run.py -k "steps: and local"`).
//!
//! It does not know what the hashes belong to: the caller compares candidates, and passes those that differed.

/// Slots in a line.
const LINE: usize = 8;
/// The maximum mean number of occupied slots in a line.
const MOST: usize = 5;
/// The minimum and maximum number of lines, as powers of two.
const BITS: std::ops::RangeInclusive<u32> = 1..=29;

/// Ids from 0 by hash, in the order in which they were added.
#[derive(Clone, Debug)]
pub struct NameTable {
    lines: Vec<Bucket>,
    /// The number of lines, as a power of two.
    bits: u32,
    count: u32,
}

/// Slots, filled from the first one on. A slot is 0 if it is free, else the upper half holds a hash and the lower half
/// an id plus 1.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([u64; LINE]);

/// Where a lookup has ended.
enum Lookup {
    /// At a line that has room, in this slot; a name that was not found before is not in the table.
    Room(usize, usize),
    /// At an id whose hash matches.
    Candidate(u32),
}

impl Default for NameTable {
    fn default() -> Self {
        Self::new()
    }
}

impl NameTable {
    /// Make an empty table.
    #[must_use]
    pub fn new() -> Self {
        let bits = *BITS.start();
        Self {
            lines: empty(bits),
            bits,
            count: 0,
        }
    }

    /// Return the number of ids: the next id.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Return the next candidate for a hash that is not among `others`; `None` if there are no more.
    ///
    /// O(1) on average, given hashes that are spread evenly.
    #[must_use]
    pub fn find(&self, hash: u64, others: &[u32]) -> Option<u32> {
        match self.look(mixed(hash), others) {
            Lookup::Candidate(number) => Some(number),
            Lookup::Room(..) => None,
        }
    }

    /// Assign the next id to a hash.
    ///
    /// # Errors
    ///
    /// The next candidate that is not among `others`; then nothing is added.
    ///
    /// # Panics
    ///
    /// If there are more than two thousand million ids.
    ///
    /// O(1) on average.
    pub fn add(&mut self, hash: u64, others: &[u32]) -> Result<(), u32> {
        let hash = mixed(hash);
        match self.look(hash, others) {
            Lookup::Candidate(number) => return Err(number),
            Lookup::Room(line, slot) => {
                self.count += 1;
                self.lines[line].0[slot] = u64::from(hash) << 32 | u64::from(self.count);
            }
        }
        if self.count as usize > self.lines.len() * MOST {
            self.grow();
        }
        Ok(())
    }

    /// Return the first candidate that is not among `others`, or the slot where there is room.
    fn look(&self, hash: u32, others: &[u32]) -> Lookup {
        let mut at = home(hash, self.bits);
        loop {
            let line = &self.lines[at];
            let (mut taken, mut same) = (0, 0_u32);
            for (place, slot) in line.0.iter().enumerate() {
                taken += usize::from(*slot != 0);
                same |= u32::from((slot >> 32) as u32 == hash) << place;
            }
            same &= (1 << taken) - 1;
            while same != 0 {
                let number = line.0[same.trailing_zeros() as usize] as u32 - 1;
                if !others.contains(&number) {
                    return Lookup::Candidate(number);
                }
                same &= same - 1;
            }
            if taken < LINE {
                return Lookup::Room(at, taken);
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }

    /// Double the lines.
    fn grow(&mut self) {
        assert!(self.bits < *BITS.end(), "a table has 29 bits of lines");
        self.bits += 1;
        let old = std::mem::replace(&mut self.lines, empty(self.bits));
        let last = self.lines.len() - 1;
        for slot in old.iter().flat_map(|line| line.0).filter(|slot| *slot != 0) {
            let mut at = home((slot >> 32) as u32, self.bits);
            let place = loop {
                let taken = self.lines[at].0.iter().filter(|slot| **slot != 0).count();
                if taken < LINE {
                    break taken;
                }
                at = (at + 1) & last;
            };
            self.lines[at].0[place] = slot;
        }
    }
}

fn empty(bits: u32) -> Vec<Bucket> {
    vec![Bucket([0; LINE]); 1 << bits]
}

/// Return 32 bits that depend on all bits of a hash: with a fixed hash seed, Python's hashes may be small.
fn mixed(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// Return the line where the lookup of a hash begins.
fn home(hash: u32, bits: u32) -> usize {
    (hash >> (u32::BITS - bits)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Return the id that the table finds for a hash, given that each candidate with that hash matches.
    fn number(table: &NameTable, hashes: &[u64], hash: u64) -> Option<u32> {
        let mut others = Vec::new();
        while let Some(number) = table.find(hash, &others) {
            if hashes[number as usize] == hash {
                return Some(number);
            }
            others.push(number);
        }
        None
    }

    fn filled(hashes: &[u64]) -> NameTable {
        let mut table = NameTable::new();
        for &hash in hashes {
            let mut others = Vec::new();
            while let Err(other) = table.add(hash, &others) {
                assert_ne!(hashes[other as usize], hash, "added once");
                others.push(other);
            }
        }
        table
    }

    #[test]
    fn numbers_follow_the_order_of_adding_at_any_size() {
        for count in [0, 1, 5, 6, 40, 41, 10_000] {
            let hashes: Vec<u64> = (0..count).map(|k: u64| k.wrapping_mul(k) << 17).collect();
            let table = filled(&hashes);
            assert_eq!(u64::from(table.count()), count);
            for (&hash, expected) in hashes.iter().zip(0..) {
                assert_eq!(number(&table, &hashes, hash), Some(expected));
            }
            assert_eq!(number(&table, &hashes, u64::MAX), None);
        }
    }

    #[test]
    fn hashes_that_look_the_same_are_told_apart_by_whoever_asks() {
        let (mut table, same) = (NameTable::new(), 7);
        assert_eq!(table.add(same, &[]), Ok(()));
        assert_eq!(table.add(same, &[]), Err(0));
        assert_eq!(table.count(), 1);
        assert_eq!(table.add(same, &[0]), Ok(()));
        assert_eq!(table.add(same, &[0]), Err(1));
        assert_eq!(table.find(same, &[0]), Some(1));
        assert_eq!(table.find(same, &[1, 0]), None);
    }

    #[test]
    fn hashes_at_the_end_go_on_at_the_beginning() {
        // All of them are looked up in the last line, at any size.
        let last: Vec<u64> = (0..)
            .filter(|hash| mixed(*hash) >> 20 == 0xfff)
            .take(40)
            .collect();
        let table = filled(&last);
        for (&hash, expected) in last.iter().zip(0..) {
            assert_eq!(number(&table, &last, hash), Some(expected));
        }
    }
}
