//! `CallLoop`: calls the steps of a batch one after the other, and holds everything that this needs.

use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyFrozenSet, PyList, PyType};

use crate::scheduler::ItemRange;

use super::super::daemon_call::daemon_call;
use super::ThreadCallLoop;
use super::claim::CurrentBatch;
use super::steps::Calls;

/// Seconds after which the loop checks for signals and lets other threads run, if steps do not do so themselves.
///
/// Longer than a Python thread waits before it requests the lock (5 ms), so the requesting thread gets it. If the lock
/// was released just before that, the waiting threads woke up, found it taken again and waited again: Ctrl-C was
/// handled only when all steps had ended.
const SLICE: f64 = 0.02;

/// The data that the loop needs.
pub(super) struct CallLoop<'a, 'py> {
    pub(super) turn: &'a ThreadCallLoop,
    pub(super) values: &'a Bound<'py, PyList>,
    pub(super) failed: &'a Bound<'py, PyAny>,
    /// Begin no further step after a failure.
    pub(super) stop: bool,
    pub(super) refusal: Refusal<'a, 'py>,
    /// Types whose values are immutable, if a value of any other type is special.
    pub(super) atoms: Option<&'a Bound<'py, PyFrozenSet>>,
    /// The type of the last accepted value.
    pub(super) known: Option<Bound<'py, PyType>>,
    pub(super) clock: Clock,
    /// The loop must return to its caller for a decision.
    pub(super) special: bool,
}

/// Return values that are not values of a step.
pub(super) struct Refusal<'a, 'py> {
    /// The class of pipelines.
    pub(super) pipeline: &'a Bound<'py, PyType>,
    /// Types whose values can be read only once.
    pub(super) once: &'a Bound<'py, PyFrozenSet>,
    /// Called with position, item and return value; returns the value that replaces it.
    pub(super) refused: &'a Bound<'py, PyAny>,
}

impl<'py> CallLoop<'_, 'py> {
    /// Call the remaining steps of a batch.
    pub(super) fn call_batch(
        &mut self,
        py: Python<'py>,
        calls: &mut Calls<'_, 'py>,
        claim: &CurrentBatch,
    ) -> PyResult<()> {
        let mut runs = claim.batch.runs().iter();
        let mut run: Option<ItemRange> = None;
        let held = claim.held.as_ref().map(|held| held.bind(py));
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
            let item = here.item.0 + at;
            let value = match calls.call(here, at) {
                Ok(value) => self.look_at(position, item, value)?,
                Err(error) => {
                    self.special = true;
                    let error = error.into_value(py);
                    daemon_call(self.failed, &(position, item, error).into_pyobject(py)?)?
                }
            };
            match held {
                Some(held) => held.set_item(position as usize, value)?,
                None => self.values.set_item(item as usize, value)?,
            }
            claim.ends.push(self.clock.read());
            self.clock.pause(py)?;
            if self.stop && self.special {
                break;
            }
        }
        Ok(())
    }

    /// Return a value, or its replacement; most values have the type of the previous one.
    fn look_at(
        &mut self,
        position: u32,
        item: u32,
        value: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let kind = value.get_type();
        if self.known.as_ref().is_some_and(|known| known.is(&kind)) {
            return Ok(value);
        }
        if kind.is_subclass(self.refusal.pipeline)? || self.refusal.once.contains(&kind)? {
            self.special = true;
            let returned = (position, item, value).into_pyobject(kind.py())?;
            return daemon_call(self.refusal.refused, &returned);
        }
        if let Some(atoms) = self.atoms {
            self.special |= !atoms.contains(&kind)?;
        }
        self.known = Some(kind);
        Ok(value)
    }
}

/// Python's monotonic clock, read without Python.
pub(super) struct Clock {
    /// The readings of Python's clock and of ours at the same moment.
    base: f64,
    begun: Instant,
    /// When signals were last checked.
    looked: f64,
    now: f64,
}

impl Clock {
    pub(super) fn new(now: f64) -> Self {
        Self {
            base: now,
            begun: Instant::now(),
            looked: now,
            now,
        }
    }

    /// Return the time that was read last.
    pub(super) fn now(&self) -> f64 {
        self.now
    }

    /// Read the time.
    fn read(&mut self) -> f64 {
        self.now = self.base + self.begun.elapsed().as_secs_f64();
        self.now
    }

    /// Check for signals now and then and let other threads run, as the interpreter does between steps.
    fn pause(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.now - self.looked >= SLICE {
            self.looked = self.now;
            py.check_signals()?;
            py.detach(|| ());
        }
        Ok(())
    }
}
