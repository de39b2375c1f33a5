//! Requests in bulk.

use super::*;

fn ask(table: &Table, query: &str, requests: &str) -> Short {
    let body: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("requests", requests)
        .finish();
    post(table, &format!("/i/bulk{query}"), &body)
}

fn bulk(application: &str, key: &str, barrier: &str, cost: u32) -> Short {
    Short::Queued(application.into(), key.into(), barrier.into(), cost)
}

fn every() -> String {
    String::from_utf8_lossy(EVERY_KEY).into_owned()
}

#[test]
fn what_is_no_array_is_refused() {
    let table = table(|_| {});
    let missing = || replied(400, r#"Missing parameter "requests""#);
    let invalid = || replied(400, r#"Invalid parameter "requests""#);
    assert_eq!(get(&table, "/i/bulk"), missing());
    for nothing in ["", "null", "false", "0", "\"\""] {
        assert_eq!(ask(&table, "?app_key=abc", nothing), missing(), "{nothing}");
    }
    for other in ["{}", "7", "\"[]\"", "[", "[}", "[] x", "true", "[{\"a\":}]"] {
        assert_eq!(ask(&table, "?app_key=abc", other), invalid(), "{other}");
    }
}

#[test]
fn devices_make_keys() {
    let table = table(|_| {});
    let one = r#"[{"app_key":"abc","device_id":"a"},{"app_key":"abc","device_id":"a"}]"#;
    assert_eq!(ask(&table, "", one), bulk("shop", "a", "", 2));
    let two = r#"[{"app_key":"abc","device_id":"a"},{"app_key":"abc","device_id":"b"}]"#;
    assert_eq!(ask(&table, "", two), bulk("shop", "a", "b", 2));
    let merge = r#"[{"app_key":"abc","device_id":"a","old_device_id":"b"}]"#;
    assert_eq!(ask(&table, "", merge), bulk("shop", "a", "b", 1));
    let three = r#"[{"device_id":"a"},{"device_id":"b"},{"device_id":"c"},{"device_id":"a"}]"#;
    assert_eq!(
        ask(&table, "?app_key=abc", three),
        bulk("shop", &every(), "", 4)
    );
    let number = r#"[{"app_key":"abc","device_id":7}]"#;
    assert_eq!(ask(&table, "", number), bulk("shop", "7", "", 1));
}

#[test]
fn applications_of_the_request_or_of_its_items() {
    let table = table(|_| {});
    let salted = r#"[{"app_key":"salty","device_id":"a"}]"#;
    // Items are not signed one by one: there is nothing to check.
    assert_eq!(ask(&table, "", salted), bulk("salted", "a", "", 1));
    assert_eq!(
        ask(&table, "?app_key=abc", salted),
        bulk("shop", "a", "", 1)
    );
    let mixed = r#"[{"app_key":"x","device_id":"a"},{"app_key":"abc","device_id":"a"}]"#;
    assert_eq!(ask(&table, "", mixed), bulk("shop", "a", "", 2));
    let unknown = r#"[{"app_key":"x","device_id":"a"}]"#;
    assert_eq!(ask(&table, "", unknown), replied(400, "App does not exist"));
}

#[test]
fn items_that_the_upstream_skips() {
    let table = table(|_| {});
    let odd = r#"[null,7,"x",[],{},{"app_key":"abc"},{"device_id":"z"},{"app_key":"abc","device_id":"a"}]"#;
    assert_eq!(ask(&table, "", odd), bulk("shop", "a", "", 8));
    for nothing in [
        "[]",
        "[null]",
        r#"[{"device_id":"a"}]"#,
        r#"[{"app_key":"abc"}]"#,
    ] {
        assert_eq!(
            ask(&table, "", nothing),
            replied(200, "Success"),
            "{nothing}"
        );
    }
}

#[test]
fn arrays_in_json_bodies() {
    let table = table(|_| {});
    for body in [
        r#"{"app_key":"abc","requests":[{"device_id":"a"}]}"#,
        r#"{"app_key":"abc","requests":"[{\"device_id\":\"a\"}]"}"#,
    ] {
        let json = "application/json";
        let reply = send(&table, &Method::POST, "/i/bulk", json, body.as_bytes());
        assert_eq!(reply, bulk("shop", "a", "", 1), "{body}");
    }
}

#[test]
fn required_parameters_of_request_or_items() {
    let table = table(|ingest| {
        ingest.accept.required_fields = vec![
            RequestPart::Parameter("sdk_name".into()),
            RequestPart::Parameter("timestamp".into()),
        ];
    });
    let items = r#"[{"device_id":"a","timestamp":1},{"device_id":"a","timestamp":2}]"#;
    assert_eq!(
        ask(&table, "?app_key=abc&sdk_name=x", items),
        bulk("shop", "a", "", 2)
    );
    let missing = replied(400, r#"Missing parameter "sdk_name""#);
    assert_eq!(ask(&table, "?app_key=abc", items), missing);
    let lacks = r#"[{"device_id":"a","timestamp":1},{"device_id":"a"}]"#;
    let missing = replied(400, r#"Missing parameter "timestamp""#);
    assert_eq!(ask(&table, "?app_key=abc&sdk_name=x", lacks), missing);
    // One that will be skipped lacks nothing.
    let skipped = r#"[{"device_id":"a","timestamp":1},{"timestamp":1}]"#;
    assert_eq!(
        ask(&table, "?app_key=abc&sdk_name=x", skipped),
        bulk("shop", "a", "", 2)
    );
}
