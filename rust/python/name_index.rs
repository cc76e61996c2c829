//! `NameIndex`: names with their ids, in the order in which they were added; a mapping that only grows.
//!
//! One mutex guards both the names and the table that finds them by their hashes, so that a name and its id appear
//! together, even if other threads add names concurrently. Python compares two names for equality, without the lock.

use std::sync::{Mutex, MutexGuard};

use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyIterator, PyList, PyString, PyType};

use crate::name_table::NameTable;

/// Names with their ids.
#[pyclass(frozen, mapping, module = "flowyml._core")]
pub(crate) struct NameIndex(Mutex<NameList>);

/// The names in order, and the table of their hashes, of the same length.
struct NameList {
    table: NameTable,
    names: Vec<Py<PyString>>,
}

impl NameList {
    /// Return a name that the table has found.
    fn name(&self, py: Python<'_>, number: u32) -> Py<PyString> {
        self.names[number as usize].clone_ref(py)
    }
}

#[pymethods]
impl NameIndex {
    #[new]
    #[pyo3(signature = (names=None, /))]
    fn new(names: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let new = Self(Mutex::new(NameList {
            table: NameTable::new(),
            names: Vec::new(),
        }));
        if let Some(names) = names {
            for name in names.try_iter()? {
                let name = name?;
                if !new.add(name.cast()?)? {
                    return Err(PyValueError::new_err(format!("{name} is there twice")));
                }
            }
        }
        Ok(new)
    }

    #[pyo3(signature = (name, /))]
    fn add(&self, name: &Bound<'_, PyString>) -> PyResult<bool> {
        let (py, hash) = (name.py(), hash_of(name)?);
        let (mut others, kept) = (Vec::new(), name.clone().unbind());
        loop {
            let mut numbered = self.lock(py)?;
            let Err(candidate) = numbered.table.add(hash, &others) else {
                numbered.names.push(kept);
                return Ok(true);
            };
            let there = numbered.name(py, candidate);
            drop(numbered);
            if is_same(there.bind(py), name)? {
                return Ok(false);
            }
            others.push(candidate);
        }
    }

    #[pyo3(signature = (name, default=None, /))]
    fn get<'py>(
        &self,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.number(name)? {
            Some(number) => Ok(Some(number.into_pyobject(name.py())?.into_any())),
            None => Ok(default),
        }
    }

    fn __getitem__(&self, name: &Bound<'_, PyAny>) -> PyResult<u32> {
        self.number(name)?
            .ok_or_else(|| PyKeyError::new_err(name.clone().unbind()))
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.number(name)?.is_some())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.lock(py)?.names.len())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.listed(py)?.try_iter()
    }

    fn keys<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        view(slf, "KeysView")
    }

    fn values<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        view(slf, "ValuesView")
    }

    fn items<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        view(slf, "ItemsView")
    }

    #[getter]
    fn listed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        // References to its objects are counted under the lock; the list is built from them without it.
        PyList::new(py, self.names(py)?)
    }

    fn copy(&self, py: Python<'_>) -> PyResult<Self> {
        let numbered = self.lock(py)?;
        let copied = NameList {
            table: numbered.table.clone(),
            names: cloned(py, &numbered.names),
        };
        drop(numbered);
        Ok(Self(Mutex::new(copied)))
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyType>, (Bound<'py, PyList>,))> {
        Ok((slf.get_type(), (slf.get().listed(slf.py())?,)))
    }
}

impl NameIndex {
    fn number(&self, name: &Bound<'_, PyAny>) -> PyResult<Option<u32>> {
        let Ok(text) = name.cast::<PyString>() else {
            return Ok(None);
        };
        let (py, hash) = (name.py(), hash_of(text)?);
        let mut others = Vec::new();
        loop {
            let numbered = self.lock(py)?;
            let Some(candidate) = numbered.table.find(hash, &others) else {
                return Ok(None);
            };
            let there = numbered.name(py, candidate);
            drop(numbered);
            if is_same(there.bind(py), text)? {
                return Ok(Some(candidate));
            }
            others.push(candidate);
        }
    }

    fn names(&self, py: Python<'_>) -> PyResult<Vec<Py<PyString>>> {
        Ok(cloned(py, &self.lock(py)?.names))
    }

    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, NameList>> {
        self.0.lock_py_attached(py).map_err(|poisoned| {
            drop(poisoned);
            PyRuntimeError::new_err("an earlier call panicked: the names are not known")
        })
    }
}

fn cloned(py: Python<'_>, names: &[Py<PyString>]) -> Vec<Py<PyString>> {
    names.iter().map(|name| name.clone_ref(py)).collect()
}

fn is_same(there: &Bound<'_, PyString>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    Ok(there.is(name) || there.as_any().eq(name)?)
}

/// Return one of the views that any mapping has.
fn view<'py>(names: &Bound<'py, NameIndex>, kind: &str) -> PyResult<Bound<'py, PyAny>> {
    let views = names.py().import("collections.abc")?;
    views.getattr(kind)?.call1((names,))
}

fn hash_of(name: &Bound<'_, PyString>) -> PyResult<u64> {
    Ok(name.hash()?.cast_unsigned() as u64)
}
