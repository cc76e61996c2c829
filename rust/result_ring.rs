//! The result ring: the return values of a worker's steps, in shared memory, with one writer and one reader.
//!
//! A worker process writes the result of each step here before it begins the next one; the driver reads them at any
//! later time. A result outlives its writer, as bytes in a socket do, but costs no system call: a send takes 1.35 us,
//! which was seven tenths of the cost of an empty step in its worker; a record here takes a fiftieth of that.
//!
//! ```text
//!             read (driver)                     written (worker)
//!   ──────────────┼──────────────────────────────────┼──────────────▶ words, counted from the beginning of time
//!      taken      │ committed: head, end, payload ... │ torn: never read
//! ```
//!
//! **A worker may be killed anywhere without leaving a torn record.** A record is written behind `written`, where the
//! driver never reads, and becomes visible with one store of `written`. A worker that dies before that store has not
//! delivered, and the step is its last claim (see `claims`); one that dies after it has delivered. There is no state
//! between, and a worker begins no other step in between: so at most one step is without a result, the one claimed
//! last.
//!
//! **The driver never sleeps while a result is available.** The driver announces in `wanted` that it is going to sleep,
//! *then* checks the ring once more; the worker commits, *then* reads `wanted`. Each has a fence between its write and
//! its read, so at least one of them sees the other's write: either the driver does not sleep, or the worker wakes it.
//! Without the fences both may read before the other's write arrives; `tests/results/` tries every order, with and
//! without them.
//!
//! All words are atomics, since another process writes them concurrently; only the order of `written` and `read`
//! matters (release on one side, acquire on the other). The reader trusts nothing: a record that does not fit the ring
//! is [`CorruptRing`], never a read out of bounds. The module does not know where the memory comes from, what a result
//! means, or that Python exists.

use crate::atomic::{AtomicU64, Ordering, fence};

/// Words before the data: three cache lines, one for each side's position and one for `wanted`.
pub const HEADER: usize = 24;
/// Words of a record before its payload.
const PREFIX: u64 = 3;
/// The longest payload, in bytes: a quarter of the smallest useful ring; longer results are sent through the socket.
pub const LONGEST: usize = 8192;

/// When the driver wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum WakeMode {
    /// Never: it is awake.
    Nothing,
    /// When the worker has no work left, or the ring is half full.
    TheEnd,
    /// With the next result.
    Each,
}

impl WakeMode {
    fn from_bits(bits: u64) -> Self {
        match bits {
            0 => Self::Nothing,
            1 => Self::TheEnd,
            _ => Self::Each,
        }
    }
}

/// The memory of one ring; both sides have a view of it.
#[derive(Clone, Copy, Debug)]
pub struct ResultRing<'a> {
    /// Words committed since the beginning; the worker's.
    written: &'a AtomicU64,
    /// Words taken since the beginning; the driver's.
    read: &'a AtomicU64,
    /// When the driver wants to be woken.
    wanted: &'a AtomicU64,
    /// A power of two of words; word n is stored at n modulo that.
    data: &'a [AtomicU64],
}

/// One result: its slot, the kind of its bytes, when the step began and ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Low half of the slot number.
    pub slot: u32,
    /// The kind of the payload; opaque to this module.
    pub kind: u8,
    /// When the step began, in seconds.
    pub start: f64,
    /// When it ended.
    pub end: f64,
    /// Length of the payload in bytes.
    pub length: u32,
    /// Where the payload begins, in words since the beginning.
    at: u64,
}

/// The memory is not a ring, or the other side has written an invalid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptRing;

impl<'a> ResultRing<'a> {
    /// The ring in these words; zeroed words are an empty ring.
    ///
    /// # Errors
    ///
    /// The length is not [`HEADER`] plus a power of two of words.
    pub fn new(words: &'a [AtomicU64]) -> Result<Self, CorruptRing> {
        let (header, data) = words.split_at_checked(HEADER).ok_or(CorruptRing)?;
        if !data.len().is_power_of_two() {
            return Err(CorruptRing);
        }
        Ok(Self {
            written: &header[0],
            read: &header[HEADER / 3],
            wanted: &header[2 * HEADER / 3],
            data,
        })
    }

    fn capacity(&self) -> u64 {
        self.data.len() as u64
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        &self.data[(at & (self.capacity() - 1)) as usize]
    }

    // -- the worker's side

    /// Write a result and commit it; false, with nothing written, if there is no room.
    #[must_use]
    pub fn put(&self, slot: u64, kind: u8, times: (f64, f64), payload: &[u8]) -> bool {
        // Positions wrap if something else wrote into `written`: the driver detects that, this side must not panic.
        // Only this side stores `written`, so it reads its own value.
        let at = self.written.load(Ordering::Relaxed);
        let Some(words) = self.fits(at, payload.len()) else {
            return false;
        };
        let head = u64::from(kind) << 56 | (payload.len() as u64) << 32 | slot & 0xffff_ffff;
        self.word(at).store(head, Ordering::Relaxed);
        self.word(at.wrapping_add(1))
            .store(times.0.to_bits(), Ordering::Relaxed);
        self.word(at.wrapping_add(2))
            .store(times.1.to_bits(), Ordering::Relaxed);
        for (k, part) in (0..).zip(payload.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            self.word(at.wrapping_add(PREFIX + k))
                .store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        self.written
            .store(at.wrapping_add(words), Ordering::Release);
        true
    }

    /// The number of words of a record that begins at `at`, if there is room for it.
    fn fits(&self, at: u64, length: usize) -> Option<u64> {
        let words = PREFIX + length.div_ceil(8) as u64;
        let used = at.wrapping_sub(self.read.load(Ordering::Acquire));
        (length <= LONGEST && used <= self.capacity() && self.capacity() - used >= words)
            .then_some(words)
    }

    /// Return true if the driver must be woken, after a result was committed, or with `at_end` if no work is left. The
    /// caller must then wake it, because the request is cleared.
    #[must_use]
    pub fn must_wake(&self, at_end: bool) -> bool {
        fence(Ordering::SeqCst);
        let wanted = WakeMode::from_bits(self.wanted.load(Ordering::Relaxed));
        let due = match wanted {
            WakeMode::Nothing => false,
            WakeMode::TheEnd => at_end || self.is_half_full(),
            WakeMode::Each => true,
        };
        if due {
            self.wanted
                .store(WakeMode::Nothing as u64, Ordering::Relaxed);
        }
        due
    }

    fn is_half_full(&self) -> bool {
        let read = self.read.load(Ordering::Relaxed);
        self.written.load(Ordering::Relaxed).wrapping_sub(read) > self.capacity() / 2
    }

    // -- the driver's side

    /// Set when to be woken. Check for results afterwards, and sleep only if there are none.
    pub fn want(&self, wanted: WakeMode) {
        self.wanted.store(wanted as u64, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The position after the last committed record.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Return the record at `at`, of those up to `committed`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The memory holds no valid record there.
    pub fn peek(&self, at: u64, committed: u64) -> Result<Option<Record>, CorruptRing> {
        let left = committed.wrapping_sub(at);
        if left == 0 {
            return Ok(None);
        }
        let head = self.word(at).load(Ordering::Relaxed);
        let record = Record {
            slot: head as u32,
            kind: (head >> 56) as u8,
            start: f64::from_bits(self.word(at.wrapping_add(1)).load(Ordering::Relaxed)),
            end: f64::from_bits(self.word(at.wrapping_add(2)).load(Ordering::Relaxed)),
            length: (head >> 32) as u32 & 0x00ff_ffff,
            at: at.wrapping_add(PREFIX),
        };
        let fits = left <= self.capacity() && record.next().wrapping_sub(at) <= left;
        if fits {
            Ok(Some(record))
        } else {
            Err(CorruptRing)
        }
    }

    /// The payload of a record of at most eight bytes, as a number.
    #[must_use]
    pub fn number(&self, record: &Record) -> u64 {
        self.word(record.at).load(Ordering::Relaxed)
    }

    /// The record without the first `words` words of its payload, and these words as numbers; `None` if it is shorter.
    #[must_use]
    pub fn behind<const WORDS: usize>(&self, record: &Record) -> Option<([u64; WORDS], Record)> {
        let length = record.length.checked_sub(8 * WORDS as u32)?;
        let mut numbers = [0; WORDS];
        for (k, number) in (0..).zip(&mut numbers) {
            *number = self.word(record.at.wrapping_add(k)).load(Ordering::Relaxed);
        }
        let rest = Record {
            length,
            at: record.at.wrapping_add(WORDS as u64),
            ..record.clone()
        };
        Some((numbers, rest))
    }

    /// Copy the payload of a record that `peek` returned into as many bytes.
    pub fn copy(&self, record: &Record, to: &mut [u8]) {
        for (k, part) in (0..).zip(to.chunks_mut(8)) {
            let bytes = self
                .word(record.at.wrapping_add(k))
                .load(Ordering::Relaxed)
                .to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
    }

    /// Release the room of all records before `at` to the worker.
    pub fn release(&self, at: u64) {
        self.read.store(at, Ordering::Release);
    }
}

impl Record {
    /// The position after it.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.at.wrapping_add(u64::from(self.length).div_ceil(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(data: usize) -> Vec<AtomicU64> {
        (0..HEADER + data).map(|_| AtomicU64::new(0)).collect()
    }

    fn taken(ring: ResultRing<'_>, at: &mut u64) -> Option<(u32, u8, Vec<u8>)> {
        let record = ring.peek(*at, ring.committed()).ok().flatten()?;
        let mut bytes = vec![0; record.length as usize];
        ring.copy(&record, &mut bytes);
        *at = record.next();
        ring.release(*at);
        Some((record.slot, record.kind, bytes))
    }

    #[test]
    fn what_is_put_is_taken_in_order_also_around_the_end() {
        let words = words(16);
        let ring = ResultRing::new(&words).ok();
        let ring = ring.as_ref().copied();
        let mut at = 0;
        for slot in 0..100_u64 {
            let payload = vec![slot as u8; slot as usize % 13 * 8 / 7];
            assert!(ring.is_some_and(|ring| ring.put(slot, 3, (1.0, 1.5), &payload)));
            let took = ring.and_then(|ring| taken(ring, &mut at));
            assert_eq!(took, Some((slot as u32, 3, payload)));
        }
    }

    #[test]
    fn a_full_ring_takes_nothing_and_keeps_what_it_has() {
        let words = words(8);
        let Ok(ring) = ResultRing::new(&words) else {
            panic!()
        };
        let put = (0..4).map(|slot| ring.put(slot, 0, (0.0, 0.0), &[7; 8]));
        assert_eq!(put.collect::<Vec<_>>(), [true, true, false, false]);
        let mut at = 0;
        assert_eq!(taken(ring, &mut at), Some((0, 0, vec![7; 8])));
        assert!(!ring.put(2, 0, (0.0, 0.0), &[8; 9]));
        assert!(ring.put(2, 0, (0.0, 0.0), &[8; 8]));
        assert_eq!(taken(ring, &mut at), Some((1, 0, vec![7; 8])));
        assert_eq!(taken(ring, &mut at), Some((2, 0, vec![8; 8])));
        assert_eq!(taken(ring, &mut at), None);
    }

    #[test]
    fn what_is_too_long_is_not_taken() {
        let words = words(1 << 12);
        let Ok(ring) = ResultRing::new(&words) else {
            panic!()
        };
        assert!(!ring.put(0, 0, (0.0, 0.0), &[0; LONGEST + 1]));
        assert!(ring.put(0, 0, (0.0, 0.0), &[0; LONGEST]));
    }

    #[test]
    fn memory_that_is_no_ring_is_refused() {
        for size in [0, HEADER - 1, HEADER, HEADER + 3] {
            let words: Vec<_> = (0..size).map(|_| AtomicU64::new(0)).collect();
            assert_eq!(ResultRing::new(&words).err(), Some(CorruptRing));
        }
    }

    #[test]
    fn a_stray_write_is_found() {
        let words = words(16);
        let Ok(ring) = ResultRing::new(&words) else {
            panic!()
        };
        for written in [1, 17, u64::MAX, 1 << 40] {
            words[0].store(written, Ordering::Relaxed);
            words[HEADER].store(u64::MAX, Ordering::Relaxed);
            assert_eq!(ring.peek(0, ring.committed()).err(), Some(CorruptRing));
        }
    }

    #[test]
    fn who_wants_to_be_woken_is_woken_once() {
        let words = words(16);
        let Ok(ring) = ResultRing::new(&words) else {
            panic!()
        };
        assert!(!ring.must_wake(true));
        ring.want(WakeMode::TheEnd);
        assert!(!ring.must_wake(false));
        assert!(ring.must_wake(true) && !ring.must_wake(true));
        ring.want(WakeMode::Each);
        assert!(ring.must_wake(false) && !ring.must_wake(false));
        ring.want(WakeMode::TheEnd);
        assert!(ring.put(0, 0, (0.0, 0.0), &[0; 8 * 7]));
        assert!(ring.must_wake(false));
    }
}
