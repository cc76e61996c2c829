//! The scheduler behind one mutex, with two conditions: items may be ready, and the run is over.
//!
//! As many threads that wait for work are woken as there are ready items. If a wake-up is lost because its thread was
//! just leaving, the others wait at most one slice longer.
//!
//! Threads that report directly (`end_and_claim`) log the finished items, in this order, for a writer: one record for
//! many items costs a fraction of one record for each.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::error::InvalidCall;
use crate::scheduler::{Batch, Outcomes, Scheduler};

use super::{SLICE, refused};

/// A scheduler for any number of threads.
pub(super) struct LockedScheduler {
    guarded: Mutex<Inner>,
    /// Items may be ready, or the run is over.
    work: Condvar,
    /// The run is over.
    end: Condvar,
}

/// The outcome of some items of a batch: all of them have a value.
pub(super) struct Guard<'a> {
    pub(super) batch: &'a Batch,
    pub(super) position: u32,
    /// When the first of them began.
    pub(super) start: f64,
    pub(super) ends: &'a [f64],
}

/// Items that have ended and are to be written.
struct FinishedLog {
    items: Vec<u32>,
    /// When the first of them was logged.
    since: f64,
    /// The number of items that is enough for a write.
    most: usize,
    /// The longest time that they may wait.
    window: f64,
    /// A part that takes this long is written at once.
    tiny: f64,
}

impl FinishedLog {
    fn add(&mut self, part: &Guard<'_>, now: f64) {
        if self.items.is_empty() {
            self.since = now;
        }
        let items = part.batch.items_from(part.position);
        self.items
            .extend(items.take(part.ends.len()).map(|item| item.0));
    }

    /// Return true if the items are to be written now, after a part that has taken a while.
    fn are_due(&self, start: f64, now: f64) -> bool {
        !self.items.is_empty()
            && (self.items.len() >= self.most
                || now - self.since >= self.window
                || now - start >= self.tiny)
    }
}

struct Inner {
    core: Scheduler,
    notes: Option<FinishedLog>,
    /// Threads that wait for `work`.
    claimers: u32,
    /// Threads that wait for `end`.
    watchers: u32,
    /// Threads may no longer claim or report.
    closed: bool,
}

impl LockedScheduler {
    pub(super) fn new(core: Scheduler) -> Self {
        let guarded = Mutex::new(Inner {
            core,
            notes: None,
            claimers: 0,
            watchers: 0,
            closed: false,
        });
        Self {
            guarded,
            work: Condvar::new(),
            end: Condvar::new(),
        }
    }

    /// Read from the core.
    pub(super) fn look<T>(&self, py: Python<'_>, ask: impl FnOnce(&Scheduler) -> T) -> PyResult<T> {
        Ok(ask(&self.lock(py)?.core))
    }

    /// Call the core, and wake the threads for which the call produced work.
    pub(super) fn change<T>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut Scheduler) -> Result<T, InvalidCall>,
    ) -> PyResult<T> {
        self.try_change(py, act)?.map_err(refused)
    }

    /// The same for a call that has an error type of its own.
    pub(super) fn try_change<T, E>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut Scheduler) -> Result<T, E>,
    ) -> PyResult<Result<T, E>> {
        let mut guarded = self.lock(py)?;
        let result = act(&mut guarded.core);
        self.wake(guarded);
        Ok(result)
    }

    /// Release the lock, and wake the threads that have work.
    fn wake(&self, guarded: MutexGuard<'_, Inner>) {
        let (claimers, watchers) = guarded.to_wake();
        drop(guarded);
        (0..claimers).for_each(|_| self.work.notify_one());
        if watchers {
            self.end.notify_all();
        }
    }

    /// Report items that have ended and claim others: as many as `limit` returns for the number of ready items, if it
    /// returns any, and none while there are logged items to write.
    pub(super) fn end_and_claim(
        &self,
        py: Python<'_>,
        part: &Guard<'_>,
        now: f64,
        limit: impl FnOnce(u32) -> Option<u32>,
    ) -> PyResult<Option<Batch>> {
        let mut guarded = self.lock(py)?;
        let result = guarded.end_and_claim(part, now, limit);
        self.wake(guarded);
        result.map_err(refused)
    }

    /// Accept no more reports from `end_and_claim`.
    pub(super) fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.lock(py)?.closed = true;
        Ok(())
    }

    /// Log the items that `end_and_claim` reports: see [`FinishedLog`].
    pub(super) fn note(&self, py: Python<'_>, most: u32, window: f64, tiny: f64) -> PyResult<()> {
        let notes = FinishedLog {
            items: Vec::new(),
            since: 0.0,
            most: most as usize,
            window,
            tiny,
        };
        self.lock(py)?.notes = Some(notes);
        Ok(())
    }

    /// Take the logged items.
    pub(super) fn take_noted(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        let notes = &mut self.lock(py)?.notes;
        let taken = notes.as_mut().map(|notes| std::mem::take(&mut notes.items));
        Ok(taken.unwrap_or_default())
    }

    /// Have a thread that waits for work check when the next delay is over.
    pub(super) fn delays_changed(&self) {
        self.work.notify_one();
    }

    /// Wait until items may be ready: at most `left` seconds, at most a slice, at most until the next delay is over.
    pub(super) fn wait_for_work(&self, py: Python<'_>, now: f64, left: f64) -> PyResult<()> {
        py.detach(|| {
            let mut guarded = self.lock_detached();
            if guarded.core.ready() > 0 || guarded.core.is_finished() {
                return;
            }
            let left = guarded
                .core
                .next_delay()
                .map_or(left, |at| left.min(at - now));
            guarded.claimers += 1;
            let woken = self.work.wait_timeout(guarded, slice(left));
            woken.unwrap_or_else(PoisonError::into_inner).0.claimers -= 1;
        });
        py.check_signals()
    }

    /// Wait until the run is over: at most `left` seconds, at most a slice.
    pub(super) fn wait_for_end(&self, py: Python<'_>, left: f64) -> PyResult<()> {
        py.detach(|| {
            let mut guarded = self.lock_detached();
            if !guarded.core.is_finished() {
                guarded.watchers += 1;
                let woken = self.end.wait_timeout(guarded, slice(left));
                woken.unwrap_or_else(PoisonError::into_inner).0.watchers -= 1;
            }
        });
        py.check_signals()
    }

    fn lock<'a>(&'a self, py: Python<'_>) -> PyResult<MutexGuard<'a, Inner>> {
        self.guarded.lock_py_attached(py).map_err(|poisoned| {
            drop(poisoned);
            PyRuntimeError::new_err("an earlier call panicked: the state of the run is not known")
        })
    }

    /// Lock while detached, when no error can be raised; the next attached call raises it.
    fn lock_detached(&self) -> MutexGuard<'_, Inner> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn end_and_claim(
        &mut self,
        part: &Guard<'_>,
        now: f64,
        limit: impl FnOnce(u32) -> Option<u32>,
    ) -> Result<Option<Batch>, InvalidCall> {
        let Guard {
            batch,
            position,
            start,
            ends,
        } = *part;
        if self.closed {
            return Ok(None);
        }
        if !ends.is_empty() {
            self.core
                .complete(batch, position, start, ends, Outcomes::Success)?;
            if let Some(notes) = &mut self.notes {
                notes.add(part, now);
            }
        }
        if self
            .notes
            .as_ref()
            .is_some_and(|notes| notes.are_due(start, now))
        {
            return Ok(None);
        }
        let limit = limit(self.core.ready());
        Ok(limit.and_then(|limit| self.core.claim(batch.worker(), limit, now)))
    }

    /// Return the number of claimers that have work, and whether watchers are to be woken.
    fn to_wake(&self) -> (u32, bool) {
        let finished = self.core.is_finished();
        let ready = self.core.ready();
        let claimers = if finished {
            self.claimers
        } else {
            self.claimers.min(ready)
        };
        (claimers, finished && self.watchers > 0)
    }
}

fn slice(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, SLICE.as_secs_f64()))
}
