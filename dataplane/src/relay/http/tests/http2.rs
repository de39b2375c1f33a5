//! HTTP/2 by prior knowledge and by ALPN.

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

async fn client(server: &Server) -> SendRequest<Full<Bytes>> {
    let io = TokioIo::new(server.connect().await);
    let (sender, connection) = handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn request(method: Method, target: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://a{target}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .expect("valid")
}

#[tokio::test]
async fn by_prior_knowledge() {
    let server = start();
    let mut sender = client(&server).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(sender.send_request(request(Method::POST, "/i?x=%20", FORM)));
    }
    for answer in answers {
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        assert_eq!(body, r#"{"result":"Success"}"#);
    }
    let queued = server.queue.take();
    assert_eq!(queued.len(), 50);
    assert_eq!(queued[0].1.target, "/i?x=%20");
    assert_eq!(queued[0].1.body, FORM);
    let head = sender
        .send_request(request(Method::HEAD, "/i", ""))
        .await
        .expect("an answer");
    assert_eq!(head.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(head.headers()["content-length"], "31");
    let upgrade = request(Method::GET, "/connection/websocket", "");
    let upgrade = sender.send_request(upgrade).await.expect("an answer");
    assert_eq!(upgrade.status(), StatusCode::BAD_REQUEST);
    let api = request(Method::POST, "/api/info", "{}");
    let api = sender.send_request(api).await.expect("an answer");
    assert_eq!(api.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn limits_hold_for_http2() {
    let server = start_ingest(|ingest| ingest.accept.body_bytes = 1_000);
    let mut sender = client(&server).await;
    let large = Request::builder()
        .method("POST")
        .uri("http://a/i")
        .body(Full::new(Bytes::from(vec![b'x'; 300_000])))
        .expect("valid");
    let refused = sender.send_request(large).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let mut many = Request::builder().uri("http://a/i");
    for index in 0..2_000 {
        many = many.header(format!("x-{index}"), "0123456789");
    }
    let many = many.body(Full::default()).expect("valid");
    match sender.send_request(many).await {
        Ok(refused) => assert_eq!(
            refused.status(),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        ),
        Err(error) => assert!(!error.is_timeout(), "{error}"),
    }
    let mut sender = client(&server).await;
    let fine = sender
        .send_request(request(Method::POST, "/i", FORM))
        .await
        .expect("an answer");
    assert_eq!(fine.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_cancels_all_it_asks_is_cut() {
    let server = start();
    *server.queue.delay.lock() = Duration::from_secs(2);
    // Frames by hand: a request and its cancellation, ten thousand times.
    let mut socket = server.connect().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for index in 0..10_000_u32 {
        let stream = (2 * index + 1).to_be_bytes();
        // GET, http, "/" from the static table.
        bytes.extend([0, 0, 3, 1, 5]);
        bytes.extend(stream);
        bytes.extend([0x82, 0x86, 0x84]);
        bytes.extend([0, 0, 4, 3, 0]);
        bytes.extend(stream);
        bytes.extend([0, 0, 0, 8]);
    }
    let _ = socket.write_all(&bytes).await;
    assert!(read_all(&mut socket).await.closed);
    assert_eq!(
        server
            .exchange("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .statuses(),
        [404]
    );
}

#[tokio::test]
async fn a_drain_ends_http2_connections() {
    let server = start();
    let gate = server.queue.gate.write().await;
    let mut sender = client(&server).await;
    let under_way = sender.send_request(request(Method::POST, "/i", FORM));
    let drain = async {
        server.queue.until_begun(1).await;
        server.drain.start(PATIENCE);
        drop(gate);
    };
    let (answer, ()) = tokio::join!(under_way, drain);
    assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    let outcome = timeout(PATIENCE, server.drain.complete()).await;
    assert_eq!(outcome.ok(), Some(crate::drain::Outcome::Finished));
}

#[tokio::test]
async fn by_agreement_over_tls() {
    let issued = crate::tls::tests::issue();
    let certificates = crate::tls::Certificates::new(&issued.material).expect("valid");
    let server = start_with(Setup {
        tls: Some(Arc::new(certificates)),
        ..Setup::default()
    });
    let tls = async |protocols: &[&str]| {
        let version = &rustls::version::TLS13;
        let trusting = crate::tls::tests::trusting(&issued, version, protocols);
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(trusting);
        let socket = connector.connect(name, server.connect().await).await;
        TokioIo::new(socket.expect("trusted"))
    };
    let (mut sender, connection) = handshake(TokioExecutor::new(), tls(&["h2", "http/1.1"]).await)
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    let answer = sender.send_request(request(Method::POST, "/i", FORM)).await;
    assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    for protocols in [&["http/1.1"][..], &[]] {
        let io = tls(protocols).await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection);
        for _ in 0..2 {
            let mut post = request(Method::POST, "/i", FORM);
            post.headers_mut()
                .insert("host", "a".parse().expect("valid"));
            let answer = sender.send_request(post).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK);
            let body = answer
                .into_body()
                .collect()
                .await
                .expect("whole")
                .to_bytes();
            assert_eq!(body, r#"{"result":"Success"}"#);
        }
    }
    assert!(
        server
            .queue
            .take()
            .iter()
            .all(|(_, request)| request.secure)
    );
}
