//! The nodes that a run added to its graph, and edges from and to them.
//!
//! Only the run that added them sees them. Nodes that were built keep their position, weight and edges; they may have
//! gained dependents, and a node that was grafted onto also dependencies: the new nodes that it awaits.

use std::collections::BTreeMap;

use super::{Graph, Kind, NodeId};

/// The other end of an edge, and its kind.
pub(super) type End = (NodeId, Kind);

/// Added nodes and edges by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Extension {
    /// The id of the first of the nodes.
    first: u32,
    nodes: Vec<Node>,
    /// Some of them are joins.
    joins: bool,
    /// Further edges of nodes that were built.
    edges: BTreeMap<u32, ExtraEdges>,
    /// For each node that was grafted onto, the number of dependencies that it had before it last ran.
    decided: BTreeMap<u32, usize>,
    /// Further nodes that get their length from a root.
    groups: BTreeMap<u32, Vec<u32>>,
}

/// A node that was added.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) edges: ExtraEdges,
    pub(super) count: u32,
    /// The root of its length, if that is unknown.
    pub(super) root: Option<u32>,
    pub(super) weight: u32,
    pub(super) join: bool,
}

/// Edges of a node in both directions.
#[derive(Clone, Debug, Default)]
pub(super) struct ExtraEdges {
    pub(super) dependencies: Vec<End>,
    /// In id order.
    pub(super) dependents: Vec<End>,
}

impl Extension {
    fn node(&self, node: NodeId) -> Option<&Node> {
        let at = node.index().checked_sub(self.first as usize)?;
        self.nodes.get(at)
    }

    fn edges(&self, node: NodeId) -> Option<&ExtraEdges> {
        match self.node(node) {
            Some(node) => Some(&node.edges),
            None => self.edges.get(&node.0),
        }
    }

    fn edges_mut(&mut self, node: NodeId) -> &mut ExtraEdges {
        match node.0.checked_sub(self.first) {
            Some(at) => &mut self.nodes[at as usize].edges,
            None => self.edges.entry(node.0).or_default(),
        }
    }

    pub(super) fn node_count(&self) -> u32 {
        self.nodes.len() as u32
    }

    pub(super) fn dependencies(&self, node: NodeId) -> &[End] {
        self.edges(node).map_or(&[], |edges| &edges.dependencies)
    }

    pub(super) fn dependents(&self, node: NodeId) -> &[End] {
        self.edges(node).map_or(&[], |edges| &edges.dependents)
    }

    pub(super) fn decided(&self, node: NodeId) -> usize {
        self.decided.get(&node.0).copied().unwrap_or(0)
    }

    /// Return true if a node is a join; `None` if that is unchanged since the build. After a graft it needs all nodes
    /// that it awaits.
    pub(super) fn is_join(&self, node: NodeId) -> Option<bool> {
        if self.decided.contains_key(&node.0) {
            return Some(false);
        }
        self.node(node).map(|node| node.join)
    }

    pub(super) fn has_joins(&self) -> bool {
        self.joins
    }

    pub(super) fn count(&self, node: NodeId) -> Option<u32> {
        self.node(node).map(|node| node.count)
    }

    pub(super) fn weight(&self, node: NodeId) -> Option<u32> {
        self.node(node).map(|node| node.weight)
    }

    pub(super) fn root(&self, node: NodeId) -> Option<u32> {
        self.node(node).and_then(|node| node.root)
    }

    pub(super) fn group(&self, root: NodeId) -> &[u32] {
        self.groups.get(&root.0).map_or(&[], Vec::as_slice)
    }
}

/// Validated nodes; made by [`Graph::grow`].
pub(crate) struct ExtendedGraph {
    /// Their dependencies are complete, dependents are missing.
    pub(super) nodes: Vec<Node>,
    /// Those of unknown length, dependencies first.
    pub(super) unknown: Vec<u32>,
    pub(super) awaited: Vec<NodeId>,
}

impl ExtendedGraph {
    /// Return the elementwise edges as (dependent, dependency).
    pub(crate) fn elementwise(&self, first: NodeId) -> Vec<(NodeId, NodeId)> {
        let edges = (first.0..).map(NodeId).zip(&self.nodes);
        let pairs =
            edges.flat_map(|(node, of)| of.edges.dependencies.iter().map(move |e| (node, e)));
        let elementwise = pairs.filter(|(_, end)| end.1 == Kind::Elementwise);
        elementwise.map(|(node, end)| (node, end.0)).collect()
    }

    /// Return the number of awaited nodes.
    pub(crate) fn awaited_count(&self) -> u32 {
        self.awaited.len() as u32
    }

    /// Return the distinct dependencies that are existing nodes, with ids below `first`.
    pub(crate) fn older(&self, first: NodeId) -> Vec<NodeId> {
        let ends = self.nodes.iter().flat_map(|node| &node.edges.dependencies);
        let mut older: Vec<NodeId> = ends.map(|end| end.0).filter(|end| *end < first).collect();
        older.sort_unstable();
        older.dedup();
        older
    }
}

impl Graph {
    /// Add nodes after all others and let `at` wait for those that it awaits. O(nodes and edges added).
    pub(crate) fn extend(&mut self, at: NodeId, grown: ExtendedGraph) {
        let decided = self.dependencies(at).count();
        let first = self.node_count();
        let base = self.base_count();
        let growth = self.growth.get_or_insert_default();
        growth.first = base;
        growth.joins |= grown.nodes.iter().any(|node| node.join);
        for node in grown.unknown {
            let root = grown.nodes[(node - first) as usize].root;
            growth
                .groups
                .entry(root.unwrap_or(node))
                .or_default()
                .push(node);
        }
        growth.nodes.extend(grown.nodes);
        for node in (first..base + growth.node_count()).map(NodeId) {
            for (dependency, kind) in growth.dependencies(node).to_vec() {
                growth.edges_mut(dependency).dependents.push((node, kind));
            }
        }
        for node in grown.awaited {
            let dependents = &mut growth.edges_mut(node).dependents;
            dependents.insert(0, (at, Kind::All)); // all others are new, after `at`
            growth.edges_mut(at).dependencies.push((node, Kind::All));
        }
        growth.decided.insert(at.0, decided);
    }
}
