//! The atomics of memory that the driver shares with worker processes.
//!
//! `claims` and `result_ring` use them only through this module, so that `tests/loom/` can compile the same files with
//! the atomics of loom, which tries every order of both sides and every value that a load may return.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
