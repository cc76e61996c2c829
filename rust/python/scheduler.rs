//! `Scheduler` and `Batch`: the state machine behind one mutex, with two conditions to wait for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::error::Refusal;
use crate::graph::{ItemId, NodeId};
use crate::scheduler::{self as core, Order, Outcomes, State, Timeline};

use super::graph::Graph;
use super::{SLICE, finite, no_such, refused};

/// What one worker claimed at once.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct Batch(core::Batch);

#[pymethods]
impl Batch {
    #[getter]
    fn worker(&self) -> u16 {
        self.0.worker()
    }

    #[getter]
    fn runs(&self) -> Vec<(u32, u32, u32, Option<u32>)> {
        self.0.runs().iter().map(|run| (run.item.0, run.count, run.node.0, run.index)).collect()
    }

    fn __len__(&self) -> usize {
        self.0.len() as usize
    }

    fn items(&self) -> Vec<u32> {
        self.0.items().map(|item| item.0).collect()
    }
}

/// The state machine of one run, for any number of threads.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct Scheduler {
    shared: Mutex<Shared>,
    /// Something may be ready, or all is over: for threads in `claim`.
    work: Condvar,
    /// All is over: for threads in `wait`.
    end: Condvar,
}

struct Shared {
    core: core::Scheduler,
    /// Threads that wait in `claim`.
    claimers: u32,
    /// Threads that wait in `wait`.
    watchers: u32,
}

#[pymethods]
impl Scheduler {
    #[new]
    #[pyo3(signature = (graph, *, order="critical_path", keep=None))]
    fn new(py: Python<'_>, graph: &Bound<'_, Graph>, order: &str, keep: Option<&[u8]>) -> PyResult<Self> {
        let order = match order {
            "critical_path" => Order::CriticalPath,
            "add" => Order::Add,
            _ => return Err(PyValueError::new_err(format!("order is {order:?}: expected 'critical_path' or 'add'"))),
        };
        let graph = Arc::clone(&graph.get().0);
        let core = py.detach(|| core::Scheduler::new(graph, order, keep)).map_err(refused)?;
        let shared = Mutex::new(Shared { core, claimers: 0, watchers: 0 });
        Ok(Self { shared, work: Condvar::new(), end: Condvar::new() })
    }

    #[pyo3(signature = (worker, limit, now, timeout=0.0))]
    fn claim(&self, py: Python<'_>, worker: u16, limit: u32, now: f64, timeout: f64) -> PyResult<Option<Batch>> {
        let now = finite("now", now)?;
        let timeout = seconds(timeout)?;
        if limit == 0 {
            return Err(PyValueError::new_err("limit is 0: expected at least 1"));
        }
        let mut waited = 0.0;
        let begun = (timeout > 0.0).then(Instant::now);
        loop {
            let claimed = self.change(py, |core| Ok((core.claim(worker, limit, now + waited), core.is_finished())))?;
            match claimed {
                (Some(batch), _) => return Ok(Some(Batch(batch))),
                (None, true) => return Ok(None),
                (None, false) if waited >= timeout => return Ok(None),
                (None, false) => self.wait_for_work(py, now + waited, timeout - waited)?,
            }
            waited = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        }
    }

    #[pyo3(signature = (batch, position, start, ends, outcomes=None))]
    fn complete(&self, py: Python<'_>, batch: &Bound<'_, Batch>, position: u32, start: f64, ends: &Bound<'_, PyAny>, outcomes: Option<&[u8]>) -> PyResult<()> {
        let ends = times(ends)?;
        let outcomes = outcomes.map_or(Outcomes::Success, Outcomes::Each);
        let batch = &batch.get().0;
        self.change(py, |core| core.complete(batch, position, start, &ends, outcomes))
    }

    fn retry(&self, py: Python<'_>, batch: &Bound<'_, Batch>, position: u32, at: f64, now: f64) -> PyResult<()> {
        let (at, now) = (finite("at", at)?, finite("now", now)?);
        let batch = &batch.get().0;
        self.change(py, |core| core.retry(batch, position, at, now))?;
        // A thread that waits for a later delay has to look again.
        self.work.notify_one();
        Ok(())
    }

    fn give_back(&self, py: Python<'_>, batch: &Bound<'_, Batch>, position: u32, count: u32) -> PyResult<()> {
        let batch = &batch.get().0;
        self.change(py, |core| core.give_back(batch, position, count))
    }

    fn set_deadline(&self, py: Python<'_>, item: u32, at: f64) -> PyResult<()> {
        self.change(py, |core| core.set_deadline(ItemId(item), at))
    }

    fn expired(&self, py: Python<'_>, now: f64) -> PyResult<Vec<u32>> {
        let now = finite("now", now)?;
        let expired = self.change(py, |core| Ok(core.expired(now)))?;
        Ok(expired.into_iter().map(|item| item.0).collect())
    }

    fn next_wakeup(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.look(py, core::Scheduler::next_wakeup)
    }

    fn advance(&self, py: Python<'_>, now: f64) -> PyResult<()> {
        let now = finite("now", now)?;
        self.change(py, |core| {
            core.advance(now);
            Ok(())
        })
    }

    fn cancel(&self, py: Python<'_>, now: f64) -> PyResult<()> {
        let now = finite("now", now)?;
        self.change(py, |core| {
            core.cancel(now);
            Ok(())
        })
    }

    fn take_expandable(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        let nodes = self.change(py, |core| Ok(core.take_expandable()))?;
        Ok(nodes.into_iter().map(|node| node.0).collect())
    }

    fn expand(&self, py: Python<'_>, node: u32, count: u32, now: f64) -> PyResult<()> {
        let now = finite("now", now)?;
        let node = self.node(py, node)?;
        self.change(py, |core| {
            core.advance(now);
            core.expand(node, count)
        })
    }

    fn take_released(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        let items = self.change(py, |core| Ok(core.take_released()))?;
        Ok(items.into_iter().map(|item| item.0).collect())
    }

    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let timeout = seconds(timeout)?;
        let begun = Instant::now();
        loop {
            let left = timeout - begun.elapsed().as_secs_f64();
            if self.finished(py)? || left <= 0.0 {
                return self.finished(py);
            }
            py.detach(|| self.wait_for_end(slice(left)));
            py.check_signals()?;
        }
    }

    #[getter]
    fn finished(&self, py: Python<'_>) -> PyResult<bool> {
        self.look(py, core::Scheduler::is_finished)
    }

    #[getter]
    fn cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        self.look(py, core::Scheduler::is_cancelled)
    }

    #[getter]
    fn ready(&self, py: Python<'_>) -> PyResult<u32> {
        self.look(py, |core| core.count_in(State::Ready))
    }

    #[getter]
    fn running(&self, py: Python<'_>) -> PyResult<u32> {
        self.look(py, |core| core.count_in(State::Running))
    }

    #[getter]
    fn unfinished(&self, py: Python<'_>) -> PyResult<u32> {
        self.look(py, core::Scheduler::unfinished)
    }

    #[getter]
    fn item_count(&self, py: Python<'_>) -> PyResult<u32> {
        self.look(py, core::Scheduler::item_count)
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.look(py, core::Scheduler::counts)?;
        let named = PyDict::new(py);
        for (state, count) in State::ALL.into_iter().zip(counts) {
            named.set_item(state.name(), count)?;
        }
        Ok(named)
    }

    fn state(&self, py: Python<'_>, item: u32) -> PyResult<u8> {
        let (state, count) = self.look(py, |core| (core.state(ItemId(item)), core.item_count()))?;
        state.map(|state| state as u8).ok_or_else(|| no_such("item", item, count))
    }

    fn node_state(&self, py: Python<'_>, node: u32) -> PyResult<u8> {
        let node = self.node(py, node)?;
        self.look(py, |core| core.node_state(node) as u8)
    }

    fn states<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(py, |timeline| &timeline.states, |state| [*state as u8])
    }

    fn attempts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(py, |timeline| &timeline.attempts, |attempts| [*attempts])
    }

    fn workers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(py, |timeline| &timeline.workers, |worker| worker.to_ne_bytes())
    }

    fn starts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(py, |timeline| &timeline.starts, |start| start.to_ne_bytes())
    }

    fn ends<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.export(py, |timeline| &timeline.ends, |end| end.to_ne_bytes())
    }

    fn locate(&self, py: Python<'_>, item: u32) -> PyResult<(u32, u32)> {
        let (place, count) = self.look(py, |core| (core.locate(ItemId(item)), core.item_count()))?;
        place.map(|(node, index)| (node.0, index)).ok_or_else(|| no_such("item", item, count))
    }

    fn first_item(&self, py: Python<'_>, node: u32) -> PyResult<u32> {
        let node = self.node(py, node)?;
        self.look(py, |core| core.first_item(node).0)
    }

    fn count(&self, py: Python<'_>, node: u32) -> PyResult<u32> {
        let node = self.node(py, node)?;
        self.look(py, |core| core.count(node))
    }
}

impl Scheduler {
    fn lock<'a>(&'a self, py: Python<'_>) -> PyResult<MutexGuard<'a, Shared>> {
        match self.shared.lock_py_attached(py) {
            Ok(shared) => Ok(shared),
            Err(poisoned) => {
                drop(poisoned);
                Err(PyRuntimeError::new_err("an earlier call panicked, so the state of the run is not known"))
            }
        }
    }

    fn look<T>(&self, py: Python<'_>, ask: impl FnOnce(&core::Scheduler) -> T) -> PyResult<T> {
        Ok(ask(&self.lock(py)?.core))
    }

    /// Call the core, and wake the threads for which the call made something to do.
    fn change<T>(&self, py: Python<'_>, act: impl FnOnce(&mut core::Scheduler) -> Result<T, Refusal>) -> PyResult<T> {
        let mut shared = self.lock(py)?;
        let result = act(&mut shared.core);
        let (claimers, watchers) = shared.to_wake();
        drop(shared);
        (0..claimers).for_each(|_| self.work.notify_one());
        if watchers {
            self.end.notify_all();
        }
        result.map_err(refused)
    }

    /// Wait until something may be ready: at most `left` seconds, at most a slice, at most until the next delay is over.
    fn wait_for_work(&self, py: Python<'_>, now: f64, left: f64) -> PyResult<()> {
        py.detach(|| {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.core.count_in(State::Ready) > 0 || shared.core.is_finished() {
                return;
            }
            let left = shared.core.next_delay().map_or(left, |at| left.min(at - now));
            shared.claimers += 1;
            let woken = self.work.wait_timeout(shared, slice(left));
            woken.unwrap_or_else(PoisonError::into_inner).0.claimers -= 1;
        });
        py.check_signals()
    }

    /// Wait until all is over, for at most `slice`. Only while detached.
    fn wait_for_end(&self, slice: Duration) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if !shared.core.is_finished() {
            shared.watchers += 1;
            let woken = self.end.wait_timeout(shared, slice);
            woken.unwrap_or_else(PoisonError::into_inner).0.watchers -= 1;
        }
    }

    /// Copy one array of the timeline. The object is made first and filled under the lock.
    fn export<'py, T, const N: usize>(
        &self,
        py: Python<'py>,
        array: impl Fn(&Timeline) -> &Vec<T>,
        bytes: impl Fn(&T) -> [u8; N],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let items = self.look(py, |core| core.item_count() as usize)?;
        PyBytes::new_with(py, items * N, |out| {
            let shared = self.lock(py)?;
            for (to, from) in out.chunks_exact_mut(N).zip(array(shared.core.timeline())) {
                to.copy_from_slice(&bytes(from));
            }
            Ok(())
        })
    }

    fn node(&self, py: Python<'_>, node: u32) -> PyResult<NodeId> {
        let count = self.look(py, |core| core.graph().node_count())?;
        if node < count { Ok(NodeId(node)) } else { Err(no_such("node", node, count)) }
    }
}

impl Shared {
    /// Return how many claimers have something to do, and whether watchers have.
    fn to_wake(&self) -> (u32, bool) {
        let finished = self.core.is_finished();
        let claimers = if finished { self.claimers } else { self.claimers.min(self.core.count_in(State::Ready)) };
        (claimers, finished && self.watchers > 0)
    }
}

/// Check a timeout, which may be infinite.
fn seconds(timeout: f64) -> PyResult<f64> {
    if timeout >= 0.0 { Ok(timeout) } else { Err(PyValueError::new_err(format!("timeout is {timeout}: expected seconds, 0 or more"))) }
}

fn slice(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, SLICE.as_secs_f64()))
}

/// Copy times from a list or a buffer of doubles.
fn times(values: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    if values.is_instance_of::<PyList>() {
        return values.extract();
    }
    match PyBuffer::<f64>::get(values) {
        Ok(buffer) => buffer.to_vec(values.py()),
        Err(_) => values.extract(),
    }
}
