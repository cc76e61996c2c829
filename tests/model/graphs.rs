//! Random graphs: ordinary, mapped, empty and unknown lengths, both kinds of edges, edges given twice, ids in any order.

use flowyml::error::GraphProblem;
use flowyml::graph::{Edges, Graph, Kind, NodeId, UNKNOWN};
use flowyml::scheduler::Limits;
use proptest::prelude::*;

/// A valid graph and the edges it was made from: (dependent, dependency, kind).
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) counts: Vec<u32>,
    pub(crate) edges: Vec<(u32, u32, Kind)>,
    /// A bit for each node that is a join.
    pub(crate) joins: u32,
}

/// Two limits, and the class of each node; none if there are no totals.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) totals: Vec<u32>,
    pub(crate) demands: Vec<u32>,
}

/// What classes need.
pub(crate) const CLASSES: [&[(u32, u32)]; 5] =
    [&[], &[(0, 1)], &[(1, 1), (0, 1)], &[(0, 2), (1, 1)], &[]];

impl Bounds {
    pub(crate) fn limits(&self, nodes: usize) -> Option<Limits> {
        (!self.totals.is_empty()).then(|| Limits {
            totals: self.totals.clone(),
            demands: Some(self.demands[..nodes].to_vec()),
            classes: CLASSES.map(<[_]>::to_vec).to_vec(),
            divided: Some((0, 1)), // whole devices are counted like any tokens
        })
    }

    /// The class of a node, a place in [`CLASSES`]: 0 if it needs nothing.
    pub(crate) fn class(&self, node: u32) -> u32 {
        if self.totals.is_empty() || self.demanded(node).is_empty() {
            0
        } else {
            self.demands[node as usize]
        }
    }

    fn demanded(&self, node: u32) -> &'static [(u32, u32)] {
        CLASSES[self.demands[node as usize] as usize]
    }

    pub(crate) fn needs(&self, node: u32) -> &'static [(u32, u32)] {
        CLASSES[self.class(node) as usize]
    }

    /// Note what new nodes demand, each a place in [`CLASSES`].
    pub(crate) fn extend(&mut self, nodes: usize, limits: &Limits) {
        if self.totals.is_empty() {
            self.demands.fill(0);
            self.totals.clone_from(&limits.totals);
        }
        let demands = limits.demands.clone().unwrap_or_else(|| vec![0; nodes]);
        self.demands.extend(demands);
    }
}

/// No limits as often as some.
pub(crate) fn bounds() -> impl Strategy<Value = Bounds> {
    let totals = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(2..4_u32, 2),
        Just(vec![2, 1])
    ];
    let demands = prop::collection::vec(0..CLASSES.len() as u32, 9);
    (totals, demands).prop_map(|(totals, demands)| Bounds { totals, demands })
}

impl Sample {
    pub(crate) fn build(&self) -> Result<Graph, Vec<GraphProblem>> {
        let mut edges = Edges::default();
        for &(dependent, dependency, kind) in &self.edges {
            edges.push(NodeId(dependent), NodeId(dependency), kind);
        }
        let graph = Graph::build(self.counts.len(), Some(&self.counts), edges)?;
        let joins = (0..self.counts.len()).map(|node| (self.joins >> node & 1) as u8);
        Ok(graph.with_joins(joins.collect()))
    }

    /// Turn elementwise edges between different lengths into `All` edges.
    fn mend(mut self) -> Self {
        while let Err(problems) = self.build() {
            for problem in problems {
                let GraphProblem::LengthMismatch { node, dependency } = problem else {
                    panic!("{problem:?} in an acyclic graph")
                };
                for edge in &mut self.edges {
                    if (edge.0, edge.1) == (node.0, dependency.0) {
                        edge.2 = Kind::All;
                    }
                }
            }
        }
        self
    }
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(1), 4 => Just(3), 2 => Just(UNKNOWN), 1 => Just(0), 1 => Just(2)]
}

/// Graphs of 1 to 9 nodes: of any shape, wide ones in which many nodes feed one item by item, and one feeds many, or lines.
pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    prop_oneof![6 => anyhow(), 1 => wide(), 2 => lines()]
}

/// Mostly lines of nodes of one item, which is what is chained.
pub(crate) fn lines() -> impl Strategy<Value = Sample> {
    let count = prop_oneof![7 => Just(1_u32), 1 => count()];
    let node = (count, 0..8_u32, any::<u32>());
    (prop::collection::vec(node, 2..10), any::<u32>()).prop_map(|(nodes, joins)| {
        let mut edges = Vec::new();
        for (at, (_, way, other)) in (0..).zip(&nodes).skip(1) {
            match way {
                0 => {}
                1 => edges.push((at, other % at, Kind::All)),
                _ => edges.push((at, at - 1, Kind::All)),
            }
        }
        Sample {
            counts: nodes.iter().map(|node| node.0).collect(),
            edges,
            joins: if joins % 4 == 0 { joins >> 2 } else { 0 },
        }
    })
}

fn wide() -> impl Strategy<Value = Sample> {
    let length = prop_oneof![Just(UNKNOWN), 0..4_u32];
    (length, 3..8_u32, any::<u32>(), any::<u32>()).prop_map(|(length, width, all, joins)| {
        let kind = |bit: u32| {
            if all >> bit & 7 == 7 {
                Kind::All
            } else {
                Kind::Elementwise
            }
        };
        let out = (1..=width).map(|node| (node, 0, kind(node)));
        let back = (1..=width).map(|node| (width + 1, node, kind(node + 9)));
        Sample {
            counts: vec![length; width as usize + 2],
            edges: out.chain(back).collect(),
            joins,
        }
        .mend()
    })
}

fn anyhow() -> impl Strategy<Value = Sample> {
    let counts = prop::collection::vec(count(), 1..10);
    let nodes = counts.prop_flat_map(|counts| {
        let ids: Vec<u32> = (0..counts.len() as u32).collect();
        let pair = (
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            0..3_u8,
        );
        (
            Just(counts),
            Just(ids).prop_shuffle(),
            prop::collection::vec(pair, 0..16),
            prop_oneof![Just(0), any::<u32>()],
        )
    });
    nodes.prop_map(|(counts, ids, pairs, joins)| {
        let at = |index: &prop::sample::Index| index.index(ids.len());
        let kind = |kind: u8| {
            if kind == 0 {
                Kind::All
            } else {
                Kind::Elementwise
            }
        };
        let pairs = pairs
            .iter()
            .map(|(a, b, of)| (at(a).max(at(b)), at(a).min(at(b)), kind(*of)));
        let edges = pairs
            .filter(|(a, b, _)| a != b)
            .map(|(a, b, kind)| (ids[a], ids[b], kind));
        Sample {
            counts,
            edges: edges.collect(),
            joins,
        }
        .mend()
    })
}
