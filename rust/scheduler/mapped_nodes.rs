//! The data of mapped nodes: where their items begin and how many have ended.
//!
//! A node of one item is also tracked here if more than its item's state is needed: an elementwise edge, failures that
//! it tolerates. For claims it remains a node of one item.

use crate::graph::{Graph, ItemId, Kind, NodeId, UNKNOWN};

use super::state::{DependencyEffect, State};

const NONE: u32 = u32::MAX;

/// The state of a mapped node's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeLength {
    /// The node has its items.
    Known,
    /// A dependency is not complete.
    Unknown,
    /// Its dependencies are complete; [`super::Scheduler::expand`] is awaited.
    Due,
    /// [`super::Scheduler::refuse`] reported that there is none.
    Refused,
}

/// A mapped node.
#[derive(Debug)]
pub(super) struct MappedNode {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) length: NodeLength,
    /// Is an ordinary node of one item.
    pub(super) single: bool,
    /// Items whose end dependents have not processed yet.
    pub(super) unfinished: u32,
    /// The worst end so far, of an item or of the node itself if it has none; failures only once there are too many.
    pub(super) verdict: DependencyEffect,
    /// How the node ended, if it had no items then.
    pub(super) end: State,
    /// How many failed items the node tolerates.
    pub(super) tolerated: u32,
    /// Items that failed or could not run because others failed.
    pub(super) bad: u32,
    /// The bad items that could not run.
    pub(super) barred: u32,
    /// The worst of the `All` dependencies, once all are complete; for a join `Fine` if any of them has a value.
    pub(super) gate: DependencyEffect,
    /// An `All` dependency failed, so no item can run.
    pub(super) doomed: bool,
    pub(super) complete: bool,
    /// Nodes whose item i each item i waits for.
    pub(super) sources: Vec<NodeId>,
    /// Nodes whose item i waits for each item i.
    pub(super) followers: Vec<NodeId>,
    /// The length of the prefix of `sources` that is known to be complete.
    pub(super) complete_sources: usize,
    /// For each item, the length of the prefix of `sources` whose same item has ended.
    pub(super) ended_sources: Prefixes,
    /// For each item, the length of the prefix of `followers` whose same item has ended.
    pub(super) ended_followers: Prefixes,
}

/// For each item of a node, the length of the prefix of a list of nodes that have ended for it. It only grows, so that
/// all checks of an item together take time linear in the list, not quadratic. Empty until it is used.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Vec<u32>);

impl Prefixes {
    /// Return true if a list is long enough for this to pay; a short one is checked from its beginning each time.
    pub(super) fn pays(list: &[NodeId]) -> bool {
        list.len() >= 4
    }

    /// Return true if all nodes of a list have ended for item `index` of `count`; `has_ended` checks one of them.
    pub(super) fn cover(
        &mut self,
        list: &[NodeId],
        index: u32,
        count: u32,
        has_ended: impl Fn(&NodeId) -> bool,
    ) -> bool {
        self.0.resize(count as usize, 0);
        let prefix = &mut self.0[index as usize];
        let more = list[*prefix as usize..].iter();
        *prefix += more.take_while(|node| has_ended(node)).count() as u32;
        *prefix as usize == list.len()
    }
}

/// All mapped nodes of a run. Empty, at no cost, if every node has one item.
#[derive(Debug, Default)]
pub(super) struct MappedNodes {
    /// For each node its index in `all`.
    places: Vec<u32>,
    all: Vec<MappedNode>,
    /// Some nodes of one item are tracked here.
    singles: bool,
    /// First item and node of each expansion, in item order.
    expansions: Vec<(u32, NodeId)>,
}

impl MappedNodes {
    /// O(nodes + edges of mapped nodes); O(1) if there are none.
    pub(super) fn new(graph: &Graph) -> Self {
        let nodes = graph.mapped();
        if nodes.is_empty() {
            return Self::default();
        }
        let mut places = vec![NONE; graph.node_count() as usize];
        for (place, node) in (0..).zip(&nodes) {
            places[node.index()] = place;
        }
        let map = |node: &NodeId| MappedNode::new(graph, *node, graph.first_item(*node).0);
        let all: Vec<MappedNode> = nodes.iter().map(map).collect();
        Self {
            places,
            singles: all.iter().any(|map| map.single),
            all,
            expansions: Vec::new(),
        }
    }

    /// Track a node, whose items begin at `first`, from now on. Amortised O(1), for the first one of a run O(nodes).
    pub(super) fn add(&mut self, graph: &Graph, node: NodeId, first: u32) -> &mut MappedNode {
        if self.places.len() <= node.index() {
            self.places.resize(graph.node_count() as usize, NONE);
        }
        let map = MappedNode::new(graph, node, first);
        self.singles |= map.single;
        self.places[node.index()] = self.all.len() as u32;
        self.all.push(map);
        let last = self.all.len() - 1;
        &mut self.all[last]
    }

    /// Return true if a run of nodes of one item may contain some that are tracked here.
    pub(super) fn has_singles(&self) -> bool {
        self.singles
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn place(&self, node: NodeId) -> Option<u32> {
        self.places
            .get(node.index())
            .copied()
            .filter(|place| *place != NONE)
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&MappedNode> {
        self.place(node).map(|place| self.at(place))
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut MappedNode> {
        self.place(node).map(|place| self.at_mut(place))
    }

    pub(super) fn at(&self, place: u32) -> &MappedNode {
        &self.all[place as usize]
    }

    pub(super) fn at_mut(&mut self, place: u32) -> &mut MappedNode {
        &mut self.all[place as usize]
    }

    /// Record that the items of `node` begin at `first`, after all others.
    pub(super) fn note_expansion(&mut self, first: u32, node: NodeId) {
        self.expansions.push((first, node));
    }

    /// Return the node of an item that was added by expansion. O(log expansions).
    pub(super) fn expanded(&self, item: ItemId) -> NodeId {
        self.expansions[self
            .expansions
            .partition_point(|(first, _)| *first <= item.0)
            - 1]
        .1
    }

    /// Return the state of a node that has no items.
    pub(super) fn state_without_items(&self, node: NodeId) -> State {
        match self.get(node) {
            Some(map) if map.complete => map.end,
            _ => State::Waiting,
        }
    }
}

impl MappedNode {
    /// Record that `count` items ended in `state`; return true if this makes the node fail.
    ///
    /// A node fails if more items are bad than it tolerates, or if none could run: then there are no values to continue
    /// with.
    pub(super) fn note(&mut self, count: u32, state: State) -> bool {
        if !state.is_bad() {
            self.verdict = self.verdict.max(state.verdict());
            return false;
        }
        self.bad += count;
        self.barred += if state == State::UpstreamFailed {
            count
        } else {
            0
        };
        let fails = self.bad > self.tolerated || self.barred == self.count;
        fails
            && std::mem::replace(&mut self.verdict, DependencyEffect::Failed)
                != DependencyEffect::Failed
    }

    /// Return true if failures of its items do not count.
    pub(super) fn forgives(&self) -> bool {
        self.verdict != DependencyEffect::Failed
    }

    fn new(graph: &Graph, node: NodeId, first: u32) -> Self {
        let declared = graph.count(node);
        let count = if declared == UNKNOWN { 0 } else { declared };
        let elementwise = |edge: &(NodeId, Kind)| edge.1 == Kind::Elementwise;
        Self {
            first,
            count,
            length: if declared == UNKNOWN {
                NodeLength::Unknown
            } else {
                NodeLength::Known
            },
            single: declared == 1,
            unfinished: count,
            verdict: DependencyEffect::Fine,
            end: State::Success,
            tolerated: 0,
            bad: 0,
            barred: 0,
            gate: DependencyEffect::Fine,
            doomed: false,
            complete: false,
            sources: graph
                .dependencies(node)
                .filter(elementwise)
                .map(|(source, _)| source)
                .collect(),
            followers: graph
                .dependents(node)
                .filter(elementwise)
                .map(|(follower, _)| follower)
                .collect(),
            complete_sources: 0,
            ended_sources: Prefixes::default(),
            ended_followers: Prefixes::default(),
        }
    }
}
