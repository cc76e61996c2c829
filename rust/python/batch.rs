//! `Batch`: the items that one worker claimed, as plain tuples; and the values that its steps read, looked up in one
//! call.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyEllipsis, PyInt, PyList, PyTuple};

use crate::scheduler as core;

use super::no_such;
use super::records::Atom;

/// The items that one worker claimed at once.
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

    #[getter]
    fn devices(&self) -> Vec<u32> {
        self.0.devices().collect()
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

    /// The number of leading items of which each chained one reads the item before it.
    fn handed_on(&self, references: &Bound<'_, PyDict>) -> PyResult<u32> {
        let mut before = None;
        for (position, item, node) in places(&self.0, 0) {
            if self.0.is_chained(position) {
                let read = references.get_item(node)?;
                let reads = match &read {
                    Some(read) => read
                        .cast::<PyTuple>()?
                        .iter()
                        .any(|it| number(&it) == before),
                    None => false,
                };
                if !reads || before.is_none() {
                    return Ok(position);
                }
            }
            before = Some(item);
        }
        Ok(self.0.len())
    }

    /// The first value that each of some items reads: `...` if it is that of the item before it, to which it is
    /// chained; `None` if one reads something other than a step, or a value that is not an atom.
    fn first_read<'py>(
        &self,
        py: Python<'py>,
        position: u32,
        count: u32,
        references: &Bound<'py, PyDict>,
        values: &Bound<'py, PyList>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let mut found = Vec::with_capacity(count.min(self.0.len()) as usize);
        let mut before = position
            .checked_sub(1)
            .and_then(|at| self.0.at(at))
            .map(|(item, _)| item.0);
        for (position, item, node) in places(&self.0, position).take(count as usize) {
            let Some(read) = references.get_item(node)? else {
                return Ok(None);
            };
            let Some(reference) = number(&read.cast::<PyTuple>()?.get_item(0)?) else {
                return Ok(None);
            };
            if before == Some(reference) && self.0.is_chained(position) {
                found.push(PyEllipsis::get(py).to_owned().into_any());
            } else {
                let value = values.get_item(reference as usize)?;
                if Atom::of(&value).is_none() {
                    return Ok(None);
                }
                found.push(value);
            }
            before = Some(item);
        }
        PyList::new(py, found).map(Some)
    }
}

/// Position, item and node of all items from a position on.
fn places(batch: &core::Batch, from: u32) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
    let runs = batch
        .runs()
        .iter()
        .filter(move |run| run.position + run.count > from);
    runs.flat_map(move |run| {
        let first = from.saturating_sub(run.position);
        (first..run.count).map(move |k| {
            let node = run.node.0 + if run.index.is_none() { k } else { 0 };
            (run.position + k, run.item.0 + k, node)
        })
    })
}

/// The item to which a reference points, if it is a plain one.
fn number(reference: &Bound<'_, PyAny>) -> Option<u32> {
    reference.cast_exact::<PyInt>().ok()?.extract().ok()
}
