//! A million nodes and ten million items: nothing here recurses, and nothing is quadratic.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::cmp::Reverse;
use std::sync::Arc;

use flowyml::error::GraphProblem;
use flowyml::graph::{Edges, Graph, ItemId, Kind, NewNodes, NodeId, UNKNOWN};
use flowyml::scheduler::{Graft, Limits, Order, Outcomes, Scheduler, State};

const MILLION: u32 = 1_000_000;

fn chain(nodes: u32) -> Edges {
    Edges {
        dependents: (1..nodes).collect(),
        dependencies: (0..nodes - 1).collect(),
        elementwise: Vec::new(),
    }
}

fn scheduler(graph: Graph) -> Scheduler {
    Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap()
}

/// Run everything that becomes ready, in batches; return the number of batches.
fn drain(scheduler: &mut Scheduler, limit: u32) -> u32 {
    let ends = vec![1.0; limit as usize];
    let mut batches = 0;
    while let Some(batch) = scheduler.claim(0, limit, 0.0) {
        scheduler
            .complete(
                &batch,
                0,
                0.0,
                &ends[..batch.len() as usize],
                Outcomes::Success,
            )
            .unwrap();
        batches += 1;
    }
    batches
}

/// Two threads build a graph of so many edges. Mirrored, with dependencies behind their dependents, weights are found after
/// the rows were turned around.
#[test]
fn many_edges_give_the_neighbours_weights_and_order_that_few_give() {
    let nodes = 100_000;
    for mirrored in [false, true] {
        let id = |node: u32| if mirrored { nodes - 1 - node } else { node };
        let mut edges = Edges::default();
        let mut weights = vec![1; nodes as usize];
        let mut dependents = vec![Vec::new(); nodes as usize];
        for node in (2..nodes).rev() {
            for dependency in [node / 2, node / 3] {
                edges.push(NodeId(id(node)), NodeId(id(dependency)), Kind::All);
                dependents[id(dependency) as usize].push(id(node));
                let above = weights[id(node) as usize] + 1;
                let weight = &mut weights[id(dependency) as usize];
                *weight = above.max(*weight);
            }
        }
        let graph = Graph::build(nodes as usize, None, edges).unwrap();
        for node in graph.nodes() {
            assert_eq!(graph.weight(node), weights[node.index()]);
            let found: Vec<u32> = graph.dependents(node).map(|(other, _)| other.0).collect();
            dependents[node.index()].sort_unstable();
            dependents[node.index()].dedup();
            assert_eq!(found, dependents[node.index()]);
        }
        let mut order: Vec<NodeId> = graph.nodes().collect();
        order.sort_by_key(|node| Reverse(weights[node.index()]));
        assert_eq!(graph.order(), order);
    }
}

#[test]
fn a_cycle_among_many_edges_is_found() {
    let nodes = 200_000;
    let mut edges = chain(nodes);
    edges.push(NodeId(7), NodeId(9), Kind::All);
    let problems = Graph::build(nodes as usize, None, edges).unwrap_err();
    let path = [7, 8, 9, 7].map(NodeId).to_vec();
    assert_eq!(problems, [GraphProblem::Cycle { path }]);
}

#[test]
fn a_chain_of_a_million_runs() {
    let mut scheduler = scheduler(Graph::build(MILLION as usize, None, chain(MILLION)).unwrap());
    assert_eq!(drain(&mut scheduler, 1000), MILLION);
    assert_eq!(scheduler.count_in(State::Success), MILLION);
}

#[test]
fn a_failure_at_the_head_of_a_chain_of_a_million_ends_it() {
    let mut scheduler = scheduler(Graph::build(MILLION as usize, None, chain(MILLION)).unwrap());
    let batch = scheduler.claim(0, 1, 0.0).unwrap();
    scheduler
        .complete(
            &batch,
            0,
            0.0,
            &[1.0],
            Outcomes::Each(&[State::Failed as u8]),
        )
        .unwrap();
    assert!(scheduler.is_finished());
    assert_eq!(scheduler.count_in(State::UpstreamFailed), MILLION - 1);
    scheduler.check_invariants().unwrap();
}

#[test]
fn a_fan_out_and_fan_in_of_a_million_runs_in_batches() {
    let last = MILLION + 1;
    let edges = Edges {
        dependents: (1..=MILLION).chain((1..=MILLION).map(|_| last)).collect(),
        dependencies: (1..=MILLION).map(|_| 0).chain(1..=MILLION).collect(),
        elementwise: Vec::new(),
    };
    let mut scheduler = scheduler(Graph::build(last as usize + 1, None, edges).unwrap());
    assert_eq!(drain(&mut scheduler, 1000), 1002);
    assert!(scheduler.is_finished());
}

#[test]
fn a_mapped_node_of_ten_million_is_one_run() {
    let mut scheduler =
        scheduler(Graph::build(1, Some(&[10 * MILLION]), Edges::default()).unwrap());
    let batch = scheduler.claim(0, u32::MAX, 0.0).unwrap();
    assert_eq!((batch.runs().len(), batch.len()), (1, 10 * MILLION));
    scheduler.give_back(&batch, 0, batch.len()).unwrap();
    assert_eq!(drain(&mut scheduler, 100_000), 100);
    assert!(scheduler.is_finished());
}

/// One node feeds many item by item, and all of these feed one: of each item all are looked at once.
#[test]
fn a_value_is_passed_item_by_item_through_many_nodes() {
    const WIDTH: u32 = 100_000;
    for length in [UNKNOWN, 0, 1, 3] {
        let last = WIDTH + 1;
        let edges = Edges {
            dependents: (1..=WIDTH).chain((1..=WIDTH).map(|_| last)).collect(),
            dependencies: (1..=WIDTH).map(|_| 0).chain(1..=WIDTH).collect(),
            elementwise: vec![1; 2 * WIDTH as usize],
        };
        let nodes = last as usize + 1;
        let graph = Graph::build(nodes, Some(&vec![length; nodes]), edges).unwrap();
        let keep = vec![0; nodes];
        let mut scheduler =
            Scheduler::new(Arc::new(graph), Order::CriticalPath, Some(&keep)).unwrap();
        if let Some(node) = scheduler.next_expandable() {
            scheduler.expand(node, 2).unwrap();
        }
        drain(&mut scheduler, 1000);
        assert!(scheduler.is_finished());
        let released = scheduler.take_released().len() as u32;
        assert_eq!(
            released,
            scheduler.item_count() / nodes as u32 * (WIDTH + 1)
        );
    }
}

/// A run grows by a step that needs a token, ten thousand times: there is one class for all of them.
#[test]
fn many_grafts_bring_a_step_that_needs_a_token() {
    const GRAFTS: u32 = 10_000;
    let graph = Graph::build(GRAFTS as usize, None, Edges::default()).unwrap();
    let mut scheduler = scheduler(graph);
    for at in 0..GRAFTS {
        let batch = scheduler.claim(0, 1, 0.0).unwrap();
        let first = GRAFTS + at;
        let graft = Graft {
            nodes: NewNodes {
                counts: vec![1],
                awaited: vec![first],
                ..NewNodes::default()
            },
            keep: None,
            limits: Limits {
                totals: if at == 0 { vec![1] } else { Vec::new() },
                demands: Some(vec![1]),
                classes: vec![Vec::new(), vec![(0, 1)]],
                divided: None,
            },
        };
        scheduler.graft(&batch, 0, 0.0, &graft).unwrap();
        for item in [first, at] {
            let batch = scheduler.claim(0, 1, 0.0).unwrap();
            assert_eq!(batch.items().next(), Some(ItemId(item)));
            scheduler
                .complete(&batch, 0, 0.0, &[1.0], Outcomes::Success)
                .unwrap();
        }
    }
    assert!(scheduler.is_finished());
    scheduler.check_invariants().unwrap();
}

#[test]
fn a_cycle_of_a_million_is_one_problem() {
    let mut edges = chain(MILLION);
    edges.dependents.push(0);
    edges.dependencies.push(MILLION - 1);
    let problems = Graph::build(MILLION as usize, None, edges).unwrap_err();
    let path: Vec<NodeId> = (0..MILLION).chain([0]).map(NodeId).collect();
    assert_eq!(problems, [GraphProblem::Cycle { path }]);
}

#[test]
fn a_cancelled_chain_of_a_million_is_over() {
    let mut scheduler = scheduler(Graph::build(MILLION as usize, None, chain(MILLION)).unwrap());
    scheduler.cancel(1.0);
    assert!(scheduler.is_finished());
    assert_eq!(scheduler.count_in(State::Cancelled), MILLION);
}
