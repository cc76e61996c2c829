//! The invariants that hold between any two calls; used by tests.

use crate::graph::{Kind, NodeId};

use super::Scheduler;
use super::mapped_nodes::MappedNode;
use super::state::State;

impl Scheduler {
    /// Walk all structures and compare them with each other. O(nodes + edges + items).
    ///
    /// # Errors
    ///
    /// A message about the first invariant that does not hold.
    #[doc(hidden)]
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut counts = [0; State::COUNT];
        self.timeline
            .states
            .iter()
            .for_each(|state| counts[*state as usize] += 1);
        ensure(counts == self.counts, || {
            format!("counts are {:?}, states say {counts:?}", self.counts)
        })?;
        ensure(self.ended.is_empty(), || "ends are left over".into())?;
        ensure(self.ledger.out() == self.count_in(State::Running), || {
            "the ledger is not what runs".into()
        })?;
        ensure(
            self.delays
                .items()
                .all(|item| self.is(item, State::Waiting)),
            || "a delay of what does not wait".into(),
        )?;
        let idle = self.count_in(State::Waiting) + self.count_in(State::Ready) == 0;
        ensure(!self.cancelled || idle, || {
            "something waits in a cancelled run".into()
        })?;
        let open = self
            .graph
            .nodes()
            .filter(|node| !self.is_complete(*node))
            .count();
        ensure(open == self.open_nodes as usize, || {
            format!("{open} nodes are open, not {}", self.open_nodes)
        })?;
        if let Some(lanes) = &self.lanes {
            lanes.check(|class| self.ready_of_class(class))?;
        }
        self.graph
            .nodes()
            .try_for_each(|node| self.check_node(node))
    }

    fn ready_of_class(&self, class: u32) -> u32 {
        let nodes = self.graph.nodes().filter(|node| self.class(*node) == class);
        let items = nodes.flat_map(|node| self.items(node));
        items.filter(|item| self.is(*item, State::Ready)).count() as u32
    }

    fn check_node(&self, node: NodeId) -> Result<(), String> {
        let items = self.items(node);
        let ready = items
            .clone()
            .filter(|item| self.is(*item, State::Ready))
            .count();
        let queued = self.is_queued(node);
        ensure(queued == (ready > 0), || {
            format!("{node:?} has {ready} ready items and is queued: {queued}")
        })?;
        let open = |edge: &(NodeId, Kind)| edge.1 == Kind::All && !self.is_complete(edge.0);
        let pending = self.graph.dependencies(node).filter(open).count();
        ensure(pending == self.pending[node.index()] as usize, || {
            format!("{node:?} waits for {pending} nodes")
        })?;
        let begun = |item: u32| matches!(self.timeline.states[item as usize] as u8, 1..=4);
        let chained = self.is_behind_running(node);
        ensure(pending == 0 || chained || !items.clone().any(begun), || {
            format!("{node:?} began before its dependencies")
        })?;
        let allowed =
            |item: u32| !begun(item) || chained || self.is_allowed(node, item - items.start);
        ensure(items.clone().all(allowed), || {
            format!("{node:?} began without what it needs")
        })?;
        let Some(map) = self.maps.get(node) else {
            return Ok(());
        };
        let bits = items
            .clone()
            .filter(|item| self.ready_items.contains(*item))
            .count();
        ensure(bits == ready, || {
            format!("{node:?} has {bits} queued items, not {ready}")
        })?;
        let bad = |item: &u32| self.timeline.states[*item as usize].is_bad();
        let bad = items.clone().filter(bad).count() as u32;
        let barred = |item: &u32| self.is(*item, State::UpstreamFailed);
        let barred = items.clone().filter(barred).count() as u32;
        ensure((bad, barred) == (map.bad, map.barred), || {
            format!("{node:?} has {bad} bad items, {barred} of them barred")
        })?;
        let fails = bad > map.tolerated || bad > 0 && barred == map.count;
        ensure(bad == 0 || fails != map.forgives(), || {
            format!("{node:?} has {bad} bad items and fails: {fails}")
        })?;
        let unfinished = items
            .filter(|item| !self.timeline.states[*item as usize].is_terminal())
            .count();
        ensure(unfinished == map.unfinished as usize, || {
            format!("{node:?} has {unfinished} items to end")
        })
    }

    /// Return true if a node runs behind the only dependency that is not complete, and that dependency runs.
    fn is_behind_running(&self, node: NodeId) -> bool {
        // Includes nodes that are tracked like mapped ones, because they tolerate failures or have elementwise
        // dependents.
        let runs = |node: NodeId| {
            self.count(node) == 1 && self.is(self.first_item(node).0, State::Running)
        };
        let all = self.graph.dependencies(node);
        let mut open = all.filter(|(other, _)| !self.is_complete(*other));
        let first = open.next();
        first.is_some_and(|(other, _)| runs(other)) && open.next().is_none() && runs(node)
    }

    /// Return true if the dependencies of an item have the values that it needs: all, or for a join any of the `All`
    /// ones.
    fn is_allowed(&self, node: NodeId, index: u32) -> bool {
        let valued = |item: u32| self.timeline.states[item as usize].has_value();
        let has = |(dependency, kind): (NodeId, Kind), all: bool| {
            let mut items = self.items(dependency);
            let state = |item: u32| self.timeline.states[item as usize];
            let forgives = self.maps.get(dependency).is_some_and(MappedNode::forgives);
            let good = |item: u32| valued(item) || forgives && state(item).is_bad();
            if kind == Kind::Elementwise {
                valued(items.start + index)
            } else if all || items.is_empty() {
                items.all(good)
            } else {
                items.any(good)
            }
        };
        let (whole, elements): (Vec<_>, Vec<_>) = self
            .graph
            .deciding(node)
            .partition(|edge| edge.1 == Kind::All);
        let any = self.graph.is_join(node) && !whole.is_empty();
        elements.into_iter().all(|edge| has(edge, true))
            && if any {
                whole.into_iter().any(|edge| has(edge, false))
            } else {
                whole.into_iter().all(|edge| has(edge, true))
            }
    }

    fn is(&self, item: u32, state: State) -> bool {
        self.timeline.states[item as usize] == state
    }

    pub(super) fn is_complete(&self, node: NodeId) -> bool {
        self.maps.get(node).map_or_else(
            || self.timeline.states[self.first_item(node).index()].is_terminal(),
            |map| map.complete,
        )
    }
}

pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
