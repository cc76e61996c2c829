//! The return value of a step as a record of the result ring, and as the argument of the step that is chained to it.
//!
//! An atom is written directly. Any other value is written as a pickle. A small container of atoms, or of such
//! containers, is pickled here by `pickle.dumps`, since that calls no code of the user. Any other value is pickled by
//! the encoder of `worker.py`, which handles the other kinds of values (a pipeline, a generator, something large,
//! something that cannot be pickled). The driver receives the same result either way.

use std::borrow::Cow;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyEllipsis, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::result_ring::ResultRing;

use super::atom_pickle::flat_pickle;
use super::result_reader::{FALSE, FLOAT, INT, MEASURED, NONE, PICKLE, TEXT, TRUE};

/// Longer strings are sent through the socket, where they cost no additional copy.
const LONGEST_TEXT: usize = 512;
/// The pickle protocol, as in `values.py`.
const PROTOCOL: u8 = 5;
/// The approximate number of bytes that the pickle of a small container may take.
const SMALL: usize = 4096;
/// The maximum nesting depth of containers, so that one that contains itself is not followed forever.
const DEPTH: usize = 8;
/// The approximate number of bytes of a value in a pickle, excluding the characters of a string.
pub(super) const ITEM: usize = 10;

/// A value that is immutable and can always be loaded.
pub(super) enum Atom<'a> {
    /// Its kind, and the number of these bytes that it uses.
    Short(u8, [u8; 8], usize),
    Text(Cow<'a, str>),
    /// It is too long for a record.
    Long,
}

impl<'a> Atom<'a> {
    /// The value as an atom; `None` if it is not one.
    pub(super) fn of(value: &'a Bound<'_, PyAny>) -> Option<Self> {
        let none = [0; 8];
        if let Ok(number) = value.cast_exact::<PyInt>() {
            let number = number.extract::<i64>();
            return Some(number.map_or(Self::Long, |it| Self::Short(INT, it.to_le_bytes(), 8)));
        }
        if value.is_none() {
            return Some(Self::Short(NONE, none, 0));
        }
        if let Ok(truth) = value.cast_exact::<PyBool>() {
            let kind = if truth.is_true() { TRUE } else { FALSE };
            return Some(Self::Short(kind, none, 0));
        }
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            return Some(Self::Short(FLOAT, number.value().to_le_bytes(), 8));
        }
        let text = value.cast_exact::<PyString>().ok()?.to_cow();
        Some(text.map_or(Self::Long, |text| {
            if text.len() <= LONGEST_TEXT {
                Self::Text(text)
            } else {
                Self::Long
            }
        }))
    }

    /// Write it; false if it is too long, or there is no room.
    pub(super) fn put(&self, ring: ResultRing<'_>, slot: u64, times: (f64, f64)) -> bool {
        self.payload()
            .is_some_and(|(kind, bytes)| ring.put(slot, kind, times, bytes))
    }

    /// Its kind and bytes in a record; `None` if it is too long.
    fn payload(&self) -> Option<(u8, &[u8])> {
        match self {
            Self::Short(kind, bytes, length) => Some((*kind, &bytes[..*length])),
            Self::Text(text) => Some((TEXT, text.as_bytes())),
            Self::Long => None,
        }
    }
}

/// Write an atom or the bytes of a pickle, with the CPU seconds and the bytes of memory that its step has used; false
/// if the value is neither, is too long, or there is no room.
pub(super) fn put_measured(
    ring: ResultRing<'_>,
    slot: u64,
    times: (f64, f64),
    value: &Bound<'_, PyAny>,
    (cpu, memory): (f64, u64),
) -> bool {
    let write = |kind: u8, bytes: &[u8]| {
        let numbers = [cpu.to_bits(), memory, u64::from(kind)];
        let mut payload: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
        payload.extend(bytes);
        ring.put(slot, MEASURED, times, &payload)
    };
    match value.cast_exact::<PyBytes>() {
        Ok(pickle) => write(PICKLE, pickle.as_bytes()),
        Err(_) => Atom::of(value)
            .is_some_and(|atom| atom.payload().is_some_and(|(kind, it)| write(kind, it))),
    }
}

/// Write a pickle; false if it is too long, or there is no room.
pub(super) fn put_pickle(
    ring: ResultRing<'_>,
    slot: u64,
    times: (f64, f64),
    pickle: &Bound<'_, PyBytes>,
) -> bool {
    ring.put(slot, PICKLE, times, pickle.as_bytes())
}

/// The encoding of a value that is not an atom.
pub(super) enum Encoded<'py> {
    /// A pickle that refers to no global names, so that it can be loaded anywhere.
    Small(Bound<'py, PyBytes>),
    /// The encoder's result: a pickle, or something else that does not go into the ring.
    Other(Bound<'py, PyAny>),
}

impl<'py> Encoded<'py> {
    /// Write it; false if it is not a pickle, is too long, or there is no room.
    pub(super) fn put(&self, ring: ResultRing<'_>, slot: u64, times: (f64, f64)) -> bool {
        match self {
            Self::Small(pickle) => put_pickle(ring, slot, times, pickle),
            Self::Other(value) => value
                .cast_exact::<PyBytes>()
                .is_ok_and(|pickle| put_pickle(ring, slot, times, pickle)),
        }
    }

    pub(super) fn is_small(&self) -> bool {
        matches!(self, Self::Small(_))
    }

    pub(super) fn into_value(self) -> Bound<'py, PyAny> {
        match self {
            Self::Small(pickle) => pickle.into_any(),
            Self::Other(value) => value,
        }
    }
}

/// Pickles and unpickles values.
pub(super) struct Encoder<'a, 'py> {
    dumps: Bound<'py, PyAny>,
    loads: Bound<'py, PyAny>,
    /// Encodes values that are not small; without it nothing is encoded here.
    others: Option<&'a Bound<'py, PyAny>>,
}

impl<'a, 'py> Encoder<'a, 'py> {
    pub(super) fn new(py: Python<'py>, others: Option<&'a Bound<'py, PyAny>>) -> PyResult<Self> {
        let pickle = py.import(intern!(py, "pickle"))?;
        Ok(Self {
            dumps: pickle.getattr(intern!(py, "dumps"))?,
            loads: pickle.getattr(intern!(py, "loads"))?,
            others,
        })
    }

    /// Encode a value that is not an atom; `None` if that is not to be done here.
    pub(super) fn encode(&self, value: &Bound<'py, PyAny>) -> PyResult<Option<Encoded<'py>>> {
        let Some(others) = self.others else {
            return Ok(None);
        };
        if let Some(pickle) = flat_pickle(value, SMALL) {
            let pickle = PyBytes::new(value.py(), &pickle);
            return Ok(Some(Encoded::Small(pickle)));
        }
        // Another thread of the step may change the value meanwhile, and pickling may fail: then the value is encoded
        // in `worker.py`, where that is an error of the step.
        if is_small(value)
            && let Ok(pickle) = self.dumps.call1((value, PROTOCOL))
        {
            return Ok(Some(Encoded::Small(pickle.cast_into()?)));
        }
        others.call1((value,)).map(|it| Some(Encoded::Other(it)))
    }

    /// Create a new object from a pickle that refers to no global names.
    pub(super) fn load(&self, pickle: Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
        self.loads.call1((pickle,))
    }
}

/// The return value of the previous step, for the step that is chained to it.
pub(super) enum Previous<'py> {
    None,
    Atom(Bound<'py, PyAny>),
    /// A pickle that refers to no global names.
    Small(Bound<'py, PyBytes>),
    /// A value whose loading may run any code: `worker.py` loads it.
    Opaque(Bound<'py, PyAny>),
}

impl<'py> Previous<'py> {
    /// The value from `worker.py`: the ellipsis if there is none, since `None` is a value like any other.
    pub(super) fn given(value: Bound<'py, PyAny>) -> Self {
        if value.is(PyEllipsis::get(value.py())) {
            Self::None
        } else if Atom::of(&value).is_some() {
            Self::Atom(value)
        } else {
            Self::Opaque(value)
        }
    }

    pub(super) fn is_opaque(&self) -> bool {
        matches!(self, Self::Opaque(_))
    }

    pub(super) fn into_value(self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self {
            Self::None => PyEllipsis::get(py).to_owned().into_any(),
            Self::Small(pickle) => pickle.into_any(),
            Self::Atom(value) | Self::Opaque(value) => value,
        }
    }
}

impl<'py> From<Encoded<'py>> for Previous<'py> {
    fn from(encoded: Encoded<'py>) -> Self {
        match encoded {
            Encoded::Small(pickle) => Self::Small(pickle),
            Encoded::Other(value) => Self::Opaque(value),
        }
    }
}

/// Return true if a value is a small container of atoms and such containers: pickling it calls no code of the user.
fn is_small(value: &Bound<'_, PyAny>) -> bool {
    takes(value, SMALL, DEPTH).is_some()
}

/// The rest of `left` bytes after a value is pickled; `None` if it is not small in the sense of [`is_small`].
fn takes(value: &Bound<'_, PyAny>, left: usize, depth: usize) -> Option<usize> {
    let left = left.checked_sub(ITEM)?;
    if let Some(atom) = Atom::of(value) {
        return match atom {
            Atom::Short(..) => Some(left),
            Atom::Text(text) => left.checked_sub(text.len()),
            Atom::Long => None,
        };
    }
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return left.checked_sub(bytes.as_bytes().len());
    }
    let depth = depth.checked_sub(1)?;
    if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        return all(tuple.iter(), left, depth);
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        return all(list.iter(), left, depth);
    }
    // Another thread of the step may change it meanwhile, which the iterator of a dict does not allow.
    let items = value.cast_exact::<PyDict>().ok()?;
    if items.len() > SMALL / ITEM {
        return None;
    }
    all(
        items.keys().iter().chain(items.values().iter()),
        left,
        depth,
    )
}

fn all<'py>(
    mut values: impl Iterator<Item = Bound<'py, PyAny>>,
    left: usize,
    depth: usize,
) -> Option<usize> {
    values.try_fold(left, |left, value| takes(&value, left, depth))
}
