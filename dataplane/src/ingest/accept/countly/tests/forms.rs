//! How parameters of query and body come together.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const JSON: &str = "application/json; charset=utf-8";

#[test]
fn the_body_wins() {
    let table = table(|_| {});
    let query = "/i?app_key=wrong&device_id=a";
    assert_eq!(post(&table, query, "app_key=abc"), queued("shop", "a", ""));
    assert_eq!(
        post(&table, query, "app_key=abc&device_id=b"),
        queued("shop", "b", "")
    );
    let json = br#"{"app_key":"abc","device_id":"c"}"#;
    assert_eq!(
        send(&table, &Method::POST, query, JSON, json),
        queued("shop", "c", "")
    );
}

#[test]
fn names_and_values_are_decoded() {
    let table = table(|_| {});
    let body = "app%5Fkey=%61bc&device_id=a+b%20%C3%BC";
    assert_eq!(post(&table, "/i", body), queued("shop", "a b ü", ""));
    let json = r#"{"app\u005fkey":"abc","device_id":"\u00fc\n"}"#;
    assert_eq!(
        send(&table, &Method::POST, "/i", JSON, json.as_bytes()),
        queued("shop", "ü\n", "")
    );
}

#[test]
fn json_values_are_coerced_to_text() {
    let table = table(|_| {});
    let ask = |device: &str| {
        let body =
            format!(r#"{{"metrics":{{"a":[1,{{}}]}},"app_key":"abc","device_id":{device}}}"#);
        send(&table, &Method::POST, "/i", JSON, body.as_bytes())
    };
    assert_eq!(ask("12"), queued("shop", "12", ""));
    assert_eq!(ask("true"), queued("shop", "true", ""));
    for nothing in ["null", "false", "0", "\"\""] {
        let missing = replied(400, r#"Missing parameter "app_key" or "device_id""#);
        assert_eq!(ask(nothing), missing, "{nothing}");
    }
}

#[test]
fn bodies_that_are_not_what_they_say() {
    let table = table(|_| {});
    let id = "/i?app_key=abc&device_id=d";
    let ask = |kind: &str, body: &[u8]| send(&table, &Method::POST, id, kind, body);
    let invalid = || replied(400, "Invalid request body");
    for body in ["{", "[]", "7", "{} x", "\"a\"", "nul"] {
        assert_eq!(ask(JSON, body.as_bytes()), invalid(), "{body}");
    }
    assert_eq!(ask(JSON, b"{\"device_id\":\"\xff\"}"), invalid());
    assert_eq!(ask("multipart/form-data", b"--x--"), invalid());
    assert_eq!(
        ask("multipart/form-data; boundary=x", b"--x\r\n"),
        invalid()
    );
    assert_eq!(ask(JSON, b"{}"), queued("shop", "d", ""));
    assert_eq!(ask(JSON, b""), queued("shop", "d", ""));
    // Such a body has no parameters upstream either.
    assert_eq!(
        ask("application/octet-stream", b"device_id=e"),
        queued("shop", "d", "")
    );
    assert_eq!(ask("", b"device_id=e"), queued("shop", "e", ""));
    let proxied = send(&table, &Method::POST, "/i/crash_symbols", JSON, b"{");
    assert_eq!(proxied, Short::Proxied(None));
}

#[test]
fn deep_json_is_no_danger() {
    let table = table(|_| {});
    let deep = "[".repeat(100_000);
    let body = format!(r#"{{"app_key":"abc","device_id":"d","events":{deep}}}"#);
    let reply = send(&table, &Method::POST, "/i", JSON, body.as_bytes());
    assert_eq!(reply, replied(400, "Invalid request body"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(r#"{{"app_key":"abc","device_id":"d","events":{deep}}}"#);
    let reply = send(&table, &Method::POST, "/i", JSON, body.as_bytes());
    assert!(
        matches!(reply, Short::Queued(..) | Short::Replied(400, _)),
        "{reply:?}"
    );
}

proptest! {
    #[test]
    fn no_request_panics(
        query in "[ -~]{0,60}",
        kind in prop_oneof![
            Just(""), Just("application/json"), Just("multipart/form-data; boundary=x"),
            Just("application/x-www-form-urlencoded")
        ],
        body in vec(prop_oneof![Just(b'{'), Just(b'"'), Just(b'['), Just(b'-'), Just(b'x'), Just(b'='), Just(b'&'), Just(b'%'), any::<u8>()], 0..120),
        bulk in any::<bool>(),
    ) {
        let table = table(|ingest| ingest.accept.unknown_keys = UnknownKeys::Accept);
        let path = if bulk { "/i/bulk" } else { "/i" };
        let _ = send(&table, &Method::POST, &format!("{path}?{query}"), kind, &body);
    }
}
