//! Chains: a worker claims a step together with the step after it, and continues without another claim.
//!
//! ```text
//!   a ──▶ b ──▶ c          claim: a (ready), b and c behind it in the same batch, all three running
//!                          a ends with a value ──▶ b may end; a ends otherwise ──▶ b, c were given back first: they wait
//! ```
//!
//! A step is *chained* if all its dependencies are complete except the step before it in its batch. So it is running
//! before its last dependency has a value; its worker begins it only after that dependency, with the value, which was
//! delivered before. If the step before it has ended without a value, no worker has begun the steps that are chained to
//! it: they must be given back before such an end is reported, and wait again. Every report that would violate this is
//! rejected.
//!
//! The claimant decides which nodes may be chained ([`Scheduler::chain`]); nodes with several items, joins and nodes
//! that need tokens never are. A hop through the driver costs a hundred times as much as an empty step.

use crate::error::InvalidCall;
use crate::graph::{Kind, NodeId};

use super::batch::{Batch, ItemRange};
use super::state::{DependencyEffect, State};
use super::transitions::Outcomes;
use super::{Order, Scheduler};

impl Scheduler {
    /// Set which nodes may be chained to the one before them: one byte for each node, 0 if it may not.
    ///
    /// # Errors
    ///
    /// A mask of the wrong length.
    pub fn chain(&mut self, mask: &[u8]) -> Result<(), InvalidCall> {
        let nodes = self.graph.base_count() as usize;
        if mask.len() != nodes {
            return Err(InvalidCall::Mask {
                length: mask.len(),
                nodes,
            });
        }
        self.chainable = mask.to_vec();
        Ok(())
    }

    /// Return the most urgent node that can be chained to `node`.
    pub(super) fn link(&self, node: NodeId) -> Option<NodeId> {
        if self.chainable.is_empty()
            || self.order == Order::Add
            || node.0 >= self.graph.base_count()
            || self.maps.get(node).is_some()
        {
            return None;
        }
        let fits =
            |&(next, kind): &(NodeId, Kind)| kind == Kind::All && self.can_follow(node, next);
        let next = self.graph.dependents(node).filter(fits);
        next.map(|(next, _)| next)
            .min_by_key(|next| self.rank(*next))
    }

    fn can_follow(&self, node: NodeId, next: NodeId) -> bool {
        self.chainable
            .get(next.index())
            .is_some_and(|may| *may != 0)
            && self.pending[next.index()] == 1
            && self.maps.get(next).is_none()
            && self.class(next) == 0
            && !self.graph.is_join(next)
            && self.timeline.states[self.graph.first_item(next).index()] == State::Waiting
            && self.others_are_fine(node, next)
    }

    /// Return true if no dependency of `next`, except `node`, was skipped or cancelled.
    fn others_are_fine(&self, node: NodeId, next: NodeId) -> bool {
        let gaps = self.count_in(State::Skipped) + self.count_in(State::Cancelled);
        let fine = |(other, _): (NodeId, Kind)| {
            other == node
                || self.is_complete(other) && self.verdict(other) == DependencyEffect::Fine
        };
        gaps == 0 && !self.gapped || self.graph.dependencies(next).all(fine)
    }

    /// Add the nodes that can be chained behind `node`, the last of a batch, up to `most` in all; return the new last
    /// node.
    pub(super) fn follow(
        &mut self,
        batch: &mut Batch,
        node: NodeId,
        most: u32,
        now: f64,
    ) -> NodeId {
        let mut last = node;
        while batch.len() < most {
            let Some(next) = self.link(last) else {
                break;
            };
            if self.graph.dependents(last).nth(1).is_some() {
                batch.note_restless();
            }
            let item = self.graph.first_item(next);
            batch.push(next, item, 1, None);
            batch.note_chained();
            let items = item.0..item.0 + 1;
            self.transition(next, items.clone(), State::Waiting, State::Running);
            self.timeline.begin(items, batch.worker(), now);
            last = next;
        }
        last
    }

    /// Reject a report in which a chained item ends before the item it needs, or that leaves a chained item without
    /// that item.
    pub(super) fn check_chains(
        &self,
        batch: &Batch,
        position: u32,
        count: u32,
        outcomes: Outcomes<'_>,
    ) -> Result<(), InvalidCall> {
        let mut valued = true;
        let mut at = 0;
        for run in batch.slices(position, count) {
            for part in run.by_node(true) {
                let open = part.index.is_none() && self.pending[part.node.index()] > 0;
                if open && (at == 0 || !valued) {
                    return Err(InvalidCall::Chained {
                        position: position + at,
                    });
                }
                valued = outcomes.has_value(at as usize + part.count as usize - 1);
                if !valued {
                    self.check_follower(batch, position + at + part.count, position + count)?;
                }
                at += part.count;
            }
        }
        Ok(())
    }

    /// Reject a retry of or a graft onto an item that is chained to one that has not ended: it was not begun.
    pub(super) fn check_begun(&self, batch: &Batch, position: u32) -> Result<(), InvalidCall> {
        let waits = |run: ItemRange| run.index.is_none() && self.pending[run.node.index()] > 0;
        if batch.is_chained(position) && batch.slices(position, 1).any(waits) {
            Err(InvalidCall::Chained { position })
        } else {
            Ok(())
        }
    }

    /// Reject an end without a value, or a return, of the item before `position` while items that are chained to it are
    /// out. Positions before `end` are part of the same report.
    pub(super) fn check_follower(
        &self,
        batch: &Batch,
        position: u32,
        end: u32,
    ) -> Result<(), InvalidCall> {
        let chained = batch.is_chained(position)
            && position >= end
            && self.ledger.check(batch, position, 1).is_ok();
        if chained {
            Err(InvalidCall::Chained { position })
        } else {
            Ok(())
        }
    }
}
