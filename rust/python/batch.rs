//! `Batch`: what one worker claimed, as plain tuples.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::scheduler as core;

use super::no_such;

/// What one worker claimed at once.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct Batch(pub(super) Arc<core::Batch>);

#[pymethods]
impl Batch {
    #[getter]
    fn worker(&self) -> u16 {
        self.0.worker()
    }

    #[getter]
    fn runs(&self) -> Vec<(u32, u32, u32, Option<u32>)> {
        self.0
            .runs()
            .iter()
            .map(|run| (run.item.0, run.count, run.node.0, run.index))
            .collect()
    }

    #[getter]
    fn limited(&self) -> bool {
        self.0.limited()
    }

    fn __len__(&self) -> usize {
        self.0.len() as usize
    }

    #[getter]
    fn heads(&self) -> u32 {
        self.0.heads()
    }

    #[getter]
    fn restless(&self) -> bool {
        self.0.restless()
    }

    fn is_chained(&self, position: u32) -> bool {
        self.0.is_chained(position)
    }

    fn next_head(&self, position: u32) -> u32 {
        self.0.next_head(position)
    }

    fn head_at(&self, position: u32) -> u32 {
        self.0.head_at(position)
    }

    fn item(&self, position: u32) -> PyResult<u32> {
        let found = self.0.at(position).map(|(item, _)| item.0);
        found.ok_or_else(|| no_such("position", position, self.0.len()))
    }

    fn items(&self) -> Vec<u32> {
        self.0.items().map(|item| item.0).collect()
    }
}
