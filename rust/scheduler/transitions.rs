//! The events that workers and the driver report: claims, ends, retries, items given back, the cancellation of the run.
//!
//! Each call checks first and changes afterwards, so that a rejected call has no effect.

use std::sync::Arc;

use crate::error::InvalidCall;
use crate::graph::{ItemId, NodeId};

use super::Scheduler;
use super::batch::{Batch, ItemRange};
use super::state::State;

/// How the items of a report ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcomes<'a> {
    /// All with a value.
    Success,
    /// The number of a [`State`] for each.
    Each(&'a [u8]),
}

impl Outcomes<'_> {
    fn check(self, ends: usize) -> Result<(), InvalidCall> {
        let Self::Each(numbers) = self else {
            return Ok(());
        };
        if numbers.len() != ends {
            return Err(InvalidCall::Lengths {
                ends,
                outcomes: numbers.len(),
            });
        }
        match numbers
            .iter()
            .find(|number| State::outcome(**number).is_none())
        {
            Some(&value) => Err(InvalidCall::Outcome { value }),
            None => Ok(()),
        }
    }

    /// Return true if the item at `at` ended with a value.
    pub(super) fn has_value(self, at: usize) -> bool {
        match self {
            Self::Success => true,
            Self::Each(numbers) => State::ALL[usize::from(numbers[at])].has_value(),
        }
    }

    /// Return the end of the item at `at` and the number of items from there on, at most `limit`, that ended in the
    /// same way.
    fn run(self, at: usize, limit: u32) -> (State, u32) {
        let Self::Each(numbers) = self else {
            return (State::Success, limit);
        };
        let same = numbers[at..at + limit as usize]
            .iter()
            .take_while(|number| **number == numbers[at])
            .count();
        (State::ALL[usize::from(numbers[at])], same as u32)
    }
}

impl Scheduler {
    /// Report that the items from `position` on ran one after the other: from `start` to `ends[0]`, from there to
    /// `ends[1]`, and so on. Items that end as cached or skipped were not called: they have used no attempt.
    ///
    /// # Errors
    ///
    /// Items that are not out, numbers that are not an outcome, one outcome too many or too few, chained items before
    /// those they need, or an end without a value of an item to which others are chained.
    ///
    /// O(items + edges whose state becomes known).
    pub fn complete(
        &mut self,
        batch: &Batch,
        position: u32,
        start: f64,
        ends: &[f64],
        outcomes: Outcomes<'_>,
    ) -> Result<(), InvalidCall> {
        let count = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        outcomes.check(ends.len())?;
        if batch.has_chains() {
            self.check_out(batch, position, count)?;
            self.check_chains(batch, position, count, outcomes)?;
        }
        self.take_back(batch, position, count)?;
        let graph = Arc::clone(&self.graph);
        let (mut at, mut start) = (0, start);
        for run in batch.slices(position, count) {
            let here = at..at + run.count as usize;
            start = self.timeline.end(run.item.0, start, &ends[here.clone()]);
            for (part, state) in parts(run, here.start, outcomes) {
                if matches!(state, State::Cached | State::Skipped) {
                    self.timeline.unspend(part.items());
                }
                for part in part.by_node(self.maps.has_singles()) {
                    self.end_items(part.node, part.items(), State::Running, state);
                }
                self.propagate(&graph);
            }
            at = here.end;
        }
        Ok(())
    }

    /// Report that an attempt failed and another one is to begin at `at`.
    ///
    /// # Errors
    ///
    /// An item that is not out, or chained to one that has not ended; times that are not finite.
    pub fn retry(
        &mut self,
        batch: &Batch,
        position: u32,
        at: f64,
        now: f64,
    ) -> Result<(), InvalidCall> {
        if !(at.is_finite() && now.is_finite()) {
            return Err(InvalidCall::Time);
        }
        self.check_out(batch, position, 1)?;
        self.check_begun(batch, position)?;
        self.check_follower(batch, position + 1, 0)?;
        self.take_back(batch, position, 1)?;
        let to = if at > now {
            State::Waiting
        } else {
            State::Ready
        };
        for run in batch.slices(position, 1) {
            self.timeline.ends[run.item.index()] = now;
            self.put_back(run, to);
            if self.state(run.item) == Some(State::Waiting) {
                self.delays.set(run.item.0, at);
            }
        }
        Ok(())
    }

    /// Report that `count` items from `position` on have not begun. They are ready again and have used no attempt;
    /// items that are chained to an item that has not ended wait again.
    ///
    /// # Errors
    ///
    /// Items that are not out, or items without those that are chained to them.
    pub fn give_back(
        &mut self,
        batch: &Batch,
        position: u32,
        count: u32,
    ) -> Result<(), InvalidCall> {
        self.check_out(batch, position, count)?;
        self.check_follower(batch, position.saturating_add(count), 0)?;
        self.take_back(batch, position, count)?;
        for run in batch.slices(position, count) {
            self.timeline.unbegin(run.items());
            if !batch.has_chains() {
                self.put_back(run, State::Ready);
            }
        }
        if batch.has_chains() {
            self.give_back_chains(batch, position, count);
        }
        Ok(())
    }

    /// Iterates from the last item to the first: if one ends because its node was cancelled, the items that are chained
    /// to it already wait, and end too.
    fn give_back_chains(&mut self, batch: &Batch, position: u32, count: u32) {
        let runs = batch.slices(position, count);
        let items: Vec<ItemRange> = runs.flat_map(|run| run.by_node(true)).collect();
        for run in items.into_iter().rev() {
            let waits = run.index.is_none() && self.pending[run.node.index()] > 0;
            let to = if waits { State::Waiting } else { State::Ready };
            self.put_back(run, to);
        }
    }

    /// Check that positions are out.
    pub(super) fn check_out(
        &self,
        batch: &Batch,
        position: u32,
        count: u32,
    ) -> Result<(), InvalidCall> {
        if batch.scheduler == self.id {
            self.ledger.check(batch, position, count)
        } else {
            Err(InvalidCall::ForeignBatch)
        }
    }

    /// Check that positions are out, and record that they no longer are.
    pub(super) fn take_back(
        &mut self,
        batch: &Batch,
        position: u32,
        count: u32,
    ) -> Result<(), InvalidCall> {
        self.check_out(batch, position, count)?;
        if self.ledger.close(batch, position, count) {
            self.end_tokens(batch);
        }
        Ok(())
    }

    /// Move running items to `to`, or end them if the run or their node is cancelled.
    pub(super) fn put_back(&mut self, run: ItemRange, to: State) {
        for run in run.by_node(self.maps.has_singles() || !self.stopped.is_empty()) {
            if self.cancelled || self.stopped.contains(&run.node) {
                self.end_items(run.node, run.items(), State::Running, State::Cancelled);
            } else {
                self.transition(run.node, run.items(), State::Running, to);
            }
        }
        let graph = Arc::clone(&self.graph);
        self.propagate(&graph);
    }

    /// Make items ready whose delay is over at `now`; none if `now` is not finite, since that is not a time of a clock.
    pub fn advance(&mut self, now: f64) {
        while let Some(item) = self.delays.pop_due(now) {
            if let Some((node, _)) = self.locate(ItemId(item)) {
                self.transition(node, item..item + 1, State::Waiting, State::Ready);
            }
        }
    }

    /// Cancel everything that is not running; `now` is recorded as its end. Running items end when they are reported.
    /// Those that are to be retried or have not begun are cancelled then. A second call does nothing.
    ///
    /// O(nodes + edges + items).
    pub fn cancel(&mut self, now: f64) {
        if std::mem::replace(&mut self.cancelled, true) {
            return;
        }
        self.delays.clear_all();
        self.expandable.clear();
        let graph = Arc::clone(&self.graph);
        // Joins first: otherwise they could become ready when their dependencies are cancelled.
        for node in graph.joins() {
            self.call_off(node, now);
        }
        for node in graph.nodes() {
            self.call_off(node, now);
            self.propagate(&graph);
        }
    }

    /// Cancel those items of one node that are not running, as [`Scheduler::cancel`] does for all nodes. O(items of the
    /// node).
    pub fn cancel_node(&mut self, node: NodeId, now: f64) {
        self.stopped.insert(node);
        self.expandable.retain(|other| *other != node);
        self.delays.clear(self.items(node));
        self.call_off(node, now);
        let graph = Arc::clone(&self.graph);
        self.propagate(&graph);
    }

    pub(super) fn call_off(&mut self, node: NodeId, now: f64) {
        if self.count(node) == 0 {
            return self.end_without_items(node, State::Cancelled);
        }
        self.timeline.give_up(self.items(node), now);
        self.end_all(node, State::Waiting, State::Cancelled);
        self.end_all(node, State::Ready, State::Cancelled);
    }

    /// End all items of a node whose values are known before the run; the node has no dependencies. They have used no
    /// attempt.
    ///
    /// # Errors
    ///
    /// A node of which an item is waiting, claimed or already ended.
    ///
    /// O(items + edges that become satisfied).
    pub fn give(&mut self, node: NodeId) -> Result<(), InvalidCall> {
        let states = &self.timeline.states;
        let mut items = self.items(node);
        if items.any(|item| states[item as usize] != State::Ready) {
            return Err(InvalidCall::NotReady { node });
        }
        self.end_all(node, State::Ready, State::Given);
        if let Some(map) = self.maps.get_mut(node).filter(|map| map.count == 0) {
            map.end = State::Given;
        }
        let graph = Arc::clone(&self.graph);
        self.propagate(&graph);
        Ok(())
    }

    /// Return true if the run was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }
}

/// Cut a run into parts that ended in the same way; outcomes count from `at`.
fn parts(
    run: ItemRange,
    at: usize,
    outcomes: Outcomes<'_>,
) -> impl Iterator<Item = (ItemRange, State)> + '_ {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = Some(run.count - done).filter(|left| *left > 0)?;
        let (state, count) = outcomes.run(at + done as usize, left);
        let part = run.part(done, count);
        done += count;
        Some((part, state))
    })
}
