//! Arguments of the scheduler's methods: checked, and converted to the types of the core.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::scheduler::Limits;

use super::thread_call_loop::EndTimes;
use super::{finite, ids};

/// The needs of classes of nodes, as given by Python.
pub(super) type Classes = Vec<Vec<(u32, u32)>>;

/// Read limits and demands.
pub(super) fn bounds(
    limits: Option<&Bound<'_, PyAny>>,
    demands: Option<&Bound<'_, PyAny>>,
    classes: Option<Classes>,
    divided: Option<(u32, u32)>,
) -> PyResult<Limits> {
    Ok(Limits {
        totals: limits.map_or_else(|| Ok(Vec::new()), ids)?,
        demands: demands.map(ids).transpose()?,
        classes: classes.unwrap_or_default(),
        divided,
    })
}

/// Check a timeout, which may be infinite.
pub(super) fn seconds(timeout: f64) -> PyResult<f64> {
    if timeout >= 0.0 {
        Ok(timeout)
    } else {
        let message = format!("timeout is {timeout}: expected seconds, 0 or more");
        Err(PyValueError::new_err(message))
    }
}

/// Copy times, all of which are finite.
pub(super) fn finite_times(values: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    let times = times(values)?;
    match times.iter().find(|time| !time.is_finite()) {
        None => Ok(times),
        Some(time) => finite("a time", *time).map(|_| times),
    }
}

/// Copy times from a list or a buffer of doubles.
pub(super) fn times(values: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    if let Ok(ends) = values.cast::<EndTimes>() {
        return Ok(ends.get().all());
    }
    if values.is_instance_of::<PyList>() {
        return values.extract();
    }
    match PyBuffer::<f64>::get(values) {
        Ok(buffer) => buffer.to_vec(values.py()),
        Err(_) => values.extract(),
    }
}
