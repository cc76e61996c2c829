//! The core alone: build and validate, order, drain. `cargo bench [--bench core] [-- FILTER]`; figures are per graph.
//!
//! Four shapes of a million and ten million nodes, one item each: a chain, a fan-out (one node, then all others), a lattice
//! of diamonds (each node waits for two of the layer before), random (each node waits for two random earlier ones). And a
//! mapped node of as many items, and nodes that all need a token of one limit, beside which the others show what a run
//! without limits pays for there being such a thing: nothing. Drains claim and complete batches of up to 1,000.

#![expect(clippy::unwrap_used, reason = "a bench has no one to report to")]

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use flowyml::graph::{Edges, Graph};
use flowyml::scheduler::{Limits, Order, Outcomes, Scheduler};
use shapes::pairs;

mod shapes;

const SIZES: [u32; 2] = [1_000_000, 10_000_000];
const LIMIT: u32 = 1000;

fn main() {
    divan::main();
}

/// A graph's edges by number of nodes.
#[derive(Clone, Copy)]
struct Shape(fn(u32) -> Edges);

const CHAIN: Shape = Shape(shapes::chain);
const FAN_OUT: Shape = Shape(|nodes| pairs((1..nodes).map(|node| (node, 0))));
const LATTICE: Shape = Shape(|nodes| {
    let width = 1000;
    pairs((width..nodes).flat_map(|node| {
        let above = node - width;
        let beside = if node % width == 0 {
            above + width - 1
        } else {
            above - 1
        };
        [(node, above), (node, beside)]
    }))
});
const RANDOM: Shape = Shape(shapes::random);

fn build(bencher: Bencher, nodes: u32, shape: Shape) {
    let edges = shape.0(nodes);
    bencher
        .counter(ItemsCount::new(nodes))
        .with_inputs(|| edges.clone())
        .bench_local_values(|edges| Graph::build(nodes as usize, None, edges).unwrap());
}

fn build_and_order(bencher: Bencher, nodes: u32, shape: Shape) {
    let edges = shape.0(nodes);
    bencher
        .counter(ItemsCount::new(nodes))
        .with_inputs(|| edges.clone())
        .bench_local_values(|edges| {
            let graph = Graph::build(nodes as usize, None, edges).unwrap();
            black_box(graph.order());
            graph
        });
}

fn drain(bencher: Bencher, graph: Graph, items: u32) {
    drain_limited(bencher, graph, items, &Limits::default());
}

fn drain_limited(bencher: Bencher, graph: Graph, items: u32, limits: &Limits) {
    let graph = Arc::new(graph);
    let begin = || {
        let scheduler = Scheduler::new(Arc::clone(&graph), Order::CriticalPath, None).unwrap();
        if limits.is_empty() {
            scheduler
        } else {
            scheduler.with_limits(limits).unwrap()
        }
    };
    let ends = vec![1.0; LIMIT as usize];
    bencher
        .counter(ItemsCount::new(items))
        .with_inputs(begin)
        .bench_local_values(|mut scheduler| {
            while let Some(batch) = scheduler.claim(0, LIMIT, 0.0) {
                let ends = &ends[..batch.len() as usize];
                scheduler
                    .complete(&batch, 0, 0.0, ends, Outcomes::Success)
                    .unwrap();
            }
            assert!(scheduler.is_finished());
            scheduler
        });
}

fn drain_shape(bencher: Bencher, nodes: u32, shape: Shape) {
    let graph = Graph::build(nodes as usize, None, shape.0(nodes)).unwrap();
    drain(bencher, graph, nodes);
}

macro_rules! shapes {
    ($($name:ident: $shape:expr),*) => {$(
        mod $name {
            use super::*;

            #[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
            fn build(bencher: Bencher, nodes: u32) {
                super::build(bencher, nodes, $shape);
            }

            #[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
            fn build_and_order(bencher: Bencher, nodes: u32) {
                super::build_and_order(bencher, nodes, $shape);
            }

            #[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
            fn drain(bencher: Bencher, nodes: u32) {
                drain_shape(bencher, nodes, $shape);
            }
        }
    )*};
}

shapes!(chain: CHAIN, fan_out: FAN_OUT, lattice: LATTICE, random: RANDOM);

/// One mapped node.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn drain_mapped(bencher: Bencher, items: u32) {
    drain(
        bencher,
        Graph::build(1, Some(&[items]), Edges::default()).unwrap(),
        items,
    );
}

/// Nodes of one item, without edges, that all need a token.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn drain_with_limit(bencher: Bencher, nodes: u32) {
    let graph = Graph::build(nodes as usize, None, Edges::default()).unwrap();
    let limits = Limits {
        totals: vec![1],
        demands: Some(vec![1; nodes as usize]),
        classes: vec![Vec::new(), vec![(0, 1)]],
        divided: None,
    };
    drain_limited(bencher, graph, nodes, &limits);
}
