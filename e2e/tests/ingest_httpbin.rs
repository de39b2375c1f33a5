//! A foreign upstream, go-httpbin, behind the `Generic` dialect: byte-exact delivery, and its failures.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::http;
use sluice_e2e::httpbin::Httpbin;
use sluice_e2e::ingest::{Gateway, Ingest, KEY};
use sluice_e2e::tap::Tap;
use tokio::time::{Instant, sleep};

/// The application is named by a header, the order by another one.
fn generic(upstream: &str) -> Ingest {
    let accept = json!({
        "dialect": "Generic",
        "generic": {
            "applicationKey": { "header": "X-App-Key" },
            "orderingKey": { "header": "X-Device" },
        },
    });
    Ingest::new(upstream).set("accept", accept)
}

async fn send(
    gateway: &Gateway,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<()> {
    let headers = [&[("X-App-Key", KEY)], headers].concat();
    let answer = http::request(gateway.address(), method, target, &headers, body).await?;
    ensure!(
        (200..300).contains(&answer.status),
        "{method} {target}: {} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

#[tokio::test]
async fn requests_arrive_byte_for_byte() -> Result<()> {
    let httpbin = Httpbin::start().await?;
    let tap = Tap::start(httpbin.address).await?;
    let gateway = Gateway::start(&generic(&tap.url())).await?;
    let noise: Vec<u8> = (0..100_000).map(|_| fastrand::u8(..)).collect();
    let cases: [(&str, &str, &[u8]); 7] = [
        (
            "POST",
            "/anything/a%20b/%C3%BC?x=1&x=2&y=%26+%20;z&&=",
            b"plain",
        ),
        ("PUT", "/anything/dots.?", b""),
        (
            "PATCH",
            "/anything?q=%zz%",
            b"\x00\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ),
        ("DELETE", "/anything/x", b""),
        ("POST", "/anything/noise", &noise),
        ("GET", "/anything?get", b""),
        ("POST", "/anything/json", b"{\"a\": [1, 2 ,3]}"),
    ];
    for (number, (method, target, body)) in cases.iter().enumerate() {
        let mark = format!("mark-{number}");
        let headers = [
            ("X-Device", "one"),
            ("X-Mark", mark.as_str()),
            ("Content-Type", "application/octet-stream"),
            ("X-Twice", "a"),
            ("X-Twice", "b, c"),
            ("User-Agent", "Test/1.0 (x; y)"),
            ("Accept-Language", "de;q=0.5"),
        ];
        send(&gateway, method, target, &headers, body).await?;
    }
    gateway.drained(Duration::from_secs(60)).await?;
    let sent = tap.to_server();
    let mut from = 0;
    for (number, (method, target, body)) in cases.iter().enumerate() {
        // In the order in which they were accepted, on whatever connection: each is found behind the last.
        let line = format!("{method} {target} HTTP/1.1\r\n");
        let at = memchr::memmem::find(&sent[from..], line.as_bytes())
            .with_context(|| format!("no {line:?} in its turn"))?;
        let rest = &sent[from + at..];
        let end = memchr::memmem::find(rest, b"\r\n\r\n").context("no end of headers")?;
        let head = String::from_utf8_lossy(&rest[..end]).to_lowercase();
        ensure!(
            rest[end + 4..].starts_with(body),
            "{line:?}: the body is another one"
        );
        for part in [
            &format!("x-mark: mark-{number}"),
            "x-device: one",
            "user-agent: test/1.0 (x; y)",
            "content-type: application/octet-stream",
            "accept-language: de;q=0.5",
            "x-forwarded-for: 127.0.0.1",
            &format!("host: {}", tap.address),
        ] {
            ensure!(head.contains(part), "no {part} in {head}");
        }
        let twice: Vec<&str> = head.lines().filter(|l| l.starts_with("x-twice:")).collect();
        assert_eq!(twice, ["x-twice: a", "x-twice: b, c"]);
        from += at + end + 4 + body.len();
    }
    // And the server understood each of them as one request.
    assert_eq!(successes(&tap), cases.len());
    Ok(())
}

/// Answers 200 that the server gave.
fn successes(tap: &Tap) -> usize {
    let talks = tap.talks().into_iter();
    let answers: Vec<u8> = talks.flat_map(|talk| talk.to_client).collect();
    memchr::memmem::find_iter(&answers, b"HTTP/1.1 200 OK\r\n").count()
}

#[tokio::test]
async fn its_failures_become_what_they_mean() -> Result<()> {
    let httpbin = Httpbin::start().await?;
    let delivery = json!({
        "attempts": 3, "timeout": "1s", "backoff": { "initial": "100ms", "max": "300ms" },
    });
    let gateway = Gateway::start(&generic(&httpbin.url()).set("delivery", delivery)).await?;
    let bad = [
        "/status/404",
        "/status/503",
        "/delay/5",
        "/status/500",
        "/status/302",
    ];
    for target in bad {
        send(&gateway, "POST", target, &[("X-Device", target)], b"x").await?;
    }
    // All the while others are well, so that it is not the upstream that fails.
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut good = 0;
    loop {
        good += 1;
        let device = format!("d{}", good % 7);
        send(
            &gateway,
            "POST",
            "/anything/good",
            &[("X-Device", &device)],
            b"y",
        )
        .await?;
        let parked = gateway.find("state=parked").await?;
        if parked.len() == bad.len() {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "parked: {parked:?}, lanes: {}",
            gateway.admin("/lanes").await?
        );
        sleep(Duration::from_millis(20)).await;
    }
    gateway.drained(Duration::from_secs(60)).await?;
    assert_eq!(
        gateway.metric("sluice_ingest_delivered_total", "").await?,
        f64::from(good)
    );
    Ok(())
}

#[tokio::test]
async fn slow_answers_are_waited_for_and_bodies_of_any_form_are_answers() -> Result<()> {
    let httpbin = Httpbin::start().await?;
    let gateway = Gateway::start(&generic(&httpbin.url())).await?;
    let targets = [
        "/delay/1",
        "/drip?duration=1&numbytes=20&delay=0",
        "/stream-bytes/50000",
        "/html",
        "/gzip",
        "/status/204",
    ];
    for target in targets {
        send(&gateway, "GET", target, &[("X-Device", target)], b"").await?;
    }
    gateway.drained(Duration::from_secs(60)).await?;
    assert_eq!(gateway.find("state=delivered").await?.len(), targets.len());
    Ok(())
}

#[tokio::test]
async fn only_what_is_below_the_prefix_is_taken() -> Result<()> {
    let httpbin = Httpbin::start().await?;
    let ingest = generic(&httpbin.url()).without_applications().set(
        "accept",
        json!({ "dialect": "Generic", "pathPrefix": "/anything", "unknownKeys": "Accept" }),
    );
    let gateway = Gateway::start(&ingest).await?;
    for (target, taken) in [
        ("/anything/x", true),
        ("/anything", true),
        ("/anythingelse", false),
        ("/get", false),
    ] {
        let answer = http::request(gateway.address(), "POST", target, &[], b"").await?;
        assert_eq!(
            (200..300).contains(&answer.status),
            taken,
            "{target}: {}",
            answer.status
        );
    }
    gateway.drained(Duration::from_secs(60)).await?;
    assert_eq!(gateway.find("state=delivered").await?.len(), 2);
    Ok(())
}
