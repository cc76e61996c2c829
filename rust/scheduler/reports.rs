//! What workers and the driver say: claims, ends, retries, items given back, deadlines, the cancellation of the run.
//!
//! Each call checks first and changes afterwards, so that a refused call leaves no trace.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Refusal;
use crate::graph::{ItemId, NodeId};

use super::batch::{Batch, Run};
use super::state::State;
use super::{Order, Scheduler};

/// How the items of a report ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcomes<'a> {
    /// All with a value.
    Success,
    /// One number of a [`State`] for each.
    Each(&'a [u8]),
}

impl Outcomes<'_> {
    fn check(self, ends: usize) -> Result<(), Refusal> {
        let Self::Each(numbers) = self else {
            return Ok(());
        };
        if numbers.len() != ends {
            return Err(Refusal::Lengths {
                ends,
                outcomes: numbers.len(),
            });
        }
        match numbers
            .iter()
            .find(|number| State::outcome(**number).is_none())
        {
            Some(&value) => Err(Refusal::Outcome { value }),
            None => Ok(()),
        }
    }

    /// Return the end of the item at `at` and how many from there on, at most `limit`, ended like it.
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
    /// Give up to `limit` ready items to `worker`, the most urgent first; `None` if nothing is ready. Delays that are over
    /// at `now` end first.
    ///
    /// In add order a batch ends before an item that was added after a dependent of the batch: that dependent may be ready
    /// by then, and its turn is first.
    ///
    /// O(runs * log nodes + items).
    pub fn claim(&mut self, worker: u16, limit: u32, now: f64) -> Option<Batch> {
        self.advance(now);
        let mut batch = Batch::new(self.id, worker);
        let mut barrier = u32::MAX;
        while batch.len() < limit {
            let Some(rank) = self.ready_nodes.first() else {
                break;
            };
            let node = self.at_rank(rank);
            let (mut items, index) = self.next_items(node, limit - batch.len());
            if self.order == Order::Add {
                items.end = items.start + self.in_turn(node, &items, index.is_some(), &mut barrier);
            }
            if items.is_empty() {
                break;
            }
            batch.push(node, ItemId(items.start), items.end - items.start, index);
            self.transition(node, items.clone(), State::Ready, State::Running);
            self.timeline.begin(items, worker, now);
        }
        if batch.is_empty() {
            return None;
        }
        self.ledger.open(&mut batch);
        Some(batch)
    }

    /// Return the first ready items of a node that has some, and the index of the first if the node is mapped.
    fn next_items(&self, node: NodeId, limit: u32) -> (Range<u32>, Option<u32>) {
        let Some(map) = self.maps.get(node) else {
            let item = self.graph.first_item(node).0;
            return (item..item + self.neighbours(node, limit), None);
        };
        let first = self.ready_items.next(map.first).unwrap_or(map.first);
        let count = self
            .ready_items
            .run(first, limit.min(map.first + map.count - first));
        (
            first..first + count,
            (!map.single).then_some(first - map.first),
        )
    }

    /// Count the nodes of one item that follow each other from `node` on, in id and in rank, and are ready.
    fn neighbours(&self, node: NodeId, limit: u32) -> u32 {
        let rank = self.rank(node);
        let ready = self.ready_nodes.run(rank, limit);
        let follows = |at: &u32| {
            let next = self.at_rank(rank + at);
            next.0 == node.0 + at && self.maps.get(next).is_none()
        };
        (1..ready).take_while(follows).count() as u32 + 1
    }

    /// Count the first of `items` whose turn it is: those of nodes up to `barrier`, the first dependent of all before them.
    fn in_turn(&self, node: NodeId, items: &Range<u32>, mapped: bool, barrier: &mut u32) -> u32 {
        let count = items.end - items.start;
        let nodes = if mapped { 1 } else { count };
        for at in 0..nodes {
            let here = NodeId(node.0 + at);
            if here.0 > *barrier {
                return at;
            }
            if let Some((dependent, _)) = self.graph.dependents(here).next() {
                *barrier = dependent.0.min(*barrier);
            }
        }
        // A dependent that was added before its map may get ready item by item.
        if mapped && *barrier < node.0 {
            1
        } else {
            count
        }
    }

    /// Report that the items from `position` on ran one after the other: from `start` to `ends[0]`, from there to
    /// `ends[1]`, and so on.
    ///
    /// # Errors
    ///
    /// Items that are not out, numbers that are no outcome, one outcome too many or too few.
    ///
    /// O(items + edges that become known to be satisfied or not).
    pub fn complete(
        &mut self,
        batch: &Batch,
        position: u32,
        start: f64,
        ends: &[f64],
        outcomes: Outcomes<'_>,
    ) -> Result<(), Refusal> {
        let count = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        outcomes.check(ends.len())?;
        self.take_back(batch, position, count)?;
        let graph = Arc::clone(&self.graph);
        let (mut at, mut start) = (0, start);
        for run in batch.slices(position, count) {
            let here = at..at + run.count as usize;
            start = self.timeline.end(run.item.0, start, &ends[here.clone()]);
            for (part, state) in parts(run, here.start, outcomes) {
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
    /// An item that is not out, a time that is not finite.
    pub fn retry(
        &mut self,
        batch: &Batch,
        position: u32,
        at: f64,
        now: f64,
    ) -> Result<(), Refusal> {
        if !at.is_finite() {
            return Err(Refusal::Time);
        }
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

    /// Report that `count` items from `position` on were not begun. They are ready again and have spent no attempt.
    ///
    /// # Errors
    ///
    /// Items that are not out.
    pub fn give_back(&mut self, batch: &Batch, position: u32, count: u32) -> Result<(), Refusal> {
        self.take_back(batch, position, count)?;
        for run in batch.slices(position, count) {
            self.timeline.unbegin(run.items());
            self.put_back(run, State::Ready);
        }
        Ok(())
    }

    /// Check that positions are out, and note that they are not any more.
    fn take_back(&mut self, batch: &Batch, position: u32, count: u32) -> Result<(), Refusal> {
        if batch.scheduler != self.id {
            return Err(Refusal::ForeignBatch);
        }
        self.ledger.check(batch, position, count)?;
        self.ledger.close(batch, position, count);
        Ok(())
    }

    /// Move running items to `to`, or end them if the run or their node is cancelled.
    fn put_back(&mut self, run: Run, to: State) {
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

    /// Make items ready whose delay is over at `now`.
    pub fn advance(&mut self, now: f64) {
        while let Some(item) = self.delays.pop_due(now) {
            if let Some((node, _)) = self.locate(ItemId(item)) {
                self.transition(node, item..item + 1, State::Waiting, State::Ready);
            }
        }
    }

    /// Note that a running item is to be reported by [`Scheduler::expired`] at `at`, unless it ends before. A later call
    /// replaces the time.
    ///
    /// # Errors
    ///
    /// An item that is not running, a time that is not finite.
    pub fn set_deadline(&mut self, item: ItemId, at: f64) -> Result<(), Refusal> {
        if !at.is_finite() {
            return Err(Refusal::Time);
        }
        if self.state(item) != Some(State::Running) {
            return Err(Refusal::NotRunning { item: item.0 });
        }
        self.deadlines.set(item.0, at);
        Ok(())
    }

    /// Return the running items whose deadline is reached at `now`, each once. They stay running until they are reported.
    pub fn expired(&mut self, now: f64) -> Vec<ItemId> {
        std::iter::from_fn(|| self.deadlines.pop_due(now))
            .map(ItemId)
            .collect()
    }

    /// Cancel everything that is not running; `now` is noted as its end. What runs ends as it is reported, and what comes
    /// back for another attempt or because it was not begun is cancelled then. A second call does nothing.
    ///
    /// O(nodes + edges + items).
    pub fn cancel(&mut self, now: f64) {
        if std::mem::replace(&mut self.cancelled, true) {
            return;
        }
        self.delays.clear_all();
        self.expandable.clear();
        let graph = Arc::clone(&self.graph);
        // First of all those that would find something to run in what is cancelled around them.
        for node in graph.joins() {
            self.call_off(node, now);
        }
        for node in graph.nodes() {
            self.call_off(node, now);
            self.propagate(&graph);
        }
    }

    /// Cancel those items of one node that are not running, as [`Scheduler::cancel`] does for all nodes. O(items of the node).
    pub fn cancel_node(&mut self, node: NodeId, now: f64) {
        self.stopped.insert(node);
        self.expandable.retain(|other| *other != node);
        self.delays.clear(self.items(node));
        self.call_off(node, now);
        let graph = Arc::clone(&self.graph);
        self.propagate(&graph);
    }

    fn call_off(&mut self, node: NodeId, now: f64) {
        if self.count(node) == 0 {
            return self.end_without_items(node, State::Cancelled);
        }
        self.timeline.give_up(self.items(node), now);
        self.end_all(node, State::Waiting, State::Cancelled);
        self.end_all(node, State::Ready, State::Cancelled);
    }

    /// Say whether the run was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }
}

/// Cut a run into parts that ended alike; outcomes count from `at`.
fn parts(run: Run, at: usize, outcomes: Outcomes<'_>) -> impl Iterator<Item = (Run, State)> + '_ {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = Some(run.count - done).filter(|left| *left > 0)?;
        let (state, count) = outcomes.run(at + done as usize, left);
        let part = run.part(done, count);
        done += count;
        Some((part, state))
    })
}
