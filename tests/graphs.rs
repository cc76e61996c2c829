//! What `Graph::build` finds wrong, and what it makes of edges and lengths; graphs as text (`"a>b"`: b waits for a).

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flowyml::error::GraphProblem;
use flowyml::graph::{Edges, Graph, Kind, NodeId, UNKNOWN};
use proptest::prelude::*;

/// Read nodes `a` to `z`; `a>b` is an `All` edge, `a~b` an elementwise one.
fn edges(text: &str) -> (usize, Edges) {
    let mut edges = Edges::default();
    let id = |letter: u8| NodeId(u32::from(letter - b'a'));
    for word in text.split_whitespace().map(str::as_bytes) {
        let kind = if word[1] == b'~' {
            Kind::Elementwise
        } else {
            Kind::All
        };
        edges.push(id(word[2]), id(word[0]), kind);
    }
    let ids = edges.dependents.iter().chain(&edges.dependencies);
    (ids.max().map_or(0, |id| *id as usize + 1), edges)
}

fn build(text: &str) -> Result<Graph, Vec<GraphProblem>> {
    let (nodes, edges) = edges(text);
    Graph::build(nodes, None, edges)
}

fn mapped(text: &str, counts: &[u32]) -> Result<Graph, Vec<GraphProblem>> {
    Graph::build(counts.len(), Some(counts), edges(text).1)
}

fn cycle(path: &[u32]) -> GraphProblem {
    GraphProblem::Cycle {
        path: path.iter().copied().map(NodeId).collect(),
    }
}

fn order(text: &str) -> String {
    build(text)
        .unwrap()
        .order()
        .into_iter()
        .map(|node| char::from(b'a' + node.0 as u8))
        .collect()
}

#[test]
fn the_critical_path_goes_first_and_add_order_breaks_ties() {
    assert_eq!(order("a>c a>b b>d c>d"), "abcd");
    assert_eq!(order("b>d d>e a>c"), "badce");
}

#[test]
fn a_graph_without_nodes_is_a_graph() {
    let graph = Graph::build(0, None, Edges::default()).unwrap();
    assert_eq!(
        (graph.node_count(), graph.item_count(), graph.order().len()),
        (0, 0, 0)
    );
}

#[test]
fn a_graph_counts_its_edges_and_knows_whether_one_is_elementwise() {
    let graph = build("a>b b>c a>c").unwrap();
    assert_eq!((graph.edge_count(), graph.has_elementwise()), (3, false));
    assert!(mapped("a~b", &[2, 2]).unwrap().has_elementwise());
    assert!(!mapped("a~b a>b", &[2, 2]).unwrap().has_elementwise());
}

#[test]
fn each_component_gives_a_shortest_cycle_from_its_lowest_id() {
    let problems = build("a>b b>c c>d d>a c>a e>f f>e d>e a>g").unwrap_err();
    assert_eq!(problems, [cycle(&[0, 1, 2, 0]), cycle(&[4, 5, 4])]);
}

#[test]
fn everything_wrong_is_found_at_once() {
    let (_, mut wrong) = edges("a>a b>c c>b");
    wrong.push(NodeId(9), NodeId(0), Kind::All);
    wrong.push(NodeId(3), NodeId(4), Kind::Elementwise);
    let problems = Graph::build(5, Some(&[1, 1, 1, 2, 3]), wrong).unwrap_err();
    let ids = |node: u32, dependency: u32| (NodeId(node), NodeId(dependency));
    let (node, dependency) = ids(3, 4);
    assert_eq!(
        problems,
        [
            GraphProblem::SelfDependency { node: NodeId(0) },
            GraphProblem::OutOfRange { node: NodeId(9) },
            cycle(&[1, 2, 1]),
            GraphProblem::LengthMismatch { node, dependency },
        ]
    );
}

#[test]
fn the_first_id_that_is_not_there_is_out_of_range() {
    let mut edges = Edges::default();
    edges.push(NodeId(2), NodeId(0), Kind::All);
    edges.push(NodeId(0), NodeId(2), Kind::All);
    let out = GraphProblem::OutOfRange { node: NodeId(2) };
    assert_eq!(Graph::build(2, None, edges).unwrap_err(), [out]);
}

#[test]
fn names_make_the_graph_that_ids_make() {
    let graph = Graph::by_name(&[("a", vec!["b"]), ("b", vec![])]).unwrap();
    assert_eq!(graph.order(), [NodeId(1), NodeId(0)]);
}

#[test]
fn a_name_given_twice_is_a_problem_of_its_own() {
    let twice = GraphProblem::DuplicateName {
        name: "a".into(),
        first: NodeId(0),
        second: NodeId(1),
    };
    assert_eq!(
        Graph::by_name::<_, &str>(&[("a", vec![]), ("a", vec![])]).unwrap_err(),
        [twice]
    );
}

#[test]
fn names_given_twice_and_names_that_are_not_there_are_found_beside_cycles() {
    let nodes = [
        ("a", vec!["b"]),
        ("b", vec!["a"]),
        ("c", vec!["x"]),
        ("a", vec![]),
    ];
    assert_eq!(
        Graph::by_name(&nodes).unwrap_err(),
        [
            GraphProblem::DuplicateName {
                name: "a".into(),
                first: NodeId(0),
                second: NodeId(3)
            },
            GraphProblem::UnknownDependency {
                node: NodeId(2),
                name: "x".into()
            },
            cycle(&[0, 1, 0]),
        ]
    );
}

#[test]
fn an_edge_given_twice_is_one_edge_and_all_wins() {
    let graph = mapped("a~b a>b a~b", &[2, 2]).unwrap();
    assert_eq!(graph.edge_count(), 1);
    assert_eq!(
        graph.dependencies(NodeId(1)).collect::<Vec<_>>(),
        [(NodeId(0), Kind::All)]
    );
}

#[test]
fn a_long_row_that_is_sorted_may_name_a_dependency_twice() {
    for pairs in [
        vec![30; 30],
        (0..40).map(|at| at.max(1)).collect::<Vec<u32>>(),
    ] {
        let mut edges = Edges::default();
        for dependency in &pairs {
            edges.push(NodeId(50), NodeId(*dependency), Kind::All);
        }
        let graph = Graph::build(51, None, edges).unwrap();
        let once: BTreeSet<u32> = pairs.into_iter().collect();
        let found = graph.dependencies(NodeId(50)).map(|end| end.0.0);
        assert_eq!(
            found.collect::<Vec<_>>(),
            once.into_iter().collect::<Vec<_>>()
        );
    }
}

#[test]
fn nodes_are_mapped_by_their_length_or_by_an_elementwise_edge() {
    let graph = mapped("a~b b>c", &[1, 1, 1, 2]).unwrap();
    assert_eq!(graph.mapped(), [NodeId(0), NodeId(1), NodeId(3)]);
    assert_eq!(build("a>b").unwrap().mapped(), []);
}

#[test]
fn unknown_lengths_spread_along_elementwise_edges() {
    let graph = mapped("a~b b~c c>d", &[UNKNOWN, 1, 1, 1]).unwrap();
    assert_eq!(graph.group(NodeId(0)), [0, 1, 2]);
    assert_eq!(
        (graph.count(NodeId(2)), graph.count(NodeId(3))),
        (UNKNOWN, 1)
    );
    assert_eq!(graph.item_count(), 1);
}

#[test]
fn an_undeclared_length_is_that_of_the_dependency() {
    let graph = mapped("a~b", &[3, UNKNOWN]).unwrap();
    assert_eq!(graph.count(NodeId(1)), 3);
}

#[test]
fn different_lengths_do_not_fit() {
    let mismatch = |node, dependency| {
        vec![GraphProblem::LengthMismatch {
            node: NodeId(node),
            dependency: NodeId(dependency),
        }]
    };
    assert_eq!(mapped("a~b", &[3, 2]).unwrap_err(), mismatch(1, 0));
    assert_eq!(
        mapped("a~c b~c", &[UNKNOWN, 2, UNKNOWN]).unwrap_err(),
        mismatch(2, 1)
    );
    assert_eq!(
        mapped("a~c b~c", &[UNKNOWN; 3]).unwrap_err(),
        mismatch(2, 1)
    );
}

#[test]
fn a_known_length_may_be_none() {
    let graph = mapped("a>b", &[0, 1, 3]).unwrap();
    let counts: Vec<u32> = graph.nodes().map(|node| graph.count(node)).collect();
    assert_eq!(counts, [0, 1, 3]);
}

#[test]
fn too_many_items_are_a_problem_and_not_a_panic() {
    assert_eq!(
        mapped("a>b", &[UNKNOWN - 1, 5]).unwrap_err(),
        [GraphProblem::TooLarge]
    );
}

#[test]
fn items_are_counted_once_every_length_is_settled() {
    let large = 3_000_000_000;
    assert_eq!(
        mapped("a~b", &[large, UNKNOWN]).unwrap_err(),
        [GraphProblem::TooLarge],
        "b is as long as a"
    );
    assert_eq!(
        mapped("a~b", &[large, large]).unwrap_err(),
        [GraphProblem::TooLarge]
    );
    let graph = mapped("a~b a~c", &[UNKNOWN, large, large]).unwrap();
    assert_eq!(graph.item_count(), 0);
    assert_eq!(
        mapped("a>b", &[UNKNOWN - 2, 1]).unwrap().item_count(),
        UNKNOWN - 1
    );
    assert_eq!(
        mapped("a>b", &[UNKNOWN - 1, 1]).unwrap_err(),
        [GraphProblem::TooLarge]
    );
}

/// Whether `to` can be reached from `from` along (dependent, dependency) pairs, not counting the empty path.
fn reaches(pairs: &BTreeSet<(u32, u32)>, from: u32, to: u32) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(node) = next.pop() {
        let found = pairs
            .iter()
            .filter(|pair| pair.0 == node && seen.insert(pair.1));
        next.extend(found.map(|pair| pair.1));
    }
    seen.contains(&to)
}

proptest! {
    /// Cycles are found iff there are any, one for each component, each a path of edges from its lowest id.
    #[test]
    fn cycles_are_real_and_complete(pairs in prop::collection::btree_set((0..8_u32, 0..8_u32), 0..14)) {
        let mut edges = Edges::default();
        for (a, b) in &pairs {
            edges.push(NodeId(*a), NodeId(*b), Kind::All);
        }
        let problems = Graph::build(8, None, edges).err().unwrap_or_default();
        let others: BTreeSet<_> = pairs.iter().copied().filter(|(a, b)| a != b).collect();
        let mut lowest: HashMap<BTreeSet<u32>, u32> = HashMap::new();
        for node in (0..8).rev().filter(|node| reaches(&others, *node, *node)) {
            let component = (0..8).filter(|other| reaches(&others, node, *other) && reaches(&others, *other, node));
            lowest.insert(component.collect(), node);
        }
        let paths: Vec<&Vec<NodeId>> = problems.iter().filter_map(|problem| match problem {
            GraphProblem::Cycle { path } => Some(path),
            _ => None,
        }).collect();
        let starts: BTreeSet<u32> = paths.iter().map(|path| path[0].0).collect();
        prop_assert_eq!(starts, lowest.values().copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(paths.len(), lowest.len());
        for path in paths {
            prop_assert_eq!(path.first(), path.last());
            prop_assert!(path.windows(2).all(|pair| others.contains(&(pair[1].0, pair[0].0))));
        }
        let loops = pairs.len() - others.len();
        prop_assert_eq!(problems.len(), loops + lowest.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.div_ceil(4), ..ProptestConfig::default() })]

    /// Rows of any length, in any order, with repetitions, across the blocks in which they are turned around.
    #[test]
    fn each_edge_is_kept_once_in_both_directions(
        rows in prop::collection::vec((0..10_000_u32, prop::collection::vec((any::<u32>(), any::<bool>()), 0..40)), 1..12),
        near in any::<bool>(),
    ) {
        let mut edges = Edges::default();
        let mut kinds: BTreeMap<u32, Vec<(NodeId, Kind)>> = BTreeMap::new();
        for (dependent, row) in rows {
            for (draw, all) in row {
                let dependency = if near { 17_000 + draw % 24 } else { (draw % 20_000).max(dependent + 1) };
                let kind = if all { Kind::All } else { Kind::Elementwise };
                edges.push(NodeId(dependent), NodeId(dependency), kind);
                let row = kinds.entry(dependent).or_default();
                match row.iter_mut().find(|end| end.0.0 == dependency) {
                    Some(end) if kind == Kind::All => end.1 = kind,
                    Some(_) => {}
                    None => row.push((NodeId(dependency), kind)),
                }
            }
        }
        let graph = Graph::build(20_000, None, edges).unwrap();
        let mut turned: BTreeMap<u32, Vec<(NodeId, Kind)>> = BTreeMap::new();
        for (dependent, row) in &kinds {
            prop_assert_eq!(&graph.dependencies(NodeId(*dependent)).collect::<Vec<_>>(), row);
            for (dependency, kind) in row {
                turned.entry(dependency.0).or_default().push((NodeId(*dependent), *kind));
            }
        }
        for (dependency, row) in turned {
            prop_assert_eq!(graph.dependents(NodeId(dependency)).collect::<Vec<_>>(), row);
        }
    }
}
