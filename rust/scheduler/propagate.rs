//! The consequences of an item's end for other items.
//!
//! ```text
//!   end_items, end_without_items ──▶ ended ──spread──▶ doom       (a failure: All dependents, all that waits of them)
//!                 ▲                            │ └───▶ tell       (elementwise dependents: the same items)
//!                 └────────────────────────────┴─────▶ finish     (node complete: pending - 1; at 0 settle)
//! ```
//!
//! States change at once; the consequences are queued in `ended`. So nothing here is recursive, and the list is as long
//! as the number of ends that one report causes at the same time.

use std::ops::Range;

use crate::graph::{Graph, Kind, NodeId};

use super::Scheduler;
use super::mapped_nodes::{MappedNode, NodeLength, Prefixes};
use super::state::{DependencyEffect, State};

/// Items of one node that ended in one state; no items if the node has none.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) node: NodeId,
    pub(super) items: Range<u32>,
    pub(super) state: State,
}

/// Return for each node the number of its `All` dependencies. O(nodes + edges).
pub(super) fn pending(graph: &Graph) -> Vec<u32> {
    graph
        .nodes()
        .map(|node| {
            graph
                .dependencies(node)
                .filter(|(_, kind)| *kind == Kind::All)
                .count() as u32
        })
        .collect()
}

impl Scheduler {
    /// End items that are in state `from`: of a node, or of nodes of one item each that follow each other.
    pub(super) fn end_items(&mut self, node: NodeId, items: Range<u32>, from: State, to: State) {
        self.transition(node, items.clone(), from, to);
        if self.maps.get(node).is_some() {
            self.ended.push(Ended {
                node,
                items,
                state: to,
            });
        } else {
            let each = (node.0..).map(NodeId).zip(items);
            self.ended.extend(each.map(|(node, item)| Ended {
                node,
                items: item..item + 1,
                state: to,
            }));
        }
    }

    /// End all items of a node that are in state `from`. O(items of the node).
    pub(super) fn end_all(&mut self, node: NodeId, from: State, to: State) {
        let Range { mut start, end } = self.items(node);
        while let Some(items) = self.timeline.run_of(from, start..end) {
            start = items.end;
            self.end_items(node, items, from, to);
        }
    }

    /// End a node that has no items, unless it has ended.
    pub(super) fn end_without_items(&mut self, node: NodeId, state: State) {
        let Some(map) = self.maps.get_mut(node).filter(|map| !map.complete) else {
            return;
        };
        map.complete = true;
        map.verdict = state.verdict();
        map.end = state;
        self.gapped |= !matches!(
            map.verdict,
            DependencyEffect::Fine | DependencyEffect::Failed
        );
        self.ended.push(Ended {
            node,
            items: 0..0,
            state,
        });
    }

    /// Process the queue of ends.
    pub(super) fn propagate(&mut self, graph: &Graph) {
        while let Some(ended) = self.ended.pop() {
            self.spread(graph, &ended);
        }
    }

    fn spread(&mut self, graph: &Graph, ended: &Ended) {
        let (fails, complete) = self.note_end(ended);
        if fails {
            self.doom_dependents(graph, ended.node);
        }
        self.tell(ended);
        self.release_around(ended);
        if complete {
            self.finish(graph, ended.node);
        }
    }

    /// Record the end in the node; return whether the node fails by it, and whether the node is complete now.
    fn note_end(&mut self, ended: &Ended) -> (bool, bool) {
        let failed = ended.state.is_bad();
        let Some(map) = self.maps.get_mut(ended.node) else {
            return (failed, true);
        };
        if ended.items.is_empty() {
            return (failed, true);
        }
        let count = ended.items.end - ended.items.start;
        let fails = map.note(count, ended.state);
        map.unfinished -= count;
        map.complete = map.unfinished == 0;
        (fails, map.complete)
    }

    fn doom_dependents(&mut self, graph: &Graph, node: NodeId) {
        for (dependent, kind) in graph.dependents(node) {
            if kind == Kind::All && !graph.is_join(dependent) {
                self.doom(dependent);
            }
        }
    }

    /// End all waiting items of a node, because a dependency of all its items failed.
    pub(super) fn doom(&mut self, node: NodeId) {
        if let Some(map) = self.maps.get_mut(node) {
            if std::mem::replace(&mut map.doomed, true) {
                return;
            }
            if map.count == 0 {
                return self.end_without_items(node, State::UpstreamFailed);
            }
        }
        self.end_all(node, State::Waiting, State::UpstreamFailed);
    }

    /// Let elementwise dependents check the items whose dependency ended.
    fn tell(&mut self, ended: &Ended) {
        let followers = self
            .maps
            .get(ended.node)
            .map_or(0, |map| map.followers.len());
        for at in 0..followers {
            let Some(map) = self.maps.get(ended.node) else {
                return;
            };
            let (follower, first) = (map.followers[at], map.first);
            if ended.items.is_empty() {
                if ended.state.is_bad() {
                    self.doom(follower);
                }
                continue;
            }
            let indexes = ended.items.start - first..ended.items.end - first;
            // A failure counts at once, even if other sources have not ended.
            if ended.state.is_bad() || !self.has_many_sources(follower) {
                self.look_at_items(follower, indexes);
                continue;
            }
            for index in indexes {
                if self.sources_ended(follower, index) {
                    self.look_at_items(follower, index..index + 1);
                }
            }
        }
    }

    fn has_many_sources(&self, node: NodeId) -> bool {
        let map = self.maps.get(node);
        map.is_some_and(|map| Prefixes::pays(&map.sources))
    }

    /// Return true if the same item of all elementwise dependencies has ended. O(dependencies) for all calls together.
    fn sources_ended(&mut self, node: NodeId, index: u32) -> bool {
        let prefixes = |map: &mut MappedNode| std::mem::take(&mut map.ended_sources);
        let Some(mut prefixes) = self.maps.get_mut(node).map(prefixes) else {
            return true;
        };
        let has_ended = |source: &NodeId| self.has_ended(*source, index);
        let map = self.maps.get(node);
        let all = map.is_none_or(|map| prefixes.cover(&map.sources, index, map.count, has_ended));
        if let Some(map) = self.maps.get_mut(node) {
            map.ended_sources = prefixes;
        }
        all
    }

    /// Record that a node is complete. O(edges of the node), in addition to the nodes that become ready or end by it.
    fn finish(&mut self, graph: &Graph, node: NodeId) {
        self.open_nodes -= 1;
        // Not a loop: the rows and the added edges are then walked one after the other, which is faster.
        graph.dependents(node).for_each(|(dependent, kind)| {
            let pending = &mut self.pending[dependent.index()];
            if kind == Kind::All {
                *pending -= 1;
            }
            if *pending > 0 {
                return;
            }
            if kind == Kind::All {
                self.settle(graph, dependent);
            } else if self.count(dependent) == 0 {
                self.settle_without_items(dependent);
            }
        });
        self.release_above(graph, node);
    }

    /// Decide about a node whose `All` dependencies are complete.
    pub(super) fn settle(&mut self, graph: &Graph, node: NodeId) {
        let fed = graph.is_join(node) && self.is_fed(graph, node);
        let gate = if fed {
            DependencyEffect::Fine
        } else {
            self.gate(graph, node)
        };
        let Some(map) = self.maps.get_mut(node) else {
            return self.open(node, gate);
        };
        map.gate = gate;
        if map.count == 0 {
            self.settle_without_items(node);
        } else if map.sources.is_empty() {
            self.open(node, gate);
        } else {
            let count = map.count;
            self.look_at_items(node, 0..count);
        }
    }

    /// Return the worst of the `All` dependencies, which are complete. O(1) while nothing was skipped or cancelled.
    fn gate(&self, graph: &Graph, node: NodeId) -> DependencyEffect {
        let gaps = self.count_in(State::Skipped) + self.count_in(State::Cancelled);
        if gaps == 0 && !self.gapped && !graph.is_join(node) {
            return DependencyEffect::Fine;
        }
        let all = graph.deciding(node).filter(|(_, kind)| *kind == Kind::All);
        all.map(|(dependency, _)| self.verdict(dependency))
            .max()
            .unwrap_or(DependencyEffect::Fine)
    }

    /// Return true if any of the `All` dependencies, which are complete, has a value. A node with several items has one
    /// if all of its items have, except those that it tolerates. O(dependencies).
    fn is_fed(&self, graph: &Graph, node: NodeId) -> bool {
        let mut all = graph
            .dependencies(node)
            .filter(|(_, kind)| *kind == Kind::All);
        all.any(|(dependency, _)| self.verdict(dependency) == DependencyEffect::Fine)
    }

    pub(super) fn verdict(&self, node: NodeId) -> DependencyEffect {
        let single = || self.timeline.states[self.graph.first_item(node).index()].verdict();
        self.maps.get(node).map_or_else(single, |map| map.verdict)
    }

    /// Let all waiting items of a node run, or end them if a dependency has no value.
    fn open(&mut self, node: NodeId, gate: DependencyEffect) {
        if gate != DependencyEffect::Fine {
            return self.end_all(node, State::Waiting, gate.inherited());
        }
        if let Some(items) = self.timeline.run_of(State::Waiting, self.items(node)) {
            self.transition(node, items, State::Waiting, State::Ready);
        }
    }

    /// Settle a node without items, whose `All` dependencies are complete: it ends like the worst of its dependencies,
    /// or its length is due. All calls for a node together take O(elementwise dependencies).
    fn settle_without_items(&mut self, node: NodeId) {
        let Some(map) = self.maps.get(node).filter(|map| !map.complete) else {
            return;
        };
        if map.gate == DependencyEffect::Failed {
            return self.end_without_items(node, State::UpstreamFailed);
        }
        let sources = |from: usize| {
            let sources = map.sources[from..].iter();
            sources.filter_map(|source| self.maps.get(*source))
        };
        let known = map.complete_sources;
        let complete = known + sources(known).take_while(|source| source.complete).count();
        if complete < map.sources.len() {
            if let Some(map) = self.maps.get_mut(node) {
                map.complete_sources = complete;
            }
            return;
        }
        let worst = sources(0)
            .map(|source| source.verdict)
            .fold(map.gate, Ord::max);
        if map.length == NodeLength::Unknown && worst == DependencyEffect::Fine {
            self.ask_for_length(node);
        } else {
            self.end_without_items(node, worst.inherited());
        }
    }

    /// Decide about some items of a node with elementwise dependencies. O(elementwise dependencies) an item.
    pub(super) fn look_at_items(&mut self, node: NodeId, indexes: Range<u32>) {
        let Some(first) = self.maps.get(node).map(|map| map.first) else {
            return;
        };
        for index in indexes {
            let item = first + index;
            if self.timeline.states[item as usize] != State::Waiting {
                continue;
            }
            match self.gate_of_item(node, index) {
                None => {}
                Some(DependencyEffect::Fine) => {
                    self.transition(node, item..item + 1, State::Waiting, State::Ready);
                }
                Some(worst) => {
                    self.end_items(node, item..item + 1, State::Waiting, worst.inherited());
                }
            }
        }
    }

    /// Return the worst of an item's dependencies: `None` if some have not ended, unless one has failed.
    fn gate_of_item(&self, node: NodeId, index: u32) -> Option<DependencyEffect> {
        let map = self.maps.get(node)?;
        let mut worst = map.gate;
        let mut ended = self.pending[node.index()] == 0;
        for source in map
            .sources
            .iter()
            .filter_map(|source| self.maps.get(*source))
        {
            let state = self.timeline.states[(source.first + index) as usize];
            ended &= state.is_terminal();
            worst = worst.max(state.verdict());
        }
        (ended || worst == DependencyEffect::Failed).then_some(worst)
    }
}
