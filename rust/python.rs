//! The Python module `flowyml._core`: the only place that names pyo3. `_core.pyi` is its reference.
//!
//! Rules for every method here:
//!
//! 1. A mutex is locked only with [`pyo3::sync::MutexExt`], or while detached from the interpreter.
//! 2. While it is held, nothing calls into Python and no Python object is created or dropped: arguments are converted
//!    to Rust values before, results to Python objects afterwards.
//! 3. A thread waits on a condition only while detached, and for at most [`SLICE`] before it checks for signals.
//! 4. All arguments from Python are checked; an illegal one raises and changes nothing. No argument causes a panic.

mod arguments;
mod atom_pickle;
mod batch;
mod claims;
mod daemon_call;
mod descriptor_check;
mod graph;
mod locked_scheduler;
mod name_index;
mod private_map;
mod records;
mod result_reader;
mod scheduler;
mod shared_atomics;
mod thread_call_loop;
mod worker_call_loop;

use std::time::Duration;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;

use crate::error::InvalidCall;

/// The longest time that a thread waits before it checks for signals.
const SLICE: Duration = Duration::from_millis(100);

#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::batch::Batch;
    #[pymodule_export]
    use super::claims::ClaimWords;
    #[pymodule_export]
    use super::descriptor_check::DescriptorCheck;
    #[pymodule_export]
    use super::graph::Graph;
    #[pymodule_export]
    use super::name_index::NameIndex;
    #[pymodule_export]
    use super::private_map::{PrivateMap, punch_hole};
    #[pymodule_export]
    use super::result_reader::ResultReader;
    #[pymodule_export]
    use super::scheduler::Scheduler;
    #[pymodule_export]
    use super::stub;
    #[pymodule_export]
    use super::thread_call_loop::{EndTimes, ThreadCallLoop};
    #[pymodule_export]
    use super::worker_call_loop::WorkerCallLoop;
}

/// The stub of this module, as of the time of the build.
static STUB: &[u8] = include_bytes!("../python/flowyml/_core.pyi");

#[pyfunction]
fn stub() -> &'static [u8] {
    STUB
}

fn refused(refusal: InvalidCall) -> PyErr {
    PyValueError::new_err(refusal.to_string())
}

fn no_such(what: &str, id: u32, count: u32) -> PyErr {
    PyIndexError::new_err(format!(
        "there is no {what} {id}: expected less than {count}"
    ))
}

/// Check that a time is a number that can be compared and added.
fn finite(name: &str, value: f64) -> PyResult<f64> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(PyValueError::new_err(format!(
            "{name} is {value}: expected a finite time in seconds"
        )))
    }
}

/// Copy an `array('I')` or any other buffer of 32-bit unsigned integers. The memory of an empty buffer is not read,
/// because its address may be unaligned.
fn ids(value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    if value.len()? == 0 {
        Ok(Vec::new())
    } else {
        PyBuffer::<u32>::get(value)?.to_vec(value.py())
    }
}
