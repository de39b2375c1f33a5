//! How many pods, and how long a decision for many of them takes.

use std::time::{Duration, Instant};

use sluice_manager::ScalingMode;
use sluice_proto::fleet::CapKey;

use crate::fleet::{World, policy};

/// Until a pod that is wanted takes clients.
const POD_STARTS_IN: Duration = Duration::from_secs(20);

/// Kubernetes: makes pods that are wanted, and removes a victim once it is drained.
struct Cluster {
    coming: Vec<Instant>,
    most: usize,
}

impl Cluster {
    fn run(&mut self, world: &mut World, time: Duration, mut each_second: impl FnMut(&mut World)) {
        for _ in 0..time.as_secs() {
            world.run(Duration::from_secs(1));
            each_second(world);
            let (now, pods) = (world.now, world.pods.len());
            let Some(scale) = world.plan.scale.clone() else {
                continue;
            };
            let wanted = scale.wanted as usize;
            while pods + self.coming.len() < wanted {
                self.coming.push(now + POD_STARTS_IN);
            }
            let started = self.coming.iter().filter(|at| **at <= now).count();
            self.coming.retain(|at| *at > now);
            for _ in 0..started {
                world.add();
            }
            let victim = scale
                .victim
                .filter(|victim| wanted < pods && world.plan.pods[victim].drained);
            if let Some(victim) = victim {
                world.kill(&victim);
            }
            self.most = self.most.max(world.pods.len());
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
    let mut cluster = Cluster {
        coming: Vec::new(),
        most: 0,
    };
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
fn steady_load_changes_nothing() {
    let mut world = managed(2, 20);
    world.scatter(55_000);
    let mut cluster = Cluster {
        coming: Vec::new(),
        most: 0,
    };
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
    let mut cluster = Cluster {
        coming: Vec::new(),
        most: 0,
    };
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
