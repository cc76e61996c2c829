//! `ClaimWords`: the claim words of one worker over memory that Python owns (a map of a memfd, a bytearray).
//!
//! The protocol is defined in `crate::claims`; this file only passes it the words of a buffer.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::claims::{Claims, Ledger};

use super::finite;
use super::shared_atomics::SharedAtomics;

/// Bytes of one worker: a cache line, so that two workers never write the same one.
const STRIDE: usize = 64;

/// The claim words of worker `index` in `buffer`.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct ClaimWords {
    words: SharedAtomics,
    /// The driver's record of the slots; a worker's view does not use it.
    ledger: Mutex<Ledger>,
}

#[pymethods]
impl ClaimWords {
    #[classattr]
    #[pyo3(name = "STRIDE")]
    const PY_STRIDE: usize = STRIDE;

    #[new]
    fn new(buffer: &Bound<'_, PyAny>, index: usize) -> PyResult<Self> {
        Ok(Self {
            words: SharedAtomics::piece(buffer, index, STRIDE, 2)?,
            ledger: Mutex::default(),
        })
    }

    fn post(&self, py: Python<'_>, count: u32) -> Option<u64> {
        self.with_ledger(py, |ledger| self.claims().post(ledger, count))
    }

    fn take(&self, slot: u64, now: f64) -> PyResult<bool> {
        let now = finite("now", now)?;
        Ok(self.claims().take(slot, now))
    }

    fn set_time(&self, slot: u64, now: f64) -> PyResult<()> {
        let now = finite("now", now)?;
        self.claims().set_time(slot, now);
        Ok(())
    }

    fn take_back(&self, py: Python<'_>, keep: u32) -> (u64, u32) {
        self.with_ledger(py, |ledger| self.claims().take_back(ledger, keep))
    }

    #[getter]
    fn waiting(&self) -> u32 {
        self.claims().waiting()
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

    pub(super) fn claims(&self) -> Claims<'_> {
        let words = self.words.get();
        Claims {
            word: &words[0],
            time: &words[1],
        }
    }
}
