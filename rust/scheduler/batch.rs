//! The items that a worker claims at once, and the ledger of positions that are still out.
//!
//! The ledger has one bit for each position of each batch that has not been reported. So a report is checked exactly,
//! even if the same item was given back and claimed again, and no memory is kept for batches that are done.

use std::ops::Range;

use crate::error::InvalidCall;
use crate::graph::{ItemId, NodeId};

use super::devices::Placed;

/// Contiguous items: items of one mapped node, or nodes of one item each that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRange {
    /// The first item.
    pub item: ItemId,
    /// The number of items.
    pub count: u32,
    /// The node, or the first of the nodes.
    pub node: NodeId,
    /// Index of the first item in the mapped node; `None` if these are nodes of one item.
    pub index: Option<u32>,
    /// Position of the first item in the batch.
    pub position: u32,
}

/// The result of one claim: items in the order in which they are to run. Positions count from 0 through all runs.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(super) scheduler: u64,
    slot: u32,
    generation: u32,
    worker: u16,
    /// The class of its items; 0 if they need no tokens.
    pub(super) class: u32,
    /// The devices that it holds.
    pub(super) placed: Option<Box<Placed>>,
    length: u32,
    runs: Vec<ItemRange>,
    /// A bit for each position that is chained to the one before it; empty if none is.
    chained: Vec<u64>,
    heads: u32,
    restless: bool,
}

impl Batch {
    pub(super) fn new(scheduler: u64, worker: u16) -> Self {
        Self {
            scheduler,
            slot: 0,
            generation: 0,
            worker,
            class: 0,
            placed: None,
            length: 0,
            runs: Vec::new(),
            chained: Vec::new(),
            heads: 0,
            restless: false,
        }
    }

    /// Return the worker that claimed it.
    #[must_use]
    pub fn worker(&self) -> u16 {
        self.worker
    }

    /// Return true if it holds tokens of limits.
    #[must_use]
    pub fn limited(&self) -> bool {
        self.class != 0
    }

    /// Return the devices that its items have, in order.
    pub fn devices(&self) -> impl Iterator<Item = u32> + '_ {
        let placed = self.placed.iter().flat_map(|placed| placed.iter());
        placed.map(|(device, _)| *device)
    }

    /// Return the id that distinguishes it from all other batches of its scheduler.
    pub(super) fn key(&self) -> (u32, u32) {
        (self.slot, self.generation)
    }

    /// Return the number of items.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.length
    }

    /// Return true if there are no items, which is never so for a claimed batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Return how many items could run at the same time: all that are not chained to the one before them.
    #[must_use]
    pub fn heads(&self) -> u32 {
        self.heads
    }

    /// Return true if the end of an item may make an item ready that is neither behind it nor behind the batch. This is
    /// unknown, and so false, for a batch in which nothing could have been chained.
    #[must_use]
    pub fn restless(&self) -> bool {
        self.restless
    }

    /// Return true if the item at a position is chained to the one before it.
    #[must_use]
    pub fn is_chained(&self, position: u32) -> bool {
        let word = self.chained.get(position as usize / 64);
        word.is_some_and(|word| word >> (position % 64) & 1 == 1)
    }

    /// Return the first position from `position` on that is not chained; the length if there is none.
    #[must_use]
    pub fn next_head(&self, position: u32) -> u32 {
        let mut positions = position..self.length;
        positions
            .find(|at| !self.is_chained(*at))
            .unwrap_or(self.length)
    }

    /// Return the last position up to `position` that is not chained.
    #[must_use]
    pub fn head_at(&self, position: u32) -> u32 {
        let mut positions = (0..=position).rev();
        positions.find(|at| !self.is_chained(*at)).unwrap_or(0)
    }

    pub(super) fn has_chains(&self) -> bool {
        !self.chained.is_empty()
    }

    /// Record that the last item is chained to the one before it.
    pub(super) fn note_chained(&mut self) {
        let at = self.length - 1;
        self.chained
            .resize(self.chained.len().max(at as usize / 64 + 1), 0);
        self.chained[at as usize / 64] |= 1 << (at % 64);
        self.heads -= 1;
    }

    pub(super) fn note_restless(&mut self) {
        self.restless = true;
    }

    /// Return the runs.
    #[must_use]
    pub fn runs(&self) -> &[ItemRange] {
        &self.runs
    }

    /// Return all items by position.
    pub fn items(&self) -> impl Iterator<Item = ItemId> + '_ {
        self.runs
            .iter()
            .flat_map(|run| (run.item.0..run.item.0 + run.count).map(ItemId))
    }

    /// Return the items from a position on.
    pub fn items_from(&self, position: u32) -> impl Iterator<Item = ItemId> + '_ {
        let count = self.length.saturating_sub(position);
        self.slices(position.min(self.length), count)
            .flat_map(|run| run.items().map(ItemId))
    }

    /// Return the item and its node at a position.
    #[must_use]
    pub fn at(&self, position: u32) -> Option<(ItemId, NodeId)> {
        let run = self
            .slices(position, u32::from(position < self.length))
            .next()?;
        Some((run.item, run.node))
    }

    /// Return the parts of the runs that cover `count` positions from `position`.
    pub fn slices(&self, position: u32, count: u32) -> impl Iterator<Item = ItemRange> + '_ {
        let end = position + count;
        let from = self
            .runs
            .partition_point(|run| run.position + run.count <= position);
        self.runs[from..]
            .iter()
            .take_while(move |run| run.position.max(position) < end)
            .map(move |run| run.cut(position, end))
    }

    pub(super) fn push(&mut self, node: NodeId, item: ItemId, count: u32, index: Option<u32>) {
        let position = self.length;
        self.length += count;
        self.heads += count;
        match self.runs.last_mut() {
            Some(last) if last.goes_on_at(node, item, index) => last.count += count,
            _ => self.runs.push(ItemRange {
                item,
                count,
                node,
                index,
                position,
            }),
        }
    }
}

impl ItemRange {
    fn goes_on_at(&self, node: NodeId, item: ItemId, index: Option<u32>) -> bool {
        let next = match self.index {
            None => index.is_none() && self.node.0 + self.count == node.0,
            Some(_) => index.is_some() && self.node == node,
        };
        next && self.item.0 + self.count == item.0
    }

    /// Return the part between two positions.
    fn cut(&self, position: u32, end: u32) -> Self {
        let skip = position.saturating_sub(self.position);
        self.part(skip, self.count.min(end - self.position) - skip)
    }

    /// Return `count` items after the first `skip`.
    pub(super) fn part(&self, skip: u32, count: u32) -> Self {
        let node = if self.index.is_none() {
            NodeId(self.node.0 + skip)
        } else {
            self.node
        };
        let index = self.index.map(|index| index + skip);
        Self {
            item: ItemId(self.item.0 + skip),
            count,
            node,
            index,
            position: self.position + skip,
        }
    }

    /// Cut a run of nodes of one item each into nodes if `cut` is true; otherwise return it whole.
    pub(super) fn by_node(self, cut: bool) -> impl Iterator<Item = Self> {
        let (parts, length) = if cut && self.index.is_none() {
            (self.count, 1)
        } else {
            (1, self.count)
        };
        (0..parts).map(move |at| self.part(at * length, length))
    }

    /// Return the item ids.
    pub(super) fn items(&self) -> Range<u32> {
        self.item.0..self.item.0 + self.count
    }
}

/// Positions that are out, of batches that are not done.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    slots: Vec<LedgerEntry>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct LedgerEntry {
    /// Counts the batches that used the slot, so that an old batch is recognised.
    generation: u32,
    left: u32,
    out: Vec<u64>,
}

impl Ledger {
    /// Record that all positions of `batch` are out.
    pub(super) fn open(&mut self, batch: &mut Batch) {
        batch.slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(LedgerEntry::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[batch.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.left = batch.length;
        slot.out.clear();
        slot.out
            .resize(batch.length.div_ceil(64) as usize, u64::MAX);
        batch.generation = slot.generation;
    }

    /// Check that all of `count` positions from `position` are out.
    pub(super) fn check(
        &self,
        batch: &Batch,
        position: u32,
        count: u32,
    ) -> Result<(), InvalidCall> {
        let length = batch.length;
        let end = position.checked_add(count).filter(|end| *end <= length);
        let Some(end) = end else {
            return Err(InvalidCall::OutOfBatch {
                position,
                count,
                length,
            });
        };
        let slot = self
            .slots
            .get(batch.slot as usize)
            .filter(|slot| slot.generation == batch.generation);
        let out =
            |at: u32| slot.is_some_and(|slot| slot.out[at as usize / 64] >> (at % 64) & 1 == 1);
        match (position..end).find(|at| !out(*at)) {
            Some(position) => Err(InvalidCall::NotOut { position }),
            None => Ok(()),
        }
    }

    /// Return true if any position of `batch` is out.
    pub(super) fn has(&self, batch: &Batch) -> bool {
        let slot = self.slots.get(batch.slot as usize);
        slot.is_some_and(|slot| slot.generation == batch.generation && slot.left > 0)
    }

    /// Record that positions, which [`Ledger::check`] found to be out, came back; return true if they are the last
    /// ones.
    pub(super) fn close(&mut self, batch: &Batch, position: u32, count: u32) -> bool {
        let slot = &mut self.slots[batch.slot as usize];
        for at in position..position + count {
            slot.out[at as usize / 64] &= !(1 << (at % 64));
        }
        slot.left -= count;
        let last = slot.left == 0 && count > 0;
        if last {
            self.free.push(batch.slot);
        }
        last
    }

    /// Return the number of positions that are out.
    pub(super) fn out(&self) -> u32 {
        self.slots.iter().map(|slot| slot.left).sum()
    }
}
