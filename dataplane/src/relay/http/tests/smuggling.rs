//! Requests that two readers could understand differently, and such that are none (RFC 9112, RFC 9110).

use super::*;

/// Behind every case comes this; whoever reads a case wrongly queues it.
const SECOND: &str = "GET /i?app_key=abc&device_id=smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Each has to be refused with the status, and nothing of it, nor behind it, may be queued.
#[tokio::test]
async fn ambiguous_requests_are_refused_whole() {
    let server = start().await;
    let post = |headers: &str, body: &str| {
        format!(
            "POST /i HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n{headers}\r\n{body}"
        )
    };
    let get = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let target = "/i?app_key=abc&device_id=d";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases: Vec<(&str, u16, String)> = vec![
        (
            "length and coding",
            400,
            post(
                &format!("Content-Length: 23\r\n{chunked}"),
                &format!("17\r\n{FORM}\r\n0\r\n\r\n"),
            ),
        ),
        (
            "coding and length",
            400,
            post(
                &format!("{chunked}Content-Length: 23\r\n"),
                &format!("17\r\n{FORM}\r\n0\r\n\r\n"),
            ),
        ),
        (
            "two lengths",
            400,
            post("Content-Length: 23\r\nContent-Length: 5\r\n", FORM),
        ),
        (
            "two equal lengths",
            400,
            post("Content-Length: 23\r\nContent-Length: 23\r\n", FORM),
        ),
        (
            "lengths in a list",
            400,
            post("Content-Length: 23, 23\r\n", FORM),
        ),
        (
            "length with plus",
            400,
            post("Content-Length: +23\r\n", FORM),
        ),
        (
            "length with minus",
            400,
            post("Content-Length: -1\r\n", FORM),
        ),
        (
            "length with space",
            400,
            post("Content-Length: 2 3\r\n", FORM),
        ),
        ("length in hex", 400, post("Content-Length: 0x17\r\n", FORM)),
        (
            "length with underscore",
            400,
            post("Content-Length: 2_3\r\n", FORM),
        ),
        ("empty length", 400, post("Content-Length: \r\n", FORM)),
        (
            "length overflow",
            400,
            post("Content-Length: 18446744073709551639\r\n", FORM),
        ),
        (
            "length beyond the limit",
            413,
            post("Content-Length: 18446744073709551615\r\n", FORM),
        ),
        (
            "space before colon",
            400,
            post("Content-Length : 23\r\n", FORM),
        ),
        (
            "tab before colon",
            400,
            post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "folded header",
            400,
            post("X-A: b\r\n Content-Length: 23\r\n", FORM),
        ),
        (
            "folded coding",
            400,
            post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "first header folded",
            400,
            format!("GET {target} HTTP/1.1\r\n Host: a\r\n\r\n"),
        ),
        (
            "bare line feed after a header",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
        ),
        (
            "bare line feeds",
            400,
            format!("GET {target} HTTP/1.1\nHost: a\n\n"),
        ),
        (
            "bare carriage return in a value",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
        ),
        (
            "bare carriage return as line end",
            400,
            format!("GET {target} HTTP/1.1\rHost: a\r\n\r\n"),
        ),
        (
            "NUL in a value",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        ),
        (
            "NUL in a name",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n"),
        ),
        (
            "empty name",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        ),
        (
            "no colon",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nabc\r\n\r\n"),
        ),
        (
            "odd name",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n"),
        ),
        (
            "other coding",
            400,
            post("Transfer-Encoding: gzip\r\n", FORM),
        ),
        (
            "identity",
            400,
            post("Transfer-Encoding: identity\r\n", FORM),
        ),
        (
            "coding in a coding",
            501,
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "chunked is not last",
            400,
            post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
        ),
        (
            "chunked twice",
            400,
            post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "two codings",
            400,
            post(&format!("{chunked}{chunked}"), "0\r\n\r\n"),
        ),
        (
            "almost chunked",
            400,
            post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ),
        (
            "chunked with control",
            400,
            post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"),
        ),
        (
            "quoted chunked",
            400,
            post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
        ),
        (
            "coding in HTTP/1.0",
            400,
            format!("POST {target} HTTP/1.0\r\nHost: a\r\n{chunked}\r\n0\r\n\r\n"),
        ),
        (
            "chunk size overflow",
            400,
            post(
                chunked,
                &format!("10000000000000017\r\n{FORM}\r\n0\r\n\r\n"),
            ),
        ),
        (
            "chunk size garbage",
            400,
            post(chunked, &format!("17x\r\n{FORM}\r\n0\r\n\r\n")),
        ),
        (
            "chunk size with sign",
            400,
            post(chunked, &format!("+17\r\n{FORM}\r\n0\r\n\r\n")),
        ),
        (
            "chunk size with 0x",
            400,
            post(chunked, &format!("0x17\r\n{FORM}\r\n0\r\n\r\n")),
        ),
        (
            "chunk ends with line feed",
            400,
            post(chunked, &format!("17\n{FORM}\n0\n\n")),
        ),
        (
            "chunk longer than its size",
            400,
            post(chunked, &format!("5\r\n{FORM}\r\n0\r\n\r\n")),
        ),
        (
            "extension with line feed",
            400,
            post(chunked, &format!("17;a\n{FORM}\r\n0\r\n\r\n")),
        ),
        (
            "broken trailer",
            400,
            post(
                chunked,
                &format!("17\r\n{FORM}\r\n0\r\nGET / HTTP/1.1\r\n\r\n"),
            ),
        ),
        ("no host", 400, format!("GET {target} HTTP/1.1\r\n\r\n")),
        (
            "two hosts",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ),
        (
            "hosts in a list",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        ),
        (
            "host with path",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ),
        (
            "host with user",
            400,
            format!("GET {target} HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        ),
        (
            "two hosts in HTTP/1.0",
            400,
            format!("GET {target} HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        ),
        (
            "user in target",
            400,
            get("GET http://u@a/i?app_key=abc&device_id=d HTTP/1.1"),
        ),
        (
            "other scheme",
            400,
            get("GET ftp://a/i?app_key=abc&device_id=d HTTP/1.1"),
        ),
        ("fragment", 400, get(&format!("GET {target}#x HTTP/1.1"))),
        (
            "control in target",
            400,
            get(&format!("GET {target}\x01 HTTP/1.1")),
        ),
        (
            "text beyond ASCII in target",
            400,
            get(&format!("GET {target}ü HTTP/1.1")),
        ),
        (
            "no slash",
            400,
            get("GET i?app_key=abc&device_id=d HTTP/1.1"),
        ),
        ("star", 400, get("GET * HTTP/1.1")),
        ("two spaces", 400, get(&format!("GET  {target} HTTP/1.1"))),
        (
            "tab in request line",
            400,
            get(&format!("GET\t{target} HTTP/1.1")),
        ),
        (
            "space after version",
            400,
            get(&format!("GET {target} HTTP/1.1 ")),
        ),
        (
            "space in target",
            400,
            get(&format!("GET {target} x HTTP/1.1")),
        ),
        (
            "leading space",
            400,
            get(&format!(" GET {target} HTTP/1.1")),
        ),
        ("odd method", 400, get(&format!("G(T {target} HTTP/1.1"))),
        ("no version", 400, get(&format!("GET {target}"))),
        (
            "lower case version",
            400,
            get(&format!("GET {target} http/1.1")),
        ),
        ("HTTP/1.2", 505, get(&format!("GET {target} HTTP/1.2"))),
        ("HTTP/2.0", 505, get(&format!("GET {target} HTTP/2.0"))),
        ("HTTP/01.1", 400, get(&format!("GET {target} HTTP/01.1"))),
        (
            "unknown expectation",
            417,
            post("Expect: 200-ok\r\nContent-Length: 23\r\n", FORM),
        ),
        ("a TLS hello", 400, "\x16\x03\x01\x02\0".to_owned()),
    ];
    for (name, status, case) in cases {
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
    let server = start().await;
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
    let server = start().await;
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
    let server = start().await;
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
