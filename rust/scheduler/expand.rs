//! Lengths that become known, or turn out not to exist, at run time.

use std::sync::Arc;

use crate::error::InvalidCall;
use crate::graph::{NodeId, UNKNOWN};

use super::Scheduler;
use super::mapped_nodes::{MappedNode, NodeLength};
use super::state::State;

impl Scheduler {
    /// Request the length of a node from the driver.
    pub(super) fn ask_for_length(&mut self, node: NodeId) {
        if let Some(map) = self.maps.get_mut(node) {
            map.length = NodeLength::Due;
            self.expandable.push_back(node);
        }
    }

    /// Remove the node whose length has been due for longest from the queue; `None` if no length is due.
    ///
    /// The caller answers with [`Scheduler::expand`] or [`Scheduler::refuse`]. Either may make further lengths due (a node of
    /// length 0 is complete at once), so the queue is empty only once this has returned `None` after the last answer.
    pub fn next_expandable(&mut self) -> Option<NodeId> {
        self.expandable.pop_front()
    }

    /// Return the number of nodes that [`Scheduler::next_expandable`] would return now.
    #[must_use]
    pub fn expandable(&self) -> u32 {
        self.expandable.len() as u32
    }

    /// Give a node its items, and the same number to all nodes that depend on it item by item. Their ids follow all
    /// others. With 0 items the node is complete at once. If the run was cancelled meanwhile, the items are cancelled.
    ///
    /// # Errors
    ///
    /// A node whose length is not awaited, more items than fit 32 bits.
    ///
    /// O(items + nodes of the group).
    pub fn expand(&mut self, node: NodeId, count: u32) -> Result<(), InvalidCall> {
        if self
            .maps
            .get(node)
            .is_none_or(|map| map.length != NodeLength::Due)
        {
            return Err(InvalidCall::NotExpandable { node });
        }
        let graph = Arc::clone(&self.graph);
        let group = graph.group(node);
        let items = u64::from(self.item_count()) + group.len() as u64 * u64::from(count);
        if items >= u64::from(UNKNOWN) {
            return Err(InvalidCall::TooLarge);
        }
        for member in group.iter().copied().map(NodeId) {
            self.append(member, count);
        }
        for member in group.into_iter().map(NodeId) {
            if self.pending[member.index()] == 0 {
                self.settle(&graph, member);
            }
        }
        self.propagate(&graph);
        Ok(())
    }

    /// End a node whose length was requested but does not exist: without items, in a state without a value. Its
    /// elementwise dependents end like other dependents. If the run was cancelled meanwhile, the node stays cancelled.
    ///
    /// # Errors
    ///
    /// A node whose length is not awaited, a state that is not an end without a value.
    ///
    /// O(edges of the nodes that end by it).
    pub fn refuse(&mut self, node: NodeId, state: u8) -> Result<(), InvalidCall> {
        let Some(state) = State::outcome(state).filter(|state| !state.has_value()) else {
            return Err(InvalidCall::End { value: state });
        };
        let due = |map: &&mut MappedNode| map.length == NodeLength::Due;
        let Some(map) = self.maps.get_mut(node).filter(due) else {
            return Err(InvalidCall::NotExpandable { node });
        };
        map.length = NodeLength::Refused;
        self.expandable.retain(|other| *other != node);
        self.end_without_items(node, state);
        let graph = Arc::clone(&self.graph);
        self.propagate(&graph);
        Ok(())
    }

    /// Append items of a node; if it has ended, they have ended in the same way.
    fn append(&mut self, node: NodeId, count: u32) {
        let first = self.item_count();
        let Some(map) = self.maps.get_mut(node) else {
            return;
        };
        let state = if map.complete {
            map.end
        } else {
            State::Waiting
        };
        map.unfinished = if map.complete { 0 } else { count };
        map.bad = if state.is_bad() { count } else { 0 };
        map.barred = map.bad;
        (map.first, map.count, map.length) = (first, count, NodeLength::Known);
        if count > 0 {
            self.maps.note_expansion(first, node);
        }
        self.timeline.extend(count, state);
        self.counts[state as usize] += count;
        self.ready_items.grow(first + count);
        self.grow_release(first + count);
    }
}
