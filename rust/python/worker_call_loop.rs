//! `WorkerCallLoop`: the innermost loop of a worker process, for steps of one argument that return a small value.
//!
//! ```text
//!   take(slot) ──▶ function(argument) ──▶ encode ──▶ put(result) ──▶ take(next slot)
//!                        │ raised, returned something large, or did something to the process
//!                        └──▶ back to `worker.py`, which handles it and continues after it
//! ```
//!
//! A step that does nothing costs its worker 0.15 us here; the same in Python, with a send for each result, took 2.3
//! us. A value that is not an atom is pickled before it is written (see `records.rs`): returning to Python for it made
//! a step that returns a small tuple cost 12 us more.
//! After each step all its side effects on the process are undone before the next one begins. Detecting them takes
//! system calls (the files behind fd 0 to 2, the working directory), which take longer than the shortest steps. A step
//! that was faster than a built-in function that makes the cheapest system call cannot have made one, so no check is
//! needed ([`WorkerCallLoop::probe`]). Both are timed in the same way, with the clock read right before the call:
//! including the time between two steps made every step of a map over a `range` look suspicious, which cost five system
//! calls a step.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::exceptions::PyIndexError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyEllipsis, PyIterator, PyList, PySlice, PyString};

use crate::result_ring::{CorruptRing, ResultRing};

use super::claims::ClaimWords;
use super::daemon_call::held_call_one;
use super::descriptor_check::{self, DescriptorCheck};
use super::records::{Atom, Encoder, Previous, put_measured, put_pickle};
use super::result_reader::{PARTS, no_ring, ring_words};
use super::shared_atomics::SharedAtomics;

/// No slot: slot numbers are never reused and never reach this one.
const NO_SLOT: u64 = u64::MAX;
/// How often the cheapest system call is timed; the shortest time counts.
const TRIALS: usize = 8;
/// Seconds after which it is timed again: the speed of a machine changes.
const LATELY: f64 = 0.001;

/// Calls steps, and knows which one runs.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct WorkerCallLoop {
    claims: Py<ClaimWords>,
    words: SharedAtomics,
    /// The descriptor that wakes the driver: a worker that has lost it is lost, and its step is the reason.
    line: DescriptorCheck,
    /// The step that runs, or ran last.
    slot: AtomicU64,
    /// Output was written to the streams since the last step ended.
    written: AtomicBool,
    /// This process is a child that a step has forked.
    forked: AtomicBool,
    /// A built-in function that makes the cheapest system call.
    probe: Py<PyAny>,
    /// The shortest recent time in seconds that it took, as bits: any step that makes a system call takes at least
    /// that.
    floor: AtomicU64,
    /// When that was measured, in seconds, as bits.
    measured: AtomicU64,
}

/// The outcome of the step at which the loop was left.
const RETURNED: u8 = 0;
const RAISED: u8 = 1;
/// It needs the value of the previous step, and there is none.
const UNCHAINED: u8 = 2;
/// No step was called: there are no more, or the next needs a value that is not loaded here. The value is that of the
/// previous step.
const DONE: u8 = 3;
/// Its return value was encoded and did not go into the ring: the encoder's result.
const ENCODED: u8 = 4;

/// Where the loop was left: position, outcome of the step, its return value or exception, its start.
type Left<'py> = (usize, u8, Bound<'py, PyAny>, f64);

#[pymethods]
impl WorkerCallLoop {
    #[new]
    fn new(
        py: Python<'_>,
        claims: Py<ClaimWords>,
        buffer: &Bound<'_, PyAny>,
        probe: Py<PyAny>,
        line: i32,
    ) -> PyResult<Self> {
        let caller = Self {
            line: DescriptorCheck::of(vec![line]),
            probe,
            claims,
            words: ring_words(buffer)?,
            slot: AtomicU64::new(NO_SLOT),
            written: AtomicBool::new(false),
            forked: AtomicBool::new(false),
            floor: AtomicU64::new(0),
            measured: AtomicU64::new(0),
        };
        caller.measure_floor(py)?;
        Ok(caller)
    }

    #[getter]
    fn slot(&self) -> Option<u64> {
        Some(self.slot.load(Ordering::Relaxed)).filter(|slot| *slot != NO_SLOT)
    }

    #[setter]
    fn set_slot(&self, slot: u64) {
        self.slot.store(slot, Ordering::Relaxed);
    }

    #[getter]
    fn written(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_written(&self, written: bool) {
        self.written.store(written, Ordering::Relaxed);
    }

    #[getter]
    fn forked(&self) -> bool {
        self.forked.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_forked(&self, forked: bool) {
        self.forked.store(forked, Ordering::Relaxed);
    }

    #[getter]
    fn floor(&self) -> f64 {
        f64::from_bits(self.floor.load(Ordering::Relaxed))
    }

    /// Write one result; false if it is not small, there is no room, or the connection to the driver is closed.
    #[pyo3(signature = (slot, start, end, value, usage=None))]
    fn put(
        &self,
        slot: u64,
        start: f64,
        end: f64,
        value: &Bound<'_, PyAny>,
        usage: Option<(f64, Option<u64>)>,
    ) -> PyResult<bool> {
        let times = (start, end);
        let ring = self.ring()?;
        if !self.line.unchanged() {
            return Ok(false);
        }
        if let Some((cpu, memory)) = usage {
            let used = (cpu, memory.unwrap_or(0));
            return Ok(put_measured(ring, slot, times, value, used));
        }
        Ok(match value.cast_exact::<PyBytes>() {
            Ok(pickle) => put_pickle(ring, slot, times, pickle),
            Err(_) => Atom::of(value).is_some_and(|atom| atom.put(ring, slot, times)),
        })
    }

    /// Write the values of several declared outputs; false as in `put`.
    fn put_parts(&self, slot: u64, start: f64, end: f64, parts: &[u8]) -> PyResult<bool> {
        Ok(self.line.unchanged() && self.ring()?.put(slot, PARTS, (start, end), parts))
    }

    fn must_wake(&self, at_end: bool) -> PyResult<bool> {
        Ok(self.ring()?.must_wake(at_end))
    }

    /// Call the steps from `position` on until one needs other treatment; return where the loop was left.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is called, and who is asked"
    )]
    fn run<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyAny>,
        position: usize,
        slot: u64,
        files: &Bound<'py, DescriptorCheck>,
        directory: Option<i32>,
        stdout: &Bound<'py, PyAny>,
        stderr: &Bound<'py, PyAny>,
        wake: &Bound<'py, PyAny>,
        encode: Option<&Bound<'py, PyAny>>,
        previous: Bound<'py, PyAny>,
    ) -> PyResult<Left<'py>> {
        let (claims, ring) = (self.claims.get().claims(), self.ring()?);
        let process = Process {
            caller: self,
            files: files.get(),
            directory,
            streams: Streams::new(py, stdout, stderr)?,
            floor: self.measure_floor(py)?,
        };
        let encoder = Encoder::new(py, encode)?;
        let mut previous = Previous::given(previous);
        let mut calls = Arguments::from(arguments, position)?;
        let count = arguments.len()?;
        for at in position..count {
            let slot = slot + (at - position) as u64;
            let mut argument = calls.next(at)?;
            let chained = argument.is(PyEllipsis::get(py));
            if chained && previous.is_opaque() {
                return Ok((at, DONE, previous.into_value(py), now()));
            }
            let start = now();
            if !claims.take(slot, start) {
                previous = Previous::None;
                continue;
            }
            self.slot.store(slot, Ordering::Relaxed);
            if chained {
                argument = match previous {
                    Previous::Atom(value) => value,
                    Previous::Small(pickle) => encoder.load(pickle)?,
                    _ => return Ok((at, UNCHAINED, argument, start)),
                };
            }
            let returned = match held_call_one(function, &argument) {
                Ok(returned) => returned,
                Err(error) => {
                    let raised = error.into_value(py).into_bound(py).into_any();
                    return Ok((at, RAISED, raised, start));
                }
            };
            match process.deliver(ring, &encoder, slot, start, returned)? {
                Ok(value) => previous = value,
                Err((what, value)) => return Ok((at, what, value, start)),
            }
            if ring.must_wake(false) {
                wake.call0()?;
            }
        }
        Ok((count, DONE, previous.into_value(py), now()))
    }
}

impl WorkerCallLoop {
    fn ring(&self) -> PyResult<ResultRing<'_>> {
        ResultRing::new(self.words.get()).map_err(|CorruptRing| no_ring())
    }

    /// Time the probe as a step is timed, unless that was done recently. It is called without a function around it and
    /// does nothing else, so a step that makes any system call takes longer, usually by half.
    fn measure_floor(&self, py: Python<'_>) -> PyResult<f64> {
        let begun = now();
        if begun - f64::from_bits(self.measured.load(Ordering::Relaxed)) < LATELY {
            return Ok(self.floor());
        }
        let (mut floor, mut start) = (f64::INFINITY, begun);
        for _ in 0..TRIALS {
            self.probe.call1(py, (0,))?;
            let end = now();
            floor = floor.min(end - start);
            start = end;
        }
        self.floor.store(floor.to_bits(), Ordering::Relaxed);
        self.measured.store(start.to_bits(), Ordering::Relaxed);
        Ok(floor)
    }
}

/// The parts of the process that a step may have changed.
struct Process<'a, 'py> {
    caller: &'a WorkerCallLoop,
    files: &'a DescriptorCheck,
    /// The descriptor of the directory in which steps run, if there is one.
    directory: Option<i32>,
    streams: Streams<'a, 'py>,
    /// A step that took less time has made no system call.
    floor: f64,
}

impl<'py> Process<'_, 'py> {
    /// Write the return value of a step; return it in the form that the next step takes, or unchanged if the loop must
    /// be left.
    fn deliver(
        &self,
        ring: ResultRing<'_>,
        encoder: &Encoder<'_, 'py>,
        slot: u64,
        start: f64,
        returned: Bound<'py, PyAny>,
    ) -> PyResult<Result<Previous<'py>, (u8, Bound<'py, PyAny>)>> {
        let end = now();
        if let Some(atom) = Atom::of(&returned) {
            let times = (start, end);
            if self.is_clean(times)? && atom.put(ring, slot, times) {
                return Ok(Ok(Previous::Atom(returned)));
            }
            return Ok(Err((RETURNED, returned)));
        }
        // What a child of the step would do here does not concern this process.
        let sent = if self.caller.forked() {
            None
        } else {
            encoder.encode(&returned)?
        };
        let Some(sent) = sent else {
            return Ok(Err((RETURNED, returned)));
        };
        drop(returned);
        let times = (start, now());
        // Pickling a small value calls no code of the user, so it is not part of the time in which the step could have
        // changed the process.
        let in_doubt = if sent.is_small() { (start, end) } else { times };
        if self.is_clean(in_doubt)? && sent.put(ring, slot, times) {
            return Ok(Ok(sent.into()));
        }
        Ok(Err((ENCODED, sent.into_value())))
    }

    /// Return true if nothing must be restored after a step; change back to the directory.
    fn is_clean(&self, (start, end): (f64, f64)) -> PyResult<bool> {
        Ok(!self.caller.written.load(Ordering::Relaxed)
            && self.streams.are_ours()?
            && (end - start < self.floor
                || self.files.unchanged()
                    && self.caller.line.unchanged()
                    && self.directory.is_none_or(descriptor_check::enter))
            && !self.caller.forked.load(Ordering::Relaxed))
    }
}

/// The arguments of the steps, one after the other.
enum Arguments<'a, 'py> {
    List(&'a Bound<'py, PyList>),
    /// Of a range: looking up its items by index takes longer than the shortest steps.
    Others(Bound<'py, PyIterator>),
}

impl<'a, 'py> Arguments<'a, 'py> {
    fn from(arguments: &'a Bound<'py, PyAny>, position: usize) -> PyResult<Self> {
        if let Ok(list) = arguments.cast_exact::<PyList>() {
            return Ok(Self::List(list));
        }
        let from = position.cast_signed();
        let rest = PySlice::new(arguments.py(), from, isize::MAX, 1);
        Ok(Self::Others(arguments.get_item(rest)?.try_iter()?))
    }

    /// The argument at a position; positions must be requested in order.
    fn next(&mut self, at: usize) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::List(list) => list.get_item(at),
            Self::Others(iterator) => iterator.next().unwrap_or_else(|| Err(too_few())),
        }
    }
}

fn too_few() -> PyErr {
    PyIndexError::new_err("there are fewer arguments than steps")
}

/// `sys.stdout` and `sys.stderr` as they should be.
struct Streams<'a, 'py> {
    sys: Bound<'py, PyDict>,
    ours: [(&'a Bound<'py, PyString>, &'a Bound<'py, PyAny>); 2],
}

impl<'a, 'py> Streams<'a, 'py> {
    fn new(
        py: Python<'py>,
        stdout: &'a Bound<'py, PyAny>,
        stderr: &'a Bound<'py, PyAny>,
    ) -> PyResult<Self>
    where
        'py: 'a,
    {
        Ok(Self {
            sys: py.import(intern!(py, "sys"))?.dict(),
            ours: [
                (intern!(py, "stdout"), stdout),
                (intern!(py, "stderr"), stderr),
            ],
        })
    }

    fn are_ours(&self) -> PyResult<bool> {
        for (name, ours) in &self.ours {
            if !self.sys.get_item(name)?.is_some_and(|is| is.is(*ours)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The time of the clock that the driver also reads: `time.monotonic`.
#[cfg(unix)]
fn now() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes a whole `timespec`; it cannot fail for this clock and this pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    // The types of both differ from system to system.
    #[allow(clippy::cast_precision_loss, clippy::cast_lossless)]
    (time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

/// Other systems have no such worker.
#[cfg(not(unix))]
fn now() -> f64 {
    0.0
}
