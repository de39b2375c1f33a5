//! Requests without a protocol.

use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_crds::config::{Dialect, UnknownKeys};

use super::super::countly::tests::table;
use super::*;

fn rules() -> Generic {
    Generic {
        application_key: Some(RequestPart::Header("x-app-key".into())),
        ordering_key: Some(RequestPart::Parameter("device".into())),
    }
}

fn with_rules(rules: &Generic, change: impl FnOnce(&mut sluice_crds::config::Ingest)) -> Table {
    table(|ingest| {
        ingest.accept.dialect = Dialect::Generic(rules.clone());
        change(ingest);
    })
}

fn ask(table: &Table, rules: &Generic, query: &str, headers: &[(&'static str, &str)]) -> String {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("printable");
            (HeaderName::from_static(name), value)
        })
        .collect();
    let request = Incoming {
        method: &Method::PUT,
        query,
        headers: &headers,
        body: &Bytes::new(),
    };
    match decide(table, rules, &request) {
        Decision::Queue(routed) => format!(
            "{}/{}",
            routed.tenant.lane.application,
            String::from_utf8_lossy(&routed.key)
        ),
        Decision::Reply(reply) => format!(
            "{} {}",
            reply.status.as_u16(),
            String::from_utf8_lossy(&reply.body)
        ),
        Decision::Proxy(_) => "proxy".to_owned(),
    }
}

#[test]
fn paths_below_the_prefix() {
    for path in ["/hook", "/hook/", "/hook/a/b"] {
        assert!(takes(path, "/hook"), "{path}");
    }
    for path in ["/", "/hooks", "/hoo", "/a/hook", "*", ""] {
        assert!(!takes(path, "/hook"), "{path}");
    }
    assert!(takes("/anything", ""));
}

#[test]
fn any_method_that_can_wait() {
    for method in [
        "GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "REPORT",
    ] {
        assert_eq!(route(&method.parse().expect("a token")), Ok(()), "{method}");
    }
    for method in [Method::CONNECT, Method::TRACE] {
        let reply = route(&method).expect_err("refused");
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[test]
fn application_and_order() {
    let rules = rules();
    let table = with_rules(&rules, |_| {});
    let key = ("x-app-key", "abc");
    assert_eq!(ask(&table, &rules, "device=a%20b", &[key]), "shop/a b");
    assert_eq!(ask(&table, &rules, "", &[key]), "shop/");
    let required = r#"400 {"error":{"field":"header x-app-key","message":"is required"}}"#;
    assert_eq!(ask(&table, &rules, "device=a", &[]), required);
    assert_eq!(ask(&table, &rules, "", &[("x-app-key", "")]), required);
    let unknown =
        r#"403 {"error":{"field":"header x-app-key","message":"belongs to no application"}}"#;
    assert_eq!(ask(&table, &rules, "", &[("x-app-key", "nobody")]), unknown);
}

#[test]
fn unknown_keys_as_configured() {
    let rules = rules();
    let nobody = ("x-app-key", "nobody");
    let table = with_rules(&rules, |ingest| {
        ingest.accept.unknown_keys = UnknownKeys::Accept
    });
    assert_eq!(ask(&table, &rules, "device=a", &[nobody]), "/a");
    let discard = UnknownKeys::AcceptAndDiscard;
    let table = with_rules(&rules, |ingest| ingest.accept.unknown_keys = discard);
    assert_eq!(
        ask(&table, &rules, "", &[nobody]),
        r#"202 {"result":"Accepted"}"#
    );
}

#[test]
fn without_keys_everything_is_unknown() {
    let rules = Generic {
        application_key: None,
        ordering_key: None,
    };
    let table = with_rules(&rules, |ingest| {
        ingest.accept.unknown_keys = UnknownKeys::Accept
    });
    assert_eq!(ask(&table, &rules, "device=a", &[]), "/");
    let table = with_rules(&rules, |_| {});
    assert!(ask(&table, &rules, "", &[]).starts_with("403 "));
}

#[test]
fn required_fields() {
    let rules = rules();
    let table = with_rules(&rules, |ingest| {
        ingest.accept.required_fields = vec![
            RequestPart::Parameter("kind".into()),
            RequestPart::Header("x-source".into()),
        ];
    });
    let key = ("x-app-key", "abc");
    assert_eq!(
        ask(&table, &rules, "kind=1", &[key, ("x-source", "s")]),
        "shop/"
    );
    let missing = r#"400 {"error":{"field":"parameter kind","message":"is required"}}"#;
    assert_eq!(
        ask(&table, &rules, "kind=", &[key, ("x-source", "s")]),
        missing
    );
    let missing = r#"400 {"error":{"field":"header x-source","message":"is required"}}"#;
    assert_eq!(ask(&table, &rules, "kind=1", &[key]), missing);
}
