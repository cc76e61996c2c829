//! `CurrentBatch`: a batch and its outcomes; `LockedState`: the state of a call loop under its lock.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::batch_sizer::BatchSizer;
use crate::scheduler as core;

use super::EndTimes;

/// A batch, and where its loop stores the outcomes.
pub(super) struct CurrentBatch {
    pub(super) batch: Arc<core::Batch>,
    pub(super) ends: EndTimes,
    /// The values by position, if they are held.
    pub(super) held: Option<Py<PyList>>,
}

impl CurrentBatch {
    pub(super) fn clone(&self, py: Python<'_>) -> Self {
        Self {
            batch: Arc::clone(&self.batch),
            ends: self.ends.clone(),
            held: self.held.as_ref().map(|held| held.clone_ref(py)),
        }
    }

    /// Move the values between two positions to the values of the run, if they are held.
    pub(super) fn hand_over(
        &self,
        py: Python<'_>,
        first: u32,
        last: u32,
        into: &Bound<'_, PyList>,
    ) -> PyResult<()> {
        let Some(held) = &self.held else {
            return Ok(());
        };
        let held = held.bind(py);
        for run in self.batch.slices(first, last - first) {
            let (from, to) = (run.position as usize, run.item.0 as usize);
            let count = run.count as usize;
            into.set_slice(to, to + count, &held.get_slice(from, from + count))?;
        }
        Ok(())
    }
}

/// The state of a call loop under its lock.
pub(super) struct LockedState {
    pub(super) claim: Option<CurrentBatch>,
    /// When the first step began.
    pub(super) start: f64,
    pub(super) reported: u32,
    /// The thread was abandoned.
    pub(super) abandoned: bool,
    /// Steps that had ended before this batch.
    pub(super) before: u64,
    pub(super) sizer: BatchSizer,
}

impl LockedState {
    /// Adapt the size of the next batch to the time that the steps of this one took. For a batch that the caller claimed:
    /// the loop does so itself only if it reports and claims.
    pub(super) fn observe(&mut self) {
        let ended = self.ended();
        if let Some(last) = ended.checked_sub(1).and_then(|at| self.at(at)) {
            self.sizer.observe(ended, last - self.start);
        }
    }

    /// Return how many steps have ended.
    pub(super) fn ended(&self) -> u32 {
        self.claim.as_ref().map_or(0, |claim| claim.ends.len())
    }

    /// Return when a step ended.
    pub(super) fn at(&self, position: u32) -> Option<f64> {
        self.claim.as_ref()?.ends.at(position)
    }

    /// Return when the step at a position began.
    pub(super) fn began(&self, position: u32) -> f64 {
        let before = position.checked_sub(1).and_then(|at| self.at(at));
        before.unwrap_or(self.start)
    }
}
