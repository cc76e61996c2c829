//! Tokens that something outside of the run holds, for as long as it does: a step of an earlier run that goes on in its thread.
//!
//! ```text
//!   withhold(needs, devices) ──▶ a number, for which the tokens are taken ──▶ restore(number): they are free again
//! ```
//!
//! If less of a limit or a device is free than needed, only what is free is withheld.

use std::collections::BTreeMap;

use crate::error::Refusal;

use super::Scheduler;
use super::batch::Batch;
use super::devices::Placed;
use super::lanes::{Lanes, sum};
use super::limits::Limits;

/// Tokens that are held outside of the run, by id. Ids are not reused.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    next: u32,
    all: BTreeMap<u32, (Tokens, Placed)>,
}

impl Withheld {
    /// Return limits with the tokens that are withheld.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.all.values().flat_map(|held| held.0.iter().copied())
    }
}

/// Limits or devices with tokens of each.
pub type Tokens = Vec<(u32, u32)>;

impl Scheduler {
    /// Withhold tokens of limits, those of devices on these devices; return a number for [`Scheduler::restore`].
    ///
    /// `further` are limits that the run does not have yet: nodes may need them that come later.
    ///
    /// # Errors
    ///
    /// Limits or devices that are not there; nothing has been withheld then.
    pub fn withhold(
        &mut self,
        needs: &[(u32, u32)],
        devices: &[(u32, u32)],
        further: &Limits,
    ) -> Result<u32, Refusal> {
        self.extend_limits(further, 0)?;
        match &mut self.lanes {
            Some(lanes) => lanes.withhold(needs, devices),
            None => Err(Refusal::NoTokens),
        }
    }

    /// Let tokens come back that were withheld.
    ///
    /// # Errors
    ///
    /// A number of nothing that is withheld.
    pub fn restore(&mut self, number: u32) -> Result<(), Refusal> {
        let lanes = self.lanes.as_mut().ok_or(Refusal::NoTokens)?;
        lanes.restore(number)
    }

    /// Return what a batch takes of limits, and of which devices.
    ///
    /// # Errors
    ///
    /// A batch of another scheduler.
    pub fn tokens(&self, batch: &Batch) -> Result<(Tokens, Tokens), Refusal> {
        self.holds(batch)?;
        let needs = self.lanes.as_ref().map(|lanes| lanes.needs(batch.class));
        let placed = batch.placed.as_deref().cloned();
        Ok((
            needs.unwrap_or_default().to_vec(),
            placed.unwrap_or_default(),
        ))
    }
}

impl Lanes {
    fn withhold(&mut self, needs: &[(u32, u32)], devices: &[(u32, u32)]) -> Result<u32, Refusal> {
        if let Some(&(limit, _)) = needs.iter().find(|need| self.free(need.0).is_none()) {
            return Err(Refusal::Withheld { limit });
        }
        let placed = self.take_places(devices)?;
        let on_devices = placed.iter().map(|(_, amount)| amount).sum();
        let mut tokens = sum(needs);
        for (limit, amount) in &mut tokens {
            *amount = match self.of_devices(*limit) {
                Some(_) => on_devices,
                None => self.free(*limit).map_or(0, |free| free.min(*amount)),
            };
        }
        self.shift(&tokens, |free, amount| free - amount);
        let number = self.withheld.next;
        self.withheld.next += 1;
        self.withheld.all.insert(number, (tokens, placed));
        Ok(number)
    }

    fn restore(&mut self, number: u32) -> Result<(), Refusal> {
        let held = self.withheld.all.remove(&number);
        let (tokens, placed) = held.ok_or(Refusal::NoTokens)?;
        if let Some(devices) = &mut self.devices {
            devices.give(&placed);
        }
        self.shift(&tokens, |free, amount| free + amount);
        Ok(())
    }

    /// Take what is free of these places.
    fn take_places(&mut self, places: &[(u32, u32)]) -> Result<Placed, Refusal> {
        let Some(all) = &mut self.devices else {
            return Ok(Placed::new());
        };
        let count = all.count();
        if let Some(&(device, _)) = places.iter().find(|place| place.0 >= count) {
            return Err(Refusal::Device { device, count });
        }
        let take = |&(at, amount): &(u32, u32)| (at, all.take_some(at, amount));
        Ok(places.iter().map(take).collect())
    }
}
