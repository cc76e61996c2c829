//! `Scheduler`: the methods that Python sees. Each checks its arguments, calls the core once and converts the result.
//!
//! Longer methods are in modules of their own: how a scheduler is created and grows (`building`), calls that may wait
//! (`waiting`), arrays and ids (`reading`).

mod building;
mod reading;
mod waiting;

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::error::InvalidGraft;
use crate::graph::ItemId;
use crate::scheduler::{self as core, Choice, Graft, Outcomes, State};

use super::arguments::{Classes, bounds, finite_times, seconds};
use super::batch::Batch;
use super::graph::{Graph, edges, graph_error};
use super::locked_scheduler::LockedScheduler;
use super::{finite, no_such, refused};

/// The state machine of one run, for any number of threads.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct Scheduler(LockedScheduler);

#[pymethods]
impl Scheduler {
    #[new]
    #[pyo3(signature = (graph, *, order="critical_path", keep=None, limits=None, demands=None, classes=None, divided=None))]
    #[expect(clippy::too_many_arguments, reason = "one array each")]
    fn new(
        py: Python<'_>,
        graph: &Bound<'_, Graph>,
        order: &str,
        keep: Option<&[u8]>,
        limits: Option<&Bound<'_, PyAny>>,
        demands: Option<&Bound<'_, PyAny>>,
        classes: Option<Classes>,
        divided: Option<(u32, u32)>,
    ) -> PyResult<Self> {
        let order = building::order(order)?;
        let graph = Arc::clone(&graph.get().0);
        let limits = bounds(limits, demands, classes, divided)?;
        let core = py
            .detach(|| building::scheduler(graph, order, keep, &limits))
            .map_err(refused)?;
        Ok(Self(LockedScheduler::new(core)))
    }

    fn chain(&self, py: Python<'_>, mask: &[u8]) -> PyResult<()> {
        self.0.change(py, |core| core.chain(mask))
    }

    #[pyo3(signature = (worker, limit, now, timeout=0.0, most=0))]
    fn claim(
        &self,
        py: Python<'_>,
        worker: u16,
        limit: u32,
        now: f64,
        timeout: f64,
        most: u32,
    ) -> PyResult<Option<Batch>> {
        let now = finite("now", now)?;
        let timeout = seconds(timeout)?;
        if limit == 0 {
            return Err(PyValueError::new_err("limit is 0: expected at least 1"));
        }
        let claimed = waiting::claim(&self.0, py, worker, limit, most, now, timeout)?;
        Ok(claimed.map(|batch| Batch(Arc::new(batch))))
    }

    #[pyo3(signature = (batch, position, start, ends, outcomes=None))]
    fn complete(
        &self,
        py: Python<'_>,
        batch: &Bound<'_, Batch>,
        position: u32,
        start: f64,
        ends: &Bound<'_, PyAny>,
        outcomes: Option<&[u8]>,
    ) -> PyResult<()> {
        let (start, ends) = (finite("start", start)?, finite_times(ends)?);
        let outcomes = outcomes.map_or(Outcomes::Success, Outcomes::Each);
        let batch = &batch.get().0;
        self.0.change(py, |core| {
            core.complete(batch, position, start, &ends, outcomes)
        })
    }

    fn retry(
        &self,
        py: Python<'_>,
        batch: &Bound<'_, Batch>,
        position: u32,
        at: f64,
        now: f64,
    ) -> PyResult<()> {
        let (at, now) = (finite("at", at)?, finite("now", now)?);
        let batch = &batch.get().0;
        self.0
            .change(py, |core| core.retry(batch, position, at, now))?;
        self.0.delays_changed();
        Ok(())
    }

    fn give_back(
        &self,
        py: Python<'_>,
        batch: &Bound<'_, Batch>,
        position: u32,
        count: u32,
    ) -> PyResult<()> {
        let batch = &batch.get().0;
        self.0
            .change(py, |core| core.give_back(batch, position, count))
    }

    fn note(&self, py: Python<'_>, most: u32, window: f64, tiny: f64) -> PyResult<()> {
        let (window, tiny) = (seconds(window)?, seconds(tiny)?);
        self.0.note(py, most, window, tiny)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.0.close(py)
    }

    fn take_noted(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.0.take_noted(py)
    }

    fn keep_tokens(&self, py: Python<'_>, batch: &Bound<'_, Batch>) -> PyResult<()> {
        let batch = &batch.get().0;
        self.0.change(py, |core| core.keep_tokens(batch))
    }

    fn return_tokens(&self, py: Python<'_>, batch: &Bound<'_, Batch>) -> PyResult<()> {
        let batch = &batch.get().0;
        self.0.change(py, |core| core.return_tokens(batch))
    }

    #[pyo3(signature = (choice))]
    fn choose(&self, py: Python<'_>, choice: Option<(u32, Vec<u32>)>) -> PyResult<()> {
        let choice = choice.map(|(amount, devices)| Choice { amount, devices });
        self.0.change(py, |core| core.choose(choice))
    }

    fn device_needs(&self, py: Python<'_>) -> PyResult<Vec<(u32, u32)>> {
        self.0.look(py, core::Scheduler::device_needs)
    }

    fn free_on_devices(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.0.look(py, core::Scheduler::free_on_devices)
    }

    fn next_wakeup(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.0.look(py, core::Scheduler::next_delay)
    }

    fn advance(&self, py: Python<'_>, now: f64) -> PyResult<()> {
        let now = finite("now", now)?;
        self.0.change(py, |core| {
            core.advance(now);
            Ok(())
        })
    }

    fn cancel(&self, py: Python<'_>, now: f64) -> PyResult<()> {
        let now = finite("now", now)?;
        self.0.change(py, |core| {
            core.cancel(now);
            Ok(())
        })
    }

    fn cancel_node(&self, py: Python<'_>, node: u32, now: f64) -> PyResult<()> {
        let now = finite("now", now)?;
        let node = self.node(py, node)?;
        self.0.change(py, |core| {
            core.cancel_node(node, now);
            Ok(())
        })
    }

    fn give(&self, py: Python<'_>, node: u32) -> PyResult<()> {
        let node = self.node(py, node)?;
        self.0.change(py, |core| core.give(node))
    }

    fn tolerate(&self, py: Python<'_>, node: u32, failures: u32) -> PyResult<()> {
        let node = self.node(py, node)?;
        self.0.change(py, |core| core.tolerate(node, failures))
    }

    fn next_expandable(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        let node = self.0.change(py, |core| Ok(core.next_expandable()))?;
        Ok(node.map(|node| node.0))
    }

    fn expand(&self, py: Python<'_>, node: u32, count: u32, now: f64) -> PyResult<()> {
        let now = finite("now", now)?;
        let node = self.node(py, node)?;
        self.0.change(py, |core| {
            core.advance(now);
            core.expand(node, count)
        })
    }

    fn refuse(&self, py: Python<'_>, node: u32, state: u8, now: f64) -> PyResult<()> {
        let now = finite("now", now)?;
        let node = self.node(py, node)?;
        self.0.change(py, |core| {
            core.advance(now);
            core.refuse(node, state)
        })
    }

    #[pyo3(signature = (
        batch, position, now, counts, dependents, dependencies,
        elementwise=None, joins=None, awaited=None, *, keep=None, limits=None, demands=None, classes=None, divided=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "one array each")]
    fn graft(
        &self,
        py: Python<'_>,
        batch: &Bound<'_, Batch>,
        position: u32,
        now: f64,
        counts: &Bound<'_, PyAny>,
        dependents: &Bound<'_, PyAny>,
        dependencies: &Bound<'_, PyAny>,
        elementwise: Option<&[u8]>,
        joins: Option<&[u8]>,
        awaited: Option<&Bound<'_, PyAny>>,
        keep: Option<&[u8]>,
        limits: Option<&Bound<'_, PyAny>>,
        demands: Option<&Bound<'_, PyAny>>,
        classes: Option<Classes>,
        divided: Option<(u32, u32)>,
    ) -> PyResult<u32> {
        let now = finite("now", now)?;
        let edges = edges(dependents, dependencies, elementwise)?;
        let graft = Graft {
            nodes: building::addition(counts, edges, joins, awaited)?,
            keep: keep.map(<[u8]>::to_vec),
            limits: bounds(limits, demands, classes, divided)?,
        };
        let batch = &batch.get().0;
        let grafted = self.0.try_change(py, |core| {
            core.advance(now);
            core.graft(batch, position, now, &graft)
        })?;
        match grafted {
            Ok(first) => Ok(first.0),
            Err(InvalidGraft::Call(refusal)) => Err(refused(refusal)),
            Err(InvalidGraft::Graph(problems)) => Err(graph_error(py, problems)?),
        }
    }

    fn take_released(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        let items = self.0.change(py, |core| Ok(core.take_released()))?;
        Ok(items.into_iter().map(|item| item.0).collect())
    }

    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        waiting::wait_for_end(&self.0, py, seconds(timeout)?)
    }

    #[getter]
    fn finished(&self, py: Python<'_>) -> PyResult<bool> {
        self.0.look(py, core::Scheduler::is_finished)
    }

    #[getter]
    fn expandable(&self, py: Python<'_>) -> PyResult<u32> {
        self.0.look(py, core::Scheduler::expandable)
    }

    #[getter]
    fn stalled(&self, py: Python<'_>) -> PyResult<bool> {
        self.0.look(py, core::Scheduler::is_stalled)
    }

    #[getter]
    fn cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        self.0.look(py, core::Scheduler::is_cancelled)
    }

    #[getter]
    fn ready(&self, py: Python<'_>) -> PyResult<u32> {
        self.0.look(py, core::Scheduler::ready)
    }

    #[getter]
    fn parked(&self, py: Python<'_>) -> PyResult<u32> {
        self.0.look(py, core::Scheduler::parked)
    }

    #[getter]
    fn running(&self, py: Python<'_>) -> PyResult<u32> {
        self.0.look(py, |core| core.count_in(State::Running))
    }

    #[getter]
    fn unfinished(&self, py: Python<'_>) -> PyResult<u32> {
        self.0.look(py, core::Scheduler::unfinished)
    }

    #[getter]
    fn item_count(&self, py: Python<'_>) -> PyResult<u32> {
        self.0.look(py, core::Scheduler::item_count)
    }

    #[getter]
    fn node_count(&self, py: Python<'_>) -> PyResult<u32> {
        self.0.look(py, |core| core.graph().node_count())
    }

    fn dependencies(&self, py: Python<'_>, node: u32) -> PyResult<Vec<u32>> {
        let node = self.node(py, node)?;
        self.0
            .look(py, |core| reading::ends(core.graph().dependencies(node)))
    }

    fn dependents(&self, py: Python<'_>, node: u32) -> PyResult<Vec<u32>> {
        let node = self.node(py, node)?;
        self.0
            .look(py, |core| reading::ends(core.graph().dependents(node)))
    }

    fn group(&self, py: Python<'_>, node: u32) -> PyResult<Vec<u32>> {
        let node = self.node(py, node)?;
        self.0.look(py, |core| core.graph().group(node))
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.named_counts(py)
    }

    fn state(&self, py: Python<'_>, item: u32) -> PyResult<u8> {
        let (state, count) = self
            .0
            .look(py, |core| (core.state(ItemId(item)), core.item_count()))?;
        state
            .map(|state| state as u8)
            .ok_or_else(|| no_such("item", item, count))
    }

    fn node_state(&self, py: Python<'_>, node: u32) -> PyResult<u8> {
        let node = self.node(py, node)?;
        self.0.look(py, |core| core.node_state(node) as u8)
    }

    fn states<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(py, |timeline| &timeline.states, |state| [*state as u8])
    }

    fn attempts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(py, |timeline| &timeline.attempts, |attempts| [*attempts])
    }

    fn workers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(
            py,
            |timeline| &timeline.workers,
            |worker| worker.to_ne_bytes(),
        )
    }

    fn starts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(py, |timeline| &timeline.starts, |start| start.to_ne_bytes())
    }

    fn ends<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(py, |timeline| &timeline.ends, |end| end.to_ne_bytes())
    }

    fn locate(&self, py: Python<'_>, item: u32) -> PyResult<(u32, u32)> {
        let (place, count) = self
            .0
            .look(py, |core| (core.locate(ItemId(item)), core.item_count()))?;
        place
            .map(|(node, index)| (node.0, index))
            .ok_or_else(|| no_such("item", item, count))
    }

    fn first_item(&self, py: Python<'_>, node: u32) -> PyResult<u32> {
        let node = self.node(py, node)?;
        self.0.look(py, |core| core.first_item(node).0)
    }

    fn count(&self, py: Python<'_>, node: u32) -> PyResult<u32> {
        let node = self.node(py, node)?;
        self.0.look(py, |core| core.count(node))
    }
}

impl Scheduler {
    pub(super) fn shared(&self) -> &LockedScheduler {
        &self.0
    }
}
