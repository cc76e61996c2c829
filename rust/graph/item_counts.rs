//! The number of items of each node, the position of its items, and the nodes whose lengths become known together.
//!
//! A graph of ordinary steps needs no data: item k is node k. Otherwise one offset for each node is kept, and for nodes
//! of unknown length (which have no items yet) the group of nodes that take their length from the same root.

use std::collections::BTreeMap;

use super::topological_order::Direction;
use super::{Csr, Kind, NodeId, UNKNOWN};
use crate::error::GraphProblem;

/// Lengths of all nodes.
#[derive(Debug, Default)]
pub(crate) struct ItemCounts {
    /// First item of each node and the total; empty if every node has one item.
    offsets: Vec<u32>,
    /// Members of each group of unknown length by its root, dependencies first.
    groups: BTreeMap<u32, Vec<u32>>,
    /// Root of each node of unknown length.
    roots: BTreeMap<u32, u32>,
}

impl ItemCounts {
    /// Determine the length of every node, following elementwise edges from dependencies to dependents.
    ///
    /// `order` has dependents before dependencies; without one (the graph has cycles) only the declared lengths are compared.
    ///
    /// # Errors
    ///
    /// Elementwise edges between different lengths, more items than fit 32 bits.
    pub(super) fn resolve(
        counts: Option<&[u32]>,
        dependencies: &Csr,
        order: Option<&Direction>,
    ) -> Result<Self, Vec<GraphProblem>> {
        let Some(declared) = counts else {
            return Ok(Self::default());
        };
        let Some(order) = order else {
            let mismatches = mismatches(
                dependencies,
                |a, b| a == b || a == UNKNOWN || b == UNKNOWN,
                declared,
            );
            return if mismatches.is_empty() {
                Ok(Self::default())
            } else {
                Err(mismatches)
            };
        };
        let mut counts = declared.to_vec();
        let mut roots = BTreeMap::new();
        let mut groups = BTreeMap::<u32, Vec<u32>>::new();
        for node in order.iter().rev() {
            adopt(&mut counts, &mut roots, dependencies, node);
            if counts[node as usize] == UNKNOWN {
                let root = *roots.entry(node).or_insert(node);
                groups.entry(root).or_default().push(node);
            }
        }
        let same_root = |a: u32, b: u32| roots.get(&a) == roots.get(&b);
        let mut problems = mismatches(dependencies, |a, b| a == b, &counts);
        problems.extend(
            pairs(dependencies)
                .filter(|&(a, b)| {
                    counts[a as usize] == UNKNOWN
                        && counts[b as usize] == UNKNOWN
                        && !same_root(a, b)
                })
                .map(mismatch),
        );
        if !problems.is_empty() {
            return Err(problems);
        }
        if items(0, counts.iter().copied()) >= u64::from(UNKNOWN) {
            return Err(vec![GraphProblem::TooLarge]);
        }
        Ok(Self {
            offsets: offsets(&counts),
            groups,
            roots,
        })
    }

    pub(super) fn total(&self, nodes: u32) -> u32 {
        self.offsets.last().copied().unwrap_or(nodes)
    }

    pub(super) fn first(&self, node: u32) -> u32 {
        self.offsets.get(node as usize).copied().unwrap_or(node)
    }

    pub(super) fn count(&self, node: u32) -> u32 {
        match self.offsets.get(node as usize..node as usize + 2) {
            None => 1,
            Some(&[first, next]) if first < next => next - first,
            Some(_) => {
                if self.roots.contains_key(&node) {
                    UNKNOWN
                } else {
                    0
                }
            }
        }
    }

    pub(super) fn node_of(&self, item: u32) -> u32 {
        if self.offsets.is_empty() {
            item
        } else {
            self.offsets.partition_point(|first| *first <= item) as u32 - 1
        }
    }

    pub(super) fn group(&self, root: u32) -> &[u32] {
        self.groups.get(&root).map_or(&[], Vec::as_slice)
    }

    pub(super) fn root(&self, node: u32) -> Option<u32> {
        self.roots.get(&node).copied()
    }

    /// Return the nodes that have not exactly one item, in id order.
    pub(crate) fn mapped(&self) -> impl Iterator<Item = NodeId> + '_ {
        let pairs = self.offsets.windows(2).enumerate();
        pairs
            .filter(|(_, pair)| pair[1] - pair[0] != 1)
            .map(|(node, _)| NodeId(node as u32))
    }
}

/// Return `before` plus the known counts. Only settled counts may be passed: a node that is declared unknown may take a
/// known length from its dependency, and the other way round.
pub(super) fn items(before: u32, counts: impl Iterator<Item = u32>) -> u64 {
    let known = counts.filter(|count| *count != UNKNOWN).map(u64::from);
    u64::from(before) + known.sum::<u64>()
}

/// Give `node` the length of its elementwise dependencies, if it is declared unknown or theirs is unknown.
fn adopt(counts: &mut [u32], roots: &mut BTreeMap<u32, u32>, dependencies: &Csr, node: u32) {
    for (dependency, kind) in dependencies.edges(node) {
        if kind == Kind::Elementwise {
            let length = counts[dependency.index()];
            if length == UNKNOWN {
                counts[node as usize] = UNKNOWN;
                let root = roots[&dependency.0];
                roots.entry(node).or_insert(root);
            } else if counts[node as usize] == UNKNOWN && !roots.contains_key(&node) {
                counts[node as usize] = length;
            }
        }
    }
}

/// Return the elementwise edges (dependent, dependency) in node order.
fn pairs(dependencies: &Csr) -> impl Iterator<Item = (u32, u32)> + '_ {
    let nodes = if dependencies.elementwise.is_empty() {
        0
    } else {
        dependencies.offsets.len() as u32 - 1
    };
    (0..nodes).flat_map(|node| {
        dependencies
            .edges(node)
            .filter(|edge| edge.1 == Kind::Elementwise)
            .map(move |edge| (node, edge.0.0))
    })
}

fn mismatches(
    dependencies: &Csr,
    same: impl Fn(u32, u32) -> bool,
    counts: &[u32],
) -> Vec<GraphProblem> {
    let differ = |pair: &(u32, u32)| !same(counts[pair.0 as usize], counts[pair.1 as usize]);
    pairs(dependencies).filter(differ).map(mismatch).collect()
}

fn mismatch((node, dependency): (u32, u32)) -> GraphProblem {
    GraphProblem::LengthMismatch {
        node: NodeId(node),
        dependency: NodeId(dependency),
    }
}

/// Sum the known counts to get the beginning of each node's items; empty if every node has one item.
fn offsets(counts: &[u32]) -> Vec<u32> {
    if counts.iter().all(|count| *count == 1) {
        return Vec::new();
    }
    let known = counts
        .iter()
        .map(|&count| if count == UNKNOWN { 0 } else { count });
    let sums = known.scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}
