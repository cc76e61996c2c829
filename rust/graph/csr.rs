//! Edges in compressed rows (CSR): from pairs to rows by dependent, and from those to rows by dependency.
//!
//! Everything here is a counting sort: count, sum the counts to get the beginning of each row, fill. Nodes are only ids
//! here.

use std::ops::Range;

use super::{Edges, Kind, NodeId};

/// Edges in one direction, in compressed rows.
#[derive(Debug)]
pub(super) struct Csr {
    pub(super) offsets: Vec<u32>,
    pub(super) targets: Vec<u32>,
    /// One byte for each edge, 1 for elementwise; empty if none is.
    pub(super) elementwise: Vec<u8>,
}

impl Csr {
    pub(super) fn of(&self, node: u32) -> &[u32] {
        &self.targets[self.range(node)]
    }

    /// Return the edges of a node; none of one that was added later.
    pub(super) fn range(&self, node: u32) -> Range<usize> {
        match self.offsets.get(node as usize..=node as usize + 1) {
            Some(&[start, end]) => start as usize..end as usize,
            _ => 0..0,
        }
    }

    pub(super) fn kind(&self, edge: usize) -> Kind {
        if self.elementwise.get(edge) == Some(&1) {
            Kind::Elementwise
        } else {
            Kind::All
        }
    }

    pub(super) fn edges(&self, node: u32) -> impl Iterator<Item = (NodeId, Kind)> + '_ {
        self.range(node)
            .map(|edge| (NodeId(self.targets[edge]), self.kind(edge)))
    }
}

/// Sort edges by dependent, keeping the order of each one's dependencies. O(nodes + edges).
pub(super) fn by_dependent(nodes: usize, edges: Edges) -> Csr {
    by_dependent_of(
        nodes,
        &edges.dependents,
        edges.dependencies,
        edges.elementwise,
    )
}

/// The same for the parts of edges; the dependents are only read.
pub(super) fn by_dependent_of(
    nodes: usize,
    dependents: &[u32],
    dependencies: Vec<u32>,
    elementwise: Vec<u8>,
) -> Csr {
    if let Some(offsets) = offsets_of_sorted(nodes, dependents) {
        return Csr {
            offsets,
            targets: dependencies,
            elementwise,
        };
    }
    let mut rows = Csr {
        offsets: offsets(nodes, dependents.iter().copied()),
        targets: vec![0; dependents.len()],
        elementwise: vec![0; elementwise.len()],
    };
    let mut place = rows.offsets.clone();
    for (edge, &dependent) in dependents.iter().enumerate() {
        let at = &mut place[dependent as usize];
        rows.targets[*at as usize] = dependencies[edge];
        if let Some(&kind) = elementwise.get(edge) {
            rows.elementwise[*at as usize] = kind;
        }
        *at += 1;
    }
    rows
}

/// Find the beginning of each node's row among ascending ids, as they are if steps are added one after the other;
/// `None` for others. One pass, whereas counting takes three.
fn offsets_of_sorted(nodes: usize, ids: &[u32]) -> Option<Vec<u32>> {
    let mut offsets = Vec::with_capacity(nodes + 1);
    for (edge, &id) in ids.iter().enumerate() {
        let rows = id as usize + 1;
        if rows < offsets.len() {
            return None;
        }
        while offsets.len() < rows {
            offsets.push(edge as u32);
        }
    }
    offsets.resize(nodes + 1, ids.len() as u32);
    Some(offsets)
}

/// Count how often each node occurs in `ids`, and sum the counts to get the beginning of each node's row.
fn offsets(nodes: usize, ids: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut offsets = vec![0; nodes + 1];
    for id in ids {
        offsets[id as usize + 1] += 1;
    }
    for node in 0..nodes {
        offsets[node + 1] += offsets[node];
    }
    offsets
}

/// Keep one edge for each pair; `All` wins. O(nodes + edges).
pub(super) fn unique(mut rows: Csr) -> Csr {
    let nodes = rows.offsets.len() - 1;
    let Some(first) = (0..nodes as u32).find(|node| repeats(rows.of(*node))) else {
        return rows;
    };
    let mut places = Vec::new();
    let mut kept = rows.offsets[first as usize] as usize;
    for node in first..nodes as u32 {
        let row = rows.range(node);
        rows.offsets[node as usize] = kept as u32;
        kept += if repeats(&rows.targets[row.clone()]) {
            rows.keep_once(row, kept, &mut places)
        } else {
            rows.move_up(row, kept)
        };
    }
    rows.offsets[nodes] = kept as u32;
    rows.targets.truncate(kept);
    rows.elementwise.truncate(kept);
    rows
}

impl Csr {
    /// Move a row to `begin`, with each dependency once; return their number.
    ///
    /// A short row is searched in place. For a long one `places` holds where each dependency was kept; a stale entry
    /// points before the row. This costs a random memory access for each edge.
    fn keep_once(&mut self, row: Range<usize>, begin: usize, places: &mut Vec<u32>) -> usize {
        let short = row.len() <= SHORT;
        if !short {
            places.resize(self.offsets.len() - 1, 0);
        }
        let mut kept = begin;
        for edge in row {
            let dependency = self.targets[edge];
            let before = if short {
                let others = &self.targets[begin..kept];
                let found = others.iter().position(|other| *other == dependency);
                found.map(|at| begin + at)
            } else {
                let at = places[dependency as usize] as usize;
                ((begin..kept).contains(&at) && self.targets[at] == dependency).then_some(at)
            };
            let at = before.unwrap_or(kept);
            if let Some(&kind) = self.elementwise.get(edge) {
                let known = before.map_or(1, |at| self.elementwise[at]);
                self.elementwise[at] = known & kind;
            }
            self.targets[at] = dependency;
            if !short {
                places[dependency as usize] = at as u32;
            }
            kept += usize::from(before.is_none());
        }
        kept - begin
    }

    /// Move a row to `begin` unchanged; return its length.
    fn move_up(&mut self, row: Range<usize>, begin: usize) -> usize {
        let count = row.len();
        if !self.elementwise.is_empty() {
            self.elementwise.copy_within(row.clone(), begin);
        }
        self.targets.copy_within(row, begin);
        count
    }
}

/// Rows of up to this number of edges are searched in place.
const SHORT: usize = 16;

/// Return true if a row may name a dependency twice: exact for short rows, a heuristic for long ones.
fn repeats(row: &[u32]) -> bool {
    match row {
        [] | [_] => false,
        [first, second] => first == second,
        _ if row.len() <= SHORT => (1..row.len()).any(|at| row[..at].contains(&row[at])),
        _ => !row.is_sorted_by(|a, b| a < b),
    }
}

/// Turn rows by dependent into rows by dependency; each row is in id order. O(nodes + edges).
///
/// Edges are first distributed to blocks of neighbouring dependencies, so that each block is counted and filled in the
/// cache: for ten million nodes with random edges this is twice as fast as filling all rows at once.
pub(super) fn transpose(rows: &Csr) -> Csr {
    transpose_into(rows, Vec::new())
}

/// The same in reused memory: getting a page from the kernel costs as much as filling it.
pub(super) fn transpose_into(rows: &Csr, mut room: Vec<u32>) -> Csr {
    room.resize(rows.targets.len(), 0);
    let nodes = rows.offsets.len() - 1;
    let blocks = CsrBlocks::deal(rows);
    let mut turned = Csr {
        offsets: vec![0; nodes + 1],
        targets: room,
        elementwise: vec![0; rows.elementwise.len()],
    };
    for block in 0..blocks.starts.len() - 1 {
        let edges = blocks.starts[block] as usize..blocks.starts[block + 1] as usize;
        let end = nodes.min((block + 1) << BLOCK);
        let places = &mut turned.offsets[block << BLOCK..=end];
        fill(
            places,
            edges.start as u32,
            &blocks.edges[edges.clone()],
            |edge, at| {
                turned.targets[at] = blocks.edges[edges.start + edge].1;
                if let Some(&kind) = blocks.elementwise.get(edges.start + edge) {
                    turned.elementwise[at] = kind;
                }
            },
        );
    }
    turned
}

/// Nodes in a block, as a power of two: their positions fit in the nearest cache.
const BLOCK: u32 = 14;

/// Edges by block of dependencies.
struct CsrBlocks {
    starts: Vec<u32>,
    /// Dependency and dependent.
    edges: Vec<(u32, u32)>,
    elementwise: Vec<u8>,
}

impl CsrBlocks {
    fn deal(rows: &Csr) -> Self {
        let nodes = rows.offsets.len() - 1;
        let block = |dependency: u32| dependency >> BLOCK;
        let starts = offsets(
            nodes.div_ceil(1 << BLOCK),
            rows.targets.iter().copied().map(block),
        );
        let mut place = starts.clone();
        let mut dealt = Self {
            starts,
            edges: vec![(0, 0); rows.targets.len()],
            elementwise: vec![0; rows.elementwise.len()],
        };
        for node in 0..nodes as u32 {
            for edge in rows.range(node) {
                let dependency = rows.targets[edge];
                let at = &mut place[block(dependency) as usize];
                dealt.edges[*at as usize] = (dependency, node);
                if let Some(&kind) = rows.elementwise.get(edge) {
                    dealt.elementwise[*at as usize] = kind;
                }
                *at += 1;
            }
        }
        dealt
    }
}

/// Sort the edges of a block by dependency: pass `put` the position of each, and leave in `places` the beginning of
/// each row. The rows begin at `start`; `places` has one entry for each node and one more, the beginning of the next
/// block.
fn fill(places: &mut [u32], start: u32, edges: &[(u32, u32)], mut put: impl FnMut(usize, usize)) {
    let Some(first) = edges.first().map(|edge| edge.0 >> BLOCK << BLOCK) else {
        return places.fill(start);
    };
    places.fill(0);
    for edge in edges {
        places[(edge.0 - first) as usize + 1] += 1;
    }
    places[0] = start;
    for at in 1..places.len() {
        places[at] += places[at - 1];
    }
    for (edge, (dependency, _)) in edges.iter().enumerate() {
        let at = &mut places[(dependency - first) as usize];
        put(edge, *at as usize);
        *at += 1;
    }
    // Each entry is now the beginning of the next row.
    places.rotate_right(1);
    places[0] = start;
}
