//! Single decisions: what is seen, and what is done or not done about it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::model::World;
use crate::redis::*;

fn wanted(replicas: u32, is_persistent: bool) -> Wanted {
    Wanted {
        shape: Shape::Cluster {
            shards: 3,
            replicas,
        },
        is_persistent,
        may_lose_data: false,
    }
}

/// A cluster that has been whole for a while.
fn whole(wanted: &Wanted) -> World {
    let mut world = World::new(wanted.clone());
    for _ in 0..60 {
        world.tick();
        for step in &decide(&world.observe(), wanted).steps {
            world.apply(step);
        }
    }
    let decision = decide(&world.observe(), wanted);
    assert!(
        decision.summary.is_healthy && decision.steps.is_empty(),
        "{decision:?}"
    );
    world
}

fn decide(seen: &Observation, wanted: &Wanted) -> Decision {
    plan(seen, wanted, Memory::default(), Instant::now())
}

/// The decision after the same has been seen for so long.
fn decide_after(seen: &Observation, wanted: &Wanted, passes: u32) -> Decision {
    let start = Instant::now();
    let mut decision = plan(seen, wanted, Memory::default(), start);
    for pass in 1..=passes {
        let now = start + Duration::from_secs(2) * pass;
        decision = plan(seen, wanted, decision.memory, now);
    }
    decision
}

fn view(seen: &mut Observation, pod: &str) -> NodeView {
    seen.pods
        .iter()
        .find(|s| s.pod.name == pod)
        .and_then(Seen::view)
        .unwrap()
        .clone()
}

fn change(seen: &mut Observation, pod: &str, how: impl FnOnce(&mut Seen)) {
    how(seen.pods.iter_mut().find(|s| s.pod.name == pod).unwrap());
}

fn change_view(seen: &mut Observation, pod: &str, how: impl FnOnce(&mut NodeView)) {
    change(seen, pod, |seen| match &mut seen.answer {
        Answer::Up(view) => how(view),
        Answer::Loading | Answer::Down(_) => panic!("{pod} is down"),
    });
}

fn take_down(seen: &mut Observation, pod: &str, is_ready: bool) {
    change(seen, pod, |seen| {
        seen.answer = Answer::Down("gone".to_owned());
        seen.pod.is_ready = is_ready;
    });
    let name = format!("{pod}.gw.test");
    let lines = seen
        .pods
        .iter_mut()
        .filter_map(|seen| match &mut seen.answer {
            Answer::Up(view) => Some(view),
            Answer::Loading | Answer::Down(_) => None,
        });
    for view in lines {
        for line in view
            .table
            .iter_mut()
            .filter(|line| line.hostname.as_ref() == Some(&name))
        {
            (line.linked, line.flags.suspected) = (false, true);
        }
    }
}

fn outdate(seen: &mut Observation, pods: &[&str]) {
    for pod in pods {
        change(seen, pod, |seen| seen.pod.is_outdated = true);
    }
}

fn steps(decision: &Decision) -> Vec<String> {
    decision.steps.iter().map(ToString::to_string).collect()
}

fn reason(decision: &Decision) -> Option<HoldReason> {
    decision.hold.as_ref().map(|hold| hold.reason)
}

#[test]
fn a_cluster_is_made_when_all_pods_are_there_and_empty() {
    let wanted = wanted(1, true);
    let mut world = World::new(wanted.clone());
    for _ in 0..8 {
        world.tick();
    }
    let seen = world.observe();
    let decision = decide(&seen, &wanted);
    assert_eq!(decision.steps.len(), 3 + 5, "{:?}", steps(&decision));

    let mut missing = seen.clone();
    take_down(&mut missing, "gw-redis-s2-1", false);
    let decision = decide(&missing, &wanted);
    assert_eq!(
        (steps(&decision), reason(&decision)),
        (vec![], Some(HoldReason::WaitingForPods))
    );

    let mut fewer = seen.clone();
    fewer.pods.pop();
    assert_eq!(steps(&decide(&fewer, &wanted)), Vec::<String>::new());

    let mut full = seen;
    change_view(&mut full, "gw-redis-s1-1", |view| view.keys = 1);
    let decision = decide(&full, &wanted);
    assert_eq!(reason(&decision), Some(HoldReason::DataPresent));
    assert!(
        !steps(&decision)
            .iter()
            .any(|step| step.contains("ADDSLOTS")),
        "{:?}",
        steps(&decision)
    );
}

#[test]
fn a_rollout_takes_replicas_first_and_never_a_primary() {
    let wanted = wanted(1, true);
    let mut seen = whole(&wanted).observe();
    outdate(
        &mut seen,
        &["gw-redis-s0-0", "gw-redis-s0-1", "gw-redis-s1-0"],
    );
    assert_eq!(steps(&decide(&seen, &wanted)), ["delete pod gw-redis-s0-1"]);

    change(&mut seen, "gw-redis-s0-1", |seen| {
        seen.pod.is_outdated = false
    });
    assert_eq!(
        steps(&decide(&seen, &wanted)),
        ["gw-redis-s0-1: CLUSTER FAILOVER"]
    );

    let mut behind = seen.clone();
    change_view(&mut behind, "gw-redis-s0-0", |view| {
        view.offset += 1024 * 1024
    });
    let decision = decide(&behind, &wanted);
    assert_eq!(
        (steps(&decision), reason(&decision)),
        (vec![], Some(HoldReason::WaitingForSync))
    );

    for what in ["deleting", "not ready"] {
        let mut busy = seen.clone();
        change(&mut busy, "gw-redis-s2-1", |seen| {
            (seen.pod.is_deleting, seen.pod.is_ready) = (what == "deleting", what == "deleting");
        });
        let decision = decide(&busy, &wanted);
        assert_eq!(
            (steps(&decision), reason(&decision)),
            (vec![], Some(HoldReason::WaitingForPods)),
            "{what}"
        );
    }
}

#[test]
fn the_last_copy_goes_only_if_it_is_on_a_volume_or_may_be_lost() {
    let (disk, memory) = (wanted(0, true), wanted(0, false));
    let mut seen = whole(&disk).observe();
    outdate(&mut seen, &["gw-redis-s1-0"]);
    assert_eq!(steps(&decide(&seen, &disk)), ["delete pod gw-redis-s1-0"]);
    let mut broken = seen.clone();
    change_view(&mut broken, "gw-redis-s1-0", |view| {
        view.is_persisting = false
    });
    for (seen, wanted) in [(&seen, &memory), (&broken, &disk)] {
        let decision = decide(seen, wanted);
        assert_eq!(
            (steps(&decision), reason(&decision)),
            (vec![], Some(HoldReason::DataLossNotAllowed))
        );
    }
    let reckless = Wanted {
        may_lose_data: true,
        ..memory
    };
    assert_eq!(
        steps(&decide(&seen, &reckless)),
        ["delete pod gw-redis-s1-0"]
    );
}

#[test]
fn without_a_majority_a_replica_takes_over_from_a_primary_that_is_certainly_dead() {
    let wanted = wanted(1, true);
    let mut world = whole(&wanted);
    for _ in 0..300 {
        world.tick();
    }
    let mut seen = world.observe();
    for pod in ["gw-redis-s0-0", "gw-redis-s1-0"] {
        take_down(&mut seen, pod, true);
    }
    for pod in ["gw-redis-s0-1", "gw-redis-s1-1"] {
        let link = Follow {
            host: None,
            is_link_up: false,
            is_syncing: false,
            link_down_s: Some(20),
        };
        change_view(&mut seen, pod, |view| view.role = Role::Replica(link));
    }
    // Their kubelets find them well: the network is to blame.
    let decision = decide_after(&seen, &wanted, 300);
    assert_eq!(
        (steps(&decision), reason(&decision)),
        (vec![], Some(HoldReason::WaitingForFailover))
    );

    for pod in ["gw-redis-s0-0", "gw-redis-s1-0"] {
        change(&mut seen, pod, |seen| seen.pod.is_ready = false);
    }
    let decision = decide_after(&seen, &wanted, 14);
    assert_eq!(
        (steps(&decision), reason(&decision)),
        (vec![], Some(HoldReason::QuorumLost))
    );
    let decision = decide_after(&seen, &wanted, 15);
    assert_eq!(
        steps(&decision),
        ["gw-redis-s0-1: CLUSTER FAILOVER TAKEOVER"]
    );

    // One that follows it, or is connected to it, knows better.
    let mut alive = seen.clone();
    change_view(&mut alive, "gw-redis-s2-1", |view| {
        for line in &mut view.table {
            (line.linked, line.flags.suspected) = (true, false);
        }
    });
    assert_eq!(
        steps(&decide_after(&alive, &wanted, 100)),
        Vec::<String>::new()
    );

    // Started since, and never in sync: who knows what it missed.
    for pod in ["gw-redis-s0-1", "gw-redis-s1-1"] {
        let link = Follow {
            host: None,
            is_link_up: false,
            is_syncing: false,
            link_down_s: None,
        };
        change_view(&mut seen, pod, |view| view.role = Role::Replica(link));
    }
    assert_eq!(
        steps(&decide_after(&seen, &wanted, 100)),
        Vec::<String>::new()
    );
}

#[test]
fn a_shard_whose_volumes_are_all_gone_is_started_anew_if_the_user_says_so() {
    let wanted = wanted(0, true);
    let mut world = whole(&wanted);
    world.kill(1, 1, true);
    world.places[1].volume = None;
    for _ in 0..10 {
        world.tick();
    }
    let decision = decide(&world.observe(), &wanted);
    assert_eq!(reason(&decision), Some(HoldReason::DataLost));
    // It is introduced to the others, and that is all.
    assert_eq!(steps(&decision).len(), 1, "{decision:?}");
    assert!(matches!(&decision.steps[0], Step::Meet { peer, .. } if peer.pod == "gw-redis-s1-0"));

    let reckless = Wanted {
        may_lose_data: true,
        ..wanted
    };
    for _ in 0..20 {
        for step in &decide(&world.observe(), &reckless).steps {
            world.apply(step);
        }
        world.tick();
    }
    assert_eq!(
        decide(&world.observe(), &reckless).summary.slots_covered,
        SLOTS
    );
}

#[test]
fn a_bad_image_can_be_taken_back() {
    let wanted = wanted(1, true);
    let mut seen = whole(&wanted).observe();
    take_down(&mut seen, "gw-redis-s0-1", false);
    outdate(&mut seen, &["gw-redis-s0-1"]);
    assert_eq!(steps(&decide(&seen, &wanted)), Vec::<String>::new());
    assert_eq!(
        steps(&decide_after(&seen, &wanted, 30)),
        ["delete pod gw-redis-s0-1"]
    );
    // It loads, which may take long.
    change(&mut seen, "gw-redis-s0-1", |seen| {
        seen.answer = Answer::Loading
    });
    assert_eq!(
        steps(&decide_after(&seen, &wanted, 30)),
        Vec::<String>::new()
    );
}

#[test]
fn fewer_pods_are_allowed_when_none_of_them_is_a_primary() {
    let two = wanted(1, true);
    let mut world = whole(&two);
    let at = |world: &World, pod: &str| {
        let view = view(&mut world.observe(), pod);
        let seen = world.observe();
        let ip = seen
            .pods
            .iter()
            .find(|s| s.pod.name == pod)
            .unwrap()
            .pod
            .ip
            .unwrap();
        Target {
            pod: pod.to_owned(),
            id: view.id,
            ip,
        }
    };
    world.apply(&Step::HandOver(at(&world, "gw-redis-s1-1")));
    for _ in 0..5 {
        world.tick();
    }
    let one = wanted(0, true);
    let decision = decide(&world.observe(), &one);
    assert_eq!(decision.pods, [1, 2, 1]);
    assert_eq!(steps(&decision), ["gw-redis-s1-0: CLUSTER FAILOVER"]);
    world.apply(&decision.steps[0]);
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(decide(&world.observe(), &one).pods, [1, 1, 1]);
}

#[test]
fn a_copied_volume_stops_everything() {
    let wanted = wanted(1, true);
    let mut seen = whole(&wanted).observe();
    let id = view(&mut seen, "gw-redis-s0-0").id;
    change_view(&mut seen, "gw-redis-s0-1", |view| view.id = id);
    let decision = decide(&seen, &wanted);
    assert_eq!(
        (steps(&decision), reason(&decision)),
        (vec![], Some(HoldReason::DuplicateIdentity))
    );
}

#[test]
fn a_stranger_with_keys_is_not_let_in() {
    let wanted = wanted(1, true);
    let mut world = whole(&wanted);
    world.kill(1, 1, true);
    world.places[1].volume = None;
    for _ in 0..5 {
        world.tick();
    }
    let mut seen = world.observe();
    change_view(&mut seen, "gw-redis-s0-1", |view| view.keys = 7);
    let decision = decide(&seen, &wanted);
    assert_eq!(reason(&decision), Some(HoldReason::DataPresent));
    assert!(
        !steps(&decision).iter().any(|step| step.contains("MEET")),
        "{:?}",
        steps(&decision)
    );
}

#[test]
fn what_does_not_help_is_tried_less_and_less_often() {
    let wanted = wanted(1, true);
    let mut world = whole(&wanted);
    world.kill(1, 1, true);
    for _ in 0..3 {
        world.tick();
    }
    let mut seen = world.observe();
    // Nobody hears of its new address.
    change_view(&mut seen, "gw-redis-s0-0", |view| {
        for line in view.table.iter_mut().filter(|line| !line.flags.myself) {
            (line.flags.no_address, line.ip) = (true, None);
        }
    });
    let (start, mut memory, mut count) = (Instant::now(), Memory::default(), 0);
    for second in 0..600 {
        let decision = plan(&seen, &wanted, memory, start + Duration::from_secs(second));
        count += decision
            .steps
            .iter()
            .filter(|step| step.to_string().contains("(gw-redis-s2-0)"))
            .count();
        memory = decision.memory;
    }
    assert!((5..15).contains(&count), "{count}");
}

#[test]
fn standalone_is_one_pod() {
    let wanted = Wanted {
        shape: Shape::Standalone,
        is_persistent: true,
        may_lose_data: false,
    };
    let mut seen = whole(&self::wanted(0, true)).observe();
    seen.pods.truncate(1);
    change_view(&mut seen, "gw-redis-s0-0", |view| view.table.clear());
    let decision = decide(&seen, &wanted);
    assert!(
        decision.summary.is_healthy && decision.steps.is_empty(),
        "{decision:?}"
    );
    assert_eq!(
        decision.summary.shards[0].primary.as_deref(),
        Some("gw-redis-s0-0")
    );
    outdate(&mut seen, &["gw-redis-s0-0"]);
    assert_eq!(steps(&decide(&seen, &wanted)), ["delete pod gw-redis-s0-0"]);
    let memory = Wanted {
        is_persistent: false,
        ..wanted
    };
    assert_eq!(
        reason(&decide(&seen, &memory)),
        Some(HoldReason::DataLossNotAllowed)
    );
}

/// Puts each pod on a node, in the order of the pods: two of each shard.
fn on_nodes(seen: &mut Observation, nodes: [&str; 6]) {
    for (seen, node) in seen.pods.iter_mut().zip(nodes) {
        seen.pod.node = Some(node.to_owned());
    }
}

#[test]
fn a_node_does_not_keep_most_of_the_primaries() {
    let wanted = wanted(1, true);
    let world = whole(&wanted);
    let mut seen = world.observe();
    let primaries: Vec<bool> = seen
        .pods
        .iter()
        .map(|seen| matches!(seen.view().map(|view| &view.role), Some(Role::Primary(_))))
        .collect();
    // Names of nodes for the primary and the replica of each shard.
    let places = |of: [(&'static str, &'static str); 3]| -> [&'static str; 6] {
        std::array::from_fn(|index| {
            let (primary, replica) = of[index / 2];
            if primaries[index] { primary } else { replica }
        })
    };
    // The pass at which it has been so for 20 s.
    let long = 10;
    on_nodes(&mut seen, places([("a", "b"), ("a", "c"), ("b", "c")]));
    let waiting = decide(&seen, &wanted);
    assert_eq!(steps(&waiting), Vec::<String>::new());
    let moved = steps(&decide_after(&seen, &wanted, long));
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert!(
        moved[0].contains("CLUSTER FAILOVER") && moved[0].starts_with("gw-redis-s1-"),
        "{moved:?}"
    );
    for even in [
        [("a", "b"), ("b", "c"), ("c", "a")],
        // It would only be as uneven the other way round.
        [("a", "b"), ("a", "b"), ("b", "a")],
    ] {
        on_nodes(&mut seen, places(even));
        let decision = decide_after(&seen, &wanted, long);
        assert_eq!(steps(&decision), Vec::<String>::new(), "{even:?}");
        assert!(decision.summary.is_healthy);
        assert!(waiting.again < decision.again, "looks again soon");
    }
}

#[test]
fn a_replica_that_seeks_its_primary_where_it_was_is_pointed_to_it() {
    let wanted = wanted(1, true);
    let world = whole(&wanted);
    let mut seen = world.observe();
    let is_replica = |seen: &Seen| seen.view().is_some_and(|view| view.follow().is_some());
    let pod = |seen: &Seen| (seen.pod.name.clone(), seen.pod.shard, seen.pod.ip);
    let mut replicas = seen.pods.iter().filter(|seen| is_replica(seen)).map(pod);
    let (replica, shard, _) = replicas.next().unwrap();
    let mut primaries = seen.pods.iter().filter(|seen| !is_replica(seen)).map(pod);
    let (_, _, address) = primaries.find(|(_, of, _)| *of == shard).unwrap();
    let mut seeks = |host: Option<IpAddr>, is_link_up: bool| {
        change_view(&mut seen, &replica, |view| {
            view.role = Role::Replica(Follow {
                host,
                is_link_up,
                is_syncing: false,
                link_down_s: None,
            });
        });
        [3, 5].map(|passes| steps(&decide_after(&seen, &wanted, passes)))
    };
    let nothing = Vec::<String>::new();
    let elsewhere = Some(IpAddr::from([192, 0, 2, 1]));
    let [early, late] = seeks(elsewhere, false);
    assert_eq!(early, nothing, "it may find it by itself");
    assert_eq!(late.len(), 1, "{late:?}");
    assert!(
        late[0].starts_with(&format!("{replica}: CLUSTER REPLICATE ")),
        "{late:?}"
    );
    // It is on its way, or has come.
    assert_eq!(seeks(address, false), [nothing.clone(), nothing.clone()]);
    assert_eq!(seeks(elsewhere, true), [nothing.clone(), nothing]);
}

#[test]
fn a_primary_that_finds_few_of_the_others_serves_nothing_whatever_it_says() {
    let wanted = wanted(1, true);
    let mut seen = whole(&wanted).observe();
    assert_eq!(decide(&seen, &wanted).summary.slots_covered, SLOTS);
    let is_primary = |seen: &&Seen| seen.view().is_some_and(|view| view.follow().is_none());
    let primary = seen.pods.iter().find(is_primary).unwrap().pod.name.clone();
    change_view(&mut seen, &primary, |view| {
        for line in &mut view.table {
            line.linked = line.id == view.id;
        }
    });
    assert!(decide(&seen, &wanted).summary.slots_covered < SLOTS);
}
