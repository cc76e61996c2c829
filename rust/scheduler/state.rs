//! The states of an item, and the effect of an end on dependents.

/// State of an item. The numbers are part of the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// A dependency is not complete, or the delay before the next attempt is not over.
    Waiting,
    /// May be claimed.
    Ready,
    /// Claimed by a worker.
    Running,
    /// Ended with a value.
    Success,
    /// Has a value from an earlier run.
    Cached,
    /// Ended with an error.
    Failed,
    /// Ended because it exceeded its time limit.
    TimedOut,
    /// Did not run: its condition did not hold, or a dependency was skipped.
    Skipped,
    /// Did not run: a dependency failed.
    UpstreamFailed,
    /// Did not run or did not end: the run was cancelled.
    Cancelled,
    /// Its value was given by the caller of the run.
    Given,
}

impl State {
    /// Number of states.
    pub const COUNT: usize = 11;

    /// All states in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Waiting,
        Self::Ready,
        Self::Running,
        Self::Success,
        Self::Cached,
        Self::Failed,
        Self::TimedOut,
        Self::Skipped,
        Self::UpstreamFailed,
        Self::Cancelled,
        Self::Given,
    ];

    /// Return the state's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Success => "success",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
            Self::UpstreamFailed => "upstream_failed",
            Self::Cancelled => "cancelled",
            Self::Given => "given",
        }
    }

    /// Return true if an item in this state has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        self as u8 >= Self::Success as u8
    }

    /// Return true if an item in this state has a value.
    #[must_use]
    pub const fn has_value(self) -> bool {
        matches!(self, Self::Success | Self::Cached | Self::Given)
    }

    /// Return the state with this number if a run can end in it.
    #[must_use]
    pub fn outcome(number: u8) -> Option<Self> {
        let state = *Self::ALL.get(usize::from(number))?;
        let is_outcome = !matches!(state, Self::UpstreamFailed | Self::Given);
        (state.is_terminal() && is_outcome).then_some(state)
    }

    /// Return true if an item in this state has failed, or could not run because another one failed.
    pub(super) const fn is_bad(self) -> bool {
        matches!(self.verdict(), DependencyEffect::Failed)
    }

    /// Return counts by state of `count` items that are all in this one.
    pub(super) fn times(self, count: u32) -> [u32; Self::COUNT] {
        let mut counts = [0; Self::COUNT];
        counts[self as usize] = count;
        counts
    }

    /// Return the effect of this end on dependents.
    pub(super) const fn verdict(self) -> DependencyEffect {
        match self {
            Self::Failed | Self::TimedOut | Self::UpstreamFailed => DependencyEffect::Failed,
            Self::Cancelled => DependencyEffect::Cancelled,
            Self::Skipped => DependencyEffect::Skipped,
            _ => DependencyEffect::Fine,
        }
    }

    /// Order states by their significance for a node with several items.
    pub(super) fn telling(self) -> u8 {
        const ORDER: [State; State::COUNT] = [
            State::Given,
            State::Cached,
            State::Success,
            State::Skipped,
            State::Cancelled,
            State::UpstreamFailed,
            State::TimedOut,
            State::Failed,
            State::Waiting,
            State::Ready,
            State::Running,
        ];
        ORDER
            .iter()
            .position(|state| *state == self)
            .map_or(0, |at| at as u8)
    }
}

/// The effect of the end of an item or node on its dependents; the worst wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DependencyEffect {
    /// They may run.
    Fine,
    /// They are skipped, once all their dependencies are complete.
    Skipped,
    /// They are cancelled, once all their dependencies are complete.
    Cancelled,
    /// They cannot run, from now on.
    Failed,
}

impl DependencyEffect {
    /// Return the state that a dependent inherits.
    pub(super) const fn inherited(self) -> State {
        match self {
            Self::Fine => State::Success,
            Self::Skipped => State::Skipped,
            Self::Cancelled => State::Cancelled,
            Self::Failed => State::UpstreamFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions() {
        assert!(
            State::ALL
                .iter()
                .enumerate()
                .all(|(at, state)| *state as usize == at)
        );
    }

    #[test]
    fn outcomes_are_terminal_and_not_inherited() {
        let outcomes: Vec<u8> = (0..=255)
            .filter(|number| State::outcome(*number).is_some())
            .collect();
        assert_eq!(outcomes, [3, 4, 5, 6, 7, 9]);
    }
}
