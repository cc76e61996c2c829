//! Which values nobody needs any more.
//!
//! Without a keep mask there is nothing here. With one, a value of a node that is not kept and has consumers is released
//! when the last of these holds: it is there; every `All` dependent is complete; of every elementwise dependent the same
//! item has ended. Each of these events looks whether it was the last.

use std::ops::Range;

use crate::error::Refusal;
use crate::graph::{Graph, ItemId, Kind, NodeId};
use crate::queue::BitSet;

use super::Scheduler;
use super::propagate::Ended;

/// What holds values, and those that nothing holds.
#[derive(Debug)]
pub(super) struct Release {
    /// For each node the number of `All` dependents that are not complete; [`KEEP`] for values that stay.
    holders: Vec<u32>,
    released: BitSet,
    /// Released and not yet taken.
    taken_next: Vec<ItemId>,
}

/// Kept by request, or because no consumer would ever be the last.
const KEEP: u32 = u32::MAX;

impl Release {
    pub(super) fn new(graph: &Graph, keep: &[u8]) -> Result<Self, Refusal> {
        let nodes = graph.node_count() as usize;
        if keep.len() != nodes {
            return Err(Refusal::Mask {
                length: keep.len(),
                nodes,
            });
        }
        let holders = graph.nodes().zip(keep).map(|(node, keep)| {
            if *keep == 0 {
                holders(graph, node)
            } else {
                KEEP
            }
        });
        Ok(Self {
            holders: holders.collect(),
            released: BitSet::new(graph.item_count()),
            taken_next: Vec::new(),
        })
    }
}

fn holders(graph: &Graph, node: NodeId) -> u32 {
    match graph.dependents(node).next() {
        None => KEEP,
        Some(_) => graph
            .dependents(node)
            .filter(|(_, kind)| *kind == Kind::All)
            .count() as u32,
    }
}

impl Scheduler {
    /// Return the items whose values nobody needs any more, each once.
    pub fn take_released(&mut self) -> Vec<ItemId> {
        self.release
            .as_mut()
            .map_or_else(Vec::new, |release| std::mem::take(&mut release.taken_next))
    }

    /// Look at values that the end of items may release: their own, and those of the same items they depend on.
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

    /// Look at values that the completion of a node may release: those of its `All` dependencies. O(edges of the node).
    pub(super) fn release_above(&mut self, graph: &Graph, node: NodeId) {
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

    fn is_free(&self, node: NodeId, item: u32) -> bool {
        let free = |release: &Release| {
            release.holders[node.index()] == 0 && !release.released.contains(item)
        };
        self.release.as_ref().is_some_and(free)
            && self.timeline.states[item as usize].has_value()
            && self.followers_ended(node, item)
    }

    /// Say whether the same item of all elementwise dependents, which have as many items, has ended.
    fn followers_ended(&self, node: NodeId, item: u32) -> bool {
        let Some(map) = self.maps.get(node) else {
            return true;
        };
        let states = &self.timeline.states;
        let mut followers = map
            .followers
            .iter()
            .filter_map(|follower| self.maps.get(*follower));
        followers.all(|follower| states[(follower.first + item - map.first) as usize].is_terminal())
    }

    pub(super) fn grow_release(&mut self, items: u32) {
        if let Some(release) = &mut self.release {
            release.released.grow(items);
        }
    }
}
