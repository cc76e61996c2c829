//! Tokens of limits, and the queues of ready nodes that need them.
//!
//! ```text
//!                        claim: needs of the class ──▶ taken
//!   lane (open) ──head──▶                                │
//!        ▲                                               │  the last item of the batch is reported
//!        └── enough is free again ◀── tokens back ◀──────┘  (or later: keep_tokens, return_tokens)
//! ```
//!
//! The ready nodes of a class are stored in its *lane*, which is open if enough tokens of every limit that the class
//! needs are free. Ready nodes in a closed lane are *parked*: they keep their position in the order but cannot be
//! claimed.
//!
//! Nodes of class 0 are stored in the ready queue itself, except those that were grafted, which have no rank: they have
//! a lane that is always open. A run without limits and grafts has none of this.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::InvalidCall;
use crate::graph::NodeId;

use super::devices::{Choice, Devices, Placed};
use super::invariants::ensure;
use super::limits::Limits;

/// Lanes and tokens.
#[derive(Debug, Default)]
pub(super) struct TokenQueues {
    /// The class of each node.
    demands: Vec<u32>,
    all: Vec<TokenQueue>,
    totals: Vec<u32>,
    /// The free tokens of each limit.
    free: Vec<u32>,
    /// The classes, by their needs.
    classes: BTreeMap<Vec<(u32, u32)>, u32>,
    /// For each limit the lanes that need it.
    users: Vec<Vec<u32>>,
    /// The most urgent key of each open lane that is not empty.
    heads: BTreeSet<(u64, u32)>,
    /// Ready items behind closed lanes.
    pub(super) parked: u32,
    /// Batches whose tokens stay out when their items have ended.
    pub(super) kept: BTreeSet<(u32, u32)>,
    /// The limit whose tokens belong to devices.
    pub(super) devices: Option<Devices>,
    /// What may be claimed; `None`: anything.
    pub(super) choice: Option<Choice>,
}

/// The ready nodes of a class.
#[derive(Debug, Default)]
pub(super) struct TokenQueue {
    pub(super) needs: Vec<(u32, u32)>,
    /// Keys of nodes with ready items; the lower half is the node.
    queue: BTreeSet<u64>,
    /// Their ready items.
    ready: u32,
    /// Enough tokens are free.
    open: bool,
    /// Batches that hold tokens that it needs.
    holders: u32,
    /// The tokens of devices that it needs.
    on_devices: u32,
}

impl TokenQueues {
    /// Return the lane of class 0 alone, with `nodes` nodes of that class.
    pub(super) fn new(nodes: u32) -> Self {
        let mut lanes = Self {
            demands: vec![0; nodes as usize],
            ..Self::default()
        };
        lanes.add(TokenQueue::new(Vec::new()));
        lanes
    }

    /// Add limits, their lanes, and the classes of `count` nodes from `first` on.
    pub(super) fn extend(
        &mut self,
        limits: &Limits,
        first: NodeId,
        count: usize,
    ) -> Result<(), InvalidCall> {
        let totals = [&self.totals[..], &limits.totals].concat();
        let needs = limits.needs(&totals)?;
        limits.check(&needs, &totals, first, count)?;
        let devices = limits.devices(&totals, self.devices.is_some())?;
        self.devices = self.devices.take().or(devices);
        self.users.resize(totals.len(), Vec::new());
        self.free.extend(&limits.totals);
        self.totals = totals;
        let classes: Vec<u32> = needs.into_iter().map(|needs| self.intern(needs)).collect();
        self.demands.resize(first.index() + count, 0);
        let demands = limits.demands.iter().flatten();
        for (to, class) in self.demands[first.index()..].iter_mut().zip(demands) {
            *to = classes[*class as usize];
        }
        Ok(())
    }

    /// Return the class with these needs: one for equal needs, whenever they were added, since each report of a batch
    /// visits all classes that need tokens of the same limits.
    fn intern(&mut self, needs: Vec<(u32, u32)>) -> u32 {
        if needs.is_empty() {
            return 0;
        }
        if let Some(class) = self.classes.get(&needs) {
            return *class;
        }
        let class = self.add(TokenQueue::new(needs.clone()));
        self.classes.insert(needs, class);
        class
    }

    fn add(&mut self, mut lane: TokenQueue) -> u32 {
        let id = self.all.len() as u32;
        for &(limit, _) in &lane.needs {
            self.users[limit as usize].push(id);
        }
        lane.open = lane.needs.iter().all(|need| self.is_free(*need));
        let divided = |need: &&(u32, u32)| self.of_devices(need.0).is_some();
        lane.on_devices = lane.needs.iter().find(divided).map_or(0, |need| need.1);
        self.all.push(lane);
        id
    }

    /// Return the devices, if they belong to this limit.
    fn of_devices(&self, limit: u32) -> Option<&Devices> {
        self.devices.as_ref().filter(|all| all.limit == limit)
    }

    fn is_free(&self, need: (u32, u32)) -> bool {
        need.1 <= self.free[need.0 as usize] && (self.devices.is_none() || self.has_place(need))
    }

    /// Return true if no devices are needed, or enough of their tokens are free.
    #[cold]
    fn has_place(&self, need: (u32, u32)) -> bool {
        self.of_devices(need.0)
            .is_none_or(|all| all.place(need.1).is_some())
    }

    /// Return the class of a node.
    pub(super) fn class(&self, node: NodeId) -> u32 {
        self.demands[node.index()]
    }

    /// Return the most urgent key that can be claimed from a lane, and the class.
    pub(super) fn first(&self) -> Option<(u64, u32)> {
        if let Some(choice) = &self.choice {
            return self.first_of(choice);
        }
        self.heads.first().copied()
    }

    #[cold]
    fn first_of(&self, choice: &Choice) -> Option<(u64, u32)> {
        let fits = |head: &&(u64, u32)| self.fits(head.1, choice);
        self.heads.iter().find(fits).copied()
    }

    /// Return true if nodes of class 0 may be claimed.
    pub(super) fn gives_plain(&self) -> bool {
        self.choice.as_ref().is_none_or(|choice| choice.amount == 0)
    }

    /// Return true if the need of an open lane for devices matches the choice.
    fn fits(&self, class: u32, choice: &Choice) -> bool {
        let amount = self.all[class as usize].on_devices;
        amount == choice.amount && (amount == 0 || self.place(class).is_some())
    }

    /// Return the devices on which a class gets its tokens; `None` if it needs none, or they are not free now.
    fn place(&self, class: u32) -> Option<Placed> {
        let (devices, amount) = (self.devices.as_ref()?, self.all[class as usize].on_devices);
        match &self.choice {
            _ if amount == 0 => None,
            None => devices.place(amount),
            Some(choice) => devices.place_on(amount, &choice.devices),
        }
    }

    /// Return for each open lane that is not empty the most urgent key, its need for devices, and its ready items.
    pub(super) fn open(&self) -> impl Iterator<Item = (u64, u32, u32)> + '_ {
        self.heads.iter().map(|&(key, class)| {
            let lane = &self.all[class as usize];
            (key, lane.on_devices, lane.ready)
        })
    }

    /// Put the node of a key into a lane, unless it is there.
    pub(super) fn insert(&mut self, class: u32, key: u64) {
        self.with_queue(class, |queue| queue.insert(key));
    }

    /// Remove the node of a key from a lane.
    pub(super) fn remove(&mut self, class: u32, key: u64) {
        self.with_queue(class, |queue| queue.remove(&key));
    }

    /// Return true if the node of a key is in a lane.
    pub(super) fn contains(&self, class: u32, key: u64) -> bool {
        self.all[class as usize].queue.contains(&key)
    }

    /// Change the queue of a lane, and update its head.
    fn with_queue(&mut self, class: u32, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let lane = &mut self.all[class as usize];
        let before = lane.queue.first().copied();
        change(&mut lane.queue);
        let after = lane.queue.first().copied();
        if lane.open && before != after {
            before.map(|key| self.heads.remove(&(key, class)));
            after.map(|key| self.heads.insert((key, class)));
        }
    }

    /// Record that items became ready, or are no longer ready.
    pub(super) fn count(&mut self, class: u32, more: u32, fewer: u32) {
        let lane = &mut self.all[class as usize];
        lane.ready = lane.ready + more - fewer;
        if !lane.open {
            self.parked = self.parked + more - fewer;
        }
    }

    /// Take the tokens that a class needs; return the devices. Its lane is open.
    #[inline]
    pub(super) fn take(&mut self, class: u32) -> Option<Box<Placed>> {
        let placed = self.devices.is_some().then(|| self.take_devices(class));
        self.hold(class);
        placed.flatten()
    }

    /// Take the tokens that a class needs, except those of devices.
    #[inline]
    fn hold(&mut self, class: u32) {
        self.all[class as usize].holders += 1;
        self.each_need(class, |free, amount| free - amount);
    }

    #[cold]
    fn take_devices(&mut self, class: u32) -> Option<Box<Placed>> {
        let placed = self.place(class)?;
        if let Some(devices) = &mut self.devices {
            devices.take(&placed);
        }
        Some(Box::new(placed))
    }

    /// Return the tokens that a class needs, on the devices where they were taken.
    #[inline]
    pub(super) fn give(&mut self, class: u32, placed: Option<&Placed>) {
        if let (Some(devices), Some(placed)) = (&mut self.devices, placed) {
            devices.give(placed);
        }
        self.all[class as usize].holders -= 1;
        self.each_need(class, |free, amount| free + amount);
    }

    /// Change the free tokens of each limit that a class needs, and open or close lanes. O(lanes that need the same
    /// limits).
    fn each_need(&mut self, class: u32, change: impl Fn(u32, u32) -> u32) {
        for at in 0..self.all[class as usize].needs.len() {
            let (limit, amount) = self.all[class as usize].needs[at];
            let free = &mut self.free[limit as usize];
            *free = change(*free, amount);
        }
        for at in 0..self.all[class as usize].needs.len() {
            let limit = self.all[class as usize].needs[at].0;
            for user in 0..self.users[limit as usize].len() {
                self.open_or_close(self.users[limit as usize][user]);
            }
        }
    }

    fn open_or_close(&mut self, class: u32) {
        let lane = &self.all[class as usize];
        let open = lane.needs.iter().all(|need| self.is_free(*need));
        let head = lane.queue.first().map(|key| (*key, class));
        if open == lane.open {
            return;
        }
        if open {
            self.parked -= lane.ready;
            self.heads.extend(head);
        } else {
            self.parked += lane.ready;
            head.map(|head| self.heads.remove(&head));
        }
        self.all[class as usize].open = open;
    }
}

impl TokenQueues {
    /// Compare tokens, lanes and their heads with each other, and with the number of ready items of each class.
    pub(super) fn check(&self, ready: impl Fn(u32) -> u32) -> Result<(), String> {
        let mut free = self.totals.clone();
        let holds = self.all.iter().flat_map(|lane| {
            let holds = |need: &(u32, u32)| (need.0, lane.holders * need.1);
            lane.needs.iter().map(holds)
        });
        for (limit, held) in holds {
            let free = &mut free[limit as usize];
            *free = free
                .checked_sub(held)
                .ok_or_else(|| format!("limit {limit} is exceeded"))?;
        }
        ensure(free == self.free, || {
            format!("{free:?} tokens are free, not {:?}", self.free)
        })?;
        if let Some(devices) = &self.devices {
            devices.check(&self.free)?;
        }
        let (mut parked, mut heads) = (0, BTreeSet::new());
        for (class, lane) in (0..).zip(&self.all) {
            let open = lane.needs.iter().all(|need| self.is_free(*need));
            ensure(open == lane.open, || {
                format!("lane {class} is open: {open}")
            })?;
            ensure(ready(class) == lane.ready, || {
                format!("lane {class} has {} ready items", ready(class))
            })?;
            if open {
                heads.extend(lane.queue.first().map(|key| (*key, class)));
            } else {
                parked += lane.ready;
            }
        }
        ensure(heads == self.heads, || format!("the heads are {heads:?}"))?;
        ensure(parked == self.parked, || {
            format!("{parked} items are parked")
        })
    }
}

impl TokenQueue {
    fn new(needs: Vec<(u32, u32)>) -> Self {
        Self {
            needs,
            ..Self::default()
        }
    }
}

/// Return each limit once, in order, with the sum of its needs.
pub(super) fn sum(needs: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut sums = BTreeMap::<u32, u32>::new();
    for &(limit, amount) in needs {
        let sum = sums.entry(limit).or_default();
        *sum = sum.saturating_add(amount);
    }
    sums.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(totals: &[u32], classes: &[&[(u32, u32)]]) -> Limits {
        Limits {
            totals: totals.to_vec(),
            demands: Some((0..classes.len() as u32).collect()),
            classes: classes.iter().map(|needs| needs.to_vec()).collect(),
            divided: None,
        }
    }

    #[test]
    fn equal_needs_are_one_class_whenever_they_come() {
        let mut lanes = TokenQueues::new(0);
        let first = limits(
            &[3, 3],
            &[&[], &[(0, 1)], &[(1, 1), (0, 1)], &[(0, 1), (1, 1)], &[]],
        );
        let more = limits(
            &[],
            &[&[], &[(1, 1)], &[(0, 1)], &[(0, 2)], &[(0, 1), (0, 1)]],
        );
        for at in 0..1000 {
            let limits = if at == 0 { &first } else { &more };
            assert_eq!(lanes.extend(limits, NodeId(5 * at), 5), Ok(()));
        }
        assert_eq!(lanes.demands[..10], [0, 1, 2, 2, 0, 0, 3, 1, 4, 4]);
        assert_eq!((lanes.all.len(), lanes.users[0].len()), (5, 3));
    }
}
