use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::outgoing;
use crate::ingest::entry::StoredRequest;
use crate::ingest::upstream::Address;

fn stored(target: &[u8], headers: &[(&'static str, &'static str)]) -> StoredRequest {
    StoredRequest {
        method: Method::GET,
        target: Bytes::copy_from_slice(target),
        headers: headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect(),
        client: [192, 0, 2, 7].into(),
        secure: false,
        body: Bytes::new(),
    }
}

fn address(url: &str) -> Address {
    Address::parse(url).unwrap()
}

#[test]
fn targets_stay_as_they_are() {
    let targets: [&[u8]; 16] = [
        b"/i",
        b"/i?",
        b"/i?a=b&c",
        b"//i//x/../y/./",
        b"/i?a=%7b%2F%zz%",
        b"/i?events=[{'key':'a'}]",
        b"/i?a={b}|c\\d^e`f",
        b"/i?a[]=(b)&c=~!*",
        "/i?n=\u{e4}\u{1f600}".as_bytes(),
        b"/i;p=1,2:3@4!$'()*+~",
        b"/{a}\"b\"",
        b"/i?a=b?c=d",
        b"/i?+a=b+c",
        b"/i?a=/../b",
        b"/%00",
        b"/i?a==b&&c",
    ];
    for prefix in ["", "/base"] {
        let address = address(&format!("http://h:1{prefix}"));
        for target in targets {
            let text = String::from_utf8_lossy(target);
            let request = outgoing(&stored(target, &[]), &address).expect(&text);
            assert_eq!(request.uri().to_string(), format!("{prefix}{text}"));
        }
    }
}

#[test]
fn what_http_cannot_carry_is_not_sent_as_something_else() {
    for target in [
        &b"/i?a#b"[..],
        b"/a b",
        b"/i?a=\"b\"",
        b"/i?<b>",
        b"/\xff",
        b"/a\r\nX: y",
        b"/\x00",
        b"",
    ] {
        let sent = outgoing(&stored(target, &[]), &address("http://h"));
        assert!(sent.is_none(), "{:?}", String::from_utf8_lossy(target));
    }
}

#[test]
fn the_upstream_learns_who_asked() {
    let mut request = stored(
        b"/i",
        &[("user-agent", "sdk"), ("x-forwarded-for", "10.0.0.1")],
    );
    request.headers.push((
        HeaderName::from_static("x-forwarded-for"),
        HeaderValue::from_static("10.0.0.2, 10.0.0.3"),
    ));
    request.client = "::ffff:192.0.2.7".parse().unwrap();
    let sent = outgoing(&request, &address("http://h:81/x")).unwrap();
    let headers = sent.headers();
    assert_eq!(
        headers["x-forwarded-for"],
        "10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7"
    );
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["host"], "h:81");
    assert_eq!(headers["user-agent"], "sdk");
    assert_eq!(headers.len(), 4);
}

#[test]
fn a_proxy_before_us_knows_the_scheme_better() {
    let mut request = stored(b"/i", &[("x-forwarded-proto", "https")]);
    let sent = outgoing(&request, &address("http://h")).unwrap();
    assert_eq!(sent.headers()["x-forwarded-proto"], "https");
    request.headers.clear();
    request.secure = true;
    let sent = outgoing(&request, &address("http://h")).unwrap();
    assert_eq!(sent.headers()["x-forwarded-proto"], "https");
}

#[test]
fn headers_of_the_hop_are_left_out() {
    let request = stored(
        b"/i",
        &[
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("host", "other"),
            ("content-length", "7"),
            ("te", "trailers"),
        ],
    );
    let sent = outgoing(&request, &address("http://h")).unwrap();
    assert_eq!(sent.headers().len(), 3);
    assert_eq!(sent.headers()["host"], "h");
}
