//! Requests as clients make them, and what is stored of them.

use http::Response;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use sluice_crds::config::{Dialect, Generic, RequestPart};

use super::*;
use crate::ingest::proxy::ProxyError;

#[tokio::test]
async fn a_request_is_stored_as_it_came_and_acknowledged() {
    let server = start();
    let answered = server
        .exchange(
            "POST /i?app_key=abc&b=%20+ HTTP/1.1\r\nHost: gateway\r\nUser-Agent: Sdk/1\r\n\
             X-Forwarded-For: 192.0.2.7\r\nAuthorization: Basic x\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 31\r\n\r\n\
             device_id=d&old_device_id=o%6Ed",
        )
        .await;
    assert!(
        answered.text.starts_with("HTTP/1.1 200 OK\r\n"),
        "{}",
        answered.text
    );
    let (head, body) = answered.text.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, r#"{"result":"Success"}"#);
    for line in [
        "content-type: application/json; charset=utf-8",
        "access-control-allow-origin: *",
        "content-length: 20",
    ] {
        assert!(head.lines().any(|found| found == line), "{line}: {head}");
    }
    assert!(
        head.contains("\r\ndate: ") && !head.contains("connection"),
        "{head}"
    );
    assert!(!answered.closed);
    let [(entry, request)] = &server.queue.take()[..] else {
        panic!("one entry");
    };
    assert_eq!(&*entry.lane.application, "shop");
    assert_eq!(
        (&entry.key[..], &entry.barrier[..]),
        (&b"d"[..], &b"ond"[..])
    );
    assert_eq!(request.method, http::Method::POST);
    assert_eq!(request.target, "/i?app_key=abc&b=%20+");
    assert_eq!(request.body, "device_id=d&old_device_id=o%6Ed");
    assert_eq!(request.client, IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert!(!request.secure);
    let names: Vec<_> = request
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "user-agent",
            "x-forwarded-for",
            "authorization",
            "content-type"
        ]
    );
    server.assert_counted(r#"sluice_ingest_accepted_total{application="shop"} 1"#);
    server.assert_counted("sluice_ingest_accept_seconds_count 1");
}

#[tokio::test]
async fn one_after_another_and_all_at_once() {
    let server = start();
    let answered = server.exchange(post(FORM).repeat(200)).await;
    assert_eq!(answered.statuses(), [200; 200]);
    assert_eq!(server.queue.take().len(), 200);
    let mut socket = server.connect().await;
    for _ in 0..3 {
        socket.write_all(post(FORM).as_bytes()).await.expect("open");
        assert_eq!(read_all(&mut socket).await.statuses(), [200]);
    }
    // In pieces, with empty lines before.
    for byte in format!("\r\n\r\n{}", post(FORM)).bytes() {
        socket.write_all(&[byte]).await.expect("open");
        tokio::task::yield_now().await;
    }
    assert_eq!(read_all(&mut socket).await.statuses(), [200]);
    assert_eq!(server.queue.take().len(), 4);
}

#[tokio::test]
async fn old_clients_and_those_that_close() {
    let server = start();
    let target = "/i?app_key=abc&device_id=d";
    let old = server
        .exchange(format!("GET {target} HTTP/1.0\r\n\r\n"))
        .await;
    assert_eq!((old.statuses(), old.closed), (vec![200], true));
    let kept = format!("GET {target} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    let kept = server.exchange(kept).await;
    assert_eq!((kept.statuses(), kept.closed), (vec![200], false));
    assert!(kept.text.contains("connection: keep-alive\r\n"));
    let last = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n");
    let last = server.exchange(last).await;
    assert_eq!((last.statuses(), last.closed), (vec![200], true));
    assert!(last.text.contains("connection: close\r\n"));
    // One that has said all it wants to say still gets its answer.
    let mut socket = server.connect().await;
    socket.write_all(post(FORM).as_bytes()).await.expect("open");
    socket.shutdown().await.expect("open");
    assert_eq!(read_all(&mut socket).await.statuses(), [200]);
    assert_eq!(server.queue.take().len(), 4);
    // The whole address in the request line.
    let whole = format!("GET http://other:81{target} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(server.exchange(whole).await.statuses(), [200]);
    assert_eq!(server.queue.take()[0].1.target, target);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends() {
    let server = start();
    let head = |length: usize, version| {
        format!(
            "POST /i HTTP/1.{version}\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut socket = server.connect().await;
    socket
        .write_all(head(23, 1).as_bytes())
        .await
        .expect("open");
    assert_eq!(
        read_all(&mut socket).await.text,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    socket.write_all(FORM.as_bytes()).await.expect("open");
    assert_eq!(read_all(&mut socket).await.statuses(), [200]);
    // Too much is refused before it is sent.
    let refused = server.exchange(head(2_000_000, 1)).await;
    assert_eq!((refused.statuses(), refused.closed), (vec![413], true));
    // Bodies that come all the same need no leave; HTTP/1.0 knows none.
    let at_once = server.exchange(format!("{}{FORM}", head(23, 1))).await;
    assert_eq!(at_once.statuses(), [200]);
    let old = server.exchange(format!("{}{FORM}", head(23, 0))).await;
    assert_eq!(old.statuses(), [200]);
}

#[tokio::test]
async fn browsers_ask_first() {
    let server = start();
    let answered = server
        .exchange("OPTIONS /i HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(answered.statuses(), [200]);
    for line in [
        "access-control-allow-origin: *\r\n",
        "access-control-allow-methods: POST, GET, OPTIONS\r\n",
        "access-control-allow-headers: countly-token, Content-Type\r\n",
        "content-length: 0\r\n",
    ] {
        assert!(answered.text.contains(line), "{}", answered.text);
    }
    let put = server.exchange("PUT /i HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(put.statuses(), [405]);
    assert!(put.text.ends_with(r#"{"result":"Method not allowed"}"#));
    let head = server.exchange("HEAD /i HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(head.statuses(), [405]);
    assert!(head.text.ends_with("\r\n\r\n"), "{}", head.text);
    assert!(head.text.contains("content-length: 31\r\n"));
}

/// Answers proxied calls with what the function makes of their targets.
fn upstream(
    server: &Server,
    answer: impl Fn(&str) -> Result<Response<crate::ingest::proxy::Body>, ProxyError> + Send + 'static,
) {
    let mut calls = server.calls.lock().take().expect("only once");
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            let target = String::from_utf8_lossy(&call.request.target).into_owned();
            let _ = call.reply.send(answer(&target));
        }
    });
}

fn full(text: &'static str) -> crate::ingest::proxy::Body {
    Full::new(Bytes::from_static(text.as_bytes()))
        .map_err(|never| match never {})
        .boxed()
}

#[tokio::test]
async fn proxied_calls_have_the_upstreams_answer() {
    let server = start();
    upstream(&server, |target| match target {
        "/o/busy" => Err(ProxyError::Busy),
        "/o/late" => Err(ProxyError::Timeout),
        "/o/gone" => Err(ProxyError::Failed("reset".into())),
        "/o/empty" => Ok(Response::builder()
            .status(204)
            .body(full(""))
            .expect("valid")),
        "/o/stream" | "/o/break" => {
            let breaks = target == "/o/break";
            let frames = [Ok("ab"), Ok("cde"), Err(ProxyError::Timeout)];
            let frames = frames.into_iter().take(if breaks { 3 } else { 2 });
            let frames = frames.map(|data| data.map(|data| Frame::data(Bytes::from(data))));
            let body = StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>()));
            Ok(Response::new(BodyExt::boxed(body)))
        }
        _ => Ok(Response::builder()
            .status(418)
            .header("content-type", "text/x")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=1")
            .header("set-cookie", "a=b")
            .header("content-length", "5")
            .body(full("hello"))
            .expect("valid")),
    });
    let call = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let plain = server
        .exchange(call("GET", "/o/sdk?method=sc&app_key=abc"))
        .await;
    assert_eq!((plain.statuses(), plain.closed), (vec![418], false));
    assert!(plain.text.ends_with("\r\n\r\nhello"), "{}", plain.text);
    assert!(plain.text.contains("set-cookie: a=b\r\n") && !plain.text.contains("hop"));
    assert!(!plain.text.contains("keep-alive"), "{}", plain.text);
    let head = server.exchange(call("HEAD", "/o/sdk/content")).await;
    assert!(head.text.contains("content-length: 5\r\n") && head.text.ends_with("\r\n\r\n"));
    let stream = server.exchange(call("GET", "/o/stream")).await;
    assert!(stream.text.contains("transfer-encoding: chunked\r\n"));
    assert!(
        stream.text.ends_with("2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"),
        "{}",
        stream.text
    );
    let old = server.exchange("GET /o/stream HTTP/1.0\r\n\r\n").await;
    assert!(
        old.text.ends_with("\r\n\r\nabcde") && old.closed,
        "{}",
        old.text
    );
    // An answer that breaks off must not look whole.
    let broken = server.exchange(call("GET", "/o/break")).await;
    assert!(
        !broken.text.contains("0\r\n\r\n") && broken.closed,
        "{}",
        broken.text
    );
    let empty = server.exchange(call("GET", "/o/empty")).await;
    assert_eq!((empty.statuses(), empty.closed), (vec![204], false));
    assert!(!empty.text.contains("content-length"), "{}", empty.text);
    for (path, status) in [("/o/busy", 503), ("/o/late", 504), ("/o/gone", 502)] {
        let failed = server.exchange(call("GET", path)).await;
        assert_eq!(failed.statuses(), [status]);
        assert_eq!(failed.text.contains("retry-after: "), status == 503);
        assert!(failed.text.contains("application/json") && failed.text.contains("{\"result\":"));
    }
    server.assert_counted(r#"sluice_ingest_proxied_total{status="418"} 2"#);
    assert_eq!(server.queue.take(), []);
}

#[tokio::test]
async fn the_relays_paths_stay_the_relays() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let with_ingest = start();
    assert_eq!(
        with_ingest
            .exchange(get("/connection/websocket"))
            .await
            .statuses(),
        [400]
    );
    assert_eq!(
        with_ingest.exchange(get("/api/info")).await.statuses(),
        [405]
    );
    assert_eq!(
        with_ingest.exchange(get("/nothing")).await.statuses(),
        [404]
    );
    let upgrade = "GET /connection/websocket HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let upgraded = with_ingest.exchange(upgrade).await;
    assert_eq!(upgraded.statuses(), [101]);
    assert!(
        upgraded
            .text
            .contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
    );
    assert!(
        upgraded.text.contains("connection: Upgrade\r\n"),
        "{}",
        upgraded.text
    );
    // After an ingest request, too, with a first frame (a close) right behind.
    let frame: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8];
    let both = [post(FORM).as_bytes(), upgrade.as_bytes(), frame].concat();
    let both = with_ingest.exchange(both).await;
    assert_eq!(both.statuses(), [200, 101]);
    // Answered in kind: the bytes behind the head were not lost.
    assert!(
        both.text.contains("\r\n\r\n\u{fffd}\u{2}\u{3}"),
        "{}",
        both.text
    );
    let api =
        "POST /api/info HTTP/1.1\r\nHost: a\r\nX-API-Key: secret\r\nContent-Length: 2\r\n\r\n{}";
    let api = with_ingest.exchange(format!("{api}{api}")).await;
    assert_eq!(api.statuses(), [200, 200]);
    let without = start_with(Setup {
        ingest: None,
        ..Setup::default()
    });
    assert_eq!(
        without
            .exchange(get("/i?app_key=abc&device_id=d"))
            .await
            .statuses(),
        [404]
    );
    assert_eq!(without.exchange(upgrade).await.statuses(), [101]);
    let closed = start_with(Setup {
        anonymous: false,
        ..Setup::default()
    });
    assert_eq!(closed.exchange(upgrade).await.statuses(), [404]);
    assert_eq!(closed.exchange(post(FORM)).await.statuses(), [200]);
}

#[tokio::test]
async fn generic_requests() {
    let server = start_ingest(|ingest| {
        ingest.accept.path_prefix = "/hook".into();
        ingest.accept.dialect = Dialect::Generic(Generic {
            application_key: Some(RequestPart::Header("x-app-key".into())),
            ordering_key: Some(RequestPart::Header("x-device".into())),
        });
    });
    let ask = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let answered = server
        .exchange(ask("DELETE /hook/a?b", "X-App-Key: abc\r\nX-Device: d\r\n"))
        .await;
    assert_eq!(answered.statuses(), [202]);
    assert!(answered.text.ends_with(r#"{"result":"Accepted"}"#));
    let [(entry, request)] = &server.queue.take()[..] else {
        panic!("one entry");
    };
    let id = format!("x-request-id: {}\r\n", entry.id);
    assert!(answered.text.contains(&id), "{}", answered.text);
    assert_eq!(
        (&entry.key[..], &request.target[..]),
        (&b"d"[..], &b"/hook/a?b"[..])
    );
    let elsewhere = server
        .exchange(ask("GET /hooks", "X-App-Key: abc\r\n"))
        .await;
    assert_eq!(elsewhere.statuses(), [404]);
    let missing = server.exchange(ask("PUT /hook", "")).await;
    assert_eq!(missing.statuses(), [400]);
    assert!(
        missing
            .text
            .ends_with(r#"{"error":{"field":"header x-app-key","message":"is required"}}"#)
    );
}
