//! Memory that Python owns (a map of a memfd, a bytearray) as atomic words that another process also changes.
//!
//! The only place with unsafe code for claim words and results: `crate::claims` and `crate::result_ring` define their
//! meaning.

use std::sync::atomic::AtomicU64;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyIndexError};
use pyo3::prelude::*;

/// Bytes of a word.
const SIZE: usize = size_of::<AtomicU64>();

/// Some words of a buffer.
pub(super) struct SharedAtomics {
    /// Keeps the memory from being released or resized.
    buffer: PyBuffer<u8>,
    /// The byte offset of the words.
    offset: usize,
    count: usize,
}

impl SharedAtomics {
    /// All words of a buffer.
    pub(super) fn all(buffer: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(buffer)?;
        check(&buffer)?;
        let count = buffer.len_bytes() / SIZE;
        Ok(Self {
            buffer,
            offset: 0,
            count,
        })
    }

    /// The first `count` words of piece `index` of a buffer, which is cut into pieces of `stride` bytes.
    pub(super) fn piece(
        buffer: &Bound<'_, PyAny>,
        index: usize,
        stride: usize,
        count: usize,
    ) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(buffer)?;
        let offset = place(&buffer, index, stride)?;
        check(&buffer)?;
        Ok(Self {
            buffer,
            offset,
            count,
        })
    }

    pub(super) fn get(&self) -> &[AtomicU64] {
        if self.count == 0 {
            return &[]; // of an empty buffer, which may have no address
        }
        let start = self.buffer.buf_ptr().wrapping_byte_add(self.offset);
        // SAFETY: `check` has verified that the memory is writable, contiguous and aligned to eight bytes, `all` and
        // `place` that it is long enough. It does not move while `self.buffer` is held. Flowyml accesses these words
        // only through such atomics, in this process and in the other one, except for zeroing them while no worker uses
        // them. They are plain integers: any content is valid.
        unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), self.count) }
    }
}

/// Rejects memory that cannot hold atomics.
fn check(buffer: &PyBuffer<u8>) -> PyResult<()> {
    let complaint = if buffer.readonly() {
        "words shared with another process need a writable buffer"
    } else if !buffer.is_c_contiguous() {
        "words shared with another process need a contiguous buffer"
    } else if buffer.buf_ptr().align_offset(align_of::<AtomicU64>()) != 0 {
        "words shared with another process need a buffer aligned to 8 bytes"
    } else {
        return Ok(());
    };
    Err(PyBufferError::new_err(complaint))
}

/// The position where piece `index` starts.
fn place(buffer: &PyBuffer<u8>, index: usize, stride: usize) -> PyResult<usize> {
    let offset = index.checked_mul(stride);
    offset
        .filter(|offset| {
            offset
                .checked_add(stride)
                .is_some_and(|end| end <= buffer.len_bytes())
        })
        .ok_or_else(|| {
            PyIndexError::new_err(format!(
                "no words for worker {index} in a buffer of {} bytes; each takes {stride}",
                buffer.len_bytes()
            ))
        })
}
