//! Requests that two readers could understand differently, and such that are none (RFC 9112, RFC 9110).

mod cases;

use self::cases::{POSTS, WHOLE};
use super::*;

/// Behind every case comes this; whoever reads a case wrongly queues it.
const SECOND: &str = "GET /i?app_key=abc&device_id=smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Each has to be refused with the status, and nothing of it, nor behind it, may be queued.
#[tokio::test]
async fn ambiguous_requests_are_refused_whole() {
    let server = start();
    let posts = POSTS.iter().map(|(name, status, headers, body)| {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        let request = format!("POST /i HTTP/1.1\r\nHost: a\r\n{kind}\r\n{headers}\r\n{body}");
        (*name, *status, request)
    });
    let whole = WHOLE
        .iter()
        .map(|(name, status, request)| (*name, *status, (*request).to_owned()));
    for (name, status, case) in posts.chain(whole) {
        let answered = server.exchange(format!("{case}{SECOND}")).await;
        assert_eq!(answered.statuses(), [status], "{name}: {}", answered.text);
        assert!(answered.closed, "{name}: not closed");
        let connection_close = answered.text.contains("\r\nconnection: close\r\n");
        assert!(connection_close, "{name}: {}", answered.text);
        assert_eq!(server.queue.take(), [], "{name}: queued");
    }
    assert!(
        server
            .metrics()
            .contains(r#"rejected_total{reason="Malformed"}"#)
    );
}

/// A body is never read as a request, however it is delimited.
#[tokio::test]
async fn bodies_stay_bodies() {
    let server = start();
    let inner = format!("{FORM}&x={SECOND}");
    let length = inner.len();
    for framed in [
        format!("Content-Length: {length}\r\n\r\n{inner}"),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{length:x};a=b\r\n{inner}\r\n0\r\nTrailer: x\r\n\r\n"
        ),
        format!("Transfer-Encoding: CHUNKED\r\n\r\n{length:X}\r\n{inner}\r\n0\r\n\r\n"),
    ] {
        let request = format!("POST /i HTTP/1.1\r\nHost: a\r\n{framed}{SECOND}");
        let answered = server.exchange(request).await;
        assert_eq!(answered.statuses(), [200, 200], "{}", answered.text);
        let queued = server.queue.take();
        let bodies: Vec<_> = queued
            .iter()
            .map(|(_, request)| request.body.clone())
            .collect();
        assert_eq!(bodies, [inner.clone().into_bytes(), Vec::new()]);
    }
    // A GET may have one, too; it says nothing about routing.
    let request = format!(
        "GET /i?app_key=abc&device_id=d HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}{SECOND}"
    );
    assert_eq!(server.exchange(request).await.statuses(), [200, 200]);
    let queued = server.queue.take();
    assert_eq!(queued[0].1.body, inner.as_bytes());
    assert_eq!(&queued[1].0.key[..], b"smuggled");
}

#[tokio::test]
async fn lengths_that_lie() {
    let server = start();
    // Longer than said: what is beyond is another request, and none.
    let request = format!("POST /i HTTP/1.1\r\nHost: a\r\nContent-Length: 23\r\n\r\n{FORM}(&&");
    let answered = server.exchange(request).await;
    assert_eq!(answered.statuses(), [200, 400], "{}", answered.text);
    assert_eq!(server.queue.take().len(), 1);
    // Shorter than said: the client goes away in the middle.
    for framed in [
        "Content-Length: 24\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n18\r\n",
    ] {
        let mut socket = server.connect().await;
        let request = format!("POST /i HTTP/1.1\r\nHost: a\r\n{framed}{FORM}");
        socket.write_all(request.as_bytes()).await.expect("taken");
        socket.shutdown().await.expect("open");
        let answered = read_all(&mut socket).await;
        assert_eq!(answered.statuses(), [400], "{}", answered.text);
        assert!(answered.closed);
        assert_eq!(server.queue.take(), []);
    }
    server.assert_counted(r#"sluice_ingest_rejected_total{reason="BodyBroken"} 2"#);
}

#[tokio::test]
async fn forms_that_broke_on_their_way() {
    let server = start();
    let target = "/i?app_key=abc&device_id=d";
    for (kind, body) in [
        (
            "multipart/form-data; boundary=x",
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb",
        ),
        ("multipart/form-data; boundary=x", "--y--\r\n"),
        ("multipart/form-data", "--x--\r\n"),
        ("application/json", "{\"a\":"),
    ] {
        let length = body.len();
        let answered = server
            .exchange(format!(
                "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        assert_eq!(answered.statuses(), [400], "{body:?}: {}", answered.text);
        assert_eq!(server.queue.take(), []);
    }
}
