//! The atomics of memory that the driver shares with worker processes.
//!
//! `claims` and `results` use them through this module only, so that `tests/loom/` can compile the same files with
//! those of loom, which tries every order of both sides and every value that a load may return.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
