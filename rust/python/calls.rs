//! `Caller`: the innermost loop of a worker process, for steps of one argument that return something small.
//!
//! ```text
//!   take(slot) ──▶ function(argument) ──▶ end ──▶ put(result) ──▶ take(next slot)
//!                        │ raised, returned something large, or did something to the process
//!                        └──▶ back to `worker.py`, which sees to it and goes on behind it
//! ```
//!
//! A step that does nothing costs its worker 0.15 us here; the same in Python, with a send for each result, took 2.3 us.
//! After each step whatever it has done to the process is mended before the next one begins: that takes system calls to
//! find out (the files behind fd 0 to 2, the working directory), which take longer than the shortest steps. A step that was
//! over sooner than a built-in function takes that makes the cheapest system call cannot have made one, so nobody asks
//! ([`Caller::probe`]).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyEllipsis, PyFloat, PyInt, PyString};

use crate::results::{Broken, Ring};

use super::claims::ClaimWords;
use super::files::{self, OpenFiles};
use super::results::{FALSE, FLOAT, INT, NONE, PICKLE, TEXT, TRUE, no_ring, ring_words};
use super::words::Words;

/// No slot: numbers are never used again and do not come so far.
const NO_SLOT: u64 = u64::MAX;
/// How often the cheapest system call is timed; the shortest time counts.
const TRIALS: usize = 8;
/// Seconds after which it is timed anew: machines get faster and slower.
const LATELY: f64 = 0.001;
/// Longer texts go the long way, where they cost no copy more.
const LONGEST_TEXT: usize = 512;

/// Calls steps, and knows which one runs.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct Caller {
    claims: Py<ClaimWords>,
    words: Words,
    /// The descriptor by which the driver is woken: a worker that has lost it is lost, and its step is the reason.
    line: OpenFiles,
    /// The step that runs, or ran last.
    slot: AtomicU64,
    /// Something was written to the streams since the last step ended.
    written: AtomicBool,
    /// This is a child that a step has forked.
    forked: AtomicBool,
    /// A built-in function that makes the cheapest system call there is.
    probe: Py<PyAny>,
    /// The shortest time in seconds that it took lately, as bits: no step that makes a system call takes less.
    floor: AtomicU64,
    /// When that was measured, in seconds, as bits.
    measured: AtomicU64,
}

/// What came of the step at which the loop was left.
const RETURNED: u8 = 0;
const RAISED: u8 = 1;
/// It needs the value of the one before it, and there is none.
const UNCHAINED: u8 = 2;
/// There is none: all were called. What it would have returned is what the last one has.
const DONE: u8 = 3;

/// Where the loop was left: position, what came of the step, what it returned or raised, when it began.
type Left<'py> = (usize, u8, Bound<'py, PyAny>, f64);

#[pymethods]
impl Caller {
    #[new]
    fn new(
        py: Python<'_>,
        claims: Py<ClaimWords>,
        buffer: &Bound<'_, PyAny>,
        probe: Py<PyAny>,
        line: i32,
    ) -> PyResult<Self> {
        let caller = Self {
            line: OpenFiles::of(vec![line]),
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

    /// Write one result; false if it is not small, there is no room, or the line to the driver is gone.
    fn put(&self, slot: u64, start: f64, end: f64, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let times = (start, end);
        let ring = self.ring()?;
        if !self.line.unchanged() {
            return Ok(false);
        }
        Ok(match value.cast_exact::<PyBytes>() {
            Ok(pickle) => ring.put(slot, PICKLE, times, pickle.as_bytes()),
            Err(_) => put_atom(ring, slot, times, value),
        })
    }

    fn must_wake(&self, at_end: bool) -> PyResult<bool> {
        Ok(self.ring()?.must_wake(at_end))
    }

    /// Call the steps from `position` on, as long as nothing else is to be done; return where the loop was left.
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
        files: &Bound<'py, OpenFiles>,
        stdout: &Bound<'py, PyAny>,
        stderr: &Bound<'py, PyAny>,
        wake: &Bound<'py, PyAny>,
        previous: Bound<'py, PyAny>,
    ) -> PyResult<Left<'py>> {
        let (claims, ring, files) = (self.claims.get().claims(), self.ring()?, files.get());
        let streams = Streams::new(py, stdout, stderr)?;
        let directory = files::directory();
        self.measure_floor(py)?;
        let chain = PyEllipsis::get(py);
        // `None` is a value like any other, so who has none gives the ellipsis.
        let mut previous = Some(previous).filter(|previous| !previous.is(chain));
        let floor = f64::from_bits(self.floor.load(Ordering::Relaxed));
        let count = arguments.len()?;
        let mut start = now();
        for at in position..count {
            let slot = slot + (at - position) as u64;
            if !claims.take(slot, start) {
                previous = None;
                continue;
            }
            self.slot.store(slot, Ordering::Relaxed);
            let mut argument = arguments.get_item(at)?;
            if argument.is(chain) {
                let Some(value) = previous else {
                    return Ok((at, UNCHAINED, argument, start));
                };
                argument = value;
            }
            let returned = match function.call1((argument,)) {
                Ok(returned) => returned,
                Err(error) => {
                    let raised = error.into_value(py).into_bound(py).into_any();
                    return Ok((at, RAISED, raised, start));
                }
            };
            let end = now();
            let in_doubt = end - start >= floor;
            let clean = !self.written.load(Ordering::Relaxed)
                && streams.are_ours()?
                && (!in_doubt
                    || files.unchanged()
                        && self.line.unchanged()
                        && files::directory() == directory)
                && !self.forked.load(Ordering::Relaxed);
            if !clean || !put_atom(ring, slot, (start, end), &returned) {
                return Ok((at, RETURNED, returned, start));
            }
            if ring.must_wake(false) {
                wake.call0()?;
            }
            previous = Some(returned);
            // To look took time, which is not the next step's: else that would be in doubt, too, and all after it.
            start = if in_doubt { now() } else { end };
        }
        let last = previous.unwrap_or_else(|| chain.to_owned().into_any());
        Ok((count, DONE, last, start))
    }
}

impl Caller {
    fn ring(&self) -> PyResult<Ring<'_>> {
        Ring::new(self.words.get()).map_err(|Broken| no_ring())
    }

    /// Time the probe as a step is timed, unless that was done lately. It is called without a function around it and does
    /// nothing besides, so a step that makes any system call takes longer, by half as a rule.
    fn measure_floor(&self, py: Python<'_>) -> PyResult<()> {
        let begun = now();
        if begun - f64::from_bits(self.measured.load(Ordering::Relaxed)) < LATELY {
            return Ok(());
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
        Ok(())
    }
}

/// Write a result that is an atom; false if it is none, or too long, or there is no room.
fn put_atom(ring: Ring<'_>, slot: u64, times: (f64, f64), value: &Bound<'_, PyAny>) -> bool {
    if let Ok(number) = value.cast_exact::<PyInt>() {
        let number = number.extract::<i64>();
        return number.is_ok_and(|number| ring.put(slot, INT, times, &number.to_le_bytes()));
    }
    if value.is_none() {
        return ring.put(slot, NONE, times, &[]);
    }
    if let Ok(truth) = value.cast_exact::<PyBool>() {
        let kind = if truth.is_true() { TRUE } else { FALSE };
        return ring.put(slot, kind, times, &[]);
    }
    if let Ok(number) = value.cast_exact::<PyFloat>() {
        return ring.put(slot, FLOAT, times, &number.value().to_le_bytes());
    }
    let Ok(text) = value.cast_exact::<PyString>() else {
        return false;
    };
    text.to_cow().is_ok_and(|text| {
        text.len() <= LONGEST_TEXT && ring.put(slot, TEXT, times, text.as_bytes())
    })
}

/// `sys.stdout` and `sys.stderr` as they ought to be.
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

/// The time of the clock that the driver reads, too: `time.monotonic`.
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

/// Elsewhere there is no such worker.
#[cfg(not(unix))]
fn now() -> f64 {
    0.0
}
