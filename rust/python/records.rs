//! What a step has returned as a record of the results ring, and as the argument of the step that is chained to it.
//!
//! An atom is written as it is. All else is a pickle: of a small container of atoms, and of containers of them, one that
//! `pickle.dumps` makes right here, since nothing of the user's is called for it; of any other value the encoder of
//! `worker.py` makes one, which knows what else a value may be (a pipeline, a generator, something large, something that
//! does not pickle). What the driver gets is the same either way.

use std::borrow::Cow;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyEllipsis, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::result_ring::ResultRing;

use super::atom_pickle::flat_pickle;
use super::result_reader::{FALSE, FLOAT, INT, MEASURED, NONE, PICKLE, TEXT, TRUE};

/// Longer texts go the long way, where they cost no copy more.
const LONGEST_TEXT: usize = 512;
/// The protocol of the pickles, as in `values.py`.
const PROTOCOL: u8 = 5;
/// Bytes that the pickle of a small container may take, roughly.
const SMALL: usize = 4096;
/// How many containers may stand in each other, so that one that holds itself comes to an end.
const DEPTH: usize = 8;
/// About what a value takes in a pickle beside its text.
pub(super) const ITEM: usize = 10;

/// A value that is immutable and always loads.
pub(super) enum Atom<'a> {
    /// What kind it is, and so many bytes of these.
    Short(u8, [u8; 8], usize),
    Text(Cow<'a, str>),
    /// It is too long for a record.
    Long,
}

impl<'a> Atom<'a> {
    /// What a value is as an atom; `None` if it is none.
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

    /// What it is in a record: kind and bytes; `None` if it is too long.
    fn payload(&self) -> Option<(u8, &[u8])> {
        match self {
            Self::Short(kind, bytes, length) => Some((*kind, &bytes[..*length])),
            Self::Text(text) => Some((TEXT, text.as_bytes())),
            Self::Long => None,
        }
    }
}

/// Write an atom or the bytes of a pickle, with the CPU seconds and the bytes of memory that its step has used; false if it
/// is neither, is too long, or there is no room.
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

/// What has become of a value that is no atom.
pub(super) enum Encoded<'py> {
    /// A pickle that names nothing, so that it can be loaded anywhere.
    Small(Bound<'py, PyBytes>),
    /// What the encoder has made of it: a pickle, or something else that does not go into the ring.
    Other(Bound<'py, PyAny>),
}

impl<'py> Encoded<'py> {
    /// Write it; false if it is no pickle or too long, or there is no room.
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

/// Makes pickles of values, and of pickles values.
pub(super) struct Encoder<'a, 'py> {
    dumps: Bound<'py, PyAny>,
    loads: Bound<'py, PyAny>,
    /// Encodes what is not small; without it nothing is encoded here.
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

    /// Encode a value that is no atom; `None` if that is not to be done here.
    pub(super) fn encode(&self, value: &Bound<'py, PyAny>) -> PyResult<Option<Encoded<'py>>> {
        let Some(others) = self.others else {
            return Ok(None);
        };
        if let Some(pickle) = flat_pickle(value, SMALL) {
            let pickle = PyBytes::new(value.py(), &pickle);
            return Ok(Some(Encoded::Small(pickle)));
        }
        // Another thread of the step may change it meanwhile, which to pickle it may not bear: then it goes the long way,
        // where that is an error of the step.
        if is_small(value)
            && let Ok(pickle) = self.dumps.call1((value, PROTOCOL))
        {
            return Ok(Some(Encoded::Small(pickle.cast_into()?)));
        }
        others.call1((value,)).map(|it| Some(Encoded::Other(it)))
    }

    /// Make a new object of a pickle that names nothing.
    pub(super) fn load(&self, pickle: Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
        self.loads.call1((pickle,))
    }
}

/// What the step before has returned, for the one that is chained to it.
pub(super) enum Previous<'py> {
    None,
    Atom(Bound<'py, PyAny>),
    /// A pickle that names nothing.
    Small(Bound<'py, PyBytes>),
    /// A value whose loading may do anything: `worker.py` sees to it.
    Opaque(Bound<'py, PyAny>),
}

impl<'py> Previous<'py> {
    /// What `worker.py` has: the ellipsis if there is none, since `None` is a value like any other.
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

/// Say whether a value is a container of atoms and such containers, and small: to pickle it calls nobody.
fn is_small(value: &Bound<'_, PyAny>) -> bool {
    takes(value, SMALL, DEPTH).is_some()
}

/// What is left of so many bytes when a value is pickled; `None` if it is none that [`is_small`].
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
    // Another thread of the step may change it meanwhile, which the iterator of a dict does not bear.
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
