//! A set of small integers that returns its least member: the ready queue.
//!
//! Ready nodes are kept by rank (the least rank runs first) and ready items of mapped nodes by item id, so one bit
//! represents each. The bits are stored in words of 64; above them, each level has one bit for every word below that is
//! not zero, up to a single word:
//!
//! ```text
//! level 2                       1                            one word
//! level 1            1100...0                                bit w: word w of level 0 is not zero
//! level 0   0010...0          1000...1   0000...0   ...      bit i: i is a member
//! ```
//!
//! Ten million members take four levels and 1.3 MB. `insert`, `remove`, `first` and `next` touch one word on each level
//! and allocate nothing; ranges are filled by words. The module knows nothing of graphs, items or order.

use std::ops::Range;

const BITS: u32 = 6;
const WIDTH: u32 = 1 << BITS;

/// A set of integers below a bound, as a tree of 64-bit words.
#[derive(Clone, Debug)]
pub struct RankSet {
    /// From the members themselves up to a level of one word.
    levels: Vec<Vec<u64>>,
}

impl RankSet {
    /// Return an empty set for members below `bound`.
    #[must_use]
    pub fn new(bound: u32) -> Self {
        let mut set = Self {
            levels: vec![vec![0; words(bound)]],
        };
        set.rebuild();
        set
    }

    /// Make room for members below `bound`. Amortised O(1) per member, because the room at least doubles.
    pub fn grow(&mut self, bound: u32) {
        let held = self.levels[0].len();
        if words(bound) > held {
            self.levels[0].resize(words(bound).max(2 * held), 0);
            self.rebuild();
        }
    }

    /// Return true if `member` is in the set.
    #[must_use]
    pub fn contains(&self, member: u32) -> bool {
        let (word, bit) = split(member);
        self.levels[0].get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Add `member`, which is below the bound. O(levels).
    pub fn insert(&mut self, member: u32) {
        let mut at = member;
        for level in &mut self.levels {
            let (word, bit) = split(at);
            let was = level[word];
            level[word] = was | bit;
            if was != 0 {
                break;
            }
            at >>= BITS;
        }
    }

    /// Remove `member`. O(levels).
    pub fn remove(&mut self, member: u32) {
        let mut at = member;
        for level in &mut self.levels {
            let (word, bit) = split(at);
            level[word] &= !bit;
            if level[word] != 0 {
                break;
            }
            at >>= BITS;
        }
    }

    /// Add all members of `range`. O(levels + range / 64).
    pub fn insert_range(&mut self, range: Range<u32>) {
        for (word, bits) in masks(range) {
            let was = self.levels[0][word];
            self.levels[0][word] = was | bits;
            if was == 0 {
                self.raise(word);
            }
        }
    }

    /// Remove all members of `range`. O(levels * range / 64).
    pub fn remove_range(&mut self, range: Range<u32>) {
        for (word, bits) in masks(range) {
            let was = self.levels[0][word];
            self.levels[0][word] = was & !bits;
            if was != 0 && was & !bits == 0 {
                self.lower(word);
            }
        }
    }

    /// Return the least member. O(levels).
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        let top = self.levels.len() - 1;
        (self.levels[top][0] != 0).then(|| self.descend(top, 0))
    }

    /// Return the least member that is at least `from`. O(levels).
    #[must_use]
    pub fn next(&self, from: u32) -> Option<u32> {
        let mut at = from;
        for (height, level) in self.levels.iter().enumerate() {
            let word = (at >> BITS) as usize;
            let rest = level.get(word)? & (u64::MAX << (at & (WIDTH - 1)));
            if rest != 0 {
                let found = ((at >> BITS) << BITS) | rest.trailing_zeros();
                return Some(if height == 0 {
                    found
                } else {
                    self.descend(height - 1, found)
                });
            }
            at = (at >> BITS) + 1;
        }
        None
    }

    /// Count the members `from, from + 1, ...` without a gap, at most `limit`. O(limit / 64).
    #[must_use]
    pub fn run(&self, from: u32, limit: u32) -> u32 {
        let mut length = 0;
        while length < limit {
            let at = from + length;
            let Some(bits) = self.levels[0].get((at >> BITS) as usize) else {
                break;
            };
            let ones = (bits >> (at & (WIDTH - 1))).trailing_ones();
            length += ones;
            if ones == 0 || ones + (at & (WIDTH - 1)) < WIDTH {
                break;
            }
        }
        length.min(limit)
    }

    /// Return the least member below word `word` of level `height`, which is not zero.
    fn descend(&self, height: usize, word: u32) -> u32 {
        self.levels[..=height].iter().rev().fold(word, |at, level| {
            (at << BITS) | level[at as usize].trailing_zeros()
        })
    }

    /// Record above that word `word` of level 0 is no longer zero.
    fn raise(&mut self, word: usize) {
        let mut at = word as u32;
        for level in &mut self.levels[1..] {
            let (word, bit) = split(at);
            let was = level[word];
            level[word] = was | bit;
            if was != 0 {
                break;
            }
            at >>= BITS;
        }
    }

    /// Record above that word `word` of level 0 became zero.
    fn lower(&mut self, word: usize) {
        let mut at = word as u32;
        for level in &mut self.levels[1..] {
            let (word, bit) = split(at);
            level[word] &= !bit;
            if level[word] != 0 {
                break;
            }
            at >>= BITS;
        }
    }

    /// Rebuild all levels above level 0.
    fn rebuild(&mut self) {
        self.levels.truncate(1);
        while let Some(below) = self.levels.last().filter(|level| level.len() > 1) {
            let level = below.chunks(WIDTH as usize).map(summary).collect();
            self.levels.push(level);
        }
    }
}

/// Return one bit for each word that is not zero.
fn summary(words: &[u64]) -> u64 {
    words
        .iter()
        .enumerate()
        .fold(0, |bits, (at, word)| bits | (u64::from(*word != 0) << at))
}

fn words(bound: u32) -> usize {
    bound.div_ceil(WIDTH).max(1) as usize
}

fn split(member: u32) -> (usize, u64) {
    ((member >> BITS) as usize, 1 << (member & (WIDTH - 1)))
}

/// Cut `range` into words: the position of each and the bits in it.
fn masks(range: Range<u32>) -> impl Iterator<Item = (usize, u64)> {
    let Range { start, end } = range;
    let first = start >> BITS;
    let last = if start < end {
        ((end - 1) >> BITS) + 1
    } else {
        first
    };
    (first..last).map(move |word| {
        let low = start.saturating_sub(word << BITS);
        let high = (end - (word << BITS)).min(WIDTH);
        (
            word as usize,
            (u64::MAX << low) & (u64::MAX >> (WIDTH - high)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn members_come_out_in_order() {
        let mut set = RankSet::new(300_000);
        for member in [299_999, 0, 63, 64, 4096, 262_144] {
            set.insert(member);
        }
        let mut seen = Vec::new();
        while let Some(member) = set.first() {
            set.remove(member);
            seen.push(member);
        }
        assert_eq!(seen, [0, 63, 64, 4096, 262_144, 299_999]);
    }

    #[test]
    fn a_range_is_one_run_and_ends_at_a_gap() {
        let mut set = RankSet::new(1000);
        set.insert_range(10..700);
        set.remove(500);
        assert_eq!(set.run(10, u32::MAX), 490);
        assert_eq!(set.run(10, 5), 5);
        assert_eq!(set.run(501, u32::MAX), 199);
        assert_eq!(set.run(0, 4), 0);
    }

    #[test]
    fn growing_keeps_members() {
        let mut set = RankSet::new(0);
        set.grow(1);
        set.insert(0);
        set.grow(1_000_000);
        set.insert(999_999);
        assert_eq!(set.first(), Some(0));
        assert_eq!(set.next(1), Some(999_999));
        assert!(!set.contains(5_000_000));
    }

    #[test]
    fn members_beyond_the_first_word_stay_when_it_grows() {
        let mut set = RankSet::new(100);
        set.insert(70);
        set.grow(1_000_000);
        assert_eq!((set.first(), set.next(71)), (Some(70), None));
    }

    #[test]
    fn the_room_at_least_doubles_and_only_if_there_is_too_little() {
        let mut set = RankSet::new(640);
        let words = |set: &RankSet| set.levels[0].len();
        set.grow(640);
        assert_eq!(words(&set), 10);
        set.grow(641);
        assert_eq!(words(&set), 20);
    }

    proptest::proptest! {
        #[test]
        fn it_is_a_set(ops in proptest::collection::vec((0u8..5, 0u32..9000, 0u32..300), 1..60)) {
            let (mut set, mut model) = (RankSet::new(9300), BTreeSet::new());
            for (op, at, length) in ops {
                match op {
                    0 => { set.insert(at); model.insert(at); }
                    1 => { set.remove(at); model.remove(&at); }
                    2 => { set.insert_range(at..at + length); model.extend(at..at + length); }
                    3 => { set.remove_range(at..at + length); model.retain(|m| !(at..at + length).contains(m)); }
                    _ => proptest::prop_assert_eq!(set.run(at, length), (at..at + length).take_while(|m| model.contains(m)).count() as u32),
                }
                proptest::prop_assert_eq!(set.first(), model.first().copied());
                proptest::prop_assert_eq!(set.next(at), model.range(at..).next().copied());
            }
        }
    }
}
