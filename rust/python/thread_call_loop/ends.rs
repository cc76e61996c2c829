//! `EndTimes`: when the steps of a batch ended, in order. One thread adds, any may read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PySlice;

use crate::python::finite;

/// Times, as a sequence that grows up to a fixed length.
#[pyclass(frozen, sequence, module = "flowyml._core")]
#[derive(Clone)]
pub(crate) struct EndTimes(Arc<Times>);

struct Times {
    /// The times as bits.
    bits: Box<[AtomicU64]>,
    count: AtomicU32,
}

#[pymethods]
impl EndTimes {
    fn __len__(&self) -> usize {
        self.len() as usize
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (py, count) = (index.py(), self.len());
        if let Ok(slice) = index.cast::<PySlice>() {
            let found = slice.indices((count as usize).cast_signed())?;
            let times = self.times(0, count);
            let places = (0..found.slicelength.cast_signed()).map(|k| found.start + k * found.step);
            let chosen = places.map(|place| times[place.cast_unsigned()]).collect();
            return Ok(Bound::new(py, Self::of(chosen))?.into_any());
        }
        let at: i64 = index.extract()?;
        let from_start = if at < 0 { at + i64::from(count) } else { at };
        let time = u32::try_from(from_start).ok().and_then(|at| self.at(at));
        match time {
            Some(time) => Ok(time.into_pyobject(py)?.into_any()),
            None => Err(PyIndexError::new_err("no such end")),
        }
    }

    fn append(&self, time: f64) -> PyResult<()> {
        if self.len() as usize == self.0.bits.len() {
            return Err(PyIndexError::new_err("all steps have ended already"));
        }
        self.push(finite("time", time)?);
        Ok(())
    }
}

impl EndTimes {
    pub(super) fn new(capacity: u32) -> Self {
        Self(Arc::new(Times {
            bits: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU32::new(0),
        }))
    }

    pub(super) fn len(&self) -> u32 {
        self.0.count.load(Ordering::Acquire)
    }

    /// Add a time; beyond the fixed length it is dropped.
    pub(super) fn push(&self, time: f64) {
        let count = self.0.count.load(Ordering::Relaxed);
        if let Some(bits) = self.0.bits.get(count as usize) {
            bits.store(time.to_bits(), Ordering::Relaxed);
            self.0.count.store(count + 1, Ordering::Release);
        }
    }

    pub(super) fn at(&self, index: u32) -> Option<f64> {
        let within = index < self.len();
        within.then(|| f64::from_bits(self.0.bits[index as usize].load(Ordering::Relaxed)))
    }

    /// Return the recorded times between two positions.
    pub(in crate::python) fn times(&self, first: u32, last: u32) -> Vec<f64> {
        let last = last.min(self.len());
        self.0.bits[first.min(last) as usize..last as usize]
            .iter()
            .map(|bits| f64::from_bits(bits.load(Ordering::Relaxed)))
            .collect()
    }

    pub(in crate::python) fn all(&self) -> Vec<f64> {
        self.times(0, self.len())
    }

    pub(super) fn part(&self, first: u32, last: u32) -> Self {
        Self::of(self.times(first, last))
    }

    fn of(times: Vec<f64>) -> Self {
        let bits: Box<[AtomicU64]> = times
            .into_iter()
            .map(|time| AtomicU64::new(time.to_bits()))
            .collect();
        let count = AtomicU32::new(bits.len() as u32);
        Self(Arc::new(Times { bits, count }))
    }
}
