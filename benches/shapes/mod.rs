//! Shapes of graphs that more than one bench builds, by number of nodes: edges, and nothing of what is measured.

use flowyml::graph::Edges;

/// Each node waits for the one before it.
pub(crate) fn chain(nodes: u32) -> Edges {
    pairs((1..nodes).map(|node| (node, node - 1)))
}

/// Each node waits for two drawn ones before it; drawn by xorshift, so that every run draws the same.
pub(crate) fn random(nodes: u32) -> Edges {
    let mut state = 88_172_645_463_325_252_u64;
    let mut below = move |bound: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % u64::from(bound)) as u32
    };
    pairs((1..nodes).flat_map(|node| [(node, below(node)), (node, below(node))]))
}

/// Edges out of pairs: a node, and one that it waits for.
pub(crate) fn pairs(edges: impl Iterator<Item = (u32, u32)>) -> Edges {
    let (dependents, dependencies) = edges.unzip();
    Edges {
        dependents,
        dependencies,
        elementwise: Vec::new(),
    }
}
