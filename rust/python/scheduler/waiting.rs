//! Calls that may wait: for a ready item, or for the end of the run.

use std::time::Instant;

use pyo3::prelude::*;

use crate::python::locked_scheduler::LockedScheduler;
use crate::scheduler::{Batch, Scheduler};

/// Claim a batch, and wait up to `timeout` seconds for one; `None` if nothing is ready by then, or the run is over.
pub(super) fn claim(
    shared: &LockedScheduler,
    py: Python<'_>,
    worker: u16,
    limit: u32,
    most: u32,
    now: f64,
    timeout: f64,
) -> PyResult<Option<Batch>> {
    let mut waited = 0.0;
    let begun = (timeout > 0.0).then(Instant::now);
    loop {
        let claimed = shared.change(py, |core| {
            Ok((
                core.claim_chains(worker, limit, most, now + waited),
                core.is_finished(),
            ))
        })?;
        match claimed {
            (Some(batch), _) => return Ok(Some(batch)),
            (None, true) => return Ok(None),
            (None, false) if waited >= timeout => return Ok(None),
            (None, false) => shared.wait_for_work(py, now + waited, timeout - waited)?,
        }
        waited = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
    }
}

/// Wait up to `timeout` seconds until the run is over; return true if it is.
pub(super) fn wait_for_end(
    shared: &LockedScheduler,
    py: Python<'_>,
    timeout: f64,
) -> PyResult<bool> {
    let begun = Instant::now();
    loop {
        let finished = shared.look(py, Scheduler::is_finished)?;
        let left = timeout - begun.elapsed().as_secs_f64();
        if finished || left <= 0.0 {
            return Ok(finished);
        }
        shared.wait_for_end(py, left)?;
    }
}
