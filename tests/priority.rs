//! How good the order is in which nodes are taken, in virtual time.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

#[allow(dead_code, reason = "shared with benches/simulation.rs")]
mod simulated;

use std::sync::Arc;

use flowyml::graph::NodeId;
use simulated::{Draw, List, drawn, list_schedule, scheduled};

const WORKERS: [u16; 4] = [2, 4, 16, 64];

/// Graphs of several shapes, drawn.
fn each(mut look: impl FnMut(&Arc<flowyml::graph::Graph>, &[f64], u16)) {
    for (seed, (most, reach)) in
        (0..24).zip([(3, 60), (2, 20), (1, 8), (5, 200)].into_iter().cycle())
    {
        let (graph, durations) = drawn(600, most, reach, &mut Draw::new(seed));
        for workers in WORKERS {
            look(&graph, &durations, workers);
        }
    }
}

#[test]
fn with_known_durations_it_is_the_critical_path_list_schedule() {
    each(|graph, durations, workers| {
        let known = Arc::new(graph.weighted(durations));
        let ours = scheduled(&known, durations, workers);
        let best = list_schedule(graph, durations, workers, List::CriticalPath);
        assert!(ours <= best * 1.05, "{ours} beside {best} on {workers}");
    });
}

/// Nobody can know which of two branches takes longer before they have run.
#[test]
fn without_them_it_is_near_and_better_than_first_come_first_served() {
    let (mut best, mut fifo) = (Vec::new(), Vec::new());
    each(|graph, durations, workers| {
        let ours = scheduled(graph, durations, workers);
        let beside = |list| ours / list_schedule(graph, durations, workers, list);
        best.push(beside(List::CriticalPath));
        fifo.push(beside(List::Fifo));
    });
    let mean = |ratios: &[f64]| ratios.iter().sum::<f64>() / f64::from(ratios.len() as u32);
    let worst = |ratios: &[f64]| ratios.iter().copied().fold(0.0, f64::max);
    assert!(
        mean(&best) <= 1.05 && worst(&best) <= 1.2,
        "{} {}",
        mean(&best),
        worst(&best)
    );
    assert!(
        mean(&fifo) <= 0.97 && worst(&fifo) <= 1.1,
        "{} {}",
        mean(&fifo),
        worst(&fifo)
    );
}

#[test]
fn durations_do_not_change_what_may_run() {
    each(|graph, durations, _| {
        let order = graph.weighted(durations).order();
        let mut place = vec![0; order.len()];
        order
            .iter()
            .enumerate()
            .for_each(|(at, node)| place[node.index()] = at);
        for node in graph.nodes() {
            for (before, _) in graph.dependencies(node) {
                assert!(place[before.index()] < place[node.index()]);
            }
        }
    });
}

#[test]
fn of_nodes_without_edges_the_longest_goes_first() {
    let graph = flowyml::graph::Graph::build(4, None, flowyml::graph::Edges::default()).unwrap();
    let order = graph.weighted(&[1.0, 3.0, 2.0, 3.0]).order();
    assert_eq!(order, [1, 3, 2, 0].map(NodeId));
}

#[test]
fn the_time_that_is_left_counts_and_not_the_number_of_steps() {
    let mut edges = flowyml::graph::Edges::default();
    for (dependent, dependency) in [(1, 0), (2, 1)] {
        let kind = flowyml::graph::Kind::All;
        edges.push(NodeId(dependent), NodeId(dependency), kind);
    }
    let graph = flowyml::graph::Graph::build(4, None, edges).unwrap();
    assert_eq!(graph.order(), [0, 1, 2, 3].map(NodeId));
    let order = graph.weighted(&[0.1, 0.1, 0.1, 0.25]).order();
    assert_eq!(order, [0, 3, 1, 2].map(NodeId));
}
