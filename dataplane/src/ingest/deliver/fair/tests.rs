use proptest::prelude::*;

use super::{FairQueue, Flow};

/// Serves `steps` times among flows that always have more, and returns the cost served of each.
fn share(flows: &[(u32, u64)], steps: usize) -> Vec<u64> {
    let mut queue = FairQueue::default();
    let mut states = vec![Flow::default(); flows.len()];
    for (id, flow) in states.iter_mut().enumerate() {
        queue.enter(id, flow);
    }
    let mut served = vec![0; flows.len()];
    for _ in 0..steps {
        let id = queue.first(|id| states.get(id).copied()).unwrap();
        let (cost, weight) = flows[id];
        queue.serve(&mut states[id], cost, weight);
        served[id] += u64::from(cost);
        queue.enter(id, &mut states[id]);
    }
    served
}

#[test]
fn shares_follow_weights() {
    assert_eq!(share(&[(1, 1), (1, 3)], 400), [100, 300]);
}

#[test]
fn costs_count() {
    let served = share(&[(50, 1), (1, 1)], 5_100);
    assert!(served[0].abs_diff(served[1]) <= 50, "{served:?}");
}

#[test]
fn who_comes_back_does_not_catch_up() {
    let mut queue = FairQueue::default();
    let mut flows = [Flow::default(); 2];
    queue.enter(0, &mut flows[0]);
    for _ in 0..1_000 {
        assert_eq!(queue.first(|id| flows.get(id).copied()), Some(0));
        queue.serve(&mut flows[0], 1, 1);
        queue.enter(0, &mut flows[0]);
    }
    queue.enter(1, &mut flows[1]);
    let mut served = [0; 2];
    for _ in 0..10 {
        let id = queue.first(|id| flows.get(id).copied()).unwrap();
        queue.serve(&mut flows[id], 1, 1);
        queue.enter(id, &mut flows[id]);
        served[id] += 1;
    }
    assert_eq!(served, [5, 5]);
}

#[test]
fn a_newcomer_waits_for_one_request_of_each_at_most() {
    let mut queue = FairQueue::default();
    let mut flows = vec![Flow::default(); 11];
    for (id, flow) in flows.iter_mut().enumerate().take(10) {
        queue.enter(id, flow);
    }
    for _ in 0..95 {
        let id = queue.first(|id| flows.get(id).copied()).unwrap();
        queue.serve(&mut flows[id], 1, 1);
        queue.enter(id, &mut flows[id]);
    }
    queue.enter(10, &mut flows[10]);
    let mut before = 0;
    loop {
        let id = queue.first(|id| flows.get(id).copied()).unwrap();
        if id == 10 {
            break;
        }
        queue.serve(&mut flows[id], 1, 1);
        queue.enter(id, &mut flows[id]);
        before += 1;
    }
    assert!(before <= 10, "{before}");
}

#[test]
fn who_left_is_skipped() {
    let mut queue = FairQueue::default();
    let mut flows = [Flow::default(); 2];
    queue.enter(0, &mut flows[0]);
    queue.enter(1, &mut flows[1]);
    flows[0].leave();
    assert_eq!(queue.first(|id| flows.get(id).copied()), Some(1));
    flows[1].leave();
    assert_eq!(queue.first(|id| flows.get(id).copied()), None);
    queue.enter(0, &mut flows[0]);
    assert_eq!(queue.first(|id| flows.get(id).copied()), Some(0));
}

proptest! {
    #[test]
    fn no_flow_is_off_its_share_by_more_than_the_largest_costs(
        flows in prop::collection::vec((1u32..60, 1u64..20), 1..12),
    ) {
        let served = share(&flows, 20_000);
        let total: u64 = served.iter().sum();
        let weights: u64 = flows.iter().map(|(_, weight)| weight).sum();
        let largest = flows.iter().map(|(cost, _)| u64::from(*cost)).sum::<u64>();
        for (id, (_, weight)) in flows.iter().enumerate() {
            let fair = total * weight / weights;
            prop_assert!(served[id].abs_diff(fair) <= largest * weight + largest, "{id}: {served:?}");
        }
    }
}
