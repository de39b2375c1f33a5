use std::time::{Duration, Instant};

use serde_json::json;
use sluice_dataplane::drain::Outcome;
use sluice_e2e::client::Client;
use sluice_proto::fleet::{CapKey, Directive, Phase, Steering, Version};

use super::manager::{Manager, directive};
use super::{Plane, WAIT};

const QUIET: Duration = Duration::from_millis(1_500);
const FORCE_RECONNECT: u16 = 3011;
const SHUTDOWN: u16 = 3001;

#[tokio::test]
async fn reports_say_how_it_is() {
    let mut manager = Manager::start().await;
    let plane = Plane::start(&manager).await;
    let mut stream = manager.stream().await;
    let first = stream.report().await;
    assert_eq!((&*first.gateway, &*first.pod), ("default/game", "front-0"));
    assert_eq!((first.sequence, first.applied), (1, Version::default()));
    assert_eq!(first.phase, Phase::Serving);
    assert_eq!(first.cpu_request_cores, Some(1.5));
    assert_eq!(&*first.release, env!("CARGO_PKG_VERSION"));
    assert!(first.connections_max > Some(100), "{first:?}");
    assert!(first.load.memory_bytes > 1 << 20 && first.load.cpu_seconds_total > 0.0);
    assert_eq!(stream.token, None);

    let mut clients = [plane.client().await, plane.client().await];
    let asked = json!({ "channel": "room" });
    // Nobody may subscribe here, and a command it is.
    clients[0].command("subscribe", asked).await.unwrap();
    plane.events(7).await;
    let report = stream
        .report_where("everything counted", |report| {
            report.relay.connections == 2
                && report.relay.messages_in_total >= 3
                && report.queue.arrived_total == 7
                && report.queue.waiting == 7
        })
        .await;
    assert_eq!(report.relay.opened_total, 2);
    assert_eq!(report.instance, first.instance);
    let cap = &report.caps[0];
    assert_eq!(cap.key, CapKey::Application("shop".into()));
    assert_eq!((cap.arrived_total, cap.waiting, cap.sent_total), (7, 7, 0));
    assert_eq!(&*report.upstreams[0].name, "main");
    let began = Instant::now();
    let next = stream.report().await;
    assert_eq!(next.sequence, report.sequence + 1);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_fenced_one_sends_new_clients_away_and_takes_requests() {
    let mut manager = Manager::start().await;
    let plane = Plane::start(&manager).await;
    let mut here = plane.client().await;
    let mut stream = manager.stream().await;
    stream
        .direct(Directive {
            steering: Steering::Fence,
            valid: Some(Duration::from_secs(6)),
            retry_spread: Some(Duration::from_secs(40)),
            ..directive(1, 1)
        })
        .await;
    let refused = plane.upgrade().await.err().expect("fenced");
    assert_eq!(refused.status, 503);
    let seconds: u32 = refused.retry_after.unwrap().parse().unwrap();
    assert!((1..=40).contains(&seconds), "{seconds}");
    plane.events(2).await;
    here.command("subscribe", json!({ "channel": "x" }))
        .await
        .expect("who is here stays");
    assert_eq!(plane.metric("sluice_fleet_steering").await, Some(1.0));
    assert_eq!(plane.metric("sluice_fleet_connected").await, Some(1.0));
    plane.admin("/readyz").await;
    let report = stream
        .report_where("counted", |report| report.relay.refused_total == 1)
        .await;
    assert_eq!(report.phase, Phase::Serving);

    // It ends by itself, with the manager there or not.
    drop(manager);
    let deadline = Instant::now() + WAIT;
    while plane.upgrade().await.is_err() {
        assert!(Instant::now() < deadline, "fenced for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    plane.admin("/readyz").await;
}

#[tokio::test]
async fn one_that_is_drained_says_so_and_is_not_unready() {
    let mut manager = Manager::start().await;
    let plane = Plane::start(&manager).await;
    let mut client = plane.client().await;
    let mut stream = manager.stream().await;
    let report = stream
        .direct(Directive {
            steering: Steering::Drain,
            shed_to: 1,
            ..directive(1, 1)
        })
        .await;
    assert_eq!(report.phase, Phase::Draining);
    assert_eq!(
        plane.upgrade().await.err().map(|refused| refused.status),
        Some(503)
    );
    assert_eq!(client.closed(WAIT).await.unwrap().code, FORCE_RECONNECT);
    stream
        .report_where("empty", |report| report.relay.connections == 0)
        .await;
    plane.events(1).await;
    plane.admin("/readyz").await;
    let report = stream.direct(directive(1, 2)).await;
    assert_eq!(report.phase, Phase::Serving);
    assert!(plane.upgrade().await.is_ok());
}

async fn still_here(client: &mut Client) -> bool {
    client.pushes(Duration::from_millis(10)).await.is_ok()
        && client.command("ping", json!({})).await.is_ok()
}

#[tokio::test]
async fn the_longest_idle_leave_first_and_only_as_many() {
    let mut manager = Manager::start().await;
    let plane = Plane::start(&manager).await;
    let mut stream = manager.stream().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(plane.client().await);
        // So that each is idle for another time.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The oldest two are busy now.
    for client in &mut clients[..2] {
        client.command("ping", json!({})).await.unwrap();
    }
    let began = Instant::now();
    stream
        .direct(Directive {
            shed_to: 4,
            valid: Some(Duration::from_secs(60)),
            ..directive(1, 1)
        })
        .await;
    for client in &mut clients[2..6] {
        assert_eq!(client.closed(WAIT).await.unwrap().code, FORCE_RECONNECT);
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(400), "not spread: {took:?}");
    stream
        .report_where("shed", |report| {
            report.relay.shed_total == 4 && report.relay.connections == 4
        })
        .await;
    tokio::time::sleep(QUIET).await;
    for index in [0, 1, 6, 7] {
        assert!(still_here(&mut clients[index]).await, "client {index} left");
    }
    // More of them, and a target that is reached asks for nobody.
    for (generation, (shed_to, left)) in (1..).zip([(5, 3), (5, 3), (3, 3)]) {
        stream
            .direct(Directive {
                shed_to,
                ..directive(2, generation)
            })
            .await;
        stream
            .report_where("shed", |report| report.relay.connections == left)
            .await;
    }
    tokio::time::sleep(QUIET).await;
    let report = stream.report().await;
    assert_eq!((report.relay.connections, report.relay.shed_total), (3, 5));
    assert_eq!(plane.metric("sluice_fleet_shed_total").await, Some(5.0));
}

#[tokio::test]
async fn clients_that_are_never_idle_for_long_leave_as_well() {
    const CLIENTS: u64 = 20;
    let mut manager = Manager::start().await;
    let plane = Plane::start(&manager).await;
    let mut stream = manager.stream().await;
    let mut lively = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let mut client = plane.client().await;
        lively.spawn(async move {
            while client.command("ping", json!({})).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    stream
        .direct(Directive {
            shed_to: CLIENTS,
            valid: Some(Duration::from_secs(60)),
            ..directive(1, 1)
        })
        .await;
    // One round takes a second; a few may have a command under way in it.
    let all = tokio::time::timeout(Duration::from_secs(5), lively.join_all());
    assert!(all.await.is_ok(), "some were never sent away");
}

#[tokio::test]
async fn one_that_ends_closes_as_many_as_it_is_told_and_then_all() {
    let mut manager = Manager::start().await;
    let plane = Plane::start(&manager).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(plane.client().await);
        // So that each is idle for another time.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut stream = manager.stream().await;
    let attended = |shed_to, generation| Directive {
        shed_to,
        valid: Some(Duration::from_secs(5)),
        ..directive(1, generation)
    };
    assert_eq!(stream.direct(attended(0, 1)).await.ends_in, None);
    plane.running.drain.start(Duration::from_secs(600));
    let report = stream
        .report_where("it ends", |report| report.ends_in.is_some())
        .await;
    assert_eq!(report.phase, Phase::Draining);
    assert!(report.ends_in > Some(Duration::from_secs(500)));
    stream.direct(attended(2, 2)).await;
    for client in &mut clients[..2] {
        assert_eq!(client.closed(WAIT).await.unwrap().code, SHUTDOWN);
    }
    tokio::time::sleep(QUIET).await;
    for client in &mut clients[2..] {
        assert!(still_here(client).await, "closed without an order");
    }
    // Without another word it does not wait for half of its time.
    for client in &mut clients[2..] {
        assert_eq!(client.closed(WAIT).await.unwrap().code, SHUTDOWN);
    }
    let outcome = tokio::time::timeout(WAIT, plane.running.drain.complete()).await;
    assert_eq!(outcome, Ok(Outcome::Finished));
}
