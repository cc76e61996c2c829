//! Release of values that are no longer needed.
//!
//! Without a keep mask this module does nothing. With one, a value of a node that is not kept and has consumers is
//! released once all of these hold: it exists; every `All` dependent is complete; the same item of every elementwise
//! dependent has ended. Each of these events checks whether it was the last.

use std::ops::Range;

use crate::error::InvalidCall;
use crate::graph::{Graph, ItemId, Kind, NodeId};
use crate::rank_set::RankSet;

use super::Scheduler;
use super::mapped_nodes::{MappedNode, Prefixes};
use super::propagate::Ended;

/// The holders of values, and the values without holders.
#[derive(Debug)]
pub(super) struct Release {
    /// For each node the number of `All` dependents that are not complete; [`KEEP`] for values that stay.
    holders: Vec<u32>,
    released: RankSet,
    /// Released and not yet taken by the caller.
    taken_next: Vec<ItemId>,
}

/// Kept by request, or because it has no consumers.
const KEEP: u32 = u32::MAX;

impl Release {
    pub(super) fn new(graph: &Graph, keep: &[u8]) -> Result<Self, InvalidCall> {
        check_keep(Some(keep), graph.node_count() as usize)?;
        let holders = graph.nodes().zip(keep);
        Ok(Self {
            holders: holders
                .map(|(node, keep)| holders_of(graph, node, *keep))
                .collect(),
            released: RankSet::new(graph.item_count()),
            taken_next: Vec::new(),
        })
    }
}

/// Check that a keep mask has one byte for each of `nodes` nodes.
pub(super) fn check_keep(keep: Option<&[u8]>, nodes: usize) -> Result<(), InvalidCall> {
    match keep.map(<[u8]>::len).filter(|length| *length != nodes) {
        None => Ok(()),
        Some(length) => Err(InvalidCall::Mask { length, nodes }),
    }
}

fn holders_of(graph: &Graph, node: NodeId, keep: u8) -> u32 {
    match graph.dependents(node).next().filter(|_| keep == 0) {
        None => KEEP,
        Some(_) => graph
            .dependents(node)
            .filter(|(_, kind)| *kind == Kind::All)
            .count() as u32,
    }
}

impl Scheduler {
    /// Return the items whose values are no longer needed, each once.
    pub fn take_released(&mut self) -> Vec<ItemId> {
        self.release
            .as_mut()
            .map_or_else(Vec::new, |release| std::mem::take(&mut release.taken_next))
    }

    /// Check values that the end of items may release: their own, and those of the same items they depend on.
    pub(super) fn release_around(&mut self, ended: &Ended) {
        if self.release.is_none() {
            return;
        }
        let (node, items) = (ended.node, ended.items.clone());
        self.try_release(node, items.clone());
        let sources = self.maps.get(node).map_or(0, |map| map.sources.len());
        for at in 0..sources {
            let Some(map) = self.maps.get(node) else {
                return;
            };
            let (source, first) = (map.sources[at], map.first);
            let Some(from) = self.maps.get(source).map(|map| map.first) else {
                return;
            };
            if !items.is_empty() {
                self.try_release(source, from + items.start - first..from + items.end - first);
            }
        }
    }

    /// Check values that the completion of a node may release: those of its `All` dependencies. O(edges of the node).
    pub(super) fn release_above(&mut self, graph: &Graph, node: NodeId) {
        if self.release.is_none() {
            return;
        }
        for (dependency, kind) in graph.dependencies(node) {
            let Some(release) = &mut self.release else {
                return;
            };
            let holders = &mut release.holders[dependency.index()];
            if kind == Kind::Elementwise || *holders == KEEP {
                continue;
            }
            *holders -= 1;
            if *holders == 0 {
                self.try_release(dependency, self.items(dependency));
            }
        }
    }

    fn try_release(&mut self, node: NodeId, items: Range<u32>) {
        for item in items {
            if self.is_free(node, item)
                && let Some(release) = &mut self.release
            {
                release.released.insert(item);
                release.taken_next.push(ItemId(item));
            }
        }
    }

    fn is_free(&mut self, node: NodeId, item: u32) -> bool {
        let free = |release: &Release| {
            release.holders[node.index()] == 0 && !release.released.contains(item)
        };
        self.release.as_ref().is_some_and(free)
            && self.timeline.states[item as usize].has_value()
            && self.followers_ended(node, item)
    }

    /// Return true if the same item of all elementwise dependents, which have as many items, has ended.
    fn followers_ended(&mut self, node: NodeId, item: u32) -> bool {
        let Some(map) = self.maps.get(node) else {
            return true;
        };
        let index = item - map.first;
        if Prefixes::pays(&map.followers) {
            return self.many_followers_ended(node, index);
        }
        map.followers
            .iter()
            .all(|other| self.has_ended(*other, index))
    }

    /// The same for many followers. O(dependents) for all calls together.
    #[cold]
    fn many_followers_ended(&mut self, node: NodeId, index: u32) -> bool {
        let prefixes = |map: &mut MappedNode| std::mem::take(&mut map.ended_followers);
        let Some(mut prefixes) = self.maps.get_mut(node).map(prefixes) else {
            return true;
        };
        let has_ended = |follower: &NodeId| self.has_ended(*follower, index);
        let map = self.maps.get(node);
        let all = map.is_none_or(|map| prefixes.cover(&map.followers, index, map.count, has_ended));
        if let Some(map) = self.maps.get_mut(node) {
            map.ended_followers = prefixes;
        }
        all
    }

    /// Return true if an item of a mapped node has ended.
    pub(super) fn has_ended(&self, node: NodeId, index: u32) -> bool {
        let map = self.maps.get(node);
        map.is_none_or(|map| self.timeline.states[(map.first + index) as usize].is_terminal())
    }

    /// Return true if a value of a node has been released.
    pub(super) fn has_released(&self, node: NodeId) -> bool {
        let Range { start, end } = self.items(node);
        let first = |release: &Release| release.released.next(start);
        let first = self.release.as_ref().and_then(first);
        first.is_some_and(|item| item < end)
    }

    /// Record the consumers of new nodes from `first` on, and the new nodes as consumers of existing ones. Without a
    /// mask all values are kept.
    pub(super) fn extend_release(&mut self, graph: &Graph, first: NodeId, keep: Option<&[u8]>) {
        let Some(release) = &mut self.release else {
            return;
        };
        for node in (first.0..graph.node_count()).map(NodeId) {
            let keep = keep.map_or(1, |keep| keep[(node.0 - first.0) as usize]);
            release.holders.push(holders_of(graph, node, keep));
            let older = graph.dependencies(node).filter(|end| end.0 < first);
            for (dependency, _) in older.filter(|end| end.1 == Kind::All) {
                let holders = &mut release.holders[dependency.index()];
                *holders = holders.saturating_add(1); // KEEP stays
            }
        }
    }

    pub(super) fn grow_release(&mut self, items: u32) {
        if let Some(release) = &mut self.release {
            release.released.grow(items);
        }
    }
}
