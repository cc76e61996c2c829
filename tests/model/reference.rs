//! What the scheduler must say, in the simplest way that is right.
//!
//! The model keeps only what was reported: for each item whether it runs, is delayed, has ended, was cancelled. All else
//! is worked out anew from the graph whenever it is asked for, by looking at dependencies until nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use flowyml::graph::{Graph, Kind, NodeId, UNKNOWN};
use flowyml::scheduler::{Order, State};

use super::graphs::Sample;

/// An item: node and index.
pub(crate) type Item = (u32, u32);

/// What was reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    nodes: u32,
    order: Vec<u32>,
    add_order: bool,
    all: BTreeSet<(u32, u32)>,
    elementwise: BTreeSet<(u32, u32)>,
    joins: u32,
    pub(crate) lengths: Vec<Option<u32>>,
    /// Running, delayed (waiting) or ended, as reported.
    pub(crate) reported: BTreeMap<Item, State>,
    pub(crate) delays: BTreeMap<Item, f64>,
    pub(crate) deadlines: BTreeMap<Item, f64>,
    pub(crate) attempts: BTreeMap<Item, u8>,
    /// Nodes without items that a cancellation ended.
    gone: BTreeSet<u32>,
    pub(crate) cancelled: bool,
    /// What follows from that: of each item, and of each node without items.
    items: BTreeMap<Item, State>,
    empty: BTreeMap<u32, State>,
}

impl Model {
    pub(crate) fn new(sample: &Sample, graph: &Graph, order: Order) -> Self {
        let nodes = graph.node_count();
        let pairs = |kind| {
            sample
                .edges
                .iter()
                .filter(move |edge| edge.2 == kind)
                .map(|edge| (edge.0, edge.1))
                .collect()
        };
        let mut all: BTreeSet<_> = pairs(Kind::All);
        let elementwise = &pairs(Kind::Elementwise) - &all;
        let (single, elementwise): (BTreeSet<_>, _) = elementwise
            .into_iter()
            .partition(|edge| graph.count(NodeId(edge.0)) == 1);
        all.extend(single);
        let count = |node| Some(graph.count(NodeId(node))).filter(|count| *count != UNKNOWN);
        let mut model = Self {
            nodes,
            all,
            elementwise,
            joins: sample.joins,
            lengths: (0..nodes).map(count).collect(),
            add_order: order == Order::Add,
            ..Self::default()
        };
        model.order = (0..nodes).collect();
        if order == Order::CriticalPath {
            let weights: Vec<u32> = (0..nodes).map(|node| model.weight(node)).collect();
            model
                .order
                .sort_by_key(|node| std::cmp::Reverse(weights[*node as usize]));
        }
        model.work_out();
        model
    }

    pub(crate) fn weight(&self, node: u32) -> u32 {
        let edges = self.all.iter().chain(&self.elementwise);
        1 + edges
            .filter(|edge| edge.1 == node)
            .map(|edge| self.weight(edge.0))
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = Item> + '_ {
        (0..self.nodes).flat_map(|node| {
            (0..self.lengths[node as usize].unwrap_or(0)).map(move |index| (node, index))
        })
    }

    pub(crate) fn state(&self, item: Item) -> State {
        self.items[&item]
    }

    /// The state of a node without items.
    pub(crate) fn empty_state(&self, node: u32) -> Option<State> {
        self.empty.get(&node).copied()
    }

    /// Ready items in the order in which they are to be claimed.
    pub(crate) fn ready(&self) -> Vec<Item> {
        let of = |node: &u32| {
            (0..self.lengths[*node as usize].unwrap_or(0))
                .map(|index| (*node, index))
                .collect::<Vec<_>>()
        };
        self.order
            .iter()
            .flat_map(of)
            .filter(|item| self.items[item] == State::Ready)
            .collect()
    }

    /// Ready items that one claim takes. In add order it ends before an item whose turn comes after a dependent of others.
    pub(crate) fn claimable(&self, limit: usize) -> Vec<Item> {
        let mut taken = Vec::new();
        let mut barrier = u32::MAX;
        for item in self.ready().into_iter().take(limit) {
            if self.add_order && item.0 > barrier {
                break;
            }
            let edges = self.all.iter().chain(&self.elementwise);
            let dependents = edges.filter(|edge| edge.1 == item.0).map(|edge| edge.0);
            barrier = dependents.min().unwrap_or(barrier).min(barrier);
            taken.push(item);
        }
        taken
    }

    /// Nodes whose length is awaited.
    pub(crate) fn due(&self) -> BTreeSet<u32> {
        let roots = (0..self.nodes).filter(|node| {
            self.lengths[*node as usize].is_none() && self.sources(*node).next().is_none()
        });
        let waits =
            |node: &u32| !self.empty[node].is_terminal() && self.dependencies_complete(*node);
        roots.filter(waits).collect()
    }

    pub(crate) fn finished(&self) -> bool {
        self.items
            .values()
            .chain(self.empty.values())
            .all(|state| state.is_terminal())
    }

    /// Values that nobody needs any more, of nodes that are not kept.
    pub(crate) fn released(&self, keep: &[u8]) -> BTreeSet<Item> {
        let consumed = |node: u32| {
            self.all
                .iter()
                .chain(&self.elementwise)
                .any(|edge| edge.1 == node)
        };
        let free = |&(node, index): &Item| {
            keep[node as usize] == 0
                && consumed(node)
                && self.items[&(node, index)].has_value()
                && self
                    .all
                    .iter()
                    .filter(|edge| edge.1 == node)
                    .all(|edge| self.complete(edge.0))
                && self
                    .elementwise
                    .iter()
                    .filter(|edge| edge.1 == node)
                    .all(|edge| self.ended(edge.0, index))
        };
        self.items().filter(free).collect()
    }

    /// Give a length to a node and to all that get theirs from it.
    pub(crate) fn expand(&mut self, node: u32, count: u32) {
        let mut group = vec![node];
        while let Some(node) = group.pop() {
            self.lengths[node as usize] = Some(count);
            if self.gone.contains(&node) {
                self.reported
                    .extend((0..count).map(|index| ((node, index), State::Cancelled)));
            }
            group.extend(
                self.elementwise
                    .iter()
                    .filter(|edge| edge.1 == node)
                    .map(|edge| edge.0),
            );
        }
        self.work_out();
    }

    pub(crate) fn cancel(&mut self) {
        self.cancelled = true;
        self.delays.clear();
        let open = self
            .items
            .iter()
            .filter(|(_, state)| **state < State::Running);
        self.reported
            .extend(open.map(|(item, _)| (*item, State::Cancelled)));
        self.gone.extend(
            self.empty
                .iter()
                .filter(|(_, state)| !state.is_terminal())
                .map(|(node, _)| *node),
        );
        self.work_out();
    }

    /// End the delays that are over.
    pub(crate) fn advance(&mut self, now: f64) {
        let due: Vec<Item> = self
            .delays
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(item, _)| *item)
            .collect();
        for item in due {
            self.delays.remove(&item);
            self.reported.insert(item, State::Ready);
        }
        self.work_out();
    }

    /// Take out the deadlines that are reached.
    pub(crate) fn expired(&mut self, now: f64) -> BTreeSet<Item> {
        let due: BTreeSet<Item> = self
            .deadlines
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(item, _)| *item)
            .collect();
        self.deadlines.retain(|item, _| !due.contains(item));
        due
    }

    /// Note that a running item is to run again, now or after a delay.
    pub(crate) fn put_back(&mut self, item: Item, delay: Option<f64>) {
        let state = if delay.is_some() {
            State::Waiting
        } else {
            State::Ready
        };
        self.reported.insert(
            item,
            if self.cancelled {
                State::Cancelled
            } else {
                state
            },
        );
        self.deadlines.remove(&item);
        if let Some(at) = delay.filter(|_| !self.cancelled) {
            self.delays.insert(item, at);
        }
        self.work_out();
    }

    /// The time of the next delay or deadline.
    pub(crate) fn next_wakeup(&self) -> Option<f64> {
        self.delays
            .values()
            .chain(self.deadlines.values())
            .copied()
            .min_by(f64::total_cmp)
    }

    /// Work out what follows from what was reported.
    pub(crate) fn work_out(&mut self) {
        self.items = self
            .items()
            .map(|item| {
                (
                    item,
                    self.reported.get(&item).copied().unwrap_or(State::Waiting),
                )
            })
            .collect();
        let empty = (0..self.nodes).filter(|node| self.lengths[*node as usize].unwrap_or(0) == 0);
        self.empty = empty
            .map(|node| {
                (
                    node,
                    if self.gone.contains(&node) {
                        State::Cancelled
                    } else {
                        State::Waiting
                    },
                )
            })
            .collect();
        loop {
            let before = (self.items.clone(), self.empty.clone());
            for item in self
                .items()
                .filter(|item| !self.reported.contains_key(item))
                .collect::<Vec<_>>()
            {
                let state = self.inherited(item.0, Some(item.1)).unwrap_or(State::Ready);
                self.items.insert(item, state);
            }
            for node in self
                .empty
                .keys()
                .copied()
                .filter(|node| !self.gone.contains(node))
                .collect::<Vec<_>>()
            {
                let known = if self.lengths[node as usize].is_some() {
                    State::Success
                } else {
                    State::Waiting
                };
                let state = self.inherited(node, None).unwrap_or(known);
                self.empty.insert(node, state);
            }
            if before == (self.items.clone(), self.empty.clone()) {
                return;
            }
        }
    }

    /// The state that dependencies impose on an item, or on a node without items; `None` if they let it run.
    fn inherited(&self, node: u32, index: Option<u32>) -> Option<State> {
        let whole = self
            .all
            .iter()
            .filter(|edge| edge.0 == node)
            .map(|edge| edge.1);
        let mut states: Vec<State> = whole
            .flat_map(|dependency| self.states(dependency))
            .collect();
        if self.joins >> node & 1 == 1 {
            if !states.iter().all(|state| state.is_terminal()) {
                states = vec![State::Waiting];
            } else if states.iter().any(|state| state.has_value()) {
                states.clear();
            }
        }
        for source in self.sources(node) {
            match index.filter(|_| !self.empty.contains_key(&source)) {
                Some(index) => states.push(self.items[&(source, index)]),
                None => states.extend(self.states(source)),
            }
        }
        let any = |wanted: &[State]| states.iter().any(|state| wanted.contains(state));
        if any(&[State::Failed, State::TimedOut, State::UpstreamFailed]) {
            Some(State::UpstreamFailed)
        } else if !states.iter().all(|state| state.is_terminal()) {
            Some(State::Waiting)
        } else if any(&[State::Cancelled]) {
            Some(State::Cancelled)
        } else {
            any(&[State::Skipped]).then_some(State::Skipped)
        }
    }

    fn sources(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.elementwise
            .iter()
            .filter(move |edge| edge.0 == node)
            .map(|edge| edge.1)
    }

    fn states(&self, node: u32) -> Vec<State> {
        let items =
            (0..self.lengths[node as usize].unwrap_or(0)).map(|index| self.items[&(node, index)]);
        items.chain(self.empty.get(&node).copied()).collect()
    }

    fn complete(&self, node: u32) -> bool {
        self.states(node).iter().all(|state| state.is_terminal())
    }

    fn ended(&self, node: u32, index: u32) -> bool {
        self.items
            .get(&(node, index))
            .or(self.empty.get(&node))
            .is_some_and(|state| state.is_terminal())
    }

    fn dependencies_complete(&self, node: u32) -> bool {
        let edges = self.all.iter().chain(&self.elementwise);
        edges
            .filter(|edge| edge.0 == node)
            .all(|edge| self.complete(edge.1))
    }
}
