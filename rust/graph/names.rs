//! Graphs from names: converts steps that name their dependencies to ids.

use std::collections::HashMap;

use super::{Edges, Graph, Kind, NodeId};
use crate::error::GraphProblem;

impl Graph {
    /// Build a graph of nodes of one item from names: each node with the names of its dependencies, in add order.
    ///
    /// # Errors
    ///
    /// Duplicate names and dependencies that no node has, in the order in which they occur, then all problems that
    /// [`Graph::build`] finds in the rest.
    ///
    /// O(nodes + edges), hashing each name once.
    pub fn by_name<N: AsRef<str>, D: AsRef<str>>(
        nodes: &[(N, Vec<D>)],
    ) -> Result<Self, Vec<GraphProblem>> {
        let mut problems = Vec::new();
        let mut ids = HashMap::with_capacity(nodes.len());
        for (at, (name, _)) in (0..).zip(nodes) {
            let first = *ids.entry(name.as_ref()).or_insert(NodeId(at));
            if first.0 != at {
                problems.push(GraphProblem::DuplicateName {
                    name: name.as_ref().to_owned(),
                    first,
                    second: NodeId(at),
                });
            }
        }
        let mut edges = Edges::default();
        for (node, (_, dependencies)) in (0..).map(NodeId).zip(nodes) {
            for name in dependencies.iter().map(AsRef::as_ref) {
                match ids.get(name) {
                    Some(&dependency) => edges.push(node, dependency, Kind::All),
                    None => problems.push(GraphProblem::UnknownDependency {
                        node,
                        name: name.to_owned(),
                    }),
                }
            }
        }
        match Self::build(nodes.len(), None, edges) {
            Ok(graph) if problems.is_empty() => Ok(graph),
            Ok(_) => Err(problems),
            Err(more) => Err(problems.into_iter().chain(more).collect()),
        }
    }
}
