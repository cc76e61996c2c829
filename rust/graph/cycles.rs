//! Cycles, one for each strongly connected component of more than one node.
//!
//! Only the nodes that peeling left over are searched, so a valid graph pays nothing. Both searches keep their own
//! stack, so a cycle of a million nodes needs no deep recursion.

use std::collections::VecDeque;

use super::topological_order::Direction;
use super::{Csr, NodeId};
use crate::error::GraphProblem;

const NONE: u32 = u32::MAX;

/// Return a shortest cycle through the lowest id of each component. O(nodes + edges); O(1) if `peeled` has all nodes.
pub(super) fn find(dependencies: &Csr, dependents: &Csr, peeled: &Direction) -> Vec<GraphProblem> {
    let nodes = dependencies.offsets.len() - 1;
    if peeled.len() == nodes {
        return Vec::new();
    }
    let component = components(dependencies, peeled);
    let mut seen = vec![NONE; nodes];
    let mut done = vec![false; nodes];
    let mut cycles = Vec::new();
    for start in 0..nodes as u32 {
        let of = component[start as usize];
        if of != NONE && !done[of as usize] {
            done[of as usize] = true;
            cycles.extend(
                shortest(dependents, &component, start, &mut seen)
                    .map(|path| GraphProblem::Cycle { path }),
            );
        }
    }
    cycles
}

/// Return a shortest path from `start` along dependents back to it, inside its component; `None` if the component has
/// no other node.
fn shortest(
    dependents: &Csr,
    component: &[u32],
    start: u32,
    came_from: &mut [u32],
) -> Option<Vec<NodeId>> {
    let mut next = VecDeque::from([start]);
    while let Some(node) = next.pop_front() {
        for &dependent in dependents.of(node) {
            if dependent == start {
                return Some(trace(came_from, start, node));
            }
            if component[dependent as usize] == component[start as usize]
                && came_from[dependent as usize] == NONE
            {
                came_from[dependent as usize] = node;
                next.push_back(dependent);
            }
        }
    }
    None
}

/// Walk back from `last` to `start`, and return the closed path.
fn trace(came_from: &[u32], start: u32, last: u32) -> Vec<NodeId> {
    let mut path = vec![NodeId(start)];
    let mut node = last;
    while node != start {
        path.push(NodeId(node));
        node = came_from[node as usize];
    }
    path.push(NodeId(start));
    path.reverse();
    path
}

/// Number the strongly connected components of the nodes that are not in `peeled` (Tarjan's algorithm with its own stack).
fn components(dependencies: &Csr, peeled: &Direction) -> Vec<u32> {
    let mut search = Tarjan::new(dependencies.offsets.len() - 1);
    for node in peeled.iter() {
        search.index[node as usize] = Tarjan::GONE;
    }
    for node in 0..search.index.len() as u32 {
        if search.index[node as usize] == NONE {
            search.visit(dependencies, node);
        }
    }
    search.component
}

/// The arrays of Tarjan's algorithm.
struct Tarjan {
    index: Vec<u32>,
    low: Vec<u32>,
    component: Vec<u32>,
    /// Nodes whose component is not known yet.
    open: Vec<u32>,
    /// Nodes being visited, each with the position of the next dependency to visit.
    visiting: Vec<(u32, usize)>,
    count: u32,
    components: u32,
}

impl Tarjan {
    /// The index of a node that is not part of the search.
    const GONE: u32 = NONE - 1;

    fn new(nodes: usize) -> Self {
        let (index, low, component) = (vec![NONE; nodes], vec![NONE; nodes], vec![NONE; nodes]);
        Self {
            index,
            low,
            component,
            open: Vec::new(),
            visiting: Vec::new(),
            count: 0,
            components: 0,
        }
    }

    fn visit(&mut self, rows: &Csr, root: u32) {
        self.enter(root);
        while let Some((node, at)) = self.visiting.pop() {
            if let Some(&next) = rows.of(node).get(at) {
                self.visiting.push((node, at + 1));
                self.look_at(node, next);
            } else {
                self.leave(node);
            }
        }
    }

    fn enter(&mut self, node: u32) {
        self.index[node as usize] = self.count;
        self.low[node as usize] = self.count;
        self.count += 1;
        self.open.push(node);
        self.visiting.push((node, 0));
    }

    fn look_at(&mut self, node: u32, next: u32) {
        let index = self.index[next as usize];
        if index == NONE {
            self.enter(next);
        } else if index != Self::GONE && self.component[next as usize] == NONE {
            self.lower(node, index);
        }
    }

    fn lower(&mut self, node: u32, to: u32) {
        let low = &mut self.low[node as usize];
        *low = to.min(*low);
    }

    fn leave(&mut self, node: u32) {
        let low = self.low[node as usize];
        if let Some(&(above, _)) = self.visiting.last() {
            self.lower(above, low);
        }
        if low == self.index[node as usize] {
            self.close(node);
        }
    }

    /// Give all open nodes down to `node` the next component.
    fn close(&mut self, node: u32) {
        while let Some(member) = self.open.pop() {
            self.component[member as usize] = self.components;
            if member == node {
                break;
            }
        }
        self.components += 1;
    }
}
