//! Heads; what is refused has its table beside the real handler, in `http::tests`.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[test]
fn the_end_is_found_however_it_arrives() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest\n";
    let mut scan = Scan::default();
    for length in 0..bytes.len() {
        let end = scan.end(&bytes[..length]);
        if length < 27 {
            assert_eq!(end, Ok(None), "{length}");
        } else {
            assert_eq!(end, Ok(Some(27)), "{length}");
            break;
        }
    }
    assert_eq!(Scan::default().end(bytes), Ok(Some(27)));
    assert_eq!(Scan::default().end(b"\r"), Ok(None));
}

#[test]
fn what_a_head_says() {
    let head = |text: &'static str| parse(Bytes::from_static(text.as_bytes())).expect("a head");
    let plain = head("GET /a?b=c HTTP/1.1\r\nHost: [::1]:80\r\nX: \u{fc}\r\n\r\n");
    assert_eq!(plain.parts.uri, "/a?b=c");
    assert_eq!(plain.framing, Framing::Length(0));
    assert!(plain.keep_alive && !plain.expects_continue);
    let old = head("POST / HTTP/1.0\r\nContent-Length: 00012\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(old.framing, Framing::Length(12));
    assert!(!old.keep_alive && !old.expects_continue);
    let chunked = head(
        "POST / HTTP/1.1\r\nHost:\r\nTransfer-Encoding:  Chunked \r\nExpect: 100-Continue\r\nConnection: a\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(chunked.framing, Framing::Chunked);
    assert!(!chunked.keep_alive && chunked.expects_continue);
    assert_eq!(
        head("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n")
            .parts
            .method,
        Method::CONNECT
    );
    assert_eq!(head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").parts.uri, "*");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'G'), Just(b'/'), any::<u8>()], 0..120)) {
        let _ = Scan::default().end(&bytes);
        let _ = parse(bytes.into());
    }
}
