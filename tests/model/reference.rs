//! What the scheduler must say, in the simplest way that is right.
//!
//! The model keeps only what was reported: for each item whether it runs, is delayed, has ended, was cancelled. All else
//! is worked out anew from the graph whenever it is asked for, by looking at dependencies until nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use flowyml::graph::{Graph, Kind, NodeId, UNKNOWN};
use flowyml::scheduler::{Order, State};

use super::graphs::Sample;

fn is_bad(state: State) -> bool {
    matches!(
        state,
        State::Failed | State::TimedOut | State::UpstreamFailed
    )
}

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
    weights: Vec<u32>,
    /// Nodes that had dependents when they came.
    consumed: BTreeSet<u32>,
    /// What nodes that were grafted upon await.
    gates: BTreeMap<u32, BTreeSet<u32>>,
    pub(crate) lengths: Vec<Option<u32>>,
    /// Running, delayed (waiting) or ended, as reported.
    pub(crate) reported: BTreeMap<Item, State>,
    pub(crate) delays: BTreeMap<Item, f64>,
    pub(crate) attempts: BTreeMap<Item, u8>,
    /// Nodes without items that a cancellation or a refusal ended, and how.
    gone: BTreeMap<u32, State>,
    pub(crate) cancelled: bool,
    /// Nodes that were cancelled alone.
    stopped: BTreeSet<u32>,
    /// Nodes that may be chained, of those that were built.
    pub(crate) chainable: BTreeSet<u32>,
    built: u32,
    /// Nodes of one item of which more is kept than the state of that item: they are chained no more.
    special: BTreeSet<u32>,
    /// How many bad items nodes tolerate.
    tolerated: BTreeMap<u32, usize>,
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
        let all: BTreeSet<_> = pairs(Kind::All);
        let elementwise = &pairs(Kind::Elementwise) - &all;
        let count = |node| Some(graph.count(NodeId(node))).filter(|count| *count != UNKNOWN);
        let mut model = Self {
            nodes,
            built: nodes,
            all,
            elementwise,
            joins: sample.joins & ((1 << nodes) - 1),
            lengths: (0..nodes).map(count).collect(),
            special: (0..nodes).filter(|node| count(*node).is_none()).collect(),
            add_order: order == Order::Add,
            ..Self::default()
        };
        model.weights = (0..nodes).map(|node| model.weight(node)).collect();
        model.note_consumed(0);
        model.sort();
        model.work_out();
        model
    }

    fn sort(&mut self) {
        self.order = (0..self.nodes).collect();
        if !self.add_order {
            let heaviest = |node: &u32| std::cmp::Reverse(self.weights[*node as usize]);
            self.order.sort_by_key(heaviest);
        }
    }

    fn note_consumed(&mut self, first: u32) {
        let edges = self.all.iter().chain(&self.elementwise);
        let new = edges.map(|edge| edge.1).filter(|node| *node >= first);
        self.consumed.extend(new);
    }

    /// All edges as (dependent, dependency, kind).
    pub(crate) fn edges(&self) -> Vec<(u32, u32, Kind)> {
        let all = self.all.iter().map(|edge| (edge.0, edge.1, Kind::All));
        let elementwise = self.elementwise.iter();
        all.chain(elementwise.map(|edge| (edge.0, edge.1, Kind::Elementwise)))
            .collect()
    }

    /// Add nodes with the last of these lengths for an item that runs, which awaits some of them.
    pub(crate) fn graft(
        &mut self,
        item: Item,
        lengths: &[u32],
        edges: &[(u32, u32, Kind)],
        joins: &[u8],
        awaited: BTreeSet<u32>,
    ) {
        let first = self.nodes;
        self.nodes = lengths.len() as u32;
        let lengths = lengths.iter().skip(first as usize);
        self.lengths
            .extend(lengths.map(|length| Some(*length).filter(|length| *length != UNKNOWN)));
        let new = |kind| edges.iter().filter(move |edge| edge.2 == kind);
        self.all.extend(new(Kind::All).map(|edge| (edge.0, edge.1)));
        let elementwise = new(Kind::Elementwise).map(|edge| (edge.0, edge.1));
        let elementwise: BTreeSet<_> = elementwise.collect();
        self.elementwise.extend(&elementwise - &self.all);
        self.all.extend(awaited.iter().map(|node| (item.0, *node)));
        for (place, join) in joins.iter().enumerate() {
            self.joins |= u32::from(*join) << (first as usize + place);
        }
        self.weights.resize(self.nodes as usize, 0);
        for node in first..self.nodes {
            self.weights[node as usize] = self.weight_of_new(node, item.0);
        }
        self.gates.insert(item.0, awaited);
        self.note_consumed(first);
        self.sort();
        *self.attempts.entry(item).or_default() -= 1;
        self.reported.remove(&item);
        let cancelled = self.cancelled || self.stopped.contains(&item.0);
        if cancelled {
            self.reported.insert(item, State::Cancelled);
        }
        self.work_out();
        if cancelled {
            self.call_off(|node| node >= first);
        }
    }

    /// The longest way from a new node to a leaf, or to the node that was grafted upon and from there as before.
    fn weight_of_new(&self, node: u32, at: u32) -> u32 {
        let edges = self.all.iter().chain(&self.elementwise);
        let above = edges.filter(|edge| edge.1 == node).map(|edge| {
            if edge.0 == at {
                self.weights[at as usize]
            } else {
                self.weight_of_new(edge.0, at)
            }
        });
        1 + above.max().unwrap_or(0)
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

    /// Ready items that one claim takes: of those that `can` run, as many as are of one class. In add order it ends before
    /// an item whose turn comes after a dependent of others.
    pub(crate) fn claimable(
        &self,
        limit: usize,
        can: impl Fn(u32) -> bool,
        class: impl Fn(u32) -> u32,
    ) -> Vec<Item> {
        let mut taken = Vec::new();
        let mut barrier = u32::MAX;
        let ready = self.ready().into_iter().filter(|item| can(item.0));
        for item in ready.take(limit) {
            if self.add_order && item.0 > barrier {
                break;
            }
            let first: Item = *taken.first().unwrap_or(&item);
            if class(first.0) != class(item.0) {
                break;
            }
            let edges = self.all.iter().chain(&self.elementwise);
            let dependents = edges.filter(|edge| edge.1 == item.0).map(|edge| edge.0);
            barrier = dependents.min().unwrap_or(barrier).min(barrier);
            taken.push(item);
        }
        taken
    }

    /// The most urgent node that may be chained to one that runs; `class` is what nodes need of limits.
    pub(crate) fn link(&self, node: u32, class: impl Fn(u32) -> u32) -> Option<u32> {
        if self.add_order || !self.is_plain(node) {
            return None;
        }
        let next = self.order.iter().copied().filter(|next| {
            self.chainable.contains(next)
                && self.is_plain(*next)
                && class(*next) == 0
                && self.joins >> next & 1 == 0
                && self.items[&(*next, 0)] == State::Waiting
                && self.waits_for_alone(*next, node)
        });
        next.min_by_key(|next| self.order.iter().position(|other| other == next))
    }

    /// Say whether a node is built, has one item, and no edges item by item.
    fn is_plain(&self, node: u32) -> bool {
        let tied = |edge: &(u32, u32)| edge.0 == node || edge.1 == node;
        node < self.built
            && self.lengths[node as usize] == Some(1)
            && !self.special.contains(&node)
            && !self.elementwise.iter().any(tied)
    }

    /// Say whether a node has all it needs but for what one dependency is to give.
    fn waits_for_alone(&self, node: u32, dependency: u32) -> bool {
        let edges = self.all.iter().filter(|edge| edge.0 == node);
        let (own, others): (Vec<u32>, Vec<u32>) = edges
            .map(|edge| edge.1)
            .partition(|other| *other == dependency);
        let fine = |other: &u32| {
            let states = self.states(*other);
            states.iter().all(|state| state.has_value())
        };
        own.len() == 1 && !self.complete(dependency) && others.iter().all(fine)
    }

    /// Say whether an item runs though not all of its dependencies are complete: it is chained to one of them.
    pub(crate) fn is_ahead(&self, item: Item) -> bool {
        let waits = |edge: &&(u32, u32)| edge.0 == item.0 && !self.complete(edge.1);
        self.items[&item] == State::Running && self.all.iter().any(|edge| waits(&edge))
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
        let free = |&(node, index): &Item| {
            keep[node as usize] == 0
                && self.consumed.contains(&node)
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
            if let Some(state) = self.gone.get(&node) {
                self.reported
                    .extend((0..count).map(|index| ((node, index), *state)));
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
        self.call_off(|_| true);
    }

    pub(crate) fn cancel_node(&mut self, node: u32) {
        self.stopped.insert(node);
        self.call_off(|other| other == node);
    }

    fn call_off(&mut self, of: impl Fn(u32) -> bool) {
        self.delays.retain(|item, _| !of(item.0));
        let items = self.items.iter();
        let open = items.filter(|(item, state)| of(item.0) && **state < State::Running);
        self.reported
            .extend(open.map(|(item, _)| (*item, State::Cancelled)));
        let empty = self.empty.iter();
        let open = empty.filter(|(node, state)| of(**node) && !state.is_terminal());
        self.gone
            .extend(open.map(|(node, _)| (*node, State::Cancelled)));
        self.work_out();
    }

    /// End a node whose length was awaited.
    pub(crate) fn refuse(&mut self, node: u32, state: State) {
        self.gone.entry(node).or_insert(state);
        self.work_out();
    }

    /// Say whether a node's length is not asked for any more, because the node is over.
    pub(crate) fn is_gone(&self, node: u32) -> bool {
        self.gone.contains_key(&node)
    }

    /// Let a node have bad items; false if that comes too late.
    pub(crate) fn tolerate(&mut self, node: u32, failures: usize) -> bool {
        let states = self.raw_states(node);
        let bad = states.iter().filter(|state| is_bad(**state)).count();
        let fails = bad > 0 && !self.forgives(node);
        if !fails && bad <= failures {
            self.tolerated.insert(node, failures);
            self.special.insert(node);
        }
        !fails && bad <= failures
    }

    /// Say whether the bad items of a node do not count: they are no more than it tolerates, and some item could run.
    fn forgives(&self, node: u32) -> bool {
        let states = self.raw_states(node);
        let bad = states.iter().filter(|state| is_bad(**state)).count();
        let barred = states.iter().all(|state| *state == State::UpstreamFailed);
        let tolerated = self.tolerated.get(&node).copied().unwrap_or(0);
        bad <= tolerated && !barred && !self.empty.contains_key(&node)
    }

    pub(crate) fn node_state(&self, node: u32) -> State {
        const TELLING: [State; State::COUNT] = [
            State::Running,
            State::Ready,
            State::Waiting,
            State::Failed,
            State::TimedOut,
            State::UpstreamFailed,
            State::Cancelled,
            State::Skipped,
            State::Success,
            State::Cached,
            State::Given,
        ];
        let states = self.states(node);
        let first = TELLING.into_iter().find(|state| states.contains(state));
        first.expect("items, or a state of the node")
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

    /// Note that a running item was not begun: it waits again if it was chained to another one.
    pub(crate) fn give_back(&mut self, item: Item) {
        let ahead = self.is_ahead(item);
        self.put_back(item, None);
        if ahead && self.reported[&item] == State::Ready {
            self.reported.remove(&item);
            self.work_out();
        }
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
            if self.cancelled || self.stopped.contains(&item.0) {
                State::Cancelled
            } else {
                state
            },
        );
        if let Some(at) = delay.filter(|_| self.reported[&item] == State::Waiting) {
            self.delays.insert(item, at);
        }
        self.work_out();
    }

    /// The time at which the next delay is over.
    pub(crate) fn next_delay(&self) -> Option<f64> {
        self.delays.values().copied().min_by(f64::total_cmp)
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
                let gone = self.gone.get(&node).copied();
                (node, gone.unwrap_or(State::Waiting))
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
                .filter(|node| !self.gone.contains_key(node))
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
        let gate = self.gates.get(&node);
        let whole = self
            .all
            .iter()
            .filter(|edge| edge.0 == node && gate.is_none_or(|gate| gate.contains(&edge.1)))
            .map(|edge| self.states(edge.1));
        let whole: Vec<Vec<State>> = whole.collect();
        let mut states = whole.concat();
        if self.joins >> node & 1 == 1 && gate.is_none() {
            if !states.iter().all(|state| state.is_terminal()) {
                states = vec![State::Waiting];
            } else if whole
                .iter()
                .any(|states| states.iter().all(|state| state.has_value()))
            {
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

    /// The states of a node's items, or of the node if it has none, as all its dependents see them.
    fn states(&self, node: u32) -> Vec<State> {
        let forgives = self.forgives(node);
        let seen = |state| {
            if forgives && is_bad(state) {
                State::Success
            } else {
                state
            }
        };
        self.raw_states(node).into_iter().map(seen).collect()
    }

    fn raw_states(&self, node: u32) -> Vec<State> {
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
