//! The ready queue: its order, and claims from it.
//!
//! Ready nodes are stored in a set of ranks, or, if they need tokens of limits, by key in the lane of their class;
//! ready items of mapped nodes are stored in a set of their own, so that a node is in the queue once. The most urgent
//! node of all is the first of the set or the head of an open lane.

use std::ops::Range;

use crate::graph::{ItemId, NodeId};

use super::batch::Batch;
use super::state::State;
use super::{Order, Scheduler};

impl Scheduler {
    /// Give up to `limit` ready items to `worker`, the most urgent first; `None` if nothing is ready. Delays that are
    /// over at `now` end first.
    ///
    /// A batch holds items of one class (see [`Scheduler::with_limits`]), so it ends before a node of another class. In
    /// add order it also ends before an item that was added after a dependent of the batch: that dependent may be ready
    /// by then, and comes first.
    ///
    /// O(runs * log nodes + items).
    pub fn claim(&mut self, worker: u16, limit: u32, now: f64) -> Option<Batch> {
        self.claim_chains(worker, limit, 0, now)
    }

    /// The same, with nodes that can be chained to these items (see [`Scheduler::chain`]), while the batch has less
    /// than `most`.
    pub fn claim_chains(&mut self, worker: u16, limit: u32, most: u32, now: f64) -> Option<Batch> {
        self.advance(now);
        let mut batch = Batch::new(self.id, worker);
        let mut barrier = u32::MAX;
        let mut feeds = false; // the last one may make another item ready
        let (chaining, most) = (most > 1, most.max(limit));
        while batch.heads() < limit && batch.len() < most {
            let Some((node, class)) = self.next_node() else {
                break;
            };
            if batch.is_empty() {
                batch.class = class;
            } else if batch.class != class {
                break;
            }
            let (mut items, index) =
                self.next_items(node, (limit - batch.heads()).min(most - batch.len()));
            let chains = chaining && index.is_none() && class == 0 && self.link(node).is_some();
            if chains {
                items.end = items.start + 1;
            }
            if self.order == Order::Add {
                items.end = items.start + self.in_turn(node, &items, index.is_some(), &mut barrier);
            }
            if items.is_empty() {
                break;
            }
            if feeds {
                batch.note_restless();
            }
            feeds = chaining && self.feeds(node, &items, index.is_some(), &mut batch);
            batch.push(node, ItemId(items.start), items.end - items.start, index);
            self.transition(node, items.clone(), State::Ready, State::Running);
            self.timeline.begin(items, worker, now);
            if chains {
                let last = self.follow(&mut batch, node, most, now);
                feeds = self.graph.dependents(last).next().is_some();
            }
        }
        if batch.is_empty() {
            return None;
        }
        self.ledger.open(&mut batch);
        self.take_tokens(&mut batch);
        Some(batch)
    }

    /// Return true if the last of these items may make others ready; record it if one before it may.
    fn feeds(&self, node: NodeId, items: &Range<u32>, mapped: bool, batch: &mut Batch) -> bool {
        if batch.restless() {
            return true;
        }
        let nodes = if mapped { 1 } else { items.end - items.start };
        let feeds = |at: u32| {
            let node = NodeId(node.0 + at);
            self.graph.dependents(node).next().is_some()
        };
        if items.end - items.start > 1 && (0..nodes).any(feeds) {
            batch.note_restless();
        }
        feeds(nodes - 1)
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

    /// Return the most urgent node that can be claimed from, and its class.
    fn next_node(&self) -> Option<(NodeId, u32)> {
        let plain = self.ready_nodes.first().map(|rank| self.at_rank(rank));
        let Some(lanes) = &self.lanes else {
            return plain.map(|node| (node, 0));
        };
        let plain = plain.filter(|_| lanes.gives_plain());
        match lanes.first() {
            Some((key, class)) if plain.is_none_or(|node| key < self.key(node)) => {
                Some((NodeId(key as u32), class))
            }
            _ => plain.map(|node| (node, 0)),
        }
    }

    /// Count the ready nodes of one item and class 0 that follow each other from `node` on, both in id and in rank.
    fn neighbours(&self, node: NodeId, limit: u32) -> u32 {
        if self.class(node) != 0 {
            return 1;
        }
        let rank = self.rank(node);
        let ready = self.ready_nodes.run(rank, limit);
        // Nodes without a rank may belong between those that follow each other in rank.
        let bound = self.lanes.as_ref().and_then(|lanes| lanes.first());
        let follows = |at: &u32| {
            let next = self.at_rank(rank + at);
            next.0 == node.0 + at
                && self.maps.get(next).is_none()
                && bound.is_none_or(|(key, _)| self.key(next) < key)
        };
        (1..ready).take_while(follows).count() as u32 + 1
    }

    /// Count the first of `items` that may be claimed: those of nodes up to `barrier`, the first dependent of all
    /// before them.
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
        // A dependent that was added before its map may become ready item by item.
        if mapped && *barrier < node.0 {
            1
        } else {
            count
        }
    }

    /// Record that items became ready.
    pub(super) fn enqueue(&mut self, node: NodeId, items: Range<u32>) {
        let count = items.end - items.start;
        let mut nodes = count;
        if self.maps.get(node).is_some() {
            self.ready_items.insert_range(items);
            nodes = 1;
        }
        if self.lanes.is_some() {
            return self.enter_lanes(node, nodes, count);
        }
        for at in 0..nodes {
            self.ready_nodes.insert(self.rank(NodeId(node.0 + at)));
        }
    }

    /// Record that items are no longer ready.
    pub(super) fn unqueue(&mut self, node: NodeId, items: Range<u32>) {
        let count = items.end - items.start;
        let mut nodes = count;
        if let Some(map) = self.maps.get(node) {
            self.ready_items.remove_range(items);
            let next = self.ready_items.next(map.first);
            nodes = u32::from(next.is_none_or(|item| item >= map.first + map.count));
        }
        if self.lanes.is_some() {
            return self.leave_lanes(node, nodes, count);
        }
        for at in 0..nodes {
            self.ready_nodes.remove(self.rank(NodeId(node.0 + at)));
        }
    }

    /// Add `count` ready items of consecutive nodes of one class to the queue.
    #[cold]
    fn enter_lanes(&mut self, node: NodeId, nodes: u32, count: u32) {
        let class = self.class(node);
        for node in (node.0..node.0 + nodes).map(NodeId) {
            let key = self.key(node);
            let ranked = self.is_ranked(node, class);
            match &mut self.lanes {
                Some(lanes) if !ranked => lanes.insert(class, key),
                _ => self.ready_nodes.insert(self.rank(node)),
            }
        }
        self.count_ready(class, count, 0);
    }

    /// Remove `count` ready items of consecutive nodes of one class from the queue.
    #[cold]
    fn leave_lanes(&mut self, node: NodeId, nodes: u32, count: u32) {
        let class = self.class(node);
        for node in (node.0..node.0 + nodes).map(NodeId) {
            let key = self.key(node);
            let ranked = self.is_ranked(node, class);
            match &mut self.lanes {
                Some(lanes) if !ranked => lanes.remove(class, key),
                _ => self.ready_nodes.remove(self.rank(node)),
            }
        }
        self.count_ready(class, 0, count);
    }

    /// Return true if a node of this class is stored in the set of ranks when it is ready.
    fn is_ranked(&self, node: NodeId, class: u32) -> bool {
        class == 0 && node.0 < self.graph.base_count()
    }

    fn count_ready(&mut self, class: u32, more: u32, fewer: u32) {
        if let Some(lanes) = &mut self.lanes {
            lanes.count(class, more, fewer);
        }
    }

    /// Return the class of a node; 0 if it needs nothing.
    pub(super) fn class(&self, node: NodeId) -> u32 {
        self.lanes.as_ref().map_or(0, |lanes| lanes.class(node))
    }

    /// Return a key that orders nodes by urgency; its lower half is the node.
    pub(super) fn key(&self, node: NodeId) -> u64 {
        let lightness = if self.order == Order::Add {
            0
        } else {
            u32::MAX - self.graph.weight(node)
        };
        u64::from(lightness) << 32 | u64::from(node.0)
    }

    /// Return the position of a node in the order.
    pub(super) fn rank(&self, node: NodeId) -> u32 {
        if self.order == Order::Add {
            node.0
        } else {
            self.graph.rank(node)
        }
    }

    pub(super) fn at_rank(&self, rank: u32) -> NodeId {
        if self.order == Order::Add {
            NodeId(rank)
        } else {
            self.graph.at_rank(rank)
        }
    }

    /// Return true if a node is in the ready queue.
    pub(super) fn is_queued(&self, node: NodeId) -> bool {
        let class = self.class(node);
        match &self.lanes {
            Some(lanes) if !self.is_ranked(node, class) => lanes.contains(class, self.key(node)),
            _ => self.ready_nodes.contains(self.rank(node)),
        }
    }
}
