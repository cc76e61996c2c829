//! Chains under random schedules: whatever is chained, given back, retried and refused, a run ends as it does without.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::sync::Arc;

use flowyml::error::{InvalidCall, InvalidGraft};
use flowyml::graph::{Edges, Graph, ItemId, Kind, NodeId};
use flowyml::scheduler::{Batch, Graft, Order, Outcomes, Scheduler, State};
use proptest::prelude::*;

/// A line of nodes, each with one dependent, is the most common thing; the rest is anything.
#[derive(Clone, Debug)]
struct Sample {
    counts: Vec<u32>,
    edges: Vec<(u32, u32)>,
    joins: u16,
    /// How each node ends.
    ends: Vec<u8>,
    mask: Vec<u8>,
}

fn sample() -> impl Strategy<Value = Sample> {
    let end = prop_oneof![12 => Just(3_u8), 1 => 4..8_u8];
    let count = prop_oneof![8 => Just(1_u32), 2 => 2..4_u32];
    let node = (count, end, 0..8_u32, any::<u16>(), 0..6_u8);
    (prop::collection::vec(node, 2..12), any::<u16>()).prop_map(|(nodes, joins)| {
        let mut edges = vec![];
        for (at, (_, _, way, bits, _)) in nodes.iter().enumerate().skip(1) {
            match way {
                0 => {}
                1 | 2 => edges.extend(
                    (0..at)
                        .filter(|k| bits >> k & 3 == 3)
                        .map(|k| (at as u32, k as u32)),
                ),
                _ => edges.push((at as u32, at as u32 - 1)),
            }
        }
        Sample {
            counts: nodes.iter().map(|node| node.0).collect(),
            ends: nodes.iter().map(|node| node.1).collect(),
            mask: nodes.iter().map(|node| node.4).collect(),
            joins: if joins % 4 == 0 { joins >> 2 } else { 0 },
            edges,
        }
    })
}

impl Sample {
    fn scheduler(&self) -> Scheduler {
        let mut edges = Edges::default();
        for (dependent, dependency) in &self.edges {
            edges.push(NodeId(*dependent), NodeId(*dependency), Kind::All);
        }
        let joins: Vec<u8> = (0..self.counts.len())
            .map(|at| (self.joins >> at & 1) as u8)
            .collect();
        let graph = Graph::build(self.counts.len(), Some(&self.counts), edges).unwrap();
        let graph = graph.with_joins(joins);
        Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap()
    }

    fn end_of(&self, batch: &Batch, position: u32) -> u8 {
        self.ends[batch.at(position).unwrap().1.index()]
    }

    /// The states in which items end where nothing is ever chained.
    fn expected(&self) -> Vec<State> {
        let mut scheduler = self.scheduler();
        while let Some(batch) = scheduler.claim(0, 1, 0.0) {
            let end = [self.end_of(&batch, 0)];
            scheduler
                .complete(&batch, 0, 0.0, &[1.0], Outcomes::Each(&end))
                .unwrap();
        }
        assert!(scheduler.is_finished());
        scheduler.timeline().states.clone()
    }
}

/// A worker that does as it is told: positions before `done` are reported, those from `end` on given back.
struct Held {
    batch: Batch,
    done: u32,
    end: u32,
}

struct ItemRange<'a> {
    sample: &'a Sample,
    scheduler: Scheduler,
    held: Vec<Held>,
    /// Attempts that may still fail.
    retries: u32,
}

impl ItemRange<'_> {
    fn step(&mut self, event: u32) {
        let rest = event / 8;
        match event % 8 {
            0..=2 => self.claim(rest),
            3 | 4 if !self.held.is_empty() => self.report(rest),
            5 if !self.held.is_empty() => self.give_back(rest),
            6 if !self.held.is_empty() && self.retries > 0 => self.retry(rest),
            7 if !self.held.is_empty() => self.break_the_rules(rest),
            _ => {}
        }
        self.held.retain(|held| held.done < held.end);
        self.scheduler.check_invariants().unwrap();
    }

    fn claim(&mut self, rest: u32) {
        let (limit, most) = (rest % 3 + 1, rest / 3 % 6);
        if let Some(batch) = self.scheduler.claim_chains(0, limit, most, 0.0) {
            assert!(batch.heads() <= limit && batch.len() <= limit.max(most));
            let end = batch.len();
            self.held.push(Held {
                batch,
                done: 0,
                end,
            });
        }
    }

    /// Report the next items, up to the first without a value; what is chained to that goes back first.
    fn report(&mut self, rest: u32) {
        let at = rest as usize % self.held.len();
        let held = &mut self.held[at];
        let mut ends = vec![];
        while held.done + (ends.len() as u32) < held.end && ends.len() <= rest as usize / 7 % 3 {
            let position = held.done + ends.len() as u32;
            ends.push(self.sample.end_of(&held.batch, position));
            if !matches!(ends.last(), Some(3 | 4)) {
                break;
            }
        }
        let position = held.done;
        held.done += ends.len() as u32;
        if !matches!(ends.last(), Some(3 | 4)) {
            give_back_chain(&mut self.scheduler, held);
        }
        let times = vec![1.0; ends.len()];
        self.scheduler
            .complete(&held.batch, position, 0.5, &times, Outcomes::Each(&ends))
            .unwrap();
    }

    fn give_back(&mut self, rest: u32) {
        let at = rest as usize % self.held.len();
        let held = &mut self.held[at];
        let start = held.done + rest / 5 % (held.end - held.done);
        self.scheduler
            .give_back(&held.batch, start, held.end - start)
            .unwrap();
        held.end = start;
    }

    fn retry(&mut self, rest: u32) {
        self.retries -= 1;
        let at = rest as usize % self.held.len();
        let held = &mut self.held[at];
        let position = held.done;
        held.done += 1;
        give_back_chain(&mut self.scheduler, held);
        let time = f64::from(rest % 2);
        self.scheduler
            .retry(&held.batch, position, time, 0.0)
            .unwrap();
        self.scheduler.advance(2.0);
    }

    /// A chained item alone, or the end of what it is chained to: refused, and nothing has changed.
    fn break_the_rules(&mut self, rest: u32) {
        let held = &self.held[rest as usize % self.held.len()];
        let next = held.done + 1;
        if next >= held.end || !held.batch.is_chained(next) {
            return;
        }
        let before = self.scheduler.timeline().states.clone();
        let refused = Err(InvalidCall::Chained { position: next });
        let failed = Outcomes::Each(&[State::Failed as u8]);
        let batch = &held.batch;
        assert_eq!(
            self.scheduler
                .complete(batch, held.done, 0.0, &[1.0], failed),
            refused
        );
        assert_eq!(
            self.scheduler
                .complete(batch, next, 0.0, &[1.0], Outcomes::Success),
            refused
        );
        assert_eq!(self.scheduler.retry(batch, held.done, 9.0, 0.0), refused);
        assert_eq!(self.scheduler.give_back(batch, held.done, 1), refused);
        assert_eq!(self.scheduler.timeline().states, before);
    }

    fn drain(&mut self) {
        while !self.scheduler.is_finished() {
            self.step(3 + 8 * 14);
            self.step(8 * (2 + 3 * 4));
            assert!(
                !self.held.is_empty() || self.scheduler.is_finished(),
                "stuck"
            );
        }
    }
}

/// Give back what is chained to the item before `done`, and all behind it: a worker would pass over it.
fn give_back_chain(scheduler: &mut Scheduler, held: &mut Held) {
    let end = held.batch.next_head(held.done).min(held.end);
    if end > held.done {
        scheduler
            .give_back(&held.batch, held.done, end - held.done)
            .unwrap();
        held.done = end;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    #[test]
    fn a_run_with_chains_ends_as_one_without(
        sample in sample(),
        events in prop::collection::vec(any::<u32>(), 0..50),
    ) {
        let mut scheduler = sample.scheduler();
        scheduler.chain(&sample.mask).unwrap();
        let mut run = ItemRange { sample: &sample, scheduler, held: vec![], retries: 3 };
        for event in events {
            run.step(event);
        }
        run.drain();
        prop_assert_eq!(&run.scheduler.timeline().states, &sample.expected());
    }
}

fn line(nodes: u32) -> Scheduler {
    let mut edges = Edges::default();
    for node in 1..nodes {
        edges.push(NodeId(node), NodeId(node - 1), Kind::All);
    }
    let graph = Graph::build(nodes as usize, None, edges).unwrap();
    Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap()
}

#[test]
fn a_line_is_one_batch_with_one_head() {
    let mut scheduler = line(9);
    scheduler.chain(&[1; 9]).unwrap();
    let batch = scheduler.claim_chains(0, 1, 6, 0.0).unwrap();
    assert_eq!(
        (batch.len(), batch.heads(), batch.restless()),
        (6, 1, false)
    );
    assert_eq!((batch.next_head(1), batch.head_at(5)), (6, 0));
    scheduler
        .complete(&batch, 0, 0.0, &[1.0; 6], Outcomes::Success)
        .unwrap();
    assert_eq!(scheduler.ready(), 1);
}

#[test]
fn nothing_is_chained_where_nobody_allows_it() {
    let mut scheduler = line(3);
    assert_eq!(scheduler.claim_chains(0, 3, 9, 0.0).unwrap().len(), 1);
    let mut scheduler = line(3);
    scheduler.chain(&[1, 1, 0]).unwrap();
    assert_eq!(scheduler.claim_chains(0, 3, 9, 0.0).unwrap().len(), 2);
    assert_eq!(
        scheduler.chain(&[1]),
        Err(InvalidCall::Mask {
            length: 1,
            nodes: 3
        })
    );
}

#[test]
fn a_step_that_more_depends_on_makes_a_batch_restless() {
    let mut edges = Edges::default();
    for (dependent, dependency) in [(1, 0), (2, 0), (3, 1)] {
        edges.push(NodeId(dependent), NodeId(dependency), Kind::All);
    }
    let graph = Graph::build(4, None, edges).unwrap();
    let mut scheduler = Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap();
    scheduler.chain(&[1; 4]).unwrap();
    let batch = scheduler.claim_chains(0, 9, 9, 0.0).unwrap();
    assert_eq!((batch.len(), batch.heads(), batch.restless()), (3, 1, true));
}

#[test]
fn what_is_chained_to_a_cancelled_step_is_cancelled_when_both_come_back() {
    let mut scheduler = line(3);
    scheduler.chain(&[1; 3]).unwrap();
    let batch = scheduler.claim_chains(0, 1, 3, 0.0).unwrap();
    scheduler.cancel_node(NodeId(0), 1.0);
    scheduler.give_back(&batch, 0, 3).unwrap();
    scheduler.check_invariants().unwrap();
    assert_eq!(scheduler.count_in(State::Cancelled), 3);
}

#[test]
fn what_is_chained_to_a_step_that_has_not_ended_was_not_begun() {
    let mut scheduler = line(2);
    scheduler.chain(&[1; 2]).unwrap();
    let batch = scheduler.claim_chains(0, 1, 2, 0.0).unwrap();
    let refusal = InvalidCall::Chained { position: 1 };
    assert_eq!(scheduler.retry(&batch, 1, 2.0, 1.0), Err(refusal));
    let graft = scheduler.graft(&batch, 1, 1.0, &Graft::default());
    assert_eq!(graft, Err(InvalidGraft::Call(refusal)));
    scheduler
        .complete(&batch, 0, 0.0, &[1.0], Outcomes::Success)
        .unwrap();
    assert_eq!(scheduler.retry(&batch, 1, 2.0, 1.0), Ok(()));
    assert_eq!(scheduler.state(ItemId(1)), Some(State::Waiting));
}

#[test]
fn a_chained_step_that_tolerates_its_failure_is_as_it_was() {
    let mut scheduler = line(2);
    scheduler.chain(&[1; 2]).unwrap();
    let batch = scheduler.claim_chains(0, 1, 2, 0.0).unwrap();
    for node in [1, 0] {
        scheduler.tolerate(NodeId(node), 1).unwrap();
        scheduler.check_invariants().unwrap();
    }
    scheduler
        .complete(&batch, 0, 0.0, &[1.0; 2], Outcomes::Success)
        .unwrap();
    assert!(scheduler.is_finished());
}
