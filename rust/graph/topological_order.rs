//! Weights and ranks. The search for weights also finds cycles: a node on a cycle never gets a weight.

use std::cmp::Reverse;

use super::Ranks;
use super::csr::Csr;

/// The result of removing leaves one after the other.
pub(super) struct TopologicalOrder {
    /// Nodes in the order of removal: each after all its dependents.
    pub(super) order: Direction,
    /// The weight of each removed node.
    pub(super) weights: Vec<u32>,
}

/// Nodes, each after all its dependents.
pub(super) enum Direction {
    /// All nodes, this many, by descending id: no list is stored.
    Falling(u32),
    /// These, in this order.
    Listed(Vec<u32>),
}

impl Direction {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Falling(count) => *count as usize,
            Self::Listed(nodes) => nodes.len(),
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        (0..self.len()).map(|place| match self {
            Self::Falling(count) => count - 1 - place as u32,
            Self::Listed(nodes) => nodes[place],
        })
    }
}

/// Do the same as [`peel`] for edges that all go from a lower id to a higher one, as they do if a step is added after
/// its dependencies: one sequential pass over the rows. `None` for other edges. O(nodes + edges).
pub(super) fn sweep(dependencies: &Csr) -> Option<TopologicalOrder> {
    let nodes = dependencies.offsets.len() as u32 - 1;
    let mut weights = vec![1; nodes as usize];
    for node in (0..nodes).rev() {
        let above = weights[node as usize] + 1;
        for &dependency in dependencies.of(node) {
            if dependency > node {
                return None;
            }
            let weight = &mut weights[dependency as usize];
            *weight = above.max(*weight);
        }
    }
    Some(TopologicalOrder {
        order: Direction::Falling(nodes),
        weights,
    })
}

/// Remove leaves until none is left, breadth first. A node is removed after its last dependent, so its weight is one
/// more than that dependent's. O(nodes + edges).
pub(super) fn peel(dependencies: &Csr, dependents: &Csr) -> TopologicalOrder {
    // One array for both: the number of remaining dependents until the node is removed, its weight from then on.
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
    TopologicalOrder {
        order: Direction::Listed(order),
        weights,
    }
}

/// Sort nodes by descending weight, then id: rank of each node and node of each rank. O(nodes), a counting sort.
pub(super) fn rank(weights: &[u32]) -> Ranks {
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
    Ranks::new(ranks, by_rank)
}

/// Sort nodes by descending remaining time from their start on, then by id. `backwards` has each node before its
/// dependencies. Each node counts for at least a nanosecond, so that none precedes its dependencies. O(nodes log nodes
/// + edges).
pub(super) fn by_time(
    durations: &[f64],
    backwards: impl Iterator<Item = u32>,
    dependents: &Csr,
) -> Ranks {
    let mut left = vec![0_u128; durations.len()];
    for node in backwards {
        let behind = dependents
            .of(node)
            .iter()
            .map(|other| left[*other as usize]);
        #[expect(
            clippy::cast_sign_loss,
            reason = "less than 0 and what is no number give 0, as they should"
        )]
        let own = (durations[node as usize] * 1e9) as u64;
        let behind = behind.max().unwrap_or(0);
        left[node as usize] = u128::from(own.max(1)) + behind;
    }
    let mut nodes: Vec<u32> = (0..durations.len() as u32).collect();
    nodes.sort_by_key(|node| Reverse(left[*node as usize]));
    let mut of = vec![0; nodes.len()];
    for (rank, node) in nodes.iter().enumerate() {
        of[*node as usize] = rank as u32;
    }
    Ranks::new(of, nodes)
}
