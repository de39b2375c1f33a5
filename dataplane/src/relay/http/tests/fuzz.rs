//! Random bytes against the real connection handler: it answers something sensible or closes, and goes on serving.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// Pieces of which requests, good and bad, are made.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        Just("POST /i HTTP/1.1\r\n"),
        Just("GET /i?app_key=abc&device_id=d HTTP/1.1\r\n"),
        Just("GET /i/bulk?requests=[] HTTP/1.0\r\n"),
        Just("Host: a\r\n"),
        Just("Content-Length: 23\r\n"),
        Just("Content-Length: 5\r\n"),
        Just("Transfer-Encoding: chunked\r\n"),
        Just("Content-Type: multipart/form-data; boundary=x\r\n"),
        Just("Content-Type: application/json\r\n"),
        Just("Connection: close\r\n"),
        Just("Expect: 100-continue\r\n"),
        Just("\r\n"),
        Just("\n"),
        Just("\r"),
        Just("17\r\n"),
        Just("0\r\n\r\n"),
        Just("--x--\r\n"),
        Just("{\"app_key\":\"abc\",\"device_id\":\"d\"}"),
        Just("app_key=abc&device_id=d"),
        Just("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Just("\0\0\0\x04\0\0\0\0\0"),
    ];
    prop_oneof![
        6 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..12),
    ]
}

#[test]
fn no_bytes_do_harm() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let server = runtime.block_on(async { start() });
    let mut runner = TestRunner::new(ProptestConfig::with_cases(400));
    let outcome = runner.run(&vec(piece(), 0..14), |pieces| {
        let bytes = pieces.concat();
        let text = runtime.block_on(async {
            let mut socket = server.connect().await;
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
            read_all(&mut socket).await.text
        });
        // What is queued is a request that someone sent: it can be read back.
        for (entry, request) in server.queue.take() {
            prop_assert_eq!(&*entry.lane.application, "shop");
            prop_assert!(request.target.starts_with(b"/i"));
        }
        if text.starts_with("HTTP") {
            let known = [
                "100", "200", "400", "404", "405", "413", "417", "431", "501", "505",
            ];
            prop_assert!(known.contains(&&text[9..12]), "{}", text);
        }
        Ok(())
    });
    outcome.expect("no failure");
    let after = runtime.block_on(server.exchange(post(FORM)));
    assert_eq!(after.statuses(), [200]);
}
