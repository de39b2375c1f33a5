//! What is bounded: sizes, times, memory, connections, and the end of the process.

use super::*;

#[tokio::test]
async fn heads_are_bounded() {
    let server = start();
    let line = format!("X: {}\r\n", "y".repeat(1_000));
    let huge = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", line.repeat(1_000));
    let answered = server.exchange(huge).await;
    assert_eq!((answered.statuses(), answered.closed), (vec![431], true));
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(100)
    );
    assert_eq!(server.exchange(many).await.statuses(), [431]);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000));
    assert_eq!(server.exchange(long).await.statuses(), [414]);
    let fits = format!(
        "GET /i?app_key=abc&device_id=d&x={} HTTP/1.1\r\nHost: a\r\n\r\n",
        "x".repeat(15_000)
    );
    assert_eq!(server.exchange(fits).await.statuses(), [200]);
}

#[tokio::test]
async fn bodies_are_bounded_and_the_refusal_arrives() {
    let server = start_ingest(|ingest| ingest.accept.body_bytes = 100_000);
    let body = format!("{FORM}&x={}", "y".repeat(99_900));
    assert!(body.len() < 100_000);
    assert_eq!(server.exchange(post(&body)).await.statuses(), [200]);
    assert_eq!(server.queue.take()[0].1.body, body.as_bytes());
    let large = format!("{FORM}&x={}", "y".repeat(400_000));
    let answered = server.exchange(post(&large)).await;
    assert_eq!((answered.statuses(), answered.closed), (vec![413], true));
    assert!(
        answered
            .text
            .ends_with(r#"{"result":"Request body is too large"}"#)
    );
    let chunk = format!("1000\r\n{}\r\n", "z".repeat(0x1000));
    let head = "POST /i HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answered = server
        .exchange(format!("{head}{}0\r\n\r\n", chunk.repeat(50)))
        .await;
    assert_eq!((answered.statuses(), answered.closed), (vec![413], true));
    assert_eq!(server.queue.take(), []);
    server.assert_counted(r#"sluice_ingest_rejected_total{reason="BodyTooLarge"} 2"#);
}

#[tokio::test]
async fn a_queue_that_takes_nothing_is_said_so() {
    let server = start();
    for (refusal, reason) in [
        (QueueError::Full, "QueueFull"),
        (QueueError::Unavailable("disk".into()), "QueueUnavailable"),
    ] {
        *server.queue.refusal.lock() = Some(refusal);
        let mut seconds = std::collections::BTreeSet::new();
        for device in 0..40 {
            let answered = server
                .exchange(post(&format!("app_key=abc&device_id={device}")))
                .await;
            assert_eq!((answered.statuses(), answered.closed), (vec![503], false));
            assert!(answered.text.contains("content-type: application/json"));
            let (_, rest) = answered.text.split_once("retry-after: ").expect("a time");
            let (time, _) = rest.split_once("\r\n").expect("a line");
            seconds.insert(time.parse::<u32>().expect("seconds"));
        }
        assert!(
            seconds.iter().all(|time| (30..=90).contains(time)),
            "{seconds:?}"
        );
        assert!(seconds.len() > 10, "not spread: {seconds:?}");
        server.assert_counted(&format!(
            r#"sluice_ingest_rejected_total{{reason="{reason}"}} 40"#
        ));
    }
    *server.queue.refusal.lock() = None;
    assert_eq!(server.exchange(post(FORM)).await.statuses(), [200]);
    server.assert_counted(r#"sluice_ingest_accepted_total{application="shop"} 1"#);
}

#[tokio::test]
async fn concurrent_requests_are_bounded() {
    let server = start_ingest(|ingest| ingest.accept.concurrent_requests = 2);
    let gate = server.queue.gate.write().await;
    let (first, second) = (server.exchange(post(FORM)), server.exchange(post(FORM)));
    let third = async {
        server.queue.until_begun(2).await;
        let third = server.exchange(post(FORM)).await;
        drop(gate);
        third
    };
    let (first, second, third) = tokio::join!(first, second, third);
    assert_eq!(
        (first.statuses(), second.statuses()),
        (vec![200], vec![200])
    );
    assert_eq!(third.statuses(), [503]);
    assert!(third.text.contains("retry-after: "));
    server.assert_counted(r#"sluice_ingest_rejected_total{reason="Concurrency"} 1"#);
    assert_eq!(server.exchange(post(FORM)).await.statuses(), [200]);
}

#[tokio::test]
async fn connections_beyond_the_kept_ones_end_with_their_answer() {
    let server = start_with(Setup {
        connections_max: 1,
        ..Setup::default()
    });
    let mut kept = server.connect().await;
    kept.write_all(post(FORM).as_bytes()).await.expect("open");
    let answered = read_all(&mut kept).await;
    assert_eq!((answered.statuses(), answered.closed), (vec![200], false));
    let beyond = server.exchange(post(FORM)).await;
    assert_eq!((beyond.statuses(), beyond.closed), (vec![200], true));
    assert!(beyond.text.contains("connection: close\r\n"));
    drop(kept);
    tokio::time::sleep(QUIET).await;
    assert!(!server.exchange(post(FORM)).await.closed);
}

#[tokio::test]
async fn kept_connections_hold_no_handshake_permits() {
    let server = start_with(Setup {
        connections_max: 10_000,
        ..Setup::default()
    });
    let before = server.relay.handshakes.available_permits();
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = server.connect().await;
        socket.write_all(post(FORM).as_bytes()).await.expect("open");
        assert_eq!(read_all(&mut socket).await.statuses(), [200]);
        sockets.push(socket);
    }
    // The listener holds the one for the next socket.
    assert!(server.relay.handshakes.available_permits() + 1 >= before);
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_closes_the_rest() {
    let server = start();
    let mut idle = server.connect().await;
    idle.write_all(post(FORM).as_bytes()).await.expect("open");
    assert_eq!(read_all(&mut idle).await.statuses(), [200]);
    let gate = server.queue.gate.write().await;
    let mut busy = server.connect().await;
    busy.write_all(post(FORM).as_bytes()).await.expect("open");
    server.queue.until_begun(2).await;
    server.drain.start(PATIENCE);
    let answered = read_all(&mut idle).await;
    drop(gate);
    assert_eq!((answered.text.as_str(), answered.closed), ("", true));
    let answered = read_all(&mut busy).await;
    assert_eq!((answered.statuses(), answered.closed), (vec![200], true));
    assert!(answered.text.contains("connection: close\r\n"));
    let outcome = timeout(PATIENCE, server.drain.complete()).await;
    assert_eq!(outcome.ok(), Some(crate::drain::Outcome::Finished));
}

/// Slow heads are cut by the clock; slow bodies have tests of their own, on paused time.
#[tokio::test]
async fn a_head_that_does_not_end_is_given_up() {
    let server = start();
    let mut socket = server.connect().await;
    let began = std::time::Instant::now();
    let trickle = async {
        let mut answered = Exchange {
            text: String::new(),
            closed: false,
        };
        let head = format!("GET /i HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(100));
        for byte in head.bytes() {
            if socket.write_all(&[byte]).await.is_err() {
                break;
            }
            let mut buffer = [0; 4096];
            match timeout(Duration::from_millis(200), socket.read(&mut buffer)).await {
                Ok(Ok(read)) => {
                    answered.text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    break;
                }
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
        answered
    };
    let answered = timeout(Duration::from_secs(40), trickle)
        .await
        .expect("given up");
    assert_eq!(answered.statuses(), [408]);
    assert!(began.elapsed() >= Duration::from_secs(9));
}

#[tokio::test]
async fn a_changed_configuration_counts_at_once() {
    let server = start();
    assert_eq!(server.exchange(post(FORM)).await.statuses(), [200]);
    server.config.send_modify(|config| {
        let mut changed = GatewayConfig::clone(config);
        changed.ingest = Some(accept::countly::tests::config(|ingest| {
            ingest.applications.clear();
        }));
        *config = Arc::new(changed);
    });
    let answered = server.exchange(post(FORM)).await;
    assert!(
        answered
            .text
            .ends_with(r#"{"result":"App does not exist"}"#)
    );
}
