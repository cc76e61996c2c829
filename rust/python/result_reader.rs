//! `ResultReader`: the driver's side of a worker's result ring.
//!
//! The protocol is defined in `crate::result_ring`; this file converts records to values of a run, many in one call.
//! The meaning of the payloads is known here and in `worker_call_loop.rs`, which writes them.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::claims::low;
use crate::result_ring::{CorruptRing, HEADER, Record, ResultRing, WakeMode};

use super::batch::Batch;
use super::shared_atomics::SharedAtomics;

/// The kinds of payload. A pickle is bytes here: the value store knows that bytes are a pickle.
pub(super) const NONE: u8 = 0;
pub(super) const FALSE: u8 = 1;
pub(super) const TRUE: u8 = 2;
pub(super) const INT: u8 = 3;
pub(super) const FLOAT: u8 = 4;
pub(super) const TEXT: u8 = 5;
pub(super) const PICKLE: u8 = 6;
/// The values of several declared outputs, as encoded by `wire.py`; the caller of the reader decodes the bytes.
pub(super) const PARTS: u8 = 8;
/// A value of any of these kinds after the usage of its step: CPU seconds, bytes of memory (0 if not known), kind.
pub(super) const MEASURED: u8 = 7;

/// The usage of one step: its item, CPU seconds, bytes of memory if known.
type Used = (u32, f64, Option<u64>);
/// The outputs of one step: its item, and the payload.
type Parts<'py> = (u32, Bound<'py, PyAny>);
/// The start of the first step, the end of each, the usage of each measured step, the outputs of each step with
/// several.
type Drained<'py> = (f64, Bound<'py, PyBytes>, Vec<Used>, Vec<Parts<'py>>);

/// Results of one worker, in the order of its slots.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct ResultReader {
    words: SharedAtomics,
    /// The position up to which results were taken; only one thread of the driver takes them.
    read: AtomicU64,
}

#[pymethods]
impl ResultReader {
    #[classattr]
    #[pyo3(name = "HEADER")]
    const PY_HEADER: usize = HEADER * 8;

    #[new]
    fn new(buffer: &Bound<'_, PyAny>) -> PyResult<Self> {
        let words = ring_words(buffer)?;
        Ok(Self {
            words,
            read: AtomicU64::new(0),
        })
    }

    /// Set when to be woken: when the worker has no work left, or with each result.
    fn want(&self, each: bool) -> PyResult<()> {
        let wanted = if each {
            WakeMode::Each
        } else {
            WakeMode::TheEnd
        };
        self.ring()?.want(wanted);
        Ok(())
    }

    fn awake(&self) -> PyResult<()> {
        self.ring()?.want(WakeMode::Nothing);
        Ok(())
    }

    fn committed(&self) -> PyResult<u64> {
        Ok(self.ring()?.committed())
    }

    #[getter]
    fn waiting(&self) -> PyResult<bool> {
        Ok(self.ring()?.committed() != self.read.load(Ordering::Relaxed))
    }

    #[pyo3(signature = (values, batch, position, count, slot, end, committed, unpack))]
    #[expect(clippy::too_many_arguments, reason = "where from, where to, how many")]
    fn drain<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyList>,
        batch: &Bound<'py, Batch>,
        position: u32,
        count: u32,
        slot: u64,
        end: u64,
        committed: u64,
        unpack: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Drained<'py>>> {
        let ring = self.ring()?;
        let mut at = self.read.load(Ordering::Relaxed);
        let mut start = 0.0;
        let (mut ends, mut used, mut parts) = (Vec::<u8>::new(), Vec::new(), Vec::new());
        let items = batch.get().0.items_from(position).take(count as usize);
        for (slot, item) in (slot..).zip(items) {
            match result(unpack, ring, at, committed, slot, end) {
                Ok(Some(found)) => {
                    if found.record.kind == PARTS {
                        parts.push((item.0, found.value));
                    } else {
                        values.set_item(item.index(), found.value)?;
                    }
                    if let Some((cpu, memory)) = found.used {
                        used.push((item.0, cpu, memory));
                    }
                    if ends.is_empty() {
                        start = found.record.start;
                    }
                    ends.extend(found.record.end.to_ne_bytes());
                    at = found.next;
                }
                Err(error) if ends.is_empty() => return Err(error),
                // An error after results that were taken is raised by the next call.
                Ok(None) | Err(_) => break,
            }
        }
        self.read.store(at, Ordering::Relaxed);
        ring.release(at);
        Ok((!ends.is_empty()).then(|| (start, PyBytes::new(py, &ends), used, parts)))
    }
}

impl ResultReader {
    fn ring(&self) -> PyResult<ResultRing<'_>> {
        ResultRing::new(self.words.get()).map_err(|CorruptRing| no_ring())
    }
}

/// The words of a buffer that holds a ring.
pub(super) fn ring_words(buffer: &Bound<'_, PyAny>) -> PyResult<SharedAtomics> {
    let words = SharedAtomics::all(buffer)?;
    ResultRing::new(words.get()).map_err(|CorruptRing| no_ring())?;
    Ok(words)
}

pub(super) fn no_ring() -> PyErr {
    PyBufferError::new_err(format!(
        "results need {} bytes and a power of two of words behind them",
        HEADER * 8
    ))
}

fn broken() -> PyErr {
    PyValueError::new_err("what the worker has written is no result")
}

/// A result that was read from the ring.
struct DrainedResult<'py> {
    value: Bound<'py, PyAny>,
    /// CPU seconds and, if known, bytes of memory of a measured step.
    used: Option<(f64, Option<u64>)>,
    record: Record,
    /// The position after it.
    next: u64,
}

/// Read the result of `slot` at `at`; `None` if there is no record, or one of a later slot before `end`.
///
/// A record of any other slot could never be taken: it was not posted, or its result has already been taken.
fn result<'py>(
    unpack: &Bound<'py, PyAny>,
    ring: ResultRing<'_>,
    at: u64,
    committed: u64,
    slot: u64,
    end: u64,
) -> PyResult<Option<DrainedResult<'py>>> {
    let Some(mut record) = ring.peek(at, committed).map_err(|CorruptRing| broken())? else {
        return Ok(None);
    };
    let ahead = record.slot.wrapping_sub(low(slot));
    if u64::from(ahead) >= end.saturating_sub(slot) {
        return Err(broken());
    }
    if ahead > 0 {
        return Ok(None);
    }
    if !(record.start.is_finite() && record.end.is_finite()) {
        return Err(broken());
    }
    let (next, mut used) = (record.next(), None);
    if record.kind == MEASURED {
        let ([cpu, memory, kind], behind) = ring.behind(&record).ok_or_else(broken)?;
        let cpu = Some(f64::from_bits(cpu)).filter(|cpu| cpu.is_finite());
        used = Some((cpu.ok_or_else(broken)?, (memory > 0).then_some(memory)));
        record = behind;
        record.kind = u8::try_from(kind).map_err(|_| broken())?;
    }
    let mut value = value(unpack.py(), ring, &record)?;
    if record.kind == PARTS {
        value = unpack.call1((value,)).map_err(|_| broken())?;
        if !is_outputs(&value) {
            return Err(broken());
        }
    }
    Ok(Some(DrainedResult {
        value,
        used,
        record,
        next,
    }))
}

/// Return true for a pair of the kind of return value (`"tuple"`, `"list"` or a list of keys) and its parts.
fn is_outputs(value: &Bound<'_, PyAny>) -> bool {
    value
        .extract::<(Bound<'_, PyAny>, Bound<'_, PyTuple>)>()
        .is_ok_and(|(kind, _)| {
            kind.is_exact_instance_of::<PyList>()
                || kind
                    .cast_exact::<PyString>()
                    .is_ok_and(|kind| kind == "tuple" || kind == "list")
        })
}

fn value<'py>(
    py: Python<'py>,
    ring: ResultRing<'_>,
    record: &Record,
) -> PyResult<Bound<'py, PyAny>> {
    let expected = match record.kind {
        NONE | FALSE | TRUE => 0,
        INT | FLOAT => 8,
        _ => record.length,
    };
    if record.length != expected {
        return Err(broken());
    }
    let bits = ring.number(record);
    Ok(match record.kind {
        NONE => py.None().into_bound(py),
        FALSE | TRUE => PyBool::new(py, record.kind == TRUE).to_owned().into_any(),
        INT => PyInt::new(py, bits.cast_signed()).into_any(),
        FLOAT => PyFloat::new(py, f64::from_bits(bits)).into_any(),
        TEXT => {
            let mut bytes = vec![0; record.length as usize];
            ring.copy(record, &mut bytes);
            let text = String::from_utf8(bytes).map_err(|_| broken())?;
            PyString::new(py, &text).into_any()
        }
        PICKLE | PARTS => PyBytes::new_with(py, record.length as usize, |bytes| {
            ring.copy(record, bytes);
            Ok(())
        })?
        .into_any(),
        _ => return Err(broken()),
    })
}
