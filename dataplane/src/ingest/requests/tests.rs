use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;

use super::*;
use crate::ingest::deliver::tests::memory::MemoryQueue;
use crate::ingest::entry::StoredRequest;
use crate::store::queue::{Lane, NewEntry, Outcome, State, Verdict};

struct Rig {
    queue: Arc<MemoryQueue>,
    requests: Requests,
}

impl Rig {
    fn new() -> Self {
        let queue = MemoryQueue::new();
        let last = AtomicU64::new(1_000);
        let requests = Requests {
            queue: Arc::clone(&queue) as _,
            deliver: None,
            ids: Arc::new(move || {
                let number = last.fetch_add(1, Ordering::Relaxed);
                EntryId((u128::from(crate::clock::unix_ms()) << 80) | u128::from(number))
            }),
            metrics: Metrics::register(&mut Registry::default()),
            config: watch::channel(Arc::new(crate::config::tests::sample())).1,
        };
        Self { queue, requests }
    }

    /// Accepted a minute ago, and so many milliseconds.
    async fn add(
        &self,
        number: u64,
        application: &str,
        key: &[u8],
        outcome: Option<Outcome>,
    ) -> EntryId {
        let accepted = crate::clock::unix_ms() - 60_000 + number;
        let id = EntryId((u128::from(accepted) << 80) | u128::from(number));
        let stored = StoredRequest {
            method: Method::POST,
            target: Bytes::from_static(b"/i?app_key=a"),
            headers: vec![(http::header::USER_AGENT, HeaderValue::from_static("sdk"))],
            client: [192, 0, 2, 7].into(),
            secure: true,
            body: Bytes::copy_from_slice(key),
        };
        let entry = NewEntry {
            id,
            lane: Lane {
                partition: 3,
                application: application.into(),
                replay: false,
            },
            key: Bytes::copy_from_slice(key),
            barrier: Bytes::new(),
            cost: 2,
            replay_of: None,
            request: stored.encode(),
        };
        self.queue.append(entry).await.unwrap();
        if let Some(outcome) = outcome {
            let lane = self.queue.lanes();
            let lane = lane
                .iter()
                .find(|lane| &*lane.lane.application == application)
                .unwrap();
            let limits = crate::store::queue::ClaimLimits {
                entries: 1,
                bytes: 1,
            };
            let claimed = self.queue.claim(&lane.lane, limits).await.unwrap();
            let verdict = Verdict {
                outcome,
                reason: "Rejected".into(),
                http_status: 404,
                attempts: 2,
                upstream: "main".into(),
                at_ms: accepted + 5,
            };
            self.queue
                .settle(vec![(claimed[0].token, verdict)])
                .await
                .unwrap();
        }
        id
    }

    async fn send(&self, request: http::request::Builder) -> (StatusCode, Value) {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let answer = self.requests.answer(&head, Bytes::new()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Request::get(path).header("host", "127.0.0.1:8081"))
            .await
    }

    async fn post(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::post(path)
            .header("host", "localhost:8081")
            .header("content-type", "application/json");
        self.send(request).await
    }

    async fn outcome(&self, id: EntryId) -> State {
        let (found, _) = self.queue.get(id).await.unwrap().unwrap();
        found
            .verdict
            .map_or(State::Waiting, |verdict| State::Settled(verdict.outcome))
    }
}

#[tokio::test]
async fn requests_are_listed_page_by_page_and_by_filter() {
    let rig = Rig::new();
    let parked = rig.add(1, "a", b"k", Some(Outcome::Parked)).await;
    let waiting = rig.add(2, "a", b"\xff", None).await;
    let unknown = rig.add(3, "", b"k", None).await;
    let (status, page) = rig.get("/requests?limit=2").await;
    assert_eq!(status, StatusCode::OK);
    let accepted_ms = parked.accepted_ms();
    let first = json!({
        "id": parked.to_string(), "application": "a", "key": "k", "state": "parked",
        "acceptedAt": time::format_ms(accepted_ms), "acceptedAtMs": accepted_ms, "cost": 2,
        "bytes": page["requests"][0]["bytes"], "replay": false,
        "verdict": {"reason": "Rejected", "httpStatus": 404, "attempts": 2, "upstream": "main",
            "at": time::format_ms(accepted_ms + 5), "atMs": accepted_ms + 5},
    });
    assert_eq!(page["requests"][0], first);
    assert_eq!(page["requests"][1]["keyBase64"], "/w==");
    assert_eq!(page["requests"][1]["state"], "waiting");
    assert_eq!(page["next"], waiting.to_string());
    let (_, page) = rig.get(&format!("/requests?limit=2&after={waiting}")).await;
    assert_eq!(page["requests"][0]["id"], unknown.to_string());
    assert_eq!(page["requests"][0]["application"], "(unknown)");
    assert_eq!(page["next"], Value::Null);
    for (filter, expected) in [
        ("state=parked", vec![parked]),
        ("key=k", vec![parked, unknown]),
        ("key=%ff", vec![waiting]),
        ("application=a&state=waiting", vec![waiting]),
        ("application=(unknown)", vec![unknown]),
        ("from=30s", vec![]),
        ("until=30s", vec![parked, waiting, unknown]),
    ] {
        let (_, page) = rig.get(&format!("/requests?{filter}")).await;
        let ids: Vec<_> = page["requests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].clone())
            .collect();
        let expected: Vec<Value> = expected.iter().map(|id| id.to_string().into()).collect();
        assert_eq!(ids, expected, "{filter}");
    }
}

#[tokio::test]
async fn one_is_shown_with_its_request() {
    let rig = Rig::new();
    let text = rig.add(1, "a", b"body", None).await;
    let binary = rig.add(2, "a", b"\xfe", None).await;
    let (_, shown) = rig.get(&format!("/requests/{text}")).await;
    let expected = json!({
        "method": "POST", "target": "/i?app_key=a", "headers": [["user-agent", "sdk"]],
        "client": "192.0.2.7", "secure": true, "bodyBytes": 4, "body": "body",
    });
    assert_eq!(shown["request"], expected);
    let (_, shown) = rig.get(&format!("/requests/{binary}")).await;
    assert_eq!(shown["request"]["bodyBase64"], "/g==");
    let (status, shown) = rig.get(&format!("/requests/{}", EntryId(7))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(shown["error"].as_str().unwrap().contains("retention"));
    assert_eq!(
        rig.get("/requests/nonsense").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[test]
fn long_bodies_are_cut_between_characters() {
    let body = "\u{e4}".repeat(600_000);
    let stored = StoredRequest {
        method: Method::POST,
        target: Bytes::from_static(b"/"),
        headers: Vec::new(),
        client: [192, 0, 2, 7].into(),
        secure: false,
        body: Bytes::from(format!("x{body}")),
    };
    let shown = json::request(stored.encode(), &Redaction::new(None));
    assert_eq!(shown["bodyBytes"], 1_200_001);
    assert_eq!(shown["bodyTruncated"], true);
    assert_eq!(shown["body"].as_str().unwrap().len(), 1024 * 1024 - 1);
    let damaged = json::request(Bytes::from_static(b"\xff"), &Redaction::new(None));
    assert!(damaged["error"].is_string());
}

#[tokio::test]
async fn a_parked_request_is_replayed_once() {
    let rig = Rig::new();
    let old = rig.add(1, "a", b"k", Some(Outcome::Parked)).await;
    let (status, answer) = rig.post(&format!("/requests/{old}/replay")).await;
    assert_eq!(status, StatusCode::OK);
    let new: EntryId = answer["replayedAs"].as_str().unwrap().parse().unwrap();
    let (found, request) = rig.queue.get(new).await.unwrap().unwrap();
    let (before, stored) = rig.queue.get(old).await.unwrap().unwrap();
    assert_eq!(
        (found.replay_of, found.lane.replay, found.lane.partition),
        (Some(old), true, 3)
    );
    assert_eq!((found.key, found.cost, request), (before.key, 2, stored));
    let verdict = before.verdict.unwrap();
    assert_eq!(
        (verdict.outcome, &*verdict.reason),
        (Outcome::Replayed, "Rejected")
    );
    let (status, _) = rig.post(&format!("/requests/{old}/replay")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = rig.post(&format!("/requests/{new}/replay")).await;
    assert_eq!(status, StatusCode::CONFLICT, "it waits anyway");
}

#[tokio::test]
async fn a_delivered_request_is_copied() {
    let rig = Rig::new();
    let old = rig.add(1, "a", b"k", Some(Outcome::Delivered)).await;
    assert_eq!(
        rig.post(&format!("/requests/{old}/replay")).await.0,
        StatusCode::OK
    );
    assert_eq!(rig.outcome(old).await, State::Settled(Outcome::Delivered));
    assert_eq!(rig.queue.waiting(), 1);
}

#[tokio::test]
async fn when_the_queue_is_full_a_parked_request_stays() {
    let rig = Rig::new();
    let old = rig.add(1, "a", b"k", Some(Outcome::Parked)).await;
    rig.queue.full.store(true, Ordering::Relaxed);
    let (status, answer) = rig.post(&format!("/requests/{old}/replay")).await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"queue is full".into())
    );
    assert_eq!(rig.outcome(old).await, State::Settled(Outcome::Parked));
    let (_, counts) = rig.post("/requests/replay?state=parked").await;
    assert_eq!(
        counts,
        json!({"matched": 0, "replayed": 0, "skipped": 0, "next": null, "error": "queue is full"})
    );
}

#[tokio::test]
async fn requests_are_discarded() {
    let rig = Rig::new();
    let parked = rig.add(1, "a", b"k", Some(Outcome::Parked)).await;
    let waiting = rig.add(2, "a", b"k", None).await;
    for id in [parked, waiting] {
        assert_eq!(
            rig.post(&format!("/requests/{id}/discard")).await.0,
            StatusCode::OK
        );
        assert_eq!(rig.outcome(id).await, State::Settled(Outcome::Discarded));
        assert_eq!(
            rig.post(&format!("/requests/{id}/discard")).await.0,
            StatusCode::CONFLICT
        );
    }
}

#[tokio::test]
async fn many_are_replayed_in_order_and_bounded_per_call() {
    let rig = Rig::new();
    for number in 0..25 {
        rig.add(number, "a", b"k", Some(Outcome::Parked)).await;
    }
    rig.add(30, "b", b"k", Some(Outcome::Parked)).await;
    let mut after = String::new();
    let mut replayed = Vec::new();
    loop {
        let (_, counts) = rig
            .post(&format!(
                "/requests/replay?state=parked&application=a&limit=10{after}"
            ))
            .await;
        replayed.push(counts["replayed"].as_u64().unwrap());
        let Some(next) = counts["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    assert_eq!(replayed, [10, 10, 5]);
    let (_, page) = rig.get("/requests?state=waiting").await;
    let of: Vec<_> = page["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["replayOf"].as_str().unwrap())
        .collect();
    assert_eq!(of.len(), 25);
    assert!(of.is_sorted());
    let (_, counts) = rig.post("/requests/discard?state=waiting").await;
    assert_eq!(counts["discarded"], 25);
    assert_eq!(rig.queue.settled(Outcome::Parked), 1);
}

#[tokio::test]
async fn a_bulk_call_without_a_state_is_refused() {
    let rig = Rig::new();
    rig.add(1, "a", b"k", None).await;
    for path in [
        "/requests/discard",
        "/requests/discard?application=a",
        "/requests/discard?state=delivered",
        "/requests/replay",
        "/requests/replay?state=waiting",
        "/requests/replay?state=replayed",
    ] {
        assert_eq!(rig.post(path).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(rig.queue.waiting(), 1);
}

#[tokio::test]
async fn pages_in_a_browser_get_nothing() {
    let rig = Rig::new();
    let id = rig.add(1, "a", b"k", None).await;
    let path = format!("/requests/{id}/discard");
    let good = || Request::post(&path).header("host", "127.0.0.1");
    let refused = [
        good(),
        good().header("content-type", "text/plain"),
        good().header("content-type", "application/x-www-form-urlencoded"),
        good()
            .header("content-type", "application/json")
            .header("origin", "http://evil.example"),
        good()
            .header("content-type", "application/json")
            .header("origin", "null"),
        good()
            .header("content-type", "application/json")
            .header("sec-fetch-site", "cross-site"),
        Request::post(&path)
            .header("host", "evil.example")
            .header("content-type", "application/json"),
        Request::post(&path).header("content-type", "application/json"),
        Request::get("/requests").header("host", "evil.example"),
        Request::get("/requests")
            .header("host", "localhost")
            .header("sec-fetch-site", "same-site"),
    ];
    for request in refused {
        let text = format!("{request:?}");
        let (status, _) = rig.send(request).await;
        assert!(matches!(status.as_u16(), 403 | 415), "{text}: {status}");
    }
    assert_eq!(rig.queue.waiting(), 1);
    let own_page = good()
        .header("content-type", "application/json; charset=utf-8")
        .header("origin", "http://127.0.0.1")
        .header("sec-fetch-site", "same-origin");
    assert_eq!(rig.send(own_page).await.0, StatusCode::OK);
}

#[tokio::test]
async fn paths_and_methods() {
    let rig = Rig::new();
    for (method, path, expected) in [
        ("POST", "/requests", 405),
        ("GET", "/requests/replay", 405),
        ("POST", "/lanes", 405),
        ("GET", "/requests/", 400),
        ("GET", "/requests/x/y/z", 404),
        ("GET", "/requests?nonsense=1", 400),
        ("HEAD", "/lanes", 200),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json");
        assert_eq!(rig.send(request).await.0, expected, "{method} {path}");
    }
    let (head, ()) = Request::get("/requestsx").body(()).unwrap().into_parts();
    assert!(rig.requests.answer(&head, Bytes::new()).await.is_none());
}

#[tokio::test]
async fn lanes_without_delivery() {
    let rig = Rig::new();
    rig.add(1, "a", b"k", Some(Outcome::Parked)).await;
    rig.add(2, "a", b"k", None).await;
    let (_, lanes) = rig.get("/lanes").await;
    assert_eq!(lanes["lanes"][0]["waiting"], 1);
    assert_eq!(lanes["lanes"][0]["parked"], 1);
}
