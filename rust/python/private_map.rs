//! `PrivateMap`: a private memory map of a part of a file, and `punch_hole`, which deallocates a part of a file.
//!
//! `mmap.mmap` keeps a descriptor for each map (until Python 3.13 always), so a step that reads two thousand arrays
//! would run out of descriptors; and there is no notification when its last view is released. A `PrivateMap` needs no
//! descriptor, supports weak references, and keeps a Python object alive for as long as there are views of the memory.

use std::os::raw::{c_int, c_void};

use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

/// `length` bytes of a file from `offset` on, copy on write.
#[pyclass(frozen, weakref, module = "flowyml._core")]
pub(crate) struct PrivateMap {
    /// The address of the map as an integer: the class may be used by any thread.
    address: usize,
    length: usize,
    /// The object to keep alive as long as the memory is in use.
    #[allow(dead_code)]
    owner: Option<Py<PyAny>>,
}

#[pymethods]
impl PrivateMap {
    #[new]
    #[pyo3(signature = (fd, offset, length, owner=None))]
    fn new(fd: i32, offset: u64, length: usize, owner: Option<Py<PyAny>>) -> PyResult<Self> {
        if length == 0 {
            return Err(PyValueError::new_err("a map of nothing"));
        }
        check_end(fd, offset, length)?;
        Ok(Self {
            address: map(fd, offset, length)?,
            length,
            owner,
        })
    }

    fn __len__(&self) -> usize {
        self.length
    }

    /// Export the memory as a buffer; a view keeps this object alive.
    #[allow(clippy::needless_pass_by_value)]
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let this = slf.get();
        let length = isize::try_from(this.length)
            .map_err(|_| PyBufferError::new_err("the map is too long"))?;
        // SAFETY: `view` is Python's, to be filled here; the memory is mapped, readable and writable, until `Drop`, and
        // the view holds a reference to this object until it is released.
        let result = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                this.address as *mut c_void,
                length,
                0,
                flags,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(PyErr::fetch(slf.py()))
        }
    }
}

impl Drop for PrivateMap {
    fn drop(&mut self) {
        unmap(self.address, self.length);
    }
}

/// Deallocate the memory or the disk space of a part of a file; that part then reads as zeros.
#[pyfunction]
pub(crate) fn punch_hole(py: Python<'_>, fd: i32, offset: u64, length: u64) -> PyResult<()> {
    py.detach(|| punch(fd, offset, length)).map_err(PyErr::from)
}

/// Reject a part that reaches beyond the last page of the file: a read there would be a SIGBUS, which kills the
/// process.
///
/// The end is rounded up to whole pages, since a block may end with an empty buffer: its padding is not written, and reads as
/// zeros. A file that is truncated later is not covered; arenas of memory are sealed against that.
#[cfg(target_os = "linux")]
fn check_end(fd: i32, offset: u64, length: usize) -> PyResult<()> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat writes a whole `stat` if it returns 0, and nothing otherwise.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: fstat returned 0.
    let size = unsafe { status.assume_init() }.st_size.cast_unsigned();
    // SAFETY: integers in and out; this name is always known.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned();
    let end = offset.checked_add(length as u64);
    if end.is_some_and(|end| end <= size.next_multiple_of(page)) {
        Ok(())
    } else {
        Err(PyValueError::new_err(format!(
            "cannot map {length} bytes at offset {offset}: the file ends at {size}"
        )))
    }
}

#[cfg(target_os = "linux")]
fn map(fd: i32, offset: u64, length: usize) -> PyResult<usize> {
    let offset = libc::off_t::try_from(offset)
        .map_err(|_| PyValueError::new_err("an offset beyond all files"))?;
    // SAFETY: a new private map at an address that the kernel chooses does not touch existing memory.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE,
            fd,
            offset,
        )
    };
    if address == libc::MAP_FAILED {
        Err(std::io::Error::last_os_error().into())
    } else {
        Ok(address as usize)
    }
}

#[cfg(target_os = "linux")]
fn unmap(address: usize, length: usize) {
    // SAFETY: both are of a map that `map` made; its object is gone, and every view with it.
    unsafe { libc::munmap(address as *mut c_void, length) };
}

#[cfg(target_os = "linux")]
fn punch(fd: i32, offset: u64, length: u64) -> std::io::Result<()> {
    let number = |value| {
        libc::off_t::try_from(value).map_err(|_| std::io::Error::from_raw_os_error(libc::EFBIG))
    };
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: integers in and out; a wrong descriptor is an error.
    if unsafe { libc::fallocate(fd, mode, number(offset)?, number(length)?) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Other systems have no worker processes, and nothing to map.
#[cfg(not(target_os = "linux"))]
fn check_end(_: i32, _: u64, _: usize) -> PyResult<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn map(_: i32, _: u64, _: usize) -> PyResult<usize> {
    Err(std::io::Error::from(std::io::ErrorKind::Unsupported).into())
}

#[cfg(not(target_os = "linux"))]
fn unmap(_: usize, _: usize) {}

#[cfg(not(target_os = "linux"))]
fn punch(_: i32, _: u64, _: u64) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
