//! Single grafts: what fits, what is refused and why, what new nodes mean for those that were there. `tests/model/` has random ones.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::sync::Arc;

use flowyml::error::{GraphProblem, InvalidCall, InvalidGraft};
use flowyml::graph::{Edges, Graph, ItemId, Kind, NewNodes, NodeId, UNKNOWN};
use flowyml::scheduler::{Batch, Graft, Limits, Order, Outcomes, Scheduler, State};

type Pairs<'a> = &'a [(u32, u32)];

/// Return `All` edges of pairs (dependent, dependency).
fn edges(pairs: Pairs<'_>) -> Edges {
    let mut edges = Edges::default();
    for pair in pairs {
        edges.push(NodeId(pair.0), NodeId(pair.1), Kind::All);
    }
    edges
}

fn scheduler(counts: &[u32], pairs: Pairs<'_>, joins: &[u8]) -> Scheduler {
    kept(counts, pairs, joins, None)
}

fn kept(counts: &[u32], pairs: Pairs<'_>, joins: &[u8], keep: Option<&[u8]>) -> Scheduler {
    let graph = Graph::build(counts.len(), Some(counts), edges(pairs)).unwrap();
    let mut all = joins.to_vec();
    all.resize(counts.len(), 0);
    Scheduler::new(Arc::new(graph.with_joins(all)), Order::CriticalPath, keep).unwrap()
}

fn grafted(counts: &[u32], pairs: Pairs<'_>, joins: &[u8], awaited: &[u32]) -> Graft {
    let nodes = NewNodes {
        counts: counts.to_vec(),
        edges: edges(pairs),
        joins: joins.to_vec(),
        awaited: awaited.to_vec(),
    };
    Graft {
        nodes,
        ..Graft::default()
    }
}

/// Claim one item, which is that of `node`.
fn claim(core: &mut Scheduler, node: u32) -> Batch {
    let batch = core.claim(0, 1, 0.0).unwrap();
    assert_eq!(batch.at(0).unwrap().1, NodeId(node));
    batch
}

fn end(core: &mut Scheduler, batch: &Batch, state: State) {
    core.complete(batch, 0, 0.0, &[1.0], Outcomes::Each(&[state as u8]))
        .unwrap();
    core.check_invariants().unwrap();
}

/// Run the only ready item, which is that of `node`.
fn run(core: &mut Scheduler, node: u32, state: State) {
    let batch = claim(core, node);
    end(core, &batch, state);
}

fn graft(core: &mut Scheduler, batch: &Batch, graft: &Graft) -> Result<NodeId, InvalidGraft> {
    let first = core.graft(batch, 0, 1.0, graft);
    core.check_invariants().unwrap();
    first
}

fn cycle(path: &[u32]) -> Result<NodeId, InvalidGraft> {
    let path = path.iter().copied().map(NodeId).collect();
    Err(InvalidGraft::Graph(vec![GraphProblem::Cycle { path }]))
}

// ---- what does not fit ----

#[test]
fn ids_from_the_first_that_is_not_there_are_out_of_range() {
    let out = |ids: &[u32]| {
        Err(InvalidGraft::Graph(
            ids.iter()
                .map(|id| GraphProblem::OutOfRange { node: NodeId(*id) })
                .collect(),
        ))
    };
    let mut core = scheduler(&[1, 1], &[(1, 0)], &[]);
    let batch = claim(&mut core, 0);
    assert_eq!(
        graft(&mut core, &batch, &grafted(&[1], &[(2, 3)], &[], &[])),
        out(&[3])
    );
    assert_eq!(
        graft(&mut core, &batch, &grafted(&[1], &[(1, 2)], &[], &[])),
        out(&[1])
    );
    assert_eq!(
        graft(&mut core, &batch, &grafted(&[1], &[], &[], &[3, 1])),
        out(&[3, 1])
    );
    assert_eq!(
        graft(&mut core, &batch, &grafted(&[1], &[], &[], &[2])),
        Ok(NodeId(2))
    );
}

#[test]
fn only_a_node_of_one_item_may_be_grafted_upon() {
    for count in [1, 2] {
        let mut core = scheduler(&[count], &[], &[]);
        let batch = claim(&mut core, 0);
        let grafted = graft(&mut core, &batch, &grafted(&[1], &[], &[], &[1]));
        assert_eq!(grafted.is_ok(), count == 1, "{grafted:?}");
    }
}

#[test]
fn masks_and_demands_have_one_entry_for_each_new_node() {
    let mut core = kept(&[1], &[], &[], Some(&[0]));
    let batch = claim(&mut core, 0);
    let one = || grafted(&[1], &[], &[], &[]);
    let mask = InvalidCall::Mask {
        length: 2,
        nodes: 1,
    };
    let two = Graft {
        keep: Some(vec![0, 0]),
        ..one()
    };
    assert_eq!(
        graft(&mut core, &batch, &two),
        Err(InvalidGraft::Call(mask))
    );
    let limits = Limits {
        demands: Some(vec![0, 0]),
        ..Limits::default()
    };
    let demands = InvalidCall::Demands {
        length: 2,
        nodes: 1,
    };
    assert_eq!(
        graft(&mut core, &batch, &Graft { limits, ..one() }),
        Err(InvalidGraft::Call(demands))
    );
}

#[test]
fn one_limit_is_divided_into_devices_at_the_most_and_it_is_a_new_one() {
    let mut core = scheduler(&[1], &[], &[]);
    let divided = |totals: &[u32], limit| Limits {
        totals: totals.to_vec(),
        divided: Some((limit, 1)),
        ..Limits::default()
    };
    let one = |limits, awaited: &[u32]| Graft {
        limits,
        ..grafted(&[1], &[], &[], awaited)
    };
    let refused = |limit| Err(InvalidGraft::Call(InvalidCall::Divided { limit, unit: 1 }));
    let batch = claim(&mut core, 0);
    let plain = Limits {
        totals: vec![3],
        ..Limits::default()
    };
    graft(&mut core, &batch, &one(plain, &[1])).unwrap();
    let batch = claim(&mut core, 1);
    assert_eq!(
        graft(&mut core, &batch, &one(divided(&[2], 0), &[])),
        refused(0)
    );
    graft(&mut core, &batch, &one(divided(&[2], 1), &[2])).unwrap();
    let batch = claim(&mut core, 2);
    assert_eq!(
        graft(&mut core, &batch, &one(divided(&[2], 2), &[])),
        refused(2)
    );
}

#[test]
fn many_nodes_fit_into_a_graph_of_many() {
    const MANY: usize = 70_000; // squared it is more than fits 32 bits
    let graph = Graph::build(MANY, None, Edges::default()).unwrap();
    let mut core = Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap();
    let batch = claim(&mut core, 0);
    let first = core.graft(&batch, 0, 1.0, &grafted(&vec![1; MANY], &[], &[], &[]));
    assert_eq!(
        (first, core.graph().node_count()),
        (Ok(NodeId(MANY as u32)), 2 * MANY as u32)
    );
}

// ---- cycles ----

#[test]
fn a_cycle_leads_through_the_nodes_between() {
    // 1 waits for 0, 2 for 1; 3 has nothing to do with it.
    let mut core = scheduler(&[1; 4], &[(1, 0), (2, 1)], &[]);
    let batch = claim(&mut core, 0);
    let pairs: [(Pairs<'_>, &[u32], &[u32]); 5] = [
        (&[(4, 0)], &[4], &[0, 4, 0]),
        (&[(4, 3), (4, 2)], &[4], &[0, 1, 2, 4, 0]),
        (&[(4, 3), (4, 2), (5, 4)], &[5], &[0, 1, 2, 4, 5, 0]),
        (&[(4, 3), (5, 4), (5, 3), (5, 1)], &[5], &[0, 1, 5, 0]),
        (&[(4, 5), (5, 4), (5, 0)], &[], &[4, 5, 4]),
    ];
    for (pairs, awaited, path) in pairs {
        assert_eq!(
            graft(&mut core, &batch, &grafted(&[1, 1], pairs, &[], awaited)),
            cycle(path)
        );
    }
    assert_eq!(
        graft(
            &mut core,
            &batch,
            &grafted(&[1, 1], &[(4, 3), (5, 2)], &[], &[4])
        ),
        Ok(NodeId(4))
    );
}

#[test]
fn a_cycle_may_lead_through_a_join_that_ran_early() {
    // 3 waits for 2 and the failed 0, so it failed; 4 is a join of 1 and 3, so it runs while 2 does, on which it depends.
    let mut core = scheduler(&[1; 5], &[(3, 0), (3, 2), (4, 1), (4, 3)], &[0, 0, 0, 0, 1]);
    run(&mut core, 0, State::Failed);
    let batch = core.claim(0, 2, 0.0).unwrap();
    let position = batch.items().position(|item| item == ItemId(2)).unwrap() as u32;
    core.complete(&batch, 1 - position, 0.0, &[1.0], Outcomes::Success)
        .unwrap();
    assert_eq!(core.state(ItemId(4)), Some(State::Ready));
    let refused = core.graft(&batch, position, 1.0, &grafted(&[1], &[(5, 4)], &[], &[5]));
    assert_eq!(refused, cycle(&[2, 3, 4, 5, 2]));
}

// ---- values that were released ----

#[test]
fn values_that_are_gone_are_those_of_the_dependency() {
    // 2 consumes 1, of which nothing is kept, and 0 before it is kept.
    let mut core = kept(&[1; 4], &[(2, 1), (2, 0)], &[], Some(&[1, 0, 1, 1]));
    run(&mut core, 0, State::Success);
    run(&mut core, 1, State::Success);
    run(&mut core, 2, State::Success);
    assert_eq!(core.take_released(), [ItemId(1)]);
    let batch = claim(&mut core, 3);
    let gone = InvalidCall::Released { node: NodeId(1) };
    assert_eq!(
        graft(&mut core, &batch, &grafted(&[1], &[(4, 1)], &[], &[4])),
        Err(InvalidGraft::Call(gone))
    );
    assert_eq!(
        graft(&mut core, &batch, &grafted(&[1], &[(4, 0)], &[], &[4])),
        Ok(NodeId(4))
    );
}

#[test]
fn a_new_node_has_no_values_that_could_be_gone() {
    // The items of 0 follow all others: the first of them has the number that the first new node has.
    let mut core = kept(&[UNKNOWN, 1, 1], &[(1, 0)], &[], Some(&[0; 3]));
    let batch = claim(&mut core, 2);
    assert_eq!(core.next_expandable(), Some(NodeId(0)));
    core.expand(NodeId(0), 2).unwrap();
    while let Some(batch) = core.claim(0, 1, 0.0) {
        end(&mut core, &batch, State::Success);
    }
    assert_eq!(core.take_released(), [ItemId(2), ItemId(3)]);
    assert_eq!(
        graft(&mut core, &batch, &grafted(&[1, 1], &[(4, 3)], &[], &[4])),
        Ok(NodeId(3))
    );
}

// ---- what runs then ----

#[test]
fn a_new_node_stands_in_the_order_by_what_waits_for_it() {
    // 0 is heavier than 1, 2 and 3; what 2 awaits is as heavy as 0.
    let mut core = scheduler(&[1, 1, 1, 1, 1], &[(4, 0)], &[]);
    let batch = core.claim(0, 3, 0.0).unwrap();
    core.give_back(&batch, 0, 2).unwrap();
    core.graft(&batch, 2, 1.0, &grafted(&[1], &[], &[], &[5]))
        .unwrap();
    let order: Vec<u32> = core
        .claim(0, 9, 0.0)
        .unwrap()
        .items()
        .map(|item| item.0)
        .collect();
    assert_eq!(order, [0, 5, 1, 3]);
}

#[test]
fn a_join_that_was_grafted_upon_does_not_look_back_at_what_was_skipped() {
    let mut core = scheduler(&[1; 3], &[(2, 0), (2, 1)], &[0, 0, 1]);
    run(&mut core, 0, State::Skipped);
    run(&mut core, 1, State::Success);
    let batch = claim(&mut core, 2);
    graft(&mut core, &batch, &grafted(&[1], &[], &[], &[3])).unwrap();
    run(&mut core, 3, State::Success);
    run(&mut core, 2, State::Success);
    assert!(core.is_finished());
}

#[test]
fn the_length_of_a_new_join_is_not_asked_for_in_a_cancelled_run() {
    let mut core = scheduler(&[1, 1, 1], &[], &[]);
    run(&mut core, 0, State::Success);
    let batch = claim(&mut core, 1);
    graft(
        &mut core,
        &batch,
        &grafted(&[UNKNOWN], &[(3, 0), (3, 2)], &[1], &[3]),
    )
    .unwrap();
    core.cancel(2.0);
    core.check_invariants().unwrap();
    assert_eq!((core.expandable(), core.is_finished()), (0, true));
}

#[test]
fn the_lengths_of_nodes_that_come_to_a_cancelled_node_are_not_asked_for() {
    for count in [1, 2] {
        let mut core = scheduler(&[UNKNOWN, 1], &[], &[]);
        let batch = claim(&mut core, 1);
        core.cancel_node(NodeId(1), 1.0);
        graft(
            &mut core,
            &batch,
            &grafted(&vec![UNKNOWN; count], &[], &[], &[2]),
        )
        .unwrap();
        assert_eq!(
            (core.next_expandable(), core.next_expandable()),
            (Some(NodeId(0)), None)
        );
    }
}

#[test]
fn an_item_of_a_new_node_cannot_run_if_its_element_failed_whatever_the_node_waits_for() {
    let mut core = scheduler(&[2, 1, 1], &[], &[]);
    let batch = core.claim(0, 1, 0.0).unwrap();
    end(&mut core, &batch, State::Failed);
    let batch = core.claim(0, 2, 0.0).unwrap();
    core.complete(&batch, 0, 0.0, &[1.0], Outcomes::Success)
        .unwrap();
    let mut new = grafted(&[2], &[(3, 2)], &[], &[]);
    new.nodes
        .edges
        .push(NodeId(3), NodeId(0), Kind::Elementwise);
    core.graft(&batch, 1, 1.0, &new).unwrap();
    let states = [4, 5].map(|item| core.state(ItemId(item)));
    assert_eq!(states, [Some(State::UpstreamFailed), Some(State::Waiting)]);
}
