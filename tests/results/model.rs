//! A search through all states that a driver and a worker can reach, on a machine that is slow to show what was written.
//!
//! Each store goes into the writer's own buffer first and arrives in memory later, in order: that is what real processors
//! do, and what a fence waits for. A claim (a compare-and-swap) and a wake-up (a system call, which carries all that was
//! written before) wait for it, too. The order of loads and stores is that of `ResultRing::put`, `must_wake` and `want`. The
//! driver may be woken once by something else; the worker may die anywhere, which wakes the driver, too.

use std::collections::HashSet;

use flowyml::result_ring::WakeMode;

/// The parts in which protocols differ.
#[derive(Clone, Copy)]
pub(crate) struct Protocol {
    /// Both sides wait for their stores to arrive before they look at the other's word.
    pub(crate) fences: bool,
    /// The record is written before it is committed.
    pub(crate) commit_last: bool,
    /// The driver says that it will sleep before it looks for the last time.
    pub(crate) look_after_saying: bool,
}

const RESULTS: u8 = 3;

/// Words of memory: `written`, `wanted`, and one for each record.
const WRITTEN: usize = 0;
const WANTED: usize = 1;
const RECORDS: usize = 2;
const WORDS: usize = RECORDS + RESULTS as usize;

type Buffer = Vec<(usize, u8)>;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Worker {
    /// About to claim result k.
    Claim(u8),
    First(u8),
    Second(u8),
    /// Looks at `wanted`, behind result k; after the last one once more, because nothing is left to do.
    Look(u8, bool),
    /// Is about to wake the driver.
    Wake(u8, bool),
    Done,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Driver {
    /// About to say that it will sleep.
    Say,
    /// Has said so; about to look.
    Look,
    Asleep,
    Awake,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    memory: [u8; WORDS],
    workers: Buffer,
    drivers: Buffer,
    worker: Worker,
    driver: Driver,
    claimed: u8,
    taken: u8,
    tokens: u8,
    /// Something else may still wake the driver.
    other: bool,
    death_seen: bool,
}

/// Walk through all states; return how many there are.
pub(crate) fn explore(protocol: Protocol, wanted: WakeMode, death: bool) -> Result<usize, String> {
    let start = State {
        memory: [0; WORDS],
        workers: vec![],
        drivers: vec![],
        worker: Worker::Claim(0),
        driver: Driver::Say,
        claimed: 0,
        taken: 0,
        tokens: 0,
        other: true,
        death_seen: false,
    };
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(state) = open.pop() {
        let next = state.successors(protocol, wanted, death)?;
        if next.is_empty() && !state.is_over() {
            return Err(format!("the driver sleeps beside a result: {state:?}"));
        }
        open.extend(next.into_iter().filter(|next| seen.insert(next.clone())));
    }
    Ok(seen.len())
}

impl State {
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    fn is_over(&self) -> bool {
        self.death_seen || self.taken == RESULTS
    }

    /// A side sees what it has written itself before it arrives.
    fn load(&self, buffer: &Buffer, word: usize) -> u8 {
        let own = buffer.iter().rev().find(|(place, _)| *place == word);
        own.map_or(self.memory[word], |(_, value)| *value)
    }

    fn successors(
        &self,
        protocol: Protocol,
        wanted: WakeMode,
        death: bool,
    ) -> Result<Vec<Self>, String> {
        let mut next = vec![];
        if !self.workers.is_empty() {
            next.push(self.with(|s| {
                let (word, value) = s.workers.remove(0);
                s.memory[word] = value;
            }));
        }
        if !self.drivers.is_empty() {
            next.push(self.with(|s| {
                let (word, value) = s.drivers.remove(0);
                s.memory[word] = value;
            }));
        }
        next.extend(self.worker_step(protocol));
        next.extend(self.driver_steps(protocol, wanted)?);
        if death && !matches!(self.worker, Worker::Dead | Worker::Done) {
            next.push(self.with(|s| s.worker = Worker::Dead));
        }
        Ok(next)
    }

    fn worker_step(&self, protocol: Protocol) -> Option<Self> {
        let arrived = self.workers.is_empty();
        let record = |s: &mut Self, k: u8| s.workers.push((RECORDS + usize::from(k), k + 1));
        let commit = |s: &mut Self, k: u8| s.workers.push((WRITTEN, k + 1));
        match self.worker {
            Worker::Claim(k) if arrived => Some(self.with(|s| {
                s.claimed = k + 1;
                s.worker = Worker::First(k);
            })),
            Worker::First(k) => Some(self.with(|s| {
                if protocol.commit_last {
                    record(s, k);
                } else {
                    commit(s, k);
                }
                s.worker = Worker::Second(k);
            })),
            Worker::Second(k) => Some(self.with(|s| {
                if protocol.commit_last {
                    commit(s, k);
                } else {
                    record(s, k);
                }
                s.worker = Worker::Look(k, false);
            })),
            Worker::Look(k, at_end) if arrived || !protocol.fences => Some(self.with(|s| {
                let wanted = s.load(&s.workers, WANTED);
                let due =
                    wanted == WakeMode::Each as u8 || at_end && wanted == WakeMode::TheEnd as u8;
                if due {
                    s.workers.push((WANTED, WakeMode::Nothing as u8));
                    s.worker = Worker::Wake(k, at_end);
                } else {
                    s.go_on(k, at_end);
                }
            })),
            Worker::Wake(k, at_end) if arrived => Some(self.with(|s| {
                s.tokens += 1;
                s.go_on(k, at_end);
            })),
            _ => None,
        }
    }

    fn go_on(&mut self, k: u8, at_end: bool) {
        self.worker = match (k + 1 == RESULTS, at_end) {
            (true, true) => Worker::Done,
            (true, false) => Worker::Look(k, true),
            (false, _) => Worker::Claim(k + 1),
        };
    }

    fn driver_steps(&self, protocol: Protocol, wanted: WakeMode) -> Result<Vec<Self>, String> {
        let dead = self.worker == Worker::Dead && self.workers.is_empty();
        Ok(match self.driver {
            _ if self.is_over() => vec![],
            Driver::Say if !protocol.look_after_saying => {
                vec![self.take(Driver::Asleep)?.with(|s| {
                    s.drivers.push((WANTED, wanted as u8));
                })]
            }
            Driver::Say => vec![self.with(|s| {
                s.drivers.push((WANTED, wanted as u8));
                s.driver = Driver::Look;
            })],
            Driver::Look if self.drivers.is_empty() || !protocol.fences => {
                vec![self.take(Driver::Asleep)?]
            }
            Driver::Look => vec![],
            Driver::Asleep if dead => vec![self.settle()?],
            Driver::Asleep => {
                let woken = |own: bool| {
                    self.with(|s| {
                        if own {
                            s.tokens -= 1;
                        } else {
                            s.other = false;
                        }
                        s.drivers.push((WANTED, WakeMode::Nothing as u8));
                        s.driver = Driver::Awake;
                    })
                };
                let mut next = vec![];
                if self.tokens > 0 {
                    next.push(woken(true));
                }
                if self.other {
                    next.push(woken(false));
                }
                next
            }
            Driver::Awake => vec![self.take(Driver::Say)?],
        })
    }

    /// Take what is committed; sleep only if that was nothing, or if it is the end that is waited for.
    fn take(&self, then: Driver) -> Result<Self, String> {
        let written = self.load(&self.drivers, WRITTEN);
        for k in self.taken..written {
            if self.memory[RECORDS + usize::from(k)] != k + 1 {
                return Err(format!("result {k} is torn in {self:?}"));
            }
        }
        Ok(self.with(|s| {
            s.taken = written;
            s.driver = then;
        }))
    }

    /// What the driver does after a death: take what is committed; one claimed step at most has no result, the last one.
    fn settle(&self) -> Result<Self, String> {
        let settled = self.take(Driver::Asleep)?;
        if settled.claimed - settled.taken > 1 {
            return Err(format!("more than one step is lost: {settled:?}"));
        }
        Ok(settled.with(|s| s.death_seen = true))
    }
}
