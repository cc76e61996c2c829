//! A search through all states that a driver and a worker can reach.
//!
//! A load and the compare-and-swap after it are steps of their own, with the transitions of `flowyml::claims` themselves.
//! The driver may at any moment post, take back (to post again, or to have the item run elsewhere), receive a result and
//! look; the worker may die anywhere. A search fails where an item runs twice, where the driver sees or blames wrongly,
//! and where there is no way to the end.

use std::collections::HashMap;

use flowyml::claims::{Ledger, Word, begun, low, stamp};

const ITEMS: usize = 3;

/// How slots are posted: the part in which protocols differ.
#[derive(Clone, Copy)]
pub(crate) struct Protocol {
    pub(crate) post: fn(&Ledger, Word, u32) -> Option<Word>,
    pub(crate) first: fn(&Ledger, Word) -> u64,
    pub(crate) frame_first: bool,
}

/// What may happen in a search.
#[derive(Clone, Copy)]
pub(crate) struct World {
    pub(crate) protocol: Protocol,
    pub(crate) elsewhere: bool,
    pub(crate) death: bool,
}

type Slots = Vec<(u64, u8)>;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Driver {
    Idle,
    Post {
        seen: Word,
        items: Vec<u8>,
        sent: bool,
    },
    Send {
        slots: Slots,
    },
    TakeBack {
        seen: Word,
        keep: u32,
    },
    SawWord {
        word: Word,
    },
    SawTime {
        word: Word,
        time: u64,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Worker {
    Idle,
    Saw { slot: u64, item: u8, word: Word },
    Stamped { slot: u64, item: u8, word: Word },
    Running { slot: u64, item: u8 },
    Ran { slot: u64, item: u8 },
    Dead { guilty: Option<u8> },
    Settled,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    word: Word,
    time: u64,
    ledger: Ledger,
    driver: Driver,
    worker: Worker,
    /// Items that the driver has to place.
    pending: Vec<u8>,
    /// Slots posted, not taken back, result not received.
    posted: Slots,
    /// Frames sent and not worked through.
    frame: Slots,
    /// Results sent and not received.
    results: Vec<u64>,
    /// The slot claimed last in truth.
    claimed: Option<u64>,
    runs: [u8; ITEMS],
    settled: [u8; ITEMS],
    take_backs_left: u8,
}

type Found = Result<Vec<State>, String>;

impl State {
    fn start() -> Self {
        Self {
            word: Word::default(),
            time: 0,
            ledger: Ledger::default(),
            driver: Driver::Idle,
            worker: Worker::Idle,
            pending: (0..3).collect(),
            posted: vec![],
            frame: vec![],
            results: vec![],
            claimed: None,
            runs: [0; ITEMS],
            settled: [0; ITEMS],
            take_backs_left: 2,
        }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    fn is_over(&self) -> bool {
        let at_rest = match self.worker {
            Worker::Idle => self.frame.is_empty(),
            Worker::Settled => true,
            _ => false,
        };
        self.settled == [1; ITEMS] && at_rest
    }

    fn successors(&self, world: World) -> Found {
        let mut next = self.driver_steps(world)?;
        next.extend(self.worker_steps());
        if world.death && !matches!(self.worker, Worker::Dead { .. } | Worker::Settled) {
            next.push(self.die());
        }
        Ok(next)
    }

    fn driver_steps(&self, world: World) -> Found {
        match &self.driver {
            Driver::Idle => self.idle_driver_steps(world),
            Driver::Post { seen, items, sent } => {
                Ok(vec![self.swap_post(world, *seen, items, *sent)])
            }
            Driver::Send { slots } => Ok(vec![self.with(|s| {
                s.frame.extend(slots);
                s.driver = Driver::Idle;
            })]),
            Driver::TakeBack { seen, keep } => self.swap_take_back(*seen, *keep),
            Driver::SawWord { word } => Ok(vec![self.with(|s| {
                s.driver = Driver::SawTime {
                    word: *word,
                    time: s.time,
                }
            })]),
            Driver::SawTime { word, time } => self.compare_view(*word, *time),
        }
    }

    fn idle_driver_steps(&self, world: World) -> Found {
        match self.worker {
            Worker::Dead { guilty } => return self.settle(guilty).map(|state| vec![state]),
            Worker::Settled if self.pending.is_empty() => return Ok(vec![]),
            Worker::Settled => return Ok(vec![self.with(Self::run_elsewhere)]),
            _ => {}
        }
        let mut next = vec![];
        for count in 1..=self.pending.len().min(2) {
            next.push(self.begin_post(world, count));
        }
        if self.take_backs_left > 0 {
            next.extend(
                [0, 1]
                    .map(|keep| self.with(|s| s.driver = Driver::TakeBack { seen: s.word, keep })),
            );
        }
        if !self.results.is_empty() {
            next.push(self.with(Self::receive));
        }
        if world.elsewhere && !self.pending.is_empty() {
            next.push(self.with(Self::run_elsewhere));
        }
        next.push(self.with(|s| s.driver = Driver::SawWord { word: s.word }));
        Ok(next)
    }

    fn begin_post(&self, world: World, count: usize) -> Self {
        self.with(|s| {
            let items: Vec<u8> = s.pending.drain(..count).collect();
            let sent = world.protocol.frame_first;
            if sent {
                s.frame
                    .extend((s.ledger.high()..).zip(items.iter().copied()));
            }
            s.driver = Driver::Post {
                seen: s.word,
                items,
                sent,
            };
        })
    }

    /// The swap of a post: gives the items back if the protocol declines, looks again if the word has changed.
    fn swap_post(&self, world: World, seen: Word, items: &[u8], sent: bool) -> Self {
        let count = u32::try_from(items.len()).unwrap();
        self.with(|s| match (world.protocol.post)(&s.ledger, seen, count) {
            None if !sent => {
                s.pending.splice(0..0, items.iter().copied());
                s.driver = Driver::Idle;
            }
            Some(new) if s.word == seen => {
                let first = (world.protocol.first)(&s.ledger, seen);
                s.word = new;
                s.ledger.note_post(seen, new, count);
                let slots: Slots = (first..).zip(items.iter().copied()).collect();
                s.posted.extend(&slots);
                s.driver = if sent {
                    Driver::Idle
                } else {
                    Driver::Send { slots }
                };
            }
            _ => {
                s.driver = Driver::Post {
                    seen: s.word,
                    items: items.to_vec(),
                    sent,
                }
            }
        })
    }

    fn swap_take_back(&self, seen: Word, keep: u32) -> Found {
        let Some(new) = seen.taken_back(keep) else {
            return Ok(vec![self.with(|s| s.driver = Driver::Idle)]);
        };
        if seen != self.word {
            return Ok(vec![
                self.with(|s| s.driver = Driver::TakeBack { seen: s.word, keep }),
            ]);
        }
        let back = self.ledger.widen(new.end)..self.ledger.widen(seen.end);
        let mut next = self.clone();
        for slot in back {
            let place = next.posted.iter().position(|&(other, _)| other == slot);
            let (_, item) = next
                .posted
                .remove(place.ok_or(format!("slot {slot} was not posted"))?);
            next.pending.push(item);
        }
        next.word = new;
        next.take_backs_left -= 1;
        next.driver = Driver::Idle;
        Ok(vec![next])
    }

    /// The second look at the word: what the driver concludes must be true at this moment.
    fn compare_view(&self, word: Word, time: u64) -> Found {
        if word != self.word {
            return Ok(vec![
                self.with(|s| s.driver = Driver::SawWord { word: s.word }),
            ]);
        }
        let view = begun(&self.ledger, word, time);
        let running = matches!(self.worker, Worker::Running { .. } | Worker::Ran { .. });
        let right_time = match view.time {
            Some(time) => self
                .claimed
                .is_some_and(|slot| time.to_bits() == time_of(slot).to_bits()),
            None => !running,
        };
        if view.last != self.claimed || !right_time {
            return Err(format!("the driver sees {view:?} in {self:?}"));
        }
        Ok(vec![self.with(|s| s.driver = Driver::Idle)])
    }

    fn receive(&mut self) {
        let slot = self.results.remove(0);
        if let Some(place) = self.posted.iter().position(|&(other, _)| other == slot) {
            let (_, item) = self.posted.remove(place);
            self.settled[usize::from(item)] += 1;
        }
    }

    fn run_elsewhere(&mut self) {
        let item = usize::from(self.pending.remove(0));
        self.runs[item] += 1;
        self.settled[item] += 1;
    }

    fn worker_steps(&self) -> Vec<Self> {
        let step = |worker| self.with(|s| s.worker = worker);
        match self.worker {
            Worker::Idle => self.frame.first().map_or(vec![], |&(slot, item)| {
                vec![step(Worker::Saw {
                    slot,
                    item,
                    word: self.word,
                })]
            }),
            Worker::Saw { slot, item, word } => vec![self.with(|s| {
                if word.taken(low(slot)).is_none() {
                    s.skip();
                } else {
                    s.time = stamp(low(slot), time_of(slot));
                    s.worker = Worker::Stamped { slot, item, word };
                }
            })],
            Worker::Stamped { slot, item, word } => {
                vec![self.with(|s| s.swap_take(slot, item, word))]
            }
            Worker::Running { slot, item } => vec![self.with(|s| {
                s.runs[usize::from(item)] += 1;
                s.worker = Worker::Ran { slot, item };
            })],
            Worker::Ran { slot, .. } => vec![self.with(|s| {
                s.results.push(slot);
                s.worker = Worker::Idle;
            })],
            Worker::Dead { .. } | Worker::Settled => vec![],
        }
    }

    fn skip(&mut self) {
        self.frame.remove(0);
        self.worker = Worker::Idle;
    }

    fn swap_take(&mut self, slot: u64, item: u8, seen: Word) {
        match seen.taken(low(slot)) {
            None => self.skip(),
            Some(_) if self.word != seen => {
                self.worker = Worker::Stamped {
                    slot,
                    item,
                    word: self.word,
                };
            }
            Some(new) => {
                self.word = new;
                self.claimed = Some(slot);
                self.frame.remove(0);
                self.worker = Worker::Running { slot, item };
            }
        }
    }

    fn die(&self) -> Self {
        let guilty = match self.worker {
            Worker::Running { item, .. } | Worker::Ran { item, .. } => Some(item),
            _ => None,
        };
        self.with(|s| {
            s.worker = Worker::Dead { guilty };
            s.frame.clear();
        })
    }

    /// What the driver does after a death: drain the results, blame, place the rest anew.
    fn settle(&self, guilty: Option<u8>) -> Result<Self, String> {
        let mut next = self.clone();
        while !next.results.is_empty() {
            next.receive();
        }
        let last = next.ledger.last_claimed(next.word);
        let blamed = next.posted.iter().position(|&(slot, _)| Some(slot) == last);
        let blamed = blamed.map(|place| next.posted.remove(place).1);
        let begun = next.ledger.widen(next.word.next);
        if blamed != guilty || next.posted.iter().any(|&(slot, _)| slot < begun) {
            return Err(format!("blamed {blamed:?} for {guilty:?} in {self:?}"));
        }
        if let Some(item) = blamed {
            next.settled[usize::from(item)] += 1;
        }
        next.pending
            .extend(next.posted.drain(..).map(|(_, item)| item));
        next.worker = Worker::Settled;
        Ok(next)
    }

    fn check(&self) -> Result<(), String> {
        if self
            .runs
            .iter()
            .chain(&self.settled)
            .any(|&times| times > 1)
        {
            return Err(format!("an item ran or was settled twice: {self:?}"));
        }
        Ok(())
    }
}

/// The worker's clock, distinct for each slot.
#[expect(clippy::cast_precision_loss, reason = "a handful of slots")]
fn time_of(slot: u64) -> f64 {
    1000.0 + slot as f64
}

/// Searches all states; returns how many there are, or what is wrong in one of them.
pub(crate) fn explore(world: World) -> Result<usize, String> {
    let mut ids = HashMap::from([(State::start(), 0)]);
    let mut todo = vec![State::start()];
    let mut before: Vec<Vec<usize>> = vec![vec![]];
    let mut finals = vec![];
    while let Some(state) = todo.pop() {
        state.check()?;
        let id = ids[&state];
        if state.is_over() {
            finals.push(id);
        }
        for next in state.successors(world)? {
            let next_id = *ids.entry(next.clone()).or_insert_with(|| {
                before.push(vec![]);
                todo.push(next);
                before.len() - 1
            });
            before[next_id].push(id);
        }
    }
    let hopeless = before.len() - reaching(&before, finals);
    if hopeless > 0 {
        return Err(format!("no way to the end from {hopeless} states"));
    }
    Ok(before.len())
}

/// How many states have a way to one of `finals`.
fn reaching(before: &[Vec<usize>], finals: Vec<usize>) -> usize {
    let mut seen = vec![false; before.len()];
    let mut todo = finals;
    while let Some(id) = todo.pop() {
        if !std::mem::replace(&mut seen[id], true) {
            todo.extend(&before[id]);
        }
    }
    seen.iter().filter(|&&reached| reached).count()
}
