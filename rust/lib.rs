//! The scheduling core of flowyml: it decides which items may run next, and does nothing else.
//!
//! A [`graph::Graph`] is built once, validated once and never changes. A [`scheduler::Scheduler`] is one run of it: it
//! hands out batches of ready items, receives their outcomes, and decides which items become ready, skipped or
//! impossible. An item may expand into more nodes, which are grafted onto the run's own copy of the graph.
//!
//! ```text
//!   names, edges ──build──▶ Graph ──Arc──▶ Scheduler ◀──claim── workers
//!                             │               ▲   │
//!                     all problems at once    │   └──▶ Batch (runs of items)
//!                                             └── complete, retry, give_back, expand, graft, cancel
//! ```
//!
//! * A *node* is a step. It has a number of *items*, the calls it consists of: an ordinary step has one, a mapped step
//!   has one for each element. That number may be known only at run time ([`graph::UNKNOWN`]).
//! * An *edge* is `All` (every item waits for the whole dependency) or `Elementwise` (item i waits for item i). A fan-out
//!   of ten million is one node and no edges.
//! * Nodes and items are dense `u32` ids in the order in which they were added. Only [`graph::Graph::by_name`] accepts
//!   names; a [`name_table::NameTable`] maps hashes of names to ids.
//! * The core has no clock, lock or Python object, and no thread except the one that helps to build a large graph:
//!   times are numbers that the caller passes in, and the same calls give the same results. The binding (`python`,
//!   behind the feature of that name) adds the lock and the wait.

mod atomic;
pub mod batch_sizer;
pub mod claims;
pub mod error;
pub mod graph;
pub mod name_table;
pub mod rank_set;
pub mod result_ring;
pub mod scheduler;

#[cfg(feature = "python")]
mod python;
