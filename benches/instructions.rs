//! The hot paths of the core, one a process: `instructions.py` counts their instructions under callgrind.
//!
//! `instructions CASE` does the work of one case, `instructions` alone lists them. What is counted happens in `measured`;
//! everything before it is preparation. The graphs are small: instructions grow with the size, they do not depend on caches.

#![expect(clippy::unwrap_used, reason = "a bench has no one to report to")]

use std::hint::black_box;
use std::sync::Arc;

use flowyml::graph::{Edges, Graph};
use flowyml::name_table::NameTable;
use flowyml::scheduler::{Limits, Order, Outcomes, Scheduler};
use shapes::{chain, random};

mod shapes;

const NODES: u32 = 20_000;

type Case = (&'static str, fn());

const CASES: [Case; 12] = [
    ("build_random", || {
        let edges = random(NODES);
        measured(|| build(NODES, edges));
    }),
    ("build_chain", || {
        let edges = chain(NODES);
        measured(|| build(NODES, edges));
    }),
    ("add_names", || {
        let hashes = (1..=u64::from(NODES)).map(|k| k.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        measured(|| {
            let mut table = NameTable::new();
            hashes.for_each(|hash| table.add(hash, &[]).unwrap());
            table
        });
    }),
    ("order_random", || {
        let graph = build(NODES, random(NODES));
        measured(|| graph.order());
    }),
    ("begin_random", || {
        let graph = Arc::new(build(NODES, random(NODES)));
        measured(|| Scheduler::new(graph, Order::CriticalPath, None).unwrap());
    }),
    ("drain_random", || drain(build(NODES, random(NODES)), 100)),
    ("drain_chain", || drain(build(NODES, chain(NODES)), 1)),
    ("drain_fan_out", || {
        drain(build(NODES, Edges::default()), 1000);
    }),
    ("drain_fan_out_one_by_one", || {
        drain(build(NODES, Edges::default()), 1);
    }),
    ("drain_mapped", || {
        drain(
            Graph::build(1, Some(&[NODES]), Edges::default()).unwrap(),
            1000,
        );
    }),
    ("drain_limited", || {
        let limits = Limits {
            totals: vec![1],
            demands: Some(vec![1; NODES as usize]),
            classes: vec![Vec::new(), vec![(0, 1)]],
            divided: None,
        };
        let graph = Arc::new(build(NODES, Edges::default()));
        let scheduler = Scheduler::new(graph, Order::CriticalPath, None).unwrap();
        let scheduler = scheduler.with_limits(&limits).unwrap();
        measured(|| run(scheduler, 1));
    }),
    ("give_back", || {
        let graph = Arc::new(build(NODES, Edges::default()));
        let mut scheduler = Scheduler::new(graph, Order::CriticalPath, None).unwrap();
        measured(|| {
            for _ in 0..100 {
                let batch = scheduler.claim(0, 200, 0.0).unwrap();
                scheduler.give_back(&batch, 100, 100).unwrap();
                scheduler.give_back(&batch, 0, 100).unwrap();
            }
            scheduler
        });
    }),
];

fn main() {
    let Some(wanted) = std::env::args()
        .skip(1)
        .find(|each| !each.starts_with("--"))
    else {
        for (name, _) in &CASES {
            println!("{name}");
        }
        return;
    };
    let (_, case) = CASES.iter().find(|(name, _)| *name == wanted).unwrap();
    case();
}

/// What is counted: callgrind collects in functions of this name only.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) {
    black_box(work());
}

fn build(nodes: u32, edges: Edges) -> Graph {
    Graph::build(nodes as usize, None, edges).unwrap()
}

fn drain(graph: Graph, limit: u32) {
    let scheduler = Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap();
    measured(|| run(scheduler, limit));
}

fn run(mut scheduler: Scheduler, limit: u32) -> Scheduler {
    let ends = vec![1.0; limit as usize];
    while let Some(batch) = scheduler.claim(0, limit, 0.0) {
        let ends = &ends[..batch.len() as usize];
        scheduler
            .complete(&batch, 0, 0.0, ends, Outcomes::Success)
            .unwrap();
    }
    assert!(scheduler.is_finished());
    scheduler
}
