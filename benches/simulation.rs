//! The scheduler beyond this machine, in virtual time: `cargo bench --bench simulation`.
//!
//! Two questions. *How good is the order?* Drawn graphs with skewed durations on 2 to 64 simulated workers: how long the
//! last one takes beside a critical-path list schedule that knows all durations, and beside first come, first served.
//! *When is the driver the bottleneck?* A mapped node of 100 million items on 64 to 1,024 simulated workers, in batches of
//! 1 to 1,000: decisions a second of the core alone, and at which length of a step it can just keep all workers busy.

#![expect(clippy::unwrap_used, reason = "a bench has no one to report to")]

#[path = "../tests/simulated/mod.rs"]
#[allow(dead_code, reason = "shared with tests/priority.rs")]
mod simulated;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Instant;

use flowyml::graph::{Edges, Graph};
use flowyml::scheduler::{Batch, Order, Outcomes, Scheduler};
use simulated::{Draw, List, Time, drawn, list_schedule, scheduled};

const ITEMS: u32 = 100_000_000;
/// Items that are run for one figure: so many that it takes a second or so.
const MEASURED: u32 = 3_000_000;

fn main() {
    order();
    throughput();
}

fn order() {
    println!(
        "order: makespan beside a list schedule, 40 drawn graphs of 2,000 nodes: mean (worst)"
    );
    println!(
        "{:>9}{:>26}{:>26}{:>26}",
        "workers", "unit weights / crit. path", "measured / crit. path", "unit weights / FIFO"
    );
    for workers in [2, 4, 8, 16, 32, 64] {
        let (mut unit, mut measured, mut fifo) = (Vec::new(), Vec::new(), Vec::new());
        for seed in 0..40 {
            let (graph, durations) = drawn(2000, 3, 60, &mut Draw::new(seed));
            let ours = scheduled(&graph, &durations, workers);
            let best = list_schedule(&graph, &durations, workers, List::CriticalPath);
            let known = Arc::new(graph.weighted(&durations));
            unit.push(ours / best);
            measured.push(scheduled(&known, &durations, workers) / best);
            fifo.push(ours / list_schedule(&graph, &durations, workers, List::Fifo));
        }
        println!(
            "{workers:>9}{:>26}{:>26}{:>26}",
            told(&unit),
            told(&measured),
            told(&fifo)
        );
    }
}

fn told(ratios: &[f64]) -> String {
    let mean = ratios.iter().sum::<f64>() / f64::from(ratios.len() as u32);
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    format!("{mean:.3} ({worst:.3})")
}

fn throughput() {
    println!(
        "\nthroughput: one mapped node of {ITEMS} items; claims and reports of the core alone"
    );
    println!(
        "{:>9}{:>9}{:>16}{:>16}{:>24}",
        "workers", "batch", "decisions/s", "items/s", "all busy from, us per step"
    );
    for workers in [64, 256, 1024] {
        for batch in [1, 10, 100, 1000] {
            let graph = Arc::new(Graph::build(1, Some(&[ITEMS]), Edges::default()).unwrap());
            let scheduler = Scheduler::new(graph, Order::CriticalPath, None).unwrap();
            let seconds = drive(scheduler, workers, batch);
            let items = f64::from(MEASURED) / seconds;
            let busy = f64::from(workers) / items * 1e6;
            println!(
                "{workers:>9}{batch:>9}{:>16.0}{items:>16.0}{busy:>24.1}",
                items / f64::from(batch)
            );
        }
    }
}

/// Let workers take and report batches until enough was run; return the real seconds of the scheduler's calls and the
/// heap that stands for the workers' clocks.
fn drive(mut scheduler: Scheduler, workers: u16, size: u32) -> f64 {
    let ends = vec![1.0; size as usize];
    let mut running: BinaryHeap<Reverse<(Time, u16)>> = BinaryHeap::new();
    let mut batches: Vec<Option<Batch>> = vec![None; usize::from(workers)];
    let mut draw = Draw::new(7);
    let begun = Instant::now();
    for worker in 0..workers {
        batches[usize::from(worker)] = scheduler.claim(worker, size, 0.0);
        running.push(Reverse((Time(draw.unit()), worker)));
    }
    let mut done = 0;
    while done < MEASURED {
        let Reverse((Time(now), worker)) = running.pop().unwrap();
        let batch = batches[usize::from(worker)].take().unwrap();
        scheduler
            .complete(&batch, 0, now, &ends, Outcomes::Success)
            .unwrap();
        done += batch.len();
        batches[usize::from(worker)] = scheduler.claim(worker, size, now);
        running.push(Reverse((Time(now + 0.5 + draw.unit()), worker)));
    }
    begun.elapsed().as_secs_f64()
}
