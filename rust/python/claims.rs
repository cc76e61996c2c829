//! `ClaimWords`: the claim words of one worker over memory that Python owns (a map of a memfd, a bytearray).
//!
//! The protocol stands in `crate::claims`; this file turns a buffer into two atomics and back, nothing else. It is the
//! only place of this subject with unsafe code.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyIndexError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::claims::{Claims, Ledger};

/// Bytes of one worker: a cache line, so that two workers never write the same one.
const STRIDE: usize = 64;

/// The claim words of worker `index` in `buffer`.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct ClaimWords {
    /// Keeps the memory from being released or resized.
    buffer: PyBuffer<u8>,
    /// Where the worker's two words start, in bytes.
    offset: usize,
    /// The driver's memory; a worker's view leaves it alone.
    ledger: Mutex<Ledger>,
}

#[pymethods]
impl ClaimWords {
    #[classattr]
    #[pyo3(name = "STRIDE")]
    const PY_STRIDE: usize = STRIDE;

    #[new]
    fn new(buffer: &Bound<'_, PyAny>, index: usize) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(buffer)?;
        let offset = place(&buffer, index)?;
        check(&buffer)?;
        Ok(Self {
            buffer,
            offset,
            ledger: Mutex::default(),
        })
    }

    fn post(&self, py: Python<'_>, count: u32) -> Option<u64> {
        self.with_ledger(py, |ledger| self.claims().post(ledger, count))
    }

    fn take(&self, slot: u64, now: f64) -> bool {
        self.claims().take(slot, now)
    }

    fn set_time(&self, slot: u64, now: f64) {
        self.claims().set_time(slot, now);
    }

    fn take_back(&self, py: Python<'_>, keep: u32) -> (u64, u32) {
        self.with_ledger(py, |ledger| self.claims().take_back(ledger, keep))
    }

    fn begun(&self, py: Python<'_>) -> (u64, u64, f64) {
        let begun = self.with_ledger(py, |ledger| self.claims().begun(ledger));
        (begun.next, begun.end, begun.time.unwrap_or(f64::INFINITY))
    }

    fn last_claimed(&self, py: Python<'_>) -> Option<u64> {
        self.with_ledger(py, |ledger| self.claims().begun(ledger).last)
    }
}

impl ClaimWords {
    fn with_ledger<T>(&self, py: Python<'_>, work: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self
            .ledger
            .lock_py_attached(py)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        work(&mut ledger)
    }

    fn claims(&self) -> Claims<'_> {
        Claims {
            word: self.atomic(0),
            time: self.atomic(1),
        }
    }

    fn atomic(&self, index: usize) -> &AtomicU64 {
        let place = self
            .buffer
            .buf_ptr()
            .wrapping_byte_add(self.offset)
            .cast::<u64>()
            .wrapping_add(index);
        // SAFETY: `check` and `place` have seen that the memory is writable, contiguous, aligned to eight bytes and long
        // enough. It stays where it is while `self.buffer` is held, and flowyml touches these words only through such
        // atomics, save for zeroing them when no worker has them. Sixteen bytes of plain numbers: any content is valid.
        unsafe { AtomicU64::from_ptr(place) }
    }
}

/// Refuses memory that cannot hold atomics.
fn check(buffer: &PyBuffer<u8>) -> PyResult<()> {
    let complaint = if buffer.readonly() {
        "claim words need a writable buffer"
    } else if !buffer.is_c_contiguous() {
        "claim words need a contiguous buffer"
    } else if buffer.buf_ptr().align_offset(align_of::<AtomicU64>()) != 0 {
        "claim words need a buffer aligned to 8 bytes"
    } else {
        return Ok(());
    };
    Err(PyBufferError::new_err(complaint))
}

/// Where the words of worker `index` start.
fn place(buffer: &PyBuffer<u8>, index: usize) -> PyResult<usize> {
    let offset = index.checked_mul(STRIDE);
    offset
        .filter(|offset| {
            offset
                .checked_add(STRIDE)
                .is_some_and(|end| end <= buffer.len_bytes())
        })
        .ok_or_else(|| {
            PyIndexError::new_err(format!(
                "no claim words for worker {index} in a buffer of {} bytes; each takes {STRIDE}",
                buffer.len_bytes()
            ))
        })
}
