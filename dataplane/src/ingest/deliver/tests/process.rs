use std::time::Duration;

use sluice_crds::config::Health;

use super::fixtures::{application, ingest};
use super::server::{Act, TestServer, answer, success};
use super::*;
use crate::store::queue::Outcome;

/// Asks the server's `/ping` about its health.
fn checking(server: &TestServer, interval: Duration) -> Rig {
    let mut checked = at(server);
    checked.health = Some(Health {
        path: "/ping".to_owned(),
        interval,
    });
    Rig::start(quick(ingest(vec![application("a")], vec![checked])))
}

#[tokio::test]
async fn an_upstream_that_fails_its_checks_gets_nothing() {
    let server = TestServer::start(|seen| {
        if seen.target() == "/ping" {
            Act::Answer(answer(503, ""))
        } else {
            success()
        }
    })
    .await;
    let rig = checking(&server, Duration::from_millis(30));
    until("it was checked", || server.count() >= 3).await;
    rig.append("a", "k", &get("/i")).await;
    let held = async || {
        let report = rig.handle.report().await.unwrap();
        report
            .lanes
            .first()
            .and_then(|lane| lane.held)
            .map(|held| held.why.as_str())
    };
    let deadline = Instant::now() + PATIENCE;
    while held().await != Some("UnhealthyUpstream") {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!server.targets().contains(&"/i".to_owned()));
    let name = "sluice_ingest_lane_held{application=\"a\",reason=\"UnhealthyUpstream\"}";
    until("the metric says so", || rig.metric(name) == Some(1.0)).await;
    server.behave(|_| success());
    until("it is delivered", || rig.queue.waiting() == 0).await;
    until("the metric is taken back", || rig.metric(name) == Some(0.0)).await;
}

#[tokio::test]
async fn one_check_that_fails_is_forgiven() {
    let server = TestServer::start(|seen| {
        if seen.target() == "/ping" && seen.number % 2 == 1 {
            Act::Answer(answer(503, ""))
        } else {
            success()
        }
    })
    .await;
    let rig = checking(&server, Duration::from_millis(10));
    until("it was checked", || server.count() >= 10).await;
    let report = rig.handle.report().await.unwrap();
    assert!(report.upstreams[0].healthy);
}

#[tokio::test]
async fn an_application_is_paused_and_resumed_while_running() {
    let server = TestServer::start(|_| success()).await;
    let mut config = quick(ingest(vec![application("a")], vec![at(&server)]));
    let mut paused = application("a");
    paused.paused = true;
    config.applications = vec![paused.into()];
    let rig = Rig::start(config.clone());
    rig.append("a", "k", &get("/i")).await;
    rig.until_held("Paused").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.count(), 0);
    config.applications = vec![application("a").into()];
    rig.config.send_replace(gateway(config));
    until("it is delivered", || rig.queue.waiting() == 0).await;
}

#[tokio::test]
async fn a_removed_upstream_may_still_answer() {
    let first = TestServer::start(|_| {
        Act::After(
            Duration::from_millis(300),
            answer(200, r#"{"result":"Success"}"#),
        )
    })
    .await;
    let second = TestServer::start(|_| success()).await;
    let mut config = quick(ingest(vec![application("a")], vec![at(&first)]));
    let rig = Rig::start(config.clone());
    let id = rig.append("a", "k", &get("/i?1")).await;
    until("it was sent", || first.count() == 1).await;
    config.upstreams = vec![at(&second).into()];
    rig.config.send_replace(gateway(config));
    rig.append("a", "k", &get("/i?2")).await;
    until("both are delivered", || rig.queue.waiting() == 0).await;
    assert_eq!(rig.queue.verdict(id).unwrap().outcome, Outcome::Delivered);
    assert_eq!(
        (first.targets(), second.targets()),
        (vec!["/i?1".into()], vec!["/i?2".into()])
    );
}

#[tokio::test]
async fn stopping_waits_for_answers_and_records_them() {
    let server = TestServer::start(|_| {
        Act::After(
            Duration::from_millis(200),
            answer(200, r#"{"result":"Success"}"#),
        )
    })
    .await;
    let rig = Rig::simple(&server);
    for index in 0..100 {
        rig.append("a", &index.to_string(), &get(&format!("/i?{index}")))
            .await;
    }
    until("some were sent", || server.count() >= 2).await;
    let given_up = rig.handle.stop(Instant::now() + PATIENCE).await;
    assert_eq!(given_up, 0);
    let sent = server.count();
    assert!(sent < 100, "nothing new is sent");
    assert_eq!(rig.queue.settled(Outcome::Delivered), sent);
    tokio::time::timeout(PATIENCE, rig.handle.ended())
        .await
        .unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let server = TestServer::start(|_| Act::Hang).await;
    let rig = Rig::simple(&server);
    rig.append("a", "k", &get("/i")).await;
    until("it was sent", || server.count() == 1).await;
    let began = Instant::now();
    let given_up = rig.handle.stop(began + Duration::from_millis(200)).await;
    assert_eq!(given_up, 1);
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(rig.queue.waiting(), 1);
}

#[tokio::test]
async fn a_thread_nobody_speaks_to_ends() {
    let server = TestServer::start(|_| success()).await;
    let rig = Rig::simple(&server);
    let watcher = Arc::downgrade(&rig.queue);
    drop(rig);
    until("the thread has ended", || watcher.strong_count() == 0).await;
}

#[tokio::test]
async fn gauges_say_what_waits() {
    let server = TestServer::start(|_| Act::Hang).await;
    let rig = Rig::simple(&server);
    for _ in 0..5 {
        rig.append("a", "k", &get("/i")).await;
    }
    let entries = "sluice_ingest_queue_entries{application=\"a\"}";
    until("entries are shown", || rig.metric(entries) == Some(5.0)).await;
    let in_flight = "sluice_ingest_upstream_in_flight{upstream=\"u\"}";
    until("requests in flight are shown", || {
        rig.metric(in_flight) == Some(1.0)
    })
    .await;
}
