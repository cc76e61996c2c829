//! Every legal schedule ends: for any generated graph, a driver that answers each request reaches the end of the run.
//!
//! Lengths of 0 to 3 are known only at run time and asked for one at a time, as an executor does. The run is led by drawn
//! numbers, so that reports, retries, items given back, failures, skips, grafts, cancellations and lengths come in any order,
//! but never twice to the same effect without end: what costs the run time (a retry, a graft) can be had a few times only.
//! What must hold is little, and no model is needed for it: as long as the run is not finished there is something to do, and
//! at its end every item is final. `tests/model/` says what the states are.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::sync::Arc;

use flowyml::error::{InvalidCall, InvalidGraft};
use flowyml::graph::{Edges, Graph, Kind, NewNodes, NodeId, UNKNOWN};
use flowyml::scheduler::{Batch, Choice, Graft, Limits, Order, Outcomes, Scheduler, State};
use proptest::prelude::*;

/// A graph, in which every node has a length that it may turn out to have.
#[derive(Clone, Debug)]
struct Sample {
    counts: Vec<u32>,
    lengths: Vec<u32>,
    edges: Vec<(u32, u32, Kind)>,
    joins: u32,
    demands: Option<Vec<u32>>,
    chained: u32,
    keep: Option<u32>,
    add_order: bool,
}

const CLASSES: [&[(u32, u32)]; 5] = [&[], &[(0, 1)], &[(0, 2)], &[(0, 3), (1, 1)], &[(1, 2)]];

fn sample() -> impl Strategy<Value = Sample> {
    let count =
        prop_oneof![4 => Just(UNKNOWN), 3 => Just(1_u32), 1 => Just(0_u32), 1 => Just(2_u32)];
    let node = (count, 0..4_u32, 0..CLASSES.len() as u32);
    let edge = (any::<u32>(), any::<u32>(), 0..3_u8);
    let options = (any::<u32>(), any::<Option<u32>>(), any::<[bool; 4]>());
    let nodes = prop::collection::vec(node, 1..10);
    (nodes, prop::collection::vec(edge, 0..18), options).prop_map(|(nodes, edges, options)| {
        let (bits, keep, [add_order, limited, joining, chaining]) = options;
        let size = nodes.len() as u32;
        let edges = edges.iter().map(|(a, b, kind)| {
            let (a, b) = (a % size, b % size);
            let kind = if *kind == 0 {
                Kind::All
            } else {
                Kind::Elementwise
            };
            (a.max(b), a.min(b), kind)
        });
        let demands = nodes.iter().map(|node| node.2).collect();
        Sample {
            counts: nodes.iter().map(|node| node.0).collect(),
            lengths: nodes.iter().map(|node| node.1).collect(),
            edges: edges.filter(|edge| edge.0 != edge.1).collect(),
            joins: if joining { bits } else { 0 },
            demands: limited.then_some(demands),
            chained: if chaining { bits | 0xff } else { 0 },
            keep,
            add_order,
        }
    })
}

fn limits(demands: Option<Vec<u32>>, totals: &[u32]) -> Limits {
    Limits {
        totals: totals.to_vec(),
        demands,
        classes: CLASSES.map(<[_]>::to_vec).to_vec(),
        divided: (!totals.is_empty()).then_some((0, 2)),
    }
}

impl Sample {
    /// Edges between different lengths wait for all items.
    fn graph(&self) -> Graph {
        let mut edges = self.edges.clone();
        loop {
            let mut packed = Edges::default();
            for &(dependent, dependency, kind) in &edges {
                packed.push(NodeId(dependent), NodeId(dependency), kind);
            }
            let Err(problems) = Graph::build(self.counts.len(), Some(&self.counts), packed.clone())
            else {
                let graph = Graph::build(self.counts.len(), Some(&self.counts), packed).unwrap();
                let joins = (0..self.counts.len()).map(|at| (self.joins >> at & 1) as u8);
                return graph.with_joins(joins.collect());
            };
            let text = format!("{problems:?}");
            for edge in &mut edges {
                let pair = format!("node: NodeId({}), dependency: NodeId({}) ", edge.0, edge.1);
                if text.contains(&pair) {
                    edge.2 = Kind::All;
                }
            }
        }
    }

    fn scheduler(&self) -> Scheduler {
        let order = if self.add_order {
            Order::Add
        } else {
            Order::CriticalPath
        };
        let nodes = 0..self.counts.len();
        let bits = |bits: u32| nodes.clone().map(|at| (bits >> at & 1) as u8).collect();
        let keep: Option<Vec<u8>> = self.keep.map(bits);
        let mut core = Scheduler::new(Arc::new(self.graph()), order, keep.as_deref()).unwrap();
        if self.demands.is_some() {
            core = core
                .with_limits(&limits(self.demands.clone(), &[4, 2]))
                .unwrap();
        }
        if self.chained != 0 {
            let mask: Vec<u8> = bits(self.chained);
            core.chain(&mask).unwrap();
        }
        core
    }
}

/// What the driver has in its hands.
struct Driver<'a> {
    sample: &'a Sample,
    core: Scheduler,
    now: f64,
    /// Batches with the next position that was not reported.
    out: Vec<(Batch, u32)>,
    kept: Vec<Batch>,
    /// Retries, grafts and the like that may still be had.
    extras: u32,
}

impl Driver<'_> {
    /// Do one thing of those that there are to do; return false if there was none.
    fn act(&mut self, choice: u32) -> bool {
        let (what, rest) = (choice % 16, choice / 16);
        match what {
            0..=3 => self.claim(rest) || self.report(rest),
            4..=8 => self.report(rest) || self.claim(rest),
            9 | 10 => self.answer(rest) || self.report(rest) || self.claim(rest),
            _ if self.extras > 0 => {
                self.extras -= 1;
                self.extra(what, rest);
                true
            }
            _ => self.report(rest) || self.claim(rest),
        }
    }

    /// Do whatever there is to do; return false if there is nothing.
    fn must_act(&mut self, choice: u32) -> bool {
        if self.answer(choice) || self.report(choice) || self.claim(choice) {
            return true;
        }
        self.core.choose(None).unwrap();
        while let Some(batch) = self.kept.pop() {
            let _ = self.core.return_tokens(&batch); // refused if it was kept twice
        }
        if let Some(at) = self.core.next_delay() {
            self.now = at.max(self.now);
        }
        self.claim(choice)
    }

    /// Tell a length that is due, or that there is none.
    fn answer(&mut self, choice: u32) -> bool {
        let due = self.core.expandable();
        let Some(node) = self.core.next_expandable() else {
            return false;
        };
        assert_eq!(self.core.expandable(), due - 1);
        let length = self.sample.lengths.get(node.index()).copied();
        if choice.is_multiple_of(9) {
            let end = [State::Failed, State::Skipped, State::Cancelled][choice as usize / 9 % 3];
            self.core.refuse(node, end as u8).unwrap();
        } else {
            self.core
                .expand(node, length.unwrap_or(choice / 9 % 3))
                .unwrap();
        }
        true
    }

    fn claim(&mut self, choice: u32) -> bool {
        let (limit, most) = (1 + choice % 4, choice / 4 % 6);
        let batch = self.core.claim_chains(0, limit, most, self.now);
        let claimed = batch.is_some();
        self.out.extend(batch.map(|batch| (batch, 0)));
        claimed
    }

    /// Report the next item of a batch; what is chained to one without a value is given back before.
    fn report(&mut self, choice: u32) -> bool {
        if self.out.is_empty() {
            return false;
        }
        let at = choice as usize % self.out.len();
        let (batch, next) = self.out.swap_remove(at);
        self.now += 0.5;
        let end = match choice / 8 % 12 {
            0 => State::Failed,
            1 => State::Skipped,
            2 => State::Cancelled,
            3 => State::Cached,
            _ => State::Success,
        };
        let follower = next + 1;
        if !end.has_value() && batch.is_chained(follower) {
            self.give_back(&batch, follower);
            self.end(&batch, next, end);
        } else {
            self.end(&batch, next, end);
            if follower < batch.len() {
                self.out.push((batch, follower));
            }
        }
        true
    }

    fn end(&mut self, batch: &Batch, position: u32, end: State) {
        let outcome = [end as u8];
        self.core
            .complete(
                batch,
                position,
                self.now,
                &[self.now],
                Outcomes::Each(&outcome),
            )
            .unwrap();
    }

    fn give_back(&mut self, batch: &Batch, position: u32) {
        let count = batch.len() - position;
        self.core.give_back(batch, position, count).unwrap();
    }

    /// Do something that a run may go without.
    fn extra(&mut self, what: u32, choice: u32) {
        let node = NodeId(choice % self.core.graph().node_count());
        match (what, self.out.pop()) {
            (11, Some((batch, next))) => {
                if next + 1 < batch.len() {
                    self.give_back(&batch, next + 1);
                }
                let at = self.now + f64::from(choice % 3);
                self.core.retry(&batch, next, at, self.now).unwrap();
            }
            (12, Some((batch, next))) => self.give_back(&batch, next),
            (13, Some((batch, next))) => self.graft(&batch, next, choice),
            (14, Some((batch, next))) if choice.is_multiple_of(3) => {
                self.core.keep_tokens(&batch).unwrap();
                self.kept.extend(batch.limited().then(|| batch.clone()));
                self.out.push((batch, next));
            }
            (_, batch) => {
                self.out.extend(batch);
                self.disturb(choice / 8, node);
            }
        }
    }

    fn disturb(&mut self, choice: u32, node: NodeId) {
        match choice % 5 {
            0 => self.core.cancel_node(node, self.now),
            1 if (choice / 6).is_multiple_of(8) => self.core.cancel(self.now),
            2 if self.sample.demands.is_some() => {
                let choice = Choice {
                    amount: 2 * (choice / 6 % 2),
                    devices: (0..choice / 6 % 2).collect(),
                };
                self.core.choose(Some(choice)).unwrap();
            }
            3 => self.now += 1.0,
            // Too late for a node that has failed: that is refused.
            _ => {
                let _ = self.core.tolerate(node, choice / 6 % 4);
            }
        }
    }

    /// Bring new nodes for the next item of a batch, if they fit.
    fn graft(&mut self, batch: &Batch, next: u32, choice: u32) {
        if next + 1 < batch.len() {
            self.give_back(batch, next + 1);
        }
        let first = self.core.graph().node_count();
        let unknown = |bit: u32| if choice >> bit & 1 == 1 { UNKNOWN } else { 1 };
        let mut edges = Edges::default();
        let kind = if choice & 1 == 0 {
            Kind::All
        } else {
            Kind::Elementwise
        };
        edges.push(NodeId(first + 1), NodeId(first), kind);
        edges.push(NodeId(first), NodeId(choice / 64 % first), Kind::All);
        let demands = self.sample.demands.is_some();
        let demands = demands.then(|| vec![choice / 4 % 5, choice / 32 % 5]);
        let graft = Graft {
            nodes: NewNodes {
                counts: vec![
                    unknown(1),
                    if choice & 1 == 0 { unknown(2) } else { UNKNOWN },
                ],
                edges,
                joins: vec![(choice >> 3 & 1) as u8, (choice >> 4 & 1) as u8],
                awaited: vec![first + (choice >> 5 & 1)],
            },
            keep: self.sample.keep.map(|_| vec![0, 1]),
            limits: limits(demands, &[]),
        };
        match self.core.graft(batch, next, self.now, &graft) {
            Ok(_) => {}
            // A cycle, values that were released, several items: the run continues without it.
            Err(InvalidGraft::Graph(_) | InvalidGraft::Call(_)) => {
                self.end(batch, next, State::Success);
            }
        }
    }

    fn check(&self) {
        self.core.check_invariants().unwrap();
        assert!(
            !self.core.is_stalled(),
            "nothing can happen any more: {:?}",
            self.core
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, the run ends with all items final, and is never stalled on the way.
    #[test]
    fn every_schedule_ends(
        sample in sample(),
        choices in prop::collection::vec(any::<u32>(), 0..80),
        last in any::<u32>(),
    ) {
        let core = sample.scheduler();
        let (out, kept) = <_>::default();
        let mut driver = Driver { sample: &sample, core, now: 1.0, out, kept, extras: 12 };
        driver.check();
        for choice in choices {
            driver.act(choice);
            driver.check();
        }
        let mut choice = last;
        while !driver.core.is_finished() {
            prop_assert!(driver.must_act(choice), "nothing is left to do: {:?}", driver.core);
            driver.check();
            choice = choice.rotate_left(5).wrapping_mul(0x9e37_79b1);
        }
        let states = &driver.core.timeline().states;
        prop_assert!(states.iter().all(|state| state.is_terminal()));
        prop_assert_eq!(driver.core.unfinished(), 0);
        for node in driver.core.graph().nodes() {
            prop_assert!(driver.core.node_state(node).is_terminal());
        }
        prop_assert_eq!(driver.core.next_delay(), None);
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused_and_others_are_not() {
    let counts = [100_000, UNKNOWN, UNKNOWN];
    let mut edges = Edges::default();
    edges.push(NodeId(2), NodeId(1), Kind::Elementwise);
    let graph = Arc::new(Graph::build(3, Some(&counts), edges).unwrap());
    let mut core = Scheduler::new(graph, Order::Add, None).unwrap();
    assert_eq!(core.next_expandable(), Some(NodeId(1)));
    // Each of the two fits alone.
    let half = (UNKNOWN - 100_000) / 2 + 1;
    assert_eq!(core.expand(NodeId(1), half), Err(InvalidCall::TooLarge));
    assert_eq!(core.expand(NodeId(1), 50_000), Ok(()));
    assert_eq!(core.item_count(), 200_000);
}

#[test]
fn a_run_is_stalled_if_a_length_that_was_asked_for_is_all_that_is_left() {
    let graph = Arc::new(Graph::build(2, Some(&[UNKNOWN, 1]), Edges::default()).unwrap());
    let mut core = Scheduler::new(graph, Order::Add, None).unwrap();
    assert!(!core.is_stalled(), "an item is ready");
    let batch = core.claim(0, 1, 0.0).unwrap();
    assert!(!core.is_stalled(), "an item is running");
    core.retry(&batch, 0, 2.0, 1.0).unwrap();
    assert_eq!(
        (core.expandable(), core.next_expandable()),
        (1, Some(NodeId(0)))
    );
    assert!(!core.is_stalled(), "a delay is pending");
    core.advance(2.0);
    let batch = core.claim(0, 1, 2.0).unwrap();
    core.complete(&batch, 0, 2.0, &[3.0], Outcomes::Success)
        .unwrap();
    assert!(core.is_stalled() && !core.is_finished());
    core.expand(NodeId(0), 0).unwrap();
    assert!(core.is_finished() && !core.is_stalled());
}

#[test]
fn a_length_from_the_first_item_on_has_room_for_all_items_and_their_values() {
    let mut edges = Edges::default();
    edges.push(NodeId(1), NodeId(0), Kind::Elementwise);
    let graph = Arc::new(Graph::build(2, Some(&[UNKNOWN; 2]), edges).unwrap());
    let mut core = Scheduler::new(graph, Order::Add, Some(&[0, 0])).unwrap();
    assert_eq!(core.next_expandable(), Some(NodeId(0)));
    core.expand(NodeId(0), 1000).unwrap();
    while let Some(batch) = core.claim(0, 500, 0.0) {
        let ends = vec![1.0; batch.len() as usize];
        core.complete(&batch, 0, 0.0, &ends, Outcomes::Success)
            .unwrap();
    }
    assert!(core.is_finished());
    assert_eq!(core.take_released().len(), 1000);
}

#[test]
fn a_cancelled_run_has_no_delay() {
    let graph = Arc::new(Graph::build(1, None, Edges::default()).unwrap());
    let mut core = Scheduler::new(graph, Order::Add, None).unwrap();
    let batch = core.claim(0, 1, 0.0).unwrap();
    core.retry(&batch, 0, 2.0, 1.0).unwrap();
    core.cancel(1.0);
    assert_eq!((core.next_delay(), core.is_finished()), (None, true));
}
