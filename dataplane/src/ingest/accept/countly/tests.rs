//! Requests and what becomes of them, by the tables of the protocol.

mod bulk;
mod forms;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use prometheus_client::metrics::counter::Counter;
use sluice_crds::config::{
    Accept, Application, Delivery, Dialect, Durability, Ingest, Ordering, RequestPart,
    RetentionBudget, Secret, UnknownKeys,
};

use super::super::decision::Content;
use super::*;

pub(super) fn application(name: &str, key: &str, salt: Option<&str>) -> Arc<Application> {
    Arc::new(Application {
        name: name.to_owned(),
        keys: vec![Secret::new(key.as_bytes())],
        salt: salt.map(|salt| Secret::new(salt.as_bytes())),
        requests_per_minute: None,
        weight: 1,
        delivery: None,
        upstreams: Vec::new(),
        retention: None,
        paused: false,
    })
}

/// Applications `shop` (key `abc`) and `salted` (key `salty`, salt `pepper`).
pub(crate) fn config(change: impl FnOnce(&mut Ingest)) -> Arc<Ingest> {
    let mut ingest = Ingest {
        accept: Accept {
            dialect: Dialect::Countly,
            path_prefix: String::new(),
            body_bytes: 1024 * 1024,
            concurrent_requests: 100,
            required_fields: Vec::new(),
            tamper_check: true,
            unknown_keys: UnknownKeys::Reject,
        },
        durability: Durability::Memory,
        retention: RetentionBudget {
            time: Duration::from_secs(60),
            bytes: 1 << 30,
        },
        redact: Vec::new(),
        requests_per_minute: None,
        delivery: Delivery {
            attempts: 3,
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            ordering: Ordering::PerKey,
        },
        upstreams: Vec::new(),
        applications: vec![
            application("shop", "abc", None),
            application("salted", "salty", Some("pepper")),
        ],
    };
    change(&mut ingest);
    Arc::new(ingest)
}

pub(crate) fn table(change: impl FnOnce(&mut Ingest)) -> Table {
    Table::new(config(change), |_| Counter::default())
}

/// What became of a request, in short.
#[derive(Debug, PartialEq)]
pub(super) enum Short {
    /// Application, key, barrier, cost.
    Queued(String, String, String, u32),
    Proxied(Option<String>),
    Replied(u16, String),
}

fn short(decision: Decision<'_>) -> Short {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match decision {
        Decision::Queue(routed) => Short::Queued(
            routed.tenant.lane.application.to_string(),
            text(&routed.key),
            text(&routed.barrier),
            routed.cost,
        ),
        Decision::Proxy(tenant) => {
            Short::Proxied(tenant.map(|tenant| tenant.lane.application.to_string()))
        }
        Decision::Reply(reply) => Short::Replied(reply.status.as_u16(), text(&reply.body)),
    }
}

pub(super) fn queued(application: &str, key: &str, barrier: &str) -> Short {
    Short::Queued(application.into(), key.into(), barrier.into(), 1)
}

pub(super) fn replied(status: u16, result: &str) -> Short {
    Short::Replied(status, serde_json::json!({ "result": result }).to_string())
}

pub(super) fn send(
    table: &Table,
    method: &Method,
    target: &str,
    content_type: &str,
    body: &[u8],
) -> Short {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_str(content_type).expect("printable"),
        );
    }
    let body = Bytes::copy_from_slice(body);
    let request = Incoming {
        method,
        query,
        headers: &headers,
        body: &body,
    };
    match route(method, path, &table.ingest.accept.path_prefix) {
        Ok(route) => short(decide(table, route, &request)),
        Err(reply) => short(Decision::Reply(reply)),
    }
}

pub(super) fn get(table: &Table, target: &str) -> Short {
    send(table, &Method::GET, target, "", b"")
}

pub(super) fn post(table: &Table, target: &str, body: &str) -> Short {
    let form = "application/x-www-form-urlencoded";
    send(table, &Method::POST, target, form, body.as_bytes())
}

#[test]
fn paths_and_methods() {
    let proxied = || Short::Proxied(None);
    let id = "?app_key=abc&device_id=d";
    let shop = || queued("shop", "d", "");
    for (method, path, expected) in [
        (Method::GET, format!("/i{id}"), shop()),
        (Method::POST, format!("/i{id}"), shop()),
        (
            Method::GET,
            format!("/i/{id}"),
            Short::Proxied(Some("shop".into())),
        ),
        (Method::GET, "/i/sdk".into(), proxied()),
        (Method::GET, "/i/apps/create".into(), proxied()),
        (Method::GET, "/i/bulk/".into(), proxied()),
        (Method::GET, "/o/sdk?method=sc".into(), proxied()),
        (Method::HEAD, "/o/feedback/widget".into(), proxied()),
        (Method::POST, "/o".into(), proxied()),
        (Method::GET, "/o/ping".into(), proxied()),
        (Method::GET, "/".into(), replied(404, "Invalid path")),
        (Method::GET, "/index".into(), replied(404, "Invalid path")),
        (Method::GET, "//i".into(), replied(404, "Invalid path")),
        (Method::GET, "/I".into(), replied(404, "Invalid path")),
        (
            Method::HEAD,
            format!("/i{id}"),
            replied(405, "Method not allowed"),
        ),
        (
            Method::PUT,
            format!("/i{id}"),
            replied(405, "Method not allowed"),
        ),
        (
            Method::DELETE,
            "/o/x".into(),
            replied(405, "Method not allowed"),
        ),
        (
            Method::OPTIONS,
            "/i".into(),
            Short::Replied(200, String::new()),
        ),
        (
            Method::OPTIONS,
            "*".into(),
            Short::Replied(200, String::new()),
        ),
    ] {
        let table = table(|_| {});
        assert_eq!(
            send(&table, &method, &path, "", b""),
            expected,
            "{method} {path}"
        );
    }
}

#[test]
fn the_prefix_is_removed_before_paths_are_looked_at() {
    let table = table(|ingest| ingest.accept.path_prefix = "/collect".into());
    let id = "?app_key=abc&device_id=d";
    assert_eq!(
        get(&table, &format!("/collect/i{id}")),
        queued("shop", "d", "")
    );
    assert_eq!(get(&table, &format!("/i{id}")), queued("shop", "d", ""));
    assert_eq!(get(&table, "/collect/o/x"), Short::Proxied(None));
    assert_eq!(
        get(&table, &format!("/collect/i/{id}")),
        Short::Proxied(Some("shop".into()))
    );
    assert_eq!(get(&table, "/collecti"), replied(404, "Invalid path"));
    assert_eq!(get(&table, "/collect"), replied(404, "Invalid path"));
}

#[test]
fn who_wants_the_upstreams_answer_is_proxied() {
    let table = table(|_| {});
    let id = "app_key=abc&device_id=d";
    for more in ["safe_api_response=true", "api_key=x", "auth_token=x"] {
        let proxied = Short::Proxied(Some("shop".into()));
        assert_eq!(get(&table, &format!("/i?{id}&{more}")), proxied);
        let proxied = Short::Proxied(Some("shop".into()));
        assert_eq!(post(&table, &format!("/i/bulk?{id}"), more), proxied);
    }
    for empty in ["safe_api_response=", "api_key", "auth_token="] {
        assert_eq!(
            get(&table, &format!("/i?{id}&{empty}")),
            queued("shop", "d", "")
        );
    }
    assert_eq!(get(&table, "/i?api_key=x"), Short::Proxied(None));
    assert_eq!(
        get(&table, "/i?api_key=x&app_key=other"),
        Short::Proxied(None)
    );
}

#[test]
fn identity_is_required() {
    let table = table(|_| {});
    let missing = || replied(400, r#"Missing parameter "app_key" or "device_id""#);
    for target in [
        "/i",
        "/i?app_key=abc",
        "/i?device_id=d",
        "/i?app_key=abc&device_id=",
        "/i?app_key=&device_id=d",
        "/i?APP_KEY=abc&device_id=d",
    ] {
        assert_eq!(get(&table, target), missing(), "{target}");
    }
    // The body of a GET means nothing.
    let form = "application/x-www-form-urlencoded";
    let body = b"app_key=abc&device_id=d";
    assert_eq!(send(&table, &Method::GET, "/i", form, body), missing());
}

#[test]
fn ids_have_24_characters() {
    let table = table(|_| {});
    let id = "app_key=abc&device_id=d";
    let good = "0123456789abcdef01234567";
    for name in ["app_id", "user_id"] {
        assert_eq!(
            get(&table, &format!("/i?{id}&{name}={good}")),
            queued("shop", "d", "")
        );
        assert_eq!(
            get(&table, &format!("/i?{id}&{name}=")),
            queued("shop", "d", "")
        );
        let invalid = || replied(400, &format!("Invalid parameter \"{name}\""));
        assert_eq!(get(&table, &format!("/i?{id}&{name}={good}8")), invalid());
        assert_eq!(get(&table, &format!("/i?{name}=short")), invalid());
        assert_eq!(get(&table, &format!("/i/bulk?{name}=short")), invalid());
    }
}

#[test]
fn devices_without_an_identity_are_ignored() {
    let table = table(|_| {});
    let target = "/i?app_key=unknown&device_id=00000000-0000-0000-0000-000000000000";
    assert_eq!(get(&table, target), replied(200, "Ignoring device_id"));
}

#[test]
fn a_merge_is_a_barrier() {
    let table = table(|_| {});
    let id = "app_key=abc&device_id=new";
    assert_eq!(
        get(&table, &format!("/i?{id}&old_device_id=old")),
        queued("shop", "new", "old")
    );
    assert_eq!(
        get(&table, &format!("/i?{id}&old_device_id=new")),
        queued("shop", "new", "")
    );
    assert_eq!(
        get(&table, &format!("/i?{id}&old_device_id=")),
        queued("shop", "new", "")
    );
}

#[test]
fn unknown_keys_as_configured() {
    let target = "/i?app_key=nobody&device_id=d";
    let reject = table(|_| {});
    assert_eq!(get(&reject, target), replied(400, "App does not exist"));
    let discard = table(|ingest| ingest.accept.unknown_keys = UnknownKeys::AcceptAndDiscard);
    assert_eq!(get(&discard, target), replied(200, "Success"));
    let accept = table(|ingest| ingest.accept.unknown_keys = UnknownKeys::Accept);
    assert_eq!(get(&accept, target), queued("", "d", ""));
}

#[test]
fn required_fields() {
    let table = table(|ingest| {
        ingest.accept.required_fields = vec![
            RequestPart::Parameter("timestamp".into()),
            RequestPart::Parameter("app_key".into()),
            RequestPart::Header("content-type".into()),
        ];
    });
    let id = "/i?app_key=abc&device_id=d";
    let form = "application/x-www-form-urlencoded";
    let ask = |target: &str, content_type, body: &[u8]| {
        send(&table, &Method::POST, target, content_type, body)
    };
    assert_eq!(ask(id, form, b"timestamp=1"), queued("shop", "d", ""));
    assert_eq!(
        ask(&format!("{id}&timestamp=1"), form, b""),
        queued("shop", "d", "")
    );
    for body in ["", "timestamp=", "timestamps=1"] {
        let missing = replied(400, r#"Missing parameter "timestamp""#);
        assert_eq!(ask(id, form, body.as_bytes()), missing, "{body}");
    }
    assert_eq!(
        ask(id, "", b"timestamp=1"),
        replied(400, r#"Missing header "content-type""#)
    );
}

#[test]
fn callbacks() {
    let table = table(|_| {});
    let bad = r#"{"result":"App does not exist"}"#;
    let reply = |callback: &str| {
        get(
            &table,
            &format!("/i?app_key=x&device_id=d&callback={callback}"),
        )
    };
    assert_eq!(reply("cb"), Short::Replied(400, format!("cb({bad})")));
    assert_eq!(
        reply("a.b_1.%24c"),
        Short::Replied(400, format!("a.b_1.$c({bad})"))
    );
    for evil in [
        "",
        "alert(1)//",
        "a%0a",
        "1a",
        "a..b",
        "%3Cscript%3E",
        "%ff",
        &"a".repeat(129),
    ] {
        assert_eq!(reply(evil), Short::Replied(400, bad.to_owned()), "{evil}");
    }
    let headers = HeaderMap::new();
    let request = Incoming {
        method: &Method::GET,
        query: "app_key=abc&device_id=d&callback=cb",
        headers: &headers,
        body: &Bytes::new(),
    };
    let Decision::Queue(routed) = decide(&table, Route::Write, &request) else {
        panic!("not queued");
    };
    let success = routed.success.expect("a reply of its own");
    assert_eq!(success.content, Content::JavaScript);
    assert_eq!(success.body, &br#"cb({"result":"Success"})"#[..]);
    assert_eq!((success.status, success.rejected), (StatusCode::OK, None));
}

#[test]
fn checksums_are_asked_for_where_there_is_a_salt() {
    const SHA1: &str = "bc964297c1358d7a124dd705b927218d4829e5e3";
    let text = "app_key=abc&device_id=d1&timestamp=1700000000";
    let salted = |tamper_check| {
        table(move |ingest| {
            ingest.accept.tamper_check = tamper_check;
            ingest.applications = vec![application("shop", "abc", Some("pepper"))];
        })
    };
    let checking = salted(true);
    let fits = || queued("shop", "d1", "");
    assert_eq!(
        get(&checking, &format!("/i?{text}&checksum={SHA1}")),
        fits()
    );
    assert_eq!(
        post(&checking, "/i", &format!("{text}&checksum={SHA1}")),
        fits()
    );
    // Any of the two texts of a POST.
    assert_eq!(
        post(
            &checking,
            &format!("/i?{text}"),
            &format!("{text}&checksum={SHA1}")
        ),
        fits()
    );
    assert_eq!(
        get(&checking, &format!("/i?{text}")),
        replied(200, "Request does not have checksum")
    );
    let wrong = || replied(200, "Request does not match checksum");
    assert_eq!(
        get(&checking, &format!("/i?{text}&rr=1&checksum={SHA1}")),
        wrong()
    );
    assert_eq!(get(&checking, &format!("/i?{text}&checksum=")), wrong());
    assert_eq!(get(&salted(false), &format!("/i?{text}")), fits());
    // A checksum that nobody can check is none of our business.
    let unsalted = table(|_| {});
    assert_eq!(get(&unsalted, &format!("/i?{text}&checksum=00")), fits());
}

#[test]
fn checksums_of_forms_in_parts() {
    let sums = [
        ("checksum", "bc964297c1358d7a124dd705b927218d4829e5e3"),
        (
            "checksum256",
            "287cdf383aa8f7d5792db69b4cda0f366b08c06aba8c1c7a962e701e801f6385",
        ),
    ];
    let table =
        table(|ingest| ingest.applications = vec![application("shop", "abc", Some("pepper"))]);
    for (name, value) in sums {
        let field = |name: &str, value: &str| {
            format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let file = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n\
            Content-Type: image/png\r\n\r\n\u{fffd}PNG\r\n";
        let body = |device: &str| {
            [
                field("app_key", "abc"),
                field("device_id", device),
                file.to_owned(),
                field("timestamp", "1700000000"),
                field(name, value),
                "--x--\r\n".to_owned(),
            ]
            .concat()
        };
        let ask = |body: &str| {
            let kind = "multipart/form-data; boundary=x";
            send(&table, &Method::POST, "/i", kind, body.as_bytes())
        };
        assert_eq!(ask(&body("d1")), queued("shop", "d1", ""), "{name}");
        assert_eq!(
            ask(&body("d2")),
            replied(200, "Request does not match checksum"),
            "{name}"
        );
    }
}
