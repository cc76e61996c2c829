//! Random grafts: some that fit, some that do not, which must change nothing.
//!
//! Whether one fits is found out by building the whole graph anew, with the lengths that are known by now.

use std::collections::BTreeSet;

use flowyml::error::{GraphProblem, InvalidCall, InvalidGraft};
use flowyml::graph::{Edges, Graph, Kind, NewNodes, NodeId, UNKNOWN};
use flowyml::scheduler::{Graft, Limits};

use super::graphs::CLASSES;
use super::reference::Item;
use super::{Pair, Part};

const MOST_NODES: u32 = 26;

/// Small random numbers that follow from one.
struct Dice(u32);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % bound.max(1)
    }

    fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }
}

impl Pair {
    pub(super) fn graft(&mut self, choice: u32) {
        let mut dice = Dice(choice | 1 << 31);
        if self.keep.len() as u32 > MOST_NODES {
            return;
        }
        let Some((at, position, item)) = self.upon(&mut dice) else {
            return self.claim(choice);
        };
        if self.model.is_ahead(item) || self.follows(at, position + 1) {
            let (batch, now) = (self.out[at].0.clone(), self.now);
            return self.refuse_chained(|core| {
                match core.graft(&batch, position, now, &Graft::default()) {
                    Err(InvalidGraft::Call(refusal)) => Err(refusal),
                    other => panic!("{other:?}"),
                }
            });
        }
        let mut edges = self.edges(&mut dice);
        let mut graft = self.dice_graft(&mut dice, edges.len());
        loop {
            graft.nodes.edges = packed(&edges);
            let fits = self.fits(item, &edges, &graft.nodes);
            let mended = fits
                .as_ref()
                .err()
                .is_some_and(|problems| mend(&mut edges, problems));
            let before = format!("{:?}", self.scheduler);
            let batch = self.out[at].0.clone();
            match (
                self.scheduler.graft(&batch, position, self.now, &graft),
                fits,
            ) {
                (Ok(first), Ok(graph)) => {
                    assert_eq!(first.index(), self.keep.len());
                    return self.note_graft((at, position), item, &graph, &edges, &graft);
                }
                (Err(InvalidGraft::Graph(found)), Err(expected)) => {
                    same_problems(&found, &expected);
                }
                (Err(InvalidGraft::Call(refusal)), fits) => {
                    let reason = self.reason(item, &edges);
                    assert_eq!(Some(refusal), reason, "{:?}", fits.err());
                }
                (got, expected) => panic!("{got:?} where {:?}", expected.err()),
            }
            assert_eq!(
                before,
                format!("{:?}", self.scheduler),
                "nothing has changed"
            );
            if !mended {
                return;
            }
        }
    }

    /// Choose what to graft upon: batch, position and item. Sometimes it is an item for which that is refused.
    fn upon(&self, dice: &mut Dice) -> Option<(usize, u32, Item)> {
        let any = dice.once_in(12);
        let mut choices = Vec::new();
        for (at, (batch, positions)) in self.out.iter().enumerate() {
            for &position in positions {
                let item = self.locate(batch.at(position).expect("a position").0);
                if any || self.model.lengths[item.0 as usize] == Some(1) {
                    choices.push((at, position, item));
                }
            }
        }
        (!choices.is_empty()).then(|| dice.pick(&choices))
    }

    /// Return edges of three new nodes.
    fn edges(&self, dice: &mut Dice) -> Vec<(u32, u32, Kind)> {
        let first = self.keep.len() as u32;
        let new = 3;
        let mut edges = Vec::new();
        for _ in 0..dice.below(6) {
            let mut dependent = first + dice.below(new);
            let mut dependency = dice.below(first + new);
            if dice.once_in(2) {
                dependency = first + dice.below(new);
            }
            if dependency > dependent && !dice.once_in(6) {
                (dependent, dependency) = (dependency, dependent);
            }
            if dependent == dependency && !dice.once_in(20) {
                continue;
            }
            if dice.once_in(40) {
                dependent = dice.below(first);
            }
            let kind = dice.pick(&[Kind::All, Kind::Elementwise]);
            edges.push((dependent, dependency, kind));
        }
        edges
    }

    fn dice_graft(&self, dice: &mut Dice, edges: usize) -> Graft {
        let first = self.keep.len() as u32;
        let new = if edges == 0 { dice.below(4) } else { 3 };
        let mut counts = Vec::new();
        let mut awaited = Vec::new();
        for node in 0..new {
            counts.push(dice.pick(&[1, 1, 1, 3, 3, 2, UNKNOWN, UNKNOWN, 0]));
            if dice.once_in(2) {
                awaited.push(first + node);
            }
        }
        if dice.once_in(40) {
            awaited.push(dice.below(first));
        }
        let mut bytes = || (0..new).map(|_| u8::from(dice.once_in(2))).collect();
        let (joins, keep): (Vec<u8>, Vec<u8>) = (bytes(), bytes());
        Graft {
            nodes: NewNodes {
                counts,
                edges: Edges::default(),
                joins: if dice.once_in(2) { joins } else { Vec::new() },
                awaited,
            },
            keep: dice.once_in(2).then_some(keep),
            limits: self.dice_limits(dice, new),
        }
    }

    fn dice_limits(&self, dice: &mut Dice, new: u32) -> Limits {
        let totals = if self.bounds.totals.is_empty() {
            vec![2, 1]
        } else {
            Vec::new()
        };
        if dice.once_in(2) {
            return Limits::default();
        }
        let class = |_| dice.below(CLASSES.len() as u32);
        Limits {
            divided: (!totals.is_empty()).then_some((0, 1)),
            totals,
            demands: Some((0..new).map(class).collect()),
            classes: CLASSES.map(<[_]>::to_vec).to_vec(),
        }
    }

    /// Build the whole graph as it would be.
    fn fits(
        &self,
        item: Item,
        edges: &[(u32, u32, Kind)],
        nodes: &NewNodes,
    ) -> Result<Graph, Vec<GraphProblem>> {
        let first = self.keep.len() as u32;
        let lengths = self.model.lengths.iter();
        let lengths = lengths.map(|length| length.unwrap_or(UNKNOWN));
        let counts: Vec<u32> = lengths.chain(nodes.counts.iter().copied()).collect();
        let new = first..counts.len() as u32;
        let ends = edges
            .iter()
            .map(|edge| edge.0)
            .chain(nodes.awaited.iter().copied());
        let old = ends.filter(|node| !new.contains(node));
        let mut problems: Vec<GraphProblem> = old
            .map(|node| GraphProblem::OutOfRange { node: NodeId(node) })
            .collect();
        let valid = edges.iter().filter(|edge| new.contains(&edge.0));
        let awaited = nodes.awaited.iter().filter(|node| new.contains(node));
        let mut all = self.model.edges();
        all.extend(valid);
        all.extend(awaited.map(|node| (item.0, *node, Kind::All)));
        match Graph::build(counts.len(), Some(&counts), packed(&all)) {
            Ok(graph) if problems.is_empty() => Ok(graph),
            found => {
                problems.extend(found.err().into_iter().flatten());
                Err(problems)
            }
        }
    }

    /// Why a graft is refused though the graph may be right.
    fn reason(&self, item: Item, edges: &[(u32, u32, Kind)]) -> Option<InvalidCall> {
        let node = NodeId(item.0);
        if self.model.lengths[item.0 as usize] != Some(1) {
            return Some(InvalidCall::NotSingle { node });
        }
        let older = edges.iter().map(|edge| edge.1);
        let gone = |node: &u32| self.released.iter().any(|item| item.0 == *node);
        let node = older.filter(gone).min().map(NodeId)?;
        Some(InvalidCall::Released { node })
    }

    fn note_graft(
        &mut self,
        (at, position): (usize, u32),
        item: Item,
        graph: &Graph,
        edges: &[(u32, u32, Kind)],
        graft: &Graft,
    ) {
        assert_eq!(self.reason(item, edges), None);
        self.remove(Part {
            batch: at,
            position,
            length: 1,
        });
        let new = graft.nodes.counts.len();
        self.bounds.extend(new, &graft.limits);
        self.keep
            .extend(graft.keep.clone().unwrap_or_else(|| vec![1; new]));
        let lengths: Vec<u32> = graph.nodes().map(|node| graph.count(node)).collect();
        let awaited: BTreeSet<u32> = graft.nodes.awaited.iter().copied().collect();
        self.model
            .graft(item, &lengths, edges, &graft.nodes.joins, awaited);
        for node in graph.nodes() {
            let ends = |graph: &Graph| {
                let (up, down) = (graph.dependencies(node), graph.dependents(node));
                (up.map(|end| end.0).collect(), down.collect())
            };
            let (up, down): (BTreeSet<NodeId>, Vec<_>) = ends(self.scheduler.graph());
            assert_eq!((up, down), ends(graph), "{node:?}");
        }
    }
}

fn packed(edges: &[(u32, u32, Kind)]) -> Edges {
    let mut packed = Edges::default();
    for &(dependent, dependency, kind) in edges {
        packed.push(NodeId(dependent), NodeId(dependency), kind);
    }
    packed
}

/// Turn elementwise edges between different lengths into `All` edges; say whether there were any.
fn mend(edges: &mut [(u32, u32, Kind)], problems: &[GraphProblem]) -> bool {
    let mut mended = false;
    for problem in problems {
        if let GraphProblem::LengthMismatch { node, dependency } = problem {
            let same = |edge: &&mut (u32, u32, Kind)| (edge.0, edge.1) == (node.0, dependency.0);
            for edge in edges.iter_mut().filter(same) {
                mended |= edge.2 != Kind::All;
                edge.2 = Kind::All;
            }
        }
    }
    mended
}

/// Compare problems, but for the way a cycle takes.
fn same_problems(found: &[GraphProblem], expected: &[GraphProblem]) {
    let told = |problems: &[GraphProblem]| -> BTreeSet<String> {
        let cycle = |problem: &GraphProblem| matches!(problem, GraphProblem::Cycle { .. });
        let cycles = problems.iter().filter(|problem| cycle(problem));
        let others = problems.iter().filter(|problem| !cycle(problem));
        let others = others.map(|problem| format!("{problem:?}"));
        others
            .chain([format!("{} cycles", cycles.count())])
            .collect()
    };
    assert_eq!(told(found), told(expected));
}
