//! Times that belong to items: retry delays. Each item has at most one.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// A time with a total order.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Time(f64);

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// One time for each of some items, earliest first. O(log n) a change.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Time, u32)>,
    by_item: HashMap<u32, Time>,
}

impl Timers {
    pub(super) fn set(&mut self, item: u32, at: f64) {
        self.clear(item..item + 1);
        let at = Time(at);
        self.by_item.insert(item, at);
        self.by_time.insert((at, item));
    }

    pub(super) fn clear(&mut self, items: Range<u32>) {
        if self.by_item.is_empty() {
            return;
        }
        if items.len() <= self.by_item.len() {
            return items.for_each(|item| self.forget(item));
        }
        let here: Vec<u32> = self.items().filter(|item| items.contains(item)).collect();
        for item in here {
            self.forget(item);
        }
    }

    fn forget(&mut self, item: u32) {
        if let Some(at) = self.by_item.remove(&item) {
            self.by_time.remove(&(at, item));
        }
    }

    pub(super) fn clear_all(&mut self) {
        self.by_time.clear();
        self.by_item.clear();
    }

    pub(super) fn items(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_item.keys().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_item.is_empty()
    }

    pub(super) fn first(&self) -> Option<f64> {
        self.by_time.first().map(|(at, _)| at.0)
    }

    /// Remove the item whose time is earliest, if that is not after `now`; none if `now` is not finite.
    pub(super) fn pop_due(&mut self, now: f64) -> Option<u32> {
        let &(at, item) = self.by_time.first()?;
        if at.0 > now || !now.is_finite() {
            return None;
        }
        self.by_time.pop_first();
        self.by_item.remove(&item);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_due_first_and_a_new_time_replaces_the_old() {
        let mut timers = Timers::default();
        timers.set(7, 3.0);
        timers.set(8, 2.0);
        timers.set(7, 1.0);
        assert_eq!(timers.pop_due(0.5), None);
        assert_eq!(timers.pop_due(2.5), Some(7));
        assert_eq!(timers.pop_due(2.5), Some(8));
        assert_eq!(timers.pop_due(9.0), None);
    }

    #[test]
    fn a_time_that_is_not_finite_ends_no_delay() {
        let mut timers = Timers::default();
        timers.set(7, 3.0);
        for now in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(timers.pop_due(now), None, "{now}");
        }
        assert_eq!(timers.pop_due(3.0), Some(7));
    }
}
