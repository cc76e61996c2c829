//! `DescriptorCheck`: tells whether descriptors are still the files that they were, in a fraction of a microsecond.
//!
//! `os.fstat` builds an object of twenty attributes; a worker asks after every step.

use pyo3::prelude::*;

/// Device and inode of a file; `None` for a descriptor that is closed.
type Identity = Option<(u64, u64)>;

/// Descriptors, and which files they were when this was made.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct DescriptorCheck {
    files: Vec<(i32, Identity)>,
}

#[pymethods]
impl DescriptorCheck {
    #[new]
    fn new(descriptors: Vec<i32>) -> Self {
        Self::of(descriptors)
    }

    pub(super) fn unchanged(&self) -> bool {
        self.files
            .iter()
            .all(|(descriptor, was)| identity(*descriptor) == *was)
    }
}

/// Go to the directory of a descriptor; false if it is none.
#[cfg(unix)]
pub(super) fn enter(descriptor: i32) -> bool {
    // SAFETY: fchdir takes any number, and tells which are no directories.
    unsafe { libc::fchdir(descriptor) == 0 }
}

/// Elsewhere there is no such worker.
#[cfg(not(unix))]
pub(super) fn enter(_: i32) -> bool {
    false
}

impl DescriptorCheck {
    pub(super) fn of(descriptors: Vec<i32>) -> Self {
        let files = descriptors
            .into_iter()
            .map(|descriptor| (descriptor, identity(descriptor)))
            .collect();
        Self { files }
    }
}

/// What `fstat` tells, by the system call of that name: what the C library makes of it takes half as long again.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn identity(descriptor: i32) -> Identity {
    // SAFETY: fstat writes a whole `stat` where it returns 0, and nothing otherwise; a closed descriptor is an error. On
    // this system the kernel's `stat` and that of the C library are the same.
    status(|status| unsafe { libc::syscall(libc::SYS_fstat, descriptor, status) } as libc::c_int)
}

#[cfg(all(unix, not(all(target_os = "linux", target_arch = "x86_64"))))]
fn identity(descriptor: i32) -> Identity {
    // SAFETY: fstat writes a whole `stat` where it returns 0, and nothing otherwise; a closed descriptor is an error.
    status(|status| unsafe { libc::fstat(descriptor, status) })
}

#[cfg(unix)]
fn status(ask: impl FnOnce(*mut libc::stat) -> libc::c_int) -> Identity {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    if ask(status.as_mut_ptr()) != 0 {
        return None;
    }
    // SAFETY: both callers above write all of it where they return 0.
    let status = unsafe { status.assume_init() };
    // The types of both differ from system to system.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    Some((status.st_dev as u64, status.st_ino as u64))
}

/// Elsewhere there is no such worker.
#[cfg(not(unix))]
fn identity(_: i32) -> Identity {
    None
}
