use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;

use super::fixtures::{application, ingest};
use super::server::{Act, TestServer, answer, success};
use super::*;
use crate::ingest::proxy::ProxyError;

#[tokio::test]
async fn the_upstreams_own_answer_comes_back() {
    let server = TestServer::start(|_| {
        Act::Answer(
            "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
             Keep-Alive: timeout=5\r\nX-Kept: 2\r\n\r\nbody"
                .to_owned(),
        )
    })
    .await;
    let rig = Rig::simple(&server);
    for _ in 0..2 {
        let response = rig
            .proxy
            .call(post("/o/sdk?a", &[], b"xyz"), None)
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        assert_eq!(head.status, StatusCode::NOT_FOUND);
        assert_eq!(
            head.headers.keys().collect::<Vec<_>>(),
            ["content-length", "x-kept"]
        );
        assert_eq!(body.collect().await.unwrap().to_bytes(), "body");
    }
    let seen = server.seen.lock();
    assert_eq!(seen[0].body, b"xyz");
    assert_eq!(seen[0].target(), "/o/sdk?a");
    assert_eq!(seen[1].connection, 0, "the connection is kept");
}

#[tokio::test]
async fn an_application_has_its_own_upstreams() {
    let (default, own) = (
        TestServer::start(|_| success()).await,
        TestServer::start(|_| success()).await,
    );
    let mut tenant = application("a");
    tenant.upstreams = vec![at(&own).into()];
    let rig = Rig::start(ingest(vec![tenant.clone()], vec![at(&default)]));
    rig.proxy
        .call(get("/o?1"), Some(tenant.into()))
        .await
        .unwrap();
    rig.proxy.call(get("/o?2"), None).await.unwrap();
    assert_eq!(
        (own.targets(), default.targets()),
        (vec!["/o?1".into()], vec!["/o?2".into()])
    );
}

#[tokio::test]
async fn whoever_leaves_gives_the_place_back() {
    let server = TestServer::start(|_| Act::Hang).await;
    let mut narrow = at(&server);
    (narrow.concurrency_min, narrow.concurrency_max) = (1, 1);
    let rig = Rig::start(ingest(vec![application("a")], vec![narrow]));
    let left = tokio::time::timeout(
        Duration::from_millis(200),
        rig.proxy.call(get("/o?1"), None),
    )
    .await;
    assert!(left.is_err());
    server.behave(|_| Act::Answer(answer(200, "body")));
    let response = rig.proxy.call(get("/o?2"), None).await.unwrap();
    drop(response);
    let response = rig.proxy.call(get("/o?3"), None).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "body");
    let deadline = Instant::now() + PATIENCE;
    while rig.handle.report().await.unwrap().upstreams[0]
        .limits
        .in_flight
        > 0
    {
        assert!(Instant::now() < deadline, "a place is lost");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_call_waits_for_its_place_but_not_long() {
    let server = TestServer::start(|seen| {
        if seen.target() == "/o?slow" {
            Act::Hang
        } else {
            success()
        }
    })
    .await;
    let mut narrow = at(&server);
    (narrow.concurrency_min, narrow.concurrency_max) = (1, 1);
    let rig = Rig::start(ingest(vec![application("a")], vec![narrow]));
    let slow = rig.proxy.call(get("/o?slow"), None);
    tokio::pin!(slow);
    tokio::select! {
        _ = &mut slow => panic!("answered"),
        () = until("it was sent", || server.count() == 1) => {}
    }
    let began = Instant::now();
    let busy = tokio::select! {
        _ = &mut slow => panic!("answered"),
        busy = rig.proxy.call(get("/o?2"), None) => busy,
    };
    assert_eq!(busy.err(), Some(ProxyError::Busy));
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_secs(1) && waited < PATIENCE,
        "{waited:?}"
    );
}

#[tokio::test]
async fn failures_are_told_apart() {
    let server = TestServer::start(|seen| {
        if seen.target() == "/o?hang" {
            Act::Hang
        } else {
            Act::Close
        }
    })
    .await;
    let mut config = ingest(vec![application("a")], vec![at(&server)]);
    config.delivery.timeout = Duration::from_millis(300);
    let rig = Rig::start(config);
    let hang = rig.proxy.call(get("/o?hang"), None).await;
    assert_eq!(hang.err(), Some(ProxyError::Timeout));
    let closed = rig.proxy.call(get("/o?close"), None).await;
    assert!(matches!(closed.err(), Some(ProxyError::Failed(_))));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let server = TestServer::start(|_| {
        Act::AnswerAndClose("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_owned())
    })
    .await;
    let rig = Rig::simple(&server);
    let response = rig.proxy.call(get("/o"), None).await.unwrap();
    let body = response.into_body().collect().await;
    assert!(matches!(body.err(), Some(ProxyError::Failed(_))));
}

#[tokio::test]
async fn a_post_is_not_sent_twice() {
    let server = TestServer::start(|seen| {
        if seen.number == 0 {
            success()
        } else {
            Act::Close
        }
    })
    .await;
    let rig = Rig::simple(&server);
    let first = rig
        .proxy
        .call(post("/i/sdk", &[], b"1"), None)
        .await
        .unwrap();
    first.into_body().collect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = rig.proxy.call(post("/i/sdk", &[], b"2"), None).await;
    assert!(second.is_err());
    assert_eq!(server.count(), 2);
}
