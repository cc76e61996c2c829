//! `Names`: names with their numbers, in the order in which they were added; a mapping that only grows.
//!
//! The names stand in a list of Python's, which a plan reads as it is. Which of them are candidates the table knows by their
//! hashes; that they are the same is asked of Python, with the table unlocked.

use std::sync::{Mutex, MutexGuard};

use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyIterator, PyList, PyString, PyType};

use crate::table::Table;

/// Names with their numbers.
#[pyclass(frozen, mapping, module = "flowyml._core")]
pub(crate) struct Names {
    table: Mutex<Table>,
    listed: Py<PyList>,
}

#[pymethods]
impl Names {
    #[new]
    #[pyo3(signature = (names=None, /))]
    fn new(py: Python<'_>, names: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let new = Self {
            table: Mutex::new(Table::new()),
            listed: PyList::empty(py).unbind(),
        };
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
        let mut others = Vec::new();
        loop {
            let added = self.table(py)?.add(hash, &others);
            match added {
                Ok(()) => break,
                Err(candidate) if self.is_at(candidate, name)? => return Ok(false),
                Err(candidate) => others.push(candidate),
            }
        }
        self.listed.bind(py).append(name)?;
        Ok(true)
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

    fn __len__(&self, py: Python<'_>) -> usize {
        self.listed.bind(py).len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.listed.bind(py).try_iter()
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
    fn listed(&self, py: Python<'_>) -> Py<PyList> {
        self.listed.clone_ref(py)
    }

    fn copy(&self, py: Python<'_>) -> PyResult<Self> {
        let listed = self.listed.bind(py);
        Ok(Self {
            table: Mutex::new(self.table(py)?.clone()),
            listed: listed.get_slice(0, listed.len()).unbind(),
        })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (Py<PyList>,)) {
        (slf.get_type(), (slf.get().listed(slf.py()),))
    }
}

impl Names {
    fn number(&self, name: &Bound<'_, PyAny>) -> PyResult<Option<u32>> {
        let Ok(text) = name.cast::<PyString>() else {
            return Ok(None);
        };
        let hash = hash_of(text)?;
        let mut others = Vec::new();
        loop {
            let candidate = self.table(name.py())?.find(hash, &others);
            match candidate {
                None => return Ok(None),
                Some(number) if self.is_at(number, text)? => return Ok(Some(number)),
                Some(number) => others.push(number),
            }
        }
    }

    fn is_at(&self, number: u32, name: &Bound<'_, PyString>) -> PyResult<bool> {
        let there = self.listed.bind(name.py()).get_item(number as usize)?;
        Ok(there.is(name) || there.eq(name)?)
    }

    fn table(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Table>> {
        self.table.lock_py_attached(py).map_err(|poisoned| {
            drop(poisoned);
            PyRuntimeError::new_err("an earlier call panicked: the names are not known")
        })
    }
}

/// Return one of the views that any mapping has.
fn view<'py>(names: &Bound<'py, Names>, kind: &str) -> PyResult<Bound<'py, PyAny>> {
    let views = names.py().import("collections.abc")?;
    views.getattr(kind)?.call1((names,))
}

fn hash_of(name: &Bound<'_, PyString>) -> PyResult<u64> {
    Ok(name.hash()?.cast_unsigned() as u64)
}
