use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use sluice_e2e::timing::{Promises, kept_in_one_run};

use super::fixtures::{application, ingest};
use super::server::{Act, TestServer, answer, success};
use super::*;
use crate::store::queue::{Outcome, Verdict};

#[tokio::test]
async fn a_request_arrives_byte_for_byte() {
    let server = TestServer::start(|_| success()).await;
    let mut upstream = at(&server);
    upstream.url = format!("{}/base", server.url);
    let rig = Rig::start(ingest(vec![application("a")], vec![upstream]));
    let body: Vec<u8> = (0..=255).collect();
    let headers = [
        ("user-agent", "Countly SDK"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-a", "1"),
        ("x-b", "2"),
        ("x-a", "3"),
    ];
    let target = "/i?a=%7b&b='{|^`}'&&c=d?e\u{e4}";
    rig.append("a", "k", &post(target, &headers, &body)).await;
    rig.append("a", "k", &get("//i/?")).await;
    rig.append("a", "k", &post("/i", &[], b"")).await;
    let mut put = post("/i", &[], b"x");
    put.method = Method::from_bytes(b"BREW").unwrap();
    rig.append("a", "k", &put).await;
    until("all arrive", || server.count() == 4).await;
    let seen = server.seen.lock();
    let host = server.url.strip_prefix("http://").unwrap();
    let expected = format!(
        "POST /base{target} HTTP/1.1\r\nhost: {host}\r\nuser-agent: Countly SDK\r\n\
         content-type: application/x-www-form-urlencoded\r\nx-a: 1\r\nx-a: 3\r\nx-b: 2\r\n\
         x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\ncontent-length: 256\r\n\r\n"
    );
    assert_eq!(seen[0].head, expected);
    assert_eq!(seen[0].body, body);
    let expected = format!(
        "GET /base//i/? HTTP/1.1\r\nhost: {host}\r\nx-forwarded-for: 192.0.2.7\r\n\
         x-forwarded-proto: http\r\n\r\n"
    );
    assert_eq!(seen[1].head, expected, "a GET without a body has no length");
    assert_eq!(seen[2].header("content-length"), ["0"]);
    assert!(seen[3].head.starts_with("BREW /base/i HTTP/1.1\r\n"));
    assert_eq!(seen[3].connection, 0, "the connection is kept");
}

#[tokio::test]
async fn many_arrive_in_order_per_key_and_verdicts_are_recorded_together() {
    let server = TestServer::start(|seen| {
        // Every seventh is refused once in a while.
        if seen.number % 7 == 3 {
            Act::Answer(answer(503, "busy"))
        } else {
            success()
        }
    })
    .await;
    let rig = Rig::simple(&server);
    for index in 0..300 {
        let key = (index % 40).to_string();
        rig.append("a", &key, &get(&format!("/i?device_id={key}&n={index}")))
            .await;
    }
    until("all are delivered", || {
        rig.queue.settled(Outcome::Delivered) == 300
    })
    .await;
    let mut last: HashMap<String, u32> = HashMap::new();
    for target in server.targets() {
        let (key, number) = target
            .strip_prefix("/i?device_id=")
            .unwrap()
            .split_once("&n=")
            .unwrap();
        let number = number.parse().unwrap();
        let before = last.insert(key.to_owned(), number).unwrap_or(0);
        assert!(number >= before, "key {key}: {number} after {before}");
    }
    assert!(rig.queue.settle_calls() < 300);
    assert_eq!(
        rig.metric("sluice_ingest_delivered_total{application=\"a\"}"),
        Some(300.0)
    );
}

/// Sends what is bad so many times to a server that refuses just that.
async fn picky(attempts: u32) -> (TestServer, Rig) {
    let server = TestServer::start(|seen| {
        if seen.target() == "/i?bad" {
            Act::Answer(answer(500, "no"))
        } else {
            success()
        }
    })
    .await;
    let mut config = quick(ingest(vec![application("a")], vec![at(&server)]));
    config.delivery.attempts = attempts;
    (server, Rig::start(config))
}

#[tokio::test]
async fn what_keeps_failing_is_parked_with_its_attempts() {
    let (server, rig) = picky(3).await;
    let bad = rig.append("a", "k", &get("/i?bad")).await;
    let good = rig.append("a", "k", &get("/i?good")).await;
    let other = rig.append("a", "other", &get("/i?other")).await;
    until("all are settled", || rig.queue.waiting() == 0).await;
    let verdict = rig.queue.verdict(bad).unwrap();
    let expected = Verdict {
        outcome: Outcome::Parked,
        reason: "AttemptsExhausted".into(),
        http_status: 500,
        attempts: 3,
        upstream: "u".into(),
        at_ms: verdict.at_ms,
    };
    assert_eq!(verdict, expected);
    assert_eq!(rig.queue.attempts(bad), 2, "recorded before the last one");
    for id in [good, other] {
        assert_eq!(rig.queue.verdict(id).unwrap().outcome, Outcome::Delivered);
    }
    let targets = server.targets();
    let position = |target: &str| targets.iter().position(|seen| seen == target).unwrap();
    assert!(
        position("/i?other") < position("/i?good"),
        "other keys go on"
    );
    assert_eq!(
        targets.iter().filter(|target| *target == "/i?bad").count(),
        3
    );
}

/// Nothing else is sent, so that the upstream seems to fail as a whole.
#[tokio::test]
async fn what_fails_alone_is_parked_but_not_at_once() {
    let (_server, rig) = picky(7).await;
    let began = Instant::now();
    let bad = rig.append("a", "k", &get("/i?bad")).await;
    let good = rig.append("a", "k", &get("/i?good")).await;
    until("all are settled", || rig.queue.waiting() == 0).await;
    assert!(began.elapsed() >= Duration::from_secs(10));
    let verdict = rig.queue.verdict(bad).unwrap();
    assert_eq!((verdict.outcome, verdict.attempts), (Outcome::Parked, 7));
    assert_eq!(rig.queue.verdict(good).unwrap().outcome, Outcome::Delivered);
}

#[tokio::test]
async fn two_that_fail_are_an_outage_and_are_not_parked() {
    let (_server, rig) = picky(7).await;
    for key in ["k", "other"] {
        rig.append("a", key, &get("/i?bad")).await;
    }
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(rig.queue.waiting(), 2);
}

#[tokio::test]
async fn a_connection_that_was_closed_behind_our_back_is_no_failure() {
    let server =
        TestServer::start(|_| Act::AnswerAndClose(answer(200, r#"{"result":"Success"}"#))).await;
    let rig = Rig::simple(&server);
    for index in 0..200 {
        rig.append("a", "k", &get(&format!("/i?n={index}"))).await;
    }
    until("all are delivered", || {
        rig.queue.settled(Outcome::Delivered) == 200
    })
    .await;
    let retried = rig.scrape();
    assert!(!retried.contains("retried_total{"), "{retried}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_failure_and_nothing_is_lost() {
    let server = TestServer::start(|seen| {
        if seen.number < 3 {
            Act::Close
        } else {
            success()
        }
    })
    .await;
    let rig = Rig::simple(&server);
    let id = rig.append("a", "k", &get("/i")).await;
    until("it is delivered", || rig.queue.waiting() == 0).await;
    assert_eq!(rig.queue.verdict(id).unwrap().outcome, Outcome::Delivered);
    assert_eq!(server.count(), 4);
}

#[tokio::test]
async fn an_upstream_that_hangs_is_given_up() {
    // A machine that stands still for so long gives up the second one as well.
    let once = kept_in_one_run(async || {
        let sent = sent_to_one_that_hangs_once().await;
        assert!(sent >= 2);
        Ok(Promises::new().expect(sent == 2, format!("{sent} sent")))
    });
    once.await.unwrap();
}

/// How many requests it takes to deliver one.
async fn sent_to_one_that_hangs_once() -> usize {
    let server = TestServer::start(|seen| {
        if seen.number == 0 {
            Act::Hang
        } else {
            success()
        }
    })
    .await;
    let mut config = quick(ingest(vec![application("a")], vec![at(&server)]));
    config.delivery.timeout = Duration::from_millis(200);
    let rig = Rig::start(config);
    rig.append("a", "k", &get("/i")).await;
    until("it is delivered", || rig.queue.waiting() == 0).await;
    server.count()
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_waited_for() {
    let server = TestServer::start(|_| success()).await;
    let mut gone = at(&server);
    gone.url = "http://127.0.0.1:9".to_owned();
    let mut config = quick(ingest(vec![application("a")], vec![gone]));
    let rig = Rig::start(config.clone());
    let ids = [
        rig.append("a", "k", &get("/i?1")).await,
        rig.append("a", "k", &get("/i?2")).await,
    ];
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(
        rig.queue.attempts(ids[0]),
        0,
        "nothing was sent, so no attempt is used"
    );
    config.upstreams = vec![at(&server).into()];
    rig.config.send_replace(gateway(config));
    until("both are delivered", || rig.queue.waiting() == 0).await;
    assert_eq!(server.targets(), ["/i?1", "/i?2"]);
}

#[tokio::test]
async fn large_and_chunked_answers_are_read_as_far_as_needed() {
    let large = answer(
        200,
        &format!(
            "{{\"result\":\"Success\",\"x\":\"{}\"}}",
            "x".repeat(300_000)
        ),
    );
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   8\r\n{\"result\r\nb\r\n\":\"Success\"\r\n1\r\n}\r\n0\r\n\r\n";
    let server = TestServer::start(move |seen| {
        Act::Answer(if seen.number == 0 {
            large.clone()
        } else {
            chunked.to_owned()
        })
    })
    .await;
    let rig = Rig::simple(&server);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(rig.append("a", "k", &get("/i")).await);
    }
    until("all are settled", || rig.queue.waiting() == 0).await;
    assert_eq!(
        rig.queue.verdict(ids[1]).unwrap().outcome,
        Outcome::Delivered
    );
    let seen = server.seen.lock();
    let last = seen.last().unwrap();
    assert_eq!(
        last.connection,
        seen[seen.len() - 2].connection,
        "kept after the chunked answer"
    );
}

#[tokio::test]
async fn damaged_entries_are_parked_and_block_nobody() {
    let server = TestServer::start(|_| success()).await;
    let rig = Rig::simple(&server);
    let id = EntryId(1);
    let entry = NewEntry {
        id,
        lane: Lane {
            partition: 0,
            application: "a".into(),
            replay: false,
        },
        key: Bytes::from_static(b"k"),
        barrier: Bytes::new(),
        cost: 1,
        replay_of: None,
        request: Bytes::from_static(b"\xffnonsense"),
    };
    rig.queue.append(entry).await.unwrap();
    rig.append("a", "k", &get("/i#fragment")).await;
    rig.append("a", "k", &get("/i")).await;
    until("all are settled", || rig.queue.waiting() == 0).await;
    assert_eq!(&*rig.queue.verdict(id).unwrap().reason, "Damaged");
    assert_eq!(rig.queue.settled(Outcome::Parked), 2);
    assert_eq!(server.targets(), ["/i"]);
}

#[tokio::test]
async fn what_an_operator_discards_is_not_tried_again() {
    let server = TestServer::start(|_| Act::Answer(answer(500, "no"))).await;
    let mut config = quick(ingest(vec![application("a")], vec![at(&server)]));
    config.delivery.backoff_initial = Duration::from_millis(300);
    config.delivery.backoff_max = Duration::from_millis(300);
    let rig = Rig::start(config);
    let id = rig.append("a", "k", &get("/i?discarded")).await;
    until("it was tried", || server.count() == 1).await;
    let verdict = Verdict {
        outcome: Outcome::Discarded,
        reason: "".into(),
        http_status: 0,
        attempts: 0,
        upstream: "".into(),
        at_ms: 0,
    };
    rig.queue.dismiss(id, verdict).await.unwrap();
    server.behave(|_| success());
    rig.append("a", "k", &get("/i?next")).await;
    until("the next one is delivered", || {
        rig.queue.settled(Outcome::Delivered) == 1
    })
    .await;
    assert_eq!(server.targets(), ["/i?discarded", "/i?next"]);
}

#[tokio::test]
async fn while_verdicts_cannot_be_recorded_nothing_more_is_sent() {
    let server = TestServer::start(|_| success()).await;
    let rig = Rig::simple(&server);
    rig.queue.fail_settle.store(true, Ordering::Relaxed);
    rig.append("a", "", &get("/i?0")).await;
    until("the first one arrives", || server.count() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    for index in 1..50 {
        rig.append("a", "", &get(&format!("/i?{index}"))).await;
    }
    rig.until_held("Store").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.count(), 1);
    rig.queue.fail_settle.store(false, Ordering::Relaxed);
    until("all are delivered", || rig.queue.waiting() == 0).await;
    assert_eq!(server.count(), 50, "none twice");
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_for_a_while_loses_nothing() {
    let server = TestServer::start(|_| success()).await;
    let queue = MemoryQueue::new();
    queue.fail_reads.store(true, Ordering::Relaxed);
    let config = quick(ingest(vec![application("a")], vec![at(&server)]));
    let rig = Rig::start_with(config, queue);
    for index in 0..20 {
        rig.append("a", "k", &get(&format!("/i?{index}"))).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.count(), 0);
    rig.queue.fail_reads.store(false, Ordering::Relaxed);
    until("all are delivered", || rig.queue.waiting() == 0).await;
    assert_eq!(server.count(), 20);
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_pause_gets_it() {
    // The pause may be over before a busy machine has looked at it.
    kept_in_one_run(async || Ok(a_pause().await)).await.unwrap();
}

async fn a_pause() -> Promises {
    let server = TestServer::start(|seen| {
        if seen.number == 0 {
            Act::Answer("HTTP/1.1 429 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned())
        } else {
            success()
        }
    })
    .await;
    let rig = Rig::simple(&server);
    let began = Instant::now();
    let id = rig.append("a", "k", &get("/i?1")).await;
    until("it was refused", || server.count() == 1).await;
    rig.append("a", "other", &get("/i?2")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let report = rig.handle.report().await.unwrap();
    let is_held = report.lanes.first().is_some_and(|lane| lane.held.is_some());
    until("all are delivered", || rig.queue.waiting() == 0).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(rig.queue.attempts(id), 0, "a 429 uses no attempt up");
    Promises::new().expect(is_held, "held meanwhile")
}

#[tokio::test]
async fn replies_are_read_as_the_dialect_says() {
    let server = TestServer::start(|_| {
        Act::Answer(answer(
            400,
            r#"{"result":"App is currently not accepting data"}"#,
        ))
    })
    .await;
    let rig = Rig::simple(&server);
    rig.append("a", "k", &get("/i?1")).await;
    until("it was refused", || server.count() == 1).await;
    rig.append("a", "other", &get("/i?2")).await;
    rig.until_held("UpstreamPaused").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.count(), 1);
}
