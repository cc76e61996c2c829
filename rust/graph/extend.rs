//! Validation of nodes that are added to a running graph: like `build`, for the new part alone.
//!
//! New nodes may depend on each other and on existing nodes. Only one existing node, the one that is grafted onto, gets
//! new dependencies: the nodes it awaits. So a new cycle leads through new nodes, and through older ones only if one of
//! them depends on the grafted node. Nodes that have begun do not; if no other node remains, older nodes are not
//! searched.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::csr::{Csr, by_dependent, transpose};
use super::extension::{End, ExtendedGraph, ExtraEdges, Node};
use super::topological_order::{Direction, TopologicalOrder, peel, sweep};
use super::{Edges, Graph, Kind, NodeId, UNKNOWN, cycles, item_counts};
use crate::error::GraphProblem;

/// Nodes to be added after all others; their ids continue from the last one.
#[derive(Clone, Debug, Default)]
pub struct NewNodes {
    /// The number of items of each, or [`UNKNOWN`].
    pub counts: Vec<u32>,
    /// Edges whose dependents are new nodes.
    pub edges: Edges,
    /// For each 1 if it is a join; empty if none is.
    pub joins: Vec<u8>,
    /// New nodes that the grafted node awaits.
    pub awaited: Vec<u32>,
}

/// What a run knows about existing nodes.
pub(crate) trait Known {
    /// Return the number of items, or `None` if it is not known.
    fn length(&self, node: NodeId) -> Option<u32>;
    /// Return true if the node certainly does not depend on a running one.
    fn has_begun(&self, node: NodeId) -> bool;
}

impl Graph {
    /// Check an addition for the node `at` and compute lengths and weights. The run has `items` items.
    ///
    /// # Errors
    ///
    /// As for [`Graph::build`]; a dependent or an awaited node that is not new is also out of range.
    ///
    /// # Panics
    ///
    /// If arrays that belong together have different lengths.
    ///
    /// O(new nodes + edges), and if a dependency is an existing node that may depend on `at`, O(dependents of `at`).
    pub(crate) fn grow(
        &self,
        at: NodeId,
        addition: &NewNodes,
        items: u32,
        known: &impl Known,
    ) -> Result<ExtendedGraph, Vec<GraphProblem>> {
        let edges = &addition.edges;
        let new = addition.counts.len();
        assert_eq!(
            edges.dependents.len(),
            edges.dependencies.len(),
            "edges are pairs"
        );
        assert!(
            edges.elementwise.is_empty() || edges.elementwise.len() == edges.len(),
            "one kind for each edge"
        );
        assert!(
            addition.joins.is_empty() || addition.joins.len() == new,
            "one byte for each node"
        );
        let first = self.node_count();
        let nodes = u64::from(first) + new as u64;
        if nodes.max(edges.len() as u64) >= u64::from(UNKNOWN) {
            return Err(vec![GraphProblem::TooLarge]);
        }
        let ids = first..first + new as u32;
        let mut problems = check(&ids, addition);
        let mut awaited: Vec<NodeId> = addition.awaited.iter().copied().map(NodeId).collect();
        awaited.retain(|node| ids.contains(&node.0));
        awaited.sort_unstable();
        awaited.dedup();
        let part = Part {
            at,
            rows: rows(&ids, edges),
            ids,
            awaited,
        };
        let behind = part.behind(self, known);
        let (dependencies, peeled, found) = part.peel(&behind);
        let acyclic = found.is_empty();
        problems.extend(found);
        let mut nodes = bare(addition);
        let mut unknown = Vec::new();
        if acyclic {
            unknown = part.settle_lengths(self, &mut nodes, &peeled.order, known);
        }
        let same = |a: Length, b: Length| a == b || !acyclic && (a.0 == UNKNOWN || b.0 == UNKNOWN);
        problems.extend(part.mismatches(self, &nodes, same, known));
        if !problems.is_empty() {
            return Err(problems);
        }
        if item_counts::items(items, nodes.iter().map(|node| node.count)) >= u64::from(UNKNOWN) {
            return Err(vec![GraphProblem::TooLarge]);
        }
        part.weigh(self, &mut nodes, &dependencies, &peeled.order);
        for (node, row) in nodes.iter_mut().zip(part.rows) {
            node.edges.dependencies = row;
        }
        let awaited = part.awaited;
        Ok(ExtendedGraph {
            nodes,
            unknown,
            awaited,
        })
    }
}

fn check(ids: &Range<u32>, addition: &NewNodes) -> Vec<GraphProblem> {
    let mut problems = Vec::new();
    let edges = &addition.edges;
    let out = |id: u32| GraphProblem::OutOfRange { node: NodeId(id) };
    for (&dependent, &dependency) in edges.dependents.iter().zip(&edges.dependencies) {
        let ends = [
            (dependent, ids.contains(&dependent)),
            (dependency, dependency < ids.end),
        ];
        let wrong = ends.into_iter().filter(|end| !end.1);
        problems.extend(wrong.map(|end| out(end.0)));
        if dependent == dependency && ids.contains(&dependent) {
            let node = NodeId(dependent);
            problems.push(GraphProblem::SelfDependency { node });
        }
    }
    let awaited = addition.awaited.iter().copied();
    problems.extend(awaited.filter(|id| !ids.contains(id)).map(out));
    problems.dedup();
    problems
}

/// Return the dependencies of each new node, once each, `All` before elementwise. Invalid edges are left out.
fn rows(ids: &Range<u32>, edges: &Edges) -> Vec<Vec<End>> {
    let mut rows = vec![Vec::<End>::new(); ids.len()];
    let mut places = BTreeMap::new();
    for edge in 0..edges.len() {
        let (dependent, dependency) = (edges.dependents[edge], edges.dependencies[edge]);
        if !ids.contains(&dependent) || dependency >= ids.end || dependent == dependency {
            continue;
        }
        let kind = match edges.elementwise.get(edge) {
            Some(1) => Kind::Elementwise,
            _ => Kind::All,
        };
        let row = &mut rows[(dependent - ids.start) as usize];
        let place = *places.entry((dependent, dependency)).or_insert(row.len());
        match row.get_mut(place) {
            None => row.push((NodeId(dependency), kind)),
            Some(end) if kind == Kind::All => end.1 = kind,
            Some(_) => {}
        }
    }
    rows
}

/// Return the new nodes without edges.
fn bare(addition: &NewNodes) -> Vec<Node> {
    let node = |(place, count): (usize, &u32)| Node {
        edges: ExtraEdges::default(),
        count: *count,
        root: None,
        weight: 1,
        join: addition.joins.get(place).is_some_and(|join| *join != 0),
    };
    addition.counts.iter().enumerate().map(node).collect()
}

/// New nodes with their edges, and the node that is grafted onto.
struct Part {
    at: NodeId,
    ids: Range<u32>,
    rows: Vec<Vec<End>>,
    awaited: Vec<NodeId>,
}

/// A length and, if it is unknown, its root.
type Length = (u32, Option<u32>);

/// Nodes that depend on the grafted one, each with the dependency by which it was found.
type Behind = BTreeMap<NodeId, NodeId>;

impl Part {
    /// Return the index of a node if it is new.
    fn place(&self, node: NodeId) -> Option<usize> {
        let place = node.0.checked_sub(self.ids.start)?;
        Some(place as usize)
    }

    fn older(&self) -> impl Iterator<Item = NodeId> + '_ {
        let ends = self.rows.iter().flatten().map(|end| end.0);
        ends.filter(|end| end.0 < self.ids.start)
    }

    /// Return all dependents of the grafted node, direct and indirect, if a dependency is among them.
    fn behind(&self, graph: &Graph, known: &impl Known) -> Behind {
        let suspect = |node: NodeId| node != self.at && !known.has_begun(node);
        let mut behind = Behind::new();
        if !self.older().any(suspect) {
            return behind;
        }
        let mut next = VecDeque::from([self.at]);
        while let Some(node) = next.pop_front() {
            for (dependent, _) in graph.dependents(node) {
                behind.entry(dependent).or_insert_with(|| {
                    next.push_back(dependent);
                    node
                });
            }
        }
        behind
    }

    /// Peel the new nodes and, as the last one, the grafted node, which represents all nodes that depend on it.
    fn peel(&self, behind: &Behind) -> (Csr, TopologicalOrder, Vec<GraphProblem>) {
        let last = self.rows.len();
        let mut edges = Edges::default();
        for (node, row) in self.rows.iter().enumerate() {
            for &(dependency, kind) in row {
                if let Some(place) = self.stand_in(dependency, behind) {
                    edges.push(NodeId(node as u32), NodeId(place), kind);
                }
            }
        }
        for &node in &self.awaited {
            let place = NodeId(node.0 - self.ids.start);
            edges.push(NodeId(last as u32), place, Kind::All);
        }
        let dependencies = by_dependent(last + 1, edges);
        let dependents = transpose(&dependencies);
        let peeled = sweep(&dependencies).unwrap_or_else(|| peel(&dependencies, &dependents));
        let found = cycles::find(&dependencies, &dependents, &peeled.order);
        let found = found.into_iter().map(|problem| match problem {
            GraphProblem::Cycle { path } => self.spell_out(&path, behind),
            other => other,
        });
        let found = found.collect();
        (dependencies, peeled, found)
    }

    /// Return the index of a node, or of the grafted node if that represents it.
    fn stand_in(&self, node: NodeId, behind: &Behind) -> Option<u32> {
        let stands_for = node == self.at || behind.contains_key(&node);
        let new = self.place(node).map(|place| place as u32);
        new.or_else(|| stands_for.then_some(self.rows.len() as u32))
    }

    /// Convert a cycle of indices to one of nodes, including the older nodes that the grafted one represents.
    fn spell_out(&self, path: &[NodeId], behind: &Behind) -> GraphProblem {
        let last = self.rows.len();
        let mut nodes = Vec::new();
        for pair in path.windows(2) {
            if pair[0].index() < last {
                nodes.push(NodeId(self.ids.start + pair[0].0));
            } else {
                nodes.extend(self.way_to(&self.rows[pair[1].index()], behind));
            }
        }
        let lowest = nodes.iter().min().copied();
        let place = nodes.iter().position(|node| Some(*node) == lowest);
        nodes.rotate_left(place.unwrap_or(0));
        nodes.extend(nodes.first().copied());
        GraphProblem::Cycle { path: nodes }
    }

    /// Return the path from the grafted node to the first of these dependencies that depends on it, or equals it.
    fn way_to(&self, row: &[End], behind: &Behind) -> Vec<NodeId> {
        let found = row
            .iter()
            .find(|end| end.0 == self.at || behind.contains_key(&end.0));
        let mut way: Vec<NodeId> = found.map(|end| end.0).into_iter().collect();
        while let Some(before) = way.last().filter(|node| **node != self.at) {
            match behind.get(before) {
                Some(node) => way.push(*node),
                None => break,
            }
        }
        way.reverse();
        way
    }

    /// Return length and root of a node.
    fn length(&self, graph: &Graph, nodes: &[Node], node: NodeId, known: &impl Known) -> Length {
        match self.place(node) {
            Some(place) => (nodes[place].count, nodes[place].root),
            None => known
                .length(node)
                .map_or_else(|| (UNKNOWN, graph.root(node)), |count| (count, None)),
        }
    }

    /// Settle the length of every new node, like `ItemCounts::resolve`; return those of unknown length, dependencies first.
    fn settle_lengths(
        &self,
        graph: &Graph,
        nodes: &mut [Node],
        order: &Direction,
        known: &impl Known,
    ) -> Vec<u32> {
        let mut unknown = Vec::new();
        for place in order.iter().rev().map(|place| place as usize) {
            let Some(row) = self.rows.get(place) else {
                continue;
            };
            for (dependency, _) in row.iter().filter(|end| end.1 == Kind::Elementwise) {
                let (count, root) = self.length(graph, nodes, *dependency, known);
                let node = &mut nodes[place];
                if count == UNKNOWN {
                    node.count = UNKNOWN;
                    node.root = node.root.or(root);
                } else if node.count == UNKNOWN && node.root.is_none() {
                    node.count = count;
                }
            }
            if nodes[place].count == UNKNOWN {
                let id = self.ids.start + place as u32;
                nodes[place].root.get_or_insert(id);
                unknown.push(id);
            }
        }
        unknown
    }

    fn mismatches(
        &self,
        graph: &Graph,
        nodes: &[Node],
        same: impl Fn(Length, Length) -> bool,
        known: &impl Known,
    ) -> Vec<GraphProblem> {
        let mut problems = Vec::new();
        for (place, row) in self.rows.iter().enumerate() {
            let node = NodeId(self.ids.start + place as u32);
            let here = self.length(graph, nodes, node, known);
            for &(dependency, _) in row.iter().filter(|end| end.1 == Kind::Elementwise) {
                if !same(here, self.length(graph, nodes, dependency, known)) {
                    problems.push(GraphProblem::LengthMismatch { node, dependency });
                }
            }
        }
        problems
    }

    /// Set the weight of each new node: one more than that of its heaviest dependent, which is new or the grafted node.
    fn weigh(&self, graph: &Graph, nodes: &mut [Node], dependencies: &Csr, order: &Direction) {
        for place in order.iter() {
            let above = match nodes.get(place as usize) {
                Some(node) => node.weight + 1,
                None => graph.weight(self.at) + 1,
            };
            for &dependency in dependencies.of(place) {
                if let Some(node) = nodes.get_mut(dependency as usize) {
                    node.weight = node.weight.max(above);
                }
            }
        }
    }
}
