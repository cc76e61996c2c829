//! The graph of a run: nodes with a number of items, edges in both directions, and the order of preference of nodes.
//!
//! A graph is built by [`Graph::build`] from ids or by [`Graph::by_name`] from names. Both report all problems at once.
//! It never changes; nodes that a run adds are stored in the run's own copy (`extension`). It knows nothing of states: the
//! scheduler tracks which nodes are complete.
//!
//! Edges are stored in compressed rows (CSR), once by dependent and once by dependency: the neighbours of node v are
//! `targets[offsets[v]..offsets[v + 1]]`. An edge is kept once, however often it was given, and is `All` if it was
//! given as `All` at least once. A node is *mapped* if its number of items is not one, or if it has an elementwise
//! edge.
//!
//! *Lengths.* Nodes linked by elementwise edges have the same length. A dependent of a node of unknown length is itself
//! unknown, whatever was declared, and all nodes that take their length from one node (the *root* of the group) receive
//! it at the same moment.
//!
//! *Joins.* A node that is a join runs if any of its `All` dependencies has a value; any other node needs all of them.
//!
//! *Order.* The weight of a node is the number of nodes on the longest path from it to a leaf (a unit critical path);
//! its rank is its position when nodes are sorted by descending weight, then by id. If durations are known, the time on
//! that path replaces the weight ([`Graph::weighted`]).

mod build;
mod csr;
mod cycles;
mod extend;
mod extension;
mod item_counts;
mod names;
mod topological_order;

use std::sync::Arc;

pub use build::Edges;
use csr::Csr;
pub(crate) use extend::Known;
pub use extend::NewNodes;
pub(crate) use extension::ExtendedGraph;
use extension::Extension;
use item_counts::ItemCounts;

/// The count of a node whose length is known only at run time.
pub const UNKNOWN: u32 = u32::MAX;

/// A node: its position in the order in which nodes were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct NodeId(pub u32);

/// An item: one call of a node. The items of a node are contiguous, and nodes follow each other in id order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ItemId(pub u32);

impl NodeId {
    /// Return the id as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl ItemId {
    /// Return the id as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an edge waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every item waits for all items of the dependency.
    All,
    /// Item i waits for item i.
    Elementwise,
}

/// A validated graph. The built part never changes; a run may own a copy with more nodes ([`Scheduler::graft`]).
///
/// [`Scheduler::graft`]: crate::scheduler::Scheduler::graft
#[derive(Clone, Debug)]
pub struct Graph {
    base: Arc<Base>,
    ranks: Arc<Ranks>,
    /// For each node of the base, 1 if it is a join; empty if none is.
    joins: Arc<[u8]>,
    growth: Option<Box<Extension>>,
}

/// The graph as it was built.
#[derive(Debug)]
struct Base {
    dependencies: Csr,
    dependents: Csr,
    lengths: ItemCounts,
    weights: Vec<u32>,
}

/// The order in which nodes are preferred. Both are empty if it equals the id order, as in fan-outs and chains.
#[derive(Debug)]
struct Ranks {
    /// The rank of each node.
    of: Vec<u32>,
    /// The node of each rank.
    nodes: Vec<u32>,
}

impl Ranks {
    /// Keep the order only if it differs from the id order.
    fn new(of: Vec<u32>, nodes: Vec<u32>) -> Self {
        let telling = nodes.iter().zip(0..).any(|(node, rank)| *node != rank);
        if telling {
            Self { of, nodes }
        } else {
            Self {
                of: Vec::new(),
                nodes: Vec::new(),
            }
        }
    }

    fn of(&self, node: u32) -> u32 {
        self.of.get(node as usize).copied().unwrap_or(node)
    }

    fn at(&self, rank: u32) -> u32 {
        self.nodes.get(rank as usize).copied().unwrap_or(rank)
    }
}

impl Graph {
    /// Make joins of the nodes whose byte is not 0.
    ///
    /// # Panics
    ///
    /// If the number of bytes differs from the number of nodes.
    #[must_use]
    pub fn with_joins(mut self, joins: Vec<u8>) -> Self {
        assert_eq!(
            joins.len(),
            self.base_count() as usize,
            "one byte for each node"
        );
        if joins.iter().any(|join| *join != 0) {
            self.joins = joins.into();
        }
        self
    }

    /// Return true if `node` runs as soon as any of its `All` dependencies has a value.
    #[must_use]
    pub fn is_join(&self, node: NodeId) -> bool {
        match &self.growth {
            None => self.joins.get(node.index()).is_some_and(|join| *join != 0),
            Some(growth) => growth
                .is_join(node)
                .unwrap_or_else(|| self.joins.get(node.index()).is_some_and(|join| *join != 0)),
        }
    }

    /// Return true if there may be joins.
    pub(crate) fn has_joins(&self) -> bool {
        let grown = self.growth.as_ref();
        !self.joins.is_empty() || grown.is_some_and(|growth| growth.has_joins())
    }

    /// Return all joins in id order. O(nodes), O(1) if there are none.
    pub fn joins(&self) -> impl Iterator<Item = NodeId> + '_ {
        let nodes = if self.has_joins() {
            self.node_count()
        } else {
            0
        };
        (0..nodes).map(NodeId).filter(|node| self.is_join(*node))
    }

    /// Return the graph as it was built, without the nodes that a run has added.
    pub(crate) fn built(self: Arc<Self>) -> Arc<Self> {
        if self.growth.is_none() {
            return self;
        }
        Arc::new(Self {
            growth: None,
            ..Self::clone(&self)
        })
    }

    /// Return the number of nodes that were built.
    #[must_use]
    pub(crate) fn base_count(&self) -> u32 {
        self.base.weights.len() as u32
    }

    /// Return the number of nodes.
    #[must_use]
    pub fn node_count(&self) -> u32 {
        self.base_count() + self.growth.as_ref().map_or(0, |growth| growth.node_count())
    }

    /// Return the number of items whose existence is known before a run.
    #[must_use]
    pub fn item_count(&self) -> u32 {
        self.base.lengths.total(self.base_count())
    }

    /// Return the number of distinct edges that were built.
    #[must_use]
    pub fn edge_count(&self) -> u32 {
        self.base.dependencies.targets.len() as u32
    }

    /// Return all nodes in id order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.node_count()).map(NodeId)
    }

    /// Return the dependencies of `node`, in the order in which the edges were given.
    pub fn dependencies(&self, node: NodeId) -> impl Iterator<Item = (NodeId, Kind)> + '_ {
        let more = self
            .growth
            .as_ref()
            .map_or(&[][..], |growth| growth.dependencies(node));
        self.base
            .dependencies
            .edges(node.0)
            .chain(more.iter().copied())
    }

    /// Return the dependents of `node`, in id order.
    pub fn dependents(&self, node: NodeId) -> impl Iterator<Item = (NodeId, Kind)> + '_ {
        let more = self
            .growth
            .as_ref()
            .map_or(&[][..], |growth| growth.dependents(node));
        self.base
            .dependents
            .edges(node.0)
            .chain(more.iter().copied())
    }

    /// Return the dependencies that decide whether `node` may run. After a graft these are only the nodes that it
    /// awaits since then, because it has already run with its earlier dependencies.
    pub(crate) fn deciding(&self, node: NodeId) -> impl Iterator<Item = (NodeId, Kind)> + '_ {
        let decided = self
            .growth
            .as_ref()
            .map_or(0, |growth| growth.decided(node));
        self.dependencies(node).skip(decided)
    }

    /// Return true if any edge that was built is elementwise.
    #[must_use]
    pub fn has_elementwise(&self) -> bool {
        !self.base.dependencies.elementwise.is_empty()
    }

    /// Return the first item of `node`, which was built; for a node of unknown length, the position where it would be.
    #[must_use]
    pub fn first_item(&self, node: NodeId) -> ItemId {
        ItemId(self.base.lengths.first(node.0))
    }

    /// Return the number of items of `node`, or [`UNKNOWN`].
    #[must_use]
    pub fn count(&self, node: NodeId) -> u32 {
        let grown = self.growth.as_ref();
        grown
            .and_then(|growth| growth.count(node))
            .unwrap_or_else(|| self.base.lengths.count(node.0))
    }

    /// Return the node of `item`, which was built. O(log nodes) if there are mapped nodes, else O(1).
    #[must_use]
    pub fn node_of(&self, item: ItemId) -> NodeId {
        NodeId(self.base.lengths.node_of(item.0))
    }

    /// Return the nodes that take their length from `root`, itself first, each after the nodes it depends on; empty if
    /// `root` is not a root of unknown length.
    #[must_use]
    pub fn group(&self, root: NodeId) -> Vec<u32> {
        let more = self
            .growth
            .as_ref()
            .map_or(&[][..], |growth| growth.group(root));
        [self.base.lengths.group(root.0), more].concat()
    }

    /// Return the root from which a node of unknown length takes it.
    fn root(&self, node: NodeId) -> Option<u32> {
        let grown = self.growth.as_ref();
        grown
            .and_then(|growth| growth.root(node))
            .or_else(|| self.base.lengths.root(node.0))
    }

    /// Return the mapped nodes that were built, in id order. O(nodes), with elementwise edges O(nodes + edges), O(1) if
    /// none is mapped.
    #[must_use]
    pub fn mapped(&self) -> Vec<NodeId> {
        if !self.has_elementwise() {
            return self.base.lengths.mapped().collect();
        }
        let tied = |rows: &Csr, node: NodeId| {
            rows.edges(node.0)
                .any(|(_, kind)| kind == Kind::Elementwise)
        };
        let mapped = (0..self.base_count()).map(NodeId).filter(|node| {
            self.count(*node) != 1
                || tied(&self.base.dependencies, *node)
                || tied(&self.base.dependents, *node)
        });
        mapped.collect()
    }

    /// Return the number of nodes on the longest path from `node` to a leaf, itself included, by the edges that existed
    /// when the node was added.
    #[must_use]
    pub fn weight(&self, node: NodeId) -> u32 {
        let grown = self.growth.as_ref();
        grown
            .and_then(|growth| growth.weight(node))
            .unwrap_or_else(|| self.base.weights[node.index()])
    }

    /// Return this graph with ranks by remaining time: from the start of a node to the end of the last leaf that
    /// depends on it, as far as known. `durations` holds the seconds of each node that was built. The set of nodes that
    /// may run does not change.
    ///
    /// # Panics
    ///
    /// If the number of durations differs from the number of nodes.
    ///
    /// O(nodes log nodes + edges).
    #[must_use]
    pub fn weighted(&self, durations: &[f64]) -> Self {
        assert_eq!(
            durations.len(),
            self.base_count() as usize,
            "one duration for each node"
        );
        let ranks =
            topological_order::by_time(durations, self.by_rank().rev(), &self.base.dependents);
        Self {
            ranks: Arc::new(ranks),
            ..self.clone()
        }
    }

    /// Return the position of `node` among the built nodes by descending weight, then id.
    #[must_use]
    pub fn rank(&self, node: NodeId) -> u32 {
        self.ranks.of(node.0)
    }

    fn by_rank(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        (0..self.base_count()).map(|rank| self.ranks.at(rank))
    }

    /// Return the node of a rank.
    #[must_use]
    pub fn at_rank(&self, rank: u32) -> NodeId {
        NodeId(self.ranks.at(rank))
    }

    /// Return a topological order of the built graph: the order in which a single worker that prefers the least rank
    /// runs it.
    ///
    /// It is the order by rank. A dependency is heavier than its dependents, so its rank is less; hence the node of the
    /// least rank that has not run is always ready. O(nodes).
    #[must_use]
    pub fn order(&self) -> Vec<NodeId> {
        self.in_order().collect()
    }

    /// Iterate over the nodes in [`Graph::order`].
    #[must_use]
    pub fn in_order(&self) -> impl ExactSizeIterator<Item = NodeId> + '_ {
        (0..self.base_count()).map(|rank| self.at_rank(rank))
    }
}
