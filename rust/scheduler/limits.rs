//! Limits: how many tokens all running batches together may hold.
//!
//! A limit is a number of tokens. Nodes that need the same tokens form one *class*, whenever they were added; class 0
//! needs none. A batch holds items of one class, which run one after the other, so it takes the tokens of the class
//! once, all of them or none: no batch waits while it holds some, so there is no deadlock. A class that needs many
//! tokens may be passed by others that need few; `token_queues` explains how.

use crate::error::InvalidCall;
use crate::graph::NodeId;

use super::Scheduler;
use super::batch::Batch;
use super::devices::Devices;
use super::state::State;
use super::token_queues::{TokenQueues, sum};

/// The limits of a run.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The tokens of each limit.
    pub totals: Vec<u32>,
    /// The class of each node; `None`: all are of class 0.
    pub demands: Option<Vec<u32>>,
    /// The needs of each class: limit and number of tokens. Class 0 needs nothing.
    pub classes: Vec<Vec<(u32, u32)>>,
    /// The limit whose tokens belong to devices, and the tokens of one device (see `devices`).
    pub divided: Option<(u32, u32)>,
}

impl Limits {
    /// Return the devices of the limit that is divided; at most one is.
    pub(super) fn devices(
        &self,
        totals: &[u32],
        known: bool,
    ) -> Result<Option<Devices>, InvalidCall> {
        let Some((limit, unit)) = self.divided else {
            return Ok(None);
        };
        let first = totals.len() - self.totals.len();
        match totals.get(limit as usize) {
            Some(total) if unit > 0 && !known && limit as usize >= first => {
                Ok(Some(Devices::new(limit, unit, *total)))
            }
            _ => Err(InvalidCall::Divided { limit, unit }),
        }
    }

    /// Return the needs of each class; class 0 always exists.
    pub(super) fn needs(&self, totals: &[u32]) -> Result<Vec<Vec<(u32, u32)>>, InvalidCall> {
        let mut all = Vec::new();
        for (class, needs) in (0..).zip(&self.classes) {
            let missing = |need: &&(u32, u32)| class == 0 || need.0 as usize >= totals.len();
            if let Some(&(limit, _)) = needs.iter().find(missing) {
                return Err(InvalidCall::Limit { class, limit });
            }
            all.push(sum(needs));
        }
        if all.is_empty() {
            all.push(Vec::new());
        }
        Ok(all)
    }

    /// Check the demands of `count` nodes from `first` on.
    pub(super) fn check(
        &self,
        needs: &[Vec<(u32, u32)>],
        totals: &[u32],
        first: NodeId,
        count: usize,
    ) -> Result<(), InvalidCall> {
        let Some(demands) = &self.demands else {
            return Ok(());
        };
        if demands.len() != count {
            return Err(InvalidCall::Demands {
                length: demands.len(),
                nodes: count as u32,
            });
        }
        for (node, &class) in (first.0..).map(NodeId).zip(demands) {
            let Some(needs) = needs.get(class as usize) else {
                return Err(InvalidCall::Class { node, class });
            };
            let too_much = |need: &&(u32, u32)| need.1 > totals[need.0 as usize];
            if let Some(&(limit, amount)) = needs.iter().find(too_much) {
                return Err(InvalidCall::Demand {
                    node,
                    limit,
                    amount,
                    total: totals[limit as usize],
                });
            }
        }
        Ok(())
    }

    /// Return true if there are no limits and no node needs tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.totals.is_empty()
            && self.demands.is_none()
            && self.classes.is_empty()
            && self.divided.is_none()
    }
}

impl Scheduler {
    /// Apply limits to the run. Nothing has been claimed.
    ///
    /// # Errors
    ///
    /// Demands for another number of nodes, of classes or limits that do not exist, of more tokens than a limit has.
    ///
    /// O(nodes + ready items * log nodes).
    pub fn with_limits(mut self, limits: &Limits) -> Result<Self, InvalidCall> {
        let ready = self.graph.nodes();
        let ready: Vec<NodeId> = ready.filter(|node| self.is_queued(*node)).collect();
        let mut lanes = TokenQueues::new(self.graph.node_count());
        lanes.extend(limits, NodeId(0), self.graph.node_count() as usize)?;
        for node in &ready {
            self.ready_nodes.remove(self.rank(*node));
        }
        self.lanes = Some(Box::new(lanes));
        for node in ready {
            let items = self.timeline.run_of(State::Ready, self.items(node));
            if let Some(items) = items {
                self.enqueue(node, items);
            }
        }
        Ok(self)
    }

    /// Add limits, and the classes of nodes that are about to be added.
    pub(super) fn extend_limits(
        &mut self,
        limits: &Limits,
        count: usize,
    ) -> Result<(), InvalidCall> {
        let first = self.graph.node_count();
        if let Some(lanes) = &mut self.lanes {
            return lanes.extend(limits, NodeId(first), count);
        }
        let mut lanes = TokenQueues::new(first);
        lanes.extend(limits, NodeId(first), count)?;
        lanes.count(0, self.count_in(State::Ready), 0);
        self.lanes = Some(Box::new(lanes));
        Ok(())
    }

    /// Return the number of items that can be claimed now.
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.count_in(State::Ready) - self.parked()
    }

    /// Return the number of items that are ready but lack tokens, because other batches hold them.
    #[must_use]
    pub fn parked(&self) -> u32 {
        self.lanes.as_ref().map_or(0, |lanes| lanes.parked)
    }

    /// Take the tokens of a new batch.
    pub(super) fn take_tokens(&mut self, batch: &mut Batch) {
        if let Some(lanes) = self.lanes.as_mut().filter(|_| batch.limited()) {
            batch.placed = lanes.take(batch.class);
        }
    }

    /// Return the tokens of a batch of which nothing runs any more, unless they are kept.
    pub(super) fn end_tokens(&mut self, batch: &Batch) {
        if let Some(lanes) = self.lanes.as_mut().filter(|_| batch.limited())
            && !lanes.kept.contains(&batch.key())
        {
            lanes.give(batch.class, batch.placed.as_deref());
        }
    }

    /// Keep the tokens of a batch out after its items have ended, until [`Scheduler::return_tokens`]: a step that was
    /// abandoned may still be running. Does nothing for a batch without tokens.
    ///
    /// # Errors
    ///
    /// A batch of another scheduler, or one whose tokens are back.
    pub fn keep_tokens(&mut self, batch: &Batch) -> Result<(), InvalidCall> {
        let out = self.holds(batch)?;
        let Some(lanes) = self.lanes.as_mut().filter(|_| batch.limited()) else {
            return Ok(());
        };
        if !out {
            return Err(InvalidCall::NoTokens);
        }
        lanes.kept.insert(batch.key());
        Ok(())
    }

    /// Return the kept tokens of a batch: at once, or when its last running item ends.
    ///
    /// # Errors
    ///
    /// A batch of another scheduler, or one whose tokens are not kept.
    pub fn return_tokens(&mut self, batch: &Batch) -> Result<(), InvalidCall> {
        let out = self.holds(batch)?;
        let Some(lanes) = self.lanes.as_mut().filter(|_| batch.limited()) else {
            return Ok(());
        };
        if !lanes.kept.remove(&batch.key()) {
            return Err(InvalidCall::NoTokens);
        }
        if !out {
            lanes.give(batch.class, batch.placed.as_deref());
        }
        Ok(())
    }

    /// Return true if any item of a batch still runs.
    pub(super) fn holds(&self, batch: &Batch) -> Result<bool, InvalidCall> {
        if batch.scheduler == self.id {
            Ok(self.ledger.has(batch))
        } else {
            Err(InvalidCall::ForeignBatch)
        }
    }
}
