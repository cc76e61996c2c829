//! `Turn`: what one thread of this process has claimed, and the loop that calls it: the innermost one of the package.
//!
//! ```text
//!             ┌──────── take: next < end ──▶ call ──▶ value into the list, end into `ends` ──┐
//! begin ──▶ word: (next, end)  ◀─────────────────────────────────────────────────────────────┘
//!   ▲         └──── take_back(): others lower `end`, the scheduler gets it back
//!   └──────── all called, nothing special: report and claim the next batch in one go (`Scheduler` given to `call`)
//! ```
//!
//! Only its own thread takes, with a compare-and-swap on `word`; others take back and read under the lock, which the thread
//! itself needs once a batch. That a step has ended shows in the number of `ends`, and when it began in the end of the one
//! before, so a step that nobody looks at costs a value, a time and no object of ours.
//!
//! What is *special* is for Python to decide: a step that raised, a value that is a pipeline. The loop then ends with
//! its batch, and whoever called it reports.
//!
//! Why it is here and not in Python: a step that does nothing took 0.48 us in the loop of Python (0.57 us on threads), of
//! which the step itself was 0.05; here it takes a third of that. Reporting and claiming under one lock is what chains need: between two
//! calls another thread would find the next step and wake up for it, which costs more than a hundred steps.

mod ends;
mod steps;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyList, PyTuple, PyType};

use crate::scheduler::{self as core, Outcomes, Run};
use crate::sizer::Sizer;

use super::batch::Batch;
use super::scheduler::Scheduler;
pub(crate) use ends::Ends;
use steps::{Calls, Steps};

/// Seconds after which the loop looks for signals and lets other threads run, where steps do not do so themselves.
const SLICE: f64 = 0.005;

/// What one thread has claimed.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct Turn {
    /// The positions that may be begun: the next one, and above it in the upper half where they end.
    word: AtomicU64,
    /// Nothing is begun any more, and nothing claimed.
    closed: AtomicBool,
    held: Mutex<Held>,
}

struct Held {
    batch: Option<Arc<core::Batch>>,
    /// When the first step began.
    start: f64,
    ends: Ends,
    reported: u32,
    /// Steps that had ended before this batch.
    before: u64,
    sizer: Sizer,
}

impl Held {
    /// Let the size of the next batch follow the time that the steps of this one took: where others report and claim,
    /// nobody else does it.
    fn observe(&mut self) {
        let ended = self.ends.len();
        if let Some(last) = ended.checked_sub(1).and_then(|at| self.ends.at(at)) {
            self.sizer.observe(ended, last - self.start);
        }
    }
}

/// What is left to do after the steps of a batch were called.
enum Next {
    /// Another batch was claimed.
    Batch(Arc<core::Batch>, Ends),
    /// Nothing is ready, or it is not for the loop to say.
    Nothing,
}

#[pymethods]
impl Turn {
    #[new]
    #[pyo3(signature = (*, target=0.0, most=1, workers=0))]
    fn new(target: f64, most: u32, workers: u32) -> Self {
        Self {
            word: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            held: Mutex::new(Held {
                batch: None,
                start: 0.0,
                ends: Ends::new(0),
                reported: 0,
                before: 0,
                sizer: Sizer::new(target, most, workers),
            }),
        }
    }

    #[pyo3(signature = (batch, now, count=None))]
    fn begin(&self, py: Python<'_>, batch: &Bound<'_, Batch>, now: f64, count: Option<u32>) {
        let batch = Arc::clone(&batch.get().0);
        let count = count.unwrap_or(u32::MAX).min(batch.len());
        let mut held = self.lock(py);
        held.observe();
        self.install(&mut held, batch, now, count);
    }

    /// How many steps are claimed and not begun.
    #[getter]
    fn left(&self) -> u32 {
        let (next, end) = halves(self.word.load(Ordering::Acquire));
        end.saturating_sub(next)
    }

    /// How many steps of the batch were begun, or may still be.
    #[getter]
    fn end(&self) -> u32 {
        halves(self.word.load(Ordering::Acquire)).1
    }

    #[getter]
    fn ends(&self, py: Python<'_>) -> Ends {
        self.lock(py).ends.clone()
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
        let batch = held.batch.as_ref()?;
        let (position, taken) = self.lower(count);
        (taken > 0).then(|| (Batch(Arc::clone(batch)), position, taken))
    }

    /// Begin nothing any more. Under the lock, as `install` is: else each could miss what the other writes.
    fn clear(&self, py: Python<'_>) {
        let _held = self.lock(py);
        self.closed.store(true, Ordering::Release);
        self.lower(u32::MAX);
    }

    #[pyo3(signature = (before=f64::INFINITY, most=u32::MAX))]
    fn report(&self, py: Python<'_>, before: f64, most: u32) -> Option<(Batch, u32, f64, Ends)> {
        let mut held = self.lock(py);
        let ended = held.ends.len().min(most);
        let position = held.reported;
        if ended <= position || held.ends.at(ended - 1)? > before {
            return None;
        }
        held.reported = ended;
        let start = position.checked_sub(1).and_then(|at| held.ends.at(at));
        let part = held.ends.part(position, ended);
        let batch = Batch(Arc::clone(held.batch.as_ref()?));
        Some((batch, position, start.unwrap_or(held.start), part))
    }

    /// Return the batch, the position of the step that is running, and a number that no other step of this turn has.
    fn at(&self, py: Python<'_>) -> Option<(Batch, u32, u64)> {
        let held = self.lock(py);
        let batch = held.batch.as_ref()?;
        let position = held.ends.len();
        (position < batch.len()).then(|| {
            (
                Batch(Arc::clone(batch)),
                position,
                held.before + u64::from(position),
            )
        })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Option<u32> {
        let position = self.take()?;
        let held = self.lock(py);
        held.batch.as_ref()?.at(position).map(|(item, _)| item.0)
    }

    #[pyo3(signature = (steps, values, failed, now, special, *, stop=false, scheduler=None))]
    #[expect(clippy::too_many_arguments, reason = "what a loop needs at hand")]
    fn call(
        &self,
        py: Python<'_>,
        steps: &Bound<'_, PyTuple>,
        values: &Bound<'_, PyList>,
        failed: &Bound<'_, PyAny>,
        now: f64,
        special: &Bound<'_, PyType>,
        stop: bool,
        scheduler: Option<&Bound<'_, Scheduler>>,
    ) -> PyResult<()> {
        let (batch, ends) = {
            let held = self.lock(py);
            match &held.batch {
                Some(batch) => (Arc::clone(batch), held.ends.clone()),
                None => return Ok(()),
            }
        };
        let steps = Steps::new(steps, values)?;
        let mut calls = steps.calls();
        let mut calling = Calling {
            turn: self,
            values,
            failed,
            stop,
            kind: special,
            plain: None,
            clock: Clock::new(now),
            special: false,
        };
        let (mut batch, mut ends) = (batch, ends);
        loop {
            calling.call_batch(py, &mut calls, &batch, &ends)?;
            let (Some(scheduler), false) = (scheduler, calling.special) else {
                return Ok(());
            };
            match self.go_on(py, &batch, scheduler, calling.clock.now())? {
                Next::Batch(other, others) => (batch, ends) = (other, others),
                Next::Nothing => return Ok(()),
            }
        }
    }
}

impl Turn {
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Held> {
        // Nothing under this lock can panic half way.
        self.held
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Begin the next step: only its own thread does.
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

    /// Let fewer steps be begun: up to `count`; return from which position on, and how many.
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

    /// Put another batch in the place of the one that was done.
    fn install(&self, held: &mut Held, batch: Arc<core::Batch>, now: f64, count: u32) {
        held.before += u64::from(held.ends.len());
        held.ends = Ends::new(batch.len());
        (held.batch, held.start, held.reported) = (Some(batch), now, 0);
        self.word.store(word(0, count), Ordering::Release);
        if self.closed.load(Ordering::Acquire) {
            self.lower(u32::MAX);
        }
    }

    /// Report what has ended and claim what is next, in one go.
    fn go_on(
        &self,
        py: Python<'_>,
        batch: &Arc<core::Batch>,
        scheduler: &Bound<'_, Scheduler>,
        now: f64,
    ) -> PyResult<Next> {
        let (position, start, ends, sizer) = {
            let mut held = self.lock(py);
            let (start, ended) = (held.start, held.ends.len());
            held.sizer.observe(ended, now - start);
            let position = std::mem::replace(&mut held.reported, ended);
            let before = position.checked_sub(1).and_then(|at| held.ends.at(at));
            let ends = held.ends.times(position, ended);
            (position, before.unwrap_or(start), ends, held.sizer)
        };
        let closed = self.closed.load(Ordering::Acquire);
        let next = scheduler.get().shared().change(py, |core| {
            if !ends.is_empty() {
                core.complete(batch, position, start, &ends, Outcomes::Success)?;
            }
            if closed {
                return Ok(None);
            }
            let limit = sizer.limit(core.ready());
            Ok(core.claim(batch.worker(), limit, now))
        })?;
        let Some(next) = next else {
            return Ok(Next::Nothing);
        };
        let next = Arc::new(next);
        let mut held = self.lock(py);
        self.install(&mut held, Arc::clone(&next), now, next.len());
        Ok(Next::Batch(next, held.ends.clone()))
    }
}

/// What the loop has at hand.
struct Calling<'a, 'py> {
    turn: &'a Turn,
    values: &'a Bound<'py, PyList>,
    failed: &'a Bound<'py, PyAny>,
    /// Begin nothing behind a failure.
    stop: bool,
    /// The class whose values are special.
    kind: &'a Bound<'py, PyType>,
    /// The type of the last value that was not.
    plain: Option<Bound<'py, PyType>>,
    clock: Clock,
    /// Something has come up that the loop does not decide.
    special: bool,
}

impl<'py> Calling<'_, 'py> {
    fn call_batch(
        &mut self,
        py: Python<'py>,
        calls: &mut Calls<'_, 'py>,
        batch: &core::Batch,
        ends: &Ends,
    ) -> PyResult<()> {
        let mut runs = batch.runs().iter();
        let mut run: Option<Run> = None;
        while let Some(position) = self.turn.take() {
            let here = match run {
                Some(run) if position < run.position + run.count => run,
                _ => {
                    let Some(next) = runs.find(|run| position < run.position + run.count) else {
                        return Ok(());
                    };
                    calls.enter(*next, position - next.position)?;
                    run = Some(*next);
                    *next
                }
            };
            let at = position - here.position;
            match calls.call(here, at) {
                Ok(value) => self.keep(here.item.0 + at, value)?,
                Err(error) => {
                    self.special = true;
                    let error = error.into_value(py);
                    self.failed.call1((position, here.item.0 + at, error))?;
                }
            }
            ends.push(self.clock.read());
            self.clock.pause(py)?;
            if self.stop && self.special {
                break;
            }
        }
        Ok(())
    }

    fn keep(&mut self, item: u32, value: Bound<'py, PyAny>) -> PyResult<()> {
        let kind = value.get_type();
        if self.plain.as_ref().is_none_or(|plain| !plain.is(&kind)) {
            if kind.is_subclass(self.kind)? {
                self.special = true;
            } else {
                self.plain = Some(kind);
            }
        }
        self.values.set_item(item as usize, value)
    }
}

/// The monotonic clock of Python, read without Python.
struct Clock {
    /// What Python's clock showed, and what ours did.
    base: f64,
    begun: Instant,
    /// When signals were last looked for.
    looked: f64,
    now: f64,
}

impl Clock {
    fn new(now: f64) -> Self {
        Self {
            base: now,
            begun: Instant::now(),
            looked: now,
            now,
        }
    }

    /// Return the time that was read last.
    fn now(&self) -> f64 {
        self.now
    }

    /// Read the time.
    fn read(&mut self) -> f64 {
        self.now = self.base + self.begun.elapsed().as_secs_f64();
        self.now
    }

    /// Now and then look for signals and let other threads run, as the interpreter does between steps.
    fn pause(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.now - self.looked >= SLICE {
            self.looked = self.now;
            py.check_signals()?;
            py.detach(|| ());
        }
        Ok(())
    }
}

const fn word(next: u32, end: u32) -> u64 {
    (end as u64) << 32 | next as u64
}

const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}
