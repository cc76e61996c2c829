//! Nodes that continue although some of their items fail.
//!
//! A failed item is bad, and so is an item that could not run because another failed. While no more items are bad than
//! the node tolerates, the node as a whole counts as a success: for dependents that need all of it, and in
//! [`Scheduler::node_state`]. With one more it fails. Elementwise dependents are not affected: an item without its
//! element cannot run, and its own node may tolerate that.
//!
//! A node of which no item could run fails however much it tolerates: so its end does not depend on whether its
//! dependency failed before or after its length was known.

use std::sync::Arc;

use crate::error::InvalidCall;
use crate::graph::NodeId;

use super::Scheduler;
use super::state::State;

impl Scheduler {
    /// Let up to `failures` items of a node be bad without the node counting as failed.
    ///
    /// # Errors
    ///
    /// A node that has failed, or has more bad items than that.
    ///
    /// O(1), for the first node of one item O(nodes).
    pub fn tolerate(&mut self, node: NodeId, failures: u32) -> Result<(), InvalidCall> {
        let (bad, forgives) = self.maps.get(node).map_or_else(
            || (0, !self.node_state(node).is_bad()),
            |map| (map.bad, map.forgives()),
        );
        if !forgives || bad > failures {
            return Err(InvalidCall::TooLate { node });
        }
        self.keep_like_mapped(node);
        if let Some(map) = self.maps.get_mut(node) {
            map.tolerated = failures;
        }
        Ok(())
    }

    /// Track a node of one item like a mapped one from now on, unless it already is.
    pub(super) fn keep_like_mapped(&mut self, node: NodeId) {
        if self.maps.get(node).is_some() {
            return;
        }
        let item = self.first_item(node);
        let state = self.timeline.states[item.index()];
        let map = self.maps.add(&Arc::clone(&self.graph), node, item.0);
        map.complete = state.is_terminal();
        map.unfinished = u32::from(!map.complete);
        map.note(1, state);
        self.ready_items.grow(self.item_count());
        if state == State::Ready {
            self.ready_items.insert(item.0);
        }
    }
}
