//! Caps: never above in any minute, whatever dies; used where there is something to send.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panic")]

use std::time::Duration;

use sluice_proto::fleet::CapKey;

use crate::fleet::{World, policy};

const GATEWAY: f64 = 6_000.0;
const APPLICATION: f64 = 600.0;

fn caps() -> Vec<(CapKey, f64)> {
    vec![
        (CapKey::Gateway, GATEWAY),
        (CapKey::Application("web".into()), APPLICATION),
        (CapKey::Application("tiny".into()), 5.0),
    ]
}

fn never_above(world: &World) {
    for (key, worst) in &world.worst {
        assert!(
            *worst <= 1.0 + 1e-9,
            "{key}: {:.4} of the cap in a minute",
            worst
        );
    }
}

#[test]
fn a_backlog_uses_what_the_cap_allows_on_one_two_and_four_pods() {
    for pods in [1, 2, 4] {
        let mut world = World::new(policy(&caps()), pods, 7);
        world.run(Duration::from_secs(60));
        world.sent.clear();
        world.run(Duration::from_secs(120));
        never_above(&world);
        for (key, cap) in [
            (CapKey::Gateway, GATEWAY),
            (CapKey::Application("web".into()), APPLICATION),
        ] {
            let used = world.sent[&key] / 2.0 / cap;
            assert!(used >= 0.95, "{pods} pods use {used:.3} of {key}");
        }
    }
}

#[test]
fn what_one_pod_has_no_use_for_is_lent_to_the_other() {
    let key = CapKey::Application("web".into());
    let mut world = World::new(policy(&[(key.clone(), APPLICATION)]), 4, 3);
    let only = world.any().unwrap();
    for (name, pod) in &mut world.pods {
        pod.waits.insert(key.clone(), *name == only);
    }
    world.run(Duration::from_secs(60));
    world.sent.clear();
    world.run(Duration::from_secs(60));
    let used = world.sent[&key] / APPLICATION;
    assert!(used >= 0.90, "one of four pods uses {used:.3}");
    // The backlog moves to another pod, as a partition's lease does.
    let other = world
        .pods
        .keys()
        .find(|name| **name != only)
        .cloned()
        .unwrap();
    for (name, pod) in &mut world.pods {
        pod.waits.insert(key.clone(), *name == other);
    }
    world.run(Duration::from_secs(30));
    world.sent.clear();
    world.run(Duration::from_secs(60));
    let used = world.sent[&key] / APPLICATION;
    assert!(used >= 0.90, "the other uses {used:.3}");
    never_above(&world);
}

/// Ten minutes of everything at once.
#[test]
fn no_minute_is_above_a_cap_through_churn() {
    for seed in 0..60 {
        let mut world = World::new(policy(&caps()), 4, seed);
        for _ in 0..60 {
            disturb(&mut world);
            world.run(Duration::from_secs(10));
        }
        never_above(&world);
    }
}

fn disturb(world: &mut World) {
    let event = world.random.u32(0..15);
    let Some(name) = world.any() else {
        world.add();
        return;
    };
    let pods = world.pods.len();
    match event {
        0 if pods > 1 => world.kill(&name),
        1 if pods < 6 => {
            world.add();
        }
        2 => world.restart(&name),
        3 if pods > 1 => world.lose(&name),
        4 => world.stop_manager(),
        5 | 6 => {
            // A manager cannot know what a pod holds that has not been heard since before it began: not in this model.
            rejoin(world);
            world.start_manager();
        }
        7 => flip(world, &name, |pod| &mut pod.cut_off),
        8 => flip(world, &name, |pod| &mut pod.deaf),
        9 => rejoin(world),
        11 => flip(world, &name, |pod| &mut pod.lies),
        12 => flip(world, &name, |pod| &mut pod.stale),
        10 if pods > 1 => world.pods.get_mut(&name).unwrap().sends_nothing = true,
        _ => {
            let keys: Vec<CapKey> = world.policy.caps.keys().cloned().collect();
            for key in keys {
                let waits = world.random.bool();
                world.pods.get_mut(&name).unwrap().waits.insert(key, waits);
            }
        }
    }
    // Who is given up ends some time.
    let lost: Vec<_> = world
        .pods
        .iter()
        .filter(|(_, pod)| pod.terminating || pod.sends_nothing)
        .map(|(name, _)| name.clone())
        .collect();
    if lost.len() > 1 {
        world.kill(&lost[0]);
    }
}

/// Whoever is cut off is back, or has ended.
fn rejoin(world: &mut World) {
    let lost: Vec<_> = world
        .pods
        .iter()
        .filter(|(_, pod)| pod.terminating)
        .map(|(name, _)| name.clone())
        .collect();
    for name in lost {
        world.kill(&name);
    }
    for pod in world.pods.values_mut() {
        pod.cut_off = false;
        pod.deaf = false;
    }
}

fn flip(
    world: &mut World,
    name: &sluice_manager::PodName,
    flag: fn(&mut crate::fleet::Pod) -> &mut bool,
) {
    let flag = flag(world.pods.get_mut(name).unwrap());
    *flag = !*flag;
}

#[test]
fn without_a_manager_caps_hold_and_half_is_used_at_least() {
    let mut world = World::new(policy(&caps()), 4, 11);
    world.run(Duration::from_secs(60));
    world.stop_manager();
    world.run(Duration::from_secs(60));
    world.sent.clear();
    world.run(Duration::from_secs(240));
    never_above(&world);
    let used = world.sent[&CapKey::Gateway] / 4.0 / GATEWAY;
    assert!(used >= 0.5, "{used:.3}");
    // A new one learns first, and all of it is used again.
    world.start_manager();
    world.run(Duration::from_secs(60));
    world.sent.clear();
    world.run(Duration::from_secs(60));
    never_above(&world);
    let used = world.sent[&CapKey::Gateway] / GATEWAY;
    assert!(used >= 0.95, "{used:.3}");
}

#[test]
fn without_a_manager_who_has_something_to_send_keeps_most_of_what_it_used() {
    let key = CapKey::Application("web".into());
    let mut policy = policy(&[(key.clone(), APPLICATION)]);
    policy.scaling.max = 4;
    let mut world = World::new(policy, 4, 5);
    let only = world.any().unwrap();
    for (name, pod) in &mut world.pods {
        pod.waits.insert(key.clone(), *name == only);
    }
    world.run(Duration::from_secs(60));
    world.stop_manager();
    world.run(Duration::from_secs(60));
    world.sent.clear();
    world.run(Duration::from_secs(300));
    let used = world.sent[&key] / 5.0 / APPLICATION;
    assert!(used >= 0.65, "one of four pods uses {used:.3}");
    // Another one has to send it while the new manager learns that the first one has most of the cap.
    for (name, pod) in &mut world.pods {
        pod.waits.insert(key.clone(), *name != only);
    }
    world.start_manager();
    world.run(Duration::from_secs(60));
    world.sent.clear();
    world.run(Duration::from_secs(60));
    let used = world.sent[&key] / APPLICATION;
    assert!(used >= 0.90, "the others use {used:.3}");
    never_above(&world);
}

#[test]
fn what_a_pod_had_that_has_ended_is_used_at_once() {
    let key = CapKey::Gateway;
    let mut world = World::new(policy(&[(key.clone(), GATEWAY)]), 3, 9);
    world.run(Duration::from_secs(60));
    let names: Vec<_> = world.pods.keys().take(2).cloned().collect();
    for name in &names {
        world.pods.get_mut(name).unwrap().sends_nothing = true;
    }
    world.run(Duration::from_secs(3));
    for name in &names {
        world.kill(name);
    }
    world.run(Duration::from_secs(5));
    world.sent.clear();
    world.run(Duration::from_secs(30));
    let used = world.sent[&key] / 0.5 / GATEWAY;
    assert!(used >= 0.95, "{used:.3}");
    never_above(&world);
}
