//! Calls of Python from a daemon thread during the interpreter's shutdown: the only place with unsafe code for it.
//!
//! Threads of executors are daemons, so that a step that never ends does not keep the program alive. Before Python 3.14
//! such a thread ends in `pthread_exit` once it requests the global lock of an interpreter that is shutting down, and
//! that unwinds its stack. Rust cannot catch this in the functions that call the step: they would abort the whole
//! program with SIGABRT instead of letting it exit normally. So the thread blocks here permanently, as it does from
//! Python 3.14 on.
//!
//! A C++ exception that escapes from an extension unwinds the stack in the same way. The frames of the interpreter that
//! it passes release nothing, neither the global lock nor a reference, so it cannot become an error of the step: the
//! process is aborted with a message, as C++ itself does if the step is called from Python. If a worker process aborts,
//! only its step fails; in a thread or the local executor the program ends. The two kinds of unwinding are
//! distinguished by the state of the interpreter: it ends threads only during its shutdown.
//!
//! Not covered before Python 3.14: a daemon thread that is in a finalizer (`__del__`) of an object whose last reference is
//! dropped between two calls when the interpreter shuts down.

use std::mem;
use std::process::abort;
use std::thread;
use std::time::Duration;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

unsafe extern "C-unwind" {
    /// The declaration in `ffi` may not unwind. Nothing else here may call this function: one declaration holds for the
    /// whole of a program that is optimised as one unit.
    fn PyObject_CallObject(
        callable: *mut ffi::PyObject,
        arguments: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;

    /// The same holds for this one.
    fn PyObject_CallFunctionObjArgs(callable: *mut ffi::PyObject, ...) -> *mut ffi::PyObject;
}

/// The time between two checks whether the interpreter is shutting down: it ends threads a few instructions before it
/// reports that.
const GRACE: Duration = Duration::from_millis(100);

/// Dropped only if a call neither returns nor raises.
struct DaemonThreadGuard;

impl Drop for DaemonThreadGuard {
    fn drop(&mut self) {
        if is_alive() {
            thread::sleep(GRACE);
        }
        if is_alive() {
            eprintln!(
                "flowyml: a C++ exception left the function of a step, through an extension module that does not catch it; \
                 the interpreter cannot continue"
            );
            abort();
        }
        loop {
            thread::park();
        }
    }
}

/// Return true unless the interpreter is shutting down.
fn is_alive() -> bool {
    // SAFETY: it reads one number, and may be called by any thread at any time.
    unsafe { ffi::Py_IsInitialized() != 0 }
}

/// Call a function.
pub(super) fn daemon_call<'py>(
    function: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    let hold = DaemonThreadGuard;
    // SAFETY: both are live objects, the second is a tuple, the interpreter is attached.
    // The result is a new reference, or null with an exception set, as `from_owned_ptr_or_err` requires.
    // No Rust panic unwinds through it, since the functions of ours that Python calls catch panics.
    let returned = unsafe { PyObject_CallObject(function.as_ptr(), arguments.as_ptr()) };
    mem::forget(hold);
    // SAFETY: see above.
    unsafe { Bound::from_owned_ptr_or_err(py, returned) }
}

/// Call a function with one argument, without a tuple around it.
///
/// The stable interface has no vectorcall before Python 3.12. It has `PyObject_CallFunctionObjArgs`, which makes one.
pub(super) fn held_call_one<'py>(
    function: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    let hold = DaemonThreadGuard;
    // SAFETY: as above, and the list of arguments ends with a null pointer.
    let returned = unsafe {
        let end = std::ptr::null_mut::<ffi::PyObject>();
        PyObject_CallFunctionObjArgs(function.as_ptr(), argument.as_ptr(), end)
    };
    mem::forget(hold);
    // SAFETY: as above.
    unsafe { Bound::from_owned_ptr_or_err(py, returned) }
}
