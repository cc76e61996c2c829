//! Single calls of the scheduler: what a claim gives, what a report changes, what is refused. Graphs as text (`"a>b"`: b waits
//! for a, `"a~b"`: item by item).

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::sync::Arc;

use flowyml::error::InvalidCall;
use flowyml::graph::{Edges, Graph, ItemId, Kind, NodeId, UNKNOWN};
use flowyml::scheduler::{Batch, Choice, ItemRange, Limits, Order, Outcomes, Scheduler, State};

fn graph(text: &str, counts: &[u32]) -> Graph {
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
    Graph::build(counts.len(), Some(counts), edges).unwrap()
}

fn scheduler(text: &str, counts: &[u32], order: Order) -> Scheduler {
    Scheduler::new(Arc::new(graph(text, counts)), order, None).unwrap()
}

fn claim(core: &mut Scheduler, limit: u32) -> Batch {
    core.claim(0, limit, 0.0).unwrap()
}

/// Claim with chains, which no mask allows: what is restless is noted.
fn claim_chains(core: &mut Scheduler, limit: u32) -> Batch {
    core.claim_chains(0, limit, 9, 0.0).unwrap()
}

fn ids(batch: &Batch) -> Vec<u32> {
    batch.items().map(|item| item.0).collect()
}

fn complete(core: &mut Scheduler, batch: &Batch, state: State) {
    let (ends, states) = (
        vec![1.0; batch.len() as usize],
        vec![state as u8; batch.len() as usize],
    );
    core.complete(batch, 0, 0.0, &ends, Outcomes::Each(&states))
        .unwrap();
    core.check_invariants().unwrap();
}

fn run(item: u32, count: u32, node: u32, index: Option<u32>) -> ItemRange {
    ItemRange {
        item: ItemId(item),
        count,
        node: NodeId(node),
        index,
        position: 0,
    }
}

#[test]
fn items_that_have_not_ended_are_counted() {
    let mut core = scheduler("a>b", &[1, 1, 3], Order::CriticalPath);
    assert_eq!(core.unfinished(), 5);
    let batch = claim(&mut core, 1);
    assert_eq!(core.unfinished(), 5);
    complete(&mut core, &batch, State::Failed);
    assert_eq!((core.unfinished(), core.is_cancelled()), (3, false));
    core.cancel(2.0);
    assert_eq!((core.unfinished(), core.is_cancelled()), (0, true));
}

#[test]
fn states_have_different_names() {
    let names = State::ALL.map(State::name);
    assert_eq!((names[0], names[10]), ("waiting", "given"));
    assert_eq!(
        names
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        State::COUNT
    );
}

#[test]
fn a_keep_mask_has_one_byte_for_each_node() {
    let refused = Scheduler::new(Arc::new(graph("a>b", &[1, 1])), Order::Add, Some(&[0]));
    assert_eq!(
        refused.unwrap_err(),
        InvalidCall::Mask {
            length: 1,
            nodes: 2
        }
    );
}

// ---- batches ----

#[test]
fn what_stands_next_to_each_other_is_one_run_of_a_batch() {
    let mut core = scheduler("", &[1, 1, 5, 1], Order::CriticalPath);
    let first = claim(&mut core, 3);
    assert_eq!(
        first.runs(),
        [
            run(0, 2, 0, None),
            ItemRange {
                position: 2,
                ..run(2, 1, 2, Some(0))
            }
        ]
    );
    assert_eq!(claim(&mut core, 2).runs(), [run(3, 2, 2, Some(1))]);
    core.give_back(&first, 2, 1).unwrap();
    let gap = [
        run(2, 1, 2, Some(0)),
        ItemRange {
            position: 1,
            ..run(5, 2, 2, Some(3))
        },
        ItemRange {
            position: 3,
            ..run(7, 1, 3, None)
        },
    ];
    assert_eq!(claim(&mut core, 9).runs(), gap);
}

#[test]
fn a_part_of_a_batch_knows_its_place_in_node_and_batch() {
    let mut core = scheduler("", &[1, 5], Order::CriticalPath);
    let batch = claim(&mut core, 3);
    complete(&mut core, &batch, State::Success);
    let batch = claim(&mut core, 3);
    let parts: Vec<ItemRange> = batch.slices(1, 2).collect();
    assert_eq!(
        parts,
        [ItemRange {
            position: 1,
            ..run(4, 2, 1, Some(3))
        }]
    );
    assert_eq!(
        (batch.at(2), batch.at(3)),
        (Some((ItemId(5), NodeId(1))), None)
    );
}

#[test]
fn a_long_chain_is_one_run_and_each_position_is_known_to_be_chained() {
    for first in [0, 1] {
        let mut edges = Edges::default();
        (first..4999).for_each(|node| edges.push(NodeId(node + 1), NodeId(node), Kind::All));
        let graph = Graph::build(5000, None, edges).unwrap();
        let mut core = Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap();
        core.chain(&vec![1; 5000]).unwrap();
        let batch = core.claim_chains(0, 1, 4500, 0.0).unwrap();
        assert_eq!(batch.runs(), [run(first, 4500, first, None)]);
        assert!(
            (1..4500).all(|at| batch.is_chained(at))
                && !batch.is_chained(0)
                && !batch.is_chained(4500)
        );
        assert_eq!(
            (batch.next_head(1), batch.head_at(4499), batch.heads()),
            (4500, 0, 1)
        );
        for (position, count) in [(0, 70), (70, 1), (71, 4429)] {
            let (ends, ok) = (vec![1.0; count], vec![State::Success as u8; count]);
            core.complete(&batch, position, 0.0, &ends, Outcomes::Each(&ok))
                .unwrap();
        }
        core.check_invariants().unwrap();
        assert_eq!(core.count_in(State::Success), 4500);
    }
}

#[test]
fn each_of_two_chains_of_a_batch_has_a_head() {
    let mut core = scheduler("a>b c>d", &[1; 4], Order::CriticalPath);
    core.chain(&[1; 4]).unwrap();
    let batch = claim_chains(&mut core, 2);
    assert_eq!(ids(&batch), [0, 1, 2, 3]);
    assert_eq!([0, 1, 2, 3].map(|at| batch.head_at(at)), [0, 0, 2, 2]);
}

#[test]
fn a_report_of_nothing_about_a_batch_that_is_done_changes_nothing() {
    let mut core = scheduler("", &[1; 4], Order::CriticalPath);
    let done = claim(&mut core, 1);
    complete(&mut core, &done, State::Success);
    core.complete(&done, 0, 0.0, &[], Outcomes::Success)
        .unwrap();
    let (one, other) = (claim(&mut core, 1), claim(&mut core, 2));
    complete(&mut core, &one, State::Success);
    complete(&mut core, &other, State::Success);
    assert!(core.is_finished());
}

#[test]
fn an_item_is_counted_as_begun_255_times_at_the_most() {
    let mut core = scheduler("", &[1], Order::CriticalPath);
    for _ in 0..300 {
        let batch = claim(&mut core, 1);
        core.retry(&batch, 0, 0.0, 0.0).unwrap();
    }
    let batch = claim(&mut core, 1);
    core.give_back(&batch, 0, 1).unwrap();
    assert_eq!(core.timeline().attempts, [255]);
}

// ---- order ----

#[test]
fn without_room_for_it_nothing_is_chained() {
    for most in [0, 1] {
        let mut core = scheduler("a>b b>c", &[1; 3], Order::CriticalPath);
        core.chain(&[1; 3]).unwrap();
        assert_eq!(core.claim_chains(0, 3, most, 0.0).unwrap().len(), 1);
    }
}

#[test]
fn in_add_order_nothing_is_chained() {
    let mut core = scheduler("a>b b>c", &[1; 3], Order::Add);
    core.chain(&[1; 3]).unwrap();
    assert_eq!(claim_chains(&mut core, 3).len(), 1);
}

#[test]
fn in_add_order_a_batch_ends_where_a_dependent_of_it_may_come_first() {
    let mut core = scheduler("d>c", &[1; 5], Order::Add);
    assert_eq!(ids(&claim(&mut core, 9)), [0, 1, 3]);
}

#[test]
fn in_add_order_a_map_comes_item_by_item_if_a_dependent_was_added_before_it() {
    let mut core = scheduler("b>a", &[1, 3], Order::Add);
    assert_eq!(ids(&claim(&mut core, 3)), [1]);
}

#[test]
fn in_add_order_items_stand_behind_those_that_they_do_not_wait_for() {
    let mut core = scheduler("a~b", &[3, 3], Order::Add);
    let first = claim(&mut core, 1);
    complete(&mut core, &first, State::Success);
    assert_eq!(ids(&claim(&mut core, 9)), [1, 2, 3]);
}

#[test]
fn of_two_very_long_paths_the_longer_one_goes_first() {
    const LENGTH: u32 = 90_000;
    let mut edges = Edges::default();
    for node in (1..=2 * LENGTH).filter(|node| *node != LENGTH) {
        edges.push(NodeId(node), NodeId(node - 1), Kind::All);
    }
    let nodes = 2 * LENGTH as usize + 1;
    let graph = Graph::build(nodes, None, edges).unwrap();
    let core = Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap();
    let limits = Limits {
        totals: vec![1],
        demands: Some(vec![1; nodes]),
        classes: vec![vec![], vec![(0, 1)]],
        divided: None,
    };
    let mut core = core.with_limits(&limits).unwrap();
    assert_eq!(ids(&claim(&mut core, 1)), [LENGTH]);
}

// ---- restless ----

#[test]
fn a_batch_is_restless_if_an_end_in_it_may_let_others_run() {
    // In add order, where nothing is chained. c and d are waited for.
    let fresh = || scheduler("c>f d>g", &[1; 8], Order::Add);
    let claims = |limits: &[u32]| {
        let mut core = fresh();
        limits
            .iter()
            .map(|limit| claim_chains(&mut core, *limit))
            .last()
            .unwrap()
    };
    assert_eq!(
        (ids(&claims(&[2])), claims(&[2]).restless()),
        (vec![0, 1], false)
    );
    assert_eq!(
        (ids(&claims(&[2, 1])), claims(&[2, 1]).restless()),
        (vec![2], false),
        "it stands behind the batch"
    );
    assert_eq!(
        (ids(&claims(&[2, 2])), claims(&[2, 2]).restless()),
        (vec![2, 3], true)
    );
    assert_eq!(
        (ids(&claims(&[3, 1])), claims(&[3, 1]).restless()),
        (vec![3], false)
    );
    assert!(
        !fresh().claim(0, 4, 0.0).unwrap().restless(),
        "where nothing is chained it is not known"
    );
}

#[test]
fn any_of_several_neighbours_makes_a_batch_restless() {
    let mut core = scheduler("d>g", &[1; 8], Order::Add);
    claim(&mut core, 2);
    let batch = claim_chains(&mut core, 3);
    assert_eq!((ids(&batch), batch.restless()), (vec![2, 3, 4], true));
}

#[test]
fn only_what_was_claimed_makes_a_batch_restless() {
    let mut core = scheduler("d>f e>g", &[1; 8], Order::CriticalPath);
    assert_eq!(ids(&claim_chains(&mut core, 2)), [3, 4]);
    assert_eq!(ids(&claim_chains(&mut core, 1)), [0]);
    let batch = claim_chains(&mut core, 3);
    assert_eq!((ids(&batch), batch.restless()), (vec![1, 2, 7], false));
}

#[test]
fn a_run_before_another_makes_a_batch_restless() {
    let mut core = scheduler("a>b", &[1; 3], Order::CriticalPath);
    let batch = claim_chains(&mut core, 2);
    assert_eq!((ids(&batch), batch.restless()), (vec![0, 2], true));
    let mut core = scheduler("a>c", &[3, 1, 1], Order::CriticalPath);
    assert!(!claim_chains(&mut core, 1).restless());
    assert!(
        claim_chains(&mut core, 2).restless(),
        "the node may be complete before the last of them"
    );
}

// ---- chains ----

/// A step whose other dependency ended in some way, chained to b or not.
fn is_chained_beside(state: State) -> bool {
    let mut core = scheduler("a>c b>c", &[1; 3], Order::CriticalPath);
    let batch = claim(&mut core, 1);
    complete(&mut core, &batch, state);
    core.chain(&[1; 3]).unwrap();
    claim_chains(&mut core, 1).len() == 2
}

#[test]
fn nothing_is_chained_that_will_be_skipped() {
    assert!(is_chained_beside(State::Success));
    assert!(!is_chained_beside(State::Skipped));
    assert!(!is_chained_beside(State::Cancelled));
}

#[test]
fn what_was_skipped_elsewhere_keeps_nothing_from_being_chained() {
    let mut core = scheduler("a>c b>c", &[1; 4], Order::CriticalPath);
    let batch = claim(&mut core, 1);
    complete(&mut core, &batch, State::Success);
    let both = claim(&mut core, 2);
    assert_eq!(ids(&both), [1, 3]);
    core.complete(
        &both,
        1,
        0.0,
        &[1.0],
        Outcomes::Each(&[State::Skipped as u8]),
    )
    .unwrap();
    core.give_back(&both, 0, 1).unwrap();
    core.chain(&[1; 4]).unwrap();
    assert_eq!(ids(&claim_chains(&mut core, 1)), [1, 2]);
}

#[test]
fn nothing_is_chained_behind_a_node_without_items_that_was_skipped() {
    let mut core = scheduler("a>c b>c", &[UNKNOWN, 1, 1], Order::CriticalPath);
    core.chain(&[1; 3]).unwrap();
    let node = core.next_expandable().unwrap();
    core.refuse(node, State::Skipped as u8).unwrap();
    assert_eq!(claim_chains(&mut core, 1).len(), 1);
}

#[test]
fn a_report_leaves_nothing_chained_to_an_end_without_a_value() {
    let mut core = scheduler("a>b b>c c>d", &[1; 4], Order::CriticalPath);
    core.chain(&[1; 4]).unwrap();
    let batch = claim_chains(&mut core, 1);
    let (ok, failed) = (State::Success as u8, State::Failed as u8);
    let refused = core.complete(&batch, 0, 0.0, &[1.0; 3], Outcomes::Each(&[ok, ok, failed]));
    assert_eq!(refused, Err(InvalidCall::Chained { position: 3 }));
    core.complete(&batch, 0, 0.0, &[1.0], Outcomes::Success)
        .unwrap();
    let refused = core.complete(&batch, 1, 0.0, &[1.0; 2], Outcomes::Each(&[ok, failed]));
    assert_eq!(refused, Err(InvalidCall::Chained { position: 3 }));
    core.give_back(&batch, 3, 1).unwrap();
    core.complete(&batch, 1, 0.0, &[1.0; 2], Outcomes::Each(&[ok, failed]))
        .unwrap();
    assert_eq!(core.state(ItemId(3)), Some(State::UpstreamFailed));
}

#[test]
fn a_report_from_the_middle_of_a_chain_leaves_nothing_chained_to_an_end_without_a_value() {
    let mut core = scheduler("a>b b>c c>d d>e e>f", &[1; 6], Order::CriticalPath);
    core.chain(&[1; 6]).unwrap();
    let batch = claim_chains(&mut core, 1);
    core.complete(&batch, 0, 0.0, &[1.0; 2], Outcomes::Success)
        .unwrap();
    let ends = [State::Success, State::Success, State::Failed].map(|state| state as u8);
    let refused = core.complete(&batch, 2, 0.0, &[1.0; 3], Outcomes::Each(&ends));
    assert_eq!(refused, Err(InvalidCall::Chained { position: 5 }));
}

// ---- values that are given, cancellation ----

#[test]
fn a_value_may_be_given_before_anything_runs() {
    let mut core = scheduler("a>b", &[2, 1, 0], Order::CriticalPath);
    assert_eq!(
        core.give(NodeId(1)),
        Err(InvalidCall::NotReady { node: NodeId(1) })
    );
    core.give(NodeId(0)).unwrap();
    core.give(NodeId(2)).unwrap();
    core.check_invariants().unwrap();
    assert_eq!(core.timeline().attempts, [0, 0, 0]);
    assert_eq!(
        [0, 1, 2].map(|node| core.node_state(NodeId(node))),
        [State::Given, State::Ready, State::Given]
    );
    let batch = claim(&mut core, 9);
    assert_eq!(
        core.give(NodeId(1)),
        Err(InvalidCall::NotReady { node: NodeId(1) })
    );
    complete(&mut core, &batch, State::Success);
    assert!(core.is_finished());
}

#[test]
fn what_is_cancelled_ends_then_and_what_runs_does_not() {
    let mut core = scheduler("a>d", &[1; 4], Order::CriticalPath);
    let batch = claim(&mut core, 2);
    core.complete(&batch, 0, 0.0, &[1.0], Outcomes::Success)
        .unwrap();
    core.cancel(5.0);
    assert_eq!(core.timeline().ends, [1.0, 0.0, 5.0, 5.0]);
}

#[test]
fn what_comes_back_of_a_cancelled_node_is_cancelled_and_its_neighbours_are_not() {
    let mut core = scheduler("", &[1; 3], Order::CriticalPath);
    let batch = claim(&mut core, 3);
    core.cancel_node(NodeId(1), 1.0);
    core.give_back(&batch, 0, 3).unwrap();
    core.check_invariants().unwrap();
    assert_eq!(
        core.timeline().states,
        [State::Ready, State::Cancelled, State::Ready]
    );
}

#[test]
fn the_length_of_a_join_is_not_asked_for_in_a_cancelled_run() {
    let graph = graph("a>c b>c", &[1, 1, UNKNOWN]).with_joins(vec![0, 0, 1]);
    let mut core = Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap();
    let batch = claim(&mut core, 1);
    complete(&mut core, &batch, State::Success);
    core.cancel(1.0);
    assert_eq!((core.expandable(), core.is_finished()), (0, true));
}

// ---- limits ----

fn limited(counts: &[u32], limits: &Limits) -> Result<Scheduler, InvalidCall> {
    scheduler("", counts, Order::CriticalPath).with_limits(limits)
}

/// Ten tokens, and two devices of four.
fn limits(demands: &[u32]) -> Limits {
    let classes = vec![
        vec![],
        vec![(0, 1)],
        vec![(0, 2)],
        vec![(1, 3)],
        vec![(0, 1), (1, 3)],
        vec![(1, 4)],
    ];
    Limits {
        totals: vec![10, 8],
        demands: Some(demands.to_vec()),
        classes,
        divided: Some((1, 4)),
    }
}

#[test]
fn demands_that_cannot_be_met_are_refused() {
    let refusal = |limits: Limits| limited(&[1, 1], &limits).unwrap_err();
    assert_eq!(
        refusal(limits(&[0])),
        InvalidCall::Demands {
            length: 1,
            nodes: 2
        }
    );
    assert_eq!(
        refusal(limits(&[0, 9])),
        InvalidCall::Class {
            node: NodeId(1),
            class: 9
        }
    );
    let few = Limits {
        totals: vec![1, 8],
        ..limits(&[0, 2])
    };
    assert_eq!(
        refusal(few),
        InvalidCall::Demand {
            node: NodeId(1),
            limit: 0,
            amount: 2,
            total: 1
        }
    );
    assert!(
        limited(
            &[1, 1],
            &Limits {
                totals: vec![2, 8],
                ..limits(&[0, 2])
            }
        )
        .is_ok(),
        "all there is"
    );
    for divided in [(1, 0), (2, 4)] {
        let wrong = Limits {
            divided: Some(divided),
            ..limits(&[0, 0])
        };
        assert_eq!(
            refusal(wrong),
            InvalidCall::Divided {
                limit: divided.0,
                unit: divided.1
            }
        );
    }
}

#[test]
fn limits_of_nothing_are_empty() {
    let none = Limits::default;
    assert!(none().is_empty());
    assert!(
        !Limits {
            totals: vec![1],
            ..none()
        }
        .is_empty()
    );
    assert!(
        !Limits {
            demands: Some(vec![]),
            ..none()
        }
        .is_empty()
    );
    assert!(
        !Limits {
            classes: vec![vec![]],
            ..none()
        }
        .is_empty()
    );
    assert!(
        !Limits {
            divided: Some((0, 1)),
            ..none()
        }
        .is_empty()
    );
}

#[test]
fn needs_of_devices_are_summed_up_over_what_else_is_needed() {
    let mut core = limited(&[1, 2, 1, 1, 3, 1], &limits(&[0, 1, 2, 3, 4, 3])).unwrap();
    assert_eq!(core.device_needs(), [(0, 4), (3, 5)]);
    core.give(NodeId(0)).unwrap();
    assert_eq!(core.device_needs(), [(0, 3), (3, 5)]);
}

#[test]
fn the_most_urgent_need_of_devices_comes_first() {
    let core = limited(&[1, 1, 1], &limits(&[5, 0, 3])).unwrap();
    assert_eq!(core.device_needs(), [(4, 1), (0, 1), (3, 1)]);
    let core = limited(&[1, 1, 1], &limits(&[0, 5, 1])).unwrap();
    assert_eq!(core.device_needs(), [(0, 2), (4, 1)]);
}

#[test]
fn a_claim_takes_what_was_chosen_on_the_devices_that_were_chosen() {
    let chosen = |amount: u32, devices: &[u32], demands: &[u32]| {
        let mut core = limited(&vec![1; demands.len()], &limits(demands)).unwrap();
        core.choose(Some(Choice {
            amount,
            devices: devices.to_vec(),
        }))
        .unwrap();
        let batch = core.claim(0, 1, 0.0);
        core.check_invariants().unwrap();
        batch.map(|batch| (ids(&batch), batch.devices().collect::<Vec<_>>()))
    };
    let demands = [0, 5, 3, 1];
    assert_eq!(chosen(4, &[1], &demands), Some((vec![1], vec![1])));
    assert_eq!(chosen(3, &[1], &demands), Some((vec![2], vec![1])));
    assert_eq!(chosen(0, &[], &demands), Some((vec![0], vec![])));
    assert_eq!(
        chosen(0, &[], &demands[1..]),
        Some((vec![2], vec![])),
        "another limit, but no device"
    );
    assert_eq!(
        chosen(4, &[0, 1], &demands),
        None,
        "it needs one device, not two"
    );
    assert_eq!(chosen(5, &[0, 1], &demands), None);
}
