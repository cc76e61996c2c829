//! Random schedules of random graphs, compared with a naive model after every event.
//!
//! A case is a graph and a list of numbers; each number is read as the next event that is possible: claim, with or without
//! chains, report, retry, give back, expand, refuse, tolerate, graft, cancel all or one node, keep tokens, time passing, or something that is not
//! legal and must change nothing.

#![expect(clippy::expect_used, reason = "how a test fails")]
#![expect(
    clippy::float_cmp,
    reason = "times are handed on, never calculated with"
)]

mod grafts;
mod graphs;
mod reference;
mod tokens;

use std::collections::BTreeSet;
use std::sync::Arc;

use flowyml::error::InvalidCall;
use flowyml::graph::{Graph, ItemId, NodeId};
use flowyml::scheduler::{Batch, Order, Outcomes, Scheduler, State};
use proptest::prelude::*;

use graphs::{Bounds, Sample, bounds, lines, sample};
use reference::{Item, Model};

const OUTCOMES: [State; 6] = [
    State::Success,
    State::Cached,
    State::Failed,
    State::TimedOut,
    State::Skipped,
    State::Cancelled,
];

/// Positions that stand next to each other, of a batch that is out.
#[derive(Clone, Copy)]
struct Part {
    batch: usize,
    position: u32,
    length: u32,
}

/// A scheduler beside its model.
struct Pair {
    scheduler: Scheduler,
    model: Model,
    keep: Vec<u8>,
    now: f64,
    /// Batches with the positions that are out.
    out: Vec<(Batch, Vec<u32>)>,
    done: Vec<Batch>,
    bounds: Bounds,
    /// Batches whose tokens stay out.
    kept: Vec<Batch>,
    released: BTreeSet<Item>,
    due: BTreeSet<u32>,
    /// Every other event is a graft, if one is possible.
    grafting: bool,
}

impl Pair {
    fn new(sample: &Sample, mut bounds: Bounds, order: Order, keep: u32, chained: u32) -> Self {
        let graph = sample.build().expect("samples are valid");
        let mut model = Model::new(sample, &graph, order);
        let keep: Vec<u8> = (0..graph.node_count())
            .map(|node| (keep >> node & 1) as u8)
            .collect();
        let mut scheduler =
            Scheduler::new(Arc::new(graph), order, Some(&keep)).expect("the mask fits");
        if let Some(limits) = bounds.limits(keep.len()) {
            scheduler = scheduler.with_limits(&limits).expect("demands fit");
        }
        bounds.demands.truncate(keep.len());
        if chained != 0 {
            let mask: Vec<u8> = (0..keep.len())
                .map(|at| (chained >> at & 1) as u8)
                .collect();
            scheduler.chain(&mask).expect("one byte a node");
            let chainable = (0..).zip(&mask).filter(|each| *each.1 == 1);
            model.chainable = chainable.map(|each| each.0).collect();
        }
        let (out, done, kept, released, due) = <_>::default();
        Self {
            scheduler,
            model,
            keep,
            now: 1.0,
            out,
            done,
            bounds,
            kept,
            released,
            due,
            grafting: false,
        }
    }

    fn step(&mut self, event: u32) {
        let (mut op, rest) = (event % 24, event / 24);
        if self.grafting && event >> 30 < 2 {
            op = 21;
        }
        match op {
            0..=4 => self.claim(rest),
            5..=9 => self.complete(rest),
            10 => self.retry(rest),
            11 | 17 => self.give_back(rest),
            12 => self.expand(rest),
            13 => self.pass_time(rest),
            14 => self.illegal(rest),
            15 => self.refuse(rest),
            16 => self.tolerate(rest),
            21 | 22 => self.graft(rest),
            19 => self.keep_tokens(rest),
            20 => self.return_tokens(rest),
            18 => self.cancel_node(rest),
            _ if rest % 24 == 0 => self.cancel(),
            _ => self.illegal(rest),
        }
        self.compare();
    }

    fn claim(&mut self, choice: u32) {
        self.model.advance(self.now);
        let (limit, worker) = (1 + choice % 5, (choice % 7) as u16);
        let most = if self.model.chainable.is_empty() {
            0
        } else {
            choice / 8 % 7
        };
        let (can, class) = (self.can_run(), |node| self.bounds.class(node));
        let expected = self.model.claimable(limit as usize, can, class);
        let batch = self.scheduler.claim_chains(worker, limit, most, self.now);
        let limited = expected.first().map(|item| class(item.0) != 0);
        assert_eq!(batch.as_ref().map(Batch::limited), limited);
        let Some(batch) = batch else { return };
        self.check_claimed(&batch, &expected, (limit, most));
        for item in batch.items() {
            assert_eq!(self.scheduler.timeline().workers[item.index()], worker);
        }
        let positions = (0..batch.len()).collect();
        self.out.push((batch, positions));
    }

    /// Compare what was claimed with what was to be, and note it. What is chained stands behind what it waits for.
    fn check_claimed(&mut self, batch: &Batch, expected: &[Item], (limit, most): (u32, u32)) {
        let bounds = self.bounds.clone();
        let link = |model: &Model, item: Item| {
            let link = model.link(item.0, |node| bounds.class(node));
            link.filter(|_| bounds.class(item.0) == 0)
        };
        let items: Vec<Item> = batch.items().map(|item| self.locate(item)).collect();
        let mut heads = Vec::new();
        for (position, item) in (0..).zip(&items) {
            if batch.is_chained(position) {
                let before = items[position as usize - 1];
                assert_eq!(link(&self.model, before), Some(item.0), "what comes next");
            } else {
                heads.push(*item);
            }
            self.model.reported.insert(*item, State::Running);
            *self.model.attempts.entry(*item).or_default() += 1;
            self.model.work_out();
            let is_last = !batch.is_chained(position + 1);
            let in_chain = batch.is_chained(position) || limit == 1;
            if is_last && in_chain && most > 1 && batch.len() < most {
                assert_eq!(link(&self.model, *item), None, "chains are not cut short");
            }
        }
        assert_eq!(heads, expected[..heads.len()], "claims come in order");
        assert_eq!(batch.heads(), heads.len() as u32);
        assert!(heads.len() == expected.len() || batch.len() == most.max(limit));
    }

    /// Choose positions that stand next to each other in a batch that is out: which batch, the first one, how many.
    fn pick(&self, choice: u32) -> Option<Part> {
        let count = self.out.len();
        let batch = choice as usize % count.max(1);
        let (_, positions) = self.out.get(batch)?;
        let at = (choice / 8) as usize % positions.len();
        let gap = (at..positions.len())
            .find(|next| positions[*next] != positions[at] + (next - at) as u32);
        let length = (1 + (choice / 64) as usize % 4).min(gap.unwrap_or(positions.len()) - at);
        Some(Part {
            batch,
            position: positions[at],
            length: length as u32,
        })
    }

    fn items_of(&self, part: Part) -> Vec<Item> {
        let items = self.out[part.batch].0.items_from(part.position);
        let items = items.take(part.length as usize);
        items.map(|item| self.locate(item)).collect()
    }

    /// Note that positions are out no more; return the batch.
    fn remove(&mut self, part: Part) -> Batch {
        let (batch, positions) = &mut self.out[part.batch];
        let end = part.position + part.length;
        positions.retain(|position| !(part.position..end).contains(position));
        let batch = batch.clone();
        if positions.is_empty() {
            self.done.push(self.out.swap_remove(part.batch).0);
        }
        batch
    }

    /// Say whether the item at a position is out and chained to the one before it.
    fn follows(&self, batch: usize, position: u32) -> bool {
        let (batch, positions) = &self.out[batch];
        batch.is_chained(position) && positions.contains(&position)
    }

    /// Say whether such ends would leave something chained to nothing, or come before what it is chained to.
    fn breaks_chains(&self, part: Part, ends: &[State]) -> bool {
        let early = |at: usize, item: &Item| {
            self.model.is_ahead(*item) && (at == 0 || !ends[at - 1].has_value())
        };
        let mut items = self.items_of(part).into_iter().enumerate();
        let last = ends.last().is_some_and(|end| end.has_value());
        items.any(|(at, item)| early(at, &item))
            || !last && self.follows(part.batch, part.position + part.length)
    }

    /// Have a call refused because of chains, with nothing changed.
    fn refuse_chained(&mut self, call: impl FnOnce(&mut Scheduler) -> Result<(), InvalidCall>) {
        let before = format!("{:?}", self.scheduler);
        let refused = call(&mut self.scheduler);
        assert!(
            matches!(refused, Err(InvalidCall::Chained { .. })),
            "{refused:?}"
        );
        assert_eq!(before, format!("{:?}", self.scheduler));
    }

    fn complete(&mut self, choice: u32) {
        if let Some(part) = self.pick(choice) {
            self.complete_part(part, choice);
        }
    }

    fn complete_part(&mut self, part: Part, choice: u32) {
        let items = self.items_of(part);
        let state = |at: usize| {
            if choice & 1 == 0 {
                State::Success
            } else {
                OUTCOMES[(choice as usize / 256 + at * 5) % 6]
            }
        };
        let states: Vec<State> = (0..items.len()).map(state).collect();
        let numbers: Vec<u8> = states.iter().map(|state| *state as u8).collect();
        let ends: Vec<f64> = (0..items.len() as u32)
            .map(|at| self.now + f64::from(at))
            .collect();
        let outcomes = if choice & 1 == 0 {
            Outcomes::Success
        } else {
            Outcomes::Each(&numbers)
        };
        let (position, begun) = (part.position, self.now - 0.5);
        if self.breaks_chains(part, &states) {
            let batch = self.out[part.batch].0.clone();
            return self
                .refuse_chained(|core| core.complete(&batch, position, begun, &ends, outcomes));
        }
        let batch = self.remove(part);
        self.scheduler
            .complete(&batch, position, begun, &ends, outcomes)
            .expect("legal");
        for (at, item) in items.into_iter().enumerate() {
            self.model.reported.insert(item, state(at));
            if matches!(state(at), State::Cached | State::Skipped) {
                *self.model.attempts.entry(item).or_default() -= 1; // it was not called
            }
            let start = if at == 0 { begun } else { ends[at - 1] };
            assert_eq!(
                self.scheduler.timeline().starts[self.id(item).index()],
                start
            );
            assert_eq!(
                self.scheduler.timeline().ends[self.id(item).index()],
                ends[at]
            );
        }
        self.model.work_out();
    }

    fn retry(&mut self, choice: u32) {
        let Some(part) = self.pick(choice % 64) else {
            return;
        };
        let (now, position) = (self.now, part.position);
        let at = now + f64::from(choice / 64 % 3);
        let item = self.items_of(part)[0];
        if self.model.is_ahead(item) || self.follows(part.batch, position + 1) {
            let batch = self.out[part.batch].0.clone();
            return self.refuse_chained(|core| core.retry(&batch, position, at, now));
        }
        let batch = self.remove(part);
        self.scheduler
            .retry(&batch, position, at, now)
            .expect("legal");
        self.model.put_back(item, (at > now).then_some(at));
    }

    fn give_back(&mut self, choice: u32) {
        let Some(mut part) = self.pick(choice) else {
            return;
        };
        if choice & 1 == 1 {
            let (batch, positions) = &self.out[part.batch];
            let goes_on = |end: &u32| positions.contains(end);
            part.length = (part.position..batch.len()).take_while(goes_on).count() as u32; // all that is left
        }
        let (position, length, items) = (part.position, part.length, self.items_of(part));
        if self.follows(part.batch, position + length) {
            let batch = self.out[part.batch].0.clone();
            return self.refuse_chained(|core| core.give_back(&batch, position, length));
        }
        let batch = self.remove(part);
        self.scheduler
            .give_back(&batch, position, length)
            .expect("legal");
        for item in items.into_iter().rev() {
            *self.model.attempts.entry(item).or_default() -= 1;
            self.model.give_back(item);
        }
    }

    fn expand(&mut self, choice: u32) {
        let Some(node) = self
            .due
            .iter()
            .copied()
            .nth(choice as usize % self.due.len().max(1))
        else {
            return;
        };
        self.due.remove(&node);
        self.scheduler
            .expand(NodeId(node), choice / 16 % 4)
            .expect("legal");
        self.model.expand(node, choice / 16 % 4);
    }

    fn refuse(&mut self, choice: u32) {
        let at = choice as usize % self.due.len().max(1);
        let Some(node) = self.due.iter().copied().nth(at) else {
            return;
        };
        self.due.remove(&node);
        let state = OUTCOMES[2 + choice as usize / 16 % 4];
        self.scheduler
            .refuse(NodeId(node), state as u8)
            .expect("legal");
        self.model.refuse(node, state);
    }

    fn tolerate(&mut self, choice: u32) {
        let node = choice % self.keep.len() as u32;
        let failures = choice / 16 % 4;
        let before = format!("{:?}", self.scheduler);
        let tolerated = self.scheduler.tolerate(NodeId(node), failures).is_ok();
        assert_eq!(tolerated, self.model.tolerate(node, failures as usize));
        assert!(tolerated || before == format!("{:?}", self.scheduler));
    }

    fn cancel_node(&mut self, choice: u32) {
        // As often as not one that runs: what comes back of it is cancelled then.
        let out = self.out.get((choice / 2) as usize % self.out.len().max(1));
        let runs = out.filter(|_| choice & 1 == 1);
        let runs = runs.and_then(|(batch, positions)| batch.at(positions[0]));
        let node = runs.map_or(choice / 2 % self.keep.len() as u32, |at| at.1.0);
        self.scheduler.cancel_node(NodeId(node), self.now);
        self.model.cancel_node(node);
    }

    fn pass_time(&mut self, choice: u32) {
        self.now += f64::from(choice % 3);
        self.scheduler.advance(self.now);
        self.model.advance(self.now);
    }

    fn cancel(&mut self) {
        self.scheduler.cancel(self.now);
        self.model.cancel();
    }

    /// Do something that is not legal; it is refused and changes nothing.
    fn illegal(&mut self, choice: u32) {
        let before = format!("{:?}", self.scheduler);
        let now = self.now;
        if let Some(batch) = self.done.get(choice as usize % self.done.len().max(1)) {
            assert!(
                self.scheduler
                    .complete(batch, 0, now, &[now], Outcomes::Success)
                    .is_err()
            );
            assert!(
                self.scheduler
                    .retry(batch, batch.len() - 1, now, now)
                    .is_err()
            );
            assert!(self.scheduler.give_back(batch, 0, batch.len()).is_err());
            assert_eq!(self.scheduler.keep_tokens(batch).is_err(), batch.limited());
        }
        if let Some((batch, positions)) = self.out.get(choice as usize % self.out.len().max(1)) {
            let (at, past) = (positions[0], batch.len() - positions[0] + 1);
            assert!(self.scheduler.give_back(batch, at, past).is_err());
            assert!(self.scheduler.give_back(batch, u32::MAX, 2).is_err());
            for time in [f64::NAN, f64::INFINITY] {
                assert!(self.scheduler.retry(batch, at, time, now).is_err());
                assert!(self.scheduler.retry(batch, at, now, time).is_err());
                self.scheduler.advance(time);
            }
            for numbers in [&[2][..], &[8], &[10], &[3, 3], &[]] {
                assert!(
                    self.scheduler
                        .complete(batch, at, now, &[now], Outcomes::Each(numbers))
                        .is_err()
                );
            }
            if positions.len() < batch.len() as usize {
                assert!(self.scheduler.give_back(batch, 0, batch.len()).is_err());
            }
            let mut other = Scheduler::new(Arc::clone(self.scheduler.graph()), Order::Add, None)
                .expect("a scheduler");
            assert!(other.give_back(batch, at, 1).is_err());
        }
        let mut nodes = 0..self.keep.len() as u32;
        if let Some(node) = nodes.find(|node| !self.due.contains(node)) {
            assert!(self.scheduler.expand(NodeId(node), 2).is_err());
            let state = OUTCOMES[choice as usize % 6];
            assert!(self.scheduler.refuse(NodeId(node), state as u8).is_err());
        }
        if let Some(node) = self.due.first() {
            for state in [0, 2, 3, 4, 8, 10] {
                assert!(self.scheduler.refuse(NodeId(*node), state).is_err());
            }
        }
        assert_eq!(
            format!("{:?}", self.scheduler),
            before,
            "a refused call changes nothing"
        );
    }

    fn compare(&mut self) {
        self.scheduler.check_invariants().expect("invariants");
        let mut counts = [0; State::COUNT];
        for item in self.model.items() {
            let (id, state) = (self.id(item), self.model.state(item));
            assert_eq!(self.scheduler.state(id), Some(state), "{item:?}");
            assert_eq!(self.scheduler.locate(id), Some((NodeId(item.0), item.1)));
            assert_eq!(
                self.scheduler.timeline().attempts[id.index()],
                self.model.attempts.get(&item).copied().unwrap_or(0)
            );
            counts[state as usize] += 1;
        }
        assert_eq!(self.scheduler.counts(), counts);
        self.compare_ready();
        for node in (0..self.keep.len() as u32).map(NodeId) {
            let empty = self.model.empty_state(node.0);
            assert_eq!(empty.is_some(), self.scheduler.count(node) == 0);
            let expected = self.model.node_state(node.0);
            assert_eq!(self.scheduler.node_state(node), expected, "{node:?}");
        }
        let freed: Vec<Item> = self
            .scheduler
            .take_released()
            .into_iter()
            .map(|item| self.locate(item))
            .collect();
        assert!(
            freed.iter().all(|item| self.released.insert(*item)),
            "released once"
        );
        assert_eq!(self.released, self.model.released(&self.keep));
        while let Some(node) = self.scheduler.next_expandable() {
            assert!(self.due.insert(node.0), "asked for once");
        }
        let due = self.due.iter().copied();
        let awaited: BTreeSet<u32> = due.filter(|node| !self.model.is_gone(*node)).collect();
        assert_eq!(self.model.due(), awaited);
        assert_eq!(self.scheduler.is_finished(), self.model.finished());
        assert_eq!(self.scheduler.next_delay(), self.model.next_delay());
    }

    fn id(&self, item: Item) -> ItemId {
        ItemId(self.scheduler.first_item(NodeId(item.0)).0 + item.1)
    }

    fn locate(&self, item: ItemId) -> Item {
        let (node, index) = self.scheduler.locate(item).expect("an item");
        (node.0, index)
    }

    /// Finish what is open.
    fn drain(&mut self) {
        while !self.model.finished() {
            self.now += 1.0;
            self.expand(16);
            self.return_tokens(0);
            self.claim(4);
            if let Some((_, positions)) = self.out.first() {
                let (batch, position, length) = (0, positions[0], 1);
                self.complete_part(
                    Part {
                        batch,
                        position,
                        length,
                    },
                    0,
                );
            }
            self.compare();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, the scheduler says what the model says, and the run can be finished.
    #[test]
    fn the_scheduler_is_the_model(
        sample in sample(),
        bounds in bounds(),
        (critical_path, grafting) in any::<(bool, bool)>(),
        keep in 0..512_u32,
        chained in prop_oneof![Just(0), Just(u32::MAX), any::<u32>()],
        events in prop::collection::vec(any::<u32>(), 0..60),
    ) {
        let order = if critical_path || chained != 0 { Order::CriticalPath } else { Order::Add };
        let mut pair = Pair::new(&sample, bounds, order, keep, chained);
        pair.grafting = grafting;
        pair.compare();
        for event in events {
            pair.step(event);
        }
        pair.drain();
        prop_assert!(pair.scheduler.is_finished());
    }

    /// The same where most of what runs is chained, which is rare among graphs of any shape.
    #[test]
    fn chains_are_those_of_the_model(
        sample in lines(),
        bounds in prop_oneof![2 => bounds(), 3 => Just(Bounds { totals: vec![], demands: vec![0; 9] })],
        grafting in prop::bool::weighted(0.1),
        keep in 0..512_u32,
        chained in prop_oneof![4 => Just(u32::MAX), 1 => 1..u32::MAX],
        events in prop::collection::vec(any::<u32>(), 10..70),
    ) {
        let mut pair = Pair::new(&sample, bounds, Order::CriticalPath, keep, chained);
        pair.grafting = grafting;
        pair.compare();
        for event in events {
            pair.step(event);
        }
        pair.drain();
        prop_assert!(pair.scheduler.is_finished());
    }

    /// Weights are longest paths, and `order` is what one worker runs.
    #[test]
    fn the_order_is_that_of_one_worker(sample in sample()) {
        let graph: Graph = sample.build().expect("samples are valid");
        let model = Model::new(&sample, &graph, Order::CriticalPath);
        for node in graph.nodes() {
            prop_assert_eq!(graph.weight(node), model.weight(node.0));
        }
        let order: Vec<NodeId> = graph.order();
        let mut left: Vec<NodeId> = graph.nodes().collect();
        for node in order {
            let free = left.iter().filter(|node| graph.dependencies(**node).all(|(other, _)| !left.contains(&other)));
            let first = free.copied().min_by_key(|node| (std::cmp::Reverse(graph.weight(*node)), *node));
            prop_assert_eq!(first, Some(node));
            left.retain(|other| *other != node);
        }
        prop_assert!(left.is_empty());
    }
}
