//! Whatever comes over the wire: the gateway lives, answers as it should, and passes on nothing malformed.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_e2e::http;
use sluice_e2e::ingest::{Gateway, Ingest, KEY, event};
use sluice_e2e::upstream::checksum;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;

const FORM: &str = "application/x-www-form-urlencoded";
/// The device of requests that are hidden in others: no upstream must ever see it.
const SMUGGLED: &str = "smuggled";

async fn both(ingest: impl Fn(Ingest) -> Ingest) -> Result<(Upstream, Gateway)> {
    let settings = Settings {
        keep_requests: 100_000,
        ..Settings::default()
    };
    let upstream = Upstream::start(settings).await?;
    let gateway = Gateway::start(&ingest(Ingest::new(&upstream.url()))).await?;
    Ok((upstream, gateway))
}

/// Sends bytes and reads until the server closes or is silent for a moment.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    // It may be closed before all is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..count]);
    }
    Ok(answer)
}

fn status(answer: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(answer.get(9..12)?).ok()?;
    answer.starts_with(b"HTTP/1.").then(|| text.parse().ok())?
}

/// The gateway lives, delivers, and what arrived so far was no nonsense.
async fn is_well(upstream: &Upstream, gateway: &mut Gateway) -> Result<()> {
    ensure!(
        gateway.sluice.alive()?,
        "it died: {}",
        gateway.sluice.log_text()
    );
    assert_eq!(gateway.event("well", 1).await?.status, 200);
    gateway.drained(Duration::from_secs(60)).await?;
    let stats = upstream.stats().await?;
    ensure!(stats.unreadable == 0 && stats.malformed == 0, "{stats:?}");
    let users = upstream.users().await?;
    ensure!(
        !users.contains_key(SMUGGLED),
        "a hidden request was delivered: {users:?}"
    );
    ensure!(users.contains_key("well"), "{users:?}");
    let log = gateway.sluice.log_text();
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// Requests that a server must refuse (RFC 9112 and 9110), because others may read them otherwise. `POST` stands for a
/// request line with the headers that are right, `FORM` for its body and `LENGTH` for the length of that, `HIDDEN` for
/// a request of its own, and `GET` for a request line alone.
const AMBIGUOUS: &[(&str, &str)] = &[
    (
        "two lengths",
        "POSTContent-Length: LENGTH\r\nContent-Length: 0\r\n\r\nFORMHIDDEN",
    ),
    (
        "a list of lengths",
        "POSTContent-Length: LENGTH, 0\r\n\r\nFORMHIDDEN",
    ),
    ("a signed length", "POSTContent-Length: +LENGTH\r\n\r\nFORM"),
    ("a negative length", "POSTContent-Length: -1\r\n\r\nFORM"),
    (
        "a hexadecimal length",
        "POSTContent-Length: 0xLENGTH\r\n\r\nFORM",
    ),
    (
        "a length beyond all numbers",
        "POSTContent-Length: 99999999999999999999999\r\n\r\nFORM",
    ),
    ("an empty length", "POSTContent-Length: \r\n\r\nHIDDEN"),
    (
        "a space before the colon",
        "POSTContent-Length : LENGTH\r\n\r\nFORM",
    ),
    (
        "an unknown coding",
        "POSTTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nHIDDEN",
    ),
    (
        "chunked is not last",
        "POSTTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nHIDDEN",
    ),
    (
        "a coding before a space",
        "POSTTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nHIDDEN",
    ),
    (
        "a coding behind a vertical tab",
        "POSTTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\nHIDDEN",
    ),
    (
        "a chunk size that is none",
        "POSTTransfer-Encoding: chunked\r\n\r\nzz\r\nFORM\r\n0\r\n\r\n",
    ),
    (
        "a signed chunk size",
        "POSTTransfer-Encoding: chunked\r\n\r\n+5\r\nFORM\r\n0\r\n\r\n",
    ),
    (
        "a chunk size beyond all",
        "POSTTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nFORM",
    ),
    (
        "a chunk longer than it says",
        "POSTTransfer-Encoding: chunked\r\n\r\n3\r\nFORM\r\n0\r\n\r\n",
    ),
    (
        "coding in HTTP/1.0",
        "POST /i HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN",
    ),
    ("no host", "GET HTTP/1.1\r\nX: y\r\n\r\n"),
    ("two hosts", "GET HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
    (
        "a folded header",
        "GET HTTP/1.1\r\nHost: x\r\nX-Long: a\r\n b\r\n\r\n",
    ),
    (
        "a header without a colon",
        "GET HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    ),
    (
        "a header without a name",
        "GET HTTP/1.1\r\nHost: x\r\n: value\r\n\r\n",
    ),
    (
        "a space in a header's name",
        "GET HTTP/1.1\r\nHost: x\r\nX Y: z\r\n\r\n",
    ),
    (
        "a NUL in a header",
        "GET HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    ),
    (
        "a bare CR in a header",
        "GET HTTP/1.1\r\nHost: x\r\nX: a\rHost: y\r\n\r\n",
    ),
    (
        "a space before a header",
        "GET HTTP/1.1\r\n Host: x\r\n\r\n",
    ),
    (
        "a target with a space",
        "GETx y HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    (
        "a target with a control character",
        "GETx\x01y HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    ("an unknown version", "GET HTTP/3.7\r\nHost: x\r\n\r\n"),
    ("no version", "GET\r\nHost: x\r\n\r\n"),
    (
        "a method of strange characters",
        "G(ET /i HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
];

/// The bytes that a line of [`AMBIGUOUS`] stands for.
fn spelled(text: &str) -> String {
    let hidden = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        event(KEY, SMUGGLED, 1)
    );
    let form = format!("app_key={KEY}&device_id=outer");
    let post = format!("POST /i HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n");
    let text = match text.strip_prefix("POST") {
        Some(rest) if !rest.starts_with(' ') => format!("{post}{rest}"),
        _ => text.to_owned(),
    };
    let text = match text.strip_prefix("GET") {
        Some(rest) => format!("GET {}{rest}", event(KEY, "outer", 1)),
        None => text,
    };
    text.replace("LENGTH", &form.len().to_string())
        .replace("FORM", &form)
        .replace("HIDDEN", &hidden)
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_hide_nothing() -> Result<()> {
    let (upstream, mut gateway) = both(|ingest| ingest).await?;
    let address = gateway.address();
    let mut complaints = Vec::new();
    for (name, text) in AMBIGUOUS {
        let answer = exchange(address, spelled(text).as_bytes())?;
        match status(&answer) {
            // 501: a coding that is not known. Silence: the connection was closed.
            Some(400..=499 | 501 | 505) | None => {}
            Some(other) => complaints.push(format!("{name}: {other}")),
        }
        let answers = memchr::memmem::find_iter(&answer, b"HTTP/1.1 ").count();
        if answers > 1 {
            complaints.push(format!("{name}: {answers} answers"));
        }
    }
    ensure!(complaints.is_empty(), "{complaints:#?}");
    // Length and coding together: the coding counts, or neither; never the length.
    let hidden = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        event(KEY, SMUGGLED, 1)
    );
    let both = format!(
        "POST /i HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
    );
    let answer = exchange(address, both.as_bytes())?;
    ensure!(
        memchr::memmem::find_iter(&answer, b"HTTP/1.1 ").count() <= 1,
        "{}",
        String::from_utf8_lossy(&answer)
    );
    is_well(&upstream, &mut gateway).await?;
    assert_eq!(upstream.users().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn pipelined_and_chunked_requests_are_fine() -> Result<()> {
    let (upstream, gateway) = both(|ingest| ingest).await?;
    let form = format!("app_key={KEY}&device_id=chunked&seq=1");
    let (a, b) = form.split_at(7);
    let text = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\nPOST /i HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:X};ext=\"q\"\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\nTrailer: t\r\n\r\n\
         GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        event(KEY, "piped", 1),
        a.len(),
        b.len(),
        event(KEY, "piped", 2)
    );
    let answer = exchange(gateway.address(), text.as_bytes())?;
    assert_eq!(
        memchr::memmem::find_iter(&answer, b"HTTP/1.1 200").count(),
        3
    );
    gateway.drained(Duration::from_secs(60)).await?;
    let stats = upstream.stats().await?;
    assert_eq!(
        (stats.applied, stats.out_of_order, stats.unreadable),
        (3, 0, 0)
    );
    let copies = upstream.copies().await?;
    let body = copies
        .iter()
        .find(|copy| copy.method == "POST")
        .map(|copy| copy.body());
    assert_eq!(body, Some(form.into_bytes()));
    Ok(())
}

#[tokio::test]
async fn large_and_lying_requests_are_bounded() -> Result<()> {
    let small = json!({ "bodyBytes": 4096 });
    let (upstream, mut gateway) = both(|ingest| ingest.set("accept", small.clone())).await?;
    let address = gateway.address();
    let long = "a".repeat(300_000);
    for (name, request, expected) in [
        (
            "target",
            format!("GET /i?app_key={KEY}&device_id=d&x={long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            [414, 431, 400],
        ),
        (
            "header",
            format!(
                "GET {} HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n",
                event(KEY, "d", 1)
            ),
            [431, 400, 413],
        ),
        (
            "headers",
            format!(
                "GET {} HTTP/1.1\r\nHost: x\r\n{}\r\n",
                event(KEY, "d", 1),
                "X: y\r\n".repeat(5000)
            ),
            [431, 400, 413],
        ),
    ] {
        let answer = exchange(address, request.as_bytes())?;
        let status = status(&answer);
        // It may close while we still write, and then the answer is lost.
        ensure!(
            status.is_none_or(|status| expected.contains(&status)),
            "{name}: {status:?}"
        );
    }
    let form = [("Content-Type", FORM)];
    let body = format!("app_key={KEY}&device_id=d&x={}", "a".repeat(5000));
    let answer = http::request(address, "POST", "/i", &form, body.as_bytes()).await?;
    assert_eq!(answer.status, 413);
    ensure!(answer.json()?.get("result").is_some(), "{}", answer.text());
    let chunked = format!(
        "POST /i HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert_eq!(status(&exchange(address, chunked.as_bytes())?), Some(413));
    // More promised than sent: no request.
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "POST /i HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 500\r\n\r\napp_key={KEY}&device_id=short"
    )?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    ensure!(
        status(&answer).is_none_or(|status| status == 400),
        "{answer:?}"
    );
    is_well(&upstream, &mut gateway).await?;
    ensure!(
        !upstream.users().await?.contains_key("short"),
        "half a request was delivered"
    );
    Ok(())
}

#[tokio::test]
async fn slow_clients_keep_nobody_waiting() -> Result<()> {
    let (upstream, mut gateway) = both(|ingest| ingest).await?;
    let mut slow = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(gateway.address())?;
        let start = match number % 3 {
            0 => "GET /i?app_key".to_owned(),
            1 => format!(
                "POST /i HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 90\r\n\r\nap"
            ),
            _ => "POST /i HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
                .to_owned(),
        };
        stream.write_all(start.as_bytes())?;
        slow.push(stream);
    }
    for seq in 1..=20 {
        let began = Instant::now();
        assert_eq!(gateway.event("quick", seq).await?.status, 200);
        ensure!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    }
    drop(slow);
    is_well(&upstream, &mut gateway).await
}

const MISSING: &str = "Missing parameter \"app_key\" or \"device_id\"";
const BROKEN: &str = "Invalid request body";
const NO_MATCH: &str = "Request does not match checksum";
/// A request of the application with a salt, and the checksum of that.
const SAFE: &str = "app_key=safekey&device_id=d&timestamp=1";
const SALT: &str = "pepper";
const MULTIPART: &str = "multipart/form-data; boundary=x";
const JSON: &str = "application/json";

/// Requests by `GET` with this query: the status and the result they get. `SUM` stands for the checksum of [`SAFE`].
const WRONG_QUERIES: &[(&str, u16, &str)] = &[
    ("", 400, MISSING),
    ("app_key=shopkey", 400, MISSING),
    ("device_id=d", 400, MISSING),
    ("app_key=nobody&device_id=d", 400, "App does not exist"),
    (
        "app_key=shopkey&device_id=00000000-0000-0000-0000-000000000000",
        200,
        "Ignoring device_id",
    ),
    (
        "app_key=shopkey&device_id=d&app_id=12",
        400,
        "Invalid parameter \"app_id\"",
    ),
    (
        "app_key=shopkey&device_id=d&user_id=12",
        400,
        "Invalid parameter \"user_id\"",
    ),
    (
        "app_key=safekey&device_id=d&timestamp=1",
        200,
        "Request does not have checksum",
    ),
    (
        "app_key=safekey&device_id=d&timestamp=1&checksum256=0SUM",
        200,
        NO_MATCH,
    ),
    (
        "app_key=safekey&device_id=d&timestamp=1&x=1&checksum256=SUM",
        200,
        NO_MATCH,
    ),
    (
        "app_key=safekey&device_id=d&timestamp=1&checksum=SUM",
        200,
        NO_MATCH,
    ),
];

/// Requests by `POST` with this path, content type and body.
const WRONG_BODIES: &[(&str, &str, &str, u16, &str)] = &[
    ("/i", FORM, "app_key=shopkey&device_id=", 400, MISSING),
    ("/i", JSON, "{\"app_key\": \"shopkey\"", 400, BROKEN),
    ("/i", JSON, "DEEP", 400, BROKEN),
    ("/i", "multipart/form-data", "--x\r\n\r\nfoo", 400, BROKEN),
    (
        "/i",
        MULTIPART,
        "--y\r\nContent-Disposition: form-data\r\n\r\nfoo",
        400,
        BROKEN,
    ),
    (
        "/i",
        MULTIPART,
        "--x\r\nContent-Disposition: form-data; name=\"app_key\"\r\n\r\nshop",
        400,
        BROKEN,
    ),
    (
        "/i",
        FORM,
        "app_key=safekey&device_id=d&timestamp=12&checksum256=SUM",
        200,
        NO_MATCH,
    ),
    (
        "/i/bulk",
        FORM,
        "app_key=shopkey",
        400,
        "Missing parameter \"requests\"",
    ),
    (
        "/i/bulk",
        FORM,
        "app_key=shopkey&requests=%7B%7D",
        400,
        "Invalid parameter \"requests\"",
    ),
    (
        "/i/bulk",
        FORM,
        "app_key=shopkey&requests=%5B1",
        400,
        "Invalid parameter \"requests\"",
    ),
];

#[tokio::test]
async fn wrong_requests_get_the_reply_of_the_table() -> Result<()> {
    let salted = json!({ "salt": { "value": SALT } });
    let (upstream, mut gateway) =
        both(|ingest| ingest.application("safe", "safekey", salted.clone())).await?;
    let sum = checksum::sha256(SAFE, SALT);
    let deep = "[".repeat(100_000);
    let spelled = |text: &str| text.replace("SUM", &sum).replace("DEEP", &deep);
    let mut complaints = Vec::new();
    let mut check = |what: &str, answer: http::Answer, status: u16, result: &str| {
        let text = answer.json().unwrap_or_default();
        if answer.status != status || text["result"] != *result {
            let got = (answer.status, answer.text());
            complaints.push(format!("{what}: {got:?}; expected {status} {result}"));
        }
    };
    for (query, status, result) in WRONG_QUERIES {
        let answer = gateway.get(&format!("/i?{}", spelled(query))).await?;
        check(query, answer, *status, result);
    }
    for (path, kind, body, status, result) in WRONG_BODIES {
        let headers = [("Content-Type", *kind)];
        let text = spelled(body);
        let answer =
            http::request(gateway.address(), "POST", path, &headers, text.as_bytes()).await?;
        check(&format!("{kind} {body}"), answer, *status, result);
    }
    ensure!(complaints.is_empty(), "{complaints:#?}");
    assert_eq!(upstream.stats().await?.requests, 0);
    // The right one goes through, so that the checks above say something.
    let answer = gateway.get(&format!("/i?{SAFE}&checksum256={sum}")).await?;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, r#"{"result":"Success"}"#)
    );
    is_well(&upstream, &mut gateway).await
}

/// Requests that are right.
fn seeds() -> Vec<String> {
    let form = format!("app_key={KEY}&device_id=fuzz&events=%5B%7B%22key%22%3A%22a%22%7D%5D");
    let bulk = format!("app_key={KEY}&requests=%5B%7B%22device_id%22%3A%22fuzz%22%7D%5D");
    let part = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let parts = format!(
        "{}{}--x--\r\n",
        part("app_key", KEY),
        part("device_id", "fuzz")
    );
    let json = format!("{{\"app_key\":\"{KEY}\",\"device_id\":\"fuzz\"}}");
    let end = "Host: x\r\nConnection: close\r\n";
    let post = |path: &str, kind: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\n{end}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    vec![
        format!(
            "GET {}&callback=x HTTP/1.1\r\n{end}X-Forwarded-For: 1.2.3.4\r\n\r\n",
            event(KEY, "fuzz", 1)
        ),
        post("/i", FORM, &form),
        post("/i", MULTIPART, &parts),
        post("/i", JSON, &json),
        post("/i/bulk", FORM, &bulk),
    ]
}

/// Sends some broken requests, one after the other.
fn torment(address: SocketAddr, seed: u64) -> Result<()> {
    let seeds = seeds();
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..120 {
        let bytes = if round % 10 == 0 {
            (0..random.usize(1..2000)).map(|_| random.u8(..)).collect()
        } else {
            mutilate(seeds[random.usize(..seeds.len())].as_bytes(), &mut random)
        };
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    Ok(())
}

#[tokio::test]
async fn random_bytes_and_mutilated_requests_harm_nobody() -> Result<()> {
    let (upstream, mut gateway) = both(|ingest| {
        // What the upstream dislikes is parked soon and holds up nothing.
        let backoff = json!({ "initial": "20ms", "max": "100ms" });
        ingest.set("delivery", json!({ "attempts": 2, "backoff": backoff }))
    })
    .await?;
    let address = gateway.address();
    let threads: Vec<_> = (0..8)
        .map(|seed| tokio::task::spawn_blocking(move || torment(address, seed)))
        .collect();
    for thread in threads {
        thread.await??;
    }
    ensure!(
        gateway.sluice.alive()?,
        "it died: {}",
        gateway.sluice.log_text()
    );
    gateway.drained(Duration::from_secs(60)).await?;
    let accepted = gateway.metric("sluice_ingest_accepted_total", "").await?;
    ensure!(accepted > 20.0, "{accepted} got through: nothing was tried");
    is_well(&upstream, &mut gateway).await
}

/// Some bytes changed, inserted, taken out or doubled.
fn mutilate(seed: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len());
        match random.u8(..6) {
            0 => bytes[at] = random.u8(..),
            1 => bytes.insert(at, b"\r\n\0 :;=&%\"{["[random.usize(..12)]),
            2 => {
                bytes.remove(at);
            }
            3 => bytes.truncate(at.max(1)),
            4 => {
                let end = (at + random.usize(1..40)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes[at] ^= 1 << random.u8(..8),
        }
    }
    bytes
}
