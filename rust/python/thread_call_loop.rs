//! `ThreadCallLoop`: the batch that one thread of this process has claimed, and the loop that calls its steps: the
//! innermost loop of the package.
//!
//! ```text
//!             ┌──────── take: next < end ──▶ call ──▶ value into the list, end into `ends` ──┐
//! begin ──▶ word: (next, end)  ◀─────────────────────────────────────────────────────────────┘
//!   ▲         └──── take_back(): others lower `end`, the scheduler gets it back
//!   └──────── all called, nothing special: report and claim the next batch in one go (`Scheduler` given to `call`)
//! ```
//!
//! Only its own thread takes steps, with a compare-and-swap on `word`; other threads take back and read under the lock,
//! which the thread itself needs once per batch. The number of `ends` shows which steps have ended, and the end of one
//! step is the start of the next, so a step costs a value, a time and no object of ours.
//!
//! Python decides which outcomes are *special*: a step that raised or returned something that is not a value of a step
//! (a pipeline, a generator), or a value that must be written before the next step can change it. The loop then ends
//! with its batch, and its caller reports.
//!
//! If steps have time limits the loop *holds* the values of its batch, and delivers them as they are reported. So an
//! abandoned thread (`abandon`) writes only into a list that is never read, and only the watcher of the thread reads
//! the clock for a limit.
//!
//! Why it is here and not in Python: a step that does nothing took 0.48 us in a Python loop (0.57 us on threads), of
//! which the step itself was 0.05; here it takes a third of that. Chains need reporting and claiming under one lock:
//! between two calls another thread would find the next step and wake up for it, which costs more than a hundred steps.

mod calling;
mod claim;
mod ends;
mod steps;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyFrozenSet, PyList, PyTuple, PyType};

use crate::batch_sizer::BatchSizer;
use crate::scheduler as core;

use super::batch::Batch;
use super::finite;
use super::locked_scheduler::Guard;
use super::scheduler::Scheduler;
use calling::{CallLoop, Clock, Refusal};
use claim::{CurrentBatch, LockedState};
pub(crate) use ends::EndTimes;
use steps::CallPlan;

/// The batch that one thread has claimed.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct ThreadCallLoop {
    /// The positions that may begin: the next one in the lower half, their end in the upper half.
    word: AtomicU64,
    /// No further step may begin, and no batch may be claimed.
    closed: AtomicBool,
    /// Values are held until they are reported.
    holds: bool,
    held: Mutex<LockedState>,
}

/// What remains to do after the steps of a batch were called.
enum Next {
    /// Another batch was claimed.
    Batch(CurrentBatch),
    /// Nothing is ready, or the caller must decide.
    Nothing,
}

#[pymethods]
impl ThreadCallLoop {
    #[new]
    #[pyo3(signature = (*, target=0.0, most=1, workers=0, holds=false))]
    fn new(target: f64, most: u32, workers: u32, holds: bool) -> PyResult<Self> {
        let target = finite("target", target)?;
        Ok(Self {
            word: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            holds,
            held: Mutex::new(LockedState {
                claim: None,
                start: 0.0,
                reported: 0,
                abandoned: false,
                before: 0,
                sizer: BatchSizer::new(target, most, workers),
            }),
        })
    }

    #[pyo3(signature = (batch, now, count=None))]
    fn begin(
        &self,
        py: Python<'_>,
        batch: &Bound<'_, Batch>,
        now: f64,
        count: Option<u32>,
    ) -> PyResult<()> {
        let now = finite("now", now)?;
        let batch = Arc::clone(&batch.get().0);
        let count = count.unwrap_or(u32::MAX).min(batch.len());
        let claim = self.new_claim(py, batch)?;
        let mut held = self.lock(py);
        held.observe();
        let before = self.install(&mut held, claim, now, count);
        drop(held);
        drop(before);
        Ok(())
    }

    /// The number of steps that are claimed and have not begun.
    #[getter]
    fn left(&self) -> u32 {
        let (next, end) = halves(self.word.load(Ordering::Acquire));
        end.saturating_sub(next)
    }

    /// The number of steps of the batch that have begun, or may still begin.
    #[getter]
    fn end(&self) -> u32 {
        halves(self.word.load(Ordering::Acquire)).1
    }

    #[getter]
    fn ends(&self, py: Python<'_>) -> EndTimes {
        let held = self.lock(py);
        let ends = held.claim.as_ref().map(|claim| claim.ends.clone());
        ends.unwrap_or_else(|| EndTimes::new(0))
    }

    #[getter]
    fn start(&self, py: Python<'_>) -> f64 {
        self.lock(py).start
    }

    fn limit(&self, py: Python<'_>, ready: u32) -> u32 {
        self.lock(py).sizer.limit(ready)
    }

    fn take_back(&self, py: Python<'_>, count: u32) -> Option<(Batch, u32, u32)> {
        let held = self.lock(py);
        let claim = held.claim.as_ref()?;
        let (position, taken) = self.lower(count);
        (taken > 0).then(|| (Batch(Arc::clone(&claim.batch)), position, taken))
    }

    /// Begin no further step. Under the lock, as `install` is: otherwise each could miss the other's write.
    fn clear(&self, py: Python<'_>) {
        let _held = self.lock(py);
        self.closed.store(true, Ordering::Release);
        self.lower(u32::MAX);
    }

    #[pyo3(signature = (before=f64::INFINITY, most=u32::MAX, *, into=None))]
    fn report(
        &self,
        py: Python<'_>,
        before: f64,
        most: u32,
        into: Option<&Bound<'_, PyList>>,
    ) -> PyResult<Option<(Batch, u32, f64, EndTimes)>> {
        if before.is_nan() {
            return Err(PyValueError::new_err("before must be a time, got NaN"));
        }
        let Some(part) = self.part(py, before, most) else {
            return Ok(None);
        };
        let (claim, position, ended, start) = part;
        if let Some(into) = into {
            claim.hand_over(py, position, ended, into)?;
        }
        let ends = claim.ends.part(position, ended);
        Ok(Some((Batch(claim.batch), position, start, ends)))
    }

    /// Return the batch, the position of the running step, and an id that no other step of this loop has.
    fn at(&self, py: Python<'_>) -> Option<(Batch, u32, u64)> {
        let held = self.lock(py);
        let claim = held.claim.as_ref()?;
        let position = claim.ends.len();
        (position < claim.batch.len()).then(|| {
            (
                Batch(Arc::clone(&claim.batch)),
                position,
                held.before + u64::from(position),
            )
        })
    }

    /// Return the same of a step that may have begun, and its start.
    fn running(&self, py: Python<'_>) -> Option<(Batch, u32, u64, f64)> {
        let held = self.lock(py);
        let claim = held.claim.as_ref()?;
        let position = claim.ends.len();
        (position < self.end()).then(|| {
            (
                Batch(Arc::clone(&claim.batch)),
                position,
                held.before + u64::from(position),
                held.began(position),
            )
        })
    }

    #[pyo3(signature = (number=None))]
    fn abandon(&self, py: Python<'_>, number: Option<u64>) -> bool {
        let mut held = self.lock(py);
        let ended = held.ended();
        let runs = ended < self.end() && held.before + u64::from(ended) == number.unwrap_or(0);
        if number.is_none() || runs {
            held.abandoned = true;
            self.closed.store(true, Ordering::Release);
            self.lower(u32::MAX);
        }
        held.abandoned
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Option<u32> {
        let position = self.take()?;
        let held = self.lock(py);
        let (item, _) = held.claim.as_ref()?.batch.at(position)?;
        Some(item.0)
    }

    #[pyo3(signature = (steps, values, failed, refused, now, pipeline, once, *, atoms=None, stop=false, scheduler=None))]
    #[expect(clippy::too_many_arguments, reason = "what a loop needs at hand")]
    fn call(
        &self,
        py: Python<'_>,
        steps: &Bound<'_, PyTuple>,
        values: &Bound<'_, PyList>,
        failed: &Bound<'_, PyAny>,
        refused: &Bound<'_, PyAny>,
        now: f64,
        pipeline: &Bound<'_, PyType>,
        once: &Bound<'_, PyFrozenSet>,
        atoms: Option<&Bound<'_, PyFrozenSet>>,
        stop: bool,
        scheduler: Option<&Bound<'_, Scheduler>>,
    ) -> PyResult<()> {
        let now = finite("now", now)?;
        let Some(mut claim) = self.claimed(py) else {
            return Ok(());
        };
        let steps = CallPlan::new(steps, values)?;
        let mut calls = steps.calls();
        let mut calling = CallLoop {
            turn: self,
            values,
            failed,
            stop,
            refusal: Refusal {
                pipeline,
                once,
                refused,
            },
            atoms,
            known: None,
            clock: Clock::new(now),
            special: false,
        };
        loop {
            calling.call_batch(py, &mut calls, &claim)?;
            let (Some(scheduler), false) = (scheduler, calling.special) else {
                return Ok(());
            };
            match self.go_on(&claim, scheduler, values, calling.clock.now())? {
                Next::Batch(next) => claim = next,
                Next::Nothing => return Ok(()),
            }
        }
    }
}

impl ThreadCallLoop {
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, LockedState> {
        // No code under this lock can panic halfway.
        self.held
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Begin the next step; only the loop's own thread calls this.
    fn take(&self) -> Option<u32> {
        let mut current = self.word.load(Ordering::Acquire);
        loop {
            let (next, end) = halves(current);
            if next >= end {
                return None;
            }
            match self.swap(current, word(next + 1, end)) {
                Ok(_) => return Some(next),
                Err(other) => current = other,
            }
        }
    }

    /// Reduce the steps that may begin by up to `count`; return the first position removed and the number.
    fn lower(&self, count: u32) -> (u32, u32) {
        let mut current = self.word.load(Ordering::Acquire);
        loop {
            let (next, end) = halves(current);
            let taken = count.min(end.saturating_sub(next));
            match self.swap(current, word(next, end - taken)) {
                Ok(_) => return (end - taken, taken),
                Err(other) => current = other,
            }
        }
    }

    fn swap(&self, from: u64, to: u64) -> Result<u64, u64> {
        self.word
            .compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Acquire)
    }

    fn claimed(&self, py: Python<'_>) -> Option<CurrentBatch> {
        // The references are incremented under the lock, which runs no Python code.
        self.lock(py).claim.as_ref().map(|claim| claim.clone(py))
    }

    fn new_claim(&self, py: Python<'_>, batch: Arc<core::Batch>) -> PyResult<CurrentBatch> {
        let nothing = (0..batch.len()).map(|_| py.None());
        let held = self.holds.then(|| PyList::new(py, nothing)).transpose()?;
        Ok(CurrentBatch {
            ends: EndTimes::new(batch.len()),
            batch,
            held: held.map(Bound::unbind),
        })
    }

    /// Take the steps that have ended and were not reported: the batch, the first position, the position after the last
    /// one, the start.
    fn part(
        &self,
        py: Python<'_>,
        before: f64,
        most: u32,
    ) -> Option<(CurrentBatch, u32, u32, f64)> {
        let mut held = self.lock(py);
        let ended = held.ended().min(most);
        let position = held.reported;
        if ended <= position || held.at(ended - 1)? > before {
            return None;
        }
        held.reported = ended;
        let claim = held.claim.as_ref()?.clone(py);
        Some((claim, position, ended, held.began(position)))
    }

    /// Replace the finished batch; return it, to be dropped without the lock.
    fn install(
        &self,
        held: &mut LockedState,
        claim: CurrentBatch,
        now: f64,
        count: u32,
    ) -> Option<CurrentBatch> {
        held.before += u64::from(held.ended());
        (held.start, held.reported) = (now, 0);
        let before = held.claim.replace(claim);
        self.word.store(word(0, count), Ordering::Release);
        if self.closed.load(Ordering::Acquire) {
            self.lower(u32::MAX);
        }
        before
    }

    /// Report the steps that have ended and claim the next batch, under one lock.
    fn go_on(
        &self,
        claim: &CurrentBatch,
        scheduler: &Bound<'_, Scheduler>,
        values: &Bound<'_, PyList>,
        now: f64,
    ) -> PyResult<Next> {
        let py = scheduler.py();
        let ended = claim.ends.len();
        let (position, start, sizer) = {
            let mut held = self.lock(py);
            if held.abandoned {
                return Ok(Next::Nothing);
            }
            let begun = held.start;
            held.sizer.observe(ended, now - begun);
            let position = std::mem::replace(&mut held.reported, ended);
            (position, held.began(position), held.sizer)
        };
        // All steps have ended, so the thread cannot be abandoned meanwhile.
        claim.hand_over(py, position, ended, values)?;
        let ends = claim.ends.times(position, ended);
        let part = Guard {
            batch: &claim.batch,
            position,
            start,
            ends: &ends,
        };
        let closed = self.closed.load(Ordering::Acquire);
        let next = scheduler
            .get()
            .shared()
            .end_and_claim(py, &part, now, |ready| {
                (!closed).then(|| sizer.limit(ready))
            })?;
        let Some(next) = next else {
            return Ok(Next::Nothing);
        };
        let next = self.new_claim(py, Arc::new(next))?;
        let (again, count) = (next.clone(py), next.batch.len());
        let before = self.install(&mut self.lock(py), again, now, count);
        drop(before);
        Ok(Next::Batch(next))
    }
}

const fn word(next: u32, end: u32) -> u64 {
    (end as u64) << 32 | next as u64
}

const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}
