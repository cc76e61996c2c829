//! Claim words: the ownership of the steps of a batch, settled by compare-and-swap between the driver and one worker.
//!
//! Each worker has two `u64` in shared memory. The first is `(next, end)`: of the slots that the driver posted, those
//! below `next` have begun, those in `next..end` have not. The second is the time of the last claim. The worker takes
//! slots one by one; the driver posts more, takes back slots that have not begun, and after a crash reads which step
//! was running. This module holds the transitions as pure functions and the few loops around them. It does not know
//! where the memory comes from, what a slot means, or that Python exists.
//!
//! ```text
//!            taken (worker)                       posted (driver), nothing taken back since
//!   next ──────────────────────▶ end             end ──────────────────────────────────────▶ high + n
//!   begun │ posted, not begun   │                next == end (all begun): jump to (high, high + n)
//!                               ◀── taken_back (driver)
//! ```
//!
//! **Slot numbers are never reused.** If a slot that was taken back were posted again under the same number, the worker
//! could still hold the old message for it, win the swap and run a step that now belongs to another worker. So a post
//! extends `end` only while `end == high` (the end of all slots ever posted); after a take-back it waits until all
//! remaining slots have begun and jumps over the gap. The words hold the low 32 bits of 64-bit numbers: a number recurs
//! after four thousand million slots, when no message that names it can still exist, because messages are read in
//! order.
//!
//! **A slot is posted before its message is sent.** So a worker that holds a message knows that its slots were posted:
//! a failed [`take`](Claims::take) can only mean *taken back*, never *not yet posted*, and the worker skips the slot
//! without a round trip.
//!
//! **The time is written before the swap**, marked with the low bits of its slot, so a claim is never visible without
//! its time. A time whose mark is not that of the last claim belongs to a claim that is about to happen: nothing is
//! running.

use crate::atomic::{AtomicU64, Ordering};

/// The slots of one worker that are posted and not taken back: those in `next..end` have not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Word {
    /// Low half of the lowest slot that has not begun.
    pub next: u32,
    /// Low half of the end of the posted slots.
    pub end: u32,
}

impl Word {
    /// Reads the word from its shared form.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self {
            next: low(bits),
            end: low(bits >> 32),
        }
    }

    /// The word in its shared form.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.end) << 32 | u64::from(self.next)
    }

    /// The number of slots that are posted and have not begun.
    #[must_use]
    pub fn waiting(self) -> u32 {
        self.end.wrapping_sub(self.next)
    }

    /// Posts `count` slots from `high` on; `None` while slots lie behind a gap that was taken back.
    #[must_use]
    pub fn posted(self, high: u64, count: u32) -> Option<Self> {
        let start = low(high);
        let next = if self.end == start { self.next } else { start };
        // More than half of the numbers in flight would make the order of two slots unclear.
        let room = (u32::MAX / 2).saturating_sub(self.waiting());
        let may = count <= room && (self.end == start || self.waiting() == 0);
        may.then(|| Self {
            next,
            end: start.wrapping_add(count),
        })
    }

    /// Begins `slot`; `None` if it was taken back.
    #[must_use]
    pub fn taken(self, slot: u32) -> Option<Self> {
        (self.next == slot && self.next != self.end).then(|| Self {
            next: slot.wrapping_add(1),
            end: self.end,
        })
    }

    /// Takes back all slots that have not begun except the first `keep`; `None` if there are no more than that.
    #[must_use]
    pub fn taken_back(self, keep: u32) -> Option<Self> {
        (self.waiting() > keep).then(|| Self {
            next: self.next,
            end: self.next.wrapping_add(keep),
        })
    }
}

/// What the driver remembers of one worker's slots; the worker does not need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Ledger {
    /// End of all slots ever posted.
    high: u64,
    /// The value of `next` after the last jump.
    floor: u64,
    /// The last slot claimed before the last jump.
    before: Option<u64>,
}

impl Ledger {
    /// The number of the first slot of the next post.
    #[must_use]
    pub fn high(&self) -> u64 {
        self.high
    }

    /// Records that `old` became `new` by a post of `count` slots; returns the first of them.
    pub fn note_post(&mut self, old: Word, new: Word, count: u32) -> u64 {
        let first = self.high;
        if old.next != new.next {
            self.before = self.last_claimed(old);
            self.floor = first;
        }
        self.high = first + u64::from(count);
        first
    }

    /// The full number of a slot at or below `high`, given its low half.
    #[must_use]
    pub fn widen(&self, slot: u32) -> u64 {
        // Saturating here and below: a worker's stray write into its words must not crash the driver.
        self.high
            .saturating_sub(u64::from(low(self.high).wrapping_sub(slot)))
    }

    /// The greatest claimed slot, given `word`.
    #[must_use]
    pub fn last_claimed(&self, word: Word) -> Option<u64> {
        let next = self.widen(word.next);
        if next == self.floor {
            self.before
        } else {
            next.checked_sub(1)
        }
    }
}

/// What the driver sees of a worker at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Begun {
    /// The lowest slot that has not begun.
    pub next: u64,
    /// The end of the posted slots.
    pub end: u64,
    /// The slot claimed last, whatever was posted or taken back since: the one to blame, unless its result has arrived.
    pub last: Option<u64>,
    /// When it was claimed; `None` if nothing was claimed, or if it has ended and the next claim is about to happen.
    pub time: Option<f64>,
}

/// The two words of one worker in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// `(next, end)`.
    pub word: &'a AtomicU64,
    /// Time of the last claim, see [`stamp`].
    pub time: &'a AtomicU64,
}

impl Claims<'_> {
    /// Posts `count` slots; returns the first, or `None` if the post must wait until all remaining slots have begun.
    #[must_use]
    pub fn post(&self, ledger: &mut Ledger, count: u32) -> Option<u64> {
        let (old, new) = self.change(|word| word.posted(ledger.high(), count))?;
        Some(ledger.note_post(old, new, count))
    }

    /// Claims `slot` for the worker at time `now` (seconds); false if it was taken back.
    #[must_use]
    pub fn take(&self, slot: u64, now: f64) -> bool {
        let slot = low(slot);
        if self.load().taken(slot).is_none() {
            return false;
        }
        self.time.store(stamp(slot, now), Ordering::Relaxed);
        self.change(|word| word.taken(slot)).is_some()
    }

    /// The number of slots that are posted and have not begun.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.load().waiting()
    }

    /// Resets the time of `slot`, which the worker has claimed and is still running.
    pub fn set_time(&self, slot: u64, now: f64) {
        self.time.store(stamp(low(slot), now), Ordering::Release);
    }

    /// Takes back slots that have not begun, but leaves the worker `keep` slots; returns the first slot taken and how
    /// many.
    #[must_use]
    pub fn take_back(&self, ledger: &Ledger, keep: u32) -> (u64, u32) {
        match self.change(|word| word.taken_back(keep)) {
            Some((old, new)) => (ledger.widen(new.end), old.end.wrapping_sub(new.end)),
            None => (ledger.widen(self.load().end), 0),
        }
    }

    /// The slots that have begun, the last of them and its start: reads word, time, word until the word is unchanged.
    #[must_use]
    pub fn begun(&self, ledger: &Ledger) -> Begun {
        loop {
            let word = self.load();
            let time = self.time.load(Ordering::Acquire);
            if word == self.load() {
                return begun(ledger, word, time);
            }
        }
    }

    fn load(&self) -> Word {
        Word::from_bits(self.word.load(Ordering::Acquire))
    }

    /// Applies `step` by compare-and-swap until it holds or declines; returns the word before and after.
    fn change(&self, step: impl Fn(Word) -> Option<Word>) -> Option<(Word, Word)> {
        let mut old = self.word.load(Ordering::Acquire);
        loop {
            let new = step(Word::from_bits(old))?;
            match self.word.compare_exchange_weak(
                old,
                new.to_bits(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some((Word::from_bits(old), new)),
                Err(seen) => old = seen,
            }
        }
    }
}

/// Combines the `word` and the `time` that a driver read.
#[must_use]
pub fn begun(ledger: &Ledger, word: Word, time: u64) -> Begun {
    let last = ledger.last_claimed(word);
    Begun {
        next: ledger.widen(word.next),
        end: ledger.widen(word.end),
        last,
        time: last.and_then(|slot| stamped(low(slot), time)),
    }
}

/// The lowest bits of a time, replaced by the mark of its slot: an `f64` of seconds keeps a precision of some
/// nanoseconds for weeks, of some microseconds for years.
const MARK: u64 = 0xff;

/// The time `now` (seconds), marked as that of `slot`.
#[must_use]
pub fn stamp(slot: u32, now: f64) -> u64 {
    (now.to_bits() & !MARK) | (u64::from(slot) & MARK)
}

/// The time in `stamp` if it is marked as that of `slot` and finite; a stray write may leave any value.
#[must_use]
pub fn stamped(slot: u32, stamp: u64) -> Option<f64> {
    let time = f64::from_bits(stamp & !MARK);
    (stamp & MARK == u64::from(slot) & MARK && time.is_finite()).then_some(time)
}

/// The low half of a slot number, as stored in the words.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is asked for"
)]
pub fn low(slot: u64) -> u32 {
    slot as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(next: u32, end: u32) -> Word {
        Word { next, end }
    }

    #[test]
    fn bits_and_back() {
        let bits = 0x0123_4567_89ab_cdef;
        assert_eq!(Word::from_bits(bits).to_bits(), bits);
        assert_eq!(Word::from_bits(bits), word(0x89ab_cdef, 0x0123_4567));
    }

    #[test]
    fn a_post_extends_until_something_was_taken_back() {
        assert_eq!(word(1, 3).posted(3, 2), Some(word(1, 5)));
        assert_eq!(word(1, 2).posted(3, 2), None);
        assert_eq!(word(2, 2).posted(3, 2), Some(word(3, 5)));
    }

    #[test]
    fn only_the_next_slot_can_be_taken() {
        assert_eq!(word(1, 3).taken(1), Some(word(2, 3)));
        assert_eq!(word(1, 3).taken(0), None);
        assert_eq!(word(1, 3).taken(2), None);
        assert_eq!(word(3, 3).taken(3), None);
    }

    #[test]
    fn taking_back_leaves_what_is_kept() {
        assert_eq!(word(1, 5).taken_back(1), Some(word(1, 2)));
        assert_eq!(word(1, 5).taken_back(4), None);
        assert_eq!(word(5, 5).taken_back(0), None);
    }

    #[test]
    fn a_post_is_refused_while_too_many_slots_wait() {
        assert!(word(0, 0).posted(0, u32::MAX / 2).is_some());
        assert!(word(0, 0).posted(0, u32::MAX / 2 + 1).is_none());
        assert!(word(0, 9).posted(9, u32::MAX).is_none());
    }

    #[test]
    fn slot_numbers_go_on_where_their_low_half_comes_round() {
        let start = (7 << 32) - 1;
        let mut ledger = Ledger {
            high: start,
            floor: start,
            before: None,
        };
        let (bits, time) = (
            AtomicU64::new(word(u32::MAX, u32::MAX).to_bits()),
            AtomicU64::new(0),
        );
        let claims = Claims {
            word: &bits,
            time: &time,
        };
        assert_eq!(claims.post(&mut ledger, 4), Some(start));
        assert!(claims.take(start, 5.0) && claims.take(start + 1, 6.0));
        assert_eq!(claims.take_back(&ledger, 1), (start + 3, 1));
        assert!(claims.take(start + 2, 7.0) && !claims.take(start + 3, 8.0));
        assert_eq!(claims.post(&mut ledger, 1), Some(start + 4));
        let begun = claims.begun(&ledger);
        assert_eq!((begun.next, begun.end), (start + 4, start + 5));
        assert_eq!((begun.last, begun.time), (Some(start + 2), Some(7.0)));
    }

    #[test]
    fn a_time_can_be_set_anew() {
        let (bits, time) = (AtomicU64::new(0), AtomicU64::new(0));
        let claims = Claims {
            word: &bits,
            time: &time,
        };
        let mut ledger = Ledger::default();
        assert_eq!(claims.post(&mut ledger, 1), Some(0));
        assert!(claims.take(0, 65.0));
        claims.set_time(0, 7.0);
        assert_eq!(claims.begun(&ledger).time, Some(7.0));
    }

    #[test]
    fn a_time_is_known_to_a_microsecond_for_years() {
        let now = 9e7 + 0.123_456_7;
        let told = stamped(3, stamp(3, now)).unwrap_or_default();
        assert!((now - told).abs() < 1e-5);
        assert_eq!(stamped(4, stamp(3, now)), None);
    }
}
