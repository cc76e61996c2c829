//! Which number a name has, by hashes alone: an open-addressing table of hashes and numbers.
//!
//! ```text
//! hash of a name ──upper bits──▶ line of 8 slots ──▶ the same hash there? a candidate : room? new : next line ...
//! ```
//!
//! A million names are looked up at random, so what counts is how often a look waits for memory. A dict keeps its hashes in
//! the keys, and looks into a key for each slot that it passes, and for each that it moves when it grows. Here a slot of
//! eight bytes has both, hash and number: a name is looked at only where 32 bits of its hash are the same. Slots are looked
//! at by the line of the cache, and what is in a line is counted without a branch: a processor that does not have the line
//! yet goes on with what comes after the new name, where a wrong guess would have it wait. Lines are in the order of hashes,
//! or nearly, so growing goes through old and new ones side by side.
//!
//! A name costs 0.08 us among the first ten thousand and 0.26 in a million, in a dict 0.09 and 0.52 (`add` and `setdefault` in
//! a loop over names that are there). Pages of 2 MB for the lines make no difference.
//! Define, build, run and read a million steps, added one by one: 1.96 us a step on the local executor, with a dict 2.34; ten
//! thousand: 1.73, with a dict 1.83 (the best of several on a busy machine; `benches/run.py -k "steps: and local"`).
//!
//! It does not know what the hashes are of: whoever asks compares candidates, and says which were others.

/// Slots of a line.
const LINE: usize = 8;
/// How many of them are taken in the mean, at most.
const MOST: usize = 5;
/// There are so many lines at least, and at most, as powers of two.
const BITS: std::ops::RangeInclusive<u32> = 1..=29;

/// Numbers from 0 by hash, in the order in which they were added.
#[derive(Clone, Debug)]
pub struct NameTable {
    lines: Vec<Bucket>,
    /// How many lines there are, as a power of two.
    bits: u32,
    count: u32,
}

/// Slots, filled from the first one on. A slot is 0 if it is free, else the upper half of a hash and, below, a number and 1
/// more.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([u64; LINE]);

/// Where a look has ended.
enum Lookup {
    /// At a line that has room, in this slot; what was not found before is not there.
    Room(usize, usize),
    /// At a number whose hash looks the same.
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

    /// Return how many numbers there are: the next one.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Return the next candidate for a hash that is not among `others`; `None` if there is no more.
    ///
    /// O(1) on average, given hashes that are spread evenly.
    #[must_use]
    pub fn find(&self, hash: u64, others: &[u32]) -> Option<u32> {
        match self.look(mixed(hash), others) {
            Lookup::Candidate(number) => Some(number),
            Lookup::Room(..) => None,
        }
    }

    /// Give a hash the next number.
    ///
    /// # Errors
    ///
    /// The next candidate that is not among `others`: then nothing is added.
    ///
    /// # Panics
    ///
    /// If there are more than two thousand million.
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

    /// Go to the first candidate that is not among `others`, or where there is room.
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

/// Return 32 bits that depend on all bits of a hash: hashes of a Python that was told not to draw a seed may be small.
fn mixed(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// Return the line where a hash is looked for first.
fn home(hash: u32, bits: u32) -> usize {
    (hash >> (u32::BITS - bits)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers by hash as the table says, where each candidate with that hash is the one.
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
        // All of them are looked for in the last line, at any size.
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
