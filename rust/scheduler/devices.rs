//! Devices: a limit whose tokens belong to distinct devices, so that a claim must return which devices it got.
//!
//! ```text
//!   devices of 1000 tokens:   0 [■■■■■■■■■■]   1 [■■■■■     ]   2 [          ]
//!   1000: an entirely free one (2)   500: the fullest that has enough (1)   1500: a whole one, and a part of another
//! ```
//!
//! A part never spans two devices: even if enough tokens are free in total, each device may have too few. A claimant
//! may choose the devices (a process that holds some for its lifetime) with a [`Choice`]; otherwise parts are packed
//! together, so that other devices remain entirely free.

use crate::error::InvalidCall;

use super::Scheduler;
use super::invariants::ensure;
use super::token_queues::TokenQueues;

/// The devices of a batch, with the tokens of each, by device.
pub(super) type Placed = Vec<(u32, u32)>;

/// The devices of one limit, and the free tokens of each.
#[derive(Debug)]
pub(super) struct Devices {
    /// The limit.
    pub(super) limit: u32,
    /// The tokens of one device.
    unit: u32,
    /// The tokens of each device; the last one may have fewer.
    totals: Vec<u32>,
    free: Vec<u32>,
}

/// What may be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Nodes that need this number of tokens of the devices; 0: nodes that need none.
    pub amount: u32,
    /// The devices that they get.
    pub devices: Vec<u32>,
}

impl Devices {
    /// Divide a limit.
    pub(super) fn new(limit: u32, unit: u32, total: u32) -> Self {
        let count = total.div_ceil(unit);
        let totals: Vec<u32> = (0..count).map(|at| unit.min(total - at * unit)).collect();
        Self {
            limit,
            unit,
            free: totals.clone(),
            totals,
        }
    }

    fn is_whole(&self, device: u32) -> bool {
        self.free[device as usize] == self.unit
    }

    /// Return the devices on which this number of tokens can be taken; `None` if that is not possible now. O(devices).
    pub(super) fn place(&self, amount: u32) -> Option<Placed> {
        let (whole, part) = (amount / self.unit, amount % self.unit);
        let all = 0..self.free.len() as u32;
        let fits = |device: &u32| part > 0 && self.free[*device as usize] >= part;
        let shared = all.clone().filter(fits);
        let shared = shared.min_by_key(|device| self.free[*device as usize]);
        if part > 0 && shared.is_none() {
            return None;
        }
        let wholes = all.filter(|device| self.is_whole(*device) && shared != Some(*device));
        let mut placed: Placed = wholes
            .take(whole as usize)
            .map(|device| (device, self.unit))
            .collect();
        if placed.len() < whole as usize {
            return None;
        }
        placed.extend(shared.map(|device| (device, part)));
        placed.sort_unstable();
        Some(placed)
    }

    /// Return how this number of tokens is divided among exactly these devices; `None` if they are not free there now.
    pub(super) fn place_on(&self, amount: u32, devices: &[u32]) -> Option<Placed> {
        let part = amount % self.unit;
        if devices.len() != amount.div_ceil(self.unit) as usize {
            return None;
        }
        let shared = (part > 0)
            .then(|| devices.iter().min_by_key(|at| self.free[**at as usize]))
            .flatten();
        let mut placed = Placed::with_capacity(devices.len());
        for device in devices {
            let amount = if Some(device) == shared {
                part
            } else {
                self.unit
            };
            if self.free[*device as usize] < amount {
                return None;
            }
            placed.push((*device, amount));
        }
        placed.sort_unstable();
        Some(placed)
    }

    pub(super) fn count(&self) -> u32 {
        self.free.len() as u32
    }

    pub(super) fn take(&mut self, placed: &Placed) {
        for &(device, amount) in placed {
            self.free[device as usize] -= amount;
        }
    }

    pub(super) fn give(&mut self, placed: &Placed) {
        for &(device, amount) in placed {
            self.free[device as usize] += amount;
        }
    }

    /// Compare the free tokens of the devices with the free tokens of the limit.
    pub(super) fn check(&self, free: &[u32]) -> Result<(), String> {
        let sum: u32 = self.free.iter().sum();
        ensure(sum == free[self.limit as usize], || {
            format!("{:?} are free of the devices, {sum} in all", self.free)
        })?;
        let fits = self.free.iter().zip(&self.totals).all(|(a, b)| a <= b);
        ensure(fits, || format!("{:?} are free of the devices", self.free))
    }
}

impl TokenQueues {
    /// Check a choice.
    fn check_choice(&self, choice: &Choice) -> Result<(), InvalidCall> {
        let count = self.devices.as_ref().map_or(0, Devices::count);
        let seen = |at: usize| choice.devices[..at].contains(&choice.devices[at]);
        let wrong = (0..choice.devices.len()).find(|at| choice.devices[*at] >= count || seen(*at));
        match wrong {
            Some(at) => Err(InvalidCall::Device {
                device: choice.devices[at],
                count,
            }),
            None => Ok(()),
        }
    }
}

impl Scheduler {
    /// Restrict claims from now on to those that fit a choice; `None`: any ready item, on any devices. Does nothing in
    /// a run without limits.
    ///
    /// # Errors
    ///
    /// A device that does not exist, or the same one twice.
    pub fn choose(&mut self, choice: Option<Choice>) -> Result<(), InvalidCall> {
        let Some(lanes) = &mut self.lanes else {
            return Ok(());
        };
        if let Some(choice) = &choice {
            lanes.check_choice(choice)?;
        }
        lanes.choice = choice;
        Ok(())
    }

    /// Return the distinct numbers of device tokens that claimable nodes need, that of the most urgent node first, with
    /// the number of items. O(classes).
    #[must_use]
    pub fn device_needs(&self) -> Vec<(u32, u32)> {
        let mut needs: Vec<(u64, u32, u32)> = Vec::new();
        let plain = self.ready_nodes.first().map(|rank| self.at_rank(rank));
        let mut in_lanes = 0;
        for (key, amount, ready) in self.lanes.iter().flat_map(|lanes| lanes.open()) {
            in_lanes += ready;
            match needs.iter_mut().find(|need| need.1 == amount) {
                Some(need) => need.2 += ready,
                None => needs.push((key, amount, ready)),
            }
        }
        if let Some(node) = plain {
            let (key, ready) = (self.key(node), self.ready() - in_lanes);
            match needs.iter_mut().find(|need| need.1 == 0) {
                Some(need) => *need = (need.0.min(key), 0, need.2 + ready),
                None => needs.push((key, 0, ready)),
            }
        }
        needs.sort_unstable();
        needs
            .into_iter()
            .map(|(_, amount, ready)| (amount, ready))
            .collect()
    }

    /// Return the free tokens of each device.
    #[must_use]
    pub fn free_on_devices(&self) -> Vec<u32> {
        let devices = self.lanes.as_ref().and_then(|lanes| lanes.devices.as_ref());
        devices.map_or_else(Vec::new, |devices| devices.free.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(total: u32) -> Devices {
        Devices::new(0, 10, total)
    }

    #[test]
    fn parts_lie_together_and_never_on_two() {
        let mut devices = devices(30);
        for device in 0..2 {
            assert_eq!(devices.place(6), Some(vec![(device, 6)]));
            devices.take(&vec![(device, 6)]);
        }
        assert_eq!(devices.free, [4, 4, 10]);
        assert_eq!(devices.place(4), Some(vec![(0, 4)]));
        assert_eq!(devices.place(7), Some(vec![(2, 7)]));
        assert_eq!(devices.place(14), Some(vec![(0, 4), (2, 10)]));
        assert_eq!(devices.place(20), None);
        assert_eq!(devices.place(16), None);
    }

    #[test]
    fn those_that_were_chosen_or_none() {
        let mut devices = devices(25);
        assert_eq!(devices.totals, [10, 10, 5]);
        assert_eq!(devices.place_on(15, &[2, 1]), Some(vec![(1, 10), (2, 5)]));
        assert_eq!(devices.place_on(20, &[1, 2]), None);
        assert_eq!(devices.place_on(10, &[0, 1]), None);
        devices.take(&vec![(0, 10)]);
        assert_eq!(devices.place_on(10, &[0]), None);
        assert_eq!(devices.place_on(10, &[1]), Some(vec![(1, 10)]));
        devices.give(&vec![(0, 10)]);
        assert_eq!(devices.place(25), Some(vec![(0, 10), (1, 10), (2, 5)]));
    }
}
