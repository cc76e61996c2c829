//! Workers in virtual time: the scheduler driven by simulated workers, and two list schedules to set beside it.
//!
//! A worker that takes a node is busy for the node's duration and then reports it. Nothing waits for a real clock, so an
//! hour of work on a thousand workers takes as long as the decisions in it.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use flowyml::graph::{Edges, Graph, NodeId};
use flowyml::scheduler::{Batch, Order, Outcomes, Scheduler};

/// A time that can be put in order; there are no others here.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Time(pub(crate) f64);

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Run a graph on simulated workers that take one node at a time; return when the last one ends.
pub(crate) fn scheduled(graph: &Arc<Graph>, durations: &[f64], workers: u16) -> f64 {
    let mut scheduler = Scheduler::new(Arc::clone(graph), Order::CriticalPath, None).unwrap();
    let mut idle: Vec<u16> = (0..workers).rev().collect();
    let mut running: BinaryHeap<Reverse<(Time, u16)>> = BinaryHeap::new();
    let mut batches: Vec<Option<Batch>> = vec![None; usize::from(workers)];
    let mut now = 0.0;
    while !scheduler.is_finished() {
        while let Some(worker) = idle.pop() {
            let Some(batch) = scheduler.claim(worker, 1, now) else {
                idle.push(worker);
                break;
            };
            let (_, node) = batch.at(0).unwrap();
            running.push(Reverse((Time(now + durations[node.index()]), worker)));
            batches[usize::from(worker)] = Some(batch);
        }
        let Reverse((Time(end), worker)) = running.pop().unwrap();
        now = end;
        let batch = batches[usize::from(worker)].take().unwrap();
        scheduler
            .complete(&batch, 0, 0.0, &[now], Outcomes::Success)
            .unwrap();
        idle.push(worker);
    }
    now
}

/// Which ready node a list schedule takes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum List {
    /// The one that became ready first.
    Fifo,
    /// The one with the longest way to a leaf, by the true durations.
    CriticalPath,
}

/// Return the makespan of a list schedule, done in the plainest way.
pub(crate) fn list_schedule(graph: &Graph, durations: &[f64], workers: u16, list: List) -> f64 {
    let ways = ways(graph, durations);
    // A heap gives the greatest: the longest way, or the least number of those that came before.
    let mut came = 0.0;
    let mut key = |node: NodeId| {
        came -= 1.0;
        let key = if list == List::Fifo {
            came
        } else {
            ways[node.index()]
        };
        (Time(key), Reverse(node.0))
    };
    let mut left: Vec<usize> = graph
        .nodes()
        .map(|node| graph.dependencies(node).count())
        .collect();
    let begin = graph.nodes().filter(|node| left[node.index()] == 0);
    let mut ready: BinaryHeap<_> = begin.map(&mut key).collect();
    let mut running: BinaryHeap<Reverse<(Time, u32)>> = BinaryHeap::new();
    let mut now = 0.0;
    loop {
        while running.len() < usize::from(workers) {
            let Some((_, Reverse(node))) = ready.pop() else {
                break;
            };
            running.push(Reverse((Time(now + durations[node as usize]), node)));
        }
        let Some(Reverse((Time(end), node))) = running.pop() else {
            return now;
        };
        now = end;
        for (dependent, _) in graph.dependents(NodeId(node)) {
            left[dependent.index()] -= 1;
            if left[dependent.index()] == 0 {
                ready.push(key(dependent));
            }
        }
    }
}

/// Return the longest way from each node to a leaf, itself included.
fn ways(graph: &Graph, durations: &[f64]) -> Vec<f64> {
    let mut ways = durations.to_vec();
    for node in graph.order().into_iter().rev() {
        let behind = graph
            .dependents(node)
            .map(|(dependent, _)| ways[dependent.index()])
            .fold(0.0, f64::max);
        ways[node.index()] += behind;
    }
    ways
}

/// Numbers that look drawn and are the same each time.
pub(crate) struct Draw(u64);

impl Draw {
    /// Begin anew.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Return a number of 32 bits.
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// Return a number from 0 up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(self.next()) / (f64::from(u32::MAX) + 1.0)
    }

    /// Return a whole number below a bound.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(bound)) >> 32) as u32
    }
}

/// Draw a graph whose nodes wait for up to `most` of the `reach` nodes before them, and skewed durations: most short,
/// some a hundred times as long.
pub(crate) fn drawn(nodes: u32, most: u32, reach: u32, draw: &mut Draw) -> (Arc<Graph>, Vec<f64>) {
    let mut edges = Edges::default();
    for node in 1..nodes {
        for _ in 0..draw.below(most + 1) {
            let before = node - 1 - draw.below(reach.min(node));
            edges.dependents.push(node);
            edges.dependencies.push(before);
        }
    }
    let durations = (0..nodes)
        .map(|_| 100_f64.powf(draw.unit().powi(2)))
        .collect();
    (
        Arc::new(Graph::build(nodes as usize, None, edges).unwrap()),
        durations,
    )
}
