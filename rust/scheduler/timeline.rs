//! What happened to each item, in flat arrays of 20 bytes an item. It decides nothing.

use std::ops::Range;

use super::State;

/// State, attempts, worker and times of each item.
#[derive(Debug)]
pub struct Timeline {
    /// The state.
    pub states: Vec<State>,
    /// How often the item was begun; stays at 255 from there on.
    pub attempts: Vec<u8>,
    /// Who began it last; meaningless if attempts is 0.
    pub workers: Vec<u16>,
    /// When it was begun last: the time of the claim, then the reported start; 0 if never.
    pub starts: Vec<f64>,
    /// When it ended; 0 if it did not run.
    pub ends: Vec<f64>,
}

impl Timeline {
    pub(super) fn new(items: u32) -> Self {
        let items = items as usize;
        // Zeroes cost no memory before they are written.
        Self {
            states: vec![State::Waiting; items],
            attempts: vec![0; items],
            workers: vec![0; items],
            starts: vec![0.0; items],
            ends: vec![0.0; items],
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.states.len() as u32
    }

    pub(super) fn extend(&mut self, count: u32, state: State) {
        let items = self.states.len() + count as usize;
        self.states.resize(items, state);
        self.attempts.resize(items, 0);
        self.workers.resize(items, 0);
        self.starts.resize(items, 0.0);
        self.ends.resize(items, 0.0);
    }

    /// Return the first items in `within` that stand next to each other and are in `state`.
    pub(super) fn run_of(&self, state: State, within: Range<u32>) -> Option<Range<u32>> {
        let states = &self.states[within.start as usize..within.end as usize];
        let skip = states.iter().position(|other| *other == state)?;
        let count = states[skip..]
            .iter()
            .take_while(|other| **other == state)
            .count();
        let first = within.start + skip as u32;
        Some(first..first + count as u32)
    }

    pub(super) fn begin(&mut self, items: Range<u32>, worker: u16, now: f64) {
        let items = items.start as usize..items.end as usize;
        self.attempts[items.clone()]
            .iter_mut()
            .for_each(|attempts| *attempts = attempts.saturating_add(1));
        self.workers[items.clone()].fill(worker);
        self.starts[items].fill(now);
    }

    /// Forget that items were begun.
    pub(super) fn unbegin(&mut self, items: Range<u32>) {
        self.unspend(items.clone());
        self.starts[items.start as usize..items.end as usize].fill(0.0);
    }

    /// Take back the attempt that items were claimed for: they were not called.
    pub(super) fn unspend(&mut self, items: Range<u32>) {
        let spent = self.attempts[items.start as usize..items.end as usize]
            .iter_mut()
            .filter(|attempts| **attempts < u8::MAX);
        spent.for_each(|attempts| *attempts -= 1);
    }

    /// Note `now` as the end of those items that wait or are ready.
    pub(super) fn give_up(&mut self, items: Range<u32>, now: f64) {
        for item in items.start as usize..items.end as usize {
            if self.states[item] < State::Running {
                self.ends[item] = now;
            }
        }
    }

    /// Set the times of items that ran one after the other from `start`; return when the last one ended.
    pub(super) fn end(&mut self, first: u32, start: f64, ends: &[f64]) -> f64 {
        let items = first as usize..first as usize + ends.len();
        self.ends[items.clone()].copy_from_slice(ends);
        self.starts[items.start] = start;
        self.starts[items.start + 1..items.end].copy_from_slice(&ends[..ends.len() - 1]);
        ends[ends.len() - 1]
    }
}
