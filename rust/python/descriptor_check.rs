//! `DescriptorCheck`: checks in a fraction of a microsecond whether descriptors still refer to the same files.
//!
//! `os.fstat` builds an object of twenty attributes; a worker checks after every step.

use pyo3::prelude::*;

/// Device and inode of a file; `None` for a descriptor that is closed.
type Identity = Option<(u64, u64)>;

/// Descriptors, and the files to which they referred when this was created.
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

/// Change to the directory of a descriptor; false if it is not a directory.
#[cfg(unix)]
pub(super) fn enter(descriptor: i32) -> bool {
    // SAFETY: fchdir accepts any integer, and fails if it is not the descriptor of a directory.
    unsafe { libc::fchdir(descriptor) == 0 }
}

/// Other systems have no such worker.
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

/// The result of `fstat`, by the system call of that name: the wrapper of the C library takes half as long again.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn identity(descriptor: i32) -> Identity {
    // SAFETY: fstat writes a whole `stat` if it returns 0, and nothing otherwise; a closed descriptor is an error. On
    // this system the kernel's `stat` and that of the C library are the same.
    status(|status| unsafe { libc::syscall(libc::SYS_fstat, descriptor, status) } as libc::c_int)
}

#[cfg(all(unix, not(all(target_os = "linux", target_arch = "x86_64"))))]
fn identity(descriptor: i32) -> Identity {
    // SAFETY: fstat writes a whole `stat` if it returns 0, and nothing otherwise; a closed descriptor is an error.
    status(|status| unsafe { libc::fstat(descriptor, status) })
}

#[cfg(unix)]
fn status(ask: impl FnOnce(*mut libc::stat) -> libc::c_int) -> Identity {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    if ask(status.as_mut_ptr()) != 0 {
        return None;
    }
    // SAFETY: both callers above write all of it if they return 0.
    let status = unsafe { status.assume_init() };
    // The types of both differ from system to system.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    Some((status.st_dev as u64, status.st_ino as u64))
}

/// Other systems have no such worker.
#[cfg(not(unix))]
fn identity(_: i32) -> Identity {
    None
}
