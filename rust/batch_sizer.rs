//! Batch size: how many steps one thread of this process claims at once.
//!
//! A batch of one step is right for steps of a millisecond and far too small for those of a microsecond, so the size
//! follows the measured time of a step: enough steps to fill the target time, never more than a fair share of the ready
//! ones (so that the last ones spread over all workers), and growing at most fourfold at a time, since the first steps
//! may not be typical. This module reads no clock. `executors/process/driver/batching.py` does the same for worker
//! processes, with other numbers.

/// A fair share is the ready steps of one worker divided by this: small enough that workers end together.
const SHARES: u32 = 4;
const GROWTH: u32 = 4;
/// Weight of the newest batch in the running mean of the step time.
const NEWEST: f64 = 0.3;

/// Follows the measured step time of one worker.
#[derive(Clone, Copy, Debug)]
pub struct BatchSizer {
    /// Seconds of work that one batch should hold.
    target: f64,
    most: u32,
    /// The number of workers that share the ready steps; 0 if there is only one, and then the size is fixed.
    workers: u32,
    mean: Option<f64>,
    grown: u32,
}

impl BatchSizer {
    /// Start with one step at a time; if there are no other workers, with the maximum.
    #[must_use]
    pub fn new(target: f64, most: u32, workers: u32) -> Self {
        let grown = if workers == 0 { most } else { 1 };
        Self {
            target,
            most,
            workers,
            mean: None,
            grown,
        }
    }

    /// Return how many steps to take when `ready` are ready: at least 1.
    #[must_use]
    pub fn limit(&self, ready: u32) -> u32 {
        let share = ready
            .checked_div(SHARES.saturating_mul(self.workers))
            .unwrap_or(self.most);
        self.grown.min(share).min(self.most).max(1)
    }

    /// Record how long a batch of `count` steps took; a time that is not finite is ignored.
    pub fn observe(&mut self, count: u32, seconds: f64) {
        if self.workers == 0 || count == 0 || !seconds.is_finite() {
            return;
        }
        let time = seconds / f64::from(count);
        let mean = self.mean.map_or(time, |mean| mean + NEWEST * (time - mean));
        self.mean = Some(mean);
        let fitting = if mean > 0.0 {
            (self.target / mean).min(f64::from(self.most))
        } else {
            f64::from(self.most)
        };
        // The result is between 0 and `most`.
        #[expect(
            clippy::cast_sign_loss,
            reason = "times do not run backwards, and a cast of less than 0 gives 0"
        )]
        let fitting = fitting as u32;
        self.grown = fitting.min(self.grown.saturating_mul(GROWTH)).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_steps_come_in_batches_that_grow_fourfold() {
        let mut sizer = BatchSizer::new(0.001, 1000, 2);
        let mut limits = vec![sizer.limit(1_000_000)];
        for _ in 0..5 {
            sizer.observe(1, 1e-6);
            limits.push(sizer.limit(1_000_000));
        }
        assert_eq!(limits, [1, 4, 16, 64, 256, 1000]);
    }

    #[test]
    fn a_time_that_is_not_finite_says_nothing() {
        let mut sizer = BatchSizer::new(0.001, 1000, 2);
        for seconds in [f64::NAN, f64::INFINITY] {
            sizer.observe(1, seconds);
            assert_eq!(sizer.limit(1_000_000), 1);
        }
        sizer.observe(1, 1e-6);
        assert_eq!(sizer.limit(1_000_000), 4);
    }

    #[test]
    fn long_steps_come_one_by_one() {
        let mut sizer = BatchSizer::new(0.001, 1000, 2);
        sizer.observe(1, 0.5);
        assert_eq!(sizer.limit(1_000_000), 1);
    }

    #[test]
    fn the_last_ones_are_shared() {
        let mut sizer = BatchSizer::new(0.001, 1000, 2);
        (0..5).for_each(|_| sizer.observe(1, 1e-6));
        assert_eq!([80, 12, 0].map(|ready| sizer.limit(ready)), [10, 1, 1]);
    }

    #[test]
    fn who_is_alone_takes_what_there_is() {
        assert_eq!(BatchSizer::new(0.0, 256, 0).limit(3), 256);
    }
}
