//! What is stored comes back; what is damaged is refused.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn any_request() -> impl Strategy<Value = StoredRequest> {
    let header = ("[a-z][a-z0-9-]{0,20}", "[ -~\u{80}-\u{ff}]{0,60}").prop_map(|(name, value)| {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("printable");
        (name.parse::<HeaderName>().expect("a token"), value)
    });
    (
        "[A-Z]{1,12}",
        vec(any::<u8>(), 0..200),
        vec(header, 0..12),
        any::<IpAddr>(),
        any::<bool>(),
        vec(any::<u8>(), 0..400),
    )
        .prop_map(
            |(method, target, headers, client, secure, body)| StoredRequest {
                method: method.parse().expect("a token"),
                target: target.into(),
                headers,
                client,
                secure,
                body: body.into(),
            },
        )
}

proptest! {
    #[test]
    fn lengths_take_as_many_bytes_as_said(length in prop_oneof![0..300_usize, any::<usize>()]) {
        let mut out = Vec::new();
        put_length(&mut out, length);
        prop_assert_eq!(out.len(), length_bytes(length));
        let mut stored = Bytes::from(out);
        prop_assert_eq!(super::length(&mut stored), Ok(length));
    }

    #[test]
    fn what_is_stored_comes_back(request in any_request()) {
        prop_assert_eq!(StoredRequest::decode(request.encode()), Ok(request));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = StoredRequest::decode(bytes.clone().into());
        let mut versioned = vec![VERSION, 0, 127, 0, 0, 1];
        versioned.extend(bytes);
        if let Ok(request) = StoredRequest::decode(versioned.into()) {
            prop_assert_eq!(StoredRequest::decode(request.encode()), Ok(request));
        }
    }

    #[test]
    fn a_cut_is_found_or_shortens_the_body(request in any_request(), cut in any::<prop::sample::Index>()) {
        let whole = request.encode();
        let cut = cut.index(whole.len());
        match StoredRequest::decode(whole.slice(..cut)) {
            Err(error) => prop_assert_eq!(error, DecodeError::Damaged),
            Ok(shorter) => prop_assert!(shorter.body.len() < request.body.len()),
        }
    }
}

#[test]
fn bodies_and_values_are_not_copied() {
    let request = StoredRequest {
        method: Method::POST,
        target: "/i".into(),
        headers: vec![(http::header::USER_AGENT, HeaderValue::from_static("x"))],
        client: Ipv4Addr::LOCALHOST.into(),
        secure: true,
        body: vec![7; 100_000].into(),
    };
    let stored = request.encode();
    let decoded = StoredRequest::decode(stored.clone()).expect("just encoded");
    let inside = stored.as_ptr_range();
    assert!(inside.contains(&decoded.body.as_ptr()));
    assert!(inside.contains(&decoded.target.as_ptr()));
}

#[test]
fn other_versions_are_named() {
    assert_eq!(
        StoredRequest::decode(Bytes::from_static(&[9, 0])),
        Err(DecodeError::Version(9))
    );
    assert_eq!(
        StoredRequest::decode(Bytes::new()),
        Err(DecodeError::Damaged)
    );
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    let mut stored = vec![VERSION, 0, 127, 0, 0, 1, 1, b'G', 0];
    stored.extend([0xff; 9]);
    stored.push(1);
    assert_eq!(
        StoredRequest::decode(stored.into()),
        Err(DecodeError::Damaged)
    );
}

#[test]
fn only_end_to_end_headers_are_kept() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "a"),
        ("connection", "close, X-Mine , te"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "x"),
        ("proxy-connection", "x"),
        ("content-length", "3"),
        ("expect", "100-continue"),
        ("content-type", "text/plain"),
        ("x-forwarded-for", "192.0.2.1"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
    ] {
        headers.append(
            name.parse::<HeaderName>().expect("a token"),
            HeaderValue::from_static(value),
        );
    }
    let body = Bytes::from_static(b"abc");
    let draft = Draft {
        method: &Method::PUT,
        target: b"/x?y",
        headers: &headers,
        client: Ipv6Addr::LOCALHOST.into(),
        secure: false,
        body: &body,
    };
    let request = draft.to_request();
    let names: Vec<_> = request
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        ["content-type", "x-forwarded-for", "authorization", "cookie"]
    );
    assert_eq!(StoredRequest::decode(draft.encode()), Ok(request));
}

#[test]
fn nothing_of_the_client_is_printed() {
    let request = StoredRequest {
        method: Method::POST,
        target: "/i?app_key=secret".into(),
        headers: vec![(
            http::header::AUTHORIZATION,
            HeaderValue::from_static("Bearer secret"),
        )],
        client: Ipv4Addr::LOCALHOST.into(),
        secure: true,
        body: "secret".into(),
    };
    assert!(!format!("{request:?}").contains("secret"));
}
