//! Steering, moves and drains.

use std::time::Duration;

use sluice_manager::{PodState, Rebalance, Scaling, ScalingMode};

use crate::fleet::{World, policy};

fn with_clients(pods: usize, clients_each: u64, rebalance: Rebalance) -> World {
    let mut policy = policy(&[]);
    policy.rebalance = rebalance;
    let mut world = World::new(policy, pods, 5);
    for pod in world.pods.values_mut() {
        pod.connections = clients_each;
    }
    world.run(Duration::from_secs(40));
    world
}

#[test]
fn growth_disconnects_nobody_and_newcomers_land_on_new_pods() {
    let mut world = with_clients(2, 6_000, Rebalance::Steer);
    let old: Vec<_> = world.pods.keys().cloned().collect();
    let new = [world.add(), world.add()];
    world.run(Duration::from_secs(15));
    for name in &old {
        assert_eq!(world.state(name), PodState::Fenced);
    }
    world.scatter(1_000);
    world.run(Duration::from_secs(60));
    let landed: u64 = new.iter().map(|name| world.pods[name].connections).sum();
    assert_eq!(landed, 1_000);
    assert_eq!(world.closed_by_second.iter().sum::<u64>(), 0);
}

#[test]
fn moves_reach_balance_within_three_minutes_and_the_budget() {
    let mut world = with_clients(2, 6_000, Rebalance::Move);
    world.add();
    world.add();
    world.run(Duration::from_secs(180));
    assert!(world.imbalance() <= 1.10, "{:.3}", world.imbalance());
    // 1 % of 12,000 clients per second; a second of the clients may hold two ticks.
    let most = world.closed_by_second.iter().max().copied().unwrap();
    assert!(most <= 2 * 120, "{most} in one second");
    let windows = world
        .closed_by_second
        .windows(10)
        .map(|ten| ten.iter().sum::<u64>());
    let most = windows.max().unwrap();
    assert!(most <= 11 * 120, "{most} in ten seconds");
    // Once there, nothing goes on: no oscillation.
    let closed: u64 = world.closed_by_second.iter().sum();
    world.run(Duration::from_secs(600));
    let more = world.closed_by_second.iter().sum::<u64>() - closed;
    assert!(more <= 120, "{more} were moved after balance");
    assert!(closed <= 7_000, "{closed} were moved where 6,000 would do");
}

#[test]
fn a_pod_that_is_drained_ends_empty_and_gets_nobody_back() {
    let mut world = with_clients(3, 2_000, Rebalance::Steer);
    let name = world.any().unwrap();
    world.pods.get_mut(&name).unwrap().drain_requested = true;
    world.run(Duration::from_secs(25));
    assert_eq!(world.state(&name), PodState::Draining);
    world.run(Duration::from_secs(60));
    assert_eq!(
        (world.state(&name), world.pods[&name].connections),
        (PodState::Drained, 0)
    );
    assert_eq!(world.total(), 6_000);
    world.pods.get_mut(&name).unwrap().drain_requested = false;
    world.run(Duration::from_secs(15));
    assert_eq!(world.state(&name), PodState::Accepting);
}

#[test]
fn all_pods_asked_to_drain_keep_their_clients() {
    let mut world = with_clients(2, 1_000, Rebalance::Steer);
    for pod in world.pods.values_mut() {
        pod.drain_requested = true;
    }
    world.run(Duration::from_secs(120));
    assert_eq!(world.total(), 2_000);
    assert_eq!(world.closed_by_second.iter().sum::<u64>(), 0);
}

#[test]
fn clients_that_do_not_come_back_stop_the_moves() {
    let mut world = with_clients(2, 6_000, Rebalance::Move);
    world.add();
    world.add();
    for _ in 0..180 {
        world.run(Duration::from_secs(1));
        world.forget_returning();
    }
    let lost = 12_000 - world.total();
    assert!(
        lost <= 12_000 * 8 / 100,
        "{lost} clients were sent away for good"
    );
}

#[test]
fn a_dead_pod_is_steered_away_within_four_seconds_and_many_at_once_are_not() {
    let mut world = with_clients(4, 1_000, Rebalance::Steer);
    let name = world.any().unwrap();
    world.pods.get_mut(&name).unwrap().cut_off = true;
    world.run(Duration::from_secs(4));
    assert_eq!(world.state(&name), PodState::Silent);
    for pod in world.pods.values_mut() {
        pod.cut_off = true;
    }
    world.run(Duration::from_secs(10));
    assert!(
        world
            .plan
            .pods
            .values()
            .all(|pod| pod.state == PodState::Accepting)
    );
}

#[test]
fn pods_of_an_old_revision_get_no_new_clients_once_there_are_others() {
    let mut world = with_clients(3, 500, Rebalance::Steer);
    for pod in world.pods.values_mut() {
        pod.current = false;
    }
    world.run(Duration::from_secs(5));
    assert!(
        world
            .plan
            .pods
            .values()
            .all(|pod| pod.state == PodState::Accepting)
    );
    let new = world.add();
    world.run(Duration::from_secs(5));
    for (name, pod) in &world.plan.pods {
        let wanted = if *name == new {
            PodState::Accepting
        } else {
            PodState::Fenced
        };
        assert_eq!(pod.state, wanted, "{name}");
    }
}

#[test]
fn small_differences_fence_nobody() {
    let mut world = with_clients(4, 100, Rebalance::Move);
    let name = world.any().unwrap();
    world.pods.get_mut(&name).unwrap().connections = 250;
    world.run(Duration::from_secs(60));
    assert!(
        world
            .plan
            .pods
            .values()
            .all(|pod| pod.state == PodState::Accepting)
    );
}

/// Clients closed in the worst ten seconds, per second.
fn worst_rate(world: &World) -> f64 {
    let tens = world.closed_by_second.windows(10);
    tens.map(|ten| ten.iter().sum::<u64>())
        .max()
        .unwrap_or_default() as f64
        / 10.0
}

#[test]
fn a_rollout_empties_the_old_pods_at_the_pace_of_the_fleet() {
    let mut world = with_clients(4, 3_000, Rebalance::Steer);
    let old: Vec<_> = world.pods.keys().cloned().collect();
    for pod in world.pods.values_mut() {
        pod.current = false;
    }
    // As Kubernetes does it: a new one, ready after a while, then the next old one ends, whatever the ones before it still do.
    for name in &old {
        world.add();
        world.run(Duration::from_secs(5));
        world.end(name, Duration::from_secs(300));
    }
    world.run(Duration::from_secs(140));
    assert!(old.iter().all(|name| !world.pods.contains_key(name)));
    world.run(Duration::from_secs(10));
    assert_eq!(world.total(), 12_000);
    assert_eq!(world.closed_by_second.iter().sum::<u64>(), 12_000);
    let worst = worst_rate(&world);
    assert!(worst <= 1.1 * 120.0, "{worst} per second");
}

#[test]
fn what_has_to_end_sooner_than_the_budget_allows_pays_for_it_out_of_the_budget() {
    let mut world = with_clients(4, 3_000, Rebalance::Steer);
    let names: Vec<_> = world.pods.keys().cloned().collect();
    // Its second half closes 3,000 clients within 12 s, 250 a second: nobody else is closed meanwhile.
    world.pods.get_mut(&names[1]).unwrap().drain_requested = true;
    world.pods.get_mut(&names[0]).unwrap().deaf = true;
    world.end(&names[0], Duration::from_secs(30));
    world.run(Duration::from_secs(32));
    assert!(!world.pods.contains_key(&names[0]));
    world.run(Duration::from_secs(60));
    assert_eq!(world.state(&names[1]), PodState::Drained);
    let worst = worst_rate(&world);
    assert!(worst <= 275.0, "{worst} per second");
    assert_eq!(world.total(), 12_000);
}

#[test]
fn a_pod_that_ends_without_a_manager_is_empty_in_time() {
    let mut world = with_clients(3, 3_000, Rebalance::Steer);
    let name = world.any().unwrap();
    world.stop_manager();
    world.pods.get_mut(&name).unwrap().deaf = true;
    world.end(&name, Duration::from_secs(100));
    world.run(Duration::from_secs(92));
    assert!(!world.pods.contains_key(&name));
    let worst = worst_rate(&world);
    assert!(worst <= 40.0, "{worst} per second");
}

/// What a pod says of itself decides about it, and must not decide about the others.
#[test]
fn lies_break_no_plan_and_are_over_when_they_end() {
    for seed in 0..30 {
        let mut world = World::new(policy(&[]), 5, seed);
        world.policy.rebalance = Rebalance::Move;
        world.policy.scaling = Scaling {
            mode: ScalingMode::Managed,
            min: 2,
            max: 8,
            ..Scaling::default()
        };
        world.tell_policy();
        world.replicas = Some(5);
        for pod in world.pods.values_mut() {
            pod.connections = 2_000;
        }
        world.run(Duration::from_secs(20));
        let liars: Vec<_> = world.pods.keys().take(2).cloned().collect();
        for name in &liars {
            let pod = world.pods.get_mut(name).unwrap();
            (pod.lies, pod.stale) = (true, true);
        }
        // Plans are checked each second.
        world.run(Duration::from_secs(120));
        for name in &liars {
            let pod = world.pods.get_mut(name).unwrap();
            (pod.lies, pod.stale) = (false, false);
        }
        assert_eq!(world.total() + world.away(), 10_000, "seed {seed}");
        world.run(Duration::from_secs(300));
        let imbalance = world.imbalance();
        // Nobody is moved for less.
        assert!(imbalance <= 1.2, "seed {seed}: {imbalance:.3}");
    }
}
