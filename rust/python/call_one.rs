//! A call with one argument, without a tuple around it: the only place with unsafe code for it.
//!
//! The stable interface has no vectorcall before Python 3.12. `PyObject_CallFunctionObjArgs` is in it, and makes one.

use pyo3::ffi;
use pyo3::prelude::*;

/// Call a function with one argument.
pub(super) fn call_one<'py>(
    function: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: both are live objects, the interpreter is attached, and the list of arguments ends with a null pointer. What
    // comes back is a new reference, or null with an exception set, which is what `from_owned_ptr_or_err` takes.
    unsafe {
        let returned = ffi::PyObject_CallFunctionObjArgs(function.as_ptr(), argument.as_ptr(), end);
        Bound::from_owned_ptr_or_err(py, returned)
    }
}
