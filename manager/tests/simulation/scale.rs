//! How many pods, and how long a decision for many of them takes.

use std::time::{Duration, Instant};

use sluice_manager::{ScaleDecision, ScaleLimit, ScalingMode};
use sluice_proto::fleet::CapKey;

use crate::fleet::{World, policy};

/// Until a pod that is wanted takes clients.
const POD_STARTS_IN: Duration = Duration::from_secs(20);

/// Kubernetes: makes pods until there are as many as it is asked for, and removes who is named where there are too many.
struct Cluster {
    asked: u32,
    coming: Vec<Instant>,
    most: usize,
}

impl Cluster {
    fn of(world: &World) -> Self {
        Self {
            asked: u32::try_from(world.pods.len()).expect("few pods"),
            coming: Vec::new(),
            most: 0,
        }
    }

    fn run(&mut self, world: &mut World, time: Duration, mut each_second: impl FnMut(&mut World)) {
        for _ in 0..time.as_secs() {
            world.run(Duration::from_secs(1));
            each_second(world);
            let now = world.now;
            if let Some(scale) = world.plan.scale.clone()
                && scale.of == self.asked
            {
                if scale.replicas < self.asked {
                    self.remove(world, &scale);
                }
                self.asked = scale.replicas;
            }
            while world.pods.len() + self.coming.len() < self.asked as usize {
                self.coming.push(now + POD_STARTS_IN);
            }
            world.replicas = Some(self.asked);
            let started = self.coming.iter().filter(|at| **at <= now).count();
            self.coming.retain(|at| *at > now);
            for _ in 0..started {
                world.add();
            }
            self.most = self.most.max(world.pods.len());
        }
    }

    fn remove(&mut self, world: &mut World, scale: &ScaleDecision) {
        let victim = scale.victim.as_ref().expect("who goes is named");
        assert_eq!(scale.replicas + 1, self.asked);
        if self.coming.pop().is_none() {
            assert_eq!(world.pods[victim].connections, 0, "{victim} has clients");
            world.kill(victim);
        }
    }
}

fn managed(min: u32, max: u32) -> World {
    let mut policy = policy(&[]);
    policy.scaling.mode = ScalingMode::Managed;
    policy.scaling.min = min;
    policy.scaling.max = max;
    policy.scaling.scale_down_window = Duration::from_secs(300);
    World::new(policy, min as usize, 9)
}

#[test]
fn a_spike_adds_pods_before_they_are_full_and_they_go_one_by_one_after_a_while() {
    let mut world = managed(2, 20);
    world.scatter(10_000);
    let mut cluster = Cluster::of(&world);
    cluster.run(&mut world, Duration::from_secs(120), |_| {});
    assert_eq!(world.pods.len(), 2);
    // Ten times as many within two minutes.
    cluster.run(&mut world, Duration::from_secs(120), |world| {
        world.scatter(750)
    });
    let fullest = |world: &World| {
        world
            .pods
            .values()
            .map(|pod| pod.connections)
            .max()
            .unwrap()
    };
    cluster.run(&mut world, Duration::from_secs(60), |world| {
        assert!(
            fullest(world) <= 40_000,
            "{} clients on one pod",
            fullest(world)
        );
    });
    assert!(world.pods.len() >= 7, "{} pods", world.pods.len());
    let most = cluster.most;
    // They go as they came.
    for pod in world.pods.values_mut() {
        pod.connections /= 10;
    }
    cluster.run(&mut world, Duration::from_secs(240), |_| {});
    assert_eq!(
        world.pods.len(),
        most,
        "pods went before the window was over"
    );
    let before = world.total();
    cluster.run(&mut world, Duration::from_secs(1_800), |_| {});
    assert_eq!(world.pods.len(), 2, "{:?}", world.plan.scale);
    world.run(Duration::from_secs(10));
    assert_eq!(world.total(), before);
}

#[test]
fn who_is_too_many_by_the_users_word_goes_when_it_is_empty() {
    let mut policy = policy(&[]);
    policy.scaling.mode = ScalingMode::Given(4);
    let mut world = World::new(policy, 4, 5);
    world.scatter(12_000);
    let mut cluster = Cluster::of(&world);
    cluster.run(&mut world, Duration::from_secs(60), |_| {});
    assert_eq!((world.pods.len(), world.total()), (4, 12_000));
    world.policy.scaling.mode = ScalingMode::Given(2);
    world.tell_policy();
    let mut closed = world.closed_by_second.len();
    cluster.run(&mut world, Duration::from_secs(200), |_| {});
    assert_eq!((world.pods.len(), cluster.asked), (2, 2));
    world.run(Duration::from_secs(10));
    assert_eq!(world.total(), 12_000);
    // Within the budget of 1 % per second, with the pods' own rhythm.
    let most = world.closed_by_second.split_off(closed);
    assert!(most.iter().all(|second| *second <= 240), "{most:?}");
    // Up at once.
    world.policy.scaling.mode = ScalingMode::Given(6);
    world.tell_policy();
    cluster.run(&mut world, Duration::from_secs(2), |_| {});
    assert_eq!(cluster.asked, 6);
    // And nobody is left to take the clients of the last ones.
    world.policy.scaling.mode = ScalingMode::Given(0);
    world.tell_policy();
    closed = cluster.coming.len();
    world.run(Duration::from_secs(2));
    let scale = world.plan.scale.clone().unwrap();
    assert_eq!((scale.replicas, scale.victim, closed), (0, None, 4));
}

#[test]
fn a_paused_fleet_only_says_what_it_wishes() {
    let mut world = managed(2, 20);
    world.policy.scaling.paused = true;
    world.tell_policy();
    world.scatter(60_000);
    let mut cluster = Cluster::of(&world);
    cluster.run(&mut world, Duration::from_secs(120), |_| {});
    let scale = world.plan.scale.clone().unwrap();
    assert_eq!((scale.replicas, scale.limit), (2, Some(ScaleLimit::Paused)));
    assert!(scale.wish >= 5, "{scale:?}");
    world.policy.scaling.paused = false;
    world.policy.scaling.max = 3;
    world.tell_policy();
    cluster.run(&mut world, Duration::from_secs(120), |_| {});
    let scale = world.plan.scale.clone().unwrap();
    assert_eq!(
        (world.pods.len(), scale.limit),
        (3, Some(ScaleLimit::Maximum))
    );
}

#[test]
fn a_lowered_maximum_is_reached_pod_by_pod_and_at_once() {
    let mut world = managed(11, 11);
    world.scatter(30_000);
    let mut cluster = Cluster::of(&world);
    cluster.run(&mut world, Duration::from_secs(90), |_| {});
    world.policy.scaling.min = 2;
    world.policy.scaling.max = 10;
    world.tell_policy();
    cluster.run(&mut world, Duration::from_secs(60), |_| {});
    assert_eq!(world.pods.len(), 10, "{:?}", world.plan.scale);
}

#[test]
fn steady_load_changes_nothing() {
    let mut world = managed(2, 20);
    world.scatter(55_000);
    let mut cluster = Cluster::of(&world);
    cluster.run(&mut world, Duration::from_secs(1_200), |_| {});
    let pods = world.pods.len();
    assert!((4..=5).contains(&pods), "{pods} pods");
    let mut seen = Vec::new();
    cluster.run(&mut world, Duration::from_secs(1_200), |world| {
        seen.push(world.pods.len())
    });
    assert!(seen.iter().all(|now| *now == pods), "{pods}, then {seen:?}");
}

#[test]
fn nothing_is_removed_while_pods_do_not_report() {
    let mut world = managed(2, 20);
    world.scatter(70_000);
    let mut cluster = Cluster::of(&world);
    cluster.run(&mut world, Duration::from_secs(240), |_| {});
    let pods = world.pods.len();
    assert!(pods >= 5);
    for pod in world.pods.values_mut().take(pods / 2) {
        pod.cut_off = true;
        pod.connections = 0;
    }
    cluster.run(&mut world, Duration::from_secs(900), |_| {});
    assert!(world.pods.len() >= pods, "{} of {pods}", world.pods.len());
}

/// Figures are printed; that they are within the budget is for a release build to show.
#[test]
fn a_thousand_pods_with_ten_million_clients() {
    for pods in [10, 100, 1_000] {
        let caps: Vec<(CapKey, f64)> = (0..5)
            .map(|number| {
                (
                    CapKey::Application(format!("app-{number}").into()),
                    60_000.0,
                )
            })
            .chain([(CapKey::Gateway, 600_000.0)])
            .collect();
        let mut policy = policy(&caps);
        policy.scaling.max = 2_000;
        let mut world = World::new(policy, pods, 2);
        for pod in world.pods.values_mut() {
            pod.connections = 10_000;
        }
        world.run(Duration::from_secs(5));
        let began = elapsed();
        let seconds = 5;
        world.run(Duration::from_secs(seconds));
        let each = began() / u32::try_from(seconds).unwrap();
        println!("{pods} pods: a second of the whole model takes {each:?}");
        assert_eq!(world.total(), pods as u64 * 10_000);
        assert!(world.worst.values().all(|worst| *worst <= 1.0));
    }
}

#[expect(clippy::disallowed_methods, reason = "measures")]
fn elapsed() -> impl Fn() -> Duration {
    let began = Instant::now();
    move || began.elapsed()
}
