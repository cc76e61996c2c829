//! Devices under any claims: whatever is chosen, no device is given out beyond what it has.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;

use flowyml::graph::{Edges, Graph};
use flowyml::scheduler::{Batch, Choice, Limits, Order, Outcomes, Scheduler};
use proptest::prelude::*;

const UNIT: u32 = 4;
/// What classes need of the devices.
const NEEDS: [u32; 6] = [0, 1, 3, 4, 6, 8];

fn scheduler(total: u32, demands: &[u32]) -> Scheduler {
    let graph = Graph::build(demands.len(), None, Edges::default()).unwrap();
    let limits = Limits {
        totals: vec![100, total],
        demands: Some(demands.to_vec()),
        classes: NEEDS
            .iter()
            .map(|need| {
                if *need == 0 {
                    Vec::new()
                } else {
                    vec![(0, 1), (1, *need)]
                }
            })
            .collect(),
        divided: Some((1, UNIT)),
    };
    let scheduler = Scheduler::new(Arc::new(graph), Order::CriticalPath, None).unwrap();
    scheduler.with_limits(&limits).unwrap()
}

fn end(scheduler: &mut Scheduler, batch: &Batch) {
    let ends = vec![1.0; batch.len() as usize];
    scheduler
        .complete(batch, 0, 0.5, &ends, Outcomes::Success)
        .unwrap();
}

/// Claim what fits a choice, and see that it got what was chosen.
fn claim(
    scheduler: &mut Scheduler,
    choice: Option<Choice>,
    limit: u32,
    demands: &[u32],
) -> Option<Batch> {
    scheduler.choose(choice.clone()).unwrap();
    let batch = scheduler.claim(0, limit, 0.0)?;
    let need = NEEDS[demands[batch.items().next().unwrap().0 as usize] as usize];
    let devices: Vec<u32> = batch.devices().collect();
    assert_eq!(devices.len() as u32, need.div_ceil(UNIT));
    if let Some(mut choice) = choice {
        choice.devices.sort_unstable();
        assert_eq!((choice.amount, choice.devices), (need, devices));
    }
    Some(batch)
}

proptest! {
    #[test]
    fn no_device_is_given_out_twice(
        total in 8_u32..20,
        demands in prop::collection::vec(0_u32..6, 1..40),
        events in prop::collection::vec((0_u32..8, 0_u32..64, 1_u32..4), 0..80),
    ) {
        let mut scheduler = scheduler(total, &demands);
        let mut out: Vec<Batch> = Vec::new();
        let mut kept: Vec<Batch> = Vec::new();
        for (kind, dice, limit) in events {
            let count = scheduler.free_on_devices().len() as u32;
            match kind {
                0 => out.extend(claim(&mut scheduler, None, limit, &demands)),
                1..=3 => {
                    let amount = NEEDS[dice as usize % NEEDS.len()];
                    let devices = (0..amount.div_ceil(UNIT)).map(|at| (dice + at) % count).collect();
                    let choice = Choice { amount, devices };
                    out.extend(claim(&mut scheduler, Some(choice), limit, &demands));
                }
                6 if !out.is_empty() => {
                    let batch = out.swap_remove(dice as usize % out.len());
                    scheduler.keep_tokens(&batch).unwrap();
                    end(&mut scheduler, &batch);
                    kept.extend(batch.limited().then_some(batch));
                }
                7 if !kept.is_empty() => {
                    let batch = kept.swap_remove(dice as usize % kept.len());
                    scheduler.return_tokens(&batch).unwrap();
                    prop_assert!(scheduler.return_tokens(&batch).is_err());
                }
                4 if !out.is_empty() => {
                    let batch = out.swap_remove(dice as usize % out.len());
                    scheduler.give_back(&batch, 0, batch.len()).unwrap();
                }
                _ if !out.is_empty() => {
                    let batch = out.swap_remove(dice as usize % out.len());
                    end(&mut scheduler, &batch);
                }
                _ => {}
            }
            scheduler.check_invariants().unwrap();
            let mut held: BTreeMap<u32, u32> = BTreeMap::new();
            for batch in out.iter().chain(&kept) {
                batch.devices().for_each(|device| *held.entry(device).or_default() += 1);
            }
            for (device, free) in (0..).zip(scheduler.free_on_devices()) {
                prop_assert!(free == UNIT.min(total - device * UNIT) || held.contains_key(&device));
            }
            let needs = scheduler.device_needs();
            prop_assert_eq!(needs.iter().map(|need| need.1).sum::<u32>(), scheduler.ready());
        }
        for batch in &out {
            end(&mut scheduler, batch);
        }
        for batch in &kept {
            scheduler.return_tokens(batch).unwrap();
        }
        while let Some(batch) = claim(&mut scheduler, None, 3, &demands) {
            end(&mut scheduler, &batch);
        }
        prop_assert!(scheduler.is_finished());
        prop_assert_eq!(scheduler.free_on_devices().iter().sum::<u32>(), total);
    }
}

#[test]
fn what_is_wrong_is_refused() {
    let mut scheduler = scheduler(8, &[3]);
    for devices in [vec![2], vec![0, 0]] {
        assert!(
            scheduler
                .choose(Some(Choice { amount: 4, devices }))
                .is_err()
        );
    }
    assert_eq!(scheduler.free_on_devices(), [4, 4]);
    assert_eq!(scheduler.device_needs(), [(4, 1)]);
}
