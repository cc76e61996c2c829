//! From flat arrays to a graph: checks, compressed rows, weights and ranks.
//!
//! ```text
//! edges ──check──▶ rows by dependent ──unique──▶ rows by dependency ──peel──▶ weights ──▶ ranks
//!          │                                                            │
//!     range, self                                          what is left over has cycles
//! ```
//!
//! Each stage is linear and iterative. Problems are gathered through all stages, so that one call shows all of them.

use super::{Graph, Kind, Lengths, NodeId, Rows, UNKNOWN, cycles};
use crate::error::Problem;

/// Edges as parallel arrays: `dependents[k]` waits for `dependencies[k]`.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    /// The nodes that wait.
    pub dependents: Vec<u32>,
    /// The nodes they wait for.
    pub dependencies: Vec<u32>,
    /// 1 for an elementwise edge; empty if all edges are `All`.
    pub elementwise: Vec<u8>,
}

impl Edges {
    /// Add one edge.
    pub fn push(&mut self, dependent: NodeId, dependency: NodeId, kind: Kind) {
        self.dependents.push(dependent.0);
        self.dependencies.push(dependency.0);
        if kind == Kind::Elementwise || !self.elementwise.is_empty() {
            self.elementwise.resize(self.dependents.len() - 1, 0);
            self.elementwise.push(u8::from(kind == Kind::Elementwise));
        }
    }

    fn len(&self) -> usize {
        self.dependents.len()
    }

    fn are_sorted(&self) -> bool {
        self.dependents.is_sorted()
    }

    /// Keep the edges for which `keep` holds.
    fn retain(&mut self, keep: impl Fn(u32, u32) -> bool) {
        let kept: Vec<usize> = (0..self.len())
            .filter(|&edge| keep(self.dependents[edge], self.dependencies[edge]))
            .collect();
        *self = Self {
            dependents: kept.iter().map(|&edge| self.dependents[edge]).collect(),
            dependencies: kept.iter().map(|&edge| self.dependencies[edge]).collect(),
            elementwise: if self.elementwise.is_empty() {
                Vec::new()
            } else {
                kept.iter().map(|&edge| self.elementwise[edge]).collect()
            },
        };
    }
}

impl Graph {
    /// Make a graph of `nodes` nodes with `counts` items each (`None`: one each; [`UNKNOWN`]: known only at run time).
    ///
    /// # Errors
    ///
    /// Everything wrong with it, in this order: ids out of range and self-dependencies in edge order, cycles by their lowest
    /// id, different lengths in node order.
    ///
    /// # Panics
    ///
    /// If `counts`, `edges.dependencies` or `edges.elementwise` have not the length they go by.
    ///
    /// O(nodes + edges) time; about 36 bytes a node and 16 an edge at the peak beside the arguments, iterative.
    pub fn build(
        nodes: usize,
        counts: Option<&[u32]>,
        mut edges: Edges,
    ) -> Result<Self, Vec<Problem>> {
        assert_eq!(
            edges.dependents.len(),
            edges.dependencies.len(),
            "edges are pairs"
        );
        assert!(
            counts.is_none_or(|counts| counts.len() == nodes),
            "one count for each node"
        );
        assert!(
            edges.elementwise.is_empty() || edges.elementwise.len() == edges.len(),
            "one kind for each edge"
        );
        if !fits(nodes, counts, edges.len()) {
            return Err(vec![Problem::TooLarge]);
        }
        let mut problems = check_edges(nodes as u32, &edges);
        if !problems.is_empty() {
            edges.retain(|dependent, dependency| {
                dependent != dependency && dependent.max(dependency) < nodes as u32
            });
        }
        let mut dependencies = unique(by_dependent(nodes, edges));
        let mut dependents = transpose(&dependencies);
        let peeled = peel(&dependencies, &dependents);
        problems.extend(cycles::find(&dependencies, &dependents, &peeled.order));
        let acyclic = peeled.order.len() == nodes;
        let lengths =
            match Lengths::resolve(counts, &dependencies, acyclic.then_some(&peeled.order)) {
                Ok(lengths) if problems.is_empty() => lengths,
                Ok(_) => return Err(problems),
                Err(mismatches) => return Err(problems.into_iter().chain(mismatches).collect()),
            };
        single_items_wait_for_all(&mut dependencies, &lengths);
        single_items_wait_for_all(&mut dependents, &lengths);
        let weights = peeled.weights;
        let (ranks, by_rank) = rank(&weights);
        Ok(Self {
            dependencies,
            dependents,
            lengths,
            weights,
            ranks,
            by_rank,
        })
    }
}

/// Say whether nodes, edges and items of known number fit 32 bits, with [`UNKNOWN`] left over.
fn fits(nodes: usize, counts: Option<&[u32]>, edges: usize) -> bool {
    let items = counts.map_or(nodes as u64, |counts| {
        counts
            .iter()
            .filter(|count| **count != UNKNOWN)
            .map(|count| u64::from(*count))
            .sum()
    });
    nodes < UNKNOWN as usize && edges < UNKNOWN as usize && items < u64::from(UNKNOWN)
}

fn check_edges(nodes: u32, edges: &Edges) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (&dependent, &dependency) in edges.dependents.iter().zip(&edges.dependencies) {
        if dependent.max(dependency) >= nodes {
            let out = [dependent, dependency]
                .into_iter()
                .filter(|id| *id >= nodes);
            problems.extend(out.map(|id| Problem::OutOfRange { node: NodeId(id) }));
        } else if dependent == dependency {
            problems.push(Problem::SelfDependency {
                node: NodeId(dependent),
            });
        }
    }
    problems.dedup();
    problems
}

/// Sort edges by dependent, keeping the order of each one's dependencies. O(nodes + edges).
fn by_dependent(nodes: usize, edges: Edges) -> Rows {
    let offsets = offsets(nodes, &edges.dependents);
    if edges.are_sorted() {
        return Rows {
            offsets,
            targets: edges.dependencies,
            elementwise: edges.elementwise,
        };
    }
    let mut rows = Rows {
        offsets,
        targets: vec![0; edges.len()],
        elementwise: vec![0; edges.elementwise.len()],
    };
    let mut place = rows.offsets.clone();
    for (edge, &dependent) in edges.dependents.iter().enumerate() {
        let at = &mut place[dependent as usize];
        rows.targets[*at as usize] = edges.dependencies[edge];
        if let Some(&kind) = edges.elementwise.get(edge) {
            rows.elementwise[*at as usize] = kind;
        }
        *at += 1;
    }
    rows
}

/// Count how often each node occurs in `ids`, and sum the counts up to where each node's row begins.
fn offsets(nodes: usize, ids: &[u32]) -> Vec<u32> {
    let mut offsets = vec![0; nodes + 1];
    for &id in ids {
        offsets[id as usize + 1] += 1;
    }
    for node in 0..nodes {
        offsets[node + 1] += offsets[node];
    }
    offsets
}

/// Keep one edge for each pair; `All` wins. O(nodes + edges).
fn unique(mut rows: Rows) -> Rows {
    let nodes = rows.offsets.len() - 1;
    if (0..nodes as u32).all(|node| rows.of(node).len() < 2 || !repeats(rows.of(node))) {
        return rows;
    }
    // Where in the row of the node at hand a dependency was kept; an older entry lies before the row.
    let mut kept_at = vec![0_u32; nodes];
    let mut kept = 0;
    for node in 0..nodes {
        let row = rows.range(node as u32);
        rows.offsets[node] = kept as u32;
        let begin = kept;
        for edge in row {
            let dependency = rows.targets[edge] as usize;
            let before = kept_at[dependency] as usize;
            let seen =
                (begin..kept).contains(&before) && rows.targets[before] as usize == dependency;
            let at = if seen { before } else { kept };
            if let Some(&kind) = rows.elementwise.get(edge) {
                rows.elementwise[at] = if seen {
                    rows.elementwise[at] & kind
                } else {
                    kind
                };
            }
            rows.targets[at] = dependency as u32;
            kept_at[dependency] = at as u32;
            kept += usize::from(!seen);
        }
    }
    rows.offsets[nodes] = kept as u32;
    rows.targets.truncate(kept);
    rows.elementwise.truncate(kept);
    rows
}

/// Say whether a row may name a dependency twice: exactly for short rows, on suspicion for long ones.
fn repeats(row: &[u32]) -> bool {
    row.len() > 16 && !row.is_sorted_by(|a, b| a < b)
        || row.len() <= 16 && (1..row.len()).any(|at| row[..at].contains(&row[at]))
}

/// Turn elementwise edges between nodes of one item into `All` edges; forget the kinds if no elementwise edge is left.
fn single_items_wait_for_all(rows: &mut Rows, lengths: &Lengths) {
    for node in 0..rows.offsets.len() as u32 - 1 {
        for edge in rows.range(node) {
            if rows.kind(edge) == Kind::Elementwise && lengths.count(node) == 1 {
                rows.elementwise[edge] = 0;
            }
        }
    }
    if rows.elementwise.iter().all(|kind| *kind == 0) {
        rows.elementwise = Vec::new();
    }
}

/// Turn rows by dependent into rows by dependency; each row is in id order. O(nodes + edges).
fn transpose(rows: &Rows) -> Rows {
    let nodes = rows.offsets.len() - 1;
    let mut turned = Rows {
        offsets: offsets(nodes, &rows.targets),
        targets: vec![0; rows.targets.len()],
        elementwise: vec![0; rows.elementwise.len()],
    };
    let mut place = turned.offsets.clone();
    for node in 0..nodes as u32 {
        for edge in rows.range(node) {
            let at = &mut place[rows.targets[edge] as usize];
            turned.targets[*at as usize] = node;
            if let Some(&kind) = rows.elementwise.get(edge) {
                turned.elementwise[*at as usize] = kind;
            }
            *at += 1;
        }
    }
    turned
}

/// What is left when leaves are taken off one after the other.
struct Peeled {
    /// Nodes in the order in which they came off: each after all its dependents.
    order: Vec<u32>,
    /// The weight of each node that came off.
    weights: Vec<u32>,
}

/// Take leaves off until none is left, breadth first. A node comes off when its last dependent does, so its weight is one
/// more than that dependent's. O(nodes + edges).
fn peel(dependencies: &Rows, dependents: &Rows) -> Peeled {
    // One array for both: the number of dependents left until the node comes off, its weight from then on.
    let mut weights: Vec<u32> = dependents
        .offsets
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    let mut order = Vec::with_capacity(weights.len());
    order.extend((0..weights.len() as u32).filter(|node| weights[*node as usize] == 0));
    for &leaf in &order {
        weights[leaf as usize] = 1;
    }
    let mut at = 0;
    while let Some(&node) = order.get(at) {
        at += 1;
        let above = weights[node as usize] + 1;
        for &dependency in dependencies.of(node) {
            let left = &mut weights[dependency as usize];
            *left -= 1;
            if *left == 0 {
                *left = above;
                order.push(dependency);
            }
        }
    }
    Peeled { order, weights }
}

/// Sort nodes by falling weight, then id: rank of each node and node of each rank. O(nodes), a counting sort.
fn rank(weights: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let heaviest = weights.iter().copied().max().unwrap_or(0);
    let mut place = vec![0_u32; heaviest as usize + 2];
    for &weight in weights {
        place[(heaviest - weight) as usize + 1] += 1;
    }
    for at in 1..place.len() {
        place[at] += place[at - 1];
    }
    let (mut ranks, mut by_rank) = (vec![0; weights.len()], vec![0; weights.len()]);
    for (node, &weight) in weights.iter().enumerate() {
        let at = &mut place[(heaviest - weight) as usize];
        ranks[node] = *at;
        by_rank[*at as usize] = node as u32;
        *at += 1;
    }
    (ranks, by_rank)
}
