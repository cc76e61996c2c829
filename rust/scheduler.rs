//! One run of a graph: which items may run, how they ended, and what their ends mean for other items.
//!
//! ```text
//!                 dependencies complete          claim             complete
//!   waiting ────────────────────────▶ ready ────────────▶ running ──────────▶ success, cached,
//!    │  ▲                              │ ▲                  │ │ │              failed, timed_out,
//!    │  │                              │ └────give_back─────┘ │ │              skipped, cancelled
//!    │  └──────────────────────────────│────────retry─────────┘
//!    │          (until its delay is over)
//!    │                                 ├──cancel──▶ cancelled
//!    │                                 └───give───▶ given        (before anything is claimed)
//!    └──▶ upstream_failed, skipped, cancelled      (a dependency ended without a value)
//! ```
//!
//! A running item may be queued behind another one in its batch and begin when that has ended (`chains`). An item also
//! returns to waiting after a graft, until the new nodes that it awaits are complete (`graft`). A ready item may be
//! *parked*, because other batches hold the tokens that it needs (`limits`). A node may tolerate failures of its items
//! (`failure_tolerance`).
//!
//! *One writer.* Only `transition` changes the state of an item, and it updates the counts and the ready queue with it.
//! The consequences of an end are processed from a list (`propagate`), so a chain of a million steps needs no deep
//! stack.
//!
//! *The order of reports does not affect* the states in which items end. A failed dependency makes its dependents
//! `upstream_failed` at once, except joins; a skipped or cancelled one does so only once all dependencies are complete,
//! and a failure among them wins. Ready nodes are claimed by rank (critical path or add order), items of a node by
//! index; items that were given back come first again, because they precede all others of their node.
//!
//! *Joins.* A node that is a join waits until all its `All` dependencies are complete, in whatever state, and runs if
//! any of them has a value; otherwise it ends like the worst of them. Elementwise dependencies supply its items: it
//! needs those, like any other node.
//!
//! *Items and nodes.* A node is complete when all its items have ended. A node without items (length 0, or unknown when
//! its dependencies failed) is complete when its dependencies are, and has a state of its own
//! ([`Scheduler::node_state`]).
//!
//! The scheduler has no clock, lock or thread, and knows neither functions nor values nor why an item failed. An
//! illegal call is rejected and changes nothing.

mod batch;
mod chains;
mod devices;
mod expand;
mod failure_tolerance;
mod graft;
mod invariants;
mod limits;
mod mapped_nodes;
mod propagate;
mod ready;
mod release;
mod state;
mod timeline;
mod timers;
mod token_queues;
mod transitions;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::InvalidCall;
use crate::graph::{Graph, ItemId, NodeId};
use crate::rank_set::RankSet;

use batch::Ledger;
use mapped_nodes::{MappedNode, MappedNodes};
use propagate::Ended;
use release::Release;
use timers::Timers;
use token_queues::TokenQueues;

pub use batch::{Batch, ItemRange};
pub use devices::Choice;
pub use graft::Graft;
pub use limits::Limits;
pub use state::State;
pub use timeline::Timeline;
pub use transitions::Outcomes;

/// Which of several ready nodes runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The node with the longest path to a leaf; among equals the one added first.
    CriticalPath,
    /// The node added first, also among nodes that become ready in the middle of a batch.
    Add,
}

/// The state machine of one run.
#[derive(Debug)]
pub struct Scheduler {
    graph: Arc<Graph>,
    /// Distinguishes batches of this scheduler from those of others.
    id: u64,
    order: Order,
    timeline: Timeline,
    /// Number of items in each state.
    counts: [u32; State::COUNT],
    /// For each node the number of `All` dependencies that are not complete.
    pending: Vec<u32>,
    /// Number of nodes that are not complete.
    open_nodes: u32,
    maps: MappedNodes,
    /// Ranks of nodes that have ready items.
    ready_nodes: RankSet,
    /// Ready items of mapped nodes.
    ready_items: RankSet,
    /// Ready nodes that need tokens of limits.
    lanes: Option<Box<TokenQueues>>,
    ledger: Ledger,
    delays: Timers,
    /// Nodes whose length is due and was not requested yet, in the order in which they became due.
    expandable: VecDeque<NodeId>,
    release: Option<Release>,
    /// Ends that dependents have not processed yet; empty between calls.
    ended: Vec<Ended>,
    cancelled: bool,
    /// For each node whether it may be chained; empty if none may.
    chainable: Vec<u8>,
    /// Some node without items was skipped or cancelled.
    gapped: bool,
    /// Nodes that were cancelled individually.
    stopped: BTreeSet<NodeId>,
}

impl Scheduler {
    /// Begin a run of `graph`. `keep` has one byte for each node; values of nodes with a 0 are released after their
    /// last consumer. Without a mask nothing is released.
    ///
    /// # Errors
    ///
    /// A mask of the wrong length.
    ///
    /// O(nodes + edges + items).
    pub fn new(graph: Arc<Graph>, order: Order, keep: Option<&[u8]>) -> Result<Self, InvalidCall> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let graph = graph.built();
        let items = graph.item_count();
        let maps = MappedNodes::new(&graph);
        let release = keep.map(|keep| Release::new(&graph, keep)).transpose()?;
        let mut scheduler = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            order,
            timeline: Timeline::new(items),
            counts: State::Waiting.times(items),
            pending: propagate::pending(&graph),
            open_nodes: graph.node_count(),
            ready_nodes: RankSet::new(graph.node_count()),
            ready_items: RankSet::new(if maps.is_empty() { 0 } else { items }),
            maps,
            lanes: None,
            ledger: Ledger::default(),
            delays: Timers::default(),
            expandable: VecDeque::new(),
            release,
            ended: Vec::new(),
            cancelled: false,
            chainable: Vec::new(),
            gapped: false,
            stopped: BTreeSet::new(),
            graph,
        };
        let graph = Arc::clone(&scheduler.graph);
        for node in graph
            .nodes()
            .filter(|node| scheduler.pending[node.index()] == 0)
            .collect::<Vec<_>>()
        {
            scheduler.settle(&graph, node);
        }
        scheduler.propagate(&graph);
        Ok(scheduler)
    }

    /// Return the graph, including grafted nodes.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Return true if every node is complete.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.open_nodes == 0
    }

    /// Return true if the run is not finished and no event can change that: nothing is running or ready, no delay is
    /// pending, no length is due. The driver has nothing left to report then, so waiting for the run would never end. A
    /// node that [`Scheduler::next_expandable`] returned counts as answered: call this method after the answer.
    ///
    /// A run in which items are ready but lack tokens is not stalled, since tokens may be held outside of it. O(1).
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        let idle = self.count_in(State::Running) == 0 && self.count_in(State::Ready) == 0;
        idle && !self.is_finished() && self.delays.is_empty() && self.expandable.is_empty()
    }

    /// Return the number of items, including those of expanded nodes.
    #[must_use]
    pub fn item_count(&self) -> u32 {
        self.timeline.len()
    }

    /// Return the number of items in each state, by state.
    #[must_use]
    pub fn counts(&self) -> [u32; State::COUNT] {
        self.counts
    }

    /// Return the number of items in one state.
    #[must_use]
    pub fn count_in(&self, state: State) -> u32 {
        self.counts[state as usize]
    }

    /// Return the number of items that have not ended.
    #[must_use]
    pub fn unfinished(&self) -> u32 {
        [State::Waiting, State::Ready, State::Running]
            .map(|state| self.count_in(state))
            .iter()
            .sum()
    }

    /// Return the state of an item; `None` if the item does not exist.
    #[must_use]
    pub fn state(&self, item: ItemId) -> Option<State> {
        self.timeline.states.get(item.index()).copied()
    }

    /// Return state, attempts, worker and times of all items.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Return the first item of a node. Only meaningful if its count is not 0.
    #[must_use]
    pub fn first_item(&self, node: NodeId) -> ItemId {
        self.maps
            .get(node)
            .map_or_else(|| self.graph.first_item(node), |map| ItemId(map.first))
    }

    /// Return the number of items of a node; 0 while its length is not known.
    #[must_use]
    pub fn count(&self, node: NodeId) -> u32 {
        self.maps.get(node).map_or(1, |map| map.count)
    }

    /// Return the item ids of a node.
    #[inline]
    fn items(&self, node: NodeId) -> Range<u32> {
        if let Some(map) = self.maps.get(node) {
            return map.first..map.first + map.count;
        }
        let item = self.graph.first_item(node).0;
        item..item + 1
    }

    /// Return node and index of an item; `None` if the item does not exist. O(log nodes), O(1) without mapped nodes.
    #[must_use]
    pub fn locate(&self, item: ItemId) -> Option<(NodeId, u32)> {
        if item.0 >= self.item_count() {
            return None;
        }
        let node = if item.0 < self.graph.item_count() {
            self.graph.node_of(item)
        } else {
            self.maps.expanded(item)
        };
        Some((node, item.0 - self.first_item(node).0))
    }

    /// Return the state of a node. For a node with one item it is the item's state. Otherwise it is the most
    /// significant one: running, ready or waiting while the node is not complete, then the worst end of its items;
    /// tolerated failures count as success. O(items of the node).
    #[must_use]
    pub fn node_state(&self, node: NodeId) -> State {
        let first = self.first_item(node).index();
        let states = &self.timeline.states[first.min(self.timeline.states.len())..];
        let states = &states[..(self.count(node) as usize).min(states.len())];
        let forgives = self.maps.get(node).is_some_and(MappedNode::forgives);
        let counts_as = |state: State| {
            if forgives && state.is_bad() {
                State::Success
            } else {
                state
            }
        };
        states
            .iter()
            .map(|state| counts_as(*state))
            .max_by_key(|state| state.telling())
            .unwrap_or_else(|| self.maps.state_without_items(node))
    }

    /// Return the time at which the next delay is over.
    #[must_use]
    pub fn next_delay(&self) -> Option<f64> {
        self.delays.first()
    }

    /// Move items from one state to another: the only function that changes a state. All are in `from`. They are items
    /// of `node`, or of consecutive nodes of one item each, beginning with `node`.
    fn transition(&mut self, node: NodeId, items: Range<u32>, from: State, to: State) {
        let count = items.end - items.start;
        self.timeline.states[items.start as usize..items.end as usize].fill(to);
        self.counts[from as usize] -= count;
        self.counts[to as usize] += count;
        if from == State::Ready {
            self.unqueue(node, items.clone());
        }
        if to == State::Ready {
            self.enqueue(node, items);
        }
    }
}
