//! Queries about a run: arrays of its timeline, and ids that are checked before the core is called.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::graph::{Kind, NodeId};
use crate::scheduler::{self as core, State, Timeline};

use super::Scheduler;
use crate::python::no_such;

/// Return the other ends of edges.
pub(super) fn ends(edges: impl Iterator<Item = (NodeId, Kind)>) -> Vec<u32> {
    edges.map(|(other, _)| other.0).collect()
}

impl Scheduler {
    /// Return how many items are in each state, by its name.
    pub(super) fn named_counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.0.look(py, core::Scheduler::counts)?;
        let named = PyDict::new(py);
        for (state, count) in State::ALL.into_iter().zip(counts) {
            named.set_item(state.name(), count)?;
        }
        Ok(named)
    }

    /// Copy one array of the timeline. The object is created first and filled under the lock.
    pub(super) fn export<'py, T, const N: usize>(
        &self,
        py: Python<'py>,
        array: impl Fn(&Timeline) -> &Vec<T>,
        bytes: impl Fn(&T) -> [u8; N],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let items = self.0.look(py, |core| core.item_count() as usize)?;
        PyBytes::new_with(py, items * N, |out| {
            self.0.look(py, |core| {
                for (to, from) in out.chunks_exact_mut(N).zip(array(core.timeline())) {
                    to.copy_from_slice(&bytes(from));
                }
            })
        })
    }

    pub(super) fn node(&self, py: Python<'_>, node: u32) -> PyResult<NodeId> {
        let count = self.0.look(py, |core| core.graph().node_count())?;
        if node < count {
            Ok(NodeId(node))
        } else {
            Err(no_such("node", node, count))
        }
    }
}
