//! Limits: how much of something all running batches together may take, and ready nodes that have to wait for it.
//!
//! ```text
//!                        claim: needs of the class ──▶ taken
//!   lane (open) ──head──▶                                │
//!        ▲                                               │  the last item of the batch is reported
//!        └── enough is free again ◀── tokens back ◀──────┘  (or later: keep_tokens, return_tokens)
//! ```
//!
//! A limit is a number of tokens. Nodes that need the same tokens are a *class*; class 0 needs none. A batch holds items of
//! one class, which run one after the other, so it takes the tokens of the class once, all of them or none: nobody waits
//! with some in hand, and nothing can lock up. The ready nodes of a class stand in its *lane*, which is open while enough
//! is free of everything the class needs. What is ready behind a closed lane is *parked*: it keeps its place in the order
//! but cannot be claimed. A class that needs much may be passed by others that need little.
//!
//! Nodes of class 0 stand in the ready queue itself. A run without limits has nothing of this.

use std::collections::BTreeSet;

use crate::error::Refusal;
use crate::graph::NodeId;

use super::Scheduler;
use super::batch::Batch;
use super::invariants::ensure;
use super::state::State;

/// The limits of a run.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The tokens of each limit.
    pub totals: Vec<u32>,
    /// The class of each node; `None`: all are of class 0.
    pub demands: Option<Vec<u32>>,
    /// What each class needs: limit and number of tokens. Class 0 needs nothing.
    pub classes: Vec<Vec<(u32, u32)>>,
}

impl Limits {
    /// Say whether nothing is limited and nobody needs anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.totals.is_empty() && self.demands.is_none() && self.classes.is_empty()
    }
}

/// Lanes and tokens.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// The class of each node.
    demands: Vec<u32>,
    all: Vec<Lane>,
    totals: Vec<u32>,
    /// Tokens of each limit that nobody holds.
    free: Vec<u32>,
    /// For each limit the lanes that need it.
    users: Vec<Vec<u32>>,
    /// The most urgent key of each open lane that is not empty.
    heads: BTreeSet<(u64, u32)>,
    /// Ready items behind closed lanes.
    parked: u32,
    /// Batches whose tokens stay out when their items have ended.
    kept: BTreeSet<(u32, u32)>,
}

/// The ready nodes of a class.
#[derive(Debug, Default)]
struct Lane {
    needs: Vec<(u32, u32)>,
    /// Keys of nodes with ready items; the lower half is the node.
    queue: BTreeSet<u64>,
    /// Their ready items.
    ready: u32,
    /// Enough is free.
    open: bool,
    /// Batches that hold what it needs.
    holders: u32,
}

impl Lanes {
    fn new(limits: &Limits, nodes: u32) -> Result<Self, Refusal> {
        let demands = limits.demands.clone();
        let demands = demands.unwrap_or_else(|| vec![0; nodes as usize]);
        if demands.len() != nodes as usize {
            return Err(Refusal::Demands {
                length: demands.len(),
                nodes,
            });
        }
        let mut lanes = Self {
            users: vec![Vec::new(); limits.totals.len()],
            free: limits.totals.clone(),
            totals: limits.totals.clone(),
            ..Self::default()
        };
        lanes.add_classes(&limits.classes, &demands, 0)?;
        lanes.demands = demands;
        Ok(lanes)
    }

    /// Add lanes for classes and check what nodes from `first` on demand.
    fn add_classes(
        &mut self,
        classes: &[Vec<(u32, u32)>],
        demands: &[u32],
        first: u32,
    ) -> Result<(), Refusal> {
        let lanes = classes.iter().enumerate().map(|(class, needs)| {
            let known = |need: &&(u32, u32)| class > 0 && (need.0 as usize) < self.totals.len();
            match needs.iter().find(|need| !known(need)) {
                Some(&(limit, _)) => Err(Refusal::Limit {
                    class: class as u32,
                    limit,
                }),
                None => Ok(Lane::new(needs)),
            }
        });
        let mut lanes = lanes.collect::<Result<Vec<_>, _>>()?;
        if lanes.is_empty() {
            lanes.push(Lane::new(&[]));
        }
        for (node, &class) in (first..).map(NodeId).zip(demands) {
            let lane = lanes.get(class as usize);
            let lane = lane.ok_or(Refusal::Class { node, class })?;
            if let Some(&(limit, amount)) = lane.needs.iter().find(|need| !self.could_have(**need))
            {
                let total = self.totals[limit as usize];
                return Err(Refusal::Demand {
                    node,
                    limit,
                    amount,
                    total,
                });
            }
        }
        for lane in lanes {
            self.add(lane);
        }
        Ok(())
    }

    fn add(&mut self, mut lane: Lane) {
        let id = self.all.len() as u32;
        for &(limit, _) in &lane.needs {
            self.users[limit as usize].push(id);
        }
        lane.open = lane.needs.iter().all(|need| self.is_free(*need));
        self.all.push(lane);
    }

    fn could_have(&self, need: (u32, u32)) -> bool {
        need.1 <= self.totals[need.0 as usize]
    }

    fn is_free(&self, need: (u32, u32)) -> bool {
        need.1 <= self.free[need.0 as usize]
    }

    /// Return the class of a node.
    pub(super) fn class(&self, node: NodeId) -> u32 {
        self.demands[node.index()]
    }

    /// Return the most urgent key that can be claimed from a lane, and the class.
    pub(super) fn first(&self) -> Option<(u64, u32)> {
        self.heads.first().copied()
    }

    /// Put the node of a key into a lane, unless it is there.
    pub(super) fn insert(&mut self, class: u32, key: u64) {
        self.with_queue(class, |queue| queue.insert(key));
    }

    /// Take the node of a key out of a lane.
    pub(super) fn remove(&mut self, class: u32, key: u64) {
        self.with_queue(class, |queue| queue.remove(&key));
    }

    /// Say whether the node of a key stands in a lane.
    pub(super) fn contains(&self, class: u32, key: u64) -> bool {
        self.all[class as usize].queue.contains(&key)
    }

    /// Change the queue of a lane, and its head with it.
    fn with_queue(&mut self, class: u32, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let lane = &mut self.all[class as usize];
        let before = lane.queue.first().copied();
        change(&mut lane.queue);
        let after = lane.queue.first().copied();
        if lane.open && before != after {
            before.map(|key| self.heads.remove(&(key, class)));
            after.map(|key| self.heads.insert((key, class)));
        }
    }

    /// Note that items became ready, or were ready.
    pub(super) fn count(&mut self, class: u32, more: u32, fewer: u32) {
        let lane = &mut self.all[class as usize];
        lane.ready = lane.ready + more - fewer;
        if !lane.open {
            self.parked = self.parked + more - fewer;
        }
    }

    /// Take what a class needs. Its lane is open.
    pub(super) fn take(&mut self, class: u32) {
        self.all[class as usize].holders += 1;
        self.each_need(class, |free, amount| free - amount);
    }

    /// Give back what a class needs.
    fn give(&mut self, class: u32) {
        self.all[class as usize].holders -= 1;
        self.each_need(class, |free, amount| free + amount);
    }

    /// Change what is free of each limit that a class needs, and open or close lanes. O(lanes that need the same limits).
    fn each_need(&mut self, class: u32, change: impl Fn(u32, u32) -> u32) {
        for at in 0..self.all[class as usize].needs.len() {
            let (limit, amount) = self.all[class as usize].needs[at];
            let free = &mut self.free[limit as usize];
            *free = change(*free, amount);
        }
        for at in 0..self.all[class as usize].needs.len() {
            let limit = self.all[class as usize].needs[at].0 as usize;
            for user in 0..self.users[limit].len() {
                self.open_or_close(self.users[limit][user]);
            }
        }
    }

    fn open_or_close(&mut self, class: u32) {
        let lane = &self.all[class as usize];
        let open = lane.needs.iter().all(|need| self.is_free(*need));
        let head = lane.queue.first().map(|key| (*key, class));
        if open == lane.open {
            return;
        }
        if open {
            self.parked -= lane.ready;
            self.heads.extend(head);
        } else {
            self.parked += lane.ready;
            head.map(|head| self.heads.remove(&head));
        }
        self.all[class as usize].open = open;
    }
}

impl Lanes {
    /// Compare tokens, lanes and their heads with each other, and with the number of ready items of each class.
    pub(super) fn check(&self, ready: impl Fn(u32) -> u32) -> Result<(), String> {
        let mut free = self.totals.clone();
        let holds = self.all.iter().flat_map(|lane| {
            let holds = |need: &(u32, u32)| (need.0, lane.holders * need.1);
            lane.needs.iter().map(holds)
        });
        for (limit, held) in holds {
            let free = &mut free[limit as usize];
            *free = free
                .checked_sub(held)
                .ok_or_else(|| format!("limit {limit} is exceeded"))?;
        }
        ensure(free == self.free, || {
            format!("{free:?} tokens are free, not {:?}", self.free)
        })?;
        let (mut parked, mut heads) = (0, BTreeSet::new());
        for (class, lane) in (0..).zip(&self.all) {
            let open = lane.needs.iter().all(|need| self.is_free(*need));
            ensure(open == lane.open, || {
                format!("lane {class} is open: {open}")
            })?;
            ensure(ready(class) == lane.ready, || {
                format!("lane {class} has {} ready items", ready(class))
            })?;
            if open {
                heads.extend(lane.queue.first().map(|key| (*key, class)));
            } else {
                parked += lane.ready;
            }
        }
        ensure(heads == self.heads, || format!("the heads are {heads:?}"))?;
        ensure(parked == self.parked, || {
            format!("{parked} items are parked")
        })
    }
}

impl Lane {
    fn new(needs: &[(u32, u32)]) -> Self {
        let mut lane = Self::default();
        for &(limit, amount) in needs {
            match lane.needs.iter_mut().find(|need| need.0 == limit) {
                Some(need) => need.1 = need.1.saturating_add(amount),
                None => lane.needs.push((limit, amount)),
            }
        }
        lane
    }
}

impl Scheduler {
    /// Hold the run to limits. Nothing has been claimed.
    ///
    /// # Errors
    ///
    /// Demands for another number of nodes, of classes or limits that are not there, of more tokens than there are.
    ///
    /// O(nodes + ready items * log nodes).
    pub fn with_limits(mut self, limits: &Limits) -> Result<Self, Refusal> {
        let ready = self.graph.nodes();
        let ready: Vec<NodeId> = ready.filter(|node| self.is_queued(*node)).collect();
        let lanes = Lanes::new(limits, self.graph.node_count())?;
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

    /// Return the number of items that can be claimed now.
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.count_in(State::Ready) - self.parked()
    }

    /// Return the number of items that are ready but for tokens that others hold.
    #[must_use]
    pub fn parked(&self) -> u32 {
        self.lanes.as_ref().map_or(0, |lanes| lanes.parked)
    }

    /// Take the tokens of a new batch.
    pub(super) fn take_tokens(&mut self, batch: &Batch) {
        if let Some(lanes) = self.lanes.as_mut().filter(|_| batch.limited()) {
            lanes.take(batch.class);
        }
    }

    /// Give back the tokens of a batch of which nothing runs any more, unless they are kept.
    pub(super) fn end_tokens(&mut self, batch: &Batch) {
        if let Some(lanes) = self.lanes.as_mut().filter(|_| batch.limited())
            && !lanes.kept.contains(&batch.key())
        {
            lanes.give(batch.class);
        }
    }

    /// Have the tokens of a batch stay out when its items have ended, until [`Scheduler::return_tokens`]: what was given up
    /// may still be running. Nothing happens for a batch without tokens.
    ///
    /// # Errors
    ///
    /// A batch of another scheduler, one whose tokens are back.
    pub fn keep_tokens(&mut self, batch: &Batch) -> Result<(), Refusal> {
        let out = self.holds(batch)?;
        let Some(lanes) = self.lanes.as_mut().filter(|_| batch.limited()) else {
            return Ok(());
        };
        if !out {
            return Err(Refusal::NoTokens);
        }
        lanes.kept.insert(batch.key());
        Ok(())
    }

    /// Let the tokens of a batch come back that were kept: at once, or with the end of what still runs.
    ///
    /// # Errors
    ///
    /// A batch of another scheduler, one whose tokens are not kept.
    pub fn return_tokens(&mut self, batch: &Batch) -> Result<(), Refusal> {
        let out = self.holds(batch)?;
        let Some(lanes) = self.lanes.as_mut().filter(|_| batch.limited()) else {
            return Ok(());
        };
        if !lanes.kept.remove(&batch.key()) {
            return Err(Refusal::NoTokens);
        }
        if !out {
            lanes.give(batch.class);
        }
        Ok(())
    }

    /// Say whether something of a batch still runs.
    fn holds(&self, batch: &Batch) -> Result<bool, Refusal> {
        if batch.scheduler == self.id {
            Ok(self.ledger.has(batch))
        } else {
            Err(Refusal::ForeignBatch)
        }
    }
}
