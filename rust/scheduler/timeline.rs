//! The history of each item, in flat arrays of 20 bytes an item. It decides nothing.

use std::ops::Range;

use super::State;

/// State, attempts, worker and times of each item.
#[derive(Debug)]
pub struct Timeline {
    /// The state.
    pub states: Vec<State>,
    /// How often the item has begun; saturates at 255.
    pub attempts: Vec<u8>,
    /// The worker that began it last; meaningless if attempts is 0.
    pub workers: Vec<u16>,
    /// When it last began: the time of the claim, then the reported start; 0 if never.
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

    /// Return the first contiguous items in `within` that are in `state`.
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

    /// Reset the record that items have begun.
    pub(super) fn unbegin(&mut self, items: Range<u32>) {
        self.unspend(items.clone());
        self.starts[items.start as usize..items.end as usize].fill(0.0);
    }

    /// Undo the attempt for which items were claimed: they were not called.
    pub(super) fn unspend(&mut self, items: Range<u32>) {
        let spent = self.attempts[items.start as usize..items.end as usize]
            .iter_mut()
            .filter(|attempts| **attempts < u8::MAX);
        spent.for_each(|attempts| *attempts -= 1);
    }

    /// Record `now` as the end of those items that are waiting or ready.
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
