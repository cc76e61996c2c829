//! Nodes that are added while the graph runs: a step whose result is more steps.
//!
//! ```text
//!   n: running ──graft──▶ waiting ──the awaited nodes are complete──▶ ready ──▶ running (once more) ──▶ its end
//!                  │                           ▲
//!                  └──▶ new nodes, behind all others ─┘
//! ```
//!
//! The new nodes are like any others: mapped or of unknown length, with edges among them and to existing nodes, with
//! demands, and may themselves be grafted onto. Their items follow all others, like those of an expansion; all of them
//! are kept in `mapped_nodes`. When the awaited nodes are complete, n is ready and runs again; if one fails, n is
//! `upstream_failed`. The run before the graft is not an attempt. Order: the weight of a new node follows from its
//! dependents, by the edges it was added with, so the nodes that n awaits are as urgent as n.
//!
//! The original graph is shared with its owner; this run uses its own copy, which grows.

use std::sync::Arc;

use crate::error::{InvalidCall, InvalidGraft};
use crate::graph::{ExtendedGraph, Graph, Kind, Known, NewNodes, NodeId};

use super::Scheduler;
use super::batch::Batch;
use super::limits::Limits;
use super::mapped_nodes::NodeLength;
use super::release::check_keep;
use super::state::{DependencyEffect, State};

/// New nodes for the item of a running node.
#[derive(Clone, Debug, Default)]
pub struct Graft {
    /// The nodes, their edges, and which of them are awaited.
    pub nodes: NewNodes,
    /// One byte for each node, as for [`Scheduler::new`]; `None`: their values are kept.
    pub keep: Option<Vec<u8>>,
    /// Additional limits, and the demands of the new nodes. Classes are those of this graft alone.
    pub limits: Limits,
}

impl Known for Scheduler {
    fn length(&self, node: NodeId) -> Option<u32> {
        let map = self.maps.get(node);
        map.map_or(Some(1), |map| {
            (map.length == NodeLength::Known).then_some(map.count)
        })
    }

    fn has_begun(&self, node: NodeId) -> bool {
        let states = &self.timeline.states;
        let mut items = self.items(node).map(|item| states[item as usize]);
        // Not certain with joins: a join may begin after a dependency that failed early, while that one's other
        // dependencies run.
        !self.graph.has_joins()
            && items
                .any(|state| state == State::Ready || state == State::Running || state.has_value())
    }
}

impl Scheduler {
    /// Add nodes for the item at `position` of a batch, the only item of its node, and let it run again when the nodes
    /// that it awaits are complete; at once if it awaits none. Return the id of the first new node. If the run or the
    /// node was cancelled meanwhile, the new nodes are cancelled with it, at `now`.
    ///
    /// A value that was kept because it had no dependents stays, even if it has dependents now.
    ///
    /// # Errors
    ///
    /// Invalid nodes (see [`Graph::build`]), an item that is not out or is chained to one that has not ended, a node
    /// that does not have exactly one item, a dependency whose values were released, demands that cannot be met, a mask
    /// of the wrong length.
    ///
    /// # Panics
    ///
    /// If arrays that belong together have different lengths.
    ///
    /// O(new nodes, edges and items), the first time O(nodes); if a new node depends on one that has not begun, also
    /// O(dependents of the grafted node).
    pub fn graft(
        &mut self,
        batch: &Batch,
        position: u32,
        now: f64,
        graft: &Graft,
    ) -> Result<NodeId, InvalidGraft> {
        let node = self.graftable(batch, position)?;
        let count = graft.nodes.counts.len();
        let first = NodeId(self.graph.node_count());
        let grown = self
            .graph
            .grow(node, &graft.nodes, self.item_count(), self)?;
        let gone = |older: &NodeId| self.has_released(*older);
        if let Some(node) = grown.older(first).into_iter().find(gone) {
            return Err(InvalidCall::Released { node }.into());
        }
        check_keep(graft.keep.as_deref(), count)?;
        self.extend_limits(&graft.limits, count)?;
        self.take_back(batch, position, 1)?;
        self.grow(node, grown, graft.keep.as_deref());
        let to = if graft.nodes.awaited.is_empty() {
            State::Ready
        } else {
            State::Waiting
        };
        for run in batch.slices(position, 1) {
            self.timeline.unbegin(run.items());
            self.put_back(run, to);
        }
        self.begin(first, self.cancelled || self.stopped.contains(&node), now);
        Ok(first)
    }

    fn graftable(&self, batch: &Batch, position: u32) -> Result<NodeId, InvalidCall> {
        self.check_out(batch, position, 1)?;
        self.check_begun(batch, position)?;
        self.check_follower(batch, position + 1, 0)?;
        match batch.at(position) {
            Some((_, node)) if self.count(node) == 1 => Ok(node),
            Some((_, node)) => Err(InvalidCall::NotSingle { node }),
            None => Err(InvalidCall::NotOut { position }),
        }
    }

    /// Make room for new nodes and their items, without deciding about them.
    fn grow(&mut self, at: NodeId, grown: ExtendedGraph, keep: Option<&[u8]>) {
        let first = NodeId(self.graph.node_count());
        let mut older = grown.elementwise(first);
        older.retain(|edge| edge.1 < first);
        for (_, source) in &older {
            self.keep_like_mapped(*source);
        }
        let awaited = grown.awaited_count();
        Arc::make_mut(&mut self.graph).extend(at, grown);
        let graph = Arc::clone(&self.graph);
        for (follower, source) in older {
            self.maps
                .get_mut(source)
                .into_iter()
                .for_each(|map| map.followers.push(follower));
        }
        for node in (first.0..graph.node_count()).map(NodeId) {
            self.add_items(&graph, node);
            let open = |end: &(NodeId, Kind)| {
                end.1 == Kind::All && (end.0 >= first || !self.is_complete(end.0))
            };
            let pending = graph.dependencies(node).filter(open).count();
            self.pending.push(pending as u32);
        }
        self.pending[at.index()] += awaited;
        self.open_nodes += graph.node_count() - first.0;
        self.ready_items.grow(self.item_count());
        self.grow_release(self.item_count());
        self.extend_release(&graph, first, keep);
    }

    fn add_items(&mut self, graph: &Graph, node: NodeId) {
        let first = self.item_count();
        let count = self.maps.add(graph, node, first).count;
        if count > 0 {
            self.maps.note_expansion(first, node);
        }
        self.timeline.extend(count, State::Waiting);
        self.counts[State::Waiting as usize] += count;
    }

    /// Decide about new nodes from `first` on, or cancel those that would run.
    fn begin(&mut self, first: NodeId, cancelled: bool, now: f64) {
        let graph = Arc::clone(&self.graph);
        let new: Vec<NodeId> = (first.0..graph.node_count()).map(NodeId).collect();
        for &node in &new {
            self.look_at_node(&graph, node);
        }
        self.propagate(&graph);
        if !cancelled {
            return;
        }
        self.expandable.retain(|node| *node < first);
        let joins = new.iter().filter(|node| graph.is_join(**node));
        joins.for_each(|node| self.call_off(*node, now));
        for node in new {
            self.call_off(node, now);
            self.propagate(&graph);
        }
    }

    /// Apply the ends of dependencies that are already known to a node.
    fn look_at_node(&mut self, graph: &Graph, node: NodeId) {
        let dooms = |(dependency, kind): (NodeId, Kind)| {
            let concerns = match kind {
                Kind::All => !graph.is_join(node),
                Kind::Elementwise => self.count(dependency) == 0,
            };
            concerns && self.verdict(dependency) == DependencyEffect::Failed
        };
        if graph.dependencies(node).any(dooms) {
            self.doom(node);
        }
        if self.pending[node.index()] == 0 {
            self.settle(graph, node);
        } else if self
            .maps
            .get(node)
            .is_some_and(|map| !map.sources.is_empty())
        {
            self.look_at_items(node, 0..self.count(node));
        }
    }
}
